package netem

import (
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"bsdnet/internal/link"
)

// maxDelay is the longest duration that a configuration may have.
const maxDelay = 24 * time.Hour

// The defaults of PipeConfig.Queue without and with a delay, and its maximum, in packets.
const (
	defaultQueue        = 512
	defaultDelayedQueue = 16384
	maxQueue            = 1 << 20
)

// PipeConfig configures a [Pipe]. The zero PipeConfig is ready to use.
type PipeConfig struct {
	// MTU is the size of the largest IP packet in bytes, from 68 to 65535. If it is 0, it is 1500.
	MTU int

	// Queue is how many packets each direction holds, from 1 to 1048576: all packets that have been
	// written and not yet read. When the queue is full, Write takes no more packets until it is
	// half empty. If it is 0, it is 512, or 16384 if there is a Delay: a connection can then have
	// 24 MB in flight before the queue is full.
	Queue int

	// Delay is how long a packet takes to the other end, from 0 to 24 hours.
	Delay time.Duration
}

// A Link is one end of a cable between two stacks of one process: what the stack at one end writes,
// the stack at the other end reads. It is a bsdnet.Link that neither loses nor changes packets. If
// the reader is slow, the writer has to wait. [Pipe] makes the two ends.
//
// Without a Delay, a packet can be read at once, and packets are read in the order in which Write
// was called. With a Delay, at most one packet arrives per nanosecond. Packets that were written at
// the same instant arrive in the order of their flows (protocol, addresses, ports). So the order in
// which a stack reads packets in a testing/synctest bubble does not depend on which of several
// goroutines wrote first, as long as the queue is not full. Wrap a pipe that has no Delay with
// [Impair] to get the same order.
//
// Close cuts the cable at that end. The other end still reads the packets that were written before.
// After that its Read blocks until its own Close, and the packets that it writes are lost.
type Link struct {
	mtu   int
	state link.State
	ready func()
	rx    queue // what this end reads
	peer  *Link

	sched *scheduler // that of both ends
	toRx  line       // brings packets to rx

	delayed atomic.Bool   // what this end writes goes through toRx of the peer, and always will
	severed atomic.Bool   // what this end writes is lost; only without a delay
	lost    atomic.Uint64 // packets written by this end that Cut has dropped
}

var _ link.Link = (*Link)(nil)

// Pipe makes a cable and returns its two ends. It returns an error if a field of config is out of
// range.
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
		e.toRx.refuse = e.refuse
		e.delayed.Store(config.Delay > 0)
	}
	s := new(scheduler)
	s.init(&a.toRx, &b.toRx)
	a.sched, b.sched = s, s
	return a, b, nil
}

// MTU returns PipeConfig.MTU.
func (e *Link) MTU() int { return e.mtu }

// Start implements bsdnet.Link. Packets that the other end wrote before can be read.
func (e *Link) Start(ready func()) error {
	e.rx.mu.Lock()
	defer e.rx.mu.Unlock()
	if err := e.state.StartError("netem", ready); err != nil {
		return err
	}
	e.ready = ready // stored before the state: a goroutine that reads Started may read ready
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

// Write implements bsdnet.Link. When the queue to the other end is full, it takes only some of the
// packets.
func (e *Link) Write(pkts []net.Buffers) (int, error) {
	if err := e.state.IOError("netem"); err != nil {
		return 0, err
	}
	delayed := e.delayed.Load()
	if !delayed && e.severed.Load() {
		e.lost.Add(uint64(len(pkts)))
		return len(pkts), nil
	}
	var batch [batchLen]*packet
	for done := 0; done < len(pkts); {
		n := min(len(pkts)-done, len(batch))
		for i, bufs := range pkts[done : done+n] {
			p := copyPacket(bufs, e.mtu)
			if p != nil && delayed {
				p.flow = flowOf(p.data)
			}
			batch[i] = p
		}
		taken, closed := e.peer.rx.put(batch[:n], !delayed)
		freeAll(batch[taken:n])
		if closed {
			break
		}
		if delayed {
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
	// Start holds this lock too, so that it does not start a closed link.
	e.rx.mu.Lock()
	was := e.state.Swap(link.Closed)
	e.rx.mu.Unlock()
	if was == link.Closed {
		return net.ErrClosed
	}
	if e.rx.close() {
		e.peer.callReady()
	}
	e.sched.drop(&e.toRx)
	return nil
}

// SetDelay changes how long the packets take that this end writes after the present instant. If the
// delay becomes shorter, packets may overtake those that are on their way; if it is 0, it is 1 ns,
// unless the direction has never had a delay. SetDelay returns an error if d is not within 0 to 24
// hours.
func (e *Link) SetDelay(d time.Duration) error {
	if d < 0 || d > maxDelay {
		return fmt.Errorf("netem: pipe: Delay %v is not within 0..%v", d, maxDelay)
	}
	if d == 0 && !e.delayed.Load() {
		return nil
	}
	e.sched.change(func() {
		e.peer.toRx.delay = int64(max(d, 1))
		e.peer.toRx.cut = e.severed.Load()
	})
	e.delayed.Store(true)
	return nil
}

// Cut makes the cable lose all packets in the directions of d, as this end sees them. With a delay,
// Cut and Heal take effect when the instant is over: a packet is lost if the direction is cut when
// the packet is written, or when it would arrive. Without a delay they take effect at once, and
// packets that can be read already stay.
func (e *Link) Cut(d Direction) { e.sever(d, true) }

// Heal ends the effect of [Link.Cut] in the directions of d.
func (e *Link) Heal(d Direction) { e.sever(d, false) }

func (e *Link) sever(d Direction, cut bool) {
	for _, way := range []struct {
		Direction
		from *Link
	}{{Write, e}, {Read, e.peer}} {
		if d&way.Direction != 0 {
			way.from.severed.Store(cut)
			e.sched.change(func() { way.from.peer.toRx.cut = cut })
		}
	}
}

// Lost returns how many of the packets that this end has written were lost because of Cut.
func (e *Link) Lost() uint64 { return e.lost.Load() }

// refuse drops packets on their way to this end, and gives their places in the queue free.
func (e *Link) refuse(pkts []*packet) {
	e.peer.lost.Add(uint64(len(pkts)))
	if e.rx.release(len(pkts)) {
		go e.peer.callReady() // the scheduler is locked
	}
	freeAll(pkts)
}

// deliver puts packets that have travelled for the delay into the queue, where Write has reserved
// places for them.
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
