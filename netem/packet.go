package netem

import (
	"net"
	"sync"

	"bsdnet/internal/link"
)

// batchLen is how many packets are moved under one lock, or in one call of another link.
const batchLen = 32

// packet is a copy of an IP packet in a recycled buffer, with its place in the order in which
// packets leave.
type packet struct {
	data    []byte
	class   int
	arrival int64  // when it was submitted, in nanoseconds of its scheduler
	due     int64  // when it is to leave, in the same units
	order   uint64 // its place among the packets of its line
	flow    flowKey
	mark    mark
}

// classes are the sizes of buffers. A packet occupies the smallest buffer that it fits into, so
// that a queue of acknowledgements costs little on a link with a large MTU.
var classes = [...]int{256, 2048, 16384, link.MaxPacket}

// pools recycle packets; there is one pool per class. The pools belong to no link: a busy link uses
// the packets that an idle link does not need, and the garbage collector frees those that no link
// needs.
var pools [len(classes)]sync.Pool

// newPacket returns a packet with room for n bytes, 1 <= n <= link.MaxPacket. The contents are
// undefined.
func newPacket(n int) *packet {
	class := 0
	for classes[class] < n {
		class++
	}
	p, _ := pools[class].Get().(*packet)
	if p == nil {
		p = &packet{data: make([]byte, classes[class]), class: class}
	}
	p.data = p.data[:n]
	return p
}

// copyPacket returns a copy of a packet that the caller has in several pieces, or nil if the packet
// is empty or larger than mtu.
func copyPacket(bufs net.Buffers, mtu int) *packet {
	n := 0
	for _, b := range bufs {
		n += len(b)
		if n > mtu {
			return nil
		}
	}
	if n == 0 {
		return nil
	}
	p := newPacket(n)
	to := p.data
	for _, b := range bufs {
		to = to[copy(to, b):]
	}
	return p
}

// clone returns a copy of p in a buffer of its own.
func (p *packet) clone() *packet {
	c := newPacket(len(p.data))
	copy(c.data, p.data)
	c.arrival, c.due, c.order, c.flow, c.mark = p.arrival, p.due, p.order, p.flow, p.mark
	return c
}

// free recycles p.
func (p *packet) free() {
	pools[p.class].Put(p)
}

// freeAll recycles packets and clears pkts.
func freeAll(pkts []*packet) {
	for i, p := range pkts {
		if p != nil {
			p.free()
		}
		pkts[i] = nil
	}
}
