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

Measures bsdnet beside the kernel and gVisor, in turn, and prints the medians of several rounds with the least and the most,
how many times as good as the kernel and gVisor they are, and what they cost. go doc -cmd . explains the rows and the peers.
With files, which are what -json has printed before, it measures nothing and reports on them; their rows are put together.

`

const examples = `
examples:
  go run .                                       all rows but those of growth
  go run . -row '^(bulk|pp)1$' -peer bsdnet      two rows of one peer
  go run . -row . -json >all.json                everything, as JSON
  go run . -md -plot charts all.json >RESULTS.md what the project shows
`

func main() {
	if err := command(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// command does what the arguments say.
func command() error {
	p := plan{progress: os.Stderr, settings: settings{verify: 16 << 20, scale: 1}}
	asJSON := flag.Bool("json", false, "print JSON, with every round")
	md := flag.Bool("md", false, "print Markdown: all of RESULTS.md")
	plots := flag.String("plot", "", "write charts, as SVG, into the `folder`")
	row := flag.String("row", "", "measure the rows whose names match the `regexp`; all but those of growth without one")
	who := flag.String("peer", "", "measure the peers whose names match the `regexp`")
	list := flag.Bool("list", false, "list the rows, and their peers")
	flag.IntVar(&p.rounds, "rounds", 5, "how many rounds")
	flag.DurationVar(&p.time, "time", time.Second, "how long each measurement takes, after the warm-up")
	flag.DurationVar(&p.warm, "warm", 300*time.Millisecond, "how long the warm-up takes")
	flag.StringVar(&p.profiles, "cpuprofile", "", "write a CPU profile of the last round of each row and peer into the `folder`, as ROW.PEER.prof")
	cc := flag.String("cc", "", "the kernel's congestion control, by `name`: reno, cubic, bbr; without one what the machine has")
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), usage)
		flag.PrintDefaults()
		fmt.Fprint(flag.CommandLine.Output(), examples)
	}
	flag.Parse()
	if p.rounds < 1 || p.time <= 0 || p.warm < 0 {
		return errors.New("-rounds and -time are more than nothing")
	}
	var err error
	if p.rows, err = pattern(*row); err != nil {
		return fmt.Errorf("-row: %w", err)
	}
	if p.peers, err = pattern(*who); err != nil {
		return fmt.Errorf("-peer: %w", err)
	}
	if *list {
		printList(os.Stdout, &p)
		return nil
	}
	if flag.NArg() > 0 {
		rep, err := readReports(flag.Args())
		if err != nil {
			return err
		}
		return output(rep, *asJSON, *md, *plots)
	}
	if err := isolate(); err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	if *cc != "" {
		if err := setCongestion(*cc); err != nil {
			return fmt.Errorf("-cc: %w", err)
		}
	}
	for _, dir := range []string{p.profiles, *plots} {
		if dir != "" {
			if err := os.MkdirAll(dir, 0o777); err != nil {
				return err
			}
		}
	}
	rep := report{Machine: thisMachine(), Rounds: p.rounds, Seconds: p.time.Seconds()}
	if rep.Results = p.run(); len(rep.Results) == 0 {
		return errors.New("no row matches; -list lists them")
	}
	if err := output(&rep, *asJSON, *md, *plots); err != nil {
		return err
	}
	return rep.failures()
}

// pattern compiles a regular expression, if there is one.
func pattern(s string) (*regexp.Regexp, error) {
	if s == "" {
		return nil, nil
	}
	return regexp.Compile(s)
}

// output prints a report in the form that is asked for.
func output(rep *report, asJSON, md bool, plots string) error {
	var charts []chart
	if plots != "" {
		if err := os.MkdirAll(plots, 0o777); err != nil {
			return err
		}
		var err error
		if charts, err = writeCharts(plots, rep); err != nil {
			return err
		}
	}
	switch {
	case asJSON:
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", " ")
		return e.Encode(rep)
	case md:
		return markdown(os.Stdout, rep, charts)
	}
	return text(os.Stdout, rep)
}
