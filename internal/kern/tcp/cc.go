package tcp

// A Signal is a sign of congestion: FreeBSD's CC_NDUPACK, CC_RTO, CC_ECN.
type Signal uint8

// The signals.
const (
	Dupacks Signal = iota // loss found by duplicate acknowledgments
	RTO                   // the retransmission timer fired
	ECN                   // the peer has seen a congestion mark
)

// A CC is a congestion control algorithm, in the manner of FreeBSD's cc(9). Its methods change only the congestion window and the
// slow start threshold. One value serves every connection of an Env.
type CC interface {
	// Init sets the window of a connection that has just been established.
	Init(tp *TCB)
	// Acked: acked bytes have been acknowledged outside of recovery.
	Acked(tp *TCB, acked int)
	// Congested: there is congestion; flight bytes were out when it was found.
	Congested(tp *TCB, s Signal, flight int)
	// Recovered: everything that was out when loss was found has been acknowledged.
	Recovered(tp *TCB)
	// AfterIdle: nothing has been sent for a retransmission time-out.
	AfterIdle(tp *TCB)
}

// NewReno is RFC 5681's congestion control.
type NewReno struct{}

// initialWindow is RFC 6928, 2: min(10*MSS, max(2*MSS, 14600)), with the profile's number of segments for 10. On the loopback
// there is no path to congest, and a window of two segments would wait for a delayed acknowledgment.
func (tp *TCB) initialWindow() uint32 {
	if tp.flags&whole != 0 {
		return maxWin << tp.sndScale
	}
	n, mss := tp.prof.InitCwndSegs, tp.effMSS()
	if n <= 4 {
		return uint32(n * mss)
	}
	return uint32(min(n*mss, max(2*mss, 1460*n)))
}

// Init starts slow start.
func (NewReno) Init(tp *TCB) {
	tp.sndCwnd = tp.initialWindow()
	if tp.backoff > 0 {
		tp.sndCwnd = uint32(tp.effMSS()) // RFC 5681, 3.1: the SYN or its ACK was lost
	}
}

// Acked grows the window: slow start by the bytes acknowledged, at most two segments (RFC 3465); then one segment a window.
func (NewReno) Acked(tp *TCB, acked int) {
	mss := uint32(tp.effMSS())
	limit := uint32(maxWin) << tp.sndScale
	if tp.sndCwnd >= limit {
		return
	}
	incr := mss
	switch {
	case tp.sndCwnd > tp.sndSsthresh && tp.prof.ABC:
		tp.cwndBytes += uint32(acked)
		if tp.cwndBytes < tp.sndCwnd {
			return
		}
		tp.cwndBytes -= tp.sndCwnd
	case tp.sndCwnd > tp.sndSsthresh:
		incr = max(mss*mss/tp.sndCwnd, 1)
	case tp.prof.ABC:
		l := 2 * mss
		if tp.sndNxt.Lt(tp.sndMax) {
			l = mss // RFC 3465, 2.3: after a time-out, one
		}
		incr = min(uint32(acked), l)
	}
	tp.sndCwnd = min(tp.sndCwnd+incr, limit)
}

// Congested halves the flight (RFC 5681, equation 4).
func (NewReno) Congested(tp *TCB, s Signal, flight int) {
	mss := tp.effMSS()
	tp.sndSsthresh = uint32(max(flight/2, 2*mss))
	tp.cwndBytes = 0
	switch s {
	case RTO:
		tp.sndCwnd = uint32(mss)
	case ECN:
		tp.sndCwnd = tp.sndSsthresh
	}
}

// Recovered deflates the window (RFC 6582, 3.2, step 3), without letting out a burst.
func (NewReno) Recovered(tp *TCB) {
	flight := uint32(tp.sndMax.Sub(tp.sndUna))
	tp.sndCwnd = tp.sndSsthresh
	if tp.prof.NewReno {
		mss := uint32(tp.effMSS())
		tp.sndCwnd = min(tp.sndSsthresh, max(flight, mss)+mss)
	}
	tp.cwndBytes = 0
}

// AfterIdle restarts slow start (RFC 5681, 4.1): the restart window is min(IW, cwnd).
func (NewReno) AfterIdle(tp *TCB) {
	tp.sndCwnd = min(tp.sndCwnd, tp.initialWindow())
}
