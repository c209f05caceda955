package wire

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// Sum adds p to a running ones' complement sum (RFC 1071). An odd number of bytes counts as if a
// zero byte followed, so only the last part of a packet may be odd. Fold folds the result.
func Sum(p []byte, sum uint64) uint64 {
	var c uint64
	if hasBlocks && len(p) >= minBlocks {
		// The sum does not depend on the order of bytes, except for that of its own (RFC 1071, 2
		// (B)).
		n := len(p) &^ 63
		s := bits.ReverseBytes16(Fold(sumBlocks(&p[0], n)))
		sum, c = bits.Add64(sum, uint64(s), 0)
		p = p[n:]
	}
	for len(p) >= 32 {
		sum, c = bits.Add64(sum, binary.BigEndian.Uint64(p), c)
		sum, c = bits.Add64(sum, binary.BigEndian.Uint64(p[8:]), c)
		sum, c = bits.Add64(sum, binary.BigEndian.Uint64(p[16:]), c)
		sum, c = bits.Add64(sum, binary.BigEndian.Uint64(p[24:]), c)
		p = p[32:]
	}
	for len(p) >= 8 {
		sum, c = bits.Add64(sum, binary.BigEndian.Uint64(p), c)
		p = p[8:]
	}
	if len(p) > 0 {
		var last [8]byte
		copy(last[:], p)
		sum, c = bits.Add64(sum, binary.BigEndian.Uint64(last[:]), c)
	}
	sum, c = bits.Add64(sum, 0, c)
	return sum + c
}

// minBlocks is the length from which on sumBlocks is faster.
const minBlocks = 192

// SumAt adds p, which begins at offset off of a packet, to a running sum. So the pieces of the
// packet may have odd lengths.
func SumAt(p []byte, off int, sum uint64) uint64 {
	s := Sum(p, 0)
	if off&1 != 0 {
		s = bits.RotateLeft64(s, 8) // one byte further, each byte counts 2^8 times as much, modulo 2^16-1
	}
	sum, c := bits.Add64(sum, s, 0)
	return sum + c
}

// Fold reduces a running sum to 16 bits, not complemented.
func Fold(sum uint64) uint16 {
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	return uint16(sum)
}

// InCksum is the Internet checksum of p: BSD's in_cksum for one piece.
func InCksum(p []byte) uint16 { return ^Fold(Sum(p, 0)) }

// PseudoSum starts a transport checksum: the sum of the pseudo-header (RFC 9293, 3.1; RFC 8200,
// 8.1).
func PseudoSum(src, dst netip.Addr, proto uint8, length int) uint64 {
	sum := uint64(proto) + uint64(length>>16) + uint64(length&0xffff)
	if src.Is4() {
		s, d := src.As4(), dst.As4()
		return sum + uint64(binary.BigEndian.Uint32(s[:])) + uint64(binary.BigEndian.Uint32(d[:]))
	}
	s, d := src.As16(), dst.As16()
	return Sum(d[:], Sum(s[:], sum))
}
