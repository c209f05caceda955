package link_test

import (
	"net/netip"
	"strconv"
	"testing"

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
			{PublicKey: sa.Public(), AllowedIPs: all, Endpoint: "127.0.0.1:" + strconv.Itoa(x.Port())},
		}})
		if err != nil {
			panic(err)
		}
		return y, x
	})
}
