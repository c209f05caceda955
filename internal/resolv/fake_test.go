package resolv

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"bsdnet/internal/testutil/dnstest"
)

// A fakeNet has servers, without a stack: what is dialed is answered by the server of the address.
// An address without a server refuses; a nil server is silent.
type fakeNet struct {
	servers map[string]*dnstest.Server // by address and port
	sources map[string]string          // source addresses, by the destination's network

	mu     sync.Mutex
	dialed []string
	sent   [][]byte
	open   int
}

func (f *fakeNet) resolver(
	t *testing.T, c Config, hosts func(context.Context, string) ([]netip.Addr, error),
) *Resolver {
	t.Helper()
	r := New(Env{Dial: f.dial, Source: f.source, Hosts: hosts, Seed: [32]byte{1}})
	if c.Servers == nil {
		for addr := range f.servers {
			c.Servers = append(c.Servers, netip.MustParseAddrPort(addr))
		}
	}
	if err := r.SetConfig(c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if f.open != 0 {
			t.Errorf("%d sockets are open at the end", f.open)
		}
	})
	return r
}

func (f *fakeNet) source(dst netip.Addr) (src netip.Addr) {
	if dst.IsLoopback() {
		return dst
	}
	for prefix, a := range f.sources {
		if netip.MustParsePrefix(prefix).Contains(dst) {
			src = netip.MustParseAddr(a)
		}
	}
	return src
}

func (f *fakeNet) dial(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dialed = append(f.dialed, network+" "+to.String())
	s, ok := f.servers[to.String()]
	if !ok {
		err := os.NewSyscallError("connect", syscall.ENETUNREACH)
		return nil, &net.OpError{Op: "dial", Net: network, Addr: net.UDPAddrFromAddrPort(to), Err: err}
	}
	f.open++
	if network == "tcp" {
		a, b := net.Pipe()
		go s.ServeConn(b)
		return &fakeStream{Conn: a, net: f}, nil
	}
	c := &fakeDatagrams{net: f, server: s, in: make(chan []byte, 64), closed: make(chan struct{})}
	return c, nil
}

// A fakeStream is a TCP connection.
type fakeStream struct {
	net.Conn
	net  *fakeNet
	once sync.Once
}

func (c *fakeStream) Close() error {
	c.once.Do(c.net.done)
	return c.Conn.Close()
}

func (f *fakeNet) done() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open--
}

// fakeDatagrams is a connected UDP socket.
type fakeDatagrams struct {
	net      *fakeNet
	server   *dnstest.Server
	in       chan []byte
	once     sync.Once
	closed   chan struct{}
	deadline time.Time
}

func (c *fakeDatagrams) Write(b []byte) (int, error) {
	query := bytes.Clone(b)
	c.net.mu.Lock()
	c.net.sent = append(c.net.sent, query)
	c.net.mu.Unlock()
	if c.server != nil {
		go func() {
			for _, answer := range c.server.Answer("udp", query) {
				c.in <- answer
			}
		}()
	}
	return len(b), nil
}

func (c *fakeDatagrams) Read(b []byte) (int, error) {
	timer := time.NewTimer(time.Until(c.deadline))
	defer timer.Stop()
	select {
	case msg := <-c.in:
		return copy(b, msg), nil
	case <-c.closed:
		return 0, net.ErrClosed
	case <-timer.C:
		return 0, &net.OpError{Op: "read", Net: "udp", Err: os.ErrDeadlineExceeded}
	}
}

func (c *fakeDatagrams) Close() error {
	c.once.Do(func() { close(c.closed); c.net.done() })
	return nil
}

func (c *fakeDatagrams) SetDeadline(t time.Time) error      { c.deadline = t; return nil }
func (c *fakeDatagrams) SetReadDeadline(t time.Time) error  { return c.SetDeadline(t) }
func (c *fakeDatagrams) SetWriteDeadline(t time.Time) error { return nil }
func (c *fakeDatagrams) LocalAddr() net.Addr                { return nil }
func (c *fakeDatagrams) RemoteAddr() net.Addr               { return nil }
