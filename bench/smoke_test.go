package main

import (
	"fmt"
	"os"
	"regexp"
	"testing"
	"time"
)

// asCommand is the environment variable that makes the test's binary run as the program.
const asCommand = "BSDNET_BENCH_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
		os.Exit(0)
	}
	if err := isolate(); err != nil {
		fmt.Fprintln(os.Stderr, "network namespace:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// tiny are the smallest settings that show that a row works.
var tiny = settings{warm: time.Millisecond, time: 5 * time.Millisecond, verify: 256 << 10, scale: 200}

// Every row works with every peer: a round of a few milliseconds moves something, or there is a
// reason why not.
func TestEveryRow(t *testing.T) {
	p := plan{settings: tiny, cc: congestions[0], rounds: 1, rows: regexp.MustCompile("."), progress: t.Output()}
	results := p.run()
	if len(results) != len(rows()) {
		t.Errorf("%d results of %d rows", len(results), len(rows()))
	}
	for _, r := range results {
		measured := 0
		for _, q := range r.Peers {
			switch {
			case q.Error != "":
				t.Errorf("%s by %s: %s", r.Row, q.Name, q.Error)
			case q.Skipped != "":
				t.Logf("%s by %s: %s", r.Row, q.Name, q.Skipped)
			case len(q.Samples) != 1:
				t.Errorf("%s by %s: %d samples of one round", r.Row, q.Name, len(q.Samples))
			case !(q.Samples[0].Value > 0) && r.Kind != kindIdle:
				// A few idle connections may take less memory than is freed meanwhile.
				t.Errorf("%s by %s: %v", r.Row, q.Name, q.Samples[0].Value)
			default:
				measured++
			}
		}
		if measured == 0 && r.Scene != "TUN device: the kernel at one end" {
			t.Errorf("%s: no peer has been measured", r.Row)
		}
	}
	if err := (&report{Results: results}).failures(); err != nil {
		t.Error(err)
	}
	for _, f := range []func() error{
		func() error { return text(t.Output(), &report{Results: results}) },
		func() error { return markdown(t.Output(), &report{Results: results}, nil) },
		func() error { _, err := writeCharts(t.TempDir(), &report{Results: results}); return err },
	} {
		if err := f(); err != nil {
			t.Error(err)
		}
	}
}

// The harness allocates nothing in its timed loops: a peer without a protocol makes no garbage.
func TestHarnessAllocatesNothing(t *testing.T) {
	for _, r := range []row{bulkRow("", 1), pingPongRow("", 1, 1), pingPongRow("", 64, 1024)} {
		var q peer
		for _, q = range memoryPeers() {
			if q.name == "bufpipe" {
				break
			}
		}
		s := tiny
		s.time = 50 * time.Millisecond
		p := plan{settings: s, cc: congestions[0], rounds: 1, progress: t.Output()}
		got, err := p.measure(r, q, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got.Allocs > 0.1 {
			t.Errorf("%s: %v allocations per operation", r.name, got.Allocs)
		}
	}
}

// A profile is written for each row and peer.
func TestProfiles(t *testing.T) {
	dir := t.TempDir()
	p := plan{settings: tiny, cc: congestions[0], rounds: 1, rows: regexp.MustCompile("^pp1$"),
		peers: regexp.MustCompile("^bsdnet$"), profiles: dir, progress: t.Output()}
	p.run()
	if info, err := os.Stat(dir + "/pp1.bsdnet.prof"); err != nil || info.Size() == 0 {
		t.Errorf("no profile: %v", err)
	}
}

// Another build is measured in the same rounds as this one, each in a process of its own. A row
// that the other build does not have is left out.
func TestBeside(t *testing.T) {
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(asCommand, "1")
	b, err := openBuild("old=" + own)
	if err != nil {
		t.Fatal(err)
	}
	p := plan{settings: tiny, cc: congestions[0], rounds: 2, rows: regexp.MustCompile("^pp1$"),
		peers: regexp.MustCompile("^(bsdnet|bufpipe)$"), beside: b, progress: t.Output()}
	results := p.run()
	if len(results) != 1 || len(results[0].Peers) != 3 {
		t.Fatalf("%+v", results)
	}
	for i, want := range []string{"bsdnet", "bsdnet@old", "bufpipe"} {
		q := results[0].Peers[i]
		if q.Name != want || len(q.Samples) != 2 || !(q.Samples[0].Value > 0) || q.Error != "" {
			t.Errorf("%+v", q)
		}
	}
	if s := summarize(&results[0]); !(s[0].of[before].median > 0) {
		t.Errorf("compared with before: %+v", s[0])
	}
	if _, err := b.measure(&p, "no-such-row", "bsdnet"); err != errNoSuchRow {
		t.Errorf("a row that it does not have: %v", err)
	}
	broken := *b
	broken.path = "/bin/false"
	if _, err := broken.measure(&p, "pp1", "bsdnet"); err == nil || err == errNoSuchRow {
		t.Errorf("a program that fails: %v", err)
	}
	for _, s := range []string{own, "=" + own, "old=/does/not/exist"} {
		if _, err := openBuild(s); err == nil {
			t.Errorf("no error for %q", s)
		}
	}
}
