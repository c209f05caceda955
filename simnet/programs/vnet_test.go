package programs

import (
	"bytes"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/logging"
	"github.com/pion/transport/v3/vnet"

	"bsdnet"
	"bsdnet/netem"
	"bsdnet/simnet"
	"bsdnet/udptunnel"
)

// Pion's virtual network joins a simulated network by a link: a tunnel over its UDP, from a router
// to a stack that is on the other side. The router has no MinDelay, because it would hold a mutex
// while it waits, which no bubble allows; delays are simnet's affair.
//
//	client - lan - gateway = tunnel over vnet = far
func TestVnet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wan, err := vnet.NewRouter(&vnet.RouterConfig{
			CIDR: "1.2.3.0/24", LoggerFactory: logging.NewDefaultLoggerFactory(),
		})
		if err != nil {
			t.Fatal(err)
		}
		host := func(ip string) *vnet.Net {
			n, err := vnet.NewNet(&vnet.NetConfig{StaticIPs: []string{ip}})
			if err != nil {
				t.Fatal(err)
			}
			if err := wan.AddNet(n); err != nil {
				t.Fatal(err)
			}
			return n
		}
		near, distant := host("1.2.3.1"), host("1.2.3.2")
		if err := wan.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { wan.Stop() })
		tunnel := func(from *vnet.Net, local, peer string) *udptunnel.Link {
			conn, err := from.ListenPacket("udp4", local)
			if err != nil {
				t.Fatal(err)
			}
			l, err := udptunnel.Open(udptunnel.Config{Conn: conn, Peer: peer, Key: bytes.Repeat([]byte{7}, 32)})
			if err != nil {
				t.Fatal(err)
			}
			return l
		}

		n := simnet.New(t, simnet.Config{Seed: 1})
		client, gateway, lan := n.Host("client"), n.Router("gateway"), n.Switch("lan")
		n.Link(client, lan, simnet.Symmetric(netem.Impairment{Delay: 5 * time.Millisecond}))
		n.Link(gateway, lan, netem.Path{})
		first := tunnel(near, "1.2.3.1:5180", "1.2.3.2:5180")
		if err := gateway.Stack().Attach(first, netip.MustParsePrefix("10.200.0.1/24")); err != nil {
			t.Fatal(err)
		}

		far, err := bsdnet.New(bsdnet.Config{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { far.Close() })
		link := tunnel(distant, "1.2.3.2:5180", "")
		if err := far.Attach(link, netip.MustParsePrefix("10.200.0.2/24")); err != nil {
			t.Fatal(err)
		}
		if err := far.AddRoute(netip.MustParsePrefix("10.0.0.0/8"), link); err != nil {
			t.Fatal(err)
		}
		ln, err := far.Listen("tcp", ":7")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			if c, err := ln.Accept(); err == nil {
				c.Write([]byte("x"))
				c.Close()
			}
		}()
		c, err := client.Dial("tcp", "10.200.0.2:7")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Error(err)
		}
		// The tunnel's own handshake may have to be repeated after a second.
		if d := n.Elapsed(); d < 20*time.Millisecond || d > 5*time.Second {
			t.Errorf("the handshake and a byte take %v", d)
		}
	})
}
