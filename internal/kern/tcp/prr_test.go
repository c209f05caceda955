package tcp

import (
	"fmt"
	"testing"
)

// Proportional rate reduction: RFC 9937.

func withCC(name string) func(*Profile) { return func(p *Profile) { p.CC = name } }

// RFC 9937, 6.2: "sndcnt = DIV_ROUND_UP(prr_delivered * ssthresh, RecoverFS) - prr_out" as long as
// the flight is larger than ssthresh, and "sndcnt = MIN(ssthresh - inflight, sndcnt)" then: of a
// flight that is halved every second acknowledgment lets a segment go. 6.1: "RecoverFS = SND.NXT -
// SND.UNA", less what was selectively acknowledged before the acknowledgment that begins recovery.
func TestPRROneLoss(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t, withCC("newreno"))
		k.write(50000)
		k.during(100e6, segs(1, 10)) // 1 is lost
		k.ack(1, "1001:2001")
		k.during(1e6, "10001:11001")
		k.ack(1, "1001:3001")
		k.during(1e6, "11001:12001")
		for i, want := range []struct {
			cwnd, pipe int
			sent       string
		}{
			{9000, 9000, "1:1001"}, // 6.2: "Force a fast retransmit upon entering recovery"
			{8000, 8000, ""},
			{7500, 7000, ""},
			{7000, 7000, "12001:13001"},
			{6500, 6000, ""},
			{5000, 5000, ""}, // the flight has come down to ssthresh, and stays there
			{5000, 5000, "13001:14001"},
			{5000, 5000, "14001:15001"},
		} {
			k.ack(1, fmt.Sprintf("1001:%d", 4001+i*1000))
			k.want("ca", Recovering)
			k.want("cwnd", want.cwnd)
			k.during(6e6, want.sent)
			k.want("pipe", want.pipe)
		}
		k.want("ssthresh", 5000)
		k.acked(11001)
		k.want("ca", Recovering)
		k.want("cwnd", 5000)
		k.acked(12001)
		k.want("ca", Open)
		if w := k.tp.snr.ctl.Cwnd; w < 5000 || w > 6000 {
			t.Fatalf("after recovery cwnd is %d, want 5000", w)
		}
	})
}

// RFC 9937, 6.2: if more has been lost than the reduction asks for, packet conservation, "sndcnt =
// MAX(prr_delivered - prr_out, DeliveredData)", and "sndcnt += MSS" for a SafeACK, one by which
// "SND.UNA advances and no further loss" is indicated.
func TestPRRHeavyLoss(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t, withCC("newreno"))
		k.write(1000)
		k.collect(100e6)
		k.acked(1001)
		k.tp.snr.ctl.Cwnd = 20000
		k.write(19000 + 50000)
		k.during(100e6, segs(1001, 20)) // up to 13001 all is lost
		k.ack(1001, "13001:14001")
		k.during(6e6, "21001:22001")
		k.ack(1001, "13001:15001")
		k.during(6e6, "22001:23001")
		for i := range 6 {
			k.ack(1001, fmt.Sprintf("13001:%d", 16001+i*1000))
			k.want("ca", Recovering)
			k.want("cwnd", 8000)
			k.during(11e6, segs(1001+i*1000, 1))
			k.want("pipe", 8000)
		}
		k.want("ssthresh", 10000)
		k.ack(2001, "13001:21001")
		k.want("cwnd", 9000)
		k.during(20e6, segs(7001, 2))
		k.ack(3001, "13001:21001")
		k.want("cwnd", 10000)
		k.during(20e6, segs(9001, 2))
		k.ack(4001, "13001:21001")
		k.want("cwnd", 10000) // "Attempt to catch up, but never exceed ssthresh"
		k.during(20e6, segs(11001, 1))
	})
}

// RFC 3168, 6.1.2, and RFC 9937, 4: a reduction for a congestion mark goes the same way, without a
// retransmission.
func TestPRRMark(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t, "ecn", withCC("newreno"))
		k.write(50000)
		k.during(100e6, segs(1, 10))
		sent := 0
		for i := range 10 {
			before := k.tp.sndNxt
			k.line(fmt.Sprintf("< .E 1:1(0) ack %d", 1001+i*1000))
			k.collect(6e6)
			sent += k.tp.sndNxt.Sub(before)
			if i == 0 {
				k.want("ca", CWR)
				k.want("ssthresh", 5000)
			}
		}
		k.want("pipe", sent)
		if sent < 4000 || sent > 6000 {
			t.Fatalf("%d bytes were sent for 10000 that arrived, want about 5000", sent)
		}
	})
}

// RFC 9937, 6.2, by numbers.
func TestPRRWindow(t *testing.T) {
	for _, c := range []struct {
		p                   prr
		flight, ssthresh, n int
		safe                bool
		cwnd, delivered     int
	}{
		{p: prr{flight: 10000}, flight: 9000, ssthresh: 5000, n: 1000, cwnd: 10000, delivered: 1000}, // forced
		{p: prr{flight: 10000, delivered: 3000, out: 1000}, flight: 7000, ssthresh: 5000, n: 1000, cwnd: 8000,
			delivered: 4000},
		// rounded up
		{p: prr{flight: 3000, delivered: 1000, out: 1000}, flight: 9000, ssthresh: 5000, n: 1, cwnd: 9669,
			delivered: 1001},
		{p: prr{flight: 10000, delivered: 1000, out: 9000}, flight: 8000, ssthresh: 5000, n: 1000, cwnd: 8000,
			delivered: 2000},
		{p: prr{flight: 10000, delivered: 1000, out: 9000}, flight: 2000, ssthresh: 5000, n: 1000, cwnd: 3000,
			delivered: 2000},
		{p: prr{flight: 10000, delivered: 1000, out: 9000}, flight: 2000, ssthresh: 5000, n: 1000, safe: true,
			cwnd: 4000, delivered: 2000},
		{p: prr{flight: 10000, delivered: 8000, out: 4000}, flight: 4500, ssthresh: 5000, n: 1000, safe: true,
			cwnd: 5000, delivered: 9000},
	} {
		p := c.p
		if w := p.window(c.flight, c.ssthresh, c.n, 1000, c.safe); w != c.cwnd || p.delivered != c.delivered {
			t.Errorf("%+v: window(%d, %d, %d, safe %v) = %d, delivered %d; want %d, %d", c.p, c.flight, c.ssthresh,
				c.n, c.safe, w, p.delivered,
				c.cwnd, c.delivered)
		}
	}
}
