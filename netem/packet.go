package netem

import (
	"net"
	"sync"

	"bsdnet/internal/link"
)

// batchLen is how many packets are moved under one lock, or in one call of another link.
const batchLen = 32

// packet is a copy of an IP packet in a recycled buffer, and its place in the order in which packets leave.
type packet struct {
	data    []byte
	class   int
	arrival int64  // nanoseconds of its scheduler when it was handed over
	due     int64  // and when it is to leave
	order   uint64 // its place among the packets of its line
	flow    flowKey
}

// classes are the sizes of buffers. A packet pins the smallest that it fits, so that a queue of acknowledgements on a
// link of a large MTU costs little.
var classes = [...]int{256, 2048, 16384, link.MaxPacket}

// pools recycle packets, one pool a class. They belong to no link: what an idle link does not need, others use, and what
// nobody needs is collected.
var pools [len(classes)]sync.Pool

// newPacket returns a packet with room for n bytes, 1 <= n <= link.MaxPacket, whose contents are undefined.
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

// copyPacket returns a copy of a packet that was lent as a scatter list, or nil if it is empty or larger than mtu.
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
	c.arrival, c.due, c.order, c.flow = p.arrival, p.due, p.order, p.flow
	return c
}

// free recycles p.
func (p *packet) free() {
	pools[p.class].Put(p)
}

// freeAll recycles packets and forgets them.
func freeAll(pkts []*packet) {
	for i, p := range pkts {
		if p != nil {
			p.free()
		}
		pkts[i] = nil
	}
}
