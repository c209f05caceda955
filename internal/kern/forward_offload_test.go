package kern

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// An offered packet is one in transit as a link with offloads or gro hands it over.
type offered struct {
	src, dst netip.Addr
	df       bool // IPv4
	proto    uint8
	n, seg   int  // bytes of payload; of each segment's, 0: it is one
	partial  bool // its checksum covers the pseudo-header only
}

// packet makes it of two Mbufs, and returns its payload too.
func (o *offered) packet(k *Kernel) (m *mbuf.Mbuf, data []byte) {
	data = make([]byte, o.n)
	for i := range data {
		data[i] = streamByte(4, i)
	}
	th := make([]byte, wire.UDPLen)
	sumAt := wire.UDPSumOff
	if o.proto == wire.ProtoTCP {
		th = make([]byte, wire.TCPMinLen)
		(&wire.TCP{Sport: 5000, Dport: 80, Seq: 1 << 31, Ack: 7, Flags: wire.ACK | wire.PUSH, Win: 500}).Put(th)
		sumAt = wire.TCPSumOff
	} else {
		wire.UDP{Sport: 5000, Dport: 53, Len: wire.UDPLen + o.n}.Put(th)
	}
	sum := wire.PseudoSum(o.src, o.dst, o.proto, len(th)+o.n)
	if o.partial {
		binary.BigEndian.PutUint16(th[sumAt:], wire.Fold(sum))
	} else {
		binary.BigEndian.PutUint16(th[sumAt:], ^wire.Fold(wire.Sum(data, wire.Sum(th, sum))))
	}
	body := append(th, data...)
	var p []byte
	if o.src.Is4() {
		ip := wire.IPv4{}
		if o.df {
			ip.Flags = wire.IPDF
		}
		p = ipPacket(ip, o.src, o.dst, o.proto, body)
	} else {
		p = ip6{IPv6: wire.IPv6{Src: o.src, Dst: o.dst}, proto: o.proto, payload: body}.bytes()
	}
	m = k.pool.Getcl(len(p))
	half := 60 + o.n/3
	m.Append(p[:half])
	rest := k.pool.Getcl(len(p))
	rest.Append(p[half:])
	m.SetNext(rest)
	m.Pkt.Len, m.Pkt.SegSize, m.Pkt.Csum = len(p), o.seg, mbuf.CsumVerified
	if o.partial {
		m.Pkt.Csum |= mbuf.CsumPartial
	}
	return m, data
}

// A vnetWire is a wireLink with offloads of TCP.
type vnetWire struct{ *wireLink }

func (vnetWire) Offload() bool { return true }

// Segments that a link or gro has merged, and checksums that a link has left out: they leave as
// they have arrived, whatever the next link can do.
func TestForwardOffloads(t *testing.T) {
	const tcp, udp = wire.ProtoTCP, wire.ProtoUDP
	for _, c := range []struct {
		what string
		offered
		mtu  int
		vnet bool
		want int // packets
	}{
		{"one segment, no checksum", offered{df: true, proto: tcp, n: 1000, partial: true}, 1500, false, 1},
		{"the same, offloads", offered{df: true, proto: tcp, n: 1000, partial: true}, 1500, true, 1},
		{"merged by gro", offered{df: true, proto: tcp, n: 10 * 1440, seg: 1440}, 1500, false, 10},
		{"the same, offloads", offered{df: true, proto: tcp, n: 10 * 1440, seg: 1440}, 1500, true, 1},
		{"merged by a link", offered{df: true, proto: tcp, n: 10*1440 + 7, seg: 1440, partial: true}, 1500, false, 11},
		{"the same, offloads", offered{df: true, proto: tcp, n: 10*1440 + 7, seg: 1440, partial: true}, 1500, true, 1},
		{"datagrams", offered{df: true, proto: udp, n: 10*1200 + 7, seg: 1200, partial: true}, 1500, false, 11},
		{"datagrams, vnet", offered{df: true, proto: udp, n: 10*1200 + 7, seg: 1200, partial: true}, 1500, true, 11},
		{"a chain of one", offered{df: true, proto: tcp, n: 900, seg: 1440, partial: true}, 1500, false, 1},
		{"too long", offered{df: true, proto: tcp, n: 10 * 1440, seg: 1440, partial: true}, 1400, false, 0},
		{"too long, offloads", offered{df: true, proto: tcp, n: 10 * 1440, seg: 1440}, 1400, true, 0},
		{"fragments", offered{proto: tcp, n: 1000, partial: true}, 576, false, 2},
		{"fragments, offloads", offered{proto: tcp, n: 1000, partial: true}, 576, true, 2},
		{"merged, then fragments", offered{proto: tcp, n: 5*1460 + 9, seg: 1460, partial: true}, 800, false, 11},
		{"merged, then fragments, offloads", offered{proto: tcp, n: 5*1460 + 9, seg: 1460}, 800, true, 11},
		{"datagrams, then fragments", offered{proto: udp, n: 5*1460 + 9, seg: 1460, partial: true}, 800, false, 11},
	} {
		for _, v6 := range []bool{false, true} {
			if v6 && (c.mtu < wire.IPv6MinMTU) {
				continue
			}
			t.Run(c.what, func(t *testing.T) {
				far := newWireLink(c.mtu)
				var link Link = far
				if c.vnet {
					link = vnetWire{far}
				}
				r := newRouterOn(t, far, link)
				o := c.offered
				if o.src, o.dst = attPeer, farHost; v6 {
					o.src, o.dst = attPeer6, farHost6
				}
				m, data := o.packet(r.k)
				r.k.ipintr(r.ifp, m)
				r.k.ipForwardStart()
				l := r.far.fetch()
				if len(l) != c.want {
					t.Errorf("%d packets, want %d", len(l), c.want)
				}
				if c.want == 0 {
					r.toldTooLong(&o)
				} else {
					r.checkForwarded(&o, l, data)
				}
				if l := r.link.fetch(); len(l) != 0 {
					t.Errorf("%d packets went back", len(l))
				}
				r.done()
			})
		}
	}
}

// toldTooLong asserts that the sender has been told the MTU, and shown the first segment.
func (r *router) toldTooLong(o *offered) {
	r.Helper()
	l := r.link.fetch()
	if len(l) != 1 {
		r.Fatalf("%d packets went back", len(l))
	}
	msg := wire.IPView(l[0]).Payload()
	quoted := wire.IPView(msg[wire.ICMPLen:])
	hl := quoted.Hlen() + wire.TCPMinLen
	if ic, _ := wire.ParseICMP(msg); ic.Rest != 1400 || quoted.Len() != hl+o.seg || quoted.TTL() != 64 ||
		!quoted.Is6() && wire.InCksum(quoted[:20]) != 0 {
		r.Errorf("the error is %x", l[0])
	}
}

// checkForwarded asserts that packets on the wire carry the segments of data.
func (r *router) checkForwarded(o *offered, l [][]byte, data []byte) {
	r.Helper()
	var stream, datagram []byte
	for i, p := range l {
		if r.out.vnet {
			vh := wire.ParseVnet(p)
			p = p[wire.VnetLen:]
			if vh.Flags&wire.VnetNeedsCsum != 0 {
				// What is left to do for the link: to sum all that follows.
				sum := wire.InCksum(p[vh.CsumStart:])
				binary.BigEndian.PutUint16(p[int(vh.CsumStart)+int(vh.CsumOffset):], sum)
			}
			if len(l) == 1 && o.seg > 0 && int(vh.GSOSize) != o.seg {
				r.Errorf("virtio-net says %+v", vh)
			}
		}
		ip := wire.IPView(p)
		if ip.TTL() != 63 || ip.Len() != len(p) || !ip.Is6() && wire.InCksum(p[:20]) != 0 {
			r.Fatalf("packet %d is %x", i, p[:60])
		}
		datagram = append(datagram, ip.Payload()...)
		if !ip.Is6() && wire.IPv4View(p).Flags()&wire.IPMF != 0 {
			continue
		}
		if wire.Fold(wire.Sum(datagram, wire.PseudoSum(ip.Src(), ip.Dst(), o.proto, len(datagram)))) != 0xffff {
			r.Errorf("packet %d has a bad checksum", i)
		}
		hl := wire.UDPLen
		if o.proto == wire.ProtoTCP {
			var th wire.TCP
			if err := wire.ParseTCP(datagram, &th); err != nil || int(th.Seq-1<<31) != len(stream) ||
				th.Flags&wire.PUSH != 0 != (i == len(l)-1) {
				r.Errorf("packet %d: %+v, %v", i, th, err)
			}
			hl = th.Hlen
		} else if n := wire.UDPView(datagram).Len(); n != len(datagram) {
			r.Errorf("packet %d: a datagram of %d bytes has %d in its header", i, len(datagram), n)
		}
		stream, datagram = append(stream, datagram[hl:]...), nil
	}
	if !bytes.Equal(stream, data) {
		r.Errorf("the payload has changed")
	}
}
