package kern

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
)

// stranger is peer i of as many as one likes.
func (v *victim) strangerAt(i int) *peer {
	p := v.peer(5000, 80)
	p.from = netip.AddrPortFrom(attFrom(12, byte(i>>16), byte(i>>8), byte(i)), 5000)
	return p
}

// heapInUse is the heap after a collection, in bytes.
func heapInUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A42: peers connect and send nothing. The queue bounds the connections that no user accepts, and
// the memory those that one accepts: when it is full, SYNs are dropped, and existing connections go
// on. When those are closed, others are accepted.
func TestConnectionFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const budget, peers = 4 << 20, 20_000
		v := budgeted(t, budget)
		defer v.done()
		lfd := v.listen(80, 100)
		for i := range 1000 {
			v.strangerAt(i).dial(wire.Options{})
		}
		if n := len(v.states(func(c Conn) bool { return c.State == tcp.Established })); n != 100 {
			t.Errorf("%d connections wait for accept, want 100", n)
		}
		v.link.count()
		h0, u0 := heapInUse(), v.k.Pool().Used()
		var fds []int
		accept := func() {
			for {
				fd, _, errno := v.p.Accept(lfd)
				if errno != 0 {
					return
				}
				fds = append(fds, fd)
			}
		}
		accept()
		hp, hfd := v.established(lfd, 4000, 80)
		for i := range peers {
			v.strangerAt(1000 + i).dial(wire.Options{})
			accept()
			v.link.count()
		}
		v.within("connections", budget)
		if n := len(fds); n < 1000 || n > peers/2 {
			t.Errorf("%d of %d connections were taken", n, peers)
		}
		if h, u := heapInUse()-h0, v.k.Pool().Used()-u0; h > budget+budget/10 || h > u+u/3 {
			t.Errorf("the heap has grown by %d bytes, %d are counted", h, u) // with the test's own descriptors
		}
		v.honest(hp, hfd)
		for _, fd := range fds {
			v.no(v.p.Setlinger(fd, true, 0))
			v.no(v.p.Close(fd))
		}
		v.link.count()
		pass(2 * time.Minute)
		if v.k.pressed() || !v.strangerAt(0).dial(wire.Options{}) {
			t.Error("afterwards nobody can connect")
		}
	})
}

// An echoLink answers each packet that the stack sends with a segment that draws another one, as
// long as flood is set.
type echoLink struct {
	*wireLink
	ifp    *Ifnet
	answer []byte
	flood  atomic.Bool
	n      int
}

func (l *echoLink) Write(pkts []net.Buffers) (int, error) {
	for range pkts {
		if l.n++; l.n == 200_000 {
			l.flood.Store(false) // the flood would not end otherwise
		}
		if l.flood.Load() {
			l.ifp.Inject(l.answer)
		}
	}
	return len(pkts), nil
}

// A41: while packets arrive and each draws an answer, the calls of users return: a goroutine that
// drains a queue for others hands it over after a while, and holds no lock from one packet to the
// next.
func TestFloodHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		p, fd := v.established(v.listen(80, 5), 5000, 80)
		p.send([]byte("x"))
		l := &echoLink{wireLink: newWireLink(1500)}
		old := p.seg(wire.ACK, []byte("x")) // has come before: it is acknowledged again
		old.th.Seq--
		l.answer = old.bytes()
		pass(time.Second)
		// The cable is exchanged for one that echoes.
		v.no(errnoOf(v.k.Detach(v.ifp)))
		ifp, err := v.k.Attach("wire1", l, []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")})
		if err != nil {
			t.Fatal(err)
		}
		v.ifp, l.ifp = ifp, ifp
		if err := v.k.AddRoute(attAny, ifp); err != nil {
			t.Fatal(err)
		}
		l.flood.Store(true)
		done := make(chan int)
		go func() {
			v.p.Send(fd, []byte("y"), 0)
			v.no(v.p.Close(fd))
			during := 0
			if l.flood.Swap(false) {
				during = 1
			}
			done <- during
		}()
		if during := <-done; during == 0 {
			t.Error("write and close have returned only when the flood was over")
		}
	})
}

func errnoOf(err error) syscall.Errno {
	if err != nil {
		return syscall.EIO
	}
	return 0
}

// A03: an acknowledgment without a connection costs little: if the stack has sent no cookie of
// late, it does not even compare the number with one, and it takes no memory.
func TestAckFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		v.listen(80, 5)
		flood := func(n int) {
			for i := range n {
				s := v.strangerAt(i).seg(wire.ACK, nil)
				s.th.Ack = tcp.Seq(i * 7919)
				v.inject(s.bytes())
				v.link.count()
			}
		}
		flood(10_000)
		if n := v.k.Stats.TCP.ScRecvcookie.Load(); n != 0 {
			t.Errorf("%d acknowledgments were taken for cookies", n)
		}
		v.overflow(80, 2*scMax) // now cookies are sent
		v.link.count()
		sockets, before := len(v.k.sockets.all()), heapInUse()
		flood(100_000)
		if n := v.k.Stats.TCP.ScRecvcookie.Load(); n != 0 || len(v.k.sockets.all()) != sockets {
			t.Errorf("%d forged cookies were taken", n)
		}
		if n := heapInUse() - before; n > 1<<20 {
			t.Errorf("the heap has grown by %d bytes", n)
		}
		// If the stack has sent no cookie of late, it does not accept even a correct one, as it
		// computes no hash.
		p := v.strangerAt(200_000)
		sent := v.k.Stats.TCP.ScSendcookie.Load()
		v.inject(p.syn(wire.Options{}).bytes())
		g := v.one()
		if v.k.Stats.TCP.ScSendcookie.Load() != sent+1 {
			t.Fatal("the SYN was not answered with a cookie")
		}
		p.seq, p.ack = p.seq+1, g.th.Seq+1
		sc := &v.k.syncache
		for _, at := range []int64{0, v.k.now()} {
			sc.mu.Lock()
			sc.cookied.Store(at)
			sc.mu.Unlock()
			v.inject(p.seg(wire.ACK, nil).bytes())
			if n := v.k.Stats.TCP.ScRecvcookie.Load(); (n == 1) != (at != 0) {
				t.Errorf("cookies sent last at %d: %d were taken", at, n)
			}
		}
	})
}

// A24: a stack without an IPv6 address on the link drops all IPv6 packets, with extension headers
// or without, and answers none.
func TestIPv6Dropped(t *testing.T) {
	v := attacked(t, nil)
	defer v.done()
	v.listen(80, 5)
	s := v.peer(5000, 80).syn(wire.Options{})
	v4 := s.bytes()
	for _, chain := range [][]byte{nil, {0, 0, 0, 0, 0, 0, 0, 0}, make([]byte, 8*9), {44, 0, 0, 1, 0, 0, 0, 0}} {
		p := make([]byte, 40, 200)
		p[0], p[6], p[7] = 0x60, wire.ProtoTCP, 64
		if chain != nil {
			p[6] = 0 // hop by hop
		}
		p = append(p, chain...)
		p = append(p, v4[wire.IPv4MinLen:]...)
		p[4], p[5] = byte((len(p)-40)>>8), byte(len(p)-40)
		v.inject(p)
		// Headers of IPv4 that say 6.
		q := slices.Clone(v4)
		q[0] = 0x65
		q[10], q[11] = 0, 0
		sum := wire.InCksum(q[:20])
		q[10], q[11] = byte(sum>>8), byte(sum)
		v.inject(q)
	}
	v.none()
	if st := &v.k.Stats.IP6; st.Total.Load() != 8 || st.Delivered.Load() != 0 {
		t.Errorf("%d packets are counted, %d delivered; want 8 and none", st.Total.Load(), st.Delivered.Load())
	}
	if n := len(v.k.sockets.all()); n != 1 || v.halfOpen() != 0 {
		t.Error(fmt.Sprint(n, " sockets, ", v.halfOpen(), " handshakes"))
	}
}

// A39: if a segment's connection ends between the look-up and its lock, the segment is looked up
// again, and goes to what has taken the connection's place.
func TestSegmentMeetsTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		p, fd := v.established(v.listen(80, 5), 5000, 80)
		inp := &v.p.Sock(fd).inp
		in := tcpIn{t: inp.tuple, ifp: v.ifp, arrived: v.k.now(), now: v.k.now()}
		in.th = p.seg(wire.ACK, nil).th
		if !v.k.tcpSocketInput(inp, &in) {
			t.Error("a connection that stands is taken for one that has gone")
		}
		v.inject(p.seg(wire.RST, nil).bytes())
		if v.k.tcpSocketInput(inp, &in) {
			t.Error("a segment was given to a connection that has ended")
		}
		// So is an ICMP error.
		tcpCtlinput(v.k, &icmpError{t: inp.tuple, seq: p.ack, errno: syscall.EHOSTUNREACH, hard: true})
		v.none()
		v.inject(p.seg(wire.ACK, nil).bytes())
		if g := v.one(); g.th.Flags != wire.RST {
			t.Errorf("answer %v", g.th.Flags)
		}
	})
}

// A36: no error is sent about an error, even if that came in fragments that were never completed
// (RFC 1122, 3.2.2).
func TestNoErrorAboutError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		for typ := range 256 {
			b := icmpPacket(attPeer, attHost, wire.ICMP{Type: uint8(typ)}, make([]byte, 56))
			v.inject(ipPacket(wire.IPv4{ID: uint16(typ), Flags: wire.IPMF}, attPeer, attHost, wire.ProtoICMP,
				b[wire.IPv4MinLen:]))
			pass(31 * time.Second)
			if n, echo := len(v.link.fetch()), typ == wire.ICMPEcho || typ == wire.ICMPEchoReply; (n == 1) != echo {
				t.Errorf("half of an ICMP message of type %d: %d answers", typ, n)
			}
		}
	})
}
