package tcp

import (
	"container/heap"
	"fmt"
	"math"
	"slices"
	"syscall"
	"testing"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// A pathNet is machines on either side of one bottleneck, in virtual time. It reads no clock and
// shares no stream of random numbers, so each result is the same to the last byte.
//
//	sender 0 --+                                                +-- receiver 0
//	sender 1 --+--> queue -> bottleneck -> one-way delay -------+-- receiver 1
//	   ...                                                           ...
//	           <------- one-way delay <- bottleneck <- queue <--
//
// The links between the hosts and the queue take no time. What happens to the n-th packet of a
// direction depends on the path's seed, the direction and n alone (see pathFate), whatever the
// sender does.

// pathMTU is the MTU of a simulated path, in bytes.
const pathMTU = 1500

// A pathParams describes a path; both directions are alike.
type pathParams struct {
	rate    int64   // of the bottleneck, bits a second
	rtt     int64   // without queues and transmission, nanoseconds
	queue   float64 // size of the queue, as a fraction of rate times rtt; the packet in transmission is extra
	loss    float64 // probability that a packet is lost behind the bottleneck
	reorder float64 // probability that a packet is held back there, for up to a quarter of rtt
	seed    uint64
}

// bdp returns the bandwidth-delay product in bytes.
func (p *pathParams) bdp() int64 { return p.rate / 8 * p.rtt / sec }

// The decisions that are made for each packet.
const (
	fateLoss = iota
	fateReorder
	fateHold
	nFates
)

// pathFate returns 64 random bits for decision what about packet n: SplitMix64 (Steele, Lea and
// Flood, 2014), which finds any element of its sequence at once.
func pathFate(seed, n uint64, what int) uint64 {
	x := seed + (n*nFates+uint64(what)+1)*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// pathChance returns the number below which a pathFate lies with probability p, less than 1.
func pathChance(p float64) uint64 { return uint64(math.Ldexp(p, 64)) }

// A pathLink is one direction of a path.
type pathLink struct {
	rate, delay   int64
	limit         int64 // bytes in the queue and in transmission, at the most
	hold          int64 // the longest that a packet is held back
	loss, reorder uint64
	seed          uint64

	busy    int64   // when the bottleneck will have sent everything
	n       uint64  // packets so far
	dropped int     // of them, because the queue was full
	lost    int     // by chance
	held    int     // held back by chance
	waits   []int32 // how long each data packet has waited, microseconds
}

func newPathLink(p *pathParams, seed uint64) *pathLink {
	return &pathLink{rate: p.rate, delay: p.rtt / 2, limit: int64(p.queue*float64(p.bdp())) + pathMTU, hold: p.rtt / 4,
		loss: pathChance(p.loss), reorder: pathChance(p.reorder), seed: seed}
}

// send returns when a packet of size bytes arrives that is handed to the link now, or false if it
// does not. A packet that is spared is not lost by chance.
func (l *pathLink) send(now int64, size int, spared, data bool) (int64, bool) {
	n := l.n
	l.n++
	wait := max(l.busy-now, 0)
	if wait*l.rate/(8*sec)+int64(size) > l.limit {
		l.dropped++
		return 0, false
	}
	if data {
		l.waits = append(l.waits, int32(wait/1000))
	}
	l.busy = now + wait + int64(size)*8*sec/l.rate
	if !spared && pathFate(l.seed, n, fateLoss) < l.loss {
		l.lost++
		return 0, false
	}
	at := l.busy + l.delay
	if pathFate(l.seed, n, fateReorder) < l.reorder {
		l.held++
		at += int64(pathFate(l.seed, n, fateHold) % uint64(l.hold))
	}
	return at, true
}

// A pathEvent is what will happen to a host at a time: a packet arrives, a timer is due, or the
// user connects.
type pathEvent struct {
	at    int64
	order uint64 // rises from event to event, and decides between those of one instant
	to    *pathHost
	kind  pathKind
	th    wire.TCP
	len   int
}

type pathKind uint8

const (
	pathArrival pathKind = iota
	pathTimer
	pathStart
)

// pathEvents are events to come: a heap.
type pathEvents []*pathEvent

func (q pathEvents) Len() int { return len(q) }
func (q pathEvents) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].order < q[j].order
}
func (q pathEvents) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *pathEvents) Push(x any)   { *q = append(*q, x.(*pathEvent)) }
func (q *pathEvents) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	*q = (*q)[:last]
	return e
}

// A pathNet is a simulation.
type pathNet struct {
	t      testing.TB
	now    int64
	events pathEvents
	free   []*pathEvent
	order  uint64
	count  int // events so far

	timerAt int64 // when a timer was last due
	timers  int   // how many have been due in that instant

	path         pathParams
	there, back  *pathLink
	flows        []*pathFlow
	pool         mbuf.Pool
	small, large *mbuf.Mbuf // all data is views of these two
}

// A pathFlow is one connection. The user at one end always has data to send, and the user at the
// other end reads at once what arrives.
type pathFlow struct {
	sender, receiver pathHost
	bins             []int // bytes read in each pathBin
}

// pathBin is the resolution of pathFlow.bins, in nanoseconds.
const pathBin = 100 * ms

// A pathHost is one machine with its user, and as much of package kern as a connection needs. It is
// the TCB's Sock.
type pathHost struct {
	net   *pathNet
	flow  *pathFlow
	peer  *pathHost
	out   *pathLink
	tp    TCB
	stats Stats
	snd   mbuf.Sendbuf
	rcv   mbuf.Sockbuf
	iss   Seq

	listening bool
	syn       *SynState
	up        bool  // the connection has been established
	since     int64 // when
	writable  bool  // there may be room in the send buffer
	written   uint64
	read      uint64
	alarm     int64 // when an event will look at the timers next; never: no event will
	err       syscall.Errno
}

// newPathNet makes a simulation in which a sender with each of the profiles connects at its time,
// nanoseconds after the beginning.
func newPathNet(t testing.TB, path pathParams, profiles []*Profile, starts []int64) *pathNet {
	s := &pathNet{t: t, now: epoch, path: path}
	s.there = newPathLink(&path, pathFate(path.seed, 0, 0))
	s.back = newPathLink(&path, pathFate(path.seed, 1, 0))
	s.small, s.large = s.pool.Getcl(mbuf.ClMid), s.pool.Getcl(mbuf.ClBig)
	s.small.Extend(mbuf.ClMid)
	s.large.Extend(mbuf.ClBig)
	for i, prof := range profiles {
		f := &pathFlow{}
		f.sender.init(s, f, &f.receiver, s.there, prof, i)
		f.receiver.init(s, f, &f.sender, s.back, pathProfile(), i)
		f.receiver.listening = true
		f.sender.writable = true
		s.flows = append(s.flows, f)
		s.add(epoch+starts[i], &f.sender, pathStart)
	}
	return s
}

// pathProfile is the profile of simulated machines: the default one, without the keep-alive timer,
// which would hide that another timer is missing.
func pathProfile() *Profile {
	p := Default()
	p.Keepalive = false
	return p
}

func (h *pathHost) init(s *pathNet, f *pathFlow, peer *pathHost, out *pathLink, prof *Profile, i int) {
	h.net, h.flow, h.peer, h.out = s, f, peer, out
	h.alarm = never
	h.iss = Seq(1000 + 7919*i)
	h.snd.SetHiwat(prof.Sendspace)
	h.rcv.SetHiwat(prof.Recvspace)
	h.tp.Init(Config{Sock: h, Env: NewEnv(prof, &s.pool, &h.stats), Snd: &h.snd, Rcv: &h.rcv})
	h.tp.Lport, h.tp.Fport = uint16(1000+i), uint16(2000+i)
	h.tp.SetPath(Path{MTU: pathMTU, TSOmax: 65000})
}

// add makes an event.
func (s *pathNet) add(at int64, to *pathHost, kind pathKind) *pathEvent {
	var e *pathEvent
	if last := len(s.free) - 1; last >= 0 {
		e = s.free[last]
		s.free = s.free[:last]
	} else {
		e = new(pathEvent)
	}
	s.order++
	e.at, e.order, e.to, e.kind = at, s.order, to, kind
	heap.Push(&s.events, e)
	return e
}

// run lets time pass until it is d after the beginning, in nanoseconds.
func (s *pathNet) run(d int64) {
	for end := epoch + d; len(s.events) > 0 && s.events[0].at <= end; s.count++ {
		e := heap.Pop(&s.events).(*pathEvent)
		h := e.to
		s.now = e.at
		switch e.kind {
		case pathStart:
			h.tp.Connect(h.iss, 0, s.now)
		case pathTimer:
			if e.at != h.alarm {
				break // an earlier event has taken its place
			}
			h.alarm = never
			if h.tp.Next() <= s.now {
				s.spin()
				h.tp.Timeout(s.now)
			}
		case pathArrival:
			h.input(&e.th, e.len)
		}
		s.free = append(s.free, e)
		h.after()
	}
	s.now = epoch + d
}

// spin fails if timers are due again and again in one instant.
func (s *pathNet) spin() {
	if s.now != s.timerAt {
		s.timerAt, s.timers = s.now, 0
	}
	if s.timers++; s.timers > 100*len(s.flows) {
		s.fatalf("a timer is due again and again")
	}
}

func (s *pathNet) fatalf(format string, args ...any) {
	s.t.Helper()
	s.t.Fatalf("%s\nafter %.6f s and %d events, on path %+v", fmt.Sprintf(format, args...),
		float64(s.now-epoch)/1e9, s.count, s.path)
}

// transmit hands a packet to the link.
func (h *pathHost) transmit(th *wire.TCP, n int) {
	s := h.net
	at, ok := h.out.send(s.now, wire.IPv4MinLen+th.Hlen+n, th.Flags&wire.SYN != 0, n > 0)
	if ok {
		e := s.add(at, h.peer, pathArrival)
		e.th, e.len = *th, n
	}
}

// Emit cuts what the machine sends into packets, as an interface does.
func (h *pathHost) Emit(m *mbuf.Mbuf) syscall.Errno {
	var th wire.TCP
	if err := wire.ParseTCP(m.Bytes(), &th); err != nil {
		h.net.fatalf("emitted: %v", err)
	}
	n, size := m.Pkt.Len-th.Hlen, m.Pkt.SegSize
	if n != m.Len()-th.Hlen || n > 0 && (size <= 0 || wire.IPv4MinLen+th.Hlen+min(n, size) > pathMTU) {
		h.net.fatalf("emitted: %d bytes of %d, in segments of %d", n, m.Len()-th.Hlen, size)
	}
	mbuf.Free(m)
	flags := th.Flags
	for n > size && size > 0 {
		th.Flags = flags &^ (wire.FIN | wire.PUSH)
		h.transmit(&th, size)
		flags &^= wire.CWR // on the first only (RFC 3168, 6.1.2)
		th.Seq = th.Seq.Add(size)
		n -= size
	}
	th.Flags = flags
	h.transmit(&th, n)
	return 0
}

// input is tcp_input: syncache and machine.
func (h *pathHost) input(th *wire.TCP, n int) {
	s := h.net
	if h.listening && !h.syncache(th) {
		return
	}
	if h.tp.Input(th, Payload{M: mbuf.Copym(s.small, 0, n), Len: n, Segs: 1}, s.now, s.now) {
		s.fatalf("a segment is answered with a reset: %s %d:%d(%d) ack %d", th.Flags, th.Seq, th.Seq.Add(n), n, th.Ack)
	}
}

// syncache answers a SYN, and reports whether the ACK has made a connection.
func (h *pathHost) syncache(th *wire.TCP) bool {
	s := h.net
	switch {
	case th.Flags&wire.SYN != 0:
		if h.syn == nil {
			h.syn = &SynState{Iss: h.iss, Irs: th.Seq, Win: th.Win, SentWin: maxWin, Opt: th.Opt,
				TSRecent: th.Opt.TSVal, Scale: WscaleFor(h.tp.prof.Maxsockbuf), Start: s.now}
		} else {
			h.syn.Rexmits++
		}
		answer := wire.TCP{Flags: wire.SYN | wire.ACK, Seq: h.iss, Ack: h.syn.Irs + 1, Win: h.syn.SentWin,
			Hlen: th.Hlen, // the answer has the same options as the SYN
			Opt: wire.Options{Has: th.Opt.Has, MSS: uint16(h.tp.mssopt), Scale: h.syn.Scale,
				TSVal: TSClock(s.now, 0), TSEcr: h.syn.TSRecent}}
		h.transmit(&answer, 0)
		return false
	case h.syn == nil:
		s.fatalf("a segment before the SYN")
	}
	h.listening = false
	h.tp.Passive(h.syn, s.now)
	return true
}

// after follows each event: the user reads and writes, the invariants are checked, and the alarm is
// set.
func (h *pathHost) after() {
	s := h.net
	if n := h.rcv.Cc(); n > 0 {
		h.read += uint64(n)
		h.rcv.Drop(n)
		bin := int((s.now - epoch) / pathBin)
		for len(h.flow.bins) <= bin {
			h.flow.bins = append(h.flow.bins, 0)
		}
		h.flow.bins[bin] += n
		if h.tp.OwesUpdate() {
			h.tp.Output(s.now)
		}
	}
	if h.writable && h.up {
		h.write()
	}
	h.check()
	if next := h.tp.Next(); next < h.alarm {
		h.alarm = max(next, s.now)
		s.add(h.alarm, h, pathTimer)
	}
}

// write fills the send buffer, if there is room for as much as sosend waits for.
func (h *pathHost) write() {
	h.writable = false
	before := h.written
	for space := h.snd.Space(); space >= mbuf.ClMid; space = h.snd.Space() {
		m := h.net.large
		if space < mbuf.ClBig {
			m = h.net.small
		}
		h.snd.Append(mbuf.Copym(m, 0, len(m.Bytes())))
		h.written += uint64(len(m.Bytes()))
	}
	if h.written > before {
		h.tp.Output(h.net.now)
	}
}

// check asserts the invariants: those of the machine; that a connection with data to send or
// unacknowledged has a timer; and that the user has read all bytes up to RCV.NXT, no more than the
// peer has written, and no fewer than the peer has seen acknowledged.
func (h *pathHost) check() {
	s, tp := h.net, &h.tp
	if err := tp.Check(); err != nil {
		s.fatalf("%v", err)
	}
	switch {
	case h.err != 0 || tp.state == Closed && h.up:
		s.fatalf("the connection ends with %v in %s", h.err, tp.state)
	case !h.up:
		return
	case (h.snd.Cc() > 0 || tp.sndUna != tp.sndMax) && tp.Next() == never:
		s.fatalf("%d bytes are to be sent or unacknowledged, and no timer runs", h.snd.Cc())
	}
	if n := uint32(tp.rcvNxt - (tp.irs + 1)); n != uint32(h.read) {
		s.fatalf("%d bytes are received in order, %d are read", n, h.read)
	}
	if h.read > h.peer.written || tp.bytesSent > h.peer.read {
		s.fatalf("%d bytes are read of %d, %d are acknowledged of %d",
			h.read, h.peer.written, tp.bytesSent, h.peer.read)
	}
}

// done ends the simulation and returns every buffer.
func (s *pathNet) done() {
	for _, f := range s.flows {
		for _, h := range []*pathHost{&f.sender, &f.receiver} {
			if h.tp.state != Closed {
				h.tp.Close()
			}
			h.snd.Flush()
			h.rcv.Flush()
		}
	}
	mbuf.Free(s.small)
	mbuf.Free(s.large)
	if m, b := s.pool.Outstanding(); m != 0 || b != 0 {
		s.fatalf("leak: %d mbufs, %d bytes of clusters", m, b)
	}
}

// between returns how many bytes of the flow were read between two times, nanoseconds after the
// beginning and multiples of pathBin.
func (f *pathFlow) between(from, to int64) int {
	n := 0
	for i := from / pathBin; i < min(to/pathBin, int64(len(f.bins))); i++ {
		n += f.bins[i]
	}
	return n
}

// queueing returns the mean and the 95th percentile of the time that data has waited in the queue,
// in nanoseconds.
func (l *pathLink) queueing() (mean, p95 int64) {
	if len(l.waits) == 0 {
		return 0, 0
	}
	w := slices.Sorted(slices.Values(l.waits))
	for _, v := range w {
		mean += int64(v)
	}
	return mean * 1000 / int64(len(w)), int64(w[len(w)*95/100]) * 1000
}

// Room reports that the interface takes more.
func (h *pathHost) Room() bool { return true }

func (h *pathHost) Soisconnected()          { h.up, h.since = true, h.net.now }
func (h *pathHost) Soisdisconnected()       {}
func (h *pathHost) Socantrcvmore()          {}
func (h *pathHost) Sorwakeup()              {}
func (h *pathHost) Sowwakeup()              { h.writable = true }
func (h *pathHost) TcpClose()               {}
func (h *pathHost) Trace(*Event)            {}
func (h *pathHost) TcpTwstart()             {}
func (h *pathHost) Soerror(e syscall.Errno) { h.err = e }
