package contract

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet"
	"bsdnet/internal/testutil"
	"bsdnet/netem"
)

// frames returns the number of packets in a capture, and of their bytes.
func frames(t *testing.T, b []byte) (packets, bytes uint64) {
	t.Helper()
	for b = b[24:]; len(b) > 0; packets++ {
		n := uint64(binary.LittleEndian.Uint32(b[8:]))
		bytes += n
		b = b[16+n:]
	}
	return packets, bytes
}

// TestStats tests that the counters of two stacks agree with those of the link between them, and
// with captures.
func TestStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, err := netem.Pipe(netem.PipeConfig{Delay: 10 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		bad, err := netem.Impair(a, netem.Path{Write: netem.Impairment{Loss: 0.02}, Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		sender := stack(t, bsdnet.Config{Rand: testutil.SeededRand(1), Memory: 64 << 20})
		receiver := stack(t, bsdnet.Config{Rand: testutil.SeededRand(2), NoLoopback: true})
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
		m := receiver.Stats().Memory // it includes the buffers that wait for packets
		if m.Buffers == 0 || m.Bytes == 0 || m.Limit != 832<<20 {
			t.Errorf("memory %+v", m)
		}
		if l := s.Memory.Limit; l != 52<<20 {
			t.Errorf("the limit of 64 MiB is %d bytes", l)
		}
	})
}

// TestStatsOfMemory tests that data that has arrived takes memory until it is read, and that a
// closed stack has no memory.
func TestStatsOfMemory(t *testing.T) {
	inBubble(t, cable, func(t *testing.T, n *network) {
		c, p := n.pair(t)
		synctest.Wait()
		before := n.server.Stats().Memory
		const unread = 50_000
		if _, err := c.Write(make([]byte, unread)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		full := n.server.Stats().Memory
		if full.Bytes < before.Bytes+unread || full.Buffers <= before.Buffers {
			t.Errorf("%+v before, and %+v with %d bytes unread", before, full, unread)
		}
		if _, err := io.ReadFull(p, make([]byte, unread)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if after := n.server.Stats().Memory; after.Bytes > full.Bytes-unread || after.Buffers >= full.Buffers {
			t.Errorf("%+v with %d bytes unread, and %+v when they have been read", full, unread, after)
		}
		n.server.Close()
		if m := n.server.Stats().Memory; m.Bytes != 0 || m.Buffers != 0 {
			t.Errorf("after Close %+v", m)
		}
	})
}

// TestStatsOfLoopback tests that packets over the loopback are counted as sent and as received,
// with the bytes that a capture shows.
func TestStatsOfLoopback(t *testing.T) {
	s := stack(t, bsdnet.Config{})
	var pcap bytes.Buffer
	stop, err := s.Capture(nil, &pcap)
	if err != nil {
		t.Fatal(err)
	}
	c, p := testutil.Pair(t, s.Listen, s.Dial)
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
	// A capture cuts the large segments of the loopback, and puts headers of IP and TCP, with
	// timestamps, before each piece.
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

// TestStatsOfBrokenLink tests that an interface whose link has failed is down.
func TestStatsOfBrokenLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _, err := netem.Pipe(netem.PipeConfig{})
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
