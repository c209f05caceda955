//go:build linux

package lab

import (
	"container/heap"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"bsdnet"
)

// A gate is a link whose Write loses or delays packets before it passes them to the link that it
// wraps. Its Read is the wrapped link's.
type gate struct {
	bsdnet.Link
	lose    func(packet []byte) bool
	scatter time.Duration
	lost    atomic.Uint64

	mu     sync.Mutex
	rand   *rand.Rand
	late   lateHeap
	order  uint64
	timer  *time.Timer // fires when the first of late is due
	closed bool
}

// newGate returns a gate before a link. A nil lose loses nothing.
func newGate(l bsdnet.Link, lose func(packet []byte) bool, scatter time.Duration, seed uint64) *gate {
	return &gate{Link: l, lose: lose, scatter: scatter, rand: rand.New(rand.NewPCG(seed, 0x67617465))}
}

// Write implements bsdnet.Link.
func (g *gate) Write(pkts []net.Buffers) (int, error) {
	if g.lose == nil && g.scatter == 0 {
		return g.Link.Write(pkts)
	}
	kept, index := make([]net.Buffers, 0, len(pkts)), make([]int, 0, len(pkts))
	for i, p := range pkts {
		if g.lose == nil || !g.lose(flat(p)) {
			kept, index = append(kept, p), append(index, i)
		} else {
			g.lost.Add(1)
		}
	}
	if g.scatter == 0 {
		n, err := g.Link.Write(kept)
		if n < len(kept) {
			return index[n], err // the caller writes again from here, and so the lost ones that follow
		}
		return len(pkts), err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return 0, net.ErrClosed
	}
	now := time.Now()
	for _, p := range kept {
		delay := time.Duration(g.rand.Int64N(int64(g.scatter) + 1))
		g.order++
		heap.Push(&g.late, latePacket{now.Add(delay), g.order, append([]byte(nil), flat(p)...)})
	}
	g.arm(now)
	return len(pkts), nil
}

// flat returns a packet in one piece.
func flat(p net.Buffers) []byte {
	if len(p) == 1 {
		return p[0]
	}
	var b []byte
	for _, piece := range p {
		b = append(b, piece...)
	}
	return b
}

// arm sets the timer. The caller holds mu.
func (g *gate) arm(now time.Time) {
	if len(g.late) == 0 {
		return
	}
	d := max(g.late[0].due.Sub(now), 0)
	if g.timer == nil {
		g.timer = time.AfterFunc(d, g.release)
		return
	}
	g.timer.Reset(d)
}

// release sends the packets that are due. It loses packets that the link does not take at once, as
// a network does.
func (g *gate) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return
	}
	now := time.Now()
	var due []net.Buffers
	for len(g.late) > 0 && !g.late[0].due.After(now) {
		due = append(due, net.Buffers{heap.Pop(&g.late).(latePacket).data})
	}
	if len(due) > 0 {
		g.Link.Write(due)
	}
	g.arm(now)
}

// Close implements bsdnet.Link. It loses the packets that wait.
func (g *gate) Close() error {
	g.mu.Lock()
	g.closed = true
	if g.timer != nil {
		g.timer.Stop()
	}
	g.mu.Unlock()
	return g.Link.Close()
}

// A latePacket is a packet that waits for its time.
type latePacket struct {
	due   time.Time
	order uint64
	data  []byte
}

// A lateHeap is a heap with the packet that is due first on top.
type lateHeap []latePacket

func (h lateHeap) Len() int { return len(h) }
func (h lateHeap) Less(i, j int) bool {
	if h[i].due.Equal(h[j].due) {
		return h[i].order < h[j].order
	}
	return h[i].due.Before(h[j].due)
}
func (h lateHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *lateHeap) Push(x any)   { *h = append(*h, x.(latePacket)) }
func (h *lateHeap) Pop() any {
	old := *h
	p := old[len(old)-1]
	old[len(old)-1] = latePacket{}
	*h = old[:len(old)-1]
	return p
}
