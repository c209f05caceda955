package tcp

// BBR version 1, as Linux's "bbr" behaves. It paces at the greatest rate of delivery of the last
// ten round trips, and keeps twice what fits into the path at this rate in flight at most. It
// probes for more by sending a quarter more for a round trip, and for the propagation delay by
// sending next to nothing for 200 ms every ten seconds. Losses do not matter to it, except that it
// sends no more than is delivered for one round trip after the first; so it keeps its rate on paths
// that lose packets at random, and is unfair to those who take a loss for congestion. See "BBR:
// Congestion-Based Congestion Control", ACM Queue 14, 5 (2016), and draft-cardwell-iccrg-bbr-
// congestion-control-00.

// The parameters of version 1.
const (
	bbr1HighGain  = bbrUnit*2885/1000 + 1 // 2/ln(2): the least by which the rate of sending doubles each round trip
	bbr1DrainGain = bbrUnit * 1000 / 2885
	bbr1CwndGain  = 2 * bbrUnit

	bbr1BwRounds   = 10       // of the filter of the bandwidth
	bbr1MinRTTTime = 10 * sec // of the filter of the round trip
	bbr1ProbeTime  = 200 * ms // at four segments
	bbr1FullGrowth = bbrUnit * 5 / 4
	bbr1FullRounds = 3

	bbr1ExtraRounds = 5        // of each of the two slots
	bbr1ExtraMax    = 100 * ms // of the bandwidth, at most, are added for aggregation
)

// bbr1Cycle are the pacing gains of the phases of ProbeBW.
var bbr1Cycle = [...]int{bbrUnit * 5 / 4, bbrUnit * 3 / 4, bbrUnit, bbrUnit, bbrUnit, bbrUnit, bbrUnit, bbrUnit}

type bbr1Mode uint8

const (
	bbr1Startup bbr1Mode = iota
	bbr1Drain
	bbr1ProbeBW
	bbr1ProbeRTT
)

// bbr1 is BBR version 1.
type bbr1 struct {
	// The model: bandwidth in bytes a second, and round trip.
	bw          maxFilter
	rounds      uint32 // round trips so far
	roundEnd    uint64 // the round ends when something sent after this much had been delivered is acknowledged
	minRTT      int64  // 0: not measured yet
	minRTTStamp int64
	fullBw      int64  // the bandwidth that is to be exceeded by a quarter in Startup
	appUntil    uint64 // samples of what was sent when no more than this had been delivered are too small

	policer policer

	aggregation aggregation

	// The state.
	cycleStamp int64
	probeDone  int64 // when ProbeRTT may end; 0: there is too much in flight still
	priorCwnd  int
	pacingGain int16
	cwndGain   int16
	mode       bbr1Mode
	cycle      uint8
	fullCount  uint8

	full          bool // the path has been filled
	roundStart    bool
	probeRound    bool // a round trip of ProbeRTT has passed
	idleRestart   bool
	hasRTT        bool // the pacing rate rests on a measured round trip
	recovering    bool
	wasRecovering bool // at the last acknowledgment
	conservation  bool // no more is sent than is delivered
	conserved     bool // so it was in the last round trip
}

func (b *bbr1) OwnWindow() bool { return true }

func (b *bbr1) Init(v *View, c *Control) {
	c.Cwnd, c.Ssthresh = v.InitialWindow, infinite
	b.minRTT, b.minRTTStamp = v.MinRTT, v.Now
	b.aggregation.restart(v.Now)
	b.policer.reset(v)
	b.hasRTT = v.SRTT > 0
	b.enter(bbr1Startup)
	c.Rate = initialRate(v, bbr1HighGain)
}

func (b *bbr1) Acked(v *View, a *Ack, c *Control) {
	b.updateBandwidth(v, a)
	if a.Delivered > 0 && a.Rate.Delivered > 0 {
		b.aggregation.update(v.Now, a.Delivered, b.bandwidth(), c.Cwnd, b.roundStart, bbr1ExtraRounds)
	}
	b.updateCycle(v, a)
	b.checkFull(a)
	b.checkDrain(v)
	b.updateMinRTT(v, a, c)
	b.setGains()
	b.setRate(v, c, b.bandwidth(), int(b.pacingGain))
	b.setCwnd(v, a, c)
}

// bandwidth returns what the model believes of the path.
func (b *bbr1) bandwidth() int64 {
	if b.policer.found {
		return b.policer.bw
	}
	return b.bw.max()
}

// appLimited reports whether the sample says less than what the path carries.
func (b *bbr1) appLimited(r *RateSample) bool {
	return r.AppLimited || b.appUntil > 0 && r.PriorDelivered <= b.appUntil
}

func (b *bbr1) updateBandwidth(v *View, a *Ack) {
	b.roundStart = false
	bw := a.Rate.bandwidth()
	if bw == 0 {
		return
	}
	if a.Rate.PriorDelivered >= b.roundEnd {
		b.roundEnd = v.Delivered
		b.rounds++
		b.roundStart = true
		b.conserved, b.conservation = b.conservation, false
	}
	limited := b.appLimited(&a.Rate)
	if b.policer.sample(v, a.Lost > 0, limited, b.roundStart, b.mode == bbr1ProbeBW) {
		b.enterProbeBW(v)
	}
	// A sender that had nothing more to send has measured itself and not the path, unless it
	// was faster than what the path is known for.
	if !limited || bw >= b.bw.max() {
		b.bw.update(b.rounds, bbr1BwRounds, bw)
	}
}

// updateCycle goes on to the next phase of ProbeBW when this one has done what it is for.
func (b *bbr1) updateCycle(v *View, a *Ack) {
	if b.mode != bbr1ProbeBW {
		return
	}
	full := v.Now-b.cycleStamp > b.minRTT // a phase lasts for a round trip
	switch gain := bbr1Cycle[b.cycle]; {
	case gain > bbrUnit: // until there is so much in flight, unless the queue has not the room
		full = full && (a.Lost > 0 || v.PriorFlight >= b.inflight(v, b.bw.max(), gain))
	case gain < bbrUnit: // or until the queue that the last phase has made is gone
		full = full || v.PriorFlight <= b.inflight(v, b.bw.max(), bbrUnit)
	}
	if full {
		b.cycle = (b.cycle + 1) % uint8(len(bbr1Cycle))
		b.cycleStamp = v.Now
	}
}

// checkFull finds out whether the path has been filled: three round trips without much growth of
// the bandwidth. A round trip of packet conservation does not count, unlike in Linux, as nothing
// could grow: on a path that loses packets at random, Startup would end at a fraction of the
// bandwidth, and ProbeBW takes eight round trips for each quarter more.
func (b *bbr1) checkFull(a *Ack) {
	if b.full || !b.roundStart || b.conserved || b.appLimited(&a.Rate) {
		return
	}
	if bw := b.bw.max(); bw >= gained(b.fullBw, bbr1FullGrowth) {
		b.fullBw, b.fullCount = bw, 0
		return
	}
	b.fullCount++
	b.full = b.fullCount >= bbr1FullRounds
}

// checkDrain leaves Startup when the path is full, and Drain when the queue that Startup has made
// is gone.
func (b *bbr1) checkDrain(v *View) {
	if b.mode == bbr1Startup && b.full {
		b.enter(bbr1Drain)
	}
	if b.mode == bbr1Drain && v.Flight <= b.inflight(v, b.bw.max(), bbrUnit) {
		b.enterProbeBW(v)
	}
}

// updateMinRTT takes the round trip, and when none as small has been seen for ten seconds, makes
// room to see one: ProbeRTT.
func (b *bbr1) updateMinRTT(v *View, a *Ack, c *Control) {
	expired := v.Now > b.minRTTStamp+bbr1MinRTTTime
	if a.RTT > 0 && (b.minRTT == 0 || a.RTT < b.minRTT || expired) {
		b.minRTT, b.minRTTStamp = a.RTT, v.Now
	}
	if expired && !b.idleRestart && b.mode != bbr1ProbeRTT {
		b.saveCwnd(c)
		b.enter(bbr1ProbeRTT)
		b.probeDone = 0
	}
	if b.mode == bbr1ProbeRTT {
		b.appUntil = v.Delivered + uint64(v.Flight) // what is measured now says nothing about the path
		switch {
		case b.probeDone == 0 && v.Flight <= bbrMinWindow*v.MSS:
			b.probeDone = v.Now + bbr1ProbeTime
			b.probeRound = false
			b.roundEnd = v.Delivered
		case b.probeDone != 0:
			b.probeRound = b.probeRound || b.roundStart
			if b.probeRound {
				b.checkProbeDone(v, c)
			}
		}
	}
	if a.Rate.Delivered > 0 {
		b.idleRestart = false
	}
}

func (b *bbr1) checkProbeDone(v *View, c *Control) {
	if b.probeDone == 0 || v.Now <= b.probeDone {
		return
	}
	b.minRTTStamp = v.Now
	c.Cwnd = max(c.Cwnd, b.priorCwnd)
	if b.full {
		b.enterProbeBW(v)
	} else {
		b.enter(bbr1Startup)
	}
}

func (b *bbr1) enter(m bbr1Mode) {
	b.mode = m
	b.setGains()
}

// enterProbeBW begins the cycle at any of its phases, except the one that drains: flows that have
// begun together shall not probe together.
func (b *bbr1) enterProbeBW(v *View) {
	b.cycle = uint8(scatter(v.Delivered, int64(len(bbr1Cycle)-1)))
	if b.cycle > 0 {
		b.cycle++
	}
	b.cycleStamp = v.Now
	b.enter(bbr1ProbeBW)
}

func (b *bbr1) setGains() {
	switch b.mode {
	case bbr1Startup:
		b.pacingGain, b.cwndGain = bbr1HighGain, bbr1HighGain
	case bbr1Drain:
		b.pacingGain, b.cwndGain = bbr1DrainGain, bbr1HighGain
	case bbr1ProbeBW:
		b.pacingGain, b.cwndGain = int16(bbr1Cycle[b.cycle]), bbr1CwndGain
		if b.policer.found {
			b.pacingGain = bbrUnit // more would only be thrown away
		}
	case bbr1ProbeRTT:
		b.pacingGain, b.cwndGain = bbrUnit, bbrUnit
	}
}

func (b *bbr1) setRate(v *View, c *Control, bw int64, gain int) {
	if !b.hasRTT && v.SRTT > 0 {
		b.hasRTT = true
		c.Rate = initialRate(v, bbr1HighGain)
	}
	// Until the path is full the rate does not fall: samples are small because little has been
	// sent.
	if rate := paced(bw, gain); b.full || rate > c.Rate {
		c.Rate = rate
	}
}

// bdp returns what fits into the path at a bandwidth, times a gain, bytes.
func (b *bbr1) bdp(v *View, bw int64, gain int) int {
	if b.minRTT == 0 {
		return v.InitialWindow // nothing has been measured yet
	}
	return int(min(gained(bytesIn(bw, b.minRTT), gain), maxCwnd))
}

// budgeted adds to what shall be in flight what is under way at the ends: three quanta, of which
// one waits at the sender, one is being sent, and one waits at the receiver to be acknowledged.
func (b *bbr1) budgeted(v *View, bw int64, n int) int {
	n += 3 * quantum(paced(bw, int(b.pacingGain)), v.MSS)
	if b.mode == bbr1ProbeBW && b.cycle == 0 {
		n += 2 * v.MSS // so that a very small path is probed as well
	}
	return n
}

func (b *bbr1) inflight(v *View, bw int64, gain int) int {
	return b.budgeted(v, bw, b.bdp(v, bw, gain))
}

// extra returns what the window is larger by because of late and large acknowledgments.
func (b *bbr1) extra() int {
	if !b.full {
		return 0
	}
	return int(min(int64(b.aggregation.extra()), bytesIn(b.bandwidth(), bbr1ExtraMax)))
}

func (b *bbr1) setCwnd(v *View, a *Ack, c *Control) {
	if a.Lost > 0 {
		c.Cwnd = max(c.Cwnd-a.Lost, v.MSS)
	}
	switch {
	case b.recovering && !b.wasRecovering:
		// For one round trip as much is sent as is delivered: if the path has changed, this
		// is what it carries. A recovery that follows another at once is none of its own.
		b.conservation = true
		b.roundEnd = v.Delivered
		c.Cwnd = max(v.Flight+a.Delivered, v.MSS)
	case !b.recovering && b.wasRecovering:
		b.conservation = false
		c.Cwnd = max(c.Cwnd, b.priorCwnd)
	}
	b.wasRecovering = b.recovering
	if b.conservation {
		c.Cwnd = max(c.Cwnd, v.Flight+a.Delivered)
	} else if a.Delivered > 0 {
		bw := b.bandwidth()
		target := b.budgeted(v, bw, b.bdp(v, bw, int(b.cwndGain))+b.extra())
		switch {
		case b.full:
			c.Cwnd = min(c.Cwnd+a.Delivered, target)
		case c.Cwnd < target || v.Delivered < uint64(v.InitialWindow):
			c.Cwnd += a.Delivered
		}
		c.Cwnd = max(c.Cwnd, bbrMinWindow*v.MSS)
	}
	c.Cwnd = min(c.Cwnd, maxCwnd)
	if b.mode == bbr1ProbeRTT {
		c.Cwnd = min(c.Cwnd, bbrMinWindow*v.MSS)
	}
}

// saveCwnd remembers the window that recovery or ProbeRTT will take away for a while.
func (b *bbr1) saveCwnd(c *Control) {
	if b.wasRecovering || b.mode == bbr1ProbeRTT {
		b.priorCwnd = max(b.priorCwnd, c.Cwnd)
	} else {
		b.priorCwnd = c.Cwnd
	}
}

func (b *bbr1) Congested(v *View, s Signal, c *Control) {
	if s == ECN {
		return // version 1 takes no notice
	}
	b.saveCwnd(c)
	b.recovering = true
	if s == RTO {
		b.wasRecovering = true
		b.conservation = false
		b.fullBw = 0
		b.policer.lost(v)
		c.Cwnd = v.MSS
	}
}

// Undo ends recovery, and what it may have led to.
func (b *bbr1) Undo(v *View, c *Control) {
	b.fullBw, b.fullCount = 0, 0
	b.policer.reset(v)
	b.recovering = false
}

// Recovered lets the next acknowledgment restore the window.
func (b *bbr1) Recovered(v *View, c *Control) { b.recovering = false }

// Restart paces at the bandwidth, as there is no queue to drain and no reason to probe.
func (b *bbr1) Restart(v *View, idle int64, c *Control) {
	b.idleRestart = true
	b.aggregation.restart(v.Now)
	switch b.mode {
	case bbr1ProbeBW:
		b.setRate(v, c, b.bandwidth(), bbrUnit)
	case bbr1ProbeRTT:
		b.checkProbeDone(v, c)
	}
}
