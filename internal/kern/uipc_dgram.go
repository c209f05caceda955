package kern

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// This file has the receive queue of sockets whose protocol is atomic (BSD's PR_ATOMIC and
// PR_ADDR): UDP, and ICMP and raw sockets. A record of the queue is a packet with its headers,
// which say whom it is from.
//
// The queue has two halves. The protocol puts packets in one under the socket's lock. Readers take
// them from the other, which they have for themselves; when it is empty, they take over what is in
// the first. So a reader and a sender that are both busy rarely wait for each other.

// A Msg is a datagram of a call that handles several: struct msghdr, as sendmmsg(2) and recvmmsg(2)
// use it.
type Msg struct {
	// Bufs are the pieces of the data.
	Bufs [][]byte
	// Addr is whom a received datagram is from, or where one is to be sent. On a connected socket
	// it need not be valid: then the datagram goes to the socket's peer.
	Addr netip.AddrPort
	// N is how many bytes of the data have been copied. Flags has MSG_TRUNC if the datagram was
	// longer.
	N, Flags int
}

// A dgram is what a datagram socket has besides its Socket. Each field says what guards it: (r)
// rmu; (s) the socket's lock.
type dgram struct {
	rmu   sync.Mutex // a reader's turn; taken before the socket's lock
	out   mbuf.Queue // (r) packets that readers take, older than those in in
	off   int        // (r) how much of the first one's data has been read, if it is several datagrams
	freed int        // (r) bytes that have been read, and that used still counts

	slow atomic.Bool  // a call must take the socket's lock to find out whether it may read: see dgnote
	used atomic.Int64 // bytes of memory that the queue holds
	most atomic.Int64 // SO_RCVBUF, for dgpace

	stuck atomic.Bool            // it was full, and its reader has not come by since: see dgpace
	near  atomic.Pointer[Socket] // the socket of this stack that was sent to last

	in       mbuf.Queue // (s)
	fullsock uint64     // (s) packets dropped because there was no room

	route dgroute     // (s)
	local mbuf.Queue  // (s) for a socket on this stack: dgunlock delivers them
	lpeer *Socket     // (s) which; nil: it has changed while they waited, so IP must look
	lgen  uint32      // (s) the generation of the sockets' addresses in which it was found
	mo    *ipMoptions // (s) nil: nobody has set an option of multicast
	opts  uint8       // (s) dgDontfrag and so on
	gso   int         // (s) UDP_SEGMENT: the length of the datagrams that data to send is cut into; 0: it is not

	bindAddr in6Addr // (s) the address that bind has set, which remains if the socket is disconnected
	bindPort bool    // (s) so with the port

	rawproto uint8 // of a raw socket; constant
}

// dgerror sets so_error, which the next call returns, and wakes those that sleep. The socket is
// locked.
func (so *Socket) dgerror(errno syscall.Errno) {
	so.err = uint32(errno)
	so.dgnote()
	so.sowakeup(&so.rcv.sleepers)
	so.sowakeup(&so.snd.sleepers)
}

// dgnote notes whether readers must look at the state of the socket. The socket is locked.
func (so *Socket) dgnote() {
	so.dg.slow.Store(so.closed() || so.dead || so.err != 0 || so.state&ssCantrcvmore != 0 ||
		so.rcv.deadline != never || so.k.home != 0)
}

// sbappendaddr puts a packet on the receive queue, with its headers, which are hlen bytes, all in
// the first Mbuf: BSD's sbappendaddr. It takes over the chain. It reports false, and frees the
// chain, if there is no room. The socket is locked.
func (so *Socket) sbappendaddr(m *mbuf.Mbuf, hlen int, ifp *Ifnet) bool {
	dg := so.dg
	if so.state&ssCantrcvmore != 0 { // as on Linux, what comes after shutdown(SHUT_RD) still arrives; nobody reads it
		mbuf.Free(m)
		return true
	}
	m = so.k.compact(m)
	n := int64(mbuf.Charge(m))
	// A single packet always has room, as Linux's sock_queue_rcv_skb allows, or a small buffer
	// could never receive anything.
	used := dg.used.Load()
	if used > 0 && used+n > int64(so.rcv.Hiwat()) || so.k.pressed() && used+n > int64(so.k.share()) {
		dg.fullsock++
		mbuf.Free(m)
		return false
	}
	dg.used.Add(n)
	m.Pkt.Hlen, m.Pkt.Rcvif = uint16(hlen), ifp.index
	dg.in.Put(m)
	so.sowakeup(&so.rcv.sleepers)
	return true
}

// compact returns a small packet in a small buffer. Otherwise each of a flood of small datagrams
// from a link would pin one of the link's buffers.
func (k *Kernel) compact(m *mbuf.Mbuf) *mbuf.Mbuf {
	n := m.Pkt.Len
	if n > mbuf.ClSmall-mbuf.Headroom || mbuf.Charge(m) < mbuf.ClMid {
		return m
	}
	c := k.pool.Getpkt(n)
	c.Extend(mbuf.Copydata(m, 0, c.Room()[:n]))
	c.Pkt = m.Pkt
	mbuf.Free(m)
	return c
}

// dgwait waits until there is a datagram. If it returns 0 and true, rmu is locked, and the first
// datagram is in out. It returns 0 and false if nothing more will be received.
func (so *Socket) dgwait(flags int) (syscall.Errno, bool) {
	dg := so.dg
	dg.rmu.Lock()
	if !dg.slow.Load() && !dg.out.Empty() {
		return 0, true
	}
	if so.k.home != 0 && so.k.away(so.k.now()) {
		dg.rmu.Unlock()
		return EXDEV, false
	}
	for {
		so.lock()
		errno, ok := so.dgreadable(flags)
		if ok {
			so.mu.Unlock()
			return 0, true
		}
		dg.rmu.Unlock()
		if errno == syscall.EAGAIN && flags&MSG_DONTWAIT == 0 {
			errno = so.sbwait(&so.rcv.sleepers)
		} else if errno == 0 {
			so.unlock()
			return 0, false
		}
		so.unlock()
		if errno != 0 {
			return errno, false
		}
		dg.rmu.Lock()
	}
}

// dgrcvwait is Sorcvwait for a datagram socket.
func (so *Socket) dgrcvwait() syscall.Errno {
	errno, ok := so.dgwait(0)
	if ok {
		so.dg.rmu.Unlock()
	}
	return errno
}

// dgreadable reports whether out has a datagram, after it has moved those in in there. If out has
// none, the errno says why: EWOULDBLOCK if the caller may wait, 0 if nothing more will be received.
// rmu and the socket's lock are held.
func (so *Socket) dgreadable(flags int) (syscall.Errno, bool) {
	dg := so.dg
	switch {
	case so.closed(), so.dead:
		return syscall.EBADF, false
	case so.late(&so.rcv.sleepers):
		return syscall.EAGAIN, false
	case so.err != 0: // before data, as on Linux
		errno := so.takeError()
		so.dgnote()
		return errno, false
	}
	if dg.out.Empty() {
		dg.out, dg.in = dg.in, mbuf.Queue{}
		dg.settle()
	}
	switch {
	case !dg.out.Empty():
		return 0, true
	case so.state&ssCantrcvmore != 0 && so.state&ssNbio == 0: // else EWOULDBLOCK, as on Linux
		return 0, false
	}
	return syscall.EAGAIN, false
}

// settle has used count what has been read. rmu is held.
func (dg *dgram) settle() {
	if dg.freed != 0 {
		dg.used.Add(int64(-dg.freed))
		dg.freed = 0
		if dg.stuck.Load() {
			dg.stuck.Store(false)
		}
	}
}

// Soreceivefrom copies the next datagram into b, and sleeps while there is none: 4.4BSD's soreceive
// for a protocol with PR_ATOMIC and PR_ADDR. What does not fit in b is lost, and flags has
// MSG_TRUNC then. If from is not valid and there is no error, the user has shut the socket down.
// Soreceivefrom fails with EBADF if the socket is closed, with EWOULDBLOCK when the deadline has
// passed, and with so_error, which it clears, if there is one.
func (so *Socket) Soreceivefrom(b []byte) (n int, from netip.AddrPort, flags int, errno syscall.Errno) {
	return so.dgreceive(b, 0)
}

// dgreceive is Soreceivefrom with flags.
func (so *Socket) dgreceive(b []byte, flags int) (n int, from netip.AddrPort, rflags int, errno syscall.Errno) {
	errno, ok := so.dgwait(flags)
	if !ok {
		return 0, from, 0, errno
	}
	dg := so.dg
	m, off, size := dg.next(flags)
	from = so.dgfrom(m)
	if flags&MSG_PEEK != 0 || m == dg.out.Head() { // it stays on the queue
		n = mbuf.Copydata(m, off, b[:min(len(b), size)])
		dg.rmu.Unlock()
	} else {
		dg.rmu.Unlock()
		n = mbuf.Copydata(m, off, b[:min(len(b), size)])
		mbuf.Free(m)
	}
	if n < size {
		rflags |= MSG_TRUNC
	}
	return n, from, rflags, 0
}

// next takes the next datagram, which is size bytes from offset off of packet m, and takes m off
// the queue if it has no more, unless flags has MSG_PEEK. rmu is held, and there is one.
func (dg *dgram) next(flags int) (m *mbuf.Mbuf, off, size int) {
	m = dg.out.Head()
	off = int(m.Pkt.Hlen) + dg.off
	size = m.Pkt.Len - off
	last := true
	if seg := m.Pkt.SegSize; seg > 0 && size > seg {
		size, last = seg, false
	}
	switch {
	case flags&MSG_PEEK != 0:
	case !last:
		dg.off += size
	default:
		dg.out.Get()
		dg.off = 0
		dg.freed += mbuf.Charge(m)
		if dg.out.Empty() || dg.freed >= dgSettle {
			dg.settle()
		}
	}
	return m, off, size
}

// dgSettle is how many bytes readers take before they tell the sender, which has to fetch the count
// from their processor.
const dgSettle = 16 << 10

// dgfrom returns whom a packet of the receive queue is from.
func (so *Socket) dgfrom(m *mbuf.Mbuf) netip.AddrPort {
	var a netip.Addr
	b := m.Bytes()
	if b[0]>>4 == 4 {
		a = netip.AddrFrom4([4]byte(b[12:16]))
		if so.proto.domain == AF_INET6 {
			a = netip.AddrFrom16(a.As16()) // mapped, as the system calls of a dual-stack socket have it
		}
	} else {
		a = netip.AddrFrom16([16]byte(b[8:24]))
		if needsZone(a) {
			ifp := so.k.ifByIndex(m.Pkt.Rcvif)
			if ifp != nil && ifp.loopback {
				ifp = so.k.ifaWithAddr(a) // an address of our own
			}
			if ifp != nil {
				a = a.WithZone(ifp.Name)
			}
		}
	}
	port := uint16(0)
	if so.proto.proto == wire.ProtoUDP {
		port = wire.UDPView(b[m.Pkt.Hlen-wire.UDPLen:]).Sport()
	}
	return netip.AddrPortFrom(a, port)
}

// Soreceivemsgs receives as many datagrams as there are, but at most one for each element of msgs,
// and sleeps while there is none: recvmmsg(2). It returns how many there were; 0 and no error if
// the user has shut the socket down. flags can have MSG_DONTWAIT and MSG_PEEK, which sees only the
// first. It fails as Soreceivefrom does.
func (so *Socket) Soreceivemsgs(msgs []Msg, flags int) (n int, errno syscall.Errno) {
	if len(msgs) == 0 {
		return 0, 0
	}
	errno, ok := so.dgwait(flags)
	if !ok {
		return 0, errno
	}
	dg := so.dg
	var done mbuf.Queue
	for {
		m, off, size := dg.next(flags)
		so.dgcopy(&msgs[n], m, off, size)
		if flags&MSG_PEEK == 0 && m != dg.out.Head() {
			done.Put(m)
		}
		n++
		if n == len(msgs) || flags&MSG_PEEK != 0 {
			break
		}
		if dg.out.Empty() {
			so.lock()
			dg.out, dg.in = dg.in, mbuf.Queue{}
			so.mu.Unlock()
			if dg.out.Empty() {
				break
			}
		}
	}
	dg.rmu.Unlock()
	done.Flush()
	return n, 0
}

// dgcopy copies a datagram to msg.
func (so *Socket) dgcopy(msg *Msg, m *mbuf.Mbuf, off, size int) {
	msg.Addr = so.dgfrom(m)
	msg.N, msg.Flags = 0, 0
	for _, b := range msg.Bufs {
		k := mbuf.Copydata(m, off, b[:min(len(b), size)])
		msg.N += k
		off, size = off+k, size-k
		if size == 0 {
			break
		}
	}
	if size > 0 {
		msg.Flags |= MSG_TRUNC
	}
}

// dgclose ends the socket's use of its protocol, wakes all sleepers, and frees what nobody will
// read. The socket is not locked, and its state says that it is closed.
func (so *Socket) dgclose(req pruReq) {
	dg := so.dg
	so.lock()
	so.state |= ssNofdref | ssCantrcvmore | ssCantsendmore
	if !so.dead {
		so.proto.usrreq(so, req, usrreqArgs{})
	}
	so.dgnote()
	dg.leaveAll()
	dg.in.Flush()
	so.sowakeup(&so.rcv.sleepers)
	so.sowakeup(&so.snd.sleepers)
	so.sofree()
	so.unlock()
	dg.rmu.Lock()
	dg.out.Flush() // nothing comes any more, as the socket is dead
	dg.rmu.Unlock()
}

// dgshutdown is Soshutdown for a datagram socket: nothing is told to the peer. The socket is
// locked. As on Linux, it takes effect, and wakes readers, even if it fails with ENOTCONN.
func (so *Socket) dgshutdown(how int) syscall.Errno {
	if how != SHUT_WR {
		so.state |= ssCantrcvmore
		so.sowakeup(&so.rcv.sleepers)
	}
	if how != SHUT_RD {
		so.socantsendmore()
	}
	so.dgnote()
	if so.state&ssIsconnected == 0 {
		return syscall.ENOTCONN
	}
	return 0
}

// dgreserve sets SO_SNDBUF or SO_RCVBUF. The socket is locked.
func (so *Socket) dgreserve(name, n int) {
	if name == SO_SNDBUF {
		so.sbreserve(&so.snd.Sockbuf, n)
		so.sowakeup(&so.snd.sleepers)
	} else {
		so.sbreserve(&so.rcv.Sockbuf, n)
		so.dg.most.Store(int64(so.rcv.Hiwat()))
	}
}
