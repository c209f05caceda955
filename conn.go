package bsdnet

import (
	"io"
	"math"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"bsdnet/internal/kern"
)

// A TCPConn is a TCP connection: a [net.Conn] with the methods of [net.TCPConn], except
// SyscallConn, which would give access to a file descriptor; a TCPConn has none. Several goroutines
// may call its methods at the same time.
type TCPConn struct {
	so      *kern.Socket
	network string                    // as it was dialed, or listened on
	addrs   atomic.Pointer[connAddrs] // made by the first call that asks for one
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

// ownError returns the error of a call that concerns only this end, such as one that sets a
// deadline: it names one address, as package net's does.
func (c *TCPConn) ownError(call string, errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return &net.OpError{Op: "set", Net: c.network, Addr: c.addr().local, Err: sysError(call, errno)}
}

// opErrno is opError for the errno of a system call. It returns nil if errno is 0.
func (c *TCPConn) opErrno(op, call string, errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	err := sysError(call, errno)
	if errno == syscall.ETIMEDOUT { // the connection has ended; a deadline of the user's is no sign of trouble
		err = diagnose(err, c.so.Diagnose)
	}
	return c.opError(op, err)
}

// Read reads data that has arrived, and waits if there is none. It returns io.EOF when the peer has
// closed its side and all data has been read.
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

// Write queues all of b for transmission, and waits while the send buffer is full. The bytes of
// concurrent calls are not mixed.
func (c *TCPConn) Write(b []byte) (int, error) {
	n, errno := c.so.Sosend(b, 0)
	if errno != 0 {
		return n, c.opErrno("write", "write", errno)
	}
	return n, nil
}

// Close closes the connection. Data that has been written is still sent, unless SetLinger has set
// otherwise. If data has arrived that was not read, the peer gets a reset instead. Blocked calls
// return net.ErrClosed.
func (c *TCPConn) Close() error { return c.opErrno("close", "close", c.so.Soclose()) }

// CloseRead shuts down the reading side: Read returns the data that has arrived, and then io.EOF
// without waiting. With [ProfileFreeBSD] and [ProfileNet3] the stack discards the data that has
// arrived, and all that arrives later.
func (c *TCPConn) CloseRead() error {
	return c.opErrno("close", "shutdown", c.so.Soshutdown(kern.SHUT_RD))
}

// CloseWrite shuts down the writing side: the peer reads io.EOF after all data that was written. A
// second call changes nothing.
func (c *TCPConn) CloseWrite() error {
	return c.opErrno("close", "shutdown", c.so.Soshutdown(kern.SHUT_WR))
}

// LocalAddr returns the local address, a *net.TCPAddr.
func (c *TCPConn) LocalAddr() net.Addr { return c.addr().local }

// RemoteAddr returns the peer's address, a *net.TCPAddr.
func (c *TCPConn) RemoteAddr() net.Addr { return c.addr().remote }

// SetDeadline sets the deadlines of reads and writes. The zero time means none.
func (c *TCPConn) SetDeadline(t time.Time) error {
	return c.ownError("set", c.so.SetDeadlines(&t, &t))
}

// SetReadDeadline sets the deadline of reads, including blocked ones, which then fail with
// os.ErrDeadlineExceeded. The zero time means none.
func (c *TCPConn) SetReadDeadline(t time.Time) error {
	return c.ownError("set", c.so.SetDeadlines(&t, nil))
}

// SetWriteDeadline sets the deadline of writes, including blocked ones, which then fail with
// os.ErrDeadlineExceeded. The zero time means none.
func (c *TCPConn) SetWriteDeadline(t time.Time) error {
	return c.ownError("set", c.so.SetDeadlines(nil, &t))
}

// setsockopt sets an option, on an open connection.
func (c *TCPConn) setsockopt(level, name, val int) error {
	return c.opErrno("set", "setsockopt", c.so.Sosetopt(level, name, val))
}

// SetLinger sets what Close does with data that the peer has not acknowledged yet. If sec < 0,
// which is the default, the data is sent in the background. If sec is 0, the data is discarded and
// the connection is reset. If sec > 0, Close waits up to sec seconds, at most 65535, and data that
// is left then is sent in the background.
func (c *TCPConn) SetLinger(sec int) error {
	return c.opErrno("set", "setsockopt", c.so.Setlinger(sec >= 0, min(max(sec, 0), math.MaxUint16)))
}

// SetUserTimeout sets how long data may stay unacknowledged, or unsent because the peer's window is
// closed, before the connection ends with syscall.ETIMEDOUT (RFC 5482). The time is rounded up to
// seconds; 0, the default, leaves it to TCP, which gives up after about ten minutes. If d is
// negative, the error wraps syscall.EINVAL. An idle connection that is probed by keep-alive ends at
// the first probe after that time, whatever the number of probes, as with Linux's TCP_USER_TIMEOUT.
// With [ProfileFreeBSD] and [ProfileNet3] it is FreeBSD's TCP_MAXUNACKTIME, which is checked when a
// retransmission is due, and only for data in flight.
func (c *TCPConn) SetUserTimeout(d time.Duration) error {
	return c.setsockopt(kern.IPPROTO_TCP, kern.TCP_MAXUNACKTIME, seconds(d))
}

// SetNoDelay sets whether small segments are sent at once. The default is true; false enables
// Nagle's algorithm (RFC 9293, 3.7.4), which holds them back while data is unacknowledged.
func (c *TCPConn) SetNoDelay(noDelay bool) error {
	return c.setsockopt(kern.IPPROTO_TCP, kern.TCP_NODELAY, btoi(noDelay))
}

// SetCongestionControl chooses the algorithm that decides how fast the connection sends: one of
// those that [TCPConfig] names. It may be called at any time. If there is no such algorithm, the
// error wraps syscall.ENOENT.
func (c *TCPConn) SetCongestionControl(name string) error {
	return c.opErrno("set", "setsockopt", c.so.Setcongestion(name))
}

// SetKeepAlive sets whether an idle connection sends keep-alive probes. The default is true.
func (c *TCPConn) SetKeepAlive(keepalive bool) error {
	return c.setsockopt(kern.SOL_SOCKET, int(kern.SO_KEEPALIVE), btoi(keepalive))
}

// SetKeepAlivePeriod sets the idle time before the first keep-alive probe, rounded up to seconds.
// If d is 0, it is the default of 15 s; if d is negative, the time stays as it is.
func (c *TCPConn) SetKeepAlivePeriod(d time.Duration) error {
	if d < 0 {
		return nil
	}
	return c.setsockopt(kern.IPPROTO_TCP, kern.TCP_KEEPIDLE, seconds(d))
}

// SetKeepAliveConfig configures keep-alive probes. A zero Idle is 15 s, a zero Interval 15 s and a
// zero Count 9; a negative field changes nothing.
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

// seconds rounds d up. It returns -1 if d is negative.
func seconds(d time.Duration) int {
	if d < 0 {
		return -1
	}
	return int((d + time.Second - 1) / time.Second)
}

// SetReadBuffer sets the size of the receive buffer in bytes; from then on the buffer does not
// grow. A size out of range counts as the nearest that the stack allows: at least 1 KiB, and with
// [ProfileDefault] at most 7.1 MiB.
func (c *TCPConn) SetReadBuffer(bytes int) error {
	return c.ownError("setsockopt", c.so.Sosetopt(kern.SOL_SOCKET, kern.SO_RCVBUF, c.so.Clampbuf(bytes)))
}

// SetWriteBuffer sets the size of the send buffer in bytes; from then on the buffer does not grow.
// The limits are those of [TCPConn.SetReadBuffer].
func (c *TCPConn) SetWriteBuffer(bytes int) error {
	return c.ownError("setsockopt", c.so.Sosetopt(kern.SOL_SOCKET, kern.SO_SNDBUF, c.so.Clampbuf(bytes)))
}

// File fails, as there is no file descriptor: the error wraps syscall.EOPNOTSUPP, which
// errors.ErrUnsupported matches, or net.ErrClosed after Close.
func (c *TCPConn) File() (*os.File, error) {
	return nil, c.opErrno("file", "dup", noFile(c.so))
}

// noFile returns the errno of File.
func noFile(so *kern.Socket) syscall.Errno {
	if errno := so.Closed(); errno != 0 {
		return errno
	}
	return syscall.EOPNOTSUPP
}

// MultipathTCP returns false: the stack has no Multipath TCP.
func (c *TCPConn) MultipathTCP() (bool, error) { return false, nil }

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
