//go:build linux

package contract

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"bsdnet/internal/nstest"
	"bsdnet/internal/testutil"

	"golang.org/x/sys/unix"
)

// A udpGame makes calls on sockets of one host: A and B without a peer, C and D whose peer is A, E
// whose peer is a port that nobody has, and F and G, each the peer of the other. The dice choose
// the calls.
type udpGame struct {
	t     *testing.T
	end   end
	d     testutil.Dice
	socks []udpConn
	names *strings.Replacer // of addresses, in results
	dests []*net.UDPAddr
	held  int // what receive buffers may hold, in bytes, at most

	kernel   bool
	readable []bool // what each read found, with package net; the game over the stack repeats it
	out      []string
}

// play makes the calls and returns their results. ready has the answers of package net's game, if
// this is another.
func playUDP(t *testing.T, n *network, d testutil.Dice, ready []bool) *udpGame {
	g := &udpGame{t: t, end: n.serverEnd(), d: d, kernel: n.kernel, readable: ready}
	g.open()
	for g.d.More() {
		name, result := g.call()
		g.out = append(g.out, name+": "+g.names.Replace(result))
	}
	for _, c := range g.socks {
		c.Close()
	}
	return g
}

func (g *udpGame) open() {
	t, e := g.t, g.end
	a, b, gone := e.open(t), e.open(t), e.open(t)
	to := a.LocalAddr().String()
	c, d, ee := e.connect(t, to), e.connect(t, to), e.connect(t, gone.LocalAddr().String())
	gone.Close()
	f, h := (&network{server: e.stack, client: e.stack, shost: e.host, chost: e.host}).udpPair(t)
	g.socks = []udpConn{a, b, c, d, ee, f, h}
	var names []string
	for i, s := range g.socks {
		names = append(names, s.LocalAddr().String(), string(rune('A'+i)))
		g.dests = append(g.dests, udpAddr(s))
	}
	names = append(names, gone.LocalAddr().String(), "gone")
	g.dests = append(g.dests, udpAddr(gone), nil, &net.UDPAddr{}, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: -1},
		&net.UDPAddr{IP: net.IPv6loopback, Port: 7}, &net.UDPAddr{IP: net.IP{1, 2, 3}, Port: 7},
		&net.UDPAddr{Port: udpAddr(b).Port}, &net.UDPAddr{IP: net.IPv4zero, Port: udpAddr(a).Port})
	names = append(names, fmt.Sprintf(":%d", udpAddr(b).Port), ":B")
	names = append(names, fmt.Sprintf(":%d", udpAddr(a).Port), ":A")
	g.names = strings.NewReplacer(names...)
}

// call makes one call, and returns its name and its result.
func (g *udpGame) call() (name, result string) {
	i := g.d.N(len(g.socks))
	c := g.socks[i]
	who := string(rune('A' + i))
	switch g.d.N(16) {
	case 0:
		return who + ".Close", describe(c.Close())
	case 1:
		return who + ".SetWriteDeadline(past)", describe(c.SetWriteDeadline(past))
	case 2, 3:
		return who + ".SetWriteDeadline(none)", describe(c.SetWriteDeadline(time.Time{}))
	case 4:
		return who + ".SetReadBuffer", describe(c.SetReadBuffer(200 << 10))
	case 5:
		return who + ".SetWriteBuffer", describe(c.SetWriteBuffer(200 << 10))
	case 6:
		return g.again(i)
	case 7, 8, 9:
		return g.read(who, c)
	}
	return g.write(who, c)
}

// again opens a socket that has been closed, under its old address.
func (g *udpGame) again(i int) (name, result string) {
	old := g.socks[i]
	var err error
	var c udpConn
	if peer, ok := old.RemoteAddr().(*net.UDPAddr); ok {
		c, err = g.end.dialUDP("udp", udpAddr(old), peer)
	} else {
		c, err = g.end.listenUDP("udp", udpAddr(old))
	}
	if err == nil {
		g.t.Cleanup(func() { c.Close() })
		g.socks[i] = c
	}
	return string(rune('A'+i)) + " again", describe(err)
}

func (g *udpGame) read(who string, c udpConn) (name, result string) {
	ready := g.ready(c)
	deadline := past
	if ready {
		deadline = time.Now().Add(10 * time.Second)
	}
	c.SetReadDeadline(deadline)
	size := []int{0, 1, 10, 70000}[g.d.N(4)]
	b := make([]byte, size)
	if i := g.d.N(len(udpReads) + 1); i < len(udpReads) {
		r := udpReads[i]
		k, from, err := r.do(c, b)
		return fmt.Sprintf("%s.%s of %d, readable %v", who, r.name, size, ready),
			fmt.Sprintf("%q from %s, %s", brief(b[:k]), from, describe(err))
	}
	k, _, flags, from, err := c.ReadMsgUDP(b, nil)
	return fmt.Sprintf("%s.ReadMsgUDP of %d with flags, readable %v", who, size, ready),
		fmt.Sprintf("%q from %v, flags %#x, %s", brief(b[:max(k, 0)]), from, flags&syscall.MSG_TRUNC, describe(err))
}

// ready reports whether a read from c would not wait, with package net.
func (g *udpGame) ready(c udpConn) (ready bool) {
	if g.kernel {
		ready = pollIn(c)
		g.readable = append(g.readable, ready)
		return ready
	}
	ready, g.readable = g.readable[0], g.readable[1:]
	return ready
}

// drain reads everything that can be read, so that no buffer is full, whatever its size.
func (g *udpGame) drain() {
	for i, c := range g.socks {
		for g.ready(c) {
			c.SetReadDeadline(time.Now().Add(10 * time.Second))
			n, _, err := c.ReadFrom(make([]byte, 70000))
			g.out = append(g.out, g.names.Replace(fmt.Sprintf("%c drained: %d, %s", 'A'+i, n, describe(err))))
		}
	}
	g.held = 0
}

// pollIn reports whether a read from package net's socket would not wait.
func pollIn(c udpConn) (ready bool) {
	rc, err := c.(*net.UDPConn).SyscallConn()
	if err != nil {
		return false
	}
	rc.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, _ := unix.Poll(fds, 0)
		ready = n > 0
	})
	return ready
}

func (g *udpGame) write(who string, c udpConn) (name, result string) {
	size := []int{0, 1, 9, 11, 1000, 1000, 1000, 65507, 65508, 70000}[g.d.N(10)]
	if g.held += size + 1000; g.held > 150_000 {
		g.drain()
	}
	b := make([]byte, size)
	for i := range b {
		b[i] = byte('a' + i%26)
	}
	if g.d.One(3) {
		k, err := c.Write(b)
		return fmt.Sprintf("%s.Write of %d", who, size), fmt.Sprint(k, " ", describe(err))
	}
	to := g.dests[g.d.N(len(g.dests))]
	w := udpWrites[g.d.N(len(udpWrites)-2)]
	if to != nil && to.Port < 0 {
		b = b[:min(size, 1000)] // of two errors the first would have to be the same
	}
	if to == nil {
		k, _, err := c.WriteMsgUDP(b, nil, to)
		j, _, merr := c.WriteMsgUDPAddrPort(b, nil, netip.AddrPort{})
		return fmt.Sprintf("%s.WriteMsgUDP of %d", who, size), fmt.Sprint(k, j, describe(err), describe(merr))
	}
	k, err := w.do(c, b, to)
	return fmt.Sprintf("%s.%s of %d to %s", who, w.name, len(b), g.names.Replace(to.String())),
		fmt.Sprint(k, " ", describe(err))
}

func brief(b []byte) string {
	if len(b) > 20 {
		return fmt.Sprintf("%s… of %d", b[:20], len(b))
	}
	return string(b)
}

// TestUDPCallSequences tests that random calls on seven sockets have the results that they have
// with package net on Linux.
func TestUDPCallSequences(t *testing.T) {
	t.Run("IPv4", func(t *testing.T) { compareUDPGames(t, "127.0.0.1", testutil.Games(150, 30)) })
	t.Run("IPv6", func(t *testing.T) {
		if l, err := net.ListenPacket("udp6", "[::1]:0"); err != nil {
			nstest.Skip(t, "the system has no IPv6: %v", err)
		} else {
			l.Close()
		}
		compareUDPGames(t, "::1", testutil.Games(50, 10))
	})
}

// compareUDPGames plays games at an address of the loopback.
func compareUDPGames(t *testing.T, host string, games uint64) {
	kern := &network{kernel: true, shost: host, chost: host}
	own := func(t testing.TB) *network {
		n := loopback(t)
		n.shost, n.chost = host, host
		return n
	}
	for seed := range games {
		same := false
		var diff string
		// Linux's loopback may put a datagram off under load; ours repeats exactly.
		for try := 0; !same && try < 3; try++ {
			want := playUDP(t, kern, testutil.SeededBytes(seed, 250), nil)
			inBubble(t, own, func(t *testing.T, n *network) {
				got := playUDP(t, n, testutil.SeededBytes(seed, 250), want.readable)
				same, diff = compareUDP(want.out, got.out)
			})
		}
		if !same {
			t.Errorf("seed %d: %s", seed, diff)
		}
	}
}

// compareUDP compares the results of two games, and shows the first difference with the calls
// before it.
func compareUDP(want, got []string) (same bool, diff string) {
	for i := range want {
		if i == len(got) || want[i] != got[i] {
			return false, fmt.Sprintf("\n\t%s\npackage net:\n\t%s\nbsdnet:\n\t%s",
				strings.Join(want[max(0, i-12):i], "\n\t"), want[i], append(got, "nothing")[min(i, len(got))])
		}
	}
	return len(want) == len(got), "more calls"
}
