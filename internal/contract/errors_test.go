package contract

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// past is a deadline that has passed.
var past = time.Unix(1, 0)

// TestErrorsAfterOwnClose tests that every method of a connection fails with net.ErrClosed after
// Close, with the Op of package net.
func TestErrorsAfterOwnClose(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		c, s := n.pair(t)
		l, r := c.LocalAddr(), c.RemoteAddr()
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 1)
		const closed = ": use of closed network connection [net.ErrClosed]"
		for _, a := range []struct {
			name, want string
			do         func() error
		}{
			{"Read", "read tcp C->S" + closed, func() error { _, err := c.Read(buf); return err }},
			{"Write", "write tcp C->S" + closed, func() error { _, err := c.Write(buf); return err }},
			{"Close", "close tcp C->S" + closed, c.Close},
			{"CloseRead", "close tcp C->S" + closed, c.CloseRead},
			{"CloseWrite", "close tcp C->S" + closed, c.CloseWrite},
			{"SetDeadline", "set tcp C" + closed, func() error { return c.SetDeadline(past) }},
			{"SetReadDeadline", "set tcp C" + closed, func() error { return c.SetReadDeadline(time.Time{}) }},
			{"SetWriteDeadline", "set tcp C" + closed, func() error { return c.SetWriteDeadline(past) }},
			{"SetLinger", "set tcp C->S" + closed, func() error { return c.SetLinger(0) }},
			{"SetNoDelay", "set tcp C->S" + closed, func() error { return c.SetNoDelay(true) }},
			{"SetKeepAlive", "set tcp C->S" + closed, func() error { return c.SetKeepAlive(true) }},
			{"SetKeepAlivePeriod", "set tcp C->S" + closed, func() error { return c.SetKeepAlivePeriod(time.Second) }},
			{"SetKeepAliveConfig", "set tcp C->S" + closed, func() error {
				return c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true})
			}},
			{"SetReadBuffer", "set tcp C" + closed, func() error { return c.SetReadBuffer(1 << 16) }},
			{"SetWriteBuffer", "set tcp C" + closed, func() error { return c.SetWriteBuffer(1 << 16) }},
			{"ReadFrom", "readfrom tcp C->S: write tcp C->S" + closed, func() error {
				_, err := c.ReadFrom(struct{ io.Reader }{bytes.NewReader(buf)})
				return err
			}},
			{"WriteTo", "writeto tcp C->S: read tcp C->S" + closed, func() error {
				_, err := c.WriteTo(new(bytes.Buffer))
				return err
			}},
		} {
			wantError(t, a.name, a.do(), a.want, l, "C", r, "S")
		}
		if c.LocalAddr().String() != l.String() || c.RemoteAddr().String() != r.String() {
			t.Errorf("the addresses have changed from %v, %v to %v, %v", l, r, c.LocalAddr(), c.RemoteAddr())
		}
		if _, err := s.Read(buf); err != io.EOF {
			t.Errorf("the other side reads %v", err)
		}
	})
}

// TestErrorsAfterListenerClose tests the same for a listener. The error of Accept is not temporary,
// because http.Server would try again forever.
func TestErrorsAfterListenerClose(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		l := n.listen(t)
		a := l.Addr()
		blocked := async(func() error { _, err := l.Accept(); return err })
		n.settle()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		const closed = ": use of closed network connection [net.ErrClosed]"
		wantError(t, "blocked Accept", within(t, "Accept", blocked), "accept tcp S"+closed, a, "S")
		c, err := l.Accept()
		wantError(t, "Accept", err, "accept tcp S"+closed, a, "S")
		if c != nil {
			t.Errorf("Accept returned a %T together with an error: a nil pointer in an interface", c)
		}
		wantError(t, "Close", l.Close(), "close tcp S"+closed, a, "S")
		if !n.kernel { // package net returns no OpError here
			wantError(t, "SetDeadline", l.SetDeadline(past), "set tcp S"+closed, a, "S")
		}
		if l.Addr().String() != a.String() {
			t.Errorf("the address has changed from %v to %v", a, l.Addr())
		}
		_, err = n.dial(a.String())
		wantError(t, "Dial", err, "dial tcp S: connect: connection refused [ECONNREFUSED SyscallError]", a, "S")
	})
}

// TestErrorsAfterReset tests that after a reset from the peer Read returns ECONNRESET once, and
// then the end of the stream, and that Write returns EPIPE.
func TestErrorsAfterReset(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		c, s := n.pair(t)
		l, r := c.LocalAddr(), c.RemoteAddr()
		read := asyncRead(c, 1)
		n.settle()
		s.SetLinger(0)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		wantError(t, "blocked Read", within(t, "Read", read).err,
			"read tcp C->S: read: connection reset by peer [ECONNRESET SyscallError]", l, "C", r, "S")
		for range 2 {
			_, err := c.Read(make([]byte, 1))
			wantError(t, "Read again", err, "EOF [io.EOF]")
		}
		for range 2 {
			_, err := c.Write(make([]byte, 1))
			wantError(t, "Write", err, "write tcp C->S: write: broken pipe [EPIPE SyscallError]", l, "C", r, "S")
		}
		wantError(t, "CloseWrite", c.CloseWrite(),
			"close tcp C->S: shutdown: transport endpoint is not connected [ENOTCONN SyscallError]", l, "C", r, "S")
		wantError(t, "SetDeadline", c.SetDeadline(past), "nil")
		if c.LocalAddr().String() != l.String() || c.RemoteAddr().String() != r.String() {
			t.Errorf("the addresses have changed from %v, %v to %v, %v", l, r, c.LocalAddr(), c.RemoteAddr())
		}
		wantError(t, "Close", c.Close(), "nil")
	})
}

// TestWriteAfterReset tests that Write returns ECONNRESET once if nobody has read since the reset.
func TestWriteAfterReset(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		c, s := n.pair(t)
		l, r := c.LocalAddr(), c.RemoteAddr()
		write := async(func() error { // more than all buffers hold
			for {
				if _, err := c.Write(make([]byte, 1<<20)); err != nil {
					return err
				}
			}
		})
		n.settle()
		s.SetLinger(0)
		s.Close()
		wantError(t, "blocked Write", within(t, "Write", write),
			"write tcp C->S: write: connection reset by peer [ECONNRESET SyscallError]", l, "C", r, "S")
		_, err := c.Write([]byte("x"))
		wantError(t, "Write again", err, "write tcp C->S: write: broken pipe [EPIPE SyscallError]", l, "C", r, "S")
	})
}

// TestWriteAfterPeerClose tests that Write works after the peer's FIN, and fails after the reset
// that answers the data.
func TestWriteAfterPeerClose(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		c, s := n.pair(t)
		l, r := c.LocalAddr(), c.RemoteAddr()
		s.Close()
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Fatal(err)
		}
		var err error
		for end := time.Now().Add(time.Minute); err == nil && time.Now().Before(end); time.Sleep(time.Millisecond) {
			_, err = c.Write([]byte("x"))
		}
		if !errors.Is(err, syscall.ECONNRESET) { // the first error depends on scheduling; then it is EPIPE forever
			wantError(t, "Write", err, "write tcp C->S: write: broken pipe [EPIPE SyscallError]", l, "C", r, "S")
		}
		for range 3 {
			_, err = c.Write([]byte("x"))
			wantError(t, "Write again", err, "write tcp C->S: write: broken pipe [EPIPE SyscallError]", l, "C", r, "S")
		}
	})
}

// TestWriteAfterCloseWrite tests that Write returns EPIPE, and that Read works.
func TestWriteAfterCloseWrite(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		c, s := n.pair(t)
		l, r := c.LocalAddr(), c.RemoteAddr()
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		_, err := c.Write([]byte("x"))
		wantError(t, "Write", err, "write tcp C->S: write: broken pipe [EPIPE SyscallError]", l, "C", r, "S")
		_, err = c.ReadFrom(struct{ io.Reader }{bytes.NewReader([]byte("x"))})
		wantError(t, "ReadFrom", err,
			"readfrom tcp C->S: write tcp C->S: write: broken pipe [EPIPE SyscallError]", l, "C", r, "S")
		b, err := io.ReadAll(s)
		if len(b) != 0 || err != nil {
			t.Errorf("the peer reads %q, %v", b, err)
		}
		s.Write([]byte("still here"))
		s.Close()
		if b, err := io.ReadAll(c); string(b) != "still here" || err != nil {
			t.Errorf("read %q, %v", b, err)
		}
		wantError(t, "CloseWrite again", c.CloseWrite(),
			"close tcp C->S: shutdown: transport endpoint is not connected [ENOTCONN SyscallError]", l, "C", r, "S")
	})
}

// TestFile tests that File fails with an errno, because a connection has no descriptor, and that
// after Close it fails as all calls do.
func TestFile(t *testing.T) {
	eachOwn(t, func(t *testing.T, n *network) {
		l := n.listen(t)
		c, _ := n.pairOver(t, l)
		f, err := c.File()
		wantError(t, "TCPConn.File", err,
			"file tcp C->S: dup: operation not supported [errors.ErrUnsupported SyscallError]",
			c.LocalAddr(), "C", c.RemoteAddr(), "S")
		if f != nil {
			t.Error("File returned a file together with an error")
		}
		_, err = l.File()
		wantError(t, "TCPListener.File", err,
			"file tcp S: dup: operation not supported [errors.ErrUnsupported SyscallError]", l.Addr(), "S")
		if !errors.As(err, new(syscall.Errno)) {
			t.Errorf("%v is no errno", err)
		}
		if mp, err := c.MultipathTCP(); mp || err != nil {
			t.Errorf("MultipathTCP: %v, %v", mp, err)
		}
		for _, v := range []any{c, l} {
			if _, ok := v.(syscall.Conn); ok {
				t.Errorf("%T has SyscallConn, and would be taken for an owner of a descriptor", v)
			}
		}
		c.Close()
		l.Close()
		if _, err := c.File(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("TCPConn.File after Close: %v", err)
		}
		if _, err := l.File(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("TCPListener.File after Close: %v", err)
		}
	})
}

// TestEOFRepeats tests that Read returns io.EOF itself, again and again.
func TestEOFRepeats(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		c, s := n.pair(t)
		s.Write([]byte("end"))
		s.CloseWrite()
		b := make([]byte, 2)
		for _, want := range []string{"en", "d"} {
			if k, err := c.Read(b); string(b[:k]) != want || err != nil {
				t.Fatalf("read %q, %v, want %q", b[:k], err, want)
			}
		}
		for range 3 {
			if k, err := c.Read(b); k != 0 || err != io.EOF {
				t.Fatalf("read %d, %v", k, err)
			}
		}
		if k, err := c.Read(nil); k != 0 || err != nil {
			t.Errorf("Read(nil) at the end of the stream: %d, %v", k, err)
		}
	})
}

// TestErrorsOfDeadlines tests that Read, Write and Accept return os.ErrDeadlineExceeded, which is a
// timeout.
func TestErrorsOfDeadlines(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		l := n.listen(t)
		c, _ := n.pairOver(t, l)
		const late = ": i/o timeout [os.ErrDeadlineExceeded Timeout Temporary]"
		names := []any{c.LocalAddr(), "C", c.RemoteAddr(), "S"}
		c.SetDeadline(past)
		l.SetDeadline(past)
		k, err := c.Read(make([]byte, 1))
		wantError(t, "Read", err, "read tcp C->S"+late, names...)
		w, err := c.Write(make([]byte, 1))
		wantError(t, "Write", err, "write tcp C->S"+late, names...)
		if k != 0 || w != 0 {
			t.Errorf("read %d, wrote %d after the deadline", k, w)
		}
		_, err = l.Accept()
		wantError(t, "Accept", err, "accept tcp S"+late, names...)
		_, err = c.WriteTo(io.Discard)
		wantError(t, "WriteTo", err, "writeto tcp C->S: read tcp C->S"+late, names...)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
	})
}

// TestOpErrorFields tests what the text does not show: the types of Source and Addr, and that a
// missing one is nil and not a nil pointer.
func TestOpErrorFields(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		c, _ := n.pair(t)
		c.SetDeadline(past)
		_, err := c.Read(make([]byte, 1))
		var op *net.OpError
		if !errors.As(err, &op) {
			t.Fatalf("%T", err)
		}
		if op != err || op.Source != c.LocalAddr() || op.Addr != c.RemoteAddr() {
			t.Errorf("%#v", op)
		}
		c.Close()
		if !errors.As(c.SetDeadline(past), &op) || op.Source != nil || op.Addr != c.LocalAddr() {
			t.Errorf("%#v", op)
		}
		for _, a := range []net.Addr{c.LocalAddr(), c.RemoteAddr()} {
			if _, ok := a.(*net.TCPAddr); !ok {
				t.Errorf("the address is a %T", a)
			}
		}
	})
}
