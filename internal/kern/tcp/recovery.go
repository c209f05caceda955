package tcp

// What follows is what a sender does about losses: RFC 6675 with RFC 8985's detection, RFC 9937's
// reduction, RFC 5682's and RFC 3522's second thoughts.

// recover goes from state to state with an acknowledgment, which has been entered in the
// scoreboard.
func (tp *TCB) recover(seg *segment, a *acking) {
	s := tp.snr
	done := tp.sndUna.Geq(s.high)
	switch s.state {
	case Timeout:
		tp.afterTimeout(seg, a, done)
	case Recovering:
		switch {
		case done:
			tp.recovered(seg)
		case a.acked > 0 && tp.original(seg) && s.sb.again == 0:
			// What fills the hole is the original, which was only late. So segments overtake each
			// other, and what was found lost with it may be late too.
			s.rack.seen = true
			tp.revert("Eifel", seg.now)
			tp.setRecovery(Disorder)
		}
	case CWR:
		if done {
			tp.endReduction(seg.now)
		}
	}
	if s.state <= Disorder && s.undo.duplicated() {
		tp.revert("DSACK", seg.now) // the reports come when the recovery is over
	}
	if tp.flags&SackPermit != 0 {
		tp.detectLoss(seg.arrived)
	} else {
		tp.inferLoss(a)
	}
	if s.ack.Lost > 0 {
		tp.lossFound(seg.now)
	}
	if s.state <= Disorder {
		if s.sb.sacked+s.dupBytes > 0 {
			tp.setRecovery(Disorder)
		} else {
			tp.setRecovery(Open)
		}
	}
}

// setRecovery changes the state of recovery.
func (tp *TCB) setRecovery(r Recovery) {
	s := tp.snr
	if s.state == r {
		return
	}
	old := s.state
	s.state = r
	tp.traceRecovery(old)
}

// lossFound begins a recovery if none is under way: RFC 6675, 5, (4).
func (tp *TCB) lossFound(now int64) {
	s := tp.snr
	if s.state >= Recovering {
		return
	}
	tp.stats.Fastrexmit.Inc()
	reduced := s.state == CWR // once for each flight
	if reduced {
		s.undo.none(tp.sndUna) // the reduction was for a mark, whatever becomes of the loss
	} else {
		again := s.sb.again
		if s.tlp.on && s.tlp.again {
			again = max(again, s.tlp.len) // the tail's probe may have arrived, and still be reported as a duplicate
		}
		s.undo.begin(tp.sndUna, again)
	}
	s.high = tp.sndNxt // "RecoveryPoint = HighData"
	tp.setRecovery(Recovering)
	s.force = true // "(4.3) Retransmit the first data segment presumed dropped"
	if !reduced {
		tp.reduce(Loss, now)
	}
}

// reduce tells the congestion controller of congestion, and begins to bring the flight down to what
// it says.
func (tp *TCB) reduce(sig Signal, now int64) {
	s := tp.snr
	tp.congested(sig, now)
	tp.sayCWR()
	s.tlp.on = false // the reduction that its end might ask for (RFC 8985, 7.4.2) is made
	// RFC 9937, 6: "RecoverFS = SND.NXT - SND.UNA", without what had been acknowledged selectively
	// before, but with what the acknowledgment in hand has delivered.
	s.prr.enter(tp.sndNxt.Sub(tp.sndUna) - s.sb.sacked - s.dupBytes + s.ack.Delivered)
	s.delayed = 0
}

// congested tells the congestion controller of congestion.
func (tp *TCB) congested(sig Signal, now int64) {
	s := tp.snr
	tp.lookNow(now)
	if !s.cc.OwnWindow() {
		// RFC 7661, 4.4.1: "Max(pipeACK,LossFlightSize)": when the loss of a tail is found, nothing
		// else is in flight any more, and the window would be reduced to next to nothing.
		s.view.Flight = max(s.view.Flight, s.peak.now, s.peak.before)
	}
	s.cc.Congested(&s.view, sig, &s.ctl)
}

// congestionMark answers an echo of a congestion mark, once a round trip: RFC 3168, 6.1.2.
func (tp *TCB) congestionMark(now int64) {
	s := tp.snr
	if s.state >= CWR {
		return
	}
	s.undo.none(tp.sndUna)
	s.high = tp.sndNxt
	tp.setRecovery(CWR)
	tp.reduce(ECN, now)
}

// probeRepaired reduces the window for a loss that the tail's probe has repaired before it was
// found: RFC 8985, 7.4.2, "invoke a congestion control response equivalent to a fast recovery".
func (tp *TCB) probeRepaired(now int64) {
	s := tp.snr
	s.undo.none(tp.sndUna)
	s.high = tp.sndNxt
	tp.reduce(Loss, now)
	if !s.cc.OwnWindow() {
		s.ctl.Cwnd = min(s.ctl.Cwnd, s.ctl.Ssthresh)
	}
	s.cc.Recovered(&s.view, &s.ctl)
}

// recovered ends a recovery: all that was in flight when it began has been acknowledged.
func (tp *TCB) recovered(seg *segment) {
	s := tp.snr
	s.rack.recovered()
	switch {
	case tp.original(seg):
		tp.revert("Eifel", seg.now)
		tp.setRecovery(Open)
	case s.undo.duplicated():
		tp.revert("DSACK", seg.now)
		tp.setRecovery(Open)
	default:
		tp.endReduction(seg.now)
	}
}

// endReduction leaves the window at what the reduction was for.
func (tp *TCB) endReduction(now int64) {
	s := tp.snr
	if !s.cc.OwnWindow() {
		s.ctl.Cwnd = s.ctl.Ssthresh // RFC 9937, 6: "set cwnd to ssthresh exactly" at the end
	}
	s.ended = true
	tp.setRecovery(Open)
	tp.lookNow(now)
	s.cc.Recovered(&s.view, &s.ctl)
}

// inferLoss finds losses by duplicate acknowledgments alone, with a peer without SACK: RFC 6582.
func (tp *TCB) inferLoss(a *acking) {
	s := tp.snr
	if s.sb.empty() {
		return
	}
	// RFC 6582, 3.2, step 1: not for the flight in which loss was found already; one that was
	// marked has not been found lost.
	first := s.state <= CWR && s.dups >= dupthresh && (s.state == CWR || tp.sndUna.Geq(s.high))
	// RFC 6582, 3.2: "a partial acknowledgment": the next hole begins there
	partial := s.state == Recovering && a.acked > 0
	if !first && !partial {
		return
	}
	if p := s.sb.first(); s.sb.at(p).inFlight() && !(partial && s.sb.at(p).has(spanRexmitted)) {
		if sp := s.sb.at(p); sp.len() > tp.effMSS() {
			p, _ = s.sb.split(p, sp.start.Add(tp.effMSS()))
		}
		tp.markLost(p, "duplicate acknowledgments")
	}
}

// lossTimeout is the retransmission time-out: RFC 6298, 5.4 to 5.7; RFC 8985, 6.3; RFC 5681, 3.1.
func (tp *TCB) lossTimeout(now int64) {
	s := tp.snr
	if !tp.backOff(now) {
		return
	}
	if s.sb.empty() || tp.sndWnd == 0 {
		// The peer has closed its window over what is in flight: that is probed, and does not count
		// as lost (RFC 9293, SHLD-17, MUST-36).
		tp.startOver()
		tp.Output(now)
		return
	}
	tp.holeSuspected(now)
	// RFC 5681, 3.1: "When a TCP sender detects segment loss using the retransmission timer and the
	// given segment has already been retransmitted by way of the retransmission timer at least
	// once, the value of ssthresh is held constant."
	first := s.state <= Disorder || tp.sndUna.Geq(s.high) || s.state == Timeout && tp.backoff == 1
	s.frto = s.state < Recovering || tp.backoff > 1
	s.ack = Ack{}
	s.view.PriorFlight = tp.pipe()
	tp.markOverdue(now)
	tp.sayCWR()
	if first {
		s.undo.begin(tp.sndUna, s.sb.again)
		tp.congested(RTO, now)
	}
	s.high = tp.sndNxt
	s.newFirst = false
	s.tlp.on = false
	s.reoAt, s.ptoAt, s.rtoAt = never, never, now+tp.rtt.rxtcur
	tp.setRecovery(Timeout)
	if !s.cc.OwnWindow() {
		s.ctl.Cwnd = tp.pipe() + tp.effMSS() // the loss window
	}
	s.force = true
	s.pacer.next = 0
	tp.flags |= AckNow
	tp.Output(now)
}

// markOverdue marks what a time-out says is lost: RFC 8985, 6.3, RACK_mark_losses_on_RTO: "If
// SEG.SEQ is SND.UNA or Segment.xmit_ts + RACK.rtt + RACK.reo_wnd - Now() <= 0".
func (tp *TCB) markOverdue(now int64) {
	s := tp.snr
	s.dups, s.dupBytes = 0, 0
	all := tp.flags&SackPermit == 0 || s.rack.sent == 0
	if s.sb.at(s.sb.first()).has(spanSacked) {
		tp.reneged()
		all = true // a peer that has thrown away what it had acknowledged has nothing
	}
	wait := s.rack.rtt + tp.reorderWindow()
	for p := s.sb.first(); s.sb.valid(p); p = s.sb.next(p) {
		sp := s.sb.at(p)
		if sp.inFlight() && (all || p == s.sb.first() || sp.sent+wait <= now) {
			tp.markLost(p, "RTO")
		}
	}
	s.rack.next = tp.sndUna
	s.lostFrom = tp.sndUna
}

// reneged forgets what has been acknowledged selectively: if the peer had kept it, it would have
// acknowledged it in order, so it has thrown it away (RFC 2018, 8).
func (tp *TCB) reneged() {
	s := tp.snr
	tp.stats.Sackreneged.Inc()
	for p := s.sb.first(); s.sb.valid(p); p = s.sb.next(p) {
		if sp := s.sb.at(p); sp.has(spanSacked) {
			sp.flags = sp.flags&^spanSacked | spanRexmitted
			s.sb.again += sp.len()
		}
	}
	s.sb.sacked = 0
}

// afterTimeout goes on after a time-out: RFC 5682, 3.1, its SACK-enhanced version.
func (tp *TCB) afterTimeout(seg *segment, a *acking, done bool) {
	s := tp.snr
	switch {
	case a.acked > 0 && (tp.original(seg) || s.undo.duplicated()):
		tp.revert("Eifel", seg.now)
		tp.setRecovery(Open)
		return
	case s.frto && a.orig:
		// "(3) b. If the acknowledgment acknowledges data that were not retransmitted after
		// timeout, declare the timeout to be spurious".
		tp.revert("F-RTO", seg.now)
		tp.setRecovery(Open)
		return
	case s.frto && (tp.sndNxt.Gt(s.high) || a.acked == 0):
		if a.sacked || a.dup {
			s.frto = false // "(2) a" and "(3) a. If the acknowledgment is a duplicate ACK": the loss is real
		}
	case s.frto && a.acked > 0 && !done:
		// "(2) b. If the acknowledgment advances the window but does not cover RecoveryPoint:
		// transmit up to two new segments".
		s.high = tp.sndNxt
		inflight := tp.sndNxt.Sub(tp.sndUna)
		if unsent := tp.snd.Cc() - inflight; unsent > 0 && int(tp.sndWnd)-inflight >= min(unsent, tp.effMSS()) {
			s.newFirst = true
			return
		}
		s.frto = false
	}
	if done {
		s.rack.recovered()
		tp.setRecovery(Open)
		tp.lookNow(seg.now)
		s.cc.Recovered(&s.view, &s.ctl)
	}
}

// control asks the congestion controller for a new window and rate, or reduces the window in
// proportion to what has been delivered while losses are repaired.
func (tp *TCB) control(now int64, safe bool) {
	s := tp.snr
	tp.lookNow(now)
	s.view.Delivered, s.view.Lost = s.rate.delivered, s.rate.lost
	reducing, ended := s.state == CWR || s.state == Recovering, s.ended
	s.ended = false
	switch {
	case s.cc.OwnWindow():
		s.cc.Acked(&s.view, &s.ack, &s.ctl)
	case ended && !reducing:
		// RFC 5681, 3.2, step 6: "a TCP MUST set cwnd to ssthresh", by the acknowledgment that ends
		// the recovery. The window grows by what that has delivered with the next one.
		s.delayed = s.ack.Delivered
	case s.state == Disorder && s.ack.Acked == 0 && !s.rack.seen:
		// RFC 3042, 2, of new data that duplicate acknowledgments let out: "The congestion window
		// (cwnd) MUST NOT be changed when these new segments are transmitted." If segments have
		// been seen to overtake each other, such acknowledgments are as good as any.
	case !reducing:
		s.ack.Delivered += s.delayed
		s.delayed = 0
		s.cc.Acked(&s.view, &s.ack, &s.ctl)
	default:
		s.ctl.Cwnd = max(s.prr.window(s.view.Flight, s.ctl.Ssthresh, s.ack.Delivered, s.view.MSS, safe), s.view.MSS)
	}
	s.ctl.Cwnd = min(s.ctl.Cwnd, maxWin<<tp.sndScale)
	tp.growSendbuf(s.ctl.Cwnd)
	s.pacer.setRate(&s.ctl, tp.rtt.srtt, tp.sndNxt.Sub(tp.sndUna))
	tp.traceWindow()
}

// startOver forgets what is in flight: all of it is sent again, from sndUna, as the peer opens its
// window.
func (tp *TCB) startOver() {
	s := tp.snr
	s.sb.flush()
	s.dups, s.dupBytes = 0, 0
	s.newFirst = false
	s.tlp.on = false
	s.pmtu.probing = false
	s.rack.queue, s.rack.head = s.rack.queue[:0], 0
	s.rack.next = tp.sndUna
	s.lostFrom = tp.sndUna
	s.undo.none(tp.sndUna)
	s.rtoAt, s.reoAt, s.ptoAt = never, never, never
	s.high = tp.sndUna
	tp.setRecovery(Open)
	tp.sndNxt = tp.sndUna
}
