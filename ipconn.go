package bsdnet

import (
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"bsdnet/internal/kern"
)

// An IPConn is a raw IP socket: a [net.PacketConn] and a [net.Conn] with the methods of
// [net.IPConn], except SyscallConn, which would give access to a file descriptor; an IPConn has
// none. It receives a copy of each packet of its protocol, and sends what follows the IP header.
// Several goroutines may call its methods at the same time.
//
// As with package net on Linux, the ReadFrom methods of an IPv4 socket leave out the IP header, and
// Read and ReadMsgIP do not; over IPv6 no method returns it. The user computes checksums, except
// that the stack computes and verifies ICMPv6's. What does not fit in the buffers is lost. Packets
// that arrive while the receive buffer is full are dropped, and counted in Fullsock of [IPStats]
// and [IP6Stats].
type IPConn struct {
	so      *kern.Socket
	network string      // "ip", "ip4" or "ip6": errors do not name the protocol, as package net's do not
	domain  int         // kern.AF_INET or AF_INET6
	laddr   *net.IPAddr // as of the call that made the IPConn
	raddr   *net.IPAddr // nil: there is no peer
}

var (
	_ net.Conn       = (*IPConn)(nil)
	_ net.PacketConn = (*IPConn)(nil)
)

// ipAddr returns an address as package net's type.
func ipAddr(a netip.Addr) *net.IPAddr { return &net.IPAddr{IP: a.AsSlice(), Zone: a.Zone()} }

// ipOpAddr returns a as an interface, which is nil if a is.
func ipOpAddr(a *net.IPAddr) net.Addr {
	if a == nil {
		return nil
	}
	return a
}

// opError returns an error that names addr as the remote address.
func (c *IPConn) opError(op string, addr net.Addr, err error) error {
	return &net.OpError{Op: op, Net: c.network, Source: c.laddr, Addr: addr, Err: err}
}

// opErrno is opError for the errno of a system call between the socket and its peer. It returns nil
// if errno is 0.
func (c *IPConn) opErrno(op, call string, errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return c.opError(op, ipOpAddr(c.raddr), sysError(call, errno))
}

// ownError is opErrno for a call that concerns only this end: it names one address, as package
// net's does.
func (c *IPConn) ownError(call string, errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return &net.OpError{Op: "set", Net: c.network, Addr: c.laddr, Err: sysError(call, errno)}
}

// Read reads a packet, and waits if there is none. That of an IPv4 socket begins with the IP
// header.
func (c *IPConn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, c.opErrno("read", "read", c.so.Closed())
	}
	n, _, _, errno := c.so.Soreceivefrom(b)
	return n, c.opErrno("read", "read", errno)
}

// ReadFrom reads a packet without its IP header, waits if there is none, and returns the address of
// its sender, a *net.IPAddr.
func (c *IPConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, a, err := c.ReadFromIP(b)
	return n, ipOpAddr(a), err
}

// ReadFromIP is ReadFrom with an address of another type.
func (c *IPConn) ReadFromIP(b []byte) (int, *net.IPAddr, error) {
	if c.domain == kern.AF_INET6 {
		n, from, _, errno := c.so.Soreceivefrom(b)
		if errno != 0 {
			return n, nil, c.opErrno("read", "recvfrom", errno)
		}
		return n, ipAddr(from.Addr()), nil
	}
	const hdrLen = 20 // without options, which few packets have
	var hdr [hdrLen]byte
	msg := []kern.Msg{{Bufs: [][]byte{hdr[:], b}}}
	if n, errno := c.so.Soreceivemsgs(msg, 0); errno != 0 || n == 0 {
		return 0, nil, c.opErrno("read", "recvfrom", errno)
	}
	n := max(msg[0].N-hdrLen, 0)
	if options := int(hdr[0]&15)*4 - hdrLen; options > 0 {
		n = copy(b, b[min(options, n):n])
	}
	return n, ipAddr(msg[0].Addr.Addr()), nil
}

// ReadMsgIP reads a packet, which begins with the IP header if the socket is IPv4, and returns
// flags too: syscall.MSG_TRUNC if the packet was longer than b. The stack has no control messages,
// so oobn is always 0.
func (c *IPConn) ReadMsgIP(b, oob []byte) (n, oobn, flags int, addr *net.IPAddr, err error) {
	n, from, kflags, errno := c.so.Soreceivefrom(b)
	if errno != 0 {
		return n, 0, 0, nil, c.opErrno("read", "recvmsg", errno)
	}
	return n, 0, msgFlags(kflags), ipAddr(from.Addr()), nil
}

// Write sends a packet to the peer.
func (c *IPConn) Write(b []byte) (int, error) {
	n, errno := c.so.Sosendto(b, netip.AddrPort{})
	return n, c.opErrno("write", "write", errno)
}

// WriteTo sends a packet to addr, a *net.IPAddr. If the packet would be longer than 65535 bytes,
// the error wraps syscall.EMSGSIZE.
func (c *IPConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	a, ok := addr.(*net.IPAddr)
	if !ok {
		return 0, c.opError("write", addr, syscall.EINVAL)
	}
	return c.WriteToIP(b, a)
}

// WriteToIP is WriteTo with an address of another type.
func (c *IPConn) WriteToIP(b []byte, addr *net.IPAddr) (int, error) {
	n, err := c.writeTo(b, addr, "sendto")
	if err != nil {
		err = c.opError("write", ipOpAddr(addr), err)
	}
	return n, err
}

// WriteMsgIP is WriteToIP. The stack has no control messages: if oob is not empty, the error wraps
// syscall.EINVAL.
func (c *IPConn) WriteMsgIP(b, oob []byte, addr *net.IPAddr) (n, oobn int, err error) {
	if len(oob) > 0 {
		err = sysError("sendmsg", syscall.EINVAL)
	} else {
		n, err = c.writeTo(b, addr, "sendmsg")
	}
	if err != nil {
		err = c.opError("write", ipOpAddr(addr), err)
	}
	return n, 0, err
}

func (c *IPConn) writeTo(b []byte, addr *net.IPAddr, call string) (int, error) {
	switch {
	case c.raddr != nil:
		return 0, net.ErrWriteToConnected
	case addr == nil:
		return 0, errMissingAddress
	}
	to, err := ipSockaddr(c.domain, addr)
	if err != nil {
		return 0, err
	}
	n, errno := c.so.Sosendto(b, to)
	return n, sysError(call, errno)
}

// Close closes the socket. Blocked calls return net.ErrClosed, and packets that have not been read
// are dropped.
func (c *IPConn) Close() error { return c.opErrno("close", "close", c.so.Soclose()) }

// LocalAddr returns the local address, a *net.IPAddr.
func (c *IPConn) LocalAddr() net.Addr { return c.laddr }

// RemoteAddr returns the peer's address, a *net.IPAddr, or nil if there is no peer.
func (c *IPConn) RemoteAddr() net.Addr { return ipOpAddr(c.raddr) }

// SetDeadline sets the deadlines of reads and writes. The zero time means none.
func (c *IPConn) SetDeadline(t time.Time) error {
	return c.ownError("set", c.so.SetDeadlines(&t, &t))
}

// SetReadDeadline sets the deadline of reads, including blocked ones, which then fail with
// os.ErrDeadlineExceeded. The zero time means none.
func (c *IPConn) SetReadDeadline(t time.Time) error {
	return c.ownError("set", c.so.SetDeadlines(&t, nil))
}

// SetWriteDeadline sets the deadline of writes. A write after it fails with
// os.ErrDeadlineExceeded. The zero time means none.
func (c *IPConn) SetWriteDeadline(t time.Time) error {
	return c.ownError("set", c.so.SetDeadlines(nil, &t))
}

// SetReadBuffer sets the size of the receive buffer in bytes. A size out of range counts as the
// nearest that the stack allows: at least 1 KiB, and with [ProfileDefault] at most 7.1 MiB.
func (c *IPConn) SetReadBuffer(bytes int) error {
	return c.ownError("setsockopt", c.so.Sosetopt(kern.SOL_SOCKET, kern.SO_RCVBUF, c.so.Clampbuf(bytes)))
}

// SetWriteBuffer sets the size of the send buffer in bytes. The limits are those of
// [IPConn.SetReadBuffer].
func (c *IPConn) SetWriteBuffer(bytes int) error {
	return c.ownError("setsockopt", c.so.Sosetopt(kern.SOL_SOCKET, kern.SO_SNDBUF, c.so.Clampbuf(bytes)))
}

// File fails, as there is no file descriptor: the error wraps syscall.EOPNOTSUPP, which
// errors.ErrUnsupported matches, or net.ErrClosed after Close.
func (c *IPConn) File() (*os.File, error) {
	return nil, c.opErrno("file", "dup", noFile(c.so))
}
