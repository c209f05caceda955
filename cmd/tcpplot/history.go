package main

import (
	"fmt"
	"math"
	"slices"
	"time"

	"bsdnet"
	"bsdnet/qlog"
)

// A history has the values of a connection's events as series over time. Times are in seconds
// since the trace's first event.
type history struct {
	title    string
	from, to float64
	events   int // within from and to

	cwnd, ssthresh, flight       series // bytes
	pacing, delivery, throughput series // bits a second
	rtt, srtt, minRTT            series // seconds
	acked, edge                  series // offsets in the stream: acknowledged, and the right edge of the peer's window

	sent, again, sacked, lost []span
	timeouts, undone          []mark
	phases                    []phase

	bytesSent, bytesAgain  int64
	segsAgain, rtos, undos int
}

// A series is a value over time, which is constant between its changes. NaN means no value.
type series []point

type point struct{ t, v float64 }

// A span is a range of sequence numbers at a time.
type span struct{ t, lo, hi float64 }

// A mark is an event at a time, with the value at which it is drawn.
type mark struct {
	t, v float64
	text string
}

// A phase is a time during which losses are repaired.
type phase struct {
	from, to float64
	name     string
}

// unlimited is the congestion window of a connection that has none yet, or needs none: the largest
// possible window (RFC 7323, 2.3).
const unlimited = 65535 << 14

// newHistory makes the series of a connection between two times after start. If to is 0, they end
// with the connection.
func newHistory(start time.Time, c *qlog.Conn, from, to time.Duration) *history {
	h := &history{
		title: fmt.Sprintf("%v → %v, connection %d", c.Local, c.Remote, c.ID),
		from:  math.Inf(1), to: math.Inf(-1),
	}
	b := builder{history: h}
	for i := range c.Events {
		e := &c.Events[i]
		at := e.Time.Sub(start)
		if to > 0 && at > to {
			break
		}
		t := at.Seconds()
		if at >= from {
			h.from, h.to = min(h.from, t), max(h.to, t)
			h.count(e)
		}
		b.event(t, e)
	}
	if from > 0 {
		h.from = from.Seconds()
	}
	if to > 0 {
		h.to = to.Seconds()
	}
	if h.to <= h.from {
		h.to = h.from + 1e-3
	}
	b.setPhase(h.to, "")
	h.phases = slices.DeleteFunc(h.phases, func(p phase) bool { return p.to <= h.from || p.from >= h.to })
	h.throughput = rate(h.acked, h.from, h.to, 2*h.minRTT.max(h.from, h.to))
	return h
}

// count counts an event for the summary.
func (h *history) count(e *bsdnet.TraceEvent) {
	h.events++
	switch {
	case e.Kind == bsdnet.TraceSent:
		h.bytesSent += int64(e.Len)
	case e.Kind == bsdnet.TraceRetransmit:
		h.bytesAgain += int64(e.Len)
		h.segsAgain++
	case e.Kind == bsdnet.TraceUndo:
		h.undos++
	case timeout(e):
		h.rtos++
	}
}

// timeout reports whether an event is an expiry of the retransmission timer.
func timeout(e *bsdnet.TraceEvent) bool { return e.Kind == bsdnet.TraceTimer && e.Name == "rexmt" }

// A builder is a history that is being made.
type builder struct {
	*history
	seq   int64 // the last sequence number, as an offset that does not wrap
	phase phase
}

// offset returns the offset in the stream of a sequence number: of all possible offsets, the one
// nearest to the last.
func (b *builder) offset(n uint32) float64 {
	b.seq = max(b.seq+int64(int32(n-uint32(b.seq))), 0)
	return float64(b.seq)
}

func (b *builder) event(t float64, e *bsdnet.TraceEvent) {
	b.cwnd.add(t, known(e.Cwnd > 0 && e.Cwnd < unlimited, float64(e.Cwnd)))
	b.ssthresh.add(t, known(e.Ssthresh > 0, float64(e.Ssthresh)))
	flight := float64(e.Flight)
	if e.Kind == bsdnet.TraceSent { // Flight does not count it yet, and the next event may be far away
		flight += float64(e.Len)
	}
	b.flight.add(t, flight)
	b.pacing.add(t, known(e.PacingRate > 0, 8*float64(e.PacingRate)))
	b.delivery.add(t, known(e.DeliveryRate > 0, 8*float64(e.DeliveryRate)))
	switch e.Kind {
	case bsdnet.TraceRTT:
		b.rtt = append(b.rtt, point{t, e.RTT.Seconds()})
		b.srtt.add(t, e.SRTT.Seconds())
		b.minRTT.add(t, e.MinRTT.Seconds())
	case bsdnet.TraceSent, bsdnet.TraceRetransmit, bsdnet.TraceLost:
		lo := b.offset(e.Seq)
		s := span{t, lo, lo + float64(e.Len)}
		switch e.Kind {
		case bsdnet.TraceSent:
			b.sent = append(b.sent, s)
		case bsdnet.TraceRetransmit:
			b.again = append(b.again, s)
		default:
			b.lost = append(b.lost, s)
		}
	case bsdnet.TraceAck:
		b.ack(t, e)
	case bsdnet.TraceTimer:
		if timeout(e) {
			b.timeouts = append(b.timeouts, mark{t, float64(e.Cwnd), "RTO"})
		}
	case bsdnet.TraceRecovery:
		b.setPhase(t, e.Name)
	case bsdnet.TraceUndo:
		b.undone = append(b.undone, mark{t, float64(e.Cwnd), e.Name})
	}
}

// ack notes an acknowledgment. One that has been overtaken by another moves nothing back.
func (b *builder) ack(t float64, e *bsdnet.TraceEvent) {
	a := b.offset(e.Ack)
	edge := a + float64(e.Win)
	if n := len(b.acked); n > 0 {
		a, edge = max(a, b.acked[n-1].v), max(edge, b.edge[len(b.edge)-1].v)
	}
	b.acked.add(t, a)
	b.edge.add(t, edge)
	for _, r := range e.Sack {
		lo := b.offset(r[0])
		b.sacked = append(b.sacked, span{t, lo, lo + float64(r[1]-r[0])})
	}
}

// setPhase ends the current phase, and begins one if losses are repaired in the state name.
func (b *builder) setPhase(t float64, name string) {
	if p := b.phase; p.name != "" {
		p.to = t
		b.phases = append(b.phases, p)
	}
	b.phase = phase{}
	if name == "Recovery" || name == "Loss" || name == "CWR" {
		b.phase = phase{from: t, name: name}
	}
}

// known returns v, or NaN if it is unknown.
func known(ok bool, v float64) float64 {
	if ok {
		return v
	}
	return math.NaN()
}

// add appends v if it differs from the last value.
func (s *series) add(t, v float64) {
	if n := len(*s); n > 0 && ((*s)[n-1].v == v || math.IsNaN((*s)[n-1].v) && math.IsNaN(v)) {
		return
	}
	*s = append(*s, point{t, v})
}

// max returns the largest value between two times, including the value at the first. It returns 0
// if there is none.
func (s series) max(from, to float64) float64 {
	most := 0.0
	for i, p := range s {
		if p.t <= to && (p.t >= from || i+1 == len(s) || s[i+1].t > from) && p.v > most {
			most = p.v
		}
	}
	return most
}

// rate returns the speed of an offset between two times, in bits a second. Each value is the mean
// over a hundredth of the time, or over least seconds if that is longer, which evens bursts out.
func rate(offset series, from, to, least float64) series {
	var s series
	step := min(max((to-from)/100, least), to-from)
	bins := int((to-from)/step + 0.5)
	i, last := 0, math.NaN()
	for k := 0; k <= bins; k++ {
		t := from + float64(k)*step
		v := last
		for ; i < len(offset) && offset[i].t <= t; i++ {
			v = offset[i].v
		}
		if k > 0 {
			s = append(s, point{t - step, known(v >= last, 8*(v-last)/step)})
		}
		last = v
	}
	return s
}
