package kern

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// The trie finds what a look at all routes finds, after any adding and removing.
func TestRtallocRandom(t *testing.T) {
	for seed := range uint64(100) {
		v6 := seed%2 == 1
		r := rand.New(rand.NewPCG(seed, 19))
		k := &Kernel{}
		ifs := []*Ifnet{}
		for i := range 3 {
			ifs = append(ifs, &Ifnet{k: k, Name: fmt.Sprint("if", i), prefixes: []netip.Prefix{
				netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, byte(i), 1}), 24),
				netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, byte(i), 15: 1}), 64),
			}})
		}
		k.ifs.Store(&ifs)
		addr := func() netip.Addr { // few bits of an address vary, so that prefixes meet
			b := [4]byte{byte(r.IntN(2)) << 7, byte(r.IntN(4)), byte(r.IntN(2)), byte(r.IntN(256))}
			if v6 {
				return netip.AddrFrom16([16]byte{0x20, b[0], 7: b[1], 8: b[2], 15: b[3]})
			}
			return netip.AddrFrom4(b)
		}
		width := 33
		if v6 {
			width = 129
		}
		var all []rtentry
		for range 300 {
			e := rtentry{dst: netip.PrefixFrom(addr(), r.IntN(width)).Masked(), ifp: ifs[r.IntN(3)]}
			switch at := slices.IndexFunc(all, func(o rtentry) bool { return o.dst == e.dst }); {
			case r.IntN(20) == 0:
				k.routes.rtdelif(e.ifp)
				all = slices.DeleteFunc(all, func(o rtentry) bool { return o.ifp == e.ifp })
			case r.IntN(3) > 0:
				if err := k.routes.rtadd(e); (err == nil) != (at < 0) {
					t.Fatalf("seed %d: rtadd(%v): %v", seed, e.dst, err)
				}
				if at < 0 {
					all = append(all, e)
				}
			default:
				if len(all) > 0 && r.IntN(2) == 0 {
					at = r.IntN(len(all))
					e = all[at]
				}
				found := at >= 0 && all[at].ifp == e.ifp
				if err := k.routes.rtdelete(e.dst, e.ifp); (err == nil) != found {
					t.Fatalf("seed %d: rtdelete(%v): %v", seed, e.dst, err)
				}
				if found {
					all = slices.Delete(all, at, at+1)
				}
			}
			for range 5 {
				a := addr()
				var want *Ifnet
				longest := -1
				for _, e := range all {
					if e.dst.Contains(a) && e.dst.Bits() > longest {
						want, longest = e.ifp, e.dst.Bits()
					}
				}
				if got, _, _ := k.rtalloc(a, netip.Addr{}); got != want {
					t.Fatalf("seed %d: rtalloc(%v) is %v, want %v, of %d routes", seed, a, got, want, len(all))
				}
			}
			list := k.routes.list()
			sorted := slices.SortedFunc(slices.Values(all), func(a, b rtentry) int { return a.dst.Compare(b.dst) })
			if len(list) != len(all) || !slices.EqualFunc(list, sorted,
				func(a, b rtentry) bool { return a.dst == b.dst && a.ifp == b.ifp }) {
				t.Fatalf("seed %d: the table lists %d routes, want %d", seed, len(list), len(all))
			}
		}
	}
}
