//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bsdnet/internal/badlinks/lab"
)

// The flags choose the cells.
func TestParse(t *testing.T) {
	for _, c := range []struct {
		args  string
		cells int
		check func(c *cell) bool
	}{
		{"", lab.Bad * 4, func(c *cell) bool {
			return c.Path.Name == "clean" && c.pair == "kk" && c.From == lab.Kernel && c.To == lab.Kernel &&
				c.Seed == 1 && c.KernelCC == "cubic"
		}},
		{"-links loss5,synack -pairs bk -seeds 3,4,5 -kcc reno", 6, func(c *cell) bool {
			return c.Path.Name == "loss5" && c.Path.Impairment.Loss == 0.05 && c.From == lab.BSD &&
				c.To == lab.Kernel && c.Seed == 3 && c.KernelCC == "reno"
		}},
		{"-grid -pairs bb", len(lab.Grid()), func(c *cell) bool {
			return c.Path.Rate == 100e6 && c.Time == 10*time.Second && c.From == lab.BSD && c.To == lab.BSD
		}},
		{"-grid -pairs bb -n 1000", len(lab.Grid()), func(c *cell) bool { return c.Bytes == 1000 && c.Time == 0 }},
		{"-rate 8e6 -rtt 100ms -loss 0.5 -queue 2 -pairs kb -t 3s -limit 9s", 1, func(c *cell) bool {
			return c.Path.Rate == 8e6 && c.Path.RTT == 100*time.Millisecond && c.Path.Impairment.Loss == 0.5 &&
				c.Path.Queue == 200_000 && c.Time == 3*time.Second && c.Limit == 9*time.Second
		}},
	} {
		o, err := parse(strings.Fields(c.args))
		if err != nil {
			t.Errorf("%s: %v", c.args, err)
			continue
		}
		if cells := o.cells(); len(cells) != c.cells || !c.check(cells[0]) {
			t.Errorf("%s: %d cells, want %d; the first is %+v", c.args, len(cells), c.cells, cells[0])
		}
	}
	for _, args := range []string{"-links none", "-pairs kx", "-seeds x", "more", "-seeds="} {
		if _, err := parse(strings.Fields(args)); err == nil {
			t.Errorf("%s: no error", args)
		}
	}
}

// The table has medians, ratios to Linux to Linux, and the numbers of slow and failed cells.
func TestPrint(t *testing.T) {
	o, err := parse(strings.Fields("-links loss1,loss5 -pairs kk,bk -seeds 1,2,3"))
	if err != nil {
		t.Fatal(err)
	}
	cells := o.cells()
	for i, mbit := range []float64{
		10, 5, // seed 1: kk, bk
		30, 7,
		20, 3,
		8, 0,
		8, 2,
		8, 16,
	} {
		cells[i].result = lab.Result{Bytes: int64(mbit * 1e6 / 8), Elapsed: time.Second, Done: true}
	}
	cells[7].result = lab.Result{Err: errors.New("reset")}
	cells[9].result.Done = false
	var b strings.Builder
	o.print(&b, cells)
	want := `link   kk  bk
loss1  20  5 0.25
loss5  8   2 0.25 slow 1/3 failed 1/3
`
	if b.String() != want {
		t.Errorf("%s\nwant\n%s", b.String(), want)
	}
}

// All cells run, and each has its result.
func TestRunAll(t *testing.T) {
	o, err := parse(strings.Fields("-rate 10e6 -rtt 2ms -pairs bb -seeds 1,2,3 -n 10000 -parallel 2"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	o.pcap = filepath.Join(dir, "x.pcap")
	cells := o.cells()
	if err := o.runAll(cells); err != nil {
		t.Fatal(err)
	}
	for _, c := range cells {
		if !c.result.Done || c.result.Bytes != 10000 {
			t.Errorf("%v: %+v", c, c.result)
		}
		name := fmt.Sprintf("x-0-bb-%d.pcap", c.Seed)
		if f, err := os.Stat(filepath.Join(dir, name)); err != nil || f.Size() < 10000 {
			t.Errorf("%s: %v, %v", name, f, err)
		}
	}
}
