package tcp

// What follows keeps watch over a peer that says nothing: keep-alive probes while nothing is in
// flight (RFC 9293, 3.8.4; BSD's tcp_timer_keep).

// A keepalive counts the probes of an idle peer.
type keepalive struct {
	count  uint8 // probes after which the connection is given up: TCP_KEEPCNT; 0: the profile's number
	probes uint8 // those sent since the last segment
}

// heard notes that a segment has come in.
func (k *keepalive) heard() { k.probes = 0 }

// most returns the probes after which the connection is given up.
func (k *keepalive) most(p *Profile) int {
	if k.count != 0 {
		return int(k.count)
	}
	return p.Keepcnt
}

// over reports whether enough probes of a peer that has been silent for a time have been in vain.
// limit is the user time-out, 0 if there is none; it counts time instead (tcp(7) of Linux: it "will
// override keepalive to determine when to close a connection due to keepalive failure").
func (k *keepalive) over(silent, limit int64, p *Profile) bool {
	if limit > 0 && p.UserTimeout {
		return k.probes > 0 && silent >= limit
	}
	// RFC 9293, 3.8.4: an implementation "MUST NOT interpret failure to respond to any specific
	// probe as a dead connection (MUST-29)". So probes are counted, and the time is not: probing
	// may have begun late in the silence.
	return int(k.probes) >= k.most(p)
}

// keepTimeout ends a connection that cannot be set up, and probes one that is idle.
func (tp *TCB) keepTimeout(now int64) {
	tp.stats.Keeptimeo.Inc()
	if !tp.state.HaveEstablished() {
		// BSD gives the timer of keep-alive a second task: until the connection is established it
		// limits the attempt, by net.inet.tcp.keepinit.
		tp.stats.Keepdrops.Inc()
		tp.Drop(tp.timedOut(), now)
		return
	}
	if tp.flags&Keepalive == 0 || !tp.probed() {
		return
	}
	silent := now - tp.rcvTime
	if silent < tp.keepidle() {
		// RFC 9293, 3.8.4: "Keep-alive packets MUST only be sent when no sent data is outstanding,
		// and no data or acknowledgment packets have been received for the connection within an
		// interval (MUST-26)." The timer was not moved for each segment: see touchKeep.
		tp.set(tKeep, tp.rcvTime+tp.keepidle())
		return
	}
	if tp.keep.over(silent, int64(tp.MaxUnack)*sec, tp.prof) {
		tp.stats.Keepdrops.Inc()
		tp.Drop(tp.timedOut(), now)
		return
	}
	tp.keep.probes++
	// RFC 9293, 3.8.4: "Such a segment generally contains SEG.SEQ = SND.NXT-1". An acceptable one
	// would draw no answer. "An implementation SHOULD send a keep-alive segment with no data
	// (SHLD-12)".
	tp.stats.Keepprobe.Inc()
	tp.respond(tp.sndUna-1, now)
	tp.set(tKeep, now+tp.keepintvl())
}

// probed reports whether keep-alive watches over the connection in its state. In FIN_WAIT_2 nothing
// is left to be acknowledged, so without it a reader would wait forever for a peer that has
// vanished; a connection that its user has closed has a timer of its own there.
func (tp *TCB) probed() bool {
	if tp.state == FinWait2 {
		return tp.prof.KeepHalfClosed && tp.flags&UserClosed == 0
	}
	return tp.state.HaveEstablished() && tp.state <= Closing
}

// KeepaliveOn starts or stops probing, for SO_KEEPALIVE and the options that set its times. RFC
// 9293, 3.8.4: "the application MUST be able to turn them on or off for each TCP connection
// (MUST-24)".
func (tp *TCB) KeepaliveOn(on bool, now int64) {
	if !on {
		tp.flags &^= Keepalive
		if tp.state.HaveEstablished() {
			tp.stop(tKeep) // before, it limits the attempt to connect
		}
		return
	}
	tp.flags |= Keepalive
	tp.keep.heard()
	if tp.probed() {
		tp.set(tKeep, max(tp.rcvTime+tp.keepidle(), now))
	}
}

// touchKeep notes that a segment has come in. The timer is only set if it is off: it looks at
// rcvTime when it fires, so that a busy connection does not move it for each segment.
func (tp *TCB) touchKeep(now int64) {
	tp.rcvTime = now
	tp.keep.heard()
	if tp.flags&Keepalive != 0 && tp.probed() && !tp.on(tKeep) {
		tp.set(tKeep, now+tp.keepidle())
	}
}

// SetKeepcnt sets the probes after which an idle connection is dropped; 0: the profile's number.
func (tp *TCB) SetKeepcnt(n int) { tp.keep.count = uint8(min(n, 255)) }

// Keepcnt returns the probes after which an idle connection is dropped.
func (tp *TCB) Keepcnt() int { return tp.keep.most(tp.prof) }

func (tp *TCB) keepinit() int64  { return or(int64(tp.Keepinit)*sec, tp.prof.Keepinit) }
func (tp *TCB) keepidle() int64  { return or(int64(tp.Keepidle)*sec, tp.prof.Keepidle) }
func (tp *TCB) keepintvl() int64 { return or(int64(tp.Keepintvl)*sec, tp.prof.Keepintvl) }
