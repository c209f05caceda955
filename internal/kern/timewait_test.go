package kern

import (
	"math"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
	"bsdnet/internal/testutil"
)

// inTimeWait brings a connection from fport into TIME_WAIT on the stack's side, and returns the
// peer.
func (v *victim) inTimeWait(lfd int, fport uint16, o wire.Options) *peer {
	v.Helper()
	p := v.peer(fport, 80)
	if !p.dial(o) {
		v.Fatalf("no SYN,ACK")
	}
	fd, _, errno := v.p.Accept(lfd)
	v.no(errno)
	v.no(v.p.Close(fd))
	p.ack++ // its FIN
	v.inject(p.seg(wire.FIN|wire.ACK, nil).bytes())
	p.seq++
	v.link.fetch()
	return p
}

func (v *victim) timeWaits() int { return len(kbTimeWait(v.k)) }

// A connection in TIME_WAIT is a record of about a hundred bytes, not a socket; it lives 2 MSL, and
// the number of records is bounded: the oldest goes first.
func TestTimeWaitRecord(t *testing.T) {
	if n := unsafe.Sizeof(tcptw{}); n > 320 {
		t.Errorf("a record takes %d bytes", n)
	}
	for _, limit := range []int{0, 1, 5, 100} {
		synctest.Test(t, func(t *testing.T) {
			v := attacked(t, nil)
			defer v.done()
			if err := v.k.SetSysctl("net.inet.tcp.maxtcptw", int64(limit)); err != nil {
				t.Fatal(err)
			}
			lfd := v.listen(80, 5)
			const n = 20
			for i := range n {
				v.inTimeWait(lfd, uint16(5000+i), wire.Options{})
				pass(10 * time.Millisecond)
			}
			if got := v.timeWaits(); got != min(limit, n) {
				t.Errorf("%d records, want %d", got, min(limit, n))
			}
			for _, c := range kbTimeWait(v.k) {
				if c.Remote.Port() < uint16(5000+n-limit) {
					t.Errorf("the record of %v has outlived younger ones", c.Remote)
				}
			}
			if l := v.k.sockets.all(); len(l) != 1 {
				t.Errorf("%d sockets, want the listener", len(l))
			}
			pass(59*time.Second + 700*time.Millisecond)
			if got := v.timeWaits(); got != min(limit, n) {
				t.Errorf("%d records before 2 MSL are over", got)
			}
			pass(time.Second)
			if got := v.timeWaits(); got != 0 {
				t.Errorf("%d records after 2 MSL", got)
			}
		})
	}
}

// The user still holds a socket whose connection has come to TIME_WAIT: it reads the end of the
// stream, and the record ends as others do, also at the limit of records.
func TestTimeWaitWithSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, limit := range []int{0, 1, 100} {
			v := attacked(t, nil)
			v.k.SetSysctl("net.inet.tcp.maxtcptw", int64(limit))
			lfd := v.listen(80, 5)
			var fds []int
			for i := range 3 {
				p, fd := v.established(lfd, uint16(5000+i), 80)
				v.no(v.p.Shutdown(fd, SHUT_WR))
				p.ack++
				v.inject(p.seg(wire.FIN|wire.ACK, nil).bytes())
				fds = append(fds, fd)
			}
			for _, fd := range fds {
				if n, errno := v.p.Recv(fd, make([]byte, 1), 0); n != 0 || errno != 0 {
					t.Errorf("recv: %d, %v", n, errno)
				}
				if _, errno := v.p.Send(fd, make([]byte, 1), 0); errno != syscall.EPIPE {
					t.Errorf("send: %v", errno)
				}
			}
			if i, _ := v.p.TCPInfo(fds[2]); limit > 0 && i.State != tcp.TimeWait {
				t.Errorf("limit %d: state %v", limit, i.State)
			}
			pass(61 * time.Second)
			if i, _ := v.p.TCPInfo(fds[2]); i.State == tcp.TimeWait {
				t.Errorf("state %v after 2 MSL", i.State)
			}
			for _, fd := range fds {
				v.no(v.p.Close(fd))
			}
			v.done()
		}
	})
}

// RFC 1337, and RFC 9293, 3.10.7.4: what a record answers to which segment.
//
// RFC 9293 MUST-13
func TestTimeWaitSegments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		lfd := v.listen(80, 5)
		p := v.inTimeWait(lfd, 5000, wire.Options{})
		answered := func(s *seg) bool {
			t.Helper()
			v.inject(s.bytes())
			l := v.segments()
			for _, g := range l {
				if g.th.Flags != wire.ACK || g.th.Seq != p.ack || g.th.Ack != p.seq {
					t.Errorf("answer %+v", g.th)
				}
			}
			return len(l) == 1
		}
		at := func(d int, f wire.Flags, data []byte) *seg {
			s := p.seg(f, data)
			s.th.Seq = s.th.Seq.Add(d)
			return s
		}
		for _, d := range []int{-1, 0, 1, 1000} {
			for _, f := range []wire.Flags{wire.RST, wire.RST | wire.ACK} {
				if answered(at(d, f, nil)) {
					t.Errorf("a reset at %d is answered", d)
				}
			}
		}
		if answered(at(0, wire.ACK, nil)) {
			t.Errorf("the last acknowledgment again is answered")
		}
		if !answered(at(-1, wire.ACK, []byte("x"))) || !answered(at(-1, wire.FIN|wire.ACK, nil)) ||
			!answered(at(0, wire.SYN|wire.ACK, nil)) {
			t.Errorf("an old duplicate, the FIN or a SYN,ACK is not answered")
		}
		if v.timeWaits() != 1 {
			t.Fatalf("the record has gone")
		}
		// The FIN again starts 2 MSL anew.
		pass(50 * time.Second)
		answered(at(-1, wire.FIN|wire.ACK, nil))
		pass(50 * time.Second)
		if v.timeWaits() != 1 {
			t.Errorf("2 MSL have not begun anew")
		}
		pass(11 * time.Second)
		if v.timeWaits() != 0 {
			t.Errorf("the record outlives 2 MSL")
		}
	})
}

// RFC 6191: a SYN with a later timestamp, or without timestamps a later number, makes a new
// connection; any other is acknowledged, and when that draws a reset the next SYN makes one.
func TestTimeWaitNewConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := wire.Options{Has: wire.TofTS | wire.TofMSS, MSS: 1000, TSVal: 5000}
		for _, c := range []struct {
			what string
			ts   bool
			dseq int
			dts  int
			want bool
		}{
			{"a later timestamp", true, 100, 1, true},
			{"a later timestamp, an earlier number", true, -5000, 1, true},
			{"an earlier timestamp, a later number", true, 100, -1, false},
			{"the same timestamp, a later number", true, 100, 0, true},
			{"the same timestamp, an earlier number", true, -100, 0, false},
			{"no timestamps, a later number", false, 1, 0, true},
			{"no timestamps, the same number", false, 0, 0, false},
			{"no timestamps, an earlier number", false, -1, 0, false},
		} {
			v := attacked(t, nil)
			lfd := v.listen(80, 5)
			o := wire.Options{Has: wire.TofMSS, MSS: 1000}
			if c.ts {
				o = ts
			}
			old := v.k.Stats.TCP.Twreuse.Load()
			p := v.inTimeWait(lfd, 5000, o)
			p.tsval = 5000
			p.seq = p.seq.Add(c.dseq)
			o.TSVal = uint32(5000 + c.dts)
			if !c.ts || c.dts != 0 {
				// what the record knows is the timestamp of the last segment
				o.TSVal = uint32(int(v.k.tw.head.rec.TSRecent) + c.dts)
			} else {
				o.TSVal = v.k.tw.head.rec.TSRecent
			}
			pass(time.Second)
			v.inject(p.syn(o).bytes())
			l := v.segments()
			got := len(l) == 1 && l[0].th.Flags == wire.SYN|wire.ACK
			if got != c.want || len(l) != 1 || !got && l[0].th.Flags != wire.ACK || got == (v.timeWaits() == 1) {
				t.Errorf("%s: %v, %d segments, %d records", c.what, got, len(l), v.timeWaits())
			}
			if got && v.k.Stats.TCP.Twreuse.Load() != old+1 {
				t.Errorf("%s: not counted", c.what)
			}
			if !got && len(l) == 1 {
				r := p.seg(wire.RST, nil)
				r.th.Seq = l[0].th.Ack + 1
				v.inject(r.bytes()) // not what was asked
				if v.none(); v.timeWaits() != 1 {
					t.Errorf("%s: any reset ends the record", c.what)
				}
				r.th.Seq = l[0].th.Ack
				v.inject(r.bytes())
				v.none()
				v.inject(p.syn(o).bytes())
				if l := v.segments(); v.timeWaits() != 0 || len(l) != 1 || l[0].th.Flags != wire.SYN|wire.ACK {
					t.Errorf("%s: the SYN after the reset has %d answers; %d records", c.what, len(l), v.timeWaits())
				}
			}
			v.done()
		}
	})
}

// net.inet.tcp.nolocaltimewait: a connection over this stack's loopback leaves nothing behind,
// unless the profile says so.
func TestNoLocalTimeWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, want := range []int{0, 1} {
			k, err := New(Config{Rand: testutil.SeededRand(1)})
			if err != nil {
				t.Fatal(err)
			}
			if want == 1 {
				k.SetSysctl("net.inet.tcp.nolocaltimewait", 0)
			}
			a, b := connected(t, k, k, netip.MustParseAddrPort("127.0.0.1:0"))
			b.Soclose()
			settle()
			a.Soclose()
			settle()
			if n := len(kbTimeWait(k)); n != want {
				t.Errorf("%d records, want %d", n, want)
			}
			if n := len(k.Pcblist()); n != want {
				t.Errorf("%d connections, want %d", n, want)
			}
			k.Close()
			closedClean(t, k)
		}
	})
}

// RFC 6528: initial sequence numbers to one peer follow a clock of 4 µs; those of different peers,
// ports and stacks have nothing to do with each other.
//
// RFC 9293 MUST-8
// RFC 9293 MUST-9
// RFC 9293 SHLD-1
func TestInitialSequenceNumbers(t *testing.T) {
	v := attacked(t, nil)
	defer v.done()
	tup := tuple{in6(attHost), in6(attPeer), 80, 5000}
	last := v.k.iss(&tup, 0)
	for i := int64(1); i < 10_000; i++ {
		next := v.k.iss(&tup, i*4000)
		if next != last+1 {
			t.Fatalf("4 µs later the number is %d more", next-last)
		}
		last = next
	}
	uniform(t, "ISN by port", func(i int) uint32 {
		return uint32(v.k.iss(&tuple{in6(attHost), in6(attPeer), 80, uint16(i)}, 0))
	})
	uniform(t, "ISN by address", func(i int) uint32 {
		return uint32(v.k.iss(&tuple{in6(attHost), in6(attFrom(10, 1, byte(i>>8), byte(i))), 80,
			5000}, 0))
	})
	uniform(t, "timestamp offset by port", func(i int) uint32 {
		return v.k.tsOffset(&tuple{in6(attHost), in6(attPeer), 80, uint16(i)})
	})
	w := attacked(t, func(c *Config, _ *tcp.Profile) { c.Rand = testutil.SeededRand(2) })
	defer w.done()
	uniform(t, "ISN between stacks", func(i int) uint32 {
		tup := tuple{in6(attHost), in6(attPeer), 80, uint16(i)}
		return uint32(v.k.iss(&tup, 0) - w.k.iss(&tup, 0))
	})
	uniform(t, "ISN against timestamp offset", func(i int) uint32 {
		tup := tuple{in6(attHost), in6(attPeer), 80, uint16(i)}
		return uint32(v.k.iss(&tup, 0)) - v.k.tsOffset(&tup)
	})
	uniform(t, "ISN against cookie", func(i int) uint32 {
		tup := tuple{in6(attHost), in6(attPeer), 80, uint16(i)}
		return uint32(prf(v.k.seed.cookie, &tup, 0)) - uint32(prf(v.k.seed.iss, &tup, 0))
	})
	// In each argument of the tuple.
	base := v.k.iss(&tup, 0)
	for _, o := range []tuple{{in6(attPeer), in6(attPeer), 80, 5000}, {in6(attHost), in6(attHost), 80, 5000},
		{in6(attHost), in6(attPeer), 81, 5000}, {in6(attHost), in6(attPeer), 80, 5001}} {
		if v.k.iss(&o, 0) == base || v.k.tsOffset(&o) == v.k.tsOffset(&tup) {
			t.Errorf("%v gives the same", o)
		}
	}
}

// uniform asserts by chi-square that 2^14 values, and the differences of neighbours, are spread
// over 64 classes.
func uniform(t *testing.T, what string, f func(i int) uint32) {
	t.Helper()
	const n, classes = 1 << 14, 64
	for _, diff := range []bool{false, true} {
		var hist [classes]float64
		last := f(0)
		for i := 1; i <= n; i++ {
			x := f(i)
			if diff {
				hist[(x-last)>>26]++
			} else {
				hist[x>>26]++
			}
			last = x
		}
		var chi float64
		for _, h := range hist {
			d := h - float64(n)/classes
			chi += d * d / (float64(n) / classes)
		}
		if dev := math.Abs(chi-(classes-1)) / math.Sqrt(2*(classes-1)); dev > 6 {
			t.Errorf("%s, differences %v: chi-square %.0f for %d degrees of freedom", what, diff, chi, classes-1)
		}
	}
}

// RFC 6864, 4: identifications of packets that may be fragmented do not repeat for long, and are no
// counter that an observer can read.
func TestIPIdentification(t *testing.T) {
	v := attacked(t, nil)
	defer v.done()
	var seen [1 << 16]bool
	ip := wire.IPv4{Src: attHost, Dst: attPeer, Proto: wire.ProtoICMP}
	small := 0
	last := uint16(0)
	for i := range 1 << 16 {
		id := v.k.nextID(&ip)
		if seen[id] {
			t.Fatalf("identification %d comes again after %d packets", id, i)
		}
		seen[id] = true
		if d := id - last; d < 64 {
			small++
		}
		last = id
	}
	if small > 1<<16/8 {
		t.Errorf("%d of 65536 identifications are near the one before", small)
	}
	v.sendsIDs()
}

// sendsIDs asserts that the fragments of a datagram have one identification, and two datagrams have
// different ones.
func (v *victim) sendsIDs() {
	v.Helper()
	seen := map[uint16]bool{}
	for i := range 50 {
		for _, p := range fragments(ping(make([]byte, 3000)), 1500) {
			v.inject(p)
		}
		l := v.link.fetch()
		if len(l) != 3 {
			v.Fatalf("an answer of 3000 bytes is %d packets", len(l))
		}
		for _, p := range l {
			if g := v.parse(p); g.ip.ID != v.parse(l[0]).ip.ID {
				v.Errorf("the fragments of one datagram have identifications %d and %d", v.parse(l[0]).ip.ID, g.ip.ID)
			}
		}
		if seen[v.parse(l[0]).ip.ID] = true; len(seen) != i+1 {
			v.Errorf("datagram %d has the identification of one before it", i)
		}
	}
}

// The identifications in one flow of packets reveal nothing about those in a flow of another stack,
// source, destination or protocol: neither the numbers, nor the steps from one to the next, nor
// whether there is another flow.
func TestIPIdentificationsApart(t *testing.T) {
	const n = 1 << 12
	ids := func(seed uint64, ip wire.IPv4, beside *wire.IPv4) []uint16 {
		v := attacked(t, func(c *Config, _ *tcp.Profile) { c.Rand = testutil.SeededRand(seed) })
		defer v.done()
		l := make([]uint16, n)
		for i := range l {
			l[i] = v.k.nextID(&ip)
			if beside != nil {
				v.k.nextID(beside)
			}
		}
		return l
	}
	ip := wire.IPv4{Src: attHost, Dst: attPeer, Proto: wire.ProtoICMP}
	src, dst, proto := ip, ip, ip
	src.Src, dst.Dst, proto.Proto = attHost.Prev(), attPeer.Next(), wire.ProtoUDP
	base := ids(1, ip, nil)
	for name, l := range map[string][]uint16{"stack": ids(2, ip, nil), "source": ids(1, src, nil),
		"destination": ids(1, dst, nil), "protocol": ids(1, proto, nil)} {
		same := 0
		for i := 1; i < n; i++ {
			x, y, a, b := base[i], l[i], base[i-1], l[i-1]
			if x == y || x-a == y-b || x^a == y^b {
				same++
			}
		}
		if same > n/100 {
			t.Errorf("another %s: %d of %d numbers or steps are the same", name, same, n)
		}
	}
	for name, o := range map[string]*wire.IPv4{"source": &src, "destination": &dst, "protocol": &proto} {
		if !slices.Equal(base, ids(1, ip, o)) {
			t.Errorf("packets of another %s change what is seen", name)
		}
	}
	// Neither byte of them steps as a counter does, nor as it did 256 packets ago.
	for _, lag := range []int{1, 256} {
		for _, shift := range []int{0, 8} {
			steady := 0
			for i := lag + 1; i < n; i++ {
				step := func(i int) (sum, xor uint8) {
					x, y := uint8(base[i]>>shift), uint8(base[i-lag]>>shift)
					return x - y, x ^ y
				}
				s1, x1 := step(i)
				s0, x0 := step(i - 1)
				if s1 == s0 || x1 == x0 {
					steady++
				}
			}
			if steady > n/32 {
				t.Errorf("byte %d, %d packets apart: %d of %d steps are as the one before", shift/8, lag, steady, n)
			}
		}
	}
}

// A record answers segments that disagree with it at a limited rate, FINs that come again included:
// two records would answer each other forever (RFC 5961, 7).
func TestTimeWaitAnswersLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		lfd := v.listen(80, 5)
		p, fd := v.established(lfd, 4000, 80)
		v.p.Close(fd)
		p.ack = v.one().th.Seq + 1
		fin := p.seg(wire.FIN|wire.ACK, nil)
		v.inject(fin.bytes())
		bare := p.seg(wire.ACK, nil)
		bare.th.Seq += 77
		data := p.seg(wire.ACK, []byte("x"))
		for _, s := range []*seg{bare, fin, data} {
			pass(2 * time.Second)
			v.link.count()
			for range 1000 {
				v.inject(s.bytes())
			}
			if n := v.link.count(); n != v.k.prof.ChallengeN {
				t.Errorf("%d answers to a thousand segments with flags %v", n, s.th.Flags)
			}
		}
	})
}

// The limit of resets, and that of ICMP errors, does not reveal whether segments in the name of
// another host were answered (CVE-2016-5696).
func TestLimitsTellNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		lfd := v.listen(80, 5)
		v.established(lfd, 4000, 80)
		own := attFrom(10, 0, 0, 66)
		probe := func(victim uint16) (resets, errs int) {
			pass(2 * time.Second)
			v.link.fetch()
			for i := range 100 {
				s := &seg{from: netip.AddrPortFrom(attPeer, victim), to: netip.AddrPortFrom(attHost, 80)}
				s.th = wire.TCP{Seq: tcp.Seq(i * 12345678), Ack: 1, Flags: wire.ACK, Win: 1}
				v.inject(s.bytes())
			}
			if victim == 4001 {
				for range 40 {
					v.inject(ipPacket(wire.IPv4{}, attPeer, attHost, 99, make([]byte, 8)))
				}
			}
			for i := range 600 {
				s := &seg{from: netip.AddrPortFrom(own, uint16(20000+i)), to: netip.AddrPortFrom(attHost, 81)}
				s.th = wire.TCP{Seq: 1, Ack: 1, Flags: wire.ACK, Win: 1}
				v.inject(s.bytes())
				v.inject(ipPacket(wire.IPv4{}, own, attHost, 99, make([]byte, 8)))
			}
			for _, g := range v.segments() {
				switch {
				case g.ip.Dst != own:
				case g.ip.Proto == wire.ProtoTCP:
					resets++
				default:
					errs++
				}
			}
			return resets, errs
		}
		r1, e1 := probe(4000)
		r2, e2 := probe(4001)
		if r1 != r2 || e1 != e2 || r1 == 0 || e1 == 0 {
			t.Errorf("%d resets and %d errors are counted beside a connection, %d and %d beside none", r1, e1, r2, e2)
		}
		// All sources together have a limit too, and it is not the same each time.
		seen := map[int]bool{}
		for range 5 {
			pass(10 * time.Second)
			v.link.count()
			for i := range 5000 {
				from := attFrom(12, 0, byte(i>>8), byte(i))
				s := &seg{from: netip.AddrPortFrom(from, 9), to: netip.AddrPortFrom(attHost, 81)}
				s.th = wire.TCP{Seq: 1, Ack: 1, Flags: wire.ACK, Win: 1}
				v.inject(s.bytes())
			}
			n := v.link.count()
			if n > 2000 {
				t.Errorf("%d resets at once", n)
			}
			seen[n] = true
		}
		if len(seen) < 3 {
			t.Errorf("five times the limit of all was one of %v", seen)
		}
	})
}
