package kern

import (
	"net/netip"
	"syscall"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// This file sends datagrams: sosend for protocols that are atomic. There is no send buffer, as
// nothing is kept for the protocol. SO_SNDBUF bounds what waits on the interfaces' queues instead,
// as it does on Linux.

// maxDgram is more than a datagram of any protocol has in bytes: a call with more need not be
// copied to be refused.
const maxDgram = 65535

// Sosendto sends b as one datagram to an address, or, if that is not valid, to the socket's peer:
// 4.4BSD's sosend for a protocol with PR_ATOMIC. It sleeps while SO_SNDBUF bytes of the socket's
// wait on an interface's queue, or the queue is full. It fails with EBADF if the socket is closed,
// with EPIPE if the user has shut it down, with EDESTADDRREQ if there is no address, with EMSGSIZE
// if b is too long, with EWOULDBLOCK when the deadline has passed, with so_error, which it clears,
// if there is one, and as the protocol's output does.
func (so *Socket) Sosendto(b []byte, to netip.AddrPort) (int, syscall.Errno) {
	return so.dgsendto(b, to, 0)
}

// dgsendto is Sosendto with flags.
func (so *Socket) dgsendto(b []byte, to netip.AddrPort, flags int) (int, syscall.Errno) {
	if len(b) > maxDgram {
		so.lock()
		defer so.unlock()
		return 0, so.dgtoolong(to)
	}
	if so.dg.dgpace(len(b)) && so.udpHopeless(len(b), to) {
		return len(b), 0
	}
	m := so.k.pool.Getpkt(len(b))
	m.Pkt.Len = m.Append(b)
	so.lock()
	errno := so.dgsend(m, to, flags)
	so.dgunlock()
	if errno != 0 {
		return 0, errno
	}
	return len(b), 0
}

// dgsend sends a datagram, and takes over its chain. The socket is locked.
func (so *Socket) dgsend(m *mbuf.Mbuf, to netip.AddrPort, flags int) syscall.Errno {
	errno := so.dgwritable(m.Pkt.Len, flags)
	for errno == 0 {
		errno = so.proto.usrreq(so, pruSend, usrreqArgs{m: m, nam: to})
		if errno != errFull {
			return errno
		}
		// The queue is full of others' packets. room has noted that the socket waits.
		if errno = syscall.EAGAIN; flags&MSG_DONTWAIT == 0 {
			errno = so.sbwait(&so.snd.sleepers)
		}
		if errno == 0 {
			errno = so.dgwritable(m.Pkt.Len, flags)
		}
	}
	mbuf.Free(m)
	return errno
}

// dgwritable sleeps until the socket may send n bytes of data, and returns 0 then. As on Linux, an
// error that waits for the user still waits if the protocol will find the data too long. The socket
// is locked.
func (so *Socket) dgwritable(n, flags int) syscall.Errno {
	for {
		if errno := so.dgintime(); errno != 0 {
			return errno
		}
		switch {
		case so.err != 0 && n <= so.dgmax(): // before EPIPE, as on Linux
			errno := so.takeError()
			so.dgnote()
			return errno
		case so.state&ssCantsendmore != 0:
			return syscall.EPIPE
		}
		if so.dgroom() {
			return 0
		}
		if flags&MSG_DONTWAIT != 0 {
			return syscall.EAGAIN
		}
		if !so.dg.local.Empty() { // what the caller has queued goes out first
			so.dgunlock()
			so.lock()
			continue
		}
		if errno := so.sbwait(&so.snd.sleepers); errno != 0 {
			return errno
		}
	}
}

// dgunlock leaves the lock, does what remains to be done, and delivers the datagrams that are for a
// socket on this stack.
func (so *Socket) dgunlock() {
	q, peer, gen := so.dg.local, so.dg.lpeer, so.dg.lgen
	so.dg.local = mbuf.Queue{}
	so.unlock()
	if !q.Empty() {
		so.k.udpDeliver(&q, peer, gen)
	}
}

// dgintime returns the errno of every call that sends, whatever it sends: once the socket is
// closed, in another bubble, and after the deadline. The socket is locked.
func (so *Socket) dgintime() syscall.Errno {
	switch {
	case so.closed(), so.dead:
		return syscall.EBADF
	case so.k.home != 0 && so.k.away(so.k.now()):
		return EXDEV
	case so.snd.deadline != never && so.late(&so.snd.sleepers):
		return syscall.EAGAIN
	}
	return 0
}

// dgmax returns how many bytes of data a datagram can have at most.
func (so *Socket) dgmax() int {
	if so.proto.domain == AF_INET && so.proto.proto == wire.ProtoUDP {
		return udpMaxLen4
	}
	return maxDgram
}

// dgtoolong returns the errno of a call with more bytes than a datagram has. As on Linux, an error
// that waits for the user still waits for the next call, and a socket of IPv6 looks for the way
// first. The socket is locked.
func (so *Socket) dgtoolong(to netip.AddrPort) syscall.Errno {
	if errno := so.dgintime(); errno != 0 {
		return errno
	}
	if so.proto.domain == AF_INET || so.proto.proto != wire.ProtoUDP {
		return syscall.EMSGSIZE
	}
	if !to.IsValid() {
		if so.state&ssIsconnected == 0 {
			return syscall.EDESTADDRREQ
		}
		to = so.inp.remote()
	}
	if _, errno := so.udpRoute(to, so.inp.laddr); errno != 0 {
		return errno
	}
	return syscall.EMSGSIZE
}

// dgroom reports whether the socket may put another datagram on a queue. If not, txDone will wake
// the writers.
func (so *Socket) dgroom() bool {
	limit := so.snd.Hiwat()
	if so.k.pressed() {
		limit = min(limit, so.k.share())
	}
	if so.pending() < limit {
		return true
	}
	so.txPending.Or(txBlocked)
	return so.pending() < limit // the queue may have drained meanwhile
}

// Sosendmsgs sends several datagrams: sendmmsg(2). It returns how many it has sent. It fails as
// Sosendto does, but only if it has not sent the first; flags can have MSG_DONTWAIT. Datagrams that
// follow each other to one address, and are of one length, go as one chain, which is cut as late as
// possible.
func (so *Socket) Sosendmsgs(msgs []Msg, flags int) (n int, errno syscall.Errno) {
	so.lock()
	for n < len(msgs) {
		k, total := so.dgrun(msgs[n:])
		if total > maxDgram {
			errno = so.dgtoolong(msgs[n].Addr)
			break
		}
		if !so.dg.local.Empty() && msgs[n].Addr != so.dg.route.to {
			so.dgunlock() // delivers what is for another peer
			so.lock()
		}
		m := so.k.pool.Getpkt(total)
		for i := range msgs[n : n+k] {
			msg := &msgs[n+i]
			before := len(m.Bytes())
			for _, b := range msg.Bufs {
				m.Append(b)
			}
			msg.N = len(m.Bytes()) - before
		}
		m.Pkt.Len = total
		if k > 1 {
			m.Pkt.SegSize = msgs[n].N
		}
		if errno = so.dgsend(m, msgs[n].Addr, flags); errno != 0 {
			break
		}
		n += k
	}
	so.dgunlock()
	if n > 0 {
		errno = 0
	}
	return n, errno
}

// dgrun returns how many of the first messages can go as one chain, at least 1, and how many bytes
// they have. All have the same length, except that the last may be shorter. The socket is locked.
func (so *Socket) dgrun(msgs []Msg) (k, total int) {
	size := msgs[0].size()
	r := &so.dg.route
	if so.proto.proto != wire.ProtoUDP || size == 0 || r.ifp == nil || r.several || r.to != msgs[0].Addr ||
		size+wire.UDPLen+r.iphlen() > r.mtu || so.dg.gso != 0 {
		return 1, size
	}
	for k, total = 1, size; k < len(msgs) && k < udpMaxSegs; {
		n := msgs[k].size()
		if n == 0 || n > size || total+n > udpMaxLen4 || msgs[k].Addr != r.to {
			break
		}
		k++
		total += n
		if n < size {
			break
		}
	}
	return k, total
}

// size returns how many bytes of data the message has.
func (msg *Msg) size() int {
	n := 0
	for _, b := range msg.Bufs {
		n += len(b)
	}
	return n
}
