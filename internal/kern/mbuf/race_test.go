//go:build race

package mbuf

// raceEnabled says that the race detector is on, which makes pools forget at random.
const raceEnabled = true
