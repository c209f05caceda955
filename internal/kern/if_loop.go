package kern

import (
	"fmt"
	"net/netip"
	"syscall"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// The loopback is an interface of the kernel's own, as in BSD: looutput puts a packet on an input
// queue, and the goroutine that leaves the kernel next runs ipintr. It has several queues, chosen
// by flow, so that conversations spread over processors. Both directions of a conversation use the
// same queue.

const (
	loMTU    = 65535
	loQueues = 8
	loTSO    = 4 * mbuf.ClHuge // largest chain over the loopback
)

// loopattach makes lo0, with 127.0.0.0/8, and ::1 unless its MTU is too small for IPv6: BSD's
// loopattach.
func (k *Kernel) loopattach(mtu int) error {
	if mtu == 0 {
		mtu = loMTU
	}
	if mtu < MinMTU || mtu > loMTU {
		return fmt.Errorf("bsdnet: the loopback's MTU of %d is not between %d and %d", mtu, MinMTU, loMTU)
	}
	prefixes := []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}
	if mtu >= wire.IPv6MinMTU {
		prefixes = append(prefixes, netip.MustParsePrefix("::1/128"))
	}
	ifp := &Ifnet{
		k: k, Name: "lo0", mtu: mtu, loopback: true, prefixes: prefixes,
		queues: make([]ifqueue, loQueues),
	}
	for i := range ifp.queues {
		ifp.queues[i].init(ifp, i)
	}
	k.lo0 = ifp
	return k.addIf(ifp)
}

// whole reports whether packets on the interface are never cut, however long: the loopback with its
// own MTU.
func (ifp *Ifnet) whole() bool { return ifp.loopback && ifp.mtu == loMTU }

// looutput hands a packet to the input queue: BSD's looutput, which ends in schednetisr. Nothing is
// received until the queue is drained.
func (ifp *Ifnet) looutput(m *mbuf.Mbuf, so *Socket) (*ifqueue, syscall.Errno) {
	ifp.k.chainAt("looutput")
	q := &ifp.queues[m.Pkt.Flow&(loQueues-1)]
	if so != nil && so.dg == nil {
		so = nil // the peer's window bounds what a connection has on the queue
	}
	return q, q.enqueue(m, so)
}

// looptransmit is the other half of looutput: the packet arrives. atOnce says that the packet has
// hardly been on the queue. Then the time at which it was sent serves as the time of its arrival,
// and the clock need not be read again.
func (ifp *Ifnet) looptransmit(m *mbuf.Mbuf, atOnce bool) {
	k := ifp.k
	ifp.bpfMtap(m)
	m.Pkt.Csum |= mbuf.CsumValid // the packet has not left the machine
	if !atOnce {
		m.Pkt.Arrived = 0 // ipintr reads the clock
	}
	k.ipintr(ifp, m)
}
