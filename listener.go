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

// A TCPListener is a listening socket: a [net.Listener] with the methods of [net.TCPListener], except SyscallConn: there is
// no file descriptor to which it could give access.
type TCPListener struct {
	so        *kern.Socket
	network   string
	laddr     *net.TCPAddr
	keepAlive net.KeepAliveConfig
	keepSet   bool // keepAlive is not the default
}

var _ net.Listener = (*TCPListener)(nil)

// Accept waits for a connection. net.ErrClosed: the listener has been closed.
func (l *TCPListener) Accept() (net.Conn, error) {
	c, err := l.AcceptTCP()
	if err != nil {
		return nil, err // not a nil *TCPConn in an interface
	}
	return c, nil
}

// AcceptTCP is Accept for who wants a *TCPConn.
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

// Close stops listening. Blocked Accept calls return net.ErrClosed; connections that nobody has accepted are reset.
func (l *TCPListener) Close() error { return l.opErrno("close", "close", l.so.Soclose()) }

// Addr returns the address, a *net.TCPAddr.
func (l *TCPListener) Addr() net.Addr { return l.laddr }

// SetDeadline sets the deadline of Accept, blocked calls too; they fail with os.ErrDeadlineExceeded. The zero time: none.
func (l *TCPListener) SetDeadline(t time.Time) error {
	return l.opErrno("set", "set", l.so.SetDeadlines(&t, nil))
}

// File fails with syscall.EOPNOTSUPP, which is errors.ErrUnsupported by errors.Is: there is no file descriptor. After Close it fails with net.ErrClosed.
func (l *TCPListener) File() (*os.File, error) {
	return nil, l.opErrno("file", "dup", noFile(l.so))
}

// A ListenConfig has the options of listening: net.ListenConfig for a [Stack].
type ListenConfig struct {
	// Stack is the stack to listen on. nil: the default stack.
	Stack *Stack

	// KeepAlive is the keep-alive period of accepted connections. 0: the default of 15 s; negative: off. Ignored where KeepAliveConfig.Enable
	// is set.
	KeepAlive time.Duration

	// KeepAliveConfig configures the probes of accepted connections, where Enable is set.
	KeepAliveConfig net.KeepAliveConfig
}

// Listen is net.ListenConfig.Listen. The context ends the resolving of the address only.
func (lc *ListenConfig) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	s := lc.Stack
	if s == nil {
		var err error
		if s, err = defaultStack(); err != nil {
			return nil, err
		}
	}
	if address == "" {
		address = ":0"
	}
	a, err := resolveTCP(ctx, nil, network, address)
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Err: err}
	}
	l, err := s.listen(network, a[0])
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

// Listen listens on a local address: net.Listen. The network is "tcp" or "tcp4". No host or an unspecified one is every address of the stack; port
// 0 is a free one. syscall.EADDRINUSE: somebody listens there; EADDRNOTAVAIL: it is not an address of the stack.
func (s *Stack) Listen(network, address string) (net.Listener, error) {
	return (&ListenConfig{Stack: s}).Listen(context.Background(), network, address)
}

// ListenTCP is net.ListenTCP. A nil laddr is any address and a free port.
func (s *Stack) ListenTCP(network string, laddr *net.TCPAddr) (*TCPListener, error) {
	err := checkNetwork(network, laddr.String())
	var a netip.AddrPort
	if err == nil {
		a, err = fromTCPAddr(laddr)
	}
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Addr: opAddr(laddr), Err: err}
	}
	return s.listen(network, a)
}

// listen makes the socket, with the options that package net sets.
func (s *Stack) listen(network string, a netip.AddrPort) (*TCPListener, error) {
	fail := func(call string, errno syscall.Errno) error {
		return &net.OpError{Op: "listen", Net: network, Addr: net.TCPAddrFromAddrPort(a), Err: sysError(call, errno)}
	}
	so, errno := s.k.Socreate(kern.AF_INET, kern.SOCK_STREAM, 0)
	if errno != 0 {
		return nil, fail("socket", errno)
	}
	so.Sosetopt(kern.SOL_SOCKET, int(kern.SO_REUSEADDR), 1) // listen again over TIME_WAIT
	if errno := so.Sobind(a); errno != 0 {
		so.Soclose()
		return nil, fail("bind", errno)
	}
	if errno := so.Solisten(s.k.Somaxconn()); errno != 0 {
		so.Soclose()
		return nil, fail("listen", errno)
	}
	return &TCPListener{so: so, network: network, laddr: net.TCPAddrFromAddrPort(so.Laddr())}, nil
}
