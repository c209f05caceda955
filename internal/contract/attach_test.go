package contract

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"bsdnet"
	"bsdnet/internal/testutil/stacktest"
	"bsdnet/netem"
)

// An askedLink is a link that records whether the stack has asked it for offloads, and started it.
type askedLink struct {
	bsdnet.Link
	asked, started bool
}

func (l *askedLink) Offload() bool { l.asked = true; return false }

func (l *askedLink) Start(ready func()) error { l.started = true; return l.Link.Start(ready) }

// Attach refuses a link that it cannot attach with the reason, and does not change the link: it can
// be attached to another stack, or with another address.
func TestAttachRefused(t *testing.T) {
	a, b, err := netem.Pipe(netem.PipeConfig{MTU: 1500})
	if err != nil {
		t.Fatal(err)
	}
	s := stack(t, bsdnet.Config{})
	if err := s.Attach(a, netip.MustParsePrefix("10.0.0.1/24")); err != nil {
		t.Fatal(err)
	}
	l := &askedLink{Link: b}
	for _, c := range []struct {
		prefix string
		errno  error
		want   string
	}{
		{"10.0.0.1/24", syscall.EADDRINUSE, "10.0.0.1 belongs to if0"},
		{"::1/64", syscall.EADDRNOTAVAIL, "the address of the loopback"},
		{"::ffff:10.0.0.9/120", nil, "not an address with its prefix length"},
		{"", nil, "not an address with its prefix length"},
	} {
		p, _ := netip.ParsePrefix(c.prefix)
		err := s.Attach(l, p)
		if err == nil || c.errno != nil && !errors.Is(err, c.errno) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v; want %v and %q", c.prefix, err, c.errno, c.want)
		}
	}
	if err := s.Attach((*netem.Link)(nil)); err == nil || !strings.Contains(err.Error(), "a nil *netem.Link") {
		t.Errorf("a nil pointer: %v", err)
	}
	if err := s.Attach(nil); err == nil {
		t.Error("no link is attached")
	}
	small, _, err := netem.Pipe(netem.PipeConfig{MTU: 1279})
	if err != nil {
		t.Fatal(err)
	}
	// RFC 8200, 5: a link that carries IPv6 carries packets of 1280 bytes.
	if err := s.Attach(small, netip.MustParsePrefix("10.0.2.1/24"), netip.MustParsePrefix("fd00::1/64")); err == nil ||
		!errors.Is(err, syscall.EINVAL) || !strings.Contains(err.Error(), "MTU of at least 1280") {
		t.Errorf("an IPv6 address on a link with an MTU of 1279: %v", err)
	}
	if l.asked || l.started {
		t.Errorf("a link that is not attached has been asked for offloads: %v, and started: %v", l.asked, l.started)
	}
	if err := s.Attach(l, netip.MustParsePrefix("10.0.1.1/24")); err != nil || !l.asked || !l.started {
		t.Errorf("then with a good address: %v", err)
	}
}

// The loopback has ::1 unless its MTU is too small for IPv6. Each link may have the same link-local
// address, and no other address twice.
func TestAttachIPv6(t *testing.T) {
	for mtu, want := range map[int]string{
		0: "[127.0.0.1/8 ::1/128]", 1280: "[127.0.0.1/8 ::1/128]", 1279: "[127.0.0.1/8]",
	} {
		s := stack(t, bsdnet.Config{LoopbackMTU: mtu})
		if got := fmt.Sprint(s.Stats().Interfaces[0].Addrs); got != want {
			t.Errorf("with an MTU of %d the loopback has %s, want %s", mtu, got, want)
		}
	}
	s := stack(t, bsdnet.Config{})
	a, b := pipe(t)
	stacktest.Attach(t, s, a, "fd00::1/64", "fe80::1/64", "10.0.0.1/24")
	if err := s.Attach(b, netip.MustParsePrefix("fd00::1/64")); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("an address twice: %v", err)
	}
	stacktest.Attach(t, s, b, "fe80::1/64")
}
