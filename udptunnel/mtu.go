package udptunnel

import (
	"encoding/binary"
	"net"
	"net/netip"

	"bsdnet/internal/kern/wire"
	"bsdnet/internal/link"
)

// A tunnel's datagrams are not fragmented. When the path turns out to carry less than the MTU, packets that no longer fit are dropped, and their
// senders told as a router would (RFC 1191): an ICMP message comes out of Read.

// minPath is the least that a path is believed to carry: what every host takes (RFC 1122, 3.3.3).
const minPath = 576

// limitTime is how long a path's MTU is believed, in nanoseconds. Then a packet is tried; the system, which holds on to what routers say for ten
// minutes, refuses it if nothing has changed.
const limitTime = 10_000_000_000

// setMTU sets the MTU of a tunnel that is being opened.
func (l *Link) setMTU(mtu int, peer netip.AddrPort) {
	if mtu == 0 {
		mtu = defaultMTU
		if peer.IsValid() {
			if path := pathMTU(peer); path > 0 {
				mtu = max(l.inner(path, peer), link.MinMTU)
			}
		}
	}
	l.mtu = mtu
	l.tx.limit = mtu
}

// inner returns the largest packet whose datagram a path carries.
func (l *Link) inner(path int, peer netip.AddrPort) int {
	headers := overIPv6
	if peer.Addr().Is4() {
		headers = overIPv4
	}
	return min(path-headers, maxPayload) - l.overhead
}

// pathLimit returns the largest packet that is sent. l.wmu is held.
func (l *Link) pathLimit() int {
	if l.tx.limit < l.mtu && l.now() >= l.tx.limited {
		l.tx.limit = l.mtu
	}
	return l.tx.limit
}

// learnLimit finds out what the path carries, after the system has refused a datagram with a packet of size bytes. l.wmu is held.
func (l *Link) learnLimit(to netip.AddrPort, size int) {
	limit := l.inner(max(pathMTU(to), minPath), to)
	for _, p := range plateaus {
		if limit < size {
			break
		}
		limit = l.inner(p, to) // the system does not say: it may have been asked in another network namespace
	}
	l.tx.limit = max(min(limit, size-1), link.MinMTU)
	l.tx.limited = l.now() + limitTime
}

// plateaus are the MTUs that are tried where the system does not tell that of the path (RFC 1191, 7.1).
var plateaus = [...]int{32000, 17914, 9000, 8166, 4352, 2002, 1500, 1492, 1280, 1006, minPath}

// tooLarge drops a packet, and tells its sender what would have fitted.
func (l *Link) tooLarge(bufs net.Buffers, limit int) {
	l.stats.tooLarge.Add(1)
	var start [wire.IPv4MaxLen + 8]byte
	n := 0
	for _, b := range bufs {
		n += copy(start[n:], b)
	}
	l.imu.Lock()
	ok := l.icmp.put(start[:n], limit, l.now())
	l.imu.Unlock()
	if ok {
		l.conn.SetReadDeadline(past) // wakes Read
	}
}

// takeICMP gives messages to a reader.
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

// An icmpQueue holds messages on their way to the reader: a few, and not many in a second.
type icmpQueue struct {
	msgs    [8][fragNeededLen]byte
	lens    [8]int
	head, n int
	since   int64 // of the period
	made    int   // in this period
}

// Bounds of what an icmpQueue takes: icmpBurst in icmpPeriod nanoseconds.
const (
	icmpPeriod = 100_000_000
	icmpBurst  = 16
)

// put makes a message about a packet that begins with start, and reports whether there is one.
func (q *icmpQueue) put(start []byte, mtu int, now int64) bool {
	if now-q.since >= icmpPeriod {
		q.since, q.made = now, 0
	}
	if q.n == len(q.msgs) || q.made == icmpBurst {
		return false
	}
	i := (q.head + q.n) % len(q.msgs)
	q.lens[i] = fragNeeded(q.msgs[i][:], start, mtu)
	if q.lens[i] == 0 {
		return false
	}
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
	return q.msgs[i][:q.lens[i]]
}

// fragNeededLen is the length of the longest message that fragNeeded makes: two IP headers, one with options, that of ICMP, and eight bytes.
const fragNeededLen = wire.IPv4MinLen + wire.ICMPLen + wire.IPv4MaxLen + 8

// fragNeeded makes in b the ICMP message "fragmentation needed and DF set" (RFC 792; RFC 1191, 4) about a packet that begins with p, from its
// destination to its source, and returns its length. It returns 0 for a packet of which no router would tell (RFC 1122, 3.2.2; RFC 1812, 4.3.2.7):
// one that may be fragmented or is a later fragment, an ICMP error, one from or to no single host, and one that is not IPv4.
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
