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
	tp.rtt.backOff(tp.backoff, tp.prof)
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

// timedOut is the errno of a connection that has timed out: the last soft error says more than the
// time (RFC 9293, MUST-47).
func (tp *TCB) timedOut() syscall.Errno {
	if tp.softerr != 0 {
		return tp.softerror()
	}
	return syscall.ETIMEDOUT
}
