package udptunnel

import (
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"

	"golang.org/x/crypto/chacha20poly1305"
	"golang.zx2c4.com/wireguard/replay"
)

// The datagrams of the tunnel, and the keys that protect them. docs/udp-tunnel.md is the specification; this file has its formats and its key
// schedule, machine.go and hello.go its rules. Neither knows a clock, a socket, a goroutine or a lock.

// label is a part of everything that is hashed: no key or code of this protocol and version is one of another.
const label = "bsdnet udp tunnel 1 "

// version is the second byte of the messages of a handshake.
const version = 1

// The first byte of a datagram.
const (
	kindHello   = 1 // the initiator asks
	kindReply   = 2 // the responder answers, and remembers nothing
	kindConfirm = 3 // the initiator shows that it is there, and the session begins
	kindData    = 4 // a packet
)

// Lengths in bytes.
const (
	idLen   = 8
	keyLen  = 32 // of X25519 and of ChaCha20-Poly1305
	macLen  = 16
	tagLen  = chacha20poly1305.Overhead
	hdrLen  = 16              // of a data datagram
	sealLen = hdrLen + tagLen // what a data datagram adds to its packet

	helloLen   = 4 + 2*idLen + keyLen + padLen + macLen
	replyLen   = 4 + 3*idLen + keyLen + macLen
	confirmLen = 4 + 3*idLen + keyLen + macLen + tagLen
	padLen     = 8 // makes a HELLO as long as a REPLY, so that an answer is never larger than what asked for it
)

// softLimit is how many packets a session carries before it is to be replaced, hardLimit how many it carries at all. The counter, which is the
// nonce, never comes near its end.
const (
	softLimit = 1 << 60
	hardLimit = 1 << 61
)

// A sessionID names a session for one of its sides, which has drawn it at random. Its first four bytes are in every data datagram to that side.
type sessionID [idLen]byte

func (id sessionID) index() uint32 { return binary.LittleEndian.Uint32(id[:]) }

// A transcript is all that the two sides have told each other before the session begins.
type transcript struct {
	initiator sessionID
	nonce     sessionID // of the HELLO that was answered
	initKey   [keyLen]byte
	responder sessionID
	respKey   [keyLen]byte
}

const transcriptLen = 3*idLen + 2*keyLen

// append adds the transcript's bytes, which are always as many, to b.
func (t *transcript) append(b []byte) []byte {
	b = append(b, t.initiator[:]...)
	b = append(b, t.nonce[:]...)
	b = append(b, t.initKey[:]...)
	b = append(b, t.responder[:]...)
	return append(b, t.respKey[:]...)
}

// A secret is the pre-shared key, and the key of the handshake's codes that follows from it.
type secret struct {
	psk [keyLen]byte
	mac hash.Hash // HMAC-SHA256
	sum [sha256.Size]byte
	buf [64 + transcriptLen]byte
}

func (k *secret) init(psk []byte) error {
	copy(k.psk[:], psk)
	key, err := hkdf.Key(sha256.New, psk, []byte(label), label+"handshake", sha256.Size)
	if err != nil {
		return err
	}
	k.mac = hmac.New(sha256.New, key)
	clear(key)
	return nil
}

// code returns the message authentication code of what a message says, for a kind of message. It is valid until the next call.
func (k *secret) code(kind string, said []byte) []byte {
	k.mac.Reset()
	b := append(k.buf[:0], label...)
	k.mac.Write(append(b, kind...))
	k.mac.Write(said)
	return k.mac.Sum(k.sum[:0])[:macLen]
}

// transcriptCode is code of a transcript and what may come behind it.
func (k *secret) transcriptCode(kind string, t *transcript, more []byte) []byte {
	k.mac.Reset()
	b := append(k.buf[:0], label...)
	b = append(b, kind...)
	k.mac.Write(t.append(b))
	k.mac.Write(more)
	return k.mac.Sum(k.sum[:0])[:macLen]
}

// A session is a pair of keys and what has been done with them. Its two directions may be used at the same time, each by one at a time.
type session struct {
	local, remote sessionID // whose first bytes are in what is received, and in what is sent
	initiated     bool      // by this side
	order         int       // among this side's sessions
	tie           sessionID // the initiator's, which decides between two sessions of the same moment

	// What the machine knows of it.
	created   int64 // ns
	replaced  int64 // when it became the previous one, or was last heard of as that
	confirmed bool  // the other side is known to have it
	heard     bool  // a packet has been received on it

	// Receiving.
	recv      cipher.AEAD
	recvNonce [chacha20poly1305.NonceSize]byte
	window    replay.Filter
	newest    uint64 // the highest counter received

	// Sending.
	send      cipher.AEAD
	sendNonce [chacha20poly1305.NonceSize]byte
	counter   uint64 // the next
}

// newSession makes the session that a transcript and the secret of the two ephemeral keys belong to.
func (k *secret) newSession(t *transcript, own *ecdh.PrivateKey, initiator bool) *session {
	theirs := &t.initKey
	if initiator {
		theirs = &t.respKey
	}
	pub, err := ecdh.X25519().NewPublicKey(theirs[:])
	if err != nil {
		return nil
	}
	shared, err := own.ECDH(pub)
	if err != nil {
		return nil // a point of low order
	}
	toResponder, toInitiator := k.sessionKeys(t, shared)
	defer clear(toResponder)
	defer clear(toInitiator)
	s := &session{local: t.responder, remote: t.initiator, tie: t.initiator, counter: 1} // 0 is that of the CONFIRM
	sendKey, recvKey := toInitiator, toResponder
	if initiator {
		s.local, s.remote = t.initiator, t.responder
		s.initiated = true
		sendKey, recvKey = toResponder, toInitiator
	}
	s.send, err = chacha20poly1305.New(sendKey)
	if err != nil {
		return nil
	}
	s.recv, err = chacha20poly1305.New(recvKey)
	if err != nil {
		return nil
	}
	s.window.ValidateCounter(0, hardLimit)
	return s
}

// sessionKeys returns the keys of a session's directions, and clears the shared secret that they come from.
func (k *secret) sessionKeys(t *transcript, shared []byte) (toResponder, toInitiator []byte) {
	salt := sha256.Sum256(t.append([]byte(label + "transcript")))
	secret := append(append(make([]byte, 0, 2*keyLen), k.psk[:]...), shared...)
	keys, err := hkdf.Key(sha256.New, secret, salt[:], label+"session", 2*keyLen)
	clear(secret)
	clear(shared)
	if err != nil {
		panic("udptunnel: " + err.Error()) // the lengths are constant and allowed
	}
	return keys[:keyLen], keys[keyLen:]
}

// seal makes a data datagram of the packet that stands in b behind the room for a header, and returns it: b must have the capacity for the tag. It
// returns nil when the session has sent all that it may.
func (s *session) seal(b []byte) []byte {
	if s.counter >= hardLimit {
		return nil
	}
	binary.LittleEndian.PutUint32(b, kindData)
	binary.LittleEndian.PutUint32(b[4:], s.remote.index())
	binary.LittleEndian.PutUint64(b[8:], s.counter)
	binary.LittleEndian.PutUint64(s.sendNonce[4:], s.counter)
	s.counter++
	return s.send.Seal(b[:hdrLen], s.sendNonce[:], b[hdrLen:], b[:hdrLen])
}

// open puts the packet of a data datagram for this session, whose header parseData has found to be right, into dst, which has room for it, and
// returns its length. newest reports whether no later one has been received.
func (s *session) open(dst, b []byte) (n int, newest bool, v verdict) {
	counter := binary.LittleEndian.Uint64(b[8:])
	if counter == 0 || counter >= hardLimit {
		return 0, false, verdictMalformed
	}
	binary.LittleEndian.PutUint64(s.recvNonce[4:], counter)
	p, err := s.recv.Open(dst[:0], s.recvNonce[:], b[hdrLen:], b[:hdrLen])
	if err != nil {
		return 0, false, verdictForged
	}
	if !s.window.ValidateCounter(counter, hardLimit) {
		return 0, false, verdictReplayed
	}
	newest = counter > s.newest
	if newest {
		s.newest = counter
	}
	return len(p), newest, verdictPacket
}

// parseData returns the receiver's name for the session of a data datagram, or reports that it is none.
func parseData(b []byte) (index uint32, ok bool) {
	if len(b) < sealLen || binary.LittleEndian.Uint32(b) != kindData {
		return 0, false
	}
	return binary.LittleEndian.Uint32(b[4:]), true
}
