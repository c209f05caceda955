package tcp

import (
	"unsafe"

	"bsdnet/internal/kern/mbuf"
)

// The scoreboard is the sender's record of what is in flight: RFC 6675, 3, with the times that RACK
// (RFC 8985) and rate sampling need. It is a sequence of spans, one for each chain that was
// emitted, from sndUna to sndNxt without a gap. SACK blocks split spans at any byte, and what has
// been acknowledged selectively is merged again.
//
// The spans lie in blocks, and the blocks in a list: to find a sequence number takes two binary
// searches, and to split a span moves half a block, so the work for a SACK block does not grow with
// what is in flight (CVE-2019-11478, CVE-2018-5390). The number of spans is bounded by the bytes in
// flight.

// A spanFlag is one of a span's booleans.
type spanFlag uint8

const (
	spanSacked    spanFlag = 1 << iota // the peer has acknowledged it selectively
	spanLost                           // it has been found lost, and not been sent again since
	spanRexmitted                      // it has been sent more than once
	spanApp                            // the sender had no more to send then: rate samples say so
	// a segment larger than the others, to find out whether the path carries it (RFC 4821)
	spanProbe
)

// A span is a run of sequence numbers [start, end) that were last sent together. With the FIN it
// holds a number without a byte.
type span struct {
	start, end  Seq
	flight      uint32 // bytes in flight when it had been sent, with it
	flags       spanFlag
	times       uint8  // how often it has been sent
	seg         uint16 // payload of its segments on the wire
	sent        int64  // when it was last sent
	firstSent   int64  // rate sample: when the flight that it belongs to began to be sent
	deliveredAt int64  // rate sample: when delivered was reached; 0: the span has been delivered
	delivered   uint64 // rate sample: bytes delivered when it was sent
	lost        uint64 // rate sample: bytes found lost when it was sent
}

func (s *span) len() int            { return s.end.Sub(s.start) }
func (s *span) has(f spanFlag) bool { return s.flags&f != 0 }

// inFlight reports whether the span counts as being in the network: RFC 6675's pipe.
func (s *span) inFlight() bool { return s.flags&(spanSacked|spanLost) == 0 }

// lastSegment returns where the last segment of the span begins. fin says that it ends with the
// FIN.
func (s *span) lastSegment(fin bool) Seq {
	n := s.len() - 1 // to its last byte
	if fin {
		n--
	}
	if s.seg == 0 || n < 0 {
		return s.start
	}
	return s.start.Add(n - n%int(s.seg))
}

const (
	blockSpans = 36   // spans in a block, which take 2 KiB with it
	maxSpans   = 8192 // of a connection
)

// A spanBlock holds spans lo to hi-1. Its lost ones are counted, so that whole blocks can be passed
// over.
type spanBlock struct {
	lo, hi int
	lost   int
	spans  [blockSpans]span
}

var spanBlocks mbuf.Zone[spanBlock]

// A scoreboard's zero value is empty.
type scoreboard struct {
	blocks []*spanBlock
	n      int // spans
	sacked int // bytes acknowledged selectively
	lost   int // bytes found lost and not sent again
	again  int // bytes in flight that have been sent more than once
}

// A place is where a span lies. It holds until the next change of the scoreboard.
type place struct{ b, i int }

// size returns the bytes that the blocks take.
func (sb *scoreboard) size() int { return len(sb.blocks) * int(unsafe.Sizeof(spanBlock{})) }

func (sb *scoreboard) empty() bool          { return sb.n == 0 }
func (sb *scoreboard) at(p place) *span     { return &sb.blocks[p.b].spans[p.i] }
func (sb *scoreboard) first() place         { return place{0, sb.blocks[0].lo} }
func (sb *scoreboard) valid(p place) bool   { return p.b < len(sb.blocks) }
func (sb *scoreboard) last() *span          { b := sb.blocks[len(sb.blocks)-1]; return &b.spans[b.hi-1] }
func (sb *scoreboard) start() Seq           { return sb.at(sb.first()).start }
func (sb *scoreboard) end() Seq             { return sb.last().end }
func (sb *scoreboard) full(flight int) bool { return sb.n >= min(256+flight/256, maxSpans) }

// next returns the place behind p, which is not valid when p is the last.
func (sb *scoreboard) next(p place) place {
	if p.i++; p.i == sb.blocks[p.b].hi {
		p.b++
		if p.b < len(sb.blocks) {
			p.i = sb.blocks[p.b].lo
		}
	}
	return p
}

// find returns the place of the span that holds seq, which lies within the scoreboard.
func (sb *scoreboard) find(seq Seq) place {
	lo, hi := 0, len(sb.blocks) // the last block that begins at seq or before
	for hi-lo > 1 {
		if m := int(uint(lo+hi) >> 1); sb.blocks[m].spans[sb.blocks[m].lo].start.Leq(seq) {
			lo = m
		} else {
			hi = m
		}
	}
	b := sb.blocks[lo]
	i, j := b.lo, b.hi
	for j-i > 1 {
		if m := int(uint(i+j) >> 1); b.spans[m].start.Leq(seq) {
			i = m
		} else {
			j = m
		}
	}
	return place{lo, i}
}

// push appends a span.
func (sb *scoreboard) push(s span) {
	var b *spanBlock
	if n := len(sb.blocks); n > 0 {
		b = sb.blocks[n-1]
	}
	if b == nil || b.hi == blockSpans {
		b = spanBlocks.Alloc()
		b.lo, b.hi, b.lost = 0, 0, 0
		sb.blocks = append(sb.blocks, b)
	}
	b.spans[b.hi] = s
	b.hi++
	sb.n++
	if s.has(spanRexmitted) {
		sb.again += s.len()
	}
}

// insert puts a span behind place p, of which it was a part: the sums do not change, except for the
// count of lost spans. It returns its place.
func (sb *scoreboard) insert(p place, s span) place {
	b := sb.blocks[p.b]
	if b.hi-b.lo == blockSpans {
		sb.halve(p.b)
		if b = sb.blocks[p.b]; p.i >= b.hi {
			p.i -= b.hi
			p.b++
			b = sb.blocks[p.b]
		}
	}
	i := p.i + 1
	if b.hi < blockSpans {
		copy(b.spans[i+1:b.hi+1], b.spans[i:b.hi])
		b.hi++
	} else {
		copy(b.spans[b.lo-1:i-1], b.spans[b.lo:i])
		b.lo--
		i--
	}
	b.spans[i] = s
	sb.n++
	if s.has(spanLost) {
		b.lost++
	}
	return place{p.b, i}
}

// halve moves the second half of full block i, whose spans begin at 0, into a new block behind it.
func (sb *scoreboard) halve(i int) {
	b, c := sb.blocks[i], spanBlocks.Alloc()
	c.lo, c.hi, c.lost = 0, copy(c.spans[:], b.spans[blockSpans/2:]), 0
	b.hi = blockSpans / 2
	for _, s := range c.spans[:c.hi] {
		if s.has(spanLost) {
			c.lost++
		}
	}
	b.lost -= c.lost
	sb.blocks = append(sb.blocks, nil)
	copy(sb.blocks[i+2:], sb.blocks[i+1:])
	sb.blocks[i+1] = c
}

// remove takes out the span at p, whose bytes the caller has accounted for.
func (sb *scoreboard) remove(p place) {
	b := sb.blocks[p.b]
	if b.spans[p.i].has(spanLost) {
		b.lost--
	}
	if p.i == b.lo {
		b.lo++
	} else {
		copy(b.spans[p.i:], b.spans[p.i+1:b.hi])
		b.hi--
	}
	sb.n--
	if b.lo == b.hi {
		spanBlocks.Free(b)
		copy(sb.blocks[p.b:], sb.blocks[p.b+1:])
		sb.blocks[len(sb.blocks)-1] = nil
		sb.blocks = sb.blocks[:len(sb.blocks)-1]
	}
}

// split cuts the span at p, which holds seq behind its start, in two. It returns the places of
// both.
func (sb *scoreboard) split(p place, seq Seq) (left, right place) {
	s := sb.at(p)
	r := *s
	s.end, r.start = seq, seq
	right = sb.insert(p, r)
	return sb.before(right), right
}

// before returns the place in front of p, which is not the first.
func (sb *scoreboard) before(p place) place {
	if p.i == sb.blocks[p.b].lo {
		p.b--
		p.i = sb.blocks[p.b].hi
	}
	p.i--
	return p
}

// drop takes out the first span, which has been acknowledged.
func (sb *scoreboard) drop() {
	p := sb.first()
	sb.forget(sb.at(p))
	sb.remove(p)
}

// forget takes the span's bytes out of the sums.
func (sb *scoreboard) forget(s *span) {
	n := s.len()
	if s.has(spanSacked) {
		sb.sacked -= n
	}
	if s.has(spanLost) {
		sb.lost -= n
	}
	if s.has(spanRexmitted) {
		sb.again -= n
	}
}

// trim takes what lies before seq off the first span, which holds seq behind its start.
func (sb *scoreboard) trim(seq Seq) {
	s := sb.at(sb.first())
	head := *s
	head.end = seq
	sb.forget(&head)
	s.start = seq
}

// behead trims the first span in the midst of a segment, or at its edge. What is left of the
// segment becomes a span of its own, so that the others still begin at multiples of its size.
func (sb *scoreboard) behead(seq Seq) {
	s := sb.at(sb.first())
	if n := int(s.seg); n > 0 && !s.has(spanSacked) {
		if over := seq.Sub(s.start) % n; over > 0 && s.end.Sub(seq) > n-over {
			sb.split(sb.first(), seq.Add(n-over))
		}
	}
	sb.trim(seq)
}

// mark finds the span at p lost.
func (sb *scoreboard) mark(p place) {
	s := sb.at(p)
	s.flags |= spanLost
	sb.lost += s.len()
	sb.blocks[p.b].lost++
}

// unmark takes the mark back, as the span is sent again or has arrived after all.
func (sb *scoreboard) unmark(p place) {
	if s := sb.at(p); s.has(spanLost) {
		s.flags &^= spanLost
		sb.lost -= s.len()
		sb.blocks[p.b].lost--
	}
}

// sack notes that the span at p has arrived.
func (sb *scoreboard) sack(p place) {
	sb.unmark(p)
	s := sb.at(p)
	if s.has(spanRexmitted) {
		sb.again -= s.len()
		s.flags &^= spanRexmitted
	}
	s.flags |= spanSacked
	s.deliveredAt = 0
	sb.sacked += s.len()
}

// merge joins the span at p, which has arrived, with its neighbors that have arrived too. It
// returns the place of the whole.
func (sb *scoreboard) merge(p place) place {
	for r := sb.next(p); sb.valid(r) && sb.at(r).has(spanSacked); r = sb.next(p) {
		sb.at(p).end = sb.at(r).end
		sb.remove(r)
	}
	if p == sb.first() {
		return p
	}
	if l := sb.before(p); sb.at(l).has(spanSacked) {
		sb.at(l).end = sb.at(p).end
		sb.remove(p)
		return l
	}
	return p
}

// nextLost returns the place of the first lost span, at from or behind it.
func (sb *scoreboard) nextLost(from Seq) (place, bool) {
	if sb.lost == 0 {
		return place{}, false
	}
	p := sb.first()
	if from.Gt(sb.at(p).start) {
		if from.Geq(sb.end()) {
			return place{}, false
		}
		p = sb.find(from)
	}
	for sb.valid(p) {
		if sb.blocks[p.b].lost == 0 {
			if p.b++; p.b < len(sb.blocks) {
				p.i = sb.blocks[p.b].lo
			}
			continue
		}
		if sb.at(p).has(spanLost) {
			return p, true
		}
		p = sb.next(p)
	}
	return place{}, false
}

// lostRun returns how many bytes from the lost span at p on are lost without a gap, up to about
// most.
func (sb *scoreboard) lostRun(p place, most int) int {
	n := 0
	for ; n < most && sb.valid(p) && sb.at(p).has(spanLost); p = sb.next(p) {
		n += sb.at(p).len()
	}
	return n
}

// flush empties the scoreboard.
func (sb *scoreboard) flush() {
	for i, b := range sb.blocks {
		spanBlocks.Free(b)
		sb.blocks[i] = nil
	}
	*sb = scoreboard{blocks: sb.blocks[:0]}
}
