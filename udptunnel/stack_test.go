package udptunnel_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bsdnet"
	"bsdnet/internal/testutil/stacktest"
	"bsdnet/udptunnel"
)

var sharedKey = bytes.Repeat([]byte("0123456789abcdef"), 2)

func open(t testing.TB, c udptunnel.Config) *udptunnel.Link {
	t.Helper()
	if c.Local == "" && c.Conn == nil {
		c.Local = "127.0.0.1:0"
	}
	if c.Key == nil && !c.Insecure {
		c.Key = sharedKey
	}
	tunnel, err := udptunnel.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tunnel.Close() })
	return tunnel
}

// noise returns n bytes that a seed determines, and their sum.
func noise(n int64, seed byte) (io.Reader, [sha256.Size]byte) {
	h := sha256.New()
	io.Copy(h, io.LimitReader(rand.NewChaCha8([32]byte{seed}), n))
	return io.LimitReader(rand.NewChaCha8([32]byte{seed}), n), [sha256.Size]byte(h.Sum(nil))
}

// sink serves one connection of a listener: it sums up what arrives and sends the sum back.
func sink(ln net.Listener) error {
	c, err := ln.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	h := sha256.New()
	if _, err := io.Copy(h, c); err != nil {
		return err
	}
	_, err = c.Write(h.Sum(nil))
	return err
}

// send sends the bytes of r over a connection, and checks the sum that the sink returns. It calls
// between in the middle.
func send(c net.Conn, n int64, between func()) error {
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	r, want := noise(n, byte(n))
	if _, err := io.CopyN(c, r, n/2); err != nil {
		return err
	}
	between()
	if _, err := io.Copy(c, r); err != nil {
		return err
	}
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		return err
	}
	got, err := io.ReadAll(c)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want[:]) {
		return errors.New("the sum is wrong")
	}
	return nil
}

// sendTo sends n bytes to a sink on another stack.
func sendTo(t *testing.T, from, to *bsdnet.Stack, addr string, n int64) {
	t.Helper()
	ln, err := to.Listen("tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	served := make(chan error, 1)
	go func() { served <- sink(ln) }()
	c, err := from.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := send(c, n, func() {}); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// Two stacks talk over both families, and the tunnel's datagrams go over IPv4 or IPv6.
func TestStacks(t *testing.T) {
	for _, local := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(local, func(t *testing.T) {
			if l, err := net.ListenPacket("udp", local); err != nil {
				t.Skip("no IPv6: ", err)
			} else {
				l.Close()
			}
			testStacks(t, local)
		})
	}
}

func testStacks(t *testing.T, local string) {
	s1, s2 := stacktest.New(t, bsdnet.Config{}), stacktest.New(t, bsdnet.Config{})
	t1 := open(t, udptunnel.Config{Local: local})
	t2 := open(t, udptunnel.Config{Local: local, Peer: t1.LocalAddr().String()})
	stacktest.Attach(t, s1, t1, "10.0.0.1/24", "fd00::1/64")
	stacktest.Attach(t, s2, t2, "10.0.0.2/24", "fd00::2/64")
	for _, dir := range []struct {
		from, to *bsdnet.Stack
		addr     string
	}{{s1, s2, "10.0.0.2:80"}, {s2, s1, "10.0.0.1:80"}, {s1, s2, "[fd00::2]:80"}, {s2, s1, "[fd00::1]:80"}} {
		sendTo(t, dir.from, dir.to, dir.addr, 4<<20)
	}
	for _, tunnel := range []*udptunnel.Link{t1, t2} {
		st := tunnel.Stats()
		if st.Handshakes == 0 || st.Received < 100 || st.Sent < 100 ||
			st.Forged+st.Malformed+st.Replayed+st.Oversized > 0 {
			t.Errorf("%+v", st)
		}
	}
	if t1.Peer() != t2.LocalAddr() || t2.Peer() != t1.LocalAddr() {
		t.Errorf("peers: %v, %v", t1.Peer(), t2.Peer())
	}
}

// An end of the tunnel is restarted in the middle of a transfer, with a new port and without its
// state, at the sender and at the receiver.
func TestStacksRestart(t *testing.T) {
	for _, sender := range []bool{true, false} {
		s1, s2 := stacktest.New(t, bsdnet.Config{}), stacktest.New(t, bsdnet.Config{})
		t1 := open(t, udptunnel.Config{})
		config := udptunnel.Config{Peer: t1.LocalAddr().String()}
		t2 := open(t, config)
		// The addresses of a stack whose link is replaced stay, so that its connections do.
		stacktest.Attach(t, s1, t1, "10.0.0.1/24")
		swap := &swapLink{Link: t2}
		stacktest.Attach(t, s2, swap, "10.0.0.2/24")
		from, to, addr := s1, s2, "10.0.0.2:80"
		if sender {
			from, to, addr = s2, s1, "10.0.0.1:80"
		}
		ln, err := to.Listen("tcp", ":80")
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- sink(ln) }()
		c, err := from.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t3 := open(t, config)
		if err := send(c, 8<<20, func() { swap.swap(t, t3) }); err != nil {
			t.Errorf("the sender restarted: %v: %v", sender, err)
		}
		if err := <-served; err != nil {
			t.Errorf("the sender restarted: %v: %v", sender, err)
		}
		if st := t1.Stats(); st.Roams == 0 || st.Handshakes < 2 || t1.Peer() != t3.LocalAddr() {
			t.Errorf("the sender restarted: %v: %+v; the peer is %v, want %v", sender, st, t1.Peer(), t3.LocalAddr())
		}
		ln.Close()
		s1.Close()
		s2.Close()
	}
}

func TestOpenErrors(t *testing.T) {
	for _, c := range []struct {
		config udptunnel.Config
		want   string
	}{
		{udptunnel.Config{}, "Key is missing"},
		{udptunnel.Config{Key: []byte("too short")}, "openssl rand -base64 32"},
		{udptunnel.Config{Insecure: true}, "Peer"},
		{udptunnel.Config{Insecure: true, Peer: "127.0.0.1:1", Key: sharedKey}, "Insecure"},
	} {
		tunnel, err := udptunnel.Open(c.config)
		if err == nil || tunnel != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v; want %q", c.config, err, c.want)
		}
	}
}

// A swapLink is a link that can be replaced by another.
type swapLink struct {
	mu    sync.Mutex
	ready func()
	bsdnet.Link
}

func (s *swapLink) current() bsdnet.Link {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Link
}

func (s *swapLink) Start(ready func()) error {
	s.ready = ready
	return s.Link.Start(ready)
}

func (s *swapLink) Read(bufs [][]byte, sizes []int) (int, error) {
	for {
		l := s.current()
		n, err := l.Read(bufs, sizes)
		if err == nil || l == s.current() {
			return n, err
		}
	}
}

func (s *swapLink) Write(pkts []net.Buffers) (int, error) {
	for {
		l := s.current()
		n, err := l.Write(pkts)
		if err == nil || l == s.current() {
			return n, err
		}
	}
}

func (s *swapLink) Close() error { return s.current().Close() }

// swap closes the current link and puts l in its place.
func (s *swapLink) swap(t *testing.T, l bsdnet.Link) {
	if err := l.Start(s.ready); err != nil {
		t.Error(err)
	}
	s.mu.Lock()
	old := s.Link
	s.Link = l
	s.mu.Unlock()
	old.Close()
	s.ready() // what the old one owed
}

// A relay passes on the datagrams of a tunnel, and adds those that an attacker on the path can make
// from them: copies, old ones, changed ones, shorter and longer ones, from the right address and
// from another. It returns its address, and how many it has added.
func relay(t *testing.T, server netip.AddrPort) (netip.AddrPort, *atomic.Int64) {
	listen := func() *net.UDPConn {
		c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
		if err != nil {
			t.Fatal(err)
		}
		c.SetReadBuffer(7 << 20)
		return c
	}
	front, back, other := listen(), listen(), listen()
	var client atomic.Pointer[netip.AddrPort]
	added := new(atomic.Int64)
	var wg sync.WaitGroup
	pass := func(in, out *net.UDPConn, seed uint64, to func(src netip.AddrPort) netip.AddrPort) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		buf := make([]byte, 65535)
		var old [64][]byte
		for {
			n, src, err := in.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			dst := to(src)
			out.WriteToUDPAddrPort(buf[:n], dst)
			from := []*net.UDPConn{out, other}[rnd.IntN(2)]
			bad := bytes.Clone(buf[:n])
			switch rnd.IntN(6) {
			case 0:
				bad[rnd.IntN(n)] ^= 1 << rnd.IntN(8)
			case 1:
				bad = bad[:rnd.IntN(n)]
			case 2:
				bad = append(bad, byte(rnd.Uint32()))
			case 3:
				// From another address it would be accepted if the network had lost the original.
				bad, from = old[rnd.IntN(len(old))], out
			case 4:
				from = out
			default:
				bad = nil
			}
			old[rnd.IntN(len(old))] = bytes.Clone(buf[:n])
			if len(bad) > 0 {
				from.WriteToUDPAddrPort(bad, dst)
				added.Add(1)
			}
		}
	}
	wg.Go(func() {
		pass(front, back, 1, func(src netip.AddrPort) netip.AddrPort { client.Store(&src); return server })
	})
	wg.Go(func() { pass(back, front, 2, func(netip.AddrPort) netip.AddrPort { return *client.Load() }) })
	t.Cleanup(func() {
		for _, c := range []*net.UDPConn{front, back, other} {
			c.Close()
		}
		wg.Wait()
	})
	return front.LocalAddr().(*net.UDPAddr).AddrPort(), added
}

// A transfer goes on while four datagrams in five are followed by a forged, replayed or mutilated
// one. None of those is accepted.
func TestStacksAttacked(t *testing.T) {
	s1, s2 := stacktest.New(t, bsdnet.Config{}), stacktest.New(t, bsdnet.Config{})
	t1 := open(t, udptunnel.Config{MTU: 8000})
	front, added := relay(t, t1.LocalAddr())
	t2 := open(t, udptunnel.Config{MTU: 8000, Peer: front.String()})
	stacktest.Attach(t, s1, t1, "10.0.0.1/24")
	stacktest.Attach(t, s2, t2, "10.0.0.2/24")
	ln, err := s1.Listen("tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- sink(ln) }()
	c, err := s2.Dial("tcp", "10.0.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	if err := send(c, 4<<20, func() {}); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	a, b := t1.Stats(), t2.Stats()
	if a.Roams+b.Roams > 0 {
		t.Errorf("roams: %d, %d", a.Roams, b.Roams)
	}
	dropped := a.Malformed + a.Unknown + a.Forged + a.Replayed + b.Malformed + b.Unknown + b.Forged + b.Replayed
	if dropped < 100 || added.Load() < 100 {
		t.Errorf("%d datagrams added, %d dropped", added.Load(), dropped)
	}
	// The goroutine that sent the last datagrams may not have counted them yet.
	end := time.Now().Add(10 * time.Second)
	for (a.Received > b.Sent || b.Received > a.Sent) && time.Now().Before(end) {
		runtime.Gosched()
		a, b = t1.Stats(), t2.Stats()
	}
	if a.Received > b.Sent || b.Received > a.Sent {
		t.Errorf("received %d of %d, %d of %d", a.Received, b.Sent, b.Received, a.Sent)
	}
}

// The error of a failed dial says what the tunnel knows, at both ends; if the tunnel works, it does
// not.
func TestStacksDiagnosis(t *testing.T) {
	caller, listener := stacktest.New(t, bsdnet.Config{}), stacktest.New(t, bsdnet.Config{})
	there := open(t, udptunnel.Config{Key: []byte(strings.Repeat("another key.....", 2))})
	here := open(t, udptunnel.Config{Peer: there.LocalAddr().String()})
	stacktest.Attach(t, listener, there, "10.0.0.2/24")
	stacktest.Attach(t, caller, here, "10.0.0.1/24")
	for end := time.Now().Add(time.Minute); there.Status().Unverified == 0; {
		if time.Now().After(end) {
			t.Fatal("nothing arrives")
		}
	}
	for _, c := range []struct {
		from *bsdnet.Stack
		to   string
		want string
	}{
		{caller, "10.0.0.2:80", "i/o timeout (udptunnel: no answer from " + there.LocalAddr().String() + " to "},
		{listener, "10.0.0.1:80",
			"i/o timeout (udptunnel: nobody who has the key has called at " + there.LocalAddr().String() + "; "},
	} {
		_, err := c.from.DialTimeout("tcp", c.to, 50*time.Millisecond)
		if err == nil || !strings.Contains(err.Error(), c.want) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v; want %q", err, c.want)
		}
	}
}
