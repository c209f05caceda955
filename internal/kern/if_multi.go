package kern

import "sync"

// A group is joined on an interface, by one socket or several.

// inMulti counts the sockets that have joined each group on an interface: BSD's in_multihead and
// in6_multihead. Addresses of IPv4 are mapped.
type inMulti struct {
	mu     sync.RWMutex // a leaf
	groups map[in6Addr]int
}

// join notes that a socket has joined a group: BSD's in_addmulti and in6_addmulti.
func (ifp *Ifnet) join(group in6Addr) {
	g := &ifp.multi
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.groups == nil {
		g.groups = map[in6Addr]int{}
	}
	g.groups[group]++
}

// leave notes that a socket has left a group: BSD's in_delmulti and in6_delmulti.
func (ifp *Ifnet) leave(group in6Addr) {
	g := &ifp.multi
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.groups[group]--; g.groups[group] <= 0 {
		delete(g.groups, group)
	}
}

// joined reports whether a socket has joined a group: BSD's IN_LOOKUP_MULTI and IN6_LOOKUP_MULTI.
func (ifp *Ifnet) joined(group in6Addr) bool {
	g := &ifp.multi
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.groups[group] > 0
}
