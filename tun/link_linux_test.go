//go:build linux

package tun

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"bsdnet"
	"bsdnet/internal/link/ends"
	"bsdnet/internal/testutil"
	"bsdnet/linktest"
)

// pair returns two links on the ends of a pair of sockets. The sockets carry one packet per write,
// and no more than about ten before one is read.
func pair(t testing.TB, config Config) (a, b *Link) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*Link
	for i, fd := range fds {
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<20)
		config.File = os.NewFile(uintptr(fd), "pair")
		if ends[i], err = Open(config); err != nil {
			t.Fatal(err)
		}
		config.File.Close()
	}
	return ends[0], ends[1]
}

func TestContract(t *testing.T) {
	for _, mtu := range []int{0, 1280, 9000} {
		linktest.Test(t, linktest.Config{Connect: func(t testing.TB) (a, b bsdnet.Link) {
			return pair(t, Config{MTU: mtu})
		}})
	}
}

// A descriptor that is not a TUN device has neither offloads nor a name.
func TestOnSocket(t *testing.T) {
	a, b := pair(t, Config{})
	defer ends.Close(t, a, b)
	if a.Offload() || a.Name() != "" || a.MTU() != 1500 || a.Queues() != 1 {
		t.Errorf("offload %v, name %q, MTU %d, %d queues", a.Offload(), a.Name(), a.MTU(), a.Queues())
	}
	e := ends.Start(t, a)
	ends.Start(t, b)
	if err := e.Send(net.Buffers{ends.Packet(1, 0, 100)}); err != nil {
		t.Fatal(err)
	}
	bufs, sizes := [][]byte{make([]byte, 1500)}, make([]int, 1)
	again := []net.Buffers{{nil}}
	if n := testing.AllocsPerRun(1, func() {
		if _, err := b.Read(bufs, sizes); err != nil {
			t.Fatal(err)
		}
		again[0][0] = bufs[0][:sizes[0]]
		a.Write(again)
	}); n > 0 && !testutil.Race {
		t.Errorf("%v allocations a packet", n)
	}
}

func TestConfig(t *testing.T) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for want, c := range map[string]Config{
		"MTU 67 ":           {MTU: 67},
		"MTU 65536 ":        {MTU: 65536},
		"MTU -1 ":           {MTU: -1},
		"Queues -1 ":        {Queues: -1},
		"Queues 65 ":        {Queues: 65},
		"File is one queue": {File: f, Queues: 2},
		"not both":          {File: f, Name: "tun0"},
		"longer than":       {Name: "a-name-of-16-byt"},
		"Host ::1/128 ":     {Host: netip.MustParsePrefix("::1/128")},
		"Host invalid ":     {Host: netip.PrefixFrom(netip.MustParseAddr("10.0.0.1"), 33)},
		"Host6 10.0.0.1/24": {Host6: netip.MustParsePrefix("10.0.0.1/24")},
		"Host6 ::ffff:":     {Host6: netip.PrefixFrom(netip.MustParseAddr("::ffff:10.0.0.1"), 128)},
		"Host6 invalid ":    {Host6: netip.PrefixFrom(netip.MustParseAddr("fd00::1"), 129)},
		"MTU of at least":   {Host6: netip.MustParsePrefix("fd00::1/64"), MTU: 1279},
		"Host6: ":           {Host6: netip.MustParsePrefix("ff02::1/64")},
	} {
		if _, err := Open(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v; want an error with %q", c, err, want)
		}
	}
	f.Close()
	if _, err := Open(Config{File: f}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a closed File: %v", err)
	}
}

// socketPair returns two connected sockets that keep packets apart, or that are a stream's.
func socketPair(t *testing.T, kind int) (a, b *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	a, b = os.NewFile(uintptr(fds[0]), "a"), os.NewFile(uintptr(fds[1]), "b")
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// Open refuses a File that cannot carry packets, and does not write to it.
func TestFileKinds(t *testing.T) {
	regular, err := os.Create(t.TempDir() + "/file")
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stream, _ := socketPair(t, unix.SOCK_STREAM)
	for what, f := range map[string]*os.File{
		"a regular file": regular, "/dev/null": null, "a pipe": r, "a pipe's other end": w, "a stream": stream,
	} {
		l, err := Open(Config{File: f})
		if err == nil || !strings.Contains(err.Error(), "neither a TUN device nor a socket") {
			t.Errorf("%s: %v", what, err)
			l.Close()
		}
	}
	for _, f := range []*os.File{regular, null, r, w} {
		f.Close()
	}
	if f, err := os.OpenFile(cloneDevice, os.O_RDWR, 0); err == nil {
		_, err := Open(Config{File: f})
		if !errors.Is(err, unix.EBADFD) || !strings.Contains(err.Error(), "TUNSETIFF") {
			t.Errorf("%s without a device: %v", cloneDevice, err)
		}
		f.Close()
	}
	s, _ := socketPair(t, unix.SOCK_DGRAM)
	_, err = Open(Config{File: s, Host: netip.MustParsePrefix("10.0.0.1/24")})
	if err == nil || !strings.Contains(err.Error(), "File is none") {
		t.Errorf("Host with a socket: %v", err)
	}
}

// An empty packet on a socket is neither a packet nor the socket's end. When the other end of a
// connected socket is closed, Read returns an error that is not net.ErrClosed.
func TestEmptyPacket(t *testing.T) {
	for _, kind := range []int{unix.SOCK_DGRAM, unix.SOCK_SEQPACKET} {
		f, other := socketPair(t, kind)
		l, err := Open(Config{File: f})
		if err != nil {
			t.Fatal(err)
		}
		e := ends.Start(t, l)
		for _, size := range []int{0, 0, 100, 0} {
			if err := unix.Send(int(other.Fd()), make([]byte, size), 0); err != nil {
				t.Fatal(err)
			}
		}
		bufs, sizes := [][]byte{make([]byte, 1500), make([]byte, 1500)}, make([]int, 2)
		if n, err := e.Read(bufs, sizes); n != 1 || err != nil || sizes[0] != 100 {
			t.Errorf("type %d: %d packets, the first of %d bytes, %v", kind, n, sizes[0], err)
		}
		if kind == unix.SOCK_SEQPACKET {
			other.Close()
			if n, err := e.Read(bufs, sizes); n != 0 || !errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
				t.Errorf("the other end is closed: %d, %v", n, err)
			}
		}
		ends.Close(t, l)
	}
}

// The errors of /dev/net/tun and its ioctls are explained.
func TestErrors(t *testing.T) {
	tun := &Link{name: "bsd0"}
	for _, c := range []struct {
		err  error
		want string
	}{
		{tun.openError(unix.ENOENT), "modprobe tun"},
		{tun.openError(unix.EACCES), "CAP_NET_ADMIN"},
		{tun.attachError(unix.EPERM, 1), "unshare -Urn"},
		{tun.attachError(unix.EBUSY, 1), "another program has the device open"},
		{tun.attachError(unix.EINVAL, 2), "multi_queue"},
		{tun.attachError(unix.EINVAL, 1), "not a TUN device"},
		{tun.attachError(unix.E2BIG, 2), "more queues"},
		{(&Link{name: "a/b"}).attachError(unix.EINVAL, 1), "not a device's name"},
		{(&Link{name: "a b"}).attachError(unix.EINVAL, 2), "not a device's name"},
		{(&Link{name: ".."}).attachError(unix.EINVAL, 1), "not a device's name"},
		{(&Link{name: "a%s"}).attachError(unix.EINVAL, 1), "not a device's name"},
		{(&Link{name: "%d%d"}).attachError(unix.EINVAL, 1), "not a device's name"},
		{(&Link{name: "a%d"}).attachError(unix.EINVAL, 1), "not a TUN device"},
	} {
		if !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%v; want %q", c.err, c.want)
		}
	}
	if !errors.Is(tun.openError(unix.ENOENT), syscall.ENOENT) ||
		!errors.Is(tun.rights("x", unix.EPERM), syscall.EPERM) {
		t.Error("the errno is lost")
	}
}

// The kernel takes 1024 pieces per packet; a chain of small writes may have more.
func TestManyPieces(t *testing.T) {
	a, b := pair(t, Config{MTU: 9000})
	defer ends.Close(t, a, b)
	e, to := ends.Start(t, a), ends.Start(t, b)
	for _, n := range []int{maxIovecs, maxIovecs + 1, 5000, 3} {
		want := ends.Packet(1, n, 5000)
		var p net.Buffers
		for i := range n - 1 {
			p = append(p, want[i:i+1])
		}
		p = append(p, want[n-1:])
		if err := e.Send(p); err != nil {
			t.Fatal(err)
		}
		bufs, sizes := [][]byte{make([]byte, 9000)}, make([]int, 1)
		if err := e.Send(net.Buffers{ends.Packet(2, 0, 100)}); err != nil { // Read returns even if the first is lost
			t.Fatal(err)
		}
		if _, err := to.Read(bufs, sizes); err != nil || !bytes.Equal(bufs[0][:sizes[0]], want) {
			t.Fatalf("of %d pieces: %v, %d bytes", n, err, sizes[0])
		}
		to.Read(bufs, sizes)
	}
}
