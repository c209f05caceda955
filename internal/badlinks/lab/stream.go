//go:build linux

package lab

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// A stream is an endless sequence of bytes that depends on a seed and does not repeat itself.
type stream struct {
	seed uint64
	word uint64 // number of the next word
	have [8]byte
	left int // bytes of have
}

// fill fills b with the next bytes of the stream.
func (s *stream) fill(b []byte) {
	n := copy(b, s.have[8-s.left:])
	s.left -= n
	for b = b[n:]; len(b) >= 8; b = b[8:] {
		binary.LittleEndian.PutUint64(b, s.next())
	}
	if len(b) > 0 {
		binary.LittleEndian.PutUint64(s.have[:], s.next())
		s.left = 8 - copy(b, s.have[:])
	}
}

// next returns the next word: splitmix64 (Steele, Lea, Flood, Fast Splittable Pseudorandom Number
// Generators, 2014).
func (s *stream) next() uint64 {
	s.word++
	z := s.seed + s.word*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// A checker compares received bytes with a stream.
type checker struct {
	stream
	n   int64
	buf []byte
}

// check returns an error with the position if b differs from the next bytes of the stream.
func (c *checker) check(b []byte) error {
	if len(c.buf) < len(b) {
		c.buf = make([]byte, len(b))
	}
	want := c.buf[:len(b)]
	c.fill(want)
	if !bytes.Equal(b, want) {
		i := 0
		for b[i] == want[i] {
			i++
		}
		return fmt.Errorf("byte %d is %#x; %#x was sent", c.n+int64(i), b[i], want[i])
	}
	c.n += int64(len(b))
	return nil
}
