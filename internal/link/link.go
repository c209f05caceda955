// Package link has what the links share: the interfaces that they implement, the states that they go through, and the bounds of what they carry.
package link

import (
	"net"
	"net/netip"
)

// Link is bsdnet.Link, whose comment is the contract. It stands here for those whom package bsdnet imports, and who so cannot import it: the stack, and
// the links, which are kept apart from the stack. A test compares the two.
type Link interface {
	MTU() int
	Start(ready func()) error
	Read(bufs [][]byte, sizes []int) (n int, err error)
	Write(pkts []net.Buffers) (n int, err error)
	Close() error
}

// OffloadLink is bsdnet.OffloadLink.
type OffloadLink interface {
	Link
	Offload() bool
}

// QueueLink is bsdnet.QueueLink.
type QueueLink interface {
	Link
	Queues() int
	ReadQueue(q int, bufs [][]byte, sizes []int) (int, error)
	WriteQueue(q int, pkts []net.Buffers) (int, error)
}

// DiagnosingLink is bsdnet.DiagnosingLink.
type DiagnosingLink interface {
	Link
	Diagnose(to netip.Addr) error
}

// The bounds of an MTU, in bytes, and that of Ethernet. An IPv4 link carries at least 68 (RFC 791, 3.2), an IPv6 link at least 1280 (RFC 8200, 5); no
// packet is longer than 65535 (RFC 791, 3.1; RFC 8200, 3).
const (
	MinMTU     = 68
	DefaultMTU = 1500
	MaxPacket  = 65535
)
