package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// A packetConn is a UDP socket, without a peer of its own.
type packetConn interface {
	net.PacketConn
	ReadFromUDPAddrPort(b []byte) (n int, from netip.AddrPort, err error)
	WriteToUDPAddrPort(b []byte, to netip.AddrPort) (n int, err error)
}

// maxDatagram is the size of the largest datagram over IPv4 in bytes.
const maxDatagram = 65535 - 20 - 8

// dgramRow returns a row in which one socket sends datagrams to another. With large ones the unit
// is that of bulk.
func dgramRow(scene, way string, size int) row {
	r := row{
		name: named(scene, "dgram"+way+sizeName(size)), title: fmt.Sprintf("datagrams of %d B, one way", size),
		kind: kindDgram, scene: scene, unit: "datagrams/s",
	}
	if size == maxDatagram {
		r.name, r.unit, r.perGB = named(scene, "dgram"+way+"64k"), "Gbit/s", true
	}
	switch way {
	case "-up":
		r.title += ", the kernel sends"
	case "-down":
		r.title += ", the stack sends"
	}
	r.run = func(m *meter) error { return dgrams(m, size, way == "-down") }
	return r
}

// packets returns a client's and a server's socket, between which datagrams can go.
func (m *meter) packets() (client, server packetConn, err error) {
	if m.net.packets == nil {
		return nil, nil, errNoPackets
	}
	if client, server, err = m.net.packets(); err != nil {
		return nil, nil, err
	}
	m.keep(client)
	m.keep(server)
	return client, server, nil
}

var errNoPackets = errors.New("the peer has no datagrams")

func dgrams(m *meter, size int, down bool) error {
	from, to, err := m.packets()
	if err != nil {
		return err
	}
	if down {
		from, to = to, from
	}
	dst := to.LocalAddr().(*net.UDPAddr).AddrPort()
	if err := verifyDgrams(from, to, dst, size); err != nil {
		return err
	}
	got := make([]counter, 1)
	m.spawn(func() error { return takeDgrams(m, to, size, &got[0]) })
	m.spawn(func() error { return sendDgrams(m, from, dst, size) })
	w, err := m.window(got)
	if err != nil {
		return err
	}
	if size < maxDatagram {
		m.sample.Value = w.count / w.seconds
		m.perOp(w, w.count)
		return nil
	}
	m.sample.Value = w.count * float64(size) * 8 / 1e9 / w.seconds
	m.perGB(w, w.count*float64(size), w.count)
	return nil
}

// sendDgrams sends until the measurement is over. What the receiver has no room for is lost.
func sendDgrams(m *meter, c packetConn, to netip.AddrPort, size int) error {
	buf := make([]byte, size)
	for m.phase.Load() != over {
		if _, err := c.WriteToUDPAddrPort(buf, to); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
	return nil
}

// takeDgrams reads until the measurement is over, and counts the datagrams.
func takeDgrams(m *meter, c packetConn, size int, got *counter) error {
	buf := make([]byte, size+1)
	for m.phase.Load() != over {
		n, _, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		if n != size {
			return fmt.Errorf("a datagram of %d bytes; it was sent with %d", n, size)
		}
		got.n.Add(1)
	}
	return nil
}

// verifyDgrams sends a few datagrams, each until it arrives, and compares them.
func verifyDgrams(from, to packetConn, dst netip.AddrPort, size int) error {
	const tries = 5
	out, in := make([]byte, size), make([]byte, size+1)
	defer to.SetReadDeadline(time.Time{})
	for i := range 8 {
		for j := range out {
			out[j] = byte(i + j)
		}
		for try := 0; ; try++ {
			if _, err := from.WriteToUDPAddrPort(out, dst); err != nil {
				return fmt.Errorf("verify: write: %w", err)
			}
			to.SetReadDeadline(time.Now().Add(time.Second))
			n, _, err := to.ReadFromUDPAddrPort(in)
			if err == nil && bytes.Equal(in[:n], out) {
				break
			}
			if err == nil { // one that was late, and was sent again meanwhile
				err = errors.New("the received datagram differs from the sent one")
			}
			if try == tries {
				return fmt.Errorf("verify: %w", err)
			}
		}
	}
	return nil
}
