//go:build unix

package kern

import (
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
)

// A udpPair is two sockets, of this stack or of the operating system, that are connected to each
// other.
type udpPair struct {
	send, recv, back, echo func(b []byte) (int, error)
	close                  func()
}

func kernelPair(b *testing.B) udpPair {
	a, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Skip(err)
	}
	c, err := net.DialUDP("udp4", nil, a.LocalAddr().(*net.UDPAddr))
	if err != nil {
		b.Skip(err)
	}
	to := c.LocalAddr().(*net.UDPAddr).AddrPort()
	return udpPair{
		send:  c.Write,
		recv:  func(p []byte) (int, error) { n, _, err := a.ReadFromUDPAddrPort(p); return n, err },
		echo:  func(p []byte) (int, error) { return a.WriteToUDPAddrPort(p, to) },
		back:  c.Read,
		close: func() { a.Close(); c.Close() },
	}
}

func stackPair(b *testing.B) udpPair {
	k, err := New(Config{})
	if err != nil {
		b.Fatal(err)
	}
	a, c := udpSocket(b, k, "127.0.0.1:7"), udpSocket(b, k, "")
	if errno := c.Soconnect(ap("127.0.0.1:7")); errno != 0 {
		b.Fatal(errno)
	}
	to := c.Laddr()
	return udpPair{
		send: func(p []byte) (int, error) { n, errno := c.Sosendto(p, netip.AddrPort{}); return n, orNil(errno) },
		recv: func(p []byte) (int, error) { n, _, _, errno := a.Soreceivefrom(p); return n, orNil(errno) },
		echo: func(p []byte) (int, error) { n, errno := a.Sosendto(p, to); return n, orNil(errno) },
		back: func(p []byte) (int, error) { n, _, _, errno := c.Soreceivefrom(p); return n, orNil(errno) },
		close: func() {
			a.Soclose()
			c.Soclose()
			k.Close()
		},
	}
}

func orNil(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

// cpuTime returns the processor time that the process has taken, in nanoseconds. On a machine with
// other work it says more than the time of the day.
func cpuTime() int64 {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return u.Utime.Nano() + u.Stime.Nano()
}

// BenchmarkUDP compares the stack's loopback with the operating system's: what one goroutine
// receives while another sends as fast as it can, and one datagram there and back.
func BenchmarkUDP(b *testing.B) {
	for _, side := range []struct {
		name string
		pair func(*testing.B) udpPair
	}{{"stack", stackPair}, {"os", kernelPair}} {
		for _, size := range []int{64, 1200, 65507} {
			b.Run(fmt.Sprintf("flood/%s/%d", side.name, size), func(b *testing.B) {
				p := side.pair(b)
				var stop atomic.Bool
				var sent atomic.Int64
				done := make(chan bool)
				go func() {
					defer close(done)
					msg := make([]byte, size)
					for !stop.Load() {
						if _, err := p.send(msg); err == nil {
							sent.Add(1)
						}
					}
				}()
				buf := make([]byte, size)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				b.ResetTimer()
				cpu := cpuTime()
				for range b.N {
					if n, err := p.recv(buf); n != size || err != nil {
						b.Fatal(n, err)
					}
				}
				b.StopTimer()
				b.ReportMetric(float64(cpuTime()-cpu)/float64(b.N), "cpu-ns/op")
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "datagrams/s")
				b.ReportMetric(float64(sent.Load())/float64(b.N), "sent/received")
				stop.Store(true)
				<-done
				p.close()
			})
		}
		b.Run("pingpong/"+side.name, func(b *testing.B) {
			p := side.pair(b)
			go func() {
				buf := make([]byte, 64)
				for {
					if _, err := p.recv(buf); err != nil {
						return
					}
					p.echo(buf)
				}
			}()
			buf := make([]byte, 64)
			b.ReportAllocs()
			cpu := cpuTime()
			for b.Loop() {
				p.send(buf)
				p.back(buf)
			}
			b.StopTimer()
			b.ReportMetric(float64(cpuTime()-cpu)/float64(b.N), "cpu-ns/op")
			p.close()
		})
	}
}
