package kern

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"syscall"
)

// Local ports. The table answers two questions: whether a socket may bind to a port (BSD's rule
// about addresses that overlap), and which port is free for a connection to a destination (RFC
// 6056). A port may serve any number of connections if their destinations differ.

// The ephemeral ports: net.inet.ip.portrange.first and last.
const (
	portFirst = 10000
	portLast  = 65535
	portRange = portLast - portFirst + 1
)

type portTable struct {
	k      *Kernel
	dgram  bool          // its sockets have UDP's rules
	gen    atomic.Uint32 // of UDP: counts changes of sockets' addresses, for those who keep a socket
	shards [64]portShard
	dests  [64]destShard

	nextMu sync.Mutex // a leaf
	drawn  uint64     // how often bindRandom has drawn
	next   [64]uint32 // counters of the ports that bind has chosen, by the start that an address has
}

// A portShard holds, by port, the sockets that use it. Connections have lists of their own, so that
// the search for a bound socket does not read all connections of a busy port.
type portShard struct {
	mu    sync.Mutex        // a leaf
	users map[uint16]*inpcb // those without a peer
	conns map[uint16]*inpcb // connections and TIME_WAIT records
}

type destShard struct {
	mu   sync.Mutex // a leaf
	sets map[dest]*portSet
}

// A dest is what connections have in common that may not share an ephemeral port: local address,
// remote address and remote port.
type dest struct {
	laddr, faddr in6Addr
	fport        uint16
}

// A portSet is the set of ports that connections to one destination use. It is a list while they
// are few. If they are many it is a bitmap, in which the next free port is found in a bounded
// number of steps even if nearly all are taken.
type portSet struct {
	n    int
	next uint32 // where to begin: a keyed offset and a counter, RFC 6056, 3.3.3 (algorithm 3)
	few  []uint16
	many *[(portRange + 63) / 64]uint64
}

const fewPorts = 32

func (t *portTable) init(k *Kernel) { t.k = k }

func (t *portTable) shard(port uint16) *portShard { return &t.shards[port%64] }

// bind gives so the local port, or a free one if port is 0. The caller has set so.inp.laddr.
func (t *portTable) bind(so *Socket, port uint16) syscall.Errno {
	if port != 0 {
		return t.tryBind(so, port)
	}
	// The search for a free port begins at a keyed hash of the address, and a counter goes on from
	// there, so that an attacker cannot guess the port (RFC 6056, 3.3.3).
	a := tuple{laddr: so.inp.laddr, faddr: so.inp.laddr}
	if t.dgram {
		return t.bindRandom(so, &a)
	}
	start := uint32(prf(t.k.seed.port, &a, 1))
	c := &t.next[start%64]
	for range portRange {
		t.nextMu.Lock()
		*c++
		// 7919 and the range have no common factor, so the search comes by every port.
		p := portFirst + (start+*c*7919)%portRange
		t.nextMu.Unlock()
		if t.tryBind(so, uint16(p)) == 0 {
			return 0
		}
	}
	return syscall.EADDRNOTAVAIL
}

// bindRandom gives so a free port at random. The answer to a datagram is believed if it comes to
// the right port, so a port must tell nothing about the next, as it does if a counter goes on from
// it: RFC 6056, 3.3.2 (algorithm 2), and RFC 5452, 9.2, of the ports of resolvers.
func (t *portTable) bindRandom(so *Socket, a *tuple) syscall.Errno {
	t.nextMu.Lock()
	t.drawn++
	n := t.drawn
	t.nextMu.Unlock()
	const draws = 64
	var p uint32
	for i := range uint32(draws + portRange) {
		if i < draws {
			p = uint32(prf(t.k.seed.port, a, uint64(i)<<48|n<<1) % portRange)
		} else { // nearly all are taken
			p = (p + 1) % portRange
		}
		if t.tryBind(so, uint16(portFirst+p)) == 0 {
			return 0
		}
	}
	return syscall.EADDRNOTAVAIL
}

// tryBind gives so the port if BSD's rule allows it. Two sockets may share a port if their
// addresses do not overlap. A socket with SO_REUSEADDR may share it also with connections, such as
// those that a listener of the port has accepted, and with TIME_WAIT records. Sockets that all have
// SO_REUSEPORT may always share it. A connection that took the port from its destination's set does
// not count.
func (t *portTable) tryBind(so *Socket, port uint16) syscall.Errno {
	s := t.shard(port)
	s.mu.Lock()
	defer s.mu.Unlock()
	mine := so.options
	for p := s.first(port); p != nil; p = s.after(p) {
		if !so.inp.overlaps(p) {
			continue
		}
		if p.so == nil || p.ephemeral {
			if mine&SO_REUSEADDR == 0 && p.so == nil {
				return syscall.EADDRINUSE
			}
			continue
		}
		connected := p.fport != 0
		switch {
		case mine.reuse()&p.bindOpts&reusePort != 0:
		case t.dgram && mine.reuse()&p.bindOpts&reuseAddr != 0: // as on Linux; the last one gets what is for one socket
		case connected && mine&SO_REUSEADDR != 0 && !t.dgram:
		default:
			return syscall.EADDRINUSE
		}
	}
	so.inp.lport = port
	so.inp.bindOpts = mine.reuse()
	s.link(&so.inp)
	t.gen.Add(1)
	return 0
}

// The options that decide whether two sockets may share a port, in one byte.
const (
	reuseAddr = uint8(SO_REUSEADDR)
	reusePort = uint8(SO_REUSEPORT >> 8)
)

// reuse returns those of the options that decide whether two sockets may share a port.
func (o soOptions) reuse() uint8 { return uint8(o)&reuseAddr | uint8(o>>8)&reusePort }

// boundTo returns a socket without a peer that is bound to a local address, or nil.
func (t *portTable) boundTo(laddr in6Addr, port uint16) *Socket {
	s := t.shard(port)
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := s.users[port]; p != nil; p = p.portNext {
		if p.so != nil && p.takes(&laddr) {
			return p.so
		}
	}
	return nil
}

// rename sets the addresses of inp. The lock of the port guards them, as tryBind reads the
// addresses of all users of a port.
func (t *portTable) rename(inp *inpcb, laddr, faddr in6Addr, fport uint16) {
	if inp.lport != 0 {
		s := t.shard(inp.lport)
		s.mu.Lock()
		defer s.mu.Unlock()
		if inp.bound { // its list depends on whether it has a peer
			s.unlink(inp)
			defer s.link(inp)
		}
	}
	inp.laddr, inp.faddr, inp.fport = laddr, faddr, fport
	t.gen.Add(1)
}

// list returns the lists, by port, that inp belongs in.
func (s *portShard) list(inp *inpcb) map[uint16]*inpcb {
	if inp.fport == 0 {
		return s.users
	}
	return s.conns
}

// first returns the first user of a port, or nil. The shard is locked.
func (s *portShard) first(port uint16) *inpcb {
	if p := s.users[port]; p != nil {
		return p
	}
	return s.conns[port]
}

// after returns the user of the port that follows p, or nil. The shard is locked.
func (s *portShard) after(p *inpcb) *inpcb {
	if p.portNext == nil && p.fport == 0 {
		return s.conns[p.lport]
	}
	return p.portNext
}

// link enters inp among the users of its port. The shard is locked.
func (s *portShard) link(inp *inpcb) {
	if s.users == nil {
		s.users, s.conns = map[uint16]*inpcb{}, map[uint16]*inpcb{}
	}
	list := s.list(inp)
	head := list[inp.lport]
	inp.portNext, inp.portPrev, inp.bound = head, nil, true
	if head != nil {
		head.portPrev = inp
	}
	list[inp.lport] = inp
}

// share enters inp, an accepted connection or a TIME_WAIT record, among the users of its port.
func (t *portTable) share(inp *inpcb) {
	s := t.shard(inp.lport)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.link(inp)
}

// unlink takes inp out of the users of its port.
func (t *portTable) unlink(inp *inpcb) {
	s := t.shard(inp.lport)
	s.mu.Lock()
	defer s.mu.Unlock()
	if inp.bound {
		s.unlink(inp)
	}
}

// unlink takes inp out of its list. The shard is locked.
func (s *portShard) unlink(inp *inpcb) {
	list := s.list(inp)
	inp.bound = false
	if inp.portPrev != nil {
		inp.portPrev.portNext = inp.portNext
	} else if inp.portNext != nil {
		list[inp.lport] = inp.portNext
	} else {
		delete(list, inp.lport)
	}
	if inp.portNext != nil {
		inp.portNext.portPrev = inp.portPrev
	}
	inp.portNext, inp.portPrev = nil, nil
}

// release gives up the socket's port, if it has one.
func (t *portTable) release(so *Socket) {
	inp := &so.inp
	if inp.ephemeral {
		inp.ephemeral = false
		t.giveBack(inp)
	}
	t.gen.Add(1)
	if inp.bound {
		t.unlink(inp)
	}
}

func (t *portTable) destShard(d *dest) *destShard {
	a := tuple{d.laddr, d.faddr, 0, d.fport}
	return &t.dests[a.hash(t.k.seed.hash)%64]
}

// ephemeral chooses a local port for a connection whose other addresses are set, and enters the
// connection.
func (t *portTable) ephemeral(so *Socket, now int64) syscall.Errno {
	inp := &so.inp
	d := dest{inp.laddr, inp.faddr, inp.fport}
	// A port that is free in the destination's set may still be taken: by a socket that is bound to
	// it and connected to the same destination, by a connection that a listener has accepted, or by
	// a TIME_WAIT record.
	for range portRange {
		port, ok := t.take(&d)
		if !ok {
			return syscall.EADDRNOTAVAIL
		}
		inp.lport = port
		inp.ephemeral = true
		if t.k.pcbInsert(inp, now) == 0 {
			return 0
		}
		inp.ephemeral = false
		t.retry(inp)
		inp.lport = 0
	}
	return syscall.EADDRNOTAVAIL
}

// take takes the next free port of a destination.
func (t *portTable) take(d *dest) (uint16, bool) {
	ds := t.destShard(d)
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if ds.sets == nil {
		ds.sets = map[dest]*portSet{}
	}
	set := ds.sets[*d]
	if set == nil {
		set = &portSet{next: uint32(prf(t.k.seed.port, &tuple{d.laddr, d.faddr, 0, d.fport}, 0))}
		ds.sets[*d] = set
	}
	return set.take()
}

// giveBack gives a port back to its destination's set, and forgets the set if it is empty and there
// are many.
func (t *portTable) giveBack(inp *inpcb) {
	d := dest{inp.laddr, inp.faddr, inp.fport}
	ds := t.destShard(&d)
	ds.mu.Lock()
	defer ds.mu.Unlock()
	set := ds.sets[d]
	set.giveBack(inp.lport)
	if len(ds.sets) > maxDests && set.n == 0 {
		delete(ds.sets, d)
	}
}

// retry gives back a port that could not be used, before another is taken. The set stays, so that
// its counter goes on.
func (t *portTable) retry(inp *inpcb) {
	d := dest{inp.laddr, inp.faddr, inp.fport}
	ds := t.destShard(&d)
	ds.mu.Lock()
	defer ds.mu.Unlock()
	ds.sets[d].giveBack(inp.lport)
}

// maxDests is how many destinations keep their counter when they have no connection any more.
const maxDests = 1024

// take returns the next free port.
func (s *portSet) take() (uint16, bool) {
	if s.n >= portRange {
		return 0, false
	}
	if s.many == nil && s.n >= fewPorts {
		s.many = new([(portRange + 63) / 64]uint64)
		for _, p := range s.few {
			s.mark(uint32(p) - portFirst)
		}
		s.few = nil
	}
	i := s.next % portRange
	if s.many == nil {
		for s.inFew(uint16(portFirst + i)) {
			i = (i + 1) % portRange
		}
		s.few = append(s.few, uint16(portFirst+i))
	} else {
		i = s.free(i)
		s.mark(i)
	}
	s.n++
	s.next = i + 1
	return uint16(portFirst + i), true
}

func (s *portSet) inFew(p uint16) bool {
	for _, q := range s.few {
		if p == q {
			return true
		}
	}
	return false
}

func (s *portSet) mark(i uint32) { s.many[i/64] |= 1 << (i % 64) }

// free returns the first free index from i on, and goes on at 0. There must be one.
func (s *portSet) free(i uint32) uint32 {
	w := i / 64
	// The ports below i count as taken.
	busy := s.many[w] | (1<<(i%64) - 1)
	for {
		if n := uint32(bits.TrailingZeros64(^busy)); n < 64 && w*64+n < portRange {
			return w*64 + n
		}
		if w++; int(w) == len(s.many) {
			w = 0
		}
		busy = s.many[w]
	}
}

// giveBack makes a port of the set free again.
func (s *portSet) giveBack(p uint16) {
	s.n--
	if s.many == nil {
		for i, q := range s.few {
			if p == q {
				s.few[i] = s.few[len(s.few)-1]
				s.few = s.few[:len(s.few)-1]
				return
			}
		}
		return
	}
	i := uint32(p) - portFirst
	s.many[i/64] &^= 1 << (i % 64)
	if s.n == 0 {
		s.many = nil // so that an idle destination takes little memory
	}
}
