package tcp

import (
	"math"
	"testing"
	"unsafe"
)

// inCA returns a kit in congestion avoidance, just after the loss of a window of w bytes.
func inCA(t *testing.T, w int) *ccKit {
	k := newCCKit(t, "cubic")
	k.c.Cwnd = w
	k.fill()
	k.recover(Loss)
	return k
}

// RFC 9438, 4.2 to 4.5: the window follows W_cubic(t) = C * (t - K)^3 + W_max, through the concave
// and into the convex region.
func TestCubicCurve(t *testing.T) {
	k := inCA(t, 1000000)
	k.wantSsthresh(700000)
	k.wantCwnd(700000)
	start := k.v.Now
	for _, limit := range []int64{2, 4, 6, 8, 10, 12, 14} { // K = cbrt(300/0.4) = 9.1 s
		for k.v.Now < start+limit*sec {
			k.round()
		}
		d := float64(k.v.Now-start)/1e9 - math.Cbrt((1000-700)/0.4)
		want := 1000 * (0.4*d*d*d + 1000)
		if got := float64(k.c.Cwnd); math.Abs(got-want) > 0.01*want {
			t.Errorf("after %d s: cwnd = %.0f, want %.0f", limit, got, want)
		}
	}
}

// 4.2: "1.5 * cwnd if W_cubic(t + RTT) > 1.5 * cwnd": no round trip grows the window by more than
// half.
func TestCubicTargetIsBounded(t *testing.T) {
	k := inCA(t, 100000)
	k.round()
	k.v.Now += 60 * sec // one long pause that counts, as the window was in use
	w := k.c.Cwnd
	for n := 0; n < w; n += 1000 {
		k.ack(1000)
	}
	if got := k.c.Cwnd; got < w*14/10 || got > w*16/10 {
		t.Errorf("in a round trip cwnd went from %d to %d, want 1.5 times", w, got)
	}
}

// 4.3: if Reno would be faster, the window grows as W_est: by α_cubic segments a round trip up
// to what it was before the loss, and by one beyond.
func TestCubicRenoFriendly(t *testing.T) {
	k := newCCKit(t, "cubic")
	k.v.SRTT = 10 * ms
	k.c.Cwnd = 20000
	k.fill()
	k.recover(Loss)
	k.wantCwnd(14000)
	rounds := 0
	for ; k.c.Cwnd < 20000; rounds++ {
		k.round()
	}
	if want := 11; rounds < want-1 || rounds > want+1 {
		t.Errorf("%d round trips back to the window before, want %d: 6 segments at 0.53 each", rounds, want)
	}
	w := k.c.Cwnd
	for range 10 {
		k.round()
	}
	if got := k.c.Cwnd - w; got < 9400 || got > 10500 {
		t.Errorf("in ten round trips beyond it cwnd grew by %d bytes, want 10 segments", got)
	}
}

// 4.7: a flow that has lost before it was where it had been gives up more.
func TestCubicFastConvergence(t *testing.T) {
	k := inCA(t, 100000)
	q := k.cc.(*cubic)
	k.want("W_max", int(q.stage.wMax), 100000)
	k.round()
	w := k.c.Cwnd
	k.recover(Loss)
	k.want("W_max", int(q.stage.wMax), int(float64(w)*0.85))

	k = inCA(t, 100000)
	q = k.cc.(*cubic)
	k.c.Cwnd = 120000
	k.fill()
	k.recover(Loss)
	k.want("W_max", int(q.stage.wMax), 120000)
}

// 4.6: "ssthresh = flight_size * β_cubic", 2 MSS at least, whatever the signal.
func TestCubicThreshold(t *testing.T) {
	for _, s := range []Signal{Loss, RTO, ECN} {
		for _, test := range []struct{ out, want int }{
			{100000, 70000}, {50000, 35000}, {2000, 2000}, {110000, 70000},
		} {
			k := newCCKit(t, "cubic")
			k.c.Cwnd = 100000
			k.v.Sent, k.v.Flight = k.v.Acked+uint64(test.out), 0
			k.cc.Congested(&k.v, s, &k.c)
			k.wantSsthresh(test.want)
			k.wantCwnd(100000)
		}
	}
}

// 4.8: after a time-out "K is set to 0, and W_max is set to the congestion window size at the
// beginning of the current congestion avoidance stage".
func TestCubicTimeout(t *testing.T) {
	k := inCA(t, 1000000)
	k.round()
	k.recover(RTO)
	ssthresh := k.c.Ssthresh
	k.v.InRecovery = true
	k.ack(3000) // RFC 3465: one segment for each acknowledgment
	k.wantCwnd(2000)
	k.v.InRecovery = false
	k.cc.Recovered(&k.v, &k.c)
	for k.c.Cwnd < ssthresh {
		k.round()
	}
	q := k.cc.(*cubic)
	k.want("W_max", int(q.stage.wMax), ssthresh)
	k.want("K", int(q.stage.k*1e9), 0)
	start := k.v.Now
	for k.v.Now < start+8*sec {
		k.round()
	}
	d := float64(k.v.Now-start) / 1e9
	if got, want := float64(k.c.Cwnd), 1000*0.4*d*d*d+float64(ssthresh); math.Abs(got-want) > 0.01*want {
		t.Errorf("8 s later cwnd = %.0f, want %.0f", got, want)
	}
}

// 4.10: when HyStart++ has ended slow start there is no W_max: the window grows from where it is,
// slowly at first.
func TestCubicAfterHystart(t *testing.T) {
	k := newCCKit(t, "cubic")
	k.rounds(100*ms, 100*ms, 100*ms, 120*ms, 120*ms, 120*ms, 120*ms, 120*ms)
	w := k.c.Ssthresh
	if w == infinite {
		t.Fatal("slow start has not ended")
	}
	k.round()
	q := k.cc.(*cubic)
	k.want("W_max", int(q.stage.wMax), w)
	k.want("cwnd_prior", q.stage.prior, w)
	if k.c.Cwnd > w+1100 {
		t.Errorf("cwnd went from %d to %d in a round trip", w, k.c.Cwnd)
	}
}

// 4.9.2: all that was saved comes back, and the window goes on as if there had been no reduction.
func TestCubicUndo(t *testing.T) {
	for _, s := range []Signal{Loss, RTO, ECN} {
		k, other := inCA(t, 200000), inCA(t, 200000)
		for range 20 {
			k.round()
			other.round()
		}
		q, before, c := k.cc.(*cubic), k.cc.(*cubic).stage, k.c
		k.cc.Congested(&k.v, s, &k.c)
		k.c.Cwnd = 2000
		k.v.InRecovery = true
		k.ack(0)
		k.v.InRecovery = false
		k.cc.Undo(&k.v, &k.c)
		if q.stage != before || k.c != c {
			t.Fatalf("after undo %+v %+v, want %+v %+v", q.stage, k.c, before, c)
		}
		k.cc.Recovered(&k.v, &k.c)
		for range 20 {
			k.round()
			other.round()
		}
		k.wantCwnd(other.c.Cwnd)
	}
}

// 4.9.2: "if [...] the current cwnd is already higher than cwnd_prior, CUBIC SHOULD continue to use
// the current [...] values".
func TestCubicLateUndo(t *testing.T) {
	k := inCA(t, 100000)
	ssthresh := k.c.Ssthresh
	k.c.Cwnd = 150000
	k.cc.Undo(&k.v, &k.c)
	k.wantCwnd(150000)
	k.wantSsthresh(ssthresh)
	k.c.Cwnd = 50000 // and there is nothing left to take back
	k.cc.Undo(&k.v, &k.c)
	k.wantCwnd(50000)
}

// 4.2 and 5.8: "The elapsed time t MUST NOT include periods during which cwnd has not been updated
// due to application-limited behavior".
func TestCubicAppLimited(t *testing.T) {
	for _, pause := range []string{"idle", "little", "idle and little"} {
		k, other := inCA(t, 1000000), inCA(t, 1000000)
		for range 30 {
			k.round()
			other.round()
		}
		w := k.c.Cwnd
		if pause != "idle" {
			k.v.CwndLimited = false
			k.v.Acked = k.v.Sent // the last window
			k.fill()
			for range 300 {
				k.v.Now += 100 * ms
				k.ack(1000)
			}
			k.v.CwndLimited = true
		}
		if pause != "little" {
			k.v.Now += 290 * ms // shorter than what a restart takes from the window
			k.cc.Restart(&k.v, 290*ms, &k.c)
		}
		k.wantCwnd(w)
		for range 30 {
			k.round()
			other.round()
		}
		if d := k.c.Cwnd - other.c.Cwnd; d < -3000 || d > 3000 {
			t.Errorf("after a pause (%s) cwnd = %d, without %d", pause, k.c.Cwnd, other.c.Cwnd)
		}
	}
}

// In recovery the window is the sender's.
func TestCubicRecovery(t *testing.T) {
	k := newCCKit(t, "cubic")
	k.cc.Congested(&k.v, Loss, &k.c)
	k.v.InRecovery = true
	k.c.Cwnd = 3000
	k.ack(1000)
	k.wantCwnd(3000)
	k.c.Cwnd = 9000
	k.cc.Recovered(&k.v, &k.c)
	k.wantCwnd(7000)
}

// One for each connection.
func TestCCSize(t *testing.T) {
	if n := unsafe.Sizeof(cubic{}); n > 208 {
		t.Errorf("cubic takes %d bytes", n)
	}
}
