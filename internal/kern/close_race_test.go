package kern

import (
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
	"bsdnet/internal/testutil"
)

// closeErrors are the only errors that calls on a connection may return while it is being closed.
var closeErrors = []syscall.Errno{0, syscall.EBADF, syscall.ECONNRESET, syscall.EPIPE, syscall.EAGAIN,
	syscall.ETIMEDOUT, syscall.ENOTCONN,
	syscall.ECONNABORTED, syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENOBUFS}

func allowed(t testing.TB, what string, errno syscall.Errno) {
	if !slices.Contains(closeErrors, errno) {
		t.Errorf("%s: %v", what, errno)
	}
}

// A racer does random things to both ends of a connection.
type racer struct {
	t  testing.TB
	k  [2]*Kernel
	so [2]*Socket
	r  *rand.Rand
}

func (c *racer) act() {
	i := c.r.IntN(2)
	so, k := c.so[i], c.k[i]
	switch c.r.IntN(14) {
	case 0, 1, 2:
		_, errno := so.Sosend(make([]byte, c.r.IntN(70000)), 0)
		allowed(c.t, "send", errno)
	case 3, 4, 5:
		_, errno := so.Soreceive(make([]byte, 1+c.r.IntN(70000)),
			[]int{0, MSG_PEEK, MSG_WAITALL, MSG_DONTWAIT}[c.r.IntN(4)])
		allowed(c.t, "receive", errno)
	case 6:
		at := time.Now().Add(time.Duration(c.r.IntN(3)-1) * 100 * time.Microsecond)
		allowed(c.t, "set deadlines", so.SetDeadlines(&at, &at))
	case 7:
		allowed(c.t, "shutdown", so.Soshutdown(c.r.IntN(3)))
	case 8:
		if c.r.IntN(3) == 0 {
			so.Setlinger(true, 0)
		}
		allowed(c.t, "close", so.Soclose())
	case 9:
		so.Soabort()
	case 10: // an ICMP error, which may quote what is in flight
		la, fa := so.Laddr(), so.Faddr()
		quoted := &seg{from: la, to: fa, th: wire.TCP{Seq: tcp.Seq(c.r.Uint32()), Flags: wire.ACK}}
		ic := wire.ICMP{Type: wire.ICMPUnreach, Code: uint8(c.r.IntN(16)), Rest: uint32(c.r.IntN(1600))}
		for _, ifp := range k.Ifs() {
			if ifp.loopback == la.Addr().IsLoopback() {
				ifp.Inject(icmpPacket(fa.Addr(), la.Addr(), ic, quoted.bytes()))
			}
		}
	case 11: // a reset
		la, fa := so.Laddr(), so.Faddr()
		s := &seg{from: fa, to: la, th: wire.TCP{Seq: tcp.Seq(c.r.Uint32()),
			Flags: []wire.Flags{wire.RST, wire.SYN, wire.FIN | wire.ACK}[c.r.IntN(3)]}}
		for _, ifp := range k.Ifs() {
			if ifp.loopback == la.Addr().IsLoopback() {
				ifp.Inject(s.bytes())
			}
		}
	case 12:
		k.Tcpdrop(func(n Conn) bool { return n.Local == so.Laddr() && n.Remote == so.Faddr() })
	case 13: // all timers at once
		so.expire(k.now() + int64(c.r.IntN(3))*int64(time.Minute))
	}
}

// connected makes a connection between two stacks, or over the loopback of one.
func connected(t testing.TB, ka, kb *Kernel, at netip.AddrPort) (a, b *Socket) {
	t.Helper()
	ls, errno := ka.Socreate(AF_INET, SOCK_STREAM, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	defer ls.Soclose()
	if errno := ls.Sobind(netip.AddrPortFrom(at.Addr(), 0)); errno != 0 {
		t.Fatal(errno)
	}
	ls.Solisten(4)
	b, _ = kb.Socreate(AF_INET, SOCK_STREAM, 0)
	if errno := b.Soconnect(ls.Laddr()); errno != 0 {
		t.Fatal(errno)
	}
	if errno := b.Soconnectwait(); errno != 0 {
		t.Fatal(errno)
	}
	a, errno = ls.Soaccept()
	if errno != 0 {
		t.Fatal(errno)
	}
	return a, b
}

// Calls, segments, ICMP errors and timers meet on connections that are being closed, from both ends
// and from several goroutines. Each call returns, with one of closeErrors, and the stacks hold
// nothing afterwards.
func TestCloseRaces(t *testing.T) {
	for _, loop := range []bool{true, false} {
		la, lb := newPair(1500, false, 1)
		ka, kb := twoKernels(t, la, lb, nil)
		at := netip.AddrPortFrom(attHost, 0)
		if loop {
			kb.Close()
			kb, at = ka, netip.MustParseAddrPort("127.0.0.1:0")
		}
		for round := range 150 {
			a, b := connected(t, ka, kb, at)
			// No call waits longer than this, whatever happens.
			end := time.Now().Add(20 * time.Millisecond)
			a.SetDeadlines(&end, &end)
			b.SetDeadlines(&end, &end)
			var wg sync.WaitGroup
			for g := range 5 {
				c := &racer{t: t, k: [2]*Kernel{ka, kb}, so: [2]*Socket{a, b},
					r: rand.New(rand.NewPCG(uint64(round), uint64(g)))}
				wg.Go(func() {
					for range 6 {
						c.act()
					}
				})
			}
			wg.Wait()
			a.Soclose()
			b.Soclose()
		}
		ka.Close()
		closedClean(t, ka)
		if !loop {
			kb.Close()
			closedClean(t, kb)
		}
	}
}

// churn dials, accepts, sends and closes on a pair of stacks until they are closed.
func churn(t testing.TB, wg *sync.WaitGroup, ka, kb *Kernel, at netip.AddrPort) {
	ls, errno := ka.Socreate(AF_INET, SOCK_STREAM, 0)
	if errno != 0 {
		return
	}
	ls.Sobind(at)
	ls.Solisten(3)
	wg.Go(func() {
		for {
			so, errno := ls.Soaccept()
			if errno != 0 {
				if errno == syscall.EBADF || errno == syscall.ECONNABORTED || errno == syscall.EINVAL {
					return
				}
				t.Errorf("accept: %v", errno)
				return
			}
			wg.Go(func() {
				b := make([]byte, 50000)
				for {
					n, errno := so.Soreceive(b, 0)
					if n == 0 || errno != 0 {
						break
					}
					if _, errno = so.Sosend(b[:n], 0); errno != 0 {
						break
					}
				}
				so.Soclose()
			})
		}
	})
	for range 6 {
		wg.Go(func() {
			for {
				so, errno := kb.Socreate(AF_INET, SOCK_STREAM, 0)
				if errno != 0 {
					return
				}
				if errno = so.Soconnect(ls.Laddr()); errno == 0 {
					errno = so.Soconnectwait()
				}
				if errno == 0 {
					b := make([]byte, 100000)
					so.Sosend(b, 0)
					so.Soreceive(b, MSG_WAITALL)
				}
				so.Soclose()
				if errno != 0 {
					return
				}
			}
		})
	}
}

// Close ends everything at whatever moment it comes: all calls return, and no goroutine, timer,
// socket, port or buffer is left.
func TestCloseAtAnyMoment(t *testing.T) {
	before := runtime.NumGoroutine()
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 9))
		la, lb := newPair(1500, seed%2 == 1, seed)
		ka, kb := twoKernels(t, la, lb, nil)
		var wg sync.WaitGroup
		churn(t, &wg, ka, ka, netip.MustParseAddrPort("127.0.0.1:80"))
		churn(t, &wg, ka, kb, netip.AddrPortFrom(attHost, 81))
		for range r.IntN(2000) {
			runtime.Gosched()
		}
		if seed%3 == 0 { // the cable first
			for _, ifp := range ka.Ifs() {
				if !ifp.loopback {
					ka.Detach(ifp)
				}
			}
			for range r.IntN(500) {
				runtime.Gosched()
			}
		}
		var closers sync.WaitGroup
		closers.Go(ka.Close)
		closers.Go(ka.Close)
		closers.Go(kb.Close)
		closers.Wait()
		wg.Wait()
		closedClean(t, ka)
		closedClean(t, kb)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	noMoreGoroutines(t, before)
}

// noMoreGoroutines waits until there are no more goroutines than there were.
func noMoreGoroutines(t testing.TB, before int) {
	t.Helper()
	for range 1000 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(5 * time.Millisecond) // a goroutine that has returned may take a moment to be gone
	}
	b := make([]byte, 1<<20)
	t.Errorf("%d goroutines, there were %d:\n%s", runtime.NumGoroutine(), before, b[:runtime.Stack(b, true)])
}

// After Close every call fails, and a second Close returns.
func TestCallsAfterClose(t *testing.T) {
	k, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	a, b := connected(t, k, k, netip.MustParseAddrPort("127.0.0.1:0"))
	k.Close()
	k.Close()
	buf := make([]byte, 10)
	for _, so := range []*Socket{a, b} {
		if _, errno := so.Sosend(buf, 0); errno != syscall.EBADF {
			t.Errorf("send: %v", errno)
		}
		if _, errno := so.Soreceive(buf, 0); errno != syscall.EBADF {
			t.Errorf("receive: %v", errno)
		}
		if errno := so.Soclose(); errno != syscall.EBADF {
			t.Errorf("close: %v", errno)
		}
	}
	if _, errno := k.Socreate(AF_INET, SOCK_STREAM, 0); errno != syscall.EBADF {
		t.Errorf("socket: %v", errno)
	}
	if _, err := k.Attach("x", newWireLink(1500), nil); err == nil {
		t.Errorf("a closed stack takes a link")
	}
	closedClean(t, k)
}

// A link is detached while it is busy: the calls that use it end, and the stack goes on without it.
func TestDetachWhileBusy(t *testing.T) {
	for seed := range uint64(20) {
		la, lb := newPair(1500, true, seed)
		ka, kb := twoKernels(t, la, lb, nil)
		a, b := connected(t, ka, kb, netip.AddrPortFrom(attHost, 0))
		var wg sync.WaitGroup
		for _, so := range []*Socket{a, b} {
			wg.Go(func() {
				for {
					if _, errno := so.Sosend(make([]byte, 60000), 0); errno != 0 {
						allowed(t, "send", errno)
						return
					}
				}
			})
			wg.Go(func() {
				p := make([]byte, 60000)
				for {
					if n, errno := so.Soreceive(p, 0); n == 0 || errno != 0 {
						allowed(t, "receive", errno)
						return
					}
				}
			})
		}
		for range 200 * seed {
			runtime.Gosched()
		}
		for _, ifp := range ka.Ifs() {
			if !ifp.loopback {
				if err := ka.Detach(ifp); err != nil {
					t.Error(err)
				}
				q := &ifp.queues[0]
				q.mu.Lock()
				if q.n != 0 {
					t.Errorf("%d packets are left on a queue that nobody drains", q.n)
				}
				q.mu.Unlock()
			}
		}
		// The loopback still works.
		c, d := connected(t, ka, ka, netip.MustParseAddrPort("127.0.0.1:0"))
		c.Soclose()
		d.Soclose()
		a.Soabort()
		b.Soabort()
		wg.Wait()
		ka.Close()
		kb.Close()
		closedClean(t, ka)
		closedClean(t, kb)
	}
}

// Two goroutines wait in the same call when the socket goes: both return.
func TestCloseWakesEveryone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, err := New(Config{Rand: testutil.SeededRand(1)})
		if err != nil {
			t.Fatal(err)
		}
		for _, end := range []func(so *Socket){
			func(so *Socket) { so.Soclose() },
			func(so *Socket) { so.Soabort() },
			func(so *Socket) { k.Tcpdrop(func(c Conn) bool { return true }) },
			func(so *Socket) { now := time.Now(); so.SetDeadlines(&now, &now) },
		} {
			a, b := connected(t, k, k, netip.MustParseAddrPort("127.0.0.1:0"))
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() { a.Soreceive(make([]byte, 10), 0) })
				wg.Go(func() {
					for errno := syscall.Errno(0); errno == 0; {
						_, errno = a.Sosend(make([]byte, 1<<20), 0)
					}
				})
			}
			settle()
			end(a)
			at := time.Now().Add(time.Hour) // a deadline for what is still there, so that a failure says so
			fell := false
			stop := time.AfterFunc(time.Until(at), func() { fell = true; a.Soabort() })
			wg.Wait()
			if stop.Stop(); fell {
				t.Errorf("somebody was not woken")
			}
			a.Soclose()
			b.Soclose()
		}
		k.Close()
		closedClean(t, k)
	})
}
