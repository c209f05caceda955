package link

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

// contract is what every link keeps, as tests that get two ends of a path, not started, that loses nothing as long as at
// most 400 packets are under way.
var contract = []struct {
	name string
	test func(t *testing.T, mk func() (a, b Link))
}{
	{"Order", contractOrder},
	{"Batch", contractBatch},
	{"Size", contractSize},
	{"Full", contractFull},
	{"Lent", contractLent},
	{"Concurrent", contractConcurrent},
	{"Start", contractStart},
	{"Close", contractClose},
	{"CloseRace", contractCloseRace},
	{"Leak", contractLeak},
}

// testLink holds a link to the contract in real time, but for the tests named in except.
func testLink(t *testing.T, mk func() (a, b Link), except ...string) {
	for _, c := range contract {
		if !slices.Contains(except, c.name) {
			t.Run(c.name, func(t *testing.T) { c.test(t, mk) })
		}
	}
}

// testLinkInBubble does so in virtual time, for links that use no network of the system. In a bubble a wait that nothing
// ends, and a goroutine that stays, make a test fail.
func testLinkInBubble(t *testing.T, mk func() (a, b Link)) {
	for _, c := range contract {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { c.test(t, mk) })
		})
	}
}

// end is a started link with what a stack has around it.
type end struct {
	Link
	mu      sync.Mutex
	called  sync.Cond
	readies int // calls of ready
}

func startEnd(t *testing.T, l Link) *end {
	t.Helper()
	e := &end{Link: l}
	e.called.L = &e.mu
	if err := l.Start(func() {
		e.mu.Lock()
		e.readies++
		e.mu.Unlock()
		e.called.Broadcast()
	}); err != nil {
		t.Fatal(err)
	}
	return e
}

// awaitReady waits until ready has been called more than n times, and returns how often it has.
func (e *end) awaitReady(n int) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.readies <= n {
		e.called.Wait()
	}
	return e.readies
}

func startEnds(t *testing.T, mk func() (a, b Link)) (a, b *end) {
	t.Helper()
	x, y := mk()
	return startEnd(t, x), startEnd(t, y)
}

func closeAll(t *testing.T, links ...Link) {
	t.Helper()
	for _, l := range links {
		if err := l.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
}

// send writes packets, and waits for ready when it is cut short.
func (e *end) send(pkts ...net.Buffers) error {
	for readies := e.awaitReady(-1); ; readies = e.awaitReady(readies) {
		n, err := e.Write(pkts)
		if err != nil || n == len(pkts) {
			return err
		}
		pkts = pkts[n:]
	}
}

// receive reads n packets.
func (e *end) receive(t *testing.T, n int) [][]byte {
	t.Helper()
	bufs := make([][]byte, 8)
	for i := range bufs {
		bufs[i] = make([]byte, e.MTU())
	}
	sizes := make([]int, len(bufs))
	var got [][]byte
	for len(got) < n {
		k, err := e.Read(bufs[:min(len(bufs), n-len(got))], sizes)
		if err != nil {
			t.Errorf("Read: %v, after %d packets of %d", err, len(got), n)
			return got
		}
		for i := range k {
			got = append(got, bytes.Clone(bufs[i][:sizes[i]]))
		}
	}
	return got
}

// testPacket returns an IPv4 packet with a UDP header of a flow, size bytes of which number is a part. size is at least 32.
func testPacket(flow, number, size int) []byte {
	b := make([]byte, size)
	for i := 32; i < size; i++ {
		b[i] = byte(i * (number + 1))
	}
	b[0] = 0x45
	binary.BigEndian.PutUint16(b[2:], uint16(size))
	b[8] = 64
	b[9] = protoUDP
	copy(b[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	binary.BigEndian.PutUint16(b[20:], uint16(flow))
	binary.BigEndian.PutUint16(b[22:], 9)
	binary.BigEndian.PutUint16(b[24:], uint16(size-20))
	binary.BigEndian.PutUint32(b[28:], uint32(number))
	return b
}

func flowIn(b []byte) int   { return int(binary.BigEndian.Uint16(b[20:])) }
func numberIn(b []byte) int { return int(binary.BigEndian.Uint32(b[28:])) }

func contractOrder(t *testing.T, mk func() (a, b Link)) {
	a, b := startEnds(t, mk)
	defer closeAll(t, a, b)
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, dir := range [][2]*end{{a, b}, {b, a}} {
		const n = 300
		var want [][]byte
		var lists []net.Buffers
		for i := range n {
			p := testPacket(1, i, 32+rnd.IntN(a.MTU()-31))
			want = append(want, p)
			x, y := rnd.IntN(len(p)+1), rnd.IntN(len(p)+1)
			lists = append(lists, net.Buffers{p[:min(x, y)], nil, p[min(x, y):max(x, y)], p[max(x, y):]})
		}
		sent := make(chan error, 1)
		go func() { sent <- dir[0].send(lists...) }()
		for i, p := range dir[1].receive(t, n) {
			if !bytes.Equal(p, want[i]) {
				t.Fatalf("packet %d arrives as %d, %d bytes long instead of %d", i, numberIn(p), len(p), len(want[i]))
			}
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
	}
}

func contractBatch(t *testing.T, mk func() (a, b Link)) {
	a, b := startEnds(t, mk)
	defer closeAll(t, a, b)
	var lists []net.Buffers
	for i := range 10 {
		lists = append(lists, net.Buffers{testPacket(1, i, 60)})
	}
	if n, err := a.Write(nil); n != 0 || err != nil {
		t.Errorf("Write of nothing: %d, %v", n, err)
	}
	if n, err := b.Read(nil, nil); n != 0 || err != nil {
		t.Errorf("Read into nothing: %d, %v", n, err)
	}
	go func() {
		if err := a.send(lists...); err != nil {
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
			if sizes[i] != 60 || numberIn(bufs[i]) != got {
				t.Fatalf("packet %d arrives as %d, %d bytes long", got, numberIn(bufs[i]), sizes[i])
			}
			got++
		}
	}
}

func contractSize(t *testing.T, mk func() (a, b Link)) {
	a, b := startEnds(t, mk)
	defer closeAll(t, a, b)
	mtu := a.MTU()
	if mtu < minMTU || mtu != b.MTU() || mtu != a.MTU() {
		t.Fatalf("MTU %d, %d at the other end", mtu, b.MTU())
	}
	half := testPacket(1, 0, mtu)[:mtu/2+1]
	go func() {
		if err := a.send(net.Buffers{half, half}, net.Buffers{}, net.Buffers{nil, nil}, net.Buffers{testPacket(1, 1, mtu)},
			net.Buffers{testPacket(1, 2, 61)}, net.Buffers{testPacket(1, 3, 60)}); err != nil {
			t.Error(err)
		}
	}()
	large, small, sizes := [][]byte{make([]byte, 2*mtu)}, [][]byte{make([]byte, 60)}, make([]int, 1)
	if n, err := b.Read(large, sizes); n != 1 || err != nil || sizes[0] != mtu || numberIn(large[0]) != 1 {
		t.Errorf("Read: %d, %v, %d bytes of packet %d; want packet 1 of the MTU", n, err, sizes[0], numberIn(large[0]))
	}
	if n, err := b.Read(small, sizes); n != 1 || err != nil || sizes[0] != 60 || numberIn(small[0]) != 3 {
		t.Errorf("Read into 60 bytes: %d, %v, %d bytes of packet %d; want packet 3", n, err, sizes[0], numberIn(small[0]))
	}
}

// contractWrite calls Write so that a look at the stack can tell.
//
//go:noinline
func contractWrite(l Link, pkts []net.Buffers) (int, error) { return l.Write(pkts) }

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

func contractFull(t *testing.T, mk func() (a, b Link)) {
	a, y := mk()
	ready := make(chan struct{}, 1)
	if err := a.Start(func() {
		if withinWrite() {
			t.Error("ready is called from within Write")
		}
		// A stack does not write in here, but that it could shows that no lock is held.
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
	b := startEnd(t, y)
	defer closeAll(t, a, b)
	var lists []net.Buffers
	for i := range 7 {
		lists = append(lists, net.Buffers{testPacket(1, i, 40)})
	}
	for range 3 {
		taken, full := 0, false
		for !full && taken < 10000 {
			n, err := contractWrite(a, lists)
			if err != nil {
				t.Fatal(err)
			}
			taken += n
			full = n < len(lists)
		}
		if !full {
			return // it drops
		}
		if n, err := contractWrite(a, lists); n != 0 || err != nil {
			t.Fatalf("full after %d packets, and then takes %d more, %v", taken, n, err)
		}
		for i, p := range b.receive(t, taken) {
			if numberIn(p) != i%7 {
				t.Fatalf("packet %d of %d is number %d", i, taken, numberIn(p))
			}
		}
		<-ready
		if n, err := contractWrite(a, lists); n != min(taken, len(lists)) || err != nil {
			t.Fatalf("Write after ready took %d, %v", n, err)
		}
		b.receive(t, min(taken, len(lists)))
	}
}

func contractLent(t *testing.T, mk func() (a, b Link)) {
	a, b := startEnds(t, mk)
	defer closeAll(t, a, b)
	const size = 500
	go lend(t, a, 50, size)
	for i, p := range b.receive(t, 50) {
		if !bytes.Equal(p, testPacket(1, i, size)) {
			t.Fatalf("packet %d is kept without a copy", i)
		}
	}
}

// lend writes n packets from one buffer, which it clears after each.
func lend(t *testing.T, a *end, n, size int) {
	buf := make([]byte, size)
	list := []net.Buffers{{nil, nil}}
	for i := range n {
		p := testPacket(1, i, len(buf))
		copy(buf, p)
		list[0][0], list[0][1] = buf[:100], buf[100:]
		if err := a.send(list...); err != nil {
			t.Error(err)
		}
		if !bytes.Equal(buf, p) || len(list[0]) != 2 || len(list[0][0]) != 100 || len(list[0][1]) != size-100 {
			t.Error("Write modifies what it is lent")
		}
		clear(buf)
		clear(list[0])
	}
}

func contractConcurrent(t *testing.T, mk func() (a, b Link)) {
	a, b := startEnds(t, mk)
	defer closeAll(t, a, b)
	const writers, each = 4, 100
	for w := range writers {
		go func() {
			for i := 0; i < each; i += 2 {
				err := a.send(net.Buffers{testPacket(w, i, 100)}, net.Buffers{testPacket(w, i+1, 1000)})
				if err != nil {
					t.Error(err)
				}
			}
		}()
	}
	var next [writers]int
	for _, p := range b.receive(t, writers*each) {
		w := flowIn(p)
		if !bytes.Equal(p, testPacket(w, next[w], len(p))) {
			t.Fatalf("packet %d of flow %d arrives as %d", next[w], w, numberIn(p))
		}
		next[w]++
	}
}

func contractStart(t *testing.T, mk func() (a, b Link)) {
	a, b := mk()
	bufs, sizes := [][]byte{make([]byte, a.MTU())}, make([]int, 1)
	if n, err := a.Read(bufs, sizes); n != 0 || err == nil {
		t.Errorf("Read before Start: %d, %v", n, err)
	}
	if n, err := a.Write([]net.Buffers{{testPacket(1, 0, 40)}}); n != 0 || err == nil {
		t.Errorf("Write before Start: %d, %v", n, err)
	}
	if err := a.Start(nil); err == nil {
		t.Error("Start without ready succeeds")
	}
	startEnd(t, a)
	if err := a.Start(func() {}); err == nil {
		t.Error("a second Start succeeds")
	}
	closeAll(t, a, b) // b without a Start
	if err := b.Start(func() {}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Start after Close: %v", err)
	}
}

func contractClose(t *testing.T, mk func() (a, b Link)) {
	for range 20 {
		a, b := startEnds(t, mk)
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
		closeAll(t, a)
		if err := <-ended; err != net.ErrClosed {
			t.Errorf("Read that Close wakes: %v", err)
		}
		if n, err := a.Read(bufs, sizes); n != 0 || err != net.ErrClosed {
			t.Errorf("Read after Close: %d, %v", n, err)
		}
		if n, err := a.Write([]net.Buffers{{testPacket(1, 0, 40)}}); n != 0 || err != net.ErrClosed {
			t.Errorf("Write after Close: %d, %v", n, err)
		}
		if err := a.Close(); err != net.ErrClosed {
			t.Errorf("a second Close: %v", err)
		}
		closeAll(t, b)
	}
}

func contractCloseRace(t *testing.T, mk func() (a, b Link)) {
	for round := range 50 {
		a, b := startEnds(t, mk)
		var wg sync.WaitGroup
		for _, e := range []*end{a, b} {
			wg.Go(func() {
				bufs, sizes := [][]byte{make([]byte, e.MTU()), make([]byte, e.MTU())}, make([]int, 2)
				for {
					if _, err := e.Read(bufs, sizes); err != nil {
						if err != net.ErrClosed {
							t.Errorf("Read: %v", err)
						}
						return
					}
				}
			})
			for w := range 2 {
				wg.Go(func() {
					pkts := []net.Buffers{{testPacket(w, 0, 40)}, {testPacket(w, 1, 400)}}
					for range 10000 {
						if _, err := e.Write(pkts); err != nil {
							if err != net.ErrClosed {
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

func contractLeak(t *testing.T, mk func() (a, b Link)) {
	for range 10 {
		a, b := startEnds(t, mk)
		for i := range 20 {
			pkts := []net.Buffers{{testPacket(i, 0, 40)}, {testPacket(1, i, 400)}}
			a.Write(pkts)
			b.Write(pkts)
		}
		closeAll(t, a, b)
	}
	// A goroutine that has said that it ends may need a moment to do so.
	var left string
	for range 10000 {
		if left = linkGoroutines(); left == "" {
			return
		}
		runtime.Gosched()
	}
	t.Errorf("left after Close:\n%s", left)
}

// linkGoroutines returns the stacks of goroutines that run code of this package without a test.
func linkGoroutines() string {
	buf := make([]byte, 1<<20)
	var left []string
	for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(g, "internal/link.") && !strings.Contains(g, "testing.") && !strings.Contains(g, ".contractLeak(") {
			left = append(left, g)
		}
	}
	return strings.Join(left, "\n\n")
}
