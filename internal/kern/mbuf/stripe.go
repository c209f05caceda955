package mbuf

import "math/rand/v2"

// stripe picks a counter. The runtime's own generator is per thread, so cores rarely meet on one
// line; no result depends on it.
func stripe() uint8 { return uint8(rand.Uint32()) & 7 }
