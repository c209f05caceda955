package kern

import (
	"net/netip"
	"syscall"

	"bsdnet/internal/kern/mbuf"
)

// What follows moves bytes between the user and a socket's buffers. BSD has it in uipc_socket.c.

// Limits of sosend.
const (
	sendChunk = mbuf.ClHuge // how much is copied and handed to the protocol at once
	copyLimit = mbuf.ClMid  // up to here the copy is made under the lock: it takes less time than leaving the lock
)

// Flags of Sosend and Soreceive, as in sys/socket.h.
const (
	MSG_OOB      = 0x1
	MSG_PEEK     = 0x2
	MSG_TRUNC    = 0x10 // the datagram was longer than the buffer: a result
	MSG_WAITALL  = 0x40
	MSG_DONTWAIT = 0x80

	MSG_MORETOCOME = 0x100000 // more follows in another call: hold back what does not fill a segment (Linux's MSG_MORE)
)

// Sosend queues p for transmission and sleeps while the buffer is full: 4.4BSD's sosend. It returns
// how many bytes it has taken. It fails with EPIPE once nothing more can be sent, with EWOULDBLOCK
// when the deadline has passed, and with so_error if there is one.
func (so *Socket) Sosend(p []byte, flags int) (n int, errno syscall.Errno) {
	if so.dg != nil {
		return so.dgsendto(p, netip.AddrPort{}, flags)
	}
	if so.k.pressed() {
		so.k.tcpDrain()
	}
	so.lock()
	defer so.unlock()
	if errno := so.sblock(&so.snd.sleepers); errno != 0 {
		return 0, errno
	}
	defer so.sbunlock(&so.snd.sleepers)
	return so.sosend(p, flags)
}

// Sosendv is Sosend for several buffers, which go out as if they were one: BSD's sosend with an uio
// of several iovecs.
func (so *Socket) Sosendv(v [][]byte) (n int, errno syscall.Errno) {
	if so.k.pressed() {
		so.k.tcpDrain()
	}
	so.lock()
	defer so.unlock()
	if errno := so.sblock(&so.snd.sleepers); errno != 0 {
		return 0, errno
	}
	defer so.sbunlock(&so.snd.sleepers)
	for len(v) > 1 && len(v[len(v)-1]) == 0 {
		v = v[:len(v)-1] // only a buffer with data can end without MSG_MORETOCOME
	}
	for i, p := range v {
		flags := MSG_MORETOCOME
		if i == len(v)-1 {
			flags = 0
		}
		k, errno := so.sosend(p, flags)
		if n += k; errno != 0 {
			return n, errno
		}
	}
	return n, 0
}

// sosend is Sosend once the buffer has been taken.
func (so *Socket) sosend(p []byte, flags int) (n int, errno syscall.Errno) {
	total := len(p)
	for {
		if so.late(&so.snd.sleepers) && !so.closed() { // package net reports the deadline before such errors
			return total - len(p), syscall.EAGAIN
		}
		if errno := so.sendable(); errno != 0 {
			return total - len(p), errno
		}
		if len(p) == 0 {
			return total, 0
		}
		now := so.k.now()
		if so.k.away(now) {
			return total - len(p), EXDEV
		}
		space := so.sendspace()
		// If no data waited to be acknowledged, nothing would wake the call.
		if space <= 0 || space < len(p) && space < min(int(so.snd.lowat), so.snd.Cc()) {
			if flags&MSG_DONTWAIT != 0 {
				return total - len(p), syscall.EAGAIN
			}
			// The protocol has held back what does not fill a segment, as more was to follow at
			// once. More will be long in coming now, so it sends what there is.
			so.proto.usrreq(so, pruSend, usrreqArgs{now: now})
			if errno := so.sbwait(&so.snd.sleepers); errno != 0 {
				return total - len(p), errno
			}
			continue
		}
		k := so.sendsome(p, min(space, sendChunk), flags, now)
		p = p[k:]
		if len(p) > 0 && so.busy() {
			so.unlock() // so that segments go out, and the peer reads, while the next chunk is copied
			so.lock()
		}
	}
}

// sendable returns the errno with which sending fails now, or 0.
func (so *Socket) sendable() syscall.Errno {
	switch {
	case so.closed():
		return syscall.EBADF
	case so.err != 0 && so.k.prof.RSTUnread:
		return so.takeError() // ECONNRESET first, then EPIPE, as Linux has it
	case so.state&ssCantsendmore != 0 && so.state&ssWasconnected != 0:
		return syscall.EPIPE
	case so.err != 0:
		return syscall.Errno(so.err)
	case so.state&ssIsconnected == 0:
		return syscall.ENOTCONN
	}
	return 0
}

// sendspace returns the room in the send buffer, or less if the stack is short of memory.
func (so *Socket) sendspace() int {
	space := so.snd.Space()
	if so.k.pressed() {
		space = min(space, so.k.share()-so.snd.Pinned(), mbuf.ClMid) // in clusters that leave little unused
	}
	return space
}

// sendsome copies up to limit bytes into the send buffer and lets the protocol send: one PRU_SEND
// for each chunk, not, as in 4.4BSD, for each mbuf.
func (so *Socket) sendsome(p []byte, limit, flags int, now int64) int {
	k := min(len(p), limit)
	last := flags&MSG_MORETOCOME == 0
	a := usrreqArgs{now: now, more: len(p) > k || !last}
	req := pruSend
	if flags&MSG_OOB != 0 && !a.more {
		req = pruSendoob
	}
	if room := so.snd.TailRoom(); room >= k || room > 0 && k <= copyLimit {
		n := so.snd.AppendBytes(p[:min(room, k)])
		a.more = len(p) > n || !last
		so.proto.usrreq(so, req, a)
		return n
	}
	var m *mbuf.Mbuf
	if k <= mbuf.MaxSmall {
		m = so.k.pool.Getsmall()
	} else {
		m = so.k.pool.Getcl(k)
	}
	if k <= copyLimit {
		m.Append(p[:k])
	} else { // the user's bytes are copied without the lock, as BSD does with spl lowered
		e := so.leave()
		k = m.Append(p[:k])
		e.do()
		so.lock()
		if so.err != 0 || so.sendable() != 0 { // sosend asks again, and takes the error
			mbuf.Free(m)
			return 0
		}
		a.now = so.k.now()
	}
	a.m = m
	so.proto.usrreq(so, req, a)
	return k
}

// Soreceive copies data that has arrived into p, and sleeps while there is none: 4.4BSD's
// soreceive. If it returns 0 bytes and no error, the stream has ended. It fails with EWOULDBLOCK
// when the deadline has passed, with ENOTCONN if there never was a connection, and with so_error
// once no data is left.
func (so *Socket) Soreceive(p []byte, flags int) (n int, errno syscall.Errno) {
	if so.dg != nil {
		n, _, _, errno = so.dgreceive(p, flags)
		return n, errno
	}
	// Outside of bubbles sbwait finds out whether the caller is elsewhere: data that is there can
	// be read without the clock, and to read the clock in every call would cost too much.
	if so.k.home != 0 && so.k.away(so.k.now()) {
		return 0, EXDEV
	}
	so.lock()
	if errno := so.sblock(&so.rcv.sleepers); errno != 0 {
		so.unlock()
		return 0, errno
	}
	for {
		if so.closed() {
			errno = syscall.EBADF
			break
		}
		if so.late(&so.rcv.sleepers) {
			errno = syscall.EAGAIN
			break
		}
		want := 1
		if flags&MSG_WAITALL != 0 {
			want = min(len(p), so.rcv.Hiwat())
		}
		cc := so.rcv.Cc()
		if cc >= max(want, min(int(so.rcv.lowat), len(p))) || cc > 0 && so.state&ssCantrcvmore != 0 || len(p) == 0 {
			return so.receivesome(p, flags)
		}
		if errno = so.receivable(); errno != 0 || so.state&ssCantrcvmore != 0 {
			break
		}
		if flags&MSG_DONTWAIT != 0 {
			errno = syscall.EAGAIN
			break
		}
		if errno = so.sbwait(&so.rcv.sleepers); errno != 0 {
			break
		}
	}
	so.sbunlock(&so.rcv.sleepers)
	so.unlock()
	return 0, errno
}

// Sorcvwait sleeps until Soreceive would not sleep: until there is data, the end of the stream, or
// an error, which Soreceive will return. It is BSD's select for one socket, for callers that
// allocate a buffer only when there is data for it. It fails with EWOULDBLOCK when the deadline has
// passed, and with EBADF if the socket is closed.
func (so *Socket) Sorcvwait() syscall.Errno {
	if so.dg != nil {
		return so.dgrcvwait()
	}
	if so.k.home != 0 && so.k.away(so.k.now()) {
		return EXDEV
	}
	so.lock()
	defer so.unlock()
	for {
		switch {
		case so.closed():
			return syscall.EBADF
		case so.late(&so.rcv.sleepers):
			return syscall.EAGAIN
		case so.rcv.Cc() > 0, so.err != 0, so.state&ssCantrcvmore != 0, so.state&(ssIsconnected|ssIsconnecting) == 0:
			return 0
		}
		if errno := so.sbwait(&so.rcv.sleepers); errno != 0 {
			return errno
		}
	}
}

// receivable returns the errno with which receiving from an empty buffer fails, or 0.
func (so *Socket) receivable() syscall.Errno {
	switch {
	case so.state&ssDone != 0:
		return 0 // the stream has ended in order; an error that came later is for writes
	case so.err != 0:
		return so.takeError()
	case so.state&(ssIsconnected|ssIsconnecting|ssCantrcvmore|ssWasconnected) == 0:
		return syscall.ENOTCONN
	}
	return 0
}

// receivesome takes data out of the buffer, tells the protocol, leaves the lock, and then copies
// the data. It is the end of Soreceive.
func (so *Socket) receivesome(p []byte, flags int) (int, syscall.Errno) {
	n := min(len(p), so.rcv.Cc())
	if flags&MSG_PEEK != 0 || n == 0 {
		n = so.rcv.Copydata(0, p[:n])
		so.sbunlock(&so.rcv.sleepers)
		so.unlock()
		return n, 0
	}
	var m *mbuf.Mbuf
	if n <= copyLimit {
		so.rcv.Copydata(0, p[:n])
		so.rcv.Drop(n)
	} else {
		m = so.rcv.Cut(n)
	}
	if so.tp.OwesUpdate() { // otherwise tcp_output would find nothing to do, and reading the clock is expensive
		if now := so.k.now(); !so.k.away(now) {
			so.proto.usrreq(so, pruRcvd, usrreqArgs{now: now})
		}
	}
	so.sbunlock(&so.rcv.sleepers)
	e := so.leave()
	if m != nil {
		mbuf.Copydata(m, 0, p[:n])
		mbuf.Free(m)
	}
	e.do()
	return n, 0
}
