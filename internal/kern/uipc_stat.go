package kern

import (
	"net/netip"
	"slices"
	"syscall"

	"bsdnet/internal/kern/tcp"
)

// This file lists a stack's sockets, as netstat does, and drops connections, as tcpdrop does.

// A Conn is a line of "netstat -a".
type Conn struct {
	ID             uint32 // number of the socket, as in Trace.Conn; 0: the line has no socket
	Local, Remote  netip.AddrPort
	State          tcp.State
	SndQ, RcvQ     int  // bytes in the buffers
	SndBuf, RcvBuf int  // sizes of the buffers, bytes
	Accepted       bool // a listener has accepted it
	Orphan         bool // its user has closed it
	Info           tcp.Info
}

// Conn returns the socket's line.
func (so *Socket) Conn() Conn {
	so.lock()
	defer so.mu.Unlock()
	return so.conn()
}

// conn is Conn with the lock held.
func (so *Socket) conn() Conn {
	info := so.tcpInfo()
	local, remote := so.inp.local(), so.inp.remote()
	if so.inp.lport != 0 {
		local = so.inSetsockaddr()
	}
	remote = netip.AddrPortFrom(so.zoned(remote.Addr()), remote.Port())
	return Conn{
		ID: so.out.id, Local: local, Remote: remote, State: info.State,
		SndQ: so.snd.Cc(), RcvQ: so.rcv.Cc(), SndBuf: so.snd.Hiwat(), RcvBuf: so.rcv.Hiwat(),
		Accepted: so.inp.bound && so.inp.fport != 0 && !so.inp.ephemeral, Orphan: so.state&ssNofdref != 0, Info: info,
	}
}

// Laddr returns the socket's local address. The addresses do not change when the connection is
// over.
func (so *Socket) Laddr() netip.AddrPort {
	so.lock()
	defer so.mu.Unlock()
	return so.inSetsockaddr()
}

// Faddr returns the peer's address; not valid if there is none.
func (so *Socket) Faddr() netip.AddrPort {
	so.lock()
	defer so.mu.Unlock()
	return so.inSetpeeraddr()
}

// Addrs returns both addresses of a socket that is connected, or has been. Mostly it takes no lock,
// as they do not change any more. Addresses of a socket of AF_INET6 whose connection is over IPv4
// are not mapped.
func (so *Socket) Addrs() (local, remote netip.AddrPort) {
	if so.dg != nil || so.inp.laddr.onLink() { // they, or the interface, may change
		so.lock()
		defer so.mu.Unlock()
		return so.inSetsockaddr(), so.inSetpeeraddr()
	}
	return so.inp.local(), so.inp.remote()
}

// Connected reports whether the connection is established.
func (so *Socket) Connected() bool {
	so.lock()
	defer so.mu.Unlock()
	return so.state&ssIsconnected != 0
}

// Closed returns EBADF once the user has closed the socket.
func (so *Socket) Closed() syscall.Errno {
	so.lock()
	defer so.mu.Unlock()
	if so.closed() {
		return syscall.EBADF
	}
	return 0
}

// Pcblist lists all connections, half-open ones and TIME_WAIT records included, and sockets without
// a connection, in the order of their addresses: sysctl net.inet.tcp.pcblist.
func (k *Kernel) Pcblist() []Conn {
	var list []Conn
	for _, so := range k.sockets.all() {
		so.lock()
		// A socket whose connection is over stays in the list, in CLOSED, until it is closed; if it
		// is in TIME_WAIT, its record below stands for it.
		if so.dg == nil && (!so.dead || so.state&ssNofdref == 0 && !so.inTimeWait()) {
			list = append(list, so.conn())
		}
		so.mu.Unlock()
	}
	line := func(t *tuple, s tcp.State) {
		list = append(list, Conn{Local: t.local(), Remote: t.remote(), State: s})
	}
	k.pcbs.all(func(p *inpcb) {
		if p.so == nil {
			line(&p.tuple, tcp.TimeWait)
		}
	})
	k.syncache.mu.Lock()
	for e := range k.syncache.all() {
		line(&e.t, tcp.SynReceived)
	}
	k.syncache.mu.Unlock()
	slices.SortFunc(list, func(a, b Conn) int {
		if c := a.Local.Compare(b.Local); c != 0 {
			return c
		}
		if c := a.Remote.Compare(b.Remote); c != 0 {
			return c
		}
		return int(a.State) - int(b.State)
	})
	return list
}

// Tcpdrop drops every connection that match accepts, each with a reset if its peer knows of it, and
// returns how many there were: tcpdrop(8).
func (k *Kernel) Tcpdrop(match func(Conn) bool) int {
	n := 0
	for _, c := range k.Pcblist() {
		if !match(c) {
			continue
		}
		t := tuple{in6(c.Local.Addr()), in6(c.Remote.Addr()), c.Local.Port(), c.Remote.Port()}
		if k.dropOne(&t, c.State) {
			n++
		}
	}
	return n
}

func (k *Kernel) dropOne(t *tuple, state tcp.State) bool {
	if inp := k.pcbs.lookup(t); inp != nil {
		if inp.so == nil {
			return k.tw.discard(inp.tw)
		}
		so := inp.so
		so.lock()
		defer so.unlock()
		if so.dead {
			return false
		}
		so.tcpDrop(syscall.ECONNABORTED, k.now())
		return true
	}
	if state == tcp.SynReceived {
		e, v := k.syncache.decide(t, 0, nil, func(*scEntry) scVerdict { return scRemove })
		if v == scRemove {
			e.unreserve()
		}
		return v == scRemove
	}
	return false
}
