package tcp

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// Loss by time: RFC 8985, 6.

// RFC 8985, 6.2, step 3: reordering is seen if a segment arrives whose end lies below RACK.fack,
// the highest that has been acknowledged. What one acknowledgment tells of, in order and
// selectively, has no order: an acknowledgment that was delayed, or the one before it lost, is no
// sign of reordering.
func TestRackOneAckIsNoReordering(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t)
		k.write(10000)
		k.during(100e6, segs(1, 10))
		k.ack(1001, "2001:3001") // 1 had its acknowledgment delayed, 1001 is lost
		if k.tp.snr.rack.seen {
			t.Fatal("an acknowledgment that was delayed was taken for reordering")
		}
		k.ack(1001, "4001:5001", "2001:3001")
		k.ack(1001, "8001:9001", "6001:7001", "4001:5001", "2001:3001") // the one between is lost
		if k.tp.snr.rack.seen {
			t.Fatal("blocks in the order of their arrival were taken for reordering")
		}
		k.collect(0)
		k.ack(1001, "5001:6001")
		if !k.tp.snr.rack.seen {
			t.Fatal("a segment that came after those behind it is reordering")
		}
		k.collect(0)
	})
}

// RFC 8985, 6.2, step 4: "If RACK.reordering_seen is FALSE: ... If RACK.segs_sacked >= DupThresh:
// Return 0", "to quickly retransmit". Less are waited for: "Return min(RACK.reo_wnd_mult *
// RACK.min_RTT / 4, SRTT)". Step 5: "timeout = MAX(Segment.xmit_ts + RACK.rtt + RACK.reo_wnd -
// Now())"; as it fires the loss is found.
func TestRackTimer(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t)
		k.write(12000)
		k.during(100e6, segs(1, 10))
		k.ack(1, "1001:3001")
		k.tp.snr.ctl.Cwnd = 20000
		k.during(24e6, segs(10001, 2))
		k.want("ca", Disorder)
		k.want("rexmt", time.Millisecond)
		k.trace("+1ms > . 1:1001(1000) ack 1")
		k.want("ca", Recovering)
		k.want("ssthresh", 8400)
		k.want("cwnd", 10000) // what is in the network, with the retransmission
		k.during(50e6, "")
		k.ack(3001)
		k.collect(0)

		k = sending(t) // the window has grown meanwhile
		k.write(10000)
		k.during(100e6, segs(1, 10))
		k.ack(1, "1001:3001")
		k.tp.snr.rack.mult = 2
		k.during(49e6, "")
		k.want("ca", Disorder)
		k.trace("+1ms > . 1:1001(1000) ack 1")

		k = sending(t) // the segment arrives within that time
		k.write(10000)
		k.during(100e6, segs(1, 10))
		k.ack(1, "1001:3001")
		k.during(24e6, "")
		k.ack(3001)
		k.want("ca", Open)
		k.during(5e6, "")
		k.want("ssthresh", infinite)

		k = sending(t) // three: at once
		k.write(10000)
		k.during(100e6, segs(1, 10))
		k.ack(1, "1001:4001")
		k.sends("1:1001")
		k.want("ca", Recovering)
	})
}

// RFC 8985, 6.2, step 5: a segment is lost if it was sent before the one that has been delivered,
// by RACK_sent_after's order; what was sent after it is not judged.
func TestRackSentAfter(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t, "tso 65000")
		k.write(3000)
		k.during(50e6, "1:3001")
		k.write(3000)
		k.during(50e6, "3001:6001")
		k.ack(1, "1001:2001") // of segments of the same time the number counts
		if b := k.tp.snr.rack; b.end != t.iss+2001 || b.rtt != 100*ms {
			t.Fatalf("RACK.end_seq %d, rtt %d", b.end.Sub(t.iss), b.rtt)
		}
		k.during(25e6, "1:1001")
		if n := k.tp.snr.sb.lost; n != 0 {
			t.Fatalf("%d more bytes were found lost", n)
		}
		k.ack(1, "1001:2001", "5001:6001") // 75 ms: the new round trip counts
		k.want("ca", Recovering)
		if n := k.tp.snr.rate.lost; n != 4000 {
			t.Fatalf("%d bytes were found lost, want 4000", n)
		}
		k.collect(0)
	})
}

// RFC 8985, 3.3, 6.2: a retransmission that is lost is found by what was sent after it, without a
// time-out.
func TestRackLostRetransmission(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t)
		k.write(50000)
		k.during(100e6, segs(1, 10))
		k.ack(1, "1001:4001")
		k.during(20e6, "1:1001") // lost as well
		k.ack(1, "1001:6001")
		k.during(20e6, segs(10001, 2))
		k.ack(1, "1001:7001")
		k.collect(20e6)
		k.ack(1, "1001:9001")
		k.collect(40e6)
		k.want("ca", Recovering)
		if n := k.tp.snr.sb.lost; n != 0 {
			t.Fatalf("%d bytes lost too early", n)
		}
		k.ack(1, "1001:11001")
		if got := k.collect(0); !strings.HasPrefix(got, "1:1001 ") {
			t.Fatalf("sent %q", got)
		}
		if n := k.stats.Rexmttimeo.Load(); n != 0 {
			t.Fatalf("%d time-outs", n)
		}
		k.collect(30e6)
		k.ack(11001)
		k.collect(100e6)
		k.ack(k.tp.snr.high.Sub(t.iss))
		k.want("ca", Open)
		k.want("ssthresh", 7000) // it is one recovery
		k.collect(0)
	})
}

// The first of what was sent again is lost again, and the others are not: it is sent before all
// else.
func TestRackFirstLostAgain(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t)
		k.write(50000)
		k.during(100e6, segs(1, 10))
		k.ack(1, "3001:8001") // the first three
		k.during(100e6, segs(1, 3)+" "+segs(10001, 2))
		k.ack(1, "1001:3001", "3001:8001")
		if got := k.collect(30e6); !strings.HasPrefix(got, "1:1001 ") {
			t.Fatalf("sent %q", got)
		}
	})
}

// After a time-out what was sent of late is judged by RACK, though what was sent again lies before
// it.
func TestRackAfterTimeout(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t)
		k.write(1000)
		k.during(100e6, "1:1001")
		k.ack(1001)
		k.write(2000)
		k.during(480e6, segs(1001, 2)+" 2001:3001")
		k.write(3000)
		k.during(60e6, segs(3001, 3)+" 1001:2001")
		k.want("ca", Timeout)
		k.want("pipe", 4000) // of these three no answer is overdue
		k.advance(50e6)
		lost := k.tp.snr.rate.lost
		k.ack(1001, "4001:6001")
		if n := k.tp.snr.rate.lost - lost; n != 1000 {
			t.Fatalf("%d bytes were found lost, want 1000", n)
		}
		k.collect(0)
	})
}

// RFC 8985, 6.2, step 2: "If RACK.min_RTT is set and rtt < RACK.min_RTT: continue": the answer
// comes too early to be the retransmission's.
func TestRackAmbiguous(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t)
		k.write(10000)
		k.during(50e6, segs(1, 10))
		k.during(50e6, "")
		k.ack(1, "2001:5001")
		k.during(50e6, segs(1, 2))
		k.ack(1001, "2001:5001")
		if b := k.tp.snr.rack; b.rtt != 100*ms || b.sent != epoch {
			t.Fatalf("the original's answer was taken for the retransmission's: rtt %d, sent %d", b.rtt, b.sent-epoch)
		}
		if k.tp.snr.rack.seen {
			t.Fatal("what was sent again is no sign of reordering")
		}
		k.collect(0)
	})
}

// RFC 8985, 6.2, step 2: "If RACK.ts_option.echo_reply < Segment.xmit_ts: continue", of the segment
// whose timestamp is echoed.
func TestRackTimestamp(t *testing.T) {
	each(t, func(t *T) {
		for _, ecr := range []int{100, 200} {
			const mss = 988
			k := sending(t, "ts")
			k.write(10 * mss)
			k.collect(100e6)
			k.ack(1, fmt.Sprintf("%d:%d", 1+2*mss, 1+5*mss))
			k.collect(120e6)
			k.line(fmt.Sprintf("< . 1:1(0) ack %d <TS val 7220 ecr %d,sack %d:%d>", 1+mss, ecr, 1+2*mss, 1+5*mss))
			if ok := k.tp.snr.rack.sent != epoch; ok != (ecr == 200) {
				t.Fatalf("echo %d: the retransmission counts as delivered: %v", ecr, ok)
			}
			k.collect(0)
		}
		// What arrives behind the hole has the timestamp echoed of what came before the hole (RFC
		// 7323, 4.3), which says nothing.
		const mss = 988
		k := sending(t, "ts")
		k.write(10 * mss)
		k.collect(100e6)
		k.ack(1, fmt.Sprintf("%d:%d", 1+2*mss, 1+5*mss))
		k.collect(120e6)
		k.line(fmt.Sprintf("< . 1:1(0) ack 1 <TS val 7220 ecr 100,sack %d:%d>", 1+mss, 1+5*mss))
		if k.tp.snr.rack.sent == epoch {
			t.Fatal("the retransmission does not count as delivered")
		}
		k.collect(0)
	})
}

// RFC 8985, 6.2, step 4: once reordering has been seen, three segments behind a hole are waited for
// as well, in recovery too.
func TestRackReorderingSeen(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t)
		k.write(20000)
		k.during(100e6, segs(1, 10))
		k.acked(1, "1001:2001")
		k.acked(2001) // 1 comes late
		if !k.tp.snr.rack.seen {
			t.Fatal("reordering was not seen")
		}
		k.collect(0)
		k.ack(2001, "3001:7001")
		k.collect(24e6)
		k.want("ca", Disorder)
		k.ack(7001)
		k.want("ca", Open)
		k.collect(0)
		k.undone(0)
	})
}

// RFC 8985, 6.2, step 4: "RACK.reo_wnd_mult += 1" for each round in which duplicates are reported;
// "Reset the window after 16 DSACK-free recoveries", of either kind.
func TestRackAdapts(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t, func(p *Profile) { p.Blackhole = false })
		at := 1
		spurious := func() { // a round in which a segment is sent again in vain
			t.Helper()
			k.tp.snr.ctl.Cwnd = 10000
			k.write(8000)
			k.collect(100e6)
			k.ack(at, fmt.Sprintf("%d:%d", at+2000, at+5000))
			k.collect(100e6)
			k.acked(at+5000, fmt.Sprintf("%d:%d", at, at+1000))
			k.acked(at+6000, fmt.Sprintf("%d:%d", at+1000, at+2000)) // the same round
			at += 8000
			k.acked(at)
		}
		lossy := func() {
			t.Helper()
			k.tp.snr.ctl.Cwnd = 10000
			k.write(8000)
			k.collect(100e6)
			k.ack(at, fmt.Sprintf("%d:%d", at+1000, at+5000))
			k.collect(100e6)
			at += 8000
			k.ack(at)
			k.want("ca", Open)
		}
		mult := func(want int) {
			t.Helper()
			if m := int(k.tp.snr.rack.mult); m != want {
				t.Fatalf("reo_wnd_mult is %d, want %d", m, want)
			}
		}
		k.write(1)
		k.collect(100e6)
		k.acked(2)
		at = 2
		mult(1)
		spurious()
		mult(2)
		spurious()
		mult(3)
		if w, want := k.tp.reorderWindow(), 3*(k.tp.rtt.min/4); w != want {
			k.fatalf("the reordering window is %d, want %d", w, want)
		}
		k.tp.snr.rack.mult = 200
		if w := k.tp.reorderWindow(); w != k.tp.rtt.srtt {
			t.Fatalf("the reordering window is %d, want SRTT %d", w, k.tp.rtt.srtt)
		}
		k.tp.snr.rack.mult = 3
		left := int(k.tp.snr.rack.persist)
		for range left - 2 {
			lossy()
			mult(3)
		}
		// A time-out is a recovery as well.
		k.tp.snr.ctl.Cwnd = 10000
		k.write(2000)
		k.collect(3 * time.Second)
		k.want("ca", Timeout)
		k.ack(at + 1000)
		k.collect(100e6)
		mult(3)
		at += 2000
		k.ack(at)
		k.want("ca", Open)
		mult(3)
		k.tp.snr.rack.late = 1
		lossy()
		mult(1)
		if k.tp.snr.rack.late != 0 {
			t.Fatal("what was late once is waited for forever")
		}
	})
}

// What has been late by more than the reordering window and came is waited for as long from then
// on.
func TestRackLate(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t)
		k.write(3000)
		k.during(100e6, segs(1, 3))
		k.ack(1, "1001:3001")
		k.advance(20e6)
		k.ack(3001)
		if l := k.tp.snr.rack.late; l != 20*ms {
			t.Fatalf("late by %d", l)
		}
		if w := k.tp.reorderWindow(); w != 25*ms {
			t.Fatalf("the reordering window is %d", w)
		}
		k.tp.snr.rack.late = 40 * ms
		if w := k.tp.reorderWindow(); w != 50*ms {
			t.Fatalf("the reordering window is %d", w)
		}
	})
}

// A segment that the clock says has been answered before it was sent, as two processors' clocks
// may, has been answered at once.
func TestRackClock(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t)
		k.write(2000)
		k.sends(segs(1, 2))
		p := k.pkt(".", 1, 2001, 0)
		k.tp.Input(&p.th, Payload{}, k.now-10*ms, k.now)
		k.check()
		if r := k.tp.snr.rack.rtt; r <= 0 || k.tp.rtt.min <= 0 {
			t.Fatalf("RACK.rtt %d, min_RTT %d", r, k.tp.rtt.min)
		}
	})
}

// What was sent again just before a time-out is not overdue, and RACK goes on to watch it.
func TestRackWatchesThroughTimeout(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t, withCC("newreno"))
		k.write(10000)
		k.during(100e6, segs(1, 10))
		k.ack(1, "2001:5001")
		k.during(290e6, "1:1001") // lost again
		k.ack(1, "2001:7001")
		k.during(20e6, "1001:2001 1:1001") // the second hole, which is lost again too, and the time-out
		k.want("ca", Timeout)
		k.during(90e6, "")
		k.ack(1001, "2001:7001")
		if got := k.collect(0); !strings.HasPrefix(got, "1001:2001") {
			t.Fatalf("sent %q", got)
		}
		if n := k.stats.Rexmttimeo.Load(); n != 1 {
			t.Fatalf("%d time-outs", n)
		}
	})
}

// RFC 2018, 4: "The first SACK block [...] MUST specify the contiguous block of data containing the
// segment which triggered this ACK". What an acknowledgment tells beyond that for the first time,
// below what has arrived already, was told before, in acknowledgments that were lost: nobody knows
// when it arrived, and the reordering window does not grow by it.
func TestRackLostAcksAreNotLate(t *testing.T) {
	each(t, func(t *T) {
		begin := func() *kit {
			k := sending(t)
			k.write(20000)
			k.during(100e6, segs(1, 10))
			k.acked(1, "8001:9001")
			k.collect(10e6)
			return k
		}
		for name, c := range map[string]struct {
			acks func(k *kit)
			late bool
		}{
			"the first block":        {func(k *kit) { k.acked(1, "5001:6001", "8001:9001") }, true},
			"the second block":       {func(k *kit) { k.acked(1, "9001:10001", "5001:6001") }, false},
			"behind a duplicate":     {func(k *kit) { k.acked(1, "8001:9001", "7001:9001") }, false},
			"the segment that fills": {func(k *kit) { k.acked(1001, "8001:9001") }, true},
			"behind a filling retransmission": {func(k *kit) {
				k.during(15e6, "1:1001") // RACK finds it lost
				k.acked(5001, "8001:9001")
			}, false},
			"joined by a retransmission": {func(k *kit) {
				k.during(15e6, "1:1001") // which is lost again
				k.ack(1, "8001:11001")
				k.sends("1001:2001 2001:3001")
				k.acked(1, "2001:4001", "8001:11001")
			}, false},
		} {
			k := begin()
			c.acks(k)
			if late := k.tp.snr.rack.late; late > 0 != c.late {
				t.Errorf("%s: late by %d", name, late)
			}
		}
	})
}
