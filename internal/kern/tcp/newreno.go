package tcp

// newReno is standard congestion control: RFC 5681, by bytes (RFC 3465), with HyStart++ (RFC 9406)
// to find the end of the first slow start.
type newReno struct {
	h     hystart
	use   usage
	bytes int // bytes_acked of RFC 3465, 2.1

	// What Undo goes back to; 0: there is nothing to take back.
	undoCwnd, undoSsthresh int

	timedOut bool // the losses being repaired were found by the timer, so the window grows meanwhile
	slow     bool // slow start follows a time-out
}

func (r *newReno) Init(v *View, c *Control) {
	c.Cwnd, c.Ssthresh = v.InitialWindow, infinite
}

func (r *newReno) OwnWindow() bool { return false }

func (r *newReno) Acked(v *View, a *Ack, c *Control) {
	if v.InRecovery && !r.timedOut {
		return // the window is proportional rate reduction's
	}
	n, used := a.Delivered, r.use.limited(v, c)
	if c.Cwnd < c.Ssthresh {
		// RFC 3465, 2.3: "TCP implementations MAY use L=2*SMSS bytes"; in slow start phases
		// that follow a time-out "a TCP MUST use L = 1*SMSS".
		limit := 2 * v.MSS
		if r.slow {
			limit = v.MSS
		}
		n = slowStart(&r.h, limit, used, v, a, c)
	}
	if c.Cwnd < c.Ssthresh {
		return
	}
	r.slow = false
	if !used {
		return
	}
	// RFC 3465, 2.1: "When bytes_acked becomes greater than or equal to the value of the
	// congestion window, bytes_acked is reduced by the value of cwnd. Next, cwnd is incremented
	// by a full-sized segment (SMSS)."
	r.bytes += n
	if r.bytes >= c.Cwnd {
		r.bytes = min(r.bytes-c.Cwnd, c.Cwnd)
		c.Cwnd = min(c.Cwnd+v.MSS, maxCwnd)
	}
}

func (r *newReno) Congested(v *View, s Signal, c *Control) {
	r.undoCwnd, r.undoSsthresh = c.Cwnd, c.Ssthresh
	// RFC 5681, 3.1, equation 4: "ssthresh = max (FlightSize / 2, 2*SMSS)".
	c.Ssthresh = max(flightSize(v, c)/2, 2*v.MSS)
	r.bytes = 0
	r.timedOut, r.slow = s == RTO, s == RTO
}

// Undo goes back to what there was, unless the window has grown beyond it meanwhile. RFC 4015 would
// do so in steps, to prevent a burst; here pacing does.
func (r *newReno) Undo(v *View, c *Control) {
	if r.undoCwnd == 0 {
		return
	}
	c.Cwnd, c.Ssthresh = max(c.Cwnd, r.undoCwnd), max(c.Ssthresh, r.undoSsthresh)
	r.undoCwnd, r.undoSsthresh = 0, 0
	r.timedOut, r.slow = false, false
}

func (r *newReno) Recovered(v *View, c *Control) {
	if !r.timedOut && r.undoCwnd != 0 {
		// RFC 6582, 3.2: a full acknowledgment deflates the window to ssthresh, unless that
		// has been taken back.
		c.Cwnd = min(c.Cwnd, c.Ssthresh)
	}
	r.timedOut = false
}

func (r *newReno) Restart(v *View, idle int64, c *Control) { restart(v, idle, c) }
