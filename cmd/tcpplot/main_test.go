package main

import (
	"bytes"
	"encoding/xml"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bsdnet"
	"bsdnet/qlog"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// A sender makes the events of an imagined transfer, with everything that a plot can show.
type sender struct {
	q     *qlog.Writer
	id    uint32
	now   time.Duration
	cwnd  float64
	thr   int
	seq   uint32
	acked uint32
}

const mss = 1448

func (s *sender) tell(e bsdnet.TraceEvent) {
	e.Time, e.ConnID = start.Add(s.now), s.id
	e.Local, e.Remote = netip.MustParseAddrPort("10.0.0.1:5000"), netip.MustParseAddrPort("10.0.0.2:80")
	e.Cwnd, e.Ssthresh, e.Flight = int(s.cwnd), s.thr, int(s.seq-s.acked)
	e.PacingRate, e.DeliveryRate = int64(s.cwnd*1.25/0.04), int64(s.cwnd/0.04)
	s.q.Trace(&e)
}

// transfer sends n segments, in rounds of 40 ms, and loses one of them every now and then.
func transfer(q *qlog.Writer, id uint32, n int, iss uint32) {
	r := rand.New(rand.NewPCG(1, uint64(id)))
	s := &sender{q: q, id: id, cwnd: 10 * mss, thr: 60 * mss, seq: iss, acked: iss}
	s.tell(bsdnet.TraceEvent{Kind: bsdnet.TraceState, Name: "ESTABLISHED", Old: "SYN_SENT"})
	for sent, round := 0, 0; sent < n; round++ {
		segs := int(s.cwnd / mss)
		step := 40 * time.Millisecond / time.Duration(segs)
		lossy := round%25 == 24
		for range segs {
			s.tell(bsdnet.TraceEvent{Kind: bsdnet.TraceSent, Seq: s.seq, Len: mss})
			s.seq += mss
			s.now += step
			sent++
		}
		if lossy {
			s.recover(round/25%3, r)
		}
		for s.acked != s.seq {
			s.acked += mss
			s.tell(bsdnet.TraceEvent{Kind: bsdnet.TraceAck, Ack: s.acked, Win: 400_000})
			if s.cwnd < float64(s.thr) {
				s.cwnd += mss / 2
			} else {
				s.cwnd += mss * mss / s.cwnd
			}
		}
		rtt := 40*time.Millisecond + time.Duration(r.IntN(8e6))
		s.tell(bsdnet.TraceEvent{Kind: bsdnet.TraceRTT, RTT: rtt, SRTT: 42 * time.Millisecond,
			RTTVar: 2 * time.Millisecond, MinRTT: 40 * time.Millisecond})
	}
	s.tell(bsdnet.TraceEvent{Kind: bsdnet.TraceState, Name: "CLOSED", Old: "ESTABLISHED"})
}

// recover repairs a loss: in fast recovery, in a recovery that is undone, or after a timeout.
func (s *sender) recover(how int, r *rand.Rand) {
	hole := s.acked
	state := "Recovery"
	if how == 2 {
		state = "Loss"
		s.now += 200 * time.Millisecond
		s.tell(bsdnet.TraceEvent{Kind: bsdnet.TraceTimer, Name: "rexmt"})
	}
	for b := hole + mss; int32(b-s.seq) < 0; b += 8 * mss {
		s.tell(bsdnet.TraceEvent{Kind: bsdnet.TraceAck, Ack: hole, Win: 400_000, Sack: [][2]uint32{{hole + mss, b}}})
		s.now += time.Millisecond
	}
	s.tell(bsdnet.TraceEvent{Kind: bsdnet.TraceLost, Seq: hole, Len: mss, Name: "rack"})
	s.tell(bsdnet.TraceEvent{Kind: bsdnet.TraceRecovery, Name: state, Old: "Open"})
	old, thr := s.cwnd, s.thr
	s.thr = int(s.cwnd * 0.7)
	s.cwnd = float64(s.thr)
	if how == 2 {
		s.cwnd = mss
	}
	s.tell(bsdnet.TraceEvent{Kind: bsdnet.TraceRetransmit, Seq: hole, Len: mss, Name: "rack"})
	s.now += 40*time.Millisecond + time.Duration(r.IntN(4e6))
	if how == 1 {
		s.cwnd, s.thr = old, thr
		s.tell(bsdnet.TraceEvent{Kind: bsdnet.TraceUndo, Name: "dsack"})
	}
	s.tell(bsdnet.TraceEvent{Kind: bsdnet.TraceRecovery, Name: "Open", Old: state})
}

// file writes a trace of transfers, one for each number of segments, numbered from 1.
func file(t testing.TB, iss uint32, segments ...int) string {
	t.Helper()
	var w bytes.Buffer
	q := qlog.New(&w)
	for i, n := range segments {
		transfer(q, uint32(1+i), n, iss)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "trace.qlog")
	if err := os.WriteFile(name, w.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
	return name
}

// plot runs the command, which must succeed, and returns the drawing and the text on the standard
// error.
func plot(t *testing.T, args ...string) (out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	if s := command(args, nil, &o, &e); s != 0 {
		t.Fatalf("tcpplot %v ends with status %d: %s", args, s, e.String())
	}
	wellFormed(t, o.String())
	return o.String(), e.String()
}

// wellFormed asserts that a drawing is XML without numbers that viewers cannot draw.
func wellFormed(t *testing.T, s string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(s))
	for {
		_, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, bad := range []string{"NaN", "Inf", "%!"} {
		if strings.Contains(s, bad) {
			t.Errorf("there is a %s in the drawing", bad)
		}
	}
}

func TestDraw(t *testing.T) {
	out, errs := plot(t, file(t, 0, 20_000))
	if errs != "" {
		t.Errorf("it says %s", errs)
	}
	for what, want := range map[string]int{
		"10.0.0.1:5000 → 10.0.0.2:80, connection 1": 2, // with the title of the file
		"9 segments sent again (13 kB)":             1,
		"3 time-outs":                               1,
		"3 reductions of the window taken back":     1,
		">RTO</text>":                               2, // the third is too close to the edge
		`fill="` + phaseColours["Recovery"] + `"`:   3*6 + 1,
		`fill="` + phaseColours["Loss"] + `"`:       3*3 + 1,
		`fill="` + phaseColours["CWR"] + `"`:        0,
		"pacing rate":                               1,
		"delivery rate":                             1,
	} {
		if got := strings.Count(out, what); got != want {
			t.Errorf("%q is there %d times, want %d", what, got, want)
		}
	}
}

// TestDrawMany tests that a drawing of many events is not much larger than one of some.
func TestDrawMany(t *testing.T) {
	some, _ := plot(t, file(t, 0, 10_000))
	name := file(t, 0, 50_000)
	if b, err := os.ReadFile(name); err != nil || bytes.Count(b, []byte("\n")) < 100_000 {
		t.Fatalf("%d events, %v", bytes.Count(b, []byte("\n")), err)
	}
	many, _ := plot(t, name)
	if len(many) > 300_000 || len(some) > 300_000 {
		t.Errorf("%d bytes for 20,000 events, %d for 100,000", len(some), len(many))
	}
}

func TestZoom(t *testing.T) {
	name := file(t, 0, 5_000)
	out, _ := plot(t, "-from", "900ms", "-to", "1.1s", name)
	if strings.Contains(out, ">0 s<") || !strings.Contains(out, ">0.90 s<") || !strings.Contains(out, ">1.10 s<") ||
		!strings.Contains(out, " in 200 ms") {
		t.Errorf("the axis of time does not go from 0.9 to 1.1 s")
	}
	whole, _ := plot(t, name)
	if len(out) >= len(whole) {
		t.Errorf("a part of the drawing has %d bytes, and the whole %d", len(out), len(whole))
	}
}

func TestChoice(t *testing.T) {
	name := file(t, 0, 100, 300, 200)
	out, errs := plot(t, name)
	if !strings.Contains(out, "connection 2<") || !strings.Contains(errs, "drawing connection 2 of these:") ||
		strings.Count(errs, "-conn") != 3 || !strings.Contains(errs,
		"-conn 3      10.0.0.1:5000 -> 10.0.0.2:80, 363 kB sent") {
		t.Errorf("the largest is 2; it says %s", errs)
	}
	if out, errs := plot(t, "-conn", "3", name); !strings.Contains(out, "connection 3<") || errs != "" {
		t.Errorf("-conn 3 says %s", errs)
	}
}

func TestUnfinishedFile(t *testing.T) {
	b, err := os.ReadFile(file(t, 0, 300))
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	if s := command([]string{"-"}, bytes.NewReader(b[:len(b)-10]), &out, &errs); s != 0 ||
		!strings.Contains(errs.String(), "unexpected EOF") {
		t.Errorf("status %d; it says %s", s, errs.String())
	}
	wellFormed(t, out.String())
}

func TestFailures(t *testing.T) {
	name := file(t, 0, 100)
	for _, c := range []struct {
		args   []string
		in     string
		status int
		want   string
	}{
		{nil, "", 2, "usage: tcpplot"},
		{[]string{"a", "b"}, "", 2, "usage: tcpplot"},
		{[]string{"-conn", "x", name}, "", 2, "invalid value"},
		{[]string{"-from", "2s", "-to", "1s", name}, "", 2, "-to 1s is not after -from 2s"},
		{[]string{"-conn", "7", name}, "", 1, "there is no connection 7 in the file"},
		{[]string{"-from", "1h", name}, "", 1, "connection 1 has no events in this time"},
		{[]string{"-"}, "no trace\n", 1, "-: line 1: this is not the header of a qlog file"},
		{[]string{name + ".not"}, "", 1, "no such file"},
		{[]string{"-h"}, "", 0, "usage: tcpplot"},
	} {
		var out, errs bytes.Buffer
		if s := command(c.args, strings.NewReader(c.in), &out, &errs); s != c.status ||
			!strings.Contains(errs.String(), c.want) || out.Len() > 0 {
			t.Errorf("tcpplot %v: status %d, want %d; it says %swant %s; %d bytes of drawing", c.args, s, c.status,
				errs.String(), c.want, out.Len())
		}
	}
	var empty bytes.Buffer
	qlog.New(&empty).Close()
	var out, errs bytes.Buffer
	if s := command([]string{"-"}, &empty, &out, &errs); s != 1 || !strings.Contains(errs.String(),
		"there are no connections in the file") {
		t.Errorf("an empty trace: status %d; it says %s", s, errs.String())
	}
}
