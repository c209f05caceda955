package contract

import (
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"

	"bsdnet"
)

// TestCloseWakesAll tests that every call that is blocked when the connection or listener is closed
// returns net.ErrClosed, and never io.EOF.
func TestCloseWakesAll(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		l := n.listen(t)
		c, _ := n.pairOver(t, l)
		var calls []<-chan error
		for range 3 {
			calls = append(calls,
				async(func() error { _, err := c.Read(make([]byte, 1)); return err }),
				async(func() error {
					for {
						if _, err := c.Write(make([]byte, 1<<20)); err != nil {
							return err
						}
					}
				}),
				async(func() error { _, err := l.Accept(); return err }))
		}
		n.settle()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		l.Close()
		for _, call := range calls {
			if err := within(t, "a blocked call", call); !errors.Is(err, net.ErrClosed) {
				t.Errorf("%v, want net.ErrClosed", err)
			}
		}
	})
}

// TestCloseDelivers tests that data that was written before Close arrives, and then the end.
func TestCloseDelivers(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		c, s := n.pair(t)
		c.SetWriteBuffer(1 << 20)
		data := bytes.Repeat([]byte("0123456789abcdef"), 6000) // fits into the buffer, but not into the window
		if _, err := c.Write(data); err != nil {
			t.Fatal(err)
		}
		c.Close()
		b, err := io.ReadAll(s)
		if !bytes.Equal(b, data) || err != nil {
			t.Errorf("%d bytes of %d, %v", len(b), len(data), err)
		}
	})
}

// TestLinger0 tests that SetLinger(0) discards queued data, and that the peer sees a reset at once.
func TestLinger0(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		c, s := n.pair(t)
		write := asyncWrite(c, 16<<20)
		n.settle()
		c.SetLinger(0)
		c.Close()
		if r := within(t, "Write", write); r.err == nil {
			t.Error("16 MiB fitted the buffers")
		}
		k, err := io.Copy(io.Discard, s)
		if k >= 16<<20 || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%d bytes, %v, want ECONNRESET", k, err)
		}
	})
}

// TestCloseUnread tests that closing with unread data sends a reset (RFC 2525, 2.17).
func TestCloseUnread(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		c, s := n.pair(t)
		s.Write([]byte("lost"))
		b := make([]byte, 1)
		if _, err := c.Read(b); err != nil { // the other three bytes have arrived too
			t.Fatal(err)
		}
		read := asyncRead(s, 1)
		n.settle()
		c.Close()
		if r := within(t, "Read", read); !errors.Is(r.err, syscall.ECONNRESET) {
			t.Errorf("%v, want ECONNRESET", r.err)
		}
	})
}

// TestLingerWaits tests that SetLinger(n) makes Close wait until all data is acknowledged, or for n
// seconds.
func TestLingerWaits(t *testing.T) {
	eachBubble(t, func(t *testing.T, n *network) {
		for _, reader := range []bool{true, false} {
			c, s := n.pair(t)
			write := asyncWrite(c, 8<<20)
			time.Sleep(time.Second)
			c.SetWriteDeadline(past) // leave the buffers full
			<-write
			c.SetLinger(10)
			got := make(chan int64, 1)
			if reader {
				time.AfterFunc(3*time.Second, func() { k, _ := io.Copy(io.Discard, s); got <- k })
			}
			start := time.Now()
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			d := time.Since(start)
			if reader {
				<-got
			}
			if reader && (d < 3*time.Second || d >= 10*time.Second) || !reader && d != 10*time.Second {
				t.Errorf("reader %v: Close took %v", reader, d)
			}
			s.Close()
		}
	})
}

// TestLingerOthers tests that while one call of Close lingers, every other call on the connection,
// blocked or new, returns net.ErrClosed.
func TestLingerOthers(t *testing.T) {
	eachBubble(t, func(t *testing.T, n *network) {
		for _, reader := range []bool{true, false} { // it ends because the peer reads, or because its time is up
			c, s := n.pair(t)
			c.SetLinger(30)
			full := async(func() error {
				for {
					if _, err := c.Write(make([]byte, 1<<20)); err != nil {
						return err
					}
				}
			})
			n.settle()
			calls := map[string]<-chan error{
				"a blocked Read":        async(func() error { _, err := c.Read(make([]byte, 1)); return err }),
				"another blocked Read":  async(func() error { _, err := c.Read(make([]byte, 1)); return err }),
				"a blocked Write":       full,
				"another blocked Write": async(func() error { _, err := c.Write(make([]byte, 16<<20)); return err }),
			}
			n.settle()
			start := time.Now()
			first := async(c.Close)
			for what, call := range calls {
				if err := within(t, what, call); !errors.Is(err, net.ErrClosed) {
					t.Errorf("%s: %v, want net.ErrClosed", what, err)
				}
			}
			for what, call := range map[string]func() error{
				"Close":              c.Close,
				"CloseRead":          c.CloseRead,
				"CloseWrite":         c.CloseWrite,
				"Read":               func() error { _, err := c.Read(make([]byte, 1)); return err },
				"Read of nothing":    func() error { _, err := c.Read(nil); return err },
				"Write":              func() error { _, err := c.Write([]byte("x")); return err },
				"SetDeadline":        func() error { return c.SetDeadline(time.Time{}) },
				"SetWriteDeadline":   func() error { return c.SetWriteDeadline(past) },
				"SetLinger":          func() error { return c.SetLinger(1000) },
				"SetNoDelay":         func() error { return c.SetNoDelay(true) },
				"SetKeepAlive":       func() error { return c.SetKeepAlive(true) },
				"SetReadBuffer":      func() error { return c.SetReadBuffer(1 << 16) },
				"SetWriteBuffer":     func() error { return c.SetWriteBuffer(1 << 16) },
				"SetKeepAlivePeriod": func() error { return c.SetKeepAlivePeriod(time.Second) },
			} {
				if err := within(t, what, async(call)); !errors.Is(err, net.ErrClosed) {
					t.Errorf("%s while Close lingers: %v, want net.ErrClosed", what, err)
				}
			}
			if reader {
				go io.Copy(io.Discard, s)
			}
			if err := within(t, "Close", first); err != nil {
				t.Error(err)
			}
			if d := time.Since(start); !reader && d != 30*time.Second || reader && d >= 30*time.Second {
				t.Errorf("reader %v: Close took %v", reader, d)
			}
			s.Close()
		}
	})
}

// TestLingerEnds tests that everything that ends the connection also ends a Close that lingers: the
// peer's reset, and the stack's Close.
func TestLingerEnds(t *testing.T) {
	eachBubble(t, func(t *testing.T, n *network) {
		for _, k := range []struct {
			name string
			end  func(s tcpConn)
		}{
			{"the peer's reset", func(s tcpConn) { s.SetLinger(0); s.Close() }},
			{"the peer's close, unread", func(s tcpConn) { s.Close() }},
			{"the stack's close", func(s tcpConn) { n.client.Close() }},
		} {
			c, s := n.pair(t)
			c.SetWriteDeadline(time.Now().Add(time.Second))
			for err := error(nil); err == nil; {
				_, err = c.Write(make([]byte, 1<<20))
			}
			c.SetLinger(1000)
			start := time.Now()
			done := async(c.Close)
			n.settle()
			k.end(s)
			if err := within(t, k.name, done); err != nil {
				t.Errorf("%s: %v", k.name, err)
			}
			if d := time.Since(start); d > time.Second {
				t.Errorf("%s: Close took %v", k.name, d)
			}
		}
	})
}

// TestHalfClose tests that each side can end its own direction.
func TestHalfClose(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		c, s := n.pair(t)
		c.Write([]byte("question"))
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(s); string(b) != "question" || err != nil {
			t.Fatalf("%q %v", b, err)
		}
		data := make([]byte, 3<<20)
		go func() { s.Write(data); s.CloseWrite() }()
		if k, err := io.Copy(io.Discard, c); k != int64(len(data)) || err != nil {
			t.Fatalf("%d %v", k, err)
		}
	})
}

// TestCloseRead tests that the reader sees the end at once, and that the peer can go on writing,
// whose data is discarded.
func TestCloseRead(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		c, s := n.pair(t)
		read := asyncRead(c, 1)
		n.settle()
		if err := c.CloseRead(); err != nil {
			t.Fatal(err)
		}
		if r := within(t, "Read", read); r.err != io.EOF {
			t.Errorf("a blocked Read: %v, want io.EOF", r.err)
		}
		if _, err := s.Write([]byte("x")); err != nil {
			t.Error(err)
		}
		if _, err := c.Write([]byte("y")); err != nil {
			t.Error(err)
		}
		if k, err := s.Read(make([]byte, 1)); k != 1 || err != nil {
			t.Errorf("the peer reads %d, %v", k, err)
		}
	})
}

// TestFinWait2 tests that a connection that is half-closed and then closed waits for a silent
// peer's FIN for 60 s and not forever, and that a half-closed one that is still read from waits
// forever.
func TestFinWait2(t *testing.T) {
	eachBubble(t, func(t *testing.T, n *network) {
		state := func(a net.Addr) string {
			for _, c := range n.client.Conns() {
				if c.Local.String() == a.String() {
					return c.State
				}
			}
			return ""
		}
		for _, half := range []time.Duration{0, time.Hour} {
			c, s := n.pair(t)
			if half > 0 {
				c.CloseWrite()
				time.Sleep(half)
				s.Write([]byte("late"))
				if k, err := c.Read(make([]byte, 8)); k != 4 || err != nil {
					t.Fatalf("after %v: %d, %v", half, k, err)
				}
			}
			c.Close()
			n.settle()
			time.Sleep(59 * time.Second)
			if got := state(c.LocalAddr()); got != "FIN_WAIT_2" {
				t.Errorf("half-closed for %v: after 59 s in %q", half, got)
			}
			time.Sleep(2 * time.Second)
			if got := state(c.LocalAddr()); got != "" {
				t.Errorf("half-closed for %v: after 61 s in %q", half, got)
			}
			s.Close()
			time.Sleep(3 * time.Minute)
		}
		if l := n.server.Conns(); len(l) != 0 {
			t.Errorf("the server still has %+v", l)
		}
	})
}

// TestStackClose tests that Stack.Close ends all blocked calls with net.ErrClosed, resets the peer,
// and leaves nothing behind. New calls fail with net.ErrClosed too.
func TestStackClose(t *testing.T) {
	eachOwn(t, func(t *testing.T, n *network) {
		l := n.listen(t)
		c, s := n.pairOver(t, l)
		idle, _ := n.pairOver(t, l)
		w, ws := n.pairOver(t, l)
		queued, err := n.dial(l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		calls := map[string]<-chan error{
			"Read":   async(func() error { _, err := c.Read(make([]byte, 1)); return err }),
			"Accept": async(func() error { l.Accept(); _, err := l.Accept(); return err }),
			"Write": async(func() error {
				for {
					if _, err := w.Write(make([]byte, 1<<20)); err != nil {
						return err
					}
				}
			}),
		}
		if n.client == n.server {
			calls["the peer's Read"] = async(func() error { _, err := s.Read(make([]byte, 1)); return err })
			calls["Read of a queued one"] = async(func() error { _, err := queued.Read(make([]byte, 1)); return err })
		}
		n.settle()
		n.client.Close()
		if n.client != n.server {
			for _, p := range []net.Conn{s, ws} {
				if _, err := io.Copy(io.Discard, p); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("the peer sees %v, want ECONNRESET", err)
				}
			}
			n.server.Close()
		}
		for name, call := range calls {
			if err := within(t, name, call); !errors.Is(err, net.ErrClosed) {
				t.Errorf("%s: %v, want net.ErrClosed", name, err)
			}
		}
		_, err = idle.Read(make([]byte, 1))
		wantError(t, "Read later", err, "read tcp C->S: use of closed network connection [net.ErrClosed]",
			idle.LocalAddr(), "C", idle.RemoteAddr(), "S")
		_, err = n.dial(l.Addr().String())
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("Dial: %v, want net.ErrClosed", err)
		}
		_, err = n.listenOn(net.JoinHostPort(n.shost, "0"))
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("Listen: %v, want net.ErrClosed", err)
		}
		for _, f := range []func() error{c.Close, s.Close, l.Close} {
			if err := f(); err != nil && !errors.Is(err, net.ErrClosed) {
				t.Errorf("Close: %v", err)
			}
		}
		if err := n.client.Close(); err != nil {
			t.Errorf("Close again: %v", err)
		}
	})
}

// TestListenerCloseResetsQueue tests that closing a listener resets the connections that nobody has
// accepted.
func TestListenerCloseResetsQueue(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		l := n.listen(t)
		c, err := n.dial(l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if n.bubble {
			n.settle() // the final ACK may still be under way
		} else if n.server != nil {
			eventually(t, "the connection is queued", func() bool {
				return slices.ContainsFunc(n.server.Conns(), func(i bsdnet.ConnInfo) bool {
					return i.State == "ESTABLISHED" && i.Local.String() == l.Addr().String()
				})
			})
		}
		l.Close()
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%v, want ECONNRESET", err)
		}
	})
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in a minute: %s", what)
		}
	}
}

// TestReadNil tests that Read(nil) returns at once, even if another reader is blocked or the
// deadline has passed, and fails only on a closed connection.
func TestReadNil(t *testing.T) {
	eachOwn(t, func(t *testing.T, n *network) {
		c, _ := n.pair(t)
		blocked := asyncRead(c, 1)
		n.settle()
		for _, d := range []time.Time{{}, past} {
			k, err := c.Read(nil)
			wantError(t, "Read(nil)", err, "nil")
			if k != 0 {
				t.Error(k)
			}
			c.SetReadDeadline(d)
		}
		within(t, "Read", blocked)
		k, err := c.Read([]byte{})
		wantError(t, "Read(nil) after the deadline", err, "nil")
		if k != 0 {
			t.Error(k)
		}
		c.Close()
		_, err = c.Read(nil)
		wantError(t, "Read(nil) after Close", err, "read tcp C->S: use of closed network connection [net.ErrClosed]",
			c.LocalAddr(), "C", c.RemoteAddr(), "S")
	})
}
