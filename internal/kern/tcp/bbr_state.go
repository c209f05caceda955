package tcp

// The states and how they follow each other: 5.3. See bbr.go.

type bbrState uint8

const (
	bbrNone bbrState = iota
	bbrStartup
	bbrDrain
	bbrDown   // ProbeBW_DOWN
	bbrCruise // ProbeBW_CRUISE
	bbrRefill // ProbeBW_REFILL
	bbrUp     // ProbeBW_UP
	bbrProbeRTT
)

// A bbrAckPhase tells what the acknowledgments that arrive now are for.
type bbrAckPhase uint8

const (
	bbrAcksInit bbrAckPhase = iota
	bbrAcksRefilling
	bbrAcksStarting // ACKS_PROBE_STARTING: the probe has begun; they are of what was sent before it
	bbrAcksFeedback // ACKS_PROBE_FEEDBACK: of the probe
	bbrAcksStopping // ACKS_PROBE_STOPPING: the probe is over; they are of it still
)

func (b *bbr) pacingGain() int { return int(bbrPacingGains[b.state]) }

// 5.6.1.
var bbrPacingGains = [...]int16{
	bbrStartup:  bbrStartupGain,
	bbrDrain:    bbrDrainGain,
	bbrDown:     bbrDownGain,
	bbrCruise:   bbrUnit,
	bbrRefill:   bbrUnit,
	bbrUp:       bbrUpGain,
	bbrProbeRTT: bbrUnit,
}

func (b *bbr) cwndGain() int {
	switch b.state {
	case bbrUp:
		return bbrUpCwndGain
	case bbrProbeRTT:
		return bbrProbeRTTGain
	}
	return bbrCwndGain
}

func (b *bbr) inProbeBW() bool { return b.state >= bbrDown && b.state <= bbrUp }

// probing is 5.3.3.9's IsProbingBW.
func (b *bbr) probing() bool {
	return b.state == bbrStartup || b.state == bbrRefill || b.state == bbrUp
}

// resetFull is 5.3.1.2's ResetFullBW, with a new baseline.
func (b *bbr) resetFull(bw int64) { b.fullBw, b.fullCount, b.fullNow = bw, 0, false }

// checkFull is 5.3.1.2's CheckFullBWReached: three round trips in which the rate of delivery has
// grown by less than a quarter. As Linux does, it compares each sample and not only that at the
// beginning of a round trip.
func (b *bbr) checkFull(a *Ack) {
	if b.fullNow || b.appLimited(&a.Rate) {
		return
	}
	bw := a.Rate.bandwidth()
	if bw == 0 {
		return
	}
	if bw >= gained(b.fullBw, bbrFullGrowth) {
		b.resetFull(bw)
		return
	}
	if !b.roundStart {
		return
	}
	b.fullCount++
	b.fullNow = b.fullCount >= bbrFullRounds
	b.fullReached = b.fullReached || b.fullNow
}

// checkStartupDone is 5.3.1.1's CheckStartupDone, with 5.3.1.3's CheckStartupHighLoss.
func (b *bbr) checkStartupDone(v *View, a *Ack) {
	if !b.lossRound {
		b.enterDrain()
		return
	}
	// "The connection has been in fast recovery for at least one full packet-timed round trip.
	// The loss rate over the time scale of a single full round trip exceeds BBR.LossThresh
	// (2%). There are at least BBRStartupFullLossCnt=6 discontiguous sequence ranges lost in
	// that round trip." A range is counted as an acknowledgment that finds losses.
	starting := b.state == bbrStartup && !b.fullReached
	if starting && b.recovering && b.lossEvents >= bbrStartupLosses && inflightTooHigh(v, &a.Rate) {
		b.undoState = bbrStartup
		b.fullReached = true
		b.inflightLong = max(b.bdp(v, b.bw(), bbrUnit), b.inflightNow)
	}
	b.lossEvents = 0
	b.enterDrain()
}

// enterDrain leaves Startup when the pipe is full.
func (b *bbr) enterDrain() {
	if b.state == bbrStartup && b.fullReached {
		b.state = bbrDrain
		b.drainRound = b.rounds
	}
}

// checkDrainDone is 5.3.2's CheckDrainDone.
func (b *bbr) checkDrainDone(v *View) {
	drained := v.Flight <= b.inflight(v, b.bw(), bbrUnit)
	if b.state == bbrDrain && (drained || b.rounds > b.drainRound+bbrDrainRounds) {
		b.startDown(v)
	}
}

// startDown is 5.3.3.9's StartProbeBW_DOWN, with 5.3.3.8's PickProbeWait.
func (b *bbr) startDown(v *View) {
	b.resetCongestion()
	b.upPerInc = infinite
	b.sinceProbe = uint8(scatter(v.Delivered, 2))
	b.probeWait = bbrProbeWait + scatter(v.Delivered+1, bbrProbeWaitRange)
	b.cycleStamp = v.Now
	b.ackPhase = bbrAcksStopping
	b.startRound(v)
	b.state = bbrDown
}

// startRefill is 5.3.3.9's StartProbeBW_REFILL.
func (b *bbr) startRefill(v *View) {
	b.resetShortTerm()
	b.upRounds, b.upAcked = 0, 0
	b.precaution = false
	b.ackPhase = bbrAcksRefilling
	b.startRound(v)
	b.state = bbrRefill
}

// startUp is 5.3.3.9's StartProbeBW_UP.
func (b *bbr) startUp(v *View, a *Ack, c *Control) {
	b.ackPhase = bbrAcksStarting
	b.startRound(v)
	b.resetFull(a.Rate.bandwidth())
	b.state = bbrUp
	b.raiseSlope(v, c)
}

// updateCycle is 5.3.3.9's UpdateProbeBWCyclePhase.
func (b *bbr) updateCycle(v *View, a *Ack, c *Control) {
	if !b.fullReached || b.adaptLongTerm(v, a, c) {
		return
	}
	switch b.state {
	case bbrDown:
		if b.timeToProbe(v, c) {
			b.startRefill(v)
		} else if b.timeToCruise(v) {
			b.state = bbrCruise
		}
	case bbrCruise:
		if b.timeToProbe(v, c) {
			b.startRefill(v)
		}
	case bbrRefill:
		// "After one round of REFILL, start UP".
		if b.roundStart {
			b.probeSample = true
			b.startUp(v, a, c)
		}
	case bbrUp:
		if b.timeToGoDown(v, a, c) {
			b.tooHigh = false // "no high loss (yet)"
			b.startDown(v)
		}
	}
}

// timeToProbe is 5.3.3.8's IsTimeToProbeBW: after two to three seconds, or as many round trips as a
// Reno flow would need to grow from half the window to all of it.
func (b *bbr) timeToProbe(v *View, c *Control) bool {
	if v.Now > b.cycleStamp+b.probeWait {
		return true
	}
	return int(b.sinceProbe) >= min(b.target(v, c)/v.MSS, bbrRenoRounds)
}

// timeToCruise is 5.3.3.9's IsTimeToCruise.
func (b *bbr) timeToCruise(v *View) bool {
	return v.Flight <= b.inflightWithHeadroom(v) && v.Flight <= b.inflight(v, max(b.maxBw[0], b.maxBw[1]), bbrUnit)
}

// timeToGoDown is 5.3.3.9's IsTimeToGoDown.
func (b *bbr) timeToGoDown(v *View, a *Ack, c *Control) bool {
	// 5.3.3.6: "flows only persist in ProbeBW_UP if the most recent ProbeBW_UP phase did not
	// result in excess loss". What was in flight before this acknowledgment counts, and a
	// segment more would not have fitted.
	if b.tooHigh && v.PriorFlight+v.MSS > b.inflightLong {
		b.precaution = true
		return true
	}
	if b.cwndLimited() && c.Cwnd >= b.inflightLong {
		b.resetFull(a.Rate.bandwidth()) // "bw is limited by BBR.inflight_longterm"
		return false
	}
	return b.fullNow
}

// raiseSlope is 5.3.3.9's RaiseInflightLongtermSlope: "in each successive round trip,
// BBR.inflight_longterm grows (in units of C.SMSS) by 1, 2, 4, 8, 16".
func (b *bbr) raiseSlope(v *View, c *Control) {
	b.upPerInc = max(c.Cwnd>>b.upRounds, v.MSS)
	b.upRounds = min(b.upRounds+1, 30)
}

// probeUpward is 5.3.3.9's ProbeInflightLongtermUpward.
func (b *bbr) probeUpward(v *View, a *Ack, c *Control) {
	if !b.cwndLimited() || c.Cwnd < b.inflightLong {
		return // "not fully using BBR.inflight_longterm, so don't grow it"
	}
	b.upAcked += a.Delivered
	if n := b.upAcked / b.upPerInc; n > 0 {
		b.upAcked -= n * b.upPerInc
		b.inflightLong = min(b.inflightLong+n*v.MSS, maxCwnd)
	}
	if b.roundStart {
		b.raiseSlope(v, c)
	}
}

// adaptLongTerm is 5.3.3.9's AdaptLongTermModel. It reports whether it has changed the state.
func (b *bbr) adaptLongTerm(v *View, a *Ack, c *Control) bool {
	if b.ackPhase == bbrAcksStarting && b.roundStart {
		b.ackPhase = bbrAcksFeedback
	}
	if b.ackPhase == bbrAcksStopping && b.roundStart {
		b.probeSample = false
		b.ackPhase = bbrAcksInit
		if b.inProbeBW() && !b.appLimited(&a.Rate) {
			b.advanceMaxBw()
		}
		// 5.3.3.6: "the flow immediately returns to ProbeBW_REFILL to probe for bandwidth
		// again".
		if b.inProbeBW() && b.precaution && !b.tooHigh {
			b.startRefill(v)
			return true
		}
	}
	if inflightTooHigh(v, &a.Rate) || b.inflightLong == infinite {
		return false
	}
	// "Loss rate is safe. Adjust upper bounds upward."
	b.inflightLong = max(b.inflightLong, a.Rate.Flight)
	if b.state == bbrUp {
		b.probeUpward(v, a, c)
	}
	return false
}

// checkProbeRTT is 5.3.4.3's CheckProbeRTT and HandleProbeRTT.
func (b *bbr) checkProbeRTT(v *View, a *Ack, c *Control) {
	if b.state != bbrProbeRTT && b.probeExpired && !b.idleRestart {
		b.saveCwnd(c)
		b.state = bbrProbeRTT
		b.probeDone = 0
		b.ackPhase = bbrAcksStopping
		b.startRound(v)
	}
	if b.state == bbrProbeRTT {
		b.appUntil = v.Delivered + uint64(v.Flight) // "Ignore low rate samples during ProbeRTT"
		switch {
		case b.probeDone == 0 && v.Flight <= b.probeRTTCwnd(v):
			b.probeDone = v.Now + bbrProbeTime
			b.probeRound = false
			b.startRound(v)
		case b.probeDone != 0:
			b.probeRound = b.probeRound || b.roundStart
			if b.probeRound {
				b.checkProbeRTTDone(v, c)
			}
		}
	}
	if a.Rate.Delivered > 0 {
		b.idleRestart = false
	}
}

// probeRTTCwnd is 5.6.4.5's ProbeRTTCwnd.
func (b *bbr) probeRTTCwnd(v *View) int {
	return max(b.bdp(v, b.bw(), bbrProbeRTTGain), bbrMinWindow*v.MSS)
}

// checkProbeRTTDone is 5.3.4.3's CheckProbeRTTDone and 5.3.4.4's ExitProbeRTT.
func (b *bbr) checkProbeRTTDone(v *View, c *Control) {
	if b.probeDone == 0 || v.Now <= b.probeDone {
		return
	}
	b.probeMinStamp = v.Now
	c.Cwnd = max(c.Cwnd, b.priorCwnd)
	b.resetShortTerm()
	if !b.fullReached {
		b.state = bbrStartup
		return
	}
	b.startDown(v)
	b.state = bbrCruise // as in flight there is less than what fits into the path already
}
