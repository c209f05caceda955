//go:build linux

package link

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// tunPair returns two TUNs on the ends of a pair of sockets, which take a packet a write, and no more than ten or so before one is read.
func tunPair(t *testing.T, config TUNConfig) (a, b *TUN) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*TUN
	for i, fd := range fds {
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<20)
		config.File = os.NewFile(uintptr(fd), "pair")
		if ends[i], err = OpenTUN(config); err != nil {
			t.Fatal(err)
		}
		config.File.Close()
	}
	return ends[0], ends[1]
}

func TestTUNContract(t *testing.T) {
	for _, mtu := range []int{0, 1280, 9000} {
		testLink(t, func() (a, b Link) { return tunPair(t, TUNConfig{MTU: mtu}) })
	}
}

// On a descriptor that is no TUN device there are neither offloads nor a name.
func TestTUNOnSocket(t *testing.T) {
	a, b := tunPair(t, TUNConfig{})
	defer closeAll(t, a, b)
	if a.Offload() || a.Name() != "" || a.MTU() != 1500 || a.Queues() != 1 {
		t.Errorf("offload %v, name %q, MTU %d, %d queues", a.Offload(), a.Name(), a.MTU(), a.Queues())
	}
	e := startEnd(t, a)
	startEnd(t, b)
	if err := e.send(net.Buffers{testPacket(1, 0, 100)}); err != nil {
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
	}); n > 0 && !raceEnabled {
		t.Errorf("%v allocations a packet", n)
	}
}

func TestTUNConfig(t *testing.T) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for want, c := range map[string]TUNConfig{
		"MTU 67 ":           {MTU: 67},
		"MTU 65536 ":        {MTU: 65536},
		"MTU -1 ":           {MTU: -1},
		"Queues -1 ":        {Queues: -1},
		"Queues 65 ":        {Queues: 65},
		"File is one queue": {File: f, Queues: 2},
		"not both":          {File: f, Name: "tun0"},
		"longer than":       {Name: "a-name-of-16-byt"},
		"Host ::1/128 ":     {Host: netip.MustParsePrefix("::1/128")},
		"File is none":      {File: f, Host: netip.MustParsePrefix("10.0.0.1/24")},
	} {
		if _, err := OpenTUN(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v; want an error with %q", c, err, want)
		}
	}
	f.Close()
	if _, err := OpenTUN(TUNConfig{File: f}); err == nil {
		t.Error("a closed File is taken")
	}
}

// What /dev/net/tun and its ioctls may say is explained.
func TestTUNErrors(t *testing.T) {
	tun := &TUN{name: "bsd0"}
	for _, c := range []struct {
		err  error
		want string
	}{
		{tun.openError(unix.ENOENT), "modprobe tun"},
		{tun.openError(unix.EACCES), "CAP_NET_ADMIN"},
		{tun.attachError(unix.EPERM, 1), "unshare -Urn"},
		{tun.attachError(unix.EBUSY, 1), "somebody has the device open"},
		{tun.attachError(unix.EINVAL, 2), "multi_queue"},
		{tun.attachError(unix.EINVAL, 1), "not a TUN device"},
		{tun.attachError(unix.E2BIG, 2), "more queues"},
		{(&TUN{name: "a/b"}).attachError(unix.EINVAL, 1), "not a device's name"},
	} {
		if !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%v; want %q", c.err, c.want)
		}
	}
	if !errors.Is(tun.openError(unix.ENOENT), syscall.ENOENT) || !errors.Is(tun.rights("x", unix.EPERM), syscall.EPERM) {
		t.Error("the errno is lost")
	}
}

// The kernel takes 1024 pieces a packet; a chain of small writes may have more.
func TestTUNManyPieces(t *testing.T) {
	a, b := tunPair(t, TUNConfig{MTU: 9000})
	defer closeAll(t, a, b)
	e, to := startEnd(t, a), startEnd(t, b)
	for _, n := range []int{maxIovecs, maxIovecs + 1, 5000, 3} {
		want := testPacket(1, n, 5000)
		var p net.Buffers
		for i := range n - 1 {
			p = append(p, want[i:i+1])
		}
		p = append(p, want[n-1:])
		if err := e.send(p); err != nil {
			t.Fatal(err)
		}
		bufs, sizes := [][]byte{make([]byte, 9000)}, make([]int, 1)
		if err := e.send(net.Buffers{testPacket(2, 0, 100)}); err != nil { // lest a packet that is lost is waited for
			t.Fatal(err)
		}
		if _, err := to.Read(bufs, sizes); err != nil || !bytes.Equal(bufs[0][:sizes[0]], want) {
			t.Fatalf("of %d pieces: %v, %d bytes", n, err, sizes[0])
		}
		to.Read(bufs, sizes)
	}
}
