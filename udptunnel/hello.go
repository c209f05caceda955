package udptunnel

import (
	"bytes"
	"crypto/ecdh"
	"crypto/subtle"
	"encoding/binary"
)

// The messages of a handshake: how each is made, who answers it, and which sessions follow.
// Sentences in quotation marks are those of docs/udp-tunnel.md.

// A message is a datagram of a handshake that is to be sent.
type message struct {
	to  endpoint
	len int
	buf [confirmLen]byte
}

func (m *message) bytes() []byte { return m.buf[:m.len] }

// An answer records a HELLO that was answered, by its code, and the address that the answer went
// to.
type answer struct {
	code uint64
	src  endpoint
	at   int64
}

// newKey draws an ephemeral key, and a name that no other session of this end has.
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
func (m *machine) message(kind byte, n int, to endpoint) []byte {
	m.out = append(m.out, message{to: to, len: n})
	b := m.out[len(m.out)-1].buf[:n]
	b[0], b[1] = kind, version
	return b
}

// demand asks for a session. HELLOs are sent from now on.
func (m *machine) demand() {
	m.wanted = m.now
	if m.want {
		return
	}
	m.want = true
	m.retryAt = max(m.now, m.lastHello+retryAfter)
	m.retry()
}

// satisfied stops the initiator: there is a session that both ends know of.
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
		// "It stops ... when the stack has sent no packet for 20 s." The next packet is then
		// treated as the first.
		m.satisfied()
		m.waiting, m.silent = false, false
		return
	}
	m.retryAt = m.now + retryAfter
	to := m.peer
	if m.helloTries%2 == 1 && m.home.IsValid() {
		// "If the peer has moved away from the configured address, every second HELLO goes to the
		// configured address, because the peer may have been restarted there."
		to = m.home
	}
	if !to.IsValid() {
		return
	}
	// "It keeps I and E_i for 16 HELLOs, so that a REPLY that takes longer than a second is still
	// valid."
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
	m.random(b[12:20]) // "each with a new N"
	copy(b[20:], m.helloT.initKey[:])
	copy(b[60:], m.secret.code("hello", b[:60]))
}

// input processes a message of a handshake that has arrived from src.
func (m *machine) input(now int64, b []byte, src endpoint) verdict {
	m.advance(now)
	v := m.inputMessage(b, src)
	m.suspect(v)
	return v
}

func (m *machine) inputMessage(b []byte, src endpoint) verdict {
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

// inputHello answers a HELLO with a REPLY. It stores nothing about the initiator, except in the
// table of mayAnswer.
func (m *machine) inputHello(b []byte, src endpoint) verdict {
	if m.hello != nil && bytes.Equal(b[4:12], m.helloT.initiator[:]) {
		// "An end drops a HELLO that carries the I of its own current HELLO, because that is its
		// own HELLO, reflected."
		return verdictReplayed
	}
	if subtle.ConstantTimeCompare(m.secret.code("hello", b[:60]), b[60:]) == 0 {
		return verdictForged
	}
	if !m.mayAnswer(binary.LittleEndian.Uint64(b[60:]), src) {
		return verdictReplayed
	}
	// "An offer that is 10 s old is replaced at the next HELLO."
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

// mayAnswer reports whether a HELLO with a code may be answered: "It does not answer the same HELLO
// from the same address again within a second." The table is small, and a new entry replaces the
// oldest of its row. So the table bounds the work that replayed HELLOs cause, but never prevents
// the answer to a new HELLO, or to one that a copy from another address has overtaken.
func (m *machine) mayAnswer(code uint64, src endpoint) bool {
	row := &m.answered[code%uint64(len(m.answered))]
	oldest := &row[0]
	for i := range row {
		a := &row[i]
		if a.code == code && m.now-a.at < retryAfter && a.src.is(src) {
			return false
		}
		if a.at < oldest.at {
			oldest = a
		}
	}
	*oldest = answer{code: code, src: src, at: m.now}
	return true
}

// inputReply begins a session with the REPLY to the current HELLO, and sends the CONFIRM.
func (m *machine) inputReply(b []byte, src endpoint) verdict {
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
	m.hello = nil // forward secrecy: the ephemeral key is dropped when the session begins
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
	// "If the REPLY came from the configured address, it sends the CONFIRM to that address as
	// well": the REPLY may be a copy, so its source is no proof, and a third address may be
	// anyone's.
	if src.is(m.home) && !m.home.is(m.peer) {
		m.out = append(m.out, m.out[len(m.out)-1])
		m.out[len(m.out)-1].to = m.home
	}
	if m.cur == nil {
		m.waiting = false // "If it has no other session, it sends on the new session at once."
	}
	return verdictHandshake
}

// begin records the beginning of a session.
func (m *machine) begin(s *session) {
	m.order++
	s.order, s.created = m.order, m.now
	m.handshakes++
}

// inputConfirm begins a session as its responder: "If a CONFIRM names the offer's R, the responder
// checks the code first, and computes keys only if the code is right."
func (m *machine) inputConfirm(b []byte, src endpoint) verdict {
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
	m.offer = nil // "So no CONFIRM succeeds twice."
	s.confirmed = true
	m.begin(s)
	m.agreed()
	m.setCurrent(s)
	m.satisfied()
	m.waiting = false
	m.empty = s // "so that the initiator may use it"
	m.roam(src)
	return verdictHandshake
}

// confirm is called when a packet has arrived on the session that this end has initiated. It makes
// that session the current one, with one exception: "If in the meantime a session that the other
// end initiated has begun, both ends have initiated at once. Then the session with the greater I
// ... becomes the current one at both ends."
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
	// "The responder learns the initiator's address from it, which a packet that was delayed on the
	// previous session may have changed."
	m.empty = s
}
