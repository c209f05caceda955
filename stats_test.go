package bsdnet_test

import (
	"bytes"
	"encoding/binary"
	"go/ast"
	"io"
	"net"
	"net/netip"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet"
	"bsdnet/internal/kern"
)

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

// frames returns how many packets, and bytes of them, a capture has.
func frames(t *testing.T, b []byte) (packets, bytes uint64) {
	t.Helper()
	for b = b[24:]; len(b) > 0; packets++ {
		n := uint64(binary.LittleEndian.Uint32(b[8:]))
		bytes += n
		b = b[16+n:]
	}
	return packets, bytes
}

// TestStats: what two stacks have counted is what a link between them, and captures, have seen.
func TestStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, err := bsdnet.Pipe(bsdnet.PipeConfig{Delay: 10 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		bad, err := bsdnet.Impair(a, bsdnet.ImpairConfig{Write: bsdnet.Impairment{Loss: 0.02}, Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		sender := stack(t, bsdnet.Config{Rand: fixedRand(1), Memory: 64 << 20})
		receiver := stack(t, bsdnet.Config{Rand: fixedRand(2), NoLoopback: true})
		addr := netip.MustParsePrefix("10.0.0.1/24")
		if err := sender.Attach(bad, addr); err != nil {
			t.Fatal(err)
		}
		if err := receiver.Attach(b, netip.MustParsePrefix("10.0.0.2/24")); err != nil {
			t.Fatal(err)
		}
		var pcap bytes.Buffer
		stop, err := receiver.Capture(b, &pcap)
		if err != nil {
			t.Fatal(err)
		}
		ln, err := receiver.Listen("tcp", ":80")
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan int64)
		go func() {
			c, err := ln.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			n, _ := io.Copy(io.Discard, c)
			c.Close()
			got <- n
		}()
		if _, err := sender.Dial("tcp", "10.0.0.2:81"); err == nil {
			t.Error("somebody listens on port 81")
		}
		c, err := sender.Dial("tcp", "10.0.0.2:80")
		if err != nil {
			t.Fatal(err)
		}
		const size = 1_000_000
		c.Write(make([]byte, size))
		c.Close()
		if n := <-got; n != size {
			t.Fatalf("%d bytes of %d arrived", n, size)
		}
		time.Sleep(time.Second)
		if err := stop(); err != nil {
			t.Fatal(err)
		}

		s, r := sender.Stats(), receiver.Stats()
		if s.TCP.Connattempt != 2 || s.TCP.Connects != 1 || s.TCP.Conndrops != 1 || r.TCP.Accepts != 1 ||
			r.TCP.Noport != 1 || r.TCP.ScCompleted != 1 {
			t.Errorf("connections:\n%+v\n%+v", s.TCP, r.TCP)
		}
		if s.TCP.Sndbyte != size || s.TCP.Sndrexmitpack == 0 || s.TCP.Rttupdated == 0 ||
			r.TCP.Rcvbyte+r.TCP.Rcvoobyte < size || r.TCP.Rcvoopack == 0 {
			t.Errorf("segments:\n%+v\n%+v", s.TCP, r.TCP)
		}
		if s.TCP.Rcvtotal != s.IP.Delivered || s.IP.Total != s.IP.Delivered || r.IP.Localout == 0 || s.IP.Noroute != 0 {
			t.Errorf("packets:\n%+v\n%+v", s.IP, r.IP)
		}
		if len(s.Interfaces) != 2 || len(r.Interfaces) != 1 {
			t.Fatalf("interfaces %+v and %+v", s.Interfaces, r.Interfaces)
		}
		lo, out, in := s.Interfaces[0], s.Interfaces[1], r.Interfaces[0]
		if lo.Name != "lo0" || lo.Link != nil || lo.MTU != 65535 || !lo.Up || lo.PacketsIn+lo.PacketsOut != 0 ||
			lo.Addrs[0] != netip.MustParsePrefix("127.0.0.1/8") {
			t.Errorf("loopback %+v", lo)
		}
		if out.Name != "if0" || out.Link != bsdnet.Link(bad) || out.MTU != 1500 || !out.Up || len(out.Addrs) != 1 ||
			out.Addrs[0] != addr {
			t.Errorf("interface %+v", out)
		}
		way := bad.Stats()
		packets, octets := frames(t, pcap.Bytes())
		if out.PacketsOut != way.Write.Packets || out.PacketsIn != way.Read.Delivered ||
			out.PacketsIn != in.PacketsOut ||
			in.PacketsIn != way.Write.Delivered || out.BytesIn != in.BytesOut || out.BytesOut <= in.BytesIn {
			t.Errorf("interfaces %+v and %+v; between them %+v", out, in, way)
		}
		if packets != in.PacketsIn+in.PacketsOut || octets != in.BytesIn+in.BytesOut {
			t.Errorf("interface %+v; its capture has %d packets of %d bytes", in, packets, octets)
		}
		synctest.Wait()
		m := receiver.Stats().Memory // among others the buffers that wait for what arrives
		if buffers, octets := receiver.Outstanding(); m.Buffers != buffers || m.Bytes != octets || octets == 0 ||
			m.Limit != 832<<20 {
			t.Errorf("memory %+v; %d buffers of %d bytes are in use", m, buffers, octets)
		}
		if l := s.Memory.Limit; l != 52<<20 {
			t.Errorf("the limit of 64 MiB is %d bytes", l)
		}
	})
}

// TestStatsOfLoopback: what goes over the loopback goes out and comes in, with the bytes that a
// capture shows.
func TestStatsOfLoopback(t *testing.T) {
	s := stack(t, bsdnet.Config{})
	var pcap bytes.Buffer
	stop, err := s.Capture(nil, &pcap)
	if err != nil {
		t.Fatal(err)
	}
	c, p := pair(t, s.Listen, s.Dial)
	go func() {
		c.Write(make([]byte, 1_000_000))
		c.Close()
	}()
	if n, err := io.Copy(io.Discard, p); n != 1_000_000 || err != nil {
		t.Fatal(n, err)
	}
	p.Close()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	packets, octets := frames(t, pcap.Bytes())
	lo := s.Stats().Interfaces[0]
	// A capture cuts what the loopback carries whole, and puts headers of IP and TCP, with timestamps, before each piece.
	const headers = 20 + 20 + 12
	if cuts := packets - lo.PacketsOut; lo.PacketsIn != lo.PacketsOut || lo.BytesIn != lo.BytesOut ||
		lo.BytesOut != octets-cuts*headers ||
		lo.PacketsOut < 6 || lo.PacketsOut > packets || octets < 1_000_000 {
		t.Errorf("%+v; the capture has %d packets of %d bytes", lo, packets, octets)
	}
}

// A brokenLink fails when it is first read.
type brokenLink struct{ bsdnet.Link }

func (l brokenLink) Read([][]byte, []int) (int, error) { return 0, io.ErrUnexpectedEOF }
func (l brokenLink) Write([]net.Buffers) (int, error)  { return 0, io.ErrUnexpectedEOF }

// TestStatsOfBrokenLink: an interface whose link has failed is down.
func TestStatsOfBrokenLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _, err := bsdnet.Pipe(bsdnet.PipeConfig{})
		if err != nil {
			t.Fatal(err)
		}
		s := stack(t, bsdnet.Config{NoLoopback: true})
		if err := s.Attach(brokenLink{a}, netip.MustParsePrefix("10.0.0.1/24")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if i := s.Stats().Interfaces[0]; i.Up || i.Link != bsdnet.Link(brokenLink{a}) {
			t.Errorf("%+v", i)
		}
	})
}
