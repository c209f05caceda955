package udptunnel

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"testing"
)

// The protocol in virtual time, over good and bad networks. attack_test.go has the attackers.

func TestHandshake(t *testing.T) {
	s := newSim(t)
	a, b := s.pair()
	if s.write(a, "early") {
		t.Error("data is sent before there is a session")
	}
	s.run(4 * s.delay)
	var kinds []byte
	for _, d := range s.log {
		kinds = append(kinds, d.b[0])
	}
	if !bytes.Equal(kinds, []byte{kindHello, kindReply, kindConfirm, kindData, kindData}) {
		t.Errorf("datagrams %v; want a HELLO, a REPLY, a CONFIRM and an empty packet each way", kinds)
	}
	if h, r := s.log[0].b, s.log[1].b; len(r) > len(h) {
		t.Errorf("a reply of %d bytes to %d", len(r), len(h))
	}
	s.exchange(a, b)
	if a.handshakes != 1 || b.handshakes != 1 || a.cur == nil || b.cur == nil || a.next != nil || b.roams != 0 {
		t.Errorf("a %d, b %d handshakes; %d roams", a.handshakes, b.handshakes, b.roams)
	}
	if a.cur.local != b.cur.remote || a.cur.remote != b.cur.local || !a.cur.initiated || b.cur.initiated {
		t.Error("the ends do not agree on the session")
	}
	if a.hello != nil || b.offer != nil {
		t.Error("an ephemeral key is kept after its use")
	}
	n := len(s.log)
	s.run(300 * second)
	for _, d := range s.log[n:] {
		if d.b[0] != kindData || len(d.b) != sealLen {
			t.Errorf("an idle tunnel sends %d bytes of kind %d", len(d.b), d.b[0])
		}
	}
	if len(s.log)-n > 2 {
		t.Errorf("an idle tunnel sends %d datagrams", len(s.log)-n)
	}
	if a.cur != nil || a.prev != nil || a.next != nil ||
		b.cur != nil || b.prev != nil || b.next != nil || b.offer != nil {
		t.Error("keys are kept after their end")
	}
	if a.deadline() != never || b.deadline() != never {
		t.Errorf("an idle tunnel has something to do at %d, %d", a.deadline(), b.deadline())
	}
}

// Each session has its own keys, and so has each direction.
func TestKeysDiffer(t *testing.T) {
	s := newSim(t)
	a, b := s.pair()
	seen := map[string]string{}
	for i := range 5 {
		s.connect(a, b)
		for _, x := range []*session{a.cur, b.cur} {
			var nonce [12]byte
			name := fmt.Sprint("session ", i, " initiated ", x.initiated)
			c := string(x.send.Seal(nil, nonce[:], make([]byte, 32), nil))
			if other, ok := seen[c]; ok {
				t.Errorf("%s and %s have one key", name, other)
			}
			seen[c] = name
		}
		s.run(200 * second)
	}
}

// Under traffic both ways a session is replaced after two minutes, and no packet is lost. Only
// reordering on the network changes the order.
func TestRekey(t *testing.T) {
	for _, name := range []string{"both", "initiator", "responder"} {
		s := newSim(t)
		a, b := s.pair()
		s.connect(a, b)
		const n = 20000 // 1000 s
		for i := range n {
			if name != "responder" && !s.write(a, fmt.Sprint("a", i)) ||
				name != "initiator" && !s.write(b, fmt.Sprint("b", i)) {
				t.Fatalf("%s: nothing to send on at %d", name, i)
			}
			s.run(50 * ms)
		}
		for _, e := range []*simEnd{a, b} {
			if got := len(e.got) - 1; got != n && got != 0 || got == 0 && name == "both" {
				t.Errorf("%s: %s gets %d of %d packets", name, e.name, got, n)
			}
			if e.handshakes < 7 || e.handshakes > 9 {
				t.Errorf("%s: %d handshakes in 1000 s", name, e.handshakes)
			}
			if e.counts[verdictUnknown]+e.counts[verdictReplayed]+e.counts[verdictForged] > 0 {
				t.Errorf("%s: %v", name, e.counts)
			}
		}
	}
}

// A session that has sent 2^60 packets is replaced, and one that has sent 2^61 sends no more.
func TestRekeyByCount(t *testing.T) {
	s := newSim(t)
	a, b := s.pair()
	s.connect(a, b)
	old := a.cur
	a.cur.counter = softLimit - 1
	s.write(a, "last but one")
	if a.want {
		t.Error("a new session before 2^60 packets")
	}
	s.write(a, "last")
	s.run(100 * ms)
	if a.cur == old || len(b.got) != 3 {
		t.Errorf("no new session after 2^60 packets, or packets lost: %d", len(b.got))
	}
	s.exchange(a, b)
	a.cur.counter = hardLimit
	if s.write(a, "never") {
		t.Error("a packet at the counter's end")
	}
	if a.cur.seal(make([]byte, hdrLen, 100)) != nil {
		t.Error("sealed at the counter's end")
	}
}

// When there is a new session, the previous one is kept for 30 s, and longer if packets arrive on
// it, but not beyond its 180 s.
func TestOldSession(t *testing.T) {
	s := newSim(t)
	a, b := s.pair()
	s.connect(a, b)
	old := a.cur
	late := func(p string) []byte { return old.seal(append(make([]byte, hdrLen, 100), p...)) }
	early := late("early")
	s.run(120 * second)
	for i := range 5 {
		s.write(a, fmt.Sprint("rekey", i))
		s.run(50 * ms)
	}
	if a.cur == old || b.prev == nil {
		t.Fatal("no new session")
	}
	if v := s.arrive(b, early, a.addr); v != verdictPacket {
		t.Errorf("a packet of the old session: %v", v)
	}
	if v := s.arrive(b, early, a.addr); v != verdictReplayed {
		t.Errorf("and again: %v", v)
	}
	s.run(29 * second)
	if v := s.arrive(b, late("29 s"), a.addr); v != verdictPacket {
		t.Errorf("a packet of the old session after 29 s: %v", v)
	}
	s.run(28 * second)
	if v := s.arrive(b, late("57 s"), a.addr); v != verdictPacket {
		t.Errorf("a packet 28 s after another: %v", v)
	}
	s.run(4 * second) // 182 s
	if v := s.arrive(b, late("182 s"), a.addr); v != verdictUnknown || b.prev != nil {
		t.Errorf("a packet of a session of 182 s: %v", v)
	}
	s.connect(a, b)

	s = newSim(t)
	a, b = s.pair()
	s.connect(a, b)
	old = a.cur
	s.run(120 * second)
	s.write(a, "rekey")
	s.run(31 * second)
	if v := s.arrive(b, late("too late"), a.addr); v != verdictUnknown || b.prev != nil {
		t.Errorf("a packet 31 s after the session's end: %v", v)
	}
}

// Either end is restarted, at its old port or another, and both have something to send.
func TestRestart(t *testing.T) {
	for _, c := range []struct {
		name    string
		first   bool // the end that knows the other
		moves   bool
		seconds int64 // until traffic has to flow
	}{
		{"initiator", true, false, 1}, {"initiator moves", true, true, 1}, {"responder", false, false, 12},
	} {
		s := newSim(t)
		a, b := s.pair()
		s.connect(a, b)
		s.run(5 * second)
		if c.first {
			s.remove(a)
			port := uint16(1)
			if c.moves {
				port = 3
			}
			a = s.add(port, 2, testKey)
		} else {
			s.remove(b)
			b = s.add(2, 0, testKey)
		}
		for range c.seconds * 10 {
			s.write(a, "a")
			s.write(b, "b")
			s.run(100 * ms)
		}
		s.exchange(a, b)
		if want := 0; c.moves {
			want = 1
			if b.roams != uint64(want) || b.peer != a.addr {
				t.Errorf("%s: %d roams", c.name, b.roams)
			}
		}
	}
}

// The last packet of the initiator arrives, from its old port, behind the CONFIRM from its new
// port. The responder finds the new port although the initiator has nothing to send for a while.
func TestRestartOverlaps(t *testing.T) {
	s := newSim(t)
	a, b := s.pair()
	s.connect(a, b)
	s.run(5 * second)
	c := s.add(3, 2, testKey)
	c.advance(s.now)
	c.demand()
	c.retry()
	s.settle(c)
	s.run(2*s.delay + s.delay/2) // the CONFIRM is on its way
	s.write(a, "late")
	s.remove(a)
	s.run(s.delay)
	if b.peer != a.addr || b.cur == nil || b.cur.heard {
		t.Fatalf("the packet was not late: the peer is %v", b.peer)
	}
	s.run(2 * s.delay)
	if b.peer != c.addr {
		t.Errorf("the responder sends to %v, where nobody is", b.peer)
	}
	s.exchange(b, c)
}

// A peer that has moved and returns to its configured address is found there.
func TestRestartAtHome(t *testing.T) {
	s := newSim(t)
	a, b := s.pair()
	s.connect(a, b)
	b.addr = simAddr(7) // a mapping on the way changes
	s.exchange(b, a)
	if a.peer != simAddr(7) || a.roams != 1 {
		t.Fatalf("a's peer is %v", a.peer)
	}
	s.remove(b)
	b = s.add(2, 0, testKey)
	for range 140 {
		s.write(a, "a")
		s.run(100 * ms)
	}
	s.exchange(a, b)
}

// Both ends initiate at once.
func TestSimultaneous(t *testing.T) {
	for seed := range 50 {
		s := newSim(t)
		s.rnd.Uint64()
		for range seed {
			s.rnd.Uint64()
		}
		a, b := s.add(1, 2, testKey), s.add(2, 1, testKey)
		s.write(a, "a")
		s.run(int64(seed%5) * s.delay / 4)
		s.write(b, "b")
		s.run(10 * s.delay)
		for range 3 {
			s.exchange(a, b)
		}
		if a.cur.local != b.cur.remote {
			t.Errorf("seed %d: the ends send on different sessions", seed)
		}
		n := a.handshakes + b.handshakes
		for range 100 {
			s.exchange(a, b)
			s.run(1 * second)
		}
		if a.handshakes+b.handshakes != n {
			t.Errorf("seed %d: another handshake", seed)
		}
		// Both initiate at once again, because they find the session old at the same moment.
		a.cur.initiated, b.cur.initiated = true, true
		s.run(120*second - (s.now - min(a.cur.created, b.cur.created)))
		s.run(second / 2)
		for i := range 60 {
			s.write(a, "a")
			s.write(b, "b")
			if i > 20 {
				s.run(2 * s.delay)
				s.exchange(a, b)
			}
			s.run(second / 4)
		}
		if a.cur.local != b.cur.remote {
			t.Errorf("seed %d: the ends send on different sessions after the second", seed)
		}
		if got := a.counts[verdictUnknown] + b.counts[verdictUnknown]; got > 2 {
			t.Errorf("seed %d: %d datagrams for sessions unknown", seed, got)
		}
	}
}

// On a lossy, slow network the ends agree on sessions in the end, and packets go through.
func TestLoss(t *testing.T) {
	for _, delay := range []int64{ms, 800 * ms, 3000 * ms} {
		s := newSim(t)
		s.delay = delay
		s.lose = func(simDatagram) bool { return s.rnd.IntN(10) < 3 }
		a, b := s.pair()
		for range 6000 {
			s.write(a, "a")
			s.write(b, "b")
			s.run(100 * ms)
		}
		for _, e := range []*simEnd{a, b} {
			if len(e.got) < 6000*6/10 {
				t.Errorf("delay %d ms: %d of 6000 packets, %v", delay/ms, len(e.got), e.counts)
			}
		}
	}
}

// Each message of the first handshake is lost once. The next attempt comes a second later.
func TestLossOfOne(t *testing.T) {
	for n := range 4 {
		s := newSim(t)
		i := 0
		s.lose = func(simDatagram) bool { i++; return i-1 == n }
		a, b := s.pair()
		for range 3 {
			s.write(a, "a")
			s.run(600 * ms)
		}
		s.exchange(a, b)
	}
}

// If nothing answers a packet, there is a new session after 10 s. A peer that has nothing to send
// answers with an empty packet after 4 s.
func TestKeepalive(t *testing.T) {
	s := newSim(t)
	a, b := s.pair()
	s.connect(a, b)
	s.run(10 * second)
	n := len(s.log)
	for range 80 { // 80 s of one-way traffic
		s.write(a, "a")
		s.run(second)
	}
	empty := 0
	for _, d := range s.log[n:] {
		switch {
		case d.b[0] != kindData:
			t.Fatalf("a message of kind %d", d.b[0])
		case d.src == b.addr:
			empty++
		}
	}
	if empty < 14 || empty > 21 {
		t.Errorf("%d empty packets in 80 s", empty)
	}
	s.run(10 * second)
	s.remove(b)
	n = len(s.log)
	s.write(a, "a")
	s.run(9 * second)
	if len(s.log) != n+1 {
		t.Errorf("%d datagrams before 10 s are over", len(s.log)-n-1)
	}
	s.run(21 * second)
	hellos := 0
	for _, d := range s.log[n:] {
		if d.b[0] == kindHello {
			hellos++
		}
	}
	if hellos < 18 || hellos > 21 {
		t.Errorf("%d HELLOs in the 20 s after", hellos)
	}
	n = len(s.log)
	s.run(300 * second)
	if len(s.log) != n {
		t.Errorf("%d datagrams when nobody has anything to send", len(s.log)-n)
	}
}

// Packets wait for a session for three seconds. Then they are dropped until there is one.
func TestDropping(t *testing.T) {
	s := newSim(t)
	a := s.add(1, 2, testKey)
	s.write(a, "a")
	s.run(2999 * ms)
	s.write(a, "a")
	if a.dropping() {
		t.Error("dropped before 3 s")
	}
	s.run(2 * ms)
	s.write(a, "a")
	if !a.dropping() {
		t.Error("not dropped after 3 s")
	}
	for range 100 {
		s.write(a, "a")
		s.run(second)
	}
	if n := len(s.kind(kindHello)); n < 100 || n > 105 {
		t.Errorf("%d HELLOs in 103 s", n)
	}
	if !a.dropping() {
		t.Error("not dropped after 100 s")
	}
	b := s.add(2, 0, testKey)
	s.run(2 * second)
	if a.dropping() {
		t.Error("dropped with a session")
	}
	s.exchange(a, b)
}

// A clock that jumps ahead costs at most a handshake. If it goes back, the machine's time stands
// still.
func TestClock(t *testing.T) {
	for _, jump := range []int64{second, 50 * second, 130 * second, 1 << 50, -second, -500 * second} {
		for _, both := range []bool{false, true} {
			s := newSim(t)
			a, b := s.pair()
			s.connect(a, b)
			a.skew = jump
			if both {
				b.skew = jump
			}
			for range 400 {
				s.write(a, "a")
				s.write(b, "b")
				s.run(100 * ms)
			}
			s.exchange(a, b)
			if n := a.handshakes + b.handshakes; n > 6 {
				t.Errorf("jump %d: %d handshakes", jump, n)
			}
		}
	}
}

// An offer that was not taken does not stay forever.
func TestOfferEnds(t *testing.T) {
	s := newSim(t)
	a, b := s.pair()
	s.lose = func(d simDatagram) bool { return d.b[0] == kindConfirm }
	s.write(a, "a")
	s.run(100 * ms)
	c := s.kind(kindConfirm)[0]
	first := b.offer
	if first == nil {
		t.Fatal("nothing is offered")
	}
	s.run(9 * second)
	if b.offer != first {
		t.Error("another key is offered before 10 s")
	}
	s.run(12 * second)
	if b.offer == first {
		t.Error("the key is still offered")
	}
	if v := s.arrive(b, c.b, c.src); v != verdictUnknown || b.cur != nil {
		t.Errorf("a CONFIRM of 21 s: %v", v)
	}
}

// Data datagrams carry the receiver's name of the session.
func TestDataFormat(t *testing.T) {
	s := newSim(t)
	a, b := s.pair()
	s.connect(a, b)
	s.write(a, "packet")
	d := s.log[len(s.log)-1].b
	if len(d) != 16+len("packet")+16 ||
		!bytes.Equal(d[:4], []byte{4, 0, 0, 0}) || !bytes.Equal(d[4:8], b.cur.local[:4]) ||
		binary.LittleEndian.Uint64(d[8:]) != a.cur.counter-1 || bytes.Contains(d, []byte("packet")) {
		t.Errorf("%x", d)
	}
}

// If the peer never learns of a session, the next packet starts another handshake.
func TestUnconfirmed(t *testing.T) {
	s := newSim(t)
	a, b := s.pair()
	s.lose = func(d simDatagram) bool { return d.b[0] == kindConfirm || d.b[0] == kindData }
	s.write(a, "wanted")
	s.run(50 * second) // long enough for a to give up
	if a.next == nil || a.want {
		t.Fatal("no session, or still asking")
	}
	s.lose = nil
	s.write(a, "wanted")
	s.run(second)
	s.exchange(a, b)
}

// Time does not go back.
func TestMonotonic(t *testing.T) {
	s := newSim(t)
	a, _ := s.pair()
	a.advance(5)
	if a.advance(3); a.now != 5 {
		t.Errorf("now %d; want 5", a.now)
	}
}

// The key schedule against values from an implementation of docs/udp-tunnel.md in another language.
// The shared secret is that of RFC 7748, 6.1.
func TestKeySchedule(t *testing.T) {
	var k secret
	psk, shared := make([]byte, 32), unhex(t, "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
	for i := range psk {
		psk[i] = byte(i)
	}
	if err := k.init(psk); err != nil {
		t.Fatal(err)
	}
	tr := transcript{
		initiator: sessionID{1, 1, 1, 1, 1, 1, 1, 1},
		nonce:     sessionID{2, 2, 2, 2, 2, 2, 2, 2},
		responder: sessionID{4, 4, 4, 4, 4, 4, 4, 4},
	}
	for i := range tr.initKey {
		tr.initKey[i], tr.respKey[i] = 3, 5
	}
	to, back := k.sessionKeys(&tr, bytes.Clone(shared))
	for _, c := range []struct {
		name string
		got  []byte
		want string
	}{
		{"to the responder", to, "b57719b98e5a2460f984f0b4ba8ab2f93aeceb5d1e289ff6257ee5fdeed81d19"},
		{"to the initiator", back, "bf2745f8550ad1d3a4571a816daa2d460797642cbb4bb20efc1950e91c898ab6"},
		{"code of a HELLO", bytes.Clone(k.code("hello", make([]byte, 60))), "48d7c46e46ddfa92013240e25926202f"},
		{"code of a REPLY", bytes.Clone(k.transcriptCode("reply", &tr, nil)), "e3a9e4cd3437f2ec1c164e4239d91ae7"},
		{"code of a CONFIRM", bytes.Clone(k.transcriptCode("confirm", &tr, make([]byte, 16))),
			"c25a6a9fb36b033570f9460ede6b83e8"},
	} {
		if !bytes.Equal(c.got, unhex(t, c.want)) {
			t.Errorf("%s: %x; want %s", c.name, c.got, c.want)
		}
	}
	// Every part of the transcript changes both keys.
	seen := map[string]bool{string(to): true, string(back): true}
	for i, change := range []func(tr *transcript){
		func(tr *transcript) { tr.initiator[7]++ },
		func(tr *transcript) { tr.nonce[7]++ },
		func(tr *transcript) { tr.initKey[31]++ },
		func(tr *transcript) { tr.responder[7]++ },
		func(tr *transcript) { tr.respKey[31]++ },
	} {
		other := tr
		change(&other)
		to, back := k.sessionKeys(&other, bytes.Clone(shared))
		if seen[string(to)] || seen[string(back)] {
			t.Errorf("change %d of the transcript leaves a key as it was", i)
		}
		seen[string(to)], seen[string(back)] = true, true
	}
}

func unhex(t *testing.T, s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
