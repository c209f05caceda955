package tcp

import (
	"math"
	"syscall"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// What follows is RFC 9293, 3.10.7.4, first to fourth: whether a segment that has arrived on a
// connection counts at all, and which part of it.

// acceptableSegment looks at reset, SYN, timestamp and the place in the window, and trims the
// segment to the window. It reports whether the acknowledgment is to be looked at. The order is
// BSD's. RFC 9293 looks at the window first, but RFC 5961 has rules of its own for a reset and a
// SYN, inside of the window and outside.
func (tp *TCB) acceptableSegment(seg *segment) bool {
	seg.rcvWnd = uint32(tp.rcvwin())
	if tp.state == SynReceived && seg.flags&(wire.ACK|wire.RST) == wire.ACK && !tp.acksFlight(seg) {
		// RFC 9293, 3.10.7.4, fifth, of SYN-RECEIVED: "If the segment acknowledgment is not
		// acceptable, form a reset segment [...] and send it."
		seg.reset = true
		return false
	}
	if seg.flags&wire.RST != 0 {
		tp.checkRst(seg)
		return false
	}
	if seg.flags&wire.SYN != 0 && tp.state != SynReceived {
		tp.checkSyn(seg)
		return false
	}
	if seg.flags&wire.SYN != 0 && seg.seq.Gt(tp.irs) {
		tp.flags |= AckNow // another SYN than the one that we have answered
		return false
	}
	return tp.paws(seg) && tp.trim(seg)
}

// acksFlight reports whether the acknowledgment is of something in flight: RFC 9293's "SND.UNA <
// SEG.ACK =< SND.NXT", with the most that has ever been sent for SND.NXT, which goes back for a
// retransmission.
func (tp *TCB) acksFlight(seg *segment) bool {
	return seg.ack.Gt(tp.sndUna) && seg.ack.Leq(tp.sndMax)
}

// checkRst is RFC 9293, 3.10.7.4, second, with the three checks of RFC 5961, 3. While an
// acknowledgment is delayed the next number is, for the peer, also the last that it has seen
// acknowledged.
func (tp *TCB) checkRst(seg *segment) {
	edge := tp.lastAckSent
	exact := seg.seq == edge || seg.seq == tp.rcvNxt
	inWindow := seg.seq.Geq(edge) && seg.seq.Lt(edge.Add(int(seg.rcvWnd)))
	switch {
	case !exact && !inWindow:
		// "1) If the RST bit is set and the sequence number is outside the current receive window,
		// silently drop the segment."
		return
	case !exact && !tp.prof.InsecureRST:
		// "3) If the RST bit is set and the sequence number does not exactly match the next
		// expected sequence value, yet is within the current receive window, TCP endpoints MUST
		// send an acknowledgment (challenge ACK)". A peer that has really reset answers it with the
		// number that we expect.
		tp.stats.Badrst.Inc()
		tp.challengeAck(seg.now)
		return
	}
	// "2) If the RST bit is set and the sequence number exactly matches the next expected sequence
	// number (RCV.NXT), then TCP endpoints MUST reset the connection".
	tp.stats.Drops.Inc()
	errno := syscall.ECONNRESET
	switch {
	case tp.state == SynReceived:
		// "then the connection was refused; signal the user "connection refused"".
		errno = syscall.ECONNREFUSED
	case tp.state == CloseWait && tp.prof.ShutRdKeeps:
		errno = syscall.EPIPE // Linux's: nobody reads what is still written
	}
	tp.sock.Soerror(errno)
	tp.close()
}

// checkSyn is RFC 9293, 3.10.7.4, fourth: "RFC 5961 recommends that in these synchronized states,
// if the SYN bit is set, irrespective of the sequence number, TCP endpoints MUST send a "challenge
// ACK" to the remote peer". A peer that has restarted answers it with a reset, and then its next
// SYN finds nothing in its way.
func (tp *TCB) checkSyn(seg *segment) {
	tp.stats.Badsyn.Inc()
	if tp.prof.InsecureSYN && seg.seq.Geq(tp.lastAckSent) && seg.seq.Lt(tp.lastAckSent.Add(int(seg.rcvWnd))) {
		// "For implementations that do not follow RFC 5961": "If the SYN is in the window it is an
		// error: send a reset".
		tp.Drop(syscall.ECONNRESET, seg.now)
		return
	}
	tp.challengeAck(seg.now)
}

// hasTS reports whether the segment has a timestamp that counts.
func (tp *TCB) hasTS(seg *segment) bool {
	return tp.flags&RcvdTstmp != 0 && seg.opt.Has&wire.TofTS != 0
}

// oldTS reports whether the segment's timestamp is older than the one that was last taken. Both
// wrap: RFC 7323, 5.2, compares them as RFC 9293, 3.4, does sequence numbers.
func (tp *TCB) oldTS(seg *segment) bool { return int32(seg.opt.TSVal-tp.tsRecent) < 0 }

// pawsIdle is how long a timestamp stays valid (RFC 7323, 5.5): a clock that ticks once a
// millisecond has gone through half of its numbers by then.
const pawsIdle = 24 * 24 * 3600 * sec

// paws protects against wrapped sequence numbers: RFC 7323, 5.3, R1. A segment whose timestamp is
// older than the last one is acknowledged and dropped, as it may come from an earlier round of the
// sequence space.
func (tp *TCB) paws(seg *segment) bool {
	if !tp.hasTS(seg) || tp.tsRecent == 0 || !tp.oldTS(seg) {
		return true
	}
	if seg.now-int64(tp.tsRecentAge)*sec > pawsIdle {
		tp.tsRecent = 0
		return true
	}
	if tp.disordered(seg) || tp.overtaken(seg) {
		return true
	}
	tp.stats.Pawsdrop.Inc()
	switch { // BSD does not answer what brings nothing
	case seg.len > 0:
		tp.flags |= AckNow
	case seg.flags&wire.FIN != 0:
		tp.ackUnacceptable(seg)
	}
	return false
}

// disordered reports whether a segment with an old timestamp is a bare acknowledgment that others
// have overtaken: Linux's tcp_disordered_ack. RFC 7323, 5.3, drops it, but it carries no data, and
// the sender would miss what it says of holes and duplicates. It must be younger than a time-out,
// as sequence numbers do not come round in so short a time, and must not move the window.
func (tp *TCB) disordered(seg *segment) bool {
	const odd = wire.SYN | wire.FIN | wire.RST | wire.ACK
	bare := seg.len == 0 && seg.flags&odd == wire.ACK && seg.seq == tp.rcvNxt
	news := seg.ack.Gt(tp.sndUna) || seg.ack == tp.sndUna && seg.win > tp.sndWnd
	return tp.snr != nil && bare && !news && int64(tp.tsRecent-seg.opt.TSVal)*ms <= tp.rtt.rxtcur
}

// pawsSlack is how old the timestamp of data may be that is still taken, in ticks of the peer's
// clock. To come round in so short a time, sequence numbers would have to pass at hundreds of
// gigabits a second.
const pawsSlack = 50

// overtaken reports whether a segment with an old timestamp is data that something sent again has
// overtaken. RFC 7323, 5.3, R1 drops it: on a path that reorders, the first retransmission that
// fills a hole would turn all that it has overtaken into losses.
func (tp *TCB) overtaken(seg *segment) bool {
	plain := seg.flags&(wire.SYN|wire.RST) == 0
	news := seg.len > 0 && seg.seq.Add(seg.len).Gt(tp.rcvNxt)
	return tp.prof.Scoreboard && plain && news && tp.tsRecent-seg.opt.TSVal <= pawsSlack
}

// takeTimestamp takes the timestamp of the segment that holds the left edge of what was last
// acknowledged, and ends at end. RFC 7323, 4.3: if "SEG.TSval >= TS.Recent and SEG.SEQ <=
// Last.ACK.sent", then "SEG.TSval is copied to TS.Recent; otherwise, it is ignored." That it must
// not end before the edge is RFC 1323's, and BSD's: a duplicate is not echoed.
//
// It is called when the acknowledgment has been found acceptable: one segment with a forged
// timestamp, and numbers that need only lie in the window, would make PAWS drop what the peer sends
// for 24 days.
func (tp *TCB) takeTimestamp(seg *segment, end Seq) {
	holdsEdge := seg.seq.Leq(tp.lastAckSent) && tp.lastAckSent.Leq(end)
	if tp.hasTS(seg) && holdsEdge && (tp.tsRecent == 0 || !tp.oldTS(seg)) {
		tp.tsRecentAge, tp.tsRecent = uint32(seg.now/sec), seg.opt.TSVal
	}
}

// trim cuts what lies outside of the window. RFC 9293, 3.10.7.4, first: "One could tailor actual
// segments to fit this assumption by trimming off any portions that lie outside the window
// (including SYN and FIN) and only processing further if the segment then begins at RCV.NXT."
func (tp *TCB) trim(seg *segment) bool {
	if tp.state == SynReceived && seg.seq.Lt(tp.irs) {
		seg.reset = true // it is of an older connection: BSD's dropwithreset
		return false
	}
	if todrop := tp.rcvNxt.Sub(seg.seq); todrop > 0 {
		tp.trimLeft(seg, todrop)
	}
	// RFC 9293, 3.6.1: "If such a host issues a CLOSE call while received data is still pending in
	// the TCP connection, or if new data is received after CLOSE is called, its TCP implementation
	// SHOULD send a RST to show that data was lost (SHLD-3)."
	if seg.len > 0 && tp.closedBoth() {
		tp.stats.Rcvafterclose.Inc()
		if tp.flags&UserClosed == 0 {
			tp.sock.Soerror(syscall.ECONNRESET)
		}
		tp.close()
		seg.reset = true
		return false
	}
	if !tp.trimRight(seg) {
		return false
	}
	if seg.flags&wire.ACK == 0 {
		// RFC 9293, 3.10.7.4, fifth: "if the ACK bit is off, drop the segment and return". Only a
		// connection that is being opened from both sides looks further.
		return tp.state == SynReceived
	}
	return true
}

// closedBoth reports whether nobody reads and nobody writes any more: the user has closed, or, as
// Linux has it, shut down one direction after the other.
func (tp *TCB) closedBoth() bool {
	if tp.flags&UserClosed != 0 {
		return tp.state > CloseWait
	}
	return tp.prof.ShutRdKeeps && tp.flags&CantRcvMore != 0 && (tp.state == FinWait1 || tp.state == FinWait2)
}

// trimLeft drops what has been received before, todrop numbers of it. RFC 9293, 3.10.7.4, first:
// "If a segment's contents straddle the boundary between old and new, only the new parts are
// processed."
func (tp *TCB) trimLeft(seg *segment, todrop int) {
	if seg.flags&wire.SYN != 0 {
		seg.flags &^= wire.SYN
		seg.seq++
		todrop--
	}
	switch {
	case todrop > seg.len || todrop == seg.len && seg.flags&wire.FIN == 0:
		// All old, and so is its FIN. It is acknowledged again: our acknowledgment may have been
		// lost.
		tp.ackUnacceptable(seg)
		seg.flags &^= wire.FIN
		todrop = seg.len
		tp.stats.Rcvduppack.Inc()
		tp.stats.Rcvdupbyte.Add(todrop)
	default:
		tp.stats.Rcvpartduppack.Inc()
		tp.stats.Rcvpartdupbyte.Add(todrop)
	}
	if todrop > 0 {
		tp.noteDuplicate(seg.seq, seg.seq.Add(todrop))
		tp.flags |= AckNow
	}
	seg.m = mbuf.Adj(seg.m, todrop)
	seg.seq = seg.seq.Add(todrop)
	seg.len -= todrop
}

// trimRight drops what lies beyond the window. It reports false if nothing of the segment is
// acceptable.
func (tp *TCB) trimRight(seg *segment) bool {
	// All distances are from rcv_nxt: if a segment is half the sequence space away, its number plus
	// its length, or plus the window, would come round.
	off := int64(seg.seq.Sub(tp.rcvNxt))
	if off == math.MinInt32 {
		off = 1 << 31 // as far away as can be, in either direction
	}
	over := int(min(off+int64(seg.len)-int64(seg.rcvWnd), math.MaxInt32))
	if off < 0 || over <= 0 {
		return true
	}
	tp.stats.Rcvpackafterwin.Inc()
	if over >= seg.len {
		tp.stats.Rcvbyteafterwin.Add(seg.len)
		if seg.rcvWnd != 0 || seg.seq != tp.rcvNxt {
			tp.ackUnacceptable(seg)
			return false
		}
		// RFC 9293, 3.10.7.4, first: "If the RCV.WND is zero, no segments will be acceptable, but
		// special allowance should be made to accept valid ACKs, URGs, and RSTs." It is the peer's
		// window probe, which asks for an acknowledgment, and brings one.
		tp.stats.Rcvwinprobe.Inc()
		tp.flags |= AckNow
		over = seg.len
	} else {
		tp.stats.Rcvbyteafterwin.Add(over)
	}
	if over > 0 {
		seg.m = mbuf.Adj(seg.m, -over)
		seg.len -= over
	}
	seg.flags &^= wire.PUSH | wire.FIN // they stood at the end
	return true
}
