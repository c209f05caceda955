package kern

import (
	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// pressed reports whether the stack is near its limit of memory. While it is, buffers shrink, and
// new connections are refused.
func (k *Kernel) pressed() bool { return k.pool.Pressed() }

// share returns how many bytes one socket may pin in a buffer while the stack is pressed.
func (k *Kernel) share() int {
	return int(max(k.memory/8/(k.sockets.n.Load()+1), minShare))
}

// minShare lets every connection make some progress, however many there are.
const minShare = mbuf.ClMid

// affords reports whether the socket may keep n more bytes that have arrived. While the stack is
// pressed, it may not if its buffer holds its share already, or if bytes before them are missing;
// the machine then tells the peer, which sends them again. A reader that keeps up notices nothing.
func (so *Socket) affords(th *wire.TCP, n int) bool {
	if n == 0 || !so.k.pressed() || !so.tp.News(th.Seq, n) {
		return true
	}
	return so.tp.InOrder(th.Seq) && (so.rcv.Cc() == 0 || so.rcv.Pinned()+n <= so.k.share())
}
