package piontransport

import "net"

// ResolveIPAddr is the stack's.
func (n *Net) ResolveIPAddr(network, address string) (*net.IPAddr, error) {
	return n.s.ResolveIPAddr(network, address)
}

// ResolveUDPAddr is the stack's.
func (n *Net) ResolveUDPAddr(network, address string) (*net.UDPAddr, error) {
	return n.s.ResolveUDPAddr(network, address)
}

// ResolveTCPAddr is the stack's.
func (n *Net) ResolveTCPAddr(network, address string) (*net.TCPAddr, error) {
	return n.s.ResolveTCPAddr(network, address)
}
