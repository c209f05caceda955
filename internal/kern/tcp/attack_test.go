package tcp

import (
	"syscall"
	"testing"
	"time"

	"bsdnet/internal/kern/wire"
)

// RFC 5961, 3.2: a reset counts only at exactly RCV.NXT; in the window it is challenged; outside it
// is dropped (A04, CVE-2004-0230).
func TestResetRules(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "FreeBSD")
		k.trace(`
		< R  0:0(0)
		< R. 0:0(0) ack 1
		< R  65701:65701(0)
		< R  -2147483000:-2147483000(0)
		< R  2:2(0)
		> .  1:1(0) ack 1
		< R. 65700:65700(0) ack 1
		> .  1:1(0) ack 1
		`)
		k.want("state", Established)
		k.trace("< R. 1:1(0) ack 77777") // its acknowledgment does not matter
		k.want("state", Closed)
		k.want("error", syscall.ECONNRESET)
	})
}

// RFC 9293, 3.5.3: "RST segments [may] carry data".
//
// RFC 9293 SHLD-2
func TestResetWithData(t *testing.T) {
	each(t, func(t *T) {
		k := established(t)
		k.trace("< R 1:11(10)")
		k.want("state", Closed)
		k.want("rcvcc", 0)
	})
}

// While an acknowledgment is delayed both RCV.NXT and what was last acknowledged are exact.
func TestResetDuringDelayedAck(t *testing.T) {
	each(t, func(t *T) {
		for _, seq := range []string{"1:1(0)", "11:11(0)"} {
			k := established(t)
			k.trace("< P. 1:11(10) ack 1\n< R " + seq)
			k.want("state", Closed)
			k.read(10)
		}
		k := established(t)
		k.trace("< P. 1:11(10) ack 1\n< R 5:5(0)\n> . 1:1(0) ack 11")
		k.want("state", Established)
		k.read(10)
		k.trace("+40ms > . 1:1(0) ack 11") // the challenge does not pay what is owed
	})
}

// The same in every synchronized state.
func TestResetInEachState(t *testing.T) {
	states := map[State]func(k *kit){
		CloseWait: func(k *kit) { k.line("< F. 1:1(0) ack 1") },
		FinWait1:  func(k *kit) { k.shutdown() },
		FinWait2:  func(k *kit) { k.shutdown(); k.sent = nil; k.line("< . 1:1(0) ack 2") },
		Closing:   func(k *kit) { k.shutdown(); k.sent = nil; k.line("< F. 1:1(0) ack 1") },
		LastAck:   func(k *kit) { k.line("< F. 1:1(0) ack 1"); k.sent = nil; k.shutdown() },
	}
	each(t, func(t *T) {
		for s, enter := range states {
			k := established(t, "FreeBSD")
			enter(k)
			k.sent = nil
			k.want("state", s)
			at := k.tp.rcvNxt.Sub(t.irs)
			nxt := k.tp.sndNxt.Sub(t.iss)
			in := k.pkt("R", at+1, 0, 0)
			k.input(in)
			k.claim(".", nxt, at) // the challenge is bare, also if a FIN is out
			k.input(k.pkt("R", at-1, 0, 0))
			k.input(k.pkt("S", at, 0, 0))
			k.claim(".", nxt, at)
			k.input(k.pkt("S.", at-100, 1, 0))
			k.claim(".", nxt, at)
			k.want("state", s)
			k.want("error", syscall.Errno(0))
			k.input(k.pkt("R", at, 0, 0))
			k.want("state", Closed)
			k.want("error", syscall.ECONNRESET)
		}
	})
}

// net.inet.tcp.insecure_rst: the whole window kills, as in 1994.
func TestInsecureRst(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "FreeBSD", func(p *Profile) { p.InsecureRST = true })
		k.trace("< R 65701:65701(0)\n< R 0:0(0)")
		k.want("state", Established)
		k.trace("< R 65700:65700(0)")
		k.want("state", Closed)
	})
}

// RFC 5961, 4.2: "If the SYN bit is set, irrespective of the sequence number, TCP MUST send an ACK
// (also referred to as challenge ACK)" (A05).
func TestSynChallenge(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "FreeBSD")
		k.trace(`
		< S  1:1(0)
		> .  1:1(0) ack 1 win 65535
		< S  -70000:-70000(0)
		> .  1:1(0) ack 1
		< S. 0:0(0) ack 1
		> .  1:1(0) ack 1
		< SF 5:5(0)
		> .  1:1(0) ack 1
		`)
		k.want("state", Established)
		k.want("error", syscall.Errno(0))

		k = established(t, "FreeBSD", func(p *Profile) { p.InsecureSYN = true })
		k.trace(`
		< S -5:-5(0)
		> . 1:1(0) ack 1
		< S 1:1(0)
		> R. 1:1(0) ack 1
		`)
		k.want("error", syscall.ECONNRESET)
	})
}

// RFC 5961, 7: challenge ACKs are throttled, here 5 a second for each connection (A07,
// CVE-2016-5696), and what is not sent is freed (A08, CVE-2026-4247).
func TestChallengeLimit(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "FreeBSD")
		other := established(t, "FreeBSD")
		sent := 0
		for range 2000 {
			for _, p := range []*pkt{k.pkt("R", 5, 0, 100), k.pkt("SP", 5, 0, 1000), k.pkt("P.", 1, -70000, 1000)} {
				k.input(p)
				sent += len(k.sent)
				k.sent = nil
			}
		}
		if sent != 5 {
			k.fatalf("%d challenge ACKs, want 5", sent)
		}
		other.trace("< S 1:1(0)\n> . 1:1(0) ack 1") // another connection does not notice
		k.trace("+999ms\n< R 5:5(0)")
		k.trace("+1ms\n< R 5:5(0)\n> . 1:1(0) ack 1")
	})
}

// RFC 5961, 5.2: "The ACK value is considered acceptable only if it is in the range of ((SND.UNA -
// MAX.SND.WND) <= SEG.ACK <= SND.NXT)" (A06).
//
// RFC 9293 MAY-12
func TestAckRange(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "FreeBSD, win 1000, mss 500, nodelay")
		for range 4 { // send more than a window, so that the oldest acceptable number is not bounded by the ISS
			k.write(500)
			k.sent = nil
			k.input(k.pkt(".", 1, k.tp.sndMax.Sub(t.iss), 0))
		}
		una := k.tp.sndUna.Sub(t.iss)
		k.input(k.pkt("P.", 1, una+1, 10)) // not sent yet
		k.claim(".", una, 1)
		k.want("rcvcc", 0)
		k.input(k.pkt("P.", 1, 0, 10)) // before the ISS + 1
		k.claim(".", una, 1)
		k.want("rcvcc", 0)
		k.input(k.pkt("P.", -9, 0, 5)) // its data is old as well: one answer
		k.claim(".", una, 1)
		k.nothing()
		k.input(k.pkt("P.", 1, una-1000, 10)) // old, but it could be the peer's: its data counts
		k.want("rcvcc", 10)
		k.advance(40 * time.Millisecond)
		k.claim(".", una, 11)
		k.read(10)
	})
}

// The oldest acceptable acknowledgment goes up with SND.UNA.
func TestAckTooOld(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "FreeBSD, win 1000, mss 500, nodelay, sndbuf 200000")
		for k.tp.sndUna.Sub(t.iss) < 70000 {
			k.write(500)
			k.sent = nil
			k.input(k.pkt(".", 1, k.tp.sndMax.Sub(t.iss), 0))
		}
		una := k.tp.sndUna.Sub(t.iss)
		k.input(k.pkt("P.", 1, una-1001, 10))
		k.claim(".", una, 1)
		k.want("rcvcc", 0)
		k.input(k.pkt("P.", 1, una-1000, 10))
		k.want("rcvcc", 10)
		k.advance(40 * time.Millisecond)
		k.sent = nil
		k.read(10)
	})
}

// RFC 9293, 3.10.7.4, fifth: "If the ACK acks something not yet sent (SEG.ACK > SND.NXT), then send
// an ACK, drop the segment"; an optimistic acknowledgment opens no window (A32).
func TestOptimisticAck(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "mss 1000")
		k.write(1000)
		k.trace(`
		> P. 1:1001(1000) ack 1
		< P. 1:11(10) ack 1002
		> .  1001:1001(0) ack 1
		< .  1:1(0) ack 2147483000
		> .  1001:1001(0) ack 1
		`)
		k.want("cwnd", 10000)
		k.want("inflight", 1000)
		k.want("rcvcc", 0)
	})
}

// RFC 9293, 3.10.7.4, first: an unacceptable segment is answered with an ACK, a reset is not; what
// overlaps the window is trimmed.
//
// RFC 9293 MUST-66
func TestSequenceCheck(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "rcvbuf 1000, mss 1000")
		k.trace(`
		< . -99:1(100) ack 1             // all old
		> . 1:1(0) ack 1 win 1000
		< . 1001:1101(100) ack 1         // all beyond
		> . 1:1(0) ack 1
		< . 1001:1001(0) ack 1           // at the right edge: nothing wrong
		< . 1002:1002(0) ack 1
		> . 1:1(0) ack 1
		< . -9:11(20) ack 1              // the left half is old
		> . 1:1(0) ack 11
		< . 11:1200(1189) ack 1          // the right end is beyond
		+40ms > . 1:1(0) ack 1001 win 0
		`)
		k.want("rcvcc", 1000)
		// The window is closed: probes are answered, and ACK, RST and URG still count.
		k.write(5)
		k.trace(`
		> P. 1:6(5) ack 1001 win 0
		< . 1001:1002(1) ack 6
		> . 6:6(0) ack 1001 win 0
		`)
		k.want("inflight", 0)
		k.trace("< R 1001:1001(0)")
		k.want("state", Closed)
		k.read(1000)
	})
}

// RFC 7323, 5.3, R1: a segment with an older timestamp is dropped and acknowledged; 5.2: a reset is
// exempt.
func TestPAWS(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "FreeBSD, ts")
		k.trace(`
		< P. 1:11(10) ack 1 <TS val 6999 ecr 100>
		> .  1:1(0) ack 1 <nop,nop,TS val 100 ecr 7000>
		< .  1:1(0) ack 1 <TS val 6999 ecr 100>        // without data: silence
		< P. 1:11(10) ack 1 <TS val 7000 ecr 100>
		+40ms > . 1:1(0) ack 11 <nop,nop,TS val 140 ecr 7000>
		`)
		k.read(10)
		k.trace("< R 11:11(0) <TS val 1 ecr 1>")
		k.want("state", Closed)
	})
}

// RFC 7323, 5.5: after 24 days of silence the timestamp is not to be trusted; and timestamps wrap
// (A19).
func TestPAWSIdleAndWrap(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "FreeBSD, ts")
		k.trace(`
		< P. 1:11(10) ack 1 <TS val 2147484000 ecr 100>
		+40ms > . 1:1(0) ack 11
		< P. 11:21(10) ack 1 <TS val 4294967295 ecr 100>
		+40ms > . 1:1(0) ack 21
		< P. 26:31(5) ack 1 <TS val 5 ecr 100>         // wrapped: newer, also out of order
		> . 1:1(0) ack 21
		< P. 21:26(5) ack 1 <TS val 5 ecr 100>
		> . 1:1(0) ack 31 <nop,nop,TS val 180 ecr 5>
		`)
		k.read(30)
		k.trace(`
		+575h < P. 31:41(10) ack 1 <TS val 4 ecr 100>
		      > .  1:1(0) ack 31
		+2h   < P. 31:41(10) ack 1 <TS val 4 ecr 100>
		+40ms > .  1:1(0) ack 41
		`)
		k.read(10)
	})
}

// RFC 7323, 4.3: "SEG.TSval >= TS.Recent and SEG.SEQ <= Last.ACK.sent": only the segment at the
// left edge gives the timestamp to echo.
func TestTimestampRecent(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "FreeBSD, ts, mss 1000")
		k.trace(`
		< . 1:101(100) ack 1 <TS val 7100 ecr 100>
		< . 101:201(100) ack 1 <TS val 7200 ecr 100>    // the ACK is for the first
		> . 1:1(0) ack 201 <nop,nop,TS val 100 ecr 7100>
		< . 301:401(100) ack 1 <TS val 7300 ecr 100>    // out of order
		> . 1:1(0) ack 201 <nop,nop,TS val 100 ecr 7100>
		< . 100000:100010(10) ack 1 <TS val 2000000000 ecr 100> // outside: does not poison (CVE-2005-0356)
		> . 1:1(0) ack 201 <nop,nop,TS val 100 ecr 7100>
		< . 201:301(100) ack 1 <TS val 7400 ecr 100>
		> . 1:1(0) ack 401 <nop,nop,TS val 100 ecr 7400>
		`)
		k.read(all)
	})
}

// A segment without the timestamps that were agreed on is taken (tolerate_missing_ts), and one with
// them unasked too.
//
// RFC 9293 MUST-5
func TestTimestampMissing(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "ts")
		k.trace("< P. 1:11(10) ack 1 <nots>\n+40ms > . 1:1(0) ack 11 <nop,nop,TS val 140 ecr 7000>")
		k.read(10)
		k = established(t)
		k.trace("< P. 1:11(10) ack 1 <TS val 9 ecr 9>\n+40ms > . 1:1(0) ack 11 <>")
		k.read(10)
	})
}

// Two ends that disagree about each other do not answer each other forever (A09).
func TestNoAckStorm(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "win 0")
		k.write(10)
		for range 100 {
			k.input(k.pkt(".", 1, 1, 0)) // an acceptable bare ACK draws no ACK
		}
		k.want("inflight", 0)
	})
}

// RFC 9293, 3.10.7.4, fifth: "if the ACK bit is off, drop the segment".
func TestNoAckBit(t *testing.T) {
	each(t, func(t *T) {
		k := established(t)
		k.trace("< P 1:11(10)\n< F 1:1(0)\n< - 1:2(1)")
		k.want("rcvcc", 0)
		k.want("state", Established)
	})
}

// A timestamp counts only if the acknowledgment that comes with it may be the peer's: one forged
// segment in the window would make PAWS drop all that the peer sends for 24 days.
func TestForgedTimestamp(t *testing.T) {
	for _, prof := range []string{"nodelay", "FreeBSD", "bsd"} {
		for _, forged := range []string{
			"< .  1:1(0) ack 2000000000 <TS val 1000000000 ecr 100>",
			"< .  1:1(0) ack -2000000 <TS val 1000000000 ecr 100>",
			"< P. 1:11(10) ack 2000000000 <TS val 1000000000 ecr 100>",
			"< P. 1:11(10) ack -2000000 <TS val 1000000000 ecr 100>",
			"< F. 1:1(0) ack -2000000 <TS val 1000000000 ecr 100>",
			"< P  1:11(10) <TS val 1000000000 ecr 100>",
		} {
			each(t, func(t *T) {
				k := established(t, prof, "ts", "wscale 0", "win 60000")
				k.line(forged)
				k.sent = nil
				k.line("< P. 1:11(10) ack 1 <TS val 7000 ecr 100>")
				k.sent = nil
				k.want("rcvcc", 10)
				k.read(10)
				k.sent = nil
			})
		}
	}
}

// What lies half the sequence space away is outside of any window, however long the segment is:
// nothing of it is taken, and it is answered (RFC 9293, 3.10.7.4, first).
func TestHalfSequenceSpace(t *testing.T) {
	each(t, func(t *T) {
		for _, rcvbuf := range []string{"rcvbuf 100", "rcvbuf 1000", "rcvbuf 20000"} {
			for _, n := range []int{0, 1, 100, 1460, 30000} {
				for _, d := range []int{-1 << 31, -1<<31 + 1, -1<<31 + 50, 1<<31 - 1, 1<<31 - 2, 1<<31 - 50,
					1<<31 - 1000, 1<<31 - 30000} {
					k := established(t, rcvbuf, "sack")
					p := k.pkt("P.", 1, 1, n)
					p.th.Seq = k.tp.rcvNxt + Seq(d)
					k.input(p)
					if k.tp.rcvNxt != t.irs+1 || k.rcv.Cc() != 0 || k.tp.reass != nil && len(k.tp.reass.blocks) > 0 {
						k.fatalf("a segment of %d bytes at %d from the next number was taken: %d bytes", n, d,
							k.rcv.Cc())
					}
					if len(k.sent) != 1 {
						k.fatalf("a segment of %d bytes at %d from the next number drew %d answers", n, d, len(k.sent))
					}
					k.sent = nil
					k.line("< P. 1:11(10) ack 1")
					k.want("rcvcc", 10)
					k.sent = nil
					k.read(10)
					k.sent = nil
				}
			}
		}
	})
}

// BSD's ends repeat their FIN in each answer. A FIN that comes before its turn is answered at a
// limited rate, or two of them would answer each other forever (A09).
func TestFinStorm(t *testing.T) {
	each(t, func(t *T) {
		for _, prof := range []string{"nodelay", "FreeBSD", "Net3"} {
			k := established(t, prof)
			k.shutdown()
			k.sent = nil
			n := 0
			for range 1000 {
				k.input(k.pkt("F.", 100, 1, 0))
				n += len(k.sent)
				k.sent = nil
			}
			if n == 0 || n > 5 {
				k.fatalf("%s: %d answers to a thousand FINs", prof, n)
			}
		}
	})
}

// A closed connection whose peer keeps its window shut and answers nothing is gone after three
// minutes, with its data (A29).
func TestOrphanBehindClosedWindow(t *testing.T) {
	for _, prof := range []string{"nodelay", "FreeBSD", "Net3"} {
		each(t, func(t *T) {
			k := established(t, prof, "win 0")
			k.write(10)
			k.close()
			k.sent = nil
			for end := k.now + 180*sec; k.tp.State() != Closed; k.sent = nil {
				if k.tp.Next() > end {
					k.fatalf("%s: still in %s", prof, k.tp.State())
				}
				k.advance(time.Duration(k.tp.Next() - k.now))
			}
			k.sent = nil
			k.want("error", syscall.ETIMEDOUT)
		})
	}
}

// However many segments are in flight and however a peer acknowledges them, what is known of them
// is bounded (A15: CVE-2019-11478).
func TestSackManySegments(t *testing.T) {
	const segments = 2 * maxSpans
	k := filled(&T{t, 1, 1}, segments)
	una := k.tp.sndUna
	for i := 1; i < segments-8; i += 8 {
		var b [4]wire.SackBlock
		for j := range b {
			b[j] = wire.SackBlock{Left: una.Add(1000 * (i + 2*j)), Right: una.Add(1000 * (i + 2*j + 1))}
		}
		k.sacks(b[:]...)
	}
	if n, _ := k.shape(); n > maxSpans+64 || n < maxSpans/2 {
		t.Errorf("%d spans, the limit is %d", n, maxSpans)
	}
	k.balance()
}
