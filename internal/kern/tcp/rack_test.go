package tcp

import (
	"testing"
)

// RFC 8985, 6.2, step 3: reordering is seen if a segment arrives whose end lies below RACK.fack, the highest that has been
// acknowledged. What one acknowledgment tells of, in order and selectively, has no order: an acknowledgment that was delayed, or the
// one before it lost, is no sign of reordering.
func TestRackOneAckIsNoReordering(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t)
		k.write(10000)
		k.during(100e6, segs(1, 10))
		k.ack(1001, "2001:3001") // 1 had its acknowledgment delayed, 1001 is lost
		if k.tp.snr.rack.seen {
			t.Fatal("an acknowledgment that was delayed was taken for reordering")
		}
		k.ack(1001, "4001:5001", "2001:3001")
		k.ack(1001, "8001:9001", "6001:7001", "4001:5001", "2001:3001") // the one between is lost
		if k.tp.snr.rack.seen {
			t.Fatal("blocks in the order of their arrival were taken for reordering")
		}
		k.collect(0)
		k.ack(1001, "5001:6001")
		if !k.tp.snr.rack.seen {
			t.Fatal("a segment that came after those behind it is reordering")
		}
		k.collect(0)
	})
}
