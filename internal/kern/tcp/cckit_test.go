package tcp

import (
	"math/rand/v2"
	"testing"

	"bsdnet/internal/testutil"
)

// A ccKit is a controller with a connection that is nothing but numbers.
type ccKit struct {
	*testing.T
	cc CC
	v  View
	c  Control

	nxt uint64 // v.Sent at the last acknowledgment, before it let out more
}

// newCCKit starts the controller of a connection with segments of 1000 bytes, an initial window of
// 10 and a round trip of 100 ms, whose window is always full.
func newCCKit(t *testing.T, name string) *ccKit {
	t.Helper()
	k := &ccKit{T: t, cc: NewCC(name)}
	k.v = View{Now: sec, MSS: 1000, InitialWindow: 10000, SRTT: 100 * ms, MinRTT: 100 * ms, CwndLimited: true}
	k.cc.Init(&k.v, &k.c)
	k.fill()
	k.nxt = k.v.Sent
	return k
}

// fill sends what the window allows, or if that does not matter, a segment.
func (k *ccKit) fill() {
	n := k.c.Cwnd
	if !k.v.CwndLimited {
		n = 1000
	}
	k.v.Sent = max(k.v.Sent, k.v.Acked+uint64(n))
	k.v.Flight = int(k.v.Sent - k.v.Acked)
}

// ack acknowledges n bytes, with a measurement of the round trip, and sends more.
func (k *ccKit) ack(n int) { k.ackRTT(n, k.v.SRTT) }

func (k *ccKit) ackRTT(n int, rtt int64) {
	k.v.PriorFlight = k.v.Flight
	k.nxt = k.v.Sent
	k.v.Acked += uint64(n)
	k.v.Delivered += uint64(n)
	k.v.Flight -= n
	k.cc.Acked(&k.v, &Ack{Acked: n, Delivered: n, RTT: rtt}, &k.c)
	k.fill()
}

// round acknowledges a window, segment by segment, evenly over a round trip.
func (k *ccKit) round() {
	w := k.c.Cwnd
	for n := 0; n < w; n += 1000 {
		k.v.Now += k.v.SRTT * 1000 / int64(w)
		k.ack(min(1000, w-n))
	}
}

// recover reduces the window as the sender would after a signal, and ends the recovery.
func (k *ccKit) recover(s Signal) {
	k.cc.Congested(&k.v, s, &k.c)
	if s == RTO {
		k.c.Cwnd = k.v.MSS
		return
	}
	k.v.InRecovery = true
	k.ack(1000)
	k.c.Cwnd = k.c.Ssthresh
	k.v.Sent = k.v.Acked + uint64(k.c.Cwnd)
	k.v.Flight = k.c.Cwnd
	k.v.InRecovery = false
	k.cc.Recovered(&k.v, &k.c)
}

func (k *ccKit) want(name string, got, want int) {
	k.Helper()
	if got != want {
		k.Fatalf("%s = %d, want %d", name, got, want)
	}
}

func (k *ccKit) wantCwnd(want int)     { k.Helper(); k.want("cwnd", k.c.Cwnd, want) }
func (k *ccKit) wantSsthresh(want int) { k.Helper(); k.want("ssthresh", k.c.Ssthresh, want) }

// A name that is listed makes a controller, and no other.
func TestCCNames(t *testing.T) {
	for _, name := range CCNames() {
		if NewCC(name) == nil {
			t.Errorf("NewCC(%q) = nil", name)
		}
		if NewCC(name) == NewCC(name) {
			t.Errorf("NewCC(%q) returns one controller for two connections", name)
		}
	}
	if cc := NewCC("vegas"); cc != nil {
		t.Errorf("NewCC of an unknown name = %T, want nil", cc)
	}
}

// There are many acknowledgments: a controller allocates nothing for one.
func TestCCAllocs(t *testing.T) {
	if testutil.Race {
		t.Skip("the race detector allocates")
	}
	for _, name := range CCNames() {
		k := newCCKit(t, name)
		a := Ack{Acked: 1000, Delivered: 1000, RTT: 100 * ms}
		n := testing.AllocsPerRun(1000, func() {
			k.v.Now += ms
			k.v.Delivered += 1000
			k.v.Acked += 1000
			k.v.Sent += 1000
			a.Rate = RateSample{Delivered: 10000, Interval: 100 * ms, Flight: 10000,
				PriorDelivered: k.v.Delivered - 10000}
			k.cc.Acked(&k.v, &a, &k.c)
		})
		if n != 0 {
			t.Errorf("%s allocates %v times for an acknowledgment", name, n)
		}
	}
}

// Whatever happens, in whatever order: the window allows a segment and no more than a peer can
// offer, the threshold is two segments at least, and a pacing rate is none that stops the
// connection.
func TestCCAnything(t *testing.T) {
	for _, name := range CCNames() {
		for seed := range uint64(100) {
			r := rand.New(rand.NewPCG(seed, 0))
			k := newCCKit(t, name)
			k.v.MSS = 1 + r.IntN(65535)
			k.v.InitialWindow = 10 * k.v.MSS
			k.cc.Init(&k.v, &k.c)
			size := func(most int) int { // any order of magnitude is as likely as another
				return r.IntN(most>>r.IntN(30) + 1)
			}
			for n := range 300 {
				k.v.Now += int64(size(1<<30)) << r.IntN(10)
				k.v.SRTT, k.v.MinRTT = int64(size(1<<30)), int64(size(1<<30))
				k.v.Flight, k.v.PriorFlight = size(1<<30), size(1<<30)
				k.v.CwndLimited, k.v.AppLimited, k.v.InRecovery = r.IntN(2) == 0, r.IntN(2) == 0, r.IntN(2) == 0
				switch r.IntN(12) {
				case 0:
					k.cc.Congested(&k.v, Signal(r.IntN(3)), &k.c)
				case 1:
					k.cc.Undo(&k.v, &k.c)
				case 2:
					k.cc.Recovered(&k.v, &k.c)
				case 3:
					k.cc.Restart(&k.v, int64(size(1<<30))<<r.IntN(10), &k.c)
				default:
					a := Ack{Acked: size(1 << 30), Delivered: size(1 << 30), Lost: size(1 << 30),
						RTT: int64(size(1 << 30))}
					k.v.Acked += uint64(a.Acked)
					k.v.Sent = k.v.Acked + uint64(size(1<<30))
					k.v.Delivered += uint64(a.Delivered)
					k.v.Lost += uint64(a.Lost)
					a.Rate = RateSample{Delivered: size(1 << 30), Interval: int64(size(1 << 30)), Flight: size(1 << 30),
						PriorDelivered: k.v.Delivered - min(k.v.Delivered, uint64(size(1<<30))), Lost: size(1 << 30),
						AppLimited: r.IntN(4) == 0}
					k.cc.Acked(&k.v, &a, &k.c)
				}
				if k.c.Cwnd < k.v.MSS || k.c.Cwnd > maxCwnd {
					t.Fatalf("%s, seed %d, step %d: cwnd = %d", name, seed, n, k.c.Cwnd)
				}
				if k.c.Ssthresh < 2*k.v.MSS {
					t.Fatalf("%s, seed %d, step %d: ssthresh = %d", name, seed, n, k.c.Ssthresh)
				}
				if k.c.Rate < 0 || k.cc.OwnWindow() && k.c.Rate == 0 {
					t.Fatalf("%s, seed %d, step %d: rate = %d", name, seed, n, k.c.Rate)
				}
			}
		}
	}
}
