package kern

import (
	"fmt"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
)

// A holdUp is a callout whose call takes as long as the test wants.
type holdUp chan struct{}

func (h holdUp) expire(int64) { <-h }

// A processor that has been busy elsewhere must not look like a lost packet: if timers are late,
// packets that have arrived meanwhile are processed first.
func TestStarvedProcessor(t *testing.T) {
	const rto = 200 * time.Millisecond // the handshake has taken no time
	for _, c := range []struct {
		name string
		hold func(m *merging) (release func())
	}{
		{"asleep", func(m *merging) func() {
			k := m.v.k
			k.clock.timer.Stop()
			return func() { go k.clock.fire() }
		}},
		{"in a call", func(m *merging) func() {
			k := m.v.k
			h := make(holdUp)
			co := &callout{at: never, id: k.socketID.Add(1)}
			k.clock.tables = append(make([]expirer, co.id-1), h)
			k.clock.arm(co, k.now()+int64(rto/4))
			return func() { h <- struct{}{} }
		}},
	} {
		for _, acked := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/acked=%v", c.name, acked), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m, done := mergingPeer(t, false, true)
					defer done()
					m.v.p.Send(m.fd, make([]byte, 1000), 0)
					m.v.one()
					m.v.link.count()
					tables := m.v.k.clock.tables
					release := c.hold(m)
					pass(2 * rto)
					if m.v.link.count() > 0 {
						t.Error("the timer was not held up")
					}
					release()
					settle() // the clock is about to call, and the link's goroutine has not run yet
					m.ack = m.ack.Add(1000)
					if acked {
						m.l.batches <- [][]byte{m.seg(wire.ACK, nil).bytes()}
					}
					pass(100 * time.Millisecond)
					m.v.k.clock.tables = tables
					if n := len(m.v.segments()); n != 0 && acked {
						t.Errorf("%d segments were sent again, and the acknowledgment had arrived", n)
					} else if n == 0 && !acked {
						t.Error("the timer is forgotten")
					}
				})
			})
		}
	}
}

// A connection that has ended leaves the clock at once, although its timers, and the deadlines of
// calls that slept in it, may be hours away. Otherwise a peer that connects and resets all the time
// would fill the memory.
func TestGoneSocketsLeaveClock(t *testing.T) {
	for _, prof := range []func() *tcp.Profile{tcp.Default, tcp.FreeBSD} {
		synctest.Test(t, func(t *testing.T) {
			v := attacked(t, func(_ *Config, p *tcp.Profile) {
				*p = *prof()
				p.Keepalive = true
				p.Keepidle = int64(2 * time.Hour)
			})
			defer v.done()
			lfd := v.listen(80, 10)
			for i := range uint16(100) {
				p, fd := v.established(lfd, 5000+i, 80)
				so := v.p.Sock(fd)
				far := time.Now().Add(24 * time.Hour)
				so.SetDeadlines(&far, &far)
				so.Setnbio(false)
				var wg sync.WaitGroup
				wg.Go(func() { so.Soreceive(make([]byte, 1), 0) })
				settle()
				if i%2 == 0 {
					v.inject(p.seg(wire.RST, nil).bytes())
				} else {
					v.no(v.p.Setlinger(fd, true, 0))
				}
				v.no(v.p.Close(fd))
				wg.Wait()
			}
			if n, most := len(v.k.clock.heap), 1+len(v.k.clock.tables); n > most {
				t.Errorf("%s: %d callouts are set, want at most %d", v.k.prof.Name, n, most)
			}
		})
	}
}

// A calledAt notes when it is called.
type calledAt struct {
	k  *Kernel
	at []int64
}

func (c *calledAt) expire(int64) { c.at = append(c.at, c.k.now()) }

// The clock waits 3 ms if it is more than 20 ms late, and not at all if it is less late, or if the
// callout was overdue when it was set: a deadline in the past, which users set, is no sign of a
// busy processor.
func TestClockGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		c := &v.k.clock
		tables := c.tables
		defer func() { c.tables = tables }()
		called := &calledAt{k: v.k}
		co := &callout{at: never, id: v.k.socketID.Add(1)}
		c.tables = append(make([]expirer, co.id-1), called)
		for _, late := range []time.Duration{
			0, 1, 5 * time.Millisecond, 20 * time.Millisecond, 20*time.Millisecond + 1, time.Second, time.Hour,
		} {
			called.at = nil
			due := v.k.now() + int64(time.Second)
			c.arm(co, due)
			c.timer.Stop()
			pass(time.Second + late)
			go c.fire()
			pass(10 * time.Millisecond)
			want := due + int64(late)
			if late > 20*time.Millisecond {
				want += int64(3 * time.Millisecond)
			}
			if len(called.at) != 1 || called.at[0] != want {
				t.Errorf("the timer is %v late: called at %d, want %d", late, called.at, want)
			}
		}
		for _, past := range []time.Duration{0, time.Millisecond, time.Hour} {
			called.at = nil
			now := v.k.now()
			c.arm(co, now-int64(past))
			pass(10 * time.Millisecond)
			if len(called.at) != 1 || called.at[0] != now {
				t.Errorf("a deadline was over %v before it was set: called at %d, want %d", past, called.at, now)
			}
		}
	})
}

// A timer that fires when its connection has just gone does nothing (A40): between the clock's
// decision and the socket's lock anything may happen to it.
func TestTimerAfterTheEnd(t *testing.T) {
	for _, end := range []func(v *victim, p *peer, so *Socket){
		func(v *victim, p *peer, so *Socket) { v.inject(p.seg(wire.RST, nil).bytes()) },
		func(v *victim, p *peer, so *Socket) { so.Soabort() },
		func(v *victim, p *peer, so *Socket) { so.Setlinger(true, 0); so.Soclose() },
		func(v *victim, p *peer, so *Socket) { v.k.Tcpdrop(func(c Conn) bool { return c.Remote == p.from }) },
	} {
		synctest.Test(t, func(t *testing.T) {
			v := attacked(t, nil)
			defer v.done()
			p, fd := v.established(v.listen(80, 5), 5000, 80)
			so := v.p.Sock(fd)
			v.p.Send(fd, make([]byte, 5000), 0) // the retransmission timer
			p.send([]byte("x"))                 // and that of a delayed acknowledgment
			v.link.fetch()
			end(v, p, so)
			v.link.fetch()
			so.expire(v.k.now() + int64(time.Hour)) // the clock had decided before
			v.none()
			if so.tp.State() != tcp.Closed {
				t.Errorf("state %v", so.tp.State())
			}
			v.p.Close(fd)
		})
	}
}

// A deadline that has passed when it is set ends a call that sleeps without the clock: net/http's
// server ends a read in this way for each request.
func TestPassedDeadlineTakesNoClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		_, fd := v.established(v.listen(80, 1), 5000, 80)
		so := v.p.Sock(fd)
		so.Setnbio(false)
		for range 3 {
			var errno syscall.Errno
			var wg sync.WaitGroup
			wg.Go(func() { _, errno = so.Soreceive(make([]byte, 1), 0) })
			settle()
			at, past := so.out.at, time.Unix(1, 0)
			v.no(so.SetDeadlines(&past, nil))
			if so.out.at != at {
				t.Errorf("the clock is to call at %d, not at %d", so.out.at, at)
			}
			wg.Wait()
			if errno != syscall.EAGAIN {
				t.Errorf("the read ends with %v", errno)
			}
			none := time.Time{}
			v.no(so.SetDeadlines(&none, nil))
		}
	})
}
