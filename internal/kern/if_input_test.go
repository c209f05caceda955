package kern

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
)

// gsoSplit cuts and sums a packet as its virtio-net header says, as the kernel behind a TUN device
// does. It shares no code with the cutter.
func gsoSplit(t testing.TB, p []byte) (pkts [][]byte) {
	t.Helper()
	le, be := binary.LittleEndian, binary.BigEndian
	flags, gsoType, hdrLen, gsoSize := p[0], p[1], int(le.Uint16(p[2:])), int(le.Uint16(p[4:]))
	start, offset := int(le.Uint16(p[6:])), int(le.Uint16(p[8:]))
	p = p[10:]
	length := int(be.Uint16(p[2:]))
	v6 := p[0]>>4 == 6
	if v6 {
		length = 40 + int(be.Uint16(p[4:]))
	}
	if len(p) > 65535 || length != len(p) {
		t.Fatalf("a packet of %d bytes says that it has %d", len(p), length)
	}
	if flags == 0 {
		return [][]byte{p}
	}
	sum := func(p []byte) []byte {
		be.PutUint16(p[start+offset:], wire.InCksum(p[start:]))
		return p
	}
	if gsoType == 0 {
		return [][]byte{sum(p)}
	}
	if gsoType == 5 { // datagrams: the kernel's __udp_gso_segment
		if gsoSize == 0 || hdrLen != start+8 || offset != 6 || (len(p)-hdrLen+gsoSize-1)/gsoSize > 64 {
			t.Fatalf("%d bytes of datagrams of %d, with headers of %d", len(p), gsoSize, hdrLen)
		}
		for data := p[hdrLen:]; len(data) > 0; {
			n := min(gsoSize, len(data))
			s := slices.Concat(p[:hdrLen], data[:n])
			be.PutUint16(s[2:], uint16(len(s)))
			be.PutUint16(s[10:], 0)
			be.PutUint16(s[10:], wire.InCksum(s[:start]))
			be.PutUint16(s[start+4:], uint16(8+n))
			pseudo := uint64(be.Uint16(p[start+6:])) + uint64(^uint16(len(p)-start)) + uint64(len(s)-start)
			be.PutUint16(s[start+6:], wire.Fold(pseudo))
			if sum(s); be.Uint16(s[start+6:]) == 0 {
				be.PutUint16(s[start+6:], 0xffff)
			}
			pkts = append(pkts, s)
			data = data[n:]
		}
		return pkts
	}
	want := uint8(wire.VnetTCPv4)
	if v6 {
		want = wire.VnetTCPv6
	}
	if gsoType&^0x80 != want || gsoSize == 0 || hdrLen != start+int(p[start+12]>>4)*4 {
		t.Fatalf("a header with type %d, segments of %d, headers of %d", gsoType, gsoSize, hdrLen)
	}
	data := p[hdrLen:]
	for off := 0; off < len(data); off += gsoSize {
		n := min(gsoSize, len(data)-off)
		s := slices.Concat(p[:hdrLen], data[off:off+n])
		h := s[start:]
		if v6 {
			be.PutUint16(s[4:], uint16(len(s)-40))
		} else {
			be.PutUint16(s[2:], uint16(len(s)))
			be.PutUint16(s[10:], 0)
			be.PutUint16(s[10:], wire.InCksum(s[:start]))
		}
		be.PutUint32(h[4:], be.Uint32(h[4:])+uint32(off))
		if off+n < len(data) {
			h[13] &^= uint8(wire.FIN | wire.PUSH)
		}
		if off > 0 && gsoType&0x80 != 0 {
			h[13] &^= uint8(wire.CWR)
		}
		// The sum of the pseudo-header is that of the whole: the length in it differs (RFC 1624).
		pseudo := uint64(be.Uint16(p[start+16:])) + uint64(^uint16(len(p)-start)) + uint64(len(s)-start)
		be.PutUint16(h[16:], wire.Fold(pseudo))
		pkts = append(pkts, sum(s))
	}
	return pkts
}

// A link with offloads makes the same packets of a chain as the stack by itself.
func TestVnetHeader(t *testing.T) {
	v := attacked(t, nil)
	defer v.done()
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 4))
		seg := 1 + r.IntN(9000)
		data := randomBytes(r, r.IntN(65535*2))
		if r.IntN(3) == 0 {
			data = data[:min(seg*r.IntN(5), len(data))]
		}
		th := wire.TCP{Sport: 80, Dport: 5000, Seq: tcp.Seq(r.Uint32()), Ack: 7, Win: 1000,
			Flags: wire.ACK | wire.Flags(r.Uint32())&(wire.FIN|wire.PUSH|wire.CWR|wire.ECE)}
		if r.IntN(5) == 0 {
			th.Flags |= wire.URG
			th.Urp = uint16(1 + r.IntN(60000))
		}
		if r.IntN(2) == 0 {
			th.Opt = wire.Options{Has: wire.TofTS, TSVal: r.Uint32(), TSEcr: r.Uint32()}
		}
		m := chainOf(&v.k.pool, r, &th, data, seg)
		want := cutAll(m)
		var got [][]byte
		var c cutter
		var hbuf []byte
		for c.start(m, true, false); c.more(); {
			var bufs net.Buffers
			hbuf, bufs = c.next(hbuf, nil)
			got = append(got, gsoSplit(t, slices.Concat(bufs...))...)
		}
		mbuf.Free(m)
		if len(got) != len(want) {
			t.Fatalf("seed %d: %d bytes at %d become %d packets behind the link, want %d", seed, len(data), seg,
				len(got), len(want))
		}
		for i := range got {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("seed %d: packet %d of %d is\n%x, want\n%x", seed, i, len(got), got[i][:60], want[i][:60])
			}
		}
	}
}

// A vnetLink is a cable for packets with virtio-net headers, of several queues.
type vnetLink struct{ queues []*pairLink }

func newVnetPair(queues int, seed uint64) (a, b *vnetLink) {
	a, b = &vnetLink{}, &vnetLink{}
	for i := range queues {
		x, y := newPair(1500, true, seed+uint64(i))
		a.queues, b.queues = append(a.queues, x), append(b.queues, y)
	}
	return a, b
}

func (l *vnetLink) MTU() int      { return 1500 }
func (l *vnetLink) Offload() bool { return true }
func (l *vnetLink) Queues() int   { return len(l.queues) }

func (l *vnetLink) Start(ready func()) error {
	for _, q := range l.queues {
		q.Start(ready)
	}
	return nil
}

func (l *vnetLink) Close() error {
	for _, q := range l.queues {
		q.Close()
	}
	return nil
}

func (l *vnetLink) ReadQueue(q int, bufs [][]byte, sizes []int) (int, error) {
	return l.queues[q].Read(bufs, sizes)
}

func (l *vnetLink) WriteQueue(q int, pkts []net.Buffers) (int, error) {
	return l.queues[q].Write(pkts)
}

func (l *vnetLink) Read(bufs [][]byte, sizes []int) (int, error) { return l.ReadQueue(0, bufs, sizes) }
func (l *vnetLink) Write(pkts []net.Buffers) (int, error)        { return l.WriteQueue(0, pkts) }

// Chains go over such a link whole, on one queue and on several, without checksums.
func TestVnetStreams(t *testing.T) {
	for _, queues := range []int{1, 3} {
		a, b := newVnetPair(queues, uint64(queues))
		exchangeStreams(t, a, b, uint64(queues))
	}
}

// vnetIfnet is an interface whose link carries virtio-net headers, but which has none.
func (v *victim) vnetIfnet() *Ifnet {
	return &Ifnet{k: v.k, mtu: v.ifp.mtu, prefixes: v.ifp.prefixes, vnet: true}
}

// A packet with a virtio-net header counts as one without, whose checksum is known to be right. A
// capture fills in its checksum.
func TestVnetReceived(t *testing.T) {
	v := attacked(t, nil)
	defer v.done()
	ifp := v.vnetIfnet()
	udp := ipPacket(wire.IPv4{Proto: wire.ProtoUDP, TTL: 64}, attPeer, attHost, wire.ProtoUDP,
		[]byte{0, 9, 0, 9, 0, 11, 0, 0, 'a', 'b', 'c'})
	zero := slices.Clone(udp) // its checksum comes out as 0, which is sent as ffff
	sum0 := wire.Sum(append(zero[20:28:28], 0, 0, 'c'), wire.PseudoSum(attPeer, attHost, wire.ProtoUDP, 11))
	binary.BigEndian.PutUint16(zero[28:], ^wire.Fold(sum0))
	binary.BigEndian.PutUint16(zero[26:], wire.Fold(wire.PseudoSum(attPeer, attHost, wire.ProtoUDP, 11)))
	binary.BigEndian.PutUint16(udp[26:], wire.Fold(wire.PseudoSum(attPeer, attHost, wire.ProtoUDP, 11)))
	s := v.peer(5000, 80).seg(wire.ACK, make([]byte, 4000))
	whole := s.bytes()
	sum := slices.Clone(whole[36:38])
	binary.BigEndian.PutUint16(whole[36:], 0x1234) // nobody looks at it
	for _, c := range []struct {
		name string
		hdr  wire.Vnet
		pkt  []byte
		csum mbuf.Csum
		seg  int
	}{
		{"plain", wire.Vnet{}, whole, 0, 0},
		{"verified", wire.Vnet{Flags: wire.VnetDataValid}, whole, mbuf.CsumVerified, 0},
		{"partial", wire.Vnet{Flags: wire.VnetNeedsCsum, CsumStart: 20, CsumOffset: 16}, whole,
			mbuf.CsumVerified | mbuf.CsumPartial, 0},
		{"large", wire.Vnet{Flags: wire.VnetNeedsCsum, GSOType: wire.VnetTCPv4 | wire.VnetECN, GSOSize: 1448,
			CsumStart: 20, CsumOffset: 16}, whole, mbuf.CsumVerified | mbuf.CsumPartial, 1448},
		{"UDP", wire.Vnet{Flags: wire.VnetNeedsCsum, CsumStart: 20, CsumOffset: 6}, udp,
			mbuf.CsumVerified | mbuf.CsumPartial, 0},
		{"UDP with a sum of 0", wire.Vnet{Flags: wire.VnetNeedsCsum, CsumStart: 20, CsumOffset: 6}, zero,
			mbuf.CsumVerified | mbuf.CsumPartial, 0},
		{"datagrams", wire.Vnet{Flags: wire.VnetNeedsCsum, GSOType: wire.VnetUDPL4, GSOSize: 2, CsumStart: 20,
			CsumOffset: 6}, udp, mbuf.CsumVerified | mbuf.CsumPartial, 2},
		{"UDP's in TCP's place", wire.Vnet{Flags: wire.VnetNeedsCsum, CsumStart: 20, CsumOffset: 16}, slices.Clone(udp),
			0, 0},
		{"a checksum beyond the end", wire.Vnet{Flags: wire.VnetNeedsCsum, CsumStart: 60000, CsumOffset: 60000},
			whole, 0, 0},
		{"a checksum elsewhere", wire.Vnet{Flags: wire.VnetNeedsCsum, CsumStart: 21, CsumOffset: 16},
			slices.Clone(whole), 0, 0},
	} {
		buf := v.k.pool.Getcl(mbuf.ClJumbo)
		n := copy(buf.Room(), append(c.hdr.Append(nil), c.pkt...))
		m := ifp.received(&buf, n, wire.VnetLen+wire.MaxPacket)
		mbuf.Free(buf)
		if m.Pkt.Csum != c.csum || m.Pkt.SegSize != c.seg || m.Pkt.Len != len(c.pkt) || m.Len() != len(c.pkt) {
			t.Errorf("%s: %+v of %d bytes", c.name, m.Pkt, m.Len())
		}
		if c.name == "UDP" {
			sum := wire.PseudoSum(attPeer, attHost, wire.ProtoUDP, 11)
			if wire.Fold(wire.Sum(cutAll(m)[0][20:], sum)) != 0xffff {
				t.Error("the checksum of a UDP datagram is not filled in")
			}
		}
		if c.name == "UDP with a sum of 0" {
			if p := cutAll(m)[0]; binary.BigEndian.Uint16(p[26:]) != 0xffff {
				t.Errorf("the checksum of a UDP datagram is %x, want ffff", p[26:28])
			}
		}
		if c.name == "partial" {
			if p := cutAll(m); len(p) != 1 || !bytes.Equal(p[0][36:38], sum) {
				t.Errorf("captured with the checksum %x, want %x", p[0][36:38], sum)
			}
		}
		mbuf.Free(m)
	}
	if buf := v.k.pool.Getcl(100); ifp.received(&buf, wire.VnetLen+19, 100) != nil || ifp.Stats.Ierrors.Load() != 1 {
		t.Error("a packet shorter than its headers is taken")
	} else {
		mbuf.Free(buf)
	}
}

// Whatever comes with a virtio-net header, nothing panics and nothing leaks.
func FuzzVnet(f *testing.F) {
	v := attacked(f, nil)
	f.Cleanup(v.done)
	ifp := v.vnetIfnet()
	v.listen(80, 5)
	if _, err := ifp.Capture(io.Discard); err != nil {
		f.Fatal(err)
	}
	syn := v.peer(5000, 80).seg(wire.SYN, make([]byte, 3000)).bytes()
	for _, h := range []wire.Vnet{
		{}, {Flags: 1, CsumStart: 24, CsumOffset: 6},
		{Flags: wire.VnetNeedsCsum, CsumStart: 20, CsumOffset: 16, GSOType: wire.VnetTCPv4, GSOSize: 100},
	} {
		f.Add(append(h.Append(nil), syn...))
		f.Add(append(h.Append(nil), syn[:30]...))
	}
	syn6 := ip6{proto: wire.ProtoTCP, payload: v.peer(5000, 80).seg(wire.ACK, make([]byte, 3000)).tcp()}
	for _, h := range []wire.Vnet{
		{Flags: wire.VnetNeedsCsum, CsumStart: 40, CsumOffset: 16, GSOType: wire.VnetTCPv6, GSOSize: 100},
		{Flags: wire.VnetNeedsCsum, CsumStart: 48, CsumOffset: 16},
	} {
		f.Add(append(h.Append(nil), syn6.bytes()...))
		syn6.ext = []ext6{{wire.ProtoDstopts, opts6()}}
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) > wire.VnetLen+wire.MaxPacket {
			return
		}
		buf := v.k.pool.Getcl(mbuf.ClJumbo)
		n := copy(buf.Room(), p)
		var g gro
		if m := ifp.received(&buf, n, wire.VnetLen+wire.MaxPacket); m != nil {
			m.Pkt.Arrived = v.k.now()
			ifp.bpfMtap(m)
			if g.receive(v.k, ifp, m) {
				mbuf.Free(m)
			}
		}
		g.flush(v.k, ifp)
		mbuf.Free(buf)
		v.link.fetch()
	})
}

// A batchLink is read in batches that a test puts there, and says how its answers were written.
type batchLink struct {
	*wireLink
	batches chan [][]byte
	fail    error // what Read returns once batches is closed
	writes  []int // packets in each call of Write
}

func (l *batchLink) Read(bufs [][]byte, sizes []int) (int, error) {
	select {
	case b, ok := <-l.batches:
		if !ok && l.fail != nil {
			return 0, l.fail
		}
		for i, p := range b {
			sizes[i] = copy(bufs[i], p)
		}
		return len(b), nil
	case <-l.done:
		return 0, net.ErrClosed
	}
}

func (l *batchLink) Write(pkts []net.Buffers) (int, error) {
	l.writes = append(l.writes, len(pkts)) // by one drainer at a time
	return l.wireLink.Write(pkts)
}

func newBatchLink() *batchLink {
	return &batchLink{wireLink: newWireLink(1500), batches: make(chan [][]byte)}
}

// The answers to a batch are sent in one call, when all of its packets have been processed.
func TestBatchIsAnsweredAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		l := newBatchLink()
		if _, err := v.k.Attach("batch0", l, []netip.Prefix{netip.MustParsePrefix("10.1.0.1/24")}); err != nil {
			t.Fatal(err)
		}
		var batch [][]byte
		for port := range uint16(9) { // nobody listens: each is answered by a reset
			s := &seg{from: netip.MustParseAddrPort("10.1.0.2:5000"),
				to: netip.AddrPortFrom(netip.MustParseAddr("10.1.0.1"), 1000+port)}
			s.th = wire.TCP{Seq: 1, Flags: wire.SYN, Win: 1000}
			batch = append(batch, s.bytes())
		}
		l.batches <- batch
		settle()
		if !slices.Equal(l.writes, []int{9}) {
			t.Errorf("9 answers were written as %v", l.writes)
		}
	})
}

// When a link has broken, dials fail at once, and a connection goes on over the link that is
// attached in its place.
func TestBrokenLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		l := newBatchLink()
		l.fail = syscall.EIO
		host := []netip.Prefix{netip.MustParsePrefix("10.1.0.1/24")}
		ifp, err := v.k.Attach("tun0", l, host)
		if err != nil {
			t.Fatal(err)
		}
		wire0, link0 := v.ifp, v.link
		v.ifp, v.link = ifp, l.wireLink
		defer func() { v.ifp, v.link = wire0, link0 }()
		lfd := v.listenOn(netip.AddrPortFrom(host[0].Addr(), 80), 5)
		p := &peer{v: v, from: netip.MustParseAddrPort("10.1.0.2:5000"), to: netip.AddrPortFrom(host[0].Addr(), 80),
			seq: 1000, win: 65535}
		if !p.dial(wire.Options{Has: wire.TofMSS, MSS: 1460}) {
			t.Fatal("no SYN,ACK")
		}
		fd, _, errno := v.p.Accept(lfd)
		v.no(errno)

		close(l.batches)
		settle()
		if !errors.Is(ifp.Err(), syscall.EIO) {
			t.Errorf("the interface's error is %v", ifp.Err())
		}
		cfd, _ := v.p.Socket(AF_INET, SOCK_STREAM, 0)
		if errno := v.p.Connect(cfd, p.from); errno != syscall.ENETDOWN {
			t.Errorf("dialling over a broken link: %v", errno)
		}
		if _, errno := v.p.Send(fd, make([]byte, 3000), 0); errno != 0 {
			t.Errorf("a connection over it ends: %v", errno)
		}
		l.fetch()
		v.k.Detach(ifp)
		l2 := newWireLink(1000)
		if v.ifp, err = v.k.Attach("tun0", l2, host); err != nil {
			t.Fatal(err)
		}
		v.link = l2
		pass(time.Duration(v.k.prof.RTOMax))
		got := 0
		for _, b := range l2.fetch() {
			if len(b) > 1000 {
				t.Errorf("a packet of %d bytes on a link of 1000", len(b))
			}
			g := v.parse(b)
			got = max(got, g.th.Seq.Add(len(g.data)).Sub(p.ack))
		}
		if got == 0 {
			t.Error("nothing goes over the new link")
		}
	})
}

// The counters of an interface count the bytes of IP packets, without virtio-net headers.
func TestVnetCounts(t *testing.T) {
	v := attacked(t, nil)
	defer v.done()
	for _, c := range []struct {
		vnet bool
		want IfCounts
	}{
		{false, IfCounts{Ipackets: 2, Ibytes: 55, Opackets: 2, Obytes: 110}},
		{true, IfCounts{Ipackets: 2, Ibytes: 40, Opackets: 2, Obytes: 90}},
	} {
		ifp := v.vnetIfnet()
		ifp.vnet = c.vnet
		ifp.countIn([]int{wire.VnetLen + 40, wire.VnetLen - 5})
		ifp.countOut([]net.Buffers{{make([]byte, wire.VnetLen+20), make([]byte, 30)}, {make([]byte, wire.VnetLen+40)}})
		if got := ifp.Counts(); got != c.want {
			t.Errorf("vnet %v: %+v, want %+v", c.vnet, got, c.want)
		}
	}
}
