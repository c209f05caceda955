package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// refSum is RFC 1071's definition, word by word.
func refSum(p []byte) uint16 {
	var sum uint32
	for i := 0; i < len(p); i += 2 {
		w := uint32(p[i]) << 8
		if i+1 < len(p) {
			w |= uint32(p[i+1])
		}
		sum += w
		if sum > 0xffff {
			sum -= 0xffff // end-around carry
		}
	}
	return uint16(sum)
}

func TestCksumVectors(t *testing.T) {
	for _, c := range []struct {
		hex string
		sum uint16
	}{
		{"", 0},
		{"0001f203f4f5f6f7", 0xddf2}, // RFC 1071, 3
		{"0001f203f4f5f6", 0xdcfb},   // and without its last byte
		{"ffff", 0xffff},
		{"ffffffff", 0xffff},
		{"ffff0001", 0x0001},
		{"00", 0},
		{"ab", 0xab00},
		{"45000073000040004011b861c0a80001c0a800c7", 0xffff}, // a header that verifies
	} {
		p, _ := hex.DecodeString(c.hex)
		if got := Fold(Sum(p, 0)); got != c.sum {
			t.Errorf("sum of %s: %04x, want %04x", c.hex, got, c.sum)
		}
		if got := InCksum(p); got != ^c.sum {
			t.Errorf("checksum of %s: %04x, want %04x", c.hex, got, ^c.sum)
		}
		if refSum(p) != c.sum {
			t.Errorf("the reference is wrong for %s", c.hex)
		}
	}
}

// Sum is right for every length up to more than a segment's, at every alignment, with contents that
// carry often and with random ones.
func TestCksumLengths(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, fill := range []func() byte{
		func() byte { return byte(r.Uint32()) },
		func() byte { return 0xff },
		func() byte { return 0 },
		func() byte { return byte(r.Uint32()&1) * 0xff },
	} {
		buf := make([]byte, 2000+15)
		for i := range buf {
			buf[i] = fill()
		}
		for align := range 16 {
			for n := 0; n <= 2000; n++ {
				p := buf[align : align+n]
				if got, want := Fold(Sum(p, 0)), refSum(p); got != want {
					t.Fatalf("%d bytes at %d: %04x, want %04x", n, align, got, want)
				}
			}
		}
	}
	big := make([]byte, MaxPacket)
	for i := range big {
		big[i] = byte(r.Uint32())
	}
	for _, n := range []int{MaxPacket, MaxPacket - 1, 65504, 9001, 1460} {
		if got, want := Fold(Sum(big[:n], 0)), refSum(big[:n]); got != want {
			t.Errorf("%d bytes: %04x, want %04x", n, got, want)
		}
	}
}

// The assembly's sum is that of little-endian words, exactly, however much there is to sum: no
// carry is lost, and nothing beside p counts.
func TestSumBlocks(t *testing.T) {
	if !hasBlocks {
		t.Skip("this machine has none")
	}
	const most = 1 << 20 // four times what a chain on the loopback holds
	r := rand.New(rand.NewPCG(5, 6))
	random, ones := make([]byte, most+16), bytes.Repeat([]byte{0xff}, most+16)
	for i := range random {
		random[i] = byte(r.Uint32())
	}
	for _, n := range []int{64, 128, 192, 256, 320, 384, 448, 512, 1024, 1408, 65472, 1 << 16, 1<<16 + 64, 1 << 18,
		most - 64, most} {
		for _, buf := range [][]byte{random, ones} {
			for _, align := range []int{0, 1, 2, 3, 4, 8, 15} {
				var want uint64
				p := buf[align : align+n]
				for i := 0; i < n; i += 4 {
					want += uint64(binary.LittleEndian.Uint32(p[i:]))
				}
				if got := sumBlocks(&p[0], n); got != want {
					t.Errorf("%d bytes of %02x... at %d: %x, want %x", n, p[:2], align, got, want)
				}
			}
		}
	}
	// Each bit counts once, at its place.
	p := make([]byte, 192)
	for bit := range len(p) * 8 {
		p[bit/8] = 1 << (bit % 8)
		if got, want := sumBlocks(&p[0], len(p)), uint64(1)<<(bit%32); got != want {
			t.Errorf("bit %d alone: %x, want %x", bit, got, want)
		}
		p[bit/8] = 0
	}
}

// A sum that is started with any value goes on with it, and no carry is lost.
func TestCksumRunning(t *testing.T) {
	p := make([]byte, 300)
	for i := range p {
		p[i] = byte(i * 37)
	}
	for _, start := range []uint64{0, 1, 0xffff, 0x10000, 1<<32 - 1, 1 << 32, 1<<63 + 5, 1<<64 - 2, 1<<64 - 1} {
		var s [8]byte
		binary.BigEndian.PutUint64(s[:], start)
		for n := range p {
			want := refSum(append(s[:], p[:n]...))
			if got := Fold(Sum(p[:n], start)); got != want {
				t.Fatalf("%d bytes on %x: %04x, want %04x", n, start, got, want)
			}
			if got := Fold(SumAt(p[:n], 4, start)); got != want {
				t.Fatalf("SumAt, %d bytes on %x: %04x, want %04x", n, start, got, want)
			}
		}
		if got, want := Fold(start), refSum(s[:]); got != want {
			t.Errorf("Fold(%x) = %04x, want %04x", start, got, want)
		}
	}
}

// Pieces of any lengths sum to the whole.
func TestSumAt(t *testing.T) {
	buf := make([]byte, 4000)
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 3))
		most, piece := 120, 40
		if seed%2 == 0 {
			most, piece = len(buf), 1500 // long enough for sumBlocks
		}
		p := buf[:r.IntN(most+1)]
		for i := range p {
			p[i] = byte(r.Uint32())
			if seed%3 == 0 {
				p[i] |= 0xf0 // many carries
			}
		}
		sum, off := uint64(0), 0
		for off < len(p) {
			n := 1 + r.IntN(min(len(p)-off, piece))
			sum = SumAt(p[off:off+n], off, sum)
			off += n
		}
		if got, want := Fold(sum), refSum(p); got != want {
			t.Fatalf("seed %d, %d bytes: %04x, want %04x", seed, len(p), got, want)
		}
	}
	// All ways to cut in three.
	p := buf[:50]
	want := refSum(p)
	for i := range p {
		for j := i; j <= len(p); j++ {
			if got := Fold(SumAt(p[j:], j, SumAt(p[i:j], i, SumAt(p[:i], 0, 0)))); got != want {
				t.Fatalf("cut at %d and %d: %04x, want %04x", i, j, got, want)
			}
		}
	}
}

func TestPseudoSum(t *testing.T) {
	for _, c := range [][2]string{
		{"192.0.2.1", "198.51.100.254"},
		{"255.255.255.255", "255.255.255.255"},
		{"0.0.0.0", "0.0.0.1"},
		{"2001:db8::1", "fe80::ffff:ffff:ffff:fffe"},
		{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
	} {
		src, dst := netip.MustParseAddr(c[0]), netip.MustParseAddr(c[1])
		for _, proto := range []uint8{ProtoTCP, ProtoUDP, 255} {
			for _, n := range []int{0, 1, 20, 0xffff, 0x10000, 0x12345} {
				if src.Is4() && n > MaxPacket {
					continue // its length has 16 bits
				}
				ph := append(src.AsSlice(), dst.AsSlice()...)
				if src.Is4() {
					ph = append(ph, 0, proto, byte(n>>8), byte(n)) // RFC 9293, 3.1
				} else {
					ph = append(ph, byte(n>>24), byte(n>>16), byte(n>>8), byte(n), 0, 0, 0, proto) // RFC 8200, 8.1
				}
				if got, want := Fold(PseudoSum(src, dst, proto, n)), refSum(ph); got != want {
					t.Errorf("%s to %s, protocol %d, %d bytes: %04x, want %04x", src, dst, proto, n, got, want)
				}
			}
		}
	}
}

// A segment summed in pieces verifies as a whole, and no single bit of it can change unseen.
func TestTransportChecksum(t *testing.T) {
	th := TCP{Sport: 1, Dport: 2, Seq: 3, Ack: 4, Flags: SYN | ACK, Win: 5, Opt: Options{Has: TofMSS, MSS: 1460}}
	p := make([]byte, 64)
	n := th.Put(p)
	n += copy(p[n:], "odd")
	sum := SumAt(p[n-3:n], n-3, Sum(p[:n-3], PseudoSum(testSrc, testDst, ProtoTCP, n)))
	binary.BigEndian.PutUint16(p[16:], ^Fold(sum))
	if got := Fold(Sum(p[:n], PseudoSum(testSrc, testDst, ProtoTCP, n))); got != 0xffff {
		t.Errorf("a filled checksum verifies as %04x", got)
	}
	for bit := range n * 8 {
		p[bit/8] ^= 0x80 >> (bit % 8)
		if Fold(Sum(p[:n], PseudoSum(testSrc, testDst, ProtoTCP, n))) == 0xffff {
			t.Errorf("bit %d changed unseen", bit)
		}
		p[bit/8] ^= 0x80 >> (bit % 8)
	}
}

func BenchmarkSum1460(b *testing.B) {
	p := make([]byte, 1460)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		Sum(p, 0)
	}
}
