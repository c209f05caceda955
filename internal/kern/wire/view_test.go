package wire

import (
	"bytes"
	"net/netip"
	"testing"
)

// An IPv4View reads the header that Put has written.
func TestIPv4View(t *testing.T) {
	want := IPv4{
		Src: netip.MustParseAddr("10.1.2.3"), Dst: netip.MustParseAddr("192.0.2.77"),
		Hlen: 20, Len: 28, TOS: 0xb8, ID: 0x789a, Flags: IPDF, Off: 0x1234 * 8, TTL: 64, Proto: ProtoUDP,
	}
	p := make([]byte, 28)
	want.Put(p)
	copy(p[20:], "payload!")
	v, ok := ViewIPv4(p)
	if !ok {
		t.Fatal("not taken for an IPv4 packet")
	}
	got := IPv4{
		Src: v.Src(), Dst: v.Dst(), Hlen: v.Hlen(), Len: v.Len(), TOS: v.TOS(), ID: v.ID(),
		Flags: v.Flags(), Off: v.Off(), TTL: v.TTL(), Proto: v.Proto(),
	}
	if got != want || string(v.Payload()) != "payload!" {
		t.Errorf("%+v, payload %q; want %+v", got, v.Payload(), want)
	}
	if a := v.Addrs(); string(a) != "\x0a\x01\x02\x03\xc0\x00\x02\x4d" {
		t.Errorf("addresses % x", a)
	}
	p[6] |= 0x80 // the reserved bit
	if v.FlagsOff() != 0x8000|IPDF|0x1234 || v.Flags() != IPDF {
		t.Errorf("flags and offset %#x, flags %#x", v.FlagsOff(), v.Flags())
	}
	options := bytes.Clone(p)
	options[0], options[6] = 0x46, 0x20
	if v, ok := ViewIPv4(options); !ok || v.Hlen() != 24 || string(v.Payload()) != "oad!" || v.Flags() != IPMF {
		t.Errorf("with options: %v, header %d, payload %q, flags %x", ok, v.Hlen(), v.Payload(), v.Flags())
	}
}

// SetLen leaves a header that ParseIPv4 accepts, with options too.
func TestIPv4ViewSetLen(t *testing.T) {
	for _, hlen := range []int{20, 24, 60} {
		p := make([]byte, 1000)
		h := IPv4{
			Src: netip.MustParseAddr("10.1.2.3"), Dst: netip.MustParseAddr("192.0.2.77"), Len: 60, TTL: 64,
			Proto: ProtoTCP,
		}
		h.Put(p)
		for i := 20; i < hlen; i++ {
			p[i] = 1
		}
		p[0] = 4<<4 | uint8(hlen/4)
		IPv4View(p).SetLen(777)
		if got, err := ParseIPv4(p, len(p)); err != nil || got.Len != 777 || got.Hlen != hlen {
			t.Errorf("header of %d bytes: length %d, header %d, %v", hlen, got.Len, got.Hlen, err)
		}
	}
}

// A TCPView reads the header that Put has written, and ParseTCP reads the fields that a view has
// written.
func TestTCPView(t *testing.T) {
	want := TCP{
		Sport: 0x1234, Dport: 0x5678, Seq: 0x9abcdef0, Ack: 0x13579bdf, Flags: ACK | PUSH | URG, Win: 0x2468,
		Urp: 0xace0,
		Opt: Options{Has: TofTS, TSVal: 0x01020304, TSEcr: 0x05060708},
	}
	p := make([]byte, TCPMaxLen)
	n := want.Put(p)
	p = append(p[:n], "payload!"...)
	p[12] |= 5
	v := TCPView(p)
	got := TCP{
		Sport: v.Sport(), Dport: v.Dport(), Seq: v.Seq(), Ack: v.Ack(), Hlen: v.Hlen(), Flags: v.Flags(),
		Win: v.Win(), Urp: v.Urp(), Opt: want.Opt,
	}
	if got != want || v.Reserved() != 5 || string(v.Payload()) != "payload!" ||
		string(v.Options()) != string(p[20:32]) {
		t.Errorf("%+v, reserved %d, payload %q, options % x; want %+v", got, v.Reserved(), v.Payload(), v.Options(),
			want)
	}

	want.Seq, want.Flags, want.Urp = 0xfedcba98, SYN|CWR, 0x0bad
	v.SetSeq(want.Seq)
	v.SetFlags(want.Flags)
	v.SetUrp(want.Urp)
	v.SetSum(0xbeef)
	var th TCP
	if err := ParseTCP(p, &th); err != nil || th != want || p[16] != 0xbe || p[17] != 0xef {
		t.Errorf("%+v, checksum % x, %v; want %+v", th, p[16:18], err, want)
	}
}

// ViewIPv4 refuses bytes that do not hold a whole header. All methods of the views that it makes
// work.
func TestIPv4ViewRefuses(t *testing.T) {
	p := make([]byte, 64)
	for first := range 256 {
		p[0] = byte(first)
		for n := range len(p) + 1 {
			want := first>>4 == 4 && first&15 >= 5 && n >= first&15*4
			v, ok := ViewIPv4(p[:n:n])
			if ok != want {
				t.Fatalf("first byte %#x, %d bytes: %v", first, n, ok)
			}
			if ok && len(v.Payload()) != n-first&15*4 {
				t.Fatalf("first byte %#x, %d bytes: a payload of %d", first, n, len(v.Payload()))
			}
		}
	}
}

func TestLastAddr(t *testing.T) {
	for p, want := range map[string]string{
		"10.1.2.3/8": "10.255.255.255", "10.1.2.3/23": "10.1.3.255", "10.1.2.3/31": "10.1.2.3",
		"10.1.2.2/31": "10.1.2.3",
		"10.1.2.3/32": "10.1.2.3", "0.0.0.0/0": LimitedBroadcast.String(),
	} {
		if got := LastAddr(netip.MustParsePrefix(p)); got.String() != want {
			t.Errorf("%s: %v; want %s", p, got, want)
		}
	}
}
