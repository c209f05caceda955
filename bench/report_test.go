package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// one makes a sample of a value.
func one(v float64) sample {
	return sample{Value: v, CPU: v / 10, Allocs: 1, Others: 0.25, Latency: []float64{v, v, v, v, 2 * v, 3 * v, 4 * v}}
}

// sampleReport is a report in which bsdnet wins a row and loses another.
func sampleReport() *report {
	peers := func(ours1, theirs, others1, others2 float64) []peerResult {
		return []peerResult{
			{Name: "bsdnet", Role: ours, Samples: []sample{one(ours1), one(ours1 * 2), one(ours1 * 3)}},
			{Name: "kernel", Role: kernel, Samples: []sample{one(theirs)}},
			{Name: "gvisor-a", Role: gvisor, Samples: []sample{one(others1)}},
			{Name: "gvisor-b", Role: gvisor, Samples: []sample{one(others2)}},
			{Name: "pipe", Role: ceiling, Skipped: "it is not here"},
		}
	}
	return &report{
		Machine: machine{CPU: "a < b & c", Cores: 2}, Rounds: 3, Seconds: 1,
		Results: []result{
			{Row: "won", Scene: "In memory", Title: "what is won", Unit: "Gbit/s", PerGB: true, Peers: peers(20, 10, 5, 8)},
			{Row: "lost", Scene: "In memory", Title: "what is lost", Unit: "µs", Less: true, Peers: peers(20, 10, 50, 80)},
			{Row: "grow-1", Scene: "In memory", Kind: kindGrow, Title: "1", Unit: "Gbit/s", Series: "More & more", X: 1, XTitle: "flows", Peers: peers(1, 2, 3, 4)},
			{Row: "grow-2", Scene: "In memory", Kind: kindGrow, Title: "2", Unit: "Gbit/s", Series: "More & more", X: 2, XTitle: "flows", Peers: peers(2, 3, 4, 5)},
		},
	}
}

func TestSummarize(t *testing.T) {
	rep := sampleReport()
	s := summarize(&rep.Results[0])
	if s[0].median != 40 || s[0].least != 20 || s[0].most != 60 || s[0].ofKernel != 4 || s[0].ofGvisor != 5 || s[0].cpu != 4 || s[0].others != 0.25 {
		t.Errorf("more is better: %+v", s[0])
	}
	s = summarize(&rep.Results[1])
	if s[0].ofKernel != 0.25 || s[0].ofGvisor != 1.25 || s[2].ofGvisor != 1 || s[3].ofGvisor != 0.625 {
		t.Errorf("less is better: %+v", s)
	}
	if s[0].latency[4] != 80 {
		t.Errorf("the 99th percentile is %v", s[0].latency[4])
	}
}

// Lost rows come before won ones, and every line of a table has as many columns as its head.
func TestMarkdown(t *testing.T) {
	var b bytes.Buffer
	if err := markdown(&b, sampleReport(), []chart{{"A chart", "charts/a.svg"}}); err != nil {
		t.Fatal(err)
	}
	s := b.String()
	lost, won := strings.Index(s, "| `lost` | what is lost | 40.0 µs | **0.25×** | 1.25× |"), strings.Index(s, "| `won` | what is won | 40.0 Gbit/s | 4.00× | 5.00× |")
	if lost < 0 || won < lost {
		t.Errorf("lost at %d, won at %d", lost, won)
	}
	for _, want := range []string{"## Growth", "## In memory", "![A chart](charts/a.svg)", "20.0 to 60.0", "a < b & c"} {
		if !strings.Contains(s, want) {
			t.Errorf("no %q", want)
		}
	}
	columns := 0
	for line := range strings.Lines(s) {
		n := strings.Count(line, "|")
		if columns > 0 && n > 0 && n != columns {
			t.Errorf("%d columns instead of %d: %s", n, columns, line)
		}
		columns = n
	}
	if t.Failed() {
		t.Log(s)
	}
}

func TestText(t *testing.T) {
	var b bytes.Buffer
	if err := text(&b, sampleReport()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"won: what is won (Gbit/s, more is better)", "lost: what is lost (µs, less is better)", "4.00×", "25%", "pipe: none: it is not here", "p99 80.0"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

// Charts are XML and have a bar, or a line, for each peer.
func TestCharts(t *testing.T) {
	dir := t.TempDir()
	charts, err := writeCharts(dir, sampleReport())
	if err != nil {
		t.Fatal(err)
	}
	if len(charts) != 3 {
		t.Fatalf("%d charts: %v", len(charts), charts)
	}
	want := map[string][]string{
		"in-memory.svg":         {"won", "lost", "bsdnet", "gvisor-b", "40.0 (4.00×)"},
		"in-memory-latency.svg": {"won: what is won", "percentile", "99.99", "kernel"},
		"more-more.svg":         {"More & more", "flows", "bsdnet", "<polyline>"},
	}
	for name, words := range want {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
			continue
		}
		var has strings.Builder
		d := xml.NewDecoder(bytes.NewReader(b))
		for {
			tok, err := d.Token()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			switch tok := tok.(type) {
			case xml.CharData:
				has.Write(tok)
			case xml.StartElement:
				has.WriteString("<" + tok.Name.Local + ">")
			}
		}
		if strings.Contains(string(b), "NaN") || strings.Contains(string(b), "Inf") {
			t.Errorf("%s has numbers that are none", name)
		}
		for _, w := range words {
			if !strings.Contains(has.String(), w) {
				t.Errorf("%s: no %q", name, w)
			}
		}
	}
}

// Reports are read as they were written, and put together; the later of two rows counts.
func TestReadReports(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, r *report) string {
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o666); err != nil {
			t.Fatal(err)
		}
		return path
	}
	first := sampleReport()
	second := sampleReport()
	second.Results = second.Results[1:2]
	second.Results[0].Peers[0].Samples = []sample{one(1)}
	third := sampleReport()
	third.Results = []result{{Row: "new"}}
	got, err := readReports([]string{write("a", first), write("b", second), write("c", third)})
	if err != nil {
		t.Fatal(err)
	}
	want := append(append([]result{}, first.Results...), third.Results...)
	want[1] = second.Results[0]
	if !reflect.DeepEqual(got.Results, want) {
		t.Errorf("%+v", got.Results)
	}
	third.Machine.Cores = 64
	if _, err := readReports([]string{write("a", first), write("c", third)}); err == nil {
		t.Error("reports of two machines are put together")
	}
}

func TestFailures(t *testing.T) {
	r := sampleReport()
	if err := r.failures(); err != nil {
		t.Error(err)
	}
	r.Results[1].Peers[1].Error = "no route"
	if err := r.failures(); err == nil || !strings.Contains(err.Error(), "lost by kernel: no route") {
		t.Error(err)
	}
}

// Every row has a name of its own, and a scene.
func TestRows(t *testing.T) {
	seen, places := map[string]bool{}, map[string]bool{}
	for _, s := range scenes() {
		places[s.name] = true
	}
	for _, r := range rows() {
		if seen[r.name] || r.name == "" || r.title == "" || r.unit == "" || !places[r.scene] {
			t.Errorf("%+v", r)
		}
		seen[r.name] = true
	}
	p := plan{}
	if p.wants(growFlows(1)) || !p.wants(bulkRow("", 1)) {
		t.Error("by default there are the rows but those of growth")
	}
}
