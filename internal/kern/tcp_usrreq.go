package kern

import (
	"net/netip"
	"syscall"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
)

// usrreqArgs are the arguments of a request. Which of them count depends on the request.
type usrreqArgs struct {
	m    *mbuf.Mbuf     // PRU_SEND: data
	nam  netip.AddrPort // PRU_BIND, PRU_CONNECT: an address
	now  int64
	more bool // PRU_SEND: more follows at once (FreeBSD's PRUS_MORETOCOME)
}

// tcpUsrreq carries out a request of the socket layer: 4.4BSD's tcp_usrreq. The socket is locked.
func tcpUsrreq(so *Socket, req pruReq, a usrreqArgs) syscall.Errno {
	if so.dead && req != pruAttach {
		mbuf.Free(a.m)
		if req == pruConnect {
			return syscall.ECONNREFUSED // as in FreeBSD: a socket whose connection was dropped takes no other
		}
		return syscall.EINVAL
	}
	tp := &so.tp
	switch req {
	case pruAttach:
		return so.tcpAttach()
	case pruDetach:
		if tp.State() > tcp.Listen {
			so.tcpDisconnect(a.now)
		} else {
			tp.Close()
		}
	case pruBind:
		return so.inPcbbind(a.nam.Addr(), a.nam.Port())
	case pruListen:
		return so.tcpListen()
	case pruConnect:
		return so.tcpConnect(a)
	case pruDisconnect:
		so.tcpDisconnect(a.now)
	case pruAccept:
		// The caller asks for the peer's address, in_setpeeraddr, by Faddr.
	case pruShutdown:
		if so.state&ssCantsendmore != 0 && so.k.prof.ShutRdKeeps {
			return 0 // as in Linux: the FIN has been sent
		}
		so.socantsendmore()
		tp.Usrclosed(a.now)
		if !so.dead {
			return tp.Output(a.now)
		}
	case pruRcvd:
		if tp.State().HaveEstablished() {
			tp.Output(a.now)
		}
	case pruSend, pruSendoob:
		return so.tcpSend(req, a)
	case pruAbort:
		tp.Drop(syscall.ECONNABORTED, a.now)
	default:
		return syscall.EOPNOTSUPP
	}
	return 0
}

// tcpAttach makes the protocol's half of a socket: BSD's tcp_attach.
func (so *Socket) tcpAttach() syscall.Errno {
	k := so.k
	if so.snd.Hiwat() == 0 || so.rcv.Hiwat() == 0 {
		so.soreserve(k.prof.Sendspace, k.prof.Recvspace)
	}
	so.inPcballoc()
	so.tcpNewtcpcb()
	return 0
}

// inPcballoc joins a socket and its control block: BSD's in_pcballoc.
func (so *Socket) inPcballoc() {
	so.k.chainAt("in_pcballoc")
	so.inp.so = so
}

// tcpNewtcpcb makes the socket's machine, in state CLOSED: BSD's tcp_newtcpcb.
func (so *Socket) tcpNewtcpcb() {
	k := so.k
	k.chainAt("tcp_newtcpcb")
	so.tp.Init(tcp.Config{Sock: so, Env: k.tcpEnv, Snd: &so.snd.Sendbuf, Rcv: &so.rcv.Sockbuf})
}

// tcpListen puts the socket in state LISTEN: PRU_LISTEN of BSD's tcp_usrreq.
func (so *Socket) tcpListen() syscall.Errno {
	if so.tp.State() == tcp.Listen {
		return 0
	}
	if so.tp.State() != tcp.Closed {
		return syscall.EINVAL
	}
	if so.inp.lport == 0 {
		if errno := so.inPcbbind(netip.Addr{}, 0); errno != 0 {
			return errno
		}
	}
	so.tp.SetState(tcp.Listen)
	so.k.pcbs.addListener(&so.inp)
	return 0
}

// tcpConnect sends the SYN: PRU_CONNECT of BSD's tcp_usrreq.
func (so *Socket) tcpConnect(a usrreqArgs) syscall.Errno {
	k, tp, inp := so.k, &so.tp, &so.inp
	if tp.State() != tcp.Closed {
		return syscall.EINVAL
	}
	if errno := so.inPcbconnect(a.nam.Addr(), a.nam.Port(), a.now); errno != 0 {
		return errno
	}
	so.setPath()
	tp.Lport, tp.Fport = inp.lport, inp.fport
	so.soisconnecting()
	errno := tp.Connect(k.iss(&inp.tuple, a.now), k.tsOffset(&inp.tuple), a.now)
	if errno != 0 && !so.dead {
		tp.Close()
	}
	return errno
}

// setPath tells the machine what the route says: a part of BSD's tcp_mss.
func (so *Socket) setPath() {
	ifp := so.inp.ifp
	so.flow = so.inp.tuple.flow(so.k.seed.hash)
	so.tp.SetPath(tcp.Path{
		MTU: ifp.mtu, V6: !so.inp.laddr.is4(), TSOmax: ifp.tsomax(so.k, so.inp.hdrLen()),
		Whole: ifp.whole(), Local: ifp.loopback,
	})
}

// tsomax returns the largest payload of a chain on this interface, behind IP headers of hdr bytes.
// A chain for a device fits in an IP packet; the link or its queue cuts it. If the profile is
// Net/3's, the TCP of the book emits single segments.
func (ifp *Ifnet) tsomax(k *Kernel, hdr int) int {
	switch {
	case ifp.whole():
		return loTSO
	case k.prof.InitCwndSegs == 1:
		return 0
	}
	return wire.MaxPacket - hdr - wire.TCPMaxLen
}

// tcpSend takes data and lets the machine send.
func (so *Socket) tcpSend(req pruReq, a usrreqArgs) syscall.Errno {
	tp := &so.tp
	if a.m != nil {
		so.snd.Append(a.m)
	}
	if req == pruSendoob {
		tp.SendUrgent()
	}
	if a.more {
		tp.Set(tcp.MoreToCome)
	}
	errno := tp.Output(a.now)
	tp.Clear(tcp.MoreToCome)
	return errno
}

// tcpDisconnect begins the user's close: BSD's tcp_disconnect.
func (so *Socket) tcpDisconnect(now int64) {
	tp := &so.tp
	switch {
	case !tp.State().HaveEstablished():
		// 4.4BSD sends the peer of a half-open connection nothing either.
		tp.Close()
	case so.options&SO_LINGER != 0 && so.linger == 0, so.k.prof.RSTUnread && so.rcv.Cc() > 0:
		so.tcpDrop(0, now)
	default:
		so.soisdisconnecting()
		so.rcv.Flush()
		tp.Usrclosed(now)
		if !so.dead {
			tp.Output(now)
		}
	}
}

// tcpDrop ends the connection with a reset: BSD's tcp_drop.
func (so *Socket) tcpDrop(errno syscall.Errno, now int64) { so.tp.Drop(errno, now) }

// TcpClose ends the connection, when the machine has reached CLOSED: BSD's tcp_close. The socket
// stays as long as the user or a listener's queue refers to it.
func (so *Socket) TcpClose() {
	if so.dead {
		return
	}
	if so.options&SO_ACCEPTCONN != 0 {
		so.k.pcbs.delListener(&so.inp)
	}
	so.Soisdisconnected()
	so.dead = true
	so.snd.Flush()
	so.inPcbdetach()
}

// tcpTimers runs the timers that are due: BSD's tcp_timers.
func (so *Socket) tcpTimers(now int64) {
	if so.dead || so.dg != nil {
		return
	}
	if so.tp.Next() <= now {
		so.tp.Timeout(now)
	}
}

// Emit sends a segment of the machine's by ip_output. The machine knows IP only through it.
func (so *Socket) Emit(m *mbuf.Mbuf) syscall.Errno {
	inp := &so.inp
	if inp.ifp.down.Load() {
		so.reroute()
	}
	m.Pkt.Flow = so.flow
	m.Pkt.SegSize = min(m.Pkt.SegSize, inp.ifp.mtu-inp.hdrLen()-wire.TCPView(m.Bytes()).Hlen())
	o := ipOut{
		src: inp.laddr.addr(), dst: inp.faddr.addr(), proto: wire.ProtoTCP, tos: inp.tos, ttl: inp.ttl,
		df: true, ifp: inp.ifp, so: so,
	}
	if m.Pkt.Ect {
		o.tos |= 2 // ECT(0), RFC 3168, 5
	}
	q, errno := so.k.ipOutput(m, &o)
	so.drain(q)
	return errno
}

// reroute looks for another route when the interface is down: over one that has been attached
// since, with the connection's address.
func (so *Socket) reroute() {
	inp := &so.inp
	to := inp.faddr.addr()
	if inp.faddr.onLink() {
		to = to.WithZone(inp.ifp.Name)
	}
	if ifp, _, errno := so.k.rtalloc(to, inp.laddr.addr()); errno == 0 && ifp.owns(inp.laddr.addr()) {
		inp.ifp = ifp
	}
}

// txBlocked is a bit of txPending: the socket has stopped at its share of the queue, and waits
// until the queue has drained.
const txBlocked = 1 << 30

// pending returns how many bytes of the socket are on an interface's queue.
func (so *Socket) pending() int { return int(so.txPending.Load() &^ txBlocked) }

// Room reports whether the interface's queue takes more of this connection's data. On the loopback
// it always does, as the peer's window limits the data.
func (so *Socket) Room() bool {
	if so.inp.overLo() || so.pending() < txShare {
		return true
	}
	so.txPending.Or(txBlocked)
	return so.pending() < txShare // the queue may have drained meanwhile
}

// txDone notes that n bytes of the socket have left the queue. A connection that has stopped at its
// share goes on when half of the share has drained.
func (so *Socket) txDone(n int) {
	if so == nil {
		return
	}
	v := so.txPending.Add(int32(-n))
	if v&txBlocked == 0 || v&^txBlocked > txShare/2 || so.txPending.And(^txBlocked)&txBlocked == 0 {
		return
	}
	so.lock()
	switch {
	case so.dg != nil:
		so.sowakeup(&so.snd.sleepers)
	case !so.dead:
		so.tp.Unblock(so.k.now())
	}
	so.unlock()
}
