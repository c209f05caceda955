//go:build linux

package tun

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"bsdnet/internal/link"
)

// A Link is a TUN device of Linux: one end of it is the stack, the other the kernel's IP. It is a
// bsdnet.Link, UDPOffloadLink and QueueLink.
//
// Its methods never block a thread in a system call: reads, and the wait for a device that takes no
// more packets, go through Go's network poller. A device that is down loses packets. If the device
// is removed, Read returns an error.
type Link struct {
	name    string
	mtu     int
	queues  []*queue
	isTUN   bool // the descriptors are of a TUN device, not a socket
	vnet    bool // each packet on the descriptors has a virtio-net header
	allowed bool // offloads may be used
	offload bool // the stack uses offloads, and makes and reads the headers itself
	unsure  bool // a struct tun_pi of 4 bytes may come before each packet
	ready   func()

	state   link.State
	mu      sync.Mutex     // guards changes of state
	waiters sync.WaitGroup // goroutines that wait for room; started with mu held
}

var (
	_ link.UDPOffloadLink = (*Link)(nil)
	_ link.QueueLink      = (*Link)(nil)
)

// open opens a device, or makes one.
func open(config *Config) (*Link, error) {
	t := &Link{allowed: !config.NoOffload}
	var err error
	if config.File != nil {
		err = t.adopt(config.File)
	} else {
		err = t.open(config.Name, max(config.Queues, 1))
	}
	if err == nil {
		err = t.configure(config)
	}
	if err != nil {
		t.closeQueues()
		return nil, err
	}
	return t, nil
}

// Name returns the device's name. If the Link's File is a socket, it returns "".
func (t *Link) Name() string { return t.name }

// MTU implements bsdnet.Link.
func (t *Link) MTU() int { return t.mtu }

// Queues implements bsdnet.QueueLink.
func (t *Link) Queues() int { return len(t.queues) }

// Offload implements bsdnet.OffloadLink: the kernel then sends and takes chains of up to 64 KiB
// with partial checksums. It returns false if NoOffload is set, or if the system or the descriptor
// does not support offloads.
func (t *Link) Offload() bool {
	if !t.allowed || !t.vnet || t.state.Load() != link.New {
		return false
	}
	t.offload = t.setOffload(offloadTCP) == nil
	return t.offload
}

// OffloadUDP implements bsdnet.UDPOffloadLink. It returns false if the stack does not use offloads,
// and on Linux before 6.2.
func (t *Link) OffloadUDP() bool {
	if !t.offload || t.state.Load() != link.New {
		return false
	}
	// If the kernel does not know a flag, it changes nothing.
	return t.setOffload(offloadTCP|tunUSO4|tunUSO6) == nil
}

// The kernel's names for the work that it leaves to the reader of the device (linux/if_tun.h).
// Package unix does not have the last two.
const (
	offloadTCP = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
	tunUSO4    = 0x20 // TUN_F_USO4
	tunUSO6    = 0x40 // TUN_F_USO6
)

// setOffload tells the kernel which work it may leave to the reader of the device (TUNSETOFFLOAD).
func (t *Link) setOffload(flags int) error {
	return t.queues[0].control(func(fd int) error { return unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, flags) })
}

// Start implements bsdnet.Link.
func (t *Link) Start(ready func()) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.state.StartError("tun", ready); err != nil {
		return err
	}
	if t.vnet && !t.offload {
		// The descriptor may have been set up for another reader. If the device cannot do this, it
		// has no offloads.
		t.setOffload(0)
	}
	t.ready = ready
	t.state.Store(link.Started)
	return nil
}

// Read implements bsdnet.Link. It reads from the first queue.
func (t *Link) Read(bufs [][]byte, sizes []int) (int, error) { return t.ReadQueue(0, bufs, sizes) }

// Write implements bsdnet.Link. It writes to the first queue.
func (t *Link) Write(pkts []net.Buffers) (int, error) { return t.WriteQueue(0, pkts) }

// Close implements bsdnet.Link. If the device was made for this Link, it is removed.
func (t *Link) Close() error {
	t.mu.Lock()
	if t.state.Swap(link.Closed) == link.Closed {
		t.mu.Unlock()
		return net.ErrClosed
	}
	t.mu.Unlock()
	err := t.closeQueues()
	t.waiters.Wait()
	return err
}

func (t *Link) closeQueues() error {
	var errs []error
	for _, q := range t.queues {
		errs = append(errs, q.file.Close())
	}
	return errors.Join(errs...)
}

// fail returns err with the device's name. If the link is closed, it returns net.ErrClosed.
func (t *Link) fail(op string, err error) error {
	if t.state.Load() == link.Closed || errors.Is(err, os.ErrClosed) {
		return net.ErrClosed
	}
	if err == unix.EBADFD {
		return fmt.Errorf("tun: %s: %s: the device has been removed: %w", t.name, op, err)
	}
	return fmt.Errorf("tun: %s: %s: %w", t.name, op, err)
}

// vnetHdrLen is the length in bytes of the virtio-net header: struct virtio_net_hdr of OASIS virtio
// 1.2, 5.1.6, little endian, without num_buffers. Its fields are flags, gso_type, hdr_len,
// gso_size, csum_start and csum_offset.
const vnetHdrLen = 10

// A queue is one descriptor of the device.
type queue struct {
	t    *Link
	file *os.File
	rc   syscall.RawConn

	// The state of Read. Its functions are bound once, because a closure per call would be garbage.
	rd struct {
		f     func(fd uintptr) bool
		bufs  [][]byte
		sizes []int
		n     int
		err   error
		hdr   [vnetHdrLen]byte
	}
	writes  sync.Pool   // of *writeCall
	waiting atomic.Bool // a goroutine waits for room
}

func (t *Link) addQueue(fd int) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return fmt.Errorf("tun: %s: %w", t.name, err)
	}
	q := &queue{t: t, file: os.NewFile(uintptr(fd), "tun "+t.name)} // the poller takes it: it is non-blocking
	t.queues = append(t.queues, q)
	var err error
	if q.rc, err = q.file.SyscallConn(); err != nil {
		return fmt.Errorf("tun: %s: %w", t.name, err)
	}
	q.rd.f = q.readSome
	q.writes.New = func() any { return newWriteCall(q) }
	return nil
}

// control calls f with the descriptor.
func (q *queue) control(f func(fd int) error) (err error) {
	if cerr := q.rc.Control(func(fd uintptr) { err = f(int(fd)) }); cerr != nil {
		return cerr
	}
	return err
}

// ReadQueue implements bsdnet.QueueLink. It reads packets until the device has no more, or bufs is
// full.
func (t *Link) ReadQueue(i int, bufs [][]byte, sizes []int) (int, error) {
	if err := t.state.IOError("tun"); err != nil {
		return 0, err
	}
	if len(bufs) == 0 || len(sizes) == 0 {
		return 0, nil
	}
	q := t.queues[i]
	r := &q.rd
	r.bufs, r.sizes, r.n, r.err = bufs[:min(len(bufs), len(sizes))], sizes, 0, nil
	err := q.rc.Read(r.f)
	r.bufs, r.sizes = nil, nil
	if r.n > 0 {
		return r.n, nil // an error will come again
	}
	if err == nil {
		err = r.err
	} else if errno := q.ask(); errno != nil {
		err = errno // the poller only knows that there is an error
	}
	if err != nil {
		return 0, t.fail("read", err)
	}
	return 0, t.fail("read", io.EOF) // the other end of a socket is closed
}

// ask returns the error of the device's descriptor.
func (q *queue) ask() error {
	return q.control(func(fd int) error {
		_, err := unix.Read(fd, make([]byte, link.MaxPacket))
		if (err == nil || err == unix.EAGAIN) && q.t.isTUN {
			return unix.EBADFD // the device is being removed, and this queue does not know yet
		}
		return err
	})
}

// readSome reads packets until there are no more. If there was none, it returns false, so that the
// poller waits for one.
func (q *queue) readSome(fd uintptr) bool {
	r := &q.rd
	for r.n < len(r.bufs) {
		buf := r.bufs[r.n]
		n, err := q.readOne(int(fd), buf)
		switch {
		case err == unix.EAGAIN:
			return r.n > 0
		case err == unix.EINTR:
			continue
		case err == unix.ECONNRESET && !q.t.isTUN: // the socket's other end is being closed
			continue
		case err != nil:
			r.err = err
			return true
		case n == 0 && !q.t.isTUN && hungUp(int(fd)): // otherwise it is an empty packet
			return true
		case n == 0 || n == len(buf) && q.t.truncated(buf):
			continue
		case q.t.unsure && q.hasPI(buf[:n]):
			r.err = errPI
			return true
		}
		r.sizes[r.n] = n
		r.n++
	}
	return true
}

var errPI = errors.New("the device puts 4 bytes before each packet; open it with IFF_NO_PI")

// hungUp reports whether the other end of a socket is closed.
func hungUp(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	unix.Poll(p, 0)
	return p[0].Revents&(unix.POLLRDHUP|unix.POLLHUP) != 0
}

// hasPI reports whether the packet that has just been read has a struct tun_pi before it. If there
// are virtio-net headers, the struct comes before the header and is read as its first 4 bytes. As a
// header it would describe a packet that is no segment but has 8 or 56710 bytes of headers, which
// the kernel never sends.
func (q *queue) hasPI(p []byte) bool {
	if !q.t.vnet {
		return hasPI(p)
	}
	if !q.t.offload {
		p = q.rd.hdr[:]
	}
	if len(p) < vnetHdrLen || p[0] != 0 || p[1] != 0 {
		return false
	}
	proto := binary.BigEndian.Uint16(p[2:])
	return proto == unix.ETH_P_IP || proto == unix.ETH_P_IPV6
}

// hasPI reports whether an IP packet has a struct tun_pi before it: 2 bytes of flags, all zero, and
// the Ethernet protocol number.
func hasPI(p []byte) bool {
	if len(p) < 5 || p[0] != 0 || p[1] != 0 {
		return false
	}
	proto, version := binary.BigEndian.Uint16(p[2:]), p[4]>>4
	return proto == unix.ETH_P_IP && version == 4 || proto == unix.ETH_P_IPV6 && version == 6
}

// readOne reads a packet. If the stack does not use offloads, it leaves out the virtio-net header.
func (q *queue) readOne(fd int, buf []byte) (int, error) {
	if !q.t.vnet || q.t.offload {
		return unix.Read(fd, buf)
	}
	var iov [2]unix.Iovec
	iov[0].Base, iov[1].Base = &q.rd.hdr[0], unsafe.SliceData(buf)
	iov[0].SetLen(vnetHdrLen)
	iov[1].SetLen(len(buf))
	n, _, errno := unix.Syscall(unix.SYS_READV, uintptr(fd), uintptr(unsafe.Pointer(&iov)), 2)
	if errno != 0 {
		return 0, errno
	}
	return max(int(n)-vnetHdrLen, 0), nil
}

// truncated reports whether a packet that fills its buffer was cut, according to the length in its
// IP header.
func (t *Link) truncated(p []byte) bool {
	if t.offload {
		p = p[min(vnetHdrLen, len(p)):]
	}
	switch {
	case len(p) >= 20 && p[0]>>4 == 4:
		return int(binary.BigEndian.Uint16(p[2:])) > len(p)
	case len(p) >= 40 && p[0]>>4 == 6:
		return 40+int(binary.BigEndian.Uint16(p[4:])) > len(p)
	}
	return false
}

// A writeCall is the state of one call of Write. Each queue keeps those that are not in use.
type writeCall struct {
	q    *queue
	f    func(fd uintptr)
	pkts []net.Buffers
	n    int
	err  error
	iov  []unix.Iovec
	flat []byte // a copy of a packet that has more pieces than the kernel takes
}

func newWriteCall(q *queue) *writeCall {
	w := &writeCall{q: q}
	w.f = w.write
	return w
}

// WriteQueue implements bsdnet.QueueLink. If the device is down, or the kernel has no memory for a
// packet, it returns an error.
func (t *Link) WriteQueue(i int, pkts []net.Buffers) (int, error) {
	if err := t.state.IOError("tun"); err != nil {
		return 0, err
	}
	q := t.queues[i]
	w := q.writes.Get().(*writeCall)
	w.pkts, w.n, w.err = pkts, 0, nil
	err := q.rc.Control(w.f)
	n := w.n
	if err == nil {
		err = w.err
	}
	w.pkts = nil
	clear(w.iov)
	q.writes.Put(w)
	switch {
	case err == nil:
		return n, nil
	case err == unix.EAGAIN:
		q.await()
		return n, nil
	}
	if err = t.fail("write", err); err == net.ErrClosed {
		n = 0
	}
	return n, err
}

// noVnet is the header of a packet that needs no segmentation and has its checksum.
var noVnet [vnetHdrLen]byte

// write sends packets until the device takes no more.
func (w *writeCall) write(fd uintptr) {
	t := w.q.t
	for ; w.n < len(w.pkts); w.n++ {
		w.iov = w.iov[:0]
		if t.vnet && !t.offload {
			w.add(noVnet[:])
		}
		size := 0
		for _, b := range w.pkts[w.n] {
			if len(b) > 0 {
				w.add(b)
				size += len(b)
			}
		}
		if size == 0 || size > t.mtu && !t.offload || size > vnetHdrLen+link.MaxPacket {
			continue
		}
		if len(w.iov) > maxIovecs {
			w.flatten()
		}
		if w.err = w.send(fd); w.err != nil {
			return
		}
	}
}

// maxIovecs is how many pieces the kernel takes per packet (UIO_MAXIOV).
const maxIovecs = 1024

func (w *writeCall) add(b []byte) {
	v := unix.Iovec{Base: unsafe.SliceData(b)}
	v.SetLen(len(b))
	w.iov = append(w.iov, v)
}

// flatten copies the pieces of a packet into one.
func (w *writeCall) flatten() {
	w.flat = w.flat[:0]
	for _, v := range w.iov {
		w.flat = append(w.flat, unsafe.Slice(v.Base, v.Len)...)
	}
	clear(w.iov)
	w.iov = w.iov[:0]
	w.add(w.flat)
}

func (w *writeCall) send(fd uintptr) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&w.iov[0])), uintptr(len(w.iov)))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		case unix.EINVAL, unix.EMSGSIZE: // the device cannot carry this packet
			return nil
		case unix.ENOBUFS: // the queue of a socket is full; poll would say that it is writable
			return nil
		case unix.ECONNREFUSED, unix.ECONNRESET, unix.ENOTCONN: // the other end of a socket is closed
			return nil
		default:
			return errno
		}
	}
}

// await calls ready as soon as the device takes packets again.
func (q *queue) await() {
	t := q.t
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state.Load() != link.Started || q.waiting.Swap(true) {
		return
	}
	t.waiters.Go(func() {
		q.rc.Write(func(fd uintptr) bool {
			p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
			n, err := unix.Poll(p, 0)
			return n != 0 || err != nil && err != unix.EINTR
		})
		q.waiting.Store(false)
		if t.state.Load() == link.Started {
			t.ready()
		}
	})
}
