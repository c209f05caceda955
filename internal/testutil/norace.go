//go:build !race

package testutil

// Race says that the race detector is on. It makes everything many times slower, it allocates, and
// it makes pools forget at random.
const Race = false
