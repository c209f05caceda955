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
func (so *Socket) park(in *tcpIn) {
	p := parkedSyn{in: *in}
	p.in.m, p.in.len = nil, 0 // the peer sends data in a SYN again
	for i := range so.lq.parked {
		if so.lq.parked[i].in.t == in.t {
			so.lq.parked[i] = p // the same SYN again, or a later one of the same port
			return
		}
	}
	if len(so.lq.parked) >= maxParked {
		so.k.Stats.TCP.Listendrop.Inc()
		return
	}
	so.lq.parked = append(so.lq.parked, p)
}

// unpark begins the handshakes of as many parked SYNs as there are places now. The listener is
// locked.
func (so *Socket) unpark() {
	lq := so.lq
	if lq == nil {
		return
	}
	for len(lq.parked) > 0 && !lq.full() && so.options&SO_ACCEPTCONN != 0 && !so.dead && !so.k.pressed() {
		p := lq.parked[0]
		lq.parked = lq.parked[1:]
		if len(lq.parked) == 0 {
			lq.parked = nil
		}
		p.in.now = so.k.now()
		so.k.syncacheBegin(so, &p.in)
	}
}

// solistenclose empties the queues of a listener that closes, and returns the connections that no
// user has accepted. The caller aborts them once it has left the lock. Handshakes over the loopback
// are refused at once. The final ACK of any other handshake will draw a reset.
func (so *Socket) solistenclose() (orphans []*Socket) {
	k := so.k
	for i := range so.lq.parked {
		so.drain(k.dropwithreset(&so.lq.parked[i].in, 0, 0))
	}
	for _, e := range k.syncache.drop(so) {
		if e.ifp.loopback {
			r := respondTo{t: e.t, seq: e.s.Iss + 1, ack: e.s.Irs + 1, flags: wire.RST | wire.ACK}
			so.drain(k.tcpRespond(&r))
		}
		e.free()
	}
	orphans = so.lq.q
	so.lq.q, so.lq.parked = nil, nil
	return orphans
}
