package kern

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"

	"bsdnet/internal/kern/wire"
)

// An offloadLink is a batchLink with virtio-net headers, which its captures do not have.
type offloadLink struct {
	*batchLink
	t testing.TB
}

func (l offloadLink) Offload() bool { return true }

func (l offloadLink) Write(pkts []net.Buffers) (int, error) {
	for _, p := range pkts {
		for _, p := range gsoSplit(l.t, slices.Concat(p...)) {
			if _, err := l.batchLink.Write([]net.Buffers{{p}}); err != nil {
				return 0, err
			}
		}
	}
	return len(pkts), nil
}

// A merging is a connection whose peer sends batches.
type merging struct {
	*peer
	l    *batchLink
	vnet bool
	fd   int // the stack's end
}

// mergingPeer makes a connection over a link that is read in batches, with or without virtio-net
// headers.
func mergingPeer(t *testing.T, vnet, sack bool) (*merging, func()) {
	t.Helper()
	v := attacked(t, nil)
	m := &merging{l: newBatchLink(), vnet: vnet}
	var link Link = m.l
	if vnet {
		link = offloadLink{m.l, t}
	}
	host := netip.MustParsePrefix("10.1.0.1/24")
	ifp, err := v.k.Attach("batch0", link, []netip.Prefix{host})
	if err != nil {
		t.Fatal(err)
	}
	wire0, link0 := v.ifp, v.link
	v.ifp, v.link = ifp, m.l.wireLink
	lfd := v.listenOn(netip.AddrPortFrom(host.Addr(), 80), 5)
	m.peer = &peer{
		v: v, from: netip.MustParseAddrPort("10.1.0.2:5000"), to: netip.AddrPortFrom(host.Addr(), 80), seq: 1000,
		win: 65535,
	}
	opt := wire.Options{Has: wire.TofMSS, MSS: 1460}
	if sack {
		opt.Has |= wire.TofSackperm
	}
	if !m.dial(opt) {
		t.Fatal("no SYN,ACK")
	}
	fd, _, errno := v.p.Accept(lfd)
	v.no(errno)
	v.p.Fcntl(fd, F_SETFL, O_NONBLOCK)
	v.link.fetch()
	m.fd = fd
	return m, func() {
		v.ifp, v.link = wire0, link0
		v.done()
	}
}

// segments makes the packets of n bytes from offset off of the peer's stream on, each of size bytes
// at the most. With a virtio-net link they are one.
func (m *merging) segments(off, n, size int) (pkts [][]byte) {
	step := size
	if m.vnet {
		step = n
	}
	for end := off + n; off < end; off += step {
		s := m.seg(wire.ACK, make([]byte, min(step, end-off)))
		s.th.Seq = m.seq.Add(off)
		p := s.bytes()
		if m.vnet {
			h := wire.Vnet{Flags: wire.VnetDataValid}
			if len(s.data) > size {
				h = wire.Vnet{Flags: wire.VnetNeedsCsum, GSOType: wire.VnetTCPv4, GSOSize: uint16(size),
					CsumStart: 20, CsumOffset: 16}
			}
			p = append(h.Append(nil), p...)
		}
		pkts = append(pkts, p)
	}
	return pkts
}

// answers gives the stack a batch, and returns the acknowledgments that it draws, as "ACK
// [LEFT-RIGHT ...]", in offsets.
func (m *merging) answers(batch ...[][]byte) (list []string) {
	m.v.Helper()
	m.l.batches <- slices.Concat(batch...)
	settle()
	for _, g := range m.v.segments() {
		s := fmt.Sprint(g.th.Ack.Sub(m.seq))
		for _, b := range g.th.Opt.Blocks[:g.th.Opt.Nsack] {
			s += fmt.Sprintf(" %d-%d", b.Left.Sub(m.seq), b.Right.Sub(m.seq))
		}
		list = append(list, s)
	}
	return list
}

// RFC 5681, 4.2: "A TCP receiver SHOULD send an immediate duplicate ACK when an out-of-order
// segment arrives." Segments that the stack, or the link, has merged draw as many acknowledgments
// as before: a sender counts them.
func TestMergedOutOfOrder(t *testing.T) {
	for _, vnet := range []bool{false, true} {
		for _, sack := range []bool{false, true} {
			t.Run(fmt.Sprintf("vnet=%v/sack=%v", vnet, sack), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m, done := mergingPeer(t, vnet, sack)
					defer done()
					want := func(got []string, with, without []string) {
						t.Helper()
						if !sack {
							with = without
						}
						if !slices.Equal(got, with) {
							t.Errorf("got %q, want %q", got, with)
						}
					}
					// Behind a hole: each is a duplicate, and the block grows. The last one is
					// short.
					want(m.answers(m.segments(1000, 3500, 1000)),
						[]string{"0 1000-2000", "0 1000-3000", "0 1000-4000", "0 1000-4500"},
						[]string{"0", "0", "0", "0"})
					// The data that fills the hole is acknowledged at once.
					want(m.answers(m.segments(0, 1000, 1000)), []string{"4500"}, []string{"4500"})
					// Only the last of a batch is behind a hole.
					want(m.answers(m.segments(4500, 2000, 1000), m.segments(7500, 1000, 1000)),
						[]string{"6500", "6500 7500-8500"}, []string{"6500", "6500"})
					// The same again are duplicates of their own (RFC 2883).
					want(m.answers(m.segments(7500, 2000, 1000)),
						[]string{"6500 7500-8500 7500-8500", "6500 7500-9500"}, []string{"6500", "6500"})
					// A merged segment may begin in order and reach beyond the hole. Then all is in
					// order again, and the acknowledgment of a single segment is delayed.
					want(m.answers(m.segments(6500, 4000, 1000)),
						[]string{"9500", "9500 7500-8500", "9500 8500-9500"}, []string{"9500", "9500", "9500"})
				})
			})
		}
	}
}
