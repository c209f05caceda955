package kern

import (
	"sync"
	"sync/atomic"
	"time"

	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
)

// 4.4BSD's so_q0 is a syncache: a handshake that has begun is an entry of a table of bounded size,
// not a socket (FreeBSD's tcp_syncache.c; RFC 4987, 3.5 to 3.7). The socket is made when the final
// ACK arrives. If the bucket of a SYN is full, the stack answers it with a cookie
// (tcp_syncookie.go) and keeps nothing, so a flood neither fills the memory nor drives out
// handshakes that began before it.

// How exactly retransmissions of SYN,ACKs keep their times.
const (
	scFew  = 64                           // with this many entries or fewer, each is retransmitted on time
	scTick = int64(10 * time.Millisecond) // with more, the table is looked at this often
)

// An scEntry is a half-open connection: FreeBSD's struct syncache.
type scEntry struct {
	t        tuple
	s        tcp.SynState
	head     *Socket
	ifp      *Ifnet
	tos, ttl uint8
	flags    uint8
	mss      int   // what we offer
	at       int64 // when the SYN,ACK is sent again, or the entry given up
	unreach  bool  // an ICMP error has arrived
	chalT    int64 // when the period began in which challenges are counted
	chalN    int   // challenges in it
}

// scEntries keeps entries that are out of use for the next SYN.
var scEntries = sync.Pool{New: func() any { return new(scEntry) }}

// free gives back an entry that is out of the table. The caller must not use it after that.
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
		// Over the loopback no segment is forged, and none is late. So the socket that began this
		// handshake has given up, and another has got its port.
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
	// The SYN is dropped, as by BSD: a reset would end the peer's attempt, but a SYN that is not
	// answered comes again, and may find a place then.
	case k.pressed(), head.lq.full() && !local:
		st.Listendrop.Inc() // the peer will send it again
	case head.lq.full():
		head.park(in)
	// SYNs are still parked from when memory was short. They came first, so this one waits behind
	// them.
	case len(head.lq.parked) > 0:
		head.park(in)
		head.unpark()
	case full && !local:
		k.syncacheCookie(head, in)
	default:
		k.syncacheBegin(head, in)
	}
}

// syncacheAgain answers a SYN that has an entry: the peer has not received the SYN,ACK, or has
// begun anew. It sends the SYN,ACK of the entry again, and begins the entry's retransmissions anew.
// That SYN,ACK acknowledges the SYN of the entry, so a peer that has begun anew answers it with a
// reset, and its next SYN finds the entry gone: so RFC 9293, 3.5, recovers from an old duplicate
// SYN. The table is locked, and is unlocked on return.
//
//go:noinline
func (k *Kernel) syncacheAgain(head *Socket, e *scEntry, in *tcpIn) {
	var r respondTo
	k.Stats.TCP.ScDupsyn.Inc()
	if in.th.Seq == e.s.Irs || k.prof.AnySynTS {
		// Only the same SYN changes the entry, unless the profile does as BSD. Anyone can forge a
		// SYN with another sequence number, and its timestamp would make PAWS drop the final ACK of
		// the peer.
		e.duplicate(in)
	}
	at := in.now + k.prof.RTOInit
	e.s.Rexmits = 0
	e.s.Start = 0 // the ACK may be for either SYN,ACK, so it times none (RFC 6298, 3: Karn's algorithm)
	k.syncache.schedule(e, at)
	e.synAck(&r, in.now)
	k.syncache.mu.Unlock()
	k.clock.arm(&k.syncache.out, k.even(at))
	k.syncacheRespond(head, &r)
}

// syncacheBegin makes the entry of a SYN for which there is a place, and answers the SYN. The
// compiler must not inline it: new goroutines call it, and a larger stack frame would make their
// stacks grow, which costs more than all that the function does.
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
	// Once the entry is in the table, the lock guards it.
	at := e.at
	sc.mu.Lock()
	ok := sc.insert(e)
	sc.mu.Unlock()
	// A SYN on another queue may have taken the last place meanwhile.
	if !ok {
		e.free()
		k.syncacheCookie(head, in)
		return
	}
	k.Stats.TCP.ScAdded.Inc()
	k.clock.arm(&sc.out, k.even(at))
	k.syncacheRespond(head, &r)
}

// syncacheCookie answers a SYN whose bucket is full. It reads no entry and makes none, so this is
// all that a packet of a flood costs.
//
//go:noinline
func (k *Kernel) syncacheCookie(head *Socket, in *tcpIn) {
	var e scEntry
	k.newEntry(&e, head, in)
	e.s.Iss, e.s.TSOffset = k.cookie(&e, in.now)
	// A cookie has no bit for ECN. A connection that had agreed on it and forgotten would not echo
	// marks, as RFC 3168, 6.1.3, requires, so ECN is not offered.
	e.s.ECN = false
	var r respondTo
	e.synAck(&r, in.now)
	k.syncache.cookied.Store(in.now)
	k.Stats.TCP.ScBucketoverflow.Inc()
	k.Stats.TCP.ScSendcookie.Inc()
	k.syncacheRespond(head, &r)
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
	// An option is agreed on only if both SYNs have it (RFC 7323, 1.3 and 2.2; RFC 2018, 2). An
	// option that the profile or the listener does without is struck from the peer's here, so the
	// SYN,ACK does not have it, and neither side uses it.
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
	// RFC 3168, 6.1.1: "We call a SYN packet with the ECE and CWR flags set an 'ECN-setup SYN
	// packet'".
	e.s.ECN = p.ECN != 0 && in.th.Flags&(wire.ECE|wire.CWR) == wire.ECE|wire.CWR
	// RFC 9293, 3.7.1, MUST-67: the offer is what the interface takes less the fixed headers,
	// without options; the sender accounts for those.
	e.mss = max(in.ifp.mtu-e.t.hdrLen()-wire.TCPMinLen, min(p.MinMSS, 216))
	if p.RoundSynAck {
		// RFC 9293, 3.7.1, MUST-15: "If an MSS Option is not received at connection setup, TCP
		// implementations MUST assume a default send MSS of 536 (576 - 40) for IPv4". Net/3 has
		// rounded the window to a multiple of that size when it sends its SYN,ACK.
		maxseg := k.mssdflt(&e.t)
		if o.Has&wire.TofMSS != 0 {
			maxseg = max(int(o.MSS), p.MinMSS)
		}
		e.s.SentWin = uint16(min(p.Roundbuf(int(e.s.SentWin), min(maxseg, e.mss)), 65535))
	}
	e.at = in.now + p.RTOInit
}

// duplicate takes the timestamp of a SYN that has arrived again, which the next SYN,ACK echoes: RFC
// 7323, 3.2: "When the ACK bit is set in an outgoing segment, the sender MUST echo a recently
// received TSval". If the SYN has no timestamp any more, as the peer may leave out options when it
// sends its SYN again, the connection has none.
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

// syncacheRespond sends an answer that has been made under the table's lock: FreeBSD's
// syncache_respond. It goes out when the listener's lock is left.
func (k *Kernel) syncacheRespond(head *Socket, r *respondTo) { head.drain(k.tcpRespond(r)) }

// synAck makes the answer to the SYN: RFC 9293, 3.10.7.2, third:
// "<SEQ=ISS><ACK=RCV.NXT><CTL=SYN,ACK>". RFC 7323, 2.2: "The window field in a segment where the
// SYN bit is set (i.e., a <SYN> or <SYN,ACK>) MUST NOT be scaled", so SentWin is as it is.
func (e *scEntry) synAck(r *respondTo, now int64) {
	*r = respondTo{
		t: e.t, seq: e.s.Iss, ack: e.s.Irs + 1, flags: wire.SYN | wire.ACK, win: e.s.SentWin,
		tos: e.tos, ttl: e.ttl,
	}
	if e.ifp.loopback || e.t.faddr.onLink() {
		r.ifp = e.ifp
	}
	// RFC 3168, 6.1.1: "we call a SYN-ACK packet with only the ECE flag set but the CWR flag not
	// set an 'ECN-setup SYN-ACK packet'". If two of them have brought no answer, a middlebox may
	// drop them because of the flag, so the next goes without it.
	if e.s.ECN && e.s.Rexmits <= 1 {
		r.flags |= wire.ECE
	}
	if e.flags&scNoopt != 0 {
		return
	}
	// RFC 9293, 3.7.1, MUST-14 and SHLD-5: a SYN,ACK always offers an MSS. The other options answer
	// those of the SYN.
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

// syncacheExpand takes the acknowledgment of a SYN,ACK and makes the connection: FreeBSD's
// syncache_expand and syncache_socket. The listener is locked, and so is the socket that it
// returns. If it returns nil, the segment has made no connection, and reset says whether a reset
// must answer it.
func (k *Kernel) syncacheExpand(head *Socket, in *tcpIn) (so *Socket, reset bool) {
	sc, st := &k.syncache, &k.Stats.TCP
	var r respondTo
	full := head.lq.full()
	e, v := sc.decide(&in.t, in.now, &r, func(e *scEntry) scVerdict { return e.judgeAck(&in.th, full) })
	if v == scNone {
		if t := sc.cookied.Load(); t == 0 || in.now-t >= cookieLife {
			// The stack has sent no cookie, or none that is still valid, so the ACK cannot bring
			// one. The hash need not be computed: ACKs at random cost little.
			v = scBadack
		} else {
			e, v = k.cookieCheck(head, in)
		}
	}
	switch v {
	case scChallenge:
		k.syncacheRespond(head, &r)
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

// syncacheSocket makes the socket of an entry: FreeBSD's syncache_socket. It returns nil if the
// stack is at its limits, or if the addresses are taken.
func (k *Kernel) syncacheSocket(head *Socket, e *scEntry, now int64) *Socket {
	so := head.sonewconn()
	if so == nil {
		return nil
	}
	inp := &so.inp
	inp.tuple, inp.ifp = e.t, e.ifp
	if !e.ifp.loopback && !e.t.faddr.onLink() {
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
// RFC 9293, 3.10.7.4, second: "If this connection was initiated with a passive OPEN (i.e., came
// from the LISTEN state), then return this connection to LISTEN state and return. The user need not
// be informed." The listener never left that state, so it is enough to remove the entry.
func (k *Kernel) syncacheChkrst(head *Socket, in *tcpIn) {
	var r respondTo
	e, v := k.syncache.decide(&in.t, in.now, &r, func(e *scEntry) scVerdict {
		return e.judgeRst(&in.th, k.prof.InsecureRST)
	})
	switch v {
	case scChallenge:
		k.syncacheRespond(head, &r)
	case scRemove:
		k.Stats.TCP.ScReset.Inc()
		if e.flags&scReserved != 0 {
			head.lq.reserved--
			head.unpark()
		}
		e.free()
	}
}

// challenge makes an entry's challenge ACK: "<SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>" (RFC 9293,
// 3.10.7.4). It reports false if the entry has sent as many as a connection may in the time (RFC
// 5961, 7).
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
	// Of the SYN,ACK's options, only timestamps are for segments without a SYN.
	r.seq, r.flags = e.s.Iss+1, wire.ACK
	r.opt.Has &= wire.TofTS
	return true
}

// unreach takes an ICMP error about a SYN,ACK: FreeBSD's syncache_unreach. One error may be forged,
// or the path may have failed for a moment (RFC 1122, 3.2.2.1, takes such an error for a hint). An
// error that comes again after retransmissions ends the attempt.
func (sc *syncache) unreach(e *icmpError) {
	s, v := sc.decide(&e.t, 0, nil, func(s *scEntry) scVerdict {
		// RFC 5927, 4.1: an attacker that cannot see the SYN,ACK does not know its sequence number.
		// A smaller MTU does not concern a SYN,ACK, which has no data.
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

// unreserve frees an entry that is out of the table, and gives back the place on so_q that it
// holds. The caller holds no lock.
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

// expire sends the SYN,ACKs that are due again, and gives up the handshakes whose SYN,ACK has been
// sent often enough: FreeBSD's syncache_timer. Nobody waits for them, so no user is told.
func (sc *syncache) expire(now int64) {
	again, gone, next := sc.due(now)
	if next != never {
		sc.k.clock.arm(&sc.out, sc.k.even(next))
	}
	for i := range again {
		if q := sc.k.tcpRespond(&again[i]); q != nil {
			q.start()
		}
	}
	for _, e := range gone {
		e.unreserve()
	}
}

// due makes the SYN,ACKs that are due, takes out the entries whose time is over, and returns when
// to look again. It reads the entries of a bucket only if one of them is due.
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
		// In a flood each entry has a time of its own. To look at all buckets for each entry would
		// cost as much as the flood.
		next = max(next, now+scTick)
	}
	return again, gone, next
}

// rexmt makes an entry's SYN,ACK once more, and sets its next time: RFC 6298, 5.5: "The host MUST
// set RTO <- RTO * 2". The lock is held.
func (sc *syncache) rexmt(e *scEntry, now int64) (r respondTo) {
	p := &sc.k.prof
	e.s.Rexmits++
	e.s.Expired = true
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
