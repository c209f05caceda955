package wireguard

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
)

// keyLen is the length of every kind of key, in bytes.
const keyLen = 32

// A Key is an X25519 public key (RFC 7748).
type Key [32]byte

// ParseKey parses a public key in the form that wg pubkey writes: 32 bytes in base64.
func ParseKey(s string) (Key, error) { return decodeKey(s) }

// String returns the key in base64.
func (k Key) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

// A Secret is a private or a preshared key. Printing, logging or encoding a Secret shows the word
// "(secret)" instead of the key, or "(none)" for the zero Secret. Only [Secret.Base64] returns the
// key.
type Secret struct{ k [keyLen]byte }

// NewSecret returns a random secret, as wg genkey and wg genpsk do.
func NewSecret() Secret {
	var s Secret
	rand.Read(s.k[:]) // never fails
	return s
}

// ParseSecret parses a secret in the form that wg genkey and wg genpsk write: 32 bytes in base64.
// The error does not contain s.
func ParseSecret(s string) (Secret, error) {
	k, err := decodeKey(s)
	return Secret{k}, err
}

// Public returns the public key that belongs to the private key s, as wg pubkey does.
func (s Secret) Public() Key {
	private, err := ecdh.X25519().NewPrivateKey(s.k[:])
	if err != nil {
		panic(err) // only if the length is wrong
	}
	return Key(private.PublicKey().Bytes())
}

// IsZero reports whether s is the zero Secret, that is, no key.
func (s Secret) IsZero() bool { return s == Secret{} }

// Base64 returns the secret itself, in the form in which it stands in a file.
func (s Secret) Base64() string { return base64.StdEncoding.EncodeToString(s.k[:]) }

// String returns "(secret)" or, for the zero Secret, "(none)".
func (s Secret) String() string {
	if s.IsZero() {
		return "(none)"
	}
	return "(secret)"
}

// Format implements [fmt.Formatter]. It writes String for every verb, so that no verb shows the
// secret.
func (s Secret) Format(f fmt.State, verb rune) { io.WriteString(f, s.String()) }

var errKey = errors.New("a key is 32 bytes in base64, 44 characters with a = at the end")

// decodeKey accepts exactly the form that wg accepts and writes.
func decodeKey(s string) (k [keyLen]byte, err error) {
	if len(s) != base64.StdEncoding.EncodedLen(keyLen) {
		return k, errKey
	}
	var buf [keyLen + 1]byte
	if n, err := base64.StdEncoding.Strict().Decode(buf[:], []byte(s)); err != nil || n != keyLen {
		return k, errKey
	}
	return [keyLen]byte(buf[:]), nil
}
