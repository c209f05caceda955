package netem

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"bsdnet/internal/kern/wire"
)

// TCPFlags are the flags of a TCP header (RFC 9293, 3.1; RFC 3168, 6.1).
type TCPFlags uint8

// The bits of TCPFlags.
const (
	FIN TCPFlags = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
	ECE
	CWR
)

// String prints the flags as tcpdump does: "S.", "P.", "F.", "R", ".", or "none".
func (f TCPFlags) String() string {
	if f == 0 {
		return "none"
	}
	return wire.Flags(f).String()
}

// A Packet is what a function that decides about packets sees of one: see [Impaired.Script],
// [FlowPath], [Port.Script] and [Event]. It is valid during the call only.
type Packet struct {
	Src, Dst netip.AddrPort // the ports are 0 if the protocol has none, or the packet is a fragment
	Proto    uint8          // the protocol behind the IP headers: 6 for TCP, 17 for UDP, 1 and 58 for ICMP
	Fragment bool           // a fragment of a packet; then all fields below but N, Size and Data are zero

	Flags TCPFlags // of a TCP header

	// Seq and Ack are relative, as tcpdump shows them: the SYN of the flow has Seq 0, and its first
	// byte of data Seq 1; Ack is 1 if it acknowledges the SYN of the other direction. If the place
	// has not seen the SYN pass, Seq counts from its first packet, which has Seq 1.
	Seq, Ack uint32
	Window   int // the field of the TCP header, not scaled

	Payload int // bytes behind the TCP, UDP or ICMP header, or behind the IP headers
	Size    int // bytes of the whole IP packet

	// N is the packet's number within its flow at this place, from 1. A flow is all packets with
	// the same protocol, addresses and ports, so each direction of a connection is one. A new TCP
	// connection with the same ports counts from 1 again.
	N int

	// Retransmission is true if the packet is TCP, has data, a SYN or a FIN, and begins before the
	// end of what this place has seen of its flow. So the first retransmission of a packet that was
	// dropped here, or behind this place, is one; if the packet was lost before this place, it is
	// not. A packet that was overtaken on its way here is one too, and a keep-alive probe is none.
	Retransmission bool

	// Data is the whole packet. It must not be changed or kept.
	Data []byte
}

// The headers in front of a payload, in bytes.
const (
	udpHeaderLen  = 8
	icmpHeaderLen = 8
	protoICMPv6   = 58
)

// String is the packet in the notation of tcpdump, with relative numbers:
//
//	10.0.0.1.49152 > 10.0.0.2.80: Flags [P.], seq 1:6, ack 1, win 1027, length 5
//	10.0.0.1.5353 > 10.0.0.2.53: UDP, length 40
func (p *Packet) String() string { return p.Notation(nil) }

// Notation is String, with names in place of addresses. If name is nil, or returns "", the address
// is printed.
func (p *Packet) Notation(name func(netip.Addr) string) string {
	end := func(a netip.AddrPort) string {
		s := ""
		if name != nil {
			s = name(a.Addr())
		}
		if s == "" {
			s = a.Addr().String()
		}
		if a.Port() != 0 {
			s = fmt.Sprintf("%s.%d", s, a.Port())
		}
		return s
	}
	if !p.Src.IsValid() {
		return fmt.Sprintf("not IP, length %d", p.Size)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s > %s: ", end(p.Src), end(p.Dst))
	switch {
	case p.Fragment:
		fmt.Fprintf(&b, "fragment of protocol %d, length %d", p.Proto, p.Size)
	case p.Proto == wire.ProtoTCP:
		fmt.Fprintf(&b, "Flags [%v]", p.Flags)
		if p.Payload > 0 {
			fmt.Fprintf(&b, ", seq %d:%d", p.Seq, p.Seq+uint32(p.Payload))
		} else if p.Flags&(SYN|FIN|RST) != 0 {
			fmt.Fprintf(&b, ", seq %d", p.Seq)
		}
		if p.Flags&ACK != 0 {
			fmt.Fprintf(&b, ", ack %d", p.Ack)
		}
		fmt.Fprintf(&b, ", win %d, length %d", p.Window, p.Payload)
		if p.Retransmission {
			b.WriteString(" (retransmission)")
		}
	case p.Proto == wire.ProtoUDP:
		fmt.Fprintf(&b, "UDP, length %d", p.Payload)
	case p.Proto == wire.ProtoICMP:
		fmt.Fprintf(&b, "ICMP, length %d", p.Payload)
	case p.Proto == protoICMPv6:
		fmt.Fprintf(&b, "ICMP6, length %d", p.Payload)
	default:
		fmt.Fprintf(&b, "protocol %d, length %d", p.Proto, p.Payload)
	}
	return b.String()
}

// A conversation is what a flow of TCP has shown of its numbers.
type conversation struct {
	n              int    // packets
	isn, peer, end uint32 // the initial number, that of the other direction, and the end of what has passed by
	sent, acked    bool   // isn and end are known, peer is known
}

// A mark is what a packet's place in its conversation is, as noted when it came.
type mark struct {
	n         int
	isn, peer uint32
	again     bool // a retransmission
}

// next notes a segment and returns its place.
func (c *conversation) next(v wire.TCPView, payload int) mark {
	flags := TCPFlags(v.Flags())
	first := uint32(v.Seq())
	switch {
	case flags&SYN != 0 && !(c.sent && first == c.isn):
		*c = conversation{isn: first, end: first, sent: true} // a new connection, perhaps on old ports
	case !c.sent && flags&RST == 0:
		c.isn, c.end, c.sent = first-1, first, true
	}
	c.n++
	if flags&ACK != 0 && !c.acked {
		c.peer, c.acked = uint32(v.Ack())-1, true
	}
	again := false
	length := uint32(payload)
	for _, f := range []TCPFlags{SYN, FIN} {
		if flags&f != 0 {
			length++
		}
	}
	if c.sent && length > 0 && flags&RST == 0 {
		again = int32(first-c.end) < 0 && !(payload == 1 && first == c.end-1 && flags&(SYN|FIN|PSH) == 0)
		if last := first + length; int32(last-c.end) > 0 {
			c.end = last
		}
	}
	return mark{c.n, c.isn, c.peer, again}
}

// look fills in what a function may see of a packet, and notes it as one more of flow f. If f is
// nil, it has been noted before.
func (p *Packet) look(from *packet, f *flow) {
	b, k := from.data, &from.flow
	*p = Packet{Size: len(b), Data: b}
	rest, fragment := upper(b, k)
	p.Payload = len(rest)
	if k[0] != 0 {
		p.Src, p.Dst = k.addrs()
		p.Proto = k[1]
	}
	var segment wire.TCPView
	switch v := wire.TCPView(rest); {
	case fragment:
		p.Fragment, p.Payload = true, 0
	case k[0] == 0:
	case p.Proto == wire.ProtoTCP && len(rest) >= wire.TCPMinLen && v.Hlen() >= wire.TCPMinLen && v.Hlen() <= len(rest):
		segment = v
		p.Flags = TCPFlags(v.Flags())
		p.Window = int(v.Win())
		p.Payload = len(rest) - v.Hlen()
	case p.Proto == wire.ProtoUDP && len(rest) >= udpHeaderLen:
		p.Payload -= udpHeaderLen
	case (p.Proto == wire.ProtoICMP || p.Proto == protoICMPv6) && len(rest) >= icmpHeaderLen:
		p.Payload -= icmpHeaderLen
	}
	switch {
	case f == nil:
	case segment != nil:
		from.mark = f.tcp.next(segment, p.Payload)
	default:
		f.tcp.n++
		from.mark = mark{n: f.tcp.n}
	}
	p.N, p.Retransmission = from.mark.n, from.mark.again
	if segment != nil {
		p.Seq = uint32(segment.Seq()) - from.mark.isn
	}
	if p.Flags&ACK != 0 {
		p.Ack = uint32(segment.Ack()) - from.mark.peer
	}
}

// addrs returns the addresses and ports of a flow of IP packets.
func (k *flowKey) addrs() (src, dst netip.AddrPort) {
	addr := func(b []byte) netip.Addr {
		if k[0] == 4 {
			return netip.AddrFrom4([4]byte(b))
		}
		return netip.AddrFrom16([16]byte(b))
	}
	port := binary.BigEndian.Uint16
	return netip.AddrPortFrom(addr(k[2:]), port(k[34:])), netip.AddrPortFrom(addr(k[18:]), port(k[36:]))
}

// upper returns the bytes behind the IP headers of a packet whose flow is known, up to the IP
// packet's end, and whether the packet is a fragment.
func upper(b []byte, k *flowKey) (rest []byte, fragment bool) {
	switch k[0] {
	case 4:
		v, ok := wire.ViewIPv4(b)
		if !ok {
			return nil, false
		}
		rest = v.Payload()
		if n := v.Len() - v.Hlen(); n >= 0 && n < len(rest) {
			rest = rest[:n]
		}
		return rest, v.Flags()&wire.IPMF != 0 || v.Off() != 0
	case 6:
		rest = b[40:]
		if n := int(binary.BigEndian.Uint16(b[4:])); n > 0 && n < len(rest) {
			rest = rest[:n]
		}
		for next := b[6]; ; {
			n := extensionLen(next, rest)
			if n == 0 || n > len(rest) {
				return rest, false
			}
			if next == protoFragment && binary.BigEndian.Uint16(rest[2:])&^6 != 0 {
				return rest[n:], true
			}
			next, rest = rest[0], rest[n:]
		}
	}
	return b, false
}
