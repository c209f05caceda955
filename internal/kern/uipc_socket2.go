package kern

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/tcp"
)

// The life of a connection, as seen from the socket: soconnect makes it SS_ISCONNECTING, and
// soisconnected, which the protocol calls, SS_ISCONNECTED. sodisconnect makes it
// SS_ISDISCONNECTING, and soisdisconnected ends that. On the passive side a listener's sonewconn
// makes the socket, which waits on so_q until soaccept takes it. All of this happens under the
// socket's lock. A goroutine that has changed the socket leaves the lock by leave; one that has
// only read may unlock so.mu.

// soState is so_state, under BSD's SS_ and SBS_ names.
type soState uint16

const (
	ssNofdref         soState = 1 << iota // no user refers to the socket any more
	ssIsconnected                         // the connection is established
	ssIsconnecting                        // it is being set up
	ssIsdisconnecting                     // it is being closed
	ssIsdisconnected                      // it is over
	ssCantsendmore                        // the user sends no more
	ssCantrcvmore                         // nothing more is received
	ssNbio                                // calls do not block
	ssWasconnected                        // it has been established, so calls return EPIPE or EOF, not ENOTCONN
	ssDone                                // the peer has sent its FIN: Linux's SOCK_DONE
	ssLingering                           // its user's close is waiting, as SO_LINGER says
)

var ssNames = [...]string{
	"SS_NOFDREF", "SS_ISCONNECTED", "SS_ISCONNECTING", "SS_ISDISCONNECTING", "SS_ISDISCONNECTED",
	"SS_CANTSENDMORE", "SS_CANTRCVMORE", "SS_NBIO", "SS_WASCONNECTED",
}

// String returns the flags that BSD has, in its spelling, with "|" between them; "0" if there are
// none.
func (s soState) String() string {
	var set []string
	for i, name := range ssNames {
		if s>>i&1 != 0 {
			set = append(set, name)
		}
	}
	if set == nil {
		return "0"
	}
	return strings.Join(set, "|")
}

// Flags of the two sockbufs: BSD's SB_LOCK, if a call has the buffer, and SB_WANT, if another waits
// for it. The last two are notes of what leave must do: wake the sleepers; take the socket, which
// has died there, off the listener's queue.
const (
	rcvLock = 1 << iota
	rcvWant
	sndLock
	sndWant
	sbWake
	sbMend
)

// An rcvbuf and a sndbuf are the directions of a socket: data, and the calls that sleep for it.
// Together they are 4.4BSD's struct sockbuf.
type rcvbuf struct {
	mbuf.Sockbuf
	sleepers
}

type sndbuf struct {
	mbuf.Sendbuf
	sleepers
}

// sleepers holds the fields of struct sockbuf for the calls that sleep for one direction.
type sleepers struct {
	deadline int64 // when calls give up: a deadline as net.Conn's, in place of SO_RCVTIMEO and SO_SNDTIMEO
	waiters  int32
	lowat    int32 // fewest bytes worth waking for: sb_lowat
}

// A Socket is an end of communication: 4.4BSD's struct socket, with its inpcb and tcpcb.
type Socket struct {
	k     *Kernel
	proto *protosw
	out   callout // its place in the clock

	txPending atomic.Int32 // bytes on an interface's queue, and txBlocked
	listIdx   int32        // its index in its shard of the list of sockets; guarded by the shard

	mu      sync.Mutex // guards all fields below
	options soOptions
	state   soState
	err     uint32     // so_error: an errno, which has no more bits on any system
	linger  uint16     // seconds
	sbflags uint8      // sb_flags of both buffers, and notes for leave
	dead    bool       // the connection is over; every call checks this
	flow    uint32     // of its segments: see tuple.flow
	cond    *sync.Cond // wakes the sleepers of both buffers; nil: there has been none for a while
	rcv     rcvbuf
	snd     sndbuf
	head    *Socket // the listener on whose queue it is: so_head
	lq      *listenq
	inp     inpcb
	tp      tcp.TCB
	dg      *dgram // of a datagram socket, whose tp is not used; else nil

	txq    *ifqueue
	txMore *[]*ifqueue // more queues; a listener may have several
}

// lock takes the lock: for a call of the user's, for a packet, or for the clock.
func (so *Socket) lock() { so.mu.Lock() }

// An exit says what remains to be done after the lock has been left: which sleepers to wake, which
// queues to drain.
type exit struct {
	so   *Socket
	q    *ifqueue
	more *[]*ifqueue
	mend *Socket
	wake *sync.Cond
}

// leave sets the clock, unlocks the socket, and returns what the caller must do then.
func (so *Socket) leave() exit {
	e := exit{so: so, q: so.txq, more: so.txMore}
	so.txq, so.txMore = nil, nil
	if so.sbflags&(sbWake|sbMend) != 0 {
		if so.sbflags&sbWake != 0 {
			e.wake = so.cond
		}
		if so.sbflags&sbMend != 0 {
			e.mend = so.head
		}
		so.sbflags &^= sbWake | sbMend
	}
	if t := so.nextDeadline(); t < so.out.armed {
		so.out.armed = t
		so.k.clock.arm(&so.out, t)
	}
	so.mu.Unlock()
	return e
}

// do wakes the sleepers and sends the packets: BSD's splx.
func (e exit) do() {
	if e.wake != nil {
		e.wake.Broadcast()
	}
	if e.mend != nil {
		e.mend.soqmend(e.so)
	}
	if e.q != nil {
		e.q.start()
		if e.more != nil {
			for _, q := range *e.more {
				q.start()
			}
		}
	}
}

// drain notes that a queue must be drained when the lock has been left. q may be nil.
func (so *Socket) drain(q *ifqueue) {
	switch {
	case q == nil || q == so.txq:
	case so.txq == nil:
		so.txq = q
	default:
		if so.txMore == nil {
			so.txMore = new([]*ifqueue)
		}
		*so.txMore = append(*so.txMore, q)
	}
}

// unlock leaves the lock, and does what remains to be done.
func (so *Socket) unlock() { so.leave().do() }

// closed reports whether the user has closed the socket, so that calls fail with EBADF. The close
// itself may still be waiting.
func (so *Socket) closed() bool { return so.state&(ssNofdref|ssLingering) != 0 }

// busy reports whether the caller must leave the lock before it sleeps, as others wait for what it
// has done.
func (so *Socket) busy() bool { return so.txq != nil || so.sbflags&(sbWake|sbMend) != 0 }

// passed is a deadline that had passed when it was set, as net/http sets one to end a read: the
// sleepers have been woken, and the clock has nothing to do for it.
const passed = int64(0)

// nextDeadline returns when the clock must call the socket next.
func (so *Socket) nextDeadline() int64 {
	t := never
	if so.dg != nil {
		// It has no timers.
	} else if !so.dead {
		t = so.k.even(so.tp.Next())
	} else if so.state&ssNofdref != 0 {
		return never // all sleepers have been woken
	}
	if so.rcv.waiters > 0 && so.rcv.deadline != passed {
		t = min(t, so.rcv.deadline)
	}
	if so.snd.waiters > 0 && so.snd.deadline != passed {
		t = min(t, so.snd.deadline)
	}
	return t
}

// expire is called by the clock. It runs the timers, as BSD's tcp_timers, and the time-outs of
// tsleep.
func (so *Socket) expire(now int64) {
	so.lock()
	so.out.armed = never
	so.tcpTimers(now)
	switch {
	case so.rcv.waiters > 0 && so.rcv.deadline <= now, so.snd.waiters > 0 && so.snd.deadline <= now:
		so.sbflags |= sbWake
	case so.rcv.waiters+so.snd.waiters == 0:
		so.cond = nil // an idle connection needs no cond
	}
	so.unlock()
}

// sbwait sleeps until the buffer changes: BSD's sbwait. When it returns 0, the caller checks its
// condition again. It fails with EWOULDBLOCK if the deadline has passed or the socket does not
// block, and with EXDEV if the caller is in another bubble.
func (so *Socket) sbwait(sb *sleepers) syscall.Errno {
	if so.state&ssNbio != 0 {
		return syscall.EAGAIN
	}
	if so.busy() { // what the caller has queued goes out first
		so.unlock()
		so.lock()
		return 0
	}
	if so.late(sb) {
		return syscall.EAGAIN
	}
	if so.k.away(so.k.now()) {
		return EXDEV // the runtime ends a program that wakes a sleeper of another bubble
	}
	sb.waiters++
	if t := so.nextDeadline(); t < so.out.armed {
		so.out.armed = t
		so.k.clock.arm(&so.out, t)
	}
	if so.cond == nil {
		so.cond = sync.NewCond(&so.mu)
	}
	so.cond.Wait()
	sb.waiters--
	return 0
}

// late reports whether the buffer's deadline has passed. Then calls fail even if they need not
// wait, as package net's do.
func (so *Socket) late(sb *sleepers) bool {
	return sb.deadline == passed || sb.deadline != never && so.k.now() >= sb.deadline
}

// sbbits returns which flags are the buffer's.
func (so *Socket) sbbits(sb *sleepers) (lock, want uint8) {
	if sb == &so.rcv.sleepers {
		return rcvLock, rcvWant
	}
	return sndLock, sndWant
}

// sblock takes the buffer for a call, so that the data of two calls does not mix: BSD's sblock.
func (so *Socket) sblock(sb *sleepers) syscall.Errno {
	lock, want := so.sbbits(sb)
	for so.sbflags&lock != 0 {
		if so.closed() {
			return syscall.EBADF
		}
		so.sbflags |= want
		if errno := so.sbwait(sb); errno != 0 {
			return errno
		}
	}
	so.sbflags |= lock
	return 0
}

// sbunlock gives the buffer back: BSD's sbunlock.
func (so *Socket) sbunlock(sb *sleepers) {
	lock, want := so.sbbits(sb)
	so.sbflags &^= lock
	if so.sbflags&want != 0 {
		so.sbflags &^= want
		so.sowakeup(sb)
	}
}

// sowakeup wakes the sleepers of a buffer, once the lock is left: BSD's sowakeup.
func (so *Socket) sowakeup(sb *sleepers) {
	if sb.waiters > 0 {
		so.sbflags |= sbWake
	}
}

// setDeadline gives a buffer another deadline, and has its sleepers look at it.
func (so *Socket) setDeadline(sb *sleepers, t, now int64) {
	if t <= now {
		t = passed
	}
	sb.deadline = t
	so.sowakeup(sb)
}

// soisconnecting notes that the connection is being set up: BSD's soisconnecting.
func (so *Socket) soisconnecting() {
	so.k.chainAt("soisconnecting")
	so.state &^= ssIsconnected | ssIsdisconnecting | ssIsdisconnected
	so.state |= ssIsconnecting
}

// Soisconnected notes that the connection is established: BSD's soisconnected. It puts a connection
// that a listener has brought on the listener's so_q; then the listener is locked too.
func (so *Socket) Soisconnected() {
	so.k.chainAt("soisconnected")
	so.state &^= ssIsconnecting | ssIsdisconnecting
	so.state |= ssIsconnected | ssWasconnected
	if so.head != nil {
		so.head.soqinsque(so)
		so.head.sowakeup(&so.head.rcv.sleepers)
		return
	}
	so.sowakeup(&so.rcv.sleepers)
	so.sowakeup(&so.snd.sleepers)
}

// soisdisconnecting notes that the user has closed: BSD's soisdisconnecting.
func (so *Socket) soisdisconnecting() {
	so.state &^= ssIsconnecting
	so.state |= ssIsdisconnecting | ssCantrcvmore | ssCantsendmore
	so.tp.Set(tcp.CantRcvMore)
	so.sowakeup(&so.rcv.sleepers)
	so.sowakeup(&so.snd.sleepers)
}

// Soisdisconnected notes that the connection is over: BSD's soisdisconnected.
func (so *Socket) Soisdisconnected() {
	so.k.chainAt("soisdisconnected")
	so.state &^= ssIsconnecting | ssIsconnected | ssIsdisconnecting
	so.state |= ssIsdisconnected | ssCantrcvmore | ssCantsendmore
	so.sowakeup(&so.rcv.sleepers)
	so.sowakeup(&so.snd.sleepers)
}

// Socantrcvmore notes that the peer sends no more: BSD's socantrcvmore.
func (so *Socket) Socantrcvmore() {
	so.state |= ssCantrcvmore
	if so.k.prof.ShutRdKeeps {
		so.state |= ssDone
	}
	so.sowakeup(&so.rcv.sleepers)
}

// socantsendmore notes that the user sends no more: BSD's socantsendmore.
func (so *Socket) socantsendmore() {
	so.state |= ssCantsendmore
	so.sowakeup(&so.snd.sleepers)
}

// Sorwakeup wakes the readers, as there is something to read: BSD's sorwakeup.
func (so *Socket) Sorwakeup() { so.sowakeup(&so.rcv.sleepers) }

// Sowwakeup wakes the writers if there is room for as much as the low-water mark: BSD's sowwakeup.
func (so *Socket) Sowwakeup() {
	if so.snd.waiters > 0 && (so.snd.Space() >= int(so.snd.lowat) || so.snd.Cc() == 0) {
		so.sbflags |= sbWake
	}
}

// Soerror sets so_error.
func (so *Socket) Soerror(errno syscall.Errno) {
	if errno != 0 {
		so.err = uint32(errno)
	}
}

// soreserve sets the sizes of both buffers: BSD's soreserve.
func (so *Socket) soreserve(snd, rcv int) {
	so.sbreserve(&so.snd.Sockbuf, snd)
	so.sbreserve(&so.rcv.Sockbuf, rcv)
}

// MinSockbuf is the smallest size of a buffer that a user can set, in bytes. With a smaller one the
// peer would send segments of a few bytes. A window of less than the unit of the window scale (256
// bytes for buffers of 8 MiB) cannot be offered at all, so each byte would wait for a window probe.
const MinSockbuf = 1 << 10

// sbreserve sets the size of a buffer: BSD's sbreserve.
func (so *Socket) sbreserve(sb *mbuf.Sockbuf, n int) {
	so.k.chainAt("sbreserve")
	sb.SetHiwat(n)
	if sb == &so.rcv.Sockbuf {
		so.rcv.lowat = 1
		return
	}
	lowat := min(mbuf.ClMid, sb.Hiwat())
	if so.k.prof.ABC && !so.k.prof.AckBySegs {
		lowat = max(lowat, sb.Hiwat()/4) // fewer and larger wake-ups
	}
	so.snd.lowat = int32(lowat)
}

// newSocket makes a socket to which no control block is attached yet.
func (k *Kernel) newSocket(p *protosw) *Socket {
	so := &Socket{k: k, proto: p}
	so.rcv.deadline, so.snd.deadline = never, never
	so.out = callout{at: never, armed: never, so: so, id: k.socketID.Add(1)}
	so.inp.so = so
	so.inp.ttl, so.inp.vflag = defTTL, inpIPv4
	if p.domain == AF_INET6 {
		so.inp.setV6only(k.prof.V6Only)
	}
	return so
}

// A listenq holds the fields that only a listening socket has.
type listenq struct {
	q        []*Socket // so_q: connections that wait for accept
	qlimit   int       // so_qlimit: the most of them
	reserved int       // places promised to handshakes over the loopback
	parked   []parkedSyn
}

// full reports whether no place is left.
func (lq *listenq) full() bool { return len(lq.q)+lq.reserved >= lq.qlimit }

// sonewconn makes the socket of a connection that a listener's handshake has brought: BSD's
// sonewconn. The listener is locked, and so is the socket that it returns. It returns nil if the
// stack is at its limits.
func (so *Socket) sonewconn() *Socket {
	k := so.k
	k.chainAt("sonewconn")
	if k.closed.Load() || k.pressed() {
		return nil
	}
	child := k.newSocket(so.proto)
	child.lock()
	child.options = so.options &^ SO_ACCEPTCONN
	child.linger = so.linger
	child.state = ssNofdref
	child.head = so
	child.soreserve(so.snd.Hiwat(), so.rcv.Hiwat())
	child.inp.tos, child.inp.ttl, child.inp.vflag = so.inp.tos, so.inp.ttl, so.inp.vflag
	if so.proto.usrreq(child, pruAttach, usrreqArgs{}) != 0 {
		child.state |= ssNofdref
		child.sofree()
		child.unlock()
		return nil
	}
	child.tp.Inherit(&so.tp)
	if !k.enlist(child) {
		child.head = nil
		child.tp.Close()
		child.unlock()
		return nil
	}
	return child
}

// enlist enters a socket, which is locked and complete, in the list of all sockets. It reports
// false if the stack has been closed: Close may have missed the socket, so the caller ends it.
func (k *Kernel) enlist(so *Socket) bool {
	k.sockets.add(so)
	return !k.closed.Load()
}

// soqinsque puts a connection on the listener's queue: BSD's soqinsque.
func (so *Socket) soqinsque(child *Socket) {
	so.k.chainAt("soqinsque")
	so.lq.q = append(so.lq.q, child)
}

// soqremque takes a connection off the listener's queue: BSD's soqremque. It reports whether it was
// there.
func (so *Socket) soqremque(child *Socket) bool {
	so.k.chainAt("soqremque")
	if so.lq == nil {
		return false
	}
	for i, s := range so.lq.q {
		if s == child {
			so.lq.q = slices.Delete(so.lq.q, i, i+1)
			return true
		}
	}
	return false
}

// soqmend takes a connection that has died on the queue off it. The caller does not hold the
// connection's lock, as the listener's must be taken first.
func (so *Socket) soqmend(child *Socket) {
	so.lock()
	if so.soqremque(child) {
		child.lock()
		child.head = nil
		child.sofree()
		child.mu.Unlock()
	}
	so.unpark()
	so.unlock()
}

// sockMem is how many bytes a connection takes besides its buffers: the Socket and its places in
// the tables. They count for Config.Memory. Otherwise peers that connect and send nothing could
// fill the memory.
const sockMem = int(unsafe.Sizeof(Socket{})) + 112

// socketList holds every socket of a stack.
type socketList struct {
	n      atomic.Int64
	shards [16]struct {
		mu   sync.Mutex // a leaf
		list []*Socket
	}
}

func (l *socketList) add(so *Socket) {
	s := &l.shards[so.out.id%16]
	s.mu.Lock()
	defer s.mu.Unlock()
	so.listIdx = int32(len(s.list))
	s.list = append(s.list, so)
	l.n.Add(1)
	so.k.pool.Charge(sockMem)
}

// remove puts the last socket of the shard in the place of so.
func (l *socketList) remove(so *Socket) {
	s := &l.shards[so.out.id%16]
	s.mu.Lock()
	defer s.mu.Unlock()
	i, last := int(so.listIdx), len(s.list)-1
	if i > last || s.list[i] != so {
		return
	}
	s.list[i] = s.list[last]
	s.list[i].listIdx = so.listIdx
	s.list[last] = nil
	s.list = s.list[:last]
	if c := cap(s.list); c > 64 && last < c/4 {
		s.list = append(make([]*Socket, 0, c/2), s.list...) // a list that was made for many is freed with them
	}
	l.n.Add(-1)
	so.k.pool.Charge(-sockMem)
}

// all returns every socket.
func (l *socketList) all() []*Socket {
	var list []*Socket
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		list = append(list, s.list...)
		s.mu.Unlock()
	}
	return list
}

// abortAll ends every socket, for Close.
func (l *socketList) abortAll(k *Kernel) {
	list := l.all()
	// All lose their users before the first is reset, so that no user sees the reset of another's.
	for _, so := range list {
		so.lock()
		so.state |= ssNofdref
		so.sowakeup(&so.rcv.sleepers)
		so.sowakeup(&so.snd.sleepers)
		so.unlock()
	}
	for _, so := range list {
		so.Soabort()
	}
}
