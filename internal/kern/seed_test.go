package kern

import (
	"fmt"
	"net/netip"
	"regexp"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet/internal/kern/tcp"
)

// TestSeedHandshake sets up a connection over the loopback, one call after another, for a debugger:
// docs/step-through.md.
func TestSeedHandshake(t *testing.T) {
	k, err := New(Config{Profile: tcp.Net3(), LoopbackMTU: net3MTU})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	p := k.NewProc()
	server, _ := p.Socket(AF_INET, SOCK_STREAM, 0)
	p.Bind(server, netip.AddrPortFrom(netip.IPv4Unspecified(), 1234))
	p.Listen(server, 5)

	client, _ := p.Socket(AF_INET, SOCK_STREAM, 0)
	if errno := p.Connect(client, localhost(1234)); errno != 0 {
		t.Fatal(errno)
	}
	accepted, _, errno := p.Accept(server)
	if errno != 0 {
		t.Fatal(errno)
	}
	p.Send(client, []byte("hello"), 0)
	buf := make([]byte, 16)
	if n, errno := p.Recv(accepted, buf, 0); errno != 0 || string(buf[:n]) != "hello" {
		t.Fatalf("received %q, %v", buf[:n], errno)
	}
	p.Close(client)
	p.Close(accepted)
	p.Close(server)
}

// show prints what a reader of the book follows through each call: so_state, options and queues of
// a listener, t_state, the timers that are on, and the bytes in the buffers if there are any.
// SS_WASCONNECTED, which BSD does not know, is left out.
func (g *prog) show(so *Socket) string {
	so.lock()
	defer so.mu.Unlock()
	line := fmt.Sprint(so.state &^ ssWasconnected)
	if so.options&SO_ACCEPTCONN != 0 {
		line += fmt.Sprintf(" SO_ACCEPTCONN qlen %d qlimit %d", len(so.lq.q), so.lq.qlimit)
	}
	if so.err != 0 {
		line += " " + map[syscall.Errno]string{syscall.ECONNRESET: "ECONNRESET",
			syscall.ECONNABORTED: "ECONNABORTED"}[syscall.Errno(so.err)]
	}
	line += " " + so.tp.State().String()
	if so.inp.tw != nil {
		line += " (record)"
	}
	if so.dead {
		line += " detached"
	}
	for _, timer := range []string{"rexmt", "persist", "keep", "2msl", "delack"} {
		if at, on := so.tp.Timer(timer); on {
			line += fmt.Sprintf(" %s %v", timer, time.Duration(at-g.k.now()).Round(20*time.Millisecond))
		}
	}
	if n := so.snd.Cc(); n > 0 {
		line += fmt.Sprintf(" snd %d", n)
	}
	if n := so.rcv.Cc(); n > 0 {
		line += fmt.Sprintf(" rcv %d", n)
	}
	return line
}

// over is what soisdisconnected leaves of so_state.
const over = "SS_ISDISCONNECTED|SS_CANTSENDMORE|SS_CANTRCVMORE"

var perProfile = regexp.MustCompile(`\{(.*?)\|(.*?)\}`)

// want compares a socket's state. Of "{a|b}" the first is for Net3, the second for Default.
func (g *prog) want(step string, so *Socket, want string) {
	g.t.Helper()
	which := "$2"
	if g.k.prof.Name == "Net3" {
		which = "$1"
	}
	want = perProfile.ReplaceAllString(want, which)
	if got := g.show(so); got != want {
		g.t.Errorf("%s: %s\n   want: %s", step, got, want)
	}
}

// step delivers what is on the loopback's queues and holds back what is sent in answer: ipintr by
// hand, one packet at a time.
func (g *prog) step() {
	g.k.chain = func(at string) {
		if at == "looutput" {
			wedge(g.k, true)
		}
	}
	wedge(g.k, false)
	g.k.lo0.ready()
	synctest.Wait()
	wedge(g.k, true)
	g.k.chain = nil
}

// The state after each call and each segment is the book's, except for what RFCs have changed
// since.
func TestSeedStates(t *testing.T) {
	for _, p := range []*tcp.Profile{tcp.Net3(), tcp.Default()} {
		t.Run(p.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newProg(t, p, net3MTU)
				l := g.statesOpen()
				c, s := g.statesHandshake(l)
				g.statesData(c, s)
				g.statesClose(c, s)
				c, s = g.statesHandshake(l)
				g.statesShutdown(c, s)
				g.statesListenerClose(l)
			})
		})
	}
}

// statesOpen follows socket, bind and listen.
func (g *prog) statesOpen() (l int) {
	l = g.socket()
	so := g.p.Sock(l)
	g.want("socket", so, "0 CLOSED")
	if so.snd.Hiwat() != g.k.prof.Sendspace || so.rcv.Hiwat() != g.k.prof.Recvspace {
		g.t.Errorf("socket: buffers of %d and %d, want the profile's", so.snd.Hiwat(), so.rcv.Hiwat())
	}
	if so.snd.lowat != 2048 && g.k.prof.Name == "Net3" || so.rcv.lowat != 1 {
		g.t.Errorf("socket: low-water marks of %d and %d, want 2048 and 1", so.snd.lowat, so.rcv.lowat)
	}
	g.ok(g.p.Bind(l, netip.AddrPortFrom(netip.IPv4Unspecified(), 1234)))
	g.want("bind", so, "0 CLOSED")
	if so.inp.lport != 1234 {
		g.t.Errorf("bind: port %d", so.inp.lport)
	}
	g.ok(g.p.Listen(l, 5))
	g.want("listen", so, "0 SO_ACCEPTCONN qlen 0 qlimit 5 LISTEN")
	return l
}

// statesHandshake follows connect and accept, a segment at a time.
func (g *prog) statesHandshake(l int) (c, s int) {
	head := g.p.Sock(l)
	wedge(g.k, true)
	c = g.socket()
	g.p.Fcntl(c, F_SETFL, O_NONBLOCK)
	if errno := g.p.Connect(c, localhost(1234)); errno != syscall.EINPROGRESS {
		g.t.Fatalf("connect: %v", errno)
	}
	so := g.p.Sock(c)
	// KEEP is off, not 75 s: over the loopback a SYN is never lost, and may wait for its place at
	// the listener.
	g.want("connect", so, "SS_ISCONNECTING|SS_NBIO SYN_SENT rexmt {6s|1s}")
	g.step()
	g.want("SYN, at the listener", head, "0 SO_ACCEPTCONN qlen 0 qlimit 5 LISTEN")
	if n := g.k.syncache.n; n != 1 {
		g.t.Errorf("SYN: %d entries in the syncache, want 1", n)
	}
	g.step()
	g.want("SYN,ACK, at the client", so, "SS_ISCONNECTED|SS_NBIO ESTABLISHED{| keep 15s}")
	g.want("SYN,ACK, at the listener", head, "0 SO_ACCEPTCONN qlen 0 qlimit 5 LISTEN")
	g.step()
	g.want("ACK, at the listener", head, "0 SO_ACCEPTCONN qlen 1 qlimit 5 LISTEN")
	g.want("ACK, the new socket", head.lq.q[0], "SS_NOFDREF|SS_ISCONNECTED ESTABLISHED{| keep 15s}")
	s = g.accept(l)
	g.want("accept", g.p.Sock(s), "SS_ISCONNECTED ESTABLISHED{| keep 15s}")
	g.want("accept, at the listener", head, "0 SO_ACCEPTCONN qlen 0 qlimit 5 LISTEN")
	return c, s
}

// statesData follows send and receive.
func (g *prog) statesData(c, s int) {
	cso, sso := g.p.Sock(c), g.p.Sock(s)
	g.send(c, 5, 5)
	g.want("send", cso, "SS_ISCONNECTED|SS_NBIO ESTABLISHED rexmt {1s|200ms keep 15s} snd 5")
	g.step()
	g.want("data, at the receiver", sso, "SS_ISCONNECTED ESTABLISHED {delack 200ms|keep 15s delack 40ms} rcv 5")
	g.recv(s, 5, 5)
	// In Default the first read tells the peer of the window beyond a SYN,ACK's 65535, and with
	// that acknowledges.
	g.want("receive", sso, "SS_ISCONNECTED ESTABLISHED {delack 200ms|keep 15s}")
	fasttimo()
	g.want("delayed ACK", sso, "SS_ISCONNECTED ESTABLISHED{| keep 14.8s}")
	g.step()
	g.want("ACK, at the sender", cso, "SS_ISCONNECTED|SS_NBIO ESTABLISHED{| keep 14.8s}")
}

// statesClose follows an active close and a passive one.
func (g *prog) statesClose(c, s int) {
	cso, sso := g.p.Sock(c), g.p.Sock(s)
	g.close(c)
	g.want("close", cso, "SS_NOFDREF|SS_ISCONNECTED|SS_ISDISCONNECTING|SS_CANTSENDMORE|SS_CANTRCVMORE|SS_NBIO "+
		"FIN_WAIT_1 "+
		"rexmt {1s|220ms keep 14.8s 2msl 1m40s}") // in Default an orphan's time is limited
	g.step()
	g.want("FIN, at the peer", sso, "SS_ISCONNECTED|SS_CANTRCVMORE CLOSE_WAIT{| keep 14.8s}")
	g.step()
	g.want("ACK of the FIN", cso, "SS_NOFDREF|"+over+"|SS_NBIO FIN_WAIT_2 {2msl 10m0s|keep 14.8s 2msl 1m0s}")
	g.close(s)
	g.want("the peer's close", sso, "SS_NOFDREF|SS_ISCONNECTED|SS_ISDISCONNECTING|SS_CANTSENDMORE|SS_CANTRCVMORE "+
		"LAST_ACK "+
		"rexmt {1s|200ms keep 14.8s 2msl 1m40s}")
	g.step()
	g.want("the peer's FIN", cso, "SS_NOFDREF|"+over+"|SS_NBIO {TIME_WAIT|CLOSED} detached")
	g.step()
	g.want("ACK of the peer's FIN", sso, "SS_NOFDREF|"+over+" CLOSED detached")
}

// statesShutdown follows shutdown, and close after it: FIN_WAIT_2 ends, in whichever way the two
// ends have closed.
func (g *prog) statesShutdown(c, s int) {
	cso, sso := g.p.Sock(c), g.p.Sock(s)
	g.ok(g.p.Shutdown(c, SHUT_WR))
	g.want("shutdown", cso, "SS_ISCONNECTED|SS_CANTSENDMORE|SS_NBIO FIN_WAIT_1 rexmt {1s|200ms keep 15s}")
	g.step()
	g.want("FIN, at the peer", sso, "SS_ISCONNECTED|SS_CANTRCVMORE CLOSE_WAIT{| keep 15s}")
	g.step()
	g.want("ACK of the FIN", cso, "SS_ISCONNECTED|SS_CANTSENDMORE|SS_NBIO FIN_WAIT_2{| keep 15s}")
	g.close(c)
	g.want("close after shutdown", cso, "SS_NOFDREF|"+over+"|SS_NBIO FIN_WAIT_2 {2msl 10m0s|keep 15s 2msl 1m0s}")
	g.ok(g.p.Setlinger(s, true, 0))
	g.close(s)
	g.want("the peer's close, linger 0", sso, "SS_NOFDREF|"+over+" CLOSED detached")
	g.step()
	g.want("RST", cso, "SS_NOFDREF|"+over+"|SS_NBIO ECONNRESET CLOSED detached")
}

// statesListenerClose follows the close of a listener that has a connection waiting.
func (g *prog) statesListenerClose(l int) {
	head := g.p.Sock(l)
	wedge(g.k, false)
	c := g.connect(1234)
	child := head.lq.q[0]
	g.close(l)
	g.want("close, listener", head, "SS_NOFDREF|"+over+" SO_ACCEPTCONN qlen 0 qlimit 5 CLOSED detached")
	g.want("close, the connection that nobody has accepted", child, "SS_NOFDREF|"+over+" ECONNABORTED CLOSED detached")
	g.want("RST, at its peer", g.p.Sock(c), over+" ECONNRESET CLOSED detached")
	g.close(c)
}
