package tcp

import (
	"fmt"
	"testing"
	"time"
)

// fire lets the next timer fire, and loses what is sent.
func fire(k *kit) {
	k.t.Helper()
	k.sent = nil
	k.now = max(k.now, k.tp.Next())
	k.tp.Timeout(k.now)
	k.check()
	k.sent = nil
}

// ackAll acknowledges all that has been written.
func ackAll(k *kit) {
	k.t.Helper()
	for k.snd.Cc() > 0 {
		una := k.snd.Cc()
		k.sent = nil
		k.line(fmt.Sprintf("< . 1:1(0) ack %d", k.tp.sndMax.Sub(k.t.iss)))
		if k.snd.Cc() >= una {
			k.fatalf("no progress")
		}
	}
	k.sent = nil
}

// A path that loses full segments without a word: after two time-outs smaller ones are tried, after
// two more the smallest, and if that does not help either the old size (RFC 2923, 2.1; FreeBSD's
// pmtud_blackhole_detection).
func TestBlackholeSteps(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "mss 1460, nodelay")
		k.write(1460)
		k.trace("> P. 1:1461(1460) ack 1\n+1s > P. 1:1461(1460) ack 1\n+2s > . 1:1201(1200) ack 1")
		k.trace("+4s > . 1:1201(1200) ack 1\n+8s > . 1:537(536) ack 1\n+16s > . 1:537(536) ack 1\n" +
			"+32s > P. 1:1461(1460) ack 1\n+64s > P. 1:1461(1460) ack 1")
		k.want("maxseg", 1460)
		k.check()
	})
}

// Over IPv6 there is one size to try: 1280 bytes, which every link carries (RFC 8200, 5). One that
// is smaller already is left alone.
func TestBlackholeSteps6(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "mss 1440, nodelay, inet6")
		k.write(1440)
		k.trace("> P. 1:1441(1440) ack 1\n+1s > P. 1:1441(1440) ack 1\n+2s > . 1:1221(1220) ack 1")
		k.trace("+4s > . 1:1221(1220) ack 1\n+8s > . 1:1221(1220) ack 1\n+16s > . 1:1221(1220) ack 1\n" +
			"+32s > P. 1:1441(1440) ack 1\n+64s > P. 1:1441(1440) ack 1")
		k.check()
		k = established(t, "mss 1440, peermss 1000, nodelay, inet6")
		k.write(1000)
		k.trace("> P. 1:1001(1000) ack 1\n+1s > P. 1:1001(1000) ack 1\n+2s > P. 1:1001(1000) ack 1")
		k.trace("+4s > P. 1:1001(1000) ack 1\n+8s > P. 1:1001(1000) ack 1")
	})
}

// RFC 4821, 7.7, RFC 8899, 4.3: an outage is no black hole. What was stuck goes in smaller
// segments, and the first full segment after that is a probe, whose arrival brings the old size
// back.
func TestBlackholeOutage(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "mss 1460, nodelay")
		k.write(2920)
		k.trace("> . 1:1461(1460) ack 1\n> P. 1461:2921(1460) ack 1\n" +
			"+1s > . 1:1461(1460) ack 1\n+2s > . 1:1201(1200) ack 1")
		k.trace("< . 1:1(0) ack 1201\n> . 1201:2401(1200) ack 1\n> P. 2401:2921(520) ack 1")
		k.trace("< . 1:1(0) ack 2921")
		k.want("maxseg", 1200) // not yet
		k.write(1460)
		k.trace("> P. 2921:4381(1460) ack 1")
		k.write(1200)
		k.trace("> P. 4381:5581(1200) ack 1\n+10ms < . 1:1(0) ack 4381")
		k.want("maxseg", 1460)
		ackAll(k)
	})
}

// A probe that is lost costs nothing but itself, and is tried again after twice as long; the window
// does not shrink.
func TestBlackholeProbeLost(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "mss 1460, nodelay, sack, rtt 100ms, sndbuf 200000")
		k.write(1460)
		for k.tp.Maxseg() == 1460 {
			fire(k)
		}
		k.trace("+100ms < . 1:1(0) ack 1461")
		k.want("maxseg", 1200)
		at := 1461
		for n := range 4 {
			before := k.tp.snr.pmtu.raiseAt
			cwnd := k.tp.snr.ctl.Cwnd
			k.advance(time.Duration(max(before-k.now, 0)))
			k.write(1460)
			k.trace(fmt.Sprintf("> P. %d:%d(1460) ack 1", at, at+1460))
			k.write(1200)
			k.trace(fmt.Sprintf("> P. %d:%d(1200) ack 1\n+100ms < . 1:1(0) ack %d <sack %[1]d:%[2]d>", at+1460,
				at+2660, at))
			k.advance(25 * time.Millisecond) // the reordering window
			k.trace(fmt.Sprintf("> . %d:%d(1200) ack 1\n> . %[2]d:%d(260) ack 1\n+100ms < . 1:1(0) ack %d", at,
				at+1200, at+1460, at+2660))
			at += 2660
			if k.tp.snr.ctl.Cwnd < cwnd || k.tp.snr.state != Open {
				k.fatalf("a lost probe was taken for congestion")
			}
			if wait := k.tp.snr.pmtu.raiseAt - k.now; n > 0 && wait < k.tp.rtt.srtt<<n {
				k.fatalf("the next probe comes %v after the %d. lost one", time.Duration(wait), n+1)
			}
		}
		k.want("maxseg", 1200)
	})
}

// Proof that full segments get through, here a selective acknowledgment between the time-outs, is
// an end to the suspicion.
func TestBlackholeProof(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "mss 1460, nodelay, sack, rtt 100ms")
		k.write(2920)
		k.trace("> . 1:1461(1460) ack 1\n> P. 1461:2921(1460) ack 1")
		fire(k)
		fire(k)
		k.line("< . 1:1(0) ack 1 <sack 1461:2921>")
		k.sent = nil
		for range 3 {
			fire(k)
			k.want("maxseg", 1460)
		}
	})
}

// What is small is not made smaller, and neither the book nor FreeBSD's default looks for black
// holes.
func TestBlackholeNot(t *testing.T) {
	each(t, func(t *T) {
		for _, c := range []struct {
			opts string
			n    int
		}{{"mss 1460, nodelay", 500}, {"mss 536, nodelay", 536}, {"FreeBSD, mss 1460", 1460},
			{"Net3, mss 1460", 1460}} {
			k := established(t, c.opts)
			before := k.tp.Maxseg()
			k.write(c.n)
			for range 5 {
				fire(k)
				k.want("maxseg", before)
			}
		}
	})
}

// A router's word ends the guessing, and so does the user's.
func TestBlackholeToldOtherwise(t *testing.T) {
	each(t, func(t *T) {
		for i, tell := range []func(k *kit){func(k *kit) { k.tp.Mtudisc(1040, k.now) },
			func(k *kit) { k.tp.SetMaxseg(1000) }} {
			k := established(t, "mss 1460, nodelay")
			k.write(1460)
			fire(k)
			fire(k)
			k.want("maxseg", 1200)
			tell(k)
			k.want("maxseg", 1000)
			ackAll(k)
			if k.tp.Maxseg() != 1000 {
				k.fatalf("%d: the MSS is %d", i, k.tp.Maxseg())
			}
		}
	})
}
