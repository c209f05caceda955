package kern

import (
	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
)

// An ifqueue is an interface's output queue, BSD's if_snd, or for the loopback its input queue,
// ipintrq. Packets are put on it under their socket's lock, so they keep the connection's order.
// The goroutine that finds the queue idle drains it, without that lock.
type ifqueue struct {
	ifp *Ifnet
	i   int // its index in the interface's queues

	mu       sync.Mutex // a leaf
	ring     []qent
	head, n  int
	bytes    int
	draining bool // a goroutine drains it
	oactive  bool // the link is full: IFF_OACTIVE

	waiting []*Socket // datagram sockets that wait for room

	forwarded atomic.Bool // ipForward has put packets on it: see ipForwardStart

	packets, sent uint64 // how many packets, and bytes, have been taken from the queue, for the loopback's counters

	batch [txBatch]qent // the drainer's current entries; not on its stack, which would have to grow in a new goroutine
	tx    txState       // the drainer's
}

// A qent is a packet and the socket that is charged for it.
type qent struct {
	m      *mbuf.Mbuf
	so     *Socket
	n      int
	tapped bool // a capture has seen it
}

// Bounds of a device's queue. A connection stops at its share. The rest of the queue is for
// segments that cannot wait.
const (
	ifqMaxPackets = 4096
	ifqMaxBytes   = 16 << 20
	txShare       = 256 << 10 // bytes that one connection may have pending
)

func (q *ifqueue) init(ifp *Ifnet, i int) { q.ifp, q.i = ifp, i }

// enqueue puts m at the end. If the queue is full, it frees m and returns ENOBUFS; if the interface
// is down, ENETDOWN. so may be nil.
func (q *ifqueue) enqueue(m *mbuf.Mbuf, so *Socket) syscall.Errno {
	n := m.Pkt.Len
	q.mu.Lock()
	if q.ifp.link != nil && (q.n >= ifqMaxPackets || q.bytes >= ifqMaxBytes) || q.ifp.down.Load() {
		q.mu.Unlock()
		q.ifp.Stats.Odrops.Add(1)
		mbuf.Free(m)
		if q.ifp.down.Load() {
			return syscall.ENETDOWN
		}
		return syscall.ENOBUFS
	}
	if old := q.superseded(m, so); old != nil {
		q.mu.Unlock()
		mbuf.Free(old)
		return 0
	}
	if q.n == len(q.ring) {
		q.grow()
	}
	q.ring[(q.head+q.n)&(len(q.ring)-1)] = qent{m: m, so: so, n: n}
	q.n++
	q.bytes += n
	q.mu.Unlock()
	if so != nil {
		so.txPending.Add(int32(n))
	}
	return 0
}

// room reports whether enqueue would take another packet. If not, so is woken when half of the
// queue has drained, or the interface is detached.
func (q *ifqueue) room(so *Socket) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.n < ifqMaxPackets && q.bytes < ifqMaxBytes || q.ifp.down.Load() {
		return true
	}
	if !slices.Contains(q.waiting, so) {
		q.waiting = append(q.waiting, so)
	}
	return false
}

// sowwakeupAll wakes the writers of sockets that have waited for room on a queue. The caller holds
// no lock.
func sowwakeupAll(list []*Socket) {
	for _, so := range list {
		so.lock()
		so.sowakeup(&so.snd.sleepers)
		so.unlock()
	}
}

// superseded puts an acknowledgment in the place of the last packet, and returns that, if that is
// an older acknowledgment of the same connection and of the same length. Acknowledgments are
// cumulative (RFC 9293, MUST-58), and each costs a kernel behind a TUN device as much as a segment.
// The lock is held.
func (q *ifqueue) superseded(m *mbuf.Mbuf, so *Socket) *mbuf.Mbuf {
	if !m.Pkt.Ack || q.n == 0 || q.ifp.link == nil {
		return nil
	}
	last := &q.ring[(q.head+q.n-1)&(len(q.ring)-1)]
	if last.so != so || !last.m.Pkt.Ack || last.n != m.Pkt.Len || last.tapped {
		return nil
	}
	old := last.m
	last.m = m
	return old
}

func (q *ifqueue) grow() {
	ring := make([]qent, max(2*len(q.ring), 8))
	for i := range q.n {
		ring[i] = q.ring[(q.head+i)&(len(q.ring)-1)]
	}
	q.ring, q.head = ring, 0
}

// txBatch is how many entries of the queue a drainer takes at once. After drainBudget entries,
// which other goroutines may have put there, it hands the queue over to a goroutine of the stack's.
const (
	txBatch     = 16
	drainBudget = 256
)

// start drains the queue, unless another goroutine is draining it: BSD's if_start, or splx and
// ipintr. The caller holds no lock.
func (q *ifqueue) start() { q.drain(drainBudget, true) }

func (q *ifqueue) drain(budget int, fresh bool) {
	q.mu.Lock()
	if q.draining || q.n == 0 || q.oactive {
		q.mu.Unlock()
		return
	}
	q.draining = true
	q.runLocked(budget, fresh)
}

// hold makes the caller the drainer, and reports true, if there is no drainer. Packets that are
// enqueued then wait until it calls run, so that a batch of segments is answered as a whole, in few
// packets.
func (q *ifqueue) hold() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.draining {
		return false
	}
	q.draining = true
	return true
}

// run drains as the drainer, until the queue is empty, the link is full or the budget is spent.
func (q *ifqueue) run(budget int) {
	q.mu.Lock()
	q.runLocked(budget, false)
}

// runLocked is run with the lock held; it unlocks. fresh says that the caller has just put a packet
// on the queue.
func (q *ifqueue) runLocked(budget int, fresh bool) {
	batch := q.batch[:]
	for {
		n := 0
		if !q.oactive && budget > 0 {
			before := q.bytes
			n = q.take(batch)
			q.packets += uint64(n)
			q.sent += uint64(before - q.bytes)
		}
		if n == 0 {
			q.draining = false
			more := q.n > 0 && !q.oactive
			if len(q.ring) > 1024 && q.n == 0 {
				q.ring = nil
			}
			q.mu.Unlock()
			if more { // the budget is spent
				q.background()
			}
			return
		}
		var woken []*Socket
		if q.waiting != nil && q.n <= ifqMaxPackets/2 && q.bytes <= ifqMaxBytes/2 {
			woken, q.waiting = q.waiting, nil
		}
		q.mu.Unlock()
		sowwakeupAll(woken)
		if q.ifp.link == nil {
			for i := range n {
				e := batch[i]
				batch[i] = qent{}
				q.ifp.looptransmit(e.m, fresh)
				e.so.txDone(e.n) // afterwards: a datagram that takes the short way must not overtake it
			}
		} else {
			q.transmit(batch[:n])
		}
		budget -= n
		fresh = false
		q.mu.Lock()
	}
}

// take moves entries from the queue. The lock is held.
func (q *ifqueue) take(batch []qent) int {
	n := min(q.n, len(batch))
	for i := range n {
		e := &q.ring[q.head]
		batch[i] = *e
		*e = qent{}
		q.head = (q.head + 1) & (len(q.ring) - 1)
		q.bytes -= batch[i].n
	}
	q.n -= n
	return n
}

// unget puts entries that the link has not taken back at the front of the queue. If the interface
// has been detached meanwhile, it frees them, as no drainer will take them.
func (q *ifqueue) unget(batch []qent) {
	q.mu.Lock()
	if q.ifp.down.Load() {
		q.mu.Unlock()
		for i := range batch {
			batch[i].lose()
		}
		return
	}
	defer q.mu.Unlock()
	for q.n+len(batch) > len(q.ring) {
		q.grow()
	}
	for i := len(batch) - 1; i >= 0; i-- {
		q.head = (q.head - 1) & (len(q.ring) - 1)
		q.ring[q.head] = batch[i]
		q.bytes += batch[i].n
	}
	q.n += len(batch)
}

// background drains the queue on a goroutine of its own, which ends when the queue is empty: BSD's
// netisr.
func (q *ifqueue) background() {
	q.ifp.k.goWorker(func() { q.drain(1<<30, false) })
}

// purge frees the entries that are left.
func (q *ifqueue) purge() {
	q.mu.Lock()
	left := make([]qent, q.n)
	q.take(left)
	q.ring = nil
	woken := q.waiting
	q.waiting = nil
	q.mu.Unlock()
	sowwakeupAll(woken)
	for i := range left {
		left[i].lose()
	}
}

// lose frees a packet that will not be sent. The caller holds no lock.
func (e *qent) lose() {
	mbuf.Free(e.m)
	e.so.txDone(e.n)
}

// txState is the memory that the drainer of a device's queue uses again and again.
type txState struct {
	pkts   []net.Buffers
	arena  net.Buffers // the slices of pkts
	hbuf   []byte
	owners []int // index of the batch entry of each packet
}

// txPackets is how many packets go to a link at once, or a few more, if as many wait.
const txPackets = 64

// transmit hands a batch to the link. Packets that the link does not take go back to the front of
// the queue.
func (q *ifqueue) transmit(batch []qent) {
	for i := 0; i < len(batch); {
		n, ok := q.transmitSome(batch[i:])
		for range n {
			e := batch[i]
			batch[i] = qent{}
			mbuf.Free(e.m)
			e.so.txDone(e.n)
			i++
		}
		if !ok {
			q.unget(batch[i:])
			clear(batch[i:])
			return
		}
	}
}

// transmitSome sends the first entries, about txPackets packets. It returns how many entries are
// done, and whether the link has taken all that it was given. If the link has taken only some
// packets of an entry, transmitSome removes them from the entry.
func (q *ifqueue) transmitSome(batch []qent) (done int, ok bool) {
	t := &q.tx
	t.pkts, t.arena, t.hbuf, t.owners = t.pkts[:0], t.arena[:0], t.hbuf[:0], t.owners[:0]
	for i := range batch {
		if len(t.pkts) >= txPackets {
			break
		}
		m := batch[i].m
		if !batch[i].tapped { // an entry that the link has refused comes here again
			q.ifp.bpfMtap(m)
			batch[i].tapped = true
		}
		var c cutter
		for c.start(m, q.ifp.vnet, q.ifp.uso); c.more(); {
			a0 := len(t.arena)
			t.hbuf, t.arena = c.next(t.hbuf, t.arena)
			t.pkts = append(t.pkts, t.arena[a0:len(t.arena):len(t.arena)])
			t.owners = append(t.owners, i)
		}
		done++
	}
	sent := q.write(t.pkts)
	if sent == len(t.pkts) {
		return done, true
	}
	// The entries before the one that holds the first packet not taken are done. That one loses the
	// segments that have gone.
	i := t.owners[sent]
	gone := 0
	for k := sent - 1; k >= 0 && t.owners[k] == i; k-- {
		gone++
	}
	if gone > 0 {
		var c cutter
		c.start(batch[i].m, q.ifp.vnet, q.ifp.uso)
		batch[i].m = dropSegments(batch[i].m, gone*c.seg)
	}
	return i, false
}

// write gives packets to the link and returns how many it has taken or lost.
func (q *ifqueue) write(pkts []net.Buffers) int {
	ifp := q.ifp
	noted := false
	setOactive := func(on bool) {
		q.mu.Lock()
		q.oactive = on
		q.mu.Unlock()
	}
	for sent := 0; sent < len(pkts); {
		if ifp.down.Load() {
			ifp.Stats.Odrops.Add(uint64(len(pkts) - sent))
			return len(pkts)
		}
		n, err := q.linkWrite(pkts[sent:])
		ifp.countOut(pkts[sent : sent+n])
		sent += n
		switch {
		case err != nil:
			ifp.Stats.Oerrors.Add(uint64(len(pkts) - sent))
			return len(pkts) // the packets are lost, as on a broken cable
		case n > 0 && noted:
			noted = false
			setOactive(false)
		case n == 0 && noted:
			return sent
		case n == 0:
			// The link is full. It may have called ready already, before oactive was set, so set
			// that, and ask once more.
			noted = true
			setOactive(true)
		}
	}
	return len(pkts)
}

// countOut counts packets that a link has taken.
func (ifp *Ifnet) countOut(pkts []net.Buffers) {
	bytes := 0
	for _, p := range pkts {
		for _, b := range p {
			bytes += len(b)
		}
	}
	if ifp.vnet {
		bytes -= wire.VnetLen * len(pkts)
	}
	ifp.Stats.Opackets.Add(uint64(len(pkts)))
	ifp.Stats.Obytes.Add(uint64(bytes))
}

// linkWrite writes packets to the link, or to the link's queue of the same index. A link that
// breaks the contract is broken, as in linkRead.
func (q *ifqueue) linkWrite(pkts []net.Buffers) (n int, err error) {
	call := "Write"
	if q.ifp.mq != nil {
		call = "WriteQueue"
		n, err = q.ifp.mq.WriteQueue(q.i, pkts)
	} else {
		n, err = q.ifp.link.Write(pkts)
	}
	if n < 0 || n > len(pkts) {
		what := fmt.Sprintf("%d of %d packets; it must return how many packets it has taken, not bytes", n, len(pkts))
		err = brokenContract(call, what, err)
		q.ifp.broken(err)
		return 0, err
	}
	return n, err
}
