package contract

import (
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet"
	"bsdnet/internal/testutil"
	"bsdnet/netem"
)

// TestInfo tests the ConnInfo of a connection after a transfer with losses, and that Conns returns
// the same.
func TestInfo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, err := netem.Pipe(netem.PipeConfig{MTU: 1400, Delay: 10 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		bad, err := netem.Impair(a, netem.Path{Write: netem.Impairment{Loss: 0.02}, Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		var id uint32
		sender := stack(t, bsdnet.Config{
			Rand: testutil.SeededRand(1), TCP: bsdnet.TCPConfig{WriteBuffer: 200_000},
			Trace: func(e *bsdnet.TraceEvent) { id = e.ConnID },
		})
		receiver := stack(t, bsdnet.Config{Rand: testutil.SeededRand(2), TCP: bsdnet.TCPConfig{ReadBuffer: 100_000}})
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
		c, err := sender.Dial("tcp", "10.0.0.2:80")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		p, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		const size, unread = 1_000_000, 30_000
		go c.Write(make([]byte, size))
		if _, err := io.ReadFull(p, make([]byte, size-unread)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)

		i := c.(*bsdnet.TCPConn).Info()
		if i.ID != id || i.Local != netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), i.Local.Port()) ||
			i.Remote != netip.MustParseAddrPort("10.0.0.2:80") ||
			i.State != "ESTABLISHED" {
			t.Errorf("connection %d %v -> %v in %s", i.ID, i.Local, i.Remote, i.State)
		}
		if !i.Timestamps || !i.SACK || !i.WindowScale || i.ECN || i.SendScale == 0 || i.RecvScale == 0 {
			t.Errorf("options: %+v", i)
		}
		if i.SendBuffer < 200_000 || i.SendQueue != 0 || i.RecvQueue != 0 || i.MSS != 1360 || i.PeerMSS != 1360 {
			t.Errorf("buffers and segments: %+v", i)
		}
		if i.MinRTT < 20*time.Millisecond || i.RTT < i.MinRTT || i.RTTVar <= 0 || i.RTO < i.RTT+i.RTTVar ||
			i.Backoff != 0 {
			t.Errorf("round trips: %+v", i)
		}
		if i.Cwnd <= 0 || i.Ssthresh <= 0 || i.Ssthresh > 1_000_000 || i.InFlight != 0 || i.Sent != size ||
			i.Recv != 0 || i.Retransmits == 0 {
			t.Errorf("congestion: %+v", i)
		}
		r := p.(*bsdnet.TCPConn).Info()
		if r.RecvQueue != unread || r.Recv != size || r.Ssthresh != 0 || r.RecvBuffer < 100_000 || r.Retransmits != 0 {
			t.Errorf("the receiver: %+v", r)
		}
		// The window that the peer has been offered is the free space, or somewhat more.
		if room := r.RecvBuffer - unread; i.SendWindow < room/2 || i.SendWindow > r.RecvBuffer ||
			i.SendWindow != r.RecvWindow || i.SendNext != r.RecvNext || r.SendNext != i.RecvNext {
			t.Errorf("the sender has a window of %d at %d; the receiver one of %d at %d", i.SendWindow, i.SendNext,
				r.RecvWindow, r.RecvNext)
		}
		if list := sender.Conns(); len(list) != 1 || list[0] != i {
			t.Errorf("Conns: %+v, want %+v", list, i)
		}
		list := receiver.Conns()
		if len(list) != 2 || list[1].State != "LISTEN" || list[1].ID == 0 || list[1].ID == list[0].ID ||
			list[1].RecvBuffer == 0 || list[1].Local.String() != "[::]:80" || list[1].Remote.String() != "[::]:0" ||
			list[0] != r {
			t.Errorf("Conns: %+v", list)
		}

		// In TIME_WAIT a record takes the place of the connection.
		p.Close()
		c.Close()
		time.Sleep(time.Second)
		for _, l := range slices.Concat(sender.Conns(), receiver.Conns()) {
			if l.State != "LISTEN" && (l.ID != 0 || l.Cwnd != 0) || strings.Contains(l.State, "(") {
				t.Errorf("after Close: %+v", l)
			}
		}
	})
}
