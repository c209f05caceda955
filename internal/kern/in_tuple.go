package kern

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// An in6Addr is an address as struct in6_addr has it, IPv4's mapped (RFC 4291, 2.5.5.2): what
// tables hold, as it has 16 bytes to compare and to hash, and a netip.Addr 24. The zero in6Addr is
// no address.
type in6Addr [16]byte

// in6 returns a as an in6Addr, the zero Addr as zero.
func in6(a netip.Addr) in6Addr { return a.As16() }

// addr is the way back.
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

// unspecified reports whether a is no address, or 0.0.0.0, which stands for any.
func (a *in6Addr) unspecified() bool {
	return *a == in6Addr{} || a.is4() && binary.LittleEndian.Uint32(a[12:]) == 0
}

// A tuple names a connection.
type tuple struct {
	laddr, faddr in6Addr
	lport, fport uint16
}

// local and remote are its ends.
func (t *tuple) local() netip.AddrPort { return netip.AddrPortFrom(t.laddr.addr(), t.lport) }

func (t *tuple) remote() netip.AddrPort { return netip.AddrPortFrom(t.faddr.addr(), t.fport) }

// hash is a keyed hash for tables: an attacker who chooses addresses must not be able to choose a
// bucket.
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

// flow is a hash that is the same for both directions, so that a conversation over the loopback
// stays on one queue.
func (t *tuple) flow(key [2]uint64) uint32 {
	r := tuple{t.faddr, t.laddr, t.fport, t.lport}
	h := t.hash(key) ^ r.hash(key)
	return uint32(h ^ h>>32)
}
