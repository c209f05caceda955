// Package net's side of the hook: this file is added to the copy of package net, whose TCP functions and methods are changed to ask here first.

package net

import (
	"context"
	"internal/nettrace"
	"io"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// A TCPHook is another TCP: where it is set, everything of package net that would make a TCP socket of the kernel goes to it.
type TCPHook interface {
	Dial(ctx context.Context, d *Dialer, network, address string) (TCPHookConn, error)
	DialTCP(ctx context.Context, d *Dialer, network string, laddr, raddr *TCPAddr) (TCPHookConn, error)
	Listen(ctx context.Context, lc *ListenConfig, network, address string) (TCPHookListener, error)
	ListenTCP(lc *ListenConfig, network string, laddr *TCPAddr) (TCPHookListener, error)
}

// A TCPHookConn is what is behind a TCPConn of the other TCP: its methods, one by one.
type TCPHookConn interface {
	Conn
	io.ReaderFrom
	io.WriterTo
	SyscallConn() (syscall.RawConn, error)
	File() (*os.File, error)
	WriteBuffers(v *Buffers) (int64, error)
	CloseRead() error
	CloseWrite() error
	SetLinger(sec int) error
	SetNoDelay(noDelay bool) error
	SetKeepAlive(keepalive bool) error
	SetKeepAlivePeriod(d time.Duration) error
	SetKeepAliveConfig(config KeepAliveConfig) error
	SetReadBuffer(bytes int) error
	SetWriteBuffer(bytes int) error
	MultipathTCP() (bool, error)
}

// A TCPHookListener is what is behind a TCPListener of the other TCP.
type TCPHookListener interface {
	Listener
	AcceptTCP() (*TCPConn, error)
	SetDeadline(t time.Time) error
	SyscallConn() (syscall.RawConn, error)
	File() (*os.File, error)
}

// TCPHooked is the other TCP; nil: the kernel's.
var TCPHooked TCPHook

// HookedTCPConn makes a TCPConn of a connection of the other TCP.
func HookedTCPConn(c TCPHookConn) *TCPConn { return &TCPConn{hook: c} }

func hookedConn(c TCPHookConn, err error) (*TCPConn, error) {
	if err != nil {
		return nil, err
	}
	return HookedTCPConn(c), nil
}

func hookedListener(l TCPHookListener, err error) (*TCPListener, error) {
	if err != nil {
		return nil, err
	}
	return &TCPListener{hook: l}, nil
}

// inner takes the OpError off an error that package net is going to put into one.
func inner(err error) error {
	if op, ok := err.(*OpError); ok {
		return op.Err
	}
	return err
}

// hookTakes reports whether the other TCP gets a whole call, with the address as text. Names, which package net has to resolve, and the calls
// that its tests look into come to it further down, address by address.
func hookTakes(network, address string) bool {
	if TCPHooked == nil || testHookDialTCP != nil || network != "tcp" && network != "tcp4" && network != "tcp6" {
		return false
	}
	host, _, err := SplitHostPort(address)
	if err != nil || host == "" || host == "localhost" {
		return true
	}
	_, err = netip.ParseAddr(host)
	return err == nil
}

func hookDial(ctx context.Context, d *Dialer, network, address string) (Conn, error, bool) {
	if !hookTakes(network, address) || ctx == nil || d.Cancel != nil || d.Control != nil || d.ControlContext != nil || d.Resolver != nil {
		return nil, nil, false
	}
	if ctx.Value(nettrace.TraceKey{}) != nil {
		return nil, nil, false
	}
	c, err := hookedConn(TCPHooked.Dial(ctx, d, network, address))
	if err != nil {
		return nil, err, true
	}
	return c, nil, true
}

func hookListen(ctx context.Context, lc *ListenConfig, network, address string) (Listener, error, bool) {
	if !hookTakes(network, address) || lc.Control != nil {
		return nil, nil, false
	}
	l, err := hookedListener(TCPHooked.Listen(ctx, lc, network, address))
	if err != nil {
		return nil, err, true
	}
	return l, nil, true
}

// What TCPConn has from conn.

func (c *TCPConn) Read(b []byte) (int, error) {
	if c != nil && c.hook != nil {
		return c.hook.Read(b)
	}
	return c.base().Read(b)
}

func (c *TCPConn) Write(b []byte) (int, error) {
	if c != nil && c.hook != nil {
		return c.hook.Write(b)
	}
	return c.base().Write(b)
}

func (c *TCPConn) Close() error {
	if c != nil && c.hook != nil {
		return c.hook.Close()
	}
	return c.base().Close()
}

func (c *TCPConn) LocalAddr() Addr {
	if c != nil && c.hook != nil {
		return c.hook.LocalAddr()
	}
	return c.base().LocalAddr()
}

func (c *TCPConn) RemoteAddr() Addr {
	if c != nil && c.hook != nil {
		return c.hook.RemoteAddr()
	}
	return c.base().RemoteAddr()
}

func (c *TCPConn) SetDeadline(t time.Time) error {
	if c != nil && c.hook != nil {
		return c.hook.SetDeadline(t)
	}
	return c.base().SetDeadline(t)
}

func (c *TCPConn) SetReadDeadline(t time.Time) error {
	if c != nil && c.hook != nil {
		return c.hook.SetReadDeadline(t)
	}
	return c.base().SetReadDeadline(t)
}

func (c *TCPConn) SetWriteDeadline(t time.Time) error {
	if c != nil && c.hook != nil {
		return c.hook.SetWriteDeadline(t)
	}
	return c.base().SetWriteDeadline(t)
}

func (c *TCPConn) SetReadBuffer(bytes int) error {
	if c != nil && c.hook != nil {
		return c.hook.SetReadBuffer(bytes)
	}
	return c.base().SetReadBuffer(bytes)
}

func (c *TCPConn) SetWriteBuffer(bytes int) error {
	if c != nil && c.hook != nil {
		return c.hook.SetWriteBuffer(bytes)
	}
	return c.base().SetWriteBuffer(bytes)
}

func (c *TCPConn) File() (*os.File, error) {
	if c != nil && c.hook != nil {
		return c.hook.File()
	}
	return c.base().File()
}

func (c *TCPConn) writeBuffers(v *Buffers) (int64, error) {
	if c != nil && c.hook != nil {
		return c.hook.WriteBuffers(v)
	}
	return c.base().writeBuffers(v)
}

func (c *TCPConn) base() *conn {
	if c == nil {
		return nil
	}
	return &c.conn
}
