package kern

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
	"sync/atomic"
	"syscall"
)

// An rtentry is a route: packets to dst leave by ifp.
type rtentry struct {
	dst netip.Prefix
	ifp *Ifnet

	// src is the source address that packets to dst use: the interface's address in dst, if dst is
	// its own network. If src is not valid, the interface's addresses decide.
	src netip.Addr
}

// rtable is the routing table: for each family a binary trie of prefixes, as BSD's radix tree. Each
// node has routes or two children. A change copies the nodes on the way to the prefix and replaces
// the root, so readers take no lock. The caller makes one change at a time.
type rtable struct {
	root4, root6 atomic.Pointer[rnode]
}

// root returns the root of the trie of an address's family.
func (rt *rtable) root(a netip.Addr) *atomic.Pointer[rnode] {
	if a.Is6() {
		return &rt.root6
	}
	return &rt.root4
}

// A rnode is a prefix that has routes, or at which two other prefixes part. It never changes.
type rnode struct {
	key    rtkey // the prefix; bits behind its length are 0
	bits   int
	routes []rtentry // several if interfaces are in one network, in the order in which they were attached
	child  [2]*rnode // prefixes that begin with this one, by the bit after it
}

// A rtkey is an address in the form of the tries. Bits behind those of an IPv4 address are 0.
type rtkey struct{ hi, lo uint64 }

func addrKey(a netip.Addr) rtkey {
	if a.Is6() {
		b := a.As16()
		return rtkey{binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:])}
	}
	b := a.As4()
	return rtkey{hi: uint64(binary.BigEndian.Uint32(b[:])) << 32}
}

// bit returns bit i of an address, from the left.
func (k rtkey) bit(i int) int {
	if i < 64 {
		return int(k.hi >> (63 - i) & 1)
	}
	return int(k.lo >> (127 - i) & 1)
}

// common returns how many bits two addresses have in common, from the left.
func (k rtkey) common(o rtkey) int {
	if k.hi != o.hi {
		return bits.LeadingZeros64(k.hi ^ o.hi)
	}
	return 64 + bits.LeadingZeros64(k.lo^o.lo)
}

// prefix returns the address with its first n bits only.
func (k rtkey) prefix(n int) rtkey {
	if n <= 64 {
		return rtkey{hi: k.hi &^ (1<<(64-n) - 1)}
	}
	return rtkey{k.hi, k.lo &^ (1<<(128-n) - 1)}
}

// contains reports whether an address begins with the node's prefix.
func (n *rnode) contains(key rtkey) bool { return key.common(n.key) >= n.bits }

// lookup makes rtalloc's choice among the routes to the address of key, which is dst, the longest
// prefix first.
func (n *rnode) lookup(key rtkey, dst, from netip.Addr) (ifp *Ifnet, src netip.Addr) {
	if n == nil || !n.contains(key) {
		return nil, netip.Addr{}
	}
	if n.bits < 128 {
		if ifp, src = n.child[key.bit(n.bits)].lookup(key, dst, from); ifp != nil {
			return ifp, src
		}
	}
	return choose(n.routes, dst, from)
}

// with returns the trie below n with one more route.
func (n *rnode) with(key rtkey, plen int, e rtentry) *rnode {
	if n == nil {
		return &rnode{key: key, bits: plen, routes: []rtentry{e}}
	}
	common := min(key.common(n.key), plen, n.bits)
	c := *n
	switch {
	case common == plen && common == n.bits:
		c.routes = append(slices.Clone(n.routes), e)
		return &c
	case common == n.bits:
		b := key.bit(common)
		c.child[b] = n.child[b].with(key, plen, e)
		return &c
	}
	parent := &rnode{key: key.prefix(common), bits: common}
	parent.child[n.key.bit(common)] = n
	if common == plen {
		parent.routes = []rtentry{e}
	} else {
		parent.child[key.bit(common)] = &rnode{key: key, bits: plen, routes: []rtentry{e}}
	}
	return parent
}

// find returns the node of a prefix that has routes, or nil.
func (n *rnode) find(key rtkey, plen int) *rnode {
	for n != nil && n.bits < plen && n.contains(key) {
		n = n.child[key.bit(n.bits)]
	}
	if n == nil || n.bits != plen || n.key != key || len(n.routes) == 0 {
		return nil
	}
	return n
}

// without returns the trie below n without the routes of an interface: all of them if plen is
// negative, or else those to the prefix of key and plen.
func (n *rnode) without(ifp *Ifnet, key rtkey, plen int) *rnode {
	if n == nil {
		return nil
	}
	c := *n
	of := func(e rtentry) bool { return e.ifp == ifp }
	switch {
	case plen < 0:
		c.child[0], c.child[1] = n.child[0].without(ifp, key, plen), n.child[1].without(ifp, key, plen)
		if slices.ContainsFunc(n.routes, of) {
			c.routes = slices.DeleteFunc(slices.Clone(n.routes), of)
		}
	case n.bits == plen && n.key == key:
		c.routes = slices.DeleteFunc(slices.Clone(n.routes), of)
	case n.bits < plen && n.contains(key):
		b := key.bit(n.bits)
		c.child[b] = n.child[b].without(ifp, key, plen)
	default:
		return n
	}
	switch {
	case len(c.routes) > 0 || c.child[0] != nil && c.child[1] != nil:
		return &c
	case c.child[0] != nil:
		return c.child[0]
	}
	return c.child[1]
}

// appendTo appends all routes to list, sorted by address and then by length.
func (n *rnode) appendTo(list []rtentry) []rtentry {
	if n == nil {
		return list
	}
	list = append(list, n.routes...)
	return n.child[1].appendTo(n.child[0].appendTo(list))
}

// list returns all routes, sorted by family, by address and then by length.
func (rt *rtable) list() []rtentry {
	return rt.root6.Load().appendTo(rt.root4.Load().appendTo(nil))
}

// rtadd adds a route: BSD's rtrequest(RTM_ADD). It fails with EEXIST if there is a route to the
// prefix, except that each of several interfaces in one network may have its own.
func (rt *rtable) rtadd(e rtentry) error {
	e.dst = e.dst.Masked()
	key, plen := addrKey(e.dst.Addr()), e.dst.Bits()
	at := rt.root(e.dst.Addr())
	root := at.Load()
	if n := root.find(key, plen); n != nil {
		if !e.src.IsValid() || slices.ContainsFunc(n.routes, func(o rtentry) bool { return o.ifp == e.ifp }) {
			return syscall.EEXIST
		}
	}
	at.Store(root.with(key, plen, e))
	return nil
}

// rtdelete removes an interface's route to a prefix: BSD's rtrequest(RTM_DELETE). It fails with
// ESRCH if there is none.
func (rt *rtable) rtdelete(dst netip.Prefix, ifp *Ifnet) error {
	key, plen := addrKey(dst.Masked().Addr()), dst.Bits()
	at := rt.root(dst.Addr())
	root := at.Load()
	n := root.find(key, plen)
	if n == nil || !slices.ContainsFunc(n.routes, func(e rtentry) bool { return e.ifp == ifp }) {
		return syscall.ESRCH
	}
	at.Store(root.without(ifp, key, plen))
	return nil
}

// rtdelif removes the routes of an interface.
func (rt *rtable) rtdelif(ifp *Ifnet) {
	for _, at := range []*atomic.Pointer[rnode]{&rt.root4, &rt.root6} {
		at.Store(at.Load().without(ifp, rtkey{}, -1))
	}
}

// rtalloc finds the interface that leads to dst, the longest prefix first, and the local address
// that such packets bear: BSD's rtalloc and the choice of in_pcbconnect. Packets to one of our own
// addresses go over the loopback. Of several interfaces in one network it takes one that works, and
// has the address from, if it is valid and one of them has; else the first.
func (k *Kernel) rtalloc(dst, from netip.Addr) (ifp *Ifnet, src netip.Addr, errno syscall.Errno) {
	k.chainAt("rtalloc")
	if k.lo0 != nil && k.ifaWithAddr(dst) != nil {
		return k.lo0, dst.WithZone(""), 0
	}
	if needsZone(dst) {
		// RFC 4007, 6: such an address says nothing about the link. Its zone does, or the local
		// address, if there is one.
		if ifp = k.ifByName(dst.Zone()); ifp == nil && dst.Zone() == "" {
			ifp = k.ifaWithAddr(from)
		}
		if ifp != nil {
			src = ifp.addrFor(dst)
		}
	} else {
		ifp, src = k.routes.root(dst).Load().lookup(addrKey(dst), dst, from)
	}
	if !src.IsValid() {
		return nil, netip.Addr{}, syscall.EHOSTUNREACH
	}
	return ifp, src, 0
}

// Source returns the source address of packets to dst if the sender does not choose one, or the
// zero Addr if there is no route: what connect and getsockname would tell.
func (k *Kernel) Source(dst netip.Addr) netip.Addr {
	_, src, errno := k.rtalloc(dst, netip.Addr{})
	if errno != 0 {
		return netip.Addr{}
	}
	return src
}

// A diagnoser is a Link that may know why no packets come back. It has the methods of
// bsdnet.DiagnosingLink.
type diagnoser interface {
	Link
	Diagnose(to netip.Addr) error
}

// Diagnose asks the link over which packets go to dst, from src if it is valid, why no packets come
// back. It returns nil if the link does not know.
func (k *Kernel) Diagnose(src, dst netip.Addr) error {
	ifp, _, errno := k.rtalloc(dst, src)
	if errno != 0 {
		return nil
	}
	if d, ok := ifp.link.(diagnoser); ok {
		return d.Diagnose(dst)
	}
	return nil
}

// Diagnose asks the link of the socket's connection.
func (so *Socket) Diagnose() error {
	local, remote := so.Addrs()
	return so.k.Diagnose(local.Addr(), remote.Addr())
}

// choose makes rtalloc's choice among the routes to one prefix. It passes over interfaces without
// an address.
func choose(routes []rtentry, dst, from netip.Addr) (ifp *Ifnet, src netip.Addr) {
	best := 0
	for i := range routes {
		e := &routes[i]
		a := e.src
		if !a.IsValid() || dst.Is6() { // RFC 6724's rules also see an interface's other addresses in its network
			a = e.ifp.addrFor(dst)
		}
		if !a.IsValid() {
			continue
		}
		rank := 1
		if e.ifp.Up() {
			rank = 2
			if from.IsValid() && e.ifp.owns(from) {
				rank = 3
			}
		}
		if rank > best {
			best, ifp, src = rank, e.ifp, a
		}
	}
	return ifp, src
}

// ifaWithAddr returns the interface that has address a: BSD's ifa_ifwithaddr. All addresses of the
// loopback's prefix are ours.
func (k *Kernel) ifaWithAddr(a netip.Addr) *Ifnet {
	for _, ifp := range *k.ifs.Load() {
		if ifp.owns(a) {
			return ifp
		}
	}
	return nil
}
