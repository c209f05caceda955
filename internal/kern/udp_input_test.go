package kern

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
)

// udpBytes returns a datagram with its UDP header. mod, if it is not nil, may change it before the
// checksum is computed, unless the checksum is not 0 then.
func udpBytes(src, dst netip.AddrPort, data []byte, mod func(wire.UDPView)) []byte {
	u := make(wire.UDPView, wire.UDPLen+len(data))
	wire.UDP{Sport: src.Port(), Dport: dst.Port(), Len: len(u)}.Put(u)
	copy(u[wire.UDPLen:], data)
	if mod != nil {
		mod(u)
	}
	if u.Sum() == 0 {
		u.SetSum(^wire.Fold(wire.Sum(u, wire.PseudoSum(src.Addr(), dst.Addr(), wire.ProtoUDP, len(u)))))
	}
	return u
}

// udpIP puts a datagram into a packet, of the family of the addresses.
func udpIP(src, dst netip.AddrPort, u []byte) []byte {
	if src.Addr().Is6() {
		return ip6{
			IPv6: wire.IPv6{Src: src.Addr(), Dst: dst.Addr().WithZone("")}, proto: wire.ProtoUDP, payload: u,
		}.bytes()
	}
	return ipPacket(wire.IPv4{}, src.Addr(), dst.Addr(), wire.ProtoUDP, u)
}

// udpPacket returns a packet with a datagram.
func udpPacket(src, dst netip.AddrPort, data []byte) []byte {
	return udpIP(src, dst, udpBytes(src, dst, data, nil))
}

// udpError returns an ICMP error, of the family of the addresses, about a datagram of the stack's.
func udpError(src, dst netip.AddrPort, ic wire.ICMP, data []byte) []byte {
	quote := udpPacket(src, dst, data)
	if src.Addr().Is6() {
		return ip6{proto: wire.ProtoICMPv6, payload: icmp6Message(attPeer6, attHost6, ic, quote)}.bytes()
	}
	return icmpPacket(attPeer, attHost, ic, quote)
}

var (
	udpFrom = ap("10.0.0.2:2000")
	udpTo   = ap("10.0.0.1:7")

	// udpEnds are a peer and the stack, in both families.
	udpEnds = [][2]netip.AddrPort{
		{udpFrom, udpTo}, {netip.AddrPortFrom(attPeer6, 2000), netip.AddrPortFrom(attHost6, 7)},
	}
)

// udpBound makes a socket of the victim's, which does not block.
func (v *victim) udpBound(addr string) *Socket {
	so := udpSocket(v, v.k, addr)
	so.Setnbio(true)
	return so
}

// eachFamily runs a test with a victim, in a bubble, for both families: with the addresses of a
// peer and of the stack.
func eachFamily(t *testing.T, f func(t *testing.T, v *victim, from, to netip.AddrPort)) {
	for _, ends := range udpEnds {
		synctest.Test(t, func(t *testing.T) {
			v := attacked6(t, nil)
			defer v.done()
			f(t, v, ends[0], ends[1])
		})
	}
}

// udpGot returns what has arrived on a socket.
func udpGot(so *Socket) (list []string) {
	b := make([]byte, 65536)
	for {
		n, _, _, errno := so.Soreceivefrom(b)
		if errno != 0 {
			return list
		}
		list = append(list, string(b[:n]))
	}
}

// TestUDPEveryLength: each length field with each length of the packet either gives the right data
// or is counted as bad.
func TestUDPEveryLength(t *testing.T) {
	eachFamily(t, func(t *testing.T, v *victim, from, to netip.AddrPort) {
		so := v.udpBound(to.String())
		defer so.Soclose()
		data := []byte("abcdefghijkl")
		for n := range wire.UDPLen + len(data) + 1 {
			for ulen := range 40 {
				u := udpBytes(from, to, data, func(u wire.UDPView) {
					u.SetLen(ulen)
					if covered := min(ulen, len(u)); covered >= wire.UDPLen {
						sum := wire.PseudoSum(from.Addr(), to.Addr(), wire.ProtoUDP, covered)
						u.SetSum(^wire.Fold(wire.Sum(u[:covered], sum)))
					}
				})
				v.inject(udpIP(from, to, u[:n]))
				got := udpGot(so)
				if ok := n >= wire.UDPLen && ulen >= wire.UDPLen && ulen <= n; !ok {
					if got != nil {
						t.Errorf("%d bytes with length %d: received %q", n, ulen, got)
					}
				} else if len(got) != 1 || got[0] != string(data[:ulen-wire.UDPLen]) {
					t.Errorf("%d bytes with length %d: received %q", n, ulen, got)
				}
			}
		}
		st := &v.k.Stats.UDP
		if st.Hdrops.Load() != 8*40 || st.Badlen.Load() == 0 || st.Badsum.Load() != 0 {
			t.Errorf("hdrops %d, badlen %d, badsum %d", st.Hdrops.Load(), st.Badlen.Load(), st.Badsum.Load())
		}
	})
}

// TestUDPChecksum: a datagram with any bit changed is dropped; one without a checksum is taken over
// IPv4, and dropped over IPv6. What is sent has a checksum, which is never 0.
func TestUDPChecksum(t *testing.T) {
	eachFamily(t, func(t *testing.T, v *victim, from, to netip.AddrPort) {
		so := v.udpBound(to.String())
		defer so.Soclose()
		p := udpPacket(from, to, []byte("abc"))
		hl := len(p) - wire.UDPLen - 3
		for bit := range 8 * (len(p) - hl) {
			if b := bit / 8; b >= 2 && b <= 5 {
				continue // the port finds no socket, and the length is wrong: see TestUDPEveryLength
			}
			q := bytes.Clone(p)
			q[hl+bit/8] ^= 1 << (bit % 8)
			v.inject(q)
			if got := udpGot(so); got != nil {
				t.Errorf("bit %d: received %q", bit, got)
			}
		}
		bad, want := v.k.Stats.UDP.Badsum.Load(), 1
		binary.BigEndian.PutUint16(p[hl+6:], 0)
		v.inject(p)
		if from.Addr().Is6() {
			want = 0
		}
		st := &v.k.Stats.UDP
		if got := udpGot(so); len(got) != want || int(st.Nosum.Load()) != want || int(st.Badsum.Load()-bad) != 1-want {
			t.Errorf("without a checksum: received %q", got)
		}
		v.link.fetch()
		for n := range 66000 { // the sum of some of them is 0
			if _, errno := so.Sosendto([]byte{byte(n >> 16), byte(n >> 8), byte(n), 0}, from); errno != 0 {
				t.Fatal(errno)
			}
			u := wire.UDPView(v.link.fetch()[0][hl:])
			sum := wire.Fold(wire.Sum(u, wire.PseudoSum(to.Addr(), from.Addr(), wire.ProtoUDP, len(u))))
			if u.Sum() == 0 || sum != 0xffff {
				t.Fatalf("%x has a wrong checksum", n)
			}
		}
	})
}

// TestUDPNoPort: a datagram for a port without a socket is answered with one ICMP error, except if
// it was for several hosts, and no more often than the limit allows. Over IPv4 the error is not
// longer than the datagram, unless that is tiny.
func TestUDPNoPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		p := udpPacket(udpFrom, udpTo, make([]byte, 1000))
		v.inject(p)
		g := v.one()
		if g.ip.Dst != attPeer || g.data[0] != wire.ICMPUnreach || g.data[1] != wire.ICMPUnreachPort ||
			!bytes.Equal(g.data[8:], p[:28]) {
			t.Errorf("the error is %x", g.data)
		}
		for _, dst := range []string{"10.0.0.255:7", "255.255.255.255:7", "224.0.0.1:7"} {
			v.inject(udpPacket(udpFrom, ap(dst), []byte("x")))
			if l := v.link.fetch(); len(l) != 0 {
				t.Errorf("to %s: answered", dst)
			}
		}
		if n := v.k.Stats.UDP.Noportmcast.Load(); n != 3 {
			t.Errorf("%d datagrams for several hosts without a socket", n)
		}
		for range 1000 {
			v.inject(p)
		}
		if n := v.link.count(); n > 60 {
			t.Errorf("%d errors at once", n)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		v := attacked6(t, nil)
		defer v.done()
		from, to := udpEnds[1][0], udpEnds[1][1]
		p := udpPacket(from, to, make([]byte, 1000))
		v.inject(p)
		g := v.one6()
		if g.ip.Dst != attPeer6 || g.ic.Type != wire.ICMPv6Unreach || g.ic.Code != wire.ICMPv6UnreachPort ||
			!bytes.HasPrefix(g.data, p) || g.ip.Len > wire.IPv6MinMTU {
			t.Errorf("the error is %+v", g)
		}
		v.inject(udpPacket(from, ap("[ff02::1]:7"), []byte("x")))
		if l := v.link.fetch(); len(l) != 0 || v.k.Stats.UDP.Noportmcast.Load() != 1 {
			t.Error("to all nodes: answered, or not counted")
		}
		for range 1000 {
			v.inject(p)
		}
		if n := v.link.count(); n > 60 {
			t.Errorf("%d errors at once", n)
		}
	})
}

// TestUDPICMPErrors: a connected socket learns of a hard error once; one about another datagram, or
// one that may pass, changes nothing.
func TestUDPICMPErrors(t *testing.T) {
	eachFamily(t, func(t *testing.T, v *victim, from, to netip.AddrPort) {
		so := v.udpBound(to.String())
		defer so.Soclose()
		v.no(so.Soconnect(from))
		port := wire.ICMP{Type: wire.ICMPUnreach, Code: wire.ICMPUnreachPort}
		soft := []wire.ICMP{
			{Type: wire.ICMPUnreach}, {Type: wire.ICMPUnreach, Code: 1}, {Type: wire.ICMPSourceQuench},
		}
		if from.Addr().Is6() {
			port = wire.ICMP{Type: wire.ICMPv6Unreach, Code: wire.ICMPv6UnreachPort}
			soft = []wire.ICMP{{Type: wire.ICMPv6Unreach}, {Type: wire.ICMPv6Unreach, Code: 3}, {Type: 127}}
		}
		check := func(what string, want syscall.Errno, src, dst netip.AddrPort, ic wire.ICMP) {
			t.Helper()
			v.inject(udpError(src, dst, ic, nil))
			_, _, _, first := so.Soreceivefrom(nil)
			_, _, _, second := so.Soreceivefrom(nil)
			if first != want || second != syscall.EAGAIN {
				t.Errorf("%s: %v, then %v", what, first, second)
			}
		}
		check("port unreachable", syscall.ECONNREFUSED, to, from, port)
		for _, ic := range soft {
			check("soft error", syscall.EAGAIN, to, from, ic)
		}
		other := func(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr(), a.Port()+1) }
		check("another source port", syscall.EAGAIN, other(to), from, port)
		check("another destination port", syscall.EAGAIN, to, other(from), port)
		check("another destination", syscall.EAGAIN, to, netip.AddrPortFrom(from.Addr().Next(), from.Port()), port)
		// A reader that sleeps is woken.
		so.Setnbio(false)
		done := make(chan syscall.Errno)
		go func() { _, _, _, errno := so.Soreceivefrom(nil); done <- errno }()
		settle()
		v.inject(udpError(to, from, port, nil))
		if errno := <-done; errno != syscall.ECONNREFUSED {
			t.Errorf("a reader that slept: %v", errno)
		}
		// A socket without a peer learns nothing.
		v.no(so.Soconnect(netip.AddrPort{}))
		v.inject(udpError(to, from, port, nil))
		if errno := soError(so); errno != 0 {
			t.Errorf("without a peer: %v", errno)
		}
	})
}

// TestUDPPathMTU: a router's MTU holds for ten minutes. Then datagrams that are longer go in
// fragments, or, with IP_DONTFRAG, not at all. A message about a datagram that was short enough, or
// for which no socket can have been, is not believed.
func TestUDPPathMTU(t *testing.T) {
	eachFamily(t, func(t *testing.T, v *victim, from, to netip.AddrPort) {
		so := v.udpBound(to.String())
		defer so.Soclose()
		hl, tooBig := 28, func(mtu int) wire.ICMP {
			return wire.ICMP{Type: wire.ICMPUnreach, Code: wire.ICMPUnreachNeedfrag, Rest: uint32(mtu)}
		}
		if from.Addr().Is6() {
			hl, tooBig = 48, func(mtu int) wire.ICMP {
				return wire.ICMP{Type: wire.ICMPv6PacketTooBig, Rest: uint32(mtu)}
			}
		}
		data := make([]byte, 1500-hl)
		packets := func(want, most int) {
			t.Helper()
			if _, errno := so.Sosendto(data, from); errno != 0 {
				t.Fatal(errno)
			}
			l := v.link.fetch()
			for _, p := range l {
				if len(p) > most {
					t.Errorf("a packet of %d bytes", len(p))
				}
			}
			if len(l) != want {
				t.Errorf("%d packets", len(l))
			}
		}
		packets(1, 1500)
		other := netip.AddrPortFrom(to.Addr(), to.Port()+1)
		v.inject(udpError(other, from, tooBig(1300), data))
		v.inject(udpError(to, from, tooBig(1300), data[:1000]))
		packets(1, 1500)
		v.inject(udpError(to, from, tooBig(1300), data))
		packets(2, 1300)
		v.inject(udpError(to, from, tooBig(1400), data)) // an MTU does not grow by that
		packets(2, 1300)
		v.link.count()
		if n, errno := so.Sosendmsgs(batchOf(from, sizesOf(3, 1400)...), 0); n != 3 || errno != 0 {
			t.Errorf("sent %d, %v", n, errno)
		}
		if n := v.link.count(); n != 6 {
			t.Errorf("%d packets for a batch of three", n)
		}
		v.no(so.Sosetopt(IPPROTO_IP, IP_DONTFRAG, 1))
		if _, errno := so.Sosendto(data, from); errno != syscall.EMSGSIZE {
			t.Errorf("with IP_DONTFRAG: %v", errno)
		}
		v.no(so.Soconnect(from))
		v.inject(udpError(to, from, tooBig(1290), data))
		if errno := soError(so); errno != syscall.EMSGSIZE {
			t.Errorf("a message for a socket with IP_DONTFRAG: %v", errno)
		}
		v.no(so.Sosetopt(IPPROTO_IP, IP_DONTFRAG, 0))
		pass(hcExpireTime - time.Second)
		packets(2, 1290)
		pass(2 * time.Second)
		packets(1, 1500)
		// The least MTU, and the most entries.
		v.inject(udpError(to, from, tooBig(1), data))
		v.no(so.Soconnect(netip.AddrPort{}))
		for i := range 3 * hcMax {
			b := from.Addr().As16()
			b[14], b[15] = byte(i>>8), byte(i)
			v.inject(udpError(to, netip.AddrPortFrom(netip.AddrFrom16(b).Unmap(), 9), tooBig(1281), data))
		}
		if n := len(v.k.hostcache.m); n != hcMax || int(v.k.hostcache.n.Load()) != n {
			t.Errorf("%d entries", n)
		}
		for _, e := range v.k.hostcache.m {
			if e.mtu < minPMTU || from.Addr().Is6() && e.mtu < wire.IPv6MinMTU {
				t.Errorf("an MTU of %d", e.mtu)
			}
		}
	})
}

const hcExpireTime = time.Duration(hcExpire)

// TestUDPFlood: what nobody reads takes no more memory than SO_RCVBUF says, whatever its size, and
// what is dropped is counted.
func TestUDPFlood(t *testing.T) {
	for _, size := range []int{0, 1, 60, 88, 89, 300, 1452} {
		eachFamily(t, func(t *testing.T, v *victim, from, to netip.AddrPort) {
			so := v.udpBound(to.String())
			settle() // the link has its buffers
			used := v.k.Pool().Used()
			p := udpPacket(from, to, make([]byte, size))
			const n = 5000
			for range n {
				v.inject(p)
			}
			grown := v.k.Pool().Used() - used
			if grown > udpRecvspace || grown < udpRecvspace*9/10 {
				t.Errorf("%d bytes: %d bytes of memory, for a buffer of %d", size, grown, udpRecvspace)
			}
			got := len(udpGot(so))
			full := int(v.k.Stats.UDP.Fullsock.Load())
			if got+full != n || got < udpRecvspace/2400 {
				t.Errorf("%d bytes: %d received, %d dropped", size, got, full)
			}
			if so.dg.used.Load() != 0 {
				t.Errorf("%d bytes are counted when all has been read", so.dg.used.Load())
			}
			v.inject(p)
			if got := len(udpGot(so)); got != 1 {
				t.Errorf("%d received after the flood", got)
			}
			so.Soclose()
		})
	}
}

// TestUDPFloodOfSockets: while memory is short, a socket that does not read keeps its share only,
// and the stack's memory stays within its limit.
func TestUDPFloodOfSockets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const memory = 8 << 20
		v := attacked(t, func(c *Config, _ *tcp.Profile) { c.Memory = memory })
		defer v.done()
		var list []*Socket
		for i := range 100 {
			so := udpSocket(t, v.k, netip.AddrPortFrom(attHost, uint16(1000+i)).String())
			list = append(list, so)
		}
		for range 300 {
			for i := range list {
				v.inject(udpPacket(udpFrom, netip.AddrPortFrom(attHost, uint16(1000+i)), make([]byte, 1472)))
			}
		}
		if n := v.k.Pool().Used(); n > memory {
			t.Errorf("%d bytes are used of %d", n, memory)
		}
		for _, so := range list {
			if n := so.dg.used.Load(); n < 2048 {
				t.Errorf("a socket has kept %d bytes", n)
			}
			so.Soclose()
		}
	})
}

// TestUDPDeadlineInFlood: the deadline of a read holds although datagrams keep coming in.
func TestUDPDeadlineInFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		so := udpSocket(t, v.k, "10.0.0.1:7")
		defer so.Soclose()
		d := time.Now().Add(time.Second)
		so.SetDeadlines(&d, nil)
		n := 0
		for ; n < 100; n++ {
			v.inject(udpPacket(udpFrom, udpTo, nil))
			if _, _, _, errno := so.Soreceivefrom(nil); errno != 0 {
				break
			}
			pass(100 * time.Millisecond)
		}
		if n != 10 {
			t.Errorf("%d datagrams came before the deadline", n)
		}
	})
}
