package bsdnet

import (
	"net"
	"net/netip"
)

// checkNetwork returns an error if the stack does not have the network. The error may name address.
func checkNetwork(network, address string) error {
	switch network {
	case "tcp", "tcp4", "udp", "udp4":
		return nil
	case "tcp6", "udp6":
		return &net.AddrError{Err: "IPv6 is not available", Addr: address}
	}
	return net.UnknownNetworkError(network)
}

// checkTCP is checkNetwork for calls that know only networks of TCP.
func checkTCP(network, address string) error {
	if isUDP(network) {
		return net.UnknownNetworkError(network)
	}
	return checkNetwork(network, address)
}

func onlyIPv4(ip netip.Addr) (netip.Addr, error) {
	switch ip = ip.Unmap(); {
	case ip.Is4():
		return ip, nil
	case ip.IsUnspecified():
		return netip.IPv4Unspecified(), nil
	}
	return ip, &net.AddrError{Err: "IPv6 is not available", Addr: ip.String()}
}

func fromTCPAddr(a *net.TCPAddr) (netip.AddrPort, error) {
	if a == nil {
		return netip.AddrPortFrom(netip.IPv4Unspecified(), 0), nil
	}
	if a.Port < 0 || a.Port > 65535 {
		return netip.AddrPort{}, &net.AddrError{Err: "invalid port", Addr: a.String()}
	}
	ip := netip.IPv4Unspecified()
	if len(a.IP) > 0 {
		var ok bool
		if ip, ok = netip.AddrFromSlice(a.IP); !ok {
			return netip.AddrPort{}, &net.AddrError{Err: "invalid IP address", Addr: a.String()}
		}
	}
	ip, err := onlyIPv4(ip)
	return netip.AddrPortFrom(ip, uint16(a.Port)), err
}

// opAddr returns a as an interface, which is nil if a is.
func opAddr(a *net.TCPAddr) net.Addr {
	if a == nil {
		return nil
	}
	return a
}
