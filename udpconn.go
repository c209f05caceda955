package bsdnet

import (
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"bsdnet/internal/kern"
)

// A UDPConn is a UDP socket: a [net.PacketConn] and a [net.Conn] with the methods of [net.UDPConn],
// except SyscallConn, which would give access to a file descriptor; a UDPConn has none. Several
// goroutines may call its methods at the same time.
//
// A UDPConn that was dialed has a peer: it receives datagrams of that peer only, Write sends to it,
// and the methods that name a destination fail with net.ErrWriteToConnected. One that listens has
// no peer: it receives the datagrams of all, and Write fails with syscall.EDESTADDRREQ.
//
// A datagram that is longer than the buffers it is read into loses its end, without an error; only
// the flags of [UDPConn.ReadMsgUDP] and [UDPConn.ReadBatch] tell. An empty datagram is read as 0
// bytes, and is no end of anything. Datagrams that arrive while the receive buffer is full are
// dropped, and counted: see [UDPInfo].
type UDPConn struct {
	so      *kern.Socket
	stack   *Stack
	network string       // as it was dialed, or listened on
	domain  int          // kern.AF_INET or AF_INET6: a socket of AF_INET6 maps IPv4 addresses
	laddr   *net.UDPAddr // as of the call that made the UDPConn
	raddr   *net.UDPAddr // nil: there is no peer
}

var (
	_ net.Conn       = (*UDPConn)(nil)
	_ net.PacketConn = (*UDPConn)(nil)
)

// newUDPConn makes a UDPConn of a socket that is bound, and connected if it is to have a peer.
func (s *Stack) newUDPConn(so *kern.Socket, network string, domain int, connected bool) *UDPConn {
	c := &UDPConn{
		so: so, stack: s, network: network, domain: domain, laddr: net.UDPAddrFromAddrPort(so.Laddr()),
	}
	if connected {
		c.raddr = net.UDPAddrFromAddrPort(so.Faddr())
	}
	return c
}

// opError returns an error that names addr as the remote address.
func (c *UDPConn) opError(op string, addr net.Addr, err error) error {
	return &net.OpError{Op: op, Net: c.network, Source: c.laddr, Addr: addr, Err: err}
}

// opErrno is opError for the errno of a system call between the socket and its peer. It returns nil
// if errno is 0.
func (c *UDPConn) opErrno(op, call string, errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return c.opError(op, udpOpAddr(c.raddr), sysError(call, errno))
}

// ownError is opErrno for a call that concerns only this end: it names one address, as package
// net's does.
func (c *UDPConn) ownError(call string, errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return &net.OpError{Op: "set", Net: c.network, Addr: c.laddr, Err: sysError(call, errno)}
}

// Read reads a datagram, and waits if there is none. It does not tell whose it is. If b is empty,
// Read returns at once, and reads nothing.
func (c *UDPConn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, c.opErrno("read", "read", c.so.Closed()) // whatever the deadline and other readers
	}
	n, _, _, errno := c.so.Soreceivefrom(b)
	return n, c.opErrno("read", "read", errno)
}

// ReadFrom reads a datagram, waits if there is none, and returns the address of its sender, a
// *net.UDPAddr.
func (c *UDPConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, a, err := c.readFrom(b, &net.UDPAddr{})
	if a == nil {
		return n, nil, err // not a nil *net.UDPAddr in an interface
	}
	return n, a, err
}

// ReadFromUDP is ReadFrom with an address of another type. The address is on the caller's stack if
// the caller does not keep it.
func (c *UDPConn) ReadFromUDP(b []byte) (int, *net.UDPAddr, error) {
	return c.readFrom(b, &net.UDPAddr{}) // this function is inlined, and so the address made there
}

func (c *UDPConn) readFrom(b []byte, a *net.UDPAddr) (int, *net.UDPAddr, error) {
	n, from, err := c.ReadFromUDPAddrPort(b)
	if err != nil {
		return n, nil, err
	}
	setUDPAddr(a, from)
	return n, a, nil
}

// ReadFromUDPAddrPort is ReadFrom without an allocation. On a UDPConn of both families the address
// of an IPv4 host is an IPv4-mapped IPv6 address, as with package net: [netip.Addr.Unmap].
func (c *UDPConn) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	n, from, _, errno := c.so.Soreceivefrom(b)
	if errno != 0 {
		return n, netip.AddrPort{}, c.opErrno("read", "recvfrom", errno)
	}
	return n, from, nil
}

// Write sends a datagram to the peer.
func (c *UDPConn) Write(b []byte) (int, error) {
	n, errno := c.so.Sosendto(b, netip.AddrPort{})
	return n, c.opErrno("write", "write", errno)
}

// WriteTo sends a datagram to addr, a *net.UDPAddr. If it is longer than 65507 bytes, or 65527 over
// IPv6, the error wraps syscall.EMSGSIZE.
func (c *UDPConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	a, ok := addr.(*net.UDPAddr)
	if !ok {
		return 0, c.opError("write", addr, syscall.EINVAL)
	}
	return c.WriteToUDP(b, a)
}

// WriteToUDP is WriteTo with an address of another type.
func (c *UDPConn) WriteToUDP(b []byte, addr *net.UDPAddr) (int, error) {
	to, err := c.destination(addr)
	if err != nil {
		return 0, c.opError("write", udpOpAddr(addr), err)
	}
	n, errno := c.so.Sosendto(b, to)
	if errno != 0 {
		return n, c.opError("write", udpOpAddr(addr), sysError("sendto", errno))
	}
	return n, nil
}

// WriteToUDPAddrPort is WriteTo without an allocation.
func (c *UDPConn) WriteToUDPAddrPort(b []byte, addr netip.AddrPort) (int, error) {
	to, err := c.destinationAddrPort(addr)
	if err != nil {
		return 0, c.opError("write", addrPortUDPAddr{addr}, err)
	}
	n, errno := c.so.Sosendto(b, to)
	if errno != 0 {
		return n, c.opError("write", addrPortUDPAddr{addr}, sysError("sendto", errno))
	}
	return n, nil
}

// Close closes the socket. Blocked calls return net.ErrClosed, and datagrams that have not been
// read are dropped.
func (c *UDPConn) Close() error { return c.opErrno("close", "close", c.so.Soclose()) }

// LocalAddr returns the local address, a *net.UDPAddr.
func (c *UDPConn) LocalAddr() net.Addr { return c.laddr }

// RemoteAddr returns the peer's address, a *net.UDPAddr, or nil if there is no peer.
func (c *UDPConn) RemoteAddr() net.Addr { return udpOpAddr(c.raddr) }

// SetDeadline sets the deadlines of reads and writes. The zero time means none.
func (c *UDPConn) SetDeadline(t time.Time) error {
	return c.ownError("set", c.so.SetDeadlines(&t, &t))
}

// SetReadDeadline sets the deadline of reads, including blocked ones, which then fail with
// os.ErrDeadlineExceeded. The zero time means none.
func (c *UDPConn) SetReadDeadline(t time.Time) error {
	return c.ownError("set", c.so.SetDeadlines(&t, nil))
}

// SetWriteDeadline sets the deadline of writes, including those that wait for a link, which then
// fail with os.ErrDeadlineExceeded. The zero time means none.
func (c *UDPConn) SetWriteDeadline(t time.Time) error {
	return c.ownError("set", c.so.SetDeadlines(nil, &t))
}

// SetReadBuffer sets the size of the receive buffer, in bytes of memory: a datagram takes a little
// more than its data. A size out of range counts as the
// nearest that the stack allows: at least 1 KiB, and with [ProfileDefault] at most 7.1 MiB.
func (c *UDPConn) SetReadBuffer(bytes int) error {
	return c.ownError("setsockopt", c.so.Sosetopt(kern.SOL_SOCKET, kern.SO_RCVBUF, c.so.Clampbuf(bytes)))
}

// SetWriteBuffer sets the size of the send buffer: how many bytes may wait on a link's queue before
// writes wait. The limits are those of [UDPConn.SetReadBuffer].
func (c *UDPConn) SetWriteBuffer(bytes int) error {
	return c.ownError("setsockopt", c.so.Sosetopt(kern.SOL_SOCKET, kern.SO_SNDBUF, c.so.Clampbuf(bytes)))
}

// File fails, as there is no file descriptor: the error wraps syscall.EOPNOTSUPP, which
// errors.ErrUnsupported matches, or net.ErrClosed after Close.
func (c *UDPConn) File() (*os.File, error) {
	return nil, c.opErrno("file", "dup", noFile(c.so))
}
