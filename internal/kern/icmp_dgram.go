package kern

import (
	"encoding/binary"
	"net/netip"
	"syscall"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// Ping sockets, as Linux and macOS have them: SOCK_DGRAM with IPPROTO_ICMP or IPPROTO_ICMPV6. A
// socket can send echo requests, whose identifier is its local port, and receives the replies to
// them. So it can do no harm that a process without rights should not do.

// icmpDgramUsrreq carries out a request of the socket layer. The socket is locked.
func icmpDgramUsrreq(so *Socket, req pruReq, a usrreqArgs) syscall.Errno {
	if so.dead && req != pruAttach {
		mbuf.Free(a.m)
		return syscall.EINVAL
	}
	switch req {
	case pruAttach:
		so.dgattach()
	case pruDetach, pruAbort:
		so.dead = true
		so.inPcbdetach()
	case pruBind:
		if errno := so.inPcbbind(a.nam.Addr(), a.nam.Port()); errno != 0 {
			return errno
		}
		so.dg.bindAddr, so.dg.route = so.inp.laddr, dgroute{}
	case pruConnect:
		return so.icmpDgramConnect(a.nam)
	case pruSend:
		return so.icmpDgramSend(a.m, a.nam)
	default:
		return syscall.EOPNOTSUPP
	}
	return 0
}

// icmpDgramConnect gives the socket a peer, or another, or, if nam is not valid, none.
func (so *Socket) icmpDgramConnect(nam netip.AddrPort) syscall.Errno {
	k, inp, dg := so.k, &so.inp, so.dg
	if !nam.IsValid() {
		k.icmpIDs.rename(inp, dg.bindAddr, in6Addr{}, 0)
		so.state &^= ssIsconnected
		dg.route = dgroute{}
		return 0
	}
	r, errno := so.udpRoute(nam, dg.bindAddr)
	if errno != 0 {
		return errno
	}
	if errno := so.icmpDgramAutobind(); errno != 0 {
		return errno
	}
	laddr := dg.bindAddr
	if laddr.unspecified() {
		laddr = in6(r.src)
	}
	k.icmpIDs.rename(inp, laddr, in6(r.dst), nam.Port())
	inp.ifp = r.ifp
	so.state |= ssIsconnected
	dg.route = dgroute{}
	return 0
}

// icmpDgramAutobind gives a socket that has none an identifier.
func (so *Socket) icmpDgramAutobind() syscall.Errno {
	if so.inp.lport == 0 && so.k.icmpIDs.bind(so, 0) != 0 {
		return syscall.EAGAIN // as on Linux
	}
	return 0
}

// icmpDgramSend sends an echo request, whose identifier and checksum it fills in, to an address,
// or, if that is not valid, to the peer: Linux's ping_v4_sendmsg. It takes over the chain. It fails
// with EINVAL if the message is another than an echo request, and as udpOutput does.
func (so *Socket) icmpDgramSend(m *mbuf.Mbuf, to netip.AddrPort) syscall.Errno {
	echo, proto := uint8(wire.ICMPEcho), uint8(wire.ProtoICMP)
	if so.proto.domain == AF_INET6 {
		echo, proto = wire.ICMPv6Echo, wire.ProtoICMPv6
	}
	b := m.Bytes()
	if len(b) < wire.ICMPLen || b[0] != echo || b[1] != 0 {
		mbuf.Free(m)
		return syscall.EINVAL
	}
	r, errno := so.dgway(to)
	if errno == 0 {
		errno = so.icmpDgramAutobind()
	}
	if errno != 0 {
		mbuf.Free(m)
		return errno
	}
	binary.BigEndian.PutUint16(b[4:], so.inp.lport)
	icmpSum(m, r)
	return so.dgoutput(m, r, proto)
}

// icmpDgramInput gives an echo reply to the ping socket that has its identifier, or frees it. It
// takes over the chain.
func (k *Kernel) icmpDgramInput(ip *ipHdr, ic wire.ICMP, m *mbuf.Mbuf, ifp *Ifnet) {
	t := tuple{laddr: in6(ip.dst), faddr: in6(ip.src), lport: uint16(ic.Rest >> 16)}
	so := k.icmpIDs.pinger(&t)
	if so == nil {
		mbuf.Free(m)
		return
	}
	so.lock()
	defer so.unlock()
	if so.dead || !so.inp.pings(&t) {
		mbuf.Free(m) // it has been closed, or has another peer, since the table was read
		return
	}
	if !so.sbappendaddr(m, ip.hlen, ifp) {
		k.countFull(so.proto.domain)
	}
}

// pings reports whether the socket takes a reply with these addresses. The lock of the port, or the
// socket's, is held.
func (inp *inpcb) pings(t *tuple) bool {
	return inp.lport == t.lport && inp.takes(&t.laddr) && (inp.faddr.unspecified() || inp.faddr == t.faddr)
}

// pinger finds the socket for a reply: one that is connected to its sender, or else one that is
// bound to its destination, or else another.
func (pt *portTable) pinger(t *tuple) *Socket {
	s := pt.shard(t.lport)
	s.mu.Lock()
	defer s.mu.Unlock()
	var best *Socket
	score := 0
	for p := s.first(t.lport); p != nil; p = s.after(p) {
		if !p.pings(t) {
			continue
		}
		v := 1
		if p.laddr == t.laddr {
			v = 2
		}
		if p.faddr == t.faddr {
			v = 3
		}
		if v > score {
			best, score = p.so, v
		}
	}
	return best
}

// icmpCtlinput tells who has sent an echo request of an ICMP error about it: a call of Ping, or a
// ping socket, which as on Linux learns of it only if it is connected, and only of errors that do
// not pass.
func icmpCtlinput(k *Kernel, e *icmpError) {
	echo := uint8(wire.ICMPEcho)
	if e.t.laddr.family() == inpIPv6 {
		echo = wire.ICMPv6Echo
	}
	if e.quote[0] != echo {
		return
	}
	rest := binary.BigEndian.Uint32(e.quote[4:])
	if k.pings.failed(e, rest, k.now()) || e.errno == 0 || !e.hard {
		return
	}
	t := tuple{laddr: e.t.laddr, faddr: e.t.faddr, lport: uint16(rest >> 16)}
	so := k.icmpIDs.pinger(&t)
	if so == nil {
		return
	}
	so.lock()
	if !so.dead && so.state&ssIsconnected != 0 && so.inp.pings(&t) {
		so.err = uint32(e.errno)
		so.dgnote()
		so.sowakeup(&so.rcv.sleepers)
		so.sowakeup(&so.snd.sleepers)
	}
	so.unlock()
}
