package kern

import (
	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
)

// IP6Stats are the counters of IPv6: FreeBSD's struct ip6stat.
type IP6Stats struct {
	Total, Tooshort, Badlen, Badaddr, Badoptions, Toomanyhdr, Notmember, Cantforward tcp.Counter
	Fragments, Fragdropped, Fragtimeout, Reassembled, Delivered, Noproto             tcp.Counter
	Localout, Noroute, Fragmented, Ofragments, Forward, Cantfrag, Odropped           tcp.Counter
	Fullsock                                                                         tcp.Counter
}

// ip6Input takes an IPv6 packet from ipintr, and takes over its chain: BSD's ip6_input.
func (k *Kernel) ip6Input(ifp *Ifnet, m *mbuf.Mbuf) {
	st := &k.Stats.IP6
	var h ipHdr
	if m = k.ip6Check(ifp, &h, m); m == nil {
		return
	}
	at := 6 // where the packet says what its protocol is
	p := pffindproto(AF_INET6, int(h.proto))
	if p == nil {
		if m, at = k.ip6Exthdrs(ifp, &h, m); m == nil {
			return
		}
		p = pffindproto(AF_INET6, int(h.proto))
	}
	st.Delivered.Inc()
	raw := k.raw.n.Load() > 0 && k.ripInput(&h, m, ifp)
	switch {
	case p != nil && p.input != nil:
		p.input(k, h, m, ifp)
		return
	case h.proto != wire.ProtoNone && !raw:
		// RFC 8200, 4: "If, as a result of processing a header, the destination node is required to
		// proceed to the next header but the Next Header value in the current header is
		// unrecognized by the node, it should discard the packet and send an ICMP Parameter Problem
		// message to the source of the packet, with an ICMP Code value of 1".
		st.Noproto.Inc()
		k.icmp6Error(ifp, &h, m, wire.ICMPv6ParamProb, wire.ICMPv6ParamNextHeader, uint32(at))
	}
	mbuf.Free(m)
}

// ip6Check is the part of ip6Input before the extension headers: it checks the header, fills in h,
// and returns the chain, or nil if the packet goes no further. See ipCheck.
func (k *Kernel) ip6Check(ifp *Ifnet, h *ipHdr, m *mbuf.Mbuf) *mbuf.Mbuf {
	st := &k.Stats.IP6
	st.Total.Inc()
	plen := m.Pkt.Len
	if m = mbuf.Pullup(m, min(wire.IPv6Len, plen)); m == nil {
		st.Tooshort.Inc()
		return nil
	}
	ip, err := wire.ParseIPv6(m.Bytes(), plen)
	if m.Pkt.Csum&mbuf.CsumValid != 0 {
		ip.Len = plen // this stack has written the header, and the field may be too small for the length
	} else {
		if err != nil || !k.in6Acceptable(ifp, &ip) {
			k.countBad6(err)
			mbuf.Free(m)
			return nil
		}
		// The payload length says where the packet ends: see ipintr.
		if ip.Len < plen {
			m = mbuf.Adj(m, ip.Len-plen)
			m.Pkt.Len = ip.Len
		}
		if !k.in6Ours(ifp, ip.Dst) {
			switch {
			case ip.Dst.IsMulticast():
				st.Notmember.Inc()
			case k.ip6forwarding.Load():
				k.ip6Forward(ifp, &ip, m)
				return nil
			default:
				st.Cantforward.Inc()
			}
			mbuf.Free(m)
			return nil
		}
	}
	*h = ipHdr{
		src: ip.Src, dst: ip.Dst, hlen: wire.IPv6Len, len: ip.Len, tos: ip.Class, ttl: ip.Hlim, proto: ip.Next,
	}
	return m
}

// countBad6 counts a packet that ParseIPv6 has refused with err, or in6Acceptable if err is nil.
func (k *Kernel) countBad6(err error) {
	s := &k.Stats.IP6
	switch err {
	case nil:
		s.Badaddr.Inc()
	case wire.ErrLength:
		s.Badlen.Inc()
	default:
		s.Tooshort.Inc()
	}
}

// ip6Exthdrs reads the extension headers of packet m, and puts a datagram together if they say that
// the packet is a fragment. It changes h to describe what lies behind them, and returns the chain,
// which begins with the IPv6 header, and the offset of the field that names the protocol. If the
// packet goes no further, it returns nil. The compiler must not inline it, as few packets have such
// headers.
//
//go:noinline
func (k *Kernel) ip6Exthdrs(ifp *Ifnet, h *ipHdr, m *mbuf.Mbuf) (*mbuf.Mbuf, int) {
	var b [wire.IPv6Len + wire.MaxExtLen]byte
	whole := false
	for {
		x, e := wire.ParseExt(b[:mbuf.Copydata(m, 0, b[:min(h.len, len(b))])], whole)
		if e.Fault != wire.ExtOK {
			k.ip6Badext(ifp, h, m, e)
			return nil, 0
		}
		h.hlen, h.proto = x.Hlen, x.Proto
		if x.FragAt == 0 {
			return m, x.ProtoAt
		}
		k.Stats.IP6.Fragments.Inc()
		if m = k.frag6Input(ifp, h, &x, m); m == nil {
			return nil, 0
		}
		whole = true
	}
}

// ip6Badext discards a packet whose extension headers are at fault, and tells its sender if RFC
// 8200 has it told.
func (k *Kernel) ip6Badext(ifp *Ifnet, h *ipHdr, m *mbuf.Mbuf, e wire.ExtProblem) {
	switch e.Fault {
	case wire.ExtShort:
		k.Stats.IP6.Tooshort.Inc()
	case wire.ExtLimit:
		k.Stats.IP6.Toomanyhdr.Inc()
	default:
		k.Stats.IP6.Badoptions.Inc()
	}
	if e.Fault == wire.ExtParam || e.Fault == wire.ExtParamUnicast && !h.dst.IsMulticast() {
		k.icmp6Error(ifp, h, m, wire.ICMPv6ParamProb, e.Code, uint32(e.At))
	}
	mbuf.Free(m)
}
