package tcp

import "testing"

// rounds acknowledges, in each round, what was in flight when the last had ended, with its round
// trip. It returns the growth of the window in percent of that.
func (k *ccKit) rounds(rtts ...int64) (growth []int) {
	for _, rtt := range rtts {
		una, end, w := k.v.Acked, k.nxt, k.c.Cwnd
		for k.v.Acked < end {
			k.ackRTT(min(1000, int(end-k.v.Acked)), rtt)
		}
		growth = append(growth, (k.c.Cwnd-w)*100/int(end-una))
	}
	return growth
}

func (k *ccKit) wantGrowth(got []int, want ...int) {
	k.Helper()
	for i := range want {
		if d := got[i] - want[i]; d < -3 || d > 3 {
			k.Fatalf("windows grew by %d %%, want %d", got, want)
		}
	}
}

// RFC 9406, 4.2: slow start doubles the window until the round trip grows, then there are five
// rounds of Conservative Slow Start (of which the one in which it began is the first), and then
// congestion avoidance.
func TestHystart(t *testing.T) {
	k := newCCKit(t, "cubic")
	k.wantGrowth(k.rounds(100*ms, 100*ms, 100*ms), 100, 100, 100)
	k.wantSsthresh(infinite)
	// The eighth sample of the round of 80 begins CSS: that round grows by 8 + 72/4 segments.
	g := k.rounds(113*ms, 113*ms, 113*ms, 113*ms)
	k.wantGrowth(g, 32, 25, 25, 25)
	k.wantSsthresh(infinite)
	k.rounds(113 * ms)
	if k.c.Ssthresh == infinite {
		t.Fatal("five rounds of conservative slow start have not ended it")
	}
	k.wantGrowth(k.rounds(113*ms), 0)
}

// "RttThresh = max(MIN_RTT_THRESH, min(lastRoundMinRTT / MIN_RTT_DIVISOR, MAX_RTT_THRESH))"
func TestHystartThreshold(t *testing.T) {
	for _, test := range []struct {
		rtt, grown int64
		css        bool
	}{
		{8 * ms, 12*ms - 1, false}, // at least 4 ms
		{8 * ms, 12 * ms, true},
		{80 * ms, 90*ms - 1, false}, // an eighth
		{80 * ms, 90 * ms, true},
		{400 * ms, 416*ms - 1, false}, // at most 16 ms
		{400 * ms, 416 * ms, true},
	} {
		k := newCCKit(t, "cubic")
		k.rounds(test.rtt, test.rtt)
		want := 100
		if test.css {
			want = 40 // 8 of 40 segments before, a quarter of 32 after
		}
		k.wantGrowth(k.rounds(test.grown), want)
	}
}

// "For rounds where at least N_RTT_SAMPLE RTT samples have been obtained": seven are not enough.
func TestHystartSamples(t *testing.T) {
	k := newCCKit(t, "cubic")
	k.rounds(100*ms, 100*ms)
	w := k.c.Cwnd
	for range 7 {
		k.ackRTT(1000, 200*ms)
	}
	k.ackRTT(w-7000, 0)
	k.wantCwnd(2 * w)
	k.wantGrowth(k.rounds(100*ms), 100)
}

// "indicating that slow start exit was spurious": slow start goes on, and finds its end later.
func TestHystartSpurious(t *testing.T) {
	k := newCCKit(t, "cubic")
	k.rounds(100*ms, 100*ms)
	k.wantGrowth(k.rounds(120*ms, 120*ms), 40, 25)
	// The eighth sample ends CSS: 7 of 70 grow by a quarter.
	k.wantGrowth(k.rounds(110*ms, 110*ms, 110*ms), 92, 100, 100)
	k.wantSsthresh(infinite)
	k.rounds(140*ms, 140*ms, 140*ms, 140*ms)
	k.wantSsthresh(infinite) // the rounds have been counted from the second beginning
	k.rounds(140 * ms)
	if k.c.Ssthresh == infinite {
		t.Fatal("slow start does not end any more")
	}
}

// RFC 9406, 4.3: once there is a threshold, slow start is RFC 5681's.
func TestHystartOnlyFirst(t *testing.T) {
	k := newCCKit(t, "cubic")
	k.c.Ssthresh = 1000000
	k.wantGrowth(k.rounds(100*ms, 100*ms, 200*ms, 300*ms, 400*ms), 100, 100, 100, 100, 100)
}

// A window that is not used does not grow in slow start either.
func TestHystartUnusedWindow(t *testing.T) {
	k := newCCKit(t, "cubic")
	k.v.CwndLimited = false
	for range 100 {
		k.ack(1000)
	}
	k.wantCwnd(10000)
}

// A queue that fills in the midst of a round is seen in the midst of it: eight samples in a row are
// enough, and the least of the round, which is that of its beginning, does not count against them.
func TestHystartMidRound(t *testing.T) {
	k := newCCKit(t, "cubic")
	k.rounds(20*ms, 20*ms)
	w := k.c.Cwnd
	for range 8 {
		k.ackRTT(1000, 20*ms)
	}
	for range 8 {
		k.ackRTT(1000, 24*ms)
	}
	k.ackRTT(w-16000, 24*ms)
	// 15 segments count in full: the last of the eight ends slow start, and is the first that
	// counts a quarter.
	k.wantCwnd(w + 16000 + (w-16000)/4)
}

// A round trip that grows by another threshold while the window grows by a quarter is that of a
// queue: Conservative Slow Start ends at once. One that stays lasts for five rounds.
func TestHystartQueueGrows(t *testing.T) {
	k := newCCKit(t, "cubic")
	k.rounds(20*ms, 20*ms, 24*ms)
	k.wantSsthresh(infinite)
	k.rounds(27 * ms)
	k.wantSsthresh(infinite)
	k.rounds(28 * ms)
	if k.c.Ssthresh == infinite {
		t.Fatal("slow start goes on while the queue grows")
	}
}
