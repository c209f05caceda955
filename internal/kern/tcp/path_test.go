package tcp

import (
	"syscall"
	"testing"
	"time"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
	"bsdnet/internal/testutil"
)

// RFC 5927, 4 and 6; RFC 9293, 3.9.2.2: an ICMP error counts only if its sequence number is in
// flight, and only ends an attempt to connect, if the profile says so.
//
// RFC 9293 MUST-54
// RFC 9293 MUST-55
// RFC 9293 MUST-56
func TestIcmpErrors(t *testing.T) {
	mayRST := func(p *Profile) { p.ICMPMayRST = true }
	each(t, func(t *T) {
		k := closed(t, "FreeBSD", mayRST)
		k.connect()
		k.line("> S 0:0(0)")
		k.tp.Ctlinput(syscall.ECONNREFUSED, t.iss-1, true, k.now)
		k.tp.Ctlinput(syscall.ECONNREFUSED, t.iss+1, true, k.now)
		k.want("softerror", syscall.Errno(0))
		k.tp.Ctlinput(syscall.EHOSTUNREACH, t.iss, false, k.now)
		k.want("state", SynSent)
		k.want("softerror", syscall.EHOSTUNREACH)
		k.tp.Ctlinput(syscall.ECONNREFUSED, t.iss, true, k.now)
		k.want("state", Closed)
		k.want("error", syscall.ECONNREFUSED)

		k = closed(t, "FreeBSD", func(p *Profile) { p.ICMPMayRST = false })
		k.connect()
		k.line("> S 0:0(0)")
		k.tp.Ctlinput(syscall.ECONNREFUSED, t.iss, true, k.now)
		k.want("state", SynSent)

		k = established(t, "FreeBSD", mayRST)
		k.write(10)
		k.trace("> P. 1:11(10) ack 1")
		k.tp.Ctlinput(syscall.ECONNREFUSED, t.iss+1, true, k.now)
		k.want("state", Established)
		k.want("error", syscall.Errno(0))
		k.trace("< . 1:1(0) ack 11")
	})
}

// RFC 1191, 6.4: what was too large is sent again at once, in smaller pieces; a floor holds (A16),
// and the MSS never grows by it.
func TestMtudisc(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "mss 1460, nodelay")
		k.write(2000)
		k.trace("> . 1:1461(1460) ack 1\n> P. 1461:2001(540) ack 1")
		k.tp.Mtudisc(1040, k.now)
		k.check()
		k.trace("> . 1:1001(1000) ack 1\n> . 1001:1461(460) ack 1") // the second was not too large
		k.tp.Mtudisc(1500, k.now)
		k.want("maxseg", 1000)
		k.trace("< . 1:1(0) ack 2001")
		k = established(t, "mss 1460, nodelay")
		k.tp.Mtudisc(68, k.now)
		k.want("maxseg", 216)
		k.tp.Mtudisc(0, k.now)
		k.want("maxseg", 216)
		k = established(t, "mss 1440, nodelay, inet6")
		k.tp.Mtudisc(1280, k.now)
		k.want("maxseg", 1220)
		if i := k.tp.Info(); i.PMTU != 1280 {
			t.Errorf("the path's MTU is %d", i.PMTU)
		}
	})
}

// RFC 3168, 6.1.1: the offer and its answer.
//
// RFC 9293 SHLD-8
func TestEcnSetup(t *testing.T) {
	ecn := func(n int) func(*Profile) { return func(p *Profile) { p.ECN = n } }
	each(t, func(t *T) {
		k := closed(t, ecn(1))
		k.connect()
		k.trace(`
		    > SEW 0:0(0)
		+1s > SEW 0:0(0)
		+2s > S   0:0(0)            // perhaps it is the offer that is lost
		`)
		k = closed(t, ecn(1))
		k.connect()
		k.trace("> SEW 0:0(0)\n< S.E 0:0(0) ack 1\n> . 1:1(0) ack 1")
		k.write(10)
		if !k.sent[0].ect || k.tp.Info().Options&OptECN == 0 {
			k.fatalf("no ECN")
		}
		k.trace("> P. 1:11(10) ack 1")

		k = closed(t, ecn(1)) // a peer that reflects all bits does not know it
		k.connect()
		k.trace("> SEW 0:0(0)\n< S.EW 0:0(0) ack 1\n> . 1:1(0) ack 1")
		k.write(10)
		if k.sent[0].ect {
			k.fatalf("ECN without agreement")
		}
		k.trace("> P. 1:11(10) ack 1")

		k = closed(t, ecn(2)) // simultaneous open: not offered, but accepted
		k.connect()
		k.trace("> S 0:0(0)\n< SEW 0:0(0)\n> S.E 0:0(0) ack 1")

		k = closed(t, ecn(2)) // half an offer is none
		k.connect()
		k.trace("> S 0:0(0)\n< SE 0:0(0)\n> S. 0:0(0) ack 1")
	})
}

// RFC 3168, 6.1.2 and 6.1.3: a mark is echoed until CWR; the sender halves its window once a round
// trip and says CWR on new data, never ECT on what is sent again.
func TestEcn(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "FreeBSD, ecn, mss 1000, sndbuf 100000")
		k.tp.CongestionExperienced()
		k.trace(`
		< . 1:11(10) ack 1
		< . 11:21(10) ack 1
		> .E 1:1(0) ack 21
		< . 21:31(10) ack 1
		+40ms > .E 1:1(0) ack 31
		< .W 31:41(10) ack 1
		> . 1:1(0) ack 41
		`)
		k.read(all)
		k.write(20000)
		k.sent = nil
		k.line("< .E 41:41(0) ack 1001")
		k.want("cwnd", 4500)
		k.want("ssthresh", 4500)
		k.line("< .E 41:41(0) ack 2001") // the same round trip
		k.want("cwnd", 4500)
		k.line("< . 41:41(0) ack 6001")
		k.line("> .W 10001:11001(1000) ack 41")
		k.sent = nil
		k.advance(time.Duration(k.tp.Next() - k.now))
		if p := k.sent[0]; p.ect {
			k.fatalf("ECT on a retransmission")
		}
		k.sent = nil
	})
}

// Back-pressure: if the interface's queue is full, data waits, without a timer, until Unblock; an
// ACK does not wait.
func TestBlocked(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "mss 1000, nodelay")
		k.room = false
		k.write(1500)
		k.trace("")
		k.want("persist", off)
		k.trace("< F. 1:1(0) ack 1\n> . 1:1(0) ack 2")
		k.shutdown() // the FIN waits behind the data
		k.trace("")
		k.room = true
		k.tp.Unblock(k.now)
		k.check()
		k.trace("> . 1:1001(1000) ack 2\n> FP. 1001:1501(500) ack 2")
		k.tp.Unblock(k.now)
		k.trace("< . 2:2(0) ack 1502")
	})
}

// An interface that refuses is a queue that loses: the timer stands, the user hears nothing.
func TestEmitErrors(t *testing.T) {
	each(t, func(t *T) {
		for _, e := range []syscall.Errno{syscall.ENOBUFS, syscall.EHOSTUNREACH, syscall.ENETDOWN} {
			k := established(t)
			k.emitErrno = e
			k.write(10)
			k.emitErrno = 0
			k.want("error", syscall.Errno(0))
			k.trace("+1s > P. 1:11(10) ack 1")
		}
		k := closed(t)
		k.emitErrno = syscall.ENETUNREACH
		if e := k.tp.Connect(t.iss, 0, k.now); e != syscall.ENETUNREACH {
			k.fatalf("Connect: %v", e)
		}
	})
}

// Chains: up to tsomax, in whole segments; a short tail goes along if Nagle is off and nothing
// follows.
func TestTSO(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "mss 1000, tso 4500, nodelay")
		k.write(3700)
		if k.sent[0].segsize != 1000 {
			k.fatalf("segment size %d", k.sent[0].segsize)
		}
		k.trace("> P. 1:3701(3700) ack 1\n< . 1:1(0) ack 3701")
		k.write(9300)
		k.trace("> . 3701:7701(4000) ack 1\n> . 7701:11701(4000) ack 1\n> P. 11701:13001(1300) ack 1")

		k = established(t, "mss 1000, tso 4500, nagle") // the tail waits for company
		k.write(3700)
		k.trace("> . 1:3001(3000) ack 1\n< . 1:1(0) ack 3001\n> P. 3001:3701(700) ack 1")

		k = established(t, "mss 1000, tso 4500, nodelay")
		k.tp.Set(MoreToCome)
		k.write(2500)
		k.trace("> . 1:2001(2000) ack 1")
		k.tp.Clear(MoreToCome)
		k.tp.Output(k.now)
		k.trace("> P. 2001:2501(500) ack 1")

		k = established(t, "mss 1000, tso 4500, nodelay, ts") // the options of each segment
		k.write(3000)
		if k.sent[0].segsize != 988 {
			k.fatalf("segment size %d", k.sent[0].segsize)
		}
		k.trace("> P. 1:3001(3000) ack 1")

		k = established(t, "mss 1000, tso 65000, win 2500, nodelay") // what is left of the window would be silly
		k.write(5000)
		k.trace("> . 1:2001(2000) ack 1")

		k = established(t, "mss 1000, tso 65000, whole, nodelay, sndbuf 100000") // over the loopback nothing is cut
		k.tp.sndCwnd = 60000
		k.write(30300)
		k.trace("> P. 1:30301(30300) ack 1")
	})
}

// A chain that is lost is sent again, and a retransmission after a time-out is one segment (cwnd is
// one).
func TestTSORetransmit(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "mss 1000, tso 65000, nodelay")
		k.write(5000)
		k.trace("> P. 1:5001(5000) ack 1\n+1s > . 1:1001(1000) ack 1\n< . 1:1(0) ack 1001\n> . 1001:3001(2000) ack 1")
	})
}

// SetMaxseg is TCP_MAXSEG: it only lowers.
func TestSetMaxseg(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "mss 1000")
		for n, want := range map[int]syscall.Errno{0: syscall.EINVAL, -1: syscall.EINVAL, 215: syscall.EINVAL,
			1001: syscall.EINVAL, 1000: 0} {
			if e := k.tp.SetMaxseg(n); e != want {
				k.fatalf("SetMaxseg(%d): %v, want %v", n, e, want)
			}
		}
		if e := k.tp.SetMaxseg(500); e != 0 || k.tp.Maxseg() != 500 {
			k.fatalf("SetMaxseg(500): %v", e)
		}
	})
}

// A null socket, for what is measured.
type nullSock struct{}

func (nullSock) Emit(m *mbuf.Mbuf) syscall.Errno { mbuf.Free(m); return 0 }
func (nullSock) Room() bool                      { return true }
func (nullSock) Soisconnected()                  {}
func (nullSock) Soisdisconnected()               {}
func (nullSock) Socantrcvmore()                  {}
func (nullSock) Sorwakeup()                      {}
func (nullSock) Sowwakeup()                      {}
func (nullSock) Soerror(syscall.Errno)           {}
func (nullSock) TcpClose()                       {}
func (nullSock) TcpTwstart()                     {}
func (nullSock) Trace(*Event)                    {}

// One segment in and one out, each with its acknowledgment, allocate nothing.
func TestNoAllocs(t *testing.T) {
	if testutil.Race {
		t.Skip("the race detector allocates")
	}
	each(t, func(t *T) {
		for _, opts := range []string{"mss 1000, nodelay", "mss 1000, nodelay, ts, sack, wscale 7",
			"FreeBSD, ts, sack, wscale 7"} {
			k := established(t, opts)
			k.tp.sock = nullSock{}
			data := make([]byte, 1000)
			th := wire.TCP{Flags: wire.ACK, Win: 65535, Seq: k.tp.rcvNxt, Ack: k.tp.sndUna}
			if k.tp.Has(RcvdTstmp) {
				th.Opt = wire.Options{Has: wire.TofTS, TSVal: 7000, TSEcr: 100}
			}
			n := testing.AllocsPerRun(200, func() {
				k.now += ms
				m := k.pool.Getcl(1000) // in
				m.Append(data)
				k.tp.Input(&th, Payload{M: m, Len: 1000, Segs: 1}, k.now, k.now)
				th.Seq = th.Seq.Add(1000)
				k.rcv.Drop(k.rcv.Cc())
				k.tp.Output(k.now)
				m = k.pool.Getcl(1000) // out
				m.Append(data)
				k.snd.Append(m)
				k.tp.Output(k.now)
				th.Ack = th.Ack.Add(1000)
				k.tp.Input(&th, Payload{}, k.now, k.now)
			})
			if n != 0 {
				k.fatalf("%s: %v allocations", opts, n)
			}
			if k.snd.Cc() != 0 || k.stats.Rcvbyte.Load() != 201000 {
				k.fatalf("%d bytes unsent, %d received", k.snd.Cc(), k.stats.Rcvbyte.Load())
			}
			k.check()
		}
	})
}
