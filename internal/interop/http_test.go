//go:build linux

package interop

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"bsdnet/internal/nstest"
)

// handler serves /stream?n=N, which answers with N bytes, and /sum, which answers with the length
// and the sum of the posted body.
func handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /stream", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.FormValue("n"))
		w.Header().Set("Content-Length", strconv.Itoa(n))
		io.Copy(w, stream(7, n))
	})
	mux.HandleFunc("POST /sum", func(w http.ResponseWriter, r *http.Request) {
		s := newSummer()
		if _, err := io.Copy(s, r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Fprintf(w, "%s %v", r.Proto, s.sum())
	})
	return mux
}

// A protocol is a way to speak HTTP.
type protocol struct {
	name, proto string
	tls, h2     bool
	curl        []string
}

var protocols = []protocol{
	{"http", "HTTP/1.1", false, false, []string{"--http1.1"}},
	{"https", "HTTP/1.1", true, false, []string{"--http1.1"}},
	{"h2", "HTTP/2.0", true, true, []string{"--http2"}},
	{"h2c", "HTTP/2.0", false, true, []string{"--http2-prior-knowledge"}},
}

// startHTTP starts a server, and returns its base URL.
func startHTTP(t *testing.T, p protocol, h host) (*httptest.Server, string) {
	t.Helper()
	ln, err := h.listen("tcp", h.ip+":0")
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: ln, EnableHTTP2: p.h2,
		Config: &http.Server{Handler: handler(), Protocols: new(http.Protocols)}}
	s.Config.Protocols.SetHTTP1(!p.h2)
	s.Config.Protocols.SetHTTP2(p.h2)
	s.Config.Protocols.SetUnencryptedHTTP2(p.h2)
	scheme := "http"
	if p.tls {
		scheme = "https"
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(func() { within(t, "the server's Close", s.Close) })
	return s, scheme + "://" + ln.Addr().String()
}

// client returns a client that dials from a host.
func client(t *testing.T, p protocol, s *httptest.Server, h host) *http.Client {
	tr := &http.Transport{DialContext: h.dial, Protocols: new(http.Protocols)}
	tr.Protocols.SetHTTP1(!p.h2)
	tr.Protocols.SetHTTP2(p.h2 && p.tls)
	tr.Protocols.SetUnencryptedHTTP2(p.h2 && !p.tls)
	if p.tls {
		roots := s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
		tr.TLSClientConfig = &tls.Config{RootCAs: roots, ServerName: "example.com"}
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: limit}
}

// Go's client gets and posts pages and bodies of megabytes, several at a time, from Go's server.
// One of the two is on the kernel, and the other on the stack.
func TestNetHTTP(t *testing.T) {
	eachMode(t, 4, options{}, func(t *testing.T, w *world) {
		for _, p := range protocols {
			t.Run(p.name, func(t *testing.T) {
				w.eachRole(t, func(t *testing.T, from, to host) {
					s, url := startHTTP(t, p, to)
					c := client(t, p, s, from)
					var wg sync.WaitGroup
					for range 4 {
						wg.Go(func() { download(t, c, p.proto, url+"/stream?n=", size(2<<20, 32<<20)) })
						wg.Go(func() { upload(t, c, p.proto, url+"/sum", size(2<<20, 32<<20)) })
					}
					wg.Wait()
				})
			})
		}
	})
}

func download(t *testing.T, c *http.Client, proto, url string, n int) {
	resp, err := c.Get(url + strconv.Itoa(n))
	if err != nil {
		t.Error(err)
		return
	}
	defer resp.Body.Close()
	s := newSummer()
	_, err = io.Copy(s, resp.Body)
	if got, want := s.sum(), sumOf(7, n); err != nil || got != want || resp.Proto != proto {
		t.Errorf("GET over %s: %v, %v; want %v over %s", resp.Proto, got, err, want, proto)
	}
}

func upload(t *testing.T, c *http.Client, proto, url string, n int) {
	resp, err := c.Post(url, "application/octet-stream", stream(8, n))
	if err != nil {
		t.Error(err)
		return
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if want := fmt.Sprintf("%s %v", proto, sumOf(8, n)); err != nil || string(got) != want {
		t.Errorf("POST: %q, %v; want %q", got, err, want)
	}
}

// curl gets pages from a server on the stack, by all protocols that it has.
func TestCurl(t *testing.T) {
	nstest.Need(t, "curl")
	n := size(5<<20, 256<<20)
	body := filepath.Join(t.TempDir(), "body")
	text, _ := io.ReadAll(stream(8, n))
	if err := os.WriteFile(body, text, 0o600); err != nil {
		t.Fatal(err)
	}
	eachMode(t, 4, options{}, func(t *testing.T, w *world) {
		for _, p := range protocols {
			t.Run(p.name, func(t *testing.T) {
				s, url := startHTTP(t, p, w.bsd())
				dir := t.TempDir()
				args := append([]string{"curl", "-fsS", "--max-time", "60", "--noproxy", "*"}, p.curl...)
				if p.tls {
					ca := filepath.Join(dir, "ca")
					block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
					if err := os.WriteFile(ca, block, 0o600); err != nil {
						t.Fatal(err)
					}
					_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
					args = append(args, "--cacert", ca, "--resolve", "example.com:"+port+":"+w.at(bsdIP))
					url = "https://example.com:" + port
				}
				out := filepath.Join(dir, "out")
				w.Run(t, append(args, "-o", out, url+"/stream?n="+strconv.Itoa(n))...)
				f, err := os.Open(out)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				sum := newSummer()
				io.Copy(sum, f)
				if got, want := sum.sum(), sumOf(7, n); got != want {
					t.Errorf("GET: %v, want %v", got, want)
				}
				post := w.Run(t, append(args, "--data-binary", "@"+body, url+"/sum")...)
				if want := fmt.Sprintf("%s %v", p.proto, sumOf(8, n)); post != want {
					t.Errorf("POST: %q, want %q", post, want)
				}
			})
		}
	})
}

// A client on the stack gets pages from nginx: small ones over one connection, a big file, and
// eight at a time.
func TestNginx(t *testing.T) {
	nstest.Need(t, "nginx")
	n := size(16<<20, 256<<20)
	eachMode(t, 4, options{}, func(t *testing.T, w *world) {
		url := startNginx(t, w, n)
		tr := w.stack.HTTPTransport()
		defer tr.CloseIdleConnections()
		c := &http.Client{Transport: tr, Timeout: limit}
		await(t, "nginx answers", func() bool {
			resp, err := c.Get(url + "small")
			if err != nil {
				return false
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			return true
		})
		var fresh atomic.Int32
		trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
			if !i.Reused {
				fresh.Add(1)
			}
		}}
		ctx := httptrace.WithClientTrace(context.Background(), trace)
		for range 20 {
			fetch(t, ctx, c, url+"small", sumOf(1, 1000))
		}
		if fresh.Load() != 0 {
			t.Errorf("%d new connections for requests one after the other", fresh.Load())
		}
		fetch(t, ctx, c, url+"big", sumOf(2, n))
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() { fetch(t, ctx, c, url+"big", sumOf(2, n)) })
		}
		wg.Wait()
	})
}

func fetch(t *testing.T, ctx context.Context, c *http.Client, url string, want sum) {
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		t.Error(err)
		return
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Error(err)
		return
	}
	defer resp.Body.Close()
	s := newSummer()
	if _, err := io.Copy(s, resp.Body); err != nil || s.sum() != want || resp.StatusCode != 200 {
		t.Errorf("%s: %s, %v, %v; want %v", url, resp.Status, s.sum(), err, want)
	}
}

// nginxConf needs no user, no log, and no directory except its own.
const nginxConf = `
daemon off;
master_process off;
pid nginx.pid;
error_log stderr;
events {}
http {
	access_log off;
	sendfile on;
	client_body_temp_path tmp;
	proxy_temp_path tmp;
	fastcgi_temp_path tmp;
	uwsgi_temp_path tmp;
	scgi_temp_path tmp;
	server {
		listen ADDR;
		root www;
	}
}
`

// startNginx serves the files small, of 1000 bytes, and big, of n bytes.
func startNginx(t *testing.T, w *world, n int) (url string) {
	t.Helper()
	dir := t.TempDir()
	addr := w.at(kernIP) + ":80"
	if err := os.Mkdir(filepath.Join(dir, "www"), 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name string, r io.Reader) {
		text, _ := io.ReadAll(r)
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("www/small", stream(1, 1000))
	write("www/big", stream(2, n))
	write("nginx.conf", strings.NewReader(strings.Replace(nginxConf, "ADDR", addr, 1)))
	w.Background(t, "nginx", "-p", dir, "-c", filepath.Join(dir, "nginx.conf"), "-e", "stderr")
	return "http://" + addr + "/"
}
