package tcp

import (
	"syscall"
	"testing"
	"time"

	"bsdnet/internal/kern/wire"
)

// RFC 9293, 3.6, case 1: the local user initiates the close.
//
// RFC 9293 MUST-13
func TestActiveClose(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "FreeBSD")
		k.shutdown()
		k.trace("> F. 1:1(0) ack 1")
		k.want("state", FinWait1)
		k.trace("< . 1:1(0) ack 2")
		k.want("state", FinWait2)
		k.want("2msl", off) // the user still reads
		k.trace("< P. 1:4(3) ack 2")
		k.read(3)
		k.trace(`
		+40ms > . 2:2(0) ack 4
		      < F. 4:4(0) ack 2
		      > . 2:2(0) ack 5
		`)
		k.want("state", TimeWait)
		k.want("eof", true)
		if !k.has("isdisconnected") || !k.has("twstart") {
			k.fatalf("events %v", k.events)
		}
	})
}

// Case 2: TCP receives a FIN from the network.
//
// RFC 9293 MUST-12
func TestPassiveClose(t *testing.T) {
	each(t, func(t *T) {
		k := established(t)
		k.trace(`
		< F. 1:1(0) ack 1
		> .  1:1(0) ack 2
		`)
		k.want("state", CloseWait)
		k.want("eof", true)
		k.want("error", syscall.Errno(0))
		k.write(3)
		k.trace("> P. 1:4(3) ack 2")
		k.close()
		k.trace("> F. 4:4(0) ack 2")
		k.want("state", LastAck)
		k.trace("< . 2:2(0) ack 4")
		k.want("state", LastAck)
		k.trace("< . 2:2(0) ack 5")
		k.want("state", Closed)
		k.want("gone", true)
		k.want("error", syscall.Errno(0))
	})
}

// Case 3: both close at once. FreeBSD repeats the FIN, others send a bare ACK.
func TestSimultaneousClose(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "FreeBSD")
		k.shutdown()
		k.trace(`
		> F. 1:1(0) ack 1
		< F. 1:1(0) ack 1
		> F. 1:1(0) ack 2
		`)
		k.want("state", Closing)
		k.trace("< . 2:2(0) ack 2")
		k.want("state", TimeWait)

		k = established(t)
		k.shutdown()
		k.trace(`
		> F. 1:1(0) ack 1
		< F. 1:1(0) ack 1
		> .  2:2(0) ack 2
		`)
		k.want("state", Closing)
		k.trace(`
		+1s > F. 1:1(0) ack 2
		    < .  2:2(0) ack 2
		`)
		k.want("state", TimeWait)
	})
}

// The FIN that acknowledges ours leads from FIN_WAIT_1 to TIME_WAIT.
func TestFinAckInFinWait1(t *testing.T) {
	each(t, func(t *T) {
		k := established(t)
		k.shutdown()
		k.trace(`
		> F. 1:1(0) ack 1
		< F. 1:1(0) ack 2
		> .  2:2(0) ack 2
		`)
		k.want("state", TimeWait)
	})
}

// The FIN goes behind the data, on the last segment if it can.
func TestFinWithData(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "mss 1000, nagle")
		k.write(1000)
		k.write(200)
		k.trace("> P. 1:1001(1000) ack 1")
		k.shutdown()
		k.trace("> FP. 1001:1201(200) ack 1")
		k.want("state", FinWait1)
		k.trace("< . 1:1(0) ack 1202")
		k.want("state", FinWait2)
	})
}

// A FIN behind a closed window: FIN_WAIT_1 when it is queued (A29), and out when the window opens.
func TestFinBehindClosedWindow(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "mss 1000, win 0")
		k.write(10)
		k.close()
		k.want("state", FinWait1)
		k.trace(`
		+1s   > . 1:2(1) ack 1
		+10ms < . 1:1(0) ack 1 win 0
		+10ms < . 1:1(0) ack 1 win 100
		      > FP. 1:11(10) ack 1
		`)
	})
}

// close in SYN_SENT: nothing is sent. In SYN_RECEIVED the FIN waits for the handshake.
func TestCloseBeforeEstablished(t *testing.T) {
	each(t, func(t *T) {
		k := closed(t)
		k.connect()
		k.trace("> S 0:0(0)")
		k.close()
		k.want("state", Closed)

		k = synRcvd(t)
		k.shutdown()
		k.want("state", SynReceived)
		k.sent = nil // the SYN,ACK again
		k.trace(`
		< . 1:1(0) ack 1
		> F. 1:1(0) ack 1
		`)
		k.want("state", FinWait1)
	})
}

// RFC 2525, 2.17, and RFC 9293, SHLD-3: closing with unread data resets; FreeBSD sends a FIN.
//
// RFC 9293 SHLD-3
func TestCloseWithUnreadData(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "FreeBSD")
		k.trace("< P. 1:4(3) ack 1")
		k.close()
		k.trace("> F. 1:1(0) ack 4")

		k = established(t)
		k.trace("< P. 1:4(3) ack 1")
		k.close()
		k.trace("> R. 1:1(0) ack 4 win 0")
		k.want("state", Closed)
	})
}

// RFC 9293, 3.6.1: "If such a host issues a CLOSE call while received data is still pending [...]
// or if new data is received after CLOSE is called, its TCP implementation SHOULD send a RST".
// After shutdown alone the data is welcome.
func TestDataAfterClose(t *testing.T) {
	each(t, func(t *T) {
		for _, acked := range []string{"", "< . 1:1(0) ack 2"} { // FIN_WAIT_1, FIN_WAIT_2
			k := established(t)
			k.close()
			k.trace("> F. 1:1(0) ack 1\n" + acked + `
			< P. 1:4(3) ack 2
			> R  2:2(0)
			`)
			k.want("state", Closed)
		}
		k := established(t)
		k.shutdown()
		k.trace(`
		> F. 1:1(0) ack 1
		< P. 1:4(3) ack 2
		`)
		k.want("state", FinWait2)
		k.read(3)
		k.trace("+40ms > . 2:2(0) ack 4")
	})
}

// FIN_WAIT_2 ends by itself only if the user has closed: also if shutdown came first, and
// close later (A29).
func TestFinWait2Timer(t *testing.T) {
	each(t, func(t *T) {
		k := established(t)
		k.close()
		k.trace(`
		> F. 1:1(0) ack 1
		< . 1:1(0) ack 2
		`)
		k.want("2msl", 60*time.Second)
		k.trace("+59.999s")
		k.want("state", FinWait2)
		k.trace("+1ms")
		k.want("state", Closed)

		k = established(t)
		k.shutdown()
		k.trace(`
		> F. 1:1(0) ack 1
		< . 1:1(0) ack 2
		+1000s
		`)
		k.want("2msl", off)
		k.close()
		k.want("2msl", 60*time.Second)
		k.trace("+60s")
		k.want("state", Closed)
	})
}

// A FIN that comes again is acknowledged again, in every state behind it.
func TestFinAgain(t *testing.T) {
	each(t, func(t *T) {
		k := established(t)
		k.trace(`
		< F. 1:1(0) ack 1
		> .  1:1(0) ack 2
		< F. 1:1(0) ack 1
		> .  1:1(0) ack 2
		`)
		k.want("state", CloseWait)
		k.shutdown()
		k.trace(`
		> F. 1:1(0) ack 2
		< F. 1:1(0) ack 1
		> .  2:2(0) ack 2
		`)
		k.want("state", LastAck)
	})
}

// The peer vanishes in each state: nothing stays forever (A29).
func TestPeerVanishes(t *testing.T) {
	each(t, func(t *T) {
		for _, path := range []string{"", "< F. 1:1(0) ack 1", "fin then close"} {
			k := established(t)
			if path == "fin then close" {
				k.close()
				k.line("> F. 1:1(0) ack 1")
				k.line("< F. 1:1(0) ack 1")
			} else {
				k.line(path)
				k.sent = nil
				k.close()
			}
			for n := 0; k.tp.State() != Closed; n++ {
				k.sent = nil
				if k.tp.Next() == never || n > 100 {
					k.fatalf("stays forever in %s", k.tp.State())
				}
				k.advance(time.Duration(k.tp.Next() - k.now))
			}
			k.sent = nil
			k.want("error", syscall.ETIMEDOUT)
		}
	})
}

// Reset is SO_LINGER with time 0.
func TestAbort(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "nagle")
		k.write(10)
		k.write(10)
		k.line("> P. 1:11(10) ack 1")
		k.tp.Reset(k.now)
		k.trace("> R. 11:11(0) ack 1 win 0")
		k.want("state", Closed)
	})
}

// A probe that a closed window has refused takes no number: the reset must stand where the peer
// expects it.
func TestAbortInPersist(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "win 0")
		k.write(10)
		k.trace(`
		+1s   > . 1:2(1) ack 1
		+10ms < . 1:1(0) ack 1 win 0
		`)
		k.tp.Reset(k.now)
		k.trace("> R. 1:1(0) ack 1 win 0")
	})
}

// TIME_WAIT: as FreeBSD answers; RFC 1337: a reset is ignored; RFC 9293, MUST-13 and MAY-2.
//
// RFC 9293 MAY-2
func TestTimeWaitRecord(t *testing.T) {
	each(t, func(t *T) {
		tw := TimeWaitRec{SndNxt: t.iss + 2, RcvNxt: t.irs + 2, HasTS: true, TSRecent: 500}
		ts := func(v uint32) wire.Options { return wire.Options{Has: wire.TofTS, TSVal: v} }
		for _, c := range []struct {
			flags    string
			seq, ack int
			n        int
			opt      wire.Options
			freebsd  TwVerdict
			def      TwVerdict
		}{
			{"R", 2, 0, 0, ts(1), TwDrop, TwDrop},
			{"R.", 2, 2, 0, ts(1), TwDrop, TwDrop},
			{".", 2, 2, 0, ts(501), TwDrop, TwDrop},
			{".", 2, 1, 0, ts(501), TwAck, TwAck},
			{".", 1, 2, 0, ts(501), TwAck, TwAck},
			{"P.", 2, 2, 5, ts(501), TwAck, TwAck},
			{"F.", 1, 2, 0, ts(501), TwRestart, TwRestart},
			{"FP.", 0, 2, 1, ts(501), TwRestart, TwRestart},
			{"F.", 7, 2, 0, ts(501), TwAck, TwAck},
			{"F", 1, 0, 0, ts(501), TwDrop, TwDrop},
			{"", 2, 0, 5, ts(501), TwDrop, TwDrop},
			{"S.", 2, 2, 0, ts(501), TwAck, TwAck},
			{"S.", 7, 2, 0, ts(501), TwAck, TwAck},
			{"S", 2, 0, 0, ts(500), TwDrop, TwAck},
			{"S", 1, 0, 0, ts(501), TwDrop, TwNew}, // RFC 6191: the timestamp decides
			{"S", 3, 0, 0, ts(501), TwNew, TwNew},
			{"S", 3, 0, 0, ts(499), TwNew, TwAck},
			{"S", 3, 0, 0, ts(500), TwNew, TwNew},
			{"S", 3, 0, 0, wire.Options{}, TwNew, TwNew},
			{"S", 2, 0, 0, wire.Options{}, TwDrop, TwAck},
			{"S", 100000, 0, 0, ts(501), TwNew, TwNew},
			{"FS", 3, 0, 0, ts(501), TwNew, TwNew},
		} {
			th := wire.TCP{Flags: parseFlags(c.flags), Seq: t.irs.Add(c.seq), Ack: t.iss.Add(c.ack), Opt: c.opt}
			if got := tw.Input(&th, c.n, FreeBSD()); got != c.freebsd {
				t.Errorf("FreeBSD: %s seq %d ack %d len %d: verdict %d, want %d", c.flags, c.seq, c.ack, c.n, got,
					c.freebsd)
			}
			if got := tw.Input(&th, c.n, Default()); got != c.def {
				t.Errorf("Default: %s seq %d ack %d len %d: verdict %d, want %d", c.flags, c.seq, c.ack, c.n, got,
					c.def)
			}
		}
		p := FreeBSD()
		p.DropSynFin = true
		th := wire.TCP{Flags: wire.SYN | wire.FIN, Seq: t.irs + 3}
		if got := tw.Input(&th, 0, p); got != TwDrop {
			t.Errorf("SYN,FIN with drop_synfin: verdict %d", got)
		}
	})
}

// The record knows what the connection knew.
func TestTimeWaitRecordMade(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "FreeBSD, ts, wscale 3, sack")
		k.shutdown()
		k.trace(`
		      > F. 1:1(0) ack 1
		+10ms < F. 1:1(0) ack 2
		      > .  2:2(0) ack 2
		`)
		want := TimeWaitRec{SndNxt: t.iss + 2, RcvNxt: t.irs + 2, TSRecent: 7010, TSOffset: tsOffset, Win: 65700 >> 6,
			HasTS: true, LastTS: 110}
		if *k.tw != want {
			k.fatalf("record %+v, want %+v", *k.tw, want)
		}
	})
}

// Data and FIN in CLOSE_WAIT, CLOSING, LAST_ACK: the peer has said that there is no more (RFC 9293,
// 3.10.7.4, seventh): ignored.
func TestDataAfterFin(t *testing.T) {
	each(t, func(t *T) {
		for _, state := range []State{CloseWait, Closing, LastAck} {
			for _, again := range []string{
				"< P. 2:5(3) ack 1", "< FP. 2:5(3) ack 1", "< F. 2:2(0) ack 1", "< P. 3:5(2) ack 1",
			} {
				k := established(t)
				if state == Closing {
					k.shutdown()
					k.line("> F. 1:1(0) ack 1")
				}
				k.line("< F. 1:1(0) ack 1")
				if state == LastAck {
					k.shutdown()
				}
				k.sent = nil
				k.want("state", state)
				k.line(again)
				k.sent = nil
				k.want("rcvcc", 0)
				k.want("rcvnxt", 2)
				k.want("state", state)
				if k.tp.reass != nil {
					k.fatalf("%s: %s waits for what is missing", state, again)
				}
			}
		}
	})
}

// A connection that its user has closed, and whose peer keeps its window shut, ends at the first
// probe after a minute of silence, and not, as an open one, after ten (CVE-2008-4609). This is for
// profiles that give orphans no time of their own: a peer that answers the probes keeps it.
func TestOrphanInPersist(t *testing.T) {
	each(t, func(t *T) {
		for _, c := range []struct {
			name    string
			end     func(k *kit)
			answers bool
			gone    bool
		}{
			{"closed, silent", (*kit).close, false, true},
			{"closed, answers", (*kit).close, true, false},
			{"shut down, silent", (*kit).shutdown, false, false},
			{"open, silent", func(*kit) {}, false, false},
		} {
			for _, next := range []int{1, 2} { // of the peer's numbers: in FIN_WAIT_1, and in LAST_ACK
				k := established(t, "FreeBSD, win 0")
				if next == 2 {
					k.trace("< F. 1:1(0) ack 1\n> . 1:1(0) ack 2")
				}
				k.write(1)
				c.end(k)
				last := k.now
				for k.tp.State() != Closed && k.now-epoch < 5*60*sec {
					k.now = max(k.now, k.tp.Next())
					k.tp.Timeout(k.now)
					k.check()
					k.sent = nil
					if c.answers && k.tp.State() != Closed {
						k.now += 10 * ms
						k.input(k.pkt(".", next, 1, 0))
						last = k.now
					}
				}
				if gone := k.tp.State() == Closed; gone != c.gone {
					k.fatalf("%s, next %d: gone %v after %v, want %v",
						c.name, next, gone, time.Duration(k.now-epoch), c.gone)
				}
				d := k.now - last
				timedOut := k.errno == syscall.ETIMEDOUT && k.stats.Persistdrop.Load() == 1
				if c.gone && (d < 60*sec || d > 130*sec || !timedOut) {
					k.fatalf("%s, next %d: gone after %v with %v", c.name, next, time.Duration(d), k.errno)
				}
			}
		}
	})
}
