package tcp

import (
	"slices"

	"bsdnet/internal/kern/wire"
)

// The receiver's half of selective acknowledgment: RFC 2018, 4, and RFC 2883.

// maxRecent is how many blocks are remembered: more than a segment can carry, as blocks merge and
// go. RFC 2018, 4, has the blocks that were reported last reported again, so that each is told of
// at least three times, whatever acknowledgments are lost.
const maxRecent = 6

// touch notes that block [l, r) is the one that has changed last. RFC 2018, 4: "The first SACK
// block [...] MUST specify the contiguous block of data containing the segment which triggered this
// ACK".
func (q *reassq) touch(l, r Seq) {
	q.recent = slices.DeleteFunc(q.recent, func(b wire.SackBlock) bool { return b.Left.Leq(r) && b.Right.Geq(l) })
	q.recent = slices.Insert(q.recent, 0, wire.SackBlock{Left: l, Right: r})
	if len(q.recent) > maxRecent {
		q.recent = q.recent[:maxRecent]
	}
}

// trimSacks forgets blocks that have been delivered.
func (tp *TCB) trimSacks() {
	q := tp.reass
	q.recent = slices.DeleteFunc(q.recent, func(b wire.SackBlock) bool { return b.Left.Leq(tp.rcvNxt) })
}

// noteDuplicate records that [l, r), left of the window, has come again: the next acknowledgment
// says so (RFC 2883, 4).
func (tp *TCB) noteDuplicate(l, r Seq) {
	if tp.flags&SackPermit == 0 || !tp.state.HaveEstablished() {
		return
	}
	q := tp.needReass()
	q.dsack = wire.SackBlock{Left: l, Right: r}
}

// nsack returns how many SACK blocks the next segment carries.
func (tp *TCB) nsack() int {
	q := tp.reass
	if q == nil || tp.flags&(SackPermit|NoOpt) != SackPermit || !tp.state.HaveEstablished() {
		return 0
	}
	n := len(q.recent)
	if q.dsack.Left != q.dsack.Right {
		n++
	}
	most := wire.MaxSack
	if tp.flags&RcvdTstmp != 0 {
		most = 3 // the timestamp's 12 of the 40 bytes leave room for no more
	}
	// On a link of an MTU of hardly more than 68 the blocks must leave room for data: 4 bytes are
	// the option's own, 8 the data's.
	if room := tp.effMSS() - 12; room < 8*most {
		most = max(room/8, 0)
	}
	return min(n, most)
}

// sackoptions puts the blocks into a segment: the duplicate first; then the most recent first.
func (tp *TCB) sackoptions(op *wire.Options) {
	n := tp.nsack()
	if n == 0 {
		return
	}
	q := tp.reass
	op.Has |= wire.TofSack
	op.Nsack = uint8(n)
	i := 0
	if q.dsack.Left != q.dsack.Right {
		op.Blocks[0] = q.dsack
		i = 1
	}
	copy(op.Blocks[i:n], q.recent)
}

// sacksTold takes note that a segment has carried the blocks: a duplicate is reported once. The
// queue is given back if that was all that it was kept for.
func (tp *TCB) sacksTold() {
	q := tp.reass
	q.dsack = wire.SackBlock{}
	if len(q.blocks) == 0 && !q.fin {
		tp.freeReass()
	}
}
