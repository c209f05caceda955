package resolv

import (
	"context"
	"net/netip"
	"slices"
	"strings"
)

// ndots is how many dots a name must have to be tried as it is before the search list is:
// "options ndots" of resolv.conf(5).
const ndots = 1

// known looks a name up without a query. It reports false if it does not know the name, and servers
// should be asked. A name that is known to have no address has none.
func (r *Resolver) known(ctx context.Context, c *Config, name string) (addrs []netip.Addr, ok bool, err error) {
	key := hostKey(name)
	if isLocalhost(key) && isDomainName(key) {
		// RFC 6761, 6.3: "Name resolution APIs and libraries SHOULD recognize localhost names as
		// special and SHOULD always return the IP loopback address for address queries".
		return []netip.Addr{netip.IPv6Loopback(), netip.AddrFrom4([4]byte{127, 0, 0, 1})}, true, nil
	}
	if r.env.Hosts != nil {
		list, err := r.env.Hosts(ctx, key)
		if err != nil || list != nil {
			list = slices.Clone(list)
			for i, a := range list {
				list[i] = a.Unmap()
			}
			return slices.DeleteFunc(list, func(a netip.Addr) bool { return !a.IsValid() }), true, err
		}
	}
	list, ok := c.Hosts[key]
	return slices.Clone(list), ok || avoidDNS(key), nil
}

// isLocalhost reports whether a name is localhost or lies below it. The name is in lower case and
// has no dot at its end.
func isLocalhost(name string) bool {
	return name == "localhost" || strings.HasSuffix(name, ".localhost")
}

// avoidDNS reports whether no server may be asked for a name. RFC 7686, 2: "Resolvers MUST either
// respond to requests for .onion names by resolving them according to [tor-rendezvous] or by
// responding with NXDOMAIN".
func avoidDNS(name string) bool { return name == "onion" || strings.HasSuffix(name, ".onion") }

// nameList returns the absolute names for which name may stand, in the order in which they are
// tried: the search list of resolv.conf(5).
func (c *Config) nameList(name string) []string {
	if strings.HasSuffix(name, ".") {
		return []string{name}
	}
	list := make([]string, 0, 1+len(c.Search))
	name += "."
	for _, domain := range c.Search {
		if full := name + domain; len(full) <= maxName && !avoidDNS(hostKey(full)) {
			list = append(list, full)
		}
	}
	if strings.Count(name, ".")-1 >= ndots {
		return slices.Insert(list, 0, name)
	}
	return append(list, name)
}

// isDomainName reports whether a name can be asked for. As in package net, it has labels of
// letters, digits, hyphens and underscores, and is not a number.
func isDomainName(name string) bool {
	if name == "." {
		return true
	}
	name = strings.TrimSuffix(name, ".")
	if name == "" || len(name) >= maxName {
		return false
	}
	letter := false
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			switch c := label[i]; {
			case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '_', c == '-':
				letter = true
			case c < '0' || c > '9':
				return false
			}
		}
	}
	return letter
}
