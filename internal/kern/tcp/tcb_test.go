package tcp

import (
	"testing"
	"unsafe"
)

// TestTCBSize: each idle connection pays for the TCB twice over if it crosses a class of the
// allocator's (see kern's TestSocketSize).
func TestTCBSize(t *testing.T) {
	if n := unsafe.Sizeof(TCB{}); unsafe.Sizeof(uintptr(0)) == 8 && n > 360 {
		t.Errorf("a TCB has %d bytes", n)
	}
}
