package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"text/tabwriter"
)

// A report is all that a run has found.
type report struct {
	Machine machine  `json:"machine"`
	Rounds  int      `json:"rounds"`
	Seconds float64  `json:"seconds"`
	Results []result `json:"results"`
}

// A machine says where and of what.
type machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
	Commit string `json:"commit"`
	Gvisor string `json:"gvisor"`
	// Congestion is the kernel's congestion control. One that paces, as bbr, is several times slower over devices than one that does not.
	Congestion string `json:"congestion"`
}

func thisMachine() machine {
	return machine{
		CPU: cpuModel(), Cores: runtime.NumCPU(), Kernel: kernelVersion(), Go: runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH,
		Commit: commit(), Gvisor: dependency("gvisor.dev/gvisor"), Congestion: congestion(),
	}
}

// commit returns the commit of the sources in the current folder, marked where they have been changed since, and "unknown" without git.
func commit() string {
	id, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	s := strings.TrimSpace(string(id))
	// What a run writes itself is no change.
	changes, err := exec.Command("git", "status", "--porcelain", "--", ":/", ":(exclude)RESULTS.md", ":(exclude)charts").Output()
	if err != nil || len(changes) > 0 {
		s += " with changes"
	}
	return s
}

// dependency returns the version of a module that the program has been built with.
func dependency(path string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			if d.Path == path {
				return d.Version
			}
		}
	}
	return "unknown"
}

// readReports reads what -json has printed, and puts it together. A row that is there twice counts as it is in the later file.
func readReports(names []string) (*report, error) {
	var all *report
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		var r report
		if err := json.Unmarshal(b, &r); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if all == nil {
			all = &r
			continue
		}
		if r.Machine != all.Machine {
			return nil, fmt.Errorf("%s is of another machine, or commit, than %s: %v, and not %v", name, names[0], r.Machine, all.Machine)
		}
		for _, res := range r.Results {
			if i := slices.IndexFunc(all.Results, func(o result) bool { return o.Row == res.Row }); i >= 0 {
				all.Results[i] = res
			} else {
				all.Results = append(all.Results, res)
			}
		}
	}
	return all, nil
}

// failures returns an error that names those who have failed.
func (r *report) failures() error {
	var errs []error
	for _, res := range r.Results {
		for _, p := range res.Peers {
			if p.Error != "" {
				errs = append(errs, fmt.Errorf("%s by %s: %s", res.Row, p.Name, p.Error))
			}
		}
	}
	return errors.Join(errs...)
}

// A summary is what a peer has made of a row, by the medians of its rounds. What is not known is NaN.
type summary struct {
	median, least, most float64
	ofKernel, ofGvisor  float64 // times as good as
	cpu, allocs, others float64
	allocBytes          float64
	extra               map[string]float64
	latency             []float64
}

// summarize returns the summary of each peer of a row.
func summarize(r *result) []summary {
	s := make([]summary, len(r.Peers))
	theKernel, theGvisor := math.NaN(), math.NaN()
	for i, p := range r.Peers {
		s[i] = p.summary()
		switch {
		case p.Role == kernel:
			theKernel = s[i].median
		case p.Role == gvisor && !(ratio(s[i].median, theGvisor, r.Less) <= 1):
			theGvisor = pick(s[i].median, theGvisor)
		}
	}
	for i := range s {
		s[i].ofKernel, s[i].ofGvisor = ratio(s[i].median, theKernel, r.Less), ratio(s[i].median, theGvisor, r.Less)
	}
	return s
}

// pick returns a, or b if there is no a.
func pick(a, b float64) float64 {
	if math.IsNaN(a) {
		return b
	}
	return a
}

func (p *peerResult) summary() summary {
	values := p.each(func(s *sample) float64 { return s.Value })
	sum := summary{median: median(values), least: math.NaN(), most: math.NaN(), extra: map[string]float64{}}
	if len(values) > 0 {
		sum.least, sum.most = slices.Min(values), slices.Max(values)
	}
	sum.cpu = median(p.each(func(s *sample) float64 { return s.CPU }))
	sum.allocs = median(p.each(func(s *sample) float64 { return s.Allocs }))
	sum.allocBytes = median(p.each(func(s *sample) float64 { return s.AllocBytes }))
	sum.others = median(p.each(func(s *sample) float64 { return s.Others }))
	if len(p.Samples) == 0 {
		return sum
	}
	for k := range p.Samples[0].Extra {
		sum.extra[k] = median(p.each(func(s *sample) float64 { return s.Extra[k] }))
	}
	for i := range p.Samples[0].Latency {
		sum.latency = append(sum.latency, median(p.each(func(s *sample) float64 { return s.Latency[i] })))
	}
	return sum
}

func (p *peerResult) each(f func(*sample) float64) []float64 {
	var v []float64
	for i := range p.Samples {
		v = append(v, f(&p.Samples[i]))
	}
	return v
}

// cpuUnit is what CPU is measured in.
func (r *result) cpuUnit() string {
	if r.PerGB {
		return "CPU s/GB"
	}
	return "CPU µs/op"
}

// times prints a ratio.
func times(v float64) string {
	if math.IsNaN(v) {
		return "-"
	}
	return number(v) + "×"
}

// percent prints a part of the whole.
func percent(v float64) string {
	if math.IsNaN(v) {
		return "-"
	}
	return fmt.Sprintf("%.0f%%", v*100)
}

// notes are what else a peer has to say about a row.
func (s *summary) notes() string {
	var n []string
	if len(s.latency) == len(percentiles) {
		n = append(n, fmt.Sprintf("p50 %s, p99 %s, p99.9 %s µs", number(s.latency[0]), number(s.latency[4]), number(s.latency[5])))
	}
	var keys []string
	for k := range s.extra {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		n = append(n, number(s.extra[k])+" "+k)
	}
	return strings.Join(n, ", ")
}

// text prints a report for a terminal.
func text(w io.Writer, rep *report) error {
	m := rep.Machine
	fmt.Fprintf(w, "%s, %d cores, %s with %s, %s, commit %s, gvisor %s\n", m.CPU, m.Cores, m.Kernel, m.Congestion, m.Go, m.Commit, m.Gvisor)
	fmt.Fprintf(w, "medians of %d rounds of %v s; × is how many times as good\n", rep.Rounds, rep.Seconds)
	for i := range rep.Results {
		r := &rep.Results[i]
		fmt.Fprintf(w, "\n%s: %s (%s, %s is better)\n", r.Row, r.Title, r.Unit, r.better())
		tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintf(tw, "peer\tmedian\tleast\tmost\t× kernel\t× gVisor\t%s\tallocs/op\tothers\t\n", r.cpuUnit())
		sums := summarize(r)
		var notes []string
		for j, p := range r.Peers {
			if len(p.Samples) == 0 {
				notes = append(notes, fmt.Sprintf("  %s: none: %s%s", p.Name, p.Skipped, p.Error))
				continue
			}
			s := &sums[j]
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", p.Name, number(s.median), number(s.least), number(s.most),
				times(s.ofKernel), times(s.ofGvisor), number(s.cpu), number(s.allocs), percent(s.others))
			if n := s.notes(); n != "" {
				notes = append(notes, "  "+p.Name+": "+n)
			}
		}
		if err := tw.Flush(); err != nil {
			return err
		}
		for _, n := range notes {
			fmt.Fprintln(w, n)
		}
	}
	return nil
}

func (r *result) better() string {
	if r.Less {
		return "less"
	}
	return "more"
}

// printList prints what can be measured.
func printList(w io.Writer, p *plan) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	places := map[string][]string{}
	for _, s := range scenes() {
		for _, q := range s.peers {
			places[s.name] = append(places[s.name], q.name)
		}
	}
	for _, r := range rows() {
		if p.rows == nil || p.rows.MatchString(r.name) {
			fmt.Fprintf(tw, "%s\t%s, %s\t%s\n", r.name, r.title, r.unit, strings.Join(places[r.scene], " "))
		}
	}
	tw.Flush()
}
