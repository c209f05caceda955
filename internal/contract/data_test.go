package contract

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet"
	"bsdnet/netem"
)

// pattern returns n bytes that show their position in the stream.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i) ^ byte(i>>8) ^ byte(i>>16)
	}
	return b
}

// TestLoopbackTakesNoTime tests that over the loopback no timer of TCP delays data: everything that
// is sent arrives in the same instant.
func TestLoopbackTakesNoTime(t *testing.T) {
	t.Run("bubble", func(t *testing.T) {
		inBubble(t, loopback, func(t *testing.T, n *network) {
			start := time.Now()
			for _, size := range []int{
				1, 1000, 4 << 10, 64<<10 - 1, 64 << 10, 64<<10 + 1, 100_000,
				128 << 10, 200_000, 256 << 10, 1 << 20, 4 << 20,
			} {
				for _, chunk := range []int{4 << 10, 32 << 10, 512 << 10} {
					for _, rd := range []int{512, 4 << 10, 64 << 10, 1 << 20} {
						if size/min(chunk, rd) > 2000 {
							continue
						}
						c, s := n.pair(t)
						data := pattern(size)
						go func() {
							for p := data; len(p) > 0; p = p[min(len(p), chunk):] {
								c.Write(p[:min(len(p), chunk)])
							}
						}()
						got, buf := 0, make([]byte, rd)
						for got < size {
							k, err := s.Read(buf)
							if err != nil || !bytes.Equal(buf[:k], data[got:got+k]) {
								t.Fatalf("%d bytes in writes of %d and reads of %d: at %d: %v",
									size, chunk, rd, got, err)
							}
							got += k
						}
						if d := time.Since(start); d != 0 {
							t.Errorf("%d bytes in writes of %d and reads of %d took %v", size, chunk, rd, d)
							start = time.Now()
						}
						c.Close()
						s.Close()
					}
				}
			}
		})
	})
}

// TestConcurrentWrites tests that the bytes of two calls of Write do not mix, however long they
// are.
func TestConcurrentWrites(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		c, s := n.pair(t)
		const writers, size, times = 8, 100_001, 5
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				b := bytes.Repeat([]byte{byte('a' + w)}, size)
				for range times {
					if k, err := c.Write(b); k != size || err != nil {
						t.Errorf("%d, %v", k, err)
					}
				}
			})
		}
		go func() { wg.Wait(); c.Close() }()
		b := make([]byte, size)
		for i := range writers * times {
			if _, err := io.ReadFull(s, b); err != nil {
				t.Fatal(err)
			}
			if k := bytes.Count(b, b[:1]); k != size {
				t.Fatalf("write %d is mixed: %d of %d bytes are %q", i, k, size, b[:1])
			}
		}
		if _, err := s.Read(b); err != io.EOF {
			t.Error(err)
		}
	})
}

// TestConcurrentReads tests that each byte goes to one reader, and none is lost.
func TestConcurrentReads(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		c, s := n.pair(t)
		var wg sync.WaitGroup
		var mu sync.Mutex
		sum, count := 0, 0
		for range 8 {
			wg.Go(func() {
				b := make([]byte, 777)
				for {
					k, err := s.Read(b)
					mu.Lock()
					for _, x := range b[:k] {
						sum += int(x)
					}
					count += k
					mu.Unlock()
					if err != nil {
						if err != io.EOF {
							t.Error(err)
						}
						return
					}
				}
			})
		}
		data, want := pattern(500_000), 0
		for _, x := range data {
			want += int(x)
		}
		c.Write(data)
		c.Close()
		wg.Wait()
		if count != len(data) || sum != want {
			t.Errorf("read %d bytes of sum %d, want %d of %d", count, sum, len(data), want)
		}
	})
}

// failing is a reader or writer that fails after its data.
type failing struct{ r io.Reader }

var errFailing = errors.New("it fails")

func (f failing) Read(b []byte) (int, error) {
	n, err := f.r.Read(b)
	if err == io.EOF {
		err = errFailing
	}
	return n, err
}

func (f failing) Write(b []byte) (int, error) { return len(b) / 2, errFailing }

// TestReadFromWriteTo tests the fast paths of io.Copy, with all kinds of other ends, and their
// errors.
func TestReadFromWriteTo(t *testing.T) {
	data := pattern(300_001)
	for name, r := range map[string]func() io.Reader{
		"plain":   func() io.Reader { return struct{ io.Reader }{bytes.NewReader(data)} },
		"bytes":   func() io.Reader { return bytes.NewReader(data) },
		"strings": func() io.Reader { return strings.NewReader(string(data)) },
		"limited": func() io.Reader {
			return io.LimitReader(bytes.NewReader(append(pattern(300_001), 1, 2, 3)), 300_001)
		},
		"failing": func() io.Reader { return failing{bytes.NewReader(data)} },
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, n *network) {
				c, s := n.pair(t)
				var got bytes.Buffer
				read := async(func() ioResult { k, err := s.WriteTo(&got); return ioResult{int(k), err} })
				k, err := c.ReadFrom(r())
				want := "nil"
				if name == "failing" {
					want = "readfrom tcp C->S: it fails []"
				}
				wantError(t, "ReadFrom", err, want, c.LocalAddr(), "C", c.RemoteAddr(), "S")
				c.Close()
				res := within(t, "WriteTo", read)
				if res.err != nil || res.n != len(data) || int(k) != len(data) || !bytes.Equal(got.Bytes(), data) {
					t.Errorf("read from %d, written to %d (%d bytes), %v", k, res.n, got.Len(), res.err)
				}
			})
		})
	}
	t.Run("failing writer", func(t *testing.T) {
		each(t, func(t *testing.T, n *network) {
			c, s := n.pair(t)
			s.Write([]byte("abcd"))
			k, err := c.WriteTo(failing{})
			wantError(t, "WriteTo", err, "writeto tcp C->S: it fails []", c.LocalAddr(), "C", c.RemoteAddr(), "S")
			if k != 2 {
				t.Errorf("%d bytes", k)
			}
		})
	})
	t.Run("conn to conn", func(t *testing.T) {
		each(t, func(t *testing.T, n *network) { // a relay
			c1, s1 := n.pair(t)
			c2, s2 := n.pair(t)
			go func() { c1.Write(data); c1.CloseWrite() }()
			go func() { io.Copy(c2, s1); c2.CloseWrite() }()
			b, err := io.ReadAll(s2)
			if err != nil || !bytes.Equal(b, data) {
				t.Errorf("%d bytes, %v", len(b), err)
			}
		})
	})
}

// TestBuffers tests net.Buffers, and WriteBuffers, which sends no more segments for them than for
// one slice.
func TestBuffers(t *testing.T) {
	make3 := func() (net.Buffers, string) {
		var v net.Buffers
		var all strings.Builder
		for i := range 300 {
			s := strings.Repeat(fmt.Sprint(i, ","), i%7*i%50)
			v = append(v, []byte(s))
			all.WriteString(s)
		}
		return v, all.String()
	}
	each(t, func(t *testing.T, n *network) {
		c, s := n.pair(t)
		v, want := make3()
		k, err := v.WriteTo(c)
		c.Close()
		b, rerr := io.ReadAll(s)
		if int(k) != len(want) || err != nil || string(b) != want || rerr != nil || len(v) != 0 {
			t.Errorf("%d of %d, %v, %v; %d left", k, len(want), err, rerr, len(v))
		}
		if n.kernel { // WriteBuffers, below, says the same
			_, err = (&net.Buffers{{1}}).WriteTo(c)
			wantError(t, "WriteTo", err, "writev tcp C->S: use of closed network connection [net.ErrClosed]",
				c.LocalAddr(), "C", c.RemoteAddr(), "S")
		}
	})
	eachOwn(t, func(t *testing.T, n *network) {
		c, s := n.pair(t)
		bc := c.(*bsdnet.TCPConn)
		v, want := make3()
		read := async(func() string { b, _ := io.ReadAll(s); return string(b) })
		k, err := bc.WriteBuffers(&v)
		if int(k) != len(want) || err != nil || len(v) != 0 {
			t.Errorf("%d of %d, %v; %d left", k, len(want), err, len(v))
		}
		if k, err := bc.WriteBuffers(&net.Buffers{}); k != 0 || err != nil {
			t.Errorf("none: %d, %v", k, err)
		}
		c.Close()
		if within(t, "reading", read) != want {
			t.Error("other bytes have arrived")
		}
		v, _ = make3()
		_, err = bc.WriteBuffers(&v)
		wantError(t, "WriteBuffers", err, "writev tcp C->S: use of closed network connection [net.ErrClosed]",
			c.LocalAddr(), "C", c.RemoteAddr(), "S")
	})
}

// TestWriteBuffersNotMixed tests that the bytes of concurrent calls stay together, as with Write.
func TestWriteBuffersNotMixed(t *testing.T) {
	eachOwn(t, func(t *testing.T, n *network) {
		c, s := n.pair(t)
		const writers, pieces, size, times = 4, 10, 999, 20
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for range times {
					var v net.Buffers
					for range pieces {
						v = append(v, bytes.Repeat([]byte{byte('a' + w)}, size))
					}
					if _, err := c.(*bsdnet.TCPConn).WriteBuffers(&v); err != nil {
						t.Error(err)
					}
				}
			})
		}
		go func() { wg.Wait(); c.Close() }()
		b := make([]byte, pieces*size)
		for i := range writers * times {
			if _, err := io.ReadFull(s, b); err != nil {
				t.Fatal(err)
			}
			if k := bytes.Count(b, b[:1]); k != len(b) {
				t.Fatalf("call %d is mixed: %d of %d bytes are %q", i, k, len(b), b[:1])
			}
		}
	})
}

// TestWriteBuffersTrailingEmpty tests that data that was held back for more is sent although the
// last piece is empty.
func TestWriteBuffersTrailingEmpty(t *testing.T) {
	eachBubble(t, func(t *testing.T, n *network) {
		c, s := n.pair(t)
		for _, v := range []net.Buffers{{[]byte("x"), nil}, {nil, []byte("x"), {}}, {[]byte("x"), {}, {}}} {
			start := time.Now()
			if k, err := c.(*bsdnet.TCPConn).WriteBuffers(&v); k != 1 || err != nil {
				t.Fatal(k, err)
			}
			s.SetReadDeadline(start.Add(time.Minute))
			if _, err := s.Read(make([]byte, 1)); err != nil || time.Since(start) > 0 {
				t.Errorf("%v after %v", err, time.Since(start))
			}
		}
	})
}

// TestBufferSizes tests that SetReadBuffer and SetWriteBuffer accept any size, and bound the data
// that the connection takes without a reader.
func TestBufferSizes(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		c, s := n.pair(t)
		for _, b := range []int{1, 4096, 1 << 20, 1 << 30} {
			if b < 1<<20 && !n.bubble {
				continue // windows this small are too slow for real time
			}
			for name, err := range map[string]error{
				"SetReadBuffer":  c.SetReadBuffer(b),
				"SetWriteBuffer": c.SetWriteBuffer(b),
			} {
				if err != nil {
					t.Errorf("%s(%d): %v", name, b, err)
				}
			}
			go c.Write(pattern(100_000))
			if _, err := io.ReadFull(s, make([]byte, 100_000)); err != nil {
				t.Fatal(err)
			}
			go s.Write(pattern(100_000))
			if _, err := io.ReadFull(c, make([]byte, 100_000)); err != nil {
				t.Fatal(err)
			}
		}
	})
	eachBubble(t, func(t *testing.T, n *network) {
		taken := func(buf int) int {
			c, s := n.pair(t)
			c.SetWriteBuffer(buf)
			s.SetReadBuffer(buf)
			c.SetWriteDeadline(time.Now().Add(time.Minute))
			k, _ := c.Write(make([]byte, 8<<20))
			s.SetLinger(0)
			return k
		}
		small, large := taken(16<<10), taken(1<<20)
		if small > 200<<10 || large < 1<<20 || large >= 8<<20 {
			t.Errorf("with 16 KiB of buffers %d bytes are taken, with 1 MiB %d", small, large)
		}
	})
}

// TestWriteEmpty tests that an empty write sends nothing, and fails if another write would fail.
func TestWriteEmpty(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		c, s := n.pair(t)
		if k, err := c.Write(nil); k != 0 || err != nil {
			t.Error(k, err)
		}
		c.CloseWrite()
		_, err := c.Write(nil)
		wantError(t, "Write(nil)", err, "write tcp C->S: write: broken pipe [EPIPE SyscallError]",
			c.LocalAddr(), "C", c.RemoteAddr(), "S")
		if b, err := io.ReadAll(s); len(b) > 0 || err != nil {
			t.Error(b, err)
		}
	})
}

// TestSmallBuffers tests that buffers of any size that TCPConfig accepts carry data at the rate
// that their size allows, not at the rate of window probes.
func TestSmallBuffers(t *testing.T) {
	for _, size := range []int{1, 10, 255, 256, 1 << 10, 2 << 10} {
		for _, cfg := range []bsdnet.TCPConfig{
			{ReadBuffer: size},
			{WriteBuffer: size},
			{ReadBuffer: size, WriteBuffer: size},
		} {
			synctest.Test(t, func(t *testing.T) {
				n := &network{
					server: stack(t, bsdnet.Config{TCP: cfg}),
					client: stack(t, bsdnet.Config{}),
					shost:  "10.0.0.1",
				}
				a, b, _ := netem.Pipe(netem.PipeConfig{Delay: time.Millisecond})
				n.server.Attach(a, netip.MustParsePrefix("10.0.0.1/24"))
				n.client.Attach(b, netip.MustParsePrefix("10.0.0.2/24"))
				c, s := n.pair(t)
				const total = 10_000
				start := time.Now()
				go func() { c.Write(make([]byte, total)); c.CloseWrite() }()
				if k, err := io.Copy(io.Discard, s); k != total || err != nil {
					t.Errorf("%+v: %d bytes, %v", cfg, k, err)
				}
				go func() { s.Write(make([]byte, total)); s.CloseWrite() }()
				if k, err := io.Copy(io.Discard, c); k != total || err != nil {
					t.Errorf("%+v, the other way: %d bytes, %v", cfg, k, err)
				}
				// These are twenty windows of 1 KiB. Each takes at most a round trip of 2 ms and a
				// delayed acknowledgment.
				if d := time.Since(start); d > 20*42*time.Millisecond {
					t.Errorf("%+v: it took %v of virtual time", cfg, d)
				}
			})
		}
	}
}
