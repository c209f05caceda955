package tcp

import (
	"fmt"
	"strings"
	"testing"

	"bsdnet/internal/kern/wire"
)

// The sender's half of explicit congestion notification: RFC 3168, 6.1.2.

// flags lists which of what was sent carries CWR: "first:CWR", and all others by their first
// number.
func (k *kit) cwrs() string {
	var s []string
	for _, p := range k.sent {
		w := fmt.Sprint(p.th.Seq.Sub(k.t.iss))
		if p.th.Flags&wire.CWR != 0 {
			w += ":CWR"
		}
		s = append(s, w)
	}
	k.sent = k.sent[:0]
	return strings.Join(s, " ")
}

// RFC 3168, 6.1.2: "TCP should not react to congestion indications more than once every window of
// data (or more loosely, more than once every round-trip time)." "the TCP source must not increase
// its congestion window" by such an acknowledgment. The CWR flag goes with "the first new data
// packet sent after the window reduction".
func TestMarkOnceARound(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t, "ecn", withCC("newreno"))
		k.write(50000)
		k.during(100e6, segs(1, 10))
		k.line("< .E 1:1(0) ack 2001")
		k.want("ca", CWR)
		k.want("ssthresh", 5000)
		k.want("cwnd", 9000) // pipe, and the segment that 2000 bytes delivered let out
		if got := k.cwrs(); got != "10001:CWR" {
			t.Fatalf("sent %s", got)
		}
		for n := 3001; n < 10001; n += 1000 {
			k.line(fmt.Sprintf("< .E 1:1(0) ack %d", n))
			k.collect(6e6)
			k.want("ssthresh", 5000)
		}
		k.line("< .E 1:1(0) ack 10001") // the receiver has not seen CWR yet
		k.want("ca", Open)
		k.want("ssthresh", 5000)
		if w := k.tp.snr.ctl.Cwnd; w < 5000 || w > 5500 {
			t.Fatalf("cwnd is %d, want 5000", w)
		}
		k.collect(20e6)
		k.line("< .E 1:1(0) ack 11001") // it has: this is another mark
		k.want("ca", CWR)
		if s := k.tp.snr.ctl.Ssthresh; s >= 5000 {
			t.Fatalf("ssthresh is %d", s)
		}
		k.collect(0)
	})
}

// RFC 3168, 6.1.2: "When an ECN-Capable TCP sender reduces its congestion window for any reason
// (because of a retransmit timeout, a Fast Retransmit, or in response to an ECN Notification), the
// TCP sender sets the CWR flag in the TCP header of the first new data packet sent after the window
// reduction." 6.1.5: CWR and ECT are not set on what is sent again. So the echo of the mark that
// came with the loss ends.
func TestMarkAndLoss(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t, "ecn", withCC("newreno"))
		k.write(50000)
		k.during(100e6, segs(1, 10))
		k.line("< . 1:1(0) ack 1 <sack 1001:4001>")
		k.want("ca", Recovering)
		k.want("ssthresh", 5000)
		if p := k.sent[0]; p.th.Seq != t.iss+1 || p.ect || p.th.Flags&wire.CWR != 0 {
			t.Fatalf("sent again: %s, ECT %v", k.string(p, true), p.ect)
		}
		k.collect(6e6)
		var all string
		for r := 5001; r <= 10001; r += 1000 {
			k.line(fmt.Sprintf("< .E 1:1(0) ack 1 <sack 1001:%d>", r))
			all += k.cwrs() + " "
			k.advance(6e6)
			all += k.cwrs() + " "
		}
		if got := strings.Fields(all); len(got) < 2 || got[0] != "10001:CWR" || strings.Count(all, "CWR") != 1 {
			t.Fatalf("sent %s", all)
		}
		k.want("ssthresh", 5000)

		k = sending(t, "ecn")
		k.write(50000)
		k.during(0, segs(1, 10))
		k.during(600e6, "10001:11001 1:1001") // the probe of the tail, and the time-out
		k.ack(1001)
		if got := k.cwrs(); !strings.HasPrefix(got, "11001:CWR") {
			t.Fatalf("after a time-out %s was sent", got)
		}
		k.collect(0)
	})
}

// Proof that nothing was lost takes back a reduction for a loss (RFC 3522), but not one for a mark
// that came before.
func TestMarkIsNotUndone(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t, "ecn", "ts", withCC("newreno"))
		k.write(50000)
		mss := k.tp.effMSS()
		k.collect(100e6)
		end := k.tp.sndMax.Sub(t.iss)
		k.line(fmt.Sprintf("< .E 1:1(0) ack %d", 1+mss))
		k.want("ca", CWR)
		s := k.tp.snr.ctl.Ssthresh
		k.collect(6e6)
		k.acked(1+mss, fmt.Sprintf("%d:%d", 1+2*mss, 1+6*mss))
		k.want("ca", Recovering)
		k.want("ssthresh", s)
		k.advance(20e6)
		// The original arrives, as its timestamp says.
		k.line(fmt.Sprintf("< . 1:1(0) ack %d <TS val 7200 ecr 100>", end))
		k.collect(0)
		k.want("ssthresh", s)
		if w := k.tp.snr.ctl.Cwnd; w > s+2*mss {
			t.Fatalf("cwnd is %d, ssthresh %d", w, s)
		}
	})
}
