package tcp

import (
	"flag"
	"fmt"
	"hash/fnv"
	"os"
	"strconv"
	"strings"
	"testing"

	"bsdnet/internal/testutil"
)

// How much of a link does a sender use? TestGoodput simulates each congestion control, on paths of
// all kinds and beside other senders, and compares the results with testdata/goodput.golden. A
// result that has changed is not a fault by itself, but somebody must look at it:
//
//	go test -run TestGoodput -update ./internal/kern/tcp
//
// writes the file anew, and its diff shows what has become better or worse. docs/goodput.md
// explains and draws the results.

var update = flag.Bool("update", false, "rewrite the golden file, and the drawings in docs")

const goodputGolden = "testdata/goodput.golden"

// goodputCCs are the congestion controls that are compared.
var goodputCCs = []string{"cubic", "newreno", "bbr"}

// setCC gives a profile a congestion control.
func setCC(p *Profile, name string) {
	p.CC = name
}

// ccProfile is what a simulated sender has.
func ccProfile(name string) *Profile {
	p := pathProfile()
	setCC(p, name)
	return p
}

// A goodputJob is a simulation. Its line in the golden file consists of its name and of what run
// returns.
type goodputJob struct {
	name string
	run  func(t testing.TB, seed uint64) string
}

// seed returns the seed of a job's path. Jobs that differ only in congestion control have the same
// seed, so that each sender meets the same losses.
func (j *goodputJob) seed() uint64 {
	_, path, _ := strings.Cut(j.name, "/")
	return hash64(path)
}

func hash64(s string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(s))
	return h.Sum64()
}

// The grid. The longer the round trip, the slower is the link, and the longer a transfer lasts: for
// as long as the link takes to carry gridBits, which is more than 40,000 packets.
var (
	gridLinks   = []struct{ rtt, rate int64 }{{1 * ms, 500e6}, {20 * ms, 100e6}, {100 * ms, 25e6}, {300 * ms, 10e6}}
	gridQueues  = []float64{0.1, 1}                           // in bandwidth-delay products
	gridReorder = []float64{0, 0.01, 0.1}                     // probability
	gridLoss    = []float64{0, 0.0001, 0.001, 0.01, 0.05, .1} // probability
)

const (
	gridBits    = 500e6
	gridPackets = 20000
)

// gridJobs are the cells of the grid.
func gridJobs() (jobs []goodputJob) {
	for _, cc := range goodputCCs {
		for _, l := range gridLinks {
			for _, queue := range gridQueues {
				for _, reorder := range gridReorder {
					for _, loss := range gridLoss {
						path := pathParams{rate: l.rate, rtt: l.rtt, queue: queue, reorder: reorder, loss: loss}
						jobs = append(jobs, goodputJob{
							name: fmt.Sprintf("%s/rtt=%dms/queue=%g/reorder=%s/loss=%s",
								cc, l.rtt/ms, queue, gridPercent(reorder), gridPercent(loss)),
							run: func(t testing.TB, seed uint64) string {
								path.seed = seed
								return digits(runCell(t, cc, path))
							},
						})
					}
				}
			}
		}
	}
	return jobs
}

// runCell returns a cell's goodput: the mean of as many transfers as are needed for gridPackets
// packets, up to ten, so that chance counts for less if a transfer has few of them.
func runCell(t testing.TB, cc string, path pathParams) float64 {
	seed, d := path.seed, gridBits*sec/path.rate
	sum, runs := 0.0, 0
	for packets := uint64(0); packets < gridPackets && runs < 10; runs++ {
		path.seed = pathFate(seed, uint64(runs), 0)
		s := newPathNet(t, path, []*Profile{ccProfile(cc)}, []int64{0})
		s.run(d)
		s.done()
		f := s.flows[0]
		sum += ofLink(f.receiver.read, path.rate, d-(f.sender.since-epoch))
		packets += s.there.n
	}
	return sum / float64(runs)
}

// ofLink returns which part n bytes are of what a link carries in time d.
func ofLink(n uint64, rate, d int64) float64 {
	return float64(n) * 8 / (float64(rate) * float64(d) / float64(sec))
}

// digits prints a fraction with three decimals, or two significant digits if it is small.
func digits(x float64) string {
	if x >= 0.0995 || x == 0 {
		return strconv.FormatFloat(x, 'f', 3, 64)
	}
	return strconv.FormatFloat(x, 'g', 2, 64)
}

// gridPercent prints a probability in a name.
func gridPercent(p float64) string { return strconv.FormatFloat(100*p, 'g', 6, 64) + "%" }

const goldenHead = `# Goodput in simulated networks. TestGoodput -update writes this file; docs/goodput.md explains it.
#
# One sender: what the receiving user has read, as a fraction of what the link could have carried.
`

const goldenShared = `
# Several senders: the fraction of the link that they use together; Jain's index; mean and 95th
# percentile of the time that data waits in the queue (ms); seconds until the split is fair, if the
# second flow begins late; each flow's share. Below them, the flows in percent of the link, for each
# second.
`

func TestGoodput(t *testing.T) {
	out, ran, jobs := goldenHead, 0, 0
	golden := readGolden(t)
	run := func(j goodputJob) {
		jobs++
		if !*update && !inSample(j.name) {
			return
		}
		t.Run(j.name, func(t *testing.T) {
			got := j.run(t, j.seed())
			ran++
			if *update {
				out += fmt.Sprintf("%-52s %s\n", j.name, got)
				return
			}
			if want, ok := golden[j.name]; len(golden) > 0 && (!ok || got != want) {
				t.Errorf("seed %d: got\n%s, want\n%s", j.seed(), got, want)
			}
		})
	}
	for _, j := range gridJobs() {
		run(j)
	}
	out += goldenShared
	for _, j := range shareJobs() {
		run(j)
	}
	switch {
	case t.Failed():
	case *update && ran < jobs:
		t.Fatalf("%d of %d simulations have been run: the golden file needs all", ran, jobs)
	case *update:
		if err := os.MkdirAll("testdata", 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(goodputGolden, []byte(out), 0o666); err != nil {
			t.Fatal(err)
		}
	case len(golden) == 0:
		t.Fatal("there is no " + goodputGolden)
	}
	t.Run("drawings", testGoodputDrawings)
}

// inSample reports whether a job is run without -update: one in eight is, and one in 64 with the
// race detector, which makes the simulation much slower. With BSDNET_LONG=1 in the environment all
// are.
func inSample(name string) bool {
	n := uint64(8)
	switch {
	case testutil.Race:
		n = 64
	case os.Getenv("BSDNET_LONG") == "1":
		n = 1
	}
	return hash64(name)%n == 0
}

// readGolden returns what the golden file says of each job. A line that begins with a space
// continues the line before it.
func readGolden(t *testing.T) goldenLines {
	text, err := os.ReadFile(goodputGolden)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	lines := goldenLines{}
	name := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		switch first, rest, _ := strings.Cut(line, " "); {
		case first == "" && name != "" && rest != "":
			lines[name] += "\n" + line
		case first != "" && first != "#":
			name = first
			lines[name] = strings.TrimSpace(rest)
		}
	}
	return lines
}
