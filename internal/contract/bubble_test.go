package contract

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet"
	"bsdnet/netem"
)

// A resident is a stack with a connection over its loopback. Both ends of the connection are open.
type resident struct {
	s       *bsdnet.Stack
	ln      net.Listener
	c, peer net.Conn
}

func newResident(t *testing.T, profile string) *resident {
	t.Helper()
	s, err := bsdnet.New(bsdnet.Config{TCP: bsdnet.TCPConfig{Profile: bsdnet.Profile(profile)}})
	if err != nil {
		t.Fatal(err)
	}
	r := &resident{s: s}
	if r.ln, err = s.Listen("tcp", "127.0.0.1:80"); err != nil {
		t.Fatal(err)
	}
	if r.c, err = s.Dial("tcp", "127.0.0.1:80"); err != nil {
		t.Fatal(err)
	}
	if r.peer, err = r.ln.Accept(); err != nil {
		t.Fatal(err)
	}
	return r
}

// refused checks that every call from another bubble than the stack's fails with an error that says
// so.
func (r *resident) refused(t *testing.T) {
	t.Helper()
	attach := func() error {
		a, _, err := netem.Pipe(netem.PipeConfig{})
		if err != nil {
			t.Fatal(err)
		}
		return r.s.Attach(a, netip.MustParsePrefix("10.0.0.1/24"))
	}
	tcp := r.c.(*bsdnet.TCPConn)
	for name, err := range map[string]error{
		"Dial": func() error {
			_, err := r.s.DialTimeout("tcp", "127.0.0.1:80", time.Second)
			return err
		}(),
		"Listen":               func() error { _, err := r.s.Listen("tcp", "127.0.0.1:81"); return err }(),
		"Accept":               func() error { _, err := r.ln.Accept(); return err }(),
		"Read":                 func() error { _, err := r.c.Read(make([]byte, 1)); return err }(),
		"Write":                func() error { _, err := r.c.Write(make([]byte, 1)); return err }(),
		"large Write":          func() error { _, err := r.c.Write(make([]byte, 1<<20)); return err }(),
		"WriteBuffers":         func() error { _, err := tcp.WriteBuffers(&net.Buffers{{1}, {2}}); return err }(),
		"WriteTo":              func() error { _, err := tcp.WriteTo(io.Discard); return err }(),
		"ReadFrom":             func() error { _, err := tcp.ReadFrom(strings.NewReader("x")); return err }(),
		"CloseWrite":           tcp.CloseWrite(),
		"CloseRead":            tcp.CloseRead(),
		"Close":                r.c.Close(),
		"ln.Close":             r.ln.Close(),
		"SetDeadline":          r.c.SetDeadline(time.Now().Add(time.Second)),
		"no deadline":          r.c.SetDeadline(time.Time{}),
		"SetNoDelay":           tcp.SetNoDelay(false),
		"SetKeepAlive":         tcp.SetKeepAlive(true),
		"SetCongestionControl": tcp.SetCongestionControl("newreno"),
		"Attach":               attach(),
		"Capture":              func() error { _, err := r.s.Capture(nil, io.Discard); return err }(),
	} {
		if err == nil || !strings.Contains(err.Error(), "belongs to another testing/synctest bubble, or to none") ||
			!strings.Contains(err.Error(), "New") {
			t.Errorf("%s from elsewhere: %v", name, err)
		}
		if ne, ok := err.(net.Error); ok && ne.Timeout() {
			t.Errorf("%s from elsewhere is a timeout: %v", name, err)
		}
	}
}

// works checks that calls from the stack's own bubble work as always on the existing connection,
// timers included.
func (r *resident) works(t *testing.T) {
	t.Helper()
	for _, d := range [][2]net.Conn{{r.c, r.peer}, {r.peer, r.c}} {
		if _, err := d[0].Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		var b [5]byte
		if _, err := io.ReadFull(d[1], b[:]); err != nil || string(b[:]) != "hello" {
			t.Fatalf("%q, %v", b, err)
		}
	}
	r.c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := r.c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	r.c.SetReadDeadline(time.Time{})
	c, err := r.s.Dial("tcp", "127.0.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func (r *resident) close(t *testing.T) {
	t.Helper()
	for _, c := range []io.Closer{r.c, r.peer, r.ln, r.s} {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A stack that was made outside of bubbles refuses calls from a bubble, and goes on.
func TestBubbleStackFromOutside(t *testing.T) {
	r := newResident(t, "")
	defer r.close(t)
	for range 2 {
		synctest.Test(t, func(t *testing.T) {
			r.refused(t)
			time.Sleep(time.Hour)
			r.refused(t)
		})
		r.works(t)
	}
}

// A stack that was made in a bubble refuses calls from outside while the bubble exists.
func TestBubbleStackOutside(t *testing.T) {
	var r *resident
	ask, done := make(chan bool), make(chan bool)
	go func() {
		for range ask {
			r.refused(t)
			done <- true
		}
	}()
	defer close(ask)
	synctest.Test(t, func(t *testing.T) {
		r = newResident(t, "")
		for range 2 {
			ask <- true
			<-done
			r.works(t)
			time.Sleep(time.Hour)
		}
		r.close(t)
	})
}

// A stack that was made in a bubble refuses calls from another one, whose time may be before, at or
// after the last time that the stack has seen.
func TestBubbleStackInNext(t *testing.T) {
	for _, first := range []time.Duration{0, time.Hour} {
		for _, second := range []time.Duration{0, time.Minute, time.Hour, 2 * time.Hour} {
			var r *resident
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(first)
				r = newResident(t, "")
				r.works(t)
			})
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(second)
				r.refused(t)
			})
			r.refused(t)
			if err := r.s.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// Data that has arrived can be read from another bubble, because that needs no clock. What TCP then
// sends, which depends on the profile, waits for a call from the stack's own bubble.
func TestBubbleReadOfWhatIsThere(t *testing.T) {
	for _, profile := range []string{"Default", "Net3"} {
		r := newResident(t, profile)
		if _, err := r.peer.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		synctest.Test(t, func(t *testing.T) {
			var b [5]byte
			if _, err := io.ReadFull(r.c, b[:]); err != nil || string(b[:]) != "hello" {
				t.Errorf("%q, %v", b, err)
			}
		})
		r.works(t)
		r.close(t)
	}
}

// A deadline that was computed with another clock than the stack's is refused.
func TestBubbleDeadline(t *testing.T) {
	outside := time.Now().Add(time.Second)
	var inside time.Time
	synctest.Test(t, func(t *testing.T) {
		inside = time.Now().Add(time.Second)
		r := newResident(t, "")
		for name, err := range map[string]error{
			"SetDeadline":      r.c.SetDeadline(outside),
			"SetReadDeadline":  r.c.SetReadDeadline(outside),
			"SetWriteDeadline": r.c.SetWriteDeadline(outside),
			"Accept":           r.ln.(*bsdnet.TCPListener).SetDeadline(outside),
		} {
			if err == nil || !strings.Contains(err.Error(), "computed outside of the stack's testing/synctest bubble") {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, ok := range []time.Time{inside, outside.Round(0), time.Unix(1, 0), {}} {
			if err := r.c.SetDeadline(ok); err != nil {
				t.Errorf("%v: %v", ok, err)
			}
		}
		r.works(t)
		r.close(t)
	})
	r := newResident(t, "")
	defer r.close(t)
	if err := r.c.SetReadDeadline(inside); err != nil {
		t.Fatal(err)
	}
	if _, err := r.c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	r.c.SetReadDeadline(time.Time{})
	r.works(t)
}

// The default stack, which was first used outside of bubbles, refuses calls from a bubble.
func TestBubbleDefaultStack(t *testing.T) {
	ln, err := bsdnet.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	synctest.Test(t, func(t *testing.T) {
		_, err := bsdnet.Dial("tcp", ln.Addr().String())
		if err == nil || !strings.Contains(err.Error(), "the first use makes the default stack") ||
			!strings.HasPrefix(err.Error(), "dial tcp 127.0.0.1:") {
			t.Error(err)
		}
		_, err = bsdnet.HTTPClient().Get("http://" + ln.Addr().String())
		if err == nil || !strings.Contains(err.Error(), "belongs to another") {
			t.Error(err)
		}
		_, err = bsdnet.Listen("tcp", "127.0.0.1:0")
		if err == nil || !strings.Contains(err.Error(), "belongs to another") {
			t.Error(err)
		}
	})
	c, err := bsdnet.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// A read in a bubble fails too if reads outside have waited on the connection before.
func TestBubbleReadAfterOthers(t *testing.T) {
	s := stack(t, bsdnet.Config{})
	ln, err := s.Listen("tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		if d, err := ln.Accept(); err == nil {
			io.Copy(d, d)
			d.Close()
		}
	}()
	defer c.Close()
	for range 10 {
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil { // it waits for the echo
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		_, err := c.Read(make([]byte, 1))
		if err == nil || !strings.Contains(err.Error(), "belongs to another testing/synctest bubble, or to none") {
			t.Errorf("Read: %v", err)
		}
	})
}
