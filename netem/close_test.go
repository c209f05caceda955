package netem

import (
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet/internal/link"
	"bsdnet/internal/link/ends"
)

// Close does not wait for packets that are on their way or that nobody reads. It drops them.
func TestCloseDrops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, y := mustPipe(PipeConfig{Delay: time.Hour})
		imp := Impairment{Delay: 2 * time.Hour}
		im := mustImpair(y, Path{Write: imp, Read: imp})
		a, b := ends.Start(t, x), ends.Start(t, im)
		pkt := net.Buffers{ends.Packet(0, 0, 40)}
		for range 3 {
			a.Send(pkt)
			b.Send(pkt)
			time.Sleep(time.Hour)
		}
		time.Sleep(time.Minute)
		start := time.Now()
		ends.Close(t, b, a)
		if took := time.Since(start); took > 0 {
			t.Errorf("Close takes %v", took)
		}
		for _, q := range []*queue{&x.rx, &y.rx, &im.rx} {
			if q.n > 0 || q.ring != nil {
				t.Errorf("%d packets wait after Close", q.n)
			}
		}
		for _, s := range []*scheduler{x.sched, &im.sched} {
			if s.timer.Stop() {
				t.Error("a timer is left after Close")
			}
			for _, l := range s.lines {
				if len(l.arrivals.a)+len(l.departures.a) > 0 {
					t.Error("packets are on their way after Close")
				}
			}
		}
	})
}

// A pipe that is closed at one end keeps no timer for the packets on their way there.
func TestCloseDropsHalf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, y := mustPipe(PipeConfig{Delay: time.Hour})
		a, b := ends.Start(t, x), ends.Start(t, y)
		b.Send(net.Buffers{ends.Packet(0, 0, 40)})
		ends.Close(t, a)
		if x.sched.timer.Stop() {
			t.Error("a timer is left after Close")
		}
		ends.Close(t, b)
	})
}

// slowLink blocks a goroutine in Write, or in Read after Close, until goOn is closed.
type slowLink struct {
	link.Link
	write bool
	goOn  chan struct{}
}

func (l *slowLink) Write(pkts []net.Buffers) (int, error) {
	if l.write {
		<-l.goOn
	}
	return l.Link.Write(pkts)
}

func (l *slowLink) Read(bufs [][]byte, sizes []int) (int, error) {
	n, err := l.Link.Read(bufs, sizes)
	if err != nil && !l.write {
		<-l.goOn
	}
	return n, err
}

// Close waits for the goroutines that are at work in the wrapped link.
func TestCloseWaits(t *testing.T) {
	for _, write := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			x, y := mustPipe(PipeConfig{})
			slow := &slowLink{x, write, make(chan struct{})}
			a := ends.Start(t, mustImpair(slow, Path{}))
			if write {
				a.Send(net.Buffers{ends.Packet(0, 0, 40)})
				time.Sleep(time.Millisecond)
			}
			closed := make(chan struct{})
			go func() {
				a.Close()
				close(closed)
			}()
			synctest.Wait()
			select {
			case <-closed:
				t.Errorf("writing %v: Close returns while the link is at work", write)
			default:
			}
			close(slow.goOn)
			<-closed
			ends.Close(t, y)
		})
	}
}

// fakeLink fails on demand.
type fakeLink struct {
	link.Link
	startErr, writeErr error
}

func (l *fakeLink) Start(ready func()) error {
	if l.startErr != nil {
		return l.startErr
	}
	return l.Link.Start(ready)
}

func (l *fakeLink) Write(pkts []net.Buffers) (int, error) {
	if l.writeErr != nil {
		return 0, l.writeErr
	}
	return l.Link.Write(pkts)
}

func TestImpairErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		errFake := errors.New("fake")
		x, y := mustPipe(PipeConfig{})
		fake := &fakeLink{Link: x, startErr: errFake}
		im := mustImpair(fake, Path{Read: Impairment{Delay: time.Second}})
		if err := im.Start(func() {}); err != errFake {
			t.Errorf("Start: %v; want the link's error", err)
		}
		ends.Close(t, im, y)

		x, y = mustPipe(PipeConfig{})
		fake = &fakeLink{Link: x, writeErr: errFake}
		im = mustImpair(fake, Path{Read: Impairment{Delay: time.Second}})
		a, b := ends.Start(t, im), ends.Start(t, y)
		pkt := net.Buffers{ends.Packet(0, 0, 40)}
		for i := range 3 {
			if n, err := a.Write([]net.Buffers{pkt}); n != 1 || err != nil {
				t.Errorf("Write: %d, %v", n, err)
			}
			time.Sleep(time.Millisecond)
			if counts := im.Stats().Write; counts.Dropped != uint64(i+1) {
				t.Errorf("%d packets refused by the link: counted %+v", i+1, counts)
			}
		}
		fake.writeErr = nil
		a.Send(pkt)
		b.Receive(t, 1)

		// The test closes the link without the Impaired. Read returns what was under way before it
		// returns the error.
		b.Send(pkt)
		time.Sleep(time.Millisecond)
		ends.Close(t, x)
		a.Receive(t, 1)
		if _, err := a.Read([][]byte{make([]byte, 1500)}, make([]int, 1)); err != net.ErrClosed {
			t.Errorf("Read from a link that is closed: %v", err)
		}
		a.Send(pkt)
		time.Sleep(time.Millisecond)
		if _, err := a.Write([]net.Buffers{pkt}); err != net.ErrClosed {
			t.Errorf("Write to a link that is closed: %v", err)
		}
		if err := a.Close(); err != net.ErrClosed {
			t.Errorf("Close of a link that is closed: %v", err)
		}
		ends.Close(t, b)
	})
}
