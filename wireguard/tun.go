package wireguard

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"

	"bsdnet"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/tun"
)

// batchLen is how many packets the device reads and writes at once.
const batchLen = conn.IdealBatchSize

// pipeTUN is a [tun.Device] on one end of a pipe. The device reads the packets that the stack at
// the other end writes, and writes packets to the stack. If the stack is slow, the device waits
// and, in the end, the sender too. Before the stack has started, packets to it are lost, as on an
// interface that is down.
type pipeTUN struct {
	end    bsdnet.Link
	events chan tun.Event // no event is ever sent
	up     chan struct{}  // closed when the stack has started
	ready  chan struct{}  // signals that the pipe may have room
	closed chan struct{}  // closed by Close
	once   sync.Once      // used by Close

	rbufs  [][]byte      // Read's buffers; only one goroutine calls Read
	batch  uint64        // how many packets the last Read has returned
	passed atomic.Uint64 // how many packets earlier calls have returned

	wmu   sync.Mutex    // allows one Write at a time; the device has a goroutine per peer
	wpkts []net.Buffers // Write's packets, each of one piece
	wbufs [batchLen][1][]byte
}

var _ tun.Device = (*pipeTUN)(nil)

// newTUN starts end. up is closed when a stack reads at the other end.
func newTUN(end bsdnet.Link, up chan struct{}) (*pipeTUN, error) {
	t := &pipeTUN{
		end: end, up: up,
		events: make(chan tun.Event),
		ready:  make(chan struct{}, 1),
		closed: make(chan struct{}),
		rbufs:  make([][]byte, batchLen),
		wpkts:  make([]net.Buffers, batchLen),
	}
	for i := range t.wpkts {
		t.wpkts[i] = t.wbufs[i][:]
	}
	return t, end.Start(t.wake)
}

func (t *pipeTUN) wake() {
	select {
	case t.ready <- struct{}{}:
	default:
	}
}

// Read implements [tun.Device].
func (t *pipeTUN) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	t.passed.Add(t.batch) // the device calls Read again when it has queued them for its peers
	n := min(len(bufs), len(t.rbufs))
	mtu := t.end.MTU()
	for i := range n {
		t.rbufs[i] = bufs[i][offset : offset+mtu]
	}
	n, err := t.end.Read(t.rbufs[:n], sizes)
	t.batch = uint64(n)
	return n, closedErr(err)
}

// Write implements [tun.Device]. It waits until the pipe has taken all packets.
func (t *pipeTUN) Write(bufs [][]byte, offset int) (int, error) {
	t.wmu.Lock()
	defer t.wmu.Unlock()
	select {
	case <-t.up:
	default:
		return len(bufs), nil
	}
	for done := 0; done < len(bufs); {
		n := min(len(bufs)-done, batchLen)
		for i, b := range bufs[done : done+n] {
			t.wbufs[i][0] = b[offset:]
		}
		if err := t.writeAll(t.wpkts[:n]); err != nil {
			return done, closedErr(err)
		}
		done += n
	}
	return len(bufs), nil
}

func (t *pipeTUN) writeAll(pkts []net.Buffers) error {
	for {
		n, err := t.end.Write(pkts)
		if err != nil {
			return err
		}
		if pkts = pkts[n:]; len(pkts) == 0 {
			return nil
		}
		select {
		case <-t.ready:
		case <-t.closed:
			return net.ErrClosed
		}
	}
}

// closedErr returns os.ErrClosed instead of net.ErrClosed, because the device knows only the
// former.
func closedErr(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return os.ErrClosed
	}
	return err
}

// Close implements [tun.Device]. It ends Read and Write.
func (t *pipeTUN) Close() error {
	err := os.ErrClosed
	t.once.Do(func() {
		close(t.closed)
		close(t.events)
		err = t.end.Close()
	})
	return err
}

// The other methods of [tun.Device].
func (t *pipeTUN) File() *os.File           { return nil }
func (t *pipeTUN) MTU() (int, error)        { return t.end.MTU(), nil }
func (t *pipeTUN) Name() (string, error)    { return "bsdnet", nil }
func (t *pipeTUN) Events() <-chan tun.Event { return t.events }
func (t *pipeTUN) BatchSize() int           { return batchLen }
