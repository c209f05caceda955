package kern

import (
	"encoding/binary"
	"net"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// Only this file cuts chains that are longer than a link's packets, at the last moment before they
// go on a link, or into a capture.

// A cutter cuts a chain into the packets that go on a wire.
type cutter struct {
	m       *mbuf.Mbuf // header mbuf: IP and transport header, contiguous
	hdr     []byte
	data    *mbuf.Mbuf // where the next packet's data begins
	off     int        // offset in data
	left    int        // payload left
	sent    int        // payload cut so far
	seg     int        // payload of a packet
	gso     int        // with a virtio-net header: payload of each segment that the link makes of a packet
	iphl    int
	thlen   int // length of the transport header
	tcp     bool
	partial bool // the transport checksum has not been computed
	vnet    bool // packets begin with a virtio-net header, by which the link cuts and sums them
}

// start begins with packet m. If m must be cut or summed, its first Mbuf holds all headers. Data
// may follow them there. uso says that a link with virtio-net headers also cuts chains of UDP.
func (c *cutter) start(m *mbuf.Mbuf, vnet, uso bool) {
	*c = cutter{m: m, hdr: m.Bytes(), data: m, partial: m.Pkt.Csum&mbuf.CsumPartial != 0, vnet: vnet}
	ip := wire.IPView(c.hdr)
	c.iphl = ip.Hlen()
	if c.partial {
		c.tcp = ip.Proto() == wire.ProtoTCP
		c.thlen = wire.UDPLen
		if c.tcp {
			c.thlen = wire.TCPView(ip.Payload()).Hlen()
		}
		c.hdr = c.hdr[:min(c.iphl+c.thlen, len(c.hdr))]
	}
	c.off = len(c.hdr)
	c.left = m.Pkt.Len - len(c.hdr)
	c.seg = c.left
	if n := m.Pkt.SegSize; n > 0 && c.left > n {
		c.seg = n
		most := (wire.MaxPacket - len(c.hdr)) / n
		switch {
		case !vnet:
		case !c.tcp && uso:
			c.gso, c.seg = n, n*max(min(most, usoMax), 1)
		case c.tcp && c.th(c.hdr).Flags()&wire.URG == 0: // virtio has no urgent pointers
			c.gso, c.seg = n, n*max(most, 1)
		}
	}
}

// usoMax is how many datagrams Linux takes in one packet with a virtio-net header:
// UDP_MAX_SEGMENTS, of older versions.
const usoMax = 64

// th returns the TCP header of the packet that begins with h.
func (c *cutter) th(h []byte) wire.TCPView { return wire.TCPView(h[c.iphl:]) }

// more reports whether there is another packet.
func (c *cutter) more() bool { return c.left > 0 || c.sent == 0 && c.hdr != nil }

// next appends the next packet to bufs, as slices: its header, which next appends to hbuf, and its
// data. It returns both, grown.
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
	} else if c.partial {
		if ip := wire.IPView(h); !ip.Is6() && !ip.DF() && c.sent > 0 { // each datagram has its own identification
			binary.BigEndian.PutUint16(h[4:], binary.BigEndian.Uint16(h[4:])+uint16(c.sent/c.m.Pkt.SegSize))
		}
		wire.IPView(h).SetLen(len(h) + n)
		wire.UDPView(h[c.iphl:]).SetLen(wire.UDPLen + n)
	}
	switch {
	case c.partial && c.vnet:
		// virtio 1.2, 5.1.6.2: the link finds the sum of the pseudo-header in the checksum's field.
		ip := wire.IPView(h)
		c.setSum(h, wire.Fold(wire.PseudoSum(ip.Src(), ip.Dst(), ip.Proto(), len(h)-c.iphl+n)))
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

// fixTCP turns h, a copy of the chain's header, into the header of the segment with the next n
// bytes. Only the last segment has FIN and PUSH, which stand at the end of the data, and only the
// first has CWR, which tells of one reduction of the window (RFC 3168, 6.1.2).
func (c *cutter) fixTCP(h []byte, n int, last bool) {
	wire.IPView(h).SetLen(len(h) + n)
	th := c.th(h)
	th.SetSeq(th.Seq().Add(c.sent))
	if !last {
		th.SetFlags(th.Flags() &^ (wire.FIN | wire.PUSH))
	}
	if c.sent > 0 {
		th.SetFlags(th.Flags() &^ wire.CWR)
		fixUrg(th, c.sent)
	}
}

// fixUrg moves the urgent pointer of a TCP header whose sequence number has moved by n.
func fixUrg(th wire.TCPView, n int) {
	if th.Flags()&wire.URG == 0 {
		return
	}
	if urp := int(th.Urp()) - n; urp > 0 {
		th.SetUrp(uint16(urp))
		return
	}
	th.SetFlags(th.Flags() &^ wire.URG)
	th.SetUrp(0)
}

// setSum writes the checksum's field of the transport header.
func (c *cutter) setSum(h []byte, sum uint16) {
	if c.tcp {
		c.th(h).SetSum(sum)
	} else {
		binary.BigEndian.PutUint16(h[c.iphl+wire.UDPSumOff:], sum)
	}
}

// sum computes the transport checksum of a TCP segment or a datagram.
func (c *cutter) sum(h []byte, data net.Buffers, n int) {
	ip, th := wire.IPView(h), h[c.iphl:]
	c.setSum(h, 0)
	s := wire.PseudoSum(ip.Src(), ip.Dst(), ip.Proto(), len(th)+n)
	s = wire.Sum(th, s)
	off := 0
	for _, d := range data {
		s = wire.SumAt(d, off, s)
		off += len(d)
	}
	sum := ^wire.Fold(s)
	if sum == 0 && !c.tcp {
		// RFC 768: "If the computed checksum is zero, it is transmitted as all ones".
		sum = 0xffff
	}
	c.setSum(h, sum)
}

// dropSegments removes the first cut bytes of payload, which are whole segments, from a chain that
// has not been cut.
func dropSegments(m *mbuf.Mbuf, cut int) *mbuf.Mbuf {
	ip := wire.IPView(m.Bytes())
	d := ip.Payload()
	if ip.Proto() == wire.ProtoTCP {
		th := wire.TCPView(d)
		th.SetSeq(th.Seq().Add(cut))
		th.SetFlags(th.Flags() &^ wire.CWR)
		fixUrg(th, cut)
		d = th.Payload()
	} else if d = d[wire.UDPLen:]; len(d) >= cut { // the headers move to what is left
		b := m.Bytes()
		copy(b[cut:], b[:len(b)-len(d)])
		m.Pkt.Len -= cut
		return mbuf.Adj(m, cut)
	}
	m.Pkt.Len -= cut
	rest := m.Next()
	if len(d) > 0 { // data behind the headers: of a small segment, or of one that has arrived
		m.SetNext(nil)
		n := min(cut, len(d))
		copy(d, d[n:])
		m = mbuf.Adj(m, -n)
		cut -= n
	}
	m.SetNext(mbuf.Adj(rest, cut))
	return m
}

// vnetHeader appends to b the header of the cutter's next packet, which has n bytes of payload.
func (c *cutter) vnetHeader(b []byte, n int) []byte {
	var v wire.Vnet
	if c.partial {
		v = wire.Vnet{
			Flags: wire.VnetNeedsCsum, HdrLen: uint16(len(c.hdr)),
			CsumStart: uint16(c.iphl), CsumOffset: wire.TCPSumOff,
		}
		if !c.tcp {
			v.CsumOffset = wire.UDPSumOff
		}
	}
	if c.gso > 0 && n > c.gso {
		v.GSOType, v.GSOSize = wire.VnetTCPv4, uint16(c.gso)
		switch {
		case !c.tcp:
			v.GSOType = wire.VnetUDPL4
		case wire.IPView(c.hdr).Is6():
			v.GSOType = wire.VnetTCPv6
		}
		if c.tcp && c.sent == 0 && c.th(c.hdr).Flags()&wire.CWR != 0 {
			v.GSOType |= wire.VnetECN
		}
	}
	return v.Append(b)
}
