package bsdnet_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet"
	"bsdnet/netem"
	"bsdnet/qlog"
	"bsdnet/tun"
	"bsdnet/udptunnel"
	"bsdnet/wireguard"
)

// What stands in README.md stands here too, and runs; TestReadme compares.

func ExampleListen() {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello %s", r.URL.Path[1:])
	})

	ln, err := bsdnet.Listen("tcp", "127.0.0.1:80") // was: net.Listen
	if err != nil {
		panic(err)
	}
	go http.Serve(ln, handler)
	client := bsdnet.HTTPClient() // was: http.DefaultClient
	resp, err := client.Get("http://127.0.0.1/world")

	if err != nil {
		panic(err)
	}
	defer client.CloseIdleConnections()
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	fmt.Println(string(body), err)
	ln.Close()
	// Output: hello world <nil>
}

func ExampleListenPacket() {
	server, err := bsdnet.ListenPacket("udp", "127.0.0.1:53") // was: net.ListenPacket
	if err != nil {
		panic(err)
	}
	defer server.Close()
	client, err := bsdnet.Dial("udp", "127.0.0.1:53") // was: net.Dial
	if err != nil {
		panic(err)
	}
	defer client.Close()
	client.Write([]byte("who is it?"))

	buf := make([]byte, 1500)
	n, from, err := server.ReadFrom(buf)
	if err != nil {
		panic(err)
	}
	fmt.Printf("%s %v\n", buf[:n], from.String() == client.LocalAddr().String())
	// Output: who is it? true
}

func ExampleUDPConn_ReadBatch() {
	server, err := bsdnet.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7})
	if err != nil {
		panic(err)
	}
	defer server.Close()
	client, err := bsdnet.DialUDP("udp", nil, server.LocalAddr().(*net.UDPAddr))
	if err != nil {
		panic(err)
	}
	defer client.Close()
	client.WriteBatch([]bsdnet.Message{
		{Buffers: [][]byte{[]byte("header 1, "), []byte("payload 1")}},
		{Buffers: [][]byte{[]byte("header 2, "), []byte("payload 2")}},
	}, 0)

	batch := make([]bsdnet.Message, 8)
	for i := range batch {
		batch[i].Buffers = [][]byte{make([]byte, 1500)}
	}
	n, err := server.ReadBatch(batch, 0)
	if err != nil {
		panic(err)
	}
	for _, m := range batch[:n] {
		fmt.Printf("%s\n", m.Buffers[0][:m.N])
	}
	// Output:
	// header 1, payload 1
	// header 2, payload 2
}

// Traceroute: pings with a rising TTL, of which each finds a router further away.
func ExampleStack_Ping() {
	host, server := newStack(bsdnet.Config{}), newStack(bsdnet.Config{})
	router := newStack(bsdnet.Config{Forwarding: true})
	defer host.Close()
	defer router.Close()
	defer server.Close()
	connect(host, "10.0.0.1/24", router, "10.0.0.2/24")
	connect(router, "10.0.1.1/24", server, "10.0.1.2/24")
	host.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), host.Links()[0])
	server.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), server.Links()[0])

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for ttl := 1; ttl <= 30; ttl++ {
		reply, err := host.Ping(ctx, netip.MustParseAddr("10.0.1.2"), bsdnet.PingConfig{TTL: ttl})
		var pe *bsdnet.PingError
		if errors.As(err, &pe) && pe.TTLExceeded() {
			fmt.Println(ttl, pe.From) // and pe.RTT
			continue
		}
		fmt.Println(ttl, reply.From, err) // and reply.RTT
		break
	}
	// Output:
	// 1 10.0.0.2
	// 2 10.0.1.2 <nil>
}

// newStack returns a new stack.
func newStack(c bsdnet.Config) *bsdnet.Stack {
	s, err := bsdnet.New(c)
	if err != nil {
		panic(err)
	}
	return s
}

// connect connects two stacks by a cable, on which they have these addresses.
func connect(left *bsdnet.Stack, leftAddr string, right *bsdnet.Stack, rightAddr string) {
	a, b, err := netem.Pipe(netem.PipeConfig{})
	if err != nil {
		panic(err)
	}
	err1 := left.Attach(a, netip.MustParsePrefix(leftAddr))
	err2 := right.Attach(b, netip.MustParsePrefix(rightAddr))
	if err := errors.Join(err1, err2); err != nil {
		panic(err)
	}
}

func ExampleStack_Attach() {
	a, b, err := netem.Pipe(netem.PipeConfig{MTU: 1500})
	if err != nil {
		panic(err)
	}
	left, err := bsdnet.New(bsdnet.Config{})
	if err != nil {
		panic(err)
	}
	defer left.Close()
	right, err := bsdnet.New(bsdnet.Config{})
	if err != nil {
		panic(err)
	}
	defer right.Close()
	if err := left.Attach(a, netip.MustParsePrefix("10.0.0.1/24")); err != nil {
		panic(err)
	}
	if err := right.Attach(b, netip.MustParsePrefix("10.0.0.2/24")); err != nil {
		panic(err)
	}

	ln, err := right.Listen("tcp", ":7")
	if err != nil {
		panic(err)
	}
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		io.Copy(c, c)
		c.Close()
	}()
	c, err := left.Dial("tcp", "10.0.0.2:7")
	if err != nil {
		panic(err)
	}
	io.WriteString(c, "there and back")
	c.(*bsdnet.TCPConn).CloseWrite()
	text, err := io.ReadAll(c)
	fmt.Println(string(text), err)
	// Output: there and back <nil>
}

func TestOverABadLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, _ := netem.Pipe(netem.PipeConfig{}) // package bsdnet/netem
		way := netem.Impairment{Delay: 50 * time.Millisecond, Loss: 0.01}
		bad, _ := netem.Impair(a, netem.Path{Write: way, Read: way, Seed: 1})
		client, _ := bsdnet.New(bsdnet.Config{})
		defer client.Close()
		server, _ := bsdnet.New(bsdnet.Config{})
		defer server.Close()
		client.Attach(bad, netip.MustParsePrefix("10.0.0.1/24"))
		server.Attach(b, netip.MustParsePrefix("10.0.0.2/24"))

		ln, err := server.Listen("tcp", ":80")
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: http.FileServerFS(os.DirFS("."))}
		go srv.Serve(ln)
		defer srv.Close()

		start := time.Now() // the bubble's clock: nobody waits for it
		hc := client.HTTPClient()
		for time.Since(start) < time.Hour {
			resp, err := hc.Get("http://10.0.0.2/README.md")
			if err != nil {
				t.Fatal(err)
			}
			if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != resp.ContentLength {
				t.Fatalf("%d of %d bytes: %v", n, resp.ContentLength, err)
			}
			resp.Body.Close()
			time.Sleep(10 * time.Second)
		}
		if bad.Stats().Write.Lost == 0 {
			t.Error("nothing was lost")
		}
		hc.CloseIdleConnections()
	})
}

func ExampleConfig_names() {
	stack, err := bsdnet.New(bsdnet.Config{DNS: bsdnet.DNSConfig{
		Servers: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.53:53")}, // asked over the stack's own links
		Search:  []string{"corp.example"},                                  // "db" may be db.corp.example
		Hosts:   map[string][]netip.Addr{"web": {netip.MustParseAddr("127.0.0.1")}},
	}})

	if err != nil {
		panic(err)
	}
	defer stack.Close()
	ln, err := stack.Listen("tcp", "web:80")
	if err != nil {
		panic(err)
	}
	defer ln.Close()
	go http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "this is %s", r.Host)
	}))

	resp, err := stack.HTTPClient().Get("http://web/")

	if err != nil {
		panic(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	fmt.Println(string(body), err)
	// Output: this is web <nil>
}

func ExampleConfig_trace() {
	file, err := os.CreateTemp("", "*.qlog")
	if err != nil {
		panic(err)
	}
	defer os.Remove(file.Name())
	q := qlog.New(file) // package bsdnet/qlog
	stack, err := bsdnet.New(bsdnet.Config{Trace: q.Trace})
	if err != nil {
		panic(err)
	}
	ln, err := stack.Listen("tcp", ":7")
	if err != nil {
		panic(err)
	}
	conn, err := stack.Dial("tcp", "127.0.0.1:7")
	if err != nil {
		panic(err)
	}

	info := conn.(*bsdnet.TCPConn).Info() // struct tcp_info: round trips, windows, losses, what limits the speed
	fmt.Println(info.State, info.Retransmits, info.Cwnd > 0)
	stats := stack.Stats() // netstat -s and -i: counters of TCP, IP and ICMP, and of each interface
	fmt.Println(stats.TCP.Connects, stats.TCP.Rcvbadsum, stats.Interfaces[0].Name)

	ln.Close()
	stack.Close()
	err = q.Close()
	fmt.Println(err)
	// Output:
	// ESTABLISHED 0 true
	// 2 0 lo0
	// <nil>
}

// The following examples need privileges, a peer or a file, so they are only compiled here. Command
// examples/http does the same, and is tested.

func Example_tun() {
	stack, _ := bsdnet.New(bsdnet.Config{})
	defer stack.Close()
	dev, err := tun.Open(tun.Config{ // the kernel's addresses
		Host: netip.MustParsePrefix("10.0.0.1/24"), Host6: netip.MustParsePrefix("fd00::1/64"),
	})
	if err != nil {
		panic(err)
	}
	err = stack.Attach(dev, netip.MustParsePrefix("10.0.0.2/24"), netip.MustParsePrefix("fd00::2/64")) // the stack's
	if err != nil {
		panic(err)
	}
}

func Example_udpTunnel() {
	stack, _ := bsdnet.New(bsdnet.Config{})
	defer stack.Close()
	key, err := os.ReadFile("key") // 32 bytes
	if err != nil {
		panic(err)
	}
	tunnel, err := udptunnel.Open(udptunnel.Config{Peer: "192.0.2.7:5180", Key: key}) // package bsdnet/udptunnel
	if err != nil {
		panic(err)
	}
	err = stack.Attach(tunnel, netip.MustParsePrefix("10.9.0.2/24"))
	if err != nil {
		panic(err)
	}
}

func Example_wireGuard() {
	stack, _ := bsdnet.New(bsdnet.Config{})
	defer stack.Close()
	config, err := wireguard.ParseFile("wg0.conf") // package bsdnet/wireguard
	if err != nil {
		panic(err)
	}
	wg, err := wireguard.Open(config)
	if err != nil {
		panic(err)
	}
	err = wg.AttachTo(stack) // its addresses, routes and name servers
	if err != nil {
		panic(err)
	}
}

// TestReadme: the Go code in README.md is code of this file.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("doc_test.go")
	if err != nil {
		t.Fatal(err)
	}
	space := regexp.MustCompile(`\s+`)
	flat := func(s string) string { return space.ReplaceAllString(s, " ") }
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllSubmatch(readme, -1)
	if len(blocks) < 2 {
		t.Fatalf("%d blocks of Go in README.md", len(blocks))
	}
	for _, b := range blocks {
		for _, part := range strings.Split(string(b[1]), "\t…\n") {
			if !strings.Contains(flat(string(text)), strings.TrimSpace(flat(part))) {
				t.Errorf("README.md has code that is not in doc_test.go:\n%s", part)
			}
		}
	}
}
