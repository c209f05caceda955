package kern

import (
	"testing"
	"testing/synctest"

	"bsdnet/internal/kern/wire"
)

// Two queues of a device bring the acknowledgment of a handshake and the first data at the same
// time. The second has found the listener, and waits for its lock, while the first completes the
// handshake. By then it belongs to the connection, and must not draw a reset.
func TestSegmentOvertakesHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		v.listen(80, 5)
		p := v.peer(5000, 80)
		v.inject(p.syn(wire.Options{}).bytes())
		p.seq, p.ack = p.seq+1, v.one().th.Seq+1

		data := p.seg(wire.ACK|wire.PUSH, []byte("x"))
		late := tcpIn{
			t:   tuple{laddr: in6(attHost), faddr: in6(p.from.Addr()), lport: 80, fport: p.from.Port()},
			th:  data.th,
			len: len(data.data), segs: 1, ifp: v.ifp, now: v.k.now(),
		}
		found := v.k.inPcblookup(&late.t, v.ifp)
		v.inject(p.seg(wire.ACK, nil).bytes())
		if v.k.tcpListenInput(found.so, &late) {
			t.Error("the listener has dealt with a connection's segment")
		}
		v.none()
		again := v.k.inPcblookup(&late.t, v.ifp)
		if again == found || again == nil || again.faddr != in6(p.from.Addr()) {
			t.Errorf("another look finds %v", again)
		}
	})
}
