//go:build linux

package kern

import (
	"fmt"
	"net/netip"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What calls on UDP sockets return is compared with what Linux's return: the same calls are made on
// the loopback of both.

// A udpSystem is a system with UDP sockets. Its calls do not block.
type udpSystem interface {
	socket(domain int) int
	close(fd int)
	setopt(fd int, o soOptions)
	bind(fd int, a netip.AddrPort) syscall.Errno
	connect(fd int, a netip.AddrPort) syscall.Errno // not valid: AF_UNSPEC
	send(fd, n int, a netip.AddrPort) (int, syscall.Errno)
	recv(fd, n, flags int) (int, netip.AddrPort, int, syscall.Errno)
	shutdown(fd, how int) syscall.Errno
	soerror(fd int) syscall.Errno
	name(fd int) netip.AddrPort
	peer(fd int) (netip.AddrPort, syscall.Errno)
}

type linuxUDP struct{ linux }

func (l linuxUDP) socket(domain int) int {
	if domain == AF_INET6 {
		domain = syscall.AF_INET6
	}
	fd, err := syscall.Socket(domain, syscall.SOCK_DGRAM|syscall.SOCK_NONBLOCK, 0)
	l.no(err)
	return fd
}

func (l linuxUDP) setopt(fd int, o soOptions) {
	name := map[soOptions]int{SO_REUSEADDR: syscall.SO_REUSEADDR, SO_REUSEPORT: 15}[o]
	l.no(syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, name, 1))
}

func (l linuxUDP) connect(fd int, a netip.AddrPort) syscall.Errno {
	if a.IsValid() {
		return sysErrno(syscall.Connect(fd, l.sockaddr(a)))
	}
	var sa syscall.RawSockaddrInet4 // AF_UNSPEC
	n := uintptr(syscall.SizeofSockaddrInet4)
	_, _, errno := syscall.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&sa)), n)
	return errno
}

func (l linuxUDP) send(fd, n int, a netip.AddrPort) (int, syscall.Errno) {
	var sa syscall.Sockaddr
	if a.IsValid() {
		sa = l.sockaddr(a)
	}
	n, err := syscall.SendmsgN(fd, make([]byte, n), nil, sa, 0)
	return max(n, 0), sysErrno(err)
}

func (l linuxUDP) recv(fd, n, flags int) (int, netip.AddrPort, int, syscall.Errno) {
	f := 0
	if flags&MSG_PEEK != 0 {
		f = syscall.MSG_PEEK
	}
	n, _, rflags, sa, err := syscall.Recvmsg(fd, make([]byte, n), nil, f)
	if err != nil {
		return 0, netip.AddrPort{}, 0, sysErrno(err)
	}
	got := 0
	if rflags&syscall.MSG_TRUNC != 0 {
		got = MSG_TRUNC
	}
	return n, sockaddrPort(sa), got, 0
}

func sockaddrPort(sa syscall.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *syscall.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

func (l linuxUDP) shutdown(fd, how int) syscall.Errno { return sysErrno(syscall.Shutdown(fd, how)) }

func (l linuxUDP) soerror(fd int) syscall.Errno {
	v, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ERROR)
	l.no(err)
	return syscall.Errno(v)
}

func (l linuxUDP) peer(fd int) (netip.AddrPort, syscall.Errno) {
	sa, err := syscall.Getpeername(fd)
	return sockaddrPort(sa), sysErrno(err)
}

type ownUDP struct{ own }

func (o ownUDP) socket(domain int) int {
	fd, errno := o.p.Socket(domain, SOCK_DGRAM, 0)
	o.no(errno)
	o.p.Fcntl(fd, F_SETFL, O_NONBLOCK)
	return fd
}

func (o ownUDP) setopt(fd int, opt soOptions) { o.no(o.p.Setsockopt(fd, SOL_SOCKET, int(opt), 1)) }

func (o ownUDP) send(fd, n int, a netip.AddrPort) (int, syscall.Errno) {
	return o.p.Sendto(fd, make([]byte, n), 0, a)
}

func (o ownUDP) recv(fd, n, flags int) (int, netip.AddrPort, int, syscall.Errno) {
	n, a, rflags, errno := o.p.Recvfrom(fd, make([]byte, n), flags)
	return max(n, 0), a, rflags, errno
}

func (o ownUDP) shutdown(fd, how int) syscall.Errno { return o.p.Shutdown(fd, how) }

func (o ownUDP) soerror(fd int) syscall.Errno {
	v, errno := o.p.Getsockopt(fd, SOL_SOCKET, SO_ERROR)
	o.no(errno)
	return syscall.Errno(v)
}

func (o ownUDP) peer(fd int) (netip.AddrPort, syscall.Errno) { return o.p.Getpeername(fd) }

// A udpScript makes calls on a system and notes what they return. Ports that the system has chosen
// are noted as names.
type udpScript struct {
	udpSystem
	domain         int
	lo, lo2, any   string // addresses: the loopback's, another of it, and none
	wide, far, odd string // a broadcast or foreign address; a foreign one; one of the other family
	most           int    // bytes of the largest datagram

	notes []string
	ports map[uint16]string
}

func (s *udpScript) note(format string, args ...any) {
	s.notes = append(s.notes, fmt.Sprintf(format, args...))
}

func (s *udpScript) addr(host string, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(host), port)
}

func (s *udpScript) text(a netip.AddrPort) string {
	if name, ok := s.ports[a.Port()]; ok {
		return fmt.Sprintf("%v:%s", a.Addr(), name)
	}
	if a.Port() >= 1024 {
		return fmt.Sprintf("%v:port", a.Addr())
	}
	return a.String()
}

// bound makes a socket that is bound to a port of the system's choice, which gets a name.
func (s *udpScript) bound(addr, name string) (fd int, a netip.AddrPort) {
	fd = s.socket(s.domain)
	if errno := s.bind(fd, netip.AddrPortFrom(netip.MustParseAddr(addr), 0)); errno != 0 {
		s.note("bind to %s: %v", addr, errno)
	}
	a = s.name(fd)
	s.ports[a.Port()] = name
	return fd, a
}

func (s *udpScript) to(fd, n int, a netip.AddrPort) {
	got, errno := s.send(fd, n, a)
	s.note("send %d to %s: %d, %v", n, s.text(a), got, errno)
}

func (s *udpScript) from(fd, n, flags int) {
	got, a, rflags, errno := s.recv(fd, n, flags)
	s.note("receive %d: %d from %s, %#x, %v", n, got, s.text(a), rflags, errno)
}

func (s *udpScript) names(fd int) {
	a, errno := s.peer(fd)
	s.note("name %s, peer %s, %v", s.text(s.name(fd)), s.text(a), errno)
}

var none netip.AddrPort

// udpScripts are the calls; the names are those of the tests.
var udpScripts = map[string]func(s *udpScript){
	"Refused": func(s *udpScript) {
		a, to := s.bound(s.lo, "a")
		s.close(a)
		c := s.socket(s.domain)
		s.to(c, 1, to) // without a peer nobody learns of it
		s.from(c, 9, 0)
		s.note("connect: %v", s.connect(c, to))
		s.to(c, 1, none)
		s.to(c, 1, none) // ECONNREFUSED, once
		s.to(c, 1, none)
		s.from(c, 9, 0)
		s.from(c, 9, 0)
		s.to(c, 1, none)
		s.note("SO_ERROR: %v", s.soerror(c))
		s.note("SO_ERROR: %v", s.soerror(c))
		s.close(c)
	},
	"Connect": func(s *udpScript) {
		a, to := s.bound(s.lo, "a")
		b, other := s.bound(s.lo, "b")
		c := s.socket(s.domain)
		s.names(c)
		s.to(c, 3, none) // EDESTADDRREQ
		s.note("connect: %v", s.connect(c, to))
		s.ports[s.name(c).Port()] = "c"
		s.names(c)
		s.to(c, 3, none)
		s.to(c, 4, other) // Linux sends to another address
		s.from(a, 9, 0)
		s.from(b, 9, 0)
		s.to(b, 5, s.name(c)) // not from the peer: refused
		s.from(c, 9, 0)
		s.to(a, 6, s.name(c))
		s.from(c, 9, 0)
		s.note("connect again: %v", s.connect(c, other))
		s.to(b, 7, s.name(c))
		s.from(c, 9, 0)
		s.note("disconnect: %v", s.connect(c, none))
		s.note("peer is gone")
		_, errno := s.peer(c)
		s.note("%v", errno)
		s.to(c, 3, none)
		s.close(a)
		s.close(b)
		s.close(c)
	},
	"Disconnect": func(s *udpScript) {
		a, to := s.bound(s.lo, "a")
		c, _ := s.bound(s.lo, "c")
		s.note("connect: %v", s.connect(c, to))
		s.note("disconnect: %v", s.connect(c, none))
		s.note("address kept: %v", s.name(c).Addr())
		s.to(c, 3, to)
		got, _, _, errno := s.recv(a, 9, 0)
		s.note("%d, %v", got, errno)
		d := s.socket(s.domain)
		s.note("connect: %v", s.connect(d, to))
		s.note("disconnect: %v", s.connect(d, none))
		s.note("address %v", s.name(d))
		s.close(a)
		s.close(c)
		s.close(d)
	},
	"Truncate": func(s *udpScript) {
		a, to := s.bound(s.lo, "a")
		c, _ := s.bound(s.lo, "c")
		for _, n := range []int{0, 1, 10, 3000} {
			s.to(c, n, to)
		}
		s.from(a, 5, MSG_PEEK)
		s.from(a, 5, 0) // an empty datagram
		s.from(a, 0, 0) // cut to nothing
		s.from(a, 10, MSG_PEEK)
		s.from(a, 9, MSG_PEEK)
		s.from(a, 9, 0)
		s.from(a, 2000, 0)
		s.from(a, 2000, 0) // EAGAIN
		s.close(a)
		s.close(c)
	},
	"Errors": func(s *udpScript) {
		c, own := s.bound(s.lo, "c")
		s.to(c, s.most, own)
		s.to(c, s.most+1, own)
		s.to(c, 65536, own)
		s.to(c, 1, netip.AddrPortFrom(own.Addr(), 0))
		s.to(c, 1, s.addr(s.wide, 9)) // EACCES
		s.to(c, 1, s.addr(s.odd, 9))
		s.note("bind again: %v", s.bind(c, s.addr(s.lo, 0)))
		d := s.socket(s.domain)
		s.note("bind to a used port: %v", s.bind(d, own))
		s.note("bind to a foreign address: %v", s.bind(d, s.addr(s.far, 0)))
		s.note("connect to broadcast: %v", s.connect(d, s.addr(s.wide, 9)))
		s.note("connect to the other family: %v", s.connect(d, s.addr(s.odd, 9)))
		s.close(c)
		s.close(d)
	},
	"Shutdown": func(s *udpScript) {
		u, _ := s.bound(s.lo, "u")
		s.note("not connected: %v", s.shutdown(u, SHUT_RD))
		s.close(u)
		a, to := s.bound(s.lo, "a")
		c, _ := s.bound(s.lo, "c")
		s.note("connect: %v", s.connect(c, to))
		s.note("shutdown: %v", s.shutdown(c, SHUT_WR))
		s.to(c, 1, none)
		s.to(c, 1, to)
		s.to(a, 2, s.name(c))
		s.from(c, 9, 0)
		s.from(c, 9, 0)
		s.to(a, 2, s.name(c))
		s.note("shutdown: %v", s.shutdown(c, SHUT_RD))
		got, _, _, errno := s.recv(c, 9, 0)
		s.note("queued: %d, %v", got, errno)
		got, _, _, errno = s.recv(c, 9, 0)
		s.note("then: %d, %v", got, errno)
		s.close(a)
		s.close(c)
	},
	"Share": func(s *udpScript) {
		for _, opts := range [][2]soOptions{
			{0, 0}, {SO_REUSEADDR, 0}, {0, SO_REUSEADDR}, {SO_REUSEADDR, SO_REUSEADDR}, {SO_REUSEPORT, SO_REUSEPORT},
			{SO_REUSEADDR, SO_REUSEPORT},
		} {
			for _, addrs := range [][2]string{
				{s.lo, s.lo}, {s.any, s.lo}, {s.lo, s.any}, {s.lo, s.lo2},
			} {
				a, b := s.socket(s.domain), s.socket(s.domain)
				for i, fd := range []int{a, b} {
					if opts[i] != 0 {
						s.setopt(fd, opts[i])
					}
				}
				s.note("%v: %v", addrs, s.bind(a, netip.AddrPortFrom(netip.MustParseAddr(addrs[0]), 0)))
				to := netip.AddrPortFrom(netip.MustParseAddr(addrs[1]), s.name(a).Port())
				s.note("%v, %v: %v", opts, addrs, s.bind(b, to))
				if opts[0]&opts[1]&SO_REUSEPORT == 0 && addrs[0] != s.lo {
					// Who gets it? The more specific address, or the socket that was bound last.
					c := s.socket(s.domain)
					s.to(c, 3, netip.AddrPortFrom(netip.MustParseAddr(s.lo), to.Port()))
					for _, fd := range []int{a, b} {
						n, _, _, errno := s.recv(fd, 9, 0)
						s.note("%d, %v", n, errno)
					}
					s.close(c)
				}
				s.close(a)
				s.close(b)
			}
		}
	},
	"Any": func(s *udpScript) {
		a, _ := s.bound(s.any, "a")
		c, _ := s.bound(s.lo, "c")
		s.to(c, 1, netip.AddrPortFrom(netip.MustParseAddr(s.any), s.name(a).Port()))
		s.from(a, 9, 0)
		s.to(a, 2, s.name(c))
		s.from(c, 9, 0)
		s.to(c, 1, netip.AddrPortFrom(netip.MustParseAddr(s.lo2), s.name(a).Port()))
		s.from(a, 9, 0)
		d := s.socket(s.domain)
		s.to(d, 1, s.name(c)) // it is bound by that
		s.note("%v", s.name(d).Addr())
		s.note("connect to any: %v", s.connect(d, netip.AddrPortFrom(netip.MustParseAddr(s.any), s.name(a).Port())))
		s.ports[s.name(d).Port()] = "d"
		s.names(d)
		s.close(a)
		s.close(c)
		s.close(d)
	},
	"Self": func(s *udpScript) {
		a, to := s.bound(s.lo, "a")
		s.note("connect: %v", s.connect(a, to))
		s.to(a, 3, none)
		s.from(a, 9, 0)
		s.close(a)
	},
}

func TestUDPLikeLinux(t *testing.T) {
	v4 := udpScript{domain: AF_INET, lo: "127.0.0.1", lo2: "127.5.6.7", any: "0.0.0.0", wide: "255.255.255.255",
		far: "192.0.2.7", odd: "::1", most: udpMaxLen4}
	v6 := udpScript{domain: AF_INET6, lo: "::1", lo2: "::1", any: "::", wide: "::1",
		far: "2001:db8::7", odd: "::ffff:127.0.0.1", most: udpMaxLen6}
	mapped := v4
	mapped.domain, mapped.odd, mapped.most = AF_INET6, "::1", udpMaxLen4
	for _, a := range []*string{&mapped.lo, &mapped.lo2, &mapped.any, &mapped.wide, &mapped.far} {
		*a = "::ffff:" + *a
	}
	for kind, base := range map[string]udpScript{"v4": v4, "v6": v6, "mapped": mapped} {
		for name, script := range udpScripts {
			t.Run(kind+"/"+name, func(t *testing.T) {
				k := udpStack(t)
				ours, theirs := base, base
				ours.udpSystem, ours.ports = ownUDP{own{t, k.NewProc()}}, map[uint16]string{}
				theirs.udpSystem, theirs.ports = linuxUDP{linux{t: t}}, map[uint16]string{}
				script(&ours)
				script(&theirs)
				sameNotes(t, ours.notes, theirs.notes)
			})
		}
	}
}

func sameNotes(t *testing.T, ours, theirs []string) {
	t.Helper()
	for i := range max(len(ours), len(theirs)) {
		var o, l string
		if i < len(ours) {
			o = ours[i]
		}
		if i < len(theirs) {
			l = theirs[i]
		}
		if o != l {
			t.Errorf("call %d:\n%s; Linux:\n%s", i, o, l)
		}
	}
}
