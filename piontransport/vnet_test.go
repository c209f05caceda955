package piontransport

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/pion/logging"
	"github.com/pion/transport/v3/vnet"

	"bsdnet"
	"bsdnet/udptunnel"
)

// TestTunnelOverVnet has the UDP tunnel over Pion's virtual network: one end is behind a NAT, and a
// filter of the router drops each twentieth datagram. A stack at one end fetches from the other.
func TestTunnelOverVnet(t *testing.T) {
	wan, lan := virtualNetwork(t)
	key := bytes.Repeat([]byte{7}, 32)
	server := overTunnel(t, wan, "1.2.3.1:5180", "10.9.0.1/24", udptunnel.Config{Key: key})
	client := overTunnel(t, lan, "192.168.0.2:0", "10.9.0.2/24", udptunnel.Config{Key: key, Peer: "1.2.3.1:5180"})

	ln, err := server.Listen("tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("over Pion's network"), 10_000)
	go func() {
		if c, err := ln.Accept(); err == nil {
			c.Write(want)
			c.Close()
		}
	}()
	c, err := client.Dial("tcp", "10.9.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want) {
		t.Errorf("read %d bytes of %d, %v", len(got), len(want), err)
	}
}

// overTunnel returns a stack at the end of a tunnel whose datagrams go over a virtual network.
func overTunnel(t *testing.T, from *vnet.Net, local, address string, c udptunnel.Config) *bsdnet.Stack {
	conn, err := from.ListenPacket("udp4", local)
	if err != nil {
		t.Fatal(err)
	}
	c.Conn = conn
	link, err := udptunnel.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	s, err := bsdnet.New(bsdnet.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.Attach(link, netip.MustParsePrefix(address)); err != nil {
		t.Fatal(err)
	}
	return s
}

// virtualNetwork returns a host on a network, and one on another that a NAT connects to it.
func virtualNetwork(t *testing.T) (wan, lan *vnet.Net) {
	logs := logging.NewDefaultLoggerFactory()
	outer, err := vnet.NewRouter(&vnet.RouterConfig{CIDR: "1.2.3.0/24", LoggerFactory: logs})
	if err != nil {
		t.Fatal(err)
	}
	inner, err := vnet.NewRouter(&vnet.RouterConfig{
		CIDR: "192.168.0.0/24", StaticIPs: []string{"1.2.3.9"}, LoggerFactory: logs,
		NATType: &vnet.NATType{FilteringBehavior: vnet.EndpointAddrPortDependent},
	})
	if err != nil {
		t.Fatal(err)
	}
	wan, lan = virtualHost(t, outer, "1.2.3.1"), virtualHost(t, inner, "192.168.0.2")
	if err := outer.AddRouter(inner); err != nil {
		t.Fatal(err)
	}
	var n atomic.Int64
	outer.AddChunkFilter(func(c vnet.Chunk) bool {
		if src, ok := c.SourceAddr().(*net.UDPAddr); ok && src.IP.Equal(net.IPv4(192, 168, 0, 2)) {
			t.Errorf("%v has passed the NAT as it was", c)
		}
		return n.Add(1)%20 != 0
	})
	if err := outer.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { outer.Stop() })
	return wan, lan
}

func virtualHost(t *testing.T, r *vnet.Router, ip string) *vnet.Net {
	n, err := vnet.NewNet(&vnet.NetConfig{StaticIPs: []string{ip}})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.AddNet(n); err != nil {
		t.Fatal(err)
	}
	return n
}
