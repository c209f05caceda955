package simnet_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet/netem"
	"bsdnet/simnet"
)

// This is the program and its tests of docs/simulated-network.md. TestTutorial compares.

// ServeVersion tells everyone who connects the version.
func ServeVersion(ln net.Listener, version string) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		fmt.Fprint(c, version)
		c.Close()
	}
}

// A Watcher asks a server for its version, again and again.
type Watcher struct {
	Dial     func(network, address string) (net.Conn, error) // net.Dial
	Address  string
	Every    time.Duration
	Version  atomic.Value
	Failures atomic.Int32
}

// Run asks until ctx ends.
func (w *Watcher) Run(ctx context.Context) {
	for ; ctx.Err() == nil; time.Sleep(w.Every) {
		version, err := w.ask()
		if err != nil {
			w.Failures.Add(1)
			continue
		}
		w.Version.Store(version)
	}
}

func (w *Watcher) ask() (string, error) {
	c, err := w.Dial("tcp", w.Address)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	b, err := io.ReadAll(c)
	return string(b), err
}

func TestWatcherOnLoopback(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go ServeVersion(ln, "v1")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	w := &Watcher{Dial: net.Dial, Address: ln.Addr().String(), Every: 10 * time.Millisecond}
	go w.Run(ctx)
	for end := time.Now().Add(5 * time.Second); w.Version.Load() != "v1"; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no version within 5 s")
		}
	}
	ln.Close() // as if the server had crashed?
	for end := time.Now().Add(5 * time.Second); w.Failures.Load() == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no failure within 5 s")
		}
	}
}

func TestWatcherOnNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(t, simnet.Config{Seed: 1})
		client, server := n.Host("client"), n.Host("server")
		n.Link(client, server, simnet.Symmetric(netem.Impairment{Delay: 50 * time.Millisecond}))
		ln, err := server.Listen("tcp", ":4000")
		if err != nil {
			t.Fatal(err)
		}
		go ServeVersion(ln, "v1")
		w := &Watcher{Dial: client.Dial, Address: "server:4000", Every: 10 * time.Second}
		go w.Run(t.Context())

		time.Sleep(time.Second)
		if v := w.Version.Load(); v != "v1" {
			t.Errorf("version %v", v)
		}
		ln.Close()
		time.Sleep(10 * time.Second)
		if f := w.Failures.Load(); f != 1 {
			t.Errorf("%d failures", f)
		}
	})
}

func TestWatcherComesThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(t, simnet.Config{Seed: 1})
		client, server := n.Host("client"), n.Host("server")
		link := n.Link(client, server, simnet.Symmetric(netem.Impairment{Delay: 50 * time.Millisecond}))
		start := func(version string) {
			ln, err := server.Listen("tcp", ":4000")
			if err != nil {
				t.Error(err)
				return
			}
			go ServeVersion(ln, version)
		}
		start("v1")
		w := &Watcher{Dial: client.Dial, Address: "server:4000", Every: 10 * time.Second}
		go w.Run(t.Context())

		n.At(time.Hour, func() { link.Set(simnet.Symmetric(netem.Impairment{Delay: time.Second, Loss: 0.1})) })
		n.At(2*time.Hour, server.Crash)
		n.At(3*time.Hour, func() {
			server.Restart()
			start("v2")
		})
		time.Sleep(4 * time.Hour)
		if v := w.Version.Load(); v != "v2" {
			t.Errorf("version %v, %d failures", v, w.Failures.Load())
		}
	})
}
