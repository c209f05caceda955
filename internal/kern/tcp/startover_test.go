package tcp

import (
	"testing"
	"time"
)

// A window that is closed over what is in flight: RFC 9293, 3.8.6.

// closeOver sends eleven segments, of which two arrive. Over the others the peer closes its window,
// until it is probed.
func closeOver(t *T, opts ...any) *kit {
	k := sending(t, opts...)
	k.write(11000)
	k.during(100e6, segs(1, 10))
	k.ack(1001)
	k.during(50e6, "10001:11001")
	k.line("< . 1:1(0) ack 2001 win 0")
	k.during(301e6, "") // the time-out: the peer has had no room for it
	k.want("rexmt", off)
	k.want("pipe", 0)
	k.want("ca", Open)
	k.want("ssthresh", infinite)
	if n := k.stats.Fastrexmit.Load() + k.stats.Sndrexmitpack.Load(); n != 0 {
		t.Fatalf("%d segments were sent again into a closed window", n)
	}
	return k
}

// RFC 9293, SHLD-17: "the sender SHOULD retransmit normally the old data between SND.UNA and
// SND.UNA+SND.WND (SHLD-17)", so nothing while it is closed; then it probes (MUST-36), and when the
// window opens all is sent again. What is lost of that is found as ever.
//
// RFC 9293 SHLD-17
func TestClosedOverFlight(t *testing.T) {
	each(t, func(t *T) {
		k := closeOver(t)
		k.during(301e6, "2001:2002") // the probe
		k.line("< . 1:1(0) ack 2001 win 0")
		k.during(100e6, "")
		k.line("< . 1:1(0) ack 2001 win 512")
		k.during(100e6, segs(2001, 9))
		k.want("persist", off)
		k.ack(2001, "3001:5001")
		k.during(20e6, "")
		k.ack(2001, "3001:6001")
		k.want("ca", Recovering)
		k.during(100e6, "2001:3001")
		k.ack(11001)
		k.want("ca", Open)
		if n := k.stats.Rexmttimeo.Load(); n != 1 {
			t.Fatalf("%d time-outs", n)
		}
	})
}

// Duplicates of what was sent again are reported, and are no duplicates of the network's.
func TestClosedOverFlightDuplicates(t *testing.T) {
	each(t, func(t *T) {
		k := closeOver(t)
		k.line("< . 1:1(0) ack 2001 win 512") // it had arrived after all
		k.during(100e6, segs(2001, 9))
		k.ack(11001, "2001:11001")
		k.want("ca", Open)
		if s := k.tp.snr; s.dupped > s.rexmitted {
			t.Fatalf("%d bytes reported as duplicates, %d sent again", s.dupped, s.rexmitted)
		}
		k.during(time.Second, "")
	})
}

// A probe of the path's MTU that is in flight then is forgotten, and another is sent.
func TestClosedOverMTUProbe(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t)
		k.write(1000)
		k.collect(100e6)
		k.tp.Mtudisc(840, k.now)
		k.collect(0)
		k.ack(1001)
		k.want("maxseg", 800)
		k.advance(10 * time.Minute)
		k.tp.snr.pmtu.raiseAt = never
		k.write(800)
		k.during(0, "1001:1801")
		k.tp.snr.pmtu.raiseAt = k.now
		k.write(3000)
		k.during(100e6, "1801:2801 2801:3601 3601:4401 4401:4801") // the first is as large as ever
		k.line("< . 1:1(0) ack 1801 win 0")
		k.during(310e6, "")
		k.line("< . 1:1(0) ack 1801 win 512")
		k.during(100e6, "1801:2601 2601:3601 3601:4401 4401:4801")
		k.ack(4801)
		k.want("maxseg", 1000)
	})
}
