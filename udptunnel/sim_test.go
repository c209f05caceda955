package udptunnel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// A simulation is two or more machines and a network between them, in virtual time.

const ms = second / 1000

// A simEnd is a machine with what a link has around it.
type simEnd struct {
	*machine
	t      testing.TB
	name   string
	addr   endpoint
	got    []string
	skew   int64 // of its clock
	counts [verdictReplayed + 1]int
	// Every nonce that was used, by the session whose key it was used with.
	nonces map[*session]uint64
}

// A simDatagram is a datagram on its way.
type simDatagram struct {
	at       int64
	src, dst endpoint
	b        []byte
}

type sim struct {
	t     testing.TB
	rnd   *rand.Rand
	now   int64
	delay int64
	ends  []*simEnd
	wire  []simDatagram // in the order of sending
	log   []simDatagram // all that was ever sent
	lose  func(d simDatagram) bool
	held  bool // the network keeps what it gets
}

func newSim(t testing.TB) *sim {
	return &sim{t: t, rnd: rand.New(rand.NewPCG(1, 2)), now: 1000 * second, delay: 10 * ms}
}

// add makes an end that listens at a port. It knows the port of its peer, or 0.
func (s *sim) add(port, peer uint16, key []byte) *simEnd {
	var to endpoint
	if peer != 0 {
		to = simAddr(peer)
	}
	m, err := newMachine(key, to, func(b []byte) {
		for i := range b {
			b[i] = byte(s.rnd.Uint32())
		}
	})
	if err != nil {
		s.t.Fatal(err)
	}
	e := &simEnd{machine: m, t: s.t, name: fmt.Sprint(port), addr: simAddr(port), nonces: map[*session]uint64{}}
	s.ends = append(s.ends, e)
	return e
}

// remove removes an end. Datagrams to it are lost.
func (s *sim) remove(e *simEnd) {
	for i := range s.ends {
		if s.ends[i] == e {
			s.ends = append(s.ends[:i], s.ends[i+1:]...)
			return
		}
	}
}

func simAddr(port uint16) endpoint {
	return udp(netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, 1}), port))
}

// pair makes the two ends of a tunnel. The first knows the address of the second.
func (s *sim) pair() (a, b *simEnd) { return s.add(1, 2, testKey), s.add(2, 0, testKey) }

// transmit puts a datagram on the wire.
func (s *sim) transmit(src, dst endpoint, b []byte) {
	d := simDatagram{s.now + s.delay, src, dst, bytes.Clone(b)}
	s.log = append(s.log, d)
	if s.lose == nil || !s.lose(d) {
		s.wire = append(s.wire, d)
	}
}

// settle sends the messages and the empty packet of e's machine.
func (s *sim) settle(e *simEnd) {
	for i := range e.out {
		s.transmit(e.addr, e.out[i].to, e.out[i].bytes())
	}
	e.out = e.out[:0]
	if empty := e.empty; empty != nil {
		s.seal(e, empty, "")
	}
	live := 0
	for _, x := range []*session{e.cur, e.prev, e.next} {
		if x != nil {
			live++
			if s.now+e.skew-x.created >= endAfter+second*2 {
				e.t.Fatalf("%s: a session lives for %d ms", e.name, (s.now-x.created)/ms)
			}
		}
	}
	if live > 3 || e.cur != nil && (e.cur == e.prev || e.cur == e.next) {
		e.t.Fatalf("%s: sessions %v %v %v", e.name, e.cur, e.prev, e.next)
	}
}

func (s *sim) seal(e *simEnd, x *session, p string) {
	b := make([]byte, hdrLen, sealLen+len(p))
	d := x.seal(append(b, p...))
	counter := binary.LittleEndian.Uint64(d[8:])
	if last, ok := e.nonces[x]; ok && counter <= last || counter == 0 {
		e.t.Fatalf("%s: nonce %d after %d", e.name, counter, last)
	}
	e.nonces[x] = counter
	e.sent(s.now+e.skew, x, p != "")
	s.transmit(e.addr, e.peer, d)
}

// write sends a packet, and reports whether it could.
func (s *sim) write(e *simEnd, p string) bool {
	x := e.sender(s.now + e.skew)
	if x != nil {
		s.seal(e, x, p)
	}
	s.settle(e)
	return x != nil
}

// arrive delivers a datagram to an end.
func (s *sim) arrive(e *simEnd, b []byte, src endpoint) verdict {
	v := e.take(s.now+e.skew, b, src)
	e.counts[v]++
	s.settle(e)
	return v
}

// due returns an end's deadline, by the simulation's clock.
func (e *simEnd) due() int64 {
	if d := e.deadline(); d != never {
		return d - e.skew
	}
	return never
}

// take processes a datagram as a link does.
func (e *simEnd) take(now int64, b []byte, src endpoint) verdict {
	if len(b) == 0 || b[0] != kindData {
		return e.input(now, b, src)
	}
	x, v := e.find(now, b)
	if x == nil {
		return v
	}
	p := make([]byte, len(b)-sealLen)
	n, newest, v := x.open(p, b)
	if v != verdictPacket {
		return v
	}
	if n > 0 {
		e.got = append(e.got, string(p[:n]))
	}
	e.opened(now, x, n > 0, newest, src)
	return verdictPacket
}

// run lets d nanoseconds pass.
func (s *sim) run(d int64) {
	end := s.now + d
	for {
		next := end
		for _, w := range s.wire {
			if !s.held {
				next = min(next, w.at)
			}
		}
		for _, e := range s.ends {
			next = min(next, e.due())
		}
		s.now = max(s.now, next)
		wire := s.wire
		s.wire = nil
		for _, w := range wire {
			if s.held || w.at > s.now {
				s.wire = append(s.wire, w)
				continue
			}
			for _, e := range s.ends {
				if e.addr == w.dst {
					s.arrive(e, w.b, w.src)
				}
			}
		}
		for _, e := range s.ends {
			if e.due() <= s.now {
				e.poll(s.now + e.skew)
				s.settle(e)
				if e.due() <= s.now {
					s.t.Fatalf("%s: due again at once", e.name)
				}
			}
		}
		if s.now >= end && next >= end {
			return
		}
	}
}

// connect makes a session, and makes data arrive on it at both ends.
func (s *sim) connect(a, b *simEnd) {
	s.t.Helper()
	s.write(a, "wanted")
	s.run(second)
	s.exchange(a, b)
}

// exchange sends a packet each way, which must arrive.
func (s *sim) exchange(a, b *simEnd) {
	s.t.Helper()
	for _, d := range [][2]*simEnd{{a, b}, {b, a}} {
		p := fmt.Sprintf("%s to %s at %d", d[0].name, d[1].name, s.now)
		if !s.write(d[0], p) {
			s.t.Fatalf("%s has no session", d[0].name)
		}
		n := len(d[1].got)
		s.run(2 * s.delay)
		if len(d[1].got) != n+1 || d[1].got[n] != p {
			s.t.Fatalf("%s gets %q of %q", d[1].name, d[1].got[n:], p)
		}
	}
}

// kind returns the datagrams of a kind that were sent.
func (s *sim) kind(k byte) (ds []simDatagram) {
	for _, d := range s.log {
		if d.b[0] == k {
			ds = append(ds, d)
		}
	}
	return ds
}
