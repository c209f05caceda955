package kern

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet/internal/kern/wire"
	"bsdnet/internal/testutil"
)

// TestUDPPortsUnpredictable: the ports that sockets get have nothing to do with each other, differ
// from stack to stack, and repeat with the stack's randomness.
func TestUDPPortsUnpredictable(t *testing.T) {
	draw := func(seed uint64) (ports []int) {
		k, err := New(Config{Rand: testutil.SeededRand(seed)})
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		for range 500 {
			so := udpSocket(t, k, "")
			if errno := so.Soconnect(ap("127.0.0.1:53")); errno != 0 {
				t.Fatal(errno)
			}
			ports = append(ports, int(so.Laddr().Port()))
			so.Soclose()
		}
		return ports
	}
	a, b, again := draw(1), draw(2), draw(1)
	if !slices.Equal(a, again) {
		t.Error("the ports of one seed differ")
	}
	equal, steps := 0, map[int]int{}
	var quarters [4]int
	for i := range a {
		if a[i] < portFirst || a[i] > portLast {
			t.Errorf("port %d", a[i])
		}
		if a[i] == b[i] {
			equal++
		}
		if i > 0 {
			steps[(a[i]-a[i-1]+portRange)%portRange]++
		}
		quarters[(a[i]-portFirst)*4/portRange]++
	}
	most := 0
	for _, n := range steps {
		most = max(most, n)
	}
	if equal > 5 || most > 4 || slices.Min(quarters[:]) < 80 {
		t.Errorf("%d ports are those of another seed, one step came %d times, quarters %v", equal, most, quarters)
	}
}

// TestUDPPortsExhausted: when no port is left, calls fail at once, and a port that is closed can be
// used again.
func TestUDPPortsExhausted(t *testing.T) {
	k := udpStack(t)
	var last *Socket
	n := 0
	for {
		so := udpSocket(t, k, "")
		if errno := so.Sobind(ap("127.0.0.1:0")); errno != 0 {
			if errno != syscall.EADDRNOTAVAIL && errno != syscall.EADDRINUSE {
				t.Errorf("the last port: %v", errno)
			}
			so.Soclose()
			break
		}
		last = so
		n++
	}
	if n != portRange {
		t.Errorf("%d ports were free", n)
	}
	port := last.Laddr().Port()
	last.Soclose()
	so := udpSocket(t, k, "127.0.0.1:0")
	if got := so.Laddr().Port(); got != port {
		t.Errorf("port %d, but only %d was free", got, port)
	}
}

// TestUDPReuseport: a flow stays with one socket of a group, the group shares the flows, and a more
// specific socket goes before the group.
func TestUDPReuseport(t *testing.T) {
	eachFamily(t, func(t *testing.T, v *victim, from, to netip.AddrPort) {
		var group []*Socket
		for range 4 {
			so := udpSocket(v, v.k, "")
			if to.Addr().Is6() {
				so.Soclose()
				so, _ = v.k.Socreate(AF_INET6, SOCK_DGRAM, 0)
			}
			so.Setnbio(true)
			v.no(so.Sosetopt(SOL_SOCKET, int(SO_REUSEPORT), 1))
			v.no(so.Sobind(netip.AddrPortFrom(so.inAny(), to.Port())))
			group = append(group, so)
			defer so.Soclose()
		}
		count := make([]int, len(group))
		for port := range 200 {
			src := netip.AddrPortFrom(from.Addr(), uint16(3000+port))
			for range 3 {
				v.inject(udpPacket(src, to, nil))
			}
			for i, so := range group {
				switch n := len(udpGot(so)); n {
				case 0:
				case 3:
					count[i]++
				default:
					t.Errorf("a socket has got %d of the 3 datagrams of a flow", n)
				}
			}
		}
		if slices.Min(count) < 25 {
			t.Errorf("the group has shared 200 flows as %v", count)
		}
	})
}

// TestUDPNoAllocs: no datagram is an allocation, over the loopback and from a wire.
func TestUDPNoAllocs(t *testing.T) {
	if testutil.Race {
		t.Skip("the race detector allocates")
	}
	v := attacked6(t, nil)
	defer v.done()
	v.link.quiet = true
	for _, ends := range udpEnds {
		so := v.udpBound(ends[1].String())
		p := udpPacket(ends[0], ends[1], make([]byte, 100))
		buf := make([]byte, 2000)
		msgs, in := batchOf(ends[1], 64, 64, 64, 70), make([]Msg, 4)
		for i := range in {
			in[i].Bufs = [][]byte{buf}
		}
		for what, f := range map[string]func(){
			"to itself":  func() { so.Sosendto(buf[:100], ends[1]); so.Soreceivefrom(buf) },
			"out":        func() { so.Sosendto(buf[:100], ends[0]) },
			"in":         func() { v.inject(p); so.Soreceivefrom(buf) },
			"in a batch": func() { so.Sosendmsgs(msgs, 0); so.Soreceivemsgs(in, 0) },
		} {
			if n := testing.AllocsPerRun(200, f); n > 0 {
				t.Errorf("%s, %v: %v allocations", what, ends[1], n)
			}
		}
		so.Soclose()
	}
}

// TestUDPBackPressure: a sender waits while SO_SNDBUF bytes of its are on the queue of a link that
// takes no more, or the queue is full of others' packets; a call that does not block fails, and one
// with a deadline when that has passed.
func TestUDPBackPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		full := true
		v.link.quiet = true
		v.link.take = func(n int) int {
			if full {
				return 0
			}
			return n
		}
		open := func(on bool) {
			v.link.mu.Lock()
			full = !on
			v.link.mu.Unlock()
			if on {
				v.link.ready()
			}
		}
		so := v.udpBound("10.0.0.1:7")
		defer so.Soclose()
		v.no(so.Sosetopt(SOL_SOCKET, SO_SNDBUF, 10000))
		data := make([]byte, 972)
		n := 0
		for {
			if _, errno := so.Sosendto(data, udpFrom); errno != 0 {
				if errno != syscall.EAGAIN {
					t.Errorf("a full queue: %v", errno)
				}
				break
			}
			n++
		}
		if n != 10 {
			t.Errorf("%d datagrams of 1000 bytes are on the queue, for a buffer of 10000", n)
		}
		so.Setnbio(false)
		deadline := time.Now().Add(time.Second)
		so.SetDeadlines(nil, &deadline)
		if _, errno := so.Sosendto(data, udpFrom); errno != syscall.EAGAIN || !time.Now().Equal(deadline) {
			t.Errorf("a deadline: %v", errno)
		}
		so.SetDeadlines(nil, &time.Time{})
		done := make(chan syscall.Errno)
		send := func() { _, errno := so.Sosendto(data, udpFrom); done <- errno }
		go send()
		settle()
		select {
		case errno := <-done:
			t.Fatalf("a call did not wait: %v", errno)
		default:
		}
		open(true)
		if errno := <-done; errno != 0 {
			t.Errorf("a call that has waited: %v", errno)
		}
		settle()
		if got := v.link.count(); got != n+1 {
			t.Errorf("%d packets were sent, want %d", got, n+1)
		}

		// Others fill the queue.
		open(false)
		var list []*Socket
		q := &v.ifp.queues[0]
		for i := 0; q.n < ifqMaxPackets; i++ {
			o := v.udpBound(fmt.Sprintf("10.0.0.1:%d", 1000+i))
			list = append(list, o)
			for {
				if _, errno := o.Sosendto(nil, udpFrom); errno != 0 {
					if errno != syscall.EAGAIN {
						t.Fatal(errno)
					}
					break
				}
			}
		}
		so.Setnbio(true)
		if _, errno := so.Sosendto(data, udpFrom); errno != syscall.EAGAIN {
			t.Errorf("the queue is full: %v", errno)
		}
		so.Setnbio(false)
		go send()
		settle()
		open(true)
		if errno := <-done; errno != 0 {
			t.Errorf("a call that has waited for others: %v", errno)
		}
		// The interface goes.
		open(false)
		for {
			if _, errno := list[0].Sosendto(nil, udpFrom); errno != 0 {
				break
			}
		}
		for _, o := range list[1:] {
			o.Sosendto(nil, udpFrom)
		}
		go func() {
			for {
				if _, errno := so.Sosendto(data, udpFrom); errno != 0 {
					done <- errno
					return
				}
			}
		}()
		settle()
		v.k.Detach(v.ifp)
		if errno := <-done; errno != syscall.ENETUNREACH && errno != syscall.ENETDOWN {
			t.Errorf("the interface has gone: %v", errno)
		}
		for _, o := range list {
			o.Soclose()
		}
	})
}

// FuzzUDP: no packet of UDP makes a stack panic, or keep memory, or receive what nobody has sent.
func FuzzUDP(f *testing.F) {
	for _, ends := range udpEnds {
		p := udpPacket(ends[0], ends[1], []byte("hello"))
		f.Add(p, uint16(0), false)
		f.Add(p, uint16(3), true)
		f.Add(slices.Concat(p, []byte{1, 2, 3}), uint16(0), false)
		f.Add(p[:len(p)-6], uint16(0), true)
	}
	f.Add(udpPacket(udpFrom, ap("239.1.2.3:7"), []byte("x")), uint16(1), true)
	f.Fuzz(func(t *testing.T, p []byte, seg uint16, mend bool) {
		v := attacked6(t, nil)
		defer v.done()
		v.link.quiet = true
		var list []*Socket
		for _, a := range []string{"0.0.0.0:7", "10.0.0.1:8", "[::]:9"} {
			so := v.udpBound(a)
			so.Joingroup(mcastGroup, v.ifp)
			list = append(list, so)
			defer so.Soclose()
		}
		if mend {
			p = mended(bytes.Clone(p))
		}
		m := v.k.pool.Getcl(max(len(p), 1))
		m.Append(p)
		m.Pkt.Len, m.Pkt.SegSize = len(m.Bytes()), int(seg)
		var g gro
		if g.receive(v.k, v.ifp, m) {
			t.Fatal("the first packet has been copied")
		}
		g.flush(v.k, v.ifp)
		v.k.ipForwardStart()
		for _, so := range list {
			for _, s := range udpGot(so) {
				if !bytes.Contains(p, []byte(s)) {
					t.Errorf("received %q from %x", s, p)
				}
			}
			if n := so.dg.used.Load(); n != 0 {
				t.Errorf("%d bytes are counted", n)
			}
		}
	})
}

// mended gives a packet right checksums, so that a fuzzer's packets get further.
func mended(p []byte) []byte {
	ip, ok := wire.ViewIP(p)
	if !ok || ip.Proto() != wire.ProtoUDP || ip.Hlen() > len(p) || len(p) > wire.MaxPacket {
		return p
	}
	if !ip.Is6() {
		p[10], p[11] = 0, 0
		binary.BigEndian.PutUint16(p[10:], wire.InCksum(p[:ip.Hlen()]))
	}
	u := wire.UDPView(ip.Payload())
	if len(u) >= wire.UDPLen && u.Len() >= wire.UDPLen && u.Len() <= len(u) {
		u = u[:u.Len()]
		p[ip.Hlen()+6], p[ip.Hlen()+7] = 0, 0
		u.SetSum(^wire.Fold(wire.Sum(u, wire.PseudoSum(ip.Src(), ip.Dst(), wire.ProtoUDP, len(u)))))
	}
	return p
}
