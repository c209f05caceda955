package tcp

import (
	"syscall"
	"testing"
	"time"
)

// A controller is chosen by its name, before there is data or later; there is none of another name.
func TestSetCC(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t)
		k.want("cc", "cubic")
		if e := k.tp.SetCC("vegas", k.now); e != syscall.ENOENT {
			t.Fatalf("SetCC of no controller: %v", e)
		}
		k.want("cc", "cubic")
		if e := k.tp.SetCC("newreno", k.now); e != 0 {
			t.Fatal(e)
		}
		k.want("cc", "newreno")
		k.write(1000)
		k.sends("1:1001")
		if _, ok := k.tp.snr.cc.(*newReno); !ok {
			t.Fatalf("the controller is a %T", k.tp.snr.cc)
		}

		k = established(t, "FreeBSD") // it has but one
		if e := k.tp.SetCC("cubic", k.now); e != syscall.ENOENT {
			t.Fatalf("SetCC without a scoreboard: %v", e)
		}
		if e := k.tp.SetCC("newreno", k.now); e != 0 {
			t.Fatal(e)
		}
		k.want("cc", "newreno")
	})
}

// In the midst of a connection the window and the threshold stay as they are, from each controller
// to each, also if the window is smaller than an initial one; pacing goes on.
func TestSetCCLater(t *testing.T) {
	each(t, func(t *T) {
		for _, from := range CCNames() {
			for _, to := range CCNames() {
				k := sending(t, withCC(from), func(p *Profile) { p.Blackhole = false })
				k.write(30000)
				k.collect(100e6)
				k.acked(5001)
				k.collect(100e6)
				k.tp.snr.ctl.Cwnd, k.tp.snr.ctl.Ssthresh = 4000, 5000
				if e := k.tp.SetCC(to, k.now); e != 0 {
					t.Fatal(e)
				}
				k.check()
				k.want("cc", to)
				k.want("cwnd", 4000)
				k.want("ssthresh", 5000)
				if k.tp.snr.pacer.rate <= 0 {
					t.Fatalf("from %s to %s: not paced", from, to)
				}
				k.collect(time.Second)
			}
		}
	})
}

// BBR has no threshold: a controller that takes over while losses are repaired makes one, or the
// recovery would end with any window.
func TestSetCCInRecovery(t *testing.T) {
	each(t, func(t *T) {
		for _, from := range CCNames() {
			for _, to := range CCNames() {
				k := sending(t, withCC(from))
				k.write(30000)
				k.collect(100e6)
				k.acked(1, "1001:6001")
				k.want("ca", Recovering)
				k.tp.SetCC(to, k.now)
				k.check()
				k.collect(50e6)
				high := k.tp.snr.high.Sub(t.iss)
				k.acked(high)
				k.want("ca", Open)
				if w := k.tp.snr.ctl.Cwnd; w < 1000 || w > 20000 {
					t.Fatalf("from %s to %s: cwnd is %d after the recovery of a flight of 10000", from, to, w)
				}
			}
		}
	})
}

// A reduction is taken back by the controller that has made it, or not at all: another one has
// nothing to go back to.
func TestSetCCForgetsUndo(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t)
		k.write(10000)
		k.during(100e6, segs(1, 10))
		k.ack(1, "1001:4001")
		k.during(100e6, "1:1001")
		k.tp.SetCC("bbr", k.now)
		k.ack(10001, "1:1001") // it was not lost
		k.want("ca", Open)
		if n := k.stats.Sndundo.Load(); n != 0 {
			t.Fatalf("%d reductions taken back", n)
		}
	})
}
