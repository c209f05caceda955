package kern

import (
	"net/netip"
	"time"

	"bsdnet/internal/kern/tcp"
)

// A Trace describes an event on a connection, as the records that BSD's tcp_trace makes for trpt.
// It is valid only during the call of Config.Trace.
type Trace struct {
	Time          time.Time      // Event.Time, by the clock of the day
	Conn          uint32         // the connection's number, which no other of the stack has
	Local, Remote netip.AddrPort // its ends
	Event         *tcp.Event
}

// Trace hands an event of the socket's connection to Config.Trace: BSD's tcp_trace. The machine
// calls it only if Config.Trace is set.
func (so *Socket) Trace(e *tcp.Event) {
	t := Trace{Time: so.k.wallAt(e.Time), Conn: so.out.id, Local: so.inp.local(), Remote: so.inp.remote(), Event: e}
	so.k.trace(&t)
}
