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

// A routed pair of namespaces has two stacks between them, which are routers:
//
//	near, 10.1.0.1 --device-- 10.1.0.2, router, 10.2.0.1 --cable-- 10.2.0.2, router, 10.3.0.2 --device-- 10.3.0.1, far
type routed struct {
	near, far *nstest.NS
	routers   [2]*bsdnet.Stack
}

// A family is what the tests of routers need to know of IPv4.
type family struct {
	name                 string
	near, first          string // addresses: of near, and of the routers in the order of traceroute
	second, far, nowhere string
	ip, ping, traceroute []string
	header               int
}

var families = []family{
	{"IPv4", "10.1.0.1", "10.1.0.2", "10.2.0.2", "10.3.0.1", "192.0.2.1",
		[]string{"ip"}, []string{"ping"}, []string{"traceroute"}, 20},
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
		net   string // of the device
	}{{r.near, near, a, "10.1.0."}, {r.far, far, b, "10.3.0."}} {
		dev := openTUN(t, end.ns, tun.Config{
			Queues: end.mode.queues, NoOffload: end.mode.noOffload, Host: netip.MustParsePrefix(end.net + "1/24"),
		})
		s := newStack(t, bsdnet.Config{Forwarding: true})
		r.routers[i] = s
		attach := func(l bsdnet.Link, addrs ...string) {
			t.Helper()
			var list []netip.Prefix
			for _, a := range addrs {
				list = append(list, netip.MustParsePrefix(a))
			}
			if err := s.Attach(l, list...); err != nil {
				l.Close()
				t.Fatal(err)
			}
		}
		attach(dev, end.net+"2/24")
		attach(end.cable, fmt.Sprintf("10.2.0.%d/24", i+1))
		for _, dst := range []string{"10.1.0.0/24", "10.3.0.0/24"} {
			if !strings.HasPrefix(dst, end.net) {
				if err := s.AddRoute(netip.MustParsePrefix(dst), end.cable); err != nil {
					t.Fatal(err)
				}
			}
		}
		end.ns.Run(t, "ip", "route", "add", "default", "via", end.net+"2", "dev", dev.Name())
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

// curl up and down through two routers of ours: what arrives is what was sent, past a link with a
// smaller MTU, of which the routers tell the kernels.
func TestRouterCurl(t *testing.T) {
	nstest.Need(t, "curl")
	eachRouted(t, func(t *testing.T, r *routed, fam family) {
		_, url := startHTTP(t, protocols[0], host{"far", fam.far, r.far.Listen, nil})
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
			st := s.Stats().IP
			if st.Forward == 0 || st.Badsum != 0 {
				t.Errorf("router %d: %+v", i, st)
			}
			told += st.Cantfrag
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
			return r.near.Try(slices.Concat(fam.ping, []string{"-n", "-c", "1", "-W", "5"}, args)...)
		}
		for _, size := range []string{"0", "56", "1232", "1233", "1472", "8000", "65000"} {
			if out, err := ping("-M", "dont", "-s", size, fam.far); err != nil {
				t.Errorf("%s bytes: %v\n%s", size, err, out)
			}
		}
		for _, c := range []struct{ args, want string }{
			{"-t 1 " + fam.far, "From " + fam.first + " icmp_seq=1 Time to live exceeded"},
			{"-t 2 " + fam.far, "From " + fam.second + " icmp_seq=1 Time to live exceeded"},
			{"-M do -s 1400 " + fam.far, "From " + fam.first + " icmp_seq=1 Frag needed and DF set (mtu = 1280)"},
			{fam.nowhere, "From " + fam.first + " icmp_seq=1 Destination Net Unreachable"},
		} {
			if out, err := ping(strings.Fields(c.args)...); err == nil || !strings.Contains(out, c.want) {
				t.Errorf("ping %s: %v\n%s\nwant %q", c.args, err, out, c.want)
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
			args := slices.Concat(fam.traceroute, []string{"-n", "-q", "1", "-w", "5", "-m", "6", mode, fam.far})
			out, err := r.near.Try(args...)
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
