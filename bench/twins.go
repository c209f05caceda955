package main

import (
	"slices"
	"strings"
)

// Twins are rows that measure the same thing of a peer of bsdnet. The distance between them shows
// how well a run can be repeated.
type twins struct {
	first *result
	rows  []string
	peer  string
	value span // of the rows' medians
	of    map[role]span
}

// names returns the names of the rows, and of the peer.
func (t *twins) names() string { return strings.Join(t.rows, ", ") + ", " + t.peer }

// twins returns the rows that measure the same thing, for each peer of bsdnet.
func (r *report) twins() []twins {
	var all []twins
	for i := range r.Results {
		first := &r.Results[i]
		rows := []*result{first}
		for j := range r.Results {
			if row := &r.Results[j]; row.Same == first.Row {
				rows = append(rows, row)
			}
		}
		for _, p := range first.Peers {
			if t := newTwins(rows, p.Name); p.Role == ours && len(t.rows) > 1 {
				all = append(all, t)
			}
		}
	}
	return all
}

// newTwins merges a peer's results in several rows.
func newTwins(rows []*result, peer string) twins {
	t := twins{first: rows[0], peer: peer, of: map[role]span{}}
	var values []float64
	ratios := map[role][]float64{}
	for _, r := range rows {
		i := slices.IndexFunc(r.Peers, func(p peerResult) bool { return p.Name == peer })
		if i < 0 || len(r.Peers[i].Samples) == 0 {
			continue
		}
		s := summarize(r)[i]
		t.rows, values = append(t.rows, r.Row), append(values, s.median)
		for _, a := range against {
			if r.compares(a.role) {
				ratios[a.role] = append(ratios[a.role], s.of[a.role].median)
			}
		}
	}
	t.value = spanOf(values)
	for _, a := range against {
		t.of[a.role] = spanOf(ratios[a.role])
	}
	return t
}
