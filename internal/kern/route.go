package kern

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"syscall"
)

// A rtentry is a route: packets to dst leave by ifp.
type rtentry struct {
	dst netip.Prefix
	ifp *Ifnet
	src netip.Addr // the local address to use; invalid: the interface's
}

// rtable is the routing table, longest prefix first; it is replaced as a whole, so readers take no lock.
type rtable struct {
	tab atomic.Pointer[[]rtentry]
}

func (rt *rtable) load() []rtentry {
	if p := rt.tab.Load(); p != nil {
		return *p
	}
	return nil
}

// rtadd adds a route: BSD's rtrequest(RTM_ADD). EEXIST where the prefix has one. The caller serialises changes.
func (rt *rtable) rtadd(e rtentry) error {
	e.dst = e.dst.Masked()
	old := rt.load()
	for _, o := range old {
		if o.dst == e.dst {
			return syscall.EEXIST
		}
	}
	tab := append(slices.Clone(old), e)
	slices.SortStableFunc(tab, func(a, b rtentry) int { return b.dst.Bits() - a.dst.Bits() })
	rt.tab.Store(&tab)
	return nil
}

// rtdelif removes the routes of an interface.
func (rt *rtable) rtdelif(ifp *Ifnet) {
	tab := slices.DeleteFunc(slices.Clone(rt.load()), func(e rtentry) bool { return e.ifp == ifp })
	rt.tab.Store(&tab)
}

// rtalloc finds the interface that leads to dst, the longest prefix first, and the local address that such packets bear: BSD's rtalloc
// and the choice of in_pcbconnect. Packets to one of our own addresses go over the loopback.
func (k *Kernel) rtalloc(dst netip.Addr) (ifp *Ifnet, src netip.Addr, errno syscall.Errno) {
	k.chainAt("rtalloc")
	if k.lo0 != nil && k.ifaWithAddr(dst) != nil {
		return k.lo0, dst, 0
	}
	for _, e := range k.routes.load() {
		if e.dst.Contains(dst) {
			src := e.src
			if !src.IsValid() {
				src = e.ifp.addrFor(dst)
			}
			if !src.IsValid() {
				continue
			}
			return e.ifp, src, 0
		}
	}
	return nil, netip.Addr{}, syscall.EHOSTUNREACH
}

// ifaWithAddr returns the interface that has address a: BSD's ifa_ifwithaddr. All of the loopback's prefix is ours.
func (k *Kernel) ifaWithAddr(a netip.Addr) *Ifnet {
	for _, ifp := range *k.ifs.Load() {
		if ifp.owns(a) {
			return ifp
		}
	}
	return nil
}
