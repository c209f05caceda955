package kern

import (
	"net/netip"
	"syscall"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// The protocol switch: it lists the protocols of the Internet family, as BSD's in_proto.c does.

// Socket types and address families, as in sys/socket.h.
const (
	AF_INET     = 2
	AF_INET6    = 28
	SOCK_STREAM = 1
	SOCK_DGRAM  = 2
	SOCK_RAW    = 3
)

// A protosw describes a protocol: BSD's struct protosw.
type protosw struct {
	domain, typ int
	proto       int
	name        string

	// input takes a packet from IP: pr_input. ip describes the IP headers, with which the chain
	// begins. It is no pointer, which would be an allocation for each packet, as the compiler does
	// not know what a function in a table does with it. input takes over the chain.
	input func(k *Kernel, ip ipHdr, m *mbuf.Mbuf, ifp *Ifnet)
	// ctlinput takes an ICMP error about a packet of ours: pr_ctlinput.
	ctlinput func(k *Kernel, e *icmpError)
	// usrreq takes a request of the socket layer: pr_usrreq.
	usrreq func(so *Socket, req pruReq, a usrreqArgs) syscall.Errno
}

// An ipHdr is what a protocol above IP needs of a packet's IP headers, of either family. The
// addresses of a packet have no zone; the interface says the link.
type ipHdr struct {
	src, dst netip.Addr
	hlen     int   // all IP headers, with options or extension headers, in bytes
	len      int   // total length, with the IP headers
	tos, ttl uint8 // of IPv6, traffic class and hop limit
	proto    uint8
}

// is6 reports whether the packet is IPv6.
func (ip *ipHdr) is6() bool { return ip.src.Is6() }

// inetsw is the switch: BSD's inetsw and inet6sw.
var inetsw = []*protosw{
	{domain: AF_INET, typ: SOCK_STREAM, proto: wire.ProtoTCP, name: "tcp"},
	{domain: AF_INET, proto: wire.ProtoICMP, name: "icmp"},
	{domain: AF_INET6, typ: SOCK_STREAM, proto: wire.ProtoTCP, name: "tcp6"},
	{domain: AF_INET, typ: SOCK_DGRAM, proto: wire.ProtoUDP, name: "udp"},
	{domain: AF_INET6, typ: SOCK_DGRAM, proto: wire.ProtoUDP, name: "udp6"},
	{domain: AF_INET6, proto: wire.ProtoICMPv6, name: "icmp6"},
	{domain: AF_INET, typ: SOCK_DGRAM, proto: wire.ProtoICMP, name: "ping"},
	{domain: AF_INET6, typ: SOCK_DGRAM, proto: wire.ProtoICMPv6, name: "ping6"},
	{domain: AF_INET, typ: SOCK_RAW, proto: rawProto, name: "raw"},
	{domain: AF_INET6, typ: SOCK_RAW, proto: rawProto, name: "raw6"},
}

// rawProto stands for all protocols that SOCK_RAW has.
const rawProto = -1

func init() { // a literal would be an initialization cycle, as the functions use the switch
	for _, p := range inetsw {
		switch p.proto {
		case wire.ProtoTCP:
			p.input, p.ctlinput, p.usrreq = tcpInput, tcpCtlinput, tcpUsrreq
		case wire.ProtoUDP:
			p.input, p.ctlinput, p.usrreq = udpInput, udpCtlinput, udpUsrreq
		case wire.ProtoICMP:
			p.input, p.ctlinput = icmpInput, icmpCtlinput
		case wire.ProtoICMPv6:
			p.input, p.ctlinput = icmp6Input, icmpCtlinput
		case rawProto:
			p.usrreq = ripUsrreq
		}
		if p.typ == SOCK_DGRAM && p.proto != wire.ProtoUDP {
			p.usrreq = icmpDgramUsrreq
		}
	}
}

// pffindtype finds the protocol of a socket type, or nil if there is none: BSD's pffindtype.
func pffindtype(domain, typ int) *protosw {
	for _, p := range inetsw {
		if p.domain == domain && p.typ != 0 && p.typ == typ {
			return p
		}
	}
	return nil
}

// pffindproto finds a protocol by its number: BSD's pffindproto.
func pffindproto(domain, proto int) *protosw {
	for _, p := range inetsw {
		if p.domain == domain && p.proto == proto {
			return p
		}
	}
	return nil
}

// pffindsocket finds the protocol of a socket of a type, by its number, or one of another type if
// there is none of this: what BSD's pffindproto does for socreate.
func pffindsocket(domain, typ, proto int) (other *protosw) {
	for _, p := range inetsw {
		if p.domain != domain || p.usrreq == nil || p.proto != proto && (p.typ != SOCK_RAW || typ != SOCK_RAW) {
			continue
		}
		if p.typ == typ {
			return p
		}
		other = p
	}
	return other
}

// A pruReq is a request of the socket layer to a protocol, numbered as BSD's PRU_ constants.
type pruReq int

// The requests.
const (
	pruAttach     pruReq = 0
	pruDetach     pruReq = 1
	pruBind       pruReq = 2
	pruListen     pruReq = 3
	pruConnect    pruReq = 4
	pruAccept     pruReq = 5
	pruDisconnect pruReq = 6
	pruShutdown   pruReq = 7
	pruRcvd       pruReq = 8
	pruSend       pruReq = 9
	pruAbort      pruReq = 10
	pruSendoob    pruReq = 14
)

var pruNames = map[pruReq]string{
	pruAttach:     "PRU_ATTACH",
	pruDetach:     "PRU_DETACH",
	pruBind:       "PRU_BIND",
	pruListen:     "PRU_LISTEN",
	pruConnect:    "PRU_CONNECT",
	pruAccept:     "PRU_ACCEPT",
	pruDisconnect: "PRU_DISCONNECT",
	pruShutdown:   "PRU_SHUTDOWN",
	pruRcvd:       "PRU_RCVD",
	pruSend:       "PRU_SEND",
	pruAbort:      "PRU_ABORT",
	pruSendoob:    "PRU_SENDOOB",
}

// String returns the request's name in BSD's spelling.
func (r pruReq) String() string { return pruNames[r] }
