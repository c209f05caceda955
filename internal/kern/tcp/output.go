package tcp

import (
	"syscall"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// What follows is the sending half. One question is asked after every event: what should be sent now? Output asks it until the
// answer is: nothing. plan decides, build makes the segment, sent does the accounts.

// outflags are the flags of a segment by state: BSD's tcp_outflags.
var outflags = [...]wire.Flags{
	Closed:      wire.RST | wire.ACK,
	Listen:      0,
	SynSent:     wire.SYN,
	SynReceived: wire.SYN | wire.ACK,
	Established: wire.ACK,
	CloseWait:   wire.ACK,
	FinWait1:    wire.FIN | wire.ACK,
	Closing:     wire.FIN | wire.ACK,
	LastAck:     wire.FIN | wire.ACK,
	FinWait2:    wire.ACK,
	TimeWait:    wire.ACK,
}

// An outseg is a segment that plan has decided on.
type outseg struct {
	flags  wire.Flags
	off    int // where its data begins, from sndUna
	len    int // its data
	recwin int // the window to advertise
	idle   bool
	more   bool   // there is more to send behind it
	rexmit bool   // it is on the scoreboard, and is sent again
	probe  bool   // it is larger than the others, to find out whether the path carries it
	seglen int    // payload of each segment that it is cut into
	reason string // why it is sent again
}

// Output sends what should be sent now: 4.4BSD's tcp_output. The errno is that of the last segment that IP refused.
func (tp *TCB) Output(now int64) (errno syscall.Errno) {
	if tp.state == Closed {
		return tp.outputRst(now)
	}
	now = tp.onwards(now)
	tp.beforeOutput(now)
	for more := true; more; {
		var o outseg
		if !tp.plan(&o, now) {
			if tp.snr == nil || !tp.snr.newFirst || tp.snr.pacer.held || tp.sndNxt.Gt(tp.snr.high) {
				break
			}
			tp.snr.newFirst = false // there is no new data: so what is lost
			continue
		}
		if errno = tp.emit(&o, now); errno != 0 {
			errno = tp.outputError(errno)
			break
		}
		more = o.more
	}
	if tp.snr != nil {
		tp.lookAround(now)
	}
	tp.arm(now)
	return errno
}

// emit makes a segment and sends it.
func (tp *TCB) emit(o *outseg, now int64) syscall.Errno {
	m := tp.build(o, now)
	tp.sent(o, now)
	return tp.sock.Emit(m)
}

// onwards returns now, or what the machine has been told before, whichever is later: two doors may have read the clock in the other order.
func (tp *TCB) onwards(now int64) int64 {
	tp.clock = max(tp.clock, now)
	return tp.clock
}

// plan decides whether a segment is to be sent, and which.
func (tp *TCB) plan(o *outseg, now int64) bool {
	if tp.snr != nil && tp.planRexmit(o, now) {
		return true
	}
	idle := tp.flags&lastIdle != 0 || tp.sndMax == tp.sndUna
	if idle && tp.snr == nil && tp.sndMax == tp.sndUna && now-tp.rcvTime >= tp.rtt.rxtcur {
		tp.renoAfterIdle() // RFC 5681, 4.1
	}
	tp.flags &^= lastIdle
	if idle && tp.flags&MoreToCome != 0 {
		tp.flags |= lastIdle
		idle = false
	}
	o.idle = idle
	o.flags = outflags[tp.state]
	o.off = tp.sndNxt.Sub(tp.sndUna)
	if tp.flags&NeedFin != 0 && tp.state >= Established {
		o.flags |= wire.FIN
	}
	tp.sendable(o, now)
	o.recwin = tp.recwin()
	return tp.worth(o, now)
}

// sendable computes how much data there is to send now: from sndNxt up to the edge of both windows.
func (tp *TCB) sendable(o *outseg, now int64) {
	avail := tp.snd.Cc()
	win := min(int(tp.sndWnd), tp.cwndEdge(o.off))
	if tp.flags&force != 0 {
		// A window probe: one byte beyond the edge (RFC 9293, 3.8.6.1). With data behind it the FIN stays back.
		if win == 0 {
			if o.off < avail {
				o.flags &^= wire.FIN
			}
			win = 1
		} else {
			tp.stop(tPersist)
			tp.backoff = 0
		}
	}
	n := min(avail, win) - o.off
	if o.flags&wire.SYN != 0 {
		// The SYN occupies the first number; data and FIN wait until it has been acknowledged.
		if tp.sndNxt.Gt(tp.sndUna) && tp.state != SynReceived {
			o.flags &^= wire.SYN
		}
		o.off = 0
		o.flags &^= wire.FIN
		n = 0
	}
	if n <= 0 {
		// Nothing is left, or a FIN is out and not acknowledged, or the peer has drawn its window back: then nothing more is sent
		// (RFC 9293, SHLD-16).
		n = 0
		if win == 0 && tp.state.HaveEstablished() && o.off < avail && !tp.on(tPersist) {
			tp.stop(tRexmt)
			tp.backoff = 0
			if tp.snr != nil {
				tp.startOver()
			}
			tp.sndNxt = tp.sndUna
			tp.setpersist(now)
		}
	}
	if n > 0 && !tp.sock.Room() {
		tp.flags |= blocked
		n = 0
	}
	if n > 0 && tp.snr != nil {
		n = tp.paced(o, n, now)
	}
	o.len = n
	if !o.probe {
		tp.cut(o)
	}
	if tp.sndNxt.Add(o.len).Lt(tp.sndUna.Add(avail)) {
		o.flags &^= wire.FIN
	}
}

// cut limits the segment to what may travel in one chain, in whole multiples of what one segment carries.
func (tp *TCB) cut(o *outseg) {
	if o.len <= tp.effMSS() {
		return
	}
	seg := tp.effMSS() - tp.sackOptLen()
	limit := tp.chainMax(seg)
	if o.len > limit {
		o.len = limit
		if limit > seg && tp.flags&whole == 0 {
			o.len -= limit % seg
		}
		o.more = true
		return
	}
	// The last piece is short: where it should wait for company (Nagle), only the full ones go.
	if rest := o.len % seg; rest != 0 && o.len > seg && tp.flags&whole == 0 {
		if last := o.off+o.len == tp.snd.Cc(); !last || tp.flags&(NoDelay|MoreToCome) != NoDelay {
			o.len -= rest
			o.more = true
		}
	}
}

// optLen returns the bytes of options on each segment of an established connection, but for SACK blocks.
func (tp *TCB) optLen() int {
	if tp.flags&(RcvdTstmp|NoOpt) == RcvdTstmp {
		return 12
	}
	return 0
}

// effMSS is the effective send MSS (RFC 9293, 3.7.1): the payload of a full segment, the usual options taken off.
func (tp *TCB) effMSS() int { return tp.maxseg - tp.optLen() }

func (tp *TCB) sackOptLen() int {
	if n := tp.nsack(); n > 0 {
		return 4 + 8*n
	}
	return 0
}

// recwin is the receive window to advertise: what is free, but not a silly window, and never less than before
// (RFC 9293, MUST-39 and MUST-34).
func (tp *TCB) recwin() int {
	win := min(max(tp.rcv.Space(), 0), maxWin<<tp.rcvScale)
	if win < tp.rcv.Hiwat()/4 && win < tp.maxseg {
		win = 0
	}
	if tp.short {
		win = tp.shortWindow(win)
	}
	return max(win, tp.promised())
}

// worth asks, in BSD's order, whether the segment is worth sending.
func (tp *TCB) worth(o *outseg, now int64) bool {
	if o.len > 0 {
		switch {
		case o.len >= tp.effMSS():
			return true
		case (o.idle || tp.flags&NoDelay != 0) && tp.flags&(NoPush|MoreToCome) == 0 && o.off+o.len >= tp.snd.Cc():
			return true // Nagle (RFC 9293, 3.7.4) lets it pass
		case tp.flags&force != 0:
			return true
		case o.len >= int(tp.maxSndwnd/2) && tp.maxSndwnd > 0:
			return true // half the peer's largest window: sender's silly window avoidance (RFC 9293, 3.8.6.2.1)
		case tp.sndNxt.Lt(tp.sndMax):
			return true
		}
	}
	if tp.windowUpdate(o) {
		return true
	}
	switch {
	case tp.flags&AckNow != 0,
		o.flags&wire.RST != 0,
		o.flags&wire.SYN != 0 && tp.state != SynReceived, // our answer to a SYN goes with AckNow, and again when the timer fires
		tp.flags&urgent != 0 && tp.sndUp.Gt(tp.sndUna):   // once: BSD sends on every event, and two urgent ends could do so for ever
		return true
	case o.flags&wire.FIN != 0 && (tp.flags&SentFin == 0 || tp.sndNxt == tp.sndUna):
		return true
	}
	return false
}

// arm sees to it that no connection stalls, whatever has been sent or held back: what is in flight has a retransmission timer, and
// data that waits for a window has a probe, lest a lost update stop it for ever.
func (tp *TCB) arm(now int64) {
	switch {
	case tp.on(tRexmt) || tp.on(tPersist) || tp.state == Closed:
	case tp.sndMax != tp.sndUna:
		tp.set(tRexmt, now+tp.rtt.rxtcur)
	case tp.snd.Cc() > 0 && !tp.on(tPace) && tp.flags&blocked == 0 && tp.state.HaveEstablished():
		tp.backoff = 0
		tp.setpersist(now)
	}
}

// windowUpdate reports whether the reader has made enough room to tell the peer (RFC 9293, 3.8.6.2.2).
func (tp *TCB) windowUpdate(o *outseg) bool {
	if o.recwin <= 0 || tp.state < Established || tp.state.haveRcvdFin() {
		return false
	}
	if !tp.prof.AckBySegs && tp.bytesRcvd == 0 {
		return false // nothing has come yet: the 65535 of the SYN,ACK are more than an initial window, and a segment of its own is not worth the rest
	}
	if tp.prof.AckBySegs && tp.flags&DelAck != 0 && tp.prof.AckEvery > 0 {
		return false // the acknowledgment that is owed will carry it
	}
	adv := min(o.recwin, maxWin<<tp.rcvScale)
	old := 0
	if tp.rcvAdv.Gt(tp.rcvNxt) {
		old = tp.rcvAdv.Sub(tp.rcvNxt)
		adv -= old
	}
	if old>>tp.rcvScale >= (adv+old)>>tp.rcvScale {
		return false // the peer could not see it
	}
	if tp.short && old == 0 {
		return true // the peer waits for it
	}
	hiwat := tp.rcv.Hiwat()
	if tp.prof.AckEvery == 0 { // Net/3
		return adv >= 2*tp.maxseg || 2*adv >= hiwat
	}
	if !tp.prof.AckBySegs {
		hiwat = min(hiwat, maxWin<<tp.rcvScale) // without a scale a quarter of the buffer may be more than any window says
	}
	if adv >= 2*tp.maxseg && (adv >= hiwat/4 || o.recwin <= hiwat/8 || hiwat <= 8*tp.maxseg) {
		return true
	}
	return 2*adv >= hiwat
}

// OwesUpdate reports whether Output may have something to say now that the user has read: an acknowledgment, or a larger window.
func (tp *TCB) OwesUpdate() bool {
	if tp.flags&AckNow != 0 || tp.prof.AckEvery == 0 {
		return true
	}
	o := outseg{recwin: tp.recwin()}
	return tp.windowUpdate(&o)
}

// build makes the segment: header, options, and a chain that shares the send buffer's clusters.
func (tp *TCB) build(o *outseg, now int64) *mbuf.Mbuf {
	th := wire.TCP{Sport: tp.Lport, Dport: tp.Fport, Flags: o.flags}
	if o.flags&wire.ACK != 0 {
		th.Ack = tp.rcvNxt
	}
	if o.flags&wire.SYN != 0 {
		tp.sndNxt = tp.iss
		tp.synFlags(&th)
	}
	if tp.flags&NoOpt == 0 {
		tp.addoptions(&th.Opt, o.flags, now)
	}
	if o.flags&wire.FIN != 0 && tp.flags&SentFin != 0 && tp.sndNxt == tp.sndMax && !o.rexmit {
		if tp.prof.RepeatFIN {
			tp.sndNxt-- // the same number again
		} else {
			o.flags &^= wire.FIN
		}
	}
	th.Flags = th.Flags&^wire.FIN | o.flags&wire.FIN
	if o.len > 0 && o.off+o.len == tp.snd.Cc() {
		th.Flags |= wire.PUSH // RFC 9293, 3.9.1.2: there is no PUSH flag in the API, so the last of what is there has it
	}
	// A segment that occupies no sequence space takes its number from the right edge.
	th.Seq = tp.ackSeq()
	if o.len > 0 || o.flags&(wire.SYN|wire.FIN|wire.RST) != 0 || tp.on(tPersist) {
		th.Seq = tp.sndNxt
	}
	if o.rexmit {
		th.Seq = tp.sndUna.Add(o.off)
	}
	if tp.sndUp.Gt(th.Seq) && o.flags&wire.SYN == 0 {
		th.Urp = uint16(min(tp.sndUp.Sub(th.Seq), 65535))
		th.Flags |= wire.URG
		tp.flags &^= urgent
	}
	th.Win = tp.window(o)
	tp.ecnOutput(&th, o)
	m := tp.pool.Gethdr()
	n := th.Put(m.Room()[:wire.TCPMaxLen])
	m.Extend(n)
	m.Pkt.Len, m.Pkt.Arrived = n+o.len, now
	m.Pkt.Csum = mbuf.CsumPartial
	m.Pkt.SegSize = tp.maxseg - (n - wire.TCPMinLen)
	if o.probe {
		m.Pkt.SegSize = o.len
	}
	o.seglen = min(o.len, m.Pkt.SegSize)
	m.Pkt.Ack = th.Flags == wire.ACK && o.len == 0 && th.Opt.Has&wire.TofSack == 0 && tp.rcvNxt != tp.lastAckSent
	if o.len > 0 {
		if room := m.Room(); o.len <= len(room) { // it costs less to copy than to share
			tp.snd.Copydata(o.off, room[:o.len])
			m.Extend(o.len)
		} else {
			m.SetNext(tp.snd.Copym(o.off, o.len))
		}
		m.Pkt.Ect = tp.flags&ecnOn != 0 && !o.rexmit && tp.sndNxt == tp.sndMax // new data only (RFC 3168, 6.1.5)
	}
	return m
}

// ackSeq is the number of a segment without data: what comes next, or the end of the peer's window if that has shrunk over what has been sent. What lies beyond
// its window the peer drops, and its acknowledgment with it (RFC 9293, 3.10.7.4, first; Linux's tcp_acceptable_seq).
func (tp *TCB) ackSeq() Seq {
	if tp.sndMax.Sub(tp.sndUna) > int(tp.sndWnd) && tp.state.HaveEstablished() && !tp.prof.WindowByAck {
		return tp.sndUna.Add(int(tp.sndWnd))
	}
	return tp.sndMax
}

// synFlags adds the offer of ECN to a SYN (RFC 3168, 6.1.1), for as many SYNs as net.inet.tcp.ecn.maxretries allows.
func (tp *TCB) synFlags(th *wire.TCP) {
	switch {
	case tp.state == SynSent && tp.prof.ECN == 1 && int(tp.backoff) <= tp.prof.ECNRetries:
		th.Flags |= wire.ECE | wire.CWR
	case tp.state == SynReceived && tp.flags&ecnOn != 0:
		th.Flags |= wire.ECE
	}
}

// addoptions chooses the options of a segment: BSD's tcp_addoptions with the choices of tcp_output.
func (tp *TCB) addoptions(op *wire.Options, flags wire.Flags, now int64) {
	syn := flags&wire.SYN != 0
	if syn {
		op.Has |= wire.TofMSS
		op.MSS = uint16(min(tp.mssopt, 65535))
		if tp.flags&ReqScale != 0 && (flags&wire.ACK == 0 || tp.flags&RcvdScale != 0) {
			op.Has |= wire.TofScale
			op.Scale = tp.reqScale
		}
		if tp.flags&SackPermit != 0 {
			op.Has |= wire.TofSackperm
		}
	}
	if tp.flags&RcvdTstmp != 0 || syn && flags&wire.ACK == 0 && tp.flags&ReqTstmp != 0 {
		op.Has |= wire.TofTS
		op.TSVal = tp.ts(now)
		op.TSEcr = tp.tsRecent
	}
	if !syn && flags&wire.RST == 0 {
		tp.sackoptions(op)
	}
}

// window returns the window field, and keeps account of what has been promised.
func (tp *TCB) window(o *outseg) uint16 {
	if o.flags&wire.RST != 0 {
		return 0
	}
	win := o.recwin
	var field uint16
	if o.flags&wire.SYN != 0 {
		field = uint16(min(max(tp.rcv.Space(), 0), maxWin)) // never scaled (RFC 7323, 2.2)
		win = int(field)
	} else {
		// Rounded up to what the field can say, so that the window does not shrink by rounding (RFC 7323, 2.4).
		unit := 1 << tp.rcvScale
		win = min((win+unit-1)&^(unit-1), maxWin<<tp.rcvScale)
		field = uint16(win >> tp.rcvScale)
	}
	if field == 0 {
		tp.flags |= rxWin0Sent
	} else {
		tp.flags &^= rxWin0Sent
	}
	if edge := tp.rcvNxt.Add(win); edge.Gt(tp.rcvAdv) && tp.state.HaveRcvdSyn() {
		tp.rcvAdv = edge
	}
	return field
}

// sent accounts for a segment that is on its way: sequence numbers and timers.
func (tp *TCB) sent(o *outseg, now int64) {
	tp.stats.Sndtotal.Inc()
	space := o.len
	if o.flags&(wire.SYN|wire.FIN) != 0 {
		space++
	}
	tp.traceSent(o, space)
	switch {
	case o.len == 0 && space == 0:
		tp.stats.Sndacks.Inc()
	case (o.rexmit || tp.sndNxt.Lt(tp.sndMax)) && o.len > 0:
		tp.stats.Sndrexmitpack.Inc()
		tp.stats.Sndrexmitbyte.Add(o.len)
	case o.len > 0:
		tp.stats.Sndpack.Inc()
		tp.stats.Sndbyte.Add(o.len)
	default:
		tp.stats.Sndctrl.Inc()
	}
	if (o.rexmit || tp.sndNxt.Lt(tp.sndMax)) && space > 0 {
		tp.rexmits++
	}
	if o.flags&wire.FIN != 0 {
		tp.flags |= SentFin
	}
	tp.lastAckSent = tp.rcvNxt
	tp.flags &^= AckNow | DelAck
	tp.stop(tDelack)
	if o.flags&wire.RST != 0 {
		return
	}
	if o.rexmit {
		tp.resent(o, space, now)
		return
	}
	if tp.flags&force != 0 && tp.on(tPersist) {
		tp.sndMax = tp.sndMax.Max(tp.sndNxt.Add(space)) // a probe: sndNxt stays
		return
	}
	start := tp.sndNxt
	tp.sndNxt = tp.sndNxt.Add(space)
	if space == 0 {
		return
	}
	if start == tp.sndUna || !tp.on(tRexmt) {
		tp.unackedSince = or(tp.unackedSince, now)
	}
	if tp.snr != nil {
		tp.sentSpan(o, start, space, now)
	}
	if tp.sndNxt.Gt(tp.sndMax) {
		tp.sndMax = tp.sndNxt
		if tp.flags&rttTimed == 0 && tp.snr == nil {
			tp.flags |= rttTimed
			tp.rtt.timedAt, tp.rtt.timedSeq = now, start
			tp.stats.Segstimed.Inc()
		}
	}
	if !tp.on(tRexmt) {
		if tp.on(tPersist) {
			tp.stop(tPersist)
			tp.backoff = 0
			tp.unackedSince = now
		}
		tp.set(tRexmt, now+tp.rtt.rxtcur)
	}
}

// outputError decides what an error of IP means for the connection: BSD's end of tcp_output.
func (tp *TCB) outputError(errno syscall.Errno) syscall.Errno {
	switch errno {
	case syscall.ENOBUFS:
		return 0 // lost, as in any queue: the retransmission timer stands
	case syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ENETDOWN:
		if tp.state.HaveRcvdSyn() {
			tp.softerr = uint32(errno) // reported should the connection time out (RFC 9293, MUST-47)
			return 0
		}
	}
	return errno
}

// respond sends a bare segment in the connection's name: BSD's tcp_respond with a tcpcb. It is a challenge ACK with
// seq = sndNxt, a keep-alive probe with seq = sndUna-1.
func (tp *TCB) respond(seq Seq, now int64) {
	th := wire.TCP{Sport: tp.Lport, Dport: tp.Fport, Seq: seq, Ack: tp.rcvNxt, Flags: wire.ACK}
	if tp.flags&(RcvdTstmp|NoOpt) == RcvdTstmp {
		th.Opt = wire.Options{Has: wire.TofTS, TSVal: tp.ts(now), TSEcr: tp.tsRecent}
	}
	if tp.prof.TruncRespond {
		th.Win = uint16(min(max(tp.rcv.Space(), 0), maxWin<<tp.rcvScale) >> tp.rcvScale)
	} else {
		th.Win = tp.window(&outseg{flags: wire.ACK, recwin: tp.recwin()})
	}
	m := tp.pool.Gethdr()
	m.Extend(th.Put(m.Room()[:wire.TCPMaxLen]))
	m.Pkt.Len = th.Hlen
	m.Pkt.Csum = mbuf.CsumPartial
	tp.lastAckSent = tp.rcvNxt
	tp.stats.Sndtotal.Inc()
	tp.stats.Sndacks.Inc()
	tp.sock.Emit(m)
}

// ackUnacceptable asks for the answer to a segment that is not acceptable (RFC 9293, 3.10.7.4). What brings no data is answered
// at a limited rate: two ends that disagree about their numbers would answer each other for ever (RFC 5961, 7), and BSD's ends repeat their FIN in each answer.
// This limit also holds if there is none for challenges, as in the book. What brings data comes by a timer.
func (tp *TCB) ackUnacceptable(seg *segment) {
	if seg.len == 0 && seg.flags&wire.SYN == 0 {
		most, period := tp.prof.AckWar()
		if !lately(&tp.oowTime, seg.now, period) {
			tp.oowAcks = 0
		}
		if int(tp.oowAcks) >= most {
			return
		}
		tp.oowAcks++
	}
	tp.flags |= AckNow
}

// challengeAck answers a segment that may be an attack (RFC 5961, 3 to 5), at a limited rate for each connection, which nobody
// else can observe (CVE-2016-5696).
func (tp *TCB) challengeAck(now int64) {
	if tp.prof.ChallengeN > 0 {
		if !lately(&tp.challengeTime, now, tp.prof.ChallengeT) {
			tp.challenges = 0
		}
		if int(tp.challenges) >= tp.prof.ChallengeN {
			return
		}
		tp.challenges++
	}
	tp.stats.Challenges.Inc()
	seq := tp.sndNxt
	if !tp.prof.WindowByAck {
		seq = tp.ackSeq()
	}
	tp.respond(seq, now)
}
