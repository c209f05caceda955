package contract

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet"
	"bsdnet/internal/testutil"
	"bsdnet/internal/testutil/stacktest"
	"bsdnet/netem"
)

// row makes stacks in a row, with a cable between each and the next, whose MTUs are given. The
// first and the last are hosts, and those between them are routers. On cable i, which is
// 10.0.i.0/24 and, if IPv6 allows its MTU, fd00:0:0:i::/64, the left end has address 1 and the
// right end 2.
func row(t *testing.T, mtus ...int) []*bsdnet.Stack {
	t.Helper()
	last := len(mtus)
	var stacks []*bsdnet.Stack
	for i := range last + 1 {
		stacks = append(stacks, stack(t, bsdnet.Config{
			Rand: testutil.SeededRand(uint64(i)), Forwarding: i > 0 && i < last, NoLoopback: i%2 == 1,
		}))
	}
	for i, mtu := range mtus {
		a, b, err := netem.Pipe(netem.PipeConfig{MTU: mtu, Delay: 5 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		left, right := stacks[i], stacks[i+1]
		formats := []string{"10.0.%d.%d/24", "fd00:0:0:%d::%d/64"}
		if mtu < 1280 {
			formats = formats[:1]
		}
		addrs := func(end int) (list []string) {
			for _, f := range formats {
				list = append(list, fmt.Sprintf(f, i, end))
			}
			return list
		}
		stacktest.Attach(t, left, a, addrs(1)...)
		stacktest.Attach(t, right, b, addrs(2)...)
		for j := range mtus {
			for _, f := range formats {
				dst := netip.MustParsePrefix(fmt.Sprintf(f, j, 0))
				if j < i {
					err = right.AddRoute(dst, b)
				} else if j > i {
					err = left.AddRoute(dst, a)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	return stacks
}

// exchange has from send n bytes to a server on to, which sends them back, and asserts that they
// are the same.
func exchange(t *testing.T, from, to *bsdnet.Stack, addr string, n int) {
	t.Helper()
	ln, err := to.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		if _, err := io.Copy(c, c); err != nil {
			t.Error(err)
		}
	}()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	c, err := from.Dial("tcp", net.JoinHostPort(addr, port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	data := testutil.SeededBytes(uint64(n), n)
	go func() {
		if _, err := c.Write(data); err != nil {
			t.Error(err)
		}
		c.(*bsdnet.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes of %d came back, %v", len(got), n, err)
	}
}

// TCP through routers: in both directions, whatever the MTUs on the way. RFC 1191: the routers tell
// the sender the MTU of the narrow link.
func TestForwardTCP(t *testing.T) {
	for _, c := range []struct {
		mtus  []int
		tells []bool // whether a router has to
	}{
		{[]int{1500, 1500}, []bool{false}},
		{[]int{1500, 600, 1500}, []bool{true, true}},
		{[]int{1500, 1300, 1400}, []bool{true, true}},
		{[]int{600, 1500}, []bool{false}}, // the MSS says it
		{[]int{9000, 1500, 576, 1400}, []bool{false, true, true}},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := row(t, c.mtus...)
			last := len(s) - 1
			exchange(t, s[0], s[last], fmt.Sprintf("10.0.%d.2", last-1), 300_000)
			v6 := slices.Min(c.mtus) >= 1280
			if v6 {
				exchange(t, s[0], s[last], fmt.Sprintf("fd00:0:0:%d::2", last-1), 300_000)
			}
			for i, r := range s[1:last] {
				st := r.Stats()
				if st.IP.Forward < 400 || st.IP.Fragmented != 0 || st.IP.Odropped != 0 || st.IP.Badsum != 0 {
					t.Errorf("%v: router %d: %+v", c.mtus, i, st.IP)
				}
				if v6 != (st.IP6.Forward > 400) || st.IP6.Odropped != 0 {
					t.Errorf("%v: router %d: %+v", c.mtus, i, st.IP6)
				}
				if told := st.IP.Cantfrag > 0; told != c.tells[i] || v6 && told != (st.IP6.Cantfrag > 0) {
					t.Errorf("%v: router %d: %d and %d packets too long", c.mtus, i, st.IP.Cantfrag, st.IP6.Cantfrag)
				}
			}
		})
	}
}

// A45: two routers that each take the other for the way end a packet's journey by its TTL, and the
// sender gets one error.
func TestForwardLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := row(t, 1500, 1500, 1500)
		for i := range 3 {
			links := s[i].Links()
			link := links[len(links)-1] // to the right
			if i == 2 {
				link = links[0] // back to the left
			}
			for _, away := range []string{"192.0.2.0/24", "2001:db8::/32"} {
				if err := s[i].AddRoute(netip.MustParsePrefix(away), link); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, away := range []string{"192.0.2.1:80", "[2001:db8::1]:80"} {
			if _, err := s[0].Dial("tcp", away); !errors.Is(err, syscall.EHOSTUNREACH) {
				t.Errorf("dialing into a loop: %v", err)
			}
		}
		a, b := s[1].Stats(), s[2].Stats()
		if n, e := a.IP.Forward+b.IP.Forward, a.ICMP.Error+b.ICMP.Error; n != 64 || e != 1 {
			t.Errorf("%d packets were forwarded, %d errors sent", n, e)
		}
		if n, e := a.IP6.Forward+b.IP6.Forward, a.ICMP6.Error+b.ICMP6.Error; n != 64 || e != 1 {
			t.Errorf("%d packets of IPv6 were forwarded, %d errors sent", n, e)
		}
	})
}
