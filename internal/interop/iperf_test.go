//go:build linux

package interop

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bsdnet/internal/nstest"
)

// iperf3 is the client of a server on the stack, and, through a relay on the stack, of its own
// server. It sends one stream and four, there and back.
func TestIperf3(t *testing.T) {
	nstest.Need(t, "iperf3")
	eachMode(t, 4, options{}, func(t *testing.T, w *world) {
		n := size(8<<20, 1<<30)
		t.Run("bsdnet listens", func(t *testing.T) {
			for _, args := range iperfArgs {
				ln, err := w.stack.Listen("tcp", w.at(bsdIP)+":5201")
				if err != nil {
					t.Fatal(err)
				}
				served := make(chan error, 1)
				go func() { served <- serveIperf(ln) }()
				iperf(t, w, w.ip(bsdIP), "5201", n, args)
				if err := <-served; err != nil {
					t.Errorf("server: %v", err)
				}
				ln.Close()
			}
		})
		t.Run("bsdnet dials", func(t *testing.T) {
			server := w.Background(t, "iperf3", "-s", "-B", w.ip(kernIP), "--forceflush")
			ln, err := w.NS.Listen("tcp", "127.0.0.1:5202")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			go serve(ln, func(c conn) { relay(w.bsd(), w.at(kernIP)+":5201", c) })
			for i, args := range iperfArgs {
				await(t, "iperf3 listens", func() bool {
					return strings.Count(server.String(), "Server listening") > i
				})
				iperf(t, w, "127.0.0.1", "5202", n, args)
			}
		})
	})
}

var iperfArgs = [][]string{nil, {"-R"}, {"-P", "4"}, {"-P", "4", "-R"}}

// iperf runs the client, and checks its report.
func iperf(t *testing.T, w *world, ip, port string, n int, args []string) {
	t.Helper()
	out, err := w.Try(append([]string{"iperf3", "-J", "-c", ip, "-p", port, "-n", strconv.Itoa(n),
		"--connect-timeout", "20000"}, args...)...)
	if err != nil {
		t.Fatalf("iperf3 %v: %v\n%.2000s", args, err, out)
	}
	var r struct {
		Error string
		End   struct {
			Sum_sent, Sum_received struct{ Bytes int64 }
		}
	}
	report := out[max(strings.Index(out, "{"), 0):] // a warning may precede it
	if err := json.Unmarshal([]byte(report), &r); err != nil {
		t.Fatalf("%v\n%.2000s", err, out)
	}
	// iperf3's own server reports the bytes that it had received when the client was done.
	if e := r.End; r.Error != "" || max(e.Sum_sent.Bytes, e.Sum_received.Bytes) < int64(n) {
		t.Errorf("iperf3 %v: sent %d, received %d, want %d\n%.4000s",
			args, e.Sum_sent.Bytes, e.Sum_received.Bytes, n, out)
	}
}

// relay connects c to an address.
func relay(from host, addr string, c conn) {
	d, err := from.dial(context.Background(), "tcp", addr)
	if err != nil {
		return
	}
	defer d.Close()
	var wg sync.WaitGroup
	half := func(to, from conn) {
		if copyPlain(to, from) != nil {
			to.SetLinger(0)
			to.Close()
			return
		}
		to.CloseWrite()
	}
	wg.Go(func() { half(d.(conn), c) })
	half(c, d.(conn))
	wg.Wait()
}

// These are the states of iperf3's control connection (iperf_api.h).
const (
	iperfTestStart       = 1
	iperfTestRunning     = 2
	iperfTestEnd         = 4
	iperfParamExchange   = 9
	iperfCreateStreams   = 10
	iperfExchangeResults = 13
	iperfDisplayResults  = 14
	iperfDone            = 16
)

// iperfCookie is the length of the cookie with which each connection begins.
const iperfCookie = 37

// An iperfServer is iperf3's server, for one test.
type iperfServer struct {
	ln      net.Listener
	ctl     net.Conn
	reverse bool
	num     int64 // bytes that the client sends or wants
	data    []net.Conn
	counts  []int64
	count   atomic.Int64 // their sum
	wg      sync.WaitGroup
}

// serveIperf serves one test.
func serveIperf(ln net.Listener) (err error) {
	s := &iperfServer{ln: ln}
	defer func() {
		for _, c := range append(s.data, s.ctl) {
			if c != nil {
				c.Close()
			}
		}
		s.wg.Wait()
	}()
	if s.ctl, err = s.accept(); err != nil {
		return err
	}
	if err := s.setup(); err != nil {
		return fmt.Errorf("set-up: %w", err)
	}
	for i, c := range s.data {
		s.wg.Go(func() { s.run(i, c) })
	}
	if err := s.expect(iperfTestEnd); err != nil {
		return err
	}
	if !s.reverse && !s.await() {
		return fmt.Errorf("%d bytes of %d have arrived", s.count.Load(), s.num)
	}
	for _, c := range s.data {
		c.Close()
	}
	s.wg.Wait()
	return s.results()
}

func (s *iperfServer) accept() (net.Conn, error) {
	c, err := s.ln.Accept()
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(20 * limit))
	_, err = io.ReadFull(c, make([]byte, iperfCookie))
	return c, err
}

// setup reads the parameters of the test, and accepts the streams.
func (s *iperfServer) setup() error {
	if err := s.say(iperfParamExchange); err != nil {
		return err
	}
	var params struct {
		Parallel int
		Reverse  bool
		Num      int64
	}
	if err := s.readJSON(&params); err != nil {
		return err
	}
	s.reverse, s.num = params.Reverse, params.Num
	if err := s.say(iperfCreateStreams); err != nil {
		return err
	}
	for range max(params.Parallel, 1) {
		c, err := s.accept()
		if err != nil {
			return err
		}
		s.data = append(s.data, c)
	}
	s.counts = make([]int64, len(s.data))
	if err := s.say(iperfTestStart); err != nil {
		return err
	}
	return s.say(iperfTestRunning)
}

// run serves one stream.
func (s *iperfServer) run(i int, c net.Conn) {
	buf := make([]byte, 128<<10)
	for {
		n, err := 0, error(nil)
		if s.reverse {
			n, err = c.Write(buf)
		} else {
			n, err = c.Read(buf)
		}
		s.counts[i] += int64(n)
		s.count.Add(int64(n))
		if err != nil {
			return
		}
	}
}

// await waits for bytes that are still under way, because the control connection may overtake them.
func (s *iperfServer) await() bool {
	for end := time.Now().Add(limit); s.count.Load() < s.num; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// results exchanges the results. The streams have the client's numbers.
func (s *iperfServer) results() error {
	if err := s.say(iperfExchangeResults); err != nil {
		return err
	}
	type account struct {
		ID          int     `json:"id"`
		Bytes       int64   `json:"bytes"`
		Retransmits float64 `json:"retransmits"`
		Jitter      float64 `json:"jitter"`
		Errors      int     `json:"errors"`
		Packets     int     `json:"packets"`
		StartTime   float64 `json:"start_time"`
		EndTime     float64 `json:"end_time"`
	}
	type results struct {
		CPU            float64   `json:"cpu_util_total"`
		User           float64   `json:"cpu_util_user"`
		System         float64   `json:"cpu_util_system"`
		HasRetransmits float64   `json:"sender_has_retransmits"`
		Streams        []account `json:"streams"`
	}
	var theirs results
	if err := s.readJSON(&theirs); err != nil {
		return err
	}
	if len(theirs.Streams) != len(s.counts) {
		return fmt.Errorf("the client reports %d streams, and has made %d", len(theirs.Streams), len(s.counts))
	}
	ours := results{HasRetransmits: -1}
	for i, n := range s.counts {
		ours.Streams = append(ours.Streams, account{ID: theirs.Streams[i].ID, Bytes: n, Retransmits: -1, EndTime: 1})
	}
	b, err := json.Marshal(ours)
	if err != nil {
		return err
	}
	if _, err := s.ctl.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)); err != nil {
		return err
	}
	if err := s.say(iperfDisplayResults); err != nil {
		return err
	}
	return s.expect(iperfDone)
}

func (s *iperfServer) say(state byte) error {
	_, err := s.ctl.Write([]byte{state})
	return err
}

func (s *iperfServer) expect(state byte) error {
	var b [1]byte
	if _, err := io.ReadFull(s.ctl, b[:]); err != nil {
		return fmt.Errorf("waiting for state %d: %w", state, err)
	}
	if b[0] != state {
		return fmt.Errorf("the client is in state %d, want %d", b[0], state)
	}
	return nil
}

func (s *iperfServer) readJSON(v any) error {
	var n [4]byte
	if _, err := io.ReadFull(s.ctl, n[:]); err != nil {
		return err
	}
	b := make([]byte, min(binary.BigEndian.Uint32(n[:]), 1<<20))
	if _, err := io.ReadFull(s.ctl, b); err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}
