package tcp

import "bsdnet/internal/kern/wire"

// What follows is RFC 9293, 3.10.7.4, fifth, "check the ACK field", with the fast retransmit and fast recovery of RFC 5681 and 6582.

// dupthresh is the number of duplicate acknowledgments that mean loss (RFC 5681, 3.2).
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
		// It acknowledges what has not been sent (RFC 9293: "send an ACK, drop the segment"): an optimistic or a blind one.
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
		tp.duplicateAck(seg)
		return true
	}
	return tp.newAck(seg)
}

// synAcked leaves SYN_RECEIVED for ESTABLISHED; the range of the acknowledgment has been checked.
func (tp *TCB) synAcked(seg *segment) {
	tp.sndWnd = seg.win
	tp.established(seg)
	tp.sndWl1 = seg.seq - 1
	if seg.len == 0 && seg.flags&wire.FIN == 0 {
		if tp.deliverReassembled() { // what came with or after the SYN
			seg.flags |= wire.FIN
			seg.seq = tp.rcvNxt
		}
	}
}

// tooOld challenges an acknowledgment that lies further back than any window that the peer had (RFC 5961, 5.2): whoever injects data
// blindly must also guess this number.
func (tp *TCB) tooOld(seg *segment) bool {
	oldest := tp.sndUna - Seq(tp.maxSndwnd)
	if tp.bytesSent <= maxWin<<tp.sndScale { // later the start lies out of sight, and then behind the horizon
		oldest = oldest.Max(tp.iss + 1)
	}
	if seg.ack.Geq(oldest) || tp.prof.ChallengeN == 0 {
		return false
	}
	tp.stats.Rcvacktooold.Inc()
	tp.challengeAck(seg.now)
	tp.flags &^= AckNow // nothing of the segment counts, and one answer is enough
	return true
}

// duplicateAck counts what tells of loss: RFC 5681, 2, "duplicate acknowledgment" (a) to (e).
func (tp *TCB) duplicateAck(seg *segment) {
	dup := seg.len == 0 && seg.flags&wire.FIN == 0 && seg.ack == tp.sndUna && seg.win == tp.sndWnd &&
		tp.sndMax.Gt(tp.sndUna) && tp.on(tRexmt)
	if tp.flags&SackPermit != 0 && seg.opt.Has&wire.TofSack != 0 && seg.ack == tp.sndUna && tp.on(tRexmt) {
		dup = seg.len == 0 // with SACK the window may move (RFC 6675, 2)
	}
	if !dup {
		if seg.len == 0 && seg.ack == tp.sndUna && seg.win != tp.sndWnd || seg.ack.Lt(tp.sndUna) {
			return
		}
		if seg.len == 0 {
			tp.dupacks = 0
		}
		return
	}
	tp.stats.Rcvdupack.Inc()
	tp.dupacks = min(tp.dupacks+1, 250)
	mss := uint32(tp.effMSS())
	switch {
	case tp.sndWnd == 0:
		// What the peer has no room for is not lost: it is sent again when the window opens, or the timer asks.
	case tp.flags&fastRecov != 0:
		// A segment has left the network (RFC 5681, 3.2, step 4). "A TCP MAY therefore limit the number of times cwnd is artificially inflated during loss recovery to
		// the number of outstanding segments", against a receiver that makes acknowledgments up.
		tp.sndCwnd = min(tp.sndCwnd+mss, max(tp.sndCwnd, tp.sndSsthresh+uint32(max(tp.sndRecover.Sub(tp.sndUna), dupthresh*int(mss)))))
		tp.Output(seg.now)
	case tp.dupacks == dupthresh && seg.ack.Geq(tp.sndRecover):
		tp.fastRetransmit(seg)
	case tp.dupacks < dupthresh && tp.prof.LimitedTransmit:
		tp.limitedTransmit(seg)
	}
}

// fastRetransmit sends the missing segment and enters fast recovery: RFC 6582, 3.2, step 2.
func (tp *TCB) fastRetransmit(seg *segment) {
	tp.stats.Fastrexmit.Inc()
	flight := min(tp.sndMax.Sub(tp.sndUna), int(min(tp.sndWnd, tp.sndCwnd)))
	tp.renoCongested(Loss, flight)
	tp.sndRecover = tp.sndMax
	tp.flags |= fastRecov
	tp.flags &^= rttTimed
	tp.stop(tRexmt)
	tp.resendFirst(seg.now)
	tp.sndCwnd = tp.sndSsthresh + dupthresh*uint32(tp.effMSS())
	tp.Output(seg.now)
}

// resendFirst sends one segment from sndUna.
func (tp *TCB) resendFirst(now int64) {
	next := tp.sndNxt
	tp.sndNxt = tp.sndUna
	tp.sndCwnd = uint32(tp.effMSS())
	tp.flags |= AckNow
	tp.Output(now)
	tp.sndNxt = next.Max(tp.sndNxt)
}

// limitedTransmit sends new data on the first two duplicate acknowledgments, a segment for each: RFC 3042.
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
	// Deflate by what has been acknowledged, and add back one segment for what has left the network.
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

// ackAdvance moves the left edge: round trips, timers, congestion window, send buffer. It reports whether our FIN is acknowledged.
func (tp *TCB) ackAdvance(seg *segment) (finAcked bool) {
	acked := seg.ack.Sub(tp.sndUna)
	tp.stats.Rcvackpack.Inc()
	tp.stats.Rcvackbyte.Add(acked)
	tp.sampleRTT(seg)
	if !tp.on(tPersist) {
		tp.backoff = 0 // progress; but the time-out stays doubled until a round trip has been measured (Karn)
	}
	if seg.ack == tp.sndMax {
		tp.stop(tRexmt)
		tp.unackedSince = 0
		seg.needoutput = true
	} else {
		tp.unackedSince = seg.now
		if !tp.on(tPersist) {
			tp.set(tRexmt, seg.now+tp.rtt.rxtcur)
		}
	}
	marked := tp.flags&ecnOn != 0 && seg.flags&wire.ECE != 0 // then the window does not grow (RFC 3168, 6.1.2)
	if data, _ := tp.ackedData(acked); tp.flags&fastRecov == 0 && data > 0 && tp.state.HaveEstablished() && !marked {
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

// ackedData returns how many of the acknowledged numbers are bytes of data, and whether our FIN is among the others.
func (tp *TCB) ackedData(acked int) (data int, fin bool) {
	if tp.sndUna == tp.iss && tp.bytesSent == 0 {
		acked-- // the SYN
	}
	data = min(acked, tp.snd.Cc())
	return data, tp.flags&SentFin != 0 && acked > data
}

// advance moves the left edge, and drops what is acknowledged from the send buffer. It reports whether our FIN is acknowledged.
func (tp *TCB) advance(seg *segment) (finAcked bool) {
	data, finAcked := tp.ackedData(seg.ack.Sub(tp.sndUna))
	if data > 0 {
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

// sampleRTT measures the round trip: by the segment that is being timed (Karn: never one that was sent twice), else, where time-outs
// have left none, by the timestamp (RFC 7323, 4).
func (tp *TCB) sampleRTT(seg *segment) {
	switch {
	case tp.flags&rttTimed != 0 && seg.ack.Gt(tp.rtt.timedSeq):
		tp.xmitTimer(seg.arrived - tp.rtt.timedAt)
	case tp.backoff > 0 && tp.flags&synRexmitted == 0 && tp.flags&RcvdTstmp != 0 && seg.opt.Has&wire.TofTS != 0 && seg.opt.TSEcr != 0:
		if d := int64(int32(tp.ts(seg.arrived) - seg.opt.TSEcr)); d >= 0 && d < 1<<20 {
			tp.xmitTimer(max(d*ms, ms))
		}
	}
}

// afterAck makes the transitions that wait for our FIN's acknowledgment. It reports whether to go on.
func (tp *TCB) afterAck(seg *segment, finAcked bool) bool {
	if !finAcked {
		return true
	}
	switch tp.state {
	case FinWait1:
		tp.setState(FinWait2)
		if tp.unread() {
			// Nobody reads: unlike a half-close this must end some time, and 4.4BSD's did not.
			tp.sock.Soisdisconnected()
			tp.set(t2MSL, seg.now+tp.prof.FinWait2)
		}
	case Closing:
		tp.twstart()
		seg.needoutput = false // its FIN was acknowledged when it came; one that has come again with this sets AckNow
		return false
	case LastAck:
		tp.close()
		return false
	}
	return true
}
