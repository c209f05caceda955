package kern

import (
	"net/netip"
	"time"

	"bsdnet/internal/kern/tcp"
)

// A Trace is an event on a connection, and which connection it is: what BSD's tcp_trace records
// for trpt. It is lent.
type Trace struct {
	Time          time.Time      // Event.Time, by the clock of the day
	Conn          uint32         // the connection's number, which no other of the stack has
	Local, Remote netip.AddrPort // its ends
	Event         *tcp.Event
}

// Trace hands an event of the socket's connection to Config.Trace: BSD's tcp_trace. The machine
// calls it only if there is one.
func (so *Socket) Trace(e *tcp.Event) {
	t := Trace{Time: so.k.wallAt(e.Time), Conn: so.out.id, Local: so.inp.local(), Remote: so.inp.remote(), Event: e}
	so.k.trace(&t)
}
