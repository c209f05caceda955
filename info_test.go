package bsdnet_test

import (
	"io"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet"
	"bsdnet/internal/kern"
	"bsdnet/internal/kern/tcp"
)

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

// TestInfo: what a connection says of itself after a transfer with losses, and that Conns says
// the same.
func TestInfo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, err := bsdnet.Pipe(bsdnet.PipeConfig{MTU: 1400, Delay: 10 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		bad, err := bsdnet.Impair(a, bsdnet.ImpairConfig{Write: bsdnet.Impairment{Loss: 0.02}, Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		var id uint32
		sender := stack(t, bsdnet.Config{
			Rand: fixedRand(1), TCP: bsdnet.TCPConfig{WriteBuffer: 200_000},
			Trace: func(e *bsdnet.TraceEvent) { id = e.ConnID },
		})
		receiver := stack(t, bsdnet.Config{Rand: fixedRand(2), TCP: bsdnet.TCPConfig{ReadBuffer: 100_000}})
		if err := sender.Attach(bad, netip.MustParsePrefix("10.0.0.1/24")); err != nil {
			t.Fatal(err)
		}
		if err := receiver.Attach(b, netip.MustParsePrefix("10.0.0.2/24")); err != nil {
			t.Fatal(err)
		}
		ln, err := receiver.Listen("tcp", ":80")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		c, err := sender.Dial("tcp", "10.0.0.2:80")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		p, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		const size, unread = 1_000_000, 30_000
		go c.Write(make([]byte, size))
		if _, err := io.ReadFull(p, make([]byte, size-unread)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)

		i := c.(*bsdnet.TCPConn).Info()
		if i.ID != id || i.Local != netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), i.Local.Port()) ||
			i.Remote != netip.MustParseAddrPort("10.0.0.2:80") ||
			i.State != "ESTABLISHED" {
			t.Errorf("connection %d %v -> %v in %s", i.ID, i.Local, i.Remote, i.State)
		}
		if !i.Timestamps || !i.SACK || !i.WindowScale || i.ECN || i.SendScale == 0 || i.RecvScale == 0 {
			t.Errorf("options: %+v", i)
		}
		if i.SendBuffer < 200_000 || i.SendQueue != 0 || i.RecvQueue != 0 || i.MSS != 1360 || i.PeerMSS != 1360 {
			t.Errorf("buffers and segments: %+v", i)
		}
		if i.MinRTT < 20*time.Millisecond || i.RTT < i.MinRTT || i.RTTVar <= 0 || i.RTO < i.RTT+i.RTTVar ||
			i.Backoff != 0 {
			t.Errorf("round trips: %+v", i)
		}
		if i.Cwnd <= 0 || i.Ssthresh <= 0 || i.Ssthresh > 1_000_000 || i.InFlight != 0 || i.Sent != size ||
			i.Recv != 0 || i.Retransmits == 0 {
			t.Errorf("congestion: %+v", i)
		}
		r := p.(*bsdnet.TCPConn).Info()
		if r.RecvQueue != unread || r.Recv != size || r.Ssthresh != 0 || r.RecvBuffer < 100_000 || r.Retransmits != 0 {
			t.Errorf("the receiver: %+v", r)
		}
		// The peer has been told of a window of what is free, or somewhat more.
		if room := r.RecvBuffer - unread; i.SendWindow < room/2 || i.SendWindow > r.RecvBuffer ||
			i.SendWindow != r.RecvWindow || i.SendNext != r.RecvNext || r.SendNext != i.RecvNext {
			t.Errorf("the sender has a window of %d at %d; the receiver one of %d at %d", i.SendWindow, i.SendNext,
				r.RecvWindow, r.RecvNext)
		}
		if list := sender.Conns(); len(list) != 1 || list[0] != i {
			t.Errorf("Conns: %+v, want %+v", list, i)
		}
		list := receiver.Conns()
		if len(list) != 2 || list[0].State != "LISTEN" || list[0].ID == 0 || list[0].ID == list[1].ID ||
			list[0].RecvBuffer == 0 || list[1] != r {
			t.Errorf("Conns: %+v", list)
		}

		// In TIME_WAIT there is a record in the connection's place.
		p.Close()
		c.Close()
		time.Sleep(time.Second)
		for _, l := range slices.Concat(sender.Conns(), receiver.Conns()) {
			if l.State != "LISTEN" && (l.ID != 0 || l.Cwnd != 0) || strings.Contains(l.State, "(") {
				t.Errorf("after Close: %+v", l)
			}
		}
	})
}
