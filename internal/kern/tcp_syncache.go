package kern

import (
	"sync"
	"sync/atomic"
	"time"

	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
)

// so_q0 is a syncache: a handshake that has begun is an entry of a table of bounded size, not a
// socket: FreeBSD's tcp_syncache.c, RFC 4987. sonewconn runs at the final ACK. A SYN that finds its
// bucket full is answered with a cookie (tcp_syncookie.go) and leaves nothing behind, so that a
// flood neither fills the memory nor drives out those who came before.

// What becomes of an entry at its time.
const (
	scFew  = 64                           // up to here each entry's retransmission is on time
	scTick = int64(10 * time.Millisecond) // else they are looked at as often as this
)

// A scEntry is a half-open connection: FreeBSD's struct syncache.
type scEntry struct {
	t        tuple
	s        tcp.SynState
	head     *Socket
	ifp      *Ifnet
	tos, ttl uint8
	flags    uint8
	mss      int // what we offer
	at       int64
	unreach  bool
	chalT    int64
	chalN    int
}

// scEntries keeps entries for the next SYN.
var scEntries = sync.Pool{New: func() any { return new(scEntry) }}

// free gives back an entry that is out of the table, and that nobody will look at any more.
func (e *scEntry) free() {
	*e = scEntry{}
	scEntries.Put(e)
}

const (
	scReserved = 1 << iota // holds a place on so_q
	scNoopt
)

type syncache struct {
	k   *Kernel
	out callout

	mu      sync.Mutex   // a leaf
	scTable              // guarded by mu
	cookied atomic.Int64 // when a cookie was last sent; 0: never

	rexmtLimit int // net.inet.tcp.syncache.rexmtlimit
}

func (sc *syncache) init(k *Kernel) {
	sc.k = k
	sc.key = k.seed.hash
	sc.rexmtLimit = k.prof.SynAckRexmits
	sc.out = k.clock.table(sc)
}

// headOf returns the listener that has a handshake under way with these addresses, or nil.
func (sc *syncache) headOf(t *tuple) *Socket {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	if e, _ := sc.find(t); e != nil {
		return e.head
	}
	return nil
}

// syncacheAdd takes a SYN to a listener, which is locked: FreeBSD's syncache_add.
func (k *Kernel) syncacheAdd(head *Socket, in *tcpIn) {
	sc, st := &k.syncache, &k.Stats.TCP
	local := in.ifp.loopback
	sc.mu.Lock()
	e, full := sc.find(&in.t)
	if e != nil && local && e.s.Irs != in.th.Seq {
		// Over the loopback nothing is forged or late: whoever began before has given up, and
		// another has got its port.
		sc.remove(e)
		if e.flags&scReserved != 0 {
			head.lq.reserved--
		}
		e.free()
		e = nil
	}
	if e != nil {
		k.syncacheAgain(head, e, in)
		return
	}
	sc.mu.Unlock()
	switch {
	case k.pressed(), head.lq.full() && !local:
		st.Listendrop.Inc() // the peer tries again
	case head.lq.full():
		head.park(in)
	case len(head.lq.parked) > 0: // left over from when memory was short: they are first
		head.park(in)
		head.unpark()
	case full && !local:
		k.syncacheCookie(head, in)
	default:
		k.syncacheBegin(head, in)
	}
}

// syncacheAgain answers a SYN that has an entry. The table is locked, and is left.
//
//go:noinline
func (k *Kernel) syncacheAgain(head *Socket, e *scEntry, in *tcpIn) {
	var r respondTo
	k.Stats.TCP.ScDupsyn.Inc()
	if in.th.Seq == e.s.Irs || k.prof.AnySynTS {
		e.duplicate(in) // the timestamp of a forged SYN would make PAWS drop the final ACK
	}
	at := in.now + k.prof.RTOInit
	e.s.Rexmits = 0
	k.syncache.schedule(e, at)
	e.synAck(&r, in.now)
	k.syncache.mu.Unlock()
	k.clock.arm(&k.syncache.out, k.even(at))
	head.drain(k.syncacheRespond(&r))
}

// syncacheBegin makes the entry of a SYN for which there is a place, and answers. It stays a
// function of its own, as fresh goroutines come by here, and to grow their stacks costs more than
// all else.
//
//go:noinline
func (k *Kernel) syncacheBegin(head *Socket, in *tcpIn) {
	sc := &k.syncache
	e := scEntries.Get().(*scEntry)
	k.newEntry(e, head, in)
	e.s.Iss, e.s.TSOffset = k.iss(&e.t, in.now), k.tsOffset(&e.t)
	if in.ifp.loopback {
		e.flags |= scReserved
		head.lq.reserved++
	}
	var r respondTo
	e.synAck(&r, in.now)
	at := e.at // once it is in the table the entry is the lock's
	sc.mu.Lock()
	ok := sc.insert(e)
	sc.mu.Unlock()
	if !ok { // another listener's queue has been faster
		e.free()
		k.syncacheCookie(head, in)
		return
	}
	k.Stats.TCP.ScAdded.Inc()
	k.clock.arm(&sc.out, k.even(at))
	head.drain(k.syncacheRespond(&r))
}

// syncacheCookie answers a SYN whose bucket is full. It looks at no entry, and leaves none: this is
// what a flood costs for each of its packets.
//
//go:noinline
func (k *Kernel) syncacheCookie(head *Socket, in *tcpIn) {
	var e scEntry
	k.newEntry(&e, head, in)
	e.s.Iss, e.s.TSOffset = k.cookie(&e, in.now)
	e.s.ECN = false // a cookie would forget it, and marks would not be echoed (RFC 3168, 6.1.3)
	var r respondTo
	e.synAck(&r, in.now)
	k.syncache.cookied.Store(in.now)
	k.Stats.TCP.ScBucketoverflow.Inc()
	k.Stats.TCP.ScSendcookie.Inc()
	head.drain(k.syncacheRespond(&r))
}

// newEntry fills in the entry of a SYN, except for its initial sequence number and its timestamps'
// offset.
func (k *Kernel) newEntry(e *scEntry, head *Socket, in *tcpIn) {
	p := &k.prof
	*e = scEntry{t: in.t, head: head, ifp: in.ifp, tos: head.inp.tos, ttl: head.inp.ttl}
	e.s = tcp.SynState{
		Irs: in.th.Seq, Win: in.th.Win, Opt: in.th.Opt, Start: in.now, TSRecent: in.th.Opt.TSVal,
		SentWin: uint16(min(max(head.rcv.Space(), 0), 65535)),
	}
	o := &e.s.Opt
	if !p.RFC1323 {
		o.Has &^= wire.TofScale | wire.TofTS
	}
	if !p.Sack {
		o.Has &^= wire.TofSackperm
	}
	if head.tp.Has(tcp.NoOpt) {
		o.Has &= wire.TofMSS
		e.flags |= scNoopt
	}
	e.s.Scale = tcp.WscaleFor(p.Maxsockbuf)
	if p.ScaleByBuf {
		e.s.Scale = tcp.WscaleFor(head.rcv.Hiwat())
	}
	e.s.ECN = p.ECN != 0 && in.th.Flags&(wire.ECE|wire.CWR) == wire.ECE|wire.CWR
	e.mss = max(in.ifp.mtu-wire.IPv4MinLen-wire.TCPMinLen, min(p.MinMSS, 216))
	if p.RoundSynAck {
		maxseg := p.MSSDflt
		if o.Has&wire.TofMSS != 0 {
			maxseg = max(int(o.MSS), p.MinMSS)
		}
		e.s.SentWin = uint16(min(p.Roundbuf(int(e.s.SentWin), min(maxseg, e.mss)), 65535))
	}
	e.at = in.now + p.RTOInit
}

// duplicate takes what another SYN for the entry changes: only the timestamp.
func (e *scEntry) duplicate(in *tcpIn) {
	if e.s.Opt.Has&wire.TofTS == 0 {
		return
	}
	if in.th.Opt.Has&wire.TofTS != 0 {
		e.s.TSRecent = in.th.Opt.TSVal
		e.s.Opt.TSVal = in.th.Opt.TSVal
	} else {
		e.s.Opt.Has &^= wire.TofTS
	}
}

// syncacheRespond sends the answer to a SYN, which synAck has made under the table's lock:
// FreeBSD's syncache_respond. It returns the queue to drain.
func (k *Kernel) syncacheRespond(r *respondTo) *ifqueue { return k.tcpRespond(r) }

// synAck makes the answer to the SYN.
func (e *scEntry) synAck(r *respondTo, now int64) {
	*r = respondTo{
		t: e.t, seq: e.s.Iss, ack: e.s.Irs + 1, flags: wire.SYN | wire.ACK, win: e.s.SentWin,
		tos: e.tos, ttl: e.ttl,
	}
	if e.ifp.loopback {
		r.ifp = e.ifp
	}
	if e.s.ECN && e.s.Rexmits <= 1 {
		r.flags |= wire.ECE
	}
	if e.flags&scNoopt != 0 {
		return
	}
	r.opt.Has, r.opt.MSS = wire.TofMSS, uint16(e.mss)
	if e.s.Opt.Has&wire.TofScale != 0 {
		r.opt.Has |= wire.TofScale
		r.opt.Scale = e.s.Scale
	}
	r.opt.Has |= e.s.Opt.Has & wire.TofSackperm
	if e.s.Opt.Has&wire.TofTS != 0 {
		r.opt.Has |= wire.TofTS
		r.opt.TSVal, r.opt.TSEcr = tcp.TSClock(now, e.s.TSOffset), e.s.TSRecent
	}
}

// A scVerdict is what a segment, or an ICMP error, does to a half-open connection.
type scVerdict uint8

const (
	scNone      scVerdict = iota // there is no entry
	scDrop                       // nothing
	scChallenge                  // it is answered with a challenge ACK
	scBadack                     // it acknowledges what has not been sent: a reset, and the entry stays
	scNoPlace                    // so_q is full: the entry stays
	scRemove                     // the entry is taken out
)

// decide lets judge look at the entry of a connection, where there is one, and acts on its verdict
// in the table. Of scChallenge it makes the answer in r, or scDrop where there have been too many.
// After scRemove the entry is the caller's.
func (sc *syncache) decide(
	t *tuple, now int64, r *respondTo, judge func(e *scEntry) scVerdict,
) (e *scEntry, v scVerdict) {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	if e, _ = sc.find(t); e == nil {
		return nil, scNone
	}
	switch v = judge(e); v {
	case scRemove:
		sc.remove(e)
	case scChallenge:
		if !e.challenge(sc.k, now, r) {
			v = scDrop
		}
	}
	return e, v
}

// judgeAck is the verdict on an acknowledgment. full says that so_q is.
func (e *scEntry) judgeAck(th *wire.TCP, full bool) scVerdict {
	switch {
	case e.s.Opt.Has&th.Opt.Has&wire.TofTS != 0 && int32(th.Opt.TSVal-e.s.TSRecent) < 0:
		return scDrop // RFC 7323, 5.3, for a connection that is being opened
	case th.Seq.Leq(e.s.Irs) || th.Seq.Gt(e.s.Irs.Add(int(e.s.SentWin))):
		return scChallenge
	case th.Ack != e.s.Iss+1:
		return scBadack
	case full && e.flags&scReserved == 0:
		return scNoPlace // the peer's next segment finds room, or our SYN,ACK asks for one
	}
	return scRemove
}

// judgeRst is the verdict on a reset: RFC 5961, 3.2, or where insecure is set RFC 793's.
func (e *scEntry) judgeRst(th *wire.TCP, insecure bool) scVerdict {
	next := e.s.Irs + 1
	switch inside := th.Seq.Geq(next) && th.Seq.Lt(next.Add(int(e.s.SentWin))); {
	case th.Seq == next, insecure && inside:
		return scRemove
	case inside:
		return scChallenge
	}
	return scDrop
}

// syncacheExpand takes the acknowledgment of a SYN,ACK and makes the connection: FreeBSD's
// syncache_expand and syncache_socket. The listener is locked, and so is the new socket. nil: there
// is none; reset says whether the segment is to be answered with one.
func (k *Kernel) syncacheExpand(head *Socket, in *tcpIn) (so *Socket, reset bool) {
	sc, st := &k.syncache, &k.Stats.TCP
	var r respondTo
	full := head.lq.full()
	e, v := sc.decide(&in.t, in.now, &r, func(e *scEntry) scVerdict { return e.judgeAck(&in.th, full) })
	if v == scNone {
		if t := sc.cookied.Load(); t == 0 || in.now-t >= cookieLife {
			v = scBadack // no cookie can come back
		} else {
			e, v = k.cookieCheck(head, in)
		}
	}
	switch v {
	case scChallenge:
		head.drain(k.tcpRespond(&r))
	case scNoPlace:
		st.Listendrop.Inc()
	case scBadack:
		st.ScBadack.Inc()
	case scRemove:
		if e.flags&scReserved != 0 {
			head.lq.reserved--
		}
		so = k.syncacheSocket(head, e, in.now)
		e.free()
		if so != nil {
			st.ScCompleted.Inc()
			st.Accepts.Inc()
			return so, false
		}
		st.ScAborted.Inc()
		head.unpark()
	}
	return nil, v == scBadack || v == scRemove
}

// syncacheSocket makes the socket of an entry: FreeBSD's syncache_socket.
func (k *Kernel) syncacheSocket(head *Socket, e *scEntry, now int64) *Socket {
	so := head.sonewconn()
	if so == nil {
		return nil
	}
	inp := &so.inp
	inp.tuple, inp.ifp = e.t, e.ifp
	if !e.ifp.loopback {
		if ifp, _, errno := k.rtalloc(e.t.faddr.addr(), e.t.laddr.addr()); errno == 0 {
			inp.ifp = ifp
		}
	}
	if k.pcbs.insert(inp, nil) != 0 {
		so.head = nil
		so.tp.Close()
		so.unlock()
		return nil
	}
	k.ports.share(inp)
	so.setPath()
	so.tp.Lport, so.tp.Fport = inp.lport, inp.fport
	so.soisconnecting()
	so.tp.Passive(&e.s, now)
	return so
}

// syncacheChkrst takes a reset for a handshake: FreeBSD's syncache_chkrst, with RFC 5961's rules.
func (k *Kernel) syncacheChkrst(head *Socket, in *tcpIn) {
	var r respondTo
	e, v := k.syncache.decide(&in.t, in.now, &r, func(e *scEntry) scVerdict {
		return e.judgeRst(&in.th, k.prof.InsecureRST)
	})
	switch v {
	case scChallenge:
		head.drain(k.tcpRespond(&r))
	case scRemove:
		k.Stats.TCP.ScReset.Inc()
		if e.flags&scReserved != 0 {
			head.lq.reserved--
			head.unpark()
		}
		e.free()
	}
}

// challenge makes an entry's challenge ACK, at the rate of a connection's. It reports false where
// there have been too many.
func (e *scEntry) challenge(k *Kernel, now int64, r *respondTo) bool {
	if n := k.prof.ChallengeN; n > 0 {
		if now-e.chalT >= k.prof.ChallengeT {
			e.chalT, e.chalN = now, 0
		}
		if e.chalN >= n {
			return false
		}
		e.chalN++
	}
	k.Stats.TCP.Challenges.Inc()
	e.synAck(r, now)
	r.seq, r.flags = e.s.Iss+1, wire.ACK
	r.opt.Has &= wire.TofTS
	return true
}

// unreach takes an ICMP error about a SYN,ACK: FreeBSD's syncache_unreach. One error may be forged;
// one that comes again after retransmissions ends the attempt.
func (sc *syncache) unreach(e *icmpError) {
	s, v := sc.decide(&e.t, 0, nil, func(s *scEntry) scVerdict {
		if e.seq != s.s.Iss || e.mtu != 0 {
			return scDrop
		}
		if s.unreach && s.s.Rexmits >= 3 {
			return scRemove
		}
		s.unreach = true
		return scDrop
	})
	if v == scRemove {
		sc.k.Stats.TCP.ScUnreach.Inc()
		s.unreserve()
	}
}

// unreserve gives back the place on so_q that the entry, which is out of the table, holds, and the
// entry. No lock is held.
func (e *scEntry) unreserve() {
	defer e.free()
	if e.flags&scReserved == 0 {
		return
	}
	e.head.lock()
	if e.head.lq != nil {
		e.head.lq.reserved--
		e.head.unpark()
	}
	e.head.unlock()
}

// expire sends SYN,ACKs again and gives up on entries: FreeBSD's syncache_timer.
func (sc *syncache) expire(now int64) {
	again, gone, next := sc.due(now)
	if next != never {
		sc.k.clock.arm(&sc.out, sc.k.even(next))
	}
	for i := range again {
		if q := sc.k.syncacheRespond(&again[i]); q != nil {
			q.start()
		}
	}
	for _, e := range gone {
		e.unreserve()
	}
}

// due makes the SYN,ACKs that are to be sent again, takes out the entries whose time is over, and
// says when to look again. It looks at the entries of a bucket only when one of them is due.
func (sc *syncache) due(now int64) (again []respondTo, gone []*scEntry, next int64) {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	next = never
	for i := range sc.buckets {
		b := &sc.buckets[i]
		if b.at <= now {
			b.at = never
			for _, e := range b.entries {
				if e.at <= now && int(e.s.Rexmits) >= sc.rexmtLimit {
					gone = append(gone, e)
					continue
				}
				if e.at <= now {
					again = append(again, sc.rexmt(e, now))
				}
				b.at = min(b.at, e.at)
			}
		}
		next = min(next, b.at)
	}
	for _, e := range gone {
		sc.remove(e)
		sc.k.Stats.TCP.ScStale.Inc()
	}
	if sc.n > scFew && next != never {
		next = max(next, now+scTick) // in a flood each entry has its own time, and a look at all buckets for each would be a flood of its own
	}
	return again, gone, next
}

// rexmt makes an entry's SYN,ACK once more, and sets its next time. The lock is held.
func (sc *syncache) rexmt(e *scEntry, now int64) (r respondTo) {
	p := &sc.k.prof
	e.s.Rexmits++
	e.at = now + min(p.RTOInit<<e.s.Rexmits+p.RTOSlop, p.RTOMax)
	e.synAck(&r, now)
	sc.k.Stats.TCP.ScRetransmitted.Inc()
	return r
}

func (sc *syncache) flush() {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	sc.scTable = scTable{key: sc.key}
}

// drop removes the entries of a listener that closes, and returns them.
func (sc *syncache) drop(head *Socket) (gone []*scEntry) {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	for e := range sc.all() {
		if e.head == head {
			gone = append(gone, e)
		}
	}
	for _, e := range gone {
		sc.remove(e)
	}
	return gone
}
