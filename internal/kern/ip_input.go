package kern

import (
	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
)

// IPStats are the counters of IP: BSD's struct ipstat.
type IPStats struct {
	Total, Badsum, Tooshort, Badhlen, Badlen, Badvers, Badoptions, Badaddr, Cantforward tcp.Counter
	Fragments, Fragdropped, Fragtimeout, Reassembled, Delivered, Noproto                tcp.Counter
	Localout, Noroute, Fragmented, Ofragments                                           tcp.Counter
}

// ipintr takes a packet that has arrived on an interface, the chain included: 4.4BSD's ipintr. When
// it returns all that follows has been done, except for packets that wait on queues; the caller
// drains them.
func (k *Kernel) ipintr(ifp *Ifnet, m *mbuf.Mbuf) {
	k.Stats.IP.Total.Inc()
	if m.Pkt.Arrived == 0 {
		m.Pkt.Arrived = k.now()
	}
	plen := m.Pkt.Len
	if m = mbuf.Pullup(m, min(wire.IPv4MinLen, plen)); m == nil {
		k.Stats.IP.Tooshort.Inc()
		return
	}
	var ip wire.IPv4
	if m.Pkt.Csum&mbuf.CsumValid != 0 {
		ip = ipHeader(m.Bytes(), plen) // our own loopback's
	} else {
		var err error
		ip, err = wire.ParseIPv4(m.Bytes(), plen)
		if err != nil || !k.ipAcceptable(ifp, &ip, m) {
			k.countBad(err)
			mbuf.Free(m)
			return
		}
		if ip.Len < plen { // padding
			pkt := m.Pkt
			m = mbuf.Adj(m, ip.Len-plen)
			m.Pkt = pkt
			m.Pkt.Len = ip.Len
		}
	}
	if ip.Flags&wire.IPMF != 0 || ip.Off != 0 {
		k.Stats.IP.Fragments.Inc()
		m.Pkt.Csum &= mbuf.CsumValid // what a link says of a fragment holds for that alone, not for the datagram
		m.Pkt.SegSize = 0
		if m = k.reass.input(ifp, &ip, m); m == nil {
			return
		}
	}
	k.Stats.IP.Delivered.Inc()
	if p := pffindproto(AF_INET, int(ip.Proto)); p != nil && p.input != nil {
		p.input(k, ip, m, ifp)
		return
	}
	k.Stats.IP.Noproto.Inc()
	k.icmpError(ifp, &ip, m, wire.ICMPUnreach, wire.ICMPUnreachProtocol, 0)
	mbuf.Free(m)
}

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

// ipHeader reads a header that this stack has written. The length of a chain may be more than the
// field can say.
func ipHeader(p []byte, plen int) wire.IPv4 {
	v := wire.IPv4View(p)
	return wire.IPv4{
		Src: v.Src(), Dst: v.Dst(), Hlen: v.Hlen(), Len: plen, TOS: v.TOS(), ID: v.ID(),
		Flags: v.Flags(), Off: v.Off(), TTL: v.TTL(), Proto: v.Proto(),
	}
}

// ipAcceptable applies RFC 1122, 3.2.1.3, to a packet from a wire: it is for us, from an address
// that a host can have, and without a source route (RFC 7126, 4.3 and 4.4).
func (k *Kernel) ipAcceptable(ifp *Ifnet, ip *wire.IPv4, m *mbuf.Mbuf) bool {
	src, dst := ip.Src, ip.Dst
	if src.IsLoopback() || dst.IsLoopback() {
		return ifp.loopback
	}
	if src.IsMulticast() || ifp.broadcast(src) || ip.Src.IsUnspecified() || src.As4()[0] >= 240 {
		return false
	}
	if !ifp.loopback && k.ifaWithAddr(src) != nil {
		return false // our own address from outside (LAND)
	}
	if k.ifaWithAddr(dst) == nil && !ifp.broadcast(dst) && !dst.IsMulticast() {
		k.Stats.IP.Cantforward.Inc() // a host, not a router
		return false
	}
	return k.ipDooptions(m.Bytes()[wire.IPv4MinLen:ip.Hlen])
}

// ipDooptions passes over options; it refuses source routes and malformed ones: BSD's ip_dooptions.
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
