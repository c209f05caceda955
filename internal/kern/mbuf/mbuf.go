// Package mbuf holds the stack's buffers: 4.4BSD's mbufs and sockbufs, over reference-counted
// clusters.
//
// An Mbuf is a view on a cluster; several Mbufs share one cluster, so the send buffer, a segment in
// flight and (over the loopback) the peer's receive buffer hold the same bytes once. An Mbuf
// without a cluster is a header: it carries its bytes in itself, with headroom for the headers that
// are still to come.
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
	headroom = 76 // IPv6 (40) or IPv4 with options, virtio-net (12), and some air; TCP (at most 60) follows
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

	other counter // what Charge has counted

	limit int64 // most bytes in use before Pressed; 0: any number
	shift uint8 // the sum of the stripes is looked at whenever one of them crosses a multiple of 1<<shift bytes
	over  atomic.Bool
}

// SetLimit sets the bytes in use beyond which the pool is Pressed. It is called before the pool is
// used.
func (p *Pool) SetLimit(n int64) {
	p.limit = n
	p.shift = uint8(bits.Len64(uint64(n) / 256))
}

// Limit returns what SetLimit has set.
func (p *Pool) Limit() int64 { return p.limit }

// Pressed reports whether more than the limit is in use. It costs next to nothing if that is not
// so, and then it may be off by the 16th part of the limit.
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

// Relieved reports whether the pool is so far from being Pressed that it will not be at the next
// packet: less than 7/8 of the limit is in use.
func (p *Pool) Relieved() bool {
	if p.limit == 0 {
		return true
	}
	return p.Used() < p.limit/8*7
}

// Charge counts n bytes, which may be negative, of memory other than Mbufs and clusters: what holds
// what has been sent, or has come out of order, in order.
func (p *Pool) Charge(n int) { p.count(&p.other, int64(n)) }

// charge counts n bytes of clusters, which may be negative, on stripe i.
func (p *Pool) charge(i uint8, n int64) { p.count(&p.cluster[i], n) }

func (p *Pool) count(c *counter, n int64) {
	sum := c.n.Add(n)
	if n > 0 && p.limit > 0 && sum>>p.shift != (sum-n)>>p.shift && !p.over.Load() && p.Used() > p.limit {
		p.over.Store(true)
	}
}

// counter is one stripe of a count, alone on its cache line so that cores do not share it.
type counter struct {
	n atomic.Int64
	_ [56]byte
}

// Outstanding returns how many Mbufs and how many bytes of clusters are in use: both are 0 once all
// has been freed.
func (p *Pool) Outstanding() (mbufs, bytes int64) {
	for i := range p.mbufs {
		mbufs += p.mbufs[i].n.Load()
		bytes += p.cluster[i].n.Load()
	}
	return mbufs, bytes
}

// overhead is what an Mbuf takes beside its cluster's bytes. With tiny segments it is most of what
// they take.
const overhead = int64(unsafe.Sizeof(Mbuf{}) + unsafe.Sizeof(cluster{}))

// Used returns how many bytes of memory are in use: those of clusters, the Mbufs, and what Charge
// has counted.
func (p *Pool) Used() int64 {
	m, n := p.Outstanding()
	return n + m*overhead + p.other.n.Load()
}

// Csum says what is known of a packet's checksums.
type Csum uint8

const (
	// CsumPartial: the transport checksum has not been computed; it is when the packet is put on a
	// wire.
	CsumPartial Csum = 1 << iota
	// CsumValid: the packet has never left the machine: its headers are our own, its checksums are
	// not computed.
	CsumValid
	// CsumVerified: the transport checksum has been verified.
	CsumVerified
)

// A Pkthdr describes the packet whose first Mbuf it stands in: BSD's m_pkthdr.
type Pkthdr struct {
	Len     int   // bytes in the chain
	SegSize int   // payload bytes of each segment this packet is to be cut into, or was merged from; 0: as it is
	Arrived int64 // when it came in, nanoseconds since the stack began
	Csum    Csum
	Ect     bool   // IP marks it as capable of congestion notification
	Ack     bool   // a bare acknowledgment that a later one of its connection makes superfluous
	Flow    uint32 // hash of its flow, the same in both directions
}

// An Mbuf is a view on part of a cluster, or a header that carries its own bytes.
type Mbuf struct {
	next  *Mbuf
	cl    *cluster
	data  []byte
	pool  *Pool
	own   bool  // made by Getcl or Getsmall: may append behind data while others share what stands before
	inner bool  // made by Getsmall: its own bytes are counted as a cluster's are
	home  uint8 // the counter it is counted on, forever: an Mbuf mostly comes back to the core that has freed it
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
	m.next, m.data, m.pool, m.own = nil, nil, nil, false
	m.Pkt = Pkthdr{}
	mbufs.Put(m)
}

// share returns a second view on m's bytes [off, off+n). A header is copied, as its storage cannot
// outlive it.
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

// Bytes returns this Mbuf's bytes, which must not be written to if the cluster may be shared.
func (m *Mbuf) Bytes() []byte { return m.data }

// Room returns the free bytes behind the data, which only the cluster's maker may fill (and then
// claim by Extend).
func (m *Mbuf) Room() []byte {
	if m.cl == nil {
		return m.data[len(m.data):cap(m.data)]
	}
	if !m.writable() {
		return nil
	}
	return m.data[len(m.data):cap(m.data)]
}

// Extend claims n bytes of Room that have been filled.
func (m *Mbuf) Extend(n int) { m.data = m.data[:len(m.data)+n] }

// Append copies as much of p as fits behind the data and returns how much that was.
func (m *Mbuf) Append(p []byte) int {
	n := copy(m.Room(), p)
	m.Extend(n)
	return n
}

// writable reports whether bytes behind m's data belong to no other Mbuf.
func (m *Mbuf) writable() bool { return m.own || m.cl.ref.Load() == 1 }

// Prepend grows a header Mbuf by n bytes in front and returns them; the contents are whatever was
// there: BSD's M_PREPEND.
func (m *Mbuf) Prepend(n int) []byte {
	if m.cl != nil {
		panic("mbuf: prepend to a cluster")
	}
	off := cap(m.dat[:]) - cap(m.data)
	m.data = m.dat[off-n : off+len(m.data)]
	m.Pkt.Len += n
	return m.data[:n]
}

// Reset empties an Mbuf of Getcl's that is not shared, so that it is as new.
func (m *Mbuf) Reset() {
	m.data, m.own, m.Pkt = m.cl.buf[:0], true, Pkthdr{}
}

// Len returns the bytes in the chain: BSD's m_length.
func (m *Mbuf) Len() int {
	n := 0
	for ; m != nil; m = m.next {
		n += len(m.data)
	}
	return n
}

// Cat puts chain n behind chain m and returns the whole: BSD's m_cat.
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

// Adj drops n bytes from the front of the chain, or -n from its end, and returns the chain, with no
// empty Mbuf in front or at the end it has cut; nil if nothing is left: BSD's m_adj. The packet
// header, if there is one, must be fetched before.
func Adj(m *Mbuf, n int) *Mbuf {
	if n >= 0 {
		for m != nil && n >= len(m.data) {
			n -= len(m.data)
			d := m
			m = m.next
			d.next = nil
			d.free()
		}
		if m != nil {
			m.data = m.data[n:]
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
	t.own = false // what stands behind may be in use by a sharer
	Free(t.next)
	t.next = nil
	return m
}

// Pullup makes the first n bytes of the chain contiguous, where they are not, and returns the
// chain: BSD's m_pullup. It returns nil, the chain freed, if fewer than n bytes are there or n is
// larger than a header can be.
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
