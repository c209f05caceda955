package kern

import (
	"fmt"
	"io"
	"net"
	"sync"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// bpf is a tap on an interface: it writes what passes to a capture file. Chains are cut and checksums filled in, as on a wire.
type bpf struct {
	k *Kernel

	mu   sync.Mutex
	w    io.Writer
	err  error
	hbuf []byte
	bufs net.Buffers
	line []byte
}

// Capture writes a capture of everything that passes the interface to w, in the format of tcpdump and Wireshark (nanosecond pcap, raw IP),
// until stop is called, which returns the first error of w. An interface has one capture at a time; a second one replaces it.
func (ifp *Ifnet) Capture(w io.Writer) (stop func() error, err error) {
	h := wire.PcapHeader(wire.MaxPacket)
	if _, err := w.Write(h[:]); err != nil {
		return nil, fmt.Errorf("bsdnet: capture on %s: %w", ifp.Name, err)
	}
	b := &bpf{k: ifp.k, w: w}
	ifp.tap.Store(b)
	return func() error {
		ifp.tap.CompareAndSwap(b, nil)
		b.mu.Lock()
		defer b.mu.Unlock()
		b.w = nil
		return b.err
	}, nil
}

// bpfMtap shows a packet to the tap: BSD's bpf_mtap. No lock of the stack is held.
func (ifp *Ifnet) bpfMtap(m *mbuf.Mbuf) {
	if b := ifp.tap.Load(); b != nil {
		b.packet(m)
	}
}

func (b *bpf) packet(m *mbuf.Mbuf) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.w == nil || b.err != nil {
		return
	}
	t := b.k.wall().UnixNano()
	if m.Pkt.Csum&mbuf.CsumPartial == 0 {
		b.line = b.line[:0]
		for d := m; d != nil; d = d.Next() {
			b.line = append(b.line, d.Bytes()...)
		}
		b.write(t, b.line)
		return
	}
	var c cutter
	for c.start(m, false); c.more(); {
		b.hbuf, b.bufs = c.next(b.hbuf[:0], b.bufs[:0])
		b.line = b.line[:0]
		for _, d := range b.bufs {
			b.line = append(b.line, d...)
		}
		b.write(t, b.line)
	}
}

func (b *bpf) write(t int64, p []byte) {
	h := wire.PcapRecord(t, len(p))
	if _, err := b.w.Write(append(h[:], p...)); err != nil && b.err == nil {
		b.err = err
	}
}
