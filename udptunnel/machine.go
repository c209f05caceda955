package udptunnel

import "crypto/ecdh"

// Times of the protocol, in nanoseconds.
const (
	second = 1_000_000_000

	retryAfter     = 1 * second   // between two HELLOs, and between two answers to the same HELLO
	giveUpAfter    = 20 * second  // how long HELLOs are sent after the last packet
	dropAfter      = 3 * second   // how long packets wait for a session before they are dropped
	rekeyAfter     = 120 * second // the age at which the initiator of a session replaces it
	rekeyLate      = 135 * second // the age at which its responder does, if the initiator has not
	endAfter       = 180 * second // the age at which a session ends
	linger         = 30 * second  // how long the previous session is kept after its last packet
	lostAfter      = 10 * second  // how long the peer may be silent before it gets a HELLO
	keepaliveAfter = 4 * second   // how long data goes unanswered before an empty packet answers it
	offerFor       = 10 * second  // the age at which an offer is replaced
	offerEnd       = 20 * second  // the age at which an offer is discarded
	maxTries       = 16           // HELLOs with one ephemeral key
	never          = 1<<63 - 1
)

// A verdict says what became of a datagram.
type verdict int

const (
	verdictPacket    verdict = iota // a packet from the peer, or an empty packet
	verdictHandshake                // a valid message of a handshake
	verdictMalformed                // none of the protocol's forms
	verdictUnknown                  // refers to a session, an offer or a HELLO that does not exist
	verdictForged                   // not authentic
	verdictReplayed                 // authentic, and seen before
)

// A machine is one end of the tunnel's protocol, without clock or socket. Its caller tells it what
// happens and when, and the machine says which messages to send, and when it must be called next.
// Times are in nanoseconds of any monotonic clock. If the clock goes back, the machine's time
// stands still.
//
//	input(now, b, src)     a message of a handshake has arrived
//	find(now, b)           returns the session of a data datagram, for the caller to open it
//	opened(now, s, …)      says what has arrived on the session
//	sender(now)            returns the session to send on, for the caller to seal packets, or nil
//	sent(now, s, data)     says that something was sent on the session
//	poll(now)              does what is due
//	deadline()             returns when poll must be called next
//
// After each call, out holds the messages to be sent. If empty is not nil, an empty packet is to be
// sent on that session.
//
// Sentences in quotation marks, in the functions, are those of docs/udp-tunnel.md.
type machine struct {
	secret secret
	random func([]byte)
	now    int64

	home endpoint // the peer's configured address, or invalid
	peer endpoint // the peer's address; invalid if it is not known yet

	cur   *session // the current session, on which this end sends
	prev  *session // the previous one, for packets that are still under way
	next  *session // the latest that this end has initiated, if it is unconfirmed or has lost to cur
	order int

	// The initiator.
	want       bool  // HELLOs are to be sent
	wanted     int64 // when a packet last needed the session
	retryAt    int64
	lastHello  int64
	hello      *ecdh.PrivateKey
	helloTries int
	helloT     transcript // the initiator's half

	// The responder.
	offer    *ecdh.PrivateKey
	offered  int64
	offerT   transcript
	answered [64][4]answer

	waitSince  int64 // since when packets have waited for a session
	waiting    bool  // packets wait: waitSince is valid
	unanswered int64 // when data was first sent on cur since the last packet arrived on it
	owed       int64 // when data first arrived since something was last sent

	silent     bool // unanswered is valid
	owing      bool // owed is valid
	out        []message
	empty      *session
	handshakes uint64
	roams      uint64

	// For the status: see status.go.
	upSince int64  // since when there has been a current session
	shook   int64  // when the ends last agreed on a session
	heard   int64  // when a datagram last arrived that proves the key and is no replay
	asked   int    // HELLOs sent since shook
	askedAt int64  // when the first of these was sent
	forged  uint64 // messages of handshakes since shook that were not made with the key
	strange uint64 // malformed messages since shook
}

// longAgo is before any time of a machine.
const longAgo = -1 << 62

func newMachine(psk []byte, peer endpoint, random func([]byte)) (*machine, error) {
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

// advance moves the machine's time forward and drops the sessions and the offer that have ended.
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

// setCurrent makes s the current session, and the current session the previous one.
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

// sessionAt returns the session to which this end has given a name, or nil.
func (m *machine) sessionAt(index uint32) *session {
	for _, s := range [...]*session{m.cur, m.next, m.prev} {
		if s != nil && s.local.index() == index {
			return s
		}
	}
	return nil
}

// find returns the session that a data datagram belongs to, or a verdict that says why there is
// none.
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

// opened records that packets have arrived on a session. data says that not all of them were empty,
// src is the source of the last one, and newest says that it has the highest counter so far.
func (m *machine) opened(now int64, s *session, data, newest bool, src endpoint) {
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
		return // the session has ended meanwhile
	}
	s.heard = true
	if data && !m.owing {
		m.owing, m.owed = true, m.now
	}
	// "As long as nothing except its CONFIRM has arrived on the current session, such DATA on the
	// previous session counts as well": the CONFIRM may have been a copy from another address.
	if newest && (s != m.prev || m.cur != nil && !m.cur.heard) {
		m.roam(src)
	}
}

// roam makes src the peer's address.
func (m *machine) roam(src endpoint) {
	if m.peer.is(src) {
		return
	}
	if m.peer.IsValid() {
		m.roams++
	}
	m.peer = src
}

// sender returns the session to send data on, or nil. It asks for a new session if there is none,
// if it is old, and if the peer does not answer.
func (m *machine) sender(now int64) *session {
	m.advance(now)
	s := m.usable()
	switch {
	case s == nil:
		m.wait()
		m.demand()
	case !s.confirmed, m.worn(s), m.lost():
		m.demand()
	}
	if s != nil && s.counter >= hardLimit {
		return nil // "after 2^61 it carries no more"
	}
	return s
}

// worn reports whether s is to be replaced. "When a packet is sent on a session that is 120 s old,
// if this end initiated it, or 135 s old in any case": if both ends acted at the same age, they
// would initiate at the same time. "When a packet is sent on a session that has carried 2^60
// packets."
func (m *machine) worn(s *session) bool {
	return s.initiated && m.age(s) >= rekeyAfter || m.age(s) >= rekeyLate || s.counter >= softLimit
}

// usable returns the session to send on, or nil. "While an older session is valid, it is used until
// the new one is confirmed." If there is no older one, the initiator sends on the unconfirmed
// session.
func (m *machine) usable() *session {
	if m.cur != nil {
		return m.cur
	}
	return m.next
}

// wait records that packets wait for a session.
func (m *machine) wait() {
	if !m.waiting {
		m.waiting, m.waitSince = true, m.now
	}
}

// dropping reports whether packets have waited too long: "After 3 s without a session they are
// dropped, and so are all later packets until there is a session."
func (m *machine) dropping() bool { return m.waiting && m.now-m.waitSince >= dropAfter }

// lost reports whether the peer does not answer: "when 10 s have passed since a packet was sent on
// the current session and nothing has arrived on it since".
func (m *machine) lost() bool { return m.silent && m.now-m.unanswered >= lostAfter }

// sent records that a packet was sent on a session; data says that it was not empty.
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
	// "when data has arrived and nothing was sent for 4 s"
	if m.owing && m.now-m.owed >= keepaliveAfter {
		m.owing = false
		m.empty = m.usable()
	}
}

// deadline returns when poll has work to do, or never.
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
