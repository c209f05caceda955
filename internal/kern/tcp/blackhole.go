package tcp

import "time"

// A black hole is a path on which large segments disappear without an ICMP message (RFC 2923, 2.1): somebody filters it, or has never sent it. To
// the sender it looks like a path that is down for a while. So smaller segments are tried in its place, as FreeBSD's tcp_timer_rexmt does under
// net.inet.tcp.pmtud_blackhole_detection; unlike there the old size gets another chance, lest an outage slow a connection down for the rest of its life.

const (
	holeSmall = 1200                    // net.inet.tcp.pmtud_blackhole_mss: passes nearly everywhere; the last resort is MSSDflt
	holeProbe = int64(10 * time.Minute) // after so long the path may have changed (RFC 1191, 6.3)
)

// blackhole is called when the retransmission timer has fired backoff times for the same data: each size has two chances. Where the smallest has had
// them too it is not the size that matters.
func (tp *TCB) blackhole(now int64) {
	if !tp.prof.Blackhole || tp.flags&(local|whole) != 0 {
		return
	}
	switch {
	case tp.backoff == 2 || tp.backoff == 4:
		mss := holeSmall
		if tp.maxseg <= holeSmall {
			mss = tp.prof.MSSDflt
		}
		if mss >= tp.maxseg || tp.sndMax.Sub(tp.sndUna) <= mss-tp.optLen() {
			return // nothing would change
		}
		if tp.holeMSS == 0 {
			tp.holeMSS = int32(tp.maxseg)
			tp.holeSuspected(now)
		}
		tp.maxseg = mss
	case tp.backoff == 6 && tp.holeMSS != 0:
		tp.maxseg, tp.holeMSS = int(tp.holeMSS), 0
	}
}

// holeSuspected decides how long the smaller size stays: the first time until all that was stuck has come through, as it may be an outage; after
// that, for a while.
func (tp *TCB) holeSuspected(now int64) {
	again := tp.holeUntil != 0 && now/sec-int64(tp.holeUntil) < holeProbe/sec
	tp.holeUntil = uint32(now / sec)
	if again {
		tp.holeUntil += uint32(holeProbe / sec)
	}
}

// outOfBlackhole is called on progress with smaller segments.
func (tp *TCB) outOfBlackhole(now int64) {
	if tp.sndUna.Geq(tp.sndRecover) && now/sec >= int64(tp.holeUntil) {
		tp.maxseg, tp.holeMSS = int(tp.holeMSS), 0
	}
}
