package contract

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet"
	"bsdnet/internal/testutil/stacktest"
)

// An ipConn has the methods that *net.IPConn and *bsdnet.IPConn have in common.
type ipConn interface {
	net.Conn
	net.PacketConn
	ReadFromIP(b []byte) (int, *net.IPAddr, error)
	ReadMsgIP(b, oob []byte) (n, oobn, flags int, addr *net.IPAddr, err error)
	WriteToIP(b []byte, addr *net.IPAddr) (int, error)
	WriteMsgIP(b, oob []byte, addr *net.IPAddr) (n, oobn int, err error)
	SetReadBuffer(int) error
	SetWriteBuffer(int) error
	File() (*os.File, error)
}

var (
	_ ipConn = (*net.IPConn)(nil)
	_ ipConn = (*bsdnet.IPConn)(nil)
)

// A rawSide is package net, or a stack, for tests of raw sockets.
type rawSide struct {
	name         string
	listenPacket func(network, address string) (net.PacketConn, error)
	dial         func(network, address string) (net.Conn, error)
	listenIP     func(network string, laddr *net.IPAddr) (ipConn, error)
	dialIP       func(network string, laddr, raddr *net.IPAddr) (ipConn, error)
}

// rawSides are a stack and, if the system allows raw sockets, package net.
func rawSides(t *testing.T) []rawSide {
	s := stack(t, bsdnet.Config{})
	sides := []rawSide{{
		"bsdnet", s.ListenPacket, s.Dial,
		func(network string, laddr *net.IPAddr) (ipConn, error) { return s.ListenIP(network, laddr) },
		func(network string, laddr, raddr *net.IPAddr) (ipConn, error) { return s.DialIP(network, laddr, raddr) },
	}}
	if c, err := net.ListenPacket("ip4:253", "127.0.0.1"); err == nil && runtime.GOOS == "linux" {
		c.Close()
		sides = append(sides, rawSide{
			"net", net.ListenPacket, net.Dial,
			func(network string, laddr *net.IPAddr) (ipConn, error) { return net.ListenIP(network, laddr) },
			func(network string, laddr, raddr *net.IPAddr) (ipConn, error) {
				return net.DialIP(network, laddr, raddr)
			},
		})
	} else {
		t.Logf("package net is not asked: %v", err)
	}
	return sides
}

// experimental is a protocol for experiments (RFC 3692), which the tests have for themselves.
const experimental = "253"

// Raw sockets carry packets of any protocol. What the methods return is package net's: the IPv4
// header in some, and in none the header of IPv6.
func TestIPConn(t *testing.T) {
	for _, side := range rawSides(t) {
		for _, f := range []struct {
			network, addr string
			header        int
		}{{"ip4:" + experimental, "127.0.0.1", 20}, {"ip6:" + experimental, "::1", 0}} {
			t.Run(side.name+"/"+f.network, func(t *testing.T) {
				pc, err := side.listenPacket(f.network, f.addr)
				if err != nil {
					t.Fatal(err)
				}
				defer pc.Close()
				c := pc.(ipConn)
				self := &net.IPAddr{IP: net.ParseIP(f.addr)}
				if c.LocalAddr().String() != f.addr || c.LocalAddr().Network() != "ip" || c.RemoteAddr() != nil {
					t.Errorf("addresses %v and %v", c.LocalAddr(), c.RemoteAddr())
				}
				dialed, err := side.dialIP(f.network, nil, self)
				if err != nil {
					t.Fatal(err)
				}
				defer dialed.Close()
				if dialed.RemoteAddr().String() != f.addr || dialed.LocalAddr().String() != f.addr {
					t.Errorf("dialed: addresses %v and %v", dialed.LocalAddr(), dialed.RemoteAddr())
				}
				c.SetDeadline(time.Now().Add(10 * time.Second))
				b := make([]byte, 3000)
				for i, send := range []func(msg []byte) (int, error){
					func(msg []byte) (int, error) { return c.WriteTo(msg, self) },
					func(msg []byte) (int, error) { return c.WriteToIP(msg, self) },
					func(msg []byte) (int, error) { n, _, err := c.WriteMsgIP(msg, nil, self); return n, err },
					dialed.Write,
				} {
					msg := fmt.Appendf(nil, "%s message %d", t.Name(), i)
					for read, header := range map[string]int{
						"ReadFrom": 0, "ReadFromIP": 0, "ReadMsgIP": f.header, "Read": f.header,
					} {
						if n, err := send(msg); n != len(msg) || err != nil {
							t.Fatalf("sent %d of %d, %v", n, len(msg), err)
						}
						n, from, err := readIP(c, read, b)
						if err != nil || n < header || !bytes.Equal(b[header:n], msg) || from != "" && from != f.addr {
							t.Errorf("%s: %q from %s, %v", read, b[:n], from, err)
						}
					}
				}
				if _, err := dialed.WriteTo(nil, self); !errors.Is(err, net.ErrWriteToConnected) {
					t.Errorf("WriteTo of a connected socket: %v", err)
				}
				c.SetReadDeadline(time.Now().Add(-time.Second))
				if _, _, err := c.ReadFrom(b); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("after the deadline: %v", err)
				}
			})
		}
	}
}

// readIP reads by the method of that name, and returns whom the packet is from, "" if the method
// does not say that.
func readIP(c ipConn, method string, b []byte) (n int, from string, err error) {
	var ip *net.IPAddr
	switch method {
	case "Read":
		n, err = c.Read(b)
		return n, "", err
	case "ReadFrom":
		var a net.Addr
		n, a, err = c.ReadFrom(b)
		return n, fmt.Sprint(a), err
	case "ReadFromIP":
		n, ip, err = c.ReadFromIP(b)
	case "ReadMsgIP":
		n, _, _, ip, err = c.ReadMsgIP(b, nil)
	}
	return n, fmt.Sprint(ip), err
}

// Errors of raw sockets are package net's, to the letter.
func TestIPConnErrors(t *testing.T) {
	sides := rawSides(t)
	if len(sides) < 2 {
		t.Skip("package net has no raw sockets here")
	}
	here6 := &net.IPAddr{IP: net.IPv6loopback}
	here, away := &net.IPAddr{IP: net.IPv4(127, 0, 0, 1)}, &net.IPAddr{IP: net.IPv4(192, 0, 2, 1)}
	closing := func(c io.Closer, err error) error {
		if err == nil {
			c.Close()
		}
		return err
	}
	opened := func(side rawSide, f func(c ipConn) error) error {
		c, err := side.listenIP("ip4:"+experimental, here)
		if err != nil {
			return err
		}
		defer c.Close()
		return f(c)
	}
	for name, f := range map[string]func(side rawSide) error{
		"no protocol":      func(s rawSide) error { return closing(s.listenPacket("ip4", "127.0.0.1")) },
		"unknown protocol": func(s rawSide) error { return closing(s.listenPacket("ip4:nonesuch", "127.0.0.1")) },
		"unknown network":  func(s rawSide) error { return closing(s.listenPacket("ip9:icmp", "127.0.0.1")) },
		"other family":     func(s rawSide) error { return closing(s.listenPacket("ip4:icmp", "::1")) },
		"other family, 6":  func(s rawSide) error { return closing(s.listenPacket("ip6:58", "127.0.0.1")) },
		"away":             func(s rawSide) error { return closing(s.listenPacket("ip4:253", "192.0.2.1")) },
		"protocol 0":       func(s rawSide) error { return closing(s.listenPacket("ip4:0", "127.0.0.1")) },
		"ListenIP of TCP":  func(s rawSide) error { return closing(s.listenIP("tcp", here)) },
		"ListenIP away":    func(s rawSide) error { return closing(s.listenIP("ip4:253", away)) },
		"ListenIP, IPv6":   func(s rawSide) error { return closing(s.listenIP("ip4:253", here6)) },
		"dial nobody":      func(s rawSide) error { return closing(s.dial("ip4:253", "")) },
		"dial no protocol": func(s rawSide) error { return closing(s.dial("ip4", "127.0.0.1")) },
		"DialIP nobody":    func(s rawSide) error { return closing(s.dialIP("ip4:253", nil, nil)) },
		"DialIP from away": func(s rawSide) error { return closing(s.dialIP("ip4:253", away, here)) },
		"WriteTo UDP": func(s rawSide) error {
			return opened(s, func(c ipConn) error { _, err := c.WriteTo(nil, &net.UDPAddr{}); return err })
		},
		"WriteToIP nobody": func(s rawSide) error {
			return opened(s, func(c ipConn) error { _, err := c.WriteToIP(nil, nil); return err })
		},
		"WriteToIP, IPv6": func(s rawSide) error {
			return opened(s, func(c ipConn) error { _, err := c.WriteToIP(nil, here6); return err })
		},
		"WriteMsgIP nobody": func(s rawSide) error {
			return opened(s, func(c ipConn) error { _, _, err := c.WriteMsgIP(nil, nil, nil); return err })
		},
		"too long": func(s rawSide) error {
			return opened(s, func(c ipConn) error { _, err := c.WriteToIP(make([]byte, 65516), here); return err })
		},
		"Write without a peer": func(s rawSide) error {
			return opened(s, func(c ipConn) error { _, err := c.Write([]byte("x")); return err })
		},
		"ReadFrom closed": func(s rawSide) error {
			return opened(s, func(c ipConn) error { c.Close(); _, _, err := c.ReadFrom(make([]byte, 9)); return err })
		},
		"Close closed": func(s rawSide) error {
			return opened(s, func(c ipConn) error { c.Close(); return c.Close() })
		},
		"late": func(s rawSide) error {
			return opened(s, func(c ipConn) error {
				c.SetDeadline(time.Now().Add(-time.Hour))
				_, _, err := c.ReadFromIP(make([]byte, 9))
				return err
			})
		},
	} {
		got, want := f(sides[0]), f(sides[1])
		if got == nil || want == nil || got.Error() != want.Error() {
			t.Errorf("%s: %v\npackage net: %v", name, got, want)
		}
	}
}

// There are no raw sockets of TCP and UDP, and DialIP of a Dialer obeys its context.
func TestIPConnOwn(t *testing.T) {
	s := stack(t, bsdnet.Config{})
	for _, network := range []string{"ip4:tcp", "ip6:udp", "ip4:6", "ip4:255", "ip4:256", "ip6:44"} {
		if _, err := s.ListenPacket(network, ""); !errors.Is(err, syscall.EPROTONOSUPPORT) {
			t.Errorf("%s: %v", network, err)
		}
	}
	here := netip.MustParseAddr("127.0.0.1")
	d := bsdnet.Dialer{Stack: s, LocalAddr: &net.IPAddr{IP: net.IPv4(127, 0, 0, 5)}}
	c, err := d.Dial("ip4:253", "localhost")
	if err != nil || c.LocalAddr().String() != "127.0.0.5" || c.RemoteAddr().String() != "127.0.0.1" {
		t.Fatalf("%v, %v", c, err)
	}
	c.Close()
	ctx, cancel := context.WithCancel(context.Background())
	ic, err := d.DialIP(ctx, "ip4:253", netip.Addr{}, here)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ic.File(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("File: %v", err)
	}
	err = errors.Join(ic.SetReadBuffer(4096), ic.SetWriteBuffer(4096), ic.SetWriteDeadline(time.Time{}))
	if err != nil {
		t.Error(err)
	}
	ic.Close()
	cancel()
	if _, err := d.DialIP(ctx, "ip4:253", netip.Addr{}, here); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	d.LocalAddr = &net.TCPAddr{}
	if _, err := d.Dial("ip4:253", "127.0.0.1"); err == nil || !strings.Contains(err.Error(), "mismatched") {
		t.Errorf("from a TCP address: %v", err)
	}
	all, err := s.ListenIP("ip4:icmp", nil)
	if err != nil || all.LocalAddr().String() != "0.0.0.0" {
		t.Fatalf("%v, %v", all, err)
	}
	all.Close()
	one, err := bsdnet.ListenIP("ip4:253", &net.IPAddr{IP: net.IPv4(127, 0, 0, 9)}) // on the default stack
	if err != nil {
		t.Fatal(err)
	}
	two, err := bsdnet.DialIP("ip4:253", nil, &net.IPAddr{IP: net.IPv4(127, 0, 0, 9)})
	if err != nil {
		t.Fatal(err)
	}
	two.Write([]byte("default"))
	b := make([]byte, 7)
	if n, _, err := one.ReadFrom(b); string(b[:n]) != "default" || err != nil { // the header takes no room
		t.Errorf("%q, %v", b, err)
	}
	one.Close()
	two.Close()
}

// ListenICMP: ping sockets of both families and raw ones, as users of golang.org/x/net/icmp have
// them, in a bubble, between two stacks.
func TestListenICMP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := row(t, 1500, 1500)
		udpAddr := func(ip net.IP) net.Addr { return &net.UDPAddr{IP: ip} }
		ipAddr := func(ip net.IP) net.Addr { return &net.IPAddr{IP: ip} }
		for _, f := range []struct {
			network, local, far string
			request, reply      byte
			to                  func(ip net.IP) net.Addr
			raw                 bool
		}{
			{"udp4", "0.0.0.0", "10.0.1.2", 8, 0, udpAddr, false},
			{"udp6", "::", "fd00:0:0:1::2", 128, 129, udpAddr, false},
			{"ip4:icmp", "0.0.0.0", "10.0.1.2", 8, 0, ipAddr, true},
			{"ip6:ipv6-icmp", "::", "fd00:0:0:1::2", 128, 129, ipAddr, true},
		} {
			for _, address := range []string{f.local, ""} {
				c, err := s[0].ListenICMP(f.network, address)
				if err != nil {
					t.Fatal(err)
				}
				u, ok := c.LocalAddr().(*net.UDPAddr)
				if ok == f.raw || ok && (u.Port == 0 || u.IP.String() != f.local) {
					t.Errorf("%s: local address %v", f.network, c.LocalAddr())
				}
				msg := append([]byte{f.request, 0, 0, 0, 0, 7, 0, 1}, "HELLO-R-U-THERE"...)
				if f.raw && f.request == 8 { // its checksum is the user's
					sum := uint32(0)
					for i, x := range msg {
						sum += uint32(x) << (8 * (1 - i%2))
					}
					sum = ^(sum>>16 + sum&0xffff)
					msg[2], msg[3] = byte(sum>>8), byte(sum)
				}
				to := f.to(net.ParseIP(f.far))
				if _, err := c.WriteTo(msg, to); err != nil {
					t.Fatal(err)
				}
				c.SetReadDeadline(time.Now().Add(time.Second))
				b := make([]byte, 1500)
				n, from, err := c.ReadFrom(b)
				if err != nil || b[0] != f.reply || !bytes.Equal(b[6:n], msg[6:]) || from.String() != to.String() {
					t.Errorf("%s: %x from %v, %v", f.network, b[:n], from, err)
				}
				msg[0] = f.reply
				if _, err := c.WriteTo(msg, to); (err == nil) != f.raw {
					t.Errorf("%s: a reply of the user's: %v", f.network, err)
				}
				c.Close()
			}
		}
		for _, c := range []struct{ network, address, want string }{
			{"udp", "", "unknown network udp"},
			{"tcp4", "", "unknown network tcp4"},
			{"udp4", "10.9.9.9", "cannot assign requested address"},
			{"udp4", "::1", "no suitable address found"},
			{"udp6", "fe80::1", "invalid argument"}, // without a zone
		} {
			if _, err := s[0].ListenICMP(c.network, c.address); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s %s: %v, want %q", c.network, c.address, err, c.want)
			}
		}
	})
}

// The methods that leave out the IPv4 header leave out its options too.
func TestIPConnOptions(t *testing.T) {
	s := stack(t, bsdnet.Config{})
	a, b := pipe(t)
	stacktest.Attach(t, s, a, "10.0.0.1/24")
	if err := b.Start(func() {}); err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	c, err := s.ListenIP("ip4:253", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p := []byte{0x47, 0, 0, 33, 0, 0, 0, 0, 9, 253, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1, 148, 4, 0, 0, 1, 1, 1, 0}
	sum := 0
	for i := 0; i < len(p); i += 2 {
		sum += int(p[i])<<8 | int(p[i+1])
	}
	sum = ^(sum>>16 + sum&0xffff)
	p[10], p[11] = byte(sum>>8), byte(sum)
	if _, err := b.Write([]net.Buffers{{append(p, "hello"...)}}); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	if n, from, err := c.ReadFrom(buf); string(buf[:n]) != "hello" || from.String() != "10.0.0.2" || err != nil {
		t.Errorf("%q from %v, %v", buf[:n], from, err)
	}
}
