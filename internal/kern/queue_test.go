package kern

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
)

// Whatever part of what it is given a link takes, and whenever it asks for more, no byte is lost,
// doubled or out of place.
func TestShortWrites(t *testing.T) {
	for seed := range uint64(4) {
		la, lb := newPair(600+int(seed)*1000, true, seed)
		exchangeStreams(t, la, lb, seed)
	}
}

// exchangeStreams sends streams both ways over connections between two stacks at the ends of a
// cable.
func exchangeStreams(t *testing.T, la, lb Link, seed uint64) {
	t.Helper()
	ka, kb := twoKernels(t, la, lb, nil)
	pa, pb := ka.NewProc(), kb.NewProc()
	lfd, _ := pa.Socket(AF_INET, SOCK_STREAM, 0)
	at := netip.AddrPortFrom(attHost, 80)
	if errno := pa.Bind(lfd, at); errno != 0 {
		t.Fatal(errno)
	}
	pa.Listen(lfd, 16)
	const conns, size = 3, 1 << 20
	var wg sync.WaitGroup
	for i := range conns {
		fd, _ := pb.Socket(AF_INET, SOCK_STREAM, 0)
		if errno := pb.Connect(fd, at); errno != 0 {
			t.Fatal(errno)
		}
		sfd, _, errno := pa.Accept(lfd)
		if errno != 0 {
			t.Fatal(errno)
		}
		for j, end := range []struct {
			p  *Proc
			fd int
		}{{pb, fd}, {pa, sfd}} {
			wg.Go(func() { sendStream(t, end.p, end.fd, seed+uint64(i*2+j), size) })
			wg.Go(func() { readStream(t, end.p, end.fd, seed+uint64(i*2+1-j), size) })
		}
	}
	wg.Wait()
	if n := ka.Stats.TCP.Rcvduppack.Load() + kb.Stats.TCP.Rcvduppack.Load(); n > 50 {
		t.Logf("seed %d: %d duplicate segments arrived", seed, n)
	}
	if n := ka.Stats.TCP.Rcvbadsum.Load() + kb.Stats.TCP.Rcvbadsum.Load(); n != 0 {
		t.Errorf("seed %d: %d segments with bad checksums arrived", seed, n)
	}
	ka.Close()
	kb.Close()
	closedClean(t, ka)
	closedClean(t, kb)
}

// A stream is bytes that its seed determines.
func sendStream(t testing.TB, p *Proc, fd int, seed uint64, size int) {
	r := rand.New(rand.NewPCG(seed, 3))
	for n := 0; n < size; {
		b := make([]byte, min(1+r.IntN(40000), size-n))
		for i := range b {
			b[i] = streamByte(seed, n+i)
		}
		k, errno := p.Send(fd, b, 0)
		if errno != 0 {
			t.Errorf("stream %d: send at %d: %v", seed, n, errno)
			return
		}
		n += k
	}
}

func readStream(t testing.TB, p *Proc, fd int, seed uint64, size int) {
	b := make([]byte, 30000)
	for n := 0; n < size; {
		k, errno := p.Recv(fd, b, 0)
		if errno != 0 || k == 0 {
			t.Errorf("stream %d: recv at %d: %d, %v", seed, n, k, errno)
			return
		}
		for i := range k {
			if b[i] != streamByte(seed, n+i) {
				t.Errorf("stream %d: byte %d is wrong", seed, n+i)
				return
			}
		}
		n += k
	}
}

func streamByte(seed uint64, i int) byte { return byte((uint64(i)*0x9e3779b97f4a7c15 + seed) >> 23) }

// A connection stops at its share of a queue that does not move. Others have their shares. All go
// on when the queue moves.
func TestBackPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, func(c *Config, p *tcp.Profile) {
			p.InitCwndSegs, p.Sendspace = 4000, 4<<20
			p.Maxsockbuf = 8 << 20
		})
		defer v.done()
		lfd := v.listen(80, 10)
		var peers [2]*peer
		var fds [2]int
		for i := range peers {
			p := v.peer(uint16(5000+i), 80)
			p.dial(wire.Options{Has: wire.TofMSS | wire.TofScale, MSS: 1460, Scale: 8})
			fd, _, errno := v.p.Accept(lfd)
			v.no(errno)
			v.p.Fcntl(fd, F_SETFL, O_NONBLOCK)
			peers[i], fds[i] = p, fd
		}
		v.link.fetch()
		v.link.mu.Lock()
		v.link.take = func(int) int { return 0 }
		v.link.mu.Unlock()
		const size = 2 << 20
		data := make([]byte, size)
		for i := range data {
			data[i] = streamByte(9, i)
		}
		for i, fd := range fds {
			n, errno := v.p.Send(fd, data, 0)
			if n != size || errno != 0 {
				t.Fatalf("send took %d, %v", n, errno)
			}
			if n := v.p.Sock(fd).pending(); n < txShare || n > txShare+70000 {
				t.Errorf("connection %d has %d bytes pending, want about its share of %d", i, n, txShare)
			}
		}
		v.none()
		// The link takes a few packets at a time.
		r := rand.New(rand.NewPCG(1, 1))
		v.link.mu.Lock()
		v.link.take = func(n int) int { return r.IntN(min(n, 20) + 1) }
		v.link.mu.Unlock()
		var seen [2]int
		for range 5000 {
			v.link.ready()
			settle()
			for _, g := range v.segments() {
				i := int(g.th.Dport) - 5000
				if off := g.th.Seq.Sub(peers[i].ack); off != seen[i] ||
					!bytes.Equal(g.data, data[off:off+len(g.data)]) {
					t.Fatalf("connection %d: a segment at %d, want %d", i, off, seen[i])
				}
				seen[i] += len(g.data)
			}
			if seen == [2]int{size, size} {
				break
			}
		}
		if seen != [2]int{size, size} {
			t.Fatalf("sent %v of %d", seen, size)
		}
		for i := range fds {
			if n := v.p.Sock(fds[i]).pending(); n != 0 {
				t.Errorf("connection %d still has %d bytes pending", i, n)
			}
		}
	})
}

// A link that is full, and has room again before the stack has taken note of that, is asked again
// at once, as it calls ready only once.
func TestReadyBeforeNoted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		_, fd := v.established(v.listen(80, 10), 5000, 80)
		full := 0
		v.link.mu.Lock()
		v.link.take = func(n int) int {
			if full++; full%2 == 1 {
				v.link.ready() // as a thread of the link's may, between its answer and our note
				return 0
			}
			return 1
		}
		v.link.mu.Unlock()
		if n, errno := v.p.Send(fd, make([]byte, 6000), 0); n != 6000 || errno != 0 {
			t.Fatalf("send: %d, %v", n, errno)
		}
		settle()
		sent := 0
		for _, g := range v.segments() {
			sent += len(g.data)
		}
		if sent != 6000 {
			t.Errorf("%d bytes of 6000 have gone", sent)
		}
	})
}

// A device that fails loses packets, as a broken cable does; when it works again, so does the
// connection.
func TestFailingDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		p, fd := v.established(v.listen(80, 10), 5000, 80)
		v.link.mu.Lock()
		v.link.err = errFault
		v.link.mu.Unlock()
		if n, errno := v.p.Send(fd, []byte("hello"), 0); n != 5 || errno != 0 {
			t.Fatalf("send: %d, %v", n, errno)
		}
		pass(5 * time.Second)
		v.none()
		if n := v.ifp.Stats.Oerrors.Load(); n == 0 {
			t.Errorf("no output errors are counted")
		}
		v.link.mu.Lock()
		v.link.err = nil
		v.link.mu.Unlock()
		pass(10 * time.Second)
		l := v.segments()
		if len(l) == 0 || string(l[0].data) != "hello" || l[0].th.Seq != p.ack {
			t.Fatalf("after the fault %v was sent", l)
		}
		// A dial over an interface that is down fails at once.
		v.no(v.p.Close(fd))
		if err := v.k.Detach(v.ifp); err != nil {
			t.Fatal(err)
		}
		fd, _ = v.p.Socket(AF_INET, SOCK_STREAM, 0)
		if errno := v.p.Connect(fd, netip.AddrPortFrom(attPeer, 9)); errno != syscall.ENETUNREACH {
			t.Errorf("connect without an interface: %v", errno)
		}
	})
}

// The queue of an interface is bounded, whatever is put on it.
func TestQueueIsBounded(t *testing.T) {
	v := attacked(t, nil)
	defer v.done()
	v.link.mu.Lock()
	v.link.take = func(int) int { return 0 }
	v.link.mu.Unlock()
	echo := icmpPacket(attPeer, attHost, wire.ICMP{Type: wire.ICMPEcho}, make([]byte, 1000))
	for range ifqMaxPackets + 5000 {
		v.inject(echo)
	}
	q := &v.ifp.queues[0]
	if q.n > ifqMaxPackets+txBatch || q.bytes > ifqMaxBytes+70000 {
		t.Errorf("%d packets, %d bytes are queued", q.n, q.bytes)
	}
	if v.ifp.Stats.Odrops.Load() < 4000 {
		t.Errorf("%d drops are counted", v.ifp.Stats.Odrops.Load())
	}
}

// A capture shows each packet once, however often the link refuses it.
func TestCaptureOnceOnShortWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		var pcap bytes.Buffer
		stop, err := v.ifp.Capture(&pcap)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		v.link.mu.Lock()
		v.link.take = func(int) int { n++; return n / 5 % 2 }
		v.link.mu.Unlock()
		for i := range 20 {
			v.inject(icmpPacket(attPeer, attHost, wire.ICMP{Type: wire.ICMPEcho, Rest: uint32(i)}, []byte("x")))
		}
		for range 100 {
			v.link.ready()
			settle()
		}
		if l := v.segments(); len(l) != 20 {
			t.Fatalf("%d replies", len(l))
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		b := pcap.Bytes()[wire.PcapHeaderLen:]
		seen := map[uint32]int{}
		for len(b) > 0 {
			l := int(binary.LittleEndian.Uint32(b[8:]))
			p := b[wire.PcapRecordLen:][:l]
			b = b[wire.PcapRecordLen+l:]
			if p[20] == wire.ICMPEchoReply {
				seen[binary.BigEndian.Uint32(p[24:])]++
			}
		}
		for i := range uint32(20) {
			if seen[i] != 1 {
				t.Errorf("reply %d is captured %d times", i, seen[i])
			}
		}
	})
}

// A packet over the loopback counts once, however many batches its queue is drained in.
func TestLoopbackCounts(t *testing.T) {
	v := attacked(t, nil)
	defer v.done()
	q := &v.k.lo0.queues[0]
	if !q.hold() {
		t.Fatal("somebody is at the queue")
	}
	want := uint64(0)
	const packets = 3*txBatch + 1
	for i := range packets {
		m := v.k.pool.Getcl(100 + i)
		m.Append(make([]byte, 100+i)) // no packet of IP, so it goes no further
		m.Pkt.Len = 100 + i
		v.no(q.enqueue(m, nil))
		want += uint64(m.Pkt.Len)
	}
	if c := v.k.lo0.Counts(); c != (IfCounts{}) {
		t.Errorf("before the queue is drained: %+v", c)
	}
	q.run(packets)
	counts := IfCounts{Ipackets: packets, Opackets: packets, Ibytes: want, Obytes: want}
	if got, want := v.k.lo0.Counts(), counts; got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if n := v.k.Stats.IP.Total.Load(); n != packets {
		t.Errorf("%d packets arrived", n)
	}
}
