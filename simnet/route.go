package simnet

import (
	"net/netip"
	"slices"

	"bsdnet/netem"
)

// A domain is what is reached without a hop: the hosts at a link, or at connected switches.
type domain struct {
	networks []netip.Prefix
	nics     []*nic
}

// merge adds another domain's hosts and networks.
func (d *domain) merge(o *domain) {
	d.networks = append(slices.Clip(d.networks), o.networks...)
	d.nics = append(d.nics, o.nics...)
	for _, c := range o.nics {
		c.at = d
	}
}

// everywhere is the default route, of both families.
var everywhere = []netip.Prefix{
	netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0),
}

// A way is how a domain is reached from another: by a router's nic in the first.
type way struct {
	first *nic
	hops  int
}

// ways returns how other domains are reached from the given ones, by the fewest hops over routers.
// The first domains are reached by nil in 0 hops. Net.mu is held.
func (n *Net) ways(from ...*domain) (reached []*domain, by map[*domain]way) {
	by = map[*domain]way{}
	for _, d := range from {
		by[d] = way{}
	}
	reached = slices.Clone(from)
	for i := 0; i < len(reached); i++ {
		d := reached[i]
		for _, c := range d.nics {
			if !c.host.router {
				continue
			}
			for _, beyond := range c.host.nics {
				if _, known := by[beyond.at]; known {
					continue
				}
				first := by[d].first
				if first == nil {
					first = c
				}
				by[beyond.at] = way{first, by[d].hops + 1}
				reached = append(reached, beyond.at)
			}
		}
	}
	return reached, by
}

// nearest returns the nic of another host that is the fewest hops away, or nil. Net.mu is held.
func (h *Host) nearest(to *Host) (best *nic) {
	var mine []*domain
	for _, c := range h.nics {
		mine = append(mine, c.at)
		for _, o := range to.nics { // the usual case, without a search
			if o.at == c.at {
				return o
			}
		}
	}
	_, by := h.n.ways(mine...)
	hops := 0
	for _, c := range to.nics {
		if w, ok := by[c.at]; ok && (best == nil || w.hops < hops) {
			best, hops = c, w.hops
		}
	}
	return best
}

// settle sets the routes of hosts and switches, if the topology has changed.
func (n *Net) settle() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.stale {
		return
	}
	n.stale = false
	seen := map[*domain]bool{}
	for _, h := range n.hosts {
		n.routeHost(h)
		for _, c := range h.nics {
			if !seen[c.at] {
				seen[c.at] = true
				n.routeDomain(c.at)
			}
		}
	}
}

// routeDomain tells the routers' ports in a domain what is behind them.
func (n *Net) routeDomain(d *domain) {
	var routers []*nic
	for _, c := range d.nics {
		if c.host.router {
			routers = append(routers, c)
		}
	}
	if len(routers) == 0 {
		return
	}
	behind := map[*nic][]netip.Prefix{}
	if len(routers) == 1 {
		behind[routers[0]] = everywhere
	} else {
		reached, by := n.ways(d)
		for _, o := range reached[1:] {
			behind[by[o].first] = append(behind[by[o].first], o.networks...)
		}
	}
	for _, c := range routers {
		if c.port != nil {
			c.port.SetRoutes(behind[c])
		}
	}
}

// routeHost gives a host's stack its routes: over its only link, or over the link from which a
// network is the fewest hops away.
func (n *Net) routeHost(h *Host) {
	h.mu.Lock()
	s := h.stack
	h.mu.Unlock()
	if s == nil || len(h.nics) == 0 {
		return
	}
	want := map[netip.Prefix]*nic{}
	order := slices.Clone(everywhere)
	if len(h.nics) == 1 {
		for _, p := range everywhere {
			want[p] = h.nics[0]
		}
	} else {
		order = nil
		hops := map[netip.Prefix]int{}
		for _, c := range h.nics {
			reached, by := n.ways(c.at)
			for _, d := range reached {
				for _, p := range d.networks {
					if old := want[p]; old != nil && hops[p] <= by[d].hops {
						continue
					}
					if want[p] == nil {
						order = append(order, p)
					}
					want[p], hops[p] = c, by[d].hops
				}
			}
		}
		for _, c := range h.nics {
			for _, a := range c.addrs { // the stack has routes to its own networks
				delete(want, a.Masked())
			}
		}
	}
	for p, c := range h.routes {
		if want[p] != c {
			s.DelRoute(p, c.port)
			delete(h.routes, p)
		}
	}
	for _, p := range order {
		if c := want[p]; c != nil && h.routes[p] == nil && c.port != nil {
			if err := s.AddRoute(p, c.port); err != nil {
				n.t.Errorf("simnet: route of %s to %v: %v", h.name, p, err)
			}
			h.routes[p] = c
		}
	}
}

var _ ways = (*netem.Port)(nil)
