package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
)

// chunk is the size of a write in bytes.
const chunk = 64 << 10

func bulkRow(scene string, flows int) row {
	return row{
		name: named(scene, fmt.Sprintf("bulk%d", flows)), title: "writes of 64 KiB, " + plural(flows, "flow"),
		kind: kindBulk, scene: scene, unit: "Gbit/s", perGB: true,
		run: func(m *meter) error { return bulk(m, flows, false) },
	}
}

// upRow returns a row in which the kernel sends through a device to the stack.
func upRow(flows int) row {
	r := bulkRow("tun", flows)
	r.name, r.title = fmt.Sprintf("tun-up%d", flows), r.title+", the kernel sends"
	return r
}

// downRow returns a row in which the stack sends through a device to the kernel.
func downRow(flows int) row {
	r := bulkRow("tun", flows)
	r.name, r.title = fmt.Sprintf("tun-down%d", flows), r.title+", the stack sends"
	r.run = func(m *meter) error { return bulk(m, flows, true) }
	return r
}

// bulk sends from the clients to the servers, or the other way round.
func bulk(m *meter, flows int, down bool) error {
	from, to, err := m.connect(flows)
	if err != nil {
		return err
	}
	if down {
		from, to = to, from
	}
	if err := verify(from, to, max(m.verify/flows, chunk/4)); err != nil {
		return err
	}
	return stream(m, from, to)
}

// stream times the flows.
func stream(m *meter, from, to []net.Conn) error {
	got := make([]counter, len(to))
	for i := range to {
		m.spawn(func() error { return drain(m, to[i], &got[i]) })
		m.spawn(func() error { return pour(m, from[i]) })
	}
	w, err := m.window(got)
	if err != nil {
		return err
	}
	m.sample.Value = w.count * 8 / 1e9 / w.seconds
	m.perGB(w, w.count, w.count/chunk)
	return nil
}

// pour writes until the measurement is over.
func pour(m *meter, c net.Conn) error {
	buf := make([]byte, chunk)
	for m.phase.Load() != over {
		if _, err := c.Write(buf); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
	return nil
}

// drain reads until the measurement is over, and counts the bytes.
func drain(m *meter, c net.Conn, got *counter) error {
	buf := make([]byte, chunk)
	for m.phase.Load() != over {
		n, err := c.Read(buf)
		got.n.Add(uint64(n))
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
	}
	return nil
}

// verify sends n random bytes over each flow, and compares the checksums.
func verify(from, to []net.Conn, n int) error {
	errs := make(chan error, len(from))
	for i := range from {
		go func() { errs <- verifyFlow(from[i], to[i], n, byte(i)) }()
	}
	var err error
	for range from {
		err = errors.Join(err, <-errs)
	}
	return err
}

// verifyFlow sends n bytes and reads them at the other end. The sizes of the writes are not those
// of segments or buffers.
func verifyFlow(from, to net.Conn, n int, seed byte) error {
	sent := make(chan []byte, 1)
	failed := make(chan error, 1)
	go func() {
		h, buf := sha256.New(), make([]byte, chunk+4321)
		src := rand.NewChaCha8([32]byte{seed})
		for left := n; left > 0; {
			p := buf[:min(left, len(buf))]
			src.Read(p)
			h.Write(p)
			if _, err := from.Write(p); err != nil {
				failed <- fmt.Errorf("verify: write: %w", err)
				to.Close() // the reader would wait forever
				return
			}
			left -= len(p)
		}
		sent <- h.Sum(nil)
	}()
	h := sha256.New()
	if _, err := io.CopyN(h, to, int64(n)); err != nil {
		select {
		case err = <-failed:
		default:
			from.Close()
		}
		return fmt.Errorf("verify: %w", err)
	}
	if want := <-sent; !bytes.Equal(h.Sum(nil), want) {
		return errors.New("verify: the received bytes differ from the sent ones")
	}
	return nil
}
