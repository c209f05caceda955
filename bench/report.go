package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// A report has all results of a run.
type report struct {
	Machine machine  `json:"machine"`
	Rounds  int      `json:"rounds"`
	Seconds float64  `json:"seconds"`
	Took    float64  `json:"took_seconds"` // time of the whole run
	Results []result `json:"results"`
}

// A machine describes the machine and the software of a run.
type machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
	Commit string `json:"commit"`
	Gvisor string `json:"gvisor"`
	// Congestion is the kernel's congestion control, at both ends. One that paces, such as bbr, is
	// several times slower over devices than one that does not.
	Congestion string `json:"congestion"`
}

func thisMachine(congestion string) machine {
	return machine{
		CPU: cpuModel(), Cores: runtime.NumCPU(), Kernel: kernelVersion(),
		Go:     runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH,
		Commit: commit(), Gvisor: dependency("gvisor.dev/gvisor"), Congestion: congestion,
	}
}

// commit returns the commit of the sources in the current folder, with a mark if they have changed
// since. Without git it returns "unknown".
func commit() string {
	id, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	s := strings.TrimSpace(string(id))
	// The files that a run writes itself do not count as changes.
	changes, err := exec.Command("git", "status", "--porcelain", "--", ":/",
		":(exclude)RESULTS.md", ":(exclude)charts").Output()
	if err != nil || len(changes) > 0 {
		s += " with changes"
	}
	return s
}

// dependency returns the version of a module in this program.
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

// readReports reads files that -json has printed, and merges them. If a row is in two files, the
// later one counts.
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
			return nil, fmt.Errorf("%s is from another machine or commit than %s: %v instead of %v",
				name, names[0], r.Machine, all.Machine)
		}
		all.Took += r.Took
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

// failures returns an error that names the rows and peers that have failed.
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

// A summary has the medians of a peer's rounds in a row. NaN means unknown.
type summary struct {
	span
	of                  map[role]span // how many times as good as the peer in that role, round by round
	cpu, allocs, others float64
	allocBytes          float64
	extra               map[string]float64
	latency             []float64
}

// A span is the median of several numbers, with the least and the most of them.
type span struct{ median, least, most float64 }

// spanOf returns the span of v. If v is empty, the numbers are NaN.
func spanOf(v []float64) span {
	if len(v) == 0 {
		return span{math.NaN(), math.NaN(), math.NaN()}
	}
	return span{median(v), slices.Min(v), slices.Max(v)}
}

// against are the roles that every peer is compared with.
var against = []struct {
	role  role
	title string
}{{kernel, "× kernel"}, {gvisor, "× gVisor"}, {before, "× before"}}

// summarize returns the summary of each peer of a row.
func summarize(r *result) []summary {
	s := make([]summary, len(r.Peers))
	best := map[role]int{} // the best peer in each role
	for i, p := range r.Peers {
		s[i] = p.summary()
		if b, ok := best[p.Role]; len(p.Samples) > 0 && (!ok || ratio(s[i].median, s[b].median, r.Less) > 1) {
			best[p.Role] = i
		}
	}
	for i := range s {
		s[i].of = map[role]span{}
		for _, a := range against {
			other, ok := best[a.role]
			if a.role == before { // each peer has a predecessor of its own
				other, ok = predecessor(r, i)
			}
			var v []float64
			if ok {
				v = compare(&r.Peers[i], &r.Peers[other], r.Less)
			}
			s[i].of[a.role] = spanOf(v)
		}
	}
	return s
}

// predecessor returns the peer that is peer i of a row in another build.
func predecessor(r *result, i int) (int, bool) {
	j := slices.IndexFunc(r.Peers, func(p peerResult) bool {
		return p.Role == before && strings.HasPrefix(p.Name, r.Peers[i].Name+"@")
	})
	return j, j >= 0
}

// compare returns how many times as good a is as b in each round.
func compare(a, b *peerResult, less bool) (v []float64) {
	for i := range min(len(a.Samples), len(b.Samples)) {
		if q := ratio(a.Samples[i].Value, b.Samples[i].Value, less); !math.IsNaN(q) {
			v = append(v, q)
		}
	}
	return v
}

func (p *peerResult) summary() summary {
	values := p.each(func(s *sample) float64 { return s.Value })
	sum := summary{span: spanOf(values), extra: map[string]float64{}}
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

// cpuUnit returns the unit of the CPU time.
func (r *result) cpuUnit() string {
	if r.PerGB {
		return "CPU s/GB"
	}
	return "CPU µs/op"
}

// times formats a ratio.
func times(v float64) string {
	if math.IsNaN(v) {
		return "-"
	}
	return figures(v) + "×"
}

// figures formats a ratio with its significant digits.
func figures(v float64) string {
	switch {
	case math.IsNaN(v):
		return "-"
	case v >= 10:
		return fmt.Sprintf("%.0f", v)
	case v >= 2:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// percent formats a part of the whole.
func percent(v float64) string {
	if math.IsNaN(v) {
		return "-"
	}
	return fmt.Sprintf("%.0f%%", v*100)
}

// notes returns a peer's other results in a row.
func (s *summary) notes() string {
	var n []string
	if len(s.latency) == len(percentiles) {
		n = append(n, fmt.Sprintf("p50 %s, p99 %s, p99.9 %s µs",
			number(s.latency[0]), number(s.latency[4]), number(s.latency[5])))
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
	fmt.Fprintf(w, "%s, %d cores, %s with %s, %s, commit %s, gvisor %s\n",
		m.CPU, m.Cores, m.Kernel, m.Congestion, m.Go, m.Commit, m.Gvisor)
	fmt.Fprintf(w, "medians of %d rounds of %v s, with the least and the most; "+
		"× is how many times as good, computed for each round\n", rep.Rounds, rep.Seconds)
	for i := range rep.Results {
		if err := textRow(w, &rep.Results[i]); err != nil {
			return err
		}
	}
	if twins := rep.twins(); len(twins) > 0 {
		fmt.Fprintln(w, "\nrows that measure the same thing, from the least median to the most:")
		for _, t := range twins {
			fmt.Fprintf(w, "  %s: %s %s", t.names(), number(t.value.least)+" to "+number(t.value.most), t.first.Unit)
			for _, a := range against {
				if v := t.of[a.role]; !math.IsNaN(v.least) {
					fmt.Fprintf(w, ", %s to %s %s", figures(v.least), figures(v.most), a.title)
				}
			}
			fmt.Fprintln(w)
		}
	}
	fmt.Fprintf(w, "\nit took %v\n", seconds(rep.Took))
	return nil
}

// textRow prints a row for a terminal.
func textRow(w io.Writer, r *result) error {
	fmt.Fprintf(w, "\n%s: %s (%s, %s is better)\n", r.Row, r.Title, r.Unit, r.better())
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(tw, "peer\tmedian\tleast\tmost\t")
	for _, a := range against {
		if r.compares(a.role) {
			fmt.Fprintf(tw, "%s\tleast\tmost\t", a.title)
		}
	}
	fmt.Fprintf(tw, "%s\tallocs/op\tothers\t\n", r.cpuUnit())
	sums := summarize(r)
	var notes []string
	for j, p := range r.Peers {
		if len(p.Samples) == 0 {
			notes = append(notes, fmt.Sprintf("  %s: none: %s%s", p.Name, p.Skipped, p.Error))
			continue
		}
		s := &sums[j]
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t", p.Name, number(s.median), number(s.least), number(s.most))
		for _, a := range against {
			if r.compares(a.role) {
				v := s.of[a.role]
				fmt.Fprintf(tw, "%s\t%s\t%s\t", times(v.median), figures(v.least), figures(v.most))
			}
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t\n", number(s.cpu), number(s.allocs), percent(s.others))
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
	return nil
}

// compares reports whether a peer in a role has been measured.
func (r *result) compares(with role) bool {
	return slices.ContainsFunc(r.Peers, func(p peerResult) bool { return p.Role == with && len(p.Samples) > 0 })
}

// seconds formats a time for people.
func seconds(s float64) time.Duration {
	return time.Duration(s * float64(time.Second)).Round(time.Second)
}

func (r *result) better() string {
	if r.Less {
		return "less"
	}
	return "more"
}

// printList prints the rows that can be measured.
func printList(w io.Writer, p *plan) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	places := map[string]scene{}
	for _, s := range scenes() {
		places[s.name] = s
	}
	for _, r := range rows() {
		var peers []string
		for _, q := range places[r.scene].peers {
			if p.wantsPeer(r, q) {
				peers = append(peers, q.name)
			}
		}
		// The rows of growth are listed too if the command line chooses no rows.
		if p.wants(r) || p.rows == nil && p.groups == nil {
			fmt.Fprintf(tw, "%s\t%s, %s\t%s\n", r.name, r.title, r.unit, strings.Join(peers, " "))
		}
	}
	for _, g := range groups {
		fmt.Fprintf(tw, "-group %s\t%s\t\n", g.name, g.title)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	all := *p
	if p.rows == nil && p.groups == nil {
		fmt.Fprintln(w, "without the rows of growth:", p.estimateText())
		all.rows = regexp.MustCompile("")
	}
	_, err := fmt.Fprintln(w, "in all:", all.estimateText())
	return err
}
