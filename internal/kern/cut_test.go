package kern

import (
	"bytes"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
)

// A chain is what the machine emits: headers in an mbuf of their own, then data.
func chainOf(pool *mbuf.Pool, r *rand.Rand, th *wire.TCP, data []byte, seg int) *mbuf.Mbuf {
	m := pool.Gethdr()
	m.Extend(th.Put(m.Room()[:wire.TCPMaxLen]))
	tail := m
	for off := 0; off < len(data); {
		n := min(1+r.IntN(9000), len(data)-off)
		d := pool.Getcl(n)
		d.Append(data[off : off+n])
		tail.SetNext(d)
		tail = d
		off += n
	}
	m.Pkt.Len, m.Pkt.Csum, m.Pkt.SegSize = th.Hlen+len(data), mbuf.CsumPartial, seg
	ip := wire.IPv4{Src: attHost, Dst: attPeer, Proto: wire.ProtoTCP, TTL: 64, Flags: wire.IPDF}
	if n := m.Pkt.Len + wire.IPv4MinLen; n <= wire.MaxPacket {
		ip.Len = n
	}
	ip.Put(m.Prepend(wire.IPv4MinLen))
	return m
}

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// cutAll returns the packets that a chain becomes.
func cutAll(m *mbuf.Mbuf) (pkts [][]byte) {
	var c cutter
	var hbuf []byte
	for c.start(m, false, false); c.more(); {
		var bufs net.Buffers
		hbuf, bufs = c.next(hbuf, nil)
		pkts = append(pkts, slices.Concat(bufs...))
	}
	return pkts
}

// A chain becomes segments that differ in what they must differ in: FIN and PUSH on the last, CWR
// on the first, the urgent pointer on those before it, and all sums right. Merging the segments
// gives the chain again.
func TestCutAndMergeIsIdentity(t *testing.T) {
	v := attacked(t, nil)
	defer v.done()
	for i := range 600 {
		seed := uint64(i)
		r := rand.New(rand.NewPCG(seed, 1))
		seg := 1 + r.IntN(3000)
		n := r.IntN(65535 - 40 - 40)
		if r.IntN(4) == 0 {
			n = seg * r.IntN(10)
		}
		data := randomBytes(r, n)
		th := wire.TCP{Sport: 80, Dport: 5000, Seq: tcp.Seq(r.Uint32()), Ack: tcp.Seq(r.Uint32()), Win: 1000,
			Flags: wire.ACK}
		plain := r.IntN(2) == 0
		if r.IntN(2) == 0 {
			th.Opt = wire.Options{Has: wire.TofTS, TSVal: r.Uint32(), TSEcr: r.Uint32()}
		}
		if r.IntN(2) == 0 {
			th.Flags |= wire.PUSH
		}
		if !plain {
			th.Flags |= wire.Flags(r.Uint32()) & (wire.FIN | wire.URG | wire.CWR | wire.ECE)
			if th.Flags&wire.URG != 0 {
				th.Urp = uint16(1 + r.IntN(65535))
			}
		}
		m := chainOf(&v.k.pool, r, &th, data, seg)
		pkts := cutAll(m)
		mbuf.Free(m)
		v.checkCut(seed, &th, data, seg, pkts)
		if plain && n > 0 {
			v.checkMerge(seed, &th, data, pkts)
		}
	}
}

func (v *victim) checkCut(seed uint64, th *wire.TCP, data []byte, seg int, pkts [][]byte) {
	v.Helper()
	if want := max((len(data)+seg-1)/seg, 1); len(pkts) != want {
		v.Fatalf("seed %d: %d bytes at %d became %d packets, want %d", seed, len(data), seg, len(pkts), want)
	}
	off := 0
	for i, p := range pkts {
		g := v.parse(p)
		want := *th
		want.Seq = th.Seq.Add(off)
		want.Hlen = g.th.Hlen
		if i > 0 {
			want.Flags &^= wire.CWR
		}
		if i < len(pkts)-1 {
			want.Flags &^= wire.FIN | wire.PUSH
		}
		if th.Flags&wire.URG != 0 {
			if u := int(th.Urp) - off; u > 0 {
				want.Urp = uint16(u)
			} else {
				want.Flags, want.Urp = want.Flags&^wire.URG, 0
			}
		}
		if g.th != want {
			v.Fatalf("seed %d: segment %d of %d is %+v, want %+v", seed, i, len(pkts), g.th, want)
		}
		if !bytes.Equal(g.data, data[off:off+len(g.data)]) {
			v.Fatalf("seed %d: segment %d has other data", seed, i)
		}
		off += len(g.data)
	}
	if off != len(data) {
		v.Fatalf("seed %d: %d bytes of %d", seed, off, len(data))
	}
}

func (v *victim) checkMerge(seed uint64, th *wire.TCP, data []byte, pkts [][]byte) {
	v.Helper()
	var g gro
	for _, p := range pkts {
		m := v.k.pool.Getcl(len(p))
		m.Append(p)
		m.Pkt.Len = len(p)
		if g.receive(v.k, v.ifp, m) {
			mbuf.Free(m)
		}
	}
	if g.m == nil || g.len != len(data) {
		v.Fatalf("seed %d: %d packets merged to %d bytes, want %d", seed, len(pkts), g.len, len(data))
	}
	got := make([]byte, g.hl+g.len)
	if n := mbuf.Copydata(g.m, 0, got); n != len(got) || !bytes.Equal(got[g.hl:], data) {
		v.Fatalf("seed %d: other data: %d bytes of %d", seed, n, len(got))
	}
	var h wire.TCP
	if err := wire.ParseTCP(got[g.iphl:], &h); err != nil {
		v.Fatal(err)
	}
	want := *th
	want.Hlen = h.Hlen
	if h != want {
		v.Fatalf("seed %d: merged header %+v, want %+v", seed, h, want)
	}
	mbuf.Free(g.m)
}

// Segments that differ in more than sequence number, PUSH and length are not merged.
func TestMergeRefuses(t *testing.T) {
	v := attacked(t, nil)
	defer v.done()
	for name, change := range map[string]func(s *seg){
		"a hole":                  func(s *seg) { s.th.Seq++ },
		"a duplicate":             func(s *seg) { s.th.Seq -= 100 },
		"another port":            func(s *seg) { s.from = netip.AddrPortFrom(attPeer, 5001) },
		"another address":         func(s *seg) { s.from = netip.MustParseAddrPort("10.0.0.3:5000") },
		"another acknowledgment":  func(s *seg) { s.th.Ack++ },
		"another window":          func(s *seg) { s.th.Win++ },
		"another timestamp":       func(s *seg) { s.th.Opt.TSVal++ },
		"no options":              func(s *seg) { s.th.Opt.Has = 0 },
		"FIN":                     func(s *seg) { s.th.Flags |= wire.FIN },
		"SYN":                     func(s *seg) { s.th.Flags |= wire.SYN },
		"RST":                     func(s *seg) { s.th.Flags |= wire.RST },
		"URG":                     func(s *seg) { s.th.Flags |= wire.URG; s.th.Urp = 5 },
		"ECE":                     func(s *seg) { s.th.Flags |= wire.ECE },
		"CWR":                     func(s *seg) { s.th.Flags |= wire.CWR },
		"no ACK":                  func(s *seg) { s.th.Flags = 0 },
		"no data":                 func(s *seg) { s.data = nil },
		"a longer one":            func(s *seg) { s.data = make([]byte, 101) },
		"another type of service": func(s *seg) { s.ip.TOS = 0x10 },
		"a congestion mark":       func(s *seg) { s.ip.TOS = 3 },
		"another time to live":    func(s *seg) { s.ip.TTL = 63 },
		"a fragment":              func(s *seg) { s.ip.Flags = wire.IPMF },
	} {
		var g gro
		first := mergeable()
		first.th.Seq = 1000
		v.merge(&g, first)
		s := mergeable()
		change(s)
		v.merge(&g, s)
		if g.m != nil && g.len > 101 {
			t.Errorf("%s was merged", name)
		}
		mbuf.Free(g.m)
	}
	v.k.reass.flush()
}

// Nothing follows a PUSH, or a segment shorter than those before.
func TestMergeEnds(t *testing.T) {
	v := attacked(t, nil)
	defer v.done()
	for _, short := range []bool{false, true} {
		var g gro
		for i, n := range []int{100, 100, 100} {
			s := mergeable()
			s.th.Seq = tcp.Seq(1000 + 100*i)
			if i == 1 && short {
				n = 99
			} else if i == 1 {
				s.th.Flags |= wire.PUSH
			}
			s.data = make([]byte, n)
			if i == 2 && short {
				s.th.Seq--
			}
			v.merge(&g, s)
		}
		if g.len != 100 {
			t.Errorf("short %v: %d bytes were merged behind the end of a run", short, g.len-100)
		}
		mbuf.Free(g.m)
	}
}

// A packet is not merged if the checksum of either header is wrong.
func TestMergeVerifies(t *testing.T) {
	v := attacked(t, nil)
	defer v.done()
	for _, at := range []int{10, 16 + 20, 70} {
		p := mergeable().bytes()
		p[at] ^= 1
		m := v.packet(p)
		if _, _, _, ok := groHeader(m); ok {
			t.Errorf("a packet with byte %d wrong can be merged", at)
		}
		mbuf.Free(m)
	}
}

// mergeable returns a segment of 100 bytes.
func mergeable() *seg {
	s := &seg{from: netip.AddrPortFrom(attPeer, 5000), to: netip.AddrPortFrom(attHost, 80), data: make([]byte, 100)}
	s.th = wire.TCP{Seq: 1100, Ack: 5, Flags: wire.ACK, Win: 100,
		Opt: wire.Options{Has: wire.TofTS, TSVal: 7, TSEcr: 8}}
	return s
}

// packet returns a packet as a link brings it.
func (v *victim) packet(p []byte) *mbuf.Mbuf {
	m := v.k.pool.Getcl(len(p))
	m.Append(p)
	m.Pkt.Len = len(p)
	return m
}

// merge gives a segment to g.
func (v *victim) merge(g *gro, s *seg) {
	m := v.packet(s.bytes())
	if g.receive(v.k, v.ifp, m) {
		mbuf.Free(m)
	}
}

// If a link has taken the first segments of a chain, the rest is cut into the same packets as in
// the whole chain.
func TestDropSegments(t *testing.T) {
	v := attacked(t, nil)
	defer v.done()
	for i := range 200 {
		r := rand.New(rand.NewPCG(uint64(i), 2))
		seg := 100 + r.IntN(1400)
		data := randomBytes(r, seg+1+r.IntN(40000))
		th := wire.TCP{Seq: tcp.Seq(r.Uint32()), Win: 9,
			Flags: wire.ACK | wire.PUSH | wire.URG | wire.CWR | wire.FIN, Urp: uint16(1 + r.IntN(60000))}
		m := chainOf(&v.k.pool, r, &th, data, seg)
		whole := cutAll(m)
		n := 1 + r.IntN(len(whole)-1)
		m = dropSegments(m, n*seg)
		rest := cutAll(m)
		mbuf.Free(m)
		if len(rest) != len(whole)-n {
			t.Fatalf("seed %d: %d packets are left of %d after %d", i, len(rest), len(whole), n)
		}
		for j := range rest {
			if !bytes.Equal(rest[j], whole[n+j]) {
				t.Fatalf("seed %d: packet %d of the rest differs:\n%x\n%x", i, j, rest[j][:60], whole[n+j][:60])
			}
		}
	}
}

// So it is with a small segment, whose data stands behind its headers, on a link that only takes
// smaller ones.
func TestDropSmallSegments(t *testing.T) {
	v := attacked(t, nil)
	defer v.done()
	for n := 1; n < 4; n++ {
		m := chainOf(&v.k.pool, nil, &wire.TCP{Seq: 1, Flags: wire.ACK | wire.PUSH}, nil, 10)
		m.Pkt.Len += m.Append(randomBytes(rand.New(rand.NewPCG(1, 1)), 36))
		whole := cutAll(m)
		m = dropSegments(m, n*10)
		rest := cutAll(m)
		mbuf.Free(m)
		if len(whole) != 4 || len(rest) != 4-n {
			t.Fatalf("%d packets are left of %d after %d", len(rest), len(whole), n)
		}
		for j := range rest {
			if !bytes.Equal(rest[j], whole[n+j]) {
				t.Errorf("packet %d after %d differs:\n%x\n%x", j, n, rest[j], whole[n+j])
			}
		}
	}
}

// A segment that the link carries goes as one packet, wherever its data stands.
func TestSmallSegmentIsWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		host := []netip.Prefix{netip.MustParsePrefix("10.1.0.1/24")}
		l := newWireLink(90)
		ifp, err := v.k.Attach("small0", l, host)
		if err != nil {
			t.Fatal(err)
		}
		wire0, link0 := v.ifp, v.link
		v.ifp, v.link = ifp, l
		defer func() { v.ifp, v.link = wire0, link0 }()
		to := netip.AddrPortFrom(host[0].Addr(), 80)
		lfd := v.listenOn(to, 5)
		p := &peer{v: v, from: netip.MustParseAddrPort("10.1.0.2:5000"), to: to, seq: 1000, win: 65535}
		if !p.dial(wire.Options{Has: wire.TofMSS, MSS: 50}) {
			t.Fatal("no SYN,ACK")
		}
		fd, _, errno := v.p.Accept(lfd)
		v.no(errno)
		l.fetch()
		v.p.Send(fd, make([]byte, 40), 0)
		settle()
		if out := l.fetch(); len(out) != 1 || len(v.parse(out[0]).data) != 40 {
			t.Errorf("40 bytes go as %d packets", len(out))
		}
	})
}
