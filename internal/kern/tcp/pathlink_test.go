package tcp

import (
	"math"
	"testing"
)

// The tests in this file compare the simulation with what can be computed without one.

// Packets that come slower than the bottleneck is arrive after the time to send them and the delay.
func TestPathSimDelay(t *testing.T) {
	l := newPathLink(&pathParams{rate: 12e6, rtt: 40 * ms, queue: 1}, 1)
	for i := range int64(100) {
		now := i * 2 * ms
		if at, ok := l.send(now, 1500, false, true); !ok || at != now+21*ms {
			t.Fatalf("packet %d arrives after %d ns, %v", i, at-now, ok)
		}
	}
	if mean, p95 := l.queueing(); mean != 0 || p95 != 0 {
		t.Errorf("the queue is empty, and data waits for %d and %d ns", mean, p95)
	}
}

// A burst fills the queue: the first packet is sent at once, each of the next waits for those
// before it, and those that find no room are dropped.
func TestPathSimQueue(t *testing.T) {
	path := pathParams{rate: 12e6, rtt: 40 * ms, queue: 0.5} // 30,000 bytes: 20 packets of 1 ms
	l := newPathLink(&path, 1)
	for i := range int64(50) {
		at, ok := l.send(0, 1500, false, true)
		if want := i <= 20; ok != want || ok && at != (21+i)*ms {
			t.Fatalf("packet %d: %d, %v", i, at, ok)
		}
	}
	if l.dropped != 29 {
		t.Errorf("%d packets are dropped, want 29", l.dropped)
	}
	if mean, p95 := l.queueing(); mean != 10*ms || p95 != 19*ms {
		t.Errorf("data waits for %d ns, and %d ns at the 95th percentile; want 10 and 19 ms", mean, p95)
	}
	if at, ok := l.send(5*ms, 1500, false, true); !ok || at != 42*ms {
		t.Errorf("5 packets later there is no room: %d, %v", at, ok)
	}
}

// As many packets are lost and held back as the probabilities say, and a path that loses more loses
// those that another one with its seed loses.
func TestPathSimFate(t *testing.T) {
	const n = 200000
	for seed := range uint64(4) {
		var few, many map[int]bool
		for _, p := range []float64{0.001, 0.1} {
			path := pathParams{rate: 12e6, rtt: 40 * ms, queue: 1, loss: p, reorder: p}
			l := newPathLink(&path, seed)
			lost := map[int]bool{}
			longest, held := int64(0), 0
			for i := range n {
				now := int64(i) * ms
				at, ok := l.send(now, 1500, false, true)
				if !ok {
					lost[i] = true
					continue
				}
				late := at - (now + 21*ms)
				if late < 0 || late >= path.rtt/4 {
					t.Fatalf("seed %d: packet %d is %d ns late", seed, i, late)
				}
				if longest = max(longest, late); late > 0 {
					held++
				}
			}
			deviation := 5 * math.Sqrt(n*p*(1-p))
			if d := math.Abs(float64(l.lost) - n*p); d > deviation || l.lost != len(lost) {
				t.Errorf("seed %d: %d of %d packets are lost at %g", seed, l.lost, n, p)
			}
			if d := math.Abs(float64(held) - n*p*(1-p)); d > deviation || longest < path.rtt/5 {
				t.Errorf("seed %d: %d of %d packets are held back at %g, %d ns at the most", seed, held, n, p, longest)
			}
			few, many = many, lost
		}
		for i := range few {
			if !many[i] {
				t.Errorf("seed %d: packet %d is lost at 0.1 %% and not at 10 %%", seed, i)
			}
		}
	}
}

// transfer simulates one sender with a profile for d, and returns the simulation.
func transfer(t *testing.T, path pathParams, prof *Profile, d int64) *pathNet {
	s := newPathNet(t, path, []*Profile{prof}, []int64{0})
	s.run(d)
	s.done()
	return s
}

// One simulation is like another to the last event.
func TestPathSimRepeats(t *testing.T) {
	path := pathParams{rate: 10e6, rtt: 50 * ms, queue: 0.5, loss: 0.02, reorder: 0.05, seed: 7}
	a, b := transfer(t, path, pathProfile(), 5*sec), transfer(t, path, pathProfile(), 5*sec)
	if a.count != b.count || a.flows[0].receiver.read != b.flows[0].receiver.read || a.there.n != b.there.n {
		t.Errorf("%d events and %d packets, then %d and %d", a.count, a.there.n, b.count, b.there.n)
	}
	path.seed++
	if c := transfer(t, path, pathProfile(), 5*sec); a.count == c.count {
		t.Error("another seed makes no difference")
	}
	if a.there.lost == 0 || a.there.held == 0 || a.back.lost == 0 || a.back.held == 0 {
		t.Errorf("nothing happens on the way: %+v", path)
	}
}

// A sender that cannot fill the path sends a buffer's worth each round trip (RFC 7323, 1.1), and
// one that can sends as much as headers of 52 in 1500 bytes leave.
func TestPathSimThroughput(t *testing.T) {
	prof := pathProfile()
	prof.SendbufAuto, prof.Sendspace = false, 64<<10
	d := 20 * sec
	s := transfer(t, pathParams{rate: 1e9, rtt: 100 * ms, queue: 1}, prof, d)
	got, most := float64(s.flows[0].receiver.read), float64(prof.Sendspace)*float64(d/(100*ms))
	if got > most || got < 0.9*most {
		t.Errorf("with a send buffer of 64 KiB: %.0f bytes, want %.0f", got, most)
	}
	// A queue that takes whatever the send buffer holds.
	s = transfer(t, pathParams{rate: 20e6, rtt: 20 * ms, queue: 10}, prof, d)
	got, most = ofLink(s.flows[0].receiver.read, 20e6, d), 1448.0/1500
	if got > most || got < 0.99*most {
		t.Errorf("without loss %.4f of the link, want %.4f", got, most)
	}
}

// TestGoodputMeasures tests what is computed from simulations.
func TestGoodputMeasures(t *testing.T) {
	for _, c := range []struct {
		x    []float64
		want float64
	}{{[]float64{3, 3, 3}, 1}, {[]float64{0, 5, 0, 0}, 0.25}, {[]float64{1, 3}, 0.8}, {[]float64{0, 0}, 0}} {
		if got := jainIndex(c.x); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("Jain's index of %v is %g, want %g", c.x, got, c.want)
		}
	}
	for x, want := range map[float64]string{0: "0.000", 0.96533: "0.965", 0.1: "0.100", 0.01234: "0.012",
		0.00098: "0.00098"} {
		if got := digits(x); got != want {
			t.Errorf("%g is printed %s, want %s", x, got, want)
		}
	}

	// Two flows: the first has the link until the second begins, then both have nothing for a
	// second, then the first has two thirds, and at last 59 % of it.
	a, b := &pathFlow{}, &pathFlow{}
	bin := int(shareRate / 8 * pathBin / sec)
	for at := int64(0); at < shareTime; at += pathBin {
		switch {
		case at < shareLate:
			a.bins, b.bins = append(a.bins, bin), append(b.bins, 0)
		case at < shareLate+sec:
			a.bins, b.bins = append(a.bins, 0), append(b.bins, 0)
		case at < shareLate+5*sec:
			a.bins, b.bins = append(a.bins, bin*2/3), append(b.bins, bin/3)
		default:
			a.bins, b.bins = append(a.bins, bin*59/100), append(b.bins, bin*41/100)
		}
	}
	if got := converged([]*pathFlow{a, b}); got != "5.9" { // a second with 1 of 10 bins at two thirds still counts
		t.Errorf("the split is fair after %s s, want 5.9", got)
	}
	if got := converged([]*pathFlow{a, {}}); got != "never" {
		t.Errorf("alone, the split is fair after %s s", got)
	}
}
