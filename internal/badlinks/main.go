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

// parse reads the flags. It returns nil if there is nothing to run.
func parse(args []string) (*options, error) {
	f := flag.NewFlagSet("badlinks", flag.ContinueOnError)
	var (
		o      options
		pair   = f.String("pairs", "kk,bk,kb,bb", "who sends to whom: k is Linux, b bsdnet")
		seeds  = f.String("seeds", "1", "the paths' seeds")
		links  = f.String("links", "", "names of links, see -list; default: all bad links")
		list   = f.Bool("list", false, "list the links and exit")
		grid   = f.Bool("grid", false, "instead of the bad links: 100 Mbit/s, 20 ms, 0 to 20 % of loss")
		rate   = f.Float64("rate", 0, "bits a second of all paths; without -links or -grid it makes a path")
		rtt    = f.Duration("rtt", 0, "round trip time, likewise")
		loss   = f.Float64("loss", -1, "probability of loss, 0 to 1, likewise")
		queue  = f.Float64("queue", 0, "queue of all paths in bandwidth-delay products; default: the path's")
		bytes  = f.Int64("n", 0, "bytes to send; default: the path's")
		length = f.Duration("t", 0, "send for this time instead; default 10s with -grid")
		limit  = f.Duration("limit", 0, "the most that a cell may take, with the dial; default 60s, more with -t")
	)
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
	o.cell.Bytes, o.cell.Time, o.cell.Limit = *bytes, *length, *limit
	own := *rate > 0 || *rtt > 0 || *loss >= 0
	switch {
	case *grid:
		o.paths = lab.Grid()
		if o.cell.Time == 0 && o.cell.Bytes == 0 {
			o.cell.Time = 10 * time.Second
		}
	case *links != "":
		for _, name := range strings.Split(*links, ",") {
			p, err := find(name)
			if err != nil {
				return nil, err
			}
			o.paths = append(o.paths, p)
		}
	case own:
		o.paths = []lab.Path{lab.Lossy(200e6, 20*time.Millisecond, max(*loss, 0))}
	default:
		o.paths = lab.Paths()[:lab.Bad]
	}
	for i := range o.paths {
		p := &o.paths[i]
		if *rate > 0 {
			p.Rate = int64(*rate)
		}
		if *rtt > 0 {
			p.RTT = *rtt
		}
		if *loss >= 0 {
			p.Impairment.Loss = *loss
		}
		if *queue > 0 {
			p.Queue = max(int(*queue*float64(p.BDP())), lab.MTU)
		}
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
