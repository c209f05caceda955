//go:build linux

package lab

import (
	"os"
	"slices"
	"testing"
	"time"

	"bsdnet/netem"
)

// TestNoStalls transfers data over paths that reorder and lose nothing, with many seeds. No
// transfer stalls: none takes three times as long as the median.
func TestNoStalls(t *testing.T) {
	seeds := 20
	if os.Getenv("BSDNET_LONG") == "1" {
		seeds = 1000
	}
	reorder := Lossy(50e6, 20*ms, 0)
	reorder.Impairment.Reorder, reorder.Impairment.ReorderDelay = 0.25, 4*ms
	jitter := Lossy(50e6, 20*ms, 0)
	jitter.Scatter = 9 * ms
	both := jitter
	both.Impairment = netem.Impairment{Reorder: 0.1, ReorderDelay: 15 * ms, Duplicate: 0.05}
	for name, p := range map[string]Path{"reordering": reorder, "jitter": jitter, "both": both} {
		t.Run(name, func(t *testing.T) {
			var took []time.Duration
			for seed := range seeds {
				r, err := inBubble(t, Cell{Path: p, Seed: uint64(seed + 1), Bytes: 1 << 20, Limit: time.Minute})
				if err != nil || !r.Done {
					t.Fatalf("seed %d: %+v, %v", seed+1, r, err)
				}
				took = append(took, r.Elapsed)
			}
			sorted := slices.Sorted(slices.Values(took))
			median := sorted[len(sorted)/2]
			for seed, d := range took {
				if d > 3*median {
					t.Errorf("seed %d takes %v, the median of %d seeds %v", seed+1, d, seeds, median)
				}
			}
			t.Logf("%v to %v, median %v", sorted[0], sorted[len(sorted)-1], median)
		})
	}
}
