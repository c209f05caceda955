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

// tcpInput takes a segment from IP: 4.4BSD's tcp_input up to the state machine. It verifies the
// checksum, finds the control block and takes its lock; tcp.(*TCB).Input does the rest. tcpInput
// takes over the chain.
func tcpInput(k *Kernel, ip ipHdr, m *mbuf.Mbuf, ifp *Ifnet) {
	var in tcpIn
	if !k.tcpParse(&in, &ip, m, ifp) {
		return
	}
	for {
		inp := k.inPcblookup(&in.t, in.ifp)
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
		// Another goroutine has ended what the table held while this one waited for its lock, so it
		// looks again: a listener may have the segment now.
	}
}

// tcpParse verifies the segment and reads its header. If the packet is no valid segment, or was
// sent to more than one host, tcpParse frees the chain and reports false.
func (k *Kernel) tcpParse(in *tcpIn, ip *ipHdr, m *mbuf.Mbuf, ifp *Ifnet) bool {
	st := &k.Stats.TCP
	st.Rcvtotal.Inc()
	n := ip.len - ip.hlen
	pkt := m.Pkt
	// RFC 9293, 3.1, MUST-3: "the receiver MUST check it". Segments over the loopback have no
	// checksum, and gro, or the link, may have verified others already.
	if pkt.Csum&(mbuf.CsumValid|mbuf.CsumVerified) == 0 {
		sum := wire.PseudoSum(ip.src, ip.dst, wire.ProtoTCP, n)
		if wire.Fold(sumChain(m, ip.hlen, n, sum)) != 0xffff {
			st.Rcvbadsum.Inc()
			mbuf.Free(m)
			return false
		}
	}
	var hb [wire.TCPMaxLen]byte
	h := m.Bytes()
	if len(h) > ip.hlen {
		h = h[ip.hlen:]
	} else {
		h = nil
	}
	// If the header may reach beyond the first Mbuf, it is copied.
	if len(h) < wire.TCPMaxLen && n > len(h) {
		h = hb[:mbuf.Copydata(m, ip.hlen, hb[:min(n, len(hb))])]
	} else if len(h) > n {
		h = h[:n]
	}
	// RFC 9293, 3.1, MUST-7: "TCP implementations MUST be prepared to handle an illegal option
	// length". ParseTCP passes over such options; it refuses a header that is longer than the
	// packet.
	if err := wire.ParseTCP(h, &in.th); err != nil || in.th.Hlen > n {
		st.Rcvbadoff.Inc()
		mbuf.Free(m)
		return false
	}
	in.t = tuple{laddr: in6(ip.dst), faddr: in6(ip.src), lport: in.th.Dport, fport: in.th.Sport}
	in.len = n - in.th.Hlen
	in.m = mbuf.Adj(m, ip.hlen+in.th.Hlen)
	// Congestion control counts segments, so a chain that a link, gro or the loopback has left
	// whole counts as what it was on the wire, or would have been.
	in.segs = 1
	if pkt.SegSize > 0 && in.len > pkt.SegSize {
		in.segs = (in.len + pkt.SegSize - 1) / pkt.SegSize
		in.size = pkt.SegSize
	}
	in.ifp, in.tos = ifp, ip.tos
	in.arrived, in.now = pkt.Arrived, pkt.Arrived
	if ip.dst.IsMulticast() || ifp.broadcast(ip.dst) {
		// RFC 9293, 3.9.2.3, MUST-57: "A TCP implementation MUST silently discard an incoming SYN
		// segment that is addressed to a broadcast or multicast address". Other segments have no
		// use there either: a connection has two ends, and an answer to each copy would multiply a
		// forged packet.
		mbuf.Free(in.m)
		return false
	}
	return true
}

// noPort answers a segment to a port that no socket has, or to which a socket is only bound. Both
// are the state CLOSED: RFC 9293, 3.10.7.1: "An incoming segment containing a RST is discarded. An
// incoming segment not containing a RST causes a RST to be sent in response." If a socket is bound
// to the port, the answer bears its TOS and TTL.
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

// tcpSocketInput gives the segment to its socket's machine. It reports false if the socket has died
// since the table was read; then the segment may be for another.
func (k *Kernel) tcpSocketInput(inp *inpcb, in *tcpIn) bool {
	so := inp.so
	so.lock()
	if so.dead || inp.dead {
		so.unlock()
		return false
	}
	// RFC 3168, 5: the codepoint 11 is CE, which a router sets to mark congestion. The machine
	// echoes the mark, if ECN has been agreed.
	if in.tos&3 == 3 {
		so.tp.CongestionExperienced()
	}
	// A stack that is short of memory refuses the data of a socket that does not read, and takes
	// the rest of the segment: its acknowledgment, or a reset, may free memory. The FIN lies behind
	// the data, and PUSH belongs to it, so both go with the data; the peer sends them again.
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

// tcpListenInput processes a segment for a socket that listens, or is only bound: the LISTEN part
// of FreeBSD's tcp_input, and RFC 9293, 3.10.7.2. The half-open connections of a listener, in state
// SYN_RECEIVED, are entries of the syncache, so their segments come here too. It takes over the
// payload and reports true, or reports false if the segment must be looked up again.
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
	// The socket is bound, in state CLOSED: "An incoming segment not containing a RST causes a RST
	// to be sent in response" (3.10.7.1).
	case head.options&SO_ACCEPTCONN == 0:
		reset = true
	// "Any acknowledgment is bad if it arrives on a connection still in the LISTEN state"
	// (3.10.7.2, second). An acknowledgment that is good belongs to a half-open connection, or
	// brings a cookie back; syncacheExpand finds out.
	case th.Flags&(wire.RST|wire.ACK|wire.SYN) == wire.ACK:
		if k.syncache.headOf(&in.t) == nil && k.inPcblookup(&in.t, in.ifp) != &head.inp {
			// While this goroutine waited for the listener, another queue brought a segment that
			// completed the handshake. This one is for the connection.
			head.unlock()
			return false
		}
		child, reset = k.syncacheExpand(head, in)
	// "An incoming RST should be ignored" (3.10.7.2, first), unless it is for a half-open
	// connection.
	case th.Flags&wire.RST != 0:
		k.syncacheChkrst(head, in)
	case th.Flags&wire.SYN == 0, th.Flags&wire.ACK != 0:
		// "Any other control or data-bearing segment (not containing SYN) must have an ACK and thus
		// would have been discarded by the ACK processing in the second step" (3.10.7.2, fourth),
		// so one without either flag is dropped. A SYN,ACK, which can answer no SYN of a
		// listener's, is dropped too, not reset: it may be the answer of a third host to a SYN that
		// an attacker has sent in our name, and the listener has no state that a reset would
		// repair.
		k.Stats.TCP.Badsyn.Inc()
	// The profile drops a SYN with a FIN, as net.inet.tcp.drop_synfin says: scanners send it to
	// find out which system answers.
	case th.Flags&wire.FIN != 0 && k.prof.DropSynFin:
		k.Stats.TCP.Badsyn.Inc()
	default:
		// A SYN: "RCV.NXT is set to SEG.SEQ+1, IRS is set to SEG.SEQ, and any other control or text
		// should be queued for processing later" (3.10.7.2, third). The text is not queued, as a
		// flood of SYNs with data would fill the memory. Nothing acknowledges it, so the peer sends
		// it again.
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
	head.firstInput(child, in)
	return true
}

// firstInput gives a new connection its first segment, the acknowledgment that completes the
// handshake and may carry data: RFC 9293, 3.10.7.4, fifth: "If SND.UNA < SEG.ACK =< SND.NXT, then
// enter ESTABLISHED state". The listener stays locked meanwhile, as soisconnected puts the
// connection on its queue. Both locks are left before packets are sent.
func (so *Socket) firstInput(child *Socket, in *tcpIn) {
	if child.tp.Input(&in.th, in.payload(), in.arrived, in.now) {
		child.drain(so.k.dropwithreset(in, child.inp.tos, child.inp.ttl))
	}
	ce := child.leave()
	he := so.leave()
	he.do()
	ce.do()
}
