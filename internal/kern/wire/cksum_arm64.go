//go:build arm64

package wire

// hasBlocks reports whether sumBlocks can be called: Go's port to arm64 takes Advanced SIMD for
// granted.
const hasBlocks = true

// sumBlocks is in cksum_arm64.s.
//
//go:noescape
func sumBlocks(p *byte, n int) uint64
