package bsdnet

import (
	"net/netip"
	"strconv"
	"time"

	"bsdnet/internal/kern"
)

// A TraceKind says what a [TraceEvent] tells of.
type TraceKind uint8

// The kinds of events. Each names the fields that it uses, besides those that every event has.
const (
	TraceState      TraceKind = iota // the state of the connection has changed from Old to Name, both in BSD's spelling
	TraceTimer                       // timer Name has fired: "rexmt", "persist", "keep" and so on
	TraceRTT                         // a round trip has been measured: RTT; SRTT, RTTVar and MinRTT follow from it
	TraceWindow                      // Cwnd, Ssthresh or PacingRate has changed
	TraceRecovery                    // loss recovery has gone from state Old to Name: see ConnInfo.Recovery
	TraceLost                        // Len bytes from Seq on have been found lost; Name is the reason
	TraceSent                        // Len bytes from Seq on have been sent for the first time
	TraceRetransmit                  // Len bytes from Seq on have been sent again; Name is the reason
	TraceAck                         // an acknowledgment has arrived: Ack, Win and Sack
	TraceUndo                        // a reduction of the window has been taken back; Name is the evidence
	TraceMTU                         // a full segment carries Len bytes from now on; Name is the reason
)

var traceKinds = [...]string{"state", "timer", "rtt", "window", "recovery", "lost", "sent", "retransmit", "ack",
	"undo", "mtu"}

// String returns the kind in lower case: "state", "timer", "rtt", "window", "recovery", "lost",
// "sent", "retransmit", "ack", "undo" or "mtu".
func (k TraceKind) String() string {
	if int(k) < len(traceKinds) {
		return traceKinds[k]
	}
	return "TraceKind(" + strconv.Itoa(int(k)) + ")"
}

// A TraceEvent is something that has happened on a connection; see [Config].Trace. Fields that its
// Kind does not use are zero.
//
// Sequence numbers count from the connection's own initial one: its SYN is 0, and the first byte
// that it sends is 1. After 4 GiB they begin again at 0.
type TraceEvent struct {
	Time          time.Time
	ConnID        uint32 // the connection's ConnInfo.ID
	Local, Remote netip.AddrPort
	Kind          TraceKind
	Name, Old     string // what the kind says

	Seq  uint32      // the first byte
	Len  int         // bytes; a SYN and a FIN count as one
	Ack  uint32      // the byte that the peer expects next
	Win  int         // the peer's window, bytes from Ack on
	Sack [][2]uint32 // what the peer has received beyond Ack: [from, to); not to be kept, as the event

	RTT    time.Duration // the round trip that has been measured
	SRTT   time.Duration // smoothed (RFC 6298)
	RTTVar time.Duration // its mean deviation
	MinRTT time.Duration // the least so far

	// Every event has these. With a segment or an acknowledgment, they are the values before it was
	// processed.
	Cwnd         int   // congestion window, bytes
	Ssthresh     int   // slow start threshold, bytes; 0: there is none, as nothing has been lost yet
	Flight       int   // sent, and neither acknowledged nor found lost, bytes
	PacingRate   int64 // bytes a second; 0: segments are not paced
	DeliveryRate int64 // what has arrived at the peer lately, bytes a second; 0: not measured yet
}

// traceEvent translates an event of the kernel's.
func traceEvent(t *kern.Trace) *TraceEvent {
	e := t.Event
	return &TraceEvent{
		Time: t.Time, ConnID: t.Conn, Local: t.Local, Remote: t.Remote, Kind: TraceKind(e.Kind), Name: e.Name,
		Old: e.Old,
		Seq: e.Seq, Len: e.Len, Ack: e.Ack, Win: e.Win, Sack: e.Sack[:e.NSack],
		RTT: time.Duration(e.RTT), SRTT: time.Duration(e.SRTT), RTTVar: time.Duration(e.RTTVar),
		MinRTT: time.Duration(e.MinRTT),
		Cwnd:   e.Cwnd, Ssthresh: ssthresh(e.Ssthresh), Flight: e.Flight, PacingRate: e.Rate,
		DeliveryRate: e.DeliveryRate,
	}
}

// ssthresh returns a slow start threshold in bytes, and 0 for one that is beyond the largest
// window: RFC 5681, 3.1, "The initial value of ssthresh SHOULD be set arbitrarily high".
func ssthresh(n int) int {
	if n >= kern.MaxWindow {
		return 0
	}
	return n
}
