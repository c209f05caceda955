package kern

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// frag makes a fragment of an echo request's payload: bytes [off, end) of body, the last one if
// more is false.
func frag(id uint16, body []byte, off, end int, more bool) []byte {
	ip := wire.IPv4{ID: id, Off: off}
	if more {
		ip.Flags = wire.IPMF
	}
	return ipPacket(ip, attPeer, attHost, wire.ProtoICMP, body[off:end])
}

// echoBody is an ICMP echo request with n bytes of data.
func echoBody(n int) []byte {
	data := make([]byte, n)
	for i := range data {
		data[i] = streamByte(3, i)
	}
	return ping(data)[wire.IPv4MinLen:]
}

// RFC 791, RFC 815: fragments make the datagram in any order, with duplicates.
func TestIPReassemblyAnyOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		for seed := range uint64(200) {
			r := rand.New(rand.NewPCG(seed, 8))
			body := echoBody(1 + r.IntN(9000))
			var pkts [][]byte
			for off := 0; off < len(body); {
				end := min(off+8*(1+r.IntN(200)), len(body))
				if len(pkts) == reassFrags-1 {
					end = len(body)
				}
				p := frag(uint16(seed), body, off, end, end < len(body))
				pkts = append(pkts, p)
				if off == 0 && end < len(body) {
					pkts = append(pkts, p)
				}
				off = end
			}
			r.Shuffle(len(pkts), func(i, j int) { pkts[i], pkts[j] = pkts[j], pkts[i] })
			for _, p := range pkts {
				v.inject(p)
			}
			settle()
			got, _ := rejoin(v, v.link.fetch())
			if len(got) != len(body) || got[0] != wire.ICMPEchoReply || string(got[4:]) != string(body[4:]) {
				t.Fatalf("seed %d: %d bytes of %d came back", seed, len(got), len(body))
			}
			// A duplicate that comes too late begins a datagram that never ends.
			pass(31 * time.Second)
			v.link.fetch()
		}
		if n, s, b := v.waiting(); n != 0 || s != 0 || b != 0 {
			t.Errorf("%d datagrams, %d sources, %d bytes are left", n, s, b)
		}
	})
}

// A13: fragments that overlap spoil their datagram (teardrop), and so do fragments that contradict
// each other. A fragment that no datagram can have is dropped.
func TestReassemblyAttacks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body := echoBody(2000)
		type f struct {
			off, end int
			more     bool
		}
		for what, fs := range map[string][]f{
			"overlap from the left":        {{0, 800, true}, {792, 1600, true}, {1600, 2008, false}},
			"overlap from the right":       {{792, 1600, true}, {0, 800, true}, {1600, 2008, false}},
			"one within the other":         {{0, 1600, true}, {800, 808, true}, {1600, 2008, false}},
			"one around the other":         {{800, 808, true}, {0, 1600, true}, {1600, 2008, false}},
			"teardrop":                     {{0, 40, true}, {24, 28, false}},
			"two ends":                     {{0, 800, true}, {800, 1608, false}, {800, 2008, false}},
			"data beyond the end":          {{0, 800, true}, {1600, 2008, true}, {800, 1600, false}},
			"an end before what is there":  {{1600, 2008, false}, {0, 800, false}},
			"the same place, other length": {{0, 800, true}, {0, 808, true}, {800, 2008, false}},
			"not a multiple of 8":          {{0, 801, true}, {800, 2008, false}},
			"empty":                        {{0, 0, true}, {0, 0, false}},
		} {
			v := attacked(t, nil)
			for _, x := range fs {
				v.inject(frag(9, body, x.off, x.end, x.more))
			}
			if l := v.link.fetch(); len(l) != 0 {
				t.Errorf("%s: answered", what)
			}
			if n, _, _ := v.waiting(); n > 1 {
				t.Errorf("%s: %d datagrams wait", what, n)
			}
			// The parts of these two that agree make a datagram with a wrong checksum.
			whole := what == "two ends" || what == "an end before what is there"
			if st := &v.k.Stats.IP; !whole && (st.Reassembled.Load() != 0 || st.Fragdropped.Load() == 0) {
				t.Errorf("%s: %d datagrams were put together, %d fragments dropped", what, st.Reassembled.Load(),
					st.Fragdropped.Load())
			}
			v.done()
		}
		v := attacked(t, nil)
		defer v.done()
		// Ping of death: the last fragment reaches beyond 65535 bytes.
		big := make([]byte, 66000)
		for off := 0; off < 65528; off += 1480 {
			ip := wire.IPv4{ID: 5, Off: off, Flags: wire.IPMF}
			v.inject(ipPacket(ip, attPeer, attHost, wire.ProtoICMP, big[:1480]))
		}
		v.inject(ipPacket(wire.IPv4{ID: 5, Off: 65520}, attPeer, attHost, wire.ProtoICMP, big[:1480]))
		// The same with options in the first header only, so that each fragment is small enough.
		first := ipPacket(wire.IPv4{ID: 6, Flags: wire.IPMF}, attPeer, attHost, wire.ProtoICMP, big[:1440])
		opt := make([]byte, 40)
		for i := range opt {
			opt[i] = 1
		}
		first = append(append(append([]byte{}, first[:20]...), opt...), first[20:]...)
		first[0] = 4<<4 | 15
		first[2], first[3] = byte(len(first)>>8), byte(len(first))
		v.inject(resum(first))
		for off := 1440; off < 65512; {
			n := min(1480, 65512-off)
			ip := wire.IPv4{ID: 6, Off: off, Flags: wire.IPMF}
			if off+n == 65512 {
				ip.Flags = 0
			}
			v.inject(ipPacket(ip, attPeer, attHost, wire.ProtoICMP, big[:n]))
			off += n
		}
		if n := v.k.Stats.IP.Reassembled.Load(); n != 0 {
			t.Errorf("%d datagrams that cannot be were put together", n)
		}
		// RFC 3128: a first fragment without a whole TCP header, and one that would overwrite its
		// flags.
		v.listen(80, 5)
		s := &seg{from: netip.AddrPortFrom(attPeer, 5000), to: netip.AddrPortFrom(attHost, 80),
			th: wire.TCP{Seq: 1, Flags: wire.SYN, Win: 10}, data: make([]byte, 100)}
		p := s.bytes()
		tcpFrag := func(off, end int, more bool) []byte {
			ip := wire.IPv4{ID: 7, Off: off}
			if more {
				ip.Flags = wire.IPMF
			}
			return ipPacket(ip, attPeer, attHost, wire.ProtoTCP, p[20+off:20+end])
		}
		pass(31 * time.Second)
		v.link.fetch()
		for _, f := range [][]byte{tcpFrag(0, 8, true), tcpFrag(0, 16, true), tcpFrag(8, 16, true),
			tcpFrag(8, 120, false)} {
			v.inject(f)
			if n, _, _ := v.waiting(); n != 0 {
				t.Errorf("a fragment that RFC 3128 has dropped waits for others: %x", f[:20])
			}
		}
		for _, f := range [][]byte{tcpFrag(0, 8, true), tcpFrag(8, 120, false), tcpFrag(0, 16, true),
			tcpFrag(16, 120, false)} {
			v.inject(f)
		}
		v.none()
		pass(31 * time.Second)
		v.link.fetch()
		v.inject(tcpFrag(0, 24, true))
		v.inject(tcpFrag(24, 120, false))
		v.one() // in proper fragments it is a SYN
	})
}

// A12: there are limits on datagrams, on those of one source, on fragments and on bytes. A flood
// does not keep others out for long.
func TestReassemblyLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		r := &v.k.reass
		flood := func(sources, ids, frags, size int) {
			data := make([]byte, size)
			for s := range sources {
				src := netip.AddrFrom4([4]byte{11, byte(s >> 16), byte(s >> 8), byte(s)})
				for id := range ids {
					for f := range frags {
						ip := wire.IPv4{ID: uint16(id), Off: 8 + f*2*size, Flags: wire.IPMF}
						v.inject(ipPacket(ip, src, attHost, wire.ProtoICMP, data))
					}
				}
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			if len(r.q) > reassMax || len(r.order) != len(r.q) || r.bytes > reassBytes {
				t.Fatalf("%d datagrams, %d bytes", len(r.q), r.bytes)
			}
			for src, n := range r.sources {
				if n.datagrams > reassPerSource {
					t.Fatalf("%d datagrams of %v", n, src)
				}
			}
			if _, b := v.k.Pool().Outstanding(); b > reassBytes+rxBatch*2048+4096 {
				t.Fatalf("%d bytes are in use", b)
			}
		}
		flood(1, 500, 1, 8)
		flood(5000, 1, 1, 8)
		flood(20, 20, 40, 800)
		flood(1, 1, 500, 8)
		flood(100, 64, 10, 1400)
		// In the midst of it an honest datagram.
		body := echoBody(3000)
		v.link.fetch()
		v.inject(frag(1, body, 0, 1480, true))
		v.inject(frag(1, body, 1480, len(body), false))
		settle()
		if got, _ := rejoin(v, v.link.fetch()); len(got) != len(body) {
			t.Errorf("an honest datagram is lost")
		}
		// Too many fragments.
		tiny := echoBody(8 * (reassFrags + 10))
		for off := 0; off < len(tiny); off += 8 {
			v.inject(frag(2, tiny, off, min(off+8, len(tiny)), off+8 < len(tiny)))
		}
		v.none()
		pass(31 * time.Second)
		if n, s, b := v.waiting(); n != 0 || s != 0 || b != 0 {
			t.Errorf("%d datagrams, %d sources, %d bytes after 31 s", n, s, b)
		}
	})
}

// Datagrams that a source, or an attacker in its name, has left incomplete give way to later ones.
func TestReassemblyGoesOnAfterLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		body := echoBody(3000)
		for id := range uint16(3 * reassPerSource) {
			v.inject(frag(id, body, 0, 1480, true))
		}
		v.inject(frag(1000, body, 0, 1480, true))
		v.inject(frag(1000, body, 1480, len(body), false))
		settle()
		if got, _ := rejoin(v, v.link.fetch()); len(got) != len(body) {
			t.Error("a datagram whose fragments have all come is not put together")
		}
		if n, s, _ := v.waiting(); n != reassPerSource-1 || s != 1 {
			t.Errorf("%d datagrams of %d sources wait", n, s)
		}
		pass(31 * time.Second)
		v.link.fetch()
	})
}

// RFC 1122, 3.3.2: the stack gives a datagram up after 30 s, and tells the source if the first
// fragment has arrived.
func TestReassemblyTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		body := echoBody(3000)
		first := frag(1, body, 0, 1480, true)
		v.inject(first)
		v.inject(frag(2, body, 1480, 2960, true)) // without the first
		pass(20 * time.Second)
		v.inject(frag(1, body, 1480, 2960, true)) // does not begin the time anew
		pass(10*time.Second - time.Millisecond)
		v.none()
		if n, _, _ := v.waiting(); n != 2 {
			t.Errorf("%d datagrams wait", n)
		}
		pass(2 * time.Millisecond)
		g := v.one()
		if g.ip.Dst != attPeer || g.data[0] != wire.ICMPTimxceed || g.data[1] != wire.ICMPTimxceedReass ||
			string(g.data[8:]) != string(first[:28]) {
			t.Errorf("the error is %x", g.data)
		}
		if v.k.Stats.IP.Fragtimeout.Load() != 2 {
			t.Errorf("%d timeouts", v.k.Stats.IP.Fragtimeout.Load())
		}
	})
}

// If a link has verified the checksums of fragments, the datagram's is verified all the same.
func TestReassemblyVerifiesChecksums(t *testing.T) {
	v := attacked(t, nil)
	defer v.done()
	p := v.peer(5000, 80).seg(wire.SYN, make([]byte, 100)).bytes()[wire.IPv4MinLen:]
	p[50] ^= 1
	for _, off := range []int{0, 64} {
		ip, end := wire.IPv4{ID: 7, Off: off}, len(p)
		if off == 0 {
			ip.Flags, end = wire.IPMF, 64
		}
		b := ipPacket(ip, attPeer, attHost, wire.ProtoTCP, p[off:end])
		m := v.k.pool.Getcl(len(b))
		m.Append(b)
		m.Pkt.Len, m.Pkt.Csum = len(b), mbuf.CsumVerified
		v.k.ipintr(v.ifp, m)
	}
	if n := v.k.Stats.TCP.Rcvbadsum.Load(); n != 1 {
		t.Errorf("%d wrong checksums are found, want 1", n)
	}
}

// One source's fragments do not drive out those of others: a source has a share of the bytes, and
// loses its own oldest datagram beyond it.
func TestReassShareOfSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		v.inject(frag(7, make([]byte, 64), 0, 32, true)) // an honest one, which is the oldest of all
		greedy := netip.MustParseAddr("10.0.0.66")
		body := make([]byte, 1400)
		for id := range uint16(40) {
			for off := range 40 {
				v.inject(ipPacket(wire.IPv4{ID: id, Flags: wire.IPMF, Off: off * 1400}, greedy, attHost,
					wire.ProtoICMP, body))
			}
		}
		if n := v.k.reass.sources[in6(greedy)]; n.bytes > reassShare || n.bytes < reassShare/2 {
			t.Errorf("one source has %d bytes", n.bytes)
		}
		if n, s, _ := v.waiting(); s != 2 || n < 2 {
			t.Errorf("%d datagrams of %d sources", n, s)
		}
	})
}
