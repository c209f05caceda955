//go:build !linux

package udptunnel

import (
	"net"
	"net/netip"
)

// socket sends datagrams one at a time.
type socket struct {
	conn  *net.UDPConn
	noted func(err error, to netip.AddrPort) // not used: these systems do not report ICMP messages
}

func (s *socket) init(conn *net.UDPConn) error {
	s.conn = conn
	conn.SetReadBuffer(socketSpace)
	conn.SetWriteBuffer(socketSpace)
	return nil
}

// send sends the datagrams that b consists of, each of size bytes except the last, and returns how
// many it has sent before the error.
func (s *socket) send(b []byte, size int, to netip.AddrPort) (int, error) {
	for n := 0; ; n++ {
		if len(b) == 0 {
			return n, nil
		}
		k := min(size, len(b))
		if _, err := s.conn.WriteToUDPAddrPort(b[:k], to); err != nil {
			return n, err
		}
		b = b[k:]
	}
}

// sendInPieces sends one datagram. These systems fragment every datagram that needs it.
func (s *socket) sendInPieces(b []byte, to netip.AddrPort) error {
	_, err := s.send(b, len(b), to)
	return err
}

// waitForRoom returns at once, because send waits itself.
func (s *socket) waitForRoom() {}

// drain returns 0: these systems have no queue of ICMP messages.
func (s *socket) drain() int { return 0 }

// segmentSize returns n: a read returns one datagram.
func segmentSize(oob []byte, n int) int { return n }

// pathMTU returns 0: the path's MTU is not known.
func pathMTU(to netip.AddrPort) int { return 0 }
