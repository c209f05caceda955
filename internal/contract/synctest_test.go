package contract

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet"
	"bsdnet/internal/testutil"
	"bsdnet/netem"
)

// An hour has the results of a virtual hour of net/http over a bad link.
type hour struct {
	capture  []byte
	requests int
	bytes    int64
	stats    netem.Stats
}

// badHour runs net/http for an hour, or another length, of virtual time over a cable with 50 ms of
// delay and 1 % of loss each way, one request at a time, and returns the capture of the client's
// interface.
func badHour(t *testing.T, seed uint64, length time.Duration) (h hour) {
	synctest.Test(t, func(t *testing.T) {
		a, b, err := netem.Pipe(netem.PipeConfig{MTU: 1500})
		if err != nil {
			t.Fatal(err)
		}
		bad := netem.Impairment{Delay: 50 * time.Millisecond, Loss: 0.01}
		imp, err := netem.Impair(b, netem.Path{Write: bad, Read: bad, Seed: seed})
		if err != nil {
			t.Fatal(err)
		}
		server := stack(t, bsdnet.Config{Rand: testutil.SeededRand(1)})
		client := stack(t, bsdnet.Config{Rand: testutil.SeededRand(2)})
		if err := server.Attach(a, netip.MustParsePrefix("10.0.0.1/24")); err != nil {
			t.Fatal(err)
		}
		if err := client.Attach(imp, netip.MustParsePrefix("10.0.0.2/24")); err != nil {
			t.Fatal(err)
		}
		var w bytes.Buffer
		stop, err := client.Capture(imp, &w)
		if err != nil {
			t.Fatal(err)
		}
		n := &network{server: server, client: client, shost: "10.0.0.1", chost: "10.0.0.2", bubble: true}
		s := n.serve(t, bodies, nil)
		start := time.Now()
		for time.Since(start) < length {
			size := int64(h.requests * 7919 % 20_000)
			resp, err := s.client.Get(fmt.Sprintf("%s/?size=%d", s.url, size))
			if err != nil {
				t.Fatal(err)
			}
			k, err := io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if k != size || err != nil {
				t.Fatalf("%d bytes of %d, %v", k, size, err)
			}
			h.bytes += k
			h.requests++
			time.Sleep(150 * time.Millisecond)
			if h.requests%100 == 0 { // a new connection
				s.tr.CloseIdleConnections()
				time.Sleep(time.Second)
			}
		}
		s.tr.CloseIdleConnections()
		if err := s.srv.Close(); err != nil {
			t.Error(err)
		}
		<-s.done
		if err := stop(); err != nil {
			t.Error(err)
		}
		h.capture, h.stats = w.Bytes(), imp.Stats()
	})
	return h
}

// TestVirtualHour tests that the same seed gives the same hour, byte for byte, and that another
// seed gives another one.
func TestVirtualHour(t *testing.T) {
	length := time.Hour
	if testutil.Race {
		length = 3 * time.Minute // the race detector makes it twenty times slower
	}
	first, second, other := badHour(t, 1, length), badHour(t, 1, length), badHour(t, 2, time.Minute)
	if first.requests < int(length/time.Second) || first.stats.Write.Lost == 0 || first.stats.Read.Lost == 0 {
		t.Errorf("%d requests, lost %+v", first.requests, first.stats)
	}
	if !bytes.Equal(first.capture, second.capture) {
		i := 0
		for i < min(len(first.capture), len(second.capture)) && first.capture[i] == second.capture[i] {
			i++
		}
		t.Errorf("the same seed: %d and %d requests, captures of %d and %d bytes, different from byte %d on",
			first.requests, second.requests, len(first.capture), len(second.capture), i)
	}
	if bytes.HasPrefix(first.capture, other.capture[:len(other.capture)/2]) {
		t.Error("another seed gives the same capture")
	}
}

// TestBubbleEndsCleanly tests that a stack in a bubble leaves nothing behind if it is closed while
// calls are under way. If it did, synctest.Test would not end.
func TestBubbleEndsCleanly(t *testing.T) {
	eachBubble(t, func(t *testing.T, n *network) {
		s := n.serve(t, func(w http.ResponseWriter, r *http.Request) {
			for {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					return
				}
			}
		}, nil)
		for range 10 {
			go func() {
				if resp, err := s.client.Get(s.url); err == nil {
					resp.Body.Close()
				}
			}()
		}
		n.settle()
		time.Sleep(time.Second)
		n.client.Close()
		n.server.Close()
		s.srv.Close()
		<-s.done
	})
}
