package netem

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"math/bits"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet"
	"bsdnet/internal/link/ends"
	"bsdnet/internal/testutil"
	"bsdnet/linktest"
)

func mustImpair(inner bsdnet.Link, config Path) *Impaired {
	im, err := Impair(inner, config)
	if err != nil {
		panic(err)
	}
	return im
}

func TestImpairContract(t *testing.T) {
	shaped := Impairment{
		Delay: 20 * time.Microsecond, Jitter: 10 * time.Microsecond, Rate: 10e9, Queue: 1 << 20, Limit: 1000,
	}
	for _, c := range []struct {
		name    string
		connect func(t testing.TB) (a, b bsdnet.Link)
	}{
		{"Zero", func(t testing.TB) (a, b bsdnet.Link) {
			x, y := mustPipe(PipeConfig{})
			return mustImpair(x, Path{}), y
		}},
		{"Both", func(t testing.TB) (a, b bsdnet.Link) {
			x, y := mustPipe(PipeConfig{Queue: 3})
			return mustImpair(x, Path{Write: shaped, Read: shaped}), mustImpair(y, Path{})
		}},
		{"Nested", func(t testing.TB) (a, b bsdnet.Link) {
			x, y := mustPipe(PipeConfig{Delay: time.Microsecond})
			return x, mustImpair(mustImpair(y, Path{Read: shaped}), Path{Write: shaped})
		}},
	} {
		t.Run(c.name, func(t *testing.T) { linktest.Test(t, linktest.Config{Connect: c.connect}) })
		t.Run(c.name+"InBubble", func(t *testing.T) {
			linktest.Test(t, linktest.Config{Connect: c.connect, Bubble: true})
		})
	}
}

func TestPath(t *testing.T) {
	for _, c := range []struct {
		imp  Impairment
		want string
	}{
		{Impairment{Loss: -0.1}, "Loss: -0.1 "},
		{Impairment{Duplicate: 1.1}, "Duplicate: 1.1 "},
		{Impairment{Corrupt: math.NaN()}, "Corrupt: NaN "},
		{Impairment{Reorder: math.Inf(1)}, "Reorder: +Inf "},
		{Impairment{ReorderDelay: -1}, "ReorderDelay: -1ns "},
		{Impairment{Delay: -time.Second}, "Delay: -1s "},
		{Impairment{Jitter: 25 * time.Hour}, "Jitter: 25h0m0s "},
		{Impairment{Burst: &BurstLoss{PEnter: 2}}, "Burst.PEnter: 2 "},
		{Impairment{Burst: &BurstLoss{PLeave: -1}}, "Burst.PLeave: -1 "},
		{Impairment{Burst: &BurstLoss{LossInBad: 7}}, "Burst.LossInBad: 7 "},
		{Impairment{Burst: &BurstLoss{PEnter: 0.1}}, "Burst.PLeave: 0, "},
		{Impairment{Rate: 999}, "Rate: 999 "},
		{Impairment{Rate: -1}, "Rate: -1 "},
		{Impairment{Queue: 5000}, "Queue: needs a Rate"},
		{Impairment{Rate: 1000, Queue: 1499}, "Queue: 1499 "},
		{Impairment{Rate: 1000, Queue: 1<<30 + 1}, "Queue: 1073741825 "},
		{Impairment{Limit: -1}, "Limit: -1 "},
		{Impairment{Limit: 1<<20 + 1}, "Limit: 1048577 "},
	} {
		x, _ := mustPipe(PipeConfig{})
		for _, dir := range []string{"Write.", "Read."} {
			config := Path{Write: c.imp}
			if dir == "Read." {
				config = Path{Read: c.imp}
			}
			if _, err := Impair(x, config); err == nil || !strings.Contains(err.Error(), dir+c.want) {
				t.Errorf("%s%+v: %v; want an error with %q", dir, c.imp, err, dir+c.want)
			}
		}
	}
	for _, c := range []struct {
		rate int64
		want int
	}{{1000, 3000}, {8e6, 100e3}, {math.MaxInt64, 1 << 30}} {
		imp := Impairment{Rate: c.rate}
		if err := imp.complete(1500); err != nil || imp.Queue != c.want {
			t.Errorf("Rate %d: Queue %d, %v; want %d bytes", c.rate, imp.Queue, err, c.want)
		}
	}
	burst := &BurstLoss{PEnter: 0.5, PLeave: 0.5}
	x, _ := mustPipe(PipeConfig{})
	mustImpair(x, Path{Write: Impairment{Burst: burst}})
	if burst.LossInBad != 0 {
		t.Error("Impair modifies the caller's BurstLoss")
	}
}

// Impair(nil) returns an error and no Impaired.
func TestImpairNil(t *testing.T) {
	if im, err := Impair(nil, Path{}); err == nil || im != nil {
		t.Errorf("%v, %v", im, err)
	}
}

// arrival is a packet that has arrived, and when.
type arrival struct {
	at   time.Duration
	data []byte
}

// record reads from l until it is closed. The function that it returns waits for that and returns
// the packets.
func record(l bsdnet.Link, start time.Time) func() []arrival {
	var got []arrival
	done := make(chan struct{})
	go func() {
		defer close(done)
		bufs, sizes := make([][]byte, 4), make([]int, 4)
		for i := range bufs {
			bufs[i] = make([]byte, l.MTU())
		}
		for {
			n, err := l.Read(bufs, sizes)
			if err != nil {
				return
			}
			for i := range n {
				got = append(got, arrival{time.Since(start), bytes.Clone(bufs[i][:sizes[i]])})
			}
		}
	}()
	return func() []arrival {
		<-done
		return got
	}
}

// impairRun is a run of packets through an Impaired in virtual time.
type impairRun struct {
	imp    Impairment
	seed   uint64
	reader bool // impair what is read, not what is written

	flows, packets int           // packets of each flow
	every          time.Duration // between two of a flow; the flows take turns within it
	size           int           // in bytes
}

// do runs r, checks that the counts add up, and returns the packets that have arrived and the
// counts.
func (r impairRun) do(t *testing.T) (got []arrival, counts Counts) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		x, y := mustPipe(PipeConfig{Queue: 1 << 17})
		var a, b bsdnet.Link = x, y
		var im *Impaired
		if r.reader {
			im = mustImpair(y, Path{Read: r.imp, Seed: r.seed})
			b = im
		} else {
			im = mustImpair(x, Path{Write: r.imp, Seed: r.seed})
			a = im
		}
		ends.Start(t, a)
		ends.Start(t, b)
		recorded := record(b, time.Now())
		for i := range r.packets {
			for f := range r.flows {
				if n, err := a.Write([]net.Buffers{{ends.Packet(f, i, r.size)}}); n != 1 || err != nil {
					t.Fatalf("Write: %d, %v", n, err)
				}
				time.Sleep(r.every / time.Duration(r.flows))
			}
		}
		time.Sleep(time.Hour)
		stats := im.Stats()
		ends.Close(t, a, b)
		got = recorded()
		var idle Counts
		counts, idle = stats.Write, stats.Read
		if r.reader {
			counts, idle = idle, counts
		}
		if idle != (Counts{}) {
			t.Errorf("the other direction counts %+v", idle)
		}
	})
	if counts.Packets != uint64(r.flows*r.packets) || counts.Delivered != uint64(len(got)) ||
		counts.Packets+counts.Duplicated != counts.Lost+counts.Dropped+counts.Delivered {
		t.Errorf("seed %d: %d packets sent, %d received, counted %+v", r.seed, r.flows*r.packets, len(got), counts)
	}
	return got, counts
}

// about reports an error if hits is more than 4 standard deviations from the expected p*n.
func about(t *testing.T, seed uint64, what string, hits uint64, n int, p float64) {
	t.Helper()
	mean, dev := p*float64(n), math.Sqrt(p*(1-p)*float64(n))
	if math.Abs(float64(hits)-mean) > 4*dev {
		t.Errorf("seed %d: %d of %d packets %s; want %.0f, give or take %.0f", seed, hits, n, what, mean, 4*dev)
	}
}

func TestImpairLoss(t *testing.T) {
	var runs [2][]arrival
	for _, reader := range []bool{false, true} {
		r := impairRun{
			imp: Impairment{Loss: 0.1}, seed: 1, reader: reader,
			flows: 4, packets: 2500, every: time.Millisecond, size: 40,
		}
		got, counts := r.do(t)
		about(t, r.seed, "lost", counts.Lost, 10000, 0.1)
		var perFlow [4]uint64
		for _, p := range got {
			perFlow[ends.Flow(p.data)]++
		}
		if reader {
			runs[1] = got
		} else {
			runs[0] = got
		}
		for f, n := range perFlow {
			about(t, r.seed, "of flow "+string('0'+rune(f))+" left", n, 2500, 0.9)
		}
	}
	if slices.EqualFunc(runs[0], runs[1], sameArrival) {
		t.Error("seed 1: both directions lose the same packets of a flow")
	}
	r := impairRun{imp: Impairment{Loss: 1}, flows: 1, packets: 100, every: time.Millisecond, size: 40}
	if got, _ := r.do(t); len(got) > 0 {
		t.Errorf("%d packets survive a loss of 1", len(got))
	}
}

func TestImpairDuplicate(t *testing.T) {
	r := impairRun{imp: Impairment{Duplicate: 0.2, Delay: time.Millisecond}, seed: 2, flows: 3, packets: 2000,
		every: time.Millisecond, size: 40}
	got, counts := r.do(t)
	about(t, r.seed, "duplicated", counts.Duplicated, 6000, 0.2)
	twice := uint64(0)
	for i, p := range got[1:] {
		if bytes.Equal(got[i].data, p.data) {
			twice++
			if p.at != got[i].at+2 {
				t.Fatalf("seed %d: the copy comes %v after the packet; want 2ns", r.seed, p.at-got[i].at)
			}
		}
	}
	if twice != counts.Duplicated {
		t.Errorf("seed %d: %d copies come right behind their packets; want %d", r.seed, twice, counts.Duplicated)
	}
}

func TestImpairCorrupt(t *testing.T) {
	const size = 40
	r := impairRun{
		imp: Impairment{Corrupt: 0.3}, seed: 3, flows: 1, packets: 10000, every: time.Millisecond, size: size,
	}
	got, counts := r.do(t)
	about(t, r.seed, "corrupted", counts.Corrupted, 10000, 0.3)
	corrupted := uint64(0)
	var flips [size]int
	for i, p := range got {
		flipped := 0
		for j, b := range ends.Packet(0, i, size) {
			n := bits.OnesCount8(b ^ p.data[j])
			flips[j] += n
			flipped += n
		}
		if flipped > 1 {
			t.Fatalf("seed %d: %d bits of packet %d are flipped", r.seed, flipped, i)
		}
		corrupted += uint64(flipped)
	}
	if corrupted != counts.Corrupted {
		t.Errorf("seed %d: %d packets arrive corrupted; want %d", r.seed, corrupted, counts.Corrupted)
	}
	for j, n := range flips {
		about(t, r.seed, fmt.Sprintf("corrupted at byte %d", j), uint64(n), int(corrupted), 1.0/size)
	}
}

// A reordered packet is overtaken by packets that are sent within ReorderDelay. The other packets
// arrive on time.
func TestImpairReorder(t *testing.T) {
	r := impairRun{imp: Impairment{Reorder: 0.05, ReorderDelay: 2500 * time.Microsecond, Delay: 10 * time.Millisecond},
		seed: 4, flows: 1, packets: 5000, every: time.Millisecond, size: 40}
	got, counts := r.do(t)
	about(t, r.seed, "reordered", counts.Reordered, 5000, 0.05)
	late, overtaken, top := uint64(0), uint64(0), 0
	for _, p := range got {
		n := ends.Number(p.data)
		switch p.at - 1 - time.Duration(n)*r.every { // packets leave at odd instants
		case r.imp.Delay:
		case r.imp.Delay + r.imp.ReorderDelay:
			late++
		default:
			t.Fatalf("seed %d: packet %d takes %v", r.seed, n, p.at-time.Duration(n)*r.every)
		}
		if n < top {
			overtaken++
		}
		top = max(top, n)
	}
	// A held-back packet is not overtaken by the next two if they are held back too.
	if late != counts.Reordered || overtaken > late || overtaken < late*9/10 {
		t.Errorf("seed %d: %d packets are late and %d overtaken; want %d", r.seed, late, overtaken, counts.Reordered)
	}
}

// Jitter is uniform if packets are far apart, and keeps them in order if they are not.
func TestImpairJitter(t *testing.T) {
	imp := Impairment{Delay: 10 * time.Millisecond, Jitter: 8 * time.Millisecond}
	r := impairRun{imp: imp, seed: 5, flows: 1, packets: 4000, every: 20 * time.Millisecond, size: 40}
	got, _ := r.do(t)
	var eighths [8]uint64
	for i, p := range got {
		extra := p.at - time.Duration(i)*r.every - imp.Delay
		if ends.Number(p.data) != i || extra < 0 || extra > imp.Jitter {
			t.Fatalf("seed %d: packet %d arrives as %d, with %v more than Delay", r.seed, i, ends.Number(p.data), extra)
		}
		eighths[min(extra/time.Millisecond, 7)]++
	}
	for i, n := range eighths {
		about(t, r.seed, "with a jitter of "+time.Duration(i*1e6).String(), n, 4000, 1.0/8)
	}
	r.every, r.flows, r.packets = time.Millisecond, 2, 1000
	got, _ = r.do(t)
	next, overtaken := [2]int{}, 0
	for i, p := range got {
		f := ends.Flow(p.data)
		if ends.Number(p.data) != next[f] {
			t.Fatalf("seed %d: packet %d of flow %d arrives as %d", r.seed, next[f], f, ends.Number(p.data))
		}
		next[f]++
		if i > 0 && p.at <= got[i-1].at {
			t.Fatalf("seed %d: two packets arrive at %v", r.seed, p.at)
		}
		if next[f] < next[1-f] {
			overtaken++
		}
	}
	if overtaken == 0 {
		t.Errorf("seed %d: no flow ever overtakes the other", r.seed)
	}
}

// The share of lost packets is PEnter/(PEnter+PLeave) and the average burst is 1/PLeave long, as
// the model says.
func TestImpairBurst(t *testing.T) {
	r := impairRun{imp: Impairment{Burst: &BurstLoss{PEnter: 0.02, PLeave: 0.25}}, seed: 6, flows: 2, packets: 20000,
		every: time.Millisecond, size: 40}
	got, counts := r.do(t)
	share := float64(counts.Lost) / 40000
	// About 740 bursts: the share's standard deviation is a twentieth of it.
	if want := 0.02 / 0.27; math.Abs(share-want) > 0.2*want {
		t.Errorf("seed %d: %.4f of the packets are lost; want %.4f", r.seed, share, want)
	}
	bursts := 0
	var next [2]int
	for _, p := range got {
		f, n := ends.Flow(p.data), ends.Number(p.data)
		if n > next[f] {
			bursts++
		}
		next[f] = n + 1
	}
	if mean := float64(counts.Lost) / float64(bursts); math.Abs(mean-4) > 0.4 {
		t.Errorf("seed %d: a burst loses %.2f packets; want 4", r.seed, mean)
	}
	r.imp.Burst.LossInBad = 0.5
	if _, half := r.do(t); math.Abs(float64(half.Lost)/float64(counts.Lost)-0.5) > 0.05 {
		t.Errorf("seed %d: %d packets are lost with LossInBad 0.5, %d with 1", r.seed, half.Lost, counts.Lost)
	}
}

// A line keeps its rate to two nanoseconds, whether or not a packet takes a whole number of them,
// and its queue holds as many bytes as configured.
func TestImpairRate(t *testing.T) {
	for _, rate := range []int64{10e6, 9999991, 3e9, 64e3} {
		const size, n = 1000, 1000
		queue := size * n / 2
		synctest.Test(t, func(t *testing.T) {
			x, y := mustPipe(PipeConfig{})
			im := mustImpair(x, Path{Write: Impairment{Rate: rate, Queue: queue, Delay: time.Second}})
			a, b := ends.Start(t, im), ends.Start(t, y)
			start := time.Now()
			recorded := record(b, start)
			for i := range n {
				if err := a.Send(net.Buffers{ends.Packet(0, i, size)}); err != nil {
					t.Error(err)
				}
			}
			time.Sleep(time.Hour)
			if counts := im.Stats().Write; counts.Dropped != n/2 || counts.Delivered != n/2 {
				t.Errorf("rate %d: counted %+v; want the half of %d dropped", rate, counts, n)
			}
			// The line does not make up for idle time.
			again := time.Since(start)
			a.Send(net.Buffers{ends.Packet(0, n, size)}, net.Buffers{ends.Packet(0, n+1, size)})
			time.Sleep(time.Hour)
			ends.Close(t, a, b)
			got := recorded()
			if len(got) != n/2+2 {
				t.Fatalf("rate %d: %d packets arrive; want %d", rate, len(got), n/2+2)
			}
			for i, p := range got {
				sent, k := time.Duration(0), i
				if i >= n/2 {
					sent, k = again, i-n/2
				}
				want := sent + time.Second + time.Duration(int64(k+1)*size*8*1e9/rate)
				want |= 1 // packets leave at odd instants
				if p.at != want {
					t.Fatalf("rate %d: packet %d arrives after %v; want %v", rate, i, p.at, want)
				}
			}
		})
	}
}

// The number of packets on their way is bounded, also if the wrapped link or the reader takes none.
func TestImpairLimit(t *testing.T) {
	r := impairRun{
		imp: Impairment{Delay: time.Minute, Limit: 100}, flows: 1, packets: 1000, every: time.Millisecond, size: 40,
	}
	if got, counts := r.do(t); len(got) != 100 || counts.Dropped != 900 {
		t.Errorf("%d packets arrive, %d are dropped; want 100 and 900", len(got), counts.Dropped)
	}
	r.imp.Delay, r.imp.Duplicate = time.Millisecond/2, 1
	if got, _ := r.do(t); len(got) != 2000 {
		t.Errorf("%d packets arrive below the limit; want 2000", len(got))
	}
	r.every, r.imp.Limit = 0, 101
	if got, counts := r.do(t); len(got) != 101 || counts.Packets != 1000 {
		t.Errorf("%d packets of one instant arrive; want 101", len(got))
	}

	for _, reader := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			x, y := mustPipe(PipeConfig{Queue: 10})
			var links [2]bsdnet.Link
			var im *Impaired
			behind := 10
			if reader {
				im = mustImpair(y, Path{Read: Impairment{Limit: 20}})
				links = [2]bsdnet.Link{x, im}
				behind = im.rx.limit
			} else {
				im = mustImpair(x, Path{Write: Impairment{Limit: 20}})
				links = [2]bsdnet.Link{im, y}
			}
			a, b := ends.Start(t, links[0]), ends.Start(t, links[1])
			defer ends.Close(t, a, b)
			sent := behind + 20 + 30
			for i := range sent {
				a.Send(net.Buffers{ends.Packet(0, i, 40)})
				time.Sleep(time.Millisecond)
			}
			stats := im.Stats()
			if counts := stats.Write; !reader && (counts.Delivered != 10 || counts.Dropped != 30) {
				t.Errorf("the link is full: counted %+v; want 10 delivered and 30 dropped", counts)
			}
			if counts := stats.Read; reader && (counts.Delivered != uint64(behind) || counts.Dropped != 30) {
				t.Errorf("nobody reads: counted %+v; want %d delivered and 30 dropped", counts, behind)
			}
			for i, p := range b.Receive(t, behind+20) {
				if ends.Number(p) != i {
					t.Fatalf("packet %d arrives as %d", i, ends.Number(p))
				}
			}
		})
	}
}

func TestImpairAllocs(t *testing.T) {
	if testutil.Race {
		t.Skip("the race detector makes pools forget")
	}
	x, y := mustPipe(PipeConfig{})
	imp := Impairment{Duplicate: 1e-9, Corrupt: 1e-9, Rate: 1e12, Jitter: 1}
	testAllocs(t, mustImpair(x, Path{Write: imp}), mustImpair(y, Path{Read: imp}))
}

// A queueLink has n queues on cables, and records which methods are called.
type queueLink struct {
	bsdnet.Link // queue 0
	n           int
	mu          sync.Mutex
	used        map[string]bool
}

func (l *queueLink) note(method string) {
	l.mu.Lock()
	l.used[method] = true
	l.mu.Unlock()
}

func (l *queueLink) Read(bufs [][]byte, sizes []int) (int, error) {
	l.note("Read")
	return l.Link.Read(bufs, sizes)
}

func (l *queueLink) Write(pkts []net.Buffers) (int, error) {
	l.note("Write")
	return l.Link.Write(pkts)
}

func (l *queueLink) Queues() int { return l.n }

func (l *queueLink) ReadQueue(q int, bufs [][]byte, sizes []int) (int, error) {
	l.note("ReadQueue")
	return l.Link.Read(bufs, sizes)
}

func (l *queueLink) WriteQueue(q int, pkts []net.Buffers) (int, error) {
	l.note("WriteQueue")
	return l.Link.Write(pkts)
}

// If a link has one queue, only Read and Write are called; if it has several, neither is.
func TestImpairQueues(t *testing.T) {
	for n, want := range map[int][]string{1: {"Read", "Write"}, 3: {"ReadQueue", "WriteQueue"}} {
		synctest.Test(t, func(t *testing.T) {
			x, y := mustPipe(PipeConfig{})
			l := &queueLink{Link: x, n: n, used: map[string]bool{}}
			im := mustImpair(l, Path{})
			e, far := ends.Start(t, im), ends.Start(t, y)
			if err := e.Send(net.Buffers{ends.Packet(1, 0, 100)}); err != nil {
				t.Fatal(err)
			}
			far.Receive(t, 1)
			ends.Close(t, im, y)
			if got := slices.Sorted(maps.Keys(l.used)); !slices.Equal(got, want) {
				t.Errorf("of %d queues %v are called, want %v", n, got, want)
			}
		})
	}
}
