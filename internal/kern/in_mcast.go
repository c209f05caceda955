package kern

import "net/netip"

// Multicast: RFC 1112 and RFC 3493, 5.2.

// An ipMoptions holds a socket's options of multicast: BSD's struct ip_moptions.
type ipMoptions struct {
	groups []membership
}

// A membership is a group that a socket has joined on an interface.
type membership struct {
	group netip.Addr
	ifp   *Ifnet
}

// wantsGroup reports whether the socket takes datagrams to t.laddr that come from an interface: a
// broadcast, or a group that it has joined there. The socket is locked.
func (so *Socket) wantsGroup(t *tuple, ifp *Ifnet) bool {
	g := t.laddr.addr()
	if !g.IsMulticast() {
		return true
	}
	if so.dg.mo == nil {
		return false
	}
	for i := range so.dg.mo.groups {
		if e := &so.dg.mo.groups[i]; e.group == g && e.ifp == ifp {
			return true
		}
	}
	return false
}
