package main

import (
	"bufio"
	"fmt"
	"io"
	"math"
)

// markdown prints a report as a page: where, what is lost, what is won, and the details.
func markdown(out io.Writer, rep *report, charts []chart) error {
	w := bufio.NewWriter(out)
	m := rep.Machine
	fmt.Fprintf(w, "# Results\n\nMade by `go run .` in this folder, which measures all peers in turn in each round; [doc.go](doc.go) says what the rows and the peers are.\n\n")
	fmt.Fprintf(w, "%s, %d cores; %s with %s; %s; commit %s; gVisor %s. Medians of %d rounds of %v s each, with the least and the most. ",
		m.CPU, m.Cores, m.Kernel, m.Congestion, m.Go, m.Commit, m.Gvisor, rep.Rounds, rep.Seconds)
	fmt.Fprintf(w, "× is how many times as good as the kernel, or as the best set-up of gVisor: above 1 is better in every row. Only these ratios mean something on another machine.\n")
	markdownVerdicts(w, rep)
	for i := range rep.Results {
		if i == 0 || rep.Results[i].Scene != rep.Results[i-1].Scene || rep.Results[i].growth() != rep.Results[i-1].growth() {
			markdownScene(w, rep.Results[i:])
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

// growth reports whether a row is one of growth.
func (r *result) growth() bool { return r.Kind == kindGrow }

// markdownVerdicts lists the rows by how bsdnet does in them, those where it loses first.
func markdownVerdicts(w io.Writer, rep *report) {
	type line struct {
		r *result
		p *peerResult
		s summary
	}
	var lost, won []line
	for i := range rep.Results {
		r := &rep.Results[i]
		sums := summarize(r)
		for j := range r.Peers {
			if p := &r.Peers[j]; p.Role == ours && len(p.Samples) > 0 {
				l := line{r: r, p: p, s: sums[j]}
				if l.s.ofKernel < 1 || l.s.ofGvisor < 1 {
					lost = append(lost, l)
				} else if !math.IsNaN(l.s.ofKernel) || !math.IsNaN(l.s.ofGvisor) {
					won = append(won, l)
				}
			}
		}
	}
	table := func(lines []line) {
		fmt.Fprintf(w, "| row | | bsdnet | × kernel | × gVisor |\n| --- | --- | ---: | ---: | ---: |\n")
		for _, l := range lines {
			name := ""
			if l.p.Name != "bsdnet" {
				name = ", " + l.p.Name
			}
			fmt.Fprintf(w, "| `%s` | %s%s | %s %s | %s | %s |\n", l.r.Row, l.r.Title, name, number(l.s.median), l.r.Unit, bold(l.s.ofKernel), bold(l.s.ofGvisor))
		}
	}
	fmt.Fprintf(w, "\n## Where bsdnet loses\n\n")
	if len(lost) == 0 {
		fmt.Fprintf(w, "In none of these rows.\n")
	} else {
		table(lost)
	}
	if len(won) > 0 {
		fmt.Fprintf(w, "\n## Where it does not\n\n")
		table(won)
	}
}

// bold prints a ratio, so that a lost one is seen.
func bold(v float64) string {
	if v < 1 {
		return "**" + times(v) + "**"
	}
	return times(v)
}

// markdownScene prints the rows of one scene, with all that is known of each peer.
func markdownScene(w io.Writer, results []result) {
	first := &results[0]
	title := first.Scene
	if first.growth() {
		title = "Growth"
	}
	fmt.Fprintf(w, "\n## %s\n\n| row | peer | median | least to most | × kernel | × gVisor | CPU | allocs/op | others | |\n", title)
	fmt.Fprintf(w, "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |\n")
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
				fmt.Fprintf(w, "| %s | %s | %s %s | %s to %s | %s | %s | %s %s | %s | %s | %s |\n", name, p.Name, number(s.median), r.Unit, number(s.least),
					number(s.most), bold(s.ofKernel), bold(s.ofGvisor), number(s.cpu), r.cpuUnit()[len("CPU "):], number(s.allocs), percent(s.others), s.notes())
			default:
				fmt.Fprintf(w, "| %s | %s | - | | | | | | | %s%s |\n", name, p.Name, p.Skipped, p.Error)
			}
			name = ""
		}
	}
}
