package kern

import (
	"cmp"
	"slices"
	"syscall"
	"time"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
)

// A respondTo describes a segment that is sent in answer to another, without a machine: the
// arguments of BSD's tcp_respond.
type respondTo struct {
	t        tuple // our side is laddr
	seq, ack tcp.Seq
	flags    wire.Flags
	win      uint16
	opt      wire.Options
	tos, ttl uint8
	ifp      *Ifnet // the way back, if it is known
}

// tcpRespond sends a bare segment: BSD's tcp_respond. It returns the queue to drain.
func (k *Kernel) tcpRespond(r *respondTo) *ifqueue {
	th := wire.TCP{Sport: r.t.lport, Dport: r.t.fport, Seq: r.seq, Ack: r.ack, Flags: r.flags, Win: r.win, Opt: r.opt}
	m := k.pool.Gethdr()
	m.Extend(th.Put(m.Room()[:wire.TCPMaxLen]))
	m.Pkt.Len = th.Hlen
	m.Pkt.Csum = mbuf.CsumPartial
	m.Pkt.Flow = r.t.flow(k.seed.hash)
	k.Stats.TCP.Sndtotal.Inc()
	k.Stats.TCP.Sndctrl.Inc()
	if r.ttl == 0 {
		r.ttl = defTTL
	}
	q, errno := k.ipOutput(m, &ipOut{
		src: r.t.laddr.addr(), dst: r.t.faddr.addr(), proto: wire.ProtoTCP,
		tos: r.tos, ttl: r.ttl, df: true, ifp: r.ifp,
	})
	if errno != 0 {
		return nil
	}
	return q
}

// dropwithreset answers a segment for which there is no connection, or that its connection does not
// accept, with a reset: RFC 9293, 3.5.2, and BSD's label of that name. It does not answer a reset.
// Except on the loopback, it answers no more often than net.inet.icmp.icmplim allows. Segments to
// more than one host do not come here.
func (k *Kernel) dropwithreset(in *tcpIn, tos, ttl uint8) *ifqueue {
	th := &in.th
	if th.Flags&wire.RST != 0 {
		return nil
	}
	if !in.ifp.loopback && !k.rstLimit.take(in.t.faddr, in.now) {
		return nil
	}
	r := respondTo{t: in.t, tos: tos, ttl: ttl}
	if in.ifp.loopback || in.t.faddr.onLink() {
		r.ifp = in.ifp
	}
	if th.Flags&wire.ACK != 0 {
		r.seq, r.flags = th.Ack, wire.RST
	} else {
		n := in.len
		if th.Flags&wire.SYN != 0 {
			n++
		}
		if th.Flags&wire.FIN != 0 {
			n++
		}
		r.ack, r.flags = th.Seq.Add(n), wire.RST|wire.ACK
	}
	return k.tcpRespond(&r)
}

// hdrLen returns the length of the connection's IP header, without options or extension headers.
func (t *tuple) hdrLen() int {
	if t.laddr.is4() {
		return wire.IPv4MinLen
	}
	return wire.IPv6Len
}

// mssdflt returns the segment size of a peer that names none.
func (k *Kernel) mssdflt(t *tuple) int {
	if t.laddr.is4() {
		return k.prof.MSSDflt
	}
	return k.prof.V6MSSDflt
}

// drainAgain is the least time between two searches of tcpDrain that have found too little. If
// connections that make progress hold the memory, the stack must not read all of them for each SYN.
const drainAgain = int64(time.Second)

// tcpDrain frees memory when the stack is pressed: BSD's tcp_drain. It ends connections whose data
// waits for a peer that keeps its window closed (CVE-2008-4609), until there is a reserve for new
// connections. Those that their users have closed go first; of them, and of the others, the oldest
// goes first. The caller holds no lock.
func (k *Kernel) tcpDrain() {
	now := k.now()
	next := k.drainAt.Load()
	if !k.pressed() || now < next || k.away(now) || !k.drainAt.CompareAndSwap(next, now+drainAgain) {
		return
	}
	type stalled struct {
		so     *Socket
		orphan bool
	}
	var list []stalled
	for _, so := range k.sockets.all() {
		so.lock()
		if !so.dead && so.dg == nil && so.tp.Stalled() {
			list = append(list, stalled{so, so.tp.Has(tcp.UserClosed)})
		}
		so.mu.Unlock()
	}
	slices.SortFunc(list, func(a, b stalled) int {
		if a.orphan != b.orphan {
			if a.orphan {
				return -1
			}
			return 1
		}
		return cmp.Compare(int32(a.so.out.id-b.so.out.id), 0)
	})
	enough := k.pool.Limit() - k.memory/16
	for _, c := range list {
		if k.pool.Used() <= enough {
			k.drainAt.Store(now)
			return
		}
		c.so.lock()
		if !c.so.dead && c.so.tp.Stalled() {
			k.Stats.TCP.Draindrop.Inc()
			c.so.tcpDrop(syscall.ENOBUFS, now)
		}
		c.so.unlock()
	}
}

// tcpCtlinput tells a connection of an ICMP error about it: BSD's tcp_ctlinput. The connection
// believes an error only if it quotes a sequence number in flight (RFC 5927, 4.1).
func tcpCtlinput(k *Kernel, e *icmpError) {
	inp := k.pcbs.lookup(&e.t)
	if inp == nil || inp.so == nil {
		if inp == nil {
			k.syncache.unreach(e)
		}
		return
	}
	so := inp.so
	so.lock()
	defer so.unlock()
	if so.dead || inp.dead {
		return
	}
	now := k.now()
	if e.mtu != 0 {
		so.pathMTU(e, now)
		return
	}
	so.tp.Ctlinput(e.errno, e.seq, e.hard, now)
}

// pathMTU takes a smaller MTU from a router, if it may be true: RFC 1191 and RFC 8201, with the
// checks of RFC 5927, 7.
func (so *Socket) pathMTU(e *icmpError, now int64) {
	if !so.tp.Inflight(e.seq) {
		return
	}
	cur := so.tp.Maxseg() + so.inp.hdrLen() + wire.TCPMinLen
	mtu := e.mtu
	if mtu < 0 {
		for _, p := range pmtuPlateaus {
			if p < cur {
				mtu = p
				break
			}
		}
	}
	if mtu <= 0 || mtu >= cur {
		return
	}
	so.tp.Mtudisc(max(mtu, minPMTU), now)
}

// pmtuPlateaus are the MTUs to try if a router does not tell its own: RFC 1191, 7.1.
var pmtuPlateaus = []int{32000, 17914, 8166, 4352, 2002, 1492, 1006, 552}

// minPMTU is the smallest MTU that an ICMP message can set. RFC 1191 allows 68, with which an
// attacker could have us send tiny segments. Of ICMPv6, only messages with at least 1280 come here.
const minPMTU = 552
