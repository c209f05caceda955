package tcp

import "bsdnet/internal/kern/wire"

// An EventKind says what an Event tells of.
type EventKind uint8

// The kinds of events.
const (
	EvState      EventKind = iota // the state of the connection has changed: Name is the new one, Old the one before
	EvTimer                       // timer Name has fired
	EvRTT                         // a round trip has been measured: RTT, SRTT, RTTVar, MinRTT
	EvWindow                      // Cwnd, Ssthresh or Rate has changed
	EvRecovery                    // the state of loss recovery has changed: Name is the new one, Old the one before
	EvLost                        // Seq, Len have been found lost; Name is the reason
	EvSent                        // Seq, Len have been sent for the first time
	EvRetransmit                  // Seq, Len have been sent again; Name is the reason
	EvAck                         // an acknowledgment has arrived: Ack, Win, Sack
	EvUndo                        // a reduction of the window was wrong and has been taken back; Name is the evidence
	EvMTU                         // the size of a full segment has changed to Len; Name is the reason
)

// An Event is something that has happened on a connection, for a tracer. Sequence numbers are
// relative to our initial one. What a kind does not name is 0; Cwnd, Ssthresh, Rate and Flight are
// there in every event.
type Event struct {
	Time                      int64 // nanoseconds since the stack began
	Kind                      EventKind
	Name, Old                 string
	Seq                       uint32 // first byte
	Len                       int    // bytes
	Ack                       uint32
	Win                       int // bytes
	Sack                      [4][2]uint32
	NSack                     int
	RTT, SRTT, RTTVar, MinRTT int64 // nanoseconds
	Cwnd, Ssthresh, Flight    int   // bytes
	Rate                      int64 // pacing, bytes a second; 0: not paced
	DeliveryRate              int64 // bytes a second; 0: not measured yet
}

// trace tells of an event, which it completes, if anybody wants to know. What happens with each
// segment has a helper of its own below, as here the Event is made in vain if nobody does.
func (tp *TCB) trace(e Event) {
	if tp.traced {
		tp.tell(e)
	}
}

// tell is the part of trace that is not inlined, so that the Event goes to the heap only if
// somebody wants to know.
//
//go:noinline
func (tp *TCB) tell(e Event) {
	e.Time = tp.clock
	e.Cwnd, e.Ssthresh = int(tp.sndCwnd), int(tp.sndSsthresh)
	e.Flight = tp.sndMax.Sub(tp.sndUna)
	if s := tp.snr; s != nil {
		e.Cwnd, e.Ssthresh, e.Flight = s.ctl.Cwnd, s.ctl.Ssthresh, tp.pipe()
		e.Rate, e.DeliveryRate = s.pacer.rate, s.rate.last
	}
	tp.sock.Trace(&e)
}

// traceState tells that the state was old.
func (tp *TCB) traceState(old State) {
	if tp.traced && old != tp.state {
		tp.tellState(old)
	}
}

func (tp *TCB) tellState(old State) {
	if tp.clock == 0 {
		return // a listener, which is no connection
	}
	tp.tell(Event{Kind: EvState, Name: tp.state.String(), Old: old.String()})
}

// traceRTT tells of a round trip that has gone into the estimate.
func (tp *TCB) traceRTT(rtt int64) {
	if tp.traced {
		tp.tell(Event{Kind: EvRTT, RTT: rtt, SRTT: tp.rtt.srtt, RTTVar: tp.rtt.rttvar, MinRTT: tp.rtt.min})
	}
}

// traceSent tells of a segment that occupies space in the sequence, SYN and FIN included, before
// sent accounts for it.
func (tp *TCB) traceSent(o *outseg, space int) {
	if tp.traced && space > 0 && o.flags&wire.RST == 0 {
		tp.tellSent(o, space)
	}
}

func (tp *TCB) tellSent(o *outseg, space int) {
	if o.rexmit {
		tp.tell(Event{Kind: EvRetransmit, Seq: uint32(tp.sndUna.Add(o.off) - tp.iss), Len: space, Name: o.reason})
		return
	}
	seq := uint32(o.seq - tp.iss)
	again := min(max(tp.sndMax.Sub(o.seq), 0), space) // what is sent from an old number on may end with new data
	if again > 0 {
		tp.tell(Event{Kind: EvRetransmit, Seq: seq, Len: again})
	}
	if again < space {
		tp.tell(Event{Kind: EvSent, Seq: seq + uint32(again), Len: space - again})
	}
}

// traceLost tells of what has been found lost.
func (tp *TCB) traceLost(start Seq, n int, reason string) {
	if tp.traced {
		tp.tell(Event{Kind: EvLost, Seq: uint32(start - tp.iss), Len: n, Name: reason})
	}
}

// traceRecovery tells that the state of recovery was old.
func (tp *TCB) traceRecovery(old Recovery) {
	if tp.traced {
		tp.tell(Event{Kind: EvRecovery, Name: tp.snr.state.String(), Old: old.String()})
	}
}

// traceUndo tells of a reduction that was wrong.
func (tp *TCB) traceUndo(evidence string) {
	if tp.traced {
		tp.tell(Event{Kind: EvUndo, Name: evidence})
	}
}

// traceMTU tells of a new size of segments.
func (tp *TCB) traceMTU(reason string) {
	if tp.traced {
		tp.tell(Event{Kind: EvMTU, Len: tp.maxseg, Name: reason})
	}
}

// traceWindow tells of the window and the rate, if the last acknowledgment has changed them.
func (tp *TCB) traceWindow() {
	if s := tp.snr; tp.traced && (s.ctl.Cwnd != s.toldCwnd || s.ctl.Ssthresh != s.toldSsthresh) {
		s.toldCwnd, s.toldSsthresh = s.ctl.Cwnd, s.ctl.Ssthresh
		tp.tell(Event{Kind: EvWindow})
	}
}

// traceAck tells of the acknowledgment in a segment, before anything is done about it.
func (tp *TCB) traceAck(seg *segment) {
	if tp.traced && seg.flags&(wire.ACK|wire.RST) == wire.ACK {
		tp.tellAck(seg)
	}
}

func (tp *TCB) tellAck(seg *segment) {
	if seg.len > 0 && seg.ack == tp.sndUna && seg.win == tp.sndWnd && seg.opt.Nsack == 0 {
		return // data that flows the other way: each segment repeats the acknowledgment
	}
	e := Event{Kind: EvAck, Ack: uint32(seg.ack - tp.iss), Win: int(seg.win), NSack: int(seg.opt.Nsack)}
	for i, b := range seg.opt.Blocks[:seg.opt.Nsack] {
		e.Sack[i] = [2]uint32{uint32(b.Left - tp.iss), uint32(b.Right - tp.iss)}
	}
	tp.tell(e)
}
