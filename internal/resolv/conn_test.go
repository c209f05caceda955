package resolv

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet/internal/testutil/dnstest"
)

// The system's configuration must have been read outside of a bubble. Package bsdnet does this for
// its users.
var _, _ = (&net.Resolver{PreferGo: true}).LookupAddr(context.Background(), "")

// TestNetResolver tests what package net's resolver finds through ours. The names are absolute, as
// the system may have a search list.
func TestNetResolver(t *testing.T) {
	hosts := func(ctx context.Context, name string) ([]netip.Addr, error) {
		switch name {
		case "func.test":
			return []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")}, nil
		case "none.test":
			return []netip.Addr{}, nil
		case "bad.test":
			return nil, errors.New("the overlay is down")
		}
		return nil, nil
	}
	c := Config{
		Servers: []netip.AddrPort{netip.MustParseAddrPort(server1)},
		Search:  []string{"corp.test"},
		Hosts:   map[string][]netip.Addr{"Table.Test.": {netip.MustParseAddr("198.51.100.9")}},
	}
	host := func(name string) func(context.Context, *net.Resolver) string {
		return func(ctx context.Context, r *net.Resolver) string { return show(r.LookupHost(ctx, name)) }
	}
	for _, k := range []struct {
		name   string
		lookup func(context.Context, *net.Resolver) string
		want   string
	}{
		{"host", host("one.test."), "192.0.2.1"},
		{"alias", host("alias.test."), "192.0.2.1 192.0.2.2 2001:db8::1"},
		{"truncated", host("tc.test."), "192.0.2.3"},
		{"function", host("func.test."), "192.0.2.7 2001:db8::7"},
		{"table", host("table.test."), "198.51.100.9"},
		{"search", host("db."), "192.0.2.4"},
		{"searched for in vain", host("dc."), "lookup dc.: no such host NotFound"},
		{"bare", host("bare."), "192.0.2.6"},
		{"unknown", host("unknown.test."), "lookup unknown.test.: no such host NotFound"},
		{"function: no", host("none.test."), "lookup none.test.: no such host NotFound"},
		{"function: error", host("bad.test."), "lookup bad.test.: the overlay is down"},
		{"localhost", host("a.localhost."), "127.0.0.1 ::1"},
		{"fails", host("fail.test."), "lookup fail.test.: server misbehaving Temporary"},
		{"silent", host("silent.test."), "lookup silent.test.: i/o timeout Temporary Timeout"},
		{"CNAME", func(ctx context.Context, r *net.Resolver) string {
			name, err := r.LookupCNAME(ctx, "alias2.test.")
			return show([]string{name}, err)
		}, "both.test."},
		{"TXT", func(ctx context.Context, r *net.Resolver) string {
			return show(r.LookupTXT(ctx, "one.test."))
		}, "hello"},
		{"TXT of localhost", func(ctx context.Context, r *net.Resolver) string {
			return show(r.LookupTXT(ctx, "a.localhost."))
		}, "lookup a.localhost.: no such host NotFound"},
		{"addr", func(ctx context.Context, r *net.Resolver) string {
			return show(r.LookupAddr(ctx, "192.0.2.1"))
		}, "one.test. uno.test."},
		{"addr of the table", func(ctx context.Context, r *net.Resolver) string {
			return show(r.LookupAddr(ctx, "198.51.100.9"))
		}, "table.test."},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := &fakeNet{servers: map[string]*dnstest.Server{server1: zone()}}
			ours := f.resolver(t, c, hosts)
			got := k.lookup(t.Context(), &net.Resolver{PreferGo: true, Dial: ours.Dial})
			if at := strings.Index(got, " on "); at >= 0 { // the system's server
				got = got[:at] + got[at+strings.Index(got[at:], ": "):]
			}
			if words := strings.Fields(got); !strings.Contains(got, "lookup") {
				slices.Sort(words) // the order depends on the system's own addresses
				got = strings.Join(words, " ")
			}
			if got != k.want {
				t.Errorf("%s: %s, want %s", k.name, got, k.want)
			}
			for _, q := range f.servers[server1].Queries() {
				if strings.HasSuffix(q, ".localhost.") {
					t.Errorf("%s: the server is asked for %s", k.name, q)
				}
			}
		})
	}
}

// TestAnswerOnion tests that a name below .onion does not exist, whoever asks for it.
func TestAnswerOnion(t *testing.T) {
	f := &fakeNet{servers: map[string]*dnstest.Server{server1: zone()}}
	query, _ := mkquery("a.Onion.", 16) // TXT
	msg, err := f.resolver(t, Config{}, nil).answer(t.Context(), query)
	if h, _ := parseHeader(msg); err != nil || h.flags&rcodeMask != rcodeName || len(f.dialed) > 0 {
		t.Errorf("%x, %v, queries %q", msg, err, f.dialed)
	}
}

// TestNetResolverDeadServer tests that package net's resolver gets an answer within its own time
// limit, which it has from the system and is 5 s by default, if the first server is silent.
func TestNetResolverDeadServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeNet{servers: map[string]*dnstest.Server{server1: nil, server2: zone()}}
		ours := f.resolver(t, Config{Servers: []netip.AddrPort{
			netip.MustParseAddrPort(server1), netip.MustParseAddrPort(server2),
		}}, nil)
		conn, err := ours.Dial(t.Context(), "udp", "192.0.2.53:53")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		start := time.Now()
		conn.SetDeadline(start.Add(5 * time.Second))
		query, _ := mkquery("one.test.", typeA)
		conn.Write([]byte{0, byte(len(query))})
		conn.Write(query)
		b := make([]byte, 512)
		n, err := conn.Read(b[:1]) // the rest waits
		if n != 1 || err != nil {
			t.Fatal(n, err)
		}
		n, err = conn.Read(b)
		if took := time.Since(start); err != nil || n < len(query) || took != 1250*time.Millisecond {
			t.Errorf("%d bytes after %v: %v", n, took, err)
		}
		if _, err := conn.Read(b); err == nil {
			t.Error("a second answer to one query")
		}
	})
}

// TestNetResolverCancel tests that the lookup ends when its context or its connection does.
func TestNetResolverCancel(t *testing.T) {
	for name, end := range map[string]func(conn net.Conn, cancel func()){
		"cancel": func(conn net.Conn, cancel func()) { cancel() },
		"close":  func(conn net.Conn, cancel func()) { conn.Close() },
	} {
		synctest.Test(t, func(t *testing.T) {
			f := &fakeNet{servers: map[string]*dnstest.Server{server1: nil}}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			conn, _ := f.resolver(t, Config{}, nil).Dial(ctx, "udp", "192.0.2.53:53")
			query, _ := mkquery("one.test.", typeA)
			conn.Write(append([]byte{0, byte(len(query))}, query...))
			time.AfterFunc(time.Second, func() { end(conn, cancel) })
			start := time.Now()
			_, err := conn.Read(make([]byte, 512))
			if took := time.Since(start); !errors.Is(err, context.Canceled) || took != time.Second {
				t.Errorf("%s: %v after %v", name, err, took)
			}
			synctest.Wait()
			conn.Close()
		})
	}
}
