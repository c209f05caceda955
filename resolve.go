package bsdnet

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// hostPort splits an address. That of a network of raw IP has no port.
func hostPort(ctx context.Context, network, address string) (host string, port uint16, err error) {
	if isIP(network) {
		return address, 0, nil
	}
	if address == "" {
		return "", 0, errMissingAddress
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	n, err := services.LookupPort(ctx, network, service)
	return host, uint16(n), err
}

// internetAddrList parses host:port, and appends the addresses that it stands for to to. The host
// is an address, empty, or a name for r. If r is nil, the stack itself looks names up. The order is
// that in which the addresses should be tried. It is package net's.
func (s *Stack) internetAddrList(
	ctx context.Context, r *net.Resolver, network, address string, to []netip.AddrPort,
) ([]netip.AddrPort, error) {
	if err := checkNetwork(network); err != nil {
		return nil, err
	}
	host, port, err := hostPort(ctx, network, address)
	if err != nil {
		return nil, err
	}
	network, _, _ = strings.Cut(network, ":") // raw IP's has a protocol
	if host == "" {
		return append(to, netip.AddrPortFrom(netip.Addr{}, port)), nil
	}
	var few [2]netip.Addr
	ips := few[:0]
	if ip, perr := netip.ParseAddr(host); perr == nil {
		ips = append(ips, ip.Unmap())
		if ip == netip.IPv6Unspecified() {
			ips = append(ips, netip.IPv4Unspecified())
		}
	} else if r != nil {
		// It has put them into the order in which the system should try them.
		ips, err = r.LookupNetIP(untraced{ctx}, lookupNetwork(network), host)
		s.names.Sort(ips)
	} else {
		ips, err = s.LookupNetIP(ctx, lookupNetwork(network), host)
	}
	if err != nil {
		return nil, err
	}
	for _, ip := range ips {
		if ip = ip.Unmap(); matchFamily(network, ip) {
			to = append(to, netip.AddrPortFrom(ip, port))
		}
	}
	if len(to) == 0 {
		return nil, &net.AddrError{Err: "no suitable address found", Addr: host}
	}
	return to, nil
}

// services looks up the ports of services, without the system's C library, which package net calls
// with a channel that belongs to the testing/synctest bubble of the first call.
var services = net.Resolver{PreferGo: true}

// lookupNetwork returns the network of a look-up for addresses of another network.
func lookupNetwork(network string) string {
	switch network[len(network)-1] {
	case '4':
		return "ip4"
	case '6':
		return "ip6"
	}
	return "ip"
}

// ResolveTCPAddr is net.ResolveTCPAddr with the names that the stack knows. Of a name that has
// several addresses, the first IPv4 address is chosen. The network is "tcp", "tcp4" or "tcp6".
func (s *Stack) ResolveTCPAddr(network, address string) (*net.TCPAddr, error) {
	if network == "" {
		network = "tcp" // as package net does for old programs
	}
	if checkTCP(network) != nil {
		return nil, net.UnknownNetworkError(network)
	}
	a, err := s.resolveAddr(network, address)
	if err != nil {
		return nil, err
	}
	return net.TCPAddrFromAddrPort(a), nil
}

// ResolveUDPAddr is net.ResolveUDPAddr with the names that the stack knows. Of a name that has
// several addresses, the first IPv4 address is chosen. The network is "udp", "udp4" or "udp6".
func (s *Stack) ResolveUDPAddr(network, address string) (*net.UDPAddr, error) {
	if network == "" {
		network = "udp"
	}
	if !isUDP(network) {
		return nil, net.UnknownNetworkError(network)
	}
	a, err := s.resolveAddr(network, address)
	if err != nil {
		return nil, err
	}
	return net.UDPAddrFromAddrPort(a), nil
}

// ResolveIPAddr is net.ResolveIPAddr with the names that the stack knows. Of a name that has
// several addresses, the first IPv4 address is chosen. The network is "ip", "ip4" or "ip6", and may
// be followed by a colon and a protocol.
func (s *Stack) ResolveIPAddr(network, address string) (*net.IPAddr, error) {
	family, proto, named := strings.Cut(network, ":")
	switch {
	case network == "":
		family = "ip"
	case family != "ip" && family != "ip4" && family != "ip6", named && proto == "":
		return nil, net.UnknownNetworkError(network)
	}
	if address == "" {
		return new(net.IPAddr), nil
	}
	ips, err := s.LookupNetIP(context.Background(), family, address)
	if err != nil {
		return nil, err
	}
	ip := ips[0]
	if i := slices.IndexFunc(ips, netip.Addr.Is4); i >= 0 {
		ip = ips[i]
	}
	return &net.IPAddr{IP: ip.AsSlice(), Zone: ip.Zone()}, nil
}

// resolveAddr returns the address of host:port that net.ResolveTCPAddr and its siblings choose.
func (s *Stack) resolveAddr(network, address string) (netip.AddrPort, error) {
	if address == "" {
		return netip.AddrPort{}, nil
	}
	list, err := s.internetAddrList(context.Background(), nil, network, address, nil)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if strings.Contains(address, "[") { // a literal IPv6 address, or any
		if i := slices.IndexFunc(list, func(a netip.AddrPort) bool { return !a.Addr().Is4() }); i >= 0 {
			return list[i], nil
		}
	}
	return preferIPv4(list), nil
}

// preferIPv4 returns the first IPv4 address of a list that is not empty, or else its first address:
// a name that is listened on has one address. It is package net's choice.
func preferIPv4(list []netip.AddrPort) netip.AddrPort {
	for _, a := range list {
		if a.Addr().Is4() {
			return a
		}
	}
	return list[0]
}
