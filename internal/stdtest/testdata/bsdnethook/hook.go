// Package bsdnethook makes package net's TCP and UDP bsdnet's, where the environment says STDTEST_NET=bsdnet. Test binaries import it.
package bsdnethook

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"

	"bsdnet"
)

func init() {
	if os.Getenv("STDTEST_NET") != "bsdnet" {
		return
	}
	s, err := bsdnet.New(bsdnet.Config{})
	if err != nil {
		panic(err)
	}
	net.TCPHooked = hook{s}
	net.UDPHooked = udpHook{s}
}

type hook struct{ s *bsdnet.Stack }

func (h hook) dialer(d *net.Dialer) *bsdnet.Dialer {
	return &bsdnet.Dialer{
		Stack: h.s, Timeout: d.Timeout, Deadline: d.Deadline, LocalAddr: d.LocalAddr, KeepAlive: d.KeepAlive, KeepAliveConfig: d.KeepAliveConfig,
	}
}

func (h hook) Dial(ctx context.Context, d *net.Dialer, network, address string) (net.TCPHookConn, error) {
	c, err := h.dialer(d).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return conn{c.(*bsdnet.TCPConn)}, nil
}

// DialTCP is Stack.DialTCP; with a Dialer, whose time has become the context's, it is that.
func (h hook) DialTCP(ctx context.Context, d *net.Dialer, network string, laddr, raddr *net.TCPAddr) (net.TCPHookConn, error) {
	if d == nil {
		c, err := h.s.DialTCP(network, laddr, raddr)
		if err != nil {
			return nil, err
		}
		return conn{c}, nil
	}
	b := h.dialer(d)
	b.Timeout, b.LocalAddr = 0, nil
	if laddr != nil {
		b.LocalAddr = laddr
	}
	c, err := b.DialContext(ctx, network, raddr.String())
	if err != nil {
		return nil, err
	}
	return conn{c.(*bsdnet.TCPConn)}, nil
}

func (h hook) listenConfig(lc *net.ListenConfig) *bsdnet.ListenConfig {
	return &bsdnet.ListenConfig{Stack: h.s, KeepAlive: lc.KeepAlive, KeepAliveConfig: lc.KeepAliveConfig}
}

func (h hook) Listen(ctx context.Context, lc *net.ListenConfig, network, address string) (net.TCPHookListener, error) {
	l, err := h.listenConfig(lc).Listen(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return listener{l.(*bsdnet.TCPListener)}, nil
}

func (h hook) ListenTCP(lc *net.ListenConfig, network string, laddr *net.TCPAddr) (net.TCPHookListener, error) {
	if lc != nil {
		return h.Listen(context.Background(), lc, network, laddr.String())
	}
	l, err := h.s.ListenTCP(network, laddr)
	if err != nil {
		return nil, err
	}
	return listener{l}, nil
}

// conn has what bsdnet.TCPConn has not: there is no file descriptor.
type conn struct{ *bsdnet.TCPConn }

func (c conn) SyscallConn() (syscall.RawConn, error) {
	return nil, &net.OpError{Op: "raw-control", Net: "tcp", Addr: c.RemoteAddr(), Err: errors.ErrUnsupported}
}

func (c conn) File() (*os.File, error) {
	return nil, &net.OpError{Op: "file", Net: "tcp", Addr: c.RemoteAddr(), Err: errors.ErrUnsupported}
}

type listener struct{ *bsdnet.TCPListener }

func (l listener) Accept() (net.Conn, error) {
	c, err := l.TCPListener.Accept()
	if err != nil {
		return nil, err
	}
	return net.HookedTCPConn(conn{c.(*bsdnet.TCPConn)}), nil
}

func (l listener) AcceptTCP() (*net.TCPConn, error) {
	c, err := l.TCPListener.AcceptTCP()
	if err != nil {
		return nil, err
	}
	return net.HookedTCPConn(conn{c}), nil
}

func (l listener) SyscallConn() (syscall.RawConn, error) {
	return nil, &net.OpError{Op: "raw-control", Net: "tcp", Addr: l.Addr(), Err: errors.ErrUnsupported}
}

func (l listener) File() (*os.File, error) {
	return nil, &net.OpError{Op: "file", Net: "tcp", Addr: l.Addr(), Err: errors.ErrUnsupported}
}
