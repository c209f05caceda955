package kern

import (
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
)

// A chainRec records the call chains that end in a hook, in C names: each once, in the order in
// which they were first seen.
type chainRec struct {
	names []bsdName

	mu     sync.Mutex
	chains []string
}

// hook is Kernel.chain: the functions of kern and tcp that lead here, the innermost ipintr first.
func (r *chainRec) hook(string) {
	var pcs [128]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	var chain []string
	for {
		f, more := frames.Next()
		name := r.name(&f)
		if name != "" && (len(chain) == 0 || chain[len(chain)-1] != name) {
			chain = append(chain, name)
		}
		if !more || name == "ipintr" {
			break
		}
	}
	slices.Reverse(chain)
	line := strings.Join(chain, " ")
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.chains, line) {
		r.chains = append(r.chains, line)
	}
}

// name returns the C name of a frame's function, or "" if it has none.
func (r *chainRec) name(f *runtime.Frame) string {
	const kern = "bsdnet/internal/kern"
	fn, ok := strings.CutPrefix(f.Function, kern)
	if !ok || strings.HasSuffix(f.File, "_test.go") {
		return ""
	}
	pkg, fn, _ := strings.Cut(fn, ".")
	if pkg = strings.TrimPrefix(pkg, "/"); pkg == "" {
		pkg = "kern"
	}
	fn = strings.TrimSuffix(fn[strings.LastIndexByte(fn, '.')+1:], "-fm")
	found := ""
	for i := range r.names {
		if n := &r.names[i]; n.is(pkg, fn) && (found == "" || n.pkg != "") {
			found = n.c
		}
	}
	return found
}

// take returns what has been recorded, and begins anew.
func (r *chainRec) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.chains
	r.chains = nil
	return c
}

// readChains reads the chains of a profile from testdata/chains.txt, which says how it is written.
func readChains(t *testing.T, profile string) map[string][]string {
	t.Helper()
	b, err := os.ReadFile("testdata/chains.txt")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{}
	name := ""
	for line := range strings.Lines(string(b)) {
		text := strings.TrimSpace(line)
		switch {
		case text == "" || text[0] == '#' || strings.HasPrefix(text, "book:"):
			continue
		case line[0] != ' ':
			name = text
			continue
		case text[0] == '[':
			var in string
			in, text, _ = strings.Cut(text[1:], "] ")
			if !slices.Contains(strings.Fields(in), profile) {
				continue
			}
		}
		all[name] = append(all[name], text)
	}
	return all
}

// wedge holds back what is on the loopback's queues, or lets it go.
func wedge(k *Kernel, on bool) {
	for i := range k.lo0.queues {
		q := &k.lo0.queues[i]
		q.mu.Lock()
		q.oactive = on
		q.mu.Unlock()
	}
}

// lose does f and loses the segments that it sends.
func (g *prog) lose(f func()) {
	wedge(g.k, true)
	f()
	g.k.lo0.purge()
	wedge(g.k, false)
}

// ping sends the stack an echo request from itself.
func (g *prog) ping() {
	b := make([]byte, wire.IPv4MinLen+wire.ICMPLen)
	lo := localhost(0).Addr()
	ip := wire.IPv4{Len: len(b), TTL: 64, Proto: wire.ProtoICMP, Src: lo, Dst: lo}
	ip.Put(b)
	wire.ICMP{Type: wire.ICMPEcho}.Put(b[wire.IPv4MinLen:])
	sum := wire.InCksum(b[wire.IPv4MinLen:])
	b[wire.IPv4MinLen+2], b[wire.IPv4MinLen+3] = byte(sum>>8), byte(sum)
	g.k.Lo0().Inject(b)
}

// A trigger does something to a connection between c and s, of listener l, and names it.
type trigger struct {
	name string
	do   func(g *prog, e *ends)
}

type ends struct{ l, c, s int }

// pair opens another connection.
func (g *prog) pair(e *ends) {
	e.c = g.connect(1234)
	e.s = g.accept(e.l)
}

// sleep lets virtual time pass.
func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// triggers are done one after another. A name that begins with "-" is not compared: it sets up what
// follows.
var triggers = []trigger{
	{"ping", func(g *prog, e *ends) { g.ping() }},
	{"socket", func(g *prog, e *ends) { e.l = g.socket() }},
	{"bind", func(g *prog, e *ends) {
		g.ok(g.p.Bind(e.l, netip.AddrPortFrom(netip.IPv4Unspecified(), 1234)))
	}},
	{"listen, bound", func(g *prog, e *ends) { g.ok(g.p.Listen(e.l, 5)) }},
	{"-", func(g *prog, e *ends) { e.c = g.socket() }},
	{"listen, not bound", func(g *prog, e *ends) { g.ok(g.p.Listen(e.c, 5)) }},
	{"close, listener", func(g *prog, e *ends) { g.close(e.c) }},
	{"-", func(g *prog, e *ends) { e.c = g.socket() }},
	{"connect", func(g *prog, e *ends) { g.ok(g.p.Connect(e.c, localhost(1234))) }},
	{"accept", func(g *prog, e *ends) { e.s = g.accept(e.l) }},
	{"send", func(g *prog, e *ends) { g.send(e.c, 5, 5) }},
	{"delayed ACK", func(g *prog, e *ends) { sleep(time.Second) }},
	{"-", func(g *prog, e *ends) {
		g.recv(e.s, 5, 5)
		g.lose(func() { g.send(e.c, 5, 5) })
	}},
	{"retransmit", func(g *prog, e *ends) { sleep(6 * time.Second) }},
	{"-", func(g *prog, e *ends) { g.recv(e.s, 5, 5); g.fill(e.c) }},
	{"persist", func(g *prog, e *ends) { sleep(10 * time.Second) }},
	{"receive", func(g *prog, e *ends) { g.readAll(e.s) }},
	{"-", func(g *prog, e *ends) {
		g.drain(e.s)
		g.ok(g.p.Setsockopt(e.c, SOL_SOCKET, int(SO_KEEPALIVE), 1))
	}},
	{"keep-alive", func(g *prog, e *ends) { sleep(time.Duration(g.k.prof.Keepidle) + time.Second) }},
	{"shutdown", func(g *prog, e *ends) { g.ok(g.p.Shutdown(e.c, SHUT_WR)) }},
	{"close, last", func(g *prog, e *ends) { g.close(e.s) }},
	{"close, over", func(g *prog, e *ends) { g.close(e.c) }},
	{"-", func(g *prog, e *ends) { g.pair(e) }},
	{"close", func(g *prog, e *ends) { g.close(e.c) }},
	{"-", func(g *prog, e *ends) {
		g.close(e.s)
		g.pair(e)
		g.ok(g.p.Setlinger(e.c, true, 0))
	}},
	{"close, linger 0", func(g *prog, e *ends) { g.close(e.c) }},
	{"-", func(g *prog, e *ends) { g.close(e.s); e.c = g.connect(1234) }},
	{"close, listener with a connection", func(g *prog, e *ends) { g.close(e.l) }},
	{"-", func(g *prog, e *ends) { g.close(e.c); e.c = g.socket() }},
	{"connect, refused", func(g *prog, e *ends) {
		if errno := g.p.Connect(e.c, localhost(1234)); errno == 0 {
			g.t.Error("connect to a closed port succeeds")
		}
	}},
}

// fill sends until the connection takes no more, and lets the last acknowledgment come.
func (g *prog) fill(fd int) {
	for idle := false; ; {
		n, _ := g.p.Send(fd, make([]byte, 1000), MSG_DONTWAIT)
		if n <= 0 && idle {
			return
		}
		if idle = n <= 0; idle {
			sleep(time.Second)
		}
	}
}

// readAll reads once, as much as there is.
func (g *prog) readAll(fd int) int {
	n, _ := g.p.Recv(fd, make([]byte, 1<<20), MSG_DONTWAIT)
	return n
}

// drain reads all that comes, for as long as something does.
func (g *prog) drain(fd int) {
	for g.readAll(fd) > 0 {
		sleep(10 * time.Second)
	}
}

// Calls nest as in the book: each call, and each timer, leads through the functions that the book's
// leads through. If a modern part calls other functions, testdata/chains.txt has the book's
// chain as well.
func TestChains(t *testing.T) {
	for _, p := range []*tcp.Profile{tcp.Default(), tcp.FreeBSD(), tcp.Net3()} {
		t.Run(p.Name, func(t *testing.T) {
			want := readChains(t, p.Name)
			synctest.Test(t, func(t *testing.T) { testChains(t, p, want) })
		})
	}
}

func testChains(t *testing.T, p *tcp.Profile, want map[string][]string) {
	rec := &chainRec{names: readNames(t)}
	g := newProg(t, p, net3MTU)
	g.k.chain = rec.hook
	var e ends
	for _, tr := range triggers {
		tr.do(g, &e)
		synctest.Wait()
		got, want := rec.take(), want[tr.name]
		if tr.name != "-" && !slices.Equal(got, want) {
			t.Errorf("%s\n    %s\nwant\n    %s", tr.name, strings.Join(got, "\n    "), strings.Join(want, "\n    "))
		}
	}
	for name := range want {
		if !slices.ContainsFunc(triggers, func(tr trigger) bool { return tr.name == name }) {
			t.Errorf("chains.txt: nothing does %q", name)
		}
	}
}
