package simnet

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"bsdnet"
	"bsdnet/netem"
)

// Config configures a [Net]. The zero Config is ready to use.
type Config struct {
	// Seed determines all random choices: losses and jitter, and the initial sequence numbers and
	// ports of the hosts. A failing test prints it.
	Seed uint64

	// MTU is the size of the largest IP packet on all links, in bytes, from 1280 to 65535. If it is
	// 0, it is 1500.
	MTU int

	// IPv6 makes the names of hosts stand for their IPv6 addresses. Otherwise they stand for their
	// IPv4 addresses. A name never stands for both, so that a dial is one connection attempt, whose
	// packets a test can count.
	IPv6 bool

	// Limit is the most virtual time that a test in a bubble may take. When it has passed, the test
	// fails, prints [Net.Report], and the network ends, so that calls that wait for it return. So a
	// test that waits for what never comes says where it stands, instead of a "deadlock" without
	// more. If Limit is 0, it is a year.
	Limit time.Duration

	// Stack configures the stacks of all hosts, for example their TCP. The Net sets its Rand,
	// Forwarding and NoLoopback. Its Hosts and DNS are asked for names that no host has, and its
	// Trace is called in addition to the Net's own.
	Stack bsdnet.Config
}

// A Net is a network of hosts, each with a TCP/IP stack of its own. [New] makes one. Several
// goroutines may call its methods, and those of its hosts, switches and links, at the same time.
//
// A call that misuses the Net, such as a second Link with the same ends or a Path with a Loss of 2,
// fails the test with a message that says why.
type Net struct {
	t      testing.TB
	config Config
	start  time.Time
	events *events
	clock  clock
	ended  context.Context // ends with the network
	end    context.CancelFunc

	watchdog *time.Timer // nil outside of bubbles

	mu       sync.Mutex // guards the topology; no packet waits for it
	closed   bool
	nodes    map[string]Node
	hosts    []*Host // in the order in which they were made
	switches []*Switch
	links    []*Link
	first    *netem.Switch // all others share its instants
	cables   int
	stale    bool // routes are older than the topology
	captures []*capture

	// What the functions that decide about packets know. Only functions given to apply change it.
	owners  map[netip.Addr]*Host
	blocked map[[2]*Host]bool
	rules   []*Rule
	nics    map[string]*nic // by the name of their port
	taps    []*capture
}

// A Node is a [Host] or a [Switch].
type Node interface {
	// Name returns the name that the node was made with.
	Name() string

	network() *Net
}

// New makes a network without hosts. Call it in a testing/synctest bubble, with the bubble's t:
//
//	synctest.Test(t, func(t *testing.T) {
//		n := simnet.New(t, simnet.Config{Seed: 1})
//		…
//	})
//
// When the test ends, a Cleanup function closes all hosts: it resets their connections, ends the
// calls that wait for them with net.ErrClosed, and leaves no goroutine and no timer of the network.
// Then it lets a minute of the bubble's time pass, in which the test's own goroutines must end:
// those that sleep between two attempts can find that the network is gone. If the test has failed,
// the function first prints [Net.Report]: the seed, what has happened in the network, and the state
// of each link and connection.
//
// Outside of a bubble, a Net works in real time, and nothing repeats exactly.
func New(t testing.TB, c Config) *Net {
	t.Helper()
	if c.MTU == 0 {
		c.MTU = 1500
	}
	if c.MTU < minMTU || c.MTU > maxMTU {
		t.Fatalf("simnet: Config.MTU is %d; it can be 0, for 1500, or %d to %d", c.MTU, minMTU, maxMTU)
	}
	if c.Limit < 0 {
		t.Fatalf("simnet: Config.Limit is %v; it can be 0, for a year, or more", c.Limit)
	}
	n := &Net{
		t: t, config: c, start: time.Now(), nodes: map[string]Node{},
		owners: map[netip.Addr]*Host{}, blocked: map[[2]*Host]bool{}, nics: map[string]*nic{},
	}
	n.events = newEvents(n.start)
	n.ended, n.end = context.WithCancel(context.Background())
	n.clock.n = n
	n.first = n.newSwitch()
	if c.Limit == 0 {
		n.config.Limit = defaultLimit
	}
	if n.inBubble() {
		n.watchdog = time.AfterFunc(n.config.Limit, n.expire)
	}
	t.Cleanup(n.close)
	return n
}

// defaultLimit is the default of Config.Limit.
const defaultLimit = 365 * 24 * time.Hour

// expire ends a network whose time is over.
func (n *Net) expire() {
	n.t.Errorf("simnet: the test goes on after %v of virtual time, which is Config.Limit: "+
		"does it wait for something that never comes?\n%s", n.config.Limit, n.Report())
	n.shut()
}

// The least MTU that IPv6 allows (RFC 8200, 5), and the largest of IP.
const (
	minMTU = 1280
	maxMTU = 65535
)

// Elapsed returns the time since New.
func (n *Net) Elapsed() time.Duration { return time.Since(n.start) }

// Host returns the host with a name, and makes it if there is none. A new host has a stack with a
// loopback; [Net.Link] connects it.
func (n *Net) Host(name string) *Host { n.t.Helper(); return n.host(name, false) }

// Router is Host, but a new host forwards packets between its links: for other hosts it is a hop,
// which takes 1 from their packets' TTL, and answers with ICMP errors if a packet cannot pass. All
// hosts have routes over all routers, by the fewest hops. Router fails the test if there is a host
// with the name that is no router.
func (n *Net) Router(name string) *Host { n.t.Helper(); return n.host(name, true) }

func (n *Net) host(name string, router bool) *Host {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	switch node := n.nodes[name].(type) {
	case *Host:
		if router && !node.router {
			n.t.Fatalf("simnet: %s is a host already; it cannot become a router", name)
		}
		return node
	case *Switch:
		n.t.Fatalf("simnet: %s is a switch already; it cannot become a host", name)
	}
	n.checkName(name)
	h := &Host{n: n, name: name, router: router, number: len(n.hosts)}
	h.initClient()
	if err := h.boot(); err != nil {
		n.t.Fatalf("simnet: host %s: %v", name, err)
	}
	n.nodes[name] = h
	n.hosts = append(n.hosts, h)
	return h
}

// checkName fails the test if name cannot be that of a node. n.mu is held.
func (n *Net) checkName(name string) {
	n.t.Helper()
	_, err := netip.ParseAddr(name)
	bad := name == "" || err == nil || name == "localhost"
	for _, c := range name {
		bad = bad || !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_')
	}
	if bad {
		n.t.Fatalf("simnet: %q cannot be the name of a host or a switch: "+
			"use lower-case letters, digits, hyphens and dots", name)
	}
	if n.closed {
		n.t.Fatalf("simnet: %s is made after the test has ended", name)
	}
}

// Switch returns the switch with a name, and makes it if there is none. Hosts that are linked to a
// switch, or to switches that are linked to each other, reach each other without a hop.
func (n *Net) Switch(name string) *Switch {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	switch node := n.nodes[name].(type) {
	case *Switch:
		return node
	case *Host:
		n.t.Fatalf("simnet: %s is a host already; it cannot become a switch", name)
	}
	n.checkName(name)
	if len(n.switches) == maxSwitches {
		n.t.Fatalf("simnet: there can be no more than %d switches", maxSwitches)
	}
	s := &Switch{n: n, name: name, sw: n.newSwitch()}
	n.switches = append(n.switches, s)
	number := len(n.switches)
	s.networks = []netip.Prefix{
		netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(number)}), 16),
		netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 7: byte(number)}), 64),
	}
	s.domain = &domain{networks: s.networks}
	n.nodes[name] = s
	n.stale = true
	return s
}

// Switch k has the networks 10.k.0.0/16 and fd00:0:0:k::/64.
const maxSwitches = 255

// A Switch connects any number of hosts: see [netem.Switch]. [Net.Switch] makes one.
type Switch struct {
	n        *Net
	name     string
	sw       *netem.Switch
	networks []netip.Prefix // of IPv4 and IPv6
	used     int            // addresses
	domain   *domain
}

// Name returns the switch's name.
func (s *Switch) Name() string { return s.name }

func (s *Switch) network() *Net { return s.n }

// newSwitch makes a switch of netem's.
func (n *Net) newSwitch() *netem.Switch {
	n.t.Helper()
	s, err := netem.NewSwitch(netem.SwitchConfig{
		MTU: n.config.MTU, Seed: n.config.Seed, With: n.first, Trace: n.packet,
	})
	if err != nil {
		n.t.Fatalf("simnet: %v", err)
	}
	return s
}

// apply changes what the functions that decide about packets know: see netem.Switch.Apply.
func (n *Net) apply(f func()) { n.first.Apply(f) }

// close ends the network with the test.
func (n *Net) close() {
	expired := n.watchdog != nil && !n.watchdog.Stop()
	n.mu.Lock()
	captures := slices.Clone(n.captures)
	n.mu.Unlock()
	for _, c := range captures {
		c.stop()
	}
	if n.t.Failed() && !expired {
		n.t.Log(n.Report())
	}
	n.shut()
	if n.inBubble() {
		time.Sleep(graceTime)
	}
	n.end()
}

// shut closes all hosts.
func (n *Net) shut() {
	n.clock.stop()
	n.mu.Lock()
	n.closed = true
	hosts := slices.Clone(n.hosts)
	n.mu.Unlock()
	n.events.end()
	for _, h := range hosts {
		h.shut()
	}
}

// graceTime is how long the Cleanup function waits, in a bubble, for the goroutines of the test to
// find that the network is gone. Afterwards the bubble's clock stands still.
const graceTime = time.Minute

// inBubble reports whether the Net is in a testing/synctest bubble. The clock of a bubble begins at
// the year 2000 (package testing/synctest, "Time"), and no other clock is that late.
func (n *Net) inBubble() bool { return n.start.Year() < 2020 }

// secrets is the source of a stack's secrets: the same in every run, but others after a restart.
func (n *Net) secrets(host string, boot int) *rand.ChaCha8 {
	return rand.NewChaCha8(sha256.Sum256(fmt.Appendf(nil, "%d %d %s", n.config.Seed, boot, host)))
}
