// Package link carries IP packets between a stack and the world. A link is a point-to-point medium below IP: it has an
// MTU, it takes packets and it gives packets, whole and without any framing, and it may lose them.
//
// [NewPipe] is a cable between two stacks of one process, [OpenTUN] leads to the kernel, [NewUDPTunnel] through datagrams to another process or host.
// [NewImpair] wraps any link and makes it as bad as wanted.
package link

import (
	"errors"
	"net"
)

// Link is what a stack needs from a medium. Its methods use only predeclared types and those of the standard library,
// so that anyone can write one.
//
// The calls come in this order: MTU at any time; Start once; then Read from one goroutine at a time and Write from any
// number of them; Close at any time, also without a Start and also while Read and Write are under way. Read or Write
// before Start is an error.
type Link interface {
	// MTU returns the size in bytes of the largest IP packet, headers included, that the link carries. It is constant.
	MTU() int

	// Start makes the link ready to carry packets. It is called once. After a failed Start only Close may be called.
	//
	// The link keeps ready, which must not be nil, and calls it when a Write that was cut short may be tried again. It
	// calls it from any goroutine, but never from within Write, and holds no lock then that Write takes. The call may
	// come before the Write that was cut short has returned, it may come without need, and one that is under way when
	// Close is called may end after it. ready only schedules work: it does not block and does not call back into the
	// link.
	Start(ready func()) error

	// Read waits until there is at least one packet, copies up to len(bufs) packets, packet i into bufs[i] and its
	// length into sizes[i], and returns how many. It does not wait for more than are there. A packet larger than its
	// buffer is dropped, never cut. What arrives in one flow is read in the order in which it has arrived.
	//
	// After Close it returns 0 and net.ErrClosed. Any other error is final too: the link is broken.
	Read(bufs [][]byte, sizes []int) (int, error)

	// Write sends packets and returns how many of them, from the first on, it has taken. Each packet is a list of
	// slices, its bytes in order. The packets are lent: the link neither modifies them nor keeps them, nor the slices
	// that list them, after it has returned.
	//
	// Write never blocks. A packet counts as taken when it is sent or deliberately dropped, as an empty one and one
	// larger than the MTU are. n < len(pkts) with a nil error says that the link is full; it calls ready when there is
	// room again. Packets that one goroutine writes after another, or two goroutines with a happens-before between
	// them, are not put out of order within a flow by a link that does not set out to do so.
	//
	// After Close it returns 0 and net.ErrClosed. With any other error the packets from n on could not be sent; the
	// caller drops them, and may write again.
	Write(pkts []net.Buffers) (int, error)

	// Close ends Read and Write, also those that wait, with net.ErrClosed, and releases what the link holds: when it
	// returns, no goroutine and no timer of the link is left. A second Close does nothing and returns net.ErrClosed.
	Close() error
}

var (
	errNotStarted = errors.New("link: not started")
	errStarted    = errors.New("link: started twice")
	errNoReady    = errors.New("link: Start needs a ready function")
)

// The states of a link.
const (
	stateNew = iota
	stateStarted
	stateClosed
)

// stateError returns what Read and Write return in a state.
func stateError(state int32) error {
	switch state {
	case stateNew:
		return errNotStarted
	case stateClosed:
		return net.ErrClosed
	}
	return nil
}

// An Offloader is a link that passes work on to what is behind it: it carries chains that are cut, and checksums that are filled in,
// elsewhere.
type Offloader interface {
	Link

	// Offload is called, if at all, once and before Start. Where it returns true each packet, in Read and in Write, begins with a
	// virtio-net header of VnetHdrLen bytes from then on, and may be of up to 65535 bytes behind it, whatever the MTU.
	Offload() bool
}

// VnetHdrLen is the length in bytes of the virtio-net header (struct virtio_net_hdr of the OASIS standard, 5.1.6, without num_buffers; little
// endian): flags, gso_type, hdr_len, gso_size, csum_start, csum_offset.
const VnetHdrLen = 10

// A Multiqueuer is a link of several queues, which different goroutines read at the same time. A flow stays on the queue on which it was
// written. Read and Write are those of queue 0.
type Multiqueuer interface {
	Link

	// Queues returns how many there are, always the same. With one, only Read and Write are called; else never.
	Queues() int

	// ReadQueue is Read, and WriteQueue Write, of queue q.
	ReadQueue(q int, bufs [][]byte, sizes []int) (int, error)
	WriteQueue(q int, pkts []net.Buffers) (int, error)
}
