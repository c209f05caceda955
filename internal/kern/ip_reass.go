package kern

import (
	"slices"
	"sync"
	"time"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// IP reassembly: BSD's ip_reass and frag6_input, with limits (CVE-2018-5391) on datagrams, on their
// bytes, on the fragments of each, and on what one source may have waiting. Both families share the
// limits. A datagram whose fragments overlap is dropped as a whole, as RFC 5722 requires for IPv6.

const (
	// RFC 1122, 3.3.2: "There MUST be a reassembly timeout. The reassembly timeout value SHOULD be
	// a fixed value". The time is BSD's, which is shorter than the minute that the RFC recommends:
	// in that time fewer fragments of a flood pile up.
	reassTime = int64(30 * time.Second)
	// RFC 8200, 4.5: "If insufficient fragments are received to complete reassembly of a packet
	// within 60 seconds of the reception of the first-arriving fragment of that packet, reassembly
	// of that packet must be abandoned".
	reassTime6     = int64(60 * time.Second)
	reassMax       = 1024    // datagrams
	reassPerSource = 64      // of them from one address
	reassBytes     = 4 << 20 // of all
	reassShare     = 1 << 20 // of them from one address
	reassFrags     = 256     // of one datagram: 64 KiB cut for 1500 bytes, and then for 576
)

// A fragKey is what the fragments of a datagram have in common. The addresses of IPv4 are mapped.
type fragKey struct {
	src, dst in6Addr
	id       uint32
	proto    uint8 // of IPv4
}

// A fragment is a fragment on its way in.
type fragment struct {
	fragKey
	ifp    *Ifnet
	m      *mbuf.Mbuf // begins with the IP headers
	hlen   int        // their length, with IPv6's fragment header
	off    int        // where the data belongs in the datagram
	n      int        // length of the data
	more   bool       // it is not the last
	tos    uint8
	fragAt int // of IPv6: see wire.Ext
}

// An ipq is a datagram that is being put together: BSD's struct ipq and struct ip6q.
type ipq struct {
	key    fragKey
	at     int64 // when the stack gives it up
	frags  []ipfrag
	total  int // length of the payload; 0 while the last fragment is missing
	have   int
	ifp    *Ifnet
	hdr    []byte // the IP headers of the first fragment
	fragAt int
	tos    uint8                 // of the first fragment
	ecn    uint8                 // a bit for each codepoint of ECN that a fragment has
	buf    [wire.IPv4MaxLen]byte // hdr, unless it is longer
}

type ipfrag struct {
	off, end int
	m        *mbuf.Mbuf
}

// A fragSource counts what one source has waiting.
type fragSource struct{ datagrams, bytes int }

// An ipReass holds the datagrams of both families that are being put together.
type ipReass struct {
	k   *Kernel
	out callout

	mu      sync.Mutex
	q       map[fragKey]*ipq
	order   []*ipq // oldest first
	sources map[in6Addr]fragSource
	bytes   int
}

func (r *ipReass) init(k *Kernel) {
	r.k = k
	r.q = map[fragKey]*ipq{}
	r.sources = map[in6Addr]fragSource{}
	r.out = k.clock.table(r)
}

// countDropped counts n fragments that are dropped, in the counter of their family.
func (r *ipReass) countDropped(key *fragKey, n int) {
	if key.src.is4() {
		r.k.Stats.IP.Fragdropped.Add(n)
	} else {
		r.k.Stats.IP6.Fragdropped.Add(n)
	}
}

// lifetime returns how long the fragments of a datagram are waited for.
func (key *fragKey) lifetime() int64 {
	if key.src.is4() {
		return reassTime
	}
	return reassTime6
}

// input takes an IPv4 fragment. If the fragment completes its datagram, input returns the datagram,
// whose chain begins with the first fragment's header, and changes ip to describe it. If not, it
// returns nil.
func (r *ipReass) input(ifp *Ifnet, ip *wire.IPv4, m *mbuf.Mbuf) *mbuf.Mbuf {
	n := ip.Len - ip.Hlen
	more := ip.Flags&wire.IPMF != 0
	// RFC 791, 3.1: the offset is "in units of 8 octets", so all fragments except the last have a
	// length of that kind. None ends beyond the longest datagram: that would be a ping of death.
	impossible := n == 0 || more && n%8 != 0 || ip.Off+n+ip.Hlen > wire.MaxPacket
	// RFC 1858, 3, and RFC 3128: a TCP header that is spread over fragments hides its flags from
	// filters. No host sends one by itself: even the least MTU, 68 bytes, leaves room for it behind
	// an IP header without options.
	spread := ip.Proto == wire.ProtoTCP && (ip.Off == 0 && more && n < wire.TCPMinLen || ip.Off == 8)
	if impossible || spread {
		r.k.Stats.IP.Fragdropped.Inc()
		mbuf.Free(m)
		return nil
	}
	q := r.add(&fragment{
		fragKey: fragKey{in6(ip.Src), in6(ip.Dst), uint32(ip.ID), ip.Proto},
		ifp:     ifp, m: m, hlen: ip.Hlen, off: ip.Off, n: n, more: more, tos: ip.TOS,
	})
	if q == nil {
		return nil
	}
	r.k.Stats.IP.Reassembled.Inc()
	h := q.join(&r.k.pool, q.hdr)
	ip.Hlen, ip.Len, ip.Off, ip.Flags, ip.TOS = len(q.hdr), h.Pkt.Len, 0, 0, q.tos
	return h
}

// add takes a fragment, and over its chain. If the fragment completes its datagram, add returns the
// datagram, which it has taken out of the table; else nil.
func (r *ipReass) add(f *fragment) *ipq {
	src := f.source()
	r.mu.Lock()
	defer r.mu.Unlock()
	q := r.q[f.fragKey]
	if q == nil {
		if r.sources[src].datagrams >= reassPerSource {
			// The oldest datagram of this source has most likely lost a fragment. If the newest
			// were refused instead, the source would be shut out until the oldest times out.
			r.dropOldest(src)
		}
		for len(r.order) >= reassMax {
			r.drop(r.order[0])
		}
		q = &ipq{key: f.fragKey, at: r.k.now() + f.lifetime(), ifp: f.ifp}
		r.q[q.key] = q
		r.order = append(r.order, q)
		r.hold(src, 1, 0)
		r.k.clock.arm(&r.out, r.k.even(q.at))
	}
	if !r.insert(q, f) {
		r.drop(q)
		return nil
	}
	for r.sources[src].bytes > reassShare {
		// One source may not fill the memory that is for all.
		r.dropOldest(src)
	}
	for r.bytes > reassBytes && len(r.order) > 0 {
		// The oldest datagram goes first; it may be the one of this fragment.
		r.drop(r.order[0])
	}
	if q.total == 0 || q.have < q.total || q.frags == nil {
		return nil
	}
	// If the first fragment's headers are longer than the others', the datagram may be longer than
	// any that can be sent.
	if len(q.hdr)+q.total > q.key.longest() || !q.mark() {
		r.drop(q)
		return nil
	}
	for i := range q.frags {
		r.hold(src, 0, -mbuf.Pinned(q.frags[i].m))
	}
	r.forget(q)
	return q
}

// mark gives a datagram that is whole the mark of its fragments. It reports false if the datagram
// must be dropped. RFC 3168, 5.3: "If any fragment of an IP packet to be reassembled has the CE
// codepoint set, then one of two actions MUST be taken: Set the CE codepoint on the reassembled
// packet. However, this MUST NOT occur if any of the other fragments contributing to this
// reassembly carries the Not-ECT codepoint."
func (q *ipq) mark() bool {
	const notECT, ce = 1 << 0, 1 << 3
	if q.ecn&ce != 0 {
		q.tos |= 3
	}
	return q.ecn&(notECT|ce) != notECT|ce
}

// longest returns the greatest length of a datagram with the first fragment's headers.
func (key *fragKey) longest() int {
	if key.src.is4() {
		return wire.MaxPacket
	}
	return wire.IPv6Len + wire.MaxPacket + wire.FragmentLen
}

// source returns what the limits for one source count by.
func (key *fragKey) source() in6Addr { return key.src.network() }

// dropOldest gives up the oldest datagram of a source, which must have one.
func (r *ipReass) dropOldest(src in6Addr) {
	r.drop(r.order[slices.IndexFunc(r.order, func(o *ipq) bool { return o.key.source() == src })])
}

// hold adds to the counts of what a source has waiting, or subtracts from them.
func (r *ipReass) hold(src in6Addr, datagrams, bytes int) {
	s := r.sources[src]
	s.datagrams += datagrams
	s.bytes += bytes
	r.bytes += bytes
	if s == (fragSource{}) {
		delete(r.sources, src)
		return
	}
	r.sources[src] = s
}

// overlaps reports whether a fragment overlaps one that has arrived before. i is its place among
// them.
func (q *ipq) overlaps(i int, f ipfrag) bool {
	return i > 0 && q.frags[i-1].end > f.off || i < len(q.frags) && q.frags[i].off < f.end
}

// contradictsEnd reports whether a fragment and those that have arrived before disagree about where
// the datagram ends. If more is false, the fragment is the last of the datagram.
func (q *ipq) contradictsEnd(f ipfrag, more bool) bool {
	if q.total != 0 {
		return !more || f.end > q.total // the last fragment has arrived already
	}
	return !more && len(q.frags) > 0 && q.frags[len(q.frags)-1].end > f.end
}

// insert puts a fragment in its place, and takes over its chain. It reports false if the caller
// must drop the datagram.
func (r *ipReass) insert(q *ipq, in *fragment) bool {
	f := ipfrag{off: in.off, end: in.off + in.n}
	i, _ := slices.BinarySearchFunc(q.frags, f.off, func(a ipfrag, off int) int { return a.off - off })
	if i < len(q.frags) && q.frags[i].off == f.off && q.frags[i].end == f.end && (in.more || q.total == f.end) {
		// The network has duplicated the fragment, which says nothing new.
		mbuf.Free(in.m)
		return true
	}
	// RFC 8200, 4.5, has a rule for IPv6 that serves IPv4 as well: if fragments overlap,
	// "reassembly of that packet must be abandoned and all the fragments that have been received
	// for that packet must be discarded".
	if q.overlaps(i, f) || q.contradictsEnd(f, in.more) || len(q.frags) >= reassFrags {
		r.countDropped(&q.key, 1)
		mbuf.Free(in.m)
		return false
	}
	if !in.more {
		q.total = f.end
	}
	q.ecn |= 1 << (in.tos & 3)
	if f.off == 0 {
		q.tos = in.tos
		q.hdr = append(q.buf[:0], make([]byte, in.hlen)...)
		mbuf.Copydata(in.m, 0, q.hdr)
		q.fragAt = in.fragAt
	}
	f.m = mbuf.Adj(in.m, in.hlen)
	q.frags = slices.Insert(q.frags, i, f)
	q.have += in.n
	r.hold(q.key.source(), 0, mbuf.Pinned(f.m))
	return true
}

// join joins the fragments of a datagram that is whole behind the headers hdr.
func (q *ipq) join(pool *mbuf.Pool, hdr []byte) *mbuf.Mbuf {
	h := headerMbuf(pool, hdr)
	h.Pkt = q.frags[0].m.Pkt
	h.Pkt.Len = len(hdr) + q.total
	tail := h
	for i := range q.frags {
		tail.SetNext(q.frags[i].m)
		for tail.Next() != nil {
			tail = tail.Next()
		}
		q.frags[i].m = nil
	}
	return h
}

// headerMbuf returns an Mbuf that holds the headers of a packet.
func headerMbuf(pool *mbuf.Pool, hdr []byte) *mbuf.Mbuf {
	m := pool.Gethdr()
	if len(hdr) > len(m.Room()) {
		mbuf.Free(m)
		m = pool.Getcl(len(hdr))
	}
	m.Append(hdr)
	return m
}

// drop gives a datagram up.
func (r *ipReass) drop(q *ipq) {
	for _, f := range q.frags {
		r.hold(q.key.source(), 0, -mbuf.Pinned(f.m))
		mbuf.Free(f.m)
	}
	r.countDropped(&q.key, len(q.frags))
	q.frags = nil
	r.forget(q)
}

func (r *ipReass) forget(q *ipq) {
	delete(r.q, q.key)
	if i := slices.Index(r.order, q); i >= 0 {
		r.order = slices.Delete(r.order, i, i+1)
	}
	r.hold(q.key.source(), -1, 0)
}

// expire gives up the datagrams that have waited too long: BSD's ip_slowtimo and frag6_slowtimo.
// RFC 1122, 3.3.2: "If this timeout expires, the partially-reassembled datagram MUST be discarded
// and an ICMP Time Exceeded message sent to the source host (if fragment zero has been received)."
// RFC 8200, 4.5, says the same of IPv6.
func (r *ipReass) expire(now int64) {
	type report struct {
		ifp *Ifnet
		m   *mbuf.Mbuf
	}
	var reports []report
	r.mu.Lock()
	next := never
	for _, q := range slices.Clone(r.order) {
		if q.at > now {
			next = min(next, q.at)
			continue
		}
		if q.key.src.is4() {
			r.k.Stats.IP.Fragtimeout.Inc()
		} else {
			r.k.Stats.IP6.Fragtimeout.Inc()
		}
		if len(q.frags) > 0 && q.frags[0].off == 0 {
			f := q.frags[0].m
			h := headerMbuf(&r.k.pool, q.hdr)
			h.SetNext(mbuf.Copym(f, 0, f.Len()))
			h.Pkt.Len = h.Len()
			reports = append(reports, report{q.ifp, h})
		}
		r.drop(q)
	}
	if next != never {
		r.k.clock.arm(&r.out, r.k.even(next))
	}
	r.mu.Unlock()
	for i := range reports {
		rep := &reports[i]
		v := wire.IPView(rep.m.Bytes())
		ip := ipHdr{src: v.Src(), dst: v.Dst(), hlen: v.Hlen(), len: rep.m.Pkt.Len}
		if v.Is6() {
			r.k.icmp6Error(rep.ifp, &ip, rep.m, wire.ICMPv6Timxceed, wire.ICMPv6TimxceedReass, 0)
		} else {
			r.k.icmpError(rep.ifp, &ip, rep.m, wire.ICMPTimxceed, wire.ICMPTimxceedReass, 0)
		}
		mbuf.Free(rep.m)
	}
}

func (r *ipReass) flush() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.order) > 0 {
		r.drop(r.order[0])
	}
}
