package tcp

import (
	"cmp"
	"slices"
	"syscall"
)

// defaultCC is what a connection has if nobody chooses.
const defaultCC = "cubic"

// SetCC chooses the congestion controller of the connection by its name. ENOENT: there is none of that name, or the profile has but one. The window stays as it is.
func (tp *TCB) SetCC(name string, now int64) syscall.Errno {
	i := slices.Index(CCNames(), name)
	if i < 0 || !tp.prof.Scoreboard && name != tp.ccName() {
		return syscall.ENOENT
	}
	tp.ccWant = uint8(i + 1)
	if s := tp.snr; s != nil && s.ccName != name {
		old := s.ctl
		s.ccName, s.cc, s.ctl = name, NewCC(name), Control{}
		tp.lookNow(tp.onwards(now))
		s.cc.Init(&s.view, &s.ctl)
		s.ctl.Cwnd, s.ctl.Ssthresh = max(old.Cwnd, s.ctl.Cwnd), old.Ssthresh
		s.pacer.setRate(&s.ctl, tp.srtt)
	}
	return 0
}

// CC returns its name.
func (tp *TCB) CC() string { return tp.ccName() }

// ccName is the name of the connection's congestion controller.
func (tp *TCB) ccName() string {
	switch {
	case tp.snr != nil:
		return tp.snr.ccName
	case !tp.prof.Scoreboard:
		return "newreno"
	}
	if tp.ccWant != 0 {
		return CCNames()[tp.ccWant-1]
	}
	return cmp.Or(tp.prof.CC, defaultCC)
}
