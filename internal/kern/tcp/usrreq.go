package tcp

import (
	"syscall"

	"bsdnet/internal/kern/wire"
)

// What follows is what the user asks of a connection.

// A Path is what IP knows of the way to the peer.
type Path struct {
	MTU    int  // largest IP packet
	Hdr    int  // length of the IP header
	TSOmax int  // largest TCP payload to emit in one chain; 0: one segment
	Whole  bool // chains are never cut
	Local  bool // the peer is on this stack
}

// SetPath tells the machine about the way to the peer: the larger part of BSD's tcp_mss and tcp_mssopt.
func (tp *TCB) SetPath(p Path) {
	tp.mssopt = int32(p.MTU - p.Hdr - wire.TCPMinLen) // RFC 9293, MUST-67
	tp.maxseg = int(min(tp.mssopt, 65535))
	tp.tsomax = int32(p.TSOmax)
	if p.Whole {
		tp.flags |= whole
	}
	if p.Local {
		tp.flags |= local
	}
}

// mss takes the peer's MSS option into account (0: there was none), and rounds the buffers: BSD's tcp_mss.
func (tp *TCB) mss(offer int, has bool) {
	switch {
	case !has:
		offer = tp.prof.MSSDflt // RFC 9293, MUST-15
	case offer < tp.prof.MinMSS:
		offer = tp.prof.MinMSS // a peer must not make us send a flood of tiny segments (CVE-2019-11479)
	}
	tp.maxseg = min(tp.maxseg, offer)
	if !tp.prof.RoundBufs {
		return
	}
	if tp.snd.Hiwat() < tp.maxseg {
		tp.maxseg = tp.snd.Hiwat()
	} else {
		tp.snd.SetHiwat(tp.prof.Roundbuf(tp.snd.Hiwat(), tp.maxseg))
	}
	tp.rcv.SetHiwat(tp.prof.Roundbuf(tp.rcv.Hiwat(), tp.maxseg))
}

// Roundbuf rounds the size of a buffer up to whole segments, where it holds one: the roundup of BSD's tcp_mss.
func (p *Profile) Roundbuf(n, maxseg int) int {
	if n < maxseg || !p.RoundBufs {
		return n
	}
	return min((n+maxseg-1)/maxseg*maxseg, p.Maxsockbuf)
}

// WscaleFor returns the smallest shift that lets the window field express buf bytes (RFC 7323, 2.3).
func WscaleFor(buf int) uint8 {
	s := uint8(0)
	for s < maxScale && maxWin<<s < buf {
		s++
	}
	return s
}

func (tp *TCB) chooseScale() {
	buf := tp.prof.Maxsockbuf
	if tp.prof.ScaleByBuf {
		buf = tp.rcv.Hiwat()
	}
	tp.reqScale = WscaleFor(buf)
}

// sendseqinit is BSD's tcp_sendseqinit.
func (tp *TCB) sendseqinit(iss Seq) {
	tp.iss = iss
	tp.sndUna, tp.sndNxt, tp.sndMax, tp.sndUp, tp.sndRecover = iss, iss, iss, iss, iss
}

// rcvseqinit is BSD's tcp_rcvseqinit.
func (tp *TCB) rcvseqinit(irs Seq) {
	tp.irs = irs
	tp.rcvNxt = irs + 1
	tp.rcvAdv = irs + 1
	tp.rcvFloor = irs + 1
	tp.lastAckSent = irs + 1
}

// Connect opens actively: PRU_CONNECT's part after in_pcbconnect. SetPath has been called.
func (tp *TCB) Connect(iss Seq, tsOffset uint32, now int64) syscall.Errno {
	tp.onwards(now)
	tp.chooseScale()
	tp.tsOffset = tsOffset
	tp.setState(SynSent)
	tp.stats.Connattempt.Inc()
	if !tp.waiting() || tp.Keepinit != 0 {
		tp.set(tKeep, now+tp.keepinit())
	}
	tp.rcvTime = now
	tp.sendseqinit(iss)
	return tp.Output(now)
}

// A SynState is what the syncache has kept of a connection that is being opened from outside.
type SynState struct {
	Iss, Irs Seq
	Win      uint16 // window of the SYN
	SentWin  uint16 // window of our answer
	Opt      wire.Options
	TSOffset uint32
	TSRecent uint32
	Rexmits  uint8
	ECN      bool
	Scale    uint8 // what we have offered
	Start    int64
}

// Passive makes tp a connection in SYN_RECEIVED whose SYN has been answered already: the part of BSD's LISTEN state that the
// syncache has left (syncache_socket). SetPath has been called; the ACK goes to Input next.
func (tp *TCB) Passive(s *SynState, now int64) {
	tp.onwards(now)
	tp.setState(SynReceived)
	tp.flags |= passive
	tp.tsOffset = s.TSOffset
	tp.sendseqinit(s.Iss)
	tp.sndNxt, tp.sndMax = s.Iss+1, s.Iss+1
	tp.rcvseqinit(s.Irs)
	tp.rcvAdv = tp.rcvNxt.Add(int(s.SentWin))
	tp.reqScale = s.Scale
	tp.agree(&s.Opt)
	if tp.flags&RcvdTstmp != 0 {
		tp.tsRecent, tp.tsRecentAge = s.TSRecent, uint32(now/sec)
	}
	tp.sndWl1 = s.Irs
	tp.sndWnd = uint32(s.Win)
	tp.maxSndwnd = tp.sndWnd
	if s.ECN {
		tp.flags |= ecnOn
	}
	tp.mss(int(s.Opt.MSS), s.Opt.Has&wire.TofMSS != 0)
	tp.backoff = s.Rexmits
	if s.Rexmits == 0 && s.Start != 0 {
		tp.flags |= rttTimed
		tp.rtt.timedAt, tp.rtt.timedSeq = s.Start, s.Iss
	}
	tp.rcvTime = now
	tp.unackedSince = now
	tp.set(tRexmt, now+tp.rtt.rxtcur)
	tp.set(tKeep, now+tp.keepinit())
}

// agree takes the options of the peer's SYN: what both sides have named holds.
func (tp *TCB) agree(o *wire.Options) {
	if o.Has&wire.TofScale != 0 && tp.flags&ReqScale != 0 {
		tp.flags |= RcvdScale
		tp.sndScale = o.Scale
	}
	if o.Has&wire.TofTS != 0 && tp.flags&ReqTstmp != 0 {
		tp.flags |= RcvdTstmp
		tp.tsRecent = o.TSVal
	} else {
		tp.flags &^= ReqTstmp
	}
	if o.Has&wire.TofSackperm == 0 {
		tp.flags &^= SackPermit
	}
}

// Usrclosed: the user sends no more. It is BSD's tcp_usrclosed; Output sends the FIN.
func (tp *TCB) Usrclosed(now int64) {
	tp.onwards(now)
	switch tp.state {
	case Closed, Listen, SynSent:
		tp.close()
	case SynReceived:
		tp.flags |= NeedFin
	case Established:
		tp.setState(FinWait1)
	case CloseWait:
		tp.setState(LastAck)
	}
	// The reader may have been there when FIN_WAIT_2 was entered: CloseWrite, wait, Close. If somebody still reads, this is another
	// shutdown(SHUT_WR), which says nothing new; 4.4BSD ends the reading here as well.
	if tp.state == FinWait2 && tp.unread() {
		if !tp.on(t2MSL) {
			tp.set(t2MSL, now+tp.prof.FinWait2)
		}
		tp.sock.Soisdisconnected()
	}
}

// unread reports whether nobody reads any more, so that FIN_WAIT_2 must end by itself.
func (tp *TCB) unread() bool {
	return tp.flags&UserClosed != 0 || tp.flags&CantRcvMore != 0 && !tp.prof.ShutRdKeeps
}

// Orphan: the user has closed, and nobody is left to be told of errors. Whatever is still to be sent is sent, but a peer that lets it make no
// progress cannot keep it for ever, even by answering probes of its closed window (CVE-2008-4609).
func (tp *TCB) Orphan(now int64) {
	tp.flags |= UserClosed
	tp.orphanAcked(0, now)
}

// orphanRate is how many bytes a second the peer of an orphan must take. One that takes a byte now and then would keep what waits for it for months.
const orphanRate = 512

// orphanAcked gives an orphan time for n bytes that its peer has taken, up to Profile.Orphan from now on.
func (tp *TCB) orphanAcked(n int, now int64) {
	if tp.prof.Orphan == 0 || tp.state != FinWait1 && tp.state != Closing && tp.state != LastAck {
		return
	}
	at := now + tp.prof.Orphan
	if tp.on(t2MSL) {
		at = min(at, tp.timers[t2MSL]+int64(n)*sec/orphanRate)
	}
	tp.set(t2MSL, at)
}

// Stalled reports whether data waits for a peer that has been asked for a window, and has given none: what may be given up when memory is short.
func (tp *TCB) Stalled() bool { return tp.on(tPersist) && tp.backoff >= 2 && tp.snd.Cc() > 0 }

// Drop ends the connection with an error, and a RST where the peer knows of it: BSD's tcp_drop.
func (tp *TCB) Drop(errno syscall.Errno, now int64) {
	tp.onwards(now)
	if tp.state.HaveRcvdSyn() {
		tp.setState(Closed)
		tp.Output(now)
		tp.stats.Drops.Inc()
	} else {
		tp.stats.Conndrops.Inc()
	}
	tp.sock.Soerror(errno)
	tp.close()
}

// outputRst is Output in state CLOSED, where the one thing to send is a reset; unlike BSD's it carries no data.
func (tp *TCB) outputRst(now int64) syscall.Errno {
	tp.flags &^= blocked
	tp.sndNxt = tp.sndMax
	if tp.sndWnd == 0 && (tp.bytesSent > 0 || tp.sndUna != tp.iss) {
		tp.sndNxt = tp.sndUna // what a closed window has refused does not count: the number must be the peer's next
	}
	o := outseg{flags: outflags[Closed]}
	m := tp.build(&o, now)
	tp.sent(&o, now)
	return tp.sock.Emit(m)
}

// Reset aborts the connection: SO_LINGER with time 0, or closing with unread data.
func (tp *TCB) Reset(now int64) { tp.Drop(0, now) }

// Close drops the connection without a segment.
func (tp *TCB) Close() { tp.close() }

// close is BSD's tcp_close: nothing is left.
func (tp *TCB) close() {
	tp.setState(Closed)
	tp.cancelTimers()
	tp.freeReass()
	tp.freeSender()
	tp.stats.Closed.Inc()
	tp.sock.TcpClose()
}

// SendUrgent marks what has been written so far as urgent (RFC 9293, 3.8.5; RFC 6093): PRU_SENDOOB.
func (tp *TCB) SendUrgent() {
	tp.sndUp = tp.sndUna.Add(tp.snd.Cc())
	tp.flags |= urgent
}

// Unblock: the interface's queue has room again.
func (tp *TCB) Unblock(now int64) {
	if tp.flags&blocked != 0 {
		tp.flags &^= blocked
		if tp.state != Closed {
			tp.Output(now)
		}
	}
}

// Ctlinput: an ICMP error speaks of sequence number seq of this connection. Drop reports that it ends the attempt to connect;
// otherwise it is at most a soft error (RFC 5927, 4 and 6; RFC 9293, MUST-54 to 56).
func (tp *TCB) Ctlinput(errno syscall.Errno, seq Seq, hard bool, now int64) {
	if seq.Lt(tp.sndUna) || seq.Geq(tp.sndMax) {
		return
	}
	if tp.state == SynSent && hard && tp.prof.ICMPMayRST {
		tp.Drop(errno, now)
		return
	}
	if errno != 0 {
		tp.softerr = uint32(errno)
	}
}

// Inherit takes over the options of a listener (FreeBSD's syncache_socket).
func (tp *TCB) Inherit(l *TCB) {
	const kept = NoDelay | NoPush | NoOpt | Keepalive | AutoRcv | AutoSnd
	tp.flags = tp.flags&^kept | l.flags&kept
	tp.ccWant = l.ccWant
	tp.Keepinit, tp.Keepidle, tp.Keepintvl, tp.keep.count, tp.MaxUnack = l.Keepinit, l.Keepidle, l.Keepintvl, l.keep.count, l.MaxUnack
}

// InOrder reports whether a segment that begins at seq is, or reaches to, the next that is expected.
func (tp *TCB) InOrder(seq Seq) bool { return seq.Leq(tp.rcvNxt) }

// News reports whether any of n bytes from seq on are beyond what has been received in order.
func (tp *TCB) News(seq Seq, n int) bool { return seq.Add(n).Gt(tp.rcvNxt) }

// Inflight reports whether seq has been sent and not acknowledged.
func (tp *TCB) Inflight(seq Seq) bool { return seq.Geq(tp.sndUna) && seq.Lt(tp.sndMax) }
