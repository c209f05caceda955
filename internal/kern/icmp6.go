package kern

import (
	"encoding/binary"
	"net/netip"
	"syscall"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
)

// ICMP6Stats are the counters of ICMPv6: BSD's struct icmp6stat.
type ICMP6Stats struct {
	Error, Canterror, Toofreq, Tooshort, Checksum, Badlen, Reflect, Inerror, Badpmtu tcp.Counter
}

// icmp6Input takes an ICMPv6 message from IPv6: BSD's icmp6_input. It takes over the chain.
func icmp6Input(k *Kernel, ip ipHdr, m *mbuf.Mbuf, ifp *Ifnet) {
	n := ip.len - ip.hlen
	if n < wire.ICMPLen {
		k.Stats.ICMP6.Tooshort.Inc()
		mbuf.Free(m)
		return
	}
	if m.Pkt.Csum&mbuf.CsumValid == 0 {
		sum := wire.PseudoSum(ip.src, ip.dst, wire.ProtoICMPv6, n)
		if wire.Fold(sumChain(m, ip.hlen, n, sum)) != 0xffff {
			k.Stats.ICMP6.Checksum.Inc()
			mbuf.Free(m)
			return
		}
	}
	var b [wire.ICMPLen + icmp6Quoted]byte
	got := b[:mbuf.Copydata(m, ip.hlen, b[:min(n, len(b))])]
	ic, _ := wire.ParseICMP(got)
	switch ic.Type {
	case wire.ICMPv6Echo:
		k.icmp6Reflect(&ip, m, ic, ifp)
		return
	case wire.ICMPv6EchoReply:
		if !k.pings.answered(&ip, ic, m) {
			k.icmpDgramInput(&ip, ic, m, ifp)
			return
		}
	case wire.ICMPv6Unreach, wire.ICMPv6PacketTooBig, wire.ICMPv6Timxceed, wire.ICMPv6ParamProb:
		k.icmp6Deliver(&ip, ic, got[wire.ICMPLen:])
	}
	// RFC 4443, 2.4 (b): "If an ICMPv6 informational message of unknown type is received, it MUST
	// be silently discarded." Errors of unknown type (a) concern no protocol either.
	mbuf.Free(m)
}

// icmp6Quoted is how many bytes of a packet that an error quotes are read: its headers, and as much
// of the transport's as icmpError holds.
const icmp6Quoted = wire.IPv6Len + wire.MaxExtLen + 8

// icmp6Reflect answers an echo request: BSD's icmp6_reflect. RFC 4443, 4.2: "The data received in
// the ICMPv6 Echo Request message MUST be returned entirely and unmodified in the ICMPv6 Echo Reply
// message", and "The source address of an Echo Reply sent in response to a unicast Echo Request
// message MUST be the same as the destination address of that Echo Request message."
func (k *Kernel) icmp6Reflect(ip *ipHdr, m *mbuf.Mbuf, ic wire.ICMP, ifp *Ifnet) {
	src := ip.dst
	if ip.dst.IsMulticast() {
		// "An Echo Reply SHOULD be sent in response to an Echo Request message sent to an IPv6
		// multicast or anycast address. In this case, the source address of the reply MUST be a
		// unicast address belonging to the interface on which the Echo Request message was
		// received." As an answer from each host multiplies a forged request, the limit of errors
		// holds for such answers.
		if src = ifp.in6Selectsrc(ip.src); !src.IsValid() || !k.icmpLimit.take(in6(ip.src), k.now()) {
			k.Stats.ICMP6.Toofreq.Inc()
			mbuf.Free(m)
			return
		}
	}
	n := ip.len - ip.hlen
	data := mbuf.Adj(m, ip.hlen+wire.ICMPLen)
	ic.Type = wire.ICMPv6EchoReply
	k.Stats.ICMP6.Reflect.Inc()
	h := k.pool.Gethdr()
	h.Extend(wire.ICMPLen)
	ic.Put(h.Bytes())
	h.SetNext(data)
	h.Pkt.Len = n
	k.icmp6Send(h, ip, src, ifp, ip.tos)
}

// icmp6Send completes a message that answers packet ip, which has arrived on ifp, with its checksum
// and sends it.
func (k *Kernel) icmp6Send(m *mbuf.Mbuf, ip *ipHdr, src netip.Addr, ifp *Ifnet, tos uint8) {
	sum := wire.PseudoSum(src, ip.src, wire.ProtoICMPv6, m.Pkt.Len)
	binary.BigEndian.PutUint16(m.Bytes()[wire.ICMPSumOff:], ^wire.Fold(sumChain(m, 0, m.Pkt.Len, sum)))
	t := tuple{laddr: in6(src), faddr: in6(ip.src)}
	m.Pkt.Flow = t.flow(k.seed.hash)
	// An answer is no longer than the least MTU of IPv6, or is sent in fragments of that length, as
	// by BSD (IPV6_MINMTU): the stack keeps no MTUs of paths for answers, so on a path with a
	// smaller MTU all longer ones would be lost.
	o := ipOut{src: src, dst: ip.src, proto: wire.ProtoICMPv6, tos: tos, ttl: defTTL, mtu: wire.IPv6MinMTU}
	if needsZone(ip.src) {
		o.ifp = ifp
	}
	if q, errno := k.ipOutput(m, &o); errno == 0 {
		q.start()
	}
}

// icmp6Error reports an error about packet m, which stays the caller's, unless RFC 4443, 2.4,
// forbids it, or more errors are due than net.inet.icmp.icmplim allows in a second: BSD's
// icmp6_error.
func (k *Kernel) icmp6Error(ifp *Ifnet, ip *ipHdr, m *mbuf.Mbuf, typ, code uint8, rest uint32) {
	var b [wire.IPv6Len + wire.MaxExtLen + 1]byte
	if !icmp6MayReport(ip, b[:mbuf.Copydata(m, 0, b[:min(ip.len, len(b))])], typ, code) {
		k.Stats.ICMP6.Canterror.Inc()
		return
	}
	// "(f) Finally, in order to limit the bandwidth and forwarding costs incurred by originating
	// ICMPv6 error messages, an IPv6 node MUST limit the rate of ICMPv6 error messages it
	// originates."
	if !k.icmpLimit.take(in6(ip.src), k.now()) {
		k.Stats.ICMP6.Toofreq.Inc()
		return
	}
	src := ip.dst
	if !k.in6Own(ifp, src) {
		// If a packet was sent to a group, or was in transit, the source of the answer is a unicast
		// address of the node (2.2): of the interface at which the sender's packets arrive, as
		// traceroute should show it.
		if src = ifp.in6Selectsrc(ip.src); !src.IsValid() {
			return
		}
	}
	k.Stats.ICMP6.Error.Inc()
	// "(c) Every ICMPv6 error message (type < 128) MUST include as much of the IPv6 offending
	// (invoking) packet (the packet that caused the error) as possible without making the error
	// message packet exceed the minimum IPv6 MTU".
	n := min(ip.len, wire.IPv6MinMTU-wire.IPv6Len-wire.ICMPLen)
	h := k.pool.Gethdr()
	h.Extend(wire.ICMPLen)
	wire.ICMP{Type: typ, Code: code, Rest: rest}.Put(h.Bytes())
	h.SetNext(mbuf.Copym(m, 0, n))
	h.Pkt.Len = wire.ICMPLen + n
	k.icmp6Send(h, ip, src, ifp, 0)
}

// icmp6MayReport reports whether a node may send an error of this type about packet ip, of which p
// is the beginning: RFC 4443, 2.4 (e).
func icmp6MayReport(ip *ipHdr, p []byte, typ, code uint8) bool {
	// "An ICMPv6 error message MUST NOT be originated as a result of receiving the following: (e.3)
	// A packet destined to an IPv6 multicast address. (There are two exceptions to this rule: (1)
	// the Packet Too Big Message (Section 3.2) to allow Path MTU discovery to work for IPv6
	// multicast, and (2) the Parameter Problem Message, Code 2 (Section 3.4) reporting an
	// unrecognized IPv6 option (see Section 4.2 of [IPv6]) that has the Option Type highest-order
	// two bits set to 10)."
	if ip.dst.IsMulticast() && typ != wire.ICMPv6PacketTooBig &&
		(typ != wire.ICMPv6ParamProb || code != wire.ICMPv6ParamOption) {
		return false
	}
	// "(e.6) A packet whose source address does not uniquely identify a single node".
	if ip.src.IsUnspecified() || ip.src.IsMulticast() {
		return false
	}
	// "(e.1) An ICMPv6 error message. (e.2) An ICMPv6 redirect message". A fragment of an ICMPv6
	// message may belong to one.
	proto, off, ok := wire.UpperLayer(p)
	return proto != wire.ProtoICMPv6 || ok && p[off]&wire.ICMPv6Info != 0 && p[off] != wire.ICMPv6Redirect
}

// icmp6Deliver gives an error to the protocol whose packet it quotes: the deliver part of BSD's
// icmp6_notify_error, with inet6ctlerrmap.
func (k *Kernel) icmp6Deliver(by *ipHdr, ic wire.ICMP, orig []byte) {
	k.Stats.ICMP6.Inerror.Inc()
	ip, ok := wire.ViewIPv6(orig)
	if !ok {
		k.Stats.ICMP6.Badlen.Inc()
		return
	}
	proto, off, ok := wire.UpperLayer(orig)
	if !ok || len(orig)-off < 8 {
		k.Stats.ICMP6.Badlen.Inc()
		return
	}
	e := icmpError{
		t:    tuple{laddr: in6(ip.Src()), faddr: in6(ip.Dst())},
		from: by.src, typ: ic.Type, code: ic.Code, rest: ic.Rest,
	}
	if ic.Type == wire.ICMPv6PacketTooBig && ic.Rest < wire.IPv6MinMTU {
		// RFC 8201, 4: "If a node receives a Packet Too Big message reporting a next-hop MTU that
		// is less than the IPv6 minimum link MTU, it must discard it."
		k.Stats.ICMP6.Badpmtu.Inc()
		return
	}
	if !e.classify6(ic) {
		return
	}
	if p := pffindproto(AF_INET6, int(proto)); p != nil && p.ctlinput != nil {
		e.setQuote(orig[off:])
		p.ctlinput(k, &e)
	}
}

// classify6 is classify for ICMPv6.
func (e *icmpError) classify6(ic wire.ICMP) bool {
	switch ic.Type {
	case wire.ICMPv6Unreach:
		switch ic.Code {
		case wire.ICMPv6UnreachAdmin, wire.ICMPv6UnreachPort, wire.ICMPv6UnreachPolicy, wire.ICMPv6UnreachReject:
			// RFC 9293, 3.9.2.2, counts codes 1 and 4 as hard errors: see classify. RFC 4443, 3.1:
			// "Codes 5 and 6 are more informative subsets of code 1."
			e.errno, e.hard = syscall.ECONNREFUSED, true
		case wire.ICMPv6UnreachNoRoute, wire.ICMPv6UnreachBeyondScope, wire.ICMPv6UnreachAddr:
			e.errno = syscall.EHOSTUNREACH
		default:
			return false
		}
		return true
	case wire.ICMPv6PacketTooBig:
		e.mtu = int(min(ic.Rest, wire.MaxPacket))
		return true
	case wire.ICMPv6Timxceed:
		e.errno, e.hard = syscall.EHOSTUNREACH, true
		return ic.Code == wire.ICMPv6TimxceedIntrans
	case wire.ICMPv6ParamProb:
		e.errno, e.hard = syscall.ECONNREFUSED, true
		return ic.Code == wire.ICMPv6ParamNextHeader
	}
	return false
}
