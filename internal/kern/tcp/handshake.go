package tcp

import (
	"syscall"

	"bsdnet/internal/kern/wire"
)

// What follows opens a connection, actively or for the syncache, up to ESTABLISHED: RFC 9293, 3.5
// and 3.10.7.3, and what the two SYNs agree on.

// A Path is what IP knows of the way to the peer.
type Path struct {
	MTU    int  // largest IP packet
	V6     bool // the peer's address is IPv6
	TSOmax int  // largest TCP payload to emit in one chain; 0: one segment
	Whole  bool // chains are never cut
	Local  bool // the peer is on this stack
}

// SetPath tells the machine about the way to the peer: the larger part of BSD's tcp_mss and
// tcp_mssopt.
func (tp *TCB) SetPath(p Path) {
	// RFC 9293, 3.7.1: "The MSS value to be sent in an MSS Option should be equal to the effective
	// MTU minus the fixed IP and TCP headers."
	if p.V6 {
		tp.flags2 |= inet6
	}
	tp.mssopt = int32(p.MTU - tp.hdrLen() - wire.TCPMinLen)
	tp.maxseg = int(min(tp.mssopt, 65535))
	tp.tsomax = int32(p.TSOmax)
	if p.Whole {
		tp.flags |= whole
	}
	if p.Local {
		tp.flags |= local
	}
}

// mss takes the peer's MSS option into account, and rounds the buffers: BSD's tcp_mss.
func (tp *TCB) mss(o *wire.Options) {
	offer := int(o.MSS)
	switch {
	case o.Has&wire.TofMSS == 0:
		// RFC 9293, 3.7.1: "If an MSS Option is not received at connection setup, TCP
		// implementations MUST assume a default send MSS of 536 (576 - 40) for IPv4 or 1220 (1280 -
		// 60) for IPv6 (MUST-15)."
		offer = tp.mssdflt()
	case offer < tp.prof.MinMSS:
		// A peer must not make us send a flood of tiny segments (CVE-2019-11479).
		offer = tp.prof.MinMSS
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

// Roundbuf rounds the size of a buffer up to whole segments, if it holds one: the roundup of BSD's
// tcp_mss.
func (p *Profile) Roundbuf(n, maxseg int) int {
	if n < maxseg || !p.RoundBufs {
		return n
	}
	return min((n+maxseg-1)/maxseg*maxseg, p.Maxsockbuf)
}

// WscaleFor returns the smallest shift that lets the window field express buf bytes (RFC 7323,
// 2.3).
func WscaleFor(buf int) uint8 {
	s := uint8(0)
	for s < maxScale && maxWin<<s < buf {
		s++
	}
	return s
}

// chooseScale chooses the shift that we offer. It cannot be changed later, so it is that of the
// largest buffer that the socket may ever have, except in Net/3.
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

// rcvseqinit is BSD's tcp_rcvseqinit. RFC 9293, 3.10.7.3, fourth: "RCV.NXT is set to SEG.SEQ+1, IRS
// is set to SEG.SEQ."
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

// waiting reports whether an attempt to connect goes on for as long as its user wants: over the
// loopback a SYN that is not answered has not been lost, but waits for a place at its listener. The
// dialer's deadline and the listener's close end that, and TCP_KEEPINIT if it is set.
func (tp *TCB) waiting() bool { return tp.state == SynSent && tp.flags&local != 0 }

// A SynState is what the syncache has kept of a connection that is being opened from outside.
type SynState struct {
	Iss, Irs Seq
	Win      uint16 // window of the SYN
	SentWin  uint16 // window of our answer
	Opt      wire.Options
	TSOffset uint32
	TSRecent uint32
	Rexmits  uint8 // of the SYN,ACK, since the peer's last SYN
	Expired  bool  // its timer has expired, before that SYN or after
	ECN      bool
	Scale    uint8 // what we have offered
	Start    int64 // when the SYN,ACK was sent; 0: more than once, or not known
}

// Passive makes tp a connection in SYN_RECEIVED whose SYN has been answered already: the part of
// BSD's LISTEN state that the syncache has left (syncache_socket). SetPath has been called; the ACK
// goes to Input next.
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
	tp.mss(&s.Opt)
	tp.backoff = s.Rexmits
	if s.Expired && tp.prof.Scoreboard {
		// RFC 6298, 5.7, and RFC 5681, 3.1, ask whether the timer has expired at all.
		tp.backoff = max(tp.backoff, 1)
	}
	if s.Rexmits == 0 && s.Start != 0 {
		// The SYN,ACK is timed, unless it went more than once. RFC 6298, 3: "RTT samples MUST NOT
		// be made using segments that were retransmitted".
		tp.flags |= rttTimed
		tp.rtt.timedAt, tp.rtt.timedSeq = s.Start, s.Iss
	}
	tp.rcvTime = now
	tp.unackedSince = now
	tp.set(tRexmt, now+tp.rtt.rxtcur)
	tp.set(tKeep, now+tp.keepinit())
}

// Inherit takes over the options of a listener (FreeBSD's syncache_socket).
func (tp *TCB) Inherit(l *TCB) {
	const kept = NoDelay | NoPush | NoOpt | Keepalive | AutoRcv | AutoSnd
	tp.flags = tp.flags&^kept | l.flags&kept
	tp.ccWant = l.ccWant
	tp.keep.count = l.keep.count
	tp.Keepinit, tp.Keepidle, tp.Keepintvl, tp.MaxUnack = l.Keepinit, l.Keepidle, l.Keepintvl, l.MaxUnack
}

// agree takes the options of the peer's SYN: what both sides have named holds. RFC 7323, 1.3, has
// each of its options sent on later segments only if both SYNs had it; RFC 2018, 2, likewise.
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

// inputSynSent is RFC 9293, 3.10.7.3. It reports whether window, data and FIN are to be looked at.
func (tp *TCB) inputSynSent(seg *segment) bool {
	hasAck := seg.flags&wire.ACK != 0
	if hasAck && (seg.ack.Leq(tp.iss) || seg.ack.Gt(tp.sndMax)) {
		// "If SEG.ACK =< ISS or SEG.ACK > SND.NXT, send a reset (unless the RST bit is set, if so
		// drop the segment and return)". It is of an older connection, which the reset ends; ours
		// goes on.
		seg.reset = seg.flags&wire.RST == 0
		return false
	}
	if seg.flags&wire.RST != 0 {
		// "If the ACK was acceptable, then signal to the user "error: connection reset", drop the
		// segment, enter CLOSED state, delete TCB, and return. Otherwise (no ACK), drop the segment
		// and return." A user knows this as refused.
		if hasAck {
			tp.sock.Soerror(syscall.ECONNREFUSED)
			tp.stats.Conndrops.Inc()
			tp.close()
		}
		return false
	}
	if seg.flags&wire.SYN == 0 {
		// "Fifth, if neither of the SYN or RST bits is set, then drop the segment and return."
		return false
	}
	tp.agree(&seg.opt)
	if tp.flags&RcvdTstmp != 0 {
		tp.tsRecentAge = uint32(seg.now / sec)
	}
	tp.mss(&seg.opt)
	tp.rcvseqinit(seg.seq)
	seg.rcvWnd = uint32(tp.rcvwin())
	tp.sndWnd = seg.win
	tp.maxSndwnd = seg.win
	if hasAck {
		// "If SND.UNA > ISS (our SYN has been ACKed), change the connection state to ESTABLISHED".
		tp.ecnSynAck(seg)
		tp.established(seg)
		tp.rcvAdv = tp.rcvAdv.Add(min(int(seg.rcvWnd), maxWin))
		tp.ackAdvance(seg)
		tp.flags |= AckNow
	} else {
		// "Otherwise, enter SYN-RECEIVED, form a SYN,ACK segment [...] and send it." Both ends have
		// opened at the same time (3.5): the SYN is sent again with its acknowledgment.
		tp.setState(SynReceived)
		tp.ecnSyn(seg)
		tp.flags |= AckNow
		tp.stop(tRexmt)
	}
	// "If there are other controls or text in the segment, then continue processing at the sixth
	// step". BSD has it count as a segment that begins behind the SYN.
	seg.seq++
	seg.flags &^= wire.SYN
	tp.trimRight(seg)
	tp.sndWl1 = seg.seq - 1 // any segment is newer, and so is its window
	return true
}

// synAcked leaves SYN_RECEIVED for ESTABLISHED; acceptableSegment has checked the acknowledgment.
// RFC 9293, 3.10.7.4, fifth: "If SND.UNA < SEG.ACK =< SND.NXT, then enter ESTABLISHED state and
// continue processing".
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

// established does what is due when the handshake is over.
func (tp *TCB) established(seg *segment) {
	tp.stats.Connects.Inc()
	if tp.flags&(ReqScale|RcvdScale) == ReqScale|RcvdScale {
		tp.rcvScale = tp.reqScale
	} else {
		tp.sndScale = 0 // RFC 7323, 2.2: both must have sent the option
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
		// The user closed meanwhile. RFC 9293, 3.10.4, has a close in SYN-RECEIVED queued "for
		// processing after entering ESTABLISHED state".
		tp.flags &^= NeedFin
		tp.setState(FinWait1)
	}
}
