package bsdnet

import (
	"net"
	"net/netip"
)

// A Link carries IP packets between a stack and the world. Anyone may write one: its methods use
// standard types only, and package [bsdnet/linktest] tests whether they do what is said here.
//
// The stack calls MTU and then Start once, in Attach; from then on Read from one goroutine, and
// Write from any. Close may come at any time, also without a Start, and while Read and Write are
// under way. Read and Write before Start return an error.
type Link interface {
	// MTU returns the largest IP packet, in bytes with its headers, that the link carries: 68 to
	// 65535, and always the same.
	MTU() int

	// Start makes the link ready to carry packets. It returns an error if ready is nil or the link
	// has been started before, and net.ErrClosed after Close. After an error only Close is called.
	//
	// When a Write has taken less than it was given, the link calls ready as soon as it can take
	// more: from any goroutine, but not from within Write, and not with a lock held that Write
	// takes. The call may come before that Write has returned, it may come without need, and one
	// that is under way when Close is called may end after it. ready returns at once and does not
	// call the link.
	Start(ready func()) error

	// Read waits for packets and copies up to len(bufs) of them, each whole, packet i into bufs[i]
	// and its length into sizes[i]. It returns how many there are: at least one, unless there is an
	// error or bufs is empty. It does not wait for more packets than are there. The stack's buffers
	// have room for MTU bytes; a packet that is longer than its buffer is dropped, never cut.
	// Packets of one flow are read in the order in which they have arrived.
	//
	// An error ends the link: net.ErrClosed after Close. If Read or Write returns a count or a
	// length that breaks these rules, the link is broken: see [Stack.LinkErr].
	Read(bufs [][]byte, sizes []int) (n int, err error)

	// Write takes packets, each in one or more pieces, and returns how many it has taken, from the
	// first on. A packet is taken if it is sent or dropped: a link may drop any packet, as networks
	// do, and drops empty packets and those longer than the MTU. Write never waits: if n <
	// len(pkts) without an error, the link is full, and calls ready later. The packets are lent:
	// the link must not change them or the slices that list them, nor keep them after Write has
	// returned. Packets of one flow that are written one after another stay in their order, unless
	// the link is there to disorder them.
	//
	// After Close, Write returns 0 and net.ErrClosed. With any other error the packets from n on
	// could not be sent: the stack drops them, and goes on writing.
	Write(pkts []net.Buffers) (n int, err error)

	// Close ends Read and Write, also those that wait, with net.ErrClosed, and returns when no
	// goroutine and no timer of the link is left. A second Close does nothing and returns
	// net.ErrClosed.
	Close() error
}

// An OffloadLink is a [Link] with the offloads of a network card: it carries large segments whole
// and without their checksums, and its other end cuts them and fills the checksums in, or has no
// need to. The Link of package tun is one. Wrappers that look at packets, such as those of package
// netem, are no OffloadLinks, and get packets as they are on a wire.
type OffloadLink interface {
	Link

	// Offload is called at most once, before Start. If it returns true each packet, in Read and in
	// Write, begins with a virtio-net header of 10 bytes from then on (struct virtio_net_hdr, OASIS
	// virtio 1.2, 5.1.6, little endian, without num_buffers), which tells the size of its segments
	// and where a checksum is to be filled in; behind it there may be 65535 bytes, whatever the
	// MTU.
	Offload() bool
}

// A UDPOffloadLink is an [OffloadLink] that also cuts chains of UDP datagrams, over IPv4 and IPv6.
// The Link of package tun is one.
type UDPOffloadLink interface {
	OffloadLink

	// OffloadUDP is called at most once, after Offload has returned true and before Start. If it
	// returns true, a packet in Read and in Write may also be a chain of datagrams, all of which
	// except the last have the same length: VIRTIO_NET_HDR_GSO_UDP_L4. A packet that is written has
	// at most 64 of them.
	OffloadUDP() bool
}

// A QueueLink is a [Link] of several queues, each of which the stack reads on a goroutine of its
// own, so that connections spread over processors. What is written on a queue should come back on
// the same. The Link of package tun is one.
type QueueLink interface {
	Link

	// Queues returns the number of queues, which is always the same. If it is 1, the stack calls
	// Read and Write; otherwise it calls ReadQueue and WriteQueue instead.
	Queues() int

	// ReadQueue and WriteQueue are Read and Write of queue q, 0 to Queues()-1.
	ReadQueue(q int, bufs [][]byte, sizes []int) (int, error)
	WriteQueue(q int, pkts []net.Buffers) (int, error)
}

// A DiagnosingLink is a [Link] that may know why nothing comes through. The Links of packages
// udptunnel and wireguard are DiagnosingLinks; the link that netem.Impair returns asks the one that
// it wraps.
type DiagnosingLink interface {
	Link

	// Diagnose is asked when a dial, or a connection, to an address that the link leads to has
	// timed out. What it returns becomes part of the error's text: "dial tcp 10.0.0.1:80: i/o
	// timeout (udptunnel: no answer from 192.0.2.1:7000: connection refused)". errors.Is and the
	// error's Timeout give the same answers with that text as without. Diagnose returns nil if the
	// link knows nothing. It does not wait, and is called from any goroutine.
	Diagnose(to netip.Addr) error
}
