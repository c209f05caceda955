package kern

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
	"bsdnet/internal/testutil"
)

// This file has a stack whose wire an attacker holds. The stack is 10.0.0.1/24, or fd00::1/64; the
// attacker may send from any address.

var (
	attHost = netip.MustParseAddr("10.0.0.1")
	attPeer = netip.MustParseAddr("10.0.0.2")
	attAny  = netip.MustParsePrefix("0.0.0.0/0")
)

// The attacked stacks of both families. attFam is that of attHost and attPeer.
var (
	attInet, attInet6 = func() (a, b family) {
		a, b = inet, inet6
		a.prefix, a.peer = netip.PrefixFrom(attHost, 24), attPeer
		b.peer = netip.MustParseAddr("fd00::2")
		return a, b
	}()
	attFam = &attInet
)

// attackOver makes the attacked stacks of the test have a family.
func attackOver(t *testing.T, fam *family) {
	set := func(fam *family) {
		attFam, attHost, attPeer, attAny = fam, fam.host(), fam.peer, fam.all
		loopAt = netip.AddrPortFrom(fam.loop, loopAt.Port())
	}
	old := attFam
	t.Cleanup(func() { set(old) })
	set(fam)
}

// attFrom returns an address of attFam's, made of an IPv4 address.
func attFrom(a, b, c, d byte) netip.Addr {
	if attFam == &attInet {
		return netip.AddrFrom4([4]byte{a, b, c, d})
	}
	return netip.AddrFrom16([16]byte{0x20, 1, 12: a, b, c, d})
}

// attackedBoth runs a test of an attacked stack over both families.
func attackedBoth(t *testing.T, f func(t *testing.T, v *victim)) {
	for _, fam := range []*family{&attInet, &attInet6} {
		t.Run(fam.name, func(t *testing.T) {
			attackOver(t, fam)
			synctest.Test(t, func(t *testing.T) {
				v := attacked(t, nil)
				defer v.done()
				f(t, v)
			})
		})
	}
}

// A wireLink collects what the stack sends; take bounds how many packets a Write takes, err is what
// it returns.
type wireLink struct {
	mtu  int
	done chan struct{}
	once sync.Once

	mu    sync.Mutex
	ready func()
	sent  [][]byte
	quiet bool // count only
	n     int
	err   error
	take  func(n int) int
}

func newWireLink(mtu int) *wireLink { return &wireLink{mtu: mtu, done: make(chan struct{})} }

func (l *wireLink) MTU() int { return l.mtu }

func (l *wireLink) Start(ready func()) error {
	l.ready = ready
	return nil
}

func (l *wireLink) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *wireLink) Read([][]byte, []int) (int, error) {
	<-l.done
	return 0, net.ErrClosed
}

func (l *wireLink) Write(pkts []net.Buffers) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return 0, l.err
	}
	n := len(pkts)
	if l.take != nil {
		n = l.take(n)
	}
	for _, p := range pkts[:n] {
		l.n++
		if !l.quiet {
			l.sent = append(l.sent, slices.Concat(p...))
		}
	}
	return n, nil
}

// fetch returns what has been sent since it was last called.
func (l *wireLink) fetch() [][]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sent
	l.sent = nil
	return s
}

// count returns how many packets have been sent since it was last called.
func (l *wireLink) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.n
	l.n, l.sent = 0, nil
	return n
}

// A victim is a stack under test, with its wire.
type victim struct {
	testing.TB
	fam  *family
	k    *Kernel
	p    *Proc
	link *wireLink
	ifp  *Ifnet
}

// attacked makes a stack, with what mod changes of its configuration and its profile. It is closed,
// and its buffers are counted, by done.
func attacked(t testing.TB, mod func(*Config, *tcp.Profile)) *victim {
	t.Helper()
	fam := attFam
	c := Config{Profile: tcp.Default(), Rand: testutil.SeededRand(1)}
	mtu := 1500
	if mod != nil {
		mod(&c, c.Profile)
	}
	k, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	v := &victim{TB: t, fam: fam, k: k, p: k.NewProc(), link: newWireLink(mtu)}
	if v.ifp, err = k.Attach("wire0", v.link, []netip.Prefix{fam.prefix}); err != nil {
		t.Fatal(err)
	}
	if err := k.AddRoute(fam.all, v.ifp); err != nil {
		t.Fatal(err)
	}
	return v
}

// done closes the stack and asserts that it holds nothing any more.
func (v *victim) done() {
	v.Helper()
	v.k.Close()
	closedClean(v, v.k)
}

// closedClean asserts that a closed stack holds no buffer, callout, socket or port.
func closedClean(t testing.TB, k *Kernel) {
	t.Helper()
	if m, b := k.Pool().Outstanding(); m != 0 || b != 0 || k.Pool().Used() != 0 {
		t.Errorf("after Close %d mbufs and %d bytes of clusters are in use, %d bytes in all", m, b, k.Pool().Used())
	}
	if n := len(k.clock.heap); n != 0 {
		t.Errorf("after Close %d callouts are set", n)
	}
	if l := k.sockets.all(); len(l) != 0 {
		t.Errorf("after Close there are %d sockets; the first in state %v, so_state %b, dead %v", len(l),
			l[0].tp.State(), l[0].state, l[0].dead)
	}
	if n := k.sockets.n.Load(); n != 0 {
		t.Errorf("after Close %d sockets are counted", n)
	}
	k.pcbs.all(func(p *inpcb) { t.Errorf("after Close there is a pcb for %v", p.tuple) })
	for i := range k.ports.shards {
		for port := range k.ports.shards[i].users {
			t.Errorf("after Close port %d is taken", port)
		}
		for port := range k.ports.shards[i].conns {
			t.Errorf("after Close port %d has connections", port)
		}
	}
	for i := range k.ports.dests {
		for d, s := range k.ports.dests[i].sets {
			if s.n != 0 {
				t.Errorf("after Close %d ports to %v are taken", s.n, d)
			}
		}
	}
}

// settle lets everything that is due at this instant happen.
func settle() { synctest.Wait() }

// pass lets virtual time pass.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// no asserts that a call has succeeded.
func (v *victim) no(errno syscall.Errno) {
	v.Helper()
	if errno != 0 {
		v.Fatalf("unexpected %v", errno)
	}
}

// listen makes a listener on port with a backlog. Its calls do not block.
func (v *victim) listen(port uint16, backlog int) int {
	v.Helper()
	return v.listenOn(netip.AddrPortFrom(v.fam.all.Addr(), port), backlog)
}

func (v *victim) listenOn(a netip.AddrPort, backlog int, opts ...soOptions) int {
	v.Helper()
	fd, errno := v.p.Socket(v.fam.domain, SOCK_STREAM, 0)
	v.no(errno)
	for _, o := range opts {
		v.no(v.p.Setsockopt(fd, SOL_SOCKET, int(o), 1))
	}
	v.no(v.p.Bind(fd, a))
	v.no(v.p.Listen(fd, backlog))
	v.p.Fcntl(fd, F_SETFL, O_NONBLOCK)
	return fd
}

// A seg is a segment in an attacker's hands: from a peer to the stack.
type seg struct {
	from, to netip.AddrPort
	th       wire.TCP
	data     []byte
	ip       wire.IPv4
}

// bytes makes the packet, with correct checksums.
func (s *seg) bytes() []byte {
	return ipPacket(s.ip, s.from.Addr(), s.to.Addr(), wire.ProtoTCP, s.tcp())
}

// tcp makes the segment without its IP header.
func (s *seg) tcp() []byte {
	s.th.Sport, s.th.Dport = s.from.Port(), s.to.Port()
	var t [wire.TCPMaxLen]byte
	n := s.th.Put(t[:])
	return tcpSummed(s.from.Addr(), s.to.Addr(), append(t[:n:n], s.data...))
}

// tcpSummed fills in a TCP checksum.
func tcpSummed(src, dst netip.Addr, b []byte) []byte {
	b[16], b[17] = 0, 0
	binary.BigEndian.PutUint16(b[16:], ^wire.Fold(wire.Sum(b, wire.PseudoSum(src, dst, wire.ProtoTCP, len(b)))))
	return b
}

// ipPacket puts an IP header before a payload. If the addresses are IPv6, so is the header, with
// what ip has of class and hop limit.
func ipPacket(ip wire.IPv4, src, dst netip.Addr, proto uint8, payload []byte) []byte {
	if src.Is6() {
		pkt := ipPkt{src, dst, ip.TOS, ip.TTL, proto, payload}
		return pkt.packet()
	}
	ip.Src, ip.Dst, ip.Proto, ip.Len = src, dst, proto, wire.IPv4MinLen+len(payload)
	if ip.TTL == 0 {
		ip.TTL = 64
	}
	p := make([]byte, ip.Len)
	ip.Put(p)
	copy(p[wire.IPv4MinLen:], payload)
	return p
}

// icmpPacket makes an ICMP message.
func icmpPacket(src, dst netip.Addr, ic wire.ICMP, body []byte) []byte {
	b := make([]byte, wire.ICMPLen+len(body))
	ic.Put(b)
	copy(b[wire.ICMPLen:], body)
	b[2], b[3] = 0, 0
	binary.BigEndian.PutUint16(b[2:], wire.InCksum(b))
	return ipPacket(wire.IPv4{}, src, dst, wire.ProtoICMP, b)
}

// A got is a packet that the stack has sent.
type got struct {
	ip   wire.IPv4 // or what an IPv6 header has of it
	th   wire.TCP
	data []byte // TCP payload, or what follows the IP header
}

// parse reads a packet of the stack's and verifies its checksums.
func (v *victim) parse(p []byte) got {
	v.Helper()
	var g got
	var err error
	if len(p) > 0 && p[0]>>4 == 6 {
		var ip ipPkt
		ip, err = parseIP(p)
		g.ip = wire.IPv4{Src: ip.src, Dst: ip.dst, Len: len(p), Hlen: wire.IPv6Len, Proto: ip.proto}
		g.ip.TOS, g.ip.TTL = ip.tos, ip.ttl
	} else {
		g.ip, err = wire.ParseIPv4(p, len(p))
	}
	if err != nil || g.ip.Len != len(p) {
		v.Fatalf("the stack has sent %x: %v", p, err)
	}
	g.data = p[g.ip.Hlen:]
	if g.ip.Proto != wire.ProtoTCP || g.ip.Off != 0 || g.ip.Flags&wire.IPMF != 0 {
		return g
	}
	if wire.Fold(wire.Sum(g.data, wire.PseudoSum(g.ip.Src, g.ip.Dst, wire.ProtoTCP, len(g.data)))) != 0xffff {
		v.Fatalf("the stack has sent a bad checksum: %x", p)
	}
	if err := wire.ParseTCP(g.data, &g.th); err != nil {
		v.Fatalf("the stack has sent %x: %v", p, err)
	}
	g.data = g.data[g.th.Hlen:]
	return g
}

// segments returns the TCP segments that have been sent since the last call.
func (v *victim) segments() (list []got) {
	v.Helper()
	for _, p := range v.link.fetch() {
		list = append(list, v.parse(p))
	}
	return list
}

// one returns the only segment that has been sent.
func (v *victim) one() got {
	v.Helper()
	l := v.segments()
	if len(l) != 1 {
		v.Fatalf("%d packets were sent, want 1: %v", len(l), l)
	}
	return l[0]
}

// none asserts that nothing has been sent.
func (v *victim) none() {
	v.Helper()
	if l := v.segments(); len(l) != 0 {
		v.Fatalf("%d packets were sent, want none: %v", len(l), l)
	}
}

// inject gives the stack a packet, and lets workers that it has started end.
func (v *victim) inject(p []byte) { v.ifp.Inject(p) }

// A peer is an honest end of one connection, run by hand.
type peer struct {
	v        *victim
	from, to netip.AddrPort
	seq, ack tcp.Seq // next of ours, next of theirs
	win      uint16
	ts       bool
	tsval    uint32
	tsecr    uint32
}

// peer makes the peer with this port, for the stack's port.
func (v *victim) peer(fport, lport uint16) *peer {
	return &peer{v: v, from: v.at(fport), to: netip.AddrPortFrom(v.fam.host(), lport), seq: 1000,
		win: 65535, tsval: 1}
}

// at returns a port of the peer's.
func (v *victim) at(port uint16) netip.AddrPort { return netip.AddrPortFrom(v.fam.peer, port) }

func (p *peer) seg(flags wire.Flags, data []byte) *seg {
	s := &seg{from: p.from, to: p.to, data: data}
	s.th = wire.TCP{Seq: p.seq, Flags: flags, Win: p.win}
	if flags&wire.ACK != 0 {
		s.th.Ack = p.ack
	}
	if p.ts {
		s.th.Opt = wire.Options{Has: wire.TofTS, TSVal: p.tsval, TSEcr: p.tsecr}
	}
	return s
}

// syn makes our SYN, with options.
func (p *peer) syn(o wire.Options) *seg {
	s := p.seg(wire.SYN, nil)
	s.th.Opt = o
	p.ts, p.tsval = o.Has&wire.TofTS != 0, o.TSVal
	return s
}

// dial makes a connection to a listener, and returns whether that has succeeded as far as a peer
// can see.
func (p *peer) dial(o wire.Options) bool {
	p.v.Helper()
	p.v.inject(p.syn(o).bytes())
	for _, g := range p.v.segments() {
		if g.ip.Dst == p.from.Addr() && g.th.Dport == p.from.Port() && g.th.Flags == wire.SYN|wire.ACK {
			p.seq, p.ack = p.seq+1, g.th.Seq+1
			p.tsecr = g.th.Opt.TSVal
			p.v.inject(p.seg(wire.ACK, nil).bytes())
			return true
		}
	}
	return false
}

// send sends data in one segment.
func (p *peer) send(data []byte) {
	p.v.inject(p.seg(wire.ACK|wire.PUSH, data).bytes())
	p.seq = p.seq.Add(len(data))
}

// established makes a connection to the listener and returns both ends.
func (v *victim) established(lfd int, fport, lport uint16) (p *peer, fd int) {
	v.Helper()
	p = v.peer(fport, lport)
	if !p.dial(wire.Options{Has: wire.TofMSS, MSS: 1460}) {
		v.Fatalf("no SYN,ACK")
	}
	fd, _, errno := v.p.Accept(lfd)
	v.no(errno)
	v.p.Fcntl(fd, F_SETFL, O_NONBLOCK)
	v.link.fetch()
	return p, fd
}

// state returns the states of all connections that match.
func (v *victim) states(match func(Conn) bool) (s []tcp.State) {
	for _, c := range v.k.Pcblist() {
		if match == nil || match(c) {
			s = append(s, c.State)
		}
	}
	return s
}

var errFault = errors.New("fault")

var _ Link = (*wireLink)(nil)

// floodSYNs is the length of a flood. It fills every table ten times; anyone who has time can set
// it to a million, and watch that the memory does not grow.
const floodSYNs = 8 * scMax

// halfOpen returns how many handshakes the syncache holds.
func (v *victim) halfOpen() int {
	sc := &v.k.syncache
	sc.mu.Lock()
	defer sc.mu.Unlock()
	return sc.n
}

// waiting returns how many datagrams are being put together, of how many sources, and what they
// pin.
func (v *victim) waiting() (datagrams, sources, bytes int) {
	r := &v.k.reass
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.q), len(r.sources), r.bytes
}
