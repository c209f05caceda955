package wire

import (
	"encoding/binary"
	"net/netip"
)

// An IPv4View reads the fields of an IPv4 header where it lies, in a packet that may be cut short.
// [ViewIPv4] checks that the header is whole, so that no method can fail; it checks neither the
// header's checksum nor its total length. A conversion makes a view of a header that the caller has
// checked, or written, before.
type IPv4View []byte

// ViewIPv4 returns a view of the packet p. It reports false if p does not begin with an IPv4
// header, whole with its options.
func ViewIPv4(p []byte) (v IPv4View, ok bool) {
	if len(p) < IPv4MinLen || p[0]>>4 != 4 {
		return nil, false
	}
	v = IPv4View(p)
	return v, v.Hlen() >= IPv4MinLen && v.Hlen() <= len(p)
}

// Hlen returns the header's length in bytes, with options.
func (v IPv4View) Hlen() int { return int(v[0]&15) * 4 }

// TOS returns the type of service, whose low two bits are the ECN field (RFC 3168, 5).
func (v IPv4View) TOS() uint8 { return v[1] }

// Len returns the total length in bytes.
func (v IPv4View) Len() int { return int(binary.BigEndian.Uint16(v[2:])) }

// ID returns the identification.
func (v IPv4View) ID() uint16 { return binary.BigEndian.Uint16(v[4:]) }

// FlagsOff returns the flags and the fragment's offset as they lie: the reserved bit, IPDF, IPMF,
// and the offset in units of 8 bytes.
func (v IPv4View) FlagsOff() uint16 { return binary.BigEndian.Uint16(v[6:]) }

// Flags returns IPDF and IPMF, those of them that are set.
func (v IPv4View) Flags() uint16 { return v.FlagsOff() & (IPDF | IPMF) }

// Off returns the fragment's offset in bytes.
func (v IPv4View) Off() int { return int(v.FlagsOff()&0x1fff) * 8 }

// TTL returns the time to live.
func (v IPv4View) TTL() uint8 { return v[8] }

// Proto returns the number of the protocol.
func (v IPv4View) Proto() uint8 { return v[9] }

// Src returns the source address.
func (v IPv4View) Src() netip.Addr { return netip.AddrFrom4([4]byte(v[12:16])) }

// Dst returns the destination address.
func (v IPv4View) Dst() netip.Addr { return netip.AddrFrom4([4]byte(v[16:20])) }

// Addrs returns the bytes of the source address and the destination address.
func (v IPv4View) Addrs() []byte { return v[12:20] }

// Payload returns what follows the header.
func (v IPv4View) Payload() []byte { return v[v.Hlen():] }

// SetLen writes the total length, and the checksum that the header has with it.
func (v IPv4View) SetLen(n int) {
	binary.BigEndian.PutUint16(v[2:], uint16(n))
	v[10], v[11] = 0, 0
	binary.BigEndian.PutUint16(v[10:], InCksum(v[:v.Hlen()]))
}

// DecTTL takes one off the time to live, which is not 0, and mends the checksum (RFC 1624, 3).
func (v IPv4View) DecTTL() {
	old := binary.BigEndian.Uint16(v[8:])
	v[8]--
	sum := uint32(^binary.BigEndian.Uint16(v[10:])) + uint32(^old) + uint32(binary.BigEndian.Uint16(v[8:]))
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(v[10:], ^uint16(sum>>16+sum&0xffff))
}

// SetFragment writes the fragment's offset in bytes, a multiple of 8, and whether more fragments
// follow. It clears IPDF, and leaves the checksum to SetLen.
func (v IPv4View) SetFragment(off int, more bool) {
	fo := uint16(off / 8)
	if more {
		fo |= IPMF
	}
	binary.BigEndian.PutUint16(v[6:], fo)
}

// A TCPView reads and writes the fields of a TCP header where it lies. It is a conversion of the
// header's bytes, of which the caller has checked that there are TCPMinLen, or as many as the field
// needs. No method of it keeps the checksum right, which SetSum writes.
type TCPView []byte

// Sport returns the source port.
func (v TCPView) Sport() uint16 { return binary.BigEndian.Uint16(v) }

// Dport returns the destination port.
func (v TCPView) Dport() uint16 { return binary.BigEndian.Uint16(v[2:]) }

// Seq returns the sequence number.
func (v TCPView) Seq() Seq { return Seq(binary.BigEndian.Uint32(v[4:])) }

// Ack returns the acknowledgment number.
func (v TCPView) Ack() Seq { return Seq(binary.BigEndian.Uint32(v[8:])) }

// Hlen returns the header's length in bytes, with options, as the header says: any multiple of 4 up
// to TCPMaxLen.
func (v TCPView) Hlen() int { return int(v[12]>>4) * 4 }

// Reserved returns the four bits between the header's length and the flags.
func (v TCPView) Reserved() uint8 { return v[12] & 15 }

// Flags returns the flags.
func (v TCPView) Flags() Flags { return Flags(v[13]) }

// Win returns the window, not scaled.
func (v TCPView) Win() uint16 { return binary.BigEndian.Uint16(v[14:]) }

// Urp returns the urgent pointer.
func (v TCPView) Urp() uint16 { return binary.BigEndian.Uint16(v[18:]) }

// Options returns the bytes of the options.
func (v TCPView) Options() []byte { return v[TCPMinLen:v.Hlen()] }

// Payload returns what follows the header.
func (v TCPView) Payload() []byte { return v[v.Hlen():] }

// SetSeq writes the sequence number.
func (v TCPView) SetSeq(s Seq) { binary.BigEndian.PutUint32(v[4:], uint32(s)) }

// SetFlags writes the flags.
func (v TCPView) SetFlags(f Flags) { v[13] = uint8(f) }

// SetSum writes the checksum field.
func (v TCPView) SetSum(sum uint16) { binary.BigEndian.PutUint16(v[TCPSumOff:], sum) }

// SetUrp writes the urgent pointer.
func (v TCPView) SetUrp(urp uint16) { binary.BigEndian.PutUint16(v[18:], urp) }

// LimitedBroadcast is 255.255.255.255 (RFC 919, 7).
var LimitedBroadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// LastAddr returns the last address of an IPv4 prefix, which is the broadcast address of its
// network (RFC 919, 7).
func LastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}
