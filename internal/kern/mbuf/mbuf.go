// Package mbuf holds the stack's buffers: 4.4BSD's mbufs and sockbufs, over reference-counted
// clusters.
//
// An Mbuf is a view on a cluster. Several Mbufs may share a cluster: the send buffer, a segment in
// flight and (over the loopback) the peer's receive buffer share the same bytes. An Mbuf without a
// cluster is a header: it carries its bytes in itself, with headroom for the headers that are still
// to come.
//
//	header mbuf    |<- headroom 76 ->|<- TCP header ->|   Prepend grows to the left
//	cluster        |xxxx|<- data ->|<- Room ->|       Append grows to the right
//
// Only the cluster's owner appends.
//
// Bytes in a cluster never change once they have been appended. The package is pure except for its
// pools: it starts nothing, waits for nothing and reads no clock.
package mbuf

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"unsafe"
)

// Cluster sizes, in bytes: BSD's MCLBYTES in five classes.
const (
	ClSmall = 256
	ClMid   = 2 << 10
	ClBig   = 16 << 10
	ClHuge  = 64 << 10
	ClJumbo = ClHuge + 128 // the largest IP packet with a link's header before it
)

const (
	headroom = 76 // IPv6 (40) or IPv4 with options, and virtio-net (12), with some to spare; TCP (up to 60) follows
	datSize  = headroom + 60
)

var classSize = [...]int{ClSmall, ClMid, ClBig, ClHuge, ClJumbo}

// A cluster is storage that Mbufs share.
type cluster struct {
	ref   atomic.Int32
	class uint8
	//lint:ignore U1000 it is used with the build tag mbufpoison
	dirty bool // holds the poison pattern
	buf   []byte
}

// The stores behind every Pool. Nothing in them belongs to a stack or to a synctest bubble.
var (
	clusters [len(classSize)]sync.Pool
	mbufs    = sync.Pool{New: func() any { return &Mbuf{home: stripe()} }}
)

// A Pool counts the buffers of one stack; its zero value is ready. The memory comes from stores
// that all stacks share.
type Pool struct {
	mbufs   [8]counter
	cluster [8]counter

	other counter // bytes that Charge has counted

	limit int64 // the pool is Pressed beyond these bytes; 0: never
	shift uint8 // the stripes are summed when one of them crosses a multiple of 1<<shift bytes
	over  atomic.Bool
}

// SetLimit sets the bytes in use beyond which the pool is Pressed. It is called before the pool is
// used.
func (p *Pool) SetLimit(n int64) {
	p.limit = n
	p.shift = uint8(bits.Len64(uint64(n) / 256))
}

// Limit returns the limit that SetLimit has set.
func (p *Pool) Limit() int64 { return p.limit }

// Pressed reports whether more than the limit is in use. If it reports false, it costs next to
// nothing, and may be wrong by a 16th of the limit.
func (p *Pool) Pressed() bool {
	if !p.over.Load() {
		return false
	}
	if p.Used() > p.limit {
		return true
	}
	p.over.Store(false)
	return false
}

// Relieved reports whether less than 7/8 of the limit is in use, so that a few more packets will
// not make the pool Pressed.
func (p *Pool) Relieved() bool {
	if p.limit == 0 {
		return true
	}
	return p.Used() < p.limit/8*7
}

// Charge counts n bytes, which may be negative, of memory other than Mbufs and clusters, such as
// sockets, and lists of segments that have been sent or have come out of order.
func (p *Pool) Charge(n int) { p.count(&p.other, int64(n)) }

// charge counts n bytes of clusters, which may be negative, on stripe i.
func (p *Pool) charge(i uint8, n int64) { p.count(&p.cluster[i], n) }

func (p *Pool) count(c *counter, n int64) {
	sum := c.n.Add(n)
	if n > 0 && p.limit > 0 && sum>>p.shift != (sum-n)>>p.shift && !p.over.Load() && p.Used() > p.limit {
		p.over.Store(true)
	}
}

// A counter is one stripe of a count. It fills a cache line, so that cores do not share the line.
type counter struct {
	n atomic.Int64
	_ [56]byte
}

// Outstanding returns how many Mbufs and how many bytes of clusters are in use. Both are 0 once
// everything has been freed.
func (p *Pool) Outstanding() (mbufs, bytes int64) {
	for i := range p.mbufs {
		mbufs += p.mbufs[i].n.Load()
		bytes += p.cluster[i].n.Load()
	}
	return mbufs, bytes
}

// overhead is how many bytes an Mbuf takes besides those of its cluster. Tiny segments take little
// else.
const overhead = int64(unsafe.Sizeof(Mbuf{}) + unsafe.Sizeof(cluster{}))

// Used returns how many bytes of memory are in use: those of clusters, the Mbufs, and those that
// Charge has counted.
func (p *Pool) Used() int64 {
	m, n := p.Outstanding()
	return n + m*overhead + p.other.n.Load()
}

// Csum says what is known about a packet's checksums.
type Csum uint8

const (
	// CsumPartial says that the transport checksum has not been computed. The cutter computes it
	// when the packet goes on a wire.
	CsumPartial Csum = 1 << iota
	// CsumValid says that the packet has never left the machine: this stack has written its
	// headers, and has computed no checksums.
	CsumValid
	// CsumVerified says that the transport checksum has been verified.
	CsumVerified
)

// A Pkthdr describes the packet whose first Mbuf it stands in: BSD's m_pkthdr.
type Pkthdr struct {
	Len     int   // bytes in the chain
	SegSize int   // payload of each segment that the packet will be cut into, or was merged from; 0: one segment
	Arrived int64 // when it arrived, by the stack's clock, in nanoseconds
	Csum    Csum
	Ect     bool   // IP marks it as capable of explicit congestion notification
	Ack     bool   // a bare acknowledgment that a later one of its connection makes superfluous
	Flow    uint32 // hash of its flow, the same in both directions
	Hlen    uint16 // of a datagram on a receive queue: bytes of the headers before its data
	Rcvif   uint16 // of such a datagram: index of the interface that it has come from
}

// An Mbuf is a view on part of a cluster, or a header that carries its own bytes.
type Mbuf struct {
	next  *Mbuf
	pkt   *Mbuf // the next packet of a Queue: m_nextpkt
	cl    *cluster
	data  []byte
	pool  *Pool
	own   bool  // made by Getcl or Getsmall, so it may append while others share the data before
	inner bool  // made by Getsmall: its own bytes count as a cluster's
	home  uint8 // its counter, forever: a core mostly gets back Mbufs that it has freed
	Pkt   Pkthdr
	dat   [datSize]byte
}

// get takes an Mbuf from the store and counts it.
func (p *Pool) get() *Mbuf {
	m := mbufs.Get().(*Mbuf)
	m.pool = p
	p.mbufs[m.home].n.Add(1)
	return m
}

// Gethdr returns an empty header Mbuf, with headroom in front: BSD's MGETHDR.
func (p *Pool) Gethdr() *Mbuf {
	m := p.get()
	m.data = m.dat[headroom:headroom]
	return m
}

// MaxSmall is how many bytes an Mbuf of [Pool.Getsmall] holds.
const MaxSmall = datSize

// Getsmall returns an empty Mbuf that carries up to MaxSmall bytes in itself: BSD's MGET.
func (p *Pool) Getsmall() *Mbuf {
	m := p.get()
	m.data = m.dat[:0]
	m.own, m.inner = true, true
	p.charge(m.home, datSize)
	return m
}

// Getcl returns an empty Mbuf on a cluster that holds n bytes, or on one of the largest if n is
// larger: BSD's MCLGET.
func (p *Pool) Getcl(n int) *Mbuf {
	m := p.get()
	c := getCluster(n)
	p.charge(m.home, int64(len(c.buf)))
	m.cl = c
	m.own = true
	m.data = c.buf[:0]
	return m
}

// Headroom is how many bytes [Pool.Getpkt] leaves for headers: IPv6's or IPv4's, and UDP's or those
// of ICMP.
const Headroom = 40 + 8

// Getpkt returns an empty Mbuf for a packet with n bytes of data, with room in front for its
// headers: BSD's MGETHDR, MCLGET and max_hdr. The data lies in the Mbuf itself if it fits there. If
// n is larger than the largest cluster, it is on one of those.
func (p *Pool) Getpkt(n int) *Mbuf {
	m := p.get()
	if n <= datSize-Headroom {
		m.data = m.dat[Headroom:Headroom]
		return m
	}
	c := getCluster(n + Headroom)
	p.charge(m.home, int64(len(c.buf)))
	m.cl, m.own = c, true
	m.data = c.buf[Headroom:Headroom]
	return m
}

func getCluster(n int) *cluster {
	class := 0
	for class < len(classSize)-1 && classSize[class] < n {
		class++
	}
	c, _ := clusters[class].Get().(*cluster)
	if c == nil {
		c = &cluster{class: uint8(class), buf: make([]byte, classSize[class])}
	}
	c.ref.Store(1)
	unpoison(c)
	return c
}

// Free returns a whole chain to the pool: BSD's m_freem. A nil chain is empty.
func Free(m *Mbuf) {
	for m != nil {
		n := m.next
		m.free()
		m = n
	}
}

// free returns one Mbuf: BSD's m_free.
func (m *Mbuf) free() {
	p := m.pool
	if p == nil {
		panic("mbuf: freed twice")
	}
	if c := m.cl; c != nil {
		m.cl = nil
		if r := c.ref.Add(-1); r == 0 {
			p.charge(m.home, -int64(len(c.buf)))
			poison(c)
			clusters[c.class].Put(c)
		} else if r < 0 {
			panic("mbuf: cluster freed twice")
		}
	}
	if m.inner {
		m.inner = false
		p.charge(m.home, -datSize)
	}
	p.mbufs[m.home].n.Add(-1)
	m.next, m.pkt, m.data, m.pool, m.own = nil, nil, nil, nil, false
	m.Pkt = Pkthdr{}
	mbufs.Put(m)
}

// share returns a second view on m's bytes [off, off+n). It copies those of a header, whose storage
// ends with it.
func (m *Mbuf) share(off, n int) *Mbuf {
	if m.cl == nil {
		d := m.pool.Gethdr()
		// If headers have been put in front, m may hold more bytes than fit behind the headroom.
		at := min(headroom, datSize-n)
		d.data = d.dat[at : at+n]
		copy(d.data, m.data[off:])
		return d
	}
	d := m.pool.get()
	d.cl = m.cl
	d.cl.ref.Add(1)
	d.data = m.data[off : off+n]
	return d
}

// Next returns the rest of the chain.
func (m *Mbuf) Next() *Mbuf { return m.next }

// Bytes returns the bytes of this Mbuf. The caller must not write to them if the cluster may be
// shared.
func (m *Mbuf) Bytes() []byte { return m.data }

// Room returns the free bytes behind the data. The caller may fill them, and then claim them by
// Extend. Room returns nil if the bytes may belong to another Mbuf.
func (m *Mbuf) Room() []byte {
	if m.cl == nil {
		return m.data[len(m.data):cap(m.data)]
	}
	if !m.writable() {
		return nil
	}
	return m.data[len(m.data):cap(m.data)]
}

// Extend claims n bytes of Room that the caller has filled.
func (m *Mbuf) Extend(n int) { m.data = m.data[:len(m.data)+n] }

// Append copies as many bytes of p as fit behind the data, and returns how many.
func (m *Mbuf) Append(p []byte) int {
	n := copy(m.Room(), p)
	m.Extend(n)
	return n
}

// writable reports whether bytes behind m's data belong to no other Mbuf.
func (m *Mbuf) writable() bool { return m.own || m.cl.ref.Load() == 1 }

// Prepend grows a header Mbuf, or one of Getpkt's, by n bytes in front, and returns them for the
// caller to fill: BSD's M_PREPEND.
func (m *Mbuf) Prepend(n int) []byte {
	buf := m.dat[:]
	if m.cl != nil {
		buf = m.cl.buf
	}
	off := cap(buf) - cap(m.data)
	if m.cl != nil && (!m.own || off < n) {
		panic("mbuf: prepend to a cluster")
	}
	m.data = buf[off-n : off+len(m.data)]
	m.Pkt.Len += n
	return m.data[:n]
}

// Reset empties an Mbuf of Getcl's whose cluster is not shared, so that it is like a new one.
func (m *Mbuf) Reset() {
	m.data, m.own, m.Pkt = m.cl.buf[:0], true, Pkthdr{}
}

// Len returns the number of bytes in the chain: BSD's m_length.
func (m *Mbuf) Len() int {
	n := 0
	for ; m != nil; m = m.next {
		n += len(m.data)
	}
	return n
}

// Cat puts chain n behind chain m and returns the whole chain: BSD's m_cat. m may be nil.
func Cat(m, n *Mbuf) *Mbuf {
	if m == nil {
		return n
	}
	t := m
	for t.next != nil {
		t = t.next
	}
	t.next = n
	return m
}

// SetNext makes n the rest of the chain behind m. The caller owns both.
func (m *Mbuf) SetNext(n *Mbuf) { m.next = n }

// Copym returns a chain that shares bytes [off, off+n) of chain m: BSD's m_copym. It returns nil if
// n is 0.
func Copym(m *Mbuf, off, n int) *Mbuf {
	for m != nil && off >= len(m.data) {
		off -= len(m.data)
		m = m.next
	}
	var head, tail *Mbuf
	for n > 0 && m != nil {
		k := min(n, len(m.data)-off)
		if k > 0 {
			d := m.share(off, k)
			if head == nil {
				head = d
			} else {
				tail.next = d
			}
			tail = d
		}
		n -= k
		off = 0
		m = m.next
	}
	if n > 0 {
		panic("mbuf: Copym beyond the end")
	}
	return head
}

// Copypkt returns a chain that shares the bytes of chain m, with a copy of the packet header: BSD's
// m_copypacket.
func Copypkt(m *Mbuf) *Mbuf {
	c := Copym(m, 0, m.Len())
	c.Pkt = m.Pkt
	return c
}

// Copydata copies bytes of the chain, from offset off, into p and returns how many: BSD's
// m_copydata.
func Copydata(m *Mbuf, off int, p []byte) int {
	total := 0
	for ; m != nil && len(p) > 0; m = m.next {
		if off >= len(m.data) {
			off -= len(m.data)
			continue
		}
		k := copy(p, m.data[off:])
		off = 0
		p = p[k:]
		total += k
	}
	return total
}

// Adj drops n bytes from the front of the chain, or -n from its end if n is negative, and returns
// the chain, without empty Mbufs at that end, or nil if no bytes are left: BSD's m_adj. What is
// left begins with the same packet header, whose Len the caller sets.
func Adj(m *Mbuf, n int) *Mbuf {
	if n >= 0 {
		if m == nil {
			return nil
		}
		pkt := m.Pkt
		for m != nil && n >= len(m.data) {
			n -= len(m.data)
			d := m
			m = m.next
			d.next = nil
			d.free()
		}
		if m != nil {
			m.data = m.data[n:]
			m.Pkt = pkt
		}
		return m
	}
	keep := m.Len() + n
	if keep <= 0 {
		Free(m)
		return nil
	}
	m = Adj(m, 0)
	t := m
	for keep > len(t.data) {
		keep -= len(t.data)
		t = t.next
	}
	t.data = t.data[:keep]
	t.own = false // another Mbuf may use the bytes behind the data
	Free(t.next)
	t.next = nil
	return m
}

// Pullup makes the first n bytes of the chain contiguous, if they are not, and returns the chain:
// BSD's m_pullup. If the chain has fewer than n bytes, or n is larger than a header can be, Pullup
// frees the chain and returns nil.
func Pullup(m *Mbuf, n int) *Mbuf {
	if len(m.data) >= n {
		return m
	}
	if n > datSize-headroom || m.Len() < n {
		Free(m)
		return nil
	}
	h := m.pool.Gethdr()
	h.Pkt = m.Pkt
	h.data = h.data[:n]
	Copydata(m, 0, h.data)
	h.next = Adj(m, n)
	return h
}
