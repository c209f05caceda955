package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A plan says what to measure, and how.
type plan struct {
	settings
	rounds   int
	groups   *regexp.Regexp // nil: any
	rows     *regexp.Regexp // nil: all; without groups, all except those of growth
	peers    *regexp.Regexp // nil: all
	cc       congestion
	beside   *build // another build of this program, whose bsdnet is measured too; nil: none
	profiles string // the folder for CPU profiles; "": none
	progress io.Writer
}

// A result has the results of all peers in a row.
type result struct {
	Row   string       `json:"row"`
	Scene string       `json:"scene"`
	Title string       `json:"title"`
	Kind  string       `json:"kind"`
	Unit  string       `json:"unit"`
	Less  bool         `json:"less_is_better"`
	PerGB bool         `json:"cpu_per_gb"`
	Peers []peerResult `json:"peers"`

	Series string  `json:"series,omitempty"`
	X      float64 `json:"x"`
	XTitle string  `json:"x_title,omitempty"`

	// Same is the row that measures the same thing, if there is one.
	Same string `json:"same,omitempty"`
}

// A peerResult has a sample for each round, or the reason why it has none.
type peerResult struct {
	Name    string   `json:"name"`
	Role    role     `json:"role"`
	Samples []sample `json:"samples,omitempty"`
	Skipped string   `json:"skipped,omitempty"`
	Error   string   `json:"error,omitempty"`
}

// wants reports whether the plan has a row.
func (p *plan) wants(r row) bool {
	switch {
	case p.groups != nil && !slices.ContainsFunc(groups, func(g group) bool {
		return p.groups.MatchString(g.name) && g.has(r)
	}):
		return false
	case p.rows != nil:
		return p.rows.MatchString(r.name)
	}
	return p.groups != nil || r.kind != kindGrow
}

// wantsPeer reports whether the plan, which has the row, has the peer in it.
func (p *plan) wantsPeer(r row, q peer) bool {
	if q.kinds != nil && !slices.Contains(q.kinds, r.kind) || p.peers != nil && !p.peers.MatchString(q.name) {
		return false
	}
	return p.groups == nil || slices.ContainsFunc(groups, func(g group) bool {
		return p.groups.MatchString(g.name) && g.has(r) && (g.peers == nil || slices.Contains(g.peers, q.name))
	})
}

// run measures one row after another.
func (p *plan) run() []result {
	places := map[string]scene{}
	skipped := map[string]string{}
	for _, s := range scenes() {
		places[s.name] = s
	}
	var results []result
	for _, r := range rows() {
		if !p.wants(r) {
			continue
		}
		s := places[r.scene]
		if _, asked := skipped[s.name]; !asked && s.check != nil {
			skipped[s.name] = ""
			if err := s.check(); err != nil {
				skipped[s.name] = err.Error()
			}
		}
		if res := p.runRow(r, s, skipped[s.name]); len(res.Peers) > 0 {
			results = append(results, res)
		}
	}
	return results
}

// runRow measures a row: in each round all peers, one after another.
func (p *plan) runRow(r row, s scene, skip string) result {
	res := result{
		Row: r.name, Scene: s.title, Title: r.title, Kind: r.kind, Unit: r.unit, Less: r.less, PerGB: r.perGB,
		Series: r.series, X: r.x, XTitle: r.xTitle, Same: r.same,
	}
	var peers []peer
	add := func(q peer, why string) {
		peers = append(peers, q)
		res.Peers = append(res.Peers, peerResult{Name: q.name, Role: q.role, Skipped: why})
	}
	for _, q := range s.peers {
		if !p.wantsPeer(r, q) {
			continue
		}
		why := reason(r, q, skip)
		add(q, why)
		if p.beside != nil && q.role == ours {
			add(peer{name: q.name + "@" + p.beside.name, role: before}, why)
		}
	}
	for round := range p.rounds {
		for i, q := range peers {
			pr := &res.Peers[i]
			if pr.Skipped != "" || pr.Error != "" {
				continue
			}
			s, err := p.measure(r, q, round)
			switch {
			case errors.Is(err, errNoSuchRow):
				pr.Skipped = err.Error()
			case err != nil:
				pr.Error = err.Error()
				fmt.Fprintf(p.progress, "%s, %s: %v\n", r.name, q.name, err)
			default:
				pr.Samples = append(pr.Samples, s)
				fmt.Fprintf(p.progress, "%-18s %d/%d  %-18s %s %s\n",
					r.name, round+1, p.rounds, q.name, number(s.Value), r.unit)
			}
		}
	}
	return res
}

// reason returns the reason why a peer takes no part in a row, or "" if it does.
func reason(r row, q peer, scene string) string {
	switch {
	case scene != "":
		return scene
	case q.role == kernel && r.descriptors > 0:
		if have := descriptors(r.descriptors); have < r.descriptors {
			return fmt.Sprintf("it needs %d open files, and ulimit -n allows %d", r.descriptors, have)
		}
	}
	return ""
}

// measure runs a row once by one peer. If the peer hangs, measure leaves it behind, because there
// is no way to end it.
func (p *plan) measure(r row, q peer, round int) (sample, error) {
	// If there is another build, this one is measured as that one is: in a process that has done
	// nothing before.
	switch {
	case p.beside != nil && q.role == before:
		name, _, _ := strings.Cut(q.name, "@")
		return p.beside.measure(p, r.name, name)
	case p.beside != nil && q.role == ours:
		return p.beside.self().measure(p, r.name, q.name)
	}
	type outcome struct {
		s   sample
		err error
	}
	limit := 2*time.Minute + 2*(p.warm+p.time)
	done := make(chan outcome, 1)
	go func() {
		s, err := p.measureOnce(r, q, round)
		done <- outcome{s, err}
	}()
	select {
	case o := <-done:
		return o.s, o.err
	case <-time.After(limit):
		return sample{}, fmt.Errorf("it hangs: it has not ended after %v", limit)
	}
}

func (p *plan) measureOnce(r row, q peer, round int) (s sample, err error) {
	n, err := q.open(p.cc)
	if err != nil {
		return s, err
	}
	defer n.close()
	m := newMeter(n, p.settings)
	if p.profiles != "" && round == p.rounds-1 {
		f, err := os.Create(filepath.Join(p.profiles, r.name+"."+q.name+".prof"))
		if err != nil {
			return s, err
		}
		defer f.Close()
		m.cpu = f
	}
	err = r.run(m)
	if end := m.finish(); err == nil {
		err = end
	}
	return m.sample, err
}

// number formats a number with three significant digits.
func number(v float64) string {
	switch {
	case v != v:
		return "-"
	case v >= 100 || v == 0:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return strings.TrimRight(strings.TrimRight(fmt.Sprintf("%.3f", v), "0"), ".")
}
