//go:build linux

package interop

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"bsdnet"
	"bsdnet/internal/nstest"
	"bsdnet/tun"
)

// These are the addresses of the two ends of a device over IPv6.
const (
	kernIP6 = "fd09::1"
	bsdIP6  = "fd09::2"
)

// newWorld6 is newWorld with IPv6 on the device.
func newWorld6(t *testing.T, m mode) *world {
	t.Helper()
	nstest.Need(t, "/dev/net/tun", "ip")
	if _, err := os.Stat("/proc/net/if_inet6"); err != nil {
		nstest.Skip(t, "no IPv6: %v", err)
	}
	w := &world{NS: nstest.New(t), mode: m}
	w.tun = openTUN(t, w.NS, tun.Config{Queues: m.queues, NoOffload: m.noOffload,
		Host: netip.MustParsePrefix(kernIP + "/24"), Host6: netip.MustParsePrefix(kernIP6 + "/64")})
	w.link = w.tun
	w.stack = newStack(t, bsdnet.Config{})
	if err := w.stack.Attach(w.link, netip.MustParsePrefix(bsdIP+"/24"), netip.MustParsePrefix(bsdIP6+"/64"),
		netip.MustParsePrefix("fe80::2/64")); err != nil {
		w.link.Close()
		t.Fatal(err)
	}
	return w
}

func (w *world) kernel6() host {
	return host{"kernel", "[" + kernIP6 + "]", w.NS.Listen, w.NS.DialContext}
}

func (w *world) bsd6() host {
	return host{"bsdnet", "[" + bsdIP6 + "]", w.stack.Listen, w.stack.DialContext}
}

// A long stream over IPv6 arrives unchanged, with the kernel's offloads for it and without.
func TestBulk6(t *testing.T) {
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld6(t, m)
			n := size(8<<20, 1<<30)
			for _, ends := range [][2]host{{w.bsd6(), w.kernel6()}, {w.kernel6(), w.bsd6()}} {
				c, s := pair(t, ends[0], ends[1])
				transfer(t, c, s, 3, n)
				transfer(t, s, c, 4, n)
				c, s = pair(t, ends[0], ends[1])
				transferBoth(t, c, s, n)
			}
			st := w.stack.Stats()
			i := st.Interfaces[1]
			if in, out := i.BytesIn/i.PacketsIn, i.BytesOut/i.PacketsOut; !m.noOffload && min(in, out) < 3000 {
				t.Errorf("packets of %d bytes come in, and of %d go out, where the device takes chains", in, out)
			}
			if st.TCP.Rcvbadsum != 0 || st.IP6.Badaddr != 0 || st.IP6.Badoptions != 0 || st.IP6.Noproto != 0 {
				t.Errorf("%+v, %d bad checksums", st.IP6, st.TCP.Rcvbadsum)
			}
		})
	}
}

// The kernel's ping is answered in all sizes; long requests and answers travel in fragments.
func TestPing6(t *testing.T) {
	nstest.Need(t, "ping")
	w := newWorld6(t, modes[0])
	for _, to := range []string{bsdIP6, "fe80::2%" + w.tun.Name()} {
		for _, n := range []int{8, 1232, 1400, 3000, 65000} {
			out, err := w.NS.Try("ping", "-6", "-c", "2", "-i", "0.2", "-W", "5", "-s", fmt.Sprint(n), to)
			if err != nil || !strings.Contains(out, " 0% packet loss") || strings.Contains(out, "wrong") {
				t.Errorf("%d bytes to %s: %v\n%s", n, to, err, out)
			}
		}
	}
	st := w.stack.Stats()
	if st.IP6.Reassembled == 0 || st.IP6.Fragmented == 0 || st.ICMP6.Checksum != 0 {
		t.Errorf("%+v, %+v", st.IP6, st.ICMP6)
	}
}

// The kernel understands the stack's errors, and the stack the kernel's.
func TestErrors6(t *testing.T) {
	w := newWorld6(t, modes[0])
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for _, h := range []struct {
		from host
		to   string
	}{{w.kernel6(), "[" + bsdIP6 + "]:9"}, {w.bsd6(), "[" + kernIP6 + "]:9"}} {
		if _, err := h.from.dial(ctx, "tcp", h.to); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s dials a closed port: %v", h.from.name, err)
		}
		c, err := h.from.dial(ctx, "udp", h.to)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(limit))
		c.Write([]byte("x"))
		if _, err := c.Read(make([]byte, 9)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s sends a datagram to a closed port: %v", h.from.name, err)
		}
		c.Close()
	}
}
