package kern

import (
	"net/netip"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
)

// IPStats are the counters of IP: BSD's struct ipstat.
type IPStats struct {
	Total, Badsum, Tooshort, Badhlen, Badlen, Badvers, Badoptions, Badaddr, Cantforward tcp.Counter
	Fragments, Fragdropped, Fragtimeout, Reassembled, Delivered, Noproto                tcp.Counter
	Localout, Noroute, Fragmented, Ofragments, Forward, Cantfrag, Odropped              tcp.Counter
	Fullsock                                                                            tcp.Counter
}

// ipintr takes a packet of either family that has arrived on an interface, and takes over its
// chain: 4.4BSD's ipintr. When it returns, all that the packet brings about has been done, except
// that packets wait on queues, which the caller drains.
func (k *Kernel) ipintr(ifp *Ifnet, m *mbuf.Mbuf) {
	if m.Pkt.Arrived == 0 {
		m.Pkt.Arrived = k.now()
	}
	if b := m.Bytes(); len(b) > 0 && b[0]>>4 == 6 {
		k.ip6Input(ifp, m)
		return
	}
	var h ipHdr
	if m = k.ipCheck(ifp, &h, m); m == nil {
		return
	}
	k.Stats.IP.Delivered.Inc()
	raw := k.raw.n.Load() > 0 && k.ripInput(&h, m, ifp)
	if p := pffindproto(AF_INET, int(h.proto)); p != nil && p.input != nil {
		p.input(k, h, m, ifp)
		return
	}
	if !raw {
		// RFC 1122, 3.2.2.1: a host sends Protocol Unreachable if it does not support the transport
		// protocol.
		k.Stats.IP.Noproto.Inc()
		k.icmpError(ifp, &h, m, wire.ICMPUnreach, wire.ICMPUnreachProtocol, 0)
	}
	mbuf.Free(m)
}

// ipCheck is the part of ipintr before a protocol gets the packet: it checks the header, puts
// fragments together, and forwards what is for others. It fills in h and returns the chain, or nil
// if the packet goes no further. It is a function of its own so that its variables are off the
// stack before the protocol is called.
func (k *Kernel) ipCheck(ifp *Ifnet, h *ipHdr, m *mbuf.Mbuf) *mbuf.Mbuf {
	k.Stats.IP.Total.Inc()
	plen := m.Pkt.Len
	if m = mbuf.Pullup(m, min(wire.IPv4MinLen, plen)); m == nil {
		k.Stats.IP.Tooshort.Inc()
		return nil
	}
	var ip wire.IPv4
	if m.Pkt.Csum&mbuf.CsumValid != 0 {
		ip = ipHeader(m.Bytes(), plen) // this stack has written the header
	} else {
		var err error
		// RFC 1122, 3.2.1.1: "A datagram whose version number is not 4 MUST be silently discarded."
		// 3.2.1.2: "A host MUST verify the IP header checksum on every received datagram and
		// silently discard every datagram that has a bad checksum."
		ip, err = wire.ParseIPv4(m.Bytes(), plen)
		if err != nil || !k.ipAcceptable(ifp, &ip, m) {
			k.countBad(err)
			mbuf.Free(m)
			return nil
		}
		// A link whose packets have a minimal length pads short ones. The total length says where
		// the datagram ends (RFC 894).
		if ip.Len < plen {
			m = mbuf.Adj(m, ip.Len-plen)
			m.Pkt.Len = ip.Len
		}
		if !k.ipOurs(ifp, ip.Dst) {
			if k.ipforwarding.Load() {
				k.ipForward(ifp, &ip, m)
				return nil
			}
			// RFC 1122, 3.2.1.3: "A host MUST silently discard an incoming datagram that is not
			// destined for the host."
			k.Stats.IP.Cantforward.Inc()
			mbuf.Free(m)
			return nil
		}
	}
	if ip.Flags&wire.IPMF != 0 || ip.Off != 0 {
		k.Stats.IP.Fragments.Inc()
		// If a link has verified a fragment's checksum, the datagram's is still unknown.
		m.Pkt.Csum &= mbuf.CsumValid
		m.Pkt.SegSize = 0
		if m = k.reass.input(ifp, &ip, m); m == nil {
			return nil
		}
	}
	*h = ipHdr{src: ip.Src, dst: ip.Dst, hlen: ip.Hlen, len: ip.Len, tos: ip.TOS, ttl: ip.TTL, proto: ip.Proto}
	return m
}

// countBad counts a packet that ParseIPv4 has refused with err, or ipAcceptable if err is nil.
func (k *Kernel) countBad(err error) {
	s := &k.Stats.IP
	switch err {
	case nil:
		s.Badaddr.Inc()
	case wire.ErrChecksum:
		s.Badsum.Inc()
	case wire.ErrVersion:
		s.Badvers.Inc()
	case wire.ErrLength:
		s.Badlen.Inc()
	default:
		s.Tooshort.Inc()
	}
}

// ipHeader reads a header that this stack has written. plen is the length of the packet, as the
// length of a chain over the loopback may be more than the header's field can hold.
func ipHeader(p []byte, plen int) wire.IPv4 {
	v := wire.IPv4View(p)
	return wire.IPv4{
		Src: v.Src(), Dst: v.Dst(), Hlen: v.Hlen(), Len: plen, TOS: v.TOS(), ID: v.ID(),
		Flags: v.Flags(), Off: v.Off(), TTL: v.TTL(), Proto: v.Proto(),
	}
}

// ipOurs reports whether a packet to dst that has arrived on ifp is for this host, among others
// perhaps.
func (k *Kernel) ipOurs(ifp *Ifnet, dst netip.Addr) bool {
	return ifp.broadcast(dst) || dst.IsMulticast() || k.ifaWithAddr(dst) != nil
}

// ipAcceptable reports whether a packet from a wire comes from an address that a host can have, and
// bears no source route: RFC 1122, 3.2.1.3; RFC 7126, 4.3 and 4.4.
func (k *Kernel) ipAcceptable(ifp *Ifnet, ip *wire.IPv4, m *mbuf.Mbuf) bool {
	src, dst := ip.Src, ip.Dst
	// Of 127.0.0.0/8: "Addresses of this form MUST NOT appear outside a host."
	if src.IsLoopback() || dst.IsLoopback() {
		return ifp.loopback
	}
	// "A host MUST silently discard an incoming datagram containing an IP source address that is
	// invalid by the rules of this section." The addresses from 240.0.0.0 on are reserved.
	if src.IsMulticast() || ifp.broadcast(src) || ip.Src.IsUnspecified() || src.As4()[0] >= 240 {
		return false
	}
	if !ifp.loopback && k.ifaWithAddr(src) != nil {
		// A packet with our own address as its source has been forged: this host's packets to
		// itself go over the loopback. A SYN of this kind would have a connection talk to itself
		// (the LAND attack).
		return false
	}
	return k.ipDooptions(m.Bytes()[wire.IPv4MinLen:ip.Hlen])
}

// ipDooptions reports whether the options of a packet are acceptable: BSD's ip_dooptions. RFC 1122,
// 3.2.1.8: a host passes over options that it does not understand. Malformed options are refused,
// and source routes, which let a sender have a packet that it has forged answered along a path of
// its choice.
func (k *Kernel) ipDooptions(p []byte) bool {
	const eol, nop, lsrr, ssrr = 0, 1, 131, 137
	for len(p) > 0 && p[0] != eol {
		if p[0] == nop {
			p = p[1:]
			continue
		}
		if len(p) < 2 || p[1] < 2 || int(p[1]) > len(p) || p[0] == lsrr || p[0] == ssrr {
			k.Stats.IP.Badoptions.Inc()
			return false
		}
		p = p[p[1]:]
	}
	return true
}
