package tcp

import (
	"fmt"
	"slices"
	"syscall"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// What stands between two machines in FuzzTwoMachines: the adversary's network, and as much of
// package kern as a connection needs.

// send puts a packet on the wire, where the adversary sits.
func (a *arena) send(from int, p *pkt) {
	delay := 10 * ms
	if !a.fair && a.d.More() {
		switch a.d.N(10) {
		case 0:
			if a.lose() {
				a.logf("      lost")
				return
			}
		case 1:
			a.push(from, p, delay+int64(a.d.N(60))*ms)
		case 2:
			delay += int64(a.d.N(250)) * ms / 4
		case 3:
			if p.len > 1 && p.th.Flags&(wire.SYN|wire.URG) == 0 {
				k := 1 + a.d.N(p.len-1)
				l, r := *p, *p
				l.len, l.data, l.th.Flags = k, p.data[:k], p.th.Flags&^(wire.FIN|wire.PUSH)
				r.len, r.data, r.th.Seq = p.len-k, p.data[k:], p.th.Seq.Add(k)
				l.segs, r.segs = 1, 1
				if a.d.One(2) {
					l, r = r, l
				}
				a.push(from, &l, delay)
				p = &r
			}
		case 4:
			if a.d.One(8) {
				delay += int64(a.d.N(3000)) * ms
			}
		}
	}
	a.push(from, p, delay)
}

// lose reports whether one more packet may be lost without one end giving up.
func (a *arena) lose() bool {
	if max(a.loss[0], a.loss[1]) >= 6 {
		return false
	}
	a.loss[0]++
	a.loss[1]++
	return true
}

func (a *arena) push(from int, p *pkt, delay int64) {
	a.order++
	f := frame{a.now + delay, int64(a.order), 1 - from, p}
	i, _ := slices.BinarySearchFunc(a.q, f, func(x, y frame) int {
		if x.at != y.at {
			return int(x.at - y.at)
		}
		return int(x.order - y.order)
	})
	a.q = slices.Insert(a.q, i, f)
}

func (e *end) rel(p *pkt, from int) string {
	f, g := e.a.ends[from].iss, e.a.ends[1-from].iss
	s := fmt.Sprintf("%d > %s %d:%d(%d) ack %d win %d", from, p.th.Flags, p.th.Seq.Sub(f), p.th.Seq.Sub(f)+p.len,
		p.len, p.th.Ack.Sub(g), p.th.Win)
	if p.th.Opt.Has&wire.TofSack != 0 {
		for _, b := range p.th.Opt.Blocks[:p.th.Opt.Nsack] {
			s += fmt.Sprintf(" %d:%d", b.Left.Sub(g), b.Right.Sub(g))
		}
	}
	return s
}

// input is tcp_input: lookup, syncache, machine.
func (e *end) input(p *pkt) {
	a := e.a
	if a.verbose {
		a.logf("in %s", e.rel(p, 1-e.i))
	}
	th := p.th
	switch {
	case e.tw != nil:
		if v := e.tw.Input(&th, p.len, e.prof); v == TwAck || v == TwRestart {
			a.send(e.i, &pkt{th: wire.TCP{Flags: wire.ACK, Seq: e.tw.SndNxt, Ack: e.tw.RcvNxt, Win: e.tw.Win}})
		}
		return
	case e.listening:
		if !e.syncache(p) {
			return
		}
	case e.gone:
		e.refuse(p)
		return
	}
	var m *mbuf.Mbuf
	for off := 0; off < p.len; off += mbuf.ClHuge {
		c := e.pool.Getcl(p.len - off)
		c.Append(p.data[off:])
		m = mbuf.Cat(m, c)
	}
	if e.tp.Input(&th, Payload{M: m, Len: p.len, Segs: max(p.segs, 1)}, e.arrived, a.now) {
		e.refuse(p)
	}
}

// refuse is tcp_dropwithreset.
func (e *end) refuse(p *pkt) {
	switch {
	case p.th.Flags&wire.RST != 0:
	case p.th.Flags&wire.ACK != 0:
		e.a.send(e.i, &pkt{th: wire.TCP{Flags: wire.RST, Seq: p.th.Ack}})
	default:
		n := p.len
		if p.th.Flags&wire.SYN != 0 {
			n++
		}
		if p.th.Flags&wire.FIN != 0 {
			n++
		}
		e.a.send(e.i, &pkt{th: wire.TCP{Flags: wire.RST | wire.ACK, Ack: p.th.Seq.Add(n)}})
	}
}

// syncache answers a SYN, and reports whether the ACK has made a connection.
func (e *end) syncache(p *pkt) bool {
	f := p.th.Flags & (wire.SYN | wire.ACK | wire.RST)
	if f == wire.SYN {
		if e.syn == nil {
			e.syn = &SynState{Iss: e.iss, Irs: p.th.Seq, Win: p.th.Win, SentWin: uint16(min(e.rcv.Hiwat(), maxWin)),
				Opt: p.th.Opt, TSOffset: 99,
				TSRecent: p.th.Opt.TSVal, Scale: WscaleFor(e.prof.Maxsockbuf)}
			if e.prof.ScaleByBuf {
				e.syn.Scale = WscaleFor(e.rcv.Hiwat())
			}
			e.syn.ECN = e.prof.ECN != 0 && p.th.Flags&(wire.ECE|wire.CWR) == wire.ECE|wire.CWR
		} else {
			e.syn.Rexmits++
		}
		th := wire.TCP{Flags: wire.SYN | wire.ACK, Seq: e.iss, Ack: e.syn.Irs + 1, Win: e.syn.SentWin}
		th.Opt = wire.Options{Has: wire.TofMSS, MSS: uint16(min(e.tp.mssopt, 65535)), Scale: e.syn.Scale,
			TSVal: TSClock(e.a.now, 99), TSEcr: e.syn.Opt.TSVal}
		if e.prof.RFC1323 {
			th.Opt.Has |= e.syn.Opt.Has & (wire.TofScale | wire.TofTS)
		}
		if e.prof.Sack {
			th.Opt.Has |= e.syn.Opt.Has & wire.TofSackperm
		}
		if e.syn.ECN {
			th.Flags |= wire.ECE
		}
		e.a.send(e.i, &pkt{th: th})
		return false
	}
	if f == wire.RST|wire.ACK || f == wire.RST {
		e.syn = nil
		return false
	}
	if f != wire.ACK || e.syn == nil || p.th.Ack != e.iss+1 {
		e.refuse(p)
		return false
	}
	if p.th.Seq.Lt(e.syn.Irs+1) || p.th.Seq.Gt(e.syn.Irs.Add(int(e.syn.SentWin))) {
		return false
	}
	e.listening, e.started = false, true
	e.tp.Passive(e.syn, e.a.now)
	return true
}

func (e *end) Emit(m *mbuf.Mbuf) syscall.Errno {
	p := &pkt{}
	if err := wire.ParseTCP(m.Bytes(), &p.th); err != nil {
		e.a.fatalf("end %d: %v", e.i, err)
	}
	p.len = m.Len() - p.th.Hlen
	p.data = make([]byte, p.len)
	mbuf.Copydata(m, p.th.Hlen, p.data)
	p.segs = 1
	if m.Pkt.SegSize > 0 {
		p.segs = max(1, (p.len+m.Pkt.SegSize-1)/m.Pkt.SegSize)
	}
	if p.len > 0 && m.Pkt.SegSize <= 0 || m.Pkt.Len != m.Len() {
		e.a.fatalf("end %d: segment size %d, packet length %d of %d", e.i, m.Pkt.SegSize, m.Pkt.Len, m.Len())
	}
	mbuf.Free(m)
	if e.a.verbose {
		e.a.logf("   %s", e.rel(p, e.i))
	}
	if e.emitErrno != 0 {
		if e.a.lose() {
			return e.emitErrno
		}
		e.emitErrno = 0 // the route comes back: what happens without one is not tested here
	}
	e.a.send(e.i, p)
	return 0
}

func (e *end) Room() bool              { return !e.noRoom }
func (e *end) Soisconnected()          {}
func (e *end) Soisdisconnected()       {}
func (e *end) Socantrcvmore()          { e.eof = true }
func (e *end) Sorwakeup()              {}
func (e *end) Sowwakeup()              {}
func (e *end) Trace(*Event)            {}
func (e *end) Soerror(x syscall.Errno) { e.errno = x; e.a.logf("end %d error %v", e.i, x) }
func (e *end) TcpClose()               { e.gone = true; e.a.logf("end %d tcpclose", e.i) }
func (e *end) TcpTwstart() {
	r := e.tp.TimeWaitRec(e.a.now)
	e.tw = &r
}
