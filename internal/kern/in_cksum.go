package kern

import (
	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// sumChain adds n bytes of a chain, from offset off, to a running sum: see wire.Sum.
func sumChain(m *mbuf.Mbuf, off, n int, sum uint64) uint64 {
	at := 0
	for ; m != nil && n > 0; m = m.Next() {
		b := m.Bytes()
		if off >= len(b) {
			off -= len(b)
			continue
		}
		b = b[off:]
		off = 0
		if len(b) > n {
			b = b[:n]
		}
		sum = wire.SumAt(b, at, sum)
		at += len(b)
		n -= len(b)
	}
	return sum
}
