package kern

import (
	"net/netip"
	"reflect"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
)

// over6 are tests of attacked stacks that run over IPv6 as well.
var over6 = []func(*testing.T){
	TestSynFlood, TestConnectionFlood, TestFloodHoldsNobodyUp, TestGarbage, TestSegmentOvertakesHandshake,
	TestSyncacheSegments, TestSyncacheVerdicts, TestSyncacheRetransmits, TestSyncachePAWS, TestSyncacheAborts,
	TestSyncacheForgedTimestamp, TestSyncacheDuplicateRestarts, TestSyncacheDuplicateKarn,
	TestSyncacheChallengesAreLimited, TestSyncacheFilledMeanwhile, TestHandshakeStaysWithItsListener,
	TestCookieKeepsOptions, TestCookieForgeries, TestCookieOfTheMinuteBefore, TestCookieForgetsNothing,
	TestCookieTimestampOffset,
	TestTimeWaitSegments, TestTimeWaitRecord, TestTimeWaitWithSocket, TestTimeWaitAnswersLimited,
	TestTimeWaitKeepsPortWithoutTimestamps, TestEphemeralPortsUnpredictable,
	TestParkedFirstComeFirstServed, TestParkedPlacesComeFree, TestParkedPortReused, TestParkedUnderPressure,
	TestListenerCloseRefusesParked, TestBurstOfDials,
	TestMemoryNobodyReads, TestMemoryNobodyAcknowledges, TestMemoryTinySegments, TestMemoryHeldByClosedWindows,
	TestOrphanTakesBytes, TestTCPEveryLength, TestTCPChecksumEveryBit,
}

func TestOverIPv6(t *testing.T) {
	attackOver(t, &attInet6)
	for _, f := range over6 {
		name := runtime.FuncForPC(reflect.ValueOf(f).Pointer()).Name()
		t.Run(name[strings.LastIndex(name, ".")+1:], f)
	}
}

// A dual is a stack with a link for each family.
type dual struct{ v4, v6 *victim }

func newDual(t *testing.T) dual {
	attackOver(t, &attInet6)
	v6 := attacked(t, nil)
	v4 := *v6
	v4.fam, v4.link = &attInet, newWireLink(1500)
	var err error
	if v4.ifp, err = v4.k.Attach("wire4", v4.link, []netip.Prefix{attInet.prefix}); err != nil {
		t.Fatal(err)
	}
	if err := v4.k.AddRoute(attInet.all, v4.ifp); err != nil {
		t.Fatal(err)
	}
	return dual{&v4, v6}
}

// A socket of AF_INET6 takes connections of both families, and shows IPv4 addresses mapped in
// system calls and as they are in lists.
func TestDualStackListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDual(t)
		defer d.v6.done()
		lfd := d.v6.listen(80, 5)
		if a, _ := d.v6.p.Getsockname(lfd); a != netip.MustParseAddrPort("[::]:80") {
			t.Errorf("listens on %v", a)
		}
		for _, v := range []*victim{d.v4, d.v6} {
			p, fd := v.established(lfd, 5000, 80)
			show := func(a netip.AddrPort) netip.AddrPort {
				return netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port())
			}
			if a, errno := v.p.Getpeername(fd); errno != 0 || a != show(p.from) {
				t.Errorf("%s: getpeername: %v %v", v.fam.name, a, errno)
			}
			if a, errno := v.p.Getsockname(fd); errno != 0 || a != show(p.to) {
				t.Errorf("%s: getsockname: %v %v", v.fam.name, a, errno)
			}
			if n, _ := v.p.Getsockopt(fd, IPPROTO_TCP, TCP_MAXSEG); n != 1480-v.fam.hdr {
				t.Errorf("%s: MSS %d", v.fam.name, n)
			}
			c := func() []tcp.State {
				return v.states(func(c Conn) bool { return c.Local == p.to && c.Remote == p.from })
			}
			if s := c(); len(s) != 1 || s[0] != tcp.Established {
				t.Errorf("%s: states %v", v.fam.name, s)
			}
			// TIME_WAIT, then tcpdrop.
			v.no(v.p.Close(fd))
			p.ack++
			v.inject(p.seg(wire.FIN|wire.ACK, nil).bytes())
			if s := c(); len(s) != 1 || s[0] != tcp.TimeWait {
				t.Errorf("%s: states %v", v.fam.name, s)
			}
			v.link.fetch()
			if n := v.k.Tcpdrop(func(c Conn) bool { return c.State == tcp.TimeWait }); n != 1 {
				t.Errorf("%s: %d dropped in TIME_WAIT", v.fam.name, n)
			}
			v.inject(v.peer(5001, 80).syn(wire.Options{}).bytes())
			v.link.fetch()
			if n := v.k.Tcpdrop(func(c Conn) bool { return c.State == tcp.SynReceived }); n != 1 {
				t.Errorf("%s: %d dropped in SYN_RECEIVED", v.fam.name, n)
			}
			v.established(lfd, 5002, 80)
			if n := v.k.Tcpdrop(func(c Conn) bool { return c.State == tcp.Established }); n != 1 {
				t.Errorf("%s: %d dropped in ESTABLISHED", v.fam.name, n)
			}
			if g := v.one(); g.th.Flags&wire.RST == 0 {
				t.Errorf("%s: %v", v.fam.name, g.th)
			}
		}
	})
}

// Each of two listeners on any address gets the connections of its family, and one on an address
// goes before them.
func TestListenersOfEachFamily(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDual(t)
		defer d.v6.done()
		port := uint16(5000)
		for _, c := range []struct {
			socks  []string // which of them gets a connection of IPv4, and which one of IPv6; -1: none
			v4, v6 int
		}{
			{[]string{"V6ONLY [::]:80"}, -1, 0},
			{[]string{"INET 0.0.0.0:80"}, 0, -1},
			{[]string{"INET 0.0.0.0:80", "V6ONLY [::]:80"}, 0, 1},
			{[]string{"INET6 [::]:80", "INET 0.0.0.0:80"}, 1, 0},
			{[]string{"INET 0.0.0.0:80", "INET6 [::]:80"}, 0, 1},
			{[]string{"INET6 [::]:80", "INET6 [::ffff:10.0.0.1]:80", "INET6 [fd00::1]:80"}, 1, 2},
			{[]string{"INET6 [::ffff:0.0.0.0]:80", "INET6 [::]:80"}, 0, 1},
		} {
			var fds []int
			for _, s := range c.socks {
				fds = append(fds, d.v6.listenAs(s))
			}
			for v, want := range map[*victim]int{d.v4: c.v4, d.v6: c.v6} {
				port++
				if ok := v.peer(port, 80).dial(wire.Options{}); ok != (want >= 0) {
					t.Errorf("%v: over %s: connected: %v", c.socks, v.fam.name, ok)
				}
				v.link.fetch()
				for i, fd := range fds {
					if _, _, errno := v.p.Accept(fd); (errno == 0) != (i == want) {
						t.Errorf("%v: over %s: accept of %d: %v", c.socks, v.fam.name, i, errno)
					}
				}
			}
			for _, fd := range fds {
				d.v6.no(d.v6.p.Close(fd))
			}
		}
	})
}

// listenAs makes a listener: "INET6 [::]:80". It may share its address.
func (v *victim) listenAs(text string) int {
	v.Helper()
	kind, at, _ := strings.Cut(text, " ")
	domain := AF_INET6
	if kind == "INET" {
		domain = AF_INET
	}
	fd, errno := v.p.Socket(domain, SOCK_STREAM, 0)
	v.no(errno)
	if kind == "V6ONLY" {
		v.no(v.p.Setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1))
	}
	v.no(v.p.Setsockopt(fd, SOL_SOCKET, int(SO_REUSEPORT), 1))
	v.no(v.p.Setsockopt(fd, SOL_SOCKET, int(SO_REUSEADDR), 1))
	v.no(v.p.Bind(fd, netip.MustParseAddrPort(at)))
	v.no(v.p.Listen(fd, 5))
	v.p.Fcntl(fd, F_SETFL, O_NONBLOCK)
	return fd
}

// Link-local addresses: a zone says the link, also if several links have the same address.
func TestLinkLocal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, err := New(Config{Profile: tcp.Default()})
		if err != nil {
			t.Fatal(err)
		}
		fam := attInet6
		fam.prefix, fam.peer = netip.MustParsePrefix("fe80::1/64"), netip.MustParseAddr("fe80::2")
		attackOver(t, &fam)
		var vs []*victim
		for _, name := range []string{"a", "b"} {
			v := &victim{TB: t, fam: &fam, k: k, p: k.NewProc(), link: newWireLink(1500)}
			if v.ifp, err = k.Attach(name, v.link, []netip.Prefix{fam.prefix}); err != nil {
				t.Fatal(err)
			}
			vs = append(vs, v)
		}
		defer vs[0].done()
		for i, v := range vs {
			zone := v.ifp.Name
			for addr, want := range map[string]syscall.Errno{
				"fe80::2": syscall.EINVAL, "fe80::2%none": syscall.EINVAL, "fe80::2%" + zone: 0,
			} {
				so, errno := v.connectNB(netip.AddrPortFrom(netip.MustParseAddr(addr), 9))
				if errno != want {
					t.Errorf("connect to %s: %v, want %v", addr, errno, want)
				}
				if errno != 0 {
					continue
				}
				if g := v.one(); g.ip.Src != fam.host() || g.ip.Dst != fam.peer {
					t.Errorf("%v -> %v", g.ip.Src, g.ip.Dst)
				}
				l, r := so.Addrs()
				if l.Addr().String() != "fe80::1%"+zone || r.Addr().String() != "fe80::2%"+zone {
					t.Errorf("addresses %v and %v", l, r)
				}
				so.Soabort()
			}
			vs[1-i].none()
			v.link.fetch()
		}
		// A listener is for its link.
		b := vs[1]
		lfd := b.listenOn(netip.MustParseAddrPort("[fe80::1%b]:80"), 5)
		if a, _ := b.p.Getsockname(lfd); a.String() != "[fe80::1%b]:80" {
			t.Errorf("listens on %v", a)
		}
		if vs[0].peer(5000, 80).dial(wire.Options{}) {
			t.Errorf("the listener takes what comes by another link")
		}
		if _, fd := b.established(lfd, 5000, 80); true {
			if a, _ := b.p.Getpeername(fd); a.String() != "[fe80::2%b]:5000" {
				t.Errorf("the peer is %v", a)
			}
		}
		fd, errno := b.p.Socket(AF_INET6, SOCK_STREAM, 0)
		b.no(errno)
		if errno := b.p.Bind(fd, netip.MustParseAddrPort("[fe80::2%b]:0")); errno != syscall.EADDRNOTAVAIL {
			t.Errorf("bind to the peer's address: %v", errno)
		}
	})
}
