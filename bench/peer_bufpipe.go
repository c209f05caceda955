package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// openBufpipe makes a pair of rings for each connection. It shows the cost of two copies and a
// wake-up, without a protocol.
func openBufpipe(congestion) (*network, error) {
	return pipes(func() (net.Conn, net.Conn) {
		a, b := newRing(), newRing()
		return &ringConn{in: a, out: b}, &ringConn{in: b, out: a}
	}), nil
}

// openPipe makes connections with net.Pipe. It shows the least cost of a connection.
func openPipe(congestion) (*network, error) { return pipes(net.Pipe), nil }

// pipes returns a network whose connections the function pair makes.
func pipes(pair func() (net.Conn, net.Conn)) *network {
	var mu sync.Mutex
	listeners := map[string]*pipeListener{}
	return &network{
		listen: func() (net.Listener, error) {
			mu.Lock()
			defer mu.Unlock()
			ln := &pipeListener{addr: pipeAddr(len(listeners)),
				conns: make(chan net.Conn, 64), done: make(chan struct{})}
			listeners[ln.addr.String()] = ln
			return ln, nil
		},
		dial: func(address string) (net.Conn, error) {
			mu.Lock()
			ln := listeners[address]
			mu.Unlock()
			c, s := pair()
			select {
			case ln.conns <- s:
				if ln.isClosed() {
					ln.drain()
				}
				return c, nil
			case <-ln.done:
				return nil, net.ErrClosed
			}
		},
		close: func() {},
	}
}

type pipeListener struct {
	addr  pipeAddr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Addr() net.Addr { return l.addr }

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	l.drain()
	return nil
}

func (l *pipeListener) isClosed() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// drain closes the connections that nobody will accept.
func (l *pipeListener) drain() {
	for {
		select {
		case c := <-l.conns:
			c.Close()
		default:
			return
		}
	}
}

// A pipeAddr is the number of a listener.
type pipeAddr int

func (pipeAddr) Network() string  { return "pipe" }
func (a pipeAddr) String() string { return fmt.Sprintf("127.0.0.1:%d", int(a)+1) }

// ringSize is the size of a ring in bytes.
const ringSize = 256 << 10

// A ring carries bytes one way.
type ring struct {
	mu     sync.Mutex
	wake   sync.Cond // the reader when it is no longer empty, the writer when it is no longer full
	r, w   int       // bytes that have been read and written in all
	closed bool
	late   bool // the reader's deadline has passed
	buf    [ringSize]byte
}

func newRing() *ring {
	q := &ring{}
	q.wake.L = &q.mu
	return q
}

func (q *ring) Write(p []byte) (n int, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(p) > 0 {
		for q.w-q.r == ringSize && !q.closed {
			q.wake.Wait()
		}
		if q.closed {
			return n, io.ErrClosedPipe
		}
		at := q.w % ringSize
		m := min(len(p), ringSize-(q.w-q.r), ringSize-at)
		q.mu.Unlock() // the reader does not touch the free part
		copy(q.buf[at:], p[:m])
		q.mu.Lock()
		if q.w == q.r {
			q.wake.Signal()
		}
		q.w += m
		n, p = n+m, p[m:]
	}
	return n, nil
}

func (q *ring) Read(p []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.w == q.r {
		if q.closed {
			return 0, io.EOF
		}
		if q.late {
			return 0, os.ErrDeadlineExceeded
		}
		q.wake.Wait()
	}
	at := q.r % ringSize
	m := min(len(p), q.w-q.r, ringSize-at)
	q.mu.Unlock() // the writer does not touch the filled part
	copy(p, q.buf[at:at+m])
	q.mu.Lock()
	if q.w-q.r == ringSize {
		q.wake.Signal()
	}
	q.r += m
	return m, nil
}

func (q *ring) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.wake.Broadcast()
}

func (q *ring) expire(late bool) {
	q.mu.Lock()
	q.late = late
	q.mu.Unlock()
	q.wake.Broadcast()
}

// A ringConn is an end of a connection of two rings. It supports only deadlines in the past, with
// which net/http ends a Read.
type ringConn struct{ in, out *ring }

func (c *ringConn) Read(p []byte) (int, error)       { return c.in.Read(p) }
func (c *ringConn) Write(p []byte) (int, error)      { return c.out.Write(p) }
func (c *ringConn) Close() error                     { c.in.close(); c.out.close(); return nil }
func (c *ringConn) LocalAddr() net.Addr              { return pipeAddr(0) }
func (c *ringConn) RemoteAddr() net.Addr             { return pipeAddr(0) }
func (c *ringConn) SetDeadline(t time.Time) error    { return c.SetReadDeadline(t) }
func (c *ringConn) SetWriteDeadline(time.Time) error { return nil }
func (c *ringConn) SetReadDeadline(t time.Time) error {
	c.in.expire(!t.IsZero() && !t.After(time.Now()))
	return nil
}
