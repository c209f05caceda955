package tcp

// A busyState says what a sender is doing.
type busyState uint8

const (
	idle       busyState = iota // there is nothing to send, and nothing in flight
	busy                        // it sends as the congestion window lets it
	rwndFull                    // the peer's window holds back data
	sndbufFull                  // the send buffer has been too small to fill the window
)

// chrono adds up how long a sender has been in each state: Linux's tcp_chrono.
type chrono struct {
	state busyState
	since int64
	total [sndbufFull + 1]int64
}

// tick ends the present state at now, and begins another.
func (c *chrono) tick(now int64, s busyState) {
	if c.state != s {
		c.total[c.state] += now - c.since
		c.state, c.since = s, now
	}
}

// sum returns the time in a state until now.
func (c *chrono) sum(s busyState, now int64) int64 {
	if c.state == s {
		return c.total[s] + now - c.since
	}
	return c.total[s]
}

// busyWith says what the sender is doing, with inflight bytes in flight and unsent bytes waiting.
func (tp *TCB) busyWith(inflight, unsent int) busyState {
	switch {
	case inflight == 0 && unsent == 0:
		return idle
	case unsent > 0 && int(tp.sndWnd)-inflight < min(unsent, tp.effMSS()):
		return rwndFull
	case unsent < tp.effMSS() && tp.snd.Space() <= 0 && tp.snr.ctl.Cwnd > tp.pipe():
		return sndbufFull
	}
	return busy
}
