package tcp

import (
	"cmp"
	"slices"
	"syscall"
)

// defaultCC is what a connection has if nobody chooses.
const defaultCC = "cubic"

// CCNames returns the names of the congestion controllers that a connection with this profile may
// have.
func (p *Profile) CCNames() []string {
	if p.Scoreboard {
		return CCNames()
	}
	return []string{"newreno"}
}

// HasCC reports whether name is one of them.
func (p *Profile) HasCC(name string) bool { return slices.Contains(p.CCNames(), name) }

// CCName is the one that a connection has if nobody chooses.
func (p *Profile) CCName() string {
	if !p.Scoreboard {
		return "newreno"
	}
	return cmp.Or(p.CC, defaultCC)
}

// SetCC chooses the congestion controller of the connection by its name. ENOENT: there is none of
// that name. The window stays as it is. Over the loopback, where nothing can be congested, it is
// noted and has no effect.
func (tp *TCB) SetCC(name string, now int64) syscall.Errno {
	if !tp.prof.HasCC(name) {
		return syscall.ENOENT
	}
	tp.ccWant = uint8(slices.Index(CCNames(), name) + 1)
	if s := tp.snr; s != nil && s.ccName != name {
		old, owned := s.ctl, s.cc.OwnWindow()
		freeCC(s.cc)
		s.ccName, s.cc, s.ctl = name, NewCC(name), Control{}
		now = tp.onwards(now)
		tp.lookNow(now)
		s.cc.Init(&s.view, &s.ctl)
		s.ctl.Cwnd, s.ctl.Ssthresh = old.Cwnd, old.Ssthresh
		s.undo.none(tp.sndUna) // it was the other one's reduction
		if owned && !s.cc.OwnWindow() && (s.state == CWR || s.state == Recovering) {
			s.ack = Ack{}
			tp.reduce(Loss, now) // there is no threshold yet to bring the flight down to
		}
		s.pacer.setRate(&s.ctl, tp.rtt.srtt, tp.sndNxt.Sub(tp.sndUna))
	}
	return 0
}

// CC returns its name.
func (tp *TCB) CC() string {
	switch {
	case tp.snr != nil:
		return tp.snr.ccName
	case tp.ccWant != 0:
		return CCNames()[tp.ccWant-1]
	}
	return tp.prof.CCName()
}
