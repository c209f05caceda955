package netem

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet"
	"bsdnet/internal/link/ends"
	"bsdnet/internal/testutil"
	"bsdnet/linktest"
)

func prefixes(list ...string) (p []netip.Prefix) {
	for _, s := range list {
		p = append(p, netip.MustParsePrefix(s))
	}
	return p
}

func TestSwitchContract(t *testing.T) {
	connect := func(t testing.TB) (a, b bsdnet.Link) { return switched(SwitchConfig{}) }
	linktest.Test(t, linktest.Config{Connect: connect})
	linktest.Test(t, linktest.Config{Connect: connect, Bubble: true})
}

// lan is two switches with a trunk. Ports a and b are on the first, c and r on the second, and r
// leads to all other addresses.
type lan struct {
	left, right *Switch
	trunk       *Trunk
	ports       map[string]*Port
	addrs       map[string]netip.Addr
}

func newLAN(t *testing.T, c SwitchConfig) *lan {
	t.Helper()
	l := &lan{ports: map[string]*Port{}, addrs: map[string]netip.Addr{}}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	l.left, err = NewSwitch(c)
	must(err)
	c.With = l.left
	l.right, err = NewSwitch(c)
	must(err)
	l.trunk, err = l.left.Connect(l.right, TrunkConfig{Name: "trunk"})
	must(err)
	for i, name := range []string{"a", "b", "c", "r"} {
		sw, config := l.left, PortConfig{Name: name, Addrs: prefixes(
			fmt.Sprintf("10.0.0.%d/24", i+1), fmt.Sprintf("fd00::%d/64", i+1))}
		if i >= 2 {
			sw = l.right
		}
		if name == "r" {
			config.Routes = prefixes("0.0.0.0/0", "::/0", "10.2.0.0/16")
		}
		l.ports[name], err = sw.NewPort(config)
		must(err)
		l.addrs[name] = config.Addrs[0].Addr()
		l.addrs[name+"6"] = config.Addrs[1].Addr()
	}
	return l
}

// packetTo returns a packet of 60 bytes to dst.
func packetTo(number int, dst netip.Addr) net.Buffers {
	b := ends.Packet(1, number, 60)
	if dst.Is4() {
		copy(b[16:20], dst.AsSlice())
		return net.Buffers{b}
	}
	b[0], b[6], b[7] = 0x60, 17, 64
	binary.BigEndian.PutUint16(b[4:], 20)
	copy(b[24:40], dst.AsSlice())
	return net.Buffers{b}
}

// A packet goes to the port of its destination, and nowhere else.
func TestSwitchForwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN(t, SwitchConfig{})
		start := time.Now()
		got := map[string]func() []arrival{}
		for name, p := range l.ports {
			got[name] = record(ends.Start(t, p), start)
		}
		want := map[string][]int{}
		for i, c := range []struct{ from, dst, to string }{
			{"a", "10.0.0.2", "b"},
			{"a", "10.0.0.3", "c"},
			{"c", "10.0.0.1", "a"},
			{"a", "fd00::3", "c"},
			{"c", "fd00::2", "b"},
			{"a", "192.0.2.1", "r"},
			{"b", "2001:db8::1", "r"},
			{"r", "192.0.2.1", ""}, // not back
			{"r", "10.0.0.2", "b"},
			{"a", "10.0.0.255", "b c r"},
			{"c", "255.255.255.255", "a b r"},
			{"r", "224.0.0.251", "a b c"},
			{"b", "ff02::1", "a c r"},
		} {
			number := i + 1
			l.ports[c.from].Write([]net.Buffers{packetTo(number, netip.MustParseAddr(c.dst))})
			for name := range strings.FieldsSeq(c.to) {
				want[name] = append(want[name], number)
			}
			time.Sleep(time.Millisecond)
		}
		if s := l.left.Stats(); s != (SwitchStats{Flooded: 4}) {
			t.Errorf("left: %+v", s)
		}
		if s := l.right.Stats(); s != (SwitchStats{NoPort: 1, Flooded: 4}) {
			t.Errorf("right: %+v", s)
		}
		// A port that is closed is no place to go to.
		l.ports["c"].Close()
		l.ports["a"].Write([]net.Buffers{packetTo(20, l.addrs["c"])})
		want["r"] = append(want["r"], 20)
		time.Sleep(time.Millisecond)
		// Another port leads to the rest.
		l.ports["r"].SetRoutes(nil)
		l.ports["b"].SetRoutes(prefixes("192.0.0.0/8"))
		l.ports["a"].Write([]net.Buffers{packetTo(21, netip.MustParseAddr("192.0.2.1"))})
		want["b"] = append(want["b"], 21)
		time.Sleep(time.Millisecond)
		for _, name := range []string{"a", "b", "r"} {
			l.ports[name].Close()
		}
		for name := range l.ports {
			var numbers []int
			for _, p := range got[name]() {
				number := ends.Number(p.data)
				if p.data[0]>>4 == 6 {
					number = int(p.data[59])/59 - 1
				}
				numbers = append(numbers, number)
			}
			if name == "" || len(numbers) != len(want[name]) {
				t.Errorf("%s gets %v; want %v", name, numbers, want[name])
			}
		}
	})
}

// Packets arrive one at an instant, in the same order and with the same events in every run, over
// switches too, whatever order goroutines write in.
func TestSwitchDeterminism(t *testing.T) {
	run := func(seed uint64) (all []string) {
		synctest.Test(t, func(t *testing.T) {
			l := newLAN(t, SwitchConfig{Seed: seed, Trace: func(e *Event) {
				p := e.Packet
				all = append(all, fmt.Sprint(e.Time.UnixNano(), e.Link, e.Direction, e.Kind, e.Reason, p.N, p))
			}})
			bad := Impairment{Loss: 0.2, Duplicate: 0.2, Jitter: time.Millisecond, Reorder: 0.1, Corrupt: 0.1}
			l.trunk.Set(Path{Write: bad})
			l.ports["c"].Set(Path{Read: bad, Write: bad})
			for name, p := range l.ports {
				e := ends.Start(t, p)
				record(e, time.Now())
				for i := range 3 {
					go func() {
						for n := range 30 {
							for to := range l.ports {
								if to != name {
									b := packetTo(n, l.addrs[to])
									b[0][20] = byte(i + 1)
									e.Write([]net.Buffers{b})
								}
							}
							time.Sleep(time.Millisecond)
						}
					}()
				}
			}
			time.Sleep(time.Second)
			for _, p := range l.ports {
				p.Close()
			}
		})
		return all
	}
	first := run(1)
	if len(first) < 2000 {
		t.Fatalf("only %d events", len(first))
	}
	for range 3 {
		if again := run(1); !slices.Equal(first, again) {
			for i := range first {
				if i >= len(again) || first[i] != again[i] {
					t.Fatalf("event %d is\n%s\nthen\n%s", i, first[i], again[i])
				}
			}
			t.Fatal("a run has more events")
		}
	}
	if slices.Equal(first, run(2)) {
		t.Error("seeds 1 and 2 give the same run")
	}
}

// A trunk is changed, and a gate decides about a packet when it arrives.
func TestTrunkAndGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reasons []string
		l := newLAN(t, SwitchConfig{Trace: func(e *Event) {
			if e.Kind == EventDropped {
				reasons = append(reasons, fmt.Sprintf("%s %d: %s", e.Link, e.Direction, e.Reason))
			}
		}})
		a, c := ends.Start(t, l.ports["a"]), ends.Start(t, l.ports["c"])
		send := func() {
			a.Write([]net.Buffers{packetTo(0, l.addrs["c"])})
			time.Sleep(time.Second)
		}
		l.trunk.Set(Path{Write: Impairment{Delay: time.Millisecond}})
		send()
		l.trunk.Cut(Write)
		send()
		l.trunk.Heal(Write)
		l.trunk.SetFlows(FlowPath{func(p *Packet) bool { return true }, Path{Write: Impairment{Loss: 1}}})
		send()
		l.trunk.SetFlows()
		l.trunk.Script(Write, func(*Packet) Verdict { return Verdict{Drop: true, Reason: "script"} })
		send()
		l.trunk.Script(Write, nil)
		l.ports["c"].Gate(func(*Packet) Verdict { return Verdict{Drop: true, Reason: "gate"} })
		send()
		down := false
		l.ports["c"].Gate(func(*Packet) Verdict { return Verdict{Drop: down, Reason: "applied"} })
		l.left.Apply(func() { down = true })
		send()
		l.ports["c"].Gate(nil)
		send()
		c.Receive(t, 2)
		want := []string{"trunk 1: cut", "trunk 1: lost", "trunk 1: script", "c 2: gate", "c 2: applied"}
		if !slices.Equal(reasons, want) {
			t.Errorf("drops %q; want %q", reasons, want)
		}
		if s := l.trunk.Stats().Write; s.Packets != 7 || s.Delivered != 4 {
			t.Errorf("%+v", s)
		}
		if d := l.trunk.Path().Write.Delay; d != time.Millisecond {
			t.Errorf("Delay %v", d)
		}
		if err := l.ports["c"].Inject(packetTo(9, l.addrs["c"])[0]); err != nil {
			t.Error(err)
		}
		if got := c.Receive(t, 1); len(got) != 1 || !bytes.Equal(got[0], packetTo(9, l.addrs["c"])[0]) {
			t.Errorf("injected: %v", got)
		}
		for _, p := range l.ports {
			p.Close()
		}
		if err := l.ports["c"].Inject([]byte{1}); err != net.ErrClosed {
			t.Errorf("Inject after Close: %v", err)
		}
	})
}

// What a stack has written before it closes its port still arrives.
func TestPortClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN(t, SwitchConfig{})
		l.ports["a"].Set(Path{Write: Impairment{Delay: time.Second}})
		a, c := ends.Start(t, l.ports["a"]), ends.Start(t, l.ports["c"])
		a.Write([]net.Buffers{packetTo(0, l.addrs["c"])})
		ends.Close(t, a)
		c.Receive(t, 1)
		ends.Close(t, c, l.ports["b"], l.ports["r"])
		if n := len(l.left.net.sched.lines); n != 2 { // those of the trunk
			t.Errorf("%d lines are left", n)
		}
		// The network can be used again.
		p, err := l.left.NewPort(PortConfig{Addrs: prefixes("10.0.0.1/24")})
		if err != nil {
			t.Fatal(err)
		}
		q, err := l.right.NewPort(PortConfig{Addrs: prefixes("10.0.0.3/24")})
		if err != nil {
			t.Fatal(err)
		}
		a, c = ends.Start(t, p), ends.Start(t, q)
		a.Write([]net.Buffers{packetTo(0, l.addrs["c"])})
		c.Receive(t, 1)
		ends.Close(t, a, c)
	})
}

func TestSwitchErrors(t *testing.T) {
	s, _ := NewSwitch(SwitchConfig{})
	near, _ := NewSwitch(SwitchConfig{With: s})
	far, _ := NewSwitch(SwitchConfig{})
	port := func(s *Switch, c PortConfig) error { _, err := s.NewPort(c); return err }
	connect := func(to *Switch, c TrunkConfig) error { _, err := s.Connect(to, c); return err }
	mtu := func(n int) error { _, err := NewSwitch(SwitchConfig{MTU: n}); return err }
	if err := connect(near, TrunkConfig{}); err != nil {
		t.Fatal(err)
	}
	if err := port(near, PortConfig{Addrs: prefixes("10.0.0.1/24")}); err != nil {
		t.Fatal(err)
	}
	for want, err := range map[string]error{
		"MTU 1 ":           mtu(1),
		"MTU 65536 ":       mtu(65536),
		"Queue -1 ":        port(s, PortConfig{Queue: -1}),
		"Write.Loss: 3 ":   port(s, PortConfig{Path: Path{Write: Impairment{Loss: 3}}}),
		"has 10.0.0.1":     port(s, PortConfig{Addrs: prefixes("10.0.0.1/8")}),
		"invalid Prefix ":  new(Port).SetRoutes(make([]netip.Prefix, 1)),
		"invalid Prefix":   port(s, PortConfig{Routes: make([]netip.Prefix, 1)}),
		"two networks":     connect(far, TrunkConfig{}),
		"connected alread": connect(near, TrunkConfig{}),
		"Read.Loss: 3 ":    connect(far, TrunkConfig{Path: Path{Read: Impairment{Loss: 3}}}),
	} {
		if strings.HasPrefix(want, "Read") {
			lone, _ := NewSwitch(SwitchConfig{With: s})
			err = connect(lone, TrunkConfig{Path: Path{Read: Impairment{Loss: 3}}})
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want an error with %q", err, want)
		}
	}
	if err := connect(s, TrunkConfig{}); err == nil {
		t.Error("a switch is connected to itself")
	}
}

func TestSwitchAllocs(t *testing.T) {
	if testutil.Race {
		t.Skip("the race detector makes pools forget")
	}
	s, _ := NewSwitch(SwitchConfig{Trace: func(*Event) {}})
	x, _ := s.NewPort(PortConfig{Routes: prefixes("0.0.0.0/0")})
	y, _ := s.NewPort(PortConfig{Routes: prefixes("0.0.0.0/0")})
	testAllocs(t, x, y)
}
