package tcp

import "fmt"

// checkSender returns an error if what the sender keeps besides its scoreboard does not fit it:
// Check's part for a connection that has one.
func (tp *TCB) checkSender() error {
	s := tp.snr
	if s == nil {
		return nil
	}
	inflight := tp.sndNxt.Sub(tp.sndUna)
	switch {
	case s.ctl.Cwnd < tp.effMSS() || s.ctl.Ssthresh <= 0 || s.ctl.Rate < 0:
		return fmt.Errorf("window %d, threshold %d, rate %d", s.ctl.Cwnd, s.ctl.Ssthresh, s.ctl.Rate)
	case s.state > Timeout || s.state <= Disorder && s.high.Gt(tp.sndMax) || s.high.Sub(tp.sndMax) > 0:
		return fmt.Errorf("%s up to +%d", s.state, s.high.Sub(tp.sndUna))
	case s.dups < 0 || s.dupBytes < 0 || s.dupBytes > max(inflight, 0) && s.dupBytes > 0 || s.told < 0:
		return fmt.Errorf("duplicates: %d, %d bytes, %d told of", s.dups, s.dupBytes, s.told)
	case tp.flags&SackPermit != 0 && s.dups+s.dupBytes+s.told != 0:
		return fmt.Errorf("%d duplicates from a peer with SACK", s.dups)
	case (s.state == CWR || s.state == Recovering) && s.prr.flight <= 0:
		return fmt.Errorf("a reduction of a flight of %d", s.prr.flight)
	case tp.maxseg > s.pmtu.full || s.pmtu.said > s.pmtu.full:
		return fmt.Errorf("segments of %d, ICMP says %d, the path allows %d", tp.maxseg, s.pmtu.said, s.pmtu.full)
	case s.tlp.on && s.tlp.end.Gt(tp.sndMax):
		return fmt.Errorf("a probe up to +%d", s.tlp.end.Sub(tp.sndUna))
	}
	if err := tp.checkRack(); err != nil {
		return err
	}
	if s.sb.empty() || tp.on(tPersist) {
		return nil
	}
	if s.rtoAt == never || tp.timers[tRexmt] > min(s.rtoAt, s.reoAt, s.ptoAt) {
		return fmt.Errorf("the timer is set for %d; RTO %d, RACK %d, TLP %d", tp.timers[tRexmt], s.rtoAt, s.reoAt,
			s.ptoAt)
	}
	return nil
}

// checkRack returns an error if something in flight would never be judged: what was sent once lies
// behind RACK's mark, and what was sent again is in its queue.
func (tp *TCB) checkRack() error {
	s := tp.snr
	r := &s.rack
	if r.head > len(r.queue) || len(r.queue) > 64+2*maxSpans {
		return fmt.Errorf("RACK's queue: %d of %d", r.head, len(r.queue))
	}
	for i := r.head + 1; i < len(r.queue); i++ {
		if r.queue[i].sent < r.queue[i-1].sent {
			return fmt.Errorf("RACK's queue is out of order")
		}
	}
	if tp.flags&SackPermit == 0 {
		return nil
	}
	for _, b := range s.sb.blocks {
		for i := b.lo; i < b.hi; i++ {
			sp := &b.spans[i]
			if !sp.inFlight() {
				continue
			}
			if !sp.has(spanRexmitted) && sp.end.Leq(r.next) || sp.has(spanRexmitted) && !r.queued(sp) {
				return fmt.Errorf("RACK overlooks +%d:+%d", sp.start.Sub(tp.sndUna), sp.end.Sub(tp.sndUna))
			}
		}
	}
	return nil
}

// queued reports whether a span that was sent again is in the queue.
func (r *rack) queued(sp *span) bool {
	for _, q := range r.queue[r.head:] {
		if q.sent == sp.sent && q.start.Leq(sp.start) && q.end.Geq(sp.end) {
			return true
		}
	}
	return false
}
