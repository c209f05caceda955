package tcp

import (
	"fmt"
	"time"

	"bsdnet/internal/kern/wire"
)

// Info is a snapshot of a connection: struct tcp_info.
type Info struct {
	State                State
	Options              uint8 // TCPI_OPT_ bits
	SndWscale, RcvWscale uint8
	RTO, RTT, RTTVar     time.Duration
	MinRTT               time.Duration // 0: no sample yet
	SndMSS, RcvMSS       int           // bytes
	SndCwnd, SndSsthresh int           // bytes
	SndWnd, RcvWnd       int           // bytes
	InFlight             int           // bytes sent and not acknowledged
	Rexmits              int           // segments retransmitted so far
	Backoff              int           // retransmissions since the last progress
	SndNxt, RcvNxt       uint32
	SndQ, RcvQ           int    // bytes in the buffers
	BytesSent, BytesRcvd uint64 // payload acknowledged by the peer, and received in order, so far
	SndZerowin           bool   // the peer's window is closed

	// what loss recovery is at: "Open", "Disorder", "CWR", "Recovery" or "Loss", Linux's
	// tcpi_ca_state
	Recovery      string
	CC            string        // congestion control algorithm
	PMTU          int           // largest IP packet that is sent, bytes
	PacingRate    int64         // bytes a second; 0: not paced
	DeliveryRate  int64         // bytes a second that have got through of late; 0: not measured yet
	DeliveryApp   bool          // DeliveryRate was measured when there was no more to send
	Sacked, Lost  int           // bytes in flight that have been acknowledged selectively, and found lost
	Retransmitted int           // bytes in flight that have been sent again
	ReorderWindow time.Duration // how long RACK waits for what may only be late (RFC 8985)
	ReorderSeen   bool          // segments have overtaken each other
	BytesRexmit   uint64        // bytes retransmitted so far
	DSACKs        int           // duplicates that the peer has reported
	Delivered     uint64        // bytes acknowledged, in order or selectively, so far
	BusyTime      time.Duration // how long there has been data to send
	RwndLimited   time.Duration // how long of it the peer's window has held it back
	SndbufLimited time.Duration // how long of it the send buffer was too small
}

// Bits of Info.Options: FreeBSD's TCPI_OPT_ constants.
const (
	OptTimestamps = 1 << iota
	OptSACK
	OptWscale
	OptECN
)

// Info returns a snapshot.
func (tp *TCB) Info() Info {
	i := Info{
		State:     tp.state,
		SndWscale: tp.sndScale, RcvWscale: tp.rcvScale,
		RTO: time.Duration(tp.rtt.rxtcur), RTT: time.Duration(tp.rtt.srtt), RTTVar: time.Duration(tp.rtt.rttvar),
		SndMSS: tp.maxseg, RcvMSS: int(tp.mssopt),
		SndCwnd: int(tp.sndCwnd), SndSsthresh: int(tp.sndSsthresh),
		SndWnd: int(tp.sndWnd), RcvWnd: max(tp.rcvAdv.Sub(tp.rcvNxt), 0),
		InFlight: tp.sndMax.Sub(tp.sndUna), Rexmits: int(tp.rexmits), Backoff: int(tp.backoff),
		SndNxt: uint32(tp.sndNxt), RcvNxt: uint32(tp.rcvNxt),
		SndZerowin: tp.state.HaveEstablished() && tp.sndWnd == 0,
	}
	tp.senderInfo(&i)
	i.SndQ, i.RcvQ = tp.snd.Cc(), tp.rcv.Cc()
	i.BytesSent, i.BytesRcvd = tp.bytesSent, tp.bytesRcvd
	if tp.state < SynSent { // there is no peer
		i.SndCwnd, i.SndSsthresh = 0, 0
	}
	if tp.rtt.min != never {
		i.MinRTT = time.Duration(tp.rtt.min)
	}
	set := func(f Flag, bit uint8) {
		if tp.flags&f == f {
			i.Options |= bit
		}
	}
	set(ReqTstmp|RcvdTstmp, OptTimestamps)
	set(SackPermit, OptSACK)
	set(ReqScale|RcvdScale, OptWscale)
	set(ecnOn, OptECN)
	return i
}

// senderInfo tells what the sender knows.
func (tp *TCB) senderInfo(i *Info) {
	i.PMTU = tp.maxseg + wire.TCPMinLen + tp.hdrLen()
	i.CC = tp.CC()
	s := tp.snr
	if s == nil {
		if tp.flags&fastRecov != 0 {
			i.Recovery = Recovering.String()
		} else {
			i.Recovery = Open.String()
		}
		return
	}
	i.Recovery = s.state.String()
	i.SndCwnd, i.SndSsthresh = s.ctl.Cwnd, s.ctl.Ssthresh
	i.PacingRate, i.DeliveryRate, i.DeliveryApp = s.pacer.rate, s.rate.last, s.rate.lastApp
	i.Sacked, i.Lost, i.Retransmitted = s.sb.sacked+s.dupBytes, s.sb.lost, s.sb.again
	i.ReorderWindow, i.ReorderSeen = time.Duration(tp.reorderWindow()), s.rack.seen
	i.BytesRexmit, i.DSACKs, i.Delivered = s.rexmitted, s.dsacks, s.rate.delivered
	sum := func(b busyState) time.Duration { return time.Duration(s.chrono.sum(b, tp.clock)) }
	i.RwndLimited, i.SndbufLimited = sum(rwndFull), sum(sndbufFull)
	i.BusyTime = sum(busy) + i.RwndLimited + i.SndbufLimited
}

// checkScoreboard returns an error if the scoreboard is not what is in flight, or its sums are not
// those of its spans.
func (tp *TCB) checkScoreboard() error {
	s := tp.snr
	if s == nil || s.sb.empty() {
		if s != nil && (s.sb.sacked != 0 || s.sb.lost != 0 || s.sb.again != 0) {
			return fmt.Errorf("an empty scoreboard with sums %d %d %d", s.sb.sacked, s.sb.lost, s.sb.again)
		}
		return nil
	}
	if s.sb.start() != tp.sndUna || s.sb.end() != tp.sndNxt {
		return fmt.Errorf("scoreboard from %d to %d", s.sb.start().Sub(tp.sndUna), s.sb.end().Sub(tp.sndUna))
	}
	n, sacked, lost, again := 0, 0, 0, 0
	last, arrived := tp.sndUna, false
	for _, b := range s.sb.blocks {
		lostHere := 0
		for i := b.lo; i < b.hi; i++ {
			sp := &b.spans[i]
			if sp.start != last || sp.start.Geq(sp.end) || sp.has(spanLost) && sp.has(spanSacked) {
				return fmt.Errorf("bad span %d+%d, flags %#x", sp.start.Sub(tp.sndUna), sp.len(), sp.flags)
			}
			if arrived && sp.has(spanSacked) {
				return fmt.Errorf("the span at %d has not been merged", sp.start.Sub(tp.sndUna))
			}
			last, arrived = sp.end, sp.has(spanSacked)
			n++
			if sp.has(spanSacked) {
				sacked += sp.len()
			}
			if sp.has(spanLost) {
				lost += sp.len()
				lostHere++
				if sp.start.Lt(s.lostFrom) {
					return fmt.Errorf("a lost span at %d is overlooked", sp.start.Sub(tp.sndUna))
				}
			}
			if sp.has(spanRexmitted) {
				again += sp.len()
			}
		}
		if lostHere != b.lost {
			return fmt.Errorf("%d lost spans in a block, %d counted", lostHere, b.lost)
		}
	}
	if n != s.sb.n || sacked != s.sb.sacked || lost != s.sb.lost || again != s.sb.again {
		return fmt.Errorf("scoreboard's sums: spans %d, %d; sacked %d, %d; lost %d, %d; again %d, %d", n, s.sb.n,
			sacked, s.sb.sacked, lost, s.sb.lost, again, s.sb.again)
	}
	return nil
}

// Check returns an error if an invariant does not hold. Tests call it after every event. Data
// that is unsent with an open window, or unacknowledged, means an armed timer: a connection must
// not be able to stall.
func (tp *TCB) Check() error {
	if tp.state == Closed || tp.state == Listen || tp.state == TimeWait {
		return nil
	}
	bad := func(format string, a ...any) error {
		return fmt.Errorf("tcp: %s: %s (una %d nxt +%d max +%d wnd %d cwnd %d cc %d)", tp.state,
			fmt.Sprintf(format, a...),
			tp.sndUna, tp.sndNxt.Sub(tp.sndUna), tp.sndMax.Sub(tp.sndUna), tp.sndWnd, tp.sndCwnd, tp.snd.Cc())
	}
	if tp.sndNxt.Lt(tp.sndUna) || tp.sndMax.Lt(tp.sndNxt) {
		return bad("sequence numbers out of order")
	}
	if over := tp.sndMax.Sub(tp.sndUna) - tp.snd.Cc(); over > 1 {
		return bad("%d numbers in flight without data", over)
	}
	// A peer may fill room that a silly window has hidden; the acknowledgment that is then owed
	// mends it.
	if tp.rcvAdv.Lt(tp.rcvNxt) && tp.flags&DelAck == 0 && tp.state.HaveRcvdSyn() && !tp.state.haveRcvdFin() {
		return bad("advertised less than received")
	}
	armed := tp.on(tRexmt) || tp.on(tPersist) || tp.on(tPace) && tp.sndMax == tp.sndUna
	if err := tp.checkScoreboard(); err != nil {
		return bad("%v", err)
	}
	if err := tp.checkSender(); err != nil {
		return bad("%v", err)
	}
	if tp.sndMax.Gt(tp.sndUna) && !armed {
		return bad("data in flight and no timer")
	}
	if tp.state.HaveEstablished() && tp.snd.Cc() > 0 && !armed && tp.flags&(blocked|NoPush|MoreToCome) == 0 {
		return bad("data to send and no timer")
	}
	if tp.on(tPersist) && (tp.on(tRexmt) || tp.snd.Cc() == 0) {
		return bad("probes for nothing")
	}
	if tp.flags&DelAck != 0 && !tp.on(tDelack) {
		return bad("acknowledgment owed and no timer")
	}
	return nil
}

// Timer returns when the named timer ("rexmt", "persist", "keep", "2msl", "delack") is due, and
// whether it is on.
func (tp *TCB) Timer(name string) (int64, bool) {
	for i, n := range timerNames {
		if n == name {
			return tp.timers[i], tp.on(i)
		}
	}
	panic("tcp: no timer " + name)
}
