//go:build linux

package tun

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"bsdnet/internal/kern/wire"
	"bsdnet/internal/nstest"
)

// ownNetwork moves the test into a network namespace of its own.
func ownNetwork(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // and never unlocked: the thread stays in its namespace, and ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		nstest.Skip(t, "a network namespace: %v (run as root, or by unshare -Urn)", err)
	}
	if f, err := os.OpenFile(cloneDevice, os.O_RDWR, 0); err != nil {
		nstest.Skip(t, "%v", err)
	} else {
		f.Close()
	}
	if _, err := os.Stat("/proc/net/if_inet6"); err != nil {
		nstest.Skip(t, "no IPv6: %v", err)
	}
}

func openT(t *testing.T, c Config) *Link {
	t.Helper()
	l, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

var (
	host4 = netip.MustParsePrefix("10.0.0.1/24")
	host6 = netip.MustParsePrefix("fd00::1/64")
)

// noDAD matches the address in /proc/net/if_inet6 if IFA_F_NODAD is among its flags.
var noDAD = regexp.MustCompile(`(?m)^fd000{27}1 [0-9a-f]+ 40 00 [0-9a-f][2367abef] `)

// The kernel has the addresses at once, and the device is up.
func TestHost6(t *testing.T) {
	ownNetwork(t)
	for _, c := range []Config{{Host6: host6}, {Host: host4, Host6: host6}, {Host6: host6, MTU: 1280}} {
		l := openT(t, c)
		i, err := net.InterfaceByName(l.Name())
		if err != nil {
			t.Fatal(err)
		}
		addrs, err := i.Addrs()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range []netip.Prefix{c.Host, c.Host6} {
			has := slices.ContainsFunc(addrs, func(a net.Addr) bool { return a.String() == p.String() })
			if p.IsValid() && !has || i.Flags&net.FlagUp == 0 {
				t.Errorf("%v: the device has %v, %v", p, addrs, i.Flags)
			}
		}
		if local, err := isLocal(c.Host6.Addr()); !local || err != nil {
			t.Errorf("the address is not the kernel's own: %v", err)
		}
		// A tentative address cannot be bound to.
		if ln, err := net.Listen("tcp6", "[fd00::1]:0"); err != nil {
			t.Error(err)
		} else {
			ln.Close()
		}
		if text, _ := os.ReadFile("/proc/thread-self/net/if_inet6"); !noDAD.Match(text) {
			t.Errorf("the address is not exempt from duplicate address detection:\n%s", text)
		}
		if err := addAddr(uint32(i.Index), c.Host6); err != nil {
			t.Errorf("once more: %v", err)
		}
		l.Close()
	}
}

func TestHost6Errors(t *testing.T) {
	ownNetwork(t)
	if err := addAddr(12345, host6); err != unix.ENODEV {
		t.Errorf("no such interface: %v", err)
	}
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0); err != nil {
		nstest.Skip(t, "%v", err)
	}
	if _, err := Open(Config{Host6: host6}); !errors.Is(err, unix.EACCES) ||
		!strings.Contains(err.Error(), "disable_ipv6") {
		t.Errorf("IPv6 switched off: %v", err)
	}
	for _, b := range [][]byte{nil, make([]byte, 16), make([]byte, 64)} {
		if err := netlinkAck(b); err != unix.EBADMSG || routeType(b) != unix.RTN_UNSPEC {
			t.Errorf("%x: %v, type %d", b, err, routeType(b))
		}
	}
}

// The kernel hands over chains of datagrams, and takes them, over both families.
func TestOffloadUDP(t *testing.T) {
	ownNetwork(t)
	l := openT(t, Config{Host: host4, Host6: host6})
	if l.OffloadUDP() {
		t.Error("chains of UDP without offloads")
	}
	if !l.Offload() {
		t.Fatal("no offloads")
	}
	if !l.OffloadUDP() {
		nstest.Skip(t, "the kernel has no UDP offloads for TUN devices")
	}
	if err := l.Start(func() {}); err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"10.0.0.1", "fd00::1"} {
		testChains(t, l, netip.MustParseAddr(host))
	}
	if plain := openT(t, Config{NoOffload: true}); plain.OffloadUDP() {
		t.Error("chains of UDP in spite of NoOffload")
	}
}

// testChains has the kernel send a chain to the address behind host, and sends it back.
func testChains(t *testing.T, l *Link, host netip.Addr) {
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(host, 0)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, 1000) })
	if err != nil {
		nstest.Skip(t, "UDP_SEGMENT: %v", err)
	}
	sent := make([]byte, 2500)
	for i := range sent {
		sent[i] = byte(i / 1000)
	}
	if _, err := conn.WriteToUDPAddrPort(sent, netip.AddrPortFrom(host.Next(), 9)); err != nil {
		t.Fatal(err)
	}
	bufs, sizes := [][]byte{make([]byte, vnetHdrLen+65535)}, make([]int, 1)
	var p []byte
	for { // the kernel also sends reports of multicast groups
		if _, err := l.Read(bufs, sizes); err != nil {
			t.Fatal(err)
		}
		p = bufs[0][:sizes[0]]
		if ip, ok := wire.ViewIP(p[vnetHdrLen:]); ok && ip.Proto() == wire.ProtoUDP {
			break
		}
	}
	ip, _ := wire.ViewIP(p[vnetHdrLen:])
	if v := wire.ParseVnet(p); v.GSOType != 5 || v.GSOSize != 1000 || len(ip.Payload()) != 8+2500 {
		t.Errorf("%+v, %d bytes", v, len(ip.Payload()))
	}
	// The addresses and the ports change places, which leaves the checksums as they are.
	addrs, ports := ip.Addrs(), ip.Payload()
	swap := func(b []byte) {
		for i := range len(b) / 2 {
			b[i], b[i+len(b)/2] = b[i+len(b)/2], b[i]
		}
	}
	swap(addrs)
	swap(ports[:4])
	if n, err := l.Write([]net.Buffers{{p}}); n != 1 || err != nil {
		t.Fatalf("Write: %d, %v", n, err)
	}
	for i, want := range []int{1000, 1000, 500} {
		b := make([]byte, 2000)
		n, from, err := conn.ReadFromUDPAddrPort(b)
		if err != nil || n != want || b[0] != byte(i) || from.Port() != 9 ||
			from.Addr().Unmap() != host.Next() {
			t.Errorf("datagram %d: %d bytes of %d from %v, %v", i, n, b[0], from, err)
		}
	}
}
