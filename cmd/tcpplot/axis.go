package main

import (
	"math"
	"strconv"
	"strings"
)

// A scale maps values to pixels.
type scale struct {
	lo, hi float64 // values
	a, b   float64 // the pixels of lo and hi
}

func (s scale) at(v float64) float64 { return s.a + (v-s.lo)/(s.hi-s.lo)*(s.b-s.a) }

// ticks returns round values between the ends, about n of them, and their distance.
func (s scale) ticks(n int) (values []float64, step float64) {
	step = math.Pow(10, math.Floor(math.Log10((s.hi-s.lo)/float64(n))))
	for _, f := range []float64{1, 2, 5, 10} {
		if (s.hi-s.lo)/(f*step) <= float64(n)+1e-9 {
			step *= f
			break
		}
	}
	for i := math.Ceil(s.lo/step - 1e-9); i*step <= s.hi+1e-9*step; i++ {
		values = append(values, i*step+0) // not -0
	}
	return values, step
}

// siUnit formats a value that is not negative with an SI prefix: 1448 B is "1.45 kB".
func siUnit(v float64, unit string) string {
	prefix := ""
	for _, p := range []string{"k", "M", "G", "T"} {
		if v < 999.5 {
			break
		}
		v /= 1000
		prefix = p
	}
	return strings.TrimSpace(significant(v) + " " + prefix + unit)
}

// seconds formats a time.
func seconds(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v < 0.9995e-3:
		return significant(v*1e6) + " µs"
	case v < 0.9995:
		return significant(v*1e3) + " ms"
	}
	return significant(v) + " s"
}

// significant formats a value with at least three digits.
func significant(v float64) string {
	digits := 2
	for d := 10.0; digits > 0 && v >= d; d *= 10 {
		digits--
	}
	s := strconv.FormatFloat(v, 'f', digits, 64)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}

// instants returns a function that formats the ticks of an axis of time, which are step seconds
// apart. All of them have the unit that fits the end of the axis.
func instants(hi, step float64) func(t float64) string {
	factor, unit := 1.0, " s"
	switch {
	case hi < 1e-3:
		factor, unit = 1e6, " µs"
	case hi < 1:
		factor, unit = 1e3, " ms"
	}
	digits := max(0, int(math.Ceil(-math.Log10(step*factor)-1e-9)))
	return func(t float64) string { return strconv.FormatFloat(t*factor, 'f', digits, 64) + unit }
}
