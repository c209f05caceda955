//go:build linux

package interop

import (
	"net"
	"net/netip"
	"testing"

	"bsdnet"
	"bsdnet/internal/nstest"
	"bsdnet/tun"
)

// pathMTU is the MTU in the middle of a path whose ends have 1500.
const pathMTU = 1280

// far makes a host behind two routers. The link between them has a smaller MTU, which neither end
// can see:
//
//	stack --1500-- kernel --1280-- router --1500-- far
func far(t *testing.T, w *world) host {
	t.Helper()
	if err := w.stack.AddRoute(netip.MustParsePrefix(w.ip("192.0.2.0/24")), w.link); err != nil {
		t.Fatal(err)
	}
	router, end := nstest.New(t), nstest.New(t)
	dev, routerDev := nstest.Veth(t, w.NS, w.ip("198.51.100.1/24"), router, w.ip("198.51.100.2/24"), pathMTU)
	_, endDev := nstest.Veth(t, router, w.ip("192.0.2.1/24"), end, w.ip("192.0.2.2/24"), 0)
	w.Forward(t)
	router.Forward(t)
	w.Run(t, w.mode.iproute("route", "add", w.ip("192.0.2.0/24"), "via", w.ip("198.51.100.2"), "dev", dev)...)
	router.Run(t, w.mode.iproute("route", "add", w.ip("10.9.0.0/24"), "via", w.ip("198.51.100.1"), "dev", routerDev)...)
	end.Run(t, w.mode.iproute("route", "add", "default", "via", w.ip("192.0.2.1"), "dev", endDev)...)
	return host{"far", w.at("192.0.2.2"), end.Listen, end.DialContext}
}

// throughPath runs a test in both roles, each in a world of its own, because a kernel that has
// learned of a path offers an MSS that fits it.
func throughPath(t *testing.T, o options, f func(t *testing.T, c, s conn)) {
	t.Run("bsdnet dials", func(t *testing.T) {
		eachMode(t, 4, o, func(t *testing.T, w *world) {
			end := far(t, w)
			c, s := pair(t, w.bsd(), end)
			f(t, c, s)
		})
	})
	t.Run("bsdnet listens", func(t *testing.T) {
		eachMode(t, 4, o, func(t *testing.T, w *world) {
			end := far(t, w)
			c, s := pair(t, end, w.bsd())
			f(t, s, c)
		})
	})
}

// Path MTU discovery (RFC 1191) works: a router whose MTU is less than that of both ends says so,
// and each end, as the sender, sends smaller segments.
func TestPathMTU(t *testing.T) {
	for name, f := range map[string]func(t *testing.T, ours, theirs conn){
		"out":  func(t *testing.T, ours, theirs conn) { transfer(t, ours, theirs, 1, size(2<<20, 32<<20)) },
		"in":   func(t *testing.T, ours, theirs conn) { transfer(t, theirs, ours, 1, size(2<<20, 32<<20)) },
		"both": func(t *testing.T, ours, theirs conn) { transferBoth(t, ours, theirs, size(2<<20, 32<<20)) },
	} {
		t.Run(name, func(t *testing.T) { throughPath(t, options{}, f) })
	}
}

// Without the router's message packets disappear in a black hole, which the sender must find by
// itself (RFC 2923, 2.1).
func TestBlackHole(t *testing.T) {
	deaf := options{wrap: func(t *testing.T, dev *tun.Link) bsdnet.Link {
		return &filter{Link: dev, drop: unreachable}
	}}
	throughPath(t, deaf, func(t *testing.T, ours, theirs conn) { transfer(t, ours, theirs, 1, 1<<20) })
}

// The kernel finds black holes too, with a stack as the receiver. (This test has no offloads,
// because with them the length of a packet has no meaning.)
func TestBlackHoleKernel(t *testing.T) {
	narrow := options{wrap: func(t *testing.T, dev *tun.Link) bsdnet.Link {
		return &filter{Link: dev, drop: func(p []byte) bool { return len(p) > pathMTU }}
	}}
	for _, from := range []string{"bsdnet dials", "bsdnet listens"} {
		t.Run(from, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, mode{"plain", true, 1, false}, narrow)
			w.Sysctl(t, "net.ipv4.tcp_mtu_probing", "1")
			if from == "bsdnet dials" {
				c, s := pair(t, w.bsd(), w.kernel())
				transfer(t, s, c, 1, 1<<20)
			} else {
				c, s := pair(t, w.kernel(), w.bsd())
				transfer(t, c, s, 1, 1<<20)
			}
		})
	}
}

// unreachable reports whether p is an ICMP destination unreachable message, which includes
// fragmentation needed, or an ICMPv6 packet too big message.
func unreachable(p []byte) bool {
	if len(p) > 40 && p[0]>>4 == 6 {
		return p[6] == 58 && p[40] == 2
	}
	return len(p) > 20 && p[9] == 1 && p[20] == 3
}

// A filter is a device that drops packets on their way to the stack.
type filter struct {
	*tun.Link
	drop func(p []byte) bool
	hdr  int // length of the virtio-net header
}

// Offload, Read and ReadQueue implement a link.
func (f *filter) Offload() bool {
	if f.Link.Offload() {
		f.hdr = 10
	}
	return f.hdr > 0
}

func (f *filter) Read(bufs [][]byte, sizes []int) (int, error) { return f.ReadQueue(0, bufs, sizes) }

func (f *filter) ReadQueue(q int, bufs [][]byte, sizes []int) (int, error) {
	for {
		n, err := f.Link.ReadQueue(q, bufs, sizes)
		kept := 0
		for i := range n {
			if f.drop(bufs[i][f.hdr:sizes[i]]) {
				continue
			}
			sizes[kept] = copy(bufs[kept], bufs[i][:sizes[i]])
			kept++
		}
		if kept > 0 || err != nil {
			return kept, err
		}
	}
}

var _ interface {
	bsdnet.Link
	Offload() bool
	Queues() int
	WriteQueue(q int, pkts []net.Buffers) (int, error)
} = (*filter)(nil)
