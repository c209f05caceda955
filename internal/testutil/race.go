//go:build race

package testutil

// Race reports whether the race detector is on. The race detector makes everything many times
// slower, allocates memory, and makes pools drop objects at random.
const Race = true
