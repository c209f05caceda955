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

// What a moody link does with what is written to it.
const (
	moodBad  = iota // impair it
	moodDown        // lose it
	moodWell        // send it
)

// A moodyLink is a link that is impaired, or down, or well.
type moodyLink struct {
	bsdnet.Link // impaired
	well        *startedLink
	mood        atomic.Int32
}

// A startedLink keeps the ready of its outermost wrapper, which writes to it directly at times.
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

// A rally is a connection between two stacks over a bad path, and what its users do.
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
	abrupt bool // a user has done what may cost the rest of a stream
}

// An endUser is the user of one end: a goroutine that reads, one that writes, and those that close.
type endUser struct {
	g           *rally
	i           int
	c           *bsdnet.TCPConn
	reads       chan int // the most bytes to read; 0: all there is until the end
	writes      chan int
	wg          sync.WaitGroup
	reading     atomic.Bool
	writing     atomic.Bool
	wrote, got  int
	eof         bool
	readErr     error // other than io.EOF and a deadline
	writeErr    error
	shut        bool // for writing
	closedRead  bool
	closed      bool
	lingerReset bool
}

func (g *rally) logf(format string, args ...any) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.log = append(g.log, fmt.Sprintf("%10.6f ", time.Since(g.start).Seconds())+fmt.Sprintf(format, args...))
}

// fatalf ends the game. It closes the stacks, so that nobody waits in the bubble any more.
func (g *rally) fatalf(format string, args ...any) {
	g.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, format+"\n", args...)
	for i, e := range g.ends {
		fmt.Fprintf(&b, "end %d: wrote %d, got %d, eof %v, errors %v, %v, reads %v, writes %v, shut %v, closed %v\n", i, e.wrote, e.got, e.eof, e.readErr, e.writeErr,
			e.reading.Load(), e.writing.Load(), e.shut, e.closed)
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

// badTime is how long a path is bad, but for a last outage of up to 20 s: the FreeBSD profile sends
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
		if err := g.stacks[i].Attach(g.links[i], netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), 24)); err != nil {
			t.Fatal(err)
		}
		g.logf("end %d: %+v", i, c.TCP)
		synctest.Wait()
		g.idle[i] = g.stacks[i].Stats().Memory.Buffers
	}
	return g
}

// impairment is what happens to one direction while the link is bad.
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

// connect makes the connection, over a path that is bad already or not yet. It reports false if
// there is none, which is right if it is.
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
	g.mood(moodWell) // the last ACK of the handshake may have been lost, and no data may follow
	s := <-accepted
	if s == nil { // the listener has given the handshake up, and the dialer hears of it when it sends
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

// streamOf is byte off of what end i sends.
func streamOf(i, off int) byte { return byte(off*7 ^ off>>8*31 ^ i<<6) }

func (e *endUser) reader() {
	buf := make([]byte, 40_000)
	for n := range e.reads {
		for all := n == 0; ; {
			if all {
				n = len(buf)
			}
			k, err := e.c.Read(buf[:n])
			for j, c := range buf[:k] {
				if want := streamOf(1-e.i, e.got+j); c != want {
					e.g.Errorf("end %d: byte %d is %#x, want %#x", e.i, e.got+j, c, want)
					break
				}
			}
			e.got += k
			e.g.logf("end %d reads %d of %d: %v", e.i, k, n, err)
			switch {
			case err == io.EOF:
				e.eof = true
			case err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
				e.readErr = err
			}
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
		for j := range b {
			b[j] = streamOf(e.i, e.wrote+j)
		}
		k, err := e.c.Write(b)
		e.wrote += k
		e.g.logf("end %d writes %d of %d: %v", e.i, k, n, err)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			e.writeErr = err
		} else if err == nil && k != n {
			e.g.Errorf("end %d: Write returned %d of %d without an error", e.i, k, n)
		}
		e.writing.Store(false)
	}
}

// read and write have the goroutines do something, if they have nothing to do yet.
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

// act is one throw.
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
		e.lingerReset = sec >= 0 // the end of a linger may be a reset
		err = c.SetLinger(sec)
	case 5:
		c.Info()
	}
	if err != nil && !e.closed && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ECONNRESET) {
		e.g.fatalf("end %d: an option: %v", e.i, err)
	}
}

// abrupt is a call that may cost the rest of the other end's stream, or of one's own.
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

// close closes, which may take as long as SetLinger says.
func (e *endUser) close() {
	e.closed, e.shut = true, true
	e.wg.Go(func() { e.g.logf("end %d Close: %v", e.i, e.c.Close()) })
}

// heal ends what is bad about the path.
func (g *rally) heal() {
	g.logf("healed")
	g.mood(moodWell)
}

// patience is how long a healed connection may take for all there is to do: a peer whose window was
// closed is asked once a minute, and so is one of whom nothing was heard.
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
				e.close() // the reset of the other end may have been lost, and whoever only reads, without keep-alive, waits for ever
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
		p := g.ends[1-i]
		switch {
		case e.got > p.wrote:
			g.Errorf("end %d has read %d bytes of %d", i, e.got, p.wrote)
		case e.eof && !e.closedRead && e.readErr == nil && e.writeErr == nil && e.got != p.wrote: // one call is told of a reset, others read an end
			g.Errorf("end %d has read the end after %d bytes of %d", i, e.got, p.wrote)
		case !g.abrupt && (!e.eof || e.readErr != nil || e.writeErr != nil && !errors.Is(e.writeErr, syscall.EPIPE)):
			g.Errorf("end %d: end %v, errors %v, %v, and nobody has been abrupt", i, e.eof, e.readErr, e.writeErr)
		}
	}
	if g.Failed() {
		g.T.Log(strings.Join(g.log[max(0, len(g.log)-100):], "\n"))
	}
}

// proceed takes the next step to the end of one user's business, and reports whether there is none
// left.
func (e *endUser) proceed() bool {
	over := e.closed || e.readErr != nil
	if !over && !e.eof && !e.reading.Load() {
		e.read(0)
	}
	if !e.shut && e.writeErr == nil && !e.writing.Load() {
		if e.wrote < 3000 {
			e.write(3000)
			return false
		}
		e.g.logf("end %d CloseWrite: %v", e.i, e.c.CloseWrite())
		e.shut = true
	}
	// A connection whose user has closed it waits for its peer no longer than a minute, of which
	// much may have passed while the path was bad: the close comes when both have read all.
	p := e.g.ends[1-e.i]
	read := (e.eof || e.readErr != nil) && (p.eof || p.readErr != nil || p.closed)
	if read && (e.shut || e.writeErr != nil) && !e.writing.Load() && !e.reading.Load() && !e.closed {
		if e.lingerReset {
			e.c.SetLinger(-1)
		}
		e.close()
	}
	return e.closed && !e.reading.Load() && !e.writing.Load()
}

// stop ends the user's goroutines, which must not have to wait any more.
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
	time.Sleep(15 * time.Minute) // the book's FIN_WAIT_2 takes eleven
	for i, s := range g.stacks {
		if l := s.Conns(); len(l) != 0 {
			g.fatalf("stack %d: there is still %+v", i, l[0])
		}
		if m := s.Stats().Memory; m.Buffers > g.idle[i] {
			g.fatalf("stack %d: %d buffers of %d bytes are left, %d were there at first", i, m.Buffers, m.Bytes, g.idle[i])
		}
	}
}

// maxFuzz bounds the story that an input tells.
const maxFuzz = 600

// FuzzStreams: whatever a path does, and whatever users call, what is read is what was written, up
// to the end that the writer has set; once the path is well everything comes to its end, and
// nothing is left.
func FuzzStreams(f *testing.F) {
	for seed := range uint64(6) {
		f.Add(testutil.SeededBytes(seed, 300))
	}
	f.Fuzz(func(t *testing.T, data []byte) { play(t, data[:min(len(data), maxFuzz)]) })
}

func TestStreamsSeeds(t *testing.T) {
	for seed := range testutil.Games(200, 10) {
		if !t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { play(t, testutil.SeededBytes(seed, 40+int(seed*37%560))) }) {
			break
		}
	}
}
