// Package link has what all links share: the interfaces that they implement, their states, and the
// limits of an MTU.
package link

import (
	"net"
	"net/netip"
)

// Link is bsdnet.Link, whose comment is the contract. It is repeated here for the stack and the
// links, which package bsdnet imports and which therefore cannot import it. A test compares the
// two.
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

// UDPOffloadLink is bsdnet.UDPOffloadLink.
type UDPOffloadLink interface {
	OffloadLink
	OffloadUDP() bool
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

// The limits of an MTU, in bytes, and the MTU of Ethernet. An IPv4 link carries packets of at least
// 68 bytes (RFC 791, 3.2), and an IPv6 link packets of at least 1280 (RFC 8200, 5). No packet is
// longer than 65535 bytes (RFC 791, 3.1).
const (
	MinMTU     = 68
	DefaultMTU = 1500
	MaxPacket  = 65535
)
