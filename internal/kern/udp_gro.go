package kern

import (
	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// Datagrams of a batch that follow each other from one sender to one receiver, and are of one
// length, except that the last may be shorter, are merged: Linux's UDP_GRO. They are one record of
// the socket's queue, from which readers take one datagram after the other.

// receiveUDP is receive for a packet that groUDP has accepted.
func (g *gro) receiveUDP(k *Kernel, ifp *Ifnet, m *mbuf.Mbuf, iphl, n int) bool {
	hl := iphl + wire.UDPLen
	if g.m != nil && g.extendsUDP(m, hl, n) {
		return g.addUDP(k, m, hl, n)
	}
	g.flush(k, ifp)
	*g = gro{m: m, tail: m, hl: hl, iphl: iphl, seg: n, len: n, udp: true}
	return false
}

// groUDP reports whether m is a datagram that may be merged: it has data, an IP header without
// options, extension headers and marks, and right checksums. It returns the lengths of the IP
// header and of the data.
func groUDP(m *mbuf.Mbuf) (iphl, n int, ok bool) {
	b := m.Bytes()
	ip, ok := wire.ViewIP(b)
	if !ok || ip.Proto() != wire.ProtoUDP {
		return 0, 0, false
	}
	iphl = ip.Hlen()
	n = len(b) - iphl - wire.UDPLen
	if n <= 0 || ip.Len() != len(b) || ip.TOS()&3 == 3 || !ip.Is6() && !groIPv4(b) {
		return 0, 0, false
	}
	uh := wire.UDPView(b[iphl:])
	if uh.Len() != len(uh) || uh.Sum() == 0 {
		return 0, 0, false
	}
	if m.Pkt.Csum&mbuf.CsumVerified == 0 {
		sum := wire.PseudoSum(ip.Src(), ip.Dst(), wire.ProtoUDP, len(uh))
		if wire.Fold(wire.Sum(uh, sum)) != 0xffff {
			return 0, 0, false
		}
	}
	return iphl, n, true
}

// extendsUDP reports whether the datagram can go behind those that have been merged.
func (g *gro) extendsUDP(m *mbuf.Mbuf, hl, n int) bool {
	if !g.udp || g.ended || hl != g.hl || n > g.seg || g.len+n+hl > wire.MaxPacket {
		return false
	}
	a, b := g.m.Bytes(), m.Bytes()
	return string(a[g.iphl:g.iphl+4]) == string(b[g.iphl:g.iphl+4]) && // the ports
		alikeIP(wire.IPView(a), wire.IPView(b))
}

// addUDP is add for a datagram.
func (g *gro) addUDP(k *Kernel, m *mbuf.Mbuf, hl, n int) (copied bool) {
	g.len += n
	g.ended = n < g.seg
	return g.append(k, m, hl, n)
}

// unmerged gives the headers of a packet the lengths back that the first of its datagrams had, for
// an ICMP error that quotes them.
func unmerged(m *mbuf.Mbuf, hlen int) {
	if seg := m.Pkt.SegSize; seg > 0 {
		wire.IPView(m.Bytes()).SetLen(hlen + wire.UDPLen + seg)
		wire.UDPView(m.Bytes()[hlen:]).SetLen(wire.UDPLen + seg)
	}
}
