package tcp

import (
	"testing"
	"unsafe"
)

// sampled acknowledges a segment with a sample of a bandwidth, in bytes a second, that begins a
// round trip.
func (k *ccKit) sampled(bw int64, a Ack) {
	k.v.Now += 10 * ms
	k.v.PriorFlight = k.v.Flight
	if a.Delivered == 0 {
		a.Acked, a.Delivered = 1000, 1000
	}
	if a.RTT == 0 {
		a.RTT = 100 * ms
	}
	k.v.Acked += uint64(a.Acked)
	k.v.Delivered += uint64(a.Delivered)
	k.v.Lost += uint64(a.Lost)
	k.v.Flight = max(k.v.Flight-a.Delivered-a.Lost, 0)
	a.Rate.Delivered, a.Rate.Interval = int(bw/10), 100*ms
	if a.Rate.PriorDelivered == 0 {
		a.Rate.PriorDelivered = k.v.Delivered
	}
	k.cc.Acked(&k.v, &a, &k.c)
}

// bbr1Kit returns a kit whose controller is in ProbeBW on a path of 1 MB/s and 100 ms, and has
// 100,000 bytes in flight.
func bbr1Kit(t *testing.T) (*ccKit, *bbr1) {
	k := newCCKit(t, "bbr1")
	b := k.cc.(*bbr1)
	for b.mode == bbr1Startup {
		k.sampled(1_000_000, Ack{})
	}
	k.v.Flight = 0
	k.sampled(1_000_000, Ack{})
	if b.mode != bbr1ProbeBW {
		t.Fatalf("mode %d after Startup", b.mode)
	}
	for k.c.Cwnd < 200_000 {
		k.v.Flight = 100_000
		k.sampled(1_000_000, Ack{Acked: 10000, Delivered: 10000})
	}
	k.v.Flight = 100_000
	return k, b
}

// The states follow each other: the rate doubles each round trip until the path is full, the queue
// is drained, and the round trip is measured anew after ten seconds at four segments in flight, for
// 200 ms and a round trip.
func TestBBR1States(t *testing.T) {
	w := &watch{CC: NewCC("bbr1")}
	b := w.CC.(*bbr1)
	s := newSimSender(newSimPath(20*ms, 4, 0), w, 0)
	var modes []bbr1Mode
	var since [4]int64
	low := infinite
	w.acked = func(v *View, a *Ack, c *Control) {
		if len(modes) == 0 || modes[len(modes)-1] != b.mode {
			modes = append(modes, b.mode)
			since[b.mode] = v.Now
			switch b.mode {
			case bbr1Drain: // from 10 segments a round trip to 172
				if b.rounds < 5 || b.rounds > 12 {
					t.Errorf("Startup took %d round trips", b.rounds)
				}
				if bw := b.bw.max(); bw < simRate*98/100 || bw > simRate*102/100 {
					t.Errorf("after Startup the bandwidth is %d, want %d", bw, simRate)
				}
			case bbr1ProbeBW:
				if v.Flight > 200*simMSS {
					t.Errorf("%d bytes in flight after Drain", v.Flight)
				}
				if len(modes) > 4 {
					if d := v.Now - since[bbr1ProbeRTT]; d < 200*ms || d > 300*ms {
						t.Errorf("ProbeRTT took %d ms", d/ms)
					}
					if low != 4*simMSS {
						t.Errorf("%d bytes in flight in ProbeRTT, want %d", low, 4*simMSS)
					}
				}
			case bbr1ProbeRTT:
				if v.Now < 10*sec || v.Now > 11*sec {
					t.Errorf("ProbeRTT began after %d ms", v.Now/ms)
				}
			}
		}
		if b.mode == bbr1ProbeRTT && b.probeDone > 0 {
			low = min(low, v.PriorFlight)
		}
	}
	simRun(12*sec, s)
	want := []bbr1Mode{bbr1Startup, bbr1Drain, bbr1ProbeBW, bbr1ProbeRTT, bbr1ProbeBW}
	if len(modes) != len(want) {
		t.Fatalf("modes %v, want %v", modes, want)
	}
	for i := range want {
		if modes[i] != want[i] {
			t.Fatalf("modes %v, want %v", modes, want)
		}
	}
	if b.minRTT < 20*ms || b.minRTT > 21*ms {
		t.Errorf("round trip %d us, want 20 ms", b.minRTT/1000)
	}
}

// ProbeBW goes through its phases in order, each for a round trip, and the pacing rate follows.
func TestBBR1Cycle(t *testing.T) {
	w := &watch{CC: NewCC("bbr1")}
	b := w.CC.(*bbr1)
	s := newSimSender(newSimPath(20*ms, 4, 0), w, 0)
	last, since, phases := -1, int64(0), 0
	w.acked = func(v *View, a *Ack, c *Control) {
		if b.mode != bbr1ProbeBW {
			return
		}
		if want := paced(b.bandwidth(), bbr1Cycle[b.cycle]); c.Rate != want {
			t.Fatalf("phase %d: pacing rate %d, want %d", b.cycle, c.Rate, want)
		}
		i := int(b.cycle)
		if last < 0 && i == 1 {
			t.Error("ProbeBW begins with the phase that drains")
		}
		if last >= 0 && i != last {
			phases++
			if i != (last+1)%8 {
				t.Errorf("phase %d follows phase %d", i, last)
			}
			if d := v.Now - since; phases > 1 && last != 1 && d <= b.minRTT || d > 3*b.minRTT {
				t.Errorf("phase %d took %d us", last, d/1000)
			}
		}
		if i != last {
			last, since = i, v.Now
		}
	}
	simRun(5*sec, s)
	if phases < 100 || phases > 250 {
		t.Errorf("%d phases in five seconds", phases)
	}
}

// A phase that probes goes on until there is so much in flight, or something is lost; the one that
// drains ends when the queue is gone.
func TestBBR1Phases(t *testing.T) {
	k, b := bbr1Kit(t)
	phase := func(i uint8) {
		b.cycle, b.cycleStamp = i, k.v.Now
		k.v.Now += 200 * ms // two round trips
	}
	b.cycle = 0
	full := b.inflight(&k.v, 1_000_000, bbrUnit*5/4)
	for _, test := range []struct {
		phase        uint8
		flight, lost int
		next         uint8
	}{
		{0, full - 1, 0, 0},
		{0, full, 0, 1},
		{0, full - 1, 1, 1},
		{1, 200_000, 0, 2},
		{2, 0, 0, 3},
	} {
		phase(test.phase)
		k.v.Flight = test.flight
		k.sampled(1_000_000, Ack{Lost: test.lost})
		k.want("phase", int(b.cycle), int(test.next))
	}
	phase(1)
	k.v.Now = b.cycleStamp
	k.v.Flight = 150_000
	k.sampled(1_000_000, Ack{})
	k.want("phase", int(b.cycle), 1)
	k.v.Flight = 100_000
	k.sampled(1_000_000, Ack{})
	k.want("phase", int(b.cycle), 2)
}

// A path that holds next to nothing is probed by two segments more.
func TestBBR1SmallPath(t *testing.T) {
	k, b := bbr1Kit(t)
	b.mode, b.cycle = bbr1ProbeBW, 0
	n := b.budgeted(&k.v, 1000, 0)
	b.cycle = 2
	k.want("more", n-b.budgeted(&k.v, 1000, 0), 2000)
}

// Until an initial window has been delivered, samples are too small to bound the window.
func TestBBR1InitialWindow(t *testing.T) {
	k := newCCKit(t, "bbr1")
	for range 9 {
		k.sampled(1, Ack{})
	}
	k.wantCwnd(19_000)
	for range 9 {
		k.sampled(1, Ack{})
	}
	k.wantCwnd(19_000)
}

// ProbeRTT lasts for a round trip at least, and its samples say nothing about the path.
func TestBBR1ProbeRTT(t *testing.T) {
	k, b := bbr1Kit(t)
	k.v.Now += 11 * sec
	k.v.Flight = 4000
	k.sampled(1_000_000, Ack{})
	k.v.Now += 300 * ms
	k.sampled(10_000, Ack{Rate: RateSample{PriorDelivered: 1}})
	if b.mode != bbr1ProbeRTT {
		t.Fatalf("mode %d before a round trip is over", b.mode)
	}
	b.probeDone = k.v.Now + sec
	for range 20 {
		k.v.Flight = 4000
		k.sampled(10_000, Ack{Rate: RateSample{PriorDelivered: k.v.Delivered}})
	}
	k.v.Now += sec
	k.sampled(10_000, Ack{Rate: RateSample{PriorDelivered: k.v.Delivered}})
	if b.mode != bbr1ProbeBW {
		t.Fatalf("mode %d, want ProbeBW", b.mode)
	}
	for range 3 { // of what was sent in ProbeRTT
		k.sampled(10_000, Ack{Rate: RateSample{PriorDelivered: b.appUntil}})
	}
	if got := b.bandwidth(); got != 1_000_000 {
		t.Errorf("bandwidth %d after ProbeRTT, want 1000000", got)
	}
}

// A time-out makes Startup look for a full path anew, and is a loss to the policer's finder; Undo
// takes back both.
func TestBBR1TimeoutAndUndoReset(t *testing.T) {
	k := newCCKit(t, "bbr1")
	b := k.cc.(*bbr1)
	for range 3 {
		k.sampled(1_000_000, Ack{})
	}
	if b.fullBw == 0 || b.fullCount == 0 {
		t.Fatalf("full_bw %d, count %d", b.fullBw, b.fullCount)
	}
	k.cc.Congested(&k.v, RTO, &k.c)
	if b.fullBw != 0 || !b.policer.sampling {
		t.Errorf("after a time-out full_bw %d, sampling %v", b.fullBw, b.policer.sampling)
	}
	b.fullBw, b.fullCount = 1, 2
	k.cc.Undo(&k.v, &k.c)
	if b.fullBw != 0 || b.fullCount != 0 || b.policer.sampling {
		t.Errorf("after undo full_bw %d, count %d, sampling %v", b.fullBw, b.fullCount, b.policer.sampling)
	}
}

// Flows begin with any of the phases, except the one that drains.
func TestBBR1FirstPhase(t *testing.T) {
	var n [8]int
	for x := range uint64(800) {
		var b bbr1
		b.enterProbeBW(&View{Delivered: x * 1448})
		n[b.cycle]++
	}
	for i, n := range n {
		if (n == 0) != (i == 1) {
			t.Errorf("phase %d was the first %d times of 800", i, n)
		}
	}
}

// The bandwidth is the greatest of ten round trips: it follows a path that has become slower, and
// at once one that has become faster.
func TestBBR1Bandwidth(t *testing.T) {
	k, b := bbr1Kit(t)
	for i := range 11 {
		k.sampled(500_000, Ack{})
		want := int64(1_000_000)
		if i == 10 {
			want = 500_000
		}
		if got := b.bandwidth(); got != want {
			t.Fatalf("after %d slower round trips the bandwidth is %d, want %d", i+1, got, want)
		}
	}
	k.sampled(2_000_000, Ack{})
	if got := b.bandwidth(); got != 2_000_000 {
		t.Errorf("the bandwidth is %d, want 2000000", got)
	}
}

// Samples of an application that has sent little do not count, unless they are more than what is
// known.
func TestBBR1AppLimited(t *testing.T) {
	k, b := bbr1Kit(t)
	for range 30 {
		k.sampled(10_000, Ack{Rate: RateSample{AppLimited: true}})
	}
	if got := b.bandwidth(); got != 1_000_000 {
		t.Errorf("the bandwidth is %d, want 1000000", got)
	}
	k.sampled(1_100_000, Ack{Rate: RateSample{AppLimited: true}})
	if got := b.bandwidth(); got != 1_100_000 {
		t.Errorf("the bandwidth is %d, want 1100000", got)
	}

	k = newCCKit(t, "bbr1") // nor do they end Startup
	b = k.cc.(*bbr1)
	rate := k.c.Rate
	for range 30 {
		k.sampled(10_000, Ack{Rate: RateSample{AppLimited: true}})
	}
	if b.full || k.c.Rate != rate {
		t.Errorf("full %v, rate %d, want false, %d", b.full, k.c.Rate, rate)
	}
}

// A window of twice what fits into the path, and three quanta more.
func TestBBR1Window(t *testing.T) {
	k, b := bbr1Kit(t)
	k.c.Cwnd = 1_000_000
	b.aggregation = aggregation{}
	for b.cycle != 3 {
		k.sampled(1_000_000, Ack{})
	}
	k.v.Delivered += 100 // no round trip begins, nothing is beyond the bandwidth
	k.v.Now += sec
	b.aggregation = aggregation{start: k.v.Now + 10*ms}
	k.sampled(1_000_000, Ack{Acked: 1, Delivered: 1})
	k.wantCwnd(200_000 + 3*2000 + 1)
	b.aggregation.most[0] = 500_000 // 100 ms of the bandwidth at most
	k.c.Cwnd = 1_000_000
	k.sampled(1_000_000, Ack{Acked: 1, Delivered: 1})
	k.wantCwnd(200_000 + 3*2000 + 100_000)
}

// In the first round trip of recovery as much is sent as is delivered; then the window grows again,
// and in the end it is what it was.
func TestBBR1Recovery(t *testing.T) {
	k, b := bbr1Kit(t)
	before := k.c.Cwnd
	k.cc.Congested(&k.v, Loss, &k.c)
	k.v.InRecovery = true
	k.v.Flight = 80_000
	end := k.v.Delivered
	k.sampled(1_000_000, Ack{Acked: 1000, Delivered: 1000, Lost: 2000, Rate: RateSample{PriorDelivered: end - 1}})
	k.wantCwnd(77_000 + 1000) // flight + delivered
	for range 10 {
		k.v.Flight = k.c.Cwnd
		k.sampled(1_000_000, Ack{Rate: RateSample{PriorDelivered: end - 1}})
		k.wantCwnd(78_000)
	}
	k.sampled(1_000_000, Ack{Acked: 5000, Delivered: 5000}) // the round trip is over
	k.wantCwnd(83_000)
	k.sampled(1_000_000, Ack{Acked: 5000, Delivered: 5000, Lost: 1000})
	k.wantCwnd(87_000)
	k.cc.Recovered(&k.v, &k.c)
	k.v.InRecovery = false
	k.sampled(1_000_000, Ack{})
	if k.c.Cwnd < before {
		t.Errorf("after recovery cwnd = %d, want %d", k.c.Cwnd, before)
	}
	k.wantSsthresh(infinite)

	// A recovery that follows at once is none of its own: a path that loses packets at random
	// would never be out of packet conservation.
	k.cc.Congested(&k.v, Loss, &k.c)
	k.sampled(1_000_000, Ack{Lost: 1000})
	k.sampled(1_000_000, Ack{})
	k.cc.Recovered(&k.v, &k.c)
	k.cc.Congested(&k.v, Loss, &k.c)
	k.c.Cwnd = 120_000
	k.v.Flight = 50_000
	k.sampled(1_000_000, Ack{Acked: 1000, Delivered: 1000, Lost: 1000})
	k.wantCwnd(120_000)
	if b.conservation {
		t.Error("packet conservation")
	}
}

// A time-out restarts from one segment; the window that there was comes back with the end of
// recovery.
func TestBBR1Timeout(t *testing.T) {
	k, _ := bbr1Kit(t)
	before := k.c.Cwnd
	k.cc.Congested(&k.v, RTO, &k.c)
	k.wantCwnd(1000)
	k.v.Flight = 0
	k.sampled(1_000_000, Ack{})
	k.wantCwnd(4000)
	k.cc.Congested(&k.v, RTO, &k.c) // a second one does not make it forget
	k.sampled(1_000_000, Ack{Acked: 2000, Delivered: 2000})
	k.cc.Recovered(&k.v, &k.c)
	k.sampled(1_000_000, Ack{})
	if k.c.Cwnd < before {
		t.Errorf("after recovery cwnd = %d, want %d", k.c.Cwnd, before)
	}
}

// Undo ends recovery.
func TestBBR1Undo(t *testing.T) {
	k, b := bbr1Kit(t)
	before := k.c.Cwnd
	k.cc.Congested(&k.v, Loss, &k.c)
	k.sampled(1_000_000, Ack{Lost: 1000})
	k.cc.Undo(&k.v, &k.c)
	k.sampled(1_000_000, Ack{})
	if k.c.Cwnd < before || b.policer.sampling {
		t.Errorf("after undo cwnd = %d, want %d; sampling %v", k.c.Cwnd, before, b.policer.sampling)
	}
}

// Marks are for others.
func TestBBR1ECN(t *testing.T) {
	k, b := bbr1Kit(t)
	was, c := *b, k.c
	k.cc.Congested(&k.v, ECN, &k.c)
	if *b != was || k.c != c {
		t.Error("it has taken notice of a mark")
	}
}

// After a pause it paces at the bandwidth, whatever the phase was, and the pause is as good as
// ProbeRTT.
func TestBBR1Restart(t *testing.T) {
	k, b := bbr1Kit(t)
	for b.cycle != 0 {
		k.sampled(1_000_000, Ack{})
	}
	if k.c.Rate != paced(1_000_000, bbrUnit*5/4) {
		t.Fatalf("rate %d when probing", k.c.Rate)
	}
	k.v.Now += 20 * sec
	k.v.Flight = 0
	cwnd := k.c.Cwnd
	k.cc.Restart(&k.v, 20*sec, &k.c)
	if k.c.Rate != 990_000 {
		t.Errorf("rate %d after a pause, want 990000", k.c.Rate)
	}
	k.wantCwnd(cwnd)
	k.sampled(1_000_000, Ack{RTT: 110 * ms})
	if b.mode != bbr1ProbeBW || b.minRTT != 110*ms {
		t.Errorf("mode %d, round trip %d ms", b.mode, b.minRTT/ms)
	}
}

// A connection whose ProbeRTT has been long enough when it goes on leaves it at once.
func TestBBR1RestartInProbeRTT(t *testing.T) {
	k, b := bbr1Kit(t)
	cwnd := k.c.Cwnd
	k.v.Now += 11 * sec
	k.sampled(1_000_000, Ack{RTT: 110 * ms})
	if b.mode != bbr1ProbeRTT {
		t.Fatalf("mode %d", b.mode)
	}
	k.wantCwnd(4000)
	k.v.Flight = 0
	k.sampled(1_000_000, Ack{RTT: 110 * ms})
	k.v.Now += sec
	k.cc.Restart(&k.v, sec, &k.c)
	if b.mode != bbr1ProbeBW {
		t.Errorf("mode %d after a pause", b.mode)
	}
	if k.c.Cwnd < cwnd {
		t.Errorf("cwnd = %d, want %d", k.c.Cwnd, cwnd)
	}
}

// The round trip of ten seconds ago is forgotten.
func TestBBR1MinRTT(t *testing.T) {
	w := &watch{CC: NewCC("bbr1"), acked: func(*View, *Ack, *Control) {}}
	b := w.CC.(*bbr1)
	p := newSimPath(20*ms, 4, 0)
	s := newSimSender(p, w, 0)
	simRun(5*sec, s)
	p.rtt = 50 * ms
	simRun(9*sec, s)
	if b.minRTT > 21*ms {
		t.Errorf("round trip %d us after 4 s, want 20 ms", b.minRTT/1000)
	}
	simRun(20*sec, s)
	if b.minRTT < 50*ms || b.minRTT > 52*ms {
		t.Errorf("round trip %d us after 15 s, want 50 ms", b.minRTT/1000)
	}
}

// Behind a policer it finds the rate that gets through and stays with it, so that little is lost;
// and it looks again later.
func TestBBR1Policer(t *testing.T) {
	w := &watch{CC: NewCC("bbr1")}
	b := w.CC.(*bbr1)
	p := newSimPath(20*ms, 4, 0)
	p.policed, p.burst, p.tokens = simRate/10, 100_000, 100_000
	s := newSimSender(p, w, 0)
	var found, again bool
	var lost, delivered uint64
	w.acked = func(v *View, a *Ack, c *Control) {
		if b.policer.found {
			if b.mode == bbr1ProbeBW && c.Rate != paced(b.policer.bw, bbrUnit) {
				t.Fatalf("rate %d while the policer's is known, which is %d", c.Rate, b.policer.bw)
			}
			if !found {
				found = true
				if bw := b.policer.bw; bw < simRate/10*8/10 || bw > simRate/10*12/10 {
					t.Errorf("the policer's rate is %d, want %d", bw, simRate/10)
				}
				if v.Now > 3*sec {
					t.Errorf("it was found after %d ms", v.Now/ms)
				}
			}
			lost += uint64(a.Lost)
			delivered += uint64(a.Delivered)
		}
		again = again || found && !b.policer.found
	}
	simRun(10*sec, s)
	if !found || !again {
		t.Fatalf("found %v, looked again %v", found, again)
	}
	if lost*10 > delivered {
		t.Errorf("%d bytes lost while the rate was known, %d delivered", lost, delivered)
	}
	if got := s.goodput(10*sec, 20*sec); got < 0.08 {
		t.Errorf("%.3f of the link, want 0.1", got)
	}
}

// An interval in which the application had nothing to send, or that went on for long, does not
// count.
func TestPolicerInterval(t *testing.T) {
	v := View{Now: sec}
	var p policer
	round := func(lost, appLimited bool) {
		v.Now += 20 * ms
		v.Delivered += 10_000
		if lost {
			v.Lost += 10_000
		}
		p.sample(&v, lost, appLimited, true, true)
	}
	rounds := func(n int) {
		for range n {
			round(false, false)
		}
	}
	round(false, false)
	if p.sampling {
		t.Fatal("an interval has begun without a loss")
	}
	round(true, false)
	rounds(2)
	round(false, true)
	if p.sampling {
		t.Error("an interval limited by the application counts")
	}
	round(true, false)
	rounds(16)
	if p.sampling {
		t.Error("an interval of 17 round trips counts")
	}
	for i := range 8 { // losses in every round trip: two intervals of four
		round(true, false)
		if p.found != (i >= 7) {
			t.Fatalf("found %v after %d round trips", p.found, i)
		}
	}
	if want := int64(500_000); p.bw != want {
		t.Errorf("rate %d, want %d", p.bw, want)
	}
}

// Random losses are not a policer.
func TestBBR1NoPolicer(t *testing.T) {
	w := &watch{CC: NewCC("bbr1")}
	b := w.CC.(*bbr1)
	w.acked = func(v *View, a *Ack, c *Control) {
		if b.policer.found {
			t.Fatal("a policer was found")
		}
	}
	simRun(5*sec, newSimSender(newSimPath(20*ms, 1, 0.1), w, 0))
}

func TestBBR1Size(t *testing.T) {
	if n := unsafe.Sizeof(bbr1{}); n > 224 {
		t.Errorf("bbr1 takes %d bytes", n)
	}
}
