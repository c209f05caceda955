package netem

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"

	"bsdnet/internal/link"
)

// PortConfig configures a [Port]. The zero PortConfig is ready to use, but no packet finds the way
// to such a port, except those to all ports.
type PortConfig struct {
	// Name is the port's name in Events; its random choices depend on it. If it is empty, the port
	// gets a name.
	Name string

	// Addrs are the addresses of the stack at the port, with the lengths of their networks, as in
	// bsdnet.Stack.Attach.
	Addrs []netip.Prefix

	// Routes are the networks behind the stack at the port, if it forwards packets. 0.0.0.0/0 and
	// ::/0 make it the port for all packets that no other port takes.
	Routes []netip.Prefix

	// Path is what happens between the stack and the switch: Write to the packets that the stack
	// writes, Read to those that it reads. Its Seed is ignored: see SwitchConfig.Seed.
	Path Path

	// Queue is how many packets wait for a stack that does not read, from 1 to 1048576. Further
	// packets wait on the line, up to Path.Read.Limit. If it is 0, it is 512.
	Queue int
}

// A Port is a place at a [Switch], and a bsdnet.Link for the stack that is attached there. Like
// [Impaired], it takes all packets that are written, and drops those for which it has no room.
//
// Close, which the stack calls, removes the port from the switch. Packets that it has written still
// arrive; those that are on their way to it are dropped.
type Port struct {
	sw       *Switch
	name     string
	addrs    []netip.Prefix
	routes   []netip.Prefix
	state    link.State
	mu       sync.Mutex // guards changes of state
	ways     ways
	up, down line
	rx       queue
}

var _ link.Link = (*Port)(nil)

// NewPort makes a port. It returns an error if a field of c is out of range, or if a port of a
// connected switch has one of the addresses.
func (s *Switch) NewPort(c PortConfig) (*Port, error) {
	if c.Queue == 0 {
		c.Queue = defaultQueue
	}
	if c.Queue < 1 || c.Queue > maxQueue {
		return nil, fmt.Errorf("netem: port: Queue %d is not within 1..%d packets", c.Queue, maxQueue)
	}
	if err := checkPrefixes(append(slices.Clone(c.Addrs), c.Routes...)); err != nil {
		return nil, err
	}
	p := &Port{sw: s, addrs: slices.Clone(c.Addrs), routes: slices.Clone(c.Routes)}
	p.ways = ways{sched: &s.net.sched, out: &p.up, in: &p.down, mtu: s.mtu, where: "netem: port"}
	if err := p.ways.complete(&c.Path); err != nil {
		return nil, err
	}
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	if s.stale {
		s.build()
	}
	for _, a := range p.addrs {
		if s.table[netip.PrefixFrom(a.Addr(), a.Addr().BitLen())] != nil {
			return nil, fmt.Errorf("netem: port: another port has %v", a.Addr())
		}
	}
	p.name = s.net.name(c.Name, "port")
	seed := s.seedOf(p.name)
	c.Path.Seed = s.seed
	p.ways.path = c.Path
	p.up.model, p.down.model = newModel(&c.Path.Write, mix(seed)), newModel(&c.Path.Read, mix(^seed))
	p.up.model.trace, p.down.model.trace = s.tell(p.name, Write), s.tell(p.name, Read)
	p.up.deliver = func(pkts []*packet) int { return s.forwardAll(pkts, &p.up, &p.down) }
	p.down.deliver = p.deliver
	p.rx.init(c.Queue)
	s.net.sched.join(&p.up, &p.down)
	s.ports = append(s.ports, p)
	s.learn(p, &p.down)
	s.change(s)
	return p, nil
}

// Name returns the port's name in Events.
func (p *Port) Name() string { return p.name }

// MTU returns SwitchConfig.MTU.
func (p *Port) MTU() int { return p.sw.mtu }

// Start implements bsdnet.Link. It never calls ready, because Write never takes less than it is
// given. Packets that have come to the port before can be read.
func (p *Port) Start(ready func()) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.state.StartError("netem", ready); err != nil {
		return err
	}
	p.state.Store(link.Started)
	return nil
}

// Read implements bsdnet.Link.
func (p *Port) Read(bufs [][]byte, sizes []int) (int, error) {
	if err := p.state.IOError("netem"); err != nil || len(bufs) == 0 || len(sizes) == 0 {
		return 0, err
	}
	for {
		n, room, err := p.rx.read(bufs, sizes)
		if room {
			p.sw.net.sched.unblock(&p.down)
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// Write implements bsdnet.Link. It takes all packets.
func (p *Port) Write(pkts []net.Buffers) (int, error) {
	if err := p.state.IOError("netem"); err != nil {
		return 0, err
	}
	submit(&p.sw.net.sched, &p.up, pkts, p.sw.mtu)
	return len(pkts), nil
}

// Close implements bsdnet.Link.
func (p *Port) Close() error {
	p.mu.Lock()
	was := p.state.Swap(link.Closed)
	p.mu.Unlock()
	if was == link.Closed {
		return net.ErrClosed
	}
	n := p.sw.net
	n.mu.Lock()
	p.sw.ports = slices.DeleteFunc(p.sw.ports, func(o *Port) bool { return o == p })
	p.sw.change(nil)
	n.mu.Unlock()
	p.rx.close()
	n.sched.leave(&p.down, &p.up)
	return nil
}

// Inject lets the stack read a packet at the present instant, as if it had just arrived. No script
// sees the packet. Inject returns net.ErrClosed after Close, and an error if the packet is empty or
// larger than the MTU, or if too many packets wait for the stack.
func (p *Port) Inject(pkt []byte) error {
	c := copyPacket(net.Buffers{pkt}, p.sw.mtu)
	if c == nil {
		return fmt.Errorf("netem: port: a packet of %d bytes cannot arrive with an MTU of %d", len(pkt), p.sw.mtu)
	}
	switch n, closed := p.rx.put([]*packet{c}, true); {
	case closed:
		return net.ErrClosed
	case n == 0:
		c.free()
		return fmt.Errorf("netem: port: the queue of %s is full", p.name)
	}
	return nil
}

// SetRoutes replaces PortConfig.Routes. It returns an error if a prefix is not valid, and changes
// nothing then.
func (p *Port) SetRoutes(routes []netip.Prefix) error {
	if err := checkPrefixes(routes); err != nil {
		return err
	}
	p.sw.net.mu.Lock()
	defer p.sw.net.mu.Unlock()
	p.routes = slices.Clone(routes)
	p.sw.change(nil)
	return nil
}

func checkPrefixes(list []netip.Prefix) error {
	for _, a := range list {
		if !a.IsValid() || a.Addr().Is4In6() {
			return fmt.Errorf("netem: port: %v is no address or network", a)
		}
	}
	return nil
}

// Set changes what happens between the stack and the switch, as [Impaired.Set] does.
func (p *Port) Set(path Path) error { return p.ways.set(path) }

// Path returns what NewPort or the last [Port.Set] was given, with the defaults filled in.
func (p *Port) Path() Path { return p.ways.get() }

// SetFlows is [Impaired.SetFlows] for the port.
func (p *Port) SetFlows(list ...FlowPath) error { return p.ways.setFlows(list) }

// Cut is [Impaired.Cut] for the port.
func (p *Port) Cut(d Direction) { p.ways.cut(d, true) }

// Heal ends the effect of [Port.Cut] in the directions of d.
func (p *Port) Heal(d Direction) { p.ways.cut(d, false) }

// Script is [Impaired.Script] for the port.
func (p *Port) Script(d Direction, f func(*Packet) Verdict) { p.ways.script(d, f) }

// Gate makes the port ask f about each packet that has come all the way, in the instant in which
// the stack could read it. Of the Verdict only Drop and Reason count; as with a Cut, this decides
// about packets that were on their way when something changed. If f is nil, which it is at first,
// all packets arrive. What [Impaired.Script] says of calls is true of f too.
func (p *Port) Gate(f func(*Packet) Verdict) {
	p.ways.each(Read, func(m *model) { m.arrival = f })
}

// Stats returns what has happened to the packets so far.
func (p *Port) Stats() Stats { return p.ways.stats() }

// deliver hands packets to Read.
func (p *Port) deliver(pkts []*packet) int {
	n, closed := p.rx.put(pkts, true)
	if closed {
		freeAll(pkts)
		return len(pkts)
	}
	p.sw.net.sched.mu.Lock()
	p.down.model.counts.Delivered += uint64(n)
	p.sw.net.sched.mu.Unlock()
	return n
}
