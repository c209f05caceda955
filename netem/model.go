package netem

// model decides what happens to each packet of a line. The scheduler passes it the packets in an
// order that is the same in every run. The scheduler's lock guards it.
type model struct {
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

	flows  flowTable
	counts Counts
}

func newModel(imp *Impairment, seed uint64) *model {
	m := &model{
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
		m.enter = chanceOf(imp.Burst.PEnter)
		m.leave = chanceOf(imp.Burst.PLeave)
		m.burst = chanceOf(imp.Burst.LossInBad)
	}
	m.flows.init(seed)
	return m
}

// admit sends a packet of l on its way, or drops it. First comes the queue, then the line, then
// what happens on the line.
func (m *model) admit(l *line, p *packet) {
	f := m.flows.get(&p.flow)
	draws := fate(mix(f.hash + f.n))
	f.n++
	// The state changes before the queue can drop the packet, so what one flow has in the queue
	// does not change the state of another flow.
	if f.bad {
		f.bad = !draws.hits(drawState, m.leave)
	} else {
		f.bad = draws.hits(drawState, m.enter)
	}
	if len(l.departures.a) >= m.limit {
		m.counts.Dropped++
		p.free()
		return
	}
	at, ok := m.transmit(p)
	if !ok {
		m.counts.Dropped++
		p.free()
		return
	}
	if draws.hits(drawLoss, m.loss) || f.bad && draws.hits(drawBurst, m.burst) {
		m.counts.Lost++
		p.free()
		return
	}
	at = max(at+m.delay, p.arrival+1)
	if m.jitter > 0 {
		at += int64(draws.below(drawJitter, uint64(m.jitter)+1))
	}
	at = max(at, f.due)
	f.due = at
	p.due = at
	if draws.hits(drawDuplicate, m.duplicate) && len(l.departures.a)+1 < m.limit {
		m.counts.Duplicated++
		c := p.clone()
		c.order++
		l.departures.push(c)
	}
	if draws.hits(drawCorrupt, m.corrupt) {
		m.counts.Corrupted++
		bit := draws.below(drawBit, uint64(len(p.data))*8)
		p.data[bit/8] ^= 1 << (bit % 8)
	}
	if draws.hits(drawReorder, m.reorder) {
		m.counts.Reordered++
		p.due += m.late
	}
	l.departures.push(p)
}

// transmit puts a packet behind those that wait for the line and returns when its last bit is sent.
// It returns false if there is no room for the packet.
func (m *model) transmit(p *packet) (int64, bool) {
	if m.rate == 0 {
		return p.arrival, true
	}
	if m.busy <= p.arrival {
		m.busy, m.part = p.arrival, 0
	}
	// Neither product overflows: the backlog is at most maxRateQueue bytes, 2^30 * 8e9 < 2^63.
	const bitNanos = 8e9
	size := uint64(len(p.data))
	backlog := uint64(m.busy-p.arrival) * m.rate / bitNanos
	if backlog+size > m.queue {
		return 0, false
	}
	work := size*bitNanos + m.part
	m.busy += int64(work / m.rate)
	m.part = work % m.rate
	return m.busy, true
}
