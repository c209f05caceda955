//go:build linux

package interop

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"bsdnet"
	"bsdnet/internal/nstest"
	"bsdnet/internal/testutil/dnstest"
)

// names is what the servers of these tests know. The answer for large.test does not fit into a
// datagram.
func names() *dnstest.Server {
	s := &dnstest.Server{
		Addrs:    map[string][]string{"one.test.": {"192.0.2.1", "2001:db8::1"}, "large.test.": {}},
		CNAME:    map[string]string{"alias.test.": "one.test."},
		Truncate: map[string]bool{"large.test.": true},
	}
	for i := range 200 {
		s.Addrs["large.test."] = append(s.Addrs["large.test."], fmt.Sprintf("198.51.100.%d", i))
	}
	return s
}

// TestDig: dig gets its answers from a server on a stack, over UDP, and over TCP if they are large.
func TestDig(t *testing.T) {
	nstest.Need(t, "dig")
	eachMode(t, 1, options{}, func(t *testing.T, w *world) {
		l, err := w.stack.Listen("tcp", w.at(bsdIP)+":53")
		if err != nil {
			t.Fatal(err)
		}
		c, err := w.stack.ListenPacket("udp", w.at(bsdIP)+":53")
		if err != nil {
			t.Fatal(err)
		}
		s := names()
		s.Serve(t, c, l)
		for _, k := range []struct {
			args  string
			lines int
			want  string
		}{
			{"one.test", 1, "192.0.2.1"},
			{"one.test AAAA", 1, "2001:db8::1"},
			{"alias.test", 2, "one.test."},
			{"large.test", 200, "198.51.100.199"},
			{"+tcp one.test", 1, "192.0.2.1"},
		} {
			args := []string{"dig", "@" + w.ip(bsdIP), "+short", "+tries=1", "+time=20"}
			out, err := w.NS.Try(append(args, strings.Fields(k.args)...)...)
			lines := strings.Fields(out)
			if err != nil || len(lines) != k.lines || !slices.Contains(lines, k.want) {
				t.Errorf("dig %s: %v\n%s", k.args, err, out)
			}
		}
		if !slices.Contains(s.Queries(), "tcp A large.test.") {
			t.Errorf("queries %q", s.Queries())
		}
	})
}

// TestLookupOverKernel: a stack asks a server on the kernel's sockets. One to which no process
// listens takes no time, as the kernel says so.
func TestLookupOverKernel(t *testing.T) {
	eachMode(t, 2, options{}, func(t *testing.T, w *world) {
		w.Sysctl(t, "net.ipv4.icmp_ratelimit", "0") // of the kernel's answers about port 9
		if w.mode.ip6 {
			w.Sysctl(t, "net.ipv6.icmp.ratelimit", "0")
		}
		var l net.Listener
		var c net.PacketConn
		if err := w.NS.Do(func() (err error) {
			if l, err = net.Listen("tcp", w.at(kernIP)+":53"); err != nil {
				return err
			}
			c, err = net.ListenPacket("udp", w.at(kernIP)+":53")
			return err
		}); err != nil {
			t.Fatal(err)
		}
		names().Serve(t, c, l)
		if err := w.stack.SetDNS(bsdnet.DNSConfig{Servers: []netip.AddrPort{
			netip.MustParseAddrPort(w.at(kernIP) + ":9"), netip.MustParseAddrPort(w.at(kernIP) + ":53"),
		}}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		for name, want := range map[string]int{"one.test": 2, "alias.test": 2, "large.test": 200} {
			if addrs, err := w.stack.LookupHost(ctx, name); err != nil || len(addrs) != want {
				t.Errorf("%s: %d addresses, %v", name, len(addrs), err)
			}
			if addrs, err := w.stack.Resolver().LookupHost(ctx, name+"."); err != nil || len(addrs) != want {
				t.Errorf("%s by the net.Resolver: %d addresses, %v", name, len(addrs), err)
			}
		}
	})
}
