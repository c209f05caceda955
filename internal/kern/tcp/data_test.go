package tcp

import (
	"syscall"
	"testing"
	"time"

	"bsdnet/internal/kern/mbuf"
)

// RFC 9293, 3.8.6.3: "an ACK should not be excessively delayed; in particular, the delay MUST be
// less than 0.5 seconds [...] in a stream of full-sized segments there SHOULD be an ACK for at
// least every second segment".
//
// RFC 9293 MUST-40
// RFC 9293 SHLD-18
// RFC 9293 SHLD-19
func TestDelayedAck(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "FreeBSD, mss 1000") // by segments: every second of any size
		k.trace(`
		      < P. 1:2(1) ack 1
		      < P. 2:3(1) ack 1
		      > .  1:1(0) ack 3
		      < P. 3:4(1) ack 1
		+39ms
		+1ms  > .  1:1(0) ack 4
		`)
		k.want("delack", off)

		k = established(t, "mss 1000") // by bytes: two full segments
		k.trace(`
		      < . 1:1001(1000) ack 1
		      < . 1001:2001(1000) ack 1
		      > . 1:1(0) ack 2001
		      < P. 2001:2002(1) ack 1
		      < P. 2002:2003(1) ack 1
		+40ms > .  1:1(0) ack 2003
		      < P. 2003:4003(2000) ack 1 segs 2
		      > .  1:1(0) ack 4003
		`)

		k = established(t, "Net3, mss 1000") // by the timer
		k.trace(`
		       < . 1:1001(1000) ack 1
		       < . 1001:2001(1000) ack 1
		       < . 2001:3001(1000) ack 1
		+200ms > . 1:1(0) ack 3001
		`)
		k.read(all)
		k.sent = nil
	})
}

// An acknowledgment that is owed rides on data.
//
// RFC 9293 MUST-58
func TestAckRidesOnData(t *testing.T) {
	each(t, func(t *T) {
		k := established(t)
		k.trace("< P. 1:11(10) ack 1")
		k.write(5)
		k.trace("> P. 1:6(5) ack 11")
		k.want("delack", off)
		k.read(10)
	})
}

// RFC 9293, 3.7.4: "If there is unacknowledged data (i.e., SND.NXT > SND.UNA), then the sending TCP
// endpoint buffers all user data [...] until the outstanding data has been acknowledged or until
// the TCP endpoint can send a full-sized segment".
//
// RFC 9293 MUST-17
// RFC 9293 SHLD-7
func TestNagle(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "mss 1000, nagle")
		k.write(1)
		k.trace("> P. 1:2(1) ack 1")
		k.write(1)
		k.write(500)
		k.trace("")
		k.write(600)
		k.trace("> . 2:1002(1000) ack 1") // a full segment does not wait, its rest does
		k.trace(`
		< . 1:1(0) ack 2
		< . 1:1(0) ack 1002
		> P. 1002:1103(101) ack 1
		`)

		k = established(t, "mss 1000, nodelay")
		for n := range 3 {
			k.write(1)
			k.line("> P. " + []string{"1:2(1)", "2:3(1)", "3:4(1)"}[n] + " ack 1")
		}
		k.write(2500)
		k.trace(`
		> .  4:1004(1000) ack 1
		> .  1004:2004(1000) ack 1
		> P. 2004:2504(500) ack 1
		`)
	})
}

// RFC 9293, 3.9.1.2: without a PUSH flag in the API "the TCP implementation MUST set the PSH bit in
// the last buffered segment", and data is not held forever.
//
// RFC 9293 MUST-60
// RFC 9293 MUST-61
func TestMoreToComeAndNoPush(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "mss 1000, nodelay")
		k.tp.Set(MoreToCome)
		k.write(400)
		k.trace("")
		k.write(700)
		k.trace("> . 1:1001(1000) ack 1")
		k.tp.Clear(MoreToCome)
		k.write(100)
		k.trace("> P. 1001:1201(200) ack 1")
		k.trace("< . 1:1(0) ack 1201")

		k.tp.Set(NoPush)
		k.write(500)
		k.trace("")
		k.tp.Clear(NoPush)
		k.tp.Output(k.now)
		k.trace("> P. 1201:1701(500) ack 1")
	})
}

// RFC 9293, 3.8.6.2.2, receiver's silly window avoidance: "keep RCV.NXT+RCV.WND fixed until [the
// room] >= min(Fr * RCV.BUFF, Eff.snd.MSS)".
//
// RFC 9293 MUST-39
func TestReceiverSillyWindow(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "rcvbuf 4000, mss 1000")
		k.trace(`
		< . 1:4001(4000) ack 1 segs 4
		> . 1:1(0) ack 4001 win 0
		`)
		for range 1999 {
			k.read(1) // one byte at a time: no update
		}
		k.trace("")
		k.read(1)
		k.trace("> . 1:1(0) ack 4001 win 2000")
		k.read(all)
		k.trace("> . 1:1(0) ack 4001 win 4000")

		k = established(t, "rcvbuf 2000, mss 1000") // a quarter of a small buffer
		k.trace(`
		< . 1:2001(2000) ack 1 segs 2
		> . 1:1(0) ack 2001 win 0
		`)
		k.read(499)
		k.trace("< . 2000:2000(0) ack 1\n> . 1:1(0) ack 2001 win 0")
		k.read(1)
		k.trace("< . 2000:2000(0) ack 1\n> . 1:1(0) ack 2001 win 500")
	})
}

// A peer that has no scale can be told of 65535 bytes, however large the buffer is: a quarter of
// that, not of the buffer, is worth an update, or a reader of half of a full buffer at once would
// wait for a window probe.
func TestWindowUpdateWithoutScale(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "rcvbuf 262144, mss 1000")
		for k.rcv.Space() > 0 {
			k.feed(min(k.rcv.Space(), 32*1000))
		}
		k.pass(time.Second) // a delayed acknowledgment
		if w := k.tp.Info().RcvWnd; w != 0 {
			k.fatalf("the window is %d", w)
		}
		k.read(131072)
		k.trace("> . 1:1(0) ack 262145 win 65535")
		k.read(all)
		k.trace("")
	})
}

// A window below the smaller of a quarter of the buffer and a segment is shut, but never taken
// back.
//
// RFC 9293 SHLD-14
func TestWindowDoesNotShrink(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "rcvbuf 4000, mss 1000, FreeBSD", func(p *Profile) { p.RoundBufs = false })
		k.trace(`
		< . 1:1001(1000) ack 1
		< . 1001:2001(1000) ack 1
		> . 1:1(0) ack 2001 win 2000
		< . 2001:3001(1000) ack 1
		< . 3001:3501(500) ack 1
		> . 1:1(0) ack 3501 win 500
		`)
		k.rcv.SetHiwat(3600) // setsockopt(SO_RCVBUF) under a window that has been given
		k.trace(`
		< . 3501:3601(100) ack 1
		< . 3601:3701(100) ack 1
		> . 1:1(0) ack 3701 win 300
		< . 3701:4001(300) ack 1
		+40ms > . 1:1(0) ack 4001 win 0
		`)
		k.read(all)
		k.trace("> . 1:1(0) ack 4001 win 3600")
	})
}

// RFC 9293, 3.8.6.2.1, sender's silly window avoidance: with half of the largest window, or all
// that there is, data goes; else it waits for the override time-out.
//
// RFC 9293 MUST-38
func TestSenderSillyWindow(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "mss 1000, win 4000, nagle")
		k.write(5000)
		k.trace(`
		> . 1:1001(1000) ack 1
		> . 1001:2001(1000) ack 1
		> . 2001:3001(1000) ack 1
		> . 3001:4001(1000) ack 1
		+10ms < . 1:1(0) ack 4001 win 300     // a silly window
		`)
		k.want("persist", 210*time.Millisecond)
		k.trace(`
		+10ms < . 1:1(0) ack 4001 win 999
		+200ms > . 4001:5000(999) ack 1       // the override
		`)
		k = established(t, "mss 1000, win 500, nagle") // a peer with small buffers
		k.write(2000)
		k.trace("> . 1:501(500) ack 1")
		k.trace("< . 1:1(0) ack 501 win 250\n> . 501:751(250) ack 1")
	})
}

// RFC 9293, 3.8.6.1: "the sending TCP peer MUST regularly transmit at least one octet of new data
// [...] even if the send window is zero", "first [...] when a zero window has existed for the
// retransmission timeout period", "increase exponentially the interval".
//
// RFC 9293 MUST-36
// RFC 9293 SHLD-29
// RFC 9293 SHLD-30
func TestPersistBacksOff(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "mss 1000, win 0, rtt 100ms")
		k.write(10)
		k.trace(`
		+300ms > . 1:2(1) ack 1
		+600ms > . 1:2(1) ack 1
		+1200ms > . 1:2(1) ack 1
		+1ms   < . 1:1(0) ack 1
		+2399ms > . 1:2(1) ack 1
		+4800ms > . 1:2(1) ack 1
		+9600ms > . 1:2(1) ack 1
		+19200ms > . 1:2(1) ack 1
		+38400ms > . 1:2(1) ack 1
		+60s   > . 1:2(1) ack 1
		+60s   > . 1:2(1) ack 1
		       < . 1:1(0) ack 2 win 0
		+60s   > . 2:3(1) ack 1
		       < . 1:1(0) ack 3 win 4
		       > . 3:7(4) ack 1
		`)
		k.want("persist", off)
	})
}

// RFC 9293, 3.8.6.1: "As long as the receiving TCP peer continues to send acknowledgments in
// response to the probe segments, the sending TCP peer MUST allow the connection to stay open": for
// a week; and not when it falls silent.
//
// RFC 9293 MUST-35
// RFC 9293 MUST-37
func TestPersistLives(t *testing.T) {
	each(t, func(t *T) {
		for _, prof := range [][]string{{"nodelay"}, {"FreeBSD"}}[t.iss&1] {
			k := established(t, prof, "win 0")
			k.write(10)
			for k.now < epoch+7*24*3600*sec {
				k.advance(time.Duration(k.tp.Next() - k.now))
				k.trace("> . 1:2(1) ack 1\n< . 1:1(0) ack 1")
			}
			silent := k.now
			for k.tp.State() != Closed {
				k.sent = nil
				k.advance(time.Duration(k.tp.Next() - k.now))
			}
			k.trace("> R. 1:1(0) ack 1") // the number of the probe that was refused
			k.want("error", syscall.ETIMEDOUT)
			if d := time.Duration(k.now - silent); d < 5*time.Minute || d > 20*time.Minute {
				k.fatalf("gave up after %v", d)
			}
		}
	})
}

// Once everything has been acknowledged, the last byte by a probe, there is nothing left to probe
// for.
func TestPersistEnds(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "win 0")
		k.write(1)
		k.trace("+1s > P. 1:2(1) ack 1\n< . 1:1(0) ack 2 win 0")
		k.want("persist", off)
		k.trace("+1000h")
		k.want("state", Established)
	})
}

// An ACK that is due while data waits for the window must not make one forget the probe.
func TestPersistBesideAck(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "mss 1000, win 1000")
		k.write(1500)
		k.trace(`
		> . 1:1001(1000) ack 1
		+10ms < . 1:2001(2000) ack 1001 win 0 segs 2
		> . 1001:1001(0) ack 2001
		`)
		k.want("persist", 210*time.Millisecond)
		k.read(all)
	})
}

// RFC 9293, 3.8.6: a sender is robust against a window that shrinks: "SHOULD NOT send new data
// [...] SHOULD retransmit normally the old unacknowledged data between SND.UNA and
// SND.UNA+SND.WND"; it does not time out (A18).
//
// RFC 9293 MUST-34
// RFC 9293 SHLD-15
// RFC 9293 SHLD-16
// RFC 9293 SHLD-17
func TestWindowShrinks(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "mss 1000, win 4000")
		k.write(6000)
		k.trace(`
		    > . 1:1001(1000) ack 1
		    > . 1001:2001(1000) ack 1
		    > . 2001:3001(1000) ack 1
		    > . 3001:4001(1000) ack 1
		+10ms < . 1:1(0) ack 1001 win 1500    // right edge from 4001 back to 2501
		+210ms > . 1001:2001(1000) ack 1
		    < . 1:1(0) ack 2001 win 0
		`)
		k.want("rexmt", off)
		if at, on := k.tp.Timer("persist"); !on {
			k.fatalf("persist %d", at)
		}
		k.trace("< . 1:1(0) ack 2001 win 4000\n> . 2001:3001(1000) ack 1\n> . 3001:4001(1000) ack 1")
	})
}

// RFC 9293, 3.8.5, RFC 6093: urgent data is in line; the pointer goes out once even if nothing
// else can be sent.
//
// RFC 9293 MUST-30
// RFC 9293 MUST-31
// RFC 9293 MUST-62
func TestUrgent(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "mss 1000")
		k.append(3)
		k.tp.SendUrgent()
		k.tp.Output(k.now)
		k.trace("> P.U 1:4(3) ack 1 urg 3")
		k.trace("< P.U 1:11(10) ack 4 urg 5")
		k.read(10)
		k.trace("+40ms > . 4:4(0) ack 11") // no pointer behind the urgent data
		// Behind a window of 0, once; then by the probes.
		k = established(t, "win 0")
		k.append(3)
		k.tp.SendUrgent()
		k.tp.Output(k.now)
		k.trace("> .U 1:1(0) ack 1 urg 3")
		k.tp.Output(k.now)
		k.trace("+1s > .U 1:2(1) ack 1 urg 3")
		// The pointer is capped, and garbage in it harms nobody (A21).
		k = established(t, "win 65535, wscale 7, mss 1000")
		k.append(100000)
		k.tp.SendUrgent()
		k.tp.Output(k.now)
		k.line("> .U 1:1001(1000) ack 1 urg 65535")
		k.sent = nil
		k.line("< .U 1:2(1) ack 1 urg 65535")
		k.read(1)
		k.sent = nil
	})
}

// If nobody reads any more, data is acknowledged and dropped (SHUT_RD); with Linux's shutdown it
// can be read nevertheless, until the other half has been shut down as well: then it is answered
// with a reset.
func TestCantRcvMore(t *testing.T) {
	each(t, func(t *T) {
		k := established(t)
		k.tp.Set(CantRcvMore)
		k.trace("< P. 1:11(10) ack 1\n+40ms > . 1:1(0) ack 11")
		k.want("rcvcc", 10)
		k.shutdown()
		k.trace("> F. 1:1(0) ack 11\n< P. 11:21(10) ack 1\n> R 1:1(0) win 0")
		k.want("state", Closed)
		k.want("error", syscall.ECONNRESET)

		k = established(t, "bsd", func(p *Profile) { p.ShutRdKeeps = false })
		k.tp.Set(CantRcvMore)
		k.trace("< P. 1:11(10) ack 1\n+40ms > . 1:1(0) ack 11")
		k.want("rcvcc", 0)
	})
}

// One byte a segment and a reader that sleeps: the buffer does not grow beyond bounds (A11),
// although the window field is rounded up.
func TestTinySegments(t *testing.T) {
	each(t, func(t *T) {
		for _, prof := range []string{"nodelay", "FreeBSD"} {
			k := established(t, prof, "wscale 7, rcvbuf 1500, mss 1000")
			for n := range 8000 {
				k.input(k.pkt("P.", k.tp.rcvNxt.Sub(t.irs), 1, 1))
				k.sent = nil
				if k.rcv.Cc() > 2*k.rcv.Hiwat() || k.rcv.Pinned() > 8*k.rcv.Hiwat()+5*mbuf.ClHuge {
					k.fatalf("after %d bytes: holds %d, pins %d", n, k.rcv.Cc(), k.rcv.Pinned())
				}
			}
			k.read(all)
			k.sent = nil
		}
	})
}
