package kern

import (
	"net/netip"
	"syscall"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
)

// UDP: RFC 768, RFC 1122, 4.1, and RFC 8200, 8.1.

// UDPStats are the counters of UDP: BSD's struct udpstat.
type UDPStats struct {
	Ipackets    tcp.Counter // datagrams received
	Hdrops      tcp.Counter // packets shorter than a header
	Badsum      tcp.Counter // wrong checksum
	Nosum       tcp.Counter // no checksum, over IPv4
	Badlen      tcp.Counter // length field below that of a header, or beyond the packet
	Noport      tcp.Counter // no socket on the port
	Noportmcast tcp.Counter // of those, to a multicast or broadcast address
	Fullsock    tcp.Counter // no room on the socket's queue
	Opackets    tcp.Counter // datagrams sent
}

// Sizes of a UDP socket's buffers, in bytes: those of Linux (net.core.wmem_default, rmem_default).
// FreeBSD's receive buffer, of 42 KB, holds less than one datagram of 64 KB. What a buffer is
// charged for is memory, as on Linux: the whole of each datagram's Mbuf.
const (
	udpSendspace = 208 << 10
	udpRecvspace = 208 << 10
)

// Data of the largest datagrams.
const (
	udpMaxLen4 = wire.MaxPacket - wire.IPv4MinLen - wire.UDPLen
	udpMaxLen6 = wire.MaxPacket - wire.UDPLen // IPv6's length field does not count its header
)

// udpUsrreq carries out a request of the socket layer: 4.4BSD's udp_usrreq. The socket is locked.
func udpUsrreq(so *Socket, req pruReq, a usrreqArgs) syscall.Errno {
	if so.dead && req != pruAttach {
		mbuf.Free(a.m)
		return syscall.EINVAL
	}
	switch req {
	case pruAttach:
		so.dg = &dgram{}
		so.soreserve(udpSendspace, udpRecvspace)
		so.dg.most.Store(udpRecvspace)
		so.inPcballoc()
		so.dgnote()
	case pruDetach, pruAbort:
		so.dead = true
		so.inPcbdetach()
	case pruBind:
		return so.udpBind(a.nam)
	case pruConnect:
		return so.udpConnect(a.nam)
	case pruSend:
		return so.udpOutput(a.m, a.nam)
	default:
		return syscall.EOPNOTSUPP
	}
	return 0
}

// udpBind gives the socket a local address and port.
func (so *Socket) udpBind(nam netip.AddrPort) syscall.Errno {
	if errno := so.inPcbbind(nam.Addr(), nam.Port()); errno != 0 {
		return errno
	}
	so.dg.bindAddr, so.dg.bindPort = so.inp.laddr, nam.Port() != 0
	so.dg.route = dgroute{}
	return 0
}

// udpConnect gives the socket a peer, or another, or, if nam is not valid, none: connect(2), whose
// address of family AF_UNSPEC dissolves the association.
func (so *Socket) udpConnect(nam netip.AddrPort) syscall.Errno {
	k, inp, dg := so.k, &so.inp, so.dg
	if !nam.IsValid() {
		so.udpDisconnect()
		return 0
	}
	r, errno := so.udpRoute(nam, dg.bindAddr)
	if errno != 0 {
		return errno
	}
	if inp.lport == 0 {
		if errno := so.udpAutobind(); errno != 0 {
			return errno
		}
	}
	old := inp.tuple
	if inp.hashed {
		k.udb.remove(inp)
	}
	laddr := dg.bindAddr
	if laddr.unspecified() {
		laddr = in6(r.src)
	}
	k.udpPorts.rename(inp, laddr, in6(r.dst), nam.Port())
	errno = k.udb.insert(inp, nil)
	k.udpPorts.gen.Add(1)
	if errno != 0 {
		k.udpPorts.rename(inp, old.laddr, old.faddr, old.fport)
		if old.fport != 0 {
			k.udb.insert(inp, nil)
		}
		return errno
	}
	inp.ifp = r.ifp
	so.state |= ssIsconnected
	so.flow = inp.tuple.flow(k.seed.hash)
	dg.route = dgroute{}
	return 0
}

// udpDisconnect takes the socket's peer away: BSD's udp_disconnect. What bind has set remains.
func (so *Socket) udpDisconnect() {
	k, inp, dg := so.k, &so.inp, so.dg
	if so.state&ssIsconnected == 0 {
		return
	}
	k.udb.remove(inp)
	if !dg.bindPort {
		k.udpPorts.release(so)
		inp.tuple = tuple{laddr: dg.bindAddr}
	} else {
		k.udpPorts.rename(inp, dg.bindAddr, in6Addr{}, 0)
	}
	inp.dead = false
	so.state &^= ssIsconnected
	dg.route = dgroute{}
}

// udpAutobind gives a socket that sends, and has no port yet, a free one.
func (so *Socket) udpAutobind() syscall.Errno {
	laddr := so.inp.laddr
	if errno := so.k.udpPorts.bind(so, 0); errno != 0 {
		return syscall.EAGAIN // as on Linux
	}
	so.dg.bindAddr = laddr
	return 0
}

// A dgroute is the way that the last datagram has taken. It holds until a route, an address or the
// socket changes.
type dgroute struct {
	to       netip.AddrPort // as the caller has given it; not valid: the peer
	src, dst netip.Addr
	ifp      *Ifnet // nil: there is no way
	gen      uint32 // the routes' generation
	dport    uint16
	mtu      int   // of the path
	expire   int64 // when mtu must be asked for again; 0: never
	several  bool  // dst is a multicast or broadcast address
	flow     uint32

	// If the destination is a socket of this stack, and its packets need not be whole on any wire:
	peer *Socket // nil: it is not
	pgen uint32  // the generation of the sockets' addresses in which it was found
	hlen int
	hdr  [wire.IPv6Len + wire.UDPLen]byte
}

// iphlen returns the length of the IP header.
func (r *dgroute) iphlen() int {
	if r.dst.Is6() {
		return wire.IPv6Len
	}
	return wire.IPv4MinLen
}

// udpMaxSegs is how many datagrams one chain can be: Linux's UDP_MAX_SEGMENTS.
const udpMaxSegs = 128

// segments returns how many datagrams a chain of n bytes of data is. seg is their length; 0: it is
// one.
func segments(n, seg int) int {
	if seg <= 0 || n <= seg {
		return 1
	}
	return (n + seg - 1) / seg
}

// udpRoute finds the way to an address from the local address laddr, which may be none.
func (so *Socket) udpRoute(to netip.AddrPort, laddr in6Addr) (r dgroute, errno syscall.Errno) {
	k, inp := so.k, &so.inp
	r = dgroute{to: to, gen: k.rtgen.Load(), dport: to.Port()}
	dst := to.Addr()
	if r.dport == 0 && so.proto.proto == wire.ProtoUDP {
		return r, syscall.EINVAL
	}
	bound4 := laddr.is4() // 0.0.0.0 too
	if so.proto.domain == AF_INET && !dst.Is4() {
		return r, syscall.EAFNOSUPPORT
	}
	// BSD takes an unspecified destination for this host.
	if dst = dst.Unmap(); dst.IsUnspecified() {
		if dst = k.thisHost(dst.Is6() && !bound4); !dst.IsValid() {
			return r, syscall.ENETUNREACH
		}
	}
	switch {
	case dst.Is4() && inp.vflag&inpIPv4 == 0:
		return r, syscall.ENETUNREACH // IPV6_V6ONLY, as on Linux
	case dst.Is6() && bound4:
		return r, syscall.EAFNOSUPPORT // the socket is bound to an address of the other family: as on Linux
	case dst.Is4() && !bound4 && !laddr.unspecified():
		return r, syscall.ENETUNREACH
	}
	var way *Ifnet
	if !dst.IsMulticast() || dst.Zone() != "" { // else the option says on which link the group is meant
		if way, dst, errno = k.inScope(dst); errno != 0 {
			return r, errno
		}
	}
	from := laddr.addr()
	if from.IsValid() && (from.IsUnspecified() || from.IsMulticast()) {
		from = netip.Addr{}
	}
	var ifp *Ifnet
	var src netip.Addr
	if dst.IsMulticast() || dst == wire.LimitedBroadcast {
		ifp, src, errno = so.mcastRoute(dst, from, way)
	} else {
		if way != nil && !from.IsValid() {
			from = way.addrFor(dst) // several interfaces have a route to the link-local prefix
		}
		ifp, src, errno = k.rtalloc(dst, from)
		if errno == 0 && way != nil && ifp != way && !ifp.loopback {
			errno = syscall.EHOSTUNREACH
		}
		if errno == syscall.EHOSTUNREACH {
			errno = syscall.ENETUNREACH // there is no route at all: Linux's errno, and FreeBSD's in_pcbladdr
		}
	}
	if errno != 0 {
		return r, errno
	}
	if ifp.broadcast(dst) && so.options&SO_BROADCAST == 0 {
		// RFC 919 has broadcasts need care; all systems want SO_BROADCAST.
		return r, syscall.EACCES
	}
	if from.IsValid() {
		src = from
	}
	r.src, r.dst, r.ifp = src, dst, ifp
	r.several = dst.IsMulticast() || ifp.broadcast(dst)
	r.mtu = ifp.mtu
	if mtu, expire := k.hostcache.lookup(in6(dst), k.now()); mtu != 0 && mtu < ifp.mtu {
		r.mtu, r.expire = mtu, expire
	}
	t := tuple{laddr: in6(src), faddr: in6(dst), lport: inp.lport, fport: r.dport}
	r.flow = t.flow(k.seed.hash)
	return r, 0
}

// udpOutput sends a datagram to an address, or, if that is not valid, to the peer: 4.4BSD's
// udp_output. It takes over the chain. It fails with EDESTADDRREQ if there is neither, with
// EMSGSIZE if the datagram is longer than IP can carry, with ENETUNREACH if there is no route, with
// EAFNOSUPPORT if the address is of another family, with EACCES if it is a broadcast address and
// the socket does not have SO_BROADCAST, with EINVAL if the port is 0, with ENOBUFS if the
// interface's queue is full, and with ENETDOWN if the interface is down.
func (so *Socket) udpOutput(m *mbuf.Mbuf, to netip.AddrPort) syscall.Errno {
	k, inp, dg := so.k, &so.inp, so.dg
	if !to.IsValid() && so.state&ssIsconnected == 0 {
		mbuf.Free(m)
		return syscall.EDESTADDRREQ
	}
	r := &dg.route
	if r.ifp == nil || r.to != to || r.gen != k.rtgen.Load() || r.ifp.down.Load() ||
		r.expire != 0 && k.now() >= r.expire {
		if inp.lport == 0 {
			if errno := so.udpAutobind(); errno != 0 {
				mbuf.Free(m)
				return errno
			}
		}
		nam := to
		if !to.IsValid() {
			nam = inp.remote()
		}
		found, errno := so.udpRoute(nam, inp.laddr)
		if errno != 0 {
			mbuf.Free(m)
			return errno
		}
		found.to = to
		*r = found
		so.udpFindPeer(r)
	}
	if r.peer != nil {
		if r.pgen != k.udpPorts.gen.Load() {
			so.udpFindPeer(r)
		}
		if r.peer != nil && so.pending() == 0 && r.ifp.tap.Load() == nil {
			return so.udpLocal(m, r)
		}
	}
	n := m.Pkt.Len
	if n > udpMaxLen4 && (r.dst.Is4() || n > udpMaxLen6) {
		mbuf.Free(m)
		return syscall.EMSGSIZE
	}
	seg := m.Pkt.SegSize
	if seg == 0 && dg.gso > 0 && n > dg.gso {
		if seg = dg.gso; n > seg*udpMaxSegs || r.several {
			mbuf.Free(m)
			return syscall.EINVAL
		}
		m.Pkt.SegSize = seg
	}
	if seg > 0 && seg+wire.UDPLen+r.iphlen() > r.mtu {
		mbuf.Free(m)
		return syscall.EMSGSIZE // a segment cannot be cut once more, nor can it on Linux
	}
	if !r.ifp.loopback && !so.txroom(r) {
		return errFull // the chain stays the caller's
	}
	wire.UDP{Sport: inp.lport, Dport: r.dport, Len: n + wire.UDPLen}.Put(m.Prepend(wire.UDPLen))
	m.Pkt.Flow = r.flow
	total := n + wire.UDPLen + r.iphlen()
	whole := seg > 0 || total <= r.mtu || r.ifp.whole()
	o := ipOut{
		src: r.src, dst: r.dst, proto: wire.ProtoUDP, tos: inp.tos, ttl: inp.ttl, ifp: r.ifp, so: so,
		// As on Linux, a datagram that fits the path is not cut on its way, so that the path's MTU
		// becomes known. A longer one is cut here.
		df: whole && !r.several || dg.opts&dgDontfrag != 0, mtu: r.mtu, bcast: r.several,
	}
	k.Stats.UDP.Opackets.Add(segments(n, seg))
	if whole {
		m.Pkt.Csum = mbuf.CsumPartial
	} else {
		k.udpSum(m, r.src, r.dst) // a fragment cannot have it computed later
	}
	if r.several {
		return so.udpOutputAll(m, &o)
	}
	q, errno := k.ipOutput(m, &o)
	so.drain(q)
	return errno
}

// udpOutputAll sends a datagram to several hosts.
func (so *Socket) udpOutputAll(m *mbuf.Mbuf, o *ipOut) syscall.Errno {
	mo := so.dg.moptions()
	multicast := o.dst.IsMulticast()
	if multicast {
		o.ttl = mo.ttl
	}
	if !multicast || mo.loop {
		so.ipMloopback(m, *o)
	}
	if o.ttl == 0 && !o.ifp.loopback {
		// RFC 1112, 6.1: a datagram with a TTL of 0 stays on this host.
		mbuf.Free(m)
		return 0
	}
	q, errno := so.k.ipOutput(m, o)
	so.drain(q)
	return errno
}

// errFull says that the interface's queue is full. It is no errno of a system's.
const errFull = syscall.Errno(1<<30 - 1)

// txroom reports whether there is room on the interface's queue. If not, the socket is woken when
// there is.
func (so *Socket) txroom(r *dgroute) bool {
	return r.ifp.queues[r.flow%uint32(len(r.ifp.queues))].room(so)
}

// udpSum puts the checksum into a datagram that begins with its UDP header.
func (k *Kernel) udpSum(m *mbuf.Mbuf, src, dst netip.Addr) {
	n := m.Pkt.Len
	sum := wire.PseudoSum(src, dst, wire.ProtoUDP, n)
	wire.UDPView(m.Bytes()).SetSum(^wire.Fold(sumChain(m, 0, n, sum)))
}

// udpCtlinput tells a socket of an ICMP error about a datagram of its: BSD's udp_ctlinput. As on
// Linux, only a connected socket learns of it: RFC 1122, 4.1.3.3: "UDP MUST pass to the application
// layer all ICMP error messages that it receives from the IP layer"; a socket without a peer could
// not say whom the error is about. An error that may pass is no reason to fail (4.2.3.9).
func udpCtlinput(k *Kernel, e *icmpError) {
	if e.mtu != 0 {
		k.udpMtudisc(e)
		return
	}
	inp := k.udb.lookup(&e.t)
	if inp == nil || e.errno == 0 || !e.hard {
		return
	}
	so := inp.so
	so.lock()
	if !so.dead && inp.tuple == e.t {
		so.dgerror(e.errno)
	}
	so.unlock()
}
