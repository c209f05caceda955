package tcp

import "testing"

// TestKeepaliveOver: probes are counted, or the time if there is a user time-out, and never is one
// probe enough because the peer had been silent before (RFC 9293, MUST-29).
func TestKeepaliveOver(t *testing.T) {
	p := FreeBSD()
	p.Keepcnt, p.UserTimeout = 8, false
	byTime := FreeBSD()
	byTime.Keepcnt, byTime.UserTimeout = 8, true
	for _, c := range []struct {
		name          string
		k             keepalive
		silent, limit int64
		p             *Profile
		want          bool
	}{
		{"7 of the profile's 8", keepalive{probes: 7}, 1e6 * sec, 0, p, false},
		{"8 of the profile's 8", keepalive{probes: 8}, 0, 0, p, true},
		{"1 of 2", keepalive{count: 2, probes: 1}, 1e6 * sec, 0, p, false},
		{"2 of 2", keepalive{count: 2, probes: 2}, 0, 0, p, true},
		{"FreeBSD's user time-out does not count here", keepalive{probes: 1}, 10 * sec, 5 * sec, p, false},
		{"Linux's does", keepalive{probes: 1}, 5 * sec, 5 * sec, byTime, true},
		{"not yet", keepalive{probes: 9}, 5*sec - 1, 5 * sec, byTime, false},
		{"not before a probe", keepalive{}, 10 * sec, 5 * sec, byTime, false},
		{"none is set", keepalive{probes: 7}, 1e6 * sec, 0, byTime, false},
	} {
		if got := c.k.over(c.silent, c.limit, c.p); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	k := keepalive{count: 2, probes: 2}
	k.heard()
	if k != (keepalive{count: 2}) {
		t.Errorf("%+v after a segment", k)
	}
}

// TestPersistInterval: RFC 9293, SHLD-29 and SHLD-30, within the profile's bounds.
func TestPersistInterval(t *testing.T) {
	p := &Profile{PersMin: sec, PersMax: 60 * sec}
	for _, c := range []struct {
		rto  int64
		sent uint8
		want int64
	}{
		{200 * ms, 0, sec}, {200 * ms, 3, 1600 * ms}, {2 * sec, 0, 2 * sec}, {2 * sec, 1, 4 * sec},
		{2 * sec, 4, 32 * sec},
		{2 * sec, 5, 60 * sec}, {2 * sec, 63, 60 * sec}, {ms, maxPersistShift + 1, 4096 * ms},
	} {
		if got := p.persistInterval(c.rto, c.sent); got != c.want {
			t.Errorf("time-out %d, %d sent: the next after %d, want %d", c.rto, c.sent, got, c.want)
		}
	}
	if got := p.persistSilence(100 * ms); got != 600*sec {
		t.Errorf("a short round trip: given up after %d", got)
	}
	if got := p.persistSilence(2 * sec); got != 1022*sec {
		t.Errorf("a long round trip: given up after %d", got)
	}
}
