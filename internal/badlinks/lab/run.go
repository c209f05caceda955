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

	// From is the kind of A, which dials and sends. To is the kind of B.
	From, To Kind

	// Seed decides what the path does to each packet, and which bytes are sent.
	Seed uint64

	// Bytes is the number of bytes to send. If it is 0, it is Path.Bytes. It has no effect if Time
	// is set.
	Bytes int64

	// Time is how long A sends after the connection is established. If it is 0, A sends Bytes and
	// then the end of the stream.
	Time time.Duration

	// Limit is the most that the transfer may take, including the dial. If it is 0, it is 60 s, or
	// 60 s more than Time.
	Limit time.Duration

	// Config is the configuration of the stacks. If its Rand is nil, Seed determines it.
	Config bsdnet.Config

	// KernelCC is the kernel's congestion control: "cubic", "reno" or "bbr". If it is empty, it is
	// the system's default.
	KernelCC string

	// Capture gets A's packets as a pcap file. If it is nil, there is no capture.
	Capture io.Writer
}

// A Result is the outcome of a Cell.
type Result struct {
	// Bytes is the number of bytes that have arrived within Elapsed, which begins when A's dial has
	// succeeded and ends with the last of them, or with Cell.Time.
	Bytes   int64
	Elapsed time.Duration

	// Done is true if all bytes and the end of the stream have arrived. It is false if the Limit
	// came first, or if the connection failed.
	Done bool

	// Err is the error that ended the connection, or nil.
	Err error

	// Info describes the connection at its end, as the stack at A sees it. It is nil if A is a
	// kernel.
	Info *bsdnet.ConnInfo

	// Stats are the counters of the path. Write is the direction from A to B.
	Stats netem.Stats

	// Vanished is the number of packets that Path.Lose has lost, in both directions. Stats counts
	// them as delivered.
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

// Run runs a cell. It returns an error if it cannot set the cell up, or if the bytes that arrive
// differ from those that were sent. A transfer that is too slow, or whose connection breaks, is not
// an error but a Result.
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

// A transfer is a cell that is running.
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
	<-t.accepted // only now: if the last ACK of the handshake is lost, the first data takes its place
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
	from.SetDeadline(time.Now()) // if the receiver has failed, it does not read any more
	sender.Wait()
	if t.result.Err == nil && !t.result.Done && sendErr != nil && !timedOut(sendErr) {
		t.result.Err = fmt.Errorf("send: %w", sendErr)
	}
	if t.c.Time > 0 {
		t.result.Elapsed = t.c.Time
	}
	return err
}

// count records the path's counters before the packets of the connection's end change them.
func (t *transfer) count() {
	t.result.Stats = t.path.line.Stats()
	t.result.Vanished = t.path.a.lost.Load() + t.path.b.lost.Load()
}

// abort closes a connection at once.
func abort(c net.Conn) {
	c.(interface{ SetLinger(sec int) error }).SetLinger(0)
	c.Close()
}

// chunk is the number of bytes in a call of Write or Read.
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

// receive reads to the end of the stream, and compares the bytes. It returns an error if they are
// wrong.
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

// timedOut reports whether the deadline had passed.
func timedOut(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
