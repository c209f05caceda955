package tcp

// BBR version 3: draft-ietf-ccwg-bbr-06, whose names these are, and whose sections the comments
// cite. It paces at the greatest rate of delivery of the last two cycles of probing, and keeps
// about what fits into the path at this rate in flight. Unlike version 1 it remembers how much was
// in flight when a probe lost more than 2 %, and stays below until it probes again; and between
// probes it follows the rate that is delivered while there are such losses.
//
//	bbr.go        what the connection calls; pacing rate and window
//	bbr_path.go   the model of the path: bandwidth, round trip, losses
//	bbr_state.go  the states: Startup, Drain, ProbeBW and its four phases, ProbeRTT
//
// It departs from the draft in what losses are too many, see lostMuch and tooMuchLost.

// 2.4 to 2.13.
const (
	bbrStartupGain    = bbrUnit*277/100 + 1 // BBR.StartupPacingGain: 4*ln(2)
	bbrDrainGain      = bbrUnit / 2         // BBR.DrainPacingGain
	bbrDownGain       = bbrUnit * 90 / 100
	bbrUpGain         = bbrUnit * 125 / 100
	bbrCwndGain       = 2 * bbrUnit // BBR.DefaultCwndGain
	bbrUpCwndGain     = bbrUnit * 225 / 100
	bbrProbeRTTGain   = bbrUnit / 2 // BBR.ProbeRTTCwndGain
	bbrLossDivisor    = 50          // 1 / BBR.LossThresh: 2 %
	bbrBeta           = 0.7         // BBR.Beta
	bbrHeadroom       = 0.15        // BBR.Headroom
	bbrMinRTTTime     = 10 * sec    // BBR.MinRTTFilterLen
	bbrProbeInterval  = 5 * sec     // BBR.ProbeRTTInterval
	bbrProbeTime      = 200 * ms    // BBR.ProbeRTTDuration
	bbrExtraRounds    = 5           // half of BBR.ExtraAckedFilterLen: a slot
	bbrFullGrowth     = bbrUnit * 5 / 4
	bbrFullRounds     = 3
	bbrStartupLosses  = 6 // BBRStartupFullLossCnt
	bbrDrainRounds    = 3
	bbrRenoRounds     = 63
	bbrProbeWait      = 2 * sec
	bbrProbeWaitRange = sec
)

// bbr is BBR version 3.
type bbr struct {
	// 2.8.1: rates, bytes a second.
	maxBw   [2]int64 // the greatest of this cycle, and of the one before
	bwShort int64    // bw_shortterm; bbrMaxRate: infinity
	bwNow   int64    // bw_latest
	fullBw  int64

	// 2.8.2: volumes, bytes.
	inflightShort int // inflight_shortterm; infinite: infinity
	inflightLong  int // inflight_longterm; infinite: infinity
	inflightNow   int // inflight_latest
	priorCwnd     int
	aggregation   aggregation

	// Round trips.
	roundEnd   uint64 // the round ends when something sent after this much had been delivered is acknowledged
	lossEnd    uint64 // likewise, of the round over which losses are looked at
	lossStart  uint64 // View.Lost before the first loss of it
	lossSince  uint64 // View.Delivered then
	appUntil   uint64 // samples of what was sent when no more than this had been delivered are too small
	rounds     uint32
	drainRound uint32 // round in which Drain began

	// 2.13.
	minRTT        int64 // 0: not measured yet
	minRTTStamp   int64
	probeMin      int64 // probe_rtt_min_delay
	probeMinStamp int64
	probeDone     int64 // when ProbeRTT may end; 0: there is too much in flight still

	// ProbeBW.
	cycleStamp int64
	probeWait  int64 // bw_probe_wait
	upAcked    int   // bw_probe_up_acked
	upPerInc   int   // probe_up_acked_per_inc

	// 5.5.11: what Undo goes back to.
	undoBwShort       int64
	undoInflightShort int
	undoInflightLong  int

	sinceProbe uint8 // rounds_since_probe_up
	upRounds   uint8
	fullCount  uint8
	lossEvents uint8 // acknowledgments by which losses were found in this round
	state      bbrState
	undoState  bbrState // bbrNone: there is nothing to take back
	ackPhase   bbrAckPhase

	fullReached  bool // full_bw_reached
	fullNow      bool // full_bw_now
	roundStart   bool
	lossRound    bool // loss_round_start
	lossInRound  bool
	probeSample  bool // is_bw_probe_sample
	tooHigh      bool // prev_probe_too_high
	precaution   bool // prev_probe_precautionary
	probeExpired bool // probe_rtt_expired
	probeRound   bool // probe_rtt_round_done
	idleRestart  bool
	hasRTT       bool // the pacing rate rests on a measured round trip
	recovering   bool
	saved        bool // saveState has been called for this recovery, which may be about to begin
	limited      bool // is_cwnd_limited, in this round trip
	wasLimited   bool // in the one before
	marked       bool // there was a congestion mark in this round
}

func (b *bbr) OwnWindow() bool { return true }

func (b *bbr) Init(v *View, c *Control) {
	c.Cwnd, c.Ssthresh = v.InitialWindow, infinite
	b.minRTT, b.probeMin = v.MinRTT, v.MinRTT
	b.minRTTStamp, b.probeMinStamp = v.Now, v.Now
	b.inflightLong = infinite
	b.aggregation.restart(v.Now)
	b.resetShortTerm()
	b.hasRTT = v.SRTT > 0
	b.state = bbrStartup
	c.Rate = initialRate(v, bbrStartupGain)
}

// Acked is 5.2.3's UpdateOnACK, and 5.2.4's HandleLostPacket of what it has found lost.
func (b *bbr) Acked(v *View, a *Ack, c *Control) {
	b.noteLoss(v, a, c)
	b.updateDelivery(v, a)
	b.updateRound(v, a)
	b.updateCongestion(v, c)
	if a.Delivered > 0 && a.Rate.Delivered > 0 {
		slot := uint8(bbrExtraRounds)
		if !b.fullReached {
			slot = 1 // "in Startup, just remember 1 round"
		}
		b.aggregation.update(v.Now, a.Delivered, b.bw(), c.Cwnd, b.roundStart, slot)
	}
	b.checkFull(a)
	b.checkStartupDone(v, a)
	b.checkDrainDone(v)
	b.updateCycle(v, a, c)
	b.updateMinRTT(v, a)
	b.checkProbeRTT(v, a, c)
	b.advanceDelivery(a)

	b.setRate(v, c, b.pacingGain())
	b.setCwnd(v, a, c)
}

// setRate is 5.6.2's SetPacingRateWithGain.
func (b *bbr) setRate(v *View, c *Control, gain int) {
	if !b.hasRTT && v.SRTT > 0 {
		b.hasRTT = true
		c.Rate = initialRate(v, bbrStartupGain)
	}
	// "Limiting the pacing rate updates in this way helps the connection probe robustly for
	// bandwidth until it estimates it has reached its full available bandwidth".
	if rate := paced(b.bw(), gain); b.fullReached || rate > c.Rate {
		c.Rate = rate
	}
}

// bdp is 5.6.4.2's BDPMultiple, at a bandwidth.
func (b *bbr) bdp(v *View, bw int64, gain int) int {
	if b.minRTT == 0 {
		return v.InitialWindow // "no valid RTT samples yet"
	}
	return int(min(gained(bytesIn(bw, b.minRTT), gain), maxCwnd))
}

// budgeted is 5.6.4.2's QuantizationBudget: no less than what is under way at the ends, three
// quanta.
func (b *bbr) budgeted(v *View, n int) int {
	n = max(n, 3*quantum(paced(b.bw(), b.pacingGain()), v.MSS), bbrMinWindow*v.MSS)
	if b.state == bbrUp {
		n += 2 * v.MSS
	}
	return n
}

// inflight is 5.6.4.2's Inflight.
func (b *bbr) inflight(v *View, bw int64, gain int) int { return b.budgeted(v, b.bdp(v, bw, gain)) }

// setCwnd is 5.6.4.6's SetCwnd.
func (b *bbr) setCwnd(v *View, a *Ack, c *Control) {
	most := b.budgeted(v, b.bdp(v, b.bw(), b.cwndGain())+b.aggregation.extra())
	if b.fullReached {
		c.Cwnd = min(c.Cwnd+a.Delivered, most)
	} else if c.Cwnd < most || v.Delivered < uint64(v.InitialWindow) {
		c.Cwnd += a.Delivered
	}
	c.Cwnd = min(max(c.Cwnd, bbrMinWindow*v.MSS), maxCwnd)
	b.boundCwnd(v, c)
}

// boundCwnd is 5.6.4.5's BoundCwndForProbeRTT and 5.6.4.7's BoundCwndForModel.
func (b *bbr) boundCwnd(v *View, c *Control) {
	if b.state == bbrProbeRTT {
		c.Cwnd = min(c.Cwnd, b.probeRTTCwnd(v))
	}
	most := infinite
	switch b.state {
	case bbrDown, bbrRefill, bbrUp:
		most = b.inflightLong
	case bbrProbeRTT, bbrCruise:
		most = b.inflightWithHeadroom(v)
	}
	c.Cwnd = min(c.Cwnd, max(min(most, b.inflightShort), bbrMinWindow*v.MSS))
}

// inflightWithHeadroom is 5.3.3.9's: "a volume of data that tries to leave free headroom in the
// bottleneck buffer or link for other flows".
func (b *bbr) inflightWithHeadroom(v *View) int {
	if b.inflightLong == infinite {
		return infinite
	}
	headroom := max(v.MSS, int(float64(b.inflightLong)*bbrHeadroom))
	return max(b.inflightLong-headroom, bbrMinWindow*v.MSS)
}

// saveCwnd remembers the window that recovery or ProbeRTT will take away for a while: 5.6.4.4.
func (b *bbr) saveCwnd(c *Control) {
	if b.recovering || b.state == bbrProbeRTT {
		b.priorCwnd = max(b.priorCwnd, c.Cwnd)
	} else {
		b.priorCwnd = c.Cwnd
	}
}

// saveState is 5.5.11.1's SaveStateUponLoss: once for each recovery, before anything is done about
// its losses.
func (b *bbr) saveState(c *Control) {
	b.saved = true
	b.saveCwnd(c)
	b.undoState = bbrNone
	b.undoBwShort, b.undoInflightShort, b.undoInflightLong = b.bwShort, b.inflightShort, b.inflightLong
}

func (b *bbr) Congested(v *View, s Signal, c *Control) {
	if s == ECN {
		b.mark(v, c)
		return
	}
	if !b.saved || s == RTO {
		b.saveState(c)
	}
	b.recovering = true
	if s == RTO {
		// 5.6.4.4: "BBR conservatively reduces C.cwnd to a value that will allow 1 C.SMSS
		// to be transmitted."
		c.Cwnd = v.MSS
	}
}

// Undo is 5.5.11.2's HandleSpuriousLossDetection.
func (b *bbr) Undo(v *View, c *Control) {
	b.recovering, b.saved = false, false
	c.Cwnd = max(c.Cwnd, b.priorCwnd)
	b.lossInRound = false
	b.resetFull(0)
	b.bwShort = max(b.bwShort, b.undoBwShort)
	b.inflightShort = max(b.inflightShort, b.undoInflightShort)
	b.inflightLong = max(b.inflightLong, b.undoInflightLong)
	// "if the connection transitioned out of Startup or ProbeBW_UP due to the loss recovery
	// episode, and the connection is not currently in ProbeRTT, BBR returns to the state it was
	// in before".
	switch {
	case b.undoState == bbrStartup && b.state != bbrStartup:
		b.fullReached = false
		if b.state != bbrProbeRTT {
			b.state = bbrStartup
		}
	case b.undoState == bbrUp && b.state != bbrUp && b.state != bbrProbeRTT:
		b.startRefill(v)
	}
	b.undoState = bbrNone
	b.boundCwnd(v, c)
}

// Recovered restores the window that there was before recovery, as far as the model allows it
// still: 5.6.4.4.
func (b *bbr) Recovered(v *View, c *Control) {
	if !b.recovering {
		return
	}
	b.recovering, b.saved = false, false
	c.Cwnd = max(c.Cwnd, b.priorCwnd)
	b.boundCwnd(v, c)
}

// Restart is 5.4.1's HandleRestartFromIdle: "BBR leaves C.cwnd as-is and paces packets at exactly
// BBR.bw".
func (b *bbr) Restart(v *View, idle int64, c *Control) {
	b.idleRestart = true
	b.aggregation.restart(v.Now)
	switch {
	case b.inProbeBW():
		b.setRate(v, c, bbrUnit)
	case b.state == bbrProbeRTT:
		b.checkProbeRTTDone(v, c)
	}
}
