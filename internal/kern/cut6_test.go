package kern

import (
	"bytes"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
)

// chainOf6 is chainOf for IPv6.
func chainOf6(pool *mbuf.Pool, r *rand.Rand, th *wire.TCP, data []byte, seg int) *mbuf.Mbuf {
	m := chainOf(pool, r, th, data, seg)
	pkt := m.Pkt
	rest := mbuf.Adj(m, wire.IPv4MinLen)
	m = pool.Gethdr()
	m.Append(rest.Bytes()[:th.Hlen])
	m.SetNext(mbuf.Adj(rest, th.Hlen))
	m.Pkt = pkt
	m.Pkt.Len = th.Hlen + len(data)
	ip := wire.IPv6{Src: attHost6, Dst: attPeer6, Next: wire.ProtoTCP, Hlim: 64, Label: 0x54321, Class: 0xb8}
	ip.Len = wire.IPv6Len
	if n := m.Pkt.Len; n <= wire.MaxPacket {
		ip.Len += n
	}
	ip.Put(m.Prepend(wire.IPv6Len))
	return m
}

// Chains over IPv6 become segments with right headers and checksums, alone and by a link with
// offloads, and merging the segments gives the chain again.
func TestCutAndMerge6(t *testing.T) {
	v := attacked6(t, nil)
	defer v.done()
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 66))
		seg := 1 + r.IntN(3000)
		data := randomBytes(r, 1+r.IntN(65535-40))
		if r.IntN(4) == 0 {
			data = data[:min(len(data), seg*(1+r.IntN(10)))]
		}
		th := wire.TCP{Sport: 80, Dport: 5000, Seq: tcp.Seq(r.Uint32()), Ack: 9, Win: 1000, Flags: wire.ACK}
		if r.IntN(2) == 0 {
			th.Opt = wire.Options{Has: wire.TofTS, TSVal: r.Uint32(), TSEcr: r.Uint32()}
		}
		m := chainOf6(&v.k.pool, r, &th, data, seg)
		pkts := cutAll(m)
		off := 0
		for i, p := range pkts {
			ip, err := wire.ParseIPv6(p, len(p))
			if err != nil || ip.Len != len(p) || ip.Label != 0x54321 || ip.Class != 0xb8 || ip.Hlim != 64 ||
				ip.Src != attHost6 || ip.Dst != attPeer6 || ip.Next != wire.ProtoTCP {
				t.Fatalf("seed %d: packet %d of %d is %+v, %v", seed, i, len(pkts), ip, err)
			}
			s := wire.TCPView(p[wire.IPv6Len:])
			if wire.Fold(wire.Sum(s, wire.PseudoSum(ip.Src, ip.Dst, ip.Next, len(s)))) != 0xffff {
				t.Fatalf("seed %d: packet %d of %d has a bad checksum", seed, i, len(pkts))
			}
			if d := s.Payload(); s.Seq() != th.Seq.Add(off) || len(d) > seg || !bytes.Equal(d, data[off:off+len(d)]) {
				t.Fatalf("seed %d: packet %d of %d has other data", seed, i, len(pkts))
			}
			off += len(s.Payload())
		}
		if off != len(data) {
			t.Fatalf("seed %d: %d bytes of %d", seed, off, len(data))
		}

		// A link with offloads is told how to do the same.
		var c cutter
		var got [][]byte
		for c.start(m, true, false); c.more(); {
			_, bufs := c.next(nil, nil)
			b := slices.Concat(bufs...)
			vh := wire.ParseVnet(b)
			if want := len(b) > wire.VnetLen+wire.IPv6Len+th.Hlen+seg; (vh.GSOType == wire.VnetTCPv6) != want {
				t.Fatalf("seed %d: a packet of %d bytes has %+v", seed, len(b), vh)
			}
			got = append(got, gsoSplit(t, b)...)
		}
		mbuf.Free(m)
		if !slices.EqualFunc(got, pkts, bytes.Equal) {
			t.Fatalf("seed %d: a link with offloads makes %d other packets than the %d", seed, len(got), len(pkts))
		}
		v.checkMerge(seed, &th, data, pkts)
	}
}

// Packets that differ in the fields of IPv6 are not merged, and no packets with extension headers.
func TestMergeRefuses6(t *testing.T) {
	v := attacked6(t, nil)
	defer v.done()
	s := &seg{th: wire.TCP{Flags: wire.ACK, Win: 100}, data: make([]byte, 100)}
	for name, change := range map[string]func(p *ip6){
		"":                       func(*ip6) {},
		"another label":          func(p *ip6) { p.Label = 7 },
		"another class":          func(p *ip6) { p.Class = 0x20 },
		"a congestion mark":      func(p *ip6) { p.Class = 3 },
		"another hop limit":      func(p *ip6) { p.Hlim = 63 },
		"a wrong checksum":       func(*ip6) {},
		"another source":         func(p *ip6) { p.Src = attPeer6.Next() },
		"an extension header":    func(p *ip6) { p.ext = []ext6{{wire.ProtoDstopts, opts6()}} },
		"a wrong payload length": func(p *ip6) { p.Len = wire.IPv6Len + 119 },
	} {
		var g gro
		for i := range 2 {
			p := ip6{proto: wire.ProtoTCP, IPv6: wire.IPv6{Src: attPeer6, Dst: attHost6}}
			s.th.Seq = tcp.Seq(1000 + 100*i)
			if i == 1 {
				change(&p)
			}
			s.from, s.to = addrPort6(p.Src, 5000), addrPort6(p.Dst, 80)
			p.payload = s.tcp()
			b := p.bytes()
			if i == 1 && name == "a wrong checksum" {
				b[len(b)-1]++
			}
			m := v.k.pool.Getcl(len(b))
			m.Append(b)
			m.Pkt.Len = len(b)
			if g.receive(v.k, v.ifp, m) {
				mbuf.Free(m)
			}
		}
		if merged := g.m != nil && g.len == 200; merged != (name == "") {
			t.Errorf("%q: merged %v", name, merged)
		}
		mbuf.Free(g.m)
		v.link.fetch()
	}
}

// What comes with a virtio-net header over IPv6: TCP's checksum is not filled in, others are.
func TestVnetReceived6(t *testing.T) {
	v := attacked6(t, nil)
	defer v.done()
	ifp := v.vnetIfnet()
	s := &seg{from: addrPort6(attPeer6, 5000), to: addrPort6(attHost6, 80), th: wire.TCP{Flags: wire.ACK},
		data: make([]byte, 4000)}
	whole := ip6{proto: wire.ProtoTCP, payload: s.tcp()}.bytes()
	behind := ip6{proto: wire.ProtoTCP, payload: s.tcp(), ext: []ext6{{wire.ProtoDstopts, opts6()}}}.bytes()
	for _, c := range []struct {
		name string
		hdr  wire.Vnet
		pkt  []byte
		csum mbuf.Csum
		seg  int
	}{
		{"plain", wire.Vnet{}, whole, 0, 0},
		{"partial", wire.Vnet{Flags: wire.VnetNeedsCsum, CsumStart: 40, CsumOffset: 16}, whole,
			mbuf.CsumVerified | mbuf.CsumPartial, 0},
		{"large", wire.Vnet{Flags: wire.VnetNeedsCsum, GSOType: wire.VnetTCPv6, GSOSize: 1428,
			CsumStart: 40, CsumOffset: 16}, whole, mbuf.CsumVerified | mbuf.CsumPartial, 1428},
		{"behind an extension header", wire.Vnet{Flags: wire.VnetNeedsCsum, CsumStart: 48, CsumOffset: 16}, behind,
			0, 0},
	} {
		p := slices.Clone(c.pkt)
		if c.hdr.Flags != 0 { // the sum of the pseudo-header only
			th := wire.TCPView(p[c.hdr.CsumStart:])
			th.SetSum(wire.Fold(wire.PseudoSum(attPeer6, attHost6, wire.ProtoTCP, len(th))))
		}
		buf := v.k.pool.Getcl(mbuf.ClJumbo)
		n := copy(buf.Room(), append(c.hdr.Append(nil), p...))
		m := ifp.received(&buf, n, wire.VnetLen+wire.MaxPacket)
		mbuf.Free(buf)
		if m.Pkt.Csum != c.csum || m.Pkt.SegSize != c.seg || m.Pkt.Len != len(p) {
			t.Errorf("%s: %+v of %d bytes", c.name, m.Pkt, m.Len())
		}
		var out [][]byte
		if c.csum&mbuf.CsumPartial != 0 {
			out = cutAll(m) // what a capture shows
		} else {
			out = [][]byte{slices.Concat(net.Buffers{m.Bytes()}...)}
		}
		for _, o := range out {
			th := wire.TCPView(o[len(c.pkt)-len(s.tcp()):])
			if wire.Fold(wire.Sum(th, wire.PseudoSum(attPeer6, attHost6, wire.ProtoTCP, len(th)))) != 0xffff {
				t.Errorf("%s: a packet of %d bytes is shown with a wrong checksum", c.name, len(o))
			}
		}
		mbuf.Free(m)
	}
}

// A capture of the loopback shows the segments of IPv6 as a wire would have them, with lengths and
// checksums, although none of them were there (pcap's LINKTYPE_RAW has both families).
func TestCapture6(t *testing.T) {
	v := attacked6(t, nil)
	defer v.done()
	var pcap bytes.Buffer
	stop, err := v.k.lo0.Capture(&pcap)
	if err != nil {
		t.Fatal(err)
	}
	listen := func() (fd int, at netip.AddrPort) {
		fd, errno := v.p.Socket(AF_INET6, SOCK_STREAM, 0)
		v.no(errno)
		v.no(v.p.Bind(fd, addrPort6(netip.IPv6Loopback(), 0)))
		v.no(v.p.Listen(fd, 1))
		at, errno = v.p.Getsockname(fd)
		v.no(errno)
		return fd, at
	}
	lfd, at := listen()
	fd, errno := v.p.Socket(AF_INET6, SOCK_STREAM, 0)
	v.no(errno)
	v.no(v.p.Connect(fd, at))
	afd, _, errno := v.p.Accept(lfd)
	v.no(errno)
	const n = 200_000
	sent := 0
	for got := 0; got < n; {
		if sent < n {
			k, errno := v.p.Send(fd, pattern6(min(n-sent, 100_000)), 0)
			v.no(errno)
			sent += k
		}
		k, errno := v.p.Recv(afd, make([]byte, n), 0)
		v.no(errno)
		got += k
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	data := 0
	for b := pcap.Bytes()[wire.PcapHeaderLen:]; len(b) > 0; {
		l := wire.PcapCaptured(b)
		p := b[wire.PcapRecordLen:][:l]
		b = b[wire.PcapRecordLen+l:]
		ip, err := wire.ParseIPv6(p, len(p))
		if err != nil || ip.Len != len(p) || ip.Src != netip.IPv6Loopback() || ip.Label == 0 {
			t.Fatalf("captured %x, %+v, %v", p[:min(60, len(p))], ip, err)
		}
		th := wire.TCPView(p[wire.IPv6Len:])
		if wire.Fold(wire.Sum(th, wire.PseudoSum(ip.Src, ip.Dst, ip.Next, len(th)))) != 0xffff {
			t.Fatalf("a packet of %d bytes is captured with a wrong checksum", len(p))
		}
		data += len(th.Payload())
	}
	if data != n {
		t.Errorf("%d bytes of %d are captured", data, n)
	}
}
