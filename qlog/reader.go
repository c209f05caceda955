package qlog

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"bsdnet"
)

// A Trace has the events of a file.
type Trace struct {
	Start time.Time // time of the first event
	Conns []*Conn   // in the order of their first events
}

// A Conn is one connection of a Trace.
type Conn struct {
	ID            uint32
	Local, Remote netip.AddrPort
	Events        []bsdnet.TraceEvent // in the order of the file, which is the order in which they happened
}

// These bounds on a file keep a bad one from taking all memory.
const (
	maxLine   = 16 << 10 // bytes; a Writer's lines have some hundred
	maxEvents = 1 << 22
	maxSack   = 4       // blocks of one acknowledgment (RFC 2018, 3)
	maxTime   = 4 << 60 // nanoseconds: until 2116
)

// Read reads a file that a [Writer] has written. An error, except one of r, begins with the number
// of the line at fault, and the Trace has the events before that line. If the file ends within a
// line, because its process did not close the Writer, the error wraps io.ErrUnexpectedEOF. A file
// of more than 4,194,304 events, or with a line of more than 16 KiB, is an error. Read skips events
// with names that no Writer uses.
func Read(r io.Reader) (*Trace, error) {
	t := &reader{conns: map[uint32]*Conn{}, names: map[string]string{}}
	in := bufio.NewReaderSize(r, maxLine)
	for n := 1; ; n++ {
		b, err := in.ReadSlice('\n')
		switch {
		case err == io.EOF && len(b) == 0 && n > 1:
			return &t.Trace, nil
		case err == io.EOF && n == 1:
			return &t.Trace, errors.New("line 1: there is no header: this is not a qlog file")
		case err == io.EOF:
			return &t.Trace, fmt.Errorf("line %d: %w: the line has no end", n, io.ErrUnexpectedEOF)
		case err == bufio.ErrBufferFull:
			return &t.Trace, fmt.Errorf("line %d: the line is longer than %d bytes", n, maxLine)
		case err != nil:
			return &t.Trace, err
		}
		if n == 1 {
			err = t.header(b)
		} else {
			err = t.event(b)
		}
		if err != nil {
			return &t.Trace, fmt.Errorf("line %d: %w", n, err)
		}
	}
}

// A reader is a Trace that is being read.
type reader struct {
	Trace
	conns map[uint32]*Conn
	names map[string]string // each string that has come up, once
	n     int               // events
}

func (t *reader) header(b []byte) error {
	var h struct {
		Version string `json:"qlog_version"`
		Format  string `json:"qlog_format"`
		Trace   struct {
			Common struct {
				TimeFormat string      `json:"time_format"`
				Reference  json.Number `json:"reference_time"`
			} `json:"common_fields"`
		} `json:"trace"`
	}
	if err := json.Unmarshal(b, &h); err != nil {
		return fmt.Errorf("this is not the header of a qlog file: %w", err)
	}
	c := &h.Trace.Common
	if h.Version != version || h.Format != format || c.TimeFormat != "relative" {
		return fmt.Errorf("qlog_version, qlog_format and time_format are %q, %q and %q; want %q, %q and %q",
			h.Version, h.Format, c.TimeFormat, version, format, "relative")
	}
	ns, err := parseMs(c.Reference)
	if err != nil || c.Reference == "" || ns < 0 {
		return fmt.Errorf("reference_time is %q; want milliseconds since 1970", c.Reference)
	}
	t.Start = time.Unix(0, int64(ns))
	return nil
}

// data has the fields of all kinds of events.
type data struct {
	SrcIP   string `json:"src_ip"`
	DstIP   string `json:"dst_ip"`
	SrcPort uint16 `json:"src_port"`
	DstPort uint16 `json:"dst_port"`

	Old   string      `json:"old"`
	New   string      `json:"new"`
	Timer string      `json:"timer_type"`
	Why   string      `json:"trigger"`
	Last  json.Number `json:"latest_rtt"`
	SRTT  json.Number `json:"smoothed_rtt"`
	Var   json.Number `json:"rtt_variance"`
	Min   json.Number `json:"min_rtt"`
	Seq   uint32      `json:"seq"`
	Len   int         `json:"len"`
	MSS   int         `json:"mss"`
	Again bool        `json:"retransmission"`
	Ack   uint32      `json:"ack"`
	Win   int         `json:"win"`
	Sack  [][]uint32  `json:"sack"`

	Cwnd     int   `json:"congestion_window"`
	Ssthresh int   `json:"ssthresh"`
	Flight   int   `json:"bytes_in_flight"`
	Pacing   int64 `json:"pacing_rate"`
	Delivery int64 `json:"delivery_rate"`
}

func (t *reader) event(b []byte) error {
	var l struct {
		Time  json.Number `json:"time"`
		Name  string      `json:"name"`
		Group json.Number `json:"group_id"`
		Data  data        `json:"data"`
	}
	if err := json.Unmarshal(b, &l); err != nil {
		return err
	}
	at, err := parseMs(l.Time)
	if err != nil || l.Time == "" {
		return fmt.Errorf("time is %q; want milliseconds from the header's reference_time on", l.Time)
	}
	id, err := strconv.ParseUint(string(l.Group), 10, 32)
	if err != nil {
		return fmt.Errorf("group_id is %q; want the number of a connection", l.Group)
	}
	c := t.conns[uint32(id)]
	if c == nil {
		if l.Name != "connectivity:connection_started" {
			return fmt.Errorf("connection %d has not been started", id)
		}
		c = &Conn{ID: uint32(id)}
		t.conns[c.ID] = c
		t.Conns = append(t.Conns, c)
	}
	if t.n++; t.n > maxEvents {
		return fmt.Errorf("there are more than %d events", maxEvents)
	}
	if l.Name == "connectivity:connection_started" {
		return c.addresses(&l.Data)
	}
	e := bsdnet.TraceEvent{Time: t.Start.Add(at), ConnID: c.ID, Local: c.Local, Remote: c.Remote}
	known, err := t.fill(&e, l.Name, &l.Data)
	if err == nil && known {
		c.Events = append(c.Events, e)
	}
	return err
}

// addresses takes the addresses from the data of connection_started.
func (c *Conn) addresses(d *data) error {
	addr := func(s string, port uint16) (netip.AddrPort, error) {
		if s == "" {
			return netip.AddrPortFrom(netip.Addr{}, port), nil
		}
		ip, err := netip.ParseAddr(s)
		return netip.AddrPortFrom(ip, port), err
	}
	local, lerr := addr(d.SrcIP, d.SrcPort)
	remote, rerr := addr(d.DstIP, d.DstPort)
	if err := errors.Join(lerr, rerr); err != nil {
		return err
	}
	if len(c.Events) > 0 && (local != c.Local || remote != c.Remote) {
		return fmt.Errorf("connection %d is %v -> %v, and was %v -> %v: the file has the events of two stacks",
			c.ID, local, remote, c.Local, c.Remote)
	}
	c.Local, c.Remote = local, remote
	return nil
}

// fill sets e from the data of an event with the given name. It reports false if the name is
// unknown.
func (t *reader) fill(e *bsdnet.TraceEvent, name string, d *data) (known bool, err error) {
	switch name {
	case names[bsdnet.TraceState]:
		e.Kind, e.Old, e.Name = bsdnet.TraceState, t.one(d.Old), t.one(d.New)
	case names[bsdnet.TraceRecovery]:
		e.Kind, e.Old, e.Name = bsdnet.TraceRecovery, t.one(d.Old), t.one(d.New)
	case names[bsdnet.TraceTimer]:
		e.Kind, e.Name = bsdnet.TraceTimer, t.one(d.Timer)
	case names[bsdnet.TraceRTT]:
		e.Kind = bsdnet.TraceWindow
		if d.Last != "" {
			e.Kind = bsdnet.TraceRTT
			if e.RTT, e.SRTT, e.RTTVar, e.MinRTT, err = d.rtts(); err != nil {
				return false, err
			}
		}
	case names[bsdnet.TraceLost]:
		e.Kind, e.Seq, e.Len, e.Name = bsdnet.TraceLost, d.Seq, d.Len, t.one(d.Why)
	case names[bsdnet.TraceSent]:
		e.Kind, e.Seq, e.Len, e.Name = bsdnet.TraceSent, d.Seq, d.Len, t.one(d.Why)
		if d.Again {
			e.Kind = bsdnet.TraceRetransmit
		}
	case names[bsdnet.TraceAck]:
		e.Kind, e.Ack, e.Win = bsdnet.TraceAck, d.Ack, d.Win
		if e.Sack, err = d.blocks(); err != nil {
			return false, err
		}
	case names[bsdnet.TraceUndo]:
		e.Kind, e.Name = bsdnet.TraceUndo, t.one(d.Why)
	case names[bsdnet.TraceMTU]:
		e.Kind, e.Len, e.Name = bsdnet.TraceMTU, d.MSS, t.one(d.Why)
	default:
		return false, nil
	}
	e.Cwnd, e.Ssthresh, e.Flight, e.PacingRate, e.DeliveryRate = d.Cwnd, d.Ssthresh, d.Flight, d.Pacing/8, d.Delivery/8
	return true, t.check(e)
}

// one returns s as a string that does not keep the line in memory from which it was read.
func (t *reader) one(s string) string {
	if o, ok := t.names[s]; ok {
		return o
	}
	s = strings.Clone(s)
	t.names[s] = s
	return s
}

func (d *data) rtts() (rtt, srtt, rttvar, minRTT time.Duration, err error) {
	var errs [4]error
	rtt, errs[0] = parseMs(d.Last)
	srtt, errs[1] = parseMs(d.SRTT)
	rttvar, errs[2] = parseMs(d.Var)
	minRTT, errs[3] = parseMs(d.Min)
	return rtt, srtt, rttvar, minRTT, errors.Join(errs[:]...)
}

func (d *data) blocks() ([][2]uint32, error) {
	if len(d.Sack) > maxSack {
		return nil, fmt.Errorf("sack has %d ranges; an acknowledgment has %d at most", len(d.Sack), maxSack)
	}
	var list [][2]uint32
	for _, r := range d.Sack {
		if len(r) != 2 {
			return nil, fmt.Errorf("sack has a range of %d numbers; want 2", len(r))
		}
		list = append(list, [2]uint32(r))
	}
	return list, nil
}

// check returns an error if a value of the event is impossible.
func (t *reader) check(e *bsdnet.TraceEvent) error {
	if min(e.Len, e.Win, e.Cwnd, e.Ssthresh, e.Flight) < 0 || min(e.PacingRate, e.DeliveryRate) < 0 ||
		min(e.RTT, e.SRTT, e.RTTVar, e.MinRTT) < 0 {
		return errors.New("a size, a rate or a round trip is negative")
	}
	if ns := e.Time.Sub(time.Unix(0, 0)); ns < 0 || ns >= maxTime {
		return fmt.Errorf("the time is %v; want one between 1970 and 2116", e.Time.UTC())
	}
	return nil
}

// parseMs reads a time in milliseconds, to the nanosecond. A missing field, "", is 0.
func parseMs(n json.Number) (time.Duration, error) {
	var ns int64
	var err error
	if strings.ContainsAny(string(n), "eE") { // a Writer never writes this: a float is exact enough
		var f float64
		if f, err = n.Float64(); err == nil && -maxTime < f*1e6 && f*1e6 < maxTime {
			return time.Duration(f * 1e6), nil
		}
	} else {
		whole, frac, _ := strings.Cut(string(n), ".")
		ns, err = strconv.ParseInt(whole+(frac + "000000")[:6], 10, 64)
		if err == nil && -maxTime < ns && ns < maxTime {
			return time.Duration(ns), nil
		}
	}
	return 0, fmt.Errorf("the time of %s ms is out of range", n)
}
