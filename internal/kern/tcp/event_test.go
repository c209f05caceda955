package tcp

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"bsdnet/internal/kern/wire"
)

// happened returns what has been told since the last call, of one kind, without the fields that
// all kinds have.
func (k *kit) happened(kind EventKind) []Event {
	var l []Event
	for _, e := range k.traced {
		if e.Kind != kind {
			continue
		}
		if e.Time != k.now || e.Cwnd == 0 || e.Ssthresh == 0 {
			k.fatalf("at %d: incomplete event %+v", k.now, e)
		}
		e.Kind, e.Time, e.Cwnd, e.Ssthresh, e.Flight = 0, 0, 0, 0, 0
		l = append(l, e)
	}
	k.traced = nil
	return l
}

// told compares what has been told of one kind since it was last asked.
func (k *kit) told(kind EventKind, want ...Event) {
	k.t.Helper()
	got := k.happened(kind)
	for i := range got {
		got[i].Rate, got[i].DeliveryRate = 0, 0 // what they are is not the tracer's
	}
	if !reflect.DeepEqual(got, want) {
		k.fatalf("events of kind %d: %+v\nwant %+v", kind, got, want)
	}
}

func TestEventStates(t *testing.T) {
	each(t, func(t *T) {
		k := closed(t, "trace")
		k.connect()
		k.told(EvState, Event{Name: "SYN_SENT", Old: "CLOSED"})
		k.trace(`
			> S 0:0(0)
			< S. 0:0(0) ack 1 win 65535 <mss 1460>
			> . 1:1(0) ack 1`)
		k.told(EvState, Event{Name: "ESTABLISHED", Old: "SYN_SENT"})
		k.advance(time.Second)
		k.shutdown()
		k.told(EvState, Event{Name: "FIN_WAIT_1", Old: "ESTABLISHED"})
		k.trace(`
			> F. 1:1(0) ack 1
			< . 1:1(0) ack 2`)
		k.told(EvState, Event{Name: "FIN_WAIT_2", Old: "FIN_WAIT_1"})
		k.trace(`
			< F. 1:1(0) ack 2
			> . 2:2(0) ack 2`)
		k.told(EvState, Event{Name: "TIME_WAIT", Old: "FIN_WAIT_2"})
	})
}

func TestEventListenerIsNone(t *testing.T) {
	k := closed(&T{t, 1, 1}, "trace")
	k.tp.SetState(Listen)
	k.tp.Close()
	k.told(EvState)
}

func TestEventSegments(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "trace, sack, mss 1000")
		k.traced = nil
		k.write(2500)
		k.told(EvSent, Event{Seq: 1, Len: 1000}, Event{Seq: 1001, Len: 1000}, Event{Seq: 2001, Len: 500})
		k.trace(`
			> . 1:1001(1000) ack 1
			> . 1001:2001(1000) ack 1
			> P. 2001:2501(500) ack 1
			+10ms < . 1:1(0) ack 1 <sack 1001:2001>`)
		k.told(EvAck, Event{Ack: 1, Win: 65535, NSack: 1, Sack: [4][2]uint32{{1001, 2001}}})
		k.line("< P. 1:101(100) ack 1")
		k.told(EvAck) // its acknowledgment is the last one's
		k.line("< P. 101:201(100) ack 2501")
		if f := k.traced[0].Flight; f != 1500 { // what is selectively acknowledged is in flight no more
			t.Errorf("flight when the acknowledgment arrives: %d, want 1500", f)
		}
		k.told(EvAck, Event{Ack: 2501, Win: 65535})
		k.sent = nil
	})
}

func TestEventRTTAndTimer(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "trace, mss 1000")
		k.traced = nil
		k.write(1000)
		k.trace(`
			> P. 1:1001(1000) ack 1
			+40ms < . 1:1(0) ack 1001`)
		rtt := 40 * ms
		k.told(EvRTT, Event{RTT: rtt, SRTT: k.tp.rtt.srtt, RTTVar: k.tp.rtt.rttvar, MinRTT: rtt})
		k.write(1000)
		k.line("> P. 1001:2001(1000) ack 1")
		k.traced = nil
		k.advance(time.Duration(k.tp.timers[tRexmt] - k.now))
		var kinds []EventKind
		for _, e := range k.traced {
			kinds = append(kinds, e.Kind)
		}
		if want := []EventKind{EvTimer, EvLost, EvRecovery, EvRetransmit}; !reflect.DeepEqual(kinds, want) {
			t.Fatalf("kinds %v, want %v", kinds, want)
		}
		if e := k.traced[0]; e.Name != "rexmt" || e.Time != k.now {
			t.Errorf("got %+v, want timer rexmt at %d", e, k.now)
		}
		if e := k.traced[3]; e.Seq != 1001 || e.Len != 1000 {
			t.Errorf("got %+v, want 1000 bytes from 1001", e)
		}
		k.line("> P. 1001:2001(1000) ack 1")
	})
}

// A segment that begins with old data and ends with new is two events.
func TestEventPartlyNew(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "trace, bsd, nagle, mss 1000")
		k.write(600)
		k.line("> P. 1:601(600) ack 1")
		k.write(300)
		k.traced = nil
		k.advance(time.Duration(k.tp.timers[tRexmt] - k.now))
		events := slices.Clone(k.traced)
		k.told(EvRetransmit, Event{Seq: 1, Len: 600})
		k.traced = events
		k.told(EvSent, Event{Seq: 601, Len: 300})
		k.line("> P. 1:901(900) ack 1")
	})
}

// Events that nobody wants must cost nothing: above all no memory.
func TestEventUntracedAllocates(t *testing.T) {
	k := established(&T{t, 1, 1}, "sack")
	seg := &segment{flags: wire.ACK, ack: k.tp.sndUna, win: 1}
	do := func() {
		k.tp.trace(Event{Kind: EvTimer, Name: "rexmt"})
		k.tp.traceState(SynSent)
		k.tp.traceRTT(1)
		k.tp.traceSent(&outseg{seq: k.tp.sndNxt}, 1000)
		k.tp.traceAck(seg)
	}
	if n := testing.AllocsPerRun(100, do); n != 0 || len(k.traced) != 0 {
		t.Errorf("untraced: %v allocations, %d events; want none", n, len(k.traced))
	}
	k.tp.SetTraced()
	if do(); len(k.traced) != 5 {
		t.Errorf("traced: %d events, want 5", len(k.traced))
	}
}
