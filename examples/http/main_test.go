package main

import (
	stdbytes "bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"bsdnet"
	"bsdnet/qlog"
)

// TestOnce runs the command with -once and looks at what it prints and captures.
func TestOnce(t *testing.T) {
	file, trace := filepath.Join(t.TempDir(), "http.pcap"), filepath.Join(t.TempDir(), "http.qlog")
	var out stdbytes.Buffer
	o := options{addr: ":80", relay: "127.0.0.1:0", pcap: file, trace: trace, once: true}
	if err := run(t.Context(), o, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`^GET http://127\.0\.0\.1/\nHTTP/1\.1 200 OK\n`,
		`<h1>Served by net/http over bsdnet</h1>`,
		`<td>LISTEN</td><td>\*:80</td>`,
		`<td>ESTABLISHED</td><td>127\.0\.0\.1:80</td><td>127\.0\.0\.1:\d+</td>`,
		`(?m)^ESTABLISHED 127\.0\.0\.1:\d+ -> 127\.0\.0\.1:80, RTT [\d.]+[nµm]?s, cwnd no limit, ` +
			`sent [1-9]\d* and received [1-9]\d+ bytes, 0 retransmissions$`,
	} {
		if !regexp.MustCompile(want).Match(out.Bytes()) {
			t.Errorf("the output does not match %s:\n%s", want, out.Bytes())
		}
	}
	if strings.Contains(out.String(), "serving on") {
		t.Errorf("-once serves on:\n%s", out.Bytes())
	}
	checkPcap(t, file)
	checkTrace(t, trace)
}

// checkTrace checks that a trace has both ends of one connection, from the handshake to the end.
func checkTrace(t *testing.T, file string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tr, err := qlog.Read(f)
	if err != nil || len(tr.Conns) != 2 {
		t.Fatalf("%d connections in the trace, %v", len(tr.Conns), err)
	}
	for _, c := range tr.Conns {
		if first := c.Events[0]; first.Kind != bsdnet.TraceState || len(c.Events) < 6 ||
			c.Local.Port() != 80 && c.Remote.Port() != 80 {
			t.Errorf("%v -> %v has %d events, the first %+v", c.Local, c.Remote, len(c.Events), first)
		}
	}
}

// checkPcap checks that a capture is a pcap file of raw IP, with times in nanoseconds, whose first
// packet is a SYN to port 80.
func checkPcap(t *testing.T, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	if len(b) < 24+16+40 || le.Uint32(b) != 0xa1b23c4d || le.Uint32(b[20:]) != 101 {
		t.Fatalf("not a capture of raw IP: %d bytes, % x", len(b), b[:min(len(b), 24)])
	}
	p := b[24+16:]
	if p[0] != 0x45 || p[9] != 6 || binary.BigEndian.Uint16(p[22:]) != 80 || p[33] != 0x02 {
		t.Errorf("the first packet is not a SYN to port 80: % x", p[:40])
	}
	n := 0
	for b = b[24:]; len(b) >= 16; n++ {
		k := 16 + int(le.Uint32(b[8:]))
		if k > len(b) {
			t.Fatalf("packet %d of the capture is cut short", n)
		}
		b = b[k:]
	}
	if len(b) > 0 || n < 6 {
		t.Errorf("%d packets in the capture, and %d bytes behind them", n, len(b))
	}
}

// start runs the command until the test ends, and returns the address of the relay.
func start(t *testing.T, o options, out io.Writer) (addr string) {
	t.Helper()
	s, _ := startSite(t, o, out)
	return s.relay.addr().String()
}

// startSite runs the command until the test ends, and returns the site that it serves and its URL.
func startSite(t *testing.T, o options, out io.Writer) (*site, string) {
	t.Helper()
	type up struct {
		site *site
		url  string
	}
	ctx, interrupt := context.WithCancel(context.Background())
	where, ended := make(chan up, 1), make(chan error, 1)
	o.serving = func(s *site, url string) { where <- up{s, url} }
	go func() { ended <- run(ctx, o, out) }()
	t.Cleanup(func() {
		interrupt()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("after the interrupt: %v", err)
			}
		case <-time.After(time.Minute):
			t.Error("the command does not end when it is interrupted")
		}
	})
	select {
	case u := <-where:
		return u.site, u.url
	case err := <-ended:
		ended <- nil
		t.Fatalf("the command has ended: %v", err)
	case <-time.After(time.Minute):
		t.Fatal("the command does not serve")
	}
	return nil, ""
}

func get(t *testing.T, c *http.Client, url string) []byte {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%s: %s, %v", url, resp.Status, err)
	}
	return b
}

// TestRelay fetches the page from the kernel's network, as curl does, with connections that stay
// open while the command is interrupted.
func TestRelay(t *testing.T) {
	addr := start(t, options{addr: "127.0.0.1:80", relay: "127.0.0.1:0"}, io.Discard)
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections) // before the interrupt
	c := &http.Client{Transport: tr, Timeout: time.Minute}
	if b := get(t, c, "http://"+addr+"/"); !strings.Contains(string(b), `http-equiv="refresh"`) {
		t.Errorf("the page does not refresh itself:\n%s", b)
	}
	if b := get(t, c, "http://"+addr+"/style.css"); len(b) == 0 {
		t.Error("no style")
	}
	var st status
	if err := json.Unmarshal(get(t, c, "http://"+addr+"/conns.json"), &st); err != nil {
		t.Fatal(err)
	}
	if st.Requests != 4 || st.Relayed != 1 || st.Accepted != 2 {
		t.Errorf("%d requests, %d relayed, %d accepted; want 4, 1, 2", st.Requests, st.Relayed, st.Accepted)
	}
	// The command's own fetch may still be closing, and the peer may not have acknowledged the last
	// answer yet.
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		err := settled(&st)
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
		st = status{}
		if err := json.Unmarshal(get(t, c, "http://"+addr+"/conns.json"), &st); err != nil {
			t.Fatal(err)
		}
	}
}

// settled returns an error unless the status has a listener and both ends of one connection, with
// all numbers.
func settled(st *status) error {
	states := map[string]int{}
	for _, c := range st.Conns {
		states[c.State]++
		if c.State == "ESTABLISHED" && c.Local == "127.0.0.1:80" && (c.Cwnd == 0 || c.Sent == 0 || c.Received == 0 ||
			c.ID == 0 || c.MinRTT == 0 || c.RTO < c.MinRTT || c.SendWindow == 0 || c.RecvWindow == 0 ||
			c.SendBuffer == 0 || c.RecvBuffer == 0) {
			return fmt.Errorf("the server's end has no numbers: %+v", c)
		}
	}
	if states["LISTEN"] != 1 || states["ESTABLISHED"] != 2 {
		return fmt.Errorf("states %v; want 1 LISTEN and both ends ESTABLISHED", states)
	}
	return nil
}

// TestInterruptWithOpenConnections tests that neither idle connections nor connections that have
// not sent a request keep the command from ending.
func TestInterruptWithOpenConnections(t *testing.T) {
	var conns []net.Conn
	t.Cleanup(func() { // after the interrupt
		for _, c := range conns {
			c.Close()
		}
	})
	addr := start(t, options{addr: "127.0.0.1:80", relay: "127.0.0.1:0", patience: time.Millisecond}, io.Discard)
	for range 2 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	idle := conns[1]
	io.WriteString(idle, "GET /conns.json HTTP/1.1\r\nHost: x\r\n\r\n")
	if _, err := idle.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

// TestRelayTaken tests that the relay uses a free port if its own is in use, and says so.
func TestRelayTaken(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var out stdbytes.Buffer
	taken := ln.Addr().String()
	addr := start(t, options{addr: "127.0.0.1:80", relay: taken}, &out)
	if addr == taken {
		t.Fatalf("the relay listens on %s, which is taken", addr)
	}
	if !strings.Contains(out.String(), taken+" is in use") {
		t.Errorf("it does not say that %s is in use:\n%s", taken, out.String())
	}
	get(t, http.DefaultClient, "http://"+addr+"/")
	http.DefaultClient.CloseIdleConnections()
}

// TestErrors tests that the command ends with an error if it cannot do what it was told.
func TestErrors(t *testing.T) {
	for _, o := range []options{
		{addr: "192.0.2.1:80", once: true},
		{addr: "127.0.0.1:80", relay: "nowhere.invalid:80"},
		{addr: "127.0.0.1:80", once: true, pcap: filepath.Join(t.TempDir(), "no", "file")},
		{addr: "127.0.0.1:80", once: true, trace: filepath.Join(t.TempDir(), "no", "file")},
	} {
		if err := run(t.Context(), o, io.Discard); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB",
		1 << 20: "1.0 MiB", 5 << 40: "5.0 TiB"} {
		if got := bytes(n); got != want {
			t.Errorf("bytes(%d) = %q, want %q", n, got, want)
		}
	}
}
