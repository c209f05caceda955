package bsdnet

import (
	"net"
	"net/netip"
	"syscall"

	"bsdnet/internal/kern"
)

// ListenMulticastUDP is net.ListenMulticastUDP: it makes a socket on the port of gaddr, which other
// such sockets can share, and joins the group. The socket receives what is sent to the port at any
// address of the stack, and what it sends to a group is not for other sockets of this stack. For
// ifi see [UDPConn.JoinGroup].
func (s *Stack) ListenMulticastUDP(network string, ifi *net.Interface, gaddr *net.UDPAddr) (*UDPConn, error) {
	err := checkUDP(network)
	if err == nil && (gaddr == nil || gaddr.IP == nil) {
		err = errMissingAddress
	}
	var c *UDPConn
	if err == nil {
		c, err = s.listenMulticastUDP(network, ifi, gaddr)
	}
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Addr: udpOpAddr(gaddr), Err: err}
	}
	return c, nil
}

func (s *Stack) listenMulticastUDP(network string, ifi *net.Interface, gaddr *net.UDPAddr) (*UDPConn, error) {
	c, err := s.listenUDP(network, gaddr, false)
	if err != nil {
		return nil, err
	}
	errno := c.setMulticastInterface(ifi)
	if errno == 0 {
		errno = c.setMulticastLoopback(false)
	}
	if errno == 0 {
		errno = c.group(c.so.Joingroup, ifi, unmapped(gaddr))
	}
	if errno != 0 {
		c.so.Soclose()
		return nil, sysError("setsockopt", errno)
	}
	return c, nil
}

// JoinGroup joins a multicast group, a *net.UDPAddr or a *net.IPAddr, on an interface: the method
// of golang.org/x/net/ipv4.PacketConn, and of ipv6's. The socket receives what is sent to the group
// on that interface, and to its own port.
//
// The interface is one of the stack's, not of the system's: of ifi only the Name counts, as in
// [InterfaceStats]: &net.Interface{Name: "if0"}. If ifi is nil, the stack chooses: the interface of
// the route to the group, or else the first link.
//
// If there is no such interface, the error wraps syscall.ENODEV; if the address is no group, or not
// of the socket's family, syscall.EINVAL; if the socket has joined the group before,
// syscall.EADDRINUSE.
func (c *UDPConn) JoinGroup(ifi *net.Interface, group net.Addr) error {
	return c.membership(c.so.Joingroup, ifi, group)
}

// LeaveGroup leaves a group that [UDPConn.JoinGroup] has joined on the same interface. If the
// socket is no member, the error wraps syscall.EADDRNOTAVAIL.
func (c *UDPConn) LeaveGroup(ifi *net.Interface, group net.Addr) error {
	return c.membership(c.so.Leavegroup, ifi, group)
}

// A groupCall is kern.Socket's Joingroup or Leavegroup.
type groupCall func(group netip.Addr, ifp *kern.Ifnet) syscall.Errno

func (c *UDPConn) membership(call groupCall, ifi *net.Interface, group net.Addr) error {
	var ip netip.Addr
	switch a := group.(type) {
	case *net.UDPAddr:
		ip = unmapped(a)
	case *net.IPAddr:
		ip = unmapped(&net.UDPAddr{IP: a.IP, Zone: a.Zone})
	}
	if !ip.IsValid() {
		return &net.OpError{Op: "set", Net: c.network, Addr: c.laddr, Err: errMissingAddress}
	}
	return c.ownError("setsockopt", c.group(call, ifi, ip))
}

func (c *UDPConn) group(call groupCall, ifi *net.Interface, group netip.Addr) syscall.Errno {
	ifp, errno := c.ifnet(ifi)
	if errno != 0 {
		return errno
	}
	return call(group, ifp)
}

// ifnet returns the interface of the name of ifi, or nil if ifi is nil.
func (c *UDPConn) ifnet(ifi *net.Interface) (*kern.Ifnet, syscall.Errno) {
	if ifi == nil {
		return nil, 0
	}
	for _, ifp := range c.stack.k.Ifs() {
		if ifp.Name == ifi.Name {
			return ifp, 0
		}
	}
	return nil, syscall.ENODEV
}

// SetMulticastInterface chooses the interface out of which datagrams to groups go: the method of
// golang.org/x/net/ipv4.PacketConn. For ifi see [UDPConn.JoinGroup]; if it is nil, the stack
// chooses.
func (c *UDPConn) SetMulticastInterface(ifi *net.Interface) error {
	return c.ownError("setsockopt", c.setMulticastInterface(ifi))
}

func (c *UDPConn) setMulticastInterface(ifi *net.Interface) syscall.Errno {
	ifp, errno := c.ifnet(ifi)
	if errno != 0 {
		return errno
	}
	return c.so.Setmcastif(ifp)
}

// SetMulticastTTL sets the TTL, or the hop limit over IPv6, of datagrams to groups, 0 to 255: the
// method of golang.org/x/net/ipv4.PacketConn. The default is 1; with 0 they do not leave the stack.
func (c *UDPConn) SetMulticastTTL(ttl int) error {
	if ttl < 0 {
		ttl = 256 // to the kernel, -1 is the default
	}
	return c.ownError("setsockopt", c.setMulticast(kern.IP_MULTICAST_TTL, kern.IPV6_MULTICAST_HOPS, ttl))
}

// SetMulticastLoopback sets whether datagrams to groups are for members on this stack too: the
// method of golang.org/x/net/ipv4.PacketConn. The default is true, except for the sockets that
// [Stack.ListenMulticastUDP] makes.
func (c *UDPConn) SetMulticastLoopback(on bool) error {
	return c.ownError("setsockopt", c.setMulticastLoopback(on))
}

func (c *UDPConn) setMulticastLoopback(on bool) syscall.Errno {
	return c.setMulticast(kern.IP_MULTICAST_LOOP, kern.IPV6_MULTICAST_LOOP, btoi(on))
}

// setMulticast sets an option that the socket's family has by one of two names.
func (c *UDPConn) setMulticast(name4, name6, val int) syscall.Errno {
	if c.domain == kern.AF_INET6 {
		return c.so.Sosetopt(kern.IPPROTO_IPV6, name6, val)
	}
	return c.so.Sosetopt(kern.IPPROTO_IP, name4, val)
}
