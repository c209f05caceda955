package wire

import "encoding/binary"

// UDPLen is the length of a UDP header (RFC 768).
const UDPLen = 8

// UDPSumOff is the offset of the checksum in a UDP header.
const UDPSumOff = 6

// UDP is a UDP header.
type UDP struct {
	Sport, Dport uint16
	Len          int // of header and data, bytes
	Sum          uint16
}

// Put writes the header into p.
func (u UDP) Put(p []byte) {
	_ = p[UDPLen-1]
	binary.BigEndian.PutUint16(p[0:], u.Sport)
	binary.BigEndian.PutUint16(p[2:], u.Dport)
	binary.BigEndian.PutUint16(p[4:], uint16(u.Len))
	binary.BigEndian.PutUint16(p[6:], u.Sum)
}

// A UDPView is a UDP header in place, with the data behind it. It has at least UDPLen bytes.
type UDPView []byte

// Sport returns the source port.
func (v UDPView) Sport() uint16 { return binary.BigEndian.Uint16(v) }

// Dport returns the destination port.
func (v UDPView) Dport() uint16 { return binary.BigEndian.Uint16(v[2:]) }

// Len returns the length field.
func (v UDPView) Len() int { return int(binary.BigEndian.Uint16(v[4:])) }

// SetLen sets the length field.
func (v UDPView) SetLen(n int) { binary.BigEndian.PutUint16(v[4:], uint16(n)) }

// Sum returns the checksum field; 0: the sender has computed none.
func (v UDPView) Sum() uint16 { return binary.BigEndian.Uint16(v[6:]) }

// SetSum sets the checksum field to a checksum that has been computed. RFC 768: "If the computed
// checksum is zero, it is transmitted as all ones".
func (v UDPView) SetSum(sum uint16) {
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(v[6:], sum)
}
