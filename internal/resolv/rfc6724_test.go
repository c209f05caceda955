package resolv

import (
	"net/netip"
	"strings"
	"testing"
)

// TestSort tests the examples of RFC 6724, 10.2 and others. A pair is a destination and the source
// that the stack has for it, or "-".
func TestSort(t *testing.T) {
	for _, k := range []struct{ name, in, want string }{
		{"rule 1", "2001:db8::1/- 192.0.2.1/192.0.2.9", "192.0.2.1 2001:db8::1"},
		{"rule 1, none usable", "2001:db8::1/- 192.0.2.1/-", "2001:db8::1 192.0.2.1"},
		{"rule 2, scope",
			"2001:db8:1::1/2001:db8:1::2 198.51.100.121/169.254.13.78", "2001:db8:1::1 198.51.100.121"},
		{"rule 2, link-local",
			"2001:db8:1::1/fe80::1 198.51.100.121/198.51.100.117", "198.51.100.121 2001:db8:1::1"},
		{"rule 2, site-local", "fec0::1/fe80::1 198.51.100.1/198.51.100.2", "198.51.100.1 fec0::1"},
		{"rule 5, label",
			"2002:c633:6401::1/2001:db8::2 2001:db8::1/2001:db8::2", "2001:db8::1 2002:c633:6401::1"},
		{"rule 5, unique local", "fd00::1/2001:db8::2 192.0.2.1/192.0.2.2", "192.0.2.1 fd00::1"},
		{"rule 5, before precedence",
			"2001:db8:1::1/2002:c633:6401::2 2002:c633:6401::1/2002:c633:6401::2", "2002:c633:6401::1 2001:db8:1::1"},
		{"rule 6, IPv6 first", "10.1.2.3/10.1.2.4 2001:db8:1::1/2001:db8:1::2", "2001:db8:1::1 10.1.2.3"},
		{"rule 6, 6to4",
			"2002:c633:6401::1/2002:c633:6401::2 2001:db8:1::1/2001:db8:1::2", "2001:db8:1::1 2002:c633:6401::1"},
		{"rule 6, unique local", "fd00::1/fd00::2 192.0.2.1/192.0.2.2", "192.0.2.1 fd00::1"},
		{"rule 6, Teredo", "2001::1/2001::2 192.0.2.1/192.0.2.2", "192.0.2.1 2001::1"},
		{"rule 8, scope", "2001:db8:1::1/2001:db8:1::2 fe80::1/fe80::2", "fe80::1 2001:db8:1::1"},
		{"rule 9, prefix",
			"2001:db8:3ffe::1/2001:db8:1::2 2001:db8:1::1/2001:db8:1::2", "2001:db8:1::1 2001:db8:3ffe::1"},
		{"rule 9, not for the interface",
			"2001:db8::2:1/2001:db8::1:2 2001:db8::1:1/2001:db8::1:2", "2001:db8::2:1 2001:db8::1:1"},
		{"rule 9, not for IPv4", "10.9.0.1/10.1.0.1 10.1.0.2/10.1.0.1", "10.9.0.1 10.1.0.2"},
		{"localhost", "127.0.0.1/127.0.0.1 ::1/::1", "::1 127.0.0.1"},
	} {
		sources := map[netip.Addr]netip.Addr{}
		var list []netip.Addr
		for pair := range strings.FieldsSeq(k.in) {
			dst, src, _ := strings.Cut(pair, "/")
			list = append(list, netip.MustParseAddr(dst))
			if src != "-" {
				sources[netip.MustParseAddr(dst)] = netip.MustParseAddr(src)
			}
		}
		r := New(Env{Source: func(dst netip.Addr) netip.Addr { return sources[dst] }})
		r.Sort(list)
		if got := show(list, nil); got != k.want {
			t.Errorf("%s: %s, want %s", k.name, got, k.want)
		}
	}
}
