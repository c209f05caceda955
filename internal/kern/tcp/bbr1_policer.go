package tcp

// A policer on the path lets a burst through and then no more than a rate, and throws away the
// rest. The greatest bandwidth measured is that of the burst, so BBR version 1 would lose most of
// what it sends for the next ten round trips. It looks for two intervals in a row, each ended by
// losses and with many of them, in which the same rate got through, and sends at this rate for a
// while.
const (
	policerMinRounds  = 4           // of an interval
	policerMaxRounds  = 4 * 4       // of an interval: it is too long to mean anything
	policerLoss       = 50          // of 256: the least share that is lost
	policerRatio      = bbrUnit / 8 // how much the rates may differ
	policerDifference = 4000 / 8    // bytes a second by which they may differ in any case
	policerUseRounds  = 48          // for which the rate is used
)

// policer is Linux's long-term bandwidth sampling ("lt_bw").
type policer struct {
	bw        int64 // what got through in the last interval, bytes a second; 0: there is none
	start     int64 // of this interval
	delivered uint64
	lostBytes uint64
	rounds    uint8
	sampling  bool
	found     bool // bw is to be used
}

// sample takes an acknowledgment. It reports whether the rate has been used for long enough, so
// that the path is to be probed again.
func (p *policer) sample(v *View, lost, appLimited, roundStart, probing bool) (again bool) {
	if p.found {
		if probing && roundStart {
			if p.rounds++; p.rounds >= policerUseRounds {
				p.reset(v)
				return true
			}
		}
		return false
	}
	// An interval begins with a loss: the policer has no tokens then.
	if !p.sampling {
		if !lost {
			return false
		}
		p.begin(v)
		p.sampling = true
	}
	if appLimited { // it may fill up again
		p.reset(v)
		return false
	}
	if roundStart {
		p.rounds++
	}
	if p.rounds < policerMinRounds {
		return false
	}
	if p.rounds > policerMaxRounds {
		p.reset(v)
		return false
	}
	if lost { // an interval ends with a loss, too
		p.end(v)
	}
	return false
}

// lost takes a time-out as a loss.
func (p *policer) lost(v *View) { p.sample(v, true, false, true, false) }

func (p *policer) end(v *View) {
	n, lost := v.Delivered-p.delivered, v.Lost-p.lostBytes
	if n == 0 || lost*bbrUnit < policerLoss*n || v.Now-p.start < ms {
		return
	}
	r := RateSample{Delivered: int(n), Interval: v.Now - p.start}
	bw := r.bandwidth()
	if p.bw > 0 {
		if diff := max(bw-p.bw, p.bw-bw); diff <= gained(p.bw, policerRatio) || diff <= policerDifference {
			p.bw = (bw + p.bw) / 2
			p.found = true
			p.rounds = 0
			return
		}
	}
	p.bw = bw
	p.begin(v)
}

func (p *policer) begin(v *View) {
	p.start, p.delivered, p.lostBytes, p.rounds = v.Now, v.Delivered, v.Lost, 0
}

func (p *policer) reset(v *View) {
	p.bw, p.sampling, p.found = 0, false, false
	p.begin(v)
}
