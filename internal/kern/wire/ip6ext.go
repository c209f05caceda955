package wire

import "encoding/binary"

// The most extension headers of a packet, and the most bytes of all of them together, that ParseExt
// reads (RFC 8504, 5.3: a host may limit both). No packet that serves a purpose comes close.
const (
	MaxExtHeaders = 8
	MaxExtLen     = 256
	maxExtOptions = 8 // options in one header, without padding
)

// FragmentLen is the length of a fragment header.
const FragmentLen = 8

// ICMPv6 types and codes (RFC 4443).
const (
	ICMPv6Unreach      = 1
	ICMPv6PacketTooBig = 2
	ICMPv6Timxceed     = 3
	ICMPv6ParamProb    = 4
	ICMPv6Echo         = 128
	ICMPv6EchoReply    = 129
	ICMPv6Redirect     = 137 // RFC 4861

	ICMPv6UnreachNoRoute     = 0
	ICMPv6UnreachAdmin       = 1
	ICMPv6UnreachBeyondScope = 2
	ICMPv6UnreachAddr        = 3
	ICMPv6UnreachPort        = 4
	ICMPv6UnreachPolicy      = 5
	ICMPv6UnreachReject      = 6

	ICMPv6TimxceedIntrans = 0
	ICMPv6TimxceedReass   = 1

	ICMPv6ParamHeader     = 0
	ICMPv6ParamNextHeader = 1
	ICMPv6ParamOption     = 2
	ICMPv6ParamChain      = 3 // RFC 7112, 5
)

// ICMPv6Info is the bit of the type that tells informational messages from errors (RFC 4443, 2.1).
const ICMPv6Info = 0x80

// An Ext says what ParseExt has found behind an IPv6 header.
type Ext struct {
	Hlen    int   // the IPv6 header and the extension headers, up to and with that of a fragment
	Proto   uint8 // what follows them
	ProtoAt int   // the offset of the Next Header field that says so

	// If the packet is a fragment, FragAt is the offset of the Next Header field that announces the
	// fragment header, which is the last that ParseExt reads; else 0. A packet that is its only
	// fragment (RFC 6946) is none.
	FragAt int
	Off    int // the fragment's offset in its datagram, bytes
	More   bool
	ID     uint32
}

// An ExtFault says why a packet with extension headers must be discarded.
type ExtFault uint8

// The faults. Only of ExtParam and ExtParamUnicast is the sender told, with a Parameter Problem.
const (
	ExtOK           ExtFault = iota
	ExtShort                 // a header does not end within the packet
	ExtLimit                 // more headers, bytes or options than the limits
	ExtDiscard               // an option that is not known says so
	ExtParam                 // to any destination
	ExtParamUnicast          // unless the destination is a multicast address
)

// An ExtProblem is a fault, with the code and the pointer of the Parameter Problem message.
type ExtProblem struct {
	Fault ExtFault
	Code  uint8
	At    int
}

// ParseExt reads the extension headers of an IPv6 packet, which begins with p: all of it, or at
// least its IPv6 header and MaxExtLen bytes. It follows RFC 8200, 4: the headers must be processed
// "strictly in the order they appear in the packet". Of options it knows only padding and the
// router alert (RFC 2711), which concerns routers. whole says that fragments have been put
// together, so none may come in the datagram again.
func ParseExt(p []byte, whole bool) (x Ext, e ExtProblem) {
	x = Ext{Hlen: IPv6Len, Proto: p[6], ProtoAt: 6}
	for i := 0; ; i++ {
		switch x.Proto {
		case ProtoHopopts, ProtoDstopts, ProtoRouting, ProtoFragment:
		default:
			return x, ExtProblem{}
		}
		h := p[min(x.Hlen, len(p)):]
		switch {
		case i == MaxExtHeaders || x.Hlen == IPv6Len+MaxExtLen:
			return x, ExtProblem{Fault: ExtLimit}
		case len(h) < 8:
			return x, ExtProblem{Fault: ExtShort}
		}
		n := 8 * (1 + int(h[1]))
		if x.Proto == ProtoFragment {
			n = FragmentLen // the length's place is reserved
		}
		if x.Hlen+n > IPv6Len+MaxExtLen {
			return x, ExtProblem{Fault: ExtLimit}
		}
		if len(h) < n {
			return x, ExtProblem{Fault: ExtShort}
		}
		h = h[:n]
		switch x.Proto {
		case ProtoHopopts:
			// RFC 8200, 4: "Each extension header should occur at most once", and 4.1: the
			// Hop-by-Hop Options header "is restricted to appear immediately after an IPv6 header
			// only". Elsewhere, the number is one that is not recognized there.
			if x.ProtoAt != 6 {
				return x, ExtProblem{ExtParam, ICMPv6ParamNextHeader, x.ProtoAt}
			}
			e = extOptions(h, x.Hlen)
		case ProtoDstopts:
			e = extOptions(h, x.Hlen)
		case ProtoRouting:
			// RFC 5095, 3, has type 0 treated as a type that is not known, as all others are here.
			// RFC 8200, 4.4: "If Segments Left is zero, the node must ignore the Routing header".
			// "If Segments Left is non-zero, the node must discard the packet and send an ICMP
			// Parameter Problem, Code 0, message to the packet's Source Address, pointing to the
			// unrecognized Routing Type."
			if h[3] != 0 {
				e = ExtProblem{ExtParam, ICMPv6ParamHeader, x.Hlen + 2}
			}
		case ProtoFragment:
			if x.fragment(h) {
				if whole {
					e.Fault = ExtDiscard // a fragment of fragments
				}
				return x, e
			}
		}
		if e.Fault != ExtOK {
			return x, e
		}
		x.Proto, x.ProtoAt, x.Hlen = h[0], x.Hlen, x.Hlen+n
	}
}

// fragment reads a fragment header. It reports false if the packet is its own only fragment. RFC
// 6946, 4, and RFC 8200, 4.5, have such a packet processed "in isolation" from all others.
func (x *Ext) fragment(h []byte) bool {
	fo := binary.BigEndian.Uint16(h[2:])
	x.Off, x.More = int(fo&^7), fo&1 != 0
	if x.Off == 0 && !x.More {
		return false
	}
	x.ID = binary.BigEndian.Uint32(h[4:])
	x.FragAt, x.Proto, x.ProtoAt, x.Hlen = x.ProtoAt, h[0], x.Hlen, x.Hlen+FragmentLen
	return true
}

// Options of the hop-by-hop and destination options headers.
const (
	optPad1        = 0
	optPadN        = 1
	optRouterAlert = 5
)

// extOptions checks the options in the header h, which begins at offset at of the packet: RFC 8200,
// 4.2. The two highest bits of an option that is not known say what is to be done with the packet.
func extOptions(h []byte, at int) ExtProblem {
	known := 0
	for i := 2; i < len(h); {
		if h[i] == optPad1 {
			i++
			continue
		}
		if i+2 > len(h) || i+2+int(h[i+1]) > len(h) {
			// The option does not end within its header. RFC 4443, 3.4: code 0 is an "erroneous
			// header field encountered".
			return ExtProblem{ExtParam, ICMPv6ParamHeader, at + min(i+1, len(h)-1)}
		}
		if h[i] != optPadN {
			if known++; known > maxExtOptions {
				return ExtProblem{Fault: ExtLimit}
			}
		}
		if h[i] != optPadN && h[i] != optRouterAlert {
			switch h[i] >> 6 {
			case 1:
				return ExtProblem{Fault: ExtDiscard}
			case 2:
				return ExtProblem{ExtParam, ICMPv6ParamOption, at + i}
			case 3:
				return ExtProblem{ExtParamUnicast, ICMPv6ParamOption, at + i}
			}
		}
		i += 2 + int(h[i+1])
	}
	return ExtProblem{}
}

// UpperLayer finds the upper layer's packet behind the extension headers of the IPv6 packet that
// begins with p, which may be cut short, such as one that an ICMP message quotes. It looks at the
// headers' lengths only. It reports false if that packet's first byte is not in p, or belongs to a
// fragment other than the first; then proto and off are those of the last header that it has found.
func UpperLayer(p []byte) (proto uint8, off int, ok bool) {
	proto, off = p[6], IPv6Len
	for range MaxExtHeaders {
		h := p[min(off, len(p)):]
		n := 8
		switch proto {
		case ProtoHopopts, ProtoDstopts, ProtoRouting:
			if len(h) > 1 {
				n = 8 * (1 + int(h[1]))
			}
		case ProtoAH:
			if len(h) > 1 {
				n = 4 * (2 + int(h[1])) // RFC 4302, 2.2
			}
		case ProtoFragment:
			if len(h) >= n && binary.BigEndian.Uint16(h[2:])&^7 != 0 {
				return h[0], off + n, false
			}
		default:
			return proto, off, len(h) > 0
		}
		if len(h) < n {
			break
		}
		proto, off = h[0], off+n
	}
	return proto, off, false
}
