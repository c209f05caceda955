package tcp

import (
	"fmt"
	"slices"
	"testing"
)

// Recovery by selective acknowledgments: RFC 2018, RFC 6675.

// RFC 5681, 3.2: "On the first and second duplicate ACKs received at a sender, a TCP SHOULD send a
// segment of previously unsent data per [RFC3042]", but "the TCP sender MUST NOT change cwnd to
// reflect these two segments". With SACK that falls out of pipe.
func TestLimitedTransmit(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t)
		k.write(30000)
		k.during(100e6, segs(1, 10))
		k.ack(1, "1001:2001")
		k.during(10e6, "10001:11001")
		k.ack(1, "1001:3001")
		k.during(10e6, "11001:12001")
		k.want("cwnd", 10000)
		k.want("ca", Disorder)
		k.ack(1, "1001:3001") // nothing new
		k.during(1e6, "")
		// RFC 6675, 5, (3.3): it can "send previously unsent data segments" only as far as the
		// window of the peer goes.
		k = sending(t, "win 80")
		k.write(30000)
		k.during(100e6, segs(1, 10))
		k.ack(1, "1001:2001")
		k.during(10e6, "") // 80 << 7 is 10240, and the rest would be silly
	})
}

// If segments overtake each other, most acknowledgments are duplicates, and a window that grew only
// with the others would not grow.
func TestReorderedWindowGrows(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t)
		k.write(30000)
		k.during(100e6, segs(1, 10))
		k.acked(1, "1001:2001")
		k.acked(2001)
		k.want("cwnd", 11000)
		if !k.tp.snr.rack.seen {
			t.Fatal("reordering was not seen")
		}
		k.acked(2001, "3001:4001")
		k.want("cwnd", 12000)
	})
}

// RFC 6675, 5: "(4.2) ... RecoveryPoint = HighData", "(4.3) Retransmit the first data segment
// presumed dropped", then "(C) If cwnd - pipe >= 1 SMSS, the sender SHOULD transmit one or more
// segments": the holes in their order, then new data. It ends as "HighACK" reaches the recovery
// point, and not before.
func TestSackRecovery(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t)
		k.write(50000)
		k.during(100e6, segs(1, 10)) // 1, 3001 and 4001 are lost
		k.ack(1, "1001:2001")
		k.during(6e6, "10001:11001")
		k.ack(1, "1001:3001")
		k.during(6e6, "11001:12001")
		k.want("ca", Disorder)
		k.want("pipe", 10000)
		k.ack(1, "5001:6001", "1001:3001")
		k.want("ca", Recovering)
		k.want("pipe", 12000-3000-3000+1000)
		k.sends("1:1001")
		k.during(20e6, "")
		k.ack(1, "5001:7001", "1001:3001")
		k.during(20e6, "3001:4001")
		k.ack(1, "5001:8001", "1001:3001")
		k.during(20e6, "4001:5001")
		k.ack(1, "5001:9001", "1001:3001")
		k.during(20e6, "12001:13001")
		k.ack(1, "5001:10001", "1001:3001")
		k.during(20e6, "13001:14001")
		k.ack(3001, "5001:10001")
		k.collect(6e6)
		k.want("ca", Recovering)
		k.ack(11001)
		k.want("ca", Recovering)
		k.collect(6e6)
		k.ack(12001)
		k.want("ca", Open)
		k.want("ssthresh", 7000)
		k.collect(0)
		if n := k.stats.Fastrexmit.Load(); n != 1 {
			t.Fatalf("%d recoveries", n)
		}
	})
}

// RFC 6675, 5, (4.1): what is in the network when recovery begins is the flight, and a loss that is
// found meanwhile belongs to it: "once for each window of data" is the window reduced.
func TestSackOneReduction(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t)
		k.write(50000)
		k.during(100e6, segs(1, 10))
		k.acked(1, "1001:4001")
		k.want("ssthresh", 7000)
		k.acked(1, "1001:4001", "5001:8001")
		k.want("ca", Recovering)
		k.want("ssthresh", 7000)
		k.collect(100e6)
		high := k.tp.snr.high.Sub(t.iss)
		// Behind the recovery point begins another flight.
		k.ack(high)
		k.collect(100e6)
		k.want("ca", Open)
		k.acked(high, fmt.Sprintf("%d:%d", high+1000, high+4001))
		k.want("ca", Recovering)
		if s := k.tp.snr.ctl.Ssthresh; s >= 7000 {
			t.Fatalf("ssthresh is %d", s)
		}
	})
}

// RFC 2018, 4 and 5: a block tells of what was sent and lies above the acknowledgment. Others are
// an attack or garbage: what was never sent, what has been acknowledged, and what ends before it
// begins.
func TestSackGarbage(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t)
		k.write(20000)
		k.during(100e6, segs(1, 10))
		k.ack(2001)
		k.collect(50e6)
		nxt := k.tp.sndNxt.Sub(t.iss)
		for _, b := range []string{
			fmt.Sprintf("%d:%d", nxt, nxt+1000), fmt.Sprintf("4001:%d", nxt+1), "5001:4001", "5001:5001", "-5000:-4000",
			fmt.Sprintf("%d:%d", 5001, int64(5001-1<<31)), fmt.Sprintf("%d:%d", int64(2001+1<<31),
				3001), "1:2001", "-99:2001",
		} {
			k.ack(2001, b)
			k.sends("")
			if k.tp.snr.sb.sacked != 0 {
				t.Fatalf("block %s was taken", b)
			}
		}
		k.want("ca", Open)
		k.ack(2001, "1:4001") // the part that is there
		if n := k.tp.snr.sb.sacked; n != 2000 {
			t.Fatalf("%d bytes of a block that reaches below the acknowledgment, want 2000", n)
		}
		k.collect(0)
	})
}

// An acknowledgment that has been overtaken brings its blocks all the same.
func TestSackOfOldAck(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t)
		k.write(10000)
		k.during(100e6, segs(1, 10))
		k.ack(4001)
		k.ack(1, "1001:2001", "5001:6001")
		if n := k.tp.snr.sb.sacked; n != 1000 {
			t.Fatalf("%d bytes acknowledged selectively, want 1000", n)
		}
		k.want("ca", Disorder)
		k.collect(0)
	})
}

// SACK blocks begin and end at any byte; what lies between them is sent again as it is.
func TestSackUneven(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t, "tso 65000")
		k.write(10000)
		k.during(100e6, "1:10001")
		k.ack(1, "501:1499", "2000:2001", "3001:9000")
		k.want("ca", Recovering)
		k.during(99e6, "1:2001 2001:3001")
		k.ack(501, "501:1499", "2000:2001", "3001:9000")
		k.collect(20e6)
		k.ack(3001, "3001:9000")
		k.during(30e6, "8001:10001")
		k.ack(10001)
		k.want("ca", Open)
	})
}

// RFC 2018, 8: "the data sender ... SHOULD turn off all of the SACKed bits" after "a retransmit
// timeout", as "the data receiver is permitted to discard data in its queue": and if it has
// acknowledged selectively what comes next, it has. All must be sent again.
func TestSackReneged(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t, func(p *Profile) { p.Blackhole = false })
		k.write(10000)
		k.during(100e6, segs(1, 10))
		k.acked(1, "1001:8001")
		k.want("ca", Recovering)
		k.ack(1001) // the hole is filled, and it has nothing behind it
		k.during(190e6, "")
		k.write(1000)
		k.during(101e6, "10001:11001")
		k.ack(1001, "1001:8001", "10001:11001")
		k.during(8e6, segs(8001, 2))
		k.want("ca", Recovering)
		k.during(2e6, "1001:2001")
		k.want("ca", Timeout)
		if n := k.stats.Sackreneged.Load(); n != 1 {
			t.Fatal("the reneging was not noticed")
		}
		k.want("pipe", 1000) // all the rest is lost
		for n := 2001; n < 11001; n += 1000 {
			k.ack(n)
			k.collect(90e6)
			k.want("ca", Timeout)
		}
		k.ack(11001)
		k.want("ca", Open)
		if n := k.stats.Rexmttimeo.Load(); n != 1 {
			t.Fatalf("%d time-outs", n)
		}
	})
}

// RFC 9293, SHLD-17: what lies beyond a window that has shrunk waits until it is open again, and
// what lies within it is sent again.
func TestSackShrunkWindow(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t, "wscale 0, win 20000")
		k.write(10000)
		k.during(100e6, segs(1, 10))
		k.line("< . 1:1(0) ack 1001 win 2500 <sack 7001:10001>")
		k.want("ca", Recovering)
		k.during(99e6, segs(1001, 2)+" 3001:3501")
		k.line("< . 1:1(0) ack 3501 win 20000 <sack 7001:10001>")
		k.during(99e6, "3501:4501 4501:5501 5501:6501 6501:7001")
		k.ack(7001, "7001:10001")
		k.ack(10001)
		k.want("ca", Open)
	})
}

// A heard is a congestion controller that notes what it is told has been delivered.
type heard struct {
	CC
	delivered []int
}

func (h *heard) Acked(v *View, a *Ack, c *Control) {
	h.delivered = append(h.delivered, a.Delivered)
	h.CC.Acked(v, a, c)
}

// The bytes that are delivered by the acknowledgment that ends a recovery count with the next one,
// and only with that.
func TestDeliveredCountsOnce(t *testing.T) {
	each(t, func(t *T) {
		for _, name := range []string{"cubic", "newreno"} {
			k := sending(t)
			k.tp.SetCC(name, k.now)
			k.write(10000)
			k.collect(100e6)
			k.acked(1001)
			h := &heard{CC: k.tp.snr.cc}
			k.tp.snr.cc = h
			k.acked(1001, "3001:10001")
			k.want("ca", Recovering)
			k.collect(100e6)
			h.delivered = nil
			k.acked(10001)
			k.want("ca", Open)
			if len(h.delivered) != 0 {
				k.fatalf("%s: the window grows by %d when the recovery ends", name, h.delivered)
			}
			k.write(10000)
			k.collect(100e6)
			k.acked(11001)
			k.acked(12001)
			k.acked(14001)
			if want := []int{3000, 1000, 2000}; !slices.Equal(h.delivered, want) {
				k.fatalf("%s: %d are said to be delivered, want %d", name, h.delivered, want)
			}
		}
	})
}
