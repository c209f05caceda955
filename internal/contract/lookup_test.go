package contract

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet"
	"bsdnet/internal/testutil"
	"bsdnet/internal/testutil/dnstest"
	"bsdnet/internal/testutil/stacktest"
	"bsdnet/netem"

	"golang.org/x/net/dns/dnsmessage"
)

// dnsZone is what the name server of the tests knows. The addresses are those of the network.
func dnsZone(n *network) *dnstest.Server {
	return &dnstest.Server{
		Addrs: map[string][]string{
			"server.test.": {n.shost}, "two.test.": {"192.0.2.1", n.shost}, "six.test.": {"2001:db8::1"},
			"tc.test.": {n.shost}, "empty.test.": {}, "silent.test.": {}, "fail.test.": {}, "bad.test.": {},
			"db.corp.test.": {n.shost},
		},
		CNAME:    map[string]string{"alias.test.": "server.test."},
		PTR:      map[string][]string{"1.2.0.192.in-addr.arpa.": {"two.test."}},
		TXT:      map[string][]string{"server.test.": {"a text"}},
		MX:       map[string]string{"server.test.": "mail.test."},
		SRV:      map[string]uint16{"_http._tcp.server.test.": 8080},
		Truncate: map[string]bool{"tc.test.": true},
		Silent:   map[string]string{"silent.test.": "udp tcp"},
		RCode: map[string]dnsmessage.RCode{
			"fail.test.": dnsmessage.RCodeServerFailure, "bad.test.": dnsmessage.RCodeRefused,
		},
	}
}

// serveNames runs a name server on the server's side, over UDP and TCP on the same port. It returns
// the address.
func (n *network) serveNames(t *testing.T, s *dnstest.Server) netip.AddrPort {
	t.Helper()
	listen, listenPacket := net.Listen, net.ListenPacket
	if !n.kernel {
		listen, listenPacket = n.server.Listen, n.server.ListenPacket
	}
	l, err := listen("tcp", net.JoinHostPort(n.shost, "0"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := listenPacket("udp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s.Serve(t, c, l)
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// A resolver has the methods that net.Resolver and a stack have in common.
type resolver interface {
	LookupHost(ctx context.Context, host string) ([]string, error)
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupAddr(ctx context.Context, addr string) ([]string, error)
}

var (
	_ resolver = (*net.Resolver)(nil)
	_ resolver = (*bsdnet.Stack)(nil)
)

// names returns a resolver of the client's side that asks the server: package net's over the
// system, or that of a stack.
func (n *network) names(t *testing.T, server netip.AddrPort) resolver {
	t.Helper()
	if n.kernel {
		return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, server.String())
		}}
	}
	if err := n.client.SetDNS(bsdnet.DNSConfig{Servers: []netip.AddrPort{server}}); err != nil {
		t.Fatal(err)
	}
	return n.client
}

// TestLookup tests lookups, and the texts of their errors, against package net's. The names are
// absolute, as the system may have a search list, and a text names the server.
func TestLookup(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		server := n.serveNames(t, dnsZone(n))
		r := n.names(t, server)
		for _, k := range []struct{ name, want string }{
			{"server.test.", "[S] nil"},
			{"SERVER.test.", "[S] nil"},
			{"alias.test.", "[S] nil"},
			{"two.test.", "[S 192.0.2.1] nil"}, // to the other there is no route
			{"six.test.", "[2001:db8::1] nil"},
			{"tc.test.", "[S] nil"},
			{"empty.test.", "[] lookup empty.test. on DNS: no such host [no OpError]"},
			{"none.test.", "[] lookup none.test. on DNS: no such host [no OpError]"},
			{"fail.test.", "[] lookup fail.test. on DNS: server misbehaving [no OpError Temporary]"},
			{"bad.test.", "[] lookup bad.test. on DNS: server misbehaving [no OpError]"},
			{"192.0.2.1", "[192.0.2.1] nil"},
			{"fe80::1%eth9", "[fe80::1%eth9] nil"},
			{"", "[] lookup : no such host [no OpError]"},
			{"a b", "[] lookup a b: no such host [no OpError]"},
			{"bücher.test.", "[] lookup bücher.test.: no such host [no OpError]"},
			{"1.2.3", "[] lookup 1.2.3: no such host [no OpError]"},
		} {
			addrs, err := r.LookupHost(context.Background(), k.name)
			got := fmt.Sprint(addrs, " ", describe(err))
			if at := strings.Index(got, " on "); at >= 0 {
				if !n.kernel && !strings.Contains(got, " on "+server.String()+":") {
					t.Errorf("%s: %s does not name the server", k.name, got)
				}
				got = got[:at] + " on DNS" + got[at+strings.Index(got[at:], ": "):]
			}
			if got = strings.ReplaceAll(got, n.shost, "S"); got != k.want {
				t.Errorf("%s:\n got %s\nwant %s", k.name, got, k.want)
			}
		}
		names, err := r.LookupAddr(context.Background(), "192.0.2.1")
		if got := fmt.Sprint(names, err); got != "[two.test.] <nil>" {
			t.Errorf("LookupAddr: %s", got)
		}
		_, err = r.LookupAddr(context.Background(), "nonsense")
		if got := describe(err); got != "lookup nonsense: unrecognized address [no OpError]" {
			t.Errorf("LookupAddr: %s", got)
		}
		f, _ := n.family()
		other := map[string]string{"4": "ip6", "6": "ip4"}[f]
		for network, want := range map[string]string{
			"ip" + f: "[S] nil", "tcp": "[] unknown network tcp [no OpError]",
			other: "[] lookup server.test. on DNS: no such host [no OpError]",
		} {
			ips, err := r.LookupNetIP(context.Background(), network, "server.test.")
			got := fmt.Sprint(ips, " ", describe(err))
			if at := strings.Index(got, " on "); at >= 0 {
				got = got[:at] + " on DNS" + got[at+strings.Index(got[at:], ": "):]
			}
			if got = strings.ReplaceAll(got, n.shost, "S"); got != want {
				t.Errorf("LookupNetIP of %s: %s, want %s", network, got, want)
			}
		}
	})
}

// TestLookupCanceled tests the errors of lookups whose context ends, against package net's.
func TestLookupCanceled(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		r := n.names(t, n.serveNames(t, dnsZone(n)))
		canceled, cancel := context.WithCancel(context.Background())
		cancel()
		_, err := r.LookupNetIP(canceled, "ip", "silent.test.")
		wantError(t, "canceled", err, "lookup silent.test.: operation was canceled [context.Canceled no OpError]")
		late, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
		defer cancel()
		_, err = r.LookupNetIP(late, "ip", "silent.test.")
		wantError(t, "late", err,
			"lookup silent.test.: i/o timeout [context.DeadlineExceeded no OpError Timeout Temporary]")
	})
}

// TestStackResolver tests the net.Resolver of a stack: all of its lookups.
func TestStackResolver(t *testing.T) {
	eachOwn(t, func(t *testing.T, n *network) {
		n.names(t, n.serveNames(t, dnsZone(n)))
		r := n.client.Resolver()
		ctx := context.Background()
		for name, lookup := range map[string]func() (any, error){
			"[" + n.shost + "]": func() (any, error) { return r.LookupHost(ctx, "tc.test.") },
			"[two.test.]":       func() (any, error) { return r.LookupAddr(ctx, "192.0.2.1") },
			"server.test.":      func() (any, error) { return r.LookupCNAME(ctx, "alias.test.") },
			"[a text]":          func() (any, error) { return r.LookupTXT(ctx, "server.test.") },
			"mail.test. 10": func() (any, error) {
				mx, err := r.LookupMX(ctx, "server.test.")
				if err != nil {
					return nil, err
				}
				return fmt.Sprint(mx[0].Host, " ", mx[0].Pref), nil
			},
			"8080": func() (any, error) {
				_, srv, err := r.LookupSRV(ctx, "http", "tcp", "server.test.")
				if err != nil {
					return nil, err
				}
				return srv[0].Port, nil
			},
		} {
			got, err := lookup()
			if err != nil || fmt.Sprint(got) != name {
				t.Errorf("%v, %v, want %s", got, err, name)
			}
		}
		var de *net.DNSError
		if _, err := r.LookupTXT(ctx, "none.test."); !errors.As(err, &de) || !de.IsNotFound {
			t.Errorf("a name that does not exist: %v", err)
		}
	})
}

// TestResolverInBubbleFirst tests that nothing of package net's resolver, which is the same for the
// whole process, belongs to the bubble that uses it first.
func TestResolverInBubbleFirst(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestStackResolver$/^bubble$")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestQueryIDs tests that the IDs of queries differ from one stack to the next.
func TestQueryIDs(t *testing.T) {
	n := cable(t)
	zone := dnsZone(n)
	var (
		mu   sync.Mutex
		ids  [2][]byte
		turn int
	)
	zone.Twist = func(query, answer []byte) [][]byte {
		mu.Lock()
		defer mu.Unlock()
		ids[turn] = append(ids[turn], query[:2]...)
		return [][]byte{answer}
	}
	n.names(t, n.serveNames(t, zone))
	n.server.SetDNS(n.client.DNS())
	for i, s := range []*bsdnet.Stack{n.client, n.server} {
		mu.Lock()
		turn = i
		mu.Unlock()
		for range 4 {
			s.LookupNetIP(t.Context(), "ip4", "server.test.")
		}
	}
	if len(ids[0]) != 8 || len(ids[1]) != 8 || string(ids[0]) == string(ids[1]) {
		t.Errorf("IDs %x and %x", ids[0], ids[1])
	}
}

// TestDialName tests dials by name, over TCP and UDP and by HTTP, and a listener's name.
func TestDialName(t *testing.T) {
	eachOwn(t, func(t *testing.T, n *network) {
		n.names(t, n.serveNames(t, dnsZone(n)))
		l, err := n.server.Listen("tcp", net.JoinHostPort(n.shost, "80"))
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, r.Host)
		})}
		go srv.Serve(l)
		defer srv.Close()
		for _, host := range []string{"server.test", "alias.test.", "two.test"} {
			c, err := n.client.Dial("tcp", host+":http")
			if err != nil {
				t.Errorf("%s: %v", host, err)
				continue
			}
			if got := c.RemoteAddr().String(); got != net.JoinHostPort(n.shost, "80") {
				t.Errorf("%s led to %s", host, got)
			}
			c.Close()
		}
		c, err := n.client.Dial("udp", "server.test:53")
		if err != nil {
			t.Fatal(err)
		}
		if got := c.RemoteAddr().String(); got != net.JoinHostPort(n.shost, "53") {
			t.Errorf("udp led to %s", got)
		}
		c.Close()
		resp, err := n.client.HTTPClient().Get("http://server.test/")
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(b) != "server.test" {
			t.Errorf("HTTP: %q", b)
		}
		_, err = n.client.Dial("tcp", "none.test.:80")
		var op *net.OpError
		var de *net.DNSError
		if !errors.As(err, &op) || op.Op != "dial" || op.Addr != nil || !errors.As(err, &de) || !de.IsNotFound {
			t.Errorf("a name that does not exist: %v", err)
		}
	})
}

// TestConfigHosts tests the table and the function of hosts, and who is asked before whom.
func TestConfigHosts(t *testing.T) {
	var asked []string
	var mu sync.Mutex
	s := stack(t, bsdnet.Config{
		DNS: bsdnet.DNSConfig{Hosts: map[string][]netip.Addr{
			"Table": {netip.MustParseAddr("127.0.0.2")}, "both": {netip.MustParseAddr("127.0.0.3")}, "void": {},
		}},
		Hosts: func(_ context.Context, name string) ([]netip.Addr, error) {
			mu.Lock()
			asked = append(asked, name)
			mu.Unlock()
			switch name {
			case "function", "both":
				return []netip.Addr{netip.MustParseAddr("127.0.0.4")}, nil
			case "none":
				return []netip.Addr{}, nil
			case "error":
				return nil, syscall.EPERM
			}
			return nil, nil
		},
	})
	for _, k := range []struct{ host, want string }{
		{"table", "127.0.0.2:"}, {"TABLE.", "127.0.0.2:"}, {"function", "127.0.0.4:"}, {"both", "127.0.0.4:"},
		{"localhost", "127.0.0.1:"},
		{"none", "dial tcp: lookup none: no such host []"},
		{"void", "dial tcp: lookup void: no such host []"},
		{"error", "dial tcp: lookup error: operation not permitted []"},
		{"other", "dial tcp: lookup other: no such host (the stack has no DNS server: " +
			"set Config.DNS.Servers or call SetDNS) []"},
	} {
		ln, err := s.Listen("tcp4", "0.0.0.0:0")
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(ln.Addr().String())
		c, err := s.Dial("tcp", net.JoinHostPort(k.host, port))
		got := describe(err)
		if err == nil {
			got = strings.TrimSuffix(c.RemoteAddr().String(), port)
			c.Close()
		}
		ln.Close()
		if got != k.want {
			t.Errorf("%s: %s, want %s", k.host, got, k.want)
		}
		if k.host == "error" && !errors.Is(err, syscall.EPERM) {
			t.Errorf("%v does not wrap the function's error", err)
		}
	}
	if got, want := strings.Join(asked, " "), "table table function both none void error other"; got != want {
		t.Errorf("the function was asked for %s, want %s", got, want)
	}
	if ln, err := s.Listen("tcp", "table:0"); err != nil || ln.Addr().(*net.TCPAddr).IP.String() != "127.0.0.2" {
		t.Errorf("Listen on a name: %v", err)
	} else {
		ln.Close()
	}
	if s, err := bsdnet.New(bsdnet.Config{DNS: bsdnet.DNSConfig{Search: []string{"a..b"}}}); err == nil {
		s.Close()
		t.Error("New takes a domain that is none")
	}
}

// TestSetDNS tests that a stack's configuration can be changed and read, and that a bad one changes
// nothing.
func TestSetDNS(t *testing.T) {
	n := cable(t)
	zone := dnsZone(n)
	server := n.serveNames(t, zone)
	c := bsdnet.DNSConfig{Servers: []netip.AddrPort{server}, Search: []string{"corp.test"}}
	if err := n.client.SetDNS(c); err != nil {
		t.Fatal(err)
	}
	if err := n.client.SetDNS(bsdnet.DNSConfig{Servers: []netip.AddrPort{{}}}); err == nil {
		t.Error("SetDNS takes a server without an address")
	}
	want := "{Servers:[" + server.String() + "] Search:[corp.test.] Hosts:map[]}"
	if got := fmt.Sprintf("%+v", n.client.DNS()); got != want {
		t.Errorf("DNS: %s", got)
	}
	addrs, err := n.client.LookupHost(t.Context(), "db")
	asked := zone.Queries()
	if err != nil || !slices.Equal(addrs, []string{n.shost}) || !slices.Contains(asked, "udp A db.corp.test.") {
		t.Errorf("db: %v, %v; queries %q", addrs, err, asked)
	}
	n.client.SetDNS(bsdnet.DNSConfig{})
	if _, err := n.client.LookupHost(t.Context(), "db"); err == nil {
		t.Error("a stack without servers finds a name")
	}
}

// TestDeadServers tests how long it takes to ask the next server: no time if the server's host
// answers that there is none, and 5 s if nothing answers.
func TestDeadServers(t *testing.T) {
	for name, k := range map[string]struct {
		dead string
		took time.Duration
	}{"refused": {"10.0.0.1:9", 0}, "silent": {"10.0.0.99:53", 5 * time.Second}, "unreachable": {"192.0.2.1:53", 0}} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, cable, func(t *testing.T, n *network) {
				zone := dnsZone(n)
				server := n.serveNames(t, zone)
				n.client.SetDNS(bsdnet.DNSConfig{Servers: []netip.AddrPort{netip.MustParseAddrPort(k.dead), server}})
				start := time.Now()
				addrs, err := n.client.LookupHost(t.Context(), "server.test.")
				took := time.Since(start).Truncate(time.Millisecond)
				if err != nil || !slices.Equal(addrs, []string{n.shost}) || took != k.took {
					t.Errorf("%v, %v after %v, want %v", addrs, err, took, k.took)
				}
				n.client.SetDNS(bsdnet.DNSConfig{Servers: []netip.AddrPort{netip.MustParseAddrPort(k.dead)}})
				start = time.Now()
				_, err = n.client.LookupHost(t.Context(), "server.test.")
				var de *net.DNSError
				if took := time.Since(start).Truncate(time.Millisecond); !errors.As(err, &de) || de.IsNotFound ||
					!de.IsTemporary || de.IsTimeout != (name == "silent") || took != 2*k.took {
					t.Errorf("%+v after %v", err, took)
				}
			})
		})
	}
}

// TestServerOverIPv6 tests a name server at an IPv6 address, over UDP and TCP, and a dial over UDP
// to a name that has addresses of both families.
func TestServerOverIPv6(t *testing.T) {
	hosts := map[string][]netip.Addr{"peer": {netip.MustParseAddr(server4), netip.MustParseAddr(server6)}}
	synctest.Test(t, func(t *testing.T) {
		n := twoFamilies(t, bsdnet.Config{}, time.Millisecond, time.Millisecond)
		n.shost = server6
		zone := dnsZone(&network{shost: server4})
		server := n.serveNames(t, zone)
		if err := n.client.SetDNS(bsdnet.DNSConfig{Servers: []netip.AddrPort{server}, Hosts: hosts}); err != nil {
			t.Fatal(err)
		}
		addrs, err := n.client.LookupHost(t.Context(), "tc.test.")
		if err != nil || !slices.Equal(addrs, []string{server4}) || !slices.Contains(zone.Queries(), "tcp A tc.test.") {
			t.Errorf("%v, %v; queries %q", addrs, err, zone.Queries())
		}
		if got, want := n.client.Stats().DNS, (bsdnet.DNSStats{Queries: 4, Answers: 2, Truncated: 2}); got != want {
			t.Errorf("counters %+v, want %+v", got, want)
		}
		for network, want := range map[string]string{
			"udp": "[" + server6 + "]:7", "udp4": server4 + ":7", "udp6": "[" + server6 + "]:7",
		} {
			c, err := n.client.Dial(network, "peer:7")
			if err != nil {
				t.Fatal(err)
			}
			if got := c.RemoteAddr().String(); got != want {
				t.Errorf("%s led to %s, want %s", network, got, want)
			}
			c.Close()
		}
	})
}

// TestForgedSource tests that answers from another address or port than the server's are ignored,
// though they have all else.
func TestForgedSource(t *testing.T) {
	inBubble(t, cable, func(t *testing.T, n *network) {
		liar, err := n.server.ListenPacket("udp", net.JoinHostPort(n.shost, "0"))
		if err != nil {
			t.Fatal(err)
		}
		defer liar.Close()
		c, err := n.server.ListenPacket("udp", net.JoinHostPort(n.shost, "53"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		truth, lie := dnsZone(n), dnsZone(n)
		lie.Addrs["server.test."] = []string{"6.6.6.6"}
		go func() {
			b := make([]byte, 512)
			for {
				size, from, err := c.ReadFrom(b)
				if err != nil {
					return
				}
				liar.WriteTo(lie.Answer("udp", b[:size])[0], from)
				time.Sleep(time.Second)
				c.WriteTo(truth.Answer("udp", b[:size])[0], from)
			}
		}()
		server := netip.MustParseAddrPort(net.JoinHostPort(n.shost, "53"))
		n.client.SetDNS(bsdnet.DNSConfig{Servers: []netip.AddrPort{server}})
		ips, err := n.client.LookupNetIP(t.Context(), "ip4", "server.test.")
		if fmt.Sprint(ips) != "["+n.shost+"]" || err != nil {
			t.Errorf("%v, %v", ips, err)
		}
	})
}

// TestLookupsTogether tests many lookups at the same time, by the stack's own methods and by its
// net.Resolver.
func TestLookupsTogether(t *testing.T) {
	eachOwn(t, func(t *testing.T, n *network) {
		n.names(t, n.serveNames(t, dnsZone(n)))
		r := n.client.Resolver()
		var wg sync.WaitGroup
		for i := range 100 {
			name, from := "server.test.", resolver(n.client)
			if i%2 == 0 {
				name = "tc.test."
			}
			if i%3 == 0 {
				from = r
			}
			wg.Go(func() {
				addrs, err := from.LookupHost(t.Context(), name)
				if err != nil || !slices.Equal(addrs, []string{n.shost}) {
					t.Errorf("%s: %v, %v", name, addrs, err)
				}
			})
		}
		wg.Wait()
	})
}

// TestLookupClosed tests that a lookup ends when the stack is closed.
func TestLookupClosed(t *testing.T) {
	eachBubble(t, func(t *testing.T, n *network) {
		n.names(t, n.serveNames(t, dnsZone(n)))
		time.AfterFunc(2*time.Second, func() { n.client.Close() })
		start := time.Now()
		_, err := n.client.LookupHost(t.Context(), "silent.test.")
		if took := time.Since(start); !errors.Is(err, net.ErrClosed) || took != 2*time.Second {
			t.Errorf("%v after %v", err, took)
		}
	})
}

// TestLookupTrace tests that a dial by name calls the hooks of httptrace as package net does: those
// of the lookup, and those of the connection, but none for the connections to name servers.
func TestLookupTrace(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		names := n.names(t, n.serveNames(t, dnsZone(n)))
		l := n.listen(t)
		_, port, _ := net.SplitHostPort(l.Addr().String())
		for _, own := range []bool{false, true} {
			dial := (&bsdnet.Dialer{Stack: n.client}).DialContext
			switch r := names.(type) {
			case *net.Resolver:
				dial = (&net.Dialer{Resolver: r}).DialContext
			case *bsdnet.Stack:
				if own {
					dial = (&bsdnet.Dialer{Stack: r, Resolver: r.Resolver()}).DialContext
				}
			}
			for name, want := range map[string][]string{
				"tc.test.": {"DNSStart tc.test.", "DNSDone 1 S nil", "ConnectStart S", "ConnectDone S nil"},
				n.shost:    {"ConnectStart S", "ConnectDone S nil"},
			} {
				var got []string
				note := func(format string, args ...any) {
					s := fmt.Sprintf(format, args...)
					r := strings.NewReplacer(net.JoinHostPort(n.shost, port), "S", n.shost, "S")
					got = append(got, r.Replace(s))
				}
				ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
					DNSStart: func(i httptrace.DNSStartInfo) { note("DNSStart %s", i.Host) },
					DNSDone: func(i httptrace.DNSDoneInfo) {
						note("DNSDone %d %v %s", len(i.Addrs), i.Addrs[0].IP, describe(i.Err))
					},
					ConnectStart: func(_, addr string) { note("ConnectStart %s", addr) },
					ConnectDone:  func(_, addr string, err error) { note("ConnectDone %s %s", addr, describe(err)) },
				})
				c, err := dial(ctx, "tcp", net.JoinHostPort(name, port))
				if err != nil {
					t.Fatal(err)
				}
				c.Close()
				if !slices.Equal(got, want) {
					t.Errorf("%s, its own resolver %v: %q, want %q", name, own, got, want)
				}
			}
		}
	})
}

// TestLookupRepeats tests that a run with lookups repeats exactly, to the byte and the nanosecond.
func TestLookupRepeats(t *testing.T) {
	var runs [2]strings.Builder
	for i := range runs {
		synctest.Test(t, func(t *testing.T) {
			a, b, err := netem.Pipe(netem.PipeConfig{Delay: time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			n := &network{
				server: stack(t, bsdnet.Config{Rand: testutil.SeededRand(1)}),
				client: stack(t, bsdnet.Config{Rand: testutil.SeededRand(2)}),
				shost:  "10.0.0.1",
			}
			stacktest.Attach(t, n.server, a, "10.0.0.1/24")
			stacktest.Attach(t, n.client, b, "10.0.0.2/24")
			stop, err := n.client.Capture(b, &runs[i])
			if err != nil {
				t.Fatal(err)
			}
			n.names(t, n.serveNames(t, dnsZone(n)))
			for _, name := range []string{"server.test", "tc.test", "silent.test", "none.test"} {
				n.client.LookupHost(t.Context(), name)
				n.client.Resolver().LookupMX(t.Context(), name+".")
			}
			stop()
		})
	}
	if runs[0].String() != runs[1].String() || runs[0].Len() < 1000 {
		t.Errorf("two runs have captures of %d and %d bytes, which differ", runs[0].Len(), runs[1].Len())
	}
}
