package kern

import (
	"net/netip"
	"syscall"
	"testing"
)

// The source address of packets to each destination: RFC 6724, 5, with the examples of 10.1 that
// concern one interface.
func TestSourceAddresses(t *testing.T) {
	for _, c := range []struct {
		dst, want string
		have      []string
	}{
		// "Rule 1: Prefer same address."
		{"2001:db8::2", "2001:db8::2", []string{"2001:db8::1/64", "2001:db8::2/64"}},
		{"2001:db8::1", "2001:db8::1", []string{"2001:db8::1/16", "2001:db8::3/64"}},
		// "Rule 2: Prefer appropriate scope."
		{"2001:db8:1::1", "2001:db8:3::1", []string{"fe80::1/64", "2001:db8:3::1/64"}},
		{"2001:db8:1::1", "2001:db8:3::1", []string{"2001:db8:3::1/64", "fe80::1/64"}},
		{"ff05::1", "2001:db8:3::1", []string{"fe80::1/64", "2001:db8:3::1/64"}},
		{"ff02::1", "fe80::1", []string{"2001:db8:3::1/64", "fe80::1/64"}},
		{"fe80::2", "fe80::1", []string{"2001:db8:3::1/64", "fe80::1/64"}},
		{"fec0::1", "fec0::2", []string{"fec0::2/64", "2001:db8::1/64"}},
		{"2001:db8::1", "fe80::1", []string{"10.0.0.1/24", "fe80::1/64"}}, // better than none
		// "Rule 6: Prefer matching label."
		{"2002:c633:6401::1", "2002:c633:6401::2", []string{"2001:db8:1::2/64", "2002:c633:6401::2/64"}},
		{"2001:db8:1::1", "2001:db8:1::2", []string{"2002:c633:6401::2/64", "2001:db8:1::2/64"}},
		{"fd00::9", "fd11::1", []string{"2001:db8:1::2/64", "fd11::1/64"}},
		{"2001:db8:1::1", "2001:db8:ffff::2", []string{"fd11::1/64", "2001:db8:ffff::2/64"}},
		// "Rule 8: Use longest matching prefix."
		{"2001:db8:1::1", "2001:db8:1::2", []string{"2001:db8:3::2/64", "2001:db8:1::2/64"}},
		// Bits behind the source's prefix do not count, and the first of equals is taken.
		{"2001:db8::ffff:1", "2001:db8::1", []string{"2001:db8::1/64", "2001:db8::ffff:2/64"}},
		{"2001:db8::ffff:1", "2001:db8::ffff:2", []string{"2001:db8::1/64", "2001:db8::ffff:2/128"}},
		{"2001:db8::1", "invalid IP", []string{"10.0.0.1/24"}},
	} {
		ifp := &Ifnet{}
		for _, p := range c.have {
			ifp.prefixes = append(ifp.prefixes, netip.MustParsePrefix(p))
		}
		if got := ifp.in6Selectsrc(netip.MustParseAddr(c.dst)); got.String() != c.want {
			t.Errorf("to %s with %s: %v, want %s", c.dst, c.have, got, c.want)
		}
	}
}

// The way to an address that is meant on one link is the link that its zone names (RFC 4007), or
// that of the local address.
func TestZones(t *testing.T) {
	v := attacked6(t, nil) // wire0, with fe80::1
	defer v.done()
	other, err := v.k.Attach("other0", newWireLink(1500), []netip.Prefix{
		netip.MustParsePrefix("fe80::1/64"), netip.MustParsePrefix("fe80::5/64"),
		netip.MustParsePrefix("2001:db8:5::1/64"),
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.k.Attach("v4", newWireLink(576), []netip.Prefix{netip.MustParsePrefix("10.9.0.1/24")}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		dst, from string
		ifp       *Ifnet
		src       string
	}{
		{"fe80::2%wire0", "", v.ifp, "fe80::1"},
		{"fe80::2%other0", "", other, "fe80::1"},
		{"fe80::2", "", nil, ""},
		{"fe80::2%none", "fe80::5", nil, ""},
		{"fe80::2%v4", "", nil, ""},
		{"fe80::2", "fe80::5", other, "fe80::1"},
		{"fe80::2", "2001:db8::1", v.ifp, "fe80::1"},
		{"ff02::1%other0", "", other, "fe80::1"},
		{"ff01::1%lo0", "", v.k.lo0, "::1"},
		{"fe80::5%other0", "", v.k.lo0, "fe80::5"}, // our own
		{"fe80::5%wire0", "", v.ifp, "fe80::1"},    // a neighbour there
		{"2001:db8:5::9", "", other, "2001:db8:5::1"},
		{"2001:db8:9::9", "", v.ifp, "2001:db8::1"},
		{"::1", "", v.k.lo0, "::1"},
	} {
		var from netip.Addr
		if c.from != "" {
			from = netip.MustParseAddr(c.from)
		}
		ifp, src, errno := v.k.rtalloc(netip.MustParseAddr(c.dst), from)
		if c.ifp == nil {
			if errno != syscall.EHOSTUNREACH {
				t.Errorf("%s from %s: %v, %v, %v", c.dst, c.from, ifp, src, errno)
			}
			continue
		}
		if errno != 0 || ifp != c.ifp || src.String() != c.src {
			t.Errorf("%s from %s: over %v from %v, %v; want %s from %s",
				c.dst, c.from, ifp, src, errno, c.ifp.Name, c.src)
		}
	}
}
