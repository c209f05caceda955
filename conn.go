package bsdnet

import (
	"errors"
	"io"
	"math"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"bsdnet/internal/kern"
)

// A TCPConn is a TCP connection: a [net.Conn] with the methods of [net.TCPConn], except SyscallConn: it gives access to a
// file descriptor, and there is none. The methods may be called from several goroutines at once.
type TCPConn struct {
	so      *kern.Socket
	network string                    // as it was dialed, or listened on
	addrs   atomic.Pointer[connAddrs] // made when somebody first asks
}

// connAddrs are a connection's addresses in package net's form.
type connAddrs struct{ local, remote *net.TCPAddr }

var _ net.Conn = (*TCPConn)(nil)

func newTCPConn(so *kern.Socket, network string) *TCPConn { return &TCPConn{so: so, network: network} }

// addr returns the addresses, always the same pointers.
func (c *TCPConn) addr() *connAddrs {
	if a := c.addrs.Load(); a != nil {
		return a
	}
	l, r := c.so.Addrs()
	c.addrs.CompareAndSwap(nil, &connAddrs{net.TCPAddrFromAddrPort(l), net.TCPAddrFromAddrPort(r)})
	return c.addrs.Load()
}

func (c *TCPConn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: c.network, Source: c.addr().local, Addr: c.addr().remote, Err: err}
}

// ownError is what package net returns where only our side is concerned: deadlines and buffers.
func (c *TCPConn) ownError(call string, errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return &net.OpError{Op: "set", Net: c.network, Addr: c.addr().local, Err: sysError(call, errno)}
}

// opErrno is opError for the errno of a system call; nil for 0.
func (c *TCPConn) opErrno(op, call string, errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return c.opError(op, sysError(call, errno))
}

// Read reads what has arrived, and waits while there is nothing. io.EOF: the peer has closed its side, and everything has been read.
func (c *TCPConn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, c.opErrno("read", "read", c.so.Closed()) // at once, whatever the deadline and other readers
	}
	n, errno := c.so.Soreceive(b, 0)
	if errno != 0 {
		return n, c.opErrno("read", "read", errno)
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// Write queues all of b for transmission, and waits while the send buffer is full. The bytes of concurrent calls are not mixed.
func (c *TCPConn) Write(b []byte) (int, error) {
	n, errno := c.so.Sosend(b, 0)
	if errno != 0 {
		return n, c.opErrno("write", "write", errno)
	}
	return n, nil
}

// Close closes the connection. What has been written is still sent, unless SetLinger says otherwise, or data has arrived that nobody has read:
// then the peer sees a reset. Blocked calls return net.ErrClosed.
func (c *TCPConn) Close() error { return c.opErrno("close", "close", c.so.Soclose()) }

// CloseRead shuts down the reading side: Read returns what has arrived, and then io.EOF without waiting. In the profiles "FreeBSD" and "Net3" what has
// arrived, and what still comes, is thrown away.
func (c *TCPConn) CloseRead() error {
	return c.opErrno("close", "shutdown", c.so.Soshutdown(kern.SHUT_RD))
}

// CloseWrite shuts down the writing side: the peer reads io.EOF after all that was written. Doing so twice changes nothing.
func (c *TCPConn) CloseWrite() error {
	return c.opErrno("close", "shutdown", c.so.Soshutdown(kern.SHUT_WR))
}

// LocalAddr returns the local address, a *net.TCPAddr.
func (c *TCPConn) LocalAddr() net.Addr { return c.addr().local }

// RemoteAddr returns the peer's address, a *net.TCPAddr.
func (c *TCPConn) RemoteAddr() net.Addr { return c.addr().remote }

// SetDeadline sets the deadlines of reads and writes. The zero time: none.
func (c *TCPConn) SetDeadline(t time.Time) error {
	return c.ownError("set", c.so.SetDeadlines(&t, &t))
}

// SetReadDeadline sets the deadline of reads, blocked ones too; they fail with os.ErrDeadlineExceeded. The zero time: none.
func (c *TCPConn) SetReadDeadline(t time.Time) error {
	return c.ownError("set", c.so.SetDeadlines(&t, nil))
}

// SetWriteDeadline sets the deadline of writes, blocked ones too. The zero time: none.
func (c *TCPConn) SetWriteDeadline(t time.Time) error {
	return c.ownError("set", c.so.SetDeadlines(nil, &t))
}

// setsockopt sets an option, on an open connection.
func (c *TCPConn) setsockopt(level, name, val int) error {
	return c.opErrno("set", "setsockopt", c.so.Sosetopt(level, name, val))
}

// SetLinger sets what Close does with data that is not yet acknowledged. sec < 0 (the default): it is sent in the background; 0: it is discarded and
// the connection reset; > 0: Close waits up to sec seconds, 65535 at the most, and what is left then is sent in the background.
func (c *TCPConn) SetLinger(sec int) error {
	return c.opErrno("set", "setsockopt", c.so.Setlinger(sec >= 0, min(max(sec, 0), math.MaxUint16)))
}

// SetUserTimeout sets how long what has been written may stay unacknowledged, or unsent as the peer's window is closed, until the connection ends with
// syscall.ETIMEDOUT (RFC 5482), rounded up to seconds. An idle connection that is probed by keep-alive ends at the first probe behind that time, however many
// probes there should be: Linux's TCP_USER_TIMEOUT. 0: as long as TCP tries, some ten minutes; the default. Negative: syscall.EINVAL. In the
// profiles "FreeBSD" and "Net3" it is FreeBSD's TCP_MAXUNACKTIME: looked at when a retransmission is due, and for data in flight only.
func (c *TCPConn) SetUserTimeout(d time.Duration) error {
	return c.setsockopt(kern.IPPROTO_TCP, kern.TCP_MAXUNACKTIME, seconds(d))
}

// SetNoDelay switches Nagle's algorithm off, which is the default, or on.
func (c *TCPConn) SetNoDelay(noDelay bool) error {
	return c.setsockopt(kern.IPPROTO_TCP, kern.TCP_NODELAY, btoi(noDelay))
}

// SetCongestionControl chooses the algorithm that decides how fast the connection sends, one of those of [TCPConfig], at any time. If there is none of that
// name, the error wraps syscall.ENOENT.
func (c *TCPConn) SetCongestionControl(name string) error {
	return c.opErrno("set", "setsockopt", c.so.Setcongestion(name))
}

// SetKeepAlive switches keep-alive probes on, which is the default, or off.
func (c *TCPConn) SetKeepAlive(keepalive bool) error {
	return c.setsockopt(kern.SOL_SOCKET, int(kern.SO_KEEPALIVE), btoi(keepalive))
}

// SetKeepAlivePeriod sets the idle time before the first probe, rounded up to seconds. 0: the default of 15 s; negative: it is left as it is.
func (c *TCPConn) SetKeepAlivePeriod(d time.Duration) error {
	if d < 0 {
		return nil
	}
	return c.setsockopt(kern.IPPROTO_TCP, kern.TCP_KEEPIDLE, seconds(d))
}

// SetKeepAliveConfig configures keep-alive probes. Zero fields take the defaults, 15 s, 15 s and 9; negative ones are left as they are.
func (c *TCPConn) SetKeepAliveConfig(config net.KeepAliveConfig) error {
	return setKeepAlive(c.so, config, c.setsockopt)
}

func setKeepAlive(so *kern.Socket, config net.KeepAliveConfig, set func(level, name, val int) error) error {
	if err := set(kern.SOL_SOCKET, int(kern.SO_KEEPALIVE), btoi(config.Enable)); err != nil {
		return err
	}
	for _, o := range []struct{ name, val int }{
		{kern.TCP_KEEPIDLE, seconds(config.Idle)},
		{kern.TCP_KEEPINTVL, seconds(config.Interval)},
		{kern.TCP_KEEPCNT, config.Count},
	} {
		if o.val >= 0 {
			if err := set(kern.IPPROTO_TCP, o.name, o.val); err != nil {
				return err
			}
		}
	}
	return nil
}

// seconds rounds up, and keeps the sign.
func seconds(d time.Duration) int {
	if d < 0 {
		return -1
	}
	return int((d + time.Second - 1) / time.Second)
}

// SetReadBuffer sets the size of the receive buffer in bytes, which then does not grow any more. Of a size that the stack does not allow it takes the
// nearest that it does: 1 KiB to, in the profile Default, 7.1 MiB.
func (c *TCPConn) SetReadBuffer(bytes int) error {
	return c.ownError("setsockopt", c.so.Sosetopt(kern.SOL_SOCKET, kern.SO_RCVBUF, c.so.Clampbuf(bytes)))
}

// SetWriteBuffer sets the size of the send buffer in bytes, which then does not grow any more; see [TCPConn.SetReadBuffer].
func (c *TCPConn) SetWriteBuffer(bytes int) error {
	return c.ownError("setsockopt", c.so.Sosetopt(kern.SOL_SOCKET, kern.SO_SNDBUF, c.so.Clampbuf(bytes)))
}

// File fails with syscall.EOPNOTSUPP, which is errors.ErrUnsupported by errors.Is: there is no file descriptor. After Close it fails with net.ErrClosed.
func (c *TCPConn) File() (*os.File, error) {
	return nil, c.opErrno("file", "dup", noFile(c.so))
}

// noFile is the errno of a socket that has no descriptor.
func noFile(so *kern.Socket) syscall.Errno {
	if errno := so.Closed(); errno != 0 {
		return errno
	}
	return syscall.EOPNOTSUPP
}

// MultipathTCP returns false: there is none.
func (c *TCPConn) MultipathTCP() (bool, error) { return false, nil }

// The buffers of ReadFrom and WriteTo. A proxy has most of its connections idle, in a Read that waits, so one that waits has none, or if only the
// reader knows when there is something, a small one.
var (
	copyBufs = sync.Pool{New: func() any { return new([64 << 10]byte) }}
	waitBufs = sync.Pool{New: func() any { return new([waitBuf]byte) }}
)

// waitBuf is the size of a small buffer.
const waitBuf = 2 << 10

// ReadFrom writes all that r has to give: io.ReaderFrom.
func (c *TCPConn) ReadFrom(r io.Reader) (int64, error) {
	n, more, err := int64(0), true, error(nil)
	for more && err == nil {
		var k int64
		k, more, err = c.readFromSmall(r)
		n += k
		if more && err == nil {
			k, more, err = c.readFromLarge(r)
			n += k
		}
	}
	return n, c.copyError("readfrom", err)
}

// readFromSmall copies through a small buffer until r has filled it, and so has more. It reports false at the end of r.
func (c *TCPConn) readFromSmall(r io.Reader) (n int64, more bool, err error) {
	buf := waitBufs.Get().(*[waitBuf]byte)
	defer waitBufs.Put(buf)
	return c.readFrom(r, buf[:], func(k int) bool { return k < len(buf) })
}

// readFromLarge copies through a large buffer for as long as r fills it: the next Read may have to wait.
func (c *TCPConn) readFromLarge(r io.Reader) (n int64, more bool, err error) {
	buf := copyBufs.Get().(*[64 << 10]byte)
	defer copyBufs.Put(buf)
	return c.readFrom(r, buf[:], func(k int) bool { return k == len(buf) })
}

// readFrom copies through buf for as long as on says so of the bytes that r gave at once.
func (c *TCPConn) readFrom(r io.Reader, buf []byte, on func(k int) bool) (n int64, more bool, err error) {
	for {
		k, rerr := r.Read(buf)
		if k < 0 || k > len(buf) {
			return n, false, errBadRead
		}
		if k > 0 {
			w, werr := c.Write(buf[:k])
			if n += int64(w); werr != nil {
				return n, false, werr
			}
		}
		if rerr != nil {
			return n, false, rerr
		}
		if !on(k) {
			return n, true, nil
		}
	}
}

// WriteTo writes all that arrives, until the peer closes its side, to w: io.WriterTo.
func (c *TCPConn) WriteTo(w io.Writer) (int64, error) {
	n, more, err := int64(0), true, error(nil)
	for more && err == nil {
		if err = c.opErrno("read", "read", c.so.Sorcvwait()); err == nil {
			var k int64
			k, more, err = c.writeWhatIs(w)
			n += k
		}
	}
	return n, c.copyError("writeto", err)
}

// writeWhatIs writes what has arrived. It reports false at the end of the stream.
func (c *TCPConn) writeWhatIs(w io.Writer) (n int64, more bool, err error) {
	buf := copyBufs.Get().(*[64 << 10]byte)
	defer copyBufs.Put(buf)
	for {
		k, errno := c.so.Soreceive(buf[:], kern.MSG_DONTWAIT)
		switch {
		case errno == syscall.EAGAIN:
			return n, true, nil // or its deadline has passed, which Sorcvwait says
		case errno != 0:
			return n, false, c.opErrno("read", "read", errno)
		case k == 0:
			return n, false, nil
		}
		j, err := w.Write(buf[:k])
		n += int64(max(min(j, k), 0))
		switch {
		case j < 0 || j > k:
			return n, false, errBadWrite
		case err != nil:
			return n, false, err
		case j < k:
			return n, false, io.ErrShortWrite
		}
	}
}

// What io.Copy says of readers and writers that break their contract.
var (
	errBadRead  = errors.New("bsdnet: the reader returned an invalid count from Read")
	errBadWrite = errors.New("bsdnet: the writer returned an invalid count from Write")
)

func (c *TCPConn) copyError(op string, err error) error {
	if err == nil || err == io.EOF {
		return nil
	}
	return c.opError(op, err)
}

// WriteBuffers writes all of v with as few segments as if it were one slice, and consumes what was written, as net.Buffers does on a
// *net.TCPConn.
func (c *TCPConn) WriteBuffers(v *net.Buffers) (int64, error) {
	n, errno := c.so.Sosendv(*v)
	for left := n; len(*v) > 0; *v = (*v)[1:] {
		if b := (*v)[0]; left < len(b) || errno != 0 && left == 0 {
			(*v)[0] = b[left:]
			break
		}
		left -= len((*v)[0])
		(*v)[0] = nil
	}
	return int64(n), c.opErrno("write", "writev", errno)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
