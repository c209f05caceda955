package wireguard

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"runtime/pprof"
	"strconv"
	"sync/atomic"
	"time"
)

// A device's Close waits for its sockets and peers, but not for its workers, which have been told to end by then. So that a link's Close can wait for
// these too, all goroutines of a device carry a profiler's label, which a goroutine has from the one that has started it; a profile lists them.

// labelKey also tells in anybody's profile what the goroutines are of.
const labelKey = "bsdnet/wireguard"

// deviceCode is in the stack of every goroutine of a device, and not in those of others that may have got the label through it.
const deviceCode = "golang.zx2c4.com/wireguard/"

// endLimit is how long the workers of a device that has been closed may take.
const endLimit = 10 * time.Second

// What is on its way through a device, whose Close drops it, leaves within lingerLimit, or stays; it has left when nothing is sent for lingerIdle.
const (
	lingerLimit = 100 * time.Millisecond
	lingerIdle  = 5 * time.Millisecond
)

// linger waits until the device has sent what the stack has written. The device does not tell, but counts what it sends.
func (l *Link) linger() {
	start := time.Now()
	for idle, sent := start, uint64(0); time.Since(start) < lingerLimit; time.Sleep(time.Millisecond) {
		was := sent
		sent = 0
		for _, p := range l.Peers() {
			sent += p.Sent
		}
		if sent != was || l.tun.passed.Load() < l.written.Load() {
			idle = time.Now()
		} else if time.Since(idle) >= lingerIdle {
			return
		}
	}
}

var labels atomic.Uint64

func newLabel() string { return strconv.FormatUint(labels.Add(1), 10) }

// doLabelled runs f, and what f starts, under a label.
func doLabelled(label string, f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels(labelKey, label)))
		f()
	}()
	<-done
}

// awaitLabelled waits until the device of that label has no goroutine left.
func awaitLabelled(label string) error {
	runtime.Gosched() // they only have to run
	for end := time.Now().Add(endLimit); labelled(label) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return errors.New("wireguard: close: the device has goroutines left")
		}
	}
	return nil
}

// labelled counts the kinds of goroutines of a device that are there. The profile has a paragraph for all goroutines with one stack and one label.
func labelled(label string) int {
	var buf bytes.Buffer
	if pprof.Lookup("goroutine").WriteTo(&buf, 1) != nil {
		return 0
	}
	is, n := []byte(strconv.Quote(labelKey)+":"+strconv.Quote(label)), 0
	for group := range bytes.SplitSeq(buf.Bytes(), []byte("\n\n")) {
		if bytes.Contains(group, is) && bytes.Contains(group, []byte(deviceCode)) {
			n++
		}
	}
	return n
}
