package tcp

import "syscall"

// Timeout does what is due at now: 4.4BSD's tcp_timers. It may be called early.
func (tp *TCB) Timeout(now int64) {
	tp.onwards(now)
	if tp.MaxUnack > 0 && now >= tp.userDeadline() {
		tp.stats.Timeoutdrop.Inc()
		tp.Drop(tp.timedOut(), now)
		return
	}
	for i := range tp.timers {
		if tp.timers[i] > now || tp.state == Closed {
			continue
		}
		tp.stop(i)
		tp.trace(Event{Kind: EvTimer, Name: timerNames[i]})
		switch i {
		case tDelack:
			tp.stats.Delack.Inc()
			tp.flags |= AckNow
			tp.Output(now)
		case tRexmt:
			if tp.snr != nil {
				tp.senderTimeout(now)
			} else {
				tp.rexmtTimeout(now)
			}
		case tPace:
			tp.Output(now)
		case tPersist:
			tp.persistTimeout(now)
		case tKeep:
			tp.keepTimeout(now)
		case t2MSL:
			if tp.state == FinWait2 {
				tp.close() // after a full close (RFC 9293 lets it wait; nobody else does)
			} else {
				tp.stats.Timeoutdrop.Inc()
				tp.Drop(tp.timedOut(), now) // an orphan that makes no progress
			}
		}
	}
}

// userDeadline is when the user time-out ends the connection: RFC 5482, 1: "the time that
// transmitted data may remain unacknowledged before a connection is forcefully closed". As for
// Linux's TCP_USER_TIMEOUT, data that a closed window holds back counts too.
func (tp *TCB) userDeadline() int64 {
	if !tp.prof.UserTimeout || tp.unackedSince == 0 || tp.state == Closed {
		return never
	}
	return tp.unackedSince + int64(tp.MaxUnack)*sec
}

// waiting reports whether an attempt to connect goes on for as long as its user wants: over the
// loopback a SYN that is not answered has not been lost, but waits for a place at its listener. The
// dialer's deadline and the listener's close end that, and TCP_KEEPINIT where it is set.
func (tp *TCB) waiting() bool { return tp.state == SynSent && tp.flags&local != 0 }

// maxBackoff is the largest shift of the time-out, the end of tcp_backoff: a connection with short
// round trips must not give up in less than 100 s (RFC 9293, SHLD-11).
const maxBackoff = 9

// backOff doubles the time-out, or gives the connection up, if it has been in vain for too long. It
// reports whether to go on.
func (tp *TCB) backOff(now int64) bool {
	if tp.sndWnd == 0 && tp.flags&UserClosed == 0 && tp.state.HaveEstablished() && now-tp.rcvTime < tp.persistLimit() {
		// RFC 9293, MUST-37: "As long as the receiving TCP peer continues to send acknowledgments
		// in response to the probe segments, the sending TCP implementation MUST allow the
		// connection to stay open". A peer may close its window over what is in flight, a FIN
		// included.
		tp.backoff = min(tp.backoff, uint8(tp.prof.MaxRxtShift)-1)
	}
	if int(tp.backoff) >= tp.prof.MaxRxtShift || tp.MaxUnack > 0 && now-tp.unackedSince >= int64(tp.MaxUnack)*sec {
		tp.stats.Timeoutdrop.Inc()
		tp.Drop(tp.timedOut(), now)
		return false
	}
	tp.backoff++
	tp.stats.Rexmttimeo.Inc()
	tp.rxtcur = tp.rangeset(tp.rexmtval() << min(tp.backoff, maxBackoff))
	return true
}

// rexmtTimeout sends again from sndUna, with the time-out doubled: RFC 6298, 5.4 to 5.7; RFC 5681,
// 3.1.
func (tp *TCB) rexmtTimeout(now int64) {
	if tp.waiting() {
		tp.backoff = min(tp.backoff, uint8(tp.prof.MaxRxtShift)-1)
	}
	if !tp.backOff(now) {
		return
	}
	if tp.state == SynSent && !tp.waiting() && tp.prof.DropOptions && tp.backoff == 3 {
		tp.flags &^= ReqScale | ReqTstmp | SackPermit
	}
	if tp.state == SynReceived && tp.flags&ecnOn != 0 && int(tp.backoff) > tp.prof.ECNRetries {
		tp.flags &^= ecnOn
	}
	tp.flags &^= rttTimed | fastRecov // Karn: what is sent again is not timed
	tp.sndRecover = tp.sndMax
	tp.flags |= AckNow
	if tp.state.HaveEstablished() {
		tp.renoCongested(RTO, int(min(tp.sndWnd, tp.sndCwnd)))
	}
	tp.sndNxt = tp.sndUna
	tp.dupacks = 0
	tp.Output(now)
}

// persistTimeout sends a window probe. It gives up only where the peer has been silent for long
// (RFC 9293, MUST-37: "as long as the receiving TCP peer continues to send acknowledgments").
func (tp *TCB) persistTimeout(now int64) {
	tp.stats.Persisttimeo.Inc()
	if int(tp.backoff) >= tp.prof.MaxRxtShift {
		idle := now - tp.rcvTime
		if idle >= tp.persistLimit() {
			tp.stats.Persistdrop.Inc()
			tp.Drop(tp.timedOut(), now)
			return
		}
	}
	// A closed connection whose peer keeps its window shut must not live for ever (CVE-2008-4609).
	if tp.flags&UserClosed != 0 && now-tp.rcvTime >= tp.prof.PersMax {
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

// persistLimit is how long a peer may leave probes unanswered: BSD's product of the time-out and
// tcp_totbackoff, at least the sum of the probes.
func (tp *TCB) persistLimit() int64 {
	return max(tp.rto()*511, 10*tp.prof.PersMax)
}

// keepTimeout ends a connection that cannot be set up, and probes one that is idle (RFC 9293,
// 3.8.4).
func (tp *TCB) keepTimeout(now int64) {
	tp.stats.Keeptimeo.Inc()
	if !tp.state.HaveEstablished() {
		tp.stats.Keepdrops.Inc()
		tp.Drop(tp.timedOut(), now)
		return
	}
	if tp.flags&Keepalive == 0 || !tp.probed() {
		return
	}
	idle := now - tp.rcvTime
	if idle < tp.keepidle() {
		tp.set(tKeep, tp.rcvTime+tp.keepidle())
		return
	}
	if tp.keepOver(idle) { // counted, as probing may have begun late in the silence (RFC 9293, MUST-29)
		tp.stats.Keepdrops.Inc()
		tp.Drop(tp.timedOut(), now)
		return
	}
	tp.keepprobes++
	// An acceptable segment would draw no answer: so the number before the window (RFC 9293,
	// MUST-28 and MAY-6: no data).
	tp.stats.Keepprobe.Inc()
	tp.respond(tp.sndUna-1, now)
	tp.set(tKeep, now+tp.keepintvl())
}

// keepOver reports whether enough probes of a peer that has been idle for a time have been in vain.
// The user time-out counts time instead (tcp(7) of Linux: it "will override keepalive to determine
// when to close a connection due to keepalive failure").
func (tp *TCB) keepOver(idle int64) bool {
	if tp.MaxUnack > 0 && tp.prof.UserTimeout {
		return tp.keepprobes > 0 && idle >= int64(tp.MaxUnack)*sec
	}
	return int(tp.keepprobes) >= tp.maxkeep()
}

// probed reports whether keep-alive watches over the connection in its state. In FIN_WAIT_2 nothing
// is left to be acknowledged, so without it a reader would wait for ever for a peer that has
// vanished; a connection that its user has closed has a timer of its own there.
func (tp *TCB) probed() bool {
	if tp.state == FinWait2 {
		return tp.prof.KeepHalfClosed && tp.flags&UserClosed == 0
	}
	return tp.state.HaveEstablished() && tp.state <= Closing
}

// KeepaliveOn starts or stops probing, for SO_KEEPALIVE and the options that set its times.
func (tp *TCB) KeepaliveOn(on bool, now int64) {
	if !on {
		tp.flags &^= Keepalive
		if tp.state.HaveEstablished() {
			tp.stop(tKeep)
		}
		return
	}
	tp.flags |= Keepalive
	tp.keepprobes = 0
	if tp.probed() {
		tp.set(tKeep, max(tp.rcvTime+tp.keepidle(), now))
	}
}

// touchKeep notes that a segment has come in. The timer is only set where it is off: it looks at
// rcvTime when it fires, so that a busy connection does not move it for each segment.
func (tp *TCB) touchKeep(now int64) {
	tp.rcvTime = now
	tp.keepprobes = 0
	if tp.flags&Keepalive != 0 && tp.probed() && !tp.on(tKeep) {
		tp.set(tKeep, now+tp.keepidle())
	}
}

// timedOut is the errno of a connection that has timed out: the last soft error says more than the
// time (RFC 9293, MUST-47).
func (tp *TCB) timedOut() syscall.Errno {
	if tp.softerr != 0 {
		return tp.softerror()
	}
	return syscall.ETIMEDOUT
}
