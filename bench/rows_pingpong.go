package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// pingPongRow returns a row with one connection, which measures the time of a round trip, or with
// several, which measures the number of round trips.
func pingPongRow(scene string, conns, size int) row {
	r := row{
		title: fmt.Sprintf("%s there and back, %s", sizeTitle(size), plural(conns, "connection")),
		kind:  kindPingPong, scene: scene, unit: "round trips/s",
		run: func(m *meter) error { return pingPong(m, conns, size) },
	}
	if conns == 1 {
		r.name = named(scene, "pp1"+sizeName(size))
		r.unit, r.less = "µs (p50)", true
	} else {
		r.name = named(scene, fmt.Sprintf("pp%d%s", conns, sizeName(size)))
	}
	return r
}

func pingPong(m *meter, conns, size int) error {
	clients, servers, err := m.connect(conns)
	if err != nil {
		return err
	}
	return volley(m, clients, servers, size)
}

// volley times round trips over all the connections at once.
func volley(m *meter, clients, servers []net.Conn, size int) error {
	trips := make([]counter, len(clients))
	times := make([]histogram, len(clients))
	for i := range clients {
		m.spawn(func() error { return echo(m, servers[i], size) })
		m.spawn(func() error { return ping(m, clients[i], size, &trips[i], &times[i]) })
	}
	w, err := m.window(trips)
	if err != nil {
		return err
	}
	if err := m.finish(); err != nil { // after it, the goroutines have ended, and their results can be read
		return err
	}
	all := &times[0]
	for i := range times[1:] {
		all.merge(&times[i+1])
	}
	m.perOp(w, w.count)
	m.sample.Latency = all.micros()
	m.sample.Value = w.count / w.seconds
	if len(clients) == 1 {
		m.sample.Value = m.sample.Latency[0]
	}
	return nil
}

// echo sends back every byte that it reads.
func echo(m *meter, c net.Conn, size int) error {
	buf := make([]byte, size)
	for m.phase.Load() != over {
		if err := readFull(c, buf); err != nil {
			return fmt.Errorf("server: read: %w", err)
		}
		if _, err := c.Write(buf); err != nil {
			return fmt.Errorf("server: write: %w", err)
		}
	}
	return nil
}

// ping sends messages that all differ, and compares the answers with them. times may be nil.
func ping(m *meter, c net.Conn, size int, trips *counter, times *histogram) error {
	out, in := make([]byte, size), make([]byte, size)
	for i := range out {
		out[i] = byte(i)
	}
	last := time.Now()
	for n := uint64(1); m.phase.Load() != over; n++ {
		if out[0] = byte(n); size >= 8 {
			binary.LittleEndian.PutUint64(out, n)
		}
		if _, err := c.Write(out); err != nil {
			return fmt.Errorf("client: write: %w", err)
		}
		if err := readFull(c, in); err != nil {
			return fmt.Errorf("client: read: %w", err)
		}
		if !bytes.Equal(in, out) {
			return errEcho
		}
		if times != nil {
			now := time.Now()
			if m.phase.Load() == timing {
				times.add(int64(now.Sub(last)))
			}
			last = now
		}
		trips.n.Add(1)
	}
	return nil
}

var errEcho = errors.New("the echo differs from the sent bytes")

// readFull does the same as io.ReadFull.
func readFull(c net.Conn, p []byte) error {
	_, err := io.ReadFull(c, p)
	return err
}
