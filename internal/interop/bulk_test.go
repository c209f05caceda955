//go:build linux

package interop

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// stream returns n bytes that depend on the seed.
func stream(seed byte, n int) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{seed}), int64(n))
}

// A sum is the length and the hash of a stream.
type sum struct {
	n    int64
	hash [sha256.Size]byte
}

func (s sum) String() string { return fmt.Sprintf("%d bytes, SHA-256 %x…", s.n, s.hash[:6]) }

// A summer computes the sum of the bytes that are written to it.
type summer struct {
	h hash.Hash
	n int64
}

func newSummer() *summer { return &summer{h: sha256.New()} }

func (s *summer) Write(p []byte) (int, error) {
	s.n += int64(len(p))
	return s.h.Write(p)
}

func (s *summer) sum() sum { return sum{s.n, [sha256.Size]byte(s.h.Sum(nil))} }

// sumOf returns the sum of a stream.
func sumOf(seed byte, n int) sum {
	s := newSummer()
	io.Copy(s, stream(seed, n))
	return s.sum()
}

// copyPlain copies through a buffer, only with Read and Write.
func copyPlain(w io.Writer, r io.Reader) error {
	_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, make([]byte, 128<<10))
	return err
}

// transfer sends n bytes from one end to the other, and the end of the stream.
func transfer(t *testing.T, from, to conn, seed byte, n int) {
	t.Helper()
	sent := make(chan sum, 1)
	go func() {
		s := newSummer()
		if err := copyPlain(from, io.TeeReader(stream(seed, n), s)); err != nil {
			t.Errorf("sending: %v, after %d of %d bytes", err, s.n, n)
		}
		if err := from.CloseWrite(); err != nil {
			t.Errorf("CloseWrite: %v", err)
		}
		sent <- s.sum()
	}()
	s := newSummer()
	if err := copyPlain(s, to); err != nil {
		t.Errorf("receiving: %v, after %d of %d bytes", err, s.n, n)
		from.Close()
	}
	if want, got := <-sent, s.sum(); got != want || got.n != int64(n) {
		t.Errorf("received %v, want %v", got, want)
	}
}

// transferBoth is like transfer, in both directions at once.
func transferBoth(t *testing.T, a, b conn, n int) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() { transfer(t, a, b, 1, n) })
	transfer(t, b, a, 2, n)
	wg.Wait()
}

// A long stream arrives unchanged: there, back, and both ways at once.
func TestBulk(t *testing.T) {
	eachMode(t, 4, options{}, func(t *testing.T, w *world) {
		n := 16 << 20
		if !w.mode.noOffload && w.mode.queues == 1 && !w.mode.ip6 {
			n = 64 << 20
		}
		n = size(n, 1<<30)
		w.eachRole(t, func(t *testing.T, client, server host) {
			c, s := pair(t, client, server)
			transfer(t, c, s, 3, n)
			transfer(t, s, c, 4, n) // the other half of the same connection
			c, s = pair(t, client, server)
			transferBoth(t, c, s, n)
		})
	})
}

// Data flows with MTUs other than 1500, from the least to the largest.
func TestMTU(t *testing.T) {
	for _, mtu := range []int{96, 576, 1280, 9000, 65000, 65535} {
		t.Run(fmt.Sprint(mtu), func(t *testing.T) {
			eachMode(t, 2, options{mtu: mtu}, func(t *testing.T, w *world) {
				w.Sysctl(t, "net.ipv4.tcp_min_snd_mss", "48") // the least value that the kernel accepts
				w.eachRole(t, func(t *testing.T, client, server host) {
					c, s := pair(t, client, server)
					transferBoth(t, c, s, size(min(mtu<<10, 8<<20), 64<<20))
				})
			})
		})
	}
}

// A thousand connections are open at once, and each has a question and an answer.
func TestThousandConns(t *testing.T) {
	const conns = 1000
	eachMode(t, 4, options{}, func(t *testing.T, w *world) {
		w.eachRole(t, func(t *testing.T, client, server host) {
			ln, err := server.listen("tcp", server.ip+":0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			go serve(ln, answerSum)
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			defer cancel()
			var open, done sync.WaitGroup
			open.Add(conns)
			for i := range conns {
				done.Go(func() {
					c, err := client.dial(ctx, "tcp", ln.Addr().String())
					open.Done()
					if err != nil {
						t.Errorf("connection %d: %v", i, err)
						return
					}
					defer c.Close()
					c.SetDeadline(time.Now().Add(limit))
					open.Wait() // until all connections are open
					if err := ask(c.(conn), byte(i), 100+i); err != nil {
						t.Errorf("connection %d: %v", i, err)
					}
				})
			}
			done.Wait()
		})
	})
}

// serve serves connections until the listener is closed.
func serve(ln net.Listener, answer func(c conn)) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			c.SetDeadline(time.Now().Add(limit))
			answer(c.(conn))
		}()
	}
}

// answerSum reads a stream to its end, and answers with its length and sum.
func answerSum(c conn) {
	s := newSummer()
	if copyPlain(s, c) != nil {
		return
	}
	got := s.sum()
	c.Write(append(binary.BigEndian.AppendUint64(nil, uint64(got.n)), got.hash[:]...))
}

// ask sends a stream to answerSum, and checks the answer.
func ask(c conn, seed byte, n int) error {
	if err := copyPlain(c, stream(seed, n)); err != nil {
		return fmt.Errorf("question: %w", err)
	}
	if err := c.CloseWrite(); err != nil {
		return err
	}
	b, err := io.ReadAll(c)
	if err != nil || len(b) != 8+sha256.Size {
		return fmt.Errorf("answer of %d bytes: %v", len(b), err)
	}
	if got, want := (sum{int64(binary.BigEndian.Uint64(b)), [sha256.Size]byte(b[8:])}), sumOf(seed, n); got != want {
		return fmt.Errorf("received %v, want %v", got, want)
	}
	return nil
}
