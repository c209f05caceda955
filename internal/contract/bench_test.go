package contract

import (
	"io"
	"net"
	"net/netip"
	"testing"

	"bsdnet"
	"bsdnet/internal/testutil"
	"bsdnet/netem"
)

func both(b *testing.B, f func(b *testing.B, c, s net.Conn)) {
	b.Run("bsdnet", func(b *testing.B) {
		st := stack(b, bsdnet.Config{})
		c, s := testutil.Pair(b, st.Listen, st.Dial)
		f(b, c, s)
	})
	b.Run("kernel", func(b *testing.B) {
		c, s := testutil.Pair(b, net.Listen, net.Dial)
		f(b, c, s)
	})
}

// BenchmarkBulk sends 64 KiB writes over one connection.
func BenchmarkBulk(b *testing.B) {
	both(b, benchBulk)
}

func benchBulk(b *testing.B, c, s net.Conn) {
	buf := make([]byte, 64<<10)
	done := make(chan struct{})
	go func() {
		defer close(done)
		rb := make([]byte, 64<<10)
		for {
			if _, err := s.Read(rb); err != nil {
				return
			}
		}
	}()
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
	c.Close()
	<-done
}

// BenchmarkPingPong sends one byte there and back.
func BenchmarkPingPong(b *testing.B) {
	both(b, func(b *testing.B, c, s net.Conn) {
		go io.Copy(s, s)
		buf := make([]byte, 1)
		b.ReportAllocs()
		for b.Loop() {
			c.Write(buf)
			if _, err := io.ReadFull(c, buf); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkConnect dials, sends one byte there and back, and closes.
func BenchmarkConnect(b *testing.B) {
	run := func(b *testing.B, ln net.Listener, dial func(string, string) (net.Conn, error)) {
		defer ln.Close()
		go func() {
			for {
				s, err := ln.Accept()
				if err != nil {
					return
				}
				go func() {
					var p [1]byte
					s.Read(p[:])
					s.Write(p[:])
					s.Read(p[:])
					s.Close()
				}()
			}
		}()
		var p [1]byte
		b.ReportAllocs()
		for b.Loop() {
			c, err := dial("tcp", ln.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			c.Write(p[:])
			if _, err := c.Read(p[:]); err != nil {
				b.Fatal(err)
			}
			c.Close()
		}
	}
	b.Run("bsdnet", func(b *testing.B) {
		st := stack(b, bsdnet.Config{})
		ln, err := st.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		run(b, ln, st.Dial)
	})
	b.Run("kernel", func(b *testing.B) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		run(b, ln, net.Dial)
	})
}

// BenchmarkPipe sends 64 KiB writes from stack to stack over a cable with an MTU of 1500, with all
// checksums.
func BenchmarkPipe(b *testing.B) {
	x, y, err := netem.Pipe(netem.PipeConfig{})
	if err != nil {
		b.Fatal(err)
	}
	s1, s2 := stack(b, bsdnet.Config{}), stack(b, bsdnet.Config{})
	if err := s1.Attach(x, netip.MustParsePrefix("10.0.0.1/24")); err != nil {
		b.Fatal(err)
	}
	if err := s2.Attach(y, netip.MustParsePrefix("10.0.0.2/24")); err != nil {
		b.Fatal(err)
	}
	ln, err := s1.Listen("tcp", "10.0.0.1:80")
	if err != nil {
		b.Fatal(err)
	}
	c, err := s2.Dial("tcp", "10.0.0.1:80")
	if err != nil {
		b.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		b.Fatal(err)
	}
	benchBulk(b, c, s)
}
