package tcp

import (
	"syscall"
	"testing"
	"time"
)

func TestRetransmitBacksOff(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "mss 1000")
		// RFC 6298, 5.5: the timer backs off by doubling.
		k.write(5)
		k.trace(`
		      > P. 1:6(5) ack 1
		+1s   > P. 1:6(5) ack 1              // first RTO
		+2s   > P. 1:6(5) ack 1              // doubled
		+10ms < .  1:1(0) ack 6 win 65535
		`)
		k.want("rexmt", off)
		k.want("backoff", 0)
	})
}

// RFC 6298, 2: 2.1 the initial RTO is 1 s; 2.2 and 2.3 SRTT and RTTVAR; 2.4 here the floor is 200
// ms, as Linux has it.
//
// RFC 9293 MUST-18
func TestRTOComputed(t *testing.T) {
	each(t, func(t *T) {
		k := established(t)
		k.want("rto", time.Second)
		k.write(1)
		k.trace("> P. 1:2(1) ack 1\n+100ms < . 1:1(0) ack 2")
		k.want("srtt", 100*time.Millisecond)
		k.want("rttvar", 50*time.Millisecond)
		k.want("rto", 300*time.Millisecond)
		k.write(1)
		k.trace("> P. 2:3(1) ack 1\n+180ms < . 1:1(0) ack 3")
		k.want("srtt", 110*time.Millisecond)      // 7/8*100 + 1/8*180
		k.want("rttvar", 57500*time.Microsecond)  // 3/4*50 + 1/4*80
		k.want("rto", (110+230)*time.Millisecond) // SRTT + 4*RTTVAR
		for n := range 120 {                      // a steady path: the floor is under the variance
			k.write(1)
			k.line("> P." + k.span(3+n, 1) + " ack 1")
			k.advance(10 * time.Millisecond)
			k.input(k.pkt(".", 1, 4+n, 0))
		}
		if rto := time.Duration(k.tp.rtt.rxtcur); rto < 210*time.Millisecond || rto > 211*time.Millisecond {
			k.fatalf("rto %v, want 210 ms", rto)
		}

		k = established(t, "FreeBSD, rtt 100ms")
		k.want("rto", 500*time.Millisecond) // 100 + 4*50 + 200 of slop
		k = established(t, "Net3")
		k.want("rto", 6*time.Second)
	})
}

// RFC 6298, 5.1 to 5.3: the timer starts with the first segment in flight, is restarted by an ACK
// of new data, and stops with the last.
func TestRTOManaged(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "mss 1000, rtt 100ms")
		k.write(1000)
		k.trace("> P. 1:1001(1000) ack 1\n+50ms")
		k.write(1000)
		k.trace("> P. 1001:2001(1000) ack 1")
		k.want("rexmt", 250*time.Millisecond)
		k.trace("+50ms < . 1:1(0) ack 1001")
		k.want("rexmt", time.Duration(k.tp.rtt.rxtcur))
		k.trace("+50ms < . 1:1(0) ack 2001")
		k.want("rexmt", off)
	})
}

// RFC 6298, 3, Karn: "RTT samples MUST NOT be made using segments that were retransmitted"; 5: the
// time-out stays backed off until a sample.
func TestKarn(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "rtt 100ms")
		k.write(5)
		k.trace(`
		       > P. 1:6(5) ack 1
		+300ms > P. 1:6(5) ack 1
		+10ms  < .  1:1(0) ack 6
		`)
		k.want("srtt", 100*time.Millisecond)
		k.want("rto", 600*time.Millisecond)
		k.write(5)
		k.trace("> P. 6:11(5) ack 1")
		k.want("rexmt", 600*time.Millisecond)
		k.trace("+100ms < . 1:1(0) ack 11")
		k.want("srtt", 100*time.Millisecond)
		k.want("rto", 300*time.Millisecond) // 100 + the floor of 4*RTTVAR
	})
}

// RFC 7323, 4: with timestamps a sample is valid after a retransmission too.
func TestTimestampSampleAfterRetransmission(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "ts, rtt 100ms")
		k.write(5)
		k.trace(`
		       > P. 1:6(5) ack 1 <nop,nop,TS val 100 ecr 7000>
		+300ms > P. 1:6(5) ack 1 <nop,nop,TS val 400 ecr 7000>
		+20ms  < .  1:1(0) ack 6 <TS val 7320 ecr 400>
		`)
		k.want("srtt", 90*time.Millisecond) // 7/8*100 + 1/8*20
		k.want("backoff", 0)
	})
}

// FreeBSD: twelve retransmissions, up to 64 s apart, then ETIMEDOUT with a reset. RFC 9293: R2
// "SHOULD correspond to at least 100 seconds", also if round trips are short.
//
// RFC 9293 MUST-20
// RFC 9293 SHLD-11
func TestGivesUp(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "FreeBSD")
		k.write(5)
		k.line("> P. 1:6(5) ack 1")
		d := time.Second
		for n := range 12 {
			k.advance(d)
			k.trace("> P. 1:6(5) ack 1")
			d = min(time.Second<<(n+1)+200*time.Millisecond, 64*time.Second)
		}
		k.trace("+64s > R. 6:6(0) ack 1 win 0")
		k.want("error", syscall.ETIMEDOUT)
		k.want("state", Closed)

		k = established(t, "rtt 1ms")
		k.write(5)
		k.line("> P. 1:6(5) ack 1")
		d = 201 * time.Millisecond
		for range 12 {
			k.advance(d)
			k.trace("> P. 1:6(5) ack 1")
			d = min(2*d, 64*time.Second)
		}
		k.trace("+64s > R. 6:6(0) ack 1")
		if k.now-epoch < 100*sec {
			k.fatalf("gave up after %v", time.Duration(k.now-epoch))
		}
	})
}

// RFC 9293, 3.8.3: "An application MUST be able to set the value for R2 for a particular
// connection": MaxUnack, TCP_USER_TIMEOUT.
//
// RFC 9293 MUST-21
func TestMaxUnack(t *testing.T) {
	each(t, func(t *T) {
		k := established(t)
		k.tp.MaxUnack = 5
		k.write(5)
		k.trace(`
		    > P. 1:6(5) ack 1
		+1s > P. 1:6(5) ack 1
		+2s > P. 1:6(5) ack 1
		+2s > R. 6:6(0) ack 1
		`)
		k.want("error", syscall.ETIMEDOUT)

		k = established(t, "FreeBSD") // looks at it when a retransmission is due
		k.tp.MaxUnack = 5
		k.write(5)
		k.trace(`
		      > P. 1:6(5) ack 1
		+1s   > P. 1:6(5) ack 1
		+2.2s > P. 1:6(5) ack 1
		+4.2s > R. 6:6(0) ack 1
		`)
		k.want("error", syscall.ETIMEDOUT)

		// Progress starts the time anew, and silence without data is no reason.
		k = established(t, "mss 1000", func(p *Profile) { p.Blackhole = false })
		k.tp.MaxUnack = 5
		k.trace("+1000s")
		k.write(2000)
		k.trace(`
		    > . 1:1001(1000) ack 1
		    > P. 1001:2001(1000) ack 1
		+1s > . 1:1001(1000) ack 1
		+2s > . 1:1001(1000) ack 1
		    < . 1:1(0) ack 1001
		    > P. 1001:2001(1000) ack 1
		+4s > P. 1001:2001(1000) ack 1
		+999ms < . 1:1(0) ack 2001
		`)
		k.want("state", Established)
	})
}

// RFC 9293, 3.9.2.2: the last soft error says more than the time.
//
// RFC 9293 MUST-47
func TestSoftErrorReported(t *testing.T) {
	each(t, func(t *T) {
		k := established(t)
		k.write(5)
		k.line("> P. 1:6(5) ack 1")
		k.tp.Ctlinput(syscall.EHOSTUNREACH, t.iss+1, false, k.now)
		for k.tp.State() != Closed {
			k.sent = nil
			k.advance(time.Duration(k.tp.Next() - k.now))
		}
		k.sent = nil
		k.want("error", syscall.EHOSTUNREACH)
	})
}

// RFC 9293, 3.8.4: keep-alives only if the application asks, no more often than every two hours
// unless told; the probe is <SEQ=SND.NXT-1><ACK=RCV.NXT> without data; one that is lost does not
// kill.
//
// RFC 9293 MUST-24
// RFC 9293 MUST-25
// RFC 9293 MUST-26
// RFC 9293 MUST-27
// RFC 9293 MUST-28
// RFC 9293 MUST-29
// RFC 9293 SHLD-12
func TestKeepalive(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "FreeBSD")
		k.trace("+1000h")
		k.tp.KeepaliveOn(true, k.now)
		k.sent = nil

		k = established(t, "FreeBSD, ts, keepalive")
		k.trace(`
		+1h    < . 1:1(0) ack 1                     // activity
		+1h
		+3600s > . 0:0(0) ack 1 <nop,nop,TS val 10800100 ecr 3607000>
		+75s   > . 0:0(0) ack 1
		+1s    < . 1:1(0) ack 1                     // it lives
		+7200s > . 0:0(0) ack 1
		`)
		for range 7 {
			k.trace("+75s > . 0:0(0) ack 1")
		}
		k.want("state", Established)
		k.trace("+75s > R. 1:1(0) ack 1 win 0")
		k.want("error", syscall.ETIMEDOUT)
	})
}

// Go's times: a probe after 15 s, every 15 s, nine of them; they can be set for each connection.
func TestKeepaliveTimes(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "keepalive")
		for range 9 {
			k.trace("+15s > . 0:0(0) ack 1")
		}
		k.trace("+15s > R. 1:1(0) ack 1")
		k.want("error", syscall.ETIMEDOUT)

		k = established(t)
		k.tp.Keepidle, k.tp.Keepintvl = 3, 1
		k.tp.SetKeepcnt(2)
		k.tp.KeepaliveOn(true, k.now)
		k.trace("+3s > . 0:0(0) ack 1\n+1s > . 0:0(0) ack 1")
		k.tp.KeepaliveOn(false, k.now)
		k.trace("+1000s")
		k.tp.KeepaliveOn(true, k.now) // silent for long, but not probed yet
		k.trace(`
		+0s > . 0:0(0) ack 1
		+1s > . 0:0(0) ack 1
		+1s > R. 1:1(0) ack 1
		`)
	})
}

// A peer's keep-alive probe is answered, with and without the byte of garbage of old.
func TestKeepaliveAnswered(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "FreeBSD, sack")
		k.trace(`
		< . 0:0(0) ack 1
		> . 1:1(0) ack 1
		< . 0:1(1) ack 1
		> . 1:1(0) ack 1 <nop,nop,sack 0:1>
		`)
	})
}

// A time-out under which nothing can be sent keeps its timer: the queue is full, then IP has no
// route.
func TestRetransmitBlocked(t *testing.T) {
	each(t, func(t *T) {
		k := established(t)
		k.write(5)
		k.line("> P. 1:6(5) ack 1")
		k.room = false
		k.trace("+1s > . 6:6(0) ack 1") // the ACK that rides on a retransmission goes alone
		k.room = true
		k.tp.Unblock(k.now)
		k.trace("> P. 1:6(5) ack 1")
		k.emitErrno = syscall.EHOSTUNREACH
		k.advance(2 * time.Second)
		k.want("softerror", syscall.EHOSTUNREACH)
		k.emitErrno = 0
		k.trace("+4s > P. 1:6(5) ack 1")
	})
}
