package kern

import (
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"

	"bsdnet/internal/kern/wire"
)

var mcastGroup = netip.MustParseAddr("239.1.2.3")

// TestMulticastReceive: a datagram to a group is for each socket that has joined it on the
// interface that it comes from, and whose addresses it fits; a broadcast for each whose addresses
// it fits.
func TestMulticastReceive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		lo := v.k.Lo0()
		var list []*Socket
		sock := func(addr string, join *Ifnet) *Socket {
			so, errno := v.k.Socreate(AF_INET, SOCK_DGRAM, 0)
			v.no(errno)
			v.no(so.Sosetopt(SOL_SOCKET, int(SO_REUSEADDR), 1))
			v.no(so.Sobind(ap(addr)))
			so.Setnbio(true)
			if join != nil {
				v.no(so.Joingroup(mcastGroup, join))
			}
			list = append(list, so)
			return so
		}
		sock("0.0.0.0:7", v.ifp)      // 0
		sock("0.0.0.0:7", nil)        // 1
		sock("0.0.0.0:7", lo)         // 2
		sock("239.1.2.3:7", v.ifp)    // 3
		sock("10.0.0.1:7", v.ifp)     // 4
		sock("10.0.0.255:7", nil)     // 5
		c := sock("0.0.0.0:7", v.ifp) // 6
		v.no(c.Soconnect(ap("10.0.0.2:2001")))
		want := func(what string, which ...int) {
			t.Helper()
			for i, so := range list {
				n := len(udpGot(so))
				for _, w := range which {
					if w == i {
						n--
					}
				}
				if n != 0 {
					t.Errorf("%s: socket %d has %d datagrams too many", what, i, n)
				}
			}
		}
		v.inject(udpPacket(udpFrom, ap("239.1.2.3:7"), []byte("x")))
		want("group", 0, 3)
		v.inject(udpPacket(udpFrom, ap("239.1.2.4:7"), []byte("x")))
		want("another group")
		v.inject(udpPacket(udpFrom, ap("10.0.0.255:7"), []byte("x")))
		want("broadcast", 0, 1, 2, 5)
		v.inject(udpPacket(udpFrom, ap("255.255.255.255:7"), []byte("x")))
		want("limited broadcast", 0, 1, 2)
		v.no(list[0].Leavegroup(mcastGroup, v.ifp))
		v.inject(udpPacket(udpFrom, ap("239.1.2.3:7"), []byte("x")))
		want("group that one has left", 3)
		for _, c := range []struct{ got, want syscall.Errno }{
			{list[0].Leavegroup(mcastGroup, v.ifp), syscall.EADDRNOTAVAIL},
			{list[3].Joingroup(mcastGroup, nil), syscall.EADDRINUSE}, // the default route's interface
			{list[0].Joingroup(attPeer, nil), syscall.EINVAL},
			{list[0].Joingroup(netip.MustParseAddr("ff02::1"), v.ifp), syscall.EINVAL},
		} {
			if c.got != c.want {
				t.Errorf("errno %v, want %v", c.got, c.want)
			}
		}
		for _, so := range list {
			so.Soclose()
		}
		if v.ifp.joined(in6(mcastGroup)) || lo.joined(in6(mcastGroup)) {
			t.Error("the sockets are closed, and still in the group")
		}
	})
}

// TestMulticastSend: a datagram to a group goes out of the chosen interface with the TTL of
// IP_MULTICAST_TTL, and this stack's members get a copy if IP_MULTICAST_LOOP says so; broadcasts
// need SO_BROADCAST.
func TestMulticastSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		member := v.udpBound("0.0.0.0:7")
		defer member.Soclose()
		v.no(member.Joingroup(mcastGroup, v.ifp))
		so := v.udpBound("")
		defer so.Soclose()
		group := ap("239.1.2.3:7")
		send := func(to netip.AddrPort, errno syscall.Errno, packets, ttl, copies int) {
			t.Helper()
			if _, got := so.Sosendto(make([]byte, 100), to); got != errno {
				t.Errorf("%v: %v, want %v", to, got, errno)
			}
			l := v.link.fetch()
			if len(l) != packets {
				t.Fatalf("%v: %d packets", to, len(l))
			}
			for _, p := range l {
				ip, err := wire.ParseIPv4(p, len(p))
				if err != nil || ip.Src != attHost || ip.Dst != to.Addr() || int(ip.TTL) != ttl || len(p) != 128 {
					t.Errorf("%v: sent %+v, %v", to, ip, err)
				}
				u := p[20:]
				if wire.Fold(wire.Sum(u, wire.PseudoSum(ip.Src, ip.Dst, wire.ProtoUDP, len(u)))) != 0xffff {
					t.Errorf("%v: a wrong checksum", to)
				}
			}
			if got := udpGot(member); len(got) != copies || copies > 0 && len(got[0]) != 100 {
				t.Errorf("%v: %d copies", to, len(got))
			}
		}
		send(group, 0, 1, 1, 1)
		v.no(so.Sosetopt(IPPROTO_IP, IP_MULTICAST_LOOP, 0))
		v.no(so.Sosetopt(IPPROTO_IP, IP_MULTICAST_TTL, 9))
		send(group, 0, 1, 9, 0)
		v.no(so.Sosetopt(IPPROTO_IP, IP_MULTICAST_LOOP, 1))
		v.no(so.Sosetopt(IPPROTO_IP, IP_MULTICAST_TTL, 0))
		send(group, 0, 0, 0, 1)
		v.no(so.Setmcastif(v.k.Lo0()))
		send(group, 0, 0, 0, 0)
		v.no(member.Joingroup(mcastGroup, v.k.Lo0()))
		send(group, 0, 0, 0, 1)
		send(ap("10.0.0.255:7"), syscall.EACCES, 0, 0, 0)
		send(ap("255.255.255.255:7"), syscall.EACCES, 0, 0, 0)
		v.no(so.Sosetopt(SOL_SOCKET, int(SO_BROADCAST), 1))
		send(ap("10.0.0.255:7"), 0, 1, 64, 1)
		send(ap("255.255.255.255:7"), 0, 1, 64, 1)
		v.no(so.Sosetopt(SOL_SOCKET, int(SO_BROADCAST), 0))
		send(ap("10.0.0.255:7"), syscall.EACCES, 0, 0, 0)
	})
}
