// Package wire translates between the bytes of headers and structs. Each parser checks all lengths
// once, and its error says what is wrong; code that uses a header need not check it again. The
// package does no I/O, and imports no other package of this module.
package wire

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// Protocol numbers (IANA).
const (
	ProtoICMP = 1
	ProtoTCP  = 6
	ProtoUDP  = 17
)

// Lengths and flags of an IPv4 header (RFC 791).
const (
	IPv4MinLen = 20
	IPv4MaxLen = 60
	MaxPacket  = 65535 // IP_MAXPACKET

	IPDF = 0x4000 // don't fragment
	IPMF = 0x2000 // more fragments
)

// Errors of ParseIPv4 and ParseTCP, which say what is wrong with a header.
var (
	ErrShort    = errors.New("wire: header cut short")
	ErrVersion  = errors.New("wire: wrong IP version")
	ErrLength   = errors.New("wire: length field contradicts the packet")
	ErrChecksum = errors.New("wire: bad checksum")
)

// IPv4 is an IPv4 header in host terms.
type IPv4 struct {
	Src, Dst netip.Addr
	Hlen     int // header length with options, bytes
	Len      int // total length, bytes
	TOS      uint8
	ID       uint16
	Flags    uint16 // IPDF, IPMF
	Off      int    // fragment offset, bytes
	TTL      uint8
	Proto    uint8
}

// ParseIPv4 reads the header at the start of packet p, whose whole length is plen (p may be only
// its first part). It verifies the checksum. Bytes behind the total length are padding, which the
// caller cuts off.
func ParseIPv4(p []byte, plen int) (ip IPv4, err error) {
	if len(p) < IPv4MinLen {
		return ip, ErrShort
	}
	if p[0]>>4 != 4 {
		return ip, ErrVersion
	}
	ip.Hlen = int(p[0]&15) * 4
	ip.Len = int(binary.BigEndian.Uint16(p[2:]))
	if ip.Hlen < IPv4MinLen || ip.Len < ip.Hlen || ip.Len > plen {
		return ip, ErrLength
	}
	if len(p) < ip.Hlen {
		return ip, ErrShort
	}
	if Fold(Sum(p[:ip.Hlen], 0)) != 0xffff {
		return ip, ErrChecksum
	}
	ip.TOS = p[1]
	ip.ID = binary.BigEndian.Uint16(p[4:])
	fo := binary.BigEndian.Uint16(p[6:])
	ip.Flags = fo & (IPDF | IPMF)
	ip.Off = int(fo&0x1fff) * 8
	ip.TTL = p[8]
	ip.Proto = p[9]
	ip.Src = netip.AddrFrom4([4]byte(p[12:16]))
	ip.Dst = netip.AddrFrom4([4]byte(p[16:20]))
	return ip, nil
}

// Put writes the header, of 20 bytes and without options, into p, with its checksum.
func (ip *IPv4) Put(p []byte) {
	_ = p[IPv4MinLen-1]
	p[0] = 4<<4 | IPv4MinLen/4
	p[1] = ip.TOS
	binary.BigEndian.PutUint16(p[2:], uint16(ip.Len))
	binary.BigEndian.PutUint16(p[4:], ip.ID)
	binary.BigEndian.PutUint16(p[6:], ip.Flags|uint16(ip.Off/8))
	p[8] = ip.TTL
	p[9] = ip.Proto
	p[10], p[11] = 0, 0
	src, dst := ip.Src.As4(), ip.Dst.As4()
	copy(p[12:], src[:])
	copy(p[16:], dst[:])
	binary.BigEndian.PutUint16(p[10:], InCksum(p[:IPv4MinLen]))
}
