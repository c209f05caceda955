package kern

import (
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
)

// A44: garbage with right checksums, to every kind of socket, does no harm.
func TestGarbage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		lfd := v.listen(80, 50)
		r := seededInts(11)
		for i := range 20 {
			v.established(lfd, uint16(5000+i), 80)
		}
		for i := range 30_000 {
			b := make([]byte, 20+r(60))
			for j := range b {
				b[j] = byte(r(256))
			}
			binary2(b, uint16(5000+r(30)), uint16(80+r(2)))
			b[12] = byte(5+r(11)) << 4
			if r(2) == 0 {
				b[13] = byte(wire.ACK)
			}
			v.inject(ipPacket(wire.IPv4{TOS: uint8(r(256))}, attPeer, attHost, wire.ProtoTCP,
				tcpSummed(attPeer, attHost, b)))
			if i%1000 == 0 {
				pass(100 * time.Millisecond)
				v.link.count()
			}
		}
		p := v.peer(9999, 80)
		if !p.dial(wire.Options{}) {
			t.Errorf("afterwards nobody can connect")
		}
	})
}

func binary2(b []byte, sport, dport uint16) {
	b[0], b[1], b[2], b[3] = byte(sport>>8), byte(sport), byte(dport>>8), byte(dport)
}

// A09: two ends that disagree about their numbers do not answer each other forever.
func TestAckStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		la, lb := newPair(1500, false, 1)
		ka, kb := twoKernels(t, la, lb, nil)
		a, b := connected(t, ka, kb, netip.AddrPortFrom(attHost, 0))
		// A man in the middle has added data in both directions.
		for _, e := range []struct {
			to, from *Socket
			k        *Kernel
		}{{a, b, ka}, {b, a, kb}} {
			i := e.to.TCPInfo()
			s := &seg{from: e.from.Laddr(), to: e.to.Laddr(), data: make([]byte, 100)}
			s.th = wire.TCP{Seq: tcp.Seq(i.RcvNxt), Ack: tcp.Seq(i.SndNxt), Flags: wire.ACK, Win: 500}
			s.th.Opt = wire.Options{}
			for _, ifp := range e.k.Ifs() {
				if !ifp.loopback {
					ifp.Inject(s.bytes())
				}
			}
		}
		a.Sosend([]byte("x"), 0)
		sent := func() uint64 { return ka.Stats.TCP.Sndtotal.Load() + kb.Stats.TCP.Sndtotal.Load() }
		before := sent()
		pass(10 * time.Minute)
		if n := sent() - before; n > 20_000 {
			t.Errorf("%d segments in ten minutes", n)
		}
		a.Soabort()
		b.Soabort()
		ka.Close()
		kb.Close()
		closedClean(t, ka)
		closedClean(t, kb)
	})
}

// Two ends with closed windows and data for each other probe at the pace of their timers, no
// faster.
func TestBothWindowsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		la, lb := newPair(1500, false, 1)
		ka, kb := twoKernels(t, la, lb, nil)
		a, b := connected(t, ka, kb, netip.AddrPortFrom(attHost, 0))
		for range 2 {
			for _, so := range []*Socket{a, b} {
				so.Setnbio(true)
				for errno := syscall.Errno(0); errno == 0; settle() {
					_, errno = so.Sosend(make([]byte, 1<<20), 0)
				}
			}
			pass(time.Second)
		}
		sent := func() uint64 { return ka.Stats.TCP.Sndtotal.Load() + kb.Stats.TCP.Sndtotal.Load() }
		before := sent()
		pass(time.Hour)
		// From each end a window probe a minute and a keep-alive probe each 15 s, and their
		// answers.
		if n := sent() - before; n == 0 || n > 2*2*(60+240)+50 {
			t.Errorf("%d segments in an hour", n)
		}
		// One end reads: all arrives.
		if !a.Connected() || !b.Connected() {
			t.Fatalf("the connection has ended")
		}
		got := 0
		buf := make([]byte, 1<<20)
		for range 10_000 {
			n, _ := a.Soreceive(buf, 0)
			got += n
			pass(100 * time.Millisecond)
			if i := b.TCPInfo(); i.SndQ == 0 && n == 0 {
				break
			}
		}
		if i := b.TCPInfo(); i.SndQ != 0 || got == 0 {
			t.Errorf("%d bytes read, %d are left", got, i.SndQ)
		}
		a.Soabort()
		b.Soabort()
		ka.Close()
		kb.Close()
		closedClean(t, ka)
		closedClean(t, kb)
	})
}
