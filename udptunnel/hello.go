package udptunnel

import (
	"bytes"
	"crypto/ecdh"
	"crypto/subtle"
	"encoding/binary"
	"net/netip"
)

// The messages of a handshake: who answers which, and what becomes of it.

// A message is a datagram of a handshake that is to be sent.
type message struct {
	to  netip.AddrPort
	len int
	buf [confirmLen]byte
}

func (m *message) bytes() []byte { return m.buf[:m.len] }

// An answer remembers a HELLO that was answered, by its code, and where to.
type answer struct {
	code uint64
	src  netip.AddrPort
	at   int64
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
