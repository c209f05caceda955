package contract

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"bsdnet"
	"bsdnet/internal/testutil/stacktest"
	"bsdnet/netem"
)

// What package net makes of networks and addresses of both families is compared with what the stack
// makes of them: everything that a program can see of each listener, dial and pair of listeners.

var (
	tcpNetworks = []string{"tcp", "tcp4", "tcp6"}
	hosts       = []string{
		"", "127.0.0.1", "0.0.0.0", "[::]", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:0.0.0.0]", "[fe80::1]",
		"[2001:db8::1]",
	}
)

// bothKinds runs a test on package net and on a stack's loopback, and compares what it returns.
func bothKinds(t *testing.T, f func(t *testing.T, n *network) []string) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("Linux says what is right")
	}
	if l, err := net.Listen("tcp6", "[::1]:0"); err != nil {
		t.Skip("the system has no IPv6: ", err)
	} else {
		l.Close()
	}
	want := f(t, &network{kernel: true})
	got := f(t, loopback(t))
	for i := range max(len(got), len(want)) {
		var g, w string
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			t.Errorf("\n\t%s\nwith package net\n\t%s", g, w)
		}
	}
	if len(want) < 20 {
		t.Errorf("only %d results", len(want))
	}
}

// anyPort returns text with a port replaced by P.
func anyPort(text string, ports ...string) string {
	for i, p := range ports {
		text = strings.ReplaceAll(text, ":"+p, fmt.Sprintf(":P%d", i))
	}
	return text
}

func portOf(a net.Addr) string {
	_, port, _ := net.SplitHostPort(a.String())
	return port
}

// TestFamiliesListenAndDial: each network and address that is listened on, and each that is dialed
// then.
func TestFamiliesListenAndDial(t *testing.T) {
	bothKinds(t, func(t *testing.T, n *network) (out []string) {
		for _, network := range tcpNetworks {
			for _, host := range hosts {
				l, err := n.listenNet(network, host+":0")
				if err != nil {
					out = append(out, fmt.Sprintf("listen %s %s: %s", network, host, describe(err)))
					continue
				}
				port := portOf(l.Addr())
				out = append(out, fmt.Sprintf("listen %s %s: %s", network, host, anyPort(l.Addr().String(), port)))
				for _, dnet := range tcpNetworks {
					for _, dhost := range hosts {
						if dhost == "[2001:db8::1]" {
							continue // package net's dial would leave the host
						}
						what := fmt.Sprintf("listen %s %s, dial %s %s: ", network, host, dnet, dhost)
						out = append(out, what+n.dialed(t, l, dnet, dhost+":"+port))
					}
				}
				l.Close()
			}
		}
		return out
	})
}

// dialed dials a listener, and returns all that there is to be seen.
func (n *network) dialed(t *testing.T, l net.Listener, network, address string) string {
	port := portOf(l.Addr())
	c, err := n.dialer(nil, 0, time.Time{}).Dial(network, address)
	if err != nil {
		return anyPort(describe(err), port)
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	own := portOf(c.LocalAddr())
	return anyPort(fmt.Sprint(c.LocalAddr(), " ", c.RemoteAddr(), " ", s.LocalAddr(), " ", s.RemoteAddr(), " ",
		c.RemoteAddr().Network()), port, own)
}

// TestFamiliesTwoListeners: which of two listeners is told that the address is in use.
func TestFamiliesTwoListeners(t *testing.T) {
	bothKinds(t, func(t *testing.T, n *network) (out []string) {
		for _, an := range tcpNetworks {
			for _, ah := range hosts {
				a, err := n.listenNet(an, ah+":0")
				if err != nil {
					continue
				}
				port := portOf(a.Addr())
				for _, bn := range tcpNetworks {
					for _, bh := range hosts {
						b, err := n.listenNet(bn, bh+":"+port)
						result := anyPort(describe(err), port)
						out = append(out, fmt.Sprintf("%s %s, then %s %s: %s", an, ah, bn, bh, result))
						if err == nil {
							b.Close()
						}
					}
				}
				a.Close()
			}
		}
		return out
	})
}

// tcpAddrs are local and remote addresses of DialTCP and ListenTCP.
var tcpAddrs = []*net.TCPAddr{
	nil, {}, {IP: net.IPv4zero}, {IP: net.IPv6zero}, {IP: net.IPv4(127, 0, 0, 1)}, {IP: net.IP{127, 0, 0, 1}},
	{IP: net.IPv6loopback}, {IP: net.IPv6loopback, Zone: "none"}, {IP: net.ParseIP("fe80::1")},
	{IP: net.ParseIP("fe80::1"), Zone: "none"}, {IP: net.ParseIP("ff02::1")},
}

// TestFamiliesTCPAddr: the same with addresses that are no text, from each local address.
func TestFamiliesTCPAddr(t *testing.T) {
	bothKinds(t, func(t *testing.T, n *network) (out []string) {
		l, err := n.listenNet("tcp", ":0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		to := l.Addr().(*net.TCPAddr).Port
		for _, network := range tcpNetworks {
			for _, a := range tcpAddrs {
				out = append(out, fmt.Sprintf("ListenTCP %s %v: %s", network, a, n.listenTCP(network, a)))
				for _, b := range tcpAddrs {
					r := b
					if b != nil {
						r = &net.TCPAddr{IP: b.IP, Port: to, Zone: b.Zone}
					}
					result := n.dialTCP(t, l, network, a, r)
					out = append(out, fmt.Sprintf("DialTCP %s %v %v: %s", network, a, b, result))
				}
			}
		}
		return out
	})
}

func (n *network) listenTCP(network string, a *net.TCPAddr) string {
	var l net.Listener
	var err error
	if n.kernel {
		l, err = net.ListenTCP(network, a)
	} else {
		l, err = n.server.ListenTCP(network, a)
	}
	if err != nil {
		return describe(err)
	}
	defer l.Close()
	return anyPort(l.Addr().String(), portOf(l.Addr()))
}

func (n *network) dialTCP(t *testing.T, l net.Listener, network string, a, r *net.TCPAddr) string {
	var c net.Conn
	var err error
	if n.kernel {
		c, err = net.DialTCP(network, a, r)
	} else {
		c, err = n.client.DialTCP(network, a, r)
	}
	if err != nil {
		return anyPort(describe(err), portOf(l.Addr()))
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	return anyPort(fmt.Sprint(c.LocalAddr(), " ", c.RemoteAddr(), " ", s.LocalAddr(), " ", s.RemoteAddr()),
		portOf(l.Addr()), portOf(c.LocalAddr()))
}

// TestLinkLocal: a link-local address has a zone, the name of the link's interface, in every
// address that a program sees, and without one it cannot be reached.
func TestLinkLocal(t *testing.T) {
	inBubble(t, func(t testing.TB) *network {
		a, b, err := netem.Pipe(netem.PipeConfig{MTU: 1500})
		if err != nil {
			t.Fatal(err)
		}
		n := &network{server: stack(t, bsdnet.Config{}), client: stack(t, bsdnet.Config{})}
		stacktest.Attach(t, n.server, a, "fe80::1/64")
		stacktest.Attach(t, n.client, b, "fe80::2/64")
		return n
	}, func(t *testing.T, n *network) {
		for listen, addr := range map[string]string{
			"[fe80::1%if0]:80": "[fe80::1%if0]:80", ":80": "[::]:80", "[::]:80": "[::]:80",
		} {
			l, err := n.server.Listen("tcp", listen)
			if err != nil {
				t.Fatal(err)
			}
			if l.Addr().String() != addr {
				t.Errorf("Listen of %s: %v", listen, l.Addr())
			}
			c, s := n.pairAt(t, l, "[fe80::1%if0]:80")
			if c.RemoteAddr().String() != "[fe80::1%if0]:80" || s.LocalAddr().String() != "[fe80::1%if0]:80" ||
				c.LocalAddr().String() != s.RemoteAddr().String() || c.LocalAddr().(*net.TCPAddr).Zone != "if0" {
				t.Errorf("%v -> %v, accepted as %v -> %v", c.LocalAddr(), c.RemoteAddr(), s.RemoteAddr(), s.LocalAddr())
			}
			echo(t, c, s)
			l.Close()
		}
		for _, to := range []string{"[fe80::1]:80", "[fe80::1%if9]:80"} {
			_, err := n.client.Dial("tcp", to)
			wantError(t, to, err, "dial tcp S: connect: invalid argument [EINVAL SyscallError]", to, "S")
		}
		_, err := n.client.Listen("tcp", "[fe80::2]:0")
		wantError(t, "Listen without a zone", err,
			"listen tcp [fe80::2]:0: bind: invalid argument [EINVAL SyscallError]")
		_, err = n.client.Listen("tcp", "[fe80::1%if0]:0")
		wantError(t, "Listen at the peer's", err, "listen tcp [fe80::1%if0]:0: bind: "+
			"cannot assign requested address [EADDRNOTAVAIL SyscallError]")
	})
}

// TestBothFamiliesAtOnce: one listener takes connections of both families over one link, and
// programs see IPv4 addresses as they are.
func TestBothFamiliesAtOnce(t *testing.T) {
	inBubble(t, cable, func(t *testing.T, n *network) {
		l, err := n.server.Listen("tcp", ":80")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		for _, host := range []string{"10.0.0.1", "fd00::1"} {
			at := net.JoinHostPort(host, "80")
			c, s := n.pairAt(t, l, at)
			for _, a := range []net.Addr{c.RemoteAddr(), s.LocalAddr()} {
				if a.String() != at || a.(*net.TCPAddr).AddrPort().String() != at {
					t.Errorf("the address is %v, dialed %s", a, at)
				}
			}
			if c.LocalAddr().String() != s.RemoteAddr().String() {
				t.Errorf("%v is accepted as %v", c.LocalAddr(), s.RemoteAddr())
			}
			echo(t, c, s)
		}
		for network, host := range map[string]string{"tcp4": "10.0.0.1", "tcp6": "fd00::1"} {
			l, err := n.server.Listen(network, ":81")
			if err != nil {
				t.Fatal(err)
			}
			for _, to := range []string{"10.0.0.1", "fd00::1"} {
				_, err := n.client.Dial("tcp", net.JoinHostPort(to, "81"))
				if (err == nil) != (to == host) || err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
					t.Errorf("a listener of %s, and a dial to %s: %v", network, to, err)
				}
			}
			l.Close()
		}
	})
}

// pairAt is pairOver, with another address that is dialed.
func (n *network) pairAt(t testing.TB, l net.Listener, at string) (c, s tcpConn) {
	t.Helper()
	cc, err := n.dial(at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	sc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sc.Close() })
	return cc.(tcpConn), sc.(tcpConn)
}
