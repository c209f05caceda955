package udptunnel

import (
	"crypto/ecdh"
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
