package kern

import (
	"net/netip"
	"sync"
	"syscall"

	"bsdnet/internal/kern/wire"
)

// An inpcb is a protocol control block: the addresses of a socket, or of a TIME_WAIT record, and
// its places in the tables (4.4BSD's struct inpcb). Each field says what guards it: (c) constant
// once the block is in the table; (b) the lock of its bucket; (s) the lock of the socket; (p) the
// lock of the port.
type inpcb struct {
	tuple         // (c) addresses and ports
	hash  uint32  // (b)
	so    *Socket // (c) nil: the block is a record's
	tw    *tcptw  // (c) the record; (s) of a socket: the record that has replaced it, while it has a user

	hashNext *inpcb // (b)
	hashed   bool   // (b) in the table of connections
	dead     bool   // (b) detached; a goroutine that has found it looks again

	bound              bool   // (p)
	ephemeral          bool   // (s) the port was taken from the destination's set
	bindOpts           uint8  // (p) those of the options that bind saw: see reuse
	vflag              uint8  // (p) the families that it may have: see families
	tos, ttl           uint8  // (s) traffic class and hop limit, if the connection is over IPv6
	portNext, portPrev *inpcb // (p) others of the same local port and list
	ifp                *Ifnet // (s) the way to the peer: inp_route; (c) of a listener: its link-local address's zone
}

// overLo reports whether the peer is on this stack, over the loopback.
func (inp *inpcb) overLo() bool { return inp.ifp != nil && inp.ifp.loopback }

// Bits of vflag, which BSD calls INP_IPV4 and INP_IPV6. A socket of AF_INET has the first. One of
// AF_INET6 has both, or only the second if it is IPV6_V6ONLY.
const (
	inpIPv4 = 1 << iota
	inpIPv6
)

// families returns the families of the addresses that inp stands for: that of its local address, or
// all of vflag's if it has none. The unspecified address of a socket for both families is the zero
// in6Addr.
func (inp *inpcb) families() uint8 {
	if inp.laddr == (in6Addr{}) {
		return inp.vflag
	}
	return inp.laddr.family()
}

// takes reports whether inp has a local address, or stands for any address of its family.
func (inp *inpcb) takes(laddr *in6Addr) bool {
	return inp.laddr == *laddr || inp.laddr.unspecified() && inp.families()&laddr.family() != 0
}

// overlaps reports whether there is a local address that both inp and o have, so that they cannot
// both listen on a port.
func (inp *inpcb) overlaps(o *inpcb) bool {
	if inp.laddr.unspecified() && o.laddr.unspecified() {
		return inp.families()&o.families() != 0
	}
	return inp.takes(&o.laddr) || o.takes(&inp.laddr)
}

// pcbShards is how many locks the tables of connections have.
const pcbShards = 64

// A pcbTable finds connections by their addresses. It is BSD's tcb list, as hash tables that grow.
type pcbTable struct {
	key    [2]uint64
	shards [pcbShards]pcbShard
	listen [pcbShards]listenShard
}

type pcbShard struct {
	mu      sync.Mutex // a leaf
	buckets []*inpcb
	n       int
	_       [24]byte
}

type listenShard struct {
	mu    sync.Mutex // a leaf
	ports map[uint16][]*inpcb
}

func (t *pcbTable) init(key [2]uint64) { t.key = key }

// inPcblookup finds the control block that a segment is for: that of the connection, or TIME_WAIT
// record, with exactly these addresses, or else that of a listener for the local address: BSD's
// in_pcblookup with INPLOOKUP_WILDCARD. If a handshake with these addresses is under way, the
// listener that began it gets the segment, even if another socket listens on a more specific
// address by now.
func (k *Kernel) inPcblookup(a *tuple, ifp *Ifnet) *inpcb {
	if inp := k.pcbs.lookup(a); inp != nil {
		return inp
	}
	if head := k.syncache.headOf(a); head != nil {
		return &head.inp
	}
	return k.pcbs.lookupListener(a.laddr, a.lport, ifp)
}

// lookup finds the connection, or TIME_WAIT record, with exactly these addresses: the first part of
// BSD's in_pcblookup.
func (t *pcbTable) lookup(a *tuple) *inpcb {
	h := uint32(a.hash(t.key))
	s := &t.shards[h%pcbShards]
	s.mu.Lock()
	inp := s.find(a, h)
	s.mu.Unlock()
	return inp
}

// bucket returns the beginning of the chain for a hash. It uses higher bits, as the lowest have
// chosen the shard.
func (s *pcbShard) bucket(h uint32) **inpcb { return &s.buckets[h>>8&uint32(len(s.buckets)-1)] }

func (s *pcbShard) find(a *tuple, h uint32) *inpcb {
	if len(s.buckets) == 0 {
		return nil
	}
	for p := *s.bucket(h); p != nil; p = p.hashNext {
		if p.hash == h && p.tuple == *a {
			return p
		}
	}
	return nil
}

// insert enters inp. It returns EADDRINUSE if its addresses are taken, unless replace, which may be
// nil, has them: inp takes the place of replace.
func (t *pcbTable) insert(inp *inpcb, replace *inpcb) syscall.Errno {
	h := uint32(inp.tuple.hash(t.key))
	s := &t.shards[h%pcbShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.find(&inp.tuple, h); old != nil {
		if old != replace {
			return syscall.EADDRINUSE
		}
		s.unlink(old)
	}
	if s.n >= 2*len(s.buckets) {
		s.grow()
	}
	inp.hash, inp.hashed, inp.dead = h, true, false
	b := s.bucket(h)
	inp.hashNext = *b
	*b = inp
	s.n++
	return 0
}

func (s *pcbShard) grow() {
	old := s.buckets
	s.buckets = make([]*inpcb, max(2*len(old), 4))
	for _, p := range old {
		for p != nil {
			n := p.hashNext
			b := s.bucket(p.hash)
			p.hashNext = *b
			*b = p
			p = n
		}
	}
}

func (s *pcbShard) unlink(inp *inpcb) {
	for b := s.bucket(inp.hash); *b != nil; b = &(*b).hashNext {
		if *b == inp {
			*b = inp.hashNext
			inp.hashNext, inp.hashed, inp.dead = nil, false, true
			s.n--
			return
		}
	}
}

// remove takes inp out of the table, if it is there, and marks it dead.
func (t *pcbTable) remove(inp *inpcb) {
	s := &t.shards[inp.hash%pcbShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if inp.hashed {
		s.unlink(inp)
	}
	inp.dead = true
}

// all calls f for each connection and record. It holds no lock while f runs, so f may see one that
// has ended.
func (t *pcbTable) all(f func(*inpcb)) {
	var list []*inpcb
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for _, p := range s.buckets {
			for ; p != nil; p = p.hashNext {
				list = append(list, p)
			}
		}
		s.mu.Unlock()
	}
	for _, p := range list {
		f(p)
	}
}

// addListener enters a listener in the table of listeners.
func (t *pcbTable) addListener(inp *inpcb) {
	s := &t.listen[inp.lport%pcbShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ports == nil {
		s.ports = map[uint16][]*inpcb{}
	}
	s.ports[inp.lport] = append(s.ports[inp.lport], inp)
}

// delListener takes a listener out of it.
func (t *pcbTable) delListener(inp *inpcb) {
	s := &t.listen[inp.lport%pcbShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	var rest []*inpcb
	for _, p := range s.ports[inp.lport] {
		if p != inp {
			rest = append(rest, p)
		}
	}
	if rest == nil {
		delete(s.ports, inp.lport)
	} else {
		s.ports[inp.lport] = rest
	}
	inp.dead = true
}

// lookupListener finds the socket that listens on a local address and port: the second part of
// BSD's in_pcblookup. A listener that is bound to the address itself goes before one that takes any
// address of the family, and that before one that takes any address of both.
func (t *pcbTable) lookupListener(laddr in6Addr, lport uint16, ifp *Ifnet) *inpcb {
	s := &t.listen[lport%pcbShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	var wild, mapped *inpcb // local_wild and local_wild_mapped in FreeBSD's in_pcblookup
	for _, p := range s.ports[lport] {
		switch {
		case p.laddr == laddr:
			// Several interfaces may have the same link-local address.
			if p.ifp == nil || p.ifp == ifp || ifp.loopback {
				return p
			}
		case !p.takes(&laddr):
		case p.families() == inpIPv4|inpIPv6:
			mapped = p
		default:
			wild = p
		}
	}
	if wild == nil {
		return mapped
	}
	return wild
}

// inPcbbind gives a socket a local address and port: BSD's in_pcbbind and in6_pcbbind. If lport is
// 0, it chooses a free port. The socket is locked.
func (so *Socket) inPcbbind(laddr netip.Addr, lport uint16) syscall.Errno {
	k, inp := so.k, &so.inp
	k.chainAt("in_pcbbind")
	if inp.lport != 0 || !inp.laddr.unspecified() {
		return syscall.EINVAL
	}
	if !laddr.IsValid() {
		laddr = so.inAny()
	}
	if errno := so.inFamily(laddr); errno != 0 {
		return errno
	}
	if laddr.Is4In6() && inp.vflag&inpIPv4 == 0 {
		return syscall.EINVAL
	}
	laddr = laddr.Unmap()
	ifp, laddr, errno := k.inScope(laddr)
	if errno != 0 {
		return errno
	}
	if !laddr.IsUnspecified() && !(so.dg != nil && k.toSeveral(laddr)) {
		if ifp == nil && k.ifaWithAddr(laddr) == nil || ifp != nil && !ifp.owns(laddr) {
			return syscall.EADDRNOTAVAIL
		}
	}
	inp.laddr, inp.ifp = in6(laddr), ifp
	if errno = so.ports().bind(so, lport); errno != 0 {
		inp.laddr, inp.ifp = in6Addr{}, nil
	}
	return errno
}

// toSeveral reports whether packets to an address go to several hosts. A datagram socket that is
// bound to such an address receives nothing else.
func (k *Kernel) toSeveral(a netip.Addr) bool {
	if a.IsMulticast() {
		return true
	}
	for _, ifp := range *k.ifs.Load() {
		if ifp.broadcast(a) {
			return true
		}
	}
	return false
}

// inPcbconnect gives a socket its peer, and, if it has none yet, a local address and port: BSD's
// in_pcbconnect and in6_pcbconnect. The socket is locked.
func (so *Socket) inPcbconnect(faddr netip.Addr, fport uint16, now int64) syscall.Errno {
	k, inp := so.k, &so.inp
	if !faddr.IsValid() || fport == 0 {
		return syscall.EADDRNOTAVAIL
	}
	ifp, src, faddr, errno := so.inPcbladdr(faddr)
	if errno != 0 {
		return errno
	}
	old, way, laddr := inp.laddr, inp.ifp, in6(src)
	if !old.unspecified() {
		laddr = old
	}
	k.ports.rename(inp, laddr, in6(faddr), fport)
	inp.ifp = ifp
	if inp.lport != 0 {
		errno = k.pcbInsert(inp, now)
	} else {
		errno = k.ports.ephemeral(so, now)
	}
	if errno != 0 {
		k.ports.rename(inp, old, in6Addr{}, 0)
		inp.ifp = way
	}
	return errno
}

// inPcbdetach takes a socket's addresses out of the tables: BSD's in_pcbdetach. The socket keeps
// them, for calls that ask what they were. The socket is locked.
func (so *Socket) inPcbdetach() {
	k, inp := so.k, &so.inp
	k.chainAt("in_pcbdetach")
	if inp.hashed {
		so.pcbs().remove(inp)
	}
	so.ports().release(so)
	so.sofree()
}

// pcbs returns the table of connections that the socket's protocol has.
func (so *Socket) pcbs() *pcbTable {
	if so.dg != nil {
		return &so.k.udb
	}
	return &so.k.pcbs
}

// ports returns the table of ports that the socket's protocol has.
func (so *Socket) ports() *portTable {
	switch {
	case so.dg == nil:
		return &so.k.ports
	case so.proto.proto == wire.ProtoUDP:
		return &so.k.udpPorts
	}
	return &so.k.icmpIDs
}

// inSetsockaddr returns the local address, the unspecified one and port 0 if there is none: BSD's
// in_setsockaddr. The socket is locked.
func (so *Socket) inSetsockaddr() netip.AddrPort {
	a := so.inp.laddr.addr()
	if !a.IsValid() {
		a = so.inAny()
	}
	return netip.AddrPortFrom(so.zoned(a), so.inp.lport)
}

// inSetpeeraddr returns the peer's address, not valid if there is none: BSD's in_setpeeraddr. The
// socket is locked.
func (so *Socket) inSetpeeraddr() netip.AddrPort {
	so.k.chainAt("in_setpeeraddr")
	return netip.AddrPortFrom(so.zoned(so.inp.faddr.addr()), so.inp.fport)
}

// pcbInsert enters a connection that is being opened. A TIME_WAIT record with the same addresses
// gives way once the timestamp clock has passed the record's last value: then PAWS can tell each
// old segment that is still on its way from those of the new connection (RFC 6191, from the active
// side).
func (k *Kernel) pcbInsert(inp *inpcb, now int64) syscall.Errno {
	old := k.pcbs.lookup(&inp.tuple)
	if old == nil || old.so != nil || !old.tw.reusable(now) {
		return k.pcbs.insert(inp, nil)
	}
	k.tw.discard(old.tw)
	k.Stats.TCP.Twreuse.Inc()
	return k.pcbs.insert(inp, nil)
}
