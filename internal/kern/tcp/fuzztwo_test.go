package tcp

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/testutil"
)

// An arena holds two machines, back to back, and the adversary between them.
type arena struct {
	t       *testing.T
	d       testutil.Dice
	now     int64
	ends    [2]*end
	q       []frame
	order   int
	verbose bool
	fair    bool   // the adversary has retired
	abort   bool   // a user closed early: the rest of the stream may be lost
	loss    [2]int // packets lost since either end last made progress
	mark    [2]Seq
	log     []string
	count   int
}

type frame struct {
	at, order int64
	to        int
	p         *pkt
}

// An end is one machine with its user.
type end struct {
	a                    *arena
	i                    int
	tp                   TCB
	prof                 *Profile
	pool                 mbuf.Pool
	snd                  mbuf.Sendbuf
	rcv                  mbuf.Sockbuf
	stats                Stats
	iss                  Seq
	total                int // bytes that the user wants to write
	written, readn       int
	shut, closed         bool
	eof, gone, listening bool
	syn                  *SynState
	tw                   *TimeWaitRec
	errno                syscall.Errno
	noRoom, started      bool
	emitErrno            syscall.Errno
	drains               int64 // when the queue has room again
	arrived              int64 // when the segment in hand came
}

func (a *arena) logf(format string, args ...any) {
	if !a.verbose {
		return
	}
	a.log = append(a.log, fmt.Sprintf("%12.6f ", float64(a.now)/1e9)+fmt.Sprintf(format, args...))
	if len(a.log) > 4000 {
		a.log = slices.Clone(a.log[2000:])
	}
}

// fatalf ends a game. The first time it is played again, with a log.
func (a *arena) fatalf(format string, args ...any) {
	if !a.verbose {
		panic(errReplay)
	}
	a.t.Fatalf("%s\n%s", fmt.Sprintf(format, args...), strings.Join(a.log[max(0, len(a.log)-80):], "\n"))
}

var errReplay = errors.New("replay")

// runTwo plays one game, in silence.
func runTwo(t *testing.T, data []byte) {
	defer func() {
		switch r := recover(); r {
		case nil:
		case errReplay:
			newArena(t, data, true).play()
		default:
			panic(r)
		}
	}()
	newArena(t, data, false).play()
}

func newArena(t *testing.T, data []byte, verbose bool) *arena {
	a := &arena{t: t, d: testutil.Dice(data), now: epoch, verbose: verbose}
	mss := []int{1460, 1000, 256, 536, 8960, 65483}[a.d.N(6)]
	isWhole := a.d.One(6)
	for i := range a.ends {
		e := &end{a: a, i: i, prof: []func() *Profile{Default, FreeBSD, Net3}[a.d.N(3)]()}
		e.prof.Keepalive = false
		e.prof.Keepinit = 10000 * sec
		e.prof.Nodelay = a.d.One(2)
		e.prof.CC = CCNames()[a.d.N(len(CCNames()))]
		if a.d.One(3) {
			e.prof.ECN = 1
		}
		if a.d.One(4) {
			e.prof.Sack = false
		}
		if a.d.One(4) {
			e.prof.RFC1323 = false
		}
		e.rcv.SetHiwat([]int{65536, 4096, 600, 30000, 262144, 8192}[a.d.N(6)])
		e.snd.SetHiwat([]int{65536, 4096, 2000, 30000, 262144, 8192}[a.d.N(6)])
		e.tp.Init(Config{Sock: e, Env: NewEnv(e.prof, &e.pool, &e.stats), Snd: &e.snd, Rcv: &e.rcv})
		e.tp.Lport, e.tp.Fport = uint16(1+i), uint16(2-i)
		e.tp.SetPath(Path{MTU: mss + 40, TSOmax: []int{0, 4000, 65000}[a.d.N(3)], Whole: isWhole})
		e.iss = isns[a.d.N(len(isns))]
		e.total = []int{0, 1, 3000, 20000, 100000, 300000}[a.d.N(6)]
		a.ends[i] = e
	}
	return a
}

// play is a game: first the adversary's throws, then a fair network until both ends have closed.
func (a *arena) play() {
	both := a.d.One(3) // simultaneous open
	a.ends[0].start()
	if both {
		a.now += int64(a.d.N(20)) * ms
		a.ends[1].start()
	} else {
		a.ends[1].listening = true
	}
	for a.d.More() {
		a.act()
		a.check()
	}
	a.fair = true
	end := a.now + 4*3600*sec
	for n := 0; !a.over(); n++ {
		for _, e := range a.ends {
			e.behave()
		}
		if a.over() {
			break
		}
		moved := a.step()
		if !moved && a.abort {
			break // half-open: the reset was lost
		}
		if !moved || a.now > end || n > 100000 {
			a.fatalf("stalled: %s", a)
		}
		a.check()
	}
	for _, e := range a.ends {
		p := a.ends[1-e.i]
		e.read(e.rcv.Cc())
		if !a.abort && (e.errno != 0 || e.readn != p.total) {
			a.fatalf("end %d: errno %v, read %d of %d; %s", e.i, e.errno, e.readn, p.total, a)
		}
		e.free()
	}
}

// over reports whether both ends have closed.
func (a *arena) over() bool {
	for _, e := range a.ends {
		if !e.gone && e.tw == nil && !(e.listening && a.abort && len(a.q) == 0) {
			return false
		}
	}
	return true
}

func (a *arena) String() string {
	s := ""
	for _, e := range a.ends {
		s += fmt.Sprintf("[%s %s %v wrote %d of %d read %d sndcc %d rcvcc %d wnd %d eof %v shut %v next %d] ",
			e.prof.Name, e.tp.State(), e.errno,
			e.written, e.total, e.readn, e.snd.Cc(), e.rcv.Cc(), e.tp.sndWnd, e.eof, e.shut, e.tp.Next()-a.now)
	}
	return s
}

// act is one throw of the adversary: an event, or a user's whim.
func (a *arena) act() {
	e := a.ends[a.d.N(2)]
	switch a.d.N(12) {
	case 0, 1, 2, 3, 4, 5, 6:
		if !a.step() {
			e.behave()
		}
	case 7:
		e.write(a.d.N(5000))
	case 8:
		e.read(a.d.N(10000))
	case 9:
		e.whim()
	case 10:
		a.now += int64(a.d.N(1000)) * ms / 10
	case 11:
		e.behave()
	}
}

// whim is something rare.
func (e *end) whim() {
	a := e.a
	switch a.d.N(13) {
	case 0:
		e.noRoom, e.drains = true, a.now+sec
	case 1, 2:
		e.unblock()
	case 3:
		e.emitErrno = []syscall.Errno{syscall.ENOBUFS, syscall.EHOSTUNREACH}[a.d.N(2)]
	case 4, 5:
		e.emitErrno = 0
	case 6:
		if !e.gone && e.started {
			e.tp.Mtudisc(300+a.d.N(1200), a.now)
		}
	case 7:
		if e.written > 0 && e.started {
			e.tp.SendUrgent()
		}
	case 8:
		if a.d.One(8) {
			e.close()
		}
	case 9:
		if e.written >= e.total {
			e.shutdown()
		}
	case 10:
		e.tp.CongestionExperienced()
	case 11:
		// SO_RCVBUF: only what does not take back a window that was given.
		e.rcv.SetHiwat(e.rcv.Hiwat() + a.d.N(5000))
	case 12:
		if !e.gone {
			e.tp.SetCC(CCNames()[a.d.N(len(CCNames()))], a.now)
		}
	}
}

// behave is what a good user does: write all, shut down, read to the end, close.
func (e *end) behave() {
	if !e.started || e.gone {
		return
	}
	e.emitErrno = 0
	e.unblock()
	e.write(e.total - e.written)
	e.read(e.rcv.Cc())
	if e.written == e.total {
		e.shutdown()
	}
	if e.shut && e.eof && e.rcv.Cc() == 0 {
		e.close()
	}
}

func (e *end) unblock() {
	e.noRoom = false
	if e.started && !e.gone {
		e.tp.Unblock(e.a.now)
	}
}

func (e *end) start() {
	e.started = true
	e.tp.Connect(e.iss, 77, e.a.now)
}

func (e *end) canSend() bool {
	return e.started && !e.gone && !e.shut && !e.closed && (e.tp.State() == Established || e.tp.State() == CloseWait)
}

func (e *end) write(n int) {
	n = min(n, e.total-e.written, e.snd.Space())
	if n <= 0 || !e.canSend() {
		return
	}
	m := e.pool.Getcl(n)
	n = min(n, len(m.Room()))
	for i := range n {
		m.Room()[:n][i] = pattern(e.written + i + e.i<<20)
	}
	m.Extend(n)
	e.written += n
	e.snd.Append(m)
	e.a.logf("end %d write %d", e.i, n)
	e.tp.Output(e.a.now)
}

func (e *end) read(n int) {
	n = min(n, e.rcv.Cc())
	if n <= 0 || e.closed {
		return
	}
	b := make([]byte, n)
	e.rcv.Copydata(0, b)
	e.rcv.Drop(n)
	for i, c := range b {
		if want := pattern(e.readn + i + (1-e.i)<<20); c != want {
			e.a.fatalf("end %d: byte %d is %#x, want %#x", e.i, e.readn+i, c, want)
		}
	}
	e.readn += n
	e.a.logf("end %d read %d", e.i, n)
	if !e.gone && e.tw == nil {
		e.tp.Output(e.a.now)
	}
}

func (e *end) shutdown() {
	if !e.canSend() {
		return
	}
	e.a.logf("end %d shutdown", e.i)
	e.shut = true
	e.tp.Usrclosed(e.a.now)
	e.tp.Output(e.a.now)
}

func (e *end) close() {
	if e.gone || e.closed || !e.started || e.tw != nil {
		return
	}
	if !e.shut || !e.eof || e.rcv.Cc() > 0 || e.written < e.total {
		e.a.abort = true
	}
	e.closed = true
	e.a.logf("end %d close", e.i)
	unread := e.rcv.Cc() > 0
	e.rcv.Flush()
	e.tp.Set(CantRcvMore)
	if unread && e.prof.RSTUnread && e.tp.State().HaveEstablished() {
		e.tp.Reset(e.a.now)
		return
	}
	e.tp.Usrclosed(e.a.now)
	e.tp.Orphan(e.a.now)
	if e.tp.State() != Closed {
		e.tp.Output(e.a.now)
	}
}

// step makes the next thing happen: a packet arrives or a timer fires.
func (a *arena) step() bool {
	at, who := int64(never), -1
	for i, e := range a.ends {
		if e.noRoom && a.now > e.drains {
			e.unblock()
		}
		if e.started && !e.gone && e.tw == nil && e.tp.Next() < at {
			at, who = e.tp.Next(), i
		}
	}
	if len(a.q) > 0 && a.q[0].at <= at {
		f := a.q[0]
		a.q = a.q[1:]
		a.now = max(a.now, f.at)
		a.ends[f.to].arrived = a.now
		a.starve()
		a.ends[f.to].input(f.p)
		return true
	}
	for _, e := range a.ends {
		if e.noRoom && e.drains < at { // the queue drains before anything else happens
			a.now = max(a.now, e.drains+1)
			e.unblock()
			return true
		}
	}
	if who < 0 {
		return false
	}
	a.now = max(a.now, at)
	a.starve()
	a.logf("end %d timer", who)
	a.ends[who].tp.Timeout(a.now)
	return true
}

// starve lets time pass between an event and when somebody looks at it: the process does not run.
func (a *arena) starve() {
	if !a.fair && a.d.More() && a.d.One(24) {
		a.now += int64(a.d.N(2000)) * ms
	}
}

func (a *arena) check() {
	a.count++
	for i, e := range a.ends {
		if e.tp.sndUna != a.mark[i] || e.tp.sndUna == e.tp.sndMax {
			a.mark[i], a.loss[i] = e.tp.sndUna, 0
		}
	}
	for _, e := range a.ends {
		// A closed end does not wait for a reader for long.
		a.abort = a.abort || (e.stats.Persistdrop.Load() > 0 || e.stats.Timeoutdrop.Load() > 0) && e.closed
		if err := e.tp.Check(); err != nil && e.started {
			a.fatalf("end %d: %v", e.i, err)
		}
		if err := delivered(&e.tp, &e.stats); err != nil {
			a.fatalf("end %d: %v", e.i, err)
		}
	}
}

func (e *end) free() {
	if !e.gone {
		e.tp.Close()
	}
	e.snd.Flush()
	e.rcv.Flush()
	if m, b := e.pool.Outstanding(); m != 0 || b != 0 {
		e.a.fatalf("end %d: leak: %d mbufs, %d bytes", e.i, m, b)
	}
}

// FuzzTwoMachines: whatever the network does, what is read is a prefix of what was written, and
// once it behaves, both ends get all of it and close.
func FuzzTwoMachines(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(testutil.SeededBytes(seed, 600))
	}
	f.Fuzz(func(t *testing.T, data []byte) { runTwo(t, data[:min(len(data), maxFuzz)]) })
}

func TestTwoMachinesSeeds(t *testing.T) {
	for seed := range testutil.Games(1200, 50) {
		data := testutil.SeededBytes(seed, 50+int(seed*37%4000))
		if !t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { runTwo(t, data) }) {
			break
		}
	}
}
