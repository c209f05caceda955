package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/netip"
	"testing"
)

var (
	testSrc = netip.MustParseAddr("192.0.2.1")
	testDst = netip.MustParseAddr("198.51.100.254")
)

func TestIPv4RoundTrip(t *testing.T) {
	for _, ip := range []IPv4{
		{Src: testSrc, Dst: testDst, Hlen: 20, Len: 20, TTL: 64, Proto: ProtoTCP},
		{Src: testDst, Dst: testSrc, Hlen: 20, Len: MaxPacket, TOS: 0xff, ID: 0xffff, Flags: IPDF | IPMF, Off: 65528,
			TTL: 255, Proto: 255},
		{Src: netip.IPv4Unspecified(), Dst: netip.MustParseAddr("255.255.255.255"), Hlen: 20, Len: 1500, TOS: 2,
			ID: 0x1234, Flags: IPMF, Off: 1480, TTL: 1, Proto: ProtoUDP},
		{Src: testSrc, Dst: testDst, Hlen: 20, Len: 576, ID: 1, Flags: IPDF, Proto: ProtoICMP},
	} {
		p := bytes.Repeat([]byte{0xee}, 24) // what was there must not show
		ip.Put(p)
		got, err := ParseIPv4(p, ip.Len)
		if err != nil || got != ip {
			t.Errorf("%+v became %+v, %v", ip, got, err)
		}
		if !bytes.Equal(p[20:], []byte{0xee, 0xee, 0xee, 0xee}) {
			t.Error("Put wrote behind the header")
		}
	}
}

// Put writes the bytes that RFC 791, 3.1, shows.
func TestIPv4Bytes(t *testing.T) {
	ip := IPv4{Src: netip.MustParseAddr("192.168.0.1"), Dst: netip.MustParseAddr("192.168.0.199"), Len: 0x73,
		Flags: IPDF, TTL: 64, Proto: ProtoUDP}
	p := make([]byte, 20)
	ip.Put(p)
	if got := hex.EncodeToString(p); got != "45000073000040004011b861c0a80001c0a800c7" {
		t.Errorf("header %s", got)
	}
	ip = IPv4{Src: testSrc, Dst: testDst, Len: 0x0102, TOS: 3, ID: 0x0405, Flags: IPMF, Off: 0x60 * 8, TTL: 8, Proto: 9}
	ip.Put(p)
	got := hex.EncodeToString(p[:10]) + hex.EncodeToString(p[12:])
	if got != "45030102040520600809"+"c0000201c63364fe" {
		t.Errorf("header %s", got)
	}
}

// Every header length, total length and captured length (A22): a verdict for each, and nothing read
// beyond what is there.
func TestParseIPv4Lengths(t *testing.T) {
	full := make([]byte, 100)
	for i := range full {
		full[i] = byte(i * 7) // stands for options, too: whatever is in them, they are passed over (A23)
	}
	for ihl := range 16 {
		for total := 0; total <= 82; total++ {
			tl := total
			if total == 82 {
				tl = MaxPacket // Ripple20: a total length beyond the packet
			}
			hdr := bytes.Clone(full)
			hdr[0] = 4<<4 | byte(ihl)
			binary.BigEndian.PutUint16(hdr[2:], uint16(tl))
			hdr[10], hdr[11] = 0, 0
			binary.BigEndian.PutUint16(hdr[10:], InCksum(hdr[:max(ihl*4, 20)]))
			for captured := 0; captured <= 81; captured++ {
				for _, more := range []int{0, 1, 1000, 70000} { // behind the first Mbuf
					plen := captured + more
					var want error
					switch {
					case captured < 20:
						want = ErrShort
					case ihl < 5, tl < ihl*4, tl > plen:
						want = ErrLength
					case captured < ihl*4:
						want = ErrShort
					}
					ip, err := ParseIPv4(hdr[:captured:captured], plen)
					if !errors.Is(err, want) {
						t.Fatalf("ihl %d, total %d, %d of %d bytes: %v, want %v", ihl, tl, captured, plen, err, want)
					}
					if err == nil && (ip.Hlen != ihl*4 || ip.Len != tl || ip.TTL != hdr[8]) {
						t.Fatalf("ihl %d, total %d: %+v", ihl, tl, ip)
					}
				}
			}
		}
	}
}

// No single bit of a header can change unseen, options included.
func TestParseIPv4Checksum(t *testing.T) {
	p := make([]byte, 60)
	(&IPv4{Src: testSrc, Dst: testDst, Len: 60, TTL: 64, Proto: ProtoTCP, ID: 77}).Put(p)
	copy(p[20:], []byte{131, 39, 4, 10, 0, 0, 1}) // LSRR
	p[0] = 4<<4 | 15
	p[10], p[11] = 0, 0
	binary.BigEndian.PutUint16(p[10:], InCksum(p))
	if _, err := ParseIPv4(p, 60); err != nil {
		t.Fatal(err)
	}
	for bit := range 60 * 8 {
		p[bit/8] ^= 0x80 >> (bit % 8)
		_, err := ParseIPv4(p, 60)
		switch {
		case bit < 4 && err != ErrVersion:
			t.Errorf("version bit %d: %v", bit, err)
		case bit >= 4 && err != ErrChecksum && err != ErrLength:
			t.Errorf("bit %d: %v", bit, err)
		}
		p[bit/8] ^= 0x80 >> (bit % 8)
	}
}

func TestICMPRoundTrip(t *testing.T) {
	ic := ICMP{Type: ICMPUnreach, Code: ICMPUnreachNeedfrag, Rest: 0x00000578}
	p := bytes.Repeat([]byte{0xee}, 9)
	ic.Put(p)
	if got := hex.EncodeToString(p); got != "0304000000000578ee" {
		t.Errorf("message %s", got)
	}
	for n := range 10 {
		got, err := ParseICMP(p[:min(n, 9):min(n, 9)])
		if n < ICMPLen {
			if err != ErrShort {
				t.Errorf("%d bytes: %v", n, err)
			}
		} else if err != nil || got != ic {
			t.Errorf("%d bytes: %+v, %v", n, got, err)
		}
	}
}

func TestPcap(t *testing.T) {
	h := PcapHeader(262144)
	if got := hex.EncodeToString(h[:]); got != "4d3cb2a1"+"02000400"+"00000000"+"00000000"+"00000400"+"65000000" {
		t.Errorf("header %s", got)
	}
	// 2027-01-15 08:00:00.000000001, 84 bytes
	r := PcapRecord(1800000000_000000001, 84, 84)
	if got := hex.EncodeToString(r[:]); got != "00d2496b"+"01000000"+"54000000"+"54000000" {
		t.Errorf("record %s", got)
	}
	r = PcapRecord(5_999999999, 96, 1500)
	if got := hex.EncodeToString(r[:]); got != "05000000"+"ffc99a3b"+"60000000"+"dc050000" {
		t.Errorf("record %s", got)
	}
	if got := PcapCaptured(r[:]); got != 96 {
		t.Errorf("%d bytes follow", got)
	}
}

// A header that has been parsed is the same after it has been written and parsed again.
func FuzzParseIPv4(f *testing.F) {
	p := make([]byte, 40)
	(&IPv4{Src: testSrc, Dst: testDst, Len: 40, TTL: 64, Proto: ProtoTCP}).Put(p)
	f.Add(p, 0)
	p = bytes.Clone(p)
	p[0] = 0x4a
	f.Add(p, 100)
	f.Add([]byte{0x45}, -1)
	f.Fuzz(func(t *testing.T, p []byte, more int) {
		p = p[:len(p):len(p)]
		plen := len(p) + min(max(more, 0), 1<<20)
		ip, err := ParseIPv4(p, plen)
		if err != nil && len(p) >= 20 {
			// Once more with the checksum mended, which no fuzzer finds.
			p[10], p[11] = 0, 0
			binary.BigEndian.PutUint16(p[10:], InCksum(p[:min(max(int(p[0]&15)*4, 20), len(p))]))
			ip, err = ParseIPv4(p, plen)
			if err == ErrChecksum {
				t.Fatalf("%x: the mended checksum is wrong", p)
			}
		}
		if err != nil {
			return
		}
		if ip.Hlen < 20 || ip.Hlen > len(p) || ip.Len < ip.Hlen || ip.Len > plen || ip.Off > 65528 || ip.Off%8 != 0 ||
			ip.Flags&^(IPDF|IPMF) != 0 {
			t.Fatalf("%x was accepted as %+v", p, ip)
		}
		q := make([]byte, 20)
		ip.Put(q)
		again, err := ParseIPv4(q, ip.Len)
		ip.Hlen = 20
		if err != nil || again != ip {
			t.Fatalf("%+v became %+v, %v", ip, again, err)
		}
	})
}
