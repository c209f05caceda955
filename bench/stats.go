package main

import (
	"math"
	"math/bits"
	"slices"
)

// median returns the middle of v, or the mean of the two in the middle. If v is empty, it is NaN.
func median(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(v))
	n := len(s)
	if n%2 == 1 {
		return s[n/2]
	}
	return (s[n/2-1] + s[n/2]) / 2
}

// ratio returns how many times as good a is as b. Above 1, a is better. It is NaN if one of them is
// missing.
func ratio(a, b float64, lessIsBetter bool) float64 {
	if lessIsBetter {
		a, b = b, a
	}
	if !(a > 0) || !(b > 0) {
		return math.NaN()
	}
	return a / b
}

// subBits is the resolution of a histogram: 2^subBits classes for each doubling.
const subBits = 7

// A histogram counts durations in nanoseconds, in classes less than one percent wide. It allocates
// nothing.
type histogram struct {
	n      uint64
	max    int64
	counts [(48 - subBits + 1) << subBits]uint32 // up to 2^48 ns, three days
}

// class returns the class of v.
func class(v int64) int {
	if v < 1<<subBits {
		return int(max(v, 0))
	}
	shift := min(bits.Len64(uint64(v)), 48) - 1 - subBits
	return shift<<subBits + int(min(v>>shift, 2<<subBits-1))
}

// middle returns the value in the middle of a class.
func middle(class int) float64 {
	if class < 2<<subBits {
		return float64(class)
	}
	shift := class>>subBits - 1
	low := int64(class-shift<<subBits) << shift
	return float64(low) + float64(int64(1)<<shift)/2
}

// add counts v.
func (h *histogram) add(v int64) {
	h.counts[class(v)]++
	h.n++
	h.max = max(h.max, v)
}

// merge adds the counts of o.
func (h *histogram) merge(o *histogram) {
	for i, c := range o.counts {
		h.counts[i] += c
	}
	h.n += o.n
	h.max = max(h.max, o.max)
}

// quantile returns the value, in nanoseconds, below which q of all are, 0 to 1; NaN if there are
// none.
func (h *histogram) quantile(q float64) float64 {
	if h.n == 0 {
		return math.NaN()
	}
	want := uint64(math.Ceil(q * float64(h.n)))
	if want >= h.n {
		return float64(h.max)
	}
	var seen uint64
	for i, c := range h.counts {
		if seen += uint64(c); seen >= max(want, 1) {
			return min(middle(i), float64(h.max))
		}
	}
	return float64(h.max)
}

// percentiles are the percentiles of a latency that a sample has.
var percentiles = []float64{50, 75, 90, 95, 99, 99.9, 99.99}

// micros returns the percentiles in microseconds.
func (h *histogram) micros() []float64 {
	var v []float64
	for _, p := range percentiles {
		v = append(v, h.quantile(p/100)/1e3)
	}
	return v
}
