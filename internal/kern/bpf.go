package kern

import (
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// A bpf is a tap on an interface. It writes the packets that pass to a capture file, as they are on
// a wire: chains are cut, and checksums filled in.
//
// As BSD's, it has two buffers. The goroutine that a packet passes on puts it into the store;
// another writes the hold to w, and ends when nothing is left. If w takes too little, packets are
// dropped and counted, because a slow viewer must not stop an interface.
type bpf struct {
	k *Kernel

	mu             sync.Mutex // a leaf
	w              io.Writer
	filters        []Filter
	hbuf           []byte // the cutter's
	bufs           net.Buffers
	line           []byte
	store, hold    []byte        // records, as in the file
	writing        bool          // a goroutine is writing
	late           bool          // since the buffers were last swapped, a packet has waited for room in vain
	since          int64         // when w last took something, or got work after it had none
	moved          chan struct{} // closed when the buffers are swapped or all is written; nil if no goroutine waits
	stopped        bool
	err            error
	taken, dropped uint64 // packets
}

const (
	bpfBufsize = 4 << 20                // bytes of each buffer: net.bpf.bufsize
	bpfWait    = 50 * time.Millisecond  // how long a full store holds one packet up before it drops
	bpfStop    = 2 * time.Second        // how long stop waits for a w that takes nothing
	bpfClose   = 200 * time.Millisecond // how long Close of the stack waits for w
)

// A Filter says how many bytes of a packet a capture takes. If it says none, the capture does not
// count the packet. It has the method of bpf.VM in golang.org/x/net/bpf.
type Filter interface {
	Run(packet []byte) (int, error)
}

// Capture writes a capture of everything that passes the interface and the filters, if there are
// any, to w, in the format of tcpdump and Wireshark (nanosecond pcap, raw IP), until stop is
// called, which returns the first error of w. An interface has one capture at a time; a second one
// replaces it.
func (ifp *Ifnet) Capture(w io.Writer, filters ...Filter) (stop func() error, err error) {
	h := wire.PcapHeader(wire.MaxPacket)
	if _, err := w.Write(h[:]); err != nil {
		return nil, fmt.Errorf("bsdnet: capture on %s: %w", ifp.Name, err)
	}
	b := &bpf{k: ifp.k, w: w, filters: filters}
	if old := ifp.tap.Swap(b); old != nil {
		old.end()
	}
	return func() error {
		ifp.tap.CompareAndSwap(b, nil)
		return b.stop()
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
	if b.stopped || b.err != nil {
		return
	}
	t := b.k.wall().UnixNano()
	if m.Pkt.Csum&mbuf.CsumPartial == 0 {
		b.line = b.line[:0]
		for d := m; d != nil; d = d.Next() {
			b.line = append(b.line, d.Bytes()...)
		}
		b.catch(t, b.line)
		return
	}
	var c cutter
	for c.start(m, false, false); c.more(); {
		b.hbuf, b.bufs = c.next(b.hbuf[:0], b.bufs[:0])
		b.line = b.line[:0]
		for _, d := range b.bufs {
			b.line = append(b.line, d...)
		}
		b.catch(t, b.line)
	}
}

// catch puts a packet into the store: BSD's catchpacket. The lock is held.
func (b *bpf) catch(t int64, p []byte) {
	n := len(p)
	for _, f := range b.filters {
		take, err := f.Run(p)
		if err != nil || take <= 0 {
			return
		}
		n = min(n, take)
	}
	h := wire.PcapRecord(t, n, len(p))
	if b.full(n) {
		if b.late {
			b.dropped++
			return
		}
		p = append([]byte(nil), p...) // other packets may use the tap's line while this one waits
		if !b.awaitRoom(n) {
			b.dropped++
			return
		}
	}
	b.taken++
	b.store = append(append(b.store, h[:]...), p[:n]...)
	if !b.writing {
		b.writing, b.since = true, b.k.now()
		go b.write()
	}
}

// full reports whether a packet of n bytes has to wait. The lock is held.
func (b *bpf) full(n int) bool {
	return len(b.store) > 0 && len(b.store)+wire.PcapRecordLen+n > bpfBufsize
}

// awaitRoom waits for room for a packet of n bytes, and reports whether there is room. So a capture
// is whole if w is only a little slower than the interface. If w is much slower, one packet waits
// each time that the buffers are swapped, and the others are dropped at once. The lock is held,
// except while it waits.
func (b *bpf) awaitRoom(n int) bool {
	for end := b.k.now() + int64(bpfWait); b.full(n) && !b.late && b.err == nil && !b.stopped; {
		if !b.await(end) {
			b.late = true
		}
	}
	return !b.full(n) && b.err == nil && !b.stopped
}

// await waits until the buffers are swapped or all is written, and returns true, or until end, and
// returns false. The lock is held, except while it waits.
func (b *bpf) await(end int64) bool {
	left := time.Duration(end - b.k.now())
	if left <= 0 {
		return false
	}
	if b.moved == nil {
		b.moved = make(chan struct{})
	}
	moved := b.moved
	b.mu.Unlock()
	defer b.mu.Lock()
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-moved:
		return true
	case <-timer.C:
		return false
	}
}

// move wakes the goroutines in await. The lock is held.
func (b *bpf) move() {
	if b.moved != nil {
		close(b.moved)
		b.moved = nil
	}
}

// write is the goroutine that writes what the buffers hold, with a call of w for each packet. It is
// BSD's reader of the device.
func (b *bpf) write() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.store) > 0 && b.err == nil {
		b.store, b.hold, b.late = b.hold[:0], b.store, false
		b.move()
		for p := b.hold; len(p) > 0 && b.err == nil; {
			n := wire.PcapRecordLen + wire.PcapCaptured(p)
			b.mu.Unlock()
			k, err := b.w.Write(p[:n])
			b.mu.Lock()
			if err == nil && k < n {
				err = io.ErrShortWrite
			}
			if b.err == nil {
				b.err = err
			}
			b.since = b.k.now()
			p = p[n:]
		}
	}
	b.writing = false
	b.move()
}

// end ends the capture. The goroutine still writes what the buffers hold.
func (b *bpf) end() {
	b.mu.Lock()
	b.stopped = true
	b.move()
	b.mu.Unlock()
}

// settle waits until all has been written, but no longer than limit.
func (b *bpf) settle(limit time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for end := b.k.now() + int64(limit); b.writing && b.await(end); {
	}
}

// stop ends a capture and waits until all has been written. It gives up if w takes nothing for
// bpfStop. It returns the first error of w.
func (b *bpf) stop() error {
	b.end()
	b.mu.Lock()
	defer b.mu.Unlock()
	for began := b.k.now(); b.writing; {
		if !b.await(max(b.since, began)+int64(bpfStop)) && max(b.since, began)+int64(bpfStop) <= b.k.now() {
			b.err = fmt.Errorf(
				"bsdnet: capture: the writer has taken nothing for %v; what has been captured since is lost", bpfStop)
			break
		}
	}
	return b.err
}

// bpfCounts returns how many packets a capture has taken, and how many it has dropped because its
// writer took too little: BSD's BIOCGSTATS.
func (ifp *Ifnet) bpfCounts() (taken, dropped uint64) {
	if b := ifp.tap.Load(); b != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.taken, b.dropped
	}
	return 0, 0
}
