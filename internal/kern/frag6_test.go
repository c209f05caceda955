package kern

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet/internal/kern/wire"
)

// A frag6 is a fragment of an echo request to send: bytes [off, end) of the message, the last one
// if more is false.
type frag6 struct {
	off, end int
	more     bool
}

// bytes makes the fragment. Other fields of its packet are those of p.
func (f frag6) bytes(p ip6, id uint32) []byte {
	h := make([]byte, wire.FragmentLen)
	binary.BigEndian.PutUint16(h[2:], uint16(f.off))
	if f.more {
		h[3] |= 1
	}
	binary.BigEndian.PutUint32(h[4:], id)
	p.ext = append(slices.Clone(p.ext), ext6{wire.ProtoFragment, h})
	p.payload = p.payload[f.off:f.end]
	return p.bytes()
}

// Fragments make the datagram in any order, with duplicates, and with extension headers before and
// behind the fragment header; those before may differ from one fragment to the next.
func TestFrag6AnyOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked6(t, nil)
		defer v.done()
		for seed := range uint64(200) {
			r := rand.New(rand.NewPCG(seed, 46))
			data := pattern6(1 + r.IntN(9000))
			p := ip6{proto: wire.ProtoICMPv6, payload: echo6(data)}
			if r.IntN(2) == 0 { // a header in the fragmentable part
				p.payload = append([]byte{wire.ProtoICMPv6, 0, 1, 4, 0, 0, 0, 0}, p.payload...)
				p.proto = wire.ProtoDstopts
			}
			var pkts [][]byte
			for off := 0; off < len(p.payload); {
				end := min(off+8*(6+r.IntN(200)), len(p.payload))
				if len(pkts) == reassFrags-1 {
					end = len(p.payload)
				}
				q := p
				for range r.IntN(3) {
					q.ext = append(q.ext, ext6{wire.ProtoDstopts, opts6(make([]byte, 6+8*r.IntN(5))...)})
				}
				f := frag6{off, end, end < len(p.payload)}.bytes(q, uint32(seed))
				pkts = append(pkts, f)
				if off == 0 && end < len(p.payload) {
					pkts = append(pkts, f)
				}
				off = end
			}
			if len(pkts) == 1 {
				continue // an atomic fragment
			}
			r.Shuffle(len(pkts), func(i, j int) { pkts[i], pkts[j] = pkts[j], pkts[i] })
			for _, p := range pkts {
				v.inject(p)
			}
			var got []byte
			for i, g := range v.fetch6() {
				switch {
				case g.ip.Next != wire.ProtoFragment:
					got = g.data
				case i == 0:
					got = g.data[wire.FragmentLen+wire.ICMPLen:]
				default:
					got = append(got, g.data[wire.FragmentLen:]...)
				}
			}
			if !slices.Equal(got, data) {
				t.Fatalf("seed %d: %d bytes of %d came back", seed, len(got), len(data))
			}
			pass(61 * time.Second) // a duplicate that comes too late begins a datagram that never ends
			v.link.fetch()
		}
		if n, s, b := v.waiting(); n != 0 || s != 0 || b != 0 {
			t.Errorf("%d datagrams, %d sources, %d bytes are left", n, s, b)
		}
	})
}

// A13, over IPv6: fragments that overlap spoil their datagram (RFC 5722), without an answer (RFC
// 8200, 4.5), and so do those that contradict each other. A fragment that no datagram can have is
// dropped, and reported if RFC 8200, 4.5, says so.
func TestFrag6Attacks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := ip6{proto: wire.ProtoICMPv6, payload: echo6(pattern6(2000))}
		for what, fs := range map[string][]frag6{
			"overlap from the left":        {{0, 800, true}, {792, 1600, true}, {1600, 2008, false}},
			"overlap from the right":       {{792, 1600, true}, {0, 800, true}, {1600, 2008, false}},
			"one within the other":         {{0, 1600, true}, {800, 808, true}, {1600, 2008, false}},
			"one around the other":         {{800, 808, true}, {0, 1600, true}, {1600, 2008, false}},
			"teardrop":                     {{0, 40, true}, {24, 28, false}},
			"two ends":                     {{0, 800, true}, {800, 1608, false}, {800, 2008, false}},
			"data beyond the end":          {{0, 800, true}, {1600, 2008, true}, {800, 1600, false}},
			"the same place, other length": {{0, 800, true}, {0, 808, true}, {800, 2008, false}},
			"empty":                        {{8, 8, true}, {2008, 2008, false}},
		} {
			v := attacked6(t, nil)
			for _, x := range fs {
				v.inject(x.bytes(p, 9))
			}
			if l := v.link.fetch(); len(l) != 0 {
				t.Errorf("%s: answered by %x", what, l)
			}
			if n, _, _ := v.waiting(); n > 1 {
				t.Errorf("%s: %d datagrams wait", what, n)
			}
			whole := what == "two ends" // the parts that agree make a datagram with a wrong checksum
			if st := &v.k.Stats.IP6; !whole && (st.Reassembled.Load() != 0 || st.Fragdropped.Load() == 0) {
				t.Errorf("%s: %d datagrams were put together, %d fragments dropped", what, st.Reassembled.Load(),
					st.Fragdropped.Load())
			}
			v.done()
		}
	})
}

// Fragments that RFC 8200, 4.5, has discarded with a Parameter Problem: code and pointer.
func TestFrag6Refused(t *testing.T) {
	v := attacked6(t, nil)
	defer v.done()
	echo := ip6{proto: wire.ProtoICMPv6, payload: echo6(pattern6(2000))}
	tcp := ip6{proto: wire.ProtoTCP, payload: make([]byte, 100)}
	chain := ip6{proto: wire.ProtoDstopts}
	chain.payload = append([]byte{wire.ProtoTCP, 0, 1, 4, 0, 0, 0, 0}, make([]byte, 99)...)
	long := ip6{proto: wire.ProtoUDP, payload: make([]byte, 66000)}
	for _, c := range []struct {
		what     string
		p        ip6
		f        frag6
		code, at int // code -1: no answer
	}{
		{"a length that is no multiple of 8", echo, frag6{8, 17, true}, -1, 0}, // as it is of an ICMPv6 message
		{"a length that is no multiple of 8", tcp, frag6{8, 17, true}, wire.ICMPv6ParamHeader, 4},
		{"beyond 65535 bytes", long, frag6{65528, 65536, false}, wire.ICMPv6ParamHeader, 42},
		{"a TCP header that is cut", tcp, frag6{0, 16, true}, wire.ICMPv6ParamChain, 0},
		{"headers that are cut", chain, frag6{0, 8, true}, wire.ICMPv6ParamChain, 0},
		{"headers and half of TCP's", chain, frag6{0, 24, true}, wire.ICMPv6ParamChain, 0},
		{"an ICMPv6 header that is cut", echo, frag6{0, 0, true}, -1, 0},
	} {
		pkt := c.f.bytes(c.p, 1)
		v.inject(pkt)
		l := v.fetch6()
		switch {
		case c.code < 0 && len(l) != 0:
			t.Errorf("%s: %+v", c.what, l)
		case c.code < 0:
		case len(l) != 1 || l[0].ic != wire.ICMP{Type: wire.ICMPv6ParamProb, Code: uint8(c.code), Rest: uint32(c.at)} ||
			string(l[0].data) != string(pkt):
			t.Errorf("%s: %+v; want code %d, pointer %d", c.what, l, c.code, c.at)
		}
		if n, _, _ := v.waiting(); n != 0 {
			t.Errorf("%s: it waits for others", c.what)
		}
	}
	if n := v.k.Stats.IP6.Fragdropped.Load(); n != 7 {
		t.Errorf("%d fragments are counted as dropped", n)
	}
	// The greatest datagram, and one that is a byte longer as the first fragment has more headers.
	for _, ext := range [][]ext6{nil, {{wire.ProtoDstopts, opts6()}}} {
		p := ip6{proto: wire.ProtoUDP, payload: make([]byte, 65535)}
		for off := 0; off < 65535; off += 1448 {
			q := p
			if off == 0 {
				q.ext = ext
			}
			v.inject(frag6{off, min(off+1448, 65535), off+1448 < 65535}.bytes(q, 2))
		}
	}
	if n := v.k.Stats.IP6.Reassembled.Load(); n != 1 {
		t.Errorf("%d of the greatest datagrams were put together, want 1", n)
	}
}

// A12, over IPv6: fragments that are never completed. Both families share the limits, and an
// attacker with a network of 2^64 addresses counts as one source. After a minute the sender is told
// (RFC 8200, 4.5), if the first fragment has arrived.
func TestFrag6Limits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked6(t, nil)
		defer v.done()
		p := ip6{proto: wire.ProtoICMPv6, payload: echo6(pattern6(2000))}
		for i := range 3 * reassMax {
			p.Src = netipAddr(attPeer6, 0, i)
			v.inject(frag6{8, 808, true}.bytes(p, uint32(i)))
		}
		if n, s, _ := v.waiting(); n != reassPerSource || s != 1 {
			t.Errorf("%d datagrams of %d sources wait, want %d of 1", n, s, reassPerSource)
		}
		body := echoBody(2000)
		for i := range 3 * reassMax {
			p.Src = netipAddr(attPeer6, i, 1)
			v.inject(frag6{8, 808, true}.bytes(p, uint32(i)))
			v.inject(frag(uint16(i), body, 8, 808, true))
			if n, _, b := v.waiting(); n > reassMax || b > reassBytes {
				t.Fatalf("%d datagrams and %d bytes wait", n, b)
			}
		}
		// Many tiny fragments of one datagram.
		p.Src, p.payload = attPeer6, echo6(pattern6(16*reassFrags+32))
		before := v.k.Stats.IP6.Fragdropped.Load()
		for i := range reassFrags + 1 {
			v.inject(frag6{16 * (i + 1), 16*(i+1) + 8, true}.bytes(p, 1<<31))
		}
		if n := v.k.Stats.IP6.Fragdropped.Load() - before; n < reassFrags+1 {
			t.Errorf("%d of %d fragments were dropped", n, reassFrags+1)
		}
		pass(61 * time.Second)
		if n, s, b := v.waiting(); n != 0 || s != 0 || b != 0 {
			t.Errorf("%d datagrams, %d sources, %d bytes are left", n, s, b)
		}
		v.none()

		first := frag6{0, 1448, true}.bytes(p, 5)
		v.inject(first)
		v.inject(frag6{8, 808, true}.bytes(p, 6))
		pass(59 * time.Second)
		if l := v.link.fetch(); len(l) != 0 {
			t.Errorf("before the minute is over, %x is sent", l)
		}
		pass(2 * time.Second)
		g := v.one6()
		want := wire.ICMP{Type: wire.ICMPv6Timxceed, Code: wire.ICMPv6TimxceedReass}
		if g.ic != want || g.ip.Len != wire.IPv6MinMTU || string(g.data) != string(first[:1232]) {
			t.Errorf("after the minute: %+v, %d bytes, quotes %x", g.ic, g.ip.Len, g.data[:60])
		}
		if n := v.k.Stats.IP6.Fragtimeout.Load(); n < 2 {
			t.Errorf("%d time-outs are counted", n)
		}
	})
}

// The mark of congestion of a fragment is that of its datagram, unless the sender has not asked for
// marks (RFC 3168, 5.3). Otherwise the datagram has the first fragment's type of service. An echo
// reply has that of the request.
func TestReassemblyMarks(t *testing.T) {
	for _, c := range []struct {
		tos  [3]uint8 // of the fragments
		want int      // of the datagram; -1: it is dropped
	}{
		{[3]uint8{0x20, 0x20, 0x20}, 0x20},
		{[3]uint8{0x20, 0x40, 0x60}, 0x20},
		{[3]uint8{0x22, 0x22, 0x23}, 0x23},
		{[3]uint8{0x23, 0x22, 0x22}, 0x23},
		{[3]uint8{0x21, 0x23, 0x22}, 0x23},
		{[3]uint8{3, 3, 3}, 3},
		{[3]uint8{2, 1, 2}, 2},
		{[3]uint8{0, 0, 3}, -1},
		{[3]uint8{3, 2, 0}, -1},
		{[3]uint8{0, 2, 3}, -1},
	} {
		for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}} {
			v := attacked6(t, nil)
			body := echoBody(48)
			p := ip6{proto: wire.ProtoICMPv6, payload: echo6(pattern6(48))}
			for _, i := range order {
				more := i < 2
				p.Class = c.tos[i]
				v.inject(frag6{16 * i, 16*i + 16 + 8*(i/2), more}.bytes(p, 1))
				ip := wire.IPv4{ID: 1, Off: 16 * i, TOS: c.tos[i]}
				if more {
					ip.Flags = wire.IPMF
				}
				v.inject(ipPacket(ip, attPeer, attHost, wire.ProtoICMP, body[16*i:16*i+16+8*(i/2)]))
			}
			l := v.link.fetch()
			if c.want < 0 && len(l) != 0 || c.want >= 0 && len(l) != 2 {
				t.Errorf("%x in the order %v: %d answers", c.tos, order, len(l))
			}
			for _, p := range l {
				if got := wire.IPView(p).TOS(); int(got) != c.want {
					t.Errorf("%x in the order %v: the datagram has %x, want %x", c.tos, order, got, c.want)
				}
			}
			v.done()
		}
	}
}

// The identifications of fragments to one destination do not come again for long, and tell nothing
// about those to another (RFC 7739; A38).
func TestFrag6Identification(t *testing.T) {
	ids := func(seed uint64, ip wire.IPv6, n int) []uint32 {
		k := seededKernel(t, seed)
		defer k.Close()
		list := make([]uint32, n)
		for i := range list {
			list[i] = k.nextID6(&ip)
		}
		return list
	}
	ip := wire.IPv6{Src: attHost6, Dst: attPeer6}
	list := ids(1, ip, 1<<15)
	seen := map[uint32]bool{}
	small := 0
	for i, id := range list {
		if seen[id] {
			t.Fatalf("identification %d comes again after %d", id, len(seen))
		}
		seen[id] = true
		if i > 0 && id-list[i-1]+1<<16 < 1<<17 {
			small++
		}
	}
	if small > len(list)/1000 {
		t.Errorf("%d of %d identifications are close to the one before", small, len(list))
	}
	other := ip
	other.Dst = attPeer6.Next()
	for what, l := range map[string][]uint32{
		"another key": ids(2, ip, 100), "another destination": ids(1, other, 100),
	} {
		same := 0
		for i := range l {
			if l[i]-list[i] == l[0]-list[0] {
				same++
			}
		}
		if same > 10 {
			t.Errorf("with %s, %d of 100 identifications go along", what, same)
		}
	}
}

// Packets of a flow have one label, which is not 0 (RFC 6437); flows have different ones, and so
// have stacks.
func TestFlowLabels(t *testing.T) {
	a, b := seededKernel(t, 1), seededKernel(t, 2)
	defer a.Close()
	defer b.Close()
	seen := map[uint32]bool{}
	same := 0
	for flow := range uint32(10000) {
		l := a.flowLabel(flow)
		if l == 0 || l > 0xfffff || l != a.flowLabel(flow) {
			t.Fatalf("flow %d has label %#x", flow, l)
		}
		seen[l] = true
		if l == b.flowLabel(flow) {
			same++
		}
	}
	if len(seen) < 9800 || same > 5 { // 10000 of 2^20 at random are about 9950 different ones
		t.Error(fmt.Sprint(len(seen), " labels of 10000 flows; ", same, " are those of another stack"))
	}
}
