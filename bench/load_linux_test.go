package main

import "testing"

func TestSlabinfo(t *testing.T) {
	const info = "slabinfo - version: 2.1\n# name <active_objs> <num_objs> <objsize>\n" +
		"TCP 10 20 2304 14 8 : tunables 0 0 0\n" +
		"tw_sock_TCP 100 100 248 16 1 : tunables 0 0 0\nfilp 5 8 192 21 1 : tunables 0 0 0\n"
	if got := slabinfo(info); got != 10*2304+5*192 {
		t.Errorf("%v bytes", got)
	}
}

// The time that this process uses does not count as that of others.
func TestLoad(t *testing.T) {
	a := readLoad()
	for readLoad().own < a.own+0.05 {
	}
	l := readLoad().since(a)
	if l.own < 0.05 || l.dur <= 0 || l.all < 0.03 {
		t.Errorf("after 50 ms at work: %+v", l)
	}
	if o := l.others(); o < 0 || o > 1.5 {
		t.Errorf("others used %v of the machine", o)
	}
}
