package piontransport

import (
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pion/transport/v3"

	"bsdnet"
)

func newNet(t *testing.T) *Net {
	s, err := bsdnet.New(bsdnet.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return New(s)
}

// TestTCP asserts that Pion's TCP types are those of the stack.
func TestTCP(t *testing.T) {
	n := newNet(t)
	ln, err := n.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	dials := map[string]func() (net.Conn, error){
		"Dial":    func() (net.Conn, error) { return n.Dial("tcp", ln.Addr().String()) },
		"DialTCP": func() (net.Conn, error) { return n.DialTCP("tcp", nil, ln.Addr().(*net.TCPAddr)) },
		"CreateDialer": func() (net.Conn, error) {
			return n.CreateDialer(&net.Dialer{Timeout: time.Minute}).Dial("tcp", ln.Addr().String())
		},
	}
	for name, dial := range dials {
		c, err := dial()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		a, err := ln.AcceptTCP()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		io.WriteString(c, name)
		c.Close()
		if got, err := io.ReadAll(a); string(got) != name || err != nil {
			t.Errorf("%s: read %q, %v", name, got, err)
		}
		a.Close()
	}
}

// TestUDP asserts the same of UDP.
func TestUDP(t *testing.T) {
	n := newNet(t)
	p, err := n.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	to := p.LocalAddr().(*net.UDPAddr)
	u, err := n.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	d, err := n.DialUDP("udp4", nil, to)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	sends := map[string]func(b []byte) (int, error){
		"ListenUDP": func(b []byte) (int, error) { return u.WriteToUDP(b, to) },
		"DialUDP":   d.Write,
	}
	for name, send := range sends {
		if _, err := send([]byte(name)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		b := make([]byte, 100)
		if k, _, err := p.ReadFrom(b); string(b[:k]) != name || err != nil {
			t.Errorf("%s: read %q, %v", name, b[:k], err)
		}
	}
}

// TestErrors asserts that no call returns a nil pointer in an interface, and that errors are those
// of the stack, or Pion's own.
func TestErrors(t *testing.T) {
	n := newNet(t)
	none := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}
	noneUDP := &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}
	ln, lnErr := n.ListenTCP("tcp", none)
	p, pErr := n.ListenPacket("udp", noneUDP.String())
	u, uErr := n.ListenUDP("udp", noneUDP)
	c, cErr := n.DialTCP("tcp", nil, none)
	d, dErr := n.DialUDP("udp", nil, noneUDP)
	unix, unixErr := n.Dial("unix", "/socket")
	gram, gramErr := n.ListenPacket("unixgram", "/socket")
	viaDialer, viaErr := n.CreateDialer(&net.Dialer{}).Dial("unix", "/socket")
	_, ifErr := n.InterfaceByName("eth0")
	_, indexErr := n.InterfaceByIndex(9)
	for _, r := range []struct {
		name      string
		err, want error
		isNil     bool
	}{
		{"ListenTCP", lnErr, syscall.EADDRNOTAVAIL, ln == nil},
		{"ListenPacket", pErr, syscall.EADDRNOTAVAIL, p == nil},
		{"ListenUDP", uErr, syscall.EADDRNOTAVAIL, u == nil},
		{"DialTCP", cErr, syscall.ENETUNREACH, c == nil},
		{"DialUDP", dErr, syscall.ENETUNREACH, d == nil},
		{"Dial unix", unixErr, transport.ErrNotSupported, unix == nil},
		{"ListenPacket unixgram", gramErr, transport.ErrNotSupported, gram == nil},
		{"CreateDialer unix", viaErr, transport.ErrNotSupported, viaDialer == nil},
		{"InterfaceByName", ifErr, transport.ErrInterfaceNotFound, true},
		{"InterfaceByIndex", indexErr, transport.ErrInterfaceNotFound, true},
	} {
		if !errors.Is(r.err, r.want) || !r.isNil {
			t.Errorf("%s: error %v, want %v; nil: %v", r.name, r.err, r.want, r.isNil)
		}
	}
}

func TestInterfaces(t *testing.T) {
	n := newNet(t)
	lo, err := n.InterfaceByName("lo0")
	if err != nil {
		t.Fatal(err)
	}
	if same, err := n.InterfaceByIndex(lo.Index); err != nil || same.Name != "lo0" {
		t.Errorf("index %d: %v, %v", lo.Index, same, err)
	}
	const flags = net.FlagUp | net.FlagLoopback | net.FlagRunning
	if lo.Flags != flags || lo.MTU != 65535 {
		t.Errorf("flags %v, MTU %d", lo.Flags, lo.MTU)
	}
	addrs, err := lo.Addrs()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, a := range addrs {
		got = append(got, a.String())
	}
	if len(got) != 2 || got[0] != "127.0.0.1/8" || got[1] != "::1/128" {
		t.Errorf("addresses %v", got)
	}
}

func TestResolve(t *testing.T) {
	n := newNet(t)
	for _, r := range []struct{ network, address, want string }{
		{"udp", "10.0.0.1:53", "10.0.0.1:53"},
		{"udp4", "localhost:domain", "127.0.0.1:53"},
		{"udp6", "localhost:53", "[::1]:53"},
		{"udp", ":53", ":53"},
		{"tcp", "[fe80::1%if1]:80", "[fe80::1%if1]:80"},
		{"tcp4", "localhost:http", "127.0.0.1:80"},
		{"ip", "localhost", "127.0.0.1"},
		{"ip6:ipv6-icmp", "::1", "::1"},
	} {
		var got net.Addr
		var err error
		switch strings.TrimRight(r.network, "46") {
		case "udp":
			got, err = n.ResolveUDPAddr(r.network, r.address)
		case "tcp":
			got, err = n.ResolveTCPAddr(r.network, r.address)
		default:
			got, err = n.ResolveIPAddr(r.network, r.address)
		}
		if err != nil || got.String() != r.want {
			t.Errorf("%s %s: %v, %v, want %s", r.network, r.address, got, err, r.want)
		}
	}
	for _, network := range []string{"unix", "tcp"} {
		if _, err := n.ResolveUDPAddr(network, "10.0.0.1:1"); !errors.As(err, new(net.UnknownNetworkError)) {
			t.Errorf("ResolveUDPAddr(%q): %v", network, err)
		}
	}
}
