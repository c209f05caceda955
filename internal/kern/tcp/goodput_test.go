package tcp

import (
	"flag"
	"fmt"
	"hash/fnv"
	"os"
	"strconv"
	"strings"
	"testing"
)

// How much of a link does a sender use? TestGoodput asks it of each congestion control, on paths of all kinds and beside others, and compares the
// answers with testdata/goodput.golden. A change of them is no fault, but is to be looked at: the file is written anew by
//
//	go test -run TestGoodput -update ./internal/kern/tcp
//
// and read as a diff. docs/goodput.md explains it, and shows it drawn.

var update = flag.Bool("update", false, "rewrite the golden file, and the drawings in docs")

const goodputGolden = "testdata/goodput.golden"

// goodputCCs are the congestion controls that are compared.
var goodputCCs = []string{"newreno"}

// setCC gives a profile a congestion control.
func setCC(p *Profile, name string) {
	if name != "newreno" {
		panic("no congestion control " + name)
	}
}

// ccProfile is what a simulated sender has.
func ccProfile(name string) *Profile {
	p := simProfile()
	setCC(p, name)
	return p
}

// A goodputJob is a simulation with a name, which begins a line of the golden file; run returns the rest of the line.
type goodputJob struct {
	name string
	run  func(t testing.TB, seed uint64) string
}

// seed returns the seed of a job's path. Jobs that differ in congestion control alone have the same, so that each meets the same losses.
func (j *goodputJob) seed() uint64 {
	_, path, _ := strings.Cut(j.name, "/")
	return hash64(path)
}

func hash64(s string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(s))
	return h.Sum64()
}

// The grid. A link of each round trip is as fast as keeps the number of packets alike; each cell lasts until the link could have carried
// gridBits.
var (
	gridLinks   = []struct{ rtt, rate int64 }{{1 * ms, 500e6}, {20 * ms, 100e6}, {100 * ms, 25e6}, {300 * ms, 10e6}}
	gridQueues  = []float64{0.1, 1}                           // of the bandwidth-delay product
	gridReorder = []float64{0, 0.01, 0.1}                     // probability
	gridLoss    = []float64{0, 0.0001, 0.001, 0.01, 0.05, .1} // probability
)

const gridBits = 500e6

// gridJobs are the cells of the grid.
func gridJobs() (jobs []goodputJob) {
	for _, cc := range goodputCCs {
		for _, l := range gridLinks {
			for _, queue := range gridQueues {
				for _, reorder := range gridReorder {
					for _, loss := range gridLoss {
						path := simPath{rate: l.rate, rtt: l.rtt, queue: queue, reorder: reorder, loss: loss}
						jobs = append(jobs, goodputJob{
							name: fmt.Sprintf("%s/rtt=%dms/queue=%g/reorder=%g%%/loss=%g%%", cc, l.rtt/ms, queue, 100*reorder, 100*loss),
							run: func(t testing.TB, seed uint64) string {
								path.seed = seed
								s := newSimNet(t, path, []*Profile{ccProfile(cc)}, []int64{0})
								d := gridBits * sec / path.rate
								s.run(d)
								s.done()
								f := s.flows[0]
								return digits(ofLink(f.receiver.read, path.rate, d-(f.sender.since-epoch)))
							},
						})
					}
				}
			}
		}
	}
	return jobs
}

// ofLink returns which part n bytes are of what a link carries in time d.
func ofLink(n uint64, rate, d int64) float64 { return float64(n) * 8 / (float64(rate) * float64(d) / float64(sec)) }

// digits prints a fraction with three digits behind the point, or two significant ones if it is small.
func digits(x float64) string {
	if x >= 0.0995 || x == 0 {
		return strconv.FormatFloat(x, 'f', 3, 64)
	}
	return strconv.FormatFloat(x, 'g', 2, 64)
}

func TestGoodput(t *testing.T) {
	var out strings.Builder
	golden := readGolden(t)
	for _, j := range gridJobs() {
		if !*update && !inSample(j.name) {
			continue
		}
		t.Run(j.name, func(t *testing.T) {
			got := j.run(t, j.seed())
			switch want, ok := golden[j.name]; {
			case *update:
				fmt.Fprintf(&out, "%-60s %s\n", j.name, got)
			case len(golden) > 0 && (!ok || got != want):
				t.Errorf("%s: got %s, want %s; seed %d", j.name, got, want, j.seed())
			}
		})
	}
	if *update && !t.Failed() {
		if err := os.WriteFile(goodputGolden, []byte(out.String()), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if len(golden) == 0 && !*update {
		t.Skip("there is no " + goodputGolden)
	}
}

// inSample reports whether a job is among those that are run each time: one in eight, and with the race detector, which makes them ten times as
// slow, one in 64. With BSDNET_LONG=1 in the environment all are.
func inSample(name string) bool {
	n := uint64(8)
	switch {
	case raceEnabled:
		n = 64
	case os.Getenv("BSDNET_LONG") == "1":
		n = 1
	}
	return hash64(name)%n == 0
}

// readGolden returns the golden file's lines by name.
func readGolden(t *testing.T) map[string]string {
	text, err := os.ReadFile(goodputGolden)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	lines := map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, " ")
		if !strings.HasPrefix(name, "#") && rest != "" {
			lines[name] = strings.TrimSpace(rest)
		}
	}
	return lines
}
