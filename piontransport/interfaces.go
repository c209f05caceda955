package piontransport

import (
	"fmt"
	"net"

	"github.com/pion/transport/v3"
)

// Interfaces returns the stack's interfaces, with their addresses. Their indices count from 1, in
// the order of attachment, as long as none is detached.
func (n *Net) Interfaces() ([]*transport.Interface, error) {
	var list []*transport.Interface
	for i, s := range n.s.Stats().Interfaces {
		flags := net.FlagMulticast
		if s.Link == nil {
			flags = net.FlagLoopback
		}
		if s.Up {
			flags |= net.FlagUp | net.FlagRunning
		}
		ifc := transport.NewInterface(net.Interface{Index: i + 1, MTU: s.MTU, Name: s.Name, Flags: flags})
		for _, p := range s.Addrs {
			ifc.AddAddress(&net.IPNet{
				IP:   p.Addr().AsSlice(),
				Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen()),
			})
		}
		list = append(list, ifc)
	}
	return list, nil
}

// InterfaceByIndex returns one of [Net.Interfaces] by its index. If there is none, the error wraps
// transport.ErrInterfaceNotFound.
func (n *Net) InterfaceByIndex(index int) (*transport.Interface, error) {
	list, _ := n.Interfaces()
	for _, ifc := range list {
		if ifc.Index == index {
			return ifc, nil
		}
	}
	return nil, fmt.Errorf("piontransport: interface %d: %w", index, transport.ErrInterfaceNotFound)
}

// InterfaceByName returns one of [Net.Interfaces] by its name, such as "lo0". If there is none, the
// error wraps transport.ErrInterfaceNotFound.
func (n *Net) InterfaceByName(name string) (*transport.Interface, error) {
	list, _ := n.Interfaces()
	for _, ifc := range list {
		if ifc.Name == name {
			return ifc, nil
		}
	}
	return nil, fmt.Errorf("piontransport: interface %q: %w", name, transport.ErrInterfaceNotFound)
}
