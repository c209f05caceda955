package udptunnel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"bsdnet/internal/testutil"
)

// Attacks on the protocol. The attacker sees every datagram, and can send any datagram from any
// address, but does not have the key.

// state is the part of a machine that an attack must not change.
func (e *simEnd) state() string {
	return fmt.Sprintf("%p %p %p %v %d %d %d packets", e.cur, e.prev, e.next, e.peer, e.handshakes, e.roams, len(e.got))
}

var attacker = simAddr(666)

// A change of any bit of any message is detected.
func TestBitFlips(t *testing.T) {
	for kind := byte(kindHello); kind <= kindData; kind++ {
		s := newSim(t)
		a, b := s.pair()
		s.lose = func(d simDatagram) bool { return d.b[0] == kind && len(d.b) != sealLen }
		s.write(a, "wanted")
		s.run(100 * ms)
		s.write(a, "a packet")
		ds := s.kind(kind)
		d := ds[len(ds)-1]
		to := b
		if d.dst == a.addr {
			to = a
		}
		before := to.state()
		for bit := range 8 * len(d.b) {
			f := bytes.Clone(d.b)
			f[bit/8] ^= 1 << (bit % 8)
			if v := s.arrive(to, f, d.src); v == verdictPacket || v == verdictHandshake {
				t.Errorf("kind %d, bit %d: %v", kind, bit, v)
			}
			if got := to.state(); got != before {
				t.Fatalf("kind %d, bit %d: %s; was %s", kind, bit, got, before)
			}
		}
		if v := s.arrive(to, d.b, d.src); v != verdictPacket && v != verdictHandshake {
			t.Errorf("kind %d as it was: %v", kind, v)
		}
	}
}

// A CONFIRM made with the pre-shared key, but without the ephemeral key that it shows, begins no
// session.
func TestConfirmTag(t *testing.T) {
	s := newSim(t)
	a, b := s.pair()
	s.lose = func(d simDatagram) bool { return d.b[0] == kindConfirm }
	s.write(a, "wanted")
	s.run(100 * ms)
	c := s.kind(kindConfirm)[0].b
	tr := b.offerT
	copy(tr.initiator[:], c[12:])
	copy(tr.nonce[:], c[20:])
	copy(tr.initKey[:], c[28:])
	for _, flip := range []byte{1, 0} {
		f := bytes.Clone(c)
		f[60] ^= flip
		copy(f[76:], a.secret.transcriptCode("confirm", &tr, f[60:76]))
		if v := s.arrive(b, f, a.addr); v != verdictForged && flip != 0 || v != verdictHandshake && flip == 0 {
			t.Errorf("flip %d: %v", flip, v)
		}
	}
}

// Datagrams of all lengths, cut from good ones and longer than these.
func TestLengths(t *testing.T) {
	s := newSim(t)
	a, b := s.pair()
	s.connect(a, b)
	s.write(a, "packet")
	log := s.log
	for _, d := range log {
		long := append(bytes.Clone(d.b), make([]byte, 200)...)
		for n := range len(long) {
			if n == len(d.b) {
				continue
			}
			for _, to := range []*simEnd{a, b} {
				before := to.state()
				if v := s.arrive(to, long[:n], d.src); v == verdictPacket || v == verdictHandshake {
					t.Errorf("%d bytes of kind %d: %v", n, d.b[0], v)
				}
				if got := to.state(); got != before {
					t.Fatalf("%d bytes of kind %d: %s; was %s", n, d.b[0], got, before)
				}
			}
		}
	}
	for kind := range 256 {
		for _, n := range []int{1, 4, 32, helloLen, confirmLen, 1500, 65507} {
			junk := make([]byte, n)
			junk[0] = byte(kind)
			for _, to := range []*simEnd{a, b} {
				before := to.state()
				s.arrive(to, junk, attacker)
				if got := to.state(); got != before {
					t.Fatalf("%d bytes of kind %d change the state", n, kind)
				}
			}
		}
	}
}

// An attacker replays every datagram, at any time and from any address. Nothing changes; answers
// are neither more nor larger than the datagrams that cause them, and there is one per second for
// each HELLO and each source address; and packets still go through.
func TestReplays(t *testing.T) {
	s := newSim(t)
	a, b := s.pair()
	for range 6 { // six sessions, from both sides
		s.connect(a, b)
		s.run(100 * second)
		s.connect(b, a)
		s.run(100 * second)
	}
	s.connect(a, b)
	log := s.log
	hellos := len(s.kind(kindHello))
	if hellos < 6 {
		t.Fatalf("%d HELLOs", hellos)
	}
	asked, answered, asks, answers := 0, 0, 0, 0
	start := s.now
	for i := range 100_000 {
		d := log[s.rnd.IntN(len(log))]
		to, src := a, d.src
		if d.dst == b.addr != (i%4 == 0) { // one in four comes back to its sender
			to = b
		}
		if i%3 == 0 {
			src = attacker
		}
		before, n := to.state(), len(s.log)
		v := s.arrive(to, d.b, src)
		if v == verdictPacket || v == verdictHandshake && d.b[0] != kindHello {
			t.Fatalf("a replay of kind %d is taken: %v", d.b[0], v)
		}
		if got := to.state(); got != before {
			t.Fatalf("a replay of kind %d: %s; was %s", d.b[0], got, before)
		}
		if d.b[0] == kindHello {
			asked += len(d.b)
			asks++
		}
		for _, r := range s.log[n:] {
			answered += len(r.b)
			answers++
		}
		if i%100 == 0 {
			s.run(20 * ms)
			s.exchange(a, b)
			s.log = s.log[:len(log)]
		}
	}
	seconds := int((s.now-start)/second) + 1
	if answers == 0 || answered > asked || answers > 2*2*hellos*seconds { // by each end, to each of two addresses
		t.Errorf("%d bytes in %d answers to %d in %d, of %d HELLOs, in %d s",
			answered, answers, asked, asks, hellos, seconds)
	}
}

// A replayed handshake begins no session at an end that has been restarted.
func TestReplayAfterRestart(t *testing.T) {
	s := newSim(t)
	a, b := s.pair()
	s.connect(a, b)
	log := s.log
	s.remove(b)
	s.remove(a)
	b = s.add(2, 0, testKey)
	for range 3 {
		for _, d := range log {
			if d.dst == b.addr {
				s.arrive(b, d.b, d.src)
			}
		}
		s.run(second)
	}
	if b.cur != nil || b.handshakes > 0 || len(b.got) > 0 || b.peer.IsValid() {
		t.Errorf("%s", b.state())
	}
}

// Messages that are reflected to their sender do not make it set up a tunnel to itself.
func TestMirror(t *testing.T) {
	s := newSim(t)
	a := s.add(1, 2, testKey)
	for range 20 {
		s.write(a, "a")
		for _, w := range s.wire {
			s.arrive(a, w.b, w.dst)
		}
		s.wire = nil
		s.run(300 * ms)
	}
	if a.usable() != nil || len(a.got) > 0 || len(s.kind(kindReply)) > 0 {
		t.Errorf("%s, %d replies", a.state(), len(s.kind(kindReply)))
	}
}

// An end with a different key gets nothing, not even an answer.
func TestWrongKey(t *testing.T) {
	s := newSim(t)
	a, b := s.pair()
	s.connect(a, b)
	for bit := range 256 {
		key := bytes.Clone(testKey)
		key[bit/8] ^= 1 << (bit % 8)
		e := s.add(3, 2, key)
		before := b.state()
		s.write(e, "e")
		s.run(100 * ms)
		if b.state() != before || e.usable() != nil || e.counts != [verdictReplayed + 1]int{} {
			t.Fatalf("bit %d: %s; was %s; %v", bit, b.state(), before, e.counts)
		}
		s.remove(e)
	}
	if b.counts[verdictForged] != 256 {
		t.Errorf("%v", b.counts)
	}
}

// An end drops one million forgeries, and none of them changes anything.
func TestFlood(t *testing.T) {
	s := newSim(t)
	a, b := s.pair()
	s.connect(a, b)
	s.write(a, "packet")
	s.run(2 * s.delay)
	good := s.log[len(s.log)-1].b
	before := b.state()
	now := s.now
	n := 1_000_000
	if testutil.Race || testing.Short() {
		n = 50_000
	}
	f := make([]byte, 200)
	for i := range n {
		k := copy(f, good)
		switch i % 4 {
		case 0: // the right session, a counter to come
			binary.LittleEndian.PutUint64(f[8:], uint64(i))
		case 1: // a random session
			binary.LittleEndian.PutUint32(f[4:], s.rnd.Uint32())
		case 2: // any data
			binary.LittleEndian.PutUint64(f[16:], s.rnd.Uint64())
		case 3: // a message of a handshake
			kind := byte(1 + i/4%3)
			k = [...]int{helloLen, replyLen, confirmLen}[kind-1]
			clear(f[:k])
			f[0], f[1] = kind, version
			binary.LittleEndian.PutUint64(f[4:], s.rnd.Uint64())
		}
		if v := b.take(now, f[:k], attacker); v == verdictPacket || v == verdictHandshake {
			t.Fatalf("forgery %d: %v", i, v)
		}
	}
	if got := b.state(); got != before || len(b.out) > 0 {
		t.Errorf("%s; was %s", got, before)
	}
	s.exchange(a, b)
}

// A packet may be overtaken by 8127 others, and is accepted once.
func TestWindow(t *testing.T) {
	const window = 8128
	s := newSim(t)
	a, b := s.pair()
	s.connect(a, b)
	base := a.cur.counter
	packet := func(counter uint64) []byte {
		a.cur.counter = counter
		return a.cur.seal(append(make([]byte, hdrLen, 100), fmt.Sprint(counter)...))
	}
	// In reverse order within the window, each packet twice.
	for i := window; i >= 0; i-- {
		want := verdict(verdictPacket)
		d := packet(base + uint64(i))
		if v := s.arrive(b, d, a.addr); v != want {
			t.Fatalf("counter %d in reverse: %v", i, v)
		}
		if v := s.arrive(b, d, a.addr); v != verdictReplayed {
			t.Fatalf("counter %d again: %v", i, v)
		}
	}
	base += 100_000
	top := base + 50_000
	late := map[uint64]verdict{
		top: verdictReplayed, top - 1: verdictPacket, top - window + 1: verdictPacket, top - window: verdictPacket,
		top - window - 1: verdictReplayed, top - window - 64: verdictReplayed,
		base: verdictReplayed, 1: verdictReplayed,
	}
	s.arrive(b, packet(top), a.addr)
	for counter, want := range late {
		if v := s.arrive(b, packet(counter), a.addr); v != want {
			t.Errorf("counter %d, after %d: %v; want %v", counter, top, v, want)
		}
	}
	for _, counter := range []uint64{0, hardLimit, 1<<64 - 1} {
		d := packet(5)
		binary.LittleEndian.PutUint64(d[8:], counter)
		if v := s.arrive(b, d, a.addr); v != verdictMalformed {
			t.Errorf("counter %d: %v", counter, v)
		}
	}
}

// The peer's address follows the newest authentic packet, and nothing else.
func TestRoaming(t *testing.T) {
	s := newSim(t)
	a, b := s.pair()
	s.connect(a, b)
	seal := func(p string) []byte { return a.cur.seal(append(make([]byte, hdrLen, 100), p...)) }
	first, newest := seal("first"), seal("second")
	forged := bytes.Clone(newest)
	forged[20] ^= 1
	step := func(what string, d []byte, src, want endpoint) {
		t.Helper()
		s.arrive(b, d, src)
		if b.peer != want {
			t.Errorf("%s: peer %v; want %v", what, b.peer, want)
		}
	}
	step("a forged packet", forged, attacker, a.addr)
	step("the newest packet", newest, simAddr(9), simAddr(9))
	step("a replay", newest, attacker, simAddr(9))
	step("an authentic packet that is late", first, attacker, simAddr(9))
	step("an empty packet", seal(""), simAddr(10), simAddr(10))
	for _, d := range s.log {
		step(fmt.Sprintf("a replay of kind %d", d.b[0]), d.b, attacker, simAddr(10))
	}
	if b.roams != 2 {
		t.Errorf("%d roams", b.roams)
	}
	old := a.cur
	s.run(121 * second)
	a.addr = simAddr(10)
	s.write(a, "rekey")
	s.run(second)
	if a.cur == old {
		t.Fatal("no new session")
	}
	s.exchange(a, b)
	step("an old session's packet", old.seal(append(make([]byte, hdrLen, 100), "old"...)), attacker, simAddr(10))
}

// An attacker is faster than the network: its copies, from its own address, arrive before the
// originals. A HELLO is answered all the same. If a CONFIRM has moved the peer's address to the
// attacker's, the next packet from the right address moves it back, although that packet is on the
// previous session.
func TestOvertaken(t *testing.T) {
	s := newSim(t)
	a, b := s.pair()
	overtake := func(kind byte) {
		s.lose = func(d simDatagram) bool {
			if d.b[0] == kind && d.dst == b.addr {
				s.arrive(b, d.b, attacker)
			}
			return false
		}
	}
	overtake(kindHello)
	s.connect(a, b)
	overtake(kindConfirm)
	for range 3 {
		s.run(121 * second)
		roams := b.roams
		s.write(a, "time for a new session")
		for range 50 {
			s.run(100 * ms)
			s.exchange(a, b)
		}
		if b.roams < roams+2 || a.age(a.cur) > 10*second || a.cur.tie != b.cur.tie {
			t.Errorf("%d roams; a session of %d ms", b.roams-roams, a.age(a.cur)/ms)
		}
	}
}

// A copy of a REPLY, which seems to come from the peer's configured address and overtakes the
// original, does not divert the CONFIRM from the peer's new address.
func TestReplyOvertaken(t *testing.T) {
	s := newSim(t)
	a, b := s.pair()
	s.connect(a, b)
	first := b.addr
	b.addr = simAddr(7)
	s.write(b, "from elsewhere")
	s.run(ms * 100)
	if a.peer != b.addr || a.home != first {
		t.Fatalf("a's peer is %v", a.peer)
	}
	s.lose = func(d simDatagram) bool {
		if d.b[0] == kindReply {
			s.arrive(a, d.b, first)
		}
		return false
	}
	s.run(121 * second)
	s.write(a, "time for a new session")
	s.run(3 * second)
	s.exchange(a, b)
	if a.age(a.cur) > 5*second {
		t.Errorf("a session of %d ms", a.age(a.cur)/ms)
	}
}

// A CONFIRM that was held up begins one session, and only while its offer exists. The peers find
// each other again.
func TestDelayedConfirm(t *testing.T) {
	s := newSim(t)
	a, b := s.pair()
	var caught []byte
	s.lose = func(d simDatagram) bool {
		if d.b[0] == kindConfirm && caught == nil {
			caught = d.b
			return true
		}
		return false
	}
	s.write(a, "a")
	s.run(100 * ms)
	s.write(a, "a")
	s.run(3 * second)
	s.exchange(a, b)
	before := b.state()
	if v := s.arrive(b, caught, a.addr); v != verdictUnknown || b.state() != before {
		t.Errorf("a CONFIRM that another has overtaken: %v", v)
	}
	// Now a CONFIRM that is the only one for its offer: it is valid, but the initiator has gone on.
	s = newSim(t)
	a, b = s.pair()
	caught = nil
	s.lose = func(d simDatagram) bool {
		if d.b[0] == kindConfirm {
			caught = d.b
			return true
		}
		return false
	}
	for range 25 {
		s.write(a, "a")
		s.run(200 * ms)
	}
	s.lose = nil
	s.arrive(b, caught, attacker)
	for range 150 {
		s.write(a, "a")
		s.write(b, "b")
		s.run(100 * ms)
	}
	s.exchange(a, b)
	if b.peer != a.addr {
		t.Errorf("b's peer is %v", b.peer)
	}
}

// FuzzDatagrams sends an end arbitrary datagrams between valid ones. None is accepted, and the
// tunnel still works.
func FuzzDatagrams(f *testing.F) {
	s := newSim(f)
	a, b := s.pair()
	s.connect(a, b)
	s.write(a, "packet")
	for _, d := range s.log {
		f.Add(d.b, int64(0))
		f.Add(d.b[:len(d.b)/2], int64(second))
	}
	f.Fuzz(func(t *testing.T, d []byte, wait int64) {
		s := newSim(t)
		s.rnd = rand.New(rand.NewPCG(3, 4)) // or what is given would be authentic
		a, b := s.pair()
		s.connect(a, b)
		s.run(max(0, min(wait, 300*second)))
		for _, e := range []*simEnd{a, b} {
			before := e.state()
			answers := len(s.log)
			v := s.arrive(e, d, attacker)
			if v == verdictPacket || v == verdictHandshake && d[0] != kindHello || e.state() != before {
				t.Fatalf("%x: %v, %s; was %s", d, v, e.state(), before)
			}
			for _, r := range s.log[answers:] {
				if len(r.b) > len(d) {
					t.Fatalf("%x: an answer of %d bytes", d, len(r.b))
				}
			}
		}
		s.connect(a, b)
	})
}

// While a CONFIRM is under way, a changed one costs no allocation: the responder computes no keys.
func TestForgedConfirmAllocs(t *testing.T) {
	if testutil.Race {
		t.Skip("the race detector allocates")
	}
	s := newSim(t)
	a, b := s.pair()
	s.lose = func(d simDatagram) bool { return d.b[0] == kindConfirm }
	s.write(a, "wanted")
	s.run(100 * ms)
	confirm := s.kind(kindConfirm)[0].b
	for _, at := range []int{20, 28, 59, 60, 75, 76, confirmLen - 1} {
		f := bytes.Clone(confirm)
		f[at] ^= 1
		if n := testing.AllocsPerRun(10, func() {
			if v := b.input(s.now, f, attacker); v != verdictForged {
				t.Errorf("a CONFIRM with byte %d changed: %v", at, v)
			}
		}); n != 0 {
			t.Errorf("a CONFIRM with byte %d changed: %v allocations", at, n)
		}
	}
}

// An invalid datagram costs no allocation, and neither does a packet.
func TestMachineAllocs(t *testing.T) {
	if testutil.Race {
		t.Skip("the race detector allocates")
	}
	s := newSim(t)
	a, b := s.pair()
	s.connect(a, b)
	s.write(a, "packet")
	forged := bytes.Clone(s.log[len(s.log)-1].b)
	forged[len(forged)-1] ^= 1
	unknown := bytes.Clone(forged)
	unknown[5] ^= 1
	var messages [][]byte
	for kind := byte(kindHello); kind < kindData; kind++ {
		d := bytes.Clone(s.kind(kind)[0].b)
		d[len(d)-1] ^= 1
		messages = append(messages, d)
	}
	a.demand()
	dst := make([]byte, 1500)
	for _, d := range append(messages, forged, unknown, forged[:31], s.kind(kindHello)[0].b[:50]) {
		if n := testing.AllocsPerRun(100, func() {
			for _, e := range []*simEnd{a, b} {
				if d[0] != kindData {
					e.input(s.now, d, attacker)
				} else if x, _ := e.find(s.now, d); x != nil {
					x.open(dst, d)
				}
			}
		}); n != 0 {
			t.Errorf("a forgery of kind %d, %d bytes: %v allocations", d[0], len(d), n)
		}
	}
	buf := make([]byte, 1500)
	got := 0
	if n := testing.AllocsPerRun(100, func() {
		x := a.sender(s.now)
		d := x.seal(buf[:hdrLen+1200])
		a.sent(s.now, x, true)
		y, _ := b.find(s.now, d)
		k, newest, v := y.open(dst, d)
		if v == verdictPacket {
			got += k
		}
		b.opened(s.now, y, true, newest, a.addr)
	}); n != 0 || got != 101*1200 {
		t.Errorf("a packet: %v allocations, %d bytes", n, got)
	}
}
