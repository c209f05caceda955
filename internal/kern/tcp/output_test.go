package tcp

import (
	"fmt"
	"testing"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// dump prints all that a TCB remembers.
func dump(tp *TCB) string {
	s := fmt.Sprintf("%+v\n", *tp)
	if tp.snr != nil {
		s += fmt.Sprintf("%+v\n", *tp.snr)
	}
	if tp.reass != nil {
		s += fmt.Sprintf("%+v\n", *tp.reass)
	}
	return s
}

// TestPlanChangesNothing: plan decides and build makes a segment without changing the TCB, whatever
// they find. wants is what settle is left to do.
func TestPlanChangesNothing(t *testing.T) {
	lost := func(k *kit) {
		k.write(5000)
		k.sent = nil
		k.tp.markLost(k.tp.snr.sb.next(k.tp.snr.sb.first()), "test")
		k.tp.snr.lostFrom = k.tp.sndUna
		k.tp.snr.ctl.Cwnd = 10000
	}
	for _, c := range []struct {
		name, opts string
		do         func(k *kit)
		send       bool
		wants      wants
	}{
		{"nothing", "mss 1000", func(*kit) {}, false, 0},
		{"data", "mss 1000", func(k *kit) { k.append(3000) }, true, 0},
		{"no room", "mss 1000", func(k *kit) { k.append(3000); k.room = false }, false, wantBlocked},
		{"a closed window", "mss 1000", func(k *kit) { k.append(3000); k.tp.sndWnd = 0 }, false, wantPersist},
		{"one that draws an answer", "mss 1000", func(k *kit) {
			k.append(3000)
			k.tp.sndWnd = 0
			k.tp.flags |= AckNow
		}, true, wantPersist},
		{"a probe", "mss 1000", func(k *kit) {
			k.append(3000)
			k.tp.sndWnd = 0
			k.tp.flags |= force
			k.tp.set(tPersist, k.now)
		}, true, 0},
		{"a probe of an open window", "mss 1000", func(k *kit) {
			k.append(10)
			k.tp.flags |= force
			k.tp.backoff = 3
			k.tp.set(tPersist, k.now)
		}, true, wantOpen},
		{"more to come", "mss 1000", func(k *kit) { k.append(10); k.tp.flags |= MoreToCome }, false, wantIdle},
		{"urgent data", "mss 1000", func(k *kit) { k.append(10); k.tp.SendUrgent() }, true, 0},
		{"a FIN", "mss 1000", func(k *kit) { k.tp.state = FinWait1 }, true, 0},
		{"a FIN again", "FreeBSD, mss 1000", func(k *kit) { k.shutdown(); k.sent = nil; k.tp.flags |= AckNow }, true,
			0},
		{"the end of a FIN", "mss 1000", func(k *kit) { k.shutdown(); k.sent = nil; k.tp.flags |= AckNow }, true, 0},
		{"a duplicate", "mss 1000, sack", func(k *kit) {
			k.tp.noteDuplicate(k.tp.rcvNxt-5, k.tp.rcvNxt)
			k.tp.flags |= AckNow
		}, true, 0},
		{"a window", "mss 1000", func(k *kit) {
			k.tp.rcvAdv = k.tp.rcvNxt
			k.tp.bytesRcvd = 1
		}, true, 0},
		{"congestion", "mss 1000, ts", func(k *kit) {
			k.append(10)
			k.tp.flags |= ecnOn | ecnSndCWR | ecnSndECE
		}, true, 0},
		{"a pause of the pacer", "mss 1000, sack", func(k *kit) {
			k.write(1000)
			k.sent = nil
			k.append(1000)
			k.tp.snr.pacer.rate, k.tp.snr.pacer.next = 1000, k.now+sec
		}, false, wantHeld},
		{"a loss", "mss 1000, sack", lost, true, wantLostFrom},
		{"a loss, no window", "mss 1000, sack", func(k *kit) {
			lost(k)
			k.tp.snr.ctl.Cwnd, k.tp.snr.lostFrom = 1000, k.tp.sndUna+1000
		}, false, wantLostFrom | wantLimited},
		{"a loss, no room", "mss 1000, sack", func(k *kit) {
			lost(k)
			k.room, k.tp.snr.lostFrom = false, k.tp.sndUna+1000
		}, false, wantLostFrom | wantBlocked},
		{"a loss, and the pacer", "mss 1000, sack", func(k *kit) {
			lost(k)
			k.tp.snr.lostFrom = k.tp.sndUna + 1000
			k.tp.snr.pacer.rate, k.tp.snr.pacer.next = 1000, k.now+sec
		}, false, wantLostFrom | wantHeld},
	} {
		t.Run(c.name, func(tt *testing.T) {
			k := established(&T{tt, 1, 1}, c.opts)
			c.do(k)
			var o outseg
			before := dump(&k.tp)
			send := k.tp.plan(&o, k.now)
			if send != c.send || o.wants != c.wants {
				t.Errorf("plan says %v, wants %b; want %v, %b", send, o.wants, c.send, c.wants)
			}
			if after := dump(&k.tp); after != before {
				t.Errorf("plan has changed\n%s to\n%s", before, after)
			}
			if send {
				mbuf.Free(k.tp.build(&o, k.now))
			}
			if after := dump(&k.tp); after != before {
				t.Errorf("build has changed\n%s to\n%s", before, after)
			}
			off := o.off
			if o.flags&wire.FIN != 0 && k.tp.flags&SentFin != 0 {
				off-- // the same number again
			}
			if space := o.len > 0 || o.flags&wire.FIN != 0; send && space && o.seq != k.tp.sndUna.Add(off) {
				t.Errorf("it begins at +%d, want +%d", o.seq.Sub(k.tp.sndUna), off)
			}
			if again := c.name == "a FIN again"; again != (o.flags&wire.FIN != 0 && k.tp.flags&SentFin != 0) {
				t.Errorf("a FIN that has been sent: flags %s", o.flags)
			}
			k.tp.settle(&o, k.now)
			if o.wants != 0 && dump(&k.tp) == before {
				t.Errorf("settle has taken no note of %b", o.wants)
			}
		})
	}
}
