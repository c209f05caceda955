package kern

import (
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
)

// A36, over IPv6: about which packets an error is sent (RFC 4443, 2.4), how much of them it quotes,
// and how often.
func TestICMP6ErrorRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked6(t, nil)
		defer v.done()
		a := netip.MustParseAddr
		odd := func(src, dst netip.Addr, n int) []byte {
			return ip6{IPv6: wire.IPv6{Src: src, Dst: dst, Class: 7}, proto: 200, payload: pattern6(n)}.bytes()
		}
		// As much as fits in a packet of 1280 bytes is quoted, and never more than has arrived.
		for _, n := range []int{0, 8, 1191, 1192, 1193, 1460} {
			p := odd(attPeer6, attHost6, n)
			v.inject(p)
			g := v.one6()
			if g.ip.Dst != attPeer6 || g.ip.Src != attHost6 || g.ip.Hlim != 64 ||
				g.ic != (wire.ICMP{Type: wire.ICMPv6ParamProb, Code: wire.ICMPv6ParamNextHeader, Rest: 6}) ||
				!slices.Equal(g.data, p[:min(len(p), 1232)]) {
				t.Errorf("about %d bytes: %+v, which quotes %d", n, g, len(g.data))
			}
		}
		about := func(typ uint8, ext ...ext6) []byte {
			body := icmp6Message(attPeer6, attHost6, wire.ICMP{Type: typ}, odd(attHost6, attPeer6, 8))
			return ip6{ext: ext, proto: wire.ProtoICMPv6, payload: body}.bytes()
		}
		bad := ext6{wire.ProtoDstopts, opts6(0x80, 0)}
		auth := ext6{wire.ProtoAH, make([]byte, 8)}
		part := ip6{proto: wire.ProtoICMPv6, payload: pattern6(17)}
		for what, p := range map[string][]byte{
			"unreachable":                      about(wire.ICMPv6Unreach),
			"too big":                          about(wire.ICMPv6PacketTooBig),
			"time exceeded":                    about(wire.ICMPv6Timxceed),
			"parameter":                        about(wire.ICMPv6ParamProb),
			"an unknown error":                 about(99),
			"an unknown message":               about(200),
			"reply":                            about(wire.ICMPv6EchoReply),
			"an error with a bad option":       about(wire.ICMPv6Unreach, bad),
			"an unknown error with one":        about(127, bad),
			"a redirect with one":              about(wire.ICMPv6Redirect, bad),
			"an error behind an unknown AH":    about(wire.ICMPv6Unreach, auth),
			"multicast":                        odd(attPeer6, allNodesLink, 8),
			"from nobody":                      odd(netip.IPv6Unspecified(), attHost6, 8),
			"from many":                        odd(a("ff02::1"), attHost6, 8),
			"a fragment of an ICMPv6 message":  frag6{8, 17, true}.bytes(part, 1),
			"half an ICMPv6 message behind it": ip6{ext: []ext6{bad}, proto: wire.ProtoICMPv6}.bytes(),
		} {
			v.inject(p)
			if l := v.link.fetch(); len(l) != 0 {
				t.Errorf("%s: answered by %x", what, l)
			}
		}
		v.inject(about(wire.ICMPv6Echo, bad)) // an informational message is no error
		if g := v.one6(); g.ic != (wire.ICMP{Type: wire.ICMPv6ParamProb, Code: wire.ICMPv6ParamOption, Rest: 42}) {
			t.Errorf("about an echo request with a bad option: %+v", g)
		}
		pass(time.Second)
		p := ip6{proto: 200, payload: pattern6(8)}
		flood := func(n int) {
			for i := range n {
				p.Src = netipAddr(attPeer6, 0, i) // all of one network
				v.inject(p.bytes())
			}
		}
		flood(50_000)
		if n := v.link.count(); n > 60 || n < 40 {
			t.Errorf("%d errors at once, want 50", n)
		}
		sent := 0
		for range 50 {
			pass(100 * time.Millisecond)
			flood(300)
			sent += v.link.count()
		}
		if sent > 1100 || sent < 900 {
			t.Errorf("%d errors in 5 s, at 200 a second", sent)
		}
		for i := range 20_000 { // of many networks
			p.Src = netipAddr(attPeer6, i, i)
			v.inject(p.bytes())
		}
		if n := v.link.count(); n > 250 {
			t.Errorf("%d errors to many networks at once", n)
		}
		if st := &v.k.Stats.ICMP6; st.Toofreq.Load() < 70_000 || st.Canterror.Load() == 0 {
			t.Errorf("%d errors are counted as too frequent, %d as not allowed", st.Toofreq.Load(), st.Canterror.Load())
		}
	})
}

// An echo request to a group is answered from a unicast address of the link, and no more often than
// errors are sent, as each member answers.
func TestEcho6Group(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked6(t, nil)
		defer v.done()
		p := ip6{proto: wire.ProtoICMPv6, IPv6: wire.IPv6{Src: netip.MustParseAddr("fe80::2"), Dst: allNodesLink}}
		p.payload = icmp6Message(p.Src, p.Dst, wire.ICMP{Type: wire.ICMPv6Echo}, pattern6(8))
		v.inject(p.bytes())
		if g := v.one6(); g.ip.Src != attLocal6 || g.ip.Dst != p.Src || g.ic.Type != wire.ICMPv6EchoReply {
			t.Errorf("%+v", g)
		}
		for range 10_000 {
			v.inject(p.bytes())
		}
		if n := v.link.count(); n > 60 {
			t.Errorf("%d answers at once", n)
		}
	})
}

// Which ICMPv6 errors end an attempt to connect, and with which error; none ends a connection that
// stands, and none counts without the right sequence number (RFC 5927; RFC 9293, 3.9.2.2).
func TestICMP6OnConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		types := map[wire.ICMP]syscall.Errno{
			{Type: wire.ICMPv6Unreach, Code: wire.ICMPv6UnreachNoRoute}:     0,
			{Type: wire.ICMPv6Unreach, Code: wire.ICMPv6UnreachAdmin}:       syscall.ECONNREFUSED,
			{Type: wire.ICMPv6Unreach, Code: wire.ICMPv6UnreachBeyondScope}: 0,
			{Type: wire.ICMPv6Unreach, Code: wire.ICMPv6UnreachAddr}:        0,
			{Type: wire.ICMPv6Unreach, Code: wire.ICMPv6UnreachPort}:        syscall.ECONNREFUSED,
			{Type: wire.ICMPv6Unreach, Code: wire.ICMPv6UnreachPolicy}:      syscall.ECONNREFUSED,
			{Type: wire.ICMPv6Unreach, Code: wire.ICMPv6UnreachReject}:      syscall.ECONNREFUSED,
			{Type: wire.ICMPv6Unreach, Code: 7}:                             0,
			{Type: wire.ICMPv6PacketTooBig, Rest: 1280}:                     0,
			{Type: wire.ICMPv6Timxceed}:                                     syscall.EHOSTUNREACH,
			{Type: wire.ICMPv6Timxceed, Code: wire.ICMPv6TimxceedReass}:     0,
			{Type: wire.ICMPv6ParamProb}:                                    0,
			{Type: wire.ICMPv6ParamProb, Code: wire.ICMPv6ParamNextHeader}:  syscall.ECONNREFUSED,
			{Type: wire.ICMPv6ParamProb, Code: wire.ICMPv6ParamOption}:      0,
			{Type: wire.ICMPv6ParamProb, Code: wire.ICMPv6ParamChain}:       0,
			{Type: 5}: 0,
		}
		for ic, want := range types {
			v := attacked6(t, nil)
			report := func(quoted []byte) {
				body := icmp6Message(attPeer6, attHost6, ic, quoted)
				v.inject(ip6{proto: wire.ProtoICMPv6, payload: body}.bytes())
			}
			dial := func() (fd int, syn []byte) {
				fd, errno := v.p.Socket(AF_INET6, SOCK_STREAM, 0)
				v.no(errno)
				v.p.Fcntl(fd, F_SETFL, O_NONBLOCK)
				if errno := v.p.Connect(fd, netip.AddrPortFrom(attPeer6, 9)); errno != syscall.EINPROGRESS {
					t.Fatal(errno)
				}
				l := v.link.fetch()
				if len(l) != 1 {
					t.Fatalf("%d packets were sent", len(l))
				}
				return fd, l[0]
			}
			fd, syn := dial()
			wrong := slices.Clone(syn)
			wrong[44]++
			report(wrong)
			report(syn[:47]) // the sequence number is cut
			if got := soError(v.p.Sock(fd)); got != 0 || v.p.Sock(fd).TCPInfo().State != tcp.SynSent {
				t.Errorf("%+v with a wrong number: %v", ic, got)
			}
			report(syn)
			if got := soError(v.p.Sock(fd)); got != want {
				t.Errorf("%+v on SYN_SENT: %v, want %v", ic, got, want)
			}

			fd, syn = dial()
			th := wire.TCPView(syn[40:])
			ack := &seg{from: netip.AddrPortFrom(attPeer6, 9), to: netip.AddrPortFrom(attHost6, th.Sport()),
				th: wire.TCP{Seq: 100, Ack: th.Seq() + 1, Flags: wire.SYN | wire.ACK, Win: 5000}}
			v.inject(ip6{proto: wire.ProtoTCP, payload: ack.tcp()}.bytes())
			v.link.fetch()
			if _, errno := v.p.Send(fd, []byte("x"), 0); errno != 0 {
				t.Fatal(errno)
			}
			data := v.link.fetch()
			if len(data) != 1 {
				t.Fatalf("%+v: %d packets", ic, len(data))
			}
			for range 50 {
				report(data[0])
			}
			if i, _ := v.p.TCPInfo(fd); i.State != tcp.Established {
				t.Errorf("%+v: state %v", ic, i.State)
			}
			v.done()
		}
	})
}

// A path's MTU is learned from Packet Too Big: RFC 8201. An MTU below 1280 is ignored, and so is a
// message that quotes a number that is not in flight.
func TestPacketTooBig(t *testing.T) {
	for mtu, want := range map[uint32]int{
		1400: 1340, 1280: 1220, 1279: 1440, 68: 1440, 0: 1440, 9000: 1440, 1 << 31: 1440,
	} {
		for _, wrong := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				v := attacked6(t, nil)
				defer v.done()
				fd, errno := v.p.Socket(AF_INET6, SOCK_STREAM, 0)
				v.no(errno)
				v.p.Fcntl(fd, F_SETFL, O_NONBLOCK)
				v.p.Connect(fd, netip.AddrPortFrom(attPeer6, 9))
				th := wire.TCPView(v.link.fetch()[0][40:])
				ack := &seg{from: netip.AddrPortFrom(attPeer6, 9), to: netip.AddrPortFrom(attHost6, th.Sport()),
					th: wire.TCP{Seq: 100, Ack: th.Seq() + 1, Flags: wire.SYN | wire.ACK, Win: 65000,
						Opt: wire.Options{Has: wire.TofMSS, MSS: 1440}}}
				v.inject(ip6{proto: wire.ProtoTCP, payload: ack.tcp()}.bytes())
				v.link.fetch()
				v.p.Send(fd, make([]byte, 1440), 0)
				quoted := v.link.fetch()[0]
				if len(quoted) != 1500 {
					t.Fatalf("a packet of %d bytes", len(quoted))
				}
				if wrong {
					quoted[44]++
				}
				ic := wire.ICMP{Type: wire.ICMPv6PacketTooBig, Rest: mtu}
				body := icmp6Message(attPeer6, attHost6, ic, quoted[:1232])
				v.inject(ip6{proto: wire.ProtoICMPv6, payload: body}.bytes())
				want := want
				if wrong {
					want = 1440
				}
				if i, _ := v.p.TCPInfo(fd); int(i.SndMSS) != want {
					t.Errorf("MTU %d, wrong number %v: segments of %d bytes, want %d", mtu, wrong, i.SndMSS, want)
				}
				if n := v.k.Stats.ICMP6.Badpmtu.Load(); (n != 0) != (mtu < 1280) {
					t.Errorf("MTU %d: %d are counted as too small", mtu, n)
				}
			})
		}
	}
}

// Errors that quote nonsense are passed over (A36).
func TestICMP6QuotesNonsense(t *testing.T) {
	v := attacked6(t, nil)
	defer v.done()
	r := seededInts(6)
	for n := range 100 {
		for range 40 {
			b := make([]byte, n)
			for i := range b {
				b[i] = byte(r(256))
			}
			if n > 40 && r(4) > 0 {
				b[0] = 0x60 | b[0]&15
				b[6] = []byte{wire.ProtoTCP, wire.ProtoDstopts, wire.ProtoFragment, wire.ProtoAH, wire.ProtoUDP}[r(5)]
			}
			ic := wire.ICMP{Type: uint8(r(6)), Code: uint8(r(8)), Rest: uint32(r(70000))}
			v.inject(ip6{proto: wire.ProtoICMPv6, payload: icmp6Message(attPeer6, attHost6, ic, b)}.bytes())
		}
	}
	if l := v.link.fetch(); len(l) != 0 {
		t.Error(fmt.Sprint(len(l), " packets were sent"))
	}
}
