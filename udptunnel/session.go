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

// The datagrams of the tunnel and the keys that protect them. docs/udp-tunnel.md is the
// specification. This file implements its formats and its key schedule; machine.go and hello.go
// implement its rules. None of the three uses a clock, a socket, a goroutine or a lock.

// label is part of everything that is hashed, so that no key or code of this protocol and version
// equals one of another.
const label = "bsdnet udp tunnel 1 "

// version is the second byte of the messages of a handshake.
const version = 1

// The first byte of a datagram.
const (
	kindHello   = 1 // the initiator asks for a session
	kindReply   = 2 // the responder answers, and keeps no state
	kindConfirm = 3 // the initiator shows that it has the keys, and the session begins
	kindData    = 4 // a packet
)

// Lengths in bytes.
const (
	idLen   = 8
	keyLen  = 32 // of X25519 and of ChaCha20-Poly1305
	macLen  = 16
	tagLen  = chacha20poly1305.Overhead
	hdrLen  = 16              // the header of a data datagram
	sealLen = hdrLen + tagLen // what a data datagram adds to its packet

	helloLen   = 4 + 2*idLen + keyLen + padLen + macLen
	replyLen   = 4 + 3*idLen + keyLen + macLen
	confirmLen = 4 + 3*idLen + keyLen + macLen + tagLen
	padLen     = 8 // makes a HELLO as long as a REPLY, so that forged HELLOs are not amplified
)

// softLimit is how many packets a session carries before it is replaced. hardLimit is how many it
// carries at most, so the counter, which is the nonce, never overflows.
const (
	softLimit = 1 << 60
	hardLimit = 1 << 61
)

// A sessionID is the name of a session at one of its ends, which has drawn it at random. Its first
// four bytes are in every data datagram to that end.
type sessionID [idLen]byte

func (id sessionID) index() uint32 { return binary.LittleEndian.Uint32(id[:]) }

// A transcript is everything that the two ends have told each other before the session begins.
type transcript struct {
	initiator sessionID
	nonce     sessionID // N of the HELLO that was answered
	initKey   [keyLen]byte
	responder sessionID
	respKey   [keyLen]byte
}

const transcriptLen = 3*idLen + 2*keyLen

// append appends the transcript's bytes, whose number is constant, to b.
func (t *transcript) append(b []byte) []byte {
	b = append(b, t.initiator[:]...)
	b = append(b, t.nonce[:]...)
	b = append(b, t.initKey[:]...)
	b = append(b, t.responder[:]...)
	return append(b, t.respKey[:]...)
}

// A secret is the pre-shared key and the key K_mac, which is derived from it.
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

// code returns the message authentication code of said, the content of a message, for a kind of
// message. It is valid until the next call.
func (k *secret) code(kind string, said []byte) []byte {
	k.mac.Reset()
	b := append(k.buf[:0], label...)
	k.mac.Write(append(b, kind...))
	k.mac.Write(said)
	return k.mac.Sum(k.sum[:0])[:macLen]
}

// transcriptCode returns the message authentication code of a transcript, followed by more.
func (k *secret) transcriptCode(kind string, t *transcript, more []byte) []byte {
	k.mac.Reset()
	b := append(k.buf[:0], label...)
	b = append(b, kind...)
	k.mac.Write(t.append(b))
	k.mac.Write(more)
	return k.mac.Sum(k.sum[:0])[:macLen]
}

// A session is a pair of keys and the state of their use. The two directions may be used at the
// same time, each by one goroutine.
type session struct {
	local, remote sessionID // this end's name for the session, and the other end's
	initiated     bool      // this end is the initiator
	order         int       // counts this end's sessions
	tie           sessionID // I, which decides if both ends initiate at once

	// What the machine knows about it.
	created   int64 // when it began, in nanoseconds
	replaced  int64 // when it became the previous session, or a packet last arrived on it after that
	confirmed bool  // the other end has it too
	heard     bool  // a packet has arrived on it

	// Receiving.
	recv      cipher.AEAD
	recvNonce [chacha20poly1305.NonceSize]byte
	window    replay.Filter
	newest    uint64 // the highest counter that has arrived

	// Sending.
	send      cipher.AEAD
	sendNonce [chacha20poly1305.NonceSize]byte
	counter   uint64 // of the next packet
}

// newSession makes the session of a transcript, from the secret and this end's ephemeral key. It
// returns nil if the other end's public key is invalid.
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
		return nil // a point of low order: "If S is all zero, there is no session."
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

// sessionKeys returns the keys of a session's two directions. It clears the shared secret from
// which they are derived.
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

// seal makes a data datagram. b holds room for the header, followed by the packet, and must have
// capacity for the tag. seal returns nil if the session may carry no more packets.
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

// open decrypts a data datagram of this session, whose header parseData has checked, into dst,
// which must have room for the packet, and returns the packet's length. newest reports that the
// counter is the highest so far.
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
	// The window is checked after the tag, so that a forged datagram cannot move it.
	if !s.window.ValidateCounter(counter, hardLimit) {
		return 0, false, verdictReplayed
	}
	newest = counter > s.newest
	if newest {
		s.newest = counter
	}
	return len(p), newest, verdictPacket
}

// parseData returns the receiver's name in a data datagram. It returns false if b is not a data
// datagram.
func parseData(b []byte) (index uint32, ok bool) {
	if len(b) < sealLen || binary.LittleEndian.Uint32(b) != kindData {
		return 0, false
	}
	return binary.LittleEndian.Uint32(b[4:]), true
}
