package netem

import (
	"net"
	"sync"
)

// queue holds the packets that have arrived at the reader of a link, and counts those that are on
// their way to it.
type queue struct {
	mu     sync.Mutex
	filled sync.Cond
	ring   []*packet // grows up to limit
	head   int       // the first packet in ring
	n      int       // how many are in ring
	held   int       // how many places are taken, by packets in ring and packets on their way
	limit  int       // the maximum of held
	cut    bool      // a put has taken less than it was given: the writer waits to hear of room
	closed bool
	err    error // what read returns after the last packet
}

func (q *queue) init(limit int) {
	q.filled.L = &q.mu
	q.limit = limit
}

// put takes packets from the front of pkts while there is room, and returns how many it has taken.
// It takes a nil packet and ignores it. If arrived is true, the reader gets the packets at once;
// otherwise put reserves their places until arrive brings them. If the queue is closed, put takes
// none and returns closed = true.
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

// arrive puts packets into the places that put has reserved for them. A closed queue drops them.
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

// release gives n places free that put has reserved. It returns what read returns as room.
func (q *queue) release(n int) (room bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	q.held -= n
	room = q.cut && q.held <= q.limit/2
	q.cut = q.cut && !room
	return room
}

// push appends a packet to the ring. q.mu is held.
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

// read waits for packets and copies them as bsdnet.Link says, with one difference: if all packets
// that it has taken were too large, it returns no packet and no error, because the caller must act
// on room before it waits again. room reports that a put was cut short and that the queue is half
// empty again. The writer does not hear of room sooner, so that writer and reader move packets in
// batches and not one by one.
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
	// The bytes are copied without the lock, so that writers can go on meanwhile.
	for _, p := range batch[:k] {
		if len(p.data) <= len(bufs[n]) {
			sizes[n] = copy(bufs[n], p.data)
			n++
		}
		p.free()
	}
	return n, room, err
}

// fail makes read return err after the packets that are in the queue.
func (q *queue) fail(err error) {
	q.mu.Lock()
	if q.err == nil {
		q.err = err
	}
	q.mu.Unlock()
	q.filled.Broadcast()
}

// close drops the packets in the queue and those to come, and makes read return net.ErrClosed. It
// reports whether a put was cut short and its writer has not heard of room since.
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
