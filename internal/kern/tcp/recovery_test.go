package tcp

import "testing"

// Recovery by selective acknowledgments: RFC 2018, RFC 6675.

// RFC 5681, 3.2: "On the first and second duplicate ACKs received at a sender, a TCP SHOULD send a segment of previously unsent data per
// [RFC3042]", but "the TCP sender MUST NOT change cwnd to reflect these two segments". With SACK that falls out of pipe.
func TestLimitedTransmit(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t)
		k.write(30000)
		k.during(100e6, segs(1, 10))
		k.ack(1, "1001:2001")
		k.during(10e6, "10001:11001")
		k.ack(1, "1001:3001")
		k.during(10e6, "11001:12001")
		k.want("cwnd", 10000)
		k.want("ca", Disorder)
		k.ack(1, "1001:3001") // nothing new
		k.during(1e6, "")
		// RFC 6675, 5, (3.3): it can "send previously unsent data segments" only as far as the window of the peer goes.
		k = sending(t, "win 80")
		k.write(30000)
		k.during(100e6, segs(1, 10))
		k.ack(1, "1001:2001")
		k.during(10e6, "") // 80 << 7 is 10240, and the rest would be silly
	})
}

// If segments overtake each other, most acknowledgments are duplicates, and a window that grew only with the others would not grow.
func TestReorderedWindowGrows(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t)
		k.write(30000)
		k.during(100e6, segs(1, 10))
		k.acked(1, "1001:2001")
		k.acked(2001)
		k.want("cwnd", 11000)
		if !k.tp.snr.rack.seen {
			t.Fatal("reordering was not seen")
		}
		k.acked(2001, "3001:4001")
		k.want("cwnd", 12000)
	})
}
