package bsdnet

import (
	"net"
	"net/netip"
	"syscall"

	"bsdnet/internal/kern"
)

// What follows converts addresses between package net's types and the kernel's. The errors are
// package net's.

// An addrPortUDPAddr is a netip.AddrPort as a net.Addr, for the errors of calls that have one.
type addrPortUDPAddr struct{ netip.AddrPort }

func (addrPortUDPAddr) Network() string { return "udp" }

// udpOpAddr returns a as an interface, which is nil if a is.
func udpOpAddr(a *net.UDPAddr) net.Addr {
	if a == nil {
		return nil
	}
	return a
}

// setUDPAddr sets a to from.
func setUDPAddr(a *net.UDPAddr, from netip.AddrPort) {
	*a = net.UDPAddr{IP: from.Addr().AsSlice(), Port: int(from.Port()), Zone: from.Addr().Zone()}
}

// unmapped returns the address of a, not mapped, and not valid if a has none.
func unmapped(a *net.UDPAddr) netip.Addr {
	ip, _ := netip.AddrFromSlice(a.IP)
	if ip = ip.Unmap(); ip.Is6() {
		ip = ip.WithZone(a.Zone)
	}
	return ip
}

// udpFamily chooses the family of a socket: see favoriteAddrFamily. An address that is nil is any.
func udpFamily(network string, laddr, raddr *net.UDPAddr, listen bool) (domain int, v6only bool) {
	var local, remote netip.Addr
	if laddr != nil {
		local = unmapped(laddr)
	}
	if raddr != nil {
		remote = unmapped(raddr)
	}
	return favoriteAddrFamily(network, local, remote, listen)
}

// udpSockaddr returns a for a socket of a family. A port that is none becomes 0.
func udpSockaddr(domain int, a *net.UDPAddr) (netip.AddrPort, error) {
	port := uint16(0)
	if a.Port >= 0 && a.Port <= 65535 {
		port = uint16(a.Port)
	}
	ip := unmapped(a)
	if ok := ip.IsValid() || len(a.IP) == 0; !ok || domain == kern.AF_INET && ip.Is6() {
		text := "non-IPv4 address"
		if domain == kern.AF_INET6 {
			text = "non-IPv6 address"
		}
		return netip.AddrPort{}, &net.AddrError{Err: text, Addr: a.IP.String()}
	}
	return sockaddr(domain, netip.AddrPortFrom(ip, port))
}

// udpName is udpSockaddr for a system call of that name that takes port 0, but no port that is
// none.
func udpName(domain int, a *net.UDPAddr, call string) (netip.AddrPort, error) {
	name, err := udpSockaddr(domain, a)
	if err == nil && int(name.Port()) != a.Port {
		err = sysError(call, syscall.EINVAL)
	}
	return name, err
}

// destination returns the destination of a datagram. To port 0 nothing can be sent: EINVAL.
func (c *UDPConn) destination(a *net.UDPAddr) (netip.AddrPort, error) {
	switch {
	case c.raddr != nil:
		return netip.AddrPort{}, net.ErrWriteToConnected
	case a == nil:
		return netip.AddrPort{}, errMissingAddress
	}
	return udpSockaddr(c.domain, a)
}

// destinationAddrPort is destination for another type of address.
func (c *UDPConn) destinationAddrPort(a netip.AddrPort) (netip.AddrPort, error) {
	ip := a.Addr()
	switch {
	case c.raddr != nil:
		return netip.AddrPort{}, net.ErrWriteToConnected
	case !a.IsValid():
		return netip.AddrPort{}, errMissingAddress
	case c.domain == kern.AF_INET6:
		// Unlike that of a net.UDPAddr, the wildcard of IPv4 does not stand for that of IPv6.
		return netip.AddrPortFrom(netip.AddrFrom16(ip.As16()).WithZone(ip.Zone()), a.Port()), nil
	case !ip.Unmap().Is4():
		return netip.AddrPort{}, &net.AddrError{Err: "non-IPv4 address", Addr: ip.String()}
	}
	return netip.AddrPortFrom(ip.Unmap(), a.Port()), nil
}

// unspecified returns the unspecified address in the family of the socket.
func (c *UDPConn) unspecified() netip.AddrPort {
	if c.domain == kern.AF_INET6 {
		return netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
}
