package udptunnel

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
)

// The cost of a datagram from an attacker that does not have the key. "data" is for a session that
// exists and "unknown" for one that does not; "replay" is replayed data. HELLO and CONFIRM come
// changed and replayed. A HELLO is replayed from one address, and from a new one each time, which
// is answered.
func BenchmarkUnwanted(bench *testing.B) {
	s := newSim(bench)
	a, b := s.pair()
	s.connect(a, b)
	s.write(a, string(make([]byte, 1400)))
	s.run(2 * s.delay)
	data := s.log[len(s.log)-1].b
	hello, confirm := s.kind(kindHello)[0].b, s.kind(kindConfirm)[0].b
	flip := func(b []byte, at int) []byte {
		b = bytes.Clone(b)
		b[at] ^= 1
		return b
	}
	// A responder that has an offer, and whose CONFIRM is late.
	u := newSim(bench)
	c, d := u.pair()
	u.lose = func(d simDatagram) bool { return d.b[0] == kindConfirm }
	u.write(c, "wanted")
	u.run(100 * ms)
	for _, x := range []struct {
		name string
		to   *simEnd
		b    []byte
		vary bool
	}{
		{"Data/Forged", b, flip(data, len(data)-1), false},
		{"Data/Unknown", b, flip(data, 5), false},
		{"Data/Replayed", b, data, false},
		{"Hello/Forged", b, flip(hello, len(hello)-1), false},
		{"Hello/Replayed", b, hello, false},
		{"Hello/Replayed/Answered", b, hello, true},
		{"Confirm/Forged", d, flip(u.kind(kindConfirm)[0].b, 75), false},
		{"Confirm/Replayed", b, confirm, false},
	} {
		bench.Run(x.name, func(bench *testing.B) {
			f := bytes.Clone(x.b)
			dst := make([]byte, 1500)
			src := attacker
			i := uint64(0)
			for bench.Loop() {
				if f[0] == kindData {
					if e, _ := x.to.find(s.now, f); e != nil {
						e.open(dst, f)
					}
					continue
				}
				if x.vary {
					i++
					var ip [4]byte
					binary.BigEndian.PutUint32(ip[:], uint32(i))
					src = udp(netip.AddrPortFrom(netip.AddrFrom4(ip), 9))
				}
				x.to.input(s.now, f, src)
				x.to.out = x.to.out[:0]
			}
		})
	}
}
