//go:build amd64

#include "textflag.h"

// func sumBlocks(p *byte, n int) uint64
//
// The sum of n bytes as little-endian words of 32 bits; n is a multiple of 64 and not 0. 32 bits of each 64 go to one sum and the other 32 to another,
// so nothing overflows before 16 GiB, and no carry ties one addition to the next.
TEXT ·sumBlocks(SB), NOSPLIT, $0-24
	MOVQ p+0(FP), SI
	MOVQ n+8(FP), CX
	VPXOR Y0, Y0, Y0
	VPXOR Y1, Y1, Y1
	VPXOR Y2, Y2, Y2
	VPXOR Y3, Y3, Y3
	VPCMPEQD Y7, Y7, Y7
	VPSRLQ $32, Y7, Y7

loop:
	VMOVDQU (SI), Y4
	VMOVDQU 32(SI), Y5
	VPAND Y7, Y4, Y6
	VPSRLQ $32, Y4, Y4
	VPADDQ Y6, Y0, Y0
	VPADDQ Y4, Y1, Y1
	VPAND Y7, Y5, Y6
	VPSRLQ $32, Y5, Y5
	VPADDQ Y6, Y2, Y2
	VPADDQ Y5, Y3, Y3
	ADDQ $64, SI
	SUBQ $64, CX
	JNZ loop

	VPADDQ Y1, Y0, Y0
	VPADDQ Y3, Y2, Y2
	VPADDQ Y2, Y0, Y0
	VEXTRACTI128 $1, Y0, X1
	VPADDQ X1, X0, X0
	VPSRLDQ $8, X0, X1
	VPADDQ X1, X0, X0
	VMOVQ X0, AX
	VZEROUPPER
	MOVQ AX, ret+16(FP)
	RET
