//go:build linux

package lab

import (
	"io"
	"sync"
	"time"

	"bsdnet/internal/kern/wire"
)

// A capture writes packets to a pcap file.
type capture struct {
	mu  sync.Mutex
	w   io.Writer
	err error
}

func newCapture(w io.Writer) *capture {
	c := &capture{w: w}
	h := wire.PcapHeader(MTU)
	_, c.err = w.Write(h[:])
	return c
}

// packet writes a packet with the current time. After an error it does nothing.
func (c *capture) packet(p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := wire.PcapRecord(time.Now().UnixNano(), len(p), len(p))
	if c.err == nil {
		_, c.err = c.w.Write(append(h[:], p...))
	}
}
