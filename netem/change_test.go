package netem

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet/internal/kern/wire"
	"bsdnet/internal/link"
	"bsdnet/internal/link/ends"
)

// arrivals runs steps while packets are written to a, one in each millisecond, and returns the
// numbers of those that arrive at b and when, in milliseconds: "0@5 1@6".
func arrivals(t *testing.T, a, b link.Link, packets int, steps map[int]func()) string {
	t.Helper()
	from, to := ends.Start(t, a), ends.Start(t, b)
	start := time.Now()
	got := record(to, start)
	for i := range packets {
		if step := steps[i]; step != nil {
			step()
		}
		from.Send(net.Buffers{ends.Packet(1, i, 100)})
		time.Sleep(time.Millisecond)
	}
	time.Sleep(time.Minute)
	ends.Close(t, a, b)
	var list []string
	for _, p := range got() {
		list = append(list, fmt.Sprintf("%d@%d", ends.Number(p.data), p.at.Milliseconds()))
	}
	return strings.Join(list, " ")
}

// changer is what can be changed at run time.
type changer interface {
	link.Link
	Set(Path) error
	Path() Path
	SetFlows(...FlowPath) error
	Cut(Direction)
	Heal(Direction)
	Script(Direction, func(*Packet) Verdict)
	Stats() Stats
}

// changers are the links with a Path, each with the other end of its path.
var changers = map[string]func() (changer, link.Link){
	"Impaired": func() (changer, link.Link) {
		x, y := mustPipe(PipeConfig{})
		return mustImpair(x, Path{}), y
	},
	"Port": func() (changer, link.Link) { return switched(SwitchConfig{}) },
}

// switched returns two ports of a switch, each of which takes all packets from the other.
func switched(c SwitchConfig) (*Port, *Port) {
	s, err := NewSwitch(c)
	if err != nil {
		panic(err)
	}
	var ports [2]*Port
	for i := range ports {
		if ports[i], err = s.NewPort(PortConfig{Routes: prefixes("0.0.0.0/0", "::/0")}); err != nil {
			panic(err)
		}
	}
	return ports[0], ports[1]
}

// A change concerns the packets that are written in its instant or later. Those that are on their
// way arrive as they would have.
func TestChanges(t *testing.T) {
	far := Path{Write: Impairment{Delay: 3 * time.Millisecond}}
	odd := func(p *Packet) bool { return binary.BigEndian.Uint32(p.Data[28:])%2 == 1 }
	for _, c := range []struct {
		name  string
		steps func(l changer) map[int]func()
		want  string
		count func(Counts) uint64
		n     uint64
	}{
		{"Set", func(l changer) map[int]func() {
			return map[int]func(){2: func() { l.Set(far) }, 4: func() { l.Set(Path{}) }}
		}, "0@0 1@1 4@4 2@5 5@5 3@6", nil, 0},
		{"SetFlows", func(l changer) map[int]func() {
			return map[int]func(){1: func() { l.SetFlows(FlowPath{odd, far}) }, 5: func() { l.SetFlows() }}
		}, "0@0 1@4 2@4 5@5 3@6 4@6", nil, 0},
		{"Cut", func(l changer) map[int]func() {
			return map[int]func(){1: func() { l.Cut(Both) }, 3: func() { l.Heal(Write) }}
		}, "0@0 3@3 4@4 5@5", func(c Counts) uint64 { return c.Cut }, 2},
		// The first three are on their way when the cut begins, and the first would arrive during
		// the cut. The fourth is written during the cut.
		{"CutOnTheWay", func(l changer) map[int]func() {
			return map[int]func(){0: func() { l.Set(far) }, 3: func() { l.Cut(Write) }, 4: func() { l.Heal(Both) }}
		}, "1@4 2@5 4@7 5@8", func(c Counts) uint64 { return c.Cut }, 2},
		{"CutRead", func(l changer) map[int]func() { return map[int]func(){0: func() { l.Cut(Read) }} },
			"0@0 1@1 2@2 3@3 4@4 5@5", nil, 0},
		{"Script", func(l changer) map[int]func() {
			return map[int]func(){0: func() {
				l.Script(Both, func(p *Packet) Verdict {
					switch p.N {
					case 2:
						return Verdict{Drop: true}
					case 3:
						return Verdict{Delay: 2 * time.Millisecond}
					case 4:
						return Verdict{Duplicates: 2}
					}
					return Verdict{}
				})
			}, 5: func() { l.Script(Both, nil) }}
		}, "0@0 3@3 3@3 3@3 2@4 4@4 5@5", func(c Counts) uint64 { return c.Filtered }, 1},
	} {
		for name, mk := range changers {
			t.Run(c.name+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l, other := mk()
					if got := arrivals(t, l, other, 6, c.steps(l)); got != c.want {
						t.Errorf("arrivals %s; want %s", got, c.want)
					}
					s := l.Stats().Write
					if c.count != nil && c.count(s) != c.n {
						t.Errorf("%+v; want %d", s, c.n)
					}
					if s.Packets+s.Duplicated != s.Lost+s.Cut+s.Filtered+s.Dropped+s.Delivered {
						t.Errorf("the counts do not add up: %+v", s)
					}
				})
			})
		}
	}
}

// It makes no difference whether a packet is written before or after a change in the same instant.
func TestChangeWithinInstant(t *testing.T) {
	for _, first := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			l, other := switched(SwitchConfig{})
			a, _ := ends.Start(t, l), ends.Start(t, other)
			if first {
				a.Send(net.Buffers{ends.Packet(1, 0, 100)})
			}
			l.Cut(Write)
			if !first {
				a.Send(net.Buffers{ends.Packet(1, 0, 100)})
			}
			time.Sleep(time.Millisecond)
			if s := l.Stats().Write; s.Cut != 1 {
				t.Errorf("written before the cut %v: %+v", first, s)
			}
			ends.Close(t, l, other)
		})
	}
}

func TestChangeErrors(t *testing.T) {
	for name, mk := range changers {
		l, other := mk()
		bad := Path{Read: Impairment{Loss: 2}}
		for what, err := range map[string]error{
			"Set": l.Set(bad), "SetFlows": l.SetFlows(FlowPath{Match: func(*Packet) bool { return true }, Path: bad}),
		} {
			if err == nil || !strings.Contains(err.Error(), "Read.Loss: 2 ") {
				t.Errorf("%s, %s: %v", name, what, err)
			}
		}
		if err := l.SetFlows(FlowPath{}); err == nil || !strings.Contains(err.Error(), "Match is nil") {
			t.Errorf("%s: SetFlows without Match: %v", name, err)
		}
		if err := l.Set(Path{Write: Impairment{Delay: time.Second}, Seed: 7}); err != nil {
			t.Error(err)
		}
		if p := l.Path(); p.Write.Delay != time.Second || p.Write.Limit != defaultLimit || p.Seed != 0 {
			t.Errorf("%s: Path returns %+v", name, p)
		}
		l.Close()
		other.Close()
		l.Cut(Both) // has no effect, and no end to wait for
	}
	if im, err := Impair((*Link)(nil), Path{}); im != nil || !errors.Is(err, errNilLink) {
		t.Errorf("Impair of a nil *Link: %v, %v", im, err)
	}
}

// The changes of a Pipe.
func TestPipeChanges(t *testing.T) {
	for _, c := range []struct {
		config PipeConfig
		steps  func(a, b *Link) map[int]func()
		want   string
		lost   uint64
	}{
		{PipeConfig{}, func(a, b *Link) map[int]func() {
			return map[int]func(){1: func() { a.Cut(Write) }, 3: func() { a.Heal(Both) }, 4: func() { b.Cut(Read) },
				5: func() { b.Heal(Read); a.Cut(Read) }}
		}, "0@0 3@3 5@5", 3},
		{PipeConfig{Delay: 2 * time.Millisecond, Queue: 3}, func(a, b *Link) map[int]func() {
			// Number 2 is written in the instant of the cut, and arrives when it is over. Number 0
			// arrives directly behind the instant of the cut, and number 4 is written in the last
			// instant of it.
			return map[int]func(){2: func() { a.Cut(Write) }, 4: func() { a.Heal(Write) }}
		}, "2@4 5@7", 4},
		{PipeConfig{}, func(a, b *Link) map[int]func() {
			return map[int]func(){2: func() { a.SetDelay(5 * time.Millisecond) }, 4: func() { a.SetDelay(0) }}
		}, "0@0 1@1 2@2 5@5 3@8 4@9", 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			a, b := mustPipe(c.config)
			if got := arrivals(t, a, b, 6, c.steps(a, b)); got != c.want || a.Lost() != c.lost {
				t.Errorf("%+v: arrivals %s, %d lost; want %s, %d", c.config, got, a.Lost(), c.want, c.lost)
			}
		})
	}
	a, _ := mustPipe(PipeConfig{})
	if err := a.SetDelay(-1); err == nil || !strings.Contains(err.Error(), "Delay -1ns") {
		t.Errorf("SetDelay(-1): %v", err)
	}
}

// segment returns an IP packet with a TCP segment from port 1000 to port 80.
func segment(v6 bool, th wire.TCP, payload int) []byte {
	head := 20
	if v6 {
		head = 40
	}
	b := make([]byte, head+20+payload)
	th.Sport, th.Dport = 1000, 80
	th.Put(b[head:])
	if v6 {
		b[0], b[6], b[7] = 0x60, wire.ProtoTCP, 64
		binary.BigEndian.PutUint16(b[4:], uint16(20+payload))
		b[8], b[23], b[24], b[39] = 0xfd, 1, 0xfd, 2
	} else {
		(&wire.IPv4{Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"),
			Len: len(b), TTL: 64, Proto: wire.ProtoTCP}).Put(b)
	}
	return b
}

// What a script sees of a connection's packets, of both families.
func TestPacketView(t *testing.T) {
	const isn = 1<<32 - 2 // so that the numbers wrap
	lines := []struct {
		th      wire.TCP
		payload int
		want    string
	}{
		{wire.TCP{Seq: isn, Flags: wire.SYN, Win: 100}, 0, "1 Flags [S], seq 0, win 100, length 0"},
		{wire.TCP{Seq: isn, Flags: wire.SYN, Win: 100}, 0, "2 Flags [S], seq 0, win 100, length 0 (retransmission)"},
		{wire.TCP{Seq: isn + 1, Ack: 501, Flags: wire.ACK}, 0, "3 Flags [.], ack 1, win 0, length 0"},
		{wire.TCP{Seq: 0xffffffff, Ack: 501, Flags: wire.ACK | wire.PUSH}, 5,
			"4 Flags [P.], seq 1:6, ack 1, win 0, length 5"},
		{wire.TCP{Seq: 4, Ack: 601, Flags: wire.ACK}, 5, "5 Flags [.], seq 6:11, ack 101, win 0, length 5"},
		{wire.TCP{Seq: 0xffffffff, Ack: 601, Flags: wire.ACK | wire.PUSH}, 5,
			"6 Flags [P.], seq 1:6, ack 101, win 0, length 5 (retransmission)"},
		{wire.TCP{Seq: 8, Ack: 601, Flags: wire.ACK}, 0, "7 Flags [.], ack 101, win 0, length 0"}, // keep-alive probes
		{wire.TCP{Seq: 8, Ack: 601, Flags: wire.ACK}, 1, "8 Flags [.], seq 10:11, ack 101, win 0, length 1"},
		{wire.TCP{Seq: 9, Ack: 601, Flags: wire.ACK | wire.FIN}, 0, "9 Flags [F.], seq 11, ack 101, win 0, length 0"},
		{wire.TCP{Seq: 9, Ack: 601, Flags: wire.ACK | wire.FIN}, 0,
			"10 Flags [F.], seq 11, ack 101, win 0, length 0 (retransmission)"},
		{wire.TCP{Seq: 10, Flags: wire.RST}, 0, "11 Flags [R], seq 12, win 0, length 0"},
		{wire.TCP{Seq: 7000, Flags: wire.SYN}, 0, "1 Flags [S], seq 0, win 0, length 0"}, // a new connection
	}
	for _, v6 := range []bool{false, true} {
		var table flowTable
		table.init(1)
		names := "10.0.0.1.1000 > 10.0.0.2.80: "
		if v6 {
			names = "fd00::1.1000 > fd00::2.80: "
		}
		for _, l := range lines {
			p := copyPacket(net.Buffers{segment(v6, l.th, l.payload)}, 1500)
			p.flow = flowOf(p.data)
			var v, again Packet
			v.look(p, table.get(&p.flow))
			if got := fmt.Sprint(v.N, " ", strings.TrimPrefix(v.String(), names)); got != l.want {
				t.Errorf("%s; want %s", got, l.want)
			}
			if again.look(p, nil); again.String() != v.String() || again.N != v.N {
				t.Errorf("when it arrives %s; when it came %s", &again, &v)
			}
		}
	}
	// A connection whose SYN has not passed.
	p := copyPacket(net.Buffers{segment(false, wire.TCP{Seq: 700, Ack: 900, Flags: wire.ACK}, 3)}, 1500)
	p.flow = flowOf(p.data)
	var v Packet
	v.look(p, new(flow))
	if v.Seq != 1 || v.Ack != 1 || v.Retransmission {
		t.Errorf("in the middle of a connection: %v", &v)
	}
	fragment := segment(false, wire.TCP{}, 8)
	fragment[6] = 0x20 // more fragments
	icmp := segment(false, wire.TCP{}, 0)
	icmp[9] = wire.ProtoICMP
	proto := slices.Clone(icmp)
	proto[9] = 99
	for want, b := range map[string][]byte{
		"10.0.0.1 > b: fragment of protocol 6, length 48": fragment,
		"10.0.0.1.7 > b.9: UDP, length 12":                ends.Packet(7, 0, 40),
		"10.0.0.1 > b: ICMP, length 12":                   icmp,
		"10.0.0.1 > b: protocol 99, length 20":            proto,
		"not IP, length 3":                                {1, 2, 3},
	} {
		p := copyPacket(net.Buffers{b}, 1500)
		p.flow = flowOf(p.data)
		var v Packet
		v.look(p, new(flow))
		got := v.Notation(func(a netip.Addr) string {
			if a == netip.MustParseAddr("10.0.0.2") {
				return "b"
			}
			return ""
		})
		if got != want {
			t.Errorf("%s; want %s", got, want)
		}
	}
}
