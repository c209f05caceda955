package contract

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet"
	"bsdnet/netem"
)

// A dialer has the methods that *net.Dialer and *bsdnet.Dialer have in common.
type dialer interface {
	Dial(network, address string) (net.Conn, error)
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

func (n *network) dialer(local net.Addr, timeout time.Duration, deadline time.Time) dialer {
	if n.kernel {
		return &net.Dialer{LocalAddr: local, Timeout: timeout, Deadline: deadline}
	}
	return &bsdnet.Dialer{Stack: n.client, LocalAddr: local, Timeout: timeout, Deadline: deadline}
}

func (n *network) listenNet(network, address string) (net.Listener, error) {
	if n.kernel {
		return net.Listen(network, address)
	}
	return n.server.Listen(network, address)
}

// TestListenErrors tests the errors for a second listener, for an address that this host does not
// have, and for a bad port.
func TestListenErrors(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		l := n.listen(t)
		_, port, _ := net.SplitHostPort(l.Addr().String())
		f, any := n.family()
		for _, c := range []struct{ network, address, want string }{
			{"tcp", net.JoinHostPort(n.shost, port),
				"listen tcp S: bind: address already in use [EADDRINUSE SyscallError]"},
			{"tcp" + f, any + ":" + port,
				"listen tcp" + f + " " + any + ":P: bind: address already in use [EADDRINUSE SyscallError]"},
			{"tcp", "192.0.2.1:80",
				"listen tcp 192.0.2.1:80: bind: cannot assign requested address [EADDRNOTAVAIL SyscallError]"},
			{"tcp", "127.0.0.1:99999", "listen tcp: address 99999: invalid port []"},
			{"tcp", "127.0.0.1", "listen tcp: address 127.0.0.1: missing port in address []"},
			{"tcp", "127.0.0.1:80:80", "listen tcp: address 127.0.0.1:80:80: too many colons in address []"},
			{"udp9", "127.0.0.1:0", "listen udp9: unknown network udp9 []"},
		} {
			l2, err := n.listenNet(c.network, c.address)
			wantError(t, c.address, err, c.want, l.Addr(), "S", ":"+port, ":P")
			if l2 != nil {
				t.Errorf("%s: a %T together with an error", c.address, l2)
			}
		}
	})
}

// TestListenEmptyAddress tests that the empty address means any address and a free port, as in
// net.Listen.
func TestListenEmptyAddress(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		f, any := n.family()
		for _, a := range []string{"", ":0", ":", any + ":0"} {
			l, err := n.listenNet("tcp"+f, a)
			if err != nil {
				t.Errorf("%q: %v", a, err)
				continue
			}
			ta := l.Addr().(*net.TCPAddr)
			if !ta.IP.IsUnspecified() || ta.Port == 0 || !strings.HasPrefix(ta.String(), any+":") {
				t.Errorf("%q: listens on %v", a, ta)
			}
			for _, to := range []string{net.JoinHostPort(n.shost, strconv.Itoa(ta.Port))} {
				c, err := n.dial(to)
				if err != nil {
					t.Fatalf("%q, dialing %s: %v", a, to, err)
				}
				s, err := l.Accept()
				if err != nil {
					t.Fatal(err)
				}
				if s.LocalAddr().String() != to || s.RemoteAddr().String() != c.LocalAddr().String() ||
					c.RemoteAddr().String() != to {
					t.Errorf("addresses %v %v %v, dialed %v", s.LocalAddr(), s.RemoteAddr(), c.RemoteAddr(), to)
				}
				c.Close()
				s.Close()
			}
			l.Close()
		}
	})
}

// TestDialErrors tests the errors of a dial to a port without a listener, without a route, and to a
// bad address.
func TestDialErrors(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		l := n.listen(t)
		a := l.Addr().String()
		l.Close()
		f, _ := n.family()
		for _, c := range []struct{ network, address, want string }{
			{"tcp", a, "dial tcp S: connect: connection refused [ECONNREFUSED SyscallError]"},
			{"tcp" + f, a, "dial tcp" + f + " S: connect: connection refused [ECONNREFUSED SyscallError]"},
			{"tcp", "127.0.0.1:99999", "dial tcp: address 99999: invalid port []"},
			{"tcp", "127.0.0.1", "dial tcp: address 127.0.0.1: missing port in address []"},
			{"tcp", "", "dial: missing address [no OpError]"},
			{"xyz", "127.0.0.1:80", "dial xyz: unknown network xyz []"},
		} {
			if c.address == "" {
				c.want = "dial tcp: missing address []"
			}
			conn, err := n.dialer(nil, 0, time.Time{}).Dial(c.network, c.address)
			wantError(t, c.network+" "+c.address, err, c.want, a, "S")
			if conn != nil {
				t.Errorf("%s: a %T together with an error", c.address, conn)
			}
		}
	})
	eachOwn(t, func(t *testing.T, n *network) {
		_, err := n.dial("192.0.2.1:80")
		wantError(t, "no route", err,
			"dial tcp 192.0.2.1:80: connect: network is unreachable [ENETUNREACH SyscallError]")
		_, err = n.client.DialTCP("tcp", nil, nil)
		wantError(t, "DialTCP without an address", err, "dial tcp: missing address []")
		var op *net.OpError
		if errors.As(err, &op); op.Source != nil || op.Addr != nil {
			t.Errorf("nil pointers in interfaces: %#v", op)
		}
	})
}

// TestUnspecifiedDialAddress tests that 0.0.0.0, an empty host and localhost mean this host.
func TestUnspecifiedDialAddress(t *testing.T) {
	test := func(t *testing.T, n *network) {
		l, err := n.listenNet("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		for _, h := range []string{"", "0.0.0.0", "localhost"} {
			c, err := n.dialer(nil, 0, time.Time{}).Dial("tcp4", net.JoinHostPort(h, port))
			if err != nil {
				t.Errorf("%q: %v", h, err)
				continue
			}
			if c.RemoteAddr().String() != "127.0.0.1:"+port {
				t.Errorf("%q: connected to %v", h, c.RemoteAddr())
			}
			c.Close()
		}
	}
	t.Run("net", func(t *testing.T) { test(t, &network{kernel: true}) })
	t.Run("loopback", func(t *testing.T) { test(t, loopback(t)) })
}

// TestLocalAddr tests dials from a given address and port, which errors name as their Source.
func TestLocalAddr(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		l := n.listen(t)
		free := n.freeClientPort(t)
		for _, la := range []*net.TCPAddr{
			{IP: net.ParseIP(n.chost)},
			{Port: free},
			{IP: net.ParseIP(n.chost), Port: n.freeClientPort(t)},
			{},
		} {
			c, err := n.dialer(la, 0, time.Time{}).Dial("tcp", l.Addr().String())
			if err != nil {
				t.Errorf("%v: %v", la, err)
				continue
			}
			got := c.LocalAddr().(*net.TCPAddr)
			if !got.IP.Equal(net.ParseIP(n.chost)) || la.Port != 0 && got.Port != la.Port {
				t.Errorf("from %v: it is %v", la, got)
			}
			s, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			if s.RemoteAddr().String() != got.String() {
				t.Errorf("the server sees %v, not %v", s.RemoteAddr(), got)
			}
			s.Close() // the server is in TIME_WAIT
			io.ReadAll(c)
			c.Close()
		}
		l.Close()
		n.settle()
		foreign := &net.TCPAddr{IP: net.ParseIP("192.0.2.1")}
		if f, _ := n.family(); f == "6" {
			foreign.IP = net.ParseIP("2001:db8::1")
		}
		_, err := n.dialer(foreign, 0, time.Time{}).Dial("tcp", l.Addr().String())
		wantError(t, "not ours", err,
			"dial tcp F->S: bind: cannot assign requested address [EADDRNOTAVAIL SyscallError]",
			l.Addr(), "S", foreign, "F")
		_, err = n.dialer(&net.TCPAddr{Port: free}, 0, time.Time{}).Dial("tcp", l.Addr().String())
		wantError(t, "refused", err,
			fmt.Sprintf("dial tcp :%d->S: connect: connection refused [ECONNREFUSED SyscallError]", free),
			l.Addr(), "S")
		_, err = n.dialer(&net.UDPAddr{}, 0, time.Time{}).Dial("tcp", l.Addr().String())
		if n.kernel {
			return // package net's text depends on the number of addresses left
		}
		var op *net.OpError
		if !errors.As(err, &op) || op.Op != "dial" || !strings.Contains(err.Error(), "mismatched local address type") {
			t.Errorf("a UDP address: %v", err)
		}
	})
}

// freeClientPort returns a port that is free at the client's side.
func (n *network) freeClientPort(t *testing.T) int {
	listen := net.Listen
	if !n.kernel {
		listen = n.client.Listen
	}
	l, err := listen("tcp", net.JoinHostPort(n.chost, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// TestDialContextEnded tests a dial whose context has ended before.
func TestDialContextEnded(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		l := n.listen(t)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		c, err := n.dialCtx(ctx, l.Addr().String())
		wantError(t, "canceled", err, "dial tcp S: operation was canceled [context.Canceled]", l.Addr(), "S")
		if c != nil {
			t.Errorf("a %T together with an error", c)
		}
		const late = "dial tcp S: i/o timeout [context.DeadlineExceeded Timeout Temporary]"
		ctx, cancel = context.WithDeadline(context.Background(), past)
		defer cancel()
		_, err = n.dialCtx(ctx, l.Addr().String())
		wantError(t, "context's deadline", err, late, l.Addr(), "S")
		_, err = n.dialer(nil, 0, past).Dial("tcp", l.Addr().String())
		wantError(t, "Deadline", err, late, l.Addr(), "S")
		_, err = n.dialer(nil, -1, time.Time{}).Dial("tcp", l.Addr().String())
		wantError(t, "Timeout", err, late, l.Addr(), "S")
	})
}

// TestDialContextAfterwards tests that the context does not affect a connection that is
// established.
func TestDialContextAfterwards(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		l := n.listen(t)
		ctx, cancel := context.WithCancel(context.Background())
		c, err := n.dialCtx(ctx, l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		cancel()
		n.settle()
		echo(t, c, s)
	})
}

// TestListenAgain tests that a program can listen again at once on a port that has connections,
// both open ones and ones in TIME_WAIT, but not while the port has a listener.
func TestListenAgain(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		l := n.listen(t)
		a := l.Addr().String()
		_, _ = n.pairOver(t, l) // stays open
		c, s := n.pairOver(t, l)
		s.Close() // the server is in TIME_WAIT
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Fatal(err)
		}
		c.Close()
		n.settle()
		l.Close()
		for range 3 {
			l2, err := n.listenOn(a)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := n.listenOn(a); !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("a second one: %v", err)
			}
			c, s := n.pairOver(t, l2)
			echo(t, c, s)
			s.Close()
			io.ReadAll(c)
			c.Close()
			l2.Close()
		}
	})
}

// TestAcceptOrder tests that connections are accepted in the order in which they were made, and
// that several goroutines accept each of many connections once.
func TestAcceptOrder(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		l := n.listen(t)
		var conns []net.Conn
		for range 20 {
			c, err := n.dial(l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			conns = append(conns, c)
		}
		for i, c := range conns {
			s, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			if s.RemoteAddr().String() != c.LocalAddr().String() {
				t.Errorf("number %d is %v, want %v", i, s.RemoteAddr(), c.LocalAddr())
			}
			s.Close()
		}
		seen := map[string]int{}
		var mu sync.Mutex
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for {
					s, err := l.Accept()
					if err != nil {
						return
					}
					mu.Lock()
					seen[s.RemoteAddr().String()]++
					mu.Unlock()
					s.Close()
				}
			})
		}
		for range 200 {
			c, err := n.dial(l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Read(make([]byte, 1)); err != io.EOF {
				t.Error(err)
			}
			c.Close()
		}
		l.Close()
		wg.Wait()
		total := 0
		for _, k := range seen {
			total += k
		}
		if total != 200 {
			t.Errorf("%d connections accepted, of 200", total)
		}
	})
}

// TestListenBurst tests that none of ten thousand dials at once to a backlog of 16 fails, and that
// on the loopback none waits for a timer.
func TestListenBurst(t *testing.T) {
	const dials = 10_000
	inBubble(t, func(t testing.TB) *network {
		s := stack(t, bsdnet.Config{Backlog: 16})
		return &network{server: s, client: s, shost: "127.0.0.1", chost: "127.0.0.1"}
	}, func(t *testing.T, n *network) {
		l := n.listen(t)
		start := time.Now()
		var wg sync.WaitGroup
		for range dials {
			wg.Go(func() {
				c, err := n.dial(l.Addr().String())
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				c.Write([]byte("x"))
				if _, err := c.Read(make([]byte, 1)); err != nil {
					t.Error(err)
				}
			})
		}
		n.settle() // all dials are parked or queued
		for range dials {
			s, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			io.CopyN(s, s, 1)
			s.Close()
		}
		wg.Wait()
		if d := time.Since(start); d != 0 {
			t.Errorf("it took %v of virtual time", d)
		}
	})
}

// TestParkedDials tests that a dial over the loopback that waits for a place on the listener's
// queue ends with its context, its deadline, or the listener.
func TestParkedDials(t *testing.T) {
	inBubble(t, func(t testing.TB) *network {
		s := stack(t, bsdnet.Config{Backlog: 1})
		return &network{server: s, client: s, shost: "127.0.0.1", chost: "127.0.0.1"}
	}, func(t *testing.T, n *network) {
		l := n.listen(t)
		a := l.Addr().String()
		first, err := n.dial(a)
		if err != nil {
			t.Fatal(err)
		}
		defer first.Close()
		ctx, cancel := context.WithCancel(context.Background())
		park := func(ctx context.Context, timeout time.Duration) <-chan error {
			d := async(func() error {
				c, err := n.dialer(nil, timeout, time.Time{}).DialContext(ctx, "tcp", a)
				if err == nil {
					c.Close()
				}
				return err
			})
			n.settle()
			return d
		}
		start := time.Now()
		canceled, timed := park(ctx, 0), park(context.Background(), 3*time.Second)
		refused := park(context.Background(), 0)
		cancel()
		wantError(t, "canceled", <-canceled, "dial tcp S: operation was canceled [context.Canceled]", a, "S")
		wantError(t, "timed", <-timed, "dial tcp S: i/o timeout [context.DeadlineExceeded Timeout Temporary]", a, "S")
		if d := time.Since(start); d != 3*time.Second {
			t.Errorf("the dial with a timeout of 3 s took %v", d)
		}
		// Accept does not return the connections of dials that have ended.
		s, err := l.Accept()
		if err != nil || s.RemoteAddr().String() != first.LocalAddr().String() {
			t.Fatalf("%v, %v", s, err)
		}
		s.Close()
		if err := <-refused; err != nil {
			t.Errorf("the third had its turn: %v", err)
		}
		if s, err = l.Accept(); err != nil {
			t.Fatal(err)
		}
		s.Close()
		l.SetDeadline(time.Now().Add(time.Second))
		if s, err := l.Accept(); err == nil {
			t.Errorf("a dial that was given up has been accepted: %v", s.RemoteAddr())
		}
		queued := park(context.Background(), 0)
		<-queued
		var parked []<-chan error
		for range 5 {
			parked = append(parked, park(context.Background(), 0))
		}
		l.Close()
		for _, p := range parked {
			wantError(t, "parked", <-p, "dial tcp S: connect: connection refused [ECONNREFUSED SyscallError]", a, "S")
		}
	})
}

// TestTCPFunctions tests ListenTCP, DialTCP and the configurations.
func TestTCPFunctions(t *testing.T) {
	eachOwn(t, func(t *testing.T, n *network) {
		f, _ := n.family()
		l, err := n.server.ListenTCP("tcp"+f, &net.TCPAddr{IP: net.ParseIP(n.shost)})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c, err := n.client.DialTCP("tcp"+f, &net.TCPAddr{IP: net.ParseIP(n.chost)}, l.Addr().(*net.TCPAddr))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		s, err := l.AcceptTCP()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		echo(t, c, s)
		c.SetReadDeadline(past)
		_, err = c.Read(make([]byte, 1))
		wantError(t, "the network's name", err,
			"read tcp"+f+" C->S: i/o timeout [os.ErrDeadlineExceeded Timeout Temporary]",
			c.LocalAddr(), "C", c.RemoteAddr(), "S")
		_, err = n.server.ListenTCP("tcp", l.Addr().(*net.TCPAddr))
		wantError(t, "ListenTCP", err, "listen tcp S: bind: address already in use [EADDRINUSE SyscallError]",
			l.Addr(), "S")
		_, err = n.server.ListenTCP("udp", nil)
		wantError(t, "ListenTCP of udp", err, "listen udp: unknown network udp []")
		lc := bsdnet.ListenConfig{Stack: n.server}
		l2, err := lc.Listen(context.Background(), "tcp", net.JoinHostPort(n.shost, "0"))
		if err != nil {
			t.Fatal(err)
		}
		l2.Close()
	})
}

// TestDefaultStack tests the functions of the package, which use the default stack.
func TestDefaultStack(t *testing.T) {
	l, err := bsdnet.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := bsdnet.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	echo(t, c, s)
	var d bsdnet.Dialer
	c2, err := d.DialContext(context.Background(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c2.Close()
}

// TestLongRoundTrip tests that a connection over a round trip of half a minute is established and
// carries data.
func TestLongRoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := cableOf(t, netem.PipeConfig{MTU: 1500, Delay: 15 * time.Second}, nil)
		l := n.listen(t)
		go func() {
			s, err := l.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			io.Copy(s, s)
			s.Close()
		}()
		c, err := n.dial(l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.Write([]byte("echo"))
		c.(tcpConn).CloseWrite()
		if b, err := io.ReadAll(c); string(b) != "echo" || err != nil {
			t.Errorf("%q, %v", b, err)
		}
	})
}
