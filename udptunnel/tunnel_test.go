package udptunnel

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"bsdnet"
	"bsdnet/internal/link/ends"
	"bsdnet/linktest"
)

var testKey = bytes.Repeat([]byte("key!"), 8)

func mustOpen(t testing.TB, config Config) *Link {
	t.Helper()
	if config.Key == nil && !config.Insecure {
		config.Key = testKey
	}
	if config.Local == "" {
		config.Local = "127.0.0.1:0"
	}
	l, err := Open(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// tunnelPair returns the two ends of a tunnel over the host's loopback. The first knows the
// second's address.
func tunnelPair(t testing.TB, config Config) (a, b *Link) {
	t.Helper()
	b = mustOpen(t, config)
	config.Peer = b.LocalAddr().String()
	return mustOpen(t, config), b
}

// plainPair returns the two ends of a tunnel in plain mode. Each must know the other's port before
// it is opened.
func plainPair(t testing.TB, mtu int) (a, b *Link) {
	t.Helper()
	for range 20 {
		free, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
		if err != nil {
			t.Fatal(err)
		}
		port := free.LocalAddr().String()
		a = mustOpen(t, Config{Insecure: true, Peer: port, MTU: mtu})
		free.Close()
		b, err := Open(Config{Insecure: true, Peer: a.LocalAddr().String(), MTU: mtu, Local: port})
		if err == nil {
			t.Cleanup(func() { b.Close() })
			return a, b
		}
		a.Close() // somebody else has got the port
	}
	t.Fatal("no free ports")
	return nil, nil
}

func TestContract(t *testing.T) {
	t.Run("Key", func(t *testing.T) {
		linktest.Test(t, linktest.Config{Connect: func(t testing.TB) (a, b bsdnet.Link) {
			return tunnelPair(t, Config{MTU: 1280})
		}})
	})
	t.Run("Plain", func(t *testing.T) {
		linktest.Test(t, linktest.Config{Connect: func(t testing.TB) (a, b bsdnet.Link) { return plainPair(t, 1280) }})
	})
}

func TestConfig(t *testing.T) {
	key := testKey
	for _, c := range []struct {
		config Config
		want   string // "": no error
	}{
		{Config{}, "Key is missing"},
		{Config{}, "openssl rand -base64 32"},
		{Config{Key: []byte{}}, "Key has 0 bytes"},
		{Config{Key: key[:31]}, "Key has 31 bytes"},
		{Config{Key: append(key, 0)}, "Key has 33 bytes"},
		{Config{Key: make([]byte, 32)}, "Key is all zero"},
		{Config{Insecure: true}, "Insecure needs a Peer"},
		{Config{Insecure: true, Key: key}, "Insecure and Key are both set"},
		{Config{Insecure: true, Key: key, Peer: "127.0.0.1:1"}, "Insecure and Key are both set"},
		{Config{Key: key, MTU: 67}, "MTU 67 is not within 68..65475"},
		{Config{Key: key, MTU: 65476}, "MTU 65476 is not within 68..65475"},
		{Config{Key: key, MTU: -1}, "MTU -1 "},
		{Config{Insecure: true, Peer: "127.0.0.1:1", MTU: 65508}, "MTU 65508 is not within 68..65507"},
		{Config{Insecure: true, Peer: "127.0.0.1:1", MTU: 65507}, ""},
		{Config{Key: key, Peer: "127.0.0.1"}, "Peer"},
		{Config{Key: key, Peer: "127.0.0.1:0"}, "Peer"},
		{Config{Key: key, Peer: "0.0.0.0:1"}, "Peer"},
		{Config{Key: key, Peer: ":1"}, "Peer"},
		{Config{Key: key, Local: "127.0.0.1"}, "Local"},
		{Config{Key: key, Local: "192.0.2.1:1"}, "Local"},
		{Config{Key: key, MTU: 65475}, ""},
		{Config{Key: key}, ""},
	} {
		l, err := Open(c.config)
		switch {
		case err == nil && c.want != "":
			t.Errorf("%+v: no error; want one with %q", c.config, c.want)
		case err != nil && (c.want == "" || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%+v: %v; want %q", c.config, err, c.want)
		}
		if err == nil {
			if want := c.config.MTU; l.MTU() != want && (want != 0 || l.MTU() != 1420) {
				t.Errorf("MTU %d for %d", l.MTU(), want)
			}
			l.Close()
		}
	}
}

// A tunnel works over IPv4, over IPv6, and from a socket of both families to either.
func TestFamilies(t *testing.T) {
	for _, c := range []struct{ local, peer string }{
		{"127.0.0.1:0", "127.0.0.1"}, {":0", "127.0.0.1"}, {"0.0.0.0:0", "127.0.0.1"},
		{"[::1]:0", "::1"}, {":0", "::1"},
	} {
		if c.peer == "::1" {
			l, err := net.ListenPacket("udp6", "[::1]:0")
			if err != nil {
				continue // the host has no IPv6
			}
			l.Close()
		}
		y := mustOpen(t, Config{Local: c.local})
		x, err := Open(Config{Key: testKey, Peer: net.JoinHostPort(c.peer, fmt.Sprint(y.LocalAddr().Port()))})
		if err != nil {
			t.Fatal(err)
		}
		a, b := ends.Start(t, x), ends.Start(t, y)
		for _, d := range [][2]*ends.End{{a, b}, {b, a}} {
			go func() {
				if err := d[0].Send(lists(ends.Packet(1, 1, 500), ends.Packet(1, 2, 500))...); err != nil {
					t.Error(err)
				}
			}()
			d[1].Receive(t, 2)
		}
		if got := y.Peer().Addr(); got != netip.MustParseAddr(c.peer) {
			t.Errorf("%v: the peer is %v", c, got)
		}
		ends.Close(t, a, b)
	}
}

// A peer whose configured address is of IPv4 is restarted, and calls over IPv6.
func TestRoamsToOtherFamily(t *testing.T) {
	if l, err := net.ListenPacket("udp6", "[::1]:0"); err != nil {
		t.Skip("no IPv6: ", err)
	} else {
		l.Close()
	}
	x := mustOpen(t, Config{})
	y := mustOpen(t, Config{Local: ":0", Peer: x.LocalAddr().String()})
	a, b := ends.Start(t, x), ends.Start(t, y)
	converseBoth(t, b, a)
	ends.Close(t, a)
	six := mustOpen(t, Config{Local: "[::1]:0", Peer: fmt.Sprintf("[::1]:%d", y.LocalAddr().Port())})
	converseBoth(t, ends.Start(t, six), b)
	if y.Peer() != six.LocalAddr() || y.Stats().Roams != 1 {
		t.Errorf("the peer is at %v after %d moves; want %v", y.Peer(), y.Stats().Roams, six.LocalAddr())
	}
	if _, err := Open(Config{Key: testKey, Local: "127.0.0.1:0", Peer: "[::1]:9"}); err == nil ||
		!strings.Contains(err.Error(), "of different families") {
		t.Errorf("%v", err)
	}
}

// In plain mode only the peer's datagrams are taken.
func TestPlainStranger(t *testing.T) {
	x, y := plainPair(t, 1280)
	a, b := ends.Start(t, x), ends.Start(t, y)
	stranger, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(y.LocalAddr()))
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	for i := range 10 {
		if _, err := stranger.Write(ends.Packet(1, 100+i, 100)); err != nil {
			t.Fatal(err)
		}
		a.Send(lists(ends.Packet(1, i, 100))...)
		if p := b.Receive(t, 1); ends.Number(p[0]) != i {
			t.Errorf("packet %d arrives", ends.Number(p[0]))
		}
	}
	if st := y.Stats(); st.Unknown != 10 || st.Received != 10 {
		t.Errorf("%+v", st)
	}
}

// Packets that have waited for a session, and then for room in the socket until that session ended,
// wait for the next session no longer than others do.
func TestHeldOn(t *testing.T) {
	deaf, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	l := mustOpen(t, Config{Peer: deaf.LocalAddr().String()})
	a := ends.Start(t, l)
	pkts := lists(make([][]byte, heldPackets+1)...)
	for i := range pkts {
		pkts[i] = net.Buffers{ends.Packet(1, i, 100)}
	}
	if n, err := a.Write(pkts); n != heldPackets || err != nil {
		t.Fatalf("Write: %d, %v", n, err)
	}
	l.mu.Lock()
	l.m.waiting = false // as when there was a session
	l.mu.Unlock()
	l.settle() // as when there is room
	l.mu.Lock()
	l.m.waitSince -= dropAfter
	l.mu.Unlock()
	l.rouse()
	a.AwaitReady(0)
	ends.Close(t, a)
}

// If the peer does not answer, Write takes a few packets and the link is full. After three seconds
// the link calls ready and drops packets.
func TestNobody(t *testing.T) {
	deaf, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	for _, peer := range []string{deaf.LocalAddr().String(), ""} {
		l := mustOpen(t, Config{Peer: peer})
		a := ends.Start(t, l)
		var pkts [][]byte
		for i := range heldPackets + 5 {
			pkts = append(pkts, ends.Packet(1, i, 100))
		}
		if n, err := a.Write(lists(pkts...)); n != heldPackets || err != nil {
			t.Fatalf("Write: %d, %v", n, err)
		}
		if n, err := a.Write(lists(pkts[0])); n != 0 || err != nil {
			t.Fatalf("Write: %d, %v", n, err)
		}
		l.mu.Lock()
		l.m.waitSince -= dropAfter
		l.mu.Unlock()
		l.rouse()
		a.AwaitReady(0)
		if n, err := a.Write(lists(pkts...)); n != len(pkts) || err != nil {
			t.Errorf("Write: %d, %v; want all dropped", n, err)
		}
		if st := l.Stats(); st.Unsent != uint64(2*heldPackets+5) || st.Sent != 0 {
			t.Errorf("%+v", st)
		}
		ends.Close(t, a)
	}
}
