package contract

import (
	"context"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"bsdnet"
)

// A udpConn has the methods that *net.UDPConn and *bsdnet.UDPConn have in common.
type udpConn interface {
	net.Conn
	net.PacketConn
	ReadFromUDP(b []byte) (int, *net.UDPAddr, error)
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	ReadMsgUDP(b, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error)
	ReadMsgUDPAddrPort(b, oob []byte) (n, oobn, flags int, addr netip.AddrPort, err error)
	WriteToUDP(b []byte, addr *net.UDPAddr) (int, error)
	WriteToUDPAddrPort(b []byte, addr netip.AddrPort) (int, error)
	WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error)
	WriteMsgUDPAddrPort(b, oob []byte, addr netip.AddrPort) (n, oobn int, err error)
	SetReadBuffer(int) error
	SetWriteBuffer(int) error
	File() (*os.File, error)
}

var (
	_ udpConn = (*net.UDPConn)(nil)
	_ udpConn = (*bsdnet.UDPConn)(nil)
)

// An end is one side of a network, with the calls that make sockets there.
type end struct {
	stack *bsdnet.Stack // nil: package net
	host  string
}

func (n *network) serverEnd() end { return end{n.server, n.shost} }
func (n *network) clientEnd() end { return end{n.client, n.chost} }

func (e end) listenPacket(network, address string) (net.PacketConn, error) {
	if e.stack == nil {
		return net.ListenPacket(network, address)
	}
	return e.stack.ListenPacket(network, address)
}

// listenUDP and dialUDP return an interface that is nil if there is an error.
func (e end) listenUDP(network string, laddr *net.UDPAddr) (udpConn, error) {
	if e.stack == nil {
		return orNil[udpConn](net.ListenUDP(network, laddr))
	}
	return orNil[udpConn](e.stack.ListenUDP(network, laddr))
}

func (e end) dialUDP(network string, laddr, raddr *net.UDPAddr) (udpConn, error) {
	if e.stack == nil {
		return orNil[udpConn](net.DialUDP(network, laddr, raddr))
	}
	return orNil[udpConn](e.stack.DialUDP(network, laddr, raddr))
}

func orNil[I, T any](c T, err error) (i I, _ error) {
	if err != nil {
		return i, err
	}
	return any(c).(I), nil
}

func (e end) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if e.stack == nil {
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	return e.stack.DialContext(ctx, network, address)
}

// open returns a socket at an address of the end, which is closed at the end of the test.
func (e end) open(t testing.TB) udpConn {
	t.Helper()
	c, err := e.listenPacket("udp", net.JoinHostPort(e.host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(udpConn)
}

// connect returns a socket whose peer is at address.
func (e end) connect(t testing.TB, address string) udpConn {
	t.Helper()
	c, err := e.dial(context.Background(), "udp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(udpConn)
}

// udpPair returns two sockets, each the peer of the other.
func (n *network) udpPair(t testing.TB) (c, s udpConn) {
	t.Helper()
	first := n.serverEnd().open(t)
	c = n.clientEnd().connect(t, first.LocalAddr().String())
	local := first.LocalAddr().(*net.UDPAddr)
	first.Close()
	s, err := n.serverEnd().dialUDP("udp", local, c.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return c, s
}

// readSoon reads a datagram within a minute.
func readSoon(t testing.TB, c net.Conn) string {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(time.Minute))
	b := make([]byte, 65536)
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Time{})
	return string(b[:n])
}

func udpAddr(c net.PacketConn) *net.UDPAddr      { return c.LocalAddr().(*net.UDPAddr) }
func addrPortOf(c net.PacketConn) netip.AddrPort { return udpAddr(c).AddrPort() }
