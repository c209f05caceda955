package tcp

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"bsdnet/internal/kern/wire"
	"bsdnet/internal/testutil"
)

// A naive scoreboard: the state of each byte.
type naive struct {
	una  Seq
	byte []naiveByte
}

type naiveByte struct {
	sacked, lost, rexmitted bool
	sent                    int64
}

// compare looks at each byte of both.
func (n *naive) compare(sb *scoreboard) error {
	i := 0
	sacked, lost, again, spans := 0, 0, 0, 0
	for bi, b := range sb.blocks {
		lostHere := 0
		if b.lo >= b.hi || b.hi > blockSpans {
			return fmt.Errorf("block %d: %d to %d", bi, b.lo, b.hi)
		}
		for k := b.lo; k < b.hi; k++ {
			sp := &b.spans[k]
			spans++
			if sp.has(spanLost) {
				lostHere++
			}
			if sp.start != n.una.Add(i) || sp.len() <= 0 {
				return fmt.Errorf("span %d:%d at %d", sp.start.Sub(n.una), sp.end.Sub(n.una), i)
			}
			for range sp.len() {
				if i >= len(n.byte) {
					return fmt.Errorf("more than %d bytes", len(n.byte))
				}
				c := n.byte[i]
				if sp.has(spanSacked) != c.sacked || sp.has(spanLost) != c.lost ||
					sp.has(spanRexmitted) != c.rexmitted || !c.sacked && sp.sent != c.sent {
					return fmt.Errorf("byte %d: flags %#x, sent %d; want %+v", i, sp.flags, sp.sent, c)
				}
				if c.sacked {
					sacked++
				}
				if c.lost {
					lost++
				}
				if c.rexmitted {
					again++
				}
				i++
			}
		}
		if lostHere != b.lost {
			return fmt.Errorf("block %d: %d lost spans, %d counted", bi, lostHere, b.lost)
		}
	}
	if i != len(n.byte) || spans != sb.n || sacked != sb.sacked || lost != sb.lost || again != sb.again {
		return fmt.Errorf("%d bytes of %d, %d spans of %d, sacked %d (%d), lost %d (%d), again %d (%d)", i,
			len(n.byte), spans, sb.n, sacked, sb.sacked,
			lost, sb.lost, again, sb.again)
	}
	return nil
}

// cut returns the place of the span that begins at seq, cutting one if need be; not valid: seq is
// the end.
func cut(sb *scoreboard, seq Seq) place {
	if seq == sb.end() {
		return place{len(sb.blocks), 0}
	}
	p := sb.find(seq)
	if sb.at(p).start != seq {
		_, p = sb.split(p, seq)
	}
	return p
}

// Whatever is done to a scoreboard, it says of each byte what a record of each byte says.
func TestScoreboardModel(t *testing.T) {
	for seed := range testutil.Games(60, 10) {
		r := rand.New(rand.NewPCG(seed, 0))
		m := sbModel{r: r, n: naive{una: isns[r.IntN(len(isns))]}}
		for step := range 600 {
			m.now++
			err := m.step()
			if err == nil {
				err = m.n.compare(&m.sb)
			}
			if err != nil {
				t.Fatalf("seed %d, step %d: %v", seed, step, err)
			}
		}
		m.sb.flush()
	}
}

// An sbModel is a scoreboard, and what it must be.
type sbModel struct {
	r   *rand.Rand
	sb  scoreboard
	n   naive
	now int64
}

// step does something to a part of what is in flight.
func (m *sbModel) step() error {
	r, n, sb := m.r, &m.n, &m.sb
	if len(n.byte) == 0 || r.IntN(3) == 0 && len(n.byte) < 4000 {
		m.send()
	}
	lo := r.IntN(len(n.byte))
	hi := lo + 1 + r.IntN(min(len(n.byte)-lo, 1+r.IntN(300)))
	switch r.IntN(6) {
	case 0, 1:
		m.sack(lo, hi)
	case 2:
		m.lose(lo, hi)
	case 3:
		return m.resend(lo)
	case 4: // acknowledged
		h := n.una.Add(hi)
		for !sb.empty() && sb.start().Lt(h) {
			if sb.at(sb.first()).end.Leq(h) {
				sb.drop()
			} else {
				sb.trim(h)
			}
		}
		n.una, n.byte = h, n.byte[hi:]
	case 5:
		if r.IntN(100) == 0 {
			sb.flush()
			n.una, n.byte = n.una.Add(len(n.byte)), nil
		}
		if !sb.empty() && sb.end() != n.una.Add(len(n.byte)) {
			return fmt.Errorf("the end is at %d", sb.end().Sub(n.una))
		}
	}
	return nil
}

// send adds up to twenty spans.
func (m *sbModel) send() {
	r, n := m.r, &m.n
	for range 1 + r.IntN(20) {
		size := 1 + r.IntN(40)
		s := span{start: n.una.Add(len(n.byte)), end: n.una.Add(len(n.byte) + size), sent: m.now}
		b := naiveByte{sent: m.now}
		if r.IntN(5) == 0 {
			s.flags, b.rexmitted = spanRexmitted, true
		}
		m.sb.push(s)
		for range size {
			n.byte = append(n.byte, b)
		}
	}
}

// sack acknowledges bytes lo to hi-1 selectively.
func (m *sbModel) sack(lo, hi int) {
	n, sb := &m.n, &m.sb
	h := n.una.Add(hi)
	cut(sb, h)
	for p := cut(sb, n.una.Add(lo)); sb.valid(p) && sb.at(p).start.Lt(h); p = sb.next(p) {
		if !sb.at(p).has(spanSacked) {
			sb.sack(p)
			p = sb.merge(p)
		}
	}
	for i := lo; i < hi; i++ {
		n.byte[i] = naiveByte{sacked: true}
	}
}

// lose finds bytes lo to hi-1 lost.
func (m *sbModel) lose(lo, hi int) {
	n, sb := &m.n, &m.sb
	h := n.una.Add(hi)
	cut(sb, h)
	for p := cut(sb, n.una.Add(lo)); sb.valid(p) && sb.at(p).start.Lt(h); p = sb.next(p) {
		if sb.at(p).inFlight() {
			sb.mark(p)
		}
	}
	for i := lo; i < hi; i++ {
		n.byte[i].lost = !n.byte[i].sacked
	}
}

// resend sends again the first lost span that ends behind byte lo, if there is one.
func (m *sbModel) resend(lo int) error {
	n, sb := &m.n, &m.sb
	l := n.una.Add(lo)
	p, ok := sb.nextLost(l)
	for ; lo < len(n.byte) && !n.byte[lo].lost; lo++ {
	}
	if ok != (lo < len(n.byte)) || ok && sb.at(p).start.Max(l) != n.una.Add(lo) {
		return fmt.Errorf("the next that is lost is at %d", lo)
	}
	if !ok {
		return nil
	}
	run := 0
	for k := lo; k < len(n.byte) && n.byte[k].lost; k++ {
		run++
	}
	if got := sb.lostRun(p, 1<<20) - n.una.Add(lo).Sub(sb.at(p).start); got != run {
		return fmt.Errorf("%d bytes are lost without a gap, want %d", got, run)
	}
	sp := sb.at(p)
	sb.unmark(p)
	for i := sp.start.Sub(n.una); i < sp.end.Sub(n.una); i++ {
		n.byte[i].lost, n.byte[i].sent, n.byte[i].rexmitted = false, m.now, true
	}
	if !sp.has(spanRexmitted) {
		sb.again += sp.len()
	}
	sp.flags |= spanRexmitted
	sp.sent = m.now
	return nil
}

// filled makes a connection with n segments in flight.
func filled(t *T, n int, opts ...any) *kit {
	k := sending(t, append([]any{"wscale 8, sndbuf 40000000"}, opts...)...)
	k.write(1000)
	k.collect(0)
	k.acked(1001)
	k.tp.snr.ctl.Cwnd = n * 1000
	k.tp.sock = nullSock{}
	k.append(n * 1000)
	k.tp.Output(k.now)
	for k.tp.on(tPace) {
		k.now = k.tp.timers[tPace]
		k.tp.Timeout(k.now)
	}
	k.now += 100 * ms
	if got := k.tp.sndNxt.Sub(k.tp.sndUna); got != n*1000 {
		t.Fatalf("%d bytes in flight, want %d", got, n*1000)
	}
	return k
}

// sacks gives the connection an acknowledgment of nothing in order, and of blocks.
func (k *kit) sacks(blocks ...wire.SackBlock) {
	th := wire.TCP{Flags: wire.ACK, Win: 65535, Seq: k.tp.rcvNxt, Ack: k.tp.sndUna}
	th.Opt = wire.Options{Has: wire.TofSack, Nsack: uint8(len(blocks))}
	copy(th.Opt.Blocks[:], blocks)
	k.tp.Input(&th, Payload{}, k.now, k.now)
}

// shape returns how many spans and blocks there are; the blocks are never more than what half of
// them would hold, and a few that have been used up from either side.
func (k *kit) shape() (spans, blocks int) { return k.tp.snr.sb.n, len(k.tp.snr.sb.blocks) }

// Spans are bounded, whatever a peer says: CVE-2019-11478 (a scoreboard in fragments),
// CVE-2018-5390 (its like of the receiver).
func TestScoreboardBounds(t *testing.T) {
	k := filled(&T{t, 1, 1}, 4000)
	una := k.tp.sndUna
	limit := min(256+4000*1000/256, maxSpans)
	at := 0
	next := map[string]func() (l, r int){
		"every second byte":          func() (int, int) { at += 2; return at, at + 1 },
		"every second from the end":  func() (int, int) { at += 2; return 4000000 - at, 4000000 - at + 1 },
		"the middle of each segment": func() (int, int) { at += 1000; return at%4000000 + 300, at%4000000 + 600 },
		"alternating ends": func() (int, int) {
			if at += 2; at%4 == 0 {
				return at, at + 1
			}
			return 4000000 - at, 4000000 - at + 1
		},
	}
	for name, f := range next {
		k := filled(&T{t, 1, 1}, 4000)
		at = 0
		for range 6000 {
			var b [4]wire.SackBlock
			for i := range b {
				l, r := f()
				b[i] = wire.SackBlock{Left: una.Add(l), Right: una.Add(r)}
			}
			k.sacks(b[:]...)
		}
		n, blocks := k.shape()
		if n > limit+8+4000 { // and what is sent again, a segment each
			t.Errorf("%s: %d spans, the limit is %d", name, n, limit)
		}
		if blocks > 2*n/blockSpans+2+4000/blockSpans {
			t.Errorf("%s: %d blocks for %d spans", name, blocks, n)
		}
		if err := k.tp.Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		k.balance()
	}
	k.balance()
}

// The work for an acknowledgment does not grow with what is in flight: at most a block of spans is
// moved for each of the ends of its SACK blocks, and as they merge; one that says nothing new moves
// nothing.
func TestScoreboardCost(t *testing.T) {
	for _, n := range []int{200, 2000, 8000} {
		k := filled(&T{t, 1, 1}, n)
		una := k.tp.sndUna
		r := rand.New(rand.NewPCG(1, 2))
		for i := range 100 {
			l := r.IntN(n*1000 - 2000)
			b := wire.SackBlock{Left: una.Add(l), Right: una.Add(l + 1 + r.IntN(300))}
			enter := func() { k.sackOnly(b) }
			if moved := moves(&k.tp.snr.sb, enter); moved > 120 {
				t.Fatalf("%d segments in flight, block %d: %d spans have been moved", n, i, moved)
			}
			if moved := moves(&k.tp.snr.sb, enter); moved != 0 {
				t.Fatalf("%d segments in flight, block %d again: %d spans have been moved", n, i, moved)
			}
		}
		k.balance()
	}
}

// sackOnly enters a block in the scoreboard, without what follows.
func (k *kit) sackOnly(b wire.SackBlock) {
	seg := &segment{ack: k.tp.sndUna, arrived: k.now, now: k.now}
	k.tp.sackRange(b.Left, b.Right, seg, &acking{})
}

// A spanMap says where the spans lie, in their order.
type spanMap []*span

func snapshot(sb *scoreboard) (m spanMap, starts []Seq) {
	for _, b := range sb.blocks {
		for i := b.lo; i < b.hi; i++ {
			m, starts = append(m, &b.spans[i]), append(starts, b.spans[i].start)
		}
	}
	return m, starts
}

// moves returns how many spans do moves elsewhere.
func moves(sb *scoreboard, do func()) (n int) {
	old, at := snapshot(sb)
	do()
	now, starts := snapshot(sb)
	for i, j := 0, 0; i < len(old) && j < len(now); {
		switch {
		case at[i] == starts[j]:
			if old[i] != now[j] {
				n++
			}
			i++
			j++
		case at[i].Lt(starts[j]):
			i++
		default:
			j++
		}
	}
	return n
}

// A whole life of a sender in the steady state allocates nothing: segments are sent, acknowledged
// selectively, found lost, sent again and acknowledged; and no block of the scoreboard is lost.
func TestSenderAllocs(t *testing.T) {
	if testutil.Race {
		t.Skip("the race detector allocates")
	}
	for _, name := range CCNames() {
		k := sending(&T{t, 1, 1}, "ts", withCC(name))
		k.tp.sock = nullSock{}
		th := wire.TCP{Flags: wire.ACK, Win: 65535, Seq: k.tp.rcvNxt}
		ack := func(una Seq, blocks ...wire.SackBlock) {
			th.Ack = una
			th.Opt = wire.Options{Has: wire.TofTS, TSVal: k.peerTS(), TSEcr: k.tp.ts(k.now - 100*ms)}
			if len(blocks) > 0 {
				th.Opt.Has |= wire.TofSack
				th.Opt.Nsack = uint8(copy(th.Opt.Blocks[:], blocks))
			}
			k.tp.Input(&th, Payload{}, k.now, k.now)
			k.tp.Timeout(k.now)
		}
		const mss = 988
		round := func() {
			for range 40 {
				m := k.pool.Getcl(mss)
				m.Extend(mss)
				k.snd.Append(m)
			}
			k.tp.Output(k.now)
			for i := 0; k.snd.Cc() > 0; i++ {
				k.now += 100 * ms
				k.tp.Timeout(k.now)
				una, n := k.tp.sndUna, k.tp.sndNxt.Sub(k.tp.sndUna)
				if n > 6*mss && i%4 == 0 { // two holes
					ack(una, wire.SackBlock{Left: una.Add(2 * mss), Right: una.Add(3 * mss)})
					ack(una, wire.SackBlock{Left: una.Add(4 * mss), Right: una.Add(n)},
						wire.SackBlock{Left: una.Add(2 * mss), Right: una.Add(3 * mss)})
					continue
				}
				ack(k.tp.sndNxt)
			}
		}
		for range 50 {
			round()
		}
		if n := testing.AllocsPerRun(20, round); n != 0 {
			t.Errorf("%s: %v allocations for 40 segments", name, n)
		}
		if k.stats.Fastrexmit.Load() == 0 {
			t.Errorf("%s: nothing was recovered", name)
		}
		if k.tp.snr.sb.n != 0 || len(k.tp.snr.sb.blocks) != 0 {
			t.Errorf("%s: %d spans, %d blocks for nothing in flight", name, k.tp.snr.sb.n, len(k.tp.snr.sb.blocks))
		}
		k.t = &T{t, 1, 1}
		k.balance()
	}
}

// They are bounded whatever the user writes: tiny segments that get no span of their own are judged
// with the one before, and all that is lost is sent again.
func TestScoreboardTinySegments(t *testing.T) {
	each(t, func(t *T) {
		const n = 4000
		k := sending(t, "nodelay", func(p *Profile) { p.Blackhole = false })
		k.write(1)
		k.collect(100e6)
		k.acked(2)
		k.tp.snr.ctl.Cwnd = 1 << 20
		for range n {
			k.write(1)
			if limit := 256 + (k.tp.sndNxt.Sub(k.tp.sndUna))/256; k.tp.snr.sb.n > limit+1 {
				k.fatalf("%d spans, the limit is %d", k.tp.snr.sb.n, limit)
			}
			k.sent = nil
			k.now += ms / 100
		}
		if k.tp.sndNxt.Sub(k.tp.sndUna) != n {
			k.fatalf("%d bytes are in flight", k.tp.sndNxt.Sub(k.tp.sndUna))
		}
		// All of it is lost.
		got := 2
		for end := k.now + 100*sec; got < n+2 && k.now < end; {
			k.now = k.tp.Next()
			k.tp.Timeout(k.now)
			k.check()
			for _, p := range k.sent {
				if at := p.th.Seq.Sub(k.t.iss); at <= got {
					got = max(got, at+p.len)
				}
			}
			k.sent = nil
			if got > 2 {
				k.now += 100 * ms
				k.ack(got)
				for _, p := range k.sent {
					if at := p.th.Seq.Sub(k.t.iss); at <= got {
						got = max(got, at+p.len)
					}
				}
				k.sent = nil
			}
		}
		if got != n+2 {
			k.fatalf("%d of %d have come again", got-2, n)
		}
	})
}
