package kern

import (
	"net/netip"

	"bsdnet/internal/kern/wire"
)

// Scopes of IPv6 addresses, as the numbers in multicast addresses (RFC 4291, 2.7).
const (
	scopeInterface = 0x1
	scopeLink      = 0x2
	scopeSite      = 0x5
	scopeGlobal    = 0xe
)

// in6Scope returns the scope of an IPv6 address: RFC 6724, 3.1. Unicast addresses that are neither
// link-local nor site-local have global scope, and the loopback's is link-local.
func in6Scope(a netip.Addr) uint8 {
	b := a.As16()
	switch {
	case b[0] == 0xff:
		return b[1] & 15
	case a.IsLinkLocalUnicast(), a.IsLoopback():
		return scopeLink
	case b[0] == 0xfe && b[1]&0xc0 == 0xc0:
		return scopeSite
	}
	return scopeGlobal
}

// needsZone reports whether an address is meant on one link only, so that its zone, or the
// interface, must say on which (RFC 4007, 6).
func needsZone(a netip.Addr) bool {
	return a.Is6() && !a.IsLoopback() && in6Scope(a) <= scopeLink
}

// in6Labels is the default policy table of RFC 6724, 2.1, without its precedences, which order
// destinations. Longer prefixes come first.
var in6Labels = []struct {
	prefix netip.Prefix
	label  uint8
}{
	{netip.MustParsePrefix("::1/128"), 0},
	{netip.MustParsePrefix("::ffff:0:0/96"), 4},
	{netip.MustParsePrefix("::/96"), 3},
	{netip.MustParsePrefix("2001::/32"), 5},
	{netip.MustParsePrefix("2002::/16"), 2},
	{netip.MustParsePrefix("3ffe::/16"), 12},
	{netip.MustParsePrefix("fec0::/10"), 11},
	{netip.MustParsePrefix("fc00::/7"), 13},
}

func in6Label(a netip.Addr) uint8 {
	for i := range in6Labels {
		if in6Labels[i].prefix.Contains(a) {
			return in6Labels[i].label
		}
	}
	return 1
}

// in6Selectsrc chooses the source address of packets that go to dst over the interface: FreeBSD's
// in6_selectsrc, with the rules of RFC 6724, 5. The candidates are the interface's addresses, as
// the RFC recommends, so rule 5 is kept; rules 3, 4 and 7 concern addresses of kinds that a stack
// does not have. in6Selectsrc returns no valid address if the interface has no IPv6.
func (ifp *Ifnet) in6Selectsrc(dst netip.Addr) netip.Addr {
	var best netip.Prefix
	dst = dst.WithZone("")
	for _, p := range ifp.prefixes {
		if p.Addr().Is6() && (!best.IsValid() || in6Better(p, best, dst)) {
			best = p
		}
	}
	return best.Addr()
}

// in6Better reports whether the address of a is better for packets to dst than that of b.
func in6Better(a, b netip.Prefix, dst netip.Addr) bool {
	// "Rule 1: Prefer same address."
	if b.Addr() == dst {
		return false
	}
	if a.Addr() == dst {
		return true
	}
	// "Rule 2: Prefer appropriate scope. If Scope(SA) < Scope(SB): If Scope(SA) < Scope(D), then
	// prefer SB and otherwise prefer SA."
	if sa, sb, d := in6Scope(a.Addr()), in6Scope(b.Addr()), in6Scope(dst); sa != sb {
		return (min(sa, sb) < d) == (sa > sb)
	}
	// "Rule 6: Prefer matching label."
	if la, lb, d := in6Label(a.Addr()), in6Label(b.Addr()), in6Label(dst); (la == d) != (lb == d) {
		return la == d
	}
	// "Rule 8: Use longest matching prefix." It counts up to the length of the source's prefix
	// (2.2).
	d := addrKey(dst)
	common := func(p netip.Prefix) int { return min(addrKey(p.Addr()).common(d), p.Bits()) }
	return common(a) > common(b)
}

// in6Multicast reports whether packets to a multicast address are for this host: to all nodes, to
// all routers if it is one, or to a group that has been joined on the interface.
func (ifp *Ifnet) in6Multicast(a netip.Addr) bool {
	if a == allRoutersLink && ifp.k.ip6forwarding.Load() {
		return true
	}
	return a == allNodesLink || a == allNodesInterface && ifp.loopback || ifp.joined(in6(a))
}

// The groups of all nodes and of all routers (RFC 4291, 2.7.1).
var (
	allNodesInterface = netip.AddrFrom16([16]byte{0: 0xff, 1: scopeInterface, 15: 1})
	allNodesLink      = netip.AddrFrom16([16]byte{0: 0xff, 1: scopeLink, 15: 1})
	allRoutersLink    = netip.AddrFrom16([16]byte{0: 0xff, 1: scopeLink, 15: 2})
)

// in6Acceptable reports whether a packet from a wire has addresses that it can have there:
// ipAcceptable's twin.
func (k *Kernel) in6Acceptable(ifp *Ifnet, ip *wire.IPv6) bool {
	src, dst := ip.Src, ip.Dst
	// RFC 4291, 2.5.3, of ::1: "A packet received on an interface with a destination address of
	// loopback must be dropped." It "must not be used as the source address in IPv6 packets that
	// are sent outside of a single node".
	if src.IsLoopback() || dst.IsLoopback() {
		return ifp.loopback
	}
	// "Multicast addresses must not be used as source addresses in IPv6 packets" (2.7). The
	// unspecified address is the source of a node that has none yet, to which no answer can go
	// (2.5.2). On a wire, a mapped address would be taken for the IPv4 address in it.
	if src.IsMulticast() || src.IsUnspecified() || src.Is4In6() || dst.Is4In6() {
		return false
	}
	if dst.IsMulticast() {
		// "Nodes must not originate a packet to a multicast address whose scop field contains the
		// reserved value 0; if such a packet is received, it must be silently dropped" (2.7).
		// Packets of interface-local scope never leave a node.
		if s := in6Scope(dst); s == 0 || s == scopeInterface && !ifp.loopback {
			return false
		}
	}
	return ifp.loopback || !k.in6Own(ifp, src) // our own has been forged: see ipAcceptable
}

// in6Own reports whether an address, which a packet on ifp bears, is this host's own. A link-local
// one of another link is not.
func (k *Kernel) in6Own(ifp *Ifnet, a netip.Addr) bool {
	if needsZone(a) {
		return ifp.owns(a)
	}
	return k.ifaWithAddr(a) != nil
}

// in6Ours reports whether packets that arrive on ifp for dst are for this host, as ipOurs does.
func (k *Kernel) in6Ours(ifp *Ifnet, dst netip.Addr) bool {
	if dst.IsMulticast() {
		return ifp.in6Multicast(dst)
	}
	return k.in6Own(ifp, dst)
}
