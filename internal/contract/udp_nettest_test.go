package contract

import (
	"io"
	"net"
	"sync"
	"testing"

	"bsdnet"

	"golang.org/x/net/nettest"
)

// A datagramStream is a socket with a peer, read as a stream, as nettest.TestConn needs it: what a
// Read leaves of a datagram is for the next one, and Close sends an empty datagram, which is the
// end.
type datagramStream struct {
	net.Conn
	mu    sync.Mutex // a reader's turn
	left  []byte
	ended bool
	buf   [64 << 10]byte
}

func (s *datagramStream) Read(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.left) == 0 && !s.ended {
		n, err := s.Conn.Read(s.buf[:])
		if err != nil {
			return 0, err
		}
		s.left, s.ended = s.buf[:n], n == 0
	}
	if s.ended {
		return 0, io.EOF
	}
	n := copy(b, s.left)
	s.left = s.left[n:]
	return n, nil
}

func (s *datagramStream) Close() error {
	s.Conn.Write(nil)
	return s.Conn.Close()
}

// TestUDPNettest runs the tests of golang.org/x/net/nettest over two UDP sockets that are each
// other's peer. A buffer that holds all that the tests send makes up for the missing flow control.
func TestUDPNettest(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		s := stack(t, bsdnet.Config{})
		n := &network{server: s, client: s, shost: "127.0.0.1", chost: "127.0.0.1"}
		u1, u2 := n.udpPair(t)
		for _, u := range []udpConn{u1, u2} {
			if err := u.SetReadBuffer(7 << 20); err != nil {
				return nil, nil, nil, err
			}
		}
		c1, c2 = &datagramStream{Conn: u1}, &datagramStream{Conn: u2}
		return c1, c2, func() { c1.Close(); c2.Close() }, nil
	})
}
