package tcp

import "testing"

// drain sends segments of 1000 bytes as long as the pacer lets it, and returns how many those were.
func (p *pacer) drain(now, srtt int64) (n int) {
	for {
		quantum := p.allow(now, 1000)
		if quantum == 0 {
			return n
		}
		for ; quantum >= 1000; quantum -= 1000 {
			p.sent(now, 1000, p.credit(srtt, 1000))
			n++
		}
	}
}

// Within what a flight may begin with nothing is delayed, however small the rate is; what goes on
// is a train at a time.
func TestPacerBurst(t *testing.T) {
	const srtt = 100 * ms
	var p pacer
	p.setRate(&Control{Cwnd: 10000, Ssthresh: 10000}, srtt, 10000) // 120 segments a second
	if n := p.drain(sec, srtt); n != 10 {
		t.Errorf("%d segments at once", n)
	}
	if n := p.drain(p.next, srtt); n != 2 {
		t.Errorf("%d segments in a train", n)
	}
	// A window that is no larger, acknowledged once in a round trip or segment by segment, is never
	// held back.
	for _, step := range []int64{srtt, srtt / 2, srtt / 10} {
		p.next = 0
		for now := 10 * sec; now < 12*sec; now += step {
			for range 10 * step / srtt {
				if p.allow(now, 1000) == 0 {
					t.Fatalf("held back until %d ms later, every %d ms", (p.next-now)/ms, step/ms)
				}
				p.sent(now, 1000, p.credit(srtt, 1000))
			}
		}
	}
	// A long pause is no credit for more.
	if n := p.drain(3600*sec, srtt); n != 10 {
		t.Errorf("%d segments at once after a pause", n)
	}
}

// The beginning of a flight has its own burst, and no second one.
func TestPacerBegin(t *testing.T) {
	const srtt = 100 * ms
	var p pacer
	p.setRate(&Control{Cwnd: 40000, Ssthresh: infinite}, srtt, 0) // 800 segments a second
	p.begin(sec, 1000)
	if n := p.drain(sec, srtt); n != 12 {
		t.Errorf("%d segments at once", n)
	}
}

// While losses are repaired the window is what is in flight, which may be next to nothing. What
// goes then is answered to acknowledgments, and is not to be slower than they come.
func TestPacerRecovery(t *testing.T) {
	const srtt = 100 * ms
	var p pacer
	p.setRate(&Control{Cwnd: 4000, Ssthresh: 70000}, srtt, 100000)
	for now := sec; now < sec+srtt; now += srtt / 100 {
		if p.allow(now, 1000) == 0 {
			t.Fatalf("held back after %d ms", (now-sec)/ms)
		}
		p.sent(now, 1000, p.credit(srtt, 1000))
	}
}
