package tcp

import (
	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// A sender is the sending half of a connection over a path that can lose, beyond what 4.4BSD has
// for it: the scoreboard, what recovery is at, and the congestion controller. It is made when the
// first data is sent. A connection over the loopback of its own stack has none, as nothing is lost
// there. The profiles FreeBSD and Net3 have none either: input_ack.go counts the duplicate
// acknowledgments of RFC 5681 and RFC 6582 for them.
type sender struct {
	sb   scoreboard
	cc   CC
	view View
	ack  Ack // what the acknowledgment in hand has brought
	ctl  Control

	rack  rack
	tlp   tlp
	prr   prr
	undo  undo
	rate  rateState
	pacer pacer
	pmtu  pmtu

	state     Recovery
	frto      bool // the time-out may have been spurious (RFC 5682)
	limited   bool // the window has held back data since the last acknowledgment
	starved   bool // there was nothing more to send
	ended     bool // the acknowledgment in hand has ended a reduction of the window
	delayed   int  // bytes that this acknowledgment has delivered: the window grows by them with the next
	force     bool // the next retransmission goes whatever the window says
	high      Seq  // sndNxt when the state was entered: it ends when all before has been acknowledged
	lostFrom  Seq  // no lost span lies before
	dups      int  // duplicate acknowledgments in a row, from a peer without SACK
	dupBytes  int  // bytes that they stand for, and are not in the network
	told      int  // bytes that they have told of, and are still to be acknowledged
	maxFlight int  // the largest flight of this round trip
	roundEnd  Seq  // where this round trip ends
	peak      peak
	lastSent  int64
	rtoAt     int64 // when the retransmission timer fires
	reoAt     int64 // when RACK looks again at what may only be late
	ptoAt     int64 // when the tail is probed
	lastNews  int64 // when something was last acknowledged
	minRTTAt  int64 // when the least round trip was measured
	idleAt    int64 // since when nothing has been in flight
	// until the next acknowledgment new data is sent, and not what is lost, to find out whether the
	// time-out was spurious
	newFirst  bool
	dupped    uint64 // bytes that the peer has reported as duplicates
	chrono    chrono
	rexmitted uint64 // bytes
	charge    int    // bytes that the pool counts for the scoreboard
	dsacks    int
	ccName    string

	toldCwnd, toldSsthresh int // what a tracer has been told last
}

// A peak is the most that was in flight lately: RFC 7661, 4.2, which measures pipeACK over three
// round trips, or over a second if that is longer.
type peak struct {
	now, before int   // the most since at, and in the period before
	at          int64 // when this period began
}

// add takes the bytes in flight into account.
func (p *peak) add(flight int, now, period int64) {
	if now-p.at >= period {
		if p.before = p.now; now-p.at >= 2*period {
			p.before = 0
		}
		p.now, p.at = 0, now
	}
	p.now = max(p.now, flight)
}

// Recovery is the state of a sender's loss recovery: Linux's tcp_ca_state.
type Recovery uint8

// The states of loss recovery.
const (
	Open     Recovery = iota // nothing out of the ordinary
	Disorder                 // segments have arrived behind a hole, and nothing has been found lost yet
	// the window is being reduced for a congestion mark, or for a loss that a probe has repaired
	CWR
	Recovering // lost segments are sent again
	Timeout    // the retransmission timer has fired
)

var recoveryNames = [...]string{"Open", "Disorder", "CWR", "Recovery", "Loss"}

// String returns the state's name in Linux's spelling.
func (r Recovery) String() string { return recoveryNames[r] }

var senders mbuf.Zone[sender]

// needSender makes the sender when data is about to be sent on a path that can lose.
func (tp *TCB) needSender(now int64) {
	if tp.snr != nil || !tp.prof.Scoreboard || tp.flags&local != 0 {
		return
	}
	if !tp.state.HaveEstablished() || tp.sndNxt != tp.sndUna {
		return // what is in flight already would not be on the scoreboard
	}
	s := senders.Alloc()
	sb := s.sb
	*s = sender{sb: sb, rtoAt: never, reoAt: never, ptoAt: never}
	s.ccName = tp.CC()
	s.cc = NewCC(s.ccName)
	s.rack.mult = 1
	s.rack.next, s.rack.fack, s.rack.end, s.tlp.end = tp.sndUna, tp.sndUna, tp.sndUna, tp.sndUna
	s.pmtu.full = tp.maxseg
	s.minRTTAt = now // if there is one, it is the handshake's
	s.high, s.lostFrom, s.roundEnd = tp.sndUna, tp.sndUna, tp.sndUna
	s.undo.none(tp.sndUna)
	s.ctl.Ssthresh = maxWin << maxScale
	tp.snr = s
	tp.lookNow(now)
	s.cc.Init(&s.view, &s.ctl)
	if tp.flags&synRexmitted != 0 {
		// RFC 5681, 3.1: "If the SYN or SYN/ACK is lost, the initial window used by a sender after
		// a correctly transmitted SYN MUST be one segment consisting of at most SMSS bytes."
		s.ctl.Cwnd = s.view.MSS
	}
}

// freeSender gives the sender back when the connection is over.
func (tp *TCB) freeSender() {
	if s := tp.snr; s != nil {
		tp.snr = nil
		s.sb.flush()
		tp.pool.Charge(-s.charge)
		freeCC(s.cc)
		s.cc = nil
		senders.Free(s)
	}
}

// lookNow brings what the congestion controller sees up to date.
func (tp *TCB) lookNow(now int64) {
	s := tp.snr
	v := &s.view
	v.Now = now
	v.MSS = tp.effMSS()
	v.InitialWindow = int(tp.initialWindow())
	v.SRTT = tp.rtt.srtt
	v.MinRTT = 0
	if tp.rtt.min != never {
		v.MinRTT = tp.rtt.min
	}
	v.Acked = tp.bytesSent
	v.Sent = tp.bytesSent + uint64(tp.sndNxt.Sub(tp.sndUna))
	v.Flight = tp.pipe()
	v.InRecovery = s.state == Recovering || s.state == CWR
	v.AppLimited = s.starved
	// RFC 7661: a window that has not been used says nothing about the path, and does not grow. In
	// slow start half of it in use is enough, as it is about to be doubled.
	v.CwndLimited = s.limited || s.ctl.Cwnd < s.ctl.Ssthresh && s.ctl.Cwnd < 2*s.maxFlight
}

// pipe is what is in the network: RFC 6675's estimate, from the marks on the scoreboard.
func (tp *TCB) pipe() int {
	s := tp.snr
	return max(tp.sndNxt.Sub(tp.sndUna)-s.sb.sacked-s.sb.lost-s.dupBytes, 0)
}

// cwndEdge returns how far from sndUna the congestion window lets new data go; next is where new
// data begins.
func (tp *TCB) cwndEdge(next int) int {
	s := tp.snr
	if s == nil {
		return int(tp.sndCwnd)
	}
	return next + max(s.ctl.Cwnd-tp.pipe(), 0)
}

// sentSpan enters what has just been sent in the scoreboard.
func (tp *TCB) sentSpan(o *outseg, start Seq, space int, now int64) {
	s := tp.snr
	s.idleAt = 0
	if s.sb.empty() {
		// RFC 6298, 5.1: "Every time a packet containing data is sent (including a retransmission),
		// if the timer is not running, start it running". What a flight measures begins anew as
		// well.
		s.pacer.begin(now, tp.effMSS())
		s.rate.restart(now)
		s.rtoAt = now + tp.rtt.rxtcur
		s.maxFlight, s.roundEnd = 0, start.Add(space)
	}
	s.pacer.sent(now, o.len, s.pacer.credit(tp.rtt.srtt, tp.effMSS()))
	s.prr.out += space
	sp := span{start: start, end: start.Add(space), sent: now, times: 1, seg: uint16(min(o.seglen, maxWin))}
	if start.Lt(tp.sndMax) {
		// After a closed window all is sent again from sndUna, as if it were new: see startOver. It
		// may have arrived before, so its acknowledgment measures no round trip.
		sp.flags |= spanRexmitted
		sp.times = 2
		s.rexmitted += uint64(min(space, tp.sndMax.Sub(start)))
		if tp.flags&SackPermit != 0 {
			s.rack.resent(sp.start, sp.end, now)
		}
	}
	if o.probe {
		sp.flags |= spanProbe
		s.pmtu.probing = true
	}
	flight := tp.pipe() // with it, as sndNxt has moved
	sp.flight = uint32(flight)
	s.rate.stamp(&sp)
	s.maxFlight = max(s.maxFlight, flight)
	s.peak.add(flight, now, max(3*tp.rtt.srtt, sec))
	s.lastSent = now
	if s.sb.full(tp.sndNxt.Sub(tp.sndUna)) {
		// Spans are bounded. What no longer gets one of its own is joined to the last, and is
		// judged together with it.
		if l := s.sb.last(); l.inFlight() {
			l.end, l.sent = sp.end, now
			if l.has(spanRexmitted) {
				s.sb.again += space
			}
			return
		}
	}
	s.sb.push(sp)
}

// resent notes that o, with n numbers, has been sent again: the beginning of the first lost span,
// or the probe of the tail.
func (tp *TCB) resent(o *outseg, n int, now int64) {
	s := tp.snr
	start := tp.sndUna.Add(o.off)
	end := start.Add(n)
	p := s.sb.find(start)
	if s.sb.at(p).start != start {
		_, p = s.sb.split(p, start)
	}
	first := p == s.sb.first()
	for s.sb.valid(p) && s.sb.at(p).start.Lt(end) {
		if s.sb.at(p).end.Gt(end) {
			p, _ = s.sb.split(p, end)
		}
		s.sb.unmark(p)
		sp := s.sb.at(p)
		if !sp.has(spanRexmitted) {
			s.sb.again += sp.len()
		}
		sp.flags = sp.flags&^spanProbe | spanRexmitted
		sp.times = min(sp.times+1, 255)
		sp.sent = now
		sp.seg = uint16(min(o.seglen, maxWin))
		s.rate.stamp(sp)
		sp.flight = uint32(tp.pipe())
		p = s.sb.next(p)
	}
	if tp.flags&SackPermit != 0 {
		s.rack.resent(start, end, now)
	}
	s.rexmitted += uint64(n)
	s.undo.resent(n, tp.ts(now))
	s.prr.out += n
	s.pacer.sent(now, o.len, s.pacer.credit(tp.rtt.srtt, tp.effMSS()))
	s.force = false
	s.lastSent = now
	if first {
		// RFC 6298, 5.5 and 5.6: a retransmission of the earliest data starts the timer anew.
		s.rtoAt = now + tp.rtt.rxtcur
	}
}

// planRexmit decides whether something lost is to be sent again now, and what: RFC 6675, 5, (C).
func (tp *TCB) planRexmit(o *outseg, now int64) bool {
	s := tp.snr
	if s.sb.lost == 0 || s.newFirst || tp.on(tPersist) {
		return false
	}
	p, ok := s.sb.nextLost(s.lostFrom)
	if !ok {
		return false
	}
	sp := s.sb.at(p)
	o.lostFrom = sp.start
	o.wants |= wantLostFrom
	off := sp.start.Sub(tp.sndUna)
	mss := tp.effMSS() - tp.sackOptLen()
	most := max(int(tp.tsomax), mss)
	// RFC 9293, SHLD-17: what lies beyond a window that has shrunk waits until it is open again.
	n := min(s.sb.lostRun(p, most+1), max(int(tp.sndWnd)-off, 0))
	if n == 0 || !tp.sock.Room() {
		if n > 0 {
			o.wants |= wantBlocked
		}
		return false
	}
	room := s.ctl.Cwnd - tp.pipe()
	if s.force {
		// RFC 6675, 5, (4.3), has the first segment that is presumed lost sent whatever the window
		// says: by that the network holds one segment less.
		room = max(room, mss)
	}
	if room < min(n, mss) {
		o.wants |= wantLimited
		return false
	}
	fin := max(off+n-tp.snd.Cc(), 0) // the FIN's number takes no room in a segment
	n -= fin
	quantum := s.pacer.allow(now, mss)
	if quantum == 0 {
		o.wants |= wantHeld
		if !s.force {
			return false
		}
	}
	if n = min(n, max(quantum, mss), max(room, mss), most); n > mss {
		n -= n % mss
	}
	if off+n == tp.snd.Cc() {
		n += fin
	}
	tp.fillRexmit(o, off, n)
	o.reason = recoveryNames[s.state]
	return true
}

// fillRexmit makes o the n numbers at off, from sndUna, that have been sent before. The last of
// them may be the FIN's.
func (tp *TCB) fillRexmit(o *outseg, off, n int) {
	o.rexmit = true
	o.off, o.len = off, n
	o.flags = outflags[tp.state] &^ wire.FIN
	if over := off + n - tp.snd.Cc(); over > 0 {
		o.len -= over
		o.flags |= wire.FIN
	}
	o.recwin = tp.recwin()
	o.more = true
}

// armSender sets the one timer of recovery to the earliest of its three.
func (tp *TCB) armSender() {
	s := tp.snr
	if tp.on(tPersist) {
		return
	}
	if tp.sndMax == tp.sndUna {
		// RFC 6298, 5.2: "When all outstanding data has been acknowledged, turn off the
		// retransmission timer."
		s.rtoAt, s.reoAt, s.ptoAt = never, never, never
		tp.stop(tRexmt)
		return
	}
	tp.set(tRexmt, min(s.rtoAt, s.reoAt, s.ptoAt))
}

// senderTimeout does what is due of RACK's timer, the tail's probe and the retransmission time-out.
func (tp *TCB) senderTimeout(now int64) {
	s := tp.snr
	// If several are due, as after a process was stopped, the gentlest goes first: what it finds
	// lost or sends may make the others unnecessary.
	switch {
	case s.reoAt <= now:
		tp.reorderTimeout(now)
	case s.ptoAt <= now:
		tp.probeTimeout(now)
	case s.rtoAt <= now:
		tp.lossTimeout(now)
		return
	}
	tp.Output(now)
}

// beforeOutput makes the sender when there is data for it, and tells the congestion controller when
// it begins again after a pause.
func (tp *TCB) beforeOutput(now int64) {
	if tp.snr == nil {
		if tp.snd.Cc() > 0 {
			tp.needSender(now)
		}
		if tp.snr == nil && tp.sndMax == tp.sndUna && now-tp.rcvTime >= tp.rtt.rxtcur {
			tp.renoAfterIdle()
		}
		return
	}
	s := tp.snr
	if s.sb.empty() && s.idleAt != 0 && tp.snd.Cc() > 0 {
		tp.lookNow(now)
		s.cc.Restart(&s.view, now-s.idleAt, &s.ctl)
		s.idleAt = 0
		s.pacer.setRate(&s.ctl, tp.rtt.srtt, tp.sndNxt.Sub(tp.sndUna))
	}
}

// paced returns how many of n bytes of new data may be sent now: as many as pacing lets out, or, if
// a probe of the path's MTU is due, the size of that.
func (tp *TCB) paced(o *outseg, n int, now int64) int {
	s := tp.snr
	if now < s.pacer.next && s.pacer.rate != 0 {
		o.wants |= wantHeld
		return 0
	}
	if size, ok := tp.wantProbe(o, n, now); ok {
		o.probe, o.more = true, n > size
		return size
	}
	return n
}

// chainMax is the most that may travel in one chain: what the interface takes, or a train of the
// pacer's.
func (tp *TCB) chainMax(seg int) int {
	limit := max(int(tp.tsomax), seg)
	if s := tp.snr; s != nil && s.pacer.rate != 0 {
		limit = min(limit, max(s.pacer.train(seg), seg))
	}
	return limit
}

// lookAround is called at the end of Output: it takes note of why nothing more has been sent, and
// sets the timers.
func (tp *TCB) lookAround(now int64) {
	s := tp.snr
	if n := s.sb.size(); n != s.charge {
		tp.pool.Charge(n - s.charge)
		s.charge = n
	}
	inflight := tp.sndNxt.Sub(tp.sndUna)
	unsent := tp.snd.Cc() - inflight
	// What has not been sent for want of data, and not of a window, says nothing about the path:
	// neither the window (RFC 7661) nor the measured rate may follow it.
	s.starved = unsent < tp.effMSS() && s.sb.lost == 0 && s.ctl.Cwnd-tp.pipe() >= tp.effMSS()
	if s.starved {
		s.rate.appLimited(tp.pipe())
	}
	s.limited = s.limited || unsent > 0 && s.ctl.Cwnd-tp.pipe() < tp.effMSS()
	if s.sb.empty() && s.idleAt == 0 {
		s.idleAt = now
	}
	s.chrono.tick(now, tp.busyWith(inflight, unsent))
	if s.pacer.held {
		s.pacer.held = false
		tp.set(tPace, s.pacer.next)
	} else {
		tp.stop(tPace)
	}
	tp.armProbe()
	tp.armSender()
}
