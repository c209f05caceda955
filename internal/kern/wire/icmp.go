package wire

import "encoding/binary"

// ICMP types and codes (RFC 792).
const (
	ICMPEchoReply    = 0
	ICMPUnreach      = 3
	ICMPSourceQuench = 4
	ICMPRedirect     = 5
	ICMPEcho         = 8
	ICMPTimxceed     = 11
	ICMPParamProb    = 12

	ICMPUnreachNet          = 0
	ICMPUnreachHost         = 1
	ICMPUnreachProtocol     = 2
	ICMPUnreachPort         = 3
	ICMPUnreachNeedfrag     = 4
	ICMPUnreachSrcfail      = 5
	ICMPUnreachNetUnknown   = 6
	ICMPUnreachHostUnknown  = 7
	ICMPUnreachIsolated     = 8
	ICMPUnreachNetProhib    = 9
	ICMPUnreachHostProhib   = 10
	ICMPUnreachTosNet       = 11
	ICMPUnreachTosHost      = 12
	ICMPUnreachFilterProhib = 13

	ICMPTimxceedIntrans = 0
	ICMPTimxceedReass   = 1
)

// ICMPLen is the length of the fixed part of every ICMP message.
const ICMPLen = 8

// ICMPSumOff is where the checksum lies in an ICMP message.
const ICMPSumOff = 2

// ICMP is the fixed part of an ICMP message.
type ICMP struct {
	Type, Code uint8
	Rest       uint32 // identifier and sequence number, next-hop MTU, pointer or gateway, by type
}

// ParseICMP reads the fixed part of the message at the start of p. The checksum covers the whole
// message, so the caller verifies it.
func ParseICMP(p []byte) (ic ICMP, err error) {
	if len(p) < ICMPLen {
		return ic, ErrShort
	}
	return ICMP{Type: p[0], Code: p[1], Rest: binary.BigEndian.Uint32(p[4:])}, nil
}

// Put writes the fixed part into p with a checksum of zero. The caller fills in the checksum when
// the message is complete.
func (ic ICMP) Put(p []byte) {
	_ = p[ICMPLen-1]
	p[0], p[1], p[2], p[3] = ic.Type, ic.Code, 0, 0
	binary.BigEndian.PutUint32(p[4:], ic.Rest)
}
