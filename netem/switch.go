package netem

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"bsdnet/internal/kern/wire"
	"bsdnet/internal/link"
)

// SwitchConfig configures a [Switch]. The zero SwitchConfig is ready to use.
type SwitchConfig struct {
	// MTU is the size of the largest IP packet on the ports in bytes, from 68 to 65535. If it is 0,
	// it is 1500.
	MTU int

	// Seed determines all random choices, together with the names of ports and trunks.
	Seed uint64

	// With is a switch of the same network: the new switch can be connected to it, and at most one
	// packet arrives per instant on all ports of both. If it is nil, the switch begins a network.
	With *Switch

	// Trace is called with each event on the ports and trunks of the switch, one after the other in
	// an order that is the same in every run, with a lock of the network held: it must return soon,
	// and must not call the network or a stack on it. If it is nil, nothing is traced. The events
	// of a trunk go to the switch that made it. An Event is valid during the call only.
	Trace func(*Event)
}

// A Switch forwards IP packets between the stacks of one process that are attached to its ports.
// Like Impair, it takes the packets of one instant in an order that does not depend on which of
// several goroutines wrote first, and at most one packet arrives per nanosecond, counting all ports
// of all switches of the network: see [Impaired]. A packet that waits or is delayed nowhere arrives
// 1 or 2 ns after it was written.
//
// A packet goes to the port with its destination address; else to the port with the longest route
// to it, on this or a connected switch. It never goes back to where it came from. A packet for
// which there is no port is dropped and counted. Packets to multicast addresses, to 255.255.255.255
// and to the last address of an IPv4 network of a port go to all other ports. A switch does not
// change packets: it is no hop for their TTL. To route between networks, attach a stack that
// forwards to ports of two switches that are not connected.
type Switch struct {
	net   *network
	mtu   int
	seed  uint64
	trace func(*Event)

	// net.mu guards these.
	ports  []*Port
	trunks []*trunkEnd
	table  map[netip.Prefix][]*line // the ways to a prefix, the best first
	bits   [2][]int                 // the lengths of prefixes in table, the longest first; of IPv4 and IPv6
	casts  map[netip.Addr]bool      // broadcast addresses
	stale  bool                     // the tables are older than ports and trunks

	noPort, flooded atomic.Uint64
}

// network is what connected switches share.
type network struct {
	sched scheduler
	mu    sync.Mutex // comes before sched.mu
	made  int        // ports and trunks
}

// SwitchStats are the counters of a [Switch], besides those of its ports and trunks.
type SwitchStats struct {
	NoPort  uint64 // packets dropped because no port has their destination
	Flooded uint64 // packets forwarded to all other ports
}

// NewSwitch makes a switch without ports. A switch needs no Close: it has no goroutine, and no
// timer when all ports are closed. NewSwitch returns an error if the MTU is out of range.
func NewSwitch(c SwitchConfig) (*Switch, error) {
	if c.MTU == 0 {
		c.MTU = link.DefaultMTU
	}
	if c.MTU < link.MinMTU || c.MTU > link.MaxPacket {
		return nil, fmt.Errorf("netem: switch: MTU %d is not within %d..%d", c.MTU, link.MinMTU, link.MaxPacket)
	}
	s := &Switch{mtu: c.MTU, seed: c.Seed, trace: c.Trace, stale: true}
	if c.With != nil {
		s.net = c.With.net
	} else {
		s.net = new(network)
		s.net.sched.init()
		s.net.sched.closed = true
	}
	return s, nil
}

// Stats returns the switch's counters.
func (s *Switch) Stats() SwitchStats {
	return SwitchStats{NoPort: s.noPort.Load(), Flooded: s.flooded.Load()}
}

// Apply calls f between two instants: after all packets of past instants have been seen by the
// scripts of the network, and before those of the present instant are. So a script can depend on
// what f sets, without a lock of its own, and it makes no difference whether a packet is written
// before or after the call of Apply in the same instant. Apply does not wait for f, which is called
// 1 ns later, with a lock of the network held: it must not call the network or a stack on it. If
// all ports are closed, f is called at once.
func (s *Switch) Apply(f func()) { s.net.sched.change(f) }

// tell traces an event of a port or trunk. The scheduler is locked.
func (s *Switch) tell(name string, d Direction) func(EventKind, *Packet, string) {
	if s.trace == nil {
		return nil
	}
	sched := &s.net.sched
	var e Event // the same for all calls, which come one after the other
	return func(kind EventKind, p *Packet, reason string) {
		e = Event{Time: sched.wall(), Link: name, Direction: d, Kind: kind, Reason: reason, Packet: p}
		s.trace(&e)
	}
}

// seedOf returns the seed of a port or trunk.
func (s *Switch) seedOf(name string) uint64 {
	h := mix(s.seed)
	for _, c := range []byte(name) {
		h = mix(h ^ uint64(c))
	}
	return h
}

// name returns a name for a port or trunk that was given none. net.mu is held.
func (n *network) name(name, kind string) string {
	n.made++
	if name == "" {
		name = fmt.Sprintf("%s%d", kind, n.made)
	}
	return name
}

// forwardAll forwards packets that have come on line in, which is opposite to line back.
func (s *Switch) forwardAll(pkts []*packet, in, back *line) int {
	for _, p := range pkts {
		s.forward(p, in, back)
	}
	return len(pkts)
}

// forward passes on a packet, but not to where it came from.
func (s *Switch) forward(p *packet, in, back *line) {
	dst := p.flow.dst()
	s.net.mu.Lock()
	if s.stale {
		s.build()
	}
	var one [1]*line
	to := one[:0]
	flood := dst.IsMulticast() || s.casts[dst]
	if flood {
		to = s.exits(back)
	} else if l := s.lookup(dst, back); l != nil {
		to = append(to, l)
	}
	s.net.mu.Unlock()
	if s.count(p, in, len(to) > 0 || flood); len(to) == 0 {
		p.free()
		return
	}
	if flood {
		s.flooded.Add(1)
	}
	for _, l := range to[1:] {
		s.net.sched.relay(l, p.clone(), false)
	}
	s.net.sched.relay(to[0], p, !flood)
}

// count counts a packet that has come on line in, and for which there is a port or not.
func (s *Switch) count(p *packet, in *line, found bool) {
	s.net.sched.mu.Lock()
	defer s.net.sched.mu.Unlock()
	m := in.model
	if found {
		m.counts.Delivered++
		return
	}
	s.noPort.Add(1)
	m.view.look(p, nil)
	m.counts.Dropped++
	m.tell(EventDropped, "no port")
}

// lookup returns the line to an address, or nil. net.mu is held.
func (s *Switch) lookup(dst netip.Addr, back *line) *line {
	if !dst.IsValid() {
		return nil
	}
	family := 0
	if dst.Is6() {
		family = 1
	}
	for _, bits := range s.bits[family] {
		prefix, err := dst.Prefix(bits)
		if err != nil {
			continue
		}
		for _, l := range s.table[prefix] {
			if l != back {
				return l
			}
		}
	}
	return nil
}

// exits returns the lines to all neighbors, except one. net.mu is held.
func (s *Switch) exits(but *line) (list []*line) {
	for _, p := range s.ports {
		list = append(list, &p.down)
	}
	for _, t := range s.trunks {
		list = append(list, t.out)
	}
	return slices.DeleteFunc(list, func(l *line) bool { return l == but })
}

// build makes the tables. net.mu is held.
func (s *Switch) build() {
	s.stale = false
	s.table = map[netip.Prefix][]*line{}
	s.casts = map[netip.Addr]bool{netip.AddrFrom4([4]byte{255, 255, 255, 255}): true}
	s.bits = [2][]int{}
	s.visit(func(at *Switch, first *line) {
		for _, p := range at.ports {
			l := first
			if l == nil {
				l = &p.down
			}
			s.learn(p, l)
		}
	})
}

// change notes that the ports or trunks have changed, except for the table of one switch, which has
// learned of it. net.mu is held.
func (s *Switch) change(but *Switch) {
	s.visit(func(at *Switch, _ *line) { at.stale = at.stale || at != but })
}

// learn enters a port, which l leads to, into the table.
func (s *Switch) learn(p *Port, l *line) {
	enter := func(prefix netip.Prefix) {
		prefix = prefix.Masked()
		s.table[prefix] = append(s.table[prefix], l)
		family := 0
		if prefix.Addr().Is6() {
			family = 1
		}
		if bits := &s.bits[family]; !slices.Contains(*bits, prefix.Bits()) {
			*bits = append(*bits, prefix.Bits())
			slices.SortFunc(*bits, func(a, b int) int { return cmp.Compare(b, a) })
		}
	}
	for _, a := range p.addrs {
		enter(netip.PrefixFrom(a.Addr(), a.Addr().BitLen()))
		if a.Addr().Is4() && a.Bits() < 31 {
			s.casts[wire.LastAddr(a)] = true
		}
	}
	for _, r := range p.routes {
		enter(r)
	}
}

// visit calls f for s and all connected switches, the nearest first, with the line that s sends on
// to reach them. net.mu is held.
func (s *Switch) visit(f func(at *Switch, first *line)) {
	type step struct {
		at, from *Switch
		first    *line
	}
	for todo := []step{{at: s}}; len(todo) > 0; todo = todo[1:] {
		now := todo[0]
		f(now.at, now.first)
		for _, t := range now.at.trunks {
			if t.to == now.from {
				continue
			}
			first := now.first
			if first == nil {
				first = t.out
			}
			todo = append(todo, step{t.to, now.at, first})
		}
	}
}

// TrunkConfig configures a [Trunk].
type TrunkConfig struct {
	// Name is the trunk's name in Events; its random choices depend on it. If it is empty, the
	// trunk gets a name.
	Name string

	// Path is what happens on the trunk: Write to packets away from the switch on which Connect is
	// called, Read to those to it. Its Seed is ignored.
	Path Path
}

// A Trunk connects two switches.
type Trunk struct {
	ways    ways
	out, in line
}

// trunkEnd is a trunk as one of its switches sees it.
type trunkEnd struct {
	to  *Switch
	out *line
}

// Connect connects two switches of one network, so that their ports are in one. It returns an error
// if they are connected already, perhaps by way of others, because packets to all ports would go
// round a circle; if to is not a switch of the same network (see SwitchConfig.With); and if a field
// of c.Path is out of range.
func (s *Switch) Connect(to *Switch, c TrunkConfig) (*Trunk, error) {
	if to == nil || to.net != s.net {
		return nil, errors.New("netem: connect: the switches are in two networks; set SwitchConfig.With")
	}
	t := new(Trunk)
	t.ways = ways{sched: &s.net.sched, out: &t.out, in: &t.in, mtu: min(s.mtu, to.mtu), where: "netem: connect"}
	if err := t.ways.complete(&c.Path); err != nil {
		return nil, err
	}
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	known := false
	s.visit(func(at *Switch, _ *line) { known = known || at == to })
	if known {
		return nil, errors.New("netem: connect: the switches are connected already")
	}
	c.Name = s.net.name(c.Name, "trunk")
	seed := s.seedOf(c.Name)
	c.Path.Seed = s.seed
	t.ways.path = c.Path
	t.out.model, t.in.model = newModel(&c.Path.Write, mix(seed)), newModel(&c.Path.Read, mix(^seed))
	t.out.model.trace, t.in.model.trace = s.tell(c.Name, Write), s.tell(c.Name, Read)
	t.out.inner, t.in.inner = true, true
	t.out.deliver = func(pkts []*packet) int { return to.forwardAll(pkts, &t.out, &t.in) }
	t.in.deliver = func(pkts []*packet) int { return s.forwardAll(pkts, &t.in, &t.out) }
	s.net.sched.join(&t.out, &t.in)
	s.trunks = append(s.trunks, &trunkEnd{to, &t.out})
	to.trunks = append(to.trunks, &trunkEnd{s, &t.in})
	s.change(nil)
	return t, nil
}

// Set changes what happens on the trunk, as [Impaired.Set] does on a link.
func (t *Trunk) Set(path Path) error { return t.ways.set(path) }

// Path returns what Connect or the last [Trunk.Set] was given, with the defaults filled in.
func (t *Trunk) Path() Path { return t.ways.get() }

// SetFlows is [Impaired.SetFlows] for the trunk.
func (t *Trunk) SetFlows(list ...FlowPath) error { return t.ways.setFlows(list) }

// Cut is [Impaired.Cut] for the trunk.
func (t *Trunk) Cut(d Direction) { t.ways.cut(d, true) }

// Heal ends the effect of [Trunk.Cut] in the directions of d.
func (t *Trunk) Heal(d Direction) { t.ways.cut(d, false) }

// Script is [Impaired.Script] for the trunk.
func (t *Trunk) Script(d Direction, f func(*Packet) Verdict) { t.ways.script(d, f) }

// Stats returns what has happened to the packets so far.
func (t *Trunk) Stats() Stats { return t.ways.stats() }
