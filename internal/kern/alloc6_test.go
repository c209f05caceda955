package kern

import (
	"testing"

	"bsdnet/internal/kern/wire"
	"bsdnet/internal/testutil"
)

// A packet over IPv6 makes no garbage, whatever becomes of it; only fragments that wait do.
func TestNoGarbage6(t *testing.T) {
	if testutil.Race {
		t.Skip("the race detector lets pools drop what they hold")
	}
	v := attacked6(t, nil)
	defer v.done()
	v.link.quiet = true
	ext := []ext6{{wire.ProtoHopopts, opts6(5, 2, 0, 0)}, {wire.ProtoDstopts, opts6()}}
	segment := (&seg{from: addrPort6(attPeer6, 1), to: addrPort6(attHost6, 2)}).tcp()
	for name, p := range map[string]ip6{
		"echo":                   {proto: wire.ProtoICMPv6, payload: echo6(pattern6(100))},
		"echo in fragments":      {proto: wire.ProtoICMPv6, payload: echo6(pattern6(1400))},
		"extension headers":      {proto: wire.ProtoICMPv6, payload: echo6(pattern6(100)), ext: ext},
		"an unknown protocol":    {proto: 200, payload: pattern6(500)},
		"a router header":        {proto: 200, ext: []ext6{{wire.ProtoRouting, []byte{0, 0, 0, 1, 0, 0, 0, 0}}}},
		"a wrong checksum":       {proto: wire.ProtoICMPv6, payload: make([]byte, 64)},
		"for others":             {proto: 200, IPv6: wire.IPv6{Dst: attPeer6.Next()}},
		"a port that is closed":  {proto: wire.ProtoTCP, payload: segment},
		"a group, not joined":    {proto: 200, IPv6: wire.IPv6{Dst: allNodesInterface}},
		"an address of the host": {proto: 200, IPv6: wire.IPv6{Src: attHost6}},
	} {
		b := p.bytes()
		if n := testing.AllocsPerRun(300, func() { v.inject(b) }); n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
