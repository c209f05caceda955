package tcp

import "bsdnet/internal/kern/wire"

// acking is what one acknowledgment says.
type acking struct {
	acked int // bytes in order
	news  int // bytes delivered: in order or selectively, for the first time
	// when the first and the last of what is acknowledged in order, and was sent once, were sent;
	// 0: there is none
	oldest   int64
	newest   int64
	sackedAt int64 // the last of what is acknowledged selectively, and was sent once
	sacked   bool  // something has been acknowledged selectively
	dup      bool  // a duplicate acknowledgment (RFC 5681, 2)
	orig     bool  // something that was sent once, before the time-out, has arrived
	dsack    bool  // the peer reports a duplicate, and what we sent again is to blame
	tlpDup   bool  // the duplicate is the tail's probe
	full     bool  // a full segment has arrived
	again    bool  // something that was sent again is acknowledged in order
	late     int64 // by how much longer than what overtook it something was on its way; 0: nothing was overtaken
	filled   bool  // something that was sent again has arrived
}

// senderAck takes an acknowledgment that does not lie beyond what has been sent, on a connection
// with a scoreboard: RFC 9293, 3.10.7.4, fifth, with RFC 6675 and RFC 8985. It reports whether the
// rest of the segment is to be looked at.
func (tp *TCB) senderAck(seg *segment) bool {
	s := tp.snr
	var a acking
	finAcked := tp.readAck(seg, &a)
	if a.news == 0 && a.acked == 0 && !a.dsack && !a.dup {
		if seg.len == 0 && seg.win == tp.sndWnd && seg.opt.Nsack == 0 {
			// with nothing else in flight this is no duplicate by RFC 5681, but may be the probe's
			tp.probeAcked(seg, &a)
		}
		return true
	}
	s.newFirst = false
	if a.news > 0 {
		s.lastNews = seg.now
		tp.sampleRound(seg, &a)
	}
	if a.acked > 0 {
		// RFC 6298, 5.3: "When an ACK is received that acknowledges new data, restart the
		// retransmission timer".
		s.rtoAt = seg.now + tp.rtt.rxtcur
	}
	s.ack.Acked, s.ack.Delivered = a.acked, a.news
	s.rack.adapt(a.dsack, tp.sndUna, tp.sndNxt)
	if a.full {
		tp.pmtuProof()
	}
	if tp.flags&ecnOn != 0 {
		tp.ecnAck(seg)
	}
	repaired := tp.probeAcked(seg, &a)
	tp.recover(seg, &a)
	if repaired && s.state == Open {
		tp.probeRepaired(seg.now)
	}
	s.ack.Rate = s.rate.sample(seg.arrived, tp.rtt.min)
	tp.control(seg.now, a.acked > 0 && s.ack.Lost == 0)
	s.limited = false
	if tp.sndUna.Geq(s.roundEnd) {
		s.roundEnd, s.maxFlight = tp.sndNxt, tp.pipe()
	}
	if tp.sndUna == tp.sndMax {
		tp.lookAround(seg.now) // there may be nothing to make Output necessary
	}
	seg.needoutput = true
	return tp.afterAck(seg, finAcked)
}

// readAck finds out what the acknowledgment says, and notes on the scoreboard what has arrived. It
// reports whether our FIN has.
func (tp *TCB) readAck(seg *segment, a *acking) (finAcked bool) {
	s := tp.snr
	s.ack = Ack{}
	s.view.PriorFlight = tp.pipe()
	s.rack.prior = s.rack.fack
	a.dup = tp.isDuplicate(seg)
	if tp.flags&SackPermit != 0 && seg.opt.Has&wire.TofSack != 0 {
		tp.takeSacks(seg, a)
	}
	if seg.ack.Gt(tp.sndUna) {
		finAcked = tp.takeAck(seg, a)
	} else if a.dup {
		tp.stats.Rcvdupack.Inc()
	}
	if tp.flags&SackPermit == 0 {
		tp.countDuplicates(a)
	}
	return finAcked
}

// takeAck drops what is acknowledged in order. It reports whether our FIN is.
func (tp *TCB) takeAck(seg *segment, a *acking) (finAcked bool) {
	s := tp.snr
	a.acked = seg.ack.Sub(tp.sndUna)
	for !s.sb.empty() && s.sb.start().Lt(seg.ack) {
		sp := s.sb.at(s.sb.first())
		end := sp.end.Min(seg.ack)
		if !sp.has(spanSacked) {
			a.late = 0
			tp.delivered(sp, end.Sub(sp.start), end, seg, a)
			if sp.start == tp.sndUna {
				s.rack.overtaken(a.late) // it fills the hole; what lies behind may have come long ago
			}
			if sp.has(spanRexmitted) {
				a.again = true
			} else {
				if a.oldest == 0 {
					a.oldest = sp.sent
				}
				a.newest = max(a.newest, sp.sent)
			}
		}
		if sp.end.Leq(seg.ack) {
			s.sb.drop()
		} else {
			s.sb.behead(seg.ack)
		}
	}
	if a.again {
		// What was sent once may have waited behind the hole that has just been filled: it measures
		// no round trip, and without SACK its acknowledgment is no sign that nothing was lost.
		a.oldest, a.newest = 0, 0
		a.orig = a.orig && tp.flags&SackPermit != 0
	}
	if !tp.on(tPersist) {
		tp.backoff = 0 // progress; but the time-out stays doubled until a round trip has been measured (Karn)
	}
	tp.stats.Rcvackpack.Inc()
	tp.stats.Rcvackbyte.Add(a.acked)
	tp.unackedSince = seg.now
	if seg.ack == tp.sndMax {
		tp.unackedSince = 0
	}
	finAcked = tp.advance(seg)
	if m := &s.pmtu; m.said != 0 && tp.sndUna.Geq(m.saidEnd) {
		m.said = 0 // what it spoke of has arrived
	}
	// What follows keeps numbers within half the sequence space.
	s.lostFrom = s.lostFrom.Max(tp.sndUna)
	s.rack.next = s.rack.next.Max(tp.sndUna)
	if s.state <= Disorder {
		s.high = s.high.Max(tp.sndUna)
		if !s.undo.on {
			s.undo.marker = tp.sndUna
		}
	}
	return finAcked
}

// delivered notes that n bytes of a span, up to end, have arrived.
func (tp *TCB) delivered(sp *span, n int, end Seq, seg *segment, a *acking) {
	s := tp.snr
	a.news += n
	s.rate.deliver(sp, n, seg.arrived)
	if n >= int(sp.seg) && int(sp.seg) >= tp.effMSS() {
		a.full = true
	}
	if sp.has(spanProbe) {
		tp.probeArrived()
	}
	denied := false
	if sp.has(spanRexmitted) {
		// Only the segment that fills the first hole has its own timestamp echoed: what arrives
		// behind a hole draws that of the last one in order (RFC 7323, 4.3).
		denied = sp.start == tp.sndUna && tp.echoBefore(seg, tp.ts(sp.sent))
	} else if end.Leq(s.high) && (end.Leq(seg.ack) || sp.has(spanLost)) {
		// Behind a hole it says something only if the time-out has given it up: what was sent just
		// before arrives, whatever became of the rest.
		a.orig = true
	}
	a.filled = a.filled || sp.has(spanRexmitted)
	a.late = max(a.late, s.rack.delivered(sp, end, seg.arrived, tp.rtt.min, denied))
}

// takeSacks enters the blocks of an acknowledgment in the scoreboard: RFC 2018, 5; RFC 2883; RFC
// 6675, 4, Update().
func (tp *TCB) takeSacks(seg *segment, a *acking) {
	blocks := seg.opt.Blocks[:seg.opt.Nsack]
	if len(blocks) == 0 {
		return
	}
	// RFC 2018, 4: "The first SACK block [...] MUST specify the contiguous block of data containing
	// the segment which triggered this ACK". The others repeat what the peer has told before. They
	// tell it for the first time only if it was told in acknowledgments that are lost, and so does
	// the first block if what was sent again has joined it to another.
	first := 0
	if reportsDuplicate(seg.ack, blocks) {
		tp.takeDuplicate(blocks[0], a)
		first = -1
		blocks = blocks[1:]
	}
	for i, b := range blocks {
		// What has not been sent, or is the wrong way round, says nothing (CVE-2019-11477 and its
		// like); what lies below has been acknowledged.
		if l := b.Left.Max(tp.sndUna); l.Lt(b.Right) && b.Right.Leq(tp.sndNxt) && b.Right.Sub(b.Left) > 0 {
			a.late, a.filled = 0, false
			tp.sackRange(l, b.Right, seg, a)
			if i == first && !a.filled {
				tp.snr.rack.overtaken(a.late)
			}
		}
	}
}

// reportsDuplicate reports whether the first block says what has come twice. RFC 2883, 4: it does
// if it lies below the acknowledgment, or within the second block.
func reportsDuplicate(ack Seq, blocks []wire.SackBlock) bool {
	b := blocks[0]
	if b.Left.Geq(b.Right) {
		return false
	}
	return b.Right.Leq(ack) || len(blocks) > 1 && b.Left.Geq(blocks[1].Left) && b.Right.Leq(blocks[1].Right)
}

// takeDuplicate takes a report that [Left, Right) has arrived twice.
func (tp *TCB) takeDuplicate(b wire.SackBlock, a *acking) {
	s := tp.snr
	if b.Right.Gt(tp.sndMax) || tp.sndUna.Sub(b.Left) > int(tp.maxSndwnd)+maxWin {
		return // nothing that was sent lately
	}
	s.dsacks++
	tp.stats.Rcvdsack.Inc()
	s.dupped += uint64(b.Right.Sub(b.Left))
	if s.dupped > s.rexmitted {
		// there are more duplicates than we have sent: the network makes them (RFC 8985, 6.2, step
		// 4, does not say so)
		return
	}
	a.dsack = true
	s.undo.duplicate(b.Left, b.Right)
	if s.tlp.on && s.tlp.again && b.Right == s.tlp.end {
		a.tlpDup = true
	}
}

// sackRange notes that [l, r) has arrived, as far as it holds whole segments: what arrives is
// segments, and a peer that acknowledges parts of one cannot make the scoreboard longer than the
// flight has segments, nor begin a recovery (RFC 8985, 6.2, step 2, speaks of segments). A block
// that says nothing new costs one look-up.
func (tp *TCB) sackRange(l, r Seq, seg *segment, a *acking) {
	sb := &tp.snr.sb
	if sb.empty() || r.Gt(sb.end()) {
		return
	}
	full := sb.full(tp.sndNxt.Sub(tp.sndUna))
	p := sb.find(l)
	if sp := sb.at(p); sp.start.Lt(l) && !sp.has(spanSacked) {
		l = tp.segmentFrom(sp, l)
		switch {
		case full || l == sp.end:
			p = sb.next(p) // a part of a span is not worth a span of its own
		case l.Geq(r):
			return
		default:
			_, p = sb.split(p, l)
		}
	}
	for sb.valid(p) && sb.at(p).start.Lt(r) {
		sp := sb.at(p)
		if !sp.has(spanSacked) {
			if sp.end.Gt(r) {
				end := tp.segmentsUpTo(sp, r)
				if full || end == sp.start {
					return
				}
				p, _ = sb.split(p, end)
				sp = sb.at(p)
			}
			a.sacked = true
			if !sp.has(spanRexmitted) {
				a.sackedAt = max(a.sackedAt, sp.sent)
			}
			tp.delivered(sp, sp.len(), sp.end, seg, a)
			sb.sack(p)
			p = sb.merge(p)
		}
		p = sb.next(p)
	}
}

// segmentsUpTo rounds seq, which lies within a span, down to the end of a segment.
func (tp *TCB) segmentsUpTo(sp *span, seq Seq) Seq {
	if tp.flags&SentFin != 0 && seq+1 == tp.sndMax {
		return seq // all of the data: some peers do not count an early FIN
	}
	if n := int(sp.seg); n > 0 {
		seq -= Seq(seq.Sub(sp.start) % n)
	}
	return seq
}

// segmentFrom rounds seq, which lies within a span, up to the beginning of a segment.
func (tp *TCB) segmentFrom(sp *span, seq Seq) Seq {
	if at := tp.segmentsUpTo(sp, seq); at != seq {
		return at.Add(int(sp.seg)).Min(sp.end)
	}
	return seq
}

// countDuplicates stands in for SACK with a peer that has none: each duplicate acknowledgment says
// that one segment has arrived (RFC 6582).
func (tp *TCB) countDuplicates(a *acking) {
	s := tp.snr
	mss := tp.effMSS()
	switch {
	case a.acked > 0:
		// One of the segments acknowledged filled the hole; the others are those that the
		// duplicates told of, which have been counted.
		told := min(s.told, max(a.acked-mss, 0), a.news)
		s.told -= told
		a.news -= told
		s.rate.delivered -= uint64(told)
		s.dups, s.dupBytes = 0, min(max(s.dupBytes-max(a.acked-mss, 0), 0), tp.sndNxt.Sub(tp.sndUna))
	case a.dup:
		s.dups++
		flight := tp.sndNxt.Sub(tp.sndUna)
		if s.state == Recovering {
			// RFC 5681, 3.2, step 4 warns of made-up duplicates: they open the window by no more
			// than what was in flight when the loss was found.
			flight = min(flight, max(s.high.Sub(tp.sndUna), 0))
		}
		n := max(min(s.dupBytes+mss, flight-mss), s.dupBytes)
		a.news += n - s.dupBytes
		s.told += n - s.dupBytes
		s.rate.delivered += uint64(n - s.dupBytes)
		s.dupBytes = n
	}
}

// sampleRound measures the round trip. What has been sent twice gives none (Karn), except by
// timestamps, which tell the transmissions apart (RFC 7323, 4).
func (tp *TCB) sampleRound(seg *segment, a *acking) {
	s := tp.snr
	newest := a.newest
	if newest == 0 {
		newest = a.sackedAt
	}
	if newest != 0 {
		s.ack.RTT = max(seg.arrived-newest, 1)
		tp.noteMinRTT(s.ack.RTT, seg.now)
	}
	oldest := a.oldest
	if oldest == 0 {
		oldest = a.sackedAt
	}
	switch {
	case oldest != 0:
		tp.estimate(seg.arrived-oldest, a.news)
	case a.acked > 0:
		if d, ok := tp.echoed(seg); ok {
			tp.estimate(d, a.news)
		}
	}
}

// estimate takes a sample into the estimate of the round trip: RFC 6298, 2, with the gains divided
// by the samples of a round trip, as each acknowledgment gives one (RFC 7323, appendix G). How many
// there are is not taken from the size of a segment, as there, but from the bytes that the
// acknowledgment covers: many peers acknowledge what their network card has merged.
func (tp *TCB) estimate(rtt int64, news int) {
	rtt = max(rtt, 1)
	if tp.rtt.srtt == 0 {
		tp.xmitTimer(rtt)
		return
	}
	tp.measured(rtt, int64(max((tp.sndNxt.Sub(tp.sndUna)+news)/max(news, 1), 1)))
}

// minRTTWindow is how long the least round trip is believed: a route may change.
const minRTTWindow = 300 * sec

// noteMinRTT keeps the least round trip.
func (tp *TCB) noteMinRTT(rtt, now int64) {
	s := tp.snr
	if rtt <= tp.rtt.min || now-s.minRTTAt > minRTTWindow {
		tp.rtt.min, s.minRTTAt = rtt, now
	}
}
