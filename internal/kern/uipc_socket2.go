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
// soisconnected, when the protocol says so, SS_ISCONNECTED; sodisconnect SS_ISDISCONNECTING, and
// soisdisconnected neither. On the passive side a listener's sonewconn makes the socket, which
// waits on so_q until soaccept takes it. All of it happens under the socket's lock, which a
// goroutine that has changed the socket leaves by leave; one that has only read may unlock so.mu.

// soState is so_state, under BSD's SS_ and SBS_ names.
type soState uint16

const (
	ssNofdref         soState = 1 << iota // no user refers to it any more
	ssIsconnected                         // the connection stands
	ssIsconnecting                        // it is being set up
	ssIsdisconnecting                     // it is being closed
	ssIsdisconnected                      // it is over
	ssCantsendmore                        // nothing more will be sent
	ssCantrcvmore                         // nothing more will be received
	ssNbio                                // calls do not block
	ssWasconnected                        // it stood once, which tells ENOTCONN from EPIPE and EOF
	ssDone                                // the peer has sent its FIN: Linux's SOCK_DONE
	ssLingering                           // its user's close waits, as SO_LINGER says
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

// Flags of the two sockbufs: BSD's SB_LOCK, a call has the buffer, and SB_WANT, another waits for
// it.
const (
	rcvLock = 1 << iota
	rcvWant
	sndLock
	sndWant
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

// sleepers are the calls that sleep for one direction, and the rest of struct sockbuf that is for
// them.
type sleepers struct {
	deadline int64 // when calls give up: what SO_RCVTIMEO and SO_SNDTIMEO lead to, as net.Conn has it
	waiters  int32
	lowat    int32 // fewest bytes worth waking for: sb_lowat
}

// A Socket is an end of communication: 4.4BSD's struct socket, with its inpcb and tcpcb.
type Socket struct {
	k     *Kernel
	proto *protosw
	out   callout // its place in the clock

	txPending atomic.Int32 // bytes on an interface's queue
	txBlocked atomic.Bool  // stopped at its share of it

	listIdx int32 // its place in its part of the list of sockets; guarded by that

	mu      sync.Mutex // guards all below
	options soOptions
	state   soState
	err     uint32     // so_error: an errno, which has no more bits on any system
	linger  uint16     // seconds
	sbflags uint8      // sb_flags of both buffers
	flow    uint32     // of its segments: see tuple.flow
	local   bool       // the peer is on this stack
	wake    bool       // the sleepers, at leave
	dead    bool       // detached: every door looks at it
	mend    bool       // it died on the listener's queue
	cond    *sync.Cond // wakes the sleepers of both buffers; nil: there has been none for a while
	rcv     rcvbuf
	snd     sndbuf
	head    *Socket // the listener on whose queue it is: so_head
	lq      *listenq
	inp     inpcb
	tp      tcp.TCB

	txq    *ifqueue
	txMore *[]*ifqueue // if there is more than one: a listener's
}

// lock enters by any of the three doors.
func (so *Socket) lock() { so.mu.Lock() }

// An exit is what is left to do after the lock: which sleepers to wake, which queue to drain.
type exit struct {
	so   *Socket
	q    *ifqueue
	more *[]*ifqueue
	mend *Socket
	wake *sync.Cond
}

// leave unlocks the socket and returns what must be done then. It also sets the clock, which it may
// under the lock.
func (so *Socket) leave() exit {
	e := exit{so: so, q: so.txq, more: so.txMore}
	so.txq, so.txMore = nil, nil
	if so.wake {
		so.wake = false
		e.wake = so.cond
	}
	if so.mend {
		so.mend = false
		e.mend = so.head
	}
	if t := so.nextDeadline(); t < so.out.armed {
		so.out.armed = t
		so.k.clock.arm(&so.out, t)
	}
	so.mu.Unlock()
	return e
}

// do is BSD's splx: sleepers run, and packets go.
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

// drain notes that a queue is to be drained at leave.
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

// unlock is the one exit.
func (so *Socket) unlock() { so.leave().do() }

// closed reports whether its user has closed it, and that may still be waiting: other calls fail
// with EBADF.
func (so *Socket) closed() bool { return so.state&(ssNofdref|ssLingering) != 0 }

// busy reports whether there is something to do before the socket may sleep.
func (so *Socket) busy() bool { return so.txq != nil || so.wake || so.mend }

// nextDeadline is when the socket next wants to hear from the clock.
func (so *Socket) nextDeadline() int64 {
	t := never
	if !so.dead {
		t = so.k.even(so.tp.Next())
	} else if so.state&ssNofdref != 0 {
		return never // whoever still sleeps has been woken
	}
	if so.rcv.waiters > 0 {
		t = min(t, so.rcv.deadline)
	}
	if so.snd.waiters > 0 {
		t = min(t, so.snd.deadline)
	}
	return t
}

// expire is the clock's door: BSD's tcp_timers, and the time-outs of tsleep.
func (so *Socket) expire(now int64) {
	so.lock()
	so.out.armed = never
	so.tcpTimers(now)
	switch {
	case so.rcv.waiters > 0 && so.rcv.deadline <= now, so.snd.waiters > 0 && so.snd.deadline <= now:
		so.wake = true
	case so.rcv.waiters+so.snd.waiters == 0:
		so.cond = nil // an idle connection need not keep it
	}
	so.unlock()
}

// sbwait sleeps until the buffer changes: BSD's sbwait. The caller looks at its condition again.
// EWOULDBLOCK: the deadline has passed, or the socket does not block. EXDEV: the caller is in
// another bubble.
func (so *Socket) sbwait(sb *sleepers) syscall.Errno {
	if so.state&ssNbio != 0 {
		return syscall.EAGAIN
	}
	if so.busy() { // what we have to say goes out first
		so.unlock()
		so.lock()
		return 0
	}
	if so.late(sb) {
		return syscall.EAGAIN
	}
	if so.k.away(so.k.now()) {
		return EXDEV // who wakes a sleeper in another bubble ends the program
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

// late reports whether the buffer's deadline has passed: then calls fail even where they need not
// wait, as package net's do.
func (so *Socket) late(sb *sleepers) bool { return sb.deadline != never && so.k.now() >= sb.deadline }

// sbbits returns which flags are the buffer's.
func (so *Socket) sbbits(sb *sleepers) (lock, want uint8) {
	if sb == &so.rcv.sleepers {
		return rcvLock, rcvWant
	}
	return sndLock, sndWant
}

// sblock takes the buffer, so that calls on one direction do not mix: BSD's sblock.
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

// sbunlock gives it back: BSD's sbunlock.
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
		so.wake = true
	}
}

// setDeadline gives a buffer's sleepers another deadline.
func (so *Socket) setDeadline(sb *sleepers, t int64) {
	sb.deadline = t
	so.sowakeup(sb)
}

// soisconnecting: the connection is being set up: BSD's soisconnecting.
func (so *Socket) soisconnecting() {
	so.k.chainAt("soisconnecting")
	so.state &^= ssIsconnected | ssIsdisconnecting | ssIsdisconnected
	so.state |= ssIsconnecting
}

// Soisconnected: the connection stands. A connection from outside moves to its listener's so_q:
// BSD's soisconnected. In that case the listener is locked too.
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

// soisdisconnecting: the user has closed: BSD's soisdisconnecting.
func (so *Socket) soisdisconnecting() {
	so.state &^= ssIsconnecting
	so.state |= ssIsdisconnecting | ssCantrcvmore | ssCantsendmore
	so.tp.Set(tcp.CantRcvMore)
	so.sowakeup(&so.rcv.sleepers)
	so.sowakeup(&so.snd.sleepers)
}

// Soisdisconnected: it is over: BSD's soisdisconnected.
func (so *Socket) Soisdisconnected() {
	so.k.chainAt("soisdisconnected")
	so.state &^= ssIsconnecting | ssIsconnected | ssIsdisconnecting
	so.state |= ssIsdisconnected | ssCantrcvmore | ssCantsendmore
	so.sowakeup(&so.rcv.sleepers)
	so.sowakeup(&so.snd.sleepers)
}

// Socantrcvmore: the peer sends no more: BSD's socantrcvmore.
func (so *Socket) Socantrcvmore() {
	so.state |= ssCantrcvmore
	if so.k.prof.ShutRdKeeps {
		so.state |= ssDone
	}
	so.sowakeup(&so.rcv.sleepers)
}

// socantsendmore: the user sends no more: BSD's socantsendmore.
func (so *Socket) socantsendmore() {
	so.state |= ssCantsendmore
	so.sowakeup(&so.snd.sleepers)
}

// Sorwakeup: there is something to read: BSD's sorwakeup.
func (so *Socket) Sorwakeup() { so.sowakeup(&so.rcv.sleepers) }

// Sowwakeup: there is room to write: BSD's sowwakeup. No sleeper is woken for less than the
// low-water mark.
func (so *Socket) Sowwakeup() {
	if so.snd.waiters > 0 && (so.snd.Space() >= int(so.snd.lowat) || so.snd.Cc() == 0) {
		so.wake = true
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

// MinSockbuf is the least that a user can set a buffer to, in bytes. Less would make for segments
// of a few bytes, and what is less than the unit of the window scale (256 bytes for buffers of 8
// MiB) cannot be offered at all: each byte would wait for a window probe.
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

// newSocket makes a socket without a protocol's block.
func (k *Kernel) newSocket(p *protosw) *Socket {
	so := &Socket{k: k, proto: p}
	so.rcv.deadline, so.snd.deadline = never, never
	so.out = callout{at: never, armed: never, so: so, id: k.socketID.Add(1)}
	so.inp.so = so
	so.inp.ttl = defTTL
	return so
}

// A listenq is what a listening socket has beside the rest.
type listenq struct {
	q        []*Socket // so_q: connections that wait for accept
	qlimit   int       // so_qlimit: most of them
	reserved int       // places promised to handshakes over the loopback
	parked   []parkedSyn
}

// full reports whether there is no place left.
func (lq *listenq) full() bool { return len(lq.q)+lq.reserved >= lq.qlimit }

// sonewconn makes the socket of a connection that a listener's handshake has brought: BSD's
// sonewconn. The listener is locked; the new socket is too when it is returned. nil: the stack is
// at its limits.
func (head *Socket) sonewconn() *Socket {
	k := head.k
	k.chainAt("sonewconn")
	if k.closed.Load() || k.pressed() {
		return nil
	}
	so := k.newSocket(head.proto)
	so.lock()
	so.options = head.options &^ SO_ACCEPTCONN
	so.linger = head.linger
	so.state = ssNofdref
	so.head = head
	so.soreserve(head.snd.Hiwat(), head.rcv.Hiwat())
	so.inp.tos, so.inp.ttl = head.inp.tos, head.inp.ttl
	if head.proto.usrreq(so, pruAttach, usrreqArgs{}) != 0 {
		so.state |= ssNofdref
		so.sofree()
		so.unlock()
		return nil
	}
	so.tp.Inherit(&head.tp)
	if !k.enlist(so) {
		so.head = nil
		so.tp.Close()
		so.unlock()
		return nil
	}
	return so
}

// enlist enters a socket, which is locked and whole, in the list of all. It reports false if the
// stack has been closed, which may have missed it.
func (k *Kernel) enlist(so *Socket) bool {
	k.sockets.add(so)
	return !k.closed.Load()
}

// soqinsque puts a connection on the listener's queue: BSD's soqinsque.
func (head *Socket) soqinsque(so *Socket) {
	head.k.chainAt("soqinsque")
	head.lq.q = append(head.lq.q, so)
}

// soqremque takes a connection off the listener's queue: BSD's soqremque. It reports whether it was
// there.
func (head *Socket) soqremque(so *Socket) bool {
	head.k.chainAt("soqremque")
	if head.lq == nil {
		return false
	}
	for i, s := range head.lq.q {
		if s == so {
			head.lq.q = slices.Delete(head.lq.q, i, i+1)
			return true
		}
	}
	return false
}

// soqmend takes a connection that has died while it waited off the queue. Its own lock is not held:
// the order is listener, then child.
func (head *Socket) soqmend(so *Socket) {
	head.lock()
	if head.soqremque(so) {
		so.lock()
		so.head = nil
		so.sofree()
		so.mu.Unlock()
	}
	head.unpark()
	head.unlock()
}

// sockMem is what a connection takes of a stack's memory, in bytes, besides what its buffers hold:
// the Socket and its places in the tables. It counts for Config.Memory, or peers that connect and
// send nothing would fill what buffers leave.
const sockMem = int(unsafe.Sizeof(Socket{})) + 112

// socketList is every socket of a stack.
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

// remove puts the last in the place of so.
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
		s.list = append(make([]*Socket, 0, c/2), s.list...) // what was made for many goes with them
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
