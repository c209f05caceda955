package kern

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"

	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/testutil"
)

// A pairLink is one end of a cable that is full at random: it takes any number of the packets it is
// given, and calls ready at any time.
type pairLink struct {
	mtu  int
	peer *pairLink

	mu     sync.Mutex
	cond   sync.Cond
	r      *rand.Rand
	in     [][]byte // to be read here
	closed bool
	ready  func()
	wg     sync.WaitGroup
	short  bool
}

func newPair(mtu int, short bool, seed uint64) (a, b *pairLink) {
	a, b = &pairLink{mtu: mtu, short: short}, &pairLink{mtu: mtu, short: short}
	a.peer, b.peer = b, a
	a.r, b.r = rand.New(rand.NewPCG(seed, 1)), rand.New(rand.NewPCG(seed, 2))
	a.cond.L, b.cond.L = &a.mu, &b.mu
	return a, b
}

func (l *pairLink) MTU() int { return l.mtu }

func (l *pairLink) Start(ready func()) error {
	l.ready = ready
	return nil
}

func (l *pairLink) Close() error {
	l.mu.Lock()
	l.closed = true
	l.cond.Broadcast()
	l.mu.Unlock()
	l.wg.Wait()
	return nil
}

func (l *pairLink) Read(bufs [][]byte, sizes []int) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.in) == 0 && !l.closed {
		l.cond.Wait()
	}
	if l.closed {
		return 0, net.ErrClosed
	}
	n := min(len(bufs), len(l.in))
	for i := range n {
		sizes[i] = copy(bufs[i], l.in[i])
	}
	l.in = slices.Delete(l.in, 0, n)
	return n, nil
}

func (l *pairLink) Write(pkts []net.Buffers) (int, error) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return 0, net.ErrClosed
	}
	n, mood := len(pkts), 0
	if l.short && l.r.IntN(2) == 0 {
		n = l.r.IntN(n + 1)
		mood = l.r.IntN(3)
	}
	if n < len(pkts) {
		l.wg.Go(func() {
			for range mood * 20 {
				runtime.Gosched()
			}
			l.ready()
		})
	}
	l.mu.Unlock()
	if mood == 1 {
		runtime.Gosched() // ready may well have been called by the time this returns
	}
	l.peer.mu.Lock()
	for _, p := range pkts[:n] {
		l.peer.in = append(l.peer.in, slices.Concat(p...))
	}
	l.peer.cond.Broadcast()
	l.peer.mu.Unlock()
	return n, nil
}

// twoKernels makes two stacks, 10.0.0.1 and 10.0.0.2, at the ends of a cable.
func twoKernels(t testing.TB, a, b Link, mod func(*Config)) (ka, kb *Kernel) {
	t.Helper()
	for i, l := range []Link{a, b} {
		c := Config{Profile: tcp.Default(), Rand: testutil.SeededRand(uint64(i) + 7)}
		if mod != nil {
			mod(&c)
		}
		k, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		addr := netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})
		if _, err := k.Attach("pipe0", l, []netip.Prefix{netip.PrefixFrom(addr, 24)}); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			ka = k
		} else {
			kb = k
		}
	}
	return ka, kb
}
