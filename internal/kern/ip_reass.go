package kern

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// IP reassembly: BSD's ip_reass, with limits (CVE-2018-5391) on datagrams, on their bytes, on the
// fragments of each, and on what one source may have waiting. A datagram whose fragments overlap is
// dropped as a whole, as RFC 5722 requires for IPv6.

const (
	// RFC 1122, 3.3.2: "There MUST be a reassembly timeout. The reassembly timeout value SHOULD be
	// a fixed value". The time is BSD's, which is shorter than the minute that the RFC recommends:
	// in that time fewer fragments of a flood pile up.
	reassTime      = int64(30 * time.Second)
	reassMax       = 1024    // datagrams
	reassPerSource = 64      // of them from one address
	reassBytes     = 4 << 20 // of all
	reassShare     = 1 << 20 // of them from one address
	reassFrags     = 64      // of one datagram
)

type fragKey struct {
	src, dst netip.Addr
	id       uint16
	proto    uint8
}

// An ipq is a datagram that is being put together: BSD's struct ipq.
type ipq struct {
	key   fragKey
	at    int64 // when the stack gives it up
	frags []ipfrag
	total int // length of the payload; 0 while the last fragment is missing
	have  int
	ifp   *Ifnet
	hlen  int
	hdr   [wire.IPv4MaxLen]byte
}

type ipfrag struct {
	off, end int
	m        *mbuf.Mbuf
}

// A fragSource counts what one source has waiting.
type fragSource struct{ datagrams, bytes int }

type ipReass struct {
	k   *Kernel
	out callout

	mu      sync.Mutex
	q       map[fragKey]*ipq
	order   []*ipq // oldest first
	sources map[netip.Addr]fragSource
	bytes   int
}

func (r *ipReass) init(k *Kernel) {
	r.k = k
	r.q = map[fragKey]*ipq{}
	r.sources = map[netip.Addr]fragSource{}
	r.out = k.clock.table(r)
}

// input takes a fragment. If the fragment completes its datagram, input returns the datagram, whose
// chain begins with the first fragment's header, and changes ip to describe it. If not, it returns
// nil.
func (r *ipReass) input(ifp *Ifnet, ip *wire.IPv4, m *mbuf.Mbuf) *mbuf.Mbuf {
	k := r.k
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
		k.Stats.IP.Fragdropped.Inc()
		mbuf.Free(m)
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	key := fragKey{ip.Src, ip.Dst, ip.ID, ip.Proto}
	q := r.q[key]
	if q == nil {
		if r.sources[ip.Src].datagrams >= reassPerSource {
			// The oldest datagram of this source has most likely lost a fragment. If the newest
			// were refused instead, the source would be shut out until the oldest times out.
			r.dropOldest(ip.Src)
		}
		for len(r.order) >= reassMax {
			r.drop(r.order[0])
		}
		q = &ipq{key: key, at: k.now() + reassTime, ifp: ifp}
		r.q[key] = q
		r.order = append(r.order, q)
		r.hold(ip.Src, 1, 0)
		k.clock.arm(&r.out, k.even(q.at))
	}
	if !r.insert(q, ip, m, n, more) {
		r.drop(q)
		return nil
	}
	for r.sources[ip.Src].bytes > reassShare {
		// One source may not fill the memory that is for all.
		r.dropOldest(ip.Src)
	}
	for r.bytes > reassBytes && len(r.order) > 0 {
		// The oldest datagram goes first; it may be the one of this fragment.
		r.drop(r.order[0])
	}
	if q.total == 0 || q.have < q.total || q.frags == nil {
		return nil
	}
	// If the first fragment's header is longer than the others', the datagram may be longer than
	// any that can be sent.
	if q.hlen+q.total > wire.MaxPacket {
		r.drop(q)
		return nil
	}
	return r.complete(q, ip)
}

// dropOldest gives up the oldest datagram of a source, which must have one.
func (r *ipReass) dropOldest(src netip.Addr) {
	r.drop(r.order[slices.IndexFunc(r.order, func(o *ipq) bool { return o.key.src == src })])
}

// hold adds to the counts of what a source has waiting, or subtracts from them.
func (r *ipReass) hold(src netip.Addr, datagrams, bytes int) {
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

// insert puts a fragment in its place, and takes over m. It reports false if the caller must drop
// the datagram.
func (r *ipReass) insert(q *ipq, ip *wire.IPv4, m *mbuf.Mbuf, n int, more bool) bool {
	f := ipfrag{off: ip.Off, end: ip.Off + n}
	i, _ := slices.BinarySearchFunc(q.frags, f.off, func(a ipfrag, off int) int { return a.off - off })
	if i < len(q.frags) && q.frags[i].off == f.off && q.frags[i].end == f.end && (more || q.total == f.end) {
		// The network has duplicated the fragment, which says nothing new.
		mbuf.Free(m)
		return true
	}
	// RFC 8200, 4.5, has a rule for IPv6 that serves IPv4 as well: if fragments overlap,
	// "reassembly of that packet must be abandoned and all the fragments that have been received
	// for that packet must be discarded".
	if q.overlaps(i, f) || q.contradictsEnd(f, more) || len(q.frags) >= reassFrags {
		r.k.Stats.IP.Fragdropped.Inc()
		mbuf.Free(m)
		return false
	}
	if !more {
		q.total = f.end
	}
	if f.off == 0 {
		q.hlen = copy(q.hdr[:], m.Bytes()[:ip.Hlen])
	}
	f.m = mbuf.Adj(m, ip.Hlen)
	q.frags = slices.Insert(q.frags, i, f)
	q.have += n
	r.hold(q.key.src, 0, mbuf.Pinned(f.m))
	return true
}

// complete joins the fragments behind the first one's header.
func (r *ipReass) complete(q *ipq, ip *wire.IPv4) *mbuf.Mbuf {
	h := r.k.pool.Gethdr()
	h.Append(q.hdr[:q.hlen])
	h.Pkt = q.frags[0].m.Pkt
	tail := h
	for i := range q.frags {
		r.hold(q.key.src, 0, -mbuf.Pinned(q.frags[i].m))
		tail.SetNext(q.frags[i].m)
		for tail.Next() != nil {
			tail = tail.Next()
		}
		q.frags[i].m = nil
	}
	total := q.total
	q.frags = nil
	r.forget(q)
	h.Pkt.Len = q.hlen + total
	ip.Hlen, ip.Len, ip.Off, ip.Flags = q.hlen, h.Pkt.Len, 0, 0
	r.k.Stats.IP.Reassembled.Inc()
	return h
}

// drop gives a datagram up.
func (r *ipReass) drop(q *ipq) {
	for _, f := range q.frags {
		r.hold(q.key.src, 0, -mbuf.Pinned(f.m))
		mbuf.Free(f.m)
	}
	r.k.Stats.IP.Fragdropped.Add(len(q.frags))
	q.frags = nil
	r.forget(q)
}

func (r *ipReass) forget(q *ipq) {
	delete(r.q, q.key)
	if i := slices.Index(r.order, q); i >= 0 {
		r.order = slices.Delete(r.order, i, i+1)
	}
	r.hold(q.key.src, -1, 0)
}

// expire gives up the datagrams that have waited too long: BSD's ip_slowtimo. RFC 1122, 3.3.2: "If
// this timeout expires, the partially-reassembled datagram MUST be discarded and an ICMP Time
// Exceeded message sent to the source host (if fragment zero has been received)."
func (r *ipReass) expire(now int64) {
	type report struct {
		ifp *Ifnet
		hdr [wire.IPv4MaxLen + 8]byte
		n   int
	}
	var reports []report
	r.mu.Lock()
	for len(r.order) > 0 && r.order[0].at <= now {
		q := r.order[0]
		r.k.Stats.IP.Fragtimeout.Inc()
		if len(q.frags) > 0 && q.frags[0].off == 0 && q.hlen > 0 {
			rep := report{ifp: q.ifp}
			rep.n = copy(rep.hdr[:], q.hdr[:q.hlen])
			rep.n += mbuf.Copydata(q.frags[0].m, 0, rep.hdr[rep.n:rep.n+8])
			reports = append(reports, rep)
		}
		r.drop(q)
	}
	if len(r.order) > 0 {
		r.k.clock.arm(&r.out, r.k.even(r.order[0].at))
	}
	r.mu.Unlock()
	for i := range reports {
		rep := &reports[i]
		v := wire.IPv4View(rep.hdr[:])
		ip := ipHdr{src: v.Src(), dst: v.Dst(), hlen: v.Hlen()}
		r.k.icmpSendError(rep.ifp, &ip, rep.hdr[:rep.n], wire.ICMPTimxceed, wire.ICMPTimxceedReass, 0)
	}
}

func (r *ipReass) flush() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.order) > 0 {
		r.drop(r.order[0])
	}
}
