package tcp

import (
	"testing"
	"time"
)

// RFC 5681, 3.2: "After the fast retransmit algorithm sends what appears to be the missing
// segment"; RFC 3042: the first two duplicates let out new data; RFC 6582, 3.2: a partial
// acknowledgment retransmits the next hole, a full one ends recovery.
//
// RFC 9293 MUST-19
func TestNewReno(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "bsd, mss 1000, rtt 100ms, sndbuf 100000")
		k.write(20000)
		k.trace(`
		> . 1:1001(1000) ack 1
		> . 1001:2001(1000) ack 1
		> . 2001:3001(1000) ack 1
		> . 3001:4001(1000) ack 1
		> . 4001:5001(1000) ack 1
		> . 5001:6001(1000) ack 1
		> . 6001:7001(1000) ack 1
		> . 7001:8001(1000) ack 1
		> . 8001:9001(1000) ack 1
		> . 9001:10001(1000) ack 1
		+100ms < . 1:1(0) ack 1                   // 1 and 5001 are lost
		> . 10001:11001(1000) ack 1               // limited transmit
		< . 1:1(0) ack 1
		> . 11001:12001(1000) ack 1
		< . 1:1(0) ack 1                          // the third
		> . 1:1001(1000) ack 1
		`)
		k.want("recovery", true)
		k.want("ssthresh", 5000) // half of the 10 that the window allowed
		k.want("cwnd", 8000)     // ssthresh + 3
		k.trace(`
		< . 1:1(0) ack 1                          // 9
		< . 1:1(0) ack 1                          // 10
		< . 1:1(0) ack 1                          // 11
		< . 1:1(0) ack 1                          // 12
		< . 1:1(0) ack 1                          // 13: new data
		> . 12001:13001(1000) ack 1
		`)
		k.want("cwnd", 13000)
		k.trace(`
		+100ms < . 1:1(0) ack 5001                // partial: the second hole, and one for what left
		> . 5001:6001(1000) ack 1
		> . 13001:14001(1000) ack 1
		`)
		k.want("cwnd", 9000)
		k.want("recovery", true)
		k.want("rexmt", time.Duration(k.tp.rtt.rxtcur))
		k.trace(`
		+100ms < . 1:1(0) ack 12001               // all that was out: back to ssthresh, without a burst
		> . 14001:15001(1000) ack 1
		`)
		k.want("cwnd", 3000) // flight + 1
		k.want("recovery", false)
		k.want("dupacks", 0)
	})
}

// RFC 5681, 2: what is a duplicate acknowledgment: not one with data, with another window, or when
// nothing is in flight (A33).
func TestDuplicateAckIsStrict(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "bsd, mss 1000, win 5000")
		k.write(5000)
		k.sent = nil
		k.line("< P. 1:11(10) ack 1")
		k.line("< P. 11:21(10) ack 1")
		k.line("< P. 21:31(10) ack 1")
		k.want("dupacks", 0)
		k.line("< . 31:31(0) ack 1 win 6000")
		k.line("< . 31:31(0) ack 1 win 7000")
		k.line("< . 31:31(0) ack 1 win 8000")
		k.want("dupacks", 0)
		k.read(all)
		k.sent = nil
		k.line("< . 31:31(0) ack 5001")
		k.line("< . 31:31(0) ack 5001")
		k.want("dupacks", 0)
		k.trace("+40ms > . 5001:5001(0) ack 31")
	})
}

// RFC 6582, 3.2, step 1: duplicates that tell of the flight in which loss was found already do not
// start recovery again.
func TestNoSecondRecovery(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "bsd, mss 1000")
		k.write(6000)
		k.sent = nil
		k.line("+1s > . 1:1001(1000) ack 1") // time-out: everything behind was sent before it
		for range 4 {
			k.input(k.pkt(".", 1, 1, 0))
		}
		k.want("recovery", false)
		k.sent = nil
	})
}

// RFC 5681, 3.1: after a time-out ssthresh is half the flight and the window one segment; then slow
// start.
func TestTimeoutCollapses(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "bsd, mss 1000")
		k.write(10000)
		k.sent = nil
		k.trace("+1s > . 1:1001(1000) ack 1")
		k.want("cwnd", 1000)
		k.want("ssthresh", 5000)
		k.trace(`
		< . 1:1(0) ack 1001
		> . 1001:2001(1000) ack 1
		> . 2001:3001(1000) ack 1
		`)
		k.want("cwnd", 2000)
	})
}

// RFC 5681, 3.1, slow start: one SMSS for each ACK at most of what it acknowledges; RFC 3465: by
// bytes, two segments at most.
func TestSlowStartByBytes(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "bsd, mss 1000, sndbuf 100000")
		k.write(10000)
		k.sent = nil
		k.line("< . 1:1(0) ack 1001")
		k.want("cwnd", 11000)
		k.line("< . 1:1(0) ack 3001")
		k.want("cwnd", 13000)
		k.line("< . 1:1(0) ack 6001") // three: counted as two
		k.want("cwnd", 15000)
		for n := range 1000 { // ACK division (A33): a thousand ACKs of one byte are worth one segment
			k.input(k.pkt(".", 1, 6002+n, 0))
		}
		k.want("cwnd", 16000)
	})
}

// RFC 5681, 3.1, congestion avoidance: one segment for each window.
func TestCongestionAvoidance(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "bsd, mss 1000, sndbuf 200000, win 65535")
		k.tp.sndSsthresh = 5000
		k.write(60000)
		una := 1
		for n := range 21 {
			k.sent = nil
			una += 1000
			k.input(k.pkt(".", 1, una, 0))
			want := 10000
			if n >= 9 {
				want = 11000
			}
			if n >= 20 {
				want = 12000
			}
			k.want("cwnd", want)
		}
		k.sent = nil
	})
}

// RFC 5681, 4.1: "if TCP has not sent data in an interval exceeding the retransmission timeout
// [...] cwnd [is] min(IW, cwnd)". BSD counts from when it last heard of the peer, and only if
// nothing is in flight.
func TestRestartAfterIdle(t *testing.T) {
	each(t, func(t *T) {
		grown := func() (k *kit, rto time.Duration) {
			k = established(t, "bsd, mss 1000, sndbuf 100000, rtt 100ms")
			k.write(10000)
			k.sent = nil
			k.line("< . 1:1(0) ack 10001")
			k.want("cwnd", 12000)
			return k, time.Duration(k.tp.rtt.rxtcur)
		}
		// sends asserts that as much goes out at once as a window lets go.
		sends := func(k *kit, cwnd int) {
			t.Helper()
			flight := k.tp.sndMax.Sub(k.tp.sndUna)
			k.write(30000)
			k.want("cwnd", cwnd)
			if n := k.tp.sndMax.Sub(k.tp.sndUna); n != cwnd {
				k.fatalf("%d bytes are in flight, %d before, with a window of %d", n, flight, cwnd)
			}
			k.sent = nil
		}
		k, rto := grown()
		k.advance(rto - 1)
		sends(k, 12000)
		for _, idle := range []time.Duration{0, 1, 24 * time.Hour} {
			k, rto = grown()
			k.advance(rto + idle)
			sends(k, 10000)
		}
		// Data that is sent before the time has passed keeps the window from restarting.
		k, rto = grown()
		k.advance(rto - 10*time.Millisecond)
		k.write(1000)
		k.sent = nil
		k.advance(20 * time.Millisecond)
		sends(k, 12000)
		// A smaller window than the initial one stays as it is.
		k, rto = grown()
		k.write(5000)
		k.sent = nil
		k.advance(rto)
		k.sent = nil
		k.want("cwnd", 1000)
		k.line("< . 1:1(0) ack 15001")
		k.want("cwnd", 2000)
		k.sent = nil
		k.advance(time.Hour)
		sends(k, 2000)
	})
}

// Net/3 grows by ACKs, and knows neither limited transmit nor partial acknowledgments.
func TestReno(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "Net3, mss 1000, nagle, sndbuf 60000")
		k.write(30000)
		k.trace("> . 1:1001(1000) ack 1\n< . 1:1(0) ack 1001\n> . 1001:2001(1000) ack 1\n> . 2001:3001(1000) ack 1")
		k.want("cwnd", 2000)
		k.line("< . 1:1(0) ack 1501") // half a segment counts as one
		k.want("cwnd", 3000)
		k.sent = nil
	})
}

// The window is never grown by what is not acknowledged, nor beyond what a window field can say.
func TestCwndLimit(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "bsd, mss 1000, sndbuf 300000")
		una := 1
		for range 400 {
			k.append(max(0, 100000-k.snd.Cc()))
			k.tp.Output(k.now)
			k.sent = nil
			una = k.tp.sndMax.Sub(t.iss)
			k.input(k.pkt(".", 1, una, 0))
		}
		k.sent = nil
		k.want("cwnd", 65535)
	})
}
