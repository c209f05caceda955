package kern

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// Raw sockets: SOCK_RAW of both families. A socket receives a copy of each packet of its protocol,
// after reassembly, whatever else becomes of the packet; so it is on Linux, while BSD's ICMP keeps
// some messages to itself. TCP and UDP have no raw sockets: their segments are in part merged, and
// without checksums, so that there is no packet as it was on a wire.

// A rawTable has the raw sockets of a stack: BSD's ripcbinfo.
type rawTable struct {
	n    atomic.Int32 // how many there are, for a look without the lock
	mu   sync.Mutex   // a leaf
	list []*Socket
}

// rawRefused reports whether there are no raw sockets of a protocol: it has its own, or is an
// extension header of IPv6. Linux's sockets of protocol 255 send packets with the user's own IP
// header, which this stack does not.
func rawRefused(domain, proto int) bool {
	switch proto {
	case wire.ProtoTCP, wire.ProtoUDP:
		return true
	case wire.ProtoHopopts, wire.ProtoRouting, wire.ProtoFragment, wire.ProtoAH, wire.ProtoDstopts:
		return domain == AF_INET6 || proto == 0
	}
	return proto < 0 || proto >= 255
}

// ripUsrreq carries out a request of the socket layer: 4.4BSD's rip_usrreq, and rip6_usrreq. As in
// BSD, PRU_ATTACH has the protocol in the place of an address. The socket is locked.
func ripUsrreq(so *Socket, req pruReq, a usrreqArgs) syscall.Errno {
	if so.dead && req != pruAttach {
		mbuf.Free(a.m)
		return syscall.EINVAL
	}
	switch req {
	case pruAttach:
		proto := int(a.nam.Port())
		if rawRefused(so.proto.domain, proto) {
			return syscall.EPROTONOSUPPORT
		}
		so.dgattach()
		so.dg.rawproto = uint8(proto)
		so.k.raw.add(so)
	case pruDetach, pruAbort:
		so.dead = true
		so.k.raw.remove(so)
		so.inPcbdetach()
	case pruBind:
		return so.ripBind(a.nam.Addr())
	case pruConnect:
		return so.ripConnect(a.nam)
	case pruSend:
		return so.ripOutput(a.m, a.nam)
	default:
		return syscall.EOPNOTSUPP
	}
	return 0
}

// dgattach makes a datagram socket of a new one, which is of one family only.
func (so *Socket) dgattach() {
	so.dg = &dgram{}
	so.soreserve(udpSendspace, udpRecvspace)
	so.inPcballoc()
	if so.proto.domain == AF_INET6 {
		so.inp.setV6only(true)
	}
	so.dgnote()
}

func (t *rawTable) add(so *Socket) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.list = append(t.list, so)
	t.n.Add(1)
}

func (t *rawTable) remove(so *Socket) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(t.list, so); i >= 0 {
		t.list = slices.Delete(t.list, i, i+1)
		t.n.Add(-1)
	}
}

// of appends to list the sockets of a family and a protocol.
func (t *rawTable) of(list []*Socket, domain int, proto uint8) []*Socket {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, so := range t.list {
		if so.proto.domain == domain && so.dg.rawproto == proto {
			list = append(list, so)
		}
	}
	return list
}

// ripBind gives the socket a local address. As on Linux, another call changes it.
func (so *Socket) ripBind(laddr netip.Addr) syscall.Errno {
	k := so.k
	if !laddr.IsValid() {
		laddr = so.inAny()
	}
	if errno := so.inFamily(laddr); errno != 0 {
		return errno
	}
	if laddr.Is4In6() {
		return syscall.EADDRNOTAVAIL
	}
	ifp, laddr, errno := k.inScope(laddr)
	if errno != 0 {
		return errno
	}
	if !laddr.IsUnspecified() && !k.toSeveral(laddr) {
		if own := k.ifaWithAddr(laddr); own == nil || ifp != nil && own != ifp {
			return syscall.EADDRNOTAVAIL
		}
	}
	so.inp.laddr = in6(laddr)
	so.dg.bindAddr, so.dg.route = so.inp.laddr, dgroute{}
	return 0
}

// ripConnect gives the socket a peer, or another, or, if nam is not valid, none: PRU_CONNECT of
// BSD's rip_usrreq. From then on it receives only what the peer sends.
func (so *Socket) ripConnect(nam netip.AddrPort) syscall.Errno {
	inp, dg := &so.inp, so.dg
	if !nam.IsValid() {
		inp.laddr, inp.faddr = dg.bindAddr, in6Addr{}
		so.state &^= ssIsconnected
		dg.route = dgroute{}
		return 0
	}
	r, errno := so.udpRoute(nam, dg.bindAddr)
	if errno != 0 {
		return errno
	}
	if inp.laddr = dg.bindAddr; inp.laddr.unspecified() {
		inp.laddr = in6(r.src)
	}
	inp.faddr, inp.ifp = in6(r.dst), r.ifp
	so.state |= ssIsconnected
	dg.route = dgroute{}
	return 0
}

// dgway returns the way of a datagram to an address, or, if that is not valid, to the peer.
func (so *Socket) dgway(to netip.AddrPort) (*dgroute, syscall.Errno) {
	r := &so.dg.route
	if r.ifp != nil && r.to == to && r.gen == so.k.rtgen.Load() && !r.ifp.down.Load() {
		return r, 0
	}
	nam := to
	if !to.IsValid() {
		if so.state&ssIsconnected == 0 {
			return nil, syscall.EDESTADDRREQ
		}
		nam = netip.AddrPortFrom(so.zoned(so.inp.faddr.addr()), so.inp.fport)
	}
	found, errno := so.udpRoute(nam, so.inp.laddr)
	if errno != 0 {
		return nil, errno
	}
	found.to = to
	*r = found
	return r, 0
}

// ripOutput sends a packet of the socket's protocol to an address, or, if that is not valid, to the
// peer: 4.4BSD's rip_output, and rip6_output. It takes over the chain, which has what follows the
// IP header. It fails as udpOutput does.
func (so *Socket) ripOutput(m *mbuf.Mbuf, to netip.AddrPort) syscall.Errno {
	r, errno := so.dgway(to)
	if errno != 0 {
		mbuf.Free(m)
		return errno
	}
	if so.dg.rawproto == wire.ProtoICMPv6 && so.proto.domain == AF_INET6 {
		// RFC 3542, 3.1: "The kernel will calculate and insert the ICMPv6 checksum for ICMPv6 raw
		// sockets".
		if m.Pkt.Len < wire.ICMPSumOff+2 {
			mbuf.Free(m)
			return syscall.EINVAL
		}
		icmpSum(m, r)
	}
	return so.dgoutput(m, r, so.dg.rawproto)
}

// icmpSum puts the checksum into a message that goes the way r.
func icmpSum(m *mbuf.Mbuf, r *dgroute) {
	sum := uint64(0)
	if r.dst.Is6() {
		sum = wire.PseudoSum(r.src, r.dst, wire.ProtoICMPv6, m.Pkt.Len)
	}
	field := m.Bytes()[wire.ICMPSumOff:]
	field[0], field[1] = 0, 0
	binary.BigEndian.PutUint16(field, ^wire.Fold(sumChain(m, 0, m.Pkt.Len, sum)))
}

// dgoutput sends a packet the way r. It takes over the chain, unless it returns errFull.
func (so *Socket) dgoutput(m *mbuf.Mbuf, r *dgroute, proto uint8) syscall.Errno {
	if m.Pkt.Len > wire.MaxPacket || r.dst.Is4() && m.Pkt.Len > wire.MaxPacket-wire.IPv4MinLen {
		mbuf.Free(m)
		return syscall.EMSGSIZE
	}
	if !r.ifp.loopback && !so.txroom(r) {
		return errFull // the chain stays the caller's
	}
	m.Pkt.Flow = r.flow
	o := ipOut{
		src: r.src, dst: r.dst, proto: proto, tos: so.inp.tos, ttl: so.inp.ttl, ifp: r.ifp, so: so,
		df: so.dg.opts&dgDontfrag != 0, bcast: r.several,
	}
	if r.dst.IsMulticast() {
		o.ttl = so.dg.moptions().ttl
	}
	q, errno := so.k.ipOutput(m, &o)
	so.drain(q)
	return errno
}

// ripInput gives a copy of a packet to each raw socket that takes it, and reports whether there is
// one: 4.4BSD's rip_input, and rip6_input. The chain stays the caller's. The compiler must not
// inline it, as few stacks have such sockets.
//
//go:noinline
func (k *Kernel) ripInput(ip *ipHdr, m *mbuf.Mbuf, ifp *Ifnet) bool {
	domain, hlen := AF_INET, 0 // an IPv4 socket receives the header too
	if ip.is6() {
		domain, hlen = AF_INET6, ip.hlen
	}
	var few [8]*Socket
	list := k.raw.of(few[:0], domain, ip.proto)
	if len(list) == 0 || ip.proto == wire.ProtoICMPv6 && !icmp6Summed(ip, m) {
		return false
	}
	t := tuple{laddr: in6(ip.dst), faddr: in6(ip.src)}
	found := false
	for _, so := range list {
		so.lock()
		inp := &so.inp
		if !so.dead && inp.takes(&t.laddr) && (inp.faddr.unspecified() || inp.faddr == t.faddr) {
			found = true
			if !so.sbappendaddr(mbuf.Copypkt(m), hlen, ifp) {
				k.countFull(domain)
			}
		}
		so.unlock()
	}
	return found
}

// countFull counts a packet for which a raw or a ping socket of a family had no room.
func (k *Kernel) countFull(domain int) {
	if domain == AF_INET6 {
		k.Stats.IP6.Fullsock.Inc()
		return
	}
	k.Stats.IP.Fullsock.Inc()
}

// icmp6Summed reports whether an ICMPv6 message has the right checksum, or needs none. RFC 3542,
// 3.1: "the kernel will verify the ICMPv6 checksum" for raw sockets.
func icmp6Summed(ip *ipHdr, m *mbuf.Mbuf) bool {
	n := ip.len - ip.hlen
	return m.Pkt.Csum&mbuf.CsumValid != 0 ||
		wire.Fold(sumChain(m, ip.hlen, n, wire.PseudoSum(ip.src, ip.dst, wire.ProtoICMPv6, n))) == 0xffff
}
