package mbuf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"bsdnet/internal/testutil"
)

// A side is a sockbuf and what it must hold.
type side struct {
	sb   Sendbuf
	want []byte
	rise int // where the next of a run of Copyms begins
}

// A view is a chain, and the bytes that it must hold forever.
type view struct {
	m    *Mbuf
	want []byte
}

// A world is two sockbufs that hand chains to each other, as two sockets on the loopback do, and
// the chains under way; it is driven by a string of bytes.
type world struct {
	t      *testing.T
	name   string // for messages: how to get here again
	script []byte
	pool   Pool
	sides  [2]side
	views  []view
	at     int // bytes of the stream made so far
}

// n takes a number below limit from the script.
func (w *world) n(limit int) int {
	var b [2]byte
	w.script = w.script[copy(b[:], w.script):]
	return int(binary.LittleEndian.Uint16(b[:])) % limit
}

func (w *world) fatal(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("%s: %s", w.name, fmt.Sprintf(format, args...))
}

// size draws a length, short ones more often than long ones.
func (w *world) size() int { return w.n([]int{4, 70, 600, 5000}[w.n(4)]) }

// make makes a chain, with an empty Mbuf here and there and with some that have been cut at an end.
func (w *world) make() view {
	var v view
	for range 1 + w.n(3) {
		n := w.size()
		var m *Mbuf
		if n <= 60 && w.n(2) == 0 {
			m = w.pool.Gethdr()
		} else {
			m = w.pool.Getcl(n + w.n(2)*w.n(ClHuge))
		}
		b := pattern(w.at, n)
		w.at += n
		if m.Append(b) != n {
			w.fatal("no room for %d bytes", n)
		}
		if n > 0 && w.n(3) == 0 {
			k := w.n(2*n) - n
			if m = Adj(m, k); k > 0 {
				b = b[k:]
			} else {
				b = b[:n+k]
			}
		}
		v.m = Cat(v.m, m)
		v.want = append(v.want, b...)
	}
	return v
}

// keep adds a view that was taken from want.
func (w *world) keep(m *Mbuf, want []byte) {
	w.views = append(w.views, view{m, bytes.Clone(want)})
}

// take removes a view.
func (w *world) take() view {
	if len(w.views) == 0 {
		return w.make()
	}
	i := w.n(len(w.views))
	v := w.views[i]
	w.views[i] = w.views[len(w.views)-1]
	w.views = w.views[:len(w.views)-1]
	return v
}

func (w *world) step() {
	s := &w.sides[w.n(2)]
	cc := len(s.want)
	span := func() (off, n int) {
		off = w.n(cc + 1)
		return off, min(w.size(), cc-off)
	}
	switch w.n(12) {
	case 0:
		v := w.make()
		s.sb.Append(v.m)
		s.want = append(s.want, v.want...)
	case 1: // a segment arrives, or is moved to another socket
		v := w.take()
		s.sb.Append(v.m)
		s.want = append(s.want, v.want...)
	case 2:
		b := pattern(w.at, w.size())
		w.at += len(b)
		room := s.sb.TailRoom()
		n := s.sb.AppendBytes(b)
		if n != min(room, len(b)) {
			w.fatal("AppendBytes took %d of %d into room of %d", n, len(b), room)
		}
		s.want = append(s.want, b[:n]...)
	case 3:
		n := min(w.size(), cc)
		s.sb.Drop(n)
		s.want = s.want[n:]
		s.rise = max(s.rise-n, 0)
	case 4:
		n := min(w.size(), cc)
		w.keep(s.sb.Cut(n), s.want[:n])
		s.want = s.want[n:]
		s.rise = max(s.rise-n, 0)
	case 5:
		off, n := span()
		w.keep(s.sb.Copym(off, n), s.want[off:off+n])
	case 6, 7: // what has not been sent yet
		s.rise = min(s.rise, cc)
		n := min(w.size(), cc-s.rise)
		w.keep(s.sb.Copym(s.rise, n), s.want[s.rise:s.rise+n])
		s.rise += n
	case 8:
		off, n := span()
		b := make([]byte, n+w.n(2))
		got := s.sb.Copydata(off, b)
		if got != min(len(b), cc-off) || !bytes.Equal(b[:got], s.want[off:off+got]) {
			w.fatal("Copydata(%d, %d bytes) of %d = %d", off, len(b), cc, got)
		}
	case 9:
		if w.n(8) == 0 {
			s.sb.Flush()
			s.want, s.rise = nil, 0
		}
	case 10:
		v := w.take()
		w.checkView(v)
		Free(v.m)
	case 11:
		v := w.received(w.take())
		w.views = append(w.views, v)
	}
	w.checkSide(s)
}

// received does to a packet what the input path does: it cuts the packet at either end, or shares
// its end and makes its beginning contiguous.
func (w *world) received(v view) view {
	switch w.n(3) {
	case 0:
		n := w.n(len(v.want) + 1)
		if v.m = Adj(v.m, n); n == 0 {
			break
		}
		v.want = v.want[n:]
	case 1:
		n := w.n(len(v.want) + 1)
		v.m = Adj(v.m, -n)
		if n > 0 {
			v.want = v.want[:len(v.want)-n]
		}
	case 2:
		n := w.n(len(v.want) + 1)
		w.keep(Copym(v.m, n, len(v.want)-n), v.want[n:])
		if n := min(w.n(61), len(v.want)); v.m != nil {
			if v.m = Pullup(v.m, n); v.m == nil {
				w.fatal("Pullup(%d) of %d failed", n, len(v.want))
			}
		}
	}
	return v
}

func (w *world) checkView(v view) {
	w.t.Helper()
	if got := content(v.m); !bytes.Equal(got, v.want) {
		w.fatal("a view of %d bytes changed: it holds %d bytes %.20x.., had %.20x..", len(v.want), len(got), got,
			v.want)
	}
}

func (w *world) checkSide(s *side) {
	w.t.Helper()
	if s.sb.Cc() != len(s.want) {
		w.fatal("Cc %d, want %d", s.sb.Cc(), len(s.want))
	}
	if got := content(s.sb.head); !bytes.Equal(got, s.want) {
		w.fatal("a sockbuf holds other bytes than it should (%d, want %d)", len(got), len(s.want))
	}
	pins := 0
	var last *Mbuf
	for m := s.sb.head; m != nil; m = m.next {
		if len(m.data) == 0 {
			w.fatal("an empty Mbuf in a sockbuf")
		}
		pins += m.pins()
		last = m
	}
	if s.sb.tail != last || s.sb.Pinned() != pins {
		w.fatal("Pinned %d, want %d; or the tail is wrong", s.sb.Pinned(), pins)
	}
}

// play runs the script and then gives everything back.
func play(t *testing.T, name string, script []byte) {
	t.Helper()
	w := &world{t: t, name: name, script: script}
	for len(w.script) > 0 {
		w.step()
		for len(w.views) > 20 { // as much as may be in flight
			v := w.take()
			w.checkView(v)
			Free(v.m)
		}
	}
	for _, v := range w.views {
		w.checkView(v)
		Free(v.m)
	}
	for i := range w.sides {
		s := &w.sides[i]
		w.checkSide(s)
		s.sb.Flush()
		s.want = nil
		w.checkSide(s)
	}
	if m, b := w.pool.Outstanding(); m != 0 || b != 0 {
		w.fatal("%d mbufs and %d bytes of clusters leaked", m, b)
	}
}

func randomScript(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func TestSockbufModel(t *testing.T) {
	seeds := uint64(150)
	if testutil.Race {
		seeds = 30 // it is slow, and nothing here runs in parallel
	}
	for seed := range seeds {
		play(t, fmt.Sprintf("seed %d", seed), randomScript(seed, 4000))
	}
}

func FuzzSockbuf(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(randomScript(seed, 200))
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		play(t, "fuzz", script[:min(len(script), 4000)])
	})
}

func TestSockbufBeyondTheEnd(t *testing.T) {
	var p Pool
	var sb Sendbuf
	sb.Append(chain(&p, 0, 10, 20))
	for name, f := range map[string]func(){
		"Drop":           func() { sb.Drop(31) },
		"Cut":            func() { sb.Cut(31) },
		"Copym":          func() { sb.Copym(31, 1) },
		"Copym, too far": func() { sb.Copym(30, 1) },
	} {
		if !panics(f) {
			t.Errorf("%s beyond the end did not panic", name)
		}
	}
	if sb.Cut(0) != nil || sb.Copym(30, 0) != nil {
		t.Error("nothing is something")
	}
	sb.Drop(0)
	if sb.Cc() != 30 {
		t.Errorf("Cc %d", sb.Cc())
	}
	sb.Flush()
	if sb.AppendBytes([]byte{1}) != 0 || sb.TailRoom() != 0 {
		t.Error("an empty sockbuf has room behind its last Mbuf")
	}
	sb.Append(chain(&p, 0, -5))
	if sb.AppendBytes([]byte{1}) != 0 || sb.TailRoom() != 0 {
		t.Error("a header's room is used for data")
	}
	sb.Append(nil)
	sb.Flush()
	balanced(t, &p)
}

// Writes that are too small for a cluster fill the Mbuf of the last one, and bytes of it that have
// been sent do not change.
func TestSockbufFillsSmall(t *testing.T) {
	var p Pool
	var sb Sendbuf
	m := p.Getsmall()
	m.Append(pattern(0, 40))
	sb.Append(m)
	sent := sb.Copym(0, 40)
	if n := sb.TailRoom(); n != MaxSmall-40 {
		t.Errorf("room for %d bytes behind 40 of %d", n, MaxSmall)
	}
	if n := sb.AppendBytes(pattern(40, MaxSmall)); n != MaxSmall-40 {
		t.Errorf("%d bytes appended, want %d", n, MaxSmall-40)
	}
	got := make([]byte, MaxSmall)
	sb.Copydata(0, got)
	if want := pattern(0, MaxSmall); !bytes.Equal(got, want) || !bytes.Equal(sent.Bytes(), want[:40]) ||
		sb.Cc() != MaxSmall {
		t.Errorf("%d bytes %x, %x sent", sb.Cc(), got, sent.Bytes())
	}
	Free(sent)
	sb.Flush()
	balanced(t, &p)
}

// The counters are spread, so that not all cores write to one cache line.
func TestMbufsAreSpread(t *testing.T) {
	homes := map[uint8]bool{}
	for range 200 {
		homes[mbufs.New().(*Mbuf).home] = true
	}
	if len(homes) < 4 {
		t.Errorf("new Mbufs are counted in %d places", len(homes))
	}
}

func TestSockbufSpace(t *testing.T) {
	var p Pool
	var sb Sockbuf
	sb.SetHiwat(1000)
	if sb.Space() != 1000 {
		t.Errorf("Space %d of an empty sockbuf", sb.Space())
	}
	for _, n := range []int{1 << 28, 1 << 29, 1 << 30} { // whose multiples have more than 31 bits
		if sb.SetHiwat(n); sb.Space() != min(n, MaxHiwat) {
			t.Errorf("Space %d of a buffer of %d", sb.Space(), n)
		}
	}
	sb.SetHiwat(1000)
	sb.Append(chain(&p, 0, 300))
	if sb.Space() != 700 {
		t.Errorf("Space %d with 300 bytes", sb.Space())
	}
	sb.Append(chain(&p, 0, 900))
	if sb.Space() != -200 {
		t.Errorf("Space %d with 1200 bytes", sb.Space())
	}
	sb.Drop(1000)
	if sb.Space() != 800 {
		t.Errorf("Space %d with 200 bytes", sb.Space())
	}
	sb.Flush()

	// Pinned bytes count, too: views that cannot be compressed into use up the space long before
	// their bytes do.
	sb.SetHiwat(1 << 20)
	var owners *Mbuf
	for sb.Space() > 0 && sb.Cc() < sb.Hiwat() {
		m := chain(&p, 0, 600)
		whole := p.Getcl(ClHuge)
		whole.Append(m.Bytes())
		Free(m)
		sb.Append(Copym(whole, 0, 600))
		owners = Cat(whole, owners)
	}
	if got, most := sb.Pinned(), maxPin*sb.Hiwat()+5*ClHuge; got > most || sb.Cc() >= sb.Hiwat()/8 {
		t.Errorf("full with %d bytes that pin %d", sb.Cc(), got)
	}
	Free(owners)
	sb.Flush()
	balanced(t, &p)
}

// An application that writes little by little, or a peer that sends so, must not cost a cluster for
// each piece: what a sockbuf pins stays within a small multiple of what it holds, whatever the
// sizes of the pieces and of the clusters they come in.
func TestSockbufPinsLittle(t *testing.T) {
	const total = 200 << 10
	for _, size := range []int{1, 2, 33, 34, 35, 60, 100, 511, 512, 513, 1460, 4095} {
		for _, class := range []int{0, ClSmall, ClMid, ClBig, ClHuge} { // 0: a header
			for _, shared := range []bool{false, true} {
				if class == 0 && size > 60 || class > 0 && size > class {
					continue
				}
				if shared && size*4 >= ClMid {
					continue // not copied, as the sharer pins the cluster in any case
				}
				var p Pool
				var sb Sockbuf
				var owners *Mbuf
				var want []byte
				for at := 0; at < total && at < 5000*size; at += size {
					m := p.Gethdr()
					if class > 0 {
						Free(m)
						m = p.Getcl(class)
					}
					m.Append(pattern(at, size))
					want = append(want, m.Bytes()...)
					if shared && len(want) < 20*size {
						owners = Cat(m, owners)
						m = Copym(m, 0, size)
					}
					sb.Append(m)
				}
				most := 5*sb.Cc() + 20*datSize + 2*ClHuge
				if shared {
					Free(owners)
				}
				_, out := p.Outstanding()
				if sb.Pinned() > most || int(out) > most {
					t.Errorf("pieces of %d in clusters of %d, shared %v: %d bytes pin %d (%d are out)", size, class,
						shared, sb.Cc(), sb.Pinned(), out)
				}
				if got := content(sb.head); !bytes.Equal(got, want) {
					t.Errorf("pieces of %d in clusters of %d, shared %v: other bytes than appended", size, class,
						shared)
				}
				sb.Flush()
				balanced(t, &p)
			}
		}
	}
}

// The case the bound above is for, in numbers: 10000 bytes in clusters of 2 KiB each, which would
// pin 20 MB.
func TestSockbufOneByteSegments(t *testing.T) {
	var p Pool
	var sb Sockbuf
	for i := range 10000 {
		m := p.Getcl(ClMid)
		m.Append(pattern(i, 1))
		sb.Append(m)
	}
	if sb.Pinned() > 10000+ClMid {
		t.Errorf("10000 bytes pin %d", sb.Pinned())
	}
	wantContent(t, "one by one", sb.head, pattern(0, 10000))
	sb.Flush()
	balanced(t, &p)
}

// A view's bytes never change, neither when the owner goes on behind them nor when a receiver fills
// up the same cluster.
func TestViewsNeverChange(t *testing.T) {
	var p Pool
	var snd Sendbuf
	var rcv, tap Sockbuf
	snd.Append(chain(&p, 0, ClMid/2)) // half full
	first := snd.Copym(0, 100)
	second := snd.Copym(100, 400)
	all := snd.Copym(0, ClMid/2)

	rcv.Append(first)
	if n := snd.AppendBytes(pattern(ClMid/2, 100)); n != 100 {
		t.Errorf("the owner took %d", n)
	}
	// The receiver may not write behind its view, as the sender's bytes stand there.
	small := p.Getcl(ClMid)
	small.Append(pattern(5000, 50))
	rcv.Append(small)
	tap.Append(all)
	small = p.Getcl(ClMid)
	small.Append(pattern(6000, 50))
	tap.Append(small)

	wantContent(t, "sender", snd.head, pattern(0, ClMid/2+100))
	wantContent(t, "view", second, pattern(100, 400))
	wantContent(t, "receiver", rcv.head, append(pattern(0, 100), pattern(5000, 50)...))
	wantContent(t, "tap", tap.head, append(pattern(0, ClMid/2), pattern(6000, 50)...))
	snd.Flush()
	rcv.Flush()
	tap.Flush()
	// The last view now owns what stands behind it.
	rcv.Append(second)
	small = p.Getcl(ClMid)
	small.Append(pattern(7000, 50))
	rcv.Append(small)
	wantContent(t, "receiver", rcv.head, append(pattern(100, 400), pattern(7000, 50)...))
	if rcv.Pinned() != ClMid {
		t.Errorf("the last view's room was not used: pinned %d", rcv.Pinned())
	}
	rcv.Flush()
	balanced(t, &p)
}

// A send buffer of many Mbufs is walked once for a window of segments, not once a segment: the
// place is kept, also when acknowledged data is dropped.
func TestSockbufCopymKeepsItsPlace(t *testing.T) {
	var p Pool
	var sb Sendbuf
	for i := range 100 {
		sb.Append(chain(&p, i*ClSmall, ClSmall))
	}
	for i := range 50 {
		Free(sb.Copym(i*ClSmall+3, 10))
	}
	place := sb.ptr
	if place == nil || !bytes.Equal(place.Bytes(), pattern(49*ClSmall, ClSmall)) {
		t.Fatal("the place is not where the last Copym began")
	}
	// As the chain before the place has been cut off, only a call that does not walk it gets there.
	rest := sb.head.next
	sb.head.next = nil
	v := sb.Copym(49*ClSmall+13, 10)
	sb.head.next = rest
	wantContent(t, "on from the place", v, pattern(49*ClSmall+13, 10))
	Free(v)
	sb.Drop(10*ClSmall + 5)
	if sb.ptr != place {
		t.Error("dropping what is before the place lost it")
	}
	v = sb.Copym(39*ClSmall, 10)
	wantContent(t, "after a drop", v, pattern(49*ClSmall+5, 10))
	Free(v)
	// Back to the front for a retransmission, and on.
	v = sb.Copym(0, 10)
	wantContent(t, "retransmission", v, pattern(10*ClSmall+5, 10))
	Free(v)
	// The place goes with its Mbuf.
	Free(sb.Copym(20*ClSmall, 1))
	sb.Drop(25 * ClSmall)
	if sb.ptr != nil {
		t.Error("the place is in an Mbuf that is gone")
	}
	v = sb.Copym(0, 10)
	wantContent(t, "after all was dropped", v, pattern(35*ClSmall+5, 10))
	Free(v)
	sb.Flush()
	balanced(t, &p)
}
