package tcp

import (
	"testing"
	"time"
)

// answerAll lets d pass with a peer that answers each segment with win and the old acknowledgment.
// It returns the bytes of data that were sent.
func (k *kit) answerAll(d time.Duration, answer string) (sent int) {
	k.t.Helper()
	for end := k.now + int64(d); ; {
		n := len(k.sent)
		for _, p := range k.sent {
			sent += p.len
		}
		k.sent = nil
		for range n {
			k.line("< " + answer)
			for _, p := range k.sent {
				sent += p.len
			}
			k.sent = nil
		}
		if k.tp.Next() > end {
			k.advance(time.Duration(end - k.now))
			return sent
		}
		k.now = max(k.now, k.tp.Next())
		k.tp.Timeout(k.now)
		k.check()
		if k.tp.State() == Closed {
			k.fatalf("the connection has ended, the peer was there")
		}
	}
}

// A peer that is short of memory keeps nothing, and answers each segment with what it had
// acknowledged before and a window of 0. It is alive and says so: RFC 9293, MUST-37.
func TestWindowClosedOverFlight(t *testing.T) {
	for _, prof := range []string{"nodelay", "bsd", "FreeBSD", "sack, ts", "Net3"} {
		each(t, func(t *T) {
			k := established(t, "mss 1000, win 20000, rtt 10ms", prof)
			k.write(9000)
			if len(k.sent) == 0 {
				k.fatalf("nothing was sent")
			}
			sent := k.answerAll(40*time.Minute, ". 1:1(0) ack 1 win 0")
			// Probes of a byte, and what had been under way or was sent again before the window was
			// known to be closed.
			if sent > 9000+4000 {
				k.fatalf("%d bytes were sent into a window of 0", sent)
			}
			k.line("< . 1:1(0) ack 1 win 20000")
			if sent := k.answerAll(time.Second, ". 1:1(0) ack 1 win 20000"); sent < 1000 {
				k.fatalf("%d bytes were sent when the window had opened", sent)
			}
		})
	}
}

// The FIN alone may meet a window that is closed over it.
func TestWindowClosedOverFin(t *testing.T) {
	for _, prof := range []string{"nodelay", "bsd", "sack, ts", "FreeBSD"} {
		each(t, func(t *T) {
			k := established(t, "mss 1000, rtt 10ms", prof)
			k.shutdown()
			k.answerAll(40*time.Minute, ". 1:1(0) ack 1 win 0")
			k.want("state", FinWait1)
			k.line("< . 1:1(0) ack 2")
			k.want("state", FinWait2)
			k.sent = nil
		})
	}
}

// A peer that is silent is given up, whatever its window was: RFC 9293, 3.8.3.
func TestWindowClosedAndSilent(t *testing.T) {
	for _, prof := range []string{"nodelay", "bsd", "FreeBSD"} {
		each(t, func(t *T) {
			k := established(t, "mss 1000, win 20000, rtt 10ms", prof)
			k.write(3000)
			k.sent = nil
			k.line("< . 1:1(0) ack 1 win 0")
			for range 1000 {
				k.sent = nil
				if k.tp.State() == Closed {
					return
				}
				k.now = max(k.now, k.tp.Next())
				k.tp.Timeout(k.now)
			}
			k.fatalf("after %v it is still in %v", time.Duration(k.now-epoch), k.tp.State())
		})
	}
}

// RFC 9293, 3.10.7.4, fifth: which segments give a window.
func TestWindowOfWhichSegment(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "mss 1000, win 20000")
		for _, step := range []struct {
			line string
			win  int
		}{
			{"< . 1:1(0) ack 1 win 9000", 9000}, // smaller, with nothing new
			{"< . 1:1(0) ack 1 win 9001", 9001},
			{"< P. 1:2(1) ack 1 win 8000", 8000}, // newer by its number
			{"< P. 2:3(1) ack 1 win 7000", 7000},
			{"< . 1:1(0) ack 1 win 12000", 7000}, // older by its number
			{"< . 3:3(0) ack 1 win 0", 0},
		} {
			k.line(step.line)
			k.sent = nil
			if got := int(k.tp.sndWnd); got != step.win {
				k.fatalf("%s: the window is %d, want %d", step.line, got, step.win)
			}
		}
		k.read(2)
		k.sent = nil
		k = established(t, "mss 1000, win 20000, FreeBSD")
		k.line("< . 1:1(0) ack 1 win 9000")
		if k.tp.sndWnd != 20000 {
			k.fatalf("FreeBSD's window is %d", k.tp.sndWnd)
		}
	})
}

// A bare acknowledgment lies within the window of its peer, also if that has shrunk over what has
// been sent: else the peer would drop it, and what it acknowledges (RFC 9293, MUST-34; 3.10.7.4,
// first).
func TestAckWithinShrunkenWindow(t *testing.T) {
	each(t, func(t *T) {
		for _, step := range []struct {
			win  int
			want string
		}{{20000, "9001:9001(0)"}, {9000, "9001:9001(0)"}, {8999, "9000:9000(0)"}, {3000, "3001:3001(0)"}, {0,
			"1:1(0)"}} {
			k := established(t, "mss 1000, win 20000", "rtt 100ms")
			k.write(9000)
			k.sent = nil
			k.input(func() *pkt { p := k.pkt(".", 1, 1, 0); p.th.Win = uint16(step.win); return p }())
			k.sent = nil
			out := k.pkt(".", 11, 1, 10) // out of order: at once
			out.th.Win = uint16(step.win)
			k.input(out)
			k.line("> . " + step.want + " ack 1")
			syn := k.pkt("S", 1, 0, 0) // a challenge
			k.input(syn)
			k.line("> . " + step.want + " ack 1")
		}
	})
}

// A FIN that comes again and again is not answered at line rate: RFC 5961, 7. Its peer may repeat
// it in each answer to an answer.
func TestRepeatedFins(t *testing.T) {
	for _, prof := range []string{"nodelay", "FreeBSD"} {
		each(t, func(t *T) {
			k := established(t, prof)
			k.line("< F. 1:1(0) ack 1")
			k.sent = nil
			answers := 0
			for range 1000 {
				k.line("< F. 1:1(0) ack 1")
				answers += len(k.sent)
				k.sent = nil
			}
			if answers == 0 || answers > k.prof.ChallengeN {
				k.fatalf("%d answers to a thousand FINs", answers)
			}
			k.advance(time.Second)
			k.line("< F. 1:1(0) ack 1")
			if len(k.sent) != 1 {
				k.fatalf("a second later: %d answers", len(k.sent))
			}
			k.sent = nil
		})
	}
}

// A receive buffer that is made smaller takes nothing back of the window that the peer has been
// given (RFC 9293, SHLD-14): all of it is taken, and the window closes as it fills.
func TestSmallerBufferKeepsWindow(t *testing.T) {
	for _, prof := range []string{"nodelay", "FreeBSD"} {
		each(t, func(t *T) {
			k := established(t, prof, "mss 1000", "rcvbuf 60000")
			edge := k.tp.rcvAdv
			k.tp.KeepPromise()
			k.rcv.SetHiwat(2000)
			for i := 0; k.tp.rcvNxt.Lt(edge); i++ {
				n := min(1000, edge.Sub(k.tp.rcvNxt))
				k.input(k.pkt("P.", 1+i*1000, 1, n))
				for _, p := range k.sent {
					if end := p.th.Ack.Add(int(p.th.Win) << k.tp.rcvScale); end.Lt(edge) {
						k.fatalf("after %d segments the window's edge is %d back", i+1, edge.Sub(end))
					}
				}
				k.sent = nil
			}
			k.want("rcvcc", edge.Sub(t.irs+1))
			k.line("< P. " + "60001:60002(1) ack 1")
			k.sent = nil
			k.want("rcvcc", edge.Sub(t.irs+1))
			k.read(all)
			k.sent = nil
		})
	}
}

// The reset of an abort into a closed window has the peer's next number, however much has been
// sent.
func TestResetIntoClosedWindow(t *testing.T) {
	each(t, func(t *T) {
		for _, sent := range []uint64{0, 1 << 20, 1<<31 + 5, 1<<32 - 1, 1 << 32} {
			k := established(t, "mss 1000, win 10000")
			k.tp.bytesSent = sent
			at := k.tp.iss + 1 + Seq(sent)
			k.tp.sndUna, k.tp.sndNxt, k.tp.sndMax, k.tp.sndWnd = at, at.Add(1), at.Add(1), 0
			k.tp.Drop(0, k.now)
			if len(k.sent) != 1 || k.sent[0].th.Seq != at {
				t.Fatalf("after %d bytes the reset has the number %d, want %d", sent, k.sent[0].th.Seq, at)
			}
			k.sent = nil
		}
	})
}

// Duplicate acknowledgments that are made up open the window by no more than what was in flight:
// RFC 5681, 3.2, step 4.
func TestMadeUpDuplicates(t *testing.T) {
	for _, prof := range []string{"bsd", "FreeBSD", "nodelay"} {
		each(t, func(t *T) {
			k := established(t, prof, "mss 1000", "win 65000", "wscale 7", "rtt 100ms")
			k.line("< . 1:1(0) ack 1 win 65000")
			k.write(32000)
			k.sent = nil
			flight := k.tp.sndMax.Sub(k.tp.sndUna)
			for range 1000 {
				k.line("< . 1:1(0) ack 1 win 65000")
				k.sent = nil
			}
			if c := k.tp.Info().SndCwnd; c > 2*flight+3000 {
				k.fatalf("the window is %d, %d bytes were in flight", c, flight)
			}
		})
	}
}

// A FIN with an old timestamp is dropped, and acknowledged: RFC 7323, 5.3, R1.
func TestOldFin(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "ts")
		k.line("< F. 1:1(0) ack 1 <TS val 5000 ecr 100>")
		k.line("> . 1:1(0) ack 1")
		k.want("state", Established)
	})
}

// net.inet.tcp.drop_synfin holds for the answer to a SYN as well.
func TestDropSynFinInSynSent(t *testing.T) {
	each(t, func(t *T) {
		k := closed(t, func(p *Profile) { p.DropSynFin = true })
		k.connect()
		k.sent = nil
		k.trace("< SF. 0:0(0) ack 1\n< SF 0:0(0)")
		k.want("state", SynSent)
		k.line("< S. 0:0(0) ack 1")
		k.want("state", Established)
		k.sent = nil
		k = closed(t)
		k.connect()
		k.sent = nil
		k.line("< SF. 0:0(0) ack 1")
		k.want("state", CloseWait)
		k.sent = nil
	})
}
