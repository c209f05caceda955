package contract

import (
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	"bsdnet"
	"bsdnet/internal/testutil/stacktest"
	"bsdnet/netem"
)

// if0 is the first link's interface, as the methods of multicast name it.
var if0 = &net.Interface{Name: "if0"}

// A groupNet is a cable between two stacks, with addresses of both families, and a group.
type groupNet struct {
	a, b    *bsdnet.Stack
	network string
	group   *net.UDPAddr
	any     string
}

// eachGroup runs f in a bubble with a group of each family.
func eachGroup(t *testing.T, f func(t *testing.T, n *groupNet)) {
	for _, g := range []groupNet{
		{network: "udp4", group: &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: 5353}, any: "0.0.0.0"},
		{network: "udp6", group: &net.UDPAddr{IP: net.ParseIP("ff02::fb"), Port: 5353}, any: "::"},
	} {
		t.Run(g.network, func(t *testing.T) {
			inBubble(t, func(t testing.TB) *network {
				pa, pb, err := netem.Pipe(netem.PipeConfig{MTU: 1500})
				if err != nil {
					t.Fatal(err)
				}
				n := &network{server: stack(t, bsdnet.Config{}), client: stack(t, bsdnet.Config{})}
				stacktest.Attach(t, n.server, pa, "10.0.0.1/24", "fd00::1/64")
				stacktest.Attach(t, n.client, pb, "10.0.0.2/24", "fd00::2/64")
				return n
			}, func(t *testing.T, n *network) {
				g.a, g.b = n.server, n.client
				f(t, &g)
			})
		})
	}
}

// member returns a socket on the group's port that has joined the group, if join is set.
func (n *groupNet) member(t *testing.T, s *bsdnet.Stack, join bool) *bsdnet.UDPConn {
	t.Helper()
	c, err := s.ListenUDP(n.network, n.group) // whose port it shares
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if join {
		if err := c.JoinGroup(if0, n.group); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// want tests that a socket has one datagram, or none if data is "".
func (n *groupNet) want(t *testing.T, what string, c *bsdnet.UDPConn, data string) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(time.Second))
	b := make([]byte, 100)
	k, _, err := c.ReadFrom(b)
	if string(b[:k]) != data || (err == nil) != (data != "") {
		t.Errorf("%s: %q, %v; want %q", what, b[:k], err, data)
	}
}

// TestMulticast tests that a group's datagrams come to its members on both stacks, to several
// sockets of one port, and to no one else.
func TestMulticast(t *testing.T) {
	eachGroup(t, func(t *testing.T, n *groupNet) {
		here, also, not := n.member(t, n.b, true), n.member(t, n.b, true), n.member(t, n.b, false)
		sender, own := n.member(t, n.a, true), n.member(t, n.a, true)
		if udpAddr(here).String() != net.JoinHostPort(n.any, "5353") {
			t.Errorf("address %v", here.LocalAddr())
		}
		send := func(data string) {
			t.Helper()
			if _, err := sender.WriteTo([]byte(data), n.group); err != nil {
				t.Fatal(err)
			}
		}
		send("one")
		n.want(t, "a member", here, "one")
		n.want(t, "another", also, "one")
		n.want(t, "none", not, "")
		n.want(t, "on the sender's stack", own, "one")
		n.want(t, "the sender itself", sender, "one")

		if err := sender.SetMulticastLoopback(false); err != nil {
			t.Fatal(err)
		}
		send("two")
		n.want(t, "a member", here, "two")
		n.want(t, "on the sender's stack, without loopback", own, "")

		if err := also.LeaveGroup(if0, n.group); err != nil {
			t.Fatal(err)
		}
		send("three")
		n.want(t, "a member", here, "three")
		n.want(t, "another, that has seen the second and left", also, "two")
		n.want(t, "another, that has left", also, "")

		if err := sender.SetMulticastTTL(0); err != nil {
			t.Fatal(err)
		}
		send("four")
		n.want(t, "a member, with TTL 0", here, "")
		here.Close() // leaves the group
	})
}

// TestMulticastTTL tests the TTL, or the hop limit, of datagrams to a group.
func TestMulticastTTL(t *testing.T) {
	eachGroup(t, func(t *testing.T, n *groupNet) {
		c := n.member(t, n.a, false)
		var pcap buffer
		stop, err := n.a.Capture(n.a.Links()[0], &pcap)
		if err != nil {
			t.Fatal(err)
		}
		for _, ttl := range []int{1, 255, 7} {
			if ttl > 1 {
				if err := c.SetMulticastTTL(ttl); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := c.WriteTo([]byte("x"), n.group); err != nil {
				t.Fatal(err)
			}
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		at := 8 // the TTL of an IPv4 header
		if n.network == "udp6" {
			at = 7
		}
		var got []byte
		for b := pcap.b[24:]; len(b) > 0; {
			size := int(b[8]) | int(b[9])<<8
			got = append(got, b[16+at])
			b = b[16+size:]
		}
		if string(got) != "\x01\xff\x07" {
			t.Errorf("the TTLs are %v", got)
		}
		for _, ttl := range []int{-1, 256} {
			if err := c.SetMulticastTTL(ttl); !errors.Is(err, syscall.EINVAL) {
				t.Errorf("TTL %d: %v", ttl, err)
			}
		}
	})
}

// A buffer keeps what is written to it.
type buffer struct{ b []byte }

func (w *buffer) Write(b []byte) (int, error) {
	w.b = append(w.b, b...)
	return len(b), nil
}

// TestMulticastErrors tests what cannot be joined or left.
func TestMulticastErrors(t *testing.T) {
	eachGroup(t, func(t *testing.T, n *groupNet) {
		c := n.member(t, n.a, true)
		u := "set " + n.network + " C: "
		other := &net.UDPAddr{IP: net.ParseIP("ff02::99")}
		if n.network == "udp6" {
			other = &net.UDPAddr{IP: net.IPv4(224, 0, 0, 99)}
		}
		for _, a := range []struct {
			name string
			err  error
			want string
		}{
			{"again", c.JoinGroup(if0, n.group), u + "setsockopt: address already in use [EADDRINUSE SyscallError]"},
			{"again, by an IPAddr", c.JoinGroup(if0, &net.IPAddr{IP: n.group.IP}),
				u + "setsockopt: address already in use [EADDRINUSE SyscallError]"},
			{"no interface", c.JoinGroup(&net.Interface{Name: "none"}, n.group),
				u + "setsockopt: no such device [SyscallError]"},
			{"no interface to send out of", c.SetMulticastInterface(&net.Interface{Name: "none"}),
				u + "setsockopt: no such device [SyscallError]"},
			{"no group", c.JoinGroup(if0, &net.UDPAddr{IP: net.IPv4(10, 0, 0, 2)}),
				u + "setsockopt: invalid argument [EINVAL SyscallError]"},
			{"no address", c.JoinGroup(if0, nil), u + "missing address []"},
			{"an address of TCP", c.JoinGroup(if0, &net.TCPAddr{IP: n.group.IP}), u + "missing address []"},
			{"an empty address", c.LeaveGroup(if0, &net.UDPAddr{}), u + "missing address []"},
			{"no member", c.LeaveGroup(&net.Interface{Name: "lo0"}, n.group),
				u + "setsockopt: cannot assign requested address [EADDRNOTAVAIL SyscallError]"},
			{"leave", c.LeaveGroup(if0, n.group), "nil"},
			{"leave again", c.LeaveGroup(if0, n.group),
				u + "setsockopt: cannot assign requested address [EADDRNOTAVAIL SyscallError]"},
		} {
			wantError(t, a.name, a.err, a.want, c.LocalAddr(), "C")
		}
		if n.network == "udp4" {
			if err := c.JoinGroup(if0, other); !errors.Is(err, syscall.EINVAL) {
				t.Errorf("a group of the other family: %v", err)
			}
		}
		c.Close()
		const closed = "use of closed network connection [net.ErrClosed]"
		wantError(t, "closed", c.JoinGroup(if0, n.group), u+closed, c.LocalAddr(), "C")
		wantError(t, "closed", c.SetMulticastTTL(1), u+closed, c.LocalAddr(), "C")
		wantError(t, "closed", c.SetMulticastLoopback(true), u+closed, c.LocalAddr(), "C")
		wantError(t, "closed", c.SetMulticastInterface(if0), u+closed, c.LocalAddr(), "C")
	})
}

// TestListenMulticastUDP tests net.ListenMulticastUDP as responders of multicast DNS use it: two on
// one stack, and an answer to the sender alone.
func TestListenMulticastUDP(t *testing.T) {
	eachGroup(t, func(t *testing.T, n *groupNet) {
		var list []*bsdnet.UDPConn
		for range 2 {
			c, err := n.b.ListenMulticastUDP(n.network, if0, n.group)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			list = append(list, c)
		}
		q, err := n.a.ListenUDP(n.network, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		if err := q.SetMulticastInterface(if0); err != nil {
			t.Fatal(err)
		}
		if _, err := q.WriteTo([]byte("who"), n.group); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 10)
		for _, c := range list {
			k, from, err := c.ReadFrom(b)
			if string(b[:k]) != "who" || err != nil {
				t.Fatalf("%q, %v", b[:k], err)
			}
			if _, err := c.WriteTo([]byte("me"), from); err != nil {
				t.Fatal(err)
			}
			n.want(t, "the answer", q, "me")
		}
		list[0].WriteTo([]byte("announced"), n.group)
		n.want(t, "another on the stack of a sender without loopback", list[1], "")

		for _, a := range []struct {
			network string
			ifi     *net.Interface
			gaddr   *net.UDPAddr
			want    string
		}{
			{"tcp", nil, n.group, "listen tcp G: unknown network tcp []"},
			{n.network, nil, nil, "listen " + n.network + ": missing address []"},
			{n.network, nil, &net.UDPAddr{Port: 5}, "listen " + n.network + " :5: missing address []"},
			{n.network, &net.Interface{Name: "none"}, n.group,
				"listen " + n.network + " G: setsockopt: no such device [SyscallError]"},
		} {
			_, err := n.a.ListenMulticastUDP(a.network, a.ifi, a.gaddr)
			wantError(t, "ListenMulticastUDP", err, a.want, n.group, "G")
		}
		if l := n.a.UDPConns(); len(l) != 1 {
			t.Errorf("sockets that failed are left: %+v", l)
		}
	})
}
