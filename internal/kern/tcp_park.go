package kern

import "bsdnet/internal/kern/wire"

// Over the loopback nothing is ever lost: there a SYN reserves its place on so_q, and one that
// finds none is parked until soaccept makes room.

// maxParked is how many SYNs are parked at one listener, at most.
const maxParked = 1 << 16

// A parkedSyn is a SYN over the loopback that waits for a place.
type parkedSyn struct{ in tcpIn }

// park lets a SYN over the loopback wait for a place, first come first served. The listener is
// locked.
func (head *Socket) park(in *tcpIn) {
	p := parkedSyn{in: *in}
	p.in.m, p.in.len = nil, 0 // data in a SYN is sent again
	for i := range head.lq.parked {
		if head.lq.parked[i].in.t == in.t {
			head.lq.parked[i] = p // the same SYN again, or a later one of the same port
			return
		}
	}
	if len(head.lq.parked) >= maxParked {
		head.k.Stats.TCP.Listendrop.Inc()
		return
	}
	head.lq.parked = append(head.lq.parked, p)
}

// unpark lets in as many parked SYNs as there are places now. The listener is locked.
func (head *Socket) unpark() {
	lq := head.lq
	if lq == nil {
		return
	}
	for len(lq.parked) > 0 && !lq.full() && head.options&SO_ACCEPTCONN != 0 && !head.dead && !head.k.pressed() {
		p := lq.parked[0]
		lq.parked = lq.parked[1:]
		if len(lq.parked) == 0 {
			lq.parked = nil
		}
		p.in.now = head.k.now()
		head.k.syncacheBegin(head, &p.in)
	}
}

// solistenclose empties the queues of a listener that closes, and returns the connections that
// nobody has accepted, which the caller aborts once the lock is left. Handshakes over the loopback
// are refused at once; others meet a reset when they go on.
func (head *Socket) solistenclose() (orphans []*Socket) {
	k := head.k
	for i := range head.lq.parked {
		head.drain(k.dropwithreset(&head.lq.parked[i].in, 0, 0))
	}
	for _, e := range k.syncache.drop(head) {
		if e.ifp.loopback {
			r := respondTo{t: e.t, seq: e.s.Iss + 1, ack: e.s.Irs + 1, flags: wire.RST | wire.ACK}
			head.drain(k.tcpRespond(&r))
		}
		e.free()
	}
	orphans = head.lq.q
	head.lq.q, head.lq.parked = nil, nil
	return orphans
}
