package kern

import (
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
)

// halfOpenFrom returns the addresses of the i-th of many connections to one port.
func halfOpenFrom(i int) tuple {
	return tuple{laddr: in6(attHost), faddr: in6(attFrom(11, byte(i>>16), byte(i>>8), byte(i))),
		lport: 80, fport: 1}
}

// The table is a map of bounded size: compared with one while entries come and go at random. In
// each bucket they keep their order, and none is due before the bucket is. All connections are of a
// few buckets, which overflow.
func TestScTableIsAMap(t *testing.T) {
	const seed, few = 7, 5
	r := rand.New(rand.NewPCG(seed, seed))
	st := scTable{key: [2]uint64{r.Uint64(), r.Uint64()}}
	var conns []tuple
	for i := 0; len(conns) < 2*few*scBucketLimit; i++ {
		c := halfOpenFrom(i)
		if b, _ := st.place(&c); b == &st.buckets[i%few] {
			conns = append(conns, c)
		}
	}
	model := map[tuple]*scEntry{}
	var order []*scEntry
	refused, beyond := 0, 0
	for step := range 20_000 {
		c := conns[r.IntN(len(conns))]
		b, _ := st.place(&c)
		e, full := st.find(&c)
		if e != model[c] || full != (e == nil && len(b.entries) >= scBucketLimit) {
			t.Fatalf("seed %d, step %d: found %p, full %v; want %p, with %d entries", seed, step, e, full, model[c],
				len(b.entries))
		}
		switch {
		case e != nil && r.IntN(3) == 0:
			st.remove(e)
			delete(model, c)
			order = slices.DeleteFunc(order, func(x *scEntry) bool { return x == e })
		case e != nil:
			st.schedule(e, r.Int64N(1000))
		default:
			e = &scEntry{t: c, at: r.Int64N(1000)}
			if r.IntN(10) == 0 {
				e.flags = scReserved
			}
			if ok := st.insert(e); ok != (!full || e.flags != 0) {
				t.Fatalf("seed %d, step %d: insert says %v; full %v, flags %d", seed, step, ok, full, e.flags)
			} else if !ok {
				refused++
				continue
			}
			model[c] = e
			order = append(order, e)
			if full {
				beyond++
			}
		}
		if st.n != len(model) {
			t.Fatalf("seed %d, step %d: n is %d, want %d", seed, step, st.n, len(model))
		}
	}
	if refused == 0 || beyond == 0 {
		t.Fatalf("seed %d: %d entries have been refused, %d have got a place in a full bucket: nothing overflows",
			seed, refused, beyond)
	}
	for i := range st.buckets {
		b := &st.buckets[i]
		last := -1
		for j, e := range b.entries {
			at := slices.Index(order, e)
			if at <= last {
				t.Fatalf("seed %d: entry %d of bucket %d has come before those before it", seed, j, i)
			}
			last = at
			if e.at < b.at {
				t.Fatalf("seed %d: bucket %d is due at %d, an entry at %d", seed, i, b.at, e.at)
			}
		}
	}
	if n := len(slices.Collect(st.all())); n != st.n {
		t.Errorf("seed %d: all yields %d entries of %d", seed, n, st.n)
	}
}

// For a SYN of a flood the table finds that the bucket is full without reading an entry, and the
// clock reads no bucket in which no entry is due. Here the entries cannot be read.
func TestScTableLooksAtNoEntry(t *testing.T) {
	sc := syncache{scTable: scTable{key: [2]uint64{1, 2}}}
	c := halfOpenFrom(0)
	b, tag := sc.place(&c)
	for i := range scBucketLimit {
		b.tags, b.entries = append(b.tags, tag+1+uint16(i)), append(b.entries, nil)
	}
	b.at = 100
	if e, full := sc.find(&c); e != nil || !full {
		t.Errorf("found %v, full %v", e, full)
	}
	for i := range sc.buckets {
		sc.buckets[i].at = max(sc.buckets[i].at, 101)
	}
	b.at = 101
	if again, gone, next := sc.due(100); len(again)+len(gone) > 0 || next != 101 {
		t.Errorf("%d are sent again, %d are gone, next %d", len(again), len(gone), next)
	}
}

// If two connections have the same tag by chance, each finds only its own entry.
func TestScTableTagsOfOthers(t *testing.T) {
	var st scTable
	c := halfOpenFrom(0)
	b, tag := st.place(&c)
	for i := range 5 {
		b.tags, b.entries = append(b.tags, tag), append(b.entries, &scEntry{t: halfOpenFrom(i + 1)})
	}
	if e, _ := st.find(&c); e != nil {
		t.Errorf("found the entry of %v", e.t.remote())
	}
	mine := &scEntry{t: c}
	if st.insert(mine); b.entries[5] != mine {
		t.Errorf("not the last")
	}
	if e, _ := st.find(&c); e != mine {
		t.Errorf("found %v", e)
	}
}

// The verdicts on acknowledgments and resets for a half-open connection (RFC 9293, 3.10.7.4; RFC
// 5961, 3.2; RFC 7323, 5.3), wherever the numbers wrap.
func TestSyncacheVerdicts(t *testing.T) {
	for _, irs := range []tcp.Seq{0, 1, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1<<32 - 100} {
		e := scEntry{s: tcp.SynState{Irs: irs, Iss: irs + 77, SentWin: 1000, TSRecent: 5,
			Opt: wire.Options{Has: wire.TofTS}}}
		ack := func(seq, ack int, has wire.OptFlags, ts uint32) *wire.TCP {
			return &wire.TCP{Seq: irs.Add(seq), Ack: e.s.Iss.Add(ack), Flags: wire.ACK,
				Opt: wire.Options{Has: has, TSVal: ts}}
		}
		for _, c := range []struct {
			th   *wire.TCP
			full bool
			want scVerdict
		}{
			{ack(1, 1, wire.TofTS, 5), false, scRemove},
			{ack(1, 1, wire.TofTS, 5), true, scNoPlace},
			{ack(1, 1, 0, 0), false, scRemove},
			{ack(1000, 1, wire.TofTS, 6), false, scRemove},
			{ack(1001, 1, wire.TofTS, 6), false, scChallenge},
			{ack(0, 1, wire.TofTS, 6), true, scChallenge},
			{ack(1, 1, wire.TofTS, 4), true, scDrop},
			{ack(0, 2, wire.TofTS, 4), true, scDrop},
			{ack(0, 2, 0, 0), true, scChallenge},
			{ack(1, 0, wire.TofTS, 5), true, scBadack},
			{ack(1, 2, wire.TofTS, 5), false, scBadack},
		} {
			if v := e.judgeAck(c.th, c.full); v != c.want {
				t.Errorf("irs %d: %+v, full %v: verdict %d, want %d", irs, c.th, c.full, v, c.want)
			}
		}
		reserved := e
		reserved.flags = scReserved
		if v := reserved.judgeAck(ack(1, 1, 0, 0), true); v != scRemove {
			t.Errorf("irs %d: with a place on so_q verdict %d", irs, v)
		}
		for _, c := range []struct {
			seq      int
			insecure bool
			want     scVerdict
		}{
			{1, false, scRemove}, {2, false, scChallenge}, {1000, false, scChallenge}, {0, false, scDrop},
			{1001, false, scDrop},
			{1, true, scRemove}, {2, true, scRemove}, {1000, true, scRemove}, {0, true, scDrop}, {1001, true, scDrop},
		} {
			if v := e.judgeRst(ack(c.seq, 0, 0, 0), c.insecure); v != c.want {
				t.Errorf("irs %d: reset at %d, insecure %v: verdict %d, want %d", irs, c.seq, c.insecure, v, c.want)
			}
		}
	}
}

// The same SYN again begins the retransmissions anew, however late the next of them was due.
func TestSyncacheSynAgainRetransmits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		v.listen(80, 10)
		p := v.peer(5000, 80)
		v.inject(p.syn(fullOptions()).bytes())
		v.one()
		pass(16 * time.Second) // retransmissions at 1, 3, 7, and 15 s; the next would be at 31 s
		if n := len(v.link.fetch()); n != 4 {
			t.Fatalf("%d retransmissions", n)
		}
		v.inject(p.syn(fullOptions()).bytes())
		v.one()
		pass(time.Second - time.Millisecond)
		v.none()
		pass(time.Millisecond)
		v.one()
		pass(2 * time.Second)
		v.one()
	})
}

// An entry whose bucket has been filled since it was looked up is not made: the SYN is answered
// with a cookie, which makes a connection.
func TestSyncacheFilledMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		lfd := v.listen(80, 10)
		v.overflow(80, 2*scMax)
		head := v.p.Sock(lfd)
		p := v.peer(5000, 80)
		syn := p.syn(wire.Options{})
		in := tcpIn{t: tuple{in6(attHost), in6(attPeer), 80, 5000}, th: syn.th, ifp: v.ifp, now: v.k.now()}
		before := v.halfOpen()
		head.lock()
		v.k.syncacheBegin(head, &in)
		head.unlock()
		g := v.one()
		if n := v.halfOpen(); n != before {
			t.Errorf("%d entries, before %d", n, before)
		}
		p.seq, p.ack = p.seq+1, g.th.Seq+1
		v.inject(p.seg(wire.ACK, nil).bytes())
		if _, _, errno := v.p.Accept(lfd); errno != 0 {
			t.Errorf("accept: %v", errno)
		}
		if n := v.k.Stats.TCP.ScRecvcookie.Load(); n != 1 {
			t.Errorf("%d cookies have come back", n)
		}
	})
}

// A cookie's timestamps go on from where an entry's would begin, which depends on the connection
// and does not reveal the stack's clock (RFC 7323, 7.1), except for the six bits that hold options.
func TestCookieTimestampOffset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		v.listen(80, 10)
		entries := map[uint16]uint32{}
		for port := uint16(5000); port < 5008; port++ {
			p := v.peer(port, 80)
			v.inject(p.syn(fullOptions()).bytes())
			entries[port] = v.one().th.Opt.TSVal
			p.seq++
			v.inject(p.seg(wire.RST, nil).bytes())
		}
		if n := v.halfOpen(); n != 0 {
			t.Fatalf("%d entries", n)
		}
		v.overflow(80, 2*scMax)
		for port, val := range entries {
			before := v.k.Stats.TCP.ScSendcookie.Load()
			v.inject(v.peer(port, 80).syn(fullOptions()).bytes())
			if got := v.one().th.Opt.TSVal; got&^63 != val&^63 {
				t.Errorf("port %d: the cookie's timestamp is %d, an entry's %d", port, got, val)
			}
			if v.k.Stats.TCP.ScSendcookie.Load() != before+1 {
				t.Errorf("port %d: not a cookie", port)
			}
		}
	})
}

// A half-open connection sends as many challenges as an established one, and no more: further
// segments draw none. Another has challenges of its own (RFC 5961, 7; CVE-2016-5696).
func TestSyncacheChallengesAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		v.listen(80, 10)
		n := v.k.prof.ChallengeN
		for _, port := range []uint16{5000, 5001} {
			p := v.peer(port, 80)
			v.inject(p.syn(fullOptions()).bytes())
			p.ack, p.seq = v.one().th.Seq+1, p.seq+1
			before := v.k.Stats.TCP.Sndtotal.Load()
			for i, flags := range []wire.Flags{wire.RST, wire.ACK} {
				for range 3 * n {
					s := p.seg(flags, nil)
					s.th.Seq = p.seq.Add(5)
					if flags == wire.ACK {
						s.th.Seq = p.seq - 1
					}
					v.inject(s.bytes())
				}
				got := v.segments()
				if want := n * (1 - i); len(got) != want {
					t.Errorf("port %d, flags %v: %d answers, want %d", port, flags, len(got), want)
				}
				for _, g := range got {
					if g.th.Flags != wire.ACK || g.th.Ack != p.seq || g.th.Seq != p.ack {
						t.Errorf("port %d: challenge %+v", port, g.th)
					}
				}
			}
			if made := v.k.Stats.TCP.Sndtotal.Load() - before; made != uint64(n) {
				t.Errorf("port %d: %d segments have been made, want %d", port, made, n)
			}
		}
	})
}

// A handshake that ends while memory is short makes no connection. A reset tells the peer.
func TestSyncacheAborts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, func(c *Config, _ *tcp.Profile) { c.Memory = 8 << 20 })
		defer v.done()
		v.listen(80, 10)
		p := v.peer(5000, 80)
		v.inject(p.syn(wire.Options{}).bytes())
		p.ack, p.seq = v.one().th.Seq+1, p.seq+1
		hog := v.k.pool.Getcl(1)
		for !v.k.pressed() {
			m := v.k.pool.Getcl(64 << 10)
			m.SetNext(hog)
			hog = m
		}
		defer mbuf.Free(hog)
		v.inject(p.seg(wire.ACK, nil).bytes())
		if g := v.one(); g.th.Flags != wire.RST || g.th.Seq != p.ack {
			t.Errorf("answer %+v", g.th)
		}
		if n := v.k.Stats.TCP.ScAborted.Load(); n != 1 || v.halfOpen() != 0 {
			t.Errorf("%d aborted, %d entries", n, v.halfOpen())
		}
	})
}
