package tcp

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// RFC 9293, 3.10.7.4: "segments with higher beginning sequence numbers SHOULD be held for later
// processing"; in any order of arrival.
//
// RFC 9293 MUST-59
// RFC 9293 SHLD-31
func TestReassemblyAnyOrder(t *testing.T) {
	var perms func(a []int, n int, f func([]int))
	perms = func(a []int, n int, f func([]int)) {
		if n == len(a) {
			f(a)
			return
		}
		for i := n; i < len(a); i++ {
			a[n], a[i] = a[i], a[n]
			perms(a, n+1, f)
			a[n], a[i] = a[i], a[n]
		}
	}
	each(t, func(t *T) {
		perms([]int{0, 1, 2, 3, 4}, 0, func(order []int) {
			k := established(t, "FreeBSD, sack")
			for _, i := range order {
				flags := "P."
				if i == 4 {
					flags = "FP." // FreeBSD: 5F4321
				}
				k.input(k.pkt(flags, 1+10*i, 1, 10))
				k.sent = nil
			}
			k.want("rcvcc", 50)
			k.want("rcvnxt", 52)
			k.want("state", CloseWait)
			k.want("eof", true)
			k.read(50)
			k.balance()
		})
	})
}

// Overlaps of every kind, against a model: the first copy of a byte stays.
func TestReassemblyOverlaps(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	each(t, func(t *T) {
		for round := range 25 {
			k := established(t, "sack")
			var model [300]int // which fill each byte was first seen with, 0: none
			gen := 0
			k.fill = func(int) byte { return byte(gen) }
			for gen = 1; gen < 250; gen++ {
				at, n := r.IntN(280), 1+r.IntN(20)
				for i := at; i < at+n; i++ {
					if model[i] == 0 {
						model[i] = gen
					}
				}
				k.input(k.pkt("P.", 1+at, 1, n))
				k.sent = nil
			}
			want := 0
			for want < len(model) && model[want] != 0 {
				want++
			}
			if k.rcv.Cc() != want {
				k.fatalf("round %d: %d contiguous bytes, want %d", round, k.rcv.Cc(), want)
			}
			got := make([]byte, want)
			k.rcv.Copydata(0, got)
			for i, c := range got {
				if int(c) != model[i] {
					k.fatalf("round %d: byte %d came with segment %d, want %d", round, i, c, model[i])
				}
			}
			k.balance()
		}
	})
}

// A FIN out of order is remembered; nothing follows it; one that lies before known data is
// nonsense.
func TestReassemblyFin(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "FreeBSD")
		k.trace(`
		< F. 11:11(0) ack 1       // a bare one
		> .  1:1(0) ack 1
		< P. 11:21(10) ack 1      // behind the end
		> .  1:1(0) ack 1
		< P. 1:11(10) ack 1
		> .  1:1(0) ack 12
		`)
		k.want("state", CloseWait)
		k.read(10)

		k = established(t, "FreeBSD")
		k.trace(`
		< P. 21:31(10) ack 1
		> .  1:1(0) ack 1
		< F. 11:11(0) ack 1       // but 21 is known
		> .  1:1(0) ack 1
		< P. 1:21(20) ack 1
		> .  1:1(0) ack 31
		`)
		k.want("state", Established)
		k.read(30)
	})
}

// SegmentSmack (A10: CVE-2018-5390, CVE-2018-6922): the number of blocks is bounded, and what they
// pin.
func TestReassemblyLimits(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "sack, wscale 7, rcvbuf 1000000, mss 1000")
		for i := range 3000 {
			k.input(k.pkt(".", 3+2*i, 1, 1))
			k.sent = nil
		}
		if n := len(k.tp.reass.blocks); n != k.tp.maxBlocks() {
			k.fatalf("%d blocks", n)
		}
		// What is next in sequence is always taken, and drains the queue.
		k.input(k.pkt(".", 1, 1, 2))
		k.sent = nil
		k.want("rcvcc", 3)
		k.read(all)
		k.sent = nil

		k = established(t, "wscale 7, rcvbuf 12000, mss 1000")
		for i := range 10000 {
			k.input(k.pkt(".", 2+i, 1, 1)) // one block that grows by single bytes
			k.sent = nil
			if _, bytes := k.pool.Outstanding(); bytes > int64(5*k.rcv.Hiwat()+5*mbuf.ClHuge) {
				k.fatalf("pins %d bytes after %d segments", bytes, i)
			}
		}

		k = established(t, "rcvbuf 536870912, mss 1000") // four times as much has more than 31 bits
		k.input(k.pkt(".", 1001, 1, 1000))
		k.sent = nil
		if q := k.tp.reass; q == nil || len(q.blocks) != 1 {
			k.fatalf("what comes out of order to a large buffer is dropped")
		}
	})
}

// RFC 2018, 4: the block of the latest segment first, then the most recently reported ones, four of
// them, or three if there are timestamps.
func TestSackBlocks(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "FreeBSD, sack")
		k.trace(`
		< . 101:201(100) ack 1
		> . 1:1(0) ack 1 win 65535 <nop,nop,sack 101:201>
		< . 301:401(100) ack 1
		> . 1:1(0) ack 1 <nop,nop,sack 301:401 101:201>
		< . 501:601(100) ack 1
		> . 1:1(0) ack 1 <nop,nop,sack 501:601 301:401 101:201>
		< . 701:801(100) ack 1
		> . 1:1(0) ack 1 <nop,nop,sack 701:801 501:601 301:401 101:201>
		< . 901:1001(100) ack 1
		> . 1:1(0) ack 1 <nop,nop,sack 901:1001 701:801 501:601 301:401>
		< . 201:251(50) ack 1                 // it grows, and comes to the front
		> . 1:1(0) ack 1 <nop,nop,sack 101:251 901:1001 701:801 501:601>
		< . 251:301(50) ack 1                 // two become one
		> . 1:1(0) ack 1 <nop,nop,sack 101:401 901:1001 701:801 501:601>
		< . 1:101(100) ack 1
		> . 1:1(0) ack 401 <nop,nop,sack 901:1001 701:801 501:601>
		`)
		k.read(all)

		k = established(t, "FreeBSD, sack, ts")
		k.line("< . 101:201(100) ack 1")
		k.line("> . 1:1(0) ack 1 <nop,nop,TS val 100 ecr 7000,nop,nop,sack 101:201>")
		for i := range 3 {
			k.sent = nil
			k.input(k.pkt(".", 301+200*i, 1, 100))
		}
		k.trace("> . 1:1(0) ack 1 <nop,nop,TS val 100 ecr 7000,nop,nop,sack 701:801 501:601 301:401>")

		k = established(t, "FreeBSD") // not agreed: never
		k.trace("< . 101:201(100) ack 1\n> . 1:1(0) ack 1 <>")
	})
}

// RFC 2883, 4: a duplicate is reported once, in the first block; the block around it follows.
func TestDsack(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "FreeBSD, sack")
		k.trace(`
		< . 1:101(100) ack 1
		< . 1:101(100) ack 1                  // left of the window
		> . 1:1(0) ack 101 <nop,nop,sack 1:101>
		< . 301:401(100) ack 1
		> . 1:1(0) ack 101 <nop,nop,sack 301:401>
		< . 301:401(100) ack 1                // a block again
		> . 1:1(0) ack 101 <nop,nop,sack 301:401 301:401>
		< . 351:451(100) ack 1                // in part
		> . 1:1(0) ack 101 <nop,nop,sack 351:401 301:451>
		< . 51:151(100) ack 1                 // half old, half new
		> . 1:1(0) ack 151 <nop,nop,sack 51:101 301:451>
		< . 151:301(150) ack 1                // fills the gap: no duplicate
		> . 1:1(0) ack 451 <>
		`)
		k.read(all)
	})
}

// FreeBSD: 150:475 over 200:300 and 400:500 gives sack 200:300 150:500 600:700.
func TestDsackSeveral(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "FreeBSD, sack")
		k.trace(`
		< . 600:700(100) ack 1
		> . 1:1(0) ack 1 <nop,nop,sack 600:700>
		< . 200:300(100) ack 1
		> . 1:1(0) ack 1 <nop,nop,sack 200:300 600:700>
		< . 400:500(100) ack 1
		> . 1:1(0) ack 1 <nop,nop,sack 400:500 200:300 600:700>
		< . 150:475(325) ack 1
		> . 1:1(0) ack 1 <nop,nop,sack 200:300 150:500 600:700>
		`)
	})
}

// FreeBSD: 1:800 over holes gives "ack 800 <sack 1:100>", the window less by what is unread; a
// large read updates it.
func TestDsackAndWindow(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "FreeBSD, sack, mss 1460")
		k.trace(`
		< . 1:100(99) ack 1
		+40ms > . 1:1(0) ack 100
		< . 200:300(100) ack 1
		> . 1:1(0) ack 100 <nop,nop,sack 200:300>
		< . 1:800(799) ack 1
		> . 1:1(0) ack 800 win 64901 <nop,nop,sack 1:100>
		`)
		k.read(all)
	})
}

// What a DSACK says about the last byte of a stream that has all been read must not keep a queue.
func TestReassemblyQueueGoes(t *testing.T) {
	each(t, func(t *T) {
		k := established(t, "sack")
		for i := range 10 {
			k.line("< . " + fmt.Sprintf("%d:%d(10) ack 1", 11+20*i, 21+20*i))
			k.sent = nil
			k.line("< . " + fmt.Sprintf("%d:%d(10) ack 1", 1+20*i, 11+20*i))
			k.sent = nil
		}
		if k.tp.reass != nil {
			k.fatalf("the queue stays")
		}
		k.read(all)
		k.sent = nil
	})
}

// If the MTU leaves little room, blocks that would leave none for data stay behind: an
// acknowledgment larger than the MTU arrives as little as the segments behind one.
func TestSackSmallMTU(t *testing.T) {
	each(t, func(t *T) {
		for mss := 28; mss <= 64; mss += 4 { // from an MTU of 68 on
			for _, opts := range []string{"sack", "sack, ts"} {
				k := established(t, "FreeBSD, nodelay, peermss 536, tso 4000, "+opts+", mss "+strconv.Itoa(mss))
				sent := k.sent
				for i := range 4 {
					k.input(k.pkt(".", 101+20*i, 1, 10))
					sent, k.sent = append(sent, k.sent...), nil
				}
				k.write(200)
				if sent, k.sent = append(sent, k.sent...), nil; len(sent) < 5 {
					t.Fatalf("mss %d, %s: %d segments", mss, opts, len(sent))
				}
				for _, p := range sent {
					n := p.th.Put(make([]byte, wire.TCPMaxLen))
					if p.len > 0 && p.segsize <= 0 || n+min(p.len, p.segsize) > mss+wire.TCPMinLen {
						t.Errorf("mss %d, %s: %d bytes of header, and %d of data in pieces of %d", mss, opts, n,
							p.len, p.segsize)
					}
				}
				if most := int(sent[3].th.Opt.Nsack); opts == "sack" && mss >= 44 && most != 4 ||
					opts == "sack, ts" && mss >= 48 && most != 3 {
					t.Errorf("mss %d, %s: %d blocks", mss, opts, most)
				}
			}
		}
	})
}
