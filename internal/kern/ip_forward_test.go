package kern

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// A router is a stack that forwards, between the attacker's networks 10.0.0.0/24 and 2001:db8::/64,
// and the far ones, 10.1.0.0/24 and 2001:db8:1::/64, whose link carries packets of mtu bytes.
type router struct {
	*victim
	far *wireLink
	out *Ifnet
}

var (
	farHost  = netip.MustParseAddr("10.1.0.2")
	farHost6 = netip.MustParseAddr("2001:db8:1::2")
	attAny6  = netip.MustParsePrefix("::/0")
)

func newRouter(t testing.TB, mtu int) *router {
	t.Helper()
	far := newWireLink(mtu)
	return newRouterOn(t, far, far)
}

// newRouterOn makes a router whose far link is link, which far is a part of.
func newRouterOn(t testing.TB, far *wireLink, link Link) *router {
	t.Helper()
	mtu := far.mtu
	v := attacked6(t, nil)
	r := &router{victim: v, far: far}
	prefixes := []netip.Prefix{netip.MustParsePrefix("10.1.0.1/24")}
	if mtu >= wire.IPv6MinMTU {
		prefixes = append(prefixes, netip.MustParsePrefix("2001:db8:1::1/64"), netip.MustParsePrefix("fe80::9/64"))
	}
	var err error
	if r.out, err = v.k.Attach("wire1", link, prefixes); err != nil {
		t.Fatal(err)
	}
	for _, dst := range []netip.Prefix{attAny, attAny6} {
		if err := v.k.DelRoute(dst, v.ifp); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"net.inet.ip.forwarding", "net.inet6.ip6.forwarding"} {
		if err := v.k.SetSysctl(name, 1); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// transit is a packet from the attacker's network to the far one.
func transit(ip wire.IPv4, body []byte) []byte {
	return ipPacket(ip, attPeer, farHost, wire.ProtoUDP, body)
}

// hop is what a packet looks like one hop further.
func hop(p []byte) []byte {
	p = bytes.Clone(p)
	p[8]--
	return resum(p)
}

// A router sends packets on with one hop less, and otherwise as they were; a host drops them.
func TestForward(t *testing.T) {
	r := newRouter(t, 1500)
	defer r.done()
	options := transit(wire.IPv4{}, make([]byte, 24))
	options[0] = 4<<4 | 11
	copy(options[20:], []byte{148, 4, 0, 0, 7, 7, 4})
	for what, p := range map[string][]byte{
		"a datagram":               transit(wire.IPv4{ID: 7, TOS: 0xb9, TTL: 2}, []byte("hello")),
		"no payload":               transit(wire.IPv4{TTL: 255}, nil),
		"as long as the MTU":       transit(wire.IPv4{Flags: wire.IPDF}, make([]byte, 1480)),
		"a fragment":               transit(wire.IPv4{Off: 1480, Flags: wire.IPMF}, make([]byte, 1480)),
		"options":                  resum(options),
		"of an unknown protocol":   ipPacket(wire.IPv4{}, attPeer, farHost, 253, []byte("?")),
		"with a bad TCP checksum":  ipPacket(wire.IPv4{}, attPeer, farHost, wire.ProtoTCP, make([]byte, 20)),
		"cut short within TCP":     ipPacket(wire.IPv4{}, attPeer, farHost, wire.ProtoTCP, make([]byte, 3)),
		"an ICMP error in transit": icmpPacket(attPeer, farHost, wire.ICMP{Type: wire.ICMPUnreach}, make([]byte, 28)),
	} {
		padded := append(bytes.Clone(p), 0xee, 0xee) // a link may pad
		r.inject(padded)
		if l := r.far.fetch(); len(l) != 1 || !bytes.Equal(l[0], hop(p)) {
			t.Errorf("%s: %x became %x", what, p, l)
		}
		r.none()
	}
	// The way back, and a packet for the router's other address.
	back := ipPacket(wire.IPv4{}, farHost, attPeer, wire.ProtoUDP, []byte("back"))
	r.out.Inject(back)
	if l := r.link.fetch(); len(l) != 1 || !bytes.Equal(l[0], hop(back)) {
		t.Errorf("%x became %x", back, l)
	}
	r.inject(icmpPacket(attPeer, netip.MustParseAddr("10.1.0.1"), wire.ICMP{Type: wire.ICMPEcho}, nil))
	if g := r.one(); g.ip.Src != netip.MustParseAddr("10.1.0.1") || g.data[0] != wire.ICMPEchoReply {
		t.Errorf("the router's other address answers %+v", g)
	}
	if n := r.k.Stats.IP.Forward.Load(); n != 10 {
		t.Errorf("%d packets counted", n)
	}
	r.k.SetSysctl("net.inet.ip.forwarding", 0)
	r.inject(transit(wire.IPv4{}, nil))
	if l := r.far.fetch(); len(l) != 0 || r.k.Stats.IP.Cantforward.Load() != 1 {
		t.Errorf("a host forwards")
	}
	r.none()
}

// The mended checksum is the one that a new header has, for all values of its fields.
func TestDecTTL(t *testing.T) {
	for id := range 1 << 16 {
		p := transit(wire.IPv4{ID: uint16(id), TTL: uint8(id>>3) | 1}, nil)
		want := hop(p)
		if wire.IPv4View(p).DecTTL(); !bytes.Equal(p, want) {
			t.Fatalf("%x, want %x", p, want)
		}
	}
}

// A45: a router drops what no router may forward, without an answer.
func TestForwardMartians(t *testing.T) {
	r := newRouter(t, 1500)
	defer r.done()
	if err := r.k.AddRoute(attAny, r.out); err != nil { // nothing is dropped for want of a route
		t.Fatal(err)
	}
	pkt := func(src, dst string) []byte {
		return ipPacket(wire.IPv4{}, netip.MustParseAddr(src), netip.MustParseAddr(dst), wire.ProtoUDP, make([]byte, 8))
	}
	routed := transit(wire.IPv4{}, make([]byte, 16))
	routed[0] = 4<<4 | 7
	copy(routed[20:], []byte{131, 7, 4, 10, 1, 0, 9})
	bad := transit(wire.IPv4{}, nil)
	bad[10] ^= 1
	for what, p := range map[string][]byte{
		"from the router itself":             pkt("10.0.0.1", "10.1.0.2"),
		"from the router's other address":    pkt("10.1.0.1", "10.1.0.2"),
		"from the loopback":                  pkt("127.0.0.1", "10.1.0.2"),
		"from this network":                  pkt("0.1.2.3", "10.1.0.2"),
		"from nobody":                        pkt("0.0.0.0", "10.1.0.2"),
		"from a group":                       pkt("224.1.2.3", "10.1.0.2"),
		"from class E":                       pkt("250.1.2.3", "10.1.0.2"),
		"from a broadcast address":           pkt("10.0.0.255", "10.1.0.2"),
		"from the far broadcast address":     pkt("10.1.0.255", "10.1.0.2"),
		"from a link-local address":          pkt("169.254.1.2", "10.1.0.2"),
		"to the loopback":                    pkt("10.0.0.2", "127.0.0.1"),
		"to this network":                    pkt("10.0.0.2", "0.1.2.3"),
		"to a group":                         pkt("10.0.0.2", "224.1.2.3"),
		"to class E":                         pkt("10.0.0.2", "250.1.2.3"),
		"to all":                             pkt("10.0.0.2", "255.255.255.255"),
		"to the far broadcast address":       pkt("10.0.0.2", "10.1.0.255"),
		"to the far network":                 pkt("10.0.0.2", "10.1.0.0"),
		"to a link-local address":            pkt("10.0.0.2", "169.254.1.2"),
		"with a source route":                resum(routed),
		"with a bad checksum":                bad,
		"LAND: to and from the other router": pkt("10.1.0.1", "10.1.0.1"),
	} {
		r.inject(p)
		near, far := r.link.fetch(), r.far.fetch()
		if len(near)+len(far) != 0 {
			t.Errorf("%s: %x was sent back, and %x on", what, near, far)
		}
		if len(far) != 0 {
			t.Errorf("%s: %x was sent on", what, far)
		}
	}
	r.inject(pkt("10.0.0.2", "1.2.3.4"))
	if l := r.far.fetch(); len(l) != 1 {
		t.Errorf("nothing is forwarded at all")
	}
}

// The router tells the sender why a packet was not forwarded, from the address at which the packet
// arrived, and shows as much of the packet as 576 bytes hold.
func TestForwardErrors(t *testing.T) {
	r := newRouter(t, 1400)
	defer r.done()
	body := bytes.Repeat([]byte("0123456789"), 140)
	away := ipPacket(wire.IPv4{}, attPeer, netip.MustParseAddr("192.0.2.1"), wire.ProtoUDP, body[:100])
	down := ipPacket(wire.IPv4{}, attPeer, netip.MustParseAddr("10.2.0.2"), wire.ProtoUDP, body[:8])
	broken := newWireLink(1500)
	third, err := r.k.Attach("wire2", broken, []netip.Prefix{netip.MustParsePrefix("10.2.0.1/24")})
	if err != nil {
		t.Fatal(err)
	}
	third.down.Store(true)
	for _, c := range []struct {
		what      string
		p         []byte
		typ, code uint8
		rest      uint32
	}{
		{"TTL 1", transit(wire.IPv4{TTL: 1}, body[:100]), wire.ICMPTimxceed, wire.ICMPTimxceedIntrans, 0},
		{"TTL 1, no route", hop(resum(func() []byte { p := bytes.Clone(away); p[8] = 2; return p }())),
			wire.ICMPTimxceed, wire.ICMPTimxceedIntrans, 0},
		{"no route", away, wire.ICMPUnreach, wire.ICMPUnreachNet, 0},
		{"a broken link", down, wire.ICMPUnreach, wire.ICMPUnreachHost, 0},
		{"too long", transit(wire.IPv4{Flags: wire.IPDF}, body[:1381]),
			wire.ICMPUnreach, wire.ICMPUnreachNeedfrag, 1400},
	} {
		r.inject(c.p)
		if far := r.far.fetch(); len(far) != 0 {
			t.Errorf("%s: %x was sent on", c.what, far)
		}
		g := r.one()
		ic, err := wire.ParseICMP(g.data)
		if err != nil || ic != (wire.ICMP{Type: c.typ, Code: c.code, Rest: c.rest}) || wire.InCksum(g.data) != 0 ||
			g.ip.Src != attHost || g.ip.Dst != attPeer {
			t.Errorf("%s: %+v from %v", c.what, ic, g.ip.Src)
		}
		if q := g.data[wire.ICMPLen:]; len(q) != min(len(c.p), 548) || !bytes.HasPrefix(c.p, q) {
			t.Errorf("%s: it quotes %d bytes: %x", c.what, len(q), q)
		}
	}
	// About errors, fragments other than the first, and packets from nobody there is no error.
	for _, p := range [][]byte{
		icmpPacket(attPeer, netip.MustParseAddr("192.0.2.1"), wire.ICMP{Type: wire.ICMPTimxceed}, nil),
		ipPacket(wire.IPv4{Off: 8}, attPeer, netip.MustParseAddr("192.0.2.1"), wire.ProtoUDP, body[:8]),
		ipPacket(wire.IPv4{TTL: 1}, netip.MustParseAddr("0.0.0.0"), farHost, wire.ProtoUDP, body[:8]),
	} {
		r.inject(p)
		r.none()
	}
	if s := &r.k.Stats.IP; s.Noroute.Load() != 4 || s.Cantfrag.Load() != 1 || s.Forward.Load() != 0 {
		t.Errorf("%d without a route, %d too long, %d forwarded", s.Noroute.Load(), s.Cantfrag.Load(), s.Forward.Load())
	}
}

// rejoinFrom puts together fragments, which may be those of a fragment that begins at first, and
// which more follow, and returns the payload.
func rejoinFrom(t *testing.T, l [][]byte, first int, more bool) (body []byte) {
	t.Helper()
	for i, p := range l {
		ip, err := wire.ParseIPv4(p, len(p))
		mf := ip.Flags == wire.IPMF
		if err != nil || ip.Off != first+len(body) || mf != (more || i < len(l)-1) || ip.Flags&^wire.IPMF != 0 {
			t.Fatalf("fragment %d, %x: %+v, %v", i, p, ip, err)
		}
		body = append(body, p[ip.Hlen:]...)
	}
	return body
}

// Without IPDF, a packet is cut for the next link, RFC 791, 3.2, also one that is a fragment
// already. Options go into the first fragment, and into the others if their first bit says so.
func TestForwardFragments(t *testing.T) {
	for _, mtu := range []int{68, 100, 576, 1400} {
		r := newRouter(t, mtu)
		body := make([]byte, 1480)
		for i := range body {
			body[i] = streamByte(3, i)
		}
		for _, c := range []struct {
			what    string
			off     int
			more    bool
			opt     []byte // whole
			optRest []byte // of the fragments behind the first
		}{
			{what: "a datagram"},
			{what: "a first fragment", more: true},
			{what: "a fragment", off: 2960, more: true},
			{what: "a last fragment", off: 2960},
			{what: "with options", opt: []byte{1, 7, 7, 4, 0, 0, 0, 0, 148, 4, 0, 0, 0, 0, 0, 0},
				optRest: []byte{148, 4, 0, 0}},
			{what: "with forty bytes", opt: append([]byte{158, 40}, make([]byte, 38)...),
				optRest: append([]byte{158, 40}, make([]byte, 38)...)},
			{what: "with three bytes", opt: []byte{158, 3, 9, 0}, optRest: []byte{158, 3, 9, 0}},
		} {
			ip := wire.IPv4{ID: 99, Off: c.off}
			if c.more {
				ip.Flags = wire.IPMF
			}
			data := body[:1480-len(c.opt)]
			data = data[:len(data)&^7]
			p := transit(ip, slices.Concat(c.opt, data))
			p[0] += byte(len(c.opt) / 4)
			r.inject(resum(p))
			l := r.far.fetch()
			if got := rejoinFrom(t, l, c.off, c.more); !bytes.Equal(got, data) {
				t.Fatalf("MTU %d, %s: the datagram has changed", mtu, c.what)
			}
			for i, f := range l {
				opt := c.optRest
				if i == 0 {
					opt = c.opt
				}
				if hl := int(f[0]&15) * 4; len(f) > mtu || !bytes.Equal(f[20:hl], opt) || f[8] != 63 ||
					binary.BigEndian.Uint16(f[4:]) != 99 || i < len(l)-1 && len(f)+8 <= mtu {
					t.Fatalf("MTU %d, %s: fragment %d is %x", mtu, c.what, i, f[:hl])
				}
			}
			r.none()
		}
		r.done()
	}
}

// A45: a flood through a router, whose next link takes nothing, fills one queue, and what does not
// fit is counted. Fragments of a packet that does not fit are not made.
func TestForwardFlood(t *testing.T) {
	r := newRouter(t, 576)
	defer r.done()
	r.far.take = func(int) int { return 0 }
	p := transit(wire.IPv4{Flags: wire.IPDF}, make([]byte, 500))
	for range 2 * ifqMaxPackets {
		r.inject(p)
	}
	_, before := r.k.Pool().Outstanding()
	if n := r.k.Stats.IP.Odropped.Load(); n != ifqMaxPackets {
		t.Errorf("%d packets dropped", n)
	}
	for range ifqMaxPackets {
		r.inject(p)
		r.inject(transit(wire.IPv4{}, make([]byte, 1400)))
	}
	const reading = 2 * rxBatch * mbuf.ClMid // what the links' goroutines read into
	most := int64(ifqMaxPackets*mbuf.ClMid + reading)
	if _, after := r.k.Pool().Outstanding(); after > most || before > most {
		t.Errorf("the queue held %d bytes, then %d", before, after)
	}
	if n := r.k.Stats.IP.Ofragments.Load(); n != ifqMaxPackets {
		t.Errorf("%d fragments were made for a full queue", n)
	}
	if n := r.link.count(); n != 0 {
		t.Errorf("%d answers to a flood", n)
	}
	// Errors have a limit, as always.
	for range 1000 {
		r.inject(transit(wire.IPv4{TTL: 1}, nil))
	}
	if n := r.link.count(); n == 0 || n > 100 {
		t.Errorf("%d errors for 1000 packets", n)
	}
}
