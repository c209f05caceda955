package contract

import (
	"io"
	"runtime"
	"testing"

	"bsdnet/internal/testutil"
)

// TestIdleProxy tests that an idle proxied connection holds at most 20 KB. It consists of two
// connections, and so four sockets, and two goroutines that copy. The stack allocates no buffer
// before there is data to put into it.
func TestIdleProxy(t *testing.T) {
	if testutil.Race {
		t.Skip("the race detector's own memory counts")
	}
	for name, copy := range map[string]func(dst, src tcpConn){
		"WriteTo":  func(dst, src tcpConn) { io.Copy(dst, src) },
		"ReadFrom": func(dst, src tcpConn) { io.Copy(dst, struct{ io.Reader }{src}) },
	} {
		t.Run(name, func(t *testing.T) {
			const conns, most = 1000, 20_000
			n := loopback(t)
			front, back := n.listen(t), n.listen(t)
			var ends []tcpConn
			memory := func() int {
				// A pool takes two collections to release its objects, and goroutines that are
				// about to end must do so.
				for range 10 {
					runtime.GC()
					n.settle()
				}
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				return int(m.HeapAlloc + m.StackInuse)
			}
			var before int
			for i := range conns + 10 {
				if i == 10 { // the first connections make the stack allocate more
					before = memory()
				}
				client, in := n.pairOver(t, front)
				out, server := n.pairOver(t, back)
				go func() { copy(out, in); out.CloseWrite() }()
				go func() { copy(in, out); in.CloseWrite() }()
				for _, d := range [][2]tcpConn{{client, server}, {server, client}} { // use the connection
					go d[0].Write(make([]byte, 100_000))
					if _, err := io.ReadFull(d[1], make([]byte, 100_000)); err != nil {
						t.Fatal(err)
					}
				}
				ends = append(ends, client, server)
			}
			if each := (memory() - before) / conns; each > most {
				t.Errorf("an idle proxied connection holds %d bytes, want at most %d", each, most)
			}
			for i := 0; i < len(ends); i += 2 { // the connections still work
				ends[i].Write([]byte("x"))
				ends[i].CloseWrite()
				if b, err := io.ReadAll(ends[i+1]); string(b) != "x" || err != nil {
					t.Fatalf("%q, %v", b, err)
				}
				ends[i+1].CloseWrite()
				if _, err := io.ReadAll(ends[i]); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
