package main

import (
	"net"
	"regexp"
	"testing"

	"bsdnet"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/link/loopback"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// congestionOf returns the congestion control of a connection, under the name that the connection's
// implementation has for it.
func congestionOf(t *testing.T, c net.Conn) (name string) {
	t.Helper()
	switch c := c.(type) {
	case *bsdnet.TCPConn:
		return c.Info().CongestionControl
	case *net.TCPConn:
		rc, err := c.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		rc.Control(func(fd uintptr) {
			name, err = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION)
		})
		if err != nil {
			t.Fatal(err)
		}
		return name
	}
	t.Fatalf("a %T", c)
	return ""
}

// Both ends of every connection have the chosen congestion control, in any namespace.
func TestCongestionAtBothEnds(t *testing.T) {
	for _, cc := range congestions {
		if err := cc.possible(); err != nil {
			t.Logf("%s: %v", cc.kernel, err)
			continue
		}
		for _, s := range scenes() {
			if s.check != nil && s.check() != nil {
				t.Logf("%s: %v", s.name, s.check())
				continue
			}
			for _, q := range s.peers {
				if regexp.MustCompile("bsdnet|veth|kernel").MatchString(q.name) {
					t.Run(cc.kernel+"/"+s.name+"/"+q.name, func(t *testing.T) { testCongestion(t, cc, s.name, q) })
				}
			}
		}
		st, err := newGvisor(cc, loopback.New(), clientPrefix)
		if err != nil {
			t.Fatal(err)
		}
		var got tcpip.CongestionControlOption
		st.TransportProtocolOption(tcp.ProtocolNumber, &got)
		if string(got) != cc.gvisor {
			t.Errorf("gVisor has %s instead of %s", got, cc.gvisor)
		}
		gvisorEnd(st)
	}
	if _, err := findCongestion("westwood"); err == nil {
		t.Error("no error for a congestion control that bsdnet does not have")
	}
}

func testCongestion(t *testing.T, cc congestion, scene string, q peer) {
	n, err := q.open(cc)
	if err != nil {
		t.Fatal(err)
	}
	defer n.close()
	m := newMeter(n, tiny)
	defer m.finish()
	clients, servers, err := m.connect(1)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{clients[0], servers[0]} {
		want := cc.kernel
		if _, ok := c.(*bsdnet.TCPConn); ok {
			want = cc.bsdnet
		}
		if got := congestionOf(t, c); got != want {
			t.Errorf("%v has %s instead of %s", c.LocalAddr(), got, want)
		}
	}
}
