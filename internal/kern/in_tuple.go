package kern

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// An in6Addr is an address in the form of struct in6_addr. An IPv4 address is mapped (RFC 4291,
// 2.5.5.2). Tables hold this form, as it has 16 bytes to compare and to hash, and a netip.Addr has
// 24. The zero in6Addr is no address.
type in6Addr [16]byte

// in6 returns a as an in6Addr. For the zero Addr it returns the zero in6Addr.
func in6(a netip.Addr) in6Addr { return a.As16() }

// addr returns the netip.Addr that in6 has made the address of.
func (a *in6Addr) addr() netip.Addr {
	switch {
	case a.is4():
		return netip.AddrFrom4([4]byte(a[12:]))
	case *a == in6Addr{}:
		return netip.Addr{}
	}
	return netip.AddrFrom16(*a)
}

func (a *in6Addr) is4() bool {
	return binary.LittleEndian.Uint64(a[:]) == 0 && binary.LittleEndian.Uint32(a[8:]) == 0xffff0000
}

// onLink reports whether a is a link-local address, which says nothing about the way to it.
func (a *in6Addr) onLink() bool { return a[0] == 0xfe && a[1]&0xc0 == 0x80 }

// network returns what an address is counted by if its host must not count twice: an IPv4 address
// itself, or the first 64 bits of an IPv6 address, behind which a host may take any number of
// addresses (RFC 4291, 2.5.1; RFC 4862).
func (a *in6Addr) network() in6Addr {
	n := *a
	if !a.is4() {
		clear(n[8:])
	}
	return n
}

// family returns the bit of the address's family in inp_vflag.
func (a *in6Addr) family() uint8 {
	if a.is4() {
		return inpIPv4
	}
	return inpIPv6
}

// unspecified reports whether a is no address, or is 0.0.0.0, which stands for any address.
func (a *in6Addr) unspecified() bool {
	return *a == in6Addr{} || a.is4() && binary.LittleEndian.Uint32(a[12:]) == 0
}

// A tuple names a connection.
type tuple struct {
	laddr, faddr in6Addr
	lport, fport uint16
}

// local returns our end.
func (t *tuple) local() netip.AddrPort { return netip.AddrPortFrom(t.laddr.addr(), t.lport) }

// remote returns the peer's end.
func (t *tuple) remote() netip.AddrPort { return netip.AddrPortFrom(t.faddr.addr(), t.fport) }

// hash returns a keyed hash for tables. Without the key, an attacker that chooses its addresses
// could choose a bucket.
func (t *tuple) hash(key [2]uint64) uint64 {
	l, f := &t.laddr, &t.faddr
	le := binary.LittleEndian
	h := key[0]
	mix := func(a, b uint64) {
		hi, lo := bits.Mul64(a^h, b^key[1])
		h = hi ^ lo
	}
	if l.is4() {
		mix(uint64(le.Uint32(l[12:]))<<32|uint64(le.Uint32(f[12:])), uint64(t.lport)<<32|uint64(t.fport))
	} else {
		mix(le.Uint64(l[:]), le.Uint64(l[8:]))
		mix(le.Uint64(f[:]), le.Uint64(f[8:]))
		mix(uint64(t.lport)<<32|uint64(t.fport), 0x9e3779b97f4a7c15)
	}
	mix(0xd6e8feb86659fd93, 0x9e3779b97f4a7c15) // h itself is in every mix: once more would make it 0
	return h
}

// flow returns a hash that is the same for both directions, so that a conversation over the
// loopback stays on one queue.
func (t *tuple) flow(key [2]uint64) uint32 {
	r := tuple{t.faddr, t.laddr, t.fport, t.lport}
	h := t.hash(key) ^ r.hash(key)
	return uint32(h ^ h>>32)
}
