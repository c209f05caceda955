package main

import (
	"net"
	"net/netip"
	"reflect"

	"bsdnet"
	"bsdnet/netem"
)

// These are the addresses of the two ends in scenes other than memory.
var (
	serverPrefix = netip.MustParsePrefix("10.77.0.1/24")
	clientPrefix = netip.MustParsePrefix("10.77.0.2/24")
)

// openBsdnet makes one stack with its loopback and no further settings.
func openBsdnet(cc congestion) (*network, error) {
	s, err := newBsdnet(cc)
	if err != nil {
		return nil, err
	}
	n := bsdnetNetwork(s, s, "127.0.0.1:0")
	n.packets = func() (client, server packetConn, err error) {
		return packetPair(listenBsdnet(s), "127.0.0.1:0", listenBsdnet(s), "127.0.0.1:0")
	}
	return n, nil
}

// newBsdnet makes a stack. It uses reflection, so that these sources can be built with an older
// bsdnet that has no choice of congestion control, and the two can be compared.
func newBsdnet(cc congestion) (*bsdnet.Stack, error) {
	var c bsdnet.Config
	if f := reflect.ValueOf(&c.TCP).Elem().FieldByName("CongestionControl"); f.IsValid() {
		f.SetString(cc.bsdnet)
	}
	return bsdnet.New(c)
}

func bsdnetNetwork(server, client *bsdnet.Stack, at string) *network {
	return &network{
		listen: func() (net.Listener, error) { return server.Listen("tcp", at) },
		dial:   func(address string) (net.Conn, error) { return client.Dial("tcp", address) },
		close:  func() { client.Close(); server.Close() },
	}
}

// openBsdnetPair makes two stacks on a cable with Ethernet's MTU.
func openBsdnetPair(cc congestion) (*network, error) {
	a, b, err := netem.Pipe(netem.PipeConfig{MTU: 1500})
	if err != nil {
		return nil, err
	}
	return bsdnetOver(cc, a, b)
}

// bsdnetOver makes two stacks, the server's at link a and the client's at b.
func bsdnetOver(cc congestion, a, b bsdnet.Link) (*network, error) {
	server, err := bsdnetAt(cc, a, serverPrefix)
	if err != nil {
		return nil, err
	}
	client, err := bsdnetAt(cc, b, clientPrefix)
	if err != nil {
		server.Close()
		return nil, err
	}
	return bsdnetNetwork(server, client, serverPrefix.Addr().String()+":0"), nil
}

// bsdnetAt makes a stack with one link. If it fails, it closes the link.
func bsdnetAt(cc congestion, l bsdnet.Link, p netip.Prefix) (*bsdnet.Stack, error) {
	s, err := newBsdnet(cc)
	if err != nil {
		l.Close()
		return nil, err
	}
	if err := s.Attach(l, p); err != nil {
		l.Close()
		s.Close()
		return nil, err
	}
	return s, nil
}

// listenBsdnet returns a function that makes a socket of a stack's UDP.
func listenBsdnet(s *bsdnet.Stack) func(address string) (packetConn, error) {
	return func(address string) (packetConn, error) {
		c, err := s.ListenPacket("udp4", address)
		if err != nil {
			return nil, err
		}
		return c.(*bsdnet.UDPConn), nil
	}
}
