package bsdnet

import (
	"net"
	"net/netip"
	"sync"
	"syscall"

	"bsdnet/internal/kern"
)

// A Message is a datagram of [UDPConn.ReadBatch] or [UDPConn.WriteBatch]. Its fields are those of
// the type Message of golang.org/x/net/ipv4 and ipv6, so that one can be converted to the other.
type Message struct {
	// Buffers are what a datagram is read into, one after the other, or written from.
	Buffers [][]byte

	// OOB is for control messages, of which the stack has none.
	OOB []byte

	// Addr is the address of the sender, a *net.UDPAddr, after a read; for a write it is that of
	// the destination, or nil for the peer.
	Addr net.Addr

	N     int // bytes that were read into, or written from, the Buffers
	NN    int // the same for OOB
	Flags int // syscall.MSG_TRUNC after a read: the Buffers were too short
}

// ReadMsgUDP is [UDPConn.ReadFrom], and returns flags too: syscall.MSG_TRUNC if the datagram was
// longer than b. The stack has no control messages, so oobn is always 0.
func (c *UDPConn) ReadMsgUDP(b, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error) {
	n, oobn, flags, from, err := c.ReadMsgUDPAddrPort(b, oob)
	if from.IsValid() {
		addr = net.UDPAddrFromAddrPort(from)
	}
	return n, oobn, flags, addr, err
}

// ReadMsgUDPAddrPort is ReadMsgUDP without an allocation.
func (c *UDPConn) ReadMsgUDPAddrPort(b, oob []byte) (n, oobn, flags int, addr netip.AddrPort, err error) {
	n, from, kflags, errno := c.so.Soreceivefrom(b)
	if errno != 0 {
		return n, 0, 0, c.unspecified(), c.opErrno("read", "recvmsg", errno) // the address is package net's
	}
	return n, 0, msgFlags(kflags), from, nil
}

// msgFlags translates the flags of a datagram that was read into the system's.
func msgFlags(flags int) int {
	if flags&kern.MSG_TRUNC != 0 {
		return msgTrunc
	}
	return 0
}

// WriteMsgUDP sends a datagram to addr, or to the peer if addr is nil. The stack has no control
// messages: if oob is not empty, the error wraps syscall.EINVAL.
func (c *UDPConn) WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	var to netip.AddrPort
	if addr != nil || c.raddr == nil {
		to, err = c.destination(addr)
	}
	if err == nil {
		n, err = c.writeMsg(b, oob, to)
	}
	if err != nil {
		err = c.opError("write", udpOpAddr(addr), err)
	}
	return n, 0, err
}

// WriteMsgUDPAddrPort is WriteMsgUDP without an allocation. The zero AddrPort stands for the peer.
func (c *UDPConn) WriteMsgUDPAddrPort(b, oob []byte, addr netip.AddrPort) (n, oobn int, err error) {
	to := addr
	if addr.IsValid() || c.raddr == nil {
		to, err = c.destinationAddrPort(addr)
	}
	if err == nil {
		n, err = c.writeMsg(b, oob, to)
	}
	if err != nil {
		err = c.opError("write", addrPortUDPAddr{addr}, err)
	}
	return n, 0, err
}

func (c *UDPConn) writeMsg(b, oob []byte, to netip.AddrPort) (int, error) {
	if len(oob) > 0 {
		return 0, sysError("sendmsg", syscall.EINVAL)
	}
	n, errno := c.so.Sosendto(b, to)
	return n, sysError("sendmsg", errno)
}

// batches has room for the kernel's side of a batch, so that a call allocates none.
var batches = sync.Pool{New: func() any { return new([]kern.Msg) }}

// batch returns room for n messages.
func batch(n int) *[]kern.Msg {
	b := batches.Get().(*[]kern.Msg)
	if cap(*b) < n {
		*b = make([]kern.Msg, n)
	}
	*b = (*b)[:n]
	return b
}

func putBatch(b *[]kern.Msg) {
	clear(*b) // it must not keep the user's buffers
	batches.Put(b)
}

// ReadBatch reads datagrams into ms, and returns how many there were: at least one, unless there is
// an error or ms is empty. It waits for the first one only. Of the flags, syscall.MSG_PEEK leaves
// the datagrams to be read again, and others have no effect.
//
// If the Addr of a message already is the sender's address, it stays; otherwise it becomes a new
// *net.UDPAddr. So a batch from the senders of the one before allocates nothing.
func (c *UDPConn) ReadBatch(ms []Message, flags int) (int, error) {
	if len(ms) == 0 {
		return 0, nil
	}
	b := batch(len(ms))
	defer putBatch(b)
	for i := range ms {
		(*b)[i].Bufs = ms[i].Buffers
	}
	n, errno := c.so.Soreceivemsgs(*b, flags&kern.MSG_PEEK)
	if errno != 0 {
		return 0, c.opErrno("read", "recvmmsg", errno)
	}
	for i := range n {
		m, k := &ms[i], &(*b)[i]
		m.N, m.NN, m.Flags = k.N, 0, msgFlags(k.Flags)
		if !isUDPAddr(m.Addr, k.Addr) {
			m.Addr = net.UDPAddrFromAddrPort(k.Addr)
		}
	}
	return n, nil
}

// isUDPAddr reports whether a is the address of from.
func isUDPAddr(a net.Addr, from netip.AddrPort) bool {
	u, ok := a.(*net.UDPAddr)
	return ok && u != nil && u.AddrPort() == from
}

// WriteBatch sends the messages of ms, each to its Addr, which is a *net.UDPAddr, or nil for the
// peer. It returns how many it has sent: if it is less than all, the next one would fail, and there
// is an error only if it is 0. The flags have no effect.
func (c *UDPConn) WriteBatch(ms []Message, flags int) (int, error) {
	if len(ms) == 0 {
		return 0, nil
	}
	b := batch(len(ms))
	defer putBatch(b)
	k, first := 0, error(nil)
	for ; k < len(ms) && first == nil; k++ {
		first = c.toKern(&(*b)[k], &ms[k])
	}
	if first != nil {
		k-- // the others are sent first
	}
	n := 0
	if k > 0 {
		var errno syscall.Errno
		if n, errno = c.so.Sosendmsgs((*b)[:k], 0); n == 0 {
			first = sysError("sendmmsg", errno)
		}
	}
	for i := range n {
		ms[i].N, ms[i].NN = (*b)[i].N, 0
	}
	if n == 0 && first != nil {
		return 0, c.opError("write", c.batchAddr(ms[0].Addr), first)
	}
	return n, nil
}

// toKern translates a message that is to be sent.
func (c *UDPConn) toKern(k *kern.Msg, m *Message) (err error) {
	if len(m.OOB) > 0 {
		return sysError("sendmmsg", syscall.EINVAL)
	}
	k.Bufs = m.Buffers
	switch a := m.Addr.(type) {
	case nil:
		if c.raddr == nil {
			err = errMissingAddress
		}
	case *net.UDPAddr:
		k.Addr, err = c.destination(a)
	default:
		err = syscall.EINVAL
	}
	return err
}

// batchAddr returns the address that the error of a batch names.
func (c *UDPConn) batchAddr(a net.Addr) net.Addr {
	if u, ok := a.(*net.UDPAddr); a == nil || ok && u == nil {
		return udpOpAddr(c.raddr)
	}
	return a
}
