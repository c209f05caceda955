package contract

import (
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"
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
