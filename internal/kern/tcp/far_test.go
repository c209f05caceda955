package tcp

import (
	"testing"
	"time"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// Sequence numbers compare rightly only within half of their space. A number that the machine keeps
// from one event to the next must be moved along with the stream: otherwise a connection that
// carries 2 GiB between two such events takes the past for the future.

// far is how much the tests send, or receive: a little more than half the sequence space.
const far = uint64(1<<31 + 1<<20)

// send sends at least n bytes, whose contents do not matter. The peer acknowledges each flight,
// with data bytes of its own, and always gives the same window. Afterwards the numbers of scripts
// begin anew: the next byte of either side is 1.
func (k *kit) send(n uint64, data int) {
	k.t.Helper()
	k.blind = true
	for end := k.tp.bytesSent + n; k.tp.bytesSent < end; {
		m := k.pool.Getcl(mbuf.ClHuge)
		m.Extend(mbuf.ClHuge)
		k.snd.Append(m)
		k.tp.Output(k.now)
		before := k.tp.bytesSent
		k.give(data)
		if k.tp.bytesSent == before {
			k.fatalf("nothing goes after %d bytes", before)
		}
	}
	for k.snd.Cc() > 0 {
		k.tp.Output(k.now)
		k.give(data)
	}
	k.rebase()
}

// receive takes at least n bytes, in segments that acknowledge nothing new. Afterwards the numbers
// begin anew, as after send.
func (k *kit) receive(n uint64) {
	k.t.Helper()
	k.blind = true
	for end := k.tp.bytesRcvd + n; k.tp.bytesRcvd < end; {
		k.give(mbuf.ClHuge)
	}
	k.rebase()
}

// give lets the peer acknowledge everything, with n bytes of data, which the user reads.
func (k *kit) give(n int) {
	k.now += ms
	var m *mbuf.Mbuf
	if n > 0 {
		m = k.pool.Getcl(n)
		m.Extend(n)
	}
	th := wire.TCP{
		Sport: k.tp.Fport, Dport: k.tp.Lport, Flags: wire.ACK,
		Seq: k.tp.rcvNxt, Ack: k.tp.sndMax, Win: uint16(k.opts.win),
	}
	if k.tp.Has(RcvdTstmp) {
		th.Opt = wire.Options{Has: wire.TofTS, TSVal: k.peerTS(), TSEcr: k.tp.ts(k.now)}
	}
	k.tp.Input(&th, Payload{M: m, Len: n, Segs: 1}, k.now, k.now)
	k.rcv.Drop(k.rcv.Cc())
	k.tp.Output(k.now)
}

// rebase makes the next byte of either side number 1 of scripts.
func (k *kit) rebase() {
	k.t.Helper()
	k.advance(time.Second) // a delayed acknowledgment
	k.blind, k.sent = false, nil
	k.t.iss, k.t.irs = k.tp.sndNxt-1, k.tp.rcvNxt-1
	k.written, k.readn = 0, 0
	k.check()
}

// Half the sequence space later a connection of each kind works as it did: nothing is urgent that
// nobody has called urgent; three duplicate acknowledgments, or their SACK blocks, tell of a loss;
// our window ends where it should, and the peer's window counts (RFC 9293, 3.10.7.4: SND.WL1 and
// SND.WL2).
func TestHalfTheSequenceSpace(t *testing.T) {
	const opts = "mss 1000, tso 60000, win 60000, wscale 7, sndbuf 500000, rcvbuf 500000"
	for _, way := range []struct {
		name string
		far  func(k *kit)
	}{
		{"sent", func(k *kit) { k.send(far, 0) }},
		{"received", func(k *kit) { k.receive(far) }},
		{"both", func(k *kit) { k.send(far, 60000) }},
	} {
		for i, kind := range []string{
			"", ", bsd", ", FreeBSD", ", Net3", ", sack", ", sack, ts", ", ecn", ", ecn, bsd",
		} {
			t.Run(way.name+kind, func(t *testing.T) {
				k := established(&T{t, isns[i%len(isns)], isns[(i+2)%len(isns)]}, opts+kind)
				way.far(k)
				k.line("< . 2000001:2000002(1) ack 1") // beyond the window
				k.claim(".", 1, 1)
				if n := k.stats.Rcvpackafterwin.Load(); n != 1 {
					k.fatalf("%d segments lie beyond the window, want 1", n)
				}
				k.write(4000)
				if p := k.sent[0]; p.th.Flags&wire.URG != 0 || p.th.Urp != 0 {
					k.fatalf("something is urgent: %s", k.string(p, true))
				}
				k.sent = nil
				k.advance(2 * time.Millisecond) // one round trip
				k.lostFirst()
				k.line("< . 1:1(0) ack 4001 win 59000")
				if got, want := k.tp.sndWnd, uint32(59000)<<k.tp.sndScale; got != want {
					k.fatalf("the window is %d after %d was said", got, want)
				}
			})
		}
	}
}

// lostFirst lets the peer acknowledge all of four segments except the first, and asserts that this
// one is sent again, and once.
func (k *kit) lostFirst() {
	k.t.Helper()
	again := 0
	for _, blocks := range []string{"1001:2001", "1001:3001", "1001:4001"} {
		if k.opts.sack {
			k.line("< . 1:1(0) ack 1 <sack " + blocks + ">")
		} else {
			k.line("< . 1:1(0) ack 1")
		}
		for _, p := range k.sent {
			if p.th.Seq == k.t.iss+1 && p.len > 0 {
				again++
			}
		}
		k.sent = nil
	}
	if again != 1 {
		k.fatalf("what was lost was sent again %d times, want 1", again)
	}
}
