package kern

import "bsdnet/internal/kern/wire"

// The loopback never loses a packet. So a SYN over the loopback reserves a place on so_q, and if
// there is none, it is parked until soaccept makes room.

// maxParked is how many SYNs are parked at one listener, at most.
const maxParked = 1 << 16

// A parkedSyn is a SYN over the loopback that waits for a place.
type parkedSyn struct{ in tcpIn }

// park lets a SYN over the loopback wait for a place, behind those that came before it. The
// listener is locked.
func (head *Socket) park(in *tcpIn) {
	p := parkedSyn{in: *in}
	p.in.m, p.in.len = nil, 0 // the peer sends data in a SYN again
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

// unpark begins the handshakes of as many parked SYNs as there are places now. The listener is
// locked.
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

// solistenclose empties the queues of a listener that closes, and returns the connections that no
// user has accepted. The caller aborts them once it has left the lock. Handshakes over the loopback
// are refused at once. The final ACK of any other handshake will draw a reset.
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
