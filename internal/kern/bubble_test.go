package kern

import (
	"testing"
	"testing/synctest"
	"time"
)

// The bubble of a goroutine is told by its number, which the runtime has always written so; if it
// writes otherwise one day, this fails.
func TestBubbleNumber(t *testing.T) {
	if n := bubble(); n != 0 {
		t.Errorf("outside: %d", n)
	}
	var first, second uint64
	synctest.Test(t, func(t *testing.T) {
		first = bubble()
		other := make(chan uint64)
		go func() { time.Sleep(time.Hour); other <- bubble() }()
		if n := <-other; n != first {
			t.Errorf("two goroutines of one bubble are in %d and %d", first, n)
		}
	})
	synctest.Test(t, func(*testing.T) { second = bubble() })
	if first == 0 || second == 0 || first == second || first == someBubble || second == someBubble {
		t.Errorf("two bubbles: %d and %d", first, second)
	}
	for trace, want := range map[string]uint64{
		"goroutine 7 [running, synctest bubble 12]:\nmain": 12, "goroutine 7 [running]:\n": someBubble,
		"synctest bubble 12": 12, "": someBubble,
	} {
		if n := bubbleIn([]byte(trace)); n != want {
			t.Errorf("%q: %d, want %d", trace, n, want)
		}
	}
}

// A program may run for long, and its clock begins at the epoch: neither is a sign of another
// bubble.
func TestAwayLimits(t *testing.T) {
	k := &Kernel{}
	for now, want := range map[int64]bool{
		0: false, epoch: false, decades: false, decades + 1: true, -1: true, -decades: true, never: true,
	} {
		if k.away(now) != want {
			t.Errorf("at %v: %v", time.Duration(now), !want)
		}
	}
}

// A bubble whose number is not known, should the runtime not tell it any more, is taken for the one
// that the stack is in.
func TestAwayUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &Kernel{home: bubble()}
		if k.away(epoch) {
			t.Error("in its own bubble")
		}
		k.home++
		if !k.away(epoch) {
			t.Error("in another bubble")
		}
	})
}
