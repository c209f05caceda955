//go:build mbufpoison

package mbuf

import "bytes"

// Poisoned reports whether freed clusters are filled with a pattern and checked when they are used
// again (build tag mbufpoison): the check finds a write through a stale view, and a read through
// one returns the pattern.
const Poisoned = true

const poisonByte = 0xdb

var poisoned = bytes.Repeat([]byte{poisonByte}, ClJumbo)

func poison(c *cluster) {
	copy(c.buf, poisoned)
	c.dirty = true
}

func unpoison(c *cluster) {
	if !c.dirty {
		return
	}
	if !bytes.Equal(c.buf, poisoned[:len(c.buf)]) {
		panic("mbuf: a freed cluster was written to")
	}
}
