//go:build arm64

#include "textflag.h"

// UADALP Vd.2D, Vn.4S adds both words of 32 bits in each half of Vn to that half of Vd. Go's
// assembler does not know it.
#define UADALP(n, d) WORD $(0x6ea06800 | (n)<<5 | (d))

// func sumBlocks(p *byte, n int) uint64
//
// The sum of n bytes as little-endian words of 32 bits; n is a multiple of 64 and not 0. Words are
// added to sums of 64 bits, so nothing overflows before 16 GiB, and no carry ties one addition to
// the next.
//
// UADALP takes 16 bytes, but Cortex-A76 to A78 and their Neoverse kin run it in one of their two
// vector pipes only. VUADDW and VUADDW2 take 8 bytes each and run in either, so they get two
// registers of eight: that takes 6 cycles, and 8 UADALPs would take 8. Apple's cores can add to a
// sum again 3 cycles after UADALP has; each addition has a sum of its own, and so waits only for
// the one of the round before.
TEXT ·sumBlocks(SB), NOSPLIT, $0-24
	MOVD p+0(FP), R0
	MOVD n+8(FP), R1
	VMOVI $0, V0.B16
	VMOVI $0, V1.B16
	VMOVI $0, V2.B16
	VMOVI $0, V3.B16
	VMOVI $0, V4.B16
	VMOVI $0, V5.B16
	VMOVI $0, V24.B16
	VMOVI $0, V25.B16
	VMOVI $0, V26.B16
	VMOVI $0, V27.B16
	TBZ $6, R1, loop

	// One block, so that pairs are left.
	FLDPQ 32(R0), (F18, F19)
	FLDPQ.P 64(R0), (F16, F17)
	UADALP(16, 0)
	UADALP(17, 1)
	UADALP(18, 2)
	UADALP(19, 3)
	SUBS $64, R1, R1
	BEQ done

loop:
	FLDPQ 32(R0), (F18, F19)
	FLDPQ 64(R0), (F20, F21)
	FLDPQ 96(R0), (F22, F23)
	FLDPQ.P 128(R0), (F16, F17)
	UADALP(18, 0)
	UADALP(19, 1)
	UADALP(20, 2)
	VUADDW V21.S2, V24.D2, V24.D2
	VUADDW2 V21.S4, V25.D2, V25.D2
	UADALP(22, 3)
	UADALP(23, 4)
	UADALP(16, 5)
	VUADDW V17.S2, V26.D2, V26.D2
	VUADDW2 V17.S4, V27.D2, V27.D2
	SUBS $128, R1, R1
	BNE loop

done:
	VADD V1.D2, V0.D2, V0.D2
	VADD V3.D2, V2.D2, V2.D2
	VADD V5.D2, V4.D2, V4.D2
	VADD V25.D2, V24.D2, V24.D2
	VADD V27.D2, V26.D2, V26.D2
	VADD V2.D2, V0.D2, V0.D2
	VADD V26.D2, V24.D2, V24.D2
	VADD V4.D2, V0.D2, V0.D2
	VADD V24.D2, V0.D2, V0.D2
	VADDP V0.D2, V0.D2, V0.D2
	FMOVD F0, R0
	MOVD R0, ret+16(FP)
	RET
