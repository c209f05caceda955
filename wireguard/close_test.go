package wireguard

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"bsdnet"
)

// The calls of a link before Start, after it, and after Close.
func TestLinkStates(t *testing.T) {
	sc, _ := configs(t, "")
	l := openT(t, sc)
	bufs, sizes := [][]byte{make([]byte, l.MTU())}, make([]int, 1)
	if n, err := l.Read(bufs, sizes); n != 0 || err == nil {
		t.Errorf("Read before Start: %d, %v", n, err)
	}
	if n, err := l.Write([]net.Buffers{{[]byte{1}}}); n != 0 || err == nil {
		t.Errorf("Write before Start: %d, %v", n, err)
	}
	if err := l.Start(func() {}); err != nil {
		t.Fatal(err)
	}
	if err := l.Start(func() {}); err == nil {
		t.Error("a second Start succeeds")
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if n, err := l.Read(bufs, sizes); n != 0 || err != net.ErrClosed {
			t.Errorf("Read when Close comes: %d, %v", n, err)
		}
	})
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if left := deviceLeft(); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
	wg.Wait()
	if err := l.Close(); err != net.ErrClosed {
		t.Errorf("a second Close: %v", err)
	}
	if n, err := l.Write([]net.Buffers{{[]byte{1}}}); n != 0 || err != net.ErrClosed {
		t.Errorf("Write after Close: %d, %v", n, err)
	}
	if p := l.Peers(); len(p) != 0 {
		t.Errorf("Peers after Close: %v", p)
	}
	if err := openT(t, sc).Close(); err != nil { // without Start
		t.Error(err)
	}
}

// started starts a link without a stack.
func started(t testing.TB, l *Link) *Link {
	t.Helper()
	if err := l.Start(func() {}); err != nil {
		t.Fatal(err)
	}
	watch := time.AfterFunc(limit, func() { l.Close() }) // no call waits forever
	t.Cleanup(func() { watch.Stop() })
	return l
}

func packet(from, to string, number uint32, size int) []byte {
	b := bytes.Repeat([]byte{byte(number)}, size)
	b[0] = 0x45
	binary.BigEndian.PutUint16(b[2:], uint16(size))
	copy(b[12:], netip.MustParseAddr(from).AsSlice())
	copy(b[16:], netip.MustParseAddr(to).AsSlice())
	binary.BigEndian.PutUint32(b[20:], number)
	return b
}

// Packets of all sizes arrive unchanged and in order, in whatever pieces they are written. A packet
// that is too large, is not IPv4, or is from or to an address that is not allowed does not arrive.
func TestPackets(t *testing.T) {
	server, cl := openPair(t, "")
	started(t, server)
	started(t, cl)
	const count = 100 // the device keeps as many until the handshake is done
	var pkts []net.Buffers
	var want [][]byte
	for i := range uint32(count) {
		p := packet("10.7.0.2", "10.7.0.1", i, 24+int(i)*(server.MTU()-24)/(count-1))
		want = append(want, p)
		pkts = append(pkts, net.Buffers{p[:1], nil, p[1:24], p[24:]})
		pkts = append(pkts, net.Buffers{packet("10.7.0.99", "10.7.0.1", i, 100)})           // not the client's address
		pkts = append(pkts, net.Buffers{packet("10.7.0.2", "10.7.0.1", i, server.MTU()+1)}) // too large
		pkts = append(pkts, net.Buffers{{1, 2, 3}}, net.Buffers{})
	}
	for len(pkts) > 0 {
		n, err := cl.Write(pkts[:min(len(pkts), 50)])
		if err != nil {
			t.Fatal(err)
		}
		pkts = pkts[n:]
	}
	bufs, sizes := make([][]byte, 7), make([]int, 7)
	for i := range bufs {
		bufs[i] = make([]byte, server.MTU())
	}
	for len(want) > 0 {
		n, err := server.Read(bufs, sizes)
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			if len(want) == 0 || !bytes.Equal(bufs[i][:sizes[i]], want[0]) {
				t.Fatalf("%d bytes %.32x; want %d packets more", sizes[i], bufs[i][:sizes[i]], len(want))
			}
			want = want[1:]
		}
	}
}

// Close may be called at any time, from several goroutines and with packets in both directions, and
// leaves no goroutine.
func TestCloseRace(t *testing.T) {
	for round := range 10 {
		server, cl := openPair(t, "PersistentKeepalive = 1")
		started(t, server)
		started(t, cl)
		var wg sync.WaitGroup
		closed := func(what string, err error) {
			if err != nil && err != net.ErrClosed {
				t.Errorf("%s: %v", what, err)
			}
		}
		var first [2]chan struct{}
		for i, l := range []*Link{server, cl} {
			first[i] = make(chan struct{})
			wg.Go(func() {
				bufs, sizes := [][]byte{make([]byte, l.MTU())}, make([]int, 1)
				_, err := l.Read(bufs, sizes)
				close(first[i])
				for err == nil {
					_, err = l.Read(bufs, sizes)
				}
				closed("Read", err)
			})
			for range 2 {
				wg.Go(func() {
					p := packet("10.7.0.2", "10.7.0.1", 0, 1000)
					if l == server {
						p = packet("10.7.0.1", "10.7.0.2", 0, 1000)
					}
					var err error
					for err == nil {
						_, err = l.Write([]net.Buffers{{p}, {p}})
					}
					closed("Write", err)
				})
			}
			wg.Go(func() {
				for len(l.Peers()) > 0 {
				}
			})
		}
		if round%2 == 0 {
			<-first[0] // in full flight, else in the handshake
		}
		closeOften(t, server, cl)
		wg.Wait()
		if left := deviceLeft(); left != "" {
			t.Fatalf("round %d, left behind:\n%s", round, left)
		}
	}
}

// closeOften closes each link twice, in parallel: one of the two calls must succeed.
func closeOften(t *testing.T, links ...*Link) {
	t.Helper()
	var succeeded, bad sync.Map
	var closers sync.WaitGroup
	for i := range 2 * len(links) {
		closers.Go(func() {
			l := links[i%len(links)]
			if err := l.Close(); err == nil {
				succeeded.Store(l, true)
			} else if err != net.ErrClosed {
				bad.Store(i, err)
			}
		})
	}
	closers.Wait()
	for _, l := range links {
		if _, ok := succeeded.Load(l); !ok {
			t.Error("no Close has succeeded")
		}
	}
	bad.Range(func(k, v any) bool { t.Error(v); return true })
}

// A stack that is closed in the middle of a transfer closes its link. The last packets on the link
// are the resets, and no goroutine is left.
func TestStackClose(t *testing.T) {
	server, cl := openPair(t, "")
	ss, cs := attachT(t, server), attachT(t, cl)
	ln, err := ss.Listen("tcp", ":9")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		if c, err := ln.Accept(); err == nil {
			io.Copy(c, bulk(1<<40, 1))
		}
	}()
	c, err := cs.Dial("tcp", "10.7.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, c, 1<<20); err != nil {
		t.Fatal(err)
	}
	ss.Close()
	if err := server.Close(); err != net.ErrClosed {
		t.Errorf("the link after its stack: %v", err)
	}
	defer time.AfterFunc(limit, func() { c.Close() }).Stop()
	if _, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("at the other end: %v", err)
	}
	cs.Close()
	if left := deviceLeft(); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
}

// A client's UDP socket gets another port several times during a download. The server finds the
// client by its keepalives, and the connection goes on.
func TestRoaming(t *testing.T) {
	server, cl := openPair(t, "PersistentKeepalive = 1")
	ss, cs := attachT(t, server), attachT(t, cl)
	ln, err := ss.Listen("tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	const n = 32 << 20
	serveBulk(t, ln, n)
	resp, err := client(cs).Get("http://10.7.0.1/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	pr, pw := io.Pipe()
	go func() {
		for i := range 3 {
			io.CopyN(pw, resp.Body, n/4)
			old := cl.Port()
			for cl.Port() == old { // the system may give the same again
				if err := cl.dev.IpcSet("listen_port=0\n"); err != nil {
					pw.CloseWithError(fmt.Errorf("move %d: %w", i, err))
					return
				}
			}
		}
		_, err := io.Copy(pw, resp.Body)
		pw.CloseWithError(err)
	}()
	if got, want := sum(pr), sum(bulk(n, 1)); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	await(t, "the server knows the last port", func() bool {
		return int(server.Peers()[0].Endpoint.Port()) == cl.Port()
	})
}

// A server is restarted on another port. The client finds it as soon as the server has called.
func TestRestart(t *testing.T) {
	sc, cc := configs(t, "PersistentKeepalive = 1")
	server := openT(t, sc)
	cl := openT(t, callAt(cc, server.Port()))
	cs := attachT(t, cl)
	old := server.Port()
	for i := range 3 {
		ss, err := bsdnet.New(bsdnet.Config{})
		if err != nil {
			t.Fatal(err)
		}
		if err := server.AttachTo(ss); err != nil {
			t.Fatal(err)
		}
		ln, err := ss.Listen("tcp", ":80")
		if err != nil {
			t.Fatal(err)
		}
		serveBulk(t, ln, 1<<20)
		getBulk(t, client(cs), "http://10.7.0.1/", 1<<20)
		ss.Close()
		if i == 2 {
			break
		}
		sc.Peers[0].Endpoint = fmt.Sprintf("127.0.0.1:%d", cl.Port())
		for server = openT(t, sc); server.Port() == old; server = openT(t, sc) { // the system may give the same again
			server.Close()
		}
		old = server.Port()
	}
}
