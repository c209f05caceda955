package contract

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet"
	"bsdnet/netem"
)

// New refuses each value that makes no sense, with an error that names the field.
func TestConfigRefused(t *testing.T) {
	for field, c := range map[string]bsdnet.Config{
		"Config.Memory":               {Memory: 1<<20 - 1},
		"Config.Backlog":              {Backlog: -1},
		"TCPConfig.Profile":           {TCP: bsdnet.TCPConfig{Profile: "BSD"}},
		"TCPConfig.ReadBuffer":        {TCP: bsdnet.TCPConfig{ReadBuffer: -1}},
		"TCPConfig.WriteBuffer":       {TCP: bsdnet.TCPConfig{WriteBuffer: 1<<30 + 1}},
		"TCPConfig.MSL":               {TCP: bsdnet.TCPConfig{MSL: -1}},
		"TCPConfig.CongestionControl": {TCP: bsdnet.TCPConfig{CongestionControl: "vegas"}},
	} {
		s, err := bsdnet.New(c)
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "bsdnet: "+field+" is ") {
			t.Errorf("%s: %v", field, err)
		}
	}
	for _, p := range []bsdnet.Profile{"", bsdnet.ProfileDefault, bsdnet.ProfileFreeBSD, bsdnet.ProfileNet3} {
		stack(t, bsdnet.Config{TCP: bsdnet.TCPConfig{Profile: p}})
	}
}

// The ConnInfo of a listener, which has no peer, can be printed.
func TestConnsOfListener(t *testing.T) {
	s := stack(t, bsdnet.Config{})
	if _, err := s.Listen("tcp", "127.0.0.1:80"); err != nil {
		t.Fatal(err)
	}
	list := s.Conns()
	if len(list) != 1 || list[0].Remote != netip.MustParseAddrPort("0.0.0.0:0") ||
		strings.Contains(fmt.Sprintf("%+v", list), "invalid") {
		t.Errorf("%+v", list)
	}
}

// The stack has one client. It keeps connections for the next request. None of them outlives the
// stack, because then the bubble would not end.
func TestHTTPClientOfStack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := bsdnet.New(bsdnet.Config{})
		if err != nil {
			t.Fatal(err)
		}
		ln, err := s.Listen("tcp", ":80")
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: http.NotFoundHandler()}
		go srv.Serve(ln)
		for range 100 {
			resp, err := s.HTTPClient().Get("http://127.0.0.1/")
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		if n := s.Stats().TCP.Connattempt; n != 1 {
			t.Errorf("100 requests took %d connections", n)
		}
		s.Close()
		if _, err := s.HTTPClient().Get("http://127.0.0.1/"); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
		srv.Close()
	})
}

// The client gives up after 30 s if a server is silent, as http.DefaultTransport does.
func TestHTTPClientDialTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, err := netem.Pipe(netem.PipeConfig{MTU: 1500})
		if err != nil {
			t.Fatal(err)
		}
		s := stack(t, bsdnet.Config{})
		s.Attach(a, netip.MustParsePrefix("10.0.0.1/24"))
		defer b.Close() // nobody answers there
		start := time.Now()
		_, err = s.HTTPClient().Get("http://10.0.0.2/")
		if took := time.Since(start); took != 30*time.Second || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

// The least Memory is enough for a connection over a link.
func TestLeastMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, err := netem.Pipe(netem.PipeConfig{})
		if err != nil {
			t.Fatal(err)
		}
		client := stack(t, bsdnet.Config{Memory: 1 << 20})
		server := stack(t, bsdnet.Config{Memory: 1 << 20})
		client.Attach(a, netip.MustParsePrefix("10.0.0.1/24"))
		server.Attach(b, netip.MustParsePrefix("10.0.0.2/24"))
		ln, err := server.Listen("tcp", ":80")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			if c, err := ln.Accept(); err == nil {
				io.Copy(c, c)
				c.Close()
			}
		}()
		c, err := client.Dial("tcp", "10.0.0.2:80")
		if err != nil {
			t.Fatal(err)
		}
		data := bytes.Repeat([]byte("bsdnet"), 100_000)
		go c.Write(data)
		got := make([]byte, len(data))
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, data) {
			t.Errorf("the echo: %v", err)
		}
		c.Close()
	})
}
