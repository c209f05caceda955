package kern

import (
	"encoding/binary"
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
	r.pgen = k.udpPorts.gen.Load()
	if !r.ifp.whole() || r.dst.Is6() || r.dst.IsMulticast() || r.ifp.broadcast(r.dst) {
		return
	}
	t := tuple{laddr: in6(r.dst), faddr: in6(r.src), lport: r.dport, fport: so.inp.lport}
	if inp := k.udpLookup(&t, r.flow); inp != nil {
		r.peer = inp.so
		ip := wire.IPv4{
			Src: r.src, Dst: r.dst, Proto: wire.ProtoUDP, TOS: so.inp.tos, TTL: so.inp.ttl, Flags: wire.IPDF,
		}
		ip.Put(r.hdr[:])
		wire.UDP{Sport: so.inp.lport, Dport: r.dport}.Put(r.hdr[wire.IPv4MinLen:])
	}
}

// udpLocal notes a datagram that dgunlock delivers to the peer. Its headers have no checksums, as
// nobody verifies them.
func (so *Socket) udpLocal(m *mbuf.Mbuf, r *dgroute) syscall.Errno {
	n := m.Pkt.Len + wire.UDPLen
	if n > udpMaxLen4+wire.UDPLen {
		mbuf.Free(m)
		return syscall.EMSGSIZE
	}
	h := m.Prepend(wire.IPv4MinLen + wire.UDPLen)
	copy(h, r.hdr[:])
	binary.BigEndian.PutUint16(h[2:], uint16(n+wire.IPv4MinLen))
	wire.UDPView(h[wire.IPv4MinLen:]).SetLen(n)
	m.Pkt.Flow, m.Pkt.Csum = r.flow, mbuf.CsumValid
	so.dg.local.Put(m)
	return 0
}

// udpDeliver puts datagrams on the queue of the socket that was found for them in a generation of
// addresses. If the generation has passed, they go through IP, which looks for their socket anew.
func (k *Kernel) udpDeliver(q *mbuf.Queue, peer *Socket, gen uint32) {
	lo := k.lo0
	peer.lock()
	if peer.dead || k.udpPorts.gen.Load() != gen {
		peer.mu.Unlock()
		for m := q.Get(); m != nil; m = q.Get() {
			k.ipintr(lo, m)
		}
		return
	}
	n, bytes, dropped := 0, 0, 0
	for m := q.Get(); m != nil; m = q.Get() {
		n++
		bytes += m.Pkt.Len
		if !peer.sbappendaddr(m, wire.IPv4MinLen+wire.UDPLen, lo) {
			dropped++
		}
	}
	behind := peer.dg.used.Load() > int64(peer.rcv.Hiwat()/2)
	peer.unlock()
	st := &k.Stats
	st.UDP.Opackets.Add(n)
	st.UDP.Ipackets.Add(n)
	st.IP.Localout.Add(n)
	st.IP.Total.Add(n)
	st.IP.Delivered.Add(n)
	lo.Stats.Opackets.Add(uint64(n))
	lo.Stats.Obytes.Add(uint64(bytes))
	if dropped > 0 {
		st.UDP.Fullsock.Add(dropped)
	}
	if behind {
		// The reader has been woken, and has not come by yet. It may have to wait for this
		// processor.
		runtime.Gosched()
	}
}
