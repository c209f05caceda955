package kern

import (
	"sync"
	"sync/atomic"
	"unsafe"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
)

// A tcptw is a connection in TIME_WAIT: FreeBSD's struct tcptw, about a hundred bytes and no
// socket.
type tcptw struct {
	inpcb
	kernel     *Kernel
	rec        tcp.TimeWaitRec
	at         int64       // when it ends
	asked      atomic.Bool // we have acknowledged a SYN, so the peer does not know the connection any more
	answerTime int64       // when answers was last 0; guarded by the list's lock
	answers    int
	ended      atomic.Bool // read through its socket, while a user still has that
	next, prev *tcptw
}

// twMem is how many bytes a record takes, with its place in the table. All records together take a
// sixteenth of the stack's memory at most.
const twMem = int64(unsafe.Sizeof(tcptw{})) + 48

// A twList holds the records of a stack, the oldest first. All live equally long, so one callout
// serves all of them.
type twList struct {
	k   *Kernel
	out callout

	mu         sync.Mutex // a leaf
	head, tail *tcptw
	n          int
}

func (l *twList) init(k *Kernel) {
	l.k = k
	l.out = k.clock.table(l)
}

// TcpTwstart puts a record in the place of the connection: BSD's tcp_twstart. RFC 9293, 3.6.1:
// "When a connection is closed actively, it MUST linger in the TIME-WAIT state for a time 2xMSL
// (Maximum Segment Lifetime) (MUST-13)." Over the loopback no segment can be late, so in the
// Default profile the connection ends at once (net.inet.tcp.nolocaltimewait).
func (so *Socket) TcpTwstart() {
	if so.dead {
		return
	}
	k, inp := so.k, &so.inp
	now := k.now()
	if so.inp.overLo() && k.prof.NoLocalTimeWait || k.closed.Load() {
		so.tp.Close()
		return
	}
	tw := &tcptw{kernel: k, rec: so.tp.TimeWaitRec(now), at: now + 2*k.prof.MSL}
	tw.inpcb = inpcb{tuple: inp.tuple, tw: tw, tos: inp.tos, ttl: inp.ttl, ifp: inp.ifp}
	if so.state&ssNofdref == 0 {
		inp.tw = tw
	}
	// The record replaces the socket in the table in one step, so every segment finds one or the
	// other. The port goes back to its destination's set if a dial may have it again once the
	// timestamps allow. If they never will, the record keeps the port, so that dials do not try it
	// in vain.
	if inp.ephemeral && !tw.reusableLater() {
		inp.ephemeral, tw.inpcb.ephemeral = false, true
	}
	k.pcbs.insert(&tw.inpcb, inp)
	k.ports.share(&tw.inpcb)
	so.Soisdisconnected()
	so.dead = true
	so.tp.Release()
	k.ports.release(so)
	k.tw.add(tw) // the last step, as the record may end at once
	so.sofree()
}

func (l *twList) add(tw *tcptw) {
	l.mu.Lock()
	l.push(tw)
	var old *tcptw
	if l.n > l.k.twMax {
		old = l.head
		l.unlink(old)
	}
	l.mu.Unlock()
	l.k.clock.arm(&l.out, l.k.even(tw.at))
	if old != nil {
		l.k.Stats.TCP.Twevict.Inc()
		old.gone()
	}
}

func (l *twList) push(tw *tcptw) {
	tw.prev, tw.next = l.tail, nil
	if l.tail != nil {
		l.tail.next = tw
	} else {
		l.head = tw
	}
	l.tail = tw
	l.n++
}

func (l *twList) unlink(tw *tcptw) bool {
	if tw.prev == nil && l.head != tw {
		return false
	}
	if tw.prev != nil {
		tw.prev.next = tw.next
	} else {
		l.head = tw.next
	}
	if tw.next != nil {
		tw.next.prev = tw.prev
	} else {
		l.tail = tw.prev
	}
	tw.next, tw.prev = nil, nil
	l.n--
	return true
}

// expire ends the records that have waited 2 MSL.
func (l *twList) expire(now int64) {
	for {
		l.mu.Lock()
		tw := l.head
		if tw == nil || tw.at > now {
			l.out.armed = never
			l.mu.Unlock()
			if tw != nil {
				l.k.clock.arm(&l.out, l.k.even(tw.at))
			}
			return
		}
		l.unlink(tw)
		l.mu.Unlock()
		tw.gone()
	}
}

// discard ends a record before its time. It reports false if another goroutine has ended it.
func (l *twList) discard(tw *tcptw) bool {
	l.mu.Lock()
	ok := l.unlink(tw)
	l.mu.Unlock()
	if ok {
		tw.gone()
	}
	return ok
}

// mayAnswer reports whether a record may answer one more segment. Without a limit, two ends that
// disagree about their sequence numbers would answer each other forever (RFC 5961, 7).
func (l *twList) mayAnswer(tw *tcptw, now int64) bool {
	n, period := l.k.prof.AckWar()
	l.mu.Lock()
	defer l.mu.Unlock()
	if now-tw.answerTime >= period {
		tw.answerTime, tw.answers = now, 0
	}
	tw.answers++
	return tw.answers <= n
}

// restart begins the 2 MSL of a record anew.
func (l *twList) restart(tw *tcptw, now int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.unlink(tw) {
		tw.at = now + 2*l.k.prof.MSL
		l.push(tw)
	}
}

func (l *twList) flush() {
	for {
		l.mu.Lock()
		tw := l.head
		if tw != nil {
			l.unlink(tw)
		}
		l.mu.Unlock()
		if tw == nil {
			return
		}
		tw.gone()
	}
}

// gone takes a record, which is off the list, out of the tables.
func (tw *tcptw) gone() {
	k := tw.kernel
	tw.ended.Store(true)
	k.pcbs.remove(&tw.inpcb)
	k.ports.unlink(&tw.inpcb)
	if tw.ephemeral {
		k.ports.giveBack(&tw.inpcb)
	}
}

// inTimeWait reports whether a record stands for the socket.
func (so *Socket) inTimeWait() bool { return so.inp.tw != nil && !so.inp.tw.ended.Load() }

// tcpTwcheck gives a segment to a record: BSD's tcp_twcheck. It reports whether the segment must be
// looked up again, because the record has given way to a new connection.
func (k *Kernel) tcpTwcheck(tw *tcptw, in *tcpIn) (again bool) {
	v := tw.rec.Input(&in.th, in.len, &k.prof)
	// RFC 9293, 3.6.1, MAY-2, and RFC 6191: a SYN may open the connection again if it is newer than
	// all that the record has seen, which tcp.TimeWaitRec has found. If no socket listens any more,
	// the SYN draws a reset.
	if v == tcp.TwNew {
		if k.pcbs.lookupListener(in.t.laddr, in.t.lport, in.ifp) != nil {
			k.Stats.TCP.Twreuse.Inc()
		}
		k.tw.discard(tw)
		return true
	}
	mbuf.Free(in.m)
	switch th := &in.th; {
	case v == tcp.TwAck && th.Flags&(wire.SYN|wire.ACK) == wire.SYN:
		tw.asked.Store(true)
	case th.Flags&wire.RST != 0 && th.Seq == tw.rec.RcvNxt && tw.asked.Load():
		// RFC 1337 ignores resets, because the peer, which has closed, answers an old duplicate of
		// our data with one. This one answers our acknowledgment of its SYN: RFC 9293, 3.10.7.4,
		// second: "if the RST bit is set, then enter the CLOSED state, delete the TCB".
		k.tw.discard(tw)
		return false
	}
	// RFC 9293, 3.10.7.4, eighth: of a FIN again: "Remain in the TIME-WAIT state. Restart the 2 MSL
	// time-wait timeout."
	if v == tcp.TwRestart {
		k.tw.restart(tw, in.now)
	}
	if v == tcp.TwDrop || !k.tw.mayAnswer(tw, in.now) {
		return false
	}
	r := respondTo{
		t: in.t, seq: tw.rec.SndNxt, ack: tw.rec.RcvNxt, flags: wire.ACK, win: tw.rec.Win,
		tos: tw.tos, ttl: tw.ttl, ifp: tw.ifp,
	}
	// RFC 7323, 3.2: "the TSopt MUST be sent in every non-<RST> segment for the duration of the
	// connection".
	if tw.rec.HasTS {
		r.opt = wire.Options{Has: wire.TofTS, TSVal: tcp.TSClock(in.now, tw.rec.TSOffset), TSEcr: tw.rec.TSRecent}
	}
	if q := k.tcpRespond(&r); q != nil {
		q.start()
	}
	return false
}

// reusableLater reports whether a dial may take the record's addresses before its 2 MSL are over:
// the profile allows it, and timestamps tell old segments from new ones (RFC 6191).
func (tw *tcptw) reusableLater() bool { return tw.rec.HasTS && tw.kernel.prof.RFC6191 }

// reusable reports whether a dial may take the record's addresses now: the timestamps of a new
// connection would be later than the last one of the old.
func (tw *tcptw) reusable(now int64) bool {
	return tw.reusableLater() && int32(tcp.TSClock(now, tw.rec.TSOffset)-tw.rec.LastTS) > 0
}
