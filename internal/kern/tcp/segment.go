package tcp

import (
	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// What follows makes the segment that plan has decided on, and then accounts for it.

// build makes the segment: header, options, and a chain that shares the send buffer's clusters. It
// changes nothing in the TCB; sent learns from o what has been made.
func (tp *TCB) build(o *outseg, now int64) *mbuf.Mbuf {
	th := wire.TCP{Sport: tp.Lport, Dport: tp.Fport, Flags: o.flags}
	if o.flags&wire.ACK != 0 {
		th.Ack = tp.rcvNxt
	}
	if o.flags&wire.SYN != 0 {
		tp.synFlags(&th)
	}
	if tp.flags&NoOpt == 0 {
		tp.addoptions(&th.Opt, o.flags, now)
	}
	o.sacks = th.Opt.Has&wire.TofSack != 0
	th.Seq = tp.number(o)
	th.Flags = th.Flags&^wire.FIN | o.flags&wire.FIN
	if o.len > 0 && o.off+o.len == tp.snd.Cc() {
		// RFC 9293, 3.9.1.2: "If PUSH flags are not implemented, then the sending TCP peer: (1)
		// MUST NOT buffer data indefinitely (MUST-60), and (2) MUST set the PSH bit in the last
		// buffered segment (i.e., when there is no more queued data to be sent) (MUST-61)."
		th.Flags |= wire.PUSH
	}
	if tp.sndUp.Gt(th.Seq) && o.flags&wire.SYN == 0 {
		// RFC 9293, 3.8.5: "The urgent pointer MUST point to the sequence number of the octet
		// following the urgent data (MUST-62)." If that is too far for the field, it points as far
		// as it can.
		th.Urp = uint16(min(tp.sndUp.Sub(th.Seq), 65535))
		th.Flags |= wire.URG
	}
	switch {
	case o.flags&wire.RST != 0: // a reset gives no window
	case o.flags&wire.SYN != 0:
		o.field, o.win = tp.synWindow()
	default:
		o.field, o.win = tp.window(o.recwin)
	}
	th.Win = o.field
	tp.ecnOutput(&th, o)
	o.flags = th.Flags
	return tp.chain(&th, o, now)
}

// number returns the sequence number of a segment, and sets o.seq, from which on its data is
// counted when it has been sent. A FIN that must not be sent again it takes from the flags.
func (tp *TCB) number(o *outseg) Seq {
	switch {
	case o.rexmit:
		o.seq = tp.sndUna.Add(o.off)
		return o.seq
	case o.flags&wire.SYN != 0:
		o.seq = tp.iss // again, if need be
		return o.seq
	}
	o.seq = tp.sndNxt
	if o.flags&wire.FIN != 0 && tp.flags&SentFin != 0 && tp.sndNxt == tp.sndMax {
		if tp.prof.RepeatFIN {
			o.seq-- // the same number again
		} else {
			o.flags &^= wire.FIN
		}
	}
	if o.len == 0 && o.flags&(wire.FIN|wire.RST) == 0 && !tp.on(tPersist) {
		return tp.ackSeq()
	}
	return o.seq
}

// ackSeq is the number of a segment without data: what comes next, or the end of the peer's window
// if that has shrunk over what has been sent. The peer drops a segment beyond its window, with the
// acknowledgment in it: Linux's tcp_acceptable_seq. RFC 9293, 3.10.7.4, first: "If an incoming
// segment is not acceptable, an acknowledgment should be sent in reply".
func (tp *TCB) ackSeq() Seq {
	if tp.sndMax.Sub(tp.sndUna) > int(tp.sndWnd) && tp.state.HaveEstablished() && !tp.prof.WindowByAck {
		return tp.sndUna.Add(int(tp.sndWnd))
	}
	return tp.sndMax
}

// synFlags adds the offer of ECN to a SYN, or accepts the peer's (RFC 3168, 6.1.1). There are
// devices that drop SYNs with these flags, so the offer is made for as many SYNs as
// net.inet.tcp.ecn.maxretries allows.
func (tp *TCB) synFlags(th *wire.TCP) {
	switch {
	case tp.state == SynSent && tp.prof.ECN == 1 && int(tp.backoff) <= tp.prof.ECNRetries:
		th.Flags |= wire.ECE | wire.CWR
	case tp.state == SynReceived && tp.flags&ecnOn != 0:
		th.Flags |= wire.ECE
	}
}

// addoptions chooses the options of a segment: BSD's tcp_addoptions with the choices of tcp_output.
// The answer to a SYN has those that the SYN had too: RFC 7323, 1.3, and RFC 2018, 2.
func (tp *TCB) addoptions(op *wire.Options, flags wire.Flags, now int64) {
	syn := flags&wire.SYN != 0
	answer := flags&wire.ACK != 0
	if syn {
		// RFC 9293, 3.7.1: "TCP implementations SHOULD send an MSS Option in every SYN segment when
		// its receive MSS differs from the default 536 for IPv4 or 1220 for IPv6 (SHLD-5), and MAY
		// send it always (MAY-3)."
		op.Has |= wire.TofMSS
		op.MSS = uint16(min(tp.mssopt, 65535))
		if tp.flags&ReqScale != 0 && (!answer || tp.flags&RcvdScale != 0) {
			op.Has |= wire.TofScale
			op.Scale = tp.reqScale
		}
		if tp.flags&SackPermit != 0 {
			op.Has |= wire.TofSackperm
		}
	}
	if tp.flags&RcvdTstmp != 0 || syn && !answer && tp.flags&ReqTstmp != 0 {
		// RFC 7323, 3.2, has it on every segment then, except that a reset may do without.
		op.Has |= wire.TofTS
		op.TSVal = tp.ts(now)
		op.TSEcr = tp.tsRecent
	}
	if !syn && flags&wire.RST == 0 {
		tp.sackoptions(op)
	}
}

// chain puts header and payload into a chain.
func (tp *TCB) chain(th *wire.TCP, o *outseg, now int64) *mbuf.Mbuf {
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
	// An acknowledgment that says nothing else can stand for the one before it: queues may merge
	// them.
	m.Pkt.Ack = th.Flags == wire.ACK && o.len == 0 && !o.sacks && tp.rcvNxt != tp.lastAckSent
	if o.len > 0 {
		if room := m.Room(); o.len <= len(room) { // it costs less to copy than to share
			tp.snd.Copydata(o.off, room[:o.len])
			m.Extend(o.len)
		} else {
			m.SetNext(tp.snd.Copym(o.off, o.len))
		}
		// RFC 3168, 6.1.5, forbids marking retransmissions: new data only.
		m.Pkt.Ect = tp.flags&ecnOn != 0 && !o.rexmit && o.seq == tp.sndMax
	}
	return m
}

// sent accounts for a segment that is on its way: what it has told the peer, sequence numbers and
// timers.
func (tp *TCB) sent(o *outseg, now int64) {
	space := o.len
	if o.flags&(wire.SYN|wire.FIN) != 0 {
		space++
	}
	tp.told(o)
	tp.traceSent(o, space)
	tp.count(o, space)
	if o.flags&wire.RST != 0 {
		return
	}
	if o.rexmit {
		tp.resent(o, space, now)
		return
	}
	start := o.seq
	tp.sndNxt = start // back to the beginning for a SYN, by one for a FIN that is repeated
	if tp.flags&force != 0 && tp.on(tPersist) {
		// A window probe: BSD does not move sndNxt, as the peer will not have taken it.
		tp.sndMax = tp.sndMax.Max(start.Add(space))
		return
	}
	tp.sndNxt = start.Add(space)
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
		tp.timeSegment(start, now)
	}
	if tp.on(tRexmt) {
		return
	}
	if tp.on(tPersist) {
		tp.stop(tPersist) // what is in flight asks for a window as well
		tp.backoff = 0
		tp.unackedSince = now
	}
	// RFC 6298, 5.1: "Every time a packet containing data is sent (including a retransmission), if
	// the timer is not running, start it running so that it will expire after RTO seconds".
	tp.set(tRexmt, now+tp.rtt.rxtcur)
}

// timeSegment begins to time a segment of new data, if none is being timed: without a scoreboard
// one in each round trip is. RFC 6298, 3: "A TCP implementation MUST take at least one RTT
// measurement per RTT (unless that is not possible per Karn's algorithm)."
func (tp *TCB) timeSegment(start Seq, now int64) {
	if tp.flags&rttTimed == 0 && tp.snr == nil {
		tp.flags |= rttTimed
		tp.rtt.timedAt, tp.rtt.timedSeq = now, start
		tp.stats.Segstimed.Inc()
	}
}

// told takes note of what a segment has told the peer.
func (tp *TCB) told(o *outseg) {
	if o.sacks {
		tp.sacksTold()
	}
	if o.flags&wire.RST == 0 {
		tp.promise(o.field, o.win)
	}
	if o.flags&wire.URG != 0 {
		tp.flags &^= urgent
	}
	if o.flags&(wire.CWR|wire.SYN) == wire.CWR { // on a SYN it is an offer
		tp.flags &^= ecnSndCWR
	}
	if o.flags&wire.FIN != 0 {
		tp.flags |= SentFin
	}
	tp.lastAckSent = tp.rcvNxt
	tp.flags &^= AckNow | DelAck
	tp.stop(tDelack)
}

// count counts a segment that occupies space in the sequence, as BSD's end of tcp_output.
func (tp *TCB) count(o *outseg, space int) {
	tp.stats.Sndtotal.Inc()
	again := o.rexmit || o.seq.Lt(tp.sndMax)
	switch {
	case space == 0 && o.flags&wire.RST == 0:
		tp.stats.Sndacks.Inc()
	case o.len == 0:
		tp.stats.Sndctrl.Inc()
	case again:
		tp.stats.Sndrexmitpack.Inc()
		tp.stats.Sndrexmitbyte.Add(o.len)
	default:
		tp.stats.Sndpack.Inc()
		tp.stats.Sndbyte.Add(o.len)
	}
	if again && space > 0 {
		tp.rexmits++
	}
}
