package udptunnel

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet"
	"bsdnet/internal/link/ends"
	"bsdnet/internal/testutil"
	"bsdnet/linktest"
)

// A memAddr is an address that cannot be compared by ==, and that is not of UDP.
type memAddr struct {
	name string
	_    []byte
}

func (memAddr) Network() string  { return "mem" }
func (a memAddr) String() string { return a.name }

// errMemTimeout is not os.ErrDeadlineExceeded, as that of a PacketConn which does not know it.
type errMemTimeout struct{}

func (errMemTimeout) Error() string   { return "mem: time-out" }
func (errMemTimeout) Timeout() bool   { return true }
func (errMemTimeout) Temporary() bool { return true }

// A memNet carries datagrams between its memConns.
type memNet struct {
	mu     sync.Mutex
	change sync.Cond
	conns  map[string]*memConn
}

func newMemNet() *memNet {
	n := &memNet{conns: map[string]*memConn{}}
	n.change.L = &n.mu
	return n
}

// A memConn is a net.PacketConn in memory.
type memConn struct {
	net      *memNet
	addr     net.Addr
	in       []memDatagram
	deadline time.Time
	timer    *time.Timer
	closed   bool
	stuck    bool  // WriteTo waits
	fails    error // what WriteTo returns
}

type memDatagram struct {
	b   []byte
	src net.Addr
}

func (n *memNet) listen(addr net.Addr) *memConn {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := &memConn{net: n, addr: addr}
	n.conns[addr.String()] = c
	return c
}

func (c *memConn) ReadFrom(b []byte) (int, net.Addr, error) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	for {
		switch {
		case c.closed:
			return 0, nil, io.ErrClosedPipe
		case !c.deadline.IsZero() && !time.Now().Before(c.deadline):
			return 0, nil, errMemTimeout{}
		case len(c.in) > 0:
			d := c.in[0]
			c.in = c.in[1:]
			return copy(b, d.b), d.src, nil
		}
		c.net.change.Wait()
	}
}

func (c *memConn) WriteTo(b []byte, to net.Addr) (int, error) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	for c.stuck && !c.closed {
		c.net.change.Wait()
	}
	switch {
	case c.closed:
		return 0, io.ErrClosedPipe
	case c.fails != nil:
		return 0, c.fails
	}
	if d := c.net.conns[to.String()]; d != nil && len(d.in) < 1000 {
		d.in = append(d.in, memDatagram{bytes.Clone(b), c.addr})
		c.net.change.Broadcast()
	}
	return len(b), nil
}

// set changes c.
func (c *memConn) set(f func(c *memConn)) {
	c.net.mu.Lock()
	f(c)
	c.net.change.Broadcast()
	c.net.mu.Unlock()
}

func (c *memConn) SetReadDeadline(at time.Time) error {
	c.set(func(c *memConn) {
		c.deadline = at
		if c.timer != nil {
			c.timer.Stop()
		}
		if !at.IsZero() {
			c.timer = time.AfterFunc(time.Until(at), func() { c.set(func(*memConn) {}) })
		}
	})
	return nil
}

func (c *memConn) Close() error {
	c.SetReadDeadline(time.Time{})
	c.set(func(c *memConn) { c.closed = true })
	return nil
}

func (c *memConn) LocalAddr() net.Addr              { return c.addr }
func (c *memConn) SetDeadline(time.Time) error      { return errors.ErrUnsupported }
func (c *memConn) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }

// memPair opens the two ends of a tunnel in memory. The first knows the second's address.
func memPair(t testing.TB, mtu int) (a, b *Link, x, y *memConn) {
	n := newMemNet()
	x, y = n.listen(memAddr{name: "x"}), n.listen(memAddr{name: "y"})
	b = openOn(t, Config{Conn: y, MTU: mtu})
	a = openOn(t, Config{Conn: x, PeerAddr: memAddr{name: "y"}, MTU: mtu})
	return a, b, x, y
}

func openOn(t testing.TB, c Config) *Link {
	t.Helper()
	c.Key = testKey
	l, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// A tunnel over any net.PacketConn keeps the contract of links, in virtual time if its Conn does.
func TestPacketConnContract(t *testing.T) {
	t.Run("Memory", func(t *testing.T) {
		// The race detector's runtime sometimes aborts in Full ("ThreadSanitizer: CHECK failed").
		connect := func(t testing.TB) (a, b bsdnet.Link) {
			x, y, _, _ := memPair(t, 1280)
			return x, y
		}
		linktest.Test(t, linktest.Config{Bubble: true, Lossy: testutil.Race, Connect: connect})
	})
	t.Run("Socket", func(t *testing.T) {
		linktest.Test(t, linktest.Config{Connect: func(t testing.TB) (a, b bsdnet.Link) {
			y := openOn(t, Config{Conn: listenUDP(t), MTU: 1280})
			x := openOn(t, Config{Conn: listenUDP(t), MTU: 1280, PeerAddr: net.UDPAddrFromAddrPort(y.LocalAddr())})
			if _, ok := x.io.(*udpTransport); !ok {
				t.Errorf("a *net.UDPConn is used as any other Conn, %T", x.io)
			}
			return x, y
		}})
	})
}

// A socket whose type the tunnel does not know is used by the methods that it has.
func TestPacketConnWrapped(t *testing.T) {
	y := openOn(t, Config{Conn: struct{ net.PacketConn }{listenUDP(t)}, MTU: 1280})
	x := openOn(t, Config{Conn: addrPortOnly{listenUDP(t)}, MTU: 1280, Peer: y.LocalAddr().String()})
	a, b := ends.Start(t, x), ends.Start(t, y)
	converseBoth(t, a, b)
	if y.Peer() != x.LocalAddr() || x.Peer() != y.LocalAddr() {
		t.Errorf("peers %v and %v", x.Peer(), y.Peer())
	}
}

// converseBoth sends a packet of each family each way.
func converseBoth(t *testing.T, a, b *ends.End) {
	t.Helper()
	for _, d := range [][2]*ends.End{{a, b}, {b, a}} {
		sent := make(chan error, 1)
		go func() { sent <- d[0].Send(lists(ends.Packet(9, 1, 40), ends.Packet6(9, 2, 1280))...) }()
		for i, p := range d[1].Receive(t, 2) {
			if ends.Number(p) != i+1 {
				t.Errorf("packet %d arrives as %d", i+1, ends.Number(p))
			}
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
	}
}

// addrPortOnly has a UDPConn's methods without memory for addresses.
type addrPortOnly struct{ *net.UDPConn }

func (addrPortOnly) ReadFrom([]byte) (int, net.Addr, error) { panic("ReadFrom is called") }
func (addrPortOnly) WriteTo([]byte, net.Addr) (int, error)  { panic("WriteTo is called") }

func listenUDP(t testing.TB) *net.UDPConn {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Two stacks talk for hours over a PacketConn in a bubble: sessions begin and end, and one end
// moves.
func TestPacketConnStacks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, x, y := memPair(t, 0)
		if a.MTU() != 1420 || b.MTU() != 1420 {
			t.Errorf("MTU %d and %d", a.MTU(), b.MTU())
		}
		if a.LocalAddr().IsValid() || a.Peer().IsValid() || a.PeerAddr().String() != "y" || b.PeerAddr() != nil {
			t.Errorf("addresses: %v, %v, %v, %v", a.LocalAddr(), a.Peer(), a.PeerAddr(), b.PeerAddr())
		}
		server, client := attachTo(t, b, "10.0.0.1/24"), attachTo(t, a, "10.0.0.2/24")
		ln, err := server.Listen("tcp", ":80")
		if err != nil {
			t.Fatal(err)
		}
		page := make([]byte, 1<<20)
		go http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write(page) }))
		get := func() {
			t.Helper()
			resp, err := client.HTTPClient().Get("http://10.0.0.1/")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if n, err := io.Copy(io.Discard, resp.Body); n != 1<<20 || err != nil {
				t.Fatalf("%d bytes, %v", n, err)
			}
		}
		for range 30 {
			get()
			time.Sleep(4 * time.Minute)
		}
		if st := a.Stats(); st.Handshakes < 30 || st.Unsent != 0 {
			t.Errorf("%+v", st)
		}
		x.set(func(c *memConn) { // as a mapping on the way changes
			delete(c.net.conns, "x")
			c.addr = memAddr{name: "x2"}
			c.net.conns["x2"] = c
		})
		get()
		if b.PeerAddr().String() != "x2" || b.Stats().Roams != 1 {
			t.Errorf("the peer is at %v after %d moves", b.PeerAddr(), b.Stats().Roams)
		}
		server.Close()
		client.Close()
		if !x.closed || !y.closed {
			t.Error("the Conns are still open")
		}
	})
}

func attachTo(t *testing.T, l *Link, addrs ...string) *bsdnet.Stack {
	t.Helper()
	s, err := bsdnet.New(bsdnet.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	var prefixes []netip.Prefix
	for _, a := range addrs {
		prefixes = append(prefixes, netip.MustParsePrefix(a))
	}
	if err := s.Attach(l, prefixes...); err != nil {
		t.Fatal(err)
	}
	return s
}

// A WriteTo that waits does not make Write wait: the link is full, and calls ready when WriteTo
// goes on. Close ends a WriteTo that waits, and a Read.
func TestPacketConnStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, x, _ := memPair(t, 1280)
		from, to := ends.Start(t, a), ends.Start(t, b)
		go from.Send(lists(ends.Packet(1, 0, 40))...)
		to.Receive(t, 1)
		x.set(func(c *memConn) { c.stuck = true })
		n := 1
		for ; n < 10000; n++ {
			if k, err := from.Write(lists(ends.Packet(1, n, 100))); err != nil {
				t.Fatal(err)
			} else if k == 0 {
				break
			}
		}
		if n > 2*sendQueue {
			t.Fatalf("%d packets are taken, and nobody sends them", n)
		}
		readies := from.AwaitReady(-1)
		x.set(func(c *memConn) { c.stuck = false })
		from.AwaitReady(readies)
		for i, p := range to.Receive(t, n-1) {
			if ends.Number(p) != i+1 {
				t.Fatalf("packet %d arrives as %d", i+1, ends.Number(p))
			}
		}
		x.set(func(c *memConn) { c.stuck = true })
		from.Write(lists(ends.Packet(1, 0, 100)))
		synctest.Wait()
		reads := make(chan error)
		go func() {
			_, err := from.Read([][]byte{make([]byte, 2000)}, make([]int, 1))
			reads <- err
		}()
		synctest.Wait()
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		if err := <-reads; err != net.ErrClosed {
			t.Errorf("Read: %v", err)
		}
	})
}

// What WriteTo refuses is counted and noted. If a datagram is too large, packets become smaller.
func TestPacketConnErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, x, _ := memPair(t, 9000)
		from, to := ends.Start(t, a), ends.Start(t, b)
		go from.Send(lists(ends.Packet(1, 0, 40))...)
		to.Receive(t, 1)
		before := a.Stats()
		broken := errors.New("mem: broken")
		x.set(func(c *memConn) { c.fails = broken })
		from.Write(lists(ends.Packet(1, 1, 100)))
		synctest.Wait()
		if st := a.Stats(); st.Sent != before.Sent || st.Unsent != 1 || a.Status().SocketErr != broken {
			t.Errorf("%+v, %v", st, a.Status().SocketErr)
		}
		x.set(func(c *memConn) {
			c.fails = &net.OpError{Op: "write", Err: os.NewSyscallError("sendto", syscall.EMSGSIZE)}
		})
		from.Write(lists(dfPacket(2, 9000)))
		synctest.Wait()
		x.set(func(c *memConn) { c.fails = nil })
		if from.Write(lists(dfPacket(3, 9000))); a.Stats().TooLarge != 2 {
			t.Errorf("%+v", a.Stats())
		}
		if m := from.Receive(t, 1)[0]; m[20] != 3 || m[21] != 4 {
			t.Errorf("told %x", m)
		}
	})
}

// A datagram without a source is nobody's, and one that a PacketConn has not cut is refused.
func TestPacketConnBadRead(t *testing.T) {
	n := newMemNet()
	for _, c := range []struct {
		conn net.PacketConn
		want error
	}{
		{badConn{n.listen(memAddr{name: "a"}), 5, nil}, nil},
		{badConn{n.listen(memAddr{name: "b"}), 5, (*net.UDPAddr)(nil)}, nil},
		{badConn{n.listen(memAddr{name: "c"}), 1 << 20, memAddr{name: "d"}}, io.ErrShortBuffer},
		{badConn{n.listen(memAddr{name: "e"}), -1, memAddr{name: "d"}}, io.ErrShortBuffer},
	} {
		l := openOn(t, Config{Conn: c.conn})
		l.rx.off, l.rx.end = 0, 0
		l.rx.errs = maxReadErrors - 1
		if err := l.fill(); err != c.want || l.rx.end != 0 {
			t.Errorf("%+v: %v, %d bytes", c.conn, err, l.rx.end)
		}
	}
}

// A deadline of a PacketConn whose error is not os.ErrDeadlineExceeded is one all the same.
func TestPacketConnDeadline(t *testing.T) {
	c := newMemNet().listen(memAddr{name: "a"})
	l := openOn(t, Config{Conn: c})
	l.io.SetReadDeadline(past)
	if _, _, _, err := l.io.read(make([]byte, 10)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

// A badConn breaks the contract of net.PacketConn.
type badConn struct {
	*memConn
	n   int
	src net.Addr
}

func (c badConn) ReadFrom([]byte) (int, net.Addr, error) { return c.n, c.src, nil }

// noDeadlines is a PacketConn without deadlines.
type noDeadlines struct{ *memConn }

func (noDeadlines) SetReadDeadline(time.Time) error { return errors.ErrUnsupported }

func TestPacketConnConfig(t *testing.T) {
	n := newMemNet()
	conn := n.listen(memAddr{name: "x"})
	connected, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9})
	if err != nil {
		t.Fatal(err)
	}
	defer connected.Close()
	var none *net.UDPAddr
	for _, c := range []struct {
		config Config
		want   string // "": no error
	}{
		{Config{Conn: conn, Local: ":0"}, "Local and Conn are both set"},
		{Config{PeerAddr: memAddr{name: "y"}}, "PeerAddr is for Conn"},
		{Config{Conn: conn, Peer: "127.0.0.1:1", PeerAddr: memAddr{name: "y"}}, "Peer and PeerAddr are both set"},
		{Config{Conn: conn, PeerAddr: none}, "PeerAddr <nil> is not the address"},
		{Config{Conn: conn, PeerAddr: &net.UDPAddr{IP: net.IPv4(10, 0, 0, 1)}}, "PeerAddr 10.0.0.1:0 is not"},
		{Config{Conn: connected}, "Conn is connected to 127.0.0.1:9"},
		{Config{Conn: noDeadlines{conn}}, "SetReadDeadline, which the tunnel needs: unsupported"},
		{Config{Conn: conn, Peer: "127.0.0.1:1"}, ""},
	} {
		c.config.Key = testKey
		l, err := Open(c.config)
		switch {
		case err == nil && c.want != "":
			t.Errorf("%+v: no error; want one with %q", c.config, c.want)
		case err != nil && (c.want == "" || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%+v: %v; want %q", c.config, err, c.want)
		}
		if closed := conn.closed; closed {
			t.Errorf("%+v: the Conn is closed", c.config)
		}
		if err == nil {
			l.Close()
		}
	}
}

// The peer of a tunnel without a key is recognized by its address's text.
func TestPacketConnPlain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet()
		open := func(own, peer string) *ends.End {
			l, err := Open(Config{Conn: n.listen(memAddr{name: own}), PeerAddr: memAddr{name: peer}, Insecure: true})
			if err != nil {
				t.Fatal(err)
			}
			return ends.Start(t, l)
		}
		a, b, c := open("a", "b"), open("b", "a"), open("c", "b")
		defer ends.Close(t, a, b, c)
		for i, e := range []*ends.End{c, a} {
			if err := e.Send(lists(ends.Packet6(1, i, 100))...); err != nil {
				t.Error(err)
			}
			synctest.Wait()
		}
		if p := b.Receive(t, 1)[0]; ends.Number(p) != 1 {
			t.Errorf("a packet of a stranger arrives: %x", p)
		}
		if st := b.Link.(*Link).Stats(); st.Unknown != 1 {
			t.Errorf("%+v", st)
		}
	})
}

func TestEndpoint(t *testing.T) {
	at := func(s string) endpoint { return udp(netip.MustParseAddrPort(s)) }
	mem := func(s string) endpoint { return endpointOf(memAddr{name: s}) }
	list := []endpoint{
		{}, at("192.0.2.1:1"), at("192.0.2.1:2"), at("[2001:db8::1]:1"), at("[fe80::1%a]:1"), at("[fe80::1%b]:1"),
		mem("a"), mem("192.0.2.1:1"),
	}
	for i, a := range list {
		for j, b := range list {
			if a.is(b) != (i == j) {
				t.Errorf("%v is %v: %t", a, b, a.is(b))
			}
		}
		if e := endpointOf(a.netAddr()); !e.is(a) || e.IsValid() != (i > 0) {
			t.Errorf("%v comes back as %v", a, e)
		}
	}
	if !at("[::ffff:192.0.2.1]:1").is(at("192.0.2.1:1")) {
		t.Error("an address is another one on a socket of both families")
	}
	if got := fmt.Sprint(mem("a"), at("[2001:db8::1]:1")); got != "a [2001:db8::1]:1" {
		t.Error(got)
	}
}
