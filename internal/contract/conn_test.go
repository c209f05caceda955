package contract

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"

	"bsdnet"

	"golang.org/x/net/nettest"
)

func TestConn(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(at, func(t *testing.T) {
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				s := stack(t, bsdnet.Config{})
				ln, err := s.Listen("tcp", at)
				if err != nil {
					return nil, nil, nil, err
				}
				c1, err = s.Dial("tcp", ln.Addr().String())
				if err != nil {
					return nil, nil, nil, err
				}
				c2, err = ln.Accept()
				return c1, c2, func() { c1.Close(); c2.Close(); ln.Close() }, err
			})
		})
	}
}

func TestHTTP(t *testing.T) {
	s := stack(t, bsdnet.Config{})
	ln, err := s.Listen("tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello %s", r.URL.Path)
	})}
	go srv.Serve(ln)
	defer srv.Close()
	for _, host := range []string{"127.0.0.1", "[::1]", "localhost"} {
		resp, err := s.HTTPClient().Get("http://" + host + "/world")
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(b) != "hello /world" {
			t.Fatalf("%s: %q %v", host, b, err)
		}
	}
}
