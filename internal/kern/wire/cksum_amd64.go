//go:build amd64

package wire

import "golang.org/x/sys/cpu"

// hasBlocks reports whether sumBlocks can be called.
var hasBlocks = cpu.X86.HasAVX2

// sumBlocks is in cksum_amd64.s.
//
//go:noescape
func sumBlocks(p *byte, n int) uint64
