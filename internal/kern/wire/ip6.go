package wire

import (
	"encoding/binary"
	"net/netip"
)

// Lengths of IPv6 (RFC 8200).
const (
	IPv6Len    = 40   // the header
	IPv6MinMTU = 1280 // "IPv6 requires that every link in the Internet have an MTU of 1280 octets or greater" (5)
)

// Protocol numbers that stand in IPv6's Next Header fields only (IANA). The first five are those of
// extension headers.
const (
	ProtoHopopts  = 0
	ProtoRouting  = 43
	ProtoFragment = 44
	ProtoAH       = 51
	ProtoDstopts  = 60
	ProtoICMPv6   = 58
	ProtoNone     = 59 // nothing follows
)

// IPv6 is an IPv6 header in host terms.
type IPv6 struct {
	Src, Dst netip.Addr // without zones
	Len      int        // total length with the header, bytes
	Class    uint8      // traffic class, whose low two bits are the ECN field (RFC 3168, 5)
	Label    uint32     // flow label, 20 bits
	Hlim     uint8
	Next     uint8 // what follows: a protocol or an extension header
}

// ParseIPv6 reads the header at the start of packet p, whose whole length is plen (p may be only
// its first part). Bytes behind the total length are padding, which the caller cuts off.
func ParseIPv6(p []byte, plen int) (ip IPv6, err error) {
	if len(p) < IPv6Len {
		return ip, ErrShort
	}
	if p[0]>>4 != 6 {
		return ip, ErrVersion
	}
	v := IPv6View(p)
	if ip.Len = v.Len(); ip.Len > plen {
		return ip, ErrLength
	}
	ip.Class, ip.Label, ip.Hlim, ip.Next = v.Class(), v.Label(), v.Hlim(), v.Next()
	ip.Src, ip.Dst = v.Src(), v.Dst()
	return ip, nil
}

// Put writes the header into p. The addresses are IPv6.
func (ip *IPv6) Put(p []byte) {
	_ = p[IPv6Len-1]
	binary.BigEndian.PutUint32(p, 6<<28|uint32(ip.Class)<<20|ip.Label&0xfffff)
	binary.BigEndian.PutUint16(p[4:], uint16(ip.Len-IPv6Len))
	p[6], p[7] = ip.Next, ip.Hlim
	src, dst := ip.Src.As16(), ip.Dst.As16()
	copy(p[8:], src[:])
	copy(p[24:], dst[:])
}

// An IPv6View reads the fields of an IPv6 header where it lies, in a packet that may be cut short.
// [ViewIPv6] checks that the header is whole, so that no method can fail; it does not check the
// payload length. A conversion makes a view of a header that the caller has checked, or written,
// before.
type IPv6View []byte

// ViewIPv6 returns a view of the packet p. It reports false if p does not begin with a whole IPv6
// header.
func ViewIPv6(p []byte) (v IPv6View, ok bool) {
	if len(p) < IPv6Len || p[0]>>4 != 6 {
		return nil, false
	}
	return IPv6View(p), true
}

// Class returns the traffic class.
func (v IPv6View) Class() uint8 { return v[0]<<4 | v[1]>>4 }

// Label returns the flow label.
func (v IPv6View) Label() uint32 { return binary.BigEndian.Uint32(v) & 0xfffff }

// Len returns the total length in bytes, which is the field's value and the header's length.
func (v IPv6View) Len() int { return IPv6Len + int(binary.BigEndian.Uint16(v[4:])) }

// Next returns the number of what follows the header.
func (v IPv6View) Next() uint8 { return v[6] }

// Hlim returns the hop limit.
func (v IPv6View) Hlim() uint8 { return v[7] }

// Src returns the source address.
func (v IPv6View) Src() netip.Addr { return netip.AddrFrom16([16]byte(v[8:24])) }

// Dst returns the destination address.
func (v IPv6View) Dst() netip.Addr { return netip.AddrFrom16([16]byte(v[24:40])) }

// Addrs returns the bytes of the source address and the destination address.
func (v IPv6View) Addrs() []byte { return v[8:40] }

// DecHlim takes one off the hop limit, which is not 0.
func (v IPv6View) DecHlim() { v[7]-- }

// SetLen writes the total length.
func (v IPv6View) SetLen(n int) { binary.BigEndian.PutUint16(v[4:], uint16(n-IPv6Len)) }

// An IPView reads what the headers of both families have, where the header lies. It is a conversion
// of a packet's bytes, of which the caller knows that they begin with a whole header, or what
// [ViewIP] returns.
type IPView []byte

// ViewIP returns a view of the packet p. It reports false if p does not begin with a whole header
// of either family.
func ViewIP(p []byte) (v IPView, ok bool) {
	if _, ok = ViewIPv4(p); !ok {
		_, ok = ViewIPv6(p)
	}
	return IPView(p), ok
}

// Is6 reports whether the packet is IPv6.
func (v IPView) Is6() bool { return v[0]>>4 == 6 }

// Hlen returns the header's length in bytes, with IPv4's options, and without extension headers.
func (v IPView) Hlen() int {
	if v.Is6() {
		return IPv6Len
	}
	return IPv4View(v).Hlen()
}

// TOS returns the type of service or the traffic class.
func (v IPView) TOS() uint8 {
	if v.Is6() {
		return IPv6View(v).Class()
	}
	return IPv4View(v).TOS()
}

// TTL returns the time to live or the hop limit.
func (v IPView) TTL() uint8 {
	if v.Is6() {
		return IPv6View(v).Hlim()
	}
	return IPv4View(v).TTL()
}

// Len returns the total length in bytes.
func (v IPView) Len() int {
	if v.Is6() {
		return IPv6View(v).Len()
	}
	return IPv4View(v).Len()
}

// Proto returns the number of what follows the header.
func (v IPView) Proto() uint8 {
	if v.Is6() {
		return IPv6View(v).Next()
	}
	return IPv4View(v).Proto()
}

// Src returns the source address.
func (v IPView) Src() netip.Addr {
	if v.Is6() {
		return IPv6View(v).Src()
	}
	return IPv4View(v).Src()
}

// Dst returns the destination address.
func (v IPView) Dst() netip.Addr {
	if v.Is6() {
		return IPv6View(v).Dst()
	}
	return IPv4View(v).Dst()
}

// Addrs returns the bytes of the source address and the destination address.
func (v IPView) Addrs() []byte {
	if v.Is6() {
		return IPv6View(v).Addrs()
	}
	return IPv4View(v).Addrs()
}

// DF reports whether no router may fragment the packet, which holds for all of IPv6.
func (v IPView) DF() bool { return v.Is6() || IPv4View(v).Flags()&IPDF != 0 }

// Payload returns what follows the header.
func (v IPView) Payload() []byte { return v[v.Hlen():] }

// SetLen writes the total length, and IPv4's checksum.
func (v IPView) SetLen(n int) {
	if v.Is6() {
		IPv6View(v).SetLen(n)
		return
	}
	IPv4View(v).SetLen(n)
}
