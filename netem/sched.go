package netem

import (
	"bytes"
	"cmp"
	"container/heap"
	"math"
	"slices"
	"sync"
	"time"
)

// never is later than any instant.
const never = math.MaxInt64

// scheduler lets packets leave at their instants, one packet per instant.
//
// In a testing/synctest bubble time stands still while any goroutine runs, timers that expire at
// one instant fire in random order, and goroutines run in parallel. So the events of one instant
// have no order of their own. Therefore the scheduler does not act on a packet at the instant at
// which it is submitted. It collects the packets and sorts them by flow, and by their order within
// the flow, 1 ns later, when every goroutine in the bubble is blocked and all packets of the
// instant are there. If two packets are due at the same instant, the second leaves 2 ns after the
// first, when every goroutine that the first has woken is blocked again. So a bubble runs in the
// same way each time, whatever the goroutines do within an instant.
//
// The same code runs in real time. If a timer fires late, all packets leave whose instants have
// passed.
//
// All lines of one scheduler, that is, the two directions of a link, share its instants.
type scheduler struct {
	mu          sync.Mutex
	rest        sync.Cond // signals that packets have left, or that run has ended
	lines       []*line
	base        time.Time // instants are nanoseconds since
	timer       *time.Timer
	armed       int64 // the instant at which timer fires, or never
	outstanding int   // calls of run that are under way or that the timer will make
	running     bool  // a call of run is under way; it will arm the timer when it ends
	closed      bool
	last        int64 // the next packet leaves after this instant
	batch       []*packet
}

// line is one direction of a link in a scheduler, whose lock guards it.
type line struct {
	// deliver takes packets that leave, in order, and returns how many it has taken. If it takes
	// fewer than it was given, it is full, and unblock is called when it can take more. It is
	// called without the scheduler's lock, and never twice at the same time. It owns the packets
	// that it takes.
	deliver func(pkts []*packet) int
	delay   int64  // from arrival to departure, at least 1, on a line without a model
	model   *model // decides on each packet of the line, or nil
	orders  uint64 // the order of the next packet

	// arrivals are the packets of one instant that the model has not seen yet: a heap whose top is
	// the packet that the model would see last. If there are too many, that one is dropped, because
	// which packet it is does not depend on the order in which they came.
	arrivals packetHeap
	arrived  int64 // their instant

	departures packetHeap // the packets that know when they leave, the first on top
	leaving    int        // how many packets deliver has at the moment
	blocked    bool       // deliver was full
	unblocks   uint64     // calls of unblock
	dead       bool
}

func (s *scheduler) init(lines ...*line) {
	s.rest.L = &s.mu
	s.armed = never
	s.lines = lines
	s.batch = make([]*packet, 0, batchLen)
	for _, l := range lines {
		l.arrivals.less = func(a, b *packet) bool { return compareArrivals(a, b) > 0 }
		l.departures.less = func(a, b *packet) bool { return compareDepartures(a, b) < 0 }
	}
}

// compareArrivals compares packets of one instant by the order in which the model sees them.
func compareArrivals(a, b *packet) int {
	if c := bytes.Compare(a.flow[:], b.flow[:]); c != 0 {
		return c
	}
	return cmp.Compare(a.order, b.order)
}

// compareDepartures compares packets by the order in which they leave.
func compareDepartures(a, b *packet) int {
	if a.due != b.due {
		return cmp.Compare(a.due, b.due)
	}
	return compareArrivals(a, b)
}

// now returns the present instant. s.mu is held.
func (s *scheduler) now() int64 {
	if s.base.IsZero() {
		s.base = time.Now()
	}
	return int64(time.Since(s.base))
}

// submit passes packets to a line, which owns them from then on, and clears pkts. It skips nil
// packets.
func (s *scheduler) submit(l *line, pkts []*packet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || l.dead {
		freeAll(pkts)
		return
	}
	now := s.now()
	l.admit(now) // run does the same if it comes first at this instant
	at := int64(never)
	for i, p := range pkts {
		if p == nil {
			continue
		}
		pkts[i] = nil
		p.arrival = now
		p.order = l.orders
		l.orders += 2 // a duplicate gets the number between two packets
		if l.model == nil {
			p.due = now + l.delay
			l.departures.push(p)
			at = min(at, p.due)
			continue
		}
		l.model.counts.Packets++
		if len(l.arrivals.a) == l.model.limit {
			l.model.counts.Dropped++
			if compareArrivals(p, l.arrivals.a[0]) >= 0 {
				p.free()
				continue
			}
			l.arrivals.pop().free()
		}
		l.arrivals.push(p)
		l.arrived = now
		at = min(at, now+1)
	}
	s.arm(at, now)
}

// arm makes the timer fire no later than at an instant. s.mu is held.
func (s *scheduler) arm(at, now int64) {
	if at >= s.armed || s.running || s.closed {
		return
	}
	s.armed = at
	d := time.Duration(max(at-now, 1))
	if s.timer == nil {
		// The timer is made on first use, so that it belongs to the bubble in which the link is
		// used.
		s.timer = time.AfterFunc(d, s.run)
		s.outstanding++
	} else if !s.timer.Reset(d) {
		s.outstanding++
	}
}

// disarm stops the timer. s.mu is held.
func (s *scheduler) disarm() {
	s.armed = never
	if s.timer != nil && s.timer.Stop() {
		s.outstanding--
	}
}

// run is what the timer calls: it lets packets leave whose instants have come.
func (s *scheduler) run() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.running {
		s.running = true
		s.armed = never
		for !s.closed {
			now := s.now()
			for _, l := range s.lines {
				l.admit(now)
			}
			l := s.depart(now)
			if l == nil {
				s.running = false
				s.arm(s.wake(), now)
				break
			}
			s.carry(l)
		}
		s.running = false
	}
	s.outstanding--
	s.rest.Broadcast()
}

// depart moves the packets that may leave at now from one line to s.batch and returns the line. If
// there are none, it returns nil. s.mu is held.
func (s *scheduler) depart(now int64) (from *line) {
	for len(s.batch) < batchLen {
		l, at := s.next()
		if at > now || from != nil && l != from {
			break
		}
		from = l
		s.last = at
		s.batch = append(s.batch, l.departures.pop())
	}
	return from
}

// wake returns the next instant at which there is work to do. s.mu is held.
func (s *scheduler) wake() int64 {
	_, at := s.next()
	for _, l := range s.lines {
		if len(l.arrivals.a) > 0 {
			at = min(at, l.arrived+1)
		}
	}
	return at
}

// next returns the line of the packet that leaves next, and the instant at which it does. s.mu is
// held.
func (s *scheduler) next() (first *line, at int64) {
	at = never
	for _, l := range s.lines {
		if l.blocked || len(l.departures.a) == 0 {
			continue
		}
		if t := s.odd(max(l.departures.a[0].due, s.last+1)); t < at || first != nil && t == at &&
			l.departures.a[0].due < first.departures.a[0].due {
			first, at = l, t
		}
	}
	return first, at
}

// odd returns t, or the next instant, whichever is odd on the wall clock. Packets leave at odd
// instants, and the timers of a stack's protocols fire at even ones, because a bubble would run
// them in any order if they came at the same instant.
func (s *scheduler) odd(t int64) int64 {
	if (t+s.base.UnixNano())&1 == 0 {
		t++
	}
	return t
}

// carry delivers s.batch and puts back the packets that deliver does not take. It unlocks s.mu
// meanwhile.
func (s *scheduler) carry(l *line) {
	unblocks := l.unblocks
	l.leaving = len(s.batch)
	s.mu.Unlock()
	n := l.deliver(s.batch)
	s.mu.Lock()
	l.leaving = 0
	// These packets keep their keys, so they come first again.
	for _, p := range s.batch[n:] {
		l.departures.push(p)
	}
	l.blocked = n < len(s.batch) && l.unblocks == unblocks
	clear(s.batch)
	s.batch = s.batch[:0]
	s.rest.Broadcast()
}

// unblock lets a line go on whose deliver was full.
func (s *scheduler) unblock(l *line) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.unblocks++
	if !l.blocked {
		return
	}
	l.blocked = false
	now := s.now()
	s.last = max(s.last, now) // run may or may not come again at this instant: nothing more leaves at it
	s.arm(now+1, now)
}

// drain waits until a line has no packets left, or the scheduler is closed.
func (s *scheduler) drain(l *line) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.closed && len(l.arrivals.a)+len(l.departures.a)+l.leaving > 0 {
		s.rest.Wait()
	}
}

// drop closes lines and drops the packets that are on them. When it has closed the last line of the
// scheduler, it closes the scheduler, stops the timer and waits until run has ended.
func (s *scheduler) drop(lines ...*line) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range lines {
		l.dead = true
		freeAll(l.arrivals.a)
		freeAll(l.departures.a)
		l.arrivals.a, l.departures.a = nil, nil
	}
	s.closed = true
	for _, l := range s.lines {
		s.closed = s.closed && l.dead
	}
	s.disarm()
	s.arm(s.wake(), s.now())
	s.rest.Broadcast()
	for s.closed && s.outstanding > 0 {
		s.rest.Wait()
	}
}

// admit passes the packets that arrived before now to the model, in an order that does not depend
// on which of several goroutines wrote first. Packets that arrive at now itself may not all be
// there yet. Every event at an instant calls admit before anything else, so the model finds the
// line in the same state in every run. The scheduler's lock is held.
func (l *line) admit(now int64) {
	if len(l.arrivals.a) == 0 || l.arrived >= now {
		return
	}
	slices.SortFunc(l.arrivals.a, compareArrivals)
	for _, p := range l.arrivals.a {
		l.model.admit(l, p)
	}
	clear(l.arrivals.a)
	l.arrivals.a = l.arrivals.a[:0]
}

// packetHeap is a heap of packets for package container/heap, with the least on top.
type packetHeap struct {
	a    []*packet
	less func(a, b *packet) bool
}

func (h *packetHeap) push(p *packet) { heap.Push(h, p) }

func (h *packetHeap) pop() *packet { return heap.Pop(h).(*packet) }

// Len implements sort.Interface.
func (h *packetHeap) Len() int { return len(h.a) }

// Less implements sort.Interface.
func (h *packetHeap) Less(i, j int) bool { return h.less(h.a[i], h.a[j]) }

// Swap implements sort.Interface.
func (h *packetHeap) Swap(i, j int) { h.a[i], h.a[j] = h.a[j], h.a[i] }

// Push implements heap.Interface.
func (h *packetHeap) Push(x any) { h.a = append(h.a, x.(*packet)) }

// Pop implements heap.Interface.
func (h *packetHeap) Pop() any {
	last := len(h.a) - 1
	p := h.a[last]
	h.a[last] = nil
	h.a = h.a[:last]
	return p
}
