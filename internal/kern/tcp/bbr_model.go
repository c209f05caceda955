package tcp

import "math/bits"

// What the two versions of BBR have in common: arithmetic of rates, and filters.

// Gains are in units of 1/256, as Linux has them.
const bbrUnit = 256

// Bounds of what a path is believed to do, so that no product overflows: 8 Tbit/s, and 18 minutes.
const (
	bbrMaxRate = 1 << 40
	bbrMaxTime = 1 << 40
)

const (
	bbrMinWindow  = 4         // segments: BBR.MinPipeCwnd
	bbrMaxQuantum = 64 * 1024 // bytes
)

// bytesIn returns how many bytes a rate, in bytes a second, makes in ns nanoseconds.
func bytesIn(rate, ns int64) int64 {
	hi, lo := bits.Mul64(uint64(min(max(rate, 0), bbrMaxRate)), uint64(min(max(ns, 0), bbrMaxTime)))
	q, _ := bits.Div64(hi, lo, uint64(sec))
	return int64(q)
}

// bandwidth returns the rate of delivery that a sample has measured, bytes a second; 0: there is
// none.
func (r *RateSample) bandwidth() int64 {
	if r.Delivered <= 0 || r.Interval <= 0 {
		return 0
	}
	hi, lo := bits.Mul64(uint64(r.Delivered), uint64(sec))
	if hi >= uint64(r.Interval) {
		return bbrMaxRate
	}
	q, _ := bits.Div64(hi, lo, uint64(r.Interval))
	return int64(min(q, bbrMaxRate))
}

// gained returns n times a gain.
func gained(n int64, gain int) int64 { return n * int64(gain) / bbrUnit }

// paced returns the pacing rate for a bandwidth: draft-ietf-ccwg-bbr, 5.6.2: "the
// BBR.PacingMarginPercent constant of 1 aims to cause BBR to pace at 1% below the bw, on average".
func paced(bw int64, gain int) int64 { return max(gained(bw, gain)*99/100, 1) }

// initialRate is the pacing rate before any is measured: draft-ietf-ccwg-bbr, 5.6.2:
// "nominal_bandwidth = C.InitialCwnd / (C.srtt ? C.srtt : 1ms)".
func initialRate(v *View, gain int) int64 {
	rtt := v.SRTT
	if rtt <= 0 {
		rtt = ms
	}
	r := RateSample{Delivered: v.InitialWindow, Interval: rtt}
	return max(gained(r.bandwidth(), gain), 1)
}

// quantum returns how much is sent at once at a rate, bytes: draft-ietf-ccwg-bbr, 5.6.3.
func quantum(rate int64, mss int) int {
	return max(int(min(bytesIn(rate, ms), bbrMaxQuantum)), 2*mss)
}

// scatter returns a number below n, which looks like drawn at random and is always the same for the
// same x. Controllers that have carried different amounts draw differently, which is all that is
// asked of it.
func scatter(x uint64, n int64) int64 {
	x ^= x >> 33 // the finalizer of MurmurHash3
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	x ^= x >> 33
	return int64(x % uint64(n))
}

// A maxFilter is the greatest of the values of a window of rounds: Kathleen Nichols' algorithm,
// which keeps the best value, and the best two of those after it. The zero value is empty.
type maxFilter [3]struct {
	value int64
	round uint32
}

// update takes a value of a round, which is not before those that it has been given, and forgets
// those older than window rounds.
func (f *maxFilter) update(round, window uint32, value int64) {
	s := f[0]
	s.value, s.round = value, round
	if value >= f[0].value || round-f[2].round > window {
		f[0], f[1], f[2] = s, s, s
		return
	}
	if value >= f[1].value {
		f[1], f[2] = s, s
	} else if value >= f[2].value {
		f[2] = s
	}
	age := round - f[0].round
	switch {
	case age > window: // the best has become too old, and the next is the best now
		f[0], f[1], f[2] = f[1], f[2], s
		if round-f[0].round > window {
			f[0], f[1] = f[1], f[2]
		}
	case f[1].round == f[0].round && age > window/4: // the others are to be of later parts of the window
		f[1], f[2] = s, s
	case f[2].round == f[1].round && age > window/2:
		f[2] = s
	}
}

func (f *maxFilter) max() int64 { return f[0].value }

// An aggregation measures how much acknowledgments bring beyond what the bandwidth explains:
// draft-ietf-ccwg-bbr, 5.5.9. Such an excess is followed by silence, during which the window must
// be large enough to go on. The zero value is ready to use.
type aggregation struct {
	start int64    // of the interval that is looked at
	acked int64    // bytes delivered in it
	most  [2]int32 // the greatest excess in this slot of some round trips, and in the one before
	age   uint8    // round trips of this slot
	slot  uint8
}

// restart begins an interval: the silence until now was the sender's.
func (g *aggregation) restart(now int64) { g.start, g.acked = now, 0 }

// update takes an acknowledgment of n bytes on a path of a bandwidth. A slot lasts for so many
// round trips.
func (g *aggregation) update(now int64, n int, bw int64, cwnd int, roundStart bool, slotRounds uint8) {
	if roundStart {
		g.age++
		if g.age >= slotRounds {
			g.age = 0
			g.slot ^= 1
			g.most[g.slot] = 0
		}
	}
	// "If the ACK rate falls below the expected bandwidth, then the algorithm estimates an
	// aggregation episode has terminated, and resets the sampling interval to start from the
	// current time."
	expected := bytesIn(bw, now-g.start)
	if g.acked <= expected {
		g.restart(now)
		expected = 0
	}
	g.acked += int64(n)
	excess := int32(min(g.acked-expected, int64(cwnd), maxCwnd))
	g.most[g.slot] = max(g.most[g.slot], excess)
}

// extra returns the greatest excess of the last round trips, bytes.
func (g *aggregation) extra() int { return int(max(g.most[0], g.most[1])) }
