package tcp

import (
	"syscall"

	"bsdnet/internal/kern/wire"
)

// What follows is the sending half. One question is asked after every event: what should be sent
// now? BSD's tcp_output asks it, and nothing in the stack ever says "send this". Output asks until
// the answer is: nothing. Each time
//
//   - plan decides whether a segment is to go and which. It changes nothing in the TCB: what it has
//     found out on the way it puts on the segment's list of wants;
//   - settle does what is on that list, whether a segment goes or not;
//   - build makes the segment, and changes nothing in the TCB either (segment.go);
//   - sent does the accounts (segment.go).

// outflags are the flags of a segment by state: BSD's tcp_outflags.
var outflags = [...]wire.Flags{
	Closed:      wire.RST | wire.ACK,
	Listen:      0,
	SynSent:     wire.SYN,
	SynReceived: wire.SYN | wire.ACK,
	Established: wire.ACK,
	CloseWait:   wire.ACK,
	FinWait1:    wire.FIN | wire.ACK,
	Closing:     wire.FIN | wire.ACK,
	LastAck:     wire.FIN | wire.ACK,
	FinWait2:    wire.ACK,
	TimeWait:    wire.ACK,
}

// An outseg is a segment that plan has decided on, and what build has made of it.
type outseg struct {
	flags  wire.Flags // when it is built: all that the header says
	off    int        // where its data begins, from sndUna
	len    int        // its data
	recwin int        // the window to advertise
	idle   bool
	more   bool   // there is more to send behind it
	rexmit bool   // it is on the scoreboard, and is sent again
	probe  bool   // it is larger than the others, to find out whether the path carries it
	reason string // why it is sent again

	wants    wants
	lostFrom Seq // for wantLostFrom

	// What build has made.
	seq    Seq    // its number
	win    int    // the window that it gives the peer
	field  uint16 // the same as it stands in the header
	sacks  bool   // it carries SACK blocks
	seglen int    // payload of each segment that it is cut into
}

// wants are what plan has found out, for settle to take note of.
type wants uint8

const (
	wantIdle     wants = 1 << iota // nothing is in flight, and the user's write goes on: lastIdle
	wantBlocked                    // the interface's queue holds our share
	wantLimited                    // the congestion window holds back what is lost
	wantHeld                       // the pacer holds back what there is
	wantLostFrom                   // the first lost span begins at lostFrom
	wantPersist                    // the peer has closed its window over what there is: it must be probed
	wantOpen                       // the window that was to be probed is open
)

// Output sends what should be sent now: 4.4BSD's tcp_output. The errno is that of the last segment
// that IP refused.
func (tp *TCB) Output(now int64) (errno syscall.Errno) {
	if tp.state == Closed {
		return tp.outputRst(now)
	}
	now = tp.onwards(now)
	tp.beforeOutput(now)
	for more := true; more; {
		var o outseg
		tp.relieve()
		send := tp.plan(&o, now)
		tp.settle(&o, now)
		if !send {
			if tp.snr == nil || !tp.snr.newFirst || tp.snr.pacer.held || tp.sndNxt.Gt(tp.snr.high) {
				break
			}
			tp.snr.newFirst = false // there is no new data: so what is lost
			continue
		}
		if errno = tp.emit(&o, now); errno != 0 {
			errno = tp.outputError(errno)
			break
		}
		more = o.more
	}
	if tp.snr != nil {
		tp.lookAround(now)
	}
	tp.arm(now)
	return errno
}

// emit makes a segment and sends it.
func (tp *TCB) emit(o *outseg, now int64) syscall.Errno {
	m := tp.build(o, now)
	tp.sent(o, now)
	return tp.sock.Emit(m)
}

// onwards returns now, or what the machine has been told before, whichever is later: two doors may
// have read the clock in the other order.
func (tp *TCB) onwards(now int64) int64 {
	tp.clock = max(tp.clock, now)
	return tp.clock
}

// plan decides whether a segment is to be sent, and which.
func (tp *TCB) plan(o *outseg, now int64) bool {
	if tp.snr != nil && tp.planRexmit(o, now) {
		return true
	}
	o.idle = tp.flags&lastIdle != 0 || tp.sndMax == tp.sndUna
	if o.idle && tp.flags&MoreToCome != 0 {
		// The user's write comes in pieces. To Nagle the connection would look busy after the
		// first, and the end of the write would wait for an acknowledgment. So it is remembered
		// until the last piece has come that the connection was idle: BSD's TF_LASTIDLE.
		o.wants |= wantIdle
		o.idle = false
	}
	o.flags = outflags[tp.state]
	o.off = tp.sndNxt.Sub(tp.sndUna)
	if tp.flags&NeedFin != 0 && tp.state >= Established {
		o.flags |= wire.FIN
	}
	tp.sendable(o, now)
	o.recwin = tp.recwin()
	return tp.worth(o)
}

// settle takes note of what plan has found out.
func (tp *TCB) settle(o *outseg, now int64) {
	if !o.rexmit {
		tp.flags &^= lastIdle
	}
	if o.wants == 0 {
		return
	}
	if o.wants&wantIdle != 0 {
		tp.flags |= lastIdle
	}
	if o.wants&wantBlocked != 0 {
		tp.flags |= blocked
	}
	if o.wants&wantLimited != 0 {
		tp.snr.limited = true
	}
	if o.wants&wantHeld != 0 {
		tp.snr.pacer.held = true
	}
	if o.wants&wantLostFrom != 0 {
		tp.snr.lostFrom = o.lostFrom
	}
	if o.wants&wantOpen != 0 {
		tp.stop(tPersist)
		tp.backoff = 0
	}
	if o.wants&wantPersist != 0 {
		tp.windowClosed(now)
	}
}

// windowClosed goes over from the retransmission timer to the persist timer: all that the peer has
// not acknowledged is beyond its window now, and is sent again from the beginning when the window
// opens.
func (tp *TCB) windowClosed(now int64) {
	tp.stop(tRexmt)
	tp.backoff = 0
	if tp.snr != nil {
		tp.startOver()
	}
	tp.sndNxt = tp.sndUna
	tp.setpersist(now)
}

// sendable computes how much data there is to send now: from sndNxt up to the edge of both windows.
// RFC 5681, 3.1: "The minimum of cwnd and rwnd governs data transmission."
func (tp *TCB) sendable(o *outseg, now int64) {
	avail := tp.snd.Cc()
	win := min(int(tp.sndWnd), tp.cwndEdge(o.off))
	if tp.flags&force != 0 {
		if win == 0 {
			// A window probe: RFC 9293, 3.8.6.1: "The sending TCP peer must regularly transmit at
			// least one octet of new data (if available)". With data behind it the FIN stays back.
			if o.off < avail {
				o.flags &^= wire.FIN
			}
			win = 1
		} else {
			o.wants |= wantOpen
		}
	}
	n := min(avail, win) - o.off
	if o.flags&wire.SYN != 0 {
		// The SYN occupies the first number; data and FIN wait until it has been acknowledged. (RFC
		// 9293, 3.10.7.3: "it is legal to send and receive application data on SYN segments". BSD's
		// does not without T/TCP: a peer need not keep it.)
		if tp.sndNxt.Gt(tp.sndUna) && tp.state != SynReceived {
			o.flags &^= wire.SYN
		}
		o.off = 0
		o.flags &^= wire.FIN
		n = 0
	}
	if n <= 0 {
		// Nothing is left, or a FIN is out and not acknowledged, or the peer has drawn its window
		// back. RFC 9293, 3.8.6, of the latter: "If this happens, the sender SHOULD NOT send new
		// data (SHLD-15)". "If the window shrinks to zero, the TCP implementation MUST probe it in
		// the standard way (described below) (MUST-35)."
		n = 0
		if win == 0 && tp.state.HaveEstablished() && o.off < avail && !tp.on(tPersist) {
			o.wants |= wantPersist
		}
	}
	if n > 0 && !tp.sock.Room() {
		// What the interface's queue cannot take would only be dropped there.
		o.wants |= wantBlocked
		n = 0
	}
	if n > 0 && tp.snr != nil {
		n = tp.paced(o, n, now)
	}
	o.len = n
	if !o.probe {
		tp.cut(o)
	}
	// The FIN goes with the last of the data, never before: not if data is left behind this
	// segment, nor if all is to be sent again.
	if o.wants&wantPersist != 0 || tp.sndNxt.Add(o.len).Lt(tp.sndUna.Add(avail)) {
		o.flags &^= wire.FIN
	}
}

// cut limits the segment to what may travel in one chain, in whole multiples of what one segment
// carries. The interface cuts the chain into segments (tso.go of package kern): it must cut
// at the same places as we would.
func (tp *TCB) cut(o *outseg) {
	if o.len <= tp.effMSS() {
		return
	}
	seg := tp.effMSS() - tp.sackOptLen()
	limit := tp.chainMax(seg)
	if o.len > limit {
		o.len = limit
		if limit > seg && tp.flags&whole == 0 {
			o.len -= limit % seg
		}
		o.more = true
		return
	}
	// The last piece is short: if it should wait for company (Nagle), only the full ones go.
	if rest := o.len % seg; rest != 0 && o.len > seg && tp.flags&whole == 0 {
		if last := o.off+o.len == tp.snd.Cc(); !last || tp.flags&(NoDelay|MoreToCome) != NoDelay {
			o.len -= rest
			o.more = true
		}
	}
}

// optLen returns the bytes of options on each segment of an established connection, except for SACK
// blocks.
func (tp *TCB) optLen() int {
	if tp.flags&(RcvdTstmp|NoOpt) == RcvdTstmp {
		return 12
	}
	return 0
}

// effMSS is the effective send MSS: the payload of a full segment, the usual options taken off. RFC
// 9293, 3.7.1: "The maximum size of a segment that a TCP endpoint really sends, the "effective send
// MSS", MUST be the smaller (MUST-16) of the send MSS (that reflects the available reassembly
// buffer size at the remote host, the EMTU_R [19]) and the largest transmission size permitted by
// the IP layer (EMTU_S [19])".
func (tp *TCB) effMSS() int { return tp.maxseg - tp.optLen() }

// sackOptLen returns the bytes of the SACK option on the next segment.
func (tp *TCB) sackOptLen() int {
	if n := tp.nsack(); n > 0 {
		return 4 + 8*n
	}
	return 0
}

// worth asks, in BSD's order, whether the segment is worth sending: for its data, for the window
// that it gives, or for what else it says.
func (tp *TCB) worth(o *outseg) bool {
	if o.len > 0 && tp.dataWorth(o) {
		return true
	}
	if tp.windowUpdate(o.recwin) {
		return true
	}
	switch {
	case tp.flags&AckNow != 0, o.flags&wire.RST != 0:
		return true
	case o.flags&wire.SYN != 0 && tp.state != SynReceived:
		// Our answer to a SYN goes with AckNow, and again when the timer fires: not with each
		// event.
		return true
	case tp.flags&urgent != 0 && tp.sndUp.Gt(tp.sndUna):
		// Once: BSD sends on every event while urgent data is out, and two urgent ends could answer
		// each other forever.
		return true
	case o.flags&wire.FIN != 0:
		return tp.flags&SentFin == 0 || tp.sndNxt == tp.sndUna
	}
	return false
}

// dataWorth reports whether data is worth a segment: RFC 9293, 3.8.6.2.1, "Send data: (1) if a
// maximum-sized segment can be sent", and so on.
func (tp *TCB) dataWorth(o *outseg) bool {
	switch {
	case o.len >= tp.effMSS():
		return true // "(1)", "min(D,U) >= Eff.snd.MSS"
	case (o.idle || tp.flags&NoDelay != 0) && tp.flags&(NoPush|MoreToCome) == 0 && tp.all(o):
		// "(2) or if the data is pushed and all queued data can be sent now". "(the bracketed
		// condition is imposed by the Nagle algorithm)": that nothing is in flight, unless
		// TCP_NODELAY has switched it off.
		return true
	case tp.flags&force != 0:
		return true // "(4) or if the override timeout occurs", which is the persist timer
	case o.len >= int(tp.maxSndwnd/2) && tp.maxSndwnd > 0:
		// "(3) or if at least a fraction Fs of the maximum window can be sent". "Here Fs is a
		// fraction whose recommended value is 1/2." The peer's buffer may be smaller than a
		// segment.
		return true
	case tp.sndNxt.Lt(tp.sndMax):
		return true // a retransmission has waited long enough
	}
	return false
}

// all reports whether the segment holds the last of what there is to send.
func (tp *TCB) all(o *outseg) bool { return o.off+o.len >= tp.snd.Cc() }

// arm sees to it that no connection stalls, whatever has been sent or held back.
func (tp *TCB) arm(now int64) {
	switch {
	case tp.on(tRexmt) || tp.on(tPersist) || tp.state == Closed:
	case tp.sndMax != tp.sndUna:
		// RFC 6298, 5.1: "Every time a packet containing data is sent (including a retransmission),
		// if the timer is not running, start it running". Here it is for a segment that IP refused.
		tp.set(tRexmt, now+tp.rtt.rxtcur)
	case tp.snd.Cc() > 0 && !tp.waitsElsewhere() && tp.state.HaveEstablished():
		// Data waits for a larger window. The update that opens it may be lost, and is not sent
		// again; so the peer is asked. RFC 9293, 3.8.6.2.1: "To avoid a resulting deadlock, it is
		// necessary to have a timeout to force transmission of data, overriding the SWS avoidance
		// algorithm."
		tp.backoff = 0
		tp.setpersist(now)
	}
}

// waitsElsewhere reports whether data waits for something of our own, which will call Output: the
// pacer's timer, or the interface's queue.
func (tp *TCB) waitsElsewhere() bool { return tp.on(tPace) || tp.flags&blocked != 0 }
