package tcp

import (
	"fmt"
	"testing"
	"time"
)

// Reductions that were wrong: D-SACK (RFC 2883, RFC 3708), Eifel (RFC 3522), F-RTO (RFC 5682).

func (k *kit) undone(want int) {
	k.t.Helper()
	if n := int(k.stats.Sndundo.Load()); n != want {
		k.fatalf("%d reductions have been taken back, want %d", n, want)
	}
}

// RFC 2883, 4: the first block reports a duplicate if it lies below the acknowledgment, or within
// the second block. It tells of no segment behind a hole.
func TestDSACKIsNoDuplicate(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t)
		k.write(10000)
		k.during(100e6, segs(1, 10))
		k.ack(3001)
		k.collect(50e6)
		k.ack(3001, "1:1001")
		k.ack(3001, "1001:2001")
		k.ack(3001, "2001:3001")
		k.ack(3001, "1:3001")
		k.want("ca", Open)
		k.sends("")
		k.ack(3001, "4001:5001", "4001:6001")
		k.collect(0)
		if n := k.tp.Info(); n.DSACKs != 5 || n.Sacked != 2000 {
			t.Fatalf("%d duplicates reported, %d bytes acknowledged selectively; want 5, 2000", n.DSACKs, n.Sacked)
		}
		k.ack(3001, "4001:7001", "4001:6001") // the first is the larger: no duplicate
		if n := k.tp.Info(); n.DSACKs != 5 || n.Sacked != 3000 {
			t.Fatalf("%d duplicates reported, %d bytes acknowledged selectively; want 5, 3000", n.DSACKs, n.Sacked)
		}
		k.collect(0)
		n := k.tp.snr.dsacks
		k.ack(3001, "90000:91000", "80000:99000") // what was never sent
		k.ack(3001, fmt.Sprintf("%d:%d", -1<<30, -1<<30+1000))
		k.ack(3001, "2001:1001")
		if k.tp.snr.dsacks != n {
			t.Fatal("a duplicate of what was never sent was believed")
		}
		k.collect(0)
	})
}

// RFC 3708, 2: if all that was sent again is reported as duplicate, nothing had been lost, and the
// reduction is taken back. "the sender MUST ... verify that each duplicate was of a segment that
// was retransmitted": more duplicates than that are the network's.
func TestDSACKUndo(t *testing.T) {
	each(t, func(t *T) {
		for _, late := range []bool{false, true} {
			k := sending(t)
			k.write(10000)
			k.during(100e6, segs(1, 10))
			k.ack(1, "2001:5001") // 1 and 1001 are late
			k.want("ca", Recovering)
			k.want("ssthresh", 7000)
			k.during(50e6, segs(1, 2))
			if late { // the reports come when the recovery is over
				k.ack(10001)
				k.want("ca", Open)
				k.want("ssthresh", 7000)
				k.ack(10001, "1:1001")
				k.undone(0)
				k.ack(10001, "1001:2001")
			} else {
				k.ack(5001, "1:1001")
				k.undone(0)
				k.ack(10001, "1001:2001")
			}
			k.undone(1)
			k.want("ca", Open)
			k.want("ssthresh", infinite)
			if w := k.tp.snr.ctl.Cwnd; w < 10000 {
				t.Fatalf("cwnd is %d, want 10000", w)
			}
			k.ack(10001, "1001:2001") // again: there is nothing to take back
			k.undone(1)
		}
	})
}

// A network that duplicates makes more reports than there were retransmissions. They prove nothing.
func TestDSACKStorm(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t)
		k.write(5000)
		k.during(100e6, segs(1, 5))
		k.ack(5001)
		for n := range 5 {
			k.ack(5001, fmt.Sprintf("%d:%d", 1+n*1000, 1001+n*1000))
		}
		if k.tp.snr.rack.mult != 1 {
			t.Fatal("the reordering window has grown, and nothing was ever sent again")
		}
		k.write(10000)
		k.during(100e6, segs(5001, 10))
		k.ack(5001, "6001:9001")
		k.want("ca", Recovering)
		k.during(50e6, "5001:6001")
		k.ack(9001, "6001:7001")
		k.collect(50e6)
		k.ack(15001, "7001:8001")
		k.want("ca", Open)
		k.undone(0)
	})
}

// RFC 3522, 3.2: "If the value of the Timestamp Echo Reply field of the acceptable ACK's Timestamps
// option is smaller than the value of RetransmitTS", it is the original that was late. What was
// found lost with it is taken back too, unless it is missing for longer.
func TestEifelFastRetransmit(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t, "ts", withCC("newreno"))
		const mss = 988
		k.write(10 * mss)
		k.collect(100e6)
		k.ack(1, fmt.Sprintf("%d:%d", 1+2*mss, 1+5*mss)) // the first two are late
		k.want("ca", Recovering)
		k.want("ssthresh", 5*mss)
		k.during(1e6, fmt.Sprintf("1:%d", 1+mss))
		k.line(fmt.Sprintf("< . 1:1(0) ack %d <TS val 7102 ecr 100,sack %d:%d>", 1+mss, 1+2*mss, 1+5*mss))
		k.undone(1)
		k.want("ssthresh", infinite)
		k.want("ca", Disorder) // the second is not found lost again at once: segments overtake each other on this path
		if !k.tp.snr.rack.seen {
			t.Fatal("reordering was not seen")
		}
		k.line(fmt.Sprintf("< . 1:1(0) ack %d <TS val 7102 ecr 100>", 1+5*mss))
		k.want("ca", Open)
		k.collect(0)
		k.undone(1)

		k = sending(t, "ts") // the acknowledgment of what was sent again is no such thing
		k.write(10 * mss)
		k.collect(100e6)
		k.ack(1, fmt.Sprintf("%d:%d", 1+mss, 1+5*mss))
		k.collect(100e6)
		k.line(fmt.Sprintf("< . 1:1(0) ack %d <TS val 7300 ecr 200>", 1+10*mss))
		k.want("ca", Open)
		k.undone(0)
		if w := k.tp.snr.ctl.Cwnd; w > 8*mss {
			t.Fatalf("cwnd is %d", w)
		}
	})
}

// All that was sent again must have been late: the reduction stays as long as some of it is in
// flight, and if it was lost.
func TestEifelOneOfTwo(t *testing.T) {
	each(t, func(t *T) {
		const mss = 988
		for _, second := range []uint64{100, 250} {
			k := sending(t, "ts")
			k.write(10 * mss)
			k.collect(100e6)
			k.ack(1, fmt.Sprintf("%d:%d", 1+2*mss, 1+5*mss))
			k.during(50e6, fmt.Sprintf("1:%d %d:%d", 1+mss, 1+mss, 1+2*mss))
			k.line(fmt.Sprintf("< . 1:1(0) ack %d <TS val 7150 ecr 100,sack %d:%d>", 1+mss, 1+2*mss, 1+5*mss))
			k.want("ca", Recovering)
			k.undone(0)
			k.advance(10e6)
			k.line(fmt.Sprintf("< . 1:1(0) ack %d <TS val 7160 ecr %d>", 1+10*mss, second))
			k.want("ca", Open)
			if second == 100 {
				k.undone(1)
				k.want("ssthresh", infinite)
			} else {
				k.undone(0)
				k.want("ssthresh", 7*mss)
			}
		}
	})
}

// What the tail's probe has sent again before the losses were found counts as well.
func TestUndoWithProbe(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t)
		k.write(4000)
		k.during(100e6, segs(1, 4))
		k.ack(2001)
		k.during(340e6, "3001:4001")
		k.ack(2001, "3001:4001")
		k.during(100e6, "2001:3001")
		k.want("ca", Recovering)
		k.ack(4001, "2001:3001")
		k.undone(0) // of the probe nobody has said that it was not needed
		k.ack(4001, "3001:4001")
		k.undone(1)
		k.want("ssthresh", infinite)

		k = sending(t, "ts") // and so does its timestamp
		const mss = 988
		k.write(4 * mss)
		k.collect(100e6)
		k.ack(1 + 2*mss)
		k.collect(340e6)
		k.ack(1+2*mss, fmt.Sprintf("%d:%d", 1+3*mss, 1+4*mss))
		k.want("ca", Recovering)
		k.collect(100e6)
		// later than the probe, and before the other
		k.line(fmt.Sprintf("< . 1:1(0) ack %d <TS val 7540 ecr 420>", 1+4*mss))
		k.want("ca", Open)
		k.undone(0)
	})
}

// Reports of what was sent again before the reduction say nothing about it.
func TestDSACKOfBefore(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t)
		k.write(10000)
		k.during(100e6, segs(1, 10))
		k.ack(1, "1001:4001")
		k.during(100e6, "1:1001")
		k.ack(10001)
		k.write(7000)
		k.during(100e6, segs(10001, 7))
		k.ack(10001, "11001:14001")
		k.during(1e6, "10001:11001")
		k.ack(10001, "1:1001", "11001:14001")
		k.want("ca", Recovering)
		k.undone(0)
		k.ack(17001)
		k.undone(0)
	})
}

// RFC 3522, 3.2, for a time-out.
func TestEifelTimeout(t *testing.T) {
	each(t, func(t *T) {
		for _, spurious := range []bool{false, true} {
			k := sending(t, "ts", withCC("newreno"), func(p *Profile) { p.Blackhole = false })
			const mss = 988
			k.write(10 * mss)
			k.collect(600e6) // a probe, and the time-out
			k.want("ca", Timeout)
			k.want("ssthresh", 5*mss)
			k.want("cwnd", mss)
			ecr := uint64(k.tsecr)
			if spurious {
				ecr = 100
			}
			k.line(fmt.Sprintf("< . 1:1(0) ack %d <TS val 7600 ecr %d>", 1+mss, ecr))
			if spurious {
				k.undone(1)
				k.want("ca", Open)
				k.want("ssthresh", infinite)
				if w := k.tp.snr.ctl.Cwnd; w < 10*mss {
					t.Fatalf("cwnd is %d", w)
				}
				if k.tp.snr.sb.lost != 0 {
					t.Fatal("something is still taken for lost")
				}
			} else {
				k.undone(0)
				k.want("ca", Timeout)
				k.want("ssthresh", 5*mss)
			}
			k.collect(0)
		}
	})
}

// RFC 5682, 3.1, (2) b: "If the acknowledgment advances the window but does not cover
// RecoveryPoint: transmit up to two new (previously unsent) segments". (3) b: "If the
// acknowledgment acknowledges data that were not retransmitted after timeout, declare the timeout
// to be spurious".
func TestFRTOSpurious(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t, withCC("newreno"))
		k.write(30000)
		k.during(0, segs(1, 10))
		k.during(600e6, "10001:11001 1:1001") // the tail's probe is new data
		k.want("ca", Timeout)
		k.want("ssthresh", 5000)
		k.ack(1001)
		k.during(20e6, segs(11001, 2))
		k.want("ca", Timeout)
		k.tp.Output(k.now) // what is taken for lost waits for the next acknowledgment, whatever else happens
		k.sends("")
		k.ack(2001)
		k.undone(1)
		k.want("ca", Open)
		k.want("ssthresh", infinite)
		if w := k.tp.snr.ctl.Cwnd; w < 10000 {
			t.Fatalf("cwnd is %d, want 10000", w)
		}
		k.collect(0)
	})
}

// RFC 5682, 3.1, (2) a and (3) a: "If the acknowledgment is a duplicate ACK" the loss is real: "set
// SpuriousRecovery to FALSE and revert to the conventional RTO recovery".
func TestFRTOReal(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t, withCC("newreno"))
		k.write(30000)
		k.during(0, segs(1, 10))
		k.during(600e6, "10001:11001 1:1001")
		k.ack(1001)
		k.during(20e6, segs(11001, 2))
		k.ack(1001, "11001:12001") // 1001 to 11001 are lost
		k.during(20e6, "1001:2001 2001:3001")
		k.ack(1001, "11001:13001")
		k.during(20e6, "3001:4001 4001:5001")
		k.undone(0)
		k.want("ca", Timeout)
		k.want("ssthresh", 5000)
		for n := 2001; n < 11001; n += 1000 {
			k.ack(n, "11001:13001")
			k.collect(20e6)
			k.want("ca", Timeout)
		}
		k.ack(13001)
		k.want("ca", Open)
		k.undone(0)
		k.collect(0)
	})
}

// RFC 5682, 3.1, (2) b, note: if there is nothing new to send, or no window for it, what follows is
// "the conventional RTO recovery".
func TestFRTONothingNew(t *testing.T) {
	each(t, func(t *T) {
		for _, opts := range []string{"wscale 7", "wscale 0, win 10000"} {
			k := sending(t, opts, withCC("newreno"))
			n := 10000
			if opts != "wscale 7" {
				n = 30000
			}
			k.write(n)
			k.during(0, segs(1, 10))
			k.during(600e6, "9001:10001 1:1001")
			if opts != "wscale 7" {
				k.line("< . 1:1(0) ack 1001 win 9000")
			} else {
				k.ack(1001)
			}
			k.during(20e6, segs(1001, 2))
			k.undone(0)
			k.want("ca", Timeout)
			k.during(time.Millisecond, "")
		}
	})
}

// RFC 5682, 3.1, (1): not if "fast recovery is in progress": that retransmission was lost is no
// surprise, and the originals behind it have arrived.
func TestFRTONotInRecovery(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t, withCC("newreno"))
		k.write(10000)
		k.during(100e6, segs(1, 10))
		k.ack(1, "1001:4001")
		k.during(299e6, "1:1001") // which is lost
		k.ack(1, "1001:5001")     // late
		k.collect(200e6)
		k.want("ca", Timeout)
		k.want("ssthresh", 5000)
		k.ack(1, "1001:6001") // very late
		k.want("ca", Timeout)
		k.undone(0)
		k.want("ssthresh", 5000)
		k.collect(0)
	})
}

// RFC 5682, 3.1, (3) a: once a loss was real, it stays so, though data arrives that was not sent
// again.
func TestFRTORealForGood(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t, withCC("newreno"))
		k.write(30000)
		k.during(0, segs(1, 10))
		k.during(600e6, "10001:11001 1:1001")
		k.ack(1001)
		k.during(20e6, segs(11001, 2))
		k.ack(1001, "11001:12001")
		k.collect(20e6)
		k.ack(6001, "11001:12001")
		k.undone(0)
		k.want("ca", Timeout)
		k.collect(0)
	})
}

// RFC 5682, 3.1, (2) a: a duplicate is no evidence, though it tells of data that was sent just
// before the time-out, and so not again.
func TestFRTOSentJustBefore(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t, withCC("newreno"))
		k.write(5000)
		k.during(100e6, segs(1, 5))
		k.ack(5001)
		k.write(5000)
		k.during(480e6, segs(5001, 5)+" 9001:10001")
		k.write(3000)
		k.during(60e6, segs(10001, 3)+" 5001:6001")
		k.want("ca", Timeout)
		s := k.tp.snr.ctl.Ssthresh
		k.advance(50e6)
		k.ack(5001, "12001:13001") // two more are lost
		k.want("ca", Timeout)
		k.undone(0)
		k.collect(0)
		k.ack(9001, "12001:13001")
		k.undone(0)
		k.want("ca", Timeout)
		k.want("ssthresh", s)
		k.collect(0)
	})
}

// What the time-out has given up, and was not sent again, has arrived: it was spurious, whatever is
// missing before it.
func TestFRTOGivenUp(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t, withCC("newreno"))
		k.write(10000)
		k.during(100e6, segs(1, 10))
		k.ack(1001)
		k.during(600e6, "9001:10001 1001:2001")
		k.want("ca", Timeout)
		k.ack(1001, "3001:4001")
		k.undone(1)
		k.want("ca", Disorder)
		k.collect(0)
	})
}

// RFC 5682, 3.1, (3) b, of what was sent so late that the time-out has not given it up.
func TestFRTOInOrder(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t, withCC("newreno"))
		k.write(1000)
		k.during(100e6, segs(1, 1))
		k.ack(1001)
		k.write(1000)
		k.during(590e6, "1001:2001 1001:2001")
		k.write(2000)
		k.during(20e6, segs(2001, 2)+" 1001:2001")
		k.want("ca", Timeout)
		k.want("pipe", 3000)
		k.append(1000)
		k.ack(2001)
		k.want("ca", Timeout)
		k.during(5e6, segs(4001, 1))
		k.ack(3001)
		k.undone(1)
		k.want("ca", Open)
	})
}

// RFC 5682, 3.1, (2) b: as long as the answer to the new data is awaited, nothing else is sent
// again, though the window has room. If it does not come the next time-out sends what is lost.
func TestFRTOWaits(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t, withCC("newreno"), func(p *Profile) { p.Blackhole = false })
		k.write(12000)
		k.during(0, segs(1, 10))
		k.during(600e6, "10001:11001 1:1001")
		k.ack(1001)
		k.during(20e6, "11001:12001")
		k.tp.Output(k.now)
		k.during(200e6, "")
		k.want("ca", Timeout)
		k.during(600e6, "1001:2001")
		if n := k.stats.Rexmttimeo.Load(); n != 2 {
			t.Fatalf("%d time-outs, want 2", n)
		}
	})
}
