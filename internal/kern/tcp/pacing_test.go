package tcp

import (
	"testing"
	"time"
)

// Pacing of a connection. The pacer by itself is in pacer_test.go.

// pacing is sending whose window of 40 segments is acknowledged once, so that it is paced, with n
// segments to send and nothing in flight.
func pacing(t *T, n int, opts ...any) *kit {
	k := sending(t, opts...)
	k.write(1000)
	k.collect(100e6)
	k.acked(1001)
	k.tp.snr.ctl.Cwnd, k.tp.snr.ctl.Ssthresh = 40000, 40000
	k.append(n * 1000)
	k.tp.Output(k.now)
	k.check()
	return k
}

// RFC 6928, 2: no more than an initial window goes at once into an empty path. What follows goes at
// the pacing rate, which is a fifth more than the window in a round trip, and the timer is set for
// it.
func TestPacingBeginsWithBurst(t *testing.T) {
	each(t, func(t *T) {
		k := pacing(t, 100)
		if r := k.tp.snr.pacer.rate; r != 480000 {
			t.Fatalf("%d bytes a second, want 1.2 times 40000 in 100 ms", r)
		}
		k.sends(segs(1001, 11)) // and the first that is paced
		gap := 1000 * sec / 480000
		k.want("pace", time.Duration(gap))
		n := 11
		for k.now < epoch+250*ms && n < 40 {
			k.now = k.tp.Next()
			k.tp.Timeout(k.now)
			k.check()
			if len(k.sent) == 0 || len(k.sent) > 2 {
				k.fatalf("%d segments at once", len(k.sent))
			}
			n += len(k.sent)
			k.sent = nil
		}
		if n != 40 || k.now > epoch+100*ms+30*gap {
			t.Fatalf("%d segments in %v", n, time.Duration(k.now-epoch-100*ms))
		}
		k.want("pace", off) // now it is the window that holds back
	})
}

// With chains a train is what the rate sends in a millisecond, but two segments at least.
func TestPacingTrains(t *testing.T) {
	each(t, func(t *T) {
		k := pacing(t, 500, "tso 65000")
		k.during(0, "1001:3001 3001:5001 5001:7001 7001:9001 9001:11001 11001:13001")
		k.want("pace", time.Duration(2000*sec/480000))
		k = pacing(t, 0, "tso 65000")
		k.tp.snr.ctl.Cwnd, k.tp.snr.ctl.Ssthresh = 400000, 400000
		k.append(500000)
		k.tp.Output(k.now)
		if n := k.sent[0].len; n != 4000 { // 4.8 MB a second
			t.Fatalf("a train of %d bytes", n)
		}
		k.sent = nil
	})
}

// A timer that is late is made up for within bounds: two milliseconds at least, an eighth of the
// round trip and 16 ms at most, and as much as ten segments take. A process that did not run for
// long sends no burst.
func TestPacingLate(t *testing.T) {
	each(t, func(t *T) {
		for late, want := range map[time.Duration]int{0: 1, 5 * time.Millisecond: 3, 10 * time.Millisecond: 5,
			time.Second: 10} {
			k := pacing(t, 100, func(p *Profile) { p.Blackhole = false })
			k.sent = nil
			k.tp.snr.rtoAt, k.tp.snr.ptoAt = k.now+3600*sec, never // what is overdue is another matter
			k.tp.armSender()
			k.now = k.tp.timers[tPace] + int64(late)
			k.tp.Timeout(k.now)
			k.check()
			if n := len(k.sent); n != want {
				k.fatalf("%v late: %d segments at once, want %d", late, n, want)
			}
			k.sent = nil
		}
	})
}

// Whatever is sent meanwhile, what waits for the pacer has its timer; and none is set if nothing
// waits.
func TestPacingTimer(t *testing.T) {
	each(t, func(t *T) {
		k := pacing(t, 100)
		k.sent = nil
		at := k.tp.timers[tPace]
		k.line("< P. 1:11(10) ack 1001")
		k.line("< P. 11:21(10) ack 1001")
		k.collect(0)
		if k.tp.timers[tPace] != at {
			t.Fatal("the timer has moved")
		}
		k.room = false
		k.advance(time.Duration(at - k.now))
		k.want("pace", off) // now it is the interface that holds back
		k.room = true
		k.tp.Unblock(k.now)
		k.check()
		if len(k.sent) == 0 || !k.tp.on(tPace) {
			t.Fatalf("%d segments, timer %v", len(k.sent), k.tp.on(tPace))
		}
		k.sent = nil
	})
}

// RFC 6675, 5, (4.3): the first retransmission of a recovery goes at once.
func TestPacingNotOfFastRetransmit(t *testing.T) {
	each(t, func(t *T) {
		k := pacing(t, 40)
		k.collect(95e6)
		k.tp.snr.pacer.next = k.now + 50*ms
		k.acked(1001, "2001:4001")
		k.ack(1001, "2001:5001")
		k.sends("1001:2001")
		k.want("ca", Recovering)
	})
}

// What is lost goes at the pacing rate as well, in whole segments, except for the first
// retransmission of the recovery.
func TestPacingOfRetransmissions(t *testing.T) {
	each(t, func(t *T) {
		k := pacing(t, 40)
		k.collect(95e6)
		k.tp.snr.pacer.next = k.now + 50*ms
		k.ack(1001, "11001:41001")
		k.sends("1001:2001")
		k.during(50*time.Millisecond-1, "")
		k.sends("")
		k.collect(1)
		again := 0
		for end := k.now + 30*ms; k.now < end; {
			before := k.now
			k.now = min(k.tp.Next(), end)
			if k.now == before {
				k.now++
			}
			k.tp.Timeout(k.now)
			k.check()
			n := 0
			for _, p := range k.sent {
				if p.th.Seq.Sub(k.t.iss) < 11001 {
					n += p.len
				}
				if p.len%1000 != 0 {
					k.fatalf("%d bytes in a segment", p.len)
				}
			}
			if k.sent = nil; n > 2000 {
				k.fatalf("%d bytes at once", n)
			}
			again += n
		}
		if again < 4000 {
			k.fatalf("%d bytes were sent again", again)
		}
	})
}
