package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// one returns a sample with the given value.
func one(v float64) sample {
	return sample{Value: v, CPU: v / 10, Allocs: 1, Others: 0.25, Latency: []float64{v, v, v, v, 2 * v, 3 * v, 4 * v}}
}

// sampleReport returns a report in which bsdnet wins a row and loses another.
func sampleReport() *report {
	three := func(v float64) []sample { return []sample{one(v), one(v * 2), one(v * 3)} }
	peers := func(ours1, theirs, others1, others2 float64) []peerResult {
		return []peerResult{
			{Name: "bsdnet", Role: ours, Samples: three(ours1)},
			{Name: "kernel", Role: kernel, Samples: []sample{one(theirs), one(theirs), one(theirs)}},
			{Name: "gvisor-a", Role: gvisor, Samples: three(others1)},
			{Name: "gvisor-b", Role: gvisor, Samples: three(others2)},
			{Name: "pipe", Role: ceiling, Skipped: "it is not here"},
		}
	}
	return &report{
		Machine: machine{CPU: "a < b & c", Cores: 2}, Rounds: 3, Seconds: 1, Took: 75,
		Results: []result{
			{Row: "won", Scene: "In memory", Title: "what is won", Unit: "Gbit/s", PerGB: true,
				Peers: peers(20, 10, 5, 8)},
			{Row: "lost", Scene: "In memory", Title: "what is lost", Unit: "µs", Less: true,
				Peers: peers(20, 10, 50, 80)},
			{Row: "grow-1", Scene: "In memory", Kind: kindGrow, Title: "1", Unit: "Gbit/s",
				Series: "More & more", X: 1, XTitle: "flows", Peers: peers(1, 2, 3, 4)},
			{Row: "grow-2", Scene: "In memory", Kind: kindGrow, Title: "2", Unit: "Gbit/s",
				Series: "More & more", X: 2, XTitle: "flows", Peers: peers(2, 3, 4, 5)},
		},
	}
}

// Ratios are computed for each round, and have the median, the least and the most of the rounds.
func TestSummarize(t *testing.T) {
	rep := sampleReport()
	s := summarize(&rep.Results[0])
	if s[0].span != (span{40, 20, 60}) || s[0].of[kernel] != (span{4, 2, 6}) ||
		s[0].of[gvisor] != (span{2.5, 2.5, 2.5}) || s[0].cpu != 4 || s[0].others != 0.25 {
		t.Errorf("more is better: %+v", s[0])
	}
	s = summarize(&rep.Results[1])
	if s[0].of[kernel] != (span{0.25, 10.0 / 60, 0.5}) || s[0].of[gvisor] != (span{2.5, 2.5, 2.5}) ||
		s[2].of[gvisor].median != 1 || s[3].of[gvisor].median != 0.625 {
		t.Errorf("less is better: %+v", s)
	}
	if s[0].latency[4] != 80 {
		t.Errorf("the 99th percentile is %v", s[0].latency[4])
	}
	if !math.IsNaN(s[0].of[before].median) {
		t.Errorf("there is another build: %+v", s[0].of)
	}
}

// Each peer is compared with itself in another build. A round that one of the two does not have is
// not compared.
func TestSummarizeBefore(t *testing.T) {
	r := result{Peers: []peerResult{
		{Name: "bsdnet", Role: ours, Samples: []sample{one(20), one(60), one(10)}},
		{Name: "bsdnet@old", Role: before, Samples: []sample{one(10), one(20)}},
		{Name: "bsdnet-1q", Role: ours, Samples: []sample{one(5)}},
		{Name: "bsdnet-1q@old", Role: before, Samples: []sample{one(10)}},
	}}
	s := summarize(&r)
	if s[0].of[before] != (span{2.5, 2, 3}) || s[2].of[before] != (span{0.5, 0.5, 0.5}) ||
		!math.IsNaN(s[1].of[before].median) {
		t.Errorf("%+v", s)
	}
	var b bytes.Buffer
	rep := &report{Results: []result{r}}
	if err := text(&b, rep); err != nil || !strings.Contains(b.String(), "× before") ||
		strings.Contains(b.String(), "× kernel") || strings.Contains(b.String(), "NaN") {
		t.Errorf("%v\n%s", err, b.String())
	}
	b.Reset()
	if err := markdown(&b, rep, nil); err != nil || !strings.Contains(b.String(), "| - | - | 2.5× (2.0 to 3.0) |") {
		t.Errorf("%v\n%s", err, b.String())
	}
}

// Rows that measure the same thing become one verdict, from the least median to the most.
func TestTwins(t *testing.T) {
	rep := sampleReport()
	rep.Results[2].Same = "won"
	all := rep.twins()
	if len(all) != 1 || all[0].names() != "won, grow-1, bsdnet" || all[0].value != (span{21, 2, 40}) ||
		all[0].of[kernel] != (span{2.5, 1, 4}) || !math.IsNaN(all[0].of[before].median) {
		t.Fatalf("%+v", all)
	}
	var b bytes.Buffer
	if err := text(&b, rep); err != nil {
		t.Fatal(err)
	}
	want := "won, grow-1, bsdnet: 2.00 to 40.0 Gbit/s, 1.00 to 4.0 × kernel, 0.25 to 2.5 × gVisor"
	if !strings.Contains(b.String(), want) {
		t.Errorf("no %q in\n%s", want, b.String())
	}
	b.Reset()
	if err := markdown(&b, rep, nil); err != nil {
		t.Fatal(err)
	}
	want = "| `won`, `grow-1` | what is won | 2.00 to 40.0 Gbit/s | 2.5× (1.00 to 4.0) |"
	if strings.Count(b.String(), want) != 1 || strings.Contains(b.String(), "| `won` | what is won | 40.0") {
		t.Errorf("not once %q in\n%s", want, b.String())
	}
	rep.Results[2].Peers = rep.Results[2].Peers[1:] // bsdnet has not been measured there
	if all := rep.twins(); len(all) != 0 {
		t.Errorf("%+v", all)
	}
}

// Lost rows come before won ones, and every line of a table has the columns of its head.
func TestMarkdown(t *testing.T) {
	var b bytes.Buffer
	if err := markdown(&b, sampleReport(), []chart{{"A chart", "charts/a.svg"}}); err != nil {
		t.Fatal(err)
	}
	s := b.String()
	lost := strings.Index(s, "| `lost` | what is lost | 40.0 µs | **0.25×** (0.17 to 0.50) | 2.5× |")
	won := strings.Index(s, "| `won` | what is won | 40.0 Gbit/s | 4.0× (2.0 to 6.0) | 2.5× |")
	if lost < 0 || won < lost {
		t.Errorf("lost at %d, won at %d", lost, won)
	}
	for _, want := range []string{"## Growth", "## In memory", "![A chart](charts/a.svg)", "20.0 to 60.0",
		"a < b & c", "it took 1m15s"} {
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
	for _, want := range []string{"won: what is won (Gbit/s, more is better)",
		"lost: what is lost (µs, less is better)", "4.0×", "25%", "it took 1m15s",
		"pipe: none: it is not here", "p99 80.0"} {
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
		"in-memory.svg":         {"won", "lost", "bsdnet", "gvisor-b", "40.0 (4.0×)"},
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
			t.Errorf("%s has NaN or Inf in place of a number", name)
		}
		for _, w := range words {
			if !strings.Contains(has.String(), w) {
				t.Errorf("%s: no %q", name, w)
			}
		}
	}
}

// Reports are read as they were written, and merged. If two have the same row, the later one
// counts.
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
	if got.Took != 3*75 {
		t.Errorf("together they took %v s", got.Took)
	}
	if !reflect.DeepEqual(got.Results, want) {
		t.Errorf("%+v", got.Results)
	}
	third.Machine.Cores = 64
	if _, err := readReports([]string{write("a", first), write("c", third)}); err == nil {
		t.Error("reports of two machines are merged")
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
	for _, r := range rows() {
		if r.same != "" && !seen[r.same] {
			t.Errorf("%s is the same as %s, which does not exist", r.name, r.same)
		}
	}
	p := plan{}
	if p.wants(growFlows(1)) || !p.wants(bulkRow("", 1)) {
		t.Error("the default is not all rows except those of growth")
	}
}

// -group chooses rows and peers, and -row and -peer choose among them.
func TestGroups(t *testing.T) {
	inGroup := map[string]int{}
	for _, g := range groups {
		for _, r := range rows() {
			if g.has(r) {
				inGroup[r.name]++
			}
		}
	}
	for _, r := range rows() {
		if n := inGroup[r.name]; n != 1 && r.scene != "udp" || n == 0 {
			t.Errorf("%s is in %d groups", r.name, n)
		}
	}
	chosen := func(p plan) (s string) {
		places := map[string]scene{}
		for _, q := range scenes() {
			places[q.name] = q
		}
		for _, r := range rows() {
			for _, q := range places[r.scene].peers {
				if p.wants(r) && p.wantsPeer(r, q) {
					s += r.name + ":" + q.name + " "
				}
			}
		}
		return strings.TrimSpace(s)
	}
	for _, c := range []struct{ groups, rows, peers, want string }{
		{"^(?:tunnel)$", "bulk", "", "udp-bulk1:bsdnet udp-bulk1:wireguard-go udp-bulk1:wireguard-go-batch"},
		{"^(?:wireguard)$", "bulk", "bsdnet", "udp-bulk1:bsdnet-wg"},
		{"^(?:tunnel|wireguard)$", "", "bsdnet",
			"udp-bulk1:bsdnet udp-bulk1:bsdnet-wg udp-pp1:bsdnet udp-pp1:bsdnet-wg"},
		{"^(?:pair|tunnel)$", "bulk1", "bsdnet", "pair-bulk1:bsdnet udp-bulk1:bsdnet"},
		{"^(?:grow)$", "flows-1$", "kernel", "grow-flows-1:kernel"},
		{"^(?:loopback)$", "bulk1|conn1$", "^(bs|pi|buf)", "bulk1:bsdnet bulk1:bufpipe conn1:bsdnet conn1:pipe"},
		{"^(?:pair)$", "1", "", "pair-bulk1:bsdnet pair-bulk1:gvisor pair-bulk1:gvisor-batch"},
	} {
		p := plan{}
		p.groups, _ = pattern(c.groups)
		p.rows, _ = pattern(c.rows)
		p.peers, _ = pattern(c.peers)
		if got := chosen(p); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

// The time of a plan grows with its rounds, and with the measurements of another build.
func TestEstimate(t *testing.T) {
	p := plan{settings: settings{warm: time.Second, time: 2 * time.Second, scale: 1}, rounds: 3}
	p.rows, _ = pattern("^bulk1$")
	if n, m, d := p.estimate(); n != 1 || m != 12 || d != 12*(3*time.Second+setUpTime) {
		t.Errorf("%d rows, %d measurements, %v", n, m, d)
	}
	p.beside = &build{}
	both := 9*(3*time.Second+setUpTime) + 6*(3*time.Second+setUpTime+processTime)
	if n, m, d := p.estimate(); n != 1 || m != 15 || d != both {
		t.Errorf("with another build: %d rows, %d measurements, %v", n, m, d)
	}
	p.beside = nil
	p.rows, _ = pattern("^idle$")
	p.peers, _ = pattern("bsdnet")
	if n, m, d := p.estimate(); n != 1 || m != 3 || d != 3*(time.Second+setUpTime+10000*connectionTime) {
		t.Errorf("idle connections: %d rows, %d measurements, %v", n, m, d)
	}
	var b bytes.Buffer
	if err := printList(&b, &p); err != nil ||
		!strings.Contains(b.String(), "in all: 1 row, 3 measurements: about 6s") {
		t.Errorf("%v: %s", err, b.String())
	}
}
