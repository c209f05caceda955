package kern

import (
	"net/netip"
	"syscall"

	"bsdnet/internal/kern/tcp"
)

// This file has BSD's calls on a socket, which the system calls and the facade use. Each takes the
// socket's lock, and leaves it by unlock.

// Socreate makes a socket: 4.4BSD's socreate. It fails with EPROTONOSUPPORT if there is no such
// protocol, with EPROTOTYPE if the protocol is of another type, with ENOBUFS if the stack is short
// of memory, and with EBADF if the stack is closed.
func (k *Kernel) Socreate(domain, typ, proto int) (*Socket, syscall.Errno) {
	if k.closed.Load() {
		return nil, syscall.EBADF
	}
	if k.away(k.now()) {
		return nil, EXDEV
	}
	p := pffindtype(domain, typ)
	if proto != 0 {
		p = pffindsocket(domain, typ, proto)
	}
	if p == nil || p.usrreq == nil {
		return nil, syscall.EPROTONOSUPPORT
	}
	if p.typ != typ {
		return nil, syscall.EPROTOTYPE
	}
	if k.pressed() {
		if k.tcpDrain(); k.pressed() {
			return nil, syscall.ENOBUFS
		}
	}
	so := k.newSocket(p)
	so.lock()
	errno := p.usrreq(so, pruAttach, usrreqArgs{nam: netip.AddrPortFrom(netip.Addr{}, uint16(proto))})
	if errno != 0 {
		so.unlock()
		return nil, errno
	}
	open := k.enlist(so)
	so.unlock()
	if !open {
		so.Soabort()
		return nil, syscall.EBADF
	}
	return so, 0
}

// Sobind gives the socket a local address and port: 4.4BSD's sobind.
func (so *Socket) Sobind(nam netip.AddrPort) syscall.Errno {
	so.lock()
	defer so.unlock()
	return so.proto.usrreq(so, pruBind, usrreqArgs{nam: nam})
}

// Solisten makes the socket accept connections, of which at most backlog wait: 4.4BSD's solisten. A
// backlog of less than 1 counts as 1, one of more than kern.ipc.somaxconn as that. Solisten fails
// with EINVAL if the socket is connected, or is being connected.
func (so *Socket) Solisten(backlog int) syscall.Errno {
	so.lock()
	defer so.unlock()
	now := so.k.now()
	if so.k.away(now) {
		return EXDEV
	}
	if so.state&(ssIsconnected|ssIsconnecting|ssIsdisconnecting) != 0 || so.dead || so.inTimeWait() {
		return syscall.EINVAL // as in FreeBSD's solisten_proto_check; 4.4BSD corrupts the state machine
	}
	if errno := so.proto.usrreq(so, pruListen, usrreqArgs{now: now}); errno != 0 {
		return errno
	}
	if so.lq == nil {
		so.lq = &listenq{}
	}
	so.options |= SO_ACCEPTCONN
	so.lq.qlimit = min(max(backlog, 1), so.k.somaxconn)
	return 0
}

// Soconnect begins to connect: 4.4BSD's soconnect. Soconnectwait sleeps until that has ended.
func (so *Socket) Soconnect(nam netip.AddrPort) syscall.Errno {
	so.lock()
	defer so.unlock()
	now := so.k.now()
	if so.k.away(now) {
		return EXDEV
	}
	switch {
	case so.dg != nil:
		if so.closed() {
			return syscall.EBADF
		}
		return so.proto.usrreq(so, pruConnect, usrreqArgs{nam: nam, now: now}) // which may be connected already
	case so.options&SO_ACCEPTCONN != 0:
		return syscall.EOPNOTSUPP
	case so.state&ssIsconnected != 0:
		return syscall.EISCONN
	case so.state&ssIsconnecting != 0:
		return syscall.EALREADY
	}
	return so.proto.usrreq(so, pruConnect, usrreqArgs{nam: nam, now: now})
}

// Soconnectwait sleeps until the socket is connected or has failed: the second half of BSD's
// connect system call. It returns EINPROGRESS if the socket does not block, and EWOULDBLOCK if the
// write deadline has passed.
func (so *Socket) Soconnectwait() syscall.Errno {
	so.lock()
	defer so.unlock()
	for so.state&ssIsconnecting != 0 && so.err == 0 {
		if so.closed() {
			return syscall.EBADF
		}
		if so.state&ssNbio != 0 {
			return syscall.EINPROGRESS
		}
		if errno := so.sbwait(&so.snd.sleepers); errno != 0 {
			return errno
		}
	}
	if so.closed() {
		return syscall.EBADF
	}
	return so.takeError()
}

// takeError returns so_error and clears it.
func (so *Socket) takeError() syscall.Errno {
	errno := syscall.Errno(so.err)
	so.err = 0
	return errno
}

// Soaccept takes a connection off the queue of a listening socket, and sleeps while there is none:
// BSD's accept1 and soaccept.
func (so *Socket) Soaccept() (*Socket, syscall.Errno) {
	if so.k.away(so.k.now()) {
		return nil, EXDEV
	}
	so.lock()
	defer so.unlock()
	if so.options&SO_ACCEPTCONN == 0 {
		return nil, syscall.EINVAL
	}
	for {
		switch {
		case so.closed():
			return nil, syscall.EBADF
		case so.late(&so.rcv.sleepers):
			return nil, syscall.EAGAIN
		case so.err != 0:
			return nil, so.takeError()
		case len(so.lq.q) > 0:
			return so.soqtake(), 0
		case so.state&ssCantrcvmore != 0:
			return nil, syscall.ECONNABORTED
		}
		if errno := so.sbwait(&so.rcv.sleepers); errno != 0 {
			return nil, errno
		}
	}
}

// soqtake removes the first connection of the queue and gives it to the caller, who is its user
// from then on.
func (so *Socket) soqtake() *Socket {
	child := so.lq.q[0]
	so.soqremque(child)
	child.lock()
	child.state &^= ssNofdref
	child.tp.Clear(tcp.UserClosed)
	child.head = nil
	child.sbflags &^= sbMend
	child.proto.usrreq(child, pruAccept, usrreqArgs{})
	child.mu.Unlock()
	if len(so.lq.q) > 0 {
		so.sowakeup(&so.rcv.sleepers)
	}
	so.unpark()
	return child
}

// How to shut down, as in sys/socket.h.
const (
	SHUT_RD   = 0
	SHUT_WR   = 1
	SHUT_RDWR = 2
)

// Soshutdown ends one direction or both: 4.4BSD's soshutdown. It fails with ENOTCONN if there is no
// connection.
func (so *Socket) Soshutdown(how int) syscall.Errno {
	so.lock()
	defer so.unlock()
	now := so.k.now()
	if so.k.away(now) {
		return EXDEV
	}
	switch {
	case how < SHUT_RD || how > SHUT_RDWR:
		return syscall.EINVAL
	case so.closed():
		return syscall.EBADF
	case so.dg != nil:
		return so.dgshutdown(how)
	case so.options&SO_ACCEPTCONN != 0 && how != SHUT_WR:
		so.state |= ssCantrcvmore // accept returns ECONNABORTED from now on, as in FreeBSD
		so.sowakeup(&so.rcv.sleepers)
		return syscall.ENOTCONN
	case so.state&(ssIsconnected|ssIsconnecting|ssIsdisconnecting) == 0:
		return syscall.ENOTCONN
	}
	if how != SHUT_WR {
		so.sorflush()
	}
	if how != SHUT_RD {
		return so.proto.usrreq(so, pruShutdown, usrreqArgs{now: now})
	}
	return 0
}

// sorflush ends receiving, and discards data that has arrived: BSD's sorflush. As Linux's shutdown
// does, it discards nothing if the profile says so.
func (so *Socket) sorflush() {
	so.state |= ssCantrcvmore
	so.tp.Set(tcp.CantRcvMore)
	if !so.k.prof.ShutRdKeeps {
		so.rcv.Flush()
	}
	so.sowakeup(&so.rcv.sleepers)
}

// Soclose closes the socket for its user: 4.4BSD's soclose. The protocol still delivers data that
// is queued, and then closes the connection. It resets the connection instead if SO_LINGER has the
// time 0, or, in the Default profile, if unread data is lost (RFC 2525, 2.17). If the socket
// listens, Soclose resets the connections that no user has accepted.
func (so *Socket) Soclose() syscall.Errno {
	so.lock()
	now := so.k.now()
	if so.closed() {
		so.unlock()
		return syscall.EBADF
	}
	if so.k.away(now) {
		so.unlock()
		return EXDEV
	}
	if so.dg != nil {
		so.state |= ssNofdref
		so.unlock()
		so.dgclose(pruDetach)
		return 0
	}
	var orphans []*Socket
	if so.options&SO_ACCEPTCONN != 0 {
		orphans = so.solistenclose()
	}
	errno := syscall.Errno(0)
	if so.state&ssIsconnected != 0 {
		if so.state&ssIsdisconnecting == 0 {
			errno = so.sodisconnect(now)
		}
		if errno == 0 && so.options&SO_LINGER != 0 && so.linger > 0 {
			so.lingering(now)
			now = so.k.now()
		}
	}
	if so.dead {
		so.tp.Set(tcp.UserClosed)
	} else {
		so.tp.Orphan(now)
	}
	so.sowakeup(&so.rcv.sleepers)
	so.sowakeup(&so.snd.sleepers)
	if !so.dead {
		so.proto.usrreq(so, pruDetach, usrreqArgs{now: now})
	}
	so.state |= ssNofdref
	so.rcv.Flush()
	so.sofree() // it frees nothing while the protocol has work to do
	so.unlock()
	for _, o := range orphans {
		o.Soabort()
	}
	return errno
}

// sodisconnect begins to close a connection: BSD's sodisconnect.
func (so *Socket) sodisconnect(now int64) syscall.Errno {
	return so.proto.usrreq(so, pruDisconnect, usrreqArgs{now: now})
}

// lingering sleeps until all data has been sent and acknowledged, but at most for the seconds of
// SO_LINGER; then the protocol delivers the rest in the background. It uses the deadline of writes,
// as all other calls fail with EBADF from here on, those that sleep and another close included: in
// BSD the descriptor has gone before soclose is called.
func (so *Socket) lingering(now int64) {
	if so.state&ssNbio != 0 {
		return
	}
	so.state |= ssLingering
	so.sowakeup(&so.rcv.sleepers)
	so.sowakeup(&so.snd.sleepers)
	if so.k.prof.ShutRdKeeps {
		so.tp.Set(tcp.UserClosed) // a reset answers data that comes meanwhile, as in Linux
	}
	so.snd.deadline = now + int64(so.linger)*1e9
	for so.state&ssIsconnected != 0 && !so.dead {
		if so.sbwait(&so.snd.sleepers) != 0 {
			return
		}
	}
}

// Soabort ends a socket at once, with a reset if there is a connection: BSD's soabort.
func (so *Socket) Soabort() {
	if so.dg != nil {
		so.dgclose(pruAbort)
		return
	}
	so.lock()
	var orphans []*Socket
	if so.options&SO_ACCEPTCONN != 0 && so.lq != nil {
		orphans = so.solistenclose()
	}
	so.state |= ssNofdref
	so.head = nil
	if so.dead {
		so.sofree()
	} else {
		so.proto.usrreq(so, pruAbort, usrreqArgs{now: so.k.now()}) // in_pcbdetach leads to sofree
	}
	so.rcv.Flush()
	so.snd.Flush()
	so.sowakeup(&so.rcv.sleepers)
	so.sowakeup(&so.snd.sleepers)
	so.unlock()
	for _, o := range orphans {
		o.Soabort()
	}
}

// Socancel ends an attempt to connect, from any goroutine: Soconnectwait returns errno. It has no
// effect on a connection that is established.
func (so *Socket) Socancel(errno syscall.Errno) {
	so.lock()
	defer so.unlock()
	if so.state&ssIsconnecting != 0 && !so.dead {
		so.err = uint32(errno)
		so.tp.Close()
	}
}

// sofree forgets a socket that neither a user nor a protocol refers to: BSD's sofree.
func (so *Socket) sofree() {
	if !so.dead || so.state&ssNofdref == 0 {
		return
	}
	if so.head != nil {
		so.sbflags |= sbMend // it waits on so_q, and the listener's lock must be taken first, so leave does this
		return
	}
	so.k.chainAt("sofree")
	so.rcv.Flush()
	so.snd.Flush()
	so.inp.tw = nil
	so.k.sockets.remove(so)
	so.k.clock.disarm(&so.out)
	so.out.armed = never
}
