package tcp

import (
	"testing"
	"time"
)

// The tail loss probe: RFC 8985, 7.

// RFC 8985, 7.2: "If SRTT is available: PTO = 2 * SRTT. If FlightSize is one segment: PTO +=
// TLP.max_ack_delay. Else: PTO = 1 sec. If Now() + PTO > TCP_RTO_expire(): PTO = TCP_RTO_expire() -
// Now()". To twice SRTT 2 ms are added, for the granularity of timers.
func TestTLPTimeout(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t)
		k.write(3000)
		k.during(0, segs(1, 3))
		k.want("rexmt", 202*time.Millisecond)
		k.trace("+202ms > P. 2001:3001(1000) ack 1") // "retransmit the highest-sequence segment sent so far"
		k.want("rexmt", 300*time.Millisecond)        // 7.3: the probe comes before the time-out, not in its stead
		k.trace("+300ms > . 1:1001(1000) ack 1")
		k.want("ca", Timeout)

		k = sending(t) // of one segment the acknowledgment may be delayed; but the probe is no later than the time-out
		k.write(1000)
		k.trace("> P. 1:1001(1000) ack 1\n+300ms > P. 1:1001(1000) ack 1")
		k.want("ca", Open)
		k.trace("+300ms > P. 1:1001(1000) ack 1")
		k.want("ca", Timeout)

		k = established(t, "mss 1000, sack")
		k.write(3000)
		k.during(0, segs(1, 3))
		k.trace("+1s > P. 2001:3001(1000) ack 1")
		k.want("ca", Open)

		k = closed(t, "mss 1000, sack")
		k.connect()
		k.trace(`
		    > S 0:0(0)
		+1s > S 0:0(0)
		    < S. 0:0(0) ack 1 <mss 1000,sackOK>
		    > . 1:1(0) ack 1`)
		k.write(2000)
		k.trace("> . 1:1001(1000) ack 1\n+1s > P. 1001:2001(1000) ack 1")
		k.want("rexmt", 3*time.Second)

		k = sending(t) // what is sent or acknowledged later puts it off
		k.write(2000)
		k.during(100e6, segs(1, 2))
		k.write(2000)
		k.during(50e6, segs(2001, 2))
		k.want("rexmt", 150*time.Millisecond) // that is the time-out, which is put off by neither
		k.ack(1001)
		k.want("rexmt", 2*time.Duration(k.tp.rtt.srtt)+2*time.Millisecond)
		k.during(50e6, "")
		k.tp.Output(k.now) // what else happens does not
		k.want("rexmt", 2*time.Duration(k.tp.rtt.srtt)-48*time.Millisecond)
	})
}

// RFC 8985, 7.3: "If an unsent segment exists AND the receive window allows new data to be sent:
// Transmit the lowest-sequence unsent segment of up to SMSS. Else: Retransmit the highest-sequence
// segment sent so far". Beyond the congestion window.
func TestTLPNewData(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t)
		k.write(30000)
		k.during(0, segs(1, 10))
		k.trace("+202ms > . 10001:11001(1000) ack 1")
		k.want("pipe", 11000)
		k.during(200e6, "")
		k.ack(11001) // 7.4.2: "If not TLP.is_retrans: TLP.end_seq = None": there was no loss
		k.want("ca", Open)
		k.want("ssthresh", infinite)
		k.collect(1e6)
		if k.tp.snr.tlp.on {
			t.Fatal("the probe has not ended")
		}

		k = established(t, "mss 1000, sack, rtt 100ms, sndbuf 100000, win 10000")
		k.write(30000)
		k.during(0, segs(1, 10))
		k.trace("+202ms > . 9001:10001(1000) ack 1")
	})
}

// RFC 8985, 7.4.2: "Else If ACK has a DSACK option matching TLP.end_seq: TLP.end_seq = None": the
// original has arrived as well.
func TestTLPDuplicate(t *testing.T) {
	each(t, func(t *T) {
		for _, first := range []bool{false, true} {
			k := sending(t)
			k.write(3000)
			k.during(202e6, segs(1, 3)+" 2001:3001")
			if first { // the acknowledgment of the original comes first
				k.ack(3001)
				if !k.tp.snr.tlp.on {
					t.Fatal("the end of the probe is not known yet")
				}
			}
			k.ack(3001, "2001:3001")
			if k.tp.snr.tlp.on {
				t.Fatal("the probe has not ended")
			}
			k.write(1000)
			k.during(50e6, "3001:4001")
			k.ack(4001)
			k.want("ssthresh", infinite)
		}
	})
}

// RFC 8985, 7.4.2: "Else If ACK is a DUPACK without any SACK option: TLP.end_seq = None": a peer
// that does not know RFC 2883 has got both.
func TestTLPDuplicateAck(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t)
		k.write(3000)
		k.during(202e6, segs(1, 3)+" 2001:3001")
		k.ack(3001)
		k.line("< . 1:1(0) ack 3001 win 65534") // this only tells of the window
		if !k.tp.snr.tlp.on {
			t.Fatal("a window was taken for a duplicate")
		}
		k.line("< . 1:1(0) ack 3001 win 65534")
		if k.tp.snr.tlp.on {
			t.Fatal("the probe has not ended")
		}
		k.write(1000)
		k.during(50e6, "3001:4001")
		k.ack(4001)
		k.want("ssthresh", infinite)
		k.during(time.Second, "")
	})
}

// RFC 8985, 7.4.2: "Else If ACK.seq > TLP.end_seq: TLP.end_seq = None. /* Repaired the single loss
// */ Invoke a congestion control response equivalent to a fast recovery".
func TestTLPRepaired(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t, withCC("newreno"))
		k.write(10000)
		k.during(100e6, segs(1, 10)) // 9001 is lost
		k.ack(9001)
		k.during(300e6, "9001:10001")
		k.want("cwnd", 12000)
		k.ack(10001)
		k.write(4000)
		k.during(50e6, segs(10001, 4))
		k.ack(11001)
		k.want("ca", Open)
		k.want("ssthresh", 5000)
		k.want("cwnd", 5000)
		if k.tp.snr.tlp.on {
			t.Fatal("the probe has not ended")
		}
	})
}

// RFC 8985, 7.3: "TLP.end_seq" is set as long as a probe is out, and no other is sent then.
func TestTLPOnlyOne(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t, withCC("newreno"), func(p *Profile) { p.Blackhole = false })
		k.write(3000)
		k.during(202e6, segs(1, 3)+" 2001:3001")
		k.write(3000)
		k.during(299e6, segs(3001, 3))
		k.during(1e6, "1:1001") // the time-out
		k.want("ca", Timeout)
		if n := k.stats.Sndtlp.Load(); n != 1 {
			t.Fatalf("%d probes", n)
		}
		k.during(10*time.Second, "1:1001 1:1001 1:1001 1:1001") // nor while the time-out is backed off
		k.want("ssthresh", 3000)
		k.ack(1001)
		k.during(100e6, segs(1001, 2))
		k.acked(6001) // the time-out has ended it
		k.want("ssthresh", 3000)
		k.want("ca", Open)
		k.write(1000)
		k.during(4*time.Second, "6001:7001 6001:7001")
		if n := k.stats.Sndtlp.Load(); n != 2 {
			t.Fatalf("%d probes", n)
		}
	})
}

// RFC 8985, 7.1: the probe draws a selective acknowledgment, by which RACK finds what lies before
// it lost.
func TestTLPFindsLosses(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t, withCC("newreno"))
		k.write(1000)
		k.collect(100e6)
		k.ack(1001)
		k.tp.snr.ctl.Cwnd = 20000
		k.write(20000)
		k.during(100e6, segs(1001, 20)) // the last ten are lost
		k.ack(11001)
		k.during(340e6, "20001:21001")
		k.ack(11001, "20001:21001") // of a probe that was sent twice: it is early if it does not last a round trip
		k.want("ca", Recovering)
		k.want("ssthresh", 10000)
		k.during(50e6, segs(11001, 1))
		k.ack(12001, "20001:21001")
		k.during(50e6, segs(12001, 2))
		k.ack(14001, "20001:21001")
		k.during(50e6, segs(14001, 3))
		k.ack(17001, "20001:21001")
		k.during(90e6, segs(17001, 3))
		k.ack(21001)
		k.want("ca", Open)
		// The reduction is that of the recovery: 7.4.2 is for what no recovery has answered.
		k.write(2000)
		k.during(50e6, segs(21001, 2))
		k.ack(23001)
		k.want("ssthresh", 10000)
		if k.tp.snr.tlp.on {
			t.Fatal("the probe has not ended")
		}
	})
}

// The end of the stream is its tail as well.
func TestTLPFin(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t)
		k.write(1000)
		k.shutdown()
		k.during(100e6, "1:1001 1001:1001F")
		k.ack(1001)
		k.trace("+300ms > F. 1001:1001(0) ack 1")
		k.ack(1002)
		k.want("state", FinWait2)

		k = sending(t)
		k.append(1500)
		k.shutdown()
		k.during(0, "1:1001 1001:1501F")
		k.trace("+202ms > FP. 1001:1501(500) ack 1")
		k.ack(1502)
		k.want("state", FinWait2)
	})
}
