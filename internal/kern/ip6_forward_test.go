package kern

import (
	"bytes"
	"net/netip"
	"testing"

	"bsdnet/internal/kern/wire"
)

// transit6 is a packet from the attacker's network to the far one.
func transit6(p ip6) []byte {
	if !p.Dst.IsValid() {
		p.Dst = farHost6
	}
	return p.bytes()
}

// hop6 is what a packet looks like one hop further.
func hop6(p []byte) []byte {
	p = bytes.Clone(p)
	p[7]--
	return p
}

// A router sends packets on with one hop less, and otherwise as they were, extension headers
// included; a host drops them.
func TestForward6(t *testing.T) {
	r := newRouter(t, 1500)
	defer r.done()
	options := []ext6{{wire.ProtoHopopts, []byte{0, 0, 0xc2, 4, 0, 0, 0, 0}}}
	for what, p := range map[string][]byte{
		"a datagram": transit6(ip6{IPv6: wire.IPv6{Class: 0xb9, Label: 0x12345, Hlim: 2}, proto: 17,
			payload: []byte("hello")}),
		"no payload":         transit6(ip6{IPv6: wire.IPv6{Hlim: 255}, proto: 59}),
		"as long as the MTU": transit6(ip6{proto: 17, payload: make([]byte, 1460)}),
		"a fragment": transit6(ip6{ext: []ext6{{wire.ProtoFragment, []byte{0, 0, 5, 1, 0, 0, 0, 9}}}, proto: 17,
			payload: make([]byte, 64)}),
		"options that a host refuses": transit6(ip6{ext: options, proto: 17, payload: make([]byte, 8)}),
		"of an unknown protocol":      transit6(ip6{proto: 253, payload: []byte("?")}),
		"with a bad TCP checksum":     transit6(ip6{proto: 6, payload: make([]byte, 20)}),
		"cut short within TCP":        transit6(ip6{proto: 6, payload: make([]byte, 3)}),
		"an ICMPv6 error in transit": transit6(ip6{proto: 58,
			payload: icmp6Message(attPeer6, farHost6, wire.ICMP{Type: 1}, nil)}),
	} {
		r.inject(append(bytes.Clone(p), 0xee, 0xee)) // a link may pad
		if l := r.far.fetch(); len(l) != 1 || !bytes.Equal(l[0], hop6(p)) {
			t.Errorf("%s: %x became %x", what, p, l)
		}
		if l := r.link.fetch(); len(l) != 0 {
			t.Errorf("%s: %d packets went back", what, len(l))
		}
	}
	back := ip6{IPv6: wire.IPv6{Src: farHost6, Dst: attPeer6}, proto: 17, payload: []byte("back")}.bytes()
	r.out.Inject(back)
	if l := r.link.fetch(); len(l) != 1 || !bytes.Equal(l[0], hop6(back)) {
		t.Errorf("%x became %x", back, l)
	}
	// The router's other address, and the group of all routers on the link.
	for _, dst := range []string{"2001:db8:1::1", "ff02::2"} {
		to := netip.MustParseAddr(dst)
		echo := icmp6Message(attPeer6, to, wire.ICMP{Type: wire.ICMPv6Echo}, nil)
		r.inject(ip6{IPv6: wire.IPv6{Dst: to}, proto: 58, payload: echo}.bytes())
		if l := r.link.fetch(); len(l) != 1 || l[0][40] != wire.ICMPv6EchoReply {
			t.Errorf("%s answers %x", dst, l)
		}
	}
	if n := r.k.Stats.IP6.Forward.Load(); n != 10 {
		t.Errorf("%d packets counted", n)
	}
	r.k.SetSysctl("net.inet6.ip6.forwarding", 0)
	r.inject(transit6(ip6{proto: 17, payload: make([]byte, 8)}))
	if l := r.far.fetch(); len(l) != 0 || r.k.Stats.IP6.Cantforward.Load() != 1 {
		t.Errorf("a host forwards")
	}
}

// A45: a router drops what no router may forward, without an answer.
func TestForwardMartians6(t *testing.T) {
	r := newRouter(t, 1500)
	defer r.done()
	if err := r.k.AddRoute(attAny6, r.out); err != nil { // nothing is dropped for want of a route
		t.Fatal(err)
	}
	inject := func(src, dst string) {
		r.inject(ip6{IPv6: wire.IPv6{Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst)}, proto: 17,
			payload: make([]byte, 8)}.bytes())
	}
	for what, c := range map[string][2]string{
		"from the router itself":          {"2001:db8::1", "2001:db8:1::2"},
		"from the router's other address": {"2001:db8:1::1", "2001:db8:1::2"},
		"from the loopback":               {"::1", "2001:db8:1::2"},
		"from nobody":                     {"::", "2001:db8:1::2"},
		"from a group":                    {"ff0e::1", "2001:db8:1::2"},
		"from a mapped address":           {"::ffff:10.0.0.2", "2001:db8:1::2"},
		"to the loopback":                 {"2001:db8::2", "::1"},
		"to nobody":                       {"2001:db8::2", "::"},
		"to a group":                      {"2001:db8::2", "ff0e::1"},
		"to all nodes there":              {"2001:db8::2", "ff05::1"},
		"to a link-local address":         {"2001:db8::2", "fe80::7"},
		"to the other link's router":      {"fe80::2", "fe80::9"},
		"to a mapped address":             {"2001:db8::2", "::ffff:10.1.0.2"},
		"LAND":                            {"2001:db8:1::1", "2001:db8:1::1"},
	} {
		inject(c[0], c[1])
		if near, far := r.link.fetch(), r.far.fetch(); len(near)+len(far) != 0 {
			t.Errorf("%s: %x was sent back, and %x on", what, near, far)
		}
	}
	inject("2001:db8::2", "2001:db8:99::1")
	if l := r.far.fetch(); len(l) != 1 {
		t.Errorf("nothing is forwarded at all")
	}
}

// The router tells the sender why a packet was not forwarded, from the address at which the packet
// arrived, and shows as much of the packet as the least MTU holds.
func TestForwardErrors6(t *testing.T) {
	r := newRouter(t, 1400)
	defer r.done()
	away := netip.MustParseAddr("2001:db8:99::1")
	third, err := r.k.Attach("wire2", newWireLink(1500), []netip.Prefix{netip.MustParsePrefix("2001:db8:2::1/64")})
	if err != nil {
		t.Fatal(err)
	}
	third.down.Store(true)
	body := bytes.Repeat([]byte("0123456789"), 140)
	for _, c := range []struct {
		what string
		p    ip6
		want wire.ICMP
		from netip.Addr
	}{
		{"hop limit 1", ip6{IPv6: wire.IPv6{Hlim: 1}, payload: body[:100]}, wire.ICMP{Type: 3}, attHost6},
		{"hop limit 1, no route", ip6{IPv6: wire.IPv6{Hlim: 1, Dst: away}, payload: body[:100]},
			wire.ICMP{Type: 3}, attHost6},
		{"no route", ip6{IPv6: wire.IPv6{Dst: away}, payload: body[:100]}, wire.ICMP{Type: 1}, attHost6},
		{"a broken link", ip6{IPv6: wire.IPv6{Dst: netip.MustParseAddr("2001:db8:2::2")}, payload: body[:8]},
			wire.ICMP{Type: 1, Code: 3}, attHost6},
		{"too long", ip6{payload: body[:1361]}, wire.ICMP{Type: 2, Rest: 1400}, attHost6},
		{"from the link", ip6{IPv6: wire.IPv6{Src: netip.MustParseAddr("fe80::2")}, payload: body[:8]},
			wire.ICMP{Type: 1, Code: 2}, attLocal6},
	} {
		c.p.proto = 253
		p := transit6(c.p)
		r.inject(p)
		if far := r.far.fetch(); len(far) != 0 {
			t.Errorf("%s: %x was sent on", c.what, far)
		}
		l := r.link.fetch()
		if len(l) != 1 {
			t.Fatalf("%s: %d packets went back", c.what, len(l))
		}
		ip, err := wire.ParseIPv6(l[0], len(l[0]))
		ic, _ := wire.ParseICMP(l[0][40:])
		sum := wire.Fold(wire.Sum(l[0][40:], wire.PseudoSum(ip.Src, ip.Dst, 58, len(l[0])-40)))
		if err != nil || ic != c.want || ip.Src != c.from || ip.Dst != wire.IPv6View(p).Src() || sum != 0xffff {
			t.Errorf("%s: %+v from %v, %v", c.what, ic, ip.Src, err)
		}
		if q := l[0][48:]; len(q) != min(len(p), 1280-48) || !bytes.HasPrefix(p, q) {
			t.Errorf("%s: it quotes %d bytes: %x", c.what, len(q), q)
		}
	}
	r.inject(transit6(ip6{IPv6: wire.IPv6{Dst: away}, proto: 58,
		payload: icmp6Message(attPeer6, away, wire.ICMP{Type: 3}, nil)}))
	if l := r.link.fetch(); len(l) != 0 {
		t.Errorf("an error about an error")
	}
	s := &r.k.Stats.IP6
	if s.Noroute.Load() != 3 || s.Cantfrag.Load() != 1 || s.Forward.Load() != 0 {
		t.Errorf("%d without a route, %d too long, %d forwarded", s.Noroute.Load(), s.Cantfrag.Load(), s.Forward.Load())
	}
}
