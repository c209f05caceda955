// Package simnet makes test networks: hosts by name, each with a TCP/IP stack of its own, on links,
// switches and routers, in a testing/synctest bubble. The connections are real TCP, with
// handshakes, retransmissions, windows and resets, and everything about the network can change
// while they exist. Time is virtual, so an hour takes a moment, and a run repeats to the packet.
//
// # A first test
//
// Ten lines test a client over a round trip of 300 ms. The handshake takes one, and the request
// another:
//
//	synctest.Test(t, func(t *testing.T) {
//		n := simnet.New(t, simnet.Config{Seed: 1})
//		client, server := n.Host("client"), n.Host("server")
//		n.Link(client, server, simnet.Symmetric(netem.Impairment{Delay: 150 * time.Millisecond}))
//		srv := server.Serve(t, http.NotFoundHandler())
//		resp, err := client.Client().Get(srv.URL) // "http://server"
//		if err != nil || n.Elapsed().Round(time.Millisecond) != 600*time.Millisecond {
//			t.Errorf("%v, %v after %v", resp, err, n.Elapsed())
//		}
//	})
//
// [Host.Client] returns an http.Client that dials from the host. Other code gets the host's
// [Host.Dial], [Host.DialContext] and [Host.Listen], which are net.Dial, net.Dialer.DialContext and
// net.Listen on that host, with the names of hosts instead of addresses. [Host.Stack] has the rest:
// UDP, Ping, counters, and the state of each connection. Package net, httptest.NewServer and
// http.DefaultClient use the system's network, whose calls do not count as blocked in a bubble: do
// not use them.
//
// There is no cleaning up to do. When the test ends, all hosts are closed, and every call that
// waits for them ends.
//
// # A blackout
//
// [Link.Cut] makes a link lose all packets until [Link.Heal], and [Net.At] calls a function at a
// virtual time. So this tests whether a client that tries again comes through a blackout of 30 s:
//
//	synctest.Test(t, func(t *testing.T) {
//		n := simnet.New(t, simnet.Config{Seed: 1})
//		client, server := n.Host("client"), n.Host("server")
//		link := n.Link(client, server, simnet.Symmetric(netem.Impairment{Delay: 20 * time.Millisecond}))
//		server.Serve(t, http.NotFoundHandler())
//		n.At(10*time.Second, link.Cut)
//		n.At(40*time.Second, link.Heal)
//
//		hc := *client.Client()
//		hc.Timeout = 5 * time.Second
//		failures := 0
//		for n.Elapsed() < time.Minute {
//			if resp, err := hc.Get("http://server/"); err != nil {
//				failures++
//			} else {
//				resp.Body.Close()
//			}
//			time.Sleep(time.Second)
//		}
//		if failures < 4 || failures > 6 {
//			t.Errorf("%d requests have failed", failures)
//		}
//	})
//
// [Link.Set] changes a link's delay, loss, rate and so on in the same way, [Link.SetFlows] that of
// some flows, and [Link.CutFrom] cuts one direction. [Host.Cut] disconnects a host from all its
// links. [Net.Every] repeats a call.
//
// # A partition
//
// Any number of hosts meet at a [Switch]. [Net.Partition] separates groups of them, wherever they
// are, until [Net.Heal]:
//
//	synctest.Test(t, func(t *testing.T) {
//		n := simnet.New(t, simnet.Config{Seed: 1})
//		lan := n.Switch("lan")
//		var hosts []*simnet.Host
//		for _, name := range []string{"a", "b", "c", "d", "e"} {
//			h := n.Host(name)
//			n.Link(h, lan, netem.Path{}) // at once, without loss
//			h.Serve(t, http.NotFoundHandler())
//			hosts = append(hosts, h)
//		}
//		n.Partition(hosts[:2], hosts[2:])
//		if _, err := hosts[0].DialTimeout("tcp", "b:80", time.Second); err != nil {
//			t.Errorf("within a group: %v", err)
//		}
//		if _, err := hosts[0].DialTimeout("tcp", "c:80", time.Second); err == nil {
//			t.Error("from group to group: no error")
//		}
//		n.Heal()
//		if _, err := hosts[0].DialTimeout("tcp", "c:80", time.Second); err != nil {
//			t.Errorf("after Heal: %v", err)
//		}
//	})
//
// Switches can be linked to each other, for example two data centers by a link with a delay. A
// [Net.Router] has links to several switches or hosts, and forwards packets between them. All hosts
// have addresses and routes without further ado: see [Net.Link]. [Net.Block] is a partition in one
// direction.
//
// # A crash
//
// [Host.Crash] is a power failure. The peers of the host hear nothing: their connections are half
// open, until keep-alive, a time limit, or a reset from the restarted host ends them. A program
// that only reads finds out through TCP's keep-alive probes, which both sides of a connection send
// by default, after 15 s without data and then every 15 s, nine times:
//
//	synctest.Test(t, func(t *testing.T) {
//		n := simnet.New(t, simnet.Config{Seed: 1})
//		client, server := n.Host("client"), n.Host("server")
//		n.Link(client, server, netem.Path{})
//		server.Listen("tcp", ":9000") // connections wait to be accepted
//		conn, err := client.Dial("tcp", "server:9000")
//		if err != nil {
//			t.Fatal(err)
//		}
//		server.Crash()
//		_, err = conn.Read(make([]byte, 1))
//		if !errors.Is(err, syscall.ETIMEDOUT) || n.Elapsed().Round(time.Second) != 150*time.Second {
//			t.Errorf("%v after %v", err, n.Elapsed())
//		}
//
//		server.Restart() // with the same addresses, and without listeners
//		_, err = client.Dial("tcp", "server:9000")
//		if !errors.Is(err, syscall.ECONNREFUSED) {
//			t.Errorf("after the restart: %v", err)
//		}
//	})
//
// [Net.Reset] resets connections, as firewalls do, and both ends notice at once.
//
// # Single packets
//
// [Net.Drop] drops the packets that a [Match] chooses, [Net.Delay] holds them back, and
// [Net.Duplicate] copies them. [SYN], [FIN], [Data], [Retransmission] and others are Matches, and
// [Nth], [First] and [All] make new ones. Of [netem.Packet] a Match of the test's own sees
// addresses, flags, sequence numbers that count from the connection's beginning, and the packet's
// number in its flow. This loses the first SYN, and the first two retransmissions of data:
//
//	synctest.Test(t, func(t *testing.T) {
//		n := simnet.New(t, simnet.Config{Seed: 1})
//		client, server := n.Host("client"), n.Host("server")
//		n.Link(client, server, simnet.Symmetric(netem.Impairment{Delay: 10 * time.Millisecond}))
//		srv := server.Serve(t, http.NotFoundHandler())
//
//		syn := n.Drop(simnet.Nth(1, simnet.SYN))
//		resp, err := client.Client().Get(srv.URL)
//		if err != nil || syn.Hits() != 1 || n.Elapsed().Round(time.Millisecond) != 1040*time.Millisecond {
//			t.Errorf("%v, %v after %v", resp, err, n.Elapsed()) // TCP sends a SYN again after 1 s
//		}
//		resp.Body.Close()
//
//		request := n.Drop(simnet.Nth(1, simnet.All(simnet.From(client), simnet.Data)))
//		again := n.Drop(simnet.First(2, simnet.All(simnet.From(client), simnet.Retransmission)))
//		resp, err = client.Client().Get(srv.URL)
//		if err != nil || request.Hits() != 1 || again.Hits() != 2 {
//			t.Errorf("%v, %v; %d and %d packets are dropped", resp, err, request.Hits(), again.Hits())
//		}
//		resp.Body.Close()
//	})
//
// A request that fails on a kept connection may be repeated by net/http on a new one; to have one
// connection for each request, set DisableKeepAlives in a transport with the host's DialContext.
//
// # When a test fails
//
// A test that has failed prints [Net.Report] when it ends: the seed, what has happened in the
// network and when, and how its links and connections stand:
//
//	simnet: seed 1; after 1.04s; to repeat it, set simnet.Config{Seed: 1}
//	           0s client: client.35603 > server.80: CLOSED -> SYN_SENT
//	          1ns client-server: dropped client.35603 > server.80: Flags [S], seq 0, win 65535, length 0: rule
//	          1s client-server: sent client.35603 > server.80: Flags [S], seq 0, win 65535, length 0 (retransmission)
//	  1.020000003s client: client.35603 > server.80: SYN_SENT -> ESTABLISHED
//	  …
//	link client-server: 5 packets, 1 filtered; back: 3 packets
//	host client:
//		client.35603 > server.80 ESTABLISHED
//	host server:
//		*.80 LISTEN
//		server.80 > client.35603 ESTABLISHED, 101 bytes not acknowledged
//
// A test that waits for what never comes fails too, after a year of virtual time: see Config.Limit.
// [Net.Logf] adds a line of the test's own, [Net.Report] can be printed at any time, and
// [Net.Capture] writes a file for tcpdump and Wireshark.
//
// # What repeats
//
// With the same seed, a test that does the same at the same virtual times gets the same packets at
// the same nanoseconds: captures are equal byte for byte, with the race detector too. At most one
// packet arrives per nanosecond in the whole network, and the bubble comes to rest before the next;
// package [bsdnet/netem] says more. Two things are up to the test:
//
//   - What its goroutines do at one instant, they do in any order. It makes no difference to the
//     network whether a packet is sent before or after a Cut, a Set or the like in the same
//     instant. But two goroutines that send on one connection, or dial the same address, at the
//     same instant are in a race, as is one that reads a variable while another sets it in the same
//     instant. Let them act at different times.
//   - Random numbers of its own, of package math/rand for example, need seeds of their own.
//     Encryption draws random numbers too: with TLS, times and sizes repeat, but not the bytes.
//
// # Rules of the bubble
//
// Time passes only when all goroutines of the bubble are blocked in a way that the bubble knows:
// calls of hosts, listeners and connections are, and channels, time.Sleep, sync.Cond and
// sync.WaitGroup. A goroutine that waits for a sync.Mutex is not, so do not sleep, or wait for the
// network, with a mutex held that others want. All goroutines must have ended when the test has:
// their calls fail with net.ErrClosed then, and those that sleep have a minute of virtual time to
// notice. A goroutine that would go on for ever, for example one that ignores errors, makes the
// test fail with a "deadlock" of package testing/synctest.
//
// # Other programs
//
// Whatever takes a function that dials, and a net.Listener, works on hosts: gRPC with
// grpc.WithContextDialer, hashicorp/raft with a StreamLayer. Pion's libraries take a host's
// [Host.Stack] as their network, by package bsdnet/piontransport. Their virtual network, vnet,
// joins by a link: package [bsdnet/udptunnel] opens a tunnel over any net.PacketConn, also one of
// vnet's, and [bsdnet.Stack.Attach] attaches it to a router. vnet's routers must have no MinDelay
// then, as they hold a mutex while they wait; simnet's links have delays. The module in the folder
// simnet/programs tests all of this.
package simnet
