package kern

import (
	"testing"
	"unsafe"
)

// An idle connection is a Socket and little else, so its size is what a server with many of them pays: a class of the allocator's is not to be
// left by a field that has crept in.
func TestSocketSize(t *testing.T) {
	if n := unsafe.Sizeof(Socket{}); n > 896-8 { // the allocator puts 8 bytes before what has pointers and is this large
		t.Errorf("a Socket has %d bytes, and takes more than the 896 of its class", n)
	}
}
