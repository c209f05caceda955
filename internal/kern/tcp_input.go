package kern

import (
	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
)

// A tcpIn is a segment on its way in.
type tcpIn struct {
	t       tuple // our side is laddr
	th      wire.TCP
	m       *mbuf.Mbuf // payload
	len     int
	segs    int // segments on the wire
	size    int // payload of each
	ifp     *Ifnet
	tos     uint8
	arrived int64
	now     int64
}

// payload returns the segment's payload, as the machine takes it.
func (in *tcpIn) payload() tcp.Payload {
	return tcp.Payload{M: in.m, Len: in.len, Segs: in.segs, Size: in.size}
}

// tcpInput takes a segment from IP: 4.4BSD's tcp_input up to the state machine: checksum, the
// control block, its lock; the rest is tcp.(*TCB).Input. It takes over the chain.
func tcpInput(k *Kernel, ip wire.IPv4, m *mbuf.Mbuf, ifp *Ifnet) {
	var in tcpIn
	if !k.tcpParse(&in, &ip, m, ifp) {
		return
	}
	for {
		inp := k.inPcblookup(&in.t)
		switch {
		case inp == nil:
			k.noPort(&in)
			return
		case inp.faddr == in6Addr{}: // a listener
			if k.tcpListenInput(inp.so, &in) {
				return
			}
		case inp.so == nil:
			if !k.tcpTwcheck(inp.tw, &in) {
				return
			}
		default:
			if k.tcpSocketInput(inp, &in) {
				return
			}
		}
		// What was found has gone meanwhile: look again.
	}
}

// tcpParse verifies the segment and reads its header. It reports false, the chain freed, for what
// is not one.
func (k *Kernel) tcpParse(in *tcpIn, ip *wire.IPv4, m *mbuf.Mbuf, ifp *Ifnet) bool {
	st := &k.Stats.TCP
	st.Rcvtotal.Inc()
	n := ip.Len - ip.Hlen
	pkt := m.Pkt
	if pkt.Csum&(mbuf.CsumValid|mbuf.CsumVerified) == 0 && wire.Fold(sumChain(m, ip.Hlen, n, wire.PseudoSum(ip.Src, ip.Dst, wire.ProtoTCP, n))) != 0xffff {
		st.Rcvbadsum.Inc()
		mbuf.Free(m)
		return false
	}
	var hb [wire.TCPMaxLen]byte
	h := m.Bytes()
	if len(h) > ip.Hlen {
		h = h[ip.Hlen:]
	} else {
		h = nil
	}
	if len(h) < wire.TCPMaxLen && n > len(h) { // not contiguous
		h = hb[:mbuf.Copydata(m, ip.Hlen, hb[:min(n, len(hb))])]
	} else if len(h) > n {
		h = h[:n]
	}
	if err := wire.ParseTCP(h, &in.th); err != nil || in.th.Hlen > n {
		st.Rcvbadoff.Inc()
		mbuf.Free(m)
		return false
	}
	in.t = tuple{laddr: in6(ip.Dst), faddr: in6(ip.Src), lport: in.th.Dport, fport: in.th.Sport}
	in.len = n - in.th.Hlen
	in.m = mbuf.Adj(m, ip.Hlen+in.th.Hlen)
	in.segs = 1
	if pkt.SegSize > 0 && in.len > pkt.SegSize {
		in.segs = (in.len + pkt.SegSize - 1) / pkt.SegSize
		in.size = pkt.SegSize
	}
	in.ifp, in.tos = ifp, ip.TOS
	in.arrived, in.now = pkt.Arrived, pkt.Arrived
	if ip.Dst.IsMulticast() || ifp.broadcast(ip.Dst) {
		// RFC 9293, 3.9.2.3, MUST-57: "A TCP implementation MUST silently discard an incoming SYN
		// segment that is addressed to a broadcast or multicast address", and so whatever else is.
		mbuf.Free(in.m)
		return false
	}
	return true
}

// noPort answers a segment to a port that no socket has, or that is merely bound: the state CLOSED.
// The answer of the latter bears its socket's TOS and TTL.
func (k *Kernel) noPort(in *tcpIn) {
	mbuf.Free(in.m)
	k.Stats.TCP.Noport.Inc()
	var tos, ttl uint8
	if so := k.ports.boundTo(in.t.laddr, in.t.lport); so != nil {
		so.lock()
		tos, ttl = so.inp.tos, so.inp.ttl
		so.mu.Unlock()
	}
	if q := k.dropwithreset(in, tos, ttl); q != nil {
		q.start()
	}
}

// tcpSocketInput gives the segment to its socket's machine. It reports false if the socket was
// found dead.
func (k *Kernel) tcpSocketInput(inp *inpcb, in *tcpIn) bool {
	so := inp.so
	so.lock()
	if so.dead || inp.dead {
		so.unlock()
		return false
	}
	if in.tos&3 == 3 {
		so.tp.CongestionExperienced()
	}
	refused := !so.affords(&in.th, in.len)
	if refused {
		k.Stats.TCP.Rcvmemdrop.Inc()
		mbuf.Free(in.m)
		in.m, in.len = nil, 0
		in.th.Flags &^= wire.FIN | wire.PUSH
	}
	p := in.payload()
	p.Refused = refused
	if so.tp.Input(&in.th, p, in.arrived, in.now) {
		so.drain(k.dropwithreset(in, inp.tos, inp.ttl))
	}
	so.unlock()
	if refused {
		k.tcpDrain()
	}
	return true
}

// tcpListenInput deals with a segment for a listening, or merely bound, socket: the LISTEN part of
// FreeBSD's tcp_input. It reports false where the socket was found gone. It takes over the payload
// otherwise.
func (k *Kernel) tcpListenInput(head *Socket, in *tcpIn) bool {
	if in.th.Flags&wire.SYN != 0 && k.pressed() {
		k.tcpDrain()
	}
	head.lock()
	if head.dead {
		head.unlock()
		return false
	}
	var child *Socket
	reset := false
	th := &in.th
	switch {
	case head.options&SO_ACCEPTCONN == 0: // bound, in state CLOSED
		reset = true
	case th.Flags&(wire.RST|wire.ACK|wire.SYN) == wire.ACK:
		if k.syncache.headOf(&in.t) == nil && k.inPcblookup(&in.t) != &head.inp {
			head.unlock() // another queue has brought a segment that completed the handshake, while this one waited for the listener
			return false
		}
		child, reset = k.syncacheExpand(head, in)
	case th.Flags&wire.RST != 0:
		k.syncacheChkrst(head, in)
	case th.Flags&wire.SYN == 0, th.Flags&wire.ACK != 0:
		k.Stats.TCP.Badsyn.Inc() // without a SYN nothing can begin; and a SYN,ACK answers nothing here
	case th.Flags&wire.FIN != 0 && k.prof.DropSynFin:
		k.Stats.TCP.Badsyn.Inc()
	default:
		k.syncacheAdd(head, in)
	}
	if child == nil {
		if reset {
			head.drain(k.dropwithreset(in, head.inp.tos, head.inp.ttl))
		}
		mbuf.Free(in.m)
		head.unlock()
		return true
	}
	// The acknowledgment that completes the handshake is the new connection's first segment. The
	// listener stays locked: soisconnected puts the connection on its queue.
	if child.tp.Input(th, in.payload(), in.arrived, in.now) {
		child.drain(k.dropwithreset(in, child.inp.tos, child.inp.ttl))
	}
	ce := child.leave()
	he := head.leave()
	he.do()
	ce.do()
	return true
}
