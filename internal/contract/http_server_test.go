package contract

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

var quiet = log.New(io.Discard, "", 0)

// TestHTTPServerTimeouts tests each of http.Server's timeouts, to the nanosecond of virtual time.
func TestHTTPServerTimeouts(t *testing.T) {
	for _, k := range []struct {
		name string
		set  func(*http.Server)
		send string
		want time.Duration // time after which the connection ends
		got  string        // bytes that the client reads before
	}{
		{"ReadHeaderTimeout", func(s *http.Server) { s.ReadHeaderTimeout = 3 * time.Second },
			"GET / HTTP/1.1\r\nHost: x\r\n", 3 * time.Second, ""},
		{"ReadHeaderTimeout, nothing sent", func(s *http.Server) { s.ReadHeaderTimeout = 3 * time.Second },
			"", 3 * time.Second, ""},
		{"ReadTimeout", func(s *http.Server) { s.ReadTimeout = 4 * time.Second },
			"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n123", 4 * time.Second, "HTTP/1.1 200 OK"},
		{"IdleTimeout", func(s *http.Server) { s.IdleTimeout = 5 * time.Second },
			"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 5 * time.Second, "HTTP/1.1 200 OK"},
		{"WriteTimeout", func(s *http.Server) {
			s.WriteTimeout = 6 * time.Second
			s.IdleTimeout = time.Second
		}, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n", 10 * time.Second, ""},
	} {
		t.Run(k.name, func(t *testing.T) {
			eachBubble(t, func(t *testing.T, n *network) {
				s := n.serve(t, func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/slow" {
						time.Sleep(10 * time.Second)
					}
					_, err := io.ReadAll(r.Body)
					fmt.Fprint(w, err)
				}, k.set)
				c, err := n.dial(s.l.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				start := time.Now()
				io.WriteString(c, k.send)
				b, err := io.ReadAll(c)
				d := time.Since(start)
				if d < k.want || d > k.want+time.Second { // http.Server sometimes waits half a second for the client
					t.Errorf("it took %v, want %v", d, k.want)
				}
				if line, _, _ := strings.Cut(string(b), "\r\n"); line != k.got || err != nil {
					t.Errorf("%q, %v, want %q", line, err, k.got)
				}
			})
		})
	}
}

// TestHTTPResponseController tests the deadlines that a handler sets.
func TestHTTPResponseController(t *testing.T) {
	eachBubble(t, func(t *testing.T, n *network) {
		result := make(chan error, 1)
		s := n.serve(t, func(w http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(w)
			if r.Method == "PUT" {
				if err := rc.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
					t.Error(err)
				}
				_, err := io.ReadAll(r.Body)
				result <- err
				return
			}
			if err := rc.SetWriteDeadline(time.Now().Add(3 * time.Second)); err != nil {
				t.Error(err)
			}
			var err error
			for err == nil {
				_, err = w.Write(make([]byte, 1<<20))
			}
			result <- err
		}, nil)
		for _, k := range []struct {
			send string
			want time.Duration
		}{
			{"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n123", 2 * time.Second},
			{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 3 * time.Second},
		} {
			c, err := n.dial(s.l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			io.WriteString(c, k.send)
			err = <-result
			if d := time.Since(start); !errors.Is(err, os.ErrDeadlineExceeded) || d != k.want {
				t.Errorf("%v after %v, want a timeout after %v", err, d, k.want)
			}
			c.Close()
		}
	})
}

// TestHTTPClientDisconnect tests that the handler's context ends when the client closes or resets
// the connection, or cancels its request.
func TestHTTPClientDisconnect(t *testing.T) {
	eachOwn(t, func(t *testing.T, n *network) {
		ended := make(chan struct{}, 1)
		entered := make(chan struct{}, 1)
		s := n.serve(t, func(w http.ResponseWriter, r *http.Request) {
			entered <- struct{}{}
			<-r.Context().Done()
			ended <- struct{}{}
		}, nil)
		for _, linger := range []int{-1, 0} {
			c, err := n.dial(s.l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			within(t, "the handler", entered)
			c.(tcpConn).SetLinger(linger)
			c.Close()
			within(t, "the context's end", ended)
		}
		ctx, cancel := context.WithCancel(context.Background())
		req, _ := http.NewRequestWithContext(ctx, "GET", s.url, nil)
		res := async(func() error { _, err := s.client.Do(req); return err })
		within(t, "the handler", entered)
		cancel()
		within(t, "the context's end", ended)
		if err := within(t, "the client", res); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// TestHTTPClientTimeout tests that http.Client.Timeout ends a request whose server is silent.
func TestHTTPClientTimeout(t *testing.T) {
	eachBubble(t, func(t *testing.T, n *network) {
		s := n.serve(t, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, nil)
		s.client.Timeout = 7 * time.Second
		start := time.Now()
		_, err := s.client.Get(s.url)
		var ne net.Error
		if d := time.Since(start); !errors.As(err, &ne) || !ne.Timeout() || d != 7*time.Second {
			t.Errorf("%v after %v", err, d)
		}
	})
}

// TestHTTPShutdown tests that Shutdown lets a request finish, refuses new ones, and ends idle
// connections.
func TestHTTPShutdown(t *testing.T) {
	eachOwn(t, func(t *testing.T, n *network) {
		entered, finish := make(chan struct{}), make(chan struct{})
		s := n.serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				close(entered)
				<-finish
			}
			hello(w, r)
		}, nil)
		idle, err := n.dial(s.l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer idle.Close()
		io.WriteString(idle, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		br := bufio.NewReader(idle)
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		io.ReadAll(resp.Body)
		slow := async(func() string {
			resp, err := s.client.Get(s.url + "/slow")
			if err != nil {
				return err.Error()
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			return fmt.Sprint(string(b), err)
		})
		<-entered
		shut := async(func() error { return s.srv.Shutdown(context.Background()) })
		if err := within(t, "Serve", s.done); err != http.ErrServerClosed {
			t.Errorf("Serve: %v", err)
		}
		if _, err := br.ReadByte(); err != io.EOF {
			t.Errorf("the idle connection: %v", err)
		}
		eventually(t, "new connections are refused", func() bool {
			c, err := n.dial(s.l.Addr().String())
			if err == nil {
				c.Close()
			}
			return err != nil
		})
		close(finish)
		if got := within(t, "the request", slow); !strings.HasPrefix(got, "HTTP/1.1 /slow from") {
			t.Errorf("the request that was under way: %s", got)
		}
		if err := within(t, "Shutdown", shut); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
}

// TestHTTPServerClose tests that Close ends requests that are under way.
func TestHTTPServerClose(t *testing.T) {
	eachOwn(t, func(t *testing.T, n *network) {
		entered := make(chan struct{})
		s := n.serve(t, func(w http.ResponseWriter, r *http.Request) {
			close(entered)
			<-r.Context().Done()
		}, nil)
		res := async(func() error { _, err := s.client.Get(s.url); return err })
		<-entered
		s.srv.Close()
		if err := within(t, "the request", res); err == nil {
			t.Error("the request has succeeded")
		}
	})
}

// TestHTTPManyConnections tests 5,000 connections that are open at once, each with a request under
// way.
func TestHTTPManyConnections(t *testing.T) {
	const conns = 5000
	t.Run("loopback", func(t *testing.T) {
		n := loopback(t)
		var all sync.WaitGroup
		all.Add(conns)
		s := n.serve(t, func(w http.ResponseWriter, r *http.Request) {
			all.Done()
			all.Wait() // until all requests are here
			hello(w, r)
		}, nil)
		s.tr.MaxIdleConns = 0
		s.tr.MaxIdleConnsPerHost = conns
		var wg sync.WaitGroup
		for i := range conns {
			wg.Go(func() {
				resp, err := s.client.Get(fmt.Sprintf("%s/%d", s.url, i))
				if err != nil {
					t.Error(err)
					all.Done()
					return
				}
				defer resp.Body.Close()
				b, err := io.ReadAll(resp.Body)
				if err != nil || !strings.HasPrefix(string(b), fmt.Sprintf("HTTP/1.1 /%d from", i)) {
					t.Errorf("%q %v", b, err)
				}
			})
		}
		wg.Wait()
		if k := len(n.server.Conns()); k < 2*conns {
			t.Errorf("there were %d ends of connections, want %d", k, 2*conns)
		}
	})
}
