package kern

import (
	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// frag6Input takes an IPv6 fragment, and its chain over: BSD's frag6_input. If the fragment
// completes its datagram, frag6Input returns the datagram, without fragment header, and changes h
// to say its length; else nil. ip_reass.go holds what waits. RFC 8200, 4.5, has the rules that are
// quoted here.
func (k *Kernel) frag6Input(ifp *Ifnet, h *ipHdr, x *wire.Ext, m *mbuf.Mbuf) *mbuf.Mbuf {
	n := h.len - x.Hlen
	code, at, ok := uint8(wire.ICMPv6ParamHeader), 0, true
	switch {
	case n == 0: // it brings nothing, and none of the cases below
		at, ok = -1, false
	case x.More && n%8 != 0:
		// "If the length of a fragment, as derived from the fragment packet's Payload Length field,
		// is not a multiple of 8 octets and the M flag of that fragment is 1, then that fragment
		// must be discarded and an ICMP Parameter Problem, Code 0, message should be sent to the
		// source of the fragment, pointing to the Payload Length field of the fragment packet."
		at, ok = 4, false
	case x.Hlen-wire.IPv6Len-wire.FragmentLen+x.Off+n > wire.MaxPacket:
		// "If the length and offset of a fragment are such that the Payload Length of the packet
		// reassembled from that fragment would exceed 65,535 octets, then that fragment must be
		// discarded and an ICMP Parameter Problem, Code 0, message should be sent to the source of
		// the fragment, pointing to the Fragment Offset field of the fragment packet."
		at, ok = x.Hlen-wire.FragmentLen+2, false
	case x.Off == 0 && !firstWhole(m, h.len):
		// "If the first fragment does not include all headers through an Upper-Layer header, then
		// that fragment should be discarded and an ICMP Parameter Problem, Code 3, message should
		// be sent to the source of the fragment, with the Pointer field set to zero."
		code, ok = wire.ICMPv6ParamChain, false
	}
	if !ok {
		k.Stats.IP6.Fragdropped.Inc()
		if at >= 0 {
			k.icmp6Error(ifp, h, m, wire.ICMPv6ParamProb, code, uint32(at))
		}
		mbuf.Free(m)
		return nil
	}
	// If a link has verified a fragment's checksum, the datagram's is still unknown.
	m.Pkt.Csum &= mbuf.CsumValid
	m.Pkt.SegSize = 0
	q := k.reass.add(&fragment{
		fragKey: fragKey{src: in6(h.src), dst: in6(h.dst), id: x.ID},
		ifp:     ifp, m: m, hlen: x.Hlen, off: x.Off, n: n, more: x.More, tos: h.tos, fragAt: x.FragAt,
	})
	if q == nil {
		return nil
	}
	k.Stats.IP6.Reassembled.Inc()
	// "The Next Header field of the last header of the Per-Fragment headers is obtained from the
	// Next Header field of the first fragment's Fragment header."
	last := len(q.hdr) - wire.FragmentLen
	q.hdr[q.fragAt] = q.hdr[last]
	m = q.join(&k.pool, q.hdr[:last])
	wire.IPv6View(m.Bytes()).SetLen(m.Pkt.Len)
	h.len, h.tos = m.Pkt.Len, q.tos
	return m
}

// firstWhole reports whether the first fragment of a datagram, of n bytes, has all headers through
// that of the upper layer (RFC 7112, 5). Without them, no filter can see what the datagram is.
func firstWhole(m *mbuf.Mbuf, n int) bool {
	var b [wire.IPv6Len + wire.MaxExtLen + wire.TCPMinLen]byte
	p := b[:mbuf.Copydata(m, 0, b[:min(n, len(b))])]
	proto, off, ok := wire.UpperLayer(p)
	need := 1
	switch proto {
	case wire.ProtoTCP:
		need = wire.TCPMinLen
	case wire.ProtoUDP, wire.ProtoICMPv6:
		need = 8
	}
	return ok && len(p)-off >= need
}
