package netem

import (
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet"
	"bsdnet/internal/link"
	"bsdnet/internal/link/ends"
	"bsdnet/internal/testutil"
	"bsdnet/linktest"
)

func mustPipe(config PipeConfig) (a, b *Link) {
	a, b, err := Pipe(config)
	if err != nil {
		panic(err)
	}
	return a, b
}

func TestPipeContract(t *testing.T) {
	for _, c := range []struct {
		name   string
		config PipeConfig
	}{
		{"Default", PipeConfig{}},
		{"Small", PipeConfig{MTU: 1280, Queue: 5}},
		{"One", PipeConfig{MTU: 65535, Queue: 1}},
		{"Delay", PipeConfig{Delay: 50 * time.Microsecond, Queue: 100}},
	} {
		connect := func(t testing.TB) (a, b bsdnet.Link) { return mustPipe(c.config) }
		t.Run(c.name, func(t *testing.T) { linktest.Test(t, linktest.Config{Connect: connect}) })
		t.Run(c.name+"InBubble", func(t *testing.T) {
			linktest.Test(t, linktest.Config{Connect: connect, Bubble: true})
		})
	}
}

func TestPipeConfig(t *testing.T) {
	for _, c := range []struct {
		config PipeConfig
		want   string
	}{
		{PipeConfig{MTU: 67}, "MTU 67 "},
		{PipeConfig{MTU: 65536}, "MTU 65536 "},
		{PipeConfig{MTU: -1}, "MTU -1 "},
		{PipeConfig{Queue: -1}, "Queue -1 "},
		{PipeConfig{Queue: 1<<20 + 1}, "Queue 1048577 "},
		{PipeConfig{Delay: -1}, "Delay -1ns "},
		{PipeConfig{Delay: 25 * time.Hour}, "Delay 25h0m0s "},
	} {
		if _, _, err := Pipe(c.config); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v; want an error with %q", c.config, err, c.want)
		}
	}
	a, b := mustPipe(PipeConfig{})
	if a.MTU() != 1500 || b.MTU() != 1500 || a.rx.limit != 512 {
		t.Errorf("defaults: MTU %d, %d, queue %d", a.MTU(), b.MTU(), a.rx.limit)
	}
	for _, mtu := range []int{68, 65535} {
		if a, _ := mustPipe(PipeConfig{MTU: mtu}); a.MTU() != mtu {
			t.Errorf("MTU %d; want %d", a.MTU(), mtu)
		}
	}
}

// ready is called once, when the queue is half empty, and not before.
func TestPipeReady(t *testing.T) {
	for _, delay := range []time.Duration{0, time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			x, y := mustPipe(PipeConfig{Queue: 8, Delay: delay})
			readies := 0
			if err := x.Start(func() { readies++ }); err != nil {
				t.Fatal(err)
			}
			b := ends.Start(t, y)
			defer ends.Close(t, x, b)
			lists := make([]net.Buffers, 10)
			for i := range lists {
				lists[i] = net.Buffers{ends.Packet(1, i, 40)}
			}
			if n, err := x.Write(lists); n != 8 || err != nil {
				t.Fatalf("Write took %d, %v", n, err)
			}
			b.Receive(t, 3)
			if readies != 0 {
				t.Errorf("delay %v: ready with 5 of 8 packets left", delay)
			}
			b.Receive(t, 1)
			if readies != 1 {
				t.Errorf("delay %v: ready called %d times with 4 of 8 packets left", delay, readies)
			}
			b.Receive(t, 4)
			if readies != 1 {
				t.Errorf("delay %v: ready called %d times after one Write was cut short", delay, readies)
			}
		})
	}
}

// Packets that do not fit into the reader's buffers make room too.
func TestPipeReadyOversized(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, y := mustPipe(PipeConfig{Queue: 4})
		a, b := ends.Start(t, x), ends.Start(t, y)
		defer ends.Close(t, a, b)
		go func() {
			for i := range 5 {
				a.Send(net.Buffers{ends.Packet(1, i, 200-i*40)})
			}
		}()
		buf, sizes := [][]byte{make([]byte, 40)}, make([]int, 1)
		if n, err := b.Read(buf, sizes); n != 1 || err != nil || ends.Number(buf[0]) != 4 {
			t.Errorf("Read: %d, %v, packet %d; want packet 4", n, err, ends.Number(buf[0]))
		}
	})
}

// The open end reads what was on the way, and what it writes is lost.
func TestPipeCut(t *testing.T) {
	for _, delay := range []time.Duration{0, time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			x, y := mustPipe(PipeConfig{Queue: 8, Delay: delay})
			a, b := ends.Start(t, x), ends.Start(t, y)
			full := make([]net.Buffers, 10)
			for i := range full {
				full[i] = net.Buffers{ends.Packet(1, i, 40)}
			}
			a.Write(full)
			if n, _ := b.Write(full); n != 8 {
				t.Fatalf("Write took %d", n)
			}
			ends.Close(t, a)
			b.AwaitReady(0) // what kept it waiting is gone
			for range 3 {
				if n, err := b.Write(full); n != 10 || err != nil {
					t.Errorf("delay %v: Write to a cut cable: %d, %v", delay, n, err)
				}
			}
			for i, p := range b.Receive(t, 8) {
				if ends.Number(p) != i {
					t.Errorf("delay %v: packet %d arrives as %d", delay, i, ends.Number(p))
				}
			}
			ended := make(chan error)
			go func() {
				_, err := b.Read([][]byte{make([]byte, 1500)}, make([]int, 1))
				ended <- err
			}()
			time.Sleep(time.Hour)
			select {
			case err := <-ended:
				t.Errorf("delay %v: Read from a cut cable: %v", delay, err)
			default:
			}
			ends.Close(t, b)
			<-ended
		})
	}
}

func TestPipeDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const delay = 30 * time.Millisecond
		x, y := mustPipe(PipeConfig{Delay: delay})
		a, b := ends.Start(t, x), ends.Start(t, y)
		defer ends.Close(t, a, b)
		go func() {
			for i := range 100 {
				a.Send(net.Buffers{ends.Packet(1, i, 40)})
				time.Sleep(time.Millisecond)
			}
		}()
		start := time.Now()
		for i := range 100 {
			p := b.Receive(t, 1)[0]
			want := delay + time.Duration(i)*time.Millisecond + 1 // packets leave at odd instants
			if took := time.Since(start); ends.Number(p) != i || took != want {
				t.Errorf("packet %d arrives as %d after %v; want %v", i, ends.Number(p), took, want)
			}
		}
	})
}

func TestPipeAllocs(t *testing.T) {
	if testutil.Race {
		t.Skip("the race detector makes pools forget")
	}
	x, y := mustPipe(PipeConfig{})
	testAllocs(t, x, y)
}

func TestPipeDelayAllocs(t *testing.T) {
	if testutil.Race {
		t.Skip("the race detector makes pools forget")
	}
	x, y := mustPipe(PipeConfig{Delay: time.Nanosecond})
	testAllocs(t, x, y)
}

// testAllocs moves batches of packets and expects no allocation.
func testAllocs(t *testing.T, x, y link.Link) {
	t.Helper()
	a, b := ends.Start(t, x), ends.Start(t, y)
	defer ends.Close(t, a, b)
	lists := make([]net.Buffers, batchLen)
	bufs := make([][]byte, batchLen)
	sizes := make([]int, batchLen)
	for i := range lists {
		lists[i] = net.Buffers{ends.Packet(i, i, 40), make([]byte, 40*i)}
		bufs[i] = make([]byte, a.MTU())
	}
	if n := testing.AllocsPerRun(100, func() {
		if n, err := a.Write(lists); n != batchLen || err != nil {
			t.Fatalf("Write: %d, %v", n, err)
		}
		for got := 0; got < batchLen; {
			n, err := b.Read(bufs, sizes)
			if err != nil {
				t.Fatal(err)
			}
			got += n
		}
	}); n > 0 {
		t.Errorf("%v allocations for %d packets", n, batchLen)
	}
}
