package tcp

import "math"

// What NewReno and CUBIC have in common: how they begin, what counts as in flight when the window
// is reduced, and what a window is worth after a pause. Both are called only to grow the window;
// the sender reduces it, by proportional rate reduction.

const (
	// infinite is the slow start threshold of a connection that has not seen congestion: RFC
	// 5681, 3.1: "The initial value of ssthresh SHOULD be set arbitrarily high". It fits in an
	// int of 32 bits.
	infinite = math.MaxInt32

	// maxCwnd is the largest window that a peer can offer (RFC 7323, 2.3), bytes.
	maxCwnd = maxWin << 14
)

// flightSize returns RFC 5681's FlightSize, bytes: "The amount of data that has been sent but not
// yet cumulatively acknowledged." What the window has not allowed does not count: the segments of
// RFC 3042, of which RFC 5681, 3.2 says that "additional data sent in limited transmit MUST NOT be
// included in this calculation", and what was selectively acknowledged and has made room for more.
func flightSize(v *View, c *Control) int {
	out := maxCwnd
	if d := v.Sent - v.Acked; d < maxCwnd {
		out = int(d)
	}
	return min(max(out, v.Flight), c.Cwnd)
}

// A usage remembers whether the window is made use of. RFC 7661, 4.3 lets only a window grow that
// has been validated, and RFC 9438, 5.8 likewise. A paced sender is held back by the window at one
// moment and by its pace at another, so it counts if the window has held it back in the last round
// trip.
type usage struct {
	until uint64 // of the stream: what had been sent when the window last held back data
}

// limited reports whether the window has held back data in the last round trip. In slow start only
// the acknowledgment in hand counts: CwndLimited is true there if half of the window is used, and
// if that were remembered, the window would grow without being used.
func (u *usage) limited(v *View, c *Control) bool {
	if v.CwndLimited {
		u.until = v.Sent
	}
	return v.CwndLimited || c.Cwnd >= c.Ssthresh && v.Acked < u.until
}

// slowStart grows the window by what was delivered, by limit bytes at most, up to the threshold. It
// returns the bytes delivered beyond it, which count for congestion avoidance. As long as no
// threshold is known, h looks for one.
func slowStart(h *hystart, limit int, used bool, v *View, a *Ack, c *Control) (rest int) {
	n := min(a.Delivered, limit)
	if c.Ssthresh == infinite {
		// RFC 9406, 4.3: "An implementation SHOULD use HyStart++ only for the initial slow
		// start (when the ssthresh is at its initial value of arbitrarily high per
		// [RFC5681])".
		n, done := h.acked(v, a, n)
		if used {
			c.Cwnd = min(c.Cwnd+n, maxCwnd)
		}
		if done {
			c.Ssthresh = c.Cwnd
		}
		return 0
	}
	if !used {
		return 0
	}
	grow := min(n, c.Ssthresh-c.Cwnd)
	c.Cwnd += grow
	return n - grow
}

// restart halves the window for each retransmission time-out that the connection was idle, but not
// below the restart window, and remembers three quarters of it as the threshold. It does so instead
// of RFC 5681, 4.1's step to the restart window after the first time-out, as RFC 2861 did and as
// Linux does: the burst that RFC 5681 is afraid of is paced here, and a request after a short pause
// does not begin anew. After log2(cwnd/RW) time-outs the two are the same. (RFC 7661, which has
// made RFC 2861 historic, would keep the window for five minutes.)
//
// A View has no time-out, so that of RFC 6298, 2.2 is taken, which is three round trips, but 200 ms
// at least.
func restart(v *View, idle int64, c *Control) {
	rto := max(3*v.SRTT, 200*ms)
	if idle < rto {
		return
	}
	c.Ssthresh = max(c.Ssthresh, c.Cwnd-c.Cwnd/4)
	rw := min(v.InitialWindow, c.Cwnd) // RFC 5681, 4.1: "RW = min(IW,cwnd)"
	for ; idle >= rto && c.Cwnd > rw; idle -= rto {
		c.Cwnd = max(c.Cwnd/2, rw)
	}
}
