// Tcpplot draws the events on a connection, from a file that package bsdnet/qlog has written, in
// one SVG with three panels on one axis of time:
//
//   - the congestion window, the slow start threshold and the data in flight, with losses and
//     timeouts;
//   - round trips, and the rates at which data was paced, delivered and acknowledged;
//   - sequence numbers, as tcptrace and xplot show them: data that was sent, sent again,
//     acknowledged and selectively acknowledged, and the right edge of the peer's window.
//
// The panels are shaded while losses are repaired.
//
//	go run ./cmd/tcpplot trace.qlog >out.svg
//	go run ./cmd/tcpplot -conn 3 -from 1s -to 1.5s trace.qlog >out.svg
//
// Without -conn, tcpplot draws the connection that has sent the most, and lists the others on the
// standard error. The file "-" is the standard input. Tcpplot exits with status 1 if the file is
// not a trace or has no such connection, and with status 2 if the command line is wrong.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"bsdnet"
	"bsdnet/qlog"
)

func main() { os.Exit(command(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// options are the command line.
type options struct {
	conn     uint
	any      bool // the command line names no connection
	from, to time.Duration
	file     string
}

// command runs the command line args, and returns the status to exit with.
func command(args []string, in io.Reader, out, errs io.Writer) int {
	var o options
	f := flag.NewFlagSet("tcpplot", flag.ContinueOnError)
	f.SetOutput(errs)
	f.Usage = func() {
		fmt.Fprintln(errs, "usage: tcpplot [flags] trace.qlog >out.svg")
		f.PrintDefaults()
	}
	f.UintVar(&o.conn, "conn", 0, "draw the connection with this `number`; without it, the one that has sent the most")
	f.DurationVar(&o.from, "from", 0, "begin this `time` after the trace's first event")
	f.DurationVar(&o.to, "to", 0, "end this `time` after the trace's first event; 0: with the connection")
	if err := f.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	o.any = true
	f.Visit(func(f *flag.Flag) { o.any = o.any && f.Name != "conn" })
	if f.NArg() != 1 || o.to != 0 && o.to <= o.from {
		if f.NArg() == 1 {
			fmt.Fprintf(errs, "tcpplot: -to %v is not after -from %v\n", o.to, o.from)
		}
		f.Usage()
		return 2
	}
	o.file = f.Arg(0)
	if err := o.run(in, out, errs); err != nil {
		fmt.Fprintln(errs, "tcpplot:", err)
		return 1
	}
	return 0
}

func (o *options) run(in io.Reader, out, errs io.Writer) error {
	if o.file != "-" {
		f, err := os.Open(o.file)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	t, err := qlog.Read(in)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF) && len(t.Conns) > 0:
		// The process that wrote the file was killed. The events before that are worth drawing.
		fmt.Fprintf(errs, "tcpplot: %s: %v; drawing the events before that line\n", o.file, err)
	case err != nil:
		return fmt.Errorf("%s: %w", o.file, err)
	}
	c, err := o.choose(t, errs)
	if err != nil {
		return fmt.Errorf("%s: %w", o.file, err)
	}
	h := newHistory(t.Start, c, o.from, o.to)
	if h.events == 0 {
		return fmt.Errorf("%s: connection %d has no events in this time", o.file, c.ID)
	}
	_, err = io.WriteString(out, draw(h))
	return err
}

// choose returns the connection to draw.
func (o *options) choose(t *qlog.Trace, errs io.Writer) (*qlog.Conn, error) {
	if len(t.Conns) == 0 {
		return nil, errors.New("there are no connections in the file")
	}
	most := t.Conns[0]
	for _, c := range t.Conns {
		if !o.any && uint(c.ID) == o.conn {
			return c, nil
		}
		if bytesSent(c) > bytesSent(most) {
			most = c
		}
	}
	if o.any && len(t.Conns) == 1 {
		return most, nil
	}
	if o.any {
		fmt.Fprintf(errs, "tcpplot: drawing connection %d of these:\n", most.ID)
	} else {
		fmt.Fprintf(errs, "tcpplot: there is no connection %d; choose one of these:\n", o.conn)
	}
	const atMost = 20
	for i, c := range t.Conns {
		if i == atMost {
			fmt.Fprintf(errs, "  and %d more\n", len(t.Conns)-atMost)
			break
		}
		sent := siUnit(float64(bytesSent(c)), "B")
		fmt.Fprintf(errs, "  -conn %-6d %v -> %v, %s sent\n", c.ID, c.Local, c.Remote, sent)
	}
	if !o.any {
		return nil, fmt.Errorf("there is no connection %d in the file", o.conn)
	}
	return most, nil
}

// bytesSent returns how many bytes a connection has sent, each counted once.
func bytesSent(c *qlog.Conn) int64 {
	n := int64(0)
	for i := range c.Events {
		if c.Events[i].Kind == bsdnet.TraceSent {
			n += int64(c.Events[i].Len)
		}
	}
	return n
}
