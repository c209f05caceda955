package link

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
)

// The state of a link determines the errors of its methods, and they begin with its package's name.
func TestState(t *testing.T) {
	ready := func() {}
	var s State
	if err := s.StartError("pkg", ready); err != nil {
		t.Errorf("a new link: Start: %v", err)
	}
	if err := s.StartError("pkg", nil); err == nil || !strings.HasPrefix(err.Error(), "pkg: ") {
		t.Errorf("Start without ready: %v", err)
	}
	other := func(err error) bool { // an error of the package that is not net.ErrClosed
		return err != nil && strings.HasPrefix(err.Error(), "pkg: ") && !errors.Is(err, net.ErrClosed)
	}
	if err := s.IOError("pkg"); !other(err) {
		t.Errorf("a new link: Read: %v", err)
	}
	s.Store(Started)
	if err := s.IOError("pkg"); err != nil {
		t.Errorf("a link that has started: Read: %v", err)
	}
	if err := s.StartError("pkg", ready); !other(err) {
		t.Errorf("a second Start: %v", err)
	}
	s.Store(Closed)
	if err := s.IOError("pkg"); err != net.ErrClosed {
		t.Errorf("a closed link: Read: %v", err)
	}
	if err := s.StartError("pkg", ready); err != net.ErrClosed {
		t.Errorf("a closed link: Start: %v", err)
	}
}

func TestCheckHost(t *testing.T) {
	for _, p := range []string{
		"10.0.0.1/24", "10.0.0.0/31", "10.0.0.1/31", "10.0.0.0/32", "223.255.255.254/0", "fe80::1/64",
		"2001:db8::/64", "2001:db8::1/128", "fd00::ffff:ffff:ffff:ffff/64",
	} {
		if err := CheckHost(netip.MustParsePrefix(p)); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
	for _, p := range []string{
		"10.0.0.0/24", "10.0.0.255/24", "0.0.0.0/0", "127.0.0.1/8", "224.0.0.1/24", "240.0.0.1/24",
		"255.255.255.255/32", "::/0", "::1/128", "ff02::1/64", "::ffff:10.0.0.1/120",
	} {
		if err := CheckHost(netip.MustParsePrefix(p)); !errors.Is(err, syscall.EADDRNOTAVAIL) {
			t.Errorf("%s: %v", p, err)
		}
	}
}
