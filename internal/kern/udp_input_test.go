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

// udpPacket returns a packet with a datagram.
func udpPacket(src, dst netip.AddrPort, data []byte) []byte {
	return ipPacket(wire.IPv4{}, src.Addr(), dst.Addr(), wire.ProtoUDP, udpBytes(src, dst, data, nil))
}

var (
	udpFrom = ap("10.0.0.2:2000")
	udpTo   = ap("10.0.0.1:7")
)

// udpBound makes a socket of the victim's, which does not block.
func (v *victim) udpBound(addr string) *Socket {
	so := udpSocket(v, v.k, addr)
	so.Setnbio(true)
	return so
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
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		so := v.udpBound("10.0.0.1:7")
		defer so.Soclose()
		data := []byte("abcdefghijkl")
		for n := range wire.UDPLen + len(data) + 1 {
			for ulen := range 40 {
				u := udpBytes(udpFrom, udpTo, data, func(u wire.UDPView) {
					u.SetLen(ulen)
					if covered := min(ulen, len(u)); covered >= wire.UDPLen {
						sum := wire.PseudoSum(udpFrom.Addr(), udpTo.Addr(), wire.ProtoUDP, covered)
						u.SetSum(^wire.Fold(wire.Sum(u[:covered], sum)))
					}
				})
				v.inject(ipPacket(wire.IPv4{}, attPeer, attHost, wire.ProtoUDP, u[:n]))
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
// IPv4.
func TestUDPChecksum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		so := v.udpBound("10.0.0.1:7")
		defer so.Soclose()
		p := udpPacket(udpFrom, udpTo, []byte("abc"))
		for bit := range 8 * (len(p) - 20) {
			if bit/8 == 2 || bit/8 == 3 || bit/8 == 4 || bit/8 == 5 {
				continue // the port finds no socket, and the length is wrong: see TestUDPEveryLength
			}
			q := bytes.Clone(p)
			q[20+bit/8] ^= 1 << (bit % 8)
			v.inject(q)
			if got := udpGot(so); got != nil {
				t.Errorf("bit %d: received %q", bit, got)
			}
		}
		none := bytes.Clone(p)
		binary.BigEndian.PutUint16(none[26:], 0)
		v.inject(none)
		if got := udpGot(so); len(got) != 1 || v.k.Stats.UDP.Nosum.Load() != 1 {
			t.Errorf("without a checksum: received %q", got)
		}
		// What we send has a checksum that is never 0: the sum of these bytes is.
		for n := range 70000 {
			b := []byte{byte(n >> 16), byte(n >> 8), byte(n), 0}
			if _, errno := so.Sosendto(b, udpFrom); errno != 0 {
				t.Fatal(errno)
			}
			u := wire.UDPView(v.link.fetch()[0][20:])
			if u.Sum() == 0 {
				t.Fatalf("%x has the checksum 0", b)
			}
			if s := wire.Fold(wire.Sum(u, wire.PseudoSum(attHost, attPeer, wire.ProtoUDP, len(u)))); s != 0xffff {
				t.Fatalf("%x has a wrong checksum", b)
			}
		}
	})
}

// TestUDPNoPort: a datagram for a port without a socket is answered with one ICMP error that is no
// longer than the datagram and an IP header, except if it was for several hosts, and no more often
// than the limit allows.
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
}

// TestUDPICMPErrors: a connected socket learns of a hard error once; one about another datagram, or
// one that may pass, changes nothing.
func TestUDPICMPErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		so := v.udpBound("10.0.0.1:7")
		defer so.Soclose()
		v.no(so.Soconnect(udpFrom))
		about := func(src, dst netip.AddrPort, typ, code uint8) {
			v.inject(icmpPacket(attPeer, attHost, wire.ICMP{Type: typ, Code: code}, udpPacket(src, dst, nil)))
		}
		for _, c := range []struct {
			src, dst  string
			typ, code uint8
			want      syscall.Errno
		}{
			{"10.0.0.1:7", "10.0.0.2:2000", wire.ICMPUnreach, wire.ICMPUnreachPort, syscall.ECONNREFUSED},
			{"10.0.0.1:7", "10.0.0.2:2000", wire.ICMPUnreach, 0, 0},
			{"10.0.0.1:7", "10.0.0.2:2000", wire.ICMPUnreach, 1, 0},
			{"10.0.0.1:7", "10.0.0.2:2000", wire.ICMPSourceQuench, 0, 0},
			{"10.0.0.1:8", "10.0.0.2:2000", wire.ICMPUnreach, wire.ICMPUnreachPort, 0},
			{"10.0.0.1:7", "10.0.0.2:2001", wire.ICMPUnreach, wire.ICMPUnreachPort, 0},
			{"10.0.0.1:7", "10.0.0.3:2000", wire.ICMPUnreach, wire.ICMPUnreachPort, 0},
		} {
			about(ap(c.src), ap(c.dst), c.typ, c.code)
			if _, _, _, errno := so.Soreceivefrom(nil); errno != c.want && !(c.want == 0 && errno == syscall.EAGAIN) {
				t.Errorf("%+v: %v", c, errno)
			}
			if _, _, _, errno := so.Soreceivefrom(nil); errno != syscall.EAGAIN {
				t.Errorf("%+v: again %v", c, errno)
			}
		}
		// A reader that sleeps is woken.
		so.Setnbio(false)
		done := make(chan syscall.Errno)
		go func() { _, _, _, errno := so.Soreceivefrom(nil); done <- errno }()
		settle()
		about(udpTo, udpFrom, wire.ICMPUnreach, wire.ICMPUnreachPort)
		if errno := <-done; errno != syscall.ECONNREFUSED {
			t.Errorf("a reader that slept: %v", errno)
		}
		// A socket without a peer learns nothing.
		v.no(so.Soconnect(netip.AddrPort{}))
		about(udpTo, udpFrom, wire.ICMPUnreach, wire.ICMPUnreachPort)
		if errno := soError(so); errno != 0 {
			t.Errorf("without a peer: %v", errno)
		}
	})
}

// TestUDPFlood: what nobody reads takes no more memory than SO_RCVBUF says, whatever its size, and
// what is dropped is counted.
func TestUDPFlood(t *testing.T) {
	for _, size := range []int{0, 1, 60, 88, 89, 300, 1472} {
		synctest.Test(t, func(t *testing.T) {
			v := attacked(t, nil)
			defer v.done()
			so := v.udpBound("10.0.0.1:7")
			settle() // the link has its buffers
			used := v.k.Pool().Used()
			p := udpPacket(udpFrom, udpTo, make([]byte, size))
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
