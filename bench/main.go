package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"time"
)

const usage = `usage: go run . [flags] [FILE...]

It measures bsdnet, the kernel and gVisor in turn, and prints the medians of several rounds with the
least and the most, how many times as good as the kernel and gVisor they are, and their cost. With
files that -json has printed before, it measures nothing, and reports on all their rows together.
go doc -cmd . explains the rows and the peers.

`

const examples = `
examples:
  go run .                                       all rows except those of growth
  go run . -group 'tunnel|wireguard'             two groups of rows
  go run . -row '^(bulk|pp)1$' -peer bsdnet      two rows of one peer
  go run . -row '^bulk' -beside old=/tmp/old     with another build in the same rounds
  go run . -row . -json >all.json                everything, as JSON
  go run . -md -plot charts all.json >RESULTS.md the project's results
`

func main() {
	if err := command(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	plan
	asJSON, md, list bool
	plots, beside    string
	ccAsked          bool // the command line has -cc
	files            []string
}

// command runs the command line.
func command() error {
	o, err := parse()
	if err != nil {
		return err
	}
	if o.list {
		return printList(os.Stdout, &o.plan)
	}
	if len(o.files) > 0 {
		rep, err := readReports(o.files)
		if err != nil {
			return err
		}
		return o.output(rep)
	}
	return o.measureAll()
}

// parse reads the command line.
func parse() (*options, error) {
	o := &options{plan: plan{progress: os.Stderr, settings: settings{verify: 16 << 20, scale: 1}}}
	flag.BoolVar(&o.asJSON, "json", false, "print JSON, with every round")
	flag.BoolVar(&o.md, "md", false, "print Markdown: all of RESULTS.md")
	flag.StringVar(&o.plots, "plot", "", "write charts, as SVG, into the `folder`")
	row := flag.String("row", "", "measure the rows whose names match the `regexp`; "+
		"by default, all except those of growth")
	group := flag.String("group", "", "measure the groups whose whole names match the `regexp`: "+
		"loopback, pair, tun, tunnel, wireguard, dgram, grow")
	who := flag.String("peer", "", "measure the peers whose names match the `regexp`")
	flag.BoolVar(&o.list, "list", false, "list the rows with their peers and the time that they take")
	flag.IntVar(&o.rounds, "rounds", 5, "the number of rounds")
	flag.DurationVar(&o.time, "time", time.Second, "the time of each measurement, after the warm-up")
	flag.DurationVar(&o.warm, "warm", 300*time.Millisecond, "the time of the warm-up")
	flag.StringVar(&o.profiles, "cpuprofile", "", "write a CPU profile of the last round of each row and peer "+
		"into the `folder`, as ROW.PEER.prof")
	cc := flag.String("cc", congestions[0].kernel, "use this congestion control at all ends, "+
		"under the kernel's `name` for it: cubic, reno, bbr")
	flag.StringVar(&o.beside, "beside", "", "also measure the bsdnet of another binary of this program, "+
		"such as one of another commit: `NAME=PATH`")
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), usage)
		flag.PrintDefaults()
		fmt.Fprint(flag.CommandLine.Output(), examples)
	}
	flag.Parse()
	flag.Visit(func(f *flag.Flag) { o.ccAsked = o.ccAsked || f.Name == "cc" })
	o.files = flag.Args()
	switch {
	case o.rounds < 1 || o.time <= 0 || o.warm < 0:
		return nil, errors.New("-rounds and -time must be more than 0, and -warm must not be negative")
	case o.beside != "" && o.profiles != "":
		return nil, errors.New("-beside measures in other processes, which -cpuprofile cannot profile; leave one out")
	}
	var err error
	if o.rows, err = pattern(*row); err != nil {
		return nil, fmt.Errorf("-row: %w", err)
	}
	if o.peers, err = pattern(*who); err != nil {
		return nil, fmt.Errorf("-peer: %w", err)
	}
	if *group != "" {
		if o.groups, err = pattern("^(?:" + *group + ")$"); err != nil {
			return nil, fmt.Errorf("-group: %w", err)
		}
	}
	if o.cc, err = findCongestion(*cc); err != nil {
		return nil, fmt.Errorf("-cc: %w", err)
	}
	return o, nil
}

// measureAll carries out the plan and returns the report.
func (o *options) measureAll() error {
	if err := isolate(); err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	if err := o.cc.possible(); err != nil && o.ccAsked {
		return fmt.Errorf("-cc: %w", err)
	} else if err != nil {
		kept := kernelCongestion()
		fmt.Fprintf(o.progress, "the kernel keeps its own congestion control, %s: %v\n", kept, err)
		if o.cc, err = findCongestion(kept); err != nil {
			o.cc = congestions[0]
			o.cc.kernel = kept
		}
	}
	if o.beside != "" {
		b, err := openBuild(o.beside)
		if err != nil {
			return fmt.Errorf("-beside: %w", err)
		}
		o.plan.beside = b
	}
	for _, dir := range []string{o.profiles, o.plots} {
		if dir != "" {
			if err := os.MkdirAll(dir, 0o777); err != nil {
				return err
			}
		}
	}
	fmt.Fprintln(o.progress, o.estimateText())
	start := time.Now()
	rep := report{Machine: thisMachine(o.cc.kernel), Rounds: o.rounds, Seconds: o.time.Seconds()}
	if rep.Results = o.run(); len(rep.Results) == 0 {
		return errors.New(noRow)
	}
	rep.Took = time.Since(start).Seconds()
	if err := o.output(&rep); err != nil {
		return err
	}
	return rep.failures()
}

// noRow is the error of a run that has nothing to measure.
const noRow = "no row matches; -list lists them"

// pattern compiles a regular expression, if there is one.
func pattern(s string) (*regexp.Regexp, error) {
	if s == "" {
		return nil, nil
	}
	return regexp.Compile(s)
}

// output prints a report in the form that the command line asks for.
func (o *options) output(rep *report) error {
	var charts []chart
	if o.plots != "" {
		if err := os.MkdirAll(o.plots, 0o777); err != nil {
			return err
		}
		var err error
		if charts, err = writeCharts(o.plots, rep); err != nil {
			return err
		}
	}
	switch {
	case o.asJSON:
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", " ")
		return e.Encode(rep)
	case o.md:
		return markdown(os.Stdout, rep, charts)
	}
	return text(os.Stdout, rep)
}
