package tcp

import (
	"testing"
	"time"
)

// The time-out of a sender with a scoreboard: RFC 6298, RFC 5681, 3.1. What is measured and
// computed is in rto_test.go.

// RFC 6298, 5: "(5.1) Every time a packet containing data is sent (including a retransmission), if
// the timer is not running, start it". "(5.2) When all outstanding data has been acknowledged, turn
// off the retransmission timer." "(5.3) When an ACK is received that acknowledges new data, restart
// the retransmission timer". "(5.4) Retransmit the earliest segment", "(5.5) The host MUST set RTO
// <- RTO * 2", "(5.6) Start the retransmission timer".
func TestTimeoutManaged(t *testing.T) {
	each(t, func(t *T) {
		k := nosack(t, func(p *Profile) { p.Blackhole = false })
		k.want("rexmt", off)
		k.write(2000)
		k.during(50e6, segs(1, 2))
		k.want("rexmt", 250*time.Millisecond)
		k.write(1000)
		k.during(50e6, segs(2001, 1))
		k.want("rexmt", 200*time.Millisecond)
		k.ack(1001)
		k.want("rexmt", time.Duration(k.tp.rtt.rxtcur))
		k.during(50e6, "")
		k.ack(1001) // a duplicate: (5.3) is for new data
		k.want("rexmt", time.Duration(k.tp.rtt.rxtcur)-50*time.Millisecond)
		rto := time.Duration(k.tp.rtt.rxtcur)
		k.during(rto-50*time.Millisecond, "1001:2001")
		k.want("rto", 2*rto)
		k.want("rexmt", 2*rto)
		k.during(2*rto, "1001:2001")
		k.want("rto", 4*rto)
		k.want("rexmt", 4*rto)
		k.during(4*rto, "1001:2001")
		k.want("rexmt", 8*rto)
		k.want("backoff", 3)
		k.advance(100e6)
		k.ack(2001)
		k.want("backoff", 0)
		k.want("rto", 8*rto) // until there is a sample
		k.during(50e6, "2001:3001")
		k.ack(3001)
		k.want("rexmt", off)
	})
}

// RFC 6298, 3: no sample is made of a SYN that was retransmitted. 5.7: "the RTO MUST be
// re-initialized to 3 seconds when data transmission begins". RFC 5681, 3.1: "the initial window
// used by a sender after a correctly transmitted SYN MUST be one segment".
func TestTimeoutAfterSyn(t *testing.T) {
	each(t, func(t *T) {
		for _, ts := range []string{"", ",TS val 7000 ecr 100"} {
			k := closed(t, "mss 1000")
			k.connect()
			k.trace(`
			    > S 0:0(0)
			+1s > S 0:0(0)
			+1s < S. 0:0(0) ack 1 <mss 1000` + ts + `>
			    > . 1:1(0) ack 1`)
			k.want("srtt", time.Duration(0))
			k.want("rto", 3*time.Second)
			k.write(10000)
			mss := k.tp.effMSS()
			k.want("cwnd", mss)
			if got := k.tp.sndNxt.Sub(t.iss + 1); got != mss {
				t.Fatalf("%d bytes were sent, want one segment", got)
			}
			k.collect(100e6)
			k.acked(1 + mss)
			k.want("srtt", 100*time.Millisecond)
			k.want("rto", 300*time.Millisecond)
			k.want("cwnd", 2*mss)
		}

		k := closed(t, "mss 1000") // the SYN was not retransmitted
		k.connect()
		k.trace("> S 0:0(0)\n+100ms < S. 0:0(0) ack 1 <mss 1000>\n> . 1:1(0) ack 1")
		k.want("srtt", 100*time.Millisecond)
		k.want("rto", 300*time.Millisecond)
		k.write(20000)
		k.want("cwnd", 10000)
		k.collect(0)
	})
}

// RFC 5681, 3.1: "upon a timeout ... cwnd MUST be set to no more than the loss window, LW, which
// equals 1 full-sized segment", and "ssthresh = max (FlightSize / 2, 2*SMSS)"; but "When a TCP
// sender detects segment loss using the retransmission timer and the given segment has already been
// retransmitted by way of the retransmission timer at least once, the value of ssthresh is held
// constant." Then slow start.
func TestTimeoutWindow(t *testing.T) {
	each(t, func(t *T) {
		k := nosack(t, withCC("newreno"), func(p *Profile) { p.Blackhole = false })
		k.write(30000)
		k.during(0, segs(1, 10))
		k.during(300e6, "1:1001")
		k.want("cwnd", 1000)
		k.want("ssthresh", 5000)
		k.during(600e6, "1:1001")
		k.during(1200e6, "1:1001")
		k.want("cwnd", 1000)
		k.want("ssthresh", 5000)
		k.advance(100e6)
		k.ack(1001)
		k.want("cwnd", 2000)
		k.during(20e6, segs(10001, 2)) // F-RTO
		k.ack(1001)
		k.collect(100e6)
		for n := 2001; n <= 6001; n += 1000 {
			k.acked(n)
			k.want("ssthresh", 5000)
		}
		if w := k.tp.snr.ctl.Cwnd; w < 5000 || w > 7000 {
			t.Fatalf("cwnd is %d", w)
		}
		k.collect(100e6)
		k.acked(k.tp.snr.high.Sub(t.iss))
		k.want("ca", Open)
		k.collect(100e6)
		// The next time-out is one of a new flight.
		k.acked(k.tp.sndMax.Sub(t.iss))
		k.collect(100e6)
		k.acked(k.tp.sndMax.Sub(t.iss))
		k.write(5000)
		k.collect(4 * time.Second)
		k.want("ca", Timeout)
		if s := k.tp.snr.ctl.Ssthresh; s == 5000 {
			t.Fatal("ssthresh was held for another flight")
		}
	})
}

// A time-out of a flight whose losses are being repaired reduces nothing: that has been done.
func TestTimeoutInRecovery(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t, withCC("newreno"))
		k.write(10000)
		k.during(100e6, segs(1, 10))
		k.ack(1, "1001:4001")
		k.want("ssthresh", 5000)
		k.during(301e6, "1:1001 1:1001")
		k.want("ca", Timeout)
		k.want("ssthresh", 5000)
	})
}

// The least round trip is that of the handshake, until a shorter one is measured, or for five
// minutes.
func TestMinRTT(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t, "keepalive")
		at := 1
		round := func(d time.Duration) {
			t.Helper()
			k.write(1000)
			k.collect(d)
			at += 1000
			k.acked(at)
		}
		min := func(want time.Duration) {
			t.Helper()
			if got := k.tp.Info().MinRTT; got != want {
				k.fatalf("min RTT %v, want %v", got, want)
			}
		}
		min(100 * time.Millisecond)
		round(150 * time.Millisecond)
		min(100 * time.Millisecond)
		round(80 * time.Millisecond)
		min(80 * time.Millisecond)
		k.now += 200 * sec
		round(90 * time.Millisecond)
		min(80 * time.Millisecond)
		k.now += 101 * sec
		round(90 * time.Millisecond)
		min(90 * time.Millisecond)
	})
}
