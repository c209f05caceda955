//go:build linux

package udptunnel

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket sends datagrams, many of one size in one call (UDP_SEGMENT) where the kernel and the device can, and never waits.
type socket struct {
	raw syscall.RawConn
	ip6 bool // the socket's family
	one bool // one datagram a call: the kernel does not cut

	// One destination is remembered in the kernel's form, and the number of one zone, as long as nothing fails.
	to     netip.AddrPort
	in4    unix.SockaddrInet4
	in6    unix.SockaddrInet6
	zone   string
	zoneID uint32

	// The arguments and results of call, which is bound once.
	call  func(fd uintptr)
	b     []byte
	oob   []byte
	errno error
	sent  int

	// ICMP messages about what was sent stand in a queue of the socket's: IP_RECVERR.
	emu   sync.Mutex                         // guards eoob
	eoob  []byte                             // the control messages of one
	noted func(err error, to netip.AddrPort) // is told of each that is taken off

	control []byte
	calls   int                       // counted for tests
	fail    func(datagrams int) error // instead of the kernel's answer, for tests
}

func (s *socket) init(conn *net.UDPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	s.raw = raw
	s.control = segmentControl()
	s.eoob = make([]byte, 512)
	s.call = func(fd uintptr) {
		var to unix.Sockaddr = &s.in4
		if s.ip6 {
			to = &s.in6
		}
		s.calls++
		s.sent, s.errno = unix.SendmsgN(int(fd), s.b, s.oob, to, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	}
	return raw.Control(func(fd uintptr) { s.setOptions(int(fd)) })
}

// setOptions asks the kernel for what it may not have: large buffers, coalesced datagrams, no fragments, and to tell what ICMP says.
func (s *socket) setOptions(fd int) {
	family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	s.ip6 = err == nil && family == unix.AF_INET6
	for _, opt := range [][2]int{{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}, {unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, opt[0], socketSpace) != nil {
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, opt[1], socketSpace)
		}
	}
	unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1)
	_, err = unix.GetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT)
	s.one = err != nil
	// A socket of both families has both options.
	unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
	unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_RECVERR, 1)
	if s.ip6 {
		unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVERR, 1)
		unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
	}
}

// segmentControl makes the control message that bears the size of datagrams; it is filled in by native byte order in send.
func segmentControl() []byte {
	b := make([]byte, unix.CmsgSpace(2))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = unix.SOL_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	return b
}

// send sends the datagrams that b is made of, each of size bytes but for the last, and returns how many it has sent before the error. What the
// kernel refuses to cut is sent one by one.
func (s *socket) send(b []byte, size int, to netip.AddrPort) (int, error) {
	s.aim(to)
	n := (len(b) + size - 1) / size
	if n > 1 && !s.one {
		binary.NativeEndian.PutUint16(s.control[unix.CmsgLen(0):], uint16(size))
		err := s.sendmsg(b, s.control, n)
		switch err {
		case nil:
			return n, nil
		case errFull:
			return 0, err
		case unix.EIO, unix.ENOPROTOOPT, unix.EOPNOTSUPP:
			s.one = true // the device sums no checksums, or the kernel does not know how
		case unix.EINVAL, errTooLarge: // what it is, shows with the first
		default:
			return 0, err
		}
	}
	for i := range n {
		if err := s.sendmsg(b[:min(size, len(b))], nil, 1); err != nil {
			return i, err
		}
		b = b[min(size, len(b)):]
	}
	return n, nil
}

// sendTries is how often a datagram is tried that is refused for the sake of another.
const sendTries = 4

// sendmsg makes one call, and again if what it returns is the error of a datagram that was sent before: a forged ICMP message must not cost a datagram, nor
// pass for what the kernel or the path cannot do.
func (s *socket) sendmsg(b, oob []byte, datagrams int) error {
	for try := 1; ; try++ {
		err := s.sendOnce(b, oob, datagrams)
		if err == nil || err == errFull || s.drain() == 0 || try == sendTries {
			return err
		}
	}
}

// sendOnce makes one call, and again if a signal interrupts it.
func (s *socket) sendOnce(b, oob []byte, datagrams int) error {
	s.b, s.oob = b, oob
	if s.fail != nil {
		if err := s.fail(datagrams); err != nil {
			return err
		}
	}
	for {
		if err := s.raw.Control(s.call); err != nil {
			return err
		}
		switch s.errno {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return errFull
		case unix.EMSGSIZE:
			return errTooLarge
		case nil:
			return nil
		}
		s.to, s.zone = netip.AddrPort{}, "" // an interface of the same name may have another number by now
		return s.errno
	}
}

// aim makes to the destination.
func (s *socket) aim(to netip.AddrPort) {
	if s.to == to {
		return
	}
	s.to = to
	s.in4 = unix.SockaddrInet4{Port: int(to.Port())}
	if zone := to.Addr().Zone(); zone != s.zone || zone == "" {
		s.zone, s.zoneID = zone, zoneIndex(zone)
	}
	s.in6 = unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16(), ZoneId: s.zoneID}
	if to.Addr().Is4() {
		s.in4.Addr = to.Addr().As4()
	}
}

// zoneIndex returns the number of an interface by its name, or by itself.
func zoneIndex(zone string) uint32 {
	if zone == "" {
		return 0
	}
	if i, err := net.InterfaceByName(zone); err == nil {
		return uint32(i.Index)
	}
	n, _ := strconv.ParseUint(zone, 10, 32)
	return uint32(n)
}

// maxDrain is how many ICMP messages are taken off at once: somebody may send them faster than they are read.
const maxDrain = 64

// drain takes the ICMP messages off the socket's queue, whose room is that of the datagrams that arrive, and returns how many there were.
func (s *socket) drain() int {
	s.emu.Lock()
	defer s.emu.Unlock()
	for n := range maxDrain {
		var oobn int
		var to unix.Sockaddr
		var errno error
		err := s.raw.Control(func(fd uintptr) {
			_, oobn, _, to, errno = unix.Recvmsg(int(fd), nil, s.eoob, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		})
		if err != nil || errno != nil {
			return n
		}
		if errno := extendedError(s.eoob[:oobn]); errno != 0 {
			s.noted(errno, fromSockaddr(to))
		}
	}
	return maxDrain
}

// extendedError returns the errno that stands for an ICMP message, by the control messages that it came with: struct sock_extended_err. 0: it is none of
// ICMP's, but the kernel's own about a datagram that did not leave, which the call has returned.
func extendedError(oob []byte) syscall.Errno {
	for len(oob) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			break
		}
		ip4 := h.Level == unix.SOL_IP && h.Type == unix.IP_RECVERR
		ip6 := h.Level == unix.SOL_IPV6 && h.Type == unix.IPV6_RECVERR
		if (ip4 || ip6) && len(data) >= 8 {
			if origin := data[4]; origin == unix.SO_EE_ORIGIN_ICMP || origin == unix.SO_EE_ORIGIN_ICMP6 {
				return syscall.Errno(binary.NativeEndian.Uint32(data))
			}
		}
		oob = rest
	}
	return 0
}

// fromSockaddr returns where the datagram of an ICMP message was to go, without its zone.
func fromSockaddr(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return unmap(netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)))
	}
	return netip.AddrPort{}
}

// waitForRoom waits until the socket takes datagrams, or is closed.
func (s *socket) waitForRoom() {
	s.raw.Write(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		n, err := unix.Poll(p, 0)
		return n > 0 || err != nil && err != unix.EINTR
	})
}

// segmentSize returns the size of the datagrams, but for the last, that a read of n bytes has brought: UDP_GRO.
func segmentSize(oob []byte, n int) int {
	for len(oob) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			break
		}
		if h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(data) >= 4 {
			if size := int(int32(binary.NativeEndian.Uint32(data))); size > 0 {
				return size
			}
		}
		oob = rest
	}
	return n
}

// pathMTU returns what the route to a host carries, in bytes with the IP header, as far as the system knows, or 0.
func pathMTU(to netip.AddrPort) int {
	family, level, option := unix.AF_INET, unix.SOL_IP, unix.IP_MTU
	var s socket
	s.aim(to)
	var sa unix.Sockaddr = &s.in4
	if !to.Addr().Is4() {
		family, level, option = unix.AF_INET6, unix.SOL_IPV6, unix.IPV6_MTU
		sa = &s.in6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	if unix.Connect(fd, sa) != nil {
		return 0
	}
	mtu, err := unix.GetsockoptInt(fd, level, option)
	if err != nil {
		return 0
	}
	return mtu
}
