package contract

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet"
	"bsdnet/internal/testutil/stacktest"
	"bsdnet/netem"
	"bsdnet/tun"
)

// Attach refuses addresses that no host can have, with the reason and the right form. All others
// can be reached.
func TestAttachAddresses(t *testing.T) {
	for _, c := range []struct{ prefix, want string }{
		{"10.0.0.0/24", "the network 10.0.0.0/24 itself; its hosts have 10.0.0.1 to 10.0.0.254"},
		{"10.0.0.255/24", "the broadcast address of the network 10.0.0.0/24; its hosts have 10.0.0.1 to 10.0.0.254"},
		{"10.0.0.0/8", "itself"},
		{"10.0.0.4/30", "its hosts have 10.0.0.5 to 10.0.0.6"},
		{"10.0.0.7/30", "its hosts have 10.0.0.5 to 10.0.0.6"},
		{"224.0.0.1/24", "a multicast address"},
		{"239.1.2.3/32", "a multicast address"},
		{"0.0.0.0/0", "AddRoute"},
		{"0.0.0.0/32", "no address"},
		{"240.0.0.1/24", "reserved"},
		{"255.255.255.255/32", "the broadcast address"},
		{"255.255.255.255/0", "the broadcast address"},
		{"127.0.0.2/32", "the loopback"},
		{"10.0.0.1/24", ""},
		{"10.0.0.254/24", ""},
		{"10.0.0.1/32", ""},
		{"10.0.0.0/32", ""},
		{"10.0.0.255/32", ""},
		{"10.0.0.0/31", ""},
		{"10.0.0.1/31", ""},
		{"10.0.0.255/16", ""},
		{"10.0.0.0/0", ""},
		{"223.255.255.254/24", ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			srv, cli := stack(t, bsdnet.Config{NoLoopback: true}), stack(t, bsdnet.Config{})
			a, b := pipe(t)
			p := netip.MustParsePrefix(c.prefix)
			err := srv.Attach(a, p)
			if c.want != "" {
				if !errors.Is(err, syscall.EADDRNOTAVAIL) || !strings.Contains(err.Error(), c.want) {
					t.Errorf("Attach(%s): %v, want %q", c.prefix, err, c.want)
				}
				a.Close()
				b.Close()
				return
			}
			if err != nil {
				t.Errorf("Attach(%s): %v", c.prefix, err)
				return
			}
			stacktest.Attach(t, cli, b, "192.0.2.2/24")
			addRoute(t, cli, "0.0.0.0/0", b)
			addRoute(t, srv, "192.0.2.0/24", a)
			ln, err := srv.Listen("tcp", p.Addr().String()+":80")
			if err != nil {
				t.Errorf("%s: %v", c.prefix, err)
				return
			}
			defer ln.Close()
			d := bsdnet.Dialer{Stack: cli, Timeout: time.Second}
			conn, err := d.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Errorf("%s: %v", c.prefix, err)
				return
			}
			conn.Close()
		})
	}
}

// tun.Open checks the kernel's address in the same way before it makes a device.
func TestTUNHostAddress(t *testing.T) {
	for _, p := range []string{"10.0.0.0/24", "10.0.0.255/24", "224.0.0.1/24", "0.0.0.0/0", "127.0.0.1/8"} {
		if _, err := tun.Open(tun.Config{Host: netip.MustParsePrefix(p)}); !errors.Is(err, syscall.EADDRNOTAVAIL) {
			t.Errorf("Host %s: %v", p, err)
		}
	}
}

func pipe(t *testing.T) (a, b bsdnet.Link) {
	t.Helper()
	a, b, err := netem.Pipe(netem.PipeConfig{Delay: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

func addRoute(t *testing.T, s *bsdnet.Stack, dst string, l bsdnet.Link) {
	t.Helper()
	if err := s.AddRoute(netip.MustParsePrefix(dst), l); err != nil {
		t.Fatal(err)
	}
}

// echoStack returns a stack that sends back what it receives on port 80.
func echoStack(t *testing.T) *bsdnet.Stack {
	t.Helper()
	s := stack(t, bsdnet.Config{})
	ln, err := s.Listen("tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	return s
}

// If one of two links in a network goes away, because of Detach or because it breaks, the other
// carries new connections, from its own address. A connection that has the address of the other
// link stays with that link, or with a link that is attached with the same address again.
func TestTwoLinksInNetwork(t *testing.T) {
	for _, c := range []struct {
		name         string
		gone         int
		breaks, back bool
	}{
		{"first detached", 0, false, false}, {"second detached", 1, false, false},
		{"first broken", 0, true, false}, {"second broken", 1, true, false},
		{"first attached again", 0, false, true}, {"second attached again", 1, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv, cli := echoStack(t), stack(t, bsdnet.Config{})
				var mine, theirs [2]bsdnet.Link
				for i := range 2 {
					mine[i], theirs[i] = pipe(t)
					stacktest.Attach(t, cli, mine[i], fmt.Sprintf("10.0.0.%d/24", 2+i))
					stacktest.Attach(t, srv, theirs[i], fmt.Sprintf("10.0.0.%d/24", 12+i))
				}
				// Each link is a cable of its own. The servers' addresses differ, and a server on
				// the other cable cannot be reached.
				dial := func(i int) (*bsdnet.TCPConn, error) {
					d := bsdnet.Dialer{Stack: cli, Timeout: 30 * time.Second}
					conn, err := d.Dial("tcp", fmt.Sprintf("10.0.0.%d:80", 12+i))
					if err != nil {
						return nil, err
					}
					return conn.(*bsdnet.TCPConn), nil
				}
				echo := func(conn *bsdnet.TCPConn) error {
					conn.SetDeadline(time.Now().Add(time.Minute))
					if _, err := conn.Write([]byte("hello")); err != nil {
						return err
					}
					_, err := io.ReadFull(conn, make([]byte, 5))
					return err
				}
				first, err := dial(0)
				if err != nil {
					t.Fatal(err)
				}
				defer first.Close()
				if got := first.LocalAddr().String(); !strings.HasPrefix(got, "10.0.0.2:") {
					t.Errorf("with both links the dial is from %s", got)
				}
				if err := echo(first); err != nil {
					t.Errorf("with both links: %v", err)
				}
				left := 1 - c.gone
				if c.breaks {
					theirs[c.gone].Close()
					mine[c.gone].Close()
				} else if err := cli.Detach(mine[c.gone]); err != nil {
					t.Fatal(err)
				} else {
					srv.Detach(theirs[c.gone])
				}
				synctest.Wait()
				conn, err := dial(left)
				if err != nil {
					t.Fatalf("over the link that is left: %v", err)
				}
				defer conn.Close()
				if got := conn.LocalAddr().String(); !strings.HasPrefix(got, fmt.Sprintf("10.0.0.%d:", 2+left)) {
					t.Errorf("over the link that is left the dial is from %s", got)
				}
				if err := echo(conn); err != nil {
					t.Errorf("over the link that is left: %v", err)
				}
				if !c.back {
					return
				}
				m, th := pipe(t)
				stacktest.Attach(t, cli, m, fmt.Sprintf("10.0.0.%d/24", 2+c.gone))
				stacktest.Attach(t, srv, th, fmt.Sprintf("10.0.0.%d/24", 12+c.gone))
				for _, conn := range []*bsdnet.TCPConn{first, conn} {
					if err := echo(conn); err != nil {
						t.Errorf("from %v, with the link attached again: %v", conn.LocalAddr(), err)
					}
				}
			})
		})
	}
}

// A connection that is bound or accepted uses the link of its network that has its address.
func TestTwoLinksByAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two, cli := echoStack(t), echoStack(t), stack(t, bsdnet.Config{})
		a1, b1 := pipe(t)
		a2, b2 := pipe(t)
		stacktest.Attach(t, one, a1, "10.0.0.11/24")
		stacktest.Attach(t, two, a2, "10.0.0.12/24")
		stacktest.Attach(t, cli, b1, "10.0.0.2/24")
		stacktest.Attach(t, cli, b2, "10.0.0.3/24")
		from := net.TCPAddrFromAddrPort(netip.MustParseAddrPort("10.0.0.3:0"))
		d := bsdnet.Dialer{Stack: cli, Timeout: time.Second, LocalAddr: from}
		c, err := d.Dial("tcp", "10.0.0.12:80")
		if err != nil {
			t.Errorf("bound to the second link's address: %v", err)
		} else {
			c.Close()
		}
		ln, err := cli.Listen("tcp", ":80")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				c.Write([]byte("hello"))
				c.Close()
			}
		}()
		d = bsdnet.Dialer{Stack: two, Timeout: time.Second}
		c, err = d.Dial("tcp", "10.0.0.3:80")
		if err != nil {
			t.Fatalf("to the second link's address: %v", err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(time.Second))
		if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
			t.Errorf("from the second link's address: %q, %v", got, err)
		}
	})
}

// The errors of AddRoute and DelRoute give the reason, and Routes and Links list all routes and
// links.
func TestRoutes(t *testing.T) {
	s := stack(t, bsdnet.Config{})
	a, _ := pipe(t)
	b, _ := pipe(t)
	foreign, _ := pipe(t)
	if got := s.Links(); len(got) != 0 {
		t.Errorf("Links: %v", got)
	}
	stacktest.Attach(t, s, a, "10.0.0.1/24", "10.0.0.2/24")
	stacktest.Attach(t, s, b, "10.0.0.3/24", "172.16.0.1/12")
	addRoute(t, s, "0.0.0.0/0", b)
	addRoute(t, s, "10.0.0.77/25", b)
	if got := s.Links(); !slices.Equal(got, []bsdnet.Link{a, b}) {
		t.Errorf("Links: %v", got)
	}
	want := func(lines ...string) {
		t.Helper()
		var got []string
		name := map[bsdnet.Link]string{nil: "lo0", a: "a", b: "b"}
		for _, r := range s.Routes() {
			got = append(got, fmt.Sprint(r.Dst, " ", name[r.Link], " ", r.Src))
		}
		if !slices.Equal(got, lines) {
			t.Errorf("Routes:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(lines, "\n"))
		}
	}
	want("0.0.0.0/0 b 10.0.0.3", "10.0.0.0/24 a 10.0.0.1", "10.0.0.0/24 b 10.0.0.3", "10.0.0.0/25 b 10.0.0.3",
		"127.0.0.0/8 lo0 127.0.0.1", "172.16.0.0/12 b 172.16.0.1", "::1/128 lo0 ::1")
	for _, c := range []struct {
		what string
		f    func(netip.Prefix, bsdnet.Link) error
		dst  string
		l    bsdnet.Link
		want error
	}{
		{"AddRoute", s.AddRoute, "::/0", a, nil},
		{"AddRoute", s.AddRoute, "fd00::5/8", b, nil},
		{"AddRoute", s.AddRoute, "fd00::/8", a, syscall.EEXIST},
		{"AddRoute", s.AddRoute, "::ffff:10.0.0.0/104", a, syscall.EINVAL},
		{"AddRoute", s.AddRoute, "", a, syscall.EINVAL},
		{"AddRoute", s.AddRoute, "0.0.0.0/0", a, syscall.EEXIST},
		{"AddRoute", s.AddRoute, "10.0.0.0/24", b, syscall.EEXIST},
		{"DelRoute", s.DelRoute, "::/0", b, syscall.ESRCH},
		{"DelRoute", s.DelRoute, "fd00::/9", b, syscall.ESRCH},
		{"DelRoute", s.DelRoute, "::/0", a, nil},
		{"DelRoute", s.DelRoute, "::ffff:10.0.0.0/104", a, syscall.EINVAL},
		{"DelRoute", s.DelRoute, "", a, syscall.EINVAL},
		{"DelRoute", s.DelRoute, "0.0.0.0/0", a, syscall.ESRCH},
		{"DelRoute", s.DelRoute, "10.0.0.0/26", b, syscall.ESRCH},
		{"DelRoute", s.DelRoute, "10.0.0.0/23", b, syscall.ESRCH},
		{"DelRoute", s.DelRoute, "10.0.0.1/25", b, nil},
		{"DelRoute", s.DelRoute, "10.0.0.0/25", b, syscall.ESRCH},
		{"DelRoute", s.DelRoute, "10.0.0.0/24", a, nil},
		{"DelRoute", s.DelRoute, "0.0.0.0/0", b, nil},
		{"AddRoute", s.AddRoute, "0.0.0.0/0", a, nil},
	} {
		p, _ := netip.ParsePrefix(c.dst)
		if err := c.f(p, c.l); !errors.Is(err, c.want) {
			t.Errorf("%s(%s): %v, want %v", c.what, c.dst, err, c.want)
		}
		if err := c.f(p, foreign); err == nil {
			t.Errorf("%s(%s) over a link that is not attached", c.what, c.dst)
		}
	}
	want("0.0.0.0/0 a 10.0.0.1", "10.0.0.0/24 b 10.0.0.3", "127.0.0.0/8 lo0 127.0.0.1", "172.16.0.0/12 b 172.16.0.1",
		"::1/128 lo0 ::1", "fd00::/8 b invalid IP")
	if err := s.Detach(b); err != nil {
		t.Fatal(err)
	}
	want("0.0.0.0/0 a 10.0.0.1", "127.0.0.0/8 lo0 127.0.0.1", "::1/128 lo0 ::1")
	if got := s.Links(); !slices.Equal(got, []bsdnet.Link{a}) {
		t.Errorf("Links: %v", got)
	}
}

// The cost of a route does not grow with the number of routes: ten thousand take megabytes in all,
// not gigabytes.
func TestManyRoutes(t *testing.T) {
	s := stack(t, bsdnet.Config{})
	a, _ := pipe(t)
	stacktest.Attach(t, s, a, "192.168.0.1/24")
	prefix := func(i int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)
	}
	const n = 10000
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range n {
		addRoute(t, s, prefix(i*7919%n).String(), a)
	}
	if got := len(s.Routes()); got != n+3 {
		t.Errorf("%d routes, want %d", got, n+3)
	}
	for i := range n {
		if err := s.DelRoute(prefix(i), a); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if got := (after.TotalAlloc - before.TotalAlloc) >> 20; got > 200 {
		t.Errorf("%d routes made and removed take %d MiB", n, got)
	}
	if got := len(s.Routes()); got != 3 {
		t.Errorf("then %d routes are left, want 3", got)
	}
}
