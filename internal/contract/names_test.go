package contract

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptrace"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet"
	"bsdnet/netem"
)

// serveDNS answers queries over TCP (RFC 1035, 4.2.2) for the IPv4 addresses in names. Other names
// do not exist.
func serveDNS(l net.Listener, names map[string][]string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			var size [2]byte
			for {
				if _, err := io.ReadFull(c, size[:]); err != nil {
					return
				}
				q := make([]byte, binary.BigEndian.Uint16(size[:]))
				if _, err := io.ReadFull(c, q); err != nil {
					return
				}
				var labels []string
				at := 12
				for ; q[at] != 0; at += int(q[at]) + 1 {
					labels = append(labels, string(q[at+1:at+1+int(q[at])]))
				}
				end := at + 5 // after the root, the type and the class
				addrs, known := names[strings.Join(labels, ".")]
				if typ := binary.BigEndian.Uint16(q[at+1:]); typ != 1 {
					addrs = nil
				}
				a := append([]byte{}, q[:end]...)
				binary.BigEndian.PutUint16(a[2:], 0x8180)
				if !known {
					binary.BigEndian.PutUint16(a[2:], 0x8183) // NXDOMAIN
				}
				binary.BigEndian.PutUint16(a[6:], uint16(len(addrs)))
				binary.BigEndian.PutUint32(a[8:], 0)
				for _, ip := range addrs {
					a = append(a, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4)
					a = append(a, netip.MustParseAddr(ip).AsSlice()...)
				}
				binary.BigEndian.PutUint16(size[:], uint16(len(a)))
				c.Write(append(size[:], a...))
			}
		}()
	}
}

// TestDialerResolver tests that a Dialer with a Resolver, which uses the stack itself, dials names.
// It tries each of the addresses, and returns the first error.
func TestDialerResolver(t *testing.T) {
	for _, n := range []*network{loopback(t), cable(t)} {
		dns, l := n.listen(t), n.listen(t)
		go serveDNS(dns, map[string][]string{
			"one.test":    {n.shost},
			"second.test": {"203.0.113.1", n.shost},
			"none.test":   {},
			"far.test":    {"203.0.113.1", "203.0.113.2"},
		})
		d := bsdnet.Dialer{Stack: n.client, Resolver: &net.Resolver{
			PreferGo: true,
			Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return n.client.DialContext(ctx, "tcp", dns.Addr().String())
			},
		}}
		_, port, _ := net.SplitHostPort(l.Addr().String())
		for _, name := range []string{"one.test", "one.test.", "second.test", n.shost, "localhost"} {
			if name == "localhost" && n.shost != "127.0.0.1" {
				continue
			}
			c, err := d.Dial("tcp", net.JoinHostPort(name, port))
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if got := c.RemoteAddr().String(); got != l.Addr().String() {
				t.Errorf("%s led to %s", name, got)
			}
			c.Close()
		}
		var dnsErr *net.DNSError
		for _, name := range []string{"none.test.", "unknown.test."} {
			if _, err := d.Dial("tcp", net.JoinHostPort(name, port)); !errors.As(err, &dnsErr) || !dnsErr.IsNotFound {
				t.Errorf("%s: %v, want a DNSError that says it is not found", name, err)
			}
		}
		_, err := d.Dial("tcp", net.JoinHostPort("far.test.", port))
		wantError(t, "far.test", err, "dial tcp A: connect: network is unreachable [ENETUNREACH SyscallError]",
			"203.0.113.1:"+port, "A")
		d.Resolver = nil
		if _, err := d.Dial("tcp", net.JoinHostPort("one.test", port)); !errors.As(err, &dnsErr) || !dnsErr.IsNotFound {
			t.Errorf("without a Resolver: %v", err)
		}
	}
}

// TestDialerSharesTime tests that a silent address of a name leaves the other addresses their share
// of the time.
func TestDialerSharesTime(t *testing.T) {
	n := cable(t)
	dns, l := n.listen(t), n.listen(t)
	go serveDNS(dns, map[string][]string{"silent.test": {"10.0.0.99", n.shost}})
	s, err := n.client.Dial("tcp", dns.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	var tried []string
	ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
		ConnectDone: func(_, addr string, err error) {
			tried = append(tried, fmt.Sprint(strings.TrimSuffix(addr, ":"+port), " ", err == nil))
		},
	})
	d := bsdnet.Dialer{Stack: n.client, Timeout: 4 * time.Second, Resolver: &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return n.client.DialContext(context.Background(), "tcp", dns.Addr().String())
		},
	}}
	c, err := d.DialContext(ctx, "tcp", "silent.test.:"+port)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if want := []string{"10.0.0.99 false", n.shost + " true"}; !slices.Equal(tried[len(tried)-2:], want) {
		t.Errorf("tried %v, want %v", tried, want)
	}
}

// TestFallbackDelay tests that FallbackDelay, a field of net.Dialer, has no effect here.
func TestFallbackDelay(t *testing.T) {
	n := loopback(t)
	l := n.listen(t)
	for _, delay := range []time.Duration{-1, 0, time.Hour} {
		c, err := (&bsdnet.Dialer{Stack: n.client, FallbackDelay: delay}).Dial("tcp", l.Addr().String())
		if err != nil {
			t.Errorf("%v: %v", delay, err)
			continue
		}
		c.Close()
	}
}

// TestDialTrace tests that dials call the hooks of httptrace as those of package net do: on success
// and failure, but not if there is no address to connect to.
func TestDialTrace(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		l := n.listen(t)
		closed := n.listen(t)
		closed.Close()
		canceled, cancel := context.WithCancel(context.Background())
		cancel()
		for _, k := range []struct {
			name, address string
			ctx           context.Context
			want          []string
		}{
			{"success", l.Addr().String(), context.Background(), []string{"start tcp L", "done tcp L nil"}},
			{"refused", closed.Addr().String(), context.Background(), []string{
				"start tcp L",
				"done tcp L dial tcp L: connect: connection refused [ECONNREFUSED SyscallError]",
			}},
			{"canceled before", l.Addr().String(), canceled, nil},
			{"no port", n.shost, context.Background(), nil},
		} {
			var got []string
			note := func(s string) { got = append(got, strings.ReplaceAll(s, k.address, "L")) }
			ctx := httptrace.WithClientTrace(k.ctx, &httptrace.ClientTrace{
				ConnectStart: func(network, addr string) { note("start " + network + " " + addr) },
				ConnectDone: func(network, addr string, err error) {
					note("done " + network + " " + addr + " " + describe(err))
				},
			})
			c, err := n.dialCtx(ctx, k.address)
			if err == nil {
				c.Close()
			}
			if !slices.Equal(got, k.want) {
				t.Errorf("%s: %q, want %q", k.name, got, k.want)
			}
			c, err = n.dialCtx(httptrace.WithClientTrace(k.ctx, &httptrace.ClientTrace{}), k.address) // no hooks
			if err == nil {
				c.Close()
			}
		}
	})
}

// TestDialFunctions tests that all functions to dial and to listen make the same connections.
func TestDialFunctions(t *testing.T) {
	l, err := bsdnet.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	addr := l.Addr().(*net.TCPAddr)
	ap := addr.AddrPort()
	from := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 7)}
	for name, dial := range map[string]func() (net.Conn, error){
		"DialTimeout":  func() (net.Conn, error) { return bsdnet.DialTimeout("tcp", addr.String(), time.Minute) },
		"DialTCP":      func() (net.Conn, error) { return bsdnet.DialTCP("tcp4", nil, addr) },
		"DialTCP from": func() (net.Conn, error) { return bsdnet.DialTCP("tcp", from, addr) },
		"Dialer.DialTCP": func() (net.Conn, error) {
			return new(bsdnet.Dialer).DialTCP(t.Context(), "tcp", netip.AddrPort{}, ap)
		},
		"Dialer.DialTCP from": func() (net.Conn, error) {
			d := bsdnet.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}} // DialTCP ignores it
			return d.DialTCP(t.Context(), "tcp", netip.MustParseAddrPort("127.0.0.7:0"), ap)
		},
	} {
		c, err := dial()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		s, err := l.AcceptTCP()
		if err != nil {
			t.Fatal(err)
		}
		if got := s.RemoteAddr().(*net.TCPAddr).IP.String(); strings.HasSuffix(name, "from") != (got == "127.0.0.7") {
			t.Errorf("%s comes from %s", name, got)
		}
		c.Close()
		s.Close()
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = new(bsdnet.Dialer).DialTCP(canceled, "tcp", netip.AddrPort{}, ap)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("DialTCP with a canceled context: %v", err)
	}
	_, err = new(bsdnet.Dialer).DialTCP(t.Context(), "udp", netip.AddrPort{}, ap)
	if !errors.As(err, new(net.UnknownNetworkError)) {
		t.Errorf("DialTCP of udp: %v", err)
	}
}

// TestDialTimeoutEnds tests that DialTimeout gives up in time.
func TestDialTimeoutEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := cable(t)
		start := time.Now()
		_, err := n.client.DialTimeout("tcp", "10.0.0.99:1", 5*time.Second)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 5*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

// TestDialPort0 tests that a dial to port 0 is refused.
func TestDialPort0(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		_, err := n.dial(net.JoinHostPort(n.shost, "0"))
		wantError(t, "Dial", err, "dial tcp S: connect: connection refused [ECONNREFUSED SyscallError]",
			net.JoinHostPort(n.shost, "0"), "S")
	})
}

// TestLocalhost tests that the case of a name does not matter (RFC 4343), nor does a dot at its
// end.
func TestLocalhost(t *testing.T) {
	n := loopback(t)
	for _, h := range []string{"localhost", "LOCALHOST", "LocalHost", "localhost.", "LOCALHOST."} {
		l, err := n.listenOn(h + ":0")
		if err != nil {
			t.Error(err)
			continue
		}
		if got := l.Addr().(*net.TCPAddr).IP.String(); got != "127.0.0.1" {
			t.Errorf("%s is %s", h, got)
		}
		l.Close()
	}
	for _, h := range []string{"localhost..", ".localhost", "localhos", "local host"} {
		if l, err := n.listenOn(h + ":0"); err == nil {
			l.Close()
			t.Errorf("%q is an address", h)
		}
	}
}

// TestAddrErrorNamesAddress tests that the error for a bad address names the address.
func TestAddrErrorNamesAddress(t *testing.T) {
	n := loopback(t)
	for what, f := range map[string]func() error{
		"Dial":   func() error { _, err := n.client.Dial("tcp4", "[::1]:80"); return err },
		"Listen": func() error { _, err := n.client.Listen("tcp4", "[::1]:80"); return err },
		"DialTCP": func() error {
			_, err := n.client.DialTCP("tcp4", nil, &net.TCPAddr{IP: net.IPv6loopback, Port: 80})
			return err
		},
		"ListenTCP": func() error {
			_, err := n.client.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv6loopback, Port: 80})
			return err
		},
	} {
		var ae *net.AddrError
		if err := f(); !errors.As(err, &ae) || !strings.Contains(ae.Addr, "::1") {
			t.Errorf("%s: %v, want an AddrError of ::1", what, err)
		}
	}
}

// TestSetLingerClamped tests that more seconds than the field holds count as its largest value.
func TestSetLingerClamped(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		c, _ := n.pair(t)
		for _, sec := range []int{-1 << 31, -1, 65535, 65536, 70000, 1<<31 - 1} {
			if err := c.SetLinger(sec); err != nil {
				t.Errorf("SetLinger(%d): %v", sec, err)
			}
		}
	})
}

// TestUserTimeout tests that the connection ends with ETIMEDOUT, exactly in time, if the peer does
// not acknowledge data in flight, data behind a closed window, or the probes of keep-alive.
// Progress starts the time again.
func TestUserTimeout(t *testing.T) {
	const limit = 20 * time.Second
	end := func(t *testing.T, c tcpConn, from time.Time, least, most time.Duration) {
		t.Helper()
		c.SetReadDeadline(time.Now().Add(24 * time.Hour))
		_, err := c.Read(make([]byte, 1))
		if d := time.Since(from); !errors.Is(err, syscall.ETIMEDOUT) || d < least || d > most {
			t.Errorf("ended after %v with %v, want ETIMEDOUT after %v to %v", d, err, least, most)
		}
	}
	set := func(t *testing.T, c tcpConn, d time.Duration) {
		t.Helper()
		if err := c.(*bsdnet.TCPConn).SetUserTimeout(d); err != nil {
			t.Fatal(err)
		}
	}
	for _, accepted := range []bool{false, true} {
		for name, f := range map[string]func(t *testing.T, l *cuttable, c, s tcpConn){
			"in flight": func(t *testing.T, l *cuttable, c, s tcpConn) {
				set(t, c, limit)
				time.Sleep(time.Hour + time.Second) // the connection is idle
				l.cut.Store(true)
				start := time.Now()
				c.Write([]byte("lost"))
				end(t, c, start, limit, limit)
			},
			"set afterwards": func(t *testing.T, l *cuttable, c, s tcpConn) {
				l.cut.Store(true)
				start := time.Now()
				c.Write([]byte("lost"))
				time.Sleep(2 * time.Second)
				set(t, c, limit-time.Millisecond) // it is rounded up
				end(t, c, start, limit, limit)
			},
			"the FIN": func(t *testing.T, l *cuttable, c, s tcpConn) {
				set(t, c, limit)
				l.cut.Store(true)
				start := time.Now()
				c.CloseWrite()
				end(t, c, start, limit, limit)
			},
			"closed window": func(t *testing.T, l *cuttable, c, s tcpConn) {
				set(t, c, limit)
				start := time.Now()
				_, err := c.Write(make([]byte, 64<<20)) // nobody reads, and every probe is answered
				if d := time.Since(start); !errors.Is(err, syscall.ETIMEDOUT) || d < limit || d > limit+time.Second {
					t.Errorf("Write ended after %v with %v", d, err)
				}
			},
			"keep-alive": func(t *testing.T, l *cuttable, c, s tcpConn) {
				set(t, c, limit)
				synctest.Wait()
				l.cut.Store(true)
				end(t, c, time.Now(), 30*time.Second, 30*time.Second) // the second probe would be due then
			},
			"progress": func(t *testing.T, l *cuttable, c, s tcpConn) {
				set(t, c, limit)
				go c.Write(make([]byte, 64<<20))
				for range 10 { // the reader reads now and then
					time.Sleep(limit * 3 / 4)
					if _, err := io.ReadFull(s, make([]byte, 1<<20)); err != nil {
						t.Fatal(err)
					}
				}
			},
			"none": func(t *testing.T, l *cuttable, c, s tcpConn) {
				set(t, c, limit)
				set(t, c, 0)
				c.SetKeepAlive(false)
				l.cut.Store(true)
				start := time.Now()
				c.Write([]byte("lost"))
				end(t, c, start, 5*time.Minute, 30*time.Minute)
			},
		} {
			t.Run(fmt.Sprintf("%s, accepted %v", name, accepted), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n, l := cutNetwork(t)
					c, s := n.pair(t)
					if accepted {
						c, s = s, c
					}
					f(t, l, c, s)
				})
			})
		}
	}
	n := loopback(t)
	c, _ := n.pair(t)
	err := c.(*bsdnet.TCPConn).SetUserTimeout(-1)
	wantError(t, "SetUserTimeout(-1)", err, "set tcp C->S: setsockopt: invalid argument [EINVAL SyscallError]",
		c.LocalAddr(), "C", c.RemoteAddr(), "S")
	c.Close()
	if err := c.(*bsdnet.TCPConn).SetUserTimeout(limit); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// TestMSLBounds tests that New refuses an MSL that is too long for the clock, and that TIME_WAIT
// ends with the longest one.
func TestMSLBounds(t *testing.T) {
	for _, msl := range []time.Duration{-1, 365*24*time.Hour + 1, 1<<63 - 1} {
		if s, err := bsdnet.New(bsdnet.Config{TCP: bsdnet.TCPConfig{MSL: msl}}); err == nil {
			s.Close()
			t.Errorf("an MSL of %v is taken", msl)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		n := &network{
			server: stack(t, bsdnet.Config{TCP: bsdnet.TCPConfig{MSL: 365 * 24 * time.Hour}}),
			client: stack(t, bsdnet.Config{}),
			shost:  "10.0.0.1",
			bubble: true,
		}
		a, b, _ := netem.Pipe(netem.PipeConfig{})
		n.server.Attach(a, netip.MustParsePrefix("10.0.0.1/24"))
		n.client.Attach(b, netip.MustParsePrefix("10.0.0.2/24"))
		c, s := n.pair(t)
		s.Close()
		io.ReadAll(c)
		c.Close()
		time.Sleep(300 * 24 * time.Hour)
		if l := n.server.Conns(); len(l) != 1 || l[0].State != "TIME_WAIT" {
			t.Errorf("connections %+v, want one in TIME_WAIT", l)
		}
	})
}
