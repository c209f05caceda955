package tcp

// pacer spreads what a window lets out over the round trip, in trains of about a millisecond, so
// that no queue on the way has to hold a whole window at once. It is a clock of its own: next is
// when the train before has been sent at the pacing rate.
type pacer struct {
	rate  int64 // bytes a second; 0: not paced
	next  int64
	burst int  // bytes that may still go at once at the beginning of a flight
	held  bool // something waits for next
}

const (
	paceTrain = ms     // a train is what the rate sends in this time
	paceOne   = 2      // the fewest segments of a train
	paceFirst = 10     // segments that a flight may begin with
	paceLate  = 2 * ms // how much of a timer's delay is made up for, at least
	// a train waits no longer than this, however low the rate: it may have been estimated while the
	// peer's window was closed
	paceGap = sec
	// how much of a timer's delay is made up for, at most, whatever the round trip: a longer train
	// after a stalled process would be a burst
	paceMost = 16 * ms
)

// train is the size of a train in bytes.
func (p *pacer) train(mss int) int {
	return max(int(p.rate/(sec/paceTrain)), paceOne*mss)
}

// allow returns how many bytes may be sent now; 0: none before p.next.
func (p *pacer) allow(now int64, mss int) int {
	if p.rate == 0 {
		return 1 << 30
	}
	if p.next > now {
		return 0
	}
	return p.train(mss)
}

// begin lets a flight begin with a burst: nothing is in the network, and no more than an initial
// window goes at once (RFC 6928).
func (p *pacer) begin(now int64, mss int) {
	p.next, p.burst = now, paceFirst*mss
}

// sent notes that n bytes have been sent. credit is how much of the time since the last train still
// counts.
func (p *pacer) sent(now int64, n int, credit int64) {
	p.held = false
	if p.rate == 0 {
		return
	}
	free := min(n, p.burst)
	p.burst -= free
	n -= free
	p.next = min(max(p.next, now-credit)+int64(min(float64(n)*1e9/float64(p.rate), 1e18)), now+paceGap)
}

// credit is how much of the time in which nothing was sent still counts: an eighth of the round
// trip, within bounds, but at least the time that the first segments of a flight take at the pacing
// rate. So an acknowledgment that covers a few segments is answered at once, and a window of no
// more than paceFirst segments is not delayed at all.
func (p *pacer) credit(srtt int64, mss int) int64 {
	c := min(max(srtt/8, paceLate), paceMost)
	if p.rate > 0 {
		c = max(c, int64(float64((paceFirst-1)*mss)*1e9/float64(p.rate)))
	}
	return c
}

// setRate takes the rate that the congestion controller asks for, or derives one from its window:
// twice the window in a round trip in slow start, in which the window doubles, and a fifth more
// than the window afterwards, so that the window is the limit, and not the pacer. out is what has
// been sent and not acknowledged in order. It is more than the window while losses are repaired:
// then as much is sent as arrives, and pacing must not slow that down.
func (p *pacer) setRate(c *Control, srtt int64, out int) {
	cwnd := float64(max(c.Cwnd, out))
	switch {
	case c.Rate != 0:
		p.rate = c.Rate
	case srtt == 0:
		p.rate = 0
	case c.Cwnd < c.Ssthresh/2 || c.Cwnd < c.Ssthresh && c.Ssthresh >= maxWin<<maxScale:
		p.rate = int64(2 * cwnd * 1e9 / float64(srtt))
	default:
		p.rate = int64(1.2 * cwnd * 1e9 / float64(srtt))
	}
}
