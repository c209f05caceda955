// Package cable makes the two hosts of each program in this module: a server and a client, each a
// stack of its own, with a cable between them that is as long as one from Frankfurt to Lisbon and
// loses one packet in a hundred.
package cable

import (
	"net/netip"
	"time"

	"bsdnet"
	"bsdnet/netem"
)

// The server's address.
const Server = "10.0.0.1"

// The cable: what it does to packets of either direction.
var way = netem.Impairment{Delay: 20 * time.Millisecond, Loss: 0.01}

// Pair returns the two hosts. seed decides which packets are lost. stop ends both stacks.
func Pair(seed uint64) (server, client *bsdnet.Stack, stop func(), err error) {
	a, b, err := netem.Pipe(netem.PipeConfig{})
	if err != nil {
		return nil, nil, nil, err
	}
	bad, err := netem.Impair(a, netem.Path{Write: way, Read: way, Seed: seed})
	if err != nil {
		return nil, nil, nil, err
	}
	if server, err = host(bad, Server+"/24"); err != nil {
		return nil, nil, nil, err
	}
	if client, err = host(b, "10.0.0.2/24"); err != nil {
		server.Close()
		return nil, nil, nil, err
	}
	return server, client, func() { client.Close(); server.Close() }, nil
}

// host makes a stack with one link.
func host(link bsdnet.Link, address string) (*bsdnet.Stack, error) {
	s, err := bsdnet.New(bsdnet.Config{})
	if err != nil {
		return nil, err
	}
	if err := s.Attach(link, netip.MustParsePrefix(address)); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}
