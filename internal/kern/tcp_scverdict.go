package kern

import "bsdnet/internal/kern/wire"

// What follows decides, under the table's lock, what becomes of an entry; tcp_syncache.go does it
// afterwards.

// An scVerdict is what a segment, or an ICMP error, does to a half-open connection.
type scVerdict uint8

const (
	scNone      scVerdict = iota // there is no entry
	scDrop                       // nothing
	scChallenge                  // a challenge ACK answers the segment
	scBadack                     // a reset answers the segment: its acknowledgment is wrong; the entry stays
	scNoPlace                    // so_q is full: the entry stays
	scRemove                     // the entry is taken out
)

// decide calls judge with the entry of a connection, if there is one, and acts on its verdict in
// the table. If the verdict is scChallenge, decide makes the answer in r; if there have been too
// many, it turns the verdict into scDrop. After scRemove the entry is the caller's.
func (sc *syncache) decide(
	t *tuple, now int64, r *respondTo, judge func(e *scEntry) scVerdict,
) (e *scEntry, v scVerdict) {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	if e, _ = sc.find(t); e == nil {
		return nil, scNone
	}
	switch v = judge(e); v {
	case scRemove:
		sc.remove(e)
	case scChallenge:
		if !e.challenge(sc.k, now, r) {
			v = scDrop
		}
	}
	return e, v
}

// judgeAck returns the verdict on an acknowledgment. full says whether the listener's queue of
// connections, so_q, is full.
func (e *scEntry) judgeAck(th *wire.TCP, full bool) scVerdict {
	switch {
	case e.s.Opt.Has&th.Opt.Has&wire.TofTS != 0 && int32(th.Opt.TSVal-e.s.TSRecent) < 0:
		// RFC 7323, 5.3, R1: "SEG.TSval < TS.Recent, TS.Recent is valid, and if the RST bit is not
		// set, then treat the arriving segment as not acceptable". No acknowledgment is sent: our
		// SYN,ACK comes again anyway.
		return scDrop
	// RFC 9293, 3.10.7.4, first: "If an incoming segment is not acceptable, an acknowledgment
	// should be sent in reply". The window is the one that the SYN,ACK has offered.
	case th.Seq.Leq(e.s.Irs) || th.Seq.Gt(e.s.Irs.Add(int(e.s.SentWin))):
		return scChallenge
	// RFC 9293, 3.10.7.4, fifth: "If the segment acknowledgment is not acceptable, form a reset
	// segment". Only our SYN can be acknowledged, as nothing else has been sent. The entry stays,
	// so a forged ACK does not end the handshake.
	case th.Ack != e.s.Iss+1:
		return scBadack
	case full && e.flags&scReserved == 0:
		// The peer takes the connection for established. It will send its next segment, or answer
		// our SYN,ACK when that comes again; there may be room then.
		return scNoPlace
	}
	return scRemove
}

// judgeRst returns the verdict on a reset: RFC 9293, 3.10.7.4, second, as RFC 5961, 3.2, has it: a
// reset with "the next expected sequence number (RCV.NXT)" ends the handshake; one elsewhere in the
// window draws a challenge ACK, so an attacker must know the number exactly; one outside is
// dropped. If insecure is set, as net.inet.tcp.insecure_rst does, each reset in the window ends the
// handshake: RFC 793.
func (e *scEntry) judgeRst(th *wire.TCP, insecure bool) scVerdict {
	next := e.s.Irs + 1
	switch inside := th.Seq.Geq(next) && th.Seq.Lt(next.Add(int(e.s.SentWin))); {
	case th.Seq == next, insecure && inside:
		return scRemove
	case inside:
		return scChallenge
	}
	return scDrop
}
