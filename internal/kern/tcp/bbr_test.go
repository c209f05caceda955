package tcp

import (
	"testing"
	"unsafe"
)

// bbrKit returns a kit whose controller is in ProbeBW_CRUISE on a path of 1 MB/s and 100 ms, and
// has 100,000 bytes in flight.
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
	gains := map[bbrState]float64{bbrStartup: 2.77, bbrDrain: 0.5, bbrDown: 0.9, bbrCruise: 1, bbrRefill: 1,
		bbrUp: 1.25, bbrProbeRTT: 1}
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
		got, want := float64(c.Rate), gains[b.state]*float64(b.bw())*0.99
		if b.fullReached && (got < 0.97*want || got > 1.02*want) {
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
			k.sampled(bw, Ack{Lost: test.lost / test.events,
				Rate: RateSample{PriorDelivered: early, Flight: 100_000, Lost: test.lost}})
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

// 5.3.3.6: after a probe that lost too much, the next ends when it has reached the bound; if all is
// well then, the one after that goes on.
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

// 5.3.3.5: "in each successive round trip, BBR.inflight_longterm grows (in units of C.SMSS) by 1,
// 2, 4, 8".
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
			t.Errorf("%+v: %d round trips to the next probe", test, rounds)
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

// 5.3.4: half of what fits into the path for 200 ms and a round trip; then the window comes back,
// and the cycle begins with CRUISE.
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

// 5.6.4.4: recovery itself leaves the window as it is; a time-out restarts from one segment. In the
// end it is what it was.
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

// 5.4.1: after a pause "BBR leaves C.cwnd as-is and paces packets at exactly BBR.bw", and the pause
// is as good as ProbeRTT.
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

func TestBBRSize(t *testing.T) {
	if n := unsafe.Sizeof(bbr{}); n > 288 {
		t.Errorf("bbr takes %d bytes", n)
	}
}
