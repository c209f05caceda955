package simnet

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"bsdnet/netem"
)

// Partition separates groups of hosts: packets from a host of one group to a host of another are
// lost, in both directions, until [Net.Heal]. Hosts in no group are not affected. A packet is lost
// if the partition is there when the packet is sent, or when it would arrive. Further calls of
// Partition and [Net.Block] add to what is separated.
func (n *Net) Partition(groups ...[]*Host) {
	n.apply(func() {
		for i, a := range groups {
			for j, b := range groups {
				if i != j {
					n.block(a, b)
				}
			}
		}
	})
	var list []string
	for _, g := range groups {
		list = append(list, names(g))
	}
	n.events.note("partition: %s", strings.Join(list, " | "))
}

// Block makes packets from the hosts of one group to those of another get lost, and leaves the
// other direction as it is: half of [Net.Partition].
func (n *Net) Block(from, to []*Host) {
	n.apply(func() { n.block(from, to) })
	n.events.note("block: %s -> %s", names(from), names(to))
}

func (n *Net) block(from, to []*Host) {
	for _, a := range from {
		for _, b := range to {
			if a != b {
				n.blocked[[2]*Host{a, b}] = true
			}
		}
	}
}

// Heal ends the effect of all calls of [Net.Partition], [Net.Block], [Host.Cut], [Link.Cut] and
// [Link.CutFrom] so far. It does not restart hosts, and leaves paths and rules as they are.
func (n *Net) Heal() {
	n.mu.Lock()
	hosts, links := n.hosts, n.links
	n.mu.Unlock()
	n.apply(func() {
		clear(n.blocked)
		for _, h := range hosts {
			h.severed = false
		}
	})
	for _, l := range links {
		l.heal()
	}
	n.events.note("all is healed")
}

// names lists hosts, the first dozen of them by name.
func names(hosts []*Host) string {
	const most = 12
	var b strings.Builder
	for i, h := range hosts {
		if i == most {
			fmt.Fprintf(&b, " and %d more", len(hosts)-most)
			break
		}
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(h.name)
	}
	return b.String()
}

// A Match chooses packets. The functions [SYN], [FIN], [Data] and so on are Matches, [From], [To]
// and [Port] make some, and [All], [Nth] and [First] make one of others; a test can write its own.
// A Match is called with a lock of the network held, so it must return soon and must not call the
// network; what it sees is valid during the call only.
type Match func(p *netem.Packet) bool

// SYN matches the first packet of a handshake: it has SYN and no ACK.
func SYN(p *netem.Packet) bool { return p.Flags&(netem.SYN|netem.ACK) == netem.SYN }

// SYNACK matches the second packet of a handshake, the server's answer to a SYN.
func SYNACK(p *netem.Packet) bool {
	return p.Flags&(netem.SYN|netem.ACK) == netem.SYN|netem.ACK
}

// FIN matches a packet with a FIN, which closes one direction of a connection. It may have data as
// well.
func FIN(p *netem.Packet) bool { return p.Flags&netem.FIN != 0 }

// RST matches a reset.
func RST(p *netem.Packet) bool { return p.Flags&netem.RST != 0 }

// Data matches a TCP packet that carries data.
func Data(p *netem.Packet) bool { return p.Proto == protoTCP && p.Payload > 0 }

// ACK matches a bare acknowledgment: no data, no SYN, no FIN and no RST.
func ACK(p *netem.Packet) bool {
	return p.Payload == 0 && p.Flags&(netem.ACK|netem.SYN|netem.FIN|netem.RST) == netem.ACK
}

// Retransmission matches a packet that is sent again: see [netem.Packet].
func Retransmission(p *netem.Packet) bool { return p.Retransmission }

const protoTCP = 6

// From returns a Match for packets whose source is an address of a host.
func From(h *Host) Match { return func(p *netem.Packet) bool { return h.n.owners[p.Src.Addr()] == h } }

// To returns a Match for packets whose destination is an address of a host.
func To(h *Host) Match { return func(p *netem.Packet) bool { return h.n.owners[p.Dst.Addr()] == h } }

// Port returns a Match for packets whose source or destination has a port number.
func Port(port uint16) Match {
	return func(p *netem.Packet) bool { return p.Src.Port() == port || p.Dst.Port() == port }
}

// All returns a Match for packets that each of some matches. It asks them in their order, and stops
// at the first that does not match.
func All(matches ...Match) Match {
	return func(p *netem.Packet) bool {
		for _, m := range matches {
			if !m(p) {
				return false
			}
		}
		return true
	}
}

// Nth returns a Match for the k-th packet, counting from 1, that m matches, and for no other. Give
// it to one rule only, because it counts the packets that it is asked about.
func Nth(k int, m Match) Match {
	seen := 0
	return func(p *netem.Packet) bool {
		if !m(p) {
			return false
		}
		seen++
		return seen == k
	}
}

// First returns a Match for the first k packets that m matches. Give it to one rule only, because
// it counts the packets that it is asked about.
func First(k int, m Match) Match {
	seen := 0
	return func(p *netem.Packet) bool {
		if seen >= k || !m(p) {
			return false
		}
		seen++
		return true
	}
}

// A Rule does something to packets that a [Match] chooses: see [Net.Drop] and the like. It stays
// until Stop.
type Rule struct {
	n       *Net
	list    *[]*Rule
	match   Match
	verdict netem.Verdict
	hits    atomic.Int64
}

// Hits returns how many packets the rule has changed or dropped. A packet is counted 1 ns after it
// was sent, so what has been sent in the present instant may be missing.
func (r *Rule) Hits() int { return int(r.hits.Load()) }

// Stop ends the rule.
func (r *Rule) Stop() {
	r.n.apply(func() {
		for i, o := range *r.list {
			if o == r {
				*r.list = append((*r.list)[:i:i], (*r.list)[i+1:]...)
				return
			}
		}
	})
}

// Drop drops each packet that m matches, of those that any host sends. A packet is looked at once,
// when the network takes it from the host that sends it first, so that [netem.Packet] shows its
// place among all that the host has sent in its flow, and Nth counts exactly:
//
//	n.Drop(simnet.Nth(1, simnet.SYN))                    // the first SYN in the network
//	n.Drop(simnet.Nth(2, simnet.All(simnet.From(server), simnet.Data)))
//	n.Drop(simnet.First(3, simnet.Retransmission))
//
// Rules are asked in the order in which they were made, and the first that matches decides.
func (n *Net) Drop(m Match) *Rule {
	return n.rule(&n.rules, m, netem.Verdict{Drop: true, Reason: "rule"})
}

// Delay holds each packet that m matches back for an additional time, up to 24 hours, so that later
// packets overtake it. In all else it is [Net.Drop].
func (n *Net) Delay(m Match, d time.Duration) *Rule {
	return n.rule(&n.rules, m, netem.Verdict{Delay: d, Reason: "rule"})
}

// Duplicate makes copies, up to 16, of each packet that m matches. They arrive directly behind the
// packet. In all else it is [Net.Drop].
func (n *Net) Duplicate(m Match, copies int) *Rule {
	return n.rule(&n.rules, m, netem.Verdict{Duplicates: copies, Reason: "rule"})
}

// Drop is [Net.Drop] for packets that come to the link, in either direction, also those that other
// nodes have sent or forwarded.
func (l *Link) Drop(m Match) *Rule {
	return l.n.rule(&l.rules, m, netem.Verdict{Drop: true, Reason: "rule of " + l.name})
}

// Delay is [Net.Delay] for packets that come to the link, as [Link.Drop] has them.
func (l *Link) Delay(m Match, d time.Duration) *Rule {
	return l.n.rule(&l.rules, m, netem.Verdict{Delay: d, Reason: "rule of " + l.name})
}

// Duplicate is [Net.Duplicate] for packets that come to the link, as [Link.Drop] has them.
func (l *Link) Duplicate(m Match, copies int) *Rule {
	return l.n.rule(&l.rules, m, netem.Verdict{Duplicates: copies, Reason: "rule of " + l.name})
}

func (n *Net) rule(list *[]*Rule, m Match, v netem.Verdict) *Rule {
	n.t.Helper()
	if m == nil {
		n.t.Fatal("simnet: a rule needs a Match; use func(*netem.Packet) bool { return true } for all packets")
	}
	r := &Rule{n: n, list: list, match: m, verdict: v}
	n.apply(func() { *list = append(*list, r) })
	return r
}

// judge asks rules about a packet.
func judge(rules []*Rule, p *netem.Packet) netem.Verdict {
	for _, r := range rules {
		if r.match(p) {
			r.hits.Add(1)
			return r.verdict
		}
	}
	return netem.Verdict{}
}

func drop(format string, args ...any) netem.Verdict {
	return netem.Verdict{Drop: true, Reason: fmt.Sprintf(format, args...)}
}

// sends decides about a packet that the host of c sends on its link. The network is locked.
func (c *nic) sends(p *netem.Packet) netem.Verdict {
	n, h := c.host.n, c.host
	switch {
	case h.down:
		return drop("%s has crashed", h.name)
	case h.severed:
		return drop("%s is cut off", h.name)
	}
	v := netem.Verdict{}
	if from := n.owners[p.Src.Addr()]; from == h || from == nil {
		if to := n.owners[p.Dst.Addr()]; len(n.blocked) > 0 && n.blocked[[2]*Host{h, to}] {
			return drop("partition")
		}
		v = judge(n.rules, p)
	}
	if v == (netem.Verdict{}) {
		v = c.link.decide(p)
	}
	return v
}

// receives decides about a packet that comes to the link of c from a switch. A link between two
// hosts has had the packet already.
func (c *nic) receives(p *netem.Packet) netem.Verdict {
	if _, host := c.link.a.(*Host); host {
		if _, host := c.link.b.(*Host); host {
			return netem.Verdict{}
		}
	}
	return c.link.decide(p)
}

// decide asks the link's rules.
func (l *Link) decide(p *netem.Packet) netem.Verdict { return judge(l.rules, p) }

// arrives decides about a packet that has come to the host.
func (c *nic) arrives(p *netem.Packet) netem.Verdict {
	n, h := c.host.n, c.host
	switch {
	case h.down:
		return drop("%s has crashed", h.name)
	case h.severed:
		return drop("%s is cut off", h.name)
	case len(n.blocked) > 0 && n.blocked[[2]*Host{n.owners[p.Src.Addr()], h}]:
		return drop("partition")
	}
	return netem.Verdict{}
}
