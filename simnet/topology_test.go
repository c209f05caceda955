package simnet_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet"
	"bsdnet/netem"
	"bsdnet/simnet"
)

// Hosts reach each other over switches that are linked, over routers, and over links of their own;
// a name stands for the address of the nearest link, and packets take the way with the fewest hops.
//
//	a - left - dc - right - b      r1 routes between left and far, r2 between far and beyond
//	    left - r1 - far - r2 - beyond
//	a - b, a link of their own
func TestTopology(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(t, simnet.Config{Seed: 1})
		far, beyond := n.Switch("far"), n.Switch("beyond")
		left, right := n.Switch("left"), n.Switch("right")
		a, b, c, d := n.Host("a"), n.Host("b"), n.Host("c"), n.Host("d")
		r1, r2, short := n.Router("r1"), n.Router("r2"), n.Router("short")
		n.Link(left, right, simnet.Symmetric(netem.Impairment{Delay: 5 * time.Millisecond}))
		n.Link(a, left, netem.Path{})
		n.Link(right, b, netem.Path{})
		n.Link(r1, left, netem.Path{})
		n.Link(r1, far, netem.Path{})
		n.Link(c, far, netem.Path{})
		n.Link(r2, far, netem.Path{})
		n.Link(beyond, r2, netem.Path{})
		n.Link(d, beyond, netem.Path{})
		hosts := []*simnet.Host{a, b, c, d}
		for _, h := range hosts {
			h.Serve(t, hello(h.Name()))
		}
		all := func(when string) {
			for _, from := range hosts {
				for _, to := range hosts {
					body, err := get(from.Client(), "http://"+to.Name())
					if err != nil || body != "hello from "+to.Name() {
						t.Errorf("%s, %s to %s: %q, %v", when, from.Name(), to.Name(), body, err)
					}
				}
			}
		}
		all("at first")
		if got := fmt.Sprint(r1.Stack().Stats().IP.Forward > 0, r2.Stack().Stats().IP.Forward > 0); got != "true true" {
			t.Errorf("the routers have forwarded packets: %s", got)
		}
		peer := func(from *simnet.Host, to string) netip.Addr {
			t.Helper()
			conn, err := from.Dial("tcp", to+":80")
			if err != nil {
				t.Error(err)
				return netip.Addr{}
			}
			defer conn.Close()
			return netip.MustParseAddrPort(conn.RemoteAddr().String()).Addr()
		}
		cable := n.Link(a, b, netem.Path{})
		if p := peer(a, "b"); p != b.Addrs()[0] {
			t.Errorf("b is at %v; it has %v", p, b.Addrs())
		}
		if s := cable.Stats(); s.Write.Packets != 0 {
			t.Error("the first link is not taken")
		}
		if p := peer(a, b.Addrs()[2].String()); p != b.Addrs()[2] || cable.Stats().Write.Packets == 0 {
			t.Error("nothing goes over the link of a and b")
		}
		all("with a link")

		// A way with fewer hops is taken as soon as it is there.
		n.Link(short, left, netem.Path{})
		n.Link(short, beyond, netem.Path{})
		before := r2.Stack().Stats().IP.Forward
		all("with a shorter way")
		if r2.Stack().Stats().IP.Forward == before || short.Stack().Stats().IP.Forward == 0 {
			t.Error("c and d should talk over r2, a and d over short")
		}
		before = short.Stack().Stats().IP.Forward
		get(a.Client(), "http://d")
		if short.Stack().Stats().IP.Forward == before {
			t.Error("a and d do not talk over short")
		}
		r1.Crash()
		r1.Restart()
		all("after a restart of a router")
	})
}

// A name stands for an address of one family, for datagrams too, and Stack.Hosts is asked for
// others.
func TestNames(t *testing.T) {
	for _, ipv6 := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			config := simnet.Config{IPv6: ipv6}
			config.Stack.Hosts = func(_ context.Context, name string) ([]netip.Addr, error) {
				if name == "alias.example" {
					return []netip.Addr{netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("fd00:0:0:1::2")}, nil
				}
				return nil, nil
			}
			n := simnet.New(t, config)
			client, server, sw := n.Host("client"), n.Host("server"), n.Switch("lan")
			n.Link(client, sw, netem.Path{})
			n.Link(server, sw, netem.Path{})
			pc, err := server.ListenPacket("udp", ":53")
			if err != nil {
				t.Fatal(err)
			}
			server.ServeAt(t, ":8080", hello("server"))
			conn, err := client.Dial("udp", "server:53")
			if err != nil {
				t.Fatal(err)
			}
			conn.Write([]byte("question"))
			b := make([]byte, 100)
			size, from, err := pc.ReadFrom(b)
			if err != nil || string(b[:size]) != "question" || strings.HasPrefix(from.String(), "[") != ipv6 {
				t.Errorf("%q from %v, %v", b[:size], from, err)
			}
			for _, url := range []string{"http://server:8080", "http://alias.example:8080", "http://SERVER:8080"} {
				if body, err := get(client.Client(), url); err != nil || body != "hello from server" {
					t.Errorf("%s: %q, %v", url, body, err)
				}
			}
			if a := server.Addr(); a.Is6() != ipv6 || !slices.Contains(server.Addrs(), a) || len(server.Addrs()) != 2 {
				t.Errorf("the address is %v of %v", a, server.Addrs())
			}
			self, err := client.Stack().LookupHost(t.Context(), "client")
			want := map[bool]string{false: "127.0.0.1", true: "::1"}[ipv6]
			if err != nil || !slices.Equal(self, []string{want}) {
				t.Errorf("a host's own name stands for %v, %v", self, err)
			}
			if _, err := client.Stack().Ping(t.Context(), server.Addr(), bsdnet.PingConfig{}); err != nil {
				t.Error(err)
			}
		})
	}
}

// The same packets are in a capture of the network, which has what is lost too, and in those of its
// hosts.
func TestCapture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, client, server, _ := pair(t, delay150)
		var whole, atClient, atServer bytes.Buffer
		stop := n.Capture(&whole)
		stopClient := n.Capture(&atClient, client)
		stopServer := n.Capture(&atServer, server)
		n.Drop(simnet.Nth(1, simnet.SYN))
		if _, err := get(client.Client(), "http://server"); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		for _, stop := range []func() error{stop, stopClient, stopServer} {
			if err := stop(); err != nil {
				t.Error(err)
			}
		}
		size := whole.Len()
		get(client.Client(), "http://server")
		if whole.Len() != size {
			t.Error("a capture goes on after stop")
		}
		if err := n.Capture(failing{})(); err == nil || !strings.Contains(err.Error(), "disk is full") {
			t.Errorf("the error of a writer: %v", err)
		}
		w, c, s := records(whole.Bytes()), records(atClient.Bytes()), records(atServer.Bytes())
		if len(w) < 8 || len(c) != len(w) || len(s) != len(c)-1 { // the first SYN does not arrive
			t.Errorf("%d packets in the network's capture, %d and %d in those of hosts", len(w), len(c), len(s))
		}
		if !bytes.Equal(c[1].data, s[0].data) {
			t.Errorf("the server sees %v first", s[0])
		}
	})
}

// What is set on a link stays when a host at it restarts, also what is set while the host is down.
func TestRestartKeepsLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(t, simnet.Config{})
		lan, client, server := n.Switch("lan"), n.Host("client"), n.Host("server")
		link := n.Link(lan, server, netem.Path{Write: netem.Impairment{Delay: time.Second}})
		n.Link(client, lan, netem.Path{})
		took := func() time.Duration {
			server.Serve(t, hello("server"))
			start := time.Now()
			c, err := client.Dial("tcp", "server:80")
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
			return time.Since(start)
		}
		near(t, "a dial", took(), time.Second)
		slow := netem.Path{Write: netem.Impairment{Delay: 3 * time.Second}}
		link.SetFlows(netem.FlowPath{Match: simnet.SYN, Path: slow})
		server.Crash()
		if s := link.Stats(); s != (netem.Stats{}) {
			t.Errorf("the link of a host that is down: %+v", s)
		}
		server.Restart()
		near(t, "a dial after a restart, with a flow path", took(), 3*time.Second)
		server.Crash()
		link.SetFlows()
		link.Set(netem.Path{Read: netem.Impairment{Delay: 2 * time.Second}})
		if p := link.Path(); p.Read.Delay != 2*time.Second || link.Name() != "lan-server" {
			t.Errorf("%s: %+v", link.Name(), p)
		}
		server.Restart()
		near(t, "a dial after a change during the crash", took(), 2*time.Second)
		server.Crash()
		link.CutFrom(lan)
		server.Restart()
		server.Serve(t, hello("server"))
		if _, err := client.DialTimeout("tcp", "server:80", time.Minute); err == nil {
			t.Error("the link is no longer cut after a restart")
		}
	})
}

// The secrets of hosts differ, and change with a restart, but are the same in each run: the ports
// and initial sequence numbers show it.
func TestSecrets(t *testing.T) {
	run := func() (syns []string) {
		synctest.Test(t, func(t *testing.T) {
			n := simnet.New(t, simnet.Config{Seed: 7})
			lan, server := n.Switch("lan"), n.Host("server")
			n.Link(server, lan, netem.Path{})
			server.Serve(t, hello("server"))
			n.Drop(func(p *netem.Packet) bool {
				if simnet.SYN(p) {
					syns = append(syns, fmt.Sprint(p.Src.Port(), binary.BigEndian.Uint32(p.Data[24:])))
				}
				return false
			})
			for _, name := range []string{"a", "b", "a"} {
				h := n.Host(name)
				if h.Addr().IsValid() {
					h.Crash()
					h.Restart()
				} else {
					n.Link(h, lan, netem.Path{})
				}
				if _, err := h.Dial("tcp", "server:80"); err != nil {
					t.Error(err)
				}
			}
		})
		return syns
	}
	first := run()
	if len(first) != 3 || first[0] == first[1] || first[0] == first[2] || first[1] == first[2] {
		t.Errorf("SYNs %q", first)
	}
	if again := run(); !slices.Equal(first, again) {
		t.Errorf("SYNs %q, then %q", first, again)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) {
	return 0, fmt.Errorf("the disk is full: %w", io.ErrShortWrite)
}
