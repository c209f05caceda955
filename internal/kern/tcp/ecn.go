package tcp

import "bsdnet/internal/kern/wire"

// Explicit congestion notification, RFC 3168. The marks themselves are IP's: see mbuf.Pkthdr.Ect.

// ecnSynAck looks for the answer to our offer. RFC 3168, 6.1.1, has ECE without CWR in it: some old
// stacks sent back the flags as they had come.
func (tp *TCB) ecnSynAck(seg *segment) {
	if tp.prof.ECN == 1 && seg.flags&(wire.ECE|wire.CWR) == wire.ECE && int(tp.backoff) <= tp.prof.ECNRetries {
		tp.flags |= ecnOn
	}
}

// ecnSyn looks for an offer, which our SYN,ACK accepts.
func (tp *TCB) ecnSyn(seg *segment) {
	if tp.prof.ECN != 0 && seg.flags&(wire.ECE|wire.CWR) == wire.ECE|wire.CWR {
		tp.flags |= ecnOn
	}
}

// ecnInput looks whether the peer has reduced its window: until it says so, each acknowledgment
// repeats the echo, as any may be lost (RFC 3168, 6.1.3).
func (tp *TCB) ecnInput(seg *segment) {
	if tp.flags&ecnOn != 0 && seg.flags&(wire.CWR|wire.SYN) == wire.CWR {
		tp.flags &^= ecnSndECE
		if seg.len > 0 {
			tp.flags |= AckNow
		}
	}
}

// CongestionExperienced takes note that a router has marked a packet of this connection: each
// acknowledgment tells the peer (RFC 3168, 6.1.3).
func (tp *TCB) CongestionExperienced() {
	if tp.flags&ecnOn != 0 {
		tp.flags |= ecnSndECE
	}
}

// ecnAck answers an echo, if the acknowledgment bears one: the peer has seen a mark. The window is
// reduced as for a lost segment, once a round trip (RFC 3168, 6.1.2).
func (tp *TCB) ecnAck(seg *segment) {
	if tp.snr != nil {
		if seg.flags&(wire.ECE|wire.SYN) == wire.ECE {
			tp.congestionMark(seg.now)
		}
		return
	}
	if seg.flags&(wire.ECE|wire.SYN) != wire.ECE || tp.flags&fastRecov != 0 || seg.ack.Lt(tp.sndRecover) {
		return
	}
	tp.renoCongested(ECN, min(tp.sndMax.Sub(tp.sndUna), int(tp.sndCwnd)))
	tp.sndRecover = tp.sndMax
	tp.flags |= ecnSndCWR
}

// sayCWR tells the peer that the window has been reduced. RFC 3168, 6.1.2: "for any reason (because
// of a retransmit timeout, a Fast Retransmit, or in response to an ECN Notification)": the echo of
// a mark that came with a loss would be taken for another one otherwise.
func (tp *TCB) sayCWR() {
	if tp.flags&ecnOn != 0 {
		tp.flags |= ecnSndCWR
	}
}

// ecnOutput marks the header of a segment of which build has found the number. RFC 3168, 6.1.2, has
// CWR on the first new data after the window has been reduced.
func (tp *TCB) ecnOutput(th *wire.TCP, o *outseg) {
	if tp.flags&ecnOn == 0 || o.flags&(wire.SYN|wire.RST) != 0 {
		return
	}
	if tp.flags&ecnSndECE != 0 {
		th.Flags |= wire.ECE
	}
	if tp.flags&ecnSndCWR != 0 && o.len > 0 && !o.rexmit && o.seq == tp.sndMax {
		th.Flags |= wire.CWR
	}
}
