package testutil

import (
	"math/rand/v2"
	"os"
	"slices"
	"testing"
)

// Dice make decisions out of bytes: a fuzzer's, or a seed's. When they are used up, every throw
// is 0.
type Dice []byte

// More says whether there are bytes left.
func (d *Dice) More() bool { return len(*d) > 0 }

// N is a number from 0 to n-1.
func (d *Dice) N(n int) int {
	v := 0
	for m := n - 1; m > 0 && len(*d) > 0; m >>= 8 {
		v = v<<8 | int((*d)[0])
		*d = (*d)[1:]
	}
	return v % n
}

// One is true once in n.
func (d *Dice) One(n int) bool { return d.N(n) == n-1 }

// U32 is any number of 32 bits.
func (d *Dice) U32() uint32 { return uint32(d.N(1<<16))<<16 | uint32(d.N(1<<16)) }

// Bytes takes up to n of the bytes.
func (d *Dice) Bytes(n int) []byte {
	n = min(n, len(*d))
	b := slices.Clone((*d)[:n])
	*d = (*d)[n:]
	return b
}

// SeededBytes returns n random bytes, which a seed determines.
func SeededBytes(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 0))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// Games is how many games of a kind are played: all, or if time is short few. With BSDNET_LONG=1 in
// the environment fifty times as many are.
func Games(all, few uint64) uint64 {
	switch {
	case os.Getenv("BSDNET_LONG") == "1":
		return 50 * all
	case testing.Short() || Race:
		return few
	}
	return all
}
