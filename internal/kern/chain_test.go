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

// A chainRec records the call chains that end in a hook, in C names: each once, in the order in which they were first seen.
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

// name returns the C name of a frame's function, "" where it has none.
func (r *chainRec) name(f *runtime.Frame) string {
	const kern = "bsdnet/internal/kern"
	fn, ok := strings.CutPrefix(f.Function, kern)
	if !ok || strings.HasSuffix(f.File, "_test.go") {
		return ""
	}
	pkg, fn, _ := strings.Cut(fn, ".")
	pkg = kern[strings.LastIndexByte(kern, '/')+1:] + pkg
	pkg = pkg[strings.LastIndexByte(pkg, '/')+1:]
	if i := strings.Index(fn, ").func"); i < 0 { // a method, or a function; a closure is of no interest
		fn = strings.TrimSuffix(fn[strings.LastIndexByte(fn, '.')+1:], "-fm")
	}
	for i := range r.names {
		if r.names[i].is(pkg, fn) {
			return r.names[i].c
		}
	}
	return ""
}

// take returns what has been recorded, and begins anew.
func (r *chainRec) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.chains
	r.chains = nil
	return c
}

// A golden is a trigger of testdata/chains.txt: our chains, and where ours is another, or the book has none, what the book's is.
type golden struct {
	chains []string
	book   []string // beside each of ours
}

// readChains reads testdata/chains.txt.
func readChains(t *testing.T) map[string]*golden {
	t.Helper()
	b, err := os.ReadFile("testdata/chains.txt")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*golden{}
	var g *golden
	for line := range strings.Lines(string(b)) {
		text := strings.TrimSpace(line)
		book, isBook := strings.CutPrefix(text, "book:")
		switch {
		case text == "" || text[0] == '#':
		case line[0] != ' ':
			if all[text] != nil {
				t.Fatalf("chains.txt: %q is there twice", text)
			}
			g = &golden{}
			all[text] = g
		case isBook:
			g.book[len(g.book)-1] = strings.TrimSpace(book)
		default:
			g.chains = append(g.chains, text)
			g.book = append(g.book, text)
		}
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

// triggers are done one after another. A name that begins with "-" is not compared: it sets up what follows.
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
	{"receive", func(g *prog, e *ends) { g.recv(e.s, 5, 5) }},
	{"-", func(g *prog, e *ends) {
		g.lose(func() { g.send(e.c, 5, 5) })
	}},
	{"retransmit", func(g *prog, e *ends) { sleep(6 * time.Second) }},
	{"-", func(g *prog, e *ends) { g.recv(e.s, 5, 5); g.fill(e.c) }},
	{"persist", func(g *prog, e *ends) { sleep(10 * time.Second) }},
	{"receive, window update", func(g *prog, e *ends) { g.drainTo(e.s, 0) }},
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
	for n := 1; n > 0; {
		n, _ = g.p.Send(fd, make([]byte, 1000), MSG_DONTWAIT)
		if n <= 0 {
			sleep(time.Second)
			n, _ = g.p.Send(fd, make([]byte, 1000), MSG_DONTWAIT)
		}
	}
}

// drain reads all that comes.
func (g *prog) drain(fd int) {
	buf := make([]byte, 64<<10)
	for n := 1; n > 0; {
		if n, _ = g.p.Recv(fd, buf, MSG_DONTWAIT); n <= 0 {
			sleep(10 * time.Second)
			n, _ = g.p.Recv(fd, buf, MSG_DONTWAIT)
		}
	}
}

// drainTo reads once, as much as there is.
func (g *prog) drainTo(fd, _ int) {
	buf := make([]byte, 1<<20)
	if n, errno := g.p.Recv(fd, buf, MSG_DONTWAIT); n <= 0 {
		g.t.Fatalf("recv: %d, %v", n, errno)
	}
}

// Calls nest as in the book: each call, and each timer, leads through the functions that the book's leads through. Where a modern part makes
// another way, testdata/chains.txt says so beside the book's.
func TestChains(t *testing.T) {
	want := readChains(t)
	rec := &chainRec{names: readNames(t)}
	synctest.Test(t, func(t *testing.T) {
		g := newProg(t, tcp.FreeBSD(), 0)
		g.k.chain = rec.hook
		var e ends
		for _, tr := range triggers {
			tr.do(g, &e)
			synctest.Wait()
			got := rec.take()
			if tr.name == "-" {
				continue
			}
			w := want[tr.name]
			delete(want, tr.name)
			if w == nil {
				w = &golden{}
			}
			if !slices.Equal(got, w.chains) {
				t.Errorf("%s\n    %s\nwant\n    %s", tr.name, strings.Join(got, "\n    "), strings.Join(w.chains, "\n    "))
			}
		}
		for name := range want {
			t.Errorf("chains.txt: nothing does %q", name)
		}
	})
}
