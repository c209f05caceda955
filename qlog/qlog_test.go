package qlog_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet"
	"bsdnet/netem"
	"bsdnet/qlog"
)

var (
	start  = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	local  = netip.MustParseAddrPort("10.0.0.1:5000")
	remote = netip.MustParseAddrPort("10.0.0.2:80")
)

// every returns an event of each kind, with all fields of its kind, on two connections.
func every() []bsdnet.TraceEvent {
	list := []bsdnet.TraceEvent{
		{Kind: bsdnet.TraceState, Name: "SYN_SENT", Old: "CLOSED"},
		{Kind: bsdnet.TraceSent, Seq: 0, Len: 1},
		{Kind: bsdnet.TraceRTT, RTT: 20*time.Millisecond + 1, SRTT: 21 * time.Millisecond, RTTVar: time.Nanosecond,
			MinRTT: 20 * time.Millisecond},
		{Kind: bsdnet.TraceRTT},
		{Kind: bsdnet.TraceWindow, DeliveryRate: 1},
		{Kind: bsdnet.TraceSent, Seq: 1<<32 - 1, Len: 65535, Cwnd: 1 << 20, Flight: 1 << 19, PacingRate: 1 << 33},
		{Kind: bsdnet.TraceAck, Ack: 1000, Win: 1 << 30, Sack: [][2]uint32{{2000, 3000}, {1<<32 - 1, 5}}},
		{Kind: bsdnet.TraceLost, Seq: 1000, Len: 1000, Name: "rack", Ssthresh: 1 << 18},
		{Kind: bsdnet.TraceRecovery, Name: "Recovery", Old: "Open"},
		{Kind: bsdnet.TraceRetransmit, Seq: 1000, Len: 1000, Name: "fast"},
		{Kind: bsdnet.TraceUndo, Name: "dsack"},
		{Kind: bsdnet.TraceTimer, Name: "rexmt"},
		{Kind: bsdnet.TraceMTU, Len: 1200, Name: "a \"quoted\" <reason>\n\u2028"},
		{Kind: bsdnet.TraceState, Name: "CLOSED", Old: "SYN_SENT"},
	}
	for i := range list {
		e := &list[i]
		e.Time = start.Add(time.Duration(i) * 1234567 * time.Nanosecond)
		e.ConnID, e.Local, e.Remote = uint32(1+i%2), local, remote
		if i%2 == 1 {
			e.Local, e.Remote = remote, netip.MustParseAddrPort("[fe80::1%eth0]:1")
		}
	}
	return list
}

// write returns the file of events.
func write(t testing.TB, events []bsdnet.TraceEvent) []byte {
	t.Helper()
	var w bytes.Buffer
	q := qlog.New(&w)
	for i := range events {
		q.Trace(&events[i])
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	return w.Bytes()
}

// plain returns the events with all times in UTC, so that they can be compared.
func plain(events []bsdnet.TraceEvent) []bsdnet.TraceEvent {
	var list []bsdnet.TraceEvent
	for _, e := range events {
		e.Time = e.Time.UTC()
		list = append(list, e)
	}
	return list
}

func TestRoundTrip(t *testing.T) {
	events := every()
	kinds := map[bsdnet.TraceKind]bool{}
	for _, e := range events {
		kinds[e.Kind] = true
	}
	for k := bsdnet.TraceKind(0); !strings.HasPrefix(k.String(), "TraceKind"); k++ {
		if !kinds[k] {
			t.Errorf("no event of kind %v is tested", k)
		}
	}
	tr, err := qlog.Read(bytes.NewReader(write(t, events)))
	if err != nil {
		t.Fatal(err)
	}
	if !tr.Start.Equal(start) || len(tr.Conns) != 2 {
		t.Fatalf("start %v, %d connections", tr.Start, len(tr.Conns))
	}
	for i, c := range tr.Conns {
		var want []bsdnet.TraceEvent
		for k := i; k < len(events); k += 2 {
			want = append(want, events[k])
		}
		if c.ID != uint32(1+i) || c.Local != want[0].Local || c.Remote != want[0].Remote {
			t.Errorf("connection %d is %d, %v -> %v", i, c.ID, c.Local, c.Remote)
		}
		if got, want := plain(c.Events), plain(want); !reflect.DeepEqual(got, want) {
			t.Errorf("connection %d:\n got %+v\nwant %+v", i, got, want)
		}
	}
}

// TestFormat tests that the first line is a header and each other line an event, as in the draft.
func TestFormat(t *testing.T) {
	lines := strings.Split(strings.TrimSuffix(string(write(t, every())), "\n"), "\n")
	var h struct {
		Version string `json:"qlog_version"`
		Format  string `json:"qlog_format"`
		Trace   struct {
			Vantage map[string]string `json:"vantage_point"`
			Common  map[string]any    `json:"common_fields"`
		} `json:"trace"`
	}
	if err := json.Unmarshal([]byte(lines[0]), &h); err != nil {
		t.Fatal(err)
	}
	if h.Version != "0.3" || h.Format != "NDJSON" || h.Trace.Vantage["name"] != "bsdnet" ||
		h.Trace.Common["reference_time"] != float64(start.UnixNano())/1e6 {
		t.Errorf("header %+v", h)
	}
	var names []string
	for i, l := range lines[1:] {
		var e struct {
			Time  *float64
			Name  string
			Group string         `json:"group_id"`
			Data  map[string]any `json:"data"`
		}
		if err := json.Unmarshal([]byte(l), &e); err != nil || e.Time == nil || e.Group == "" || e.Data == nil {
			t.Fatalf("line %d: %v: %s", 2+i, err, l)
		}
		names = append(names, e.Name)
		switch i {
		case 2: // the SYN, after the other connection's two lines
			if *e.Time != 1.234567 || e.Group != "2" {
				t.Errorf("time %v, group %q", *e.Time, e.Group)
			}
		case 7: // 1 GiB a second
			if e.Data["pacing_rate"] != float64(8<<33) || e.Data["seq"] != float64(math.MaxUint32) {
				t.Errorf("data %v", e.Data)
			}
		}
	}
	want := "connectivity:connection_started connectivity:connection_state_updated " +
		"connectivity:connection_started transport:packet_sent " +
		"recovery:metrics_updated recovery:metrics_updated recovery:metrics_updated " +
		"transport:packet_sent transport:packet_received " +
		"recovery:packet_lost recovery:congestion_state_updated " +
		"transport:packet_sent recovery:congestion_undone recovery:loss_timer_updated " +
		"connectivity:mtu_updated connectivity:connection_state_updated"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("events %s\nwant   %s", got, want)
	}
}

func TestEmptyFile(t *testing.T) {
	tr, err := qlog.Read(bytes.NewReader(write(t, nil)))
	if err != nil || len(tr.Conns) != 0 {
		t.Errorf("%+v, %v", tr, err)
	}
}

// A badWriter fails after n bytes.
type badWriter struct{ n, calls int }

var errFull = errors.New("full")

func (w *badWriter) Write(b []byte) (int, error) {
	w.calls++
	if w.n -= len(b); w.n < 0 {
		return 0, errFull
	}
	return len(b), nil
}

func TestWriterErrors(t *testing.T) {
	events := every()
	w := &badWriter{n: 100 << 10}
	q := qlog.New(w)
	for range 1000 {
		for i := range events {
			q.Trace(&events[i])
		}
	}
	if w.calls != 2 {
		t.Errorf("%d writes, one of which failed; want 2", w.calls)
	}
	if err := q.Close(); err != errFull {
		t.Errorf("Close: %v, want %v", err, errFull)
	}
	q = qlog.New(&badWriter{})
	q.Trace(&events[0])
	if err := q.Close(); err != errFull {
		t.Errorf("Close when Flush fails: %v, want %v", err, errFull)
	}
	var b bytes.Buffer
	q = qlog.New(&b)
	if err := q.Close(); err != nil {
		t.Error(err)
	}
	n := b.Len()
	for range 2000 {
		q.Trace(&events[0])
	}
	if err := q.Close(); err == nil || b.Len() != n {
		t.Errorf("a second Close: %v, and %d bytes more", err, b.Len()-n)
	}
}

// TestConcurrentUse tests that the lines of different goroutines do not mix, and that the events of
// each connection stay in order.
func TestConcurrentUse(t *testing.T) {
	const conns, n = 8, 500
	var w bytes.Buffer
	q := qlog.New(&w)
	var wg sync.WaitGroup
	for id := range uint32(conns) {
		wg.Go(func() {
			for i := range uint32(n) {
				q.Trace(&bsdnet.TraceEvent{Time: start, ConnID: id, Local: local, Remote: remote,
					Kind: bsdnet.TraceSent, Seq: i, Len: 1})
			}
		})
	}
	wg.Wait()
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	tr, err := qlog.Read(&w)
	if err != nil || len(tr.Conns) != conns {
		t.Fatalf("%d connections, %v", len(tr.Conns), err)
	}
	for _, c := range tr.Conns {
		for i, e := range c.Events {
			if e.Seq != uint32(i) {
				t.Fatalf("connection %d: event %d is that of %d", c.ID, i, e.Seq)
			}
		}
		if len(c.Events) != n {
			t.Errorf("connection %d has %d events", c.ID, len(c.Events))
		}
	}
}

const header = `{"qlog_version":"0.3","qlog_format":"NDJSON","trace":{"common_fields":` +
	`{"time_format":"relative","reference_time":1e12}}}` + "\n" +
	`{"time":0,"name":"connectivity:connection_started","group_id":7,"data":` +
	`{"src_ip":"10.0.0.1","src_port":1,"dst_ip":"10.0.0.2","dst_port":2}}` + "\n"

func TestReadTolerance(t *testing.T) {
	in := header +
		`{"time":1.5e3,"name":"http:frame_parsed","group_id":"7","data":{"frame":{"x":[1,{}]}},"more":true}` + "\r\n" +
		`{"time":-1.5,"name":"transport:packet_sent","group_id":"7","data":{"seq":5,"len":6,"x":null}}` + "\n"
	tr, err := qlog.Read(strings.NewReader(in))
	if err != nil {
		t.Fatal(err)
	}
	want := []bsdnet.TraceEvent{{
		Time: time.UnixMilli(1e12).Add(-1500 * time.Microsecond).UTC(), ConnID: 7,
		Local:  netip.MustParseAddrPort("10.0.0.1:1"),
		Remote: netip.MustParseAddrPort("10.0.0.2:2"), Kind: bsdnet.TraceSent, Seq: 5, Len: 6,
	}}
	if got := plain(tr.Conns[0].Events); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestReadErrors(t *testing.T) {
	event := func(time, name, group, data string) string {
		return fmt.Sprintf(`%s{"time":%s,"name":%q,"group_id":%s,"data":{%s}}`+"\n", header, time, name, group, data)
	}
	sent, ack, rtt := "transport:packet_sent", "transport:packet_received", "recovery:metrics_updated"
	for _, c := range []struct{ name, in, want string }{
		{"nothing", "", "line 1: there is no header"},
		{"no line", "{}", "line 1: there is no header"},
		{"pcap", "\xd4\xc3\xb2\xa1\x02\x00\n", "line 1: this is not the header of a qlog file: invalid character"},
		{"json", "{}\n", `line 1: qlog_version, qlog_format and time_format are "", "" and ""; ` +
			`want "0.3", "NDJSON" and "relative"`},
		{"version", strings.Replace(header, "0.3", "0.4", 1),
			`line 1: qlog_version, qlog_format and time_format are "0.4"`},
		{"reference", strings.Replace(header, "1e12", "-1", 1),
			`line 1: reference_time is "-1"; want milliseconds since 1970`},
		{"no reference", strings.Replace(header, "1e12", `null`, 1), `line 1: reference_time is ""`},
		{"far reference", strings.Replace(header, "1e12", "9e99", 1), `line 1: reference_time is "9e99"`},
		{"cut", strings.TrimSuffix(event("1", sent, "7", `"seq":1`), "\n"), "line 3: unexpected EOF"},
		{"no json", header + "x\n", "line 3: invalid character 'x'"},
		{"empty line", header + "\n", "line 3: unexpected end of JSON input"},
		{"long", header + strings.Repeat(" ", 20000) + "\n", "line 3: the line is longer than 16384 bytes"},
		{"unknown connection", event("1", sent, "8", ""), "line 3: connection 8 has not been started"},
		{"group", event("1", sent, "-1", ""), `line 3: group_id is "-1"; want the number of a connection`},
		{"no group", header + `{"time":1,"name":"x"}` + "\n", `line 3: group_id is ""`},
		{"no time", header + `{"name":"x","group_id":7}` + "\n", `line 3: time is ""; want milliseconds`},
		{"time", event("1e300", sent, "7", ""), `line 3: time is "1e300"; want milliseconds`},
		{"early", event("-1e12", sent, "7", ""), ""},
		{"too early", event("-1000000000001", sent, "7", ""), "line 3: the time is 1969-12-31"},
		{"sequence number", event("1", sent, "7", `"seq":4294967296`),
			"line 3: json: cannot unmarshal number 4294967296"},
		{"length", event("1", sent, "7", `"len":-1`), "line 3: a size, a rate or a round trip is negative"},
		{"rate", event("1", sent, "7", `"pacing_rate":-8`), "line 3: a size, a rate or a round trip is negative"},
		{"rtt", event("1", rtt, "7", `"latest_rtt":-0.5`), "line 3: a size, a rate or a round trip is negative"},
		{"rtt", event("1", rtt, "7", `"latest_rtt":1,"min_rtt":99999999999999999999`),
			"line 3: the time of 99999999999999999999 ms is out of range"},
		{"blocks", event("1", ack, "7", `"sack":[[1,2],[1,2],[1,2],[1,2],[1,2]]`),
			"line 3: sack has 5 ranges; an acknowledgment has 4 at most"},
		{"block", event("1", ack, "7", `"sack":[[1,2,3]]`), "line 3: sack has a range of 3 numbers; want 2"},
		{"address", strings.Replace(header, "10.0.0.1", "10.0.0", 1),
			`line 2: ParseAddr("10.0.0"): IPv4 address too short`},
		{"two stacks", event("1", sent, "7", "") + strings.Split(strings.Replace(header, "10.0.0.1", "10.0.0.9", 1),
			"\n")[1] + "\n",
			"line 4: connection 7 is 10.0.0.9:1 -> 10.0.0.2:2, and was 10.0.0.1:1 -> 10.0.0.2:2: " +
				"the file has the events of two stacks"},
	} {
		tr, err := qlog.Read(strings.NewReader(c.in))
		switch {
		case c.want == "" && err == nil:
		case err == nil || c.want == "" || !strings.HasPrefix(err.Error(), c.want):
			t.Errorf("%s: error %v, want %s", c.name, err, c.want)
		case c.name == "cut" && (!errors.Is(err, io.ErrUnexpectedEOF) || len(tr.Conns) != 1):
			t.Errorf("%s: %v, %+v", c.name, err, tr)
		}
	}
	if _, err := qlog.Read(io.MultiReader(strings.NewReader(header), badReader{})); err != errFull {
		t.Errorf("the reader's error: %v, want %v", err, errFull)
	}
}

type badReader struct{}

func (badReader) Read([]byte) (int, error) { return 0, errFull }

// FuzzRead tests that Read returns an error or a trace that is the same after it has been written
// and read again.
func FuzzRead(f *testing.F) {
	f.Add(write(f, every()))
	f.Add([]byte(header))
	f.Add([]byte(header + `{"time":1e3,"name":"recovery:metrics_updated","group_id":7,` +
		`"data":{"latest_rtt":0.0000019,"ssthresh":1}}` + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		tr, err := qlog.Read(bytes.NewReader(b))
		if tr == nil {
			t.Fatal("no Trace")
		}
		if err != nil {
			return
		}
		var all []bsdnet.TraceEvent
		for _, c := range tr.Conns {
			all = append(all, c.Events...)
		}
		again, err := qlog.Read(bytes.NewReader(write(t, all)))
		if err != nil {
			t.Fatal(err)
		}
		var got []bsdnet.TraceEvent
		for _, c := range again.Conns {
			got = append(got, c.Events...)
		}
		if got, want := plain(got), plain(all); !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

// TestStack writes the trace of a connection that loses packets, and reads it.
func TestStack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, err := netem.Pipe(netem.PipeConfig{Delay: 10 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		bad, err := netem.Impair(a, netem.Path{Write: netem.Impairment{Loss: 0.02}, Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		var w bytes.Buffer
		q := qlog.New(&w)
		s := [2]*bsdnet.Stack{}
		for i, c := range []bsdnet.Config{{Trace: q.Trace, Rand: rand.NewChaCha8([32]byte{1})}, {}} {
			if s[i], err = bsdnet.New(c); err != nil {
				t.Fatal(err)
			}
			defer s[i].Close()
		}
		if err := errors.Join(s[0].Attach(bad, netip.MustParsePrefix("10.0.0.1/24")), s[1].Attach(b,
			netip.MustParsePrefix("10.0.0.2/24"))); err != nil {
			t.Fatal(err)
		}
		ln, err := s[1].Listen("tcp", ":80")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range 2 {
				if c, err := ln.Accept(); err == nil {
					io.Copy(io.Discard, c)
					c.Close()
				}
			}
		}()
		const size = 500_000
		for range 2 {
			c, err := s[0].Dial("tcp", "10.0.0.2:80")
			if err != nil {
				t.Fatal(err)
			}
			c.Write(make([]byte, size))
			c.Close()
		}
		<-done
		s[0].Close()
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
		tr, err := qlog.Read(&w)
		if err != nil || len(tr.Conns) != 2 {
			t.Fatalf("%d connections, %v", len(tr.Conns), err)
		}
		for _, c := range tr.Conns {
			var sent, again int
			for _, e := range c.Events {
				switch e.Kind {
				case bsdnet.TraceSent:
					sent += e.Len
				case bsdnet.TraceRetransmit:
					again += e.Len
				}
			}
			if sent != size+2 || again == 0 || c.Local.Addr() != netip.MustParseAddr("10.0.0.1") ||
				c.Remote != netip.MustParseAddrPort("10.0.0.2:80") {
				t.Errorf("%v -> %v sent %d bytes, and %d again", c.Local, c.Remote, sent, again)
			}
		}
	})
}
