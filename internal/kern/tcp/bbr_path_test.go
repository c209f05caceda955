package tcp

import "testing"

// The losses of one round trip are not those of another, and a loss that has led to no recovery is
// not what Undo goes back to.
func TestBBRRoundsOfLoss(t *testing.T) {
	k := newCCKit(t, "bbr")
	b := k.cc.(*bbr)
	bw := int64(1_000_000)
	k.cc.Congested(&k.v, Loss, &k.c)
	for range 4 {
		early := k.v.Delivered
		for range 3 {
			k.v.Flight = 100_000
			r := RateSample{PriorDelivered: early, Flight: 100_000, Lost: 6000}
			k.sampled(bw, Ack{Lost: 2000, Rate: r})
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

// 5.5.10.2: "At what C.inflight value did losses cross BBR.LossThresh?" Of 100 segments the last is
// lost, and one before.
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

// 5.5.10.2: a probe that loses too much ends, and what it had in flight is the bound from then on;
// with some room for others (5.3.3.9).
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

	// Not less than 0.7 of what is aimed at, however little was in flight; and an application
	// that sends little has measured nothing.
	k, b = inUp(t)
	k.sampled(1_000_000, Ack{Lost: 5000, Rate: RateSample{PriorDelivered: 1, Flight: 10_000, Lost: 5000}})
	if b.inflightLong != 70_000 {
		t.Errorf("inflight_longterm = %d, want 70000", b.inflightLong)
	}
	k, b = inUp(t)
	k.v.Flight = 150_000
	r := RateSample{PriorDelivered: 1, Flight: 10_000, Lost: 5000, AppLimited: true}
	k.sampled(1_000_000, Ack{Lost: 5000, Rate: r})
	if b.state != bbrDown || b.inflightLong != infinite {
		t.Errorf("limited by the application: state %d, inflight_longterm = %d", b.state, b.inflightLong)
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
		// Every second begins a round trip.
		k.sampled(1_000_000, Ack{Rate: RateSample{PriorDelivered: uint64((i + 1) % 2)}})
		if got := b.cwndLimited(); got != limited {
			t.Errorf("acknowledgment %d: limited %v, want %v", i, got, limited)
		}
	}
}

// 5.5.10.3: between probes, a round trip with too many losses brings the bounds down to what is
// delivered, to 0.7 of what they were at most; and the next probe forgets it.
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
		t.Errorf("after a mark in UP: state %d, inflight_longterm %d", b.state, b.inflightLong)
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
		t.Errorf("after undo: state %d, inflight_longterm %d, bandwidth %d, inflight_shortterm %d",
			b.state, b.inflightLong, b.bw(), b.inflightShort)
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
		r := RateSample{PriorDelivered: early, Flight: 100_000, Lost: 6000}
		k.sampled(1_000_000, Ack{Lost: 1000, Rate: r})
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
