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

// socket sends datagrams and never waits. If the kernel and the device support it, it sends many
// datagrams of one size in one call (UDP_SEGMENT, udp(7)).
type socket struct {
	raw syscall.RawConn
	ip6 bool // the socket is of family AF_INET6
	one bool // one datagram per call: UDP_SEGMENT is not supported

	// The kernel's form of one destination, and the number of one zone, are remembered until a call
	// fails.
	to     netip.AddrPort
	in4    unix.SockaddrInet4
	in6    unix.SockaddrInet6
	zone   string
	zoneID uint32

	// The calls are bound once, because a closure per call would be garbage. These fields also have
	// the arguments and results of call.
	fragment, dontFragment, call func(fd uintptr)

	b     []byte
	oob   []byte
	errno error
	sent  int

	// The socket has a queue of ICMP messages about datagrams that it has sent (IP_RECVERR, ip(7)).
	emu   sync.Mutex                         // guards eoob
	eoob  []byte                             // the control messages of one ICMP message
	noted func(err error, to netip.AddrPort) // is called with each ICMP message

	control []byte
	calls   int                       // how many calls were made, for tests
	fail    func(datagrams int) error // an error to return instead of a call, for tests
}

func (s *socket) init(conn *net.UDPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	s.raw = raw
	s.control = segmentControl()
	s.eoob = make([]byte, 512)
	s.fragment = func(fd uintptr) { s.setDiscovery(int(fd), unix.IP_PMTUDISC_DONT, unix.IPV6_PMTUDISC_DONT) }
	s.dontFragment = func(fd uintptr) { s.setDiscovery(int(fd), unix.IP_PMTUDISC_DO, unix.IPV6_PMTUDISC_DO) }
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

// setOptions asks the kernel for large buffers, coalesced datagrams, no fragments, and ICMP
// messages. The kernel may lack any of these, so errors are ignored.
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
	s.dontFragment(uintptr(fd))
	unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_RECVERR, 1)
	if s.ip6 {
		unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVERR, 1)
	}
}

// segmentControl makes the control message that carries the size of datagrams. send fills the size
// in, in native byte order.
func segmentControl() []byte {
	b := make([]byte, unix.CmsgSpace(2))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = unix.SOL_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	return b
}

// send sends the datagrams that b consists of, each of size bytes except the last, and returns how
// many it has sent before the error. If the kernel refuses to cut b, send sends them one by one.
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
			s.one = true // the device computes no checksums, or the kernel has no UDP_SEGMENT
		case unix.EINVAL, errTooLarge: // sending the first one alone shows the reason
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

// sendTries is how often sendmsg tries to send, if the errors are about datagrams that were sent
// before.
const sendTries = 4

// sendmsg makes one call. If the call returns the error of a datagram that was sent before, sendmsg
// makes another: a forged ICMP message must not lose a datagram, and must not be mistaken for a
// limit of the kernel or the path.
func (s *socket) sendmsg(b, oob []byte, datagrams int) error {
	for try := 1; ; try++ {
		err := s.sendOnce(b, oob, datagrams)
		if err == nil || err == errFull || s.drain() == 0 || try == sendTries {
			return err
		}
	}
}

// sendOnce makes one call, and repeats it if a signal interrupts it.
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
		s.to, s.zone = netip.AddrPort{}, "" // the interface may have a different number by now
		return s.errno
	}
}

// sendInPieces sends one datagram, which the kernel and the routers of the path may fragment.
func (s *socket) sendInPieces(b []byte, to netip.AddrPort) error {
	s.aim(to)
	s.raw.Control(s.fragment)
	err := s.sendmsg(b, nil, 1)
	s.raw.Control(s.dontFragment)
	return err
}

// setDiscovery says whether datagrams are fragmented. A socket of both families has both options.
func (s *socket) setDiscovery(fd, ip4, ip6 int) {
	unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_MTU_DISCOVER, ip4)
	if s.ip6 {
		unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, ip6)
	}
}

// aim converts the destination into the kernel's form.
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

// zoneIndex returns the number of the interface that a zone names. The zone may be a number itself.
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

// maxDrain is how many ICMP messages drain takes at once, because an attacker may send them faster
// than they are read.
const maxDrain = 64

// drain takes the ICMP messages off the socket's queue and returns how many there were. The queue
// uses the same memory as the datagrams that arrive.
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

// extendedError returns the errno that stands for an ICMP message, from its control messages
// (struct sock_extended_err, ip(7)). It returns 0 if the kernel itself reports that a datagram was
// not sent, because the call that sent it has returned that error.
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

// fromSockaddr returns the destination of the datagram that an ICMP message is about, without its
// zone.
func fromSockaddr(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return unmap(netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)))
	}
	return netip.AddrPort{}
}

// waitForRoom waits until the socket takes datagrams or is closed.
func (s *socket) waitForRoom() {
	s.raw.Write(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		n, err := unix.Poll(p, 0)
		return n > 0 || err != nil && err != unix.EINTR
	})
}

// segmentSize returns the size of the datagrams, except the last, in a read of n bytes: UDP_GRO.
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

// pathMTU returns the MTU of the route to a host as the system knows it, in bytes including the IP
// header, or 0 if it does not know.
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
