//go:build linux

package interop

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"bsdnet"
	"bsdnet/internal/nstest"
	"bsdnet/internal/testutil"
	"bsdnet/internal/testutil/stacktest"
	"bsdnet/tun"
)

func TestMain(m *testing.M) {
	if status, ok := perform(); ok {
		os.Exit(status)
	}
	os.Exit(nstest.Main(&counted{m}))
}

// parallel is the number of tests that run at once. Some only wait for timeouts.
const parallel = 6

// A counted M looks for goroutines that tests have left, when all tests have ended.
type counted struct{ m *testing.M }

func (c *counted) Run() int {
	flag.Parse()
	if runtime.GOMAXPROCS(0) < parallel {
		flag.Set("test.parallel", strconv.Itoa(parallel))
	}
	status := c.m.Run()
	if left := leftovers(); status == 0 && left != "" {
		fmt.Println("goroutines of stacks that have been closed:\n" + left)
		return 1
	}
	return status
}

// packages are the packages of stacks and links.
var packages = []string{"bsdnet/internal/kern", "bsdnet/tun.", "bsdnet/netem.", "bsdnet/udptunnel."}

// leftovers returns the call stacks of goroutines that run in these packages.
func leftovers() string {
	var left []string
	for end := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		left = left[:0]
		for _, g := range strings.Split(allStacks(), "\n\n") {
			if slices.ContainsFunc(packages, func(p string) bool { return strings.Contains(g, p) }) {
				left = append(left, g)
			}
		}
		if len(left) == 0 || time.Now().After(end) {
			return strings.Join(left, "\n\n")
		}
	}
}

func allStacks() string {
	b := make([]byte, 8<<20)
	return string(b[:runtime.Stack(b, true)])
}

// limit is how long a test waits for anything before it fails. What it waits for takes a small part
// of that.
const limit = 60 * time.Second

// size scales the length of a transfer to the time for the tests. With the race detector everything
// takes ten times as long.
func size(normal, longer int) int {
	switch {
	case long && !testutil.Race:
		return longer
	case testutil.Race:
		return normal / 8
	}
	return normal
}

// long reports whether the tests may take long.
var long = os.Getenv("BSDNET_LONG") == "1"

// These are the addresses of the two ends of the device. Over IPv6 they are world.ip of these.
const (
	kernIP = "10.9.0.1"
	bsdIP  = "10.9.0.2"
)

// A mode is a way of using the device.
type mode struct {
	name      string
	noOffload bool
	queues    int
	ip6       bool // the two ends have IPv6 addresses too, and the tests use those
}

var modes = []mode{
	{"offload", false, 1, false}, {"plain", true, 1, false},
	{"offload, 2 queues", false, 2, false}, {"plain, 2 queues", true, 2, false},
}

var modes6 = []mode{{"offload, IPv6", false, 1, true}, {"plain, IPv6", true, 1, true}}

// ip returns an IPv4 address, or its counterpart over IPv6. The address may be a prefix.
func (m mode) ip(a string) string {
	if !m.ip6 {
		return a
	}
	addr, bits, prefix := strings.Cut(a, "/")
	b := netip.MustParseAddr(addr).As4()
	six := netip.AddrFrom16([16]byte{0xfd, 0, 0, b[0], 0, b[1], 0, b[2], 15: b[3]}).String()
	switch {
	case !prefix:
		return six
	case bits == "0":
		return "::/0"
	}
	return six + map[string]string{"24": "/64", "32": "/128"}[bits]
}

// at returns what ip does, to be put before a colon and a port.
func (m mode) at(a string) string {
	if !m.ip6 {
		return a
	}
	return "[" + m.ip(a) + "]"
}

// iproute returns the command ip for the mode's family.
func (m mode) iproute(args ...string) []string {
	if m.ip6 {
		return append([]string{"ip", "-6"}, args...)
	}
	return append([]string{"ip"}, args...)
}

// A world is a namespace. Its kernel is the other end of a device that a stack is attached to.
type world struct {
	*nstest.NS
	mode  mode
	tun   *tun.Link
	link  bsdnet.Link // the device, or a wrapper of it
	stack *bsdnet.Stack
}

// options are the differences between worlds.
type options struct {
	mtu    int
	config bsdnet.Config
	wrap   func(t *testing.T, dev *tun.Link) bsdnet.Link
}

// eachMode runs a test in a world for each of the modes, or for the first n of them, and in two
// over IPv6 if the MTU allows.
func eachMode(t *testing.T, n int, o options, f func(t *testing.T, w *world)) {
	list := modes[:n:n]
	if o.mtu == 0 || o.mtu >= 1280 {
		list = append(list, modes6...)
	}
	inModes(t, list, o, f)
}

// inModes runs a test in a world for each of the modes in a list.
func inModes(t *testing.T, list []mode, o options, f func(t *testing.T, w *world)) {
	nstest.Need(t, "/dev/net/tun", "ip")
	for _, m := range list {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			f(t, newWorld(t, m, o))
		})
	}
}

func newWorld(t *testing.T, m mode, o options) *world {
	t.Helper()
	nstest.Need(t, "/dev/net/tun", "ip")
	if _, err := os.Stat("/proc/net/if_inet6"); m.ip6 && err != nil {
		nstest.Skip(t, "no IPv6: %v", err)
	}
	w := &world{NS: nstest.New(t), mode: m}
	if m.ip6 { // otherwise a device that goes down loses its IPv6 addresses
		w.Sysctl(t, "net.ipv6.conf.all.keep_addr_on_down", "1")
	}
	w.tun = openTUN(t, w.NS, w.device(o.mtu))
	w.link = w.tun
	if o.wrap != nil {
		w.link = o.wrap(t, w.tun)
	}
	w.stack = newStack(t, o.config)
	if err := w.stack.Attach(w.link, w.bsdAddrs()...); err != nil {
		w.link.Close()
		t.Fatal(err)
	}
	return w
}

// device returns the configuration of the mode's device.
func (w *world) device(mtu int) tun.Config {
	c := tun.Config{MTU: mtu, Queues: w.mode.queues, NoOffload: w.mode.noOffload,
		Host: netip.MustParsePrefix(kernIP + "/24")}
	if w.mode.ip6 {
		c.Host6 = netip.MustParsePrefix(w.ip(kernIP + "/24"))
	}
	return c
}

// bsdAddrs returns the stack's addresses on the device.
func (w *world) bsdAddrs() []netip.Prefix {
	list := []netip.Prefix{netip.MustParsePrefix(bsdIP + "/24")}
	if w.mode.ip6 {
		list = append(list, netip.MustParsePrefix(w.ip(bsdIP+"/24")))
	}
	return list
}

// ip and at return an address of the mode's family: see mode.ip and mode.at.
func (w *world) ip(a string) string { return w.mode.ip(a) }
func (w *world) at(a string) string { return w.mode.at(a) }

// openTUN opens a device in a namespace.
func openTUN(t *testing.T, ns *nstest.NS, c tun.Config) (dev *tun.Link) {
	t.Helper()
	if err := ns.Do(func() (err error) {
		dev, err = tun.Open(c)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return dev
}

// newStack makes a stack, and closes it when the test ends. Close must not hang.
func newStack(t *testing.T, c bsdnet.Config) *bsdnet.Stack {
	t.Helper()
	s := stacktest.New(t, c)
	t.Cleanup(func() { within(t, "Stack.Close", func() { s.Close() }) })
	return s
}

// within calls f. If f takes longer than the limit, it fails the test with the stacks of all
// goroutines.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(limit):
		t.Errorf("%s hangs\n%s", what, allStacks())
	}
}

// await waits until f is true.
func await(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it never happens: %s\n%s", what, allStacks())
		}
	}
}

// A host is a test's view of one of the two ends.
type host struct {
	name   string
	ip     string // to be put before a port
	listen func(network, address string) (net.Listener, error)
	dial   func(ctx context.Context, network, address string) (net.Conn, error)
}

func (w *world) kernel() host { return host{"kernel", w.at(kernIP), w.NS.Listen, w.NS.DialContext} }
func (w *world) bsd() host    { return host{"bsdnet", w.at(bsdIP), w.stack.Listen, w.stack.DialContext} }

// eachRole runs a test with bsdnet as the client and as the server.
func (w *world) eachRole(t *testing.T, f func(t *testing.T, client, server host)) {
	t.Run("bsdnet dials", func(t *testing.T) { f(t, w.bsd(), w.kernel()) })
	t.Run("bsdnet listens", func(t *testing.T) { f(t, w.kernel(), w.bsd()) })
}

// A conn is a connection of the stack or of the kernel.
type conn interface {
	net.Conn
	CloseWrite() error
	SetLinger(sec int) error
}

// pair connects the two hosts.
func pair(t *testing.T, client, server host) (c, s conn) {
	t.Helper()
	ln, err := server.listen("tcp", server.ip+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return connect(t, client, ln), accept(t, ln)
}

// connect connects to a listener. The connection has a deadline, and is closed when the test ends.
func connect(t *testing.T, client host, ln net.Listener) conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	c, err := client.dial(ctx, "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return prepare(t, c)
}

func accept(t *testing.T, ln net.Listener) conn {
	t.Helper()
	ln.(interface{ SetDeadline(time.Time) error }).SetDeadline(time.Now().Add(limit))
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return prepare(t, c)
}

func prepare(t *testing.T, c net.Conn) conn {
	patience := limit
	if long {
		patience = 20 * limit
	}
	c.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { c.Close() })
	return c.(conn)
}

// A device implements the optional interfaces of links, as a user's own link could.
var (
	_ bsdnet.OffloadLink = (*tun.Link)(nil)
	_ bsdnet.QueueLink   = (*tun.Link)(nil)
)
