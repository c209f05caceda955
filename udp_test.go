package bsdnet_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"bsdnet"
)

var udpKey = bytes.Repeat([]byte("0123456789abcdef"), 2)

func openUDP(t testing.TB, c bsdnet.UDPConfig) *bsdnet.UDPTunnel {
	t.Helper()
	if c.Local == "" {
		c.Local = "127.0.0.1:0"
	}
	if c.Key == nil && !c.Insecure {
		c.Key = udpKey
	}
	tun, err := bsdnet.OpenUDP(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tun.Close() })
	return tun
}

func attach(t testing.TB, s *bsdnet.Stack, l bsdnet.Link, prefix string) {
	t.Helper()
	if err := s.Attach(l, netip.MustParsePrefix(prefix)); err != nil {
		t.Fatal(err)
	}
}

// noise returns n bytes that a seed determines, and their sum.
func noise(n int64, seed byte) (io.Reader, [sha256.Size]byte) {
	h := sha256.New()
	io.Copy(h, io.LimitReader(rand.NewChaCha8([32]byte{seed}), n))
	return io.LimitReader(rand.NewChaCha8([32]byte{seed}), n), [sha256.Size]byte(h.Sum(nil))
}

// sink serves one connection of a listener: what arrives is summed up and the sum is sent back.
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

// send sends what r has over a connection, and checks what the sink says of it. between is called in the middle.
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

func TestUDPTunnel(t *testing.T) {
	s1, s2 := newStack(t), newStack(t)
	t1 := openUDP(t, bsdnet.UDPConfig{})
	t2 := openUDP(t, bsdnet.UDPConfig{Peer: t1.LocalAddr().String()})
	attach(t, s1, t1, "10.0.0.1/24")
	attach(t, s2, t2, "10.0.0.2/24")
	for _, dir := range [][2]*bsdnet.Stack{{s1, s2}, {s2, s1}} {
		addr := "10.0.0.2:80"
		if dir[0] == s2 {
			addr = "10.0.0.1:80"
		}
		ln, err := dir[1].Listen("tcp", ":80")
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- sink(ln) }()
		c, err := dir[0].Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if err := send(c, 8<<20, func() {}); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
		ln.Close()
	}
	for _, tun := range []*bsdnet.UDPTunnel{t1, t2} {
		st := tun.Stats()
		if st.Handshakes == 0 || st.Received < 100 || st.Sent < 100 || st.Forged+st.Malformed+st.Replayed+st.Oversized > 0 {
			t.Errorf("%+v", st)
		}
	}
	if t1.Peer() != t2.LocalAddr() || t2.Peer() != t1.LocalAddr() {
		t.Errorf("peers: %v, %v", t1.Peer(), t2.Peer())
	}
}

// A tunnel's end is started anew, with a new port and without what it knew, in the middle of a transfer, at the sender's and at the receiver's side.
func TestUDPTunnelRestart(t *testing.T) {
	for _, sender := range []bool{true, false} {
		s1, s2 := newStack(t), newStack(t)
		t1 := openUDP(t, bsdnet.UDPConfig{})
		config := bsdnet.UDPConfig{Peer: t1.LocalAddr().String()}
		t2 := openUDP(t, config)
		// The addresses of a stack whose link is replaced stay, so that its connections do.
		attach(t, s1, t1, "10.0.0.1/24")
		swap := &swapLink{Link: t2}
		attach(t, s2, swap, "10.0.0.2/24")
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
		if err := send(c, 8<<20, func() { swap.swap(t, openUDP(t, config)) }); err != nil {
			t.Errorf("the sender restarted: %v: %v", sender, err)
		}
		if err := <-served; err != nil {
			t.Errorf("the sender restarted: %v: %v", sender, err)
		}
		if st := t1.Stats(); st.Roams != 1 || st.Handshakes < 2 {
			t.Errorf("the sender restarted: %v: %+v", sender, st)
		}
		ln.Close()
		s1.Close()
		s2.Close()
	}
}

func TestUDPTunnelErrors(t *testing.T) {
	for _, c := range []struct {
		config bsdnet.UDPConfig
		want   string
	}{
		{bsdnet.UDPConfig{}, "Key is missing"},
		{bsdnet.UDPConfig{Key: []byte("too short")}, "openssl rand -base64 32"},
		{bsdnet.UDPConfig{Insecure: true}, "Peer"},
		{bsdnet.UDPConfig{Insecure: true, Peer: "127.0.0.1:1", Key: udpKey}, "Insecure"},
	} {
		if tun, err := bsdnet.OpenUDP(c.config); err == nil || tun != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v; want %q", c.config, err, c.want)
		}
	}
}

// A swapLink is a link behind which another takes the first one's place.
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

// swap puts l in the place of the link, which it closes.
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
