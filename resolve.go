package bsdnet

import (
	"context"
	"net"
	"net/netip"
)

// internetAddrList parses host:port, and appends the addresses that it stands for to to. The host
// is an address, empty, or a name for r. If r is nil, the stack itself looks names up. The order is
// that in which the addresses should be tried. It is package net's.
func (s *Stack) internetAddrList(
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
	n, err := net.DefaultResolver.LookupPort(ctx, network, service)
	if err != nil {
		return nil, err
	}
	port := uint16(n)
	if host == "" {
		return append(to, netip.AddrPortFrom(netip.IPv4Unspecified(), port)), nil
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		ip, err = onlyIPv4(ip)
		return append(to, netip.AddrPortFrom(ip, port)), err
	}
	var ips []netip.Addr
	if r != nil {
		ips, err = r.LookupNetIP(ctx, "ip4", host)
	} else {
		ips, err = s.LookupNetIP(ctx, "ip4", host)
	}
	for _, ip := range ips {
		to = append(to, netip.AddrPortFrom(ip.Unmap(), port))
	}
	return to, err
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
