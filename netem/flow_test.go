package netem

import (
	"bytes"
	"encoding/binary"
	"testing"

	"bsdnet/internal/kern/wire"
	"bsdnet/internal/link/ends"
)

// packet6 returns an IPv6 packet with a chain of headers: next is the type of the first, and rest
// is what follows the fixed header.
func packet6(next byte, rest ...byte) []byte {
	b := make([]byte, 40, 40+len(rest))
	b[0] = 0x60
	b[6] = next
	b[23] = 1
	b[39] = 2
	return append(b, rest...)
}

func TestFlowOf(t *testing.T) {
	udp := ends.Packet(77, 0, 40)
	with := func(i int, v ...byte) []byte {
		b := bytes.Clone(udp)
		copy(b[i:], v)
		return b
	}
	ports := []byte{0, 77, 0, 9}
	key := func(version, proto byte, ports ...byte) (k flowKey) {
		k[0], k[1] = version, proto
		switch version {
		case 4:
			copy(k[2:], udp[12:16])
			copy(k[18:], udp[16:20])
		case 6:
			k[17], k[33] = 1, 2
		}
		copy(k[34:], ports)
		return k
	}
	options := append(bytes.Clone(udp[:20]), 1, 1, 1, 1)
	options[0] = 0x46
	options = append(options, udp[20:]...)
	eight := func(next, length byte) []byte { return []byte{next, length, 0, 0, 0, 0, 0, 0} }
	fragment := func(off uint16) []byte {
		return append(binary.BigEndian.AppendUint16([]byte{wire.ProtoUDP, 0}, off), 0, 0, 0, 7)
	}
	chain := append(append(eight(protoRouting, 0), append(eight(protoDestination, 1), make([]byte, 8)...)...),
		append(eight(wire.ProtoTCP, 0), ports...)...)
	for _, c := range []struct {
		name   string
		packet []byte
		want   flowKey
	}{
		{"UDP", udp, key(4, 17, ports...)},
		{"TCP", with(9, 6), key(4, 6, ports...)},
		{"ICMP", with(9, 1), key(4, 1)},
		{"don't fragment", with(6, 0x40), key(4, 17, ports...)},
		{"first fragment", with(6, 0x20), key(4, 17)},
		{"last fragment", with(6, 0, 1), key(4, 17)},
		{"IPv4 options", options, key(4, 17, ports...)},
		{"IPv4 ports cut", udp[:23], key(4, 17)},
		{"IPv4 header cut", udp[:19], flowKey{}},
		{"IPv4 options cut", options[:22], flowKey{}},
		{"IPv4 header too short", with(0, 0x44), flowKey{}},
		{"no packet", nil, flowKey{}},
		{"no IP", with(0, 0x50), flowKey{}},
		{"UDP over IPv6", packet6(wire.ProtoUDP, ports...), key(6, 17, ports...)},
		{"ICMPv6", packet6(58, ports...), key(6, 58)},
		{"extension headers", packet6(protoHopByHop, chain...), key(6, 6, ports...)},
		{"extension headers cut", packet6(protoHopByHop, chain[:20]...), key(6, protoRouting)},
		{"IPv6 first fragment", packet6(protoFragment, append(fragment(0x0001), ports...)...), key(6, 17)},
		{"IPv6 last fragment", packet6(protoFragment, append(fragment(0x0100), ports...)...), key(6, 17)},
		{"IPv6 atomic fragment", packet6(protoFragment, append(fragment(0x0006), ports...)...), key(6, 17, ports...)},
		{"IPv6 fragment cut", packet6(protoFragment, fragment(0)[:7]...), key(6, protoFragment)},
		{"IPv6 fragment behind options", packet6(protoDestination, append(eight(protoFragment, 0), fragment(1)...)...),
			key(6, 17)},
		{"authentication", packet6(protoAuthentication, append([]byte{wire.ProtoTCP, 1, 11: 0}, ports...)...),
			key(6, 6, ports...)},
		{"authentication cut", packet6(protoAuthentication, wire.ProtoTCP, 1, 0), key(6, protoAuthentication)},
		{"mobility", packet6(protoMobility, append(eight(wire.ProtoTCP, 0), ports...)...), key(6, 6, ports...)},
		{"IPv6 header cut", packet6(wire.ProtoUDP)[:39], flowKey{}},
	} {
		if got := flowOf(c.packet); got != c.want {
			t.Errorf("%s: flow %x; want %x", c.name, got, c.want)
		}
	}
}

func FuzzFlowOf(f *testing.F) {
	f.Add(ends.Packet(1, 2, 40))
	f.Add(packet6(protoHopByHop, protoRouting, 0, 0, 0, 0, 0, 0, 0, wire.ProtoUDP, 255))
	f.Fuzz(func(t *testing.T, b []byte) {
		k := flowOf(b)
		if k[0] != 0 && k[0] != b[0]>>4 {
			t.Errorf("version %d of a packet of version %d", k[0], b[0]>>4)
		}
		if flowOf(append(bytes.Clone(b), 1, 2, 3, 4))[0] != k[0] && k[0] != 0 {
			t.Error("more bytes make it another version")
		}
	})
}

func keyOf(n int) (k flowKey) {
	binary.BigEndian.PutUint32(k[:], uint32(n))
	return k
}

// The table forgets the flow that was used least recently, and a flow that comes back goes on
// counting.
func TestFlowTable(t *testing.T) {
	var table flowTable
	table.init(1)
	use := func(n int) *flow {
		k := keyOf(n)
		f := table.get(&k)
		if f.key != k {
			t.Fatalf("get(%x) returns %x", k, f.key)
		}
		f.n++
		return f
	}
	for i := range maxFlows {
		if f := use(i); f.n != 1 {
			t.Fatalf("flow %d begins at %d", i, f.n)
		}
	}
	if f := use(0); f.n != 2 {
		t.Fatalf("flow 0 has seen %d packets; want 2", f.n)
	}
	use(maxFlows) // in place of 1
	if len(table.flows) != maxFlows {
		t.Errorf("the table holds %d flows; want %d", len(table.flows), maxFlows)
	}
	if _, ok := table.flows[keyOf(1)]; ok {
		t.Error("the flow used first is still there")
	}
	if f := use(0); f.n != 3 {
		t.Errorf("flow 0, used just before, has seen %d packets; want 3", f.n)
	}
	if f := use(1); f.n != 2 {
		t.Errorf("flow 1 comes back with %d packets; want 2", f.n)
	}
	// A flow that is always forgotten before it comes again never draws the same number twice.
	seen := map[fate]bool{}
	for range 5 {
		f := use(-1)
		d := fate(mix(f.hash + f.n))
		if seen[d] {
			t.Error("a forgotten flow draws what it has drawn")
		}
		seen[d] = true
		for i := range maxFlows {
			use(i)
		}
	}
}

// The order in which packets leave must not change: seeds in users' tests depend on the draws.
func TestDraws(t *testing.T) {
	k := flowOf(ends.Packet(1, 0, 40))
	h := k.hash(1)
	if want := uint64(goldenHash); h != want {
		t.Errorf("hash %#x; want %#x", h, want)
	}
	if d, want := fate(mix(h)).draw(drawJitter), uint64(goldenDraw); d != want {
		t.Errorf("draw %#x; want %#x", d, want)
	}
	var never, always chance = chanceOf(0), chanceOf(1)
	for i := range uint64(1000) {
		if f := fate(i); f.hits(drawLoss, never) || !f.hits(drawLoss, always) || f.below(drawBit, 3) > 2 {
			t.Fatalf("fate %d: out of bounds", i)
		}
	}
}

// The values that TestDraws expects.
const (
	goldenHash = 0xc8fbc9362f53d3be
	goldenDraw = 0x6ee589079304d377
)
