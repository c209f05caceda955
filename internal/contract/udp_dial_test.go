package contract

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"bsdnet"
)

// dialUDPFrom is DialUDP of a Dialer of the end.
func (e end) dialUDPFrom(ctx context.Context, network string, laddr, raddr netip.AddrPort) (udpConn, error) {
	if e.stack == nil {
		return orNil[udpConn](new(net.Dialer).DialUDP(ctx, network, laddr, raddr))
	}
	return orNil[udpConn]((&bsdnet.Dialer{Stack: e.stack}).DialUDP(ctx, network, laddr, raddr))
}

// dialWith dials with a LocalAddr.
func (e end) dialWith(local net.Addr, network, address string) (net.Conn, error) {
	if e.stack == nil {
		return (&net.Dialer{LocalAddr: local}).Dial(network, address)
	}
	return (&bsdnet.Dialer{Stack: e.stack, LocalAddr: local}).Dial(network, address)
}

// TestUDPDialer tests DialUDP and LocalAddr of a Dialer.
func TestUDPDialer(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		s := n.serverEnd().open(t)
		e := n.clientEnd()
		to := s.LocalAddr().String()
		any, one := netip.MustParseAddrPort("0.0.0.0:0"), netip.MustParseAddrPort(net.JoinHostPort(n.chost, "0"))
		for _, from := range []netip.AddrPort{{}, one, any} {
			c, err := e.dialUDPFrom(context.Background(), "udp4", from, addrPortOf(s))
			if err != nil {
				t.Fatal(err)
			}
			if a := udpAddr(c); a.IP.String() != n.chost || a.Port == 0 {
				t.Errorf("from %v: the local address is %v", from, a)
			}
			c.Write([]byte("x"))
			readSoon(t, s)
			c.Close()
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_, err := e.dialUDPFrom(ctx, "udp4", netip.AddrPort{}, addrPortOf(s))
		wantError(t, "DialUDP, canceled", err, "dial udp4 :0->S: operation was canceled [context.Canceled]", to, "S")

		own := e.open(t)
		local := udpAddr(own)
		own.Close()
		c, err := e.dialWith(local, "udp", to)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if c.LocalAddr().String() != local.String() {
			t.Errorf("the local address is %v, not %v", c.LocalAddr(), local)
		}
		_, err = e.dialWith(local, "udp", to)
		wantError(t, "LocalAddr, in use", err, "dial udp C->S: bind: address already in use [EADDRINUSE SyscallError]",
			to, "S", local, "C")
		_, err = e.dialWith(&net.TCPAddr{IP: local.IP}, "udp", to)
		if n.kernel {
			return // package net's error names no addresses
		}
		wantError(t, "LocalAddr of TCP", err, "dial udp C:0->S: address C:0: mismatched local address type []",
			to, "S", net.JoinHostPort(n.chost, "0"), "C:0")
	})
}

// TestReusePort tests that sockets and listeners share an address if all of them have ReusePort.
func TestReusePort(t *testing.T) {
	eachOwn(t, func(t *testing.T, n *network) {
		lc := &bsdnet.ListenConfig{Stack: n.server, ReusePort: true}
		first, err := lc.ListenPacket(context.Background(), "udp", net.JoinHostPort(n.shost, "0"))
		if err != nil {
			t.Fatal(err)
		}
		defer first.Close()
		addr := first.LocalAddr().String()
		_, err = n.server.ListenPacket("udp", addr)
		wantError(t, "without", err, "listen udp S: bind: address already in use [EADDRINUSE SyscallError]", addr, "S")
		second, err := lc.ListenPacket(context.Background(), "udp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer second.Close()
		got := make(chan string)
		for _, c := range []net.PacketConn{first, second} {
			go func() {
				b := make([]byte, 100)
				for {
					k, _, err := c.ReadFrom(b)
					if err != nil {
						return
					}
					got <- string(b[:k])
				}
			}()
		}
		for i := range 20 { // each datagram is for one of them
			c := n.clientEnd().connect(t, addr)
			want := fmt.Sprint(i)
			c.Write([]byte(want))
			if d := within(t, "a datagram", got); d != want {
				t.Errorf("read %q, want %q", d, want)
			}
		}
		select {
		case d := <-got:
			t.Errorf("%q came twice", d)
		default:
		}

		ln, err := lc.Listen(context.Background(), "tcp", net.JoinHostPort(n.shost, "0"))
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		ln2, err := lc.Listen(context.Background(), "tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		ln2.Close()
	})
}

// TestUDPListenPacketContext tests that a name is resolved within the context, which has no effect
// on the socket later.
func TestUDPListenPacketContext(t *testing.T) {
	eachOwn(t, func(t *testing.T, n *network) {
		lc := &bsdnet.ListenConfig{Stack: n.server}
		ctx, cancel := context.WithCancel(context.Background())
		c, err := lc.ListenPacket(ctx, "udp", net.JoinHostPort(n.shost, "0"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		cancel()
		c.WriteTo([]byte("x"), c.LocalAddr())
		c.SetReadDeadline(time.Now().Add(time.Minute))
		if k, _, err := c.ReadFrom(make([]byte, 2)); k != 1 || err != nil {
			t.Errorf("%d, %v", k, err)
		}
		l, err := lc.ListenPacket(context.Background(), "udp", "localhost:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if a := udpAddr(l); !a.IP.IsLoopback() {
			t.Errorf("localhost is %v", a)
		}
	})
}
