package wireguard

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"runtime/pprof"
	"strconv"
	"sync/atomic"
	"time"
)

// The Close of a device waits for its sockets and peers, but not for its worker goroutines, which
// it tells to end. A link's Close must wait for these too. So all goroutines of a device carry a
// profiler label, which a goroutine inherits from the one that starts it, and a goroutine profile
// lists them.

// labelKey is the label's key. In a user's profile it shows what the goroutines belong to.
const labelKey = "bsdnet/wireguard"

// deviceCode is in the stack of every goroutine of a device. Goroutines of a user's Logger may
// inherit the label, but do not run this code.
const deviceCode = "golang.zx2c4.com/wireguard/"

// endLimit is how long the workers of a closed device may take to end.
const endLimit = 10 * time.Second

// A device's Close drops the packets that are on their way through it. Before that, linger gives
// them lingerLimit at most to leave; they have left when the device has sent nothing for
// lingerIdle.
const (
	lingerLimit = 100 * time.Millisecond
	lingerIdle  = 5 * time.Millisecond
)

// linger waits until the device has sent the packets that the stack has written. The device does
// not say when, but counts what it sends.
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

// doLabelled runs f under a label, which the goroutines that f starts inherit.
func doLabelled(label string, f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels(labelKey, label)))
		f()
	}()
	<-done
}

// awaitLabelled waits until the device of a label has no goroutine left.
func awaitLabelled(label string) error {
	runtime.Gosched() // the goroutines only need to run once more
	for end := time.Now().Add(endLimit); labelled(label) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("wireguard: close: the device still has goroutines after %v", endLimit)
		}
	}
	return nil
}

// labelled returns 0 if the device of a label has no goroutines. The profile has one paragraph for
// all goroutines that have the same stack and the same labels; labelled returns the number of
// paragraphs.
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
