package link

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// A tunnel's datagrams are not fragmented. When the path turns out to carry less than the MTU, packets that no longer fit are dropped, and their
// senders told as a router would (RFC 1191): an ICMP message comes out of Read.

// minPath is the least that a path is believed to carry: what every host takes (RFC 1122, 3.3.3).
const minPath = 576

// limitTime is how long a path's MTU is believed, in nanoseconds. Then a packet is tried; the system, which holds on to what routers say for ten
// minutes, refuses it if nothing has changed.
const limitTime = 10_000_000_000

// setMTU sets the MTU of a tunnel that is being opened.
func (l *UDPTunnel) setMTU(mtu int, peer netip.AddrPort) {
	if mtu == 0 {
		mtu = defaultUDPMTU
		if peer.IsValid() {
			if path := pathMTU(peer); path > 0 {
				mtu = max(l.inner(path, peer), minMTU)
			}
		}
	}
	l.mtu = mtu
	l.tx.limit = mtu
}

// inner returns the largest packet whose datagram a path carries.
func (l *UDPTunnel) inner(path int, peer netip.AddrPort) int {
	headers := udpOverIPv6
	if peer.Addr().Is4() {
		headers = udpOverIPv4
	}
	return min(path-headers, maxUDPPayload) - l.overhead
}

// pathLimit returns the largest packet that is sent. l.wmu is held.
func (l *UDPTunnel) pathLimit() int {
	if l.tx.limit < l.mtu && l.now() >= l.tx.limited {
		l.tx.limit = l.mtu
	}
	return l.tx.limit
}

// learnLimit finds out what the path carries, after the system has refused a datagram with a packet of size bytes. l.wmu is held.
func (l *UDPTunnel) learnLimit(to netip.AddrPort, size int) {
	limit := l.inner(max(pathMTU(to), minPath), to)
	for _, p := range plateaus {
		if limit < size {
			break
		}
		limit = l.inner(p, to) // the system does not say: it may have been asked in another network namespace
	}
	l.tx.limit = max(min(limit, size-1), minMTU)
	l.tx.limited = l.now() + limitTime
}

// plateaus are the MTUs that are tried where the system does not tell that of the path (RFC 1191, 7.1).
var plateaus = [...]int{32000, 17914, 9000, 8166, 4352, 2002, 1500, 1492, 1280, 1006, minPath}

// tooLarge drops a packet, and tells its sender what would have fitted.
func (l *UDPTunnel) tooLarge(bufs net.Buffers, limit int) {
	l.stats.tooLarge.Add(1)
	var start [60 + 8]byte
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
func (l *UDPTunnel) takeICMP(bufs [][]byte, sizes []int) int {
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
const fragNeededLen = 20 + 8 + 60 + 8

// fragNeeded makes in b the ICMP message "fragmentation needed and DF set" (RFC 792; RFC 1191, 4) about a packet that begins with p, from its
// destination to its source, and returns its length. It returns 0 for a packet of which no router would tell (RFC 1122, 3.2.2; RFC 1812, 4.3.2.7):
// one that may be fragmented or is a later fragment, an ICMP error, one from or to no single host, and one that is not IPv4.
func fragNeeded(b, p []byte, mtu int) int {
	if len(p) < 20 || p[0]>>4 != 4 {
		return 0
	}
	hlen := int(p[0]&15) * 4
	if hlen < 20 || len(p) < hlen+8 {
		return 0
	}
	const df, offset = 0x4000, 0x1fff
	if frag := binary.BigEndian.Uint16(p[6:]); frag&df == 0 || frag&offset != 0 {
		return 0
	}
	const icmp, echoReply, echo = 1, 0, 8
	if p[9] == icmp && p[hlen] != echo && p[hlen] != echoReply {
		return 0
	}
	for _, at := range [...]int{12, 16} {
		if a := netip.AddrFrom4([4]byte(p[at:])); a.IsMulticast() || a.IsUnspecified() || a.IsLoopback() || a.As4()[0] >= 240 {
			return 0
		}
	}
	n := 20 + 8 + hlen + 8
	b = b[:n]
	clear(b[:28])
	b[0] = 0x45
	binary.BigEndian.PutUint16(b[2:], uint16(n))
	b[8] = 64
	b[9] = icmp
	copy(b[12:], p[16:20])
	copy(b[16:], p[12:16])
	b[20], b[21] = 3, 4
	binary.BigEndian.PutUint16(b[26:], uint16(mtu))
	copy(b[28:], p[:hlen+8])
	binary.BigEndian.PutUint16(b[10:], onesSum(b[:20]))
	binary.BigEndian.PutUint16(b[22:], onesSum(b[20:]))
	return n
}

// onesSum returns the Internet checksum (RFC 1071) of an even number of bytes.
func onesSum(b []byte) uint16 {
	var sum uint32
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
