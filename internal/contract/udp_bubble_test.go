package contract

import (
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet"
	"bsdnet/internal/testutil/stacktest"
	"bsdnet/netem"
)

// A udpResident is a stack with two UDP sockets, of which d has the peer c.
type udpResident struct {
	s    *bsdnet.Stack
	c, d *bsdnet.UDPConn
}

func newUDPResident(t *testing.T) *udpResident {
	t.Helper()
	s := stack(t, bsdnet.Config{})
	n := &network{server: s, client: s, shost: "127.0.0.1", chost: "127.0.0.1"}
	c := n.serverEnd().open(t)
	d := n.clientEnd().connect(t, c.LocalAddr().String())
	return &udpResident{s, c.(*bsdnet.UDPConn), d.(*bsdnet.UDPConn)}
}

// refused checks that calls from elsewhere fail with an error that says so. Writes are among them
// if the stack is in a bubble.
func (r *udpResident) refused(t *testing.T, bubble bool) {
	t.Helper()
	b := make([]byte, 1)
	ms := []bsdnet.Message{{Buffers: [][]byte{b}, Addr: r.c.LocalAddr()}}
	group := &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251)}
	calls := map[string]func() error{
		"ListenPacket":     func() error { _, err := r.s.ListenPacket("udp", ":0"); return err },
		"Dial":             func() error { _, err := r.s.Dial("udp", r.c.LocalAddr().String()); return err },
		"Read":             func() error { _, err := r.c.Read(b); return err },
		"ReadFrom":         func() error { _, _, err := r.c.ReadFrom(b); return err },
		"ReadBatch":        func() error { _, err := r.c.ReadBatch(ms, 0); return err },
		"SetDeadline":      func() error { return r.c.SetDeadline(time.Now().Add(time.Second)) },
		"no deadline":      func() error { return r.c.SetDeadline(time.Time{}) },
		"SetReadBuffer":    func() error { return r.c.SetReadBuffer(1 << 16) },
		"JoinGroup":        func() error { return r.c.JoinGroup(nil, group) },
		"LeaveGroup":       func() error { return r.c.LeaveGroup(nil, group) },
		"SetMulticastTTL":  func() error { return r.c.SetMulticastTTL(5) },
		"SetMulticastLoop": func() error { return r.c.SetMulticastLoopback(false) },
		"Close":            r.c.Close,
	}
	if bubble {
		calls["Write"] = func() error { _, err := r.d.Write(b); return err }
		calls["a long Write"] = func() error { _, err := r.d.Write(make([]byte, 70000)); return err }
		calls["WriteTo"] = func() error { _, err := r.c.WriteTo(b, r.c.LocalAddr()); return err }
		calls["WriteBatch"] = func() error { _, err := r.c.WriteBatch(ms, 0); return err }
	}
	for name, call := range calls {
		if err := call(); err == nil || !strings.Contains(err.Error(), "another testing/synctest bubble, or to none") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func (r *udpResident) works(t *testing.T) {
	t.Helper()
	r.d.Write([]byte("well"))
	if got := readSoon(t, r.c); got != "well" {
		t.Errorf("read %q", got)
	}
}

// TestUDPOtherBubble tests that calls on UDP sockets from another bubble than the stack's, or from
// none, fail and change nothing.
func TestUDPOtherBubble(t *testing.T) {
	r := newUDPResident(t)
	synctest.Test(t, func(t *testing.T) { r.refused(t, false) })
	r.works(t)

	var in *udpResident
	ask, done := make(chan bool), make(chan bool)
	go func() {
		for range ask {
			in.refused(t, true)
			done <- true
		}
	}()
	defer close(ask)
	synctest.Test(t, func(t *testing.T) {
		in = newUDPResident(t)
		for range 2 {
			ask <- true
			<-done
			in.works(t)
			time.Sleep(time.Hour)
		}
	})
}

// A stuckLink takes no packets while it is stuck.
type stuckLink struct {
	bsdnet.Link
	mu    sync.Mutex
	stuck bool
	ready func()
}

func (l *stuckLink) Start(ready func()) error {
	l.ready = ready
	return l.Link.Start(ready)
}

func (l *stuckLink) Write(pkts []net.Buffers) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stuck {
		return 0, nil
	}
	return l.Link.Write(pkts)
}

func (l *stuckLink) set(stuck bool) {
	l.mu.Lock()
	l.stuck = stuck
	l.mu.Unlock()
	if !stuck {
		l.ready()
	}
}

// TestUDPBlockedWrite tests that writes wait while the link takes nothing and SO_SNDBUF bytes wait
// for it, that deadlines and Close reach them, and that nothing is lost.
func TestUDPBlockedWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, err := netem.Pipe(netem.PipeConfig{MTU: 1500})
		if err != nil {
			t.Fatal(err)
		}
		link := &stuckLink{Link: a}
		n := &network{server: stack(t, bsdnet.Config{}), client: stack(t, bsdnet.Config{}), shost: "10.0.0.2",
			chost: "10.0.0.1", bubble: true}
		stacktest.Attach(t, n.client, link, "10.0.0.1/24")
		stacktest.Attach(t, n.server, b, "10.0.0.2/24")
		s := n.serverEnd().open(t)
		c := n.clientEnd().connect(t, s.LocalAddr().String()).(*bsdnet.UDPConn)
		other := n.clientEnd().connect(t, s.LocalAddr().String())
		c.SetWriteBuffer(20 << 10)

		link.set(true)
		fill := func() (sent int, err error) {
			c.SetWriteDeadline(time.Now().Add(time.Hour))
			for ; err == nil; sent++ {
				_, err = c.Write([]byte{byte(sent), 999: 0})
			}
			return sent - 1, err
		}
		start := time.Now()
		sent, err := fill()
		wantError(t, "Write", err, "write udp C->S: i/o timeout [os.ErrDeadlineExceeded Timeout Temporary]",
			c.LocalAddr(), "C", s.LocalAddr(), "S")
		if d := time.Since(start); d < time.Hour || d > time.Hour+time.Second || sent < 5 || sent > 20 {
			t.Errorf("%d datagrams after %v", sent, d)
		}
		if q := c.Info().SendQueue; q < 15<<10 || q > 25<<10 {
			t.Errorf("%d bytes wait", q)
		}
		if _, err := other.Write([]byte("another socket")); err != nil {
			t.Errorf("another socket has to wait: %v", err)
		}
		c.SetWriteDeadline(time.Time{})
		write := asyncWrite(c, 1000)
		n.settle()
		link.set(false)
		if r := within(t, "Write", write); r.n != 1000 || r.err != nil {
			t.Errorf("the write that had waited: %d, %v", r.n, r.err)
		}
		for i := range sent {
			if got := readSoon(t, s); len(got) != 1000 || got[0] != byte(i) {
				t.Fatalf("datagram %d: %d bytes", i, len(got))
			}
		}
		if got := readSoon(t, s); got != "another socket" {
			t.Errorf("read %q", got)
		}
		readSoon(t, s)

		link.set(true)
		fill()
		c.SetWriteDeadline(time.Time{})
		write = asyncWrite(c, 1000)
		n.settle()
		c.Close()
		wantError(t, "Write", within(t, "Write", write).err,
			"write udp C->S: use of closed network connection [net.ErrClosed]", c.LocalAddr(), "C", s.LocalAddr(), "S")
		link.set(false)
	})
}
