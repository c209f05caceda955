package main

import (
	"net"
	"net/netip"
	"reflect"

	"bsdnet"
	"bsdnet/netem"
)

// The addresses of the two ends outside of the loopback.
var (
	serverPrefix = netip.MustParsePrefix("10.77.0.1/24")
	clientPrefix = netip.MustParsePrefix("10.77.0.2/24")
)

// openBsdnet is one stack and its loopback, as it comes.
func openBsdnet(cc congestion) (*network, error) {
	s, err := newBsdnet(cc)
	if err != nil {
		return nil, err
	}
	return bsdnetNetwork(s, s, "127.0.0.1:0"), nil
}

// newBsdnet makes a stack. These sources can be built with a bsdnet that is older than its choice of a congestion control, to measure the two side by
// side; hence the reflection.
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

// openBsdnetPair is two stacks on a cable with Ethernet's MTU.
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

// bsdnetAt makes a stack with one link, which it closes in case of an error.
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
