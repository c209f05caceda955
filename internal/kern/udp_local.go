package kern

import (
	"encoding/binary"
	"net/netip"
	"runtime"
	"syscall"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// A datagram over the loopback goes from one socket's send to another's queue. The sender keeps the
// socket that it has found, as long as no socket's address changes, and its goroutine puts the
// datagram there itself when it has left its own lock: one look at a generation replaces the
// interface's queue, IP and the look-ups. If a capture runs, or packets of the sender still wait on
// the interface's queue, the datagram goes that way.

// udpFindPeer looks for the socket that a route leads to, if it is on this stack.
func (so *Socket) udpFindPeer(r *dgroute) {
	k := so.k
	r.peer = nil
	defer func() { so.dg.near.Store(r.peer) }()
	r.pgen = k.udpPorts.gen.Load()
	if !r.ifp.whole() || r.several {
		return
	}
	t := tuple{laddr: in6(r.dst), faddr: in6(r.src), lport: r.dport, fport: so.inp.lport}
	inp := k.udpLookup(&t)
	if inp == nil {
		return
	}
	r.peer = inp.so
	if r.dst.Is4() {
		ip := wire.IPv4{
			Src: r.src, Dst: r.dst, Proto: wire.ProtoUDP, TOS: so.inp.tos, TTL: so.inp.ttl, Flags: wire.IPDF,
		}
		ip.Put(r.hdr[:])
		r.hlen = wire.IPv4MinLen + wire.UDPLen
	} else {
		ip := wire.IPv6{Src: r.src, Dst: r.dst, Next: wire.ProtoUDP, Class: so.inp.tos, Hlim: so.inp.ttl}
		ip.Put(r.hdr[:])
		r.hlen = wire.IPv6Len + wire.UDPLen
	}
	wire.UDP{Sport: so.inp.lport, Dport: r.dport}.Put(r.hdr[r.hlen-wire.UDPLen:])
}

// udpLocal notes a datagram that dgunlock delivers to the peer. Its headers have no checksums, and
// no flow label, as nobody looks at them.
func (so *Socket) udpLocal(m *mbuf.Mbuf, r *dgroute) syscall.Errno {
	n := m.Pkt.Len + wire.UDPLen
	v6 := r.hlen > wire.IPv4MinLen+wire.UDPLen
	if n > udpMaxLen4+wire.UDPLen && (!v6 || n > wire.MaxPacket) {
		mbuf.Free(m)
		return syscall.EMSGSIZE
	}
	seg := m.Pkt.SegSize
	if seg == 0 && so.dg.gso > 0 && n-wire.UDPLen > so.dg.gso {
		if seg = so.dg.gso; n-wire.UDPLen > seg*udpMaxSegs {
			mbuf.Free(m)
			return syscall.EINVAL
		}
		m.Pkt.SegSize = seg
	}
	h := m.Prepend(r.hlen)
	copy(h, r.hdr[:r.hlen])
	if v6 {
		binary.BigEndian.PutUint16(h[4:], uint16(n))
	} else {
		binary.BigEndian.PutUint16(h[2:], uint16(n+wire.IPv4MinLen))
	}
	wire.UDPView(h[r.hlen-wire.UDPLen:]).SetLen(n)
	m.Pkt.Flow, m.Pkt.Csum, m.Pkt.Hlen = r.flow, mbuf.CsumValid, uint16(r.hlen)
	so.dg.note(r.peer, r.pgen)
	so.dg.local.Put(m)
	return 0
}

// note notes which socket the next datagram is for, before it joins those that wait. If an address
// changes between two datagrams of one call, the generation has passed when they are delivered.
func (dg *dgram) note(peer *Socket, gen uint32) {
	switch {
	case dg.local.Empty():
		dg.lpeer, dg.lgen = peer, gen
	case dg.lpeer != peer:
		dg.lpeer = nil
	}
}

// udpDeliver puts datagrams on the queue of the socket that was found for them in a generation of
// addresses. If there is none, or the generation has passed, they go through IP, which looks for
// the socket of each anew.
func (k *Kernel) udpDeliver(q *mbuf.Queue, peer *Socket, gen uint32) {
	lo := k.lo0
	if peer != nil {
		peer.lock()
		if peer.dead || k.udpPorts.gen.Load() != gen {
			peer.mu.Unlock()
			peer = nil
		}
	}
	if peer == nil {
		for m := q.Get(); m != nil; m = q.Get() {
			k.ipintr(lo, m)
		}
		return
	}
	v6 := q.Head().Bytes()[0]>>4 == 6
	n, packets, bytes, dropped := 0, 0, 0, 0
	for m := q.Get(); m != nil; m = q.Get() {
		c := segments(m.Pkt.Len-int(m.Pkt.Hlen), m.Pkt.SegSize)
		packets++
		n += c
		bytes += m.Pkt.Len
		if !peer.sbappendaddr(m, int(m.Pkt.Hlen), lo) {
			dropped += c
		}
	}
	peer.unlock()
	st := &k.Stats
	st.UDP.Opackets.Add(n)
	st.UDP.Ipackets.Add(n)
	if v6 {
		st.IP6.Localout.Add(packets)
		st.IP6.Total.Add(packets)
		st.IP6.Delivered.Add(packets)
	} else {
		st.IP.Localout.Add(packets)
		st.IP.Total.Add(packets)
		st.IP.Delivered.Add(packets)
	}
	lo.Stats.Opackets.Add(uint64(packets))
	lo.Stats.Obytes.Add(uint64(bytes))
	if dropped > 0 {
		st.UDP.Fullsock.Add(dropped)
	}
}

// paceYields is how often a sender gives up its processor for a reader that is behind. A reader
// that is running needs that long for a large datagram.
const paceYields = 256

// dgpace lets the reader of the socket that was sent to last come by, if it is on this stack and
// has no room for n bytes: a datagram that would be dropped need not be copied first, and one
// processor cannot both send and receive. If the reader does not come, no sender waits for it until
// it has. dgpace reports whether there still is no room.
func (dg *dgram) dgpace(n int) (full bool) {
	near := dg.near.Load()
	if near == nil {
		return false
	}
	peer := near.dg
	room := func(n int) bool {
		used := peer.used.Load()
		return used == 0 || used+int64(n) <= peer.most.Load()
	}
	for i := 0; !room(n+mbuf.ClMid) && !peer.stuck.Load(); i++ { // the buffer takes more than the data
		if i == paceYields {
			peer.stuck.Store(true)
			break
		}
		runtime.Gosched()
	}
	return !room(n)
}

// udpHopeless drops a datagram of n bytes for which the socket that was sent to last has no room,
// if the datagram is for that socket, and sending it would be no error. It reports whether it has.
func (so *Socket) udpHopeless(n int, to netip.AddrPort) bool {
	k, r := so.k, &so.dg.route
	so.lock()
	peer := r.peer
	ok := peer != nil && r.to == to && r.gen == k.rtgen.Load() && r.pgen == k.udpPorts.gen.Load() &&
		!r.ifp.down.Load() && r.ifp.tap.Load() == nil && so.pending() == 0 && so.err == 0 &&
		n <= udpMaxLen4 && so.dg.gso == 0 && so.state&ssCantsendmore == 0 && so.dgintime() == 0
	so.unlock()
	if !ok {
		return false // the usual way finds out what to do
	}
	peer.lock()
	peer.dg.fullsock++
	peer.mu.Unlock()
	st := &k.Stats.UDP
	st.Opackets.Inc()
	st.Ipackets.Inc()
	st.Fullsock.Inc()
	return true
}
