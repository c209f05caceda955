package link

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
// schedule, udp_hello.go its rules. Neither knows a clock, a socket, a goroutine or a lock.

// udpLabel is a part of everything that is hashed: no key or code of this protocol and version is one of another.
const udpLabel = "bsdnet udp tunnel 1 "

// udpVersion is the second byte of the messages of a handshake.
const udpVersion = 1

// The first byte of a datagram.
const (
	udpHello   = 1 // the initiator asks
	udpReply   = 2 // the responder answers, and remembers nothing
	udpConfirm = 3 // the initiator shows that it is there, and the session begins
	udpData    = 4 // a packet
)

// Lengths in bytes.
const (
	udpIDLen   = 8
	udpKeyLen  = 32 // of X25519 and of ChaCha20-Poly1305
	udpMACLen  = 16
	udpTagLen  = chacha20poly1305.Overhead
	udpHdrLen  = 16                    // of a data datagram
	udpSealLen = udpHdrLen + udpTagLen // what a data datagram adds to its packet

	udpHelloLen   = 4 + 2*udpIDLen + udpKeyLen + udpPadLen + udpMACLen
	udpReplyLen   = 4 + 3*udpIDLen + udpKeyLen + udpMACLen
	udpConfirmLen = 4 + 3*udpIDLen + udpKeyLen + udpMACLen + udpTagLen
	udpPadLen     = 8 // makes a HELLO as long as a REPLY, so that an answer is never larger than what asked for it
)

// udpSoftLimit is how many packets a session carries before it is to be replaced, udpHardLimit how many it carries at all. The counter, which is the
// nonce, never comes near its end.
const (
	udpSoftLimit = 1 << 60
	udpHardLimit = 1 << 61
)

// A udpID names a session for one of its sides, which has drawn it at random. Its first four bytes are in every data datagram to that side.
type udpID [udpIDLen]byte

func (id udpID) index() uint32 { return binary.LittleEndian.Uint32(id[:]) }

// A udpTranscript is all that the two sides have told each other before the session begins.
type udpTranscript struct {
	initiator udpID
	nonce     udpID // of the HELLO that was answered
	initKey   [udpKeyLen]byte
	responder udpID
	respKey   [udpKeyLen]byte
}

const udpTranscriptLen = 3*udpIDLen + 2*udpKeyLen

// append adds the transcript's bytes, which are always as many, to b.
func (t *udpTranscript) append(b []byte) []byte {
	b = append(b, t.initiator[:]...)
	b = append(b, t.nonce[:]...)
	b = append(b, t.initKey[:]...)
	b = append(b, t.responder[:]...)
	return append(b, t.respKey[:]...)
}

// A udpSecret is the pre-shared key, and the key of the handshake's codes that follows from it.
type udpSecret struct {
	psk [udpKeyLen]byte
	mac hash.Hash // HMAC-SHA256
	sum [sha256.Size]byte
	buf [64 + udpTranscriptLen]byte
}

func (k *udpSecret) init(psk []byte) error {
	copy(k.psk[:], psk)
	key, err := hkdf.Key(sha256.New, psk, []byte(udpLabel), udpLabel+"handshake", sha256.Size)
	if err != nil {
		return err
	}
	k.mac = hmac.New(sha256.New, key)
	clear(key)
	return nil
}

// code returns the message authentication code of what a message says, for a kind of message. It is valid until the next call.
func (k *udpSecret) code(kind string, said []byte) []byte {
	k.mac.Reset()
	b := append(k.buf[:0], udpLabel...)
	k.mac.Write(append(b, kind...))
	k.mac.Write(said)
	return k.mac.Sum(k.sum[:0])[:udpMACLen]
}

// transcriptCode is code of a transcript and what may come behind it.
func (k *udpSecret) transcriptCode(kind string, t *udpTranscript, more []byte) []byte {
	k.mac.Reset()
	b := append(k.buf[:0], udpLabel...)
	b = append(b, kind...)
	k.mac.Write(t.append(b))
	k.mac.Write(more)
	return k.mac.Sum(k.sum[:0])[:udpMACLen]
}

// A udpSession is a pair of keys and what has been done with them. Its two directions may be used at the same time, each by one at a time.
type udpSession struct {
	local, remote udpID // whose first bytes are in what is received, and in what is sent
	initiated     bool  // by this side
	order         int   // among this side's sessions
	tie           udpID // the initiator's, which decides between two sessions of the same moment

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

// newUDPSession makes the session that a transcript and the secret of the two ephemeral keys belong to.
func (k *udpSecret) newUDPSession(t *udpTranscript, own *ecdh.PrivateKey, initiator bool) *udpSession {
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
	s := &udpSession{local: t.responder, remote: t.initiator, tie: t.initiator, counter: 1} // 0 is that of the CONFIRM
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
	s.window.ValidateCounter(0, udpHardLimit)
	return s
}

// sessionKeys returns the keys of a session's directions, and clears the shared secret that they come from.
func (k *udpSecret) sessionKeys(t *udpTranscript, shared []byte) (toResponder, toInitiator []byte) {
	salt := sha256.Sum256(t.append([]byte(udpLabel + "transcript")))
	secret := append(append(make([]byte, 0, 2*udpKeyLen), k.psk[:]...), shared...)
	keys, err := hkdf.Key(sha256.New, secret, salt[:], udpLabel+"session", 2*udpKeyLen)
	clear(secret)
	clear(shared)
	if err != nil {
		panic("link: udp: " + err.Error()) // the lengths are constant and allowed
	}
	return keys[:udpKeyLen], keys[udpKeyLen:]
}

// seal makes a data datagram of the packet that stands in b behind the room for a header, and returns it: b must have the capacity for the tag. It
// returns nil when the session has sent all that it may.
func (s *udpSession) seal(b []byte) []byte {
	if s.counter >= udpHardLimit {
		return nil
	}
	binary.LittleEndian.PutUint32(b, udpData)
	binary.LittleEndian.PutUint32(b[4:], s.remote.index())
	binary.LittleEndian.PutUint64(b[8:], s.counter)
	binary.LittleEndian.PutUint64(s.sendNonce[4:], s.counter)
	s.counter++
	return s.send.Seal(b[:udpHdrLen], s.sendNonce[:], b[udpHdrLen:], b[:udpHdrLen])
}

// open puts the packet of a data datagram for this session, whose header parseData has found to be right, into dst, which has room for it, and
// returns its length. newest reports whether no later one has been received.
func (s *udpSession) open(dst, b []byte) (n int, newest bool, v udpVerdict) {
	counter := binary.LittleEndian.Uint64(b[8:])
	if counter == 0 || counter >= udpHardLimit {
		return 0, false, udpMalformed
	}
	binary.LittleEndian.PutUint64(s.recvNonce[4:], counter)
	p, err := s.recv.Open(dst[:0], s.recvNonce[:], b[udpHdrLen:], b[:udpHdrLen])
	if err != nil {
		return 0, false, udpForged
	}
	if !s.window.ValidateCounter(counter, udpHardLimit) {
		return 0, false, udpReplayed
	}
	newest = counter > s.newest
	if newest {
		s.newest = counter
	}
	return len(p), newest, udpPacket
}

// parseData returns the receiver's name for the session of a data datagram, or reports that it is none.
func parseData(b []byte) (index uint32, ok bool) {
	if len(b) < udpSealLen || binary.LittleEndian.Uint32(b) != udpData {
		return 0, false
	}
	return binary.LittleEndian.Uint32(b[4:]), true
}
