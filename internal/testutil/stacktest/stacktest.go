// Package stacktest makes stacks for tests, and attaches links to them. It is not part of package
// testutil because the tests of packages that the stack imports use that one.
package stacktest

import (
	"net/netip"
	"testing"
	"time"

	"bsdnet"
)

// New makes a stack and closes it at the end of the test. The test fails if the stack has not
// returned all its buffers then.
func New(t testing.TB, c bsdnet.Config) *bsdnet.Stack {
	t.Helper()
	s, err := bsdnet.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		m := s.Stats().Memory
		for i := 0; (m.Buffers != 0 || m.Bytes != 0) && i < 1000; i++ { // a call may be about to return
			time.Sleep(time.Millisecond)
			m = s.Stats().Memory
		}
		if m.Buffers != 0 || m.Bytes != 0 {
			t.Errorf("after Close the stack holds %d buffers of %d bytes", m.Buffers, m.Bytes)
		}
		if l := s.Conns(); len(l) != 0 {
			t.Errorf("after Close there are %d connections, the first %+v", len(l), l[0])
		}
		if l := s.UDPConns(); len(l) != 0 {
			t.Errorf("after Close there are %d UDP sockets, the first %+v", len(l), l[0])
		}
	})
	return s
}

// Attach attaches a link to a stack under addresses with the lengths of their prefixes, such as
// 10.0.0.1/24.
func Attach(t testing.TB, s *bsdnet.Stack, l bsdnet.Link, addrs ...string) {
	t.Helper()
	var list []netip.Prefix
	for _, a := range addrs {
		list = append(list, netip.MustParsePrefix(a))
	}
	if err := s.Attach(l, list...); err != nil {
		t.Fatal(err)
	}
}
