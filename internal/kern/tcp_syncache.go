package kern

import (
	"sync"
	"time"

	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
)

// so_q0 is a syncache: a handshake that has begun is an entry of a table of bounded size, not a socket: FreeBSD's tcp_syncache.c, RFC 4987.
// sonewconn runs at the final ACK. A SYN that finds its bucket full is answered with a cookie (tcp_syncookie.go) and leaves nothing behind, so
// that a flood neither fills the memory nor drives out those who came before.

const (
	scBuckets     = 512
	scBucketLimit = 30

	scFew  = 64                           // up to here each entry's retransmission is on time
	scTick = int64(10 * time.Millisecond) // else they are looked at as often as this
)

// A scEntry is a half-open connection: FreeBSD's struct syncache.
type scEntry struct {
	next     *scEntry // in its bucket, those who came first first
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

	mu      sync.Mutex // a leaf
	buckets [scBuckets]*scEntry
	n       int
	cookied int64 // when a cookie was last sent

	rexmtLimit int // net.inet.tcp.syncache.rexmtlimit
}

func (sc *syncache) init(k *Kernel) {
	sc.k = k
	sc.rexmtLimit = k.prof.SynAckRexmits
	sc.out = k.clock.table(sc)
}

func (sc *syncache) bucket(t *tuple) uint64 { return t.hash(sc.k.seed.hash) % scBuckets }

// lookup finds an entry. The lock is held.
func (sc *syncache) lookup(t *tuple) *scEntry {
	for e := sc.buckets[sc.bucket(t)]; e != nil; e = e.next {
		if e.t == *t {
			return e
		}
	}
	return nil
}

// headOf returns the listener that has a handshake under way with these addresses, or nil.
func (sc *syncache) headOf(t *tuple) *Socket {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	if e := sc.lookup(t); e != nil {
		return e.head
	}
	return nil
}

// remove takes an entry out and reports whether it was in. The lock is held.
func (sc *syncache) remove(e *scEntry) bool {
	for p := &sc.buckets[sc.bucket(&e.t)]; *p != nil; p = &(*p).next {
		if *p == e {
			*p, e.next = e.next, nil
			sc.n--
			return true
		}
	}
	return false
}

// syncacheAdd takes a SYN to a listener, which is locked: FreeBSD's syncache_add.
func (k *Kernel) syncacheAdd(head *Socket, in *tcpIn) {
	sc, st := &k.syncache, &k.Stats.TCP
	local := in.ifp.loopback
	sc.mu.Lock()
	e := sc.lookup(&in.t)
	if e != nil && local && e.s.Irs != in.th.Seq && sc.remove(e) {
		// Over the loopback nothing is forged or late: whoever began before has given up, and another has got its port.
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
	e.s.Rexmits = 0
	e.at = in.now + k.prof.RTOInit
	e.synAck(&r, in.now)
	k.syncache.mu.Unlock()
	head.drain(k.syncacheRespond(&r))
}

// syncacheBegin makes the entry of a SYN for which there is a place, and answers. It stays a function of its own, as fresh goroutines come by here,
// and to grow their stacks costs more than all else.
//
//go:noinline
func (k *Kernel) syncacheBegin(head *Socket, in *tcpIn) {
	sc, st := &k.syncache, &k.Stats.TCP
	e := k.newEntry(head, in)
	if in.ifp.loopback {
		e.flags |= scReserved
		head.lq.reserved++
	}
	var r respondTo
	e.synAck(&r, in.now)
	at := e.at // once it is in the table the entry is the lock's
	if !sc.insert(e) {
		st.ScBucketoverflow.Inc()
		e.s.Iss, e.s.TSOffset = k.cookie(e, in.now)
		e.s.ECN = false // a cookie would forget it, and marks would not be echoed (RFC 3168, 6.1.3)
		e.synAck(&r, in.now)
		st.ScSendcookie.Inc()
		e.free()
	} else {
		st.ScAdded.Inc()
		k.clock.arm(&sc.out, k.even(at))
	}
	head.drain(k.syncacheRespond(&r))
}

// newEntry makes the entry of a SYN.
func (k *Kernel) newEntry(head *Socket, in *tcpIn) *scEntry {
	p := &k.prof
	e := scEntries.Get().(*scEntry)
	*e = scEntry{t: in.t, head: head, ifp: in.ifp, tos: head.inp.tos, ttl: head.inp.ttl}
	e.s = tcp.SynState{
		Irs: in.th.Seq, Win: in.th.Win, Opt: in.th.Opt, Start: in.now, TSRecent: in.th.Opt.TSVal,
		SentWin: uint16(min(max(head.rcv.Space(), 0), 65535)),
		Iss:     k.iss(&e.t, in.now), TSOffset: k.tsOffset(&e.t),
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
	return e
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

// insert enters e. Where its bucket is full it is not kept: its answer must be a cookie.
func (sc *syncache) insert(e *scEntry) bool {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	n, p := 0, &sc.buckets[sc.bucket(&e.t)]
	for ; *p != nil; p = &(*p).next {
		n++
	}
	if n >= scBucketLimit && e.flags&scReserved == 0 {
		sc.cookied = e.s.Start
		return false
	}
	*p = e
	sc.n++
	return true
}

// syncacheRespond sends the answer to a SYN, which synAck has made under the table's lock: FreeBSD's syncache_respond. It returns the queue to
// drain.
func (k *Kernel) syncacheRespond(r *respondTo) *ifqueue { return k.tcpRespond(r) }

// synAck makes the answer to the SYN.
func (e *scEntry) synAck(r *respondTo, now int64) {
	*r = respondTo{t: e.t, seq: e.s.Iss, ack: e.s.Irs + 1, flags: wire.SYN | wire.ACK, win: e.s.SentWin, tos: e.tos, ttl: e.ttl}
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

// syncacheExpand takes the acknowledgment of a SYN,ACK and makes the connection: FreeBSD's syncache_expand and syncache_socket. The listener is
// locked, and so is the new socket. nil: there is none; reset says whether the segment is to be answered with one.
func (k *Kernel) syncacheExpand(head *Socket, in *tcpIn) (so *Socket, reset bool) {
	sc, th := &k.syncache, &in.th
	sc.mu.Lock()
	e := sc.lookup(&in.t)
	if e == nil {
		recent := sc.cookied != 0 && in.now-sc.cookied < cookieLife
		sc.mu.Unlock()
		if recent {
			e = k.cookieCheck(head, in)
		}
		if e == nil {
			k.Stats.TCP.ScBadack.Inc()
			return nil, true
		}
	} else {
		if e.s.Opt.Has&th.Opt.Has&wire.TofTS != 0 && int32(th.Opt.TSVal-e.s.TSRecent) < 0 {
			sc.mu.Unlock()
			return nil, false // RFC 7323, 5.3, for a connection that is being opened
		}
		if th.Seq.Leq(e.s.Irs) || th.Seq.Gt(e.s.Irs.Add(int(e.s.SentWin))) {
			r, ok := e.challenge(k, in.now)
			sc.mu.Unlock()
			if ok {
				head.drain(k.tcpRespond(&r))
			}
			return nil, false
		}
		if th.Ack != e.s.Iss+1 {
			sc.mu.Unlock()
			k.Stats.TCP.ScBadack.Inc()
			return nil, true
		}
		if e.flags&scReserved == 0 && head.lq.full() {
			sc.mu.Unlock()
			k.Stats.TCP.Listendrop.Inc() // the entry stays: the peer's next segment finds room, or our SYN,ACK asks for one
			return nil, false
		}
		sc.remove(e)
		sc.mu.Unlock()
		if e.flags&scReserved != 0 {
			head.lq.reserved--
		}
	}
	so = k.syncacheSocket(head, e, in.now)
	e.free()
	if so == nil {
		k.Stats.TCP.ScAborted.Inc()
		head.unpark()
		return nil, true
	}
	k.Stats.TCP.ScCompleted.Inc()
	k.Stats.TCP.Accepts.Inc()
	return so, false
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
	sc := &k.syncache
	sc.mu.Lock()
	e := sc.lookup(&in.t)
	if e == nil {
		sc.mu.Unlock()
		return
	}
	next := e.s.Irs + 1
	switch {
	case in.th.Seq == next, k.prof.InsecureRST && in.th.Seq.Geq(next) && in.th.Seq.Lt(next.Add(int(e.s.SentWin))):
		sc.remove(e)
		sc.mu.Unlock()
		k.Stats.TCP.ScReset.Inc()
		reserved := e.flags&scReserved != 0
		e.free()
		if reserved {
			head.lq.reserved--
			head.unpark()
		}
		return
	case in.th.Seq.Geq(next) && in.th.Seq.Lt(next.Add(int(e.s.SentWin))):
		r, ok := e.challenge(k, in.now)
		sc.mu.Unlock()
		if ok {
			head.drain(k.tcpRespond(&r))
		}
		return
	}
	sc.mu.Unlock()
}

// challenge makes an entry's challenge ACK, at the rate of a connection's.
func (e *scEntry) challenge(k *Kernel, now int64) (r respondTo, ok bool) {
	if n := k.prof.ChallengeN; n > 0 {
		if now-e.chalT >= k.prof.ChallengeT {
			e.chalT, e.chalN = now, 0
		}
		if e.chalN >= n {
			return r, false
		}
		e.chalN++
	}
	k.Stats.TCP.Challenges.Inc()
	e.synAck(&r, now)
	r.seq, r.flags = e.s.Iss+1, wire.ACK
	r.opt.Has &= wire.TofTS
	return r, true
}

// unreach takes an ICMP error about a SYN,ACK: FreeBSD's syncache_unreach. One error may be forged; one that comes again after retransmissions
// ends the attempt.
func (sc *syncache) unreach(e *icmpError) {
	sc.mu.Lock()
	s := sc.lookup(&e.t)
	if s == nil || e.seq != s.s.Iss || e.mtu != 0 {
		sc.mu.Unlock()
		return
	}
	if !s.unreach || s.s.Rexmits < 3 {
		s.unreach = true
		sc.mu.Unlock()
		return
	}
	sc.remove(s)
	sc.mu.Unlock()
	sc.k.Stats.TCP.ScUnreach.Inc()
	s.unreserve()
}

// unreserve gives back the place on so_q that the entry, which is out of the table, holds, and the entry. No lock is held.
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
	k := sc.k
	var again []respondTo
	var gone []*scEntry
	next := never
	sc.mu.Lock()
	for i := range sc.buckets {
		for e := sc.buckets[i]; e != nil; e = e.next {
			if e.at <= now {
				if int(e.s.Rexmits) >= sc.rexmtLimit {
					gone = append(gone, e)
					continue
				}
				e.s.Rexmits++
				e.at = now + min(k.prof.RTOInit<<e.s.Rexmits+k.prof.RTOSlop, k.prof.RTOMax)
				var r respondTo
				e.synAck(&r, now)
				again = append(again, r)
				k.Stats.TCP.ScRetransmitted.Inc()
			}
			next = min(next, e.at)
		}
	}
	for _, e := range gone {
		sc.remove(e)
		k.Stats.TCP.ScStale.Inc()
	}
	if sc.n > scFew && next != never {
		next = max(next, now+scTick) // in a flood each entry has its own time, and a look at all of them for each would be a flood of its own
	}
	sc.mu.Unlock()
	if next != never {
		k.clock.arm(&sc.out, k.even(next))
	}
	for i := range again {
		if q := k.syncacheRespond(&again[i]); q != nil {
			q.start()
		}
	}
	for _, e := range gone {
		e.unreserve()
	}
}

func (sc *syncache) flush() {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	sc.buckets, sc.n = [scBuckets]*scEntry{}, 0
}

// drop removes the entries of a listener that closes, and returns them.
func (sc *syncache) drop(head *Socket) (gone []*scEntry) {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	for i := range sc.buckets {
		for e := sc.buckets[i]; e != nil; e = e.next {
			if e.head == head {
				gone = append(gone, e)
			}
		}
	}
	for _, e := range gone {
		sc.remove(e)
	}
	return gone
}
