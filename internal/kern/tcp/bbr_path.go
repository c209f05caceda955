package tcp

// The model of the path: what it carries, how long the way is, and what the losses say. See bbr.go.

// bw is BBR.bw: 5.5.10.3's BoundBWForModel.
func (b *bbr) bw() int64 { return min(max(b.maxBw[0], b.maxBw[1]), b.bwShort) }

// appLimited reports whether the sample says less than what the path carries.
func (b *bbr) appLimited(r *RateSample) bool {
	return r.AppLimited || b.appUntil > 0 && r.PriorDelivered <= b.appUntil
}

// startRound is 5.5.1's StartRound.
func (b *bbr) startRound(v *View) { b.roundEnd = v.Delivered }

// updateRound is 5.5.1's UpdateRound, and 5.5.5's UpdateMaxBw.
func (b *bbr) updateRound(v *View, a *Ack) {
	b.limited = b.limited || v.CwndLimited
	b.roundStart = false
	bw := a.Rate.bandwidth()
	if bw == 0 {
		return
	}
	if a.Rate.PriorDelivered >= b.roundEnd {
		b.startRound(v)
		b.rounds++
		b.roundStart = true
		b.sinceProbe = min(b.sinceProbe+1, bbrRenoRounds)
		b.wasLimited, b.limited = b.limited, v.CwndLimited
		b.saved = b.saved && b.recovering // a loss that has led to no recovery is forgotten
	}
	// 5.5.4: "the estimator discards application-limited samples, since by definition they
	// reflect application limits. However, the estimator does use application-limited samples
	// if the measured delivery rate happens to be larger than the current BBR.max_bw estimate".
	if !b.appLimited(&a.Rate) || bw >= max(b.maxBw[0], b.maxBw[1]) {
		b.maxBw[0] = max(b.maxBw[0], bw)
	}
}

// advanceMaxBw is 5.5.6's AdvanceMaxBwFilter: a new cycle begins.
func (b *bbr) advanceMaxBw() { b.maxBw[0], b.maxBw[1] = 0, b.maxBw[0] }

// cwndLimited is C.is_cwnd_limited: "True if the connection has fully utilized C.cwnd at any point
// in the last packet-timed round trip."
func (b *bbr) cwndLimited() bool { return b.limited || b.wasLimited }

// updateDelivery is 5.5.10.3's UpdateLatestDeliverySignals.
func (b *bbr) updateDelivery(v *View, a *Ack) {
	b.lossRound = false
	bw := a.Rate.bandwidth()
	if bw == 0 {
		return
	}
	b.bwNow = max(b.bwNow, bw)
	b.inflightNow = max(b.inflightNow, min(a.Rate.Delivered, maxCwnd))
	if a.Rate.PriorDelivered >= b.lossEnd {
		b.lossEnd = v.Delivered
		b.lossRound = true
	}
}

// advanceDelivery is 5.5.10.3's AdvanceLatestDeliverySignals.
func (b *bbr) advanceDelivery(a *Ack) {
	if b.lossRound {
		b.bwNow, b.inflightNow = a.Rate.bandwidth(), min(a.Rate.Delivered, maxCwnd)
	}
}

// updateCongestion is 5.5.10.3's UpdateCongestionSignals: once in a round trip, the bounds of the
// short term follow what is delivered.
func (b *bbr) updateCongestion(v *View, c *Control) {
	if !b.lossRound {
		return
	}
	if b.lossInRound && !b.probing() && b.lostMuch(v) {
		b.lossLowerBounds(c)
	}
	b.lossInRound, b.marked = false, false
}

// lossLowerBounds is 5.5.10.3's InitLowerBounds and LossLowerBounds: "slowing down toward the
// latest delivery process".
func (b *bbr) lossLowerBounds(c *Control) {
	if b.bwShort == bbrMaxRate {
		b.bwShort = max(b.maxBw[0], b.maxBw[1])
	}
	if b.inflightShort == infinite {
		b.inflightShort = c.Cwnd
	}
	b.bwShort = max(b.bwNow, int64(float64(b.bwShort)*bbrBeta))
	b.inflightShort = max(b.inflightNow, int(float64(b.inflightShort)*bbrBeta))
}

// lostMuch reports whether too much was lost in the round that ends, or it was marked.
//
// The draft takes the step for each loss. But losses at random, however few, are in most round
// trips of a flow with many packets in flight, and in each the rate would fall by the pacing margin
// and the losses, as nothing raises it before the next probe: at 1 %, on a path of 170 packets and
// 63 round trips, to a half. Version 3 has "queue pressure" as the reason to slow down, for which
// 3.2 says that "the objective is a maximum per-round-trip packet loss rate of BBR.LossThresh=2%";
// so what is below does not slow it down.
func (b *bbr) lostMuch(v *View) bool {
	lost := v.Lost - b.lossStart
	return b.marked || tooMuchLost(int64(lost), int64(v.Delivered-b.lossSince+lost), v.MSS)
}

// tooMuchLost reports whether more than BBR.LossThresh of total bytes, 2 %, is lost, and by more
// than chance explains: by two standard deviations of the number of packets. Without the latter,
// which the draft does not have, a path that loses 1 % of 170 packets in flight would pass for one
// that loses more than 2 % in every tenth round trip.
func tooMuchLost(lost, total int64, mss int) bool {
	thresh := total / bbrLossDivisor
	excess := lost - thresh
	return excess > 0 && excess*excess > 4*thresh*int64(mss)
}

// resetShortTerm is 5.5.10.3's ResetShortTermModel.
func (b *bbr) resetShortTerm() { b.bwShort, b.inflightShort = bbrMaxRate, infinite }

// resetCongestion is 5.5.10.3's ResetCongestionSignals.
func (b *bbr) resetCongestion() {
	b.lossInRound, b.marked = false, false
	b.bwNow, b.inflightNow = 0, 0
}

// noteLoss is 5.5.10.2's NoteLoss and HandleLostPacket, for all that one acknowledgment has found
// lost.
func (b *bbr) noteLoss(v *View, a *Ack, c *Control) {
	if a.Lost <= 0 {
		return
	}
	if !b.saved {
		b.saveState(c)
	}
	if !b.lossInRound { // "first loss in this round trip?"
		b.lossEnd = v.Delivered
		b.lossStart, b.lossSince = v.Lost-uint64(a.Lost), v.Delivered-uint64(a.Delivered)
	}
	b.lossInRound = true
	b.lossEvents = min(b.lossEvents+1, bbrStartupLosses)
	if b.probeSample && inflightTooHigh(v, &a.Rate) { // of packets that were sent to probe
		b.handleTooHigh(v, c, inflightAtLoss(&a.Rate, a.Lost), b.appLimited(&a.Rate))
	}
}

// mark takes a congestion mark for a loss rate that is too high: RFC 3168, 5: "essentially the same
// as the congestion control response to a *single* dropped packet". The draft leaves ECN open
// (3.7).
func (b *bbr) mark(v *View, c *Control) {
	if !b.lossInRound {
		b.lossEnd = v.Delivered
	}
	b.lossInRound, b.marked = true, true
	if b.probeSample {
		b.handleTooHigh(v, c, v.Flight, v.AppLimited)
	}
}

// inflightTooHigh is 5.5.10.2's IsInflightTooHigh: "Do loss signals suggest C.inflight was too
// high?"
func inflightTooHigh(v *View, r *RateSample) bool {
	return tooMuchLost(int64(r.Lost), int64(r.Flight), v.MSS)
}

// inflightAtLoss is 5.5.10.2's: "At what C.inflight value did losses cross BBR.LossThresh?"
func inflightAtLoss(r *RateSample, lost int) int {
	prev, lostPrev := int64(r.Flight-lost), int64(r.Lost-lost)
	// "lost_prefix = (BBR.LossThresh * inflight_prev - lost_prev) / (1 - BBR.LossThresh)"
	return int(max(prev+(prev-lostPrev*bbrLossDivisor)/(bbrLossDivisor-1), 0))
}

// handleTooHigh is 5.5.10.2's HandleInflightTooHigh, of a probe that had so much in flight.
func (b *bbr) handleTooHigh(v *View, c *Control, flight int, appLimited bool) {
	b.tooHigh = true
	b.probeSample = false // "only react once per bw probe"
	if !appLimited {
		// "the BBR.Beta (0.7x) bound is to try to ensure that BBR does not react more
		// dramatically than CUBIC's 0.7x multiplicative decrease factor".
		b.inflightLong = max(flight, int(float64(b.target(v, c))*bbrBeta))
	}
	if b.state == bbrUp {
		b.undoState = bbrUp
		b.startDown(v)
	}
}

// target is 5.3.3.8's TargetInflight: "How much data do we want in flight? Our estimated BDP,
// unless congestion cut C.cwnd."
func (b *bbr) target(v *View, c *Control) int { return min(b.bdp(v, b.bw(), bbrUnit), c.Cwnd) }

// updateMinRTT is 5.3.4.3's UpdateMinRTT.
func (b *bbr) updateMinRTT(v *View, a *Ack) {
	b.probeExpired = v.Now > b.probeMinStamp+bbrProbeInterval
	if a.RTT > 0 && (b.probeMin == 0 || a.RTT < b.probeMin || b.probeExpired) {
		b.probeMin, b.probeMinStamp = a.RTT, v.Now
	}
	if b.probeMin > 0 && (b.minRTT == 0 || b.probeMin < b.minRTT || v.Now > b.minRTTStamp+bbrMinRTTTime) {
		b.minRTT, b.minRTTStamp = b.probeMin, b.probeMinStamp
	}
}
