package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"testing"
)

var (
	testSrc6 = netip.MustParseAddr("2001:db8::1")
	testDst6 = netip.MustParseAddr("fe80::ffff:fffe")
)

func TestIPv6RoundTrip(t *testing.T) {
	for _, ip := range []IPv6{
		{Src: testSrc6, Dst: testDst6, Len: 40, Hlim: 64, Next: ProtoTCP},
		{Src: testDst6, Dst: testSrc6, Len: 40 + 65535, Class: 0xff, Label: 0xfffff, Hlim: 255, Next: 255},
		{Src: netip.IPv6Unspecified(), Dst: netip.MustParseAddr("ff02::1"), Len: 1500, Class: 2, Label: 0x12345,
			Hlim: 1, Next: ProtoHopopts},
	} {
		p := bytes.Repeat([]byte{0xee}, 44) // what was there must not show
		ip.Put(p)
		got, err := ParseIPv6(p, ip.Len)
		if err != nil || got != ip {
			t.Errorf("%+v became %+v, %v", ip, got, err)
		}
		if !bytes.Equal(p[40:], []byte{0xee, 0xee, 0xee, 0xee}) {
			t.Error("Put wrote behind the header")
		}
	}
}

// Put writes the bytes that RFC 8200, 3, shows. A zone is not on the wire.
func TestIPv6Bytes(t *testing.T) {
	ip := IPv6{Src: testSrc6, Dst: testDst6.WithZone("if0"), Len: 40 + 0x0102, Class: 0xab, Label: 0xfffcdef0, Hlim: 7,
		Next: ProtoUDP}
	p := make([]byte, 40)
	ip.Put(p)
	want := "6abcdef0" + "01021107" + "20010db8000000000000000000000001" + "fe8000000000000000000000fffffffe"
	if got := hex.EncodeToString(p); got != want {
		t.Errorf("header %s", got)
	}
}

// Every payload length and captured length (A22): a verdict for each, and nothing read beyond what
// is there.
func TestParseIPv6Lengths(t *testing.T) {
	p := make([]byte, 60)
	(&IPv6{Src: testSrc6, Dst: testDst6, Len: 60, Hlim: 64, Next: ProtoTCP}).Put(p)
	for version := range 16 {
		p[0] = byte(version << 4)
		for n := range len(p) + 1 {
			for _, length := range []int{0, 1, n - 41, n - 40, n - 39, 65535} {
				if length < 0 {
					continue
				}
				binary.BigEndian.PutUint16(p[4:], uint16(length))
				for _, more := range []int{0, 1, 70000} { // behind the first Mbuf
					var want error
					switch {
					case n < 40:
						want = ErrShort
					case version != 6:
						want = ErrVersion
					case 40+length > n+more:
						want = ErrLength
					}
					ip, err := ParseIPv6(p[:n:n], n+more)
					if err != want || err == nil && ip.Len != 40+length {
						t.Fatalf("version %d, %d and %d bytes, payload length %d: %v, length %d; want %v",
							version, n, more, length, err, ip.Len, want)
					}
				}
				if _, ok := ViewIPv6(p[:n:n]); ok != (version == 6 && n >= 40) {
					t.Fatalf("version %d, %d bytes: viewed %v", version, n, ok)
				}
			}
		}
	}
}

// An IPView reads of both families what each family's own view reads.
func TestIPView(t *testing.T) {
	a := make([]byte, 48)
	(&IPv4{Src: testSrc, Dst: testDst, Len: 48, TOS: 3, TTL: 9, Proto: ProtoUDP, Flags: IPDF}).Put(a)
	b := make([]byte, 48)
	(&IPv6{Src: testSrc6, Dst: testDst6, Len: 48, Class: 0x5a, Label: 0xfffff, Hlim: 8, Next: ProtoTCP}).Put(b)
	for _, c := range []struct {
		p        []byte
		hlen     int
		tos, ttl uint8
		proto    uint8
		src, dst netip.Addr
	}{
		{a, 20, 3, 9, ProtoUDP, testSrc, testDst},
		{b, 40, 0x5a, 8, ProtoTCP, testSrc6, testDst6},
	} {
		v, ok := ViewIP(c.p)
		if !ok || v.Is6() != c.src.Is6() || v.Hlen() != c.hlen || v.TOS() != c.tos || v.TTL() != c.ttl ||
			v.Len() != 48 || v.Proto() != c.proto || v.Src() != c.src || v.Dst() != c.dst || !v.DF() ||
			len(v.Payload()) != 48-c.hlen ||
			string(v.Addrs()) != string(append(c.src.AsSlice(), c.dst.AsSlice()...)) {
			t.Errorf("%x: %v", c.p, v)
		}
		v.SetLen(777)
		if v.Len() != 777 {
			t.Errorf("length %d", v.Len())
		}
		for n := range c.hlen {
			if _, ok := ViewIP(c.p[:n]); ok {
				t.Errorf("%d bytes are viewed", n)
			}
		}
	}
	if IPv4View(a).SetLen(48); IPv6View(b).Label() != 0xfffff || IPv6View(b).Next() != ProtoTCP {
		t.Errorf("%x", b)
	}
	(&IPv4{Src: testSrc, Dst: testDst, Len: 48}).Put(a)
	if IPView(a).DF() {
		t.Error("a packet without the flag may not be fragmented")
	}
}

// A header that has been parsed is the same after it has been written and parsed again. ParseExt
// and UpperLayer read nothing that is not there, and stay within their limits, and agree on what is
// behind the headers.
func FuzzParseIPv6(f *testing.F) {
	p := make([]byte, 72)
	(&IPv6{Src: testSrc6, Dst: testDst6, Len: 72, Hlim: 64, Next: ProtoHopopts}).Put(p)
	for _, next := range []byte{ProtoTCP, ProtoDstopts, ProtoRouting, ProtoFragment, ProtoAH, ProtoNone} {
		p[40], p[43] = next, next
		f.Add(bytes.Clone(p), 0)
	}
	f.Add([]byte{0x60}, -1)
	f.Fuzz(func(t *testing.T, p []byte, more int) {
		p = p[:len(p):len(p)]
		plen := len(p) + min(max(more, 0), 1<<20)
		ip, err := ParseIPv6(p, plen)
		if err != nil {
			return
		}
		q := make([]byte, 40)
		ip.Put(q)
		if again, err := ParseIPv6(q, ip.Len); err != nil || again != ip || !bytes.Equal(p[:40], q) {
			t.Fatalf("%+v became %+v, %v", ip, again, err)
		}
		checkExt(t, p)
	})
}

func checkExt(t *testing.T, p []byte) {
	t.Helper()
	proto, off, ok := UpperLayer(p)
	if ok && (off < 40 || off >= len(p)) {
		t.Fatalf("%x: the upper layer is at %d", p, off)
	}
	for _, whole := range []bool{false, true} {
		x, e := ParseExt(p, whole)
		if x.Hlen < 40 || x.Hlen > 40+MaxExtLen || x.Hlen > len(p) || x.ProtoAt < 6 || x.ProtoAt >= x.Hlen {
			t.Fatalf("%x: %+v", p, x)
		}
		switch {
		case e.Fault == ExtParam || e.Fault == ExtParamUnicast:
			if e.At < 6 || e.At >= len(p) {
				t.Fatalf("%x: %+v", p, e)
			}
		case e.Fault == ExtOK && x.FragAt == 0:
			if p[x.ProtoAt] != x.Proto || ok && x.Proto != ProtoAH && (proto != x.Proto || off != x.Hlen) {
				t.Fatalf("%x: %+v, but the upper layer is %d at %d (%v)", p, x, proto, off, ok)
			}
		case e.Fault == ExtOK:
			if whole || x.FragAt < 6 || p[x.FragAt] != ProtoFragment || x.Off%8 != 0 || x.Off == 0 && !x.More {
				t.Fatalf("%x: %+v", p, x)
			}
		}
	}
}
