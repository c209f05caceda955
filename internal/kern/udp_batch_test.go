package kern

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"

	"bsdnet/internal/kern/wire"
)

// batchOf returns messages of these sizes to an address, with different data, in several pieces.
func batchOf(to netip.AddrPort, sizes ...int) []Msg {
	msgs := make([]Msg, len(sizes))
	for i, n := range sizes {
		b := bytes.Repeat([]byte{byte(i + 1)}, n)
		msgs[i] = Msg{Bufs: [][]byte{b[:n/3], b[n/3 : n/2], b[n/2:]}, Addr: to}
	}
	return msgs
}

func sizesOf(n, size int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = size
	}
	return list
}

// udpBatches are sizes of the datagrams of a batch.
var udpBatches = map[string][]int{
	"one":         {5},
	"empty":       {0, 0, 0},
	"equal":       sizesOf(100, 64),
	"many":        sizesOf(300, 9),
	"short end":   {100, 100, 100, 30, 100, 100},
	"growing":     {1, 2, 3, 4, 4, 4, 3, 2, 1},
	"empty inset": {7, 0, 7, 7, 0},
	"full":        sizesOf(60, 1472),
	"large":       {3000, 3000, 3000},
	"largest":     {udpMaxLen4, 1, udpMaxLen4},
}

// TestUDPBatchLoopback: the datagrams of a batch arrive one by one, as they were, whether they are
// read singly or in batches.
func TestUDPBatchLoopback(t *testing.T) {
	for name, sizes := range udpBatches {
		for _, addr := range []string{"127.0.0.1:7", "[::1]:7"} {
			synctest.Test(t, func(t *testing.T) {
				k := udpStack(t)
				domain := AF_INET
				if ap(addr).Addr().Is6() {
					domain = AF_INET6
				}
				a, errno := k.Socreate(domain, SOCK_DGRAM, 0)
				b, _ := k.Socreate(domain, SOCK_DGRAM, 0)
				if errno != 0 || a.Sobind(ap(addr)) != 0 || a.Sosetopt(SOL_SOCKET, SO_RCVBUF, 1<<20) != 0 {
					t.Fatal(name)
				}
				for round := range 3 { // in the second the sender knows the way
					msgs := batchOf(ap(addr), sizes...)
					if n, errno := b.Sosendmsgs(msgs, 0); n != len(msgs) || errno != 0 {
						t.Fatalf("%s: sent %d, %v", name, n, errno)
					}
					got := make([]Msg, len(msgs))
					for i := range got {
						got[i].Bufs = [][]byte{make([]byte, 10), make([]byte, sizes[i])}
					}
					n := 0
					if round == 2 {
						for ; n < len(got); n++ {
							if k, errno := a.Soreceivemsgs(got[n:n+1], 0); k != 1 || errno != 0 {
								t.Fatalf("%s: received %d, %v", name, k, errno)
							}
						}
					} else if n, errno = a.Soreceivemsgs(got, 0); n != len(got) || errno != 0 {
						t.Fatalf("%s: received %d of %d, %v", name, n, len(got), errno)
					}
					for i := range got {
						data := bytes.Join(got[i].Bufs, nil)[:got[i].N]
						if got[i].N != sizes[i] || msgs[i].N != sizes[i] || got[i].Flags != 0 ||
							got[i].Addr != netip.AddrPortFrom(ap(addr).Addr(), b.Laddr().Port()) ||
							!bytes.Equal(data, bytes.Repeat([]byte{byte(i + 1)}, sizes[i])) {
							t.Errorf("%s: datagram %d is %+v", name, i, got[i].N)
						}
					}
				}
				a.Soclose()
				b.Soclose()
			})
		}
	}
}

// TestUDPBatchLink: on a wire each datagram of a batch is a packet, or its fragments, of its own,
// with the right lengths and checksum, however few packets the link takes at a time.
func TestUDPBatchLink(t *testing.T) {
	for name, sizes := range udpBatches {
		for _, short := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				v := attacked(t, nil)
				defer v.done()
				if short {
					r := rand.New(rand.NewPCG(1, 2))
					v.link.take = func(n int) int { return min(n, r.IntN(4)) }
				}
				so := v.udpBound("10.0.0.1:7")
				defer so.Soclose()
				for range 2 {
					msgs := batchOf(udpFrom, sizes...)
					done := 0
					for done < len(msgs) {
						n, errno := so.Sosendmsgs(msgs[done:], 0)
						done += n
						if errno != 0 && errno != syscall.EAGAIN {
							t.Fatalf("%s: sent %d, %v", name, done, errno)
						}
						for q := &v.ifp.queues[0]; q.n > 0; {
							v.link.ready()
							settle()
						}
					}
					i := 0
					var whole []byte
					for _, p := range v.link.fetch() {
						ip, err := wire.ParseIPv4(p, len(p))
						if err != nil || ip.Len != len(p) || len(p) > 1500 {
							t.Fatalf("%s: %d bytes: %v", name, len(p), err)
						}
						if whole = append(whole, p[20:]...); ip.Flags&wire.IPMF != 0 {
							continue
						}
						u := wire.UDPView(whole)
						if u.Len() != len(u) || len(u) != sizes[i]+8 || u.Sum() == 0 ||
							wire.Fold(wire.Sum(u, wire.PseudoSum(ip.Src, ip.Dst, wire.ProtoUDP, len(u)))) != 0xffff ||
							!bytes.Equal(u[8:], bytes.Repeat([]byte{byte(i + 1)}, sizes[i])) {
							t.Errorf("%s: datagram %d is wrong: %d bytes", name, i, len(u))
						}
						whole = nil
						i++
					}
					if i != len(sizes) {
						t.Errorf("%s: %d datagrams of %d", name, i, len(sizes))
					}
				}
			})
		}
	}
}

// TestUDPSegment: with UDP_SEGMENT, one call sends what the receiver reads as several datagrams.
func TestUDPSegment(t *testing.T) {
	t.Run("short way", func(t *testing.T) { udpSegment(t, false) })
	t.Run("through IP", func(t *testing.T) { udpSegment(t, true) })
}

// udpSegment tests UDP_SEGMENT over the loopback. If it is captured, datagrams go through IP.
func udpSegment(t *testing.T, captured bool) {
	synctest.Test(t, func(t *testing.T) {
		k := udpStack(t)
		if captured {
			stop, err := k.Lo0().Capture(io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			defer stop()
		}
		a, b := udpSocket(t, k, "127.0.0.1:7"), udpSocket(t, k, "")
		for _, c := range []struct {
			seg, n int
			errno  syscall.Errno
		}{
			{100, 1000, 0}, {100, 1001, 0}, {100, 99, 0}, {100, 12800, 0}, {100, 12801, syscall.EINVAL}, {0, 12801, 0},
		} {
			if errno := b.Sosetopt(wire.ProtoUDP, UDP_SEGMENT, c.seg); errno != 0 {
				t.Fatal(errno)
			}
			data := make([]byte, c.n)
			for i := range data {
				data[i] = byte(i / 7)
			}
			if _, errno := b.Sosendto(data, ap("127.0.0.1:7")); errno != c.errno {
				t.Fatalf("%+v: %v", c, errno)
			}
			for at := 0; at < c.n && c.errno == 0; {
				want := data[at:]
				if c.seg > 0 {
					want = want[:min(c.seg, len(want))]
				}
				buf := make([]byte, 20000)
				n, _, _, errno := a.Soreceivefrom(buf)
				if errno != 0 || !bytes.Equal(buf[:n], want) {
					t.Fatalf("%+v: at %d received %d bytes, %v", c, at, n, errno)
				}
				at += n
			}
		}
		a.Soclose()
		b.Soclose()
	})
}

func BenchmarkUDPBatch(b *testing.B) {
	for _, size := range []int{64, 1200} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			k, err := New(Config{})
			if err != nil {
				b.Fatal(err)
			}
			a, c := udpSocket(b, k, "127.0.0.1:7"), udpSocket(b, k, "")
			if errno := c.Soconnect(ap("127.0.0.1:7")); errno != 0 {
				b.Fatal(errno)
			}
			const batch = 64
			out, in := batchOf(netip.AddrPort{}, sizesOf(batch, size)...), make([]Msg, batch)
			for i := range in {
				in[i].Bufs = [][]byte{make([]byte, size)}
				out[i].Bufs = [][]byte{make([]byte, size)}
			}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for n := 0; n < b.N; {
				c.Sosendmsgs(out, 0)
				for got := 0; got < batch; {
					k, _ := a.Soreceivemsgs(in, MSG_DONTWAIT)
					if k == 0 {
						break
					}
					got += k
					n += k
				}
			}
			b.StopTimer()
			a.Soclose()
			c.Soclose()
			k.Close()
		})
	}
}
