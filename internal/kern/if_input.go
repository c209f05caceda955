package kern

import (
	"fmt"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// rxBatch is how many packets are read at once, at most; rxBytes bounds the buffers that wait for
// them.
const (
	rxBatch = 64
	rxBytes = 256 << 10
)

// receive is the goroutine of a link's queue: the interrupt. It reads batches, hands them to
// ipintr, and sends what they have brought about.
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
		if err != nil {
			ifp.broken(err)
			break
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

// reuse gives a buffer whose packet has been copied back to its place.
func reuse(buf **mbuf.Mbuf, m *mbuf.Mbuf) {
	if *buf != nil {
		mbuf.Free(m) // it was a copy already
		return
	}
	m.Reset()
	*buf = m
}

// broken notes what has ended a link, the first time. Nothing comes any more, so nothing is sent:
// ENETDOWN. On an interface that the stack has taken down the end is no news. A link that its user
// has closed counts as broken too, as it brings nothing any more.
func (ifp *Ifnet) broken(err error) {
	if !ifp.down.Load() && ifp.lastErr.CompareAndSwap(nil, &err) {
		ifp.down.Store(true)
	}
}

// linkRead reads packets from the link. A link may be anybody's: what it returns is checked, and
// one that breaks the contract is broken. Each buffer has size bytes.
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

// brokenContract is the error of a link whose method has returned what it must not. err is what it
// has returned as an error.
func brokenContract(method, what string, err error) error {
	if err != nil {
		return fmt.Errorf(
			"bsdnet: the link breaks its contract: %s has returned %s (and the error: %w)", method, what, err)
	}
	return fmt.Errorf("bsdnet: the link breaks its contract: %s has returned %s", method, what)
}

// received takes a packet of n bytes that has been read into a buffer of size, as an Mbuf of its
// own; nil: there is none. A small packet must not pin a large cluster, so it is copied, and its
// buffer stays in its place.
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

// vnetCsum says what a header tells of a packet's transport checksum.
func vnetCsum(v *wire.Vnet) mbuf.Csum {
	switch {
	case v.Flags&wire.VnetNeedsCsum != 0:
		return mbuf.CsumVerified | mbuf.CsumPartial
	case v.Flags&wire.VnetDataValid != 0:
		return mbuf.CsumVerified
	}
	return 0
}
