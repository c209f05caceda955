package bsdnet

import (
	"context"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"bsdnet/internal/kern"
)

// A TCPListener is a listening socket: a [net.Listener] with the methods of [net.TCPListener],
// except SyscallConn, which would give access to a file descriptor; a TCPListener has none.
type TCPListener struct {
	so        *kern.Socket
	network   string
	laddr     *net.TCPAddr
	keepAlive net.KeepAliveConfig
	keepSet   bool // keepAlive is not the default
}

var _ net.Listener = (*TCPListener)(nil)

// Accept waits for a connection, and returns it. If the listener is closed, the error wraps
// net.ErrClosed.
func (l *TCPListener) Accept() (net.Conn, error) {
	c, err := l.AcceptTCP()
	if err != nil {
		return nil, err // not a nil *TCPConn in an interface
	}
	return c, nil
}

// AcceptTCP is Accept, and returns a *TCPConn.
func (l *TCPListener) AcceptTCP() (*TCPConn, error) {
	so, errno := l.so.Soaccept()
	if errno != 0 {
		return nil, l.opErrno("accept", "accept", errno)
	}
	c := newTCPConn(so, l.network)
	if l.keepSet {
		setKeepAlive(so, l.keepAlive, func(level, name, val int) error { so.Sosetopt(level, name, val); return nil })
	}
	return c, nil
}

func (l *TCPListener) opErrno(op, call string, errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return &net.OpError{Op: op, Net: l.network, Addr: l.laddr, Err: sysError(call, errno)}
}

// Close stops listening. Blocked calls of Accept return net.ErrClosed, and connections that have
// not been accepted are reset.
func (l *TCPListener) Close() error { return l.opErrno("close", "close", l.so.Soclose()) }

// Addr returns the address, a *net.TCPAddr.
func (l *TCPListener) Addr() net.Addr { return l.laddr }

// SetDeadline sets the deadline of Accept, including blocked calls, which then fail with
// os.ErrDeadlineExceeded. The zero time means none.
func (l *TCPListener) SetDeadline(t time.Time) error {
	return l.opErrno("set", "set", l.so.SetDeadlines(&t, nil))
}

// File fails, as there is no file descriptor: the error wraps syscall.EOPNOTSUPP, which
// errors.ErrUnsupported matches, or net.ErrClosed after Close.
func (l *TCPListener) File() (*os.File, error) {
	return nil, l.opErrno("file", "dup", noFile(l.so))
}

// A ListenConfig has the options of listening: net.ListenConfig for a [Stack].
type ListenConfig struct {
	// Stack is the stack to listen on. If it is nil, it is the default stack.
	Stack *Stack

	// KeepAlive is the keep-alive period of accepted connections. If it is 0, the period is 15 s;
	// if it is negative, keep-alive probes are disabled. It is ignored if KeepAliveConfig.Enable is
	// true.
	KeepAlive time.Duration

	// KeepAliveConfig configures the keep-alive probes of accepted connections if its Enable is
	// true.
	KeepAliveConfig net.KeepAliveConfig

	// ReusePort sets SO_REUSEPORT: sockets that have it, and listeners that have it, can share an
	// address.
	ReusePort bool
}

// stack returns the stack to listen on.
func (lc *ListenConfig) stack() (*Stack, error) {
	if lc.Stack == nil {
		return defaultStack()
	}
	return lc.Stack, nil
}

// Listen is net.ListenConfig.Listen. If ctx ends while the address is being resolved, Listen fails;
// later, ctx has no effect.
func (lc *ListenConfig) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	s, err := lc.stack()
	if err != nil {
		return nil, err
	}
	if address == "" {
		address = ":0"
	}
	var few [1]netip.AddrPort
	list, err := s.internetAddrList(ctx, nil, network, address, few[:0])
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Err: err}
	}
	a := preferIPv4(list)
	if isUDP(network) {
		return nil, &net.OpError{Op: "listen", Net: network, Addr: net.UDPAddrFromAddrPort(a),
			Err: &net.AddrError{Err: "unexpected address type", Addr: address}}
	}
	l, err := s.listen(network, a, lc.ReusePort)
	if err != nil {
		return nil, err
	}
	switch {
	case lc.KeepAliveConfig.Enable:
		l.keepAlive, l.keepSet = lc.KeepAliveConfig, true
	case lc.KeepAlive < 0:
		l.keepAlive, l.keepSet = net.KeepAliveConfig{}, true
	case lc.KeepAlive > 0:
		l.keepAlive, l.keepSet = net.KeepAliveConfig{Enable: true, Idle: lc.KeepAlive}, true
	}
	return l, nil
}

// Listen listens on a local address: net.Listen. The network is "tcp", "tcp4" for IPv4 or "tcp6"
// for IPv6. If the host is empty or unspecified, the listener accepts connections to every address
// of the stack, of both families if the network is "tcp"; if the port is 0, the stack chooses a
// free one. If the address is in use, the error wraps syscall.EADDRINUSE; if the stack does not
// have the address, syscall.EADDRNOTAVAIL.
func (s *Stack) Listen(network, address string) (net.Listener, error) {
	return (&ListenConfig{Stack: s}).Listen(context.Background(), network, address)
}

// ListenTCP is net.ListenTCP. If laddr is nil, the listener accepts connections to every address of
// the stack, on a free port.
func (s *Stack) ListenTCP(network string, laddr *net.TCPAddr) (*TCPListener, error) {
	err := checkTCP(network)
	var a netip.AddrPort
	if err == nil {
		a, err = fromTCPAddr(laddr)
	}
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Addr: opAddr(laddr), Err: err}
	}
	return s.listen(network, a, false)
}

// listen makes the socket, with the options that package net sets.
func (s *Stack) listen(network string, a netip.AddrPort, reusePort bool) (*TCPListener, error) {
	fail := func(call string, errno syscall.Errno) error {
		return &net.OpError{Op: "listen", Net: network, Addr: net.TCPAddrFromAddrPort(a), Err: sysError(call, errno)}
	}
	domain, v6only := favoriteAddrFamily(network, a.Addr(), netip.Addr{}, true)
	sa, err := sockaddr(domain, a)
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Addr: net.TCPAddrFromAddrPort(a), Err: err}
	}
	so, errno := s.socket(domain, v6only, kern.SOCK_STREAM)
	if errno != 0 {
		return nil, fail("socket", errno)
	}
	so.Sosetopt(kern.SOL_SOCKET, int(kern.SO_REUSEADDR), 1) // listen again over TIME_WAIT
	if reusePort {
		so.Sosetopt(kern.SOL_SOCKET, int(kern.SO_REUSEPORT), 1)
	}
	if errno := so.Sobind(sa); errno != 0 {
		so.Soclose()
		return nil, fail("bind", errno)
	}
	if errno := so.Solisten(s.k.Somaxconn()); errno != 0 {
		so.Soclose()
		return nil, fail("listen", errno)
	}
	return &TCPListener{so: so, network: network, laddr: net.TCPAddrFromAddrPort(so.Laddr())}, nil
}
