package kern

import (
	"bsdnet/internal/kern/tcp"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"io"
	"sync"
)

// secrets are a stack's keys. Each purpose has a key of its own, so that values made with one key
// tell an attacker nothing about another (CVE-2024-10026).
type secrets struct {
	iss, ts, port, cookie, ipid, ip6id cipher.Block
	hash, label                        [2]uint64
}

func (s *secrets) init(r io.Reader) error {
	var b [8 * 16]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return err
	}
	for i, c := range []*cipher.Block{&s.iss, &s.ts, &s.port, &s.cookie, &s.ipid, &s.ip6id} {
		at := 16 * i
		if i >= 4 {
			at += 16 // the key of the hash lies before the last two keys
		}
		blk, err := aes.NewCipher(b[at : at+16])
		if err != nil {
			return err
		}
		*c = blk
	}
	s.hash[0] = binary.LittleEndian.Uint64(b[64:])
	s.hash[1] = binary.LittleEndian.Uint64(b[72:])
	s.label[0] = binary.LittleEndian.Uint64(b[112:])
	s.label[1] = binary.LittleEndian.Uint64(b[120:])
	return nil
}

// A prfScratch is memory that prf works in. On the stack it would escape through the interface of
// the cipher, and be garbage after each call.
type prfScratch struct {
	msg [48]byte
	x   [16]byte
}

var prfScratches = sync.Pool{New: func() any { return new(prfScratch) }}

// prf is a keyed hash of a connection's addresses and a number: CBC-MAC with AES over a message of
// fixed length.
func prf(key cipher.Block, t *tuple, extra uint64) uint64 {
	s := prfScratches.Get().(*prfScratch)
	defer prfScratches.Put(s)
	b := &s.msg
	copy(b[0:], t.laddr[:])
	copy(b[16:], t.faddr[:])
	binary.BigEndian.PutUint16(b[32:], t.lport)
	binary.BigEndian.PutUint16(b[34:], t.fport)
	binary.BigEndian.PutUint64(b[40:], extra)
	s.x = [16]byte{}
	for i := 0; i < len(b); i += 16 {
		for j := range s.x {
			s.x[j] ^= b[i+j]
		}
		key.Encrypt(s.x[:], s.x[:])
	}
	return binary.BigEndian.Uint64(s.x[:])
}

// iss chooses an initial sequence number as RFC 6528, 3, does: a clock of 4 µs plus a keyed hash of
// the addresses.
func (k *Kernel) iss(t *tuple, now int64) tcp.Seq {
	return tcp.Seq(uint32(now/4000) + uint32(prf(k.seed.iss, t, 0)))
}

// tsOffset returns where a connection's timestamps begin (RFC 7323, 7.1). It depends on all
// addresses and ports.
func (k *Kernel) tsOffset(t *tuple) uint32 { return uint32(prf(k.seed.ts, t, 0)) }
