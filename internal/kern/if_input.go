package kern

import (
	"fmt"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// rxBatch is how many packets a queue reads at once, at most; rxBytes bounds the buffers that wait
// for them.
const (
	rxBatch = 64
	rxBytes = 256 << 10
)

// receive is the goroutine of a link's queue: BSD's interrupt. It reads batches of packets, hands
// them to ipintr, and sends the answers.
func (ifp *Ifnet) receive(q *ifqueue) {
	defer ifp.readers.Done()
	k := ifp.k
	var (
		ms    [rxBatch]*mbuf.Mbuf
		bufs  [rxBatch][]byte
		sizes [rxBatch]int
		g     gro
	)
	size := ifp.mtu
	if ifp.vnet {
		size = wire.VnetLen + wire.MaxPacket
	}
	batch := min(max(rxBytes/size, 4), rxBatch)
	for {
		for i := range batch {
			if ms[i] == nil {
				ms[i] = k.pool.Getcl(size)
			}
			bufs[i] = ms[i].Room()[:size]
		}
		n, err := ifp.linkRead(q.i, bufs[:batch], sizes[:batch], size)
		now := k.now()
		ifp.countIn(sizes[:n])
		held := q.hold()
		for i := range n {
			if m := ifp.received(&ms[i], sizes[i], size); m != nil {
				m.Pkt.Arrived = now
				ifp.bpfMtap(m)
				if g.receive(k, ifp, m) {
					reuse(&ms[i], m)
				}
			}
		}
		g.flush(k, ifp)
		if held {
			q.run(drainBudget)
		}
		k.ipForwardStart()
		if err != nil {
			ifp.broken(err)
			break
		}
		if ifp.down.Load() {
			break // a link that goes on to bring packets after Close must not hold up the stack's
		}
	}
	for _, m := range ms {
		mbuf.Free(m)
	}
}

// countIn counts packets that a link has brought.
func (ifp *Ifnet) countIn(sizes []int) {
	bytes := 0
	for _, n := range sizes {
		if ifp.vnet {
			n = max(n-wire.VnetLen, 0)
		}
		bytes += n
	}
	ifp.Stats.Ipackets.Add(uint64(len(sizes)))
	ifp.Stats.Ibytes.Add(uint64(bytes))
}

// reuse puts a buffer, whose packet has been copied, back in its place.
func reuse(buf **mbuf.Mbuf, m *mbuf.Mbuf) {
	if *buf != nil {
		mbuf.Free(m) // the packet was a copy already, and the buffer is in its place
		return
	}
	m.Reset()
	*buf = m
}

// broken notes the error that has ended a link, unless there is one already. As a link that brings
// no packets is of no use, the interface sends none either from then on: calls fail with ENETDOWN.
// If the stack has taken the interface down, the error is of no interest. A link that its user has
// closed counts as broken too.
func (ifp *Ifnet) broken(err error) {
	if !ifp.down.Load() && ifp.lastErr.CompareAndSwap(nil, &err) {
		ifp.down.Store(true)
	}
}

// linkRead reads packets from the link into bufs, each of size bytes. Anyone may have written the
// link, so linkRead checks what it returns: a link that breaks the contract is broken.
func (ifp *Ifnet) linkRead(q int, bufs [][]byte, sizes []int, size int) (n int, err error) {
	call := "Read"
	if ifp.mq != nil {
		call = "ReadQueue"
		n, err = ifp.mq.ReadQueue(q, bufs, sizes)
	} else {
		n, err = ifp.link.Read(bufs, sizes)
	}
	switch {
	case n < 0 || n > len(bufs):
		what := fmt.Sprintf(
			"%d packets for %d buffers; it must return how many packets there are, not bytes", n, len(bufs))
		return 0, brokenContract(call, what, err)
	case n == 0 && err == nil:
		return 0, brokenContract(call, "no packet and no error; it must wait until there is one", nil)
	}
	for i, s := range sizes[:n] {
		if s < 0 || s > size {
			what := fmt.Sprintf(
				"a packet of %d bytes in a buffer of %d (sizes[%d]); it must drop longer ones", s, size, i)
			return 0, brokenContract(call, what, err)
		}
	}
	return n, err
}

// brokenContract returns the error of a link whose method has returned what it must not return,
// which what describes. err is the error that the method has returned, or nil.
func brokenContract(method, what string, err error) error {
	if err != nil {
		return fmt.Errorf(
			"bsdnet: the link breaks its contract: %s has returned %s (and the error: %w)", method, what, err)
	}
	return fmt.Errorf("bsdnet: the link breaks its contract: %s has returned %s", method, what)
}

// received returns the packet of n bytes that has been read into *buf, which has size bytes, as an
// Mbuf of its own, or nil if it is no packet. It copies a small packet, which must not pin a large
// cluster, and leaves its buffer in place; else it sets *buf to nil.
func (ifp *Ifnet) received(buf **mbuf.Mbuf, n, size int) *mbuf.Mbuf {
	m := *buf
	var vh wire.Vnet
	room := m.Room()[:n]
	if ifp.vnet {
		if n < wire.VnetLen+wire.IPv4MinLen {
			ifp.Stats.Ierrors.Add(1)
			return nil
		}
		vh = wire.ParseVnet(room)
		vh.Complete(room[wire.VnetLen:])
	}
	if size > mbuf.ClMid && n <= size/4 {
		m = ifp.k.pool.Getcl(n)
		m.Append(room)
	} else {
		*buf = nil
		m.Extend(n)
	}
	if ifp.vnet {
		m = mbuf.Adj(m, wire.VnetLen)
		n -= wire.VnetLen
		m.Pkt.Csum, m.Pkt.SegSize = vnetCsum(&vh), vh.SegSize()
	}
	m.Pkt.Len = n
	return m
}

// vnetCsum returns what a virtio-net header says about a packet's transport checksum.
func vnetCsum(v *wire.Vnet) mbuf.Csum {
	switch {
	case v.Flags&wire.VnetNeedsCsum != 0:
		return mbuf.CsumVerified | mbuf.CsumPartial
	case v.Flags&wire.VnetDataValid != 0:
		return mbuf.CsumVerified
	}
	return 0
}
