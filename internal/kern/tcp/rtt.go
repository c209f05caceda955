package tcp

// An rtt is the estimate of the round trip, and the retransmission time-out that follows from it:
// RFC 6298. Times are in nanoseconds.
type rtt struct {
	srtt     int64 // the smoothed round trip; 0: none has been measured yet
	rttvar   int64 // its mean deviation
	min      int64 // the least round trip; never: none has been measured yet
	rxtcur   int64 // the time-out, backed off if the timer has fired: t_rxtcur
	timedAt  int64 // when timedSeq was sent: t_rtttime
	timedSeq Seq   // the segment that is being timed, on a connection without a scoreboard: t_rtseq
}

// sample takes a round trip of d into the estimate. Of the samples of one round trip it is one of
// n.
func (r *rtt) sample(d, n int64) {
	if r.srtt == 0 {
		// RFC 6298, 2.2: "When the first RTT measurement R is made, the host MUST set" both: "SRTT
		// <- R" and "RTTVAR <- R/2".
		r.srtt, r.rttvar = d, d/2
		return
	}
	// RFC 6298, 2.3: "RTTVAR <- (1 - beta) * RTTVAR + beta * |SRTT - R'|" and "SRTT <- (1 - alpha)
	// * SRTT + alpha * R'", with alpha=1/8 and beta=1/4. The deviation is from the estimate before
	// this sample: "updating RTTVAR and SRTT MUST be computed in the above order".
	//
	// RFC 7323, appendix G, divides both gains by the number of samples in a round trip, so that
	// the estimate remembers as many round trips as with the one sample that RFC 6298 had in mind.
	off := r.srtt - d
	if off < 0 {
		off = -off
	}
	r.rttvar += (off - r.rttvar) / (4 * n)
	r.srtt += (d - r.srtt) / (8 * n)
}

// value is what back-off doubles: FreeBSD's TCP_REXMTVAL. The profile's floor is under it, and not
// only under the time-out, as a short round trip would otherwise be backed off to nothing but the
// floor: RFC 6298, 5.5, has "RTO <- RTO * 2".
func (r *rtt) value(p *Profile) int64 {
	if r.srtt == 0 {
		// RFC 6298, 2.1: "Until a round-trip time (RTT) measurement has been made for a segment
		// sent between the sender and receiver, the sender SHOULD set RTO <- 1 second".
		return p.RTOInit
	}
	if p.Scoreboard {
		// With a sample for each acknowledgment the variance of a steady path comes close to
		// nothing, and the time-out would be as long as the round trip. RFC 6298 has a floor of a
		// second for that; a floor under the variance, Linux's, does without, as the tail is probed
		// before (RFC 8985, 7).
		return r.srtt + max(4*r.rttvar, p.RTOMin)
	}
	// RFC 6298, 2.3: "RTO <- SRTT + max (G, K*RTTVAR)". The granularity G is a millisecond, the
	// tick of the timestamps.
	return max(r.srtt+max(4*r.rttvar, ms), p.RTOMin)
}

// timeout returns the time-out without back-off.
func (r *rtt) timeout(p *Profile) int64 {
	if r.srtt == 0 {
		return p.RTOInit
	}
	return p.rangeset(r.value(p))
}

// backOff doubles the time-out as often as the timer has fired in vain.
func (r *rtt) backOff(fired uint8, p *Profile) {
	r.rxtcur = p.rangeset(r.value(p) << min(fired, maxBackoff))
}

// rangeset adds the slop and applies the bounds: FreeBSD's TCPT_RANGESET. RFC 6298, 2.4: "Whenever
// RTO is computed, if it is less than 1 second, then the RTO SHOULD be rounded up to 1 second".
// Like every stack in use we take less (see docs/rfc9293.md): with timestamps and delayed
// acknowledgments of 40 ms a second is much longer than what may be only late.
func (p *Profile) rangeset(t int64) int64 {
	return min(max(t+p.RTOSlop, p.RTOMin), p.RTOMax)
}

// maxBackoff is the largest shift of the time-out, the end of tcp_backoff: a connection with short
// round trips must not give up early. RFC 9293, 3.8.3: "The value of R2 SHOULD correspond to at
// least 100 seconds (SHLD-11)."
const maxBackoff = 9

// xmitTimer takes a round trip into the estimate, and what follows from there being a measurement
// at all: BSD's tcp_xmit_timer.
func (tp *TCB) xmitTimer(d int64) {
	d = max(d, 1) // 0 would say that none has been measured
	tp.rtt.min = min(tp.rtt.min, d)
	tp.flags &^= rttTimed
	tp.measured(d, 1)
}

// measured takes one of n round trips in a round trip into the estimate.
func (tp *TCB) measured(d, n int64) {
	tp.stats.Rttupdated.Inc()
	tp.rtt.sample(d, n)
	// RFC 6298, 5, at the end: "after retransmitting, once a new RTT measurement is obtained (which
	// can only happen when new data has been sent and acknowledged), the computations outlined in
	// Section 2 are performed, including the computation of RTO, which may result in "collapsing"
	// RTO back down after it has been subject to exponential back off".
	tp.backoff = 0
	tp.rtt.rxtcur = tp.rto()
	tp.softerr = 0 // whatever ICMP has said, the path works
	tp.traceRTT(d)
}

// rto returns the time-out without back-off.
func (tp *TCB) rto() int64 {
	if tp.rtt.srtt == 0 && tp.flags&synRexmitted != 0 && tp.state.HaveEstablished() {
		// RFC 6298, 5.7: "If the timer expires awaiting the ACK of a SYN segment and the TCP
		// implementation is using an RTO less than 3 seconds, the RTO MUST be re-initialized to 3
		// seconds when data transmission begins".
		return 3 * sec
	}
	return tp.rtt.timeout(tp.prof)
}
