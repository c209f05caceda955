package wire

import "encoding/binary"

// VnetLen is the length of the header that a link with offloads puts before each packet.
const VnetLen = 10

// Flags and types of such a header.
const (
	VnetNeedsCsum = 1 // the transport checksum covers the pseudo-header only
	VnetDataValid = 2 // the transport checksum has been verified

	VnetTCPv4 = 1    // the packet is a chain of TCP segments over IPv4
	VnetTCPv6 = 4    // over IPv6
	VnetUDPL4 = 5    // a chain of datagrams of equal length, over either
	VnetECN   = 0x80 // only the first segment has CWR
)

// A Vnet is a header that says what is left to do for a packet: struct virtio_net_hdr (OASIS virtio
// 1.2, 5.1.6), little endian, without num_buffers. The header of a packet that has arrived comes
// from the kernel at the other end of the device, and has not been checked.
type Vnet struct {
	Flags, GSOType uint8
	HdrLen         uint16 // bytes of the headers before the payload
	GSOSize        uint16 // payload of each segment, bytes
	CsumStart      uint16 // where the bytes that the checksum covers begin
	CsumOffset     uint16 // where the checksum stands, from CsumStart
}

// ParseVnet reads the header at the start of b, which has VnetLen bytes.
func ParseVnet(b []byte) Vnet {
	le := binary.LittleEndian
	return Vnet{b[0], b[1], le.Uint16(b[2:]), le.Uint16(b[4:]), le.Uint16(b[6:]), le.Uint16(b[8:])}
}

// Append appends the header to b.
func (v *Vnet) Append(b []byte) []byte {
	le := binary.LittleEndian
	b = append(b, v.Flags, v.GSOType)
	b = le.AppendUint16(le.AppendUint16(b, v.HdrLen), v.GSOSize)
	return le.AppendUint16(le.AppendUint16(b, v.CsumStart), v.CsumOffset)
}

// Complete fills in the checksum of packet p, unless it is TCP's or UDP's: nobody reads those, and
// a capture fills them in by itself.
func (v *Vnet) Complete(p []byte) {
	if v.Flags&VnetNeedsCsum == 0 || v.isTCP(p) || v.isUDP(p) {
		return
	}
	v.Flags = 0
	at := int(v.CsumStart) + int(v.CsumOffset)
	if at+2 > len(p) {
		return
	}
	sum := InCksum(p[v.CsumStart:])
	if sum == 0 {
		// RFC 768: "If the computed checksum is zero, it is transmitted as all ones".
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(p[at:], sum)
}

// isTCP reports whether p is an IP packet with a whole TCP header, and without extension headers,
// and the checksum of the virtio-net header is TCP's.
func (v *Vnet) isTCP(p []byte) bool {
	ip, ok := ViewIP(p)
	if !ok || ip.Proto() != ProtoTCP || len(ip.Payload()) < TCPMinLen {
		return false
	}
	th := TCPView(ip.Payload())
	return int(v.CsumStart) == ip.Hlen() && v.CsumOffset == TCPSumOff && th.Hlen() >= TCPMinLen && len(th) >= th.Hlen()
}

// isUDP is isTCP for UDP.
func (v *Vnet) isUDP(p []byte) bool {
	ip, ok := ViewIP(p)
	return ok && ip.Proto() == ProtoUDP && len(ip.Payload()) >= UDPLen &&
		int(v.CsumStart) == ip.Hlen() && v.CsumOffset == UDPSumOff
}

// SegSize returns the payload of the segments that the packet is to be cut into, or has been merged
// from. It returns 0 for a packet that is one segment.
func (v *Vnet) SegSize() int {
	switch v.GSOType &^ VnetECN {
	case VnetTCPv4, VnetTCPv6, VnetUDPL4:
		return int(v.GSOSize)
	}
	return 0
}
