package tcp

import (
	"testing"
	"time"

	"bsdnet/internal/kern/mbuf"
)

// feed has the peer send n bytes, in packets that the link has merged.
func (k *kit) feed(n int) {
	k.t.Helper()
	for n > 0 {
		c := min(n, 32*1000)
		p := k.pkt(".", k.tp.rcvNxt.Sub(k.t.irs), k.tp.sndMax.Sub(k.t.iss), c)
		p.segs = (c + 999) / 1000
		k.sent = nil
		k.input(p)
		n -= c
	}
	k.sent = nil
}

// drain has the peer acknowledge all that has been sent, and be sent what follows, until there is
// nothing left; it returns how much that was.
func (k *kit) drain() int {
	k.t.Helper()
	before := k.tp.bytesSent
	for k.snd.Cc() > 0 {
		k.tp.flags &^= rttTimed // the round trip is what the options say
		k.sent = nil
		k.input(k.pkt(".", k.tp.rcvNxt.Sub(k.t.irs), k.tp.sndMax.Sub(k.t.iss), 0))
	}
	k.sent = nil
	return int(k.tp.bytesSent - before)
}

// pass lets time pass, whatever is sent meanwhile.
func (k *kit) pass(d time.Duration) {
	k.t.Helper()
	for end := k.now + int64(d); k.now < end; k.sent = nil {
		k.sent = nil
		k.advance(time.Duration(min(max(k.tp.Next(), k.now), end) - k.now))
	}
}

// wantBufs checks the sizes of both buffers.
func (k *kit) wantBufs(when string, rcv, snd int) {
	k.t.Helper()
	if k.rcv.Hiwat() != rcv || k.snd.Hiwat() != snd {
		k.fatalf("%s the buffers are %d and %d; want %d and %d", when, k.rcv.Hiwat(), k.snd.Hiwat(), rcv, snd)
	}
}

const auto = "bsd, mss 1000, wscale 8, rcvbuf 64000, sndbuf 32000, rtt 50ms"

func autoMax(p *Profile) { p.RecvbufMax, p.SendbufMax = 400_000, 100_000 }

// A receive buffer doubles when more than a quarter of it has been read in a round trip, up to the
// largest, and the window with it: 51 ms are a little more than that.
func TestReceiveBufferGrows(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, auto, autoMax)
		k.pass(50 * time.Millisecond)
		for _, want := range []int{128_000, 256_000, 400_000, 400_000} {
			n := k.rcv.Hiwat() / 10 * 6
			k.feed(n)
			k.read(all)
			k.pass(51 * time.Millisecond)
			k.feed(100)
			k.read(all)
			k.wantBufs("after half a buffer", want, 32_000)
		}
		if w := k.tp.Info().RcvWnd; w < 300_000 {
			k.fatalf("the window is %d", w)
		}
	})
}

// What stays below a quarter, comes over a longer time or in one short burst, is not read, or takes
// nobody knows how long, makes no buffer grow.
func TestReceiveBufferStays(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, auto, autoMax)
		k.pass(51 * time.Millisecond)
		k.feed(1)
		for range 5 {
			k.feed(15_500)
			k.read(all)
			k.pass(51 * time.Millisecond)
		}
		k.wantBufs("below a quarter", 64_000, 32_000)
		k.feed(1)
		for range 4 { // four times as much in eight times the time
			k.feed(31_000)
			k.read(all)
			k.pass(100 * time.Millisecond)
		}
		k.feed(1)
		k.read(all)
		k.wantBufs("slowly", 64_000, 32_000)
		k.pass(51 * time.Millisecond)
		k.feed(1)
		k.feed(40_000) // and nobody reads
		k.pass(51 * time.Millisecond)
		k.feed(1)
		k.wantBufs("unread", 64_000, 32_000)
		k.read(all)
		k.sent = nil

		k = established(t, auto, autoMax)
		k.tp.rtt.min = never
		for range 3 {
			k.pass(1001 * time.Millisecond)
			k.feed(40_000)
			k.read(all)
		}
		k.wantBufs("without a round trip", 64_000, 32_000)
		k.sent = nil

		k = established(t, auto, autoMax)
		k.tp.rtt.min = 10_000
		k.pass(time.Second)
		for range 3 {
			k.feed(40_000)
			k.read(all)
			k.pass(101 * time.Microsecond)
		}
		k.wantBufs("a burst", 64_000, 32_000)
	})
}

// A send buffer grows with what is acknowledged.
func TestSendBufferGrows(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, auto, autoMax)
		k.pass(50 * time.Millisecond)
		for _, want := range []int{32_000, 64_000, 100_000, 100_000} { // the first round only begins to measure
			k.write(k.snd.Hiwat())
			k.drain()
			k.wantBufs("after", 64_000, want)
			k.pass(51 * time.Millisecond)
		}
	})
}

// Buffers stay as they are if somebody has set them, in the profiles whose windows are known to
// the byte, on the loopback, beyond what a window without a scale can say or a buffer may have,
// if what comes is thrown away, if memory is short, and if the way is.
func TestBuffersStay(t *testing.T) {
	const sizes = "bsd, mss 1000, rcvbuf 64000, sndbuf 32000, "
	each(t, func(t *T) {
		for _, c := range []struct {
			name, opts string
			prepare    func(k *kit)
			rcv, snd   int
		}{
			{"to begin with", auto, func(*kit) {}, 128_000, 64_000},
			{"both set", auto, func(k *kit) { k.tp.Clear(AutoRcv | AutoSnd) }, 64_000, 32_000},
			{"one set", auto, func(k *kit) { k.tp.Clear(AutoRcv) }, 64_000, 64_000},
			{"FreeBSD", "FreeBSD, " + auto, func(*kit) {}, 64_000, 32_000},
			{"loopback", auto, func(k *kit) { k.tp.flags |= local }, 64_000, 32_000},
			{"no scale", sizes + "rtt 50ms", func(*kit) {}, maxWin, 64_000},
			{"maxsockbuf", auto, func(k *kit) { k.prof.Maxsockbuf = 50_000 }, 64_000, 50_000},
			{"nobody reads any more", auto, func(k *kit) { k.tp.Set(CantRcvMore) }, 64_000, 64_000},
			{"a short way", auto, func(k *kit) { k.tp.rtt.min = 10_000 }, 64_000, 32_000},
			{"little memory", auto, func(k *kit) {
				k.pool.SetLimit(1)
				m := k.pool.Getcl(mbuf.ClHuge)
				k.t.Cleanup(func() { mbuf.Free(m) })
			}, 64_000, 32_000},
		} {
			k := established(t, c.opts, autoMax, func(p *Profile) { p.RoundBufs = false })
			c.prepare(k)
			k.pass(time.Second) // a round begins with the next segment
			k.feed(1)
			for range 2 {
				k.feed(20_000)
				k.read(all)
				k.write(10_000)
				k.drain()
			}
			k.pass(51 * time.Millisecond)
			k.feed(1)
			k.read(all)
			k.sent = nil
			k.wantBufs(c.name, c.rcv, c.snd)
		}
	})
}

// TestAutobufLook: bytes are scaled to a round trip, at most one look in each, and all counters
// wrap.
func TestAutobufLook(t *testing.T) {
	const near = 1<<32 - 1000
	for _, c := range []struct {
		name                string
		a                   autobuf
		now, minRTT         int64
		read, acked         uint32
		wantRead, wantAcked int
		due                 bool
	}{
		{"too early", autobuf{}, 50*ms - 1000, 50 * ms, 9, 9, 0, 0, false},
		{"a round trip", autobuf{}, 50 * ms, 50 * ms, 700, 300, 700, 300, true},
		{"two", autobuf{}, 100 * ms, 50 * ms, 700, 300, 350, 150, true},
		{"since the last look", autobuf{at: 100_000, read: 200, acked: 100}, 150 * ms, 50 * ms, 700, 300, 500, 200,
			true},
		{"a short one is averaged", autobuf{}, 4 * ms, ms, 4000, 400, 1000, 100, true},
		{"not before the mean's time", autobuf{}, 4*ms - 1000, ms, 4000, 400, 0, 0, false},
		{"none is shorter than autoFloor", autobuf{}, 4 * ms, 1000, 4000, 400, 100, 10, true},
		{"nor longer than a second", autobuf{}, 2 * sec, 4 * sec, 4000, 400, 2000, 200, true},
		{"all come round", autobuf{at: near, read: near, acked: near}, 1<<32*1000 + 49*ms, 50 * ms, 0, 1000, 1000,
			2000, true},
	} {
		a := c.a
		read, acked, due := a.look(c.now, c.minRTT, c.read, c.acked)
		if read != c.wantRead || acked != c.wantAcked || due != c.due {
			t.Errorf("%s: %d read, %d acknowledged, %v; want %d, %d, %v", c.name, read, acked, due, c.wantRead,
				c.wantAcked, c.due)
		}
		if want := (autobuf{uint32(c.now / 1000), c.read, c.acked}); due && a != want || !due && a != c.a {
			t.Errorf("%s: remembers %+v", c.name, a)
		}
	}
}
