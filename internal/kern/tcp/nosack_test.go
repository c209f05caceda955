package tcp

import (
	"testing"
	"time"
)

// Peers without SACK: a duplicate acknowledgment stands for a segment that has arrived (RFC 5681,
// 3.2; RFC 6582).

// nosack is sending to a peer without SACK.
func nosack(t *T, opts ...any) *kit {
	return established(t, append([]any{"mss 1000, wscale 7, rtt 100ms, sndbuf 1000000",
		func(p *Profile) { p.SendbufAuto = false }}, opts...)...)
}

// RFC 5681, 3.2: "After the fast retransmit algorithm sends what appears to be the missing segment,
// the "fast recovery" algorithm governs the transmission of new data until a non-duplicate ACK
// arrives." RFC 3042: the first two duplicates let out new data. RFC 6582, 3.2, step 3: "a partial
// acknowledgment" retransmits "the first unacknowledged segment"; a full one ends the recovery.
func TestNoSackRecovery(t *testing.T) {
	each(t, func(t *T) {
		k := nosack(t)
		k.write(30000)
		k.during(100e6, segs(1, 10)) // 1 and 5001 are lost
		k.ack(1)
		k.during(10e6, "10001:11001")
		k.ack(1)
		k.during(10e6, "11001:12001")
		k.want("ca", Disorder)
		k.ack(1)
		k.sends("1:1001")
		k.want("ca", Recovering)
		k.want("ssthresh", 7000)
		for range 5 {
			k.ack(1)
			k.collect(0)
		}
		k.collect(50e6)
		k.want("ca", Recovering)
		k.ack(5001)
		k.sends("5001:6001 15001:16001") // and one for what has left the network
		k.want("ca", Recovering)
		high := k.tp.snr.high.Sub(t.iss)
		k.during(50*time.Millisecond, "")
		k.ack(high)
		k.want("ca", Open)
		if w := k.tp.snr.ctl.Cwnd; w < 7000 || w > 7500 { // and what this acknowledgment is worth
			t.Fatalf("cwnd is %d, want 7000", w)
		}
		k.collect(0)
	})
}

// A duplicate acknowledgment says that a segment has arrived; when all of them are acknowledged in
// order, they have not arrived again.
func TestNoSackDeliveredOnce(t *testing.T) {
	each(t, func(t *T) {
		k := nosack(t)
		k.write(10000)
		k.during(100e6, segs(1, 10))
		for range 9 {
			k.ack(1)
			k.collect(0)
		}
		if n := k.tp.snr.rate.delivered; n != 9000 {
			t.Fatalf("9 duplicates: %d bytes delivered", n)
		}
		k.ack(10001)
		if n := k.tp.snr.rate.delivered; n != 10000 {
			t.Fatalf("all acknowledged: %d bytes delivered, want 10000", n)
		}
		if n := k.tp.snr.ack.Delivered; n != 1000 {
			t.Fatalf("the last acknowledgment has delivered %d bytes, want 1000", n)
		}
	})
}

// RFC 5681, 3.2: "The TCP sender SHOULD use the "fast retransmit" algorithm to detect and repair
// loss, based on incoming duplicate ACKs": three of them, whatever the size of the segments that
// they stand for.
func TestNoSackSmallSegments(t *testing.T) {
	each(t, func(t *T) {
		k := nosack(t)
		k.write(3500)
		k.during(100e6, segs(1, 3)+" 3001:3501")
		k.ack(1)
		k.ack(1)
		k.sends("")
		k.ack(1)
		k.sends("1:1001")
		k.ack(3501)
		k.want("ca", Open)

		k = nosack(t)
		for range 5 {
			k.write(100)
		}
		k.during(100e6, "1:101 101:201 201:301 301:401 401:501")
		k.ack(1)
		k.ack(1)
		k.sends("")
		k.ack(1)
		k.sends("1:101")
		k.ack(501)
	})
}

// RFC 6582, 3.2, step 1: duplicates that tell of the flight that was found lost already do not
// begin another recovery.
func TestNoSackNoSecondRecovery(t *testing.T) {
	each(t, func(t *T) {
		k := nosack(t)
		k.write(10000)
		k.during(0, segs(1, 10))
		k.during(300e6, "1:1001") // the time-out
		k.want("ca", Timeout)
		for range 4 {
			k.ack(1)
			k.collect(10e6)
		}
		k.want("ca", Timeout)
		k.ack(2001)
		k.collect(50e6)
		k.want("ca", Timeout)
		n := k.stats.Fastrexmit.Load()
		if n != 0 {
			t.Fatalf("%d fast retransmits", n)
		}
	})
}

// RFC 5682, 2.1, step 3: the time-out was spurious if "the acknowledgment acknowledges data that
// was not retransmitted". Without SACK an acknowledgment of what was sent again covers what has
// arrived behind it before; that is no evidence.
func TestNoSackTimeoutIsReal(t *testing.T) {
	each(t, func(t *T) {
		k := nosack(t)
		k.write(3000)
		k.during(300e6, segs(1, 3)+" 1:1001") // two segments behind the hole are too few for duplicates to tell
		k.want("ca", Timeout)
		k.during(100e6, "")
		k.ack(3001)
		k.want("ca", Open)
		if n := k.stats.Sndundo.Load(); n != 0 {
			t.Fatal("a real loss was taken for a spurious time-out")
		}
		k.want("ssthresh", 2100)
	})
}

// RFC 6298, 3: "RTT samples MUST NOT be made using segments that were retransmitted". What arrived
// behind the hole waited for it there.
func TestNoSackKarn(t *testing.T) {
	each(t, func(t *T) {
		k := nosack(t)
		k.write(10000)
		k.during(100e6, segs(1, 10))
		k.ack(1)
		k.ack(1)
		k.ack(1)
		k.sends("1:1001")
		k.during(150e6, "")
		k.ack(10001)
		k.want("srtt", 100*time.Millisecond)
		k.want("rto", 300*time.Millisecond)
	})
}

// Without SACK nobody asks when what was sent again was sent; it is not remembered.
func TestNoSackRemembersNothing(t *testing.T) {
	each(t, func(t *T) {
		k := nosack(t)
		una := 1
		for range 200 {
			k.write(5000)
			k.tp.snr.ctl.Cwnd = 10000
			k.collect(100e6)
			k.acked(una)
			k.acked(una)
			k.acked(una)
			k.want("ca", Recovering)
			k.collect(100e6)
			una += 5000
			k.acked(una)
		}
		if n := cap(k.tp.snr.rack.queue); n > 64 {
			t.Fatalf("room for %d retransmissions is kept", n)
		}
	})
}

// A congestion mark is no loss: duplicates after it tell of one (RFC 6582 has RFC 3168's reduction
// apart from "recover").
func TestNoSackLossAfterMark(t *testing.T) {
	each(t, func(t *T) {
		k := nosack(t, "ecn")
		k.write(20000)
		k.during(100e6, segs(1, 10))
		k.line("< .E 1:1(0) ack 1001")
		k.want("ca", CWR)
		k.collect(0)
		k.acked(1001)
		k.acked(1001)
		k.acked(1001)
		k.want("ca", Recovering)
		k.want("ssthresh", 7000) // once
		k.collect(0)
	})
}
