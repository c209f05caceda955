package mbuf

import (
	"bytes"
	"sync"
	"testing"

	"bsdnet/internal/testutil"
)

// pattern returns n bytes of a stream from position at, such that bytes out of place are seen.
func pattern(at, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		x := uint32(at+i) * 2654435761
		p[i] = byte(x >> 24)
	}
	return p
}

// balanced checks that everything taken from the pool has been given back.
func balanced(t *testing.T, p *Pool) {
	t.Helper()
	if m, b := p.Outstanding(); m != 0 || b != 0 {
		t.Errorf("%d mbufs and %d bytes of clusters are still out", m, b)
	}
}

func panics(f func()) (yes bool) {
	defer func() { yes = recover() != nil }()
	f()
	return
}

// panicsWith is panics with our own words, not the runtime's.
func panicsWith(msg string, f func()) (yes bool) {
	defer func() { yes = recover() == msg }()
	f()
	return
}

func content(m *Mbuf) []byte {
	b := []byte{}
	for ; m != nil; m = m.Next() {
		b = append(b, m.Bytes()...)
	}
	return b
}

func wantContent(t *testing.T, what string, m *Mbuf, want []byte) {
	t.Helper()
	if got := content(m); !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes %.20x.., want %d bytes %.20x..", what, len(got), got, len(want), want)
	}
	if m.Len() != len(want) {
		t.Errorf("%s: Len %d, want %d", what, m.Len(), len(want))
	}
}

// chain makes a chain of Mbufs that hold the given numbers of bytes of the stream: a positive one
// on a cluster, a negative one in a header.
func chain(p *Pool, at int, sizes ...int) *Mbuf {
	var head *Mbuf
	for _, n := range sizes {
		m := p.Gethdr()
		if n >= 0 {
			Free(m)
			m = p.Getcl(n)
		}
		n = max(n, -n)
		if m.Append(pattern(at, n)) != n {
			panic("no room")
		}
		at += n
		head = Cat(head, m)
	}
	return head
}

func TestGethdr(t *testing.T) {
	var p Pool
	m := p.Gethdr()
	if m.Len() != 0 || len(m.Bytes()) != 0 || m.Next() != nil || m.Pkt != (Pkthdr{}) {
		t.Error("a new header is not empty")
	}
	// A TCP header, the longest there is, must fit behind the headroom, and IPv6 and virtio-net
	// headers into it.
	if len(m.Room()) < 60 {
		t.Errorf("room for %d bytes, want a TCP header's 60", len(m.Room()))
	}
	if m.pins() != datSize {
		t.Errorf("pins %d", m.pins())
	}
	if n, b := p.Outstanding(); n != 1 || b != 0 {
		t.Errorf("outstanding %d, %d", n, b)
	}
	m.Append(pattern(100, 60))
	copy(m.Prepend(40), pattern(60, 40))
	copy(m.Prepend(12), pattern(48, 12))
	copy(m.Prepend(headroom-52), pattern(100-headroom, headroom-52))
	wantContent(t, "prepended", m, pattern(100-headroom, headroom+60))
	if m.Pkt.Len != headroom {
		t.Errorf("Pkt.Len %d after %d bytes in front", m.Pkt.Len, headroom)
	}
	if len(m.Room()) != 0 || m.Append([]byte{1}) != 0 {
		t.Error("a full header has room")
	}
	if !panics(func() { m.Prepend(1) }) {
		t.Error("Prepend beyond the storage did not panic")
	}
	// A header taken off makes headroom again.
	m = Adj(m, headroom+20)
	wantContent(t, "stripped", m, pattern(120, 40))
	copy(m.Prepend(20), pattern(100, 20))
	wantContent(t, "prepended again", m, pattern(100, 60))
	Free(m)

	// An Mbuf that is used again shows no trace of its former use.
	m = p.Gethdr()
	if m.Pkt != (Pkthdr{}) || m.Len() != 0 || m.own {
		t.Error("a recycled header is not empty")
	}
	Free(m)
	balanced(t, &p)
}

func TestGetcl(t *testing.T) {
	var p Pool
	for _, c := range []struct{ n, class int }{
		{0, ClSmall}, {1, ClSmall}, {ClSmall, ClSmall}, {ClSmall + 1, ClMid}, {ClMid, ClMid}, {ClMid + 1, ClBig},
		{ClBig, ClBig}, {ClBig + 1, ClHuge}, {ClHuge, ClHuge}, {ClHuge + 1, ClJumbo}, {ClJumbo, ClJumbo},
		{1 << 30, ClJumbo},
	} {
		m := p.Getcl(c.n)
		if len(m.Room()) != c.class || m.pins() != c.class || m.Len() != 0 {
			t.Errorf("Getcl(%d): room %d, pins %d, holds %d; want a cluster of %d", c.n, len(m.Room()), m.pins(),
				m.Len(), c.class)
		}
		if n, b := p.Outstanding(); n != 1 || b != int64(c.class) {
			t.Errorf("Getcl(%d): outstanding %d, %d", c.n, n, b)
		}
		if !panicsWith("mbuf: prepend to a cluster", func() { m.Prepend(1) }) {
			t.Error("Prepend to a cluster did not panic")
		}
		if n := m.Append(pattern(0, c.class+7)); n != c.class {
			t.Errorf("Append took %d of %d", n, c.class+7)
		}
		wantContent(t, "full cluster", m, pattern(0, c.class))
		Free(m)
	}
	balanced(t, &p)
}

func TestRoomExtend(t *testing.T) {
	var p Pool
	m := p.Getcl(ClSmall)
	copy(m.Room(), pattern(0, 30))
	m.Extend(30)
	copy(m.Room(), pattern(30, 40))
	m.Extend(40)
	wantContent(t, "extended", m, pattern(0, 70))
	if len(m.Room()) != ClSmall-70 {
		t.Errorf("room %d", len(m.Room()))
	}

	// The owner may go on behind a view; the view may not, not even behind a part that ends before
	// the owner's data.
	v := Copym(m, 0, 50)
	if v.Room() != nil || v.Append([]byte{1}) != 0 {
		t.Error("a view has room while its cluster is shared")
	}
	if m.Append(pattern(70, 10)) != 10 {
		t.Error("the owner has no room while its cluster is shared")
	}
	wantContent(t, "view", v, pattern(0, 50))
	// As the last one it may.
	Free(m)
	if len(v.Room()) != ClSmall-50 {
		t.Errorf("the last view has room %d", len(v.Room()))
	}
	Free(v)
	balanced(t, &p)
}

func TestFree(t *testing.T) {
	var p Pool
	Free(nil)
	m := chain(&p, 0, 100, -20, 3000)
	if n, b := p.Outstanding(); n != 3 || b != ClSmall+ClBig {
		t.Errorf("outstanding %d, %d", n, b)
	}
	// A cluster is counted until its last view goes, whichever that is.
	v := Copym(m, 0, m.Len())
	Free(m)
	if n, b := p.Outstanding(); n != 3 || b != ClSmall+ClBig {
		t.Errorf("outstanding %d, %d with the views alone", n, b)
	}
	Free(v)
	balanced(t, &p)

	// The test takes no Mbuf in between, as one that the store has handed out again cannot be told
	// from a live one.
	for name, m := range map[string]*Mbuf{"header": p.Gethdr(), "cluster": p.Getcl(1)} {
		Free(m)
		if !panicsWith("mbuf: freed twice", func() { Free(m) }) {
			t.Errorf("%s: no panic when freed twice", name)
		}
	}
	balanced(t, &p)
}

func TestCat(t *testing.T) {
	var p Pool
	if Cat(nil, nil) != nil {
		t.Error("two empty chains make one that is not")
	}
	a, b := chain(&p, 0, 10, 20), chain(&p, 30, 30, -40)
	if Cat(nil, a) != a || Cat(a, nil) != a {
		t.Error("an empty chain changes the other")
	}
	if Cat(a, b) != a {
		t.Error("Cat does not return the first")
	}
	wantContent(t, "Cat", a, pattern(0, 100))
	h := p.Gethdr()
	h.SetNext(a)
	if h.Next() != a {
		t.Error("SetNext")
	}
	wantContent(t, "SetNext", h, pattern(0, 100))
	Free(h)
	balanced(t, &p)
}

func TestCopymCopydata(t *testing.T) {
	var p Pool
	m := chain(&p, 0, 7, -5, 0, 300, -60, 1)
	n := m.Len()
	for off := 0; off <= n; off++ {
		for _, k := range []int{0, 1, 5, 6, 12, 60, 300, n - off} {
			if off+k > n {
				continue
			}
			v := Copym(m, off, k)
			if (v == nil) != (k == 0) {
				t.Fatalf("Copym(%d, %d) = %p", off, k, v)
			}
			for w := v; w != nil; w = w.Next() {
				if len(w.Bytes()) == 0 {
					t.Fatalf("Copym(%d, %d) has an empty Mbuf in it", off, k)
				}
			}
			wantContent(t, "Copym", v, pattern(off, k))
			Free(v)

			buf := make([]byte, k)
			if got := Copydata(m, off, buf); got != k || !bytes.Equal(buf, pattern(off, k)) {
				t.Fatalf("Copydata(%d, %d bytes) = %d, %x", off, k, got, buf)
			}
		}
	}
	// Copydata gives what there is.
	buf := make([]byte, 100)
	if got := Copydata(m, n-3, buf); got != 3 || Copydata(m, n, buf) != 0 || Copydata(m, n+5, buf) != 0 ||
		Copydata(nil, 0, buf) != 0 {
		t.Errorf("Copydata at the end: %d", got)
	}
	var mine Pool // what the panic leaves behind is not this test's to count
	short := chain(&mine, 0, 10)
	if !panics(func() { Copym(short, 5, 6) }) || !panics(func() { Copym(short, 11, 1) }) {
		t.Error("Copym beyond the end did not panic")
	}
	Free(m)
	balanced(t, &p)
}

// A header is copied, whatever has been put in front of it, and the copy is as good a header as the
// first.
func TestCopymHeader(t *testing.T) {
	var p Pool
	for _, n := range []int{1, 40, 60, 61, 100, datSize} {
		m := p.Gethdr()
		m.Append(pattern(n-min(n, 60), min(n, 60)))
		if n > 60 {
			copy(m.Prepend(n-60), pattern(0, n-60))
		}
		v := Copym(m, 0, n)
		m.Bytes()[0] ^= 0xff
		wantContent(t, "copy", v, pattern(0, n))
		for i := range min(n, datSize-n, 20) {
			copy(v.Prepend(1), pattern(1<<20-1-i, 1))
			if !bytes.Equal(content(v), append(pattern(1<<20-1-i, i+1), pattern(0, n)...)) {
				t.Fatalf("%d bytes: after %d bytes in front the copy holds %x", n, i+1, content(v))
			}
		}
		Free(m)
		Free(v)
	}
	balanced(t, &p)
}

func TestAdj(t *testing.T) {
	var p Pool
	sizes := []int{7, -5, 40, -1, 12}
	for n := -70; n <= 70; n++ {
		whole := chain(&p, 0, sizes...)
		pkt := Pkthdr{Len: 65, SegSize: 9, Arrived: 5, Csum: CsumVerified, Flow: 77}
		whole.Pkt = pkt
		m := Adj(whole, n)
		keep := max(65-max(n, -n), 0)
		if m != nil && m.Pkt != pkt {
			t.Fatalf("Adj(%d) loses the packet header: %+v", n, m.Pkt)
		}
		if (m == nil) != (keep == 0) {
			t.Fatalf("Adj(%d) = %p", n, m)
		}
		for w := m; w != nil; w = w.Next() {
			if len(w.Bytes()) == 0 {
				t.Fatalf("Adj(%d) has an empty Mbuf in it", n)
			}
		}
		wantContent(t, "Adj", m, pattern(min(max(n, 0), 65), keep))
		Free(m)
		if c, b := p.Outstanding(); c != 0 || b != 0 {
			t.Fatalf("Adj(%d) leaks %d mbufs and %d bytes", n, c, b)
		}
	}
	if Adj(nil, 0) != nil || Adj(nil, 5) != nil || Adj(nil, -5) != nil {
		t.Error("Adj of nothing")
	}
	// An empty header in front, as a payload has whose header was all there was in the first Mbuf.
	if m := Adj(chain(&p, 0, 0, 9), -4); m == nil || len(m.Bytes()) != 5 {
		t.Error("Adj leaves an empty Mbuf in front")
	} else {
		Free(m)
	}
	balanced(t, &p)
}

// The bytes that Adj cuts off an owner's end may belong to another Mbuf, so the owner must not
// write there any more.
func TestAdjGivesUpTheTail(t *testing.T) {
	var p Pool
	m := chain(&p, 0, 100)
	v := Copym(m, 50, 50)
	m = Adj(m, -50)
	if m.Append(make([]byte, 50)) != 0 {
		t.Error("the owner writes over what it has given away")
	}
	wantContent(t, "view", v, pattern(50, 50))
	Free(v)
	if m.Append(pattern(50, 50)) != 50 {
		t.Error("nobody else is there, and yet there is no room")
	}
	wantContent(t, "owner", m, pattern(0, 100))
	Free(m)
	balanced(t, &p)
}

// A chain pins the whole of each cluster that it views, and of each header.
func TestPinned(t *testing.T) {
	var p Pool
	if n := Pinned(nil); n != 0 {
		t.Errorf("an empty chain pins %d bytes", n)
	}
	m := p.Gethdr()
	for _, n := range []int{1, ClMid} {
		c := p.Getcl(n)
		c.Append(pattern(0, 1))
		m = Cat(m, c)
	}
	if n := Pinned(m); n != datSize+ClSmall+ClMid {
		t.Errorf("a header, a small and a middle cluster pin %d bytes, want %d", n, datSize+ClSmall+ClMid)
	}
	v := Copym(m, 0, 2)
	if n := Pinned(v); n != ClSmall+ClMid {
		t.Errorf("views on one byte of each cluster pin %d bytes, want %d", n, ClSmall+ClMid)
	}
	Free(m)
	Free(v)
	balanced(t, &p)
}

func TestPullup(t *testing.T) {
	var p Pool
	for n := 0; n <= 70; n++ {
		m := chain(&p, 0, 7, -5, 9, 0, 40, 20)
		m.Pkt = Pkthdr{Len: 81, SegSize: 9, Arrived: 5, Csum: CsumValid, Flow: 77}
		pkt := m.Pkt
		m = Pullup(m, n)
		if n > 60 {
			if m != nil {
				t.Fatalf("Pullup(%d) cannot be, but is", n)
			}
			continue
		}
		if m == nil || len(m.Bytes()) < n || m.Pkt != pkt {
			t.Fatalf("Pullup(%d): %+v", n, m)
		}
		wantContent(t, "Pullup", m, pattern(0, 81))
		Free(m)
	}
	// A chain that is contiguous stays as it is, whatever its length.
	m := chain(&p, 0, 5000)
	if Pullup(m, 5000) != m {
		t.Error("Pullup moved what was contiguous")
	}
	Free(m)
	if Pullup(chain(&p, 0, 7, -5), 13) != nil {
		t.Error("Pullup of more than there is")
	}
	// The result has headroom, and all of a chain may be pulled up.
	m = Pullup(chain(&p, 20, 10, 10), 20)
	copy(m.Prepend(20), pattern(0, 20))
	wantContent(t, "Pullup and Prepend", m, pattern(0, 40))
	if m.Next() != nil {
		t.Error("an empty rest")
	}
	Free(m)
	balanced(t, &p)
}

// Another core appends behind what this one reads, and frees its view while this one frees its own.
// The race detector looks on.
func TestSharedAcrossGoroutines(t *testing.T) {
	const pieces, size = 200, 300
	var p Pool
	views := make(chan *Mbuf, pieces)
	var wg sync.WaitGroup
	wg.Go(func() {
		var rcv Sockbuf
		at := 0
		for v := range views {
			if !bytes.Equal(content(v), pattern(at, size)) {
				t.Errorf("view at %d changed", at)
			}
			at += size
			rcv.Append(v) // compresses as soon as it is the last one
		}
		got := make([]byte, at)
		if rcv.Copydata(0, got); !bytes.Equal(got, pattern(0, at)) {
			t.Error("the receiver holds something else than what was sent")
		}
		rcv.Flush()
	})
	var snd Sendbuf
	for i := range pieces {
		b := pattern(i*size, size)
		if n := snd.AppendBytes(b); n < size {
			m := p.Getcl(ClMid)
			m.Append(b[n:])
			snd.Append(m)
		}
		views <- snd.Copym(snd.Cc()-size, size)
		if i%3 == 2 {
			snd.Drop(2 * size)
		}
	}
	close(views)
	snd.Flush()
	wg.Wait()
	balanced(t, &p)
}

// A sender in its steady state allocates no memory.
func TestNoAllocations(t *testing.T) {
	if testutil.Race {
		t.Skip("pools forget at random under the race detector")
	}
	var p Pool
	data := pattern(0, 1460)
	for name, f := range map[string]func(){
		"mbuf": func() {
			m := p.Getcl(len(data))
			m.Append(data)
			v := Copym(m, 100, 1000)
			Free(m)
			Free(v)
		},
		"packet": func() {
			m := p.Getcl(len(data))
			m.Append(data)
			h := p.Gethdr()
			h.Prepend(20)
			h.SetNext(Copym(m, 0, 1000))
			Free(m)
			Free(h)
		},
		"sockbuf": func() {
			var snd Sendbuf
			var rcv Sockbuf
			m := p.Getcl(ClBig)
			m.Append(data)
			snd.Append(m)
			snd.AppendBytes(data)
			rcv.Append(snd.Copym(0, 1000))
			rcv.Append(snd.Copym(1000, 60))
			snd.Drop(1060)
			Free(rcv.Cut(1010))
			rcv.Flush()
			snd.Flush()
		},
	} {
		if n := testing.AllocsPerRun(1000, f); n != 0 {
			t.Errorf("%s: %v allocations a run", name, n)
		}
	}
	balanced(t, &p)
}

func BenchmarkSockbufSend(b *testing.B) {
	var p Pool
	var snd Sendbuf
	data := pattern(0, 1460)
	b.ReportAllocs()
	for b.Loop() {
		if n := snd.AppendBytes(data); n < len(data) {
			m := p.Getcl(ClBig)
			m.Append(data[n:])
			snd.Append(m)
		}
		Free(snd.Copym(0, len(data)))
		snd.Drop(len(data))
	}
	snd.Flush()
}

// The bytes of a small Mbuf count as those of a cluster, so that small writes cannot exceed a
// stack's limit.
func TestGetsmallIsCounted(t *testing.T) {
	var p Pool
	m := p.Getsmall()
	if n, b := p.Outstanding(); n != 1 || b != MaxSmall {
		t.Errorf("outstanding %d, %d; want 1, %d", n, b, MaxSmall)
	}
	m.Append(make([]byte, 10))
	m = Adj(m, -5)
	Free(m)
	h := p.Gethdr()
	if n, b := p.Outstanding(); n != 1 || b != 0 {
		t.Errorf("a header counts as %d, %d; want 1, 0", n, b)
	}
	Free(h)
	balanced(t, &p)
}
