//go:build linux

package tun

import (
	"encoding/binary"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// What the ioctls of open_linux.go cannot do, rtnetlink(7) does: they set no IPv6 address without
// duplicate address detection, which keeps an address from use for a second.

// addAddr gives an interface an IPv6 address, as "ip addr add … nodad" does. It is no error if the
// interface has the address already.
func addAddr(ifindex uint32, p netip.Prefix) error {
	ne := binary.NativeEndian
	b := make([]byte, unix.NLMSG_HDRLEN, 64)
	// struct ifaddrmsg
	b = append(b, unix.AF_INET6, byte(p.Bits()), unix.IFA_F_NODAD, unix.RT_SCOPE_UNIVERSE)
	b = ne.AppendUint32(b, ifindex)
	for _, attr := range [...]uint16{unix.IFA_LOCAL, unix.IFA_ADDRESS} {
		b = ne.AppendUint16(ne.AppendUint16(b, unix.SizeofRtAttr+16), attr)
		b = append(b, p.Addr().AsSlice()...)
	}
	reply, err := netlink(b, unix.RTM_NEWADDR, unix.NLM_F_REQUEST|unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
	if err != nil {
		return err
	}
	return netlinkAck(reply)
}

// awaitLocal waits until the kernel takes packets to an address as its own. It makes the route for
// that on another thread, a moment after it has acknowledged the address. awaitLocal does not wait
// for more than a second.
func awaitLocal(a netip.Addr) {
	for range 1000 {
		if local, err := isLocal(a); local || err != nil {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// isLocal reports whether the kernel takes packets to an IPv6 address as its own.
func isLocal(a netip.Addr) (bool, error) {
	ne := binary.NativeEndian
	b := make([]byte, unix.NLMSG_HDRLEN+unix.SizeofRtMsg, 64)
	b[unix.NLMSG_HDRLEN], b[unix.NLMSG_HDRLEN+1] = unix.AF_INET6, 128 // struct rtmsg
	b = ne.AppendUint16(ne.AppendUint16(b, unix.SizeofRtAttr+16), unix.RTA_DST)
	b = append(b, a.AsSlice()...)
	reply, err := netlink(b, unix.RTM_GETROUTE, unix.NLM_F_REQUEST)
	if err != nil {
		return false, err
	}
	return routeType(reply) == unix.RTN_LOCAL, nil
}

// routeType returns the type of the route in a message, or RTN_UNSPEC if there is none.
func routeType(b []byte) byte {
	const typ = unix.NLMSG_HDRLEN + 7 // rtm_type
	if len(b) <= typ || binary.NativeEndian.Uint16(b[4:]) != unix.RTM_NEWROUTE {
		return unix.RTN_UNSPEC
	}
	return b[typ]
}

// netlink sends a request, whose header it fills in, and returns the reply.
func netlink(request []byte, typ, flags uint16) ([]byte, error) {
	ne := binary.NativeEndian
	ne.PutUint32(request, uint32(len(request))) // struct nlmsghdr
	ne.PutUint16(request[4:], typ)
	ne.PutUint16(request[6:], flags)
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer unix.Close(s)
	if err := unix.Sendto(s, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	b := make([]byte, 4096)
	for {
		n, _, err := unix.Recvfrom(s, b, 0)
		if err != unix.EINTR {
			return b[:max(n, 0)], err
		}
	}
}

// netlinkAck returns the error in an acknowledgment (struct nlmsgerr), or EBADMSG if b is none.
func netlinkAck(b []byte) error {
	ne := binary.NativeEndian
	if len(b) < unix.NLMSG_HDRLEN+4 || ne.Uint16(b[4:]) != unix.NLMSG_ERROR {
		return unix.EBADMSG
	}
	if errno := int32(ne.Uint32(b[unix.NLMSG_HDRLEN:])); errno != 0 {
		return unix.Errno(-errno)
	}
	return nil
}
