//go:build linux

package interop

import (
	"encoding/json"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"

	"bsdnet/internal/nstest"
)

// TestIperf3UDP: the datagrams of iperf3 -u go through the stack's sockets, there and back. A relay
// on the stack, or one on the kernel that dials by the stack, stands between the client and its
// server.
func TestIperf3UDP(t *testing.T) {
	nstest.Need(t, "iperf3")
	eachMode(t, 2, options{}, func(t *testing.T, w *world) {
		local := host{"kernel", "127.0.0.1", w.NS.Listen, w.NS.DialContext}
		t.Run("bsdnet listens", func(t *testing.T) {
			server := w.Background(t, "iperf3", "-s", "-B", "127.0.0.1", "-p", "5203", "--forceflush")
			pc, err := w.stack.ListenPacket("udp", w.at(bsdIP)+":5201")
			if err != nil {
				t.Fatal(err)
			}
			relayBoth(t, w.bsd(), pc, local, "127.0.0.1:5203")
			iperfUDP(t, w, server, w.ip(bsdIP), "5201")
		})
		t.Run("bsdnet dials", func(t *testing.T) {
			server := w.Background(t, "iperf3", "-s", "-B", w.ip(kernIP), "-p", "5203", "--forceflush")
			var pc net.PacketConn
			if err := w.NS.Do(func() (err error) {
				pc, err = net.ListenPacket("udp4", "127.0.0.1:5201")
				return err
			}); err != nil {
				t.Fatal(err)
			}
			relayBoth(t, local, pc, w.bsd(), w.at(kernIP)+":5203")
			iperfUDP(t, w, server, "127.0.0.1", "5201")
		})
	})
}

// relayBoth relays the connections to port 5201 of a host, and the datagrams that pc receives
// there, to an address that another host dials.
func relayBoth(t *testing.T, at host, pc net.PacketConn, from host, addr string) {
	t.Helper()
	t.Cleanup(func() { pc.Close() })
	ln, err := at.listen("tcp", at.ip+":5201")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go serve(ln, func(c conn) { relay(from, addr, c) })
	go relayDatagrams(t, pc, from, addr)
}

// relayDatagrams relays the datagrams of each sender on a socket of its own, until pc is closed.
func relayDatagrams(t *testing.T, pc net.PacketConn, from host, addr string) {
	var wg sync.WaitGroup
	senders := map[string]net.Conn{}
	defer func() {
		for _, c := range senders {
			c.Close()
		}
		wg.Wait()
	}()
	b := make([]byte, 65536)
	for {
		n, src, err := pc.ReadFrom(b)
		if err != nil {
			return
		}
		c := senders[src.String()]
		if c == nil {
			if c, err = from.dial(t.Context(), "udp", addr); err != nil {
				return
			}
			senders[src.String()] = c
			wg.Go(func() {
				b := make([]byte, 65536)
				for {
					n, err := c.Read(b)
					if err != nil {
						return
					}
					pc.WriteTo(b[:n], src)
				}
			})
		}
		c.Write(b[:n])
	}
}

// iperfUDP runs the client each way, with datagrams that fit and with some that are fragmented, and
// checks its report. Each run sends 100 datagrams at a rate that nothing has to drop.
func iperfUDP(t *testing.T, w *world, server *nstest.Output, ip, port string) {
	t.Helper()
	for i, args := range [][]string{{"-l", "1000"}, {"-l", "1000", "-R"}, {"-l", "4000"}} {
		await(t, "iperf3 listens", func() bool { return strings.Count(server.String(), "Server listening") > i })
		size, _ := strconv.Atoi(args[1])
		out, err := w.Try(append([]string{"iperf3", "-u", "-J", "-c", ip, "-p", port, "-n", strconv.Itoa(100 * size),
			"-b", strconv.Itoa(100 * size * 8 * 4), "--connect-timeout", "20000"}, args...)...)
		if err != nil {
			t.Fatalf("iperf3 -u %v: %v\n%.2000s", args, err, out)
		}
		var r struct {
			Error string
			End   struct {
				Sum struct{ Packets, Lost_packets, Bytes int }
			}
		}
		report := out[max(strings.Index(out, "{"), 0):] // a warning may precede it
		if err := json.Unmarshal([]byte(report), &r); err != nil {
			t.Fatalf("%v\n%.2000s", err, out)
		}
		if s := r.End.Sum; r.Error != "" || s.Packets < 100 || s.Lost_packets > s.Packets/10 {
			t.Errorf("iperf3 -u %v: %+v\n%.4000s", args, s, out)
		}
	}
}
