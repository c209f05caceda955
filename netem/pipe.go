package netem

import (
	"fmt"
	"net"
	"time"

	"bsdnet/internal/link"
)

// maxDelay bounds the durations of a configuration.
const maxDelay = 24 * time.Hour

// The default of PipeConfig.Queue without and with a delay.
const (
	defaultQueue        = 512
	defaultDelayedQueue = 16384
	maxQueue            = 1 << 20
)

// PipeConfig configures a [Pipe]. The zero PipeConfig is ready to use.
type PipeConfig struct {
	// MTU is the largest IP packet in bytes, 68 to 65535. 0 is 1500.
	MTU int

	// Queue is how many packets each direction holds, 1 to 1048576, those that have been written and not read yet, on
	// the way or waiting. When it is full, Write takes no more until it is half empty. 0 is 512, and with a Delay 16384, so
	// that a window of 24 MB is on the way without being held up.
	Queue int

	// Delay is how long a packet takes to the other end, 0 to 24 hours.
	Delay time.Duration
}

// A Link is one end of a cable between two stacks of one process: what is written to one end is read from the other. It is
// a bsdnet.Link that neither loses nor changes packets, and of which a slow reader holds the writer up. [Pipe] makes two.
//
// Without a delay a packet can be read at once, in the order in which the calls of Write came. With one, packets arrive
// one an instant, at least 1 ns apart; of those that were written at one instant the flows come in the order of their
// protocols, addresses and ports. So what a stack reads in a testing/synctest bubble does not depend on which of several
// goroutines came first, as long as the queue is not full. For a pipe without a delay [Impair] does the same.
//
// Close cuts the cable at that end. The other end still reads what was written before, on the way or waiting; then its
// Read blocks until its own Close, and what it writes is taken and lost.
type Link struct {
	mtu   int
	state link.State
	ready func()
	rx    queue // what this end reads
	peer  *Link

	sched *scheduler // that of both ends, nil without a delay
	toRx  line       // brings packets to rx
}

var _ link.Link = (*Link)(nil)

// Pipe makes a cable and returns its two ends. The error says what is wrong with the configuration.
func Pipe(config PipeConfig) (a, b *Link, err error) {
	if config.MTU == 0 {
		config.MTU = link.DefaultMTU
	}
	if config.Queue == 0 {
		config.Queue = defaultQueue
		if config.Delay > 0 {
			config.Queue = defaultDelayedQueue
		}
	}
	switch {
	case config.MTU < link.MinMTU || config.MTU > link.MaxPacket:
		return nil, nil, fmt.Errorf("netem: pipe: MTU %d is not within %d..%d", config.MTU, link.MinMTU, link.MaxPacket)
	case config.Queue < 1 || config.Queue > maxQueue:
		return nil, nil, fmt.Errorf("netem: pipe: Queue %d is not within 1..%d packets", config.Queue, maxQueue)
	case config.Delay < 0 || config.Delay > maxDelay:
		return nil, nil, fmt.Errorf("netem: pipe: Delay %v is not within 0..%v", config.Delay, maxDelay)
	}
	a, b = &Link{mtu: config.MTU}, &Link{mtu: config.MTU}
	a.peer, b.peer = b, a
	for _, e := range []*Link{a, b} {
		e.rx.init(config.Queue)
		e.toRx.delay = int64(config.Delay)
		e.toRx.deliver = e.deliver
	}
	if config.Delay > 0 {
		s := new(scheduler)
		s.init(&a.toRx, &b.toRx)
		a.sched, b.sched = s, s
	}
	return a, b, nil
}

// MTU returns PipeConfig.MTU.
func (e *Link) MTU() int { return e.mtu }

// Start implements bsdnet.Link. Packets that the other end has written before wait to be read.
func (e *Link) Start(ready func()) error {
	e.rx.mu.Lock()
	defer e.rx.mu.Unlock()
	if err := e.state.StartError("netem", ready); err != nil {
		return err
	}
	e.ready = ready // seen by whoever sees the state
	e.state.Store(link.Started)
	return nil
}

// Read implements bsdnet.Link.
func (e *Link) Read(bufs [][]byte, sizes []int) (int, error) {
	if err := e.state.IOError("netem"); err != nil || len(bufs) == 0 || len(sizes) == 0 {
		return 0, err
	}
	for {
		n, room, err := e.rx.read(bufs, sizes)
		if room {
			e.peer.callReady()
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// Write implements bsdnet.Link. It is cut short when the queue to the other end is full.
func (e *Link) Write(pkts []net.Buffers) (int, error) {
	if err := e.state.IOError("netem"); err != nil {
		return 0, err
	}
	var batch [batchLen]*packet
	for done := 0; done < len(pkts); {
		n := min(len(pkts)-done, len(batch))
		for i, bufs := range pkts[done : done+n] {
			p := copyPacket(bufs, e.mtu)
			if p != nil && e.sched != nil {
				p.flow = flowOf(p.data)
			}
			batch[i] = p
		}
		taken, closed := e.peer.rx.put(batch[:n], e.sched == nil)
		freeAll(batch[taken:n])
		if closed {
			break
		}
		if e.sched != nil {
			e.sched.submit(&e.peer.toRx, batch[:taken])
		}
		done += taken
		if taken < n {
			return done, nil
		}
	}
	return len(pkts), nil
}

// Close implements bsdnet.Link.
func (e *Link) Close() error {
	// The lock is Start's, which must not start what is closed.
	e.rx.mu.Lock()
	was := e.state.Swap(link.Closed)
	e.rx.mu.Unlock()
	if was == link.Closed {
		return net.ErrClosed
	}
	if e.rx.close() {
		e.peer.callReady()
	}
	if e.sched != nil {
		e.sched.drop(&e.toRx)
	}
	return nil
}

// deliver brings packets that have travelled for the delay; Write has kept places for them.
func (e *Link) deliver(pkts []*packet) int {
	e.rx.arrive(pkts)
	return len(pkts)
}

// callReady tells the stack of this end that it may write again.
func (e *Link) callReady() {
	if e.state.Load() == link.Started {
		e.ready()
	}
}
