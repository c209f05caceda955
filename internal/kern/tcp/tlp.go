package tcp

import "bsdnet/internal/kern/wire"

// tlp probes the tail of a flight: RFC 8985, 7. If the last segments of a flight are lost, no later
// one arrives to tell of it. So when acknowledgments are overdue, one segment is sent, and its
// answer says what is missing.
type tlp struct {
	end   Seq  // SND.NXT when the probe was sent: TLP.end_seq
	on    bool // a probe is out
	again bool // it was a retransmission: TLP.is_retrans
	len   int  // bytes
}

// worstDelack is how long a peer may delay its acknowledgment of a single segment: WCDelAckT.
const worstDelack = 200 * ms

// armProbe schedules the probe: RFC 8985, 7.2, TLP_calc_PTO.
func (tp *TCB) armProbe() {
	s := tp.snr
	s.ptoAt = never
	// TLP is only for connections with SACK, one probe at a time, and not while RACK or the
	// retransmission timer is at work on a loss (7.2 and 7.3): they look after the tail as well.
	atWork := s.state != Open && s.state != CWR || s.sb.sacked > 0 || s.reoAt != never || tp.backoff > 0
	if s.tlp.on || s.sb.empty() || tp.flags&SackPermit == 0 || atWork {
		return
	}
	flight := min(tp.sndNxt.Sub(tp.sndUna), tp.snd.Cc()) // without the FIN, which takes no room
	if flight > int(tp.sndWnd) {
		return // the peer has closed its window over the tail, and would drop it again (RFC 9293, SHLD-17)
	}
	pto := sec // "Else: PTO = 1 sec"
	if tp.rtt.srtt > 0 {
		pto = 2*tp.rtt.srtt + 2*ms
		if flight <= tp.effMSS() {
			// "If FlightSize is one segment: PTO += WCDelAckT".
			pto = 2*tp.rtt.srtt + worstDelack
		}
	}
	// "If Now() + PTO > TCP_RTO_expire(): PTO = TCP_RTO_expire() - Now()".
	s.ptoAt = min(max(s.lastSent, s.lastNews)+pto, s.rtoAt)
}

// probeTimeout sends the probe: RFC 8985, 7.3, TLP_send_probe.
func (tp *TCB) probeTimeout(now int64) {
	s := tp.snr
	s.ptoAt = never
	var o outseg
	tp.relieve()
	inflight := tp.sndNxt.Sub(tp.sndUna)
	mss := tp.effMSS() - tp.sackOptLen()
	again := true
	if n := min(tp.snd.Cc()-inflight, mss, int(tp.sndWnd)-inflight); n > 0 {
		// "If there is an unsent segment and the receive window allows: transmit the
		// lowest-sequence unsent segment".
		again = false
		o.off, o.len, o.recwin = inflight, n, tp.recwin()
		if o.flags = outflags[tp.state]; inflight+n < tp.snd.Cc() {
			o.flags &^= wire.FIN
		}
	} else {
		// "Else: retransmit the highest-sequence segment sent so far".
		end := s.sb.end()
		if end.Sub(tp.sndUna) > tp.snd.Cc() {
			mss++ // for the FIN, whose number takes no room
		}
		start := s.sb.last().lastSegment(tp.flags&SentFin != 0).Max(end - Seq(mss))
		tp.fillRexmit(&o, start.Sub(tp.sndUna), end.Sub(start))
		o.reason = "TLP"
	}
	s.tlp = tlp{on: true, again: again, len: o.len}
	tp.stats.Sndtlp.Inc()
	tp.emit(&o, now)
	s.tlp.end = tp.sndNxt
	// "The sender MUST arm the RTO timer": the probe comes before it, not in its stead.
	s.rtoAt = now + tp.rtt.rxtcur
}

// probeAcked looks at what an acknowledgment says of a probe: RFC 8985, 7.4.2, TLP_process_ack. It
// reports whether the probe has repaired a loss.
func (tp *TCB) probeAcked(seg *segment, a *acking) (repaired bool) {
	s := tp.snr
	t := &s.tlp
	if !t.on || seg.ack.Lt(t.end) {
		return false
	}
	switch {
	case !t.again, a.tlpDup:
		t.on = false // "TLP.is_retrans is FALSE", or "a DSACK option matching TLP.end_seq": nothing was lost
	case seg.ack.Gt(t.end):
		// "ACK.seq > TLP.end_seq": what has been acknowledged behind the probe says that it has
		// arrived, and no DSACK that it was not needed.
		t.on = false
		return true
	case a.acked == 0 && !a.sacked:
		t.on = false // "If ACK is a DUPACK without any SACK option": both have arrived
	}
	return false
}
