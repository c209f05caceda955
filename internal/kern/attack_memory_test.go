package kern

import (
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
)

// budgeted makes a stack with this much memory.
func budgeted(t testing.TB, bytes int64) *victim {
	return attacked(t, func(c *Config, p *tcp.Profile) {
		c.Memory = bytes
		p.Keepalive = false
	})
}

// short asserts that hardly any memory is left before the stack is pressed, and charges so much
// that the stack is pressed until release is called. The pool sums its counters only now and then,
// so it is a matter of chance whether it notices the first packet that exceeds the limit. If it
// does, the stack refuses that packet, and the next one of each connection, and the memory in use
// stays just below the limit.
func (v *victim) short() (release func()) {
	v.Helper()
	if used, limit := v.k.Pool().Used(), v.k.Pool().Limit(); used <= limit-2*mbuf.ClMid {
		v.Fatalf("%d bytes are in use, and the limit is %d: the memory is not short", used, limit)
	}
	const more = 1 << 20 // so much that the pool looks
	v.k.Pool().Charge(more)
	if !v.k.pressed() {
		v.Fatalf("the memory is not short")
	}
	return func() { v.k.Pool().Charge(-more) }
}

func (v *victim) within(what string, budget int64) {
	v.Helper()
	if n := v.k.Pool().Used(); n > budget+budget/10 {
		v.Fatalf("%s: %d bytes are in use, the budget is %d", what, n, budget)
	}
}

// honest asserts that a connection whose user reads and writes makes progress.
func (v *victim) honest(p *peer, fd int) {
	v.Helper()
	b := make([]byte, 3000)
	for i := range 20 {
		p.send([]byte(fmt.Sprintf("%0500d", i)))
		if n, errno := v.p.Recv(fd, b, 0); n != 500 || errno != 0 {
			v.Fatalf("the honest connection: recv %d: %d, %v", i, n, errno)
		}
		v.link.fetch()
		if n, errno := v.p.Send(fd, b[:500], 0); n != 500 || errno != 0 {
			v.Fatalf("the honest connection: send %d: %d, %v", i, n, errno)
		}
		for _, g := range v.segments() {
			if g.th.Dport == p.from.Port() {
				p.ack = p.ack.Add(len(g.data))
			}
		}
		v.inject(p.seg(wire.ACK, nil).bytes())
	}
}

// F12: a thousand peers send data that no user reads. The memory stays within its limit, an honest
// connection goes on, and new ones are refused. When the memory is free again, everything works as
// before.
func TestMemoryNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const budget = 16 << 20
		v := budgeted(t, budget)
		defer v.done()
		lfd := v.listen(80, 2000)
		hp, hfd := v.established(lfd, 4000, 80)
		const n = 1000
		peers := make([]*peer, n)
		fds := make([]int, n)
		for i := range peers {
			peers[i], fds[i] = v.established(lfd, uint16(5000+i), 80)
		}
		data := make([]byte, 1400)
		for round := range 40 {
			for _, p := range peers {
				p.send(data)
			}
			v.within(fmt.Sprintf("round %d", round), budget)
			v.link.count()
		}
		release := v.short()
		v.honest(hp, hfd)
		if v.peer(3000, 80).dial(wire.Options{}) {
			t.Errorf("a SYN is answered")
		}
		if _, errno := v.p.Socket(attFam.domain, SOCK_STREAM, 0); errno != syscall.ENOBUFS {
			t.Errorf("socket: %v", errno)
		}
		release()
		// The windows of the peers stay as they were, so no promise is broken. They send again what
		// has been dropped.
		for _, fd := range fds {
			v.no(v.p.Close(fd))
		}
		v.link.count()
		pass(5 * time.Minute)
		if v.k.pressed() {
			t.Errorf("the memory is still short")
		}
		if !v.peer(3001, 80).dial(wire.Options{}) {
			t.Errorf("a SYN is not answered")
		}
	})
}

// The same with users that write data that no peer acknowledges. One user writes more than a socket
// may hold then: its call goes on.
func TestMemoryNobodyAcknowledges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const budget = 16 << 20
		v := budgeted(t, budget)
		defer v.done()
		lfd := v.listen(80, 2000)
		hp, hfd := v.established(lfd, 4000, 80)
		var fds []int
		for i := range 1000 {
			_, fd := v.established(lfd, uint16(5000+i), 80)
			fds = append(fds, fd)
		}
		for i, fd := range fds {
			for range 10 {
				v.p.Send(fd, make([]byte, 20_000), 0)
			}
			v.within(fmt.Sprintf("connection %d", i), budget)
			v.link.count()
		}
		if !v.k.pressed() {
			t.Fatalf("the memory is not short")
		}
		v.honest(hp, hfd)
		// A blocking write of much.
		v.p.Fcntl(hfd, F_SETFL, 0)
		var wg sync.WaitGroup
		const size = 200_000
		wg.Go(func() {
			if n, errno := v.p.Send(hfd, make([]byte, size), 0); n != size || errno != 0 {
				t.Errorf("a large write while memory is short: %d, %v", n, errno)
			}
		})
		got := 0
		for range 2000 {
			settle()
			for _, g := range v.segments() {
				if g.th.Dport == hp.from.Port() && g.th.Seq == hp.ack {
					got += len(g.data)
					hp.ack = hp.ack.Add(len(g.data))
				}
			}
			if got >= size {
				break
			}
			hp.v.inject(hp.seg(wire.ACK, nil).bytes())
			pass(10 * time.Millisecond)
		}
		if got != size {
			t.Errorf("%d bytes of a large write arrived", got)
			v.p.Sock(hfd).Soabort()
		}
		v.inject(hp.seg(wire.ACK, nil).bytes())
		wg.Wait()
	})
}

// A10, F12: data out of order is bounded in bytes and in blocks, for one connection and for all.
func TestMemoryOutOfOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const budget = 16 << 20
		v := budgeted(t, budget)
		defer v.done()
		lfd := v.listen(80, 2000)
		hp, hfd := v.established(lfd, 4000, 80)
		var peers []*peer
		for i := range 600 {
			p, _ := v.established(lfd, uint16(5000+i), 80)
			peers = append(peers, p)
		}
		for i, p := range peers {
			s := p.seg(wire.ACK, []byte("x"))
			for j := range 300 { // every second byte
				s.th.Seq = p.seq.Add(1 + 2*j)
				v.inject(s.bytes())
			}
			v.within(fmt.Sprintf("connection %d", i), budget)
			v.link.count()
		}
		v.honest(hp, hfd)
	})
}

// A11: a stream of single bytes to a user that does not read pins little more than it holds.
func TestMemoryTinySegments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		p, fd := v.established(v.listen(80, 5), 5000, 80)
		_, before := v.k.Pool().Outstanding()
		const n = 60_000
		for i := range n {
			p.send([]byte{streamByte(1, i)})
		}
		v.link.count()
		_, after := v.k.Pool().Outstanding()
		if after-before > 4*n {
			t.Errorf("%d single bytes pin %d", n, after-before)
		}
		readStreamNB(t, v.p, fd, 1, n)
	})
}

// readStreamNB reads what is there and compares.
func readStreamNB(t testing.TB, p *Proc, fd int, seed uint64, size int) {
	t.Helper()
	b := make([]byte, size+1)
	got := 0
	for {
		n, errno := p.Recv(fd, b[got:], 0)
		if errno != 0 {
			break
		}
		got += n
	}
	if got != size {
		t.Fatalf("%d bytes arrived of %d", got, size)
	}
	for i := range got {
		if b[i] != streamByte(seed, i) {
			t.Fatalf("byte %d is wrong", i)
		}
	}
}

// A08: a challenge that is not sent because the limit is reached leaks no memory, and neither does
// any other segment that is refused.
func TestRefusedSegmentsLeakNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		lfd := v.listen(80, 5)
		p, fd := v.established(lfd, 5000, 80)
		q, _ := v.established(lfd, 5001, 80)
		settle()
		m0, b0 := v.k.Pool().Outstanding()
		data := make([]byte, 1000)
		r := seededInts(9)
		for range 30_000 {
			s := p.seg(wire.Flags(r(256)), data[:r(1000)])
			s.th.Seq = tcp.Seq(r(1<<16)<<16 | r(1<<16))
			s.th.Ack = tcp.Seq(r(1<<16)<<16 | r(1<<16))
			if s.th.Seq == p.seq {
				continue
			}
			if n := s.th.Seq.Sub(p.seq); n > 0 && n < 300_000 || n < 0 && n > -2000 {
				continue // that could be data
			}
			v.inject(s.bytes())
		}
		v.link.count()
		if m, b := v.k.Pool().Outstanding(); m != m0 || b != b0 {
			t.Errorf("%d mbufs, %d bytes have leaked", m-m0, b-b0)
		}
		if i, _ := v.p.TCPInfo(fd); i.State != tcp.Established {
			t.Errorf("state %v", i.State)
		}
		// A07: the other connection's challenges have a limit of their own.
		s := q.seg(wire.SYN, nil)
		v.inject(s.bytes())
		if g := v.one(); g.th.Dport != 5001 || g.th.Flags != wire.ACK {
			t.Errorf("answer %+v", g.th)
		}
		p.send([]byte("ok"))
		readN(t, v.p, fd, "ok")
	})
}

func readN(t testing.TB, p *Proc, fd int, want string) {
	t.Helper()
	b := make([]byte, len(want)+1)
	if n, errno := p.Recv(fd, b, 0); errno != 0 || string(b[:n]) != want {
		t.Errorf("recv: %q, %v, want %q", b[:n], errno, want)
	}
}

// Data for which there is no memory is not dropped in silence: while memory is short, the stack
// answers it with an acknowledgment and a window of 0, or, if it is out of order, without changing
// the window. When the reader goes on, the peer learns of it at once, and no data is lost (RFC
// 9293, MUST-36 and MUST-37).
func TestMemoryRefusalIsSaid(t *testing.T) {
	for _, prof := range []func() *tcp.Profile{tcp.Default, tcp.FreeBSD} {
		synctest.Test(t, func(t *testing.T) {
			v := attacked(t, func(c *Config, p *tcp.Profile) {
				*p = *prof()
				p.Recvspace, p.Keepalive = 60_000, false
				c.Memory = 1 << 20
			})
			defer v.done()
			lfd := v.listen(80, 10)
			p, fd := v.established(lfd, 4000, 80)
			data := make([]byte, 1400)
			sent := 0
			next := func(p *peer, want []byte) got {
				t.Helper()
				v.link.fetch()
				v.inject(p.seg(wire.ACK|wire.PUSH, want).bytes())
				pass(100 * time.Millisecond) // a delayed acknowledgment
				l := v.segments()
				if len(l) == 0 {
					t.Fatalf("no answer to data")
				}
				g := l[len(l)-1]
				if g.th.Ack != p.seq && g.th.Ack != p.seq.Add(len(want)) {
					t.Fatalf("acknowledged %d, sent %d", g.th.Ack, p.seq)
				}
				p.seq = g.th.Ack
				return g
			}
			for i := uint16(0); !v.k.pressed(); i++ {
				hoard, _ := v.established(lfd, 4001+i, 80)
				for range 40 {
					next(hoard, data)
				}
			}
			for {
				for i := range data {
					data[i] = streamByte(3, sent+i)
				}
				before := p.seq
				g := next(p, data)
				sent += p.seq.Sub(before)
				if p.seq == before {
					if g.th.Win != 0 {
						t.Fatalf("data is refused, the window is %d", g.th.Win)
					}
					break
				}
				if sent > 1<<20 {
					t.Fatalf("nothing is refused")
				}
			}
			// For an hour the stack repeats this to a peer that asks, and sends nothing else.
			for range 60 {
				pass(time.Minute)
				before := p.seq
				if g := next(p, data); g.th.Win != 0 || p.seq != before {
					t.Fatalf("while memory is short: window %d, %d bytes taken", g.th.Win, p.seq.Sub(before))
				}
			}
			// Data out of order is refused as well, and answered.
			late := p.seg(wire.ACK, data)
			late.th.Seq += 1400
			v.link.fetch()
			v.inject(late.bytes())
			if l := v.segments(); len(l) != 1 || l[0].th.Ack != p.seq {
				t.Fatalf("out of order: %d answers", len(l))
			}
			// Data that has been taken before is not refused, only acknowledged again.
			old := p.seg(wire.ACK, data)
			old.th.Seq -= 1400
			v.inject(old.bytes())
			if l := v.segments(); len(l) != 1 || l[0].th.Ack != p.seq {
				t.Fatalf("come again: %d answers", len(l))
			}
			// The reader goes on, and so does the peer.
			b := make([]byte, 1<<20)
			n, errno := v.p.Recv(fd, b, 0)
			v.no(errno)
			l := v.segments()
			if len(l) != 1 || l[0].th.Ack != p.seq || l[0].th.Win < 1400>>4 {
				t.Fatalf("after reading %d bytes of %d: %d segments, %+v", n, sent, len(l), l)
			}
			got := b[:n]
			for sent < 300_000 {
				for i := range data {
					data[i] = streamByte(3, sent+i)
				}
				before := p.seq
				next(p, data)
				sent += p.seq.Sub(before)
				n, _ := v.p.Recv(fd, b[len(got):], 0)
				got = b[:len(got)+n]
			}
			if len(got) != sent {
				t.Fatalf("%d bytes read of %d", len(got), sent)
			}
			for i, c := range got {
				if c != streamByte(3, i) {
					t.Fatalf("byte %d is wrong", i)
				}
			}
		})
	}
}

// hoarder is a peer that takes ten segments and then keeps its window closed.
func (v *victim) hoarder(lfd, i int) (p *peer, fd int, ok bool) {
	p = v.peer(uint16(5000+i), 80)
	p.from = netip.AddrPortFrom(attFrom(12, 0, byte(i>>8), byte(i)), p.from.Port())
	if !p.dial(wire.Options{Has: wire.TofMSS, MSS: 1460}) {
		return nil, 0, false
	}
	fd, _, errno := v.p.Accept(lfd)
	v.no(errno)
	v.p.Fcntl(fd, F_SETFL, O_NONBLOCK)
	v.p.Send(fd, make([]byte, 300<<10), MSG_DONTWAIT)
	p.win = 0
	p.ack = p.ack.Add(10 * (1500 - attFam.hdr - wire.TCPMinLen))
	v.inject(p.seg(wire.ACK, nil).bytes())
	v.link.fetch()
	return p, fd, true
}

// answerProbes lets d pass, with peers that answer window probes, and take take bytes each time.
func (v *victim) answerProbes(peers []*peer, d time.Duration, take int) {
	by := map[netip.Addr]*peer{}
	for _, p := range peers {
		by[p.from.Addr()] = p
	}
	for end := time.Now().Add(d); time.Now().Before(end); {
		pass(time.Second)
		for _, g := range v.segments() {
			if p := by[g.ip.Dst]; p != nil && len(g.data) > 0 {
				if take > 0 {
					p.ack = g.th.Seq + 1
				}
				v.inject(p.seg(wire.ACK, nil).bytes())
			}
		}
	}
}

// Peers that read nothing may fill the memory, but they do not keep others out: the stack ends
// first the connections that their users have closed, the oldest before the others, and then the
// oldest of the rest, until there is room (CVE-2008-4609).
func TestMemoryHeldByClosedWindows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const budget = 16 << 20
		v := budgeted(t, budget)
		defer v.done()
		lfd := v.listen(80, 1000)
		hp, hfd := v.established(lfd, 4000, 80)
		var peers []*peer
		var fds []int
		for i := range 1000 {
			p, fd, ok := v.hoarder(lfd, i)
			if !ok {
				break
			}
			peers, fds = append(peers, p), append(fds, fd)
			v.within(fmt.Sprintf("hoarder %d", i), budget)
		}
		n := len(peers)
		if n < 20 || !v.k.pressed() {
			t.Fatalf("%d hoarders, and the memory is not short", n)
		}
		v.answerProbes(peers, 10*time.Second, 0)
		closed := []int{n - 1, n - 3}
		for _, i := range closed {
			v.no(v.p.Close(fds[i]))
		}
		gone := func(i int) bool {
			for _, c := range v.k.Pcblist() {
				if c.Remote == peers[i].from && c.State != tcp.Closed {
					return false
				}
			}
			return true
		}
		if !v.peer(3000, 80).dial(wire.Options{}) {
			t.Fatalf("an honest peer is kept out")
		}
		if !gone(n-1) || !gone(n-3) {
			t.Errorf("an orphan with a closed window is still there")
		}
		ended := 0
		for i := range n {
			if gone(i) && i != n-1 && i != n-3 {
				ended++
				if i > 0 && !gone(i-1) {
					t.Errorf("connection %d was ended before %d", i, i-1)
				}
			}
		}
		if ended == 0 || ended > n/2 {
			t.Errorf("%d of %d connections were ended", ended, n)
		}
		if _, errno := v.p.Send(fds[0], []byte("x"), MSG_DONTWAIT); errno != syscall.ENOBUFS {
			t.Errorf("the user of a connection that was ended sees %v", errno)
		}
		if i, _ := v.p.TCPInfo(hfd); i.State != tcp.Established {
			t.Errorf("a connection without a closed window was ended")
		}
		v.link.fetch()
		v.honest(hp, hfd)
		if v.k.Stats.TCP.Draindrop.Load() != uint64(ended+2) {
			t.Errorf("%d are counted, %d were ended", v.k.Stats.TCP.Draindrop.Load(), ended+2)
		}
		// A dialer of this stack and a writer make room as well.
		v.answerProbes(peers, 10*time.Second, 0)
		if fd, errno := v.p.Socket(attFam.domain, SOCK_STREAM, 0); errno != 0 {
			t.Errorf("socket: %v", errno)
		} else {
			v.p.Close(fd)
		}
	})
}

// Two closed connections whose peers take a byte for each probe end after a while.
func TestOrphanTakesBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := budgeted(t, 16<<20)
		defer v.done()
		lfd := v.listen(80, 1000)
		var peers []*peer
		for i := range 2 {
			p, fd, _ := v.hoarder(lfd, i)
			v.no(v.p.Close(fd))
			peers = append(peers, p)
		}
		v.answerProbes(peers, 5*time.Minute, 1)
		if n := len(v.k.sockets.all()); n != 1 {
			t.Errorf("%d sockets are left besides the listener", n-1)
		}
	})
}

// The limit counts all memory that is used: if segments have a byte each, most of it holds the
// segments, not their data.
func TestMemoryCountsHeap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := budgeted(t, 1<<30)
		defer v.done()
		lfd := v.listen(80, 1000)
		var peers []*peer
		for i := range 200 {
			p, _ := v.established(lfd, uint16(5000+i), 80)
			peers = append(peers, p)
		}
		v.link.quiet = true
		heap := func() int64 {
			var m runtime.MemStats
			runtime.GC()
			runtime.GC()
			runtime.ReadMemStats(&m)
			return int64(m.HeapAlloc)
		}
		h0, u0 := heap(), v.k.Pool().Used()
		for j := range 170 {
			for _, p := range peers {
				s := p.seg(wire.ACK, []byte{1})
				s.th.Seq = p.seq.Add(2 + 2*j)
				v.inject(s.bytes())
			}
		}
		h1, u1 := heap(), v.k.Pool().Used()
		if h, u := h1-h0, u1-u0; h > u+u/10 {
			t.Errorf("the heap has grown by %d bytes, %d are counted", h, u)
		}
	})
}
