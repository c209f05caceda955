package kern

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet/internal/kern/tcp"
)

// TestTrace: both ends of a connection over the loopback are traced, each under a number and with
// its addresses, at the time of the clock of the day. All other tests run without Config.Trace.
func TestTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type end struct {
			local, remote netip.AddrPort
			states        []string
		}
		ends := map[uint32]*end{}
		sent := map[uint32]int{}
		start, last := time.Now(), time.Now()
		v := attacked(t, func(c *Config, _ *tcp.Profile) {
			c.Trace = func(e *Trace) { // the loopback's two ends take turns on this goroutine
				if e.Time.Before(last) || !e.Time.Equal(start.Add(time.Duration(e.Event.Time-epoch))) {
					t.Errorf("event at %v after one at %v; the stack's time was %d", e.Time, last, e.Event.Time)
				}
				last = e.Time
				c := ends[e.Conn]
				if c == nil {
					c = &end{local: e.Local, remote: e.Remote}
					ends[e.Conn] = c
				}
				if c.local != e.Local || c.remote != e.Remote {
					t.Errorf("connection %d is %v -> %v, and then %v -> %v", e.Conn, c.local, c.remote, e.Local,
						e.Remote)
				}
				switch e.Event.Kind {
				case tcp.EvState:
					c.states = append(c.states, e.Event.Name)
				case tcp.EvSent:
					sent[e.Conn] += e.Event.Len
				}
			}
		})
		defer v.done()
		time.Sleep(time.Hour)
		l := v.listen(80, 5)
		c, errno := v.p.Socket(AF_INET, SOCK_STREAM, 0)
		v.no(errno)
		to := netip.MustParseAddrPort("127.0.0.1:80")
		v.no(v.p.Connect(c, to))
		a, from, errno := v.p.Accept(l)
		v.no(errno)
		_, errno = v.p.Send(c, make([]byte, 1000), 0)
		v.no(errno)
		dialer, accepted := v.p.Sock(c).out.id, v.p.Sock(a).out.id
		v.no(v.p.Close(c))
		v.no(v.p.Close(a))
		if len(ends) != 2 || dialer == accepted || ends[dialer] == nil || ends[accepted] == nil {
			t.Fatalf("connections %v; want %d and %d", ends, dialer, accepted)
		}
		for id, want := range map[uint32]end{
			dialer:   {from, to, []string{"SYN_SENT", "ESTABLISHED", "FIN_WAIT_1"}},
			accepted: {to, from, []string{"SYN_RECEIVED", "ESTABLISHED", "CLOSE_WAIT"}},
		} {
			got := ends[id]
			if got.local != want.local || got.remote != want.remote || len(got.states) < 3 ||
				[3]string(got.states) != [3]string(want.states) {
				t.Errorf("connection %d: %+v, want %+v and more", id, got, want)
			}
		}
		if n := sent[dialer]; n != 1002 { // with SYN and FIN
			t.Errorf("%d numbers were sent, want 1002", n)
		}
	})
}
