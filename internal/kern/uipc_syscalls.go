package kern

import (
	"net/netip"
	"sync"
	"syscall"

	"bsdnet/internal/kern/tcp"
)

// A Proc is for tests and harnesses, which speak BSD's system calls; the facade calls a Socket's
// methods itself. It is the part of a process that sockets need: a table of descriptors on one
// stack, and the system calls on them. All errors are errnos. A call that blocks sleeps in its
// caller's goroutine.
type Proc struct {
	k *Kernel

	mu  sync.Mutex
	fds []*Socket // by descriptor; nil: free
}

// maxFds is RLIMIT_NOFILE.
const maxFds = 1 << 16

// NewProc makes a process. Descriptors count from 3, as in a program that a shell has started.
func (k *Kernel) NewProc() *Proc { return &Proc{k: k, fds: make([]*Socket, 3)} }

// falloc finds the lowest free descriptor for so: BSD's falloc. It fails with EMFILE if there is
// none.
func (p *Proc) falloc(so *Socket) (int, syscall.Errno) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for fd := 3; fd < len(p.fds); fd++ {
		if p.fds[fd] == nil {
			p.fds[fd] = so
			return fd, 0
		}
	}
	if len(p.fds) >= maxFds {
		return -1, syscall.EMFILE
	}
	p.fds = append(p.fds, so)
	return len(p.fds) - 1, 0
}

// getsock finds the socket of a descriptor: BSD's getsock. It fails with EBADF if there is none.
func (p *Proc) getsock(fd int) (*Socket, syscall.Errno) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if fd < 0 || fd >= len(p.fds) || p.fds[fd] == nil {
		return nil, syscall.EBADF
	}
	return p.fds[fd], 0
}

// Sock returns the socket of a descriptor, or nil.
func (p *Proc) Sock(fd int) *Socket {
	so, _ := p.getsock(fd)
	return so
}

// Socket is socket(2).
func (p *Proc) Socket(domain, typ, proto int) (fd int, errno syscall.Errno) {
	so, errno := p.k.Socreate(domain, typ, proto)
	if errno != 0 {
		return -1, errno
	}
	fd, errno = p.falloc(so)
	if errno != 0 {
		so.Soclose()
	}
	return fd, errno
}

// Bind is bind(2).
func (p *Proc) Bind(fd int, nam netip.AddrPort) syscall.Errno {
	so, errno := p.getsock(fd)
	if errno != 0 {
		return errno
	}
	return so.Sobind(nam)
}

// Listen is listen(2).
func (p *Proc) Listen(fd, backlog int) syscall.Errno {
	so, errno := p.getsock(fd)
	if errno != 0 {
		return errno
	}
	return so.Solisten(backlog)
}

// Accept is accept(2). It returns a descriptor and the peer's address. It fails with EWOULDBLOCK if
// there is no connection and the socket does not block.
func (p *Proc) Accept(fd int) (nfd int, nam netip.AddrPort, errno syscall.Errno) {
	so, errno := p.getsock(fd)
	if errno != 0 {
		return -1, nam, errno
	}
	aso, errno := so.Soaccept()
	if errno != 0 {
		return -1, nam, errno
	}
	nfd, errno = p.falloc(aso)
	if errno != 0 {
		aso.Soabort()
		return -1, nam, errno
	}
	return nfd, aso.sockaddr(aso.Faddr()), 0
}

// Connect is connect(2). If the socket does not block, it returns EINPROGRESS, and SO_ERROR has the
// result later.
func (p *Proc) Connect(fd int, nam netip.AddrPort) syscall.Errno {
	so, errno := p.getsock(fd)
	if errno != 0 {
		return errno
	}
	if errno := so.Soconnect(nam); errno != 0 {
		return errno
	}
	return so.Soconnectwait()
}

// Send is send(2). It returns how many bytes it has taken.
func (p *Proc) Send(fd int, b []byte, flags int) (int, syscall.Errno) {
	so, errno := p.getsock(fd)
	if errno != 0 {
		return -1, errno
	}
	n, errno := so.Sosend(b, flags)
	if n > 0 {
		errno = 0 // a part has been taken; the next call returns the error
	}
	return n, errno
}

// Sendto is sendto(2). It fails with EISCONN if the socket is connected and there is an address,
// except that a datagram goes to that address, as on Linux.
func (p *Proc) Sendto(fd int, b []byte, flags int, nam netip.AddrPort) (int, syscall.Errno) {
	so, errno := p.getsock(fd)
	if errno != 0 {
		return -1, errno
	}
	if so.dg != nil {
		return so.dgsendto(b, nam, flags)
	}
	if nam.IsValid() && so.Connected() {
		return -1, syscall.EISCONN
	}
	return p.Send(fd, b, flags)
}

// Recvfrom is recvfrom(2) for a datagram socket. It returns whom the datagram is from, and
// MSG_TRUNC if it was longer than b.
func (p *Proc) Recvfrom(fd int, b []byte, flags int) (n int, nam netip.AddrPort, rflags int, errno syscall.Errno) {
	so, errno := p.getsock(fd)
	switch {
	case errno != 0:
	case so.dg == nil:
		errno = syscall.EOPNOTSUPP
	default:
		return so.dgreceive(b, flags)
	}
	return -1, nam, 0, errno
}

// Recv is recv(2). It returns how many bytes it has received; 0 is the end of the stream.
func (p *Proc) Recv(fd int, b []byte, flags int) (int, syscall.Errno) {
	so, errno := p.getsock(fd)
	if errno != 0 {
		return -1, errno
	}
	return so.Soreceive(b, flags)
}

// Shutdown is shutdown(2).
func (p *Proc) Shutdown(fd, how int) syscall.Errno {
	so, errno := p.getsock(fd)
	if errno != 0 {
		return errno
	}
	return so.Soshutdown(how)
}

// Close is close(2).
func (p *Proc) Close(fd int) syscall.Errno {
	so, errno := p.getsock(fd)
	if errno != 0 {
		return errno
	}
	p.mu.Lock()
	p.fds[fd] = nil
	p.mu.Unlock()
	return so.Soclose()
}

// Setsockopt is setsockopt(2) for options that are numbers; see Setlinger for SO_LINGER.
func (p *Proc) Setsockopt(fd, level, name, val int) syscall.Errno {
	so, errno := p.getsock(fd)
	if errno != 0 {
		return errno
	}
	return so.Sosetopt(level, name, val)
}

// Setlinger is setsockopt(2) for SO_LINGER.
func (p *Proc) Setlinger(fd int, on bool, seconds int) syscall.Errno {
	so, errno := p.getsock(fd)
	if errno != 0 {
		return errno
	}
	return so.Setlinger(on, seconds)
}

// Getsockopt is getsockopt(2) for options that are numbers.
func (p *Proc) Getsockopt(fd, level, name int) (int, syscall.Errno) {
	so, errno := p.getsock(fd)
	if errno != 0 {
		return 0, errno
	}
	return so.Sogetopt(level, name)
}

// TCPInfo is getsockopt(2) for TCP_INFO.
func (p *Proc) TCPInfo(fd int) (tcp.Info, syscall.Errno) {
	so, errno := p.getsock(fd)
	if errno != 0 {
		return tcp.Info{}, errno
	}
	return so.TCPInfo(), 0
}

// Fcntl flags and commands, as in fcntl.h.
const (
	F_GETFL    = 3
	F_SETFL    = 4
	O_RDWR     = 0x2
	O_NONBLOCK = 0x4
)

// Fcntl is fcntl(2) with F_GETFL and F_SETFL, for O_NONBLOCK.
func (p *Proc) Fcntl(fd, cmd, arg int) (int, syscall.Errno) {
	so, errno := p.getsock(fd)
	if errno != 0 {
		return -1, errno
	}
	switch cmd {
	case F_GETFL:
		so.lock()
		defer so.mu.Unlock()
		if so.state&ssNbio != 0 {
			return O_RDWR | O_NONBLOCK, 0
		}
		return O_RDWR, 0
	case F_SETFL:
		so.Setnbio(arg&O_NONBLOCK != 0)
		return 0, 0
	}
	return -1, syscall.EINVAL
}

// Getsockname is getsockname(2).
func (p *Proc) Getsockname(fd int) (netip.AddrPort, syscall.Errno) {
	so, errno := p.getsock(fd)
	if errno != 0 {
		return netip.AddrPort{}, errno
	}
	return so.sockaddr(so.Laddr()), 0
}

// Getpeername is getpeername(2). It fails with ENOTCONN if the socket is not connected.
func (p *Proc) Getpeername(fd int) (netip.AddrPort, syscall.Errno) {
	so, errno := p.getsock(fd)
	if errno != 0 {
		return netip.AddrPort{}, errno
	}
	if !so.Connected() {
		return netip.AddrPort{}, syscall.ENOTCONN
	}
	return so.sockaddr(so.Faddr()), 0
}

// Poll reports whether a descriptor can be read from (or accepted on), and written to, without
// waiting: BSD's soo_select.
func (p *Proc) Poll(fd int) (readable, writable bool, errno syscall.Errno) {
	so, errno := p.getsock(fd)
	if errno != 0 {
		return false, false, errno
	}
	so.lock()
	defer so.mu.Unlock()
	if so.dg != nil {
		readable = so.err != 0 || so.state&ssCantrcvmore != 0 || so.dg.used.Load() > 0
		return readable, so.err != 0 || so.state&ssCantsendmore != 0 || so.dgroom(), 0
	}
	readable = so.err != 0 || so.state&ssCantrcvmore != 0 ||
		so.rcv.Cc() >= max(int(so.rcv.lowat), 1) || so.lq != nil && len(so.lq.q) > 0
	writable = so.err != 0 || so.state&ssCantsendmore != 0 ||
		so.state&ssIsconnected != 0 && so.snd.Space() >= int(so.snd.lowat)
	return readable, writable, 0
}
