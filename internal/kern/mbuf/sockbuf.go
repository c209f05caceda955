package mbuf

// A Sockbuf is one direction of a socket's data: 4.4BSD's struct sockbuf without the sleeping,
// which package kern adds. The owner's lock guards it.
type Sockbuf struct {
	head, tail *Mbuf
	mbcnt      int   // bytes of clusters pinned: sb_mbcnt
	cc         int32 // bytes held: sb_cc
	hiwat      int32 // most bytes to hold: sb_hiwat
}

// MaxHiwat is the largest size of a buffer, which is the largest window (RFC 7323, 2.3).
const MaxHiwat = 65535 << 14

// Cc returns how many bytes the buffer holds.
func (sb *Sockbuf) Cc() int { return int(sb.cc) }

// Hiwat returns the high-water mark: how many bytes the buffer may hold.
func (sb *Sockbuf) Hiwat() int { return int(sb.hiwat) }

// SetHiwat sets the high-water mark to n, or to MaxHiwat if n is larger.
func (sb *Sockbuf) SetHiwat(n int) { sb.hiwat = int32(min(n, MaxHiwat)) }

// Pinned returns how many bytes of clusters the buffer keeps alive.
func (sb *Sockbuf) Pinned() int { return sb.mbcnt }

// maxPin bounds how many bytes a buffer pins, as a multiple of its high-water mark. It is BSD's
// ratio of sb_mbmax to sb_hiwat (sb_efficiency).
const maxPin = 8

// Space returns how many bytes may be appended: BSD's sbspace. It may be negative.
func (sb *Sockbuf) Space() int {
	hiwat := int64(sb.hiwat) // a multiple of it may need more than 32 bits
	return int(min(hiwat-int64(sb.cc), maxPin*hiwat+4*ClHuge-int64(sb.mbcnt)))
}

// pins returns the bytes of storage that m keeps from being used again: all of its cluster, however
// few of them are in m.
func (m *Mbuf) pins() int {
	if m.cl == nil {
		return datSize
	}
	return len(m.cl.buf)
}

// Pinned returns the bytes of storage that a chain keeps from being used again. A cluster that
// several of its Mbufs share counts once for each.
func Pinned(m *Mbuf) int {
	n := 0
	for ; m != nil; m = m.next {
		n += m.pins()
	}
	return n
}

// wasteful reports whether m's storage is mostly empty, so that copying its bytes is cheaper than
// pinning it.
func (m *Mbuf) wasteful() bool { return len(m.data)*4 < m.pins() }

// Append adds chain m, which it takes over: BSD's sbappendstream with its sbcompress. Small pieces
// are copied into the room behind the last one, so that a stream of tiny segments cannot pin much
// more than it holds.
func (sb *Sockbuf) Append(m *Mbuf) {
	for m != nil {
		n := m.next
		m.next = nil
		switch {
		case len(m.data) == 0:
			m.free()
		case sb.tail != nil && m.wasteful() && sb.compress(m):
		default:
			sb.link(m)
		}
		m = n
	}
}

func (sb *Sockbuf) link(m *Mbuf) {
	if sb.tail == nil {
		sb.head = m
	} else {
		sb.tail.next = m
	}
	sb.tail = m
	sb.cc += int32(len(m.data))
	sb.mbcnt += m.pins()
}

// compress copies m behind the tail, into a new cluster if the tail has no room, and frees m. It
// reports false, and leaves m, if m is too large for that.
func (sb *Sockbuf) compress(m *Mbuf) bool {
	t := sb.tail
	if t.cl == nil || len(t.Room()) < len(m.data) {
		if len(m.data)*4 >= ClMid {
			return false
		}
		t = m.pool.Getcl(ClMid)
		sb.link(t)
	}
	t.Append(m.data)
	sb.cc += int32(len(m.data))
	m.free()
	return true
}

// AppendBytes copies as many bytes of p as fit into the room behind the last Mbuf, and returns how
// many.
func (sb *Sockbuf) AppendBytes(p []byte) int {
	if sb.TailRoom() == 0 {
		return 0
	}
	n := sb.tail.Append(p)
	sb.cc += int32(n)
	return n
}

// TailRoom returns how many bytes AppendBytes can take.
func (sb *Sockbuf) TailRoom() int {
	if sb.tail == nil || sb.tail.cl == nil && !sb.tail.own {
		return 0
	}
	return len(sb.tail.Room())
}

// Drop removes and frees n bytes from the front: BSD's sbdrop.
func (sb *Sockbuf) Drop(n int) {
	if n > sb.Cc() {
		panic("mbuf: drop beyond the end of a sockbuf")
	}
	for n > 0 {
		k := len(sb.head.data)
		if k > n {
			sb.trim(n)
			return
		}
		n -= k
		sb.shift().free()
	}
}

// Cut removes n bytes from the front and returns them as a chain, which the caller frees.
func (sb *Sockbuf) Cut(n int) *Mbuf {
	if n > sb.Cc() {
		panic("mbuf: cut beyond the end of a sockbuf")
	}
	var head, tail *Mbuf
	for n > 0 {
		var m *Mbuf
		if k := len(sb.head.data); k > n {
			m = sb.head.share(0, n)
			sb.trim(n)
			n = 0
		} else {
			m = sb.shift()
			n -= k
		}
		if head == nil {
			head = m
		} else {
			tail.next = m
		}
		tail = m
	}
	return head
}

// shift unlinks the first Mbuf.
func (sb *Sockbuf) shift() *Mbuf {
	m := sb.head
	sb.head = m.next
	if sb.head == nil {
		sb.tail = nil
	}
	m.next = nil
	sb.cc -= int32(len(m.data))
	sb.mbcnt -= m.pins()
	return m
}

// trim drops n bytes of the first Mbuf, which holds more.
func (sb *Sockbuf) trim(n int) {
	sb.head.data = sb.head.data[n:]
	sb.cc -= int32(n)
}

// Copydata copies bytes from offset off on into p, and returns how many.
func (sb *Sockbuf) Copydata(off int, p []byte) int { return Copydata(sb.head, off, p) }

// Flush frees everything: BSD's sbflush.
func (sb *Sockbuf) Flush() {
	Free(sb.head)
	sb.head, sb.tail, sb.cc, sb.mbcnt = nil, nil, 0, 0
}

// A Sendbuf is a Sockbuf of data to send. The data is sent piece by piece, and dropped when the
// peer has acknowledged it.
type Sendbuf struct {
	Sockbuf
	ptr    *Mbuf // where the last Copym began, and the next need not walk to: FreeBSD's sb_sndptr
	ptrOff int32 // offset of ptr's first byte
}

// Copym returns a chain that shares n bytes from offset off. Calls whose offsets rise do not walk
// the chain from its beginning.
func (sb *Sendbuf) Copym(off, n int) *Mbuf {
	if n == 0 {
		return nil
	}
	m, start := sb.head, 0
	if sb.ptr != nil && int(sb.ptrOff) <= off {
		m, start = sb.ptr, int(sb.ptrOff)
	}
	for off-start >= len(m.data) {
		start += len(m.data)
		m = m.next
	}
	sb.ptr, sb.ptrOff = m, int32(start)
	return Copym(m, off-start, n)
}

// front notes that n bytes are removed from the front.
func (sb *Sendbuf) front(n int) {
	if int(sb.ptrOff) < n {
		sb.ptr, sb.ptrOff = nil, 0 // ptr is removed, or is the first now
	} else {
		sb.ptrOff -= int32(n)
	}
}

// Drop is Drop of [Sockbuf].
func (sb *Sendbuf) Drop(n int) {
	sb.front(n)
	sb.Sockbuf.Drop(n)
}

// Cut is Cut of [Sockbuf].
func (sb *Sendbuf) Cut(n int) *Mbuf {
	sb.front(n)
	return sb.Sockbuf.Cut(n)
}

// Flush is Flush of [Sockbuf].
func (sb *Sendbuf) Flush() {
	sb.ptr, sb.ptrOff = nil, 0
	sb.Sockbuf.Flush()
}
