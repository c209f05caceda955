package contract

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet"
	"bsdnet/internal/testutil/stacktest"
	"bsdnet/netem"
)

// The contract of package net is tested on package net too: each test first runs over the system's
// own loopback, which shows that it asks for what programs are used to, and then over this stack's
// loopback and over a cable between two stacks, inside and outside of a bubble.

// A tcpConn has the methods that *net.TCPConn and *bsdnet.TCPConn have in common.
type tcpConn interface {
	net.Conn
	io.ReaderFrom
	io.WriterTo
	CloseRead() error
	CloseWrite() error
	SetLinger(sec int) error
	SetNoDelay(bool) error
	SetKeepAlive(bool) error
	SetKeepAlivePeriod(time.Duration) error
	SetKeepAliveConfig(net.KeepAliveConfig) error
	SetReadBuffer(int) error
	SetWriteBuffer(int) error
	File() (*os.File, error)
	MultipathTCP() (bool, error)
}

var (
	_ tcpConn = (*net.TCPConn)(nil)
	_ tcpConn = (*bsdnet.TCPConn)(nil)
)

// A tcpListener has the methods that *net.TCPListener and *bsdnet.TCPListener have in common.
type tcpListener interface {
	net.Listener
	SetDeadline(time.Time) error
	File() (*os.File, error)
}

var (
	_ tcpListener = (*net.TCPListener)(nil)
	_ tcpListener = (*bsdnet.TCPListener)(nil)
)

// A network has a client and a server side for a test of the contract, each with an address.
type network struct {
	kernel       bool // package net itself
	bubble       bool
	server       *bsdnet.Stack // nil: package net
	client       *bsdnet.Stack
	shost, chost string // addresses of the sides
}

// each runs f over every kind of network.
func each(t *testing.T, f func(t *testing.T, n *network)) {
	t.Helper()
	if runtime.GOOS == "linux" {
		t.Run("net", func(t *testing.T) { f(t, &network{kernel: true, shost: "127.0.0.1", chost: "127.0.0.1"}) })
	}
	eachOwn(t, f)
}

// eachOwn runs f over every kind of network except package net's.
func eachOwn(t *testing.T, f func(t *testing.T, n *network)) {
	t.Helper()
	for _, k := range []struct {
		name string
		make func(t testing.TB) *network
	}{{"loopback", loopback}, {"pipe", cable}} {
		t.Run(k.name, func(t *testing.T) { f(t, k.make(t)) })
	}
	eachBubble(t, f)
}

// eachBubble runs f in a bubble over the loopback, and over a cable by IPv4 and by IPv6.
func eachBubble(t *testing.T, f func(t *testing.T, n *network)) {
	t.Helper()
	t.Run("bubble/loopback", func(t *testing.T) { inBubble(t, loopback, f) })
	t.Run("bubble/pipe", func(t *testing.T) { inBubble(t, cable, f) })
	if !strings.HasPrefix(t.Name(), "TestUDP") { // those have the texts and lengths of IPv4, and others for IPv6
		t.Run("bubble/pipe6", func(t *testing.T) { inBubble(t, cable6, f) })
	}
}

// inBubble runs f in a bubble over a network that is made there.
func inBubble(t *testing.T, make func(t testing.TB) *network, f func(t *testing.T, n *network)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := make(t)
		n.bubble = true
		f(t, n)
	})
}

func loopback(t testing.TB) *network {
	s := stack(t, bsdnet.Config{})
	return &network{server: s, client: s, shost: "127.0.0.1", chost: "127.0.0.1"}
}

func cable(t testing.TB) *network { return cableOf(t, netem.PipeConfig{MTU: 1500}, nil) }

// cableOf connects two stacks by a cable. If wrap is not nil, it wraps the client's end.
func cableOf(t testing.TB, c netem.PipeConfig, wrap func(bsdnet.Link) bsdnet.Link) *network {
	t.Helper()
	a, b, err := netem.Pipe(c)
	if err != nil {
		t.Fatal(err)
	}
	var client bsdnet.Link = b
	if wrap != nil {
		client = wrap(b)
	}
	n := &network{
		server: stack(t, bsdnet.Config{}),
		client: stack(t, bsdnet.Config{}),
		shost:  "10.0.0.1",
		chost:  "10.0.0.2",
	}
	server, own := []string{"10.0.0.1/24", "fd00::1/64"}, []string{"10.0.0.2/24", "fd00::2/64"}
	if a.MTU() < 1280 { // IPv6 needs that (RFC 8200, 5)
		server, own = server[:1], own[:1]
	}
	stacktest.Attach(t, n.server, a, server...)
	stacktest.Attach(t, n.client, client, own...)
	return n
}

// cable6 is cable over IPv6.
func cable6(t testing.TB) *network { return cable(t).over6() }

// over6 makes a cable's network use IPv6.
func (n *network) over6() *network {
	n.shost, n.chost = "fd00::1", "fd00::2"
	return n
}

// family returns the last letter of the networks of the addresses' family, and its unspecified
// address.
func (n *network) family() (digit, any string) {
	if strings.Contains(n.shost, ":") {
		return "6", "[::]"
	}
	return "4", "0.0.0.0"
}

// stack is a short name for stacktest.New, which nearly every test here calls.
var stack = stacktest.New

// settle waits until calls that block are blocked. In a bubble all of them are then; elsewhere that
// is likely, and the result of the test does not depend on it.
func (n *network) settle() {
	if n.bubble {
		synctest.Wait()
		return
	}
	for range 50 {
		runtime.Gosched()
	}
}

func (n *network) listenOn(address string) (net.Listener, error) {
	if n.kernel {
		return net.Listen("tcp", address)
	}
	return n.server.Listen("tcp", address)
}

func (n *network) listen(t testing.TB) tcpListener {
	t.Helper()
	l, err := n.listenOn(net.JoinHostPort(n.shost, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.(tcpListener)
}

func (n *network) dialCtx(ctx context.Context, address string) (net.Conn, error) {
	if n.kernel {
		return (&net.Dialer{}).DialContext(ctx, "tcp", address)
	}
	return n.client.DialContext(ctx, "tcp", address)
}

func (n *network) dial(address string) (net.Conn, error) {
	return n.dialCtx(context.Background(), address)
}

// pair returns the client's and the server's end of a connection.
func (n *network) pair(t testing.TB) (c, s tcpConn) {
	t.Helper()
	l := n.listen(t)
	defer l.Close()
	return n.pairOver(t, l)
}

func (n *network) pairOver(t testing.TB, l net.Listener) (c, s tcpConn) {
	t.Helper()
	cc, err := n.dial(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	sc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sc.Close() })
	return cc.(tcpConn), sc.(tcpConn)
}

// targets are the errors that describe tries with errors.Is.
var targets = []struct {
	name string
	err  error
}{
	{"io.EOF", io.EOF}, {"net.ErrClosed", net.ErrClosed}, {"os.ErrDeadlineExceeded", os.ErrDeadlineExceeded},
	{"context.Canceled", context.Canceled}, {"context.DeadlineExceeded", context.DeadlineExceeded},
	{"errors.ErrUnsupported", errors.ErrUnsupported},
	{"ECONNREFUSED", syscall.ECONNREFUSED}, {"ECONNRESET", syscall.ECONNRESET},
	{"ECONNABORTED", syscall.ECONNABORTED}, {"EPIPE", syscall.EPIPE},
	{"EADDRINUSE", syscall.EADDRINUSE}, {"EADDRNOTAVAIL", syscall.EADDRNOTAVAIL},
	{"ETIMEDOUT", syscall.ETIMEDOUT}, {"ENOTCONN", syscall.ENOTCONN},
	{"EHOSTUNREACH", syscall.EHOSTUNREACH}, {"ENETUNREACH", syscall.ENETUNREACH},
	{"EINVAL", syscall.EINVAL}, {"EBADF", syscall.EBADF}, {"EMSGSIZE", syscall.EMSGSIZE},
	{"EDESTADDRREQ", syscall.EDESTADDRREQ}, {"EISCONN", syscall.EISCONN}, {"EACCES", syscall.EACCES},
}

// describe returns everything that a program can see of an error: its text, which contains Op, Net,
// Source and Addr, and the results of errors.Is, errors.As and the methods of net.Error.
func describe(err error) string {
	if err == nil {
		return "nil"
	}
	s := err.Error()
	var marks []string
	for _, t := range targets {
		if errors.Is(err, t.err) {
			marks = append(marks, t.name)
		}
	}
	var op *net.OpError
	if err != io.EOF && !errors.As(err, &op) {
		marks = append(marks, "no OpError")
	}
	var sys *os.SyscallError
	if errors.As(err, &sys) {
		marks = append(marks, "SyscallError")
	}
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		marks = append(marks, "Timeout")
	}
	//lint:ignore SA1019 it is deprecated, but package net still has it
	if errors.As(err, &ne) && ne.Temporary() {
		marks = append(marks, "Temporary")
	}
	return s + " [" + strings.Join(marks, " ") + "]"
}

// wantError compares an error with the one that package net returns. names are pairs of an address
// and the name that stands for it in want.
func wantError(t testing.TB, what string, err error, want string, names ...any) {
	t.Helper()
	got := describe(err)
	for i := 0; i < len(names); i += 2 {
		a := ""
		switch v := names[i].(type) {
		case net.Addr:
			a = v.String()
		case string:
			a = v
		}
		got = strings.ReplaceAll(got, a, names[i+1].(string))
	}
	if got != want {
		t.Errorf("%s:\n got %s\nwant %s", what, got, want)
	}
}

// within waits for a value. A minute without one is a hang, or in a bubble a deadlock.
func within[T any](t testing.TB, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(time.Minute):
		buf := make([]byte, 1<<20)
		t.Fatalf("%s: nothing for a minute\n%s", what, buf[:runtime.Stack(buf, true)])
	}
	return v
}

// async runs f in a goroutine and returns its result on a channel.
func async[T any](f func() T) <-chan T {
	c := make(chan T, 1)
	go func() { c <- f() }()
	return c
}

// An ioResult has the results of Read or Write.
type ioResult struct {
	n   int
	err error
}

func asyncRead(c net.Conn, n int) <-chan ioResult {
	return async(func() ioResult { n, err := c.Read(make([]byte, n)); return ioResult{n, err} })
}

func asyncWrite(c net.Conn, n int) <-chan ioResult {
	return async(func() ioResult { n, err := c.Write(make([]byte, n)); return ioResult{n, err} })
}

func bsdnetDialer(n *network) *bsdnet.Dialer { return &bsdnet.Dialer{Stack: n.client} }
