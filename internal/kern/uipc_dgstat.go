package kern

import (
	"net/netip"
	"slices"

	"bsdnet/internal/kern/wire"
)

// A Dgram is a line of "netstat -u": a socket for datagrams.
type Dgram struct {
	ID             uint32         // number of the socket, which no other has
	Local, Remote  netip.AddrPort // Remote is not valid if there is no peer
	SndQ, RcvQ     int            // bytes on an interface's queue; memory of what waits to be read
	SndBuf, RcvBuf int            // sizes of the buffers, bytes
	Drops          uint64         // datagrams dropped because there was no room on the receive queue
}

// Dgram returns the socket's line.
func (so *Socket) Dgram() Dgram {
	so.lock()
	defer so.mu.Unlock()
	return so.dgram()
}

// dgram is Dgram with the lock held.
func (so *Socket) dgram() Dgram {
	return Dgram{
		ID: so.out.id, Local: so.inSetsockaddr(), Remote: so.inSetpeeraddr(),
		SndQ: so.pending(), RcvQ: int(so.dg.used.Load()), SndBuf: so.snd.Hiwat(), RcvBuf: so.rcv.Hiwat(),
		Drops: so.dg.fullsock,
	}
}

// UDPPcblist lists UDP's sockets in the order of their addresses: sysctl net.inet.udp.pcblist.
func (k *Kernel) UDPPcblist() []Dgram {
	var list []Dgram
	for _, so := range k.sockets.all() {
		so.lock()
		if so.dg != nil && so.proto.proto == wire.ProtoUDP && !so.dead {
			list = append(list, so.dgram())
		}
		so.mu.Unlock()
	}
	slices.SortFunc(list, func(a, b Dgram) int {
		if c := a.Local.Compare(b.Local); c != 0 {
			return c
		}
		if c := a.Remote.Compare(b.Remote); c != 0 {
			return c
		}
		return int(a.ID) - int(b.ID)
	})
	return list
}
