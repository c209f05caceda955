package simnet

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"bsdnet"
	"bsdnet/netem"
)

// maxEvents is how many events a Net remembers for its report.
const maxEvents = 400

// An event is something that has happened, for a report. Its text is made when it is printed.
type event struct {
	at   time.Duration
	text string

	// What has happened to a packet.
	packet netem.Packet
	kind   netem.EventKind
	why    string
	link   string

	// A connection of host has changed its state.
	host          *Host
	local, remote netip.AddrPort
	old, state    string
}

// events are the latest events, in a ring.
type events struct {
	start time.Time
	mu    sync.Mutex // a leaf
	ring  []event
	n     int // how many there have been
	over  bool
}

func newEvents(start time.Time) *events { return &events{start: start} }

func (v *events) add(at time.Time, e event) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.over {
		return
	}
	e.at = at.Sub(v.start)
	if last := v.n - 1; v.n > 0 && e.kind == netem.EventDropped {
		// What was worth a line when it was sent, and is dropped at once, has one line.
		if l := &v.ring[last%maxEvents]; l.at == e.at && l.link == e.link && l.kind == netem.EventSent &&
			l.text == "" && l.packet.Src == e.packet.Src && l.packet.Seq == e.packet.Seq {
			*l = e
			return
		}
	}
	if len(v.ring) < maxEvents {
		v.ring = append(v.ring, e)
	} else {
		v.ring[v.n%maxEvents] = e
	}
	v.n++
}

// note adds a line.
func (v *events) note(format string, args ...any) {
	v.add(time.Now(), event{text: fmt.Sprintf(format, args...)})
}

// state adds a change of a connection's state.
func (v *events) state(h *Host, e *bsdnet.TraceEvent) {
	v.add(time.Now(), event{host: h, local: e.Local, remote: e.Remote, old: e.Old, state: e.Name})
}

// end stops taking events.
func (v *events) end() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.over = true
}

// list returns the events in their order, and how many older ones are forgotten.
func (v *events) list() (list []event, forgotten int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	first := 0
	if v.n > maxEvents {
		first = v.n % maxEvents
	}
	list = append(slices.Clone(v.ring[first:]), v.ring[:first]...)
	// Goroutines of one instant add their events in any order.
	slices.SortStableFunc(list, func(a, b event) int {
		if a.at != b.at || a.host == nil || b.host == nil {
			return cmp.Compare(a.at, b.at)
		}
		return cmp.Compare(a.host.number, b.host.number)
	})
	return list, v.n - len(list)
}

// packet is what switches tell of their packets. The network is locked.
func (n *Net) packet(e *netem.Event) {
	c := n.nics[e.Link]
	if len(n.taps) > 0 && c != nil {
		n.tap(c, e)
	}
	switch {
	case e.Kind == netem.EventArrived, e.Kind == netem.EventSent && !n.notable(c, e):
		return
	}
	p := *e.Packet
	p.Data = nil
	why := e.Reason
	if why == "no port" {
		if to := n.owners[p.Dst.Addr()]; to != nil && to.down {
			why = to.name + " has crashed"
		} else {
			why = "no host has that address"
		}
	}
	link, _, _ := strings.Cut(e.Link, "@")
	n.events.add(e.Time, event{packet: p, kind: e.Kind, why: why, link: link})
}

// notable reports whether it is worth a line that a packet is sent: a retransmission or a reset,
// where it is sent first.
func (n *Net) notable(c *nic, e *netem.Event) bool {
	p := e.Packet
	return c != nil && e.Direction == netem.Write && n.owners[p.Src.Addr()] == c.host &&
		(p.Retransmission || p.Flags&netem.RST != 0)
}

// Logf adds a line to the trace that a failing test prints.
func (n *Net) Logf(format string, args ...any) { n.events.note(format, args...) }

// Report describes the network: the seed; what has happened so far, the latest few hundred events;
// the counters of the links; and the connections and listeners of the hosts. A failing test prints
// it when it ends.
//
// Events are cuts and other calls that change the network, packets that were dropped, copied,
// corrupted or held back, with the reason, retransmissions, resets, and changes of connections'
// states. Packets are in the notation of tcpdump, with names of hosts and relative sequence
// numbers. Times count from New. If a host sends a retransmission or a reset, that is an event too,
// also if the packet arrives.
func (n *Net) Report() string {
	var b strings.Builder
	fmt.Fprintf(&b, "simnet: seed %d; after %v; to repeat it, set simnet.Config{Seed: %d}\n",
		n.config.Seed, n.Elapsed(), n.config.Seed)
	name := n.namer()
	list, forgotten := n.events.list()
	if forgotten > 0 {
		fmt.Fprintf(&b, "%12s %d older events are left out\n", "", forgotten)
	}
	for _, e := range list {
		fmt.Fprintf(&b, "%12v %s\n", e.at, e.line(name))
	}
	n.mu.Lock()
	hosts, links := slices.Clone(n.hosts), slices.Clone(n.links)
	n.mu.Unlock()
	reportLinks(&b, links)
	reportHosts(&b, hosts, name)
	return b.String()
}

// namer returns a function that returns a host's name for its address.
func (n *Net) namer() func(netip.Addr) string {
	known := map[netip.Addr]string{}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, h := range n.hosts {
		for _, c := range h.nics {
			for _, a := range c.addrs {
				known[a.Addr()] = h.name
			}
		}
	}
	return func(a netip.Addr) string { return known[a] }
}

// line is the event as a line of a report.
func (e *event) line(name func(netip.Addr) string) string {
	switch {
	case e.text != "":
		return e.text
	case e.host != nil:
		return fmt.Sprintf("%s: %s > %s: %s -> %s", e.host.name,
			endpoint(e.local, name), endpoint(e.remote, name), e.old, e.state)
	}
	s := fmt.Sprintf("%s: %v %s", e.link, e.kind, e.packet.Notation(name))
	if e.why != "" {
		s += ": " + e.why
	}
	return s
}

func endpoint(a netip.AddrPort, name func(netip.Addr) string) string {
	if a.Addr().IsUnspecified() {
		return fmt.Sprintf("*.%d", a.Port())
	}
	if s := name(a.Addr().Unmap()); s != "" {
		return fmt.Sprintf("%s.%d", s, a.Port())
	}
	return a.String()
}

// describe is a path in a few words.
func describe(p netem.Path) string {
	if p.Write == p.Read {
		return fmt.Sprintf("%s both ways", oneWay(p.Write))
	}
	return fmt.Sprintf("%s, back %s", oneWay(p.Write), oneWay(p.Read))
}

func oneWay(i netem.Impairment) string {
	var list []string
	add := func(set bool, format string, args ...any) {
		if set {
			list = append(list, fmt.Sprintf(format, args...))
		}
	}
	add(i.Delay > 0, "delay %v", i.Delay)
	add(i.Jitter > 0, "jitter %v", i.Jitter)
	add(i.Loss > 0, "loss %v", i.Loss)
	add(i.Burst != nil, "bursts")
	add(i.Duplicate > 0, "duplicate %v", i.Duplicate)
	add(i.Corrupt > 0, "corrupt %v", i.Corrupt)
	add(i.Reorder > 0, "reorder %v", i.Reorder)
	add(i.Rate > 0, "rate %d bit/s", i.Rate)
	if len(list) == 0 {
		return "no impairment"
	}
	return strings.Join(list, ", ")
}

// reportLinks prints the counters of links that have carried something.
func reportLinks(b *strings.Builder, links []*Link) {
	const most = 60
	printed := 0
	for _, l := range links {
		s := l.Stats()
		l.n.mu.Lock()
		cuts := l.cuts
		l.n.mu.Unlock()
		if s.Write.Packets+s.Read.Packets == 0 && cuts == 0 {
			continue
		}
		if printed++; printed > most {
			b.WriteString("… and more links\n")
			return
		}
		fmt.Fprintf(b, "link %s: %s; back: %s", l.name, counts(s.Write), counts(s.Read))
		if cuts != 0 {
			b.WriteString("; it is cut")
		}
		b.WriteByte('\n')
	}
}

func counts(c netem.Counts) string {
	s := fmt.Sprintf("%d packets", c.Packets)
	for _, f := range []struct {
		n    uint64
		name string
	}{{c.Lost, "lost"}, {c.Cut, "cut"}, {c.Filtered, "filtered"}, {c.Dropped, "dropped"}, {c.Duplicated, "duplicated"},
		{c.Corrupted, "corrupted"}, {c.Reordered, "held back"}} {
		if f.n > 0 {
			s += fmt.Sprintf(", %d %s", f.n, f.name)
		}
	}
	return s
}

// reportHosts prints the listeners and connections of hosts, first those connections of a host with
// which something is amiss.
func reportHosts(b *strings.Builder, hosts []*Host, name func(netip.Addr) string) {
	const perHost, most = 10, 100
	printed := 0
	for _, h := range hosts {
		s := h.Stack()
		if s == nil {
			fmt.Fprintf(b, "host %s has crashed\n", h.name)
			continue
		}
		list := s.Conns()
		slices.SortStableFunc(list, func(x, y bsdnet.ConnInfo) int { return cmp.Compare(amiss(&y), amiss(&x)) })
		if len(list) == 0 {
			continue
		}
		if printed >= most {
			b.WriteString("… and more hosts\n")
			return
		}
		fmt.Fprintf(b, "host %s:\n", h.name)
		for i, c := range list {
			if i == perHost {
				fmt.Fprintf(b, "\t… and %d more\n", len(list)-i)
				break
			}
			fmt.Fprintf(b, "\t%s\n", connLine(&c, name))
			printed++
		}
	}
}

// amiss says how much a connection deserves to be seen.
func amiss(c *bsdnet.ConnInfo) int {
	switch {
	case c.Backoff > 0:
		return 4
	case c.SendQueue > 0 || c.RecvQueue > 0:
		return 3
	case c.State == "LISTEN":
		return 2
	case c.State != "ESTABLISHED":
		return 1
	}
	return 0
}

// connLine describes a connection or listener in a line.
func connLine(c *bsdnet.ConnInfo, name func(netip.Addr) string) string {
	var b strings.Builder
	b.WriteString(endpoint(c.Local, name))
	if c.Remote.Port() != 0 {
		fmt.Fprintf(&b, " > %s", endpoint(c.Remote, name))
	}
	fmt.Fprintf(&b, " %s", c.State)
	for _, f := range []struct {
		n    int
		text string
	}{{c.RecvQueue, "%d bytes not read"}, {c.SendQueue, "%d bytes not acknowledged"},
		{c.Retransmits, "%d segments sent again"}, {c.Backoff, "%d time-outs without progress"}} {
		if f.n > 0 {
			fmt.Fprintf(&b, ", "+f.text, f.n)
		}
	}
	if c.Backoff > 0 {
		fmt.Fprintf(&b, ", RTO %v", c.RTO)
	}
	return b.String()
}
