package linktest

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"bsdnet"
	"bsdnet/internal/link"
	"bsdnet/internal/link/ends"
)

// contract has the requirements of bsdnet.Link. Each test gets a function that makes the two ends
// of a new path, which are not started.
var contract = []struct {
	name string
	test func(t *testing.T, connect connect)
}{
	{"Order", contractOrder},
	{"Batch", contractBatch},
	{"Size", contractSize},
	{full, contractFull},
	{"Lent", contractLent},
	{"Concurrent", contractConcurrent},
	{"Start", contractStart},
	{"Close", contractClose},
	{"CloseRace", contractCloseRace},
	{"Leak", contractLeak},
}

// full is the name of the test that a lossy path cannot pass.
const full = "Full"

// minMTU is the smallest MTU with which the tests work, in bytes.
const minMTU = 1000

// connect is Config.Connect.
type connect func(t testing.TB) (a, b bsdnet.Link)

func (c connect) start(t *testing.T) (a, b *ends.End) {
	t.Helper()
	x, y := c(t)
	if mtu := x.MTU(); mtu < minMTU {
		t.Fatalf("the MTU is %d; the tests need a path of %d", mtu, minMTU)
	}
	return ends.Start(t, x), ends.Start(t, y)
}

func contractOrder(t *testing.T, connect connect) {
	a, b := connect.start(t)
	defer ends.Close(t, a, b)
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, packet := range families {
		inOrder(t, rnd, a, b, packet)
		inOrder(t, rnd, b, a, packet)
	}
}

// families make packets of the two families, of minPacket bytes or more.
var families = [...]func(flow, number, size int) []byte{ends.Packet, ends.Packet6}

const minPacket = 52

// inOrder sends packets of one flow from one end to the other.
func inOrder(t *testing.T, rnd *rand.Rand, from, to *ends.End, packet func(flow, number, size int) []byte) {
	t.Helper()
	const n = 300
	var want [][]byte
	var lists []net.Buffers
	for i := range n {
		p := packet(1, i, minPacket+rnd.IntN(from.MTU()-minPacket+1))
		want = append(want, p)
		x, y := rnd.IntN(len(p)+1), rnd.IntN(len(p)+1)
		lists = append(lists, net.Buffers{p[:min(x, y)], nil, p[min(x, y):max(x, y)], p[max(x, y):]})
	}
	sent := make(chan error, 1)
	go func() { sent <- from.Send(lists...) }()
	for i, p := range to.Receive(t, n) {
		if !bytes.Equal(p, want[i]) {
			t.Fatalf("packet %d arrives as %d, %d bytes long instead of %d",
				i, ends.Number(p), len(p), len(want[i]))
		}
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
}

func contractBatch(t *testing.T, connect connect) {
	a, b := connect.start(t)
	defer ends.Close(t, a, b)
	var lists []net.Buffers
	for i := range 10 {
		lists = append(lists, net.Buffers{ends.Packet(1, i, 60)})
	}
	if n, err := a.Write(nil); n != 0 || err != nil {
		t.Errorf("Write of nothing: %d, %v", n, err)
	}
	if n, err := b.Read(nil, nil); n != 0 || err != nil {
		t.Errorf("Read into nothing: %d, %v", n, err)
	}
	go func() {
		if err := a.Send(lists...); err != nil {
			t.Error(err)
		}
	}()
	bufs, sizes := make([][]byte, 4), make([]int, 3)
	for i := range bufs {
		bufs[i] = make([]byte, b.MTU())
	}
	for got := 0; got < 10; {
		n, err := b.Read(bufs, sizes)
		if err != nil || n < 1 || n > len(sizes) {
			t.Fatalf("Read of up to %d packets: %d, %v", len(sizes), n, err)
		}
		for i := range n {
			if sizes[i] != 60 || ends.Number(bufs[i]) != got {
				t.Fatalf("packet %d arrives as %d, %d bytes long", got, ends.Number(bufs[i]), sizes[i])
			}
			got++
		}
	}
}

func contractSize(t *testing.T, connect connect) {
	a, b := connect.start(t)
	defer ends.Close(t, a, b)
	mtu := a.MTU()
	if mtu < link.MinMTU || mtu != b.MTU() || mtu != a.MTU() {
		t.Fatalf("MTU %d, %d at the other end", mtu, b.MTU())
	}
	for _, packet := range families {
		ofSize(t, a, b, packet)
	}
}

// ofSize sends packets of which some do not fit.
func ofSize(t *testing.T, a, b *ends.End, packet func(flow, number, size int) []byte) {
	t.Helper()
	mtu := a.MTU()
	half := packet(1, 0, mtu)[:mtu/2+1]
	go func() {
		if err := a.Send(
			net.Buffers{half, half}, net.Buffers{}, net.Buffers{nil, nil}, net.Buffers{packet(1, 1, mtu)},
			net.Buffers{packet(1, 2, 61)}, net.Buffers{packet(1, 3, 60)},
		); err != nil {
			t.Error(err)
		}
	}()
	large, small, sizes := [][]byte{make([]byte, 2*mtu)}, [][]byte{make([]byte, 60)}, make([]int, 1)
	if n, err := b.Read(large, sizes); n != 1 || err != nil || sizes[0] != mtu || ends.Number(large[0]) != 1 {
		t.Errorf("Read: %d, %v, %d bytes of packet %d; want packet 1 of the MTU",
			n, err, sizes[0], ends.Number(large[0]))
	}
	if n, err := b.Read(small, sizes); n != 1 || err != nil || sizes[0] != 60 || ends.Number(small[0]) != 3 {
		t.Errorf("Read into 60 bytes: %d, %v, %d bytes of packet %d; want packet 3",
			n, err, sizes[0], ends.Number(small[0]))
	}
}

// contractWrite calls Write. withinWrite looks for its name on the goroutine's stack.
//
//go:noinline
func contractWrite(l bsdnet.Link, pkts []net.Buffers) (int, error) { return l.Write(pkts) }

func withinWrite() bool {
	pc := make([]uintptr, 64)
	frames := runtime.CallersFrames(pc[:runtime.Callers(1, pc)])
	for {
		f, more := frames.Next()
		if strings.HasSuffix(f.Function, ".contractWrite") {
			return true
		}
		if !more {
			return false
		}
	}
}

func contractFull(t *testing.T, connect connect) {
	a, y := connect(t)
	ready := make(chan struct{}, 1)
	if err := a.Start(func() {
		if withinWrite() {
			t.Error("ready is called from within Write")
		}
		// A stack does not write in here. That this Write returns shows that the link holds no
		// lock.
		wrote := make(chan struct{})
		go func() {
			a.Write([]net.Buffers{{}})
			close(wrote)
		}()
		<-wrote
		select {
		case ready <- struct{}{}:
		default:
		}
	}); err != nil {
		t.Fatal(err)
	}
	b := ends.Start(t, y)
	defer ends.Close(t, a, b)
	var lists []net.Buffers
	for i := range 7 {
		lists = append(lists, net.Buffers{ends.Packet(1, i, 40)})
	}
	for range 3 {
		var want []int // the numbers of the packets that were taken
		write := func() (n int) {
			n, err := contractWrite(a, lists)
			if err != nil {
				t.Fatal(err)
			}
			for i := range n {
				want = append(want, i)
			}
			return n
		}
		for write() == len(lists) {
			if len(want) > 10000 {
				return // the link drops packets and is never full
			}
		}
		write() // the link may have room again, or not
		for i, p := range b.Receive(t, len(want)) {
			if ends.Number(p) != want[i] {
				t.Fatalf("packet %d of %d is number %d, not %d", i, len(want), ends.Number(p), want[i])
			}
		}
		<-ready
		if n := write(); n == 0 {
			t.Fatal("Write after ready takes nothing, though all has been read")
		} else {
			b.Receive(t, n)
		}
	}
}

func contractLent(t *testing.T, connect connect) {
	a, b := connect.start(t)
	defer ends.Close(t, a, b)
	const size = 500
	for _, packet := range families {
		go lend(t, a, 50, size, packet)
		for i, p := range b.Receive(t, 50) {
			if !bytes.Equal(p, packet(1, i, size)) {
				t.Fatalf("packet %d is kept without a copy", i)
			}
		}
	}
}

// lend writes n packets from one buffer, which it clears after each.
func lend(t *testing.T, a *ends.End, n, size int, packet func(flow, number, size int) []byte) {
	buf := make([]byte, size)
	list := []net.Buffers{{nil, nil}}
	for i := range n {
		p := packet(1, i, len(buf))
		copy(buf, p)
		list[0][0], list[0][1] = buf[:100], buf[100:]
		if err := a.Send(list...); err != nil {
			t.Error(err)
		}
		if !bytes.Equal(buf, p) || len(list[0]) != 2 || len(list[0][0]) != 100 || len(list[0][1]) != size-100 {
			t.Error("Write modifies what it is lent")
		}
		clear(buf)
		clear(list[0])
	}
}

func contractConcurrent(t *testing.T, connect connect) {
	a, b := connect.start(t)
	defer ends.Close(t, a, b)
	const writers, each = 4, 100
	for w := range writers {
		packet := families[w%len(families)]
		go func() {
			for i := 0; i < each; i += 2 {
				err := a.Send(net.Buffers{packet(w, i, 100)}, net.Buffers{packet(w, i+1, minMTU)})
				if err != nil {
					t.Error(err)
				}
			}
		}()
	}
	var next [writers]int
	for _, p := range b.Receive(t, writers*each) {
		w := ends.Flow(p)
		if !bytes.Equal(p, families[w%len(families)](w, next[w], len(p))) {
			t.Fatalf("packet %d of flow %d arrives as %d", next[w], w, ends.Number(p))
		}
		next[w]++
	}
}

func contractStart(t *testing.T, connect connect) {
	a, b := connect(t)
	bufs, sizes := [][]byte{make([]byte, a.MTU())}, make([]int, 1)
	if n, err := a.Read(bufs, sizes); n != 0 || err == nil {
		t.Errorf("Read before Start: %d, %v", n, err)
	}
	if n, err := a.Write([]net.Buffers{{ends.Packet(1, 0, 40)}}); n != 0 || err == nil {
		t.Errorf("Write before Start: %d, %v", n, err)
	}
	if err := a.Start(nil); err == nil {
		t.Error("Start without ready succeeds")
	}
	ends.Start(t, a)
	if err := a.Start(func() {}); err == nil {
		t.Error("a second Start succeeds")
	}
	ends.Close(t, a, b) // b without a Start
	if err := b.Start(func() {}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Start after Close: %v", err)
	}
}

func contractClose(t *testing.T, connect connect) {
	for range 20 {
		a, b := connect.start(t)
		bufs, sizes := [][]byte{make([]byte, a.MTU())}, make([]int, 1)
		begun, ended := make(chan struct{}), make(chan error)
		go func() {
			close(begun)
			n, err := a.Read(bufs, sizes)
			if n != 0 {
				t.Errorf("Read that Close wakes returns %d packets", n)
			}
			ended <- err
		}()
		<-begun
		runtime.Gosched()
		ends.Close(t, a)
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read that Close wakes: %v", err)
		}
		if n, err := a.Read(bufs, sizes); n != 0 || !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read after Close: %d, %v", n, err)
		}
		if n, err := a.Write([]net.Buffers{{ends.Packet(1, 0, 40)}}); n != 0 || !errors.Is(err, net.ErrClosed) {
			t.Errorf("Write after Close: %d, %v", n, err)
		}
		if err := a.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a second Close: %v", err)
		}
		ends.Close(t, b)
	}
}

func contractCloseRace(t *testing.T, connect connect) {
	for round := range 50 {
		a, b := connect.start(t)
		var wg sync.WaitGroup
		for _, e := range []*ends.End{a, b} {
			wg.Go(func() {
				bufs, sizes := [][]byte{make([]byte, e.MTU()), make([]byte, e.MTU())}, make([]int, 2)
				for {
					if _, err := e.Read(bufs, sizes); err != nil {
						if !errors.Is(err, net.ErrClosed) {
							t.Errorf("Read: %v", err)
						}
						return
					}
				}
			})
			for w := range 2 {
				wg.Go(func() {
					pkts := []net.Buffers{{ends.Packet(w, 0, 40)}, {ends.Packet6(w, 1, 400)}}
					for range 10000 {
						if _, err := e.Write(pkts); err != nil {
							if !errors.Is(err, net.ErrClosed) {
								t.Errorf("Write: %v", err)
							}
							return
						}
						runtime.Gosched()
					}
				})
			}
			wg.Go(func() {
				for range round {
					runtime.Gosched()
				}
				e.Close()
			})
			wg.Go(func() { e.Close() })
		}
		wg.Wait()
	}
}

func contractLeak(t *testing.T, connect connect) {
	before := map[string]bool{}
	for _, g := range goroutines() {
		before[name(g)] = true
	}
	var packages []string
	for range 10 {
		a, b := connect.start(t)
		for _, e := range []*ends.End{a, b} {
			packages = append(packages, packageOf(e.Link)+".")
		}
		for i := range 20 {
			pkts := []net.Buffers{{ends.Packet(i, 0, 40)}, {ends.Packet6(1, i, 400)}}
			a.Write(pkts)
			b.Write(pkts)
		}
		ends.Close(t, a, b)
	}
	// A goroutine that has announced its end may need a moment to end.
	var left []string
	for range 10000 {
		left = slices.DeleteFunc(goroutines(), func(g string) bool {
			return before[name(g)] ||
				!slices.ContainsFunc(packages, func(p string) bool { return strings.Contains(g, p) })
		})
		if len(left) == 0 {
			return
		}
		runtime.Gosched()
	}
	t.Errorf("left after Close:\n%s", strings.Join(left, "\n\n"))
}

// packageOf returns the import path of a link's package.
func packageOf(l bsdnet.Link) string {
	typ := reflect.TypeOf(l)
	if typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	return typ.PkgPath()
}

// goroutines returns the stacks of all goroutines except the test's.
func goroutines() []string {
	buf := make([]byte, 1<<20)
	return strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n")[1:]
}

// name returns the name of a goroutine, such as "goroutine 7".
func name(stack string) string {
	head, _, _ := strings.Cut(stack, " [")
	return head
}
