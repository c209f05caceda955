package tcp

import (
	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// A segment is what has arrived, in host terms.
type segment struct {
	seq, ack Seq
	flags    wire.Flags
	win      uint32       // scaled
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
	if p.Segs > 1 && p.Len > 0 && tp.behindHole(th.Seq) {
		return tp.inputEach(th, p, arrived, now)
	}
	seg := segment{
		seq: th.Seq, ack: th.Ack, flags: th.Flags, win: uint32(th.Win),
		len: p.Len, m: p.M, segs: max(p.Segs, 1), opt: th.Opt, arrived: arrived, now: now, refused: p.Refused,
	}
	if th.Flags&wire.SYN == 0 {
		// RFC 7323, 2.2: "The window field in a segment where the SYN bit is set (i.e., a <SYN> or
		// <SYN,ACK>) MUST NOT be scaled."
		seg.win <<= tp.sndScale
	}
	tp.touchKeep(now)
	tp.traceAck(&seg)
	if tp.prof.ECN != 0 {
		tp.ecnInput(&seg)
	}
	// The order of the steps is RFC 9293's: each says whether the next is reached.
	switch {
	case tp.predicted(&seg):
		return false
	case th.Flags&(wire.SYN|wire.FIN) == wire.SYN|wire.FIN && tp.prof.DropSynFin:
		// FreeBSD's tcp_do_segment drops it in each state from SYN_SENT on.
		tp.stats.Badsyn.Inc()
		mbuf.Free(seg.m)
		return false
	case tp.state == SynSent:
		if tp.inputSynSent(&seg) {
			tp.windowAndData(&seg)
		}
	case tp.acceptableSegment(&seg) && tp.processAck(&seg):
		tp.windowAndData(&seg)
	}
	mbuf.Free(seg.m)
	// RFC 9293, 3.10.7.4, first, of segments that are queued: "it MUST process them all before
	// sending any ACK segments (MUST-59)". So the acknowledgment goes out last, and once, with
	// whatever the segment has made possible to send.
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

// behindHole reports whether data that begins at seq lies behind a hole, or may fill one, on a path
// that can lose.
func (tp *TCB) behindHole(seq Seq) bool {
	return (seq != tp.rcvNxt || tp.reass != nil) && tp.flags&local == 0 && tp.state.HaveEstablished()
}

// inputEach takes merged segments one by one when there are holes. RFC 5681, 4.2: "Out-of-order
// data segments SHOULD be acknowledged immediately, in order to accelerate loss recovery", and a
// sender that counts duplicates must see as many as there were segments.
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
			break // a piece before has ended the connection
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

// windowAndData is what follows on acknowledgments: BSD's step6 and dodata. RFC 9293's sixth step,
// the urgent pointer, is left out: urgent data is in line, as RFC 6093, 5, asks of every new
// application.
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
		// What lies behind a hole is sent again anyway; of what would have been the next the peer
		// must learn that it cannot be taken now.
		tp.flags2 |= short
		tp.rcvAdv, tp.rcvFloor = tp.rcvNxt, tp.rcvNxt
	}
}

// predicted does the two common cases and reports whether the segment was one of them: Van
// Jacobson's header prediction, the pure acknowledgment for sent data and the next data in order.
// All else goes the long way, which would do the same for these two: the short one only leaves out
// questions whose answers are known.
func (tp *TCB) predicted(seg *segment) bool {
	switch {
	case !tp.ordinary(seg) || !tp.atEase():
		return false
	case seg.len == 0 && tp.acksFlight(seg):
		tp.predictedAck(seg)
	case seg.len > 0 && tp.dataFits(seg):
		tp.predictedData(seg)
	default:
		return false
	}
	return true
}

// ordinary reports whether the segment is the next, on a connection in ESTABLISHED, and says
// nothing that is out of the ordinary: no flag but ACK and PUSH, the same window as before, a
// timestamp that is not old, and no SACK blocks.
func (tp *TCB) ordinary(seg *segment) bool {
	const odd = wire.SYN | wire.FIN | wire.RST | wire.URG | wire.ACK | wire.ECE | wire.CWR
	if tp.state != Established || seg.flags&odd != wire.ACK || seg.seq != tp.rcvNxt {
		return false
	}
	if seg.win == 0 || seg.win != tp.sndWnd || seg.refused {
		return false
	}
	return seg.opt.Has&wire.TofSack == 0 && !(tp.hasTS(seg) && tp.oldTS(seg))
}

// atEase reports whether the connection is in no state that each segment may end: nothing is being
// sent again, nothing waits behind a hole, no duplicates are being counted, and the peer does not
// wait for a window.
func (tp *TCB) atEase() bool {
	if tp.sndNxt != tp.sndMax || tp.dupacks != 0 || tp.flags&(fastRecov|rxWin0Sent) != 0 {
		return false
	}
	return tp.reass == nil && (tp.snr == nil || tp.snr.state == Open)
}

// dataFits reports whether data in order can be taken as it is, with what it acknowledges: as all
// data does in a conversation, it may bring an acknowledgment along. What an end takes that has
// read to the end, or is about to send its FIN, is decided on the long way.
func (tp *TCB) dataFits(seg *segment) bool {
	if seg.len > tp.rcv.Space() || tp.flags&(CantRcvMore|NeedFin) != 0 {
		return false
	}
	return seg.ack == tp.sndUna || tp.acksFlight(seg)
}

// predictedAck takes a pure acknowledgment.
func (tp *TCB) predictedAck(seg *segment) {
	tp.stats.Predack.Inc()
	tp.takeTimestamp(seg, seg.seq)
	tp.ackOrdinary(seg)
	if tp.snd.Cc() > 0 {
		tp.Output(seg.now)
	}
}

// predictedData takes data in order.
func (tp *TCB) predictedData(seg *segment) {
	tp.stats.Preddat.Inc()
	tp.takeTimestamp(seg, seg.seq.Add(seg.len))
	news := seg.ack != tp.sndUna
	if news {
		tp.ackOrdinary(seg)
	}
	tp.sndWl1, tp.rcvFloor = seg.seq, tp.rcvFloor.Max(tp.rcvNxt)
	tp.deliver(seg)
	if tp.flags&AckNow != 0 || news && tp.snd.Cc() > 0 {
		tp.Output(seg.now)
	}
}

// ackOrdinary takes the acknowledgment of a segment that was predicted, which leaves the window's
// size as it is.
func (tp *TCB) ackOrdinary(seg *segment) {
	if tp.snr != nil {
		tp.senderAck(seg)
	} else {
		tp.ackAdvance(seg)
	}
	tp.sndWnd = seg.win
	tp.sndWl2 = seg.ack // this follows along, or it would come to lie half the sequence space behind
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

// ackPolicy delays the acknowledgment of n bytes in order, or not. RFC 9293, 3.8.6.3: "A TCP
// endpoint SHOULD implement a delayed ACK (SHLD-18), but an ACK should not be excessively delayed;
// in particular, the delay MUST be less than 0.5 seconds (MUST-40). An ACK SHOULD be generated for
// at least every second full-sized segment or 2*RMSS bytes of new data".
func (tp *TCB) ackPolicy(n, segs int, now int64) {
	delay := tp.flags&rxWin0Sent == 0 // a peer that was told of a closed window waits for the answer
	switch {
	case tp.prof.AckEvery == 0: // Net/3: by the timer
		delay = true
	case tp.prof.AckBySegs:
		delay = delay && tp.flags&DelAck == 0 && n <= tp.maxseg && segs < tp.prof.AckEvery
	default:
		// What is full is what the peer sends, not what it might: rcvMss is the largest segment
		// that has come.
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

// updateWindow takes the window if the segment is not older than the last that gave one. RFC 9293,
// 3.10.7.4, fifth: "If SND.UNA =< SEG.ACK =< SND.NXT, the send window should be updated."
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

// newerWindow reports whether the segment's window counts: "If (SND.WL1 < SEG.SEQ or (SND.WL1
// = SEG.SEQ and SND.WL2 =< SEG.ACK)), set SND.WND <- SEG.WND". "The check here prevents using old
// segments to update the window." A peer that is short of memory draws
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
	closed := seg.win == 0 && tp.on(tRexmt) && tp.backoff > 0
	return !tp.prof.WindowByAck || seg.win > tp.sndWnd || closed
}

// processData is RFC 9293, 3.10.7.4, seventh, "process the segment text".
func (tp *TCB) processData(seg *segment) {
	if tp.state == Closed || seg.len == 0 && seg.flags&wire.FIN == 0 {
		return
	}
	if tp.state.haveRcvdFin() {
		// "This should not occur since a FIN has been received from the remote side. Ignore the
		// segment text."
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
		// RFC 9293, 3.8.6.3, of RFC 5681: "recommendations to immediately acknowledge out-of-order
		// segments, segments above a gap in sequence space, or segments that fill all or part of a
		// gap, in order to accelerate loss recovery".
		tp.flags |= AckNow
	} else {
		// A FIN has come before its turn. Two BSD ends that have sent theirs would answer each
		// other with FINs forever.
		tp.ackUnacceptable(seg)
	}
	seg.flags &^= wire.FIN
	if fin {
		seg.flags |= wire.FIN
	}
}

// processFin is RFC 9293, 3.10.7.4, eighth, "check the FIN bit". Only a FIN with all data before it
// arrives here.
func (tp *TCB) processFin(seg *segment) {
	if tp.state == Closed || seg.flags&wire.FIN == 0 {
		return
	}
	if tp.state.haveRcvdFin() {
		// A FIN beyond the end of the stream means nothing. The FIN itself, if it comes again, has
		// been trimmed, and is acknowledged.
		return
	}
	// "If the FIN bit is set, signal the user "connection closing" and return any pending RECEIVEs
	// with same message, advance RCV.NXT over the FIN, and send an acknowledgment for the FIN."
	tp.sock.Socantrcvmore()
	tp.flags |= AckNow | CantRcvMore
	tp.rcvNxt++
	switch tp.state {
	case SynReceived, Established:
		tp.setState(CloseWait)
	case FinWait1:
		// "If our FIN has been ACKed (perhaps in this segment), then enter TIME-WAIT [...];
		// otherwise, enter the CLOSING state." If it had been, processAck would have gone on to
		// FIN_WAIT_2.
		tp.setState(Closing)
	case FinWait2:
		tp.twstart()
	}
}

// twstart enters TIME_WAIT: "Start the time-wait timer, turn off the other timers." The
// acknowledgment goes out first, then a record takes over, which has the timer (TimeWaitRec).
func (tp *TCB) twstart() {
	tp.setState(TimeWait)
	tp.cancelTimers()
	tp.sock.Soisdisconnected()
}
