package udptunnel

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"bsdnet/internal/link/ends"
)

// until waits until a tunnel has the wanted status. The time limit is for a test that fails.
func until(t *testing.T, l *Link, what string, ok func(s Status) bool) Status {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; runtime.Gosched() {
		s := l.Status()
		if ok(s) {
			return s
		}
		if time.Now().After(end) {
			t.Fatalf("the status is never %s: %+v", what, s)
		}
	}
}

// says checks that an error's text contains all of want.
func says(t *testing.T, err error, want ...string) {
	t.Helper()
	for _, w := range want {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("%v; want %q", err, w)
		}
	}
}

// freePort returns an address of the loopback whose port no socket has.
func freePort(t *testing.T) string {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().String()
}

// startReading starts a link and reads from it.
func startReading(t *testing.T, l *Link) *ends.End {
	e := ends.Start(t, l)
	done := make(chan bool)
	go func() {
		defer close(done)
		for b := make([]byte, 2000); ; {
			if _, err := l.Read([][]byte{b}, []int{0}); err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return e
}

func established(s Status) bool { return s.Established && s.Err == nil }

// If no socket has the peer's port, the Status says so. The end keeps trying, and the Status
// changes when the peer comes.
func TestStatusRefused(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the system does not pass ICMP on")
	}
	for _, c := range []struct{ local, peer string }{
		{"127.0.0.1:0", "127.0.0.1:0"}, {":0", "127.0.0.1:0"}, {"[::1]:0", "[::1]:0"}, {":0", "[::1]:0"},
	} {
		t.Run(c.local+" to "+c.peer, func(t *testing.T) {
			t.Parallel() // each waits for a second
			testStatusRefused(t, c.local, c.peer)
		})
	}
}

func testStatusRefused(t *testing.T, local, peer string) {
	free, err := net.ListenPacket("udp", peer)
	if err != nil {
		t.Skip("no IPv6: ", err)
	}
	at := free.LocalAddr().String()
	free.Close()
	x := mustOpen(t, Config{Local: local, Peer: at})
	if s := x.Status(); s.Err != nil || s.Established || s.Unanswered != 0 || s.Peer.String() != at {
		t.Errorf("before the start: %+v", s)
	}
	startReading(t, x)
	s := until(t, x, "refused", func(s Status) bool { return errors.Is(s.Err, syscall.ECONNREFUSED) })
	says(t, s.Err, "udptunnel: no answer from "+at+": connection refused")
	if s.SocketErr != syscall.ECONNREFUSED || s.SocketErrTime.Before(x.epoch) ||
		s.Established || !s.LastHeard.IsZero() || !s.LastHandshake.IsZero() {
		t.Errorf("%+v", s)
	}
	y := mustOpen(t, Config{Local: at})
	startReading(t, y)
	for _, l := range []*Link{x, y} {
		s := until(t, l, "established", established)
		if s.Since.Before(l.epoch) || s.LastHandshake.Before(s.Since) || s.LastHeard.Before(s.LastHandshake) ||
			s.Unanswered != 0 || s.Unverified != 0 {
			t.Errorf("%+v", s)
		}
	}
	if s := x.Status(); s.SocketErr == nil {
		t.Error("the last error of the socket is forgotten")
	}
	x.Close()
	if s := x.Status(); s.Err != net.ErrClosed {
		t.Errorf("closed: %+v", s)
	}
}

// A tunnel's Read does not end however often the port is refused, and a datagram to another address
// is not lost.
func TestRefusalsDoNoHarm(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the system does not pass ICMP on")
	}
	closed := netip.MustParseAddrPort(freePort(t))
	x := mustOpen(t, Config{Insecure: true, Peer: closed.String()}) // is not started: nobody else reads
	for range 3 * maxReadErrors {
		if _, err := x.sock.send([]byte("lost"), 4, closed); err != nil {
			t.Fatal(err)
		}
		x.rmu.Lock()
		err := x.fill()
		x.rmu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
	}
	says(t, x.Status().Err, "udptunnel: nothing is heard from "+closed.String()+": connection refused")
	open := mustOpen(t, Config{Insecure: true, Peer: x.LocalAddr().String()})
	for range 100 {
		for _, to := range []netip.AddrPort{closed, open.LocalAddr()} {
			if n, err := x.sock.send([]byte("oneothertwo"), 4, to); n != 3 || err != nil {
				t.Fatal(n, err)
			}
		}
		for n := 0; n < 11; n += open.rx.end {
			open.rmu.Lock()
			err := open.fill()
			open.rmu.Unlock()
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// If two ends have different keys, the one that listens reports the datagrams that it gets, and the
// one that calls reports that it gets none. If both call, both report the datagrams.
func TestStatusWrongKey(t *testing.T) {
	other := bytes.Repeat([]byte("KEY?"), 8)
	y := mustOpen(t, Config{Key: other})
	x := mustOpen(t, Config{Peer: y.LocalAddr().String()})
	startReading(t, y)
	says(t, y.Status().Err, "nobody who has the key has called at "+y.LocalAddr().String())
	startReading(t, x)
	s := until(t, y, "unverified", func(s Status) bool { return s.Unverified > 0 })
	says(t, s.Err, "nobody who has the key has called", "did not verify", "the other end has a different key")
	if s.Peer.IsValid() || s.Established || !s.LastHeard.IsZero() {
		t.Errorf("%+v", s)
	}
	s = x.Status()
	says(t, s.Err, "no answer from "+y.LocalAddr().String()+" to ", "the other end has a different key")
	if s.SocketErr != nil || s.Unanswered == 0 {
		t.Errorf("%+v", s)
	}
	z := mustOpen(t, Config{Key: other, Peer: x.LocalAddr().String()})
	startReading(t, z)
	s = until(t, x, "unverified", func(s Status) bool { return s.Unverified > 0 })
	says(t, s.Err, "no answer from "+y.LocalAddr().String(), "did not verify", "the other end has a different key")
}

// A datagram of another protocol is reported differently from a wrong key.
func TestStatusOtherProtocol(t *testing.T) {
	y := mustOpen(t, Config{})
	x := mustOpen(t, Config{Insecure: true, Peer: y.LocalAddr().String()})
	startReading(t, y)
	a := startReading(t, x)
	if err := a.Send(lists(ends.Packet(1, 0, 100))...); err != nil {
		t.Fatal(err)
	}
	s := until(t, y, "unverified", func(s Status) bool { return s.Unverified > 0 })
	says(t, s.Err, "1 datagram did not belong to this protocol")
}

// In plain mode there is no handshake. When packets arrive, an older error is no longer reported.
func TestStatusPlain(t *testing.T) {
	x, y := plainPair(t, 1280)
	a, b := ends.Start(t, x), ends.Start(t, y)
	x.note(syscall.ENETUNREACH)
	says(t, x.Status().Err, "udptunnel: nothing is heard from "+y.LocalAddr().String()+": network is unreachable")
	if err := b.Send(lists(ends.Packet(1, 0, 100))...); err != nil {
		t.Fatal(err)
	}
	a.Receive(t, 1)
	if s := x.Status(); s.Err != nil || s.SocketErr != syscall.ENETUNREACH || s.Established || s.Peer != y.LocalAddr() {
		t.Errorf("%+v", s)
	}
	x.noteICMP(syscall.ECONNREFUSED, udp(netip.MustParseAddrPort("192.0.2.1:9")))
	if s := x.Status(); s.SocketErr != syscall.ENETUNREACH {
		t.Errorf("an error of somebody else's: %+v", s)
	}
	x.noteICMP(syscall.ECONNREFUSED, udp(y.LocalAddr()))
	if s := x.Status(); s.SocketErr != syscall.ECONNREFUSED {
		t.Errorf("%+v", s)
	}
}

var statusLocal = udp(netip.MustParseAddrPort("192.0.2.1:2"))

// A peer that goes away is reported differently from one that never was there. A slow rekey is no
// trouble, and neither is silence when there is nothing to send.
func TestStatusVanished(t *testing.T) {
	for _, byCaller := range []bool{false, true} {
		s := newSim(t)
		a, b := s.pair()
		s.connect(a, b)
		from := s.now
		stay, leave := a, b
		if byCaller {
			stay, leave = b, a
		}
		for range 250 { // past a rekey
			s.run(second)
			s.exchange(stay, leave)
			if err := stay.complaint(statusLocal, nil); err != nil {
				t.Fatalf("at work: %v", err)
			}
		}
		if up := stay.upSince; up > from {
			t.Errorf("a session since %d s before now, want %d", (s.now-up)/second, (s.now-from)/second)
		}
		s.remove(leave)
		for i := range 300 {
			s.write(stay, "anybody?")
			s.run(second)
			err := stay.complaint(statusLocal, nil)
			if i < 8 && err != nil {
				t.Fatalf("after %d s: %v", i, err)
			}
			if i > 14 {
				says(t, err, "no answer from "+leave.addr.String()+" for ",
					"there was a session before: the other end is gone")
				err = stay.complaint(statusLocal, syscall.ECONNREFUSED)
				says(t, err, "no answer from "+leave.addr.String(), "connection refused")
				if !errors.Is(err, syscall.ECONNREFUSED) {
					t.Errorf("%v is not what it wraps", err)
				}
			}
			if t.Failed() {
				t.Fatalf("after %d s", i)
			}
		}
		s.ends = append(s.ends, leave)
		s.run(second * 3)
		s.exchange(stay, leave)
		if err := stay.complaint(statusLocal, nil); err != nil {
			t.Errorf("back again: %v", err)
		}
		s.run(1000 * second)
		stay.advance(s.now)
		if err := stay.complaint(statusLocal, nil); err != nil || stay.cur != nil {
			t.Errorf("idle: %v", err)
		}
	}
}

// The peer's answers arrive, but this end's CONFIRMs are lost.
func TestStatusHalfOpen(t *testing.T) {
	s := newSim(t)
	a, b := s.pair()
	s.lose = func(d simDatagram) bool { return d.src == a.addr && d.b[0] != kindHello }
	for range 20 {
		s.write(a, "hello?")
		s.run(second)
	}
	says(t, a.complaint(statusLocal, nil), b.addr.String()+" answers, but does not receive what this end sends next")
	s.lose = nil
	s.run(3 * second)
	s.exchange(a, b)
	if err := a.complaint(statusLocal, nil); err != nil {
		t.Error(err)
	}
}

// told is the status without the counters that anyone can change.
func (e *simEnd) told() [5]int64 {
	return [...]int64{e.upSince, e.shook, e.heard, int64(e.asked), e.askedAt}
}

// An attacker without the key, which has recorded all datagrams and makes up others, changes
// counters and nothing else.
func TestStatusUnderAttack(t *testing.T) {
	const seed = 7
	rnd := rand.New(rand.NewPCG(seed, seed))
	s := newSim(t)
	a, b := s.pair()
	s.connect(a, b)
	recorded := append([]simDatagram(nil), s.log...)
	s.now += 30 * second
	s.held = true
	evil := simAddr(666)
	for _, e := range []*simEnd{a, b} {
		before := e.told()
		for range 3000 {
			d := bytes.Clone(recorded[rnd.IntN(len(recorded))].b)
			src := [...]endpoint{evil, a.addr, b.addr}[rnd.IntN(3)]
			switch rnd.IntN(3) {
			case 0:
				d[rnd.IntN(len(d))] ^= byte(1 + rnd.IntN(255))
			case 1:
				for i := range d {
					d[i] = byte(rnd.Uint32())
				}
			}
			s.arrive(e, d, src)
		}
		if after := e.told(); after != before {
			t.Errorf("seed %d: %s: %v, was %v", seed, e.name, after, before)
		}
		if err := e.complaint(statusLocal, nil); err != nil {
			t.Errorf("seed %d: %s: %v", seed, e.name, err)
		}
		if e.forged == 0 || e.strange == 0 {
			t.Errorf("seed %d: %s: %d forged and %d strange datagrams", seed, e.name, e.forged, e.strange)
		}
	}
}

// The handshake of a rekey is lost again and again while packets arrive on the old session: there
// is nothing to complain about.
func TestStatusRekeyLost(t *testing.T) {
	s := newSim(t)
	a, b := s.pair()
	s.connect(a, b)
	s.lose = func(d simDatagram) bool { return d.b[0] != kindData }
	for range 150 {
		s.run(second)
		s.exchange(a, b)
		for _, e := range []*simEnd{a, b} {
			if err := e.complaint(statusLocal, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	if a.asked < 10 {
		t.Errorf("%d handshakes were begun", a.asked)
	}
}
