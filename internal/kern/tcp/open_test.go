package tcp

import (
	"math"
	"syscall"
	"testing"
	"time"
)

// RFC 9293, 3.5: the three-way handshake, actively.
//
// RFC 9293 MUST-14
func TestActiveOpen(t *testing.T) {
	each(t, func(t *T) {
		k := closed(t, "FreeBSD, mss 1460")
		k.connect()
		k.trace(`
		      > S  0:0(0) win 65535 <mss 1460,nop,wscale 6,sackOK,TS val 100 ecr 0>
		+10ms < S. 0:0(0) ack 1 win 65535 <mss 1460,nop,wscale 6,sackOK,TS val 700 ecr 100>
		      > .  1:1(0) ack 1 win 1027 <nop,nop,TS val 110 ecr 700>
		`)
		k.want("state", Established)
		k.want("rexmt", off)
		k.want("keep", off)
		k.want("srtt", 10*time.Millisecond)
		if !k.has("isconnected") || k.rcv.Hiwat() != 65700 {
			k.fatalf("events %v, SO_RCVBUF %d", k.events, k.rcv.Hiwat())
		}
	})
}

// FreeBSD: SYN options in this order; with less offered, less said.
func TestSynOptions(t *testing.T) {
	off := func(sack, rfc1323 bool) func(*Profile) {
		return func(p *Profile) { p.Sack, p.RFC1323 = sack, rfc1323 }
	}
	each(t, func(t *T) {
		for _, c := range []struct {
			set  func(*Profile)
			want string
		}{
			{off(true, true), "mss 1460,nop,wscale 6,sackOK,TS"},
			{off(false, true), "mss 1460,nop,wscale 6,nop,nop,TS"},
			{off(true, false), "mss 1460,sackOK,eol,eol"},
			{off(false, false), "mss 1460"},
		} {
			k := closed(t, "FreeBSD", c.set)
			k.connect()
			k.trace("> S 0:0(0) win 65535 <" + c.want + ">")
		}
		k := closed(t, "FreeBSD")
		k.tp.Set(NoOpt)
		k.connect()
		k.trace("> S 0:0(0) win 65535 <>")
	})
}

// RFC 7323, 2.2 and 3.2; RFC 2018, 2: an option holds if both SYNs have it.
func TestOptionsNeedBothSides(t *testing.T) {
	each(t, func(t *T) {
		k := closed(t, "FreeBSD")
		k.connect()
		k.trace(`
		> S  0:0(0)
		< S. 0:0(0) ack 1 win 65535 <mss 1460>
		> .  1:1(0) ack 1 win 65535 <>
		`)
		if i := k.tp.Info(); i.Options != 0 || i.SndWscale != 0 || i.RcvWscale != 0 {
			k.fatalf("options %v", i)
		}
		k = closed(t, "FreeBSD")
		k.connect()
		k.trace(`
		> S  0:0(0)
		< S. 0:0(0) ack 1 win 65535 <mss 1460,sackOK,wscale 3>
		> .  1:1(0) ack 1 win 1027 <>
		`)
		if i := k.tp.Info(); i.Options != OptSACK|OptWscale || i.SndWscale != 3 || i.RcvWscale != 6 {
			k.fatalf("options %v", i)
		}
	})
}

// RFC 9293, 3.7.1: "If an MSS Option is not received at connection setup, TCP implementations MUST
// assume a default send MSS of 536".
//
// RFC 9293 MUST-15
func TestNoMSSOption(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "mss 1460, peermss 0, nodelay")
		k.write(600)
		k.trace(`
		> . 1:537(536) ack 1
		> P. 537:601(64) ack 1
		`)
		k = established(t, "mss 1440, peermss 0, nodelay, inet6")
		k.write(1300)
		k.trace(`
		> . 1:1221(1220) ack 1
		> P. 1221:1301(80) ack 1
		`)
	})
}

// RFC 9293, 3.7.1: "Eff.snd.MSS = min(SendMSS+20, MMS_S) - TCPhdrsize - IPoptionsize"; RFC 6691:
// the options count.
//
// RFC 9293 MUST-16
func TestEffectiveMSS(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "mss 1460, peermss 1000, ts, nodelay")
		k.write(2000)
		k.trace(`
		> . 1:989(988) ack 1
		> . 989:1977(988) ack 1
		> P. 1977:2001(24) ack 1
		`)
	})
}

// CVE-2019-11479: a peer must not make us send tiny segments (A14, A16).
func TestTinyMSSHasFloor(t *testing.T) {
	each(t, func(t *T) {
		for _, mss := range []string{"peermss 1", "peermss 48", "peermss 215"} {
			k := established(t, mss, "nodelay")
			k.want("maxseg", 216)
		}
		k := established(t, "peermss 217")
		k.want("maxseg", 217)
	})
}

// A SYN without ACK, data in it: RFC 9293, 3.10.7.3: "store data for processing after the
// connection has reached ESTABLISHED".
//
// RFC 9293 MUST-10
func TestSimultaneousOpen(t *testing.T) {
	each(t, func(t *T) {
		k := closed(t, "FreeBSD")
		k.connect()
		k.trace(`
		      > S  0:0(0)
		+10ms < S  0:3(3) win 65535 <mss 1460>
		      > S. 0:0(0) ack 1 win 65535 <mss 1460>
		`)
		k.want("state", SynReceived)
		k.want("rcvcc", 0)
		k.trace(`
		+10ms < S. 0:0(0) ack 1 win 65535 <mss 1460>
		      > .  1:1(0) ack 4
		`)
		k.want("state", Established)
		k.want("rcvcc", 3)
		k.read(all)
	})
}

// RFC 9293, 3.10.7.3: SYN with data and ACK: acknowledged at once.
func TestSynAckWithData(t *testing.T) {
	each(t, func(t *T) {
		k := closed(t, "FreeBSD")
		k.connect()
		k.trace(`
		      > S  0:0(0)
		+10ms < S. 0:3(3) ack 1 win 65535 <mss 1460>
		      > .  1:1(0) ack 4
		`)
		k.want("state", Established)
		k.read(3)
	})
}

// RFC 9293, 3.10.7.3, first: an unacceptable ACK is answered by a reset, and the connection stays;
// with RST it is dropped.
func TestSynSentBadAck(t *testing.T) {
	each(t, func(t *T) {
		k := closed(t, "FreeBSD, mss 1460")
		k.connect()
		k.trace(`
		      > S  0:0(0)
		      < .  0:0(0) ack 0
		      > R  0:0(0)
		      < .  0:0(0) ack 2
		      > R  2:2(0)
		      < S. 0:0(0) ack 2
		      > R  2:2(0)
		      < F. 0:0(0) ack 0
		      > R  0:0(0)
		      < R. 0:0(0) ack 2
		      < R  0:0(0)
		      < F  0:0(0)
		      < .  0:0(0) ack 1
		+1s   > S  0:0(0)              // at its time
		`)
		k.want("state", SynSent)
		k.want("error", syscall.Errno(0))
	})
}

// RFC 9293, 3.10.7.3, second: "If the RST bit is set [and] the ACK was acceptable [...] 'error:
// connection reset'".
func TestConnectRefused(t *testing.T) {
	each(t, func(t *T) {
		k := closed(t)
		k.connect()
		k.trace(`
		> S  0:0(0)
		< R. 0:0(0) ack 1
		`)
		k.want("state", Closed)
		k.want("error", syscall.ECONNREFUSED)
		k.want("gone", true)
	})
}

// FreeBSD: SYN at 0, 1, 3.2, 7.4, 15.6, 31.8, 64.0; KEEPINIT ends the attempt at 75 s.
//
// RFC 9293 MUST-21
func TestConnectTimesOut(t *testing.T) {
	each(t, func(t *T) {
		k := closed(t, "FreeBSD")
		k.connect()
		k.trace(`
		      > S 0:0(0)
		+1s   > S 0:0(0)
		+2.2s > S 0:0(0)
		+4.2s > S 0:0(0)
		+8.2s > S 0:0(0)
		+16.2s > S 0:0(0)
		+32.2s > S 0:0(0)
		+10.999999999s
		`)
		k.want("state", SynSent)
		k.trace("+1ns")
		k.want("state", Closed)
		k.want("error", syscall.ETIMEDOUT)
	})
}

// RFC 9293, 3.8.3: "for a SYN segment [R2] MUST be set large enough to provide retransmission of
// the segment for at least 3 minutes"; the user may have more or less.
//
// RFC 9293 MUST-22
// RFC 9293 MUST-23
func TestConnectKeepinit(t *testing.T) {
	each(t, func(t *T) {
		k := closed(t, "FreeBSD")
		k.tp.Keepinit = 5
		k.connect()
		k.trace(`
		      > S 0:0(0)
		+1s   > S 0:0(0)
		+2.2s > S 0:0(0)
		+1.8s
		`)
		k.want("error", syscall.ETIMEDOUT)

		k = closed(t)
		k.tp.Keepinit = 200
		k.connect()
		k.trace(`
		     > S 0:0(0)
		+1s  > S 0:0(0)
		+2s  > S 0:0(0)
		+4s  > S 0:0(0)
		+8s  > S 0:0(0)
		+16s > S 0:0(0)
		+32s > S 0:0(0)
		+64s > S 0:0(0)
		+64s > S 0:0(0)
		+9s
		`)
		k.want("error", syscall.ETIMEDOUT)
	})
}

// net.inet.tcp.rexmit_drop_options: from the third retransmission on.
func TestDropOptions(t *testing.T) {
	each(t, func(t *T) {
		k := closed(t, "FreeBSD", func(p *Profile) { p.DropOptions = true })
		k.connect()
		k.trace(`
		      > S 0:0(0) <mss 1460,nop,wscale 6,sackOK,TS>
		+1s   > S 0:0(0) <mss 1460,nop,wscale 6,sackOK,TS>
		+2.2s > S 0:0(0) <mss 1460,nop,wscale 6,sackOK,TS>
		+4.2s > S 0:0(0) <mss 1460>
		`)
	})
}

// RFC 9293, 3.10.7.4, second: in SYN_RECEIVED a reset at RCV.NXT ends it, one in the window is
// challenged, others are ignored; the origin of the connection decides what the user hears.
//
// RFC 9293 MUST-11
func TestSynReceivedReset(t *testing.T) {
	each(t, func(t *T) {
		k := synRcvd(t, "FreeBSD")
		k.trace(`
		< R 65701:65701(0)
		< R 0:0(0)
		< R 2:2(0)
		> . 1:1(0) ack 1
		`)
		k.want("state", SynReceived)
		k.trace("< R 1:1(0)")
		k.want("state", Closed)
		k.want("error", syscall.ECONNREFUSED)
	})
}

// RFC 9293, 3.10.7.4, fifth: "If the segment acknowledgment is not acceptable, form a reset segment
// <SEQ=SEG.ACK><CTL=RST>".
func TestSynReceivedBadAck(t *testing.T) {
	each(t, func(t *T) {
		k := synRcvd(t)
		k.trace(`
		< . 1:1(0) ack 0
		> R 0:0(0)
		< . 1:1(0) ack 2
		> R 2:2(0)
		`)
		k.want("state", SynReceived)
		k.trace("< P. 1:5(4) ack 1")
		k.want("state", Established)
		k.want("rcvcc", 4)
		k.read(4)
	})
}

// The handshake's last ACK may carry data and FIN.
func TestSynReceivedFin(t *testing.T) {
	each(t, func(t *T) {
		k := synRcvd(t, "mss 1000")
		k.trace(`
		< FP. 1:5(4) ack 1
		> .   1:1(0) ack 6
		`)
		k.want("state", CloseWait)
		k.want("eof", true)
		k.read(4)
	})
}

// A SYN that is sent again is answered again; another SYN in the window neither ends the connection
// nor shifts its data.
func TestSynReceivedAnotherSyn(t *testing.T) {
	each(t, func(t *T) {
		k := closed(t, "FreeBSD, mss 1460")
		k.connect()
		k.trace(`
		> S  0:0(0)
		< S  0:0(0) win 65535 <mss 1460>
		> S. 0:0(0) ack 1
		< S  0:0(0) win 65535 <mss 1460>
		> S. 0:0(0) ack 1
		< S  4:14(10) win 65535 <mss 1460>
		> S. 0:0(0) ack 1
		< .  1:21(20) ack 1
		`)
		k.want("state", Established)
		k.read(20)
	})
}

// RFC 7323, 2.2: "The window field in a segment where the SYN bit is set [...] MUST NOT be scaled".
// 2.3: at most 14.
//
// RFC 9293 MUST-1
func TestWindowScaling(t *testing.T) {
	each(t, func(t *T) {
		k := closed(t, "FreeBSD", func(p *Profile) { p.Maxsockbuf = 1 << 30; p.RoundBufs = false }, "rcvbuf 1000000")
		k.connect()
		k.trace(`
		> S  0:0(0) win 65535 <mss 1460,nop,wscale 14,sackOK,TS val 100 ecr 0>
		< S. 0:0(0) ack 1 win 65535 <mss 1460,wscale 14>
		> .  1:1(0) ack 1 win 62           // 1000000/16384, rounded up
		`)
		k.want("sndwnd", 65535)
		k.trace("< . 1:1(0) ack 1 win 65535")
		k.want("sndwnd", 65535<<14)
	})
}

// WscaleFor at the extremes of kern.ipc.maxsockbuf.
func TestWscaleFor(t *testing.T) {
	for buf, want := range map[int]uint8{2 << 20: 6, 73728: 1, math.MaxInt32: 14, 65535: 0, 65536: 1} {
		if got := WscaleFor(buf); got != want {
			t.Errorf("WscaleFor(%d) = %d, want %d", buf, got, want)
		}
	}
}

// RFC 5681, 3.1: "if the SYN or SYN/ACK is lost, the initial window [...] MUST be [...] one
// segment".
func TestInitialWindow(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "mss 1460")
		k.want("cwnd", 14600)
		k = established(t, "mss 1000")
		k.want("cwnd", 10000)
		k = established(t, "mss 9000")
		k.want("cwnd", 18000)
		k = established(t, "Net3, mss 1460")
		k.want("cwnd", 1460)
		k = closed(t, "mss 1000")
		k.connect()
		k.trace(`
		    > S  0:0(0)
		+1s > S  0:0(0)
		    < S. 0:0(0) ack 1 <mss 1000>
		    > .  1:1(0) ack 1
		`)
		k.want("cwnd", 1000)
	})
}

// FreeBSD: the SYN,ACK cannot say more than 65535; if the buffer is much larger, the handshake's
// end is followed by an update.
func TestPassiveWindowUpdate(t *testing.T) {
	each(t, func(t *T) {
		k := synRcvd(t, "FreeBSD, wscale 6, mss 1460")
		k.trace("< . 1:1(0) ack 1") // 65700: not worth a segment
		k = synRcvd(t, "FreeBSD, wscale 6, mss 1460, rcvbuf 300000")
		k.trace("< . 1:1(0) ack 1\n> . 1:1(0) ack 1 win 4700")
	})
}
