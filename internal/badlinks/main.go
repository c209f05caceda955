//go:build linux

// Command badlinks measures the goodput of a TCP stream over bad paths, from Linux to Linux, from
// and to bsdnet, and between two stacks, through the same path with the same seed. It needs root
// and /dev/net/tun. Package lab says how it works.
//
//	go run ./internal/badlinks                               the bad links, all pairs, seed 1
//	go run ./internal/badlinks -links loss5,jitter9 -seeds 1,2,3
//	go run ./internal/badlinks -grid -t 10s -pairs kk,bk     0 to 20 % of loss
//	go run ./internal/badlinks -rate 50e6 -rtt 80ms -loss 0.01 -pairs bk -info -pcap /tmp/bk.pcap
//
// A cell of the table has the median goodput over the seeds in Mbit/s, and its ratio to Linux to
// Linux. "slow" counts the seeds with which not all bytes arrived within -limit, and "failed" those
// with which the connection broke; the goodput until then counts.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"bsdnet/internal/badlinks/lab"
)

// pairs are the combinations of ends: the sender's letter first.
var pairs = map[string][2]lab.Kind{
	"kk": {lab.Kernel, lab.Kernel},
	"bk": {lab.BSD, lab.Kernel},
	"kb": {lab.Kernel, lab.BSD},
	"bb": {lab.BSD, lab.BSD},
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "badlinks:", err)
		os.Exit(1)
	}
}

// options are the values of the flags.
type options struct {
	cell     lab.Cell // what all cells have in common
	paths    []lab.Path
	pairs    []string
	seeds    []uint64
	parallel int
	pcap     string
	qlog     string
	info     bool
	verbose  bool
}

func run() error {
	o, err := parse(os.Args[1:])
	if err != nil || o == nil {
		return err
	}
	cells := o.cells()
	if err := o.runAll(cells); err != nil {
		return err
	}
	o.print(os.Stdout, cells)
	return nil
}

// pathFlags are the flags that choose the paths.
type pathFlags struct {
	links string
	grid  bool
	rate  float64
	rtt   time.Duration
	loss  float64
	queue float64
}

func (p *pathFlags) register(f *flag.FlagSet) {
	f.StringVar(&p.links, "links", "", "names of links, see -list; default: all bad links")
	f.BoolVar(&p.grid, "grid", false, "instead of the bad links: 100 Mbit/s, 20 ms, 0 to 20 % of loss")
	f.Float64Var(&p.rate, "rate", 0, "bits a second of all paths; without -links or -grid it makes a path")
	f.DurationVar(&p.rtt, "rtt", 0, "round trip time, likewise")
	f.Float64Var(&p.loss, "loss", -1, "probability of loss, 0 to 1, likewise")
	f.Float64Var(&p.queue, "queue", 0, "queue of all paths in bandwidth-delay products; default: the path's")
}

// paths returns the paths that the flags choose, with what they change in all of them.
func (p *pathFlags) paths() (paths []lab.Path, err error) {
	switch {
	case p.grid:
		paths = lab.Grid()
	case p.links != "":
		for _, name := range strings.Split(p.links, ",") {
			path, err := find(name)
			if err != nil {
				return nil, err
			}
			paths = append(paths, path)
		}
	case p.rate > 0 || p.rtt > 0 || p.loss >= 0:
		paths = []lab.Path{lab.Lossy(200e6, 20*time.Millisecond, max(p.loss, 0))}
	default:
		paths = lab.Paths()[:lab.Bad]
	}
	for i := range paths {
		path := &paths[i]
		if p.rate > 0 {
			path.Rate = int64(p.rate)
		}
		if p.rtt > 0 {
			path.RTT = p.rtt
		}
		if p.loss >= 0 {
			path.Impairment.Loss = p.loss
		}
		if p.queue > 0 {
			path.Queue = max(int(p.queue*float64(path.BDP())), lab.MTU)
		}
	}
	return paths, nil
}

// parse reads the flags. It returns nil if there is nothing to run.
func parse(args []string) (*options, error) {
	f := flag.NewFlagSet("badlinks", flag.ContinueOnError)
	var (
		o     options
		p     pathFlags
		pair  = f.String("pairs", "kk,bk,kb,bb", "who sends to whom: k is Linux, b bsdnet")
		seeds = f.String("seeds", "1", "the paths' seeds")
		list  = f.Bool("list", false, "list the links and exit")
	)
	p.register(f)
	f.Int64Var(&o.cell.Bytes, "n", 0, "bytes to send; default: the path's")
	f.DurationVar(&o.cell.Time, "t", 0, "send for this time instead; default 10s with -grid")
	f.DurationVar(&o.cell.Limit, "limit", 0, "the most that a cell may take, with the dial; default 60s, more with -t")
	f.StringVar(&o.cell.KernelCC, "kcc", "cubic",
		"the kernel's congestion control: cubic, reno or bbr, if the system has it; \"\" is its default")
	f.StringVar(&o.cell.Config.TCP.CongestionControl, "cc", "", "bsdnet's congestion control; default: cubic")
	f.IntVar(&o.parallel, "parallel", 1, "how many cells run at once")
	f.StringVar(&o.pcap, "pcap", "", "capture at the sender to this `file`; several cells have a file each")
	f.StringVar(&o.qlog, "qlog", "", "write the events on bsdnet's connections to this `file`, for cmd/tcpplot; "+
		"several cells have a file each")
	f.BoolVar(&o.info, "info", false, "print the bsdnet senders' TCPConn.Info at the end")
	f.BoolVar(&o.verbose, "v", false, "print each cell as it ends")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil, nil
		}
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unexpected: %s", f.Arg(0))
	}
	if *list {
		for _, p := range lab.Paths() {
			fmt.Printf("%-10s %s\n", p.Name, p.About)
		}
		return nil, nil
	}
	if p.grid && o.cell.Time == 0 && o.cell.Bytes == 0 {
		o.cell.Time = 10 * time.Second
	}
	var err error
	if o.paths, err = p.paths(); err != nil {
		return nil, err
	}
	for _, s := range strings.Split(*seeds, ",") {
		seed, err := strconv.ParseUint(s, 0, 64)
		if err != nil {
			return nil, fmt.Errorf("-seeds: %w", err)
		}
		o.seeds = append(o.seeds, seed)
	}
	for _, s := range strings.Split(*pair, ",") {
		if _, ok := pairs[s]; !ok {
			return nil, fmt.Errorf("-pairs: %q is not one of kk, bk, kb, bb", s)
		}
		o.pairs = append(o.pairs, s)
	}
	return &o, nil
}

// find returns the path with a name.
func find(name string) (lab.Path, error) {
	for _, p := range lab.Paths() {
		if p.Name == name {
			return p, nil
		}
	}
	return lab.Path{}, fmt.Errorf("there is no link %q; -list shows their names", name)
}
