package udptunnel_test

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet"
	"bsdnet/internal/testutil/stacktest"
	"bsdnet/netem"
	"bsdnet/udptunnel"
)

// A tunnel goes through the UDP of two other stacks, over both families, in a bubble: the inner
// stacks talk, and learn what the path carries.
func TestThroughStacks(t *testing.T) {
	for _, outer := range []string{"192.0.2.", "2001:db8::"} {
		t.Run(outer, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testThroughStacks(t, outer) })
		})
	}
}

func testThroughStacks(t *testing.T, outer string) {
	a, b, err := netem.Pipe(netem.PipeConfig{MTU: 1500})
	if err != nil {
		t.Fatal(err)
	}
	link, err := netem.Impair(a, netem.Path{Write: netem.Impairment{Delay: 10 * time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]*bsdnet.UDPConn
	for i, l := range []bsdnet.Link{link, b} {
		s := stacktest.New(t, bsdnet.Config{})
		addr := netip.MustParseAddr(outer + string(rune('1'+i)))
		stacktest.Attach(t, s, l, netip.PrefixFrom(addr, addr.BitLen()-8).String())
		conns[i], err = s.ListenUDP("udp", &net.UDPAddr{IP: addr.AsSlice(), Port: 7000})
		if err != nil {
			t.Fatal(err)
		}
	}
	t1 := open(t, udptunnel.Config{Conn: conns[0]})
	t2 := open(t, udptunnel.Config{Conn: conns[1], PeerAddr: conns[0].LocalAddr()})
	s1, s2 := stacktest.New(t, bsdnet.Config{}), stacktest.New(t, bsdnet.Config{})
	stacktest.Attach(t, s1, t1, "10.0.0.1/24", "fd00::1/64")
	stacktest.Attach(t, s2, t2, "10.0.0.2/24", "fd00::2/64")
	sendTo(t, s2, s1, "10.0.0.1:80", 1<<20)
	sendTo(t, s1, s2, "[fd00::2]:80", 1<<20)
	if t1.Peer() != t2.LocalAddr() || t2.Peer() != t1.LocalAddr() {
		t.Errorf("peers: %v, %v", t1.Peer(), t2.Peer())
	}
	t2.Close()
	if _, err := conns[1].WriteTo([]byte("x"), conns[0].LocalAddr()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the Conn of a closed tunnel: %v", err)
	}
	s1.Close()
	s2.Close()
}
