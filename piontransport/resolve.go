package piontransport

import (
	"context"
	"net"
	"net/netip"
	"strings"
)

// ResolveIPAddr is net.ResolveIPAddr with the names that the stack knows.
func (n *Net) ResolveIPAddr(network, address string) (*net.IPAddr, error) {
	switch family, _, _ := strings.Cut(network, ":"); family {
	case "ip", "ip4", "ip6":
		if address == "" {
			return &net.IPAddr{}, nil
		}
		ip, err := n.lookup(family, address)
		if err != nil {
			return nil, err
		}
		return &net.IPAddr{IP: ip.AsSlice(), Zone: ip.Zone()}, nil
	}
	return nil, net.UnknownNetworkError(network)
}

// ResolveUDPAddr is net.ResolveUDPAddr with the names that the stack knows.
func (n *Net) ResolveUDPAddr(network, address string) (*net.UDPAddr, error) {
	switch network {
	case "udp", "udp4", "udp6":
		ip, port, err := n.resolve(network, address)
		if err != nil {
			return nil, err
		}
		return &net.UDPAddr{IP: ip.AsSlice(), Port: port, Zone: ip.Zone()}, nil
	}
	return nil, net.UnknownNetworkError(network)
}

// ResolveTCPAddr is net.ResolveTCPAddr with the names that the stack knows.
func (n *Net) ResolveTCPAddr(network, address string) (*net.TCPAddr, error) {
	switch network {
	case "tcp", "tcp4", "tcp6":
		ip, port, err := n.resolve(network, address)
		if err != nil {
			return nil, err
		}
		return &net.TCPAddr{IP: ip.AsSlice(), Port: port, Zone: ip.Zone()}, nil
	}
	return nil, net.UnknownNetworkError(network)
}

// resolve finds the address and the port of host:port. Without a host, the address is not valid.
func (n *Net) resolve(network, address string) (ip netip.Addr, port int, err error) {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return ip, 0, err
	}
	if port, err = net.LookupPort(network, service); err != nil || host == "" {
		return ip, port, err
	}
	ip, err = n.lookup("ip"+strings.TrimLeft(network, "tcpud"), host)
	return ip, port, err
}

// lookup finds an address of a host in one of the networks "ip", "ip4" and "ip6". Of several it
// takes the first IPv4 address, as package net does.
func (n *Net) lookup(network, host string) (netip.Addr, error) {
	ips, err := n.s.LookupNetIP(context.Background(), network, host)
	if err != nil {
		return netip.Addr{}, err
	}
	for _, ip := range ips {
		if ip.Unmap().Is4() {
			return ip.Unmap(), nil
		}
	}
	return ips[0], nil
}
