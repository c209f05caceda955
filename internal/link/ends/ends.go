// Package ends plays the stacks at the two ends of a link, for tests.
package ends

import (
	"bytes"
	"encoding/binary"
	"net"
	"sync"
	"testing"

	"bsdnet/internal/kern/wire"
	"bsdnet/internal/link"
)

// An End is a link that has been started, with the state that a stack would have.
type End struct {
	link.Link
	mu      sync.Mutex
	called  sync.Cond
	readies int // calls of ready
}

// Start starts l.
func Start(t testing.TB, l link.Link) *End {
	t.Helper()
	e := &End{Link: l}
	e.called.L = &e.mu
	if err := l.Start(func() {
		e.mu.Lock()
		e.readies++
		e.mu.Unlock()
		e.called.Broadcast()
	}); err != nil {
		t.Fatal(err)
	}
	return e
}

// AwaitReady waits until ready has been called more than n times, and returns how often it has been
// called.
func (e *End) AwaitReady(n int) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.readies <= n {
		e.called.Wait()
	}
	return e.readies
}

// Close closes links. If one of them is closed already, the test fails.
func Close(t testing.TB, links ...link.Link) {
	t.Helper()
	for _, l := range links {
		if err := l.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
}

// Send writes packets. When Write takes fewer than it is given, Send waits for ready.
func (e *End) Send(pkts ...net.Buffers) error {
	for readies := e.AwaitReady(-1); ; readies = e.AwaitReady(readies) {
		n, err := e.Write(pkts)
		if err != nil || n == len(pkts) {
			return err
		}
		pkts = pkts[n:]
	}
}

// Receive reads n packets, or fewer if the link ends.
func (e *End) Receive(t testing.TB, n int) [][]byte {
	t.Helper()
	bufs := make([][]byte, 8)
	for i := range bufs {
		bufs[i] = make([]byte, e.MTU())
	}
	sizes := make([]int, len(bufs))
	var got [][]byte
	for len(got) < n {
		k, err := e.Read(bufs[:min(len(bufs), n-len(got))], sizes)
		if err != nil {
			t.Errorf("Read: %v, after %d packets of %d", err, len(got), n)
			return got
		}
		for i := range k {
			got = append(got, bytes.Clone(bufs[i][:sizes[i]]))
		}
	}
	return got
}

// Packet returns an IPv4 packet of size bytes, at least 32, with a UDP header. The source port is
// flow, and the contents depend on number.
func Packet(flow, number, size int) []byte {
	b := make([]byte, size)
	b[0] = 0x45
	binary.BigEndian.PutUint16(b[2:], uint16(size))
	b[8] = 64
	b[9] = wire.ProtoUDP
	copy(b[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	putUDP(b[20:], flow, number)
	return b
}

// Packet6 returns a packet like [Packet]'s over IPv6, of size bytes, at least 52.
func Packet6(flow, number, size int) []byte {
	b := make([]byte, size)
	b[0] = 0x60
	binary.BigEndian.PutUint16(b[4:], uint16(size-40))
	b[6] = wire.ProtoUDP
	b[7] = 64
	b[8], b[23] = 0xfd, 1 // from fd00::1
	b[24], b[39] = 0xfd, 2
	putUDP(b[40:], flow, number)
	return b
}

// putUDP writes a UDP header, and a payload that begins with number and depends on it.
func putUDP(b []byte, flow, number int) {
	binary.BigEndian.PutUint16(b, uint16(flow))
	binary.BigEndian.PutUint16(b[2:], 9)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	binary.BigEndian.PutUint32(b[8:], uint32(number))
	for i := 12; i < len(b); i++ {
		b[i] = byte(i * (number + 1))
	}
}

// Flow returns the flow of a packet that [Packet] or [Packet6] has made.
func Flow(b []byte) int { return int(binary.BigEndian.Uint16(udp(b))) }

// Number returns the number of a packet that [Packet] or [Packet6] has made.
func Number(b []byte) int { return int(binary.BigEndian.Uint32(udp(b)[8:])) }

// udp returns what follows the IP header.
func udp(b []byte) []byte {
	if b[0]>>4 == 6 {
		return b[40:]
	}
	return b[20:]
}
