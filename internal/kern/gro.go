package kern

import (
	"encoding/binary"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// gro merges the segments of a batch that follow each other on one connection, so that a run of
// them enters the machine once: what LRO does for a BSD. Only what can be told apart in nothing but
// sequence number, PUSH and length is merged.
type gro struct {
	m     *mbuf.Mbuf // the packet under construction; nil: none
	tail  *mbuf.Mbuf
	hl    int // its IP and TCP headers
	iphl  int
	next  uint32 // the sequence number that would continue it
	seg   int    // payload of its segments
	len   int    // payload so far
	ended bool   // the last one was short, or had PUSH
	room  bool   // behind the tail, for more
}

// receive takes a packet of the batch. It reports whether it has copied it, so that the Mbuf is
// still the caller's.
func (g *gro) receive(k *Kernel, ifp *Ifnet, m *mbuf.Mbuf) bool {
	iphl, hl, n, ok := groHeader(m)
	if !ok || m.Pkt.SegSize > 0 { // the link may have merged it already
		g.flush(k, ifp)
		k.ipintr(ifp, m)
		return false
	}
	if g.m != nil && g.extends(m, iphl, hl, n) {
		return g.add(k, m, hl, n)
	}
	g.flush(k, ifp)
	b := m.Bytes()
	*g = gro{m: m, tail: m, hl: hl, iphl: iphl, seg: n, len: n}
	g.next = binary.BigEndian.Uint32(b[iphl+4:]) + uint32(n)
	g.ended = b[iphl+13]&uint8(wire.PUSH) != 0
	return false
}

// groHeader reports whether m is a segment that may be merged: TCP with data, ACK and at most PUSH,
// nothing odd in IP, checksums right.
func groHeader(m *mbuf.Mbuf) (iphl, hl, n int, ok bool) {
	b := m.Bytes()
	if len(b) < wire.IPv4MinLen+wire.TCPMinLen || b[0] != 4<<4|5 || b[9] != wire.ProtoTCP {
		return
	}
	be := binary.BigEndian
	iphl = wire.IPv4MinLen
	if int(be.Uint16(b[2:])) != len(b) || be.Uint16(b[6:])&^wire.IPDF != 0 || b[1]&3 == 3 {
		return
	}
	hl = iphl + int(b[iphl+12]>>4)*4
	if hl < iphl+wire.TCPMinLen || len(b) <= hl || wire.Flags(b[iphl+13])&^wire.PUSH != wire.ACK {
		return
	}
	if wire.Fold(wire.Sum(b[:iphl], 0)) != 0xffff {
		return
	}
	ip, _ := ipAddrs(b)
	if m.Pkt.Csum&mbuf.CsumVerified == 0 && wire.Fold(wire.Sum(b[iphl:], wire.PseudoSum(ip.Src, ip.Dst, wire.ProtoTCP, len(b)-iphl))) != 0xffff {
		return
	}
	return iphl, hl, len(b) - hl, true
}

// extends reports whether the packet continues the one under construction.
func (g *gro) extends(m *mbuf.Mbuf, iphl, hl, n int) bool {
	if g.ended || hl != g.hl || n > g.seg || g.len+n+hl > wire.MaxPacket {
		return false
	}
	a, b := g.m.Bytes(), m.Bytes()
	be := binary.BigEndian
	return be.Uint32(b[iphl+4:]) == g.next &&
		string(a[12:20]) == string(b[12:20]) && a[1] == b[1] && a[8] == b[8] && // addresses, TOS, TTL
		be.Uint32(a[iphl:]) == be.Uint32(b[iphl:]) && // ports
		string(a[iphl+8:iphl+13]) == string(b[iphl+8:iphl+13]) && // acknowledgment, data offset
		string(a[iphl+14:iphl+16]) == string(b[iphl+14:iphl+16]) && // window
		string(a[iphl+20:hl]) == string(b[iphl+20:hl]) // options
}

// groCopy is up to what payload segments are copied into larger clusters: a dozen in one cost less,
// to get, to free and to read, than each in its own.
const groCopy = mbuf.ClMid

// add puts a segment behind the others. It reports whether it has copied it.
func (g *gro) add(k *Kernel, m *mbuf.Mbuf, hl, n int) (copied bool) {
	a, b := g.m.Bytes(), m.Bytes()
	push := b[g.iphl+13] & uint8(wire.PUSH)
	a[g.iphl+13] |= push
	g.len += n
	g.next += uint32(n)
	g.ended = push != 0 || n < g.seg
	if n > groCopy {
		g.link(mbuf.Adj(m, hl), false)
		return false
	}
	if !g.room || len(g.tail.Room()) < n {
		g.link(k.pool.Getcl(mbuf.ClBig), true)
	}
	g.tail.Append(b[hl:])
	return true
}

func (g *gro) link(m *mbuf.Mbuf, room bool) {
	g.tail.SetNext(m)
	g.tail, g.room = m, room
}

// flush hands on what has been merged.
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
		be := binary.BigEndian
		b := m.Bytes()
		be.PutUint16(b[2:], uint16(m.Pkt.Len))
		b[10], b[11] = 0, 0
		be.PutUint16(b[10:], wire.InCksum(b[:g.iphl]))
	}
	k.ipintr(ifp, m)
}
