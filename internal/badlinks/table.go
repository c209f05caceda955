//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"

	"bsdnet/internal/badlinks/lab"
	"bsdnet/qlog"
)

// A cell is one transfer of the table, and its result.
type cell struct {
	lab.Cell
	pair   string
	result lab.Result
}

func (c *cell) String() string { return fmt.Sprintf("%s %s seed %d", c.Path.Name, c.pair, c.Seed) }

// cells returns all cells in the order in which they run. Cells that are compared with each other
// run one after the other.
func (o *options) cells() (cells []*cell) {
	for _, path := range o.paths {
		for _, seed := range o.seeds {
			for _, pair := range o.pairs {
				c := &cell{Cell: o.cell, pair: pair}
				c.Path, c.Seed = path, seed
				c.From, c.To = pairs[pair][0], pairs[pair][1]
				cells = append(cells, c)
			}
		}
	}
	return cells
}

// runAll runs the cells, several at once if the flags say so.
func (o *options) runAll(cells []*cell) error {
	var (
		next = make(chan *cell)
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs []error
	)
	for range max(o.parallel, 1) {
		wg.Go(func() {
			for c := range next {
				err := o.runOne(c, len(cells) == 1)
				mu.Lock()
				if err != nil {
					errs = append(errs, fmt.Errorf("%v: %w", c, err))
				}
				o.report(c)
				mu.Unlock()
			}
		})
	}
	for _, c := range cells {
		mu.Lock()
		failed := len(errs) > 0
		mu.Unlock()
		if failed {
			break
		}
		next <- c
	}
	close(next)
	wg.Wait()
	return errors.Join(errs...)
}

// file creates a cell's file. If there are several cells, the name contains the cell.
func (c *cell) file(name string, only bool) (*os.File, error) {
	if !only {
		ext := filepath.Ext(name)
		path := strings.TrimSuffix(c.Path.Name, "%")
		name = fmt.Sprintf("%s-%s-%s-%d%s", strings.TrimSuffix(name, ext), path, c.pair, c.Seed, ext)
	}
	return os.Create(name)
}

// runOne runs a cell, with its capture and its trace.
func (o *options) runOne(c *cell, only bool) (err error) {
	if o.pcap != "" {
		f, err := c.file(o.pcap, only)
		if err != nil {
			return err
		}
		w := bufio.NewWriterSize(f, 1<<20)
		c.Capture = w
		defer func() { err = errors.Join(err, w.Flush(), f.Close()) }()
	}
	if o.qlog != "" {
		f, err := c.file(o.qlog, only)
		if err != nil {
			return err
		}
		q := qlog.New(f)
		c.Config.Trace = q.Trace
		defer func() { err = errors.Join(err, q.Close(), f.Close()) }()
	}
	c.result, err = lab.Run(c.Cell)
	return err
}

// report prints the result of a cell, as far as the flags ask for it.
func (o *options) report(c *cell) {
	r := &c.result
	if o.verbose {
		word := "done"
		switch {
		case r.Err != nil:
			word = r.Err.Error()
		case !r.Done:
			word = "too slow"
		}
		fmt.Fprintf(os.Stderr, "%v: %.3g Mbit/s, %d bytes in %.2f s, %s; there %+v, back %+v, %d vanished\n",
			c, r.Mbit(), r.Bytes, r.Elapsed.Seconds(), word, r.Stats.Write, r.Stats.Read, r.Vanished)
	}
	if r.Err != nil && !o.verbose {
		fmt.Fprintf(os.Stderr, "%v: %v\n", c, r.Err)
	}
	if o.info && r.Info != nil {
		fmt.Fprintf(os.Stderr, "%v: %+v\n", c, *r.Info)
	}
}

// A sum has the contents of a field of the table.
type sum struct {
	median       float64
	slow, failed int
	seeds        int
}

// sumOf sums up the cells of a path and pair. If there are none, the sum is zero.
func sumOf(cells []*cell, path, pair string) (s sum) {
	var rates []float64
	for _, c := range cells {
		if c.Path.Name != path || c.pair != pair {
			continue
		}
		rates = append(rates, c.result.Mbit())
		switch {
		case c.result.Err != nil:
			s.failed++
		case !c.result.Done:
			s.slow++
		}
	}
	if len(rates) == 0 {
		return s
	}
	slices.Sort(rates)
	s.seeds = len(rates)
	s.median = (rates[(s.seeds-1)/2] + rates[s.seeds/2]) / 2
	return s
}

// print prints the table.
func (o *options) print(w io.Writer, cells []*cell) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer tw.Flush()
	fmt.Fprintf(tw, "link\t%s\n", strings.Join(o.pairs, "\t"))
	for _, path := range o.paths {
		base := sumOf(cells, path.Name, "kk")
		fmt.Fprint(tw, path.Name)
		for _, pair := range o.pairs {
			s := sumOf(cells, path.Name, pair)
			fmt.Fprintf(tw, "\t%.3g", s.median)
			if pair != "kk" && base.median > 0 {
				fmt.Fprintf(tw, " %.2f", s.median/base.median)
			}
			if s.slow > 0 {
				fmt.Fprintf(tw, " slow %d/%d", s.slow, s.seeds)
			}
			if s.failed > 0 {
				fmt.Fprintf(tw, " failed %d/%d", s.failed, s.seeds)
			}
		}
		fmt.Fprintln(tw)
	}
}
