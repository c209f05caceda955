package udptunnel

import (
	"encoding/binary"
	"net"
	"net/netip"

	"bsdnet/internal/kern/wire"
	"bsdnet/internal/link"
)

// The tunnel does not let its datagrams be fragmented, as long as it can avoid that. If the path
// turns out to carry less than the MTU, the tunnel drops packets that no longer fit and tells their
// sender as a router would (RFC 1191, RFC 8201): Read returns an ICMP message. The datagrams of
// packets whose sender need not make them smaller are sent in fragments.

// minPath is the smallest path MTU that is believed, in bytes: the datagram size that every host
// accepts (RFC 1122, 3.3.3).
const minPath = 576

// limitTime is how long a path's MTU is believed, in nanoseconds. Then the tunnel tries a larger
// packet. If the path has not changed, the system refuses it, because it remembers for ten minutes
// what routers say.
const limitTime = 10_000_000_000

// setMTU sets the MTU of a tunnel that is being opened, and what is known of the path.
func (l *Link) setMTU(mtu int, peer endpoint) {
	fits := defaultMTU
	if peer.IsValid() {
		if path := l.io.pathMTU(peer); path > 0 {
			fits = max(l.inner(path, peer), link.MinMTU)
		}
	}
	if mtu != 0 {
		fits = mtu // the system may know less than the caller
	}
	l.mtu = fits
	if mtu == 0 {
		l.mtu = max(fits, wire.IPv6MinMTU)
	}
	l.tx.limit, l.tx.limited = fits, limitTime
}

// inner returns the size of the largest packet whose datagram fits into a path MTU.
func (l *Link) inner(path int, peer endpoint) int {
	return min(path-peer.headers(), maxPayload) - l.overhead
}

// pathLimit returns the size of the largest packet that may be sent now. l.wmu is held.
func (l *Link) pathLimit() int {
	if l.tx.limit < l.mtu && l.now() >= l.tx.limited {
		l.tx.limit = l.mtu
	}
	return l.tx.limit
}

// learnLimit finds out what the path carries, after the system has refused a datagram that carries
// a packet of size bytes. l.wmu is held.
func (l *Link) learnLimit(to endpoint, size int) {
	limit := l.inner(max(l.io.pathMTU(to), minPath), to)
	for _, p := range plateaus {
		if limit < size {
			break
		}
		// The system knows no smaller MTU, perhaps because it was asked in another network
		// namespace.
		limit = l.inner(p, to)
	}
	l.tx.limit = max(min(limit, size-1), link.MinMTU)
	l.tx.limited = l.now() + limitTime
}

// plateaus are the path MTUs that are tried if the system does not know the path's (RFC 1191, 7.1).
var plateaus = [...]int{32000, 17914, 9000, 8166, 4352, 2002, 1500, 1492, 1280, 1006, minPath}

// inPieces reports whether the datagram of a packet that does not fit is sent in fragments. The
// packet is one whose sender cannot be told to make it smaller: an IPv4 packet without DF, and an
// IPv6 packet that every link has to carry (RFC 2473, 7.1, on packets of up to 1280 bytes). size is
// the packet's.
func inPieces(bufs net.Buffers, size int) bool {
	var start [7]byte
	n := 0
	for _, b := range bufs {
		n += copy(start[n:], b)
	}
	switch {
	case n < len(start):
		return false
	case start[0]>>4 == 4:
		return start[6]&(wire.IPDF>>8) == 0
	}
	return start[0]>>4 == 6 && size <= wire.IPv6MinMTU
}

// tooLarge drops a packet, and queues a message that tells its sender what fits.
func (l *Link) tooLarge(bufs net.Buffers, limit int) {
	l.stats.tooLarge.Add(1)
	var start [max(quoted6, wire.IPv4MaxLen+8)]byte
	n := 0
	for _, b := range bufs {
		n += copy(start[n:], b)
	}
	l.imu.Lock()
	ok := l.icmp.put(start[:n], limit, l.now())
	l.imu.Unlock()
	if ok {
		l.io.SetReadDeadline(past) // wakes Read
	}
}

// takeICMP copies queued messages into a reader's buffers, and returns how many.
func (l *Link) takeICMP(bufs [][]byte, sizes []int) int {
	l.imu.Lock()
	defer l.imu.Unlock()
	n := 0
	for n < len(bufs) {
		b := l.icmp.take()
		if b == nil {
			break
		}
		if len(b) <= len(bufs[n]) {
			sizes[n] = copy(bufs[n], b)
			n++
		}
	}
	return n
}

// An icmpQueue holds a few messages for the reader, and limits their rate.
type icmpQueue struct {
	msgs    [8][]byte // their buffers are made when they are first needed
	head, n int
	since   int64 // when the period began
	made    int   // messages in this period
}

// An icmpQueue takes icmpBurst messages in icmpPeriod nanoseconds.
const (
	icmpPeriod = 100_000_000
	icmpBurst  = 16
)

// put makes a message about a packet that begins with start, and reports whether it has made one.
func (q *icmpQueue) put(start []byte, mtu int, now int64) bool {
	if now-q.since >= icmpPeriod {
		q.since, q.made = now, 0
	}
	if q.n == len(q.msgs) || q.made == icmpBurst {
		return false
	}
	i := (q.head + q.n) % len(q.msgs)
	if q.msgs[i] == nil {
		q.msgs[i] = make([]byte, wire.IPv6MinMTU)
	}
	n := fragNeeded(q.msgs[i][:cap(q.msgs[i])], start, mtu)
	if n == 0 {
		n = packetTooBig(q.msgs[i][:cap(q.msgs[i])], start, mtu)
	}
	if n == 0 {
		return false
	}
	q.msgs[i] = q.msgs[i][:n]
	q.n++
	q.made++
	return true
}

// take returns the oldest message, or nil. It is valid until the next put.
func (q *icmpQueue) take() []byte {
	if q.n == 0 {
		return nil
	}
	i := q.head
	q.head = (q.head + 1) % len(q.msgs)
	q.n--
	return q.msgs[i]
}

// fragNeededLen is the length of the longest message that fragNeeded makes: an IP header, an ICMP
// header, and the original IP header with options and 8 bytes of what follows it.
const fragNeededLen = wire.IPv4MinLen + wire.ICMPLen + wire.IPv4MaxLen + 8

// fragNeeded writes into b the ICMP message "fragmentation needed and DF set" (RFC 792; RFC 1191,
// 4) about a packet that begins with p, from the packet's destination to its source. It returns the
// message's length. It returns 0 for packets about which a router sends no message (RFC 1122,
// 3.2.2; RFC 1812, 4.3.2.7): those that may be fragmented, later fragments, ICMP errors, packets
// from or to an address that is not a single host's, and packets that are not IPv4.
func fragNeeded(b, p []byte, mtu int) int {
	orig, ok := wire.ViewIPv4(p)
	if !ok || len(orig.Payload()) < 8 || orig.Flags()&wire.IPDF == 0 || orig.Off() != 0 {
		return 0
	}
	if t := orig.Payload()[0]; orig.Proto() == wire.ProtoICMP && t != wire.ICMPEcho && t != wire.ICMPEchoReply {
		return 0
	}
	for _, a := range [...]netip.Addr{orig.Src(), orig.Dst()} {
		if a.IsMulticast() || a.IsUnspecified() || a.IsLoopback() || a.As4()[0] >= 240 {
			return 0
		}
	}
	quoted := orig.Hlen() + 8
	n := wire.IPv4MinLen + wire.ICMPLen + quoted
	b = b[:n]
	ip := wire.IPv4{Src: orig.Dst(), Dst: orig.Src(), Len: n, TTL: 64, Proto: wire.ProtoICMP}
	ip.Put(b)
	message := b[wire.IPv4MinLen:]
	wire.ICMP{Type: wire.ICMPUnreach, Code: wire.ICMPUnreachNeedfrag, Rest: uint32(mtu)}.Put(message)
	copy(message[wire.ICMPLen:], p[:quoted])
	binary.BigEndian.PutUint16(message[2:], wire.InCksum(message))
	return n
}

// quoted6 is how many bytes of a packet a message about it quotes. RFC 4443, 2.4: "as much of the
// IPv6 offending (invoking) packet (the packet that caused the error) as possible without making
// the error message packet exceed the minimum IPv6 MTU".
const quoted6 = wire.IPv6MinMTU - wire.IPv6Len - wire.ICMPLen

// packetTooBig writes into b the ICMPv6 message "packet too big" (RFC 4443, 3.2) about a packet
// that begins with p, from the packet's destination to its source. It returns the message's length.
// It returns 0 for packets about which a router sends no message (RFC 4443, 2.4): ICMPv6 errors and
// redirects, packets whose source is not a single host, and packets that are not IPv6. It returns 0
// about packets to a multicast address too, because that cannot be the source of the message.
func packetTooBig(b, p []byte, mtu int) int {
	orig, ok := wire.ViewIPv6(p)
	if !ok {
		return 0
	}
	// An ICMPv6 error fits into the minimum MTU, so no later fragment is part of one.
	if proto, off, ok := wire.UpperLayer(p); ok && proto == wire.ProtoICMPv6 &&
		(p[off]&wire.ICMPv6Info == 0 || p[off] == wire.ICMPv6Redirect) {
		return 0
	}
	for _, a := range [...]netip.Addr{orig.Src(), orig.Dst()} {
		if a.IsMulticast() || a.IsUnspecified() || a.IsLoopback() || a.Is4In6() {
			return 0
		}
	}
	p = p[:min(len(p), quoted6)]
	n := wire.IPv6Len + wire.ICMPLen + len(p)
	b = b[:n]
	ip := wire.IPv6{Src: orig.Dst(), Dst: orig.Src(), Len: n, Hlim: 64, Next: wire.ProtoICMPv6}
	ip.Put(b)
	message := b[wire.IPv6Len:]
	// No node makes its packets smaller than the minimum MTU (RFC 8201, 4).
	wire.ICMP{Type: wire.ICMPv6PacketTooBig, Rest: uint32(max(mtu, wire.IPv6MinMTU))}.Put(message)
	copy(message[wire.ICMPLen:], p)
	sum := wire.PseudoSum(ip.Src, ip.Dst, wire.ProtoICMPv6, len(message))
	binary.BigEndian.PutUint16(message[wire.ICMPSumOff:], ^wire.Fold(wire.Sum(message, sum)))
	return n
}
