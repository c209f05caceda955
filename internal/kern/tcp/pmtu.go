package tcp

import (
	"time"

	"bsdnet/internal/kern/wire"
)

// pmtu finds the size of a segment that the path carries, beyond what the interface and the peer
// say. A router says what it carries by ICMP (RFC 1191), or drops larger packets without a word: a
// black hole (RFC 2923, 2.1), which looks like a path that is down. Then smaller segments are
// tried, as in FreeBSD's tcp_timer_rexmt under net.inet.tcp.pmtud_blackhole_detection; and as
// losses can look like a black hole, larger ones are tried again soon (RFC 4821, 7.7; RFC 8899).
type pmtu struct {
	full    int   // what the interface and the peer allow, as maxseg
	arrived int   // the largest segment that has arrived
	said    int   // what ICMP has said, as maxseg, while larger segments still arrive; 0: nothing
	saidEnd Seq   // it is believed if the time-out finds something before this number missing
	raiseAt int64 // when the larger size is tried again; never: there is none
	probing bool  // a segment of the larger size is in flight
	proof   bool  // a full segment has arrived since the first time-out
	fails   uint8 // probes lost in a row
}

const (
	// net.inet.tcp.pmtud_blackhole_mss: passes nearly everywhere; the last resort over IPv4 is
	// MSSDflt
	holeSmall = 1200
	holeAge   = int64(10 * time.Minute) // after so long the path may have changed (RFC 1191, 6.3)
)

// holeSuspected is called when the retransmission timer has fired backoff times for the same data.
// Each size has two chances. If the smallest has had both as well, the size is not the reason.
func (tp *TCB) holeSuspected(now int64) {
	m := &tp.snr.pmtu
	if m.said != 0 && tp.sndUna.Lt(m.saidEnd) {
		tp.setMSS(m.said, "ICMP")
		m.raiseAt = now + holeAge
		m.said = 0
		return
	}
	if tp.backoff == 1 {
		m.proof = false
	}
	if !tp.prof.Blackhole || tp.flags&whole != 0 || m.proof {
		return
	}
	switch {
	case tp.backoff == 2 || tp.backoff == 4:
		mss := holeSmall
		if tp.maxseg <= holeSmall || tp.flags2&inet6 != 0 {
			// RFC 8200, 5: "IPv6 requires that every link in the Internet have an MTU of 1280
			// octets or greater", so what V6MSSDflt leaves room for passes everywhere.
			mss = tp.mssdflt()
		}
		if mss >= tp.maxseg || tp.sndNxt.Sub(tp.sndUna) <= mss-tp.optLen() {
			return // nothing would change
		}
		tp.setMSS(mss, "black hole")
		m.raiseAt = now // as soon as something arrives
	case tp.backoff == 6 && tp.maxseg < m.full:
		tp.setMSS(m.full, "not a black hole")
		m.raiseAt = never
	}
}

// setMSS changes the size of a full segment.
func (tp *TCB) setMSS(mss int, reason string) {
	m := &tp.snr.pmtu
	tp.maxseg = mss
	// Both may have been reduced, in segments of the smaller size, while the probe of the larger
	// was under way.
	c := &tp.snr.ctl
	c.Cwnd, c.Ssthresh = max(c.Cwnd, tp.effMSS()), max(c.Ssthresh, 2*tp.effMSS())
	m.arrived = min(m.arrived, tp.effMSS())
	m.probing = false
	tp.traceMTU(reason)
}

// pmtuProof notes that a full segment has arrived: the path carries it, and what is lost is lost
// for another reason.
func (tp *TCB) pmtuProof() {
	m := &tp.snr.pmtu
	m.proof = true
	m.arrived = max(m.arrived, tp.effMSS())
}

// wantProbe reports whether the next segment, of n bytes that may be sent, is to be a probe of the
// larger size, and how long it is.
func (tp *TCB) wantProbe(o *outseg, n int, now int64) (int, bool) {
	s := tp.snr
	m := &s.pmtu
	if tp.maxseg >= m.full || m.probing || now < m.raiseAt {
		return 0, false
	}
	// A probe that is lost must not be taken for more congestion, nor be needed to find out whether
	// the path works at all. Time-outs of what was sent into a closed window do not count once the
	// window is open.
	if s.state != Open || tp.backoff > 0 && o.wants&wantOpen == 0 {
		return 0, false
	}
	size := m.full - tp.optLen() - tp.sackOptLen()
	if n < size {
		return 0, false
	}
	return size, true
}

// probeArrived is called when a probe has arrived: the path carries the larger size.
func (tp *TCB) probeArrived() {
	m := &tp.snr.pmtu
	if !m.probing {
		return
	}
	m.fails = 0
	m.raiseAt = never
	tp.setMSS(m.full, "probe")
}

// probeLost is called when a probe is lost. The next is tried after twice as many round trips: a
// path that loses one packet in three still gets its size back soon, and one that does not carry it
// loses a probe in ten minutes.
func (tp *TCB) probeLost() {
	m := &tp.snr.pmtu
	m.probing = false
	m.fails = min(m.fails+1, 20)
	m.raiseAt = tp.clock + min(max(tp.rtt.srtt, ms)<<m.fails, holeAge)
}

// Mtudisc takes what a router says of the MTU of the path: BSD's tcp_mtudisc (RFC 1191, 6.4; RFC
// 8201, 5).
func (tp *TCB) Mtudisc(mtu int, now int64) {
	mss := max(mtu-tp.hdrLen()-wire.TCPMinLen, tp.prof.MinMSS)
	if mss >= tp.maxseg {
		return
	}
	now = tp.onwards(now)
	if tp.snr == nil {
		tp.maxseg = mss
		tp.flags &^= rttTimed
		if tp.state.HaveEstablished() && tp.sndMax.Gt(tp.sndUna) {
			tp.sndNxt = tp.sndUna
			tp.Output(now)
		}
		return
	}
	m := &tp.snr.pmtu
	// RFC 5927, 7.2: if larger segments have been acknowledged, the message may be forged; then it
	// is believed once the data that it speaks of is found missing by the time-out.
	if mss-tp.optLen() < m.arrived {
		m.said, m.saidEnd = mss, tp.sndNxt
		return
	}
	tp.setMSS(mss, "ICMP")
	m.raiseAt = now + holeAge
	tp.tooLarge(now)
}

// tooLarge sends again what was too large for the path. That it was dropped is no sign of
// congestion (RFC 1191, 6.5).
func (tp *TCB) tooLarge(now int64) {
	s := tp.snr
	for p, i := (place{}), 0; i < s.sb.n; i++ {
		if i == 0 {
			p = s.sb.first()
		} else {
			p = s.sb.next(p)
		}
		if sp := s.sb.at(p); sp.inFlight() && int(sp.seg) > tp.effMSS() {
			s.sb.mark(p)
			s.lostFrom = s.lostFrom.Min(sp.start)
			tp.traceLost(sp.start, sp.len(), "too large")
		}
	}
	if s.sb.lost > 0 {
		s.force, s.newFirst = true, false
	}
	if tp.state.HaveEstablished() {
		tp.Output(now)
	}
}
