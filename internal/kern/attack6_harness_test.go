package kern

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
	"bsdnet/internal/testutil"
)

// The attacker's wire of attack_harness_test.go, for IPv6. The stack is 2001:db8::1/64 and
// fe80::1/64; the attacker may send from any address.

var (
	attHost6  = netip.MustParseAddr("2001:db8::1")
	attPeer6  = netip.MustParseAddr("2001:db8::2")
	attLocal6 = netip.MustParseAddr("fe80::1")
)

// attacked6 makes a stack with IPv6 on its wire: see attacked.
func attacked6(t testing.TB, mod func(*Config, *tcp.Profile)) *victim {
	t.Helper()
	c := Config{Profile: tcp.Default(), Rand: testutil.SeededRand(1)}
	if mod != nil {
		mod(&c, c.Profile)
	}
	k, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	v := &victim{TB: t, k: k, p: k.NewProc(), link: newWireLink(1500)}
	prefixes := []netip.Prefix{
		netip.PrefixFrom(attHost, 24), netip.PrefixFrom(attHost6, 64), netip.PrefixFrom(attLocal6, 64),
	}
	if v.ifp, err = k.Attach("wire0", v.link, prefixes); err != nil {
		t.Fatal(err)
	}
	for _, dst := range []string{"0.0.0.0/0", "::/0"} {
		if err := k.AddRoute(netip.MustParsePrefix(dst), v.ifp); err != nil {
			t.Fatal(err)
		}
	}
	return v
}

// An ip6 is a packet in an attacker's hands: extension headers, of which each is given without its
// Next Header field's value, and a payload.
type ip6 struct {
	wire.IPv6
	ext     []ext6
	proto   uint8
	payload []byte
}

// An ext6 is an extension header. Its first byte is filled in.
type ext6 struct {
	proto uint8
	body  []byte
}

// bytes makes the packet. If the source or the destination is not valid, it is the peer or the
// stack; if the hop limit is 0, it is 64.
func (p ip6) bytes() []byte {
	if !p.Src.IsValid() {
		p.Src = attPeer6
	}
	if !p.Dst.IsValid() {
		p.Dst = attHost6
	}
	if p.Hlim == 0 {
		p.Hlim = 64
	}
	b := make([]byte, wire.IPv6Len)
	at := 6
	p.Next = p.proto
	for i, e := range p.ext {
		if i == 0 {
			p.Next = e.proto
		} else {
			b[at] = e.proto
		}
		at = len(b)
		b = append(b, e.body...)
	}
	if len(p.ext) > 0 {
		b[at] = p.proto
	}
	b = append(b, p.payload...)
	if p.Len == 0 {
		p.Len = len(b)
	}
	p.Put(b)
	return b
}

// icmp6Message makes an ICMPv6 message with its checksum.
func icmp6Message(src, dst netip.Addr, ic wire.ICMP, body []byte) []byte {
	b := make([]byte, wire.ICMPLen, wire.ICMPLen+len(body))
	ic.Put(b)
	b = append(b, body...)
	sum := wire.Fold(wire.Sum(b, wire.PseudoSum(src, dst, wire.ProtoICMPv6, len(b))))
	binary.BigEndian.PutUint16(b[2:], ^sum)
	return b
}

// echo6 makes an echo request from the peer to the stack.
func echo6(data []byte) []byte {
	return icmp6Message(attPeer6, attHost6, wire.ICMP{Type: wire.ICMPv6Echo, Rest: 0x00070001}, data)
}

// fragments6 cuts a packet's fragmentable part at the given offsets, all multiples of 8.
func fragments6(p ip6, id uint32, at ...int) (list [][]byte) {
	at = append(slices.Clone(at), len(p.payload))
	for i, from := 0, 0; i < len(at); from, i = at[i], i+1 {
		q := p
		h := make([]byte, wire.FragmentLen)
		off := uint16(from)
		if i < len(at)-1 {
			off |= 1
		}
		binary.BigEndian.PutUint16(h[2:], off)
		binary.BigEndian.PutUint32(h[4:], id)
		q.ext = append(slices.Clone(p.ext), ext6{wire.ProtoFragment, h})
		q.payload = p.payload[from:at[i]]
		list = append(list, q.bytes())
	}
	return list
}

// A got6 is an IPv6 packet that the stack has sent.
type got6 struct {
	ip   wire.IPv6
	ic   wire.ICMP // of an ICMPv6 message
	data []byte    // what follows ICMPv6's header, or IPv6's
}

// fetch6 returns the IPv6 packets that have been sent since the last call, and verifies that they
// are whole and have right checksums.
func (v *victim) fetch6() (list []got6) {
	v.Helper()
	for _, p := range v.link.fetch() {
		ip, err := wire.ParseIPv6(p, len(p))
		if err != nil || ip.Len != len(p) {
			v.Fatalf("the stack has sent %x: %v", p, err)
		}
		g := got6{ip: ip, data: p[wire.IPv6Len:]}
		if ip.Next == wire.ProtoICMPv6 {
			if wire.Fold(wire.Sum(g.data, wire.PseudoSum(ip.Src, ip.Dst, ip.Next, len(g.data)))) != 0xffff {
				v.Fatalf("the stack has sent a bad checksum: %x", p)
			}
			if g.ic, err = wire.ParseICMP(g.data); err != nil {
				v.Fatalf("the stack has sent %x: %v", p, err)
			}
			g.data = g.data[wire.ICMPLen:]
		}
		list = append(list, g)
	}
	return list
}

// one6 returns the only packet that has been sent.
func (v *victim) one6() got6 {
	v.Helper()
	l := v.fetch6()
	if len(l) != 1 {
		v.Fatalf("%d packets were sent, want 1: %v", len(l), l)
	}
	return l[0]
}

// netipAddr returns an address like a, with another network and another host in it.
func netipAddr(a netip.Addr, network, host int) netip.Addr {
	b := a.As16()
	binary.BigEndian.PutUint32(b[4:], uint32(network))
	binary.BigEndian.PutUint32(b[12:], uint32(host))
	return netip.AddrFrom16(b)
}

// seededKernel makes a stack with the secrets of a seed.
func seededKernel(t testing.TB, seed uint64) *Kernel {
	t.Helper()
	k, err := New(Config{Rand: testutil.SeededRand(seed)})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func addrPort6(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }
