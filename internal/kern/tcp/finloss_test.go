package tcp

import "testing"

// A FIN's number takes no room in a segment: one that left with a full segment goes with it again,
// by the time-out, by the tail's probe and by a recovery, and not in a segment of its own after
// another round trip.
func TestFinSentAgain(t *testing.T) {
	each(t, func(t *T) {
		finishing := func(n int) *kit {
			k := sending(t)
			k.append(n)
			k.shutdown()
			return k
		}

		k := finishing(1000) // the time-out, after the probe
		k.trace(`
		       > FP. 1:1001(1000) ack 1
		+300ms > FP. 1:1001(1000) ack 1
		+300ms > FP. 1:1001(1000) ack 1
		       < . 1:1(0) ack 1002`)
		k.want("state", FinWait2)

		k = finishing(3000) // the probe alone
		k.during(0, segs(1, 2)+" 2001:3001F")
		k.trace("+202ms > FP. 2001:3001(1000) ack 1")

		k = finishing(4000) // a recovery: all is lost
		k.during(600e6, segs(1, 3)+" 3001:4001F 3001:4001F 1:1001")
		k.ack(1001)
		k.during(100e6, "1001:2001 2001:3001")
		k.ack(3001)
		k.during(100e6, "3001:4001F")

		k = finishing(1500) // what is left beside the FIN may be less
		k.trace("> . 1:1001(1000) ack 1\n> FP. 1001:1501(500) ack 1\n+202ms > FP. 1001:1501(500) ack 1")
	})
}
