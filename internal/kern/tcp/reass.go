package tcp

import (
	"slices"
	"unsafe"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// What has arrived out of order waits in a reassq: BSD's tcp_reass. RFC 9293, 3.10.7.4, first:
// "Segments with higher beginning sequence numbers SHOULD be held for later processing (SHLD-31)."
// Blocks are disjoint, never touch, and are sorted, so that a segment is placed by binary search;
// their number is bounded, and so is what they pin (CVE-2018-5390, CVE-2018-6922).

// An rblock is a run of bytes [start, end) that is there.
type rblock struct {
	start, end Seq
	m          *mbuf.Mbuf
	tail       *mbuf.Mbuf
}

// A reassq is a connection's queue of blocks, and what the next acknowledgment says about it.
type reassq struct {
	blocks []rblock
	pinned int
	charge int  // bytes that the pool counts for blocks
	fin    bool // the stream ends at finSeq
	finSeq Seq

	// SACK generation (RFC 2018, 4; RFC 2883, 4).
	recent []wire.SackBlock // most recently changed first
	dsack  wire.SackBlock   // duplicate to report in the next acknowledgment, if Left != Right
}

var reassqs mbuf.Zone[reassq]

func (tp *TCB) needReass() *reassq {
	if tp.reass == nil {
		tp.reass = reassqs.Alloc()
	}
	return tp.reass
}

// freeReass gives the queue back.
func (tp *TCB) freeReass() {
	q := tp.reass
	if q == nil {
		return
	}
	tp.reass = nil
	tp.pool.Charge(-q.charge)
	for _, b := range q.blocks {
		mbuf.Free(b.m)
	}
	if cap(q.blocks) > keptBlocks {
		q.blocks = nil // one connection that needed many must not make every queue large
	}
	clear(q.blocks[:cap(q.blocks)])
	*q = reassq{blocks: q.blocks[:0], recent: q.recent[:0]}
	reassqs.Free(q)
}

// keptBlocks is how much room for blocks a queue keeps while it is out of use: what few need is not
// hoarded.
const keptBlocks = 64

// account tells the pool what the blocks take, besides what waits in them.
func (q *reassq) account(p *mbuf.Pool) {
	if n := cap(q.blocks) * int(unsafe.Sizeof(rblock{})); n != q.charge {
		p.Charge(n - q.charge)
		q.charge = n
	}
}

// reassemble queues the segment's data and delivers what has become contiguous: BSD's tcp_reass. It
// reports whether the peer's FIN is next.
func (tp *TCB) reassemble(seg *segment) (fin bool) {
	q := tp.needReass()
	if seg.flags&wire.FIN != 0 && tp.state.HaveEstablished() {
		// A FIN is remembered, and counts when all before it is there. One that contradicts data
		// that has come is not the peer's.
		end := seg.seq.Add(seg.len)
		if last := len(q.blocks) - 1; last < 0 || q.blocks[last].end.Leq(end) {
			q.fin, q.finSeq = true, end
		}
	}
	if q.fin {
		// Nothing follows the end of the stream.
		if over := seg.seq.Add(seg.len).Sub(q.finSeq); over > 0 && seg.len > 0 {
			over = min(over, seg.len)
			seg.m = mbuf.Adj(seg.m, -over)
			seg.len -= over
		}
	}
	if seg.len > 0 {
		tp.enqueue(q, seg)
	}
	return tp.deliverReassembled()
}

// enqueue puts the segment's data among the blocks.
func (tp *TCB) enqueue(q *reassq, seg *segment) {
	start, end := seg.seq, seg.seq.Add(seg.len)
	i, _ := slices.BinarySearchFunc(q.blocks, start, func(b rblock, s Seq) int { return b.end.Sub(s) })
	// blocks[i:j] overlap [start, end) or touch it. RFC 2883, 4: what is there already is reported
	// as a duplicate, the first of it if there are several.
	j := i
	for j < len(q.blocks) && q.blocks[j].start.Leq(end) {
		if b := &q.blocks[j]; q.dsack.Left == q.dsack.Right {
			if l, r := start.Max(b.start), end.Min(b.end); l.Lt(r) {
				tp.noteDuplicate(l, r)
			}
		}
		j++
	}
	// What comes next is always taken: it ends the hole, and goes on at once. Of the rest, what
	// fits: RFC 2018, 8, lets a receiver throw away what it has not acknowledged in order.
	next := start == tp.rcvNxt && tp.state.HaveEstablished()
	tooMany := i == j && len(q.blocks) >= tp.maxBlocks()
	tooLarge := int64(q.pinned) > tp.maxPinned()
	if !next && (tooMany || tooLarge) {
		tp.stats.Rcvmemdrop.Inc()
		return
	}
	tp.stats.Rcvoopack.Inc()
	tp.stats.Rcvoobyte.Add(seg.len)
	if i == j {
		q.blocks = slices.Insert(q.blocks, i, rblock{start: start, end: end, m: seg.m})
		seg.m = nil
		q.account(tp.pool)
		q.pinned += mbuf.Pinned(q.blocks[i].m)
		q.blocks[i].settle()
	} else {
		tp.merge(q, i, j, seg, start, end)
	}
	q.touch(q.blocks[i].start, q.blocks[i].end)
}

// maxPinned bounds the memory that out-of-order data keeps: small segments keep more than they
// hold, and a large buffer is not filled by those alone.
func (tp *TCB) maxPinned() int64 {
	hiwat := int64(tp.rcv.Hiwat())
	return min(4*hiwat, 2*hiwat+2<<20) + 4*mbuf.ClHuge
}

// maxBlocks bounds the blocks, and with them the holes.
func (tp *TCB) maxBlocks() int {
	return min(tp.rcv.Hiwat()/max(tp.maxseg, 1)+1, tp.prof.ReassMaxqueuelen)
}

// settle finds the tail of the block's chain.
func (b *rblock) settle() {
	for m := b.m; m != nil; m = m.Next() {
		b.tail = m
	}
}

// merge joins the segment [start, end) with blocks[i:j], which it overlaps or touches, into
// blocks[i]. Of bytes that are there twice the first copy stays.
func (tp *TCB) merge(q *reassq, i, j int, seg *segment, start, end Seq) {
	var out rblock
	out.start = start.Min(q.blocks[i].start)
	pos := out.start
	add := func(m *mbuf.Mbuf) {
		if m == nil {
			return
		}
		b := rblock{m: m}
		b.settle()
		if out.m == nil {
			out.m = m
		} else {
			out.tail.SetNext(m)
		}
		out.tail = b.tail
	}
	fill := func(upto Seq) { // from the segment: [pos, upto)
		if l := pos.Max(start); l.Lt(upto) {
			add(mbuf.Copym(seg.m, l.Sub(start), upto.Sub(l)))
			pos = upto
		}
	}
	for k := i; k < j; k++ {
		b := &q.blocks[k]
		fill(b.start.Min(end))
		q.pinned -= mbuf.Pinned(b.m)
		add(b.m)
		pos = b.end
	}
	fill(end)
	out.end = pos
	q.pinned += mbuf.Pinned(out.m)
	q.blocks[i] = out
	q.blocks = slices.Delete(q.blocks, i+1, j)
}

// deliverReassembled moves what has become contiguous to the receive buffer. It reports whether the
// FIN is next.
func (tp *TCB) deliverReassembled() (fin bool) {
	q := tp.reass
	if q == nil || !tp.state.HaveEstablished() {
		return false
	}
	if len(q.blocks) > 0 && q.blocks[0].start.Leq(tp.rcvNxt) {
		tp.autosize(tp.clock)
		b := q.blocks[0]
		n := b.end.Sub(tp.rcvNxt)
		q.pinned -= mbuf.Pinned(b.m)
		m := mbuf.Adj(b.m, tp.rcvNxt.Sub(b.start))
		q.blocks = slices.Delete(q.blocks, 0, 1)
		tp.rcvNxt = b.end
		// As processData: "Once the TCP endpoint takes responsibility for the data, it advances
		// RCV.NXT over the data accepted".
		tp.stats.Rcvpack.Inc()
		tp.stats.Rcvbyte.Add(n)
		tp.bytesRcvd += uint64(n)
		if tp.keepsData() {
			tp.rcv.Append(m)
			tp.sock.Sorwakeup()
		} else {
			mbuf.Free(m)
		}
	}
	fin = q.fin && q.finSeq == tp.rcvNxt
	tp.trimSacks()
	if len(q.blocks) == 0 && q.dsack.Left == q.dsack.Right && (!q.fin || fin) {
		tp.freeReass()
	}
	return fin
}
