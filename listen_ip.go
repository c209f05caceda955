package bsdnet

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"

	"bsdnet/internal/kern"
)

// isIP reports whether a network's name is one of raw IP's, such as "ip4:icmp".
func isIP(network string) bool {
	family, _, _ := strings.Cut(network, ":")
	return family == "ip" || family == "ip4" || family == "ip6"
}

// protocols are the names that package net knows on every system.
var protocols = map[string]int{"icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "ipv6-icmp": 58}

// parseIP returns the family and the protocol of the name of a network, such as "ip4:icmp" or
// "ip:253": package net's parseNetwork.
func parseIP(network string) (family string, proto int, err error) {
	family, name, ok := strings.Cut(network, ":")
	if !ok || !isIP(network) {
		return "", 0, net.UnknownNetworkError(network)
	}
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return family, int(n), nil
	}
	if n, ok := protocols[strings.ToLower(name)]; ok {
		return family, n, nil
	}
	return "", 0, &net.AddrError{Err: "unknown IP protocol specified", Addr: name}
}

// ipUnmapped returns the address of a, not mapped, and not valid if a is nil or has none.
func ipUnmapped(a *net.IPAddr) netip.Addr {
	if a == nil {
		return netip.Addr{}
	}
	return unmapped(&net.UDPAddr{IP: a.IP, Zone: a.Zone})
}

// ipSockaddr returns a for a socket of a family.
func ipSockaddr(domain int, a *net.IPAddr) (netip.AddrPort, error) {
	return udpSockaddr(domain, &net.UDPAddr{IP: a.IP, Zone: a.Zone})
}

// ListenIP makes a raw socket: net.ListenIP. The network is "ip4:", "ip6:" or "ip:" with the number
// or the name of a protocol behind it, such as "ip4:icmp" and "ip6:ipv6-icmp". If laddr is nil or
// unspecified, the socket receives packets to every address of the stack. There are no raw sockets
// of TCP and UDP: the error wraps syscall.EPROTONOSUPPORT. A stack needs no rights for them.
func (s *Stack) ListenIP(network string, laddr *net.IPAddr) (*IPConn, error) {
	if laddr == nil {
		laddr = &net.IPAddr{}
	}
	c, err := s.ipSocket(network, laddr, nil)
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Addr: laddr, Err: err}
	}
	return c, nil
}

// DialIP makes a raw socket that receives only what raddr sends, and whose Write sends to it:
// net.DialIP. The networks are those of [Stack.ListenIP]. If laddr is nil, the stack chooses the
// local address.
func (s *Stack) DialIP(network string, laddr, raddr *net.IPAddr) (*IPConn, error) {
	return (&Dialer{Stack: s}).dialIP(context.Background(), network, laddr, raddr)
}

// DialIP makes a raw socket with the peer raddr and the local address laddr, not LocalAddr:
// net.Dialer.DialIP. If laddr is the zero Addr, the stack chooses the local address. Nothing is
// sent, so that DialIP does not wait; it fails if ctx has ended.
func (d *Dialer) DialIP(ctx context.Context, network string, laddr, raddr netip.Addr) (*IPConn, error) {
	ctx, cancel := d.context(ctx)
	defer cancel()
	var from *net.IPAddr
	if laddr.IsValid() {
		from = ipAddr(laddr)
	}
	return d.dialIP(ctx, network, from, ipAddr(raddr))
}

func (d *Dialer) dialIP(ctx context.Context, network string, laddr, raddr *net.IPAddr) (*IPConn, error) {
	fail := func(err error) (*IPConn, error) {
		return nil, &net.OpError{Op: "dial", Net: network, Source: ipOpAddr(laddr), Addr: ipOpAddr(raddr), Err: err}
	}
	if raddr == nil {
		return fail(errMissingAddress)
	}
	s, err := d.stack()
	if err != nil {
		return nil, err
	}
	c, err := s.ipSocket(network, laddr, raddr)
	if err == nil && ctx.Err() != nil {
		c.so.Soclose()
		err = ctxError(ctx.Err())
	}
	if err != nil {
		return fail(err)
	}
	return c, nil
}

// listenIPOn is ListenIP for ListenPacket.
func (s *Stack) listenIPOn(network string, a netip.Addr) (net.PacketConn, error) {
	c, err := s.ListenIP(network, ipAddr(a))
	if err != nil {
		return nil, err // not a nil *IPConn in an interface
	}
	return c, nil
}

// dialIPTo is dialIP from LocalAddr.
func (d *Dialer) dialIPTo(ctx context.Context, network string, to netip.Addr) (net.Conn, error) {
	raddr := ipAddr(to)
	laddr, ok := d.LocalAddr.(*net.IPAddr)
	if !ok && d.LocalAddr != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Source: d.LocalAddr, Addr: raddr,
			Err: &net.AddrError{Err: "mismatched local address type", Addr: d.LocalAddr.String()}}
	}
	c, err := d.dialIP(ctx, network, laddr, raddr)
	if err != nil {
		return nil, err // not a nil *IPConn in an interface
	}
	return c, nil
}

// ipSocket makes a raw socket, binds it if laddr is not nil, and connects it if raddr is not nil.
func (s *Stack) ipSocket(network string, laddr, raddr *net.IPAddr) (*IPConn, error) {
	family, proto, err := parseIP(network)
	if err != nil {
		return nil, err
	}
	domain, _ := favoriteAddrFamily(family, ipUnmapped(laddr), ipUnmapped(raddr), raddr == nil)
	so, errno := s.k.Socreate(domain, kern.SOCK_RAW, proto)
	if errno != 0 {
		return nil, sysError("socket", errno)
	}
	so.Sosetopt(kern.SOL_SOCKET, int(kern.SO_BROADCAST), 1) // as package net does
	c := &IPConn{so: so, network: family, domain: domain}
	if laddr != nil {
		err = ipCall(domain, laddr, "bind", so.Sobind)
	}
	if err == nil && raddr != nil {
		err = ipCall(domain, raddr, "connect", so.Soconnect)
		c.raddr = ipAddr(so.Faddr().Addr())
	}
	if err != nil {
		so.Soclose()
		return nil, err
	}
	c.laddr = ipAddr(so.Laddr().Addr())
	return c, nil
}

// ipCall makes a system call with an address.
func ipCall(domain int, a *net.IPAddr, call string, f func(netip.AddrPort) syscall.Errno) error {
	nam, err := ipSockaddr(domain, a)
	if err != nil {
		return err
	}
	return sysError(call, f(nam))
}

// ListenICMP makes a socket for ICMP messages, as ListenPacket of golang.org/x/net/icmp does.
//
// The networks "udp4" and "udp6" stand for a ping socket of ICMP and of ICMPv6: WriteTo sends an
// echo request, whose identifier and checksum the stack fills in, and ReadFrom returns the replies
// to the socket's requests. Its addresses are *net.UDPAddrs; the local port is the identifier. The
// socket is a *[UDPConn].
//
// The networks of [Stack.ListenIP] stand for a raw socket, an *[IPConn], which sends and receives
// all messages.
//
// The address is the local one, without a port. If it is empty or unspecified, the socket receives
// messages to every address of the stack.
func (s *Stack) ListenICMP(network, address string) (net.PacketConn, error) {
	fail := func(addr net.Addr, err error) (net.PacketConn, error) {
		return nil, &net.OpError{Op: "listen", Net: network, Addr: addr, Err: err}
	}
	domain, proto, any := kern.AF_INET, protocols["icmp"], "0.0.0.0"
	switch network {
	case "udp4":
	case "udp6":
		domain, proto, any = kern.AF_INET6, protocols["ipv6-icmp"], "::"
	default:
		if !isIP(network) {
			return fail(nil, net.UnknownNetworkError(network))
		}
		return s.ListenPacket(network, address)
	}
	if address == "" {
		address = any
	}
	list, err := s.internetAddrList(context.Background(), nil, "ip"+network[3:]+":icmp", address, nil)
	if err != nil {
		return fail(nil, err)
	}
	laddr := net.UDPAddrFromAddrPort(list[0])
	so, errno := s.k.Socreate(domain, kern.SOCK_DGRAM, proto)
	if errno != 0 {
		return fail(laddr, sysError("socket", errno))
	}
	if err := ipCall(domain, ipAddr(list[0].Addr()), "bind", so.Sobind); err != nil {
		so.Soclose()
		return fail(laddr, err)
	}
	return s.newUDPConn(so, network, domain, false), nil
}
