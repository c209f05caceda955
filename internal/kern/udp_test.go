package kern

import (
	"io"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// A udpStack is a stack with a loopback, for tests of UDP.
func udpStack(t testing.TB) *Kernel {
	t.Helper()
	k, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		k.Close()
		if m, n := k.Pool().Outstanding(); m != 0 || n != 0 {
			t.Errorf("%d mbufs and %d bytes of clusters are left", m, n)
		}
	})
	return k
}

// udpSocket makes a socket, which is bound to an address if it is not empty.
func udpSocket(t testing.TB, k *Kernel, addr string) *Socket {
	t.Helper()
	domain := AF_INET
	if addr != "" && ap(addr).Addr().Is6() {
		domain = AF_INET6
	}
	so, errno := k.Socreate(domain, SOCK_DGRAM, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	if addr != "" {
		if errno := so.Sobind(ap(addr)); errno != 0 {
			t.Fatalf("bind to %s: %v", addr, errno)
		}
	}
	return so
}

// TestUDPPoll: a socket is readable while a datagram or an error waits, and writable while its
// share of the interface's queue is not used up.
func TestUDPPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		v.link.take = func(int) int { return 0 }
		fd, _ := v.p.Socket(AF_INET, SOCK_DGRAM, 0)
		v.p.Fcntl(fd, F_SETFL, O_NONBLOCK)
		v.no(v.p.Bind(fd, udpTo))
		v.no(v.p.Connect(fd, udpFrom))
		want := func(what string, readable, writable bool) {
			t.Helper()
			if r, w, errno := v.p.Poll(fd); r != readable || w != writable || errno != 0 {
				t.Errorf("%s: readable %v, writable %v, %v", what, r, w, errno)
			}
		}
		want("at first", false, true)
		v.inject(udpPacket(udpFrom, udpTo, nil))
		want("an empty datagram", true, true)
		v.p.Recv(fd, nil, 0)
		want("read", false, true)
		v.inject(udpError(udpTo, udpFrom, wire.ICMP{Type: wire.ICMPUnreach, Code: wire.ICMPUnreachPort}, nil))
		want("an error", true, true)
		v.p.Recv(fd, nil, 0)
		for {
			if _, errno := v.p.Send(fd, make([]byte, 1000), 0); errno != 0 {
				break
			}
		}
		want("a full queue", false, false)
		if _, _, _, errno := v.p.Recvfrom(99, nil, 0); errno != syscall.EBADF {
			t.Errorf("no descriptor: %v", errno)
		}
		tcp, _ := v.p.Socket(AF_INET, SOCK_STREAM, 0)
		if _, _, _, errno := v.p.Recvfrom(tcp, nil, 0); errno != syscall.EOPNOTSUPP {
			t.Errorf("a stream: %v", errno)
		}
		v.p.Close(tcp)
		v.p.Close(fd)
	})
}

// Two sockets over the loopback send each other datagrams of all sizes.
func TestUDPLoopback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := udpStack(t)
		a, b := udpSocket(t, k, "127.0.0.1:7"), udpSocket(t, k, "")
		if errno := b.Soconnect(ap("127.0.0.1:7")); errno != 0 {
			t.Fatal(errno)
		}
		for _, n := range []int{0, 1, 64, 88, 89, 512, 1472, 2000, 2001, 9000, udpMaxLen4} {
			msg := make([]byte, n)
			for i := range msg {
				msg[i] = byte(i * n)
			}
			if got, errno := b.Sosendto(msg, netip.AddrPort{}); got != n || errno != 0 {
				t.Fatalf("send of %d: %d, %v", n, got, errno)
			}
			buf := make([]byte, n+1)
			got, from, flags, errno := a.Soreceivefrom(buf)
			if got != n || from != b.Laddr() || flags != 0 || errno != 0 || string(buf[:got]) != string(msg) {
				t.Fatalf("received %d of %d from %v (%v), flags %#x, %v", got, n, from, b.Laddr(), flags, errno)
			}
			if _, errno := a.Sosendto(msg, from); errno != 0 {
				t.Fatal(errno)
			}
			if got, errno := b.Soreceive(buf, 0); got != n || errno != 0 {
				t.Fatalf("echo of %d: %d, %v", n, got, errno)
			}
		}
		if _, errno := b.Sosendto(make([]byte, udpMaxLen4+1), netip.AddrPort{}); errno != syscall.EMSGSIZE {
			t.Errorf("%d bytes: %v", udpMaxLen4+1, errno)
		}
		deadline := time.Now().Add(time.Second)
		a.SetDeadlines(&deadline, nil)
		if _, _, _, errno := a.Soreceivefrom(nil); errno != syscall.EAGAIN || time.Now() != deadline {
			t.Errorf("at the deadline: %v, %v late", errno, time.Since(deadline))
		}
		a.SetDeadlines(&time.Time{}, nil)
		go func() { time.Sleep(time.Second); a.Soclose() }()
		if _, _, _, errno := a.Soreceivefrom(nil); errno != syscall.EBADF {
			t.Errorf("closed: %v", errno)
		}
		if _, errno := b.Sosendto(nil, netip.AddrPort{}); errno != 0 {
			t.Error(errno)
		}
		if _, errno := b.Sosendto(nil, netip.AddrPort{}); errno != syscall.ECONNREFUSED {
			t.Errorf("to a closed port: %v", errno)
		}
		b.Soclose()
	})
}

// TestUDPOrder: a datagram that takes the short way does not overtake one that still goes through
// the interface's queue, as those do that a capture sees.
func TestUDPOrder(t *testing.T) {
	k := udpStack(t)
	lo := k.Lo0()
	a, b := udpSocket(t, k, "127.0.0.1:7"), udpSocket(t, k, "")
	defer a.Soclose()
	defer b.Soclose()
	a.Setnbio(true)
	if errno := b.Soconnect(ap("127.0.0.1:7")); errno != 0 {
		t.Fatal(errno)
	}
	b.Sosendto([]byte("0"), netip.AddrPort{})
	// A drainer has the queue, and has not come to the first datagram yet.
	q := &lo.queues[b.dg.route.flow&(loQueues-1)]
	stop, err := lo.Capture(io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if !q.hold() {
		t.Fatal("somebody drains the queue")
	}
	b.Sosendto([]byte("1"), netip.AddrPort{})
	stop()
	b.Sosendto([]byte("2"), netip.AddrPort{})
	q.run(drainBudget)
	b.Sosendto([]byte("3"), netip.AddrPort{})
	if got := udpGot(a); !slices.Equal(got, []string{"0", "1", "2", "3"}) {
		t.Errorf("received %q", got)
	}
}

// TestUDPPeerChanges: what a sender has kept of the socket that it sends to holds no longer when
// another socket is the better one, even if that changes while a datagram is on its way.
func TestUDPPeerChanges(t *testing.T) {
	k := udpStack(t)
	b := udpSocket(t, k, "")
	to := ap("127.0.0.1:7")
	bound := func(addr string) *Socket {
		so := udpSocket(t, k, "")
		so.Setnbio(true)
		so.Sosetopt(SOL_SOCKET, int(SO_REUSEADDR), 1)
		if errno := so.Sobind(ap(addr)); errno != 0 {
			t.Fatal(errno)
		}
		return so
	}
	wild := bound("0.0.0.0:7")
	send := func(want *Socket) {
		t.Helper()
		if _, errno := b.Sosendto([]byte("x"), to); errno != 0 {
			t.Fatal(errno)
		}
		if got := udpGot(want); len(got) != 1 {
			t.Errorf("received %q", got)
		}
	}
	send(wild)
	special := bound("127.0.0.1:7")
	send(special)
	connected := bound("127.0.0.1:7")
	send(connected) // the last one
	if errno := connected.Soconnect(ap("127.0.0.1:9")); errno != 0 {
		t.Fatal(errno)
	}
	send(special)
	if errno := connected.Soconnect(netip.AddrPortFrom(to.Addr(), b.Laddr().Port())); errno != 0 {
		t.Fatal(errno)
	}
	send(connected)
	connected.Soclose()
	send(special)
	// The socket is closed while the datagram is on its way, or gets a peer.
	for _, change := range []func(){
		func() { special.Soclose() },
		func() { wild.Soconnect(ap("127.0.0.1:9")) },
	} {
		b.lock()
		m := k.pool.Getpkt(1)
		m.Pkt.Len = m.Append([]byte("x"))
		if errno := b.dgsend(m, to, 0); errno != 0 {
			t.Fatal(errno)
		}
		q, peer, gen := b.dg.local, b.dg.lpeer, b.dg.lgen
		b.dg.local = mbuf.Queue{}
		b.unlock()
		change()
		k.udpDeliver(&q, peer, gen)
		if peer == special {
			if got := udpGot(wild); len(got) != 1 {
				t.Errorf("when the socket was closed, the other received %q", got)
			}
		} else if got := udpGot(wild); len(got) != 0 {
			t.Errorf("a socket with another peer received %q", got)
		}
	}
	wild.Soclose()
	b.Soclose()
}

// TestUDPTwoPeersWait tests that each of two datagrams that wait together reaches its own socket.
func TestUDPTwoPeersWait(t *testing.T) {
	k := udpStack(t)
	b := udpSocket(t, k, "127.0.0.1:0")
	var peers []*Socket
	for _, addr := range []string{"127.0.0.1:7", "127.0.0.1:8"} {
		peers = append(peers, udpSocket(t, k, addr))
	}
	b.lock()
	for _, peer := range peers {
		m := k.pool.Getpkt(1)
		m.Pkt.Len = m.Append([]byte("x"))
		if errno := b.dgsend(m, peer.Laddr(), 0); errno != 0 {
			t.Fatal(errno)
		}
	}
	b.dgunlock()
	for _, peer := range append(peers, b) {
		peer.Setnbio(true)
		if got := udpGot(peer); len(got) != 1 && peer != b {
			t.Errorf("port %d has received %q", peer.Laddr().Port(), got)
		}
		peer.Soclose()
	}
}

// TestUDPPeerChangesInBatch tests that a socket that is closed between two datagrams of one call,
// or makes place for another, gets none of them, and that the other gets them.
func TestUDPPeerChangesInBatch(t *testing.T) {
	for i := range 4 {
		other, to, from := i%2 == 1, "127.0.0.1:7", "127.0.0.1:0"
		if i >= 2 {
			to, from = "[::1]:7", "[::1]:0"
		}
		k := udpStack(t)
		a, b := udpSocket(t, k, to), udpSocket(t, k, from)
		b.lock()
		for _, data := range []string{"1", "2", "3"} {
			m := k.pool.Getpkt(1)
			m.Pkt.Len = m.Append([]byte(data))
			if errno := b.dgsend(m, ap(to), 0); errno != 0 {
				t.Fatal(errno)
			}
			if data == "2" {
				a.Soclose()
				if other {
					a = udpSocket(t, k, to)
					a.Setnbio(true)
				}
			}
		}
		b.dgunlock()
		if !other {
			if n := k.Stats.UDP.Noport.Load(); n != 3 {
				t.Errorf("%d of 3 datagrams were for a port without a socket", n)
			}
		} else if got := udpGot(a); len(got) != 3 {
			t.Errorf("the new socket has received %q", got)
		}
		a.Soclose()
		b.Soclose()
	}
}

// TestUDPNobodyReads: what is sent over the loopback to a socket that nobody reads is counted,
// whether it is dropped before or after it has been copied, and errors are still returned.
func TestUDPNobodyReads(t *testing.T) {
	k := udpStack(t)
	for _, size := range []int{10, 1200, udpMaxLen4} {
		a, b := udpSocket(t, k, "127.0.0.1:7"), udpSocket(t, k, "")
		a.Setnbio(true)
		before := k.Stats.UDP.Fullsock.Load()
		const n = 2000
		for range n {
			if got, errno := b.Sosendto(make([]byte, size), ap("127.0.0.1:7")); got != size || errno != 0 {
				t.Fatal(got, errno)
			}
		}
		drops := int(a.Dgram().Drops)
		if got := len(udpGot(a)); got+drops != n || got == 0 || int(k.Stats.UDP.Fullsock.Load()-before) != drops {
			t.Errorf("%d bytes: %d received, %d dropped", size, got, drops)
		}
		for range n {
			b.Sosendto(make([]byte, size), ap("127.0.0.1:7"))
		}
		b.Soshutdown(SHUT_WR)
		if _, errno := b.Sosendto(make([]byte, size), ap("127.0.0.1:7")); errno != syscall.EPIPE {
			t.Errorf("shut down: %v", errno)
		}
		b.Soclose()
		if _, errno := b.Sosendto(make([]byte, size), ap("127.0.0.1:7")); errno != syscall.EBADF {
			t.Errorf("closed: %v", errno)
		}
		a.Soclose()
	}
}
