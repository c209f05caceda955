package mbuf

// A Queue is a list of packets, each a chain whose first Mbuf holds the packet header: BSD's struct
// ifqueue, or the records of a struct sockbuf. The owner's lock guards it.
type Queue struct {
	head, tail *Mbuf
}

// Empty reports whether the queue has no packet.
func (q *Queue) Empty() bool { return q.head == nil }

// Head returns the first packet, or nil.
func (q *Queue) Head() *Mbuf { return q.head }

// Put adds a packet at the end.
func (q *Queue) Put(m *Mbuf) {
	if q.tail == nil {
		q.head = m
	} else {
		q.tail.pkt = m
	}
	q.tail = m
}

// Get takes the first packet off. It returns nil if there is none.
func (q *Queue) Get() *Mbuf {
	m := q.head
	if m == nil {
		return nil
	}
	if q.head = m.pkt; q.head == nil {
		q.tail = nil
	}
	m.pkt = nil
	return m
}

// Flush frees all packets.
func (q *Queue) Flush() {
	for m := q.Get(); m != nil; m = q.Get() {
		Free(m)
	}
}

// Charge returns the bytes of memory that a packet keeps from being used again: those of its
// clusters, and the Mbufs.
func Charge(m *Mbuf) int {
	n := 0
	for ; m != nil; m = m.next {
		n += int(overhead)
		if m.cl != nil {
			n += len(m.cl.buf)
		}
	}
	return n
}
