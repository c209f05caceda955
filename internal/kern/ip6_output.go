package kern

import (
	"encoding/binary"
	"math/bits"
	"syscall"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// ip6Output puts an IPv6 header before the chain, which it takes over, and the packet on its
// interface's queue: BSD's ip6_output. Of the rest see ipOutput.
func (k *Kernel) ip6Output(m *mbuf.Mbuf, o *ipOut) (*ifqueue, syscall.Errno) {
	ifp := o.ifp
	if ifp == nil {
		var errno syscall.Errno
		if ifp, _, errno = k.rtalloc(o.dst, o.src); errno != 0 {
			mbuf.Free(m)
			k.Stats.IP6.Noroute.Inc()
			return nil, errno
		}
	}
	if ifp.down.Load() {
		mbuf.Free(m)
		return nil, syscall.ENETDOWN
	}
	ip := wire.IPv6{
		Src: o.src, Dst: o.dst, Class: o.tos, Label: k.flowLabel(m.Pkt.Flow), Hlim: o.ttl, Next: o.proto,
	}
	n := m.Pkt.Len + wire.IPv6Len
	k.Stats.IP6.Localout.Inc()
	mtu := ifp.mtu
	if o.mtu != 0 {
		mtu = o.mtu
	}
	if m.Pkt.SegSize == 0 && !ifp.whole() && n > mtu {
		// RFC 8200, 5: "fragmentation in IPv6 is performed only by source nodes, not by routers".
		if o.df {
			mbuf.Free(m)
			return nil, syscall.EMSGSIZE
		}
		o.ifp = ifp
		return k.ip6Fragment(m, ip, o, mtu)
	}
	ip.Len = n
	if n > wire.IPv6Len+wire.MaxPacket {
		ip.Len = wire.IPv6Len // the chain will be cut, or its length is in Pkthdr.Len only
	}
	ip.Put(m.Prepend(wire.IPv6Len))
	return ifp.output(m, o.so)
}

// flowLabel returns the label of a packet's flow, which is the same for all packets of a connection
// (RFC 6437, 2). So that an observer cannot guess labels, nor learn from them how the tables' keyed
// hash works (6.1), the hash goes through another, under a key that serves no other purpose.
func (k *Kernel) flowLabel(flow uint32) uint32 {
	h := uint64(flow)
	for range 2 {
		hi, lo := bits.Mul64(h^k.seed.label[0], k.seed.label[1]|1)
		h = hi ^ lo
	}
	// "A flow label of zero is used to indicate packets that have not been labeled."
	return max(uint32(h>>44), 1)
}

// ip6Fragment cuts a packet to the MTU: RFC 8200, 4.5, and BSD's ip6_fragment.
func (k *Kernel) ip6Fragment(m *mbuf.Mbuf, ip wire.IPv6, o *ipOut, mtu int) (q *ifqueue, errno syscall.Errno) {
	total, flow := m.Pkt.Len, m.Pkt.Flow
	if total > wire.MaxPacket {
		mbuf.Free(m) // longer than any packet that fragments can make up
		return nil, syscall.EMSGSIZE
	}
	room := (mtu - wire.IPv6Len - wire.FragmentLen) &^ 7
	id, next := k.nextID6(&ip), ip.Next
	ip.Next = wire.ProtoFragment
	for off := 0; off < total; off += room {
		n := min(room, total-off)
		h := k.pool.Gethdr()
		h.SetNext(mbuf.Copym(m, off, n))
		h.Pkt.Len, h.Pkt.Flow = n, flow
		f := h.Prepend(wire.FragmentLen)
		f[0], f[1] = next, 0
		binary.BigEndian.PutUint16(f[2:], uint16(off))
		if off+n < total {
			f[3] |= 1
		}
		binary.BigEndian.PutUint32(f[4:], id)
		ip.Len = wire.IPv6Len + wire.FragmentLen + n
		ip.Put(h.Prepend(wire.IPv6Len))
		k.Stats.IP6.Ofragments.Inc()
		if q, errno = o.ifp.output(h, o.so); errno != 0 {
			break
		}
	}
	mbuf.Free(m)
	k.Stats.IP6.Fragmented.Inc()
	return q, errno
}

// nextID6 returns an identification for the fragments of a packet. It is nextID's twin: RFC 8200,
// 4.5, has it "different than that of any other fragmented packet sent recently" with the same
// addresses, and RFC 7739, 3, has it hard to guess. FreeBSD's ip6_randomid serves the same purpose.
func (k *Kernel) nextID6(ip *wire.IPv6) uint32 {
	h := prf(k.seed.ip6id, &tuple{laddr: in6(ip.Src), faddr: in6(ip.Dst)}, 0)
	n := k.ip6IDs[h%uint64(len(k.ip6IDs))].Add(1)
	l, r := uint16(n>>16), uint16(n)
	for round := range uint64(4) { // Feistel's network makes a permutation of any function
		l, r = r, l^uint16((h^(round<<16|uint64(r))*0x9e3779b97f4a7c15)*0xd6e8feb86659fd93>>48)
	}
	return uint32(l)<<16 | uint32(r)
}
