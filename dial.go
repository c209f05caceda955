package bsdnet

import (
	"context"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"bsdnet/internal/kern"
)

// A Dialer has the options of connecting: net.Dialer for a [Stack]. The zero Dialer uses the default stack.
type Dialer struct {
	// Stack is the stack to dial on. nil: the default stack.
	Stack *Stack

	// Timeout is the most that a dial may take, to all addresses of a name together. 0: as long as TCP tries, 75 s; over the loopback, where it waits for its place at the listener, for ever.
	Timeout time.Duration

	// Deadline is when dials fail at the latest. Zero: never.
	Deadline time.Time

	// LocalAddr is the address to dial from, a *net.TCPAddr. nil: the stack chooses.
	LocalAddr net.Addr

	// FallbackDelay is for programs that set it on a net.Dialer. It is how long a dial over IPv6 may take before one over IPv4 is tried as well
	// (RFC 8305); the stack has IPv4 alone, so there is nothing to fall back to, and no value changes a dial.
	FallbackDelay time.Duration

	// Resolver finds the IPv4 addresses of names, which are dialed one after the other until one answers. For names over the stack's own links set its
	// PreferGo, and a Dial that asks a server over TCP: func(ctx, _, _) { return stack.DialContext(ctx, "tcp", "10.0.0.1:53") }. nil: names are not
	// resolved, except localhost, which no Resolver is asked for.
	Resolver *net.Resolver

	// KeepAlive is the keep-alive period. 0: the default of 15 s; negative: off. Ignored where KeepAliveConfig.Enable is set.
	KeepAlive time.Duration

	// KeepAliveConfig configures the probes, where Enable is set.
	KeepAliveConfig net.KeepAliveConfig
}

// Dial connects to an address: net.Dial.
func (s *Stack) Dial(network, address string) (net.Conn, error) {
	return s.DialContext(context.Background(), network, address)
}

// DialContext connects to an address: net.Dialer.DialContext. The network is "tcp" or "tcp4". When ctx ends before the connection stands the dial
// fails, with an error that is ctx's by errors.Is; afterwards ctx does nothing. An unspecified address is this stack.
func (s *Stack) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return (&Dialer{Stack: s}).DialContext(ctx, network, address)
}

// DialTimeout is Dial with a time limit: net.DialTimeout.
func (s *Stack) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	return (&Dialer{Stack: s, Timeout: timeout}).Dial(network, address)
}

// DialTCP is net.DialTCP. A nil laddr lets the stack choose.
func (s *Stack) DialTCP(network string, laddr, raddr *net.TCPAddr) (*TCPConn, error) {
	return (&Dialer{Stack: s}).dialTCP(context.Background(), network, laddr, raddr)
}

// DialTCP connects to raddr from laddr, and not from LocalAddr: net.Dialer.DialTCP. The zero laddr lets the stack choose.
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
		if err := checkNetwork(network, ""); err != nil {
			return nil, fail(err)
		}
		return nil, fail(errMissingAddress)
	}
	if err := checkNetwork(network, raddr.String()); err != nil {
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

// Dial connects to an address.
func (d *Dialer) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, address)
}

// DialContext connects to an address; see [Stack.DialContext]. The hooks ConnectStart and ConnectDone of a httptrace.ClientTrace in ctx are called, as
// package net calls them.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := d.context(ctx)
	defer cancel()
	to, err := resolveTCP(ctx, d.Resolver, network, address)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	var first error
	for i, a := range to {
		one, cancel := share(ctx, len(to)-i)
		c, err := d.dialTraced(one, network, a)
		cancel()
		if err == nil {
			return c, nil
		}
		if first == nil {
			first = err // it is the preferred address, so its error says most
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, first
}

// share gives the first of n addresses its share of the time that ctx has left, so that one that is silent leaves some to the others: net.Dialer does so
// too. What is left is not divided below saneShare.
func share(ctx context.Context, n int) (context.Context, context.CancelFunc) {
	const saneShare = 2 * time.Second
	deadline, ok := ctx.Deadline()
	if !ok || n < 2 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, max(time.Until(deadline)/time.Duration(n), saneShare))
}

// dialTraced is dial, which the httptrace hooks in ctx are told of.
func (d *Dialer) dialTraced(ctx context.Context, network string, to netip.AddrPort) (c *TCPConn, err error) {
	if trace := httptrace.ContextClientTrace(ctx); trace != nil && ctx.Err() == nil {
		if trace.ConnectStart != nil {
			trace.ConnectStart(network, to.String())
		}
		if trace.ConnectDone != nil {
			defer func() { trace.ConnectDone(network, to.String(), err) }()
		}
	}
	return d.dial(ctx, network, to)
}

// context gives ctx the Dialer's own time limits.
func (d *Dialer) context(ctx context.Context) (context.Context, context.CancelFunc) {
	if ctx == nil {
		panic("nil context")
	}
	if deadline := d.deadline(); !deadline.IsZero() {
		return context.WithDeadline(ctx, deadline)
	}
	return ctx, func() {}
}

// deadline is the earliest of the Dialer's own.
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
	s := d.Stack
	if s == nil {
		var err error
		if s, err = defaultStack(); err != nil {
			return nil, err
		}
	}
	fail := func(err error) (*TCPConn, error) {
		return nil, &net.OpError{Op: "dial", Net: network, Source: d.LocalAddr, Addr: net.TCPAddrFromAddrPort(to), Err: err}
	}
	var from netip.AddrPort
	if d.LocalAddr != nil {
		la, ok := d.LocalAddr.(*net.TCPAddr)
		if !ok {
			return fail(&net.AddrError{Err: "mismatched local address type", Addr: d.LocalAddr.String()})
		}
		var err error
		if from, err = fromTCPAddr(la); err != nil {
			return fail(err)
		}
	}
	if err := ctx.Err(); err != nil {
		return fail(ctxError(err))
	}
	for try := 0; ; try++ {
		so, call, errno := s.connect(ctx, from, to)
		if errno == 0 {
			if l, r := so.Addrs(); from.Port() == 0 && try < 2 && l == r {
				so.Soclose() // a simultaneous open with itself is not what was asked for
				continue
			}
			c := newTCPConn(so, network)
			d.keepAlive(c)
			return c, nil
		}
		if err := ctx.Err(); err != nil && (errno == errnoCanceled || errno == syscall.EAGAIN) {
			return fail(ctxError(err))
		}
		return fail(sysError(call, errno))
	}
}

// errnoCanceled is what a canceled attempt ends with, on its way from one function to another.
const errnoCanceled = syscall.EINTR

// connect makes a socket and waits until it is connected.
func (s *Stack) connect(ctx context.Context, from, to netip.AddrPort) (_ *kern.Socket, call string, errno syscall.Errno) {
	so, errno := s.k.Socreate(kern.AF_INET, kern.SOCK_STREAM, 0)
	if errno != 0 {
		return nil, "socket", errno
	}
	if from.IsValid() {
		so.Sosetopt(kern.SOL_SOCKET, int(kern.SO_REUSEADDR), 1)
		if errno = so.Sobind(from); errno != 0 {
			so.Soclose()
			return nil, "bind", errno
		}
	}
	if to.Port() == 0 {
		errno = syscall.ECONNREFUSED // nobody's: what Linux says of its own addresses; BSD's is EADDRNOTAVAIL
	} else if errno = so.Soconnect(to); errno == 0 {
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

// checkNetwork accepts what the stack can do. The address is for its error.
func checkNetwork(network, address string) error {
	switch network {
	case "tcp", "tcp4":
		return nil
	case "tcp6":
		return &net.AddrError{Err: "IPv6 is not available", Addr: address}
	}
	return net.UnknownNetworkError(network)
}

// resolveTCP parses host:port. The host is an IPv4 address, "localhost", empty, or a name that r knows, which may have several addresses; r may be nil.
func resolveTCP(ctx context.Context, r *net.Resolver, network, address string) ([]netip.AddrPort, error) {
	if err := checkNetwork(network, address); err != nil {
		return nil, err
	}
	if address == "" {
		return nil, errMissingAddress
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, network, service)
	if err != nil {
		return nil, err
	}
	ips, err := resolveHost(ctx, r, host)
	var to []netip.AddrPort
	for _, ip := range ips {
		to = append(to, netip.AddrPortFrom(ip, uint16(port)))
	}
	return to, err
}

func resolveHost(ctx context.Context, r *net.Resolver, host string) ([]netip.Addr, error) {
	ip, err := netip.ParseAddr(host)
	switch {
	case host == "":
		return []netip.Addr{netip.IPv4Unspecified()}, nil
	case err == nil:
		if ip, err = onlyIPv4(ip); err != nil {
			return nil, err
		}
		return []netip.Addr{ip}, nil
	case strings.EqualFold(strings.TrimSuffix(host, "."), "localhost"):
		// RFC 6761, 6.3: "name resolution APIs and libraries SHOULD recognize localhost names as special and SHOULD always return the IP loopback
		// address". Capitals make no difference (RFC 4343), nor does the root's dot.
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}, nil
	case r != nil:
		return r.LookupNetIP(ctx, "ip4", host)
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

func onlyIPv4(ip netip.Addr) (netip.Addr, error) {
	switch ip = ip.Unmap(); {
	case ip.Is4():
		return ip, nil
	case ip.IsUnspecified():
		return netip.IPv4Unspecified(), nil
	}
	return ip, &net.AddrError{Err: "IPv6 is not available", Addr: ip.String()}
}

func fromTCPAddr(a *net.TCPAddr) (netip.AddrPort, error) {
	if a == nil {
		return netip.AddrPortFrom(netip.IPv4Unspecified(), 0), nil
	}
	if a.Port < 0 || a.Port > 65535 {
		return netip.AddrPort{}, &net.AddrError{Err: "invalid port", Addr: a.String()}
	}
	ip := netip.IPv4Unspecified()
	if len(a.IP) > 0 {
		var ok bool
		if ip, ok = netip.AddrFromSlice(a.IP); !ok {
			return netip.AddrPort{}, &net.AddrError{Err: "invalid IP address", Addr: a.String()}
		}
	}
	ip, err := onlyIPv4(ip)
	return netip.AddrPortFrom(ip, uint16(a.Port)), err
}

// opAddr keeps a nil pointer from becoming an interface that is not nil.
func opAddr(a *net.TCPAddr) net.Addr {
	if a == nil {
		return nil
	}
	return a
}

// HTTPTransport returns a new http.Transport that dials on the stack. Its other settings are those of http.DefaultTransport, with its limit of
// 30 s for a dial; it uses no proxy. Its owner ends its idle connections, by CloseIdleConnections; Close of the stack resets them.
func (s *Stack) HTTPTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = (&Dialer{Stack: s, Timeout: 30 * time.Second}).DialContext
	t.Proxy = nil
	return t
}

// HTTPClient returns the stack's http.Client, which dials on the stack; its transport is as [Stack.HTTPTransport] makes it. Each call returns the
// same client, so that they share idle connections. To change its settings, copy it.
func (s *Stack) HTTPClient() *http.Client {
	s.clientOnce.Do(func() { s.client = &http.Client{Transport: s.HTTPTransport()} })
	return s.client
}

// HTTPClient is [Stack.HTTPClient] on the default stack.
func HTTPClient() *http.Client {
	s, err := defaultStack()
	if err != nil {
		panic(err) // the system has no randomness
	}
	return s.HTTPClient()
}
