package wire

import "testing"

// Where the upper layer's packet begins in what an ICMP message quotes.
func TestUpperLayer(t *testing.T) {
	head := func(next byte) []byte {
		p := make([]byte, 40)
		(&IPv6{Src: testSrc6, Dst: testDst6, Len: 40, Next: next}).Put(p)
		return p
	}
	with := func(p []byte, more ...byte) []byte { return append(p, more...) }
	hdr := func(next, n byte) []byte { return append([]byte{next, n}, make([]byte, 8*int(n)+6)...) }
	ah := append([]byte{ProtoUDP, 4}, make([]byte, 22)...)
	for _, c := range []struct {
		name  string
		p     []byte
		proto uint8
		off   int
		ok    bool
	}{
		{"nothing behind", with(head(ProtoTCP), 1), ProtoTCP, 40, true},
		{"no byte of it", head(ProtoTCP), ProtoTCP, 40, false},
		{"options", with(append(head(ProtoHopopts), hdr(ProtoDstopts, 0)...), append(hdr(ProtoUDP, 1), 9)...),
			ProtoUDP, 64, true},
		{"routing", with(append(head(ProtoRouting), hdr(ProtoICMPv6, 2)...), 128), ProtoICMPv6, 64, true},
		{"authentication", with(append(head(ProtoAH), ah...), 1), ProtoUDP, 64, true},
		{"the first fragment", with(head(ProtoFragment), ProtoTCP, 0, 0, 1, 0, 0, 0, 1, 77), ProtoTCP, 48, true},
		{"another fragment", with(head(ProtoFragment), ProtoICMPv6, 0, 0, 9, 0, 0, 0, 1, 77), ProtoICMPv6, 48, false},
		{"half a header", with(head(ProtoRouting), ProtoTCP, 1, 0, 0, 0, 0, 0, 0), ProtoRouting, 40, false},
		{"one byte of a header", with(head(ProtoRouting), ProtoTCP), ProtoRouting, 40, false},
	} {
		proto, off, ok := UpperLayer(c.p)
		if proto != c.proto || off != c.off || ok != c.ok {
			t.Errorf("%s: %d at %d, %v; want %d at %d, %v", c.name, proto, off, ok, c.proto, c.off, c.ok)
		}
	}
	p := head(ProtoDstopts)
	for range MaxExtHeaders {
		p = append(p, hdr(ProtoDstopts, 0)...)
	}
	if _, _, ok := UpperLayer(append(p, hdr(ProtoTCP, 0)...)); ok {
		t.Error("a chain without end has an upper layer")
	}
}

// What ParseExt says of a fragment.
func TestParseExtFragment(t *testing.T) {
	p := make([]byte, 40, 80)
	(&IPv6{Src: testSrc6, Dst: testDst6, Len: 40, Next: ProtoDstopts}).Put(p)
	p = append(p, ProtoFragment, 0, 1, 4, 0, 0, 0, 0)
	p = append(p, ProtoUDP, 0xff, 0x12, 0x3f, 0xde, 0xad, 0xbe, 0xef, 1, 2, 3, 4, 5, 6, 7, 8)
	x, e := ParseExt(p, false)
	want := Ext{Hlen: 56, Proto: ProtoUDP, ProtoAt: 48, FragAt: 40, Off: 0x1238, More: true, ID: 0xdeadbeef}
	if x != want || e != (ExtProblem{}) {
		t.Errorf("%+v, %+v; want %+v", x, e, want)
	}
	if _, e := ParseExt(p, true); e.Fault != ExtDiscard {
		t.Errorf("in a datagram that has been put together: %+v", e)
	}
	for n := range 56 - 40 {
		if _, e := ParseExt(p[:40+n:40+n], false); e.Fault != ExtShort {
			t.Errorf("%d bytes of headers: %+v", n, e)
		}
	}
	long := append(p[:40:40], ProtoUDP, 1, 0, 0, 0, 0, 0, 0, 1, 6, 0, 0, 0, 0, 0, 0)
	for n := range len(long) {
		if _, e := ParseExt(long[:max(n, 40)], false); e.Fault != ExtShort {
			t.Errorf("%d bytes of a longer header: %+v", n-40, e)
		}
	}
	p[50], p[51] = 0, 0x06 // the reserved bits are ignored
	want = Ext{Hlen: 56, Proto: ProtoUDP, ProtoAt: 48}
	if x, e := ParseExt(p, true); x != want || e != (ExtProblem{}) {
		t.Errorf("the only fragment: %+v, %+v; want %+v", x, e, want)
	}
}
