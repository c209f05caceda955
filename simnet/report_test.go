package simnet_test

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet/netem"
	"bsdnet/simnet"
)

// A listener is a testing.TB that listens to what a Net says of a test, and is the test's own in
// all else.
type listener struct {
	testing.TB
	said     []string
	failed   bool
	cleanups []func()
}

func (l *listener) Helper() {}

func (l *listener) Log(args ...any) { l.said = append(l.said, fmt.Sprint(args...)) }

func (l *listener) Errorf(format string, args ...any) {
	l.said, l.failed = append(l.said, fmt.Sprintf(format, args...)), true
}

func (l *listener) Fatal(args ...any) {
	l.Errorf("%s", fmt.Sprint(args...))
	runtime.Goexit()
}

func (l *listener) Fatalf(format string, args ...any) { l.Fatal(fmt.Sprintf(format, args...)) }

func (l *listener) Failed() bool { return l.failed }

func (l *listener) Cleanup(f func()) { l.cleanups = append(l.cleanups, f) }

// end does what the end of a test does.
func (l *listener) end() {
	for i := len(l.cleanups) - 1; i >= 0; i-- {
		l.cleanups[i]()
	}
}

// Misuse fails the test, with a message that says what is wrong.
func TestMisuse(t *testing.T) {
	bad := netem.Path{Read: netem.Impairment{Loss: 2}}
	for _, c := range []struct {
		want   string
		misuse func(tb testing.TB, n *simnet.Net)
	}{
		{"Config.MTU is 100", func(tb testing.TB, n *simnet.Net) { simnet.New(tb, simnet.Config{MTU: 100}) }},
		{"Config.Limit is -1ns", func(tb testing.TB, n *simnet.Net) { simnet.New(tb, simnet.Config{Limit: -1}) }},
		{"sw is a switch already", func(tb testing.TB, n *simnet.Net) { n.Host("sw") }},
		{"a is a host already", func(tb testing.TB, n *simnet.Net) { n.Switch("a") }},
		{"a is a host already", func(tb testing.TB, n *simnet.Net) { n.Router("a") }},
		{`"two words" cannot be the name`, func(tb testing.TB, n *simnet.Net) { n.Host("two words") }},
		{`"10.0.0.1" cannot be the name`, func(tb testing.TB, n *simnet.Net) { n.Switch("10.0.0.1") }},
		{`"localhost" cannot be the name`, func(tb testing.TB, n *simnet.Net) { n.Host("localhost") }},
		{"two nodes of its Net", func(tb testing.TB, n *simnet.Net) { n.Link(n.Host("a"), n.Host("a"), netem.Path{}) }},
		{"two nodes of its Net", func(tb testing.TB, n *simnet.Net) { n.Link(nil, n.Host("a"), netem.Path{}) }},
		{"a and sw are linked already", func(tb testing.TB, n *simnet.Net) {
			n.Link(n.Host("a"), n.Switch("sw"), netem.Path{})
		}},
		{"connected already", func(tb testing.TB, n *simnet.Net) {
			n.Link(n.Switch("sw"), n.Switch("x"), netem.Path{})
			n.Link(n.Switch("sw"), n.Switch("y"), netem.Path{})
			n.Link(n.Switch("x"), n.Switch("y"), netem.Path{})
		}},
		{"Read.Loss: 2 ", func(tb testing.TB, n *simnet.Net) { n.Link(n.Host("b"), n.Host("c"), bad) }},
		{"sw-a: netem: port: Write.Loss: 2 ", func(tb testing.TB, n *simnet.Net) { link(n).Set(bad) }},
		{"Match is nil", func(tb testing.TB, n *simnet.Net) { link(n).SetFlows(netem.FlowPath{}) }},
		{"c is no end of link sw-a", func(tb testing.TB, n *simnet.Net) { link(n).CutFrom(n.Host("c")) }},
		{"needs a Match", func(tb testing.TB, n *simnet.Net) { n.Drop(nil) }},
		{"0s is not positive", func(tb testing.TB, n *simnet.Net) { n.Every(0, func() {}) }},
		{"address already in use", func(tb testing.TB, n *simnet.Net) {
			n.Host("a").Serve(tb, hello("a"))
			n.Host("a").Serve(tb, hello("a"))
		}},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := &listener{TB: t}
			defer l.end()
			done := make(chan struct{})
			go func() {
				defer close(done)
				n := simnet.New(l, simnet.Config{})
				links[n] = n.Link(n.Switch("sw"), n.Host("a"), netem.Path{})
				c.misuse(l, n)
			}()
			<-done
			if len(l.said) != 1 || !strings.Contains(l.said[0], c.want) {
				t.Errorf("%q; want %q", l.said, c.want)
			}
			l.failed = false
		})
	}
}

// links has the link of each network of TestMisuse.
var links = map[*simnet.Net]*simnet.Link{}

func link(n *simnet.Net) *simnet.Link { return links[n] }

// What a failing test prints shows the fault: the seed, what happened when, to which packet and
// why, and the state of links and connections.
func TestReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &listener{TB: t}
		n := simnet.New(l, simnet.Config{Seed: 42})
		client, server, other := n.Host("client"), n.Host("server"), n.Host("other")
		path := simnet.Symmetric(netem.Impairment{Delay: 10 * time.Millisecond})
		cable := n.Link(client, server, path)
		n.Link(other, n.Switch("lan"), path)
		n.Link(client, n.Switch("lan"), netem.Path{})
		server.Serve(l, hello("server"))
		n.Drop(simnet.Nth(1, simnet.SYN))
		get(client.Client(), "http://server")
		n.Logf("the first request is through")
		cable.Set(netem.Path{Write: netem.Impairment{Loss: 1, Delay: time.Second, Jitter: 1, Rate: 1e6, Reorder: 0.1,
			Corrupt: 0.1, Duplicate: 0.1, Burst: &netem.BurstLoss{}}})
		c := *client.Client()
		c.Timeout = 4 * time.Second
		get(&c, "http://server")
		cable.SetFlows()
		cable.CutFrom(client)
		get(&c, "http://server")
		n.Partition([]*simnet.Host{client, server}, []*simnet.Host{other})
		client.DialTimeout("tcp", "other:80", 100*time.Millisecond)
		n.Block([]*simnet.Host{client}, []*simnet.Host{other})
		other.Cut()
		other.Heal()
		other.Crash()
		client.DialTimeout("tcp", "other:80", 100*time.Millisecond)
		n.Reset(client, server)
		l.failed = true
		l.end()
		text := strings.Join(l.said, "\n")
		at := 0
		for _, want := range []string{
			`simnet: seed 42; after .*; to repeat it, set simnet.Config{Seed: 42}`,
			`0s client: client.\d+ > server.80: CLOSED -> SYN_SENT`,
			`1ns client-server: dropped client.\d+ > server.80: Flags \[S\], seq 0, win 65535, length 0: rule`,
			`1.0\d+s client-server: sent client.\d+ > server.80: Flags \[S\], .* \(retransmission\)`,
			`1.02\d+s client: client.\d+ > server.80: SYN_SENT -> ESTABLISHED`,
			`server: server.80 > client.\d+: SYN_RECEIVED -> ESTABLISHED`,
			`the first request is through`,
			`client-server is set to delay 1s, jitter 1ns, loss 1, bursts, duplicate 0.1, corrupt 0.1, reorder 0.1, ` +
				`rate 1000000 bit/s, back no impairment`,
			`client-server: dropped client.\d+ > server.80: Flags \[P.\], seq \d+:\d+, ack .*, length 87: lost`,
			`client-server has 0 flow paths`,
			`client-server is cut for packets from client`,
			`client-server: dropped client.\d+ > server.80: .*: cut`,
			`partition: client server \| other`,
			`dropped client.\d+ > other.80: Flags \[S\].*: partition`,
			`block: client -> other`,
			`other is cut off`,
			`other is connected again`,
			`other crashes`,
			`reset of client and server: [1-9] ends`,
			`link client-server: \d+ packets, .*; it is cut`,
			`link client-lan: 2 packets, 2 filtered`,
			`host client:\n`,
			`client.\d+ > server.80 SYN_SENT, .*[1-9] time-outs without progress, RTO \d+s`,
			`host server:\n\s+\*.80 LISTEN`,
			`host other has crashed`,
		} {
			loc := regexp.MustCompile(want).FindStringIndex(text[at:])
			if loc == nil {
				t.Errorf("behind byte %d there is no %s", at, want)
				continue
			}
			at += loc[1]
		}
		if t.Failed() {
			t.Log(text)
		}
	})
}

// A test that does not fail prints nothing. When it ends, calls that wait end, and goroutines that
// sleep have time to notice.
func TestEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &listener{TB: t}
		n := simnet.New(l, simnet.Config{})
		client, server := n.Host("client"), n.Host("server")
		n.Link(client, server, delay150)
		server.Serve(l, hello("server"))
		n.At(time.Hour, func() { t.Error("what is due later is called") })
		get(client.Client(), "http://server")
		ln, err := client.Listen("tcp", ":1")
		if err != nil {
			t.Fatal(err)
		}
		waiting, sleeping := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := ln.Accept()
			waiting <- err
		}()
		go func() {
			for {
				if _, err := get(client.Client(), "http://server"); err != nil {
					sleeping <- err
					return
				}
				time.Sleep(30 * time.Second)
			}
		}()
		time.Sleep(time.Minute)
		l.end()
		if err := <-waiting; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept returns %v", err)
		}
		select {
		case <-sleeping:
		default:
			t.Error("a goroutine that sleeps has not noticed")
		}
		if len(l.said) > 0 {
			t.Errorf("the network says %q", l.said)
		}
	})
}

// A test that waits for what never comes fails when its time is over, with a report, and the call
// that waits ends.
func TestLimit(t *testing.T) {
	for _, limit := range []time.Duration{0, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			l := &listener{TB: t}
			n := simnet.New(l, simnet.Config{Limit: limit})
			server := n.Host("server")
			ln, err := server.Listen("tcp", ":80")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Accept returns %v", err)
			}
			if limit == 0 {
				limit = 365 * 24 * time.Hour
			}
			if n.Elapsed() != limit {
				t.Errorf("it returns after %v", n.Elapsed())
			}
			l.end()
			if len(l.said) != 1 || !strings.Contains(l.said[0], "does it wait for something that never comes?") ||
				!strings.Contains(l.said[0], "*.80 LISTEN") {
				t.Errorf("%q", l.said)
			}
		})
	}
}
