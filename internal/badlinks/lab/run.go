//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"bsdnet"
	"bsdnet/netem"
)

// A Cell is one transfer, from A to B.
type Cell struct {
	Path Path

	// From is what A is, which dials and sends; To is B.
	From, To Kind

	// Seed decides what the path does to which packet, and what is sent.
	Seed uint64

	// Bytes is how much is sent. 0: Path.Bytes. It does not matter with a Time.
	Bytes int64

	// Time sends for so long, from when the connection stands. 0: Bytes are sent, and then the end
	// of the stream.
	Time time.Duration

	// Limit is the most that the transfer may take, with the dial. 0: 60 s, or Time and 60 s.
	Limit time.Duration

	// Config is that of the stacks. Without a Rand it has one that depends on Seed.
	Config bsdnet.Config

	// KernelCC is the kernel's congestion control: "cubic", "reno", "bbr". "": the system's.
	KernelCC string

	// Capture is where A's packets are written to, as a pcap file. nil: nowhere.
	Capture io.Writer
}

// A Result says what became of a Cell.
type Result struct {
	// Bytes have arrived within Elapsed, which begins when A's dial has succeeded and ends with the
	// last of them, or with Cell.Time.
	Bytes   int64
	Elapsed time.Duration

	// Done says that all of it has arrived, and the end of the stream. Otherwise the Limit came
	// first, or the connection has failed.
	Done bool

	// Err is what the connection has failed with, nil if it has not.
	Err error

	// Info is what the stack at A says of the connection at the end; nil if A is a kernel.
	Info *bsdnet.ConnInfo

	// Stats are those of the path, of which Write is the direction from A to B.
	Stats netem.Stats

	// Vanished is how many packets Path.Lose has lost, in both directions. Stats counts them as
	// delivered.
	Vanished uint64
}

// Mbit returns the goodput in Mbit/s.
func (r *Result) Mbit() float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(r.Bytes) * 8 / r.Elapsed.Seconds() / 1e6
}

// defaultLimit is Cell.Limit's default.
const defaultLimit = 60 * time.Second

// Run runs a cell. The error says that it could not be set up, or, which must not be, that other
// bytes arrived than were sent. A transfer that is too slow, or whose connection breaks, is a
// Result.
func Run(c Cell) (r Result, err error) {
	if c.Bytes == 0 {
		c.Bytes = c.Path.Bytes
	}
	if c.Limit == 0 {
		c.Limit = defaultLimit + c.Time
	}
	a, err := newEnd(c.From, addrA.Addr(), &c, 'A')
	if err != nil {
		return r, err
	}
	defer a.close()
	b, err := newEnd(c.To, addrB.Addr(), &c, 'B')
	if err != nil {
		a.outside.Close()
		return r, err
	}
	defer b.close()
	var tap func([]byte)
	if c.Capture != nil {
		capture := newCapture(c.Capture)
		tap = capture.packet
		defer func() { err = errors.Join(err, capture.err) }()
	}
	ln, err := b.listen(addrB)
	if err != nil {
		return r, errors.Join(err, a.outside.Close(), b.outside.Close())
	}
	defer ln.Close()
	path, err := newRelay(&c.Path, c.Seed, a.outside, b.outside, tap)
	if err != nil {
		return r, err
	}
	defer path.close()
	t := transfer{c: &c, path: path, deadline: time.Now().Add(c.Limit), accepted: make(chan struct{})}
	err = t.run(a, ln)
	return t.result, err
}

// A transfer is a cell at work.
type transfer struct {
	c        *Cell
	path     *relay
	deadline time.Time
	result   Result

	accepted chan struct{} // closed when to is set, or there is none
	to       net.Conn
}

// run dials, sends and receives.
func (t *transfer) run(a *end, ln net.Listener) error {
	ctx, cancel := context.WithDeadline(context.Background(), t.deadline)
	defer cancel()
	ln.(interface{ SetDeadline(time.Time) error }).SetDeadline(t.deadline)
	go func() {
		defer close(t.accepted)
		if c, err := ln.Accept(); err == nil {
			t.to = c
		}
	}()
	from, err := a.dial(ctx, addrA, addrB)
	if err != nil {
		t.count()
		ln.Close()
		<-t.accepted
		if t.to != nil {
			abort(t.to)
		}
		if ctx.Err() == nil {
			t.result.Err = fmt.Errorf("dial: %w", err)
		}
		return nil
	}
	begin := time.Now()
	defer abort(from)
	if t.c.Time > 0 {
		t.deadline = begin.Add(t.c.Time)
	}
	from.SetDeadline(t.deadline)
	var sender sync.WaitGroup
	sendErr := error(nil)
	sender.Go(func() { sendErr = t.send(from) })
	<-t.accepted // the last ACK of the handshake may be lost: the first data does as well
	if t.to != nil {
		err = t.receive(begin)
	}
	t.count()
	if b, ok := from.(*bsdnet.TCPConn); ok {
		info := b.Info()
		t.result.Info = &info
	}
	if t.to != nil {
		abort(t.to)
	}
	from.SetDeadline(time.Now()) // a receiver that has failed reads no more
	sender.Wait()
	if t.result.Err == nil && !t.result.Done && sendErr != nil && !timedOut(sendErr) {
		t.result.Err = fmt.Errorf("send: %w", sendErr)
	}
	if t.c.Time > 0 {
		t.result.Elapsed = t.c.Time
	}
	return err
}

// count notes what the path has done, before it meets the connection's end.
func (t *transfer) count() {
	t.result.Stats = t.path.line.Stats()
	t.result.Vanished = t.path.a.lost.Load() + t.path.b.lost.Load()
}

// abort closes a connection at once.
func abort(c net.Conn) {
	c.(interface{ SetLinger(sec int) error }).SetLinger(0)
	c.Close()
}

// chunk is the size of a call of Write or Read.
const chunk = 64 << 10

// send sends the stream.
func (t *transfer) send(c net.Conn) error {
	s := stream{seed: t.c.Seed}
	buf := make([]byte, chunk)
	for left := t.c.Bytes; left > 0 || t.c.Time > 0; {
		b := buf
		if t.c.Time == 0 && left < chunk {
			b = buf[:left]
		}
		s.fill(b)
		n, err := c.Write(b)
		left -= int64(n)
		if err != nil {
			return err
		}
	}
	return c.(interface{ CloseWrite() error }).CloseWrite()
}

// receive reads to the end of the stream, and compares. The error says what is wrong with the
// bytes.
func (t *transfer) receive(begin time.Time) error {
	t.to.SetReadDeadline(t.deadline)
	check := checker{stream: stream{seed: t.c.Seed}}
	r := &t.result
	buf := make([]byte, chunk)
	for {
		n, err := t.to.Read(buf)
		if n > 0 {
			r.Elapsed = time.Since(begin)
			if err := check.check(buf[:n]); err != nil {
				return err
			}
			r.Bytes = check.n
		}
		switch {
		case err == nil:
		case err == io.EOF && t.c.Time == 0 && r.Bytes == t.c.Bytes:
			r.Done = true
			return nil
		case err == io.EOF:
			return fmt.Errorf("the stream ends after %d bytes of %d", r.Bytes, t.c.Bytes)
		case timedOut(err):
			r.Done = t.c.Time > 0
			if !r.Done {
				r.Elapsed = time.Since(begin)
			}
			return nil
		default:
			r.Err = fmt.Errorf("receive: %w", err)
			return nil
		}
	}
}

// timedOut reports whether the deadline was over.
func timedOut(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
