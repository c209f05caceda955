package bsdnet

import (
	"net"
	"net/netip"
	"syscall"
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

// udpSockaddr returns a for an IPv4 socket. A port that is none becomes 0.
func udpSockaddr(a *net.UDPAddr) (netip.AddrPort, error) {
	ip := netip.IPv4Unspecified()
	if len(a.IP) > 0 {
		ip, _ = netip.AddrFromSlice(a.IP)
		if ip = ip.Unmap(); !ip.Is4() {
			return netip.AddrPort{}, &net.AddrError{Err: "non-IPv4 address", Addr: a.IP.String()}
		}
	}
	return netip.AddrPortFrom(ip, udpPort(a)), nil
}

func udpPort(a *net.UDPAddr) uint16 {
	if a.Port < 0 || a.Port > 65535 {
		return 0
	}
	return uint16(a.Port)
}

// udpName is udpSockaddr for a system call of that name that takes port 0, but no port that is
// none.
func udpName(a *net.UDPAddr, call string) (netip.AddrPort, error) {
	name, err := udpSockaddr(a)
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
	return udpSockaddr(a)
}

// destinationAddrPort is destination for another type of address.
func (c *UDPConn) destinationAddrPort(a netip.AddrPort) (netip.AddrPort, error) {
	switch {
	case c.raddr != nil:
		return netip.AddrPort{}, net.ErrWriteToConnected
	case !a.IsValid():
		return netip.AddrPort{}, errMissingAddress
	case !a.Addr().Unmap().Is4():
		return netip.AddrPort{}, &net.AddrError{Err: "non-IPv4 address", Addr: a.Addr().String()}
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), nil
}

// inFamily returns the address of a sender in the family of the socket.
func (c *UDPConn) inFamily(from netip.AddrPort) netip.AddrPort { return from }

// unspecified returns the unspecified address in the family of the socket.
func (c *UDPConn) unspecified() netip.AddrPort {
	return netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
}
