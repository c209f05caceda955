//go:build linux

package interop

import (
	"slices"
	"testing"
	"time"

	"bsdnet"
	"bsdnet/netem"
	"bsdnet/tun"
)

// impairments are bad lines, each in both directions.
var impairments = []struct {
	name string
	way  netem.Impairment
}{
	{"delay", netem.Impairment{Delay: 10 * time.Millisecond, Jitter: 5 * time.Millisecond}},
	{"loss", netem.Impairment{Loss: 0.01}},
	{"bursts", netem.Impairment{Delay: time.Millisecond,
		Burst: &netem.BurstLoss{PEnter: 0.002, PLeave: 0.3, LossInBad: 0.8}}},
	{"reordering", netem.Impairment{Reorder: 0.02, ReorderDelay: 3 * time.Millisecond}},
	{"duplication", netem.Impairment{Duplicate: 0.05}},
	{"corruption", netem.Impairment{Corrupt: 0.01}},
	{"a slow line", netem.Impairment{Rate: 50e6, Delay: 5 * time.Millisecond}},
	{"all", netem.Impairment{Delay: 2 * time.Millisecond, Jitter: time.Millisecond,
		Loss: 0.005, Duplicate: 0.01, Reorder: 0.01, Corrupt: 0.005}},
}

// Over a bad line all bytes arrive, in both roles, and both ways at once.
func TestImpaired(t *testing.T) {
	n := 1 << 20
	if long {
		n = 16 << 20
	}
	all := slices.Concat(modes6, modes)
	for i, imp := range impairments {
		t.Run(imp.name, func(t *testing.T) {
			var line *netem.Impaired
			seed := uint64(i + 1)
			o := options{wrap: func(t *testing.T, dev *tun.Link) bsdnet.Link {
				l, err := netem.Impair(dev, netem.Path{Write: imp.way, Read: imp.way, Seed: seed})
				if err != nil {
					t.Fatal(err)
				}
				line = l
				return l
			}}
			t.Parallel()
			w := newWorld(t, all[i%len(all)], o)
			w.eachRole(t, func(t *testing.T, client, server host) {
				c, s := pair(t, client, server)
				transferBoth(t, c, s, n)
			})
			st := line.Stats()
			if t.Failed() {
				t.Logf("seed %d, %+v", seed, st)
			}
			for _, d := range []struct {
				name   string
				p      float64
				counts [2]uint64
			}{
				{"lost", imp.way.Loss, [2]uint64{st.Read.Lost, st.Write.Lost}},
				{"duplicated", imp.way.Duplicate, [2]uint64{st.Read.Duplicated, st.Write.Duplicated}},
				{"corrupted", imp.way.Corrupt, [2]uint64{st.Read.Corrupted, st.Write.Corrupted}},
				{"reordered", imp.way.Reorder, [2]uint64{st.Read.Reordered, st.Write.Reordered}},
			} {
				if d.p > 0 && (d.counts[0] == 0 || d.counts[1] == 0) {
					t.Errorf("nothing was %s: %v", d.name, d.counts)
				}
			}
		})
	}
}
