// Package linktest tests whether a link keeps the contract of [bsdnet.Link].
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
	// Connect returns the two ends of a new path, which have not been started: what is written to one is read from the other. Their MTU is the same,
	// and 1000 at least. The path loses nothing as long as no more than 400 packets are under way. Connect is called many times, in each test with the t
	// of that; the tests close the ends.
	Connect func(t testing.TB) (a, b bsdnet.Link)

	// Bubble runs each test in a testing/synctest bubble, in virtual time. There a wait that nothing ends, and a goroutine that stays, make a test
	// fail. It is for links that do not wait for the system, as for a socket.
	Bubble bool

	// Lossy says that packets are lost if more are under way than the path holds, though a link's Write may be cut short. It leaves the test out that
	// fills the path and wants all back.
	Lossy bool
}

// Test runs a subtest for each point of the contract: that packets arrive whole and in the order of their flow, in batches as well and from several
// goroutines; what happens to those that are too large or empty; that a full link calls ready, and not from within Write; that what is lent is neither
// changed nor kept; and what may be called before Start and after Close, which leaves no goroutine of the links' packages behind. A link that hangs
// ends with the time-out of the tests. With the race detector they find more.
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
