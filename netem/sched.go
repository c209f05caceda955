package netem

import (
	"bytes"
	"cmp"
	"math"
	"slices"
	"sync"
	"time"
)

// never is an instant that does not come.
const never = math.MaxInt64

// scheduler lets packets leave at their instants, one packet an instant.
//
// In a testing/synctest bubble time stands still while anything runs, timers of one instant fire in random order, and
// goroutines run in parallel. What happens within one instant has no order, then, unless somebody makes one. So nothing
// that is handed over at an instant is acted upon in that instant: it is collected, and 1 ns later, when the bubble has come
// to rest and all of it is there, it is sorted by flow and by its order within the flow. Of two packets that are due at
// the same instant the second leaves 2 ns after the first, when everything that the first has set going is at rest again. So
// a bubble runs the same way each time, whatever the goroutines do within an instant.
//
// With real time it is the same code. A timer that fires late lets all packets go whose instants have passed.
//
// The lines of one scheduler, the two directions of a link, share its instants.
type scheduler struct {
	mu          sync.Mutex
	rest        sync.Cond // packets have left, or run has ended
	lines       []*line
	base        time.Time // instants are nanoseconds since
	timer       *time.Timer
	armed       int64 // the instant at which timer fires, or never
	outstanding int   // calls of run that are under way or that the timer is going to make
	running     bool  // a call of run is under way and arms the timer when it ends
	closed      bool
	last        int64 // the last instant at which a packet has left, or none may leave any more
	batch       []*packet
}

// line is one direction of a link in a scheduler, whose lock guards it.
type line struct {
	// deliver takes packets that leave, in order, and returns how many. Less than all of them says that it is full, and
	// unblock is called when it can take more. It is called without the scheduler's lock, once at a time. The packets
	// that it takes belong to it.
	deliver func(pkts []*packet) int
	delay   int64  // from arrival to departure, at least 1, on a line without a model
	model   *model // decides on each packet of the line, or nil
	orders  uint64 // how many packets have been handed over

	// arrivals are the packets of one instant that the model has not seen yet: a heap with the last of them, in the order
	// in which the model sees them, on top. That one is dropped if there are too many, since which one it is does not
	// depend on the order in which they come.
	arrivals packetHeap
	arrived  int64 // their instant

	departures packetHeap // the packets that have an instant to leave
	leaving    int        // those that deliver has at the moment
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

// compareArrivals orders packets of one instant as the model sees them.
func compareArrivals(a, b *packet) int {
	if c := bytes.Compare(a.flow[:], b.flow[:]); c != 0 {
		return c
	}
	return cmp.Compare(a.order, b.order)
}

// compareDepartures orders packets as they leave.
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

// submit hands packets, the nil ones excepted, over to a line, whose they are from now on, and forgets them.
func (s *scheduler) submit(l *line, pkts []*packet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || l.dead {
		freeAll(pkts)
		return
	}
	now := s.now()
	l.admit(now) // as run does at this instant, if it comes first
	at := int64(never)
	for i, p := range pkts {
		if p == nil {
			continue
		}
		pkts[i] = nil
		p.arrival = now
		p.order = l.orders
		l.orders += 2 // the place behind it is for a duplicate
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

// arm makes the timer fire at an instant, or before. s.mu is held.
func (s *scheduler) arm(at, now int64) {
	if at >= s.armed || s.running || s.closed {
		return
	}
	s.armed = at
	d := time.Duration(max(at-now, 1))
	if s.timer == nil {
		// Made here and not with the scheduler, so that it belongs to the bubble in which the link is used.
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

// run is what the timer calls: it lets the packets go whose instants have come.
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

// depart moves packets that may leave at now from one line to s.batch, and returns the line, or nil if there are none.
// s.mu is held.
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

// wake returns the next instant at which there is something to do. s.mu is held.
func (s *scheduler) wake() int64 {
	_, at := s.next()
	for _, l := range s.lines {
		if len(l.arrivals.a) > 0 {
			at = min(at, l.arrived+1)
		}
	}
	return at
}

// next returns the line of the packet that leaves next, and the instant at which it does. s.mu is held.
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

// odd returns t, or the next instant, whichever is odd on the clock of the day. Packets leave at odd instants, and the timers of a stack's
// protocols fire at even ones: at one and the same instant a bubble would run them in any order.
func (s *scheduler) odd(t int64) int64 {
	if (t+s.base.UnixNano())&1 == 0 {
		t++
	}
	return t
}

// carry delivers s.batch, for which it gives s.mu up meanwhile, and keeps what is not taken.
func (s *scheduler) carry(l *line) {
	unblocks := l.unblocks
	l.leaving = len(s.batch)
	s.mu.Unlock()
	n := l.deliver(s.batch)
	s.mu.Lock()
	l.leaving = 0
	// What is left goes back with the keys that it has, and so comes first again.
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
	s.last = max(s.last, now) // whether or not run comes later in this instant, nothing more leaves in it
	s.arm(now+1, now)
}

// drain waits until a line has nothing left, or is closed.
func (s *scheduler) drain(l *line) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.closed && len(l.arrivals.a)+len(l.departures.a)+l.leaving > 0 {
		s.rest.Wait()
	}
}

// drop closes lines: what is under way on them is lost. With the last of its lines the scheduler is closed; then its timer
// is stopped and run has ended.
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

// admit shows the model the packets that have arrived before now, in an order that does not depend on who of several
// goroutines came first. What arrives at now itself may not all be there yet. Whatever happens at an instant, this comes
// first: so the model finds the line as it is in every run. The scheduler's lock is held.
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

// packetHeap is a binary heap of packets with the least on top.
type packetHeap struct {
	a    []*packet
	less func(a, b *packet) bool
}

func (h *packetHeap) push(p *packet) {
	i := len(h.a)
	h.a = append(h.a, p)
	for i > 0 {
		up := (i - 1) / 2
		if !h.less(p, h.a[up]) {
			break
		}
		h.a[i] = h.a[up]
		i = up
	}
	h.a[i] = p
}

func (h *packetHeap) pop() *packet {
	top := h.a[0]
	n := len(h.a) - 1
	p := h.a[n]
	h.a[n] = nil
	h.a = h.a[:n]
	if n == 0 {
		return top
	}
	i := 0
	for {
		down := 2*i + 1
		if down >= n {
			break
		}
		if down+1 < n && h.less(h.a[down+1], h.a[down]) {
			down++
		}
		if !h.less(h.a[down], p) {
			break
		}
		h.a[i] = h.a[down]
		i = down
	}
	h.a[i] = p
	return top
}
