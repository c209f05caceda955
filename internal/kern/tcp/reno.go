package tcp

// Congestion control of connections without a scoreboard: RFC 5681 as BSD has it, on sndCwnd and
// sndSsthresh. Connections that have one ask a CC instead.

// initialWindow is RFC 6928, 2: min(10*MSS, max(2*MSS, 14600)), with the profile's number of
// segments for 10. On the loopback there is no path to congest, and a window of two segments would
// wait for a delayed acknowledgment.
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

// renoInit starts slow start.
func (tp *TCB) renoInit() {
	tp.sndCwnd = tp.initialWindow()
	if tp.backoff > 0 {
		tp.sndCwnd = uint32(tp.effMSS()) // RFC 5681, 3.1: the SYN or its ACK was lost
	}
}

// renoAcked grows the window: slow start by the bytes acknowledged, at most two segments (RFC
// 3465); then one segment a window.
func (tp *TCB) renoAcked(acked int) {
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

// renoCongested halves the flight (RFC 5681, equation 4).
func (tp *TCB) renoCongested(s Signal, flight int) {
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

// renoRecovered deflates the window (RFC 6582, 3.2, step 3), without letting out a burst.
func (tp *TCB) renoRecovered() {
	flight := uint32(tp.sndMax.Sub(tp.sndUna))
	tp.sndCwnd = tp.sndSsthresh
	if tp.prof.NewReno {
		mss := uint32(tp.effMSS())
		tp.sndCwnd = min(tp.sndSsthresh, max(flight, mss)+mss)
	}
	tp.cwndBytes = 0
}

// renoAfterIdle restarts slow start. RFC 5681, 4.1: "a TCP SHOULD set cwnd to no more than RW
// before beginning transmission if the TCP has not sent data in an interval exceeding the
// retransmission timeout", with "RW = min(IW,cwnd)". BSD counts from the last segment received, of
// which it has the time: nothing is in flight, so it was the acknowledgment of what was sent last,
// or has come later.
func (tp *TCB) renoAfterIdle() {
	tp.sndCwnd = min(tp.sndCwnd, tp.initialWindow())
}
