package kern

import (
	"encoding/binary"
	"net/netip"
	"syscall"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
)

// ICMPStats are the counters of ICMP: BSD's struct icmpstat.
type ICMPStats struct {
	Error, Tooshort, Checksum, Badlen, Reflect, Limited, Bmcastecho, Inerror tcp.Counter
}

// icmpInput takes an ICMP message from IP: BSD's icmp_input. It takes over the chain.
func icmpInput(k *Kernel, ip ipHdr, m *mbuf.Mbuf, ifp *Ifnet) {
	n := ip.len - ip.hlen
	if n < wire.ICMPLen {
		k.Stats.ICMP.Tooshort.Inc()
		mbuf.Free(m)
		return
	}
	if m.Pkt.Csum&mbuf.CsumValid == 0 && wire.Fold(sumChain(m, ip.hlen, n, 0)) != 0xffff {
		k.Stats.ICMP.Checksum.Inc()
		mbuf.Free(m)
		return
	}
	var b [wire.ICMPLen + wire.IPv4MaxLen + 8]byte
	got := b[:mbuf.Copydata(m, ip.hlen, b[:])]
	ic, _ := wire.ParseICMP(got)
	switch ic.Type {
	case wire.ICMPEcho:
		if ip.dst.IsMulticast() || ifp.broadcast(ip.dst) {
			// RFC 1122, 3.2.2.6: "An ICMP Echo Request destined to an IP broadcast or IP multicast
			// address MAY be silently discarded." An answer from each host would multiply a forged
			// request (the smurf attack).
			k.Stats.ICMP.Bmcastecho.Inc()
			break
		}
		k.icmpReflect(&ip, m, ic)
		return
	case wire.ICMPEchoReply:
		if !k.pings.answered(&ip, ic, m) {
			k.icmpDgramInput(&ip, ic, m, ifp)
			return
		}
	case wire.ICMPUnreach, wire.ICMPTimxceed, wire.ICMPParamProb, wire.ICMPSourceQuench:
		k.icmpDeliver(&ip, ic, got[wire.ICMPLen:])
	}
	mbuf.Free(m)
}

// icmpReflect answers an echo request: BSD's icmp_reflect and icmp_send. RFC 1122, 3.2.2.6: "Data
// received in an ICMP Echo Request MUST be entirely included in the resulting Echo Reply", and "The
// IP source address in an ICMP Echo Reply MUST be the same as the specific-destination address" of
// the request.
func (k *Kernel) icmpReflect(ip *ipHdr, m *mbuf.Mbuf, ic wire.ICMP) {
	pkt := m.Pkt
	n := ip.len - ip.hlen
	data := mbuf.Adj(m, ip.hlen+wire.ICMPLen)
	ic.Type = wire.ICMPEchoReply
	k.Stats.ICMP.Reflect.Inc()
	h := k.pool.Gethdr()
	h.Extend(wire.ICMPLen)
	ic.Put(h.Bytes())
	h.SetNext(data)
	h.Pkt.Len, h.Pkt.Flow = n, pkt.Flow
	k.icmpSend(h, &ipOut{src: ip.dst, dst: ip.src, proto: wire.ProtoICMP, tos: ip.tos, ttl: 255})
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

// portUnreach tells the sender of packet m, which stays the caller's, that no socket has the port:
// RFC 1122, 3.2.2.1, and RFC 4443, 3.1.
func (k *Kernel) portUnreach(ifp *Ifnet, ip *ipHdr, m *mbuf.Mbuf) {
	if ip.is6() {
		k.icmp6Error(ifp, ip, m, wire.ICMPv6Unreach, wire.ICMPv6UnreachPort, 0)
		return
	}
	k.icmpError(ifp, ip, m, wire.ICMPUnreach, wire.ICMPUnreachPort, 0)
}

// icmpError reports an error about packet m, which stays the caller's: BSD's icmp_error. RFC 1122,
// 3.2.2: "Every ICMP error message includes the Internet header and at least the first 8 data
// octets of the datagram that triggered the error".
func (k *Kernel) icmpError(ifp *Ifnet, ip *ipHdr, m *mbuf.Mbuf, typ, code uint8, rest uint32) {
	var b [wire.IPv4MaxLen + 8]byte
	got := b[:mbuf.Copydata(m, 0, b[:min(ip.hlen+8, len(b))])]
	k.icmpSendError(ifp, ip, got, typ, code, rest)
}

// icmpSendError sends an error about the packet that begins with orig, unless RFC 1122, 3.2.2,
// forbids it, or more errors are due than net.inet.icmp.icmplim allows in a second.
func (k *Kernel) icmpSendError(ifp *Ifnet, ip *ipHdr, orig []byte, typ, code uint8, rest uint32) {
	// "An ICMP error message MUST NOT be sent as the result of receiving: an ICMP error message, or
	// a datagram destined to an IP broadcast or IP multicast address, or a datagram sent as a
	// link-layer broadcast, or a non-initial fragment, or a datagram whose source address does not
	// define a single host". Links of this stack have no broadcasts below IP.
	v := wire.IPv4View(orig)
	if v.Off() != 0 || ip.dst.IsMulticast() || ifp.broadcast(ip.dst) ||
		ip.src.IsMulticast() || ip.src.IsUnspecified() {
		return
	}
	if v.Proto() == wire.ProtoICMP {
		// Of ICMP messages, only echo and its reply are known to be no errors.
		if t := orig[ip.hlen:]; len(t) == 0 || t[0] != wire.ICMPEcho && t[0] != wire.ICMPEchoReply {
			return
		}
	}
	src := ip.dst
	if k.ifaWithAddr(src) == nil {
		// The packet was in transit. The error comes from the interface at which the sender's
		// packets arrive, as traceroute should show it.
		if src = ifp.addrFor(ip.src); !src.IsValid() {
			return
		}
	}
	if !k.icmpLimit.take(in6(ip.src), k.now()) {
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
	k.icmpSend(h, &ipOut{src: src, dst: ip.src, proto: wire.ProtoICMP, tos: 0xc0, ttl: 255})
}

// An icmpError is an error about a packet that we have sent, from a message of either family.
type icmpError struct {
	errno syscall.Errno // 0: the error tells only an MTU
	hard  bool          // may end an attempt to connect
	mtu   int           // the packet was too big: the next hop's MTU; -1: the router does not tell it; 0: another error
	t     tuple         // of the packet that it quotes
	seq   tcp.Seq       // TCP's sequence number there
	quote [8]byte       // the first bytes behind the IP headers there

	from      netip.Addr // who reports the error
	typ, code uint8      // of the message
	rest      uint32     // of the message: see wire.ICMP
}

// icmpDeliver gives an error to the protocol whose packet it quotes: the deliver part of BSD's
// icmp_input, with inetctlerrmap. RFC 9293, 3.9.2.2, MUST-54: the IP header in the message says to
// which connection the error belongs.
func (k *Kernel) icmpDeliver(by *ipHdr, ic wire.ICMP, orig []byte) {
	k.Stats.ICMP.Inerror.Inc()
	ip, ok := wire.ViewIPv4(orig)
	if !ok || len(ip.Payload()) < 8 {
		k.Stats.ICMP.Badlen.Inc()
		return
	}
	e := icmpError{
		t:    tuple{laddr: in6(ip.Src()), faddr: in6(ip.Dst())},
		from: by.src, typ: ic.Type, code: ic.Code, rest: ic.Rest,
	}
	if !e.classify(ic) {
		return
	}
	p := pffindproto(AF_INET, int(ip.Proto()))
	if p == nil || p.ctlinput == nil {
		return
	}
	e.setQuote(ip.Payload())
	p.ctlinput(k, &e)
}

// setQuote notes what the message quotes of the transport's header, of which there are 8 bytes.
func (e *icmpError) setQuote(p []byte) {
	copy(e.quote[:], p)
	th := wire.TCPView(e.quote[:]) // ports are in the same place in each transport
	e.t.lport, e.t.fport, e.seq = th.Sport(), th.Dport(), th.Seq()
}

// classify finds the errno of an error, from its type and code, and whether the error may end an
// attempt to connect. It reports false for an error that no connection needs to know.
func (e *icmpError) classify(ic wire.ICMP) bool {
	switch ic.Type {
	case wire.ICMPUnreach:
		switch ic.Code {
		case wire.ICMPUnreachNeedfrag:
			// RFC 1191, 4: a router that does not know this field sends 0 in it.
			e.mtu = int(ic.Rest & 0xffff)
			if e.mtu == 0 {
				e.mtu = -1
			}
		case wire.ICMPUnreachProtocol, wire.ICMPUnreachPort:
			// RFC 9293, 3.9.2.2, counts codes 2 to 4 as hard errors. They end an attempt to
			// connect; RFC 5927, 5.2, has an established connection take them for soft errors, as
			// they can be forged.
			e.errno, e.hard = syscall.ECONNREFUSED, true
		case wire.ICMPUnreachNetProhib, wire.ICMPUnreachHostProhib, wire.ICMPUnreachFilterProhib:
			e.errno, e.hard = syscall.ECONNREFUSED, true
		default:
			// RFC 1122, 3.2.2.1: code 0, 1 or 5 "may result from a routing transient and MUST
			// therefore be interpreted as only a hint".
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
	// RFC 9293, 3.9.2.2: "TCP implementations MUST silently discard any received ICMP Source Quench
	// messages (MUST-55)." Redirects and parameter problems do not concern a connection.
	return false
}
