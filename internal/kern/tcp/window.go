package tcp

// What follows is the receive window: what the peer may send, and when it is told (RFC 9293,
// 3.8.6).

// recwin is the receive window to advertise.
func (tp *TCB) recwin() int {
	win := min(max(tp.rcv.Space(), 0), maxWin<<tp.rcvScale)
	if win < tp.rcv.Hiwat()/4 && win < tp.maxseg {
		// RFC 9293, 3.8.6.2.2: "The solution to receiver SWS is to avoid advancing the right window
		// edge RCV.NXT+RCV.WND in small increments, even if data is received from the network in
		// small segments." A quarter of the buffer is BSD's, the RFC has "min( Fr * RCV.BUFF,
		// Eff.snd.MSS )".
		win = 0
	}
	if tp.flags2&short != 0 {
		win = tp.shortWindow(win)
	}
	// RFC 9293, 3.8.6: "A TCP receiver SHOULD NOT shrink the window, i.e., move the right window
	// edge to the left (SHLD-14)."
	return max(win, tp.promised())
}

// relieve takes note that there is memory again for data that was refused. Its callers are about to
// advertise a window.
func (tp *TCB) relieve() {
	if tp.flags2&short != 0 && tp.pool.Relieved() {
		tp.flags2 &^= short
	}
}

// shortWindow is the window to advertise, of the win bytes that are free, since data has been
// refused: while memory is short nothing if something waits to be read, and else a few segments.
func (tp *TCB) shortWindow(win int) int {
	if tp.rcv.Cc() > 0 {
		return 0
	}
	return min(win, 4*tp.maxseg)
}

// rcvwin is the window that we stand by: what is free, but no less than was advertised.
func (tp *TCB) rcvwin() int { return max(tp.rcv.Space(), tp.promised()) }

// promised is what is left of the window that the peer has been given. As the field is rounded up
// each time it creeps on under tiny segments; they must not fill the buffer more than twice over.
func (tp *TCB) promised() int {
	left := min(tp.rcvAdv.Sub(tp.rcvNxt), tp.rcv.Space()+tp.rcv.Hiwat())
	return max(left, tp.rcvFloor.Sub(tp.rcvNxt), 0)
}

// KeepPromise is called before the receive buffer is made smaller. What the peer has been given
// stays its own: RFC 9293, SHLD-14, "A TCP receiver SHOULD NOT shrink the window, i.e., move the
// right window edge to the left".
func (tp *TCB) KeepPromise() {
	if tp.state.HaveRcvdSyn() {
		tp.rcvFloor = tp.rcvAdv.Max(tp.rcvNxt)
	}
}

// windowUpdate reports whether the reader has made enough room, of which recwin bytes are to be
// advertised, to tell the peer without anything else to say (RFC 9293, 3.8.6.2.2).
func (tp *TCB) windowUpdate(recwin int) bool {
	if recwin <= 0 || tp.state < Established || tp.state.haveRcvdFin() {
		return false // the peer has no use for it
	}
	if !tp.prof.AckBySegs && tp.bytesRcvd == 0 {
		// Nothing has come yet. The 65535 of the SYN,ACK, whose window is not scaled, are more than
		// an initial congestion window, and a segment of its own is not worth the rest.
		return false
	}
	if tp.prof.AckBySegs && tp.flags&DelAck != 0 && tp.prof.AckEvery > 0 {
		return false // the acknowledgment that is owed will carry it
	}
	adv := min(recwin, maxWin<<tp.rcvScale)
	old := 0
	if tp.rcvAdv.Gt(tp.rcvNxt) {
		old = tp.rcvAdv.Sub(tp.rcvNxt)
		adv -= old
	}
	if old>>tp.rcvScale >= (adv+old)>>tp.rcvScale {
		return false // the peer could not see it: the field would say the same
	}
	if tp.flags2&short != 0 && old == 0 {
		return true // data was refused, and the peer waits for it
	}
	return tp.largeUpdate(adv, recwin)
}

// largeUpdate reports whether a window that has grown by adv bytes, to recwin, has grown by enough.
// "Note that the general effect of this algorithm is to advance RCV.WND in increments of
// Eff.snd.MSS". BSD waits for two segments that are a good part of the buffer, or for half of the
// buffer, as an acknowledgment carries most updates along.
func (tp *TCB) largeUpdate(adv, recwin int) bool {
	hiwat := tp.rcv.Hiwat()
	if tp.prof.AckEvery == 0 { // Net/3
		return adv >= 2*tp.maxseg || 2*adv >= hiwat
	}
	if !tp.prof.AckBySegs {
		// Without a scale a quarter of the buffer may be more than any window says.
		hiwat = min(hiwat, maxWin<<tp.rcvScale)
	}
	// A quarter; or what there is, if the peer has next to nothing left, or the buffer is small.
	goodPart := adv >= hiwat/4 || recwin <= hiwat/8 || hiwat <= 8*tp.maxseg
	return adv >= 2*tp.maxseg && goodPart || 2*adv >= hiwat
}

// OwesUpdate reports whether Output may have something to say now that the user has read: an
// acknowledgment, or a larger window.
func (tp *TCB) OwesUpdate() bool {
	if tp.flags&AckNow != 0 || tp.prof.AckEvery == 0 {
		return true
	}
	tp.relieve()
	return tp.windowUpdate(tp.recwin())
}

// window returns the window field of a segment that is to advertise recwin bytes, and the window
// that the peer makes of it.
func (tp *TCB) window(recwin int) (field uint16, win int) {
	// RFC 7323, 2.4, has a receiver that must not shrink its window by rounding: the scaled window
	// is rounded up to what the field can say.
	unit := 1 << tp.rcvScale
	win = min((recwin+unit-1)&^(unit-1), maxWin<<tp.rcvScale)
	return uint16(win >> tp.rcvScale), win
}

// synWindow returns the window of a SYN. RFC 7323, 2.2: "The window field in a segment where the
// SYN bit is set (i.e., a <SYN> or <SYN,ACK>) MUST NOT be scaled."
func (tp *TCB) synWindow() (field uint16, win int) {
	win = min(max(tp.rcv.Space(), 0), maxWin)
	return uint16(win), win
}

// promise keeps account of a window that the peer has been given.
func (tp *TCB) promise(field uint16, win int) {
	if field == 0 {
		tp.flags |= rxWin0Sent // what comes next is acknowledged at once: the peer waits for a window
	} else {
		tp.flags &^= rxWin0Sent
	}
	if edge := tp.rcvNxt.Add(win); edge.Gt(tp.rcvAdv) && tp.state.HaveRcvdSyn() {
		tp.rcvAdv = edge
	}
}
