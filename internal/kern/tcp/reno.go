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
		return uint32(n * mss) // Net/3's, from before RFC 3390: the bounds in bytes are for more
	}
	return uint32(min(n*mss, max(2*mss, 1460*n)))
}

// renoInit starts slow start.
func (tp *TCB) renoInit() {
	tp.sndCwnd = tp.initialWindow()
	if tp.backoff > 0 {
		// RFC 5681, 3.1: "if the SYN or SYN/ACK is lost, the initial window used by a sender after
		// a correctly transmitted SYN MUST be one segment consisting of at most SMSS bytes."
		tp.sndCwnd = uint32(tp.effMSS())
	}
}

// renoAcked grows the window. RFC 5681, 3.1: "The slow start algorithm is used when cwnd <
// ssthresh, while the congestion avoidance algorithm is used when cwnd > ssthresh. When cwnd and
// ssthresh are equal, the sender may use either slow start or congestion avoidance." BSD's uses the
// former.
func (tp *TCB) renoAcked(acked int) {
	mss := uint32(tp.effMSS())
	limit := uint32(maxWin) << tp.sndScale
	if tp.sndCwnd >= limit {
		return // the peer can offer no larger window
	}
	incr := mss // slow start: "a TCP increments cwnd by at most SMSS bytes for each ACK received"
	switch {
	case tp.sndCwnd > tp.sndSsthresh && tp.prof.ABC:
		// "During congestion avoidance, cwnd is incremented by roughly 1 full-sized segment per
		// round-trip time (RTT)": once a whole window has been acknowledged (RFC 3465, 2.1).
		tp.cwndBytes += uint32(acked)
		if tp.cwndBytes < tp.sndCwnd {
			return
		}
		tp.cwndBytes -= tp.sndCwnd
	case tp.sndCwnd > tp.sndSsthresh:
		incr = max(mss*mss/tp.sndCwnd, 1) // equation (3): "cwnd += SMSS*SMSS/cwnd"
	case tp.prof.ABC:
		// RFC 3465, 2.2: by the bytes acknowledged, so that delayed acknowledgments do not halve
		// the growth, at most L of them. 2.3: L is two segments, after a time-out one, as what is
		// acknowledged then may have arrived long before.
		l := 2 * mss
		if tp.sndNxt.Lt(tp.sndMax) {
			l = mss
		}
		incr = min(uint32(acked), l)
	}
	tp.sndCwnd = min(tp.sndCwnd+incr, limit)
}

// renoCongested reduces the window for a flight of some bytes in which congestion has been found.
func (tp *TCB) renoCongested(s Signal, flight int) {
	mss := tp.effMSS()
	// RFC 5681, 3.1, equation (4): "ssthresh = max (FlightSize / 2, 2*SMSS)".
	tp.sndSsthresh = uint32(max(flight/2, 2*mss))
	tp.cwndBytes = 0
	switch s {
	case RTO:
		tp.sndCwnd = uint32(mss) // the loss window: nothing is known to be in the network any more
	case ECN:
		tp.sndCwnd = tp.sndSsthresh // nothing is lost, so there is nothing to recover from
	case Loss:
		// The window is fast recovery's matter: fastRetransmit inflates it.
	}
}

// renoRecovered deflates the window at the end of fast recovery. RFC 5681, 3.2, step 6: "a TCP MUST
// set cwnd to ssthresh (the value set in step 2)." RFC 6582, 3.2, step 3, offers less: what is in
// flight and one segment, so that no burst goes out if little is.
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
