//go:build linux

package interop

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"bsdnet"
	"bsdnet/internal/nstest"
	"bsdnet/netem"
	"bsdnet/tun"
)

// narrow is the MTU of the cable between two routers, whose devices have 1500.
const narrow = 1280

// A routed pair of namespaces has two stacks between them, which are routers. Over IPv6, fd01:: is
// the network of 10.1.0.0, and so on.
//
//	near, 10.1.0.1 --device-- 10.1.0.2, router, 10.2.0.1 --cable-- 10.2.0.2, router, 10.3.0.2 --device-- 10.3.0.1, far
type routed struct {
	near, far *nstest.NS
	routers   [2]*bsdnet.Stack
}

// A family is what the tests of routers need to know of IPv4, or of IPv6.
type family struct {
	name, option               string
	first, second, far, nobody string // addresses: of the routers, in the order of traceroute; of far; without a route
	expired, tooBig, noRoute   string // what ping says
}

var families = []family{
	{"IPv4", "-4", "10.1.0.2", "10.2.0.2", "10.3.0.1", "192.0.2.1",
		"Time to live exceeded", "Frag needed and DF set (mtu = 1280)", "Destination Net Unreachable"},
	{"IPv6", "-6", "fd01::2", "fd02::2", "fd03::1", "2001:db8::1",
		"Time exceeded: Hop limit", "Packet too big: mtu=1280", "Destination unreachable: No route"},
}

// newRouted makes the two namespaces. The modes are those of near's device and far's device.
func newRouted(t *testing.T, near, far mode) *routed {
	t.Helper()
	nstest.Need(t, "/dev/net/tun", "ip")
	r := &routed{near: nstest.New(t), far: nstest.New(t)}
	a, b, err := netem.Pipe(netem.PipeConfig{MTU: narrow})
	if err != nil {
		t.Fatal(err)
	}
	for i, end := range []struct {
		ns    *nstest.NS
		mode  mode
		cable bsdnet.Link
		net   int // of the device
	}{{r.near, near, a, 1}, {r.far, far, b, 3}} {
		addrs := func(net, host int) (list []netip.Prefix) {
			for _, p := range []string{"10.%d.0.%d/24", "fd0%d::%d/64"} {
				list = append(list, netip.MustParsePrefix(fmt.Sprintf(p, net, host)))
			}
			return list
		}
		own := addrs(end.net, 1)
		dev := openTUN(t, end.ns, tun.Config{
			Queues: end.mode.queues, NoOffload: end.mode.noOffload, Host: own[0], Host6: own[1],
		})
		s := newStack(t, bsdnet.Config{Forwarding: true})
		r.routers[i] = s
		for l, list := range map[bsdnet.Link][]netip.Prefix{dev: addrs(end.net, 2), end.cable: addrs(2, i+1)} {
			if err := s.Attach(l, list...); err != nil {
				l.Close()
				t.Fatal(err)
			}
		}
		for _, dst := range addrs(4-end.net, 0) {
			if err := s.AddRoute(dst, end.cable); err != nil {
				t.Fatal(err)
			}
		}
		for _, via := range addrs(end.net, 2) {
			end.ns.Run(t, "ip", "route", "add", "default", "via", via.Addr().String(), "dev", dev.Name())
		}
	}
	return r
}

// eachRouted runs a test with devices of each kind, and of two kinds.
func eachRouted(t *testing.T, f func(t *testing.T, r *routed, fam family)) {
	for _, m := range [][2]mode{{modes[0], modes[0]}, {modes[1], modes[1]}, {modes[2], modes[1]}} {
		for _, fam := range families {
			t.Run(fmt.Sprintf("%s, %s and %s", fam.name, m[0].name, m[1].name), func(t *testing.T) {
				t.Parallel()
				f(t, newRouted(t, m[0], m[1]), fam)
			})
		}
	}
}

// hostOf returns an address, to be put before a colon and a port.
func hostOf(addr string) string {
	if strings.Contains(addr, ":") {
		return "[" + addr + "]"
	}
	return addr
}

// curl up and down through two routers of ours: what arrives is what was sent, past a link with a
// smaller MTU, of which the routers tell the kernels.
func TestRouterCurl(t *testing.T) {
	nstest.Need(t, "curl")
	eachRouted(t, func(t *testing.T, r *routed, fam family) {
		_, url := startHTTP(t, protocols[0], host{"far", hostOf(fam.far), r.far.Listen, nil})
		n := size(8<<20, 64<<20)
		file := filepath.Join(t.TempDir(), "file")
		r.near.Run(t, "curl", "-sS", "--fail", "-o", file, fmt.Sprintf("%s/stream?n=%d", url, n))
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want := make([]byte, n)
		if _, err := io.ReadFull(stream(7, n), want); err != nil {
			t.Fatal(err)
		}
		if sha256.Sum256(got) != sha256.Sum256(want) {
			t.Errorf("%d bytes have arrived, and differ from the %d sent", len(got), n)
		}
		answer := r.near.Run(t, "curl", "-sS", "--fail", "--data-binary", "@"+file, url+"/sum")
		s := newSummer()
		s.Write(want)
		if want := fmt.Sprintf("HTTP/1.1 %v", s.sum()); answer != want {
			t.Errorf("the server has got %q, want %q", answer, want)
		}
		told := uint64(0)
		for i, s := range r.routers {
			st := s.Stats()
			forward, cantfrag := st.IP.Forward, st.IP.Cantfrag
			if fam.option == "-6" {
				forward, cantfrag = st.IP6.Forward, st.IP6.Cantfrag
			}
			if forward < 100 || st.IP.Badsum != 0 {
				t.Errorf("router %d: %+v, %+v", i, st.IP, st.IP6)
			}
			told += cantfrag
		}
		if told == 0 { // a kernel that has learned of the path offers an MSS that fits it
			t.Errorf("no packet was too long for the cable")
		}
	})
}

// ping through the routers, in every size; with a TTL that ends on the way; too long for the cable.
func TestRouterPing(t *testing.T) {
	nstest.Need(t, "ping")
	eachRouted(t, func(t *testing.T, r *routed, fam family) {
		ping := func(args ...string) (string, error) {
			return r.near.Try(slices.Concat([]string{"ping", fam.option, "-n", "-W", "5"}, args)...)
		}
		for _, c := range []struct{ args, want string }{
			{"-t 1 " + fam.far, "From " + fam.first + " icmp_seq=1 " + fam.expired},
			{"-t 2 " + fam.far, "From " + fam.second + " icmp_seq=1 " + fam.expired},
			{"-M do -s 1400 " + fam.far, "From " + fam.first + " icmp_seq=1 " + fam.tooBig},
			{fam.nobody, "From " + fam.first + " icmp_seq=1 " + fam.noRoute},
		} {
			out, err := ping(append(strings.Fields(c.args), "-c", "1")...)
			if err == nil || !strings.Contains(out, c.want) {
				t.Errorf("ping %s: %v\n%s\nwant %q", c.args, err, out, c.want)
			}
		}
		for _, size := range []string{"0", "56", "1232", "1233", "1472", "8000", "65000"} {
			args := []string{"-c", "1"}
			if fam.option == "-6" {
				args = []string{"-c", "4", "-i", "0.1"} // until both ends have learned the MTU
			}
			if out, err := ping(append(args, "-M", "dont", "-s", size, fam.far)...); err != nil {
				t.Errorf("%s bytes: %v\n%s", size, err, out)
			}
		}
	})
}

// traceroute sees each router, whatever it sends.
func TestRouterTraceroute(t *testing.T) {
	nstest.Need(t, "traceroute")
	hop := regexp.MustCompile(`(?m)^ *\d+ +([0-9a-f.:]+) `)
	eachRouted(t, func(t *testing.T, r *routed, fam family) {
		for _, mode := range []string{"-U", "-I", "-T"} {
			out, err := r.near.Try("traceroute", fam.option, "-n", "-q", "1", "-w", "5", "-m", "6", mode, fam.far)
			var hops []string
			for _, m := range hop.FindAllStringSubmatch(out, -1) {
				hops = append(hops, m[1])
			}
			if want := []string{fam.first, fam.second, fam.far}; err != nil || !slices.Equal(hops, want) {
				t.Errorf("traceroute %s: %v, hops %v, want %v\n%s", mode, err, hops, want, out)
			}
		}
	})
}
