package main

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		v    []float64
		want float64
	}{{[]float64{3}, 3}, {[]float64{3, 1}, 2}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 3, 2}, 2.5}} {
		v := slices.Clone(c.v)
		if got := median(v); got != c.want || !slices.Equal(v, c.v) {
			t.Errorf("median(%v) = %v, want %v; then %v", c.v, got, c.want, v)
		}
	}
	if !math.IsNaN(median(nil)) {
		t.Error("the median of no values is a number")
	}
}

func TestRatio(t *testing.T) {
	if got := ratio(30, 10, false); got != 3 {
		t.Errorf("30 against 10, more is better: %v", got)
	}
	if got := ratio(30, 10, true); math.Abs(got-1.0/3) > 1e-12 {
		t.Errorf("30 against 10, less is better: %v", got)
	}
	for _, v := range [][2]float64{{math.NaN(), 1}, {1, math.NaN()}, {1, 0}, {0, 1}} {
		if got := ratio(v[0], v[1], false); !math.IsNaN(got) {
			t.Errorf("%v against %v: %v", v[0], v[1], got)
		}
	}
}

// A histogram's quantiles are within one percent of those of the values themselves.
func TestHistogram(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var h, other histogram
	var v []float64
	for i := range 100000 {
		x := int64(math.Exp(r.Float64()*25)) - 1
		if i%2 == 0 {
			h.add(x)
		} else {
			other.add(x)
		}
		v = append(v, float64(x))
	}
	h.merge(&other)
	slices.Sort(v)
	for _, q := range []float64{0.001, 0.1, 0.5, 0.9, 0.99, 0.9999, 1} {
		want := v[max(int(math.Ceil(q*float64(len(v)))), 1)-1]
		if got := h.quantile(q); math.Abs(got-want) > want*0.01+0.5 {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	var none histogram
	if !math.IsNaN(none.quantile(0.5)) {
		t.Error("an empty histogram has a median")
	}
	none.add(1 << 60) // beyond the last class
	none.add(-1)
	if got := none.quantile(1); got != 1<<60 {
		t.Errorf("the most is %v", got)
	}
}

// The middle of every class is in the class.
func TestClasses(t *testing.T) {
	var h histogram
	for c := range h.counts {
		if got := class(int64(middle(c))); got != c {
			t.Fatalf("the middle of class %d is in %d", c, got)
		}
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.0001: "0", 0.25: "0.25", 1.234: "1.23",
		12.34: "12.3", 12345: "12345", -3.2: "-3.2"} {
		if got := number(v); got != want {
			t.Errorf("number(%v) is %s, want %s", v, got, want)
		}
	}
	if number(math.NaN()) != "-" || times(math.NaN()) != "-" || percent(math.NaN()) != "-" {
		t.Error("an unknown value is shown as a number")
	}
}
