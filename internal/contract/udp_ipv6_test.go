package contract

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"bsdnet"
)

// TestDatagramsOverIPv6 tests datagrams over a link with IPv6: every way to write and to read, long
// ones in fragments, those that are too long, and ports that nobody has.
func TestDatagramsOverIPv6(t *testing.T) {
	test := func(t *testing.T, n *network) {
		s, c := n.serverEnd().open(t), n.clientEnd().open(t)
		b := make([]byte, 100)
		for _, w := range udpWrites {
			for _, r := range udpReads {
				data := w.name + ", " + r.name
				if k, err := w.do(c, []byte(data), udpAddr(s)); k != len(data) || err != nil {
					t.Fatalf("%s: wrote %d, %v", data, k, err)
				}
				k, from, err := r.do(s, b)
				if string(b[:k]) != data || err != nil {
					t.Fatalf("%s: read %q, %v", data, b[:k], err)
				}
				want := c.LocalAddr().String()
				if from != "" && from != want && from != fmt.Sprintf("%s of 16 bytes", want) {
					t.Errorf("%s: from %s, not %s", data, from, want)
				}
			}
		}
		for _, size := range []int{1500 - 40 - 8, 1500, 65535 - 8} {
			data := strings.Repeat("0123456789", size/10+1)[:size]
			if k, err := c.WriteTo([]byte(data), s.LocalAddr()); k != size || err != nil {
				t.Errorf("%d bytes: wrote %d, %v", size, k, err)
			}
			if got := readSoon(t, s); got != data {
				t.Errorf("read %d bytes, want %d", len(got), size)
			}
		}
		d := n.clientEnd().connect(t, s.LocalAddr().String())
		names := []any{d.LocalAddr(), "C", s.LocalAddr(), "S"}
		for _, size := range []int{65535 - 7, 1 << 16} {
			_, err := d.Write(make([]byte, size))
			wantError(t, "Write", err, "write udp C->S: write: message too long [EMSGSIZE SyscallError]", names...)
		}
		s.Close()
		if _, err := d.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		_, err := d.Read(b)
		wantError(t, "Read", err, "read udp C->S: read: connection refused [ECONNREFUSED SyscallError]", names...)
		_, err = c.WriteToUDP(b, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 5})
		wantError(t, "WriteToUDP, IPv4", err, "write udp C->127.0.0.1:5: sendto: network is unreachable "+
			"[ENETUNREACH SyscallError]", c.LocalAddr(), "C")
	}
	t.Run("pipe6", func(t *testing.T) { test(t, cable6(t)) })
	t.Run("bubble/pipe6", func(t *testing.T) { inBubble(t, cable6, test) })
	t.Run("loopback", func(t *testing.T) {
		s := stack(t, bsdnet.Config{})
		test(t, &network{server: s, client: s, shost: "::1", chost: "::1"})
	})
}
