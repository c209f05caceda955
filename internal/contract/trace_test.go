package contract

import (
	"io"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet"
	"bsdnet/internal/testutil"
	"bsdnet/netem"
)

// lossy sends size bytes from one stack to another, over 20 ms and a loss of 2 %, in virtual time,
// and calls trace with the events at the sender. It returns the sender's ConnInfo at the end.
func lossy(t *testing.T, size int, trace func(*bsdnet.TraceEvent)) (info bsdnet.ConnInfo) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		a, b, err := netem.Pipe(netem.PipeConfig{MTU: 1500})
		if err != nil {
			t.Fatal(err)
		}
		way := netem.Impairment{Delay: 10 * time.Millisecond, Rate: 20e6}
		out := way
		out.Loss = 0.02
		bad, err := netem.Impair(a, netem.Path{Write: out, Read: way, Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		sender := stack(t, bsdnet.Config{Rand: testutil.SeededRand(1), Trace: trace})
		receiver := stack(t, bsdnet.Config{Rand: testutil.SeededRand(2)})
		if err := sender.Attach(bad, netip.MustParsePrefix("10.0.0.1/24")); err != nil {
			t.Fatal(err)
		}
		if err := receiver.Attach(b, netip.MustParsePrefix("10.0.0.2/24")); err != nil {
			t.Fatal(err)
		}
		ln, err := receiver.Listen("tcp", ":80")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		got := make(chan int64)
		go func() {
			c, err := ln.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			n, err := io.Copy(io.Discard, c)
			if err != nil {
				t.Error(err)
			}
			got <- n
		}()
		c, err := sender.Dial("tcp", "10.0.0.2:80")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		c.(*bsdnet.TCPConn).CloseWrite()
		if n := <-got; n != int64(size) {
			t.Errorf("%d bytes of %d arrived", n, size)
		}
		time.Sleep(time.Second) // until the last acknowledgment has arrived
		info = c.(*bsdnet.TCPConn).Info()
	})
	return info
}

// TestTraceOfALossyPath tests that the events add up to the data that has gone through the
// connection.
func TestTraceOfALossyPath(t *testing.T) {
	const size = 1 << 20
	var (
		mu      sync.Mutex
		events  []bsdnet.TraceEvent
		sent    uint32 // the next number to be sent
		acked   uint32
		minRTT  time.Duration
		states  []string
		rexmits int
		sacked  bool
	)
	info := lossy(t, size, func(e *bsdnet.TraceEvent) {
		mu.Lock()
		defer mu.Unlock()
		c := *e
		c.Sack = nil // it is only valid during the call
		events = append(events, c)
		switch e.Kind {
		case bsdnet.TraceState:
			states = append(states, e.Name)
		case bsdnet.TraceSent:
			if e.Seq != sent {
				t.Errorf("sent %d bytes from %d; the last ended at %d", e.Len, e.Seq, sent)
			}
			sent = e.Seq + uint32(e.Len)
		case bsdnet.TraceRetransmit:
			if e.Seq < acked || e.Seq+uint32(e.Len) > sent {
				t.Errorf("sent %d bytes from %d again; %d to %d are in flight", e.Len, e.Seq, acked, sent)
			}
			rexmits++
		case bsdnet.TraceAck:
			acked = max(acked, e.Ack)
			for _, b := range e.Sack {
				sacked = true
				if b[0] >= b[1] || b[1] > sent {
					t.Errorf("SACK block %d:%d; ack %d, sent %d", b[0], b[1], e.Ack, sent)
				}
			}
		case bsdnet.TraceRTT:
			minRTT = e.MinRTT
			// RTT may be below MinRTT by the unit of a timestamp, a millisecond.
			if e.RTT < 20*time.Millisecond || e.SRTT < e.MinRTT || e.RTT < e.MinRTT-time.Millisecond || e.RTTVar <= 0 {
				t.Errorf("round trip %v, smoothed %v, variance %v, least %v; the path has 20 ms", e.RTT, e.SRTT,
					e.RTTVar, e.MinRTT)
			}
		}
	})
	end := uint32(1 + size + 1) // SYN, data, FIN
	if sent != end || acked != end {
		t.Errorf("sent up to %d, acknowledged up to %d; want %d", sent, acked, end)
	}
	if rexmits == 0 || rexmits != info.Retransmits {
		t.Errorf("%d retransmissions in the trace, %d in Info", rexmits, info.Retransmits)
	}
	if !sacked || minRTT < 20*time.Millisecond || minRTT > 30*time.Millisecond {
		t.Errorf("blocks %v, least round trip %v", sacked, minRTT)
	}
	if len(states) < 3 || [3]string(states) != [3]string{"SYN_SENT", "ESTABLISHED", "FIN_WAIT_1"} {
		t.Errorf("states %v", states)
	}
	threshold := false
	for i, e := range events {
		if e.ConnID == 0 || e.ConnID != events[0].ConnID || e.Local != info.Local || e.Remote != info.Remote {
			t.Fatalf("event %d is of connection %d, %v -> %v; want %v -> %v", i, e.ConnID, e.Local, e.Remote,
				info.Local, info.Remote)
		}
		if i > 0 && e.Time.Before(events[i-1].Time) {
			t.Fatalf("event %d is at %v, before the last", i, e.Time)
		}
		if e.Cwnd <= 0 || e.Flight < 0 || e.Flight > size+2 || e.Ssthresh >= 1<<30-1<<14 {
			t.Fatalf("event %d: %+v", i, e)
		}
		threshold = threshold || e.Ssthresh > 0
	}
	if events[0].Ssthresh != 0 || !threshold {
		t.Errorf("slow start threshold %d before a loss, set later: %v", events[0].Ssthresh, threshold)
	}
}
