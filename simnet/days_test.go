package simnet_test

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet/internal/testutil"
	"bsdnet/netem"
	"bsdnet/simnet"
)

// Ten connections live for days, each of which has a blackout of a minute. None breaks, and the
// heap does not grow.
func TestDays(t *testing.T) {
	days := 1
	if os.Getenv("BSDNET_LONG") != "" {
		days = 30
	}
	day := 24 * time.Hour
	if testutil.Race {
		day /= 8
	}
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(t, simnet.Config{Seed: 1})
		server, lan := n.Host("server"), n.Switch("lan")
		uplink := n.Link(server, lan, simnet.Symmetric(netem.Impairment{
			Delay: 20 * time.Millisecond, Jitter: 5 * time.Millisecond, Loss: 0.001,
		}))
		echo(t, server)
		var asked [10]atomic.Int64
		for i := range asked {
			h := n.Host(fmt.Sprint("client", i))
			n.Link(h, lan, netem.Path{})
			conn, err := h.Dial("tcp", "server:7")
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				b := make([]byte, 100)
				for {
					if _, err := conn.Write(b); err != nil {
						return
					}
					if _, err := io.ReadFull(conn, b); err != nil {
						if n.Elapsed() < time.Duration(days)*day {
							t.Errorf("client%d after %v: %v", i, n.Elapsed(), err)
						}
						return
					}
					asked[i].Add(1)
					time.Sleep(time.Minute)
				}
			}()
		}
		flap := func() {
			uplink.Cut()
			n.After(time.Minute, uplink.Heal)
		}
		n.At(day/2, func() {
			flap()
			n.Every(day, flap)
		})
		heap := func() int64 {
			runtime.GC()
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return int64(m.HeapAlloc)
		}
		time.Sleep(day / 4)
		before := heap()
		time.Sleep(time.Duration(days)*day - day/4 - time.Second)
		if grown := heap() - before; grown > 1<<20 {
			t.Errorf("the heap has grown by %d bytes, from %d", grown, before)
		}
		for i := range asked {
			if got, want := asked[i].Load(), int64(days)*int64(day/time.Minute-6); got < want {
				t.Errorf("client%d has asked %d times; want at least %d", i, got, want)
			}
		}
		if c, s := server.Stack().Stats().TCP, uplink.Stats(); c.Accepts != 10 || s.Read.Cut == 0 || s.Read.Lost == 0 {
			t.Errorf("%d connections, %+v", c.Accepts, s)
		}
	})
}
