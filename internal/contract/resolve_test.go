package contract

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"bsdnet"
)

// A resolveAddr has the functions of package net that resolve addresses, or the methods of a stack.
type resolveAddr struct {
	tcp func(network, address string) (*net.TCPAddr, error)
	udp func(network, address string) (*net.UDPAddr, error)
	ip  func(network, address string) (*net.IPAddr, error)
}

// A resolveCase is an address to resolve.
type resolveCase struct{ network, address, want string }

// resolve returns the address or the error. A network that is neither udp nor ip is resolved by the
// function for TCP.
func (k resolveCase) resolve(r resolveAddr) string {
	var a net.Addr
	var err error
	switch k.network[:2] {
	case "ud":
		a, err = r.udp(k.network, k.address)
	case "ip":
		a, err = r.ip(k.network, k.address)
	default:
		a, err = r.tcp(k.network, k.address)
	}
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(a)
}

// TestResolveAddr tests ResolveTCPAddr and its siblings against package net.
func TestResolveAddr(t *testing.T) {
	s := stack(t, bsdnet.Config{DNS: bsdnet.DNSConfig{Hosts: map[string][]netip.Addr{
		"both.test": {netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.1")},
		"six.test":  {netip.MustParseAddr("2001:db8::1")},
	}}})
	own := resolveAddr{s.ResolveTCPAddr, s.ResolveUDPAddr, s.ResolveIPAddr}
	system := resolveAddr{net.ResolveTCPAddr, net.ResolveUDPAddr, net.ResolveIPAddr}
	for _, k := range []resolveCase{
		{"tcp", "192.0.2.1:80", "192.0.2.1:80"},
		{"tcp", "192.0.2.1:http", "192.0.2.1:80"},
		{"tcp4", "[::1]:80", "address ::1: no suitable address found"},
		{"tcp6", "192.0.2.1:80", "address 192.0.2.1: no suitable address found"},
		{"tcp", "[fe80::1%if0]:80", "[fe80::1%if0]:80"},
		{"tcp", "[::]:80", "[::]:80"},
		{"tcp6", ":80", ":80"},
		{"tcp", "", ":0"},
		{"tcp", "192.0.2.1", "address 192.0.2.1: missing port in address"},
		{"tcp", "192.0.2.1:65536", "address 65536: invalid port"},
		{"tcp", "192.0.2.1:no-service", "lookup tcp/no-service: unknown port"},
		{"tcp", "1::2:80", "address 1::2:80: too many colons in address"},
		{"udp", "192.0.2.1:domain", "192.0.2.1:53"},
		{"udp6", "[2001:db8::1]:53", "[2001:db8::1]:53"},
		{"ip", "192.0.2.1", "192.0.2.1"},
		{"ip", "fe80::1%if0", "fe80::1%if0"},
		{"ip4:icmp", "192.0.2.1", "192.0.2.1"},
		{"ip6:58", "2001:db8::1", "2001:db8::1"},
		{"ip4", "::1", "address ::1: no suitable address found"},
		{"ip", "", ""},
		{"unix", "/tmp/x", "unknown network unix"},
		{"ip:", "192.0.2.1", "unknown network ip:"},
	} {
		if k.network != "ip:" { // of which package net says "unknown IP protocol specified"
			if got := k.resolve(system); got != k.want {
				t.Errorf("package net: %s %q: %s, want %s", k.network, k.address, got, k.want)
			}
		}
		if got := k.resolve(own); got != k.want {
			t.Errorf("%s %q: %s, want %s", k.network, k.address, got, k.want)
		}
	}
	for _, k := range []resolveCase{
		{"tcp", "both.test:80", "192.0.2.1:80"}, {"tcp6", "both.test:80", "[2001:db8::1]:80"},
		{"udp", "six.test:53", "[2001:db8::1]:53"},
		{"ip", "both.test", "192.0.2.1"}, {"ip6", "both.test", "2001:db8::1"},
		{"udp4", "localhost:1", "127.0.0.1:1"}, {"udp6", "localhost:1", "[::1]:1"},
	} {
		if got := k.resolve(own); got != k.want {
			t.Errorf("%s %q: %s, want %s", k.network, k.address, got, k.want)
		}
	}
}
