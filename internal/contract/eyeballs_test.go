package contract

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http/httptrace"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet"
	"bsdnet/internal/testutil/stacktest"
	"bsdnet/netem"
)

const (
	server4, client4 = "192.0.2.1", "192.0.2.2"
	server6, client6 = "2001:db8::1", "2001:db8::2"

	// Nobody has these addresses; packets to them go over the link, and are lost.
	silent4, silent6 = "192.0.2.99", "2001:db8::99"
)

// twoFamilies connects two stacks by two cables, one for IPv4 and one for IPv6, each with a delay
// one way.
func twoFamilies(t *testing.T, c bsdnet.Config, delay4, delay6 time.Duration) *network {
	t.Helper()
	n := &network{server: stack(t, bsdnet.Config{}), client: stack(t, c), shost: server4, bubble: true}
	for _, k := range []struct {
		delay          time.Duration
		server, client string
	}{{delay4, server4 + "/24", client4 + "/24"}, {delay6, server6 + "/64", client6 + "/64"}} {
		a, b, err := netem.Pipe(netem.PipeConfig{Delay: k.delay})
		if err != nil {
			t.Fatal(err)
		}
		stacktest.Attach(t, n.server, a, k.server)
		stacktest.Attach(t, n.client, b, k.client)
	}
	return n
}

// addrOf are the addresses of TestHappyEyeballs: the server's own ones, ones that are silent, and
// ones to which there is no route.
var addrOf = map[string]string{
	"own4": server4, "lost4": silent4, "far4": "198.51.100.1",
	"own6": server6, "lost6": silent6, "far6": "2001:db8:1::1",
}

// named returns s with the names of addresses and their ports.
func named(s string) string {
	for name, addr := range addrOf {
		s = strings.ReplaceAll(s, net.JoinHostPort(addr, ""), name+":")
	}
	return s
}

// TestHappyEyeballs tests which addresses of a name are tried when, and what comes of it: RFC 8305
// as package net has it. Port 80 has a listener in both families, and port 9 has none.
func TestHappyEyeballs(t *testing.T) {
	const ms = time.Millisecond
	for _, k := range []struct {
		name           string
		addrs          string // of the host, in the order of the answer
		network, port  string
		delay4, delay6 time.Duration
		d              bsdnet.Dialer
		tried          string // the addresses, and when
		want           string
		took           time.Duration
	}{
		{name: "both work", addrs: "own4 own6", network: "tcp", delay4: 5 * ms, delay6: 10 * ms,
			tried: "own6:80 0s", want: "own6:80", took: 20 * ms},
		{name: "IPv6 is silent", addrs: "lost6 own4", network: "tcp", delay4: 5 * ms,
			tried: "lost6:80 0s, own4:80 300ms", want: "own4:80", took: 310 * ms},
		{name: "IPv6 is silent, FallbackDelay", addrs: "lost6 own4", network: "tcp", delay4: 5 * ms,
			d:     bsdnet.Dialer{FallbackDelay: 50 * ms},
			tried: "lost6:80 0s, own4:80 50ms", want: "own4:80", took: 60 * ms},
		{name: "IPv6 is silent, no fallback", addrs: "lost6 own4", network: "tcp", delay4: 5 * ms,
			d:     bsdnet.Dialer{FallbackDelay: -1, Timeout: 10 * time.Second},
			tried: "lost6:80 0s, own4:80 5s", want: "own4:80", took: 5010 * ms},
		{name: "IPv6 refuses", addrs: "own6 lost4", network: "tcp", port: "9", delay6: 10 * ms,
			d:     bsdnet.Dialer{Timeout: time.Second},
			tried: "own6:9 0s, lost4:9 20ms", want: "dial tcp own6:9: connect: connection refused",
			took: time.Second},
		{name: "both refuse", addrs: "own6 own4", network: "tcp", port: "9", delay4: 5 * ms, delay6: 10 * ms,
			tried: "own6:9 0s, own4:9 20ms", want: "dial tcp own6:9: connect: connection refused",
			took: 30 * ms},
		{name: "IPv6 is slow, IPv4 wins", addrs: "own6 own4", network: "tcp", delay4: 5 * ms, delay6: 200 * ms,
			tried: "own6:80 0s, own4:80 300ms", want: "own4:80", took: 310 * ms},
		{name: "IPv6 is slow, and wins", addrs: "own6 own4", network: "tcp", delay4: 50 * ms, delay6: 160 * ms,
			tried: "own6:80 0s, own4:80 300ms", want: "own6:80", took: 320 * ms},
		{name: "two of each", addrs: "lost6 lost4 own6 own4", network: "tcp",
			d: bsdnet.Dialer{Timeout: 10 * time.Second}, delay4: 5 * ms, delay6: 5 * ms,
			tried: "lost6:80 0s, lost4:80 300ms, own6:80 5s",
			want:  "own6:80", took: 5010 * ms},
		{name: "all are silent", addrs: "lost6 lost4", network: "tcp",
			d: bsdnet.Dialer{Timeout: 2 * time.Second}, tried: "lost6:80 0s, lost4:80 300ms",
			want: "dial tcp lost6:80: i/o timeout", took: 2 * time.Second},
		{name: "IPv6 has no route", addrs: "far6 own4", network: "tcp", delay4: 5 * ms,
			tried: "own4:80 0s", want: "own4:80", took: 10 * ms},
		{name: "IPv4 has no route", addrs: "far4 lost6", network: "tcp",
			d:     bsdnet.Dialer{Timeout: time.Second},
			tried: "lost6:80 0s, far4:80 300ms", want: "dial tcp lost6:80: i/o timeout",
			took: time.Second},
		{name: "the first error", addrs: "own4 far4", network: "tcp4", port: "9", delay4: 5 * ms,
			tried: "own4:9 0s, far4:9 10ms", want: "dial tcp4 own4:9: connect: connection refused",
			took: 10 * ms},
		{name: "tcp4", addrs: "own6 own4", network: "tcp4", delay4: 5 * ms,
			tried: "own4:80 0s", want: "own4:80", took: 10 * ms},
		{name: "tcp6", addrs: "own4 own6", network: "tcp6", delay6: 5 * ms,
			tried: "own6:80 0s", want: "own6:80", took: 10 * ms},
		{name: "a local address", addrs: "own6 own4", network: "tcp", delay4: 5 * ms,
			d:     bsdnet.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(client4)}},
			tried: "own4:80 0s", want: "own4:80", took: 10 * ms},
		{name: "a local address of the other family", addrs: "own6", network: "tcp",
			d:     bsdnet.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(client4)}},
			tried: "", want: "dial tcp: address 192.0.2.2:0: no suitable address found"},
	} {
		t.Run(k.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var addrs []netip.Addr
				for a := range strings.FieldsSeq(k.addrs) {
					addrs = append(addrs, netip.MustParseAddr(addrOf[a]))
				}
				hosts := map[string][]netip.Addr{"host": addrs}
				n := twoFamilies(t, bsdnet.Config{DNS: bsdnet.DNSConfig{Hosts: hosts}}, k.delay4, k.delay6)
				l, err := n.server.Listen("tcp", ":80")
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				if k.port == "" {
					k.port = "80"
				}
				start := time.Now()
				since := func() time.Duration { return time.Since(start).Round(time.Microsecond) }
				var mu sync.Mutex
				var tried []string
				ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
					ConnectStart: func(network, addr string) {
						mu.Lock()
						defer mu.Unlock()
						tried = append(tried, named(addr)+" "+since().String())
					},
				})
				k.d.Stack = n.client
				c, err := k.d.DialContext(ctx, k.network, "host:"+k.port)
				got, took := named(fmt.Sprint(err)), since()
				if err == nil {
					got = named(c.RemoteAddr().String())
				}
				mu.Lock()
				if s := strings.Join(tried, ", "); got != k.want || took != k.took || s != k.tried {
					t.Errorf("%s after %v; tried %s\nwant %s after %v; tried %s", got, took, s, k.want, k.took, k.tried)
				}
				mu.Unlock()
				// What has lost the race leaves nothing behind.
				synctest.Wait()
				left := 0
				if err == nil {
					left = 1
				}
				for _, i := range n.client.Conns() {
					if i.State != "TIME_WAIT" {
						left--
					}
				}
				if left != 0 {
					t.Errorf("connections of the client: %+v", n.client.Conns())
				}
				if err == nil {
					s, err := l.Accept()
					if err != nil {
						t.Fatal(err)
					}
					s.Close()
					c.Close()
				}
				time.Sleep(time.Second)
				for _, i := range n.server.Conns() {
					if i.State != "LISTEN" && i.State != "TIME_WAIT" {
						t.Errorf("a connection of the server: %+v", i)
					}
				}
			})
		})
	}
}

// TestResolverOrder tests that what a Dialer's Resolver finds is tried in the order that suits the
// stack. A net.Resolver puts addresses into the order that suits the system.
func TestResolverOrder(t *testing.T) {
	for _, hosts := range [][]netip.Addr{
		{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr(server6)},
		{netip.MustParseAddr("2001:db8:1::1"), netip.MustParseAddr(server4)},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := twoFamilies(t, bsdnet.Config{DNS: bsdnet.DNSConfig{
				Hosts: map[string][]netip.Addr{"host.test": hosts},
			}}, 0, 0)
			start := time.Now()
			d := bsdnet.Dialer{Stack: n.client, Resolver: n.client.Resolver()}
			_, err := d.Dial("tcp", "host.test.:9")
			var op *net.OpError
			if !errors.As(err, &op) || op.Addr.(*net.TCPAddr).IP.String() != hosts[1].String() {
				t.Errorf("%v after %v, want an error of %v", err, time.Since(start), hosts[1])
			}
		})
	}
}

// TestRaceCanceled tests that a canceled dial ends both attempts of the race.
func TestRaceCanceled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := map[string][]netip.Addr{"host": {netip.MustParseAddr(silent6), netip.MustParseAddr(silent4)}}
		n := twoFamilies(t, bsdnet.Config{DNS: bsdnet.DNSConfig{Hosts: hosts}}, 0, 0)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		start := time.Now()
		_, err := n.client.DialContext(ctx, "tcp", "host:80")
		if took := time.Since(start); !errors.Is(err, context.Canceled) || took != time.Second {
			t.Errorf("%v after %v", err, took)
		}
		wantError(t, "the race", err, "dial tcp [2001:db8::99]:80: operation was canceled [context.Canceled]")
		synctest.Wait()
		if l := n.client.Conns(); len(l) > 0 {
			t.Errorf("connections %+v", l)
		}
	})
}

// TestRaceRepeats tests that a race whose outcome is close is the same each time, at even and odd
// instants.
func TestRaceRepeats(t *testing.T) {
	hosts := map[string][]netip.Addr{"host": {netip.MustParseAddr(server6), netip.MustParseAddr(server4)}}
	for _, odd := range []time.Duration{0, 1} {
		var first string
		for i := range 20 {
			synctest.Test(t, func(t *testing.T) {
				const half = 150 * time.Millisecond // IPv6 takes as long as the fallback waits
				n := twoFamilies(t, bsdnet.Config{DNS: bsdnet.DNSConfig{Hosts: hosts}}, time.Millisecond, half)
				l, err := n.server.Listen("tcp", ":80")
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				time.Sleep(odd)
				c, err := n.client.Dial("tcp", "host:80")
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				synctest.Wait()
				var s strings.Builder
				for _, i := range n.client.Stats().Interfaces {
					fmt.Fprint(&s, " ", i.PacketsOut)
				}
				if i == 0 {
					first = s.String()
				} else if s.String() != first {
					t.Errorf("%v: run %d sends%s packets, and the first%s", odd, i, s.String(), first)
				}
			})
		}
	}
}

// TestRaceTie tests that of two connections that are established at the same instant one is
// returned, and the other closed.
func TestRaceTie(t *testing.T) {
	hosts := map[string][]netip.Addr{"host": {netip.MustParseAddr(server6), netip.MustParseAddr(server4)}}
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			const delay4, delay6 = 10 * time.Millisecond, 160 * time.Millisecond
			n := twoFamilies(t, bsdnet.Config{DNS: bsdnet.DNSConfig{Hosts: hosts}}, delay4, delay6)
			l, err := n.server.Listen("tcp", ":80")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			c, err := n.client.Dial("tcp", "host:80")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			synctest.Wait()
			open := 0
			for _, i := range n.client.Conns() {
				if i.State == "ESTABLISHED" {
					open++
				}
			}
			if open != 1 {
				t.Errorf("%d connections are established: %+v", open, n.client.Conns())
			}
		})
	}
}

// TestDialBothLoopbacks tests a dial to a name of both loopbacks of which only IPv4's has a
// listener, against package net.
func TestDialBothLoopbacks(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		if n.shost != "127.0.0.1" {
			return
		}
		zone := dnsZone(n)
		zone.Addrs["loopback.test."] = []string{"127.0.0.1", "::1"}
		names := n.names(t, n.serveNames(t, zone))
		l := n.listen(t)
		_, port, _ := net.SplitHostPort(l.Addr().String())
		dial := (&bsdnet.Dialer{Stack: n.client}).DialContext
		if r, ok := names.(*net.Resolver); ok {
			if l, err := net.Listen("tcp6", "[::1]:0"); err != nil {
				t.Skipf("the system has no IPv6: %v", err)
			} else {
				l.Close()
			}
			dial = (&net.Dialer{Resolver: r}).DialContext
		}
		var mu sync.Mutex
		var got []string
		note := func(s string) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, strings.ReplaceAll(s, port, "P"))
		}
		ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
			ConnectStart: func(network, addr string) { note("start " + network + " " + addr) },
			ConnectDone: func(network, addr string, err error) {
				refused := errors.Is(err, syscall.ECONNREFUSED)
				note(fmt.Sprint("done ", network, " ", addr, " ", refused, " ", err == nil))
			},
		})
		c, err := dial(ctx, "tcp", "loopback.test.:"+port)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		want := []string{
			"start tcp [::1]:P", "done tcp [::1]:P true false",
			"start tcp 127.0.0.1:P", "done tcp 127.0.0.1:P false true",
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	})
}
