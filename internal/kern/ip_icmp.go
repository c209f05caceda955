package kern

import (
	"encoding/binary"
	"syscall"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
)

// ICMPStats are the counters of ICMP: BSD's struct icmpstat.
type ICMPStats struct {
	Error, Tooshort, Checksum, Badlen, Reflect, Limited, Bmcastecho, Inerror tcp.Counter
}

// icmpInput takes an ICMP message: BSD's icmp_input.
func icmpInput(k *Kernel, ip wire.IPv4, m *mbuf.Mbuf, ifp *Ifnet) {
	n := ip.Len - ip.Hlen
	if n < wire.ICMPLen {
		k.Stats.ICMP.Tooshort.Inc()
		mbuf.Free(m)
		return
	}
	if m.Pkt.Csum&mbuf.CsumValid == 0 && wire.Fold(sumChain(m, ip.Hlen, n, 0)) != 0xffff {
		k.Stats.ICMP.Checksum.Inc()
		mbuf.Free(m)
		return
	}
	var b [wire.ICMPLen + wire.IPv4MaxLen + 8]byte
	got := b[:mbuf.Copydata(m, ip.Hlen, b[:])]
	ic, _ := wire.ParseICMP(got)
	switch ic.Type {
	case wire.ICMPEcho:
		if ip.Dst.IsMulticast() || ifp.broadcast(ip.Dst) {
			k.Stats.ICMP.Bmcastecho.Inc() // no amplifier (RFC 1122, 3.2.2.6 allows it)
			break
		}
		k.icmpReflect(&ip, m, ic)
		return
	case wire.ICMPUnreach, wire.ICMPTimxceed, wire.ICMPParamProb, wire.ICMPSourceQuench:
		k.icmpDeliver(ic, got[wire.ICMPLen:])
	}
	mbuf.Free(m)
}

// icmpReflect answers an echo request with its own data: BSD's icmp_reflect and icmp_send.
func (k *Kernel) icmpReflect(ip *wire.IPv4, m *mbuf.Mbuf, ic wire.ICMP) {
	pkt := m.Pkt
	n := ip.Len - ip.Hlen
	data := mbuf.Adj(m, ip.Hlen+wire.ICMPLen)
	ic.Type = wire.ICMPEchoReply
	k.Stats.ICMP.Reflect.Inc()
	h := k.pool.Gethdr()
	h.Extend(wire.ICMPLen)
	ic.Put(h.Bytes())
	h.SetNext(data)
	h.Pkt.Len, h.Pkt.Flow = n, pkt.Flow
	k.icmpSend(h, &ipOut{src: ip.Dst, dst: ip.Src, proto: wire.ProtoICMP, tos: ip.TOS, ttl: 255})
}

// icmpSend completes a message with its checksum and sends it: BSD's icmp_send.
func (k *Kernel) icmpSend(m *mbuf.Mbuf, o *ipOut) {
	binary.BigEndian.PutUint16(m.Bytes()[wire.ICMPSumOff:], ^wire.Fold(sumChain(m, 0, m.Pkt.Len, 0)))
	t := tuple{laddr: in6(o.src), faddr: in6(o.dst)}
	m.Pkt.Flow = t.flow(k.seed.hash)
	if q, errno := k.ipOutput(m, o); errno == 0 {
		q.start()
	}
}

// icmpError reports an error about packet m, which stays the caller's: BSD's icmp_error.
func (k *Kernel) icmpError(ifp *Ifnet, ip *wire.IPv4, m *mbuf.Mbuf, typ, code uint8, rest uint32) {
	var b [wire.IPv4MaxLen + 8]byte
	got := b[:mbuf.Copydata(m, 0, b[:min(ip.Hlen+8, len(b))])]
	k.icmpSendError(ifp, ip, got, typ, code, rest)
}

// icmpSendError sends an error about the packet that begins with orig, unless RFC 1122, 3.2.2,
// forbids it: never about an ICMP error, a fragment other than the first, or anything sent to or
// from more than one host; and no more than net.inet.icmp.icmplim a second.
func (k *Kernel) icmpSendError(ifp *Ifnet, ip *wire.IPv4, orig []byte, typ, code uint8, rest uint32) {
	if ip.Off != 0 || ip.Dst.IsMulticast() || ifp.broadcast(ip.Dst) || ip.Src.IsMulticast() || ip.Src.IsUnspecified() {
		return
	}
	if wire.IPv4View(orig).Proto() == wire.ProtoICMP {
		if t := orig[ip.Hlen:]; len(t) == 0 || t[0] != wire.ICMPEcho && t[0] != wire.ICMPEchoReply {
			return
		}
	}
	if !k.icmpLimit.take(in6(ip.Src), k.now()) {
		k.Stats.ICMP.Limited.Inc()
		return
	}
	k.Stats.ICMP.Error.Inc()
	h := k.pool.Gethdr()
	h.Extend(wire.ICMPLen)
	wire.ICMP{Type: typ, Code: code, Rest: rest}.Put(h.Bytes())
	d := k.pool.Getcl(len(orig))
	d.Append(orig)
	h.SetNext(d)
	h.Pkt.Len = wire.ICMPLen + len(orig)
	k.icmpSend(h, &ipOut{src: ip.Dst, dst: ip.Src, proto: wire.ProtoICMP, tos: 0xc0, ttl: 255})
}

// An icmpError is an error about a packet that we have sent.
type icmpError struct {
	errno syscall.Errno // 0: nothing but its MTU
	hard  bool          // may end an attempt to connect
	mtu   int           // fragmentation needed: the next hop's MTU; -1: not told
	t     tuple
	seq   tcp.Seq
}

// icmpDeliver finds out whose packet an error is about, and tells its protocol: the deliver part of
// BSD's icmp_input, with inetctlerrmap.
func (k *Kernel) icmpDeliver(ic wire.ICMP, orig []byte) {
	k.Stats.ICMP.Inerror.Inc()
	ip, ok := wire.ViewIPv4(orig)
	if !ok || len(ip.Payload()) < 8 {
		k.Stats.ICMP.Badlen.Inc()
		return
	}
	e := icmpError{t: tuple{laddr: in6(ip.Src()), faddr: in6(ip.Dst())}}
	if !e.classify(ic) {
		return
	}
	p := pffindproto(AF_INET, int(ip.Proto()))
	if p == nil || p.ctlinput == nil {
		return
	}
	th := wire.TCPView(ip.Payload())
	e.t.lport, e.t.fport, e.seq = th.Sport(), th.Dport(), th.Seq()
	p.ctlinput(k, &e)
}

// classify maps type and code to what they mean. It reports false for what means nothing to
// anybody.
func (e *icmpError) classify(ic wire.ICMP) bool {
	switch ic.Type {
	case wire.ICMPUnreach:
		switch ic.Code {
		case wire.ICMPUnreachNeedfrag:
			e.mtu = int(ic.Rest & 0xffff)
			if e.mtu == 0 {
				e.mtu = -1
			}
		case wire.ICMPUnreachProtocol, wire.ICMPUnreachPort:
			e.errno, e.hard = syscall.ECONNREFUSED, true
		case wire.ICMPUnreachNetProhib, wire.ICMPUnreachHostProhib, wire.ICMPUnreachFilterProhib:
			e.errno, e.hard = syscall.ECONNREFUSED, true
		default:
			e.errno = syscall.EHOSTUNREACH
		}
		return ic.Code <= 15
	case wire.ICMPTimxceed:
		if ic.Code != wire.ICMPTimxceedIntrans {
			return false
		}
		e.errno, e.hard = syscall.EHOSTUNREACH, true
		return true
	}
	return false // source quench (RFC 6633), redirects, parameter problems: no connection suffers from them
}
