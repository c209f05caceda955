package wire

import "testing"

// Comparisons around the wrap, against their definition: a is before b if fewer than 2^31 steps
// forward lead from a to b. At a distance of exactly 2^31 either is before the other, as in BSD's
// macros.
func TestSeq(t *testing.T) {
	vals := []Seq{0, 1, 2, 1<<31 - 1, 1 << 31, 1<<31 + 1, 1<<32 - 100, 1<<32 - 1}
	for _, a := range vals {
		for _, b := range vals {
			d := int64(uint32(b) - uint32(a)) // steps forward from a to b
			before, after := d != 0 && d <= 1<<31, d > 1<<31
			if a.Lt(b) != before || a.Leq(b) != (before || d == 0) {
				t.Errorf("%d before %d: Lt %v, Leq %v", a, b, a.Lt(b), a.Leq(b))
			}
			if a.Gt(b) != after || a.Geq(b) != (after || d == 0) {
				t.Errorf("%d after %d: Gt %v, Geq %v", a, b, a.Gt(b), a.Geq(b))
			}
			sub := -d
			if after {
				sub = 1<<32 - d
			}
			if int64(a.Sub(b)) != sub {
				t.Errorf("%d - %d = %d, want %d", a, b, a.Sub(b), sub)
			}
			if d == 1<<31 {
				continue // neither is the later one
			}
			later, earlier := a, b
			if before {
				later, earlier = b, a
			}
			if a.Max(b) != later || a.Min(b) != earlier {
				t.Errorf("%d, %d: Max %d, Min %d", a, b, a.Max(b), a.Min(b))
			}
			if b.Add(a.Sub(b)) != a {
				t.Errorf("%d + (%d - %d) = %d", b, a, b, b.Add(a.Sub(b)))
			}
		}
		if a.Add(1).Sub(a) != 1 || a.Add(-1).Sub(a) != -1 || a.Add(0) != a || a.Add(1<<30).Add(-1<<30) != a {
			t.Errorf("Add at %d", a)
		}
	}
	if Seq(1<<32-100).Add(150) != 50 || Seq(50).Add(-150) != 1<<32-100 {
		t.Error("Add over the wrap")
	}
}
