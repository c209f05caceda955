//go:build linux

package wire

import (
	"syscall"
	"testing"
)

// Sum reads the bytes that it is given and no others, not even one that it would ignore, as the
// next page may not be mapped.
func TestCksumStaysInside(t *testing.T) {
	page := syscall.Getpagesize()
	mem, err := syscall.Mmap(-1, 0, 3*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Munmap(mem)
	p := mem[page : 2*page]
	for i := range p {
		p[i] = byte(i * 37)
	}
	for _, guard := range [][]byte{mem[:page], mem[2*page:]} {
		if err := syscall.Mprotect(guard, syscall.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 1025 {
		for _, q := range [][]byte{p[:n], p[page-n:]} {
			if got, want := Fold(Sum(q, 0)), refSum(q); got != want {
				t.Errorf("%d bytes: %04x, want %04x", n, got, want)
			}
		}
	}
}
