package tcp

import (
	"fmt"
	"slices"
	"testing"
)

// The second part of the golden file: how senders divide a bottleneck that they share, and how long
// its queue becomes.

// The shared link, and how long each scenario lasts. Shares are averages from shareFrom on, when
// slow start is over.
const (
	shareRate = 20e6
	shareRTT  = 40 * ms
	shareTime = 60 * sec
	shareFrom = 20 * sec
	shareLate = 10 * sec // when the second flow begins in a late scenario
)

// shareQueues are the queues that each scenario is run with, in bandwidth-delay products.
var shareQueues = []float64{1, 4}

// A shareJob is a scenario: flows with these congestion controls.
type shareJob struct {
	name string
	ccs  []string
	late bool // the second flow begins at shareLate, not 137 ms after the first
}

// shareScenarios returns all scenarios.
func shareScenarios() (jobs []shareJob) {
	for _, cc := range goodputCCs {
		jobs = append(jobs,
			shareJob{name: "1x" + cc, ccs: []string{cc}},
			shareJob{name: "2x" + cc, ccs: []string{cc, cc}},
			shareJob{name: "10x" + cc, ccs: slices.Repeat([]string{cc}, 10)},
			shareJob{name: "late-" + cc, ccs: []string{cc, cc}, late: true})
	}
	for _, other := range goodputCCs {
		if other != "cubic" && slices.Contains(goodputCCs, "cubic") {
			jobs = append(jobs, shareJob{name: "cubic+" + other, ccs: []string{"cubic", other}})
		}
	}
	return jobs
}

// shareJobs returns the scenarios' simulations.
func shareJobs() (jobs []goodputJob) {
	for _, sc := range shareScenarios() {
		for _, queue := range shareQueues {
			jobs = append(jobs, goodputJob{
				name: fmt.Sprintf("%s/shared/queue=%g", sc.name, queue),
				run: func(t testing.TB, seed uint64) string {
					return sc.run(t, pathParams{rate: shareRate, rtt: shareRTT, queue: queue, seed: seed})
				},
			})
		}
	}
	return jobs
}

// run simulates the scenario and returns its line.
func (sc *shareJob) run(t testing.TB, path pathParams) string {
	var profiles []*Profile
	var starts []int64
	for i, cc := range sc.ccs {
		profiles = append(profiles, ccProfile(cc))
		starts = append(starts, int64(i)*137*ms)
	}
	if sc.late {
		starts[1] = shareLate
	}
	s := newPathNet(t, path, profiles, starts)
	s.run(shareTime)
	s.done()
	mean, p95 := s.there.queueing()
	var rates []float64
	sum := 0.0
	for _, f := range s.flows {
		r := ofLink(uint64(f.between(shareFrom, shareTime)), shareRate, shareTime-shareFrom)
		rates = append(rates, r)
		sum += r
	}
	b := fmt.Sprintf("link %s jain %s delay %s p95 %s",
		digits(sum), digits(jainIndex(rates)), millis(mean), millis(p95))
	if sc.late {
		b += " fair " + converged(s.flows)
	}
	b += " shares"
	for _, r := range rates {
		b += " " + digits(r/sum)
	}
	if sc.late {
		for i, f := range s.flows {
			b += fmt.Sprintf("\n  flow%d", i+1)
			for at := int64(0); at < shareTime; at += sec {
				b += fmt.Sprintf(" %.0f", 100*ofLink(uint64(f.between(at, at+sec)), shareRate, sec))
			}
		}
	}
	return b
}

// jainIndex returns Jain's fairness index: 1 if all are alike, 1/n if one has everything.
func jainIndex(x []float64) float64 {
	sum, squares := 0.0, 0.0
	for _, v := range x {
		sum += v
		squares += v * v
	}
	if squares == 0 {
		return 0
	}
	return sum * sum / (float64(len(x)) * squares)
}

// converged returns how many seconds after the second flow's beginning the first second ends in
// which each of two flows had its half to within 20 %, while both together used at least 80 % of
// the link; or "never".
func converged(flows []*pathFlow) string {
	for at := int64(shareLate); at+sec <= shareTime; at += pathBin {
		a, b := flows[0].between(at, at+sec), flows[1].between(at, at+sec)
		if 5*min(a, b) >= 2*(a+b) && ofLink(uint64(a+b), shareRate, sec) >= 0.8 {
			return fmt.Sprintf("%.1f", float64(at+sec-shareLate)/float64(sec))
		}
	}
	return "never"
}

// millis prints nanoseconds as milliseconds.
func millis(ns int64) string { return fmt.Sprintf("%.1f", float64(ns)/1e6) }
