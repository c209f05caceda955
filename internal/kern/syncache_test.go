package kern

import (
	"math/rand/v2"
	"net/netip"
	"runtime"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
	"bsdnet/internal/testutil"
)

// fullOptions are what a modern peer offers.
func fullOptions() wire.Options {
	return wire.Options{Has: wire.TofMSS | wire.TofScale | wire.TofSackperm | wire.TofTS, MSS: 1400, Scale: 7,
		TSVal: 1000}
}

// TestSyncacheDuplicateKarn: a SYN,ACK that has been sent again, as the peer's SYN has come again,
// measures no round trip (RFC 6298, 3). If its timer had expired before that, the connection begins
// with a time-out of 3 s (5.7) and one segment (RFC 5681, 3.1).
func TestSyncacheDuplicateKarn(t *testing.T) {
	for _, k := range []struct {
		again  time.Duration // when the SYN comes again; 0: it does not
		rtt    time.Duration
		rto    time.Duration
		window int // segments
	}{
		{0, 40 * time.Millisecond, 240 * time.Millisecond, 10},
		{900 * time.Millisecond, 0, time.Second, 10},
		{1500 * time.Millisecond, 0, 3 * time.Second, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			v := attacked(t, nil)
			defer v.done()
			lfd := v.listen(80, 10)
			p := v.peer(5000, 80)
			syn := p.syn(fullOptions()).bytes()
			v.inject(syn)
			if k.again > 0 {
				pass(k.again)
				v.link.fetch()
				v.inject(syn)
			}
			g := v.one()
			pass(40 * time.Millisecond)
			p.seq, p.ack, p.tsecr = p.seq+1, g.th.Seq+1, g.th.Opt.TSVal
			v.inject(p.seg(wire.ACK, nil).bytes())
			fd, _, errno := v.p.Accept(lfd)
			v.no(errno)
			i, errno := v.p.TCPInfo(fd)
			v.no(errno)
			if i.RTT != k.rtt || i.RTO != k.rto || i.SndCwnd != k.window*(i.SndMSS-12) { // less the timestamps
				t.Errorf("the SYN again after %v: RTT %v, RTO %v, window %d of MSS %d; want %v, %v and %d segments",
					k.again, i.RTT, i.RTO, i.SndCwnd, i.SndMSS, k.rtt, k.rto, k.window)
			}
		})
	}
}

// A SYN,ACK is sent again after 1, 2, 4, 8 and 16 seconds more, and 32 seconds later the entry
// expires; the same SYN again is answered again, and counts as one.
func TestSyncacheRetransmits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		v.listen(80, 10)
		p := v.peer(5000, 80)
		start := time.Now()
		v.inject(p.syn(fullOptions()).bytes())
		first := v.one()
		if first.th.Flags != wire.SYN|wire.ACK || first.th.Ack != p.seq+1 {
			t.Fatalf("answer %+v", first.th)
		}
		for i, at := range []time.Duration{time.Second, 3 * time.Second, 7 * time.Second, 15 * time.Second,
			31 * time.Second} {
			pass(time.Until(start.Add(at - time.Millisecond)))
			v.none()
			pass(time.Millisecond)
			if g := v.one(); g.th.Seq != first.th.Seq || g.th.Flags != first.th.Flags ||
				g.th.Opt.MSS != first.th.Opt.MSS {
				t.Fatalf("retransmission %d is %+v", i, g.th)
			}
		}
		pass(time.Until(start.Add(63*time.Second - time.Millisecond)))
		if n := v.halfOpen(); n != 1 {
			t.Errorf("%d entries before the time is over", n)
		}
		pass(time.Millisecond)
		v.none()
		if n := v.halfOpen(); n != 0 || v.k.Stats.TCP.ScStale.Load() != 1 {
			t.Errorf("%d entries, %d expired", n, v.k.Stats.TCP.ScStale.Load())
		}
		// Duplicates.
		for range 5 {
			v.inject(p.syn(fullOptions()).bytes())
			v.one()
		}
		if v.halfOpen() != 1 || v.k.Stats.TCP.ScDupsyn.Load() != 4 {
			t.Errorf("%d entries for one SYN, %d duplicates", v.halfOpen(), v.k.Stats.TCP.ScDupsyn.Load())
		}
	})
}

// RFC 9293, 3.10.7.4 and RFC 5961: what segments do to a half-open connection.
func TestSyncacheSegments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		lfd := v.listen(80, 10)
		p := v.peer(5000, 80)
		open := func() {
			p.seq = 1000
			v.inject(p.syn(wire.Options{}).bytes())
			p.ack, p.seq = v.one().th.Seq+1, 1001
		}
		open()
		s := p.seg(wire.RST, nil)
		s.th.Seq = p.seq + 1 // in the window: challenged
		v.inject(s.bytes())
		if g := v.one(); g.th.Flags != wire.ACK || g.th.Ack != p.seq || g.th.Seq != p.ack {
			t.Errorf("challenge %+v", g.th)
		}
		s.th.Seq = p.seq - 1 // outside
		v.inject(s.bytes())
		v.none()
		bad := p.seg(wire.ACK, nil) // acknowledges what has not been sent: a reset, the entry stays
		bad.th.Ack = p.ack + 1
		v.inject(bad.bytes())
		if g := v.one(); g.th.Flags != wire.RST || g.th.Seq != p.ack+1 {
			t.Errorf("answer to a bad acknowledgment %+v", g.th)
		}
		if v.halfOpen() != 1 {
			t.Fatalf("%d entries", v.halfOpen())
		}
		s.th.Seq = p.seq // exact
		v.inject(s.bytes())
		v.none()
		if v.halfOpen() != 0 {
			t.Fatalf("a reset does not end the handshake")
		}
		open()
		v.inject(p.seg(wire.ACK, nil).bytes())
		if _, _, errno := v.p.Accept(lfd); errno != 0 {
			t.Errorf("accept: %v", errno)
		}
	})
}

// overflow fills every bucket with SYNs from nowhere.
func (v *victim) overflow(port uint16, n int) {
	v.Helper()
	v.link.mu.Lock()
	v.link.quiet = true
	v.link.mu.Unlock()
	r := rand.New(rand.NewPCG(3, 3))
	s := &seg{to: netip.AddrPortFrom(attHost, port),
		th: wire.TCP{Flags: wire.SYN, Win: 1000, Opt: wire.Options{Has: wire.TofMSS, MSS: 1000}}}
	for range n {
		x := r.Uint64()
		s.from = netip.AddrPortFrom(attFrom(11, byte(x), byte(x>>8), byte(x>>16)), uint16(x>>24)|1)
		s.th.Seq = tcp.Seq(x >> 32)
		v.inject(s.bytes())
	}
	v.link.count()
	v.link.mu.Lock()
	v.link.quiet = false
	v.link.mu.Unlock()
}

const scMax = scBuckets * scBucketLimit

// A01: a flood of SYNs leaves a table of bounded size and nothing else, and an honest handshake
// succeeds in its midst, by a cookie.
func TestSynFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		lfd := v.listen(80, 10)
		v.overflow(80, floodSYNs/5)
		heap := func() uint64 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		if n := v.halfOpen(); n > scMax {
			t.Fatalf("%d entries, at most %d", n, scMax)
		}
		h0 := heap()
		v.overflow(80, floodSYNs)
		if h1 := heap(); h1 > h0+2<<20 {
			t.Errorf("the heap grew from %d to %d bytes", h0, h1)
		}
		if n := v.halfOpen(); n > scMax {
			t.Errorf("%d entries, at most %d", n, scMax)
		}
		if m, _ := v.k.Pool().Outstanding(); m > 64+64 { // the receive goroutine's
			t.Errorf("%d mbufs are in use", m)
		}
		if !v.peer(5000, 80).dial(fullOptions()) {
			t.Fatalf("no SYN,ACK")
		}
		if _, _, errno := v.p.Accept(lfd); errno != 0 {
			t.Fatalf("accept: %v", errno)
		}
		if v.k.Stats.TCP.ScSendcookie.Load() == 0 {
			t.Errorf("no cookies")
		}
		pass(64 * time.Second)
		if v.halfOpen() != 0 {
			t.Errorf("%d entries when all have expired", v.halfOpen())
		}
	})
}

// A02: a cookie keeps MSS, window scale and SACK: in the timestamp if there is one, or else in the
// number.
func TestCookieKeepsOptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		lfd := v.listen(80, 100)
		v.overflow(80, 2*scMax)
		port := uint16(6000)
		try := func(o wire.Options) tcp.Info {
			t.Helper()
			port++
			before := v.k.Stats.TCP.ScRecvcookie.Load()
			p := v.peer(port, 80)
			if !p.dial(o) {
				t.Fatalf("no SYN,ACK")
			}
			if v.k.Stats.TCP.ScRecvcookie.Load() != before+1 {
				t.Fatalf("not by a cookie")
			}
			fd, _, errno := v.p.Accept(lfd)
			v.no(errno)
			// The connection works both ways.
			p.send([]byte("ping"))
			b := make([]byte, 10)
			if n, errno := v.p.Recv(fd, b, 0); n != 4 || errno != 0 {
				t.Fatalf("recv: %d, %v", n, errno)
			}
			v.link.fetch()
			v.p.Send(fd, []byte("pong"), 0)
			if g := v.one(); g.th.Seq != p.ack || string(g.data) != "pong" {
				t.Fatalf("answer %+v", g)
			}
			i, _ := v.p.TCPInfo(fd)
			return i
		}
		const scaleSack = wire.TofScale | wire.TofSackperm
		for scale := range uint8(15) {
			i := try(wire.Options{Has: wire.TofMSS | scaleSack | wire.TofTS, MSS: 1400, Scale: scale, TSVal: 77})
			if i.SndWscale != scale || i.Options != optTS|optSACK|optWSCALE || i.SndMSS != 1400-12 && i.SndMSS != 1400 {
				t.Errorf("scale %d with timestamps: scale %d, options %b, MSS %d", scale, i.SndWscale, i.Options,
					i.SndMSS)
			}
			i = try(wire.Options{Has: wire.TofMSS | scaleSack, MSS: 1400, Scale: scale})
			if want := cookieScale[1+rounddown(cookieScale[1:], scale)]; i.SndWscale != want ||
				i.Options != optSACK|optWSCALE {
				t.Errorf("scale %d without: scale %d, want %d, options %b", scale, i.SndWscale, want, i.Options)
			}
		}
		most, dflt := 1460, 536
		if attFam == &attInet6 {
			most, dflt = 1440, 1200
		}
		if i := try(wire.Options{Has: wire.TofMSS, MSS: 1460}); i.Options != 0 || i.SndMSS != most {
			t.Errorf("no options: %b, MSS %d", i.Options, i.SndMSS)
		}
		for mss, want := range map[uint16]int{9000: 1460, 1459: 1452, 1300: 1200, 540: 536, 300: 216} {
			want = min(want, most)
			if i := try(wire.Options{Has: wire.TofMSS, MSS: mss}); i.SndMSS != want {
				t.Errorf("MSS %d became %d, want %d", mss, i.SndMSS, want)
			}
		}
		if i := try(wire.Options{}); i.SndMSS != dflt {
			t.Errorf("no MSS became %d", i.SndMSS)
		}
	})
}

// TCPI_OPT_ bits.
const (
	optTS     = 1
	optSACK   = 2
	optWSCALE = 4
)

// A02, A03: forged acknowledgments make no connection; a cookie is not valid for another stack, nor
// after two minutes, nor before the stack has sent one.
func TestCookieForgeries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		lfd := v.listen(80, 1000)
		forge := func(n int) {
			r := rand.New(rand.NewPCG(5, 5))
			s := &seg{from: netip.AddrPortFrom(attPeer, 7777), to: netip.AddrPortFrom(attHost, 80),
				th: wire.TCP{Flags: wire.ACK, Win: 1000}}
			for range n {
				s.th.Seq, s.th.Ack = tcp.Seq(r.Uint32()), tcp.Seq(r.Uint32())
				v.inject(s.bytes())
			}
			v.link.count()
			if _, _, errno := v.p.Accept(lfd); errno != syscall.EAGAIN {
				t.Fatalf("accept after forgeries: %v", errno)
			}
		}
		forge(100)
		v.overflow(80, 2*scMax)
		forge(100_000)

		// The true one, from the same peer, on time and late, to this and to another stack.
		p := v.peer(8000, 80)
		v.inject(p.syn(wire.Options{}).bytes())
		p.seq, p.ack = p.seq+1, v.one().th.Seq+1
		final := p.seg(wire.ACK, nil)
		pass(119 * time.Second)
		w := attacked(t, func(c *Config, _ *tcp.Profile) { c.Rand = testutil.SeededRand(2) })
		defer w.done()
		wfd := w.listen(80, 10)
		w.overflow(80, 2*scMax)
		w.inject(final.bytes())
		if _, _, errno := w.p.Accept(wfd); errno != syscall.EAGAIN {
			t.Errorf("another stack's cookie: %v", errno)
		}
		other := *final
		other.from = netip.AddrPortFrom(attPeer, 8001)
		v.overflow(80, 2*scMax) // the table is full again
		v.inject(other.bytes())
		if _, _, errno := v.p.Accept(lfd); errno != syscall.EAGAIN {
			t.Errorf("another port's cookie: %v", errno)
		}
		v.overflow(80, 2*scMax)
		pass(2 * time.Second)
		v.inject(final.bytes())
		if _, _, errno := v.p.Accept(lfd); errno != syscall.EAGAIN {
			t.Errorf("a cookie of 121 s: %v", errno)
		}
	})
}

// so_q is exact: as many connections wait as the backlog says, not one more. A SYN from the wire
// that finds it full is dropped; so is a final ACK, but its entry stays, and the connection is made
// when the peer sends another segment, or answers the SYN,ACK's retransmission.
func TestAcceptQueueExact(t *testing.T) {
	for _, qlimit := range []int{1, 2, 7} {
		synctest.Test(t, func(t *testing.T) {
			v := attacked(t, nil)
			defer v.done()
			lfd := v.listen(80, qlimit)
			// One more handshake begins than there are places.
			peers := make([]*peer, qlimit+1)
			for i := range peers {
				peers[i] = v.peer(uint16(5000+i), 80)
				v.inject(peers[i].syn(wire.Options{}).bytes())
				g := v.one()
				peers[i].seq, peers[i].ack = peers[i].seq+1, g.th.Seq+1
			}
			for _, p := range peers {
				v.inject(p.seg(wire.ACK, nil).bytes())
			}
			v.none()
			if n := len(v.states(func(c Conn) bool { return c.State == tcp.Established })); n != qlimit {
				t.Fatalf("%d connections, want %d", n, qlimit)
			}
			if v.halfOpen() != 1 {
				t.Fatalf("%d entries, want the one that waits", v.halfOpen())
			}
			v.inject(v.peer(9000, 80).syn(wire.Options{}).bytes())
			v.none()
			if n := v.k.Stats.TCP.Listendrop.Load(); n != 2 {
				t.Errorf("%d drops are counted, want 2", n)
			}
			if _, _, errno := v.p.Accept(lfd); errno != 0 {
				t.Fatal(errno)
			}
			pass(time.Second) // the SYN,ACK again
			v.one()
			v.inject(peers[qlimit].seg(wire.ACK, nil).bytes())
			for i := range qlimit {
				if _, _, errno := v.p.Accept(lfd); errno != 0 {
					t.Errorf("accept %d: %v", i, errno)
				}
			}
			if _, _, errno := v.p.Accept(lfd); errno != syscall.EAGAIN {
				t.Errorf("one too many: %v", errno)
			}
		})
	}
}

// The acknowledgment of a handshake goes to the listener that began it, even if another listens on
// a more specific address by then.
func TestHandshakeStaysWithItsListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		any := v.listenOn(netip.AddrPortFrom(attAny.Addr(), 80), 5, SO_REUSEPORT)
		p := v.peer(5000, 80)
		v.inject(p.syn(wire.Options{}).bytes())
		p.seq, p.ack = p.seq+1, v.one().th.Seq+1
		one := v.listenOn(netip.AddrPortFrom(attHost, 80), 5, SO_REUSEPORT)
		v.inject(p.seg(wire.ACK, nil).bytes())
		if _, _, errno := v.p.Accept(one); errno != syscall.EAGAIN {
			t.Errorf("the other listener has it: %v", errno)
		}
		if _, _, errno := v.p.Accept(any); errno != 0 {
			t.Errorf("accept: %v", errno)
		}
	})
}

// FreeBSD's syncache_unreach: ICMP errors about a SYN,ACK end the handshake only if they come again
// after retransmissions.
func TestSyncacheIgnoresIcmpOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		v.listen(80, 5)
		p := v.peer(5000, 80)
		v.inject(p.syn(wire.Options{}).bytes())
		quoted := v.link.fetch()[0]
		unreach := icmpPacket(attPeer, attHost, wire.ICMP{Type: wire.ICMPUnreach, Code: wire.ICMPUnreachHost},
			quoted[:28])
		for range 10 {
			v.inject(unreach)
		}
		if v.halfOpen() != 1 {
			t.Errorf("forged errors have ended a handshake")
		}
		pass(7500 * time.Millisecond) // it has been sent three more times
		v.inject(unreach)
		if v.halfOpen() != 0 {
			t.Errorf("a host that stays unreachable keeps its entry")
		}
	})
}

// A forged SYN for a half-open connection does not give it its timestamp: the honest final ACK
// would be old (RFC 7323, 5.3). The same SYN again does.
func TestSyncacheForgedTimestamp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		lfd := v.listen(80, 10)
		p := v.peer(5000, 80)
		v.inject(p.syn(fullOptions()).bytes())
		g := v.one()
		for _, has := range []wire.OptFlags{wire.TofTS, 0} {
			forged := p.syn(wire.Options{Has: wire.TofMSS | has, MSS: 1400, TSVal: 1 << 30})
			forged.th.Seq += 12345
			v.inject(forged.bytes())
			if a := v.one(); a.th.Opt.Has&wire.TofTS == 0 || a.th.Opt.TSEcr != 1000 {
				t.Errorf("after a forged SYN the SYN,ACK echoes %d", a.th.Opt.TSEcr)
			}
		}
		again := fullOptions()
		again.TSVal = 2000
		v.inject(p.syn(again).bytes())
		if a := v.one(); a.th.Opt.TSEcr != 2000 {
			t.Errorf("after the SYN again the SYN,ACK echoes %d", a.th.Opt.TSEcr)
		}
		p.seq, p.ack, p.tsval, p.tsecr = p.seq+1, g.th.Seq+1, 2001, g.th.Opt.TSVal
		v.inject(p.seg(wire.ACK, nil).bytes())
		if _, _, errno := v.p.Accept(lfd); errno != 0 {
			t.Errorf("accept: %v", errno)
		}
	})
}

// A cookie's SYN,ACK does not agree to ECN, which the cookie would forget, and no echo of a
// timestamp makes a scale that does not exist.
func TestCookieForgetsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		lfd := v.listen(80, 5)
		v.link.quiet = true
		for i := range 4 * scBuckets * scBucketLimit {
			s := &seg{from: netip.AddrPortFrom(attFrom(11, byte(i>>16), byte(i>>8), byte(i)),
				1), to: netip.AddrPortFrom(attHost, 80)}
			s.th = wire.TCP{Seq: 1, Flags: wire.SYN, Win: 65535}
			v.inject(s.bytes())
		}
		v.link.quiet = false
		v.link.fetch()
		p := v.peer(4000, 80)
		s := p.syn(fullOptions())
		s.th.Flags |= wire.ECE | wire.CWR
		before := v.k.Stats.TCP.ScSendcookie.Load()
		v.inject(s.bytes())
		g := v.one()
		if v.k.Stats.TCP.ScSendcookie.Load() != before+1 {
			t.Fatalf("no cookie")
		}
		if g.th.Flags&wire.ECE != 0 {
			t.Errorf("the SYN,ACK agrees to ECN")
		}
		p.seq, p.ack, p.tsecr = p.seq+1, g.th.Seq+1, g.th.Opt.TSVal|63
		v.inject(p.seg(wire.ACK, nil).bytes())
		fd, _, errno := v.p.Accept(lfd)
		v.no(errno)
		if i, _ := v.p.TCPInfo(fd); i.SndWscale != maxScale {
			t.Errorf("window scale %d", i.SndWscale)
		}
	})
}

// A cookie holds through the minute of the clock after its own, and no longer: a handshake that
// straddles the change of the minute is as good as any.
func TestCookieOfTheMinuteBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		lfd := v.listen(80, 5)
		for i, c := range []struct {
			at, age time.Duration // in its minute; when it comes back
			good    bool
		}{
			{58 * time.Second, 4 * time.Second, true},
			{time.Second, 118 * time.Second, true},
			{59 * time.Second, 62 * time.Second, false},
		} {
			minute := int64(cookieTick)
			pass(time.Duration((v.k.now()/minute+1)*minute + int64(c.at) - v.k.now()))
			v.overflow(80, 2*scMax)
			before := v.k.Stats.TCP.ScSendcookie.Load()
			p := v.peer(uint16(6000+i), 80)
			v.inject(p.syn(wire.Options{Has: wire.TofMSS, MSS: 1400}).bytes())
			p.seq, p.ack = p.seq+1, v.one().th.Seq+1
			if v.k.Stats.TCP.ScSendcookie.Load() != before+1 {
				t.Fatalf("no cookie")
			}
			pass(c.age)
			v.link.count()
			v.inject(p.seg(wire.ACK, nil).bytes())
			fd, _, errno := v.p.Accept(lfd)
			if !c.good {
				if errno != syscall.EAGAIN {
					t.Errorf("sent at %v of a minute, back after %v: accept %v", c.at, c.age, errno)
				}
				continue
			}
			if errno != 0 {
				t.Errorf("sent at %v of a minute, back after %v: accept %v", c.at, c.age, errno)
			} else if i, _ := v.p.TCPInfo(fd); i.SndMSS != 1400 {
				t.Errorf("sent at %v of a minute, back after %v: MSS %d", c.at, c.age, i.SndMSS)
			}
		}
	})
}

// RFC 7323, 5.3, for a connection that is being opened: a final ACK whose timestamp is older than
// the SYN's is dropped without an answer, and the handshake goes on.
func TestSyncachePAWS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		lfd := v.listen(80, 10)
		for i, syn := range []uint32{1000, 0, 5, 1 << 31, 1<<32 - 1} {
			for j, c := range []struct {
				delta uint32
				good  bool
			}{{1<<32 - 1, false}, {1<<32 - 1000, false}, {1<<31 + 1, false}, {0, true}, {1, true}, {1<<31 - 1, true}} {
				o := fullOptions()
				o.TSVal = syn
				p := v.peer(uint16(5000+10*i+j), 80)
				v.inject(p.syn(o).bytes())
				g := v.one()
				p.seq, p.ack, p.tsecr, p.tsval = p.seq+1, g.th.Seq+1, g.th.Opt.TSVal, syn+c.delta
				v.inject(p.seg(wire.ACK, nil).bytes())
				v.none()
				if !c.good {
					if _, _, errno := v.p.Accept(lfd); errno != syscall.EAGAIN {
						t.Errorf("timestamp %d after %d: accept %v", p.tsval, syn, errno)
						continue
					}
					p.tsval = syn
					v.inject(p.seg(wire.ACK, nil).bytes())
				}
				if _, _, errno := v.p.Accept(lfd); errno != 0 {
					t.Errorf("timestamp %d after %d: accept %v", p.tsval, syn, errno)
				}
			}
		}
	})
}

// After the same SYN again the answer is retransmitted as often as after the first, not only as
// often as was left.
func TestSyncacheDuplicateRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		v.listen(80, 10)
		p := v.peer(5000, 80)
		v.inject(p.syn(fullOptions()).bytes())
		v.one()
		pass(40 * time.Second)
		if n := len(v.segments()); n != 5 {
			t.Fatalf("%d retransmissions in 40 s, want 5", n)
		}
		v.inject(p.syn(fullOptions()).bytes())
		v.one()
		pass(59 * time.Second) // the first answer's time is over
		if v.halfOpen() != 1 {
			t.Errorf("the entry has expired early")
		}
		pass(time.Minute)
		if n := len(v.segments()); n != 5 || v.halfOpen() != 0 {
			t.Errorf("%d retransmissions in two minutes, want 5; %d entries are left", n, v.halfOpen())
		}
	})
}
