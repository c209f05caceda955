package kern

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"syscall"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// Ping as a call: an echo request, and the answer to it, or the error that a router reports about
// it.

// PingArgs say what Ping sends.
type PingArgs struct {
	Dst  netip.Addr // a link-local one has a zone
	Src  netip.Addr // one of the stack's addresses; not valid: the stack chooses
	Size int        // bytes of data
	TTL  uint8      // or hop limit
	TOS  uint8      // or traffic class
	DF   bool       // IPv4: the request must not be fragmented
}

// A PingReply is what has come of an echo request.
type PingReply struct {
	From  netip.Addr    // who has answered, or reported an error
	RTT   int64         // nanoseconds
	Errno syscall.Errno // 0: the request has been answered; else the errno that stands for the error

	TTL uint8 // of the answer: or hop limit

	// Of an error:
	Type, Code uint8 // of the ICMP or ICMPv6 message
	MTU        int   // what the request was too long for, if it was: bytes, 0 if the router does not tell it
}

// MaxPing4 and MaxPing6 are how many bytes of data an echo request can have.
const (
	MaxPing4 = wire.MaxPacket - wire.IPv4MinLen - wire.ICMPLen
	MaxPing6 = wire.MaxPacket - wire.ICMPLen // IPv6's length field does not count its header
)

// A pingCall is a request that has not been answered.
type pingCall struct {
	dst   netip.Addr // without a zone; a group has more than one member that may answer
	nonce uint64     // in the data, if that has 8 bytes
	size  int
	sent  int64
	done  chan struct{}
	reply PingReply // it is complete when done is closed
}

// A pingTable has the requests that wait for answers, by their identifiers and sequence numbers. A
// sender that does not see a request can only guess them.
type pingTable struct {
	mu     sync.Mutex // a leaf
	m      map[uint32]*pingCall
	id     uint32 // the identifier of all requests, in the upper half
	seq    uint16 // the last sequence number
	closed bool
}

// begin enters a request, and returns its identifier and sequence number, and its nonce. It reports
// false if too many requests wait.
func (t *pingTable) begin(k *Kernel, p *pingCall) (rest uint32, errno syscall.Errno) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return 0, syscall.EBADF
	}
	if t.m == nil {
		t.m = map[uint32]*pingCall{}
		h := prf(k.seed.port, &tuple{}, 2)
		t.id, t.seq = uint32(h)<<16, uint16(h>>16)
	}
	for range 1 << 16 {
		t.seq++
		rest = t.id | uint32(t.seq)
		if t.m[rest] == nil {
			t.m[rest] = p
			p.nonce = prf(k.seed.port, &tuple{faddr: in6(p.dst)}, uint64(rest)<<8|3)
			return rest, 0
		}
	}
	return 0, syscall.ENOBUFS
}

// take takes a request off the table if match accepts it. It returns nil if there is none.
func (t *pingTable) take(rest uint32, match func(*pingCall) bool) *pingCall {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.m[rest]
	if p == nil || !match(p) {
		return nil
	}
	delete(t.m, rest)
	return p
}

// flush ends all requests with EBADF, and those that would begin later.
func (t *pingTable) flush() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for rest, p := range t.m {
		delete(t.m, rest)
		p.reply.Errno = syscall.EBADF
		close(p.done)
	}
}

// answered takes an echo reply, and reports whether it answers a request.
func (t *pingTable) answered(ip *ipHdr, ic wire.ICMP, m *mbuf.Mbuf) bool {
	var b [8]byte
	mbuf.Copydata(m, ip.hlen+wire.ICMPLen, b[:])
	nonce := binary.BigEndian.Uint64(b[:])
	p := t.take(ic.Rest, func(p *pingCall) bool {
		return (ip.src == p.dst || p.dst.IsMulticast()) && ip.len-ip.hlen-wire.ICMPLen == p.size &&
			(p.size < len(b) || nonce == p.nonce)
	})
	if p == nil {
		return false
	}
	p.reply = PingReply{From: ip.src, TTL: ip.ttl, RTT: max(m.Pkt.Arrived-p.sent, 0)}
	close(p.done)
	return true
}

// failed takes an error about an echo request, and reports whether the request waits.
func (t *pingTable) failed(e *icmpError, rest uint32, now int64) bool {
	dst := e.t.faddr.addr()
	p := t.take(rest, func(p *pingCall) bool { return p.dst == dst && !dst.IsMulticast() })
	if p == nil {
		return false
	}
	p.reply = PingReply{From: e.from, Errno: e.errno, Type: e.typ, Code: e.code}
	if e.mtu != 0 {
		p.reply.Errno, p.reply.MTU = syscall.EMSGSIZE, max(e.mtu, 0)
	}
	p.reply.RTT = now - p.sent
	close(p.done)
	return true
}

// Ping sends an echo request, and waits for what comes of it, or until done is closed; then it
// fails with EAGAIN. It fails with EBADF if the stack is closed, with EINVAL if an argument is out
// of range, with ENETUNREACH if there is no route, with EADDRNOTAVAIL if Src is not the stack's,
// with EACCES if Dst is a broadcast address, and as ip_output does.
func (k *Kernel) Ping(a *PingArgs, done <-chan struct{}) (PingReply, syscall.Errno) {
	var none PingReply
	if k.away(k.now()) {
		return none, EXDEV
	}
	r, errno := k.pingRoute(a)
	if errno != 0 {
		return none, errno
	}
	if a.Size < 0 || a.Size > MaxPing6 || r.dst.Is4() && a.Size > MaxPing4 {
		return none, syscall.EMSGSIZE
	}
	p := &pingCall{dst: r.dst, size: a.Size, done: make(chan struct{})}
	rest, errno := k.pings.begin(k, p)
	if errno != 0 {
		return none, errno
	}
	m := k.pingMessage(p, rest, &r)
	p.sent = k.now()
	o := ipOut{src: r.src, dst: r.dst, proto: wire.ProtoICMP, tos: a.TOS, ttl: a.TTL, df: a.DF, ifp: r.ifp}
	if r.dst.Is6() {
		o.proto = wire.ProtoICMPv6
	}
	q, errno := k.ipOutput(m, &o)
	if errno != 0 {
		k.pings.take(rest, func(o *pingCall) bool { return o == p })
		return none, errno
	}
	q.start()
	select {
	case <-p.done:
	case <-done:
		if k.pings.take(rest, func(o *pingCall) bool { return o == p }) != nil {
			return none, syscall.EAGAIN
		}
		<-p.done // it has been answered just now
	}
	if p.reply.Errno == syscall.EBADF {
		return none, syscall.EBADF
	}
	if from := p.reply.From; needsZone(from) {
		p.reply.From = from.WithZone(r.ifp.Name)
	}
	return p.reply, 0
}

// pingRoute finds the way of a request.
func (k *Kernel) pingRoute(a *PingArgs) (r dgroute, errno syscall.Errno) {
	dst := a.Dst.Unmap()
	if !dst.IsValid() {
		return r, syscall.EINVAL
	}
	if dst.IsUnspecified() { // BSD takes it for this host
		if dst = k.thisHost(dst.Is6()); !dst.IsValid() {
			return r, syscall.ENETUNREACH
		}
	}
	way, dst, errno := k.inScope(dst)
	if errno != 0 {
		return r, errno
	}
	from := a.Src.Unmap().WithZone("")
	switch {
	case !from.IsValid() && way != nil:
		from = way.addrFor(dst)
	case !from.IsValid():
	case from.Is4() != dst.Is4():
		return r, syscall.EAFNOSUPPORT
	case k.ifaWithAddr(from) == nil:
		return r, syscall.EADDRNOTAVAIL
	}
	ifp, src, errno := k.rtalloc(dst, from)
	if errno != 0 || way != nil && ifp != way && !ifp.loopback {
		return r, syscall.ENETUNREACH
	}
	if ifp.broadcast(dst) {
		return r, syscall.EACCES // the answers would be many
	}
	if from.IsValid() {
		src = from
	}
	t := tuple{laddr: in6(src), faddr: in6(dst)}
	return dgroute{src: src, dst: dst, ifp: ifp, flow: t.flow(k.seed.hash)}, 0
}

// pingMessage makes the message of a request.
func (k *Kernel) pingMessage(p *pingCall, rest uint32, r *dgroute) *mbuf.Mbuf {
	m := k.pool.Getpkt(wire.ICMPLen + p.size)
	b := m.Room()[:wire.ICMPLen+p.size]
	ic := wire.ICMP{Type: wire.ICMPEcho, Rest: rest}
	if r.dst.Is6() {
		ic.Type = wire.ICMPv6Echo
	}
	ic.Put(b)
	data := b[wire.ICMPLen:]
	for i := range data {
		data[i] = byte(i)
	}
	if len(data) >= 8 {
		binary.BigEndian.PutUint64(data, p.nonce)
	}
	m.Extend(len(b))
	m.Pkt.Len, m.Pkt.Flow = len(b), r.flow
	icmpSum(m, r)
	return m
}
