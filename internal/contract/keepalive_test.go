package contract

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet"
	"bsdnet/netem"
)

// A cuttable link can be cut, so that the far side vanishes. It counts the packets that the near
// side has sent since.
type cuttable struct {
	bsdnet.Link
	cut  atomic.Bool
	sent atomic.Int64
}

func (l *cuttable) Write(pkts []net.Buffers) (int, error) {
	if l.cut.Load() {
		l.sent.Add(int64(len(pkts)))
		return len(pkts), nil
	}
	return l.Link.Write(pkts)
}

func (l *cuttable) Read(bufs [][]byte, sizes []int) (int, error) {
	for {
		n, err := l.Link.Read(bufs, sizes)
		if err != nil || !l.cut.Load() {
			return n, err
		}
	}
}

// cutNetwork is a cable whose client's end can be cut.
func cutNetwork(t testing.TB) (*network, *cuttable) {
	var l *cuttable
	n := cableOf(t, netem.PipeConfig{}, func(p bsdnet.Link) bsdnet.Link { l = &cuttable{Link: p}; return l })
	n.bubble = true
	return n, l
}

// TestKeepAlive tests that if the far side of an idle connection vanishes, the near side knows
// after the idle time and all probes, which is 150 s by default.
func TestKeepAlive(t *testing.T) {
	for _, k := range []struct {
		name   string
		set    func(c tcpConn) error
		dialer bsdnet.Dialer
		want   time.Duration
		probes int64
	}{
		{name: "default", want: 150 * time.Second, probes: 9},
		{name: "SetKeepAlive", set: func(c tcpConn) error {
			c.SetKeepAlive(false)
			return c.SetKeepAlive(true)
		}, want: 150 * time.Second, probes: 9},
		{name: "off", set: func(c tcpConn) error { return c.SetKeepAlive(false) }},
		{name: "SetKeepAlivePeriod", set: func(c tcpConn) error {
			return c.SetKeepAlivePeriod(time.Minute)
		}, want: 195 * time.Second, probes: 9},
		{name: "rounded up", set: func(c tcpConn) error {
			return c.SetKeepAlivePeriod(1100 * time.Millisecond)
		}, want: 137 * time.Second, probes: 9},
		{name: "SetKeepAliveConfig", set: func(c tcpConn) error {
			return c.SetKeepAliveConfig(net.KeepAliveConfig{
				Enable: true, Idle: 100 * time.Second, Interval: 5 * time.Second, Count: 4,
			})
		}, want: 120 * time.Second, probes: 4},
		{name: "left as it is", set: func(c tcpConn) error {
			return c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: -1, Interval: -1, Count: -1})
		}, want: 150 * time.Second, probes: 9},
		{name: "Dialer.KeepAlive", dialer: bsdnet.Dialer{KeepAlive: 30 * time.Second},
			want: 165 * time.Second, probes: 9},
		{name: "Dialer.KeepAlive off", dialer: bsdnet.Dialer{KeepAlive: -1}},
		{name: "Dialer.KeepAliveConfig", dialer: bsdnet.Dialer{
			KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: 2 * time.Second, Count: 3},
		}, want: 7 * time.Second, probes: 3},
	} {
		t.Run(k.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, link := cutNetwork(t)
				l := n.listen(t)
				k.dialer.Stack = n.client
				cc, err := k.dialer.Dial("tcp", l.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer cc.Close()
				c := cc.(tcpConn)
				if k.set != nil {
					if err := k.set(c); err != nil {
						t.Fatal(err)
					}
				}
				n.settle()
				link.cut.Store(true)
				start := time.Now()
				c.SetReadDeadline(start.Add(24 * time.Hour))
				_, err = c.Read(make([]byte, 1))
				if k.want == 0 {
					wantLate(t, "without keep-alive", err)
					return
				}
				wantError(t, "Read", err,
					"read tcp C->S: read: connection timed out [ETIMEDOUT SyscallError Timeout Temporary]",
					c.LocalAddr(), "C", c.RemoteAddr(), "S")
				if d := time.Since(start).Round(time.Microsecond); d != k.want {
					t.Errorf("it took %v, want %v", d, k.want)
				}
				if p := link.sent.Load(); p < k.probes || p > k.probes+1 { // a reset may follow the probes
					t.Errorf("%d packets were sent, want %d probes", p, k.probes)
				}
			})
		})
	}
}

// TestKeepAliveHalfClosed tests that a reader that has closed its own side also learns that the
// peer has vanished, whichever side has dialed, and that a peer that answers probes but is silent
// for an hour is kept.
func TestKeepAliveHalfClosed(t *testing.T) {
	for _, k := range []struct {
		name           string
		accepted, gone bool
		profile        string
		set            func(c tcpConn) error
		want           time.Duration
	}{
		{name: "dialed", gone: true, want: 150 * time.Second},
		{name: "accepted", gone: true, accepted: true, want: 150 * time.Second},
		{name: "times of its own", gone: true, want: 4 * time.Second, set: func(c tcpConn) error {
			return c.SetKeepAliveConfig(net.KeepAliveConfig{
				Enable: true, Idle: 2 * time.Second, Interval: time.Second, Count: 2,
			})
		}},
		{name: "switched on again", gone: true, want: 150 * time.Second, set: func(c tcpConn) error {
			c.SetKeepAlive(false)
			return c.SetKeepAlive(true)
		}},
		{name: "off", gone: true, set: func(c tcpConn) error { return c.SetKeepAlive(false) }},
		{name: "alive", gone: false},
		{name: "accepted, alive", accepted: true, gone: false},
	} {
		t.Run(k.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, link := cutNetwork(t)
				c, s := n.pair(t)
				if k.accepted {
					c, s = s, c
				}
				c.CloseWrite()
				n.settle()
				if k.set != nil {
					k.set(c)
				}
				n.settle()
				link.cut.Store(k.gone)
				start := time.Now()
				c.SetReadDeadline(start.Add(time.Hour))
				b := make([]byte, 8)
				_, err := c.Read(b)
				if k.want == 0 {
					wantLate(t, "Read", err)
				} else {
					wantError(t, "Read", err,
						"read tcp C->S: read: connection timed out [ETIMEDOUT SyscallError Timeout Temporary]",
						c.LocalAddr(), "C", c.RemoteAddr(), "S")
					if d := time.Since(start).Round(time.Microsecond); d != k.want {
						t.Errorf("it took %v, want %v", d, k.want)
					}
				}
				if k.gone {
					return
				}
				s.Write([]byte("late"))
				c.SetReadDeadline(time.Time{})
				if m, err := c.Read(b); m != 4 || err != nil {
					t.Errorf("after an hour: %d, %v", m, err)
				}
			})
		})
	}
}

// TestKeepAliveOfListener tests that accepted connections have the keep-alive settings of the
// listener, or the default.
func TestKeepAliveOfListener(t *testing.T) {
	for _, k := range []struct {
		name string
		lc   bsdnet.ListenConfig
		want time.Duration
	}{
		{"default", bsdnet.ListenConfig{}, 150 * time.Second},
		{"KeepAlive", bsdnet.ListenConfig{KeepAlive: 30 * time.Second}, 165 * time.Second},
		{"off", bsdnet.ListenConfig{KeepAlive: -1}, 0},
		{"KeepAliveConfig", bsdnet.ListenConfig{
			KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: 2 * time.Second, Count: 3},
		}, 7 * time.Second},
	} {
		t.Run(k.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, link := cutNetwork(t)
				k.lc.Stack = n.client // the link of this side is cut
				l, err := k.lc.Listen(context.Background(), "tcp", net.JoinHostPort(n.chost, "80"))
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				c, err := n.server.Dial("tcp", l.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				s, err := l.Accept()
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				n.settle()
				link.cut.Store(true)
				start := time.Now()
				s.SetReadDeadline(start.Add(24 * time.Hour))
				_, err = s.Read(make([]byte, 1))
				if k.want == 0 {
					wantLate(t, "without keep-alive", err)
				} else if d := time.Since(start).Round(time.Microsecond); d != k.want {
					t.Errorf("%v after %v, want %v", err, d, k.want)
				}
			})
		})
	}
}

// TestRetransmissionGivesUp tests that data that nobody acknowledges ends a connection with
// ETIMEDOUT after at least 100 s (RFC 9293, SHLD-11), for the reader and the writer.
func TestRetransmissionGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, link := cutNetwork(t)
		c, _ := n.pair(t)
		n.settle()
		link.cut.Store(true)
		start := time.Now()
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		_, err := c.Read(make([]byte, 1))
		wantError(t, "Read", err,
			"read tcp C->S: read: connection timed out [ETIMEDOUT SyscallError Timeout Temporary]",
			c.LocalAddr(), "C", c.RemoteAddr(), "S")
		if d := time.Since(start); d < 100*time.Second || d > time.Hour {
			t.Errorf("it took %v", d)
		}
		_, err = c.Write([]byte("x"))
		wantError(t, "Write", err, "write tcp C->S: write: broken pipe [EPIPE SyscallError]",
			c.LocalAddr(), "C", c.RemoteAddr(), "S")
	})
}

// TestDetach tests that after a link is detached new dials fail with ENETUNREACH, and connections
// over the link end.
func TestDetach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, err := netem.Pipe(netem.PipeConfig{})
		if err != nil {
			t.Fatal(err)
		}
		s1, s2 := stack(t, bsdnet.Config{}), stack(t, bsdnet.Config{})
		s1.Attach(a, netip.MustParsePrefix("10.0.0.1/24"))
		s2.Attach(b, netip.MustParsePrefix("10.0.0.2/24"))
		n := &network{server: s1, client: s2, shost: "10.0.0.1", chost: "10.0.0.2", bubble: true}
		l := n.listen(t)
		c, _ := n.pairOver(t, l)
		if err := s2.Detach(b); err != nil {
			t.Fatal(err)
		}
		_, err = n.dial(l.Addr().String())
		wantError(t, "Dial", err, "dial tcp S: connect: network is unreachable [ENETUNREACH SyscallError]",
			l.Addr(), "S")
		c.Write([]byte("x"))
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("something was read over a link that is gone")
		}
		if err := s2.Detach(b); err == nil {
			t.Error("Detach again: no error")
		}
	})
}
