package kern

import (
	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// udpInput takes a datagram from IP: 4.4BSD's udp_input. It verifies the lengths and the checksum,
// and puts the datagram on the queue of its socket, or of all that it is for. It takes over the
// chain.
func udpInput(k *Kernel, ip ipHdr, m *mbuf.Mbuf, ifp *Ifnet) {
	st := &k.Stats.UDP
	if m = k.udpVerify(&ip, m); m == nil {
		return
	}
	n := segments(ip.len-ip.hlen-wire.UDPLen, m.Pkt.SegSize)
	st.Ipackets.Add(n)
	uh := wire.UDPView(m.Bytes()[ip.hlen:])
	t := tuple{laddr: in6(ip.dst), faddr: in6(ip.src), lport: uh.Dport(), fport: uh.Sport()}
	if ip.dst.IsMulticast() || ifp.broadcast(ip.dst) {
		k.udpToAll(&ip, &t, m, ifp)
		return
	}
	for {
		inp := k.udpLookup(&t)
		if inp == nil {
			st.Noport.Add(n)
			// RFC 1122, 4.1.3.1: "If a datagram arrives addressed to a UDP port for which there is
			// no pending LISTEN call, UDP SHOULD send an ICMP Port Unreachable message."
			unmerged(m, ip.hlen)
			k.portUnreach(ifp, &ip, m)
			mbuf.Free(m)
			return
		}
		so := inp.so
		so.lock()
		if so.dead || !inp.isFor(&t) {
			so.unlock()
			continue // it has been closed, or has another peer, since the table was read
		}
		if !so.sbappendaddr(m, ip.hlen+wire.UDPLen, ifp) {
			st.Fullsock.Add(n)
		}
		so.unlock()
		return
	}
}

// isFor reports whether the socket takes datagrams to one host with these addresses. The socket is
// locked.
func (inp *inpcb) isFor(t *tuple) bool {
	if inp.fport != 0 {
		return inp.tuple == *t
	}
	return inp.lport == t.lport && inp.takes(&t.laddr)
}

// udpVerify checks a packet's lengths and its checksum, cuts off what follows the datagram, and
// makes the headers contiguous. If the datagram is not valid, it frees the chain and returns nil.
func (k *Kernel) udpVerify(ip *ipHdr, m *mbuf.Mbuf) *mbuf.Mbuf {
	st := &k.Stats.UDP
	n := ip.len - ip.hlen
	if n < wire.UDPLen {
		st.Hdrops.Inc()
		mbuf.Free(m)
		return nil
	}
	if len(m.Bytes()) < ip.hlen+wire.UDPLen {
		m = k.udpHeaders(ip, m)
	}
	m.Pkt.Len = ip.len
	if m.Pkt.Csum&mbuf.CsumValid != 0 {
		return m
	}
	uh := wire.UDPView(m.Bytes()[ip.hlen:])
	// RFC 768: "Length is the length in octets of this user datagram including this header and the
	// data. (This means the minimum value of the length is eight.)"
	ulen := uh.Len()
	if ulen < wire.UDPLen || ulen > n {
		st.Badlen.Inc()
		mbuf.Free(m)
		return nil
	}
	if ulen < n {
		m = mbuf.Adj(m, ulen-n)
		ip.len = ip.hlen + ulen
		m.Pkt.Len = ip.len
		m.Pkt.Csum = 0 // a link may have summed up what has been cut off
	}
	if m.Pkt.Csum&mbuf.CsumVerified != 0 {
		return m
	}
	if uh.Sum() == 0 {
		if !ip.is6() {
			// RFC 768: "An all zero transmitted checksum value means that the transmitter generated
			// no checksum".
			st.Nosum.Inc()
			return m
		}
		// RFC 8200, 8.1: "IPv6 receivers must discard UDP packets containing a zero checksum and
		// should log the error."
		st.Badsum.Inc()
		mbuf.Free(m)
		return nil
	}
	sum := wire.PseudoSum(ip.src, ip.dst, wire.ProtoUDP, ulen)
	if wire.Fold(sumChain(m, ip.hlen, ulen, sum)) != 0xffff {
		st.Badsum.Inc()
		mbuf.Free(m)
		return nil
	}
	return m
}

// udpHeaders returns the packet with both headers in its first Mbuf, without IP's options or
// extension headers, which no socket sees.
func (k *Kernel) udpHeaders(ip *ipHdr, m *mbuf.Mbuf) *mbuf.Mbuf {
	hlen := wire.IPv4MinLen
	h := k.pool.Gethdr()
	h.Pkt = m.Pkt
	if ip.is6() {
		hlen = wire.IPv6Len
	}
	b := h.Room()[:hlen+wire.UDPLen]
	mbuf.Copydata(m, 0, b[:hlen])
	if !ip.is6() {
		b[0] = 4<<4 | wire.IPv4MinLen/4
	}
	mbuf.Copydata(m, ip.hlen, b[hlen:])
	h.Extend(len(b))
	h.SetNext(mbuf.Adj(m, ip.hlen+wire.UDPLen))
	ip.len -= ip.hlen - hlen
	ip.hlen = hlen
	return h
}

// udpLookup finds the socket of a datagram to one host: BSD's in_pcblookup, with Linux's order of
// preference. A connected socket goes first, then one that is bound to the address, then one that
// is bound to none. Of several that are equal, and that all have SO_REUSEPORT, the flow decides;
// else the one that was bound last.
func (k *Kernel) udpLookup(t *tuple) *inpcb {
	if inp := k.udb.lookup(t); inp != nil {
		return inp
	}
	return k.udpPorts.lookup(t)
}

// lookup finds the socket without a peer that takes datagrams with these addresses.
func (pt *portTable) lookup(t *tuple) *inpcb {
	s := pt.shard(t.lport)
	s.mu.Lock()
	defer s.mu.Unlock()
	var best *inpcb
	score, group := 0, uint64(0)
	for p := s.users[t.lport]; p != nil; p = p.portNext {
		v := p.matches(t)
		switch {
		case v > score:
			best, score, group = p, v, 1
		case v == score && v > 0 && p.bindOpts&best.bindOpts&reusePort != 0:
			group++
		}
	}
	if group <= 1 {
		return best
	}
	// The flow chooses a member of the group, so that a conversation stays with one socket as long
	// as the group does not change.
	i := (t.hash(pt.k.seed.hash) >> 32) * group >> 32
	for p := s.users[t.lport]; p != nil; p = p.portNext {
		if p.matches(t) == score && p.bindOpts&reusePort != 0 {
			if i == 0 {
				return p
			}
			i--
		}
	}
	return best
}

// matches returns how well a socket without a peer matches a datagram: 0 if it does not take it.
// The lock of the port is held.
func (inp *inpcb) matches(t *tuple) int {
	switch {
	case inp.laddr == t.laddr:
		return 3
	case !inp.takes(&t.laddr):
		return 0
	case inp.families() != inpIPv4|inpIPv6: // one that takes only this family, as on Linux
		return 2
	}
	return 1
}

// udpToAll delivers a datagram to a multicast or broadcast address to each socket that wants it:
// RFC 1112, 7.2, and RFC 1122, 4.1.3.5.
func (k *Kernel) udpToAll(ip *ipHdr, t *tuple, m *mbuf.Mbuf, ifp *Ifnet) {
	if ifp.loopback && m.Pkt.Rcvif != 0 { // the copy that ip_mloopback has made
		if ifp = k.ifByIndex(m.Pkt.Rcvif); ifp == nil {
			mbuf.Free(m)
			return
		}
	}
	var few [16]*Socket
	list := k.udpPorts.members(few[:0], t)
	n := 0
	for _, so := range list {
		so.lock()
		if !so.dead && so.inp.wantsCopy(t) && so.wantsGroup(t, ifp) {
			n++
			if !so.sbappendaddr(mbuf.Copypkt(m), ip.hlen+wire.UDPLen, ifp) {
				k.Stats.UDP.Fullsock.Inc()
			}
		}
		so.unlock()
	}
	if n == 0 { // RFC 1122, 3.2.2: no ICMP error answers a datagram to several hosts
		k.Stats.UDP.Noport.Inc()
		k.Stats.UDP.Noportmcast.Inc()
	}
	mbuf.Free(m)
}

// wantsCopy reports whether a socket's addresses are those of a datagram to several hosts. The lock
// of the port, or the socket's, is held.
func (inp *inpcb) wantsCopy(t *tuple) bool {
	return inp.lport == t.lport && inp.takes(&t.laddr) &&
		(inp.fport == 0 || inp.fport == t.fport && inp.faddr == t.faddr)
}

// members appends to list the sockets whose addresses are those of a datagram to several hosts.
func (pt *portTable) members(list []*Socket, t *tuple) []*Socket {
	s := pt.shard(t.lport)
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := s.first(t.lport); p != nil; p = s.after(p) {
		if p.wantsCopy(t) {
			list = append(list, p.so)
		}
	}
	return list
}
