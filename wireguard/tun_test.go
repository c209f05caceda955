package wireguard

import (
	"encoding/binary"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"bsdnet"
	"bsdnet/internal/testutil"
	"bsdnet/netem"

	"golang.zx2c4.com/wireguard/device"
)

func newTestTUN(t testing.TB, queue int) (*pipeTUN, bsdnet.Link, chan struct{}) {
	t.Helper()
	a, b, err := netem.Pipe(netem.PipeConfig{MTU: DefaultMTU, Queue: queue})
	if err != nil {
		t.Fatal(err)
	}
	up := make(chan struct{})
	tn, err := newTUN(b, up)
	if err != nil {
		t.Fatal(err)
	}
	end := func() {
		a.Close()
		tn.Close()
	}
	watch := time.AfterFunc(limit, end) // no call waits forever
	t.Cleanup(func() {
		watch.Stop()
		end()
	})
	return tn, a, up
}

// deviceBufs are buffers like the device's, with offset bytes before the packet.
func deviceBufs(n, offset, size int) [][]byte {
	bufs := make([][]byte, n)
	for i := range bufs {
		bufs[i] = make([]byte, offset+size)
		binary.BigEndian.PutUint32(bufs[i][offset:], uint32(i))
	}
	return bufs
}

// If the stack is slow, the device's writes wait, and the packets arrive in order. If the stack has
// not started, they do not wait.
func TestTUNWrite(t *testing.T) {
	tn, stack, up := newTestTUN(t, 8)
	const offset, count = 16, 1000
	bufs := deviceBufs(count, offset, 100)
	if n, err := tn.Write(bufs, offset); n != count || err != nil {
		t.Fatalf("before the stack has started: %d, %v", n, err)
	}
	if err := stack.Start(func() {}); err != nil {
		t.Fatal(err)
	}
	close(up)
	done := make(chan error, 1)
	go func() {
		n, err := tn.Write(bufs, offset)
		if n != count {
			t.Errorf("%d written", n)
		}
		done <- err
	}()
	in, sizes := deviceBufs(4, 0, DefaultMTU), make([]int, 4)
	for next := 0; next < count; {
		n, err := stack.Read(in, sizes)
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			if got := binary.BigEndian.Uint32(in[i]); sizes[i] != 100 || got != uint32(next) {
				t.Fatalf("packet %d of %d bytes, want %d", got, sizes[i], next)
			}
			next++
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Close ends a Read and a Write that wait, with the error that the device knows.
func TestTUNClose(t *testing.T) {
	tn, stack, up := newTestTUN(t, 1)
	stack.Start(func() {})
	close(up)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if _, err := tn.Write(deviceBufs(200, 16, 100), 16); err != os.ErrClosed {
				t.Errorf("Write: %v", err)
			}
		})
	}
	wg.Go(func() {
		if n, err := tn.Read(deviceBufs(1, 16, 2000), make([]int, 1), 16); n != 0 || err != os.ErrClosed {
			t.Errorf("Read: %d, %v", n, err)
		}
	})
	await(t, "the pipe is full", func() bool { return len(tn.ready) == 0 && !tryLock(&tn.wmu) })
	if err := tn.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if _, open := <-tn.Events(); open {
		t.Error("Events is open")
	}
	if err := tn.Close(); err != os.ErrClosed {
		t.Errorf("a second Close: %v", err)
	}
}

func tryLock(mu *sync.Mutex) bool {
	if mu.TryLock() {
		mu.Unlock()
		return true
	}
	return false
}

// Packets come and go without an allocation, and the offset bytes before them are not changed.
func TestTUNAllocs(t *testing.T) {
	tn, stack, up := newTestTUN(t, 0)
	stack.Start(func() {})
	close(up)
	const n, offset = 64, device.MessageTransportHeaderSize
	dev := deviceBufs(n, offset, device.MaxMessageSize-offset)
	for i := range dev {
		copy(dev[i], "before the packet")
	}
	out := make([][]byte, n)
	for i := range out {
		out[i] = dev[i][:offset+100]
	}
	mine, sizes := deviceBufs(n, 0, DefaultMTU), make([]int, n)
	pkts := make([]net.Buffers, n)
	for i := range pkts {
		pkts[i] = net.Buffers{mine[i][:20], mine[i][20:120]}
	}
	round := func() {
		if k, err := tn.Write(out, offset); k != n || err != nil {
			t.Fatal(k, err)
		}
		for left := n; left > 0; {
			k, err := stack.Read(mine, sizes)
			if err != nil {
				t.Fatal(err)
			}
			left -= k
		}
		if k, err := stack.Write(pkts); k != n || err != nil {
			t.Fatal(k, err)
		}
		for left := n; left > 0; {
			k, err := tn.Read(dev, sizes, offset)
			if err != nil || sizes[0] != 120 {
				t.Fatal(k, sizes[0], err)
			}
			left -= k
		}
	}
	round()
	// The garbage collector empties the pipe's pool now and then.
	if got := testing.AllocsPerRun(100, round); got >= n && !testutil.Race {
		t.Errorf("%v allocations for %d packets", got, 2*n)
	}
	for i := range dev {
		if string(dev[i][:offset]) != "before the packet"[:offset] {
			t.Fatal("Read writes before offset")
		}
	}
}
