package tcp

import (
	"testing"
	"time"
)

// answerAll lets d pass with a peer that answers each segment with win and the old acknowledgment. It returns the bytes of data that were sent.
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

// A peer that is short of memory keeps nothing, and answers each segment with what it had acknowledged before and a window of 0. It is alive and says so: RFC 9293, MUST-37.
func TestWindowClosedOverFlight(t *testing.T) {
	for _, prof := range []string{"nodelay", "bsd", "FreeBSD", "sack, ts", "Net3"} {
		each(t, func(t *T) {
			k := established(t, "mss 1000, win 20000, rtt 10ms", prof)
			k.write(9000)
			if len(k.sent) == 0 {
				k.fatalf("nothing was sent")
			}
			sent := k.answerAll(40*time.Minute, ". 1:1(0) ack 1 win 0")
			// Probes of a byte, and what had been under way or was sent again before the window was known to be closed.
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
