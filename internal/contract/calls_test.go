package contract

import (
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"bsdnet"
)

// A call is an action on a connection by its user, c, or by its peer, s. It returns the effect that
// the user can see.
type call struct {
	name string
	do   func(c, s tcpConn) string
}

// calls are the calls in the sequences.
var calls = []call{
	{"CloseRead", func(c, s tcpConn) string { return callError(c.CloseRead()) }},
	{"CloseWrite", func(c, s tcpConn) string { return callError(c.CloseWrite()) }},
	{"Close", func(c, s tcpConn) string { return callError(c.Close()) }},
	{"SetLinger0", func(c, s tcpConn) string { return callError(c.SetLinger(0)) }},
	{"SetLinger1", func(c, s tcpConn) string { return callError(c.SetLinger(1)) }},
	{"options", func(c, s tcpConn) string {
		return callError(errors.Join(c.SetNoDelay(true), c.SetKeepAlive(true), c.SetKeepAlivePeriod(time.Hour),
			c.SetReadBuffer(1<<16), c.SetWriteBuffer(1<<16)))
	}},
	{"deadline", func(c, s tcpConn) string { return callError(c.SetDeadline(past)) }},
	{"write", func(c, s tcpConn) string {
		n, err := c.Write([]byte("our data"))
		return fmt.Sprint(n, " ", callError(err))
	}},
	{"data", func(c, s tcpConn) string { // its error is not compared: it depends on when a reset arrives
		s.Write([]byte("data"))
		return ""
	}},
	{"end", func(c, s tcpConn) string {
		s.CloseWrite()
		return ""
	}},
	{"reset", func(c, s tcpConn) string {
		s.SetLinger(0)
		s.Close()
		return ""
	}},
}

// callError is like describe, without the ports, which differ between connections.
func callError(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		return fmt.Sprintf("%s %v %v %s", op.Op, op.Source != nil, op.Addr != nil, describe(op.Err))
	}
	return describe(err)
}

// sequence makes a connection, makes the calls on it, and then reads to the end at both ends. It
// returns all results.
func (n *network) sequence(t *testing.T, l net.Listener, seq []call) string {
	c, s := n.pairOver(t, l)
	defer c.Close()
	defer s.Close()
	var out []string
	note := func(name, result string) {
		n.settle()
		if result != "" {
			out = append(out, name+": "+result)
		}
	}
	for _, a := range seq {
		note(a.name, a.do(c, s))
	}
	s.Write([]byte("after"))
	note("", "")
	c.SetDeadline(time.Time{})
	s.CloseWrite()
	note("", "")
	b, err := io.ReadAll(c)
	note("ReadAll", fmt.Sprintf("%q %s", b, callError(err)))
	note("CloseWrite at last", callError(c.CloseWrite()))
	note("Close at last", callError(c.Close()))
	b, err = io.ReadAll(s)
	note("the peer reads", fmt.Sprintf("%q %s", b, callError(err)))
	return strings.Join(out, "\n\t")
}

// TestOptionsAtTheEnd: options are set without an error on a connection that a reset has ended, or
// that is in TIME_WAIT, as with package net on Linux; a value that is wrong still fails.
func TestOptionsAtTheEnd(t *testing.T) {
	eachBubble(t, func(t *testing.T, n *network) {
		for _, reset := range []bool{true, false} {
			c, s := n.pair(t)
			if reset {
				s.SetLinger(0)
				s.Close()
			} else {
				c.CloseWrite()
				n.settle()
				s.CloseWrite()
			}
			n.settle()
			b := c.(*bsdnet.TCPConn)
			for what, err := range map[string]error{
				"SetNoDelay":           b.SetNoDelay(true),
				"SetKeepAliveConfig":   b.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Hour}),
				"SetUserTimeout":       b.SetUserTimeout(time.Hour),
				"SetCongestionControl": b.SetCongestionControl("newreno"),
			} {
				if err != nil {
					t.Errorf("reset %v: %s: %v", reset, what, err)
				}
			}
			if err := b.SetUserTimeout(-1); !errors.Is(err, syscall.EINVAL) {
				t.Errorf("reset %v: SetUserTimeout(-1): %v", reset, err)
			}
			if err := b.SetCongestionControl("none"); !errors.Is(err, syscall.ENOENT) {
				t.Errorf("reset %v: SetCongestionControl(none): %v", reset, err)
			}
		}
	})
}

// TestCallSequences tests that every triple of calls that end something, with data before, between
// and after, has the results that it has with package net on Linux. The triples contain every pair
// of calls, and each call twice in a row.
func TestCallSequences(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("Linux says what is right")
	}
	kern := &network{kernel: true, shost: "127.0.0.1", chost: "127.0.0.1"}
	kl := kern.listen(t)
	want := map[string]string{}
	var names []string
	var seqs [][]call
	for _, a := range calls {
		for _, b := range calls {
			for _, c := range calls {
				seq := []call{a, b, c}
				name := a.name + " " + b.name + " " + c.name
				names, seqs = append(names, name), append(seqs, seq)
				want[name] = kern.sequence(t, kl, seq)
			}
		}
	}
	eachBubble(t, func(t *testing.T, n *network) {
		l := n.listen(t)
		for i, seq := range seqs {
			if got := n.sequence(t, l, seq); got != want[names[i]] {
				t.Errorf("%s:\n\t%s\nwith package net\n\t%s", names[i], got, want[names[i]])
			}
		}
	})
}
