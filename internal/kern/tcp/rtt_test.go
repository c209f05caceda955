package tcp

import "testing"

// TestRTTSamples follows RFC 6298, 2.2 and 2.3, with the arithmetic written out.
func TestRTTSamples(t *testing.T) {
	var r rtt
	for _, step := range []struct {
		d, n         int64 // a round trip, and of how many in a round trip it is one
		srtt, rttvar int64
	}{
		{100 * ms, 1, 100 * ms, 50 * ms},                // SRTT <- R, RTTVAR <- R/2
		{180 * ms, 1, 110 * ms, 50*ms + (80-50)*ms/4},   // RTTVAR first, from the SRTT before: |100-180|
		{30 * ms, 1, 100 * ms, 57500*ms/1000 + 5625000}, // |110-30| = 80; 57.5 + 22.5/4; 110 - 80/8
		{100 * ms, 1, 100 * ms, 63125000 * 3 / 4},       // no deviation: a quarter goes
		{180 * ms, 10, 101 * ms, 47343750 + (80*ms-47343750)/40},
	} {
		r.sample(step.d, step.n)
		if r.srtt != step.srtt || r.rttvar != step.rttvar {
			t.Fatalf("after a sample of %d, one of %d: SRTT %d, RTTVAR %d; want %d, %d",
				step.d, step.n, r.srtt, r.rttvar, step.srtt, step.rttvar)
		}
	}
}

// TestRTTTimeout computes time-outs, with and without back-off, by each profile's floor.
func TestRTTTimeout(t *testing.T) {
	reno, rack := FreeBSD(), Default()
	reno.RTOMin, reno.RTOSlop, reno.RTOMax = 30*ms, 0, 60*sec
	rack.RTOMin, rack.RTOSlop, rack.RTOMax = 200*ms, 0, 60*sec
	slop := FreeBSD()
	slop.RTOMin, slop.RTOSlop, slop.RTOMax = 30*ms, 200*ms, 60*sec
	for _, c := range []struct {
		name         string
		p            *Profile
		srtt, rttvar int64
		fired        uint8
		timeout, rto int64
	}{
		{"not measured", reno, 0, 0, 0, sec, sec},
		{"not measured, backed off", reno, 0, 0, 3, sec, 8 * sec},
		{"SRTT + 4*RTTVAR", reno, 100 * ms, 10 * ms, 0, 140 * ms, 140 * ms},
		{"doubled", reno, 100 * ms, 10 * ms, 2, 140 * ms, 560 * ms},
		{"steady: a tick of the clock", reno, 100 * ms, 0, 0, 101 * ms, 101 * ms},
		{"the floor is under what is doubled", reno, ms, 0, 2, 30 * ms, 120 * ms},
		{"the slop is not doubled", slop, 100 * ms, 10 * ms, 1, 340 * ms, 480 * ms},
		{"a floor under the variance", rack, 100 * ms, 0, 0, 300 * ms, 300 * ms},
		{"a larger variance", rack, 100 * ms, 60 * ms, 1, 340 * ms, 680 * ms},
		{"the largest", reno, 100 * ms, 10 * ms, 9, 140 * ms, 60 * sec},
		{"no shift beyond maxBackoff", reno, ms, 0, 12, 30 * ms, 30 * ms << maxBackoff},
	} {
		r := rtt{srtt: c.srtt, rttvar: c.rttvar}
		if got := r.timeout(c.p); got != c.timeout {
			t.Errorf("%s: without back-off %d, want %d", c.name, got, c.timeout)
		}
		if r.backOff(c.fired, c.p); r.rxtcur != c.rto {
			t.Errorf("%s: %d after %d times, want %d", c.name, r.rxtcur, c.fired, c.rto)
		}
	}
}
