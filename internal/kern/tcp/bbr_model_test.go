package tcp

import (
	"math"
	"math/big"
	"testing"
)

func TestBytesIn(t *testing.T) {
	for _, rate := range []int64{0, 1, 999, 12_500_000, 1_250_000_000, bbrMaxRate - 1, bbrMaxRate} {
		for _, ns := range []int64{0, 1, ms, 20 * ms, 333_333_333, 300 * sec, bbrMaxTime} {
			want := new(big.Int).Mul(big.NewInt(rate), big.NewInt(ns))
			want.Div(want, big.NewInt(sec))
			if got := bytesIn(rate, ns); got != want.Int64() {
				t.Errorf("bytesIn(%d, %d) = %d, want %d", rate, ns, got, want)
			}
		}
	}
	// What no path does is cut off, and no number is too large.
	if got, want := bytesIn(math.MaxInt64, math.MaxInt64), bytesIn(bbrMaxRate, bbrMaxTime); got != want {
		t.Errorf("bytesIn of the largest numbers = %d, want %d", got, want)
	}
	if got := bytesIn(-1, -1); got != 0 {
		t.Errorf("bytesIn of negative numbers = %d", got)
	}
}

func TestSampleBandwidth(t *testing.T) {
	for _, test := range []struct {
		delivered int
		interval  int64
		want      int64
	}{
		{0, sec, 0}, {1000, 0, 0}, {-1, sec, 0}, {1000, -1, 0},
		{1000, sec, 1000},
		{250_000, 20 * ms, 12_500_000},
		{math.MaxInt, 1, bbrMaxRate},
		{1 << 30, 1, bbrMaxRate},
	} {
		r := RateSample{Delivered: test.delivered, Interval: test.interval}
		if got := r.bandwidth(); got != test.want {
			t.Errorf("%+v: %d bytes a second", test, got)
		}
	}
}

// draft-ietf-ccwg-bbr, 5.6.3: a millisecond's worth, 64 KB at most and two segments at least.
func TestQuantum(t *testing.T) {
	for _, test := range []struct {
		rate int64
		want int
	}{{0, 2000}, {1_000_000, 2000}, {12_500_000, 12_500}, {1_250_000_000, 65536}} {
		if got := quantum(test.rate, 1000); got != test.want {
			t.Errorf("quantum(%d) = %d, want %d", test.rate, got, test.want)
		}
	}
}

// It rests on the initial window and the round trip, or a millisecond if there is none, and not on
// zero.
func TestInitialRate(t *testing.T) {
	v := View{InitialWindow: 10000, SRTT: 100 * ms}
	if got := initialRate(&v, 2*bbrUnit); got != 200_000 {
		t.Errorf("initial rate = %d, want 200000", got)
	}
	v.SRTT = 0
	if got := initialRate(&v, bbrUnit); got != 10_000_000 {
		t.Errorf("initial rate without a round trip = %d, want 10000000", got)
	}
}

// All that can be drawn is drawn, about as often, and the same number draws the same.
func TestScatter(t *testing.T) {
	var n [8]int
	for x := range uint64(8000) {
		y := scatter(x*1448, 8)
		if y != scatter(x*1448, 8) {
			t.Fatal("it draws differently a second time")
		}
		n[y]++
	}
	for i, n := range n {
		if n < 800 || n > 1200 {
			t.Errorf("%d has been drawn %d times of 8000", i, n)
		}
	}
}

func TestMaxFilter(t *testing.T) {
	var f maxFilter
	for _, step := range []struct {
		round       uint32
		value, want int64
	}{
		{1, 50, 50},
		{2, 40, 50},
		{4, 45, 50},
		{6, 30, 50},
		{11, 20, 50}, // ten rounds later it counts still
		{12, 20, 45}, // and then the best of those after it
		{14, 20, 45},
		{15, 10, 20}, // of round 6 it knows nothing any more: it divides the window into three parts only
		{17, 10, 20},
		{18, 60, 60},
		{40, 5, 5}, // a gap longer than the window
	} {
		f.update(step.round, 10, step.value)
		if got := f.max(); got != step.want {
			t.Errorf("round %d, after %d: max = %d, want %d", step.round, step.value, got, step.want)
		}
	}
}

// What arrives beyond the bandwidth is remembered for two slots, up to a window; what is below
// begins a new interval.
func TestAggregation(t *testing.T) {
	var g aggregation
	g.restart(0)
	want := func(want int) {
		t.Helper()
		if got := g.extra(); got != want {
			t.Errorf("extra = %d, want %d", got, want)
		}
	}
	const bw = 1_000_000                        // 1000 bytes a millisecond
	g.update(10*ms, 10000, bw, 50000, true, 2)  // a batch after 10 ms of silence
	want(10000)                                 // nothing is known of the silence
	g.update(20*ms, 10000, bw, 50000, false, 2) // another
	want(10000)                                 // as expected
	g.update(20*ms, 5000, bw, 50000, false, 2)  // beyond it
	want(15000)
	g.update(100*ms, 1000, bw, 50000, false, 2) // the end of it: less than expected
	want(15000)
	g.update(100*ms, 90000, bw, 50000, false, 2)
	want(50000) // a window at most
	g.update(500*ms, 1000, bw, 50000, true, 2)
	want(50000) // the first slot is over; it is remembered
	g.update(600*ms, 1000, bw, 50000, true, 2)
	g.update(700*ms, 1000, bw, 50000, true, 2)
	want(1000) // and forgotten
	g.update(750*ms, 9000, bw, 50000, false, 2)
	g.restart(760 * ms) // the silence is the sender's
	g.update(761*ms, 2000, bw, 50000, false, 2)
	want(9000)
}
