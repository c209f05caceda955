package netem

import (
	"net"
	"sync"
)

// queue holds the packets that have arrived, or are on their way to, the reader of a link.
type queue struct {
	mu     sync.Mutex
	filled sync.Cond
	ring   []*packet // grows up to limit
	head   int       // the first packet in ring
	n      int       // how many are in ring
	held   int       // how many the queue answers for: those in ring and those on their way
	limit  int       // the most that held may be
	cut    bool      // a put was cut short: whoever makes room says so
	closed bool
	err    error // what the reader gets after the last packet
}

func (q *queue) init(limit int) {
	q.filled.L = &q.mu
	q.limit = limit
}

// put takes packets, from the first on, while there is room, and returns how many. A nil packet is taken and leaves no
// trace. With arrived the reader finds them at once, otherwise their places are kept until arrive brings them. It
// reports whether the queue is closed, and has taken none then.
func (q *queue) put(pkts []*packet, arrived bool) (taken int, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return 0, true
	}
	for _, p := range pkts {
		if p != nil {
			if q.held == q.limit {
				q.cut = true
				break
			}
			q.held++
			if arrived {
				q.push(p)
			}
		}
		taken++
	}
	if q.n > 0 {
		q.filled.Signal()
	}
	return taken, false
}

// arrive brings packets to their places that put has kept. A closed queue drops them.
func (q *queue) arrive(pkts []*packet) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		freeAll(pkts)
		return
	}
	for _, p := range pkts {
		q.push(p)
	}
	q.filled.Signal()
}

// push puts a packet behind the others. q.mu is held.
func (q *queue) push(p *packet) {
	if q.n == len(q.ring) {
		ring := make([]*packet, min(max(2*q.n, 16), q.limit))
		copy(ring[copy(ring, q.ring[q.head:]):], q.ring[:q.head])
		q.ring, q.head = ring, 0
	}
	i := q.head + q.n
	if i >= len(q.ring) {
		i -= len(q.ring)
	}
	q.ring[i] = p
	q.n++
}

// pop takes the first packet out of the ring, which is not empty. q.mu is held.
func (q *queue) pop() *packet {
	p := q.ring[q.head]
	q.ring[q.head] = nil
	q.head++
	if q.head == len(q.ring) {
		q.head = 0
	}
	q.n--
	q.held--
	return p
}

// read waits for packets and copies them as bsdnet.Link says, but it returns without any if all those that it has taken were
// too large: the caller must act upon room before it waits again. room says that a put was cut short and that the queue
// is half empty again; not sooner, so that writer and reader move packets by the batch and not one by one in turn.
func (q *queue) read(bufs [][]byte, sizes []int) (n int, room bool, err error) {
	var batch [batchLen]*packet
	want := min(len(bufs), len(sizes), len(batch))
	q.mu.Lock()
	for q.n == 0 && q.err == nil {
		q.filled.Wait()
	}
	if q.n == 0 {
		err = q.err
	}
	k := 0
	for ; k < want && q.n > 0; k++ {
		batch[k] = q.pop()
	}
	if q.cut && q.held <= q.limit/2 {
		q.cut = false
		room = true
	}
	q.mu.Unlock()
	// The bytes are copied without the lock, so that the writers go on meanwhile.
	for _, p := range batch[:k] {
		if len(p.data) <= len(bufs[n]) {
			sizes[n] = copy(bufs[n], p.data)
			n++
		}
		p.free()
	}
	return n, room, err
}

// fail ends read with err after the packets that are there.
func (q *queue) fail(err error) {
	q.mu.Lock()
	if q.err == nil {
		q.err = err
	}
	q.mu.Unlock()
	q.filled.Broadcast()
}

// close drops the packets that are there and those to come, ends read with net.ErrClosed, and reports whether a put was
// cut short that nobody has been told of.
func (q *queue) close() (cut bool) {
	q.mu.Lock()
	for q.n > 0 {
		q.pop().free()
	}
	q.ring = nil
	q.closed = true
	q.err = net.ErrClosed
	cut, q.cut = q.cut, false
	q.mu.Unlock()
	q.filled.Broadcast()
	return cut
}
