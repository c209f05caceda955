package netem

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet/internal/link"
	"bsdnet/internal/link/ends"
)

// worst is every impairment at once.
var worst = Impairment{
	Loss:      0.05,
	Burst:     &BurstLoss{PEnter: 0.05, PLeave: 0.3},
	Duplicate: 0.1,
	Corrupt:   0.1,
	Reorder:   0.1,
	Delay:     3 * time.Millisecond,
	Jitter:    2 * time.Millisecond,
	Rate:      20e6,
	Queue:     20000,
}

// storm makes flows, each in its own goroutine, write at the same instants from both ends, in the
// order that the goroutine scheduler chooses. It returns what arrives at both ends.
func storm(t *testing.T, flows int, mk func() (a, b link.Link)) (trace [2][]arrival) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		x, y := mk()
		both := [2]*ends.End{ends.Start(t, x), ends.Start(t, y)}
		start := time.Now()
		var recorded [2]func() []arrival
		var wg sync.WaitGroup
		for i, e := range both {
			recorded[i] = record(e, start)
			for f := range flows {
				wg.Go(func() {
					for n := 0; n < 120; n += 3 {
						if err := e.Send(net.Buffers{ends.Packet(f, n, 100+10*f)}); err != nil {
							t.Error(err)
						}
						if f%2 == 1 {
							time.Sleep(1 * time.Nanosecond) // into the instant in which the scheduler sorts the others
						}
						e.Send(net.Buffers{ends.Packet(f, n+1, 1000)}, net.Buffers{ends.Packet(f, n+2, 40)})
						time.Sleep(time.Millisecond - time.Duration(f%2))
					}
				})
			}
		}
		wg.Wait()
		time.Sleep(time.Minute)
		ends.Close(t, both[0], both[1])
		trace = [2][]arrival{recorded[0](), recorded[1]()}
	})
	return trace
}

func sameArrival(a, b arrival) bool { return a.at == b.at && bytes.Equal(a.data, b.data) }

func sameTrace(a, b [2][]arrival) error {
	for i := range a {
		for j := range min(len(a[i]), len(b[i])) {
			x, y := a[i][j], b[i][j]
			if !sameArrival(x, y) {
				return fmt.Errorf("end %d, packet %d: packet %d of flow %d at %v, then packet %d of flow %d at %v",
					i, j, ends.Number(x.data), ends.Flow(x.data), x.at, ends.Number(y.data), ends.Flow(y.data), y.at)
			}
		}
		if len(a[i]) != len(b[i]) {
			return fmt.Errorf("end %d: %d packets, then %d", i, len(a[i]), len(b[i]))
		}
	}
	return nil
}

// Packets have the same fate at the same times in every run.
func TestDeterminism(t *testing.T) {
	// The limit is below the number of packets that come at one instant. Few of them are still
	// under way when the next instant's come.
	small := worst
	small.Rate, small.Queue, small.Limit = 0, 0, 20
	small.Delay, small.Jitter = 100*time.Microsecond, time.Millisecond
	impaired := func(imp Impairment, seed uint64) func() (a, b link.Link) {
		return func() (a, b link.Link) {
			x, y := mustPipe(PipeConfig{})
			return mustImpair(x, Path{Write: imp, Read: imp, Seed: seed}), y
		}
	}
	for _, c := range []struct {
		name   string
		lossy  bool
		mk     func() (a, b link.Link)
		reseed func() (a, b link.Link)
	}{
		{"Pipe", false, func() (a, b link.Link) { return mustPipe(PipeConfig{Delay: 2 * time.Millisecond}) }, nil},
		{"Zero", false, impaired(Impairment{}, 0), nil},
		{"Worst", true, impaired(worst, 1), impaired(worst, 2)},
		{"Limit", true, impaired(small, 1), impaired(small, 2)},
		{"BothEnds", true, func() (a, b link.Link) {
			x, y := mustPipe(PipeConfig{Delay: time.Millisecond})
			return mustImpair(x, Path{Write: worst, Seed: 3}), mustImpair(y, Path{Write: worst, Seed: 4})
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			const flows, sent = 12, 12 * 120
			first := storm(t, flows, c.mk)
			for i, got := range first {
				if !c.lossy && len(got) != sent || c.lossy && (len(got) < sent/20 || len(got) > sent*12/10) {
					t.Errorf("%d packets of %d arrive at end %d", len(got), sent, i)
				}
			}
			for range 4 {
				if err := sameTrace(first, storm(t, flows, c.mk)); err != nil {
					t.Fatalf("seed 1: the runs differ: %v", err)
				}
			}
			if c.reseed != nil {
				other := storm(t, flows, c.reseed)
				for i := range other {
					if slices.EqualFunc(first[i], other[i], sameArrival) {
						t.Errorf("seeds 1 and 2 give the same run at end %d", i)
					}
				}
			}
			if c.name != "BothEnds" { // which has two schedulers
				checkInstants(t, first)
			}
		})
	}
}

// checkInstants fails if two packets of a trace arrive at one instant.
func checkInstants(t *testing.T, trace [2][]arrival) {
	t.Helper()
	var times []time.Duration
	for _, got := range trace {
		for _, p := range got {
			times = append(times, p.at)
		}
	}
	slices.Sort(times)
	for i := range times[1:] {
		if times[i] == times[i+1] {
			t.Fatalf("two packets arrive at %v", times[i])
		}
	}
}

// If packets come at one instant, the flows leave in order, and each flow in its own order.
func TestOrderWithinInstant(t *testing.T) {
	got := storm(t, 5, func() (a, b link.Link) {
		x, y := mustPipe(PipeConfig{})
		return mustImpair(x, Path{}), y
	})[1]
	// The odd flows send their second and third packets 1 ns later, when one packet has left.
	order := [15][2]int{{0, 0}, {0, 1}, {0, 2}, {1, 0}, {2, 0}, {2, 1}, {2, 2}, {3, 0}, {4, 0}, {4, 1}, {4, 2},
		{1, 1}, {1, 2}, {3, 1}, {3, 2}}
	for i, p := range got {
		round, k := i/15, i%15
		if want := order[k]; ends.Flow(p.data) != want[0] || ends.Number(p.data) != round*3+want[1] {
			t.Fatalf("packet %d of flow %d is number %d in round %d", ends.Number(p.data), ends.Flow(p.data), k, round)
		}
	}
}

// The fate of a flow does not depend on other flows, as long as it shares no queue with them.
func TestFlowsAreIndependent(t *testing.T) {
	imp := worst
	imp.Rate, imp.Queue = 0, 0
	run := func(flows int) []string {
		var got []string
		trace := storm(t, flows, func() (a, b link.Link) {
			x, y := mustPipe(PipeConfig{})
			return mustImpair(x, Path{Write: imp, Seed: 9}), y
		})
		for _, p := range trace[1] {
			// If corruption hits the port, the size still shows the flow.
			if len(p.data) == 100 || ends.Flow(p.data) == 0 && len(p.data) != 110 {
				got = append(got, fmt.Sprintf("%x", p.data))
			}
		}
		return got
	}
	alone, among := run(1), run(2)
	slices.Sort(alone)
	slices.Sort(among)
	i := 0
	for _, p := range among {
		if i < len(alone) && p == alone[i] {
			i++
		}
	}
	if i < len(alone) {
		t.Errorf("seed 9: a packet of a flow alone, %s..., has another fate when there is another flow", alone[i][:64])
	}
}

// A line that was full goes on in the instant after there is room again, whatever else happens in
// that instant.
func TestUnblockWaits(t *testing.T) {
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			var s scheduler
			var full, other line
			var room atomic.Bool
			var left atomic.Int64 // when the packet has left
			start := time.Now()
			full.delay = 1
			full.deliver = func(pkts []*packet) int {
				if !room.Load() {
					return 0
				}
				left.Store(int64(time.Since(start)))
				return len(pkts)
			}
			other.model = newModel(&Impairment{Limit: 1, Loss: 1}, 1)
			s.init(&full, &other)
			s.submit(&full, []*packet{newPacket(40)})
			time.Sleep(99 * time.Nanosecond)
			go func() {
				time.Sleep(1 * time.Nanosecond)
				room.Store(true)
				s.unblock(&full)
			}()
			s.submit(&other, []*packet{newPacket(40)}) // the model sees it 1 ns later
			time.Sleep(99 * time.Nanosecond)
			if left.Load() != 101 { // the next odd instant
				t.Errorf("the packet leaves after %dns; want 101ns", left.Load())
			}
			s.drop(&full, &other)
		})
	}
}
