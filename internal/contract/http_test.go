package contract

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"bsdnet"
)

// A site is a server on a network, and a client for it.
type site struct {
	*network
	l      net.Listener
	srv    *http.Server
	client *http.Client
	tr     *http.Transport
	url    string
	done   chan error // Serve's result
}

// serve runs an unmodified http.Server on the network until the test ends. If set is not nil, it
// configures the server.
func (n *network) serve(t testing.TB, h http.HandlerFunc, set func(*http.Server)) *site {
	t.Helper()
	s := &site{network: n, l: n.listen(t), srv: &http.Server{Handler: h}, done: make(chan error, 1)}
	s.srv.ErrorLog = quiet
	if set != nil {
		set(s.srv)
	}
	s.tr = n.client.HTTPTransport()
	s.client = &http.Client{Transport: s.tr}
	s.url = "http://" + s.l.Addr().String()
	go func() { s.done <- s.srv.Serve(s.l) }()
	t.Cleanup(func() {
		s.tr.CloseIdleConnections()
		s.srv.Close()
	})
	return s
}

// fetch sends a request and returns the answer with its body.
func (s *site) fetch(t testing.TB, method, path string, body io.Reader) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, s.url+path, body)
	if err != nil {
		t.Fatal(err)
	}
	return s.do(t, req)
}

func (s *site) do(t testing.TB, req *http.Request) (*http.Response, string) {
	t.Helper()
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

func hello(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "%s %s from %s", r.Proto, r.URL.Path, r.RemoteAddr)
}

// TestHTTPKeepAlive tests that many requests use one connection.
func TestHTTPKeepAlive(t *testing.T) {
	eachOwn(t, func(t *testing.T, n *network) {
		s := n.serve(t, hello, nil)
		var first string
		for i := range 50 {
			resp, b := s.fetch(t, "GET", "/"+strconv.Itoa(i), nil)
			proto, rest, _ := strings.Cut(b, " from ")
			if i == 0 {
				first = rest
			}
			if proto != fmt.Sprintf("HTTP/1.1 /%d", i) || rest != first || resp.StatusCode != 200 {
				t.Errorf("%d: %q, at first from %s", i, b, first)
			}
		}
		s.tr.DisableKeepAlives = true
		if _, b := s.fetch(t, "GET", "/", nil); strings.HasSuffix(b, first) {
			t.Error("without keep-alive the connection is the same")
		}
	})
}

// TestHTTPPipelining tests that requests that are sent before their answers are read are answered
// in order.
func TestHTTPPipelining(t *testing.T) {
	eachOwn(t, func(t *testing.T, n *network) {
		s := n.serve(t, hello, nil)
		c, err := n.dial(s.l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		const reqs = 100
		var b bytes.Buffer
		for i := range reqs {
			fmt.Fprintf(&b, "GET /%d HTTP/1.1\r\nHost: x\r\n\r\n", i)
		}
		go c.Write(b.Bytes())
		br := bufio.NewReader(c)
		for i := range reqs {
			resp, err := http.ReadResponse(br, nil)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil || !strings.HasPrefix(string(body), fmt.Sprintf("HTTP/1.1 /%d ", i)) {
				t.Fatalf("answer %d: %q, %v", i, body, err)
			}
		}
	})
}

// bodySizes returns the lengths of bodies to try. With BSDNET_LONG in the environment, one of them
// is 1 GiB.
func bodySizes(t testing.TB, n *network) []int64 {
	sizes := []int64{0, 1, 64<<10 - 1, 64 << 10, 64<<10 + 1, 10 << 20}
	if os.Getenv("BSDNET_LONG") != "" && !n.bubble {
		sizes = append(sizes, 1<<30)
	}
	return sizes
}

// stream returns a reader of n bytes that show their position.
type stream struct{ off, n int64 }

func (s *stream) Read(b []byte) (int, error) {
	k := int(min(s.n-s.off, int64(len(b))))
	if k == 0 && len(b) > 0 {
		return 0, io.EOF
	}
	for i := range b[:k] {
		o := s.off + int64(i)
		b[i] = byte(o) ^ byte(o>>8) ^ byte(o>>16) ^ byte(o>>24)
	}
	s.off += int64(k)
	return k, nil
}

var bodySeed = maphash.MakeSeed()

// sum is the length of a stream and a hash of its contents.
func sum(r io.Reader) string {
	var h maphash.Hash
	h.SetSeed(bodySeed)
	k, err := io.Copy(&h, r)
	return fmt.Sprintf("%d bytes, %x, %v", k, h.Sum64(), err)
}

// TestHTTPBodies tests bodies of all sizes, with Content-Length and chunked, in both directions,
// over HTTP/1.1.
func TestHTTPBodies(t *testing.T) {
	eachOwn(t, func(t *testing.T, n *network) { testBodies(t, n.serve(t, bodies, nil)) })
}

// bodies answers GET with a body, and PUT with the sum of the body of the request.
func bodies(w http.ResponseWriter, r *http.Request) {
	if r.Method == "PUT" {
		fmt.Fprintf(w, "%d %s", r.ContentLength, sum(r.Body))
		return
	}
	size, _ := strconv.ParseInt(r.FormValue("size"), 10, 64)
	if r.FormValue("chunked") == "" {
		w.Header().Set("Content-Length", r.FormValue("size"))
	} else {
		w.(http.Flusher).Flush()
	}
	io.Copy(w, &stream{n: size})
}

func testBodies(t *testing.T, s *site) {
	for _, size := range bodySizes(t, s.network) {
		want := sum(&stream{n: size})
		for _, chunked := range []string{"", "&chunked=1"} {
			resp, err := s.client.Get(fmt.Sprintf("%s/?size=%d%s", s.url, size, chunked))
			if err != nil {
				t.Fatal(err)
			}
			if got := sum(resp.Body); got != want {
				t.Errorf("down, %d bytes %s: %s, want %s", size, chunked, got, want)
			}
			resp.Body.Close()
			if wantLen := size; resp.ProtoMajor == 1 {
				if chunked != "" {
					wantLen = -1
				}
				if resp.ContentLength != wantLen {
					t.Errorf("down, %d bytes %s: Content-Length %d", size, chunked, resp.ContentLength)
				}
			}
			req, _ := http.NewRequest("PUT", s.url, io.NopCloser(&stream{n: size}))
			req.ContentLength = size
			if chunked != "" || size == 0 {
				req.ContentLength = -1
			}
			if _, b := s.do(t, req); b != fmt.Sprintf("%d %s", req.ContentLength, want) {
				t.Errorf("up, %d bytes %s: %s, want %s", size, chunked, b, want)
			}
		}
	}
}

// certificate returns a server's certificate, and a client's configuration that trusts it.
var certificate = sync.OnceValues(func() (tls.Certificate, *x509.CertPool) {
	ts := httptest.NewUnstartedServer(nil)
	ts.StartTLS()
	defer ts.Close()
	pool := x509.NewCertPool()
	pool.AddCert(ts.Certificate())
	return ts.TLS.Certificates[0], pool
})

// serveTLS is like serve, over TLS, with or without HTTP/2.
func (n *network) serveTLS(t testing.TB, h http.HandlerFunc, http2 bool) *site {
	t.Helper()
	cert, pool := certificate()
	s := &site{network: n, l: n.listen(t), srv: &http.Server{Handler: h, ErrorLog: quiet}, done: make(chan error, 1)}
	var p http.Protocols
	p.SetHTTP1(!http2)
	p.SetHTTP2(http2)
	s.srv.Protocols = &p
	s.srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.tr = n.client.HTTPTransport()
	s.tr.Protocols = &p
	// A bubble begins in the year 2000, before the certificate is valid.
	s.tr.TLSClientConfig = &tls.Config{
		RootCAs:    pool,
		ServerName: "example.com",
		Time:       func() time.Time { return certTime },
	}
	s.client = &http.Client{Transport: s.tr}
	s.url = "https://" + s.l.Addr().String()
	go func() { s.done <- s.srv.ServeTLS(s.l, "", "") }()
	t.Cleanup(func() {
		s.tr.CloseIdleConnections()
		s.srv.Close()
	})
	return s
}

var certTime = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// TestHTTPS tests HTTP/1.1 over TLS.
func TestHTTPS(t *testing.T) {
	certificate()
	eachOwn(t, func(t *testing.T, n *network) {
		s := n.serveTLS(t, hello, false)
		resp, b := s.fetch(t, "GET", "/tls", nil)
		from := strings.TrimSuffix(net.JoinHostPort(n.chost, ""), ":")
		if resp.TLS == nil || !strings.HasPrefix(b, "HTTP/1.1 /tls from "+from) {
			t.Errorf("%q, TLS %v", b, resp.TLS != nil)
		}
		s.srv.Handler = http.HandlerFunc(bodies)
		testBodies(t, s)
	})
}

// TestHTTP2 tests HTTP/2 over TLS: many requests at once on one connection, and bodies.
func TestHTTP2(t *testing.T) {
	certificate()
	eachOwn(t, func(t *testing.T, n *network) { testHTTP2(t, n, n.serveTLS(t, http2Handler, true)) })
}

// TestH2C tests HTTP/2 without TLS, with http.Server.Protocols.
func TestH2C(t *testing.T) {
	eachOwn(t, func(t *testing.T, n *network) {
		var p http.Protocols
		p.SetUnencryptedHTTP2(true)
		s := n.serve(t, http2Handler, func(srv *http.Server) { srv.Protocols = &p })
		s.tr.Protocols = &p
		testHTTP2(t, n, s)
	})
}

func http2Handler(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/" {
		bodies(w, r)
		return
	}
	hello(w, r)
}

func testHTTP2(t *testing.T, n *network, s *site) {
	var conns sync.Map
	ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
		GotConn: func(i httptrace.GotConnInfo) { conns.Store(i.Conn.LocalAddr().String(), true) },
	})
	s.fetch(t, "GET", "/first", nil)
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			req, _ := http.NewRequestWithContext(ctx, "GET", fmt.Sprintf("%s/%d", s.url, i), nil)
			resp, err := s.client.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			if err != nil || resp.ProtoMajor != 2 ||
				!strings.HasPrefix(string(b), fmt.Sprintf("HTTP/2.0 /%d from", i)) {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
	wg.Wait()
	k := 0
	conns.Range(func(any, any) bool { k++; return true })
	if k != 1 {
		t.Errorf("%d connections", k)
	}
	testBodies(t, s)
}

// TestHTTPExpectContinue tests that the client sends the body only after the handler has asked for
// it.
func TestHTTPExpectContinue(t *testing.T) {
	eachOwn(t, func(t *testing.T, n *network) {
		s := n.serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/no" {
				http.Error(w, "no", http.StatusForbidden)
				return
			}
			fmt.Fprint(w, sum(r.Body))
		}, nil)
		s.tr.ExpectContinueTimeout = time.Hour
		for _, path := range []string{"/yes", "/no"} {
			body := &stream{n: 1 << 20}
			continued := false
			ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
				Got100Continue: func() { continued = true },
			})
			req, _ := http.NewRequestWithContext(ctx, "PUT", s.url+path, io.NopCloser(body))
			req.ContentLength = 1 << 20
			req.Header.Set("Expect", "100-continue")
			resp, b := s.do(t, req)
			switch path {
			case "/yes":
				if want := sum(&stream{n: 1 << 20}); !continued || b != want {
					t.Errorf("continued %v, %s, want %s", continued, b, want)
				}
			case "/no":
				if resp.StatusCode != http.StatusForbidden || body.off != 0 || continued {
					t.Errorf("%d after %d bytes of the body", resp.StatusCode, body.off)
				}
			}
		}
	})
}

// TestHTTPHijack tests that a handler can take over the connection, which is a *bsdnet.TCPConn, and
// speak another protocol.
func TestHTTPHijack(t *testing.T) {
	eachOwn(t, func(t *testing.T, n *network) {
		s := n.serve(t, func(w http.ResponseWriter, r *http.Request) {
			c, rw, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			if _, ok := c.(*bsdnet.TCPConn); !ok {
				t.Errorf("the connection is a %T", c)
			}
			fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
			rw.Flush()
			io.Copy(c, rw)
		}, nil)
		req, _ := http.NewRequest("GET", s.url, nil)
		req.Header.Set("Connection", "upgrade")
		req.Header.Set("Upgrade", "echo")
		resp, err := s.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		rwc := resp.Body.(io.ReadWriteCloser)
		defer rwc.Close()
		for i := range 20 {
			msg := strings.Repeat(strconv.Itoa(i), 1000*i+1)
			go io.WriteString(rwc, msg)
			b := make([]byte, len(msg))
			if _, err := io.ReadFull(rwc, b); err != nil || string(b) != msg {
				t.Fatalf("%d: %v", i, err)
			}
		}
	})
}

// TestHTTPTestServer tests httptest.Server with a Listener.
func TestHTTPTestServer(t *testing.T) {
	eachOwn(t, func(t *testing.T, n *network) {
		l, err := n.listenOn(net.JoinHostPort(n.shost, "0"))
		if err != nil {
			t.Fatal(err)
		}
		ts := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(hello)}}
		ts.Start()
		defer ts.Close()
		c := n.client.HTTPClient()
		defer c.CloseIdleConnections()
		resp, err := c.Get(ts.URL + "/x")
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 /x from") {
			t.Errorf("%q %v", b, err)
		}
	})
}

// TestHTTPConnectionRefused tests that the client's error gives the reason.
func TestHTTPConnectionRefused(t *testing.T) {
	eachOwn(t, func(t *testing.T, n *network) {
		s := n.serve(t, hello, nil)
		s.srv.Close()
		if err := <-s.done; err != http.ErrServerClosed {
			t.Errorf("Serve: %v", err)
		}
		_, err := s.client.Get(s.url)
		var op *net.OpError
		if !errors.As(err, &op) || op.Op != "dial" || !strings.HasSuffix(err.Error(), "connect: connection refused") {
			t.Errorf("%v", err)
		}
	})
}
