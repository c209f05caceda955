package kern

import (
	"syscall"

	"bsdnet/internal/kern/wire"
)

// Options of datagram sockets of the levels IPPROTO_IP and IPPROTO_IPV6, with FreeBSD's numbers.
// See Joingroup, Leavegroup and Setmcastif for those whose values are no numbers.
const (
	IP_MULTICAST_TTL  = 10
	IP_MULTICAST_LOOP = 11
	IP_DONTFRAG       = 67

	// UDP_SEGMENT, of the level IPPROTO_UDP, is Linux's: data that is longer is sent as datagrams
	// of that many bytes, and a shorter last one.
	UDP_SEGMENT = 103

	IPV6_MULTICAST_HOPS = 10
	IPV6_MULTICAST_LOOP = 11
	IPV6_DONTFRAG       = 62
)

// Bits of dgram.opts.
const (
	dgDontfrag = 1 << iota // IP_DONTFRAG, IPV6_DONTFRAG: datagrams longer than the MTU are refused
)

// setFlag sets or clears a bit of opts.
func (dg *dgram) setFlag(bit uint8, on bool) {
	if on {
		dg.opts |= bit
	} else {
		dg.opts &^= bit
	}
}

// dgCtloutput sets an option that only datagram sockets have. It reports false if it is none. The
// socket is locked.
func (so *Socket) dgCtloutput(level, name, val int) (syscall.Errno, bool) {
	dg := so.dg
	dg.route = dgroute{} // the option may be part of it
	switch {
	case level == IPPROTO_IP && name == IP_MULTICAST_TTL, level == IPPROTO_IPV6 && name == IPV6_MULTICAST_HOPS:
		if val == -1 {
			val = int(defaultMoptions.ttl)
		}
		if val < 0 || val > 255 {
			return syscall.EINVAL, true
		}
		dg.setMoptions().ttl = uint8(val)
	case level == IPPROTO_IP && name == IP_MULTICAST_LOOP, level == IPPROTO_IPV6 && name == IPV6_MULTICAST_LOOP:
		dg.setMoptions().loop = val != 0
	case level == IPPROTO_IP && name == IP_DONTFRAG, level == IPPROTO_IPV6 && name == IPV6_DONTFRAG:
		dg.setFlag(dgDontfrag, val != 0)
	case level == wire.ProtoUDP && name == UDP_SEGMENT && so.proto.proto == wire.ProtoUDP:
		if val < 0 || val > wire.MaxPacket {
			return syscall.EINVAL, true
		}
		dg.gso = val
	default:
		return 0, false
	}
	return 0, true
}

// dgGetoption reads an option that only datagram sockets have. It reports false if it is none.
func (so *Socket) dgGetoption(level, name int) (int, bool) {
	dg := so.dg
	b2i := func(on bool) (int, bool) {
		if on {
			return 1, true
		}
		return 0, true
	}
	switch {
	case level == IPPROTO_IP && name == IP_MULTICAST_TTL, level == IPPROTO_IPV6 && name == IPV6_MULTICAST_HOPS:
		return int(dg.moptions().ttl), true
	case level == IPPROTO_IP && name == IP_MULTICAST_LOOP, level == IPPROTO_IPV6 && name == IPV6_MULTICAST_LOOP:
		return b2i(dg.moptions().loop)
	case level == IPPROTO_IP && name == IP_DONTFRAG, level == IPPROTO_IPV6 && name == IPV6_DONTFRAG:
		return b2i(dg.opts&dgDontfrag != 0)
	case level == wire.ProtoUDP && name == UDP_SEGMENT && so.proto.proto == wire.ProtoUDP:
		return dg.gso, true
	}
	return 0, false
}
