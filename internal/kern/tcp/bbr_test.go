package tcp

import (
	"testing"
	"unsafe"
)

// bbrKit returns a kit whose controller is in ProbeBW_CRUISE on a path of 1 MB/s and 100 ms, and has 100,000 bytes in flight.
func bbrKit(t *testing.T) (*ccKit, *bbr) {
	k := newCCKit(t, "bbr")
	b := k.cc.(*bbr)
	for b.state != bbrCruise {
		k.v.Flight = 50_000
		k.sampled(1_000_000, Ack{})
	}
	for k.c.Cwnd < 200_000 {
		k.v.Flight = 100_000
		k.sampled(1_000_000, Ack{Acked: 10000, Delivered: 10000})
		b.sinceProbe = 0
	}
	k.v.Flight = 100_000
	return k, b
}

// inUp brings a kit into ProbeBW_UP.
func inUp(t *testing.T) (*ccKit, *bbr) {
	k, b := bbrKit(t)
	b.startRefill(&k.v)
	k.sampled(1_000_000, Ack{Rate: RateSample{Flight: 100_000}})
	if b.state != bbrUp {
		t.Fatalf("state %d after a round trip of REFILL", b.state)
	}
	return k, b
}

// 5.1.1: the states follow each other as in the draft's diagram, and the gains are those of 5.6.1.
func TestBBRStates(t *testing.T) {
	w := &watch{CC: NewCC("bbr")}
	b := w.CC.(*bbr)
	s := newSimSender(newSimPath(20*ms, 4, 0), w, 0)
	gains := map[bbrState]float64{bbrStartup: 2.77, bbrDrain: 0.5, bbrDown: 0.9, bbrCruise: 1, bbrRefill: 1, bbrUp: 1.25, bbrProbeRTT: 1}
	next := map[bbrState][]bbrState{
		bbrStartup:  {bbrDrain},
		bbrDrain:    {bbrDown, bbrCruise}, // DOWN has nothing to do then, and ends with the same acknowledgment
		bbrDown:     {bbrCruise, bbrRefill, bbrProbeRTT},
		bbrCruise:   {bbrRefill, bbrProbeRTT},
		bbrRefill:   {bbrUp, bbrProbeRTT},
		bbrUp:       {bbrDown, bbrProbeRTT},
		bbrProbeRTT: {bbrCruise},
	}
	last, since, rounds := bbrStartup, int64(0), uint32(0)
	var visits [bbrProbeRTT + 1]int
	var probed int64
	w.acked = func(v *View, a *Ack, c *Control) {
		if got, want := float64(c.Rate), gains[b.state]*float64(b.bw())*0.99; b.fullReached && (got < 0.97*want || got > 1.02*want) {
			t.Fatalf("state %d: rate %.0f, want %.0f", b.state, got, want)
		}
		if b.state == last {
			return
		}
		ok := false
		for _, n := range next[last] {
			ok = ok || n == b.state
		}
		if !ok {
			t.Fatalf("state %d follows state %d", b.state, last)
		}
		switch last {
		case bbrStartup:
			if b.rounds < 5 || b.rounds > 12 {
				t.Errorf("Startup took %d round trips", b.rounds)
			}
			if bw := b.bw(); bw < simRate*98/100 || bw > simRate*102/100 {
				t.Errorf("after Startup the bandwidth is %d, want %d", bw, simRate)
			}
		case bbrRefill:
			if b.rounds != rounds+1 {
				t.Errorf("REFILL took %d round trips", b.rounds-rounds)
			}
		case bbrProbeRTT:
			if d := v.Now - since; d < 200*ms || d > 300*ms {
				t.Errorf("ProbeRTT took %d ms", d/ms)
			}
		}
		if b.state == bbrUp {
			if d := v.Now - probed; probed > 0 && (d < sec || d > 3200*ms) {
				t.Errorf("%d ms from probe to probe", d/ms)
			}
			probed = v.Now
		}
		visits[b.state]++
		last, since, rounds = b.state, v.Now, b.rounds
	}
	simRun(30*sec, s)
	if n := visits[bbrUp]; n < 10 || n > 30 {
		t.Errorf("%d probes in 30 s", n)
	}
	if n := visits[bbrProbeRTT]; n < 4 || n > 6 {
		t.Errorf("%d times ProbeRTT in 30 s, want one for five seconds", n)
	}
	if b.minRTT < 20*ms || b.minRTT > 21*ms {
		t.Errorf("round trip %d us, want 20 ms", b.minRTT/1000)
	}
	if b.inflightLong != infinite {
		t.Errorf("without a loss inflight_longterm = %d", b.inflightLong)
	}
}

// 5.3.1.3: Startup ends when a round trip has lost too much in six places, and not before.
func TestBBRStartupLoss(t *testing.T) {
	for _, test := range []struct {
		events int
		lost   int // in all
		rounds int // of recovery
		exits  bool
	}{
		{6, 6000, 1, true},
		{5, 20000, 1, false},
		{6, 2000, 1, false}, // less than 2 % of 100 segments
		{6, 6000, 0, false}, // in recovery for less than a round trip
	} {
		k := newCCKit(t, "bbr")
		b := k.cc.(*bbr)
		bw := int64(100_000)
		for range 4 {
			bw *= 2
			k.sampled(bw, Ack{})
		}
		if test.rounds > 0 {
			k.cc.Congested(&k.v, Loss, &k.c)
			k.v.InRecovery = true
		}
		early := k.v.Delivered - 1
		for range test.events {
			k.v.Flight = 100_000
			k.sampled(bw, Ack{Lost: test.lost / test.events, Rate: RateSample{PriorDelivered: early, Flight: 100_000, Lost: test.lost}})
		}
		if b.state != bbrStartup {
			t.Fatalf("%+v: state %d in the middle of a round trip", test, b.state)
		}
		bw *= 2
		k.v.Flight = 1_000_000
		k.sampled(bw, Ack{Rate: RateSample{Flight: 100_000, Lost: test.lost}})
		if got := b.state == bbrDrain; got != test.exits {
			t.Errorf("%+v: state %d", test, b.state)
		}
		if want := b.bdp(&k.v, b.bw(), bbrUnit); test.exits && b.inflightLong != want {
			t.Errorf("inflight_longterm = %d, want %d", b.inflightLong, want)
		}
	}
}

// The losses of one round trip are not those of another, and a loss that has led to no recovery is not what Undo goes back to.
func TestBBRRoundsOfLoss(t *testing.T) {
	k := newCCKit(t, "bbr")
	b := k.cc.(*bbr)
	bw := int64(1_000_000)
	k.cc.Congested(&k.v, Loss, &k.c)
	for range 4 {
		early := k.v.Delivered
		for range 3 {
			k.v.Flight = 100_000
			k.sampled(bw, Ack{Lost: 2000, Rate: RateSample{PriorDelivered: early, Flight: 100_000, Lost: 6000}})
		}
		bw *= 2
		k.v.Flight = 1_000_000
		k.sampled(bw, Ack{Rate: RateSample{Flight: 100_000, Lost: 6000}})
	}
	if b.state != bbrStartup {
		t.Errorf("state %d after three losses in each of four round trips, want Startup", b.state)
	}

	k, b = bbrKit(t)
	b.inflightLong = 150_000
	k.sampled(1_000_000, Ack{Lost: 1000, Rate: RateSample{PriorDelivered: 1}})
	k.sampled(1_000_000, Ack{})
	b.inflightLong = 120_000
	k.cc.Congested(&k.v, Loss, &k.c)
	k.cc.Undo(&k.v, &k.c)
	k.want("inflight_longterm after undo", b.inflightLong, 120_000)
}

// 5.3.2: Drain ends when the queue is gone, or after three round trips.
func TestBBRDrain(t *testing.T) {
	for _, drained := range []bool{true, false} {
		k := newCCKit(t, "bbr")
		b := k.cc.(*bbr)
		for b.state == bbrStartup {
			k.v.Flight = 200_000
			k.sampled(1_000_000, Ack{})
		}
		if k.c.Rate != paced(1_000_000, bbrUnit/2) {
			t.Errorf("rate %d in Drain", k.c.Rate)
		}
		if drained {
			k.v.Flight = 100_000
			k.sampled(1_000_000, Ack{})
		} else {
			for range 4 {
				if b.state != bbrDrain {
					t.Errorf("state %d, want Drain", b.state)
				}
				k.v.Flight = 200_000
				k.sampled(1_000_000, Ack{})
			}
		}
		if !b.inProbeBW() {
			t.Errorf("state %d, want ProbeBW", b.state)
		}
	}
}

// More than 2 % of what was in flight, and by more than chance explains.
func TestTooMuchLost(t *testing.T) {
	for _, test := range []struct {
		lost, total int64 // segments
		want        bool
	}{
		{0, 0, false}, {0, 100, false},
		{1, 10, false}, {2, 10, true},
		{1, 4, true}, // of so few, one is many
		{2, 100, false}, {4, 100, false}, {5, 100, true},
		{7, 170, false}, {8, 170, true},
		{20, 1000, false}, {28, 1000, false}, {29, 1000, true},
		{228, 10000, false}, {229, 10000, true},
	} {
		if got := tooMuchLost(test.lost*1000, test.total*1000, 1000); got != test.want {
			t.Errorf("%d of %d: %v, want %v", test.lost, test.total, got, test.want)
		}
	}
}

// 5.5.10.2: "At what C.inflight value did losses cross BBR.LossThresh?" Of 100 segments the last is lost, and one before.
func TestInflightAtLoss(t *testing.T) {
	for _, test := range []struct{ flight, before, lost, want int }{
		{100_000, 1000, 1000, 99_000 + (1980-1000)*50/49},
		{100_000, 5000, 1000, 99_000 + (1980-5000)*50/49}, // it was too much before
		{1000, 5000, 1000, 0},
	} {
		got := inflightAtLoss(&RateSample{Flight: test.flight, Lost: test.before + test.lost}, test.lost)
		if d := got - test.want; d < -2 || d > 2 {
			t.Errorf("%+v: %d, want %d", test, got, test.want)
		}
	}
}

// 5.5.10.2: a probe that loses too much ends, and what it had in flight is the bound from then on; with some room for others (5.3.3.9).
func TestBBRTooHigh(t *testing.T) {
	k, b := inUp(t)
	k.v.Flight = 150_000
	k.sampled(1_000_000, Ack{Lost: 10_000, Rate: RateSample{PriorDelivered: 1, Flight: 150_000, Lost: 10_000}})
	want := inflightAtLoss(&RateSample{Flight: 150_000, Lost: 10_000}, 10_000)
	if b.state != bbrDown || b.inflightLong != want {
		t.Fatalf("state %d, inflight_longterm %d, want DOWN, %d", b.state, b.inflightLong, want)
	}
	k.wantCwnd(want)
	k.v.Flight = 150_000 // only once for each probe
	k.sampled(1_000_000, Ack{Lost: 50_000, Rate: RateSample{PriorDelivered: 1, Flight: 140_000, Lost: 60_000}})
	if b.inflightLong != want {
		t.Errorf("inflight_longterm = %d after a second loss, want %d", b.inflightLong, want)
	}
	k.v.Flight = 90_000
	k.sampled(1_000_000, Ack{})
	if b.state != bbrCruise {
		t.Fatalf("state %d, want CRUISE", b.state)
	}
	b.resetShortTerm()
	for range 200 {
		k.v.Flight = 90_000
		k.sampled(1_000_000, Ack{Rate: RateSample{PriorDelivered: 1}})
	}
	k.wantCwnd(want - int(float64(want)*0.15))

	// Not less than 0.7 of what is aimed at, however little was in flight; and an application that sends little has measured nothing.
	k, b = inUp(t)
	k.sampled(1_000_000, Ack{Lost: 5000, Rate: RateSample{PriorDelivered: 1, Flight: 10_000, Lost: 5000}})
	if b.inflightLong != 70_000 {
		t.Errorf("inflight_longterm = %d, want 70000", b.inflightLong)
	}
	k, b = inUp(t)
	k.v.Flight = 150_000
	k.sampled(1_000_000, Ack{Lost: 5000, Rate: RateSample{PriorDelivered: 1, Flight: 10_000, Lost: 5000, AppLimited: true}})
	if b.state != bbrDown || b.inflightLong != infinite {
		t.Errorf("limited by the application: state %d, inflight_longterm = %d", b.state, b.inflightLong)
	}
}

// 5.3.3.6: after a probe that lost too much, the next ends when it has reached the bound; if all is well then, the one after that goes on.
func TestBBRPrecaution(t *testing.T) {
	k, b := inUp(t)
	k.v.Flight = 150_000
	k.sampled(1_000_000, Ack{Lost: 10_000, Rate: RateSample{PriorDelivered: 1, Flight: 150_000, Lost: 10_000}})
	long := b.inflightLong
	b.startRefill(&k.v)
	k.sampled(1_000_000, Ack{})
	if b.state != bbrUp {
		t.Fatalf("state %d, want UP", b.state)
	}
	k.v.Flight = long - 2000
	k.sampled(1_000_000, Ack{Rate: RateSample{PriorDelivered: 1}})
	if b.state != bbrUp {
		t.Fatalf("state %d below the bound, want UP", b.state)
	}
	k.v.Flight = long - 500 // a segment more does not fit
	k.sampled(1_000_000, Ack{Rate: RateSample{PriorDelivered: 1}})
	if b.state != bbrDown || b.tooHigh {
		t.Fatalf("state %d at the bound, want DOWN", b.state)
	}
	k.v.Flight = 150_000
	k.sampled(1_000_000, Ack{}) // a round trip later nothing is known to be lost
	if b.state != bbrRefill {
		t.Fatalf("state %d after a probe without a loss, want REFILL", b.state)
	}
	k.sampled(1_000_000, Ack{})
	k.v.Flight = long + 2000
	k.sampled(1_000_000, Ack{Rate: RateSample{PriorDelivered: 1}})
	if b.state != bbrUp {
		t.Errorf("state %d beyond the bound, want UP", b.state)
	}
	b.startDown(&k.v) // this one was no precaution, so there is no other after it
	k.v.Flight = 150_000
	k.sampled(1_000_000, Ack{})
	if b.state == bbrRefill {
		t.Error("REFILL after a probe that was no precaution")
	}
}

// 5.3.3.1: DOWN ends when there is headroom, and nothing beyond what fits into the path.
func TestBBRDown(t *testing.T) {
	for _, test := range []struct {
		flight, long int
		cruise       bool
	}{
		{100_000, infinite, true}, {101_000, infinite, false},
		{86_000, 100_000, false}, {85_000, 100_000, true},
		{2000, 1000, true}, // four segments are always allowed
	} {
		k, b := bbrKit(t)
		b.startDown(&k.v)
		b.inflightLong = test.long
		k.v.Flight = test.flight + 1000
		k.sampled(1_000_000, Ack{Rate: RateSample{PriorDelivered: 1}})
		if got := b.state == bbrCruise; got != test.cruise {
			t.Errorf("%+v: state %d", test, b.state)
		}
	}
}

// 5.5.10.3: a probe's deliveries are not what the round trips after it are measured by.
func TestBBRDownForgets(t *testing.T) {
	k, b := inUp(t)
	k.sampled(2_000_000, Ack{Rate: RateSample{PriorDelivered: 1}})
	b.lossInRound = true
	b.startDown(&k.v)
	if b.bwNow != 0 || b.inflightNow != 0 || b.lossInRound {
		t.Errorf("bw_latest %d, inflight_latest %d, loss in round %v", b.bwNow, b.inflightNow, b.lossInRound)
	}
}

// 5.5.9: "in Startup, just remember 1 round"; later ten.
func TestBBRExtraAcked(t *testing.T) {
	k := newCCKit(t, "bbr")
	b := k.cc.(*bbr)
	k.sampled(100_000, Ack{Acked: 8000, Delivered: 8000})
	for range 2 {
		k.v.Now += sec
		k.sampled(100_000, Ack{})
	}
	k.want("extra_acked in Startup", b.aggregation.extra(), 1000)
	k, b = bbrKit(t)
	b.aggregation = aggregation{}
	k.v.Now += sec
	k.sampled(1_000_000, Ack{Acked: 8000, Delivered: 8000, Rate: RateSample{PriorDelivered: 1}})
	for i := range 10 {
		k.v.Now += sec
		k.want("extra_acked", b.aggregation.extra(), 8000)
		if i == 9 {
			break
		}
		k.sampled(1_000_000, Ack{})
	}
	k.sampled(1_000_000, Ack{})
	k.want("extra_acked after ten round trips", b.aggregation.extra(), 1000)
}

// C.is_cwnd_limited: "at any point in the last packet-timed round trip".
func TestBBRCwndLimited(t *testing.T) {
	k, b := bbrKit(t)
	for i, limited := range []bool{true, true, true, false} {
		k.v.CwndLimited = i == 0
		k.sampled(1_000_000, Ack{Rate: RateSample{PriorDelivered: uint64((i + 1) % 2)}}) // every second begins a round trip
		if got := b.cwndLimited(); got != limited {
			t.Errorf("acknowledgment %d: limited %v, want %v", i, got, limited)
		}
	}
}

// 5.3.3.5: "in each successive round trip, BBR.inflight_longterm grows (in units of C.SMSS) by 1, 2, 4, 8".
func TestBBRUpward(t *testing.T) {
	k, b := inUp(t)
	b.inflightLong, k.c.Cwnd = 100_000, 100_000
	b.upRounds = 0
	b.raiseSlope(&k.v, &k.c)
	for _, grow := range []int{1000, 2000, 4000, 8000} {
		before, window := b.inflightLong, k.c.Cwnd
		for n := 0; n < window; n += 1000 {
			k.v.Flight = k.c.Cwnd
			prior := uint64(1)
			if n+1000 >= window {
				prior = 0 // the last begins a round trip
			}
			k.sampled(1_000_000, Ack{Rate: RateSample{PriorDelivered: prior, Flight: 90_000}})
		}
		if got := b.inflightLong - before; got < grow-1000 || got > grow+1000 {
			t.Errorf("inflight_longterm has grown by %d in a round trip, want %d", got, grow)
		}
		if b.state != bbrUp {
			t.Fatalf("state %d, want UP", b.state)
		}
	}
	b.inflightLong = 100_000 // not if the window was not used
	k.v.CwndLimited, b.limited, b.wasLimited = false, false, false
	for range 1000 {
		k.sampled(1_000_000, Ack{Rate: RateSample{PriorDelivered: 1, Flight: 90_000}})
	}
	if b.inflightLong != 100_000 {
		t.Errorf("inflight_longterm = %d although the window is not used", b.inflightLong)
	}
	// "Loss rate is safe. Adjust upper bounds upward."
	k.sampled(1_000_000, Ack{Rate: RateSample{PriorDelivered: 1, Flight: 110_000}})
	if b.inflightLong != 110_000 {
		t.Errorf("inflight_longterm = %d after 110000 in flight without a loss", b.inflightLong)
	}
}

// 5.3.1.2: UP ends after three round trips without growth, unless the window has held it back.
func TestBBRUpEnds(t *testing.T) {
	k, b := inUp(t)
	for i := range 4 {
		k.v.Flight = 120_000
		k.sampled(1_100_000, Ack{Rate: RateSample{Flight: 100_000}})
		if got, want := b.state == bbrDown, i >= 2; got != want {
			t.Fatalf("state %d after %d round trips", b.state, i+1)
		}
		if i >= 2 {
			break
		}
	}
	k, b = inUp(t)
	b.inflightLong = 130_000
	for range 10 {
		b.inflightLong, k.c.Cwnd = 130_000, 130_000
		b.upPerInc = infinite
		k.v.Flight = 120_000
		k.sampled(1_100_000, Ack{Rate: RateSample{Flight: 100_000}})
	}
	if b.state != bbrUp {
		t.Errorf("state %d although the window holds it back", b.state)
	}
}

// 5.5.10.3: between probes, a round trip with too many losses brings the bounds down to what is delivered, to 0.7 of what they were at
// most; and the next probe forgets it.
func TestBBRLowerBounds(t *testing.T) {
	round := func(k *ccKit, bw int64, lost int) {
		k.v.Flight = 100_000
		k.sampled(bw, Ack{Acked: 1000, Delivered: 1000, Lost: lost, Rate: RateSample{PriorDelivered: 1}})
		for range 95 {
			k.v.Flight = 100_000
			k.sampled(bw, Ack{Rate: RateSample{PriorDelivered: 1}})
		}
		k.cc.(*bbr).sinceProbe = 0
		k.cc.(*bbr).cycleStamp = k.v.Now
		k.sampled(bw, Ack{})
	}
	k, b := bbrKit(t)
	k.sampled(900_000, Ack{}) // the latest round trip
	round(k, 900_000, 10_000)
	if b.bwShort != 900_000 || b.inflightShort < 140_000 || b.inflightShort > 147_000 { // 0.7 of the window
		t.Errorf("bw_shortterm %d, inflight_shortterm %d, want 900000, 140000", b.bwShort, b.inflightShort)
	}
	k.wantCwnd(b.inflightShort)
	if k.c.Rate != 891_000 {
		t.Errorf("rate %d, want 891000", k.c.Rate)
	}
	round(k, 100_000, 10_000)
	if b.bwShort != 900_000 { // the round before was that fast still
		t.Errorf("bw_shortterm %d, want 900000", b.bwShort)
	}
	round(k, 100_000, 10_000)
	if b.bwShort != 630_000 {
		t.Errorf("bw_shortterm %d, want 630000", b.bwShort)
	}
	b.startRefill(&k.v)
	if b.bw() != 1_000_000 {
		t.Errorf("bandwidth %d in REFILL, want 1000000", b.bw())
	}

	k, b = bbrKit(t)
	round(k, 900_000, 1000) // as many as are within the objective change nothing
	if b.bwShort != bbrMaxRate || b.inflightShort != infinite {
		t.Errorf("bw_shortterm %d, inflight_shortterm %d after 1 %% of losses", b.bwShort, b.inflightShort)
	}

	k, b = inUp(t) // nor do losses when probing
	b.probeSample = false
	round(k, 900_000, 10_000)
	if b.bwShort != bbrMaxRate {
		t.Errorf("bw_shortterm %d when probing", b.bwShort)
	}
}

// RFC 3168: a mark is taken for a loss.
func TestBBRMark(t *testing.T) {
	k, b := bbrKit(t)
	k.sampled(900_000, Ack{})
	k.cc.Congested(&k.v, ECN, &k.c)
	k.sampled(900_000, Ack{})
	if b.bwShort != 900_000 {
		t.Errorf("bw_shortterm %d after a mark, want 900000", b.bwShort)
	}
	k, b = inUp(t)
	k.v.Flight = 120_000
	k.cc.Congested(&k.v, ECN, &k.c)
	if b.state != bbrDown || b.inflightLong != 120_000 {
		t.Errorf("state %d, inflight_longterm %d after a mark in UP, want DOWN, 120000", b.state, b.inflightLong)
	}
}

// 5.3.3.8: a flow with few packets in flight probes as often as a Reno flow would.
func TestBBRRenoCoexistence(t *testing.T) {
	for _, test := range []struct {
		segments int64
		want     int
	}{{10, 10}, {40, 40}, {100, 63}} {
		k, b := bbrKit(t)
		b.maxBw = [2]int64{test.segments * 10_000, test.segments * 10_000}
		k.c.Cwnd = 200_000
		b.sinceProbe = 0
		rounds := 0
		for ; b.state == bbrCruise; rounds++ {
			b.cycleStamp = k.v.Now
			k.sampled(test.segments*10_000, Ack{})
		}
		if rounds != test.want {
			t.Errorf("%d segments in flight: %d round trips to the next probe, want %d", test.segments, rounds, test.want)
		}
	}
}

// 5.3.3.8: or after two to three seconds.
func TestBBRProbeWait(t *testing.T) {
	seen := map[int64]bool{}
	for x := range uint64(100) {
		k, b := bbrKit(t)
		k.v.Delivered += x * 1448
		b.startDown(&k.v)
		if b.probeWait < 2*sec || b.probeWait >= 3*sec || b.sinceProbe > 1 {
			t.Fatalf("wait %d ms, %d rounds", b.probeWait/ms, b.sinceProbe)
		}
		seen[b.probeWait/(100*ms)] = true
	}
	k, b := bbrKit(t)
	b.probeWait = 2 * sec
	b.probeMinStamp = k.v.Now
	k.v.Now = b.cycleStamp + 2*sec - 10*ms
	b.sinceProbe = 0
	k.sampled(1_000_000, Ack{})
	if b.state != bbrCruise {
		t.Errorf("state %d after two seconds, want CRUISE", b.state)
	}
	k.sampled(1_000_000, Ack{})
	if b.state != bbrRefill {
		t.Errorf("state %d after more than two seconds, want REFILL", b.state)
	}
	if len(seen) != 10 {
		t.Errorf("the waits fall into %d tenths of a second of ten", len(seen))
	}
}

// 5.5.6: the bandwidth is that of two cycles.
func TestBBRMaxBw(t *testing.T) {
	k, b := bbrKit(t)
	k.sampled(500_000, Ack{})
	if b.bw() != 1_000_000 {
		t.Errorf("bandwidth %d", b.bw())
	}
	for i, want := range []int64{1_000_000, 500_000} {
		b.startDown(&k.v)
		k.sampled(1000, Ack{Rate: RateSample{AppLimited: true}}) // that it is limited does not end the cycle
		b.startDown(&k.v)
		k.v.Flight = 200_000
		k.sampled(500_000, Ack{Rate: RateSample{Flight: 1000}})
		k.sampled(500_000, Ack{Rate: RateSample{Flight: 1000}})
		if b.bw() != want {
			t.Errorf("%d cycles later the bandwidth is %d, want %d", i+1, b.bw(), want)
		}
	}
	b.advanceMaxBw()
	k.sampled(100_000, Ack{Rate: RateSample{AppLimited: true}})
	if b.bw() != 500_000 || b.maxBw[0] != 0 {
		t.Errorf("limited by the application the bandwidth is %d, want 500000", b.bw())
	}
	k.sampled(600_000, Ack{Rate: RateSample{AppLimited: true}})
	if b.bw() != 600_000 {
		t.Errorf("limited by the application the bandwidth is %d, want 600000", b.bw())
	}
}

// 5.3.4: half of what fits into the path for 200 ms and a round trip; then the window comes back, and the cycle begins with CRUISE.
func TestBBRProbeRTT(t *testing.T) {
	k, b := bbrKit(t)
	k.v.Now += 5 * sec
	k.v.Flight = 100_000
	k.sampled(1_000_000, Ack{RTT: 120 * ms})
	if b.state != bbrProbeRTT {
		t.Fatalf("state %d after five seconds", b.state)
	}
	k.wantCwnd(50_000)
	b.bwShort = 500_000
	k.v.Flight = 51_000
	k.sampled(1_000_000, Ack{RTT: 110 * ms})
	if b.probeDone != 0 {
		t.Error("the time counts before enough has left")
	}
	b.bwShort = bbrMaxRate
	k.v.Flight = 51_000
	k.sampled(1_000_000, Ack{RTT: 105 * ms})
	if b.probeDone != k.v.Now+200*ms {
		t.Errorf("ProbeRTT ends in %d ms, want 200", (b.probeDone-k.v.Now)/ms)
	}
	k.v.Now += 201 * ms
	k.sampled(100_000, Ack{RTT: 105 * ms, Rate: RateSample{PriorDelivered: 1}}) // no round trip is over
	if b.state != bbrProbeRTT {
		t.Fatalf("state %d before a round trip is over", b.state)
	}
	b.bwShort = 400_000
	k.sampled(100_000, Ack{RTT: 105 * ms})
	if b.state != bbrCruise || k.c.Cwnd < 200_000 || b.bwShort != bbrMaxRate {
		t.Errorf("state %d, cwnd %d, bw_shortterm %d after ProbeRTT", b.state, k.c.Cwnd, b.bwShort)
	}
	if b.bw() != 1_000_000 {
		t.Errorf("bandwidth %d after ProbeRTT, want 1000000", b.bw())
	}
	b.maxBw = [2]int64{0, 1_000_000}
	k.sampled(100_000, Ack{RTT: 105 * ms, Rate: RateSample{PriorDelivered: b.appUntil}})
	if b.maxBw != [2]int64{0, 1_000_000} {
		t.Errorf("max_bw of two cycles %d: a sample of ProbeRTT counts", b.maxBw)
	}
	if b.minRTT != 100*ms {
		t.Errorf("round trip %d ms, want 100: it is remembered for ten seconds", b.minRTT/ms)
	}
	k.v.Now += 6 * sec
	k.sampled(1_000_000, Ack{RTT: 120 * ms})
	if b.minRTT == 100*ms {
		t.Error("the round trip of eleven seconds ago has not been forgotten")
	}
}

// 5.6.4.4: recovery itself leaves the window as it is; a time-out restarts from one segment. In the end it is what it was.
func TestBBRRecovery(t *testing.T) {
	for _, s := range []Signal{Loss, RTO} {
		k, _ := bbrKit(t)
		before := k.c.Cwnd
		k.cc.Congested(&k.v, s, &k.c)
		if s == RTO {
			k.wantCwnd(1000)
			k.v.Flight = 0
			k.sampled(1_000_000, Ack{Rate: RateSample{PriorDelivered: 1}})
			k.wantCwnd(4000)
		} else {
			k.wantCwnd(before)
		}
		k.cc.Recovered(&k.v, &k.c)
		k.wantCwnd(before)
		k.wantSsthresh(infinite)
		k.c.Cwnd = 10_000
		k.cc.Recovered(&k.v, &k.c) // there is nothing to restore any more
		k.wantCwnd(10_000)
	}
	k, b := bbrKit(t) // "at the end of ACK processing BBRBoundCwndForModel() will bound the cwnd"
	k.cc.Congested(&k.v, Loss, &k.c)
	b.inflightShort = 60_000
	k.cc.Recovered(&k.v, &k.c)
	k.wantCwnd(60_000)
}

// 5.5.11: what a mistake has led to is taken back.
func TestBBRUndo(t *testing.T) {
	k, b := inUp(t)
	cwnd := k.c.Cwnd
	k.v.Flight = 150_000
	loss := Ack{Lost: 10_000, Rate: RateSample{PriorDelivered: 1, Flight: 150_000, Lost: 10_000}}
	k.sampled(1_000_000, loss)
	k.cc.Congested(&k.v, Loss, &k.c)
	b.bwShort, b.inflightShort = 500_000, 50_000
	k.c.Cwnd = 50_000
	k.cc.Undo(&k.v, &k.c)
	if b.state != bbrRefill || b.inflightLong != infinite || b.bw() != 1_000_000 || b.inflightShort != infinite {
		t.Errorf("after undo: state %d, inflight_longterm %d, bandwidth %d, inflight_shortterm %d", b.state, b.inflightLong, b.bw(), b.inflightShort)
	}
	if k.c.Cwnd < 145_000 { // as far as the end of the probe has left it when recovery began
		t.Errorf("cwnd = %d after undo, was %d", k.c.Cwnd, cwnd)
	}

	k = newCCKit(t, "bbr")
	b = k.cc.(*bbr)
	k.sampled(1_000_000, Ack{})
	k.cc.Congested(&k.v, Loss, &k.c)
	early := k.v.Delivered - 1
	for range 6 {
		k.v.Flight = 100_000
		k.sampled(1_000_000, Ack{Lost: 1000, Rate: RateSample{PriorDelivered: early, Flight: 100_000, Lost: 6000}})
	}
	k.v.Flight = 500_000
	k.sampled(1_300_000, Ack{Rate: RateSample{Flight: 100_000, Lost: 6000}})
	if b.state != bbrDrain {
		t.Fatalf("state %d, want Drain", b.state)
	}
	k.v.Flight = 500_000
	k.sampled(1_300_000, Ack{Lost: 1000, Rate: RateSample{PriorDelivered: early}})
	k.cc.Undo(&k.v, &k.c)
	if b.fullBw != 0 || b.lossInRound {
		t.Errorf("after undo: full_bw %d, loss in round %v", b.fullBw, b.lossInRound)
	}
	if b.state != bbrStartup || b.fullReached || b.inflightLong != infinite {
		t.Errorf("after undo: state %d, full %v, inflight_longterm %d", b.state, b.fullReached, b.inflightLong)
	}
}

// 5.4.1: after a pause "BBR leaves C.cwnd as-is and paces packets at exactly BBR.bw", and the pause is as good as ProbeRTT.
func TestBBRRestart(t *testing.T) {
	k, b := inUp(t)
	if k.c.Rate != paced(1_000_000, bbrUpGain) {
		t.Fatalf("rate %d in UP", k.c.Rate)
	}
	cwnd := k.c.Cwnd
	k.v.Now += 20 * sec
	k.v.Flight = 0
	k.cc.Restart(&k.v, 20*sec, &k.c)
	if k.c.Rate != 990_000 {
		t.Errorf("rate %d after a pause, want 990000", k.c.Rate)
	}
	k.wantCwnd(cwnd)
	k.sampled(1_000_000, Ack{RTT: 110 * ms})
	if b.state == bbrProbeRTT || b.minRTT != 110*ms {
		t.Errorf("state %d, round trip %d ms", b.state, b.minRTT/ms)
	}

	k, b = bbrKit(t) // ProbeRTT that has been long enough meanwhile ends
	k.v.Now += 6 * sec
	k.v.Flight = 1000
	k.sampled(1_000_000, Ack{RTT: 120 * ms})
	k.v.Now += sec
	k.cc.Restart(&k.v, sec, &k.c)
	if b.state != bbrCruise || k.c.Cwnd < 200_000 {
		t.Errorf("state %d, cwnd %d after a pause in ProbeRTT", b.state, k.c.Cwnd)
	}
}

// A shallow queue is found, and the flow stays below it without losing much.
func TestBBRShallowQueue(t *testing.T) {
	w := &watch{CC: NewCC("bbr")}
	b := w.CC.(*bbr)
	s := newSimSender(newSimPath(20*ms, 0.2, 0), w, 0)
	w.acked = func(v *View, a *Ack, c *Control) {
		if b.state == bbrCruise && c.Cwnd > max(b.inflightWithHeadroom(v), 4*simMSS) {
			t.Fatalf("cwnd %d in CRUISE, inflight_longterm %d", c.Cwnd, b.inflightLong)
		}
	}
	simRun(10*sec, s)
	holds := int(simRate*20*ms/sec) * 12 / 10
	if b.inflightLong < holds*8/10 || b.inflightLong > holds*13/10 {
		t.Errorf("inflight_longterm %d, the path holds %d", b.inflightLong, holds)
	}
	lost := s.v.Lost
	delivered := s.v.Delivered
	simRun(20*sec, s)
	if l, d := s.v.Lost-lost, s.v.Delivered-delivered; l*100 > d {
		t.Errorf("%d bytes lost and %d delivered in ten seconds", l, d)
	}
}

func TestBBRSize(t *testing.T) {
	if n := unsafe.Sizeof(bbr{}); n > 384 {
		t.Errorf("bbr takes %d bytes", n)
	}
}
