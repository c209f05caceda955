package kern

import (
	"bytes"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// A udpChain is a chain of datagrams, from IP's header on.
func (v *victim) udpChain(data []byte, seg int) *mbuf.Mbuf {
	m := v.k.pool.Getpkt(len(data))
	m.Append(data)
	m.Pkt.Len, m.Pkt.SegSize, m.Pkt.Csum = len(data), seg, mbuf.CsumPartial
	wire.UDP{Sport: 7, Dport: 2000, Len: len(data) + wire.UDPLen}.Put(m.Prepend(wire.UDPLen))
	ip := wire.IPv4{Src: attHost, Dst: attPeer, Proto: wire.ProtoUDP, TTL: 64, Flags: wire.IPDF}
	ip.Len = m.Pkt.Len + wire.IPv4MinLen
	ip.Put(m.Prepend(wire.IPv4MinLen))
	return m
}

// TestUSO: a link that cuts chains of UDP makes the same packets of one as the stack by itself, and
// so does one with virtio-net headers that does not. Merging them gives the chain again.
func TestUSO(t *testing.T) {
	v := attacked(t, nil)
	defer v.done()
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 5))
		seg := 1 + r.IntN(1472)
		data := randomBytes(r, 1+r.IntN(min(seg*100, udpMaxLen4)))
		m := v.udpChain(data, seg)
		want := cutAll(m)
		if len(want) != segments(len(data), seg) {
			t.Fatalf("seed %d: %d packets of %d bytes, in %d", seed, len(want), seg, len(data))
		}
		for _, p := range want {
			u := wire.UDPView(p[20:])
			if u.Len() != len(u) || wire.IPv4View(p).Len() != len(p) ||
				wire.Fold(wire.Sum(u, wire.PseudoSum(attHost, attPeer, wire.ProtoUDP, len(u)))) != 0xffff {
				t.Fatalf("seed %d: a wrong packet %x", seed, p)
			}
		}
		for _, uso := range []bool{false, true} {
			var got [][]byte
			var c cutter
			var hbuf []byte
			for c.start(m, true, uso); c.more(); {
				var bufs net.Buffers
				hbuf, bufs = c.next(hbuf, nil)
				got = append(got, gsoSplit(t, slices.Concat(bufs...))...)
			}
			if !slices.EqualFunc(got, want, bytes.Equal) {
				t.Errorf("seed %d, USO %v: %d packets differ from %d", seed, uso, len(got), len(want))
			}
		}
		if cut := seg * r.IntN(len(want)); cut > 0 && cut < len(data) {
			m = dropSegments(m, cut)
			if got := cutAll(m); !slices.EqualFunc(got, want[cut/seg:], bytes.Equal) {
				t.Errorf("seed %d: what is left after %d bytes differs", seed, cut)
			}
		}
		mbuf.Free(m)
	}
}

// TestUDPMerged: what gro has merged is read as the datagrams that have arrived, in their order.
func TestUDPMerged(t *testing.T) {
	merged := 0
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 6))
		v := attacked(t, nil)
		so := v.udpBound("10.0.0.1:7")
		if errno := so.Sosetopt(SOL_SOCKET, SO_RCVBUF, 1<<20); errno != 0 {
			t.Fatal(errno)
		}
		var g gro
		var want []string
		size, from := 100, udpFrom
		for range 64 {
			switch r.IntN(12) {
			case 0:
				size = r.IntN(1473)
			case 1:
				from = netip.AddrPortFrom(attPeer, uint16(2000+r.IntN(2)))
			}
			n := size
			if r.IntN(10) == 0 {
				n = r.IntN(size + 1)
			}
			data := randomBytes(r, n)
			p := udpPacket(from, udpTo, data)
			switch r.IntN(40) {
			case 0:
				p[len(p)-1] ^= 1 // the checksum is wrong, or, of an empty datagram, the checksum itself
			case 1:
				p[26], p[27] = 0, 0 // none
				want = append(want, from.String()+string(data))
			default:
				want = append(want, from.String()+string(data))
			}
			m := v.k.pool.Getcl(1500)
			m.Append(p)
			m.Pkt.Len = len(p)
			if g.receive(v.k, v.ifp, m) {
				mbuf.Free(m)
				merged++
			}
		}
		g.flush(v.k, v.ifp)
		var got []string
		for b := make([]byte, 2000); ; {
			n, from, _, errno := so.Soreceivefrom(b)
			if errno != 0 {
				break
			}
			got = append(got, from.String()+string(b[:n]))
		}
		if !slices.Equal(got, want) {
			t.Errorf("seed %d: %d datagrams, want %d", seed, len(got), len(want))
		}
		so.Soclose()
		v.done()
	}
	if merged < 1000 {
		t.Errorf("only %d datagrams were merged", merged)
	}
}

// TestUDPMergedNoPort: the ICMP error about datagrams that have been merged quotes the first as it
// was.
func TestUDPMergedNoPort(t *testing.T) {
	v := attacked(t, nil)
	defer v.done()
	var g gro
	p := udpPacket(udpFrom, udpTo, make([]byte, 50))
	for range 3 {
		m := v.k.pool.Getcl(1500)
		m.Append(p)
		m.Pkt.Len = len(p)
		if g.receive(v.k, v.ifp, m) {
			mbuf.Free(m)
		}
	}
	g.flush(v.k, v.ifp)
	if e := v.one(); !bytes.Equal(e.data[8:], p[:28]) {
		t.Errorf("quoted %x, want %x", e.data[8:], p[:28])
	}
	if n := v.k.Stats.UDP.Noport.Load(); n != 3 {
		t.Errorf("%d datagrams without a port", n)
	}
}
