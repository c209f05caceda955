package resolv

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// An Env is what a resolver needs of its stack.
type Env struct {
	// Dial connects to a server; the network is "udp" or "tcp".
	Dial func(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error)

	// Source returns the source address of packets to dst, or the zero Addr if dst cannot be
	// reached.
	Source func(dst netip.Addr) netip.Addr

	// Hosts is bsdnet.Config.Hosts. It may be nil.
	Hosts func(ctx context.Context, name string) ([]netip.Addr, error)

	// Seed is for the IDs of queries.
	Seed [32]byte
}

// A Config is a bsdnet.DNSConfig.
type Config struct {
	Servers []netip.AddrPort
	Search  []string
	Hosts   map[string][]netip.Addr
}

// A Resolver looks up names. Several goroutines may call its methods at the same time.
type Resolver struct {
	env  Env
	conf atomic.Pointer[Config] // checked; it never changes

	mu  sync.Mutex
	ids *rand.ChaCha8

	Stats Stats
}

// Stats are the counters of a resolver.
type Stats struct {
	Queries   atomic.Uint64 // sent to servers, those over TCP included
	Answers   atomic.Uint64 // taken, those over TCP included
	Timeouts  atomic.Uint64 // queries to which no answer has come in time
	Truncated atomic.Uint64 // answers over UDP that were asked for again over TCP
	Ignored   atomic.Uint64 // datagrams that were no answer to the query: forged, or late
}

// New makes a resolver without servers.
func New(env Env) *Resolver {
	r := &Resolver{env: env, ids: rand.NewChaCha8(env.Seed)}
	r.conf.Store(new(Config))
	return r
}

// randomID returns the ID of a query. RFC 5452, 9.2: implementations MUST "use an unpredictable
// query ID for outgoing queries".
func (r *Resolver) randomID() uint16 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return uint16(r.ids.Uint64())
}

// SetConfig replaces the configuration by a copy of c, unless c is bad. Lookups that are under way
// go on with the old one.
func (r *Resolver) SetConfig(c Config) error {
	for i, a := range c.Servers {
		if !a.Addr().IsValid() || a.Addr().IsUnspecified() || a.Addr().IsMulticast() || a.Port() == 0 {
			return fmt.Errorf("bsdnet: DNSConfig.Servers[%d] is %v; it must be an address and a port", i, a)
		}
	}
	search := make([]string, len(c.Search))
	for i, s := range c.Search {
		if s = strings.TrimSuffix(s, "."); !isDomainName(s) {
			return fmt.Errorf("bsdnet: DNSConfig.Search[%d] is %q, which is not a domain name", i, c.Search[i])
		}
		search[i] = s + "."
	}
	hosts := make(map[string][]netip.Addr, len(c.Hosts))
	for name, list := range c.Hosts {
		list = slices.Clone(list)
		for i, a := range list {
			if !a.IsValid() {
				return fmt.Errorf("bsdnet: DNSConfig.Hosts[%q] has an address that is not valid", name)
			}
			list[i] = a.Unmap()
		}
		key := hostKey(name)
		if key == "" {
			return errors.New("bsdnet: DNSConfig.Hosts has an empty name")
		}
		if _, twice := hosts[key]; twice {
			return fmt.Errorf("bsdnet: DNSConfig.Hosts has the name %q twice", key)
		}
		hosts[key] = list
	}
	r.conf.Store(&Config{Servers: slices.Clone(c.Servers), Search: search, Hosts: hosts})
	return nil
}

// Config returns a copy of the configuration. Names in Hosts are in lower case, without a dot at
// their end; domains in Search have one.
func (r *Resolver) Config() Config {
	c := r.conf.Load()
	hosts := make(map[string][]netip.Addr, len(c.Hosts))
	for name, list := range c.Hosts {
		hosts[name] = slices.Clone(list)
	}
	return Config{Servers: slices.Clone(c.Servers), Search: slices.Clone(c.Search), Hosts: hosts}
}

// hostKey returns the form in which a name is compared with the names of the table.
func hostKey(name string) string { return lower(strings.TrimSuffix(name, ".")) }
