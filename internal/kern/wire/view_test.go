package wire

import (
	"bytes"
	"net/netip"
	"testing"
)

// A view reads what Put has written.
func TestIPv4View(t *testing.T) {
	want := IPv4{
		Src: netip.MustParseAddr("10.1.2.3"), Dst: netip.MustParseAddr("192.0.2.77"),
		Hlen: 20, Len: 28, Flags: IPDF, Off: 0x1234 * 8, TTL: 64, Proto: ProtoUDP,
	}
	p := make([]byte, 28)
	want.Put(p)
	copy(p[20:], "payload!")
	v, ok := ViewIPv4(p)
	if !ok {
		t.Fatal("not taken for an IPv4 packet")
	}
	got := IPv4{Src: v.Src(), Dst: v.Dst(), Hlen: v.Hlen(), Len: want.Len, Flags: v.Flags(), Off: v.Off(), TTL: want.TTL, Proto: v.Proto()}
	if got != want || string(v.Payload()) != "payload!" {
		t.Errorf("%+v, payload %q; want %+v", got, v.Payload(), want)
	}
	options := bytes.Clone(p)
	options[0], options[6] = 0x46, 0x20
	if v, ok := ViewIPv4(options); !ok || v.Hlen() != 24 || string(v.Payload()) != "oad!" || v.Flags() != IPMF {
		t.Errorf("with options: %v, header %d, payload %q, flags %x", ok, v.Hlen(), v.Payload(), v.Flags())
	}
}

// What is no whole header has no view, and one that has a view can be read.
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
		"10.1.2.3/8": "10.255.255.255", "10.1.2.3/23": "10.1.3.255", "10.1.2.3/31": "10.1.2.3", "10.1.2.2/31": "10.1.2.3",
		"10.1.2.3/32": "10.1.2.3", "0.0.0.0/0": LimitedBroadcast.String(),
	} {
		if got := LastAddr(netip.MustParsePrefix(p)); got.String() != want {
			t.Errorf("%s: %v; want %s", p, got, want)
		}
	}
}
