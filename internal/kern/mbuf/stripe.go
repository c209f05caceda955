package mbuf

import "math/rand/v2"

// stripe picks a counter. The runtime's generator is per thread and needs no lock. No result
// depends on the choice.
func stripe() uint8 { return uint8(rand.Uint32()) & 7 }
