package kern

import (
	"encoding/binary"
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"strconv"
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

// The stack is tested from outside by scripts in packetdrill's language: calls with their results,
// segments of the peer's (<), and the segments (>) that the stack must send, exactly then and
// nothing else. A harness of that kind needs only exported names; this one uses these:
//
//	// One stack. Its time is package time's, so a testing/synctest bubble owns it.
//	k, err := kern.New(kern.Config{Profile: tcp.FreeBSD()})
//	// The stack hands packets to link.Write: lists of slices, which are valid during the call.
//	ifp, err := k.Attach("tun0", link, prefixes)
//	// The way to the peer.
//	k.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), ifp)
//	// p.Socket, p.Bind, p.Connect, ...: descriptors count from 3, and results are errnos.
//	p := k.NewProc()
//	// An IP packet arrives from the peer. When Inject returns, all that follows has happened.
//	ifp.Inject(packet)
//	// A variable has FreeBSD's name, and is set before the socket is made.
//	k.SetSysctl("net.inet.tcp.rexmit_initial", 3000)
//	// Connections and their states, TIME_WAIT and SYN_RECEIVED included.
//	k.Pcblist()
//	k.Tcpdrop(func(c kern.Conn) bool { return c.State == tcp.TimeWait })
//
// Timers fire in goroutines of the stack: in a bubble, sleep up to the time in question and call
// synctest.Wait; then all has been sent.
//
// A script's notation, beyond packetdrill's:
//
//	mtu 1280                        the link's MTU; first line
//	sysctl NAME=VALUE
//	states CLOSED LISTEN            all sockets and connections, by state
//	drop TIME_WAIT                  tcpdrop what is in that state
//	flow 2                          go on with another port of the peer's (0 at the beginning)
//	flow new                        go on with new sequence numbers
//	+0...75 connect(...) = ...      a call that blocks so long
//	info 4 {tcpi_ca_state=TCP_CA_Open}  what TCP_INFO says of a descriptor
//	>> P. 1:2501(2500) mss 1000 ack 1 win 9  a train of segments of that size at the most
//
// Sequence numbers are relative to either side's SYN; timestamps that the stack sends are relative
// to its first one, which stands in the script.

// A script runs over both families. Over IPv6 the link's MTU is 20 more, and an MTU in an ICMP
// error too, so all segments are as long as over IPv4. A script that begins with "inet" is for IPv4
// only, and one that begins with "inet6" for IPv6 only; MTUs are as they are there.

const scriptPort = 8080 // of bind and of connect

// A scriptLink collects what the stack sends.
type scriptLink struct {
	mtu  int
	done chan struct{}

	mu   sync.Mutex
	sent []sentPkt
}

type sentPkt struct {
	at  time.Time
	pkt []byte
}

func (l *scriptLink) MTU() int           { return l.mtu }
func (l *scriptLink) Start(func()) error { return nil }
func (l *scriptLink) Close() error       { close(l.done); return nil }

func (l *scriptLink) Read([][]byte, []int) (int, error) {
	<-l.done
	return 0, net.ErrClosed
}

func (l *scriptLink) Write(pkts []net.Buffers) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range pkts {
		l.sent = append(l.sent, sentPkt{time.Now(), slices.Concat(p...)})
	}
	return len(pkts), nil
}

// A scriptFlow is what a script knows of one connection.
type scriptFlow struct {
	lport, fport uint16
	iss          wire.Seq // ours
	issKnown     bool
	tsOff        uint32 // our timestamps minus the script's
	tsKnown      bool
}

// A script is a running one.
type script struct {
	t     testing.TB
	fam   *family
	more  int // by how much MTUs are more than the script says
	k     *Kernel
	p     *Proc
	ifp   *Ifnet
	link  *scriptLink
	irs   wire.Seq // the peer's initial sequence number
	flows map[string]*scriptFlow
	cur   *scriptFlow
	step  *step
	start time.Time
	wrote map[int]int // bytes written and read, by descriptor
	read  map[int]int
	calls []*pendingCall
	lax   bool // any packet satisfies a > line
	log   []string
}

// A pendingCall is one that blocks.
type pendingCall struct {
	step *step
	c    sysCall
	end  time.Time // when it must return
	done chan struct{}
	at   time.Time // when it did
	msg  string
}

// runScript runs text on a new stack with the FreeBSD profile, for several initial sequence numbers
// of the peer's.
func runScript(t *testing.T, text string) {
	t.Helper()
	for _, irs := range []wire.Seq{0, 1<<31 - 1, 1<<32 - 3} {
		runScriptWith(t, tcp.FreeBSD, irs, text)
		if t.Failed() {
			return
		}
	}
}

// runScripts runs each script of a table as a subtest.
func runScripts(t *testing.T, scripts map[string]string) {
	for name, text := range scripts {
		t.Run(name, func(t *testing.T) { runScript(t, text) })
	}
}

func runScriptWith(t *testing.T, prof func() *tcp.Profile, irs wire.Seq, text string) {
	t.Helper()
	steps, err := parseScript(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, fam := range []*family{&inet, &inet6} {
		if t.Failed() || !fam.runs(steps) {
			continue
		}
		synctest.Test(t, func(t *testing.T) {
			s := newScript(t, fam, prof(), irs, steps)
			for i := range steps {
				s.run(&steps[i])
			}
			s.finish()
		})
	}
}

// runs reports whether a script is for the family: not for the other only, nor with ICMP errors
// that the family does not have. Unless it is for IPv6 only, its MTUs must also be possible there.
func (f *family) runs(steps []step) bool {
	only := false
	mtu := func(n int) bool {
		n += wire.IPv6Len - wire.IPv4MinLen
		return f == &inet || only || n >= wire.IPv6MinMTU && n <= wire.MaxPacket
	}
	for i := range steps {
		switch ev := steps[i].ev.(type) {
		case directive:
			n := 1500
			switch ev.word {
			case "inet":
				return f == &inet
			case "inet6":
				if only = true; f == &inet {
					return false
				}
			case "mtu":
				fmt.Sscan(ev.rest, &n)
			}
			if !mtu(n) {
				return false
			}
		case icmpLine:
			if _, _, ok := ev.of(f); !ok || ev.rest != 0 && !mtu(int(ev.rest)) {
				return false
			}
		}
	}
	return true
}

// newScript makes the stack. The MTU is in one of the first two steps.
func newScript(t testing.TB, fam *family, prof *tcp.Profile, irs wire.Seq, steps []step) *script {
	t.Helper()
	link := &scriptLink{mtu: 1500, done: make(chan struct{})}
	more := fam.hdr - wire.IPv4MinLen
	for i := range min(2, len(steps)) {
		switch d, _ := steps[i].ev.(directive); d.word {
		case "mtu":
			fmt.Sscan(d.rest, &link.mtu)
		case "inet6":
			more = 0
		}
	}
	link.mtu = min(link.mtu+more, wire.MaxPacket)
	k, err := New(Config{Profile: prof})
	if err != nil {
		t.Fatal(err)
	}
	if more > 0 {
		k.prof.V6MSSDflt = k.prof.MSSDflt
	}
	ifp, err := k.Attach("tun0", link, []netip.Prefix{fam.prefix})
	if err != nil {
		t.Fatal(err)
	}
	if err := k.AddRoute(netip.PrefixFrom(fam.peer, 24).Masked(), ifp); err != nil {
		t.Fatal(err)
	}
	s := &script{
		t: t, fam: fam, more: more, k: k, p: k.NewProc(), ifp: ifp, link: link, irs: irs,
		start: time.Now(), step: &step{}, flows: map[string]*scriptFlow{}, wrote: map[int]int{}, read: map[int]int{},
	}
	s.flow("0")
	t.Cleanup(k.Close)
	return s
}

// flow makes the named flow current.
func (s *script) flow(name string) {
	if name == "new" { // the same addresses, another connection
		*s.cur = scriptFlow{lport: s.cur.lport, fport: s.cur.fport}
		return
	}
	if s.flows[name] == nil {
		s.flows[name] = &scriptFlow{lport: scriptPort, fport: uint16(40000 + len(s.flows))}
	}
	s.cur = s.flows[name]
}

func (s *script) fatalf(format string, a ...any) {
	s.t.Helper()
	from := max(0, len(s.log)-30)
	s.t.Fatalf("line %d: %s\n%s\n(%s, irs %d)\n%s", s.step.num, s.step.line, fmt.Sprintf(format, a...), s.fam.name,
		uint32(s.irs), strings.Join(s.log[from:], "\n"))
}

func (s *script) logf(format string, a ...any) {
	s.log = append(s.log, fmt.Sprintf("%11.6f  ", time.Since(s.start).Seconds())+fmt.Sprintf(format, a...))
}

// run does one step.
func (s *script) run(st *step) {
	s.t.Helper()
	if st.after > 0 {
		s.nothing()
	}
	s.step = st
	time.Sleep(st.after)
	synctest.Wait()
	if _, ok := st.ev.(expect); !ok {
		s.nothing()
		s.logf("%s", st.line)
	}
	switch ev := st.ev.(type) {
	case inject:
		s.inject(&ev.tr)
	case icmpLine:
		s.ifp.Inject(s.icmp(&ev))
	case expect:
		s.expect(&ev)
	case sysCall:
		s.call(st, &ev)
	case directive:
		s.directive(ev)
	}
	synctest.Wait()
}

// finish ends a script: the stack has sent no more than the script says, and has freed every
// buffer.
func (s *script) finish() {
	s.t.Helper()
	s.nothing()
	for _, c := range s.calls {
		s.check(c)
	}
	s.k.Close()
	if m, b := s.k.Pool().Outstanding(); m != 0 || b != 0 {
		s.fatalf("at the end %d mbufs and %d bytes of clusters are not back", m, b)
	}
}

// sent returns the first packet that no step has claimed.
func (s *script) sent() (p sentPkt, ok bool) {
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	if len(s.link.sent) == 0 {
		return p, false
	}
	return s.link.sent[0], true
}

// nothing fails if the stack has sent a packet that the script does not have.
func (s *script) nothing() {
	s.t.Helper()
	if p, ok := s.sent(); ok {
		s.fatalf("not expected at %.6f: > %s", p.at.Sub(s.start).Seconds(), s.show(p.pkt))
	}
}

// show prints a packet for a report.
func (s *script) show(pkt []byte) string {
	ip, tr, err := s.trace(pkt)
	if err != nil {
		return fmt.Sprintf("%v: %x", err, pkt)
	}
	return fmt.Sprintf("[tos %#x,ttl %d] %v", ip.tos, ip.ttl, tr)
}

// trace reads a packet of the stack's, verifies what every packet must have, and makes its numbers
// the script's.
func (s *script) trace(pkt []byte) (ip ipPkt, tr trace.Line, err error) {
	if ip, err = parseIP(pkt); err != nil {
		return ip, tr, err
	}
	seg := ip.body
	f := s.cur
	switch {
	case ip.proto != wire.ProtoTCP || ip.src != s.fam.host() || ip.dst != s.fam.peer:
		return ip, tr, fmt.Errorf("IP header %+v", ip)
	case wire.Fold(wire.Sum(seg, wire.PseudoSum(ip.src, ip.dst, wire.ProtoTCP, len(seg)))) != 0xffff:
		return ip, tr, fmt.Errorf("bad checksum")
	}
	var th wire.TCP
	if err = wire.ParseTCP(seg, &th); err != nil {
		return ip, tr, err
	}
	if th.Sport != f.lport || th.Dport != f.fport {
		return ip, tr, fmt.Errorf("ports %d and %d, want %d and %d", th.Sport, th.Dport, f.lport, f.fport)
	}
	tr, err = trace.Of(seg, len(seg)-th.Hlen, f.iss, s.irs)
	data := seg[th.Hlen:]
	if th.Flags&wire.RST == 0 {
		for i, c := range data {
			if at := int(tr.TCP.Seq-1) + i; c != pattern(at) {
				return ip, tr, fmt.Errorf("byte %d of the stream is %#x, want %#x", at, c, pattern(at))
			}
		}
	}
	shiftTS(tr.Raw, -f.tsOff, 0)
	return ip, tr, err
}

// shiftTS adds to the values of a timestamp option. An echo of 0 says nothing and stays.
func shiftTS(raw []byte, dval, decr uint32) {
	for p := raw; len(p) > 1; {
		switch {
		case p[0] == 0:
			return
		case p[0] == 1:
			p = p[1:]
			continue
		case p[0] == 8 && p[1] == 10 && len(p) >= 10:
			be := binary.BigEndian
			be.PutUint32(p[2:], be.Uint32(p[2:])+dval)
			if e := be.Uint32(p[6:]); e != 0 {
				be.PutUint32(p[6:], e+decr)
			}
			return
		case p[1] < 2 || int(p[1]) > len(p):
			return
		}
		p = p[p[1]:]
	}
}

// tsval returns the timestamp among options.
func tsval(raw []byte) (uint32, bool) {
	var th wire.TCP
	b := make([]byte, wire.TCPMinLen, wire.TCPMaxLen)
	b = append(b, raw...)
	b[12] = uint8(len(b)/4) << 4
	if wire.ParseTCP(b, &th) != nil || th.Opt.Has&wire.TofTS == 0 {
		return 0, false
	}
	return th.Opt.TSVal, true
}

// expect claims the next packet.
func (s *script) expect(e *expect) {
	s.t.Helper()
	p, ok := s.sent()
	if !ok {
		s.fatalf("nothing was sent")
	}
	f := s.cur
	if seg := p.pkt[s.fam.hdr:]; !f.issKnown && len(seg) >= wire.TCPMinLen && seg[13]&uint8(wire.SYN) != 0 {
		f.iss = wire.Seq(binary.BigEndian.Uint32(seg[4:])) - e.tr.TCP.Seq
		f.issKnown = true
	}
	if _, tr, err := s.trace(p.pkt); err == nil && !f.tsKnown {
		if have, ok := tsval(tr.Raw); ok {
			if want, ok := tsval(e.tr.Raw); ok {
				f.tsOff, f.tsKnown = have-want, true
			}
		}
	}
	ip, tr, err := s.trace(p.pkt)
	s.logf("> %s", s.show(p.pkt))
	tr.Given = e.tr.Given | tr.Given&^(trace.GivenSeq|trace.GivenWin|trace.GivenOpt)
	switch {
	case err != nil:
		s.fatalf("%v", err)
	case s.lax:
	case !p.at.Equal(time.Now()):
		s.fatalf("sent %v ago", time.Since(p.at))
	case tr.String() != e.tr.String() || ip.tos != e.tos || ip.ttl != e.ttl:
		s.fatalf("sent [tos %#x,ttl %d] %v", ip.tos, ip.ttl, tr)
	}
	s.claim()
}

// claim removes the first packet.
func (s *script) claim() {
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	s.link.sent = s.link.sent[1:]
}

// pattern is byte off of either stream.
func pattern(off int) byte { return byte(off ^ off>>8*31 ^ off>>16*17) }

// inject gives the stack a segment of the peer's.
func (s *script) inject(tr *trace.Line) {
	f := s.cur
	th := *tr
	th.Raw = slices.Clone(tr.Raw)
	shiftTS(th.Raw, 0, f.tsOff)
	th.TCP.Sport, th.TCP.Dport = f.fport, f.lport
	seg := make([]byte, wire.TCPMaxLen+tr.Len)
	n := th.Put(seg, s.irs, f.iss)
	first := tr.TCP.Seq
	if tr.TCP.Flags&wire.SYN != 0 {
		first++
	}
	for i := range tr.Len {
		seg[n+i] = pattern(int(int32(first-1)) + i)
	}
	ip := ipPkt{src: s.fam.peer, dst: s.fam.host(), proto: wire.ProtoTCP, body: seg[:n+tr.Len]}
	s.ifp.Inject(ip.packet())
}

// icmp makes an ICMP error about a segment of ours.
func (s *script) icmp(e *icmpLine) []byte {
	var th [40]byte
	binary.BigEndian.PutUint16(th[:], s.cur.lport)
	binary.BigEndian.PutUint16(th[2:], s.cur.fport)
	binary.BigEndian.PutUint32(th[4:], uint32(s.cur.iss+e.seq))
	q := ipPkt{src: s.fam.host(), dst: s.fam.peer, proto: wire.ProtoTCP, body: th[:]}
	quoted := q.packet()[:s.fam.hdr+8]
	typ, code, _ := e.of(s.fam)
	rest := e.rest
	if rest != 0 {
		rest += uint32(s.more)
	}
	body := make([]byte, wire.ICMPLen, wire.ICMPLen+len(quoted))
	wire.ICMP{Type: typ, Code: code, Rest: rest}.Put(body)
	ip := ipPkt{src: s.fam.peer, dst: s.fam.host(), proto: s.fam.icmp, body: append(body, quoted...)}
	return ip.packet()
}

// directive does what is neither a segment nor a call.
func (s *script) directive(d directive) {
	s.t.Helper()
	switch d.word {
	case "mtu", "inet", "inet6":
		if s.step.num > 3 {
			s.fatalf("%s must be the first line", d.word)
		}
	case "sysctl":
		name, val, _ := strings.Cut(d.rest, "=")
		v, err := strconv.ParseInt(val, 10, 64)
		if err == nil {
			err = s.k.SetSysctl(name, v)
		}
		if err != nil {
			s.fatalf("%v", err)
		}
		// Where int has 32 bits, so has the profile.
		if got, err := s.k.Sysctl(name); err != nil || got != min(v, math.MaxInt) {
			s.fatalf("reads as %d, %v", got, err)
		}
	case "states":
		if got := s.states(); got != d.rest {
			s.fatalf("they are: %s", got)
		}
	case "drop":
		s.k.Tcpdrop(func(c Conn) bool { return c.State.String() == d.rest })
	case "flow":
		s.flow(d.rest)
	case "info":
		fd, rest, _ := strings.Cut(d.rest, " ")
		c := sysCall{args: []string{fd, "", "", rest}}
		n, err := strconv.Atoi(fd)
		if _, errno, msg := s.tcpInfo(&c, n); err != nil || errno != 0 || msg != "" {
			s.fatalf("%v %v %s", err, errno, msg)
		}
	default:
		s.fatalf("unknown word %q", d.word)
	}
}

// states returns the states of all connections, sorted by name.
func (s *script) states() string {
	var l []string
	for _, c := range s.k.Pcblist() {
		l = append(l, c.State.String())
	}
	slices.Sort(l)
	return strings.Join(l, " ")
}

// call makes a call, on a goroutine of its own if it may block.
func (s *script) call(st *step, c *sysCall) {
	s.t.Helper()
	p := &pendingCall{step: st, c: *c, end: time.Now().Add(max(st.lasts, 0)), done: make(chan struct{})}
	go func() {
		p.msg = s.perform(&p.c)
		p.at = time.Now()
		close(p.done)
	}()
	synctest.Wait()
	if st.lasts < 0 {
		s.check(p)
	} else {
		s.calls = append(s.calls, p)
	}
}

// check looks at the result of a call that must have returned.
func (s *script) check(p *pendingCall) {
	s.t.Helper()
	s.step = p.step
	select {
	case <-p.done:
	default:
		s.fatalf("the call has not returned")
	}
	if !p.at.Equal(p.end) {
		s.fatalf("the call returned %v too late", p.at.Sub(p.end))
	}
	if p.msg != "" {
		s.fatalf("%s", p.msg)
	}
}

// perform makes a call and says what is wrong with its result.
func (s *script) perform(c *sysCall) string {
	got, errno, msg := s.syscall(c)
	if msg != "" {
		return msg
	}
	if errno != 0 {
		got = -1
	}
	if got != c.want || errno != c.errno {
		return fmt.Sprintf("= %d %s", got, errnoName(errno))
	}
	return ""
}

func errnoName(e syscall.Errno) string {
	for n, v := range errnos {
		if v == e && n != "EAGAIN" {
			return n
		}
	}
	return fmt.Sprintf("(errno %d)", int(e))
}
