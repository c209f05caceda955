package kern

import (
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/tcp"
)

// A dialer is a blocking connect over the loopback.
type dialer struct {
	so    *Socket
	done  bool
	errno syscall.Errno
	at    time.Time
}

func (v *victim) dialers(wg *sync.WaitGroup, n int, to netip.AddrPort) []*dialer {
	v.Helper()
	ds := make([]*dialer, n)
	for i := range ds {
		so, errno := v.k.Socreate(attFam.domain, SOCK_STREAM, 0)
		v.no(errno)
		d := &dialer{so: so}
		ds[i] = d
		wg.Go(func() {
			if d.errno = so.Soconnect(to); d.errno == 0 {
				d.errno = so.Soconnectwait()
			}
			d.done, d.at = true, time.Now()
		})
		settle() // in this order
	}
	return ds
}

func connectedDialers(ds []*dialer) (n int) {
	for _, d := range ds {
		if d.done && d.errno == 0 {
			n++
		}
	}
	return n
}

var loopAt = netip.MustParseAddrPort("127.0.0.1:80")

// Over the loopback a SYN that finds no place waits for one, behind those that came before, and no
// dial has to retransmit, however long accept takes.
func TestParkedFirstComeFirstServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		lfd := v.listen(80, 2)
		var wg sync.WaitGroup
		ds := v.dialers(&wg, 12, loopAt)
		if n := connectedDialers(ds); n != 2 {
			t.Fatalf("%d are connected, want 2", n)
		}
		for i := range ds {
			pass(3*time.Second + 7*time.Millisecond)
			now := time.Now()
			_, nam, errno := v.p.Accept(lfd)
			v.no(errno)
			if nam != ds[i].so.Laddr() {
				t.Fatalf("accept %d is %v, want %v", i, nam, ds[i].so.Laddr())
			}
			settle()
			if next := i + 2; next < len(ds) && (!ds[next].done || ds[next].at != now) {
				t.Fatalf("dialer %d has not been let in at once: %+v", next, ds[next])
			}
		}
		wg.Wait()
		if n := connectedDialers(ds); n != len(ds) {
			t.Errorf("%d are connected", n)
		}
	})
}

// A parked dial waits as long as its user wants. Its deadline ends it, and TCP_KEEPINIT if the user
// has set it; the profile's value and the number of retransmissions do not.
func TestParkedWaitsForItsUser(t *testing.T) {
	for _, prof := range []func() *tcp.Profile{tcp.Default, tcp.FreeBSD} {
		for _, mtu := range []int{0, 1500} {
			synctest.Test(t, func(t *testing.T) {
				v := attacked(t, func(c *Config, p *tcp.Profile) { *p = *prof(); c.LoopbackMTU = mtu })
				defer v.done()
				lfd := v.listen(80, 1)
				var wg sync.WaitGroup
				ds := v.dialers(&wg, 4, loopAt)
				ds[2].so.Sosetopt(IPPROTO_TCP, TCP_KEEPINIT, 5) // too late for this attempt
				end := time.Now().Add(30 * time.Minute)
				ds[3].so.SetDeadlines(nil, &end)
				kd, _ := v.k.Socreate(attFam.domain, SOCK_STREAM, 0)
				if errno := kd.Sosetopt(IPPROTO_TCP, TCP_KEEPINIT, 5); errno != 0 {
					t.Fatal(errno)
				}
				start := time.Now()
				if errno := kd.Soconnect(loopAt); errno != 0 {
					t.Fatal(errno)
				}
				if errno := kd.Soconnectwait(); errno != syscall.ETIMEDOUT || time.Since(start) != 5*time.Second {
					t.Errorf("TCP_KEEPINIT 5: %v after %v", errno, time.Since(start))
				}
				kd.Soclose()
				pass(2 * time.Hour)
				if ds[1].done || ds[2].done {
					t.Fatalf("dials have given up: %v %v", ds[1].errno, ds[2].errno)
				}
				if ds[3].errno != syscall.EAGAIN || ds[3].at != end {
					t.Errorf("the deadline gives %v at %v, want %v", ds[3].errno, ds[3].at, end)
				}
				ds[3].so.Soclose()
				for i := range 3 {
					if _, _, errno := v.p.Accept(lfd); errno != 0 {
						t.Fatalf("accept %d: %v", i, errno)
					}
					settle()
				}
				wg.Wait()
				if ds[1].errno != 0 || ds[2].errno != 0 {
					t.Errorf("after two hours: %v %v", ds[1].errno, ds[2].errno)
				}
			})
		}
	}
}

// Closing the listener refuses the dials that wait, and resets the connections that no user has
// accepted.
func TestListenerCloseRefusesParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		lfd := v.listen(80, 2)
		var wg sync.WaitGroup
		ds := v.dialers(&wg, 6, loopAt)
		at := time.Now()
		v.no(v.p.Close(lfd))
		wg.Wait()
		for i, d := range ds {
			if i < 2 {
				if _, errno := d.so.Soreceive(make([]byte, 1), 0); d.errno != 0 || errno != syscall.ECONNRESET {
					t.Errorf("dialer %d: %v, then %v", i, d.errno, errno)
				}
			} else if d.errno != syscall.ECONNREFUSED || d.at != at {
				t.Errorf("dialer %d: %v after %v", i, d.errno, d.at.Sub(at))
			}
			d.so.Soclose()
		}
	})
}

// A dialer that gives up while it is parked leaves its turn to the next, and so does a connection
// that dies on the queue, by whichever end.
func TestParkedPlacesComeFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		lfd := v.listen(80, 1)
		var wg sync.WaitGroup
		ds := v.dialers(&wg, 6, loopAt)
		if n := connectedDialers(ds); n != 1 {
			t.Fatalf("%d are connected", n)
		}
		ds[1].so.Socancel(syscall.ECANCELED) // parked
		settle()
		if ds[1].errno != syscall.ECANCELED {
			t.Errorf("cancel: %v", ds[1].errno)
		}
		ds[0].so.Setlinger(true, 0)
		ds[0].so.Soclose() // a reset to the child on the queue
		settle()
		if !ds[2].done || ds[2].errno != 0 {
			t.Fatalf("the place of a child that was reset is not given on: %+v", ds[2])
		}
		v.k.Tcpdrop(func(c Conn) bool { return c.Remote == ds[2].so.Laddr() })
		settle()
		if !ds[3].done || ds[3].errno != 0 {
			t.Fatalf("the place of a child that was dropped is not given on: %+v", ds[3])
		}
		if _, nam, errno := v.p.Accept(lfd); errno != 0 || nam != ds[3].so.Laddr() {
			t.Errorf("accept: %v, %v", nam, errno)
		}
		settle()
		if ds[4].errno != 0 || !ds[4].done || ds[5].done {
			t.Errorf("after accept: %+v %+v", ds[4], ds[5])
		}
		v.p.Accept(lfd)
		wg.Wait()
		for i, d := range ds {
			if d.so.Soclose(); i > 2 && d.errno != 0 {
				t.Errorf("dialer %d: %v", i, d.errno)
			}
		}
		if lq := v.p.Sock(lfd).lq; lq.reserved != 0 || len(lq.parked) != 0 {
			t.Errorf("%d reserved, %d parked at the end", lq.reserved, len(lq.parked))
		}
	})
}

// If a dialer gives up while it is parked, and another dials from its port, the second is let in.
func TestParkedPortReused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		lfd := v.listen(80, 1)
		var wg sync.WaitGroup
		ds := v.dialers(&wg, 1, loopAt)
		from := netip.AddrPortFrom(loopAt.Addr(), 4444)
		for range 5 {
			so, _ := v.k.Socreate(attFam.domain, SOCK_STREAM, 0)
			v.no(so.Sobind(from))
			v.no(so.Soconnect(loopAt))
			pass(time.Millisecond)
			so.Socancel(syscall.ECANCELED)
			so.Soclose()
		}
		so, _ := v.k.Socreate(attFam.domain, SOCK_STREAM, 0)
		v.no(so.Sobind(from))
		v.no(so.Soconnect(loopAt))
		start := time.Now()
		v.p.Accept(lfd)
		v.no(so.Soconnectwait())
		if d := time.Since(start); d != 0 {
			t.Errorf("it took %v", d)
		}
		if _, nam, errno := v.p.Accept(lfd); errno != 0 || nam != from {
			t.Errorf("accept: %v %v", nam, errno)
		}
		wg.Wait()
		so.Soclose()
		ds[0].so.Soclose()
	})
}

// While memory is short, the stack drops a SYN, and no goroutine spins. Later the peer sends it
// again.
func TestParkedUnderPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, func(c *Config, _ *tcp.Profile) { c.Memory = 8 << 20 })
		defer v.done()
		lfd := v.listen(80, 1)
		var wg sync.WaitGroup
		ds := v.dialers(&wg, 4, loopAt)
		hog := v.k.pool.Getcl(1)
		for !v.k.pressed() {
			m := v.k.pool.Getcl(64 << 10)
			m.SetNext(hog)
			hog = m
		}
		v.p.Accept(lfd)
		settle()
		if n := connectedDialers(ds); n != 1 {
			t.Errorf("%d are connected while memory is short", n)
		}
		pass(10 * time.Second)
		mbuf.Free(hog)
		for range ds {
			pass(70 * time.Second)
			v.p.Accept(lfd)
		}
		wg.Wait()
		if n := connectedDialers(ds); n != 4 {
			t.Errorf("%d are connected afterwards", n)
		}
		for _, d := range ds {
			d.so.Soclose()
		}
	})
}

// In a burst of dials over the loopback, to a small queue whose user is slow, no dial has to
// retransmit.
func TestBurstOfDials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		ls, _ := v.k.Socreate(attFam.domain, SOCK_STREAM, 0)
		v.no(ls.Sobind(loopAt))
		v.no(ls.Solisten(5))
		var wg sync.WaitGroup
		const n = 2000
		start := time.Now()
		for range n {
			wg.Go(func() {
				so, errno := v.k.Socreate(attFam.domain, SOCK_STREAM, 0)
				if errno == 0 {
					if errno = so.Soconnect(loopAt); errno == 0 {
						errno = so.Soconnectwait()
					}
				}
				if errno != 0 {
					t.Errorf("dial: %v", errno)
				}
				so.Soclose()
			})
		}
		for i := range n {
			so, errno := ls.Soaccept()
			if errno != 0 {
				t.Fatalf("accept %d: %v", i, errno)
			}
			so.Soclose()
		}
		wg.Wait()
		if d := time.Since(start); d != 0 {
			t.Errorf("it took %v", d)
		}
		ls.Soclose()
		if n := v.k.Stats.TCP.Rexmttimeo.Load(); n != 0 {
			t.Errorf("%d retransmissions", n)
		}
	})
}
