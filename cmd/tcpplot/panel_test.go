package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"bsdnet"
	"bsdnet/qlog"
)

// testPanel is a panel of 100 by 100 pixels at (0, 0), for times and values from 0 to 1.
func testPanel() *panel {
	p := &panel{s: new(svg), right: 100, bottom: 100}
	p.x, p.y = scale{0, 1, 0, 100}, scale{0, 1, 100, 0}
	return p
}

// corners returns the steps of a path: the command and the coordinate.
func corners(d string) []string { return regexp.MustCompile(`[MVH ][-0-9.]+`).FindAllString(d, -1) }

func TestSteps(t *testing.T) {
	p := testPanel()
	nan := math.NaN()
	for _, c := range []struct {
		s    series
		want string
	}{
		{nil, ""},
		{series{{0, nan}}, ""},
		{series{{0, 0.5}}, "M0 50H100"},
		{series{{-2, 0.9}, {-1, 0.5}, {0.5, 1}}, "M0 50H50V0H100"},                  // what stands at the beginning
		{series{{0.2, 0.5}, {0.4, nan}, {0.6, 0}, {3, 1}}, "M20 50H40M60 100H100"},  // a gap
		{series{{0.2, 0.5}, {0.2, 1}, {0.2, 0}, {0.2, 0.7}}, "M20 50V100V0V30H100"}, // all in one column
	} {
		if got := p.stepPath(c.s, p.y); got != c.want {
			t.Errorf("%v: %s, want %s", c.s, got, c.want)
		}
	}
}

// TestStepsOfMany tests that the line of many values has few corners, and shows the largest and the
// smallest value.
func TestStepsOfMany(t *testing.T) {
	p := testPanel()
	r := rand.New(rand.NewPCG(1, 2))
	var s series
	const n = 100_000
	for i := range n {
		s = append(s, point{float64(i) / n, 0.3 + 0.4*r.Float64()})
	}
	s[12345].v, s[54321].v = 0, 1
	d := p.stepPath(s, p.y)
	if c := corners(d); len(c) > 5*200+3 || !slices.Contains(c, "V0") || !slices.Contains(c, "V100") {
		t.Errorf("%d corners; the most is there: %v, the least: %v", len(c), slices.Contains(c, "V0"),
			slices.Contains(c, "V100"))
	}
}

func TestSpans(t *testing.T) {
	path := regexp.MustCompile(`d="([^"]*)"`)
	for _, c := range []struct {
		list []span
		want string
	}{
		{[]span{{0.5, 0.2, 0.4}, {0.5, 0.4, 0.6}, {0.5, 0.8, 0.9}}, "M50 10V20M50 40V80"}, // two that touch are one
		{[]span{{0.5, 0.5, 0.5}}, "M50 48V52"},
		// a range that is too short to be seen
		{[]span{{-0.1, 0, 1}, {1.1, 0, 1}}, ""},
	} {
		p := testPanel()
		p.spans(c.list, ink, 1, 4)
		got := ""
		if m := path.FindStringSubmatch(p.s.b.String()); m != nil {
			got = m[1]
		}
		if got != c.want {
			t.Errorf("%v: %q, want %q", c.list, got, c.want)
		}
	}
	p := testPanel()
	var many []span
	for i := range 100_000 {
		lo := float64(i) / 100_000
		many = append(many, span{lo, lo, lo + 1e-5})
	}
	p.spans(many, ink, 1, 1)
	if n := strings.Count(p.s.b.String(), "M"); n > 201 {
		t.Errorf("%d lines for 200 columns", n)
	}
}

func TestTicks(t *testing.T) {
	for _, c := range []struct {
		lo, hi float64
		n      int
		format func(float64) string
		want   string
	}{
		{0, 300e3, 5, bytesTick, "0 B, 100 kB, 200 kB, 300 kB"},
		{0, 1, 5, bitsTick, "0 bit/s, 0.2 bit/s, 0.4 bit/s, 0.6 bit/s, 0.8 bit/s, 1 bit/s"},
		{0, 2.6e9, 4, bitsTick, "0 bit/s, 1 Gbit/s, 2 Gbit/s"},
		{-0.5, 14e3, 3, bytesTick, "0 B, 5 kB, 10 kB"},
		{0, 0.045, 3, seconds, "0, 20 ms, 40 ms"},
		{0, 45e-6, 5, seconds, "0, 10 µs, 20 µs, 30 µs, 40 µs"},
		{1.5, 4, 3, seconds, "2 s, 3 s, 4 s"},
		{0.25, 0.48, 5, instants(0.48, 0.05), "250 ms, 300 ms, 350 ms, 400 ms, 450 ms"},
		{0.9, 1.1, 4, instants(1.1, 0.05), "0.90 s, 0.95 s, 1.00 s, 1.05 s, 1.10 s"},
		{0, 1e-3, 4, instants(1e-3, 0.5e-3), "0.0 ms, 0.5 ms, 1.0 ms"},
		{0, 1e-5, 5, instants(1e-5, 2e-6), "0 µs, 2 µs, 4 µs, 6 µs, 8 µs, 10 µs"},
		{3600, 3625, 3, instants(3625, 10), "3600 s, 3610 s, 3620 s"},
	} {
		s := scale{lo: c.lo, hi: c.hi}
		values, _ := s.ticks(c.n)
		var got []string
		for _, v := range values {
			got = append(got, c.format(v))
		}
		if g := strings.Join(got, ", "); g != c.want {
			t.Errorf("%v to %v: %s, want %s", c.lo, c.hi, g, c.want)
		}
	}
	if got := siUnit(999_600, "B"); got != "1 MB" {
		t.Errorf("999,600 bytes are %s, want 1 MB", got)
	}
}

// TestOffsets tests that offsets go on when sequence numbers wrap, and that a late acknowledgment
// moves nothing back.
func TestOffsets(t *testing.T) {
	const n = 6000 // of 1 MiB each: more than there are sequence numbers
	c := &qlog.Conn{}
	add := func(i int, e bsdnet.TraceEvent) {
		e.Time = start.Add(time.Duration(i) * time.Millisecond)
		c.Events = append(c.Events, e)
	}
	for i := range n {
		seq := uint32(i) << 20
		add(i, bsdnet.TraceEvent{Kind: bsdnet.TraceSent, Seq: seq, Len: 1 << 20})
		if i > 0 {
			add(i, bsdnet.TraceEvent{Kind: bsdnet.TraceAck, Ack: seq, Win: 1 << 22, Sack: [][2]uint32{{seq + 1,
				seq + 1001}}})
			add(i, bsdnet.TraceEvent{Kind: bsdnet.TraceAck, Ack: seq - 1000, Win: 1 << 20})
			add(i, bsdnet.TraceEvent{Kind: bsdnet.TraceRetransmit, Seq: seq - 1<<20, Len: 1000})
		}
	}
	h := newHistory(start, c, 0, 0)
	for i := range n {
		at := float64(i) * (1 << 20)
		if s := h.sent[i]; s.lo != at || s.hi != at+1<<20 {
			t.Fatalf("segment %d: %v", i, s)
		}
		if i > 0 {
			if a, e, s := h.acked[i-1], h.edge[i-1], h.sacked[i-1]; a.v != at || e.v != at+1<<22 || s.lo != at+1 ||
				s.hi != at+1001 {
				t.Fatalf("acknowledgment %d: %v, edge %v, block %v", i, a, e, s)
			}
			if s := h.again[i-1]; s.lo != at-1<<20 {
				t.Fatalf("segment %d again: %v", i, s)
			}
		}
	}
	if len(h.acked) != n-1 || h.bytesSent != int64(n)<<20 || h.segsAgain != n-1 {
		t.Errorf("%d acknowledgments, %d bytes, %d segments again", len(h.acked), h.bytesSent, h.segsAgain)
	}
}

// TestFlight tests that a segment is in flight as soon as it is sent, although its event does not
// count it yet.
func TestFlight(t *testing.T) {
	c := &qlog.Conn{}
	for i, e := range []bsdnet.TraceEvent{
		{Kind: bsdnet.TraceSent, Seq: 1, Len: 1000}, {Kind: bsdnet.TraceSent, Seq: 1001, Len: 500, Flight: 1000},
		{Kind: bsdnet.TraceRetransmit, Seq: 1, Len: 1000, Flight: 1500}, {Kind: bsdnet.TraceAck, Ack: 1501,
			Flight: 1500}, {Kind: bsdnet.TraceState},
	} {
		e.Time = start.Add(time.Duration(i) * time.Second)
		c.Events = append(c.Events, e)
	}
	if got, want := fmt.Sprint(newHistory(start, c, 0, 0).flight), "[{0 1000} {1 1500} {4 0}]"; got != want {
		t.Errorf("in flight %s, want %s", got, want)
	}
}

func TestPhases(t *testing.T) {
	c := &qlog.Conn{}
	for i, name := range []string{"Open", "Recovery", "Disorder", "Loss", "Recovery"} {
		c.Events = append(c.Events, bsdnet.TraceEvent{Time: start.Add(time.Duration(i) * time.Second),
			Kind: bsdnet.TraceRecovery, Name: name})
	}
	c.Events = append(c.Events, bsdnet.TraceEvent{Time: start.Add(9 * time.Second)})
	if got, want := fmt.Sprint(newHistory(start, c, 0, 0).phases),
		"[{1 2 Recovery} {3 4 Loss} {4 9 Recovery}]"; got != want {
		t.Errorf("phases %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(newHistory(start, c, 3500*time.Millisecond, 5*time.Second).phases),
		"[{3 4 Loss} {4 5 Recovery}]"; got != want {
		t.Errorf("phases from 3.5 to 5 s: %s, want %s", got, want)
	}
}

// TestRate tests that 1000 bytes each millisecond are 8 Mbit/s, whatever the bins.
func TestRate(t *testing.T) {
	var s series
	for i := range 2001 {
		s = append(s, point{float64(i) / 1000, float64(i) * 1000})
	}
	for least, bins := range map[float64]int{0: 100, 0.5: 4, 9: 1} {
		r := rate(s, 0, 2, least)
		if len(r) != bins {
			t.Errorf("%d bins of %v s at the least, want %d", len(r), least, bins)
		}
		for _, p := range r {
			if math.Abs(p.v-8e6) > 8e6*0.06 {
				t.Errorf("%s bit/s at %v s", strconv.FormatFloat(p.v, 'f', 0, 64), p.t)
			}
		}
	}
}
