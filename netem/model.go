package netem

import "time"

// class is how some of the packets of a line fare: an Impairment in the model's units, and the
// state of the queue in front of the line.
type class struct {
	match func(*Packet) bool // whose packets; nil: all others

	limit  int // packets
	delay  int64
	jitter int64
	late   int64 // ReorderDelay

	loss, duplicate, corrupt, reorder chance
	enter, leave, burst               chance

	rate  uint64 // bits per second, or 0
	queue uint64 // bytes
	busy  int64  // when the last queued bit is sent, rounded down
	part  uint64 // what the rounding cut off, in units of 1/rate nanoseconds
}

func newClass(imp *Impairment) class {
	c := class{
		limit:     imp.Limit,
		delay:     int64(imp.Delay),
		jitter:    int64(imp.Jitter),
		late:      int64(imp.ReorderDelay),
		loss:      chanceOf(imp.Loss),
		duplicate: chanceOf(imp.Duplicate),
		corrupt:   chanceOf(imp.Corrupt),
		reorder:   chanceOf(imp.Reorder),
		rate:      uint64(imp.Rate),
		queue:     uint64(imp.Queue),
	}
	if imp.Burst != nil {
		c.enter = chanceOf(imp.Burst.PEnter)
		c.leave = chanceOf(imp.Burst.PLeave)
		c.burst = chanceOf(imp.Burst.LossInBad)
	}
	return c
}

// model decides what happens to each packet of a line. The scheduler passes it the packets in an
// order that is the same in every run. The scheduler's lock guards it; only functions that are
// given to scheduler.change may change it.
type model struct {
	class           // of packets that no class below matches
	classes []class // the first that matches is a packet's
	path    uint64  // how often the classes have been set: a new path keeps no order with an older one

	cut     bool                             // nothing passes
	script  func(*Packet) Verdict            // asked when a packet comes, or nil
	arrival func(*Packet) Verdict            // asked when a packet has arrived, or nil; only Drop counts
	trace   func(EventKind, *Packet, string) // told what happens, or nil

	flows  flowTable
	counts Counts
	view   Packet // scratch
}

func newModel(imp *Impairment, seed uint64) *model {
	m := &model{class: newClass(imp)}
	m.flows.init(seed)
	return m
}

// set gives the model new classes.
func (m *model) set(imp *Impairment) {
	m.class = newClass(imp)
	m.path++
}

// tell traces what happens to the packet that m.view shows.
func (m *model) tell(kind EventKind, reason string) {
	if m.trace != nil {
		m.trace(kind, &m.view, reason)
	}
}

// lose drops a packet, and counts it.
func (m *model) lose(p *packet, count *uint64, reason string) {
	*count++
	m.tell(EventDropped, reason)
	p.free()
}

// classOf returns the class of the packet that m.view shows.
func (m *model) classOf() *class {
	for i := range m.classes {
		if c := &m.classes[i]; c.match(&m.view) {
			return c
		}
	}
	return &m.class
}

// admit sends a packet of l on its way, or drops it. First comes the script, then the queue, then
// the line, then what happens on the line.
func (m *model) admit(s *scheduler, l *line, p *packet) {
	if m.judge(s, l, p) {
		s.depart(l, p)
	}
}

// judge decides about a packet that has come to l, and reports whether it is to leave, at p.due. It
// is not among the departures yet, but copies of it are.
func (m *model) judge(s *scheduler, l *line, p *packet) bool {
	f := m.flows.get(&p.flow)
	draws := fate(mix(f.hash + f.n))
	f.n++
	m.view.look(p, f)
	m.tell(EventSent, "")
	c := &m.class
	if len(m.classes) > 0 {
		c = m.classOf()
	}
	var v Verdict
	if m.script != nil {
		v = m.script(&m.view)
	}
	// The state changes before the queue can drop the packet, so what one flow has in the queue
	// does not change the state of another flow.
	if f.bad {
		f.bad = !draws.hits(drawState, c.leave)
	} else {
		f.bad = draws.hits(drawState, c.enter)
	}
	switch {
	case m.cut:
		m.lose(p, &m.counts.Cut, "cut")
		return false
	case v.Drop:
		m.lose(p, &m.counts.Filtered, v.Reason)
		return false
	case len(l.departures.a) >= c.limit:
		m.lose(p, &m.counts.Dropped, "limit")
		return false
	}
	at, ok := c.transmit(p)
	if !ok {
		m.lose(p, &m.counts.Dropped, "queue full")
		return false
	}
	if draws.hits(drawLoss, c.loss) || f.bad && draws.hits(drawBurst, c.burst) {
		m.lose(p, &m.counts.Lost, "lost")
		return false
	}
	at = max(at+c.delay, p.arrival+1)
	if c.jitter > 0 {
		at += int64(draws.below(drawJitter, uint64(c.jitter)+1))
	}
	if f.path == m.path {
		at = max(at, f.due)
	}
	f.due, f.path = at, m.path
	p.due = at
	m.change(s, l, p, c, draws, v)
	return true
}

// change duplicates, corrupts and delays a packet, as the class and a verdict say.
func (m *model) change(s *scheduler, l *line, p *packet, c *class, draws fate, v Verdict) {
	copies := min(max(v.Duplicates, 0), maxDuplicates)
	if draws.hits(drawDuplicate, c.duplicate) {
		copies++
	}
	for ; copies > 0 && len(l.departures.a)+1 < c.limit; copies-- {
		m.counts.Duplicated++
		m.tell(EventDuplicated, v.Reason)
		d := p.clone()
		d.order++
		s.depart(l, d)
	}
	if draws.hits(drawCorrupt, c.corrupt) {
		m.counts.Corrupted++
		m.tell(EventCorrupted, "")
		bit := draws.below(drawBit, uint64(len(p.data))*8)
		p.data[bit/8] ^= 1 << (bit % 8)
	}
	late := min(max(int64(v.Delay), 0), int64(maxDelay))
	if draws.hits(drawReorder, c.reorder) {
		late += c.late
	}
	if late > 0 {
		m.counts.Reordered++
		m.tell(EventDelayed, v.Reason)
		p.due += late
	}
}

// gate drops those packets, of some that are about to arrive, which must not: those of a line that
// is cut, and those that m.arrival drops. It returns the others.
func (m *model) gate(pkts []*packet) []*packet {
	if !m.cut && m.arrival == nil && m.trace == nil {
		return pkts
	}
	kept := pkts[:0]
	for _, p := range pkts {
		m.view.look(p, nil)
		v := Verdict{}
		if m.arrival != nil {
			v = m.arrival(&m.view)
		}
		switch {
		case m.cut:
			m.lose(p, &m.counts.Cut, "cut")
		case v.Drop:
			m.lose(p, &m.counts.Filtered, v.Reason)
		default:
			m.tell(EventArrived, "")
			kept = append(kept, p)
		}
	}
	clear(pkts[len(kept):])
	return kept
}

// transmit puts a packet behind those that wait for the line and returns when its last bit is sent.
// It returns false if there is no room for the packet.
func (c *class) transmit(p *packet) (int64, bool) {
	if c.rate == 0 {
		return p.arrival, true
	}
	if c.busy <= p.arrival {
		c.busy, c.part = p.arrival, 0
	}
	// Neither product overflows: the backlog is at most maxRateQueue bytes, 2^30 * 8e9 < 2^63.
	const bitNanos = 8e9
	size := uint64(len(p.data))
	backlog := uint64(c.busy-p.arrival) * c.rate / bitNanos
	if backlog+size > c.queue {
		return 0, false
	}
	work := size*bitNanos + c.part
	c.busy += int64(work / c.rate)
	c.part = work % c.rate
	return c.busy, true
}

// maxDuplicates is the most copies that a Verdict makes.
const maxDuplicates = 16

// A Verdict is what a script decides about a packet. The zero Verdict lets it pass.
type Verdict struct {
	// Drop drops the packet. It counts as Filtered.
	Drop bool

	// Duplicates is how many copies arrive in addition to the packet, directly behind it: up to 16.
	Duplicates int

	// Delay holds the packet back for an additional time, up to 24 hours. Packets that are sent
	// within that time overtake it.
	Delay time.Duration

	// Reason tells an Event why; it has no other effect.
	Reason string
}

// A FlowPath is what happens to the packets of some flows, instead of what the Path of their link
// says. Those that it matches share one queue, if it has a Rate. The packets of a flow stay in
// their order even if only some of them match.
type FlowPath struct {
	// Match chooses packets. It is called with a lock held, as a script is: see [Impaired.Script].
	Match func(*Packet) bool

	// Path is what happens to them. Its Seed is ignored.
	Path Path
}
