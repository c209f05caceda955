package simnet

import (
	"fmt"
	"net/netip"

	"bsdnet/netem"
)

// A Link connects two hosts, a host and a switch, or two switches. [Net.Link] makes one. All of it
// can be changed while packets flow; a change is made between two instants of the network, so a
// packet that is sent in the instant of the change has the new path.
type Link struct {
	n    *Net
	a, b Node
	name string
	main *nic         // whose port has the path; nil for a trunk
	flip bool         // the port is at end b
	wire *netem.Trunk // of two switches

	// Net.mu guards these, which are kept for the time after a restart.
	path  netem.Path
	flows []netem.FlowPath
	cuts  netem.Direction

	rules []*Rule // only functions given to Net.apply change it
}

// ways are the methods of a port and of a trunk by which a link is changed.
type ways interface {
	Set(netem.Path) error
	SetFlows(...netem.FlowPath) error
	Cut(netem.Direction)
	Heal(netem.Direction)
	Stats() netem.Stats
}

// Symmetric returns the Path whose directions are both imp. So Symmetric(netem.Impairment{Delay:
// 150 * time.Millisecond}) makes a round trip of 300 ms.
func Symmetric(imp netem.Impairment) netem.Path { return netem.Path{Write: imp, Read: imp} }

// Link connects two nodes. Of path, Write is what happens to packets from a to b, and Read to those
// from b to a; the zero Path passes all packets on at once. The Seed of path is ignored, as the
// random choices depend on Config.Seed and the names of the nodes.
//
// The hosts get an IPv4 and an IPv6 address on each link, in the order in which the links are made:
// on the k-th switch 10.k.0.1 and fd00:0:0:k::1, 10.k.0.2 and fd00:0:0:k::2 and so on; on the k-th
// link between two hosts addresses of a small network of their own. Routes to all other hosts are
// set on all hosts, over routers with the fewest hops; they do not change when a link is cut.
//
// Link fails the test if a and b are linked already, also if they are two switches that are
// connected by way of others.
func (n *Net) Link(a, b Node, path netem.Path) *Link {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if a == nil || b == nil || a == b || a.network() != n || b.network() != n {
		n.t.Fatal("simnet: Link needs two nodes of its Net")
	}
	l := &Link{n: n, a: a, b: b, name: a.Name() + "-" + b.Name(), path: path}
	for _, o := range n.links {
		if o.a == a && o.b == b || o.a == b && o.b == a {
			n.t.Fatalf("simnet: %s and %s are linked already; use Set to change the link", a.Name(), b.Name())
		}
	}
	var err error
	switch from := a.(type) {
	case *Host:
		switch to := b.(type) {
		case *Host:
			err = n.cable(l, from, to)
		case *Switch:
			err = n.join(l, from, to)
		}
	case *Switch:
		switch to := b.(type) {
		case *Host:
			l.flip = true
			err = n.join(l, to, from)
		case *Switch:
			err = n.trunk(l, from, to)
		}
	}
	if err != nil {
		n.t.Fatalf("simnet: link of %s and %s: %v", a.Name(), b.Name(), err)
	}
	n.links = append(n.links, l)
	n.stale = true
	return l
}

// cable connects two hosts: by a switch of their own. n.mu is held.
func (n *Net) cable(l *Link, a, b *Host) error {
	if n.cables == maxCables {
		return fmt.Errorf("there can be no more than %d links between hosts", maxCables)
	}
	k := n.cables
	n.cables++
	sw := n.newSwitch()
	four := [4]byte{172, byte(16 + k>>14), byte(k >> 6), byte(k&63) << 2}
	six := [16]byte{0: 0xfd, 5: 1, 6: byte(k >> 8), 7: byte(k)}
	d := &domain{networks: []netip.Prefix{
		netip.PrefixFrom(netip.AddrFrom4(four), 30), netip.PrefixFrom(netip.AddrFrom16(six), 64),
	}}
	for i, h := range []*Host{a, b} {
		four[3]++
		six[15]++
		c := &nic{host: h, link: l, sw: sw, name: l.name + "@" + h.name, at: d, addrs: []netip.Prefix{
			netip.PrefixFrom(netip.AddrFrom4(four), 30), netip.PrefixFrom(netip.AddrFrom16(six), 64),
		}}
		if i == 0 {
			l.main = c
		}
		if err := n.add(c); err != nil {
			return err
		}
	}
	return nil
}

// The k-th link between two hosts has the networks 172.16.0.0/12, in pieces of four addresses, and
// fd00:0:1:k::/64.
const maxCables = 1 << 16

// join connects a host to a switch. n.mu is held.
func (n *Net) join(l *Link, h *Host, s *Switch) error {
	s.used++
	if s.used > maxPorts {
		return fmt.Errorf("a switch has no more than %d ports", maxPorts)
	}
	four, six := s.networks[0].Addr().As4(), s.networks[1].Addr().As16()
	four[2], four[3] = byte(s.used>>8), byte(s.used)
	six[14], six[15] = byte(s.used>>8), byte(s.used)
	c := &nic{host: h, link: l, sw: s.sw, name: l.name + "@" + h.name, at: s.domain, addrs: []netip.Prefix{
		netip.PrefixFrom(netip.AddrFrom4(four), 16), netip.PrefixFrom(netip.AddrFrom16(six), 64),
	}}
	l.main = c
	return n.add(c)
}

const maxPorts = 1<<16 - 2

// add gives a host a nic. n.mu is held.
func (n *Net) add(c *nic) error {
	h := c.host
	h.nics = append(h.nics, c)
	c.at.nics = append(c.at.nics, c)
	n.apply(func() {
		n.nics[c.name] = c
		for _, a := range c.addrs {
			n.owners[a.Addr()] = h
		}
	})
	h.mu.Lock()
	s := h.stack
	h.mu.Unlock()
	if s == nil {
		return nil // Restart plugs it in
	}
	return h.plug(s, c)
}

// trunk connects two switches. n.mu is held.
func (n *Net) trunk(l *Link, a, b *Switch) (err error) {
	if l.wire, err = a.sw.Connect(b.sw, netem.TrunkConfig{Name: l.name, Path: l.path}); err != nil {
		return err
	}
	l.wire.Script(netem.Both, l.decide)
	a.domain.merge(b.domain)
	for _, s := range n.switches {
		if s.domain == b.domain {
			s.domain = a.domain
		}
	}
	return nil
}

// Name returns the names of both ends, with a hyphen between them.
func (l *Link) Name() string { return l.name }

// ways returns what the link is changed by, or nil while the host that has the link's port is down.
func (l *Link) ways() ways {
	switch {
	case l.wire != nil:
		return l.wire
	case l.main.port != nil:
		return l.main.port
	}
	return nil
}

// restore gives a new port what is set on the link. Net.mu is held.
func (l *Link) restore() {
	w := l.main.port
	if err := w.Set(l.turned(l.path)); err != nil {
		l.n.t.Errorf("simnet: link %s: %v", l.name, err)
	}
	w.SetFlows(l.turnedFlows()...)
	w.Cut(l.cuts)
}

// turned returns a path as the link's port sees it.
func (l *Link) turned(p netem.Path) netem.Path {
	if l.flip {
		p.Write, p.Read = p.Read, p.Write
	}
	return p
}

func (l *Link) turnedFlows() []netem.FlowPath {
	var list []netem.FlowPath
	for _, f := range l.flows {
		f.Path = l.turned(f.Path)
		list = append(list, f)
	}
	return list
}

// Set changes the link's path: see [Net.Link]. Packets that are on their way arrive as they would
// have. It fails the test, and changes nothing, if a field of path is out of range.
func (l *Link) Set(path netem.Path) {
	l.n.t.Helper()
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	if w := l.ways(); w != nil {
		if err := w.Set(l.turned(path)); err != nil {
			l.n.t.Errorf("simnet: link %s: %v", l.name, err)
			return
		}
	}
	l.path = path
	l.n.events.note("%s is set to %s", l.name, describe(path))
}

// Path returns what Link or the last Set was given.
func (l *Link) Path() netem.Path {
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	return l.path
}

// SetFlows gives the packets of some flows a path of their own: a packet has the Path of the first
// element of list that matches it, or the link's. Each call replaces the list of the one before;
// with an empty list, all packets have the link's path again. The functions [From], [SYN] and so on
// can be used as Match. SetFlows fails the test, and changes nothing, if a Match is nil or a field
// of a Path is out of range.
func (l *Link) SetFlows(list ...netem.FlowPath) {
	l.n.t.Helper()
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	was := l.flows
	l.flows = list
	if w := l.ways(); w != nil {
		if err := w.SetFlows(l.turnedFlows()...); err != nil {
			l.flows = was
			l.n.t.Errorf("simnet: link %s: %v", l.name, err)
			return
		}
	}
	l.n.events.note("%s has %d flow paths", l.name, len(list))
}

// Cut makes the link lose all packets, in both directions, until Heal. A packet is lost if the link
// is cut when the packet is sent, or when it would arrive.
func (l *Link) Cut() {
	l.cut(netem.Both)
	l.n.events.note("%s is cut", l.name)
}

// CutFrom is Cut for the packets that come from one end of the link only. It fails the test if from
// is none of its ends.
func (l *Link) CutFrom(from Node) {
	l.n.t.Helper()
	if from != l.a && from != l.b {
		l.n.t.Errorf("simnet: %s is no end of link %s", from.Name(), l.name)
		return
	}
	d := netem.Read
	if (from == l.a) != l.flip {
		d = netem.Write
	}
	l.cut(d)
	l.n.events.note("%s is cut for packets from %s", l.name, from.Name())
}

func (l *Link) cut(d netem.Direction) {
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	l.cuts |= d
	if w := l.ways(); w != nil {
		w.Cut(d)
	}
}

// Heal ends the effect of [Link.Cut] and [Link.CutFrom].
func (l *Link) Heal() {
	l.heal()
	l.n.events.note("%s is healed", l.name)
}

func (l *Link) heal() {
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	l.cuts = 0
	if w := l.ways(); w != nil {
		w.Heal(netem.Both)
	}
}

// Stats returns the counters of the link: Write of the packets from a to b as given to [Net.Link],
// Read of those from b to a. They begin again when a host at the link restarts. Packets that are
// lost because of [Net.Partition], [Host.Cut] or a [Rule] count as Filtered.
func (l *Link) Stats() netem.Stats {
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	w := l.ways()
	if w == nil {
		return netem.Stats{}
	}
	s := w.Stats()
	if l.flip {
		s.Write, s.Read = s.Read, s.Write
	}
	return s
}
