package kern

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// pattern6 returns n bytes of which no two neighbours are alike.
func pattern6(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

// An echo request is answered with the same data, whatever its size. Requests longer than the MTU
// travel in fragments, and answers longer than the least MTU of IPv6.
func TestEcho6Sizes(t *testing.T) {
	v := attacked6(t, nil)
	defer v.done()
	for _, n := range []int{0, 1, 56, 1232, 1233, 1452, 1453, 4000, 9001, 65527} {
		data := pattern6(n)
		p := ip6{proto: wire.ProtoICMPv6, payload: echo6(data), IPv6: wire.IPv6{Class: 0xb8}}
		if len(p.payload) <= 1460 {
			v.inject(p.bytes())
		} else {
			var at []int
			for off := 1448; off < len(p.payload); off += 1448 {
				at = append(at, off)
			}
			for _, f := range fragments6(p, uint32(n), at...) {
				v.inject(f)
			}
		}
		var whole []byte
		sent := v.fetch6()
		for _, g := range sent {
			if g.ip.Src != attHost6 || g.ip.Dst != attPeer6 || g.ip.Class != 0xb8 || g.ip.Label == 0 ||
				g.ip.Label != sent[0].ip.Label || g.ip.Len > 1280 {
				t.Fatalf("%d bytes: the answer's header is %+v", n, g.ip)
			}
			if g.ip.Next != wire.ProtoFragment {
				whole = append(g.rest(), g.data...)
				break
			}
			fo := binary.BigEndian.Uint16(g.data[2:])
			if g.data[0] != wire.ProtoICMPv6 || int(fo&^7) != len(whole) || (fo&1 == 0) != (g.ip.Len < 1280-7) {
				t.Fatalf("%d bytes: fragment header %x behind %d bytes", n, g.data[:8], len(whole))
			}
			whole = append(whole, g.data[8:]...)
		}
		if (len(sent) > 1) != (n > 1232) {
			t.Errorf("%d bytes are answered in %d packets", n, len(sent))
		}
		ic, err := wire.ParseICMP(whole)
		if err != nil || ic != (wire.ICMP{Type: wire.ICMPv6EchoReply, Rest: 0x00070001}) ||
			wire.Fold(wire.Sum(whole, wire.PseudoSum(attHost6, attPeer6, wire.ProtoICMPv6, len(whole)))) != 0xffff ||
			!bytes.Equal(whole[8:], data) {
			t.Fatalf("%d bytes are answered with %d: %+v, %v", n, len(whole)-8, ic, err)
		}
	}
}

// rest returns the header of an ICMPv6 message that fetch6 has taken off, as it was.
func (g *got6) rest() []byte {
	b := make([]byte, wire.ICMPLen)
	g.ic.Put(b)
	sum := wire.Fold(wire.Sum(g.data, wire.Sum(b, wire.PseudoSum(g.ip.Src, g.ip.Dst, wire.ProtoICMPv6, 8+len(g.data)))))
	binary.BigEndian.PutUint16(b[2:], ^sum)
	return b
}

// An echo request over the loopback is answered, also by the address of another interface.
func TestEcho6Loopback(t *testing.T) {
	v := attacked6(t, nil)
	defer v.done()
	for _, a := range []netip.Addr{netip.IPv6Loopback(), attHost6, attLocal6.WithZone("wire0")} {
		for _, n := range []int{56, 65000, 70000} {
			before := v.k.Stats.ICMP6.Reflect.Load()
			m := v.k.pool.Gethdr()
			m.Append(icmp6Message(a, a, wire.ICMP{Type: wire.ICMPv6Echo}, nil))
			m.Pkt.Len = wire.ICMPLen + n
			for left := n; left > 0; {
				d := v.k.pool.Getcl(left)
				left -= d.Append(make([]byte, left))
				mbuf.Cat(m, d)
			}
			q, errno := v.k.ipOutput(m, &ipOut{src: a.WithZone(""), dst: a, proto: wire.ProtoICMPv6, ttl: 64})
			v.no(errno)
			q.start()
			st := &v.k.Stats
			if r := st.ICMP6.Reflect.Load() - before; r != 1 || st.IP6.Fragmented.Load() != 0 {
				t.Errorf("%v, %d bytes: %d answers, %d fragmented", a, n, r, st.IP6.Fragmented.Load())
			}
		}
	}
	if l := v.fetch6(); len(l) != 0 {
		t.Errorf("%d packets for the loopback went on the wire", len(l))
	}
}

// Which addresses a packet on a wire may have (A35), and which destinations are this host.
func TestMartians6(t *testing.T) {
	a := netip.MustParseAddr
	v := attacked6(t, nil)
	defer v.done()
	if _, err := v.k.Attach("other0", newWireLink(1500), []netip.Prefix{
		netip.MustParsePrefix("2001:db8:1::1/64"), netip.MustParsePrefix("fe80::99/64"),
	}); err != nil {
		t.Fatal(err)
	}
	v.ifp.join(in6(a("ff05::1234")))
	v.ifp.join(in6(a("ff01::1234")))
	for _, c := range []struct {
		src, dst string
		want     bool // it is answered
	}{
		{"2001:db8::2", "2001:db8::1", true},
		{"2001:db8:ffff::2", "2001:db8::1", true},
		{"fe80::2", "fe80::1", true},
		{"2001:db8::2", "2001:db8:1::1", true}, // the weak host model, as for IPv4
		{"fe80::99", "2001:db8::1", true},      // an address of this host on another link only
		{"2001:db8::2", "ff02::1", true},
		{"2001:db8::2", "ff05::1234", true},

		{"::", "2001:db8::1", false},
		{"::1", "2001:db8::1", false},
		{"ff02::1", "2001:db8::1", false},
		{"ff0e::1", "2001:db8::1", false},
		{"2001:db8::1", "2001:db8::1", false}, // LAND
		{"2001:db8:1::1", "2001:db8::1", false},
		{"fe80::1", "fe80::1", false},
		{"::ffff:10.0.0.2", "2001:db8::1", false},
		{"2001:db8::2", "::1", false},
		{"2001:db8::2", "::ffff:10.0.0.1", false},
		{"2001:db8::2", "::ffff:127.0.0.1", false},
		{"2001:db8::2", "2001:db8::3", false},
		{"2001:db8::2", "2001:db8::", false},
		{"2001:db8::2", "fe80::99", false}, // on the other link
		{"2001:db8::2", "::", false},
		{"2001:db8::2", "ff00::1", false},
		{"2001:db8::2", "ff01::1", false},
		{"2001:db8::2", "ff01::1234", false}, // joined, but packets of that scope never leave a node
		{"2001:db8::2", "ff02::2", false},
		{"2001:db8::2", "ff05::1235", false},
	} {
		st := &v.k.Stats.IP6
		dropped := func() int {
			return int(st.Badaddr.Load() + st.Cantforward.Load() + st.Notmember.Load())
		}
		before := dropped()
		src, dst := a(c.src), a(c.dst)
		p := ip6{proto: wire.ProtoICMPv6, payload: icmp6Message(src, dst, wire.ICMP{Type: wire.ICMPv6Echo}, nil)}
		p.Src, p.Dst = src, dst
		v.inject(p.bytes())
		l := v.fetch6()
		if (len(l) == 1) != c.want || (dropped() == before) != c.want {
			t.Errorf("%s to %s: answers %v, %d counted as dropped", c.src, c.dst, l, dropped()-before)
			continue
		}
		if c.want && (l[0].ip.Dst != src || l[0].ip.Src.IsMulticast() || !dst.IsMulticast() && l[0].ip.Src != dst) {
			t.Errorf("%s to %s: the answer goes from %v to %v", c.src, c.dst, l[0].ip.Src, l[0].ip.Dst)
		}
	}
	v.ifp.leave(in6(a("ff05::1234")))
	if v.ifp.joined(in6(a("ff05::1234"))) {
		t.Error("a group that has been left is still joined")
	}
}

// Lengths that contradict the packet (A22), packets that are cut, and padding.
func TestIP6EveryLength(t *testing.T) {
	v := attacked6(t, nil)
	defer v.done()
	whole := ip6{proto: wire.ProtoICMPv6, payload: echo6(pattern6(20))}.bytes()
	for n := range len(whole) + 1 {
		for _, field := range []int{0, 1, 7, 8, n - 41, n - 40, n - 39, len(whole) - 40, 0xffff} {
			p := slices.Clone(whole[:n])
			if n >= 6 {
				binary.BigEndian.PutUint16(p[4:], uint16(field))
			}
			v.inject(p)
			want := n == len(whole) && field == len(whole)-40
			if l := v.fetch6(); (len(l) == 1) != want {
				t.Fatalf("%d of %d bytes, payload length %d: %d answers", n, len(whole), field, len(l))
			}
		}
	}
	v.inject(append(slices.Clone(whole), 1, 2, 3))
	if g := v.one6(); !bytes.Equal(g.data, pattern6(20)) {
		t.Errorf("with padding, the answer is %x", g.data)
	}
}

func opts6(opts ...byte) []byte {
	b := append([]byte{0, 0}, opts...)
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	b[1] = uint8(len(b)/8 - 1)
	return b
}

// Extension headers (A24): what is passed over, what is dropped, and what is reported to whom with
// which code and pointer: RFC 8200, 4; RFC 5095; RFC 6946.
func TestExtensionHeaders(t *testing.T) {
	const (
		answered = iota
		dropped
		reported        // to any destination
		reportedUnicast // unless it is a group
	)
	hbh := func(opts ...byte) ext6 { return ext6{wire.ProtoHopopts, opts6(opts...)} }
	dst := func(opts ...byte) ext6 { return ext6{wire.ProtoDstopts, opts6(opts...)} }
	routing := func(typ, left byte) ext6 {
		return ext6{wire.ProtoRouting, append([]byte{0, 2, typ, left}, make([]byte, 20)...)}
	}
	frag := func(off uint16) ext6 {
		return ext6{wire.ProtoFragment, binary.BigEndian.AppendUint32([]byte{0, 0xff, byte(off >> 8), byte(off)}, 9)}
	}
	many := func(n int, e ext6) (l []ext6) {
		for range n {
			l = append(l, ext6{e.proto, slices.Clone(e.body)})
		}
		return l
	}
	unknown := uint8(wire.ICMPv6ParamNextHeader)
	for _, c := range []struct {
		name  string
		ext   []ext6
		proto uint8 // 0: an echo request
		want  int
		code  uint8
		at    int
	}{
		{"none", nil, 0, answered, 0, 0},
		{"padding", []ext6{hbh(1, 4, 0, 0, 0, 0)}, 0, answered, 0, 0},
		{"router alert", []ext6{hbh(5, 2, 0, 0)}, 0, answered, 0, 0},
		{"both options headers", []ext6{hbh(), dst(), dst()}, 0, answered, 0, 0},
		{"an option to skip", []ext6{dst(0x1e, 3, 1, 2, 3)}, 0, answered, 0, 0},
		{"an option that discards", []ext6{dst(0, 0x5e, 1, 1)}, 0, dropped, 0, 0},
		{"an option that reports", []ext6{hbh(), dst(0, 0x9e, 1, 1)}, 0, reported, wire.ICMPv6ParamOption, 51},
		{"an option for unicast", []ext6{hbh(0, 0xde, 1, 1)}, 0, reportedUnicast, wire.ICMPv6ParamOption, 43},
		{"a jumbogram", []ext6{hbh(0xc2, 4, 0, 1, 0, 0)}, 0, reportedUnicast, wire.ICMPv6ParamOption, 42},
		{"an option beyond its header", []ext6{dst(0x1e, 5)}, 0, reportedUnicast, wire.ICMPv6ParamHeader, 43},
		{"half an option", []ext6{dst(0, 0, 0, 0, 0, 0x1e)}, 0, reportedUnicast, wire.ICMPv6ParamHeader, 47},
		{"hop by hop behind another", []ext6{dst(), hbh()}, 0, reportedUnicast, unknown, 40},
		{"hop by hop twice", []ext6{hbh(), hbh()}, 0, reportedUnicast, unknown, 40},
		{"routing 0 that has ended", []ext6{routing(0, 0)}, 0, answered, 0, 0},
		{"routing 0", []ext6{routing(0, 1)}, 0, reportedUnicast, wire.ICMPv6ParamHeader, 42},
		{"routing 4", []ext6{hbh(), routing(4, 2)}, 0, reportedUnicast, wire.ICMPv6ParamHeader, 50},
		{"an atomic fragment", []ext6{hbh(), frag(0), dst()}, 0, answered, 0, 0},
		{"many atomic fragments", many(8, frag(0)), 0, answered, 0, 0},
		{"too many headers", many(9, frag(0)), 0, dropped, 0, 0},
		{"256 bytes", []ext6{hbh(make([]byte, 126)...), dst(make([]byte, 126)...)}, 0, answered, 0, 0},
		{"264 bytes", []ext6{hbh(make([]byte, 126)...), dst(make([]byte, 134)...)}, 0, dropped, 0, 0},
		{"a header on top of 256 bytes", []ext6{hbh(make([]byte, 254)...), dst()}, 0, dropped, 0, 0},
		{"8 options", []ext6{dst(bytes.Repeat([]byte{0x1e, 0}, 8)...)}, 0, answered, 0, 0},
		{"9 options", []ext6{dst(bytes.Repeat([]byte{0x1e, 0}, 9)...)}, 0, dropped, 0, 0},
		{"nothing", nil, wire.ProtoNone, dropped, 0, 0},
		{"nothing behind a header", []ext6{dst()}, wire.ProtoNone, dropped, 0, 0},
		{"an unknown protocol", nil, 250, reportedUnicast, unknown, 6},
		{"an unknown protocol behind headers", []ext6{hbh(), dst()}, 250, reportedUnicast, unknown, 48},
		{"IPsec", []ext6{dst()}, wire.ProtoAH, reportedUnicast, unknown, 40},
		{"ICMP of IPv4", nil, wire.ProtoICMP, reportedUnicast, unknown, 6},
	} {
		for _, group := range []bool{false, true} {
			v := attacked6(t, nil)
			p := ip6{ext: c.ext, proto: c.proto, IPv6: wire.IPv6{Src: attPeer6, Dst: attHost6}}
			if group {
				p.Dst = allNodesLink
			}
			if c.proto == 0 {
				p.proto = wire.ProtoICMPv6
			}
			p.payload = icmp6Message(p.Src, p.Dst, wire.ICMP{Type: wire.ICMPv6Echo}, pattern6(30))
			pkt := p.bytes()
			v.inject(pkt)
			l := v.fetch6()
			name := fmt.Sprint(c.name, ", to a group ", group)
			switch {
			case c.want == dropped || group && c.want == reportedUnicast:
				if len(l) != 0 {
					t.Errorf("%s: %v was sent", name, l)
				}
			case len(l) != 1 || l[0].ip.Src != attHost6 || l[0].ip.Dst != attPeer6:
				t.Errorf("%s: %v was sent", name, l)
			case c.want == answered:
				if l[0].ic.Type != wire.ICMPv6EchoReply || !bytes.Equal(l[0].data, pattern6(30)) {
					t.Errorf("%s: %v was sent", name, l)
				}
			case l[0].ic != (wire.ICMP{Type: wire.ICMPv6ParamProb, Code: c.code, Rest: uint32(c.at)}) ||
				!bytes.Equal(l[0].data, pkt):
				t.Errorf("%s: %+v was sent, which quotes %x; want code %d, pointer %d",
					name, l[0].ic, l[0].data, c.code, c.at)
			}
			v.done()
		}
	}
}
