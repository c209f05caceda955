package contract

import (
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet"
	"bsdnet/internal/testutil/stacktest"
)

// Two cables lead from one host to two others, with the same link-local addresses. The zone says to
// which of the two a connection goes (RFC 4007, 6).
func TestSameLinkLocalOnTwoLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near := stack(t, bsdnet.Config{})
		for _, name := range []string{"one", "two"} {
			a, b := pipe(t)
			stacktest.Attach(t, near, a, "fe80::1/64")
			far := stack(t, bsdnet.Config{})
			stacktest.Attach(t, far, b, "fe80::2/64")
			ln, err := far.Listen("tcp", "[fe80::2%if0]:80")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			go func() {
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					if got := c.RemoteAddr().(*net.TCPAddr); got.Zone != "if0" || got.IP.String() != "fe80::1" {
						t.Errorf("%s is dialed by %v", name, got)
					}
					io.WriteString(c, name)
					c.Close()
				}
			}()
		}
		for zone, want := range map[string]string{"if0": "one", "if1": "two"} {
			c, err := near.Dial("tcp", "[fe80::2%"+zone+"]:80")
			if err != nil {
				t.Fatal(err)
			}
			c.SetDeadline(time.Now().Add(time.Minute))
			if got, err := io.ReadAll(c); err != nil || string(got) != want {
				t.Errorf("zone %s: %q, %v", zone, got, err)
			}
			if got := c.RemoteAddr().String(); got != "[fe80::2%"+zone+"]:80" {
				t.Errorf("zone %s: the peer is %s", zone, got)
			}
			if got := c.LocalAddr().(*net.TCPAddr); got.Zone != zone {
				t.Errorf("zone %s: the local address is %v", zone, got)
			}
			c.Close()
			// A port at which nobody listens is refused by the host on that link.
			if _, err := near.Dial("tcp", "[fe80::2%"+zone+"]:81"); err == nil {
				t.Errorf("zone %s: a closed port is dialed", zone)
			}
		}
		if i := near.Stats().Interfaces; i[1].PacketsOut == 0 || i[1].PacketsOut != i[2].PacketsOut {
			t.Errorf("%d packets went to one, and %d to the other", i[1].PacketsOut, i[2].PacketsOut)
		}
	})
}
