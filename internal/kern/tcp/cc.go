package tcp

import "bsdnet/internal/kern/mbuf"

// A Signal is a sign of congestion: FreeBSD's CC_NDUPACK, CC_RTO and CC_ECN.
type Signal uint8

// The signals.
const (
	Loss Signal = iota // a segment has been found lost, and recovery begins
	RTO                // the retransmission timer has fired for a flight that had not timed out before
	ECN                // the peer has echoed a congestion mark (RFC 3168)
)

// A View is what a congestion controller sees of its connection: no more than it needs, so that it
// can be tested without one. Sizes are in bytes, times in nanoseconds.
type View struct {
	Now           int64  // when the acknowledgment arrived, or the present
	MSS           int    // payload of a full segment
	InitialWindow int    // RFC 6928
	SRTT          int64  // smoothed round trip; 0: not measured yet
	MinRTT        int64  // the least round trip so far; 0: not measured yet
	Sent          uint64 // SND.NXT, as an offset in the stream that does not wrap
	Acked         uint64 // SND.UNA, likewise
	Flight        int    // what is in the network: sent, and neither acknowledged nor found lost (RFC 6675's pipe)
	PriorFlight   int    // the same before this acknowledgment
	Delivered     uint64 // acknowledged or selectively acknowledged so far
	Lost          uint64 // found lost so far
	// the window has held back data since the last acknowledgment, or is in use by more than half
	// in slow start (RFC 7661)
	CwndLimited bool
	AppLimited  bool // the sender has nothing more to send
	// the window is being reduced, while losses of this flight are repaired or for a congestion
	// mark
	InRecovery bool
}

// An Ack is what an acknowledgment has brought.
type Ack struct {
	Acked     int   // bytes acknowledged in order
	Delivered int   // bytes acknowledged, in order or selectively, for the first time
	Lost      int   // bytes found lost
	RTT       int64 // a round trip that it has measured; 0: none
	Rate      RateSample
}

// A RateSample measures the rate of delivery over about one round trip, of the segment that was
// sent last of those that the acknowledgment covers (draft-ietf-ccwg-bbr, 4.1).
type RateSample struct {
	Delivered      int    // bytes delivered over Interval; 0: there is no sample
	Interval       int64  // the longer of the times in which they were sent and acknowledged
	PriorDelivered uint64 // View.Delivered when the segment was sent
	Flight         int    // View.Flight when it had been sent, with it
	Lost           int    // bytes found lost since it was sent
	AppLimited     bool   // the sender had nothing more to send then: the rate may be less than what the path carries
}

// A Control is what a congestion controller answers with.
type Control struct {
	Cwnd     int   // congestion window, bytes
	Ssthresh int   // slow start threshold, bytes
	Rate     int64 // pacing rate, bytes a second; 0: the sender's choice, from Cwnd and the round trip
}

// A CC is the congestion controller of one connection. It is called in the order in which things
// happen, and answers in c.
type CC interface {
	// Init is called once, before the first data is sent.
	Init(v *View, c *Control)
	// Acked is called for each acknowledgment that has delivered anything, or by which something
	// was found lost.
	Acked(v *View, a *Ack, c *Control)
	// Congested sets c.Ssthresh, once for each flight. The window is then reduced by proportional
	// rate reduction (RFC 9937), or after a time-out starts from one segment, unless the controller
	// has it in hand itself (see OwnWindow).
	Congested(v *View, s Signal, c *Control)
	// Undo takes back the last Congested: nothing had been lost (RFC 3522, RFC 5682).
	Undo(v *View, c *Control)
	// Recovered is called when all that was in flight when loss was found has been acknowledged.
	Recovered(v *View, c *Control)
	// Restart is called before data is sent when nothing was in flight for idle nanoseconds.
	Restart(v *View, idle int64, c *Control)
	// OwnWindow reports whether the controller sets c.Cwnd during recovery as well.
	OwnWindow() bool
}

// NewCC returns a new controller by its name, one of CCNames, or nil if there is none of that
// name.
func NewCC(name string) CC {
	switch name {
	case "bbr":
		return made(&bbrs)
	case "bbr1":
		return made(&bbr1s)
	case "cubic":
		return made(&cubics)
	case "newreno":
		return made(&newRenos)
	}
	return nil
}

// Controllers are kept for the next connection when one is over.
var (
	bbrs     mbuf.Zone[bbr]
	bbr1s    mbuf.Zone[bbr1]
	cubics   mbuf.Zone[cubic]
	newRenos mbuf.Zone[newReno]
)

// made returns a new controller, which may have been another connection's.
func made[T any](z *mbuf.Zone[T]) *T {
	c := z.Alloc()
	*c = *new(T)
	return c
}

// freeCC gives a controller back that nobody calls any more.
func freeCC(c CC) {
	switch c := c.(type) {
	case *bbr:
		bbrs.Free(c)
	case *bbr1:
		bbr1s.Free(c)
	case *cubic:
		cubics.Free(c)
	case *newReno:
		newRenos.Free(c)
	}
}

// CCNames returns the names that NewCC knows, sorted.
func CCNames() []string { return []string{"bbr", "bbr1", "cubic", "newreno"} }
