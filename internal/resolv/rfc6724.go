package resolv

import (
	"cmp"
	"math/bits"
	"net/netip"
	"sort"
)

// A policy is a row of the policy table of RFC 6724, 2.1.
type policy struct {
	prefix            netip.Prefix
	precedence, label int
}

// siteLocal has the site-local addresses, which RFC 3879 has deprecated.
var siteLocal = netip.MustParsePrefix("fec0::/10")

// policies is the default policy table, the longest prefix first.
var policies = []policy{
	{netip.MustParsePrefix("::1/128"), 50, 0},
	{netip.MustParsePrefix("::/96"), 1, 3},
	{netip.MustParsePrefix("2001::/32"), 5, 5},
	{netip.MustParsePrefix("2002::/16"), 30, 2},
	{netip.MustParsePrefix("3ffe::/16"), 1, 12},
	{siteLocal, 1, 11},
	{netip.MustParsePrefix("fc00::/7"), 3, 13},
	{netip.MustParsePrefix("::/0"), 40, 1},
}

// policyOf returns the row of an address. IPv4 has that of ::ffff:0:0/96.
func policyOf(a netip.Addr) policy {
	for _, p := range policies {
		if p.prefix.Contains(a.WithZone("")) {
			return p
		}
	}
	return policy{precedence: 35, label: 4}
}

// scope returns the scope of a unicast address: RFC 6724, 3.1 and 3.2, with the values of RFC 4291,
// 2.7.
func scope(a netip.Addr) int {
	switch {
	case a.IsLoopback(), a.IsLinkLocalUnicast():
		return 2
	case siteLocal.Contains(a):
		return 5
	}
	return 14
}

// commonPrefixLen is RFC 6724, 2.2: the bits that two IPv6 addresses have in common, up to those of
// the interface.
func commonPrefixLen(a, b netip.Addr) (n int) {
	x, y := a.As16(), b.As16()
	for i := range 8 {
		if d := x[i] ^ y[i]; d != 0 {
			return n + bits.LeadingZeros8(d)
		}
		n += 8
	}
	return n
}

// A destination is an address to sort, with what the rules ask of it.
type destination struct {
	addr       netip.Addr
	was        int  // its place before
	usable     bool // there is a source address for it
	sameScope  bool // which the source has
	sameLabel  bool
	precedence int
	scope      int

	// common is how many bits the source has in common. It is 0 for IPv4, to which package net and
	// others do not apply rule 9: it would defeat servers that rotate their answers.
	common int
}

// Sort puts addresses in the order in which they should be tried: RFC 6724, 6. The rules 3, 4 and 7
// are about things that a stack does not have: deprecated and home addresses, and tunnels within.
func (r *Resolver) Sort(addrs []netip.Addr) {
	if len(addrs) < 2 {
		return
	}
	list := make([]destination, len(addrs))
	for i, a := range addrs {
		a = a.Unmap()
		d := destination{addr: a, was: i, precedence: policyOf(a).precedence, scope: scope(a)}
		if src := r.env.Source(a); src.IsValid() {
			src = src.Unmap()
			d.usable = true
			d.sameScope = scope(src) == d.scope
			d.sameLabel = policyOf(src).label == policyOf(a).label
			if a.Is6() && src.Is6() {
				d.common = commonPrefixLen(src, a)
			}
		}
		list[i] = d
	}
	sort.Sort(destinations(list))
	for i, d := range list {
		addrs[i] = d.addr
	}
}

// destinations are sorted by package sort, which programs have anyway: slices.SortStableFunc would
// be 7 KB of code that nothing else uses.
type destinations []destination

func (l destinations) Len() int           { return len(l) }
func (l destinations) Swap(i, j int)      { l[i], l[j] = l[j], l[i] }
func (l destinations) Less(i, j int) bool { return compare(&l[i], &l[j]) < 0 }

// compare is negative if a is to be tried before b.
func compare(a, b *destination) int {
	if !a.usable && !b.usable {
		return cmp.Compare(a.was, b.was)
	}
	return cmp.Or(
		first(a.usable, b.usable),               // rule 1: "Avoid unusable destinations."
		first(a.sameScope, b.sameScope),         // rule 2: "Prefer matching scope."
		first(a.sameLabel, b.sameLabel),         // rule 5: "Prefer matching label."
		cmp.Compare(b.precedence, a.precedence), // rule 6: "Prefer higher precedence."
		cmp.Compare(a.scope, b.scope),           // rule 8: "Prefer smaller scope."
		cmp.Compare(b.common, a.common),         // rule 9: "Use longest matching prefix."
		cmp.Compare(a.was, b.was),               // rule 10: "Otherwise, leave the order unchanged."
	)
}

// first is negative if only a is true, and positive if only b is.
func first(a, b bool) int {
	switch {
	case a && !b:
		return -1
	case b && !a:
		return 1
	}
	return 0
}
