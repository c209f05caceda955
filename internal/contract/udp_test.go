package contract

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"bsdnet"
	"bsdnet/internal/testutil"
)

// TestUDPNames tests the addresses of sockets, and what a nil one is.
func TestUDPNames(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		s := n.serverEnd().open(t)
		if a, ok := s.LocalAddr().(*net.UDPAddr); !ok || a.Port == 0 || a.IP.String() != n.shost {
			t.Errorf("local address %#v", s.LocalAddr())
		}
		if a := s.RemoteAddr(); a != nil {
			t.Errorf("remote address %#v of a socket without a peer", a)
		}
		c := n.clientEnd().connect(t, s.LocalAddr().String())
		if a, ok := c.LocalAddr().(*net.UDPAddr); !ok || a.Port == 0 || a.IP.String() != n.chost {
			t.Errorf("local address %#v", c.LocalAddr())
		}
		if a, ok := c.RemoteAddr().(*net.UDPAddr); !ok || a.String() != s.LocalAddr().String() {
			t.Errorf("remote address %#v", c.RemoteAddr())
		}
		if c.LocalAddr() != c.LocalAddr() || c.RemoteAddr() != c.RemoteAddr() {
			t.Error("the addresses are other pointers in each call")
		}
		for _, local := range []*net.UDPAddr{{IP: net.ParseIP(n.chost)}, {}} {
			d, err := n.clientEnd().dialUDP("udp4", local, udpAddr(s))
			if err != nil {
				t.Fatal(err)
			}
			if a := udpAddr(d); a.IP.String() != n.chost || a.Port == 0 {
				t.Errorf("from %v: local address %v", local, a)
			}
			d.Close()
		}
		w, err := n.serverEnd().listenUDP("udp4", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if a := udpAddr(w); !a.IP.Equal(net.IPv4zero) || a.Port == 0 {
			t.Errorf("local address %v of a wildcard", a)
		}
	})
}

// A udpWrite sends b to address a; a udpRead reads a datagram, and returns who has sent it, as
// text.
type (
	udpWrite struct {
		name string
		do   func(c udpConn, b []byte, a *net.UDPAddr) (int, error)
	}
	udpRead struct {
		name string
		do   func(c udpConn, b []byte) (int, string, error)
	}
)

var udpWrites = []udpWrite{
	{"WriteTo", func(c udpConn, b []byte, a *net.UDPAddr) (int, error) { return c.WriteTo(b, a) }},
	{"WriteToUDP", func(c udpConn, b []byte, a *net.UDPAddr) (int, error) { return c.WriteToUDP(b, a) }},
	{"WriteToUDPAddrPort", func(c udpConn, b []byte, a *net.UDPAddr) (int, error) {
		return c.WriteToUDPAddrPort(b, a.AddrPort())
	}},
	{"WriteMsgUDP", func(c udpConn, b []byte, a *net.UDPAddr) (int, error) {
		k, oob, err := c.WriteMsgUDP(b, nil, a)
		return k + oob, err
	}},
	{"WriteMsgUDPAddrPort", func(c udpConn, b []byte, a *net.UDPAddr) (int, error) {
		k, oob, err := c.WriteMsgUDPAddrPort(b, nil, a.AddrPort())
		return k + oob, err
	}},
	{"WriteTo with 16 bytes of address", func(c udpConn, b []byte, a *net.UDPAddr) (int, error) {
		return c.WriteTo(b, &net.UDPAddr{IP: a.IP.To16(), Port: a.Port})
	}},
	{"WriteToUDPAddrPort, mapped", func(c udpConn, b []byte, a *net.UDPAddr) (int, error) {
		return c.WriteToUDPAddrPort(b, netip.AddrPortFrom(netip.AddrFrom16([16]byte(a.IP.To16())), uint16(a.Port)))
	}},
}

var udpReads = []udpRead{
	{"Read", func(c udpConn, b []byte) (int, string, error) { k, err := c.Read(b); return k, "", err }},
	{"ReadFrom", func(c udpConn, b []byte) (int, string, error) {
		k, a, err := c.ReadFrom(b)
		return k, addrText(a), err
	}},
	{"ReadFromUDP", func(c udpConn, b []byte) (int, string, error) {
		k, a, err := c.ReadFromUDP(b)
		return k, addrText(a), err
	}},
	{"ReadFromUDPAddrPort", func(c udpConn, b []byte) (int, string, error) {
		k, a, err := c.ReadFromUDPAddrPort(b)
		return k, a.String(), err
	}},
	{"ReadMsgUDP", func(c udpConn, b []byte) (int, string, error) {
		k, oob, _, a, err := c.ReadMsgUDP(b, nil)
		return max(k+oob, 0), addrText(a), err // package net returns -1 with some errors
	}},
	{"ReadMsgUDPAddrPort", func(c udpConn, b []byte) (int, string, error) {
		k, oob, _, a, err := c.ReadMsgUDPAddrPort(b, nil)
		return max(k+oob, 0), a.String(), err
	}},
}

// addrText tells what a program sees of an address: its text, and how many bytes it has.
func addrText(a net.Addr) string {
	switch u, ok := a.(*net.UDPAddr); {
	case a == nil:
		return "nil"
	case ok && u != nil && len(u.IP) != 4:
		return fmt.Sprintf("%v of %d bytes", u, len(u.IP))
	}
	return a.String()
}

// TestUDPExchange tests every way to write with every way to read.
func TestUDPExchange(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		s, c := n.serverEnd().open(t), n.clientEnd().open(t)
		b := make([]byte, 100)
		for _, w := range udpWrites {
			for _, r := range udpReads {
				data := w.name + ", " + r.name
				if k, err := w.do(c, []byte(data), udpAddr(s)); k != len(data) || err != nil {
					t.Fatalf("%s: wrote %d, %v", data, k, err)
				}
				k, from, err := r.do(s, b)
				if string(b[:k]) != data || err != nil {
					t.Fatalf("%s: read %q, %v", data, b[:k], err)
				}
				if r.name != "Read" && from != c.LocalAddr().String() {
					t.Errorf("%s: from %s, not %v", data, from, c.LocalAddr())
				}
			}
		}
		// With a peer: there and back.
		d := n.clientEnd().connect(t, s.LocalAddr().String())
		for i, w := range []func(b []byte) (int, error){
			d.Write,
			func(b []byte) (int, error) { k, _, err := d.WriteMsgUDP(b, nil, nil); return k, err },
			func(b []byte) (int, error) {
				k, _, err := d.WriteMsgUDPAddrPort(b, nil, netip.AddrPort{})
				return k, err
			},
		} {
			if _, err := w([]byte("to the peer")); err != nil {
				t.Fatalf("%d: %v", i, err)
			}
			k, a, err := s.ReadFrom(b)
			if string(b[:k]) != "to the peer" || err != nil || a.String() != d.LocalAddr().String() {
				t.Fatalf("%d: read %q from %v, %v", i, b[:k], a, err)
			}
			s.WriteTo([]byte("back"), a)
			if got := readSoon(t, d); got != "back" {
				t.Fatalf("%d: read %q", i, got)
			}
		}
	})
}

// TestUDPShortBuffers tests that a datagram that is too long for its buffer loses its end, without
// an error.
func TestUDPShortBuffers(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		s := n.serverEnd().open(t)
		c := n.clientEnd().connect(t, s.LocalAddr().String())
		b := make([]byte, 4)
		for _, r := range udpReads {
			for _, size := range []int{4, 1, 0} {
				if size == 0 && r.name == "Read" {
					continue
				}
				c.Write([]byte("datagram"))
				k, _, err := r.do(s, b[:size])
				if string(b[:k]) != "datagram"[:size] || err != nil {
					t.Errorf("%s with %d bytes: %q, %v", r.name, size, b[:k], err)
				}
			}
		}
		c.Write([]byte("last"))
		if got := readSoon(t, s); got != "last" { // what was cut off does not come later
			t.Errorf("read %q", got)
		}
	})
}

// TestUDPEmpty tests datagrams without data, and reads without a buffer.
func TestUDPEmpty(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		s, c := n.serverEnd().open(t), n.clientEnd().open(t)
		b := make([]byte, 4)
		for _, r := range udpReads {
			for _, w := range udpWrites {
				if k, err := w.do(c, nil, udpAddr(s)); k != 0 || err != nil {
					t.Fatalf("%s: %d, %v", w.name, k, err)
				}
				if k, from, err := r.do(s, b); k != 0 || err != nil || from != "" && from != c.LocalAddr().String() {
					t.Errorf("%s after %s: %d from %s, %v", r.name, w.name, k, from, err)
				}
			}
		}
		c.WriteTo([]byte("here"), s.LocalAddr())
		for range 2 { // Read of nothing neither waits nor takes
			if k, err := s.Read(nil); k != 0 || err != nil {
				t.Errorf("%d, %v", k, err)
			}
		}
		if got := readSoon(t, s); got != "here" {
			t.Errorf("read %q", got)
		}
		if k, err := s.Read(nil); k != 0 || err != nil {
			t.Errorf("%d, %v", k, err)
		}
	})
}

// TestUDPPeerOnly tests that a socket with a peer receives what its peer sends, and nothing else.
func TestUDPPeerOnly(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		s, other := n.serverEnd().open(t), n.serverEnd().open(t)
		c := n.clientEnd().connect(t, s.LocalAddr().String())
		if _, err := other.WriteTo([]byte("from another"), c.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		n.settle()
		s.WriteTo([]byte("from the peer"), c.LocalAddr())
		if got := readSoon(t, c); got != "from the peer" {
			t.Errorf("read %q", got)
		}
	})
}

// TestUDPWildcard tests that a socket without an address receives what comes to any, and answers
// from the address that the datagram was for.
func TestUDPWildcard(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		for _, network := range []string{"udp4", "udp"} {
			w, err := n.serverEnd().listenPacket(network, ":0")
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			c := n.clientEnd().connect(t, net.JoinHostPort(n.shost, fmt.Sprint(udpAddr(w).Port)))
			c.Write([]byte("ping"))
			b := make([]byte, 10)
			k, from, err := w.ReadFrom(b)
			if string(b[:k]) != "ping" || err != nil || from.String() != c.LocalAddr().String() {
				t.Fatalf("%q from %v, %v", b[:k], from, err)
			}
			w.WriteTo([]byte("pong"), from)
			if got := readSoon(t, c); got != "pong" {
				t.Errorf("read %q", got)
			}
		}
	})
}

// TestUDPThisHost tests that to dial or to write to no address is to do so to this host.
func TestUDPThisHost(t *testing.T) {
	eachLoopback(t, func(t *testing.T, n *network) {
		s, err := n.serverEnd().listenPacket("udp4", ":0")
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		port := udpAddr(s).Port
		for _, a := range []string{"", "0.0.0.0", "localhost"} {
			d, err := n.clientEnd().dial(context.Background(), "udp4", net.JoinHostPort(a, fmt.Sprint(port)))
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			c := d.(udpConn)
			if got, want := c.RemoteAddr().String(), net.JoinHostPort("127.0.0.1", fmt.Sprint(port)); got != want {
				t.Errorf("%q is %s, want %s", a, got, want)
			}
			c.Write([]byte("here"))
			if got := readSoon(t, s.(net.Conn)); got != "here" {
				t.Errorf("read %q", got)
			}
		}
		c := n.clientEnd().open(t)
		if _, err := c.WriteTo([]byte("there"), &net.UDPAddr{Port: port}); err != nil {
			t.Fatal(err)
		}
		if got := readSoon(t, s.(net.Conn)); got != "there" {
			t.Errorf("read %q", got)
		}
	})
}

// eachLoopback runs f over package net and over the stack's loopback, inside and outside of a
// bubble.
func eachLoopback(t *testing.T, f func(t *testing.T, n *network)) {
	t.Helper()
	each(t, func(t *testing.T, n *network) {
		if n.client == n.server {
			f(t, n)
		}
	})
}

// TestUDPCloseFreesPort tests that the port of a closed socket is free at once, whatever was on its
// queue, and that the datagrams are gone.
func TestUDPCloseFreesPort(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		s := n.serverEnd().open(t)
		c := n.clientEnd().open(t)
		for range 5 {
			c.WriteTo([]byte("old"), s.LocalAddr())
		}
		n.settle()
		s.Close()
		again, err := n.serverEnd().listenPacket("udp", s.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		c.WriteTo([]byte("new"), s.LocalAddr())
		got := readSoon(t, again.(net.Conn))
		for got == "old" && n.client != n.server && !n.bubble { // over a cable it may still be on its way
			got = readSoon(t, again.(net.Conn))
		}
		if got != "new" {
			t.Errorf("read %q", got)
		}
	})
}

// TestUDPConcurrent tests that datagrams of many writers come whole, each to one of many readers,
// in the order of each writer.
func TestUDPConcurrent(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		s := n.serverEnd().open(t)
		s.SetReadBuffer(4 << 20)
		const writers, each = 8, 20 // as many as any buffer holds
		var wg sync.WaitGroup
		for w := range writers {
			c := n.clientEnd().connect(t, s.LocalAddr().String())
			wg.Go(func() {
				for i := range each {
					b := bytes.Repeat([]byte{byte(w)}, 10*i+2)
					b[1] = byte(i)
					if _, err := c.Write(b); err != nil {
						t.Error(err)
					}
				}
			})
		}
		got := make(chan string)
		for range 4 {
			wg.Go(func() {
				b := make([]byte, 1000)
				for {
					k, _, err := s.ReadFromUDPAddrPort(b)
					if err != nil {
						return
					}
					got <- string(b[:k])
				}
			})
		}
		seen := map[[2]byte]bool{}
		for range writers * each {
			d := within(t, "a datagram", got)
			id := [2]byte{d[0], d[1]}
			if want := 10*int(d[1]) + 2; len(d) != want || strings.Count(d, d[:1]) < want-1 || seen[id] {
				t.Errorf("datagram %v of %d bytes, want %d; seen before: %v", id, len(d), want, seen[id])
			}
			seen[id] = true
		}
		s.Close()
		wg.Wait()
	})
}

// TestUDPAllocations tests that a datagram that is sent and read takes no memory with the AddrPort
// methods, and as much as with package net with the others.
func TestUDPAllocations(t *testing.T) {
	if testutil.Race {
		t.Skip("with the race detector a sync.Pool drops objects at random")
	}
	s := stack(t, bsdnet.Config{})
	c, err := s.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	d, err := s.DialUDP("udp4", nil, c.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	to, toUDP := addrPortOf(c), udpAddr(c)
	b := make([]byte, 1200)
	must := func(_ int, err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	var in, out []bsdnet.Message
	for range 3 {
		in = append(in, bsdnet.Message{Buffers: [][]byte{make([]byte, 1000), make([]byte, 200)}})
		out = append(out, bsdnet.Message{Buffers: [][]byte{b[:600], b[600:]}})
	}
	for _, a := range []struct {
		name string
		want float64
		do   func()
	}{
		{"AddrPort", 0, func() {
			must(c.WriteToUDPAddrPort(b, to))
			k, _, err := c.ReadFromUDPAddrPort(b)
			must(k, err)
		}},
		{"MsgUDPAddrPort", 0, func() {
			k, _, err := c.WriteMsgUDPAddrPort(b, nil, to)
			must(k, err)
			k, _, _, _, err = c.ReadMsgUDPAddrPort(b, nil)
			must(k, err)
		}},
		{"Write, Read", 0, func() {
			must(d.Write(b))
			must(c.Read(b))
		}},
		{"WriteTo, ReadFromUDP", 1, func() {
			must(c.WriteTo(b, toUDP))
			k, _, err := c.ReadFromUDP(b)
			must(k, err)
		}},
		{"batches of one sender", 0, func() {
			must(d.WriteBatch(out, 0))
			must(c.ReadBatch(in, 0)) // each message keeps its Addr
		}},
	} {
		if got := testing.AllocsPerRun(100, a.do); got != a.want {
			t.Errorf("%s: %v allocations, want %v", a.name, got, a.want)
		}
	}
}

// TestUDPTimeInBubble tests a request that is lost, and sent again after its deadline, in virtual
// time.
func TestUDPTimeInBubble(t *testing.T) {
	eachBubble(t, func(t *testing.T, n *network) {
		s := n.serverEnd().open(t)
		c := n.clientEnd().connect(t, s.LocalAddr().String())
		start := time.Now()
		c.SetReadDeadline(start.Add(time.Hour))
		if _, err := c.Read(make([]byte, 1)); !strings.Contains(fmt.Sprint(err), "i/o timeout") {
			t.Errorf("%v", err)
		}
		if d := time.Since(start); d < time.Hour || d > time.Hour+time.Millisecond {
			t.Errorf("the deadline of an hour came after %v", d)
		}
	})
}
