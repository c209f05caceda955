package contract

import (
	"errors"
	"io"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet"
	"bsdnet/netem"
)

// A path of 400 Mbit/s and 100 ms holds 5 MB. Buffers that grow fill most of it. A buffer that was
// set to 256 KiB lets that much through in each round trip, which is a twentieth.
func TestLongPath(t *testing.T) {
	const size, whole = 64 << 20, 64 << 20 * 8 * time.Second / 400e6
	transfer := func(config bsdnet.TCPConfig, prepare func(c, s tcpConn)) (took time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			a, b, err := netem.Pipe(netem.PipeConfig{MTU: 1500})
			if err != nil {
				t.Fatal(err)
			}
			path := netem.Impairment{Delay: 50 * time.Millisecond, Rate: 400e6, Queue: 16 << 20}
			imp, err := netem.Impair(b, netem.Path{Write: path, Read: path})
			if err != nil {
				t.Fatal(err)
			}
			n := &network{
				server: stack(t, bsdnet.Config{TCP: config}),
				client: stack(t, bsdnet.Config{TCP: config}),
				shost:  "10.0.0.1",
			}
			if err := errors.Join(n.server.Attach(a, netip.MustParsePrefix("10.0.0.1/24")),
				n.client.Attach(imp, netip.MustParsePrefix("10.0.0.2/24"))); err != nil {
				t.Fatal(err)
			}
			c, s := n.pair(t)
			prepare(c, s)
			start := time.Now()
			go func() {
				if _, err := c.Write(make([]byte, size)); err != nil {
					t.Error(err)
				}
			}()
			if _, err := io.CopyN(io.Discard, s, size); err != nil {
				t.Error(err)
			}
			took = time.Since(start)
		})
		return took
	}
	none := bsdnet.TCPConfig{}
	window := size / (256 << 10) * 100 * time.Millisecond
	for _, c := range []struct {
		name        string
		config      bsdnet.TCPConfig
		prepare     func(c, s tcpConn)
		least, most time.Duration
	}{
		{"growing", none, func(c, s tcpConn) {}, whole, 3 * whole},
		{"receive buffer set", none, func(c, s tcpConn) { s.SetReadBuffer(256 << 10) }, window * 9 / 10, 2 * window},
		{"send buffer set", none, func(c, s tcpConn) { c.SetWriteBuffer(256 << 10) }, window * 9 / 10, 2 * window},
		{"receive buffers configured", bsdnet.TCPConfig{ReadBuffer: 256 << 10}, func(c, s tcpConn) {},
			window * 9 / 10, 2 * window},
		{"send buffers configured", bsdnet.TCPConfig{WriteBuffer: 256 << 10}, func(c, s tcpConn) {},
			window * 9 / 10, 2 * window},
	} {
		if d := transfer(c.config, c.prepare); d < c.least || d > c.most {
			t.Errorf("%s: %v; want %v to %v", c.name, d, c.least, c.most)
		}
	}
}
