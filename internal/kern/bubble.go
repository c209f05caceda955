package kern

import (
	"bytes"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// A stack lives where it was made: in one testing/synctest bubble, or outside of bubbles. A bubble
// has a time of its own, which begins with the year 2000, so to a caller from elsewhere the stack's
// clock would seem to jump by decades, and every timer of every connection to be due. And the
// runtime ends the program if a goroutine from elsewhere touches a timer or a sleeper of a bubble.
// Therefore calls from elsewhere fail with EXDEV, and change nothing.

// EXDEV is the errno of a call from another bubble than the stack's. No other call fails with it.
const EXDEV = syscall.EXDEV

// ERANGE is the errno of a deadline that was computed by another clock than the stack's. No other
// call fails with it.
const ERANGE = syscall.ERANGE

// decades is longer than any process runs, in nanoseconds: if a stack's time is beyond it, or
// before 0, the caller's clock is not the stack's.
const decades = int64(20 * 365 * 24 * time.Hour)

// away reports whether the caller, who has read the stack's time, is elsewhere. For a stack outside
// of bubbles that reading alone tells, so the check costs a comparison.
func (k *Kernel) away(now int64) bool {
	return uint64(now) > uint64(decades) || k.home != 0 && bubble() != k.home
}

// Here returns EXDEV if the caller is elsewhere, for calls that are not a socket's.
func (k *Kernel) Here() syscall.Errno {
	if k.away(k.now()) {
		return EXDEV
	}
	return 0
}

// someBubble is a bubble whose number is not known.
const someBubble = ^uint64(0)

// bubble returns the number of the bubble that the caller runs in, 0 outside of bubbles. Package
// testing/synctest does not tell it. But a time that is read in a bubble has no monotonic clock
// reading, and all others have one; and the runtime writes the number into the first line of a
// goroutine's stack trace.
func bubble() uint64 {
	// Package time: Round(0) "strips any monotonic clock reading but otherwise returns t
	// unchanged".
	if t := time.Now(); t != t.Round(0) {
		return 0
	}
	var b [128]byte
	return bubbleIn(b[:runtime.Stack(b[:], false)])
}

// bubbleIn returns the number of the bubble in a goroutine's stack trace, "goroutine 7 [running,
// synctest bubble 1]:". If the trace has another form, bubbleIn returns someBubble, as the caller
// has found that it is in a bubble.
func bubbleIn(trace []byte) uint64 {
	_, after, _ := bytes.Cut(trace, []byte("synctest bubble "))
	digits, _, _ := bytes.Cut(after, []byte("]"))
	if n, err := strconv.ParseUint(string(digits), 10, 64); err == nil {
		return n
	}
	return someBubble
}

// foreign reports whether a deadline, if there is one, was computed outside of bubbles for a stack
// in a bubble, whose time it is decades ahead of. A deadline from a bubble for a stack outside
// cannot be told from one in the past, by which a program ends a call at once.
func (k *Kernel) foreign(t *time.Time) bool { return k.home != 0 && t != nil && *t != t.Round(0) }
