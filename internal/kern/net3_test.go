package kern

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
	"bsdnet/internal/kern/wire/trace"
)

// A tcpdump is a capture's reader: it keeps a line for each segment that passes a loopback, numbers
// relative as tcpdump prints them. The side that sends the first SYN is c, the other s; a socket
// that talks to itself has no sides.
type tcpdump struct {
	t *testing.T

	mu    sync.Mutex
	cport uint16 // c's
	isn   map[uint16]tcp.Seq
	lines []string
}

// tsValues matches what differs from run to run in a line.
var tsValues = regexp.MustCompile(`TS val \d+ ecr \d+`)

// Write takes a record of a capture: Capture writes each with one call, behind the file's header.
func (d *tcpdump) Write(p []byte) (int, error) {
	n := len(p)
	d.mu.Lock()
	defer d.mu.Unlock()
	if n == wire.PcapHeaderLen {
		return n, nil
	}
	p = p[wire.PcapRecordLen:]
	ip, err := wire.ParseIPv4(p, len(p))
	if err != nil {
		d.t.Errorf("capture: %v", err)
		return n, nil
	}
	if ip.Proto != wire.ProtoTCP {
		d.lines = append(d.lines, fmt.Sprintf("icmp type %d", p[ip.Hlen]))
		return n, nil
	}
	d.segment(p[ip.Hlen:ip.Len])
	return n, nil
}

func (d *tcpdump) segment(p []byte) {
	var th wire.TCP
	if err := wire.ParseTCP(p, &th); err != nil {
		d.t.Errorf("capture: %v", err)
		return
	}
	if d.isn == nil {
		d.isn, d.cport = map[uint16]tcp.Seq{}, th.Sport
	}
	if th.Flags&wire.SYN != 0 {
		d.isn[th.Sport] = th.Seq
	}
	side := "s>c "
	switch {
	case th.Sport == th.Dport:
		side = ""
	case th.Sport == d.cport:
		side = "c>s "
	}
	line := trace.Format(&th, len(p)-th.Hlen, d.isn[th.Sport], d.isn[th.Dport])
	d.lines = append(d.lines, side+tsValues.ReplaceAllString(line, "TS"))
}

// expect compares what has passed with the lines of want, from the first on; in them "//" begins a
// comment.
func (d *tcpdump) expect(want string) {
	d.t.Helper()
	synctest.Wait() // until the capture has been written
	d.mu.Lock()
	defer d.mu.Unlock()
	var lines []string
	for l := range strings.Lines(want) {
		l, _, _ = strings.Cut(l, "//")
		if l = strings.Join(strings.Fields(l), " "); l != "" {
			lines = append(lines, l)
		}
	}
	for i := range max(len(lines), len(d.lines)) {
		got, want := "nothing", "nothing"
		if i < len(d.lines) {
			got = d.lines[i]
		}
		if i < len(lines) {
			want = lines[i]
		}
		if got != want {
			d.t.Fatalf("segment %d is %s\n      want %s\nall:\n%s", i+1, got, want, strings.Join(d.lines, "\n"))
		}
	}
}

// A prog is a process on a stack of its own whose loopback is captured. A call that fails ends the
// test.
type prog struct {
	t    *testing.T
	k    *Kernel
	p    *Proc
	dump tcpdump
}

// newProg makes one. A loopback's MTU of 0 is the profile's usual.
func newProg(t *testing.T, profile *tcp.Profile, mtu int) *prog {
	t.Helper()
	k, err := New(Config{Profile: profile, LoopbackMTU: mtu})
	if err != nil {
		t.Fatal(err)
	}
	g := &prog{t: t, k: k, p: k.NewProc()}
	g.dump.t = t
	if _, err := k.Lo0().Capture(&g.dump); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		k.Close()
		if n, bytes := k.Pool().Outstanding(); n != 0 || bytes != 0 {
			t.Errorf("%d buffers with %d bytes are left", n, bytes)
		}
	})
	return g
}

// ok ends the test where a call has failed.
func (g *prog) ok(errno syscall.Errno) {
	g.t.Helper()
	if errno != 0 {
		g.t.Fatal(errno)
	}
}

func (g *prog) socket() int {
	g.t.Helper()
	fd, errno := g.p.Socket(AF_INET, SOCK_STREAM, 0)
	g.ok(errno)
	return fd
}

// listener returns a socket that listens on 0.0.0.0 and a port.
func (g *prog) listener(port uint16) int {
	g.t.Helper()
	fd := g.socket()
	g.ok(g.p.Bind(fd, netip.AddrPortFrom(netip.IPv4Unspecified(), port)))
	g.ok(g.p.Listen(fd, 5))
	return fd
}

func (g *prog) connect(port uint16) int {
	g.t.Helper()
	fd := g.socket()
	g.ok(g.p.Connect(fd, localhost(port)))
	return fd
}

func (g *prog) accept(fd int) int {
	g.t.Helper()
	nfd, _, errno := g.p.Accept(fd)
	g.ok(errno)
	return nfd
}

// send and recv do not block and must move n bytes.
func (g *prog) send(fd, size, n int) {
	g.t.Helper()
	got, errno := g.p.Send(fd, make([]byte, size), MSG_DONTWAIT)
	if got != n {
		g.t.Fatalf("send of %d took %d (%v), want %d", size, got, errno, n)
	}
}

func (g *prog) recv(fd, size, n int) {
	g.t.Helper()
	got, errno := g.p.Recv(fd, make([]byte, size), MSG_DONTWAIT)
	if got != n {
		g.t.Fatalf("recv of %d got %d (%v), want %d", size, got, errno, n)
	}
}

func (g *prog) close(fd int) {
	g.t.Helper()
	g.ok(g.p.Close(fd))
}

func localhost(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
}

// fasttimo lets the book's fast timer go by once: in 200 ms whatever acknowledgment is delayed has
// left.
func fasttimo() {
	time.Sleep(200 * time.Millisecond)
	synctest.Wait()
}

// net3MTU is the book's LOMTU.
const net3MTU = 1536

// With the book's values the stack sends the book's segments, one for one.
func TestNet3Trace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newProg(t, tcp.Net3(), net3MTU)
		l := g.listener(1234)
		c := g.connect(1234) // and the whole handshake is over
		s := g.accept(l)
		g.send(c, 10240, 8976)
		for range 4 {
			fasttimo()
		}
		g.recv(s, 7000, 7000)
		addr := g.p.Sock(c).Laddr()
		g.close(c)
		g.close(s)
		g.close(l)
		g.dump.expect(`
			c>s S 0:0(0) win 8192 <mss 1496>
			s>c S. 0:0(0) ack 1 win 8976 <mss 1496>  // 8192 rounded up to whole segments
			c>s . 1:1(0) ack 1 win 8976
			c>s . 1:1497(1496) ack 1 win 8976        // slow start from one segment
			s>c . 1:1(0) ack 1497 win 7480           // each acknowledgment leaves at tcp_fasttimo
			c>s . 1497:2993(1496) ack 1 win 8976
			c>s . 2993:4489(1496) ack 1 win 8976
			s>c . 1:1(0) ack 4489 win 4488
			c>s . 4489:5985(1496) ack 1 win 8976
			c>s . 5985:7481(1496) ack 1 win 8976
			c>s P. 7481:8977(1496) ack 1 win 8976
			s>c . 1:1(0) ack 8977 win 0
			s>c . 1:1(0) ack 8977 win 7000           // 7000 bytes have been read: a window update
			c>s F. 8977:8977(0) ack 1 win 8976
			s>c . 1:1(0) ack 8978 win 7000
			s>c F. 1:1(0) ack 8978 win 8976          // 1976 unread bytes are gone: a FIN, not a reset
			c>s . 8978:8978(0) ack 2 win 8976
		`)
		g.wantEnd(addr, tcp.TimeWait)
	})
}

// selfConnect connects a socket to itself: a socket that is bound to a port connects to that port.
// It returns the states that its one control block sends its segments in.
func selfConnect(t *testing.T, g *prog) (states []tcp.State) {
	t.Helper()
	fd := g.socket()
	so := g.p.Sock(fd)
	note := func(at string) {
		if at != "looutput" {
			return
		}
		if s := so.tp.State(); len(states) == 0 || states[len(states)-1] != s {
			states = append(states, s)
		}
	}
	g.ok(g.p.Bind(fd, localhost(1024)))
	g.k.chain = note
	g.ok(g.p.Connect(fd, localhost(1024)))
	g.send(fd, 5, 5)
	fasttimo()
	g.recv(fd, 5, 5)
	fasttimo()
	g.close(fd)
	return states
}

// Simultaneous open and simultaneous close, on one control block (RFC 9293, 3.5 and 3.6). Net/3
// repeats the FIN with the acknowledgment of the other's, and so does FreeBSD.
func TestSelfConnect(t *testing.T) {
	for _, c := range []struct {
		profile *tcp.Profile
		mtu     int
		end     tcp.State
		want    string
	}{
		{tcp.Net3(), net3MTU, tcp.TimeWait, `
			S 0:0(0) win 8192 <mss 1496>
			S. 0:0(0) ack 1 win 8976 <mss 1496>
			. 1:1(0) ack 1 win 8976
			P. 1:6(5) ack 1 win 8976
			. 6:6(0) ack 6 win 8971
			F. 6:6(0) ack 6 win 8976
			F. 6:6(0) ack 7 win 8976
			. 7:7(0) ack 7 win 8976`},
		{tcp.FreeBSD(), net3MTU, tcp.TimeWait, `
			S 0:0(0) win 65535 <mss 1496,nop,wscale 6,sackOK,TS>
			S. 0:0(0) ack 1 win 65535 <mss 1496,nop,wscale 6,sackOK,TS>
			. 1:1(0) ack 1 win 1029 <nop,nop,TS>
			P. 1:6(5) ack 1 win 1029 <nop,nop,TS>
			. 6:6(0) ack 6 win 1029 <nop,nop,TS>
			F. 6:6(0) ack 6 win 1029 <nop,nop,TS>
			F. 6:6(0) ack 7 win 1029 <nop,nop,TS>
			. 7:7(0) ack 7 win 1029 <nop,nop,TS>`},
		{tcp.Default(), 0, tcp.Closed, `
			S 0:0(0) win 65535 <mss 65495,nop,wscale 8,sackOK,TS>
			S. 0:0(0) ack 1 win 65535 <mss 65495,nop,wscale 8,sackOK,TS>
			. 1:1(0) ack 1 win 1024 <nop,nop,TS>
			P. 1:6(5) ack 1 win 1024 <nop,nop,TS>
			. 6:6(0) ack 6 win 1024 <nop,nop,TS>
			F. 6:6(0) ack 6 win 1024 <nop,nop,TS>
			. 7:7(0) ack 7 win 1024 <nop,nop,TS>`},
	} {
		t.Run(c.profile.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newProg(t, c.profile, c.mtu)
				states := selfConnect(t, g)
				g.dump.expect(c.want)
				want := []tcp.State{tcp.SynSent, tcp.SynReceived, tcp.Established, tcp.FinWait1, tcp.Closing}
				if c.end == tcp.TimeWait { // the FIN that came again is acknowledged again
					want = append(want, c.end)
				}
				if !slices.Equal(states, want) {
					t.Errorf("states %v, want %v", states, want)
				}
				g.wantEnd(localhost(1024), c.end)
			})
		})
	}
}

// wantEnd ends the test unless the connection from a has become a TIME_WAIT record, which ends
// after 2 MSL, or, for CLOSED, has ended.
func (g *prog) wantEnd(a netip.AddrPort, end tcp.State) {
	g.t.Helper()
	list := g.k.Pcblist()
	if end == tcp.TimeWait {
		if len(list) != 1 || list[0].State != end || list[0].Local != a {
			g.t.Fatalf("left: %+v, want %v in %v", list, a, end)
		}
		msl := time.Duration(g.k.prof.MSL)
		time.Sleep(2*msl - time.Millisecond)
		if len(g.k.Pcblist()) != 1 {
			g.t.Fatal("TIME_WAIT is over before 2 MSL")
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		list = g.k.Pcblist()
	}
	if len(list) != 0 {
		g.t.Fatalf("left: %+v, want nothing", list)
	}
}
