package resolv

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet/internal/testutil/dnstest"

	"golang.org/x/net/dns/dnsmessage"
)

// show writes the result of a lookup: addresses, or the error's text and what it says of itself.
func show[T any](list []T, err error) string {
	if err == nil {
		return strings.Trim(fmt.Sprint(list), "[]")
	}
	s := err.Error()
	var de *net.DNSError
	if errors.As(err, &de) {
		is := map[string]bool{"NotFound": de.IsNotFound, "Timeout": de.IsTimeout, "Temporary": de.IsTemporary}
		for mark, set := range is {
			if set {
				s += "|" + mark
			}
		}
	}
	marks := strings.Split(s, "|")
	slices.Sort(marks[1:])
	return strings.Join(marks, " ")
}

// zone is what the servers of most tests know.
func zone() *dnstest.Server {
	return &dnstest.Server{
		Addrs: map[string][]string{
			"one.test.":      {"192.0.2.1"},
			"six.test.":      {"2001:db8::6"},
			"both.test.":     {"192.0.2.1", "192.0.2.2", "2001:db8::1"},
			"empty.test.":    {},
			"tc.test.":       {"192.0.2.3"},
			"db.corp.test.":  {"192.0.2.4"},
			"a.b.corp.test.": {"192.0.2.5"},
			"bare.":          {"192.0.2.6"},
			"silent.test.":   {},
			"mute.test.":     {},
			"fail.test.":     {},
			"refused.test.":  {},
		},
		CNAME: map[string]string{
			"alias.test.":  "alias2.test.",
			"alias2.test.": "both.test.",
			"lost.test.":   "nowhere.test.",
			"loop.test.":   "loop2.test.",
			"loop2.test.":  "loop.test.",
		},
		PTR:      map[string][]string{"1.2.0.192.in-addr.arpa.": {"one.test.", "uno.test."}},
		TXT:      map[string][]string{"one.test.": {"hello"}},
		Truncate: map[string]bool{"tc.test.": true, "mute.test.": true},
		Silent:   map[string]string{"silent.test.": "udp tcp", "mute.test.": "tcp"},
		RCode: map[string]dnsmessage.RCode{
			"fail.test.": dnsmessage.RCodeServerFailure, "fail.": dnsmessage.RCodeServerFailure,
			"refused.test.": dnsmessage.RCodeRefused,
		},
	}
}

const server1, server2 = "10.0.0.53:53", "10.0.0.54:53"

// TestLookup tests what names lead to, with the queries that it takes.
func TestLookup(t *testing.T) {
	hosts := func(ctx context.Context, name string) ([]netip.Addr, error) {
		switch name {
		case "func.test":
			return []netip.Addr{netip.MustParseAddr("::ffff:192.0.2.7")}, nil
		case "none.test":
			return []netip.Addr{}, nil
		case "bad.test":
			return nil, errors.New("the overlay is down")
		case "late.test":
			<-ctx.Done()
			return nil, ctx.Err()
		case "bücher.test":
			return []netip.Addr{netip.MustParseAddr("192.0.2.8")}, nil
		}
		return nil, nil
	}
	c := Config{
		Search: []string{"corp.test", "x.onion", "Other.test."},
		Hosts: map[string][]netip.Addr{
			"Table.Test.": {netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("2001:db8::9")},
			"func.test":   {netip.MustParseAddr("192.0.2.10")},
			"void.test":   {},
		},
	}
	for _, k := range []struct{ network, name, want, queries string }{
		{"ip", "one.test", "192.0.2.1", "udp A one.test., udp AAAA one.test."},
		{"ip4", "one.test", "192.0.2.1", "udp A one.test."},
		{"ip", "one.test.", "192.0.2.1", "udp A one.test., udp AAAA one.test."},
		{"ip", "ONE.Test", "192.0.2.1", "udp A ONE.Test., udp AAAA ONE.Test."},
		{"ip6", "six.test", "2001:db8::6", "udp AAAA six.test."},
		{"ip", "both.test", "2001:db8::1 192.0.2.1 192.0.2.2", "udp A both.test., udp AAAA both.test."},
		{"ip", "alias.test", "2001:db8::1 192.0.2.1 192.0.2.2", "udp A alias.test., udp AAAA alias.test."},
		{"ip4", "loop.test.", "lookup loop.test. on S: no such host NotFound", "udp A loop.test."},
		{"ip4", "lost.test.", "lookup lost.test. on S: no such host NotFound", "udp A lost.test."},
		{"ip4", "tc.test", "192.0.2.3", "udp A tc.test., tcp A tc.test."},
		{"ip4", "mute.test.", "lookup mute.test. on S: read pipe: i/o timeout Temporary Timeout",
			"udp A mute.test., tcp A mute.test., udp A mute.test., tcp A mute.test."},
		{"ip4", "empty.test.", "lookup empty.test. on S: no such host NotFound", "udp A empty.test."},
		{"ip4", "unknown.test.", "lookup unknown.test. on S: no such host NotFound", "udp A unknown.test."},
		{"ip4", "unknown.test", "lookup unknown.test on S: no such host NotFound",
			"udp A unknown.test., udp A unknown.test.corp.test., udp A unknown.test.Other.test."},
		{"ip4", "fail.test.", "lookup fail.test. on S: server misbehaving Temporary",
			"udp A fail.test., udp A fail.test."},
		{"ip4", "fail", "lookup fail on S: server misbehaving Temporary", // and not "no such host"
			"udp A fail.corp.test., udp A fail.Other.test., udp A fail., udp A fail."},
		{"ip4", "refused.test.", "lookup refused.test. on S: server misbehaving",
			"udp A refused.test., udp A refused.test."},
		{"ip4", "silent.test.", "lookup silent.test. on S: read udp: i/o timeout Temporary Timeout",
			"udp A silent.test., udp A silent.test."},
		{"ip4", "db", "192.0.2.4", "udp A db.corp.test."},
		{"ip4", "bare", "192.0.2.6", "udp A bare.corp.test., udp A bare.Other.test., udp A bare."},
		{"ip4", "bare.", "192.0.2.6", "udp A bare."},
		{"ip4", "a.b", "192.0.2.5", "udp A a.b., udp A a.b.corp.test."},
		{"ip", "localhost", "::1 127.0.0.1", ""},
		{"ip4", "LocalHost.", "127.0.0.1", ""},
		{"ip6", "a.localhost", "::1", ""},
		{"ip", "func.test", "192.0.2.7", ""},
		{"ip", "FUNC.test.", "192.0.2.7", ""},
		{"ip", "none.test", "lookup none.test: no such host NotFound", ""},
		{"ip", "bad.test", "lookup bad.test: the overlay is down", ""},
		{"ip", "late.test", "lookup late.test: i/o timeout Temporary Timeout", ""},
		{"ip", "bücher.test", "192.0.2.8", ""},
		{"ip", "bücher2.test", "lookup bücher2.test: no such host NotFound", ""},
		{"ip", "table.test", "2001:db8::9 192.0.2.9", ""},
		{"ip4", "TABLE.TEST.", "192.0.2.9", ""},
		{"ip", "void.test", "lookup void.test: no such host NotFound", ""},
		{"ip6", "func.test", "address func.test: no suitable address found", ""},
		{"ip", "secret.onion", "lookup secret.onion: no such host NotFound", ""},
		{"ip", "", "lookup : no such host NotFound", ""},
		{"ip", "a..b", "lookup a..b: no such host NotFound", ""},
		{"ip", "-a.test", "lookup -a.test: no such host NotFound", ""},
		{"ip", "1.2.3", "lookup 1.2.3: no such host NotFound", ""},
		{"ip", strings.Repeat("a", 64), "lookup " + strings.Repeat("a", 64) + ": no such host NotFound", ""},
		{"ip", "192.0.2.1", "192.0.2.1", ""},
		{"ip4", "::ffff:192.0.2.1", "192.0.2.1", ""},
		{"ip", "fe80::1%if0", "fe80::1%if0", ""},
		{"ip4", "::1", "address ::1: no suitable address found", ""},
		{"tcp", "one.test", "unknown network tcp", ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := &fakeNet{
				servers: map[string]*dnstest.Server{server1: zone()},
				sources: map[string]string{"0.0.0.0/0": "198.51.100.1", "::/0": "2001:db8:1::1"},
			}
			r := f.resolver(t, c, hosts)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			got := strings.ReplaceAll(show(r.LookupNetIP(ctx, k.network, k.name)), server1, "S")
			queries := f.servers[server1].Queries()
			if k.network == "ip" {
				slices.Sort(queries) // A and AAAA are asked for at the same time
			}
			if q := strings.Join(queries, ", "); got != k.want || q != k.queries {
				t.Errorf("%s %q:\n got %s\n     (%s)\nwant %s\n     (%s)", k.network, k.name, got, q, k.want, k.queries)
			}
		})
	}
}

// TestServers tests which servers are asked, and how long that takes.
func TestServers(t *testing.T) {
	failing := func(code dnsmessage.RCode) *dnstest.Server {
		return &dnstest.Server{RCode: map[string]dnsmessage.RCode{"one.test.": code}}
	}
	for _, k := range []struct {
		name           string
		first, second  *dnstest.Server
		limit          time.Duration // of the context; 0 is none
		want           string
		took           time.Duration
		asked1, asked2 int
	}{
		{"both work", zone(), zone(), 0, "192.0.2.1", 0, 1, 0},
		{"the first is silent", nil, zone(), 0, "192.0.2.1", 5 * time.Second, 1, 1},
		{"the first is silent, little time", nil, zone(), 6 * time.Second, "192.0.2.1", 1500 * time.Millisecond, 1, 1},
		{"the first is silent, least time", nil, zone(), 2 * time.Second, "192.0.2.1", time.Second, 1, 1},
		{"both are silent", nil, nil, 0,
			"lookup one.test on B: read udp: i/o timeout Temporary Timeout", 20 * time.Second, 2, 2},
		{"both are silent, little time", nil, nil, 3500 * time.Millisecond,
			"lookup one.test: i/o timeout Temporary Timeout", 3500 * time.Millisecond, 2, 2},
		{"the first fails", failing(dnsmessage.RCodeServerFailure), zone(), 0, "192.0.2.1", 0, 1, 1},
		{"the first refuses", failing(dnsmessage.RCodeRefused), zone(), 0, "192.0.2.1", 0, 1, 1},
		{"both fail", failing(dnsmessage.RCodeServerFailure), failing(dnsmessage.RCodeServerFailure), 0,
			"lookup one.test on B: server misbehaving Temporary", 0, 2, 2},
		{"the first knows that there is none", failing(dnsmessage.RCodeNameError), zone(), 0,
			"lookup one.test on A: no such host NotFound", 0, 1, 0},
	} {
		t.Run(k.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fakeNet{servers: map[string]*dnstest.Server{server1: k.first, server2: k.second}}
				r := f.resolver(t, Config{Servers: []netip.AddrPort{
					netip.MustParseAddrPort(server1), netip.MustParseAddrPort(server2),
				}}, nil)
				ctx := t.Context()
				if k.limit > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, k.limit)
					defer cancel()
				}
				start := time.Now()
				got := show(r.LookupNetIP(ctx, "ip4", "one.test"))
				took := time.Since(start)
				got = strings.NewReplacer(server1, "A", server2, "B").Replace(got)
				count := map[string]int{}
				for _, d := range f.dialed {
					count[d]++
				}
				asked1, asked2 := count["udp "+server1], count["udp "+server2]
				if got != k.want || took != k.took || asked1 != k.asked1 || asked2 != k.asked2 {
					t.Errorf("%s after %v, queries %d and %d\nwant %s after %v, queries %d and %d",
						got, took, asked1, asked2, k.want, k.took, k.asked1, k.asked2)
				}
			})
		})
	}
}

// TestStats tests the counters.
func TestStats(t *testing.T) {
	for name, want := range map[string]string{
		"one.test":     "1 queries, 1 answers, 0 time-outs, 0 truncated, 0 ignored",
		"tc.test":      "2 queries, 1 answers, 0 time-outs, 1 truncated, 0 ignored",
		"silent.test.": "2 queries, 0 answers, 2 time-outs, 0 truncated, 0 ignored",
		"mute.test.":   "4 queries, 0 answers, 2 time-outs, 2 truncated, 0 ignored",
		"fail.test.":   "2 queries, 2 answers, 0 time-outs, 0 truncated, 0 ignored",
	} {
		synctest.Test(t, func(t *testing.T) {
			f := &fakeNet{servers: map[string]*dnstest.Server{server1: zone()}}
			r := f.resolver(t, Config{}, nil)
			r.LookupNetIP(t.Context(), "ip4", name)
			s := &r.Stats
			got := fmt.Sprintf("%d queries, %d answers, %d time-outs, %d truncated, %d ignored",
				s.Queries.Load(), s.Answers.Load(), s.Timeouts.Load(), s.Truncated.Load(), s.Ignored.Load())
			if got != want {
				t.Errorf("%s: %s, want %s", name, got, want)
			}
		})
	}
}

// TestUnreachable tests a server to which there is no route.
func TestUnreachable(t *testing.T) {
	f := &fakeNet{}
	r := f.resolver(t, Config{Servers: []netip.AddrPort{netip.MustParseAddrPort(server1)}}, nil)
	const want = "lookup one.test on 10.0.0.53:53: dial udp 10.0.0.53:53: connect: network is unreachable Temporary"
	if got := show(r.LookupNetIP(t.Context(), "ip", "one.test")); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

// TestNoServer tests the error of a stack that has no server: it says what to do.
func TestNoServer(t *testing.T) {
	r := New(Env{})
	for _, err := range []error{
		second(r.LookupNetIP(t.Context(), "ip", "one.test")), second(r.LookupAddr(t.Context(), "192.0.2.1")),
	} {
		if !notFound(err) || !strings.Contains(err.Error(), "Config.DNS.Servers") {
			t.Errorf("%v", err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// TestForgery tests that answers with another ID, another question or no sense are ignored, and
// that the true answer is taken after them.
func TestForgery(t *testing.T) {
	forge := func(answer []byte, change func(m *dnsmessage.Message)) []byte {
		var m dnsmessage.Message
		if err := m.Unpack(answer); err != nil {
			t.Fatal(err)
		}
		for i := range m.Answers {
			m.Answers[i].Body = &dnsmessage.AResource{A: [4]byte{6, 6, 6, 6}}
		}
		change(&m)
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	forgeries := map[string]func(m *dnsmessage.Message){
		"ID":        func(m *dnsmessage.Message) { m.ID++ },
		"name":      func(m *dnsmessage.Message) { m.Questions[0].Name = dnsmessage.MustNewName("six.test.") },
		"type":      func(m *dnsmessage.Message) { m.Questions[0].Type = dnsmessage.TypeAAAA },
		"class":     func(m *dnsmessage.Message) { m.Questions[0].Class = dnsmessage.ClassCHAOS },
		"a query":   func(m *dnsmessage.Message) { m.Response = false },
		"opcode":    func(m *dnsmessage.Message) { m.OpCode = 4 },
		"none":      func(m *dnsmessage.Message) { m.Questions = nil },
		"two":       func(m *dnsmessage.Message) { m.Questions = append(m.Questions, m.Questions[0]) },
		"truncated": func(m *dnsmessage.Message) { m.ID++; m.Truncated = true },
	}
	for _, name := range slices.Sorted(maps.Keys(forgeries)) {
		synctest.Test(t, func(t *testing.T) {
			s := zone()
			s.Twist = func(_, answer []byte) [][]byte {
				return [][]byte{nil, answer[:5], forge(answer, forgeries[name]), answer}
			}
			f := &fakeNet{servers: map[string]*dnstest.Server{server1: s}}
			r := f.resolver(t, Config{}, nil)
			got := show(r.LookupNetIP(t.Context(), "ip4", "one.test"))
			if n := r.Stats.Ignored.Load(); got != "192.0.2.1" || n != 3 {
				t.Errorf("%s: %s, %d datagrams ignored", name, got, n)
			}
		})
	}
}

// TestBadAnswers tests answers that belong to the query and are broken: another server is asked,
// and the error says so.
func TestBadAnswers(t *testing.T) {
	for _, k := range []struct {
		name, want string
		queries    int
		twist      func(answer []byte) []byte
	}{
		{"cut in a record", "cannot unmarshal DNS message", 2, func(a []byte) []byte { return a[:len(a)-1] }},
		{"too few records", "cannot unmarshal DNS message", 2, func(a []byte) []byte { a[7] = 9; return a }},
		{"a long address", "cannot unmarshal DNS message", 1, func(a []byte) []byte {
			a[len(a)-5]++
			return append(a, 0)
		}},
		{"a pointer to itself", "cannot unmarshal DNS message", 2, func(a []byte) []byte {
			a[len(a)-15] = byte(len(a) - 16)
			return a
		}},
		{"an extended code", "server misbehaving", 2, func(a []byte) []byte { // RFC 6891, 9: BADVERS is 16
			a[11] = 1
			return append(a, 0, 0, typeOPT, 4, 208, 1, 0, 0, 0, 0, 0)
		}},
		{"lame", "lame referral", 2, func(a []byte) []byte { a[3] &^= flagRA; a[7] = 0; return a[:len(a)-16] }},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := zone()
			s.Twist = func(_, answer []byte) [][]byte { return [][]byte{k.twist(answer)} }
			f := &fakeNet{servers: map[string]*dnstest.Server{server1: s}}
			r := f.resolver(t, Config{}, nil)
			want := "lookup one.test on " + server1 + ": " + k.want
			if got := show(r.LookupNetIP(t.Context(), "ip4", "one.test")); got != want || len(f.dialed) != k.queries {
				t.Errorf("%s: %s, want %s; %q", k.name, got, want, f.dialed)
			}
		})
	}
}

// TestOwner tests that records of other names in an answer are ignored, and that the order of those
// that belong to the name does not matter.
func TestOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := zone()
		s.Twist = func(_, answer []byte) [][]byte {
			var m dnsmessage.Message
			if err := m.Unpack(answer); err != nil {
				t.Error(err)
			}
			slices.Reverse(m.Answers)
			forged := m.Answers[0]
			forged.Header.Name = dnsmessage.MustNewName("other.test.")
			forged.Body = &dnsmessage.AResource{A: [4]byte{6, 6, 6, 6}}
			m.Answers = append([]dnsmessage.Resource{forged}, m.Answers...)
			b, err := m.Pack()
			if err != nil {
				t.Error(err)
			}
			return [][]byte{b}
		}
		f := &fakeNet{servers: map[string]*dnstest.Server{server1: s}}
		r := f.resolver(t, Config{}, nil)
		if got := show(r.LookupNetIP(t.Context(), "ip4", "alias.test.")); got != "192.0.2.2 192.0.2.1" {
			t.Errorf("%s", got)
		}
	})
}

// TestQueries tests that the IDs of queries differ, and that a query is one that others understand.
func TestQueries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeNet{servers: map[string]*dnstest.Server{server1: nil}}
		r := f.resolver(t, Config{}, nil)
		r.LookupNetIP(t.Context(), "ip", "one.test.")
		ids := map[uint16]bool{}
		for _, b := range f.sent {
			var m dnsmessage.Message
			if err := m.Unpack(b); err != nil {
				t.Fatal(err)
			}
			ids[m.ID] = true
			if !m.RecursionDesired || len(m.Additionals) != 1 || m.Additionals[0].Header.Class != maxUDP {
				t.Errorf("a query is %v", m.GoString())
			}
		}
		if len(f.sent) != 4 || len(ids) != 4 {
			t.Errorf("%d queries with %d IDs", len(f.sent), len(ids))
		}
	})
}

// TestCancel tests that a lookup ends as soon as its context is canceled, before it or while it
// waits, and over TCP.
func TestCancel(t *testing.T) {
	for _, k := range []struct {
		name  string
		after time.Duration
	}{
		{"silent.test.", 0}, {"silent.test.", 2 * time.Second}, {"silent.test.", 7 * time.Second},
		{"mute.test.", 2 * time.Second}, // over TCP
	} {
		synctest.Test(t, func(t *testing.T) {
			f := &fakeNet{servers: map[string]*dnstest.Server{server1: zone()}}
			r := f.resolver(t, Config{}, nil)
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(k.after, cancel)
			if k.after == 0 {
				cancel()
			}
			start := time.Now()
			_, err := r.LookupNetIP(ctx, "ip", k.name)
			took := time.Since(start)
			synctest.Wait()
			got, want := show([]int(nil), err), "lookup "+k.name+": operation was canceled"
			if got != want || !errors.Is(err, context.Canceled) || took != k.after || f.open != 0 {
				t.Errorf("%v after %v, want %s after %v; %d sockets are open", got, took, want, k.after, f.open)
			}
		})
	}
}

// TestLookupAddr tests the names of addresses.
func TestLookupAddr(t *testing.T) {
	c := Config{Hosts: map[string][]netip.Addr{
		"b.test": {netip.MustParseAddr("192.0.2.9")}, "a": {netip.MustParseAddr("192.0.2.9")},
	}}
	for _, k := range []struct{ addr, want string }{
		{"192.0.2.1", "one.test. uno.test."},
		{"::ffff:192.0.2.1", "one.test. uno.test."},
		{"192.0.2.9", "a b.test."},
		{"127.0.0.1", "localhost"},
		{"::1", "localhost"},
		{"192.0.2.2", "lookup 192.0.2.2 on S: no such host NotFound"},
		{"2001:db8::2", "lookup 2001:db8::2 on S: no such host NotFound"},
		{"one.test", "lookup one.test: unrecognized address"},
		{"192.0.2.66", "lookup 192.0.2.66: DNS response contained records which contain invalid names"},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := zone()
			s.PTR["66.2.0.192.in-addr.arpa."] = []string{"a b."}
			f := &fakeNet{servers: map[string]*dnstest.Server{server1: s}}
			r := f.resolver(t, c, nil)
			got := strings.ReplaceAll(show(r.LookupAddr(t.Context(), k.addr)), server1, "S")
			if got != k.want {
				t.Errorf("%s: %s, want %s", k.addr, got, k.want)
			}
		})
	}
}

// TestSetConfig tests which configurations are refused, and that later changes of its slices and
// maps have no effect.
func TestSetConfig(t *testing.T) {
	a := netip.MustParseAddr("192.0.2.1")
	servers := func(list ...netip.AddrPort) Config { return Config{Servers: list} }
	hosts := func(name string, list ...netip.Addr) Config {
		return Config{Hosts: map[string][]netip.Addr{name: list}}
	}
	r := New(Env{})
	for _, k := range []struct {
		c    Config
		want string
	}{
		{Config{}, "<nil>"},
		{servers(netip.AddrPort{}), "Servers[0] is invalid AddrPort; it must be an address and a port"},
		{servers(netip.AddrPortFrom(a, 0)), "Servers[0] is 192.0.2.1:0; it must be an address and a port"},
		{servers(netip.AddrPortFrom(a, 53), netip.MustParseAddrPort("0.0.0.0:53")),
			"Servers[1] is 0.0.0.0:53; it must be an address and a port"},
		{Config{Search: []string{"a.test", "b..test"}}, `Search[1] is "b..test", which is not a domain name`},
		{Config{Search: []string{""}}, `Search[0] is "", which is not a domain name`},
		{hosts("a", netip.Addr{}), `Hosts["a"] has an address that is not valid`},
		{hosts(".", a), "Hosts has an empty name"},
		{Config{Hosts: map[string][]netip.Addr{"a": {a}, "A.": {a}}}, `Hosts has the name "a" twice`},
	} {
		if got := fmt.Sprint(r.SetConfig(k.c)); strings.TrimPrefix(got, "bsdnet: DNSConfig.") != k.want {
			t.Errorf("%+v: %s, want %s", k.c, got, k.want)
		}
	}
	c := Config{
		Servers: []netip.AddrPort{netip.MustParseAddrPort(server1)}, Search: []string{"a.test"},
		Hosts: map[string][]netip.Addr{"B.test.": {a}},
	}
	if err := r.SetConfig(c); err != nil {
		t.Fatal(err)
	}
	c.Servers[0], c.Search[0], c.Hosts["B.test."][0] = netip.AddrPort{}, "x", netip.Addr{}
	for range 2 {
		got := r.Config()
		if s := fmt.Sprint(got); s != "{[10.0.0.53:53] [a.test.] map[b.test:[192.0.2.1]]}" {
			t.Fatal(s)
		}
		got.Servers[0], got.Search[0], got.Hosts["b.test"][0] = netip.AddrPort{}, "x", netip.Addr{}
		got.Hosts["c"] = nil
	}
}
