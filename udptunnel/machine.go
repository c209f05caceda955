package udptunnel

import (
	"bytes"
	"crypto/ecdh"
	"crypto/subtle"
	"encoding/binary"
	"net/netip"
)

// Times of the protocol, in nanoseconds.
const (
	second = 1_000_000_000

	retryAfter     = 1 * second   // from one HELLO to the next, and from one answer to a HELLO to the next to the same
	giveUpAfter    = 20 * second  // how long HELLOs are sent when nobody wants the session any more
	dropAfter      = 3 * second   // how long packets wait for a first session before they are dropped
	rekeyAfter     = 120 * second // the age at which the initiator of a session wants a new one when it sends
	rekeyLate      = 135 * second // and its responder, when the initiator has not
	endAfter       = 180 * second // the age at which a session is good for nothing
	linger         = 30 * second  // how long a session that was replaced is received on after it was last heard of
	lostAfter      = 10 * second  // how long a peer that is sent to may be silent before a new session is wanted
	keepaliveAfter = 4 * second   // how long a peer that has sent goes without an answer
	offerFor       = 10 * second  // the age at which a responder's key that was offered is not offered again
	offerEnd       = 20 * second  // and at which it is no longer accepted
	maxTries       = 16           // HELLOs with one ephemeral key
	never          = 1<<63 - 1
)

// A verdict is what has become of a datagram.
type verdict int

const (
	verdictPacket    verdict = iota // a packet of the peer's, or an empty one
	verdictHandshake                // a message of a handshake that is in order
	verdictMalformed                // of no known form
	verdictUnknown                  // for a session, or in answer to a HELLO, that there is not
	verdictForged                   // not authentic
	verdictReplayed                 // authentic, and seen before
)

// A message is a datagram of a handshake that is to be sent.
type message struct {
	to  netip.AddrPort
	len int
	buf [confirmLen]byte
}

func (m *message) bytes() []byte { return m.buf[:m.len] }

// A machine is one side of the tunnel's protocol: it is told what happens and when, and says what is to be sent and until when it may be left
// alone. Times are in nanoseconds of any monotonic clock; one that goes back is taken to stand.
//
//	input(now, b, src)     a message of a handshake has arrived
//	find(now, b)           the session of a data datagram; open it, and then tell
//	opened(now, s, …)      what has arrived on a session
//	sender(now)            the session to send on, or nil; a new one is begun where it is time to; seal, and then tell
//	sent(now, s, data)     that something was sent
//	poll(now)              does what is due
//	deadline()             when poll is to be called next
//
// After each of them out holds the messages to be sent, and empty, if it is not nil, the session on which an empty packet is to be sent.
type machine struct {
	secret secret
	random func([]byte)
	now    int64

	home netip.AddrPort // the peer as configured; invalid: whoever proves the key
	peer netip.AddrPort // where it was heard of last

	cur   *session // the one to send on
	prev  *session // the one before it, for what is still under way
	next  *session // one that this side has initiated and of which the other has not been heard yet, or lost to cur
	order int

	// The initiator.
	want       bool // a session is to be made
	wanted     int64
	retryAt    int64
	lastHello  int64
	hello      *ecdh.PrivateKey
	helloTries int
	helloT     transcript // its own half

	// The responder: one key and name, until a session has been made of it.
	offer    *ecdh.PrivateKey
	offered  int64
	offerT   transcript
	answered [64][4]answer

	waitSince  int64 // since when packets wait for a first session
	waiting    bool
	unanswered int64 // when the first data was sent on cur after which nothing was heard on it
	owed       int64 // when data was received after which nothing was sent

	silent     bool // unanswered has a meaning
	owing      bool // owed has
	out        []message
	empty      *session
	handshakes uint64
	roams      uint64

	// For the status: see status.go.
	upSince int64  // since when there has been a current session
	shook   int64  // when a session was last agreed on
	heard   int64  // when anything that proves the key, and is no replay, was last received
	asked   int    // HELLOs since the last session was agreed on
	askedAt int64  // when the first of these was sent
	forged  uint64 // messages of handshakes since then that were not made with the key,
	strange uint64 // and those of no known form
}

// A answer remembers a HELLO that was answered, by its code, and where to.
type answer struct {
	code uint64
	src  netip.AddrPort
	at   int64
}

// longAgo is before any time of a machine.
const longAgo = -1 << 62

func newMachine(psk []byte, peer netip.AddrPort, random func([]byte)) (*machine, error) {
	m := &machine{home: peer, peer: peer, random: random, out: make([]message, 0, 4)}
	for i := range m.answered {
		for j := range m.answered[i] {
			m.answered[i][j].at = longAgo
		}
	}
	m.lastHello = longAgo
	m.shook, m.heard, m.askedAt = longAgo, longAgo, longAgo
	return m, m.secret.init(psk)
}

// advance brings the machine's time forward and lets go of what has ended.
func (m *machine) advance(now int64) {
	m.now = max(m.now, now)
	if m.cur != nil && m.age(m.cur) >= endAfter {
		m.setCurrent(nil)
	}
	if m.prev != nil && (m.age(m.prev) >= endAfter || m.now-m.prev.replaced >= linger) {
		m.prev = nil
	}
	if m.next != nil && m.age(m.next) >= endAfter {
		m.next = nil
	}
	if m.offer != nil && m.now-m.offered >= offerEnd {
		m.offer = nil
	}
}

func (m *machine) age(s *session) int64 { return m.now - s.created }

// setCurrent makes s the session to send on, and cur the previous one.
func (m *machine) setCurrent(s *session) {
	if m.cur != nil && m.age(m.cur) < endAfter {
		m.prev = m.cur
		m.prev.replaced = m.now
	}
	if m.cur == nil {
		m.upSince = m.now
	}
	m.cur = s
	m.silent, m.owing = false, false
	if m.empty != s {
		m.empty = nil
	}
}

// newKey draws an ephemeral key and a name that no other session of this side has.
func (m *machine) newKey() (*ecdh.PrivateKey, sessionID) {
	var seed [keyLen]byte
	var id sessionID
	m.random(seed[:])
	for {
		m.random(id[:])
		if i := id.index(); m.sessionAt(i) == nil && (m.offer == nil || i != m.offerT.responder.index()) &&
			(m.hello == nil || i != m.helloT.initiator.index()) {
			break
		}
	}
	key, err := ecdh.X25519().NewPrivateKey(seed[:])
	if err != nil {
		panic("udptunnel: " + err.Error()) // any 32 bytes are a key
	}
	clear(seed[:])
	return key, id
}

// message appends a message to out, and returns its bytes.
func (m *machine) message(kind byte, n int, to netip.AddrPort) []byte {
	m.out = append(m.out, message{to: to, len: n})
	b := m.out[len(m.out)-1].buf[:n]
	b[0], b[1] = kind, version
	return b
}

// demand says that a session is wanted; HELLOs are sent from now on.
func (m *machine) demand() {
	m.wanted = m.now
	if m.want {
		return
	}
	m.want = true
	m.retryAt = max(m.now, m.lastHello+retryAfter)
	m.retry()
}

// satisfied ends the initiator's work: there is a session of which both sides know.
func (m *machine) satisfied() {
	m.want = false
	m.hello = nil
}

// retry sends a HELLO if one is due.
func (m *machine) retry() {
	if !m.want || m.now < m.retryAt {
		return
	}
	if m.now-m.wanted >= giveUpAfter {
		m.satisfied()
		m.waiting, m.silent = false, false // the next packet waits, or is waited for, as if it were the first
		return
	}
	m.retryAt = m.now + retryAfter
	to := m.peer
	if m.helloTries%2 == 1 && m.home.IsValid() {
		to = m.home // it may have been restarted where it was first
	}
	if !to.IsValid() {
		return
	}
	if m.hello == nil || m.helloTries >= maxTries {
		m.hello = nil
		m.hello, m.helloT.initiator = m.newKey()
		m.helloTries = 0
		copy(m.helloT.initKey[:], m.hello.PublicKey().Bytes())
	}
	m.helloTries++
	m.lastHello = m.now
	if m.asked++; m.asked == 1 {
		m.askedAt = m.now
	}
	b := m.message(kindHello, helloLen, to)
	copy(b[4:], m.helloT.initiator[:])
	m.random(b[12:20])
	copy(b[20:], m.helloT.initKey[:])
	copy(b[60:], m.secret.code("hello", b[:60]))
}

// input takes a message of a handshake that has come from src.
func (m *machine) input(now int64, b []byte, src netip.AddrPort) verdict {
	m.advance(now)
	v := m.inputMessage(b, src)
	m.suspect(v)
	return v
}

func (m *machine) inputMessage(b []byte, src netip.AddrPort) verdict {
	if len(b) < 4 || b[1] != version || b[2] != 0 || b[3] != 0 {
		return verdictMalformed
	}
	switch {
	case b[0] == kindHello && len(b) == helloLen:
		return m.inputHello(b, src)
	case b[0] == kindReply && len(b) == replyLen:
		return m.inputReply(b, src)
	case b[0] == kindConfirm && len(b) == confirmLen:
		return m.inputConfirm(b, src)
	}
	return verdictMalformed
}

// inputHello answers a HELLO, from what does not depend on it, and remembers no more than that it did.
func (m *machine) inputHello(b []byte, src netip.AddrPort) verdict {
	if m.hello != nil && bytes.Equal(b[4:12], m.helloT.initiator[:]) {
		return verdictReplayed // somebody holds up a mirror
	}
	if subtle.ConstantTimeCompare(m.secret.code("hello", b[:60]), b[60:]) == 0 {
		return verdictForged
	}
	if !m.mayAnswer(binary.LittleEndian.Uint64(b[60:]), src) {
		return verdictReplayed
	}
	if m.offer == nil || m.now-m.offered >= offerFor {
		m.offer = nil
		m.offer, m.offerT.responder = m.newKey()
		m.offered = m.now
		copy(m.offerT.respKey[:], m.offer.PublicKey().Bytes())
	}
	t := m.offerT
	copy(t.initiator[:], b[4:])
	copy(t.nonce[:], b[12:])
	copy(t.initKey[:], b[20:])
	r := m.message(kindReply, replyLen, src)
	copy(r[4:20], b[4:])
	copy(r[20:], t.responder[:])
	copy(r[28:], t.respKey[:])
	copy(r[60:], m.secret.transcriptCode("reply", &t, nil))
	return verdictHandshake
}

// mayAnswer reports whether a HELLO with a code has not been answered to the same address within a second. The table is small, and the oldest of a row
// gives way: it bounds the work that replays cause, and may not keep a HELLO that is new from its answer, nor one that a copy from elsewhere has
// overtaken.
func (m *machine) mayAnswer(code uint64, src netip.AddrPort) bool {
	row := &m.answered[code%uint64(len(m.answered))]
	oldest := &row[0]
	for i := range row {
		a := &row[i]
		if a.code == code && a.src == src && m.now-a.at < retryAfter {
			return false
		}
		if a.at < oldest.at {
			oldest = a
		}
	}
	*oldest = answer{code: code, src: src, at: m.now}
	return true
}

// inputReply makes a session of the answer to the HELLO that is under way, and confirms it.
func (m *machine) inputReply(b []byte, src netip.AddrPort) verdict {
	if m.hello == nil || !bytes.Equal(b[4:12], m.helloT.initiator[:]) {
		return verdictUnknown
	}
	t := m.helloT
	copy(t.nonce[:], b[12:])
	copy(t.responder[:], b[20:])
	copy(t.respKey[:], b[28:])
	if subtle.ConstantTimeCompare(m.secret.transcriptCode("reply", &t, nil), b[60:]) == 0 {
		return verdictForged
	}
	s := m.secret.newSession(&t, m.hello, true)
	if s == nil {
		return verdictForged
	}
	m.hello = nil
	m.heard = m.now
	m.begin(s)
	m.next = s
	c := m.message(kindConfirm, confirmLen, m.peer)
	copy(c[4:], t.responder[:])
	copy(c[12:], t.initiator[:])
	copy(c[20:], t.nonce[:])
	copy(c[28:], t.initKey[:])
	s.send.Seal(c[:60], s.sendNonce[:], nil, c[:60]) // counter 0
	copy(c[76:], m.secret.transcriptCode("confirm", &t, c[60:76]))
	// Of the two addresses that were asked the other may be the right one, and what says so may be a copy; a third may be anybody's.
	if src == m.home && m.home != m.peer {
		m.out = append(m.out, m.out[len(m.out)-1])
		m.out[len(m.out)-1].to = m.home
	}
	if m.cur == nil {
		m.waiting = false
	}
	return verdictHandshake
}

// begin enters a new session.
func (m *machine) begin(s *session) {
	m.order++
	s.order, s.created = m.order, m.now
	m.handshakes++
}

// inputConfirm begins a session as its responder. What it takes to make one is done once the initiator has shown that it has the key, and that it
// has seen the answer: the name in it is good for one session.
func (m *machine) inputConfirm(b []byte, src netip.AddrPort) verdict {
	if m.offer == nil || !bytes.Equal(b[4:12], m.offerT.responder[:]) {
		return verdictUnknown
	}
	t := m.offerT
	copy(t.initiator[:], b[12:])
	copy(t.nonce[:], b[20:])
	copy(t.initKey[:], b[28:])
	if subtle.ConstantTimeCompare(m.secret.transcriptCode("confirm", &t, b[60:76]), b[76:]) == 0 {
		return verdictForged
	}
	s := m.secret.newSession(&t, m.offer, false)
	if s == nil {
		return verdictForged
	}
	var none [0]byte
	if _, err := s.recv.Open(none[:0], s.recvNonce[:], b[60:76], b[:60]); err != nil {
		return verdictForged
	}
	m.offer = nil
	s.confirmed = true
	m.begin(s)
	m.agreed()
	m.setCurrent(s)
	m.satisfied()
	m.waiting = false
	m.empty = s // tells the initiator that it may use the session
	m.roam(src)
	return verdictHandshake
}

// sessionAt returns the session that this side has given a name, or nil.
func (m *machine) sessionAt(index uint32) *session {
	for _, s := range [...]*session{m.cur, m.next, m.prev} {
		if s != nil && s.local.index() == index {
			return s
		}
	}
	return nil
}

// find returns the session that is to open a data datagram, or says why there is none.
func (m *machine) find(now int64, b []byte) (*session, verdict) {
	m.advance(now)
	index, ok := parseData(b)
	if !ok {
		return nil, verdictMalformed
	}
	s := m.sessionAt(index)
	if s == nil {
		return nil, verdictUnknown
	}
	return s, verdictPacket
}

// opened takes note that packets have been received on a session, with data in them or all empty. src is where the last one came from, and newest
// says that no later one had come before.
func (m *machine) opened(now int64, s *session, data, newest bool, src netip.AddrPort) {
	m.advance(now)
	m.heard = m.now
	switch s {
	case m.cur:
		m.silent = false
	case m.next:
		m.confirm()
	case m.prev:
		s.replaced = m.now
	default:
		return // it has ended meanwhile
	}
	s.heard = true
	if data && !m.owing {
		m.owing, m.owed = true, m.now
	}
	// A CONFIRM that a copy from elsewhere has overtaken may have moved the peer; as long as no packet has followed it, those on the session before
	// it move him back.
	if newest && (s != m.prev || m.cur != nil && !m.cur.heard) {
		m.roam(src)
	}
}

// confirm takes note that the other side has the session that this one has initiated, and sends on it from now on. Where both sides have initiated
// one at the same time, each finds that of the other made before its own was confirmed: then both take that with the greater name.
func (m *machine) confirm() {
	s := m.next
	if s.confirmed {
		return
	}
	s.confirmed = true
	m.agreed()
	m.satisfied()
	if m.cur != nil && m.cur.order > s.order && bytes.Compare(s.tie[:], m.cur.tie[:]) < 0 {
		return
	}
	m.next = nil
	m.setCurrent(s)
	m.empty = s // so that the responder hears of it even if there is nothing to send: a packet that is late on the session before may have moved him
}

// roam takes src for the peer's address.
func (m *machine) roam(src netip.AddrPort) {
	if m.peer == src {
		return
	}
	if m.peer.IsValid() {
		m.roams++
	}
	m.peer = src
}

// sender returns the session to send data on, or nil. It begins a new one where there is none, where it is old and where the peer does not answer.
func (m *machine) sender(now int64) *session {
	m.advance(now)
	s := m.usable()
	switch {
	case s == nil:
		m.wait()
		m.demand()
	case !s.confirmed, s.counter >= softLimit, s.initiated && m.age(s) >= rekeyAfter, m.age(s) >= rekeyLate, m.lost():
		m.demand()
	}
	if s != nil && s.counter >= hardLimit {
		return nil
	}
	return s
}

// usable returns the session to send on. As long as the peer may have none, one that is not confirmed is as good as any.
func (m *machine) usable() *session {
	if m.cur != nil {
		return m.cur
	}
	return m.next
}

// wait takes note that packets wait for a session.
func (m *machine) wait() {
	if !m.waiting {
		m.waiting, m.waitSince = true, m.now
	}
}

// dropping reports whether packets have waited for a session for too long.
func (m *machine) dropping() bool { return m.waiting && m.now-m.waitSince >= dropAfter }

func (m *machine) lost() bool { return m.silent && m.now-m.unanswered >= lostAfter }

// sent takes note that something was sent on a session, with data or empty.
func (m *machine) sent(now int64, s *session, data bool) {
	m.advance(now)
	if s == m.empty {
		m.empty = nil
	}
	if s != m.usable() {
		return
	}
	m.owing = false
	if data && s == m.cur && !m.silent {
		m.silent, m.unanswered = true, m.now
	}
	if data && m.want {
		m.wanted = m.now
	}
}

// poll does what is due.
func (m *machine) poll(now int64) {
	m.advance(now)
	m.retry()
	if m.lost() && !m.want {
		m.silent = false // until more data is sent
		m.demand()
	}
	if m.owing && m.now-m.owed >= keepaliveAfter {
		m.owing = false
		m.empty = m.usable()
	}
}

// deadline returns when poll has something to do, or never.
func (m *machine) deadline() int64 {
	d := int64(never)
	if m.want {
		d = min(d, m.retryAt)
	} else if m.silent {
		d = min(d, m.unanswered+lostAfter)
	}
	if m.owing {
		d = min(d, m.owed+keepaliveAfter)
	}
	if m.waiting && !m.dropping() {
		d = min(d, m.waitSince+dropAfter)
	}
	for _, s := range [...]*session{m.cur, m.next, m.prev} {
		if s != nil {
			d = min(d, s.created+endAfter)
		}
	}
	if m.prev != nil {
		d = min(d, m.prev.replaced+linger)
	}
	if m.offer != nil {
		d = min(d, m.offered+offerEnd)
	}
	return d
}
