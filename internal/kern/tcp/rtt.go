package tcp

// xmitTimer takes a round-trip sample into the estimate: RFC 6298, 2, BSD's tcp_xmit_timer.
func (tp *TCB) xmitTimer(rtt int64) {
	tp.stats.Rttupdated.Inc()
	rtt = max(rtt, 1)
	if tp.srtt == 0 {
		tp.srtt, tp.rttvar = rtt, rtt/2 // 2.2
	} else { // 2.3: RTTVAR first
		d := tp.srtt - rtt
		if d < 0 {
			d = -d
		}
		tp.rttvar += (d - tp.rttvar) / 4
		tp.srtt += (rtt - tp.srtt) / 8
	}
	tp.rttMin = min(tp.rttMin, rtt)
	tp.backoff = 0
	tp.flags &^= rttTimed
	tp.rxtcur = tp.rto()
	tp.softerr = 0
	tp.traceRTT(rtt)
}

// rto returns the retransmission time-out without back-off.
func (tp *TCB) rto() int64 {
	if tp.srtt == 0 && tp.flags&synRexmitted != 0 && tp.state.HaveEstablished() {
		// RFC 6298, 5.7: "If the timer expires awaiting the ACK of a SYN segment and the TCP
		// implementation is using an RTO less than 3 seconds, the RTO MUST be re-initialized to 3
		// seconds when data transmission begins".
		return 3 * sec
	}
	if tp.srtt == 0 {
		return tp.prof.RTOInit
	}
	return tp.rangeset(tp.rexmtval())
}

// rexmtval is what back-off doubles: FreeBSD's TCP_REXMTVAL. The floor is under it, or a short
// round trip would be backed off to nothing but the floor (RFC 6298, 5.5).
func (tp *TCB) rexmtval() int64 {
	if tp.srtt == 0 {
		return tp.prof.RTOInit
	}
	if tp.prof.Scoreboard {
		// With a sample for each acknowledgment the variance of a steady path comes close to
		// nothing, and the time-out would be as long as the round trip. RFC 6298 has a floor of a
		// second for that; a floor under the variance, Linux's, does without, as the tail is probed
		// before (RFC 8985, 7).
		return tp.srtt + max(4*tp.rttvar, tp.prof.RTOMin)
	}
	return max(tp.srtt+max(4*tp.rttvar, ms), tp.prof.RTOMin)
}

// rangeset adds the slop and applies the bounds: FreeBSD's TCPT_RANGESET. RFC 6298 asks for a floor
// of 1 s; like every stack in use we take less (see docs/rfc9293.md).
func (tp *TCB) rangeset(t int64) int64 {
	return min(max(t+tp.prof.RTOSlop, tp.prof.RTOMin), tp.prof.RTOMax)
}
