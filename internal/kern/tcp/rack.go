package tcp

// rack finds losses by time: RFC 8985. A segment is lost if one that was sent later has arrived,
// and a reordering window has passed since it would have arrived itself.
//
// Segments that have been sent once lie in the scoreboard in the order in which they were sent;
// next is where those begin that have not been judged. Those that were sent again are in a queue,
// in the order of their retransmission. So each is looked at once.
type rack struct {
	sent    int64 // when the last of the delivered segments was sent: RACK.xmit_ts
	end     Seq   // its end: RACK.end_seq
	rtt     int64 // the round trip of the last that was delivered: RACK.rtt
	fack    Seq   // the highest number delivered: RACK.fack
	prior   Seq   // fack before the acknowledgment in hand: that says nothing about the order of what it covers
	late    int64 // the most by which the round trip of an original exceeded that of those behind it
	next    Seq
	queue   []rexmit
	head    int  // of the queue
	seen    bool // segments have been reordered: RACK.reordering_seen
	mult    uint8
	persist uint8
	round   Seq // RACK.dsack_round, when inRound
	inRound bool
}

// A rexmit is a retransmission.
type rexmit struct {
	start, end Seq
	sent       int64
}

// after reports whether a segment that ends at end1 and was sent at t1 was sent after another:
// RACK_sent_after.
func after(t1 int64, end1 Seq, t2 int64, end2 Seq) bool { return t1 > t2 || t1 == t2 && end1.Gt(end2) }

// resent notes a retransmission.
func (r *rack) resent(start, end Seq, now int64) {
	if r.head > 32 && r.head > len(r.queue)/2 {
		r.queue = append(r.queue[:0], r.queue[r.head:]...)
		r.head = 0
	}
	r.queue = append(r.queue, rexmit{start, end, now})
}

// delivered takes a span, or the part of it up to end, that has just been acknowledged: RACK_update
// and RACK_detect_reordering (RFC 8985, 6.2, steps 2 and 3). denied says that a timestamp proves
// that the answer is one to an earlier transmission. delivered returns by how much longer than what
// overtook it the span was on its way, or 0 if nothing overtook it.
func (r *rack) delivered(sp *span, end Seq, now, minRTT int64, denied bool) (late int64) {
	rtt := max(now-sp.sent, 1) // two processors may have read the clock
	if sp.has(spanRexmitted) {
		// "If RACK.ts_option.echo_reply < Segment.xmit_ts: continue. If RACK.min_RTT is set and rtt
		// < RACK.min_RTT: continue": the acknowledgment may be that of the original.
		if denied || minRTT != never && rtt < minRTT {
			return 0
		}
	} else if end.Lt(r.prior) {
		r.seen = true
		late = rtt - r.rtt
	}
	r.fack = r.fack.Max(end)
	r.rtt = rtt // of the last of those that one acknowledgment delivers, in the order of their numbers
	if after(sp.sent, end, r.sent, r.end) {
		r.sent, r.end = sp.sent, end
	}
	return late
}

// overtaken notes by how much longer than those behind it an original was on its way. It is called
// for what has just arrived. If the peer may have told of a segment before, in an acknowledgment
// that was lost, nobody knows when the segment arrived. If such segments counted, the reordering
// window would open to a round trip on a path that only loses.
func (r *rack) overtaken(late int64) {
	if late > r.late {
		r.late, r.persist = late, 16
	}
}

// adapt widens the reordering window when the peer reports that what was sent again had arrived:
// RFC 8985, 6.2, step 4, RACK_update_reo_wnd.
func (r *rack) adapt(dsack bool, una, nxt Seq) {
	if r.inRound && una.Geq(r.round) {
		r.inRound = false
	}
	if dsack && !r.inRound {
		r.round, r.inRound = nxt, true
		r.mult = min(r.mult+1, 255)
		r.persist = 16
	}
}

// recovered is called when a recovery has ended: "reset the window after 16 DSACK-free recoveries".
func (r *rack) recovered() {
	if r.persist > 0 {
		if r.persist--; r.persist == 0 {
			r.mult, r.late = 1, 0
		}
	}
}

// window is the reordering window in nanoseconds: RACK_update_reo_wnd.
func (tp *TCB) reorderWindow() int64 {
	s := tp.snr
	if !s.rack.seen && (s.state >= Recovering || s.sb.sacked > (dupthresh-1)*tp.effMSS()) {
		// "Set reo_wnd to 0 in this case to quickly retransmit": three segments behind the hole,
		// and nothing has ever been reordered
		return 0
	}
	if tp.rtt.min == never {
		return 0
	}
	// "reo_wnd = min(RACK.reo_wnd_mult * RACK.min_RTT / 4, SRTT)". A segment that was later than
	// that, and came, would be sent again in vain. So the window is as long as that one was late:
	// there is no need to learn it from the peer's reports.
	return min(max(int64(s.rack.mult)*(tp.rtt.min/4), s.rack.late+s.rack.late/4), tp.rtt.srtt)
}

// detectLoss marks what is lost at now: RFC 8985, 6.2, step 5, RACK_detect_loss. If something may
// only be late, the timer looks again.
func (tp *TCB) detectLoss(now int64) {
	s := tp.snr
	r := &s.rack
	s.reoAt = never
	if r.sent == 0 || s.sb.empty() {
		return
	}
	wait := r.rtt + tp.reorderWindow()
	pending := false
	if r.next.Lt(s.sb.end()) {
		for p := s.sb.find(r.next); s.sb.valid(p); p = s.sb.next(p) {
			sp := s.sb.at(p)
			if sp.inFlight() && !sp.has(spanRexmitted) {
				if !after(r.sent, r.end, sp.sent, sp.end) {
					break
				}
				if sp.sent+wait > now {
					pending = true
					break
				}
				tp.markLost(p, "RACK")
			}
			r.next = sp.end
		}
	}
	for ; r.head < len(r.queue); r.head++ {
		q := &r.queue[r.head]
		if q.end.Leq(tp.sndUna) {
			continue
		}
		if !after(r.sent, r.end, q.sent, q.end) {
			break
		}
		if q.sent+wait > now {
			pending = true
			break
		}
		tp.markRexmits(q)
	}
	if r.head == len(r.queue) {
		r.queue, r.head = r.queue[:0], 0
	}
	if pending {
		// The timer is for all that were sent before the segment that has been delivered: the last
		// of them is due about then.
		s.reoAt = r.sent + wait
	}
}

// markRexmits marks what is left of a retransmission lost, if it has not been sent again since.
func (tp *TCB) markRexmits(q *rexmit) {
	sb := &tp.snr.sb
	for p := sb.find(q.start.Max(tp.sndUna)); sb.valid(p) && sb.at(p).start.Lt(q.end); p = sb.next(p) {
		if sp := sb.at(p); sp.inFlight() && sp.has(spanRexmitted) && sp.sent == q.sent {
			tp.markLost(p, "RACK, sent again")
		}
	}
}

// markLost finds the span at p lost.
func (tp *TCB) markLost(p place, reason string) {
	s := tp.snr
	sp := s.sb.at(p)
	n := sp.len()
	s.sb.mark(p)
	s.lostFrom = s.lostFrom.Min(sp.start)
	if sp.has(spanProbe) {
		tp.probeLost()
	} else {
		// RFC 4821, 7.6.1: the loss of a probe of the path's MTU alone "SHOULD NOT be treated as an
		// indication of congestion".
		s.ack.Lost += n
		s.rate.lost += uint64(n)
	}
	tp.traceLost(sp.start, n, reason)
}

// reorderTimeout looks again when the reordering window has passed: RFC 8985, 6.3.
func (tp *TCB) reorderTimeout(now int64) {
	s := tp.snr
	s.ack = Ack{}
	s.view.PriorFlight = tp.pipe()
	tp.detectLoss(now)
	if s.ack.Lost == 0 {
		return
	}
	tp.lossFound(now)
	tp.control(now, false)
}
