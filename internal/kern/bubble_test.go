package kern

import (
	"testing"
	"testing/synctest"
	"time"
)

// The number of a goroutine's bubble is read from a trace of the form that the runtime has always
// written. If the form changes, this test fails.
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

// Neither a program that runs for long nor a clock that has just begun is taken for another
// bubble's.
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

// If the runtime does not tell a bubble's number any more, every bubble is taken for the stack's.
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
