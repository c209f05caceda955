package tcp

// undo remembers what is needed to find out that a reduction of the window was wrong, as what was
// sent again had not been lost: by timestamps (Eifel, RFC 3522) or by the peer's reports of
// duplicates (RFC 3708).
type undo struct {
	on      bool
	sent    bool   // something has been sent again since
	marker  Seq    // sndUna when the window was reduced
	pending int    // bytes that have been sent again and not been reported as duplicates
	stamp   uint32 // timestamp of the first retransmission
}

// none forgets the last reduction.
func (u *undo) none(una Seq) { *u = undo{marker: una} }

// begin notes a reduction. again is what has been sent again already and may be reported as a
// duplicate.
func (u *undo) begin(una Seq, again int) {
	stamped, stamp := u.sent && again > 0, u.stamp
	*u = undo{on: true, marker: una, pending: again, sent: stamped, stamp: stamp}
}

// resent notes the retransmission of n bytes.
func (u *undo) resent(n int, ts uint32) {
	if !u.sent {
		u.sent, u.stamp = true, ts
	}
	u.pending += n
}

// duplicate notes that the peer has had [l, r) twice.
func (u *undo) duplicate(l, r Seq) {
	if u.on && l.Geq(u.marker) {
		u.pending -= r.Sub(l)
	}
}

// original reports whether an acknowledgment that has moved the left edge answers the original and
// not what was sent again (RFC 3522, 3.2, step 4: "the value of the Timestamp Echo Reply field of
// the acceptable ACK's Timestamps option is smaller than the value of RetransmitTS").
func (tp *TCB) original(seg *segment) bool {
	u := &tp.snr.undo
	return u.on && u.sent && tp.echoBefore(seg, u.stamp)
}

// duplicated reports whether all that was sent again since the reduction has been reported as a
// duplicate.
func (u *undo) duplicated() bool { return u.on && u.sent && u.pending <= 0 }

// revert takes the last reduction back: nothing had been lost.
func (tp *TCB) revert(evidence string, now int64) {
	s := tp.snr
	tp.unmarkAll()
	reduced := s.undo.on
	s.undo.none(tp.sndUna)
	if reduced {
		tp.lookNow(now)
		s.cc.Undo(&s.view, &s.ctl)
	}
	tp.stats.Sndundo.Inc()
	tp.traceUndo(evidence)
}

// unmarkAll takes back what has been marked lost and never been sent again. A retransmission that
// was found lost stays so: it may be lost even if the original was not.
func (tp *TCB) unmarkAll() {
	s := tp.snr
	s.lostFrom = tp.sndNxt
	for from := tp.sndUna; s.sb.lost > 0; {
		p, ok := s.sb.nextLost(from)
		if !ok {
			break
		}
		sp := s.sb.at(p)
		from = sp.end
		if sp.has(spanRexmitted) {
			s.lostFrom = s.lostFrom.Min(sp.start)
		} else {
			s.sb.unmark(p)
		}
	}
	s.rack.next = tp.sndUna
}
