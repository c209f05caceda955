// Package qlog writes the events on the connections of a stack to a file, and reads them back:
//
//	q := qlog.New(file)
//	stack, err := bsdnet.New(bsdnet.Config{Trace: q.Trace})
//	…
//	err = q.Close()
//
// Command bsdnet/cmd/tcpplot draws such a file.
//
// # The format
//
// A file consists of lines of JSON as in draft-ietf-quic-qlog-main-schema-01, whose format NDJSON
// has a header on the first line and an event on each of the others. If TCP has an event or a field
// that QUIC has too, its name is that of draft-ietf-quic-qlog-quic-events-00:
//
//	{"qlog_version":"0.3","qlog_format":"NDJSON","title":"bsdnet","trace":{
//	 "vantage_point":{"name":"bsdnet","type":"unknown"},"common_fields":{"protocol_type":["TCP"],
//	 "time_format":"relative","reference_time":1767225600000.000000}}}
//	{"time":0.000000,"name":"transport:packet_sent","group_id":"3",
//	 "data":{"seq":1,"len":1448,"congestion_window":14480}}
//
// (A file does not break the lines as this comment does.)
//
// Times are in milliseconds: the time of an event counts from reference_time, and reference_time
// counts from 1970. The group_id is the connection's number, as a string. Sizes are in bytes, and
// rates are in bits a second. A field that is zero is left out.
//
//	connectivity:connection_started       src_ip, src_port, dst_ip, dst_port; comes first
//	connectivity:connection_state_updated old, new
//	connectivity:mtu_updated              mss, trigger
//	recovery:congestion_state_updated     old, new
//	recovery:congestion_undone            trigger; QUIC has no such event
//	recovery:loss_timer_updated           timer_type, event_type: always "expired"
//	recovery:metrics_updated              latest_rtt, smoothed_rtt, rtt_variance and min_rtt
//	                                      if a round trip was measured
//	recovery:packet_lost                  seq, len, trigger
//	transport:packet_sent                 seq, len; retransmission (true or left out) and trigger
//	transport:packet_received             ack, win, sack: a list of [from, to]
//
// In addition, each event except connection_started has congestion_window, ssthresh,
// bytes_in_flight, pacing_rate and delivery_rate.
package qlog

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"bsdnet"
)

// A Writer writes the events of one stack. Its methods may be called from any goroutine.
type Writer struct {
	mu      sync.Mutex
	w       *bufio.Writer
	closed  bool
	start   time.Time
	begun   bool
	started map[uint32]bool // connections whose addresses have been written
	line    []byte
}

// bufSize is the number of bytes that a Writer collects before it writes them.
const bufSize = 64 << 10

var errClosed = errors.New("qlog: the Writer is closed")

// New returns a Writer that writes to w. The stack waits for each write, so a slow w slows its
// connections down.
func New(w io.Writer) *Writer {
	return &Writer{w: bufio.NewWriterSize(w, bufSize), started: map[uint32]bool{}}
}

// Trace writes an event. Set [bsdnet.Config].Trace to this method. It writes nothing after the
// underlying writer has failed, or after Close.
func (q *Writer) Trace(e *bsdnet.TraceEvent) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	q.begin(e.Time)
	if !q.started[e.ConnID] {
		q.started[e.ConnID] = true
		q.connection(e)
	}
	q.event(e)
	if e.Kind == bsdnet.TraceState && (e.Name == "CLOSED" || e.Name == "TIME_WAIT") {
		delete(q.started, e.ConnID) // it was the last event of this connection
	}
}

// Close writes the events that are still buffered and returns the first error of the underlying
// writer, which it does not close. A second Close returns an error.
func (q *Writer) Close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return errClosed
	}
	q.begin(time.Now()) // a file without events has a header too
	q.closed = true
	return q.w.Flush()
}

// begin writes the header, unless it has been written. The times of events count from t. The
// caller holds the lock.
func (q *Writer) begin(t time.Time) {
	if q.begun {
		return
	}
	q.begun, q.start = true, t
	b := append(q.line[:0],
		`{"qlog_version":"`+version+`","qlog_format":"`+format+`","title":"bsdnet","trace":{"vantage_point":`+
			`{"name":"bsdnet","type":"unknown"},"common_fields":{"protocol_type":["TCP"],`+
			`"time_format":"relative","reference_time":`...)
	b = appendMs(b, time.Duration(t.UnixNano()))
	q.write(append(b, "}}}\n"...))
}

// write copies a line to the buffer, and keeps its memory for the next line. The caller holds the
// lock.
func (q *Writer) write(b []byte) {
	q.line = b
	q.w.Write(b) // a bufio.Writer keeps its first error, and Flush returns it
}

// A file has these in its header, and Read checks them.
const (
	version = "0.3"
	format  = "NDJSON"
)

// connection writes the addresses of an event's connection.
func (q *Writer) connection(e *bsdnet.TraceEvent) {
	o := q.object(e, "connectivity:connection_started")
	addr := func(ip, port string, a netip.AddrPort) {
		if a.IsValid() {
			o.text(ip, a.Addr().String())
		}
		o.number(port, int64(a.Port()))
	}
	addr("src_ip", "src_port", e.Local)
	addr("dst_ip", "dst_port", e.Remote)
	q.write(append(o.b, "}}\n"...))
}

// names has the name of the event of each kind. Two kinds are metrics_updated and two are
// packet_sent; their fields tell them apart.
var names = [...]string{
	bsdnet.TraceState:      "connectivity:connection_state_updated",
	bsdnet.TraceTimer:      "recovery:loss_timer_updated",
	bsdnet.TraceRTT:        "recovery:metrics_updated",
	bsdnet.TraceWindow:     "recovery:metrics_updated",
	bsdnet.TraceRecovery:   "recovery:congestion_state_updated",
	bsdnet.TraceLost:       "recovery:packet_lost",
	bsdnet.TraceSent:       "transport:packet_sent",
	bsdnet.TraceRetransmit: "transport:packet_sent",
	bsdnet.TraceAck:        "transport:packet_received",
	bsdnet.TraceUndo:       "recovery:congestion_undone",
	bsdnet.TraceMTU:        "connectivity:mtu_updated",
}

// event writes an event of the connection. It leaves out an event of a kind that names does not
// have, so that a new kind does no harm.
func (q *Writer) event(e *bsdnet.TraceEvent) {
	if int(e.Kind) >= len(names) {
		return
	}
	o := q.object(e, names[e.Kind])
	switch e.Kind {
	case bsdnet.TraceState, bsdnet.TraceRecovery:
		o.text("old", e.Old)
		o.text("new", e.Name)
	case bsdnet.TraceTimer:
		o.text("timer_type", e.Name)
		o.text("event_type", "expired")
	case bsdnet.TraceRTT:
		o.key("latest_rtt") // distinguishes it from TraceWindow
		o.b = appendMs(o.b, e.RTT)
		o.ms("smoothed_rtt", e.SRTT)
		o.ms("rtt_variance", e.RTTVar)
		o.ms("min_rtt", e.MinRTT)
	case bsdnet.TraceLost, bsdnet.TraceSent, bsdnet.TraceRetransmit:
		o.number("seq", int64(e.Seq))
		o.number("len", int64(e.Len))
		if e.Kind == bsdnet.TraceRetransmit {
			o.literal("retransmission", "true")
		}
		o.text("trigger", e.Name)
	case bsdnet.TraceAck:
		o.number("ack", int64(e.Ack))
		o.number("win", int64(e.Win))
		o.ranges("sack", e.Sack)
	case bsdnet.TraceUndo:
		o.text("trigger", e.Name)
	case bsdnet.TraceMTU:
		o.number("mss", int64(e.Len))
		o.text("trigger", e.Name)
	}
	o.number("congestion_window", int64(e.Cwnd))
	o.number("ssthresh", int64(e.Ssthresh))
	o.number("bytes_in_flight", int64(e.Flight))
	o.number("pacing_rate", 8*e.PacingRate)
	o.number("delivery_rate", 8*e.DeliveryRate)
	q.write(append(o.b, "}}\n"...))
}

// An object is the data of an event that is being written, without the braces at its end.
type object struct {
	b     []byte
	comma bool
}

// object begins the line of an event of e's connection.
func (q *Writer) object(e *bsdnet.TraceEvent, name string) object {
	b := append(q.line[:0], `{"time":`...)
	b = appendMs(b, e.Time.Sub(q.start))
	b = append(b, `,"name":"`...)
	b = append(b, name...)
	b = append(b, `","group_id":"`...)
	b = strconv.AppendUint(b, uint64(e.ConnID), 10)
	return object{b: append(b, `","data":{`...)}
}

func (o *object) key(k string) {
	if o.comma {
		o.b = append(o.b, ',')
	}
	o.comma = true
	o.b = append(o.b, '"')
	o.b = append(o.b, k...)
	o.b = append(o.b, `":`...)
}

func (o *object) literal(k, v string) {
	o.key(k)
	o.b = append(o.b, v...)
}

func (o *object) number(k string, n int64) {
	if n != 0 {
		o.key(k)
		o.b = strconv.AppendInt(o.b, n, 10)
	}
}

func (o *object) ms(k string, d time.Duration) {
	if d != 0 {
		o.key(k)
		o.b = appendMs(o.b, d)
	}
}

func (o *object) text(k, s string) {
	if s == "" {
		return
	}
	j, _ := json.Marshal(s) // it cannot fail for a string
	o.literal(k, string(j))
}

func (o *object) ranges(k string, list [][2]uint32) {
	if len(list) == 0 {
		return
	}
	o.key(k)
	for i, r := range list {
		o.b = append(o.b, "[,"[min(i, 1)], '[')
		o.b = strconv.AppendUint(o.b, uint64(r[0]), 10)
		o.b = append(o.b, ',')
		o.b = strconv.AppendUint(o.b, uint64(r[1]), 10)
		o.b = append(o.b, ']')
	}
	o.b = append(o.b, ']')
}

// appendMs writes a time in milliseconds, exact to the nanosecond.
func appendMs(b []byte, d time.Duration) []byte {
	n := uint64(d)
	if d < 0 {
		b = append(b, '-')
		n = -n
	}
	b = strconv.AppendUint(b, n/1e6, 10)
	b = append(b, '.')
	frac := n % 1e6
	for div := uint64(1e5); div > 0; div /= 10 {
		b = append(b, byte('0'+frac/div%10))
	}
	return b
}
