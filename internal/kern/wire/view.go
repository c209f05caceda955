package wire

import (
	"encoding/binary"
	"net/netip"
)

// An IPv4View reads the fields of an IPv4 header where it lies, in a packet that may be cut short and of which nothing else has been checked: neither
// its checksum nor its total length. [ViewIPv4] makes one, whose methods cannot fail.
type IPv4View []byte

// ViewIPv4 returns a view of the packet p. It reports false if p does not begin with an IPv4 header, whole with its options.
func ViewIPv4(p []byte) (v IPv4View, ok bool) {
	if len(p) < IPv4MinLen || p[0]>>4 != 4 {
		return nil, false
	}
	v = IPv4View(p)
	return v, v.Hlen() >= IPv4MinLen && v.Hlen() <= len(p)
}

// Hlen returns the header's length in bytes, with options.
func (v IPv4View) Hlen() int { return int(v[0]&15) * 4 }

// Flags returns IPDF and IPMF, those of them that are set.
func (v IPv4View) Flags() uint16 { return binary.BigEndian.Uint16(v[6:]) & (IPDF | IPMF) }

// Off returns the fragment's offset in bytes.
func (v IPv4View) Off() int { return int(binary.BigEndian.Uint16(v[6:])&0x1fff) * 8 }

// Proto returns the number of the protocol.
func (v IPv4View) Proto() uint8 { return v[9] }

// Src returns the source address.
func (v IPv4View) Src() netip.Addr { return netip.AddrFrom4([4]byte(v[12:16])) }

// Dst returns the destination address.
func (v IPv4View) Dst() netip.Addr { return netip.AddrFrom4([4]byte(v[16:20])) }

// Payload returns what follows the header.
func (v IPv4View) Payload() []byte { return v[v.Hlen():] }

// LimitedBroadcast is 255.255.255.255 (RFC 919, 7).
var LimitedBroadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// LastAddr returns the last address of an IPv4 prefix, which is the broadcast address of its network (RFC 919, 7).
func LastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}
