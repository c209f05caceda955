package tcp

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"bsdnet/internal/kern/wire"
	"bsdnet/internal/testutil"
)

// runMachine lets one machine meet random segments and actions. The kit asserts the invariants
// after each event.
func runMachine(t *testing.T, data []byte) {
	d := testutil.Dice(data)
	tt := &T{t, isns[d.N(len(isns))], isns[d.N(len(isns))]}
	opts := []string{"Default", "FreeBSD", "Net3"}[d.N(3)] +
		[]string{"", ", ts", ", sack", ", ts, sack, wscale 7"}[d.N(4)] +
		[]string{", mss 1460", ", mss 536, rcvbuf 4000", ", mss 9000, tso 65000", ", mss 1000, whole"}[d.N(4)]
	if opts[0] == 'D' {
		opts = opts[len("Default, "):]
	}
	if d.One(3) {
		opts += ", rtt 30ms"
	}
	cc := withCC(CCNames()[d.N(len(CCNames()))])
	var k *kit
	switch d.N(4) {
	case 0:
		k = closed(tt, opts, cc)
		k.connect()
	case 1:
		k = synRcvd(tt, opts, cc)
	default:
		k = established(tt, opts, cc)
	}
	m := &machine{kit: k, d: &d, edge: tt.iss.Add(k.opts.win << 7), hiwat: k.rcv.Hiwat()}
	m.fill = func(off int) byte { return pattern(int(int32(off))) }
	k.sent = nil
	for d.More() && !k.gone && k.tw == nil {
		m.act()
		m.verify()
	}
	if k.gone || k.tw != nil {
		m.input(m.segment()) // after the end nothing may happen
	}
	k.sent = nil
}

type machine struct {
	*kit
	d     *testutil.Dice
	edge  Seq // right edge of the largest window that the peer may have given
	hiwat int
}

// verify looks at what has been sent, and at what is kept.
func (m *machine) verify() {
	for _, p := range m.sent {
		if p.len > 1 && m.tp.state.HaveEstablished() && p.th.Seq.Add(p.len).Gt(m.edge) {
			m.fatalf("sent beyond the window: %s, edge %d", m.string(p, true), m.edge.Sub(m.t.iss))
		}
		if p.th.Flags&(wire.ACK|wire.RST) == wire.ACK && p.th.Ack.Gt(m.tp.rcvNxt) {
			m.fatalf("acknowledged what has not come")
		}
	}
	if n := len(m.sent); n > 3000 {
		m.fatalf("%d segments for one event", n)
	}
	m.sent = m.sent[:0]
	m.hiwat = max(m.hiwat, m.rcv.Hiwat()) // rounded up when the MSS is known
	if m.rcv.Cc() > 2*m.hiwat {           // windows are rounded up, again and again
		m.fatalf("receive buffer holds %d, room was for %d", m.rcv.Cc(), m.hiwat)
	}
	if q := m.tp.reass; q != nil {
		if len(q.blocks) > m.prof.ReassMaxqueuelen {
			m.fatalf("%d blocks wait for reassembly", len(q.blocks))
		}
		for i, b := range q.blocks {
			if b.start.Geq(b.end) || b.m.Len() != b.end.Sub(b.start) ||
				i > 0 && b.start.Leq(q.blocks[i-1].end) ||
				b.start.Leq(m.tp.rcvNxt) && m.tp.state.HaveEstablished() {
				m.fatalf("bad block %d of %d", i, len(q.blocks))
			}
		}
		if i := slices.IndexFunc(q.recent, func(b wire.SackBlock) bool { return b.Left.Geq(b.Right) }); i >= 0 {
			m.fatalf("bad SACK block")
		}
	}
	m.tp.Info()
}

// delivered returns an error if more counts as delivered than has been acknowledged, in order or
// selectively. What was acknowledged selectively and forgotten, by either end, is delivered twice.
func delivered(tp *TCB, st *Stats) error {
	s := tp.snr
	if s == nil || st.Sackreneged.Load() > 0 || st.Persisttimeo.Load() > 0 || tp.on(tPersist) {
		return nil
	}
	acked := tp.bytesSent + uint64(s.sb.sacked+s.told) + 2 // the FIN, and the SYN of a connection that both have opened
	if s.rate.delivered > acked {
		return fmt.Errorf("%d bytes delivered, %d acknowledged", s.rate.delivered, acked)
	}
	return nil
}

func (m *machine) act() {
	d := m.d
	switch d.N(13) {
	case 0, 1, 2, 3, 4, 5:
		if m.lag = 0; d.One(8) { // the process did not run
			m.lag = int64(d.N(3000)) * ms
			m.now += m.lag
		}
		m.input(m.segment())
	case 6:
		if st := m.tp.state; (st == Established || st == CloseWait) && m.snd.Space() > 0 && !m.tp.Has(SentFin) {
			m.write(min(1+d.N(6000), m.snd.Space()))
		}
	case 7:
		if !m.tp.Has(UserClosed) {
			m.read(d.N(m.rcv.Cc() + 1))
		}
	case 8, 9:
		if next := m.tp.Next(); next != never && next > m.now {
			m.advance(time.Duration(next - m.now))
		}
	case 10:
		m.tick(time.Duration(d.N(300)) * time.Millisecond)
	case 11:
		m.rare()
	case 12:
		m.tp.Output(m.now)
		m.check()
	}
}

// tick advances to d, a timer at a time, as several may fire.
func (m *machine) tick(d time.Duration) {
	to := m.now + int64(d)
	for m.tp.Next() <= to && !m.gone && m.tw == nil {
		m.verify()
		m.advance(time.Duration(max(m.tp.Next()-m.now, 0)))
	}
	if !m.gone && m.tw == nil {
		m.now = to
	}
}

func (m *machine) rare() {
	d, tp := m.d, &m.tp
	m.logf("rare")
	switch d.N(20) {
	case 0:
		if st := tp.state; st == Established || st == CloseWait || st == SynReceived {
			m.shutdown()
		}
	case 1:
		if d.One(3) {
			m.close()
		}
	case 2:
		m.room = false
	case 3, 4, 5:
		m.room = true
		tp.Unblock(m.now)
	case 6:
		m.emitErrno = []syscall.Errno{syscall.ENOBUFS, syscall.EHOSTUNREACH, syscall.ENETUNREACH}[d.N(3)]
	case 7, 8, 9:
		m.emitErrno = 0
	case 10:
		tp.Mtudisc(d.N(10000), m.now)
	case 11:
		tp.Ctlinput(syscall.EHOSTUNREACH, tp.sndUna.Add(d.N(3)-1), d.One(2), m.now)
	case 12:
		tp.KeepaliveOn(d.One(2), m.now)
	case 13:
		tp.SendUrgent()
		tp.Output(m.now)
	case 14:
		tp.SetMaxseg(d.N(2000))
	case 15:
		f := []Flag{NoPush, MoreToCome, NoDelay}[d.N(3)]
		if tp.Has(f) {
			tp.Clear(f)
		} else {
			tp.Set(f)
		}
		tp.Output(m.now)
	case 16:
		tp.CongestionExperienced()
	case 17:
		tp.MaxUnack = Seconds(d.N(100))
	case 18:
		tp.SetCC(CCNames()[d.N(len(CCNames()))], m.now)
	case 19:
		m.now += int64(d.N(5000)) * ms // all timers are late
		tp.Timeout(m.now)
	}
	m.check()
}

// segment makes one that is nearly right.
func (m *machine) segment() *pkt {
	d, tp := m.d, &m.tp
	p := &pkt{at: m.now, segs: 1 + d.N(3)}
	p.th = wire.TCP{Sport: tp.Fport, Dport: tp.Lport, Seq: tp.rcvNxt, Ack: tp.sndMax, Flags: wire.ACK,
		Win: uint16(m.opts.win)}
	if tp.state == SynSent {
		p.th.Seq, p.th.Flags = m.t.irs, wire.SYN|wire.ACK
		p.th.Opt = m.synOptions()
	}
	switch d.N(8) {
	case 0:
		p.th.Seq = p.th.Seq.Add(d.N(70000) - 35000)
	case 1:
		p.th.Seq = p.th.Seq.Add(d.N(8) - 4)
	case 2:
		p.th.Seq = p.th.Seq.Add(tp.rcvwin() + d.N(5) - 2)
	}
	if tp.state == SynSent {
		p.th.Seq = m.t.irs // the contents are known by their distance from it
	}
	switch d.N(8) {
	case 0:
		p.th.Ack = tp.sndUna.Add(d.N(70000) - 35000)
	case 1:
		p.th.Ack = tp.sndUna.Add(d.N(8) - 4)
	case 2:
		p.th.Ack = tp.sndMax.Add(d.N(5) - 2)
	case 3:
		p.th.Ack = tp.sndUna
	}
	switch d.N(6) {
	case 0:
		p.th.Win = uint16(d.N(65536))
	case 1:
		p.th.Win = uint16(d.N(4))
	}
	if d.One(12) {
		p.th.Flags = wire.Flags(d.N(256))
	} else if d.One(12) {
		p.th.Flags |= wire.FIN
	}
	if d.One(10) {
		p.th.Urp = uint16(d.N(65536))
		p.th.Flags |= wire.URG
	}
	if d.One(2) {
		p.len = d.N(3000)
	}
	m.options(p)
	data := p.th.Seq.Sub(m.t.irs + 1)
	if p.th.Flags&wire.SYN != 0 {
		data++
	}
	p.data = make([]byte, p.len)
	for i := range p.data {
		p.data[i] = m.fill(data + i)
	}
	if e := p.th.Ack.Add(int(p.th.Win) << tp.sndScale); e.Gt(m.edge) && p.th.Ack.Leq(tp.sndMax) {
		m.edge = e
	}
	return p
}

func (m *machine) options(p *pkt) {
	d, tp, o := m.d, &m.tp, &p.th.Opt
	if tp.Has(RcvdTstmp) && !d.One(8) {
		o.Has |= wire.TofTS
		o.TSVal, o.TSEcr = m.peerTS(), m.tsecr
		if d.One(6) {
			o.TSVal += uint32(d.N(2000) - 1000)
			o.TSEcr = uint32(d.N(65536)) << d.N(17)
		}
	}
	if d.One(6) && p.th.Flags&wire.SYN == 0 {
		o.Has |= wire.TofSack
		o.Nsack = uint8(1 + d.N(wire.MaxSack))
		for i := range o.Blocks {
			l := tp.sndUna.Add(d.N(5000) - 500)
			o.Blocks[i] = wire.SackBlock{Left: l, Right: l.Add(d.N(3000) - 100)}
		}
	}
}

// maxFuzz bounds the story that an input tells: the fuzzer likes a megabyte, and would try little
// else.
const maxFuzz = 2000

// FuzzMachine: no sequence of segments and calls breaks an invariant.
func FuzzMachine(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(testutil.SeededBytes(seed, 800))
	}
	f.Fuzz(func(t *testing.T, data []byte) { runMachine(t, data[:min(len(data), maxFuzz)]) })
}

func TestMachineSeeds(t *testing.T) {
	for seed := range testutil.Games(1200, 100) {
		data := testutil.SeededBytes(seed, 3000)
		if !t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { runMachine(t, data) }) {
			break
		}
	}
}
