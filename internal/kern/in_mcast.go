package kern

import (
	"net/netip"
	"slices"
	"syscall"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// Multicast and broadcast: RFC 1112, RFC 3493, 5.2, and RFC 919. The links of this stack have no
// multicast routers on them that would have to be told of members, so there is no IGMP and no MLD:
// packets to a group go out of an interface, and what arrives for a group is for its members.

// An ipMoptions holds a socket's options of multicast: BSD's struct ip_moptions.
type ipMoptions struct {
	ifp    *Ifnet // IP_MULTICAST_IF, IPV6_MULTICAST_IF: where packets to groups go; nil: the route decides
	ttl    uint8  // IP_MULTICAST_TTL, IPV6_MULTICAST_HOPS
	loop   bool   // IP_MULTICAST_LOOP, IPV6_MULTICAST_LOOP: this stack's members get what is sent
	groups []membership
}

// A membership is a group that a socket has joined on an interface.
type membership struct {
	group netip.Addr
	ifp   *Ifnet
}

// maxMemberships is how many groups a socket can join: FreeBSD's IP_MAX_MEMBERSHIPS.
const maxMemberships = 4095

// defaultMoptions holds for sockets that have set no option: RFC 1112, 6.1, has the "time-to-live"
// of one for them, and copies for this host.
var defaultMoptions = ipMoptions{ttl: 1, loop: true}

// moptions returns the options of multicast.
func (dg *dgram) moptions() *ipMoptions {
	if dg.mo == nil {
		return &defaultMoptions
	}
	return dg.mo
}

// setMoptions returns the options of multicast, to be changed.
func (dg *dgram) setMoptions() *ipMoptions {
	if dg.mo == nil {
		mo := defaultMoptions
		dg.mo = &mo
	}
	dg.route = dgroute{}
	return dg.mo
}

// mcastIf returns the interface that a request of multicast means. If the user has named none, it
// is the route's to the group, or the first that is no loopback.
func (k *Kernel) mcastIf(group netip.Addr, ifp *Ifnet) *Ifnet {
	if ifp != nil {
		return ifp
	}
	if ifp, _, errno := k.rtalloc(group, netip.Addr{}); errno == 0 {
		return ifp
	}
	return k.several(group)
}

// several returns the first interface that is up, is no loopback, and has an address of the family
// of dst, which stands for several hosts; the loopback if there is no other.
func (k *Kernel) several(dst netip.Addr) *Ifnet {
	var lo *Ifnet
	for _, ifp := range *k.ifs.Load() {
		switch {
		case !ifp.Up() || !ifp.addrFor(dst).IsValid():
		case ifp.loopback:
			lo = ifp
		case dst.IsMulticast() || ifp.broadcast(dst):
			return ifp
		}
	}
	return lo
}

// Joingroup makes the socket a member of a multicast group on an interface, or, if ifp is nil, on
// that which the stack sends packets to the group out of: IP_ADD_MEMBERSHIP and IPV6_JOIN_GROUP. It
// fails with EINVAL if there is no such group or the socket is of another family, with EADDRINUSE
// if it is a member already, with ENODEV if there is no interface, with ENOBUFS if it is in too
// many groups, with EBADF if it is closed, and with EOPNOTSUPP if it is no datagram socket.
func (so *Socket) Joingroup(group netip.Addr, ifp *Ifnet) syscall.Errno {
	so.lock()
	defer so.unlock()
	e, errno := so.groupOn(group, ifp)
	if errno != 0 {
		return errno
	}
	mo := so.dg.setMoptions()
	switch {
	case slices.Contains(mo.groups, e):
		return syscall.EADDRINUSE
	case len(mo.groups) >= maxMemberships:
		return syscall.ENOBUFS // as on Linux; BSD returns ETOOMANYREFS, which WASI does not have
	}
	mo.groups = append(mo.groups, e)
	e.ifp.join(in6(e.group))
	return 0
}

// Leavegroup ends a membership: IP_DROP_MEMBERSHIP and IPV6_LEAVE_GROUP. It fails with
// EADDRNOTAVAIL if the socket is no member, and else as Joingroup.
func (so *Socket) Leavegroup(group netip.Addr, ifp *Ifnet) syscall.Errno {
	so.lock()
	defer so.unlock()
	e, errno := so.groupOn(group, ifp)
	if errno != 0 {
		return errno
	}
	i := slices.Index(so.dg.moptions().groups, e)
	if i < 0 {
		return syscall.EADDRNOTAVAIL
	}
	so.dg.mo.groups = slices.Delete(so.dg.mo.groups, i, i+1)
	e.ifp.leave(in6(e.group))
	return 0
}

// leaveAll ends the memberships of a socket that is being closed: BSD's inp_freemoptions. The
// socket is locked.
func (dg *dgram) leaveAll() {
	if dg.mo != nil {
		for _, e := range dg.mo.groups {
			e.ifp.leave(in6(e.group))
		}
		dg.mo = nil
	}
}

// groupOn returns the membership that a request means. The socket is locked.
func (so *Socket) groupOn(group netip.Addr, ifp *Ifnet) (e membership, errno syscall.Errno) {
	group = group.Unmap()
	switch {
	case so.closed():
		return e, syscall.EBADF
	case so.dg == nil:
		return e, syscall.EOPNOTSUPP
	case so.k.away(so.k.now()):
		return e, EXDEV
	case !group.IsMulticast(), group.Is6() && so.proto.domain != AF_INET6:
		return e, syscall.EINVAL
	}
	if group.Zone() != "" && ifp == nil {
		if ifp, group, errno = so.k.inScope(group); errno != 0 {
			return e, errno
		}
	}
	group = group.WithZone("")
	if ifp = so.k.mcastIf(group, ifp); ifp == nil {
		return e, syscall.ENODEV
	}
	return membership{group, ifp}, 0
}

// Setmcastif chooses the interface out of which packets to groups go, or, if ifp is nil, leaves the
// choice to the route: IP_MULTICAST_IF and IPV6_MULTICAST_IF. It fails with EBADF if the socket is
// closed, and with EOPNOTSUPP if it is no datagram socket.
func (so *Socket) Setmcastif(ifp *Ifnet) syscall.Errno {
	so.lock()
	defer so.unlock()
	switch {
	case so.closed():
		return syscall.EBADF
	case so.dg == nil:
		return syscall.EOPNOTSUPP
	}
	so.dg.setMoptions().ifp = ifp
	return 0
}

// mcastRoute finds the way of a datagram to several hosts: the interface that the user has chosen,
// or that the zone names, or the route, or the first interface that there is. The socket is locked.
func (so *Socket) mcastRoute(dst, from netip.Addr, way *Ifnet) (ifp *Ifnet, src netip.Addr, errno syscall.Errno) {
	k := so.k
	if ifp = way; ifp == nil && dst.IsMulticast() {
		ifp = so.dg.moptions().ifp
	}
	if ifp == nil && from.IsValid() {
		if own := k.ifaWithAddr(from); own != nil { // as BSD, which looks for the source's interface
			ifp = own
		}
	}
	if ifp == nil {
		if ifp, src, errno = k.rtalloc(dst, from); errno == 0 {
			return ifp, src, 0
		}
		if ifp = k.several(dst); ifp == nil {
			return nil, src, syscall.ENETUNREACH
		}
	}
	if !ifp.Up() {
		return nil, src, syscall.ENETDOWN
	}
	if src = ifp.addrFor(dst); !src.IsValid() {
		return nil, src, syscall.EADDRNOTAVAIL
	}
	return ifp, src, 0
}

// ipMloopback gives this stack's members of a group, or its sockets that take broadcasts, a copy of
// a datagram that goes out of ifp: BSD's ip_mloopback. m begins with the UDP header.
func (so *Socket) ipMloopback(m *mbuf.Mbuf, o ipOut) {
	lo := so.k.lo0
	if lo == nil || o.ifp.loopback {
		return
	}
	h := so.k.pool.Gethdr()
	h.Pkt.Len, h.Pkt.Flow, h.Pkt.Rcvif = m.Pkt.Len, m.Pkt.Flow, o.ifp.index
	h.Extend(copy(h.Room(), m.Bytes()[:wire.UDPLen]))
	h.SetNext(mbuf.Copym(m, wire.UDPLen, m.Pkt.Len-wire.UDPLen))
	o.ifp = lo
	q, _ := so.k.ipOutput(h, &o)
	so.drain(q)
}

// wantsGroup reports whether the socket takes datagrams to t.laddr that come from an interface: a
// broadcast, or a group that it has joined there. The socket is locked.
func (so *Socket) wantsGroup(t *tuple, ifp *Ifnet) bool {
	g := t.laddr.addr()
	return !g.IsMulticast() || slices.Contains(so.dg.moptions().groups, membership{g, ifp})
}
