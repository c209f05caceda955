package tcp

import "syscall"

// What follows is what the user asks of a connection.

// Usrclosed takes note that the user sends no more: BSD's tcp_usrclosed. Output sends the FIN. RFC
// 9293, 3.10.4, CLOSE.
func (tp *TCB) Usrclosed(now int64) {
	tp.onwards(now)
	switch tp.state {
	case Closed, Listen, SynSent:
		tp.close() // there is no connection yet that could be closed in order
	case SynReceived:
		// "If no SENDs have been issued and there is no pending data to send, then form a FIN
		// segment and send it, and enter FIN-WAIT-1 state; otherwise, queue for processing after
		// entering ESTABLISHED state." BSD always waits; established goes on to FIN_WAIT_1.
		tp.flags |= NeedFin
	case Established:
		// "Queue this until all preceding SENDs have been segmentized, then form a FIN segment and
		// send it. In any case, enter FIN-WAIT-1 state."
		tp.setState(FinWait1)
	case CloseWait:
		// "then send a FIN segment, enter LAST-ACK state": the peer's has been received.
		tp.setState(LastAck)
	}
	// The reader may have been there when FIN_WAIT_2 was entered: CloseWrite, wait, Close. If
	// somebody still reads, this is another shutdown(SHUT_WR), which says nothing new; 4.4BSD ends
	// the reading here as well.
	if tp.state == FinWait2 && tp.unread() {
		if !tp.on(t2MSL) {
			tp.set(t2MSL, now+tp.prof.FinWait2)
		}
		tp.sock.Soisdisconnected()
	}
}

// unread reports whether nobody reads any more, so that FIN_WAIT_2 must end by itself.
func (tp *TCB) unread() bool {
	return tp.flags&UserClosed != 0 || tp.flags&CantRcvMore != 0 && !tp.prof.ShutRdKeeps
}

// Orphan takes note that the user has closed, and nobody is left to be told of errors. Whatever is
// still to be sent is sent, but a peer that lets it make no progress cannot keep it forever, even
// by answering probes of its closed window (CVE-2008-4609). RFC 9293, 3.8.6.1, leaves that open:
// "The behavior is subject to the implementation's resource management concerns".
func (tp *TCB) Orphan(now int64) {
	tp.flags |= UserClosed
	tp.orphanAcked(0, now)
}

// orphanRate is how many bytes a second the peer of an orphan must take. One that takes a byte now
// and then would keep what waits for it for months.
const orphanRate = 512

// orphanAcked gives an orphan time for n bytes that its peer has taken, up to Profile.Orphan from
// now on.
func (tp *TCB) orphanAcked(n int, now int64) {
	if sending := tp.state == FinWait1 || tp.state == Closing || tp.state == LastAck; !sending || tp.prof.Orphan == 0 {
		return
	}
	at := now + tp.prof.Orphan
	if tp.on(t2MSL) {
		at = min(at, tp.timers[t2MSL]+int64(n)*sec/orphanRate)
	}
	tp.set(t2MSL, at)
}

// Stalled reports whether data waits for a peer that has been asked for a window, and has given
// none: what may be given up when memory is short.
func (tp *TCB) Stalled() bool { return tp.on(tPersist) && tp.backoff >= 2 && tp.snd.Cc() > 0 }

// Drop ends the connection with an error, and a RST if the peer knows of it: BSD's tcp_drop. RFC
// 9293, 3.10.5, ABORT: "Send a reset segment", except in SYN-SENT, of which the peer may not know
// yet.
func (tp *TCB) Drop(errno syscall.Errno, now int64) {
	tp.onwards(now)
	if tp.state.HaveRcvdSyn() {
		tp.setState(Closed)
		tp.Output(now)
		tp.stats.Drops.Inc()
	} else {
		tp.stats.Conndrops.Inc()
	}
	tp.sock.Soerror(errno)
	tp.close()
}

// Reset aborts the connection: SO_LINGER with time 0, or closing with unread data.
func (tp *TCB) Reset(now int64) { tp.Drop(0, now) }

// Close drops the connection without a segment.
func (tp *TCB) Close() { tp.close() }

// close is BSD's tcp_close: nothing is left.
func (tp *TCB) close() {
	tp.setState(Closed)
	tp.cancelTimers()
	tp.freeReass()
	tp.freeSender()
	tp.stats.Closed.Inc()
	tp.sock.TcpClose()
}

// SendUrgent marks what has been written so far as urgent (RFC 9293, 3.8.5; RFC 6093): PRU_SENDOOB.
func (tp *TCB) SendUrgent() {
	tp.sndUp = tp.sndUna.Add(tp.snd.Cc())
	tp.flags |= urgent
}

// Unblock takes note that the interface's queue has room again.
func (tp *TCB) Unblock(now int64) {
	if tp.flags&blocked != 0 {
		tp.flags &^= blocked
		if tp.state != Closed {
			tp.Output(now)
		}
	}
}

// Ctlinput takes an ICMP error that speaks of sequence number seq of this connection. A hard one
// ends an attempt to connect; otherwise it is at most a soft error, whatever its code: RFC 5927,
// 5.2, has hard errors treated as soft once a connection is synchronized, as they are easily
// forged.
func (tp *TCB) Ctlinput(errno syscall.Errno, seq Seq, hard bool, now int64) {
	if !tp.Inflight(seq) {
		return // RFC 5927, 4.1: only what quotes something in flight comes from its path
	}
	if tp.state == SynSent && hard && tp.prof.ICMPMayRST {
		tp.Drop(errno, now)
		return
	}
	if errno != 0 {
		tp.softerr = uint32(errno)
	}
}

// InOrder reports whether a segment that begins at seq is, or reaches to, the next that is
// expected.
func (tp *TCB) InOrder(seq Seq) bool { return seq.Leq(tp.rcvNxt) }

// News reports whether any of n bytes from seq on are beyond what has been received in order.
func (tp *TCB) News(seq Seq, n int) bool { return seq.Add(n).Gt(tp.rcvNxt) }

// Inflight reports whether seq has been sent and not acknowledged.
func (tp *TCB) Inflight(seq Seq) bool { return seq.Geq(tp.sndUna) && seq.Lt(tp.sndMax) }
