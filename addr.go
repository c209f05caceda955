package bsdnet

import (
	"context"
	"net"
	"net/netip"
	"strings"
)

// checkNetwork returns an error if the stack does not have the network. The error may name address.
func checkNetwork(network, address string) error {
	switch network {
	case "tcp", "tcp4":
		return nil
	case "tcp6":
		return &net.AddrError{Err: "IPv6 is not available", Addr: address}
	}
	return net.UnknownNetworkError(network)
}

// resolveTCP parses host:port, and appends the addresses that it stands for to to. The host is an
// IPv4 address, "localhost", empty, or a name for r, which may return several addresses. If r is
// nil, other names are not found.
func resolveTCP(
	ctx context.Context, r *net.Resolver, network, address string, to []netip.AddrPort,
) ([]netip.AddrPort, error) {
	if err := checkNetwork(network, address); err != nil {
		return nil, err
	}
	if address == "" {
		return nil, errMissingAddress
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, network, service)
	if err != nil {
		return nil, err
	}
	if ip, ok, err := knownHost(host); ok {
		return append(to, netip.AddrPortFrom(ip, uint16(port))), err
	}
	if r == nil {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	ips, err := r.LookupNetIP(ctx, "ip4", host)
	for _, ip := range ips {
		to = append(to, netip.AddrPortFrom(ip, uint16(port)))
	}
	return to, err
}

// knownHost returns the address of a host that need not be looked up. It reports false for a name.
func knownHost(host string) (ip netip.Addr, ok bool, err error) {
	if host == "" {
		return netip.IPv4Unspecified(), true, nil
	}
	if ip, err = netip.ParseAddr(host); err == nil {
		ip, err = onlyIPv4(ip)
		return ip, true, err
	}
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		// RFC 6761, 6.3: "name resolution APIs and libraries SHOULD recognize localhost names as
		// special and SHOULD always return the IP loopback address". Capitals make no difference
		// (RFC 4343), nor does the root's dot.
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), true, nil
	}
	return netip.Addr{}, false, nil
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
