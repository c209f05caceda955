package kern

import (
	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// A gro merges the segments of a batch that follow each other on one connection, so that the
// machine takes a run of them as one segment. It is what LRO does for a BSD. It merges segments
// only if they differ in nothing except sequence number, PUSH and length, so that the machine and
// the cutter can tell what they were.
type gro struct {
	m     *mbuf.Mbuf // the packet that segments are added to; nil: none
	tail  *mbuf.Mbuf
	hl    int // length of its IP and TCP headers
	iphl  int
	next  wire.Seq // the sequence number of the segment that would continue it
	seg   int      // payload of each of its segments, except the last
	len   int      // payload so far
	ended bool     // the last segment was short or had PUSH, so none can follow
	udp   bool     // it is datagrams: see udp_gro.go
	room  bool     // the tail is a cluster of ours, which may have room for more
}

// receive takes a packet of the batch. It reports whether it has copied the packet; if so, the Mbuf
// is still the caller's.
func (g *gro) receive(k *Kernel, ifp *Ifnet, m *mbuf.Mbuf) bool {
	iphl, hl, n, ok := groHeader(m)
	if !ok && m.Pkt.SegSize == 0 && !k.ipforwarding.Load() {
		if iphl, n, ok := groUDP(m); ok {
			return g.receiveUDP(k, ifp, m, iphl, n)
		}
	}
	// A link that has merged packets already leaves nothing to do. A router merges only what it can
	// cut again into the same packets: those that may be fragmented need identifications of their
	// own, which would be lost.
	if !ok || m.Pkt.SegSize > 0 || k.ipforwarding.Load() && !wire.IPView(m.Bytes()).DF() {
		g.flush(k, ifp)
		k.ipintr(ifp, m)
		return false
	}
	if g.m != nil && g.extends(m, iphl, hl, n) {
		return g.add(k, m, hl, n)
	}
	g.flush(k, ifp)
	th := wire.TCPView(m.Bytes()[iphl:])
	*g = gro{m: m, tail: m, hl: hl, iphl: iphl, seg: n, len: n}
	g.next = th.Seq().Add(n)
	g.ended = th.Flags()&wire.PUSH != 0
	return false
}

// groHeader reports whether m is a segment that may be merged: it has data, the flag ACK and
// perhaps PUSH, no other flags, an IP header without options, extension headers and marks, and
// right checksums. It returns the lengths of the IP header, of both headers, and of the data.
func groHeader(m *mbuf.Mbuf) (iphl, hl, n int, ok bool) {
	b := m.Bytes()
	ip, ok := wire.ViewIP(b)
	if !ok || ip.Proto() != wire.ProtoTCP {
		return 0, 0, 0, false
	}
	iphl = ip.Hlen()
	if len(b) < iphl+wire.TCPMinLen || ip.Len() != len(b) || ip.TOS()&3 == 3 {
		return 0, 0, 0, false
	}
	th := wire.TCPView(b[iphl:])
	hl = iphl + th.Hlen()
	if hl < iphl+wire.TCPMinLen || len(b) <= hl || th.Flags()&^wire.PUSH != wire.ACK {
		return 0, 0, 0, false
	}
	if !ip.Is6() && !groIPv4(b) {
		return 0, 0, 0, false
	}
	if m.Pkt.Csum&mbuf.CsumVerified == 0 {
		sum := wire.PseudoSum(ip.Src(), ip.Dst(), wire.ProtoTCP, len(th))
		if wire.Fold(wire.Sum(th, sum)) != 0xffff {
			return 0, 0, 0, false
		}
	}
	return iphl, hl, len(b) - hl, true
}

// groIPv4 reports whether an IPv4 header allows that its packet is merged: it has no options, is no
// fragment's, and has a right checksum.
func groIPv4(b []byte) bool {
	ip := wire.IPv4View(b)
	return ip.Hlen() == wire.IPv4MinLen && ip.FlagsOff()&^wire.IPDF == 0 &&
		wire.Fold(wire.Sum(b[:wire.IPv4MinLen], 0)) == 0xffff
}

// extends reports whether the packet continues the one that segments are added to.
func (g *gro) extends(m *mbuf.Mbuf, iphl, hl, n int) bool {
	if g.ended || g.udp || hl != g.hl || n > g.seg || g.len+n+hl > wire.MaxPacket {
		return false
	}
	aip, bip := wire.IPView(g.m.Bytes()), wire.IPView(m.Bytes())
	a, b := wire.TCPView(aip[iphl:]), wire.TCPView(bip[iphl:])
	return b.Seq() == g.next && alikeIP(aip, bip) && alikeTCP(a, b)
}

// alikeIP reports whether two packets have the same addresses and are treated alike on their way.
func alikeIP(a, b wire.IPView) bool {
	return string(a.Addrs()) == string(b.Addrs()) && a.TOS() == b.TOS() && a.TTL() == b.TTL() &&
		(!a.Is6() || wire.IPv6View(a).Label() == wire.IPv6View(b).Label())
}

// alikeTCP reports whether two segments differ at most in their numbers, their data and PUSH.
func alikeTCP(a, b wire.TCPView) bool {
	return a.Sport() == b.Sport() && a.Dport() == b.Dport() &&
		a.Ack() == b.Ack() && a.Win() == b.Win() && a.Reserved() == b.Reserved() &&
		string(a.Options()) == string(b.Options())
}

// Segments with a payload of at most groCopy bytes are copied into larger clusters: a dozen
// segments in one cluster cost less to allocate, to free and to read than in a dozen.
const groCopy = mbuf.ClMid

// add puts a segment behind the others. It reports whether it has copied the segment.
func (g *gro) add(k *Kernel, m *mbuf.Mbuf, hl, n int) (copied bool) {
	a, b := wire.TCPView(g.m.Bytes()[g.iphl:]), wire.TCPView(m.Bytes()[g.iphl:])
	push := b.Flags() & wire.PUSH
	a.SetFlags(a.Flags() | push)
	g.len += n
	g.next = g.next.Add(n)
	g.ended = push != 0 || n < g.seg
	return g.append(k, m, hl, n)
}

// append puts the n bytes of a packet's data, which follow its hl bytes of headers, behind the
// tail.
func (g *gro) append(k *Kernel, m *mbuf.Mbuf, hl, n int) (copied bool) {
	if n > groCopy {
		g.link(mbuf.Adj(m, hl), false)
		return false
	}
	if !g.room || len(g.tail.Room()) < n {
		g.link(k.pool.Getcl(mbuf.ClBig), true)
	}
	g.tail.Append(m.Bytes()[hl:])
	return true
}

// link puts an Mbuf behind the tail.
func (g *gro) link(m *mbuf.Mbuf, room bool) {
	g.tail.SetNext(m)
	g.tail, g.room = m, room
}

// flush hands the packet that has been merged to ipintr.
func (g *gro) flush(k *Kernel, ifp *Ifnet) {
	m := g.m
	if m == nil {
		return
	}
	g.m = nil
	m.Pkt.Csum |= mbuf.CsumVerified
	m.Pkt.Len = g.hl + g.len
	if g.len > g.seg {
		m.Pkt.SegSize = g.seg
		wire.IPView(m.Bytes()).SetLen(m.Pkt.Len)
		if g.udp {
			wire.UDPView(m.Bytes()[g.iphl:]).SetLen(wire.UDPLen + g.len)
		}
	}
	k.ipintr(ifp, m)
}
