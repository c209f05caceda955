package kern

import (
	"encoding/binary"
	"net"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// A chain longer than a link's packets is cut at the last moment, in one place, for every link and
// for captures.

// A cutter turns a chain into the packets that go on a wire.
type cutter struct {
	m       *mbuf.Mbuf // header mbuf: IP and transport header, contiguous
	hdr     []byte
	data    *mbuf.Mbuf // where the next packet's data begins
	off     int        // offset in data
	left    int        // payload left
	sent    int        // payload cut so far
	seg     int        // payload of a packet
	gso     int        // with a virtio-net header: payload of each segment that the link is to make of it
	iphl    int
	tcp     bool
	partial bool // transport checksum to be computed
	vnet    bool // packets begin with a virtio-net header, and what it can say is left to the link
}

// start begins with packet m. Its first Mbuf holds all headers if it is to be cut or summed; data
// may follow them there.
func (c *cutter) start(m *mbuf.Mbuf, vnet bool) {
	*c = cutter{m: m, hdr: m.Bytes(), data: m, partial: m.Pkt.Csum&mbuf.CsumPartial != 0, vnet: vnet}
	c.iphl = int(c.hdr[0]&15) * 4
	if c.partial {
		c.tcp = c.hdr[9] == wire.ProtoTCP
		c.hdr = c.hdr[:min(c.iphl+int(c.hdr[c.iphl+12]>>4)*4, len(c.hdr))]
	}
	c.off = len(c.hdr)
	c.left = m.Pkt.Len - len(c.hdr)
	c.seg = c.left
	if n := m.Pkt.SegSize; n > 0 && c.left > n {
		c.seg = n
		if vnet && wire.Flags(c.hdr[c.iphl+13])&wire.URG == 0 { // virtio knows nothing of urgent pointers
			c.gso = n
			c.seg = n * max((wire.MaxPacket-len(c.hdr))/n, 1)
		}
	}
}

// more reports whether there is another packet.
func (c *cutter) more() bool { return c.left > 0 || c.sent == 0 && c.hdr != nil }

// next returns the next packet: its header in hbuf, which is grown, its data as slices appended to
// bufs.
func (c *cutter) next(hbuf []byte, bufs net.Buffers) ([]byte, net.Buffers) {
	n := min(c.seg, c.left)
	h0 := len(hbuf)
	if c.vnet {
		hbuf = c.vnetHeader(hbuf, n)
	}
	h1 := len(hbuf)
	hbuf = append(hbuf, c.hdr...)
	h := hbuf[h1:]
	bufs = append(bufs, hbuf[h0:])
	b0 := len(bufs)
	for need := n; need > 0; {
		d := c.data.Bytes()[c.off:]
		if len(d) > need {
			bufs = append(bufs, d[:need])
			c.off += need
			break
		}
		if len(d) > 0 {
			bufs = append(bufs, d)
		}
		need -= len(d)
		c.data, c.off = c.data.Next(), 0
	}
	last := n == c.left
	if c.tcp {
		c.fixTCP(h, n, last)
	}
	switch {
	case c.partial && c.vnet:
		ip, _ := ipAddrs(h)
		binary.BigEndian.PutUint16(h[c.iphl+16:], wire.Fold(wire.PseudoSum(ip.Src, ip.Dst, wire.ProtoTCP, len(h)-c.iphl+n)))
	case c.partial:
		c.sum(h, bufs[b0:], n)
	}
	c.left -= n
	c.sent += n
	if last {
		c.left, c.hdr = 0, nil
	}
	return hbuf, bufs
}

// fixTCP makes the header that of one segment of the chain.
func (c *cutter) fixTCP(h []byte, n int, last bool) {
	be := binary.BigEndian
	be.PutUint16(h[2:], uint16(len(h)+n))
	h[10], h[11] = 0, 0
	be.PutUint16(h[10:], wire.InCksum(h[:c.iphl]))
	t := h[c.iphl:]
	be.PutUint32(t[4:], be.Uint32(t[4:])+uint32(c.sent))
	if !last {
		t[13] &^= uint8(wire.FIN | wire.PUSH)
	}
	if c.sent > 0 {
		t[13] &^= uint8(wire.CWR)
		fixUrg(t, c.sent)
	}
}

// fixUrg moves the urgent pointer of a TCP header whose sequence number has moved by n.
func fixUrg(t []byte, n int) {
	if t[13]&uint8(wire.URG) == 0 {
		return
	}
	if urp := int(binary.BigEndian.Uint16(t[18:])) - n; urp > 0 {
		binary.BigEndian.PutUint16(t[18:], uint16(urp))
		return
	}
	t[13] &^= uint8(wire.URG)
	t[18], t[19] = 0, 0
}

// sum computes the transport checksum of a TCP segment.
func (c *cutter) sum(h []byte, data net.Buffers, n int) {
	ip, _ := ipAddrs(h)
	t := h[c.iphl:]
	t[16], t[17] = 0, 0
	s := wire.PseudoSum(ip.Src, ip.Dst, wire.ProtoTCP, len(t)+n)
	s = wire.Sum(t, s)
	off := 0
	for _, d := range data {
		s = wire.SumAt(d, off, s)
		off += len(d)
	}
	binary.BigEndian.PutUint16(t[16:], ^wire.Fold(s))
}

// dropSegments takes the first cut bytes of payload, whole segments, off a chain that is to be cut.
func dropSegments(m *mbuf.Mbuf, cut int) *mbuf.Mbuf {
	be := binary.BigEndian
	h := m.Bytes()
	iphl := int(h[0]&15) * 4
	t := h[iphl:]
	be.PutUint32(t[4:], be.Uint32(t[4:])+uint32(cut))
	t[13] &^= uint8(wire.CWR)
	fixUrg(t, cut)
	if d := t[int(t[12]>>4)*4:]; len(d) > 0 { // the data of a small segment, which is all in one Mbuf
		copy(d, d[cut:])
		m.Pkt.Len -= cut
		return mbuf.Adj(m, -cut)
	}
	rest := mbuf.Adj(m.Next(), cut)
	m.SetNext(rest)
	m.Pkt.Len -= cut
	return m
}

// vnetHeader appends to b the header of the cutter's next packet, which has n bytes of payload.
func (c *cutter) vnetHeader(b []byte, n int) []byte {
	var v wire.Vnet
	if c.partial {
		v = wire.Vnet{
			Flags: wire.VnetNeedsCsum, HdrLen: uint16(len(c.hdr)), CsumStart: uint16(c.iphl), CsumOffset: 16,
		}
	}
	if c.gso > 0 && n > c.gso {
		v.GSOType, v.GSOSize = wire.VnetTCPv4, uint16(c.gso)
		if c.sent == 0 && wire.Flags(c.hdr[c.iphl+13])&wire.CWR != 0 {
			v.GSOType |= wire.VnetECN
		}
	}
	return v.Append(b)
}
