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
// All lines of one scheduler share its instants: the two directions of a link, or all ports and
// trunks of connected switches.
type scheduler struct {
	mu          sync.Mutex
	rest        sync.Cond // signals that packets have left, or that run has ended
	lines       []*line   // those that are not dead
	numbered    int       // lines that there have been
	pending     []*line   // lines that have arrivals
	ready       lineHeap  // lines whose departures may leave
	changes     []func()  // what change was given at the instant changed
	changed     int64
	base        time.Time // instants are nanoseconds since
	timer       *time.Timer
	armed       int64 // the instant at which timer fires, or never
	outstanding int   // calls of run that are under way or that the timer will make
	running     bool  // a call of run is under way; it will arm the timer when it ends
	closed      bool  // no stack can read any more
	last        int64 // the next packet leaves after this instant
	batch       []*packet
	one         [1]*packet // of relay
}

// line is one direction of a link in a scheduler, whose lock guards it.
type line struct {
	// deliver takes packets that leave, in order, and returns how many it has taken. If it takes
	// fewer than it was given, it is full, and unblock is called when it can take more. It is
	// called without the scheduler's lock, and never twice at the same time. It owns the packets
	// that it takes.
	deliver func(pkts []*packet) int
	model   *model // decides on each packet of the line, or nil

	// A line without a model has these.
	delay  int64                // from arrival to departure, at least 1
	cut    bool                 // nothing passes
	refuse func(pkts []*packet) // drops packets because of cut

	orders uint64 // the order of the next packet
	number int    // the order of the scheduler's lines
	heaped int    // its place in scheduler.ready, from 1; 0: it is not there

	// arrivals are the packets of one instant that the model has not seen yet: a heap whose top is
	// the packet that the model would see last. If there are too many, that one is dropped, because
	// which packet it is does not depend on the order in which they came.
	arrivals packetHeap
	arrived  int64 // their instant

	departures packetHeap // the packets that know when they leave, the first on top
	leaving    int        // how many packets deliver has at the moment
	blocked    bool       // deliver was full
	unblocks   uint64     // calls of unblock
	inner      bool       // the line ends at no stack, so it does not keep the scheduler open
	closing    bool       // the line dies when its last packet has left
	dead       bool
}

func (s *scheduler) init(lines ...*line) {
	s.rest.L = &s.mu
	s.armed = never
	s.batch = make([]*packet, 0, batchLen)
	s.add(lines...)
}

// add adds lines to the scheduler. After init, s.mu is held.
func (s *scheduler) add(lines ...*line) {
	for _, l := range lines {
		s.closed = s.closed && l.inner
		s.numbered++
		l.number = s.numbered
		s.lines = append(s.lines, l)
		l.arrivals.less = func(a, b *packet) bool { return compareArrivals(a, b) > 0 }
		l.departures.less = func(a, b *packet) bool { return compareDepartures(a, b) < 0 }
	}
}

// join is add.
func (s *scheduler) join(lines ...*line) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(lines...)
}

// wall returns the time. s.mu is held.
func (s *scheduler) wall() time.Time { return s.base.Add(time.Duration(s.now())) }

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
	s.settle(now) // run does the same if it comes first at this instant
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
			if l.cut {
				l.refuse([]*packet{p})
				continue
			}
			p.due = now + l.delay
			s.depart(l, p)
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
		if len(l.arrivals.a) == 0 {
			s.pending = append(s.pending, l)
		}
		l.arrivals.push(p)
		l.arrived = now
		at = min(at, now+1)
	}
	s.arm(at, now)
}

// change calls f, which may change the lines' models, between two instants: after all packets of
// past instants have been seen, and before those of the present one are. So it makes no difference
// whether a packet of the present instant is submitted before or after the call of change. f is
// called with s.mu held.
func (s *scheduler) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		f() // nothing is left to be in time for
		return
	}
	now := s.now()
	s.settle(now) // the changes of an earlier instant come first
	s.changes, s.changed = append(s.changes, f), now
	s.arm(now+1, now)
}

// settle does what was left to do when the instants before now had passed: it makes the changes,
// and passes the packets that have arrived to the models, in an order that does not depend on which
// of several goroutines was first. The changes and packets of now itself may not all be there yet.
// Every event at an instant calls settle before anything else, so a model finds its line in the
// same state in every run. s.mu is held.
func (s *scheduler) settle(now int64) {
	if len(s.changes) > 0 && s.changed < now {
		list := s.changes
		s.changes = nil
		for _, f := range list {
			f()
		}
	}
	if len(s.pending) == 0 || s.pending[0].arrived >= now {
		return
	}
	slices.SortFunc(s.pending, func(a, b *line) int { return cmp.Compare(a.number, b.number) })
	for _, l := range s.pending {
		slices.SortFunc(l.arrivals.a, compareArrivals)
		for _, p := range l.arrivals.a {
			l.model.admit(s, l, p)
		}
		clear(l.arrivals.a)
		l.arrivals.a = l.arrivals.a[:0]
		s.retire(l)
	}
	clear(s.pending)
	s.pending = s.pending[:0]
}

// depart lets p leave l at the instant p.due, or later if the line is blocked. s.mu is held.
func (s *scheduler) depart(l *line, p *packet) {
	l.departures.push(p)
	s.place(l)
}

// place puts l into its place in s.ready. s.mu is held, and l.departures or l.blocked has changed.
func (s *scheduler) place(l *line) {
	may := !l.blocked && len(l.departures.a) > 0
	switch {
	case may && l.heaped == 0:
		heap.Push(&s.ready, l)
	case may:
		heap.Fix(&s.ready, l.heaped-1)
	case l.heaped > 0:
		heap.Remove(&s.ready, l.heaped-1)
	}
}

// relay passes a packet that has left one line to another. As one packet leaves at a time, and in
// the same order in every run, the packet need not wait for others of its instant. If now is true
// and nothing holds the packet up, it is delivered at once.
func (s *scheduler) relay(l *line, p *packet, now bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || l.dead {
		p.free()
		return
	}
	p.arrival = s.now()
	p.order = l.orders
	l.orders += 2
	l.model.counts.Packets++
	if !l.model.judge(s, l, p) {
		return
	}
	if !now || p.due > p.arrival+1 || l.blocked || len(l.departures.a) > 0 {
		s.depart(l, p)
		return
	}
	s.one[0] = p
	one := l.model.gate(s.one[:])
	if len(one) == 0 {
		return
	}
	unblocks := l.unblocks
	s.mu.Unlock()
	n := l.deliver(one)
	s.mu.Lock()
	if n == 0 {
		l.blocked = l.unblocks == unblocks
		if l.dead {
			p.free()
			return
		}
		s.depart(l, p)
	}
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
			s.settle(now)
			l := s.pick(now)
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

// pick moves the packets that may leave at now from one line to s.batch and returns the line. If
// there are none, it returns nil. s.mu is held.
func (s *scheduler) pick(now int64) (from *line) {
	for len(s.batch) < batchLen {
		l, at := s.next()
		if at > now || from != nil && l != from {
			break
		}
		from = l
		s.last = at
		s.batch = append(s.batch, l.departures.pop())
		s.place(l)
	}
	return from
}

// wake returns the next instant at which there is work to do. s.mu is held.
func (s *scheduler) wake() int64 {
	_, at := s.next()
	if len(s.pending) > 0 {
		at = min(at, s.pending[0].arrived+1)
	}
	if len(s.changes) > 0 {
		at = min(at, s.changed+1)
	}
	return at
}

// next returns the line of the packet that leaves next, and the instant at which it does. s.mu is
// held.
func (s *scheduler) next() (first *line, at int64) {
	if len(s.ready) == 0 {
		return nil, never
	}
	first = s.ready[0]
	return first, s.odd(max(first.departures.a[0].due, s.last+1))
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
	switch {
	case l.model != nil:
		s.batch = l.model.gate(s.batch)
	case l.cut:
		l.refuse(s.batch)
		s.batch = s.batch[:0]
	}
	unblocks := l.unblocks
	l.leaving = len(s.batch)
	s.mu.Unlock()
	n := 0
	if len(s.batch) > 0 {
		n = l.deliver(s.batch)
	}
	s.mu.Lock()
	l.leaving = 0
	// These packets keep their keys, so they come first again.
	for _, p := range s.batch[n:] {
		l.departures.push(p)
	}
	l.blocked = n < len(s.batch) && l.unblocks == unblocks
	if l.dead {
		freeAll(l.departures.a)
		l.departures.a = nil
	}
	s.place(l)
	s.retire(l)
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
	s.place(l)
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

// drop closes lines and drops the packets that are on them. When it has closed the last line that
// ends at a stack, it closes the scheduler, stops the timer and waits until run has ended.
func (s *scheduler) drop(lines ...*line) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range lines {
		l.dead = true
		s.empty(l)
	}
	s.lines = slices.DeleteFunc(s.lines, func(l *line) bool { return l.dead })
	s.end()
}

// leave drops a line that ends at a stack, and closes another when its last packet has left.
func (s *scheduler) leave(dead, closing *line) {
	s.mu.Lock()
	defer s.mu.Unlock()
	closing.closing = true
	s.retire(closing)
	dead.dead = true
	s.empty(dead)
	s.lines = slices.DeleteFunc(s.lines, func(l *line) bool { return l.dead })
	s.end()
}

// empty drops the packets that are on a line. s.mu is held.
func (s *scheduler) empty(l *line) {
	freeAll(l.arrivals.a)
	freeAll(l.departures.a)
	l.arrivals.a, l.departures.a = nil, nil
	s.place(l)
	s.pending = slices.DeleteFunc(s.pending, func(p *line) bool { return p == l })
}

// end closes the scheduler if no line is left that ends at a stack: then it drops all packets,
// stops the timer and waits until run has ended. s.mu is held.
func (s *scheduler) end() {
	s.closed = !slices.ContainsFunc(s.lines, func(l *line) bool { return !l.inner && !l.closing })
	s.disarm()
	if s.closed {
		for _, l := range s.lines {
			l.dead = l.dead || l.closing
			s.empty(l)
		}
		s.settle(never)
	}
	s.arm(s.wake(), s.now())
	s.rest.Broadcast()
	for s.closed && s.outstanding > 0 {
		s.rest.Wait()
	}
}

// retire removes a line that is closing, if its last packet has left. s.mu is held.
func (s *scheduler) retire(l *line) {
	if !l.closing || l.dead || len(l.arrivals.a)+len(l.departures.a)+l.leaving > 0 {
		return
	}
	l.dead = true
	s.lines = slices.DeleteFunc(s.lines, func(o *line) bool { return o == l })
}

// A lineHeap is a heap of lines for package container/heap. On top is the line whose packet leaves
// next.
type lineHeap []*line

// Len implements sort.Interface.
func (h lineHeap) Len() int { return len(h) }

// Less implements sort.Interface.
func (h lineHeap) Less(i, j int) bool {
	a, b := h[i].departures.a[0].due, h[j].departures.a[0].due
	return a < b || a == b && h[i].number < h[j].number
}

// Swap implements sort.Interface.
func (h lineHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].heaped, h[j].heaped = i+1, j+1
}

// Push implements heap.Interface.
func (h *lineHeap) Push(x any) {
	l := x.(*line)
	*h = append(*h, l)
	l.heaped = len(*h)
}

// Pop implements heap.Interface.
func (h *lineHeap) Pop() any {
	last := len(*h) - 1
	l := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	l.heaped = 0
	return l
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
