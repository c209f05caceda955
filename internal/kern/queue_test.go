package kern

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

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
	for c.start(m, false); c.more(); {
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
	base := func() *seg {
		s := &seg{from: netip.AddrPortFrom(attPeer, 5000), to: netip.AddrPortFrom(attHost, 80), data: make([]byte, 100)}
		s.th = wire.TCP{Seq: 1100, Ack: 5, Flags: wire.ACK, Win: 100,
			Opt: wire.Options{Has: wire.TofTS, TSVal: 7, TSEcr: 8}}
		return s
	}
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
		first := base()
		first.th.Seq = 1000
		feed := func(p []byte) {
			m := v.k.pool.Getcl(len(p))
			m.Append(p)
			m.Pkt.Len = len(p)
			if g.receive(v.k, v.ifp, m) {
				mbuf.Free(m)
			}
		}
		feed(first.bytes())
		s := base()
		change(s)
		feed(s.bytes())
		if g.m != nil && g.len > 101 {
			t.Errorf("%s was merged", name)
		}
		mbuf.Free(g.m)
	}
	// Nothing follows a PUSH, or a segment shorter than those before.
	for _, short := range []bool{false, true} {
		var g gro
		for i, n := range []int{100, 100, 100} {
			s := base()
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
			p := s.bytes()
			m := v.k.pool.Getcl(len(p))
			m.Append(p)
			m.Pkt.Len = len(p)
			if g.receive(v.k, v.ifp, m) {
				mbuf.Free(m)
			}
		}
		if g.len != 100 {
			t.Errorf("short %v: %d bytes were merged behind the end of a run", short, g.len-100)
		}
		mbuf.Free(g.m)
	}
	// A bad checksum, of either header, and padding.
	for _, at := range []int{10, 16 + 20, 70} {
		p := base().bytes()
		p[at] ^= 1
		m := v.k.pool.Getcl(len(p))
		m.Append(p)
		m.Pkt.Len = len(p)
		if _, _, _, ok := groHeader(m); ok {
			t.Errorf("a packet with byte %d wrong can be merged", at)
		}
		mbuf.Free(m)
	}
	v.k.reass.flush()
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

// Whatever part of what it is given a link takes, and whenever it asks for more, no byte is lost,
// doubled or out of place.
func TestShortWrites(t *testing.T) {
	for seed := range uint64(4) {
		la, lb := newPair(600+int(seed)*1000, true, seed)
		exchangeStreams(t, la, lb, seed)
	}
}

// exchangeStreams sends streams both ways over connections between two stacks at the ends of a
// cable.
func exchangeStreams(t *testing.T, la, lb Link, seed uint64) {
	t.Helper()
	ka, kb := twoKernels(t, la, lb, nil)
	pa, pb := ka.NewProc(), kb.NewProc()
	lfd, _ := pa.Socket(AF_INET, SOCK_STREAM, 0)
	at := netip.AddrPortFrom(attHost, 80)
	if errno := pa.Bind(lfd, at); errno != 0 {
		t.Fatal(errno)
	}
	pa.Listen(lfd, 16)
	const conns, size = 3, 1 << 20
	var wg sync.WaitGroup
	for i := range conns {
		fd, _ := pb.Socket(AF_INET, SOCK_STREAM, 0)
		if errno := pb.Connect(fd, at); errno != 0 {
			t.Fatal(errno)
		}
		sfd, _, errno := pa.Accept(lfd)
		if errno != 0 {
			t.Fatal(errno)
		}
		for j, end := range []struct {
			p  *Proc
			fd int
		}{{pb, fd}, {pa, sfd}} {
			wg.Go(func() { sendStream(t, end.p, end.fd, seed+uint64(i*2+j), size) })
			wg.Go(func() { readStream(t, end.p, end.fd, seed+uint64(i*2+1-j), size) })
		}
	}
	wg.Wait()
	if n := ka.Stats.TCP.Rcvduppack.Load() + kb.Stats.TCP.Rcvduppack.Load(); n > 50 {
		t.Logf("seed %d: %d duplicate segments arrived", seed, n)
	}
	if n := ka.Stats.TCP.Rcvbadsum.Load() + kb.Stats.TCP.Rcvbadsum.Load(); n != 0 {
		t.Errorf("seed %d: %d segments with bad checksums arrived", seed, n)
	}
	ka.Close()
	kb.Close()
	closedClean(t, ka)
	closedClean(t, kb)
}

// A stream is bytes that its seed determines.
func sendStream(t testing.TB, p *Proc, fd int, seed uint64, size int) {
	r := rand.New(rand.NewPCG(seed, 3))
	for n := 0; n < size; {
		b := make([]byte, min(1+r.IntN(40000), size-n))
		for i := range b {
			b[i] = streamByte(seed, n+i)
		}
		k, errno := p.Send(fd, b, 0)
		if errno != 0 {
			t.Errorf("stream %d: send at %d: %v", seed, n, errno)
			return
		}
		n += k
	}
}

func readStream(t testing.TB, p *Proc, fd int, seed uint64, size int) {
	b := make([]byte, 30000)
	for n := 0; n < size; {
		k, errno := p.Recv(fd, b, 0)
		if errno != 0 || k == 0 {
			t.Errorf("stream %d: recv at %d: %d, %v", seed, n, k, errno)
			return
		}
		for i := range k {
			if b[i] != streamByte(seed, n+i) {
				t.Errorf("stream %d: byte %d is wrong", seed, n+i)
				return
			}
		}
		n += k
	}
}

func streamByte(seed uint64, i int) byte { return byte((uint64(i)*0x9e3779b97f4a7c15 + seed) >> 23) }

// A connection stops at its share of a queue that does not move. Others have their shares. All go
// on when the queue moves.
func TestBackPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, func(c *Config, p *tcp.Profile) {
			p.InitCwndSegs, p.Sendspace = 4000, 4<<20
			p.Maxsockbuf = 8 << 20
		})
		defer v.done()
		lfd := v.listen(80, 10)
		var peers [2]*peer
		var fds [2]int
		for i := range peers {
			p := v.peer(uint16(5000+i), 80)
			p.dial(wire.Options{Has: wire.TofMSS | wire.TofScale, MSS: 1460, Scale: 8})
			fd, _, errno := v.p.Accept(lfd)
			v.no(errno)
			v.p.Fcntl(fd, F_SETFL, O_NONBLOCK)
			peers[i], fds[i] = p, fd
		}
		v.link.fetch()
		v.link.mu.Lock()
		v.link.take = func(int) int { return 0 }
		v.link.mu.Unlock()
		const size = 2 << 20
		data := make([]byte, size)
		for i := range data {
			data[i] = streamByte(9, i)
		}
		for i, fd := range fds {
			n, errno := v.p.Send(fd, data, 0)
			if n != size || errno != 0 {
				t.Fatalf("send took %d, %v", n, errno)
			}
			if n := v.p.Sock(fd).txPending.Load(); n < txShare || n > txShare+70000 {
				t.Errorf("connection %d has %d bytes pending, want about its share of %d", i, n, txShare)
			}
		}
		v.none()
		// The link takes a few packets at a time.
		r := rand.New(rand.NewPCG(1, 1))
		v.link.mu.Lock()
		v.link.take = func(n int) int { return r.IntN(min(n, 20) + 1) }
		v.link.mu.Unlock()
		var seen [2]int
		for range 5000 {
			v.link.ready()
			settle()
			for _, g := range v.segments() {
				i := int(g.th.Dport) - 5000
				if off := g.th.Seq.Sub(peers[i].ack); off != seen[i] ||
					!bytes.Equal(g.data, data[off:off+len(g.data)]) {
					t.Fatalf("connection %d: a segment at %d, want %d", i, off, seen[i])
				}
				seen[i] += len(g.data)
			}
			if seen == [2]int{size, size} {
				break
			}
		}
		if seen != [2]int{size, size} {
			t.Fatalf("sent %v of %d", seen, size)
		}
		for i := range fds {
			if n := v.p.Sock(fds[i]).txPending.Load(); n != 0 {
				t.Errorf("connection %d still has %d bytes pending", i, n)
			}
		}
	})
}

// A link that is full, and has room again before the stack has taken note of that, is asked again
// at once, as it calls ready only once.
func TestReadyBeforeNoted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		_, fd := v.established(v.listen(80, 10), 5000, 80)
		full := 0
		v.link.mu.Lock()
		v.link.take = func(n int) int {
			if full++; full%2 == 1 {
				v.link.ready() // as a thread of the link's may, between its answer and our note
				return 0
			}
			return 1
		}
		v.link.mu.Unlock()
		if n, errno := v.p.Send(fd, make([]byte, 6000), 0); n != 6000 || errno != 0 {
			t.Fatalf("send: %d, %v", n, errno)
		}
		settle()
		sent := 0
		for _, g := range v.segments() {
			sent += len(g.data)
		}
		if sent != 6000 {
			t.Errorf("%d bytes of 6000 have gone", sent)
		}
	})
}

// A device that fails loses packets, as a broken cable does; when it works again, so does the
// connection.
func TestFailingDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		p, fd := v.established(v.listen(80, 10), 5000, 80)
		v.link.mu.Lock()
		v.link.err = errFault
		v.link.mu.Unlock()
		if n, errno := v.p.Send(fd, []byte("hello"), 0); n != 5 || errno != 0 {
			t.Fatalf("send: %d, %v", n, errno)
		}
		pass(5 * time.Second)
		v.none()
		if n := v.ifp.Stats.Oerrors.Load(); n == 0 {
			t.Errorf("no output errors are counted")
		}
		v.link.mu.Lock()
		v.link.err = nil
		v.link.mu.Unlock()
		pass(10 * time.Second)
		l := v.segments()
		if len(l) == 0 || string(l[0].data) != "hello" || l[0].th.Seq != p.ack {
			t.Fatalf("after the fault %v was sent", l)
		}
		// A dial over an interface that is down fails at once.
		v.no(v.p.Close(fd))
		if err := v.k.Detach(v.ifp); err != nil {
			t.Fatal(err)
		}
		fd, _ = v.p.Socket(AF_INET, SOCK_STREAM, 0)
		if errno := v.p.Connect(fd, netip.AddrPortFrom(attPeer, 9)); errno != syscall.ENETUNREACH {
			t.Errorf("connect without an interface: %v", errno)
		}
	})
}

// The queue of an interface is bounded, whatever is put on it.
func TestQueueIsBounded(t *testing.T) {
	v := attacked(t, nil)
	defer v.done()
	v.link.mu.Lock()
	v.link.take = func(int) int { return 0 }
	v.link.mu.Unlock()
	echo := icmpPacket(attPeer, attHost, wire.ICMP{Type: wire.ICMPEcho}, make([]byte, 1000))
	for range ifqMaxPackets + 5000 {
		v.inject(echo)
	}
	q := &v.ifp.queues[0]
	if q.n > ifqMaxPackets+txBatch || q.bytes > ifqMaxBytes+70000 {
		t.Errorf("%d packets, %d bytes are queued", q.n, q.bytes)
	}
	if v.ifp.Stats.Odrops.Load() < 4000 {
		t.Errorf("%d drops are counted", v.ifp.Stats.Odrops.Load())
	}
}

// A capture shows each packet once, however often the link refuses it.
func TestCaptureOnceOnShortWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		var pcap bytes.Buffer
		stop, err := v.ifp.Capture(&pcap)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		v.link.mu.Lock()
		v.link.take = func(int) int { n++; return n / 5 % 2 }
		v.link.mu.Unlock()
		for i := range 20 {
			v.inject(icmpPacket(attPeer, attHost, wire.ICMP{Type: wire.ICMPEcho, Rest: uint32(i)}, []byte("x")))
		}
		for range 100 {
			v.link.ready()
			settle()
		}
		if l := v.segments(); len(l) != 20 {
			t.Fatalf("%d replies", len(l))
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		b := pcap.Bytes()[wire.PcapHeaderLen:]
		seen := map[uint32]int{}
		for len(b) > 0 {
			l := int(binary.LittleEndian.Uint32(b[8:]))
			p := b[wire.PcapRecordLen:][:l]
			b = b[wire.PcapRecordLen+l:]
			if p[20] == wire.ICMPEchoReply {
				seen[binary.BigEndian.Uint32(p[24:])]++
			}
		}
		for i := range uint32(20) {
			if seen[i] != 1 {
				t.Errorf("reply %d is captured %d times", i, seen[i])
			}
		}
	})
}

// A packet over the loopback counts once, however many batches its queue is drained in.
func TestLoopbackCounts(t *testing.T) {
	v := attacked(t, nil)
	defer v.done()
	q := &v.k.lo0.queues[0]
	if !q.hold() {
		t.Fatal("somebody is at the queue")
	}
	want := uint64(0)
	const packets = 3*txBatch + 1
	for i := range packets {
		m := v.k.pool.Getcl(100 + i)
		m.Append(make([]byte, 100+i)) // no packet of IP, so it goes no further
		m.Pkt.Len = 100 + i
		v.no(q.enqueue(m, nil))
		want += uint64(m.Pkt.Len)
	}
	if c := v.k.lo0.Counts(); c != (IfCounts{}) {
		t.Errorf("before the queue is drained: %+v", c)
	}
	q.run(packets)
	counts := IfCounts{Ipackets: packets, Opackets: packets, Ibytes: want, Obytes: want}
	if got, want := v.k.lo0.Counts(), counts; got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if n := v.k.Stats.IP.Total.Load(); n != packets {
		t.Errorf("%d packets arrived", n)
	}
}
