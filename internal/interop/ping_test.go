//go:build linux

package interop

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"bsdnet"
	"bsdnet/internal/nstest"
)

// pingSizes are numbers of bytes of data: within the MTU, at its edge for both families, and beyond
// it, up to what ping(8) can send.
var pingSizes = []int{0, 1, 56, 1452, 1453, 1472, 1473, 8000, 65000, 65468}

// eachPing runs a test with devices of each kind over both families.
func eachPing(t *testing.T, f func(t *testing.T, w *world)) {
	for _, m := range append(append([]mode{}, modes[:2]...), modes6...) {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			f(t, newWorld(t, m, options{}))
		})
	}
}

// Linux's ping is answered in every size, with the data that it has sent: ping compares it.
func TestPingAnswered(t *testing.T) {
	nstest.Need(t, "ping")
	eachPing(t, func(t *testing.T, w *world) {
		for _, n := range pingSizes {
			out, err := w.Try("ping", "-n", "-c", "1", "-W", "5", "-s", strconv.Itoa(n), w.mode.ip(bsdIP))
			if err != nil || strings.Contains(out, "wrong data") {
				t.Errorf("%d bytes: %v\n%s", n, err, out)
			}
		}
		// As many as the limit for errors would not allow: echoes are no errors.
		out, err := w.Try("ping", "-n", "-q", "-c", "500", "-i", "0.002", "-W", "5", w.mode.ip(bsdIP))
		if err != nil || !strings.Contains(out, "500 received") {
			t.Errorf("%v\n%s", err, out)
		}
	})
}

// Linux answers a stack's Ping in every size, and says what it does not accept.
func TestPingLinux(t *testing.T) {
	eachPing(t, func(t *testing.T, w *world) {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		kernel := netip.MustParseAddr(w.mode.ip(kernIP))
		for _, n := range append(pingSizes, 65507) {
			r, err := w.stack.Ping(ctx, kernel, bsdnet.PingConfig{Size: n})
			if err != nil || r.From != kernel || r.TTL != 64 || r.RTT <= 0 {
				t.Errorf("%d bytes: %+v, %v", n, r, err)
			}
		}
		// The kernel, as a router, has no way to this address.
		w.Forward(t)
		away := netip.MustParseAddr(w.mode.ip("192.0.2.1"))
		if err := w.stack.AddRoute(netip.PrefixFrom(away, away.BitLen()), w.link); err != nil {
			t.Fatal(err)
		}
		_, err := w.stack.Ping(ctx, away, bsdnet.PingConfig{})
		var pe *bsdnet.PingError
		if !errors.As(err, &pe) || pe.From != kernel || !errors.Is(err, syscall.EHOSTUNREACH) || pe.TTLExceeded() {
			t.Errorf("no route: %v", err)
		}
	})
}

// A ping socket and a raw one of a stack, with the kernel at the other end.
func TestListenICMP(t *testing.T) {
	eachPing(t, func(t *testing.T, w *world) {
		request, reply, networks := byte(8), byte(0), []string{"udp4", "ip4:icmp"}
		if w.mode.ip6 {
			request, reply, networks = 128, 129, []string{"udp6", "ip6:ipv6-icmp"}
		}
		for _, network := range networks {
			c, err := w.stack.ListenICMP(network, "")
			if err != nil {
				t.Fatal(err)
			}
			c.SetDeadline(time.Now().Add(limit))
			ip := net.ParseIP(w.mode.ip(kernIP))
			var to net.Addr = &net.IPAddr{IP: ip}
			if strings.HasPrefix(network, "udp") {
				to = &net.UDPAddr{IP: ip}
			}
			// The user's checksum counts for raw IPv4; it is that of a request without data.
			msg := []byte{request, 0, 0xf7, 0xfd, 0, 0, 0, 2}
			if _, err := c.WriteTo(msg, to); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 100)
			for {
				n, from, err := c.ReadFrom(b)
				if err != nil || from.String() != to.String() {
					t.Fatalf("%s: %x from %v, %v", network, b[:n], from, err)
				}
				if b[0] == reply { // a raw socket receives the kernel's other messages too
					if !bytes.Equal(b[6:n], msg[6:]) {
						t.Errorf("%s: %x", network, b[:n])
					}
					break
				}
			}
			c.Close()
		}
	})
}
