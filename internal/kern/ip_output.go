package kern

import (
	"net/netip"
	"syscall"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// An ipOut holds the fields of a packet's IP header, of the family of its addresses, and its way,
// for ipOutput.
type ipOut struct {
	src, dst netip.Addr // dst may have a zone
	proto    uint8
	tos, ttl uint8  // of IPv6, traffic class and hop limit
	df       bool   // the packet may not be cut into fragments
	mtu      int    // of the path, if the caller knows it; 0: the interface's
	bcast    bool   // dst may be a broadcast address
	ifp      *Ifnet // the interface, if the caller knows it; nil: ipOutput finds it
	so       *Socket
}

// defTTL is net.inet.ip.ttl (RFC 9293, MUST-49: configurable, IP_TTL).
const defTTL = 64

// ipOutput puts an IP header before the chain, which it takes over, and the packet on its
// interface's queue: BSD's ip_output; ip6Output serves IPv6. It returns the queue, which the caller
// starts once it has left all locks, or nil and an error. If a packet is longer than the MTU,
// ipOutput cuts it into fragments, or returns EMSGSIZE if df forbids that.
func (k *Kernel) ipOutput(m *mbuf.Mbuf, o *ipOut) (*ifqueue, syscall.Errno) {
	if o.dst.Is6() {
		return k.ip6Output(m, o)
	}
	ifp := o.ifp
	if ifp == nil {
		var errno syscall.Errno
		if ifp, _, errno = k.rtalloc(o.dst, o.src); errno != 0 {
			mbuf.Free(m)
			k.Stats.IP.Noroute.Inc()
			return nil, errno
		}
	}
	if ifp.down.Load() {
		mbuf.Free(m)
		return nil, syscall.ENETDOWN
	}
	if !ifp.loopback && !o.bcast && ifp.broadcast(o.dst) {
		mbuf.Free(m)
		return nil, syscall.EACCES
	}
	ip := wire.IPv4{Src: o.src, Dst: o.dst, Proto: o.proto, TOS: o.tos, TTL: o.ttl}
	if o.df {
		ip.Flags = wire.IPDF // atomic: the identification may be anything (RFC 6864, 4.1)
	}
	n := m.Pkt.Len + wire.IPv4MinLen
	k.Stats.IP.Localout.Inc()
	mtu := ifp.mtu
	if o.mtu != 0 {
		mtu = o.mtu
	}
	if n > mtu && m.Pkt.SegSize == 0 && !ifp.whole() {
		if o.df {
			mbuf.Free(m)
			return nil, syscall.EMSGSIZE
		}
		o.ifp, o.mtu = ifp, mtu
		return k.ipFragment(m, ip, o)
	}
	if !o.df {
		ip.ID = k.nextID(&ip)
	}
	ip.Len = n
	if n > wire.MaxPacket {
		ip.Len = 0 // the chain will be cut, or its length is in Pkthdr.Len only
	}
	ip.Put(m.Prepend(wire.IPv4MinLen))
	return ifp.output(m, o.so)
}

// nextID returns an identification for a packet that may be fragmented. It does not come again for
// long among packets of the same addresses and protocol (RFC 6864, 4.2), and cannot be guessed from
// others (RFC 7739, 5.3; CVE-2024-10026): a counter runs through a permutation that depends on the
// addresses, under a key that serves no other purpose.
func (k *Kernel) nextID(ip *wire.IPv4) uint16 {
	h := prf(k.seed.ipid, &tuple{laddr: in6(ip.Src), faddr: in6(ip.Dst)}, uint64(ip.Proto))
	n := k.ipIDs[h%uint64(len(k.ipIDs))].Add(1)
	l, r := uint8(n>>8), uint8(n)
	for round := range uint64(4) { // Feistel's network makes a permutation of any function
		l, r = r, l^uint8((h^(round<<8|uint64(r))*0x9e3779b97f4a7c15)*0xd6e8feb86659fd93>>56)
	}
	return uint16(l)<<8 | uint16(r)
}

// ipFragment cuts a packet to the MTU: the second half of BSD's ip_output.
func (k *Kernel) ipFragment(m *mbuf.Mbuf, ip wire.IPv4, o *ipOut) (q *ifqueue, errno syscall.Errno) {
	ip.ID = k.nextID(&ip)
	room := (o.mtu - wire.IPv4MinLen) &^ 7
	total := m.Pkt.Len
	flow := m.Pkt.Flow
	for off := 0; off < total; off += room {
		n := min(room, total-off)
		h := k.pool.Gethdr()
		h.SetNext(mbuf.Copym(m, off, n))
		h.Pkt.Len, h.Pkt.Flow = n, flow
		ip.Off, ip.Len = off, n+wire.IPv4MinLen
		ip.Flags = 0
		if off+n < total {
			ip.Flags = wire.IPMF
		}
		ip.Put(h.Prepend(wire.IPv4MinLen))
		k.Stats.IP.Ofragments.Inc()
		if q, errno = o.ifp.output(h, o.so); errno != 0 {
			break
		}
	}
	mbuf.Free(m)
	k.Stats.IP.Fragmented.Inc()
	return q, errno
}
