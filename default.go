package bsdnet

import (
	"context"
	"net"
	"sync"
	"time"
)

var firstUse struct {
	sync.Once
	s   *Stack
	err error
}

// defaultStack returns the default stack, and makes it if this is its first use.
func defaultStack() (*Stack, error) {
	firstUse.Do(func() { firstUse.s, firstUse.err = New(Config{}) })
	return firstUse.s, firstUse.err
}

// Listen is [Stack.Listen] on the default stack. In a testing/synctest bubble use a stack made
// there, by [New].
func Listen(network, address string) (net.Listener, error) {
	s, err := defaultStack()
	if err != nil {
		return nil, err
	}
	return s.Listen(network, address)
}

// Dial is [Stack.Dial] on the default stack. In a testing/synctest bubble use a stack made there,
// by [New].
func Dial(network, address string) (net.Conn, error) {
	return DialContext(context.Background(), network, address)
}

// DialContext is [Stack.DialContext] on the default stack. In a testing/synctest bubble use a stack
// made there, by [New].
func DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	s, err := defaultStack()
	if err != nil {
		return nil, err
	}
	return s.DialContext(ctx, network, address)
}

// DialTimeout is [Stack.DialTimeout] on the default stack. In a testing/synctest bubble use a stack
// made there, by [New].
func DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	return (&Dialer{Timeout: timeout}).Dial(network, address)
}

// ListenPacket is [Stack.ListenPacket] on the default stack. In a testing/synctest bubble use a
// stack made there, by [New].
func ListenPacket(network, address string) (net.PacketConn, error) {
	return new(ListenConfig).ListenPacket(context.Background(), network, address)
}

// ListenUDP is [Stack.ListenUDP] on the default stack. In a testing/synctest bubble use a stack
// made there, by [New].
func ListenUDP(network string, laddr *net.UDPAddr) (*UDPConn, error) {
	s, err := defaultStack()
	if err != nil {
		return nil, err
	}
	return s.ListenUDP(network, laddr)
}

// ListenMulticastUDP is [Stack.ListenMulticastUDP] on the default stack. In a testing/synctest
// bubble use a stack made there, by [New].
func ListenMulticastUDP(network string, ifi *net.Interface, gaddr *net.UDPAddr) (*UDPConn, error) {
	s, err := defaultStack()
	if err != nil {
		return nil, err
	}
	return s.ListenMulticastUDP(network, ifi, gaddr)
}

// DialUDP is [Stack.DialUDP] on the default stack. In a testing/synctest bubble use a stack made
// there, by [New].
func DialUDP(network string, laddr, raddr *net.UDPAddr) (*UDPConn, error) {
	return new(Dialer).dialUDP(context.Background(), network, laddr, raddr)
}

// ListenIP is [Stack.ListenIP] on the default stack. In a testing/synctest bubble use a stack made
// there, by [New].
func ListenIP(network string, laddr *net.IPAddr) (*IPConn, error) {
	s, err := defaultStack()
	if err != nil {
		return nil, err
	}
	return s.ListenIP(network, laddr)
}

// DialIP is [Stack.DialIP] on the default stack. In a testing/synctest bubble use a stack made
// there, by [New].
func DialIP(network string, laddr, raddr *net.IPAddr) (*IPConn, error) {
	return new(Dialer).dialIP(context.Background(), network, laddr, raddr)
}

// DialTCP is [Stack.DialTCP] on the default stack. In a testing/synctest bubble use a stack made
// there, by [New].
func DialTCP(network string, laddr, raddr *net.TCPAddr) (*TCPConn, error) {
	return new(Dialer).dialTCP(context.Background(), network, laddr, raddr)
}

// ListenTCP is [Stack.ListenTCP] on the default stack. In a testing/synctest bubble use a stack
// made there, by [New].
func ListenTCP(network string, laddr *net.TCPAddr) (*TCPListener, error) {
	s, err := defaultStack()
	if err != nil {
		return nil, err
	}
	return s.ListenTCP(network, laddr)
}
