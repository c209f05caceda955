package tcp

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// The tests speak to one TCB through a kit: it plays the socket above, IP below, the peer and the
// clock. A test is a script in tcpdump's notation (see trace_test.go) between calls of the user.
// Sequence numbers in scripts are relative: 0 is the SYN.

// T is a test that runs for one pair of initial sequence numbers.
type T struct {
	*testing.T
	iss, irs Seq
}

// isns are the initial sequence numbers at which 32-bit arithmetic breaks.
var isns = [...]Seq{0, 1, 1<<31 - 1, 1 << 31, 1<<32 - 100, 1<<32 - 1}

// each runs body once for each initial sequence number of either side.
func each(t *testing.T, body func(t *T)) {
	for i, iss := range isns {
		irs := isns[(i+2)%len(isns)]
		t.Run(fmt.Sprintf("iss=%d,irs=%d", uint32(iss), uint32(irs)), func(t *testing.T) { body(&T{t, iss, irs}) })
	}
}

// epoch is when each test begins, in nanoseconds since the stack began.
const epoch = 1000 * sec

// off is what kit.want takes for a timer that does not run.
const off = "off"

// all makes kit.read take everything.
const all = -1

// A kit is one connection under test. It is the TCB's Sock.
type kit struct {
	t     *T
	tp    TCB
	prof  *Profile
	pool  mbuf.Pool
	snd   mbuf.Sendbuf
	rcv   mbuf.Sockbuf
	stats Stats
	now   int64
	sent  []*pkt   // emitted, and not yet claimed by a script
	log   []string // all that has happened, for a failure's report
	tw    *TimeWaitRec
	opts  options

	written, readn int // bytes of either stream so far
	events         []string
	errno          syscall.Errno // last Soerror
	eof            bool          // Socantrcvmore
	gone           bool          // TcpClose
	wakeups        int           // Sorwakeup
	traced         []Event       // Trace
	room           bool
	emitErrno      syscall.Errno
	fill           func(off int) byte // contents of what the peer sends
	tsecr          uint32             // our last TSval, which the peer echoes
	lag            int64              // how long ago what is input arrived
	blind          bool               // nobody looks at what is emitted
}

// pkt is a segment, in either direction.
type pkt struct {
	at      int64
	th      wire.TCP
	len     int
	segs    int // injected: merged from so many
	segsize int // emitted: cut into pieces of so much
	ect     bool
	opts    string // as printed
	data    []byte
}

// options are what constructors take as words.
type options struct {
	mss, rcvbuf, sndbuf, win, wscale, tso, peermss int
	ts, sack, ecn, whole, trace, inet6             bool
	rtt                                            time.Duration
}

// parse takes words like "mss 1000, ts, FreeBSD", and functions that change the profile.
func (k *kit) parse(opts []any) {
	k.prof = Default()
	k.prof.Keepalive = false
	k.opts = options{mss: 1460, win: 65535, wscale: -1, peermss: -1}
	var funcs []func(*Profile)
	var words []string
	for _, o := range opts {
		switch o := o.(type) {
		case string:
			words = append(words, strings.Split(o, ",")...)
		case func(*Profile):
			funcs = append(funcs, o)
		default:
			k.t.Fatalf("bad option %v", o)
		}
	}
	for _, w := range words {
		switch strings.TrimSpace(w) {
		case "FreeBSD":
			k.prof = FreeBSD()
		case "Net3":
			k.prof = Net3()
		}
	}
	for _, w := range words {
		k.option(strings.Fields(w))
	}
	for _, f := range funcs {
		f(k.prof)
	}
}

func (k *kit) option(f []string) {
	arg := 0
	if len(f) == 2 && f[0] != "rtt" {
		arg = k.atoi(f[1])
	}
	o := &k.opts
	switch f[0] {
	case "FreeBSD", "Net3":
	case "mss":
		o.mss = arg
	case "peermss":
		o.peermss = arg
	case "rcvbuf":
		o.rcvbuf = arg
	case "sndbuf":
		o.sndbuf = arg
	case "win":
		o.win = arg
	case "wscale":
		o.wscale = arg
	case "tso":
		o.tso = arg
	case "whole":
		o.whole = true
	case "inet6":
		o.inet6 = true
	case "ts":
		o.ts = true
	case "sack":
		o.sack = true
	case "ecn":
		o.ecn = true
	case "trace":
		o.trace = true
	case "nagle":
		k.prof.Nodelay = false
	case "nodelay":
		k.prof.Nodelay = true
	case "bsd": // without a scoreboard
		k.prof.Scoreboard = false
	case "keepalive":
		k.prof.Keepalive = true
	case "rtt":
		d, err := time.ParseDuration(f[1])
		if err != nil {
			k.t.Fatal(err)
		}
		o.rtt = d
	default:
		k.t.Fatalf("unknown option %q", f[0])
	}
}

// closed returns a connection in CLOSED that knows its path.
func closed(t *T, opts ...any) *kit {
	k := &kit{t: t, now: epoch, room: true}
	k.fill = pattern
	k.parse(opts)
	k.rcv.SetHiwat(int(or(int64(k.opts.rcvbuf), int64(k.prof.Recvspace))))
	k.snd.SetHiwat(int(or(int64(k.opts.sndbuf), int64(k.prof.Sendspace))))
	env := NewEnv(k.prof, &k.pool, &k.stats)
	if k.opts.trace {
		env.SetTraced()
	}
	k.tp.Init(Config{Sock: k, Env: env, Snd: &k.snd, Rcv: &k.rcv})
	k.tp.Lport, k.tp.Fport = 80, 4000
	hdrs := wire.IPv4MinLen + wire.TCPMinLen
	if k.opts.inet6 {
		hdrs = wire.IPv6Len + wire.TCPMinLen
	}
	k.tp.SetPath(Path{MTU: k.opts.mss + hdrs, V6: k.opts.inet6, TSOmax: k.opts.tso, Whole: k.opts.whole})
	t.Cleanup(k.done)
	return k
}

// tsOffset makes our timestamp clock read 100 when a test begins.
const tsOffset = uint32(100 + 1<<32 - epoch/ms)

// connect opens actively. The peer's initial sequence number is known from its SYN.
func (k *kit) connect() {
	k.logf("connect")
	k.tp.Connect(k.t.iss, tsOffset, k.now)
	k.check()
}

// synOptions are the options of the peer's SYN.
func (k *kit) synOptions() wire.Options {
	o := wire.Options{Has: wire.TofMSS, MSS: uint16(k.opts.mss)}
	switch {
	case k.opts.peermss == 0:
		o.Has = 0
	case k.opts.peermss > 0:
		o.MSS = uint16(k.opts.peermss)
	}
	if k.opts.wscale >= 0 {
		o.Has |= wire.TofScale
		o.Scale = uint8(k.opts.wscale)
	}
	if k.opts.sack {
		o.Has |= wire.TofSackperm
	}
	if k.opts.ts {
		o.Has |= wire.TofTS
		o.TSVal = k.peerTS()
	}
	return o
}

// synRcvd returns a connection in SYN_RECEIVED whose SYN the syncache has answered.
func synRcvd(t *T, opts ...any) *kit {
	k := closed(t, opts...)
	s := SynState{
		Iss: t.iss, Irs: t.irs, Win: uint16(k.opts.win), SentWin: uint16(min(k.rcv.Hiwat(), maxWin)),
		Opt: k.synOptions(), TSOffset: tsOffset, ECN: k.opts.ecn, Scale: WscaleFor(k.prof.Maxsockbuf),
	}
	if k.prof.ScaleByBuf {
		s.Scale = WscaleFor(k.rcv.Hiwat())
	}
	s.TSRecent = s.Opt.TSVal
	if k.opts.rtt > 0 {
		s.Start = k.now - int64(k.opts.rtt)
	}
	k.tsecr = TSClock(k.now, tsOffset)
	k.logf("passive")
	k.tp.Passive(&s, k.now)
	k.check()
	return k
}

// established returns a connection in ESTABLISHED, passively opened, without a round-trip sample
// but by option "rtt".
func established(t *T, opts ...any) *kit {
	k := synRcvd(t, opts...)
	k.line("< . 1:1(0) ack 1")
	k.sent = nil // a window update, if the buffer is larger than the SYN could say
	k.events = nil
	k.want("state", Established)
	return k
}

// write appends n bytes to the send buffer and asks for output, as sosend does.
func (k *kit) write(n int) {
	k.t.Helper()
	k.logf("write %d", n)
	k.append(n)
	k.tp.Output(k.now)
	k.check()
}

func (k *kit) append(n int) {
	for n > 0 {
		c := min(n, mbuf.ClMid)
		m := k.pool.Getcl(c)
		b := m.Room()[:c]
		for i := range b {
			b[i] = pattern(k.written)
			k.written++
		}
		m.Extend(c)
		k.snd.Append(m)
		n -= c
	}
}

// read takes n bytes (or all) out of the receive buffer, checks them, and asks for output, as
// soreceive does.
func (k *kit) read(n int) int {
	k.t.Helper()
	if n == all {
		n = k.rcv.Cc()
	}
	k.logf("read %d", n)
	if n > k.rcv.Cc() {
		k.fatalf("read %d: only %d there", n, k.rcv.Cc())
	}
	b := make([]byte, n)
	k.rcv.Copydata(0, b)
	k.rcv.Drop(n)
	for _, c := range b {
		if want := k.fill(k.readn); c != want {
			k.fatalf("byte %d of the stream is %#x, want %#x", k.readn, c, want)
		}
		k.readn++
	}
	if k.tp.State() != Closed && k.tp.State() != TimeWait {
		k.tp.Output(k.now)
	}
	k.check()
	return n
}

// shutdown ends our direction, as shutdown(SHUT_WR) does.
func (k *kit) shutdown() {
	k.t.Helper()
	k.logf("shutdown")
	k.tp.Usrclosed(k.now)
	if k.tp.State() != Closed {
		k.tp.Output(k.now)
	}
	k.check()
}

// close is the user's close, as tcp_disconnect does it: nobody reads any more.
func (k *kit) close() {
	k.t.Helper()
	k.logf("close")
	if k.tp.State() == Closed || k.tp.State() == TimeWait {
		return
	}
	unread := k.rcv.Cc() > 0
	k.rcv.Flush()
	k.readn = math.MinInt32
	k.tp.Set(UserClosed | CantRcvMore)
	if unread && k.prof.RSTUnread && k.tp.State().HaveEstablished() {
		k.tp.Reset(k.now)
	} else {
		k.tp.Usrclosed(k.now)
		if k.tp.State() != Closed {
			k.tp.Output(k.now)
		}
	}
	k.check()
}

// advance lets d pass, with the timers that fire meanwhile.
func (k *kit) advance(d time.Duration) {
	k.t.Helper()
	to := k.now + int64(d)
	if d > 0 {
		k.nothing()
	}
	for n := 0; k.tw == nil && k.tp.Next() <= to; n++ {
		if k.tp.Next() > k.now && len(k.sent) > 0 {
			k.nothing()
		}
		k.now = max(k.now, k.tp.Next())
		k.logf("timer")
		k.tp.Timeout(k.now)
		k.check()
		if n > 100000 || k.tp.Next() <= k.now && k.tp.State() != Closed && n > 100 {
			k.fatalf("a timer fires again and again")
		}
	}
	if to > k.now && len(k.sent) > 0 {
		k.nothing()
	}
	k.now = to
}

// nothing fails if something has been sent that the script does not have.
func (k *kit) nothing() {
	k.t.Helper()
	if len(k.sent) > 0 {
		k.fatalf("sent, and not expected: %s", k.string(k.sent[0], true))
	}
}

// input gives the TCB a segment of the peer, and answers with a reset if it says so, as package
// kern does (tcp_dropwithreset).
func (k *kit) input(p *pkt) {
	k.t.Helper()
	k.nothing()
	k.logf("< %s", k.string(p, false))
	if k.tw != nil {
		k.twInput(p)
		return
	}
	var m *mbuf.Mbuf
	for off := 0; off < p.len; off += mbuf.ClHuge {
		c := k.pool.Getcl(p.len - off)
		c.Append(p.data[off:min(p.len, off+mbuf.ClHuge)])
		m = mbuf.Cat(m, c)
	}
	th := p.th
	if k.tp.Input(&th, Payload{M: m, Len: p.len, Segs: p.segs}, k.now-k.lag, k.now) {
		k.reset(p)
	}
	k.check()
}

// reset sends what tcp_respond sends for dropwithreset (RFC 9293, 3.5.2).
func (k *kit) reset(p *pkt) {
	if p.th.Flags&wire.RST != 0 {
		k.fatalf("a reset answered with a reset")
	}
	r := &pkt{at: k.now, th: wire.TCP{Flags: wire.RST, Seq: p.th.Ack}}
	if p.th.Flags&wire.ACK == 0 {
		r.th.Flags |= wire.ACK
		r.th.Seq = k.t.iss // prints as 0
		r.th.Ack = p.th.Seq.Add(p.len)
		if p.th.Flags&wire.SYN != 0 {
			r.th.Ack++
		}
		if p.th.Flags&wire.FIN != 0 {
			r.th.Ack++
		}
	}
	k.sent = append(k.sent, r)
	k.logf("> %s", k.string(r, true))
}

// twInput asks the TIME_WAIT record.
func (k *kit) twInput(p *pkt) {
	v := k.tw.Input(&p.th, p.len, k.prof)
	k.events = append(k.events, [...]string{"tw drop", "tw ack", "tw restart", "tw new"}[v])
	if v == TwAck || v == TwRestart {
		r := &pkt{at: k.now, th: wire.TCP{Flags: wire.ACK, Seq: k.tw.SndNxt, Ack: k.tw.RcvNxt, Win: k.tw.Win}}
		k.sent = append(k.sent, r)
		k.logf("> %s", k.string(r, true))
	}
}

// check asserts the invariants. It follows every event.
func (k *kit) check() {
	k.t.Helper()
	if err := k.tp.Check(); err != nil {
		k.fatalf("%v", err)
	}
	if k.tw == nil && k.has("twstart") {
		r := k.tp.TimeWaitRec(k.now)
		k.tw = &r
	}
}

// done ends a test: nothing unclaimed has been sent, and every buffer has come back.
func (k *kit) done() {
	if k.t.Failed() {
		return
	}
	k.nothing()
	k.balance()
}

func (k *kit) balance() {
	if k.tp.State() != Closed {
		k.tp.Close()
	}
	k.snd.Flush()
	k.rcv.Flush()
	if m, b := k.pool.Outstanding(); m != 0 || b != 0 || k.pool.Used() != 0 {
		k.fatalf("leak: %d mbufs, %d bytes of clusters, %d bytes in all", m, b, k.pool.Used())
	}
}

func (k *kit) logf(format string, a ...any) {
	k.log = append(k.log, fmt.Sprintf("%10.6f  ", float64(k.now-epoch)/1e9)+fmt.Sprintf(format, a...))
}

func (k *kit) fatalf(format string, a ...any) {
	k.t.Helper()
	log := k.log[max(0, len(k.log)-40):]
	k.t.Fatalf("%s\n%s", fmt.Sprintf(format, a...), strings.Join(log, "\n"))
}

// pattern is byte off of either stream.
func pattern(off int) byte { return byte(off ^ off>>8*31 ^ off>>16*17) }

func (k *kit) atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		k.fatalf("%v", err)
	}
	return n
}

func (k *kit) peerTS() uint32 { return uint32((k.now-epoch)/ms) + 7000 }

// has reports whether the socket was told so, since the events were last cleared.
func (k *kit) has(event string) bool {
	for _, e := range k.events {
		if e == event {
			return true
		}
	}
	return false
}

// Emit is ip_output.
func (k *kit) Emit(m *mbuf.Mbuf) syscall.Errno {
	if k.blind {
		mbuf.Free(m)
		return 0
	}
	p := &pkt{at: k.now, segsize: m.Pkt.SegSize, ect: m.Pkt.Ect}
	h := m.Bytes()
	if err := wire.ParseTCP(h, &p.th); err != nil {
		k.fatalf("emitted: %v", err)
	}
	if p.th.Hlen > len(h) || m.Len() != m.Pkt.Len || p.th.Sport != k.tp.Lport || p.th.Dport != k.tp.Fport {
		k.fatalf("emitted: bad header mbuf, header %d of %d, packet %d of %d", p.th.Hlen, len(h), m.Pkt.Len, m.Len())
	}
	p.opts = printOptions(h[wire.TCPMinLen:p.th.Hlen], k.t.irs)
	p.len = m.Len() - p.th.Hlen
	p.data = make([]byte, p.len)
	mbuf.Copydata(m, p.th.Hlen, p.data)
	for i, c := range p.data {
		if at := p.th.Seq.Sub(k.t.iss+1) + i; c != pattern(at) {
			k.fatalf("emitted: byte %d of the stream is %#x, want %#x", at, c, pattern(at))
		}
	}
	mbuf.Free(m)
	if p.th.Opt.Has&wire.TofTS != 0 {
		k.tsecr = p.th.Opt.TSVal
	}
	if k.emitErrno != 0 {
		return k.emitErrno
	}
	k.logf("> %s", k.string(p, true))
	k.sent = append(k.sent, p)
	return 0
}

func (k *kit) event(e string) { k.events = append(k.events, e); k.logf("  %s", e) }

func (k *kit) Room() bool        { return k.room }
func (k *kit) Soisconnected()    { k.event("isconnected") }
func (k *kit) Soisdisconnected() { k.event("isdisconnected") }
func (k *kit) Socantrcvmore()    { k.eof = true; k.event("cantrcvmore") }
func (k *kit) Sorwakeup()        { k.wakeups++ }
func (k *kit) Sowwakeup()        {}
func (k *kit) TcpClose()         { k.gone = true; k.event("tcpclose") }
func (k *kit) TcpTwstart()       { k.event("twstart") }
func (k *kit) Trace(e *Event)    { k.traced = append(k.traced, *e) }
func (k *kit) Soerror(e syscall.Errno) {
	k.errno = e
	k.event("error " + strconv.Itoa(int(e)))
}
