package kern

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"

	"bsdnet/internal/kern/wire"
)

// rawSocket makes a socket that does not block.
func (v *victim) rawSocket(domain, typ, proto int) *Socket {
	v.Helper()
	so, errno := v.k.Socreate(domain, typ, proto)
	v.no(errno)
	so.Setnbio(true)
	return so
}

// received returns what a socket has received: the data of all datagrams, and whom they are from.
func received(so *Socket) (data [][]byte, from []netip.AddrPort) {
	for {
		b := make([]byte, 1<<16)
		n, a, _, errno := so.Soreceivefrom(b)
		if errno != 0 {
			return data, from
		}
		data, from = append(data, b[:n]), append(from, a)
	}
}

// echoOf is an echo request or reply of a peer.
func echoOf(src netip.Addr, typ uint8, id, seq uint16, data []byte) []byte {
	return icmpPacket(src, attHost, wire.ICMP{Type: typ, Rest: uint32(id)<<16 | uint32(seq)}, data)
}

// Which sockets there are: those that Linux has, except raw TCP and UDP.
func TestRawSockets(t *testing.T) {
	v := attacked(t, nil)
	defer v.done()
	for _, c := range []struct {
		domain, typ, proto int
		want               syscall.Errno
	}{
		{AF_INET, SOCK_RAW, wire.ProtoICMP, 0},
		{AF_INET, SOCK_RAW, 253, 0},
		{AF_INET, SOCK_RAW, 254, 0},
		{AF_INET, SOCK_RAW, 255, syscall.EPROTONOSUPPORT},
		{AF_INET, SOCK_RAW, 44, 0},
		{AF_INET6, SOCK_RAW, wire.ProtoICMPv6, 0},
		{AF_INET6, SOCK_RAW, 253, 0},
		{AF_INET, SOCK_RAW, 0, syscall.EPROTONOSUPPORT},
		{AF_INET, SOCK_RAW, 256, syscall.EPROTONOSUPPORT},
		{AF_INET, SOCK_RAW, -1, syscall.EPROTONOSUPPORT},
		{AF_INET, SOCK_RAW, wire.ProtoTCP, syscall.EPROTONOSUPPORT},
		{AF_INET6, SOCK_RAW, wire.ProtoUDP, syscall.EPROTONOSUPPORT},
		{AF_INET6, SOCK_RAW, 44, syscall.EPROTONOSUPPORT},
		{AF_INET, SOCK_DGRAM, wire.ProtoICMP, 0},
		{AF_INET6, SOCK_DGRAM, wire.ProtoICMPv6, 0},
		{AF_INET, SOCK_DGRAM, wire.ProtoUDP, 0},
		{AF_INET, SOCK_DGRAM, wire.ProtoTCP, syscall.EPROTOTYPE},
		{AF_INET, SOCK_STREAM, wire.ProtoICMP, syscall.EPROTOTYPE},
		{AF_INET, SOCK_DGRAM, 253, syscall.EPROTONOSUPPORT},
		{AF_INET6, SOCK_DGRAM, wire.ProtoICMP, syscall.EPROTONOSUPPORT},
	} {
		so, errno := v.k.Socreate(c.domain, c.typ, c.proto)
		if errno != c.want {
			t.Errorf("socket(%d, %d, %d): %v, want %v", c.domain, c.typ, c.proto, errno, c.want)
		}
		if errno == 0 {
			v.no(so.Soclose())
		}
	}
	if n := v.k.raw.n.Load(); n != 0 || len(v.k.raw.list) != 0 {
		t.Errorf("%d raw sockets are left", n)
	}
}

// A raw socket receives a copy of each packet of its protocol, with the IP header, whatever else
// becomes of the packet.
func TestRawReceive(t *testing.T) {
	v := attacked(t, nil)
	defer v.done()
	all, bound := v.rawSocket(AF_INET, SOCK_RAW, 1), v.rawSocket(AF_INET, SOCK_RAW, 1)
	peered, other := v.rawSocket(AF_INET, SOCK_RAW, 1), v.rawSocket(AF_INET, SOCK_RAW, 253)
	v.no(bound.Sobind(netip.AddrPortFrom(attHost, 0)))
	v.no(peered.Soconnect(netip.AddrPortFrom(netip.MustParseAddr("10.0.0.3"), 0)))
	third := netip.MustParseAddr("10.0.0.3")
	group := icmpPacket(attPeer, netip.MustParseAddr("224.0.0.1"), wire.ICMP{Type: 9}, nil)
	packets := [][]byte{
		echoOf(attPeer, wire.ICMPEcho, 1, 2, []byte("request")),
		echoOf(third, wire.ICMPEchoReply, 3, 4, []byte("reply")),
		icmpPacket(attPeer, attHost, wire.ICMP{Type: wire.ICMPUnreach, Code: 3}, make([]byte, 28)),
		icmpPacket(attPeer, attHost, wire.ICMP{Type: 200}, nil),
		group,
	}
	for _, p := range packets {
		v.inject(p)
	}
	v.inject(ipPacket(wire.IPv4{}, attPeer, attHost, 253, []byte("experiment")))
	if g := v.one(); g.data[0] != wire.ICMPEchoReply { // and no error about protocol 253
		t.Errorf("the stack has answered %x", g.data)
	}
	for _, c := range []struct {
		what string
		so   *Socket
		want [][]byte
	}{
		{"any", all, packets},
		{"bound", bound, packets[:4]},
		{"with a peer", peered, packets[1:2]},
	} {
		data, from := received(c.so)
		if len(data) != len(c.want) {
			t.Errorf("%s: %d packets, want %d", c.what, len(data), len(c.want))
			continue
		}
		for i, p := range c.want {
			if src := wire.IPv4View(p).Src(); !bytes.Equal(data[i], p) || from[i] != netip.AddrPortFrom(src, 0) {
				t.Errorf("%s: %x from %v, want %x", c.what, data[i], from[i], p)
			}
		}
	}
	if data, _ := received(other); len(data) != 1 || string(data[0][20:]) != "experiment" {
		t.Errorf("protocol 253: %q", data)
	}
	v.no(other.Soclose())
	v.inject(ipPacket(wire.IPv4{}, attPeer, attHost, 253, []byte("experiment")))
	if g := v.one(); g.data[0] != wire.ICMPUnreach || g.data[1] != wire.ICMPUnreachProtocol {
		t.Errorf("without a socket: %x", g.data)
	}
	// A disconnected socket receives from all again.
	v.no(peered.Soconnect(netip.AddrPort{}))
	v.inject(packets[0])
	if data, _ := received(peered); len(data) != 1 {
		t.Errorf("disconnected: %d packets", len(data))
	}
	v.link.fetch()
	for _, so := range []*Socket{all, bound, peered} {
		v.no(so.Soclose())
	}
}

// What a raw socket sends has an IP header of the stack's and is otherwise the user's.
func TestRawSend(t *testing.T) {
	v := attacked(t, nil)
	defer v.done()
	so := v.rawSocket(AF_INET, SOCK_RAW, 253)
	if _, errno := so.Sosendto([]byte("x"), netip.AddrPort{}); errno != syscall.EDESTADDRREQ {
		t.Errorf("without an address: %v", errno)
	}
	v.no(so.Sosetopt(IPPROTO_IP, IP_TTL, 9))
	v.no(so.Sosetopt(IPPROTO_IP, IP_TOS, 0x20))
	to := netip.AddrPortFrom(attPeer, 0)
	_, errno := so.Sosendto([]byte("hello"), to)
	v.no(errno)
	if g := v.one(); string(g.data) != "hello" || g.ip.Proto != 253 || g.ip.TTL != 9 || g.ip.TOS != 0x20 ||
		g.ip.Src != attHost || g.ip.Dst != attPeer {
		t.Errorf("sent %+v", g)
	}
	_, errno = so.Sosendto(make([]byte, 3000), to)
	v.no(errno)
	if body, n := rejoin(v, v.link.fetch()); len(body) != 3000 || n != 3 {
		t.Errorf("3000 bytes became %d in %d fragments", len(body), n)
	}
	for _, c := range []struct {
		what string
		n    int
		to   string
		want syscall.Errno
	}{
		{"too long", wire.MaxPacket - wire.IPv4MinLen + 1, "10.0.0.2:0", syscall.EMSGSIZE},
		{"broadcast", 1, "10.0.0.255:0", syscall.EACCES},
		{"another family", 1, "[2001:db8::1]:0", syscall.EAFNOSUPPORT},
	} {
		if _, errno := so.Sosendto(make([]byte, c.n), netip.MustParseAddrPort(c.to)); errno != c.want {
			t.Errorf("%s: %v, want %v", c.what, errno, c.want)
		}
	}
	v.none()
	if errno := so.Sobind(netip.MustParseAddrPort("10.0.0.9:0")); errno != syscall.EADDRNOTAVAIL {
		t.Errorf("bind to another host's address: %v", errno)
	}
	v.no(so.Soconnect(to))
	_, errno = so.Sosendto([]byte("again"), netip.AddrPort{})
	v.no(errno)
	if g := v.one(); string(g.data) != "again" || so.Laddr().Addr() != attHost || so.Faddr() != to {
		t.Errorf("from %v to %v: %+v", so.Laddr(), so.Faddr(), g)
	}
	v.no(so.Soclose())
}

// A46: a flood of packets for a raw socket that nobody reads fills its buffer and no more.
func TestRawFlood(t *testing.T) {
	v := attacked(t, nil)
	defer v.done()
	so := v.rawSocket(AF_INET, SOCK_RAW, 1)
	ping := v.rawSocket(AF_INET, SOCK_DGRAM, 1)
	v.no(ping.Sobind(netip.AddrPortFrom(netip.IPv4Unspecified(), 77)))
	_, before := v.k.Pool().Outstanding()
	for i := range 20000 {
		v.inject(echoOf(attPeer, wire.ICMPEchoReply, 77, uint16(i), make([]byte, 100)))
	}
	_, after := v.k.Pool().Outstanding()
	if n := after - before; n > 3*udpRecvspace {
		t.Errorf("two sockets hold %d bytes", n)
	}
	n := v.k.Stats.IP.Fullsock.Load()
	if so.dg.fullsock == 0 || ping.dg.fullsock == 0 || n != so.dg.fullsock+ping.dg.fullsock {
		t.Errorf("drops counted: %d and %d, %d in all", so.dg.fullsock, ping.dg.fullsock, n)
	}
	v.no(so.Soclose())
	v.no(ping.Soclose())
}

// A ping socket sends echo requests under its own identifier, and receives the replies to it, and
// nothing else.
func TestPingSocket(t *testing.T) {
	v := attacked(t, nil)
	defer v.done()
	so := v.rawSocket(AF_INET, SOCK_DGRAM, 1)
	to := netip.AddrPortFrom(attPeer, 0)
	msg := func(typ, code uint8, data string) []byte {
		return append([]byte{typ, code, 0xee, 0xee, 0xee, 0xee, 0, 9}, data...)
	}
	for what, b := range map[string][]byte{
		"a reply": msg(0, 0, ""), "a code": msg(8, 1, ""), "an error": msg(3, 0, ""), "short": msg(8, 0, "")[:7],
		"nothing": nil,
	} {
		if _, errno := so.Sosendto(b, to); errno != syscall.EINVAL {
			t.Errorf("%s: %v", what, errno)
		}
	}
	v.none()
	_, errno := so.Sosendto(msg(8, 0, "odd"), to)
	v.no(errno)
	packet := v.link.fetch()[0]
	g := v.parse(packet)
	ic, _ := wire.ParseICMP(g.data)
	id := so.Laddr().Port()
	// A socket without a peer learns of no errors, as it could not say whom they are about.
	v.inject(icmpPacket(attPeer, attHost, wire.ICMP{Type: wire.ICMPUnreach, Code: wire.ICMPUnreachProtocol}, packet))
	if _, errno := so.Soreceive(nil, 0); errno != syscall.EAGAIN {
		t.Errorf("without a peer: %v", errno)
	}
	if id == 0 || ic != (wire.ICMP{Type: 8, Rest: uint32(id)<<16 | 9}) || wire.InCksum(g.data) != 0 ||
		string(g.data[8:]) != "odd" || g.ip.Proto != wire.ProtoICMP {
		t.Errorf("sent %x under %d", g.data, id)
	}
	third := netip.MustParseAddr("10.0.0.3")
	v.inject(echoOf(attPeer, wire.ICMPEchoReply, id+1, 9, []byte("odd")))
	v.inject(echoOf(attPeer, wire.ICMPEcho, id, 9, []byte("odd")))
	v.inject(echoOf(attPeer, wire.ICMPEchoReply, id, 9, []byte("one")))
	v.inject(echoOf(third, wire.ICMPEchoReply, id, 9, []byte("two")))
	data, from := received(so)
	if len(data) != 2 || string(data[0][8:]) != "one" || data[0][0] != wire.ICMPEchoReply || from[0] != to ||
		string(data[1][8:]) != "two" || from[1].Addr() != third {
		t.Errorf("received %q from %v", data, from)
	}
	// With a peer, only its replies count, and errors about what went there.
	v.no(so.Soconnect(to))
	v.inject(echoOf(third, wire.ICMPEchoReply, id, 9, nil))
	v.inject(echoOf(attPeer, wire.ICMPEchoReply, id, 9, nil))
	if data, _ := received(so); len(data) != 1 {
		t.Errorf("connected: %d replies", len(data))
	}
	v.link.fetch()
	_, errno = so.Sosendto(msg(8, 0, ""), netip.AddrPort{})
	v.no(errno)
	sent := v.link.fetch()[0]
	unreach := func(code uint8) []byte {
		return icmpPacket(third, attHost, wire.ICMP{Type: wire.ICMPUnreach, Code: code}, sent)
	}
	v.inject(unreach(wire.ICMPUnreachHost)) // it may pass
	if _, errno := so.Soreceive(nil, 0); errno != syscall.EAGAIN {
		t.Errorf("host unreachable: %v", errno)
	}
	v.inject(unreach(wire.ICMPUnreachProtocol))
	if _, errno := so.Soreceive(nil, 0); errno != syscall.ECONNREFUSED {
		t.Errorf("protocol unreachable: %v", errno)
	}
	// Identifiers are taken, and given back.
	two := v.rawSocket(AF_INET, SOCK_DGRAM, 1)
	if errno := two.Sobind(netip.AddrPortFrom(netip.IPv4Unspecified(), id)); errno != syscall.EADDRINUSE {
		t.Errorf("a second socket of the same identifier: %v", errno)
	}
	v.no(so.Soclose())
	v.no(two.Sobind(netip.AddrPortFrom(netip.IPv4Unspecified(), id)))
	v.no(two.Soclose())
	for i := range v.k.icmpIDs.shards {
		if s := &v.k.icmpIDs.shards[i]; len(s.users)+len(s.conns) != 0 {
			t.Errorf("identifiers are left: %v %v", s.users, s.conns)
		}
	}
}

// pingResult is what Ping has returned.
type pingResult struct {
	PingReply
	errno syscall.Errno
}

// A call of Ping returns the answer to its request, and is not deceived by others.
func TestPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		start := func(a PingArgs) (request []byte, result chan pingResult, stop chan struct{}) {
			result, stop = make(chan pingResult, 1), make(chan struct{})
			if !a.Dst.IsValid() {
				a.Dst = attPeer
			}
			go func() {
				r, errno := v.k.Ping(&a, stop)
				result <- pingResult{r, errno}
			}()
			settle()
			return v.link.fetch()[0], result, stop
		}
		reply := func(p []byte, from netip.Addr) []byte {
			q := wire.IPv4View(p)
			ic := wire.ICMP{Type: wire.ICMPEchoReply, Rest: binary.BigEndian.Uint32(q.Payload()[4:])}
			return icmpPacket(from, attHost, ic, q.Payload()[8:])
		}
		third := netip.MustParseAddr("10.0.0.3")
		p, result, _ := start(PingArgs{Size: 11, TTL: 7, TOS: 4, DF: true})
		g := v.parse(p)
		if len(g.data) != 19 || g.ip.TTL != 7 || g.ip.TOS != 4 || g.ip.Flags != wire.IPDF || wire.InCksum(g.data) != 0 {
			t.Errorf("sent %+v", g)
		}
		good := reply(p, attPeer)
		for what, i := range map[string]int{"data": 28, "identifier": 24, "sequence number": 26} {
			bad := bytes.Clone(good)
			bad[i] ^= 1
			bad[22], bad[23] = 0, 0
			binary.BigEndian.PutUint16(bad[22:], wire.InCksum(bad[20:]))
			v.inject(bad)
			if len(result) != 0 {
				t.Fatalf("another %s: %+v", what, <-result)
			}
		}
		v.inject(reply(p[:len(p)-1], attPeer))
		v.inject(reply(p, third))
		v.inject(icmpPacket(third, attHost, wire.ICMP{Type: wire.ICMPUnreach}, reply(p, attPeer)))
		settle()
		if len(result) != 0 {
			t.Fatalf("a forged answer: %+v", <-result)
		}
		pass(10e6)
		v.inject(good)
		if r := <-result; r != (pingResult{PingReply{From: attPeer, RTT: 10e6, TTL: 64}, 0}) {
			t.Errorf("answered: %+v", r)
		}
		for _, c := range []struct {
			typ, code uint8
			rest      uint32
			want      PingReply
		}{
			{wire.ICMPTimxceed, 0, 0, PingReply{Errno: syscall.EHOSTUNREACH}},
			{wire.ICMPUnreach, wire.ICMPUnreachNet, 0, PingReply{Errno: syscall.EHOSTUNREACH}},
			{wire.ICMPUnreach, wire.ICMPUnreachProtocol, 0, PingReply{Errno: syscall.ECONNREFUSED}},
			{wire.ICMPUnreach, wire.ICMPUnreachNeedfrag, 576, PingReply{Errno: syscall.EMSGSIZE, MTU: 576}},
			{wire.ICMPUnreach, wire.ICMPUnreachNeedfrag, 0, PingReply{Errno: syscall.EMSGSIZE}},
		} {
			p, result, _ := start(PingArgs{TTL: 64})
			pass(1e6)
			v.inject(icmpPacket(third, attHost, wire.ICMP{Type: c.typ, Code: c.code, Rest: c.rest}, p))
			c.want.From, c.want.RTT, c.want.Type, c.want.Code = third, 1e6, c.typ, c.code
			if r := <-result; r != (pingResult{c.want, 0}) {
				t.Errorf("%+v, want %+v", r, c.want)
			}
		}
		_, result, stop := start(PingArgs{TTL: 64})
		close(stop)
		if r := <-result; r.errno != syscall.EAGAIN {
			t.Errorf("stopped: %+v", r)
		}
		r, errno := v.k.Ping(&PingArgs{Dst: attHost, Size: MaxPing4, TTL: 64}, nil)
		if errno != 0 || r.From != attHost {
			t.Errorf("the stack itself: %+v, %v", r, errno)
		}
		for what, c := range map[string]struct {
			a    PingArgs
			want syscall.Errno
		}{
			"too long":         {PingArgs{Dst: attPeer, Size: MaxPing4 + 1}, syscall.EMSGSIZE},
			"longer than MTU":  {PingArgs{Dst: attPeer, Size: 1473, DF: true}, syscall.EMSGSIZE},
			"no address":       {PingArgs{}, syscall.EINVAL},
			"broadcast":        {PingArgs{Dst: netip.MustParseAddr("10.0.0.255")}, syscall.EACCES},
			"foreign source":   {PingArgs{Dst: attPeer, Src: third}, syscall.EADDRNOTAVAIL},
			"source of IPv6":   {PingArgs{Dst: attPeer, Src: netip.IPv6Loopback()}, syscall.EAFNOSUPPORT},
			"link without one": {PingArgs{Dst: netip.MustParseAddr("fe80::1")}, syscall.EINVAL},
		} {
			if _, errno := v.k.Ping(&c.a, nil); errno != c.want {
				t.Errorf("%s: %v, want %v", what, errno, c.want)
			}
		}
		if len(v.k.pings.m) != 0 {
			t.Errorf("%d requests are left", len(v.k.pings.m))
		}
		_, result, _ = start(PingArgs{TTL: 64})
		v.k.Close()
		if r := <-result; r.errno != syscall.EBADF {
			t.Errorf("the stack has been closed: %+v", r)
		}
		if _, errno := v.k.Ping(&PingArgs{Dst: attPeer}, nil); errno != syscall.EBADF {
			t.Errorf("after Close: %v", errno)
		}
	})
}

// The same over IPv6: a raw socket receives what follows the headers, the stack computes and
// verifies ICMPv6's checksum, and a ping socket and Ping do what they do over IPv4.
func TestRaw6(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked6(t, nil)
		defer v.done()
		raw := v.rawSocket(AF_INET6, SOCK_RAW, wire.ProtoICMPv6)
		ping := v.rawSocket(AF_INET6, SOCK_DGRAM, wire.ProtoICMPv6)
		other := v.rawSocket(AF_INET6, SOCK_RAW, 253)
		to := netip.AddrPortFrom(attPeer6, 0)
		sent := func() []byte {
			t.Helper()
			l := v.link.fetch()
			if len(l) != 1 {
				t.Fatalf("%d packets were sent: %x", len(l), l)
			}
			p := l[0]
			ip, err := wire.ParseIPv6(p, len(p))
			sum := wire.Fold(wire.Sum(p[40:], wire.PseudoSum(ip.Src, ip.Dst, wire.ProtoICMPv6, len(p)-40)))
			if err != nil || ip.Dst != attPeer6 || ip.Src != attHost6 || ip.Next != wire.ProtoICMPv6 || sum != 0xffff {
				t.Fatalf("sent %x: %v", p, err)
			}
			return p[40:]
		}
		_, errno := raw.Sosendto([]byte{128, 0, 1, 2, 3, 4, 5, 6, 7}, to)
		v.no(errno)
		if b := sent(); string(b[4:]) != "\x03\x04\x05\x06\x07" {
			t.Errorf("sent %x", b)
		}
		if _, errno := raw.Sosendto([]byte{128, 0, 1}, to); errno != syscall.EINVAL {
			t.Errorf("no room for a checksum: %v", errno)
		}
		_, errno = ping.Sosendto([]byte{128, 0, 1, 2, 3, 4, 5, 6, 7}, to)
		v.no(errno)
		id := ping.Laddr().Port()
		if b := sent(); binary.BigEndian.Uint16(b[4:]) != id || id == 0 {
			t.Errorf("sent %x under %d", b, id)
		}
		if _, errno := ping.Sosendto([]byte{8, 0, 1, 2, 3, 4, 5, 6}, to); errno != syscall.EINVAL {
			t.Errorf("a request of ICMP: %v", errno)
		}
		mapped := ap("[::ffff:10.0.0.2]:0")
		if _, errno := raw.Sosendto([]byte{8, 0, 1, 2, 3, 4, 5, 6}, mapped); errno != syscall.ENETUNREACH {
			t.Errorf("to IPv4: %v", errno)
		}
		reply := func(rest uint32, body string) []byte {
			ic := wire.ICMP{Type: wire.ICMPv6EchoReply, Rest: rest}
			return icmp6Message(attPeer6, attHost6, ic, []byte(body))
		}
		good := reply(uint32(id)<<16, "hello")
		bad := bytes.Clone(good)
		bad[len(bad)-1] ^= 1
		behind := []ext6{{wire.ProtoDstopts, []byte{0, 0, 1, 4, 0, 0, 0, 0}}}
		v.inject(ip6{proto: wire.ProtoICMPv6, payload: bad}.bytes())
		v.inject(ip6{proto: wire.ProtoICMPv6, payload: good, ext: behind}.bytes())
		v.inject(ip6{proto: 253, payload: []byte("experiment"), ext: behind}.bytes())
		if l := v.link.fetch(); len(l) != 0 {
			t.Errorf("the stack has answered %x", l)
		}
		for what, c := range map[string]struct {
			so   *Socket
			want string
		}{"raw": {raw, string(good)}, "ping": {ping, string(good)}, "protocol 253": {other, "experiment"}} {
			data, from := received(c.so)
			if len(data) != 1 || string(data[0]) != c.want || from[0] != to {
				t.Errorf("%s: received %x from %v", what, data, from)
			}
			v.no(c.so.Soclose())
		}
		v.inject(ip6{proto: 253, payload: []byte("experiment")}.bytes())
		if l := v.link.fetch(); len(l) != 1 {
			t.Errorf("without a socket: %x", l)
		}

		result := make(chan pingResult, 1)
		start := func(dst string, size int) []byte {
			go func() {
				r, errno := v.k.Ping(&PingArgs{Dst: netip.MustParseAddr(dst), Size: size, TTL: 9, TOS: 4}, nil)
				result <- pingResult{r, errno}
			}()
			settle()
			return v.link.fetch()[0]
		}
		p := start("2001:db8::2", 8)
		if ip, _ := wire.ParseIPv6(p, len(p)); ip.Hlim != 9 || ip.Class != 4 {
			t.Errorf("sent %x", p)
		}
		v.inject(ip6{proto: wire.ProtoICMPv6, payload: reply(binary.BigEndian.Uint32(p[44:]), string(p[48:]))}.bytes())
		if r := <-result; r != (pingResult{PingReply{From: attPeer6, TTL: 64}, 0}) {
			t.Errorf("answered: %+v", r)
		}
		p = start("2001:db8::2", 8)
		big := icmp6Message(attPeer6, attHost6, wire.ICMP{Type: wire.ICMPv6PacketTooBig, Rest: 1300}, p)
		v.inject(ip6{proto: wire.ProtoICMPv6, payload: big}.bytes())
		want := PingReply{From: attPeer6, Errno: syscall.EMSGSIZE, Type: wire.ICMPv6PacketTooBig, MTU: 1300}
		if r := <-result; r != (pingResult{want, 0}) {
			t.Errorf("too big: %+v", r)
		}
		local := netip.MustParseAddr("fe80::2")
		p = start("fe80::2%wire0", 0)
		ic := wire.ICMP{Type: wire.ICMPv6EchoReply, Rest: binary.BigEndian.Uint32(p[44:])}
		v.inject(ip6{IPv6: wire.IPv6{Src: local, Dst: attLocal6}, proto: wire.ProtoICMPv6,
			payload: icmp6Message(local, attLocal6, ic, nil)}.bytes())
		if r := <-result; r.errno != 0 || r.From != local.WithZone("wire0") {
			t.Errorf("on the link: %+v", r)
		}
		for _, n := range []int{0, MaxPing6} {
			r, errno := v.k.Ping(&PingArgs{Dst: attHost6, Size: n, TTL: 64}, nil)
			if errno != 0 || r.From != attHost6 {
				t.Errorf("the stack itself, %d bytes: %+v, %v", n, r, errno)
			}
		}
		if _, errno := v.k.Ping(&PingArgs{Dst: attHost6, Size: MaxPing6 + 1}, nil); errno != syscall.EMSGSIZE {
			t.Errorf("too long: %v", errno)
		}
	})
}
