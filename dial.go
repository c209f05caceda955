package bsdnet

import (
	"context"
	"net"
	"net/netip"
	"syscall"
	"time"

	"bsdnet/internal/kern"
)

// A Dialer has the options of connecting: net.Dialer for a [Stack]. The zero Dialer uses the
// default stack.
type Dialer struct {
	// Stack is the stack to dial on. If it is nil, it is the default stack.
	Stack *Stack

	// Timeout is the most that a dial may take, including all addresses of a name. If it is 0, TCP
	// gives up after 75 s; over the loopback, a dial waits for room in the listener's queue for as
	// long as that takes.
	Timeout time.Duration

	// Deadline is the time after which dials fail. The zero time means none.
	Deadline time.Time

	// LocalAddr is the address to dial from, a *net.TCPAddr. If it is nil, the stack chooses one.
	LocalAddr net.Addr

	// FallbackDelay is the head start of the first address's family: if no connection to an address
	// of a name is established then, or as soon as all of them have failed, addresses of the other
	// family are tried as well, and the first connection wins (RFC 8305). The first address is one
	// of IPv6, if the stack has an address of IPv6 that suits it. If FallbackDelay is 0, it is 300
	// ms; if it is negative, all addresses are tried one after the other.
	FallbackDelay time.Duration

	// Resolver finds the addresses of names. If it is nil, the stack looks them up, as Config.DNS
	// and Config.Hosts say. A dial tries the addresses one after the other until one answers.
	Resolver *net.Resolver

	// KeepAlive is the keep-alive period. If it is 0, the period is 15 s; if it is negative,
	// keep-alive probes are disabled. It is ignored if KeepAliveConfig.Enable is true.
	KeepAlive time.Duration

	// KeepAliveConfig configures the keep-alive probes if its Enable is true.
	KeepAliveConfig net.KeepAliveConfig
}

// Dial connects to an address: net.Dial.
func (s *Stack) Dial(network, address string) (net.Conn, error) {
	return s.DialContext(context.Background(), network, address)
}

// DialContext connects to an address: net.Dialer.DialContext. The network is "tcp", "tcp4" or
// "tcp6". If the host is empty or unspecified, DialContext connects to the stack itself. If ctx
// ends before the connection is established, the error matches that of ctx; later, ctx has no
// effect.
func (s *Stack) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return (&Dialer{Stack: s}).DialContext(ctx, network, address)
}

// DialTimeout is Dial with a time limit: net.DialTimeout.
func (s *Stack) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	return (&Dialer{Stack: s, Timeout: timeout}).Dial(network, address)
}

// DialTCP is net.DialTCP. If laddr is nil, the stack chooses the local address.
func (s *Stack) DialTCP(network string, laddr, raddr *net.TCPAddr) (*TCPConn, error) {
	return (&Dialer{Stack: s}).dialTCP(context.Background(), network, laddr, raddr)
}

// DialTCP connects to raddr from laddr, not from LocalAddr: net.Dialer.DialTCP. If laddr is the
// zero AddrPort, the stack chooses the local address.
func (d *Dialer) DialTCP(ctx context.Context, network string, laddr, raddr netip.AddrPort) (*TCPConn, error) {
	ctx, cancel := d.context(ctx)
	defer cancel()
	return d.dialTCP(ctx, network, net.TCPAddrFromAddrPort(laddr), net.TCPAddrFromAddrPort(raddr))
}

func (d *Dialer) dialTCP(ctx context.Context, network string, laddr, raddr *net.TCPAddr) (*TCPConn, error) {
	fail := func(err error) error {
		return &net.OpError{Op: "dial", Net: network, Source: opAddr(laddr), Addr: opAddr(raddr), Err: err}
	}
	if raddr == nil {
		if err := checkTCP(network); err != nil {
			return nil, fail(err)
		}
		return nil, fail(errMissingAddress)
	}
	if err := checkTCP(network); err != nil {
		return nil, fail(err)
	}
	to, err := fromTCPAddr(raddr)
	if err != nil {
		return nil, fail(err)
	}
	from := *d
	from.LocalAddr = opAddr(laddr)
	return from.dial(ctx, network, to)
}

// context returns ctx with the Dialer's own time limits.
func (d *Dialer) context(ctx context.Context) (context.Context, context.CancelFunc) {
	if ctx == nil {
		panic("nil context")
	}
	if deadline := d.deadline(); !deadline.IsZero() {
		return context.WithDeadline(ctx, deadline)
	}
	return ctx, func() {}
}

// stack returns the stack to dial on.
func (d *Dialer) stack() (*Stack, error) {
	if d.Stack == nil {
		return defaultStack()
	}
	return d.Stack, nil
}

// deadline returns the earlier of the Dialer's own time limits, or the zero time if it has none.
func (d *Dialer) deadline() (t time.Time) {
	if d.Timeout != 0 {
		t = time.Now().Add(d.Timeout)
	}
	if !d.Deadline.IsZero() && (t.IsZero() || d.Deadline.Before(t)) {
		t = d.Deadline
	}
	return t
}

func (d *Dialer) dial(ctx context.Context, network string, to netip.AddrPort) (*TCPConn, error) {
	s, err := d.stack()
	if err != nil {
		return nil, err
	}
	fail := func(err error) (*TCPConn, error) {
		addr := net.TCPAddrFromAddrPort(to)
		return nil, &net.OpError{Op: "dial", Net: network, Source: d.LocalAddr, Addr: addr, Err: err}
	}
	var from netip.AddrPort
	if d.LocalAddr != nil {
		la, ok := d.LocalAddr.(*net.TCPAddr)
		if !ok {
			return fail(&net.AddrError{Err: "mismatched local address type", Addr: d.LocalAddr.String()})
		}
		if from, err = fromTCPAddr(la); err != nil {
			return fail(err)
		}
	}
	if err := ctx.Err(); err != nil {
		return fail(ctxError(err))
	}
	c := connection{stack: s}
	c.domain, c.v6only = favoriteAddrFamily(network, from.Addr(), to.Addr(), false)
	if d.LocalAddr != nil {
		if c.from, err = sockaddr(c.domain, from); err != nil {
			return fail(err)
		}
	}
	if c.to, err = sockaddr(c.domain, to); err != nil {
		return fail(err)
	}
	ask := func() error { return s.k.Diagnose(from.Addr(), to.Addr()) }
	for try := 0; ; try++ {
		so, call, errno := c.connect(ctx)
		if errno == 0 {
			if l, r := so.Addrs(); from.Port() == 0 && try < 2 && l == r {
				so.Soclose() // it has connected to itself, by a simultaneous open, as in package net
				continue
			}
			c := newTCPConn(so, network)
			d.keepAlive(c)
			return c, nil
		}
		if err := ctx.Err(); err != nil && (errno == errnoCanceled || errno == syscall.EAGAIN) {
			return fail(diagnose(ctxError(err), ask))
		}
		return fail(diagnose(sysError(call, errno), ask))
	}
}

// errnoCanceled is the errno of connect when its context has ended.
const errnoCanceled = syscall.EINTR

// socket makes a socket of a family, for IPv6 only if v6only is true.
func (s *Stack) socket(domain int, v6only bool, typ int) (*kern.Socket, syscall.Errno) {
	so, errno := s.k.Socreate(domain, typ, 0)
	if errno == 0 && domain == kern.AF_INET6 {
		only := 0
		if v6only {
			only = 1
		}
		so.Sosetopt(kern.IPPROTO_IPV6, kern.IPV6_V6ONLY, only)
	}
	return so, errno
}

// A connection says what is to be connected.
type connection struct {
	stack    *Stack
	domain   int
	v6only   bool
	from, to netip.AddrPort // of the family; from is not valid if the stack chooses it
}

// connect makes a socket and waits until it is connected. If errno is not 0, call names the system
// call that failed.
func (c *connection) connect(ctx context.Context) (_ *kern.Socket, call string, errno syscall.Errno) {
	so, errno := c.stack.socket(c.domain, c.v6only, kern.SOCK_STREAM)
	if errno != 0 {
		return nil, "socket", errno
	}
	if c.from.IsValid() {
		so.Sosetopt(kern.SOL_SOCKET, int(kern.SO_REUSEADDR), 1)
		if errno = so.Sobind(c.from); errno != 0 {
			so.Soclose()
			return nil, "bind", errno
		}
	}
	if c.to.Port() == 0 {
		errno = syscall.ECONNREFUSED // as on Linux, which has no listener there; BSD returns EADDRNOTAVAIL
	} else if errno = so.Soconnect(c.to); errno == 0 {
		stop := func() bool { return true }
		if ctx.Done() != nil {
			stop = context.AfterFunc(ctx, func() { so.Socancel(errnoCanceled) })
		}
		errno = so.Soconnectwait()
		if !stop() && errno == 0 && ctx.Err() != nil && !so.Connected() {
			errno = errnoCanceled
		}
	}
	if errno != 0 {
		so.Soclose()
		return nil, "connect", errno
	}
	return so, "", 0
}

func (d *Dialer) keepAlive(c *TCPConn) {
	switch {
	case d.KeepAliveConfig.Enable:
		c.SetKeepAliveConfig(d.KeepAliveConfig)
	case d.KeepAlive < 0:
		c.SetKeepAlive(false)
	case d.KeepAlive > 0:
		c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: d.KeepAlive})
	}
}
