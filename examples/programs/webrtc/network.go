package main

import (
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/pion/logging"
	"github.com/pion/turn/v4"

	"bsdnet"
	"bsdnet/netem"
	"bsdnet/piontransport"
)

// The relay's address on either cable, and what its clients need to be let in.
const (
	relayAddress = "10.0.0.254"
	realm        = "bsdnet"
	user         = "peer"
	password     = "secret"
)

// A trio is the three hosts.
type trio struct{ a, b, relay *bsdnet.Stack }

// network makes the hosts and their cables. The one of a is bad in both directions.
func network() (h trio, stop func(), err error) {
	for _, s := range []**bsdnet.Stack{&h.a, &h.b, &h.relay} {
		if *s, err = bsdnet.New(bsdnet.Config{}); err != nil {
			return h, nil, err
		}
	}
	stop = func() { h.a.Close(); h.b.Close(); h.relay.Close() }
	way := netem.Impairment{Delay: time.Millisecond, Jitter: 100 * time.Microsecond, Loss: 0.0005}
	if err = cable(h.a, "10.0.0.1/32", h.relay, relayAddress+"/32", netem.Path{Write: way, Read: way, Seed: 4}); err == nil {
		err = cable(h.b, "10.0.0.2/32", h.relay, "10.0.1.254/32", netem.Path{})
	}
	if err != nil {
		stop()
		return h, nil, err
	}
	return h, stop, nil
}

// cable connects a peer to the relay, which is its only way.
func cable(peer *bsdnet.Stack, address string, relay *bsdnet.Stack, relayAddress string, path netem.Path) error {
	x, y, err := netem.Pipe(netem.PipeConfig{})
	if err != nil {
		return err
	}
	bad, err := netem.Impair(x, path)
	if err != nil {
		return err
	}
	host := netip.MustParsePrefix(address)
	if err := peer.Attach(bad, host); err != nil {
		return err
	}
	if err := peer.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), bad); err != nil {
		return err
	}
	if err := relay.Attach(y, netip.MustParsePrefix(relayAddress)); err != nil {
		return err
	}
	return relay.AddRoute(host, y)
}

// turnServer runs a TURN server on the relay.
func turnServer(stack *bsdnet.Stack) (*turn.Server, error) {
	conn, err := stack.ListenPacket("udp4", "0.0.0.0:3478")
	if err != nil {
		return nil, err
	}
	return turn.NewServer(turn.ServerConfig{
		Realm: realm,
		// When the server is closed, it reports that each allocation was closed already.
		LoggerFactory: &logging.DefaultLoggerFactory{Writer: io.Discard, DefaultLogLevel: logging.LogLevelDisabled},
		AuthHandler: func(name, realm string, _ net.Addr) ([]byte, bool) {
			return turn.GenerateAuthKey(name, realm, password), name == user
		},
		PacketConnConfigs: []turn.PacketConnConfig{{
			PacketConn: conn,
			RelayAddressGenerator: &turn.RelayAddressGeneratorStatic{
				RelayAddress: net.ParseIP(relayAddress), Address: "0.0.0.0", Net: piontransport.New(stack),
			},
		}},
	})
}
