package bsdnet

import (
	"context"
	"net"
	"net/netip"
	"syscall"
	"time"

	"bsdnet/internal/kern"
)

// PingConfig says what [Stack.Ping] sends. The zero PingConfig is ready to use.
type PingConfig struct {
	// Size is how many bytes of data the request has, which come back with the answer: up to 65507,
	// or 65527 over IPv6. What is longer than the MTU goes in fragments. Over IPv4, routers cut
	// what is longer than the MTU of a link on the way; over IPv6, they report it.
	Size int

	// TTL is the time to live of the request, or its hop limit over IPv6: 1 to 255. Each router
	// takes one off, and the one that finds nothing left reports it. If it is 0, it is 64.
	TTL int

	// DontFragment forbids fragments: if the request is longer than the MTU of the link, the error
	// is syscall.EMSGSIZE, and if it is longer than that of a link on the way, the router that
	// finds out reports it.
	DontFragment bool

	// Source is one of the stack's addresses, from which the request is sent. If it is the zero
	// Addr, the stack chooses one.
	Source netip.Addr
}

// A PingReply is the answer to a request of [Stack.Ping].
type PingReply struct {
	From netip.Addr    // whose answer it is
	RTT  time.Duration // the time from the request to the answer
	TTL  int           // time to live, or hop limit, with which the answer has arrived
}

// A PingError is what a router, or the destination, has reported about a request of [Stack.Ping],
// by an ICMP message (RFC 792) or an ICMPv6 message (RFC 4443).
type PingError struct {
	From       netip.Addr    // who has reported it
	RTT        time.Duration // the time from the request to the report
	Type, Code int           // of the message
	MTU        int           // how long a packet may be, if the request was too long and the report says that, in bytes

	// Err is the errno that stands for the report: syscall.EHOSTUNREACH if there is no way to the
	// destination, or if the TTL was exhausted; ECONNREFUSED if the destination, or a router's
	// rules, refuse the request; EMSGSIZE if the request was too long for a link and may not be
	// fragmented.
	Err error
}

// Error says what has been reported, and by whom.
func (e *PingError) Error() string {
	what := e.Err.Error()
	if e.TTLExceeded() {
		what = "time to live exceeded"
	}
	return what + ", as " + e.From.String() + " reports"
}

// Unwrap returns Err.
func (e *PingError) Unwrap() error { return e.Err }

// TTLExceeded reports whether a router has found the request's TTL exhausted: traceroute(8) sends
// requests with a rising TTL, and so finds the routers on the way.
func (e *PingError) TTLExceeded() bool {
	if e.From.Is4() {
		return e.Type == 11
	}
	return e.Type == 3
}

// Ping sends an ICMP echo request to an address, and returns the answer to it. A link-local address
// has a zone, the name of its interface. Ping waits until ctx ends; then the error matches that of
// ctx, like that of a dial. It sends one request only.
//
// If a router, or the destination, reports that the request has failed, the error wraps a
// *[PingError]. If the request could not be sent, it wraps a syscall.Errno: ENETUNREACH if there is
// no route, EADDRNOTAVAIL if Source is not the stack's, EACCES for a broadcast address, EINVAL for
// an address or a TTL that makes no sense, EMSGSIZE if Size is too large.
func (s *Stack) Ping(ctx context.Context, addr netip.Addr, c PingConfig) (PingReply, error) {
	if c.TTL == 0 {
		c.TTL = 64
	}
	err := ctxError(ctx.Err())
	if err == nil && (c.TTL < 1 || c.TTL > 255) {
		err = sysError("ping", syscall.EINVAL)
	}
	var r kern.PingReply
	if err == nil {
		var errno syscall.Errno
		r, errno = s.k.Ping(&kern.PingArgs{
			Dst: addr, Src: c.Source, Size: c.Size, TTL: uint8(c.TTL), DF: c.DontFragment,
		}, ctx.Done())
		switch {
		case errno == syscall.EAGAIN:
			err = diagnose(ctxError(ctx.Err()), func() error { return s.k.Diagnose(c.Source, addr) })
		case errno != 0:
			err = sysError("ping", errno)
		case r.Errno != 0:
			err = &PingError{
				From: r.From, RTT: time.Duration(r.RTT), Type: int(r.Type), Code: int(r.Code), MTU: r.MTU, Err: r.Errno,
			}
		}
	}
	if err != nil {
		return PingReply{}, pingError(addr, err)
	}
	return PingReply{From: r.From, RTT: time.Duration(r.RTT), TTL: int(r.TTL)}, nil
}

// pingError returns an error that names the address.
func pingError(addr netip.Addr, err error) error {
	op := &net.OpError{Op: "ping", Net: "ip4:icmp", Err: err}
	if addr.Is6() && !addr.Is4In6() {
		op.Net = "ip6:ipv6-icmp"
	}
	if addr.IsValid() {
		op.Addr = &net.IPAddr{IP: addr.AsSlice(), Zone: addr.Zone()}
	}
	return op
}
