package tcp

import "syscall"

// What follows asks a peer that has closed its window whether it has opened it again: RFC 9293,
// 3.8.6.1; BSD's persist timer. A lost window update would otherwise stop the connection forever:
// the peer waits for data, and we for a window.
//
// The probes have no counter of their own. Like BSD's t_rxtshift, backoff counts retransmissions
// while the retransmission timer is on, and probes while the persist timer is; never are both on.

// maxPersistShift is the largest shift of the interval between probes, so that it does not
// overflow.
const maxPersistShift = 12

// persistInterval returns the time until the next probe, after as many as have been sent and with a
// time-out of rto. RFC 9293, 3.8.6.1: "The transmitting host SHOULD send the first zero-window
// probe when a zero window has existed for the retransmission timeout period (SHLD-29) (Section
// 3.8.1), and SHOULD increase exponentially the interval between successive probes (SHLD-30)."
func (p *Profile) persistInterval(rto int64, sent uint8) int64 {
	return min(max(rto<<min(sent, maxPersistShift), p.PersMin), p.PersMax)
}

// persistSilence is for how long a peer may leave probes unanswered: BSD's product of the time-out
// and tcp_totbackoff, or the time of ten probes if that is longer, as a short round trip says
// nothing about how long a peer may be away.
func (p *Profile) persistSilence(rto int64) int64 {
	const totbackoff = 511 // 1 + 2 + 4 + ... + 256
	return max(rto*totbackoff, 10*p.PersMax)
}

// setpersist arms the timer for the next window probe: BSD's tcp_setpersist.
func (tp *TCB) setpersist(now int64) {
	if tp.on(tRexmt) {
		return // what is in flight is sent again, and asks as well
	}
	tp.unackedSince = or(tp.unackedSince, now)
	tp.set(tPersist, now+tp.prof.persistInterval(tp.rto(), tp.backoff))
	if int(tp.backoff) < tp.prof.MaxRxtShift {
		tp.backoff++
	}
}

// persistTimeout sends a window probe.
func (tp *TCB) persistTimeout(now int64) {
	tp.stats.Persisttimeo.Inc()
	silent := now - tp.rcvTime
	// RFC 9293, 3.8.6.1: "As long as the receiving TCP peer continues to send acknowledgments in
	// response to the probe segments, the sending TCP peer MUST allow the connection to stay open
	// (MUST-37)." So only silence ends it.
	if int(tp.backoff) >= tp.prof.MaxRxtShift && silent >= tp.persistLimit() {
		tp.stats.Persistdrop.Inc()
		tp.Drop(tp.timedOut(), now)
		return
	}
	// "The behavior is subject to the implementation's resource management concerns": a connection
	// that its user has closed, and whose peer keeps its window shut, must not live forever
	// (CVE-2008-4609).
	if tp.flags&UserClosed != 0 && silent >= tp.prof.PersMax {
		tp.stats.Persistdrop.Inc()
		tp.Drop(syscall.ETIMEDOUT, now)
		return
	}
	tp.setpersist(now)
	tp.flags |= force
	tp.stats.Sndprobe.Inc()
	tp.Output(now)
	tp.flags &^= force
}

// persistLimit is for how long the peer may leave probes unanswered.
func (tp *TCB) persistLimit() int64 { return tp.prof.persistSilence(tp.rto()) }
