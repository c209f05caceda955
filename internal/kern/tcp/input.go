package tcp

import (
	"math"
	"syscall"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// A segment is what has arrived, in host terms.
type segment struct {
	seq, ack Seq
	flags    wire.Flags
	win      uint32 // scaled
	urp      int
	len      int          // bytes of m
	m        *mbuf.Mbuf   // payload; nil once it has been taken or freed
	segs     int          // segments it was merged from
	opt      wire.Options // not a pointer, which would take the header to the heap
	arrived  int64
	now      int64
	rcvWnd   uint32 // the window that it is judged by: RCV.WND

	refused    bool // its data has been refused for want of memory
	needoutput bool
	reset      bool // answer with a RST: dropwithreset
}

// Payload is what comes with a header: a chain, and how many segments on the wire it was merged
// from.
type Payload struct {
	M       *mbuf.Mbuf
	Len     int
	Segs    int
	Size    int  // payload of each of them, but the last may be shorter; 0: Len, divided by Segs
	Refused bool // there is no memory for what came; M is nil and Len 0
}

// Input processes an arriving segment: RFC 9293, 3.10.7; the second half of 4.4BSD's tcp_input,
// FreeBSD's tcp_do_segment. It takes over the payload. arrived is when the segment came in, now is
// when it is processed. It reports whether the segment must be answered with a reset (tcp_respond,
// by the caller: BSD's dropwithreset).
func (tp *TCB) Input(th *wire.TCP, p Payload, arrived, now int64) (reset bool) {
	now = tp.onwards(now)
	if p.Segs > 1 && (th.Seq != tp.rcvNxt || tp.reass != nil) && tp.flags&local == 0 && tp.state.HaveEstablished() && p.Len > 0 {
		return tp.inputEach(th, p, arrived, now)
	}
	seg := segment{
		seq: th.Seq, ack: th.Ack, flags: th.Flags, win: uint32(th.Win), urp: int(th.Urp),
		len: p.Len, m: p.M, segs: max(p.Segs, 1), opt: th.Opt, arrived: arrived, now: now, refused: p.Refused,
	}
	if th.Flags&wire.SYN == 0 {
		seg.win <<= tp.sndScale
	}
	tp.touchKeep(now)
	tp.traceAck(&seg)
	if tp.prof.ECN != 0 {
		tp.ecnInput(&seg)
	}
	switch {
	case tp.predicted(&seg):
		return false
	case tp.state == SynSent:
		if tp.inputSynSent(&seg) {
			tp.windowAndData(&seg)
		}
	case tp.acceptableSegment(&seg) && tp.processAck(&seg):
		tp.windowAndData(&seg)
	}
	mbuf.Free(seg.m)
	switch {
	case tp.state == Closed:
		return seg.reset
	case seg.needoutput || tp.flags&AckNow != 0:
		tp.Output(now)
	}
	if tp.state == TimeWait {
		tp.sock.TcpTwstart()
	}
	return seg.reset
}

// inputEach takes merged segments one by one when there are holes: RFC 5681, 4.2: "a TCP receiver
// SHOULD send an immediate duplicate ACK when an out-of-order segment arrives", and a sender that
// counts duplicates must see as many as there were segments.
func (tp *TCB) inputEach(th *wire.TCP, p Payload, arrived, now int64) (reset bool) {
	size := p.Size
	if size <= 0 {
		size = (p.Len + p.Segs - 1) / p.Segs
	}
	for off := 0; off < p.Len; off += size {
		one := *th
		n := min(size, p.Len-off)
		one.Seq = th.Seq.Add(off)
		if off+n < p.Len {
			one.Flags &^= wire.FIN | wire.PUSH
		}
		if tp.state == Closed || tp.state == TimeWait {
			break
		}
		if tp.Input(&one, Payload{M: tp.piece(p.M, off, n), Len: n}, arrived, now) {
			reset = true
			break
		}
	}
	mbuf.Free(p.M)
	return reset
}

// piece returns n bytes of a merged segment, from off on. Behind a hole they may wait for long, and
// a piece that shares a large cluster would keep all of it, so what fits in a cluster of its own is
// copied.
func (tp *TCB) piece(m *mbuf.Mbuf, off, n int) *mbuf.Mbuf {
	if n > mbuf.ClMid {
		return mbuf.Copym(m, off, n)
	}
	c := tp.pool.Getcl(n)
	mbuf.Copydata(m, off, c.Room()[:n])
	c.Extend(n)
	return c
}

// windowAndData is what follows on acknowledgments: BSD's step6 and dodata. The urgent pointer is
// not looked at: urgent data is in line (RFC 6093, 5).
func (tp *TCB) windowAndData(seg *segment) {
	tp.updateWindow(seg)
	if seg.refused {
		tp.refuse(seg)
	}
	tp.rcvFloor = tp.rcvFloor.Max(tp.rcvNxt) // drag it along with the left edge
	tp.processData(seg)
	tp.processFin(seg)
}

// refuse answers data for which there is no memory. To drop it in silence would make the peer send
// it again until it gives up. So it is acknowledged, and if it was the next, with a window of 0,
// although more had been promised. RFC 9293, SHLD-14, advises against that, but a window is "the
// range of sequence numbers the sender of the window (the data receiver) is currently prepared to
// accept" (3.8.6). The peer then asks for as long as we answer (MUST-36 and MUST-37), and loses
// nothing.
func (tp *TCB) refuse(seg *segment) {
	if tp.state == Closed || tp.state.haveRcvdFin() || tp.flags&CantRcvMore != 0 {
		return
	}
	tp.flags |= AckNow
	if seg.seq.Leq(tp.rcvNxt) {
		tp.short = true
		tp.rcvAdv, tp.rcvFloor = tp.rcvNxt, tp.rcvNxt
	}
}

// shortWindow is the window to advertise, of the win bytes that are free, since data has been
// refused: while memory is short nothing if something waits to be read, and else a few segments.
func (tp *TCB) shortWindow(win int) int {
	switch {
	case tp.pool.Relieved():
		tp.short = false
	case tp.rcv.Cc() > 0:
		win = 0
	default:
		win = min(win, 4*tp.maxseg)
	}
	return win
}

// predicted does the two common cases and reports whether the segment was one of them: Van
// Jacobson's header prediction, the pure acknowledgment for sent data and the next data in order,
// with nothing else to say.
func (tp *TCB) predicted(seg *segment) bool {
	const odd = wire.SYN | wire.FIN | wire.RST | wire.URG | wire.ACK | wire.ECE | wire.CWR
	if seg.refused || tp.state != Established || seg.flags&odd != wire.ACK || seg.seq != tp.rcvNxt || seg.win == 0 ||
		seg.win != tp.sndWnd || tp.sndNxt != tp.sndMax || tp.flags&rxWin0Sent != 0 || tp.reass != nil || tp.snr != nil && tp.snr.state != Open {
		return false
	}
	if seg.opt.Has&wire.TofTS != 0 && tp.flags&RcvdTstmp != 0 {
		if int32(seg.opt.TSVal-tp.tsRecent) < 0 {
			return false // PAWS
		}
	}
	if seg.len == 0 {
		if seg.ack.Leq(tp.sndUna) || seg.ack.Gt(tp.sndMax) || tp.flags&fastRecov != 0 || tp.dupacks != 0 || seg.opt.Has&wire.TofSack != 0 {
			return false
		}
		tp.stats.Predack.Inc()
		tp.takeTimestamp(seg, seg.seq)
		tp.predictedAck(seg)
		if tp.snd.Cc() > 0 {
			tp.Output(seg.now)
		}
		return true
	}
	if seg.len > tp.rcv.Space() || tp.flags&(CantRcvMore|NeedFin|fastRecov) != 0 || tp.dupacks != 0 || seg.opt.Has&wire.TofSack != 0 {
		return false
	}
	// Data that brings an acknowledgment along, as all does in a conversation, is as good as data
	// alone.
	news := seg.ack != tp.sndUna
	if news && (seg.ack.Lt(tp.sndUna) || seg.ack.Gt(tp.sndMax)) {
		return false
	}
	tp.stats.Preddat.Inc()
	tp.takeTimestamp(seg, seg.seq.Add(seg.len))
	if news {
		tp.predictedAck(seg)
	}
	tp.sndWl1, tp.rcvFloor = seg.seq, tp.rcvFloor.Max(tp.rcvNxt)
	tp.deliver(seg)
	if tp.flags&AckNow != 0 || news && tp.snd.Cc() > 0 {
		tp.Output(seg.now)
	}
	return true
}

// predictedAck takes the acknowledgment of a segment that was predicted, which leaves the window's
// size as it is.
func (tp *TCB) predictedAck(seg *segment) {
	if tp.snr != nil {
		tp.senderAck(seg)
	} else {
		tp.ackAdvance(seg)
	}
	tp.sndWnd = seg.win
	tp.sndWl2 = seg.ack // this follows along, lest it come to lie half the sequence space behind
}

// deliver appends in-order data to the receive buffer and decides about its acknowledgment.
func (tp *TCB) deliver(seg *segment) {
	tp.autosize(seg.now)
	tp.ackPolicy(seg.len, seg.segs, seg.now)
	tp.rcvNxt = tp.rcvNxt.Add(seg.len)
	tp.stats.Rcvpack.Add(seg.segs)
	tp.stats.Rcvbyte.Add(seg.len)
	tp.bytesRcvd += uint64(seg.len)
	if tp.keepsData() {
		tp.rcv.Append(seg.m)
		seg.m = nil
		tp.sock.Sorwakeup()
	}
}

// keepsData reports whether data in order goes into the receive buffer; otherwise it is
// acknowledged and thrown away.
func (tp *TCB) keepsData() bool { return tp.flags&CantRcvMore == 0 || tp.prof.ShutRdKeeps }

// wholeFull stands for a full segment on the loopback, in bytes, where chains have any length. It
// is less than half of any sensible send buffer, so that a sender whose buffer is full does not
// wait for a delayed acknowledgment.
const wholeFull = 16 << 10

// ackPolicy delays the acknowledgment of n bytes in order, or not (RFC 9293, MUST-40 and
// SHLD-18/19; RFC 5681, 4.2).
func (tp *TCB) ackPolicy(n, segs int, now int64) {
	delay := tp.flags&rxWin0Sent == 0
	switch {
	case tp.prof.AckEvery == 0: // Net/3: by the timer
		delay = true
	case tp.prof.AckBySegs:
		delay = delay && tp.flags&DelAck == 0 && n <= tp.maxseg && segs < tp.prof.AckEvery
	default:
		full := int(min(tp.mssopt, wholeFull))
		if tp.flags&whole == 0 {
			tp.rcvMss = max(tp.rcvMss, min(int32(n/segs), tp.mssopt))
			full = max(int(tp.rcvMss), tp.prof.MSSDflt)
		}
		owed := tp.rcvNxt.Sub(tp.lastAckSent) + n
		delay = delay && owed < tp.prof.AckEvery*full
	}
	if !delay {
		tp.flags |= AckNow
		return
	}
	tp.flags |= DelAck
	if !tp.on(tDelack) {
		tp.set(tDelack, now+tp.prof.Delack)
	}
}

// inputSynSent is RFC 9293, 3.10.7.3. It reports whether window, data and FIN are to be looked at.
func (tp *TCB) inputSynSent(seg *segment) bool {
	hasAck := seg.flags&wire.ACK != 0
	if hasAck && (seg.ack.Leq(tp.iss) || seg.ack.Gt(tp.sndMax)) {
		seg.reset = seg.flags&wire.RST == 0
		return false
	}
	if seg.flags&wire.RST != 0 {
		if hasAck { // "error: connection reset", which a user knows as refused
			tp.sock.Soerror(syscall.ECONNREFUSED)
			tp.stats.Conndrops.Inc()
			tp.close()
		}
		return false
	}
	if seg.flags&wire.SYN == 0 || seg.flags&wire.FIN != 0 && tp.prof.DropSynFin {
		return false
	}
	tp.agree(&seg.opt)
	if tp.flags&RcvdTstmp != 0 {
		tp.tsRecentAge = uint32(seg.now / sec)
	}
	tp.mss(int(seg.opt.MSS), seg.opt.Has&wire.TofMSS != 0)
	tp.rcvseqinit(seg.seq)
	seg.rcvWnd = uint32(tp.rcvwin())
	tp.sndWnd = seg.win
	tp.maxSndwnd = seg.win
	if hasAck {
		tp.ecnSynAck(seg)
		tp.established(seg)
		tp.rcvAdv = tp.rcvAdv.Add(min(int(seg.rcvWnd), maxWin))
		tp.ackAdvance(seg)
		tp.flags |= AckNow
	} else {
		// Simultaneous open (RFC 9293, 3.5): the SYN is sent again with its acknowledgment.
		tp.setState(SynReceived)
		tp.ecnSyn(seg)
		tp.flags |= AckNow
		tp.stop(tRexmt)
	}
	seg.seq++
	seg.flags &^= wire.SYN
	tp.trimRight(seg)
	tp.sndWl1 = seg.seq - 1
	return true
}

// established: the handshake is over.
func (tp *TCB) established(seg *segment) {
	tp.stats.Connects.Inc()
	if tp.flags&(ReqScale|RcvdScale) == ReqScale|RcvdScale {
		tp.rcvScale = tp.reqScale
	} else {
		tp.sndScale = 0
	}
	tp.setState(Established)
	tp.renoInit()
	if tp.backoff > 0 && tp.prof.Scoreboard {
		tp.flags |= synRexmitted
		tp.rtt.rxtcur = tp.rto()
	}
	tp.stop(tKeep)
	if tp.flags&Keepalive != 0 {
		tp.set(tKeep, seg.now+tp.keepidle())
	}
	tp.sock.Soisconnected()
	if tp.flags&NeedFin != 0 {
		tp.flags &^= NeedFin
		tp.setState(FinWait1)
	}
}

// rcvwin is the window that we stand by: what is free, but no less than was advertised.
func (tp *TCB) rcvwin() int { return max(tp.rcv.Space(), tp.promised()) }

// promised is what is left of the window that the peer has been given. As the field is rounded up
// each time it creeps on under tiny segments; they must not fill the buffer more than twice over.
func (tp *TCB) promised() int {
	return max(min(tp.rcvAdv.Sub(tp.rcvNxt), tp.rcv.Space()+tp.rcv.Hiwat()), tp.rcvFloor.Sub(tp.rcvNxt), 0)
}

// KeepPromise is called before the receive buffer is made smaller. What the peer has been given
// stays its own: RFC 9293, SHLD-14, "A TCP receiver SHOULD NOT shrink the window, i.e., move the
// right window edge to the left".
func (tp *TCB) KeepPromise() {
	if tp.state.HaveRcvdSyn() {
		tp.rcvFloor = tp.rcvAdv.Max(tp.rcvNxt)
	}
}

// acceptableSegment is RFC 9293, 3.10.7.4, first to fourth: reset, SYN, old timestamps, and
// trimming to the window. It reports whether the acknowledgment is to be looked at.
func (tp *TCB) acceptableSegment(seg *segment) bool {
	seg.rcvWnd = uint32(tp.rcvwin())
	if tp.state == SynReceived && seg.flags&(wire.ACK|wire.RST) == wire.ACK &&
		(seg.ack.Leq(tp.sndUna) || seg.ack.Gt(tp.sndMax)) {
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

// checkRst follows RFC 5961, 3: only a reset at exactly the next number counts; in the window it is
// challenged. While an acknowledgment is delayed the next number is, for the peer, also the last
// that it has seen acknowledged.
func (tp *TCB) checkRst(seg *segment) {
	edge := tp.lastAckSent
	exact := seg.seq == edge || seg.seq == tp.rcvNxt
	in := exact || seg.seq.Geq(edge) && seg.seq.Lt(edge.Add(int(seg.rcvWnd)))
	switch {
	case !in:
		return
	case !exact && !tp.prof.InsecureRST:
		tp.stats.Badrst.Inc()
		tp.challengeAck(seg.now)
		return
	}
	tp.stats.Drops.Inc()
	errno := syscall.ECONNRESET
	switch {
	case tp.state == SynReceived:
		errno = syscall.ECONNREFUSED
	case tp.state == CloseWait && tp.prof.ShutRdKeeps:
		errno = syscall.EPIPE // Linux's: nobody reads what is still written
	}
	tp.sock.Soerror(errno)
	tp.close()
}

// checkSyn follows RFC 5961, 4: a SYN on a connection is challenged, wherever it lies.
func (tp *TCB) checkSyn(seg *segment) {
	tp.stats.Badsyn.Inc()
	if tp.prof.InsecureSYN && seg.seq.Geq(tp.lastAckSent) && seg.seq.Lt(tp.lastAckSent.Add(int(seg.rcvWnd))) {
		tp.Drop(syscall.ECONNRESET, seg.now)
		return
	}
	tp.challengeAck(seg.now)
}

// pawsIdle is how long a timestamp stays valid (RFC 7323, 5.5).
const pawsIdle = 24 * 24 * 3600 * sec

// paws protects against wrapped sequence numbers: RFC 7323, 5.3, R1.
func (tp *TCB) paws(seg *segment) bool {
	if tp.flags&RcvdTstmp == 0 || seg.opt.Has&wire.TofTS == 0 || tp.tsRecent == 0 || int32(seg.opt.TSVal-tp.tsRecent) >= 0 {
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
	switch { // RFC 7323, 5.3, R1: "Send an acknowledgment in reply [...] and drop the segment." What brings nothing BSD does not answer.
	case seg.len > 0:
		tp.flags |= AckNow
	case seg.flags&wire.FIN != 0:
		tp.ackUnacceptable(seg)
	}
	return false
}

// disordered reports whether a segment with an old timestamp is a bare acknowledgment that others
// have overtaken: Linux's tcp_disordered_ack. RFC 7323, 5.3 drops it; but it carries nothing into
// the stream, and what it says of holes and duplicates is missed. It must be younger than a
// time-out, in which sequence numbers do not come round, and must not move the window.
func (tp *TCB) disordered(seg *segment) bool {
	const odd = wire.SYN | wire.FIN | wire.RST | wire.ACK
	bare := seg.len == 0 && seg.flags&odd == wire.ACK && seg.seq == tp.rcvNxt
	news := seg.ack.Gt(tp.sndUna) || seg.ack == tp.sndUna && seg.win > tp.sndWnd
	return tp.snr != nil && bare && !news && int64(tp.tsRecent-seg.opt.TSVal)*ms <= tp.rtt.rxtcur
}

// pawsSlack is by how many ticks of its clock a peer's data may have been overtaken and is still
// taken. To come round in so short a time, sequence numbers would have to pass at hundreds of
// gigabits a second.
const pawsSlack = 50

// overtaken reports whether a segment with an old timestamp is data that something sent again has
// overtaken. RFC 7323, 5.3, R1 drops it: on a path that reorders, the first retransmission that
// fills a hole would make losses of all that it has overtaken.
func (tp *TCB) overtaken(seg *segment) bool {
	return tp.prof.Scoreboard && seg.len > 0 && seg.flags&(wire.SYN|wire.RST) == 0 && seg.seq.Add(seg.len).Gt(tp.rcvNxt) && tp.tsRecent-seg.opt.TSVal <= pawsSlack
}

// trim cuts what lies outside of the window: RFC 9293, 3.10.7.4, first check.
func (tp *TCB) trim(seg *segment) bool {
	if tp.state == SynReceived && seg.seq.Lt(tp.irs) {
		seg.reset = true
		return false
	}
	if todrop := tp.rcvNxt.Sub(seg.seq); todrop > 0 {
		tp.trimLeft(seg, todrop)
	}
	// RFC 9293, 3.6.1: "if such a host issues a CLOSE call while received data is still pending in
	// the TCP connection, or if new data is received after CLOSE is called, its TCP implementation
	// SHOULD send a RST to show that data was lost."
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
		// Only a connection that is being opened from both sides looks further (3.10.7.4, fifth).
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

// takeTimestamp takes the timestamp of the segment that holds the left edge of what was last
// acknowledged, and ends at end: RFC 7323, 4.3. It is called when the acknowledgment has been found
// acceptable: one segment with a forged timestamp, and numbers that need only lie in the window,
// would make PAWS drop what the peer sends for 24 days.
func (tp *TCB) takeTimestamp(seg *segment, end Seq) {
	if seg.opt.Has&wire.TofTS != 0 && tp.flags&RcvdTstmp != 0 && seg.seq.Leq(tp.lastAckSent) && tp.lastAckSent.Leq(end) &&
		(tp.tsRecent == 0 || int32(seg.opt.TSVal-tp.tsRecent) >= 0) {
		tp.tsRecentAge, tp.tsRecent = uint32(seg.now/sec), seg.opt.TSVal
	}
}

// trimLeft drops what has been received before; the rest of the segment counts (RFC 9293,
// 3.10.7.4).
func (tp *TCB) trimLeft(seg *segment, todrop int) {
	if seg.flags&wire.SYN != 0 {
		seg.flags &^= wire.SYN
		seg.seq++
		seg.urp = max(seg.urp-1, 0)
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
	if seg.urp > todrop {
		seg.urp -= todrop
	} else {
		seg.flags &^= wire.URG
		seg.urp = 0
	}
}

// trimRight drops what lies beyond the window. It reports false where nothing of the segment is
// acceptable.
func (tp *TCB) trimRight(seg *segment) bool {
	// All distances are from rcv_nxt: sums of what lies half the sequence space away with a length,
	// or with the window, would come round.
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
			if tp.state == SynReceived && seg.flags&wire.ACK != 0 &&
				(tp.sndUna.Gt(seg.ack) || seg.ack.Gt(tp.sndMax)) {
				seg.reset = true
				return false
			}
			tp.ackUnacceptable(seg)
			return false
		}
		tp.stats.Rcvwinprobe.Inc() // the acknowledgment in it counts
		tp.flags |= AckNow
		over = seg.len
	} else {
		tp.stats.Rcvbyteafterwin.Add(over)
	}
	if over > 0 {
		seg.m = mbuf.Adj(seg.m, -over)
		seg.len -= over
	}
	seg.flags &^= wire.PUSH | wire.FIN
	return true
}

// updateWindow takes the window if the segment is not older than the last that gave one (RFC 9293,
// 3.10.7.4, fifth).
func (tp *TCB) updateWindow(seg *segment) {
	if seg.flags&wire.ACK == 0 || tp.state == Closed || !tp.newerWindow(seg) {
		return
	}
	if seg.len == 0 && tp.sndWl2 == seg.ack && seg.win > tp.sndWnd {
		tp.stats.Rcvwinupd.Inc()
	}
	tp.sndWnd = seg.win
	tp.sndWl1, tp.sndWl2 = seg.seq, seg.ack
	tp.maxSndwnd = max(tp.maxSndwnd, tp.sndWnd)
	seg.needoutput = true
}

// newerWindow reports whether the segment's window counts: "If SND.WL1 < SEG.SEQ or (SND.WL1 =
// SEG.SEQ and SND.WL2 =< SEG.ACK), set SND.WND <- SEG.WND". A peer that is short of memory draws
// its window back and acknowledges nothing new, so a smaller window counts as well as a larger one.
// BSD takes only a larger one then; a window of 0 that answers retransmissions is taken in its
// profiles too, as they would go on in vain until the connection is dropped.
func (tp *TCB) newerWindow(seg *segment) bool {
	switch {
	case tp.sndWl1 != seg.seq:
		return tp.sndWl1.Lt(seg.seq)
	case tp.sndWl2 != seg.ack:
		return tp.sndWl2.Lt(seg.ack)
	}
	return !tp.prof.WindowByAck || seg.win > tp.sndWnd || seg.win == 0 && tp.on(tRexmt) && tp.backoff > 0
}

// processData is RFC 9293, 3.10.7.4, seventh.
func (tp *TCB) processData(seg *segment) {
	if tp.state == Closed || seg.len == 0 && seg.flags&wire.FIN == 0 || tp.state.haveRcvdFin() {
		return
	}
	if seg.seq == tp.rcvNxt && tp.reass == nil && tp.state.HaveEstablished() {
		if seg.len > 0 {
			tp.deliver(seg)
		}
		return
	}
	fin := tp.reassemble(seg)
	if seg.len > 0 || fin {
		tp.flags |= AckNow // out of order, or a gap is filled: at once (RFC 5681, 4.2)
	} else {
		// A FIN before its turn. Two BSD ends that have sent theirs would answer each other with FINs for ever.
		tp.ackUnacceptable(seg)
	}
	seg.flags &^= wire.FIN
	if fin {
		seg.flags |= wire.FIN
	}
}

// processFin is RFC 9293, 3.10.7.4, eighth. Only a FIN with all data before it arrives here.
func (tp *TCB) processFin(seg *segment) {
	if tp.state == Closed || seg.flags&wire.FIN == 0 {
		return
	}
	if tp.state.haveRcvdFin() {
		return // beyond the end of the stream, it means nothing; the FIN itself, come again, has been trimmed and is acknowledged
	}
	tp.sock.Socantrcvmore()
	tp.flags |= AckNow | CantRcvMore
	tp.rcvNxt++
	switch tp.state {
	case SynReceived, Established:
		tp.setState(CloseWait)
	case FinWait1:
		tp.setState(Closing) // our FIN has not been acknowledged: it would be FIN_WAIT_2
	case FinWait2:
		tp.twstart()
	}
}

// twstart enters TIME_WAIT; the acknowledgment goes out first, then the record takes over.
func (tp *TCB) twstart() {
	tp.setState(TimeWait)
	tp.cancelTimers()
	tp.sock.Soisdisconnected()
}
