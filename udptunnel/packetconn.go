package udptunnel

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// A transport carries the tunnel's datagrams. There are two: a udpTransport has a socket of the
// system, and a packetTransport any other net.PacketConn.
type transport interface {
	// read waits for datagrams from one sender. It returns their length together, and the size of
	// each except the last. If the read deadline passes, the error wraps os.ErrDeadlineExceeded.
	read(b []byte) (n, size int, src endpoint, err error)

	// send sends the datagrams that b consists of, each of size bytes except the last, and returns
	// how many it has sent before the error. It never waits: it returns errFull instead.
	send(b []byte, size int, to endpoint) (int, error)

	// sendInPieces sends one datagram, which IP may fragment.
	sendInPieces(b []byte, to endpoint) error

	// waitForRoom waits until send takes datagrams, or the transport is closed.
	waitForRoom()

	// drain takes the errors about datagrams that were sent before, and returns how many there
	// were.
	drain() int

	// pathMTU returns what the path to a host carries in one packet, in bytes including the IP
	// header, or 0 if it is not known.
	pathMTU(to endpoint) int

	SetReadDeadline(t time.Time) error
	Close() error
}

// A udpTransport is a socket of the system.
type udpTransport struct {
	*net.UDPConn
	s   *socket
	oob []byte // the control messages of a read
}

func (t *udpTransport) read(b []byte) (n, size int, src endpoint, err error) {
	n, oobn, _, from, err := t.ReadMsgUDPAddrPort(b, t.oob)
	if err != nil {
		return 0, 0, endpoint{}, err
	}
	return n, segmentSize(t.oob[:oobn], n), udp(from), nil
}

func (t *udpTransport) send(b []byte, size int, to endpoint) (int, error) {
	return t.s.send(b, size, to.AddrPort)
}

func (t *udpTransport) sendInPieces(b []byte, to endpoint) error {
	return t.s.sendInPieces(b, to.AddrPort)
}

func (t *udpTransport) waitForRoom() { t.s.waitForRoom() }

func (t *udpTransport) drain() int { return t.s.drain() }

func (t *udpTransport) pathMTU(to endpoint) int { return pathMTU(to.AddrPort) }

// A packetTransport is a net.PacketConn of which nothing is known. Its WriteTo may wait, and a
// link's Write may not, so a goroutine calls WriteTo for the datagrams in a queue.
type packetTransport struct {
	net.PacketConn
	addrPort addrPortConn                               // the same PacketConn, or nil
	failed   func(err error, datagram int, to endpoint) // is told that a datagram was not sent

	mu     sync.Mutex
	change sync.Cond
	queue  [sendQueue]queued
	head   int
	n      int
	closed bool
	ended  chan struct{} // closed when the goroutine has ended
}

// sendQueue is how many datagrams wait for a WriteTo.
const sendQueue = 64

type queued struct {
	b  []byte
	to endpoint
}

// addrPortConn has methods that need no memory for an address. *net.UDPConn and *bsdnet.UDPConn
// have them.
type addrPortConn interface {
	ReadFromUDPAddrPort(b []byte) (n int, addr netip.AddrPort, err error)
	WriteToUDPAddrPort(b []byte, addr netip.AddrPort) (int, error)
}

func newPacketTransport(pc net.PacketConn, failed func(err error, datagram int, to endpoint)) *packetTransport {
	t := &packetTransport{PacketConn: pc, failed: failed, ended: make(chan struct{})}
	t.addrPort, _ = pc.(addrPortConn)
	t.change.L = &t.mu
	go t.sender()
	return t
}

func (t *packetTransport) read(b []byte) (n, size int, src endpoint, err error) {
	if t.addrPort != nil {
		var from netip.AddrPort
		n, from, err = t.addrPort.ReadFromUDPAddrPort(b)
		src = udp(from)
	} else {
		var from net.Addr
		n, from, err = t.ReadFrom(b)
		src = endpointOf(from)
	}
	var timeout net.Error
	switch {
	case err == nil && (n < 0 || n > len(b)):
		return 0, 0, endpoint{}, io.ErrShortBuffer // a PacketConn that breaks its contract
	case err == nil:
		return n, n, src, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
	case errors.As(err, &timeout) && timeout.Timeout():
		err = os.ErrDeadlineExceeded // package net's own error for a deadline cannot be made elsewhere
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrClosedPipe):
		err = net.ErrClosed
	}
	return 0, 0, endpoint{}, err
}

func (t *packetTransport) send(b []byte, size int, to endpoint) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return 0, net.ErrClosed
	}
	for n := 0; ; n++ {
		if len(b) == 0 {
			return n, nil
		}
		if t.n == sendQueue {
			return n, errFull
		}
		k := min(size, len(b))
		q := &t.queue[(t.head+t.n)%sendQueue]
		q.b, q.to = append(q.b[:0], b[:k]...), to
		t.n++
		t.change.Broadcast()
		b = b[k:]
	}
}

func (t *packetTransport) sendInPieces(b []byte, to endpoint) error {
	_, err := t.send(b, len(b), to)
	return err
}

// sender calls WriteTo until the transport is closed.
func (t *packetTransport) sender() {
	defer close(t.ended)
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		for t.n == 0 && !t.closed {
			t.change.Wait()
		}
		if t.closed {
			return
		}
		q := &t.queue[t.head] // send does not touch it: it counts as waiting
		t.mu.Unlock()
		err := t.writeTo(q.b, q.to)
		if err != nil {
			t.failed(err, len(q.b), q.to)
		}
		t.mu.Lock()
		t.head = (t.head + 1) % sendQueue
		t.n--
		t.change.Broadcast()
	}
}

func (t *packetTransport) writeTo(b []byte, to endpoint) (err error) {
	if t.addrPort != nil && to.other == nil {
		_, err = t.addrPort.WriteToUDPAddrPort(b, to.AddrPort)
	} else {
		_, err = t.WriteTo(b, to.netAddr())
	}
	if errors.Is(err, syscall.EMSGSIZE) {
		return errTooLarge
	}
	return err
}

func (t *packetTransport) waitForRoom() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.n == sendQueue && !t.closed {
		t.change.Wait()
	}
}

// drain returns 0: a net.PacketConn has no queue of errors.
func (t *packetTransport) drain() int { return 0 }

// pathMTU returns 0: a net.PacketConn does not know its path.
func (t *packetTransport) pathMTU(endpoint) int { return 0 }

// Close closes the net.PacketConn, and returns when the goroutine has ended.
func (t *packetTransport) Close() error {
	t.mu.Lock()
	t.closed = true
	t.change.Broadcast()
	t.mu.Unlock()
	err := t.PacketConn.Close()
	<-t.ended
	return err
}
