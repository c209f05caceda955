package tcp

// RFC 9406, 4.3.
const (
	hystartMinThresh  = 4 * ms  // MIN_RTT_THRESH
	hystartMaxThresh  = 16 * ms // MAX_RTT_THRESH
	hystartMinDivisor = 8       // MIN_RTT_DIVISOR
	hystartSamples    = 8       // N_RTT_SAMPLE
	cssGrowthDivisor  = 4       // CSS_GROWTH_DIVISOR
	cssMaxRounds      = 5       // CSS_ROUNDS
)

// A hystart finds the end of the first slow start by the growth of the round trip, before the queue
// of the path overflows: HyStart++, RFC 9406. When the round trip has grown, it grows the window
// more slowly for five round trips (Conservative Slow Start), and goes back if that was a mistake.
// The zero value is ready to use.
type hystart struct {
	windowEnd uint64 // the round ends when this offset is acknowledged
	lastMin   int64  // lastRoundMinRTT; 0: infinity
	curMin    int64  // currentRoundMinRTT; 0: infinity
	baseline  int64  // cssBaselineMinRtt; 0: infinity, and this is standard slow start
	lately    int64  // the least of the last samples; 0: there is none
	recent    int32  // how many they are, up to N_RTT_SAMPLE
	samples   int32  // rttSampleCount
	rounds    int32  // rounds of Conservative Slow Start that have ended
}

// acked takes the acknowledgment into account, of which standard slow start would grow the window
// by n bytes. It returns the bytes to grow by, and whether slow start is over.
//
// RFC 9406, 4.3: "A paced TCP implementation SHOULD use L = infinity." So n is not bounded here.
func (h *hystart) acked(v *View, a *Ack, n int) (grow int, done bool) {
	if h.baseline != 0 {
		n /= cssGrowthDivisor // 4.2: "cwnd = cwnd + (min(N, L * SMSS) / CSS_GROWTH_DIVISOR)"
	}
	if h.sample(a.RTT) {
		return n, true
	}

	// 4.2: "When windowEnd is ACKed, the current round ends and windowEnd is set to SND.NXT."
	if v.Acked < h.windowEnd {
		return n, false
	}
	h.windowEnd = v.Sent
	h.lastMin, h.curMin, h.samples = h.curMin, 0, 0
	h.lately, h.recent = 0, 0
	if h.baseline == 0 {
		return n, false
	}
	// "CSS lasts at most CSS_ROUNDS rounds. If the transition into CSS happens in the middle of
	// a round, that partial round counts towards the limit." "If CSS_ROUNDS rounds are
	// complete, enter congestion avoidance".
	h.rounds++
	return n, h.rounds >= cssMaxRounds
}

// sample takes a round trip, if there is one, and moves between slow start and Conservative Slow
// Start. It reports whether the latter is over before its time, as the queue goes on growing.
func (h *hystart) sample(rtt int64) (done bool) {
	if rtt <= 0 {
		return false
	}
	h.samples++
	if h.curMin == 0 || rtt < h.curMin {
		h.curMin = rtt
	}
	if h.lately == 0 || rtt < h.lately {
		h.lately = rtt
	}
	h.recent++
	full := h.recent == hystartSamples
	lately := h.lately
	if full {
		h.lately, h.recent = 0, 0
	}
	if h.samples < hystartSamples {
		return false
	}
	thresh := max(hystartMinThresh, min(h.lastMin/hystartMinDivisor, hystartMaxThresh))
	switch {
	case h.baseline != 0:
		// 4.2: "For CSS rounds where at least N_RTT_SAMPLE RTT samples have been obtained,
		// check to see if the current round's minRTT drops below baseline
		// (cssBaselineMinRtt) indicating that slow start exit was spurious".
		// By half a threshold: the least of many samples is lower than that of a few.
		if h.curMin+thresh/2 <= h.baseline {
			h.baseline, h.rounds = 0, 0
			return false
		}
		// A round trip that grows once more, under a window that hardly does, leaves no doubt that
		// it is a queue. CSS_ROUNDS rounds at a quarter more each would fill a queue of three
		// windows.
		return full && lately >= h.baseline+thresh
	case h.lastMin != 0:
		// 4.2: "if (currentRoundMinRTT >= (lastRoundMinRTT + RttThresh))", "exit slow start and
		// enter CSS". The least round trip of a round is that of its beginning. A paced sender
		// fills the queue in the midst of a round, and a round later a short queue has overflowed;
		// so the last N_RTT_SAMPLE samples count as the first do. If they were high by chance, the
		// least of a later round is below them.
		if h.curMin >= h.lastMin+thresh {
			h.baseline = h.curMin
		} else if full && lately >= h.lastMin+thresh {
			h.baseline, h.curMin = lately, lately
		}
	}
	return false
}
