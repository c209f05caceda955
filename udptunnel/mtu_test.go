package udptunnel

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"bsdnet/internal/kern/wire"
	"bsdnet/internal/link/ends"
)

// dfPacket is ends.Packet with DF set.
func dfPacket(number, size int) []byte {
	b := ends.Packet(1, number, size)
	b[6] = 0x40
	return b
}

func TestFragNeeded(t *testing.T) {
	p := dfPacket(1, 1400)
	var b [fragNeededLen]byte
	n := fragNeeded(b[:], p[:68], 1234)
	m := b[:n]
	if n != 20+8+28 || m[0] != 0x45 || binary.BigEndian.Uint16(m[2:]) != uint16(n) || m[9] != 1 ||
		!bytes.Equal(m[12:16], p[16:20]) || !bytes.Equal(m[16:20], p[12:16]) || m[20] != 3 || m[21] != 4 ||
		binary.BigEndian.Uint16(m[26:]) != 1234 || !bytes.Equal(m[28:], p[:28]) {
		t.Errorf("%x", m)
	}
	if wire.InCksum(m[:20]) != 0 || wire.InCksum(m[20:]) != 0 {
		t.Errorf("checksums: %x", m)
	}
	options := append([]byte{}, p[:68]...)
	options[0] = 0x4f
	if n := fragNeeded(b[:], options, 1234); n != fragNeededLen || wire.InCksum(b[20:n]) != 0 {
		t.Errorf("with options: %d bytes", n)
	}
	for name, change := range map[string]func(p []byte) []byte{
		"without DF":       func(p []byte) []byte { p[6] = 0; return p },
		"a fragment":       func(p []byte) []byte { p[7] = 1; return p },
		"IPv6":             func(p []byte) []byte { p[0] = 0x60; return p },
		"an ICMP error":    func(p []byte) []byte { p[9], p[20] = 1, 3; return p },
		"from multicast":   func(p []byte) []byte { p[12] = 224; return p },
		"from nobody":      func(p []byte) []byte { clear(p[12:16]); return p },
		"to multicast":     func(p []byte) []byte { p[16] = 224; return p },
		"to broadcast":     func(p []byte) []byte { clear(p[16:20]); p[16] = 255; return p },
		"from broadcast":   func(p []byte) []byte { p[12] = 255; return p },
		"short":            func(p []byte) []byte { return p[:27] },
		"empty":            func(p []byte) []byte { return nil },
		"a short header":   func(p []byte) []byte { p[0] = 0x44; return p },
		"a cut-off header": func(p []byte) []byte { p[0] = 0x4f; return p[:67] },
	} {
		if n := fragNeeded(b[:], change(append([]byte{}, p[:68]...)), 1234); n != 0 {
			t.Errorf("%s: a message of %d bytes", name, n)
		}
	}
	ping := append([]byte{}, p[:68]...)
	ping[9], ping[20] = 1, 8
	if fragNeeded(b[:], ping, 1234) == 0 {
		t.Error("none about an echo request")
	}
}

func TestPacketTooBig(t *testing.T) {
	p := ends.Packet6(1, 1, 1400)
	b := make([]byte, wire.IPv6MinMTU)
	for _, c := range []struct{ mtu, want int }{{1234, 1280}, {1280, 1280}, {1399, 1399}} {
		n := packetTooBig(b, p[:quoted6], c.mtu)
		m := b[:n]
		if n != 1280 || m[0] != 0x60 || binary.BigEndian.Uint16(m[4:]) != 1240 || m[6] != 58 ||
			!bytes.Equal(m[8:24], p[24:40]) || !bytes.Equal(m[24:40], p[8:24]) || m[40] != 2 || m[41] != 0 ||
			binary.BigEndian.Uint32(m[44:]) != uint32(c.want) || !bytes.Equal(m[48:], p[:1232]) {
			t.Errorf("%d: %x", c.mtu, m)
		}
		v := wire.IPv6View(m)
		sum := wire.PseudoSum(v.Src(), v.Dst(), wire.ProtoICMPv6, n-40)
		if wire.Fold(wire.Sum(m[40:], sum)) != 0xffff {
			t.Errorf("%d: bad checksum: %x", c.mtu, m)
		}
	}
	icmp := func(typ byte) func(p []byte) []byte {
		return func(p []byte) []byte { p[6], p[40] = wire.ProtoICMPv6, typ; return p }
	}
	options := func(p []byte) []byte {
		p[6] = wire.ProtoDstopts
		copy(p[40:], []byte{wire.ProtoICMPv6, 0, 1, 4, 0, 0, 0, 0, wire.ICMPv6Unreach})
		return p
	}
	later := func(p []byte) []byte {
		p[6] = wire.ProtoFragment
		copy(p[40:], []byte{wire.ProtoICMPv6, 0, 1, 0, 0, 0, 0, 1, wire.ICMPv6Unreach})
		return p
	}
	for _, c := range []struct {
		name   string
		change func(p []byte) []byte
		told   bool
	}{
		{"IPv4", func(p []byte) []byte { p[0] = 0x45; return p }, false},
		{"an ICMPv6 error", icmp(wire.ICMPv6ParamProb), false},
		{"an ICMPv6 error behind options", options, false},
		{"a redirect", icmp(wire.ICMPv6Redirect), false},
		{"an echo request", icmp(wire.ICMPv6Echo), true},
		{"a later fragment", later, true},
		{"from multicast", func(p []byte) []byte { p[8] = 0xff; return p }, false},
		{"from nobody", func(p []byte) []byte { clear(p[8:24]); return p }, false},
		{"from the loopback", func(p []byte) []byte { clear(p[8:23]); return p }, false},
		{"to multicast", func(p []byte) []byte { p[24] = 0xff; return p }, false},
		{"a header cut off", func(p []byte) []byte { return p[:39] }, false},
		{"only a header", func(p []byte) []byte { return p[:40] }, true},
		{"empty", func(p []byte) []byte { return nil }, false},
	} {
		if n := packetTooBig(b, c.change(bytes.Clone(p[:quoted6])), 1300); n > 0 != c.told {
			t.Errorf("%s: a message of %d bytes", c.name, n)
		}
	}
}

func FuzzTooBig(f *testing.F) {
	f.Add(dfPacket(1, 100), 1000)
	f.Add(ends.Packet6(1, 1, 1400)[:quoted6], 1300)
	f.Add([]byte{0x60, 39: 1, 40: 1, 41: 255}, 0)
	f.Fuzz(func(t *testing.T, p []byte, mtu int) {
		p = p[:min(len(p), quoted6)]
		var q icmpQueue
		if !q.put(p, mtu, 0) {
			return
		}
		m := q.take()
		if len(m) == 0 || m[0]>>4 != p[0]>>4 || len(m) > wire.IPv6MinMTU {
			t.Fatalf("%x about %x", m, p)
		}
		v, ok := wire.ViewIP(m)
		if !ok || v.Len() != len(m) || v.Dst() != wire.IPView(p).Src() {
			t.Fatalf("%x about %x", m, p)
		}
		var again icmpQueue
		if again.put(m, mtu, 0) {
			t.Fatalf("a message about a message: %x", m)
		}
	})
}

func TestICMPQueue(t *testing.T) {
	var q icmpQueue
	p := dfPacket(1, 68)
	made := 0
	for i := range 1000 { // 1 s
		if q.put(p, 600+i, int64(i)*ms) {
			made++
		}
		if i%3 == 0 {
			if m := q.take(); m != nil && m[9] != 1 {
				t.Fatalf("%x", m)
			}
		}
	}
	if made > 10*icmpBurst || made < icmpBurst {
		t.Errorf("%d messages in a second", made)
	}
	for q.take() != nil {
		made--
	}
	if q.put(p[:10], 600, 1<<60) || q.take() != nil {
		t.Error("a message about nothing")
	}
}

// The MTU is what the path carries in one datagram.
func TestMTU(t *testing.T) {
	b := mustOpen(t, Config{})
	if b.MTU() != 1420 {
		t.Errorf("without a peer: %d", b.MTU())
	}
	a := mustOpen(t, Config{Peer: b.LocalAddr().String()})
	want := 1420 // on systems that are not asked
	if path := pathMTU(b.LocalAddr()); path > 0 {
		want = min(path-28, 65507) - 32
	}
	if a.MTU() != want {
		t.Errorf("over the loopback: %d; want %d", a.MTU(), want)
	}
	l := &Link{overhead: sealLen}
	for _, c := range []struct {
		path int
		peer string
		want int
	}{
		{1500, "192.0.2.1:1", 1440}, {1500, "[2001:db8::1]:1", 1420},
		{1280, "[2001:db8::1]:1", 1200}, {65536, "127.0.0.1:1", 65475},
		{65536, "[::1]:1", 65456}, {9000, "192.0.2.1:1", 8940},
	} {
		if got := l.inner(c.path, udp(netip.MustParseAddrPort(c.peer))); got != c.want {
			t.Errorf("path %d to %s: %d; want %d", c.path, c.peer, got, c.want)
		}
	}
}

func lists(pkts ...[]byte) (ls []net.Buffers) {
	for _, p := range pkts {
		ls = append(ls, net.Buffers{p})
	}
	return ls
}
