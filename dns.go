package bsdnet

import (
	"context"
	"crypto/rand"
	"io"
	"net"
	"net/http/httptrace"
	"net/netip"

	"bsdnet/internal/resolv"
)

// A DNSConfig says how a stack looks names up: what resolv.conf(5) and hosts(5) say on a system,
// whose own files a stack does not read.
//
// The servers are asked in order, each for up to 5 s, and all of them twice, which are the defaults
// of resolv.conf: the next one is asked if one does not answer, or answers that it has failed. If
// the context of a lookup has a deadline, the tries share the time until then, with at least a
// second for each. Queries go over UDP with EDNS0, and again over TCP if the answer was truncated.
// Each has an ID and a port of its own, which cannot be predicted, and other answers than its own
// are ignored (RFC 5452). Answers are not kept.
type DNSConfig struct {
	// Servers are the name servers, which must be recursive. The port is usually 53. If there are
	// none, only names in Hosts, those that Config.Hosts knows, and localhost are found.
	Servers []netip.AddrPort

	// Search has the domains in which a name is looked for, one after the other: the name itself
	// first if it has a dot, and last if it has none. A name that ends in a dot is looked for as it
	// is.
	Search []string

	// Hosts has the addresses of names, for which no server is asked: hosts(5). Case and a dot at
	// the end of a name make no difference. A name without addresses does not exist.
	Hosts map[string][]netip.Addr
}

// SetDNS replaces the stack's DNSConfig. Lookups that are under way go on with the old one. If c is
// bad, SetDNS returns an error that says why, and changes nothing.
func (s *Stack) SetDNS(c DNSConfig) error { return s.names.SetConfig(resolv.Config(c)) }

// DNS returns a copy of the stack's DNSConfig. Names in Hosts are in lower case and do not end in a
// dot; the domains of Search do.
func (s *Stack) DNS() DNSConfig { return DNSConfig(s.names.Config()) }

// LookupHost finds the addresses of a name as the stack's dials do: net.Resolver.LookupHost. They
// are in the order in which a dial tries them (RFC 6724). Errors are of type *net.DNSError.
func (s *Stack) LookupHost(ctx context.Context, host string) ([]string, error) {
	if _, err := netip.ParseAddr(host); err == nil {
		return []string{host}, nil
	}
	ips, err := s.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	addrs := make([]string, len(ips))
	for i, ip := range ips {
		addrs[i] = ip.String()
	}
	return addrs, nil
}

// LookupNetIP finds the addresses of a name: net.Resolver.LookupNetIP. The network is "ip", "ip4"
// or "ip6". IPv4 addresses are never in the form of IPv6.
func (s *Stack) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	return s.names.LookupNetIP(ctx, network, host)
}

// LookupAddr finds the names of an address: net.Resolver.LookupAddr. It looks in DNSConfig.Hosts
// first, in which case the names are sorted; Config.Hosts is not asked.
func (s *Stack) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	return s.names.LookupAddr(ctx, addr)
}

// Resolver returns a new net.Resolver that asks the servers of the stack's DNSConfig over the
// stack, for programs that take one, and for other records than addresses: it has LookupMX,
// LookupTXT, LookupSRV and so on. The stack's own dials and lookups do not use it.
//
// It is package net's resolver, with PreferGo and a Dial that connects it to the stack. So, unlike
// the methods of the stack, it also applies the system's own configuration, if there is one: it
// finds the names of the system's hosts file first, appends the system's search domains to names
// that do not end in a dot, puts addresses into the order in which the system should try them, and
// names the system's server in its errors. DNSConfig.Search is applied to names without a dot, if
// they are looked up for their addresses. Names in Config.Hosts that are no domain names are not
// found.
func (s *Stack) Resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: s.names.Dial}
}

// newNames makes the stack's resolver.
func (s *Stack) newNames(c *Config) error {
	env := resolv.Env{Dial: s.dialServer, Source: s.k.Source, Hosts: c.Hosts}
	random := c.Rand
	if random == nil {
		random = rand.Reader
	}
	if _, err := io.ReadFull(random, env.Seed[:]); err != nil {
		return err
	}
	s.names = resolv.New(env)
	return s.SetDNS(c.DNS)
}

// dialServer connects to a name server.
func (s *Stack) dialServer(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	return (&Dialer{Stack: s}).dialSingle(untraced{ctx}, network, to)
}

// untraced is a context of a lookup. As in package net, what it connects to is not told to
// httptrace's ConnectStart and ConnectDone, which are for the connections of the dial itself.
type untraced struct{ context.Context }

func (c untraced) Value(key any) any {
	v := c.Context.Value(key)
	if t, ok := v.(*httptrace.ClientTrace); ok {
		shadow := *t
		shadow.ConnectStart, shadow.ConnectDone = nil, nil
		return &shadow
	}
	return v
}

// The first use of package net's own resolver makes channels that belong to the testing/synctest
// bubble in which it happens, so that another bubble's use would end the program. Hence it is here;
// it reads the system's configuration and sends nothing.
var _, _ = (&net.Resolver{PreferGo: true}).LookupAddr(context.Background(), "")
