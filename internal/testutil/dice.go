package testutil

import (
	"math/rand/v2"
	"os"
	"slices"
	"testing"
)

// Dice make decisions from the bytes of a fuzzer or of a seed. When the bytes are used up, every
// throw is 0.
type Dice []byte

// More reports whether there are bytes left.
func (d *Dice) More() bool { return len(*d) > 0 }

// N returns a number from 0 to n-1.
func (d *Dice) N(n int) int {
	v := 0
	for m := n - 1; m > 0 && len(*d) > 0; m >>= 8 {
		v = v<<8 | int((*d)[0])
		*d = (*d)[1:]
	}
	return v % n
}

// One returns true once in n throws.
func (d *Dice) One(n int) bool { return d.N(n) == n-1 }

// U32 returns any number of 32 bits.
func (d *Dice) U32() uint32 { return uint32(d.N(1<<16))<<16 | uint32(d.N(1<<16)) }

// Bytes returns up to n of the bytes themselves.
func (d *Dice) Bytes(n int) []byte {
	n = min(n, len(*d))
	b := slices.Clone((*d)[:n])
	*d = (*d)[n:]
	return b
}

// SeededBytes returns n pseudo-random bytes that depend on the seed.
func SeededBytes(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 0))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// Games returns the number of games that a test plays: all, or few if time is short. With
// BSDNET_LONG=1 in the environment it returns fifty times all.
func Games(all, few uint64) uint64 {
	switch {
	case os.Getenv("BSDNET_LONG") == "1":
		return 50 * all
	case testing.Short() || Race:
		return few
	}
	return all
}
