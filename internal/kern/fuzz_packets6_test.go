package kern

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
	"bsdnet/internal/testutil"
)

// A siege6 sends a stack IPv6 packets that are nearly right: with extension headers, in fragments,
// to a connection, a listener, groups and others.
type siege6 struct {
	*victim
	d       *testutil.Dice
	in, out int // bytes
	packets int
	peer    *seg // the attacker's end of a connection
	mine    tcp.Seq
	theirs  tcp.Seq
}

// besiege6 plays the game that data says, and asserts that the stack sends only packets that are
// whole, and no more bytes than it has been sent, except for headers; and that nothing leaks.
func besiege6(t *testing.T, data []byte) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked6(t, nil)
		defer v.done()
		fd, errno := v.p.Socket(AF_INET6, SOCK_STREAM, 0)
		v.no(errno)
		v.no(v.p.Bind(fd, addrPort6(netip.IPv6Unspecified(), 80)))
		v.no(v.p.Listen(fd, 5))
		g := &siege6{victim: v, d: (*testutil.Dice)(&data)}
		g.connect()
		for g.d.More() {
			g.move()
		}
		pass(2 * time.Minute)
		g.collect()
		if g.out > g.in+150*(g.packets+20) {
			t.Errorf("%d bytes in %d packets brought %d bytes", g.in, g.packets, g.out)
		}
		if n, s, b := v.waiting(); n != 0 || s != 0 || b != 0 {
			t.Errorf("%d datagrams of %d sources, of %d bytes, wait after two minutes", n, s, b)
		}
	})
}

// connect makes a connection to the listener.
func (g *siege6) connect() {
	g.peer = &seg{from: addrPort6(attPeer6, 5000), to: addrPort6(attHost6, 80)}
	g.peer.th = wire.TCP{Seq: 1000, Flags: wire.SYN, Win: 65535}
	g.send(ip6{proto: wire.ProtoTCP, payload: g.peer.tcp()}.bytes())
	l := g.fetch6()
	if len(l) != 1 {
		g.Fatalf("the SYN is answered by %d packets", len(l))
	}
	g.mine, g.theirs = 1001, wire.TCPView(l[0].data).Seq()+1
	g.peer.th = wire.TCP{Seq: g.mine, Ack: g.theirs, Flags: wire.ACK, Win: 65535}
	g.send(ip6{proto: wire.ProtoTCP, payload: g.peer.tcp()}.bytes())
	g.collect()
}

func (g *siege6) send(p []byte) {
	g.in += len(p)
	g.packets++
	g.inject(p)
}

func (g *siege6) collect() {
	for _, a := range g.fetch6() {
		g.out += a.ip.Len
		if a.ip.Src.IsMulticast() || a.ip.Dst.IsMulticast() || a.ip.Dst.IsUnspecified() {
			g.Errorf("the stack has sent %+v", a.ip)
		}
		if a.ip.Next == wire.ProtoICMPv6 && a.ic.Type&wire.ICMPv6Info == 0 && a.ip.Len > wire.IPv6MinMTU {
			g.Errorf("an error of %d bytes", a.ip.Len)
		}
	}
}

// move sends one packet, or its fragments, or lets time pass.
func (g *siege6) move() {
	d := g.d
	if d.One(20) {
		pass(time.Duration(d.N(70000)) * time.Millisecond)
	}
	addrs := []netip.Addr{attPeer6, attHost6, netip.MustParseAddr("fe80::2"), attLocal6, allNodesLink,
		netip.IPv6Loopback(), netip.IPv6Unspecified(), netip.MustParseAddr("::ffff:10.0.0.2"),
		netipAddr(attPeer6, d.N(1000), d.N(1000))}
	var p ip6
	p.Src, p.Dst = attPeer6, attHost6
	if d.One(4) {
		p.Src = addrs[d.N(len(addrs))]
	}
	if d.One(6) {
		p.Dst = addrs[d.N(len(addrs))]
	}
	p.Class, p.Label, p.Hlim = uint8(d.N(256)), uint32(d.N(1<<20)), uint8(1+d.N(255))
	g.payload(&p)
	for range d.N(5) * d.N(2) {
		p.ext = append(p.ext, g.ext())
	}
	if !d.One(3) {
		b := p.bytes()
		if d.One(4) {
			b[d.N(len(b))] ^= 1 << d.N(8)
		}
		if d.One(8) {
			b = b[:d.N(len(b)+1)]
		}
		g.send(b)
	} else {
		g.fragments(p)
	}
	g.collect()
}

// payload gives the packet a transport's packet with a right checksum.
func (g *siege6) payload(p *ip6) {
	d := g.d
	switch d.N(5) {
	case 0:
		s := *g.peer
		s.from, s.to = addrPort6(p.Src, 5000), addrPort6(p.Dst, 80)
		s.th.Seq, s.th.Ack = g.mine.Add(d.N(3)), g.theirs.Add(d.N(2))
		s.th.Flags = wire.Flags(d.N(256)) &^ wire.RST
		s.data = pattern6(d.N(50))
		p.proto, p.payload = wire.ProtoTCP, s.tcp()
	case 1:
		quoted := ip6{IPv6: wire.IPv6{Src: p.Dst, Dst: p.Src}, proto: wire.ProtoTCP, payload: make([]byte, d.N(30))}
		if d.One(3) {
			quoted.ext = []ext6{g.ext()}
		}
		body := quoted.bytes()
		ic := wire.ICMP{Type: uint8(d.N(6)), Code: uint8(d.N(8)), Rest: uint32(d.N(3000))}
		p.proto, p.payload = wire.ProtoICMPv6, icmp6Message(p.Src, p.Dst, ic, body[:d.N(len(body)+1)])
	case 2, 3:
		ic := wire.ICMP{Type: wire.ICMPv6Echo, Rest: uint32(d.N(100))}
		p.proto, p.payload = wire.ProtoICMPv6, icmp6Message(p.Src, p.Dst, ic, pattern6(d.N(2000)))
	default:
		p.proto, p.payload = uint8(d.N(256)), pattern6(d.N(100))
	}
}

// ext makes an extension header.
func (g *siege6) ext() ext6 {
	d := g.d
	protos := []uint8{wire.ProtoHopopts, wire.ProtoDstopts, wire.ProtoRouting, wire.ProtoFragment, wire.ProtoAH}
	e := ext6{proto: protos[d.N(len(protos))], body: make([]byte, 8*(1+d.N(4)))}
	if e.proto == wire.ProtoFragment {
		e.body = e.body[:8]
	} else {
		e.body[1] = uint8(len(e.body)/8 - 1)
	}
	for range d.N(4) {
		e.body[1+d.N(len(e.body)-1)] = uint8(d.N(256))
	}
	return e
}

// fragments sends the packet in fragments, of which some overlap, some are missing, and some come
// twice.
func (g *siege6) fragments(p ip6) {
	d := g.d
	id := uint32(d.N(3))
	for off := 0; off < len(p.payload); {
		n := min(8*(1+d.N(100)), len(p.payload)-off)
		f := frag6{off: off, end: off + n, more: off+n < len(p.payload) || d.One(10)}
		b := f.bytes(p, id)
		if d.One(20) { // an offset that is not the place of the data
			at := len(b) - n - wire.FragmentLen + 2
			binary.BigEndian.PutUint16(b[at:], uint16(d.N(65536)))
		}
		if !d.One(12) {
			g.send(b)
		}
		if !d.One(12) {
			off += n
		}
		if !d.More() {
			return
		}
	}
}

func FuzzPackets6(f *testing.F) {
	for seed := range uint64(6) {
		f.Add(testutil.SeededBytes(seed, 400))
	}
	f.Fuzz(func(t *testing.T, data []byte) { besiege6(t, data[:min(len(data), maxFuzz)]) })
}

func TestPackets6Seeds(t *testing.T) {
	for seed := range testutil.Games(300, 20) {
		data := testutil.SeededBytes(seed, 50+int(seed*37%1100))
		if !t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { besiege6(t, data) }) {
			break
		}
	}
}
