package bsdnet_test

import (
	"go/ast"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"bsdnet"
	"bsdnet/internal/kern"
	"bsdnet/internal/kern/tcp"
)

// The tests in this file compare the facade with what is behind it: it tells all that the machine
// knows, and makes up nothing.

// TestConnInfoComplete: each field of the machine's tcp_info is told, and each field of ConnInfo
// is somebody's.
func TestConnInfoComplete(t *testing.T) {
	untold := []string{"SndZerowin"} // SendWindow says it
	zero := bsdnet.ConnInfoOf(&kern.Conn{})
	told := map[string]bool{"Local": true, "Remote": true}
	changes := func(c *kern.Conn) (names []string) {
		got, was := reflect.ValueOf(bsdnet.ConnInfoOf(c)), reflect.ValueOf(zero)
		for i := range got.NumField() {
			if !reflect.DeepEqual(got.Field(i).Interface(), was.Field(i).Interface()) {
				names = append(names, got.Type().Field(i).Name)
			}
		}
		return names
	}
	see := func(name string, c *kern.Conn, want int) {
		names := changes(c)
		if len(names) != want {
			t.Errorf("%s is told by fields %v; want %d", name, names, want)
		}
		for _, n := range names {
			told[n] = true
		}
	}
	info := reflect.TypeFor[tcp.Info]()
	for i := range info.NumField() {
		name := info.Field(i).Name
		var c kern.Conn
		want := 1
		switch f := reflect.ValueOf(&c.Info).Elem().Field(i); {
		case name == "Options":
			f.SetUint(math.MaxUint8)
			want = 4
		case name == "State", name == "SndQ", name == "RcvQ": // kern.Conn has them
			want = 0
		case slices.Contains(untold, name):
			want = 0
		case f.CanInt():
			f.SetInt(5)
		case f.CanUint():
			f.SetUint(5)
		case f.Kind() == reflect.Bool:
			f.SetBool(true)
		case f.Kind() == reflect.String:
			f.SetString("x")
		default:
			t.Fatalf("field %s is a %v", name, f.Kind())
		}
		see(name, &c, want)
	}
	for option, name := range map[uint8]string{tcp.OptTimestamps: "Timestamps", tcp.OptSACK: "SACK",
		tcp.OptWscale: "WindowScale", tcp.OptECN: "ECN"} {
		if got := changes(&kern.Conn{Info: tcp.Info{Options: option}}); !slices.Equal(got, []string{name}) {
			t.Errorf("option %d is told by %v; want %s", option, got, name)
		}
	}
	see("Conn", &kern.Conn{ID: 5, State: tcp.Established, SndQ: 5, RcvQ: 5, SndBuf: 5, RcvBuf: 5}, 6)
	all := reflect.TypeFor[bsdnet.ConnInfo]()
	for i := range all.NumField() {
		if name := all.Field(i).Name; !told[name] {
			t.Errorf("nothing is told by ConnInfo.%s", name)
		}
	}
	if got := bsdnet.ConnInfoOf(&kern.Conn{Info: tcp.Info{SndSsthresh: 65535 << 14}}).Ssthresh; got != 0 {
		t.Errorf("a threshold beyond any window is told as %d", got)
	}
}

// TestUDPInfoComplete: each field of a socket's line is told, by a field of its own.
func TestUDPInfoComplete(t *testing.T) {
	zero := reflect.ValueOf(bsdnet.UDPInfoOf(&kern.Dgram{}))
	line := reflect.TypeFor[kern.Dgram]()
	told := map[string]bool{}
	for i := range line.NumField() {
		var d kern.Dgram
		switch f := reflect.ValueOf(&d).Elem().Field(i); {
		case f.CanInt():
			f.SetInt(5)
		case f.CanUint():
			f.SetUint(5)
		default:
			f.Set(reflect.ValueOf(netip.AddrPortFrom(netip.AddrFrom4([4]byte{1}), 5)))
		}
		got := reflect.ValueOf(bsdnet.UDPInfoOf(&d))
		n := 0
		for j := range got.NumField() {
			if got.Field(j).Interface() != zero.Field(j).Interface() {
				told[got.Type().Field(j).Name] = true
				n++
			}
		}
		if n != 1 {
			t.Errorf("%s is told by %d fields", line.Field(i).Name, n)
		}
	}
	if len(told) != zero.NumField() {
		t.Errorf("only %v are told of UDPInfo's fields", told)
	}
}

// TestStatsComplete: Stats has each counter of the kernel's that is counted anywhere, and no
// others.
func TestStatsComplete(t *testing.T) {
	counted := map[string]bool{} // names of fields on which Inc or Add is called
	eachSource(t, func(s *source) {
		if s.test || s.dir != "internal/kern" && s.dir != "internal/kern/tcp" {
			return
		}
		ast.Inspect(s.File, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				if m, ok := call.Fun.(*ast.SelectorExpr); ok && (m.Sel.Name == "Inc" || m.Sel.Name == "Add") {
					if f, ok := m.X.(*ast.SelectorExpr); ok {
						counted[f.Sel.Name] = true
					}
				}
			}
			return true
		})
	})
	kernel, _ := reflect.TypeFor[kern.Kernel]().FieldByName("Stats")
	groups, have := kernel.Type, reflect.TypeFor[bsdnet.Stats]()
	for i := range groups.NumField() {
		name := groups.Field(i).Name
		group, ok := have.FieldByName(name)
		if !ok {
			t.Errorf("Stats has no %s", name)
			continue
		}
		from := groups.Field(i).Type
		for j := range from.NumField() {
			c := from.Field(j).Name
			if f, ok := group.Type.FieldByName(c); ok != counted[c] {
				t.Errorf("%s.%s is counted: %v; it is in Stats: %v", name, c, counted[c], ok)
			} else if ok && f.Type.Kind() != reflect.Uint64 {
				t.Errorf("Stats.%s.%s is a %v", name, c, f.Type)
			}
		}
		for j := range group.Type.NumField() {
			if c := group.Type.Field(j).Name; !counted[c] {
				t.Errorf("Stats.%s.%s is no counter of the kernel's", name, c)
			} else if _, ok := from.FieldByName(c); !ok {
				t.Errorf("Stats.%s.%s is of another group", name, c)
			}
		}
	}
}

// TestTraceKinds: the facade's kinds are the machine's.
func TestTraceKinds(t *testing.T) {
	names := map[string]bool{}
	for k, want := range map[bsdnet.TraceKind]tcp.EventKind{
		bsdnet.TraceState: tcp.EvState, bsdnet.TraceTimer: tcp.EvTimer, bsdnet.TraceRTT: tcp.EvRTT,
		bsdnet.TraceWindow:   tcp.EvWindow,
		bsdnet.TraceRecovery: tcp.EvRecovery, bsdnet.TraceLost: tcp.EvLost, bsdnet.TraceSent: tcp.EvSent,
		bsdnet.TraceRetransmit: tcp.EvRetransmit, bsdnet.TraceAck: tcp.EvAck, bsdnet.TraceUndo: tcp.EvUndo,
		bsdnet.TraceMTU: tcp.EvMTU,
	} {
		if k != bsdnet.TraceKind(want) {
			t.Errorf("%v is %d, and the machine's %d", k, k, want)
		}
		names[k.String()] = true
	}
	last := bsdnet.TraceMTU
	if len(names) != int(last)+1 || (last+1).String() != "TraceKind(11)" {
		t.Errorf("%d names %v, and then %v", len(names), names, last+1)
	}
}
