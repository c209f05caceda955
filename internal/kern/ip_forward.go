package kern

import (
	"net"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// Forwarding of IPv4: what makes a router of a stack (RFC 1812). It is off unless
// net.inet.ip.forwarding is set. A router neither reassembles packets in transit nor sends
// redirects: its links have two ends and no other routers that a host could use instead (RFC 1812,
// 5.2.7.2, lets it send them only about a path over the network that the packet came from).

// ipForward sends a packet that is for another host on its way, and takes over its chain: BSD's
// ip_forward. The interface sends it when ipForwardStart is called, after the batch to which the
// packet belongs.
func (k *Kernel) ipForward(ifp *Ifnet, ip *wire.IPv4, m *mbuf.Mbuf) {
	s := &k.Stats.IP
	if !k.ipForwardable(ip) {
		s.Cantforward.Inc()
		mbuf.Free(m)
		return
	}
	if ip.TTL <= 1 {
		// RFC 1812, 5.3.1: "If the TTL is reduced to zero (or less), the packet MUST be discarded,
		// and if the destination is not a multicast address the router MUST send an ICMP Time
		// Exceeded message". This is also what ends a loop.
		k.ipForwardError(ifp, ip, m, wire.ICMPTimxceed, wire.ICMPTimxceedIntrans, 0)
		return
	}
	out, _, errno := k.rtalloc(ip.Dst, ip.Src)
	switch {
	case errno != 0:
		s.Noroute.Inc()
		k.ipForwardError(ifp, ip, m, wire.ICMPUnreach, wire.ICMPUnreachNet, 0)
		return
	case out.down.Load():
		s.Noroute.Inc()
		k.ipForwardError(ifp, ip, m, wire.ICMPUnreach, wire.ICMPUnreachHost, 0)
		return
	case out.loopback || out.broadcast(ip.Dst):
		// A packet to a whole network would be multiplied there, so routers do not let it in from
		// outside (RFC 2644, 2).
		s.Cantforward.Inc()
		mbuf.Free(m)
		return
	}
	fragment := ip.Flags&wire.IPMF != 0 || ip.Off != 0
	if fragment {
		m.Pkt.Csum, m.Pkt.SegSize = 0, 0 // the headers of a fragment say nothing about its datagram
	}
	size := forwardSize(m, ip.Hlen, ip.Len)
	if size > out.mtu && ip.Flags&wire.IPDF != 0 {
		// RFC 1191, 4: the message has the MTU of the next hop in its second word.
		s.Cantfrag.Inc()
		k.ipForwardError(ifp, ip, m, wire.ICMPUnreach, wire.ICMPUnreachNeedfrag, uint32(out.mtu))
		return
	}
	wire.IPv4View(m.Bytes()).DecTTL()
	s.Forward.Inc()
	if len(out.queues) > 1 {
		h := ipHdr{src: ip.Src, dst: ip.Dst, hlen: ip.Hlen}
		m.Pkt.Flow = k.forwardFlow(&h, m, fragment)
	}
	if size > out.mtu {
		k.ipForwardCut(out, m)
		return
	}
	if !k.forwardOutput(out, m) {
		s.Odropped.Inc()
	}
}

// ipForwardable reports whether a packet, which ipAcceptable has accepted, may be forwarded
// according to its addresses.
func (k *Kernel) ipForwardable(ip *wire.IPv4) bool {
	for _, a := range [...][4]byte{ip.Src.As4(), ip.Dst.As4()} {
		// RFC 1812, 5.3.7: a router should not forward a packet whose source or destination is on
		// network 0, 127 or in class E, and has no routes for multicast here. RFC 3927, 7: a router
		// must not forward a packet with a link-local address, whatever its TTL.
		if a[0] == 0 || a[0] == 127 || a[0] >= 224 || a[0] == 169 && a[1] == 254 {
			return false
		}
	}
	for _, o := range *k.ifs.Load() {
		// The source would be a broadcast address on the way back.
		if o.broadcast(ip.Src) {
			return false
		}
	}
	return true
}

// ipForwardError tells the sender of a packet in transit why it has not been forwarded, and frees
// the packet.
func (k *Kernel) ipForwardError(ifp *Ifnet, ip *wire.IPv4, m *mbuf.Mbuf, typ, code uint8, rest uint32) {
	// RFC 1812, 4.3.2.3: "the ICMP datagram SHOULD contain as much of the original datagram as
	// possible without the length of the ICMP datagram exceeding 576 bytes."
	var b [576 - wire.IPv4MinLen - wire.ICMPLen]byte
	got := b[:mbuf.Copydata(m, 0, b[:])]
	if n := forwardSize(m, ip.Hlen, ip.Len); n < ip.Len {
		showFirst(got, ip.Hlen, n)
		got = got[:min(len(got), n)]
	}
	k.icmpSendError(ifp, &ipHdr{src: ip.Src, dst: ip.Dst, hlen: ip.Hlen}, got, typ, code, rest)
	mbuf.Free(m)
}

// showFirst sets the lengths in the headers of a chain of segments, which begins with p, to those
// of its first one, which has n bytes: its sender has sent segments. forwardSize has checked that p
// has the headers.
func showFirst(p []byte, iphl, n int) {
	ip := wire.IPView(p)
	ip.SetLen(n)
	if ip.Proto() == wire.ProtoUDP {
		wire.UDPView(p[iphl:]).SetLen(n - iphl)
	}
}

// headersLen returns the length of the headers of a packet that begins with p: IP's, which is iphl
// bytes long and has no extension headers, and TCP's or UDP's. It reports false if p does not hold
// both.
func headersLen(p []byte, iphl int) (hl int, ok bool) {
	if len(p) < iphl {
		return 0, false
	}
	th := p[iphl:]
	switch wire.IPView(p).Proto() {
	case wire.ProtoTCP:
		if len(th) < wire.TCPMinLen {
			return 0, false
		}
		n := wire.TCPView(th).Hlen()
		return iphl + n, n >= wire.TCPMinLen && len(th) >= n
	case wire.ProtoUDP:
		return iphl + wire.UDPLen, len(th) >= wire.UDPLen
	}
	return 0, false
}

// forwardSize prepares a packet in transit for the cutter, and returns the length of the largest
// packet that will be on the wire. A link or gro may have merged segments; they leave as they were.
// plen is the length of the packet, which is no fragment if it holds segments.
func forwardSize(m *mbuf.Mbuf, iphl, plen int) int {
	if m.Pkt.SegSize == 0 {
		return plen
	}
	hl, ok := headersLen(m.Bytes(), iphl)
	if !ok || hl+m.Pkt.SegSize >= plen {
		m.Pkt.SegSize = 0
		return plen
	}
	// The sum of the whole has been verified, or does not exist, and each segment needs its own.
	m.Pkt.Csum |= mbuf.CsumPartial
	return hl + m.Pkt.SegSize
}

// forwardFlow returns the hash of a packet's flow, which chooses the queue. All fragments of a
// datagram have the same, so they do not overtake each other.
func (k *Kernel) forwardFlow(ip *ipHdr, m *mbuf.Mbuf, fragment bool) uint32 {
	t := tuple{laddr: in6(ip.src), faddr: in6(ip.dst)}
	if _, ok := headersLen(m.Bytes(), ip.hlen); ok && !fragment {
		th := wire.TCPView(m.Bytes()[ip.hlen:]) // ports are in the same place in each transport
		t.lport, t.fport = th.Sport(), th.Dport()
	}
	return t.flow(k.seed.hash)
}

// forwardOutput puts a packet on an interface's queue, which ipForwardStart starts. It reports
// false if the queue is full, as under a flood. RFC 1812, 4.3.3.3: "A router SHOULD NOT originate
// ICMP Source Quench messages."
func (k *Kernel) forwardOutput(out *Ifnet, m *mbuf.Mbuf) bool {
	q, errno := out.output(m, nil)
	if errno != 0 {
		return false
	}
	q.forwarded.Store(true)
	k.forwarded.Store(true)
	return true
}

// ipForwardStart sends the packets that ipForward has put on queues: what schednetisr is to BSD's
// input. So the packets of a batch leave together, and not in a call of the link for each.
func (k *Kernel) ipForwardStart() {
	if !k.forwarded.Load() || !k.forwarded.Swap(false) {
		return
	}
	for _, ifp := range *k.ifs.Load() {
		for i := range ifp.queues {
			if q := &ifp.queues[i]; q.forwarded.Load() && q.forwarded.Swap(false) {
				q.start()
			}
		}
	}
}

// ipForwardCut cuts a packet into fragments for an interface with a smaller MTU. If the packet
// holds segments, each of them is cut.
func (k *Kernel) ipForwardCut(out *Ifnet, m *mbuf.Mbuf) {
	if m.Pkt.SegSize == 0 {
		k.ipForwardFragment(out, m)
		return
	}
	var (
		c    cutter
		hbuf []byte
		bufs net.Buffers
	)
	for c.start(m, false, false); c.more(); {
		hbuf, bufs = c.next(hbuf[:0], bufs[:0])
		seg := k.pool.Getcl(len(hbuf) + m.Pkt.SegSize)
		seg.Pkt.Flow = m.Pkt.Flow
		for _, b := range bufs {
			seg.Pkt.Len += seg.Append(b)
		}
		if !k.ipForwardFragment(out, seg) {
			break
		}
	}
	mbuf.Free(m)
}

// ipForwardFragment cuts one packet, which may be a fragment itself. It reports whether the queue
// had room for all of it.
func (k *Kernel) ipForwardFragment(out *Ifnet, m *mbuf.Mbuf) bool {
	defer mbuf.Free(m)
	var hdr [wire.IPv4MaxLen]byte
	v := wire.IPv4View(hdr[:copy(hdr[:], m.Bytes()[:wire.IPv4View(m.Bytes()).Hlen()])])
	if m.Pkt.Csum&mbuf.CsumPartial != 0 {
		fillCsum(m)
	}
	hlen, first := len(v), v.Off()
	more := v.Flags()&wire.IPMF != 0
	total, flow := m.Pkt.Len-hlen, m.Pkt.Flow
	for off := 0; off < total; {
		n := min((out.mtu-len(v))&^7, total-off)
		h := k.pool.Gethdr()
		h.SetNext(mbuf.Copym(m, hlen+off, n))
		h.Pkt.Len, h.Pkt.Flow = n, flow
		v.SetFragment(first+off, more || off+n < total)
		v.SetLen(len(v) + n)
		copy(h.Prepend(len(v)), v)
		k.Stats.IP.Ofragments.Inc()
		if !k.forwardOutput(out, h) {
			k.Stats.IP.Odropped.Inc()
			return false // without this fragment the others are of no use
		}
		if off == 0 {
			v = ipOptcopy(v)
		}
		off += n
	}
	k.Stats.IP.Fragmented.Inc()
	return true
}

// fillCsum computes the transport checksum of a packet in its place. The packet is one segment, and
// has arrived on a link with offloads.
func fillCsum(m *mbuf.Mbuf) {
	var c cutter
	c.start(m, false, false)
	h, _ := c.next(nil, nil)
	copy(m.Bytes(), h)
	m.Pkt.Csum &^= mbuf.CsumPartial
}

// ipOptcopy removes from a header the options that only the first fragment of a datagram has: BSD's
// ip_optcopy. RFC 791, 3.1: an option's first bit says whether it is copied into all fragments.
func ipOptcopy(v wire.IPv4View) wire.IPv4View {
	const eol, nop = 0, 1
	n := wire.IPv4MinLen
	for p := v[n:]; len(p) > 0 && p[0] != eol; {
		size := 1
		if p[0] != nop {
			size = int(p[1]) // ipDooptions has checked it
		}
		if p[0]&0x80 != 0 {
			n += copy(v[n:], p[:size])
		}
		p = p[size:]
	}
	for ; n%4 != 0; n++ {
		v[n] = eol
	}
	v[0] = 4<<4 | byte(n/4)
	return v[:n]
}
