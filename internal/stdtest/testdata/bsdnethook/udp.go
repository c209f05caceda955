package bsdnethook

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"

	"bsdnet"
)

type udpHook struct{ s *bsdnet.Stack }

// DialUDP is Stack.DialUDP; with a Dialer, whose time has become the context's, it is that.
func (h udpHook) DialUDP(ctx context.Context, d *net.Dialer, network string, laddr, raddr *net.UDPAddr) (net.UDPHookConn, error) {
	if d == nil {
		return hookedUDP(h.s.DialUDP(network, laddr, raddr))
	}
	b := &bsdnet.Dialer{Stack: h.s}
	if laddr != nil {
		b.LocalAddr = laddr
	}
	c, err := b.DialContext(ctx, network, raddr.String())
	if err != nil {
		return nil, err
	}
	return udpConn{c.(*bsdnet.UDPConn)}, nil
}

func (h udpHook) ListenUDP(network string, laddr *net.UDPAddr) (net.UDPHookConn, error) {
	return hookedUDP(h.s.ListenUDP(network, laddr))
}

func hookedUDP(c *bsdnet.UDPConn, err error) (net.UDPHookConn, error) {
	if err != nil {
		return nil, err
	}
	return udpConn{c}, nil
}

// udpConn has what bsdnet.UDPConn has not: there is no file descriptor.
type udpConn struct{ *bsdnet.UDPConn }

func (c udpConn) SyscallConn() (syscall.RawConn, error) {
	return nil, &net.OpError{Op: "raw-control", Net: "udp", Addr: c.RemoteAddr(), Err: errors.ErrUnsupported}
}

func (c udpConn) File() (*os.File, error) {
	return nil, &net.OpError{Op: "file", Net: "udp", Addr: c.RemoteAddr(), Err: errors.ErrUnsupported}
}
