package tcp

import "bsdnet/internal/kern/wire"

// A TimeWaitRec is what is left of a connection in TIME_WAIT: FreeBSD's struct tcptw.
type TimeWaitRec struct {
	SndNxt, RcvNxt     Seq
	TSRecent, TSOffset uint32
	Win                uint16 // window field to answer with
	HasTS              bool
	LastTS             uint32 // our timestamp clock when the record was made: what a new connection must have passed
}

// TimeWaitRec makes the record.
func (tp *TCB) TimeWaitRec(now int64) TimeWaitRec {
	return TimeWaitRec{
		SndNxt: tp.sndMax, RcvNxt: tp.rcvNxt, TSRecent: tp.tsRecent, TSOffset: tp.tsOffset,
		Win:   uint16(min(max(tp.rcv.Space(), 0), maxWin<<tp.rcvScale) >> tp.rcvScale),
		HasTS: tp.flags&RcvdTstmp != 0, LastTS: tp.ts(now),
	}
}

// A TwVerdict says what to do with a segment that has met a TIME_WAIT record.
type TwVerdict uint8

// The verdicts.
const (
	TwDrop    TwVerdict = iota
	TwAck               // answer with SndNxt and RcvNxt
	TwRestart           // the same, and start 2 MSL anew
	TwNew               // the record gives way to a new connection
)

// Input is RFC 9293's TIME-WAIT state, with RFC 1337 (a reset is ignored) and, if the profile
// has it, RFC 6191 (a SYN with a later timestamp may open a new connection): BSD's tcp_twcheck. n
// is the length of the data.
func (tw *TimeWaitRec) Input(th *wire.TCP, n int, prof *Profile) TwVerdict {
	switch {
	case th.Flags&wire.RST != 0:
		// RFC 1337, 3: "(F1) Ignore RST segments in TIME-WAIT state."
		return TwDrop
	case th.Flags&(wire.SYN|wire.ACK) == wire.SYN:
		if th.Flags&wire.FIN != 0 && prof.DropSynFin {
			return TwDrop
		}
		if tw.newer(th, prof) {
			return TwNew
		}
		if prof.TwAckSyn {
			// RFC 9293, 3.10.7.4, fourth: "RFC 5961 recommends that in these synchronized states,
			// if the SYN bit is set, irrespective of the sequence number, TCP endpoints MUST send a
			// "challenge ACK" to the remote peer". A peer that opens anew answers with a reset,
			// which lets its next SYN in.
			return TwAck
		}
		return TwDrop
	case th.Flags&wire.ACK == 0:
		return TwDrop
	case th.Flags&(wire.FIN|wire.SYN) == wire.FIN && th.Seq.Add(n+1) == tw.RcvNxt:
		// RFC 9293, 3.10.7.4, fifth: "The only thing that can arrive in this state is a
		// retransmission of the remote FIN. Acknowledge it, and restart the 2 MSL timeout." Our
		// acknowledgment of it was lost.
		return TwRestart
	case tw.saysNothing(th, n):
		return TwDrop // an answer could only draw another
	}
	return TwAck
}

// saysNothing reports whether a segment is an acknowledgment of what both ends agree on.
func (tw *TimeWaitRec) saysNothing(th *wire.TCP, n int) bool {
	bare := n == 0 && th.Flags&(wire.SYN|wire.FIN) == 0
	return bare && th.Seq == tw.RcvNxt && th.Ack == tw.SndNxt
}

// newer reports whether a SYN belongs to a new incarnation: RFC 6191, 2, else RFC 9293, MAY-2, by
// sequence number alone.
func (tw *TimeWaitRec) newer(th *wire.TCP, prof *Profile) bool {
	if prof.RFC6191 && tw.HasTS && th.Opt.Has&wire.TofTS != 0 && th.Opt.TSVal != tw.TSRecent {
		return int32(th.Opt.TSVal-tw.TSRecent) > 0
	}
	return th.Seq.Gt(tw.RcvNxt)
}

// Release gives up what the machine holds, as a record has taken its place.
func (tp *TCB) Release() {
	tp.cancelTimers()
	tp.freeReass()
	tp.freeSender()
	tp.snd.Flush()
}
