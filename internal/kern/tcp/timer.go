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
				// After a full close. RFC 9293 lets it wait for the peer's FIN; no stack in use
				// does, as a peer that has vanished would hold it forever.
				tp.close()
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

// backOff doubles the time-out, or gives the connection up, if it has been in vain for too long. It
// reports whether to go on.
func (tp *TCB) backOff(now int64) bool {
	if tp.sndWnd == 0 && tp.answersProbes(now) {
		// RFC 9293, 3.8.6.1: "As long as the receiving TCP peer continues to send acknowledgments
		// in response to the probe segments, the sending TCP peer MUST allow the connection to stay
		// open (MUST-37)." A peer may close its window over what is in flight, a FIN included;
		// 3.8.6: the sender "SHOULD NOT time out the connection if data beyond the right window
		// edge is not acknowledged (SHLD-17)".
		tp.holdBackoff()
	}
	tooOften := int(tp.backoff) >= tp.prof.MaxRxtShift
	tooLong := tp.MaxUnack > 0 && now-tp.unackedSince >= int64(tp.MaxUnack)*sec
	if tooOften || tooLong {
		// RFC 9293, 3.8.3: "When the number of transmissions of the same segment reaches a
		// threshold R2 greater than R1, close the connection."
		tp.stats.Timeoutdrop.Inc()
		tp.Drop(tp.timedOut(), now)
		return false
	}
	// RFC 6298, 5.5: "The host MUST set RTO <- RTO * 2 ("back off the timer")."
	tp.backoff++
	tp.stats.Rexmttimeo.Inc()
	tp.rtt.backOff(tp.backoff, tp.prof)
	return true
}

// answersProbes reports whether the peer has not been silent for longer than a closed window may be
// left without an answer, and there is still a user to wait for it.
func (tp *TCB) answersProbes(now int64) bool {
	return tp.flags&UserClosed == 0 && tp.state.HaveEstablished() && now-tp.rcvTime < tp.persistLimit()
}

// holdBackoff lets the time-out grow no further, nor end the connection.
func (tp *TCB) holdBackoff() { tp.backoff = min(tp.backoff, uint8(tp.prof.MaxRxtShift)-1) }

// rexmtTimeout sends again from sndUna, with the time-out doubled: RFC 6298, 5.4 to 5.7; RFC 5681,
// 3.1. Connections with a scoreboard have lossTimeout instead.
func (tp *TCB) rexmtTimeout(now int64) {
	if tp.waiting() {
		tp.holdBackoff()
	}
	if !tp.backOff(now) {
		return
	}
	if tp.state == SynSent && !tp.waiting() && tp.prof.DropOptions && tp.backoff == 3 {
		// There have been devices that drop a SYN with options that they do not know: FreeBSD's
		// net.inet.tcp.rexmit_drop_options.
		tp.flags &^= ReqScale | ReqTstmp | SackPermit
	}
	if tp.state == SynReceived && int(tp.backoff) > tp.prof.ECNRetries {
		tp.flags &^= ecnOn // and devices that drop SYNs with ECN's flags
	}
	// RFC 6298, 3: "RTT samples MUST NOT be made using segments that were retransmitted".
	tp.flags &^= rttTimed | fastRecov
	// RFC 6582, 4: after a time-out duplicates of what is sent again must not begin a fast
	// retransmit.
	tp.sndRecover = tp.sndMax
	tp.flags |= AckNow
	if tp.state.HaveEstablished() {
		// RFC 5681, 3.1: "upon a timeout (as specified in [RFC2988]) cwnd MUST be set to no more
		// than the loss window, LW, which equals 1 full-sized segment".
		tp.renoCongested(RTO, int(min(tp.sndWnd, tp.sndCwnd)))
	}
	// RFC 6298, 5.4: "Retransmit the earliest segment that has not been acknowledged by the TCP
	// receiver." BSD goes back to it: what follows is sent again as the window opens.
	tp.sndNxt = tp.sndUna
	tp.dupacks = 0
	tp.Output(now)
}

// timedOut is the errno of a connection that has timed out: the last soft error, if ICMP or IP has
// reported one, says more than the time.
func (tp *TCB) timedOut() syscall.Errno {
	if tp.softerr != 0 {
		return tp.softerror()
	}
	return syscall.ETIMEDOUT
}
