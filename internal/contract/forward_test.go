package contract

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
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
// 10.0.i.0/24, the left end has address 1 and the right end 2.
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
		stacktest.Attach(t, left, a, fmt.Sprintf("10.0.%d.1/24", i))
		stacktest.Attach(t, right, b, fmt.Sprintf("10.0.%d.2/24", i))
		for j := range mtus {
			dst := netip.MustParsePrefix(fmt.Sprintf("10.0.%d.0/24", j))
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
		{[]int{600, 1500}, []bool{false}}, // the MSS says it
		{[]int{9000, 1500, 576, 1400}, []bool{false, true, true}},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := row(t, c.mtus...)
			last := len(s) - 1
			exchange(t, s[0], s[last], fmt.Sprintf("10.0.%d.2", last-1), 300_000)
			for i, r := range s[1:last] {
				st := r.Stats()
				if st.IP.Forward < 400 || st.IP.Fragmented != 0 || st.IP.Odropped != 0 || st.IP.Badsum != 0 {
					t.Errorf("%v: router %d: %+v", c.mtus, i, st.IP)
				}
				if told := st.IP.Cantfrag > 0; told != c.tells[i] {
					t.Errorf("%v: router %d: %d packets were too long", c.mtus, i, st.IP.Cantfrag)
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
		away := netip.MustParsePrefix("192.0.2.0/24")
		for i := range 3 {
			links := s[i].Links()
			link := links[len(links)-1] // to the right
			if i == 2 {
				link = links[0] // back to the left
			}
			if err := s[i].AddRoute(away, link); err != nil {
				t.Fatal(err)
			}
		}
		_, err := s[0].Dial("tcp", "192.0.2.1:80")
		if !errors.Is(err, syscall.EHOSTUNREACH) {
			t.Errorf("dialing into a loop: %v", err)
		}
		n := s[1].Stats().IP.Forward + s[2].Stats().IP.Forward
		if e := s[1].Stats().ICMP.Error + s[2].Stats().ICMP.Error; n != 64 || e != 1 {
			t.Errorf("%d packets were forwarded, %d errors sent", n, e)
		}
	})
}
