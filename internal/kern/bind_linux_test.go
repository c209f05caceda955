//go:build linux

package kern

import (
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/nstest"
)

// The rules of addresses of both families are compared with those of the Linux kernel, which is
// asked the same.

// A bindCase is a socket and what it binds to.
type bindCase struct {
	domain int // AF_INET or AF_INET6
	v6only bool
	addr   string
	opts   soOptions
}

func (c bindCase) String() string {
	s := fmt.Sprintf("AF_INET%s%s", map[int]string{AF_INET6: "6"}[c.domain], map[bool]string{true: " V6ONLY"}[c.v6only])
	for o, name := range map[soOptions]string{SO_REUSEADDR: " REUSEADDR", SO_REUSEPORT: " REUSEPORT"} {
		if c.opts&o != 0 {
			s += name
		}
	}
	return s + " " + c.addr
}

// An asked is a system that can be asked: Linux or a Kernel.
type asked interface {
	socket(c *bindCase) int
	bind(fd int, a netip.AddrPort) syscall.Errno
	listen(fd int)
	connect(fd int, a netip.AddrPort) syscall.Errno
	name(fd int) netip.AddrPort
	close(fd int)
}

type linux struct {
	t  *testing.T
	ns *nstest.NS // nil: that of the test
}

func (l linux) no(err error) {
	if err != nil {
		l.t.Helper()
		l.t.Fatal(err)
	}
}

func (l linux) socket(c *bindCase) int {
	domain := syscall.AF_INET
	if c.domain == AF_INET6 {
		domain = syscall.AF_INET6
	}
	var (
		fd  int
		err error
	)
	socket := func() error {
		fd, err = syscall.Socket(domain, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK, 0)
		return err
	}
	if l.ns != nil {
		l.no(l.ns.Do(socket))
	} else {
		l.no(socket())
	}
	if c.domain == AF_INET6 {
		l.no(syscall.SetsockoptInt(fd, syscall.IPPROTO_IPV6, syscall.IPV6_V6ONLY, b2i(c.v6only)))
	}
	if c.opts&SO_REUSEADDR != 0 {
		l.no(syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1))
	}
	if c.opts&SO_REUSEPORT != 0 {
		const soReuseport = 15
		l.no(syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, soReuseport, 1))
	}
	return fd
}

func (l linux) sockaddr(a netip.AddrPort) syscall.Sockaddr {
	if a.Addr().Is4() {
		return &syscall.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &syscall.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

func sysErrno(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	return err.(syscall.Errno)
}

func (l linux) bind(fd int, a netip.AddrPort) syscall.Errno {
	return sysErrno(syscall.Bind(fd, l.sockaddr(a)))
}
func (l linux) listen(fd int) { l.no(syscall.Listen(fd, 5)) }
func (l linux) connect(fd int, a netip.AddrPort) syscall.Errno {
	errno := sysErrno(syscall.Connect(fd, l.sockaddr(a)))
	if errno == syscall.EINPROGRESS { // over the loopback it has ended by now
		v, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ERROR)
		l.no(err)
		errno = syscall.Errno(v)
	}
	return errno
}
func (l linux) close(fd int) { l.no(syscall.Close(fd)) }
func (l linux) name(fd int) netip.AddrPort {
	sa, err := syscall.Getsockname(fd)
	l.no(err)
	if sa, ok := sa.(*syscall.SockaddrInet4); ok {
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	}
	s6 := sa.(*syscall.SockaddrInet6)
	return netip.AddrPortFrom(netip.AddrFrom16(s6.Addr), uint16(s6.Port))
}

type own struct {
	t *testing.T
	p *Proc
}

func (o own) no(errno syscall.Errno) {
	if errno != 0 {
		o.t.Helper()
		o.t.Fatal(errno)
	}
}

func (o own) socket(c *bindCase) int {
	fd, errno := o.p.Socket(c.domain, SOCK_STREAM, 0)
	o.no(errno)
	if c.domain == AF_INET6 {
		o.no(o.p.Setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, b2i(c.v6only)))
	}
	for _, opt := range []soOptions{SO_REUSEADDR, SO_REUSEPORT} {
		o.no(o.p.Setsockopt(fd, SOL_SOCKET, int(opt), b2i(c.opts&opt != 0)))
	}
	return fd
}

func (o own) bind(fd int, a netip.AddrPort) syscall.Errno    { return o.p.Bind(fd, a) }
func (o own) listen(fd int)                                  { o.no(o.p.Listen(fd, 5)) }
func (o own) connect(fd int, a netip.AddrPort) syscall.Errno { return o.p.Connect(fd, a) }
func (o own) close(fd int)                                   { o.no(o.p.Close(fd)) }
func (o own) name(fd int) netip.AddrPort {
	a, errno := o.p.Getsockname(fd)
	o.no(errno)
	return a
}

// bothSystems returns a Linux kernel, in a namespace in which nobody else has a port and which no
// packet leaves, and a stack.
func bothSystems(t *testing.T) (l linux, o asked) {
	ns, err := nstest.Make()
	if err != nil {
		nstest.Skip(t, "%v", err)
	}
	t.Cleanup(ns.Close)
	if fd, err := syscall.Socket(syscall.AF_INET6, syscall.SOCK_STREAM, 0); err != nil {
		nstest.Skip(t, "the kernel has no IPv6: %v", err)
	} else {
		syscall.Close(fd)
	}
	k, err := New(Config{Profile: tcp.Default()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return linux{t, ns}, own{t, k.NewProc()}
}

// Which of two sockets may bind to a port: all pairs of addresses and options.
func TestBindPairsAsLinux(t *testing.T) {
	l, o := bothSystems(t)
	var cases []bindCase
	for _, c := range []bindCase{
		{addr: "0.0.0.0"}, {addr: "127.0.0.1"}, {addr: "127.0.0.2"}, {domain: AF_INET6, addr: "::"},
		{domain: AF_INET6, addr: "::", v6only: true}, {domain: AF_INET6, addr: "::1"},
		{domain: AF_INET6, addr: "::1", v6only: true}, {domain: AF_INET6, addr: "::ffff:127.0.0.1"},
		{domain: AF_INET6, addr: "::ffff:0.0.0.0"},
	} {
		if c.domain == 0 {
			c.domain = AF_INET
		}
		for _, opts := range []soOptions{0, SO_REUSEADDR, SO_REUSEPORT, SO_REUSEADDR | SO_REUSEPORT} {
			c.opts = opts
			cases = append(cases, c)
		}
	}
	try := func(s asked, a, b *bindCase, listening bool) (syscall.Errno, string) {
		fa, fb := s.socket(a), s.socket(b)
		defer s.close(fa)
		defer s.close(fb)
		if errno := s.bind(fa, netip.AddrPortFrom(netip.MustParseAddr(a.addr), 0)); errno != 0 {
			t.Fatalf("%T: the first, %v: %v", s, a, errno)
		}
		if listening {
			s.listen(fa)
		}
		at := s.name(fa)
		errno := s.bind(fb, netip.AddrPortFrom(netip.MustParseAddr(b.addr), at.Port()))
		return errno, at.Addr().String()
	}
	n := 0
	for i := range cases {
		for j := range cases {
			for _, listening := range []bool{false, true} {
				a, b := &cases[i], &cases[j]
				if !listening && a.opts&b.opts&SO_REUSEADDR != 0 {
					// Linux lets both bind, and fails the second listen. BSD's bind fails, as this
					// stack's does.
					continue
				}
				want, wantName := try(l, a, b, listening)
				got, name := try(o, a, b, listening)
				if got != want || name != wantName {
					t.Errorf("%v (listening %v, %s), then %v: %v; Linux: %v, %s",
						a, listening, name, b, got, want, wantName)
				}
				n++
			}
		}
	}
	if n < 2000 {
		t.Errorf("%d pairs", n)
	}
}

// What bind and connect say of addresses of the wrong family, mapped addresses, and addresses that
// are nobody's.
func TestAddressErrorsAsLinux(t *testing.T) {
	l, o := bothSystems(t)
	addrs := strings.Fields("0.0.0.0 127.0.0.1 :: ::1 ::ffff:127.0.0.1 ::ffff:0.0.0.0 " +
		"fe80::1 2001:db8::1 ::ffff:192.0.2.1 192.0.2.1 ff02::1")
	socks := []bindCase{{domain: AF_INET}, {domain: AF_INET6}, {domain: AF_INET6, v6only: true}}
	// A port at which nobody listens: connecting to it fails at once if all the rest is right.
	free := l.socket(&socks[0])
	defer l.close(free)
	if errno := l.bind(free, netip.MustParseAddrPort("127.0.0.1:0")); errno != 0 {
		t.Fatal(errno)
	}
	port := l.name(free).Port()
	for i := range socks {
		c := &socks[i]
		for _, from := range append([]string{""}, addrs...) {
			ask := func(s asked, to string) string {
				fd := s.socket(c)
				defer s.close(fd)
				if from != "" {
					errno := s.bind(fd, netip.AddrPortFrom(netip.MustParseAddr(from), 0))
					if errno != 0 {
						return fmt.Sprintf("bind: %v", errno)
					}
				}
				return fmt.Sprintf("%v", s.connect(fd, netip.AddrPortFrom(netip.MustParseAddr(to), port)))
			}
			for _, to := range addrs {
				if want, got := ask(l, to), ask(o, to); got != want {
					t.Errorf("%v bound to %q, connects to %s: %s, Linux: %s", c, from, to, got, want)
				}
			}
		}
	}
}
