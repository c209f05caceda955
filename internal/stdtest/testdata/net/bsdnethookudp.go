// Package net's side of the hook for UDP.

package net

import (
	"context"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// A UDPHook is another UDP: where it is set, the calls of package net that would make a UDP socket of the kernel go to it, if hookTakesUDP
// says so.
type UDPHook interface {
	DialUDP(ctx context.Context, d *Dialer, network string, laddr, raddr *UDPAddr) (UDPHookConn, error)
	ListenUDP(network string, laddr *UDPAddr) (UDPHookConn, error)
}

// A UDPHookConn is what is behind a UDPConn of the other UDP: its methods, one by one.
type UDPHookConn interface {
	Conn
	ReadFrom(b []byte) (int, Addr, error)
	ReadFromUDP(b []byte) (int, *UDPAddr, error)
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	ReadMsgUDP(b, oob []byte) (n, oobn, flags int, addr *UDPAddr, err error)
	ReadMsgUDPAddrPort(b, oob []byte) (n, oobn, flags int, addr netip.AddrPort, err error)
	WriteTo(b []byte, addr Addr) (int, error)
	WriteToUDP(b []byte, addr *UDPAddr) (int, error)
	WriteToUDPAddrPort(b []byte, addr netip.AddrPort) (int, error)
	WriteMsgUDP(b, oob []byte, addr *UDPAddr) (n, oobn int, err error)
	WriteMsgUDPAddrPort(b, oob []byte, addr netip.AddrPort) (n, oobn int, err error)
	SetReadBuffer(bytes int) error
	SetWriteBuffer(bytes int) error
	SyscallConn() (syscall.RawConn, error)
	File() (*os.File, error)
}

// UDPHooked is the other UDP; nil: the kernel's.
var UDPHooked UDPHook

func hookedUDP(c UDPHookConn, err error) (*UDPConn, error) {
	if err != nil {
		return nil, err
	}
	return &UDPConn{hook: c}, nil
}

// hookTakesUDP reports whether the other UDP gets a call. The kernel keeps what leads to its interfaces, and to the servers of the resolver.
func hookTakesUDP(addrs ...*UDPAddr) bool {
	if UDPHooked == nil {
		return false
	}
	for _, a := range addrs {
		if a != nil && (a.Port == 53 || len(a.IP) > 0 && !a.IP.IsUnspecified() && !a.IP.IsLoopback()) {
			return false
		}
	}
	return true
}

// What UDPConn has from conn.

func (c *UDPConn) Read(b []byte) (int, error) {
	if c != nil && c.hook != nil {
		return c.hook.Read(b)
	}
	return c.base().Read(b)
}

func (c *UDPConn) Write(b []byte) (int, error) {
	if c != nil && c.hook != nil {
		return c.hook.Write(b)
	}
	return c.base().Write(b)
}

func (c *UDPConn) Close() error {
	if c != nil && c.hook != nil {
		return c.hook.Close()
	}
	return c.base().Close()
}

func (c *UDPConn) LocalAddr() Addr {
	if c != nil && c.hook != nil {
		return c.hook.LocalAddr()
	}
	return c.base().LocalAddr()
}

func (c *UDPConn) RemoteAddr() Addr {
	if c != nil && c.hook != nil {
		return c.hook.RemoteAddr()
	}
	return c.base().RemoteAddr()
}

func (c *UDPConn) SetDeadline(t time.Time) error {
	if c != nil && c.hook != nil {
		return c.hook.SetDeadline(t)
	}
	return c.base().SetDeadline(t)
}

func (c *UDPConn) SetReadDeadline(t time.Time) error {
	if c != nil && c.hook != nil {
		return c.hook.SetReadDeadline(t)
	}
	return c.base().SetReadDeadline(t)
}

func (c *UDPConn) SetWriteDeadline(t time.Time) error {
	if c != nil && c.hook != nil {
		return c.hook.SetWriteDeadline(t)
	}
	return c.base().SetWriteDeadline(t)
}

func (c *UDPConn) SetReadBuffer(bytes int) error {
	if c != nil && c.hook != nil {
		return c.hook.SetReadBuffer(bytes)
	}
	return c.base().SetReadBuffer(bytes)
}

func (c *UDPConn) SetWriteBuffer(bytes int) error {
	if c != nil && c.hook != nil {
		return c.hook.SetWriteBuffer(bytes)
	}
	return c.base().SetWriteBuffer(bytes)
}

func (c *UDPConn) File() (*os.File, error) {
	if c != nil && c.hook != nil {
		return c.hook.File()
	}
	return c.base().File()
}

func (c *UDPConn) base() *conn {
	if c == nil {
		return nil
	}
	return &c.conn
}
