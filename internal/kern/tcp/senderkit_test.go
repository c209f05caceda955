package tcp

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"bsdnet/internal/kern/wire"
)

// What follows is for tests of the sender, which paces: what it sends over a time is compared as a
// list, as when exactly each segment goes is the pacer's matter alone (pacer_test.go).

// sending returns an established connection of segments of 1000 bytes to a peer with SACK and a
// large window, over a path of 100 ms.
func sending(t *T, opts ...any) *kit {
	return established(t, append([]any{"mss 1000, sack, wscale 7, rtt 100ms, sndbuf 1000000",
		func(p *Profile) { p.SendbufAuto = false }}, opts...)...)
}

// during lets d pass, with the timers that fire meanwhile, and compares what is sent until then, in
// order: "1:1001 1001:2001F" are two segments, the second with a FIN; "ack" is one without data. An
// event that has sent something before is included.
func (k *kit) during(d time.Duration, want string) {
	k.t.Helper()
	if got := k.collect(d); got != strings.Join(strings.Fields(want), " ") {
		k.fatalf("sent %q,\nwant %q", got, strings.Join(strings.Fields(want), " "))
	}
}

// collect lets d pass, and returns what was sent.
func (k *kit) collect(d time.Duration) string {
	k.t.Helper()
	for to := k.now + int64(d); ; {
		if k.tw != nil || k.tp.Next() > to {
			k.now = to
			break
		}
		k.now = max(k.now, k.tp.Next())
		k.logf("timer")
		k.tp.Timeout(k.now)
		k.check()
	}
	var s []string
	for _, p := range k.sent {
		seq := p.th.Seq.Sub(k.t.iss)
		w := fmt.Sprintf("%d:%d", seq, seq+p.len)
		if p.len == 0 {
			w = "ack"
		}
		if p.th.Flags&wire.FIN != 0 {
			w = fmt.Sprintf("%d:%dF", seq, seq+p.len)
		}
		s = append(s, w)
	}
	k.sent = k.sent[:0]
	return strings.Join(s, " ")
}

// sends is during without time.
func (k *kit) sends(want string) { k.t.Helper(); k.during(0, want) }

// ack gives the connection an acknowledgment, with SACK blocks such as "2001:3001".
func (k *kit) ack(n int, blocks ...string) {
	k.t.Helper()
	line := fmt.Sprintf("< . 1:1(0) ack %d", n)
	if len(blocks) > 0 {
		line += " <sack " + strings.Join(blocks, " ") + ">"
	}
	k.line(line)
}

// acked gives it an acknowledgment, and loses what is sent at once.
func (k *kit) acked(n int, blocks ...string) {
	k.t.Helper()
	k.ack(n, blocks...)
	k.collect(0)
}

// segs lists n segments of 1000 bytes from first on, as during does.
func segs(first, n int) string {
	var b strings.Builder
	for range n {
		fmt.Fprintf(&b, "%d:%d ", first, first+1000)
		first += 1000
	}
	return strings.TrimSpace(b.String())
}

// The list of during is what was sent, and a test that expects something else fails.
func TestSenderKit(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t)
		k.write(2500)
		k.shutdown()
		if got, want := k.collect(0), "1:1001 1001:2001 2001:2501 2501:2501F"; got != want {
			t.Fatalf("collect: %q, want %q", got, want)
		}
		k.line("< P. 1:11(10) ack 2502")
		k.during(time.Second, "ack")
	})
}
