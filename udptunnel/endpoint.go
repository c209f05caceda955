package udptunnel

import (
	"net"
	"net/netip"
)

// An endpoint is where an end of the tunnel receives datagrams: an address and port of UDP, or an
// address of another transport that [Config.Conn] has. The zero endpoint is no address.
type endpoint struct {
	netip.AddrPort
	other net.Addr // if it is not nil, AddrPort is the zero value
}

// udp returns the endpoint of an address and port of UDP.
func udp(a netip.AddrPort) endpoint { return endpoint{AddrPort: unmap(a)} }

// endpointOf returns the endpoint of an address that a net.PacketConn has returned.
func endpointOf(a net.Addr) endpoint {
	switch a := a.(type) {
	case nil:
		return endpoint{}
	case *net.UDPAddr:
		if a == nil {
			return endpoint{}
		}
		return udp(a.AddrPort())
	}
	return endpoint{other: a}
}

// IsValid reports whether e is an address.
func (e endpoint) IsValid() bool { return e.other != nil || e.AddrPort.IsValid() }

// is reports whether two endpoints are the same. Two addresses of another transport are if they
// have the same network and text: their types may not be comparable.
func (e endpoint) is(f endpoint) bool {
	if e.other == nil || f.other == nil {
		return e.other == nil && f.other == nil && e.AddrPort == f.AddrPort
	}
	return e.other.Network() == f.other.Network() && e.other.String() == f.other.String()
}

// String returns the address as the Conn's transport writes it.
func (e endpoint) String() string {
	if e.other != nil {
		return e.other.String()
	}
	return e.AddrPort.String()
}

// netAddr returns the address for the WriteTo of a net.PacketConn.
func (e endpoint) netAddr() net.Addr {
	switch {
	case e.other != nil:
		return e.other
	case e.AddrPort.IsValid():
		return net.UDPAddrFromAddrPort(e.AddrPort)
	}
	return nil
}

// headers returns the length in bytes of the IP and UDP headers of a datagram to e. An unknown
// transport is taken for UDP over IPv6.
func (e endpoint) headers() int {
	if e.Addr().Is4() {
		return overIPv4
	}
	return overIPv6
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
