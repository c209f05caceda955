package kern

import (
	"net/netip"
	"syscall"
)

// What addresses of both families mean to a socket: its own family, IPv4 addresses that are mapped
// into IPv6 (RFC 3493, 3.7), and zones (RFC 4007).

// inAny returns the unspecified address of the socket's family.
func (so *Socket) inAny() netip.Addr {
	if so.proto.domain == AF_INET6 {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

// setV6only sets whether a socket of AF_INET6 is for IPv6 only, and not for IPv4 too: IPV6_V6ONLY.
func (inp *inpcb) setV6only(on bool) {
	inp.vflag = inpIPv6
	if !on {
		inp.vflag |= inpIPv4
	}
}

// inFamily returns an error if an address is of another family than the socket: as on Linux,
// EAFNOSUPPORT for an IPv6 address, and EINVAL for an IPv4 address, whose sockaddr is too short.
func (so *Socket) inFamily(a netip.Addr) syscall.Errno {
	switch {
	case so.proto.domain == AF_INET6 && a.Is4():
		return syscall.EINVAL
	case so.proto.domain == AF_INET && !a.Is4():
		return syscall.EAFNOSUPPORT
	}
	return 0
}

// inScope returns an address without its zone, and the interface that the zone of a link-local
// address names: BSD's sa6_embedscope. RFC 4007, 6: the zone of a link-local address is a link.
// Such an address without a zone is EINVAL, as on Linux. Other addresses need no zone, and theirs
// says nothing.
func (k *Kernel) inScope(a netip.Addr) (*Ifnet, netip.Addr, syscall.Errno) {
	if a.Is4() || !a.IsLinkLocalUnicast() && !a.IsLinkLocalMulticast() && !a.IsInterfaceLocalMulticast() {
		return nil, a.WithZone(""), 0
	}
	for _, ifp := range *k.ifs.Load() {
		if a.Zone() == ifp.Name {
			return ifp, a.WithZone(""), 0
		}
	}
	return nil, a, syscall.EINVAL
}

// sockaddr returns an address as a system call does: if the socket is of AF_INET6, an IPv4 address
// is mapped: BSD's in6_v4mapsin6_sockaddr.
func (so *Socket) sockaddr(a netip.AddrPort) netip.AddrPort {
	if so.proto.domain == AF_INET6 && a.Addr().Is4() {
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port())
	}
	return a
}

// zoned returns an address of the socket's, its own or the peer's, as its user sees it: a
// link-local one has a zone, the interface that has the local address.
func (so *Socket) zoned(a netip.Addr) netip.Addr {
	if a.Is4() || !a.IsLinkLocalUnicast() {
		return a
	}
	ifp := so.inp.ifp
	if ifp == nil || ifp.loopback {
		ifp = so.k.ifaWithAddr(so.inp.laddr.addr())
	}
	if ifp == nil {
		return a
	}
	return a.WithZone(ifp.Name)
}

// inPcbladdr finds the way to a peer, and the local address for it: BSD's in_pcbladdr and
// in6_pcbladdr. The addresses that it returns are not mapped and have no zone. The socket is
// locked.
func (so *Socket) inPcbladdr(to netip.Addr) (ifp *Ifnet, src, faddr netip.Addr, errno syscall.Errno) {
	k, inp := so.k, &so.inp
	fail := func(errno syscall.Errno) (*Ifnet, netip.Addr, netip.Addr, syscall.Errno) {
		return nil, netip.Addr{}, netip.Addr{}, errno
	}
	if errno := so.inFamily(to); errno != 0 {
		return fail(errno)
	}
	faddr = to.Unmap()
	bound4 := inp.laddr.is4() // 0.0.0.0 too
	// BSD takes an unspecified destination for this host.
	if faddr.IsUnspecified() {
		faddr = k.thisHost(faddr.Is6() && !bound4)
		if !faddr.IsValid() {
			return fail(syscall.ENETUNREACH)
		}
	}
	// What comes first is as on Linux.
	if faddr.Is6() && faddr.IsMulticast() {
		return fail(syscall.ENETUNREACH)
	}
	way, faddr, errno := k.inScope(faddr)
	if errno != 0 {
		return fail(errno)
	}
	if faddr.Is4() && (!bound4 && !inp.laddr.unspecified() || inp.vflag&inpIPv4 == 0) {
		return fail(syscall.ENETUNREACH)
	}
	dst := faddr
	if way != nil {
		dst = faddr.WithZone(way.Name)
	}
	ifp, src, errno = k.rtalloc(dst, inp.laddr.addr())
	switch {
	case errno == syscall.EHOSTUNREACH:
		return fail(syscall.ENETUNREACH) // as FreeBSD's in_pcbladdr, and always on Linux
	case errno != 0:
		return fail(errno)
	case faddr.Is6() && bound4:
		return fail(syscall.EAFNOSUPPORT)
	}
	if faddr.IsMulticast() || ifp.broadcast(faddr) {
		// RFC 9293, 3.9.1.1, MUST-46: "A TCP implementation MUST reject as an error a local OPEN
		// call for an invalid remote IP address (e.g., a broadcast or multicast address)".
		return fail(syscall.EACCES)
	}
	return ifp, src, faddr, 0
}

// thisHost returns the address that an unspecified destination stands for: the loopback's, or if
// there is none the first interface's.
func (k *Kernel) thisHost(v6 bool) netip.Addr {
	for _, ifp := range *k.ifs.Load() {
		for _, p := range ifp.prefixes {
			if a := p.Addr(); a.Is6() == v6 && !a.IsLinkLocalUnicast() {
				return a
			}
		}
	}
	return netip.Addr{}
}
