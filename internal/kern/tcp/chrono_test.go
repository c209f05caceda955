package tcp

import (
	"testing"
	"time"
)

// chronoInfo returns how long the sender has been busy, held back by the peer's window, and by the
// send buffer.
func (k *kit) chronoInfo() [3]time.Duration {
	k.tp.onwards(k.now)
	i := k.tp.Info()
	return [3]time.Duration{i.BusyTime, i.RwndLimited, i.SndbufLimited}
}

func (k *kit) wantChrono(busy, rwnd, sndbuf time.Duration) {
	k.t.Helper()
	if got, want := k.chronoInfo(), [3]time.Duration{busy, rwnd, sndbuf}; got != want {
		k.fatalf("busy, rwnd-limited and sndbuf-limited for %v, want %v", got, want)
	}
}

// Linux's tcpi_busy_time, tcpi_rwnd_limited and tcpi_sndbuf_limited: the latter two are parts of
// the first, and a sender with nothing to do is not busy.
func TestChrono(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t, "wscale 0, win 4000")
		k.during(time.Second, "")
		k.wantChrono(0, 0, 0)
		k.write(3000)
		k.during(100e6, segs(1, 3))
		k.wantChrono(100*time.Millisecond, 0, 0)
		k.ack(3001)
		k.during(time.Second, "") // idle
		k.wantChrono(100*time.Millisecond, 0, 0)
		k.write(10000)
		k.during(100e6, segs(3001, 4)) // the window ends here
		k.wantChrono(200*time.Millisecond, 100*time.Millisecond, 0)
		k.line("< . 1:1(0) ack 7001 win 65535")
		k.during(50e6, segs(7001, 6))
		k.wantChrono(250*time.Millisecond, 100*time.Millisecond, 0)
		k.ack(13001)
		k.during(50e6, "")
		k.wantChrono(250*time.Millisecond, 100*time.Millisecond, 0)
		// A closed window is one as well.
		k.write(2000)
		k.during(100e6, segs(13001, 2))
		k.write(1)
		k.line("> P. 15001:15002(1) ack 1")
		k.line("< . 1:1(0) ack 15002 win 0")
		k.write(1000)
		k.during(100e6, "")
		k.wantChrono(450*time.Millisecond, 200*time.Millisecond, 0)
	})
}

// The send buffer is too small if it is full, and the window is not.
func TestChronoSendbuf(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t, "sndbuf 4000")
		k.write(4000)
		k.during(100e6, segs(1, 4))
		k.wantChrono(100*time.Millisecond, 0, 100*time.Millisecond)
		k.ack(2001)
		k.during(50e6, "") // there is room, and the user has nothing to say
		k.wantChrono(150*time.Millisecond, 0, 100*time.Millisecond)
		k.write(1500)
		k.during(50e6, "4001:5001 5001:5501")
		k.wantChrono(200*time.Millisecond, 0, 100*time.Millisecond)
	})
}
