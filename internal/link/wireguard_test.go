package link_test

import (
	"net/netip"
	"strconv"
	"testing"
	"time"

	"bsdnet/internal/link"
	"bsdnet/wireguard"
)

// The WireGuard link is of a package that stands on the facade, and keeps the contract that all links keep.
func TestWireGuardContract(t *testing.T) {
	all := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}
	link.TestLink(t, func() (a, b link.Link) {
		sa, sb := wireguard.NewSecret(), wireguard.NewSecret()
		x, err := wireguard.Open(&wireguard.Config{PrivateKey: sa, Addresses: all, Peers: []wireguard.Peer{{PublicKey: sb.Public(), AllowedIPs: all}}})
		if err != nil {
			panic(err)
		}
		y, err := wireguard.Open(&wireguard.Config{PrivateKey: sb, Addresses: all, Peers: []wireguard.Peer{
			{PublicKey: sa.Public(), AllowedIPs: all, Endpoint: "127.0.0.1:" + strconv.Itoa(x.Port()), PersistentKeepalive: 25 * time.Second},
		}})
		if err != nil {
			panic(err)
		}
		// Before the handshake the device keeps 128 packets, and the contract may have more under way. A keepalive has begun it.
		for _, l := range []*wireguard.Link{x, y} {
			for end := time.Now().Add(time.Minute); len(l.Peers()) == 0 || l.Peers()[0].LastHandshake.IsZero(); time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					panic("no handshake")
				}
			}
		}
		return y, x
	}, "Full") // that fills the link, and behind this one's queue is a network that drops what is too much; package wireguard tests its back-pressure
}
