package simnet

import (
	"container/heap"
	"sync"
	"time"
)

// At calls f when d has passed since [New], or at once if it has passed already. Calls that are due
// at one instant come one after the other, in the order in which At was called, on one goroutine:
// so f should return soon, and start a goroutine for what takes long. f may call the network and
// its hosts; it must not call FailNow of a test. When the test ends, calls that are not due yet are
// forgotten.
//
// The instant is rounded up to an even nanosecond. No packet arrives then, so f finds the network
// at rest, except for what the test itself does in the same instant.
func (n *Net) At(d time.Duration, f func()) { n.clock.add(&schedule{at: d, f: f}) }

// After is At, but d counts from the call on.
func (n *Net) After(d time.Duration, f func()) { n.At(n.Elapsed()+d, f) }

// Every calls f at d, 2*d, 3*d and so on after the call of Every, as [Net.At] does, until stop is
// called. It fails the test if d is not positive.
func (n *Net) Every(d time.Duration, f func()) (stop func()) {
	n.t.Helper()
	if d <= 0 {
		n.t.Fatalf("simnet: Every: %v is not positive", d)
	}
	s := &schedule{at: n.Elapsed() + d, every: d, f: f}
	n.clock.add(s)
	return func() { n.clock.remove(s) }
}

// clock calls what is due.
type clock struct {
	n       *Net
	mu      sync.Mutex
	list    schedules
	added   int
	timer   *time.Timer
	calling bool
	stopped bool
}

// A schedule is a call to come.
type schedule struct {
	at, every time.Duration
	number    int
	f         func()
	removed   bool
}

func (c *clock) add(s *schedule) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.added++
	s.number = c.added
	heap.Push(&c.list, s)
	c.arm()
}

func (c *clock) remove(s *schedule) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.removed = true
}

// arm sets the timer. c.mu is held.
func (c *clock) arm() {
	if c.stopped || c.calling || len(c.list) == 0 {
		return
	}
	due := c.n.start.Add(max(c.list[0].at, c.n.Elapsed()))
	wait := time.Until(due.Add(time.Duration(due.UnixNano() & 1)))
	if c.timer == nil {
		c.timer = time.AfterFunc(wait, c.run)
	} else {
		c.timer.Reset(wait)
	}
}

// run makes the calls that are due.
func (c *clock) run() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calling {
		return
	}
	c.calling = true
	for !c.stopped && len(c.list) > 0 && c.list[0].at <= c.n.Elapsed() {
		s := heap.Pop(&c.list).(*schedule)
		if s.removed {
			continue
		}
		c.call(s.f)
		if s.every > 0 && !s.removed {
			s.at += s.every
			c.added++
			s.number = c.added
			heap.Push(&c.list, s)
		}
	}
	c.calling = false
	c.arm()
}

// call calls f without the lock. If f ends its goroutine, as FailNow does, the clock is stopped.
func (c *clock) call(f func()) {
	c.mu.Unlock()
	returned := false
	defer func() {
		c.mu.Lock()
		if !returned {
			c.stopped = true
		}
	}()
	f()
	returned = true
}

// stop forgets all calls to come.
func (c *clock) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = true
	if c.timer != nil {
		c.timer.Stop()
	}
}

// schedules is a heap for package container/heap.
type schedules []*schedule

// Len implements sort.Interface.
func (s schedules) Len() int { return len(s) }

// Less implements sort.Interface.
func (s schedules) Less(i, j int) bool {
	return s[i].at < s[j].at || s[i].at == s[j].at && s[i].number < s[j].number
}

// Swap implements sort.Interface.
func (s schedules) Swap(i, j int) { s[i], s[j] = s[j], s[i] }

// Push implements heap.Interface.
func (s *schedules) Push(x any) { *s = append(*s, x.(*schedule)) }

// Pop implements heap.Interface.
func (s *schedules) Pop() any {
	last := len(*s) - 1
	x := (*s)[last]
	(*s)[last] = nil
	*s = (*s)[:last]
	return x
}
