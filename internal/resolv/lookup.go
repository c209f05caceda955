package resolv

import (
	"context"
	"errors"
	"net"
	"net/http/httptrace"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// LookupNetIP finds the addresses of a name, or of a literal address, in the order in which they
// should be tried. The network is "ip", "ip4" or "ip6". It is net.Resolver.LookupNetIP.
func (r *Resolver) LookupNetIP(ctx context.Context, network, name string) ([]netip.Addr, error) {
	var match func(netip.Addr) bool
	switch network {
	case "ip":
		match = netip.Addr.IsValid
	case "ip4":
		match = netip.Addr.Is4
	case "ip6":
		match = netip.Addr.Is6
	default:
		return nil, net.UnknownNetworkError(network)
	}
	var addrs []netip.Addr
	if a, err := netip.ParseAddr(name); err == nil {
		addrs = []netip.Addr{a.Unmap()}
	} else if name == "" {
		return nil, dnsError(errNoSuchHost, name, "")
	} else if addrs, err = r.traced(ctx, network, name); err != nil {
		return nil, err
	}
	addrs = slices.DeleteFunc(addrs, func(a netip.Addr) bool { return !match(a) })
	if len(addrs) == 0 {
		return nil, &net.AddrError{Err: "no suitable address found", Addr: name}
	}
	return addrs, nil
}

// LookupAddr finds the names of an address: net.Resolver.LookupAddr.
func (r *Resolver) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return nil, &net.DNSError{Err: "unrecognized address", Name: addr}
	}
	c := r.conf.Load()
	if names := c.namesOf(a); len(names) > 0 {
		return names, nil
	}
	q := r.inquire(c, reverse(a.Unmap().WithZone("")), typePTR)
	if q.finish(ctx); q.err != nil {
		return nil, dnsError(q.err, addr, q.server)
	}
	var names []string
	bad := false
	for _, rec := range q.list {
		name, _, ok := expand(q.msg, rec.data)
		if ok = ok && isDomainName(name); ok {
			names = append(names, name)
		}
		bad = bad || !ok
	}
	if bad {
		return names, &net.DNSError{Err: "DNS response contained records which contain invalid names", Name: addr}
	}
	return names, nil
}

// namesOf returns the names of an address that are known without a query.
func (c *Config) namesOf(a netip.Addr) (names []string) {
	a = a.Unmap().WithZone("")
	if a == netip.IPv6Loopback() || a == netip.AddrFrom4([4]byte{127, 0, 0, 1}) {
		return []string{"localhost"}
	}
	for name, list := range c.Hosts {
		if !slices.Contains(list, a) {
			continue
		}
		if strings.Contains(name, ".") {
			name += "." // as package net does with the names in /etc/hosts
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// traced calls lookup, and the httptrace hooks of ctx before and after it.
func (r *Resolver) traced(ctx context.Context, network, name string) (addrs []netip.Addr, err error) {
	trace := httptrace.ContextClientTrace(ctx)
	if trace != nil && trace.DNSStart != nil {
		trace.DNSStart(httptrace.DNSStartInfo{Host: name})
	}
	addrs, err = r.lookup(ctx, network, name)
	if trace != nil && trace.DNSDone != nil {
		info := httptrace.DNSDoneInfo{Err: err}
		for _, a := range addrs {
			info.Addrs = append(info.Addrs, net.IPAddr{IP: a.AsSlice(), Zone: a.Zone()})
		}
		trace.DNSDone(info)
	}
	return addrs, err
}

// lookup finds the addresses of a name: gethostbyname. There is at least one if there is no error.
func (r *Resolver) lookup(ctx context.Context, network, name string) ([]netip.Addr, error) {
	c := r.conf.Load()
	if err := ended(ctx); err != nil {
		return nil, dnsError(err, name, "")
	}
	addrs, ok, err := r.known(ctx, c, name)
	switch {
	case err != nil:
		return nil, r.hostsError(ctx, err, name)
	case ok && len(addrs) == 0, !ok && !isDomainName(name):
		return nil, dnsError(errNoSuchHost, name, "")
	case !ok:
		if addrs, _, err = r.search(ctx, c, network, name); err != nil {
			return nil, err
		}
	}
	r.Sort(addrs)
	return addrs, nil
}

// hostsError makes the error of Config.Hosts one of package net.
func (r *Resolver) hostsError(ctx context.Context, err error, name string) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = ctxError(ctx.Err())
	}
	return dnsError(err, name, "")
}

// search asks the servers for the addresses of the names for which name may stand, one after the
// other, until there are some: res_search. It also returns the name to which they belong.
func (r *Resolver) search(
	ctx context.Context, c *Config, network, name string,
) (addrs []netip.Addr, canonical string, err error) {
	for _, full := range c.nameList(name) {
		addrs, canonical, fullErr := r.query(ctx, c, network, full)
		if err := ended(ctx); err != nil && len(addrs) == 0 {
			return nil, "", dnsError(err, name, "")
		}
		if len(addrs) > 0 {
			return addrs, canonical, nil
		}
		// That a server does not answer must not look as if the name did not exist. Of errors of
		// one kind, that of the name itself is the best.
		if err == nil || notFound(err) && !notFound(fullErr) ||
			notFound(err) == notFound(fullErr) && full == name+"." {
			err = fullErr
		}
	}
	err.(*net.DNSError).Name = name // and not the last one that was tried
	return nil, "", err
}

// query asks for the addresses of an absolute name, of both families at the same time.
func (r *Resolver) query(
	ctx context.Context, c *Config, network, full string,
) (addrs []netip.Addr, canonical string, err error) {
	types := []uint16{typeA, typeAAAA}
	switch network {
	case "ip4":
		types = types[:1]
	case "ip6":
		types = types[1:]
	}
	list := make([]*inquiry, len(types))
	for i, typ := range types {
		list[i] = r.inquire(c, full, typ)
		list[i].begin(ctx, i)
	}
	var wg sync.WaitGroup
	for _, q := range list[1:] {
		wg.Go(func() { q.finish(ctx) })
	}
	list[0].finish(ctx)
	wg.Wait()
	for _, q := range list {
		for _, rec := range q.list {
			if a, ok := netip.AddrFromSlice(q.msg[rec.data:rec.end]); ok && a.Is4() == (rec.typ == typeA) {
				addrs = append(addrs, a)
				canonical = rec.name
			}
		}
		if q.err == nil && len(q.list) > 0 && len(addrs) == 0 {
			q.err = errMalformed
		}
		if q.err != nil {
			if de := dnsError(q.err, full, q.server); err == nil || notFound(err) {
				err = de
			}
		}
	}
	return addrs, canonical, err
}

// An inquiry asks for the records of one type that a name has, aliases followed, and has what came
// of it.
type inquiry struct {
	x      *exchange
	msg    []byte   // the answer
	list   []record // the records in it
	server string
	err    error
}

func (r *Resolver) inquire(c *Config, full string, typ uint16) *inquiry {
	if len(c.Servers) == 0 {
		return &inquiry{err: errNoServer}
	}
	msg, ok := mkquery(full, typ)
	if !ok {
		return &inquiry{err: errNoSuchHost}
	}
	x, _ := r.newExchange(c.Servers, msg)
	return &inquiry{x: x}
}

// begin sends the query. Of several inquiries that begin at the same time, this is number i.
func (q *inquiry) begin(ctx context.Context, i int) {
	if q.err == nil {
		q.x.skew = 2 * time.Duration(i)
		q.x.begin(ctx)
	}
}

// finish waits for the answer.
func (q *inquiry) finish(ctx context.Context) {
	if q.err != nil {
		return
	}
	if q.msg, q.server, q.err = q.x.run(ctx); q.err == nil {
		if q.list = follow(q.msg, q.x.q.typ); len(q.list) == 0 {
			q.err = errNoSuchHost // but there may be records of other types
		}
	}
}

// maxAliases is how many CNAME records are followed from a name to its addresses.
const maxAliases = 16

// follow returns the records of a type that belong to the question's name, or to the one for which
// that is an alias. RFC 1034, 3.6.2: a server restarts "the query at the domain name specified in
// the data field of the CNAME record", so the answer has all of the chain. The message is one that
// check has accepted.
func follow(msg []byte, typ uint16) (found []record) {
	h, q, off, _ := parseQuestion(msg)
	all, _, _ := parseAnswers(msg, off, h.n[1])
	name := q.name
	for range maxAliases {
		alias := ""
		for _, r := range all {
			switch {
			case r.class != classIN || !equalFold(r.name, name):
			case r.typ == typ:
				found = append(found, r)
			case r.typ == typeCNAME:
				alias, _, _ = expand(msg, r.data)
			}
		}
		if len(found) > 0 || alias == "" {
			break
		}
		name = alias
	}
	return found
}
