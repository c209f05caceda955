package tcp

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"bsdnet/internal/kern/wire"
	"bsdnet/internal/testutil"
)

// A liar is the peer of one machine that sends. It keeps a record of what has come, over a network
// that loses, delays and duplicates, and acknowledges as a good receiver would; but as often as the
// dice say it lies: it acknowledges what has not come or was never sent, forgets what it has
// acknowledged selectively, divides acknowledgments, repeats old ones, closes its window over what
// is in flight, and reports duplicates that there were not. The clock starves: segments are looked
// at long after they came, and timers fire late.
type liar struct {
	*kit
	d      *testutil.Dice
	honest bool
	dsack  bool // it reports duplicates
	delay  time.Duration

	wire   []parcel // on their way to it
	got    [][2]int // intervals that have come, relative to the initial number, sorted
	nxt    int      // what it acknowledges
	said   int      // the most that it has acknowledged
	fin    bool     // the FIN has come in order
	finAt  int      // its number, if it has come; 0: it has not
	win    int      // scaled
	closed bool     // it has been small
	sack   bool
	total  int
	recent [][2]int
	dup    [2]int
	burst  int // most segments sent for one event
}

type parcel struct {
	at int64
	p  *pkt
}

func newLiar(t *testing.T, data []byte) *liar {
	d := (*testutil.Dice)(&data)
	tt := &T{t, isns[d.N(len(isns))], isns[d.N(len(isns))]}
	l := &liar{d: d, sack: !d.One(4), dsack: !d.One(3)}
	opts := []string{"mss 1000", "mss 536", "mss 1460, tso 65000", "mss 1460, tso 20000"}[d.N(4)] +
		[]string{", wscale 7", ", wscale 2", ""}[d.N(3)]
	if l.sack {
		opts += ", sack"
	}
	if !d.One(3) {
		opts += ", ts"
	}
	if d.One(3) {
		opts += ", ecn"
	}
	l.delay = []time.Duration{time.Millisecond, 20 * time.Millisecond, 100 * time.Millisecond}[d.N(3)]
	if d.One(2) {
		opts += fmt.Sprintf(", rtt %v", 2*l.delay)
	}
	cc := CCNames()[d.N(len(CCNames()))]
	l.kit = established(tt, opts+", sndbuf 200000", withCC(cc),
		func(p *Profile) { p.MaxRxtShift, p.SendbufAuto = 1000, d.One(2) })
	l.total = []int{3000, 30000, 150000, 400000}[d.N(4)]
	l.nxt, l.said, l.win = 1, 1, l.opts.win
	return l
}

// step lets the next thing happen: a segment comes to the peer, which may answer, or a timer fires,
// perhaps late.
func (l *liar) step() bool {
	if len(l.sent) > 0 {
		panic("unclaimed")
	}
	next := l.tp.Next()
	at := int64(never)
	if len(l.wire) > 0 {
		at = l.wire[0].at
	}
	if next == never && at == never {
		return false
	}
	if at <= next {
		w := l.wire[0]
		l.wire = l.wire[1:]
		l.now = max(l.now, w.at)
		l.receive(w.p)
		return true
	}
	l.now = max(l.now, next)
	if !l.honest && l.d.One(12) {
		l.now += int64(l.d.N(3000)) * ms // the process did not run
	}
	l.logf("timer")
	l.tp.Timeout(l.now)
	l.after()
	return true
}

// after asserts what holds after each event, and puts on the wire what was sent.
func (l *liar) after() {
	l.t.Helper()
	l.check()
	l.post()
	if l.tp.state == Closed {
		l.fatalf("the connection is gone: %v", l.errno)
	}
	if l.room && l.tp.Next() > l.now { // Output has asked until there was nothing to send
		if n := l.burst; n > 3000 {
			l.fatalf("%d segments for one event", n)
		}
		l.logf("again")
		l.tp.Output(l.now)
		l.check()
		for _, p := range l.sent {
			l.fatalf("there was more to send: %s", l.string(p, true))
		}
	}
	if err := delivered(&l.tp, &l.stats); err != nil && !l.closed {
		l.fatalf("%v", err)
	}
	if at, on := l.tp.Timer("pace"); on && at-l.now > sec {
		l.fatalf("paced for %v", time.Duration(at-l.now))
	}
	l.tp.Info()
}

// post puts what was sent on the wire.
func (l *liar) post() {
	l.burst = 0
	for _, p := range l.sent {
		n := 1
		if p.segsize > 0 {
			n = max((p.len+p.segsize-1)/p.segsize, 1)
		}
		l.burst += n
		for i := range n { // each segment of a chain has a fate of its own
			q := *p
			if p.len > 0 {
				q.th.Seq = p.th.Seq.Add(i * p.segsize)
				q.len = min(p.segsize, p.len-i*p.segsize)
			}
			if i < n-1 {
				q.th.Flags &^= wire.FIN
			}
			l.travel(&q)
		}
	}
	l.sent = l.sent[:0]
}

func (l *liar) travel(p *pkt) {
	d := int64(l.delay)
	if !l.honest {
		switch l.d.N(16) {
		case 0:
			return
		case 1:
			l.push(parcel{l.now + d + int64(l.d.N(50))*ms, p})
		case 2:
			d += int64(l.d.N(30)) * ms
		case 3:
			if l.d.One(20) {
				d += int64(l.d.N(5000)) * ms
			}
		}
	}
	l.push(parcel{l.now + d, p})
}

func (l *liar) push(w parcel) {
	i, _ := slices.BinarySearchFunc(l.wire, w, func(x, y parcel) int {
		if x.at <= y.at {
			return -1
		}
		return 1
	})
	l.wire = slices.Insert(l.wire, i, w)
}

// receive is what a receiver does with a segment.
func (l *liar) receive(p *pkt) {
	lo := p.th.Seq.Sub(l.t.iss)
	hi := lo + p.len
	if p.th.Flags&wire.FIN != 0 {
		l.finAt = hi
	}
	if p.len == 0 && p.th.Flags&wire.FIN == 0 {
		return
	}
	l.dup = [2]int{}
	if p.len > 0 {
		if hi <= l.nxt || l.covered(lo, hi) {
			l.dup = [2]int{lo, hi}
		}
		l.add(lo, hi)
	}
	if l.fin = l.fin || l.finAt != 0 && l.nxt == l.finAt; l.fin {
		l.nxt = l.finAt + 1
	}
	if !l.honest && l.d.One(8) {
		return // acknowledged with the next
	}
	l.answer()
}

func (l *liar) covered(lo, hi int) bool {
	return slices.ContainsFunc(l.got, func(b [2]int) bool { return b[0] <= lo && hi <= b[1] })
}

// add notes that [lo, hi) has come.
func (l *liar) add(lo, hi int) {
	if hi <= l.nxt {
		return
	}
	lo = max(lo, l.nxt)
	l.got = slices.DeleteFunc(l.got, func(b [2]int) bool {
		if b[0] <= hi && lo <= b[1] {
			lo, hi = min(lo, b[0]), max(hi, b[1])
			return true
		}
		return false
	})
	l.got = append(l.got, [2]int{lo, hi})
	l.recent = slices.Insert(slices.DeleteFunc(l.recent, func(b [2]int) bool { return lo <= b[0] && b[1] <= hi }), 0,
		[2]int{lo, hi})
	l.forward()
}

// forward moves what is acknowledged over what has come.
func (l *liar) forward() {
	for moved := true; moved; {
		moved = false
		l.got = slices.DeleteFunc(l.got, func(b [2]int) bool {
			if b[0] <= l.nxt {
				moved = moved || b[1] > l.nxt
				l.nxt = max(l.nxt, b[1])
				return true
			}
			return false
		})
	}
	l.recent = slices.DeleteFunc(l.recent, func(b [2]int) bool { return b[1] <= l.nxt })
}

// answer acknowledges, in honesty or not.
func (l *liar) answer() {
	if l.honest {
		l.ackWith(l.nxt, l.blocks())
		return
	}
	una, top := l.tp.sndUna.Sub(l.t.iss), l.tp.sndMax.Sub(l.t.iss)
	switch l.d.N(30) {
	case 0: // optimistic
		n := l.nxt + l.d.N(max(top-l.nxt, 0)+3)
		l.ackWith(n, l.blocks())
	case 1: // garbage
		a := una + l.d.N(20000) - 5000
		l.ackWith(l.nxt, [][2]int{{a, a + l.d.N(9000) - 1000}, {top - l.d.N(3), top + l.d.N(3)}})
	case 2: // division
		from := max(l.said, una)
		for n := from + 1; n < l.nxt && n < from+10; n++ {
			l.ackWith(n, nil)
		}
	case 3: // reneging
		l.got, l.recent = nil, nil
		l.ackWith(l.nxt, nil)
	case 4: // a duplicate that was none
		a := una - l.d.N(6000)
		l.ackWith(l.nxt, append([][2]int{{a, a + 1 + l.d.N(1500)}}, l.blocks()...))
	case 5:
		l.closed = true
		l.win = []int{0, 1, 100, l.opts.win}[l.d.N(4)]
		l.ackWith(l.nxt, l.blocks())
	case 6: // every second byte
		var b [][2]int
		for i := range 4 {
			b = append(b, [2]int{una + l.d.N(3000)*2 + i, una + l.d.N(3000)*2 + i + 1})
		}
		l.ackWith(l.nxt, b)
	case 7: // an old one
		l.ackWith(max(l.nxt-l.d.N(5000), 1), l.blocks())
	case 8:
		for range l.d.N(6) {
			l.ackWith(l.nxt, l.blocks())
		}
	default:
		l.ackWith(l.nxt, l.blocks())
	}
}

// blocks are the SACK blocks of a good receiver: a duplicate first, then the last that have
// changed.
func (l *liar) blocks() [][2]int {
	var b [][2]int
	if l.dsack && l.dup[1] > 0 {
		b = append(b, l.dup)
	}
	l.dup = [2]int{}
	for _, r := range l.recent {
		i := slices.IndexFunc(l.got, func(g [2]int) bool { return g[0] <= r[0] && r[1] <= g[1] })
		if i >= 0 && !slices.Contains(b, l.got[i]) {
			b = append(b, l.got[i])
		}
	}
	return b
}

func (l *liar) ackWith(n int, blocks [][2]int) {
	if l.tp.state == Closed {
		return
	}
	p := l.pkt(".", 1, n, 0)
	p.th.Win = uint16(l.win)
	if l.sack && len(blocks) > 0 {
		most := 4
		if l.tp.Has(RcvdTstmp) {
			most = 3
		}
		o := &p.th.Opt
		o.Has |= wire.TofSack
		for i, b := range blocks[:min(len(blocks), most)] {
			o.Blocks[i] = wire.SackBlock{Left: l.t.iss.Add(b[0]), Right: l.t.iss.Add(b[1])}
			o.Nsack++
		}
	}
	if !l.honest && l.tp.Has(ecnOn) && l.d.One(20) {
		p.th.Flags |= wire.ECE
	}
	if n <= l.tp.sndMax.Sub(l.t.iss) {
		l.said = max(l.said, n)
		l.nxt = max(l.nxt, n) // what it has acknowledged does not come again
		if l.finAt != 0 && l.nxt > l.finAt {
			l.fin = true
		}
		l.forward()
	}
	arrived := l.now
	if !l.honest && l.d.One(6) {
		l.now += int64(l.d.N(300)) * ms / 10 // looked at later than it came
		if l.d.One(10) {
			l.now += int64(l.d.N(3000)) * ms
		}
	}
	l.logf("< %s %v", l.string(p, false), blocks)
	if l.tp.Input(&p.th, Payload{}, arrived, l.now) {
		l.fatalf("answered with a reset")
	}
	l.after()
}

// user writes, and has whims.
func (l *liar) user() {
	n := min(l.total-l.written, l.snd.Space())
	if !l.honest {
		n = min(n, 1+l.d.N(40000))
	}
	if n > 0 {
		l.logf("write %d", n)
		l.append(n)
		l.tp.Output(l.now)
		l.after()
	}
	if l.honest {
		return
	}
	switch l.d.N(40) {
	case 0:
		l.logf("SetCC")
		l.tp.SetCC(CCNames()[l.d.N(len(CCNames()))], l.now)
		l.after()
	case 1:
		l.logf("Mtudisc")
		l.tp.Mtudisc(300+l.d.N(1300), l.now)
		l.after()
	case 2:
		l.room = false
	case 3, 4, 5:
		l.room = true
		l.tp.Unblock(l.now)
		l.after()
	}
}

// play tells the story, until the peer has got, or says it has got, all.
func (l *liar) play() {
	for l.d.More() && !l.fin {
		if !l.step() {
			l.user()
			if l.written == l.total {
				break
			}
		} else if l.d.One(4) {
			l.user()
		}
	}
	l.honest, l.win = true, l.opts.win
	l.room = true
	l.tp.Unblock(l.now)
	l.after()
	end := l.now + 3600*sec
	for n := 0; l.tp.state != FinWait2; n++ {
		if l.written < l.total {
			l.user()
		}
		if l.written == l.total && !l.tp.Has(SentFin) && l.tp.state == Established {
			l.logf("shutdown")
			l.tp.Usrclosed(l.now)
			l.tp.Output(l.now)
			l.after()
		}
		if !l.step() {
			l.ackWith(l.nxt, nil) // the window is open
			if l.tp.Next() == never && len(l.wire) == 0 && l.snd.Space() == 0 {
				l.fatalf("stalled at %d of %d", l.written, l.total)
			}
		}
		if n > 200000 || l.now > end {
			l.fatalf("no end: %d of %d acknowledged after %v", l.tp.sndUna.Sub(l.t.iss), l.total,
				time.Duration(l.now-epoch))
		}
	}
}

// runLiar plays one story.
func runLiar(t *testing.T, data []byte) { newLiar(t, data).play() }

func TestLiarSeeds(t *testing.T) {
	for seed := range testutil.Games(200, 20) {
		if !t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			runLiar(t, testutil.SeededBytes(seed, 200+int(seed*37%3000)))
		}) {
			break
		}
	}
}
