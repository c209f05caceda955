// Package piontransport gives a stack to the libraries of Pion (WebRTC, ICE, TURN and others) as
// their network: a transport.Net of github.com/pion/transport/v3.
//
//	settings := webrtc.SettingEngine{}
//	settings.SetNet(piontransport.New(stack))
//	api := webrtc.NewAPI(webrtc.WithSettingEngine(settings))
//
// What the stack does not have, such as the networks "unix" and "unixgram", fails with an error
// that wraps transport.ErrNotSupported.
package piontransport

import (
	"fmt"
	"net"
	"strings"

	"github.com/pion/transport/v3"

	"bsdnet"
)

// A Net is the network of a [bsdnet.Stack]. It implements transport.Net. Its errors are those of
// the Stack's functions of the same names.
type Net struct {
	s *bsdnet.Stack
}

var _ transport.Net = (*Net)(nil)

// New returns the network of stack, which stays the caller's to close.
func New(stack *bsdnet.Stack) *Net { return &Net{stack} }

// families are the networks that a stack has, without the protocol of "ip4:icmp" and the like.
var families = []string{"tcp", "tcp4", "tcp6", "udp", "udp4", "udp6", "ip", "ip4", "ip6"}

// check returns an error if the stack does not have the network.
func check(network string) error {
	family, _, _ := strings.Cut(network, ":")
	for _, f := range families {
		if f == family {
			return nil
		}
	}
	return fmt.Errorf("piontransport: network %q: %w", network, transport.ErrNotSupported)
}

// ListenPacket is [bsdnet.Stack.ListenPacket].
func (n *Net) ListenPacket(network, address string) (net.PacketConn, error) {
	if err := check(network); err != nil {
		return nil, err
	}
	return n.s.ListenPacket(network, address)
}

// ListenUDP is [bsdnet.Stack.ListenUDP].
func (n *Net) ListenUDP(network string, laddr *net.UDPAddr) (transport.UDPConn, error) {
	c, err := n.s.ListenUDP(network, laddr)
	if err != nil {
		return nil, err // not a nil *UDPConn in an interface
	}
	return c, nil
}

// ListenTCP is [bsdnet.Stack.ListenTCP].
func (n *Net) ListenTCP(network string, laddr *net.TCPAddr) (transport.TCPListener, error) {
	l, err := n.s.ListenTCP(network, laddr)
	if err != nil {
		return nil, err
	}
	return listener{l}, nil
}

// A listener is a TCPListener whose AcceptTCP has the type that Pion expects.
type listener struct {
	*bsdnet.TCPListener
}

// AcceptTCP waits for a connection, and returns it.
func (l listener) AcceptTCP() (transport.TCPConn, error) {
	c, err := l.TCPListener.AcceptTCP()
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Dial is [bsdnet.Stack.Dial].
func (n *Net) Dial(network, address string) (net.Conn, error) {
	if err := check(network); err != nil {
		return nil, err
	}
	return n.s.Dial(network, address)
}

// DialUDP is [bsdnet.Stack.DialUDP].
func (n *Net) DialUDP(network string, laddr, raddr *net.UDPAddr) (transport.UDPConn, error) {
	c, err := n.s.DialUDP(network, laddr, raddr)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// DialTCP is [bsdnet.Stack.DialTCP].
func (n *Net) DialTCP(network string, laddr, raddr *net.TCPAddr) (transport.TCPConn, error) {
	c, err := n.s.DialTCP(network, laddr, raddr)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// A dialer dials on a stack with the settings of a net.Dialer.
type dialer struct {
	bsdnet.Dialer
}

// Dial connects to an address.
func (d dialer) Dial(network, address string) (net.Conn, error) {
	if err := check(network); err != nil {
		return nil, err
	}
	return d.Dialer.Dial(network, address)
}

// CreateDialer returns a dialer on the stack that has the time limits, local address, fallback
// delay, resolver and keep-alive settings of d. Control, ControlContext and Cancel have no meaning
// here, and are ignored.
func (n *Net) CreateDialer(d *net.Dialer) transport.Dialer {
	return dialer{bsdnet.Dialer{
		Stack: n.s, Timeout: d.Timeout, Deadline: d.Deadline, LocalAddr: d.LocalAddr, FallbackDelay: d.FallbackDelay,
		Resolver: d.Resolver, KeepAlive: d.KeepAlive, KeepAliveConfig: d.KeepAliveConfig,
	}}
}

// ResolveIPAddr is [bsdnet.Stack.ResolveIPAddr].
func (n *Net) ResolveIPAddr(network, address string) (*net.IPAddr, error) {
	return n.s.ResolveIPAddr(network, address)
}

// ResolveUDPAddr is [bsdnet.Stack.ResolveUDPAddr].
func (n *Net) ResolveUDPAddr(network, address string) (*net.UDPAddr, error) {
	return n.s.ResolveUDPAddr(network, address)
}

// ResolveTCPAddr is [bsdnet.Stack.ResolveTCPAddr].
func (n *Net) ResolveTCPAddr(network, address string) (*net.TCPAddr, error) {
	return n.s.ResolveTCPAddr(network, address)
}
