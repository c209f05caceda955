package kern

import (
	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// Forwarding of IPv6 (RFC 8200; RFC 4443), which is ip_forward.go's twin. It is off unless
// net.inet6.ip6.forwarding is set. As RFC 8200, 4, has it, a router does not look at the extension
// headers of packets in transit. There is no neighbor discovery on links with two ends, so a router
// advertises nothing.

// ip6Forward sends a packet that is for another host on its way, and takes over its chain: BSD's
// ip6_forward. Of the rest see ipForward.
func (k *Kernel) ip6Forward(ifp *Ifnet, ip *wire.IPv6, m *mbuf.Mbuf) {
	s := &k.Stats.IP6
	h := ipHdr{src: ip.Src, dst: ip.Dst, hlen: wire.IPv6Len, len: ip.Len, tos: ip.Class, ttl: ip.Hlim, proto: ip.Next}
	fail := func(typ, code uint8, rest uint32) {
		k.ip6ForwardError(ifp, &h, m, typ, code, rest)
	}
	if needsZone(ip.Dst) || ip.Dst.IsUnspecified() {
		// RFC 4291, 2.5.6: "Routers must not forward any packets with Link-Local source or
		// destination addresses to other links."
		s.Cantforward.Inc()
		mbuf.Free(m)
		return
	}
	if ip.Hlim <= 1 {
		// RFC 4443, 3.3: "If a router receives a packet with a Hop Limit of zero, or if a router
		// decrements a packet's Hop Limit to zero, it MUST discard the packet and originate an
		// ICMPv6 Time Exceeded message with Code 0 to the source of the packet."
		fail(wire.ICMPv6Timxceed, wire.ICMPv6TimxceedIntrans, 0)
		return
	}
	out, _, errno := k.rtalloc(ip.Dst, ip.Src)
	switch {
	case needsZone(ip.Src):
		// RFC 4443, 3.1: "If the reason for the failure to deliver is that the destination is
		// beyond the scope of the source address, the Code field is set to 2."
		s.Cantforward.Inc()
		fail(wire.ICMPv6Unreach, wire.ICMPv6UnreachBeyondScope, 0)
		return
	case errno != 0:
		s.Noroute.Inc()
		fail(wire.ICMPv6Unreach, wire.ICMPv6UnreachNoRoute, 0)
		return
	case out.down.Load():
		s.Noroute.Inc()
		fail(wire.ICMPv6Unreach, wire.ICMPv6UnreachAddr, 0)
		return
	case out.loopback:
		s.Cantforward.Inc()
		mbuf.Free(m)
		return
	}
	if forwardSize(m, wire.IPv6Len, ip.Len) > out.mtu {
		// RFC 4443, 3.2: "A Packet Too Big MUST be sent by a router in response to a packet that it
		// cannot forward because the packet is larger than the MTU of the outgoing link."
		s.Cantfrag.Inc()
		fail(wire.ICMPv6PacketTooBig, 0, uint32(out.mtu))
		return
	}
	wire.IPv6View(m.Bytes()).DecHlim()
	s.Forward.Inc()
	if len(out.queues) > 1 {
		m.Pkt.Flow = k.forwardFlow(&h, m, ip.Next == wire.ProtoFragment)
	}
	if !k.forwardOutput(out, m) {
		s.Odropped.Inc()
	}
}

// ip6ForwardError tells the sender of a packet in transit why it has not been forwarded, and frees
// the packet.
func (k *Kernel) ip6ForwardError(ifp *Ifnet, h *ipHdr, m *mbuf.Mbuf, typ, code uint8, rest uint32) {
	if n := forwardSize(m, wire.IPv6Len, h.len); n < h.len {
		showFirst(m.Bytes(), wire.IPv6Len, n)
		h.len = n
	}
	k.icmp6Error(ifp, h, m, typ, code, rest)
	mbuf.Free(m)
}
