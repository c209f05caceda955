package contract

import (
	"encoding/binary"
	"io"
	"testing"

	"bsdnet"
	"bsdnet/internal/testutil"
)

// TestMoreThanTheSequenceSpace sends more bytes over one connection than there are sequence
// numbers. A number that the stack remembers from long ago must not count as a later one (after
// 2^31 bytes), nor as the current one (after 2^32).
func TestMoreThanTheSequenceSpace(t *testing.T) {
	s := stack(t, bsdnet.Config{})
	c, p := testutil.Pair(t, s.Listen, s.Dial)
	const chunk, total = 64 << 10, 1<<32 + 1<<20
	go func() {
		b := make([]byte, chunk)
		for n := uint64(0); n < total; n += chunk {
			binary.BigEndian.PutUint64(b, n)
			if _, err := c.Write(b); err != nil {
				t.Error(err)
				break
			}
		}
		c.Close()
	}()
	b := make([]byte, chunk)
	for n := uint64(0); n < total; n += chunk {
		if _, err := io.ReadFull(p, b); err != nil || binary.BigEndian.Uint64(b) != n {
			t.Fatalf("after %d bytes: %d, %v", n, binary.BigEndian.Uint64(b), err)
		}
	}
	if n, err := p.Read(b); err != io.EOF {
		t.Errorf("at the end: %d, %v", n, err)
	}
}
