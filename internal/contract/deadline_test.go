package contract

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// A blocker is a call that blocks until its deadline, and the method that sets the deadline.
type blocker struct {
	name string
	set  func(time.Time) error
	call func() error
}

// blockers returns Read, Write and Accept, each of which blocks forever.
func (n *network) blockers(t *testing.T) []blocker {
	l := n.listen(t)
	r, _ := n.pairOver(t, l)
	w, _ := n.pairOver(t, l)
	return []blocker{
		{"Read", r.SetReadDeadline, func() error { _, err := r.Read(make([]byte, 1)); return err }},
		{"Write", w.SetWriteDeadline, func() error {
			for {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					return err
				}
			}
		}},
		{"Accept", l.SetDeadline, func() error { _, err := l.Accept(); return err }},
	}
}

func wantLate(t *testing.T, what string, err error) {
	t.Helper()
	var ne net.Error
	if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &ne) || !ne.Timeout() {
		t.Errorf("%s: %v, want a timeout", what, err)
	}
}

// TestDeadlineInTime tests that in a bubble a call ends exactly at its deadline, and that nothing
// happens before.
func TestDeadlineInTime(t *testing.T) {
	eachBubble(t, func(t *testing.T, n *network) {
		for _, b := range n.blockers(t) {
			for _, d := range []time.Duration{1, time.Millisecond, 3 * time.Hour} {
				start := time.Now()
				b.set(start.Add(d))
				wantLate(t, b.name, b.call())
				if got := time.Since(start); got != d {
					t.Errorf("%s with %v took %v", b.name, d, got)
				}
				start = time.Now()
				wantLate(t, b.name+" again", b.call())
				if got := time.Since(start); got != 0 {
					t.Errorf("%s after its deadline took %v", b.name, got)
				}
			}
		}
	})
}

// TestDeadlineWhileBlocked tests that a deadline that is set, moved or put into the past affects a
// call that is blocked.
func TestDeadlineWhileBlocked(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		for _, b := range n.blockers(t) {
			done := async(b.call)
			n.settle()
			b.set(past)
			wantLate(t, b.name+": into the past", within(t, b.name, done))

			b.set(time.Now().Add(time.Hour))
			done = async(b.call)
			n.settle()
			b.set(time.Now().Add(time.Millisecond))
			wantLate(t, b.name+": earlier", within(t, b.name, done))
		}
	})
}

// TestDeadlineMoved tests, in a bubble, that a deadline can be moved to a later time and removed
// while the call is blocked.
func TestDeadlineMoved(t *testing.T) {
	eachBubble(t, func(t *testing.T, n *network) {
		for _, b := range n.blockers(t) {
			start := time.Now()
			b.set(start.Add(time.Second))
			done := async(b.call)
			time.Sleep(time.Second / 2)
			b.set(start.Add(5 * time.Second))
			wantLate(t, b.name, <-done)
			if got := time.Since(start); got != 5*time.Second {
				t.Errorf("%s: moved to 5s, ended at %v", b.name, got)
			}

			start = time.Now()
			b.set(start.Add(time.Second))
			done = async(b.call)
			n.settle()
			b.set(time.Time{})
			time.Sleep(time.Hour)
			n.settle()
			select {
			case err := <-done:
				t.Errorf("%s without a deadline: %v", b.name, err)
			default:
			}
			b.set(past)
			wantLate(t, b.name, <-done)
		}
	})
}

// TestDeadlineCleared tests that the zero time makes a connection usable again after a deadline has
// passed.
func TestDeadlineCleared(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		l := n.listen(t)
		l.SetDeadline(past)
		_, err := l.Accept()
		wantLate(t, "Accept", err)
		l.SetDeadline(time.Time{})
		c, s := n.pairOver(t, l)
		c.SetDeadline(past)
		_, err = c.Read(make([]byte, 1))
		wantLate(t, "Read", err)
		_, err = c.Write([]byte("x"))
		wantLate(t, "Write", err)
		c.SetDeadline(time.Time{})
		echo(t, c, s)
	})
}

// echo sends data in each direction.
func echo(t testing.TB, c, s net.Conn) {
	t.Helper()
	for _, d := range [][2]net.Conn{{c, s}, {s, c}} {
		b := make([]byte, 5)
		if _, err := d[0].Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(d[1], b); err != nil || string(b) != "hello" {
			t.Fatalf("read %q, %v", b, err)
		}
	}
}

// TestDeadlinesAreIndependent tests that the deadline of reads does not affect writes, nor the
// other way round.
func TestDeadlinesAreIndependent(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		c, s := n.pair(t)
		c.SetReadDeadline(past)
		if _, err := c.Write([]byte("x")); err != nil {
			t.Error(err)
		}
		if _, err := s.Read(make([]byte, 1)); err != nil {
			t.Error(err)
		}
		c.SetReadDeadline(time.Time{})
		c.SetWriteDeadline(past)
		s.Write([]byte("y"))
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Error(err)
		}
	})
}

// TestDeadlineWithData tests that Read fails after its deadline although data has arrived, until
// the deadline is moved.
func TestDeadlineWithData(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		c, s := n.pair(t)
		s.Write([]byte("x"))
		if k, err := c.Read(nil); k != 0 || err != nil {
			t.Errorf("Read(nil): %d, %v", k, err)
		}
		c.SetReadDeadline(past)
		_, err := c.Read(make([]byte, 1))
		wantLate(t, "Read", err)
		c.SetReadDeadline(time.Now().Add(time.Minute))
		if k, err := c.Read(make([]byte, 1)); k != 1 || err != nil {
			t.Errorf("%d, %v", k, err)
		}
	})
}

// TestPartialWrite tests that a write that its deadline ends returns the number of bytes taken, and
// that all of these arrive.
func TestPartialWrite(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		c, s := n.pair(t)
		done := asyncWrite(c, 64<<20)
		n.settle()
		c.SetWriteDeadline(past)
		r := within(t, "Write", done)
		wantLate(t, "Write", r.err)
		c.Close()
		k, err := io.Copy(io.Discard, s)
		if k != int64(r.n) || err != nil {
			t.Errorf("written %d, arrived %d, %v", r.n, k, err)
		}
	})
}

// TestFarDeadline tests that a deadline in the far future never passes, and that one in the far
// past has passed.
func TestFarDeadline(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		c, s := n.pair(t)
		for _, far := range []time.Time{time.Unix(1<<60, 0), time.Now().Add(1<<63 - 1)} {
			c.SetDeadline(far)
			echo(t, c, s)
		}
		for _, far := range []time.Time{time.Unix(-1<<60, 0), time.Unix(0, 0), time.Now()} {
			c.SetDeadline(far)
			_, err := c.Read(make([]byte, 1))
			wantLate(t, far.String(), err)
		}
	})
}

// TestDialDeadline tests that a dial that nobody answers ends at the Timeout, the Deadline or the
// context's deadline, whichever comes first.
func TestDialDeadline(t *testing.T) {
	eachBubble(t, func(t *testing.T, n *network) {
		if n.shost == n.chost {
			return // every address on the loopback answers
		}
		const silent = "10.0.0.9:80" // the other end drops packets to other addresses than its own
		sec := func(k int) time.Time { return time.Now().Add(time.Duration(k) * time.Second) }
		const timedOut = "dial tcp S: i/o timeout [context.DeadlineExceeded Timeout Temporary]"
		for _, d := range []struct {
			name          string
			timeout       int
			deadline, ctx int
			cancel        int
			want          int
			text          string
		}{
			{name: "Timeout", timeout: 7, want: 7, text: timedOut},
			{name: "Deadline", deadline: 6, want: 6, text: timedOut},
			{name: "context's deadline", timeout: 9, deadline: 8, ctx: 5, want: 5, text: timedOut},
			{name: "Timeout before the others", timeout: 3, deadline: 8, ctx: 5, want: 3, text: timedOut},
			{name: "canceled", cancel: 4, want: 4, text: "dial tcp S: operation was canceled [context.Canceled]"},
			{name: "TCP's own", want: 75,
				text: "dial tcp S: connect: connection timed out [ETIMEDOUT SyscallError Timeout Temporary]"},
		} {
			ctx := context.Background()
			if d.ctx > 0 {
				c, cancel := context.WithDeadline(ctx, sec(d.ctx))
				defer cancel()
				ctx = c
			}
			if d.cancel > 0 {
				c, cancel := context.WithCancel(ctx)
				time.AfterFunc(time.Duration(d.cancel)*time.Second, cancel)
				ctx = c
			}
			dl := bsdnetDialer(n)
			dl.Timeout = time.Duration(d.timeout) * time.Second
			if d.deadline > 0 {
				dl.Deadline = sec(d.deadline)
			}
			start := time.Now()
			c, err := dl.DialContext(ctx, "tcp", silent)
			wantError(t, d.name, err, d.text, silent, "S")
			if c != nil {
				t.Errorf("%s: a %T together with an error: a nil pointer in an interface", d.name, c)
			}
			if got := time.Since(start).Round(time.Microsecond); got != time.Duration(d.want)*time.Second {
				t.Errorf("%s: took %v, want %d s", d.name, got, d.want)
			}
			if l := n.client.Conns(); len(l) != 0 {
				t.Errorf("%s: the half-open end is still there: %+v", d.name, l)
			}
		}
	})
}
