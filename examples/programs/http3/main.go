// Program http3 runs an HTTP/3 server and a client of quic-go over UDP of bsdnet. The client fetches
// a page, and then a large file whose hash it compares with what the server says.
package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	mrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"bsdnet/examples/programs/cable"
)

func main() {
	if err := run(os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func run(out io.Writer) error {
	server, client, stop, err := cable.Pair(5)
	if err != nil {
		return err
	}
	defer stop()
	cert, pool, err := certificate(cable.Server)
	if err != nil {
		return err
	}

	conn, err := server.ListenPacket("udp", ":443")
	if err != nil {
		return err
	}
	srv := &http3.Server{Handler: handler(), TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}}
	go srv.Serve(conn) // quic-go needs a net.PacketConn, and no more
	defer srv.Close()

	local, err := client.ListenPacket("udp", ":0")
	if err != nil {
		return err
	}
	transport := newTransport(local, &tls.Config{RootCAs: pool})
	defer transport.Close()
	c := &http.Client{Transport: transport, Timeout: time.Minute}
	return fetch(out, c, "https://"+cable.Server)
}

// newTransport returns an HTTP/3 client that sends from conn.
func newTransport(conn net.PacketConn, config *tls.Config) *http3.Transport {
	from := &quic.Transport{Conn: conn}
	return &http3.Transport{
		TLSClientConfig: config,
		Dial: func(ctx context.Context, address string, t *tls.Config, q *quic.Config) (*quic.Conn, error) {
			to, err := net.ResolveUDPAddr("udp", address) // a literal address
			if err != nil {
				return nil, err
			}
			return from.DialEarly(ctx, to, t, q)
		},
	}
}

const fileSize = 1 << 20

// handler serves a page, and a file of random bytes with its hash.
func handler() http.Handler {
	var seed [32]byte
	rand.Read(seed[:])
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "Served by quic-go over bsdnet, with %s", r.Proto)
	})
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
		file := make([]byte, fileSize)
		mrand.NewChaCha8(seed).Read(file)
		w.Header().Set("Hash", fmt.Sprintf("%x", sha256.Sum256(file)))
		w.Write(file)
	})
	return mux
}

// fetch gets the page and the file.
func fetch(out io.Writer, c *http.Client, url string) error {
	page, _, err := get(c, url+"/")
	if err != nil {
		return err
	}
	fmt.Fprintln(out, string(page))
	file, header, err := get(c, url+"/file")
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "a file of %d bytes, whose hash is the server's: %v\n",
		len(file), header.Get("Hash") == fmt.Sprintf("%x", sha256.Sum256(file)))
	return nil
}

func get(c *http.Client, url string) ([]byte, http.Header, error) {
	resp, err := c.Get(url)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("%s: %s", url, resp.Status)
	}
	body, err := io.ReadAll(resp.Body)
	return body, resp.Header, err
}
