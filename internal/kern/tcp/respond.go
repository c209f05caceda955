package tcp

import (
	"syscall"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// What follows is sent without Output's question: bare segments in answer to what may be an attack,
// and resets. At the end stands what an error of IP's means.

// respond sends a bare segment in the connection's name: BSD's tcp_respond with a tcpcb. It is a
// challenge ACK with seq = sndNxt, or a keep-alive probe with seq = sndUna-1.
func (tp *TCB) respond(seq Seq, now int64) {
	th := wire.TCP{Sport: tp.Lport, Dport: tp.Fport, Seq: seq, Ack: tp.rcvNxt, Flags: wire.ACK}
	if tp.flags&(RcvdTstmp|NoOpt) == RcvdTstmp {
		th.Opt = wire.Options{Has: wire.TofTS, TSVal: tp.ts(now), TSEcr: tp.tsRecent}
	}
	if tp.prof.TruncRespond {
		// BSD's tcp_respond rounds the window down, and takes no note of it.
		th.Win = uint16(min(max(tp.rcv.Space(), 0), maxWin<<tp.rcvScale) >> tp.rcvScale)
	} else {
		tp.relieve()
		field, win := tp.window(tp.recwin())
		tp.promise(field, win)
		th.Win = field
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

// ackUnacceptable asks for the answer to a segment that is not acceptable. RFC 9293, 3.10.7.4: "If
// an incoming segment is not acceptable, an acknowledgment should be sent in reply (unless the RST
// bit is set, if so drop the segment and return)".
//
// What brings no data is answered at a limited rate: two ends that disagree about their numbers
// would answer each other forever (RFC 5961, 7), and BSD's ends repeat their FIN in each answer.
// The limit holds even if there is none for challenges, as in the book. What brings data comes by a
// timer.
func (tp *TCB) ackUnacceptable(seg *segment) {
	if seg.len == 0 && seg.flags&wire.SYN == 0 {
		if n, period := tp.prof.AckWar(); !mayAnswer(&tp.oowTime, &tp.oowAcks, n, period, seg.now) {
			return
		}
	}
	tp.flags |= AckNow
}

// challengeAck answers a segment that may be an attack (RFC 5961, 3 to 5). The rate is limited for
// each connection, by a count that nobody else can observe: one for the whole stack tells an
// attacker of other connections (CVE-2016-5696).
func (tp *TCB) challengeAck(now int64) {
	if n := tp.prof.ChallengeN; n > 0 && !mayAnswer(&tp.challengeTime, &tp.challenges, n, tp.prof.ChallengeT, now) {
		return
	}
	tp.stats.Challenges.Inc()
	seq := tp.sndNxt
	if !tp.prof.WindowByAck {
		seq = tp.ackSeq()
	}
	tp.respond(seq, now)
}

// mayAnswer reports whether another of the answers that are limited to most in each period may be
// sent, and counts it: n have been since at.
func mayAnswer(at *uint32, n *uint8, most int, period, now int64) bool {
	if !lately(at, now, period) {
		*n = 0
	}
	if int(*n) >= most {
		return false
	}
	*n++
	return true
}

// lately reports whether less than d has passed since *t, in milliseconds. If not, it sets *t to
// now.
func lately(t *uint32, now, d int64) bool {
	if n := uint32(now / ms); n-*t >= uint32(d/ms) {
		*t = n
		return false
	}
	return true
}

// outputRst is Output in state CLOSED, where a reset is the one thing to send; unlike BSD's it
// carries no data.
func (tp *TCB) outputRst(now int64) syscall.Errno {
	tp.flags &^= blocked
	tp.sndNxt = tp.sndMax
	if tp.sndWnd == 0 && (tp.bytesSent > 0 || tp.sndUna != tp.iss) {
		// What a closed window has refused does not count. RFC 9293, 3.10.7.4, second: the peer
		// resets if "the sequence number exactly matches the next expected sequence number
		// (RCV.NXT)".
		tp.sndNxt = tp.sndUna
	}
	return tp.emit(&outseg{flags: outflags[Closed]}, now)
}

// outputError decides what an error of IP means for the connection: BSD's end of tcp_output.
func (tp *TCB) outputError(errno syscall.Errno) syscall.Errno {
	switch errno {
	case syscall.ENOBUFS:
		return 0 // lost, as in any queue: the retransmission timer stands
	case syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ENETDOWN:
		if tp.state.HaveRcvdSyn() {
			// The way has been there, and may be again: the retransmission timer stands. It is
			// reported should the connection time out.
			tp.softerr = uint32(errno)
			return 0
		}
	}
	return errno
}
