package bsdnet_test

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"bsdnet"
	"bsdnet/netem"
	"bsdnet/tun"
	"bsdnet/udptunnel"
	"bsdnet/wireguard"
)

// TestLinkErrors: an error of a link, or of a configuration of one, begins with the name of the
// public package that the caller has called.
func TestLinkErrors(t *testing.T) {
	begins := func(pkg, what string, err error) {
		t.Helper()
		if err == nil || !strings.HasPrefix(err.Error(), pkg+": ") {
			t.Errorf("%s, %s: %v", pkg, what, err)
		}
	}
	a, b, err := netem.Pipe(netem.PipeConfig{})
	if err != nil {
		t.Fatal(err)
	}
	bad, err := netem.Impair(b, netem.Path{})
	if err != nil {
		t.Fatal(err)
	}
	tunnel, err := udptunnel.Open(udptunnel.Config{Local: "127.0.0.1:0", Key: []byte(strings.Repeat("key.", 8))})
	if err != nil {
		t.Fatal(err)
	}
	network := []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")}
	wg, err := wireguard.Open(&wireguard.Config{PrivateKey: wireguard.NewSecret(), Addresses: network})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []struct {
		pkg string
		bsdnet.Link
	}{{"netem", a}, {"netem", bad}, {"udptunnel", tunnel}, {"wireguard", wg}} {
		_, err := l.Read([][]byte{make([]byte, l.MTU())}, make([]int, 1))
		begins(l.pkg, "Read before Start", err)
		_, err = l.Write([]net.Buffers{{make([]byte, 40)}})
		begins(l.pkg, "Write before Start", err)
		begins(l.pkg, "Start(nil)", l.Start(nil))
		if err := l.Start(func() {}); err != nil {
			t.Error(err)
		}
		begins(l.pkg, "a second Start", l.Start(func() {}))
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	_, _, err = netem.Pipe(netem.PipeConfig{MTU: 1})
	begins("netem", "Pipe", err)
	_, err = netem.Impair(a, netem.Path{Read: netem.Impairment{Loss: 2}})
	begins("netem", "Impair", err)
	for _, c := range []tun.Config{{MTU: 1}, {Host: netip.MustParsePrefix("10.0.0.0/24")}} {
		_, err = tun.Open(c)
		begins("tun", "Open", err)
	}
	for _, c := range []udptunnel.Config{
		{}, {Key: make([]byte, 32)}, {Key: []byte(strings.Repeat("key.", 8)), Peer: "nowhere"},
	} {
		_, err = udptunnel.Open(c)
		begins("udptunnel", "Open", err)
	}
	_, err = wireguard.Open(&wireguard.Config{})
	begins("wireguard", "Open", err)
}
