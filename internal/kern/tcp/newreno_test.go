package tcp

import "testing"

// RFC 3465, 2.2 and 2.3: slow start by bytes, two segments for an acknowledgment at most.
func TestNewRenoSlowStart(t *testing.T) {
	k := newCCKit(t, "newreno")
	k.wantCwnd(10000)
	k.ack(500)
	k.wantCwnd(10500)
	k.ack(1000)
	k.wantCwnd(11500)
	k.ack(3000)
	k.wantCwnd(13500)
}

// RFC 3465, 2.1: one segment for each window acknowledged, however it is acknowledged.
func TestNewRenoCongestionAvoidance(t *testing.T) {
	for _, step := range []int{100, 1000, 2500} {
		k := newCCKit(t, "newreno")
		k.c.Ssthresh = 10000
		k.ack(10000 - step)
		k.wantCwnd(10000)
		k.ack(step)
		k.wantCwnd(11000)
		for n := 0; n < 11000; n += step {
			k.wantCwnd(11000)
			k.ack(step)
		}
		k.wantCwnd(12000)
	}
}

// What slow start leaves of an acknowledgment counts for congestion avoidance.
func TestNewRenoCrossesThreshold(t *testing.T) {
	k := newCCKit(t, "newreno")
	k.c.Ssthresh = 10500
	k.ack(1000)
	k.wantCwnd(10500)
	k.ack(9999)
	k.wantCwnd(10500)
	k.ack(1)
	k.wantCwnd(11500)
}

// RFC 7661: a window that is not used does not grow.
func TestNewRenoUnusedWindow(t *testing.T) {
	for _, ssthresh := range []int{infinite, 50000, 10000} {
		k := newCCKit(t, "newreno")
		k.c.Ssthresh = ssthresh
		k.v.CwndLimited = false
		for range 100 {
			k.ack(1000)
		}
		k.wantCwnd(10000)
	}
}

// A paced sender is held back by the window now and then only: once in a round trip is enough.
func TestUsage(t *testing.T) {
	for _, name := range []string{"newreno", "cubic"} {
		k := newCCKit(t, name)
		k.c.Ssthresh = 10000
		k.v.Sent = 30000
		k.ack(1000)
		k.v.CwndLimited = false
		last := k.c.Cwnd
		for k.v.Acked < 29000 { // 30000 had been sent when the window last held back data
			k.ack(1000)
		}
		if k.c.Cwnd <= last {
			t.Errorf("%s: cwnd = %d, and has not grown", name, k.c.Cwnd)
		}
		k.ack(1000)
		last = k.c.Cwnd
		for range 30 {
			k.ack(1000)
		}
		k.wantCwnd(last)
	}
}

// In slow start CwndLimited allows for a window that is half used, and once is not enough: the
// window would go on growing.
func TestUsageSlowStart(t *testing.T) {
	for _, name := range []string{"newreno", "cubic"} {
		for _, ssthresh := range []int{infinite, 50000} {
			k := newCCKit(t, name)
			k.c.Ssthresh = ssthresh
			k.ack(1000)
			k.wantCwnd(11000)
			k.v.CwndLimited = false
			k.ack(1000)
			k.wantCwnd(11000)
		}
	}
}

// RFC 5681, 3.1, equation 4: half the flight, two segments at least; what the window did not allow
// does not count.
func TestNewRenoThreshold(t *testing.T) {
	for _, test := range []struct{ out, flight, cwnd, want int }{
		{20000, 17000, 20000, 10000},
		{8000, 5000, 20000, 4000},    // limited by the application
		{22000, 19000, 20000, 10000}, // limited transmit
		{3000, 1000, 20000, 2000},
		{0, 9000, 20000, 4500},
	} {
		for _, s := range []Signal{Loss, RTO, ECN} {
			k := newCCKit(t, "newreno")
			k.c.Cwnd = test.cwnd
			k.v.Sent, k.v.Flight = k.v.Acked+uint64(test.out), test.flight
			k.cc.Congested(&k.v, s, &k.c)
			k.wantSsthresh(test.want)
			k.wantCwnd(test.cwnd) // reducing it is up to the sender
		}
	}
}

// In recovery the window is the sender's, except after a time-out: then slow start goes on, by one
// segment for an acknowledgment until the threshold (RFC 3465, 2.3).
func TestNewRenoRecovery(t *testing.T) {
	k := newCCKit(t, "newreno")
	k.cc.Congested(&k.v, Loss, &k.c)
	k.v.InRecovery = true
	k.c.Cwnd = 3000
	k.ack(1000)
	k.wantCwnd(3000)
	k.cc.Recovered(&k.v, &k.c)
	k.v.InRecovery = false
	k.ack(5000)
	k.wantCwnd(5000)

	k = newCCKit(t, "newreno")
	k.cc.Congested(&k.v, RTO, &k.c)
	k.v.InRecovery = true
	k.c.Cwnd = 1000
	k.ack(2000)
	k.wantCwnd(2000)
	k.ack(2000)
	k.wantCwnd(3000)
	k.cc.Recovered(&k.v, &k.c)
	k.v.InRecovery = false
	k.ack(2000)
	k.wantCwnd(4000)
	k.ack(2000)
	k.wantCwnd(5000) // the threshold
	k.ack(5000)
	k.wantCwnd(6000)
	k.c.Cwnd, k.c.Ssthresh = 3000, 20000 // a later slow start does not follow a time-out
	k.ack(2000)
	k.wantCwnd(5000)
}

// Acknowledgments from before a reduction do not count for the growth after it.
func TestNewRenoCountsAnew(t *testing.T) {
	k := newCCKit(t, "newreno")
	k.c.Ssthresh = 10000
	k.ack(9000)
	k.recover(Loss)
	k.wantCwnd(5000)
	k.ack(4999)
	k.wantCwnd(5000)
	k.ack(1)
	k.wantCwnd(6000)
}

// A window that was larger than the threshold when recovery ended comes down to it.
func TestNewRenoRecovered(t *testing.T) {
	k := newCCKit(t, "newreno")
	k.cc.Congested(&k.v, Loss, &k.c)
	k.cc.Recovered(&k.v, &k.c)
	k.wantCwnd(5000)
}

// RFC 3522: what a mistake has taken comes back, once.
func TestNewRenoUndo(t *testing.T) {
	for _, s := range []Signal{Loss, RTO, ECN} {
		k := newCCKit(t, "newreno")
		k.c.Cwnd, k.c.Ssthresh = 40000, 30000
		k.fill()
		k.cc.Congested(&k.v, s, &k.c)
		k.wantSsthresh(20000)
		k.c.Cwnd = 1000
		k.cc.Undo(&k.v, &k.c)
		k.cc.Recovered(&k.v, &k.c)
		k.wantCwnd(40000)
		k.wantSsthresh(30000)
		k.c.Cwnd, k.c.Ssthresh = 5000, 6000
		k.cc.Undo(&k.v, &k.c)
		k.wantCwnd(5000)
		k.wantSsthresh(6000)
		k.ack(2000) // slow start as if there had been no time-out
		k.wantCwnd(6000)
		k.c.Ssthresh = 20000
		k.ack(2000)
		k.wantCwnd(8000)
	}
	k := newCCKit(t, "newreno") // it does not take back growth
	k.cc.Congested(&k.v, Loss, &k.c)
	k.c.Cwnd = 50000
	k.cc.Undo(&k.v, &k.c)
	k.wantCwnd(50000)
	k.wantSsthresh(infinite)
}

// RFC 2861: half for each time-out of idleness, not below the restart window of RFC 5681, 4.1, and
// 3/4 of it is remembered.
func TestRestartDecay(t *testing.T) {
	for _, test := range []struct {
		srtt, idle     int64
		cwnd, ssthresh int
	}{
		{100 * ms, 299 * ms, 160000, 50000},
		{100 * ms, 300 * ms, 80000, 120000},
		{100 * ms, 899 * ms, 40000, 120000},
		{100 * ms, 1200 * ms, 10000, 120000},
		{100 * ms, 3600 * sec, 10000, 120000},
		{ms, 199 * ms, 160000, 50000},
		{ms, 200 * ms, 80000, 120000},
	} {
		for _, name := range []string{"cubic", "newreno"} {
			k := newCCKit(t, name)
			k.c.Cwnd, k.c.Ssthresh = 160000, 50000
			k.v.SRTT = test.srtt
			k.cc.Restart(&k.v, test.idle, &k.c)
			k.wantCwnd(test.cwnd)
			k.wantSsthresh(test.ssthresh)
		}
	}
	k := newCCKit(t, "newreno") // RW = min(IW, cwnd)
	k.c.Cwnd = 4000
	k.cc.Restart(&k.v, 60*sec, &k.c)
	k.wantCwnd(4000)
}
