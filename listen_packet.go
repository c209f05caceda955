package bsdnet

import (
	"context"
	"net"
	"net/netip"
	"syscall"

	"bsdnet/internal/kern"
)

// ListenPacket is net.ListenConfig.ListenPacket. If ctx ends while the address is being resolved,
// ListenPacket fails; later, ctx has no effect.
func (lc *ListenConfig) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	fail := func(addr net.Addr, err error) (net.PacketConn, error) {
		return nil, &net.OpError{Op: "listen", Net: network, Addr: addr, Err: err}
	}
	s, err := lc.stack()
	if err != nil {
		return nil, err
	}
	if address == "" && !isIP(network) {
		address = ":0"
	}
	list, err := s.internetAddrList(ctx, nil, network, address, nil)
	if err != nil {
		return fail(nil, err)
	}
	a := preferIPv4(list)
	if isIP(network) {
		return s.listenIPOn(network, a.Addr())
	}
	if !isUDP(network) {
		return fail(net.TCPAddrFromAddrPort(a), &net.AddrError{Err: "unexpected address type", Addr: address})
	}
	laddr := net.UDPAddrFromAddrPort(a)
	c, err := s.listenUDP(network, laddr, lc.ReusePort)
	if err != nil {
		return fail(laddr, err)
	}
	return c, nil
}

// ListenPacket makes a socket for datagrams: net.ListenPacket. The network is "udp", "udp4" for
// IPv4, "udp6" for IPv6, or one of raw IP's, whose addresses have no port: see [Stack.ListenIP]. If
// the host is empty or unspecified, the socket receives datagrams to every address of the stack, of
// both families if the network is "udp"; if the port is 0, the stack chooses a free one. If the
// address is in use, the error wraps syscall.EADDRINUSE; if the stack does not have the address,
// syscall.EADDRNOTAVAIL.
func (s *Stack) ListenPacket(network, address string) (net.PacketConn, error) {
	return (&ListenConfig{Stack: s}).ListenPacket(context.Background(), network, address)
}

// ListenUDP is net.ListenUDP. If laddr is nil, the socket receives datagrams to every address of
// the stack, on a free port. If laddr is multicast, the socket has its port on every address of the
// stack, and can share it with other such sockets.
func (s *Stack) ListenUDP(network string, laddr *net.UDPAddr) (*UDPConn, error) {
	if err := checkUDP(network); err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Addr: udpOpAddr(laddr), Err: err}
	}
	if laddr == nil {
		laddr = &net.UDPAddr{}
	}
	c, err := s.listenUDP(network, laddr, false)
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Addr: laddr, Err: err}
	}
	return c, nil
}

// listenUDP makes the socket, with the options that package net sets.
func (s *Stack) listenUDP(network string, laddr *net.UDPAddr, reusePort bool) (*UDPConn, error) {
	domain, v6only := udpFamily(network, laddr, nil, true)
	so, errno := s.udpSocket(domain, v6only)
	if errno != 0 {
		return nil, sysError("socket", errno)
	}
	if laddr.IP.IsMulticast() {
		so.Sosetopt(kern.SOL_SOCKET, int(kern.SO_REUSEADDR), 1)
		laddr = &net.UDPAddr{Port: laddr.Port}
	}
	if reusePort {
		so.Sosetopt(kern.SOL_SOCKET, int(kern.SO_REUSEPORT), 1)
	}
	a, err := udpName(domain, laddr, "bind")
	if err == nil {
		err = sysError("bind", so.Sobind(a))
	}
	if err != nil {
		so.Soclose()
		return nil, err
	}
	return s.newUDPConn(so, network, domain, false), nil
}

// DialUDP is net.DialUDP. If laddr is nil, the stack chooses the local address.
func (s *Stack) DialUDP(network string, laddr, raddr *net.UDPAddr) (*UDPConn, error) {
	return (&Dialer{Stack: s}).dialUDP(context.Background(), network, laddr, raddr)
}

// DialUDP makes a socket with the peer raddr and the local address laddr, not LocalAddr:
// net.Dialer.DialUDP. If laddr is the zero AddrPort, the stack chooses the local address. No
// datagram is sent, so that DialUDP does not wait; it fails if ctx has ended.
func (d *Dialer) DialUDP(ctx context.Context, network string, laddr, raddr netip.AddrPort) (*UDPConn, error) {
	ctx, cancel := d.context(ctx)
	defer cancel()
	return d.dialUDP(ctx, network, net.UDPAddrFromAddrPort(laddr), net.UDPAddrFromAddrPort(raddr))
}

func (d *Dialer) dialUDP(ctx context.Context, network string, laddr, raddr *net.UDPAddr) (*UDPConn, error) {
	err := checkUDP(network)
	if err == nil && raddr == nil {
		err = errMissingAddress
	}
	var c *UDPConn
	if err == nil {
		c, err = d.connectUDP(ctx, network, laddr, raddr)
	}
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Source: udpOpAddr(laddr), Addr: udpOpAddr(raddr), Err: err}
	}
	return c, nil
}

// dialUDPTo is dialUDP from LocalAddr.
func (d *Dialer) dialUDPTo(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	raddr := net.UDPAddrFromAddrPort(to)
	laddr, ok := d.LocalAddr.(*net.UDPAddr)
	if !ok && d.LocalAddr != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Source: d.LocalAddr, Addr: raddr,
			Err: &net.AddrError{Err: "mismatched local address type", Addr: d.LocalAddr.String()}}
	}
	c, err := d.dialUDP(ctx, network, laddr, raddr)
	if err != nil {
		return nil, err // not a nil *UDPConn in an interface
	}
	return c, nil
}

// connectUDP makes the socket, binds it if laddr is not nil, and connects it.
func (d *Dialer) connectUDP(ctx context.Context, network string, laddr, raddr *net.UDPAddr) (*UDPConn, error) {
	s, err := d.stack()
	if err != nil {
		return nil, err
	}
	domain, v6only := udpFamily(network, laddr, raddr, false)
	so, errno := s.udpSocket(domain, v6only)
	if errno != 0 {
		return nil, sysError("socket", errno)
	}
	err = connectUDP(so, domain, laddr, raddr)
	if err == nil && ctx.Err() != nil {
		err = ctxError(ctx.Err())
	}
	if err != nil {
		so.Soclose()
		return nil, err
	}
	return s.newUDPConn(so, network, domain, true), nil
}

func connectUDP(so *kern.Socket, domain int, laddr, raddr *net.UDPAddr) error {
	if laddr != nil {
		from, err := udpName(domain, laddr, "bind")
		if err != nil {
			return err
		}
		if errno := so.Sobind(from); errno != 0 {
			return sysError("bind", errno)
		}
	}
	to, err := udpName(domain, raddr, "connect")
	if err != nil {
		return err
	}
	return sysError("connect", so.Soconnect(to))
}

func (s *Stack) udpSocket(domain int, v6only bool) (*kern.Socket, syscall.Errno) {
	so, errno := s.socket(domain, v6only, kern.SOCK_DGRAM)
	if errno == 0 {
		so.Sosetopt(kern.SOL_SOCKET, int(kern.SO_BROADCAST), 1) // as package net does
	}
	return so, errno
}

func isUDP(network string) bool {
	return network == "udp" || network == "udp4" || network == "udp6"
}

// checkUDP returns an error if the network is not one of UDP's.
func checkUDP(network string) error {
	if !isUDP(network) {
		return net.UnknownNetworkError(network)
	}
	return nil
}
