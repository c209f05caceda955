package kern

import (
	"encoding/binary"
	"fmt"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// rxBatch is how many packets are read at once, at most; rxBytes bounds the buffers that wait for them.
const (
	rxBatch = 64
	rxBytes = 256 << 10
)

// receive is the goroutine of a link's queue: the interrupt. It reads batches, hands them to ipintr, and sends what they have brought about.
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
		size = vnetLen + wire.MaxPacket
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
			n = max(n-vnetLen, 0)
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

// broken notes what has ended a link, the first time. Nothing comes any more, so nothing is sent: ENETDOWN. On an interface that the stack has taken
// down the end is no news. A link that somebody else has closed is as broken as any: nobody reads it.
func (ifp *Ifnet) broken(err error) {
	if !ifp.down.Load() && ifp.lastErr.CompareAndSwap(nil, &err) {
		ifp.down.Store(true)
	}
}

// linkRead reads packets from the link. A link may be anybody's: what it returns is checked, and one that breaks the contract is broken. Each buffer has
// size bytes.
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
		return 0, brokenContract(call, fmt.Sprintf("%d packets for %d buffers; it returns how many packets there are, not bytes", n, len(bufs)), err)
	case n == 0 && err == nil:
		return 0, brokenContract(call, "no packet and no error; it waits until there is one", nil)
	}
	for i, s := range sizes[:n] {
		if s < 0 || s > size {
			return 0, brokenContract(call, fmt.Sprintf("a packet of %d bytes in a buffer of %d (sizes[%d]); it drops longer ones", s, size, i), err)
		}
	}
	return n, err
}

// brokenContract is the error of a link whose method has returned what it must not. err is what it has returned as an error.
func brokenContract(method, what string, err error) error {
	if err != nil {
		return fmt.Errorf("bsdnet: the link breaks its contract: %s has returned %s (and the error: %w)", method, what, err)
	}
	return fmt.Errorf("bsdnet: the link breaks its contract: %s has returned %s", method, what)
}

// received takes a packet of n bytes that has been read into a buffer of size, as an Mbuf of its own; nil: there is none. A small packet must not pin
// a large cluster, so it is copied, and its buffer stays where it is.
func (ifp *Ifnet) received(buf **mbuf.Mbuf, n, size int) *mbuf.Mbuf {
	m := *buf
	var vh vnetHdr
	room := m.Room()[:n]
	if ifp.vnet {
		if n < vnetLen+wire.IPv4MinLen {
			ifp.Stats.Ierrors.Add(1)
			return nil
		}
		vh.parse(room)
		vh.complete(room[vnetLen:])
	}
	if size > mbuf.ClMid && n <= size/4 {
		m = ifp.k.pool.Getcl(n)
		m.Append(room)
	} else {
		*buf = nil
		m.Extend(n)
	}
	if ifp.vnet {
		m = mbuf.Adj(m, vnetLen)
		n -= vnetLen
		m.Pkt.Csum, m.Pkt.SegSize = vh.csum(), vh.segSize()
	}
	m.Pkt.Len = n
	return m
}

// A link with offloads puts a header before each packet, which says what is left to do: struct virtio_net_hdr (OASIS virtio 1.2, 5.1.6), little endian.
// What is said there of a packet that has come in is the word of the kernel at the other end of the device.

const vnetLen = 10

const (
	vnetNeedsCsum = 1 // flags: the transport checksum is that of the pseudo-header alone
	vnetDataValid = 2 // flags: it has been verified

	vnetTCPv4 = 1    // gso_type
	vnetECN   = 0x80 // CWR is for the first segment alone
)

// A vnetHdr is such a header.
type vnetHdr struct {
	flags, gsoType                     uint8
	hdrLen, gsoSize, csumStart, csumOf uint16
}

func (v *vnetHdr) parse(b []byte) {
	le := binary.LittleEndian
	*v = vnetHdr{b[0], b[1], le.Uint16(b[2:]), le.Uint16(b[4:]), le.Uint16(b[6:]), le.Uint16(b[8:])}
}

func (v *vnetHdr) append(b []byte) []byte {
	le := binary.LittleEndian
	b = append(b, v.flags, v.gsoType)
	b = le.AppendUint16(le.AppendUint16(b, v.hdrLen), v.gsoSize)
	return le.AppendUint16(le.AppendUint16(b, v.csumStart), v.csumOf)
}

// complete fills in the checksum of a packet that is not TCP's. TCP need not look at it, and a capture fills it in by itself.
func (v *vnetHdr) complete(p []byte) {
	if v.flags&vnetNeedsCsum == 0 || v.isTCP(p) {
		return
	}
	v.flags = 0
	at := int(v.csumStart) + int(v.csumOf)
	if at+2 > len(p) {
		return
	}
	sum := wire.InCksum(p[v.csumStart:])
	if sum == 0 {
		sum = 0xffff // UDP: 0 says that there is none (RFC 768)
	}
	binary.BigEndian.PutUint16(p[at:], sum)
}

// isTCP reports whether the header speaks of the checksum of an IPv4 packet that holds all of a TCP header.
func (v *vnetHdr) isTCP(p []byte) bool {
	iphl := int(p[0]&15) * 4
	return p[0]>>4 == 4 && iphl >= wire.IPv4MinLen && p[9] == wire.ProtoTCP && int(v.csumStart) == iphl && v.csumOf == 16 &&
		len(p) >= iphl+wire.TCPMinLen && p[iphl+12]>>4 >= 5 && len(p) >= iphl+int(p[iphl+12]>>4)*4
}

// csum says what is known of the transport checksum.
func (v *vnetHdr) csum() mbuf.Csum {
	switch {
	case v.flags&vnetNeedsCsum != 0:
		return mbuf.CsumVerified | mbuf.CsumPartial
	case v.flags&vnetDataValid != 0:
		return mbuf.CsumVerified
	}
	return 0
}

// segSize is the payload of the segments that a packet has been merged from, 0 for a packet as it was sent.
func (v *vnetHdr) segSize() int {
	if v.gsoType&^vnetECN != vnetTCPv4 {
		return 0
	}
	return int(v.gsoSize)
}

// vnetHeader appends the header of the cutter's next packet, with n bytes of payload.
func (c *cutter) vnetHeader(b []byte, n int) []byte {
	var v vnetHdr
	if c.partial {
		v = vnetHdr{flags: vnetNeedsCsum, csumStart: uint16(c.iphl), csumOf: 16, hdrLen: uint16(len(c.hdr))}
	}
	if c.gso > 0 && n > c.gso {
		v.gsoType, v.gsoSize = vnetTCPv4, uint16(c.gso)
		if c.sent == 0 && wire.Flags(c.hdr[c.iphl+13])&wire.CWR != 0 {
			v.gsoType |= vnetECN
		}
	}
	return v.append(b)
}
