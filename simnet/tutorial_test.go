package simnet_test

import (
	"errors"
	"net/http"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet/netem"
	"bsdnet/simnet"
)

// These are the tests of the package's comment. TestTutorial compares.

func TestTutorialFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(t, simnet.Config{Seed: 1})
		client, server := n.Host("client"), n.Host("server")
		n.Link(client, server, simnet.Symmetric(netem.Impairment{Delay: 150 * time.Millisecond}))
		srv := server.Serve(t, http.NotFoundHandler())
		resp, err := client.Client().Get(srv.URL) // "http://server"
		if err != nil || n.Elapsed().Round(time.Millisecond) != 600*time.Millisecond {
			t.Errorf("%v, %v after %v", resp, err, n.Elapsed())
		}
	})
}

func TestTutorialBlackout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(t, simnet.Config{Seed: 1})
		client, server := n.Host("client"), n.Host("server")
		link := n.Link(client, server, simnet.Symmetric(netem.Impairment{Delay: 20 * time.Millisecond}))
		server.Serve(t, http.NotFoundHandler())
		n.At(10*time.Second, link.Cut)
		n.At(40*time.Second, link.Heal)

		hc := *client.Client()
		hc.Timeout = 5 * time.Second
		failures := 0
		for n.Elapsed() < time.Minute {
			if resp, err := hc.Get("http://server/"); err != nil {
				failures++
			} else {
				resp.Body.Close()
			}
			time.Sleep(time.Second)
		}
		if failures < 4 || failures > 6 {
			t.Errorf("%d requests have failed", failures)
		}
	})
}

func TestTutorialPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(t, simnet.Config{Seed: 1})
		lan := n.Switch("lan")
		var hosts []*simnet.Host
		for _, name := range []string{"a", "b", "c", "d", "e"} {
			h := n.Host(name)
			n.Link(h, lan, netem.Path{}) // at once, without loss
			h.Serve(t, http.NotFoundHandler())
			hosts = append(hosts, h)
		}
		n.Partition(hosts[:2], hosts[2:])
		if _, err := hosts[0].DialTimeout("tcp", "b:80", time.Second); err != nil {
			t.Errorf("within a group: %v", err)
		}
		if _, err := hosts[0].DialTimeout("tcp", "c:80", time.Second); err == nil {
			t.Error("from group to group: no error")
		}
		n.Heal()
		if _, err := hosts[0].DialTimeout("tcp", "c:80", time.Second); err != nil {
			t.Errorf("after Heal: %v", err)
		}
	})
}

func TestTutorialCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(t, simnet.Config{Seed: 1})
		client, server := n.Host("client"), n.Host("server")
		n.Link(client, server, netem.Path{})
		server.Listen("tcp", ":9000") // connections wait to be accepted
		conn, err := client.Dial("tcp", "server:9000")
		if err != nil {
			t.Fatal(err)
		}
		server.Crash()
		_, err = conn.Read(make([]byte, 1))
		if !errors.Is(err, syscall.ETIMEDOUT) || n.Elapsed().Round(time.Second) != 150*time.Second {
			t.Errorf("%v after %v", err, n.Elapsed())
		}

		server.Restart() // with the same addresses, and without listeners
		_, err = client.Dial("tcp", "server:9000")
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("after the restart: %v", err)
		}
	})
}

func TestTutorialPackets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(t, simnet.Config{Seed: 1})
		client, server := n.Host("client"), n.Host("server")
		n.Link(client, server, simnet.Symmetric(netem.Impairment{Delay: 10 * time.Millisecond}))
		srv := server.Serve(t, http.NotFoundHandler())

		syn := n.Drop(simnet.Nth(1, simnet.SYN))
		resp, err := client.Client().Get(srv.URL)
		if err != nil || syn.Hits() != 1 || n.Elapsed().Round(time.Millisecond) != 1040*time.Millisecond {
			t.Errorf("%v, %v after %v", resp, err, n.Elapsed()) // TCP sends a SYN again after 1 s
		}
		resp.Body.Close()

		request := n.Drop(simnet.Nth(1, simnet.All(simnet.From(client), simnet.Data)))
		again := n.Drop(simnet.First(2, simnet.All(simnet.From(client), simnet.Retransmission)))
		resp, err = client.Client().Get(srv.URL)
		if err != nil || request.Hits() != 1 || again.Hits() != 2 {
			t.Errorf("%v, %v; %d and %d packets are dropped", resp, err, request.Hits(), again.Hits())
		}
		resp.Body.Close()
	})
}

// TestTutorial: the tests in the package's comment, and the code in its page, are tests of this
// folder.
func TestTutorial(t *testing.T) {
	space := regexp.MustCompile(`\s+`)
	flat := func(s string) string { return space.ReplaceAllString(s, " ") }
	read := func(name string) string {
		t.Helper()
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	tests := flat(read("tutorial_test.go") + read("migrate_test.go"))
	comment := regexp.MustCompile(`(?m)^//\t?`).ReplaceAllString(read("doc.go"), "")
	blocks := regexp.MustCompile(`(?ms)^synctest\.Test.*?^\}\)$`).FindAllString(comment, -1)
	if len(blocks) != 5 {
		t.Errorf("%d tests in the package's comment", len(blocks))
	}
	page := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(read("../docs/simulated-network.md"), -1)
	if len(page) < 2 {
		t.Errorf("%d pieces of code in the page", len(page))
	}
	for _, b := range page {
		blocks = append(blocks, b[1])
	}
	for _, b := range blocks {
		for _, part := range strings.Split(b, "\t…\n") {
			if !strings.Contains(tests, strings.TrimSpace(flat(part))) {
				t.Errorf("this is not in a test:\n%s", part)
			}
		}
	}
}
