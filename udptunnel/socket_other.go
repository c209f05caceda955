//go:build !linux

package udptunnel

import (
	"net"
	"net/netip"
)

// socket sends datagrams one at a time.
type socket struct {
	conn  *net.UDPConn
	noted func(err error, to netip.AddrPort) // would be told of ICMP messages, of which such a socket learns nothing
}

func (s *socket) init(conn *net.UDPConn) error {
	s.conn = conn
	conn.SetReadBuffer(socketSpace)
	conn.SetWriteBuffer(socketSpace)
	return nil
}

// send sends the datagrams that b is made of, each of size bytes but for the last, and returns how many it has sent before the error.
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

// waitForRoom returns at once: send waits itself.
func (s *socket) waitForRoom() {}

// drain would take the ICMP messages off the socket's queue, and returns how many there were.
func (s *socket) drain() int { return 0 }

// segmentSize returns the size of the datagrams that a read has brought: it is one.
func segmentSize(oob []byte, n int) int { return n }

// pathMTU returns 0: the system is not asked.
func pathMTU(to netip.AddrPort) int { return 0 }
