package contract

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"bsdnet"
	"bsdnet/netem"

	"golang.org/x/net/nettest"
)

// legal are the errors that calls may return, whatever the two ends do to the connection.
func legal(err error) bool {
	for _, e := range []error{
		nil, io.EOF, net.ErrClosed, os.ErrDeadlineExceeded, syscall.ECONNRESET, syscall.EPIPE,
		syscall.ENOTCONN, syscall.ECONNREFUSED, syscall.ECONNABORTED,
		context.Canceled, context.DeadlineExceeded,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return err == nil
}

// TestCloseRaces makes all calls on both ends of a connection at once, from many goroutines. No
// call hangs, all errors are legal, and the stacks have returned their buffers afterwards.
func TestCloseRaces(t *testing.T) {
	eachOwn(t, func(t *testing.T, n *network) {
		seed := rand.Uint64()
		l := n.listen(t)
		for round := range uint64(60) {
			c, s := n.pairOver(t, l)
			var wg sync.WaitGroup
			for e, conn := range []tcpConn{c, s} {
				for w := range 7 {
					wg.Go(func() {
						rnd := rand.New(rand.NewPCG(seed, round<<8|uint64(e)<<4|uint64(w)))
						for range rnd.IntN(4) {
							if err := oneOf(conn, w, rnd); !legal(err) {
								t.Errorf("seed %d: %v", seed, err)
							}
						}
						if w == 0 && rnd.IntN(2) == 0 {
							conn.SetLinger(0)
						}
						if w < 2 {
							conn.Close()
						}
					})
				}
			}
			wg.Wait()
		}
	})
}

// oneOf makes a call on a connection: the w-th worker reads, writes, or makes unusual calls.
func oneOf(c tcpConn, w int, rnd *rand.Rand) error {
	buf := make([]byte, 1+rnd.IntN(200_000))
	switch w {
	case 0:
		_, err := c.Read(buf[:1+rnd.IntN(len(buf))])
		return err
	case 1: // it closes in any case, so that no call waits forever
		for range rnd.IntN(30) {
			runtime.Gosched()
		}
		return nil
	case 2, 3:
		_, err := c.Write(buf)
		return err
	case 4:
		if rnd.IntN(2) == 0 {
			return c.SetDeadline(past)
		}
		return c.SetDeadline(time.Now().Add(time.Duration(rnd.IntN(int(time.Millisecond)))))
	case 5:
		if rnd.IntN(2) == 0 {
			return c.CloseWrite()
		}
		return c.CloseRead()
	}
	if rnd.IntN(2) == 0 {
		return c.SetReadBuffer(len(buf))
	}
	return c.SetNoDelay(false)
}

// TestDialCloseRaces runs dials, accepts, cancellations, and listeners that come and go, at once.
func TestDialCloseRaces(t *testing.T) {
	eachOwn(t, func(t *testing.T, n *network) {
		seed := rand.Uint64()
		first := n.listen(t)
		a := first.Addr().String()
		first.Close()
		stop := make(chan struct{})
		var wg, listeners sync.WaitGroup
		listeners.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				l, err := n.listenOn(a)
				if err != nil {
					t.Error(err)
					return
				}
				var accept sync.WaitGroup
				for range 2 {
					accept.Go(func() {
						for {
							c, err := l.Accept()
							if err != nil {
								return
							}
							c.Write([]byte("hello"))
							c.Close()
						}
					})
				}
				for range 200 {
					runtime.Gosched() // gives time for a dial or two
				}
				l.Close()
				accept.Wait()
			}
		})
		for w := range uint64(8) {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(seed, w))
				for range 40 {
					limit := time.Duration(rnd.IntN(int(5 * time.Millisecond)))
					ctx, cancel := context.WithTimeout(context.Background(), limit)
					c, err := n.dialCtx(ctx, a)
					if err == nil {
						_, err = io.ReadAll(c)
						c.Close()
					}
					cancel()
					if !legal(err) {
						t.Errorf("seed %d: %v", seed, err)
					}
				}
			})
		}
		wg.Wait()
		close(stop)
		listeners.Wait()
	})
}

// TestStackCloseRaces tests Stack.Close while calls of all kinds are under way.
func TestStackCloseRaces(t *testing.T) {
	eachOwn(t, func(t *testing.T, n *network) {
		l := n.listen(t)
		var wg sync.WaitGroup
		var dials atomic.Int64
		busy := make(chan struct{})
		for range 4 {
			wg.Go(func() {
				for {
					s, err := l.Accept()
					if err != nil {
						return
					}
					wg.Go(func() { io.Copy(s, s); s.Close() })
				}
			})
			wg.Go(func() {
				for {
					c, err := n.dial(l.Addr().String())
					if err != nil {
						if !legal(err) {
							t.Error(err)
						}
						return
					}
					if dials.Add(1) == 100 {
						close(busy)
					}
					wg.Go(func() { io.Copy(io.Discard, c) })
					for range 3 {
						if _, err := c.Write(make([]byte, 10_000)); err != nil {
							break
						}
					}
					c.(tcpConn).CloseWrite()
				}
			})
		}
		<-busy
		n.client.Close()
		l.Close()
		if n.server != n.client {
			n.server.Close()
		}
		wg.Wait()
	})
}

// TestConnOverLinks runs nettest.TestConn over cables: with an MTU of 1500, with a short queue, and
// lossy and slow, by IPv4 and by IPv6.
func TestConnOverLinks(t *testing.T) {
	for _, k := range []struct {
		name string
		pipe netem.PipeConfig
		imp  *netem.Path
		v6   bool
	}{
		{name: "MTU 1500", pipe: netem.PipeConfig{MTU: 1500}},
		{name: "MTU 576, short queue", pipe: netem.PipeConfig{MTU: 576, Queue: 4}},
		{name: "impaired", imp: &netem.Path{
			Write: netem.Impairment{Delay: 100 * time.Microsecond, Reorder: 0.01, Duplicate: 0.01, Loss: 0.0002},
			Read:  netem.Impairment{Delay: 100 * time.Microsecond, Reorder: 0.01, Corrupt: 0.0002},
			Seed:  1,
		}},
		{name: "IPv6, impaired", v6: true, imp: &netem.Path{
			Write: netem.Impairment{Delay: 100 * time.Microsecond, Reorder: 0.01, Duplicate: 0.01, Loss: 0.0002},
			Read:  netem.Impairment{Delay: 100 * time.Microsecond, Reorder: 0.01},
			Seed:  1,
		}},
	} {
		t.Run(k.name, func(t *testing.T) {
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				n := cableOf(t, k.pipe, func(l bsdnet.Link) bsdnet.Link {
					if k.imp == nil {
						return l
					}
					i, err := netem.Impair(l, *k.imp)
					if err != nil {
						t.Fatal(err)
					}
					return i
				})
				if k.v6 {
					n.over6()
				}
				a, b := n.pair(t)
				return a, b, func() { a.Close(); b.Close(); n.client.Close(); n.server.Close() }, nil
			})
		})
	}
}
