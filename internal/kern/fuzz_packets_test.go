package kern

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
	"bsdnet/internal/testutil"
)

// A siege is a stack with a listener and a connection to an honest peer, and an attacker that knows
// the connection and sends the stack what the bytes of a fuzzer say.
type siege struct {
	*victim
	d      testutil.Dice
	budget int64
	lfd    int
	fd     int
	so     *Socket
	peer   *peer
	ts     bool
	scale  uint8 // what the peer's windows are shifted by
	start  time.Time
	log    []string

	sndMax  tcp.Seq // the end of what the stack has sent on the connection, of sequence numbers
	lastAck tcp.Seq // what it has acknowledged last
	lastTS  uint32  // the timestamp that it has echoed last
	maxWin  int     // the largest window that anybody has offered it
	dupAt   int     // bytes that the user of the connection has read
	wrote   int     // bytes that it has written
	heard   int     // bytes that the honest peer has written
	// A segment has come that the peer might have sent: what the connection does is no longer the
	// peer's doing alone.
	taken bool
	shut  bool // the user has ended its direction
	errno syscall.Errno
}

// besiege plays one game.
func besiege(t *testing.T, data []byte) {
	synctest.Test(t, func(t *testing.T) {
		g := newSiege(t, data)
		defer g.done()
		for g.d.More() && time.Since(g.start) < time.Minute {
			g.act()
			g.check()
		}
		g.finish()
	})
}

// fatalf ends the game with what has happened in it.
func (g *siege) fatalf(format string, args ...any) {
	g.Helper()
	g.Fatalf("%s\n%s", fmt.Sprintf(format, args...), strings.Join(g.log[max(0, len(g.log)-60):], "\n"))
}

func (g *siege) logf(format string, args ...any) {
	g.log = append(g.log, fmt.Sprintf("%10.6f ", time.Since(g.start).Seconds())+fmt.Sprintf(format, args...))
}

func newSiege(t *testing.T, data []byte) *siege {
	g := &siege{d: testutil.Dice(data), start: time.Now(), budget: 64 << 20}
	if g.d.One(4) {
		g.budget = 1 << 20
	}
	profile := []func() *tcp.Profile{tcp.Default, tcp.FreeBSD, tcp.Default, tcp.Net3}[g.d.N(4)]
	g.victim = attacked(t, func(c *Config, p *tcp.Profile) {
		*p = *profile()
		p.Keepalive = false // nobody answers the probes
		c.Memory = g.budget
		g.taken = p.InsecureRST // the book's TCP believes whatever lies in the window
	})
	g.lfd = g.listen(80, 8)
	o := wire.Options{Has: wire.TofMSS, MSS: []uint16{1460, 536, 100, 8960}[g.d.N(4)]}
	if g.d.One(2) {
		o.Has, o.TSVal = o.Has|wire.TofTS, 1<<31-100
	}
	if g.d.One(2) {
		o.Has |= wire.TofSackperm
	}
	if g.d.One(3) {
		o.Has, o.Scale = o.Has|wire.TofScale, uint8(g.d.N(3))
		g.scale = o.Scale
	}
	g.peer = g.victim.peer(5000, 80)
	g.peer.seq = []tcp.Seq{1000, 0, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1<<32 - 100}[g.d.N(6)]
	if !g.peer.dial(o) {
		g.Fatal("no SYN,ACK")
	}
	fd, _, errno := g.p.Accept(g.lfd)
	g.no(errno)
	g.p.Fcntl(fd, F_SETFL, O_NONBLOCK)
	g.fd, g.so, g.ts = fd, g.p.Sock(fd), g.so0().Options&tcp.OptTimestamps != 0
	g.maxWin = int(g.peer.win) << g.scale
	g.sndMax, g.lastAck, g.lastTS = g.peer.ack, g.peer.seq, g.peer.tsval
	g.link.fetch()
	return g
}

func (g *siege) so0() tcp.Info {
	for _, c := range g.k.Pcblist() {
		if c.Remote == g.peer.from {
			return c.Info
		}
	}
	return tcp.Info{}
}

// info is what the connection is at.
func (g *siege) info() tcp.Info { return g.so.TCPInfo() }

// una is the oldest number that the peer has not acknowledged.
func (g *siege) una(i tcp.Info) tcp.Seq { return g.sndMax.Add(-i.InFlight) }

// act is one throw: a packet, a call, or time that passes.
func (g *siege) act() {
	switch g.d.N(16) {
	case 0, 1, 2, 3, 4, 5:
		g.forged()
	case 6:
		g.inject(g.raw())
	case 7:
		g.cooked()
	case 8:
		g.stranger()
	case 9:
		g.icmp()
	case 10:
		g.pieces()
	case 11, 12:
		g.honestly()
	case 13:
		g.call()
	case 14:
		d := time.Duration(g.d.N(2000)) * time.Millisecond
		g.logf("%v pass", d)
		pass(d)
	case 15:
		g.greet()
	}
	g.hear()
}

// hear looks at what the stack has sent.
func (g *siege) hear() {
	pkts := g.link.fetch()
	if len(pkts) > 400 {
		g.fatalf("%d packets at once", len(pkts))
	}
	for _, p := range pkts {
		s := g.parse(p)
		if s.ip.Proto != wire.ProtoTCP || s.ip.Dst != attPeer || s.th.Dport != g.peer.from.Port() ||
			s.th.Sport != g.peer.to.Port() {
			continue
		}
		g.logf("out %v %d+%d ack %d win %d", s.th.Flags, s.th.Seq, len(s.data), s.th.Ack, s.th.Win)
		if s.th.Flags&wire.RST != 0 {
			continue // it may quote anybody
		}
		end := s.th.Seq.Add(len(s.data))
		if s.th.Flags&wire.FIN != 0 {
			end++
		}
		g.sndMax = g.sndMax.Max(end)
		g.lastAck = s.th.Ack
		if s.th.Opt.Has&wire.TofTS != 0 {
			g.lastTS = s.th.Opt.TSEcr
		}
	}
}

// check asserts what holds after each event.
func (g *siege) check() {
	if n := g.k.Pool().Used(); n > g.budget+g.budget/10 {
		g.fatalf("%d bytes are in use, the budget is %d", n, g.budget)
	}
	all := g.k.sockets.all()
	for _, so := range all {
		so.lock()
		err := error(nil)
		if !so.dead {
			err = so.tp.Check()
		}
		so.mu.Unlock()
		if err != nil {
			g.fatalf("%v", err)
		}
	}
	g.k.clock.mu.Lock()
	n := len(g.k.clock.heap)
	g.k.clock.mu.Unlock()
	if n > len(all)+len(g.k.clock.tables) {
		g.fatalf("%d callouts for %d sockets", n, len(all))
	}
	if n := len(all); n > 64 {
		g.fatalf("%d sockets", n)
	}
}

// raw is bytes of the fuzzer's, as they are.
func (g *siege) raw() []byte {
	p := g.d.Bytes(1 + g.d.N(90))
	g.logf("raw %x", p)
	return p
}

// cooked is bytes of the fuzzer's behind an IP header that is in order, and perhaps with the right
// checksums.
func (g *siege) cooked() {
	proto := []uint8{wire.ProtoTCP, wire.ProtoTCP, wire.ProtoICMP, wire.ProtoUDP, uint8(g.d.N(256))}[g.d.N(5)]
	src := []netip.Addr{
		attPeer, attHost, netip.MustParseAddr("10.0.0.255"), netip.MustParseAddr("127.0.0.1"),
		netip.MustParseAddr("224.0.0.1"),
	}[g.d.N(5)]
	b := g.d.Bytes(20 + g.d.N(60))
	switch {
	case proto == wire.ProtoTCP && len(b) >= 20:
		if g.d.One(2) {
			binary2(b, g.peer.from.Port(), g.peer.to.Port())
		}
		b = tcpSummed(src, attHost, b)
	case proto == wire.ProtoICMP && len(b) >= 8:
		b = icmpPacket(src, attHost, wire.ICMP{Type: b[0], Code: b[1]}, b[8:])[wire.IPv4MinLen:]
	}
	g.logf("cooked %v %d %x", src, proto, b)
	ip := wire.IPv4{ID: uint16(g.d.N(4)), Off: 8 * g.d.N(3)}
	if g.d.One(4) {
		ip.Flags = wire.IPMF
	}
	p := ipPacket(ip, src, attHost, proto, b)
	if proto == wire.ProtoTCP && ip.Off == 0 && ip.Flags == 0 && len(b) >= 20 && src == attPeer {
		g.taken = true // it may be anything
	}
	g.inject(p)
}

// greet is a handshake, or a half of one, with the listener.
func (g *siege) greet() {
	p := g.victim.peer(uint16(6000+g.d.N(20)), 80)
	ok := p.dial(wire.Options{
		Has: wire.OptFlags(g.d.N(16)), MSS: uint16(g.d.N(65536)), Scale: uint8(g.d.N(15)), TSVal: uint32(g.d.N(256)),
	})
	g.logf("dial: %v", ok)
	if ok && g.d.One(2) {
		p.send(g.d.Bytes(5))
	}
	if g.d.One(3) {
		if fd, _, errno := g.p.Accept(g.lfd); errno == 0 {
			g.p.Close(fd)
		}
	}
}

// stranger is a segment that does not belong to the connection, or to the other end of it.
func (g *siege) stranger() {
	s := g.segment()
	switch g.d.N(4) {
	case 0:
		s.from = netip.AddrPortFrom(attPeer, uint16(6000+g.d.N(20)))
	case 1:
		s.to = netip.AddrPortFrom(attHost, uint16(79+g.d.N(3)))
		if s.to.Port() == 80 {
			s.from = netip.AddrPortFrom(attPeer, 4999)
		}
	case 2:
		s.from = s.to
	case 3:
		s.from = netip.AddrPortFrom([]netip.Addr{
			netip.MustParseAddr("10.0.0.255"), netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("0.0.0.0"),
		}[g.d.N(3)], 5000)
	}
	g.unmoved("a stranger", s, func() { g.inject(s.bytes()) })
}

// pieces sends a segment of the connection in fragments, which may not fit.
func (g *siege) pieces() {
	s := g.segment()
	s.data = make([]byte, 64+g.d.N(100))
	s.ip.ID = uint16(g.d.N(3))
	p := s.bytes()
	g.taken = true // what they make is not looked at
	for off := 0; off < len(p)-wire.IPv4MinLen; {
		n := min(8*(1+g.d.N(8)), len(p)-wire.IPv4MinLen-off)
		ip := wire.IPv4{ID: s.ip.ID, Off: off + 8*(g.d.N(8)/7)}
		if off+n < len(p)-wire.IPv4MinLen || g.d.One(8) {
			ip.Flags = wire.IPMF
		}
		if !g.d.One(12) {
			g.inject(ipPacket(ip, attPeer, attHost, wire.ProtoTCP, p[wire.IPv4MinLen+off:][:n]))
		}
		off += n
	}
	g.logf("pieces of %v %d+%d", s.th.Flags, s.th.Seq, len(s.data))
}

// icmp is an ICMP message that quotes the connection.
func (g *siege) icmp() {
	i := g.info()
	q := &seg{from: g.peer.to, to: g.peer.from}
	q.th = wire.TCP{Seq: g.near(g.una(i), i.InFlight), Ack: g.peer.seq, Flags: wire.ACK}
	p := q.bytes()
	typ := []uint8{3, 3, 3, 4, 5, 11, 12, 8, uint8(g.d.N(256))}[g.d.N(9)]
	ic := wire.ICMP{Type: typ, Code: uint8(g.d.N(16)), Rest: uint32(g.d.N(2000))}
	g.logf("ICMP %d %d %d quotes %d", ic.Type, ic.Code, ic.Rest, q.th.Seq)
	before := g.state()
	g.inject(icmpPacket(attPeer, attHost, ic, p[:min(len(p), 20+g.d.N(41))]))
	after := g.state()
	before.cwnd = min(before.cwnd, after.cwnd)
	if after != before {
		g.fatalf("an ICMP error has changed the connection from %+v to %+v", before, after)
	}
}

// call is something that the user does.
func (g *siege) call() {
	switch g.d.N(6) {
	case 0, 1:
		if n, errno := g.p.Send(g.fd, make([]byte, 1+g.d.N(20_000)), MSG_DONTWAIT); errno == 0 {
			g.wrote += n
			g.logf("write %d", n)
		}
	case 2, 3, 4:
		g.read(1 + g.d.N(20_000))
	case 5:
		if g.d.One(4) {
			g.logf("shutdown")
			g.shut = true
			g.p.Shutdown(g.fd, SHUT_WR)
		}
	}
}

// read reads, and compares with what the peer has sent.
func (g *siege) read(n int) int {
	b := make([]byte, n)
	n, errno := g.p.Recv(g.fd, b, MSG_DONTWAIT)
	if errno != 0 {
		if errno != syscall.EAGAIN {
			g.errno = errno
		}
		return 0
	}
	for i, c := range b[:n] {
		if !g.taken && c != streamByte(9, g.dupAt+i) {
			g.fatalf("byte %d is wrong", g.dupAt+i)
		}
	}
	if !g.taken && g.dupAt+n > g.heard {
		g.fatalf("%d bytes read of %d that the peer has sent", g.dupAt+n, g.heard)
	}
	g.dupAt += n
	g.logf("read %d", n)
	return n
}

// honestly has the peer do what it should: send the next data and acknowledge all. It does not know
// what others have done to the connection.
func (g *siege) honestly() {
	if g.so.TCPInfo().State == tcp.Closed {
		return
	}
	p := g.peer
	p.ack = g.sndMax
	var data []byte
	if !g.taken && p.seq == g.lastAck { // all before has been acknowledged
		data = make([]byte, g.d.N(1400))
		for i := range data {
			data[i] = streamByte(9, g.heard+i)
		}
		if room := g.info().RcvWnd; len(data) > room {
			data = data[:room]
		}
	}
	p.tsval, p.tsecr = p.tsval+1, 0
	g.logf("the peer: %d+%d ack %d", p.seq, len(data), p.ack)
	g.heard += len(data)
	p.send(data)
	if !g.taken && g.k.pressed() { // it may have been refused: then it was not sent, as the peer hears
		g.hear()
		if back := p.seq.Sub(g.lastAck); back > 0 && back <= len(data) && tcp.Seq(g.info().RcvNxt) == g.lastAck {
			p.seq, g.heard = g.lastAck, g.heard-back
		}
	}
}

// maxFuzz bounds the story that an input tells.
const maxFuzz = 1200

// FuzzPackets: whatever packets arrive, a stack neither panics nor blocks nor grows, and its
// listener accepts others. Its connection goes on, unless a segment that the peer might have sent
// has ended it.
func FuzzPackets(f *testing.F) {
	for seed := range uint64(6) {
		f.Add(testutil.SeededBytes(seed, 400))
	}
	f.Fuzz(func(t *testing.T, data []byte) { besiege(t, data[:min(len(data), maxFuzz)]) })
}

func TestPacketsSeeds(t *testing.T) {
	games := uint64(400)
	switch {
	case os.Getenv("BSDNET_LONG") == "1":
		games = 20_000
	case testing.Short():
		games = 20
	}
	for seed := range games {
		data := testutil.SeededBytes(seed, 50+int(seed*37%1100))
		if !t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { besiege(t, data) }) {
			break
		}
	}
}
