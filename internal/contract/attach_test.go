package contract

import (
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"bsdnet"
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
		{"fd00::1/64", syscall.EAFNOSUPPORT, "IPv4 only"},
		{"", nil, "not an address with its prefix length"},
	} {
		p, _ := netip.ParsePrefix(c.prefix)
		err := s.Attach(l, p)
		if err == nil || c.errno != nil && !errors.Is(err, c.errno) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v; want %v and %q", c.prefix, err, c.errno, c.want)
		}
	}
	if err := s.Attach(nil); err == nil {
		t.Error("no link is attached")
	}
	if l.asked || l.started {
		t.Errorf("a link that is not attached has been asked for offloads: %v, and started: %v", l.asked, l.started)
	}
	if err := s.Attach(l, netip.MustParsePrefix("10.0.1.1/24")); err != nil || !l.asked || !l.started {
		t.Errorf("then with a good address: %v", err)
	}
}
