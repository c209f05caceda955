package tcp

import (
	"math"
	"math/rand/v2"
	"testing"

	"bsdnet/internal/testutil"
)

// A simulation of controllers on a path, packet by packet: senders that honour window and pacing
// rate and know at once what is lost, and a bottleneck with a queue. Nothing is reordered, and
// acknowledgments are not lost.

const simMSS = 1448

// A simPath is a bottleneck that all senders share, and the rest of the way, which has no limits.
type simPath struct {
	rate  int64   // bytes a second
	rtt   int64   // without queueing
	queue int     // bytes that may wait
	loss  float64 // of packets, at random, before the bottleneck
	rng   *rand.Rand

	free int64 // when the bottleneck has sent all that it has accepted

	// A policer before the bottleneck, if there is one: bytes a second, bytes that get through
	// at once, and those that still may.
	policed       int64
	burst, tokens float64
	refilled      int64
}

// send returns when the packet is acknowledged, or 0 if it is lost.
func (p *simPath) send(now int64, size int) int64 {
	if p.loss > 0 && p.rng.Float64() < p.loss {
		return 0
	}
	if p.policed > 0 {
		p.tokens = min(p.burst, p.tokens+float64(now-p.refilled)*float64(p.policed)/1e9)
		p.refilled = now
		if p.tokens < float64(size) {
			return 0
		}
		p.tokens -= float64(size)
	}
	p.free = max(p.free, now)
	if int((p.free-now)*p.rate/sec) > p.queue {
		return 0
	}
	p.free += int64(size) * sec / p.rate
	return p.free + p.rtt
}

// A simPacket is a transmission of a segment.
type simPacket struct {
	seq     int   // which segment
	arrives int64 // when its acknowledgment does; 0: it is lost
	again   int   // 1: it has been sent before
	done    bool  // it has been acknowledged or found lost

	// The sender when it was sent, as draft-ietf-ccwg-bbr, 4.1.2.2 has it.
	sent, deliveredTime, firstSent int64
	delivered, lost                uint64
	flight                         int
	appLimited                     bool
}

// A simSender is a connection. Its application has data without end, except between pause and
// resume.
type simSender struct {
	cc CC
	v  View
	c  Control

	path    *simPath
	packets []simPacket // in the order of transmission
	head    int         // all before are done
	rexmt   []int       // segments to send again
	got     []bool      // which segments have been delivered, of those that have been sent
	una     int         // the first that has not
	missing int         // segments found lost and not delivered since

	pace          int64 // when the next packet may leave
	firstSent     int64
	deliveredTime int64
	appLimited    uint64 // packets sent before this much was delivered are limited by the application
	timer         int64  // when the retransmission timer was started
	backoff       int
	point         int // recovery ends when the segments before this one have been acknowledged
	timedOut      bool

	prrDelivered, prrOut, recoverFS int

	pause, resume int64
	paused        bool
	batch         int64 // acknowledgments arrive in batches, so far apart
	tick          int64 // the pacing timer fires at multiples of this

	rtos, recoveries int
}

func newSimSender(path *simPath, cc CC, now int64) *simSender {
	s := &simSender{cc: cc, path: path, pace: now, pause: never, resume: never}
	s.v = View{Now: now, MSS: simMSS, InitialWindow: 10 * simMSS}
	cc.Init(&s.v, &s.c)
	return s
}

// rto returns when the retransmission timer fires.
func (s *simSender) rto() int64 {
	if s.v.Flight == 0 {
		return never
	}
	t := sec
	if s.v.SRTT > 0 {
		t = max(2*s.v.SRTT, s.v.SRTT+200*ms)
	}
	return s.timer + t<<s.backoff
}

// rate returns the pacing rate. That of a controller that has none is Linux's.
func (s *simSender) rate() int64 {
	switch {
	case s.c.Rate > 0:
		return s.c.Rate
	case s.v.SRTT == 0:
		return 1 << 40
	case s.c.Cwnd < s.c.Ssthresh/2:
		return 2 * int64(s.c.Cwnd) * sec / s.v.SRTT
	}
	return 12 * int64(s.c.Cwnd) * sec / s.v.SRTT / 10
}

// sendable returns when something may be sent, or never.
func (s *simSender) sendable() int64 {
	if s.v.Flight > 0 && s.v.Flight+simMSS > s.c.Cwnd {
		s.v.CwndLimited = true
		return never
	}
	at := max(s.pace, s.v.Now)
	if s.tick > 0 && at > s.v.Now {
		at = (at + s.tick - 1) / s.tick * s.tick
	}
	if at >= s.pause && at < s.resume && len(s.rexmt) == 0 {
		s.paused = true
		s.appLimited = s.v.Delivered + uint64(s.v.Flight)
		return s.resume
	}
	return at
}

// nextAck returns when an acknowledgment arrives, or never.
func (s *simSender) nextAck() int64 {
	for i := s.head; i < len(s.packets); i++ {
		if p := &s.packets[i]; !p.done && p.arrives > 0 {
			return s.batched(p.arrives)
		}
	}
	return never
}

func (s *simSender) batched(t int64) int64 {
	if s.batch == 0 {
		return t
	}
	return (t + s.batch - 1) / s.batch * s.batch
}

// event returns when the sender has something to do.
func (s *simSender) event() int64 { return min(s.nextAck(), s.rto(), s.sendable()) }

// step does what there is to do at the time that event has returned.
func (s *simSender) step(now int64) {
	s.v.Now = now
	switch now {
	case s.nextAck():
		s.acked()
	case s.rto():
		s.timeout()
	default:
		s.send()
	}
}

func (s *simSender) send() {
	now := s.v.Now
	if s.v.Flight == 0 {
		s.firstSent, s.deliveredTime, s.timer = now, now, now
		if s.paused {
			s.v.AppLimited = true
			s.cc.Restart(&s.v, now-s.pause, &s.c)
		}
	}
	s.paused = false
	s.v.AppLimited = false
	p := simPacket{sent: now, deliveredTime: s.deliveredTime, firstSent: s.firstSent,
		delivered: s.v.Delivered, lost: s.v.Lost, appLimited: s.v.Delivered < s.appLimited}
	if len(s.rexmt) > 0 {
		p.seq, s.rexmt = s.rexmt[0], s.rexmt[1:]
		p.again = 1
	} else {
		p.seq = len(s.got)
		s.got = append(s.got, false)
		s.v.Sent += simMSS
	}
	s.v.Flight += simMSS
	s.prrOut += simMSS
	p.flight = s.v.Flight
	p.arrives = s.path.send(now, simMSS)
	s.packets = append(s.packets, p)
	s.pace = max(s.pace, now-ms) + simMSS*sec/s.rate() // a late timer's burst is a millisecond's
}

// acked takes an acknowledgment, and finds lost what was sent three packets before one that it
// covers.
func (s *simSender) acked() {
	now := s.v.Now
	a := Ack{}
	s.v.PriorFlight = s.v.Flight
	newest := -1
	for i := s.head; i < len(s.packets); i++ {
		p := &s.packets[i]
		if p.done || p.arrives == 0 {
			continue
		}
		if s.batched(p.arrives) > now || newest >= 0 && s.batch == 0 {
			break
		}
		p.done = true
		newest = i
		s.got[p.seq] = true
		s.missing -= p.again
		a.Delivered += simMSS
	}
	p := s.packets[newest]
	for i := s.head; i <= newest-3; i++ {
		if l := &s.packets[i]; !l.done {
			l.done = true
			a.Lost += simMSS
			s.missing -= l.again
			s.rexmt = append(s.rexmt, l.seq)
			s.missing++
		}
	}
	for s.head < len(s.packets) && s.packets[s.head].done {
		s.head++
	}
	if s.head > 10000 {
		s.packets = append(s.packets[:0], s.packets[s.head:]...)
		s.head = 0
	}
	for s.una < len(s.got) && s.got[s.una] {
		s.una++
		a.Acked += simMSS
	}
	s.v.Delivered += uint64(a.Delivered)
	s.v.Acked += uint64(a.Acked)
	s.v.Lost += uint64(a.Lost)
	s.v.Flight -= a.Delivered + a.Lost
	s.timer, s.backoff = now, 0

	a.RTT = now - p.sent
	if s.v.SRTT == 0 {
		s.v.SRTT, s.v.MinRTT = a.RTT, a.RTT
	}
	s.v.SRTT += (a.RTT - s.v.SRTT) / 8
	s.v.MinRTT = min(s.v.MinRTT, a.RTT)
	s.firstSent, s.deliveredTime = p.sent, now
	a.Rate = RateSample{Delivered: int(s.v.Delivered - p.delivered),
		Interval:       max(p.sent-p.firstSent, now-p.deliveredTime),
		PriorDelivered: p.delivered, Flight: p.flight, Lost: int(s.v.Lost - p.lost), AppLimited: p.appLimited}
	if a.Rate.Interval < s.v.MinRTT {
		a.Rate.Delivered = 0
	}

	s.recovery(&a)
	if s.v.Flight+simMSS <= s.c.Cwnd || s.v.InRecovery {
		s.v.CwndLimited = s.v.CwndLimited || s.c.Cwnd < s.c.Ssthresh && 2*s.v.PriorFlight > s.c.Cwnd
	}
	s.cc.Acked(&s.v, &a, &s.c)
	s.v.CwndLimited = false
	s.prr(&a)
}

// recovery begins and ends it. A new one begins if something of a later flight is missing.
func (s *simSender) recovery(a *Ack) {
	if s.v.InRecovery && s.una >= s.point {
		s.v.InRecovery, s.timedOut = false, false
		if !s.cc.OwnWindow() && s.c.Cwnd < s.c.Ssthresh {
			s.c.Cwnd = s.c.Ssthresh
		}
		s.cc.Recovered(&s.v, &s.c)
	}
	if !s.v.InRecovery && s.missing > 0 {
		s.recoveries++
		s.point = len(s.got)
		s.prrDelivered, s.prrOut, s.recoverFS = 0, 0, s.v.PriorFlight
		s.cc.Congested(&s.v, Loss, &s.c)
		s.v.InRecovery = true
	}
}

// prr is RFC 9937, 6.
func (s *simSender) prr(a *Ack) {
	if !s.v.InRecovery || s.timedOut || s.cc.OwnWindow() {
		return
	}
	s.prrDelivered += a.Delivered
	n := (s.prrDelivered*s.c.Ssthresh+s.recoverFS-1)/s.recoverFS - s.prrOut
	if s.v.Flight <= s.c.Ssthresh {
		n = min(s.c.Ssthresh-s.v.Flight, max(s.prrDelivered-s.prrOut, a.Delivered)+simMSS)
	}
	if s.prrOut == 0 {
		n = max(n, simMSS)
	}
	s.c.Cwnd = s.v.Flight + max(n, 0)
}

func (s *simSender) timeout() {
	s.rtos++
	s.backoff = min(s.backoff+1, 6)
	s.timer = s.v.Now
	for i := s.head; i < len(s.packets); i++ {
		if p := &s.packets[i]; !p.done {
			p.done = true
			s.v.Lost += simMSS
			s.missing -= p.again
			s.rexmt = append(s.rexmt, p.seq)
			s.missing++
		}
	}
	s.head = len(s.packets)
	s.v.Flight = 0
	if s.timedOut {
		return
	}
	s.cc.Congested(&s.v, RTO, &s.c)
	if !s.cc.OwnWindow() {
		s.c.Cwnd = simMSS
	}
	s.v.InRecovery, s.timedOut = true, true
	s.point = len(s.got)
}

// simRun lets senders send until a time.
func simRun(until int64, senders ...*simSender) {
	for {
		var first *simSender
		at := until
		for _, s := range senders {
			if t := s.event(); t < at {
				first, at = s, t
			}
		}
		if first == nil {
			return
		}
		first.step(at)
	}
}

// A watch calls a function after each acknowledgment.
type watch struct {
	CC
	acked func(v *View, a *Ack, c *Control)
}

func (w *watch) Acked(v *View, a *Ack, c *Control) {
	w.CC.Acked(v, a, c)
	w.acked(v, a, c)
}

const simRate = 100_000_000 / 8

// newSimPath returns a path of 100 Mbit/s with a queue in bandwidth-delay products.
func newSimPath(rtt int64, queue, loss float64) *simPath {
	bdp := float64(simRate * rtt / sec)
	return &simPath{rate: simRate, rtt: rtt, queue: max(int(queue*bdp), 5*simMSS), loss: loss,
		rng: rand.New(rand.NewPCG(1, 0))}
}

// goodput returns which share of its path's rate a sender has used between two times, in order.
func (s *simSender) goodput(from, until int64) float64 {
	simRun(from, s)
	una := s.una
	simRun(until, s)
	return float64((s.una-una)*simMSS) * 1e9 / float64(s.path.rate*(until-from))
}

// Each controller on paths of 100 Mbit/s: at least so much of the rate.
func TestCCGoodput(t *testing.T) {
	if testutil.Race {
		t.Skip("nothing runs at the same time here, and it takes ten times as long")
	}
	type queues = map[float64][]float64 // by queue: for losses of 0, 0.1, 1, 5 and 10 %
	losses := []float64{0, 0.001, 0.01, 0.05, 0.1}
	for cc, paths := range map[string]map[int64]queues{
		"bbr": {
			ms:       {0.1: {.98, .98, .97, .85, .3}, 1: {.98, .98, .98, .85, .3}},
			20 * ms:  {0.1: {.92, .92, .90, .20, .02}, 1: {.97, .97, .94, .20, .02}},
			300 * ms: {0.1: {.85, .85, .80, .01, .005}, 1: {.90, .90, .88, .01, .005}},
		},
		"bbr1": {
			ms:       {0.1: {.98, .98, .98, .95, .90}, 1: {.98, .98, .98, .95, .90}},
			20 * ms:  {0.1: {.95, .95, .95, .90, .85}, 1: {.97, .97, .97, .92, .85}},
			300 * ms: {0.1: {.85, .85, .85, .80, .005}, 1: {.90, .90, .90, .80, .005}},
		},
		"cubic": {
			ms:       {0.1: {.95, .95, .90, .40, .05}, 1: {.98, .98, .90, .40, .05}},
			20 * ms:  {0.1: {.90}, 1: {.98}},
			300 * ms: {0.1: {.85}, 1: {.95}},
		},
		"newreno": {
			ms:       {0.1: {.90, .90, .75, .20, .03}, 1: {.95, .95, .80, .20, .03}},
			20 * ms:  {0.1: {.70}, 1: {.95}},
			300 * ms: {0.1: {.70}, 1: {.95}},
		},
	} {
		for rtt, queues := range paths {
			for queue, want := range queues {
				for i, want := range want {
					s := newSimSender(newSimPath(rtt, queue, losses[i]), NewCC(cc), 0)
					d := max(4*sec, 100*rtt)
					if got := s.goodput(d/4, d); got < want {
						t.Errorf("%s, %d ms, queue %v, loss %v %%: %.3f of the rate, want %v",
							cc, rtt/ms, queue, losses[i]*100, got, want)
					}
				}
			}
		}
	}
}

// If losses are at random, Reno's window is sqrt(3/2p) segments on average ("The Macroscopic
// Behavior of the TCP Congestion Avoidance Algorithm", CCR 27, 3, 1997), and CUBIC is in its
// Reno-friendly region.
func TestRenoResponse(t *testing.T) {
	if testutil.Race {
		t.Skip("nothing runs at the same time here, and it takes ten times as long")
	}
	for _, cc := range []string{"newreno", "cubic"} {
		for _, p := range []float64{0.001, 0.003, 0.01} {
			s := newSimSender(newSimPath(20*ms, 1, p), NewCC(cc), 0)
			got := s.goodput(5*sec, 65*sec) * simRate * 0.02 / simMSS
			if want := math.Sqrt(1.5 / p); got < 0.7*want || got > 1.5*want {
				t.Errorf("%s, loss %v %%: %.1f segments in flight, want %.1f", cc, p*100, got, want)
			}
		}
	}
}

// jain is the index of fairness of the goodput of two senders, of which one comes 3 s late, over a
// long time.
func jain(t *testing.T, first, second string, queue float64) float64 {
	p := newSimPath(20*ms, queue, 0)
	a, b := newSimSender(p, NewCC(first), 0), newSimSender(p, NewCC(second), 3*sec)
	simRun(15*sec, a, b)
	ua, ub := a.una, b.una
	simRun(60*sec, a, b)
	x, y := float64(a.una-ua), float64(b.una-ub)
	t.Logf("%s and %s, queue of %v: %.0f and %.0f segments", first, second, queue, x, y)
	return (x + y) * (x + y) / 2 / (x*x + y*y)
}

func TestCCFairness(t *testing.T) {
	if testutil.Race {
		t.Skip("nothing runs at the same time here, and it takes ten times as long")
	}
	for _, test := range []struct {
		a, b  string
		queue float64
		want  float64
	}{
		{"cubic", "cubic", 1, 0.9},
		{"newreno", "newreno", 1, 0.9},
		{"cubic", "newreno", 1, 0.9},
		{"bbr", "bbr", 1, 0.9},
		{"bbr", "cubic", 4, 0.8},
	} {
		if got := jain(t, test.a, test.b, test.queue); got < test.want {
			t.Errorf("fairness %.2f, want %v", got, test.want)
		}
	}
}

// Acknowledgments that arrive in batches, as from a receiver that merges segments, do not slow a
// sender down.
func TestCCBatches(t *testing.T) {
	for _, cc := range CCNames() {
		for _, batch := range []int64{ms, 5 * ms} {
			s := newSimSender(newSimPath(20*ms, 1, 0), NewCC(cc), 0)
			s.batch = batch
			if got := s.goodput(2*sec, 6*sec); got < 0.95 {
				t.Errorf("%s, batches of %d ms: %.3f of the rate", cc, batch/ms, got)
			}
		}
	}
}

// A timer that fires every millisecond only does not, either: then the window holds a sender back
// at few acknowledgments.
func TestCCTicks(t *testing.T) {
	for _, cc := range CCNames() {
		s := newSimSender(newSimPath(20*ms, 1, 0), NewCC(cc), 0)
		s.tick = ms
		if got := s.goodput(2*sec, 6*sec); got < 0.95 {
			t.Errorf("%s: %.3f of the rate", cc, got)
		}
		s = newSimSender(newSimPath(20*ms, 1, 0), NewCC(cc), 0)
		s.tick = ms
		if got := s.goodput(0, sec); got < 0.8 {
			t.Errorf("%s: %.3f of the rate in the first second", cc, got)
		}
	}
}

// A sender goes on after a pause of its application, without a loss: the window has not grown
// beyond what the path holds.
func TestCCPause(t *testing.T) {
	for _, cc := range CCNames() {
		s := newSimSender(newSimPath(20*ms, 4, 0), NewCC(cc), 0)
		s.pause, s.resume = 2*sec, 4*sec
		simRun(4*sec, s)
		lost := s.v.Lost
		if got := s.goodput(4*sec, 5*sec); got < 0.7 {
			t.Errorf("%s: %.3f of the rate in the second after a pause", cc, got)
		}
		if s.v.Lost != lost {
			t.Errorf("%s: %d bytes lost after a pause", cc, s.v.Lost-lost)
		}
	}
}
