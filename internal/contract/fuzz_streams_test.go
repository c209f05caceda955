package contract

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet"
	"bsdnet/internal/testutil"
	"bsdnet/internal/testutil/stacktest"
	"bsdnet/netem"
)

// These are the moods of a moody link: what it does with packets that are written to it.
const (
	moodBad  = iota // impair them
	moodDown        // lose them
	moodWell        // send them
)

// A moodyLink is a link that is impaired, or down, or well.
type moodyLink struct {
	bsdnet.Link // impaired
	well        *startedLink
	mood        atomic.Int32
}

// A startedLink keeps the function ready of its outermost wrapper, which sometimes writes to it
// directly.
type startedLink struct {
	bsdnet.Link
	ready func()
}

func (l *startedLink) Start(ready func()) error {
	return l.Link.Start(func() {
		ready()
		l.ready()
	})
}

func newMoodyLink(t testing.TB, inner bsdnet.Link, imp netem.Impairment, seed uint64) *moodyLink {
	well := &startedLink{Link: inner}
	bad, err := netem.Impair(well, netem.Path{Write: imp, Seed: seed})
	if err != nil {
		t.Fatal(err)
	}
	return &moodyLink{Link: bad, well: well}
}

func (l *moodyLink) Start(ready func()) error {
	l.well.ready = ready
	return l.Link.Start(ready)
}

func (l *moodyLink) Write(pkts []net.Buffers) (int, error) {
	switch l.mood.Load() {
	case moodDown:
		return len(pkts), nil
	case moodWell:
		return l.well.Write(pkts)
	}
	return l.Link.Write(pkts)
}

// A rally is a connection between two stacks over a bad path, with its users.
type rally struct {
	*testing.T
	d      testutil.Dice
	links  [2]*moodyLink
	stacks [2]*bsdnet.Stack
	ends   [2]*endUser
	idle   [2]int64 // buffers that the stacks had before
	start  time.Time
	mu     sync.Mutex
	log    []string
	abrupt bool // a user has made a call that may lose the rest of a stream
}

// An endUser is the user of one end: a goroutine that reads, one that writes, and others that
// close.
type endUser struct {
	g           *rally
	i           int
	c           *bsdnet.TCPConn
	reads       chan int // the most bytes to read; 0: all bytes until the end
	writes      chan int
	wg          sync.WaitGroup
	reading     atomic.Bool
	writing     atomic.Bool
	mu          sync.Mutex
	progress    progress // guarded by mu
	shut        bool     // for writing
	closedRead  bool
	closed      bool
	lingerReset bool
}

// A progress is what a user's reader and writer have come to.
type progress struct {
	wrote, got int
	eof        bool
	readErr    error // other than io.EOF and a deadline
	writeErr   error
}

// note changes the user's progress.
func (e *endUser) note(change func(p *progress)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	change(&e.progress)
}

// now returns the user's progress.
func (e *endUser) now() progress {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.progress
}

func (g *rally) logf(format string, args ...any) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.log = append(g.log, fmt.Sprintf("%10.6f ", time.Since(g.start).Seconds())+fmt.Sprintf(format, args...))
}

// fatalf ends the game. It closes the stacks, so that no goroutine in the bubble waits any more.
func (g *rally) fatalf(format string, args ...any) {
	g.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, format+"\n", args...)
	for i, e := range g.ends {
		p := e.now()
		fmt.Fprintf(&b, "end %d: wrote %d, got %d, eof %v, errors %v, %v, reads %v, writes %v, shut %v, closed %v\n",
			i, p.wrote, p.got, p.eof, p.readErr, p.writeErr, e.reading.Load(), e.writing.Load(), e.shut, e.closed)
		if e.c != nil {
			fmt.Fprintf(&b, "\t%+v\n", e.c.Info())
		}
	}
	g.mu.Lock()
	b.WriteString(strings.Join(g.log[max(0, len(g.log)-60):], "\n"))
	g.mu.Unlock()
	for i, e := range g.ends {
		g.stacks[i].Close()
		e.stop()
	}
	g.T.Fatal(b.String())
}

// badTime is how long a path is bad, without a last outage of up to 20 s. The FreeBSD profile sends
// for the last time after 63 s.
const badTime = 40 * time.Second

// play plays a game.
func play(t *testing.T, data []byte) {
	synctest.Test(t, func(t *testing.T) {
		g := newRally(t, data)
		l, err := g.stacks[0].ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		if g.connect(l) {
			for bad := time.Now(); g.d.More() && time.Since(bad) < badTime; {
				g.act()
			}
			g.heal()
			g.end()
		}
		l.Close()
		g.gone()
	})
}

func newRally(t *testing.T, data []byte) *rally {
	g := &rally{T: t, d: testutil.Dice(data), start: time.Now()}
	d := &g.d
	mtu := []int{1500, 576, 9000, 296}[d.N(4)]
	a, b, err := netem.Pipe(netem.PipeConfig{MTU: mtu, Queue: []int{0, 1, 20}[d.N(3)]})
	if err != nil {
		t.Fatal(err)
	}
	for i, end := range []bsdnet.Link{a, b} {
		g.ends[i] = &endUser{g: g, i: i}
		g.links[i] = newMoodyLink(t, end, g.impairment(), uint64(d.N(256)))
		c := bsdnet.Config{Rand: testutil.SeededRand(uint64(i + d.N(16)*2)), NoLoopback: true}
		c.TCP.Profile = []bsdnet.Profile{"Default", "FreeBSD", "Default", "Net3"}[d.N(4)]
		if c.TCP.Profile == "Default" {
			c.TCP.CongestionControl = []string{"cubic", "newreno", "bbr", "bbr1"}[d.N(4)]
		}
		c.TCP.ReadBuffer = []int{0, 1024, 5000, 65536}[d.N(4)]
		c.TCP.WriteBuffer = []int{0, 1024, 5000, 65536}[d.N(4)]
		g.stacks[i] = stacktest.New(t, c)
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), 24)
		if err := g.stacks[i].Attach(g.links[i], p); err != nil {
			t.Fatal(err)
		}
		g.logf("end %d: %+v", i, c.TCP)
		synctest.Wait()
		g.idle[i] = g.stacks[i].Stats().Memory.Buffers
	}
	return g
}

// impairment returns the impairment of one direction while the link is bad.
func (g *rally) impairment() netem.Impairment {
	d := &g.d
	imp := netem.Impairment{
		Loss:      []float64{0, 0.02, 0.1, 0.3}[d.N(4)],
		Duplicate: []float64{0, 0, 0.1, 0.5}[d.N(4)],
		Corrupt:   []float64{0, 0, 0.1}[d.N(3)],
		Reorder:   []float64{0, 0, 0.1, 0.5}[d.N(4)],
		Delay:     []time.Duration{time.Millisecond, 30 * time.Millisecond, 300 * time.Millisecond, 0}[d.N(4)],
		Jitter:    []time.Duration{0, 0, 20 * time.Millisecond}[d.N(3)],
		Rate:      []int64{0, 0, 10_000_000, 200_000}[d.N(4)],
		Limit:     []int{0, 0, 5}[d.N(3)],
	}
	imp.ReorderDelay = []time.Duration{0, 50 * time.Millisecond}[d.N(2)]
	if d.One(4) {
		imp.Burst = &netem.BurstLoss{PEnter: 0.05, PLeave: 0.3}
	}
	g.logf("impairment %+v", imp)
	return imp
}

// connect makes the connection, over a path that may be bad already. It reports false if the dial
// fails, which is allowed if the path is bad.
func (g *rally) connect(l *bsdnet.TCPListener) bool {
	bad := g.d.One(2)
	if !bad {
		g.mood(moodWell)
	}
	accepted := async(func() *bsdnet.TCPConn {
		l.SetDeadline(time.Now().Add(3 * time.Minute))
		c, err := l.AcceptTCP()
		if err != nil {
			return nil
		}
		return c
	})
	c, err := g.stacks[1].Dial("tcp", l.Addr().String())
	if err != nil {
		if !bad || !errors.Is(err, syscall.ETIMEDOUT) {
			g.fatalf("dial: %v", err)
		}
		if s := <-accepted; s != nil {
			s.Close()
		}
		g.heal()
		return false
	}
	g.ends[1].begin(c.(*bsdnet.TCPConn))
	if bad {
		time.Sleep(time.Second)
	}
	g.mood(moodWell) // the last ACK of the handshake may be lost, and no data may follow it
	s := <-accepted
	if s == nil { // the listener has given the handshake up, and the dialer learns of it when it sends
		g.ends[1].c.Close()
		g.ends[1].stop()
		return false
	}
	g.ends[0].begin(s)
	g.mood(moodBad)
	return true
}

func (g *rally) mood(m int32) {
	for _, l := range g.links {
		l.mood.Store(m)
	}
}

func (e *endUser) begin(c *bsdnet.TCPConn) {
	e.c, e.reads, e.writes = c, make(chan int), make(chan int)
	e.wg.Go(e.reader)
	e.wg.Go(e.writer)
}

// streamOf returns byte off of the stream that end i sends.
func streamOf(i, off int) byte { return byte(off*7 ^ off>>8*31 ^ i<<6) }

func (e *endUser) reader() {
	buf := make([]byte, 40_000)
	for n := range e.reads {
		for all := n == 0; ; {
			if all {
				n = len(buf)
			}
			k, err := e.c.Read(buf[:n])
			got := e.now().got
			for j, c := range buf[:k] {
				if want := streamOf(1-e.i, got+j); c != want {
					e.g.Errorf("end %d: byte %d is %#x, want %#x", e.i, got+j, c, want)
					break
				}
			}
			e.g.logf("end %d reads %d of %d: %v", e.i, k, n, err)
			e.note(func(p *progress) {
				p.got += k
				switch {
				case err == io.EOF:
					p.eof = true
				case err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
					p.readErr = err
				}
			})
			if !all || err != nil {
				break
			}
		}
		e.reading.Store(false)
	}
}

func (e *endUser) writer() {
	for n := range e.writes {
		b := make([]byte, n)
		wrote := e.now().wrote
		for j := range b {
			b[j] = streamOf(e.i, wrote+j)
		}
		k, err := e.c.Write(b)
		e.g.logf("end %d writes %d of %d: %v", e.i, k, n, err)
		e.note(func(p *progress) {
			p.wrote += k
			if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				p.writeErr = err
			}
		})
		if err == nil && k != n {
			e.g.Errorf("end %d: Write returned %d of %d without an error", e.i, k, n)
		}
		e.writing.Store(false)
	}
}

// read and write give the goroutines a task, if they are idle.
func (e *endUser) read(n int) bool {
	if !e.reading.CompareAndSwap(false, true) {
		return false
	}
	e.reads <- n
	return true
}

func (e *endUser) write(n int) bool {
	if !e.writing.CompareAndSwap(false, true) {
		return false
	}
	e.writes <- n
	return true
}

// act makes one throw, and the call that it decides.
func (g *rally) act() {
	d := &g.d
	e := g.ends[d.N(2)]
	switch d.N(16) {
	case 0, 1, 2, 3:
		e.write(1 + d.N(20_000))
	case 4, 5, 6, 7:
		e.read(1 + d.N(20_000))
	case 8, 9, 10:
		time.Sleep(time.Duration(d.N(1000)) * time.Millisecond)
	case 11:
		e.deadlines()
	case 12:
		e.option()
	case 13:
		if d.One(2) {
			g.logf("end %d CloseWrite: %v", e.i, e.c.CloseWrite())
			e.shut = true
		}
	case 14:
		e.abrupt()
	case 15:
		if d.One(3) {
			g.mood(moodDown)
			time.Sleep(time.Duration(d.N(20_000)) * time.Millisecond)
			g.mood(moodBad)
		}
	}
	synctest.Wait()
}

func (e *endUser) deadlines() {
	d := &e.g.d
	t := time.Now().Add(time.Duration(d.N(3000)-500) * time.Millisecond)
	if d.One(3) {
		t = time.Time{}
	}
	set := []func(time.Time) error{e.c.SetDeadline, e.c.SetReadDeadline, e.c.SetWriteDeadline}[d.N(3)]
	e.g.logf("end %d: deadline %v: %v", e.i, time.Until(t), set(t))
}

func (e *endUser) option() {
	d, c := &e.g.d, e.c
	var err error
	switch d.N(6) {
	case 0:
		err = c.SetReadBuffer(1 << (8 + d.N(12)))
	case 1:
		err = c.SetWriteBuffer(1 << (8 + d.N(12)))
	case 2:
		err = c.SetNoDelay(d.One(2))
	case 3:
		err = c.SetKeepAlive(d.One(2))
	case 4:
		sec := d.N(4) - 1
		e.lingerReset = sec >= 0 // a linger may end with a reset
		err = c.SetLinger(sec)
	case 5:
		c.Info()
	}
	if err != nil && !e.closed && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ECONNRESET) {
		e.g.fatalf("end %d: an option: %v", e.i, err)
	}
}

// abrupt makes a call that may lose the rest of the stream of either end.
func (e *endUser) abrupt() {
	switch e.g.d.N(8) {
	case 0:
		e.g.abrupt, e.closedRead = true, true
		e.g.logf("end %d CloseRead: %v", e.i, e.c.CloseRead())
	case 1:
		e.g.abrupt = true
		e.close()
	}
}

// close closes the connection, which may take as long as SetLinger says.
func (e *endUser) close() {
	e.closed, e.shut = true, true
	e.wg.Go(func() { e.g.logf("end %d Close: %v", e.i, e.c.Close()) })
}

// heal makes the path good.
func (g *rally) heal() {
	g.logf("healed")
	g.mood(moodWell)
}

// patience is how long a healed connection may take for the rest of its work. A peer whose window
// was closed is probed once a minute, and so is a peer that was silent.
const patience = 20 * time.Minute

// end lets both users come to an end: they read until the end, write, and close.
func (g *rally) end() {
	for _, e := range g.ends {
		e.c.SetDeadline(time.Time{})
	}
	stop := time.Now().Add(patience)
	for done := false; !done; {
		synctest.Wait()
		done = true
		for _, e := range g.ends {
			if g.abrupt && !e.closed && time.Until(stop) < patience/2 {
				// The reset of the other end may be lost, and an end that only reads, without
				// keep-alive, waits forever.
				e.close()
			}
			done = e.proceed() && done
		}
		if time.Now().After(stop) {
			g.fatalf("it does not come to an end")
		}
		time.Sleep(100 * time.Millisecond)
	}
	for _, e := range g.ends {
		e.stop()
	}
	for i, e := range g.ends {
		u, p := e.now(), g.ends[1-i].now()
		switch {
		case u.got > p.wrote:
			g.Errorf("end %d has read %d bytes of %d", i, u.got, p.wrote)
		// One call returns the error of a reset, and others read an end.
		case u.eof && !e.closedRead && u.readErr == nil && u.writeErr == nil && u.got != p.wrote:
			g.Errorf("end %d has read the end after %d bytes of %d", i, u.got, p.wrote)
		case !g.abrupt && (!u.eof || u.readErr != nil || u.writeErr != nil && !errors.Is(u.writeErr, syscall.EPIPE)):
			g.Errorf("end %d: end %v, errors %v, %v, and nobody has been abrupt", i, u.eof, u.readErr, u.writeErr)
		}
	}
	if g.Failed() {
		g.T.Log(strings.Join(g.log[max(0, len(g.log)-100):], "\n"))
	}
}

// proceed takes the next step to the end of one user's work, and reports whether no step is left.
func (e *endUser) proceed() bool {
	u := e.now()
	over := e.closed || u.readErr != nil
	if !over && !u.eof && !e.reading.Load() {
		e.read(0)
	}
	if !e.shut && u.writeErr == nil && !e.writing.Load() {
		if u.wrote < 3000 {
			e.write(3000)
			return false
		}
		e.g.logf("end %d CloseWrite: %v", e.i, e.c.CloseWrite())
		e.shut = true
	}
	// A connection whose user has closed it waits at most a minute for its peer, and most of that
	// may have passed while the path was bad. So the users close when both have read everything.
	peer := e.g.ends[1-e.i]
	p := peer.now()
	read := (u.eof || u.readErr != nil) && (p.eof || p.readErr != nil || peer.closed)
	if read && (e.shut || u.writeErr != nil) && !e.writing.Load() && !e.reading.Load() && !e.closed {
		if e.lingerReset {
			e.c.SetLinger(-1)
		}
		e.close()
	}
	return e.closed && !e.reading.Load() && !e.writing.Load()
}

// stop ends the user's goroutines, which must not be waiting any more.
func (e *endUser) stop() {
	if e.reads != nil {
		close(e.reads)
		close(e.writes)
		e.wg.Wait()
		e.reads = nil
	}
}

// gone asserts that nothing is left of the connection.
func (g *rally) gone() {
	time.Sleep(15 * time.Minute) // FIN_WAIT_2 takes eleven in the Net3 profile
	for i, s := range g.stacks {
		if l := s.Conns(); len(l) != 0 {
			g.fatalf("stack %d: there is still %+v", i, l[0])
		}
		if m := s.Stats().Memory; m.Buffers > g.idle[i] {
			g.fatalf("stack %d: %d buffers of %d bytes are left, %d were there at first",
				i, m.Buffers, m.Bytes, g.idle[i])
		}
	}
}

// maxFuzz bounds the number of throws in an input.
const maxFuzz = 600

// FuzzStreams tests that whatever a path does, and whatever users call, the readers read what was
// written, up to the end that the writer has set. Once the path is good, all connections come to
// their end, and nothing is left.
func FuzzStreams(f *testing.F) {
	for seed := range uint64(6) {
		f.Add(testutil.SeededBytes(seed, 300))
	}
	f.Fuzz(func(t *testing.T, data []byte) { play(t, data[:min(len(data), maxFuzz)]) })
}

func TestStreamsSeeds(t *testing.T) {
	for seed := range testutil.Games(200, 10) {
		ok := t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			play(t, testutil.SeededBytes(seed, 40+int(seed*37%560)))
		})
		if !ok {
			break
		}
	}
}
