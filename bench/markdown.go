package main

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// markdown prints a report as a page: the machine, the rows that bsdnet loses, the rows that it
// wins, and the details.
func markdown(out io.Writer, rep *report, charts []chart) error {
	w := bufio.NewWriter(out)
	m := rep.Machine
	fmt.Fprintf(w, "# Results\n\n`go run .` in this folder made this page. "+
		"It measures all peers in turn in each round; [doc.go](doc.go) explains the rows and the peers.\n\n")
	fmt.Fprintf(w, "%s, %d cores; %s with %s at both ends; %s; commit %s; gVisor %s. ",
		m.CPU, m.Cores, m.Kernel, m.Congestion, m.Go, m.Commit, m.Gvisor)
	fmt.Fprintf(w, "Medians of %d rounds of %v s each, with the least and the most; it took %v. ",
		rep.Rounds, rep.Seconds, seconds(rep.Took))
	fmt.Fprintf(w, "× is how many times as good as the kernel, or as the best set-up of gVisor, bsdnet is, "+
		"computed for each round separately: above 1 is better in every row. "+
		"Only these ratios mean something on another machine.\n")
	markdownVerdicts(w, rep)
	for i := range rep.Results {
		if r := rep.Results; i == 0 || r[i].Scene != r[i-1].Scene || r[i].growth() != r[i-1].growth() {
			markdownScene(w, rep.compared(), r[i:])
		}
	}
	if len(charts) > 0 {
		fmt.Fprintf(w, "\n## Charts\n")
		for _, c := range charts {
			fmt.Fprintf(w, "\n### %s\n\n![%s](%s)\n", c.title, c.title, c.path)
		}
	}
	return w.Flush()
}

// growth reports whether a row shows growth.
func (r *result) growth() bool { return r.Kind == kindGrow }

// A verdict is the result of a peer of bsdnet in a row, or in several rows that measure one thing.
type verdict struct {
	rows, title, value string
	of                 map[role]span
}

// verdicts returns the verdicts of a report on the peers that can be compared.
func verdicts(rep *report) (all []verdict) {
	together := map[string]bool{}
	add := func(r *result, peer string, v verdict) {
		v.title = r.Title
		if peer != "bsdnet" {
			v.title += ", " + peer
		}
		for _, of := range v.of {
			if !math.IsNaN(of.median) {
				all = append(all, v)
				return
			}
		}
	}
	for _, t := range rep.twins() {
		for _, row := range t.rows {
			together[row+" "+t.peer] = true
		}
		value := number(t.value.least) + " to " + number(t.value.most) + " " + t.first.Unit
		add(t.first, t.peer, verdict{rows: "`" + strings.Join(t.rows, "`, `") + "`", value: value, of: t.of})
	}
	for i := range rep.Results {
		r := &rep.Results[i]
		sums := summarize(r)
		for j, p := range r.Peers {
			if p.Role == ours && len(p.Samples) > 0 && !together[r.Row+" "+p.Name] {
				value := number(sums[j].median) + " " + r.Unit
				add(r, p.Name, verdict{rows: "`" + r.Row + "`", value: value, of: sums[j].of})
			}
		}
	}
	return all
}

// markdownVerdicts lists the rows. Those that bsdnet loses come first.
func markdownVerdicts(w io.Writer, rep *report) {
	var lost, won []verdict
	for _, v := range verdicts(rep) {
		if v.of[kernel].median < 1 || v.of[gvisor].median < 1 {
			lost = append(lost, v)
		} else {
			won = append(won, v)
		}
	}
	compared := rep.compared()
	table := func(lines []verdict) {
		fmt.Fprintf(w, "| row | | bsdnet |%s\n", heads(compared))
		fmt.Fprintf(w, "| --- | --- | ---: |%s\n", strings.Repeat(" ---: |", len(compared)))
		for _, v := range lines {
			fmt.Fprintf(w, "| %s | %s | %s |%s\n", v.rows, v.title, v.value, ratios(compared, v.of))
		}
	}
	fmt.Fprintf(w, "\n## Where bsdnet loses\n\n")
	if len(lost) == 0 {
		fmt.Fprintf(w, "It loses in none of these rows.\n")
	} else {
		table(lost)
	}
	if len(won) > 0 {
		fmt.Fprintf(w, "\n## Where it does not\n\n")
		table(won)
	}
}

// compared returns the roles that a report compares with. Another build is one of them only if it
// was measured.
func (r *report) compared() (roles []role) {
	for _, a := range against {
		if a.role != before || slices.ContainsFunc(r.Results, func(row result) bool { return row.compares(before) }) {
			roles = append(roles, a.role)
		}
	}
	return roles
}

// heads returns the titles of the columns of ratios.
func heads(compared []role) (s string) {
	for _, a := range against {
		if slices.Contains(compared, a.role) {
			s += " " + a.title + " |"
		}
	}
	return s
}

// ratios returns the columns of ratios.
func ratios(compared []role, of map[role]span) (s string) {
	for _, r := range compared {
		s += " " + bold(of[r]) + " |"
	}
	return s
}

// bold formats a ratio with its range, in bold if bsdnet loses.
func bold(v span) string {
	s := times(v.median)
	if v.median < 1 {
		s = "**" + s + "**"
	}
	if v.least < v.most {
		s += fmt.Sprintf(" (%s to %s)", figures(v.least), figures(v.most))
	}
	return s
}

// markdownScene prints the rows of one scene, with all numbers of each peer.
func markdownScene(w io.Writer, compared []role, results []result) {
	first := &results[0]
	title := first.Scene
	if first.growth() {
		title = "Growth"
	}
	fmt.Fprintf(w, "\n## %s\n\n| row | peer | median | least to most |%s CPU | allocs/op | others | |\n",
		title, heads(compared))
	fmt.Fprintf(w, "| --- | --- | ---: | ---: |%s ---: | ---: | ---: | --- |\n",
		strings.Repeat(" ---: |", len(compared)))
	for i := range results {
		r := &results[i]
		if r.Scene != first.Scene || r.growth() != first.growth() {
			break
		}
		sums := summarize(r)
		name := "`" + r.Row + "`"
		for j, p := range r.Peers {
			s := &sums[j]
			switch {
			case len(p.Samples) > 0:
				fmt.Fprintf(w, "| %s | %s | %s %s | %s to %s |%s %s %s | %s | %s | %s |\n", name, p.Name,
					number(s.median), r.Unit, number(s.least), number(s.most), ratios(compared, s.of),
					number(s.cpu), r.cpuUnit()[len("CPU "):], number(s.allocs), percent(s.others), s.notes())
			default:
				fmt.Fprintf(w, "| %s | %s | - | |%s | | | %s%s |\n", name, p.Name,
					strings.Repeat(" |", len(compared)), p.Skipped, p.Error)
			}
			name = ""
		}
	}
}
