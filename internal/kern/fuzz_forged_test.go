package kern

import (
	"time"

	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
)

// A connState is the part of a connection that a forged segment must not change.
type connState struct {
	state      tcp.State
	rcvNxt     uint32
	una        tcp.Seq
	wnd, cwnd  int
	rcvQ, sndQ int
	err        uint32
	gone       bool
}

func (g *siege) state() connState {
	g.hear()
	i := g.info()
	g.so.lock()
	defer g.so.mu.Unlock()
	return connState{
		state: i.State, rcvNxt: i.RcvNxt, una: g.una(i), wnd: i.SndWnd, cwnd: i.SndCwnd, rcvQ: i.RcvQ, sndQ: i.SndQ,
		err: g.so.err, gone: g.so.dead,
	}
}

// unmoved asserts that f does not change the connection.
func (g *siege) unmoved(what string, s *seg, f func()) {
	before := g.state()
	f()
	after := g.state()
	before.cwnd = min(before.cwnd, after.cwnd) // an answer may find that the connection has been idle
	if after != before {
		g.fatalf("%s, %v %d+%d ack %d, has changed the connection from %+v to %+v", what, s.th.Flags, s.th.Seq,
			len(s.data), s.th.Ack, before, after)
	}
}

// near is a sequence number about those from base on, n of them.
func (g *siege) near(base tcp.Seq, n int) tcp.Seq {
	switch g.d.N(8) {
	case 0, 1, 2:
		return base
	case 3:
		return base.Add(n)
	case 4:
		return base.Add(g.d.N(16) - 8)
	case 5:
		return base.Add(n + g.d.N(16) - 8)
	case 6:
		return base.Add(g.d.N(70_000) - 35_000)
	}
	return base + tcp.Seq(g.d.U32())
}

// segment is one of the connection's that is nearly right.
func (g *siege) segment() *seg {
	d, i := &g.d, g.info()
	s := &seg{from: g.peer.from, to: g.peer.to}
	s.th = wire.TCP{Flags: wire.ACK, Seq: g.near(tcp.Seq(i.RcvNxt), i.RcvWnd), Ack: g.near(g.una(i), i.InFlight)}
	switch d.N(6) {
	case 0:
		s.th.Flags = wire.RST
	case 1:
		s.th.Flags = wire.Flags(d.N(256))
	case 2:
		s.th.Flags |= wire.FIN
	}
	s.th.Win = []uint16{65535, 0, 1, 1000, uint16(d.N(65536))}[d.N(5)]
	if d.One(2) {
		s.data = d.Bytes(d.N(64))
		if d.One(4) {
			s.data = append(s.data, make([]byte, d.N(3000))...)
		}
	}
	if s.th.Flags&wire.URG != 0 {
		s.th.Urp = uint16(d.N(65536))
	}
	g.options(s)
	return s
}

func (g *siege) options(s *seg) {
	d, o := &g.d, &s.th.Opt
	if g.ts && !d.One(8) {
		o.Has |= wire.TofTS
		o.TSVal, o.TSEcr = g.lastTS, uint32(time.Since(g.start)/time.Millisecond)
		switch d.N(4) {
		case 0:
			o.TSVal += uint32(d.N(2000) - 1000)
		case 1:
			o.TSVal = d.U32()
		}
	}
	if s.th.Flags&wire.SYN == 0 && d.One(4) {
		o.Has |= wire.TofSack
		o.Nsack = uint8(1 + d.N(3))
		i := g.info()
		for b := range o.Blocks[:o.Nsack] {
			l := g.near(g.una(i), i.InFlight)
			o.Blocks[b] = wire.SackBlock{Left: l, Right: l.Add(d.N(3000) - 100)}
		}
	}
}

// forged sends a segment of the connection that is not the peer's. Unless the peer might have sent
// it, it has no effect.
func (g *siege) forged() {
	s, i := g.segment(), g.info()
	g.logf("forged %v %d+%d ack %d win %d %x; rcvNxt %d+%d una %d+%d", s.th.Flags, s.th.Seq, len(s.data), s.th.Ack,
		s.th.Win, s.th.Opt.Has, i.RcvNxt, i.RcvWnd, g.una(i), i.InFlight)
	p := s.bytes()
	if g.d.One(16) { // the checksum is wrong
		p[36] ^= 1
		g.unmoved("a segment with a bad checksum", s, func() { g.inject(p) })
		return
	}
	if g.k.prof.InsecureRST || g.possible(s, i) {
		g.taken = true
		g.maxWin = max(g.maxWin, int(s.th.Win)<<g.scale)
		g.inject(p)
		return
	}
	g.unmoved("a segment that is not acceptable", s, func() { g.inject(p) })
}

// possible reports whether a segment is one that the peer might have sent, as RFC 5961 sees it: a
// reset at just the next number, or an acknowledgment of what is, or was, in flight, with a
// sequence number that is not beyond the window.
func (g *siege) possible(s *seg, i tcp.Info) bool {
	next, una := tcp.Seq(i.RcvNxt), g.una(i)
	switch f := s.th.Flags; {
	case i.State == tcp.Closed, i.State == tcp.TimeWait:
		return true
	case f&wire.RST != 0 && f&wire.SYN == 0:
		return s.th.Seq == next || s.th.Seq == g.lastAck
	case f&wire.RST != 0:
		return s.th.Seq == next || s.th.Seq == g.lastAck || s.th.Seq+1 == next
	case f&wire.SYN != 0, f&wire.ACK == 0:
		return false
	}
	// The buffer may have room for more than has been advertised.
	if s.th.Seq.Gt(next.Add(max(i.RcvWnd, g.room()))) {
		return false
	}
	return !s.th.Ack.Gt(g.sndMax) && una.Sub(s.th.Ack) <= g.maxWin
}

// room returns how many more bytes the connection can receive.
func (g *siege) room() int {
	g.so.lock()
	defer g.so.mu.Unlock()
	return g.so.rcv.Space()
}

// finish ends a game: the attacker sends no more, the peer behaves as it should, and the connection
// goes on.
func (g *siege) finish() {
	pass(2 * time.Second) // the limits of challenges
	g.hear()
	i := g.info()
	if i.State == tcp.Closed && !g.taken {
		g.fatalf("the connection has ended, and the peer has not ended it: %v", g.errno)
	}
	if i.State == tcp.Established || i.State == tcp.CloseWait || i.State == tcp.FinWait1 || i.State == tcp.FinWait2 {
		g.goesOn(i)
	}
	for {
		if fd, _, errno := g.p.Accept(g.lfd); errno == 0 {
			g.p.Close(fd)
		} else {
			break
		}
	}
	pass(time.Second)
	g.hear()
	if !g.k.pressed() && !g.victim.peer(7000, 80).dial(wire.Options{}) {
		g.fatalf("nobody can connect any more")
	}
}

// goesOn asserts that what the peer sends now is read, and what the user writes arrives. The peer
// knows the connection's numbers.
func (g *siege) goesOn(i tcp.Info) {
	p := g.peer
	for g.read(1<<20) > 0 {
	}
	g.taken = true // what the peer sends from now on is not its stream
	ask := func() {
		p.seq, p.ack, p.win = g.lastAck-1, g.sndMax, 65535
		p.tsval = g.lastTS
		g.inject(p.seg(wire.ACK, []byte{0}).bytes()) // a probe, which is answered
		g.hear()
		p.seq, p.ack, p.tsval = g.lastAck, g.sndMax, g.lastTS
	}
	ask()
	i = g.info()
	if tcp.Seq(i.RcvNxt) != g.lastAck && i.State != tcp.Closed {
		g.fatalf("a probe is answered with %d, the next is %d", g.lastAck, i.RcvNxt)
	}
	if i.State == tcp.Established || i.State == tcp.FinWait1 || i.State == tcp.FinWait2 {
		before := g.info().BytesRcvd
		g.inject(p.seg(wire.ACK|wire.PUSH, []byte("x")).bytes())
		if g.info().BytesRcvd == before && g.info().State == i.State {
			g.fatalf("what the peer sends does not arrive any more: %+v", g.info())
		}
		g.hear()
	}
	if g.shut || g.info().State != tcp.Established && g.info().State != tcp.CloseWait {
		return
	}
	// After a forged segment with a number ahead of the peer's (SND.WL1), the peer's windows do not
	// count until its numbers have passed that one. Window probes still make progress.
	before := g.info().BytesSent
	for g.info().BytesSent == before {
		g.p.Send(g.fd, []byte("y"), MSG_DONTWAIT)
		ask()
		var data []byte
		if i := g.info(); i.State == tcp.Established {
			data = make([]byte, min(1400, i.RcvWnd))
		}
		g.inject(p.seg(wire.ACK, data).bytes())
		g.read(1 << 20)
		if time.Since(g.start) > time.Hour {
			g.fatalf("what the user writes does not go out any more: %+v", g.info())
		}
		pass(5 * time.Second)
		g.hear()
	}
}
