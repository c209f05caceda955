package simnet_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet"
	"bsdnet/netem"
	"bsdnet/simnet"
)

// hello answers with the name of a host.
func hello(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello from "+name) })
}

// get returns what a client gets, or the error.
func get(c *http.Client, url string) (string, error) {
	resp, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// pair is a network of a client and a server, which answers hello.
func pair(t *testing.T, path netem.Path) (n *simnet.Net, client, server *simnet.Host, link *simnet.Link) {
	t.Helper()
	n = simnet.New(t, simnet.Config{Seed: 1})
	client, server = n.Host("client"), n.Host("server")
	link = n.Link(client, server, path)
	server.Serve(t, hello("server"))
	return n, client, server, link
}

var delay150 = simnet.Symmetric(netem.Impairment{Delay: 150 * time.Millisecond})

// near fails the test if a duration is not within a millisecond of want.
func near(t *testing.T, what string, got, want time.Duration) {
	t.Helper()
	if d := got - want; d < 0 || d > time.Millisecond {
		t.Errorf("%s takes %v; want %v", what, got, want)
	}
}

// A client with a time limit of 2 s for each attempt, and a second between attempts, comes through
// a blackout of 30 s.
func TestRetryThroughBlackout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, client, _, link := pair(t, delay150)
		n.At(10*time.Second, link.Cut)
		n.At(40*time.Second, link.Heal)
		c := *client.Client()
		c.Timeout = 2 * time.Second
		var failed []time.Duration
		for n.Elapsed() < time.Minute {
			if _, err := get(&c, "http://server/"); err != nil {
				failed = append(failed, n.Elapsed())
				if e := net.Error(nil); !errors.As(err, &e) || !e.Timeout() {
					t.Error(err)
				}
			}
			time.Sleep(time.Second)
		}
		// An attempt in each 3 s.
		if len(failed) != 10 || failed[0] < 12*time.Second || failed[9] > 42*time.Second {
			t.Errorf("attempts fail at %v", failed)
		}
		if s := link.Stats(); s.Write.Cut == 0 || s.Write.Filtered != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// A connection that TCP keeps outlives the blackout.
func TestConnectionOutlivesBlackout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, client, _, link := pair(t, delay150)
		get(client.Client(), "http://server/")
		link.Cut()
		n.After(30*time.Second, link.Heal)
		body, err := get(client.Client(), "http://server/")
		if err != nil || body != "hello from server" || n.Elapsed() < 30*time.Second || n.Elapsed() > time.Minute {
			t.Errorf("%q, %v after %v", body, err, n.Elapsed())
		}
	})
}

// Each direction can be cut alone: a request then arrives at the server, and no answer comes back.
func TestOneWayCuts(t *testing.T) {
	for name, cut := range map[string]func(n *simnet.Net, client, server *simnet.Host, l *simnet.Link){
		"CutFrom": func(n *simnet.Net, client, server *simnet.Host, l *simnet.Link) { l.CutFrom(server) },
		"Block": func(n *simnet.Net, client, server *simnet.Host, l *simnet.Link) {
			n.Block([]*simnet.Host{server}, []*simnet.Host{client})
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := simnet.New(t, simnet.Config{})
			client, server := n.Host("client"), n.Host("server")
			l := n.Link(client, server, netem.Path{})
			var asked atomic.Int32
			server.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked.Add(1) }))
			c := *client.Client()
			c.Timeout = 2 * time.Second
			get(&c, "http://server/") // makes a connection
			cut(n, client, server, l)
			if _, err := get(&c, "http://server/"); err == nil || asked.Load() != 2 {
				t.Errorf("%s: %v, the server is asked %d times", name, err, asked.Load())
			}
			n.Heal()
			if _, err := get(&c, "http://server/"); err != nil {
				t.Errorf("%s: %v after Heal", name, err)
			}
		})
	}
}

func TestPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(t, simnet.Config{})
		sw := n.Switch("lan")
		var hosts []*simnet.Host
		for i := range 6 {
			h := n.Host(fmt.Sprint("h", i))
			n.Link(h, sw, netem.Path{})
			h.Serve(t, hello(h.Name()))
			hosts = append(hosts, h)
		}
		reach := func() string {
			var b strings.Builder
			for _, from := range hosts {
				for _, to := range hosts {
					c, err := from.DialTimeout("tcp", to.Name()+":80", time.Second)
					if err == nil {
						c.Close()
						b.WriteByte('+')
					} else {
						b.WriteByte('-')
					}
				}
				b.WriteByte(' ')
			}
			return b.String()
		}
		const whole = "++++++ ++++++ ++++++ ++++++ ++++++ ++++++ "
		if got := reach(); got != whole {
			t.Errorf("before: %s", got)
		}
		n.Partition(hosts[:2], hosts[2:5]) // the last is in no group
		if got := reach(); got != "++---+ ++---+ --++++ --++++ --++++ ++++++ " {
			t.Errorf("with a partition: %s", got)
		}
		n.Heal()
		hosts[3].Cut()
		if got := reach(); got != "+++-++ +++-++ +++-++ ---+-- +++-++ +++-++ " {
			t.Errorf("with a host cut off: %s", got)
		}
		hosts[3].Heal()
		if got := reach(); got != whole {
			t.Errorf("after: %s", got)
		}
	})
}

// A server that starts late: the first SYN is refused, and a client that repeats its dial gets
// through over 300 ms.
func TestSlowStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(t, simnet.Config{})
		client, server := n.Host("client"), n.Host("server")
		n.Link(client, server, delay150)
		n.At(5*time.Second, func() { server.Serve(t, hello("server")) })
		refused := 0
		for {
			_, err := get(client.Client(), "http://server/")
			if err == nil {
				break
			}
			if !errors.Is(err, syscall.ECONNREFUSED) {
				t.Fatal(err)
			}
			refused++
			time.Sleep(time.Second)
		}
		if refused != 4 { // at 0, 1.3, 2.6 and 3.9 s; the SYN of 5.2 s arrives at 5.35 s
			t.Errorf("%d dials are refused", refused)
		}
		near(t, "it all", n.Elapsed(), 5800*time.Millisecond)
	})
}

// The peers of a host that crashes hear nothing. Those that wait for data go on to wait, until
// keep-alive or their own time limits end that; if the host is back, they get a reset when they
// write, or probe.
func TestCrash(t *testing.T) {
	for _, c := range []struct {
		name    string
		restart time.Duration // after the crash; 0: never
		write   bool          // the peer writes 10 s after the crash
		err     syscall.Errno
		after   time.Duration
	}{
		// 15 s without data, of which one is over, then 9 probes in intervals of 15 s.
		{"Keepalive", 0, false, syscall.ETIMEDOUT, 149 * time.Second},
		{"ProbeAfterRestart", 5 * time.Second, false, syscall.ECONNRESET, 14 * time.Second},
		{"WriteAfterRestart", 5 * time.Second, true, syscall.ECONNRESET, 10 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := simnet.New(t, simnet.Config{})
				client, server := n.Host("client"), n.Host("server")
				n.Link(client, server, netem.Path{})
				resets := n.Drop(simnet.All(simnet.RST, simnet.From(client))) // a client has no reason to send one
				ln, err := server.Listen("tcp", ":80")
				if err != nil {
					t.Fatal(err)
				}
				conn, err := client.Dial("tcp", "server:80")
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				start := time.Now()
				server.Crash()
				if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
					t.Errorf("Accept on a host that has crashed: %v", err)
				}
				_, err = server.Dial("tcp", "client:80")
				if err == nil || !strings.Contains(err.Error(), "server: the host has crashed") {
					t.Errorf("Dial on a host that has crashed: %v", err)
				}
				if c.restart > 0 {
					n.After(c.restart, server.Restart)
				}
				if c.write {
					time.AfterFunc(10*time.Second, func() { conn.Write([]byte("x")) })
				}
				_, err = conn.Read(make([]byte, 1))
				if took := time.Since(start).Round(time.Second); !errors.Is(err, c.err) || took != c.after {
					t.Errorf("Read returns %v after %v; want %v after %v", err, took, c.err, c.after)
				}
				if resets.Hits() != 0 {
					t.Errorf("%d resets of the client", resets.Hits())
				}
				server.Restart()
				srv := server.Serve(t, hello("server"))
				if body, err := get(srv.Client(client), srv.URL); err != nil || body != "hello from server" {
					t.Errorf("after a restart: %q, %v", body, err)
				}
				srv.Close()
				if _, err := get(srv.Client(client), srv.URL); !errors.Is(err, syscall.ECONNREFUSED) {
					t.Errorf("after the server is closed: %v", err)
				}
			})
		})
	}
}

// A load balancer with three backends, one of which dies and comes back.
func TestLoadBalancer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(t, simnet.Config{Seed: 1})
		sw := n.Switch("lan")
		join := func(name string) *simnet.Host {
			h := n.Host(name)
			n.Link(h, sw, simnet.Symmetric(netem.Impairment{Delay: time.Millisecond}))
			return h
		}
		client, front := join("client"), join("front")
		var backends []*simnet.Host
		for _, name := range []string{"b0", "b1", "b2"} {
			b := join(name)
			b.Serve(t, hello(name))
			backends = append(backends, b)
		}
		next := 0
		front.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c := *front.Client()
			c.Timeout = 500 * time.Millisecond
			for range backends {
				b := backends[next%len(backends)]
				next++
				if body, err := get(&c, "http://"+b.Name()); err == nil {
					io.WriteString(w, body)
					return
				}
			}
			w.WriteHeader(http.StatusBadGateway)
		}))
		ask := func(times int) map[string]int {
			got := map[string]int{}
			for range times {
				body, err := get(client.Client(), "http://front")
				if err != nil {
					body = err.Error()
				}
				got[strings.TrimPrefix(body, "hello from ")]++
			}
			return got
		}
		for _, step := range []struct {
			do   func()
			want string
		}{
			{func() {}, "map[b0:4 b1:4 b2:4]"},
			{backends[1].Crash, "map[b0:6 b2:6]"}, // b2 is asked when b1 does not answer
			{func() { backends[1].Restart(); backends[1].Serve(t, hello("b1")) }, "map[b0:4 b1:4 b2:4]"},
			{func() { backends[0].Cut(); backends[2].Cut() }, "map[b1:12]"},
		} {
			next = 0
			step.do()
			if got := fmt.Sprint(ask(12)); got != step.want {
				t.Errorf("answers %s; want %s", got, step.want)
			}
		}
	})
}

// Faults that a clock drives: every minute the server is cut off for 5 s.
func TestSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, client, server, _ := pair(t, netem.Path{})
		var order []string
		for _, name := range []string{"a", "b", "c"} {
			n.At(time.Second, func() { order = append(order, name) })
		}
		stop := n.Every(time.Minute, func() {
			server.Cut()
			n.After(5*time.Second, server.Heal)
		})
		var slow []string
		for n.Elapsed() < 5*time.Minute {
			start := time.Now()
			if _, err := get(client.Client(), "http://server"); err != nil {
				t.Error(err)
			}
			if time.Since(start) > time.Second {
				slow = append(slow, fmt.Sprint(n.Elapsed().Truncate(time.Minute)))
			}
			if n.Elapsed() > 3*time.Minute+30*time.Second {
				stop()
			}
			time.Sleep(time.Second)
		}
		if got := strings.Join(slow, " "); got != "1m0s 2m0s 3m0s" {
			t.Errorf("slow requests at %s", got)
		}
		if got := strings.Join(order, ""); got != "abc" {
			t.Errorf("calls of one instant in the order %s", got)
		}
	})
}

// The loss of one packet, which a rule names, costs the time that TCP says.
func TestExactLoss(t *testing.T) {
	const rtt = 20 * time.Millisecond
	path := simnet.Symmetric(netem.Impairment{Delay: rtt / 2})
	for _, c := range []struct {
		name  string
		rules func(n *simnet.Net, client, server *simnet.Host) []*simnet.Rule
		took  time.Duration // dial, one byte there and back, and the end of the connection
	}{
		{"none", func(n *simnet.Net, client, server *simnet.Host) []*simnet.Rule { return nil }, 3 * rtt},
		// RFC 6298, 2.1: the first time-out comes after 1 s.
		{"SYN", func(n *simnet.Net, client, server *simnet.Host) []*simnet.Rule {
			return []*simnet.Rule{n.Drop(simnet.Nth(1, simnet.SYN))}
		}, 3*rtt + time.Second},
		{"SYN,ACK", func(n *simnet.Net, client, server *simnet.Host) []*simnet.Rule {
			return []*simnet.Rule{n.Drop(simnet.Nth(1, simnet.SYNACK))}
		}, 3*rtt + time.Second},
		// A probe of the tail comes after two round trips, and repairs the loss (RFC 8985, 7.2).
		{"Data", func(n *simnet.Net, client, server *simnet.Host) []*simnet.Rule {
			return []*simnet.Rule{n.Drop(simnet.Nth(1, simnet.All(simnet.From(client), simnet.Data)))}
		}, 0},
		{"Retransmission", func(n *simnet.Net, client, server *simnet.Host) []*simnet.Rule {
			return []*simnet.Rule{
				n.Drop(simnet.Nth(1, simnet.All(simnet.From(client), simnet.Data))),
				n.Drop(simnet.Nth(1, simnet.All(simnet.To(server), simnet.Retransmission))),
			}
		}, 0},
		{"FIN", func(n *simnet.Net, client, server *simnet.Host) []*simnet.Rule {
			return []*simnet.Rule{n.Drop(simnet.Nth(1, simnet.All(simnet.From(client), simnet.FIN, simnet.Port(7))))}
		}, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := simnet.New(t, simnet.Config{Seed: 1})
			client, server := n.Host("client"), n.Host("server")
			n.Link(client, server, path)
			rules := c.rules(n, client, server)
			echo(t, server)
			start := time.Now()
			conn, err := client.Dial("tcp", "server:7")
			if err != nil {
				t.Fatal(err)
			}
			conn.Write([]byte("x"))
			if _, err := conn.Read(make([]byte, 1)); err != nil {
				t.Error(err)
			}
			conn.(interface{ CloseWrite() error }).CloseWrite()
			if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
				t.Error(err)
			}
			took := time.Since(start)
			for i, r := range rules {
				if r.Hits() != 1 {
					t.Errorf("%s: rule %d has dropped %d packets", c.name, i, r.Hits())
				}
			}
			retransmits := client.Stack().Stats().TCP.Sndrexmitpack + server.Stack().Stats().TCP.Sndrexmitpack
			if c.took > 0 {
				near(t, c.name, took, c.took)
			} else if took <= 3*rtt || took > 5*time.Second || retransmits == 0 {
				t.Errorf("%s: %v, %d segments sent again", c.name, took, retransmits)
			}
		})
	}
}

// echo serves port 7 of a host, and sends back all that comes.
func echo(t *testing.T, h *simnet.Host) {
	t.Helper()
	ln, err := h.Listen("tcp", ":7")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				io.Copy(c, c)
				c.Close()
			}()
		}
	}()
}

// Packets can be held back and duplicated by a rule, on one link or in the whole network.
func TestDelayAndDuplicate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(t, simnet.Config{})
		client, server, sw := n.Host("client"), n.Host("server"), n.Switch("lan")
		near := n.Link(client, sw, netem.Path{})
		far := n.Link(sw, server, netem.Path{})
		echo(t, server)
		late := n.Delay(simnet.Nth(1, simnet.SYN), 300*time.Millisecond)
		lateAnswer := near.Delay(simnet.Nth(1, simnet.SYNACK), 200*time.Millisecond)
		twice := far.Duplicate(simnet.First(1, simnet.Data), 3)
		all := n.Duplicate(simnet.All(simnet.From(server), simnet.Data), 1)
		dropped := far.Drop(simnet.Nth(1, simnet.All(simnet.ACK, simnet.From(client))))
		conn, err := client.Dial("tcp", "server:7")
		if err != nil {
			t.Fatal(err)
		}
		if d := n.Elapsed().Round(time.Millisecond); d != 500*time.Millisecond {
			t.Errorf("the dial takes %v", d)
		}
		time.Sleep(time.Second)
		conn.Write([]byte("x"))
		conn.Read(make([]byte, 1))
		time.Sleep(time.Second)
		all.Stop()
		conn.Write([]byte("y"))
		conn.Read(make([]byte, 1))
		time.Sleep(time.Second)
		for name, r := range map[string]*simnet.Rule{
			"Delay": late, "Link.Delay": lateAnswer, "Link.Duplicate": twice, "Duplicate": all, "Link.Drop": dropped,
		} {
			if r.Hits() != 1 {
				t.Errorf("%s has hit %d packets", name, r.Hits())
			}
		}
		if dup := server.Stack().Stats().TCP.Rcvduppack; dup != 3 {
			t.Errorf("%d duplicates at the server", dup)
		}
		if s := far.Stats(); s.Write.Duplicated != 3 || s.Write.Filtered != 1 {
			t.Errorf("%+v", s) // Write is from the switch
		}
	})
}

// Reset ends both ends of a connection, with an exact sequence number, also while data flows.
func TestReset(t *testing.T) {
	for _, ipv6 := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			n := simnet.New(t, simnet.Config{IPv6: ipv6})
			client, server, other := n.Host("client"), n.Host("server"), n.Host("other")
			sw := n.Switch("lan")
			for _, h := range []*simnet.Host{client, server, other} {
				n.Link(h, sw, simnet.Symmetric(netem.Impairment{Delay: 10 * time.Millisecond}))
			}
			echo(t, server)
			dial := func(h *simnet.Host) net.Conn {
				c, err := h.Dial("tcp", "server:7")
				if err != nil {
					t.Fatal(err)
				}
				go func() { // data all the time
					for {
						if _, err := c.Write(make([]byte, 10)); err != nil {
							return
						}
						time.Sleep(time.Millisecond)
					}
				}()
				return c
			}
			victim, spared := dial(client), dial(other)
			time.Sleep(time.Second)
			if ends := n.Reset(client, server); ends != 2 {
				t.Errorf("%d ends are reset", ends)
			}
			if s := victim.(*bsdnet.TCPConn).Info().State; s != "CLOSED" {
				t.Errorf("the connection that was reset is %s", s)
			}
			if _, err := io.Copy(io.Discard, victim); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the connection that was reset: %v", err)
			}
			time.Sleep(time.Second)
			if _, err := io.ReadFull(spared, make([]byte, 1000)); err != nil {
				t.Errorf("another connection: %v", err)
			}
			if ends := server.Reset(); ends != 2 {
				t.Errorf("%d ends are reset", ends)
			}
			if _, err := io.Copy(io.Discard, spared); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the connection of a host that was reset: %v", err)
			}
		})
	}
}

// A thousand clients at once.
func TestThousandClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(t, simnet.Config{Seed: 1})
		server, sw := n.Host("server"), n.Switch("net")
		n.Link(server, sw, netem.Path{})
		server.Serve(t, hello("server"))
		var all sync.WaitGroup
		var ok atomic.Int32
		for i := range 1000 {
			c := n.Host(fmt.Sprintf("client%d", i))
			far := time.Duration(i) * 100 * time.Microsecond
			n.Link(c, sw, simnet.Symmetric(netem.Impairment{Delay: far, Loss: 0.01}))
			all.Go(func() {
				for range 3 {
					if body, err := get(c.Client(), "http://server"); err != nil || body != "hello from server" {
						t.Errorf("%s: %q, %v", c.Name(), body, err)
						return
					}
					ok.Add(1)
				}
			})
		}
		all.Wait()
		if ok.Load() != 3000 {
			t.Errorf("%d answers", ok.Load())
		}
	})
}

// A dial that its context ends says so, and a name that nobody has is not found.
func TestDialErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, client, _, link := pair(t, delay150)
		var dns *net.DNSError
		if _, err := client.Dial("tcp", "nobody:80"); !errors.As(err, &dns) || !dns.IsNotFound || dns.Name != "nobody" {
			t.Errorf("a host that is not there: %v", err)
		}
		n.Host("island")
		_, err := client.Dial("tcp", "island:80")
		if !errors.As(err, &dns) || !strings.Contains(err.Error(), "no links lead") {
			t.Errorf("a host without a link: %v", err)
		}
		if _, err := client.Dial("tcp", "server:81"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("a port without a listener: %v", err)
		}
		link.Cut()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if _, err := client.DialContext(ctx, "tcp", "server:80"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a link that is cut: %v", err)
		}
		start := time.Now()
		if _, err := client.Dial("tcp", "server:80"); !errors.Is(err, syscall.ETIMEDOUT) {
			t.Errorf("a link that is cut: %v", err)
		}
		near(t, "a dial over a link that is cut", time.Since(start), 75*time.Second)
	})
}

// Nth and First count the packets that their Match matches.
func TestCountingMatches(t *testing.T) {
	syn, fin := &netem.Packet{Flags: netem.SYN}, &netem.Packet{Flags: netem.FIN | netem.ACK}
	packets := []*netem.Packet{fin, syn, fin, syn, syn, fin}
	for want, m := range map[string]simnet.Match{
		"---+--": simnet.Nth(2, simnet.SYN),
		"-+-+--": simnet.First(2, simnet.SYN),
		"+-+--+": simnet.FIN,
		"--+---": simnet.All(simnet.FIN, simnet.Nth(2, simnet.FIN)),
		"------": simnet.All(simnet.FIN, simnet.SYN),
	} {
		got := ""
		for _, p := range packets {
			got += map[bool]string{false: "-", true: "+"}[m(p)]
		}
		if got != want {
			t.Errorf("%s; want %s", got, want)
		}
	}
}
