// Package linktest tests whether a link does what [bsdnet.Link] requires.
//
//	func TestLink(t *testing.T) {
//		linktest.Test(t, linktest.Config{Connect: func(t testing.TB) (a, b bsdnet.Link) { … }})
//	}
package linktest

import (
	"testing"
	"testing/synctest"

	"bsdnet"
)

// Config configures a [Test].
type Config struct {
	// Connect returns the two ends of a new path. Packets that are written to one end are read from
	// the other. Both ends have the same MTU, which is at least 1000 bytes, and have not been
	// started. The path must not lose packets while there are at most 400 on their way. Test calls
	// Connect many times, with the t of the current subtest, and closes the ends. Connect must not
	// be nil.
	Connect func(t testing.TB) (a, b bsdnet.Link)

	// Bubble runs each subtest in a testing/synctest bubble, in virtual time. A call that blocks
	// forever then fails the test at once, and so does a goroutine that is left. Bubble works only
	// for links that do not wait for the operating system, for example for a socket.
	Bubble bool

	// Lossy says that the path may lose packets when there are more on their way than it holds,
	// even though the link reports that it is full. Test then leaves out the subtest Full, which
	// fills the path and expects every packet to arrive.
	Lossy bool
}

// Test runs a subtest for each requirement of [bsdnet.Link]:
//
//   - Packets of IPv4 and of IPv6 arrive unchanged and in the order of their flow, also in batches
//     and when several goroutines write.
//   - Empty packets, and packets that are too large for the MTU or the reader's buffer, are
//     dropped.
//   - A link that is full calls ready when there is room, and not from within Write.
//   - Write neither changes nor keeps the packets that it is lent.
//   - Before Start and after Close, the methods return the required errors.
//   - Close leaves no goroutine of the links' packages.
//
// A subtest that blocks outside a bubble ends with the time-out of go test. Run the tests with the
// race detector too.
func Test(t *testing.T, c Config) {
	for _, point := range contract {
		if c.Lossy && point.name == full {
			continue
		}
		t.Run(point.name, func(t *testing.T) {
			if c.Bubble {
				synctest.Test(t, func(t *testing.T) { point.test(t, c.Connect) })
			} else {
				point.test(t, c.Connect)
			}
		})
	}
}
