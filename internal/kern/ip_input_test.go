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

// ping is an echo request with this data.
func ping(data []byte) []byte {
	return icmpPacket(attPeer, attHost, wire.ICMP{Type: wire.ICMPEcho, Rest: 0x12340001}, data)
}

// resum fills in the IP header checksum of a packet that has been changed.
func resum(p []byte) []byte {
	if len(p) < wire.IPv4MinLen {
		return p
	}
	hl := min(max(int(p[0]&15)*4, wire.IPv4MinLen), len(p))
	p[10], p[11] = 0, 0
	binary.BigEndian.PutUint16(p[10:], wire.InCksum(p[:hl]))
	return p
}

// A22: every header length, total length and captured length: what does not fit is dropped, padding
// is cut, nothing is read beyond the end.
func TestIPEveryLength(t *testing.T) {
	v := attacked(t, nil)
	defer v.done()
	base := ping([]byte("abcd"))
	answers := 0
	for ihl := range 16 {
		for total := 0; total <= 90; total++ {
			for _, captured := range []int{1, 19, 20, 21, 23, 24, 27, 28, 31, 32, 40, 60, 61, 80} {
				p := make([]byte, captured)
				copy(p, base)
				if len(p) >= 4 {
					p[0] = 4<<4 | byte(ihl)
					binary.BigEndian.PutUint16(p[2:], uint16(total))
				}
				v.inject(resum(p))
				l := v.link.fetch()
				fits := ihl >= 5 && total >= ihl*4+8 && total <= captured
				if len(l) > 0 && !fits || ihl == 5 && total == 32 && captured >= 32 && len(l) != 1 {
					t.Fatalf("header length %d, total %d, captured %d: %d answers", ihl, total, captured, len(l))
				}
				answers += len(l)
			}
		}
	}
	if answers == 0 {
		t.Errorf("nothing was answered at all")
	}
}

// A22, for TCP: every data offset against every length.
func TestTCPEveryLength(t *testing.T) {
	v := attacked(t, nil)
	defer v.done()
	v.listen(80, 1000)
	for doff := range 16 {
		for n := range 64 {
			s := &seg{from: netip.AddrPortFrom(attPeer, uint16(5000+n)), to: netip.AddrPortFrom(attHost, 80),
				th: wire.TCP{Seq: 1, Flags: wire.SYN, Win: 100}}
			s.data = make([]byte, 60)
			b := s.bytes()[attFam.hdr:][:n]
			if n > 12 {
				b[12] = byte(doff) << 4
			}
			if n >= 20 {
				tcpSummed(attPeer, attHost, b)
			}
			v.inject(ipPacket(wire.IPv4{}, attPeer, attHost, wire.ProtoTCP, b))
			l := v.segments()
			if fits := n >= 20 && doff >= 5 && doff*4 <= n; len(l) > 0 != fits {
				t.Fatalf("data offset %d of %d bytes: %d answers", doff, n, len(l))
			}
		}
	}
}

// RFC 1122, 3.2.1: version, checksum, addresses. The stack drops wrong packets in silence.
//
// RFC 9293 MUST-57
// RFC 9293 MUST-63
func TestMartians(t *testing.T) {
	v := attacked(t, nil)
	defer v.done()
	v.listen(80, 10)
	syn := func(src, dst string) []byte {
		s := &seg{from: netip.MustParseAddrPort(src), to: netip.MustParseAddrPort(dst),
			th: wire.TCP{Seq: 1, Flags: wire.SYN, Win: 100}}
		return s.bytes()
	}
	good := func() []byte { return syn("10.0.0.2:5000", "10.0.0.1:80") }
	flip := func(i int, x byte) []byte { p := good(); p[i] ^= x; return p }
	for what, p := range map[string][]byte{
		"version 6":                    resum(flip(0, 0x20)),
		"version 0":                    resum(flip(0, 0x40)),
		"header checksum":              flip(10, 1),
		"TCP checksum":                 flip(36, 1),
		"a bit of the data offset":     flip(32, 0x80),
		"a bit of an address":          flip(15, 0x80),
		"LAND":                         syn("10.0.0.1:80", "10.0.0.1:80"),
		"our own address":              syn("10.0.0.1:5000", "10.0.0.1:80"),
		"source 127.0.0.1":             syn("127.0.0.1:5000", "10.0.0.1:80"),
		"destination 127.0.0.1":        syn("10.0.0.2:5000", "127.0.0.1:80"),
		"127/8 both":                   syn("127.0.0.2:5000", "127.0.0.1:80"),
		"source broadcast":             syn("255.255.255.255:5000", "10.0.0.1:80"),
		"source directed broadcast":    syn("10.0.0.255:5000", "10.0.0.1:80"),
		"source network":               syn("10.0.0.0:5000", "10.0.0.1:80"),
		"source multicast":             syn("224.0.0.1:5000", "10.0.0.1:80"),
		"source 0.0.0.0":               syn("0.0.0.0:5000", "10.0.0.1:80"),
		"source class E":               syn("240.0.0.1:5000", "10.0.0.1:80"),
		"destination broadcast":        syn("10.0.0.2:5000", "255.255.255.255:80"),
		"destination directed":         syn("10.0.0.2:5000", "10.0.0.255:80"),
		"destination network":          syn("10.0.0.2:5000", "10.0.0.0:80"),
		"destination multicast":        syn("10.0.0.2:5000", "224.0.0.1:80"),
		"destination somebody else":    syn("10.0.0.2:5000", "10.0.0.3:80"),
		"destination 0.0.0.0":          syn("10.0.0.2:5000", "0.0.0.0:80"),
		"to a closed port, broadcast":  syn("10.0.0.2:5000", "10.0.0.255:81"),
		"from nobody to a closed port": syn("0.0.0.0:5000", "10.0.0.1:81"),
	} {
		v.inject(p)
		if l := v.link.fetch(); len(l) != 0 {
			t.Errorf("%s: answered with %x", what, l)
		}
	}
	if v.halfOpen() != 0 {
		t.Errorf("%d half-open connections", v.halfOpen())
	}
	v.inject(good())
	v.one()
}

// RFC 9293, MUST-2 and MUST-3: any bit that flips is noticed.
//
// RFC 9293 MUST-2
// RFC 9293 MUST-3
func TestTCPChecksumEveryBit(t *testing.T) {
	v := attacked(t, nil)
	defer v.done()
	v.listen(80, 10)
	for _, n := range []int{0, 1, 2, 7} {
		s := &seg{from: netip.AddrPortFrom(attPeer, 5000), to: netip.AddrPortFrom(attHost, 80),
			th: wire.TCP{Seq: 1, Flags: wire.SYN, Win: 100}}
		s.data = make([]byte, n)
		p := s.bytes()
		for bit := attFam.hdr * 8; bit < len(p)*8; bit++ {
			p[bit/8] ^= 1 << (bit % 8)
			v.inject(p)
			p[bit/8] ^= 1 << (bit % 8)
		}
		v.none()
		if n := v.k.Stats.TCP.Rcvbadsum.Load(); n == 0 {
			t.Errorf("not counted")
		}
		v.inject(p)
		v.one() // and its own are right: parse verifies them
	}
}

// RFC 791; RFC 7126, 4.3 and 4.4: options are passed over, whatever they are; source routes and
// malformed ones are dropped.
//
// RFC 9293 MUST-50
// RFC 9293 MUST-51
// RFC 9293 MUST-52
// RFC 9293 MUST-53
func TestIPOptions(t *testing.T) {
	v := attacked(t, nil)
	defer v.done()
	with := func(opt ...byte) []byte {
		for len(opt)%4 != 0 {
			opt = append(opt, 0)
		}
		p := ping([]byte("abcd"))
		q := append(append(append([]byte{}, p[:20]...), opt...), p[20:]...)
		q[0] = 4<<4 | byte(5+len(opt)/4)
		binary.BigEndian.PutUint16(q[2:], uint16(len(q)))
		return resum(q)
	}
	for _, c := range []struct {
		what string
		opt  []byte
		want bool
	}{
		{"NOP", []byte{1, 1, 1, 1}, true},
		{"EOL, then anything", []byte{0, 131, 77, 0}, true},
		{"record route", []byte{7, 7, 4, 0, 0, 0, 0}, true},
		{"router alert", []byte{148, 4, 0, 0}, true},
		{"unknown", []byte{99, 6, 1, 2, 3, 4}, true},
		{"forty bytes", append([]byte{99, 40}, make([]byte, 38)...), true},
		{"loose source route", []byte{131, 7, 4, 10, 0, 0, 9}, false},
		{"strict source route", []byte{137, 7, 4, 10, 0, 0, 9}, false},
		{"source route behind others", []byte{1, 99, 3, 0, 131, 3, 4}, false},
		{"length 0", []byte{7, 0, 0, 0}, false},
		{"length 1", []byte{7, 1, 0, 0}, false},
		{"length beyond the end", []byte{7, 9, 0, 0}, false},
		{"no length", []byte{1, 1, 1, 7}, false},
	} {
		v.inject(with(c.opt...))
		if l := v.link.fetch(); len(l) == 1 != c.want {
			t.Errorf("%s: %d answers", c.what, len(l))
		}
	}
	// On a segment too.
	v.listen(80, 10)
	p := v.peer(5000, 80)
	b := p.syn(wire.Options{}).bytes()
	q := append(append(append([]byte{}, b[:20]...), 99, 4, 1, 2), b[20:]...)
	q[0] = 4<<4 | 6
	binary.BigEndian.PutUint16(q[2:], uint16(len(q)))
	v.inject(resum(q))
	v.one()
}

// RFC 1122, 3.2.2.6: the stack answers an echo with its own data, of any length, in fragments if it
// must, unless the echo was sent to more than one host.
func TestEcho(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		for _, n := range []int{0, 1, 7, 56, 1471, 1472, 1473, 1480, 2960, 65506, 65507} {
			data := make([]byte, n)
			for i := range data {
				data[i] = streamByte(1, i)
			}
			for _, f := range fragments(ping(data), 1500) {
				v.inject(f)
			}
			settle()
			l := v.link.fetch()
			got, frags := rejoin(v, l)
			if len(got) != n+8 || got[0] != wire.ICMPEchoReply || !bytes.Equal(got[8:], data) ||
				wire.InCksum(got) != 0 || binary.BigEndian.Uint32(got[4:]) != 0x12340001 {
				t.Fatalf("%d bytes: %d came back in %d packets", n, len(got), len(l))
			}
			if want := max((n+8+1479)/1480, 1); frags != want {
				t.Errorf("%d bytes came back in %d packets, want %d", n, frags, want)
			}
		}
		for _, dst := range []string{"10.0.0.255", "255.255.255.255", "224.0.0.1"} {
			v.inject(icmpPacket(attPeer, netip.MustParseAddr(dst), wire.ICMP{Type: wire.ICMPEcho}, nil))
			v.none()
		}
		bad := ping([]byte("x"))
		bad[len(bad)-1] ^= 1
		v.inject(bad)
		short := ipPacket(wire.IPv4{}, attPeer, attHost, wire.ProtoICMP, []byte{8, 0, 0xf7, 0xff})
		v.inject(short)
		v.none()
	})
}

// fragments cuts a packet for an MTU, in order.
func fragments(p []byte, mtu int) (list [][]byte) {
	ip, err := wire.ParseIPv4(p, len(p))
	if err != nil {
		panic(err)
	}
	body := p[ip.Hlen:]
	if len(p) <= mtu {
		return [][]byte{p}
	}
	ip.ID = 77
	room := (mtu - wire.IPv4MinLen) &^ 7
	for off := 0; off < len(body); off += room {
		end := min(off+room, len(body))
		f := ip
		f.Off, f.Flags = off, 0
		if end < len(body) {
			f.Flags = wire.IPMF
		}
		list = append(list, ipPacket(f, ip.Src, ip.Dst, ip.Proto, body[off:end]))
	}
	return list
}

// rejoin returns the payload of a datagram that has come in fragments, in order, and their number.
func rejoin(v *victim, l [][]byte) (body []byte, n int) {
	v.Helper()
	for i, p := range l {
		g := v.parse(p)
		if g.ip.Off != len(body) || g.ip.Flags&wire.IPMF != 0 != (i < len(l)-1) {
			v.Fatalf("fragment %d at %d, want %d: %+v", i, g.ip.Off, len(body), g.ip)
		}
		body = append(body, p[g.ip.Hlen:]...)
	}
	return body, len(l)
}

// RFC 1122, 3.2.2: the stack sends an error about a packet for an unknown protocol, with its header
// and 8 bytes, but never about an error, a fragment, or a packet to or from more than one host; and
// it limits the rate.
func TestICMPErrorRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		odd := func(ip wire.IPv4, src, dst string) []byte {
			return ipPacket(ip, netip.MustParseAddr(src), netip.MustParseAddr(dst), 200, []byte("0123456789abcdef"))
		}
		p := odd(wire.IPv4{}, "10.0.0.2", "10.0.0.1")
		v.inject(p)
		g := v.one()
		if g.ip.Dst != attPeer || g.ip.Proto != wire.ProtoICMP || g.data[0] != wire.ICMPUnreach ||
			g.data[1] != wire.ICMPUnreachProtocol ||
			!bytes.Equal(g.data[8:], p[:28]) || wire.InCksum(g.data) != 0 {
			t.Errorf("the error is %x", g.data)
		}
		errAbout := func(typ uint8) []byte { return icmpPacket(attPeer, attHost, wire.ICMP{Type: typ}, p[:28]) }
		for what, p := range map[string][]byte{
			"unreachable":     errAbout(wire.ICMPUnreach),
			"time exceeded":   errAbout(wire.ICMPTimxceed),
			"parameter":       errAbout(wire.ICMPParamProb),
			"source quench":   errAbout(wire.ICMPSourceQuench),
			"redirect":        errAbout(5),
			"unknown type":    errAbout(99),
			"reply":           errAbout(wire.ICMPEchoReply),
			"a last fragment": odd(wire.IPv4{Off: 1480}, "10.0.0.2", "10.0.0.1"),
			"broadcast":       odd(wire.IPv4{}, "10.0.0.2", "10.0.0.255"),
			"all":             odd(wire.IPv4{}, "10.0.0.2", "255.255.255.255"),
			"multicast":       odd(wire.IPv4{}, "10.0.0.2", "224.0.0.1"),
			"from nobody":     odd(wire.IPv4{}, "0.0.0.0", "10.0.0.1"),
			"from many":       odd(wire.IPv4{}, "224.0.0.1", "10.0.0.1"),
		} {
			v.inject(p)
			if l := v.link.fetch(); len(l) != 0 {
				t.Errorf("%s: answered", what)
			}
		}
		pass(time.Second)
		for range 100_000 {
			v.inject(p)
		}
		if n := v.link.count(); n > 60 {
			t.Errorf("%d errors at once", n)
		}
		sent := 0
		for range 50 {
			pass(100 * time.Millisecond)
			for range 500 {
				v.inject(p)
			}
			sent += v.link.count()
		}
		if sent > 1100 || sent < 900 {
			t.Errorf("%d errors in 5 s, at 200 a second", sent)
		}
	})
}

// RFC 9293, 3.5.2, and net.inet.icmp.icmplim: a flood of segments to a closed port is not answered
// with a flood.
func TestResetFloodLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		s := &seg{from: netip.AddrPortFrom(attPeer, 5000), to: netip.AddrPortFrom(attHost, 81),
			th: wire.TCP{Seq: 1, Ack: 5, Flags: wire.ACK, Win: 100}}
		p := s.bytes()
		for range 50_000 {
			v.inject(p)
		}
		if n := v.link.count(); n != 500 {
			t.Errorf("%d resets at once, want 500", n)
		}
		sent := 0
		for range 50 { // one source has 1000 a second
			pass(100 * time.Millisecond)
			for range 500 {
				v.inject(p)
			}
			sent += v.link.count()
		}
		if sent != 5000 {
			t.Errorf("%d resets in 5 s, want 5000", sent)
		}
		pass(10 * time.Second)
		v.inject(p)
		if g := v.one(); g.th.Flags != wire.RST || g.th.Seq != 5 {
			t.Errorf("answer %+v", g.th)
		}
		// A reset is never answered.
		s.th.Flags = wire.RST | wire.ACK
		v.inject(s.bytes())
		v.none()
		// All sources together have four times as many, of which up to a half are missing at
		// random.
		pass(10 * time.Second)
		for i := range 50_000 {
			s := &seg{from: netip.AddrPortFrom(netip.AddrFrom4([4]byte{12, 0, byte(i >> 8), byte(i)}), 5000),
				to: s.to, th: wire.TCP{Seq: 1, Ack: 5, Flags: wire.ACK, Win: 100}}
			v.inject(s.bytes())
		}
		if n := v.link.count(); n < 1000 || n > 2000 {
			t.Errorf("%d resets to many sources at once, want 1000 to 2000", n)
		}
	})
}

// RFC 5927, RFC 1191: the stack believes a router about the path if the error quotes data in
// flight, but never an MTU below 552 bytes.
//
// RFC 9293 MUST-54
func TestFragmentationNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			mtu  uint32
			dseq int
			want int // MSS afterwards
		}{
			{1400, 0, 1360},
			{1000, 0, 960},
			{552, 0, 512},
			{68, 0, 512},
			{1, 0, 512},
			{0, 0, 1452}, // an old router: the next plateau
			{1500, 0, 1460},
			{9000, 0, 1460},
			{65535, 0, 1460},
			{1000, -1, 1460}, // not in flight
			{1000, 100_000, 1460},
			{1000, -1 << 31, 1460},
		} {
			v := attacked(t, nil)
			p, fd := v.established(v.listen(80, 5), 5000, 80)
			data := make([]byte, 4000)
			for i := range data {
				data[i] = streamByte(2, i)
			}
			v.p.Send(fd, data, 0)
			sent := v.link.fetch()
			quoted := append([]byte{}, sent[0][:28]...)
			binary.BigEndian.PutUint32(quoted[24:], binary.BigEndian.Uint32(quoted[24:])+uint32(c.dseq))
			v.inject(icmpPacket(netip.MustParseAddr("10.9.9.9"), attHost,
				wire.ICMP{Type: wire.ICMPUnreach, Code: wire.ICMPUnreachNeedfrag, Rest: c.mtu}, quoted))
			i, _ := v.p.TCPInfo(fd)
			if i.SndMSS != c.want {
				t.Errorf("MTU %d, sequence number off by %d: MSS %d, want %d", c.mtu, c.dseq, i.SndMSS, c.want)
			}
			l := v.segments()
			if c.want == 1460 {
				if len(l) != 0 {
					t.Errorf("MTU %d: something is sent", c.mtu)
				}
			} else if len(l) == 0 || l[0].th.Seq != p.ack || len(l[0].data) != c.want ||
				!bytes.Equal(l[0].data, data[:c.want]) {
				t.Errorf("MTU %d: what was too long is not sent again in shorter segments: %v", c.mtu, len(l))
			}
			v.done()
		}
	})
}

// RFC 5927, 4 and 6: no ICMP error ends an established connection. A hard error that quotes our SYN
// ends an attempt to connect.
//
// RFC 9293 MUST-54
// RFC 9293 MUST-55
// RFC 9293 MUST-56
func TestICMPOnConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		types := []wire.ICMP{
			{Type: wire.ICMPSourceQuench}, {Type: wire.ICMPTimxceed}, {Type: wire.ICMPTimxceed, Code: 1},
			{Type: wire.ICMPParamProb}, {Type: 5},
		}
		for code := range uint8(17) {
			if code != wire.ICMPUnreachNeedfrag {
				types = append(types, wire.ICMP{Type: wire.ICMPUnreach, Code: code})
			}
		}
		for _, ic := range types {
			v := attacked(t, nil)
			_, fd := v.established(v.listen(80, 5), 5000, 80)
			v.p.Send(fd, []byte("x"), 0)
			quoted := v.link.fetch()[0][:28]
			for range 100 {
				v.inject(icmpPacket(attPeer, attHost, ic, quoted))
			}
			v.none()
			if i, _ := v.p.TCPInfo(fd); i.State != tcp.Established {
				t.Errorf("%+v: state %v", ic, i.State)
			}
			so, errno := v.connectNB(netip.AddrPortFrom(attPeer, 9))
			v.no(errno)
			quoted = v.link.fetch()[0][:28]
			wrong := append([]byte{}, quoted...)
			wrong[24]++
			v.inject(icmpPacket(attPeer, attHost, ic, wrong))
			if errno := soError(so); errno != 0 || so.TCPInfo().State != tcp.SynSent {
				t.Errorf("%+v with a wrong number: %v", ic, errno)
			}
			v.inject(icmpPacket(attPeer, attHost, ic, quoted))
			want := syscall.Errno(0)
			switch {
			case ic.Type == wire.ICMPTimxceed && ic.Code == 0:
				want = syscall.EHOSTUNREACH
			case ic.Type == wire.ICMPUnreach:
				switch ic.Code {
				case 2, 3, 9, 10, 13:
					want = syscall.ECONNREFUSED
				}
			}
			if errno := soError(so); errno != want {
				t.Errorf("%+v on SYN_SENT: %v, want %v", ic, errno, want)
			}
			so.Soabort()
			v.done()
		}
	})
}

// A36: errors that quote nonsense are passed over.
func TestICMPQuotesNonsense(t *testing.T) {
	v := attacked(t, nil)
	defer v.done()
	r := seededInts(4)
	for n := range 64 {
		for range 40 {
			b := make([]byte, n)
			for i := range b {
				b[i] = byte(r(256))
			}
			if n > 0 && r(2) == 0 {
				b[0] = 4<<4 | byte(r(16))
			}
			if n > 9 {
				b[9] = wire.ProtoTCP
			}
			v.inject(icmpPacket(attPeer, attHost,
				wire.ICMP{Type: uint8(r(20)) | 1, Code: uint8(r(16)), Rest: uint32(r(70000))}, b))
		}
	}
	v.none()
}

// soError reads SO_ERROR.
func soError(so *Socket) syscall.Errno {
	n, errno := so.Sogetopt(SOL_SOCKET, int(SO_ERROR))
	if errno != 0 {
		return errno
	}
	return syscall.Errno(n)
}
