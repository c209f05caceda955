package wireguard

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
)

// keyLen is the length of a key in bytes, whatever it is for.
const keyLen = 32

// A Key is a public key of X25519.
type Key [32]byte

// ParseKey reads a public key as wg pubkey writes it: 32 bytes in base64.
func ParseKey(s string) (Key, error) { return decodeKey(s) }

// String returns the key in base64.
func (k Key) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

// A Secret is a private or a preshared key. It does not show itself: whatever prints, logs or encodes it writes a word in its place. Only
// [Secret.Base64] gives it out. The zero Secret is none.
type Secret struct{ k [keyLen]byte }

// NewSecret makes a secret at random: wg genkey, wg genpsk.
func NewSecret() Secret {
	var s Secret
	rand.Read(s.k[:]) // never fails
	return s
}

// ParseSecret reads a secret as wg genkey and wg genpsk write it: 32 bytes in base64. The error does not contain s.
func ParseSecret(s string) (Secret, error) {
	k, err := decodeKey(s)
	return Secret{k}, err
}

// Public returns the public key that belongs to the private key s: wg pubkey.
func (s Secret) Public() Key {
	private, err := ecdh.X25519().NewPrivateKey(s.k[:])
	if err != nil {
		panic(err) // for a wrong length only
	}
	return Key(private.PublicKey().Bytes())
}

// IsZero reports whether there is no key.
func (s Secret) IsZero() bool { return s == Secret{} }

// Base64 returns the secret itself, as it stands in a file.
func (s Secret) Base64() string { return base64.StdEncoding.EncodeToString(s.k[:]) }

// String does not return the secret.
func (s Secret) String() string {
	if s.IsZero() {
		return "(none)"
	}
	return "(secret)"
}

// Format implements [fmt.Formatter], so that no verb shows the secret.
func (s Secret) Format(f fmt.State, verb rune) { io.WriteString(f, s.String()) }

var errKey = errors.New("a key is 32 bytes in base64, 44 characters with a = at the end")

// decodeKey takes exactly what wg takes, and what it writes.
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
