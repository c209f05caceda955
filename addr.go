package bsdnet

import (
	"net"
	"net/netip"

	"bsdnet/internal/kern"
)

// checkNetwork returns an error if the stack does not have the network.
func checkNetwork(network string) error {
	switch network {
	case "tcp", "tcp4", "tcp6", "udp", "udp4", "udp6":
		return nil
	}
	_, _, err := parseIP(network)
	return err
}

// checkTCP is checkNetwork for calls that know only networks of TCP.
func checkTCP(network string) error {
	if isUDP(network) || isIP(network) {
		return net.UnknownNetworkError(network)
	}
	return checkNetwork(network)
}

// matchFamily reports whether an address is of the family that a network's name ends in, if it ends
// in one.
func matchFamily(network string, a netip.Addr) bool {
	switch network[len(network)-1] {
	case '4':
		return a.Is4()
	case '6':
		return !a.Is4()
	}
	return true
}

// isWildcard reports whether an address stands for any: it is unspecified, or not valid, as the
// address of ":80" is.
func isWildcard(a netip.Addr) bool { return !a.IsValid() || a.IsUnspecified() }

// favoriteAddrFamily chooses the family of a socket, and whether it is for IPv6 only, from the
// network's name and the addresses, which are not mapped. It is package net's. A listener on any
// address takes connections of both families, unless the network names one.
func favoriteAddrFamily(network string, laddr, raddr netip.Addr, listen bool) (domain int, v6only bool) {
	is4 := func(a netip.Addr) bool { return !a.IsValid() || a.Is4() }
	switch network[len(network)-1] {
	case '4':
		return kern.AF_INET, false
	case '6':
		return kern.AF_INET6, true
	}
	if !(listen && isWildcard(laddr)) && is4(laddr) && is4(raddr) {
		return kern.AF_INET, false
	}
	return kern.AF_INET6, false
}

// sockaddr returns an address for a system call on a socket of a family: package net's
// ipToSockaddr. To a socket of IPv6, the wildcard of either family stands for any address that it
// can have.
func sockaddr(domain int, a netip.AddrPort) (netip.AddrPort, error) {
	ip := a.Addr()
	switch {
	case domain == kern.AF_INET && !ip.IsValid():
		ip = netip.IPv4Unspecified()
	case domain == kern.AF_INET && !ip.Is4():
		return a, &net.AddrError{Err: "non-IPv4 address", Addr: ip.WithZone("").String()}
	case domain == kern.AF_INET:
	case isWildcard(ip):
		ip = netip.IPv6Unspecified().WithZone(ip.Zone())
	case ip.Is4():
		ip = netip.AddrFrom16(ip.As16())
	}
	return netip.AddrPortFrom(ip, a.Port()), nil
}

// fromIP returns an address of package net's as a netip.AddrPort, which is not mapped. It is not
// valid if ip is empty.
func fromIP(ip net.IP, port int, zone string) (netip.AddrPort, error) {
	var a netip.Addr
	if len(ip) > 0 {
		var ok bool
		if a, ok = netip.AddrFromSlice(ip); !ok {
			text := "non-IPv6 address"
			if len(ip) < net.IPv4len {
				text = "non-IPv4 address"
			}
			return netip.AddrPort{}, &net.AddrError{Err: text, Addr: ip.String()}
		}
		a = a.Unmap()
		if a.Is6() {
			a = a.WithZone(zone)
		}
	}
	if port < 0 || port > 65535 {
		addr := net.TCPAddr{IP: ip, Port: port, Zone: zone}
		return netip.AddrPort{}, &net.AddrError{Err: "invalid port", Addr: addr.String()}
	}
	return netip.AddrPortFrom(a, uint16(port)), nil
}

func fromTCPAddr(a *net.TCPAddr) (netip.AddrPort, error) {
	if a == nil {
		return netip.AddrPort{}, nil
	}
	return fromIP(a.IP, a.Port, a.Zone)
}

// opAddr returns a as an interface, which is nil if a is.
func opAddr(a *net.TCPAddr) net.Addr {
	if a == nil {
		return nil
	}
	return a
}
