package contract

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet"
)

// timeout returns a context for a call that may wait for so long.
func timeout(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// Ping through routers: an answer, after the round trip; the routers on the way, one after the
// other; a request that is too long for a link. It works in a bubble.
func TestPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := row(t, 1500, 1300, 1500) // 5 ms each
		far, far6 := netip.MustParseAddr("10.0.2.2"), netip.MustParseAddr("fd00:0:0:2::2")
		for _, size := range []int{0, 1, 56, 1252, 1272, 1273, 1472, 1473, 8000, 65507} {
			r, err := s[0].Ping(timeout(t, time.Second), far, bsdnet.PingConfig{Size: size})
			if err != nil || r.From != far || r.TTL != 253 || r.RTT.Round(time.Millisecond) != 30*time.Millisecond {
				t.Errorf("%d bytes: %+v, %v", size, r, err)
			}
		}
		for _, size := range []int{0, 1, 56, 1252} {
			r, err := s[0].Ping(timeout(t, time.Second), far6, bsdnet.PingConfig{Size: size})
			if err != nil || r.From != far6 || r.TTL != 62 || r.RTT.Round(time.Millisecond) != 30*time.Millisecond {
				t.Errorf("%d bytes: %+v, %v", size, r, err)
			}
		}
		var hops []string
		for ttl := 1; ttl <= 4; ttl++ {
			r, err := s[0].Ping(timeout(t, time.Second), far, bsdnet.PingConfig{TTL: ttl})
			var pe *bsdnet.PingError
			switch {
			case err == nil:
				hops = append(hops, r.From.String())
			case errors.As(err, &pe) && pe.TTLExceeded() && errors.Is(err, syscall.EHOSTUNREACH):
				hops = append(hops, fmt.Sprint(pe.From, " ", pe.RTT.Round(time.Millisecond)))
			default:
				t.Error(err)
			}
		}
		if want := []string{"10.0.0.2 10ms", "10.0.1.2 20ms", "10.0.2.2", "10.0.2.2"}; !slices.Equal(hops, want) {
			t.Errorf("hops %q, want %q", hops, want)
		}
		for addr, first := range map[netip.Addr]string{far: "10.0.0.2", far6: "fd00::2"} {
			_, err := s[0].Ping(timeout(t, time.Second), addr, bsdnet.PingConfig{Size: 1452, DontFragment: true})
			var pe *bsdnet.PingError
			if !errors.As(err, &pe) || pe.MTU != 1300 || pe.From != netip.MustParseAddr(first) || pe.TTLExceeded() ||
				!errors.Is(err, syscall.EMSGSIZE) {
				t.Errorf("too long for a link on the way to %v: %v, %+v", addr, err, pe)
			}
			_, err = s[0].Ping(timeout(t, time.Second), addr, bsdnet.PingConfig{TTL: 1})
			if pe = nil; !errors.As(err, &pe) || pe.From != netip.MustParseAddr(first) || !pe.TTLExceeded() {
				t.Errorf("one hop towards %v: %v, %+v", addr, err, pe)
			}
		}
		self := netip.MustParseAddr("127.0.0.1")
		if _, err := s[0].Ping(timeout(t, time.Second), self, bsdnet.PingConfig{}); err != nil {
			t.Errorf("the stack itself: %v", err)
		}
		source := netip.MustParseAddr("10.0.1.1") // the middle router's other address
		if _, err := s[1].Ping(timeout(t, time.Second), netip.MustParseAddr("10.0.0.1"),
			bsdnet.PingConfig{Source: source}); err != nil {
			t.Errorf("from another address: %v", err)
		}
	})
}

// The errors of Ping are package net's, and say whose report they are.
func TestPingErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := row(t, 1500, 1500)
		nobody, far := netip.MustParseAddr("10.0.1.9"), netip.MustParseAddr("10.0.1.2")
		away := netip.MustParsePrefix("192.0.2.0/24")
		if err := s[0].AddRoute(away, s[0].Links()[0]); err != nil {
			t.Fatal(err)
		}
		cancelled, cancel := context.WithCancel(context.Background())
		time.AfterFunc(time.Second, cancel)
		late, cancel := context.WithDeadline(context.Background(), time.Now())
		defer cancel()
		for _, c := range []struct {
			what string
			ctx  context.Context // nil: a second
			addr netip.Addr
			c    bsdnet.PingConfig
			want error
			text string
		}{
			{"no answer", nil, nobody, bsdnet.PingConfig{}, context.DeadlineExceeded,
				"ping ip4:icmp 10.0.1.9: i/o timeout"},
			{"cancelled", cancelled, nobody, bsdnet.PingConfig{}, context.Canceled,
				"ping ip4:icmp 10.0.1.9: operation was canceled"},
			{"too late", late, far, bsdnet.PingConfig{}, context.DeadlineExceeded,
				"ping ip4:icmp 10.0.1.2: i/o timeout"},
			{"no route there", nil, away.Addr().Next(), bsdnet.PingConfig{}, syscall.EHOSTUNREACH,
				"ping ip4:icmp 192.0.2.1: no route to host, as 10.0.0.2 reports"},
			{"TTL", nil, far, bsdnet.PingConfig{TTL: 1}, syscall.EHOSTUNREACH,
				"ping ip4:icmp 10.0.1.2: time to live exceeded, as 10.0.0.2 reports"},
			{"no route here", nil, netip.MustParseAddr("8.8.8.8"), bsdnet.PingConfig{},
				syscall.ENETUNREACH, "ping ip4:icmp 8.8.8.8: ping: network is unreachable"},
			{"broadcast", nil, netip.MustParseAddr("10.0.0.255"), bsdnet.PingConfig{}, syscall.EACCES, ""},
			{"TTL out of range", nil, far, bsdnet.PingConfig{TTL: 256}, syscall.EINVAL, ""},
			{"TTL below", nil, far, bsdnet.PingConfig{TTL: -1}, syscall.EINVAL, ""},
			{"no address", nil, netip.Addr{}, bsdnet.PingConfig{}, syscall.EINVAL, "ping ip4:icmp: "},
			{"too long", nil, far, bsdnet.PingConfig{Size: 65508}, syscall.EMSGSIZE, ""},
			{"too short", nil, far, bsdnet.PingConfig{Size: -1}, syscall.EMSGSIZE, ""},
			{"source", nil, far, bsdnet.PingConfig{Source: nobody}, syscall.EADDRNOTAVAIL, ""},
		} {
			if c.ctx == nil {
				c.ctx = timeout(t, time.Second)
			}
			_, err := s[0].Ping(c.ctx, c.addr, c.c)
			if op, ok := err.(*net.OpError); !ok || op.Op != "ping" || !errors.Is(err, c.want) ||
				!strings.HasPrefix(err.Error(), c.text) {
				t.Errorf("%s: %v, want %v", c.what, err, c.want)
			} else if op.Timeout() != errors.Is(c.want, os.ErrDeadlineExceeded) && c.want != context.DeadlineExceeded {
				t.Errorf("%s: Timeout is %v", c.what, op.Timeout())
			}
		}
		go func() { time.Sleep(time.Second); s[0].Close() }()
		if _, err := s[0].Ping(context.Background(), nobody, bsdnet.PingConfig{}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

// A bubble's stack is for its goroutines.
func TestPingOtherBubble(t *testing.T) {
	outside := stack(t, bsdnet.Config{})
	synctest.Test(t, func(t *testing.T) {
		_, err := outside.Ping(timeout(t, time.Second), netip.MustParseAddr("127.0.0.1"), bsdnet.PingConfig{})
		if err == nil || !strings.Contains(err.Error(), "bubble") {
			t.Error(err)
		}
	})
}
