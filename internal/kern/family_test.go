package kern

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"bsdnet/internal/kern/wire"
)

// A family is one of IP's, for tests that run over both. Its stack has the address host and reaches
// peer.
type family struct {
	name       string
	domain     int
	prefix     netip.Prefix // host, with its network
	peer       netip.Addr
	loop       netip.Addr // of the loopback
	all        netip.Prefix
	hdr        int // length of the header
	icmp       uint8
	level      int // of setsockopt; class and hops are the options there
	class, hop int
}

var inet = family{
	name: "IPv4", domain: AF_INET,
	prefix: netip.MustParsePrefix("192.168.0.1/16"), peer: netip.MustParseAddr("192.0.2.1"),
	loop: netip.MustParseAddr("127.0.0.1"),
	all:  netip.MustParsePrefix("0.0.0.0/0"), hdr: wire.IPv4MinLen, icmp: wire.ProtoICMP,
	level: IPPROTO_IP, class: IP_TOS, hop: IP_TTL,
}

var inet6 = family{
	name: "IPv6", domain: AF_INET6,
	prefix: netip.MustParsePrefix("fd00::1/64"), peer: netip.MustParseAddr("2001:db8::1"),
	loop: netip.IPv6Loopback(),
	all:  netip.MustParsePrefix("::/0"), hdr: wire.IPv6Len, icmp: wire.ProtoICMPv6,
	level: IPPROTO_IPV6, class: IPV6_TCLASS, hop: IPV6_UNICAST_HOPS,
}

// bothFamilies runs a test over IPv4 and over IPv6.
func bothFamilies(t *testing.T, f func(t *testing.T, fam *family)) {
	for _, fam := range []*family{&inet, &inet6} {
		t.Run(fam.name, func(t *testing.T) { f(t, fam) })
	}
}

func (f *family) host() netip.Addr { return f.prefix.Addr() }

// An ipPkt is a packet of either family.
type ipPkt struct {
	src, dst netip.Addr
	tos, ttl uint8
	proto    uint8
	body     []byte // what follows the IP header
}

// parseIP reads a packet that is not a fragment and has neither options nor extension headers. Its
// length is what the header says; an IPv4 packet has DF, and is not one that was put together.
func parseIP(p []byte) (ip ipPkt, err error) {
	if len(p) > 0 && p[0]>>4 == 6 {
		h, err := wire.ParseIPv6(p, len(p))
		if err == nil && h.Len != len(p) {
			err = wire.ErrLength
		}
		if err != nil {
			return ip, err
		}
		return ipPkt{h.Src, h.Dst, h.Class, h.Hlim, h.Next, p[wire.IPv6Len:]}, nil
	}
	h, err := wire.ParseIPv4(p, len(p))
	if err == nil && (h.Len != len(p) || h.Flags != wire.IPDF || h.Hlen != wire.IPv4MinLen) {
		err = wire.ErrLength
	}
	if err != nil {
		return ip, err
	}
	return ipPkt{h.Src, h.Dst, h.TOS, h.TTL, h.Proto, p[h.Hlen:]}, nil
}

// packet makes the packet, and fills in the checksum of what is TCP or ICMP.
func (ip *ipPkt) packet() []byte {
	if ip.ttl == 0 {
		ip.ttl = 64
	}
	at := map[uint8]int{wire.ProtoTCP: 16, wire.ProtoICMP: 2, wire.ProtoICMPv6: 2}[ip.proto]
	if at > 0 && len(ip.body) >= at+2 {
		var sum uint64
		if ip.proto != wire.ProtoICMP {
			sum = wire.PseudoSum(ip.src, ip.dst, ip.proto, len(ip.body))
		}
		ip.body[at], ip.body[at+1] = 0, 0
		binary.BigEndian.PutUint16(ip.body[at:], ^wire.Fold(wire.Sum(ip.body, sum)))
	}
	var hdr []byte
	if ip.src.Is6() {
		h := wire.IPv6{Src: ip.src, Dst: ip.dst, Len: wire.IPv6Len + len(ip.body), Next: ip.proto}
		h.Class, h.Hlim = ip.tos, ip.ttl
		hdr = make([]byte, wire.IPv6Len)
		h.Put(hdr)
	} else {
		h := wire.IPv4{Src: ip.src, Dst: ip.dst, Len: wire.IPv4MinLen + len(ip.body), Proto: ip.proto}
		h.TOS, h.TTL, h.Flags = ip.tos, ip.ttl, wire.IPDF
		hdr = make([]byte, wire.IPv4MinLen)
		h.Put(hdr)
	}
	return append(hdr, ip.body...)
}
