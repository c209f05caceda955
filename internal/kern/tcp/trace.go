package tcp

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

// An Event is something that has happened on a connection, for a tracer. Sequence numbers are relative to our initial one. What a kind does
// not name is 0; Cwnd, Ssthresh, Rate and Flight are there in every event.
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
