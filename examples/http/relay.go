package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"

	"bsdnet"
)

// A relay accepts connections from the kernel's network and carries their bytes over the stack.
// Both sides are net.Conns, so its code does not distinguish them.
type relay struct {
	ln    net.Listener
	stack *bsdnet.Stack
	to    string // address inside the stack

	count atomic.Int64 // connections that the relay has carried
	bytes atomic.Int64 // bytes that it has carried, in both directions

	wg    sync.WaitGroup
	mu    sync.Mutex
	conns map[net.Conn]bool // nil: closed
}

// listenRelay listens on addr. If addr is in use, it listens on a free port of the same host and
// says so on out.
func listenRelay(addr string, stack *bsdnet.Stack, to string, out io.Writer) (*relay, error) {
	ln, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		host, _, _ := net.SplitHostPort(addr)
		free, ferr := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if ferr != nil {
			return nil, err
		}
		fmt.Fprintf(out, "%s is in use; the relay listens on a free port instead\n", addr)
		ln, err = free, nil
	}
	if err != nil {
		return nil, err
	}
	return &relay{ln: ln, stack: stack, to: to, conns: map[net.Conn]bool{}}, nil
}

func (r *relay) addr() net.Addr { return r.ln.Addr() }

// serve accepts connections until close is called.
func (r *relay) serve() {
	for {
		c, err := r.ln.Accept()
		if err != nil {
			return
		}
		if !r.enter(c) {
			c.Close()
			return
		}
		go func() {
			defer r.leave(c)
			r.carry(c)
		}()
	}
}

// carry connects a connection of the kernel with one over the stack until both directions end.
func (r *relay) carry(outside net.Conn) {
	inside, err := r.stack.Dial("tcp", r.to)
	if err != nil {
		return
	}
	r.count.Add(1)
	if !r.enter(inside) {
		inside.Close()
		return
	}
	defer r.leave(inside)
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.pour(inside, outside)
	}()
	r.pour(outside, inside)
	<-done
}

// pour copies one direction, and then closes it for writing. If it fails, it closes both
// connections.
func (r *relay) pour(dst, src net.Conn) {
	n, err := io.Copy(dst, src)
	r.bytes.Add(n)
	if err == nil {
		err = dst.(interface{ CloseWrite() error }).CloseWrite()
	}
	if err != nil {
		dst.Close()
		src.Close()
	}
}

// enter registers a connection, so that close can end it. It reports false if the relay has been
// closed.
func (r *relay) enter(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conns == nil {
		return false
	}
	r.conns[c] = true
	r.wg.Add(1)
	return true
}

func (r *relay) leave(c net.Conn) {
	c.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, c)
	r.wg.Done()
}

// close ends the relay and all that it carries.
func (r *relay) close() {
	r.ln.Close()
	r.mu.Lock()
	for c := range r.conns {
		c.Close()
	}
	r.conns = nil
	r.mu.Unlock()
	r.wg.Wait()
}
