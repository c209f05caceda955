package tcp

import "bsdnet/internal/kern/wire"

// What follows is RFC 9293, 3.10.7.4, fifth, "check the ACK field", with the fast retransmit and
// fast recovery of RFC 5681 and RFC 6582 for connections without a scoreboard. Those that have one
// go on in sendack.go.

// dupthresh is the number of duplicate acknowledgments that mean loss. RFC 5681, 3.2: "The fast
// retransmit algorithm uses the arrival of 3 duplicate ACKs (as defined in section 2, without any
// intervening ACKs which move SND.UNA) as an indication that a segment has been lost."
const dupthresh = 3

// processAck reports whether the rest of the segment is to be looked at.
func (tp *TCB) processAck(seg *segment) bool {
	if seg.flags&wire.ACK == 0 {
		return true // SYN_RECEIVED, from both sides
	}
	if tp.state == SynReceived {
		tp.synAcked(seg)
	}
	if tp.tooOld(seg) {
		return false
	}
	if seg.ack.Gt(tp.sndMax) {
		// "If the ACK acks something not yet sent (SEG.ACK > SND.NXT), then send an ACK, drop the
		// segment, and return." It is an optimistic or a blind one.
		tp.stats.Rcvacktoomuch.Inc()
		tp.ackUnacceptable(seg)
		return false
	}
	end := seg.seq.Add(seg.len)
	if seg.flags&(wire.SYN|wire.FIN) != 0 {
		end++
	}
	tp.takeTimestamp(seg, end)
	if tp.snr != nil {
		return tp.senderAck(seg)
	}
	if seg.ack.Leq(tp.sndUna) {
		// "If the ACK is a duplicate (SEG.ACK =< SND.UNA), it can be ignored." What it says of loss
		// cannot.
		tp.oldAck(seg)
		return true
	}
	return tp.newAck(seg)
}

// tooOld challenges an acknowledgment that lies further back than any window that the peer had: to
// inject data blindly, an attacker must guess this number too. "TCP stacks that implement RFC 5961
// MUST add an input check that the ACK value is acceptable only if it is in the range of ((SND.UNA
// - MAX.SND.WND) =< SEG.ACK =< SND.NXT). All incoming segments whose ACK value doesn't satisfy the
// above condition MUST be discarded and an ACK sent back."
func (tp *TCB) tooOld(seg *segment) bool {
	oldest := tp.sndUna - Seq(tp.maxSndwnd)
	if tp.bytesSent <= maxWin<<tp.sndScale {
		// Nothing before our first byte has ever been acknowledged. Later the start is further back
		// than any window, and then further than sequence numbers can be compared.
		oldest = oldest.Max(tp.iss + 1)
	}
	if seg.ack.Geq(oldest) || tp.prof.ChallengeN == 0 {
		return false
	}
	tp.stats.Rcvacktooold.Inc()
	tp.challengeAck(seg.now)
	tp.flags &^= AckNow // the segment is discarded, and one answer is enough
	return true
}

// oldAck looks at an acknowledgment that acknowledges nothing new, and counts those that tell of
// loss.
func (tp *TCB) oldAck(seg *segment) {
	switch {
	case tp.duplicateAck(seg):
		tp.stats.Rcvdupack.Inc()
		tp.dupacks = min(tp.dupacks+1, 250)
		tp.fastRecovery(seg)
	case seg.len > 0 || seg.ack.Lt(tp.sndUna):
		// Data that goes the other way repeats the last acknowledgment, and one that is older has
		// been overtaken: the count goes on.
	case !windowMoved(tp, seg):
		tp.dupacks = 0 // nothing is in flight any more, or a FIN has come: these are no duplicates in a row
	}
}

// duplicateAck reports whether an acknowledgment is a duplicate. RFC 5681, 2: "An acknowledgment is
// considered a "duplicate" in the following algorithms when" (a) to (e) hold, each of which is a
// predicate below. "Alternatively, a TCP that utilizes selective acknowledgments (SACKs) [RFC2018,
// RFC2883] can leverage the SACK information to determine when an incoming ACK is a "duplicate"":
// then the window may move.
//
// BSD's retransmission timer must be on: while a closed window is probed instead, each answer
// repeats the last acknowledgment, and tells of nothing lost.
func (tp *TCB) duplicateAck(seg *segment) bool {
	if !repeatsUna(tp, seg) || !tp.on(tRexmt) {
		return false
	}
	if tp.flags&SackPermit != 0 && seg.opt.Has&wire.TofSack != 0 {
		return !carriesData(seg)
	}
	return tp.isDuplicate(seg)
}

// isDuplicate reports whether an acknowledgment is a duplicate by RFC 5681, 2, (a) to (e).
func (tp *TCB) isDuplicate(seg *segment) bool {
	return outstanding(tp) && !carriesData(seg) && synAndFinOff(seg) && repeatsUna(tp, seg) && !windowMoved(tp, seg)
}

// outstanding is "(a) the receiver of the ACK has outstanding data".
func outstanding(tp *TCB) bool { return tp.sndMax.Gt(tp.sndUna) }

// carriesData is the opposite of "(b) the incoming acknowledgment carries no data".
func carriesData(seg *segment) bool { return seg.len != 0 }

// synAndFinOff is "(c) the SYN and FIN bits are both off"; a SYN does not come this far.
func synAndFinOff(seg *segment) bool { return seg.flags&wire.FIN == 0 }

// repeatsUna is "(d) the acknowledgment number is equal to the greatest acknowledgment received on
// the given connection (TCP.UNA from [RFC793])".
func repeatsUna(tp *TCB, seg *segment) bool { return seg.ack == tp.sndUna }

// windowMoved is the opposite of "(e) the advertised window in the incoming acknowledgment equals
// the advertised window in the last incoming acknowledgment".
func windowMoved(tp *TCB, seg *segment) bool { return seg.win != tp.sndWnd }

// fastRecovery does what a duplicate acknowledgment asks for: RFC 5681, 3.2.
func (tp *TCB) fastRecovery(seg *segment) {
	switch {
	case tp.sndWnd == 0:
		// What the peer has no room for is not lost: it is sent again when the window opens, or the
		// timer asks.
	case tp.flags&fastRecov != 0:
		tp.inflate()
		tp.Output(seg.now)
	case tp.dupacks == dupthresh && seg.ack.Geq(tp.sndRecover):
		tp.fastRetransmit(seg)
	case tp.dupacks < dupthresh && tp.prof.LimitedTransmit:
		tp.limitedTransmit(seg)
	}
}

// inflate lets a segment out for one that has left the network. RFC 5681, 3.2, step 4: "For each
// additional duplicate ACK received (after the third), cwnd MUST be incremented by SMSS." Against a
// receiver that makes acknowledgments up: "A TCP MAY therefore limit the number of times cwnd is
// artificially inflated during loss recovery to the number of outstanding segments".
func (tp *TCB) inflate() {
	mss := tp.effMSS()
	flight := max(tp.sndRecover.Sub(tp.sndUna), dupthresh*mss)
	most := max(tp.sndCwnd, tp.sndSsthresh+uint32(flight))
	tp.sndCwnd = min(tp.sndCwnd+uint32(mss), most)
}

// fastRetransmit sends the missing segment and enters fast recovery: RFC 5681, 3.2, steps 2 and 3,
// with RFC 6582's note of where the flight ends.
func (tp *TCB) fastRetransmit(seg *segment) {
	tp.stats.Fastrexmit.Inc()
	// "When the third duplicate ACK is received, a TCP MUST set ssthresh to no more than the value
	// given in equation (4)."
	flight := min(tp.sndMax.Sub(tp.sndUna), int(min(tp.sndWnd, tp.sndCwnd)))
	tp.renoCongested(Loss, flight)
	tp.sndRecover = tp.sndMax
	tp.flags |= fastRecov
	tp.flags &^= rttTimed // Karn: what is sent again is not timed
	// "The lost segment starting at SND.UNA MUST be retransmitted and cwnd set to ssthresh plus
	// 3*SMSS. This artificially "inflates" the congestion window by the number of segments (three)
	// that have left the network and which the receiver has buffered."
	tp.stop(tRexmt)
	tp.resendFirst(seg.now)
	tp.sndCwnd = tp.sndSsthresh + dupthresh*uint32(tp.effMSS())
	tp.Output(seg.now)
}

// resendFirst sends one segment from sndUna. BSD makes Output do it: it sets SND.NXT back, and a
// window of one segment.
func (tp *TCB) resendFirst(now int64) {
	next := tp.sndNxt
	tp.sndNxt = tp.sndUna
	tp.sndCwnd = uint32(tp.effMSS())
	tp.flags |= AckNow
	tp.Output(now)
	tp.sndNxt = next.Max(tp.sndNxt)
}

// limitedTransmit sends new data on the first two duplicate acknowledgments, a segment for each.
// RFC 5681, 3.2, step 1: "On the first and second duplicate ACKs received at a sender, a TCP SHOULD
// send a segment of previously unsent data per [RFC3042]". "Further, the TCP sender MUST NOT change
// cwnd to reflect these two segments".
func (tp *TCB) limitedTransmit(seg *segment) {
	if tp.sndNxt != tp.sndMax {
		return // what would go is old
	}
	cwnd := tp.sndCwnd
	tp.sndCwnd += uint32(tp.dupacks) * uint32(tp.effMSS())
	tp.Output(seg.now)
	tp.sndCwnd = cwnd
}

// newAck takes an acknowledgment of what had not been acknowledged.
func (tp *TCB) newAck(seg *segment) bool {
	if tp.flags&fastRecov != 0 {
		// RFC 6582: an acknowledgment of less than all that was in flight when the loss was found
		// is a partial one, and tells of the next hole. Reno takes any acknowledgment of new data
		// for the end of the recovery.
		if seg.ack.Lt(tp.sndRecover) && tp.prof.NewReno {
			tp.partialAck(seg)
			return tp.afterAck(seg, false)
		}
		fin := tp.ackAdvance(seg)
		tp.flags &^= fastRecov
		tp.dupacks = 0
		tp.renoRecovered()
		return tp.afterAck(seg, fin)
	}
	tp.dupacks = 0
	return tp.afterAck(seg, tp.ackAdvance(seg))
}

// partialAck retransmits the next hole and stays in recovery: RFC 6582, 3.2, step 3.
func (tp *TCB) partialAck(seg *segment) {
	acked := seg.ack.Sub(tp.sndUna)
	cwnd := tp.sndCwnd
	tp.ackAdvance(seg)
	tp.stop(tRexmt)
	tp.flags &^= rttTimed
	tp.resendFirst(seg.now)
	// "Deflate the congestion window by the amount of new data acknowledged by the Cumulative
	// Acknowledgment field. If the partial ACK acknowledges at least one SMSS of new data, then add
	// back SMSS bytes to the congestion window."
	if int(cwnd) > acked {
		cwnd -= uint32(acked)
	} else {
		cwnd = 0
	}
	mss := uint32(tp.effMSS())
	if acked >= int(mss) {
		cwnd += mss
	}
	tp.sndCwnd = max(cwnd, mss)
	seg.needoutput = true
}

// ackAdvance moves the left edge: round trips, timers, congestion window, send buffer. It reports
// whether our FIN is acknowledged.
func (tp *TCB) ackAdvance(seg *segment) (finAcked bool) {
	acked := seg.ack.Sub(tp.sndUna)
	tp.stats.Rcvackpack.Inc()
	tp.stats.Rcvackbyte.Add(acked)
	tp.sampleRTT(seg)
	if !tp.on(tPersist) {
		// Progress; but the time-out stays doubled until a round trip has been measured (Karn).
		tp.backoff = 0
	}
	if seg.ack == tp.sndMax {
		// RFC 6298, 5.2: "When all outstanding data has been acknowledged, turn off the
		// retransmission timer."
		tp.stop(tRexmt)
		tp.unackedSince = 0
		seg.needoutput = true
	} else {
		tp.unackedSince = seg.now
		if !tp.on(tPersist) {
			// RFC 6298, 5.3: "When an ACK is received that acknowledges new data, restart the
			// retransmission timer so that it will expire after RTO seconds (for the current value
			// of RTO)."
			tp.set(tRexmt, seg.now+tp.rtt.rxtcur)
		}
	}
	// The handshake's numbers do not let the window grow (RFC 5681, 3.1), nor does what arrives
	// while losses are repaired, or bears the echo of a mark (RFC 3168, 6.1.2).
	marked := tp.flags&ecnOn != 0 && seg.flags&wire.ECE != 0
	data, _ := tp.ackedData(acked)
	if data > 0 && tp.state.HaveEstablished() && tp.flags&fastRecov == 0 && !marked {
		tp.renoAcked(data)
	}
	finAcked = tp.advance(seg)
	if tp.flags&fastRecov == 0 {
		tp.sndRecover = tp.sndRecover.Max(tp.sndUna) // keep it within half the sequence space
	}
	if tp.flags&ecnOn != 0 {
		tp.ecnAck(seg)
	}
	return finAcked
}

// ackedData returns how many of the acknowledged numbers are bytes of data, and whether our FIN is
// among the others.
func (tp *TCB) ackedData(acked int) (data int, fin bool) {
	if tp.sndUna == tp.iss && tp.bytesSent == 0 {
		acked-- // the SYN
	}
	data = min(acked, tp.snd.Cc())
	return data, tp.flags&SentFin != 0 && acked > data
}

// advance moves the left edge, and drops what is acknowledged from the send buffer. It reports
// whether our FIN is acknowledged. RFC 9293, 3.10.7.4, fifth: "Any segments on the retransmission
// queue that are thereby entirely acknowledged are removed."
func (tp *TCB) advance(seg *segment) (finAcked bool) {
	data, finAcked := tp.ackedData(seg.ack.Sub(tp.sndUna))
	if data > 0 {
		// "Note that SND.WND is an offset from SND.UNA": its right edge stays until the segment's
		// own window is taken.
		tp.sndWnd -= min(tp.sndWnd, uint32(data))
		tp.snd.Drop(data)
		tp.bytesSent += uint64(data)
		tp.autosize(seg.now)
		tp.sock.Sowwakeup()
	}
	if seg.ack == tp.sndMax && tp.snd.Cc() == 0 && tp.on(tPersist) {
		tp.stop(tPersist) // the last byte was a probe
		tp.backoff = 0
	}
	if tp.flags&UserClosed != 0 {
		tp.orphanAcked(data, seg.now)
	}
	tp.sndUna = seg.ack
	tp.sndUp = tp.sndUp.Max(tp.sndUna)
	tp.sndNxt = tp.sndNxt.Max(tp.sndUna)
	return finAcked
}

// sampleRTT measures the round trip: by the segment that is being timed, else, if time-outs have
// left none, by the timestamp. RFC 6298, 3: "RTT samples MUST NOT be made using segments that were
// retransmitted (and thus for which it is ambiguous whether the reply was for the first instance of
// the packet or a later instance)." The timestamp tells them apart.
func (tp *TCB) sampleRTT(seg *segment) {
	if tp.flags&rttTimed != 0 && seg.ack.Gt(tp.rtt.timedSeq) {
		tp.xmitTimer(seg.arrived - tp.rtt.timedAt)
		return
	}
	if tp.backoff > 0 && tp.flags&synRexmitted == 0 {
		if d, ok := tp.echoed(seg); ok {
			tp.xmitTimer(d)
		}
	}
}

// echoed returns the round trip that the echo of a timestamp says, at least a tick of its clock. An
// echo that lies in the future, or more than 17 minutes back, has been made up.
func (tp *TCB) echoed(seg *segment) (d int64, ok bool) {
	if !tp.hasTS(seg) || seg.opt.TSEcr == 0 {
		return 0, false
	}
	ticks := int64(int32(tp.ts(seg.arrived) - seg.opt.TSEcr))
	return max(ticks, 1) * ms, ticks >= 0 && ticks < 1<<20
}

// echoBefore reports whether the segment echoes a timestamp from before t, of our clock.
func (tp *TCB) echoBefore(seg *segment, t uint32) bool {
	return tp.hasTS(seg) && seg.opt.TSEcr != 0 && int32(seg.opt.TSEcr-t) < 0
}

// afterAck makes the transitions that wait for our FIN's acknowledgment: RFC 9293, 3.10.7.4, fifth.
// It reports whether to go on.
func (tp *TCB) afterAck(seg *segment, finAcked bool) bool {
	if !finAcked {
		return true
	}
	switch tp.state {
	case FinWait1:
		// "if the FIN segment is now acknowledged, then enter FIN-WAIT-2 and continue processing in
		// that state".
		tp.setState(FinWait2)
		if tp.unread() {
			// Nobody reads: unlike a half-close this must end some time, and 4.4BSD's did not.
			tp.sock.Soisdisconnected()
			tp.set(t2MSL, seg.now+tp.prof.FinWait2)
		}
	case Closing:
		// "if the ACK acknowledges our FIN, then enter the TIME-WAIT state; otherwise, ignore the
		// segment". The peer's FIN was acknowledged when it came; one that has come again with this
		// sets AckNow.
		tp.twstart()
		seg.needoutput = false
		return false
	case LastAck:
		// "If our FIN is now acknowledged, delete the TCB, enter the CLOSED state, and return."
		tp.close()
		return false
	}
	return true
}
