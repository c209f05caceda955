package main

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
)

func connRow(scene string, workers int) row {
	return row{
		name:  named(scene, fmt.Sprintf("conn%d", workers)),
		title: "dial, echo of a byte, close, by " + plural(workers, "worker"),
		kind:  kindConn, scene: scene, unit: "connections/s",
		run: func(m *meter) error { return connections(m, workers) },
	}
}

// connListeners is the number of ports that the workers dial, one after another. Each is used for
// perListener connections.
const connListeners = 64

// connections makes and ends connections.
func connections(m *meter, workers int) error {
	addresses := make([]string, connListeners)
	for i := range addresses {
		ln, err := m.listen()
		if err != nil {
			return err
		}
		addresses[i] = ln.Addr().String()
		m.spawn(func() error { return serve(m, ln) })
	}
	var dialed atomic.Uint64
	made := make([]counter, workers)
	for i := range made {
		m.spawn(func() error {
			for m.phase.Load() != over {
				n := dialed.Add(1)
				if err := visit(m, addresses[n/perListener%connListeners], byte(n)); err != nil {
					return err
				}
				made[i].n.Add(1)
			}
			return nil
		})
	}
	w, err := m.window(made)
	if err != nil {
		return err
	}
	m.sample.Value = w.count / w.seconds
	m.perOp(w, w.count)
	return nil
}

// letters are slices of one byte, for reads and writes that do not allocate.
var letters = sync.Pool{New: func() any { return new([1]byte) }}

// visit dials, sends a byte, reads it back, and closes.
func visit(m *meter, address string, b byte) error {
	c, err := m.net.dial(address)
	if err != nil {
		return fmt.Errorf("dial: %w", err)
	}
	defer c.Close()
	p := letters.Get().(*[1]byte)
	defer letters.Put(p)
	p[0] = b
	if _, err := c.Write(p[:]); err != nil {
		return fmt.Errorf("client: write: %w", err)
	}
	p[0]++
	if _, err := c.Read(p[:]); err != nil {
		return fmt.Errorf("client: read: %w", err)
	}
	if p[0] != b {
		return errEcho
	}
	return nil
}

// serve starts a goroutine for each connection, as servers do.
func serve(m *meter, ln net.Listener) error {
	for {
		c, err := ln.Accept()
		if err != nil {
			if m.phase.Load() == over || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("accept: %w", err)
		}
		go answer(c)
	}
}

// answer sends one byte back and waits for the end of the connection.
func answer(c net.Conn) {
	defer c.Close()
	p := letters.Get().(*[1]byte)
	defer letters.Put(p)
	if n, _ := c.Read(p[:]); n != 1 {
		return
	}
	if _, err := c.Write(p[:]); err != nil {
		return
	}
	c.Read(p[:])
}
