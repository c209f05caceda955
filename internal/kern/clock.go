package kern

import (
	"container/heap"
	"sync"
	"time"

	"bsdnet/internal/kern/tcp"
)

// The stack's clock: BSD's callouts. A heap of callouts by (deadline, id) and one time.Timer at the
// earliest. A callout that fires early does no harm: its owner finds nothing due, and sets it
// again. So no callout is taken out of the heap as long as its owner lives.

// never is a deadline that never passes. It is the machine's, whose timers become callouts.
const never = int64(tcp.Never)

// epoch is the stack's time when it begins: not 0, so that no time is mistaken for "never".
const epoch = int64(time.Second)

// now returns the stack's time, in nanoseconds.
func (k *Kernel) now() int64 { return int64(time.Since(k.t0)) + epoch }

// wall returns the time of day.
func (k *Kernel) wall() time.Time { return k.t0.Add(time.Since(k.t0)) }

// wallAt returns the time of day at an instant of the stack's time.
func (k *Kernel) wallAt(t int64) time.Time { return k.t0.Add(time.Duration(t - epoch)) }

// A callout is the place of a socket, or of one of the stack's tables, in the clock, which calls
// its owner at a time.
type callout struct {
	at    int64   // never: not in the heap; guarded by the clock
	armed int64   // the time that its owner last asked for; guarded by the owner
	so    *Socket // its owner; nil: a table
	id    uint32  // of callouts with the same deadline the older goes first
	idx   int32   // in the heap
}

type clock struct {
	k *Kernel

	mu     sync.Mutex // a leaf
	tables []expirer  // constant
	heap   calloutHeap
	timer  *time.Timer
	set    int64 // what the timer is set to
	wanted int64 // when it should fire: set, or when it was set, if set had passed by then, as a user's deadline may
	closed bool
	firing bool
	idle   sync.Cond
	due    []*callout // expire's scratch
}

// An expirer is a table with a callout.
type expirer interface{ expire(now int64) }

// table makes the callout of a table. The tables come before all sockets, so their ids are 1, 2,
// and so on.
func (c *clock) table(e expirer) callout {
	c.tables = append(c.tables, e)
	return callout{at: never, id: c.k.socketID.Add(1)}
}

// expire calls the owner.
func (co *callout) expire(c *clock, now int64) {
	if co.so != nil {
		co.so.expire(now)
	} else {
		c.tables[co.id-1].expire(now)
	}
}

func (c *clock) init(k *Kernel) {
	c.k = k
	c.set = never
	c.idle.L = &c.mu
}

// even returns t or the next instant, whichever is even on the clock of the day. The timers of
// protocols fire at even instants, and our links let packets arrive at odd ones, because a synctest
// bubble runs what is due at the same instant in any order. A test whose packets and calls come at
// round times sees its timers to the nanosecond.
func (k *Kernel) even(t int64) int64 {
	if t != never && (t^k.parity)&1 != 0 {
		t++
	}
	return t
}

// arm makes co fire at t, or earlier.
func (c *clock) arm(co *callout, t int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || t >= co.at {
		return
	}
	waiting := co.at != never
	co.at = t
	if waiting {
		heap.Fix(&c.heap, int(co.idx))
	} else {
		heap.Push(&c.heap, co)
	}
	c.schedule()
}

// disarm takes co out for good. Without it, a socket that has ended would stay in memory until its
// keep-alive timer fires, which may be hours away.
func (c *clock) disarm(co *callout) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if co.at != never {
		heap.Remove(&c.heap, int(co.idx))
	}
}

// schedule sets the timer to the earliest deadline. The lock is held.
func (c *clock) schedule() {
	if len(c.heap) == 0 || c.firing || c.heap[0].at >= c.set {
		return
	}
	now := c.k.now()
	c.set = c.heap[0].at
	c.wanted = max(c.set, now)
	d := time.Duration(c.set - now)
	if c.timer == nil {
		c.timer = time.AfterFunc(d, c.fire)
	} else {
		c.timer.Reset(d)
	}
}

// If the timer is later than grace, the clock concludes that the processor was busy elsewhere, and
// lets packets that have arrived meanwhile be processed first: it waits for graceWait, at most
// graceMax times in a row.
const (
	grace     = int64(20 * time.Millisecond)
	graceWait = time.Millisecond
	graceMax  = 3
)

// fire calls the owners of the callouts that are due, in order.
func (c *clock) fire() {
	c.mu.Lock()
	if c.closed || c.firing {
		c.mu.Unlock()
		return
	}
	c.firing = true
	c.set = never
	c.forbear(c.wanted)
	for !c.closed {
		now := c.k.now()
		due := c.due[:0]
		for len(c.heap) > 0 && c.heap[0].at <= now {
			due = append(due, heap.Pop(&c.heap).(*callout))
		}
		if len(due) == 0 {
			break
		}
		c.mu.Unlock()
		for i, co := range due {
			co.expire(c, now)
			due[i] = nil
		}
		c.mu.Lock()
		c.due = due[:0]
		c.forbear(now) // the calls may have been held up
	}
	c.firing = false
	c.schedule()
	c.idle.Broadcast()
	c.mu.Unlock()
}

// forbear lets packets that have arrived be processed first, if the clock has been held up since t:
// a processor without time must not look like loss. The lock is held, except while it waits.
func (c *clock) forbear(t int64) {
	for n := 0; n < graceMax && c.k.now()-t > grace; n++ {
		c.mu.Unlock()
		time.Sleep(graceWait)
		c.mu.Lock()
	}
}

// close stops the clock and waits until it has stopped.
func (c *clock) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	// The timer of a bubble that has ended does not fire any more. If it did, fire would see
	// closed.
	if c.timer != nil && !c.k.away(c.k.now()) {
		c.timer.Stop()
	}
	for c.firing {
		c.idle.Wait()
	}
	for _, co := range c.heap {
		co.at = never
	}
	c.heap = nil
}

// A calloutHeap is a heap of callouts by (deadline, id), for package container/heap.
type calloutHeap []*callout

// Len implements sort.Interface.
func (h calloutHeap) Len() int { return len(h) }

// Less implements sort.Interface.
func (h calloutHeap) Less(i, j int) bool {
	a, b := h[i], h[j]
	return a.at < b.at || a.at == b.at && a.id < b.id
}

// Swap implements sort.Interface.
func (h calloutHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].idx, h[j].idx = int32(i), int32(j)
}

// Push implements heap.Interface.
func (h *calloutHeap) Push(x any) {
	co := x.(*callout)
	co.idx = int32(len(*h))
	*h = append(*h, co)
}

// Pop implements heap.Interface.
func (h *calloutHeap) Pop() any {
	last := len(*h) - 1
	co := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	co.at = never
	return co
}
