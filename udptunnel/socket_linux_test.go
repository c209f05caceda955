//go:build linux

package udptunnel

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/netip"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"bsdnet/internal/kern/wire"
	"bsdnet/internal/link/ends"
	"bsdnet/internal/nstest"
	"bsdnet/internal/testutil"
)

// connectedPair returns a tunnel whose session is up.
func connectedPair(t testing.TB, mtu int) (a, b *ends.End, x, y *Link) {
	x, y = tunnelPair(t, Config{MTU: mtu})
	a, b = ends.Start(t, x), ends.Start(t, y)
	return a, b, x, y
}

// converse sends a packet each way.
func converse(t *testing.T, e, to *ends.End) {
	t.Helper()
	for _, d := range [][2]*ends.End{{e, to}, {to, e}} {
		sent := make(chan error, 1)
		go func() { sent <- d[0].Send(lists(ends.Packet(9, 0, 40))...) }()
		d[1].Receive(t, 1)
		if err := <-sent; err != nil {
			t.Error(err)
		}
	}
}

// calls returns how many calls the tunnel has made to send.
func calls(l *Link) int {
	l.wmu.Lock()
	defer l.wmu.Unlock()
	return l.sock.calls
}

// Packets of one size are sent in one call, as many as the kernel takes.
func TestSegmentation(t *testing.T) {
	a, b, x, _ := connectedPair(t, 1400)
	converse(t, a, b)
	if x.sock.one {
		nstest.Skip(t, "the kernel has no UDP_SEGMENT")
	}
	var pkts [][]byte
	for i := range 100 {
		pkts = append(pkts, ends.Packet(1, i, 1300))
	}
	pkts[20] = pkts[20][:700] // the last of its group
	pkts[21] = pkts[21][:50]  // the only one of its size
	before := calls(x)
	for off := 0; off < len(pkts); off += 50 {
		if err := a.Send(lists(pkts[off : off+50]...)...); err != nil {
			t.Fatal(err)
		}
	}
	if n := calls(x) - before; n != 5 { // 21, 1, 28; 48, 2
		t.Errorf("%d calls for 100 packets; want 5", n)
	}
	for i, p := range b.Receive(t, 100) {
		if !bytes.Equal(p, pkts[i]) {
			t.Fatalf("packet %d arrives as %d", i, ends.Number(p))
		}
	}
}

// If the kernel refuses to cut a buffer, its datagrams are sent one by one, and the kernel is not
// asked again.
func TestSegmentationRefused(t *testing.T) {
	for _, errno := range []unix.Errno{unix.EIO, unix.EINVAL, unix.ENOPROTOOPT, unix.EOPNOTSUPP} {
		a, b, x, _ := connectedPair(t, 1400)
		converse(t, a, b)
		asked, sent := 0, 0
		x.wmu.Lock()
		x.sock.fail = func(n int) error {
			if n > 1 {
				asked++
				return errno
			}
			sent++
			return nil
		}
		x.wmu.Unlock()
		for i := range 40 {
			if err := a.Send(lists(ends.Packet(1, 2*i, 1000), ends.Packet(1, 2*i+1, 1000))...); err != nil {
				t.Fatal(err)
			}
		}
		for i, p := range b.Receive(t, 80) {
			if ends.Number(p) != i {
				t.Fatalf("%v: packet %d arrives as %d", errno, i, ends.Number(p))
			}
		}
		if want := 1; asked != want && errno != unix.EINVAL || sent != 80 {
			t.Errorf("%v: asked %d times, %d sent", errno, asked, sent)
		}
		a.Close()
		b.Close()
	}
}

// When the socket is full, Write returns at once and takes less than it is given, and ready is
// called when there is room. No packet is lost or sent twice.
func TestSocketFull(t *testing.T) {
	a, b, x, _ := connectedPair(t, 1400)
	converse(t, a, b)
	x.wmu.Lock()
	calls, full := 0, 0
	x.sock.fail = func(n int) error {
		if calls++; calls%3 > 0 {
			full++
			return errFull
		}
		return nil
	}
	x.wmu.Unlock()
	go func() {
		for i := range 50 {
			if err := a.Send(lists(ends.Packet(1, 2*i, 1000), ends.Packet(1, 2*i+1, 500+i))...); err != nil {
				t.Error(err)
			}
		}
	}()
	for i, p := range b.Receive(t, 100) {
		if ends.Number(p) != i {
			t.Fatalf("packet %d arrives as %d", i, ends.Number(p))
		}
	}
	x.wmu.Lock()
	defer x.wmu.Unlock()
	if full < 50 {
		t.Errorf("full %d times", full)
	}
}

// If the system does not send a datagram, that one is lost, and those behind it are not.
func TestSendErrors(t *testing.T) {
	a, b, x, _ := connectedPair(t, 1400)
	converse(t, a, b)
	x.wmu.Lock()
	calls := 0
	x.sock.fail = func(n int) error {
		if calls++; calls%2 == 0 {
			return unix.ENETUNREACH
		}
		return nil
	}
	x.wmu.Unlock()
	for i := range 20 {
		if n, err := a.Write(lists(ends.Packet(1, i, 1000))); n != 1 || err != nil {
			t.Fatalf("Write: %d, %v", n, err)
		}
	}
	for i, p := range b.Receive(t, 10) {
		if ends.Number(p) != 2*i {
			t.Errorf("packet %d arrives", ends.Number(p))
		}
	}
	if st := x.Stats(); st.Unsent != 10 {
		t.Errorf("%+v", st)
	}
}

// The path carries less than the MTU. A packet that does not fit is dropped and its sender is told;
// a packet that fits goes through.
func TestPathShrinks(t *testing.T) {
	a, b, x, _ := connectedPair(t, 9000)
	converse(t, a, b)
	refused := 0
	x.wmu.Lock()
	x.sock.fail = func(n int) error {
		if len(x.sock.b)/n > 1472 && !fragments(t, x) {
			refused++
			return errTooLarge
		}
		return nil
	}
	x.wmu.Unlock()
	told := make(chan []byte, 1)
	go func() { told <- a.Receive(t, 1)[0] }()
	for range 1000 { // until Read waits, which the message has to wake
		for x.reading.Load() == 0 {
			runtime.Gosched()
		}
		runtime.Gosched()
	}
	p := dfPacket(1, 3000)
	a.Send(lists(p, dfPacket(2, 1000), p, dfPacket(3, 1000))...)
	// The datagram of a packet that may be fragmented may be too.
	a.Send(lists(ends.Packet(1, 4, 3000), ends.Packet(1, 5, 1000))...)
	for i, number := range []int{2, 3, 4, 5} {
		if p := b.Receive(t, 1); ends.Number(p[0]) != number {
			t.Errorf("packet %d arrives as number %d", ends.Number(p[0]), i)
		}
	}
	b.Close() // nothing from there wakes a
	m := <-told
	if m[9] != 1 || m[20] != 3 || m[21] != 4 ||
		binary.BigEndian.Uint16(m[26:]) >= 3000 || !bytes.Equal(m[28:], p[:28]) {
		t.Errorf("told %x", m)
	}
	if st := x.Stats(); st.TooLarge != 2 || st.Unsent != 0 {
		t.Errorf("%+v", st)
	}
	x.wmu.Lock()
	defer x.wmu.Unlock()
	if refused != 2 { // the group, and the first alone
		t.Errorf("tried %d times what is too large", refused)
	}
}

// A stack's TCP learns what the path carries, over both families.
func TestPathShrinksStacks(t *testing.T) {
	x, y := tunnelPair(t, Config{MTU: 9000})
	x.sock.fail = func(n int) error {
		if len(x.sock.b)/n > 1472 {
			return errTooLarge
		}
		return nil
	}
	from, to := attachTo(t, x, "10.0.0.1/24", "fd00::1/64"), attachTo(t, y, "10.0.0.2/24", "fd00::2/64")
	ln, err := to.Listen("tcp", ":7")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for i, addr := range []string{"10.0.0.2:7", "[fd00::2]:7"} {
		c, err := from.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		in, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			c.Write(make([]byte, 1<<20))
			c.Close()
		}()
		if n, err := io.Copy(io.Discard, in); n != 1<<20 || err != nil {
			t.Errorf("%s: %d bytes, %v", addr, n, err)
		}
		in.Close()
		st := from.Stats()
		if told := []uint64{st.ICMP.Inerror, st.ICMP6.Inerror}[i]; told == 0 || x.Stats().TooLarge == 0 {
			t.Errorf("%s: %d messages, %+v", addr, told, x.Stats())
		}
	}
}

// fragments reports whether the kernel fragments what the socket sends now.
func fragments(t *testing.T, x *Link) (yes bool) {
	t.Helper()
	if err := x.sock.raw.Control(func(fd uintptr) {
		v, err := unix.GetsockoptInt(int(fd), unix.SOL_IP, unix.IP_MTU_DISCOVER)
		yes = err == nil && v == unix.IP_PMTUDISC_DONT
	}); err != nil {
		t.Error(err)
	}
	return yes
}

// The number of an interface is looked up once, not for each datagram, and again after sending has
// failed.
func TestZone(t *testing.T) {
	x := mustOpen(t, Config{})
	s := &x.sock
	lo := zoneIndex("lo")
	if lo == 0 {
		t.Fatal("no interface lo")
	}
	addr := func(i uint16) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr("fe80::1%lo"), i) }
	s.aim(addr(1))
	if s.in6.ZoneId != lo {
		t.Fatalf("zone %d; want %d", s.in6.ZoneId, lo)
	}
	s.zoneID = 1 << 30
	s.aim(addr(2))
	if s.in6.ZoneId != 1<<30 {
		t.Error("looked up again")
	}
	s.aim(netip.MustParseAddrPort("[2001:db8::1]:1"))
	if s.in6.ZoneId != 0 {
		t.Errorf("zone %d without one", s.in6.ZoneId)
	}
	s.ip6 = true // which the socket is not: the kernel refuses
	for range 2 {
		s.aim(addr(3))
		s.zoneID, s.in6.ZoneId = 1<<30, 1<<30
		if _, err := s.send([]byte{0}, 1, addr(3)); err == nil {
			t.Fatal("sent to nowhere")
		}
		if s.aim(addr(3)); s.in6.ZoneId != lo {
			t.Errorf("zone %d after an error; want %d", s.in6.ZoneId, lo)
		}
	}
}

// The kernel refuses a datagram, but says that the path carries it. A few smaller sizes are tried.
func TestPathUnknown(t *testing.T) {
	x := mustOpen(t, Config{MTU: 65475})
	to := udp(x.LocalAddr()) // the loopback, which carries all
	for _, carries := range []int{65000, 9000, 1500, 1400, 1280, 576} {
		fits := x.inner(carries, to)
		size, tries := x.mtu, 0
		for ; size > fits && tries < 100; tries++ {
			x.learnLimit(to, size)
			size = x.tx.limit
		}
		if tries > len(plateaus) || size < fits/2 && size < x.inner(32000, to) {
			t.Errorf("a path of %d: %d bytes after %d tries", carries, size, tries)
		}
	}
}

// In the steady state, sending a packet allocates no memory, and neither does receiving one.
func TestAllocs(t *testing.T) {
	if testutil.Race {
		t.Skip("the race detector allocates")
	}
	a, b, _, _ := connectedPair(t, 1400)
	converse(t, a, b)
	pkts := lists(ends.Packet(1, 0, 1300), ends.Packet(1, 1, 1300), ends.Packet(1, 2, 500))
	bufs, sizes := make([][]byte, 8), make([]int, 8)
	for i := range bufs {
		bufs[i] = make([]byte, 1400)
	}
	got := 0
	if n := testing.AllocsPerRun(200, func() {
		if k, err := a.Write(pkts); k != len(pkts) || err != nil {
			t.Fatalf("Write: %d, %v", k, err)
		}
		for k := 0; k < len(pkts); {
			n, err := b.Read(bufs, sizes)
			if err != nil {
				t.Fatal(err)
			}
			k += n
			got += n
		}
	}); n != 0 || got != 201*len(pkts) {
		t.Errorf("%v allocations for %d packets each way, %d in all", n, len(pkts), got)
	}
}

// The kernel itself says that a path shrinks: the path is a loopback in the test's own network
// namespace, and the test lowers its MTU.
func TestKernelPathShrinks(t *testing.T) {
	runtime.LockOSThread() // and never unlocked: the thread stays in its namespace, and ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		nstest.Skip(t, "a network namespace: %v (run as root, or by unshare -Urn)", err)
	}
	setLoopback(t, 65536)
	b := mustOpen(t, Config{})
	a := mustOpen(t, Config{Peer: b.LocalAddr().String()})
	if a.MTU() != 65475 {
		t.Fatalf("MTU %d", a.MTU())
	}
	x, y := ends.Start(t, a), ends.Start(t, b)
	large := ends.Packet(1, 0, 60000)
	go func() { // holds packets: the socket that asks for the path's MTU is made on this thread only
		if err := x.Send(lists(large)...); err != nil {
			t.Error(err)
		}
	}()
	bufs, sizes := [][]byte{make([]byte, 65535)}, make([]int, 1)
	if n, err := y.Read(bufs, sizes); n != 1 || err != nil || sizes[0] != len(large) {
		t.Fatalf("Read: %d, %v, %d bytes", n, err, sizes[0])
	}
	setLoopback(t, 1500)
	four := lists(dfPacket(1, 9000), dfPacket(2, 1440), dfPacket(3, 9000), dfPacket(4, 1441))
	if n, err := a.Write(four); n != 4 || err != nil {
		t.Fatalf("Write: %d, %v", n, err)
	}
	if n, err := y.Read(bufs, sizes); n != 1 || err != nil || ends.Number(bufs[0]) != 2 {
		t.Fatalf("Read: %d, %v, packet %d", n, err, ends.Number(bufs[0]))
	}
	for range 3 {
		n, err := x.Read(bufs, sizes)
		if m := bufs[0][:sizes[0]]; n != 1 || err != nil || m[20] != 3 || m[21] != 4 ||
			binary.BigEndian.Uint16(m[26:]) != 1440 {
			t.Errorf("told %x, %v", m, err)
		}
	}
	if n, err := a.Write(lists(ends.Packet6(1, 5, 9000), ends.Packet6(1, 6, 1440))); n != 2 || err != nil {
		t.Fatalf("Write: %d, %v", n, err)
	}
	if n, err := y.Read(bufs, sizes); n != 1 || err != nil || ends.Number(bufs[0]) != 6 {
		t.Fatalf("Read: %d, %v, packet %d", n, err, ends.Number(bufs[0]))
	}
	if m := x.Receive(t, 1)[0]; m[40] != wire.ICMPv6PacketTooBig || binary.BigEndian.Uint32(m[44:]) != 1440 {
		t.Errorf("told %x", m)
	}
	if st := a.Stats(); st.TooLarge != 4 {
		t.Errorf("%+v", st)
	}
}

// Over a path of 1280 bytes the tunnel still carries IPv6, whose packets every link has to carry up
// to 1280 bytes: their datagrams are sent in fragments. A sender of IPv4 can be told.
func TestSmallPath(t *testing.T) {
	for _, peer := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(peer, func(t *testing.T) { testSmallPath(t, peer) })
	}
}

func testSmallPath(t *testing.T, local string) {
	runtime.LockOSThread() // and never unlocked: the thread stays in its namespace, and ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		nstest.Skip(t, "a network namespace: %v (run as root, or by unshare -Urn)", err)
	}
	setLoopback(t, 1280)
	l, err := Open(Config{Key: testKey, Local: local})
	if err != nil {
		nstest.Skip(t, "%v", err) // no IPv6
	}
	t.Cleanup(func() { l.Close() })
	a := mustOpen(t, Config{Local: ":0", Peer: l.LocalAddr().String()})
	if a.MTU() != 1280 {
		t.Fatalf("MTU %d", a.MTU())
	}
	fits := a.inner(1280, udp(l.LocalAddr())) // 1220 over IPv4, 1200 over IPv6
	x, y := ends.Start(t, a), ends.Start(t, l)
	converse(t, x, y)
	for i, p := range [][]byte{
		ends.Packet6(1, 0, 1280), ends.Packet6(1, 1, fits), ends.Packet6(1, 2, fits+1), ends.Packet(1, 3, 1280),
	} {
		if n, err := x.Write(lists(p)); n != 1 || err != nil {
			t.Fatalf("Write: %d, %v", n, err)
		}
		if got := y.Receive(t, 1)[0]; !bytes.Equal(got, p) {
			t.Errorf("packet %d arrives as %d of %d bytes", i, ends.Number(got), len(got))
		}
	}
	if fragments(t, a) {
		t.Error("the next datagram may be fragmented too")
	}
	a.Write(lists(dfPacket(4, 1280), dfPacket(5, fits)))
	if p := y.Receive(t, 1)[0]; ends.Number(p) != 5 {
		t.Errorf("packet %d arrives; want 5", ends.Number(p))
	}
	if m := x.Receive(t, 1)[0]; m[20] != 3 || m[21] != 4 || int(binary.BigEndian.Uint16(m[26:])) != fits {
		t.Errorf("told %x; want an MTU of %d", m, fits)
	}
	if st := a.Stats(); st.TooLarge != 1 || st.Unsent != 0 {
		t.Errorf("%+v", st)
	}
}

// setLoopback brings up the loopback of the thread's namespace with an MTU.
func setLoopback(t *testing.T, mtu uint32) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	ifr.SetUint32(mtu)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFMTU, ifr); err != nil {
		t.Fatal(err)
	}
	ifr.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		t.Fatal(err)
	}
}

// A peer to which there is no route is distinguished from one that does not answer.
func TestStatusUnreachable(t *testing.T) {
	for _, errno := range []unix.Errno{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EINVAL} {
		x := mustOpen(t, Config{Peer: "192.0.2.1:9"})
		x.sock.fail = func(int) error { return errno }
		ends.Start(t, x)
		s := until(t, x, "an error", func(s Status) bool { return s.SocketErr != nil })
		says(t, s.Err, "no answer from 192.0.2.1:9: "+errno.Error())
		x.wmu.Lock()
		x.sock.fail = func(int) error { return nil }
		x.wmu.Unlock()
	}
}

// The kernel's messages about sent datagrams: those of ICMP are noted, and its own are ignored.
func TestExtendedError(t *testing.T) {
	message := func(level, typ int32, errno uint32, origin byte) []byte {
		b := make([]byte, unix.CmsgSpace(16))
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		h.Level, h.Type = level, typ
		h.SetLen(unix.CmsgLen(16))
		data := b[unix.CmsgLen(0):]
		binary.NativeEndian.PutUint32(data, errno)
		data[4] = origin
		return b
	}
	for _, c := range []struct {
		oob  []byte
		want unix.Errno
	}{
		{nil, 0},
		{message(unix.SOL_IP, unix.IP_RECVERR, uint32(unix.ECONNREFUSED), unix.SO_EE_ORIGIN_ICMP), unix.ECONNREFUSED},
		{message(unix.SOL_IPV6, unix.IPV6_RECVERR, uint32(unix.EACCES), unix.SO_EE_ORIGIN_ICMP6), unix.EACCES},
		{message(unix.SOL_IP, unix.IP_RECVERR, uint32(unix.EMSGSIZE), unix.SO_EE_ORIGIN_LOCAL), 0},
		{message(unix.SOL_UDP, unix.IP_RECVERR, uint32(unix.ECONNREFUSED), unix.SO_EE_ORIGIN_ICMP), 0},
		{message(unix.SOL_IP, unix.IP_RECVERR, uint32(unix.ECONNREFUSED), unix.SO_EE_ORIGIN_ICMP)[:20], 0},
	} {
		if got := extendedError(c.oob); got != c.want {
			t.Errorf("%x: %v, want %v", c.oob, got, c.want)
		}
	}
}
