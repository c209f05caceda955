//go:build linux

package interop

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"bsdnet"
	"bsdnet/udptunnel"
)

// floodRate is the number of bad datagrams a second. Each end of the tunnel gets half of them.
const floodRate = 10_000

// Downloads go through a tunnel, with and without a flood of datagrams that an attacker makes from
// those that it sees. None of the flood gets in. The test only logs the cost of the flood, because
// the machine may have other work.
func TestUDPTunnelFlood(t *testing.T) {
	const mtu = 1440 // as on the internet, not as on the loopback
	config := udptunnel.Config{Local: "127.0.0.1:0", MTU: mtu, Key: bytes.Repeat([]byte("flooding"), 4)}
	server, err := udptunnel.Open(config)
	if err != nil {
		t.Fatal(err)
	}
	a := newAttacker(t, server.LocalAddr())
	config.Peer = a.front.LocalAddr().String()
	client, err := udptunnel.Open(config)
	if err != nil {
		server.Close()
		t.Fatal(err)
	}
	a.ports = [2]netip.AddrPort{server.LocalAddr(), client.LocalAddr()}
	down, up := newLedger(), newLedger()
	s1, s2 := newStack(t, bsdnet.Config{}), newStack(t, bsdnet.Config{})
	for i, s := range []*bsdnet.Stack{s1, s2} {
		l := &ledgerLink{server, down, up}
		if i == 1 {
			l = &ledgerLink{client, up, down}
		}
		if err := s.Attach(l, netip.MustParsePrefix(fmt.Sprintf("10.0.0.%d/24", i+1))); err != nil {
			t.Fatal(err)
		}
	}
	ln, err := s1.Listen("tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	hs := &http.Server{Handler: handler()}
	go hs.Serve(ln)
	t.Cleanup(func() { hs.Close() })
	tr := s2.HTTPTransport()
	t.Cleanup(tr.CloseIdleConnections)
	c := &http.Client{Transport: tr, Timeout: limit}

	n := size(8<<20, 128<<20)
	want := sumOf(7, n)
	get := func() time.Duration {
		start := time.Now()
		resp, err := c.Get(fmt.Sprintf("http://10.0.0.1/stream?n=%d", n))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		s := newSummer()
		if _, err := io.Copy(s, resp.Body); err != nil || s.sum() != want {
			t.Fatalf("%v, %v; want %v", s.sum(), err, want)
		}
		return time.Since(start)
	}
	get()
	var quiet, flooded time.Duration
	rounds := 0
	for end := int64(size(4000, 100_000)); a.sent.Load() < end; rounds++ {
		quiet += get()
		stop := a.flood(t)
		flooded += get()
		stop()
	}
	rate := func(d time.Duration) float64 { return float64(rounds*n) * 8 / d.Seconds() / 1e6 }
	t.Logf("%d downloads of %d bytes: %.0f Mbit/s; with %d bad datagrams, %.0f a second: %.0f Mbit/s",
		rounds, n, rate(quiet), a.sent.Load(),
		float64(a.sent.Load())/flooded.Seconds(), rate(flooded))

	for _, l := range []*ledger{down, up} {
		if l.strangers.Load() > 0 {
			t.Errorf("%d packets come out that did not go in", l.strangers.Load())
		}
	}
	// A datagram may be received before its sender has returned from the system call and counted
	// it.
	var sv, cl udptunnel.Stats
	await(t, "the senders have counted all received datagrams", func() bool {
		got := client.Stats().Received
		sv = server.Stats()
		cl = client.Stats()
		return got <= sv.Sent && sv.Received <= cl.Sent
	})
	for _, st := range []udptunnel.Stats{sv, cl} {
		if st.Roams > 0 || st.Malformed == 0 || st.Unknown == 0 || st.Forged == 0 || st.Replayed == 0 {
			t.Errorf("%+v", st)
		}
	}
}

// An attacker is the network between the two ends. It passes their datagrams on, all that have
// arrived in one call, and keeps some of them.
type attacker struct {
	front, back *net.UDPConn      // towards the client, and towards the server
	other       *net.UDPConn      // a port that does not belong to the tunnel
	ports       [2]netip.AddrPort // of the server and of the client
	sent        atomic.Int64

	mu   sync.Mutex
	kept [2][64][]byte // datagrams on the way to the server, and to the client
	keep [2][4][]byte  // one message of each kind of the handshake
	rnd  *rand.Rand
}

func newAttacker(t *testing.T, server netip.AddrPort) *attacker {
	a := &attacker{rnd: rand.New(rand.NewPCG(1, 2))}
	for _, c := range []**net.UDPConn{&a.front, &a.back, &a.other} {
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		raw, err := conn.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_GRO, 1) })
		conn.SetReadBuffer(7 << 20)
		*c = conn
	}
	var wg sync.WaitGroup
	var client atomic.Pointer[netip.AddrPort]
	wg.Go(func() {
		a.pass(0, a.front, a.back, func(src netip.AddrPort) netip.AddrPort { client.Store(&src); return server })
	})
	wg.Go(func() { a.pass(1, a.back, a.front, func(netip.AddrPort) netip.AddrPort { return *client.Load() }) })
	t.Cleanup(func() {
		for _, c := range []*net.UDPConn{a.front, a.back, a.other} {
			c.Close()
		}
		wg.Wait()
	})
	return a
}

// pass passes on the datagrams in one direction.
func (a *attacker) pass(way int, in, out *net.UDPConn, to func(src netip.AddrPort) netip.AddrPort) {
	buf, oob := make([]byte, 64<<10), make([]byte, 128)
	cut := make([]byte, unix.CmsgSpace(2))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&cut[0]))
	h.Level, h.Type = unix.SOL_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	for {
		n, oobn, _, src, err := in.ReadMsgUDPAddrPort(buf, oob)
		if err != nil {
			return
		}
		if n == 0 {
			continue
		}
		each := n
		m, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err == nil && len(m) == 1 && m[0].Header.Type == unix.UDP_GRO {
			each = int(binary.NativeEndian.Uint32(m[0].Data))
		}
		var control []byte
		if each < n {
			binary.NativeEndian.PutUint16(cut[unix.CmsgLen(0):], uint16(each))
			control = cut
		}
		out.WriteMsgUDPAddrPort(buf[:n], control, to(src))
		a.note(way, buf[:min(each, n)])
	}
}

// note keeps a copy of a datagram that has been passed on.
func (a *attacker) note(way int, b []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if kind := b[0]; kind < 4 {
		a.keep[way][kind] = bytes.Clone(b)
		return
	}
	slot := &a.kept[way][a.rnd.IntN(len(a.kept[way]))]
	*slot = append((*slot)[:0], b...)
}

// flood sends bad datagrams at floodRate until it is stopped.
func (a *attacker) flood(t *testing.T) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 64<<10)
		start, n := time.Now(), 0
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			for due := int(time.Since(start).Seconds() * floodRate); n < due; {
				b, from := a.bad(n%2, buf)
				if len(b) == 0 {
					continue // no datagram of this kind has passed yet
				}
				if _, err := from.WriteToUDPAddrPort(b, a.ports[n%2]); err != nil {
					t.Errorf("flooding: %v", err)
					return
				}
				a.sent.Add(1)
				n++
			}
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

// bad makes a bad datagram for one direction in buf, and returns it with the socket to send it
// from.
func (a *attacker) bad(way int, buf []byte) ([]byte, *net.UDPConn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.rnd
	right := a.back
	if way == 1 {
		right = a.front
	}
	from := []*net.UDPConn{right, a.other}[r.IntN(2)]
	data := a.kept[way][r.IntN(len(a.kept[way]))]
	if r.IntN(4) == 0 {
		data = a.keep[r.IntN(2)][1+r.IntN(3)] // a message of a handshake, also of the other direction
	}
	b := append(buf[:0], data...)
	if len(b) == 0 {
		return nil, nil
	}
	switch r.IntN(6) {
	case 0: // with one bit changed
		b[r.IntN(len(b))] ^= 1 << r.IntN(8)
	case 1: // with a later counter
		if b[0] == 4 {
			binary.LittleEndian.PutUint64(b[8:], binary.LittleEndian.Uint64(b[8:])+uint64(1+r.IntN(100_000)))
		} else {
			b[len(b)-1] ^= 1
		}
	case 2: // with a random session
		binary.LittleEndian.PutUint32(b[4:], r.Uint32())
	case 3: // shorter
		b = b[:1+r.IntN(len(b)-1)]
	case 4: // longer
		b = append(b, byte(r.Uint32()))
	case 5: // repeated; data comes from its own port, so that the original arrives first
		if b[0] == 4 {
			from = right
		}
	}
	return b, from
}

// A ledger has the packets that are under way.
type ledger struct {
	seed      maphash.Seed
	mu        sync.Mutex
	sent      map[uint64]int
	strangers atomic.Int64
}

func newLedger() *ledger { return &ledger{seed: maphash.MakeSeed(), sent: map[uint64]int{}} }

// in enters a packet.
func (l *ledger) in(p net.Buffers) {
	var h maphash.Hash
	h.SetSeed(l.seed)
	for _, b := range p {
		h.Write(b)
	}
	l.mu.Lock()
	l.sent[h.Sum64()]++
	l.mu.Unlock()
}

// out removes a packet, and counts it if the ledger does not have it.
func (l *ledger) out(p []byte) {
	sum := maphash.Bytes(l.seed, p)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch n := l.sent[sum]; n {
	case 0:
		l.strangers.Add(1)
	case 1:
		delete(l.sent, sum)
	default:
		l.sent[sum] = n - 1
	}
}

// A ledgerLink enters the packets that go in at one end in a ledger, and removes those that come
// out at the other.
type ledgerLink struct {
	bsdnet.Link
	mine, theirs *ledger
}

func (l *ledgerLink) Write(pkts []net.Buffers) (int, error) {
	for _, p := range pkts { // before a packet can arrive
		l.mine.in(p)
	}
	n, err := l.Link.Write(pkts)
	for _, p := range pkts[n:] {
		l.mine.cancel(p)
	}
	return n, err
}

// cancel removes packets that were entered, and then not sent.
func (l *ledger) cancel(p net.Buffers) { l.out(bytes.Join(p, nil)) }

func (l *ledgerLink) Read(bufs [][]byte, sizes []int) (int, error) {
	n, err := l.Link.Read(bufs, sizes)
	for i := range n {
		l.theirs.out(bufs[i][:sizes[i]])
	}
	return n, err
}
